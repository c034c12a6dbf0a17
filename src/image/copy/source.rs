//! Where a copy comes from. Manifests are checked against their digests here; blobs are checked by whoever takes them.

use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt as _;
use rustix::fs::{Mode, OFlags};

use crate::image::Error;
use crate::image::archive::bad;
use crate::oci::{Algorithm, Descriptor, Digest, Index, ManifestOrIndex, Platform, Reference};
use crate::registry::{BlobSource, ByteStream, Client, read_stream};
use crate::store::Store;
use crate::sys::{Links, RootDir};
use crate::task::blocking;

use super::MAX_MANIFEST;

/// Where documents and blobs are read.
#[derive(Clone)]
pub enum Source {
    /// A registry.
    Registry {
        /// Who asks.
        client: Client,
        /// For what.
        reference: Reference,
    },
    /// Blobs of the store, of an image whose manifest is there.
    Store {
        /// The store.
        store: Store,
        /// What is copied.
        root: Descriptor,
        /// How messages call it.
        name: String,
    },
    /// A directory with an OCI layout (image-spec 1.1, "Image Layout"), or with an image as skopeo writes it (`dir:`).
    Layout(Arc<LayoutSource>),
    /// An image that was put together of others' blobs.
    Parts(Arc<Parts>),
}

/// An image whose manifest and config are in the store, and whose blobs are there or elsewhere.
pub struct Parts {
    stored: Source,
    elsewhere: HashMap<Digest, Source>,
}

impl Parts {
    /// Where a blob is.
    fn place_of(&self, digest: &Digest) -> &Source {
        self.elsewhere.get(digest).unwrap_or(&self.stored)
    }
}

/// A directory with blobs that is read. No link leads out of it.
pub struct LayoutSource {
    dir: RootDir,
    path: PathBuf,
    index: Index,
    root: Descriptor,
    names: BlobNames,
}

/// What the files of blobs are called.
#[derive(Clone, Copy, PartialEq, Eq)]
enum BlobNames {
    /// As an OCI layout has it.
    Oci,
    /// As containers' `dir:` has it.
    Dir,
}

/// The annotation that gives an entry of a layout its tag.
const TAG: &str = "org.opencontainers.image.ref.name";

impl LayoutSource {
    /// The tags of a layout, sorted, each once.
    ///
    /// # Errors
    /// The directory is no layout.
    pub fn tags(path: &Path) -> Result<Vec<String>, Error> {
        let (_, index) = read_layout(path)?;
        let tags: BTreeSet<String> = index.manifests.into_iter().filter_map(|mut entry| entry.annotations.remove(TAG)).collect();
        Ok(tags.into_iter().collect())
    }

    /// Opens a layout and finds what is meant: the entry with `tag`, or the only one that there is.
    ///
    /// # Errors
    /// The directory is no layout, or has nothing of that tag.
    pub fn open(path: &Path, tag: Option<&str>) -> Result<LayoutSource, Error> {
        let (dir, index) = read_layout(path)?;
        let name = path.display();
        let root = match (tag, index.manifests.as_slice()) {
            (None, [only]) => only.clone(),
            (None, []) => return Err(bad(format!("`{name}` has no image"))),
            // One image with several tags is one image.
            (None, [first, rest @ ..]) if rest.iter().all(|entry| entry.digest == first.digest) => first.clone(),
            (None, several) => {
                let count = several.len();
                return Err(bad(format!("`{name}` has {count} images: name one of its tags, as in `oci:{name}:TAG`")));
            }
            (Some(tag), all) => {
                let found = all.iter().find(|entry| entry.annotations.get(TAG).is_some_and(|known| known == tag));
                found.cloned().ok_or_else(|| bad(format!("`{name}` has no image with the tag `{tag}`")))?
            }
        };
        Ok(LayoutSource { dir, path: path.to_owned(), index, root, names: BlobNames::Oci })
    }

    /// Opens the one image (or index) of a directory as containers' `dir:` has it.
    ///
    /// # Errors
    /// The directory has none.
    pub fn open_dir(path: &Path) -> Result<LayoutSource, Error> {
        let failed = |source| Error::Layout { path: path.to_owned(), source };
        let dir = RootDir::open(path).map_err(failed)?;
        let mut bytes = Vec::new();
        open_in(&dir, path, Path::new(DIR_MANIFEST))?.take(MAX_MANIFEST).read_to_end(&mut bytes).map_err(failed)?;
        let named = |source| Error::Manifest { name: path.display().to_string(), source };
        let kind = ManifestOrIndex::parse(&bytes, None).map_err(named)?.media_type();
        let root = Descriptor::new(kind, Digest::sha256(&bytes), bytes.len() as u64);
        Ok(LayoutSource { dir, path: path.to_owned(), index: Index::empty(), root, names: BlobNames::Dir })
    }

    fn open_blob(&self, digest: &Digest) -> Result<File, Error> {
        let path = match self.names {
            BlobNames::Oci => PathBuf::from(format!("blobs/{}/{}", digest.algorithm().name(), digest.hex())),
            BlobNames::Dir => name_in_dir(digest, ""),
        };
        open_in(&self.dir, &self.path, &path)
    }

    fn open_manifest(&self, digest: &Digest) -> Result<File, Error> {
        match self.names {
            BlobNames::Oci => self.open_blob(digest),
            BlobNames::Dir if *digest == self.root.digest => open_in(&self.dir, &self.path, Path::new(DIR_MANIFEST)),
            BlobNames::Dir => open_in(&self.dir, &self.path, &name_in_dir(digest, ".manifest.json")),
        }
    }
}

/// A layout's directory, and what its `index.json` says.
fn read_layout(path: &Path) -> Result<(RootDir, Index), Error> {
    let failed = |source| Error::Layout { path: path.to_owned(), source };
    let dir = RootDir::open(path).map_err(failed)?;
    let file = open_in(&dir, path, Path::new("index.json"))?;
    let mut bytes = Vec::new();
    let failed = |source| Error::Layout { path: path.join("index.json"), source };
    file.take(MAX_MANIFEST).read_to_end(&mut bytes).map_err(failed)?;
    let index = serde_json::from_slice(&bytes).map_err(|error| bad(format!("its `index.json` is malformed: {error}")))?;
    Ok((dir, index))
}

/// The manifest or index of a directory as containers' `dir:` has it; those that an index names are beside it, under their digests.
pub(super) const DIR_MANIFEST: &str = "manifest.json";

/// The name of a file in such a directory.
pub(super) fn name_in_dir(digest: &Digest, suffix: &str) -> PathBuf {
    match digest.algorithm() {
        Algorithm::Sha256 => PathBuf::from(format!("{}{suffix}", digest.hex())),
        other => PathBuf::from(format!("{}-{}{suffix}", other.name(), digest.hex())),
    }
}

fn open_in(dir: &RootDir, root: &Path, path: &Path) -> Result<File, Error> {
    let failed = |source| Error::Layout { path: root.join(path), source };
    dir.open_at(path, OFlags::RDONLY | OFlags::NONBLOCK, Mode::empty(), Links::Follow).map(File::from).map_err(failed)
}

impl Source {
    /// The image of the manifest `root`, which is in the store, as messages call it `name`; blobs that are not in the store are `elsewhere`.
    pub(in crate::image) fn parts(store: &Store, root: Descriptor, name: &str, elsewhere: HashMap<Digest, Source>) -> Source {
        let stored = Source::Store { store: store.clone(), root, name: name.to_owned() };
        Source::Parts(Arc::new(Parts { stored, elsewhere }))
    }

    /// Several images that were put together of others' blobs, as one; `root` names them.
    pub(in crate::image) fn merged(store: &Store, root: Descriptor, name: &str, images: Vec<Source>) -> Source {
        let mut elsewhere = HashMap::new();
        for image in images {
            if let Source::Parts(parts) = image {
                elsewhere.extend(parts.elsewhere.iter().map(|(digest, source)| (digest.clone(), source.clone())));
            }
        }
        Source::parts(store, root, name, elsewhere)
    }

    /// The repository that a blob may be taken over from, where it is in one.
    pub(super) fn mount_source(&self, blob: &Descriptor) -> Option<Reference> {
        match self {
            Source::Registry { reference, .. } => Some(reference.clone()),
            Source::Parts(parts) => parts.place_of(&blob.digest).mount_source(blob),
            Source::Store { .. } | Source::Layout(_) => None,
        }
    }

    /// How messages call it.
    pub(in crate::image) fn name(&self) -> String {
        match self {
            Source::Registry { reference, .. } => reference.written().to_owned(),
            Source::Store { name, .. } => name.clone(),
            Source::Layout(layout) => layout.path.display().to_string(),
            Source::Parts(parts) => parts.stored.name(),
        }
    }

    /// What is meant.
    ///
    /// # Errors
    /// There is no such thing, or it cannot be asked for.
    pub async fn root(&self) -> Result<Descriptor, Error> {
        match self {
            Source::Registry { client, reference } => Ok(client.resolve(reference).await?),
            Source::Store { root, .. } => Ok(root.clone()),
            Source::Layout(layout) => Ok(plain(&layout.root)),
            Source::Parts(parts) => Box::pin(parts.stored.root()).await,
        }
    }

    /// The bytes of a manifest or an index.
    pub(in crate::image) async fn manifest(&self, at: &Descriptor) -> Result<Bytes, Error> {
        if at.size > MAX_MANIFEST {
            return Err(Error::TooLarge { what: "manifest", name: self.name(), size: at.size });
        }
        match self {
            Source::Registry { client, reference } => {
                let fetched = client.fetch_manifest(&reference.only_digest(at.digest.clone())).await?;
                Ok(fetched.bytes)
            }
            Source::Store { store, .. } => {
                let (store, digest) = (store.clone(), at.digest.clone());
                Ok(blocking(move || store.read_blob(&digest, MAX_MANIFEST)).await?.into())
            }
            Source::Layout(layout) => {
                let (layout, at) = (layout.clone(), at.clone());
                blocking(move || read_manifest(&layout, &at)).await
            }
            Source::Parts(parts) => Box::pin(parts.stored.manifest(at)).await,
        }
    }

    /// The bytes of a blob. Those of a registry have been checked where they end without an error.
    pub(in crate::image) fn blob(&self, blob: &Descriptor) -> Arc<dyn BlobSource> {
        Arc::new(Blob { source: self.clone(), blob: blob.clone() })
    }

    /// The bytes of a blob of at most `limit` bytes, checked.
    pub(in crate::image) async fn small_blob(&self, blob: &Descriptor, limit: u64) -> Result<Bytes, Error> {
        if blob.size > limit {
            return Err(Error::TooLarge { what: "config", name: self.name(), size: blob.size });
        }
        let (mut bytes, opener) = (Vec::new(), self.blob(blob));
        let failed = |source| Error::Io { action: "read", path: blob.digest.to_string().into(), source };
        let mut stream = blocking(move || opener.open_at(0)).await.map_err(failed)?;
        while let Some(chunk) = stream.next().await {
            bytes.extend_from_slice(&chunk.map_err(failed)?);
            if bytes.len() as u64 > blob.size {
                break;
            }
        }
        match Digest::of(blob.digest.algorithm(), &bytes) == blob.digest {
            true => Ok(bytes.into()),
            false => Err(Error::Damaged { name: self.name(), digest: blob.digest.clone() }),
        }
    }

    /// How large a blob is, without reading it; `None` where it is not there.
    pub(in crate::image) async fn blob_size(&self, blob: &Descriptor) -> Result<Option<u64>, Error> {
        let digest = blob.digest.clone();
        match self {
            Source::Registry { client, reference } => Ok(client.blob_size(reference, &digest).await?),
            Source::Store { store, .. } => {
                let store = store.clone();
                Ok(blocking(move || store.blob_size(&digest)).await?)
            }
            Source::Layout(layout) => {
                let layout = layout.clone();
                blocking(move || match layout.open_blob(&digest) {
                    Ok(file) => {
                        let failed = |source| Error::Layout { path: layout.path.clone(), source };
                        file.metadata().map(|metadata| Some(metadata.len())).map_err(failed)
                    }
                    Err(Error::Layout { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(None),
                    Err(error) => Err(error),
                })
                .await
            }
            Source::Parts(parts) => Box::pin(parts.place_of(&digest).blob_size(blob)).await,
        }
    }

    /// The error that `index` has no image for a platform.
    pub(in crate::image) fn no_platform(&self, index: &Index, wanted: &Platform) -> Error {
        let found = index.platforms();
        Error::NoPlatform { name: self.name(), wanted: wanted.clone(), found }
    }

    /// What is about the document `subject`.
    pub(super) async fn referrers(&self, subject: &Digest) -> Result<Vec<Descriptor>, Error> {
        match self {
            Source::Registry { client, reference } => {
                let found = client.referrers(reference, subject, None).await?;
                Ok(found.iter().map(plain).collect())
            }
            Source::Store { .. } | Source::Parts(_) => Ok(Vec::new()),
            Source::Layout(layout) => {
                let mut found = Vec::new();
                for entry in &layout.index.manifests {
                    let bytes = self.manifest(entry).await?;
                    let named = |source| Error::Manifest { name: self.name(), source };
                    let about = match ManifestOrIndex::parse(&bytes, Some(&entry.media_type)).map_err(named)? {
                        ManifestOrIndex::Manifest(manifest) => manifest.subject,
                        ManifestOrIndex::Index(index) => index.subject,
                    };
                    if about.is_some_and(|about| about.digest == *subject) {
                        found.push(plain(entry));
                    }
                }
                Ok(found)
            }
        }
    }
}

/// A descriptor without what only says something where it stands: names, and who it is about.
pub(super) fn plain(descriptor: &Descriptor) -> Descriptor {
    Descriptor {
        platform: descriptor.platform.clone(),
        ..Descriptor::new(descriptor.media_type.clone(), descriptor.digest.clone(), descriptor.size)
    }
}

fn read_manifest(layout: &LayoutSource, at: &Descriptor) -> Result<Bytes, Error> {
    let failed = |source| Error::Layout { path: layout.path.clone(), source };
    let mut bytes = Vec::new();
    layout.open_manifest(&at.digest)?.take(MAX_MANIFEST).read_to_end(&mut bytes).map_err(failed)?;
    if Digest::of(at.digest.algorithm(), &bytes) != at.digest {
        let name = layout.path.display().to_string();
        return Err(Error::Damaged { name, digest: at.digest.clone() });
    }
    Ok(bytes.into())
}

/// A blob of a source.
struct Blob {
    source: Source,
    blob: Descriptor,
}

impl BlobSource for Blob {
    fn open_at(&self, offset: u64) -> io::Result<ByteStream> {
        let file = match &self.source {
            Source::Registry { client, reference } => return Ok(remote(client.clone(), reference.clone(), self.blob.clone(), offset)),
            Source::Store { store, .. } => store.open_blob(&self.blob.digest).map_err(io::Error::other)?,
            Source::Layout(layout) => layout.open_blob(&self.blob.digest).map_err(io::Error::other)?,
            Source::Parts(parts) => return parts.place_of(&self.blob.digest).blob(&self.blob).open_at(offset),
        };
        let mut file = file;
        file.seek(SeekFrom::Start(offset))?;
        Ok(read_stream(file))
    }
}

/// A blob of a registry from `offset` on. What lies before is fetched too, since only the whole can be checked; that happens after a cut only.
fn remote(client: Client, reference: Reference, blob: Descriptor, offset: u64) -> ByteStream {
    let opened = async move { client.fetch_blob(&reference, &blob).await };
    let bytes = futures_util::stream::once(opened).flat_map(|opened| match opened {
        Ok(stream) => stream.into_stream().boxed(),
        Err(error) => futures_util::stream::once(std::future::ready(Err(error))).boxed(),
    });
    let mut skip = offset;
    Box::pin(bytes.filter_map(move |chunk| {
        let kept = match chunk {
            Err(error) => Some(Err(io::Error::other(error))),
            Ok(chunk) if (chunk.len() as u64) <= skip => {
                skip -= chunk.len() as u64;
                None
            }
            Ok(mut chunk) => {
                let rest = chunk.split_off(usize::try_from(skip).unwrap_or(usize::MAX));
                skip = 0;
                Some(Ok(rest))
            }
        };
        std::future::ready(kept)
    }))
}
