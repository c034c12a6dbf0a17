//! Images from one place to another as they are, and what a registry tells of images without giving them.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

pub use crate::image::copy::ManifestFormat;
pub use crate::image::copy::Wanted;
use crate::image::copy::{
    ArchiveSink, Collection, LayoutSource, Name, Source, Target, all_to_store, check_digest, collect, convert, same_digest, to_archive,
    to_dir, to_layout, to_registry,
};
use crate::image::daemon::Daemon;
use crate::image::edit::{Draft, collect_all, open_all};
use crate::image::export::{FileOptions, FilesLayout, PlatformFiles};
use crate::image::load::{Layout, archive_root, load_layout, load_root};
use crate::image::remote;
pub use crate::image::remote::{RemoteDocument, RemoteImage};
use crate::image::{blobs, export, pull};
use crate::oci::{Descriptor, MediaType, Platform, Reference};
use crate::progress::{Progress, StepOutcome, StepProgress};
use crate::registry::{Client, ClientOptions, Credential, Credentials};
use crate::store::{ImageRecord, Lease};
use crate::task::blocking;

use super::edit::view;
use super::outputs::CompressionSpec;
use super::stored_index::complete_index;
use super::transfer::{ArchiveFormat, open_input};
use super::{Engine, Error, client_options, set_up_failed};

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
    /// A directory with one image, or one index, as containers' tools write it.
    Directory(PathBuf),
    /// A Docker daemon.
    Daemon {
        /// The socket that it listens at.
        socket: PathBuf,
        /// The image, by a name or an ID there.
        name: String,
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
            Place::Directory(dir) => return write!(f, "dir:{}", dir.display()),
            Place::Daemon { name, .. } => return write!(f, "docker-daemon:{name}"),
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
    /// How the registry of the source is reached.
    pub from_access: Access,
    /// How the registry of the destination is reached.
    pub to_access: Access,
    /// How hard registries are tried.
    pub effort: Effort,
    /// What it is like at the destination.
    pub form: CopyForm,
}

/// How one registry is reached, where that is not as always.
#[derive(Clone, Debug, Default)]
pub struct Access {
    /// Who we are there.
    pub who: Who,
    /// Where credentials are looked for first.
    pub authfile: Option<PathBuf>,
    /// A folder with certificates for it, in place of the one in `certs.d`.
    pub certificates: Option<PathBuf>,
    /// Whether it need prove nothing: any certificate will do, or none.
    pub insecure: bool,
}

impl Access {
    /// Whether something was given that only a registry could use. What need not be proved (`insecure`) is true of every other place.
    fn is_for_registries(&self) -> bool {
        !matches!(self.who, Who::Known) || self.authfile.is_some() || self.certificates.is_some()
    }
}

/// Who we are to a registry.
#[derive(Clone, Debug, Default)]
pub enum Who {
    /// Whom the credentials for it name.
    #[default]
    Known,
    /// Nobody.
    Anonymous,
    /// This one.
    Given(Credential),
}

/// How hard registries are tried; what is not said is as always.
#[derive(Clone, Copy, Debug, Default)]
pub struct Effort {
    /// How often something is tried without getting any further.
    pub attempts: Option<u32>,
    /// How many blobs are moved at once.
    pub jobs: Option<usize>,
}

/// What a copy is like at its destination; by default it is as it was.
#[derive(Clone, Debug, Default)]
pub struct CopyForm {
    /// The format of manifests.
    pub format: Option<ManifestFormat>,
    /// What layers are compressed with.
    pub compression: Option<CompressionSpec>,
    /// Whether another digest than that of the source is an error.
    pub preserve_digests: bool,
    /// Further names, in archives.
    pub more_names: Vec<Reference>,
}

impl CopyForm {
    /// What cannot be had in the store, as a flag calls it.
    fn not_stored(&self) -> Option<&'static str> {
        let asked = [
            (self.format.is_some(), "--format"),
            (self.compression.is_some(), "--dest-compress-format"),
            (!self.more_names.is_empty(), "--additional-tag"),
        ];
        asked.into_iter().find(|(asked, _)| *asked).map(|(_, flag)| flag)
    }
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
        let source = self.client_for(&request.from, &request.from_access, request.effort)?;
        let target = self.client_for(&request.to, &request.to_access, request.effort)?;
        let result = self.copy_now(&request, &source, &target, &step).await;
        step.finish(if result.is_ok() { StepOutcome::Done } else { StepOutcome::Failed });
        let mut warnings = source.take_warnings();
        warnings.extend(target.take_warnings());
        warnings.dedup();
        warnings.into_iter().for_each(|warning| progress.warn(warning));
        result.map_err(|failure| failure.of("copy", &name))
    }

    /// This engine, which reaches the registry of one side of a copy as that does: for questions before it.
    ///
    /// # Errors
    /// The file with credentials; credentials or certificates for a place that is no registry.
    pub fn reaching(&self, place: &Place, access: &Access, effort: Effort) -> Result<Engine, Error> {
        Ok(self.with_client(self.client_for(place, access, effort)?))
    }

    /// The same for a registry itself.
    ///
    /// # Errors
    /// The file with credentials.
    pub fn reaching_registry(&self, registry: &str, access: &Access, effort: Effort) -> Result<Engine, Error> {
        Ok(self.with_client(self.client_as(Some(registry), access, effort)?))
    }

    fn with_client(&self, client: Client) -> Engine {
        let client = Arc::new(Mutex::new(Some(client)));
        Engine { options: self.options.clone(), store: self.store.clone(), spawner: self.spawner.clone(), client }
    }

    /// A client for one side of a copy.
    fn client_for(&self, place: &Place, access: &Access, effort: Effort) -> Result<Client, Error> {
        match place {
            Place::Registry(reference) => self.client_as(Some(reference.registry()), access, effort),
            _ if access.is_for_registries() => {
                let message = format!("`{place}` is no registry, so there is nobody to show credentials or certificates to");
                Err(Error::Usage { message, hint: Some("leave out the flags that give them for this place".to_owned()) })
            }
            _ => self.client_as(None, access, effort),
        }
    }

    fn client_as(&self, registry: Option<&str>, access: &Access, effort: Effort) -> Result<Client, Error> {
        let mut engine = self.options.clone();
        engine.credentials.asked = access.authfile.clone().or(engine.credentials.asked);
        let mut options = client_options(&engine)?;
        if let Some(registry) = registry {
            options.credentials = match &access.who {
                Who::Known => options.credentials,
                Who::Anonymous => Credentials::default(),
                Who::Given(credential) => Credentials::default().with(registry, credential.clone()),
            };
            options.insecure.extend(access.insecure.then(|| registry.to_owned()));
            options.certs_folder = access.certificates.clone().map(|folder| (registry.to_owned(), folder));
        }
        options.retry.attempts = effort.attempts.unwrap_or(options.retry.attempts);
        options.max_concurrency_per_host = effort.jobs.unwrap_or(options.max_concurrency_per_host);
        Client::new(options).map_err(set_up_failed)
    }

    async fn copy_now(&self, request: &CopyRequest, client: &Client, target: &Client, step: &StepProgress) -> Result<CopyOutcome, Failure> {
        let keeps_none = matches!(
            &request.to,
            Place::Store(_) | Place::Directory(_) | Place::Daemon { .. } | Place::Archive { format: ArchiveFormat::Docker, .. }
        );
        if request.referrers && keeps_none {
            let message = format!("`{}` keeps no referrers", request.to);
            let hint = Some("leave `--referrers` out, or copy to a registry, to `oci:` or to `oci-archive:`".to_owned());
            return Err(Failure::Other(Error::Usage { message, hint }));
        }
        let form = &request.form;
        if let Place::Store(to) = &request.to {
            if let Some(flag) = form.not_stored() {
                let message = format!("{flag} is for copies that leave the store: there an image is kept as it comes");
                return Err(Failure::Other(Error::Usage { message, hint: None }));
            }
            let name = to.parse().map_err(|error: crate::oci::ReferenceError| {
                Failure::Other(Error::Usage { message: error.to_string(), hint: Some("name it as `store:NAME:TAG`".to_owned()) })
            })?;
            let Wanted::Platform(platform) = &request.wanted else { return self.keep_all(&request.from, &name, client, step).await };
            let image = self.copy_to_store(&request.from, platform, &name, client, step).await?;
            let manifest = self.stored_manifest(&image).await?;
            return Ok(CopyOutcome { root: manifest, blobs: image.diff_ids.len() + 1, size: image.size });
        }
        let (source, mut what) = match form.compression {
            Some(spec) => self.recompressed(request, spec, client, step).await?,
            None => {
                let source = match &request.wanted {
                    Wanted::All => self.whole_source(&request.from, client).await?,
                    Wanted::Platform(_) => self.source(&request.from, client).await?,
                };
                let what = collect(&source, &request.wanted, request.referrers).await?;
                (source, what)
            }
        };
        if let Some(format) = form.format {
            let was = what.root.digest.clone();
            what = convert(what, format, &request.from.to_string())?;
            if form.preserve_digests && what.root.digest != was {
                let message = format!("`{}` would get another digest in this format, and --preserve-digests forbids that", request.from);
                return Err(Failure::Other(Error::Usage { message, hint: Some("leave one of the two flags out".to_owned()) }));
            }
        }
        let outcome = CopyOutcome { root: what.root.clone(), blobs: what.blobs.len(), size: what.blobs.iter().map(|blob| blob.size).sum() };
        let to = Destination { place: &request.to, client: target, more_names: &form.more_names };
        self.write(&source, what, reference_of(&request.from), &to, step).await?;
        Ok(outcome)
    }

    /// What is copied, with all layers compressed in one way. Of an index that is all images; what was said about them (provenance) is about others then.
    async fn recompressed(
        &self,
        request: &CopyRequest,
        spec: CompressionSpec,
        client: &Client,
        step: &StepProgress,
    ) -> Result<(Source, Collection), Failure> {
        let from = &request.from;
        if request.referrers {
            let message = "signatures and the like are about the manifests as they are, and --dest-compress-format makes others".to_owned();
            return Err(Failure::Other(Error::Usage { message, hint: Some("leave one of the two flags out".to_owned()) }));
        }
        let platform = match &request.wanted {
            Wanted::Platform(platform) => platform.clone(),
            Wanted::All => {
                let source = self.whole_source(from, client).await?;
                if source.root().await?.media_type.is_index() {
                    let (index, drafts) = open_all(&source).await?;
                    let mut packed = Vec::with_capacity(drafts.len());
                    for (entry, draft) in drafts {
                        packed.push((entry, draft.recompressed(&self.store, spec, step).await?));
                    }
                    return Ok(collect_all(&self.store, &from.to_string(), index, packed).await?);
                }
                Platform::host()
            }
        };
        let draft = self.open_draft(from, &platform, client).await?;
        let (source, what, _) = draft.recompressed(&self.store, spec, step).await?.into_collection(&self.store).await?;
        Ok((source, what))
    }

    /// The source of a place, where a name of the store that stands for an index means all of it.
    pub(super) async fn whole_source(&self, place: &Place, client: &Client) -> Result<Source, Failure> {
        if let Place::Store(name) = place
            && let Some(root) = self.index_of(name)?
        {
            return Ok(Source::Store { store: self.store.clone(), root, name: name.clone() });
        }
        self.source(place, client).await
    }

    /// Writes a collection to a place that is not the store; `named` is what an archive calls it that is told nothing else.
    pub(super) async fn write(
        &self,
        source: &Source,
        what: Collection,
        named: Option<Reference>,
        to: &Destination<'_>,
        step: &StepProgress,
    ) -> Result<(), Failure> {
        if !to.more_names.is_empty() && !matches!(to.place, Place::Archive { .. } | Place::Daemon { .. }) {
            let hint = Some("copy once for each name: what is there is not sent again".to_owned());
            return Err(Failure::Other(Error::Usage { message: "--additional-tag is for archives".to_owned(), hint }));
        }
        match to.place {
            Place::Registry(reference) => {
                same_digest(reference, &[&what.root.digest])?;
                let target = Target { client: to.client.clone(), reference: reference.clone() };
                to_registry(source, &what, &target, step).await?;
            }
            Place::Layout { dir, tag } => to_layout(source, what, dir, tag.as_deref(), step).await?,
            Place::Directory(dir) => to_dir(source, what, dir, step).await?,
            Place::Daemon { socket, name } => {
                let Some(name) = name.parse::<Reference>().ok().filter(|name| name.digest().is_none()) else {
                    let message = format!("a Docker daemon cannot call an image `{name}`");
                    return Err(Failure::Other(Error::Usage { message, hint: Some("name it as `docker-daemon:NAME:TAG`".to_owned()) }));
                };
                let sink = ArchiveSink::Daemon(Daemon::at(socket));
                to_archive(source, what, ArchiveFormat::Docker, sink, Some(Name::Whole(&name)), to.more_names, step).await?;
            }
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
                to_archive(source, what, *format, ArchiveSink::File(path.clone()), name, to.more_names, step).await?;
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
            Place::Directory(dir) => {
                let dir = dir.clone();
                Source::Layout(Arc::new(blocking(move || LayoutSource::open_dir(&dir)).await?))
            }
            Place::Store(name) => {
                let image = self.image(name)?;
                let root = self.stored_manifest(&image).await?;
                Source::Store { store: self.store.clone(), root, name: name.clone() }
            }
            Place::Archive { path, name, .. } => {
                let (store, file, image) = (self.store.clone(), path.clone(), name.clone());
                let root = blocking(move || Ok::<_, Failure>(archive_root(&store, open_input(&file)?, image.as_deref())?)).await?;
                Source::Store { store: self.store.clone(), root, name: path.display().to_string() }
            }
            Place::Daemon { socket, name } => {
                let (store, daemon, image) = (self.store.clone(), Daemon::at(socket), name.clone());
                let root = blocking(move || archive_root(&store, daemon.save(&image)?, None)).await?;
                Source::Store { store: self.store.clone(), root, name: place.to_string() }
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

    /// Keeps all that a place has under `name`, which then stands for the index, and for the image of it that runs here.
    async fn keep_all(&self, from: &Place, name: &Reference, client: &Client, step: &StepProgress) -> Result<CopyOutcome, Failure> {
        let source = self.whole_source(from, client).await?;
        let what = collect(&source, &Wanted::All, false).await?;
        same_digest(name, &[&what.root.digest])?;
        all_to_store(&source, &what, &self.store, step).await?;
        let (store, root, platform) = (self.store.clone(), what.root.clone(), what.platform_for(&Platform::host()));
        let image = blocking(move || load_root(&store, &root, &platform)).await?;
        let is_from_there = matches!(from, Place::Registry(reference) if reference.name() == name.name());
        let stands_for = Some(&what.root.digest).filter(|_| what.root.media_type.is_index() || is_from_there).or(name.digest());
        self.store.tag(name, &image.id, stands_for).map_err(Error::from)?;
        self.tagged(&image, name);
        let size = what.blobs.iter().map(|blob| blob.size).sum();
        Ok(CopyOutcome { root: what.root, blobs: what.blobs.len(), size })
    }

    async fn copy_to_store(
        &self,
        from: &Place,
        platform: &Platform,
        name: &Reference,
        client: &Client,
        step: &StepProgress,
    ) -> Result<ImageRecord, Failure> {
        let store = self.store.clone();
        if let Place::Registry(reference) = from {
            check_digest(&self.source(from, client).await?, name, platform).await?;
            let resolved = pull::resolve(client, &store, reference, platform).await?;
            let snapshots = pull::unpack(client, &store, reference, &resolved, step).await?;
            // What a name of another repository stands for there, nobody has said.
            let is_from_there = name.name() == reference.name();
            let name = name.clone();
            return Ok(blocking(move || {
                let manifest = name.digest().or(Some(&resolved.top).filter(|_| is_from_there)).cloned();
                pull::record_as(&store, &name, manifest.as_ref(), &resolved, &snapshots)
            })
            .await?);
        }
        let image = match from {
            Place::Store(from) => {
                let image = self.image(from)?;
                if name.digest().is_some() {
                    let index = from.parse::<Reference>().ok().map(|from| self.store.tagged_manifest(&from)).transpose();
                    let index = index.map_err(Error::from)?.flatten();
                    let manifest = self.stored_manifest(&image).await?.digest;
                    same_digest(name, &[Some(&manifest), index.as_ref()].into_iter().flatten().collect::<Vec<_>>())?;
                }
                image
            }
            Place::Layout { dir, tag } => {
                check_digest(&self.source(from, client).await?, name, platform).await?;
                let (layout, platform) = (Layout { dir: dir.clone(), tag: tag.clone(), digest: None }, platform.clone());
                let store = store.clone();
                blocking(move || load_layout(&store, &layout, &platform)).await?
            }
            Place::Directory(_) => {
                let source = self.source(from, client).await?;
                check_digest(&source, name, platform).await?;
                let what = collect(&source, &Wanted::Platform(platform.clone()), false).await?;
                all_to_store(&source, &what, &store, step).await?;
                let platform = platform.clone();
                blocking(move || load_root(&store, &what.root, &platform)).await?
            }
            Place::Archive { .. } | Place::Daemon { .. } => {
                let source = self.source(from, client).await?;
                check_digest(&source, name, platform).await?;
                let (root, platform, store) = (source.root().await?, platform.clone(), store.clone());
                blocking(move || load_root(&store, &root, &platform)).await?
            }
            Place::Registry(_) => unreachable!("copies from a registry are made above"),
        };
        self.store.tag(name, &image.id, name.digest()).map_err(Error::from)?;
        self.tagged(&image, name);
        Ok(image)
    }

    /// One more client, which shares nothing with the first: see [`Target`].
    pub(super) fn other_client(&self) -> Result<Client, Error> {
        let options: ClientOptions = self.client()?.options().clone();
        Client::new(options).map_err(|source| Error::Registry { action: "set up", name: "the registry client".into(), source })
    }
}

/// Where a copy goes.
pub(super) struct Destination<'a> {
    /// The place.
    pub(super) place: &'a Place,
    /// Who sends it, where that is a registry: another client than the one of the source, see [`Target`].
    pub(super) client: &'a Client,
    /// Further names, where that is an archive.
    pub(super) more_names: &'a [Reference],
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
        Place::Store(name) | Place::Daemon { name, .. } | Place::Archive { name: Some(name), .. } => name.parse().ok(),
        _ => None,
    }
}

/// What is told of images where they are.
impl Engine {
    /// The manifest or index that a place has, with `platform` the manifest for that; its bytes are as they are there.
    ///
    /// # Errors
    /// There is none, or the place cannot be read.
    pub async fn document(&self, place: &Place, platform: Option<&Platform>) -> Result<RemoteDocument, Error> {
        let look = async {
            let (_lease, source) = self.source_to_look_at(place).await?;
            Ok(remote::document(&source, platform).await?)
        };
        look.await.map_err(|failure: Failure| failure.of("look at", &place.to_string()))
    }

    /// The image that a place has, with its config.
    ///
    /// # Errors
    /// As [`Engine::document`]; there is no image for the platform.
    pub async fn image_at(&self, place: &Place, platform: &Platform) -> Result<RemoteImage, Error> {
        let look = async {
            let (_lease, source) = self.source_to_look_at(place).await?;
            Ok(remote::image(&source, platform).await?)
        };
        look.await.map_err(|failure: Failure| failure.of("look at", &place.to_string()))
    }

    /// What is read of archives, and compressed of images, is in the store for as long as the lease is there.
    async fn source_to_look_at(&self, place: &Place) -> Result<(Option<Lease>, Source), Failure> {
        let lease = if matches!(place, Place::Registry(_)) { None } else { Some(self.hold().await?) };
        Ok((lease, self.whole_source(place, &self.client()?).await?))
    }

    /// Writes all files of an image as a tar archive; `-` is standard output. What is not here is fetched, and gets no name.
    ///
    /// # Errors
    /// There is no such image, or it cannot be reached or read; the file cannot be written.
    pub async fn export_image(&self, place: &Place, platform: Option<&Platform>, to: &Path, progress: &Progress) -> Result<(), Error> {
        let _lease = self.hold().await?;
        let step = progress.start(format!("export {place}"), None);
        let work = async {
            let draft = match place {
                Place::Store(text) => {
                    let (store, image, text) = (self.store.clone(), self.image_for(text, platform).await?, text.clone());
                    blocking(move || Draft::of_stored(&store, &image, &text)).await?
                }
                _ => {
                    Draft::of_source(&self.source(place, &self.client()?).await?, &platform.cloned().unwrap_or_else(Platform::host)).await?
                }
            };
            let snapshots = draft.unpack(&self.store, &step).await?;
            let (store, to, platform) = (self.store.clone(), to.to_owned(), draft.config.platform().to_string());
            let meter = step.export_meter("writing");
            blocking(move || {
                let tree = view(&store, &snapshots)?;
                let files = [PlatformFiles { platform, tree: &tree }];
                let options = FileOptions { time: None, layout: FilesLayout::Merged, delete: false };
                export::to_tar(&files, &to, &options, &meter)?;
                meter.done();
                Ok(())
            })
            .await
        };
        let result = work.await;
        step.finish(if result.is_ok() { StepOutcome::Done } else { StepOutcome::Failed });
        result.map_err(|failure: Failure| failure.of("export", &place.to_string()))
    }

    /// What a name stands for: its digest.
    ///
    /// # Errors
    /// As [`Engine::document`].
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

    /// What is about the manifest or index that a name stands for, with `platform` about the image for that.
    ///
    /// # Errors
    /// As [`Engine::document`].
    pub async fn remote_referrers(
        &self,
        reference: &Reference,
        platform: Option<&Platform>,
        artifact_type: Option<&str>,
    ) -> Result<Vec<Descriptor>, Error> {
        let subject = match platform {
            Some(_) => self.document(&Place::Registry(reference.clone()), platform).await?.descriptor.digest,
            None => self.remote_digest(reference).await?.digest,
        };
        let failed = |source| Error::Registry { action: "list what is about", name: reference.written().to_owned(), source };
        self.client()?.referrers(reference, &subject, artifact_type).await.map_err(failed)
    }

    /// The tags of a repository, or of a layout.
    ///
    /// # Errors
    /// As [`Engine::remote_tags`]; the place is another, or no layout.
    pub async fn tags_at(&self, place: &Place) -> Result<Vec<String>, Error> {
        match place {
            Place::Registry(repository) => self.remote_tags(repository).await,
            Place::Layout { dir, tag: None } => {
                let dir = dir.clone();
                let read: Result<_, Failure> = blocking(move || Ok(LayoutSource::tags(&dir)?)).await;
                read.map_err(|failure| failure.of("list the tags of", &place.to_string()))
            }
            other => {
                let message = format!("`{other}` has no list of tags");
                Err(Error::Usage { message, hint: Some("name a repository, or a layout as `oci:DIR`".to_owned()) })
            }
        }
    }

    /// Hands the bytes of a blob of a registry on, as they come. They are right if this succeeds.
    ///
    /// # Errors
    /// There is no such blob, or the registry cannot be reached or refuses; it sends something else.
    pub async fn remote_blob(&self, reference: &Reference, mut take: impl FnMut(&[u8])) -> Result<(), Error> {
        let Some(digest) = reference.digest() else {
            let message = format!("`{}` names no blob", reference.written());
            return Err(Error::Usage { message, hint: Some("name it by its digest, as in `NAME@sha256:…`".to_owned()) });
        };
        let failed = |source| Error::Registry { action: "fetch", name: reference.written().to_owned(), source };
        let client = self.client()?;
        let Some(size) = client.blob_size(reference, digest).await.map_err(failed)? else {
            let message = format!("`{}` has no blob {digest}", reference.familiar_name());
            return Err(Error::Usage { message, hint: None });
        };
        let blob = Descriptor::new(MediaType::Other("application/octet-stream".into()), digest.clone(), size);
        let mut stream = client.fetch_blob(reference, &blob).await.map_err(failed)?;
        while let Some(chunk) = stream.next_chunk().await.map_err(failed)? {
            take(&chunk);
        }
        Ok(())
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
