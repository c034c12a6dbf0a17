//! What is kept of a failed RUN step for `--on-error=shell`: everything that its sandbox was made of, to make it once more around a shell.
//!
//! The writable layer is the failed command's own, with what it did so far; so are mounts, secrets, agents, network and user. What was in memory is gone: processes, and the
//! files on tmpfs. Dropping it removes all of it, and nothing of it is ever committed.

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use crate::runtime::{Error, ExecError, MountSpec, Running, SandboxIo, SandboxSpec, Spawner, Stdio, TerminalSize};
use crate::store::Lease;
use crate::sys::RootfsMount;

use super::exec::StepFiles;

/// Where the first failed step of a build is left.
#[derive(Clone, Debug, Default)]
pub struct FailedSlot(Arc<Mutex<Option<FailedStep>>>);

impl FailedSlot {
    /// The failed step, if there is one.
    pub fn take(&self) -> Option<FailedStep> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Leaves a step, unless another failed before.
    pub(super) fn put(&self, step: FailedStep) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(step);
    }
}

/// A step that failed, with its sandbox's parts.
pub struct FailedStep {
    pub(super) spec: SandboxSpec,
    pub(super) netns: Option<OwnedFd>,
    pub(super) spawner: Arc<Spawner>,
    /// The program of the SHELL instruction, where the step used it.
    pub(super) shell: Option<String>,
    /// What must live as long as the sandbox.
    pub(super) _files: StepFiles,
    pub(super) _lease: Arc<Lease>,
}

impl std::fmt::Debug for FailedStep {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FailedStep").field("args", &self.spec.process.args).finish_non_exhaustive()
    }
}

/// Shells that images have, in the order in which they are tried.
const SHELLS: [&str; 3] = ["/bin/sh", "/bin/bash", "/busybox/sh"];

/// Why there is no shell.
#[derive(Debug, thiserror::Error)]
pub enum ShellError {
    /// The image has none.
    #[error("the image has no shell: there is no {}", tried.join(", "))]
    NoShell {
        /// Where it was looked for.
        tried: Vec<String>,
    },
    /// The sandbox could not be made again.
    #[error("the sandbox cannot be made again")]
    Sandbox(#[source] Error),
    /// A directory that it needs could not be made.
    #[error("cannot make `{}`", path.display())]
    Directory {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
}

impl FailedStep {
    /// Starts a shell in the step's sandbox, with a terminal of this size. `term` is its `TERM`, where the step has none.
    pub fn shell(&mut self, size: Option<TerminalSize>, term: Option<&str>) -> Result<Running, ShellError> {
        self.renew_work()?;
        let process = &mut self.spec.process;
        process.terminal = size;
        if let Some(term) = term.filter(|_| !process.env.iter().any(|entry| entry.as_encoded_bytes().starts_with(b"TERM="))) {
            process.env.push(format!("TERM={term}").into());
        }
        let mut tried: Vec<String> = Vec::new();
        let shells: Vec<String> = self.shell.iter().cloned().chain(SHELLS.map(str::to_owned)).collect();
        for shell in shells {
            if tried.contains(&shell) {
                continue;
            }
            self.spec.process.args = vec![shell.clone().into()];
            let mut io = SandboxIo::new(Stdio::Terminal);
            let copied = self.netns.as_ref().map(OwnedFd::try_clone).transpose();
            io.netns = copied.map_err(|source| ShellError::Directory { path: "a descriptor".into(), source })?;
            match self.spawner.spawn(&self.spec, io) {
                Ok(running) => return Ok(running),
                Err(Error::Exec(ExecError::NotFound { .. } | ExecError::MissingInterpreter { .. })) => tried.push(shell),
                Err(error) => return Err(ShellError::Sandbox(error)),
            }
            self.renew_work()?;
        }
        Err(ShellError::NoShell { tried })
    }

    /// Gives each writable overlay an empty working directory: the kernel mounts none again that was mounted `volatile`.
    fn renew_work(&mut self) -> Result<(), ShellError> {
        let mounts = self.spec.mounts.iter_mut().filter_map(|mount| match mount {
            MountSpec::Overlay { rootfs, .. } => Some(rootfs),
            MountSpec::Bind { .. } | MountSpec::Tmpfs { .. } | MountSpec::Filesystem { .. } => None,
        });
        for rootfs in std::iter::once(&mut self.spec.rootfs).chain(mounts) {
            let RootfsMount::Overlay { upper: Some(upper), .. } = rootfs else { continue };
            let number = upper.work.extension().and_then(|number| number.to_str()?.parse::<u32>().ok()).unwrap_or(0) + 1;
            upper.work.set_extension(number.to_string());
            let path = upper.work.clone();
            std::fs::create_dir(&path).map_err(|source| ShellError::Directory { path, source })?;
        }
        Ok(())
    }
}
