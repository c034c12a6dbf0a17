//! A copy into files: an OCI layout in a directory, or an archive of one. The index, which names what is there, comes last.

use std::collections::HashSet;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use futures_util::StreamExt as _;
use tokio::runtime::Handle;

use crate::image::Error;
use crate::image::archive::{ArchiveFormat, ArchiveWriter, LayoutWriter, names_of_entry};
use crate::image::daemon::Daemon;
use crate::image::export::write_file;
use crate::oci::{Descriptor, Digest, Hasher, Manifest, ManifestOrIndex, Reference};
use crate::progress::{Meter, StepProgress};
use crate::registry::ByteStream;
use crate::task::{CancellationToken, blocking};

use super::source::{DIR_MANIFEST, name_in_dir};
use super::{Collection, Source};

/// Copies into a layout, which is made where it is missing. What it holds already stays, but for an entry of the same tag.
///
/// # Errors
/// The source, the file system.
pub async fn to_layout(source: &Source, what: Collection, dir: &Path, tag: Option<&str>, progress: &StepProgress) -> Result<(), Error> {
    let entries = entries(&what, tag.map(Name::Tag));
    let (dir, mut work) = (dir.to_owned(), Work::new(source, what, progress));
    let _stop = work.stop.clone().drop_guard();
    blocking(move || {
        let layout = LayoutWriter::open(&dir)?;
        work.each_file(|blob, bytes| layout.blob(blob, bytes))?;
        layout.finish(&entries)
    })
    .await
}

/// Copies into a directory as containers' `dir:` has it; files of the same names are replaced, and the manifest comes last.
///
/// # Errors
/// The source, the file system.
pub async fn to_dir(source: &Source, what: Collection, dir: &Path, progress: &StepProgress) -> Result<(), Error> {
    let root = what.root.digest.clone();
    let manifests: HashSet<Digest> = what.documents.iter().map(|document| document.descriptor.digest.clone()).collect();
    let (dir, mut work) = (dir.to_owned(), Work::new(source, what, progress));
    let _stop = work.stop.clone().drop_guard();
    blocking(move || {
        let write = |name: &Path, bytes: &mut dyn Read| {
            let path = dir.join(name);
            let failed = |source| Error::Io { action: "write", path: path.clone(), source };
            write_file(&path, |out| io::copy(bytes, out).map(drop).map_err(failed))
        };
        std::fs::create_dir_all(&dir).map_err(|source| Error::Io { action: "make", path: dir.clone(), source })?;
        write(Path::new("version"), &mut &b"Directory Transport Version: 1.1\n"[..])?;
        work.each_file(|blob, bytes| match manifests.contains(&blob.digest) {
            true if blob.digest == root => write(Path::new(DIR_MANIFEST), bytes),
            true => write(&name_in_dir(&blob.digest, ".manifest.json"), bytes),
            false => write(&name_in_dir(&blob.digest, ""), bytes),
        })
    })
    .await
}

/// Where an archive goes.
#[derive(Clone, Debug)]
pub enum ArchiveSink {
    /// Into a file; `-` is standard output.
    File(PathBuf),
    /// To a Docker daemon, which loads it.
    Daemon(Daemon),
}

impl ArchiveSink {
    fn write(&self, write: impl FnOnce(&mut dyn Write) -> Result<(), Error>) -> Result<(), Error> {
        match self {
            ArchiveSink::File(path) => write_file(path, write),
            ArchiveSink::Daemon(daemon) => daemon.load(write),
        }
    }
}

/// Copies into an archive. The image has the name `name` there, and those of `more`.
///
/// # Errors
/// The source, the file or the daemon; for Docker's format, what is copied is not one image.
pub async fn to_archive(
    source: &Source,
    what: Collection,
    format: ArchiveFormat,
    to: ArchiveSink,
    name: Option<Name<'_>>,
    more: &[Reference],
    progress: &StepProgress,
) -> Result<(), Error> {
    let mut entries = entries(&what, name.clone());
    for name in more {
        let annotations = names_of_entry(Some(&name.to_string()), name.tag().unwrap_or("latest"));
        entries.push(Descriptor { annotations, ..what.root.clone() });
    }
    let names: Vec<Reference> = name.iter().filter_map(|name| name.whole().cloned()).chain(more.iter().cloned()).collect();
    let docker = match format {
        ArchiveFormat::Docker => Some(image_of(&what, source)?),
        ArchiveFormat::Oci => None,
    };
    let mut work = Work::new(source, what, progress);
    let _stop = work.stop.clone().drop_guard();
    blocking(move || {
        to.write(|out| {
            let mut archive = ArchiveWriter::begin(out)?;
            work.each_file(|blob, bytes| archive.blob(blob, bytes))?;
            archive.finish(&entries, docker.as_deref().map(|manifest| vec![(manifest, names.as_slice())]).as_deref())
        })
    })
    .await
}

/// What an image is called in a layout.
#[derive(Clone, Debug)]
pub enum Name<'a> {
    /// A tag.
    Tag(&'a str),
    /// A whole name.
    Whole(&'a Reference),
}

impl Name<'_> {
    fn whole(&self) -> Option<&Reference> {
        match self {
            Name::Tag(_) => None,
            Name::Whole(reference) => Some(reference),
        }
    }
}

/// The entries of the layout's index: what was asked for, then what is about it.
fn entries(what: &Collection, name: Option<Name<'_>>) -> Vec<Descriptor> {
    let mut root = what.root.clone();
    match name {
        None => {}
        Some(Name::Tag(tag)) => root.annotations.extend(names_of_entry(None, tag)),
        Some(Name::Whole(reference)) => {
            root.annotations.extend(names_of_entry(Some(&reference.to_string()), reference.tag().unwrap_or("latest")));
        }
    }
    std::iter::once(root).chain(what.referrers.iter().cloned()).collect()
}

/// The manifest of the one image that there is.
fn image_of(what: &Collection, source: &Source) -> Result<Box<Manifest>, Error> {
    let document = what.documents.iter().find(|document| document.descriptor.digest == what.root.digest);
    let parsed = document.map(|document| ManifestOrIndex::parse(&document.bytes, Some(&document.descriptor.media_type)));
    match parsed {
        Some(Ok(ManifestOrIndex::Manifest(manifest))) => Ok(manifest),
        _ => {
            let reason = "it is an index of several, and a `docker-archive` holds one: choose a platform".to_owned();
            Err(Error::NotAnImage { name: source.name(), reason })
        }
    }
}

/// What the thread that writes needs.
struct Work {
    source: Source,
    what: Collection,
    meters: Vec<Meter>,
    handle: Handle,
    /// Set when nobody waits for the result any more.
    stop: CancellationToken,
}

impl Work {
    fn new(source: &Source, what: Collection, progress: &StepProgress) -> Work {
        let meters = what.blobs.iter().map(|blob| progress.meter(format!("blob {}", blob.digest.short()), blob.size)).collect();
        Work { source: source.clone(), what, meters, handle: Handle::current(), stop: CancellationToken::new() }
    }

    /// Hands over every blob and every document, with the bytes of each checked when it has been read to its end.
    fn each_file(&mut self, mut write: impl FnMut(&Descriptor, &mut dyn Read) -> Result<(), Error>) -> Result<(), Error> {
        for (blob, meter) in self.what.blobs.iter().zip(&self.meters) {
            let failed = |source| Error::Io { action: "read", path: blob.digest.to_string().into(), source };
            let stream = self.source.blob(blob).open_at(0).map_err(failed)?;
            let pieces = Pieces { stream, handle: self.handle.clone(), stop: self.stop.clone(), piece: Bytes::new() };
            let mut checked = Checked::new(pieces, blob, meter);
            write(blob, &mut checked)?;
            meter.done();
        }
        for document in &self.what.documents {
            let size = document.bytes.len() as u64;
            write(&Descriptor { size, ..document.descriptor.clone() }, &mut &document.bytes[..])?;
        }
        Ok(())
    }
}

/// A stream as a blocking reader.
struct Pieces {
    stream: ByteStream,
    handle: Handle,
    stop: CancellationToken,
    piece: Bytes,
}

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() {
            let (stream, stop) = (&mut self.stream, &self.stop);
            let next = self.handle.block_on(async {
                tokio::select! {
                    piece = stream.next() => Ok(piece),
                    () = stop.cancelled() => Err(io::Error::other("the copy was stopped")),
                }
            });
            match next? {
                None => return Ok(0),
                Some(piece) => self.piece = piece?,
            }
        }
        let count = buffer.len().min(self.piece.len());
        buffer[..count].copy_from_slice(&self.piece.split_to(count));
        Ok(count)
    }
}

/// Hashes what is read, and ends with an error where that is not what was announced. It knows where the bytes end, so a reader that stops after the
/// announced size has read checked ones.
struct Checked<'a, R> {
    inner: R,
    expected: &'a Descriptor,
    hasher: Option<Hasher>,
    left: u64,
    meter: &'a Meter,
}

impl<'a, R: Read> Checked<'a, R> {
    fn new(inner: R, expected: &'a Descriptor, meter: &'a Meter) -> Checked<'a, R> {
        Checked { inner, expected, hasher: Some(Hasher::new(expected.digest.algorithm())), left: expected.size, meter }
    }

    /// Called when the announced bytes have come: there must be no more, and they must be right.
    fn check(&mut self) -> io::Result<()> {
        let Some(hasher) = self.hasher.take() else { return Ok(()) };
        let wrong = |what: String| Err(io::Error::new(io::ErrorKind::InvalidData, what));
        let (digest, size) = (&self.expected.digest, self.expected.size);
        if self.inner.read(&mut [0])? != 0 {
            return wrong(format!("the blob {digest} is longer than the {size} bytes that were announced"));
        }
        match hasher.finish() {
            actual if actual == *digest => Ok(()),
            actual => wrong(format!("the blob hashes to {actual}, not to {digest}")),
        }
    }
}

impl<R: Read> Read for Checked<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let limit = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        if limit == 0 {
            return self.check().map(|()| 0);
        }
        let count = self.inner.read(&mut buffer[..limit])?;
        if count == 0 {
            let (digest, size) = (&self.expected.digest, self.expected.size);
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, format!("the blob {digest} ends before its {size} bytes")));
        }
        if let Some(hasher) = &mut self.hasher {
            hasher.update(&buffer[..count]);
        }
        self.left -= count as u64;
        self.meter.add(count as u64);
        if self.left == 0 {
            // Now rather than at the next call: whoever knows the size does not ask again.
            self.check()?;
        }
        Ok(count)
    }
}
