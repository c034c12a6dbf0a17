//! A step where nothing can be mounted: a plain directory as its root, into which what would be mounted is put before, and taken out of afterwards.
//!
//! What has the place of a mount is put aside and comes back; directories that were made for one go, unless something is in them; and the times of directories are as if nothing
//! had happened, unless the command changed them. The files of a directory that is moved in (a cache) are moved back in any case. All of it is done by the [`warden`](super::warden),
//! before the command exists and after its last process has ended, so nobody changes the tree meanwhile; what the command left there is followed nowhere, since only
//! directories that were open before are used.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid};
use rustix::io::Errno;

use super::borrowed::Borrowed;
use super::devices;
use super::error::Failure;
use super::spec::{BindSource, DEFAULT_SHM_SIZE, Isolation, MountSpec, NetworkMode, Privileges, SandboxSpec, Seccomp};
use crate::path::RootPath;
use crate::sys::{Links, RootDir, RootfsMount, copy_content, descriptor_path, privilege};

/// A root that holds what a sandbox has mounted otherwise.
pub(super) struct Stage {
    root: RootDir,
    /// A directory beside the root, for what is put aside. It is there while something is.
    aside: PathBuf,
    places: Vec<Place>,
    /// Directories in which something was made or put aside, by device and inode.
    directories: BTreeMap<(u64, u64), Touched>,
}

/// Something that is in the root for as long as the command runs.
struct Place {
    parent: OwnedFd,
    name: OsString,
    content: Content,
    /// The name, in the directory for it, of what was there before.
    before: Option<String>,
}

enum Content {
    /// A directory on the way to a mount point, which goes if it is empty.
    Way,
    /// It goes, with all that is in it.
    Own,
    /// A directory that was moved from here, and goes back.
    Lent(PathBuf),
    /// A copy of what this machine has, to which changes go back.
    Borrowed(Borrowed),
}

/// A directory, and its times before and after what was done to it.
struct Touched {
    directory: OwnedFd,
    before: Timestamps,
    after: Option<(i64, i64)>,
}

/// What a sandbox without mounts cannot have, if the spec has it: the name of the thing.
pub(super) fn lacking(spec: &SandboxSpec) -> Option<String> {
    let Isolation::Chroot { lent } = &spec.isolation else { return None };
    let others = spec.mounts.iter().enumerate().filter(|(number, _)| !lent.contains(number));
    let mount = others.map(|(_, mount)| mount).find_map(|mount| match mount {
        MountSpec::Bind { source: BindSource::Path(source), .. } if holds(source, &spec.rootfs) => {
            Some(format!("`{}`, which has the store in it, on `{}`", source.display(), mount.target()))
        }
        MountSpec::Bind { source: BindSource::Path(_), .. } | MountSpec::Tmpfs { .. } => None,
        MountSpec::Overlay { rootfs: RootfsMount::Bind { .. }, .. } => None,
        other => Some(format!("the mount on `{}`", other.target())),
    });
    let settings = [
        (spec.network != NetworkMode::Host, "a network of its own"),
        (spec.privileges == Privileges::Insecure, "all privileges"),
        (spec.read_only_root, "a read-only root"),
        (!spec.devices.is_empty() || !spec.device_rules.is_empty(), "devices of the host"),
        (!spec.sysctls.is_empty(), "kernel parameters of its own"),
        (spec.shm_size != DEFAULT_SHM_SIZE, "a limit of /dev/shm"),
        (
            matches!(spec.seccomp, Seccomp::Rules(_)) && !spec.process.no_new_privileges && !privilege::may_mount(),
            "a profile for system calls",
        ),
        (!matches!(spec.rootfs, RootfsMount::Bind { read_only: false, .. }), "a root of layers"),
    ];
    mount.or_else(|| settings.into_iter().find(|(wanted, _)| *wanted).map(|(_, what)| what.to_owned()))
}

/// Whether a copy of `source` in the root would be a copy of itself.
fn holds(source: &Path, root: &RootfsMount) -> bool {
    matches!(root, RootfsMount::Bind { source: root, .. } if root.starts_with(source))
}

impl Stage {
    /// Puts everything into place. What was done is undone where something fails.
    pub(super) fn set_up(spec: &SandboxSpec) -> Result<Stage, Failure> {
        if let Some(what) = lacking(spec) {
            let reason = format!("{what} cannot be had by chroot alone");
            return Err(Failure::NoSandbox { reason, fix: super::situation::obstacle().fix });
        }
        let mut stage = Stage::of_running(spec)?;
        // Modes are as given.
        let mask = rustix::process::umask(Mode::empty());
        let filled = stage.fill(spec);
        rustix::process::umask(mask);
        match filled {
            Ok(()) => Ok(stage),
            Err(failure) => {
                let _ = stage.take_down();
                Err(failure)
            }
        }
    }

    /// The root of a sandbox that runs, for one more command in it: everything is in place, and stays.
    pub(super) fn of_running(spec: &SandboxSpec) -> Result<Stage, Failure> {
        let RootfsMount::Bind { source, .. } = &spec.rootfs else { return Err(Failure::Invalid { spec: true }) };
        let root = RootDir::open(source).map_err(Failure::step("open", source.display()))?;
        let mut aside = source.clone().into_os_string();
        aside.push(".aside");
        Ok(Stage { root, aside: aside.into(), places: Vec::new(), directories: BTreeMap::new() })
    }

    fn fill(&mut self, spec: &SandboxSpec) -> Result<(), Failure> {
        self.add_devices()?;
        let Isolation::Chroot { lent } = &spec.isolation else { return Err(Failure::Invalid { spec: true }) };
        for (number, mount) in spec.mounts.iter().enumerate() {
            let target = mount.target();
            self.add(mount, target, lent.contains(&number)).map_err(Failure::step("put into place what is mounted on", target))?;
        }
        for touched in self.directories.values_mut() {
            touched.after = rustix::fs::fstat(&touched.directory).ok().map(|stat| modified(&stat));
        }
        Ok(())
    }

    /// Makes the root directory the process's own.
    pub(super) fn enter(&self) -> Result<(), Failure> {
        let fail = |step: &'static str| Failure::step::<Errno>(step, "the new root");
        rustix::process::fchdir(&self.root).map_err(fail("enter"))?;
        rustix::process::chroot(".").map_err(fail("change to"))?;
        rustix::process::chdir("/").map_err(fail("enter"))
    }

    /// What must stay open until [`Stage::take_down`].
    pub(super) fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let directories = self.directories.values().map(|touched| touched.directory.as_fd());
        directories.chain(self.places.iter().map(|place| place.parent.as_fd())).chain([self.root.as_fd()])
    }

    fn add_devices(&mut self) -> Result<(), Failure> {
        let dev = RootPath::new("/dev");
        let fail = || Failure::step("put into place", &dev);
        let (parent, name) = self.clear(&dev).map_err(fail())?;
        self.make_directory(parent, name, Content::Own, 0o755).map_err(fail())?;
        let dir = self.root.open_at(dev.relative(), OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty(), Links::Refuse).map_err(fail())?;
        devices::fill_plain(&dir)
    }

    fn add(&mut self, mount: &MountSpec, target: &RootPath, is_lent: bool) -> io::Result<()> {
        let (parent, name) = self.clear(target)?;
        match mount {
            MountSpec::Tmpfs { mode, owner, .. } => {
                let dir = self.make_directory(parent, name, Content::Own, *mode)?;
                Ok(rustix::fs::fchown(&dir, Some(Uid::from_raw(owner.0)), Some(Gid::from_raw(owner.1)))?)
            }
            MountSpec::Bind { source: BindSource::Path(source), is_file: false, read_only: false, .. } if is_lent => {
                self.lend(parent, name, source)
            }
            MountSpec::Bind { source: BindSource::Path(source), read_only: false, .. } if !is_lent => self.borrow(parent, name, source),
            MountSpec::Bind { source: BindSource::Path(source), is_file: true, .. } => self.add_file(parent, name, source),
            MountSpec::Bind { source: BindSource::Path(source), .. } => self.add_copy(parent, name, source),
            MountSpec::Overlay { rootfs: RootfsMount::Bind { source, .. }, subpath, .. } => {
                let from = RootDir::open(source)?.open_at(subpath.relative(), OFlags::PATH, Mode::empty(), Links::Follow)?;
                self.add_copy(parent, name, Path::new(&descriptor_path(&from)))
            }
            MountSpec::Bind { .. } | MountSpec::Overlay { .. } | MountSpec::Filesystem { .. } => Err(Errno::NOTSUP.into()),
        }
    }

    /// Finds the place of `path`, makes what leads to it, and puts aside what is there.
    fn clear(&mut self, path: &RootPath) -> io::Result<(OwnedFd, OsString)> {
        // Without links from here on, where all of it is there.
        let path = self.real(path)?.unwrap_or_else(|| path.clone());
        let mut at = RootPath::root();
        let mut parent = self.open(&at)?;
        let names: Vec<OsString> = path.components().map(OsStr::to_owned).collect();
        let (name, way) = names.split_last().ok_or(Errno::INVAL)?;
        for part in way {
            at = at.join(part);
            parent = match self.open(&at) {
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {
                    self.make_directory(parent, part.clone(), Content::Way, 0o755)?
                }
                other => other?,
            };
        }
        self.touch(parent.as_fd())?;
        if rustix::fs::statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW).is_ok() {
            match rustix::fs::mkdir(&self.aside, Mode::RWXU) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(error) => return Err(error.into()),
            }
            let kept = self.places.len().to_string();
            rustix::fs::renameat(&parent, name, CWD, self.aside.join(&kept))?;
            let copy = parent.try_clone()?;
            self.places.push(Place { parent: copy, name: name.clone(), content: Content::Own, before: Some(kept) });
        }
        Ok((parent, name.clone()))
    }

    /// The path, free of links, of what a path leads to; `None` where there is nothing.
    fn real(&self, path: &RootPath) -> io::Result<Option<RootPath>> {
        let found = match self.root.open_at(path.relative(), OFlags::PATH, Mode::empty(), Links::Follow) {
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ELOOP)) => return Ok(None),
            other => other?,
        };
        let name = |fd: BorrowedFd<'_>| std::fs::read_link(descriptor_path(&fd));
        let (root, found) = (name(self.root.as_fd())?, name(found.as_fd())?);
        Ok(found.strip_prefix(&root).ok().map(|rest| RootPath::new(rest.as_os_str())))
    }

    fn open(&self, path: &RootPath) -> io::Result<OwnedFd> {
        self.root.open_at(path.relative(), OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty(), Links::Follow)
    }

    /// Remembers the times of a directory that is about to be changed.
    fn touch(&mut self, directory: BorrowedFd<'_>) -> io::Result<()> {
        let stat = rustix::fs::fstat(directory)?;
        if let std::collections::btree_map::Entry::Vacant(entry) = self.directories.entry((stat.st_dev, stat.st_ino)) {
            entry.insert(Touched { directory: directory.try_clone_to_owned()?, before: times(&stat), after: None });
        }
        Ok(())
    }

    fn make_directory(&mut self, parent: OwnedFd, name: OsString, content: Content, mode: u32) -> io::Result<OwnedFd> {
        self.touch(parent.as_fd())?;
        rustix::fs::mkdirat(&parent, &name, Mode::from_raw_mode(mode))?;
        let made = open_directory(&parent, &name)?;
        self.places.push(Place { parent, name, content, before: None });
        Ok(made)
    }

    /// A file with the content, mode and owner of another; a socket is the same one under another name.
    fn add_file(&mut self, parent: OwnedFd, name: OsString, source: &Path) -> io::Result<()> {
        let stat = rustix::fs::stat(source)?;
        if FileType::from_raw_mode(stat.st_mode) == FileType::Socket {
            rustix::fs::linkat(CWD, source, &parent, &name, AtFlags::empty())?;
            self.places.push(Place { parent, name, content: Content::Own, before: None });
            return Ok(());
        }
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&parent, &name, flags, Mode::RUSR | Mode::WUSR)?;
        self.places.push(Place { parent, name, content: Content::Own, before: None });
        let file = std::fs::File::from(file);
        copy_content(&std::fs::File::open(source)?, &file)?;
        rustix::fs::fchown(&file, Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)))?;
        Ok(rustix::fs::fchmod(&file, Mode::from_raw_mode(stat.st_mode & 0o7777))?)
    }

    /// Moves the directory `source` in, to be moved back. One that is as good as new stays in its place, should this machine stop meanwhile.
    fn lend(&mut self, parent: OwnedFd, name: OsString, source: &Path) -> io::Result<()> {
        let stat = rustix::fs::stat(source)?;
        rustix::fs::renameat(CWD, source, &parent, &name)?;
        self.places.push(Place { parent, name, content: Content::Lent(source.to_owned()), before: None });
        make_like(source, &stat)
    }

    /// A copy of a file or directory, of which changes go back.
    fn borrow(&mut self, parent: OwnedFd, name: OsString, source: &Path) -> io::Result<()> {
        self.add_copy(parent, name.clone(), source)?;
        let is_copy = FileType::from_raw_mode(rustix::fs::stat(source)?.st_mode) != FileType::Socket;
        if let Some(place) = self.places.last_mut().filter(|_| is_copy) {
            place.content = Content::Borrowed(Borrowed::look(source, place.parent.as_fd(), &name)?);
        }
        Ok(())
    }

    /// A copy of a file or directory.
    fn add_copy(&mut self, parent: OwnedFd, name: OsString, source: &Path) -> io::Result<()> {
        let stat = rustix::fs::stat(source)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
            return self.add_file(parent, name, source);
        }
        let copy = self.make_directory(parent, name, Content::Own, 0o700)?;
        let from = rustix::fs::open(source, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        super::bundle::copy_up(from.as_fd(), copy.as_fd())
    }

    /// Takes everything out again. Goes on where something fails, and gives the first failure.
    pub(super) fn take_down(mut self) -> Result<(), Failure> {
        let has_put_aside = self.places.iter().any(|place| place.before.is_some());
        let mut changed = Vec::new();
        for touched in self.directories.into_values() {
            let now = rustix::fs::fstat(&touched.directory);
            let by_command = now.as_ref().is_ok_and(|now| touched.after.is_some_and(|after| after != modified(now)));
            let times = if by_command { now.ok().as_ref().map(times) } else { Some(touched.before) };
            changed.push((touched.directory, times));
        }
        let mut failed = None;
        while let Some(place) = self.places.pop() {
            let name = place.name.to_string_lossy().into_owned();
            if let Content::Borrowed(borrowed) = &place.content
                && let Err(error) = borrowed.give_back(place.parent.as_fd(), &place.name)
            {
                failed.get_or_insert(Failure::step("write back what was changed in the copy of", borrowed.source().display())(error));
            }
            if let Err(error) = place.give_back(&self.aside) {
                failed.get_or_insert(Failure::step("remove what had the place of the mount", name)(error));
            }
        }
        for (directory, times) in changed {
            if let Some(times) = times {
                let _ = rustix::fs::futimens(&directory, &times);
            }
        }
        if has_put_aside {
            let _ = std::fs::remove_dir_all(&self.aside);
        }
        failed.map_or(Ok(()), Err)
    }
}

impl Place {
    fn give_back(&self, aside: &Path) -> io::Result<()> {
        match &self.content {
            Content::Way => match rustix::fs::unlinkat(&self.parent, &self.name, AtFlags::REMOVEDIR) {
                Ok(()) | Err(Errno::NOENT | Errno::NOTEMPTY | Errno::EXIST | Errno::NOTDIR) => {}
                Err(error) => return Err(error.into()),
            },
            Content::Own | Content::Borrowed(_) => self.remove()?,
            Content::Lent(home) => {
                // What the command has put there instead is no directory of ours.
                if open_directory(&self.parent, &self.name).is_ok() {
                    rustix::fs::renameat(&self.parent, &self.name, CWD, home)?;
                }
                self.remove()?;
            }
        }
        match &self.before {
            Some(kept) => match rustix::fs::renameat(CWD, aside.join(kept), &self.parent, &self.name) {
                // The command has removed the directory, and so what was in it.
                Ok(()) | Err(Errno::NOENT) => Ok(()),
                Err(error) => Err(error.into()),
            },
            None => Ok(()),
        }
    }

    fn remove(&self) -> io::Result<()> {
        match rustix::fs::unlinkat(&self.parent, &self.name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            // Not followed, also below: the names are opened one by one.
            Err(Errno::ISDIR) => std::fs::remove_dir_all(Path::new(&descriptor_path(&self.parent)).join(&self.name)),
            Err(error) => Err(error.into()),
        }
    }
}

fn open_directory(parent: &OwnedFd, name: &OsStr) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(parent, name, flags, Mode::empty())?)
}

/// Makes an empty directory with the owner and mode of another.
fn make_like(path: &Path, stat: &Stat) -> io::Result<()> {
    rustix::fs::mkdir(path, Mode::RWXU)?;
    rustix::fs::chown(path, Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)))?;
    Ok(rustix::fs::chmod(path, Mode::from_raw_mode(stat.st_mode & 0o7777))?)
}

fn modified(stat: &Stat) -> (i64, i64) {
    (stat.st_mtime, stat.st_mtime_nsec as i64)
}

fn times(stat: &Stat) -> Timestamps {
    let time = |seconds: i64, nanoseconds: i64| Timespec { tv_sec: seconds, tv_nsec: nanoseconds as _ };
    Timestamps {
        last_access: time(stat.st_atime, stat.st_atime_nsec as i64),
        last_modification: time(stat.st_mtime, stat.st_mtime_nsec as i64),
    }
}
