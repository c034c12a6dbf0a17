//! Images on their way: from and to registries, from and to archives.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::diag::SafeUrl;
pub use crate::image::archive::ArchiveFormat;
use crate::image::archive::Saved;
use crate::image::copy::{Source, Target, Wanted, all_to_store, collect, to_registry};
use crate::image::import::import;
pub use crate::image::load::Loaded;
use crate::image::load::{LoadFor, load};
use crate::image::{export, pull, push};
use crate::oci::{Descriptor, Digest, ImageConfig, Platform, Reference};
use crate::progress::{Progress, StepOutcome, StepProgress};
use crate::registry::Client;
use crate::store::{ImageRecord, Lease};
use crate::task::blocking;

use super::changes::apply_changes;
use super::stored_index::{complete_index, image_in_index};
use super::{Engine, Error};

/// A pull.
#[derive(Clone, Debug)]
pub struct PullRequest {
    /// What to pull.
    pub reference: Reference,
    /// The platform to choose where there are several.
    pub platform: Platform,
    /// Whether the images for all platforms are kept, and the index; the name stands for the one for `platform`.
    pub all_platforms: bool,
}

/// A pull that succeeded.
#[derive(Clone, Debug)]
pub struct PullOutcome {
    /// The image.
    pub image: ImageRecord,
    /// Its name: of one that was written without a registry, what that stands for.
    pub name: Reference,
    /// What the name stands for in the registry: a manifest or an index.
    pub digest: Digest,
    /// Whether the name meant this image here already.
    pub up_to_date: bool,
}

/// A push that succeeded.
#[derive(Clone, Debug)]
pub struct PushOutcome {
    /// What the name means in the registry now.
    pub manifest: Descriptor,
}

/// A save.
#[derive(Clone, Debug)]
pub struct SaveRequest {
    /// The images: names, IDs or the beginnings of IDs.
    pub images: Vec<String>,
    /// Those for which platform; `None` are those that the names stand for.
    pub platform: Option<Platform>,
    /// For whom the archive is.
    pub format: ArchiveFormat,
    /// Where it goes; `-` is standard output.
    pub dest: PathBuf,
}

/// An import.
#[derive(Clone, Debug)]
pub struct ImportRequest {
    /// The archive with the root file system; `-` is standard input, and an address is fetched.
    pub source: PathBuf,
    /// The image's name.
    pub name: Option<Reference>,
    /// Instructions of Dockerfiles that change the config.
    pub changes: Vec<String>,
    /// A remark for the history.
    pub message: Option<String>,
    /// What the image runs on.
    pub platform: Platform,
}

impl Engine {
    /// Pulls an image. What is here is not fetched; dropping the call keeps what has arrived for the next one.
    ///
    /// # Errors
    /// The registry, the store, and content that is not what it should be.
    pub async fn pull(&self, request: PullRequest, progress: &Progress) -> Result<PullOutcome, Error> {
        let failed = |source| Error::Image { action: "pull", name: request.reference.written().to_owned(), source };
        let _lease = self.hold().await?;
        let client = self.client()?;
        let reference = client.long_name(&request.reference).await.map_err(|source| failed(source.into()))?;
        let request = PullRequest { reference, ..request.clone() };
        let reference = &request.reference;
        let before = self.store.resolve(reference)?;
        let step = progress.start(format!("pull {}", reference.familiar()), None);
        let work = async {
            let platform = match request.all_platforms {
                true => self.pull_all(&client, &request, &step).await?,
                false => request.platform.clone(),
            };
            let resolved = pull::resolve(&client, &self.store, reference, &platform).await?;
            let snapshots = pull::unpack(&client, &self.store, reference, &resolved, &step).await?;
            let (store, name, digest) = (self.store.clone(), reference.clone(), resolved.top.clone());
            let image = blocking(move || pull::record(&store, &name, &resolved, &snapshots)).await?;
            Ok((image, digest))
        };
        let result = work.await;
        step.finish(if result.is_ok() { StepOutcome::Done } else { StepOutcome::Failed });
        for warning in client.take_warnings() {
            progress.warn(warning);
        }
        let (image, digest) = result.map_err(failed)?;
        if !image.platform.matches(&request.platform) {
            progress.warn(format!(
                "`{}` is for {}, not for {}, and there is no other",
                reference.written(),
                image.platform,
                request.platform
            ));
        }
        self.transferred("pull", &image, reference);
        let up_to_date = before.is_some_and(|before| before.id == image.id);
        Ok(PullOutcome { image, name: reference.clone(), digest, up_to_date })
    }

    /// Brings all that a name stands for into the store; gives the platform of which there is an image.
    async fn pull_all(&self, client: &Client, request: &PullRequest, step: &StepProgress) -> Result<Platform, crate::image::Error> {
        let source = Source::Registry { client: client.clone(), reference: request.reference.clone() };
        let what = collect(&source, &Wanted::All, false).await?;
        all_to_store(&source, &what, &self.store, step).await?;
        Ok(what.platform_for(&request.platform))
    }

    /// Pushes the index that a name was pulled or built with, and all that it names.
    ///
    /// # Errors
    /// There is no such name, or it stands for one image here; the registry.
    pub async fn push_all(&self, reference: &Reference, progress: &Progress) -> Result<PushOutcome, Error> {
        let _lease = self.hold().await?;
        if self.store.resolve(reference)?.is_none() {
            return Err(self.no_image(reference.written())?);
        }
        let Some(root) = complete_index(&self.store, reference)? else {
            let message = format!("`{}` is one image here, and no index", reference.written());
            let hint = Some("`strake pull --all-platforms` keeps all images of an index; `strake index create` makes one".to_owned());
            return Err(Error::Usage { message, hint });
        };
        self.push_index(&self.client()?, reference, &root, progress).await?;
        Ok(PushOutcome { manifest: root })
    }

    /// Sends an index of the store, and all that it names, to the registry of `reference`, under that name or digest.
    pub(super) async fn push_index(
        &self,
        client: &Client,
        reference: &Reference,
        root: &Descriptor,
        progress: &Progress,
    ) -> Result<Descriptor, Error> {
        let step = progress.start(format!("push {}", reference.familiar()), None);
        let source = Source::Store { store: self.store.clone(), root: root.clone(), name: reference.written().to_owned() };
        let target = Target { client: client.clone(), reference: reference.clone() };
        let work = async {
            let what = collect(&source, &Wanted::All, false).await?;
            to_registry(&source, &what, &target, &step).await
        };
        let result = work.await;
        step.finish(if result.is_ok() { StepOutcome::Done } else { StepOutcome::Failed });
        for warning in client.take_warnings() {
            progress.warn(warning);
        }
        let failed = |source| Error::Image { action: "push", name: reference.written().to_owned(), source };
        result.map_err(failed)?;
        if let Some(image) = self.store.resolve(reference)? {
            self.transferred("push", &image, reference);
        }
        Ok(root.clone())
    }

    /// The image that is meant, for `platform` where one is named: the one that is here, or one of the index that the name was pulled with.
    ///
    /// # Errors
    /// There is no such image, or none for the platform; the store.
    pub async fn image_for(&self, text: &str, platform: Option<&Platform>) -> Result<ImageRecord, Error> {
        let image = self.image(text)?;
        let Some(platform) = platform.filter(|platform| !image.platform.matches(platform)) else { return Ok(image) };
        let _lease = self.hold().await?;
        let (store, name, wanted) = (self.store.clone(), text.to_owned(), platform.clone());
        let failed = |source| Error::Image { action: "read", name: text.to_owned(), source };
        if let Some(other) = blocking(move || image_in_index(&store, &name, &wanted)).await.map_err(failed)? {
            return Ok(other);
        }
        let message = format!("`{text}` is here for {}, and not for {platform}", image.platform);
        let hint = Some("`strake pull --all-platforms` keeps the images for all platforms".to_owned());
        Err(Error::Usage { message, hint })
    }

    /// Pushes what a name stands for: the index that it was pulled or built with, where all of that is here, else the image. Where `platform` is named, the image
    /// for that.
    ///
    /// # Errors
    /// No such image, the registry, the store.
    pub async fn push(&self, reference: &Reference, platform: Option<&Platform>, progress: &Progress) -> Result<PushOutcome, Error> {
        if reference.digest().is_some() {
            let hint = Some("name a tag: the digest follows from the image".to_owned());
            return Err(Error::Usage { message: format!("cannot push `{}` by its digest", reference.written()), hint });
        }
        let _lease = self.hold().await?;
        if self.store.resolve(reference)?.is_none() {
            return Err(self.no_image(reference.written())?);
        }
        let index = complete_index(&self.store, reference)?;
        if let Some(index) = index.as_ref().filter(|_| platform.is_none()) {
            let manifest = self.push_index(&self.client()?, reference, index, progress).await?;
            return Ok(PushOutcome { manifest });
        }
        let image = self.image_for(&reference.to_string(), platform).await?;
        let manifest = self.push_image(&self.client()?, reference, &image, progress).await?;
        self.transferred("push", &image, reference);
        // Should somebody have moved the name meanwhile, it is theirs. Here it goes on to stand for an index, whatever it is at the registry.
        if index.is_none() && self.store.resolve(reference)?.is_some_and(|now| now.id == image.id) {
            self.store.tag(reference, &image.id, Some(&manifest.digest))?;
        }
        Ok(PushOutcome { manifest })
    }

    /// Sends an image to the registry of `reference`, under that name or digest.
    pub(super) async fn push_image(
        &self,
        client: &Client,
        reference: &Reference,
        image: &ImageRecord,
        progress: &Progress,
    ) -> Result<Descriptor, Error> {
        let step = progress.start(format!("push {}", reference.familiar()), None);
        let result = push::push(client, &self.store, reference, image, &step).await;
        step.finish(if result.is_ok() { StepOutcome::Done } else { StepOutcome::Failed });
        for warning in client.take_warnings() {
            progress.warn(warning);
        }
        let failed = |source| Error::Image { action: "push", name: reference.written().to_owned(), source };
        Ok(result.map_err(failed)?.manifest)
    }

    /// Makes an image of a root file system.
    ///
    /// # Errors
    /// The archive, the instructions, the store.
    pub async fn import(&self, request: ImportRequest, progress: &Progress) -> Result<ImageRecord, Error> {
        let lease = Arc::new(self.hold().await?);
        let mut config = ImageConfig::empty(&request.platform);
        apply_changes(&mut config.config, &request.changes)?;
        let shown = SafeUrl::new(&request.source.display().to_string()).to_string();
        let comment = request.message.unwrap_or_else(|| format!("Imported from {shown}"));
        let source = match request.source.to_str().filter(|text| text.contains("://")) {
            Some(url) => self.fetched(url, &lease, progress).await?,
            None => request.source,
        };
        let (store, name) = (self.store.clone(), request.name.clone());
        let image = blocking(move || {
            let archive = open_input(&source)?;
            let failed = |source| Error::Image { action: "import", name: shown, source };
            import(&store, archive, config, &comment, name.as_ref()).map_err(failed)
        })
        .await?;
        request.name.iter().for_each(|name| self.tagged(&image, name));
        self.done_to_image("import", &image.id, self.labels_of(&image));
        Ok(image)
    }

    /// The file at an address, which the lease keeps.
    async fn fetched(&self, url: &str, lease: &Arc<Lease>, progress: &Progress) -> Result<PathBuf, Error> {
        if !(url.starts_with("http://") || url.starts_with("https://")) {
            let hint = Some("give an address that begins with http:// or https://, or a file".to_owned());
            return Err(Error::Usage { message: format!("`{}` cannot be fetched", SafeUrl::new(url)), hint });
        }
        let step = progress.start(format!("fetch {}", SafeUrl::new(url)), None);
        let remotes = self.remotes(Some(lease.clone()), BTreeMap::new(), None, progress);
        let found = remotes.download(url, None, &step).await;
        step.finish(if found.is_ok() { StepOutcome::Done } else { StepOutcome::Failed });
        Ok(found?.path)
    }

    /// Writes images to an archive. What is named is in there by that name; what is meant by its ID has none.
    ///
    /// # Errors
    /// There is no such image, the file, the store.
    pub async fn save(&self, request: SaveRequest) -> Result<(), Error> {
        let _lease = self.hold().await?;
        let mut images: Vec<Saved> = Vec::new();
        for text in &request.images {
            for text in self.all_of_repository(text)? {
                let known = self.store.names_of(&self.image(&text)?.id)?;
                let name = text.parse::<Reference>().ok().filter(|name| known.contains(name));
                let image = self.image_for(&text, request.platform.as_ref()).await?;
                let index = match &name {
                    Some(name) if request.platform.is_none() => complete_index(&self.store, name)?,
                    _ => None,
                };
                match images.iter_mut().find(|other| other.image.id == image.id && other.index == index) {
                    Some(Saved { names, .. }) => names.extend(name.filter(|name| !names.contains(name))),
                    None => images.push(Saved { image, index, names: name.into_iter().collect() }),
                }
            }
        }
        let (store, saved) = (self.store.clone(), images.iter().map(|saved| saved.image.clone()).collect::<Vec<_>>());
        blocking(move || {
            let failed = |source| Error::Output { to: request.dest.display().to_string(), source };
            export::to_archive(&store, &images, request.format, &request.dest).map_err(failed)
        })
        .await?;
        saved.iter().for_each(|image| self.done_to_image("save", &image.id, self.labels_of(image)));
        Ok(())
    }

    /// All names in the repository that `text` means, where it is one (as in `docker save debian`); otherwise `text` itself.
    fn all_of_repository(&self, text: &str) -> Result<Vec<String>, Error> {
        let Some(written) = text.parse::<Reference>().ok().filter(Reference::is_repository_alone) else { return Ok(vec![text.to_owned()]) };
        let all: Vec<Reference> = self.store.images()?.into_iter().flat_map(|(names, _)| names).collect();
        let mut repositories = vec![written.name()];
        repositories.extend(self.long_names(&written)?.iter().map(Reference::name));
        for repository in repositories {
            let mut names: Vec<String> = all.iter().filter(|name| name.name() == repository).map(Reference::to_string).collect();
            if !names.is_empty() {
                names.sort();
                return Ok(names);
            }
        }
        Ok(vec![text.to_owned()])
    }

    /// Loads the images of an archive; `-` is standard input. Where `platform` is named, those for it alone.
    ///
    /// # Errors
    /// The archive, the store.
    pub async fn load(&self, source: PathBuf, platform: Option<Platform>) -> Result<Vec<Loaded>, Error> {
        let _lease = self.hold().await?;
        let store = self.store.clone();
        let loaded = blocking(move || {
            let archive = open_input(&source)?;
            let failed = |error| Error::Image { action: "load", name: source.display().to_string(), source: error };
            let wanted = platform.map_or_else(|| LoadFor::Preferred(Platform::host()), LoadFor::Only);
            load(&store, archive, &wanted).map_err(failed)
        })
        .await?;
        loaded.iter().for_each(|loaded| self.done_to_image("load", &loaded.image.id, self.labels_of(&loaded.image)));
        Ok(loaded)
    }

    /// Holds what the command makes until its end.
    pub(super) async fn hold(&self) -> Result<Lease, Error> {
        let store = self.store.clone();
        Ok(blocking(move || store.lease()).await?)
    }
}

/// Opens a file, or standard input for `-`.
pub(super) fn open_input(path: &Path) -> Result<Box<dyn Read + Send>, Error> {
    if path == Path::new("-") {
        return Ok(Box::new(std::io::stdin()));
    }
    let file = File::open(path).map_err(|source| Error::Io { action: "open", path: path.to_owned(), source })?;
    Ok(Box::new(file))
}
