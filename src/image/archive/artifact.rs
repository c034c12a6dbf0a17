//! An artifact (a build cache) in an OCI layout in a directory, which any number of builds may write to and read from at once.

use std::collections::BTreeSet;
use std::fs::File;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::image::Error;
use crate::image::export::write_file;
use crate::oci::{Algorithm, Descriptor, Digest, Manifest, MediaType};
use crate::store::Store;

use super::write::{REF_NAME, blob_path, layout_version};

/// The file in a layout whose lock its writers take.
const LOCK: &str = ".strake.lock";

/// Held by whoever writes to a layout. Readers take none: what they read is checked, and files come by renaming.
pub struct LayoutLock {
    _file: File,
}

impl LayoutLock {
    /// Makes the directory `dir` where it is missing, and waits for its lock.
    ///
    /// # Errors
    /// The directory cannot be written.
    pub fn take(dir: &Path) -> Result<LayoutLock, Error> {
        let failed = |action, path: &Path| {
            let path = path.to_owned();
            move |source| Error::Io { action, path, source }
        };
        std::fs::create_dir_all(dir).map_err(failed("make", dir))?;
        let path = dir.join(LOCK);
        let file = File::options().read(true).write(true).create(true).truncate(false).open(&path).map_err(failed("open", &path))?;
        file.lock().map_err(failed("lock", &path))?;
        Ok(LayoutLock { _file: file })
    }
}

/// Writes the artifact `manifest` with the bytes `bytes` into the layout `dir`, under the name `tag`. Blobs that are there and whole are not written again;
/// the others must be in the store. With `reset`, whatever else the layout holds is removed. The caller holds the layout's lock.
///
/// # Errors
/// A blob is nowhere, or the directory cannot be written.
pub fn write_artifact(store: &Store, manifest: &Manifest, bytes: &[u8], dir: &Path, tag: &str, reset: bool) -> Result<(), Error> {
    let failed = |action, path: &Path| {
        let path = path.to_owned();
        move |source| Error::Io { action, path, source }
    };
    let mut kept = BTreeSet::new();
    for blob in manifest.layers.iter().chain([&manifest.config]) {
        if !kept.insert(blob.digest.clone()) {
            continue;
        }
        let path = place(dir, &blob.digest)?;
        if !is_whole(&path, blob) {
            let mut from = store.open_blob(&blob.digest)?;
            write_file(&path, |out| std::io::copy(&mut from, out).map(|_| ()).map_err(failed("write", &path)))?;
        }
    }
    let descriptor = Descriptor::new(MediaType::OciManifest, Digest::sha256(bytes), bytes.len() as u64);
    kept.insert(descriptor.digest.clone());
    let path = place(dir, &descriptor.digest)?;
    write_file(&path, |out| out.write_all(bytes).map_err(failed("write", &path)))?;
    let path = dir.join("index.json");
    let known = if reset { Vec::new() } else { entries(&path) };
    let index = index(known, descriptor, manifest.artifact_type.as_deref(), tag);
    for (path, value) in [(dir.join("oci-layout"), layout_version()), (path, index)] {
        write_file(&path, |out| out.write_all(value.to_string().as_bytes()).map_err(failed("write", &path)))?;
    }
    if reset { remove_others(dir, &kept) } else { Ok(()) }
}

/// Where a blob is, in a directory that is there.
fn place(dir: &Path, digest: &Digest) -> Result<PathBuf, Error> {
    let path = dir.join(blob_path(digest));
    let parent = path.parent().unwrap_or(dir);
    std::fs::create_dir_all(parent).map_err(|source| Error::Io { action: "make", path: parent.to_owned(), source })?;
    Ok(path)
}

/// Whether the file `path` is the blob `blob`, all of it: reading it costs less than writing it again.
pub fn is_whole(path: &Path, blob: &Descriptor) -> bool {
    let whole = |path: &Path| {
        let metadata = std::fs::symlink_metadata(path)?;
        if !metadata.is_file() || metadata.len() != blob.size {
            return Ok(false);
        }
        let mut hasher = crate::oci::Hasher::new(blob.digest.algorithm());
        let mut file = File::open(path)?;
        let mut buffer = vec![0; 256 << 10];
        loop {
            match std::io::Read::read(&mut file, &mut buffer)? {
                0 => return Ok::<_, std::io::Error>(hasher.finish() == blob.digest),
                length => hasher.update(&buffer[..length]),
            }
        }
    };
    whole(path).unwrap_or(false)
}

/// The entries of an index; none where it cannot be read.
fn entries(path: &Path) -> Vec<Value> {
    let index = std::fs::read(path).ok().and_then(|bytes| serde_json::from_slice::<Value>(&bytes).ok());
    index.and_then(|index| index.get("manifests")?.as_array().cloned()).unwrap_or_default()
}

/// The index in which `tag` means `descriptor`, and other tags what they meant.
fn index(known: Vec<Value>, mut descriptor: Descriptor, artifact_type: Option<&str>, tag: &str) -> Value {
    let tag_of = |entry: &Value| entry.get("annotations")?.get(REF_NAME)?.as_str().map(str::to_owned);
    let mut manifests: Vec<Value> = known.into_iter().filter(|entry| tag_of(entry).as_deref() != Some(tag)).collect();
    descriptor.artifact_type = artifact_type.map(str::to_owned);
    descriptor.annotations.insert(REF_NAME.into(), tag.to_owned());
    manifests.push(json!(descriptor));
    json!({ "schemaVersion": 2, "mediaType": MediaType::OciIndex.as_str(), "manifests": manifests })
}

/// Removes the blobs that are not `kept`.
fn remove_others(dir: &Path, kept: &BTreeSet<Digest>) -> Result<(), Error> {
    for algorithm in [Algorithm::Sha256, Algorithm::Sha512].map(Algorithm::name) {
        let blobs = dir.join("blobs").join(algorithm);
        let failed = |source| Error::Io { action: "list", path: blobs.clone(), source };
        let entries = match std::fs::read_dir(&blobs) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            entries => entries.map_err(failed)?,
        };
        for entry in entries {
            let entry = entry.map_err(failed)?;
            let digest = entry.file_name().to_str().and_then(|name| format!("{algorithm}:{name}").parse::<Digest>().ok());
            if digest.is_some_and(|digest| !kept.contains(&digest)) {
                let path = entry.path();
                std::fs::remove_file(&path).map_err(|source| Error::Io { action: "remove", path, source })?;
            }
        }
    }
    Ok(())
}
