//! The hierarchies of control groups that are mounted here, and those of version 1 as a container sees them: a directory of its own for each, in a file system in
//! memory, with the container's own group as its root. So a program that looks for its limits finds them.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, Mode};
use rustix::mount::MountAttrFlags;

use super::error::Failure;
use super::mounts::{Change, Target, TargetLinks, attach, change_and_attach, clone_host_mount, new_filesystem};
use crate::path::RootPath;
use crate::sys::RootDir;

/// A mounted hierarchy.
pub(super) struct Hierarchy {
    pub(super) controllers: Vec<String>,
    pub(super) mount: PathBuf,
    /// The group of this process, below the mount.
    pub(super) own: PathBuf,
    /// Whether that is the mounted one itself.
    is_mounted: bool,
    /// The options of its file system.
    options: String,
}

/// The group of a container in a hierarchy of version 1.
pub(super) struct Seen {
    /// The directory that it is mounted on.
    pub(super) name: String,
    pub(super) controllers: Vec<String>,
    /// The group, mounted nowhere yet.
    pub(super) mount: OwnedFd,
}

/// A file that only the topmost group of a hierarchy has.
const RELEASE_AGENT: &str = "release_agent";

/// The groups of this process, as far as they can be had. With a namespace of its own (`own_namespace`) that makes them roots. Where it is in the topmost group, which
/// has all those of the host below it and no limits, there is nothing to see.
pub(super) fn own_groups(own_namespace: bool, attributes: MountAttrFlags) -> Vec<Seen> {
    let seen = |hierarchy: Hierarchy| {
        // Looked at before anything is mounted for it: a container without limits is in the topmost group of all of them, and to make and drop a mount for each takes 1 ms.
        if hierarchy.is_mounted && std::fs::exists(hierarchy.mount.join(RELEASE_AGENT)).unwrap_or(false) {
            return None;
        }
        let name = hierarchy.mount.file_name()?.to_str()?.to_owned();
        let mount = match own_namespace {
            true => {
                let options =
                    hierarchy.options.split(',').filter(|option| !matches!(*option, "rw" | "ro") && !option.starts_with("release_agent="));
                let options: Vec<(&str, Option<&str>)> =
                    options.map(|option| option.split_once('=').map_or((option, None), |(key, value)| (key, Some(value)))).collect();
                new_filesystem("cgroup", &options, attributes).ok()?
            }
            false => {
                let copy = clone_host_mount(&hierarchy.mount.join(&hierarchy.own), false).ok()?;
                let change = Change { set: u64::from(attributes.bits()), propagation: libc::MS_PRIVATE, ..Change::default() };
                change_and_attach(copy.as_fd(), change, || Ok(())).ok()?;
                copy
            }
        };
        let is_top = rustix::fs::statat(&mount, RELEASE_AGENT, AtFlags::empty()).is_ok();
        (!is_top).then_some(Seen { name, controllers: hierarchy.controllers, mount })
    };
    hierarchies(false).into_iter().filter_map(seen).collect()
}

/// Mounts groups below `path`, each on its directory, with links for what else controls there. The file system of the directories, which is returned, can be
/// written until it is made read-only.
pub(super) fn mount_groups(root: &RootDir, path: &RootPath, groups: &[Seen], attributes: MountAttrFlags) -> Result<OwnedFd, Failure> {
    let fail = || Failure::step("mount the control groups on", path);
    let at = Target { root, path, links: TargetLinks::Refuse }.open().map_err(fail())?;
    let tmpfs = new_filesystem("tmpfs", &[("mode", Some("755")), ("source", Some("cgroup"))], attributes).map_err(fail())?;
    attach(tmpfs.as_fd(), at.as_fd()).map_err(fail())?;
    for Seen { name, controllers, mount } in groups {
        rustix::fs::mkdirat(&tmpfs, name, Mode::from_raw_mode(0o755)).map_err(Failure::step("make the mount point", name))?;
        let path = path.join(name);
        let place = Target { root, path: &path, links: TargetLinks::Refuse }.open().map_err(fail())?;
        attach(mount.as_fd(), place.as_fd()).map_err(Failure::step("mount on", &path))?;
        for alias in controllers.iter().filter(|alias| *alias != name && !alias.contains('=')) {
            // Some hierarchies have both names already.
            let _ = rustix::fs::symlinkat(name, &tmpfs, alias.as_str());
        }
    }
    Ok(tmpfs)
}

/// The hierarchies that are mounted: the v1 ones, or the one of v2.
pub(super) fn hierarchies(unified: bool) -> Vec<Hierarchy> {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let own = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let mut found: Vec<Hierarchy> = Vec::new();
    for line in mounts.lines() {
        let Some((fields, rest)) = line.split_once(" - ") else { continue };
        let fields: Vec<&str> = fields.split(' ').collect();
        let rest: Vec<&str> = rest.split(' ').collect();
        let ([_, _, _, root, mount, ..], [kind, .., options]) = (&fields[..], &rest[..]) else { continue };
        if *kind != if unified { "cgroup2" } else { "cgroup" } || !mount.starts_with("/sys/fs/cgroup") {
            continue;
        }
        let controllers: Vec<String> = if unified { Vec::new() } else { controllers(options) };
        if found.iter().any(|known| known.controllers == controllers) {
            continue;
        }
        let own = own_group(&own, &controllers, root);
        found.push(Hierarchy {
            // Seen from a namespace of control groups whose root lies deeper, what is mounted has the root `/..`.
            is_mounted: own.as_os_str().is_empty() && !Path::new(root).components().any(|part| part == Component::ParentDir),
            own,
            controllers,
            mount: PathBuf::from(mount),
            options: (*options).to_owned(),
        });
    }
    found
}

/// The controllers in the options of a v1 mount.
fn controllers(options: &str) -> Vec<String> {
    const OTHERS: [&str; 8] = ["rw", "ro", "xattr", "noprefix", "clone_children", "cpuset_v2_mode", "all", "none"];
    let is_controller = |word: &&str| !OTHERS.contains(word) && !word.starts_with("release_agent");
    options.split(',').filter(is_controller).map(str::to_owned).collect()
}

/// The group of this process in a hierarchy, of which the group `root` is mounted.
fn own_group(text: &str, controllers: &[String], root: &str) -> PathBuf {
    let path = text.lines().find_map(|line| {
        let (_, rest) = line.split_once(':')?;
        let (names, path) = rest.split_once(':')?;
        let same = if controllers.is_empty() {
            names.is_empty()
        } else {
            names.split(',').any(|name| controllers.iter().any(|known| known == name))
        };
        same.then_some(path)
    });
    let path = Path::new(path.unwrap_or("/"));
    let below = path.strip_prefix(root).or_else(|_| path.strip_prefix("/"));
    below.map(Path::to_owned).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_own_group_is_found_below_what_is_mounted() {
        let text = "4:memory:/a/b\n2:cpu,cpuacct:/c\n1:name=systemd:/d\n0::/e\n";
        let of = |names: &[&str], root: &str| own_group(text, &names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>(), root);
        assert_eq!(of(&["memory"], "/"), Path::new("a/b"));
        assert_eq!(of(&["memory"], "/a"), Path::new("b"));
        assert_eq!(of(&["cpu", "cpuacct"], "/"), Path::new("c"));
        assert_eq!(of(&["name=systemd"], "/"), Path::new("d"));
        assert_eq!(of(&[], "/"), Path::new("e"));
    }

    #[test]
    fn options_of_mounts_are_no_controllers() {
        assert_eq!(controllers("rw,xattr,name=systemd"), ["name=systemd"]);
        assert_eq!(controllers("rw,cpu,cpuacct"), ["cpu", "cpuacct"]);
    }
}
