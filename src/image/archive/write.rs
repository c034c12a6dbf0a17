//! Writing archives. Both formats hold the same blobs in the same places, as `docker save` has done since Docker 25; Docker's has `manifest.json` besides.
//!
//! The bytes depend on the images only: entries are in a fixed order, and have no times and no owners.

use std::collections::BTreeSet;
use std::io::{Read, Write};

use serde_json::json;

use crate::oci::{Descriptor, Digest, Reference};
use crate::store::{ImageRecord, Store};

use crate::image::Error;
use crate::image::blobs::{ImageManifest, ensure_manifest};

/// Which readers an archive is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ArchiveFormat {
    /// `docker load`, `podman load`, and readers of OCI archives.
    Docker,
    /// Readers of OCI archives.
    Oci,
}

/// Writes images, each with its names, as one archive.
pub fn write_archive(
    store: &Store,
    images: &[(ImageRecord, Vec<Reference>)],
    format: ArchiveFormat,
    out: &mut dyn Write,
) -> Result<(), Error> {
    let mut manifests = Vec::with_capacity(images.len());
    for (image, names) in images {
        manifests.push((ensure_manifest(store, image)?, names));
    }
    let failed = |source| Error::Io { action: "write", path: "the archive".into(), source };
    let mut tar = tar::Builder::new(out);
    let mut written = BTreeSet::new();
    append_dir(&mut tar, "blobs/").map_err(failed)?;
    append_dir(&mut tar, "blobs/sha256/").map_err(failed)?;
    for (manifest, _) in &manifests {
        for blob in manifest.manifest.layers.iter().chain([&manifest.manifest.config]) {
            if written.insert(blob.digest.clone()) {
                let file = store.open_blob(&blob.digest)?;
                append(&mut tar, &blob_path(&blob.digest), blob.size, file).map_err(failed)?;
            }
        }
        if written.insert(manifest.descriptor.digest.clone()) {
            let path = blob_path(&manifest.descriptor.digest);
            append(&mut tar, &path, manifest.bytes.len() as u64, manifest.bytes.as_slice()).map_err(failed)?;
        }
    }
    let mut files = vec![("index.json", index(&manifests))];
    if format == ArchiveFormat::Docker {
        files.push(("manifest.json", docker_manifest(&manifests)));
    }
    files.push(("oci-layout", json!({ "imageLayoutVersion": "1.0.0" })));
    for (name, value) in files {
        let bytes = value.to_string().into_bytes();
        append(&mut tar, name, bytes.len() as u64, bytes.as_slice()).map_err(failed)?;
    }
    tar.into_inner().and_then(|out| out.flush()).map_err(failed)
}

fn blob_path(digest: &Digest) -> String {
    format!("blobs/{}/{}", digest.algorithm().name(), digest.hex())
}

/// `index.json`: every name of every image is an entry of its own, as tools expect it.
fn index(manifests: &[(ImageManifest, &Vec<Reference>)]) -> serde_json::Value {
    let mut entries: Vec<Descriptor> = Vec::new();
    for (manifest, names) in manifests {
        let plain = manifest.descriptor.clone();
        if names.is_empty() {
            entries.push(plain);
            continue;
        }
        for name in names.iter() {
            let mut entry = plain.clone();
            entry.annotations.insert("io.containerd.image.name".into(), name.to_string());
            entry.annotations.insert("org.opencontainers.image.ref.name".into(), name.tag().unwrap_or("latest").to_owned());
            entries.push(entry);
        }
    }
    json!({ "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": entries })
}

/// `manifest.json` of Docker's image format 1.2.
fn docker_manifest(manifests: &[(ImageManifest, &Vec<Reference>)]) -> serde_json::Value {
    let entries = manifests.iter().map(|(manifest, names)| {
        let tags: Vec<String> = names.iter().map(|name| name.familiar()).collect();
        let layers: Vec<String> = manifest.manifest.layers.iter().map(|layer| blob_path(&layer.digest)).collect();
        json!({ "Config": blob_path(&manifest.manifest.config.digest), "RepoTags": tags, "Layers": layers })
    });
    serde_json::Value::Array(entries.collect())
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
