//! The root of a sandbox: mounts it and makes it the process's root.
//!
//! Layers are named to overlayfs by descriptor wherever their paths could need escaping or be too long, so there is no escaping. Where the kernel has no
//! `lowerdir+` (before 6.7) or no room for all layers, they are named by descriptor numbers relative to `/proc/self/fd`: 3 or 4 bytes per layer of the page
//! that `mount(2)` has for options. The root is mounted over `/` of the private mount namespace and then exchanged with it: no directory of the host is needed.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MoveMountFlags, UnmountFlags, fsconfig_create, fsconfig_set_flag,
    fsconfig_set_string, fsmount, fsopen, move_mount, unmount,
};

use super::error::{Failure, MAP_OWNERS};
use super::fuse;
use super::mounts::{Change, change_and_attach, clone_host_mount, descriptor_path};
use super::spec::CgroupSpec;
use super::users::UserNamespace;
use crate::sys::mount_attr::{MOUNT_ATTR_NODEV, MOUNT_ATTR_RDONLY};
use crate::sys::{OverlayUpper, RootDir, RootfsMount};

/// How the root is mounted.
#[derive(Clone, Copy, Debug)]
pub(super) struct RootOptions<'a> {
    pub(super) read_only: bool,
    pub(super) volatile: bool,
    /// Whether device nodes on it work.
    pub(super) devices: bool,
    /// The user namespace whose users own the files, where that is not this process's own. This process is alone in its mount namespace then, where nothing is shared.
    pub(super) users: Option<&'a UserNamespace>,
    /// The limits of whom it is for, where a program shows it.
    pub(super) limits: Option<&'a CgroupSpec>,
}

/// Options that overlayfs always gets, so that a layer means the same whatever this kernel's defaults are.
const OVERLAY_FEATURES: [(&str, &str); 4] = [("redirect_dir", "off"), ("metacopy", "off"), ("index", "off"), ("xino", "off")];

/// The longest value that `fsconfig(2)` takes, without its NUL.
const MAX_VALUE: usize = 255;

/// A mount that is attached to nothing, and what is still to be changed of it.
pub(super) struct Detached {
    pub(super) mount: OwnedFd,
    pub(super) change: Change,
}

/// Mounts `rootfs`, attached to nothing.
pub(super) fn mount_detached(rootfs: &RootfsMount, options: RootOptions<'_>) -> Result<Detached, Failure> {
    match rootfs {
        RootfsMount::Bind { source, read_only } => bind(source, RootOptions { read_only: options.read_only || *read_only, ..options }),
        // Overlayfs wants two layers where none is writable; one alone is its own image.
        RootfsMount::Overlay { lower, upper: None, .. } if lower.len() == 1 => bind(&lower[0], RootOptions { read_only: true, ..options }),
        RootfsMount::Overlay { lower, upper, userxattr } => {
            let overlay = Overlay { lower, upper: upper.as_ref(), userxattr: *userxattr, volatile: options.volatile };
            Ok(Detached { mount: overlay.mount(options)?, change: Change::default() })
        }
        // Files cannot be shown as those of other users here, and whoever mounts it is not the one who can wait.
        RootfsMount::Fuse { changes, .. } if options.users.is_some() => {
            Err(Failure::step(MAP_OWNERS, changes.upper.display())(Errno::NOTSUP))
        }
        RootfsMount::Fuse { .. } => {
            let (mount, server) = fuse::serve(rootfs, true, options.limits)?;
            server.leave();
            Ok(made_elsewhere(mount, options))
        }
    }
}

/// A root that another part has mounted, with what is to be changed of it.
pub(super) fn made_elsewhere(mount: OwnedFd, options: RootOptions<'_>) -> Detached {
    Detached { mount, change: Change { set: attributes(options), propagation: libc::MS_PRIVATE, recursive: false, top: 0 } }
}

fn bind(source: &Path, options: RootOptions<'_>) -> Result<Detached, Failure> {
    let mount = clone_host_mount(source, true).map_err(Failure::step("bind", source.display()))?;
    options.users.map_or(Ok(()), |users| users.map(mount.as_fd(), false)).map_err(Failure::step(MAP_OWNERS, source.display()))?;
    Ok(Detached { mount, change: Change { set: attributes(options), propagation: libc::MS_PRIVATE, recursive: true, top: 0 } })
}

fn attributes(options: RootOptions<'_>) -> u64 {
    let read_only = if options.read_only { MOUNT_ATTR_RDONLY } else { 0 };
    let nodev = if options.devices { 0 } else { MOUNT_ATTR_NODEV };
    read_only | nodev
}

/// A path as overlayfs is told it, with the descriptor that keeps the name valid.
struct Name {
    text: String,
    _fd: Option<OwnedFd>,
}

impl Name {
    fn new(path: &Path) -> io::Result<Name> {
        let plain = path.to_str().filter(|text| text.len() <= MAX_VALUE && !text.contains(['\\', ':', ',', '"']) && text.starts_with('/'));
        match plain {
            Some(text) => Ok(Name { text: text.to_owned(), _fd: None }),
            None => {
                let fd = open_directory(path)?;
                Ok(Name { text: descriptor_path(fd.as_fd()), _fd: Some(fd) })
            }
        }
    }
}

fn open_directory(path: &Path) -> io::Result<OwnedFd> {
    Ok(rustix::fs::openat(CWD, path.as_os_str().as_bytes(), OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
}

struct Overlay<'a> {
    lower: &'a [std::path::PathBuf],
    upper: Option<&'a OverlayUpper>,
    userxattr: bool,
    volatile: bool,
}

impl Overlay<'_> {
    fn mount(&self, options: RootOptions<'_>) -> Result<OwnedFd, Failure> {
        for path in self.lower.iter().chain(self.upper.iter().flat_map(|upper| [&upper.upper, &upper.work])) {
            // The kernel's own message would not say which of the layers is missing.
            if rustix::fs::access(path.as_os_str().as_bytes(), rustix::fs::Access::EXISTS) == Err(Errno::NOENT) {
                return Err(Failure::Step { step: "find the layer".into(), path: path.display().to_string(), errno: libc::ENOENT });
            }
        }
        if let Some(upper) = self.upper.filter(|_| self.volatile) {
            // The kernel leaves this when it mounts one, and mounts none again where it is: nobody has seen to it that the files are on the disk. Whoever asks for such a
            // mount a second time (a container with `--rm` that is restarted) has not lost them since, or would not start it.
            let _ = std::fs::remove_dir_all(upper.work.join("work/incompat"));
        }
        match self.mount_as_asked(options) {
            // The disk has failed to take something that nobody has asked about yet (overlayfs, "Volatile mount"): that is nothing to a mount that is synced.
            Err(Failure::Step { errno: libc::EIO, .. }) if self.volatile => Overlay { volatile: false, ..*self }.mount_as_asked(options),
            other => other,
        }
    }

    fn mount_as_asked(&self, options: RootOptions<'_>) -> Result<OwnedFd, Failure> {
        if let Some(users) = options.users {
            return self.mount_mapped(options, users);
        }
        match self.mount_by_steps(options) {
            Ok(mount) => Ok(mount),
            Err(first) => match self.mount_by_numbers(options) {
                Ok(mount) => Ok(mount),
                // What the newer interface said is the better reason, unless it only lacks an option.
                Err(second) => {
                    let reason = if first.raw_os_error() == Some(libc::EINVAL) { second } else { first };
                    Err(Failure::step("mount the overlay of", self.describe())(reason))
                }
            },
        }
    }

    /// With `userxattr` the kernel allows no redirects by itself, and takes saying so for a contradiction.
    fn features(&self) -> &'static [(&'static str, &'static str)] {
        if self.userxattr { &OVERLAY_FEATURES[1..] } else { &OVERLAY_FEATURES }
    }

    fn describe(&self) -> String {
        let first = self.upper.map(|upper| &upper.upper).or(self.lower.first());
        first.map_or_else(|| "no layers".to_owned(), |path| path.display().to_string())
    }

    /// Of layers that show their files as those of `users`; what is written to the layer above is written back as it would be without. So layers are the same whoever
    /// they belong to in a sandbox.
    fn mount_mapped(&self, options: RootOptions<'_>, users: &UserNamespace) -> Result<OwnedFd, Failure> {
        let mut parked = Parked::default();
        let mut mapped = |path: &Path| parked.add(path, users).map_err(Failure::step(MAP_OWNERS, path.display()));
        let lower = self.lower.iter().map(|path| mapped(path)).collect::<Result<Vec<_>, _>>()?;
        // Both have to be on one mount.
        let upper = match self.upper.map(|upper| (upper, upper.upper.parent(), upper.upper.file_name(), upper.work.file_name())) {
            Some((upper, Some(above), Some(name), Some(work))) if upper.work.parent() == Some(above) => {
                let above = mapped(above)?;
                Some(OverlayUpper { upper: above.join(name), work: above.join(work) })
            }
            Some((upper, ..)) => return Err(Failure::step("find the parent of", upper.upper.display())(Errno::INVAL)),
            None => None,
        };
        let overlay = Overlay { lower: &lower, upper: upper.as_ref(), userxattr: self.userxattr, volatile: self.volatile };
        let _root = users.write_as_root()?;
        overlay.mount_by_steps(options).map_err(Failure::step("mount the overlay of", self.describe()))
    }

    /// With one `lowerdir+` per layer.
    fn mount_by_steps(&self, options: RootOptions<'_>) -> io::Result<OwnedFd> {
        let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
        let mut names = Vec::new();
        let mut name = |path: &Path| -> io::Result<String> {
            let name = Name::new(path)?;
            let text = name.text.clone();
            names.push(name);
            Ok(text)
        };
        for path in self.lower {
            fsconfig_set_string(&context, "lowerdir+", name(path)?)?;
        }
        if let Some(upper) = self.upper {
            fsconfig_set_string(&context, "upperdir", name(&upper.upper)?)?;
            fsconfig_set_string(&context, "workdir", name(&upper.work)?)?;
        }
        for (key, value) in self.features() {
            fsconfig_set_string(&context, *key, *value)?;
        }
        if self.userxattr {
            fsconfig_set_flag(&context, "userxattr")?;
        }
        if self.volatile && self.upper.is_some() {
            fsconfig_set_flag(&context, "volatile")?;
        }
        fsconfig_create(&context)?;
        let attributes = MountAttrFlags::from_bits_retain(attributes(options) as u32);
        Ok(fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?)
    }

    /// With all layers in one option string, as numbers of descriptors in `/proc/self/fd`.
    fn mount_by_numbers(&self, options: RootOptions<'_>) -> io::Result<OwnedFd> {
        let lower: Vec<OwnedFd> = self.lower.iter().map(|path| open_directory(path)).collect::<io::Result<_>>()?;
        let upper =
            self.upper.map(|upper| Ok::<_, io::Error>((open_directory(&upper.upper)?, open_directory(&upper.work)?))).transpose()?;
        let numbers: Vec<String> = lower.iter().map(|fd| fd.as_raw_fd().to_string()).collect();
        let mut data = format!("lowerdir={}", numbers.join(":"));
        if let Some((upper, work)) = &upper {
            data.push_str(&format!(",upperdir={},workdir={}", upper.as_raw_fd(), work.as_raw_fd()));
        }
        for (key, value) in self.features() {
            data.push_str(&format!(",{key}={value}"));
        }
        if self.userxattr {
            data.push_str(",userxattr");
        }
        if self.volatile && self.upper.is_some() {
            data.push_str(",volatile");
        }
        // This process has its own mount namespace and working directory. `mount(2)` needs a place, and `/` is one that is always there.
        rustix::process::chdir("/proc/self/fd")?;
        let data = std::ffi::CString::new(data)?;
        let mut flags = MountFlags::empty();
        if options.read_only {
            flags |= MountFlags::RDONLY;
        }
        if !options.devices {
            flags |= MountFlags::NODEV;
        }
        rustix::mount::mount("overlay", "/", "overlay", flags, data.as_c_str())?;
        rustix::process::chdir("/")?;
        // `/` itself still means the covered directory; `/..` does not leave it either, but crosses into what is mounted over it.
        let mount = super::mounts::clone_mount(CWD, Path::new("/.."), false)?;
        unmount("/..", UnmountFlags::DETACH)?;
        Ok(mount)
    }
}

/// Mounts that show files as those of other users, where nobody looks: before Linux 6.15 overlayfs takes no layers that are mounted nowhere.
#[derive(Default)]
struct Parked(Vec<OwnedFd>);

/// Each covers the one before. This directory is everywhere, and unlike `/proc` and `/sys` nobody asks whether it is covered.
const PARKING: &str = "/dev";

impl Parked {
    /// Adds the directory at `path`, and gives the path that leads to it there.
    fn add(&mut self, path: &Path, users: &UserNamespace) -> io::Result<std::path::PathBuf> {
        let mount = clone_host_mount(path, false)?;
        users.map(mount.as_fd(), false)?;
        move_mount(&mount, "", CWD, PARKING, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
        let path = descriptor_path(mount.as_fd());
        self.0.push(mount);
        Ok(path.into())
    }
}

impl Drop for Parked {
    fn drop(&mut self) {
        for _ in &self.0 {
            // What is left goes with this process's mount namespace.
            let _ = unmount(PARKING, UnmountFlags::DETACH);
        }
    }
}

/// Mounts it where it can become the root, and opens it.
pub(super) fn attach_root(root: Detached) -> Result<RootDir, Failure> {
    let Detached { mount, change } = root;
    let attach = || Ok(move_mount(&mount, "", CWD, "/", MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?);
    let fail = || Failure::step("mount the root over", "/");
    if change == Change::default() {
        attach().map_err(fail())?
    } else {
        change_and_attach(mount.as_fd(), change, attach).map_err(fail())?
    }
    let path = descriptor_path(mount.as_fd());
    RootDir::open(Path::new(&path)).map_err(Failure::step("open", "the new root"))
}

/// Makes `root` the root directory and lets go of the host's.
pub(super) fn pivot(root: &RootDir) -> Result<(), Failure> {
    let fail = |step: &'static str| Failure::step::<Errno>(step, "the new root");
    rustix::process::fchdir(root).map_err(fail("enter"))?;
    // The old root lands on top of the new one, at the same place, and is taken off there (pivot_root(2), NOTES).
    rustix::process::pivot_root(".", ".").map_err(fail("change to"))?;
    unmount(".", UnmountFlags::DETACH).map_err(fail("detach the host's root from"))?;
    rustix::process::chdir("/").map_err(fail("enter"))
}
