//! The images of a build's result: one for each platform, and these once for each way in which outputs want times.

use crate::engine::{Engine, Error};
use crate::image::assemble::{assemble, assemble_unlisted};
use crate::image::blobs::{pack, pack_aside};
use crate::image::rewrite::rewrite_times;
use crate::image::several::{PackedRoot, put_index};
use crate::oci::{Descriptor, ImageConfig, Platform, Reference};
use crate::progress::Progress;
use crate::store::{ImageRecord, SnapshotId, Store};
use crate::task::blocking;

use super::spec::{Output, VersionTimes, kept_names};

/// The result of a build, before it is an image.
pub(in crate::engine) struct BuildResult {
    /// What there is for each platform.
    pub(in crate::engine) parts: Vec<PlatformResult>,
    /// The build's own time, in seconds since the epoch.
    pub(in crate::engine) epoch: Option<i64>,
    /// Whether it becomes an index.
    pub(in crate::engine) indexed: bool,
}

/// The result for one platform.
#[derive(Clone)]
pub(in crate::engine) struct PlatformResult {
    /// The platform, as an index tells it.
    pub(in crate::engine) platform: Platform,
    /// What the Dockerfile says of the image, and the base image's layers.
    pub(in crate::engine) config: ImageConfig,
    /// Its layers, bottom first.
    pub(in crate::engine) snapshots: Vec<SnapshotId>,
}

/// The result as one image, or as an index of several.
#[derive(Clone)]
pub(in crate::engine) struct Version {
    pub(super) times: VersionTimes,
    /// Its names in the store, which it gets by [`Engine::name_versions`].
    names: Vec<Reference>,
    pub(super) images: Vec<VersionImage>,
    /// Which of them a name in the store stands for.
    chosen: usize,
    /// Whether it is an index.
    pub(super) indexed: bool,
    /// The manifest or the index that was made last.
    pub(in crate::engine) root: Option<Descriptor>,
}

/// The image for one platform.
#[derive(Clone)]
pub(super) struct VersionImage {
    pub(super) platform: Platform,
    pub(super) snapshots: Vec<SnapshotId>,
    /// How many of its layers are its base's.
    base_layers: usize,
    /// The image, with its manifest where one was made.
    pub(super) image: ImageRecord,
}

impl Version {
    /// The image that a name in the store stands for: the one that runs here, or else the first.
    pub(in crate::engine) fn image(&self) -> &ImageRecord {
        &self.images[self.chosen].image
    }

    /// The images with their platforms.
    pub(in crate::engine) fn images(&self) -> impl Iterator<Item = (&Platform, &ImageRecord)> {
        self.images.iter().map(|image| (&image.platform, &image.image))
    }

    /// Whether an output wants its images packed in a way of its own; otherwise their layers are packed when somebody wants them.
    pub(super) fn is_special(&self, output: &Output) -> bool {
        !output.packing.is_default() || !output.annotations.is_empty() || self.times.files.is_some()
    }

    /// Notes how the images were packed.
    pub(super) fn packed(&mut self, root: &PackedRoot) {
        for (image, packed) in self.images.iter_mut().zip(root.images()) {
            image.image.manifest = Some(packed.descriptor.digest.clone());
        }
        self.root = Some(root.descriptor().clone());
    }
}

/// Packs a version as an output wants it; `epoch` is the build's own time.
pub(super) fn pack_version(
    store: &Store,
    version: &Version,
    output: &Output,
    epoch: Option<i64>,
) -> Result<PackedRoot, crate::image::Error> {
    let epoch = output.epoch(epoch);
    let mut packed = Vec::with_capacity(version.images.len());
    for (at, part) in version.images.iter().enumerate() {
        let mut packing = output.packing(&part.platform, part.base_layers, epoch.filter(|_| !version.indexed));
        packing.rewritten = version.times.files;
        if !version.indexed {
            let mut manifest = pack(store, &part.image, &packing)?;
            manifest.descriptor.platform = Some(part.platform.clone());
            return Ok(PackedRoot::Image(Box::new(manifest)));
        }
        // An index says how each of its images is packed, so that does not depend on how they were packed for another output.
        let image = ImageRecord { manifest: None, ..part.image.clone() };
        let manifest = if at == version.chosen { pack(store, &image, &packing)? } else { pack_aside(store, &image, &packing)? };
        packed.push((part.platform.clone(), manifest));
    }
    Ok(PackedRoot::Index(Box::new(put_index(store, packed, &output.index_form(epoch))?)))
}

impl Engine {
    /// Makes the images that the outputs are of; those of the first output come first.
    pub(in crate::engine) async fn versions(
        &self,
        result: &BuildResult,
        outputs: &[Output],
        tags: &[Reference],
        progress: &Progress,
    ) -> Result<Vec<Version>, Error> {
        let mut versions: Vec<Version> = Vec::new();
        for output in outputs {
            if output.times.rewrite && output.epoch(result.epoch).is_none() {
                progress.warn("rewrite-timestamp has no effect: there is no SOURCE_DATE_EPOCH");
            }
            if output.names.iter().any(|name| !output.names(tags).contains(name)) {
                progress.warn("`name=` of an output has no effect: the image has the names of `--tag`");
            }
        }
        let host = Platform::host();
        let chosen = result.parts.iter().position(|part| part.platform.matches(&host)).unwrap_or(0);
        for position in 0..outputs.len() {
            let times = outputs[position].version(result.epoch);
            if versions.iter().any(|version| version.times == times) {
                continue;
            }
            let same: Vec<Output> = outputs.iter().filter(|output| output.version(result.epoch) == times).cloned().collect();
            let names = kept_names(&same, tags).unwrap_or_default();
            // An index without a name is nothing that could be found again, but its images are.
            let all_listed = names.is_empty() && same.iter().any(Output::keeps);
            let shown = names.first().map_or("the image", Reference::written).to_owned();
            let (store, parts) = (self.store.clone(), result.parts.clone());
            let make = move || {
                let part = |(at, part): (usize, PlatformResult)| make_image(&store, part, times, all_listed || at == chosen);
                parts.into_iter().enumerate().map(part).collect::<Result<Vec<_>, _>>()
            };
            let made = blocking(make).await.map_err(|source| Error::Image { action: "make", name: shown, source });
            versions.push(Version { times, names, images: made?, chosen, indexed: result.indexed, root: None });
        }
        Ok(versions)
    }

    /// Gives each version the names that it is kept by in the store.
    pub(in crate::engine) async fn name_versions(
        &self,
        versions: &mut [Version],
        outputs: &[Output],
        tags: &[Reference],
        epoch: Option<i64>,
        progress: &Progress,
    ) -> Result<(), Error> {
        for version in versions {
            if version.indexed {
                self.name_index(version, outputs, tags, epoch, progress).await?;
                continue;
            }
            let image = &version.image().id;
            version.names.iter().try_for_each(|name| self.store.tag(name, image, None).map(drop))?;
            self.tagged_all(image, &version.names);
        }
        Ok(())
    }

    /// The same of an index, which a name leads to by its digest. One that several outputs keep in different forms is the last of them.
    async fn name_index(
        &self,
        version: &mut Version,
        outputs: &[Output],
        tags: &[Reference],
        epoch: Option<i64>,
        progress: &Progress,
    ) -> Result<(), Error> {
        let times = version.times;
        for output in outputs.iter().filter(|output| output.keeps() && output.version(epoch) == times) {
            let names = output.names(tags).to_vec();
            if names.is_empty() {
                continue;
            }
            let index = self.settle(version, output, epoch, names[0].written().to_owned(), progress).await?;
            let image = &version.image().id;
            names.iter().try_for_each(|name| self.store.tag(name, image, Some(&index.digest)).map(drop))?;
            self.tagged_all(image, &names);
        }
        Ok(())
    }

    /// Packs a version as an output wants it.
    pub(in crate::engine) async fn settle(
        &self,
        version: &mut Version,
        output: &Output,
        epoch: Option<i64>,
        name: String,
        progress: &Progress,
    ) -> Result<Descriptor, Error> {
        let (store, unpacked, output) = (self.store.clone(), version.clone(), output.clone());
        let phase = progress.phase("compress");
        let packed = blocking(move || pack_version(&store, &unpacked, &output, epoch)).await;
        drop(phase);
        let packed = packed.map_err(|source| Error::Image { action: "pack", name, source })?;
        version.packed(&packed);
        Ok(packed.descriptor().clone())
    }
}

/// Makes the image for one platform. Those that no name stands for are not listed: they are parts of the index.
fn make_image(store: &Store, part: PlatformResult, times: VersionTimes, listed: bool) -> Result<VersionImage, crate::image::Error> {
    let PlatformResult { platform, config, snapshots } = part;
    let base_layers = config.rootfs.diff_ids.len();
    let snapshots = match times.files {
        Some(latest) => rewrite_times(store, &snapshots, base_layers, latest)?,
        None => snapshots,
    };
    let image = match listed {
        true => assemble(store, config, &snapshots, &[], times.dates)?,
        false => assemble_unlisted(store, config, &snapshots, times.dates)?,
    };
    Ok(VersionImage { platform, snapshots, base_layers, image })
}
