//! What a command can fail with, and how bad each failure is.

use std::path::PathBuf;

use crate::diag::Diagnostic;
use crate::graph::ImageNeed;
use crate::oci::Platform;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The Dockerfile has mistakes.
    #[error("the Dockerfile has {}", count(.0))]
    Diagnostics(Vec<Diagnostic>),
    /// The Dockerfile says that no build check may find anything (`# check=error=true`), and some did.
    #[error("the build checks found something, and `error=true` makes that an error: {}", rules.join(", "))]
    Checks {
        /// The rules that are violated.
        rules: Vec<&'static str>,
        /// What was found, where it is still to be told.
        warnings: Vec<Diagnostic>,
    },
    /// The Dockerfile cannot be read.
    #[error("cannot read the Dockerfile `{}`", path.display())]
    Dockerfile {
        /// Where it should be.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// A base image cannot be had.
    #[error("cannot get the image `{}`{}", need.reference.written(), for_platform(need))]
    BaseImage {
        /// Which, and where it is named.
        need: Box<ImageNeed>,
        /// Why not.
        source: crate::image::Error,
    },
    /// The build failed.
    #[error(transparent)]
    Build(#[from] crate::executor::Error),
    /// The command of `build --test` failed.
    #[error("the test `{command}`{} exited with status {code}", platform.as_ref().map_or_else(String::new, |platform| format!(" for {platform}")))]
    Test {
        /// The platform of the image, where there are several.
        platform: Option<Platform>,
        /// The command.
        command: String,
        /// Its status.
        code: u8,
        /// The last lines that it wrote.
        tail: Vec<String>,
    },
    /// Two builds of the same gave two results.
    #[error("the build is not reproducible: {} gave two results", steps(.0.steps.len()))]
    NotReproducible(Box<super::NotReproducible>),
    /// The build context cannot be read.
    #[error("cannot read the build context")]
    Context(#[from] crate::context::Error),
    /// The time of the context's commit cannot be told.
    #[error("cannot tell when the commit was made that the build context has checked out")]
    Commit {
        /// Why not.
        source: crate::context::GitError,
    },
    /// A directory given with `--build-context` cannot be read.
    #[error("cannot read the build context `{name}`")]
    NamedContext {
        /// Its name.
        name: String,
        /// Why not.
        source: crate::context::Error,
    },
    /// An image cannot be had, made or given away.
    #[error("cannot {action} `{name}`")]
    Image {
        /// What was tried: `pull`.
        action: &'static str,
        /// The image.
        name: String,
        /// Why it failed.
        source: crate::image::Error,
    },
    /// A registry refused something, or cannot be reached.
    #[error("cannot {action} `{name}`")]
    Registry {
        /// What was tried: `log in to`.
        action: &'static str,
        /// To what.
        name: String,
        /// Why it failed.
        source: crate::registry::Error,
    },
    /// A registry cannot be served.
    #[error(transparent)]
    Server(#[from] crate::server::Error),
    /// The files with credentials cannot be read or written.
    #[error("cannot use the stored credentials")]
    Credentials(#[from] crate::registry::CredentialError),
    /// The store cannot be read or written.
    #[error(transparent)]
    Store(#[from] crate::store::Error),
    /// Sandboxes cannot be made.
    #[error("cannot use sandboxes")]
    Runtime(#[from] crate::runtime::Error),
    /// A device cannot be had by its name.
    #[error(transparent)]
    Device(#[from] crate::runtime::cdi::Error),
    /// A container cannot be started or reached.
    #[error("cannot {action} the container `{name}`")]
    Container {
        /// What was tried.
        action: &'static str,
        /// The container.
        name: String,
        /// Why it failed.
        source: crate::runtime::container::Error,
    },
    /// A user or directory of an image cannot be found or made.
    #[error("cannot prepare the container")]
    Prepare(#[from] crate::executor::ops::Error),
    /// A result cannot be written.
    #[error("cannot write the result to `{to}`")]
    Output {
        /// Where to.
        to: String,
        /// Why not.
        source: crate::image::Error,
    },
    /// A build cache cannot be exported.
    #[error("cannot export the cache to `{to}`")]
    CacheExport {
        /// Where to.
        to: String,
        /// Why not.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// There is no such image here.
    #[error("no such image: `{name}`")]
    NoSuchImage {
        /// What was asked for.
        name: String,
        /// What is named alike.
        alike: Vec<String>,
    },
    /// There is no such container.
    #[error("no such container: `{name}`")]
    NoSuchContainer {
        /// What was asked for.
        name: String,
    },
    /// The user asked to stop.
    #[error("interrupted")]
    Interrupted,
    /// An agent or key of `--ssh` cannot be had.
    #[error("cannot give steps the SSH agent `{id}`")]
    Ssh {
        /// Its ID.
        id: String,
        /// Why not.
        source: crate::executor::SshError,
    },
    /// An image cannot be put on another base.
    #[error("the image cannot be put on another base")]
    Rebase(#[source] Box<super::Refusal>),
    /// A profile of system calls makes no filter.
    #[error("the seccomp profile `{}` cannot be used", path.display())]
    SeccompProfile {
        /// The profile.
        path: PathBuf,
        /// The place in it that is wrong, with the whole message.
        place: Option<Box<Diagnostic>>,
        /// Why.
        source: crate::runtime::SeccompProfileError,
    },
    /// A registry does not delete tags.
    #[error("cannot delete `{name}`")]
    TagDeletion {
        /// The tag.
        name: String,
        /// The manifest that it stands for.
        by_digest: String,
        /// What the registry says.
        #[source]
        source: crate::registry::Error,
    },
    /// Something that was asked for makes no sense.
    #[error("{message}")]
    Usage {
        /// What.
        message: String,
        /// What to do.
        hint: Option<String>,
    },
    /// A file cannot be read or written.
    #[error("cannot {action} `{}`", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why it failed.
        source: std::io::Error,
    },
}

/// Whose failure it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// The user's input.
    User,
    /// This machine: permissions, disk, kernel.
    Environment,
    /// A registry or web server.
    Remote,
}

fn steps(count: usize) -> String {
    if count == 1 { "a step".to_owned() } else { format!("{count} steps") }
}

fn count(diagnostics: &[Diagnostic]) -> String {
    match diagnostics.iter().filter(|diagnostic| diagnostic.is_error()).count() {
        1 => "a mistake".to_owned(),
        errors => format!("{errors} mistakes"),
    }
}

/// What a message says of the platform, where there are several.
fn for_platform(need: &ImageNeed) -> String {
    if need.tells_platform { format!(" for {}", need.platform) } else { String::new() }
}

impl Error {
    /// What to do about it, where we know.
    pub fn hint(&self) -> Option<String> {
        self.own_hint().or_else(|| {
            // However deep below: a layer that is read, a file that a step copies.
            let causes = std::iter::successors(std::error::Error::source(self), |cause| (**cause).source());
            let full = |error: &std::io::Error| matches!(error.kind(), std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded);
            let is_full = causes.filter_map(|cause| cause.downcast_ref::<std::io::Error>()).any(full);
            is_full.then(|| "the disk (or its inodes, or your quota) is full; `strake prune` frees what is not in use".to_owned())
        })
    }

    fn own_hint(&self) -> Option<String> {
        match self {
            Error::Diagnostics(_) | Error::SeccompProfile { .. } => None,
            Error::Checks { .. } => Some("mend what was found, or rule a check out with `# check=skip=RULE` above the instruction".into()),
            Error::Dockerfile { source, .. } if source.kind() == std::io::ErrorKind::NotFound => {
                Some("name the file with -f, or the directory that holds it".into())
            }
            Error::BaseImage { source, .. } | Error::Image { source, .. } | Error::Output { source, .. } => source.hint(),
            Error::NotReproducible(_) => {
                Some("look for times, random numbers, names of this machine and files in no fixed order in what the steps write".into())
            }
            Error::Test { .. } => Some("the image is built, but neither named nor sent: its steps are in the cache".into()),
            Error::Commit { .. } => Some("give the time as SOURCE_DATE_EPOCH, in seconds since 1970".into()),
            Error::Build(source) => source.hint(),
            Error::Context(source) | Error::NamedContext { source, .. } => source.hint(),
            Error::Registry { source, .. } => source.hint(),
            Error::Credentials(source) => source.hint(),
            Error::Server(source) => source.hint(),
            Error::Store(source) => source.hint(),
            Error::Runtime(source) => source.hint(),
            Error::Device(source) => source.hint(),
            Error::Container { source, .. } => source.hint(),
            Error::Prepare(source) => source.hint(),
            Error::CacheExport { .. } => {
                Some("the image is made; with `ignore-error=true` a cache that cannot be exported is a warning".into())
            }
            Error::NoSuchImage { alike, .. } if !alike.is_empty() => Some(format!("did you mean {}?", alike.join(" or "))),
            Error::NoSuchImage { .. } => Some("`strake images` lists what is here; `strake pull` fetches what is not".into()),
            Error::NoSuchContainer { .. } => Some("`strake ps -a` lists all containers".into()),
            Error::Interrupted => Some("what a pull has fetched is kept: the same pull goes on from there".into()),
            Error::Rebase(refusal) => Some(refusal.hint().to_owned()),
            Error::Usage { hint, .. } => hint.clone(),
            Error::TagDeletion { by_digest, .. } => {
                Some(format!("this registry may delete by digest only: `strake delete {by_digest}`; all tags of that manifest go with it"))
            }
            Error::Ssh { source, .. } => source.hint(),
            Error::Dockerfile { source, .. } | Error::Io { source, .. } => match source.kind() {
                std::io::ErrorKind::StorageFull => Some("free some space, or run `strake prune`".into()),
                std::io::ErrorKind::PermissionDenied => Some("check the permissions of the file and of the directories above it".into()),
                _ => None,
            },
        }
    }

    /// Whether the user has stopped what was going on.
    pub fn is_interruption(&self) -> bool {
        matches!(self, Error::Interrupted | Error::Build(crate::executor::Error::Cancelled))
    }

    /// Whose failure it is.
    pub fn class(&self) -> Class {
        match self {
            Error::BaseImage { .. }
            | Error::Image { .. }
            | Error::Registry { .. }
            | Error::TagDeletion { .. }
            | Error::CacheExport { .. } => Class::Remote,
            Error::Store(_) | Error::Runtime(_) | Error::Device(_) | Error::Io { .. } | Error::Credentials(_) | Error::Server(_) => {
                Class::Environment
            }
            _ => Class::User,
        }
    }
}
