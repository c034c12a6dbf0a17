//! The kernel: its age, namespaces, overlayfs, filters, and programs of other machines.

use rustix::fs::CWD;
use rustix::mount::{MountFlags, MountPropagationFlags};

use super::{Finding, read};
use crate::sys::process::{Cloned, clone_process, exit_now, reap, unshare};

/// What a trial ends with, beside 0.
const NO_NAMESPACES: i32 = 1;
const NO_OVERLAY: i32 = 2;

pub(super) fn findings(rootless: bool) -> Vec<Finding> {
    let mut all = vec![version()];
    let trial = try_out(rootless);
    all.push(match trial {
        NO_NAMESPACES => no_namespaces(rootless),
        _ => Finding::ok("namespaces", if rootless { "can be made, in a user namespace" } else { "can be made" }),
    });
    match trial {
        0 => all.push(Finding::ok("overlayfs", if rootless { "can be mounted in a user namespace" } else { "can be mounted" })),
        NO_OVERLAY if rootless => {
            let found = "the kernel refuses to mount it in a user namespace: the files of each root file system are copied";
            all.push(Finding::warn("overlayfs", found, "boot Linux 5.11 or newer, or run as root"));
        }
        NO_OVERLAY => {
            let found = "the kernel refuses to mount it: the files of each root file system are copied";
            all.push(Finding::warn("overlayfs", found, "modprobe overlay"));
        }
        _ => {}
    }
    all.push(seccomp());
    all.push(hashing());
    all.push(foreign_programs());
    all
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

/// Makes namespaces and mounts an overlay in a process that ends with them.
fn try_out(rootless: bool) -> i32 {
    match clone_process(0, None) {
        Ok(Cloned::Child) => exit_now(trial(rootless)),
        Ok(Cloned::Parent { pid, .. }) => reap(pid).ok().and_then(|reaped| reaped.status.ok()).map_or(NO_NAMESPACES, i32::from),
        Err(_) => NO_NAMESPACES,
    }
}

fn trial(rootless: bool) -> i32 {
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    let user = if rootless { libc::CLONE_NEWUSER } else { 0 };
    let all = libc::CLONE_NEWNS | libc::CLONE_NEWPID | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS | libc::CLONE_NEWNET;
    if unshare(user | all).is_err() {
        return NO_NAMESPACES;
    }
    if rootless {
        let maps = [("setgroups", "deny".to_owned()), ("gid_map", format!("0 {gid} 1")), ("uid_map", format!("0 {uid} 1"))];
        if maps.into_iter().any(|(file, text)| std::fs::write(format!("/proc/self/{file}"), text).is_err()) {
            return NO_NAMESPACES;
        }
    }
    if rustix::mount::mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).is_err() {
        return NO_NAMESPACES;
    }
    if overlay(rootless).is_ok() { 0 } else { NO_OVERLAY }
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

fn no_namespaces(rootless: bool) -> Finding {
    let found = |why: &str| format!("cannot be made: {why}");
    if read("/proc/sys/user/max_user_namespaces") == "0" && rootless {
        let why = found("the number of user namespaces is limited to 0");
        return Finding::missing("namespaces", why, "sysctl -w user.max_user_namespaces=15000");
    }
    if read("/proc/sys/kernel/unprivileged_userns_clone") == "0" && rootless {
        return Finding::missing("namespaces", found("only root may make user namespaces"), "sysctl -w kernel.unprivileged_userns_clone=1");
    }
    if read("/proc/sys/kernel/apparmor_restrict_unprivileged_userns") == "1" && rootless {
        let why = found("AppArmor keeps programs without a profile from using user namespaces");
        return Finding::missing("namespaces", why, "sysctl -w kernel.apparmor_restrict_unprivileged_userns=0");
    }
    let fix = "give the surrounding container CAP_SYS_ADMIN and a filter that allows unshare and mount, such as `--privileged`";
    Finding::missing("namespaces", found("the kernel, or a container around this, refuses"), fix)
}

fn seccomp() -> Finding {
    if read("/proc/sys/kernel/seccomp/actions_avail").split(' ').any(|action| action == "errno") {
        return Finding::ok("seccomp", "system calls can be filtered");
    }
    let fix = "boot a kernel with CONFIG_SECCOMP_FILTER, or run with --security-opt seccomp=unconfined";
    Finding::missing("seccomp", "this kernel filters no system calls", fix)
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
