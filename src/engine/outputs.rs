//! What becomes of a build's result: files, archives, the store, registries.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::executor::ops;
use crate::image::archive::ArchiveFormat;
use crate::image::assemble::{Dates, assemble, date};
pub use crate::image::blobs::Packing;
use crate::image::blobs::pack;
use crate::image::export::{self, FileOptions};
pub use crate::image::layer::{Compression, CompressionSpec};
use crate::image::rewrite::rewrite_times;
use crate::oci::{Descriptor, ImageConfig, Reference};
use crate::progress::{Progress, StepOutcome};
use crate::store::{ImageRecord, SnapshotId, Store};
use crate::task::blocking;

use super::epoch::in_range;
use super::{Engine, Error};

/// The annotation with the time of what an index points at (image-spec 1.1, "Pre-Defined Annotation Keys").
const CREATED: &str = "org.opencontainers.image.created";

/// One `--output`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// Where the result goes.
    pub to: Destination,
    /// The image's names there; without any, those of the build.
    pub names: Vec<Reference>,
    /// How the image is packed, where it is.
    pub packing: Packing,
    /// What becomes of times.
    pub times: OutputTimes,
    /// Names with the digest.
    pub by_digest: DigestNames,
    /// Whether the registries that it is pushed to may have any certificate, or none and plain HTTP.
    pub insecure: bool,
    /// How files lie in a directory or archive of them.
    pub files: FileLayout,
}

/// Names with the image's digest, which are known when it is packed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DigestNames {
    /// `name-canonical`: the image is kept as `REPOSITORY@DIGEST` too, for each of its names.
    pub canonical: bool,
    /// `dangling-name-prefix`: an image without a name gets that of this repository at its digest.
    pub prefix: Option<Reference>,
}

/// How files lie at their destination.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FileLayout {
    /// `platform-split`: they are in a directory named after the platform, such as `linux_amd64`.
    pub split: bool,
    /// `mode=delete`: what else there is in the directory is removed.
    pub delete: bool,
}

/// What an output does to times.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OutputTimes {
    /// `source-date-epoch`, in seconds since the epoch, instead of the build's own time; given empty, there is none.
    pub epoch: Option<Option<i64>>,
    /// `rewrite-timestamp`: whether files in layers that are later than that time get it.
    pub rewrite: bool,
}

/// Where a result goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    /// The files, into a directory.
    Local(PathBuf),
    /// The files, as a tar archive; `-` is standard output.
    Tar(PathBuf),
    /// The image, as an OCI archive.
    Oci(PathBuf),
    /// The image, as an OCI layout in a directory.
    OciLayout(PathBuf),
    /// The image, as an archive for `docker load`.
    Docker(PathBuf),
    /// The image, into the store and perhaps to registries.
    Image {
        /// Whether it is kept in the store under its names.
        keep: bool,
        /// Whether it is pushed.
        push: Push,
    },
    /// Nowhere: only the build cache has it.
    Nothing,
}

/// Whether, and under which names, an image is pushed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Push {
    /// It is not.
    No,
    /// Under its names.
    Tags,
    /// By its digest only, into the repositories of its names.
    Digest,
}

impl Destination {
    /// Where outside of the store it is, and what is written there.
    fn place(&self) -> Option<(&'static str, &Path)> {
        match self {
            Destination::Local(dir) => Some(("the directory", dir)),
            Destination::Tar(file) => Some(("the tar archive", file)),
            Destination::Oci(file) => Some(("the OCI archive", file)),
            Destination::OciLayout(dir) => Some(("the OCI layout", dir)),
            Destination::Docker(file) => Some(("the Docker archive", file)),
            Destination::Image { .. } | Destination::Nothing => None,
        }
    }
}

impl From<Destination> for Output {
    fn from(to: Destination) -> Output {
        Output {
            to,
            names: Vec::new(),
            packing: Packing::default(),
            times: OutputTimes::default(),
            by_digest: DigestNames::default(),
            insecure: false,
            files: FileLayout::default(),
        }
    }
}

impl Output {
    /// The image in the store under the build's names: what a build does when nothing else is asked for.
    pub fn store() -> Output {
        Destination::Image { keep: true, push: Push::No }.into()
    }

    fn keeps(&self) -> bool {
        matches!(self.to, Destination::Image { keep: true, .. })
    }

    fn push(&self) -> Push {
        match self.to {
            Destination::Image { push, .. } => push,
            _ => Push::No,
        }
    }

    /// Whether there is something to do for it beyond a name. In the store, layers are packed when somebody wants them; only a way of packing must be settled now.
    fn is_written(&self) -> bool {
        match self.to {
            Destination::Image { .. } => !self.packing.is_default(),
            Destination::Nothing => false,
            _ => true,
        }
    }

    fn is_image(&self) -> bool {
        !matches!(self.to, Destination::Local(_) | Destination::Tar(_) | Destination::Nothing)
    }

    /// The time that this output is held to, where the build's own is `build`.
    fn epoch(&self, build: Option<i64>) -> Option<i64> {
        self.times.epoch.unwrap_or(build)
    }

    /// Which image this output is of.
    fn version(&self, build: Option<i64>) -> VersionTimes {
        let latest = if self.is_image() { self.epoch(build) } else { build };
        VersionTimes { dates: Dates { all: build, latest }, files: latest.filter(|_| self.times.rewrite && self.is_image()) }
    }

    /// The repository that an image without any name is called after.
    fn fallback(&self, tags: &[Reference]) -> Option<&Reference> {
        self.by_digest.prefix.as_ref().filter(|_| self.names(tags).is_empty())
    }

    fn names<'a>(&'a self, tags: &'a [Reference]) -> &'a [Reference] {
        if self.names.is_empty() { tags } else { &self.names }
    }
}

/// All names that the image gets in the store; `None` where it is not kept.
pub(super) fn kept_names(outputs: &[Output], tags: &[Reference]) -> Option<Vec<Reference>> {
    let mut kept = outputs.iter().filter(|output| output.keeps()).peekable();
    kept.peek()?;
    Some(names_of(kept, tags))
}

/// All names that the image gets somewhere.
pub(super) fn given_names(outputs: &[Output], tags: &[Reference]) -> Vec<Reference> {
    names_of(outputs.iter().filter(|output| output.is_image()), tags)
}

/// The names in outputs, each once.
fn names_of<'a>(outputs: impl Iterator<Item = &'a Output>, tags: &'a [Reference]) -> Vec<Reference> {
    let mut names: Vec<Reference> = Vec::new();
    for name in outputs.flat_map(|output| output.names(tags)) {
        if !names.contains(name) {
            names.push(name.clone());
        }
    }
    names
}

/// Refuses what cannot end well, before anything is built.
pub(super) fn check(outputs: &[Output], tags: &[Reference]) -> Result<(), Error> {
    if outputs.iter().any(|output| output.push() != Push::No && output.names(tags).is_empty() && output.fallback(tags).is_none()) {
        let hint = Some("add `-t REGISTRY/REPOSITORY:TAG`".to_owned());
        return Err(Error::Usage { message: "an image that is pushed needs a name".into(), hint });
    }
    for output in outputs.iter().filter(|output| output.files.delete) {
        if let Destination::Local(dir) = &output.to
            && std::fs::canonicalize(dir).is_ok_and(|dir| dir.parent().is_none())
        {
            let hint = Some("give a directory of its own as `dest=`".to_owned());
            return Err(Error::Usage { message: "`mode=delete` would remove the whole file system".into(), hint });
        }
    }
    outputs.iter().filter_map(|output| output.times.epoch.flatten()).try_for_each(|seconds| in_range(seconds).map(drop))?;
    let to_stdout = |output: &&Output| match &output.to {
        Destination::Tar(file) | Destination::Oci(file) | Destination::Docker(file) => file == Path::new("-"),
        _ => false,
    };
    if outputs.iter().filter(to_stdout).count() > 1 {
        let hint = Some("give all but one of them a `dest=FILE`".to_owned());
        return Err(Error::Usage { message: "only one output can go to standard output".into(), hint });
    }
    Ok(())
}

/// What is done to an image's times.
#[derive(Clone, Copy, PartialEq, Eq)]
struct VersionTimes {
    dates: Dates,
    /// The latest time of files.
    files: Option<i64>,
}

/// An image of the build's result. There is one for each way in which outputs want times.
pub(super) struct Version {
    times: VersionTimes,
    snapshots: Vec<SnapshotId>,
    /// Its names in the store, which it gets by [`Engine::name_versions`].
    names: Vec<Reference>,
    /// The image, with its manifest where one was made.
    pub(super) image: ImageRecord,
    /// The manifest that was made last.
    pub(super) manifest: Option<Descriptor>,
}

/// The result of a build, before it is an image.
pub(super) struct BuildResult {
    /// What the Dockerfile says of the image, and the base image's layers.
    pub(super) config: ImageConfig,
    /// Its layers, bottom first.
    pub(super) snapshots: Vec<SnapshotId>,
    /// The build's own time, in seconds since the epoch.
    pub(super) epoch: Option<i64>,
}

impl Engine {
    /// Makes the images that the outputs are of; that of the first output is the first.
    pub(super) async fn versions(
        &self,
        result: &BuildResult,
        outputs: &mut [Output],
        tags: &[Reference],
        progress: &Progress,
    ) -> Result<Vec<Version>, Error> {
        let base_layers = result.config.rootfs.diff_ids.len();
        let mut versions: Vec<Version> = Vec::new();
        for output in outputs.iter_mut() {
            output.packing.base_layers = base_layers;
            output.packing.rewritten = output.version(result.epoch).files;
            if output.times.rewrite && output.epoch(result.epoch).is_none() {
                progress.warn("rewrite-timestamp has no effect: there is no SOURCE_DATE_EPOCH");
            }
            if let (Destination::Oci(_) | Destination::OciLayout(_) | Destination::Docker(_), Some(seconds)) =
                (&output.to, output.epoch(result.epoch))
            {
                output.packing.descriptor_annotations.entry(CREATED.to_owned()).or_insert_with(|| date(seconds));
            }
        }
        for position in 0..outputs.len() {
            let times = outputs[position].version(result.epoch);
            if versions.iter().any(|version| version.times == times) {
                continue;
            }
            let same: Vec<Output> = outputs.iter().filter(|output| output.version(result.epoch) == times).cloned().collect();
            let names = kept_names(&same, tags).unwrap_or_default();
            let (store, config, snapshots) = (self.store.clone(), result.config.clone(), result.snapshots.clone());
            let made = blocking(move || {
                let shown = names.first().map_or("the image", Reference::written).to_owned();
                let failed = |source| Error::Image { action: "make", name: shown, source };
                let make = || {
                    let snapshots = match times.files {
                        Some(latest) => rewrite_times(&store, &snapshots, base_layers, latest)?,
                        None => snapshots,
                    };
                    let image = assemble(&store, config, &snapshots, &[], times.dates)?;
                    Ok(Version { times, snapshots, names, image, manifest: None })
                };
                make().map_err(failed)
            });
            versions.push(made.await?);
        }
        Ok(versions)
    }

    /// Gives each version the names that it is kept by in the store.
    pub(super) fn name_versions(&self, versions: &[Version]) -> Result<(), Error> {
        for version in versions {
            version.names.iter().try_for_each(|name| self.store.tag(name, &version.image.id, None).map(drop))?;
        }
        versions.iter().for_each(|version| self.tagged_all(&version.image.id, &version.names));
        Ok(())
    }

    /// Brings a result to all of its places, one after the other: local ones first, so that a registry that is down loses nothing. Gives the names with a
    /// digest that it has in the store now; an output without a name gets the one that it asked for.
    pub(super) async fn deliver(
        &self,
        versions: &mut [Version],
        epoch: Option<i64>,
        tags: &[Reference],
        outputs: &mut [Output],
        progress: &Progress,
    ) -> Result<Vec<Reference>, Error> {
        let mut named = Vec::new();
        let (pushed, local): (Vec<&mut Output>, Vec<&mut Output>) = outputs.iter_mut().partition(|output| output.push() != Push::No);
        for output in local.into_iter().chain(pushed) {
            let times = output.version(epoch);
            let Some(version) = versions.iter_mut().find(|version| version.times == times) else { continue };
            if output.by_digest.canonical || output.fallback(tags).is_some() {
                named.extend(self.name_by_digest(version, output, tags, progress).await?);
            }
            if output.push() != Push::No {
                self.push_result(version, output, tags, progress).await?;
                continue;
            }
            if !output.is_written() {
                continue;
            }
            let (store, image, names) = (self.store.clone(), version.image.clone(), output.names(tags).to_vec());
            let (snapshots, output, progress) = (version.snapshots.clone(), output.clone(), progress.clone());
            let files = FileOptions {
                time: output.epoch(epoch),
                below: output.files.split.then(|| image.platform.to_string().replace('/', "_")),
                delete: output.files.delete,
            };
            if let Some(manifest) = blocking(move || write(&store, &image, &snapshots, &names, &output, &files, &progress)).await? {
                version.image.manifest = Some(manifest.digest.clone());
                version.manifest = Some(manifest);
            }
        }
        Ok(named)
    }

    /// Gives an image the names with its digest that an output asks for, and those of them in the store.
    async fn name_by_digest(
        &self,
        version: &mut Version,
        output: &mut Output,
        tags: &[Reference],
        progress: &Progress,
    ) -> Result<Vec<Reference>, Error> {
        let shown = output.fallback(tags).or(output.names(tags).first()).map_or("the image", Reference::written).to_owned();
        let packed = self.settle(version, output, shown, progress).await?;
        if let Some(prefix) = output.fallback(tags) {
            output.names = vec![prefix.only_digest(packed.digest.clone())];
        }
        let keeps = output.keeps();
        let names = output.names(tags).iter().filter(|_| keeps).map(|name| name.only_digest(packed.digest.clone()));
        let names: Vec<Reference> = names.collect::<BTreeSet<_>>().into_iter().collect();
        for name in &names {
            self.store.tag(name, &version.image.id, Some(&packed.digest))?;
        }
        version.manifest = Some(packed);
        Ok(names)
    }

    /// Packs an image as an output wants it.
    async fn settle(&self, version: &mut Version, output: &Output, name: String, progress: &Progress) -> Result<Descriptor, Error> {
        let (store, image, packing) = (self.store.clone(), version.image.clone(), output.packing.clone());
        let phase = progress.phase("compress");
        let packed = blocking(move || pack(&store, &image, &packing)).await;
        drop(phase);
        let packed = packed.map_err(|source| Error::Image { action: "pack", name, source })?.descriptor;
        version.image.manifest = Some(packed.digest.clone());
        Ok(packed)
    }

    async fn push_result(&self, delivered: &mut Version, output: &Output, tags: &[Reference], progress: &Progress) -> Result<(), Error> {
        let first = &output.names(tags)[0];
        let by_digest = output.push() == Push::Digest;
        // Where layers need not be packed in a special way, each goes up as soon as it is compressed.
        if by_digest || !output.packing.is_default() {
            self.settle(delivered, output, first.written().to_owned(), progress).await?;
        }
        for name in output.names(tags) {
            let name = match &delivered.image.manifest {
                Some(digest) if by_digest => name.only_digest(digest.clone()),
                _ => name.clone(),
            };
            let phase = progress.phase("push");
            let client = if output.insecure { self.insecure_client(&name)? } else { self.client()? };
            let pushed = self.push_image(&client, &name, &delivered.image, progress).await?;
            drop(phase);
            // What is known to be in a registry need not be sent to its other repositories again.
            if output.keeps() && !by_digest && self.store.resolve(&name)?.is_some_and(|now| now.id == delivered.image.id) {
                self.store.tag(&name, &delivered.image.id, Some(&pushed.digest))?;
            }
            delivered.image.manifest = Some(pushed.digest.clone());
            delivered.manifest = Some(pushed);
        }
        Ok(())
    }
}

fn write(
    store: &Store,
    image: &ImageRecord,
    snapshots: &[SnapshotId],
    names: &[Reference],
    output: &Output,
    files: &FileOptions,
    progress: &Progress,
) -> Result<Option<Descriptor>, Error> {
    let packed = || {
        let _phase = progress.phase("compress");
        pack(store, image, &output.packing)
    };
    let Some((what, to)) = output.to.place() else {
        let packed = packed().map_err(|source| Error::Output { to: "the store".into(), source })?;
        return Ok(Some(packed.descriptor));
    };
    let _phase = progress.phase("export");
    let step = progress.start(format!("exporting to {what} {}", to.display()), None);
    let meter = step.export_meter("writing");
    let view = || ops::view(store, snapshots);
    let archive =
        |format| packed().and_then(|image| export::to_packed_archive(store, &image, names, format, to, &meter).map(|()| Some(image)));
    let result = match &output.to {
        Destination::Local(_) => export::to_directory(&view()?, to, files, &meter).map(|()| None),
        Destination::Tar(_) => export::to_tar(&view()?, to, files, &meter).map(|()| None),
        Destination::Oci(_) => archive(ArchiveFormat::Oci),
        Destination::Docker(_) => archive(ArchiveFormat::Docker),
        Destination::OciLayout(_) => {
            packed().and_then(|image| export::to_oci_layout(store, &image, names, to, &meter).map(|()| Some(image)))
        }
        Destination::Image { .. } | Destination::Nothing => Ok(None),
    };
    match result {
        Ok(packed) => {
            meter.done();
            step.finish(StepOutcome::Done);
            Ok(packed.map(|image| image.descriptor))
        }
        Err(source) => {
            step.finish(StepOutcome::Failed);
            Err(Error::Output { to: to.display().to_string(), source })
        }
    }
}
