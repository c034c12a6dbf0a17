//! The kernel: its age, namespaces, overlayfs, filters, and programs of other machines.

use rustix::fs::CWD;
use rustix::mount::{MountFlags, MountPropagationFlags};

use super::{Finding, read};
use crate::runtime::apparmor::{self, DEFAULT_PROFILE, Found};
use crate::runtime::{IdMap, Obstacle, Situation, establish, obstacle};
use crate::sys::process::{Cloned, clone_process, exit_now, reap, unshare};

pub(super) fn findings(situation: Situation, shares_processes: bool) -> Vec<Finding> {
    let mut all = vec![version(), level(situation)];
    if shares_processes {
        let fix = "docker run --security-opt systempaths=unconfined, in Kubernetes procMount: Unmasked";
        let found = "sandboxes see those around them and each other's, as parts of this /proc are covered and the kernel mounts no new one";
        all.push(Finding::warn("processes", found, fix));
    }
    all.extend(overlays(situation));
    all.push(seccomp());
    all.extend(apparmor());
    all.push(hashing());
    all.push(foreign_programs());
    all
}

/// What steps and containers can be kept apart by.
fn level(situation: Situation) -> Finding {
    let name = "namespaces";
    let Obstacle { reason, fix } = match situation {
        Situation::Root => return Finding::ok(name, "can be made, as root"),
        Situation::UserNamespace(IdMap::All) => return Finding::ok(name, "can be made, in a user namespace with all ids"),
        Situation::UserNamespace(IdMap::Ranges { .. }) => {
            return Finding::ok(name, "can be made, in a user namespace with subordinate ids");
        }
        Situation::UserNamespace(IdMap::Single) => return Finding::ok(name, "can be made, in a user namespace with one id"),
        Situation::Chroot | Situation::Bare => obstacle(),
    };
    if situation == Situation::Chroot {
        return Finding::warn(
            name,
            format!("cannot be made: {reason}; so RUN steps run by chroot alone, and containers only with `run --rm`"),
            fix,
        );
    }
    let found = format!("cannot be made: {reason}; so there are no RUN steps and no containers, and all else works");
    Finding::missing(name, found, fix)
}

fn overlays(situation: Situation) -> Option<Finding> {
    let rootless = match situation {
        Situation::Root => false,
        Situation::UserNamespace(_) => true,
        Situation::Chroot | Situation::Bare => return None,
    };
    Some(match (try_out(rootless), rootless) {
        (true, true) => Finding::ok("overlayfs", "can be mounted in a user namespace"),
        (true, false) => Finding::ok("overlayfs", "can be mounted"),
        (false, true) => Finding::warn(
            "overlayfs",
            "the kernel refuses to mount it in a user namespace, so root file systems are copied",
            "boot Linux 5.11 or newer, or run as root",
        ),
        (false, false) => Finding::warn("overlayfs", "the kernel refuses to mount it, so root file systems are copied", "modprobe overlay"),
    })
}

fn version() -> Finding {
    let uname = rustix::system::uname();
    let release = uname.release().to_string_lossy().into_owned();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|number| number.parse::<u32>().unwrap_or(0));
    match (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) {
        version if version < (5, 6) => {
            Finding::missing("kernel", format!("Linux {release}; 5.6 is the oldest that works"), "boot a newer kernel")
        }
        version if version < (5, 12) => Finding::warn(
            "kernel",
            format!("Linux {release}; read-only mounts do not reach into mounts below them"),
            "boot Linux 5.12 or newer",
        ),
        _ => Finding::ok("kernel", format!("Linux {release}")),
    }
}

/// Mounts an overlay in a process that ends with it, and says whether that went well.
fn try_out(rootless: bool) -> bool {
    match clone_process(0, None) {
        Ok(Cloned::Child) => exit_now(i32::from(!trial(rootless))),
        Ok(Cloned::Parent { pid, .. }) => reap(pid).is_ok_and(|ended| ended.status == Ok(0)),
        Err(_) => false,
    }
}

fn trial(rootless: bool) -> bool {
    establish();
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    unshare(libc::CLONE_NEWNS).is_ok() && rustix::mount::mount_change("/", private).is_ok() && overlay(rootless).is_ok()
}

/// Mounts an overlay on a file system in memory that only this process sees.
fn overlay(rootless: bool) -> rustix::io::Result<()> {
    rustix::mount::mount("tmpfs", "/tmp", "tmpfs", MountFlags::empty(), None)?;
    for name in ["/tmp/lower", "/tmp/upper", "/tmp/work", "/tmp/merged"] {
        rustix::fs::mkdirat(CWD, name, rustix::fs::Mode::from_raw_mode(0o755))?;
    }
    let upper = c"lowerdir=/tmp/lower,upperdir=/tmp/upper,workdir=/tmp/work";
    // Before Linux 6.6 a file system in memory has no attributes for users, which such overlays want; without a writable layer none are needed.
    let with_user = c"lowerdir=/tmp/lower,upperdir=/tmp/upper,workdir=/tmp/work,userxattr";
    let read_only = c"lowerdir=/tmp/lower:/tmp/upper,userxattr";
    let mount = |options: &std::ffi::CStr| rustix::mount::mount("overlay", "/tmp/merged", "overlay", MountFlags::empty(), options);
    if rootless { mount(with_user).or_else(|_| mount(read_only)) } else { mount(upper) }
}

fn seccomp() -> Finding {
    if read("/proc/sys/kernel/seccomp/actions_avail").split(' ').any(|action| action == "errno") {
        return Finding::ok("seccomp", "system calls can be filtered");
    }
    let fix = "boot a kernel with CONFIG_SECCOMP_FILTER, or run with --security-opt seccomp=unconfined";
    Finding::missing("seccomp", "this kernel filters no system calls", fix)
}

/// Nothing where there is none: few kernels have it, and nothing needs it.
fn apparmor() -> Option<Finding> {
    let name = "apparmor";
    Some(match apparmor::look() {
        Found::Absent => return None,
        Found::Loaded => Finding::ok(name, format!("containers and steps are in the profile `{DEFAULT_PROFILE}`")),
        Found::Unknown => Finding::ok(name, format!("containers and steps are in the profile `{DEFAULT_PROFILE}` if root has loaded it")),
        Found::Surrounded(profile) => Finding::ok(name, format!("containers and steps are in the profile `{profile}`, as this process is")),
        Found::Missing(Some(_)) => {
            Finding::ok(name, format!("the profile `{DEFAULT_PROFILE}` is loaded when root first starts a container or step"))
        }
        Found::Missing(None) => Finding::warn(
            name,
            format!("containers and steps are in no profile: nothing here can load `{DEFAULT_PROFILE}`"),
            "apt-get install apparmor",
        ),
    })
}

fn hashing() -> Finding {
    let text = read("/proc/cpuinfo");
    let flags = text.lines().find_map(|line| line.strip_prefix("flags").or_else(|| line.strip_prefix("Features"))).unwrap_or("");
    if flags.split_ascii_whitespace().any(|flag| ["sha_ni", "sha2"].contains(&flag)) {
        return Finding::ok("sha instructions", "digests are computed by the processor");
    }
    Finding::warn(
        "sha instructions",
        "digests take several times as long without them",
        "use a processor, or a virtual machine, that has them",
    )
}

fn foreign_programs() -> Finding {
    let directory = "/proc/sys/fs/binfmt_misc";
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let mut machines: Vec<String> = names
        .filter_map(|name| Some((name.strip_prefix("qemu-")?.to_owned(), read(&format!("{directory}/{name}")))))
        // Without the flag F the interpreter would have to be in each image.
        .filter(|(_, text)| text.starts_with("enabled") && text.lines().any(|line| line.starts_with("flags:") && line.contains('F')))
        .map(|(machine, _)| machine)
        .collect();
    machines.sort();
    if machines.is_empty() {
        let found = "programs of other processors cannot be run, so only images of this one's platform";
        return Finding::warn("other platforms", found, "apt-get install qemu-user-static binfmt-support");
    }
    Finding::ok("other platforms", machines.join(", "))
}
