//! Images, read from archives by this code alone: config, layers, and the file tree they make.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

use serde_json::Value;
use sha2::{Digest, Sha256};

/// A file of a layer or of a tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// `file`, `dir`, `symlink`, `link` (to a file of the same layer), `fifo`, `char` or `block`.
    pub(crate) kind: &'static str,
    pub(crate) mode: u32,
    pub(crate) uid: u64,
    pub(crate) gid: u64,
    pub(crate) mtime: u64,
    /// What a link points to.
    pub(crate) target: String,
    pub(crate) content: Vec<u8>,
    /// All names of the file, where it has several in its layer.
    pub(crate) links: Vec<String>,
}

/// An image.
pub(crate) struct Image {
    pub(crate) config: Value,
    pub(crate) manifest: Value,
    /// Of each layer its entries by path, without a slash at either end.
    pub(crate) layers: Vec<BTreeMap<String, Entry>>,
}

/// An index of images.
pub(crate) struct Several {
    /// The entry of the archive that points at it.
    pub(crate) entry: Value,
    pub(crate) index: Value,
    /// Each image with its platform, in the order of the index.
    pub(crate) images: Vec<(String, Image)>,
}

impl Several {
    /// Reads an OCI archive with an index.
    #[track_caller]
    pub(crate) fn oci_archive(path: &Path) -> Several {
        let files = tar_contents(path);
        let top: Value = serde_json::from_slice(&files["index.json"]).unwrap();
        let entry = top["manifests"][0].clone();
        let index: Value = serde_json::from_slice(&blob(&files, &entry)).unwrap();
        let images = index["manifests"].as_array().expect("an index").iter().map(|entry| {
            let platform = ["os", "architecture", "variant"].map(|part| entry["platform"][part].as_str());
            let manifest = serde_json::from_slice(&blob(&files, entry)).unwrap();
            (platform.into_iter().flatten().collect::<Vec<_>>().join("/"), Image::of_manifest(&files, manifest))
        });
        Several { images: images.collect(), entry, index }
    }

    /// The image for a platform.
    #[track_caller]
    pub(crate) fn of(&self, platform: &str) -> &Image {
        &self.images.iter().find(|(of, _)| of == platform).unwrap_or_else(|| panic!("nothing for {platform}")).1
    }

    pub(crate) fn platforms(&self) -> Vec<&str> {
        self.images.iter().map(|(platform, _)| platform.as_str()).collect()
    }
}

/// A blob of an archive, checked.
#[track_caller]
fn blob(files: &BTreeMap<String, Vec<u8>>, descriptor: &Value) -> Vec<u8> {
    let digest = descriptor["digest"].as_str().unwrap();
    let bytes = files.get(&format!("blobs/{}", digest.replace(':', "/"))).cloned().unwrap_or_else(|| panic!("no blob {digest}"));
    assert_eq!(digest, format!("sha256:{}", hex(&Sha256::digest(&bytes))), "a blob is not what its name says");
    assert_eq!(descriptor["size"].as_u64(), Some(bytes.len() as u64), "a blob is not as long as its descriptor says");
    bytes
}

impl Image {
    /// Reads an OCI archive.
    #[track_caller]
    pub(crate) fn oci_archive(path: &Path) -> Image {
        let files = tar_contents(path);
        let index: Value = serde_json::from_slice(&files["index.json"]).unwrap();
        let blob = |descriptor: &Value| blob(&files, descriptor);
        let mut descriptor = index["manifests"][0].clone();
        let mut manifest: Value = serde_json::from_slice(&blob(&descriptor)).unwrap();
        while manifest.get("manifests").is_some() {
            descriptor = manifest["manifests"][0].clone();
            manifest = serde_json::from_slice(&blob(&descriptor)).unwrap();
        }
        Image::of_manifest(&files, manifest)
    }

    fn of_manifest(files: &BTreeMap<String, Vec<u8>>, manifest: Value) -> Image {
        let config: Value = serde_json::from_slice(&blob(files, &manifest["config"])).unwrap();
        let layers: Vec<Vec<u8>> = manifest["layers"].as_array().unwrap().iter().map(|layer| inflate(blob(files, layer))).collect();
        Image::whole(config, manifest, layers)
    }

    /// The content of a file of the image.
    #[track_caller]
    pub(crate) fn file(&self, path: &str) -> String {
        let content = self.tree().remove(path).unwrap_or_else(|| panic!("there is no {path}")).content;
        String::from_utf8(content).unwrap()
    }

    /// Reads an archive in the format of `docker save`.
    #[track_caller]
    pub(crate) fn docker_archive(path: &Path) -> Image {
        let files = tar_contents(path);
        let manifest: Value = serde_json::from_slice(&files["manifest.json"]).unwrap();
        let manifest = manifest[0].clone();
        let config: Value = serde_json::from_slice(&files[manifest["Config"].as_str().unwrap()]).unwrap();
        let layers = manifest["Layers"].as_array().unwrap().iter().map(|name| inflate(files[name.as_str().unwrap()].clone())).collect();
        Image::whole(config, manifest, layers)
    }

    fn whole(config: Value, manifest: Value, layers: Vec<Vec<u8>>) -> Image {
        let ids: Vec<String> = layers.iter().map(|layer| format!("sha256:{}", hex(&Sha256::digest(layer)))).collect();
        assert_eq!(config["rootfs"]["diff_ids"], Value::from(ids), "the layers are not those of the config");
        Image { config, manifest, layers: layers.iter().map(|layer| entries(layer)).collect() }
    }

    /// The config as it is run.
    pub(crate) fn run_config(&self) -> &Value {
        &self.config["config"]
    }

    /// The text of each step of the history, and whether it made a layer.
    pub(crate) fn history(&self) -> Vec<(String, bool)> {
        let history = self.config["history"].as_array().unwrap();
        history.iter().map(|h| (h["created_by"].as_str().unwrap_or("").to_owned(), h["empty_layer"] != Value::Bool(true))).collect()
    }

    /// The paths of the last layer.
    pub(crate) fn last_layer(&self) -> Vec<&str> {
        self.layers.last().unwrap().keys().map(String::as_str).collect()
    }

    /// The files that the layers make, one above the other.
    pub(crate) fn tree(&self) -> BTreeMap<String, Entry> {
        let mut tree: BTreeMap<String, Entry> = BTreeMap::new();
        for layer in &self.layers {
            let lower = tree.clone();
            for path in layer.keys() {
                let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
                let Some(name) = name.strip_prefix(".wh.") else { continue };
                let gone = if parent.is_empty() { name.to_owned() } else { format!("{parent}/{name}") };
                let below = if name == ".wh..opq" { parent } else { &gone };
                if name != ".wh..opq" {
                    tree.remove(&gone);
                }
                tree.retain(|path, _| !path.strip_prefix(below).is_some_and(|rest| rest.starts_with('/') || below.is_empty()));
            }
            for (path, entry) in layer {
                if path.rsplit('/').next().unwrap().starts_with(".wh.") {
                    continue;
                }
                if entry.kind != "dir" && lower.get(path).is_some_and(|old| old.kind == "dir") {
                    let below = format!("{path}/");
                    tree.retain(|path, _| !path.starts_with(&below));
                }
                tree.insert(path.clone(), entry.clone());
            }
        }
        tree
    }
}

/// The regular files of a tar on disk, by name; links are followed by name.
fn tar_contents(path: &Path) -> BTreeMap<String, Vec<u8>> {
    let bytes = std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let entries = entries(&bytes);
    let content = |entry: &Entry, name: &str| match entry.kind {
        "symlink" => entries.get(&join(name, &entry.target)).map(|entry| entry.content.clone()).unwrap_or_default(),
        _ => entry.content.clone(),
    };
    entries.iter().map(|(name, entry)| (name.clone(), content(entry, name))).collect()
}

/// A link's target, from the archive's top.
fn join(link: &str, target: &str) -> String {
    let mut parts: Vec<&str> = link.split('/').collect();
    parts.pop();
    for part in target.split('/') {
        match part {
            ".." => drop(parts.pop()),
            "." | "" => {}
            part => parts.push(part),
        }
    }
    parts.join("/")
}

/// The entries of a tar.
pub(crate) fn entries(bytes: &[u8]) -> BTreeMap<String, Entry> {
    let mut entries: BTreeMap<String, Entry> = BTreeMap::new();
    let mut names: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut archive = tar::Archive::new(bytes);
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let path = trim(&String::from_utf8_lossy(&entry.path_bytes()));
        let header = entry.header().clone();
        let mut content = Vec::new();
        entry.read_to_end(&mut content).unwrap();
        let target = entry.link_name_bytes().map(|name| String::from_utf8_lossy(&name).into_owned()).unwrap_or_default();
        use tar::EntryType;
        let kind = match header.entry_type() {
            EntryType::Directory => "dir",
            EntryType::Symlink => "symlink",
            EntryType::Link => "link",
            EntryType::Fifo => "fifo",
            EntryType::Char => "char",
            EntryType::Block => "block",
            EntryType::XGlobalHeader => continue,
            _ => "file",
        };
        if kind == "link" {
            // A name of a file that came before: the file itself, as anybody sees it who unpacks it.
            let original =
                entries.get(&trim(&target)).unwrap_or_else(|| panic!("{path} is a link to {target}, which is not in the layer")).clone();
            let first =
                names.iter().find_map(|(first, all)| all.contains(&trim(&target)).then(|| first.clone())).unwrap_or_else(|| trim(&target));
            let all = names.entry(first.clone()).or_insert_with(|| vec![first]);
            all.push(path.clone());
            entries.insert(path, original);
            continue;
        }
        let (mode, mtime) = (header.mode().unwrap() & 0o7777, header.mtime().unwrap());
        let entry = Entry { kind, mode, uid: header.uid().unwrap(), gid: header.gid().unwrap(), mtime, target, content, links: Vec::new() };
        assert!(entries.insert(path.clone(), entry).is_none(), "{path} is in the archive twice");
    }
    for mut all in names.into_values() {
        all.sort();
        for name in &all {
            entries.get_mut(name).unwrap().links.clone_from(&all);
        }
    }
    entries
}

fn trim(path: &str) -> String {
    path.trim_start_matches("./").trim_matches('/').to_owned()
}

/// A layer without its compression.
fn inflate(bytes: Vec<u8>) -> Vec<u8> {
    let mut out = Vec::new();
    if bytes.starts_with(&[0x1f, 0x8b]) {
        flate2::read::MultiGzDecoder::new(bytes.as_slice()).read_to_end(&mut out).unwrap();
        return out;
    }
    if bytes.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
        return zstd::decode_all(bytes.as_slice()).unwrap();
    }
    bytes
}

/// Bytes as lower-case hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
