//! Images made of other images, wherever they are: what is opened, what is done, where the result goes.

use std::path::PathBuf;

use crate::image::copy::{Source, all_to_store};
use crate::image::edit::{BASE_DIGEST, BASE_NAME, Draft, append, collect_all, conflicts, flatten, open_all, rebase};
pub use crate::image::edit::{ConfigChanges, Refusal};
use crate::image::load::load_root;
use crate::oci::{Digest, Platform, Reference};
use crate::progress::{Progress, StepOutcome, StepProgress};
use crate::registry::Client;
use crate::store::view::MergedView;
use crate::store::{ImageRecord, SnapshotId, Store};
use crate::task::blocking;

use super::copy::{Destination, Failure};
use super::transfer::open_input;
use super::{Engine, Error, Place};

/// Something that is done to an image.
#[derive(Clone, Debug)]
pub enum Edit {
    /// Its config or its annotations change.
    Change(ConfigChanges),
    /// It gets one more layer, from a tar archive; `-` is standard input.
    Append(PathBuf),
    /// All its layers become one.
    Flatten,
    /// Its annotations name what it is now as its base.
    NameBase,
    /// It gets another base.
    Rebase(RebaseRequest),
}

/// Another base for an image.
#[derive(Clone, Debug)]
pub struct RebaseRequest {
    /// The base that it has; without it, the one that its annotations name.
    pub old: Option<BasePlace>,
    /// The base that it gets; without it, what the name in its annotations stands for now.
    pub new: Option<BasePlace>,
    /// Whether files count that the image changed and the new base has changed too.
    pub check_files: bool,
}

/// A base image.
#[derive(Clone, Debug)]
pub enum BasePlace {
    /// An image.
    Image(Place),
    /// No layers at all.
    Scratch,
}

/// Where the result goes.
#[derive(Clone, Debug)]
pub enum EditTarget {
    /// Where the image came from, in its place: under its name where it has one there, under its digest otherwise.
    Same,
    /// A place.
    Place(Place),
    /// The registry of this name, under nothing but its digest.
    Digest(Reference),
    /// The store, without a name.
    Unnamed,
}

/// What is done to which image.
#[derive(Clone, Debug)]
pub struct EditRequest {
    /// The image; without one, an image of nothing.
    pub image: Option<Place>,
    /// Which image of an index; without it this machine's.
    pub platform: Option<Platform>,
    /// Whether it is done to all images of an index, and to the index.
    pub all: bool,
    /// What is done, in this order.
    pub edits: Vec<Edit>,
    /// Where the result goes.
    pub to: EditTarget,
}

/// The result.
#[derive(Clone, Debug)]
pub enum EditOutcome {
    /// It is an image of the store.
    Stored(ImageRecord),
    /// It is elsewhere.
    Sent {
        /// Where.
        place: Place,
        /// The digest of its manifest.
        digest: Digest,
    },
}

impl Engine {
    /// What a mere name or ID means: an image of the store, or else of its registry.
    ///
    /// # Errors
    /// It is neither; the store.
    pub fn place_of(&self, text: &str) -> Result<Place, Error> {
        if self.find_image(text)?.is_some() {
            return Ok(Place::Store(text.to_owned()));
        }
        match text.parse() {
            Ok(reference) => Ok(Place::Registry(reference)),
            Err(_) => Err(self.no_image(text)?),
        }
    }

    /// Makes an image of an image.
    ///
    /// # Errors
    /// Either place; what cannot be done to the image.
    pub async fn edit(&self, request: &EditRequest, progress: &Progress) -> Result<EditOutcome, Error> {
        let _lease = self.hold().await?;
        let client = self.client()?;
        let name = request.image.as_ref().map_or_else(|| "scratch".to_owned(), Place::to_string);
        let step = progress.start(format!("edit {name}"), None);
        let result = self.edit_now(request, &client, &step).await;
        step.finish(if result.is_ok() { StepOutcome::Done } else { StepOutcome::Failed });
        for warning in client.take_warnings() {
            progress.warn(warning);
        }
        result.map_err(|failure| failure.of("edit", &name))
    }

    async fn edit_now(&self, request: &EditRequest, client: &Client, step: &StepProgress) -> Result<EditOutcome, Failure> {
        if request.all {
            return self.edit_all(request, client, step).await;
        }
        let platform = request.platform.clone().unwrap_or_else(Platform::host);
        let mut draft = match &request.image {
            Some(place) => self.open_draft(place, &platform, client).await?,
            None => Draft::scratch(&platform),
        };
        let to = self.target(request, draft.digests.len() > 1)?;
        for edit in &request.edits {
            draft = self.apply_edit(draft, edit, request.image.as_ref(), client, step).await?;
        }
        let place = match to {
            Target::Store(name) => {
                let image = draft.into_store(&self.store, name.clone(), step).await?;
                name.iter().for_each(|name| self.tagged(&image, name));
                return Ok(EditOutcome::Stored(image));
            }
            Target::Place(place) => place,
            Target::Digest(reference) => Place::Registry(reference),
        };
        let (source, what, _) = draft.into_collection(&self.store).await?;
        let digest = what.root.digest.clone();
        let place = match (place, &request.to) {
            (Place::Registry(reference), EditTarget::Digest(_)) => Place::Registry(reference.only_digest(digest.clone())),
            (Place::Registry(reference), _) if reference.digest().is_some() => Place::Registry(reference.only_digest(digest.clone())),
            (place, _) => place,
        };
        let to = Destination { place: &place, client: &self.other_client()?, more_names: &[] };
        self.write(&source, what, None, &to, step).await?;
        Ok(EditOutcome::Sent { place, digest })
    }

    /// Does to all images of an index what is done to one, and gives their index the name.
    async fn edit_all(&self, request: &EditRequest, client: &Client, step: &StepProgress) -> Result<EditOutcome, Failure> {
        let usage = |message: &str| Failure::Other(Error::Usage { message: message.to_owned(), hint: None });
        let place = request.image.as_ref().ok_or_else(|| usage("there is no index whose images could all be changed"))?;
        if request.edits.iter().any(|edit| matches!(edit, Edit::Change(changes) if changes.platform.is_some())) {
            return Err(usage("the images of an index cannot all be for one platform"));
        }
        if request.edits.iter().any(|edit| matches!(edit, Edit::Append(path) if path.as_os_str() == "-")) {
            return Err(usage("standard input can be read for one image only: name a file"));
        }
        let (index, drafts) = open_all(&self.whole_source(place, client).await?).await?;
        let mut edited = Vec::with_capacity(drafts.len());
        for (entry, mut draft) in drafts {
            for edit in &request.edits {
                draft = self.apply_edit(draft, edit, request.image.as_ref(), client, step).await?;
            }
            edited.push((entry, draft));
        }
        let to = self.target(request, false)?;
        let (source, what) = collect_all(&self.store, &place.to_string(), index, edited).await?;
        let digest = what.root.digest.clone();
        let place = match to {
            Target::Store(name) => {
                all_to_store(&source, &what, &self.store, step).await?;
                let (store, root) = (self.store.clone(), what.root.clone());
                let image = blocking(move || load_root(&store, &root, &Platform::host())).await?;
                if let Some(name) = name {
                    self.store.tag(&name, &image.id, Some(&digest)).map_err(Error::from)?;
                    self.tagged(&image, &name);
                }
                return Ok(EditOutcome::Stored(image));
            }
            Target::Place(Place::Registry(reference)) if reference.digest().is_some() => {
                Place::Registry(reference.only_digest(digest.clone()))
            }
            Target::Place(place) => place,
            Target::Digest(reference) => Place::Registry(reference.only_digest(digest.clone())),
        };
        let to = Destination { place: &place, client: &self.other_client()?, more_names: &[] };
        self.write(&source, what, None, &to, step).await?;
        Ok(EditOutcome::Sent { place, digest })
    }

    /// Opens the image of a place.
    pub(super) async fn open_draft(&self, place: &Place, platform: &Platform, client: &Client) -> Result<Draft, Failure> {
        if let Place::Store(text) = place {
            let (store, image, text) = (self.store.clone(), self.image(text)?, text.clone());
            return Ok(blocking(move || Draft::of_stored(&store, &image, &text)).await?);
        }
        let source: Source = self.source(place, client).await?;
        Ok(Draft::of_source(&source, platform).await?)
    }

    async fn apply_edit(
        &self,
        mut draft: Draft,
        edit: &Edit,
        image: Option<&Place>,
        client: &Client,
        step: &StepProgress,
    ) -> Result<Draft, Failure> {
        let store = self.store.clone();
        match edit {
            Edit::Change(changes) => {
                changes.apply(&mut draft);
                Ok(draft)
            }
            Edit::Append(path) => {
                let path = path.clone();
                blocking(move || {
                    let archive = open_input(&path)?;
                    let shown = path.display().to_string();
                    let file = path.file_name().map_or_else(|| shown.clone(), |name| name.to_string_lossy().into_owned());
                    append(&store, &mut draft, archive, &shown, &format!("strake append {file}"))?;
                    Ok(draft)
                })
                .await
            }
            Edit::Flatten => {
                let snapshots = draft.unpack(&store, step).await?;
                let was = draft.digests.last().map_or_else(|| draft.name.clone(), Digest::to_string);
                blocking(move || {
                    flatten(&store, &mut draft, &snapshots, &format!("strake flatten {was}"))?;
                    Ok(draft)
                })
                .await
            }
            Edit::NameBase => {
                let base = image.cloned().map_or(BasePlace::Scratch, BasePlace::Image);
                let Some((name, digest)) = self.name_of_base(&base, &draft)? else {
                    let message = "the base has no name and digest at a registry that annotations could state".to_owned();
                    let hint = Some("name it at its registry, as in `docker://NAME`".to_owned());
                    return Err(Failure::Other(Error::Usage { message, hint }));
                };
                draft.annotations.extend([(BASE_NAME.to_owned(), name), (BASE_DIGEST.to_owned(), digest.to_string())]);
                Ok(draft)
            }
            Edit::Rebase(request) => self.rebase(draft, request, client, step).await,
        }
    }

    async fn rebase(&self, image: Draft, request: &RebaseRequest, client: &Client, step: &StepProgress) -> Result<Draft, Failure> {
        let (stated_old, stated_new) = stated_bases(&image);
        let missing = |flag: &str, annotation: &str| {
            let message = format!("the image does not say what its base is: it has no annotation `{annotation}`");
            Failure::Other(Error::Usage { message, hint: Some(format!("name it with {flag}")) })
        };
        let old = request.old.clone().or(stated_old).ok_or_else(|| missing("--old-base", BASE_DIGEST))?;
        let new = request.new.clone().or(stated_new).ok_or_else(|| missing("--new-base", BASE_NAME))?;
        let platform = image.config.platform();
        let (below, above) = (self.base(&old, &platform, client).await?, self.base(&new, &platform, client).await?);
        let named = self.name_of_base(&new, &above)?;
        let refused = |refusal: Refusal| Failure::Other(Error::Rebase(Box::new(refusal)));
        let result = rebase(&image, &below, &above, named).map_err(refused)?;
        if request.check_files && below.diff_ids() != above.diff_ids() {
            let own = image.unpack(&self.store, step).await?.split_off(below.layers.len());
            let (old, new) = (below.unpack(&self.store, step).await?, above.unpack(&self.store, step).await?);
            let store = self.store.clone();
            let found = blocking(move || {
                let unreadable = |source| Error::Io { action: "read", path: "the images' files".into(), source };
                let (own, old, new) = (view(&store, &own)?, view(&store, &old)?, view(&store, &new)?);
                conflicts(&own, &old, &new).map_err(unreadable)
            });
            let paths = found.await?;
            if !paths.is_empty() {
                return Err(refused(Refusal::Files { image: image.name, base: above.name, paths }));
            }
        }
        Ok(result)
    }

    async fn base(&self, base: &BasePlace, platform: &Platform, client: &Client) -> Result<Draft, Failure> {
        match base {
            BasePlace::Scratch => Ok(Draft::scratch(platform)),
            BasePlace::Image(place) => self.open_draft(place, platform, client).await,
        }
    }

    /// What annotations are to say of a base: its name, and its digest in its registry.
    fn name_of_base(&self, base: &BasePlace, draft: &Draft) -> Result<Option<(String, Digest)>, Error> {
        Ok(match base {
            BasePlace::Image(Place::Registry(reference)) => draft.digests.first().map(|digest| (reference.to_string(), digest.clone())),
            BasePlace::Image(Place::Store(text)) => match text.parse::<Reference>() {
                Ok(reference) => self.store.tagged_manifest(&reference)?.map(|digest| (reference.to_string(), digest)),
                Err(_) => None,
            },
            _ => None,
        })
    }

    /// Where the result goes; `of_index` is whether it is one image of an index.
    fn target(&self, request: &EditRequest, of_index: bool) -> Result<Target, Error> {
        Ok(match &request.to {
            EditTarget::Unnamed => Target::Store(None),
            EditTarget::Digest(reference) => Target::Digest(reference.clone()),
            EditTarget::Place(Place::Store(name)) => {
                let bad = |error: crate::oci::ReferenceError| Error::Usage { message: error.to_string(), hint: None };
                let name: Reference = name.parse().map_err(bad)?;
                if name.digest().is_some() {
                    let message = format!("`{}` has a digest, which follows from the content", name.written());
                    return Err(Error::Usage { message, hint: Some("name the result by a tag".to_owned()) });
                }
                Target::Store(Some(name))
            }
            EditTarget::Place(place) => Target::Place(place.clone()),
            EditTarget::Same => match &request.image {
                None => Target::Store(None),
                // An ID is no name that could mean something else from now on.
                Some(Place::Store(text)) => match text.parse::<Reference>() {
                    Ok(name) if self.store.resolve(&name)?.is_some() && name.digest().is_none() => Target::Store(Some(name)),
                    _ => Target::Store(None),
                },
                Some(Place::Registry(reference)) if of_index && request.platform.is_none() => {
                    let message = format!("`{}` is an index of several images, which one image would replace", reference.written());
                    let hint = "name the result with -t, choose an image with --platform, or change all of them with --all-platforms";
                    return Err(Error::Usage { message, hint: Some(hint.into()) });
                }
                Some(place @ Place::Registry(_)) => Target::Place(place.clone()),
                Some(place) => {
                    let message = format!("where does the result go? `{place}` is not written over");
                    return Err(Error::Usage { message, hint: Some("name it with -t, as in `-t store:NAME` or `-t oci:DIR:TAG`".into()) });
                }
            },
        })
    }
}

/// Where a result goes, once it is known what is where.
enum Target {
    Store(Option<Reference>),
    Place(Place),
    Digest(Reference),
}

/// The bases that an image's annotations name: the one that it has, and the one that the name stands for now.
fn stated_bases(image: &Draft) -> (Option<BasePlace>, Option<BasePlace>) {
    let name = image.annotations.get(BASE_NAME).and_then(|name| name.parse::<Reference>().ok());
    let digest = image.annotations.get(BASE_DIGEST).and_then(|digest| digest.parse::<Digest>().ok());
    let place = |reference| BasePlace::Image(Place::Registry(reference));
    let old = name.as_ref().zip(digest).map(|(name, digest)| place(name.only_digest(digest)));
    (old, name.map(place))
}

/// The files of a stack of layers.
pub(super) fn view(store: &Store, snapshots: &[SnapshotId]) -> Result<MergedView, Error> {
    let layers: Vec<_> = snapshots.iter().rev().map(|id| store.snapshot_path(*id)).collect();
    MergedView::new(layers, store.marks()).map_err(|source| Error::Io { action: "open", path: "the image's files".into(), source })
}
