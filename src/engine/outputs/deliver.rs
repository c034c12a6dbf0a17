//! Brings a result to all of its places.

use std::collections::BTreeSet;

use crate::engine::{Engine, Error};
use crate::executor::ops;
use crate::image::archive::ArchiveFormat;
use crate::image::export::{self, FileOptions, FilesLayout, PlatformFiles};
use crate::image::several::PackedRoot;
use crate::oci::{Descriptor, Reference};
use crate::progress::{Meter, Progress, StepOutcome};
use crate::store::Store;
use crate::store::view::MergedView;
use crate::task::blocking;

use super::spec::{Destination, Output, Push};
use super::versions::{Version, pack_version};

impl Engine {
    /// Brings a result to all of its places, one after the other: local ones first, so that a registry that is down loses nothing. Gives the names with a
    /// digest that it has in the store now; an output without a name gets the one that it asked for.
    pub(in crate::engine) async fn deliver(
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
                named.extend(self.name_by_digest(version, output, epoch, tags, progress).await?);
            }
            if output.push() != Push::No {
                self.push_result(version, output, epoch, tags, progress).await?;
                continue;
            }
            if !is_written(version, output) {
                continue;
            }
            let (store, names) = (self.store.clone(), output.names(tags).to_vec());
            let (unpacked, output, progress) = (version.clone(), output.clone(), progress.clone());
            if let Some(root) = blocking(move || write(&store, &unpacked, &names, &output, epoch, &progress)).await? {
                version.packed(&root);
            }
        }
        Ok(named)
    }

    /// Gives an image the names with its digest that an output asks for, and those of them in the store.
    async fn name_by_digest(
        &self,
        version: &mut Version,
        output: &mut Output,
        epoch: Option<i64>,
        tags: &[Reference],
        progress: &Progress,
    ) -> Result<Vec<Reference>, Error> {
        let shown = output.fallback(tags).or(output.names(tags).first()).map_or("the image", Reference::written).to_owned();
        let packed = self.settle(version, output, epoch, shown, progress).await?;
        if let Some(prefix) = output.fallback(tags) {
            output.names = vec![prefix.only_digest(packed.digest.clone())];
        }
        let keeps = output.keeps();
        let names = output.names(tags).iter().filter(|_| keeps).map(|name| name.only_digest(packed.digest.clone()));
        let names: Vec<Reference> = names.collect::<BTreeSet<_>>().into_iter().collect();
        for name in &names {
            self.store.tag(name, &version.image().id, Some(&packed.digest))?;
        }
        Ok(names)
    }

    async fn push_result(
        &self,
        version: &mut Version,
        output: &Output,
        epoch: Option<i64>,
        tags: &[Reference],
        progress: &Progress,
    ) -> Result<(), Error> {
        let first = &output.names(tags)[0];
        let by_digest = output.push() == Push::Digest;
        // Where layers need not be packed in a special way, each goes up as soon as it is compressed.
        if by_digest || version.is_special(output) || version.indexed {
            self.settle(version, output, epoch, first.written().to_owned(), progress).await?;
        }
        for name in output.names(tags) {
            let name = match &version.root {
                Some(root) if by_digest => name.only_digest(root.digest.clone()),
                _ => name.clone(),
            };
            let phase = progress.phase("push");
            let client = if output.insecure { self.insecure_client(&name)? } else { self.client()? };
            let pushed = match &version.root {
                Some(index) if version.indexed => self.push_index(&client, &name, index, progress).await?,
                _ => self.push_image(&client, &name, version.image(), progress).await?,
            };
            drop(phase);
            // What is known to be in a registry need not be sent to its other repositories again.
            if output.keeps() && !by_digest && self.store.resolve(&name)?.is_some_and(|now| now.id == version.image().id) {
                self.store.tag(&name, &version.image().id, Some(&pushed.digest))?;
            }
            if !version.indexed {
                version.images[0].image.manifest = Some(pushed.digest.clone());
                // What was packed before says more of it than what was pushed.
                let packed = version.root.take().filter(|packed| packed.digest == pushed.digest);
                version.root = Some(packed.unwrap_or(Descriptor { platform: Some(version.images[0].platform.clone()), ..pushed }));
            }
        }
        Ok(())
    }
}

/// Whether there is something to do for an output beyond names. In the store, layers are packed when somebody wants them; only a way of packing must be settled now. An index was packed
/// when it got its names.
fn is_written(version: &Version, output: &Output) -> bool {
    match output.to {
        Destination::Image { .. } => version.is_special(output) && !(version.indexed && version.root.is_some()),
        Destination::Nothing => false,
        _ => true,
    }
}

/// Writes a version to where an output wants it on this machine; gives what was packed for that.
fn write(
    store: &Store,
    version: &Version,
    names: &[Reference],
    output: &Output,
    epoch: Option<i64>,
    progress: &Progress,
) -> Result<Option<PackedRoot>, Error> {
    let packed = || {
        let _phase = progress.phase("compress");
        pack_version(store, version, output, epoch)
    };
    let Some((what, to)) = output.to.place() else {
        return packed().map(Some).map_err(|source| Error::Output { to: "the store".into(), source });
    };
    let _phase = progress.phase("export");
    let step = progress.start(format!("exporting to {what} {}", to.display()), None);
    let meter = step.export_meter("writing");
    let archive =
        |format| packed().and_then(|root| export::to_packed_archive(store, &root, names, format, to, &meter).map(|()| Some(root)));
    let result = match &output.to {
        Destination::Local(_) | Destination::Tar(_) => write_files(&views(store, version)?, version, output, epoch, &meter).map(|()| None),
        Destination::Oci(_) => archive(ArchiveFormat::Oci),
        Destination::Docker(_) => archive(ArchiveFormat::Docker),
        Destination::OciLayout(_) => packed().and_then(|root| export::to_oci_layout(store, &root, names, to, &meter).map(|()| Some(root))),
        Destination::Image { .. } | Destination::Nothing => Ok(None),
    };
    match result {
        Ok(packed) => {
            meter.done();
            step.finish(StepOutcome::Done);
            Ok(packed)
        }
        Err(source) => {
            step.finish(StepOutcome::Failed);
            Err(Error::Output { to: to.display().to_string(), source })
        }
    }
}

/// The files for each platform.
fn views(store: &Store, version: &Version) -> Result<Vec<MergedView>, Error> {
    Ok(version.images.iter().map(|image| ops::view(store, &image.snapshots)).collect::<Result<_, _>>()?)
}

/// Writes the files, those for each platform where the output wants them.
fn write_files(
    views: &[MergedView],
    version: &Version,
    output: &Output,
    epoch: Option<i64>,
    meter: &Meter,
) -> Result<(), crate::image::Error> {
    let split = output.files.split.unwrap_or(version.indexed);
    let options = FileOptions {
        time: output.epoch(epoch),
        layout: if split { FilesLayout::Split } else { FilesLayout::Merged },
        delete: output.files.delete,
    };
    let files: Vec<PlatformFiles<'_>> =
        version.images.iter().zip(views).map(|(image, tree)| PlatformFiles { platform: image.platform.to_string(), tree }).collect();
    match &output.to {
        Destination::Tar(file) => export::to_tar(&files, file, &options, meter),
        Destination::Local(dir) => export::to_directory(&files, dir, &options, meter),
        _ => Ok(()),
    }
}
