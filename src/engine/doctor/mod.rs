//! `strake doctor`: what this machine has for builds and containers, what it lacks, and what to do about that.
//!
//! Nothing is changed by looking: what can only be found out by trying is tried in a process of its own, in namespaces that end with it.

mod groups;
mod kernel;
mod network;
mod places;
mod users;

use std::path::PathBuf;

use serde::Serialize;

use super::{StorageDriver, root_driver};
use crate::runtime::{Situation, foresee};

/// Who asks, and about which places.
#[derive(Clone, Debug)]
pub struct DoctorRequest {
    /// The store's directory, which need not be there.
    pub root: PathBuf,
    /// Whether an ordinary user asks.
    pub rootless: bool,
    /// Files about registries that are read where they are there.
    pub settings: Vec<PathBuf>,
    /// Where programs are looked for.
    pub programs: Vec<PathBuf>,
    /// How root file systems are made, where the user says so.
    pub storage_driver: Option<StorageDriver>,
}

/// How something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// As it should be.
    Ok,
    /// Something is slower, or not possible, without it.
    Warn,
    /// Builds or containers do not work without it.
    Missing,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What.
    pub name: &'static str,
    /// How it is.
    pub verdict: Verdict,
    /// What was found.
    pub found: String,
    /// The command, or the change, that mends it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fix: Option<String>,
}

impl Finding {
    fn ok(name: &'static str, found: impl Into<String>) -> Finding {
        Finding { name, verdict: Verdict::Ok, found: found.into(), fix: None }
    }

    fn warn(name: &'static str, found: impl Into<String>, fix: impl Into<String>) -> Finding {
        Finding { name, verdict: Verdict::Warn, found: found.into(), fix: Some(fix.into()) }
    }

    fn missing(name: &'static str, found: impl Into<String>, fix: impl Into<String>) -> Finding {
        Finding { name, verdict: Verdict::Missing, found: found.into(), fix: Some(fix.into()) }
    }
}

/// Looks at this machine. The calling process must have one thread.
pub fn examine(request: &DoctorRequest) -> Vec<Finding> {
    let (situation, shares_processes) = foresee();
    let mut all = kernel::findings(situation, shares_processes);
    all.extend(users::findings(situation));
    // Root by name in a container asks whoever runs that; an ordinary user the system.
    all.extend(groups::findings(request.rootless && !rustix::process::geteuid().is_root()));
    all.extend(network::findings(request, situation));
    all.extend(places::findings(request));
    // Elsewhere there are none, or what has no namespaces has no mounts either.
    if matches!(situation, Situation::Root | Situation::UserNamespace(_)) {
        all.push(roots(request, &all));
    }
    all
}

/// How root file systems are made, which follows from what was found.
fn roots(request: &DoctorRequest, all: &[Finding]) -> Finding {
    let name = "root file systems";
    match request.storage_driver {
        Some(StorageDriver::Overlay) => return Finding::ok(name, "overlays, as the settings say"),
        Some(StorageDriver::Fuse) => {
            return match root_driver::fuse_overlayfs(&request.programs) {
                Ok(_) => Finding::ok(name, "those of containers by fuse-overlayfs, as the settings say, and those of RUN steps copied"),
                Err((reason, fix)) => Finding::missing(name, format!("the settings want fuse-overlayfs: {reason}"), fix),
            };
        }
        Some(StorageDriver::Copy) => return Finding::ok(name, "copied, as the settings say"),
        None => {}
    }
    let against =
        all.iter().find(|finding| matches!(finding.name, "overlayfs" | "store's file system") && finding.verdict == Verdict::Warn);
    match against {
        Some(Finding { name: what, fix, .. }) => {
            let found = match root_driver::fuse_overlayfs(&request.programs) {
                Ok(_) => {
                    format!("those of containers by fuse-overlayfs, and those of RUN steps copied, because of what is said of `{what}`")
                }
                Err((reason, _)) => format!("copied, because of what is said of `{what}` (fuse-overlayfs is not used: {reason})"),
            };
            Finding::warn(name, found, fix.clone().unwrap_or_default())
        }
        None => Finding::ok(name, "overlays, mounted by the kernel"),
    }
}

/// The text of a file of the kernel's; nothing where it is not there.
fn read(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default().trim().to_owned()
}

/// Where a program is.
fn program(name: &str) -> Option<PathBuf> {
    let directories = ["/usr/local/bin", "/usr/bin", "/bin", "/usr/local/sbin", "/usr/sbin", "/sbin", "/run/wrappers/bin"];
    directories.iter().map(|directory| PathBuf::from(directory).join(name)).find(|path| path.exists())
}
