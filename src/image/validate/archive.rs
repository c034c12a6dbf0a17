//! The images of an archive, where they are: read once from its beginning to its end, since what its files are may be said by the last of them. Nothing is kept but what
//! each file hashes to, and the documents.

use std::collections::{HashMap, HashSet};
use std::io::{Read, Write};
use std::sync::Arc;
use std::thread::JoinHandle;

use crate::image::Error;
use crate::image::archive::{bad, clean};
use crate::image::layer::{Error as LayerError, Member, MemberKind, TarReader, decompressor};
use crate::image::load::DockerEntry;
use crate::oci::{Algorithm, Descriptor, DiffId, Digest, Hasher, ImageConfig, Index, Manifest, ManifestOrIndex, MediaType, Platform};

use super::bytes::diff_id_of;
use super::{Bad, Fault, MAX_NESTING, Validation, config_faults, of_platform};

/// How large a document may be, and all of them together.
const MAX_DOCUMENT: u64 = 16 << 20;
const MAX_DOCUMENTS: usize = 256 << 20;

/// How many files an archive may have.
const MAX_ENTRIES: usize = 200_000;

/// How long an extended header of the archive may be: names, here.
const MAX_HEADER: u64 = 64 << 10;

/// How many links may lead from one to the next.
const MAX_LINKS: usize = 8;

/// What is known of a file.
struct Facts {
    digest: Digest,
    size: u64,
    /// Its bytes, where it looks like a document.
    document: Option<Vec<u8>>,
    /// What it unpacks to, where it looks like none.
    unpacked: Option<Result<DiffId, Arc<LayerError>>>,
}

/// Looks at all images of an archive, an OCI layout or one of `docker save`.
///
/// # Errors
/// It is no archive of images.
pub fn validate_archive(archive: impl Read + Send + 'static, again: Option<&Reopen<'_>>) -> Result<Validation, Error> {
    let walk = walk(archive, Algorithm::default())?;
    let mut found = walk.found;
    if let Some((digest, what)) = walk.other {
        match again {
            Some(open) => found.bad.extend(self::walk(open()?, Algorithm::Sha512)?.found.bad.into_iter().filter(is_about_sha512)),
            None => {
                found.note(&digest, &what, Fault::Unreadable("its diff ID is by sha512, for which the archive has to be a file".into()))
            }
        }
    }
    Ok(found)
}

/// Opens the archive once more: diff IDs by sha512, which are rare, take reading it again.
pub type Reopen<'a> = dyn Fn() -> Result<Box<dyn Read + Send>, Error> + 'a;

/// What only the second reading can tell.
fn is_about_sha512(bad: &Bad) -> bool {
    matches!(&bad.fault, Fault::DiffId { expected, .. } if expected.algorithm() == Algorithm::Sha512)
}

/// Reads an archive; layers are compared with those of their diff IDs that are by `algorithm`.
fn walk(archive: impl Read + Send + 'static, algorithm: Algorithm) -> Result<Walk, Error> {
    let mut files = Files::read(archive, algorithm)?;
    let (index, docker) = (files.take_document("index.json"), files.take_document("manifest.json"));
    let mut walk = Walk { files, seen: HashSet::new(), found: Validation::default(), other: None };
    let malformed = |name: &str, error: serde_json::Error| bad(format!("its `{name}` is malformed: {error}"));
    if index.is_none() && docker.is_none() {
        return Err(bad("it has neither `manifest.json` nor `index.json`".into()));
    }
    if let Some(bytes) = index {
        let index: Index = serde_json::from_slice(&bytes).map_err(|error| malformed("index.json", error))?;
        index.manifests.iter().for_each(|entry| walk.document(entry, 0));
    }
    if let Some(bytes) = docker {
        let entries: Vec<DockerEntry> = serde_json::from_slice(&bytes).map_err(|error| malformed("manifest.json", error))?;
        entries.iter().for_each(|entry| walk.docker_entry(entry));
    }
    Ok(walk)
}

/// The files of an archive by name.
#[derive(Default)]
struct Files {
    files: HashMap<String, Facts>,
    links: HashMap<String, String>,
}

impl Files {
    fn read(archive: impl Read + Send + 'static, algorithm: Algorithm) -> Result<Files, Error> {
        let failed = |source| Error::Archive { source };
        let tar = decompressor(archive, None).map_err(|source| failed(LayerError::Read { source }))?;
        let mut tar = TarReader::unhashed(tar, MAX_HEADER);
        let (mut found, mut documents) = (Files::default(), 0);
        while let Some(member) = tar.next().map_err(failed)? {
            if found.files.len() + found.links.len() >= MAX_ENTRIES {
                return Err(bad(format!("it has more than {MAX_ENTRIES} files")));
            }
            let Some(name) = clean(&member.name, "") else { continue };
            match member.kind {
                MemberKind::File => {
                    let facts = read_file(&mut tar, &member, &name, algorithm)?;
                    documents += facts.document.as_ref().map_or(0, Vec::len);
                    if documents > MAX_DOCUMENTS {
                        return Err(bad(format!("its documents have more than {MAX_DOCUMENTS} bytes")));
                    }
                    found.files.insert(name, facts);
                }
                MemberKind::HardLink | MemberKind::Symlink => {
                    let folder = name.rsplit_once('/').map_or("", |(folder, _)| folder);
                    let from = if member.kind == MemberKind::Symlink { folder } else { "" };
                    found.links.extend(clean(&member.link, from).map(|target| (name, target)));
                }
                _ => {}
            }
        }
        Ok(found)
    }

    fn get(&self, name: &str) -> Option<&Facts> {
        let mut name = clean(name.as_bytes(), "")?;
        for _ in 0..MAX_LINKS {
            match self.files.get(&name) {
                Some(facts) => return Some(facts),
                None => name.clone_from(self.links.get(&name)?),
            }
        }
        None
    }

    fn blob(&self, digest: &Digest) -> Option<&Facts> {
        self.get(&format!("blobs/{}/{}", digest.algorithm().name(), digest.hex()))
    }

    fn take_document(&mut self, name: &str) -> Option<Vec<u8>> {
        self.files.remove(name)?.document
    }
}

/// Hashes a file, and at the same time what it unpacks to (by `unpacked`).
fn read_file<R: Read>(tar: &mut TarReader<R>, member: &Member, name: &str, unpacked: Algorithm) -> Result<Facts, Error> {
    let algorithm = if name.starts_with("blobs/sha512/") { Algorithm::Sha512 } else { Algorithm::Sha256 };
    let (mut hasher, mut size) = (Hasher::new(algorithm), 0);
    let (mut document, mut unpacking): (Option<Vec<u8>>, Option<Unpacking>) = (None, None);
    loop {
        let chunk = tar.data().map_err(|source| Error::Archive { source })?;
        if chunk.is_empty() {
            break;
        }
        if size == 0 {
            match chunk[0] {
                b'{' | b'[' if member.size <= MAX_DOCUMENT => document = Some(Vec::new()),
                _ => unpacking = Some(Unpacking::start(unpacked)?),
            }
        }
        hasher.update(chunk);
        if let Some(document) = &mut document {
            document.extend_from_slice(chunk);
        }
        if let Some(unpacking) = &mut unpacking {
            unpacking.feed(chunk);
        }
        let count = chunk.len();
        size += count as u64;
        tar.consume(count);
    }
    Ok(Facts { digest: hasher.finish(), size, document, unpacked: unpacking.map(|unpacking| unpacking.finish().map_err(Arc::new)) })
}

/// Another thread that unpacks what it is fed.
struct Unpacking {
    /// Gone where the other end does not want any more.
    writer: Option<std::io::PipeWriter>,
    thread: JoinHandle<Result<DiffId, LayerError>>,
}

impl Unpacking {
    fn start(algorithm: Algorithm) -> Result<Unpacking, Error> {
        let failed = |source| Error::Io { action: "make", path: "a pipe".into(), source };
        let (reader, writer) = std::io::pipe().map_err(failed)?;
        Ok(Unpacking { writer: Some(writer), thread: std::thread::spawn(move || diff_id_of(reader, algorithm)) })
    }

    fn feed(&mut self, chunk: &[u8]) {
        if self.writer.as_mut().is_some_and(|writer| writer.write_all(chunk).is_err()) {
            self.writer = None;
        }
    }

    fn finish(self) -> Result<DiffId, LayerError> {
        drop(self.writer);
        self.thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

struct Walk {
    files: Files,
    seen: HashSet<Digest>,
    found: Validation,
    /// A layer whose diff ID is by another algorithm, and what it is.
    other: Option<(Digest, String)>,
}

impl Walk {
    fn document(&mut self, at: &Descriptor, nesting: usize) {
        if !self.seen.insert(at.digest.clone()) {
            return;
        }
        self.found.manifests += 1;
        let what = if at.media_type.is_index() { "index".to_owned() } else { format!("manifest{}", of_platform(at.platform.as_ref())) };
        let parsed = match self.checked(at) {
            Ok(bytes) => ManifestOrIndex::parse(bytes, Some(&at.media_type)).map_err(Fault::Manifest),
            Err(fault) => Err(fault),
        };
        match parsed {
            Err(fault) => self.found.note(&at.digest, &what, fault),
            Ok(ManifestOrIndex::Manifest(manifest)) => self.manifest(&manifest, at.platform.as_ref()),
            Ok(ManifestOrIndex::Index(_)) if nesting == MAX_NESTING => self.found.note(&at.digest, &what, Fault::Nested),
            Ok(ManifestOrIndex::Index(index)) => {
                // What `docker save` writes has the images of some platforms only.
                let there = |entry: &&Descriptor| self.files.blob(&entry.digest).is_some();
                let present: Vec<Descriptor> = index.manifests.iter().filter(there).cloned().collect();
                if present.is_empty() && !index.manifests.is_empty() {
                    self.found.note(&index.manifests[0].digest, "entry of the index", Fault::Missing);
                }
                present.iter().for_each(|entry| self.document(entry, nesting + 1));
            }
        }
    }

    /// The bytes of a document, if they are what they should be.
    fn checked(&self, at: &Descriptor) -> Result<&[u8], Fault> {
        let facts = self.files.blob(&at.digest).ok_or(Fault::Missing)?;
        match fault_of(facts, at) {
            Some(fault) => Err(fault),
            None => Ok(facts.document.as_deref().unwrap_or_default()),
        }
    }

    fn manifest(&mut self, manifest: &Manifest, platform: Option<&Platform>) {
        let is_image = matches!(manifest.config.media_type, MediaType::OciConfig | MediaType::DockerConfig);
        if self.seen.insert(manifest.config.digest.clone()) {
            self.found.count(&manifest.config);
        }
        let parsed = self.checked(&manifest.config).and_then(|bytes| match is_image {
            true => serde_json::from_slice::<ImageConfig>(bytes).map(Some).map_err(Fault::Config),
            false => Ok(None),
        });
        let config = parsed.unwrap_or_else(|fault| {
            self.found.note(&manifest.config.digest, &format!("config{}", of_platform(platform)), fault);
            None
        });
        if let Some(config) = &config {
            let faults = config_faults(config, manifest.layers.len(), platform);
            faults
                .into_iter()
                .for_each(|fault| self.found.note(&manifest.config.digest, &format!("config{}", of_platform(platform)), fault));
        }
        let platform = platform.cloned().or_else(|| config.as_ref().map(ImageConfig::platform));
        let diff_ids = config.map(|config| config.rootfs.diff_ids).filter(|ids| ids.len() == manifest.layers.len()).unwrap_or_default();
        for (at, layer) in manifest.layers.iter().enumerate().filter(|(_, layer)| !layer.is_elsewhere()) {
            if !self.seen.insert(layer.digest.clone()) {
                continue;
            }
            self.found.count(layer);
            let what = format!("layer {}{}", at + 1, of_platform(platform.as_ref()));
            let diff_id = diff_ids.get(at).filter(|_| layer.media_type.is_layer());
            let facts = self.files.blob(&layer.digest);
            let fault = match facts {
                None => Some(Fault::Missing),
                Some(facts) => fault_of(facts, layer).or_else(|| diff_id.and_then(|diff_id| unpacked_fault(facts, diff_id))),
            };
            if diff_id.zip(facts).is_some_and(|(diff_id, facts)| is_by_other(facts, diff_id)) {
                self.other.get_or_insert((layer.digest.clone(), what.clone()));
            }
            if let Some(fault) = fault {
                self.found.note(&layer.digest, &what, fault);
            }
        }
    }

    /// An image of `manifest.json`, which says of its layers no more than where they are.
    fn docker_entry(&mut self, entry: &DockerEntry) {
        let unknown = Digest::sha256(b"");
        let Some(facts) = self.files.get(&entry.config) else {
            return self.found.note(&unknown, &format!("config `{}`", entry.config), Fault::Missing);
        };
        let (digest, size) = (facts.digest.clone(), facts.size);
        if !self.seen.insert(digest.clone()) {
            return;
        }
        // The image ID is in the name, in either form of these archives.
        let stem = entry.config.rsplit('/').next().unwrap_or_default().trim_end_matches(".json");
        let named = format!("sha256:{stem}").parse::<Digest>().unwrap_or_else(|_| digest.clone());
        let config = serde_json::from_slice::<ImageConfig>(facts.document.as_deref().unwrap_or_default());
        self.found.manifests += 1;
        self.found.count(&Descriptor::new(MediaType::DockerConfig, digest.clone(), size));
        if named != digest {
            return self.found.note(&named, "config", Fault::Digest { actual: digest });
        }
        let layers: Vec<&String> = entry.layers.iter().flatten().collect();
        let config = match config {
            Ok(config) => config,
            Err(error) => return self.found.note(&digest, "config", Fault::Config(error)),
        };
        config_faults(&config, layers.len(), None).into_iter().for_each(|fault| self.found.note(&digest, "config", fault));
        for (at, (name, diff_id)) in layers.iter().zip(&config.rootfs.diff_ids).enumerate() {
            let (what, facts) = (format!("layer {}", at + 1), self.files.get(name));
            let fault = facts.map_or(Some(Fault::Missing), |facts| unpacked_fault(facts, diff_id));
            if facts.is_some_and(|facts| is_by_other(facts, diff_id)) {
                self.other.get_or_insert((diff_id.digest().clone(), what.clone()));
            }
            let known = facts.map(|facts| Descriptor::new(MediaType::DockerLayer, facts.digest.clone(), facts.size));
            if let Some(layer) = known.filter(|layer| self.seen.insert(layer.digest.clone())) {
                self.found.count(&layer);
            }
            if let Some(fault) = fault {
                self.found.note(diff_id.digest(), &what, fault);
            }
        }
    }
}

fn fault_of(facts: &Facts, at: &Descriptor) -> Option<Fault> {
    match facts.digest == at.digest {
        false => Some(Fault::Digest { actual: facts.digest.clone() }),
        true => (facts.size != at.size).then_some(Fault::Size { announced: at.size, actual: facts.size }),
    }
}

/// Whether a layer was hashed by another algorithm than its diff ID.
fn is_by_other(facts: &Facts, expected: &DiffId) -> bool {
    matches!(&facts.unpacked, Some(Ok(actual)) if actual.algorithm() != expected.algorithm())
}

fn unpacked_fault(facts: &Facts, expected: &DiffId) -> Option<Fault> {
    match &facts.unpacked {
        Some(Ok(actual)) if actual == expected || is_by_other(facts, expected) => None,
        Some(Ok(actual)) => Some(Fault::DiffId { expected: expected.clone(), actual: actual.clone() }),
        Some(Err(error)) => Some(Fault::Archive(Box::new(error.clone()))),
        None => Some(Fault::Archive("it is no tar archive".into())),
    }
}
