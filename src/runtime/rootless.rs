//! Root without root: makes this process root of a user namespace of its own, so that everything else works as it does for root, as far as the kernel lets it.
//!
//! Root of a container without privileges maps every ID to itself, and so loses nothing. Others have, with `newuidmap` and `newgidmap`, a range of `/etc/subuid` and
//! `/etc/subgid`, and images keep their owners. Without them only the caller's own ID is mapped, to 0: files of other owners cannot be made then, and groups cannot be set.
//! Whoever maps must be outside of the namespace (the helpers are set-user-ID programs, root's own capabilities count there only), so a copy of this process waits there for
//! the namespace to exist.

use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::thread::CapabilitySet;

use super::{Error, Result};
use crate::sys::privilege;
use crate::sys::process::{Cloned, clone_process, exit_now, reap, unshare};

/// Which IDs a user namespace has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdMap {
    /// All of those around it, each as itself.
    All,
    /// 0 is the caller, and so many further IDs are its subordinate ones.
    Ranges {
        /// Subordinate user IDs.
        users: u32,
        /// Subordinate group IDs.
        groups: u32,
    },
    /// 0 is the caller, and there is no other.
    Single,
}

/// Where distributions put set-user-ID programs.
const HELPER_DIRECTORIES: [&str; 4] = ["/usr/bin", "/bin", "/usr/local/bin", "/run/wrappers/bin"];

/// Puts this process into a new user and mount namespace, as its root. Call it before threads exist; the [`Spawner`](super::Spawner) and all sandboxes must
/// be started afterwards.
pub fn enter_user_namespace() -> Result<IdMap> {
    let fail = |step: &str| {
        let step = step.to_owned();
        move |source: io::Error| Error::UserNamespace { step, source }
    };
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    let plan = Plan::of(uid);
    let (mut wait, mut go) = io::pipe().map_err(fail("make a pipe"))?;
    let parent = std::process::id();
    let helper = match clone_process(0, None).map_err(fail("start a helper"))? {
        Cloned::Child => {
            drop(go);
            let told = wait.read_exact(&mut [0]).is_ok();
            let mapped = told && plan.apply(parent, uid, gid);
            exit_now(i32::from(!mapped))
        }
        Cloned::Parent { pid, .. } => pid,
    };
    let unshared = unshare(libc::CLONE_NEWUSER | libc::CLONE_NEWNS).map_err(fail("unshare"));
    if unshared.is_ok() {
        let _ = go.write_all(&[0]);
    }
    drop(go);
    let mapped = reap(helper).is_ok_and(|helper| helper.status == Ok(0));
    unshared?;
    match plan {
        Plan::All { .. } if mapped => Ok(IdMap::All),
        Plan::Ranges(ranges) if mapped => Ok(IdMap::Ranges { users: ranges.users.1, groups: ranges.groups.1 }),
        _ => {
            map_single(uid, gid)?;
            Ok(IdMap::Single)
        }
    }
}

/// The map of the user namespace that this process is in.
pub(super) fn present_map() -> IdMap {
    let counts = |path: &str| -> Vec<u32> {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        text.lines().filter_map(|line| line.split_ascii_whitespace().nth(2)?.parse().ok()).collect()
    };
    match (&counts("/proc/self/uid_map")[..], &counts("/proc/self/gid_map")[..]) {
        ([1], _) | ([], _) => IdMap::Single,
        ([1, users], [1, groups]) => IdMap::Ranges { users: *users, groups: *groups },
        _ => IdMap::All,
    }
}

/// Maps this process's own IDs to 0, which needs no privileges.
fn map_single(uid: u32, gid: u32) -> Result<()> {
    let write = |path: &str, text: String| {
        std::fs::write(path, text).map_err(|source| Error::UserNamespace { step: format!("write {path}"), source })
    };
    // A group that has less access than others could be left otherwise (user_namespaces(7)).
    write("/proc/self/setgroups", "deny".to_owned())?;
    write("/proc/self/gid_map", format!("0 {gid} 1"))?;
    write("/proc/self/uid_map", format!("0 {uid} 1"))
}

/// Has `newuidmap` or `newgidmap` map IDs (lines of `inside outside count`) of a new user namespace; says whether it is there and did so.
pub(super) fn run_id_map_helper(name: &str, pid: u32, lines: &[String]) -> bool {
    let Some(program) = helper(name) else { return false };
    let mut command = Command::new(program);
    command.arg(pid.to_string()).args(lines.iter().flat_map(|line| line.split(' ')));
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}

fn helper(name: &str) -> Option<PathBuf> {
    HELPER_DIRECTORIES.iter().map(|dir| Path::new(dir).join(name)).find(|path| path.exists())
}

/// Subordinate ranges (first ID, count) and the programs that may map them.
struct Ranges {
    users: (u32, u32),
    groups: (u32, u32),
    newuidmap: PathBuf,
    newgidmap: PathBuf,
}

/// How IDs are to be mapped from outside of the namespace.
enum Plan {
    /// Lines of the maps, which root writes by itself.
    All {
        users: String,
        groups: String,
    },
    Ranges(Ranges),
    /// There is nothing to be done from outside.
    Nothing,
}

impl Plan {
    fn of(uid: u32) -> Plan {
        let needed = CapabilitySet::SETUID | CapabilitySet::SETGID;
        if uid == 0 && privilege::effective().contains(needed) {
            let identity = |path: &str| std::fs::read_to_string(path).map(|map| identity_map(&map));
            if let (Ok(users), Ok(groups)) = (identity("/proc/self/uid_map"), identity("/proc/self/gid_map")) {
                return Plan::All { users, groups };
            }
        }
        ranges(uid).map_or(Plan::Nothing, Plan::Ranges)
    }

    /// Maps the IDs of the process `pid`, which is in the new namespace; says whether that was done.
    fn apply(&self, pid: u32, uid: u32, gid: u32) -> bool {
        let write = |name: &str, text: &str| std::fs::write(format!("/proc/{pid}/{name}"), text).is_ok();
        match self {
            Plan::All { users, groups } => write("gid_map", groups) && write("uid_map", users),
            Plan::Ranges(ranges) => ranges.apply(pid, uid, gid),
            Plan::Nothing => false,
        }
    }
}

/// A map that gives each ID of a user namespace with the map `map` (lines of `inside outside count`) as itself to one inside of it.
fn identity_map(map: &str) -> String {
    let lines = map.lines().filter_map(|line| {
        let mut fields = line.split_ascii_whitespace();
        let (inside, count) = (fields.next()?, fields.nth(1)?);
        Some(format!("{inside} {inside} {count}\n"))
    });
    lines.collect()
}

fn ranges(uid: u32) -> Option<Ranges> {
    let name = std::fs::read_to_string("/etc/passwd").ok().and_then(|text| user_name(&text, uid).map(str::to_owned));
    let range = |path: &str| sub_range(&std::fs::read_to_string(path).ok()?, name.as_deref(), uid);
    Some(Ranges {
        users: range("/etc/subuid")?,
        groups: range("/etc/subgid")?,
        newuidmap: helper("newuidmap")?,
        newgidmap: helper("newgidmap")?,
    })
}

/// The name of a user in the text of `/etc/passwd`.
fn user_name(passwd: &str, uid: u32) -> Option<&str> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then_some(name)
    })
}

/// The largest range of a user (by name or number) in the text of `/etc/subuid` or `/etc/subgid`.
fn sub_range(text: &str, name: Option<&str>, uid: u32) -> Option<(u32, u32)> {
    let ranges = text.lines().filter_map(|line| {
        let mut fields = line.trim().split(':');
        let owner = fields.next()?;
        let range: (u32, u32) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
        (Some(owner) == name || owner.parse() == Ok(uid)).then_some(range)
    });
    ranges.filter(|(first, count)| *count > 0 && first.checked_add(*count).is_some()).max_by_key(|(_, count)| *count)
}

impl Ranges {
    /// Runs the programs on the process `pid`, which is in the new namespace; says whether both succeeded.
    fn apply(&self, pid: u32, uid: u32, gid: u32) -> bool {
        let run = |program: &Path, own: u32, (first, count): (u32, u32)| {
            let numbers = [pid, 0, own, 1, 1, first, count].map(|number| number.to_string());
            let mut command = Command::new(program);
            command.args(numbers).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            command.status().is_ok_and(|status| status.success())
        };
        run(&self.newgidmap, gid, self.groups) && run(&self.newuidmap, uid, self.users)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_id_that_is_there_becomes_itself() {
        assert_eq!(identity_map("         0          0 4294967295\n"), "0 0 4294967295\n");
        assert_eq!(identity_map(" 0 1000 1\n 1 100000 65536\n"), "0 0 1\n1 1 65536\n");
    }

    #[test]
    fn the_largest_range_of_the_user_is_taken() {
        let text = "other:1:9999999\nalice:100000:10\n1000:200000:65536\nalice:bad:1\nalice:4294967295:2\n";
        assert_eq!(sub_range(text, Some("alice"), 1000), Some((200_000, 65_536)));
        assert_eq!(sub_range(text, Some("alice"), 7), Some((100_000, 10)));
        assert_eq!(sub_range(text, None, 7), None);
        assert_eq!(user_name("root:x:0:0::/:\nalice:x:1000:1000::/:\n", 1000), Some("alice"));
    }
}
