//! Images from one place to another as they are, and what a registry tells of images without giving them.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use crate::image::copy::Wanted;
use crate::image::copy::{
    Collection, LayoutSource, Name, Source, Target, check_digest, collect, same_digest, to_archive, to_layout, to_registry,
};
use crate::image::load::{Layout, archive_root, load_layout, load_root};
pub use crate::image::remote::{RemoteDocument, RemoteImage};
use crate::image::{blobs, pull};
use crate::oci::{Descriptor, Platform, Reference};
use crate::progress::{Progress, StepOutcome, StepProgress};
use crate::registry::{Client, ClientOptions};
use crate::store::ImageRecord;
use crate::task::blocking;

use super::stored_index::complete_index;
use super::transfer::{ArchiveFormat, open_input};
use super::{Engine, Error};

/// A place that has images.
#[derive(Clone, Debug)]
pub enum Place {
    /// A registry, by the image's name there.
    Registry(Reference),
    /// The store, by a name or an ID of an image.
    Store(String),
    /// A directory with an OCI layout.
    Layout {
        /// The directory.
        dir: PathBuf,
        /// Which of its images.
        tag: Option<String>,
    },
    /// A file with an archive; `-` is standard input or output.
    Archive {
        /// The file.
        path: PathBuf,
        /// Who reads it, or wrote it.
        format: ArchiveFormat,
        /// Which of its images: a tag, or a whole name.
        name: Option<String>,
    },
}

/// As a user writes it.
impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, path, name) = match self {
            Place::Registry(reference) => return f.write_str(reference.written()),
            Place::Store(name) => return write!(f, "store:{name}"),
            Place::Layout { dir, tag } => ("oci", dir, tag),
            Place::Archive { path, format: ArchiveFormat::Oci, name } => ("oci-archive", path, name),
            Place::Archive { path, format: ArchiveFormat::Docker, name } => ("docker-archive", path, name),
        };
        write!(f, "{kind}:{}", path.display())?;
        name.iter().try_for_each(|name| write!(f, ":{name}"))
    }
}

/// A copy.
#[derive(Clone, Debug)]
pub struct CopyRequest {
    /// What is copied.
    pub from: Place,
    /// Where to.
    pub to: Place,
    /// Which images of an index.
    pub wanted: Wanted,
    /// Whether what is about an image (signatures, for instance) goes with it.
    pub referrers: bool,
}

/// A copy that succeeded.
#[derive(Clone, Debug)]
pub struct CopyOutcome {
    /// What the name stands for at the destination.
    pub root: Descriptor,
    /// How many blobs it has.
    pub blobs: usize,
    /// How many bytes those are.
    pub size: u64,
}

impl Engine {
    /// Copies an image from one place to another.
    ///
    /// # Errors
    /// Either place; what cannot be done there.
    pub async fn copy(&self, request: CopyRequest, progress: &Progress) -> Result<CopyOutcome, Error> {
        let _lease = self.hold().await?;
        let name = request.from.to_string();
        let step = progress.start(format!("copy {name} to {}", request.to), None);
        let source_client = self.client()?;
        let result = self.copy_now(&request, &source_client, &step).await;
        step.finish(if result.is_ok() { StepOutcome::Done } else { StepOutcome::Failed });
        for warning in source_client.take_warnings() {
            progress.warn(warning);
        }
        result.map_err(|failure| failure.of("copy", &name))
    }

    async fn copy_now(&self, request: &CopyRequest, client: &Client, step: &StepProgress) -> Result<CopyOutcome, Failure> {
        if request.referrers && matches!(&request.to, Place::Store(_) | Place::Archive { format: ArchiveFormat::Docker, .. }) {
            let message = format!("`{}` keeps no referrers", request.to);
            let hint = Some("leave `--referrers` out, or copy to a registry, to `oci:` or to `oci-archive:`".to_owned());
            return Err(Failure::Other(Error::Usage { message, hint }));
        }
        if let Place::Store(to) = &request.to {
            let image = self.copy_to_store(request, to, client, step).await?;
            let manifest = self.stored_manifest(&image).await?;
            return Ok(CopyOutcome { root: manifest, blobs: image.diff_ids.len() + 1, size: image.size });
        }
        let source = match (&request.from, &request.wanted) {
            (Place::Store(name), Wanted::All) => match self.index_of(name)? {
                Some(root) => Source::Store { store: self.store.clone(), root, name: name.clone() },
                None => self.source(&request.from, client).await?,
            },
            (from, _) => self.source(from, client).await?,
        };
        let what = collect(&source, &request.wanted, request.referrers).await?;
        let outcome = CopyOutcome { root: what.root.clone(), blobs: what.blobs.len(), size: what.blobs.iter().map(|blob| blob.size).sum() };
        self.write(&source, what, reference_of(&request.from), &request.to, step).await?;
        Ok(outcome)
    }

    /// Writes a collection to a place that is not the store; `named` is what an archive calls it that is told nothing else.
    pub(super) async fn write(
        &self,
        source: &Source,
        what: Collection,
        named: Option<Reference>,
        to: &Place,
        step: &StepProgress,
    ) -> Result<(), Failure> {
        match to {
            Place::Registry(reference) => {
                same_digest(reference, &[&what.root.digest])?;
                let target = Target { client: self.other_client()?, reference: reference.clone() };
                to_registry(source, &what, &target, step).await?;
            }
            Place::Layout { dir, tag } => to_layout(source, what, dir, tag.as_deref(), step).await?,
            Place::Archive { path, format, name } => {
                let whole = name.as_deref().and_then(|name| name.parse::<Reference>().ok());
                if let Some(whole) = whole.as_ref().filter(|whole| whole.digest().is_some()) {
                    let message = format!("an archive cannot call an image `{}`", whole.written());
                    let hint = Some("name a tag: the digest follows from the content".to_owned());
                    return Err(Failure::Other(Error::Usage { message, hint }));
                }
                let whole = whole.or(named.filter(|name| name.digest().is_none()));
                let name = match (name, format) {
                    // A tag alone is all that an OCI archive wants.
                    (Some(tag), ArchiveFormat::Oci) if !tag.contains(['/', ':']) => Some(Name::Tag(tag)),
                    _ => whole.as_ref().map(Name::Whole),
                };
                to_archive(source, what, *format, path, name, step).await?;
            }
            Place::Store(_) => unreachable!("the store is no place to write a collection to"),
        }
        Ok(())
    }

    pub(super) async fn source(&self, place: &Place, client: &Client) -> Result<Source, Failure> {
        Ok(match place {
            Place::Registry(reference) => Source::Registry { client: client.clone(), reference: reference.clone() },
            Place::Layout { dir, tag } => {
                let (dir, tag) = (dir.clone(), tag.clone());
                Source::Layout(Arc::new(blocking(move || LayoutSource::open(&dir, tag.as_deref())).await?))
            }
            Place::Store(name) => {
                let image = self.image(name)?;
                let root = self.stored_manifest(&image).await?;
                Source::Store { store: self.store.clone(), root, name: name.clone() }
            }
            Place::Archive { path, name, .. } => {
                let root = self.spool(path, name.clone()).await?;
                Source::Store { store: self.store.clone(), root, name: path.display().to_string() }
            }
        })
    }

    /// The index that a name of the store was pulled with, whole.
    fn index_of(&self, name: &str) -> Result<Option<Descriptor>, Error> {
        match name.parse::<Reference>() {
            Ok(reference) if self.store.resolve(&reference)?.is_some() => Ok(complete_index(&self.store, &reference)?),
            _ => Ok(None),
        }
    }

    /// The manifest of an image of the store, whose layers are compressed now where they were not.
    async fn stored_manifest(&self, image: &ImageRecord) -> Result<Descriptor, Failure> {
        let (store, image) = (self.store.clone(), image.clone());
        Ok(blocking(move || blobs::ensure_manifest(&store, &image)).await?.descriptor)
    }

    async fn spool(&self, path: &Path, name: Option<String>) -> Result<Descriptor, Failure> {
        let (store, path) = (self.store.clone(), path.to_owned());
        blocking(move || Ok(archive_root(&store, open_input(&path)?, name.as_deref())?)).await
    }

    async fn copy_to_store(&self, request: &CopyRequest, to: &str, client: &Client, step: &StepProgress) -> Result<ImageRecord, Failure> {
        let usage = |message: String, hint: &str| Failure::Other(Error::Usage { message, hint: Some(hint.to_owned()) });
        let Wanted::Platform(platform) = &request.wanted else {
            return Err(usage("the store keeps images, not indexes of several".into(), "leave `--all` out, and choose with `--platform`"));
        };
        let name: Reference =
            to.parse().map_err(|error: crate::oci::ReferenceError| usage(error.to_string(), "name it as `store:NAME:TAG`"))?;
        let store = self.store.clone();
        if let Place::Registry(reference) = &request.from {
            check_digest(&self.source(&request.from, client).await?, &name, platform).await?;
            let resolved = pull::resolve(client, &store, reference, platform).await?;
            let snapshots = pull::unpack(client, &store, reference, &resolved, step).await?;
            // What a name of another repository stands for there, nobody has said.
            let is_from_there = name.name() == reference.name();
            return Ok(blocking(move || {
                let manifest = name.digest().or(Some(&resolved.top).filter(|_| is_from_there)).cloned();
                pull::record_as(&store, &name, manifest.as_ref(), &resolved, &snapshots)
            })
            .await?);
        }
        let image = match &request.from {
            Place::Store(from) => {
                let image = self.image(from)?;
                if name.digest().is_some() {
                    let index = from.parse::<Reference>().ok().map(|from| self.store.tagged_manifest(&from)).transpose();
                    let index = index.map_err(Error::from)?.flatten();
                    let manifest = self.stored_manifest(&image).await?.digest;
                    same_digest(&name, &[Some(&manifest), index.as_ref()].into_iter().flatten().collect::<Vec<_>>())?;
                }
                image
            }
            Place::Layout { dir, tag } => {
                check_digest(&self.source(&request.from, client).await?, &name, platform).await?;
                let (layout, platform) = (Layout { dir: dir.clone(), tag: tag.clone(), digest: None }, platform.clone());
                let store = store.clone();
                blocking(move || load_layout(&store, &layout, &platform)).await?
            }
            Place::Archive { path, name: tag, .. } => {
                let (root, platform, store) = (self.spool(path, tag.clone()).await?, platform.clone(), store.clone());
                let source = Source::Store { store: store.clone(), root: root.clone(), name: path.display().to_string() };
                check_digest(&source, &name, &platform).await?;
                blocking(move || load_root(&store, &root, &platform)).await?
            }
            Place::Registry(_) => unreachable!("copies from a registry are made above"),
        };
        self.store.tag(&name, &image.id, name.digest()).map_err(Error::from)?;
        self.tagged(&image, &name);
        Ok(image)
    }

    /// One more client, which shares nothing with the first: see [`Target`].
    pub(super) fn other_client(&self) -> Result<Client, Error> {
        let options: ClientOptions = self.client()?.options().clone();
        Client::new(options).map_err(|source| Error::Registry { action: "set up", name: "the registry client".into(), source })
    }
}

/// Why a copy failed, before it is said what was copied.
pub(super) enum Failure {
    Image(crate::image::Error),
    Other(Error),
}

impl Failure {
    /// The error that `action` failed with the image `name`.
    pub(super) fn of(self, action: &'static str, name: &str) -> Error {
        match self {
            Failure::Image(source) => Error::Image { action, name: name.to_owned(), source },
            Failure::Other(error) => error,
        }
    }
}

impl From<crate::image::Error> for Failure {
    fn from(error: crate::image::Error) -> Failure {
        Failure::Image(error)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure::Other(error)
    }
}

fn reference_of(place: &Place) -> Option<Reference> {
    match place {
        Place::Registry(reference) => Some(reference.clone()),
        Place::Store(name) | Place::Archive { name: Some(name), .. } => name.parse().ok(),
        _ => None,
    }
}

/// What a registry tells of a name.
impl Engine {
    /// The manifest or index that a name stands for, with `platform` the manifest for that; its bytes are those of the registry.
    ///
    /// # Errors
    /// There is none, or the registry cannot be reached or refuses.
    pub async fn remote_manifest(&self, reference: &Reference, platform: Option<&Platform>) -> Result<RemoteDocument, Error> {
        let client = self.client()?;
        let failed = |source| Error::Image { action: "look at", name: reference.written().to_owned(), source };
        crate::image::remote::manifest(&client, reference, platform).await.map_err(failed)
    }

    /// The config of the image that a name stands for.
    ///
    /// # Errors
    /// As [`Engine::remote_manifest`]; there is no image for the platform.
    pub async fn remote_image(&self, reference: &Reference, platform: &Platform) -> Result<RemoteImage, Error> {
        let client = self.client()?;
        let failed = |source| Error::Image { action: "look at", name: reference.written().to_owned(), source };
        crate::image::remote::image(&client, reference, platform).await.map_err(failed)
    }

    /// What a name stands for: its digest.
    ///
    /// # Errors
    /// As [`Engine::remote_manifest`].
    pub async fn remote_digest(&self, reference: &Reference) -> Result<Descriptor, Error> {
        let failed = |source| Error::Registry { action: "look at", name: reference.written().to_owned(), source };
        self.client()?.resolve(reference).await.map_err(failed)
    }

    /// The tags of a repository.
    ///
    /// # Errors
    /// There is no such repository, or the registry cannot be reached or refuses.
    pub async fn remote_tags(&self, repository: &Reference) -> Result<Vec<String>, Error> {
        let failed = |source| Error::Registry { action: "list the tags of", name: repository.familiar_name(), source };
        self.client()?.tags(repository).await.map_err(failed)
    }

    /// The repositories of a registry.
    ///
    /// # Errors
    /// The registry has no such list, or cannot be reached or refuses.
    pub async fn remote_catalog(&self, registry: &str) -> Result<Vec<String>, Error> {
        let failed = |source| Error::Registry { action: "list the repositories of", name: registry.to_owned(), source };
        self.client()?.catalog(registry).await.map_err(failed)
    }

    /// Deletes a tag, or what a digest stands for.
    ///
    /// # Errors
    /// There is no such thing, or the registry refuses.
    pub async fn remote_delete(&self, reference: &Reference) -> Result<(), Error> {
        let failed = |source| Error::Registry { action: "delete", name: reference.written().to_owned(), source };
        let client = self.client()?;
        let Err(refusal) = client.delete_manifest(reference).await else { return Ok(()) };
        // Many registries know of the deletion of manifests only.
        if reference.digest().is_none()
            && matches!(&refusal, crate::registry::Error::Status(error) if matches!(error.status, 400 | 405))
            && let Ok(found) = client.fetch_manifest(reference).await
        {
            let by_digest = reference.only_digest(found.digest);
            return Err(Error::TagDeletion { name: reference.written().to_owned(), by_digest: by_digest.familiar(), source: refusal });
        }
        Err(failed(refusal))
    }
}
