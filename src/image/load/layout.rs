//! An image out of an OCI layout in a directory (`oci-layout://DIR`): blobs go into the store, checked against their digests, and from there on it is an
//! image like one of an archive. Only what the image needs is read, and no link leads out of the directory.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};

use crate::image::Error;
use crate::image::archive::{bad, begin};
use crate::oci::{Descriptor, Digest, Index, Manifest, ManifestOrIndex, MediaType, Platform};
use crate::store::{ImageRecord, Store};
use crate::sys::{Links, RootDir};

use super::{MAX_JSON, MAX_NESTING, Plan, load_one};

/// The annotation that gives an entry of the layout its tag.
const TAG: &str = "org.opencontainers.image.ref.name";

/// Which image of which directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// The directory.
    pub dir: PathBuf,
    /// The tag, without one `latest`. Where no image has it, the only image that there is is meant.
    pub tag: Option<String>,
    /// The digest of the manifest or index.
    pub digest: Option<Digest>,
}

/// Loads the image of a layout for `platform`. It gets no name.
pub fn load_layout(store: &Store, layout: &Layout, platform: &Platform) -> Result<ImageRecord, Error> {
    let name = layout.dir.display().to_string();
    let failed = |source| Error::Layout { path: layout.dir.clone(), source };
    let dir = RootDir::open(&layout.dir).map_err(failed)?;
    let reader = Reader { store, dir, path: &layout.dir, name, platform };
    let entry = reader.entry(layout, true)?;
    let (digest, manifest) = reader.manifest(&entry, MAX_NESTING)?;
    reader.fetch(&manifest.config.digest, manifest.config.size)?;
    for layer in &manifest.layers {
        reader.fetch(&layer.digest, layer.size)?;
    }
    Ok(load_one(store, Plan::of(digest, manifest, Vec::new()))?.image)
}

/// Puts the blob `blob` of the layout in `dir` into the store, unless it is there.
pub fn fetch_from_layout(store: &Store, dir: &Path, blob: &Descriptor) -> Result<(), Error> {
    let root = RootDir::open(dir).map_err(|source| Error::Layout { path: dir.to_owned(), source })?;
    let reader = Reader { store, dir: root, path: dir, name: dir.display().to_string(), platform: &Platform::host() };
    reader.fetch(&blob.digest, blob.size)
}

/// The manifest of `layout` that stands for no image in particular (a cache): the first that an index leads to.
pub fn manifest_of_layout(store: &Store, layout: &Layout, platform: &Platform) -> Result<Manifest, Error> {
    let dir = RootDir::open(&layout.dir).map_err(|source| Error::Layout { path: layout.dir.clone(), source })?;
    let reader = Reader { store, dir, path: &layout.dir, name: layout.dir.display().to_string(), platform };
    let entry = match &layout.digest {
        // A manifest that a newer one has replaced is still there by its digest.
        Some(digest) => {
            let path = PathBuf::from(format!("blobs/{}", digest.to_string().replace(':', "/")));
            let failed = |source| Error::Layout { path: layout.dir.join(&path), source };
            let size = reader.open(&path)?.metadata().map_err(failed)?.len();
            Descriptor::new(MediaType::OciManifest, digest.clone(), size)
        }
        // One that is not what was named would be found by chance only.
        None => reader.entry(layout, layout.tag.is_none())?,
    };
    Ok(reader.manifest(&entry, MAX_NESTING)?.1)
}

struct Reader<'a> {
    store: &'a Store,
    dir: RootDir,
    path: &'a Path,
    name: String,
    platform: &'a Platform,
}

impl Reader<'_> {
    fn open(&self, path: &Path) -> Result<File, Error> {
        let failed = |source| Error::Layout { path: self.path.join(path), source };
        self.dir.open_at(path, OFlags::RDONLY | OFlags::NONBLOCK, Mode::empty(), Links::Follow).map(File::from).map_err(failed)
    }

    /// The entry of the index that is meant; where none has the tag and `or_only`, the only one that there is.
    fn entry(&self, layout: &Layout, or_only: bool) -> Result<Descriptor, Error> {
        let mut bytes = Vec::new();
        let path = Path::new("index.json");
        let failed = |source| Error::Layout { path: self.path.join(path), source };
        self.open(path)?.take(MAX_JSON).read_to_end(&mut bytes).map_err(failed)?;
        let index: Index = serde_json::from_slice(&bytes).map_err(|error| bad(format!("its `index.json` is malformed: {error}")))?;
        let tagged = |tag: &str| index.manifests.iter().find(|entry| entry.annotations.get(TAG).is_some_and(|name| name == tag));
        let found = match (&layout.digest, &layout.tag) {
            // A digest may also be that of a manifest in one of the indexes: it is looked for by itself.
            (Some(digest), _) => match index.manifests.iter().find(|entry| entry.digest == *digest) {
                Some(entry) => Some(entry),
                None => return Err(bad(format!("`{}` has no image {digest}", self.name))),
            },
            // As for buildx, the only image that there is will do.
            (None, tag) => tagged(tag.as_deref().unwrap_or("latest")).or(match index.manifests.as_slice() {
                [only] if or_only => Some(only),
                _ => None,
            }),
        };
        let wanted = layout.tag.as_deref().unwrap_or("latest");
        found.cloned().ok_or_else(|| bad(format!("`{}` has no image with the tag `{wanted}`", self.name)))
    }

    /// The manifest that a descriptor leads to.
    fn manifest(&self, at: &Descriptor, depth: usize) -> Result<(Digest, Manifest), Error> {
        if at.size > MAX_JSON {
            return Err(bad(format!("the manifest {} has {} bytes, which is too much", at.digest, at.size)));
        }
        self.fetch(&at.digest, at.size)?;
        let bytes = self.store.read_blob(&at.digest, MAX_JSON)?;
        if bytes.len() as u64 != at.size {
            let (name, actual) = (self.name.clone(), bytes.len() as u64);
            return Err(Error::Size { name, digest: at.digest.clone(), announced: at.size, actual });
        }
        let named = |source| Error::Manifest { name: self.name.clone(), source };
        match ManifestOrIndex::parse(&bytes, Some(&at.media_type)).map_err(named)? {
            ManifestOrIndex::Manifest(manifest) => Ok((at.digest.clone(), *manifest)),
            ManifestOrIndex::Index(_) if depth == 0 => Err(Error::NestedTooDeep { name: self.name.clone(), limit: MAX_NESTING }),
            ManifestOrIndex::Index(index) => match index.select(self.platform) {
                Some(entry) => self.manifest(entry, depth - 1),
                None => {
                    let found = index.platforms();
                    Err(Error::NoPlatform { name: self.name.clone(), wanted: self.platform.clone(), found })
                }
            },
        }
    }

    /// Puts a blob into the store, unless it is there.
    fn fetch(&self, digest: &Digest, size: u64) -> Result<(), Error> {
        let Some(mut writer) = begin(self.store, Some(digest))? else { return Ok(()) };
        let path = PathBuf::from(format!("blobs/{}", digest.to_string().replace(':', "/")));
        let failed = |source| Error::Layout { path: self.path.join(&path), source };
        let copied = self.open(&path).and_then(|mut file| {
            writer.restart()?;
            let mut buffer = vec![0; 256 << 10];
            // One byte more than there should be tells a blob that is too long.
            let mut left = size.saturating_add(1);
            while left > 0 {
                let limit = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                let length = file.read(&mut buffer[..limit]).map_err(failed)?;
                if length == 0 {
                    break;
                }
                writer.append(&buffer[..length])?;
                left -= length as u64;
            }
            Ok(())
        });
        match copied {
            Ok(()) => Ok(writer.commit(digest, size)?),
            Err(error) => {
                writer.abort();
                Err(error)
            }
        }
    }
}
