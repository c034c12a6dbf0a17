//! What a build is asked for, and what came of it.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::diag::{Secret, SourceFile};
use crate::executor::{FailedSlot, StepSettings};
use crate::graph::{ContextName, Entitlements, NetworkMode, RemoteTree};
use crate::image::load::Layout;
use crate::oci::{Descriptor, ImageId, Platform, Reference};
use crate::store::ImageRecord;

use crate::engine::build_cache::{CacheSource, CacheTarget};
use crate::engine::outputs::Output;

/// Where the files of a build come from.
#[derive(Debug)]
pub enum ContextSource {
    /// A directory.
    Directory(PathBuf),
    /// Standard input: a tar archive, or a Dockerfile without files.
    Stdin,
    /// A git repository, or what a web server has: an archive, or a Dockerfile without files.
    Remote(RemoteTree),
}

/// What `--build-context NAME=…` gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BuildContext {
    /// A directory.
    Directory(PathBuf),
    /// An image.
    Image(Reference),
    /// An image in a directory.
    Layout(Layout),
    /// Nothing.
    Scratch,
    /// Files of a git repository or from a web server.
    Remote(RemoteTree),
}

/// Where the Dockerfile is.
#[derive(Clone, Debug)]
pub enum DockerfileSource {
    /// `Dockerfile` in the context.
    Default,
    /// A path; a relative one is tried from the current directory, then from the context.
    Path(PathBuf),
    /// Standard input.
    Stdin,
    /// A file of a web server.
    Url(String),
    /// It was read already.
    Read(SourceFile),
}

/// A build.
#[derive(Debug)]
pub struct BuildRequest {
    /// The files.
    pub context: ContextSource,
    /// The Dockerfile.
    pub dockerfile: DockerfileSource,
    /// What takes the place of stages and images, by their names.
    pub named_contexts: Vec<(ContextName, BuildContext)>,
    /// The image's names.
    pub tags: Vec<Reference>,
    /// The stage to build.
    pub target: Option<String>,
    /// `--build-arg`.
    pub build_args: BTreeMap<String, String>,
    /// `--label`.
    pub labels: Vec<(String, String)>,
    /// Whether nothing is taken from the cache.
    pub no_cache: bool,
    /// The stages that take nothing from the cache, by name or number.
    pub no_cache_filter: Vec<String>,
    /// The caches of other machines that steps are looked up in.
    pub cache_from: Vec<CacheSource>,
    /// Where the steps go for other machines.
    pub cache_to: Vec<CacheTarget>,
    /// Whether what became of each step's lookup is told.
    pub explain: bool,
    /// Whether base images are looked up again although they are here.
    pub pull: bool,
    /// The network of `RUN` steps that do not name one.
    pub network: NetworkMode,
    /// The platforms to build for; without any it is this machine's, or that of the base image.
    pub platforms: Vec<Platform>,
    /// Secrets, by name.
    pub secrets: BTreeMap<String, Secret<Vec<u8>>>,
    /// What `RUN` may ask for beyond its sandbox.
    pub entitlements: Entitlements,
    /// What all `RUN` steps get.
    pub steps: StepSettings,
    /// Where the first `RUN` step that fails is left, where somebody wants to look at it.
    pub failed: Option<FailedSlot>,
    /// What becomes of the result; nothing named means [`Output::store`].
    pub outputs: Vec<Output>,
    /// Whether the result is to be the same wherever and whenever it is built: times are those of `SOURCE_DATE_EPOCH`, or else of the context's git commit.
    pub reproducible: bool,
    /// Whether it is built twice, without the cache, and fails where that gives two results.
    pub verify_reproducible: bool,
    /// A command that is run in the image when it is built: where it fails, the image is named and sent nowhere.
    pub test: Option<String>,
    /// Whether the outcome is to have the manifest, even if its layers must be compressed for that alone.
    pub want_manifest: bool,
    /// The same of an index, which is what a build for several platforms is known by.
    pub want_index: bool,
}

/// A build that succeeded.
#[derive(Clone, Debug)]
pub struct BuildOutcome {
    /// The image; of several, the one that a name in the store stands for.
    pub image: ImageRecord,
    /// The images for all platforms, where the result is an index.
    pub platforms: Vec<PlatformOutcome>,
    /// The image's manifest, or the index, where it was made.
    pub manifest: Option<Descriptor>,
    /// The names under which the image is in the store now.
    pub names: Vec<Reference>,
    /// All the names that it has somewhere: in the store, in an archive, in a registry.
    pub given_names: Vec<Reference>,
    /// How many steps were taken from the cache.
    pub cached: usize,
    /// How many steps ran.
    pub executed: usize,
}

/// The image of an index.
#[derive(Clone, Debug)]
pub struct PlatformOutcome {
    /// What it was built for.
    pub platform: Platform,
    /// The image.
    pub id: ImageId,
}

impl BuildOutcome {
    /// What the result is known by: the ID of the image, or the digest of the index.
    pub fn id(&self) -> String {
        match &self.manifest {
            Some(index) if !self.platforms.is_empty() => index.digest.to_string(),
            _ => self.image.id.to_string(),
        }
    }
}
