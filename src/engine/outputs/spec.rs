//! Where a result goes, and in which form: what `--output` says.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::engine::Error;
use crate::engine::build::Platforms;
use crate::engine::epoch::in_range;
use crate::image::assemble::{Dates, date};
use crate::image::blobs::Packing;
use crate::image::several::IndexForm;
use crate::oci::{Platform, Reference};

/// The annotation with the time of what an index points at (image-spec 1.1, "Pre-Defined Annotation Keys").
const CREATED: &str = "org.opencontainers.image.created";

/// One `--output`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// Where the result goes.
    pub to: Destination,
    /// The image's names there, where the build gives it none.
    pub names: Vec<Reference>,
    /// How the image is packed, where it is; without annotations.
    pub packing: Packing,
    /// Annotations, in the order in which they were given.
    pub annotations: Vec<Annotation>,
    /// What becomes of times.
    pub times: OutputTimes,
    /// Names with the digest.
    pub by_digest: DigestNames,
    /// Whether the registries that it is pushed to may have any certificate, or none and plain HTTP.
    pub insecure: bool,
    /// How files lie in a directory or archive of them.
    pub files: FileLayout,
}

/// An annotation of what an output gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Annotation {
    /// What is annotated.
    pub place: AnnotationPlace,
    /// The platform whose image it is for; without one, all.
    pub platform: Option<Platform>,
    /// Its key.
    pub key: String,
    /// Its value.
    pub value: String,
}

/// What an annotation is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AnnotationPlace {
    /// The manifest of an image.
    Manifest,
    /// What points at it.
    ManifestDescriptor,
    /// The index.
    Index,
    /// What points at that.
    IndexDescriptor,
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
    /// `platform-split`: whether they are in a directory named after the platform, such as `linux_amd64`; unless it says, where the result is an index.
    pub split: Option<bool>,
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
    pub(super) fn place(&self) -> Option<(&'static str, &Path)> {
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
            annotations: Vec::new(),
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

    pub(super) fn keeps(&self) -> bool {
        matches!(self.to, Destination::Image { keep: true, .. })
    }

    pub(super) fn push(&self) -> Push {
        match self.to {
            Destination::Image { push, .. } => push,
            _ => Push::No,
        }
    }

    pub(super) fn is_image(&self) -> bool {
        !matches!(self.to, Destination::Local(_) | Destination::Tar(_) | Destination::Nothing)
    }

    /// The time that this output is held to, where the build's own is `build`.
    pub(super) fn epoch(&self, build: Option<i64>) -> Option<i64> {
        self.times.epoch.unwrap_or(build)
    }

    /// Which image this output is of.
    pub(super) fn version(&self, build: Option<i64>) -> VersionTimes {
        let latest = if self.is_image() { self.epoch(build) } else { build };
        VersionTimes { dates: Dates { all: build, latest }, files: latest.filter(|_| self.times.rewrite && self.is_image()) }
    }

    /// The annotations of `place`, as far as they are for `platform`; those for one platform alone go before those for all.
    fn annotations(&self, place: AnnotationPlace, platform: &Platform) -> BTreeMap<String, String> {
        let mut found = BTreeMap::new();
        for wanted in [None, Some(platform)] {
            let fits = |annotation: &&Annotation| annotation.place == place && annotation.platform.as_ref() == wanted;
            let fitting = self.annotations.iter().filter(fits);
            found.extend(fitting.map(|annotation| (annotation.key.clone(), annotation.value.clone())));
        }
        found
    }

    /// How the image for `platform` is packed, the first `base_layers` of which are its base's. `root_epoch` is the time of what an archive's own index points at,
    /// where that is the image.
    pub(super) fn packing(&self, platform: &Platform, base_layers: usize, root_epoch: Option<i64>) -> Packing {
        let annotations = self.annotations(AnnotationPlace::Manifest, platform);
        let mut descriptor_annotations = self.annotations(AnnotationPlace::ManifestDescriptor, platform);
        self.date_root(&mut descriptor_annotations, root_epoch);
        Packing { base_layers, annotations, descriptor_annotations, ..self.packing.clone() }
    }

    /// What the index is like.
    pub(super) fn index_form(&self, root_epoch: Option<i64>) -> IndexForm {
        let annotations = self.annotations_anywhere(AnnotationPlace::Index);
        let mut descriptor_annotations = self.annotations_anywhere(AnnotationPlace::IndexDescriptor);
        self.date_root(&mut descriptor_annotations, root_epoch);
        IndexForm { docker_types: self.packing.docker_types, annotations, descriptor_annotations }
    }

    /// The annotations of the index, of which there is one whatever platform they name.
    fn annotations_anywhere(&self, place: AnnotationPlace) -> BTreeMap<String, String> {
        let of_place = self.annotations.iter().filter(|annotation| annotation.place == place);
        of_place.map(|annotation| (annotation.key.clone(), annotation.value.clone())).collect()
    }

    /// Says in an archive's index of when what it points at is.
    fn date_root(&self, annotations: &mut BTreeMap<String, String>, epoch: Option<i64>) {
        if let (Destination::Oci(_) | Destination::OciLayout(_) | Destination::Docker(_), Some(seconds)) = (&self.to, epoch) {
            annotations.entry(CREATED.to_owned()).or_insert_with(|| date(seconds));
        }
    }

    /// The repository that an image without any name is called after.
    pub(super) fn fallback(&self, tags: &[Reference]) -> Option<&Reference> {
        self.by_digest.prefix.as_ref().filter(|_| self.names(tags).is_empty())
    }

    /// The image's names there: those of the build go before the output's own, as in buildx.
    pub(super) fn names<'a>(&'a self, tags: &'a [Reference]) -> &'a [Reference] {
        if tags.is_empty() { &self.names } else { tags }
    }
}

/// All names that the image gets in the store; `None` where it is not kept.
pub(in crate::engine) fn kept_names(outputs: &[Output], tags: &[Reference]) -> Option<Vec<Reference>> {
    let mut kept = outputs.iter().filter(|output| output.keeps()).peekable();
    kept.peek()?;
    Some(names_of(kept, tags))
}

/// All names that the image gets somewhere.
pub(in crate::engine) fn given_names(outputs: &[Output], tags: &[Reference]) -> Vec<Reference> {
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
pub(in crate::engine) fn check(outputs: &[Output], tags: &[Reference], platforms: &Platforms) -> Result<(), Error> {
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
    outputs.iter().try_for_each(|output| check_place(&output.to))?;
    outputs.iter().try_for_each(|output| check_platforms(output, platforms))?;
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

/// Refuses places that cannot be written.
fn check_place(to: &Destination) -> Result<(), Error> {
    let Some((what, path)) = to.place() else { return Ok(()) };
    let refuse = |message: String, hint: &str| Err(Error::Usage { message, hint: Some(hint.to_owned()) });
    let to_stdout = path == Path::new("-");
    let is_directory = std::fs::metadata(path).map(|found| found.is_dir());
    if matches!(to, Destination::Local(_) | Destination::OciLayout(_)) {
        return match is_directory {
            _ if to_stdout => refuse(format!("{what} cannot be standard output"), "give a directory as `dest=`"),
            Ok(false) => refuse(format!("`{}` is a file, and {what} cannot be made there", path.display()), "give a directory as `dest=`"),
            _ => Ok(()),
        };
    }
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    match is_directory {
        _ if to_stdout => Ok(()),
        Ok(true) => refuse(format!("`{}` is a directory, and {what} is a file", path.display()), "give a file as `dest=`"),
        Err(_) if !parent.is_dir() => {
            refuse(format!("{what} cannot be made: there is no directory `{}`", parent.display()), "make it first, or give another `dest=`")
        }
        _ => Ok(()),
    }
}

/// Refuses what there cannot be of the platforms that are built for.
fn check_platforms(output: &Output, platforms: &Platforms) -> Result<(), Error> {
    if platforms.indexed
        && let Destination::Docker(_) = output.to
    {
        let message = "an archive of `type=docker` holds the image for one platform, and the result is an index".to_owned();
        let hint = Some("give `type=oci`, or build for one platform".to_owned());
        return Err(Error::Usage { message, hint });
    }
    for Annotation { place, platform, key, .. } in &output.annotations {
        if matches!(place, AnnotationPlace::Index | AnnotationPlace::IndexDescriptor) && !platforms.indexed {
            let message = format!("the annotation `{key}` is for an index, and the result has none");
            let hint = Some("an index is made for several platforms, or with `--build-arg BUILDKIT_MULTI_PLATFORM=1`".to_owned());
            return Err(Error::Usage { message, hint });
        }
        if let Some(platform) = platform.as_ref().filter(|platform| !platforms.all.contains(platform)) {
            let built: Vec<String> = platforms.all.iter().map(ToString::to_string).collect();
            let message = format!("the annotation `{key}` is for {platform}, which is not built");
            return Err(Error::Usage { message, hint: Some(format!("the build is for {}", built.join(", "))) });
        }
    }
    Ok(())
}

/// What is done to an image's times.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct VersionTimes {
    pub(super) dates: Dates,
    /// The latest time of files.
    pub(super) files: Option<i64>,
}
