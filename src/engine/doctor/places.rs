//! Places: the store's disk, and the files about registries.

use std::path::Path;

use rustix::fs::Access;

use super::{DoctorRequest, Finding};

/// Too little for most images.
const LITTLE: u64 = 2 << 30;

/// File systems by the numbers of statfs(2): what overlayfs cannot write to (then files are copied), or what the database of the store is not safe on.
const UNFIT: [(i64, &str, &str); 9] = [
    (0x9fa0, "proc", "it keeps no files"),
    (0x6265_6572, "sysfs", "it keeps no files"),
    (0x6969, "NFS", "locks and attributes do not hold on it"),
    (0xff53_4d42, "CIFS", "locks and attributes do not hold on it"),
    (0xfe53_4d42, "SMB", "locks and attributes do not hold on it"),
    (0x794c_7630, "overlayfs", "one overlay cannot be the upper layer of another"),
    (0x4d44, "FAT", "it keeps no owners, modes or links"),
    (0x6573_5546, "FUSE", "most of these lack the attributes that overlayfs wants"),
    (0x0102_1997, "9P", "it lacks the attributes that overlayfs wants"),
];

pub(super) fn findings(request: &DoctorRequest) -> Vec<Finding> {
    let mut all = store(&request.root);
    all.push(settings(request));
    all
}

fn store(root: &Path) -> Vec<Finding> {
    // Where the directory is not there yet, it is made in the nearest one that is.
    let Some(there) = root.ancestors().find(|path| path.exists()) else { return Vec::new() };
    let shown = root.display();
    let elsewhere = "name another place with --root or STRAKE_ROOT";
    let mut all = Vec::new();
    all.push(match rustix::fs::access(there, Access::WRITE_OK) {
        Ok(()) => Finding::ok("store", format!("{shown}")),
        Err(_) => Finding::missing("store", format!("`{}` cannot be written", there.display()), elsewhere),
    });
    if let Ok(stat) = rustix::fs::statfs(there) {
        let unfit = UNFIT.iter().find(|(number, ..)| *number == stat.f_type);
        all.push(match unfit {
            Some((_, name, why)) if why.contains("overlay") => {
                let found = format!("{name}: {why}; the files of each root file system are copied, which takes time and space");
                Finding::warn("store's file system", found, elsewhere)
            }
            Some((_, name, why)) => Finding::missing("store's file system", format!("{name}: {why}"), elsewhere),
            None => Finding::ok("store's file system", file_system(there).unwrap_or_else(|| format!("{:#x}", stat.f_type))),
        });
    }
    if let Ok(stat) = rustix::fs::statvfs(there) {
        let free = stat.f_bavail.saturating_mul(stat.f_frsize);
        let found = format!("{:.1} GB free, {} inodes", free as f64 / 1e9, stat.f_favail);
        all.push(match free < LITTLE || (stat.f_files > 0 && stat.f_favail < 10_000) {
            true => Finding::warn("store's space", found, "strake prune"),
            false => Finding::ok("store's space", found),
        });
    }
    all
}

/// The name of the file system that a directory is on, as `/proc/self/mountinfo` has it.
fn file_system(path: &Path) -> Option<String> {
    let path = path.canonicalize().ok()?;
    let mounts = super::read("/proc/self/mountinfo");
    let found = mounts.lines().filter_map(|line| {
        let (before, after) = line.split_once(" - ")?;
        let at = before.split(' ').nth(4)?;
        path.starts_with(at).then(|| (at.len(), after.split(' ').next().unwrap_or("").to_owned()))
    });
    found.max_by_key(|(length, _)| *length).map(|(_, name)| name)
}

fn settings(request: &DoctorRequest) -> Finding {
    let mut read = Vec::new();
    for path in request.settings.iter().filter(|path| path.exists()) {
        let shown = path.display();
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) => return Finding::warn("registries", format!("`{shown}` cannot be read: {error}"), format!("chmod u+r {shown}")),
        };
        if path.extension().is_some_and(|extension| extension == "json")
            && let Err(error) = serde_json::from_str::<serde_json::Value>(&text)
        {
            return Finding::warn("registries", format!("`{shown}` is not JSON: {error}"), "mend it, or remove it and log in again");
        }
        read.push(shown.to_string());
    }
    Finding::ok("registries", if read.is_empty() { "no settings, no credentials".to_owned() } else { read.join(", ") })
}
