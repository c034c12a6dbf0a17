//! Containers that stand still: the freezer of cgroups, v2 and v1.
//!
//! The kernel's files are the only record, so that nobody can be told a lie: whoever asks reads them. On v2 the container's own group is frozen. On v1 a container has a
//! group of the freezer only while it stands still: its processes are moved there, which costs time that a start need not spend.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::Error;
use super::processes::processes_of;
use crate::runtime::cgroup::is_unified;

/// Where the v1 controller is mounted.
const FREEZER: &str = "/sys/fs/cgroup/freezer";

/// How long the kernel may take to stop all processes.
const PATIENCE: Duration = Duration::from_secs(10);

/// The container's group of the v1 freezer.
fn legacy(id: &str) -> PathBuf {
    Path::new(FREEZER).join("strake").join(id)
}

/// Whether the container with that ID, in these groups, stands still.
pub fn is_paused(id: &str, groups: &[PathBuf]) -> bool {
    let says = |path: PathBuf, word: &str| std::fs::read_to_string(path).is_ok_and(|text| text.trim() == word);
    groups.iter().any(|group| says(group.join("cgroup.freeze"), "1"))
        || std::fs::read_to_string(legacy(id).join("freezer.state")).is_ok_and(|text| text.trim() != "THAWED")
}

/// Stops all processes of a container, of which `pid` is the first.
///
/// # Errors
/// There is no freezer, or it takes too long. [`Error::NotRunning`]: the container has ended meanwhile.
pub fn pause(id: &str, pid: u32, groups: &[PathBuf]) -> Result<(), Error> {
    let frozen = freeze(id, pid, groups);
    if Path::new(&format!("/proc/{pid}")).exists() {
        return frozen;
    }
    forget(id);
    Err(Error::NotRunning)
}

fn freeze(id: &str, pid: u32, groups: &[PathBuf]) -> Result<(), Error> {
    if is_unified() {
        let Some(group) = groups.iter().find(|group| group.join("cgroup.freeze").exists()) else { return Err(Error::NoFreezer) };
        write(&group.join("cgroup.freeze"), "1")?;
        return wait(&group.join("cgroup.events"), "frozen 1");
    }
    if !Path::new(FREEZER).join("tasks").exists() {
        return Err(Error::NoFreezer);
    }
    let group = legacy(id);
    std::fs::create_dir_all(&group).map_err(Error::file("create", &group))?;
    gather(&group, pid)?;
    write(&group.join("freezer.state"), "FROZEN")?;
    wait(&group.join("freezer.state"), "FROZEN")
}

/// Moves all processes of the container into a group. What is forked by one that is there already is born there, so this comes to an end.
pub(super) fn gather(group: &Path, pid: u32) -> Result<(), Error> {
    let procs = group.join("cgroup.procs");
    loop {
        let there: BTreeSet<u32> =
            std::fs::read_to_string(&procs).unwrap_or_default().lines().filter_map(|line| line.parse().ok()).collect();
        let mut moved = false;
        for process in processes_of(pid).into_iter().filter(|process| !there.contains(process)) {
            match std::fs::write(&procs, process.to_string()) {
                Ok(()) => moved = true,
                // It has ended meanwhile.
                Err(error) if error.raw_os_error() == Some(libc::ESRCH) => {}
                Err(error) => return Err(Error::file("write", &procs)(error)),
            }
        }
        if !moved {
            return Ok(());
        }
    }
}

/// Lets a container go on. One that does not stand still is left alone.
pub fn unpause(id: &str, groups: &[PathBuf]) -> Result<(), Error> {
    let unified = groups.iter().map(|group| (group.join("cgroup.freeze"), "0"));
    for (file, word) in unified.chain([(legacy(id).join("freezer.state"), "THAWED")]) {
        match write(&file, word) {
            // There is no such group, or it has just gone with the container.
            Err(_) if !file.exists() => {}
            other => other?,
        }
    }
    Ok(())
}

/// Removes the group of the v1 freezer of a container that has ended; lets what is left in it go on, so that it can end.
pub fn forget(id: &str) {
    let group = legacy(id);
    if group.exists() {
        let _ = write(&group.join("freezer.state"), "THAWED");
        let deadline = Instant::now() + Duration::from_secs(1);
        while std::fs::remove_dir(&group).is_err() && Instant::now() < deadline && group.exists() {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

fn write(path: &Path, text: &str) -> Result<(), Error> {
    std::fs::write(path, text).map_err(Error::file("write", path))
}

/// Waits until a file has a line.
fn wait(path: &Path, line: &str) -> Result<(), Error> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let text = std::fs::read_to_string(path).map_err(Error::file("read", path))?;
        if text.lines().any(|found| found == line) {
            return Ok(());
        }
        if Instant::now() > deadline {
            return Err(Error::file("wait for", path)(io::ErrorKind::TimedOut.into()));
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}
