//! The root of a container by way of `fuse-overlayfs`, where the kernel mounts no overlay for this process.
//!
//! The mount is made here, by descriptor and attached to nothing, and the program only gets the device that answers for it (`/dev/fd/0`, which libfuse takes in place of a mount point). So it
//! needs no right to mount, and is confined: it reads layers that anybody may have written. It has namespaces of its own without a network, a root with nothing but programs,
//! libraries, the layers and the directory for changes, few capabilities, and a system call filter.
//!
//! What a container makes it take is limited as the container is, in a control group beside that of the container: in the same one it could be paused or killed while somebody waits for it.
//!
//! It is nobody's to end once there is a container: the kernel tells it when nothing uses the mount any more, and it ends when it has written everything. So nothing is lost when whoever started it is killed, and nothing is
//! left behind.

use std::convert::Infallible;
use std::ffi::OsString;
use std::fs::File;
use std::io::{Read, Seek};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{MemfdFlags, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{MountAttrFlags, MountPropagationFlags};

use super::capabilities::Capabilities;
use super::cgroup::Cgroup;
use super::error::Failure;
use super::init;
use super::launch::clone_into;
use super::mounts::{Change, attach, change_and_attach, clone_host_mount, mount_new, new_filesystem};
use super::rootfs::{Detached, attach_root, pivot};
use super::seccomp::default_rules;
use super::spec::{CgroupSpec, Privileges, ProcessSpec, SandboxSpec, Seccomp};
use crate::path::RootPath;
use crate::sys::mount_attr::{MOUNT_ATTR_NODEV, MOUNT_ATTR_NOSUID, MOUNT_ATTR_RDONLY};
use crate::sys::process::{Cloned, exit_now, reap, reset_signals, signal_pidfd};
use crate::sys::{Links, OverlayUpper, RootDir, RootfsMount, privilege};

/// What a program and its libraries may be in, on the systems that there are.
const PROGRAMS: [&str; 9] = ["/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/nix", "/gnu"];

/// Where things are in the root of the program.
const PROGRAM: &str = "/fuse-overlayfs";
const LAYERS: &str = "/layers";
const CHANGES: &str = "/changes";

/// What it may do: have files of any owner and mode.
const MAY: [&str; 6] = ["CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "MKNOD", "SETFCAP"];

/// The most of its words that an error repeats, in bytes.
const MAX_WORDS: usize = 400;

/// How long the program may take to write what is left, when nothing uses its mount any more.
const PATIENCE: Timespec = Timespec { tv_sec: 60, tv_nsec: 0 };

/// The layers of a root that the program shows as one.
struct Layers<'a> {
    program: &'a Path,
    lower: &'a [PathBuf],
    changes: &'a OverlayUpper,
    /// Whether nothing waits in the kernel to be written.
    direct: bool,
}

/// The program at work, which ends with it unless it is waited for or left.
#[derive(Debug)]
pub(super) struct Server {
    pid: u32,
    pidfd: OwnedFd,
    ended: bool,
    /// Removed after its end.
    _cgroup: Option<Cgroup>,
}

/// The root of `rootfs`, mounted nowhere, and the program behind it, with the `limits` of its container. `direct` is for whoever cannot wait for [`Server::wait`]. This process has one thread, and is
/// root of its mount namespace.
pub(super) fn serve(rootfs: &RootfsMount, direct: bool, limits: Option<&CgroupSpec>) -> Result<(OwnedFd, Server), Failure> {
    let RootfsMount::Fuse { program, lower, changes } = rootfs else { return Err(Failure::Invalid { spec: true }) };
    let layers = Layers { program, lower, changes, direct };
    let device =
        rustix::fs::open("/dev/fuse", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).map_err(Failure::step("open", "/dev/fuse"))?;
    let number = device.as_raw_fd().to_string();
    let options = [
        ("source", Some("fuse-overlayfs")),
        ("fd", Some(number.as_str())),
        ("rootmode", Some("40000")),
        ("user_id", Some("0")),
        ("group_id", Some("0")),
        // Users of the container are none of the program's, and the kernel judges their rights.
        ("allow_other", None),
        ("default_permissions", None),
    ];
    let shown = changes.upper.display();
    let mount = new_filesystem("fuse", &options, MountAttrFlags::empty()).map_err(Failure::step("mount fuse-overlayfs on", &shown))?;
    let words = rustix::fs::memfd_create("words", MemfdFlags::CLOEXEC).map_err(Failure::step("make", "a file in memory"))?;
    let namespaces =
        libc::CLONE_NEWNS | libc::CLONE_NEWNET | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS | libc::CLONE_NEWPID | libc::CLONE_NEWCGROUP;
    // A group of its own, by a name that whoever comes later knows as left.
    let limits = limits.map(|spec| CgroupSpec { name: None, pids: None, oom_kill_disable: false, ..spec.clone() });
    let mut cgroup = match limits.filter(CgroupSpec::is_wanted) {
        Some(limits) => Cgroup::prepare(Some(&limits), false, None)?,
        None => None,
    };
    let server = match clone_into(namespaces as u64, cgroup.as_mut())? {
        Cloned::Parent { pid, pidfd } => Server { pid, pidfd, ended: false, _cgroup: cgroup },
        Cloned::Child => {
            drop(mount);
            let joined = cgroup.as_ref().map_or(Ok(()), Cgroup::join);
            let Err(failure) = joined.and_then(|()| layers.become_program(device, &words));
            let error = super::Error::from(failure);
            let reason = std::error::Error::source(&error).map_or_else(String::new, |source| format!(": {source}"));
            let _ = rustix::io::write(&words, format!("{error}{reason}").as_bytes());
            exit_now(125)
        }
    };
    // The program has the only one: when it ends, the kernel knows.
    drop(device);
    // Waits until it answers.
    match rustix::fs::statat(&mount, "", rustix::fs::AtFlags::EMPTY_PATH) {
        Ok(_) => Ok((mount, server)),
        Err(errno) => Err(Failure::Step {
            step: format!("have fuse-overlayfs ({}) show the layers of", said(words)),
            path: shown.to_string(),
            errno: errno.raw_os_error(),
        }),
    }
}

/// What the program has said, as one line.
fn said(words: OwnedFd) -> String {
    let mut file = File::from(words);
    let mut text = Vec::new();
    let _ = file.rewind().and_then(|()| file.take(MAX_WORDS as u64).read_to_end(&mut text));
    let text = String::from_utf8_lossy(&text);
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if line.is_empty() { "which said nothing".to_owned() } else { line }
}

impl Server {
    /// Waits until the program has written everything and ended, which it does when nothing uses the mount any more. Where somebody goes on to hold it (by a namespace of this sandbox), not for ever.
    pub(super) fn wait(mut self) {
        loop {
            match poll(&mut [PollFd::new(&self.pidfd, PollFlags::IN)], Some(&PATIENCE)) {
                Err(Errno::INTR) => {}
                Ok(ready) if ready > 0 => {
                    let _ = reap(self.pid);
                    self.ended = true;
                    break;
                }
                _ => return self.leave(),
            }
        }
    }

    /// Leaves it to the kernel.
    pub(super) fn leave(self) {
        std::mem::forget(self);
    }
}

impl Drop for Server {
    /// There is no container, then: what uses the mount finds nothing there any more.
    fn drop(&mut self) {
        if !self.ended {
            let _ = signal_pidfd(self.pidfd.as_fd(), libc::SIGKILL);
            let _ = reap(self.pid);
        }
    }
}

impl Layers<'_> {
    fn become_program(&self, device: OwnedFd, words: &OwnedFd) -> Result<Infallible, Failure> {
        let _ = rustix::process::setsid();
        reset_signals().map_err(Failure::step("reset", "signals"))?;
        let fail = || Failure::step::<Errno>("give streams to", self.program.display());
        rustix::stdio::dup2_stdin(&device).map_err(fail())?;
        rustix::stdio::dup2_stdout(words).map_err(fail())?;
        rustix::stdio::dup2_stderr(words).map_err(fail())?;
        let options = self.enter()?;
        let args: [OsString; 5] = [PROGRAM.into(), "-f".into(), "-o".into(), options.into(), "/dev/fd/0".into()];
        let mut process = ProcessSpec::new(args.into(), Vec::new());
        process.no_new_privileges = true;
        process.umask = 0;
        let mut spec = SandboxSpec::new(RootfsMount::Bind { source: PathBuf::from("/"), read_only: true }, process);
        let may = MAY.iter().filter_map(|name| Capabilities::named(name)).fold(Capabilities::NONE, Capabilities::union);
        // Root's marks of layers can be read with it alone.
        let trusted = if privilege::in_initial_user_namespace() { Capabilities::SYS_ADMIN } else { Capabilities::NONE };
        spec.privileges = Privileges::Default { add: trusted, drop: Capabilities::DEFAULT.without(may) };
        // Which opens no system call: it is not to mount anything, nor to leave its namespaces.
        spec.seccomp = Seccomp::Rules(Box::new(default_rules(may)));
        init::become_server(&spec)
    }

    /// Makes the root of the program this process's own; gives its options.
    fn enter(&self) -> Result<String, Failure> {
        let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
        rustix::mount::mount_change("/", private).map_err(Failure::step("make private", "/"))?;
        let source =
            |path: &Path, recursive: bool| clone_host_mount(path, recursive).map_err(Failure::step("open the directory", path.display()));
        let programs = PROGRAMS.map(Path::new).into_iter().filter(|path| path.is_dir());
        let mut places: Vec<(String, OwnedFd)> = Vec::new();
        for path in programs {
            places.push((path.display().to_string(), source(path, true)?));
        }
        places.push((PROGRAM.to_owned(), source(self.program, false)?));
        for (number, path) in self.lower.iter().enumerate() {
            places.push((format!("{LAYERS}/{number}"), source(path, false)?));
        }
        // Both have to be on one mount.
        let above = self.changes.upper.parent().filter(|above| self.changes.work.parent() == Some(above));
        let changes = source(above.ok_or(Failure::Invalid { spec: true })?, false)?;
        let proc = clone_host_mount(Path::new("/proc"), true).map_err(Failure::step("open the directory", "/proc"))?;

        let fail = || Failure::step("mount the root of", self.program.display());
        let memory = new_filesystem("tmpfs", &[("mode", Some("755"))], MountAttrFlags::MOUNT_ATTR_NODEV).map_err(fail())?;
        let root = attach_root(Detached { mount: memory, change: Change::default() })?;
        let sealed = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV;
        for (path, mount) in &places {
            place(&root, path, mount, sealed)?;
        }
        place(&root, CHANGES, &changes, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV)?;
        make_directory(&root, "/proc")?;
        let guarded = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV | MountAttrFlags::MOUNT_ATTR_NOEXEC;
        // The kernel's parameters are root's to write, which this is.
        let guarded = guarded | MountAttrFlags::MOUNT_ATTR_RDONLY;
        if mount_new(&root, &RootPath::new("/proc"), "proc", &[], guarded).is_err() {
            // Parts of it are covered, so the kernel mounts no other.
            place(&root, "/proc", &proc, sealed)?;
        }
        pivot(&root)?;
        let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let lower: Vec<String> = (0..self.lower.len()).map(|number| format!("{LAYERS}/{number}")).collect();
        let (upper, work) = (name(&self.changes.upper), name(&self.changes.work));
        let writeback = u8::from(!self.direct);
        Ok(format!("lowerdir={},upperdir={CHANGES}/{upper},workdir={CHANGES}/{work},writeback={writeback}", lower.join(":")))
    }
}

/// Mounts a directory or file at a place of the root that is made for it.
fn place(root: &RootDir, path: &str, mount: &OwnedFd, set: u64) -> Result<(), Failure> {
    let fail = || Failure::step::<std::io::Error>("mount", path);
    let kind = rustix::fs::fstat(mount).map_err(|errno| fail()(errno.into()))?.st_mode & libc::S_IFMT;
    let relative = RootPath::new(path);
    if kind == libc::S_IFDIR {
        make_directory(root, path)?;
    } else {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::CLOEXEC;
        root.open_at(relative.relative(), flags, Mode::RUSR, Links::Refuse).map_err(fail())?;
    }
    let target = root.open_at(relative.relative(), OFlags::PATH, Mode::empty(), Links::Refuse).map_err(fail())?;
    let change = Change { set, propagation: libc::MS_PRIVATE, recursive: true, top: 0 };
    change_and_attach(mount.as_fd(), change, || attach(mount.as_fd(), target.as_fd())).map_err(fail())
}

fn make_directory(root: &RootDir, path: &str) -> Result<(), Failure> {
    let mut at = RootPath::root();
    for part in RootPath::new(path).components() {
        at = at.join(part);
        match rustix::fs::mkdirat(root, at.relative(), Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(Failure::step("make", path)(errno)),
        }
    }
    Ok(())
}
