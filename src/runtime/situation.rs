//! What the kernel, and a container around this process, let it do: found out once, at the start, before there is any thread.
//!
//! Root with CAP_SYS_ADMIN mounts and makes namespaces. Whoever lacks that becomes root of a user namespace of its own ([`establish`]), where those are allowed. Where they are
//! not, root by name can run steps by chroot(2) alone, and everybody all that needs no sandbox; what needs one says why there is none ([`obstacle`]).

use std::path::Path;
use std::sync::OnceLock;

use rustix::mount::{MountAttrFlags, MountPropagationFlags};
use rustix::thread::CapabilitySet;

use super::Result;
use super::capabilities::Capabilities;
use super::household::{self, Member};
use super::mounts::new_filesystem;
use super::rootless::{IdMap, enter_user_namespace};
use crate::sys::process::{Cloned, clone_process, exit_now, reap};
use crate::sys::{owner, privilege};

pub use crate::sys::privilege::is_root;

/// What a process may do with sandboxes, the most at first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Situation {
    /// It is root, and makes namespaces and mounts.
    Root,
    /// It is root of a user namespace of its own.
    UserNamespace(IdMap),
    /// It has no namespaces, but can change the root directory of a process.
    Chroot,
    /// It has none of that.
    Bare,
}

/// Why there are no namespaces, or less than usual of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Obstacle {
    /// What is in the way.
    pub reason: String,
    /// The change that mends it.
    pub fix: String,
}

/// What is to be said, once, where [`shares_processes`].
pub const SHARED_PROCESSES: &str = "no processes of their own for sandboxes, which see those around them and each other's: the kernel refuses a new /proc while parts of the present one are covered (docker run --security-opt systempaths=unconfined, in Kubernetes procMount: Unmasked)";

/// What is to be said, once, where steps run by chroot(2) alone.
pub const CHROOT: &str = "steps and containers are not isolated, neither from each other nor from the container around this: they run by chroot alone, with its processes and its network, and without /proc and /sys";

static SITUATION: OnceLock<Situation> = OnceLock::new();

/// What [`establish`] has found.
pub fn situation() -> Option<Situation> {
    SITUATION.get().copied()
}

/// What [`establish`] would find and whether [`shares_processes`] would hold then, found out in a process that ends. The calling process must have one thread.
pub fn foresee() -> (Situation, bool) {
    let all = [
        Situation::Root,
        Situation::UserNamespace(IdMap::All),
        Situation::UserNamespace(IdMap::Ranges { users: 0, groups: 0 }),
        Situation::UserNamespace(IdMap::Single),
        Situation::Chroot,
        Situation::Bare,
    ];
    let kind = |situation: Situation| match situation {
        Situation::UserNamespace(IdMap::Ranges { .. }) => 2,
        other => all.iter().position(|known| *known == other).unwrap_or(5),
    };
    let code = match clone_process(0, None) {
        Ok(Cloned::Child) => {
            let found = kind(establish());
            exit_now((found * 2 + usize::from(shares_processes())) as i32)
        }
        Ok(Cloned::Parent { pid, .. }) => reap(pid).ok().and_then(|ended| ended.status.ok()),
        Err(_) => None,
    };
    let code = usize::from(code.unwrap_or(10));
    (all.get(code / 2).copied().unwrap_or(Situation::Bare), code % 2 == 1)
}

/// Becomes as much of root as the kernel allows. Call it before threads exist; the [`Spawner`](super::Spawner) and all sandboxes must be started afterwards.
pub fn establish() -> Situation {
    found_by(enter_user_namespace)
}

/// The same for one who starts containers: where they are in a user namespace, it is that of the user's other containers, which meet in `run_dir`. What is returned beside it is to be held as long as
/// this process lives.
pub fn establish_among(run_dir: &Path) -> (Situation, Option<Member>) {
    let mut member = None;
    let situation = found_by(|| {
        let (map, found) = household::enter(run_dir)?;
        member = found;
        Ok(map)
    });
    (situation, member)
}

/// The same for one who looks at containers that run: from the user namespace that they are in, as a `/proc` with `hidepid` shows their processes to nobody else.
pub fn establish_beside(run_dir: &Path) -> Situation {
    found_by(|| household::visit(run_dir))
}

fn found_by(enter: impl FnOnce() -> Result<IdMap>) -> Situation {
    *SITUATION.get_or_init(|| {
        let found = become_root(enter);
        if matches!(found, Situation::Chroot | Situation::Bare) {
            obstacle();
        }
        found
    })
}

fn become_root(enter: impl FnOnce() -> Result<IdMap>) -> Situation {
    if privilege::is_root() {
        shares_processes();
        return Situation::Root;
    }
    // There is no way back out of a namespace that proves to be of no use. Root by name has another way of running a step, so it looks first.
    if rustix::process::geteuid().is_root() && !trial() {
        return if can_chroot() { Situation::Chroot } else { Situation::Bare };
    }
    match enter() {
        Ok(map) => {
            shares_processes();
            Situation::UserNamespace(map)
        }
        Err(_) => {
            owner::stand_in_for_root();
            Situation::Bare
        }
    }
}

/// Whether the root file system of a sandbox can be mounted by this process; otherwise it has to be a directory with all files in it.
pub fn can_mount_roots() -> bool {
    privilege::may_mount()
}

/// Whether a process can be given another root directory, and all that goes with it: users, owners of files, devices.
pub fn can_chroot() -> bool {
    rustix::process::geteuid().is_root() && missing_capabilities().next().is_none()
}

/// The names of the capabilities that [`can_chroot`] wants and this process has not.
pub fn missing_capabilities() -> impl Iterator<Item = &'static str> {
    let users = CapabilitySet::SETUID | CapabilitySet::SETGID | CapabilitySet::CHOWN;
    let files = CapabilitySet::SYS_CHROOT | CapabilitySet::MKNOD | CapabilitySet::FOWNER | CapabilitySet::DAC_OVERRIDE;
    let wanted = users | files;
    Capabilities::from_bits((wanted - privilege::effective()).bits()).names()
}

/// Whether sandboxes share the processes of their surroundings: in a user namespace the kernel mounts a new `/proc` only where the one that is there shows everything, and a PID
/// namespace without its own `/proc` misleads programs. Asked at first while there is one thread, it is tried out; the answer is kept.
pub fn shares_processes() -> bool {
    static SHARES: OnceLock<bool> = OnceLock::new();
    let find_out = || {
        let visible = || std::fs::read_to_string("/proc/self/mountinfo").is_ok_and(|mounts| shows_everything(&mounts));
        privilege::may_mount() && !privilege::in_initial_user_namespace() && !visible() && !mounts_proc()
    };
    *SHARES.get_or_init(find_out)
}

/// Whether nothing of `/proc` is covered or read-only, by the text of `/proc/self/mountinfo`. (Others in the tree, and empty directories that are covered, are not looked at: then it is tried.)
fn shows_everything(mountinfo: &str) -> bool {
    let mut mounts = mountinfo.lines().filter_map(|line| {
        let mut fields = line.split(' ');
        Some((fields.nth(4)?, fields.next()?))
    });
    let is_empty_place = |path: &str| path == "/proc/sys/fs/binfmt_misc";
    mounts.all(|(path, options)| match path.strip_prefix("/proc") {
        Some("") => options.split(',').any(|option| option == "rw"),
        Some(rest) if rest.starts_with('/') => is_empty_place(path),
        _ => true,
    })
}

/// Mounts a new `/proc` nowhere, in a process that ends.
fn mounts_proc() -> bool {
    let flags = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    match clone_process((libc::CLONE_NEWPID | libc::CLONE_NEWNS) as u64, None) {
        Ok(Cloned::Child) => exit_now(i32::from(new_filesystem("proc", &[], flags).is_err())),
        Ok(Cloned::Parent { pid, .. }) => reap(pid).is_ok_and(|ended| ended.status == Ok(0)),
        Err(_) => false,
    }
}

/// Makes a user namespace and tries to mount there, in a process that ends; says whether that went well.
fn trial() -> bool {
    let try_out = || {
        let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
        enter_user_namespace().is_ok() && rustix::mount::mount_change("/", private).is_ok()
    };
    match clone_process(0, None) {
        Ok(Cloned::Child) => exit_now(i32::from(!try_out())),
        Ok(Cloned::Parent { pid, .. }) => reap(pid).is_ok_and(|ended| ended.status == Ok(0)),
        Err(_) => false,
    }
}

/// What keeps this process, which has no namespaces, from having some. Found out by [`establish`], while there is one thread.
pub fn obstacle() -> Obstacle {
    static OBSTACLE: OnceLock<Obstacle> = OnceLock::new();
    OBSTACLE.get_or_init(find_obstacle).clone()
}

fn find_obstacle() -> Obstacle {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default().trim().trim_end_matches('\0').to_owned();
    let because = |reason: &str, fix: &str| Obstacle { reason: reason.to_owned(), fix: fix.to_owned() };
    if read("/proc/sys/user/max_user_namespaces") == "0" {
        return because("the number of user namespaces is limited to 0", "sysctl -w user.max_user_namespaces=15000");
    }
    if read("/proc/sys/kernel/unprivileged_userns_clone") == "0" {
        return because("only root may make user namespaces", "sysctl -w kernel.unprivileged_userns_clone=1");
    }
    if read("/proc/sys/kernel/apparmor_restrict_unprivileged_userns") == "1" {
        let fix = "sysctl -w kernel.apparmor_restrict_unprivileged_userns=0";
        return because("AppArmor keeps programs without a profile from using user namespaces", fix);
    }
    let is_root = rustix::process::geteuid().is_root();
    if is_root && !privilege::effective().contains(CapabilitySet::SETFCAP) && rustix::process::getuid().is_root() && user_namespaces_open()
    {
        return because(
            "root without CAP_SETFCAP cannot be root of a user namespace",
            "run as another user (docker run --user 1000), or give --cap-add SETFCAP",
        );
    }
    let profile = read("/proc/self/attr/current");
    if profile.ends_with("(enforce)") && user_namespaces_open() {
        let reason = format!("the AppArmor profile `{profile}` of the container around this forbids mounts");
        return Obstacle {
            reason,
            fix: "docker run --security-opt apparmor=unconfined, in Kubernetes appArmorProfile: {type: Unconfined}".to_owned(),
        };
    }
    if read("/proc/self/status").lines().any(|line| line.starts_with("Seccomp:") && line.trim_end().ends_with('2')) {
        let fix = match is_root {
            true => "docker run --security-opt seccomp=unconfined, in Kubernetes seccompProfile: {type: Unconfined}",
            false => {
                "docker run --security-opt seccomp=unconfined, in Kubernetes seccompProfile: {type: Unconfined}; or run as root, for RUN steps by chroot"
            }
        };
        return because("the system call filter of the container around this forbids user namespaces", fix);
    }
    because(
        "the kernel, or a container around this, refuses user namespaces",
        "give the surrounding container CAP_SYS_ADMIN and a filter that allows unshare and mount, such as `--privileged`",
    )
}

/// Whether a user namespace can be made at all, whatever it is good for.
fn user_namespaces_open() -> bool {
    match clone_process(libc::CLONE_NEWUSER as u64, None) {
        Ok(Cloned::Child) => exit_now(0),
        Ok(Cloned::Parent { pid, .. }) => reap(pid).is_ok(),
        Err(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_covered_part_of_proc_is_seen() {
        let line = |path: &str, options: &str| format!("30 25 0:22 / {path} {options},nosuid - proc proc rw\n");
        let plain = line("/", "rw") + &line("/proc", "rw") + &line("/proc/sys/fs/binfmt_misc", "rw") + &line("/process", "ro");
        assert!(shows_everything(&plain));
        for more in [line("/proc/kcore", "rw"), line("/proc/sys", "ro")] {
            assert!(!shows_everything(&(plain.clone() + &more)), "{more}");
        }
        assert!(!shows_everything(&line("/proc", "ro")));
    }
}
