//! What this machine and the store are, in the words of `docker info`. What is wrong with them is for `doctor`.

use std::path::PathBuf;

use crate::oci::Platform;
use crate::runtime::is_unified;

use super::{Engine, Error, RootDriver};

/// The machine, and what is in the store.
#[derive(Clone, Debug)]
pub struct Information {
    /// How many containers there are.
    pub containers: usize,
    /// How many of them run.
    pub running: usize,
    /// How many stand still.
    pub paused: usize,
    /// How many images there are.
    pub images: usize,
    /// How root file systems are made.
    pub driver: RootDriver,
    /// The store's directory.
    pub root: PathBuf,
    /// What images run here.
    pub platform: Platform,
    /// The version of control groups.
    pub cgroup_version: u8,
    /// The name of the machine's operating system.
    pub operating_system: String,
    /// How many processors this process may use.
    pub processors: usize,
    /// The machine's memory in bytes.
    pub memory: u64,
}

impl Engine {
    /// Looks at the machine and the store.
    ///
    /// # Errors
    /// The store, or the user's settings.
    pub fn information(&self) -> Result<Information, Error> {
        let containers = self.containers()?;
        let paused = containers.iter().filter(|info| info.is_paused()).count();
        let memory = rustix::system::sysinfo();
        Ok(Information {
            containers: containers.len(),
            running: containers.iter().filter(|info| info.is_running()).count() - paused,
            paused,
            images: self.store.images()?.len(),
            driver: self.root_driver()?,
            root: self.store.root().to_owned(),
            platform: Platform::host(),
            cgroup_version: if is_unified() { 2 } else { 1 },
            operating_system: operating_system(),
            processors: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            memory: memory.totalram.saturating_mul(u64::from(memory.mem_unit)),
        })
    }
}

/// What the system calls itself (os-release(5)).
fn operating_system() -> String {
    let text = ["/etc/os-release", "/usr/lib/os-release"].iter().find_map(|path| std::fs::read_to_string(path).ok()).unwrap_or_default();
    let name = text.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    name.map_or_else(|| "Linux".to_owned(), |name| name.trim_matches(['"', '\'']).to_owned())
}
