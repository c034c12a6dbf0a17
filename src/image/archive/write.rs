//! Writing archives. Both formats hold the same blobs in the same places, as `docker save` has done since Docker 25; Docker's has `manifest.json` besides.
//!
//! The bytes depend on the images only: entries are in a fixed order, and have no times and no owners.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::path::Path;

use serde_json::{Value, json};

use crate::oci::{Descriptor, Digest, Reference};
use crate::store::{ImageRecord, Store};

use crate::image::Error;
use crate::image::blobs::{ImageManifest, ensure_manifest};
use crate::image::export::write_file;

/// containerd's annotation with the whole name.
const IMAGE_NAME: &str = "io.containerd.image.name";

/// The tag (image-spec 1.1, "Pre-Defined Annotation Keys").
const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// Which readers an archive is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ArchiveFormat {
    /// `docker load`, `podman load`, and readers of OCI archives.
    Docker,
    /// Readers of OCI archives.
    Oci,
}

/// A packed image and its names.
pub type Packed = (ImageManifest, Vec<Reference>);

/// Writes images, each with its names, as one archive.
pub fn write_archive(
    store: &Store,
    images: &[(ImageRecord, Vec<Reference>)],
    format: ArchiveFormat,
    out: &mut dyn Write,
) -> Result<(), Error> {
    let packed: Vec<Packed> =
        images.iter().map(|(image, names)| Ok((ensure_manifest(store, image)?, names.clone()))).collect::<Result<_, Error>>()?;
    write_packed(store, &packed, format, out)
}

/// As [`write_archive`], of images that are packed already.
pub fn write_packed(store: &Store, images: &[Packed], format: ArchiveFormat, out: &mut dyn Write) -> Result<(), Error> {
    let failed = |source| Error::Io { action: "write", path: "the archive".into(), source };
    let mut tar = tar::Builder::new(out);
    append_dir(&mut tar, "blobs/").map_err(failed)?;
    append_dir(&mut tar, "blobs/sha256/").map_err(failed)?;
    each_blob(images, |blob, bytes| {
        let path = blob_path(&blob.digest);
        match bytes {
            Some(bytes) => append(&mut tar, &path, blob.size, bytes).map_err(failed),
            None => append(&mut tar, &path, blob.size, store.open_blob(&blob.digest)?).map_err(failed),
        }
    })?;
    let mut files = vec![("index.json", index(images, Vec::new()))];
    if format == ArchiveFormat::Docker {
        files.push(("manifest.json", docker_manifest(images)));
    }
    files.push(("oci-layout", layout_version()));
    for (name, value) in files {
        let bytes = value.to_string().into_bytes();
        append(&mut tar, name, bytes.len() as u64, bytes.as_slice()).map_err(failed)?;
    }
    tar.into_inner().and_then(|out| out.flush()).map_err(failed)
}

/// Writes images into a directory as an OCI layout. What the layout holds already stays, but for entries of the same name.
pub fn write_layout(store: &Store, images: &[Packed], dir: &Path) -> Result<(), Error> {
    let failed = |action, path: &Path| {
        let path = path.to_owned();
        move |source| Error::Io { action, path, source }
    };
    let blobs = dir.join("blobs/sha256");
    std::fs::create_dir_all(&blobs).map_err(failed("make", &blobs))?;
    each_blob(images, |blob, bytes| {
        let path = dir.join(blob_path(&blob.digest));
        // Written again where it is there: only its bytes could tell that it is what its name says, and reading them costs as much.
        write_file(&path, |out| {
            let copied = match bytes {
                Some(bytes) => out.write_all(bytes),
                None => std::io::copy(&mut store.open_blob(&blob.digest)?, out).map(|_| ()),
            };
            copied.map_err(failed("write", &path))
        })
    })?;
    let path = dir.join("index.json");
    let known = match std::fs::read(&path) {
        Ok(bytes) => serde_json::from_slice::<Value>(&bytes).ok().and_then(|index| index.get("manifests")?.as_array().cloned()),
        Err(_) => None,
    };
    // The index comes last: a layout never names what is not there.
    for (path, value) in [(dir.join("oci-layout"), layout_version()), (path, index(images, known.unwrap_or_default()))] {
        write_file(&path, |out| out.write_all(value.to_string().as_bytes()).map_err(failed("write", &path)))?;
    }
    Ok(())
}

/// Visits every blob of the images once, manifests (which come with their bytes) included.
fn each_blob(images: &[Packed], mut visit: impl FnMut(&Descriptor, Option<&[u8]>) -> Result<(), Error>) -> Result<(), Error> {
    let mut seen = BTreeSet::new();
    for (image, _) in images {
        for blob in image.manifest.layers.iter().chain([&image.manifest.config]) {
            if seen.insert(blob.digest.clone()) {
                visit(blob, None)?;
            }
        }
        if seen.insert(image.descriptor.digest.clone()) {
            visit(&image.descriptor, Some(&image.bytes))?;
        }
    }
    Ok(())
}

fn layout_version() -> Value {
    json!({ "imageLayoutVersion": "1.0.0" })
}

fn blob_path(digest: &Digest) -> String {
    format!("blobs/{}/{}", digest.algorithm().name(), digest.hex())
}

/// `index.json`: every name of every image is an entry of its own, as tools expect it. `known` is what is there, of which other names stay.
fn index(images: &[Packed], known: Vec<Value>) -> Value {
    let mut entries: Vec<Descriptor> = Vec::new();
    for (image, names) in images {
        if names.is_empty() {
            entries.push(image.descriptor.clone());
        }
        for name in names {
            let mut entry = image.descriptor.clone();
            entry.annotations.insert(IMAGE_NAME.into(), name.to_string());
            entry.annotations.insert(REF_NAME.into(), name.tag().unwrap_or("latest").to_owned());
            entries.push(entry);
        }
    }
    let replaced = |old: &Value| {
        entries.iter().any(|new| {
            let annotation = |key: &str| old.get("annotations").and_then(|all| all.get(key)).and_then(Value::as_str);
            match (new.annotations.get(IMAGE_NAME), annotation(IMAGE_NAME)) {
                (Some(new), Some(old)) => new == old,
                (Some(_), None) => new.annotations.get(REF_NAME).map(String::as_str) == annotation(REF_NAME),
                (None, _) => old.get("digest").and_then(Value::as_str) == Some(new.digest.to_string().as_str()),
            }
        })
    };
    let mut manifests: Vec<Value> = known.into_iter().filter(|old| !replaced(old)).collect();
    manifests.extend(entries.iter().map(|entry| json!(entry)));
    json!({ "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": manifests })
}

/// `manifest.json` of Docker's image format 1.2.
fn docker_manifest(images: &[Packed]) -> Value {
    let entries = images.iter().map(|(image, names)| {
        let tags: Vec<String> = names.iter().map(|name| name.familiar()).collect();
        let layers: Vec<String> = image.manifest.layers.iter().map(|layer| blob_path(&layer.digest)).collect();
        json!({ "Config": blob_path(&image.manifest.config.digest), "RepoTags": tags, "Layers": layers })
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
