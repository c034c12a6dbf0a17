//! Reading archives: `docker save` in its old and its new form, and OCI layouts in a tar, compressed or not.
//!
//! Entries come in any order, and what they are is said by files that may come last. So every file goes into the store at once, under the digest of its
//! bytes, and the few documents into memory; then the documents say which of them are images. What no image needs is garbage for the next prune.

use std::collections::HashMap;
use std::io::Read;

use crate::image::Error;
use crate::image::layer::{Error as LayerError, Member, MemberKind, TarReader, decompressor};
use crate::oci::Digest;
use crate::store::{Ingest, IngestWriter, Store};

/// The files that say what the others are.
const DOCUMENTS: [&str; 4] = ["index.json", "manifest.json", "oci-layout", "repositories"];

/// How large one of those may be.
const MAX_DOCUMENT: u64 = 16 << 20;

/// How many files an archive may have.
const MAX_ENTRIES: usize = 200_000;

/// How long an extended header may be: names, here.
const MAX_HEADER: u64 = 64 << 10;

/// How many links may lead from one to the next.
const MAX_LINKS: usize = 8;

/// The files of an archive, all of them in the store.
pub(crate) struct Spooled {
    documents: HashMap<String, Vec<u8>>,
    files: HashMap<String, Entry>,
}

enum Entry {
    Blob(Digest),
    Link(String),
}

impl Spooled {
    /// One of the documents at the top.
    pub(crate) fn document(&self, name: &str) -> Option<&[u8]> {
        self.documents.get(name).map(Vec::as_slice)
    }

    /// The blob that the file `name` has become.
    pub(crate) fn blob(&self, name: &str) -> Option<&Digest> {
        let mut name = clean(name.as_bytes(), "")?;
        for _ in 0..MAX_LINKS {
            match self.files.get(&name)? {
                Entry::Blob(digest) => return Some(digest),
                Entry::Link(target) => name.clone_from(target),
            }
        }
        None
    }
}

/// Reads an archive to its end and stores its files.
pub(crate) fn spool(store: &Store, archive: impl Read + Send + 'static) -> Result<Spooled, Error> {
    let failed = |source| Error::Archive { source };
    let tar = decompressor(archive, None).map_err(|source| failed(LayerError::Read { source }))?;
    let mut tar = TarReader::unhashed(tar, MAX_HEADER);
    let mut spooled = Spooled { documents: HashMap::new(), files: HashMap::new() };
    let mut entries = 0;
    while let Some(member) = tar.next().map_err(failed)? {
        entries += 1;
        if entries > MAX_ENTRIES {
            return Err(bad(format!("it has more than {MAX_ENTRIES} files")));
        }
        let Some(name) = clean(&member.name, "") else {
            return Err(bad(format!("the name `{}` leads out of it", shown(&member.name))));
        };
        match member.kind {
            MemberKind::File => spool_file(store, &mut tar, &member, name, &mut spooled)?,
            MemberKind::HardLink | MemberKind::Symlink => {
                let folder = name.rsplit_once('/').map_or("", |(folder, _)| folder);
                let from = if member.kind == MemberKind::Symlink { folder } else { "" };
                // What a link that leads out of the archive stands for is missing, which is an error if it is wanted.
                if let Some(target) = clean(&member.link, from) {
                    spooled.files.insert(name, Entry::Link(target));
                }
            }
            _ => {}
        }
    }
    if entries == 0 {
        return Err(bad("it is empty".into()));
    }
    Ok(spooled)
}

fn spool_file<R: Read>(store: &Store, tar: &mut TarReader<R>, member: &Member, name: String, spooled: &mut Spooled) -> Result<(), Error> {
    if member.sparse.is_some() {
        return Err(bad(format!("`{name}` is a sparse file")));
    }
    if DOCUMENTS.contains(&name.as_str()) {
        if member.size > MAX_DOCUMENT {
            return Err(bad(format!("`{name}` has {} bytes, which is too much", member.size)));
        }
        let mut bytes = Vec::new();
        each_chunk(tar, |chunk| {
            bytes.extend_from_slice(chunk);
            Ok(())
        })?;
        spooled.documents.insert(name, bytes);
        return Ok(());
    }
    // Docker's old form has these beside each layer, for versions before 1.10.
    if name.ends_with("/json") || name.ends_with("/VERSION") {
        return Ok(());
    }
    let stated = stated_digest(&name);
    let digest = match begin(store, stated.as_ref())? {
        None => stated,
        Some(mut writer) => {
            let written = writer.restart().map_err(Error::from).and_then(|()| each_chunk(tar, |chunk| Ok(writer.append(chunk)?)));
            if let Err(error) = written {
                writer.abort();
                return Err(error);
            }
            match stated {
                Some(stated) => writer.commit(&stated, member.size).map(|()| Some(stated))?,
                None => Some(writer.commit_as_is()?),
            }
        }
    };
    if let Some(digest) = digest {
        spooled.files.insert(name, Entry::Blob(digest));
    }
    Ok(())
}

/// Begins to write a blob; `None` where one of the stated digest is there.
pub(crate) fn begin(store: &Store, stated: Option<&Digest>) -> Result<Option<IngestWriter>, Error> {
    let mut ingest = store.ingest(stated)?;
    loop {
        match ingest {
            Ingest::Ready(writer) => return Ok(Some(writer)),
            Ingest::Present(_) => return Ok(None),
            Ingest::Busy(busy) => ingest = busy.wait()?,
        }
    }
}

fn each_chunk<R: Read>(tar: &mut TarReader<R>, mut take: impl FnMut(&[u8]) -> Result<(), Error>) -> Result<(), Error> {
    loop {
        let chunk = tar.data().map_err(|source| Error::Archive { source })?;
        if chunk.is_empty() {
            return Ok(());
        }
        take(chunk)?;
        let count = chunk.len();
        tar.consume(count);
    }
}

/// The digest that a blob's path in an OCI layout states.
fn stated_digest(name: &str) -> Option<Digest> {
    let (algorithm, hex) = name.strip_prefix("blobs/")?.split_once('/')?;
    format!("{algorithm}:{hex}").parse().ok()
}

/// A path from the archive's top, without `.` and `..`; `None` where it leads out. `folder` is where relative ones begin.
pub(crate) fn clean(name: &[u8], folder: &str) -> Option<String> {
    let name = std::str::from_utf8(name).ok()?;
    let mut parts: Vec<&str> = if name.starts_with('/') { Vec::new() } else { folder.split('/').filter(|part| !part.is_empty()).collect() };
    for part in name.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

fn shown(name: &[u8]) -> String {
    String::from_utf8_lossy(name).chars().map(|c| if c.is_control() { ' ' } else { c }).take(200).collect()
}

/// The error that an archive is none that we know.
pub(crate) fn bad(reason: String) -> Error {
    Error::NotAnArchive { reason }
}
