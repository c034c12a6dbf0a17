//! What can go wrong between a spec and a running process.
//!
//! Steps that happen in the sandbox's init report to the parent as values of [`Failure`], which crosses process boundaries; everything else is an [`Error`] here.

use std::fmt;
use std::io;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::situation::{Obstacle, obstacle};

/// Why a sandbox could not be started or watched.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The command cannot be executed: the image's or user's fault.
    #[error(transparent)]
    Exec(#[from] ExecError),
    /// A step of the setup failed inside the new namespaces.
    #[error("cannot {step} `{path}`")]
    Setup {
        /// What was being done (`mount proc on`).
        step: String,
        /// To what.
        path: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// The sandbox's init could not be created.
    #[error("cannot create the namespaces of a sandbox")]
    Clone(#[source] io::Error),
    /// Limits were asked for that this machine cannot enforce.
    #[error("cannot limit {what}: {reason}")]
    Limit {
        /// What was to be limited (`memory`).
        what: &'static str,
        /// Why it cannot be.
        reason: String,
    },
    /// A control group could not be made or configured.
    #[error("cannot set up the control group `{}`", path.display())]
    Cgroup {
        /// The group's directory, or the file in it.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// A spec contradicts itself or what came along with it.
    #[error("invalid sandbox: {0}")]
    Invalid(&'static str),
    /// The process that starts sandboxes could not be started or reached.
    #[error("cannot {0} the sandbox starter")]
    Spawner(&'static str, #[source] io::Error),
    /// The process that starts sandboxes has gone, and every sandbox with it.
    #[error("the sandbox starter has ended")]
    SpawnerGone,
    /// The process could not be signalled or waited for.
    #[error("cannot {action} process {pid}")]
    Process {
        /// What was tried.
        action: &'static str,
        /// The process.
        pid: u32,
        /// What the kernel said.
        source: io::Error,
    },
    /// Another OCI runtime could not start it.
    #[error("{message}")]
    Foreign {
        /// The exit code that it stands for.
        code: u8,
        /// What the other runtime said, with its name.
        message: String,
    },
    /// There are no namespaces to be had, so there is no sandbox.
    #[error("processes cannot be put into a sandbox here: {reason}")]
    NoSandbox {
        /// What is in the way.
        reason: String,
        /// The change that mends it.
        fix: String,
    },
    /// A kernel parameter is of a namespace that the sandbox shares with the host.
    #[error("cannot set `{name}`: it would be the host's, whose namespace is shared")]
    HostsParameter {
        /// Its name.
        name: String,
    },
    /// A device is to have other numbers than the host's, and no node can be made.
    #[error("cannot give the device `{path}`: it is to be {wanted}, and on this machine it is {found}")]
    OtherDevice {
        /// The host's node.
        path: String,
        /// Its kind and numbers by the description.
        wanted: String,
        /// Those that it has.
        found: String,
    },
    /// User namespaces cannot be used.
    #[error("cannot set up a user namespace: {step}")]
    UserNamespace {
        /// The step that failed.
        step: String,
        /// What the kernel said.
        source: io::Error,
    },
}

impl Error {
    /// That there is no sandbox to be had here, and why.
    pub fn no_sandbox() -> Error {
        Failure::no_sandbox().into()
    }

    /// What the user can do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Error::Exec(error) => error.hint(),
            Error::NoSandbox { fix, .. } => Some(format!("{fix}; `strake doctor` says more")),
            Error::Setup { step, source, .. } => setup_hint(step, source),
            Error::Clone(source) => match source.raw_os_error() {
                Some(libc::EPERM) => Some("creating namespaces needs root, or user namespaces for rootless use".into()),
                Some(libc::ENOSPC) => Some("a limit on namespaces is reached; see /proc/sys/user/max_*_namespaces".into()),
                _ => None,
            },
            Error::Limit { what, .. } if *what == LimitKind::Swapping.name() => {
                Some("leave out `--memory-swappiness` and `--oom-kill-disable`, which are for control groups of version 1".into())
            }
            Error::Limit { .. } | Error::Cgroup { .. } => Some(
                "limits need a writable cgroup file system; rootless, a session of systemd and the controllers that it delegates: `strake doctor` says more"
                    .into(),
            ),
            Error::UserNamespace { .. } => Some(
                "check /proc/sys/user/max_user_namespaces, and on Ubuntu /proc/sys/kernel/apparmor_restrict_unprivileged_userns (0 allows them)".into(),
            ),
            Error::HostsParameter { .. } => Some("leave it out, or the flag that shares the host's network, memory or name".into()),
            Error::OtherDevice { .. } => {
                Some("only root can make device nodes: correct `type`, `major` and `minor` in the device's description, or leave them out".into())
            }
            Error::Invalid(_) | Error::Spawner(..) | Error::SpawnerGone | Error::Process { .. } | Error::Foreign { .. } => None,
        }
    }

    /// The exit code that `docker run` gives for this failure: 127 not found, 126 not executable, 125 anything else.
    pub fn exit_code(&self) -> u8 {
        match self {
            Error::Exec(error) => error.exit_code(),
            Error::Foreign { code, .. } => *code,
            _ => 125,
        }
    }
}

/// The step at which a place for a mount is looked for.
pub(super) const OPEN_MOUNT_POINT: &str = "open the mount point";
/// The step at which the device is opened that covers what containers must not see.
pub(super) const OPEN_TO_MASK: &str = "cover files of the host by";

/// The step at which a process changes its user or group.
pub(super) const BECOME: &str = "become";

/// The step at which a process is put into a profile of AppArmor.
pub(super) const ENTER_PROFILE: &str = "enter the AppArmor profile";

/// The step that fails where a file system cannot show files as those of other users.
pub(super) const MAP_OWNERS: &str = "map the owners of";

fn setup_hint(step: &str, source: &io::Error) -> Option<String> {
    if step == MAP_OWNERS {
        return Some(
            "users of its own (`--userns auto`) need files on ext4, XFS, Btrfs or tmpfs, and Linux 6.7: say `--userns host`".into(),
        );
    }
    if step == BECOME && source.raw_os_error() == Some(libc::EINVAL) {
        return Some(
            "there is no such ID here: without root, ranges in /etc/subuid and /etc/subgid give more (`strake doctor` has the command)"
                .into(),
        );
    }
    if step == ENTER_PROFILE {
        return Some(match source.raw_os_error() {
            Some(libc::EOPNOTSUPP) => "this kernel is without AppArmor, so no profile would hold: leave it out".into(),
            Some(libc::ENOENT) => "it is not loaded: `apparmor_parser -r FILE` loads one, `aa-status` lists those that are".into(),
            _ => "a profile around this process forbids it: ask for another one, or for `unconfined`".into(),
        });
    }
    if step.contains("overlay") && source.raw_os_error() == Some(libc::EPERM) {
        return Some("this kernel refuses overlayfs in a user namespace; 5.11 or newer is needed".into());
    }
    if step.contains("the limit") && source.raw_os_error() == Some(libc::EPERM) {
        return Some("raising a hard limit needs CAP_SYS_RESOURCE: give one that is not above this process's own (`ulimit -H`)".into());
    }
    if step == OPEN_MOUNT_POINT && source.raw_os_error() == Some(libc::EPERM) {
        return Some(
            "nothing can be mounted on `/proc` and below, where it could change what the container sees of itself: choose another place"
                .into(),
        );
    }
    if step == OPEN_TO_MASK && source.raw_os_error() == Some(libc::ENOENT) {
        return Some("what is mounted on `/dev` lacks the devices that every container has: choose another place".into());
    }
    if source.raw_os_error() == Some(libc::EPERM) {
        return Some("the surrounding container forbids it; it needs CAP_SYS_ADMIN and a filter that allows mount".into());
    }
    None
}

/// Why a command cannot be executed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ExecError {
    /// There is no such file, or no such name in `PATH`.
    #[error("exec `{command}`: not found in the image")]
    NotFound {
        /// The command as it was given.
        command: String,
        /// The directories that were searched; `None` for a command with a slash.
        path: Option<String>,
    },
    /// A script's `#!` line names an interpreter that is not in the image, or a binary its dynamic loader.
    #[error("exec `{command}`: its interpreter `{interpreter}` is not in the image")]
    MissingInterpreter {
        /// The command as it was given.
        command: String,
        /// What its file asks for.
        interpreter: String,
    },
    /// The file is not executable for this user.
    #[error("exec `{command}`: permission denied")]
    PermissionDenied {
        /// The command as it was given.
        command: String,
    },
    /// The path is a directory.
    #[error("exec `{command}`: is a directory")]
    IsDirectory {
        /// The command as it was given.
        command: String,
    },
    /// The kernel does not know the file's format.
    #[error("exec `{command}`: exec format error")]
    BadFormat {
        /// The command as it was given.
        command: String,
    },
    /// No command was given.
    #[error("no command to execute")]
    NoCommand,
    /// The kernel refused for another reason.
    #[error("exec `{command}`: {}", io::Error::from_raw_os_error(*errno))]
    Failed {
        /// The command as it was given.
        command: String,
        /// The kernel's reason.
        errno: i32,
    },
}

impl ExecError {
    /// What the user can do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            ExecError::NotFound { command, path: None } if command == "/bin/sh" => {
                Some("the image has no shell; use the exec form: `RUN [\"program\", \"argument\"]`".into())
            }
            ExecError::NotFound { path: Some(path), .. } if path.is_empty() => Some("PATH is empty".into()),
            ExecError::NotFound { path: Some(path), .. } => Some(format!("PATH is `{path}`")),
            ExecError::NotFound { path: None, .. } => None,
            ExecError::MissingInterpreter { interpreter, .. } if interpreter.ends_with('\r') => {
                Some("the script has Windows line endings; save it with LF".into())
            }
            ExecError::MissingInterpreter { interpreter, .. } if interpreter.contains("/ld-") => {
                Some("the program is linked for another libc; link it statically or use an image with that libc".into())
            }
            ExecError::MissingInterpreter { .. } => None,
            ExecError::PermissionDenied { command } => Some(format!("make it executable: `chmod +x {command}`")),
            ExecError::BadFormat { .. } => {
                Some("the file is for another architecture (then emulation is needed), or a script without a `#!` line".into())
            }
            ExecError::IsDirectory { .. } | ExecError::NoCommand | ExecError::Failed { .. } => None,
        }
    }

    /// The shell's code: 127 not found, 126 otherwise.
    pub fn exit_code(&self) -> u8 {
        match self {
            ExecError::NotFound { .. } | ExecError::MissingInterpreter { .. } | ExecError::NoCommand => 127,
            _ => 126,
        }
    }
}

/// A failure on its way from the sandbox's init to the parent, and from the spawner to its client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Failure {
    /// A step of the setup.
    Step { step: String, path: String, errno: i32 },
    /// The exec itself.
    Exec(ExecError),
    /// Creating the namespaces.
    Clone { errno: i32 },
    /// Limits that cannot be enforced.
    Limit { what: LimitKind, reason: String },
    /// A control group.
    Cgroup { path: String, errno: i32 },
    /// A spec that makes no sense.
    Invalid { spec: bool },
    /// There are no namespaces.
    NoSandbox { reason: String, fix: String },
    /// A kernel parameter that would be the host's.
    HostsParameter { name: String },
    /// A device that is another one on the host.
    OtherDevice { path: String, wanted: String, found: String },
    /// Another runtime failed.
    Foreign { code: u8, message: String },
}

/// What a limit is on; a closed set, so that it can cross processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum LimitKind {
    Memory,
    Cpu,
    Cpuset,
    Pids,
    Disk,
    Devices,
    Swapping,
}

impl LimitKind {
    pub(super) fn name(self) -> &'static str {
        match self {
            LimitKind::Memory => "memory",
            LimitKind::Cpu => "CPU time",
            LimitKind::Cpuset => "CPU sets",
            LimitKind::Pids => "processes",
            LimitKind::Disk => "disk access",
            LimitKind::Devices => "the use of devices",
            LimitKind::Swapping => "swapping",
        }
    }
}

impl Failure {
    /// That there are no namespaces, with the reason. To be made by a process with one thread.
    pub(super) fn no_sandbox() -> Failure {
        let Obstacle { reason, fix } = obstacle();
        Failure::NoSandbox { reason, fix }
    }

    /// A failed step, for `map_err`.
    pub(super) fn step<E: Into<io::Error>>(step: impl Into<String>, path: impl fmt::Display) -> impl FnOnce(E) -> Failure {
        move |error| {
            let error: io::Error = error.into();
            Failure::Step { step: step.into(), path: path.to_string(), errno: error.raw_os_error().unwrap_or(libc::EIO) }
        }
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Error {
        match failure {
            Failure::Step { step, path, errno } => Error::Setup { step, path, source: io::Error::from_raw_os_error(errno) },
            Failure::Exec(error) => Error::Exec(error),
            Failure::Clone { errno } => Error::Clone(io::Error::from_raw_os_error(errno)),
            Failure::Limit { what, reason } => Error::Limit { what: what.name(), reason },
            Failure::Cgroup { path, errno } => Error::Cgroup { path: path.into(), source: io::Error::from_raw_os_error(errno) },
            Failure::NoSandbox { reason, fix } => Error::NoSandbox { reason, fix },
            Failure::HostsParameter { name } => Error::HostsParameter { name },
            Failure::OtherDevice { path, wanted, found } => Error::OtherDevice { path, wanted, found },
            Failure::Foreign { code, message } => Error::Foreign { code, message },
            Failure::Invalid { spec: true } => Error::Invalid("the description cannot be read"),
            Failure::Invalid { spec: false } => Error::Invalid("a descriptor that the description needs is missing"),
        }
    }
}
