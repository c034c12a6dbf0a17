//! Writing archives. Both formats hold the same blobs in the same places, as `docker save` has done since Docker 25; Docker's has `manifest.json` besides.
//!
//! The bytes depend on the images only: entries are in a fixed order, and have no times and no owners.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::oci::{Descriptor, Digest, Manifest, ManifestOrIndex, Reference};
use crate::progress::Meter;
use crate::store::{ImageRecord, Store};

use crate::image::Error;
use crate::image::blobs::{ImageManifest, ensure_manifest};
use crate::image::export::write_file;
use crate::image::several::{ImageIndex, PackedRoot};

/// containerd's annotation with the whole name.
const IMAGE_NAME: &str = "io.containerd.image.name";

/// The tag (image-spec 1.1, "Pre-Defined Annotation Keys").
pub(super) const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// Which readers an archive is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ArchiveFormat {
    /// `docker load`, `podman load`, and readers of OCI archives.
    Docker,
    /// Readers of OCI archives.
    Oci,
}

/// A packed image, or an index, and its names.
pub type Packed = (PackedRoot, Vec<Reference>);

/// An image of the store that is saved.
#[derive(Clone, Debug)]
pub struct Saved {
    /// The image.
    pub image: ImageRecord,
    /// The index that its names stand for, of which all is in the store: it is saved whole.
    pub index: Option<Descriptor>,
    /// The names.
    pub names: Vec<Reference>,
}

/// Writes images, each with its names, as one archive. Docker's form has no word for an index: there, its names are those of the one image that they mean in the store.
pub fn write_archive(store: &Store, images: &[Saved], format: ArchiveFormat, out: &mut dyn Write) -> Result<(), Error> {
    let mut packed: Vec<Packed> = Vec::with_capacity(images.len());
    let mut docker: Vec<(Manifest, &[Reference])> = Vec::new();
    for Saved { image, index, names } in images {
        let manifest = ensure_manifest(store, image)?;
        docker.push((manifest.manifest.clone(), names));
        let whole = index.as_ref().map(|index| stored_index(store, index)).transpose()?.flatten();
        let root = whole.map_or_else(|| PackedRoot::Image(Box::new(manifest)), |index| PackedRoot::Index(Box::new(index)));
        packed.push((root, names.clone()));
    }
    let docker: Vec<_> = docker.iter().map(|(manifest, names)| (manifest, *names)).collect();
    write(store, &packed, (format == ArchiveFormat::Docker).then_some(docker.as_slice()), out)
}

/// An index of the store with its images; `None` where it names other indexes.
fn stored_index(store: &Store, root: &Descriptor) -> Result<Option<ImageIndex>, Error> {
    let parse = |bytes: &[u8], at: &Descriptor| {
        ManifestOrIndex::parse(bytes, Some(&at.media_type)).map_err(|source| Error::Manifest { name: at.digest.to_string(), source })
    };
    let bytes = store.read_blob(&root.digest, root.size)?;
    let ManifestOrIndex::Index(index) = parse(&bytes, root)? else { return Ok(None) };
    let mut images = Vec::with_capacity(index.manifests.len());
    for descriptor in index.manifests {
        let bytes = store.read_blob(&descriptor.digest, descriptor.size)?;
        let ManifestOrIndex::Manifest(manifest) = parse(&bytes, &descriptor)? else { return Ok(None) };
        images.push(ImageManifest { manifest: *manifest, bytes, descriptor });
    }
    Ok(Some(ImageIndex { images, bytes, descriptor: root.clone() }))
}

/// As [`write_archive`], of images that are packed already. Docker's format has no word for an index: there, its images have its names.
pub fn write_packed(store: &Store, images: &[Packed], format: ArchiveFormat, out: &mut dyn Write) -> Result<(), Error> {
    let docker: Vec<_> =
        images.iter().flat_map(|(root, names)| root.images().iter().map(|image| (&image.manifest, names.as_slice()))).collect();
    write(store, images, (format == ArchiveFormat::Docker).then_some(docker.as_slice()), out)
}

fn write(store: &Store, images: &[Packed], docker: Option<&DockerImages<'_>>, out: &mut dyn Write) -> Result<(), Error> {
    let mut archive = ArchiveWriter::begin(out)?;
    each_blob(store, images, |blob, bytes| archive.blob(blob, bytes))?;
    archive.finish(&entries(images), docker)
}

/// Writes images into a directory as an OCI layout; one without a name gets the tag `latest`, as with BuildKit. What the layout holds already stays, but for
/// entries of the same name.
pub fn write_layout(store: &Store, images: &[Packed], dir: &Path, meter: &Meter) -> Result<(), Error> {
    let layout = LayoutWriter::open(dir)?;
    each_blob(store, images, |blob, bytes| {
        layout.blob(blob, bytes)?;
        meter.add(blob.size);
        Ok(())
    })?;
    let mut entries = entries(images);
    for entry in &mut entries {
        entry.annotations.entry(REF_NAME.to_owned()).or_insert_with(|| "latest".to_owned());
    }
    layout.finish(&entries)
}

/// Visits every blob of the images once, manifests and indexes included.
fn each_blob(
    store: &Store,
    images: &[Packed],
    mut visit: impl FnMut(&Descriptor, &mut dyn Read) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut seen = BTreeSet::new();
    for (root, _) in images {
        for image in root.images() {
            for blob in image.manifest.layers.iter().chain([&image.manifest.config]) {
                let is_missing = blob.is_elsewhere() && store.blob_size(&blob.digest)?.is_none();
                if !is_missing && seen.insert(blob.digest.clone()) {
                    visit(blob, &mut store.open_blob(&blob.digest)?)?;
                }
            }
            if seen.insert(image.descriptor.digest.clone()) {
                visit(&image.descriptor, &mut image.bytes.as_slice())?;
            }
        }
        if let PackedRoot::Index(index) = root
            && seen.insert(index.descriptor.digest.clone())
        {
            visit(&index.descriptor, &mut index.bytes.as_slice())?;
        }
    }
    Ok(())
}

/// An archive that is being written: the blobs in any order, each once, then the documents.
pub(crate) struct ArchiveWriter<'a> {
    tar: tar::Builder<&'a mut dyn Write>,
}

/// The images of Docker's `manifest.json`, with their names.
pub(crate) type DockerImages<'a> = [(&'a Manifest, &'a [Reference])];

impl<'a> ArchiveWriter<'a> {
    pub(crate) fn begin(out: &'a mut dyn Write) -> Result<ArchiveWriter<'a>, Error> {
        let mut tar = tar::Builder::new(out);
        append_dir(&mut tar, "blobs/").and_then(|()| append_dir(&mut tar, "blobs/sha256/")).map_err(unwritten)?;
        Ok(ArchiveWriter { tar })
    }

    pub(crate) fn blob(&mut self, blob: &Descriptor, bytes: &mut dyn Read) -> Result<(), Error> {
        append(&mut self.tar, &blob_path(&blob.digest), blob.size, bytes).map_err(unwritten)
    }

    /// Writes what says which of the blobs are images, for `docker load` too where `docker` is given.
    pub(crate) fn finish(mut self, entries: &[Descriptor], docker: Option<&DockerImages<'_>>) -> Result<(), Error> {
        let mut files = vec![("index.json", index(entries, Vec::new()))];
        files.extend(docker.map(|images| ("manifest.json", docker_manifest(images))));
        files.push(("oci-layout", layout_version()));
        for (name, value) in files {
            let bytes = value.to_string().into_bytes();
            append(&mut self.tar, name, bytes.len() as u64, bytes.as_slice()).map_err(unwritten)?;
        }
        self.tar.into_inner().and_then(|out| out.flush()).map_err(unwritten)
    }
}

fn unwritten(source: std::io::Error) -> Error {
    Error::Io { action: "write", path: "the archive".into(), source }
}

/// An OCI layout in a directory that is being written (image-spec 1.1, "Image Layout"). What it holds already stays.
pub(crate) struct LayoutWriter {
    dir: PathBuf,
}

impl LayoutWriter {
    /// The layout in `dir`, which is made where it is missing.
    pub(crate) fn open(dir: &Path) -> Result<LayoutWriter, Error> {
        Ok(LayoutWriter { dir: dir.to_owned() })
    }

    pub(crate) fn blob(&self, blob: &Descriptor, bytes: &mut dyn Read) -> Result<(), Error> {
        let path = self.dir.join(blob_path(&blob.digest));
        let failed = |action, path: &Path| {
            let path = path.to_owned();
            move |source| Error::Io { action, path, source }
        };
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(failed("make", folder))?;
        }
        // Written again where it is there: only its bytes could tell that it is what its name says, and reading them costs as much.
        write_file(&path, |out| std::io::copy(bytes, out).map(|_| ()).map_err(failed("write", &path)))
    }

    /// Adds `entries` to the index, in place of those of the same names.
    pub(crate) fn finish(self, entries: &[Descriptor]) -> Result<(), Error> {
        let path = self.dir.join("index.json");
        let known = match std::fs::read(&path) {
            Ok(bytes) => serde_json::from_slice::<Value>(&bytes).ok().and_then(|index| index.get("manifests")?.as_array().cloned()),
            Err(_) => None,
        };
        // The index comes last: a layout never names what is not there.
        for (path, value) in [(self.dir.join("oci-layout"), layout_version()), (path, index(entries, known.unwrap_or_default()))] {
            let failed = |source| Error::Io { action: "write", path: path.clone(), source };
            write_file(&path, |out| out.write_all(value.to_string().as_bytes()).map_err(failed))?;
        }
        Ok(())
    }
}

pub(super) fn layout_version() -> Value {
    json!({ "imageLayoutVersion": "1.0.0" })
}

pub(super) fn blob_path(digest: &Digest) -> String {
    format!("blobs/{}/{}", digest.algorithm().name(), digest.hex())
}

/// The annotations that give an entry of a layout's index its tag and its whole name.
pub(crate) fn names_of_entry(whole: Option<&str>, tag: &str) -> BTreeMap<String, String> {
    let whole = whole.map(|name| (IMAGE_NAME.to_owned(), name.to_owned()));
    whole.into_iter().chain([(REF_NAME.to_owned(), tag.to_owned())]).collect()
}

/// The entries of an index: every name of every image is one of its own, as tools expect it.
fn entries(images: &[Packed]) -> Vec<Descriptor> {
    let mut entries: Vec<Descriptor> = Vec::new();
    for (root, names) in images {
        if names.is_empty() {
            entries.push(root.descriptor().clone());
        }
        for name in names {
            let mut entry = root.descriptor().clone();
            entry.annotations.extend(names_of_entry(Some(&name.to_string()), name.tag().unwrap_or("latest")));
            entries.push(entry);
        }
    }
    entries
}

/// `index.json`. `known` is what is there, of which what has other names stays.
fn index(entries: &[Descriptor], known: Vec<Value>) -> Value {
    let replaced = |old: &Value| {
        entries.iter().any(|new| {
            let annotation = |key: &str| old.get("annotations").and_then(|all| all.get(key)).and_then(Value::as_str);
            let (whole, tag) = (new.annotations.get(IMAGE_NAME), new.annotations.get(REF_NAME).map(String::as_str));
            match (whole, annotation(IMAGE_NAME)) {
                (Some(new), Some(old)) => new == old,
                // A mere tag is another's only where that has the same one.
                _ if tag.is_some() => tag == annotation(REF_NAME),
                _ => old.get("digest").and_then(Value::as_str) == Some(new.digest.to_string().as_str()),
            }
        })
    };
    let mut manifests: Vec<Value> = known.into_iter().filter(|old| !replaced(old)).collect();
    manifests.extend(entries.iter().map(|entry| json!(entry)));
    json!({ "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": manifests })
}

/// `manifest.json` of Docker's image format 1.2.
fn docker_manifest(images: &DockerImages<'_>) -> Value {
    let entries = images.iter().map(|(manifest, names)| {
        // A tag is what readers take; a digest follows from the content.
        let tags: Vec<String> = names.iter().filter(|name| name.digest().is_none()).map(Reference::familiar).collect();
        let layers: Vec<String> = manifest.layers.iter().map(|layer| blob_path(&layer.digest)).collect();
        json!({ "Config": blob_path(&manifest.config.digest), "RepoTags": tags, "Layers": layers })
    });
    Value::Array(entries.collect())
}

fn append_dir(tar: &mut tar::Builder<impl Write>, path: &str) -> std::io::Result<()> {
    let mut header = header(0, 0o755);
    header.set_entry_type(tar::EntryType::Directory);
    tar.append_data(&mut header, path, std::io::empty())
}

fn append(tar: &mut tar::Builder<impl Write>, path: &str, size: u64, content: impl Read) -> std::io::Result<()> {
    tar.append_data(&mut header(size, 0o644), path, content)
}

fn header(size: u64, mode: u32) -> tar::Header {
    let mut header = tar::Header::new_ustar();
    header.set_size(size);
    header.set_mode(mode);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    header
}
