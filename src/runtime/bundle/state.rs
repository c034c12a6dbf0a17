//! What is on record of a container: one directory for each below the runtime's root.
//!
//! ```text
//! ROOT/<id>/state.json    who made it, its first process, its control groups
//! ROOT/<id>/config.json   the bundle's config as it was at `create`
//! ROOT/<id>/start.sock    where its first process waits for `start`
//! ```
//!
//! A process is named by its number and the time that it started, so no other that got the same number is taken for it. Whether it waits for `start` is asked of it, by
//! connecting to its socket, which the execution of the command closes: so what is told is true whatever was killed in between.

use std::collections::BTreeMap;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde::{Deserialize, Serialize};

use super::Error;
use super::cgroups::Groups;
use super::config::Config;
use crate::runtime::container::{boot_id, start_ticks};
use crate::sys::descriptor_path;

/// The version of the specification that states and containers comply with.
pub const OCI_VERSION: &str = "1.3.0";

/// A process that cannot be taken for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ProcessName {
    pub(super) pid: u32,
    /// When it started, in clock ticks since boot.
    pub(super) start_ticks: u64,
}

impl ProcessName {
    pub(super) fn of(pid: u32) -> Option<ProcessName> {
        Some(ProcessName { pid, start_ticks: start_ticks(pid)? })
    }

    /// A handle on the process; `None` where it has ended.
    pub(super) fn open(self) -> Option<OwnedFd> {
        let fd = pidfd_open(Pid::from_raw(self.pid.cast_signed())?, PidfdFlags::empty()).ok()?;
        // After opening: what has the number now keeps it as long as this is open.
        let same = start_ticks(self.pid) == Some(self.start_ticks);
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        // Readable is one that has ended and waits for its parent to hear of it.
        let ended = poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(&now)).is_ok_and(|ready| ready > 0);
        (same && !ended).then_some(fd)
    }
}

/// What `state.json` holds.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) id: String,
    pub(super) bundle: PathBuf,
    pub(super) rootfs: PathBuf,
    pub(super) annotations: BTreeMap<String, String>,
    pub(super) created: String,
    pub(super) owner: u32,
    pub(super) boot_id: String,
    /// The process of `create`.
    pub(super) creator: ProcessName,
    /// The container's first process, once it is set up.
    pub(super) init: Option<ProcessName>,
    pub(super) groups: Groups,
}

/// How far a container's life has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// It is being made.
    Creating,
    /// It waits for `start`.
    Created,
    /// Its command runs.
    Running,
    /// Its command runs, but stands still.
    Paused,
    /// It has ended.
    Stopped,
}

impl Status {
    /// The word for it.
    pub fn name(self) -> &'static str {
        match self {
            Status::Creating => "creating",
            Status::Created => "created",
            Status::Running => "running",
            Status::Paused => "paused",
            Status::Stopped => "stopped",
        }
    }
}

/// The state as hooks and callers get it (runtime.md, "State").
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// The version of the specification.
    pub oci_version: String,
    /// The container.
    pub id: String,
    /// The first process, as the host sees it; 0 where there is none.
    pub pid: u32,
    /// How far its life has come.
    pub status: Status,
    /// The bundle.
    pub bundle: String,
    /// The root file system.
    pub rootfs: String,
    /// When it was made.
    pub created: String,
    /// The user that made it.
    pub owner: String,
    /// The annotations of its config.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

impl Record {
    /// The state with a status that is known.
    pub(super) fn report(&self, status: Status, pid: u32) -> Report {
        Report {
            oci_version: OCI_VERSION.to_owned(),
            id: self.id.clone(),
            pid,
            status,
            bundle: self.bundle.display().to_string(),
            rootfs: self.rootfs.display().to_string(),
            created: self.created.clone(),
            owner: self.owner.to_string(),
            annotations: self.annotations.clone(),
        }
    }
}

/// The runtime's root, which has a directory for each container.
#[derive(Clone, Debug)]
pub struct Containers {
    root: PathBuf,
}

/// The directory of one container.
#[derive(Clone, Debug)]
pub(super) struct Dir(PathBuf);

impl Containers {
    /// Those that are kept in the directory `root`, which is made when it is needed.
    pub fn new(root: impl Into<PathBuf>) -> Containers {
        Containers { root: root.into() }
    }

    fn place(&self, id: &str) -> Result<Dir, Error> {
        let known = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '+' | '-' | '.');
        let valid = !id.is_empty() && id.len() <= 1024 && id.chars().all(known) && id != "." && id != "..";
        if valid { Ok(Dir(self.root.join(id))) } else { Err(Error::InvalidId(id.to_owned())) }
    }

    /// Makes the directory of a new container, whose ID nobody else has.
    pub(super) fn claim(&self, id: &str) -> Result<Dir, Error> {
        let dir = self.place(id)?;
        let mut builder = std::fs::DirBuilder::new();
        builder.recursive(true).mode(0o700).create(&self.root).map_err(Error::file("make", &self.root))?;
        match builder.recursive(false).mode(0o711).create(&dir.0) {
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Err(Error::Exists(id.to_owned())),
            other => other.map(|()| dir.clone()).map_err(Error::file("make", &dir.0)),
        }
    }

    /// The directory of a container that is there.
    pub(super) fn find(&self, id: &str) -> Result<Dir, Error> {
        let dir = self.place(id)?;
        if dir.0.is_dir() { Ok(dir) } else { Err(Error::NoSuchContainer(id.to_owned())) }
    }

    /// The IDs of all, in order.
    pub(super) fn ids(&self) -> Vec<String> {
        let Ok(entries) = std::fs::read_dir(&self.root) else { return Vec::new() };
        let mut ids: Vec<String> = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect();
        ids.sort();
        ids
    }
}

impl Dir {
    /// What is on record; `None` where `create` was killed before it said anything.
    pub(super) fn record(&self) -> Result<Option<Record>, Error> {
        read_if_there(&self.0.join("state.json"))
    }

    /// What a record still says that is damaged, or that another version has written: the first process, and the control groups.
    pub(super) fn remains(&self) -> (Option<ProcessName>, Groups) {
        let raw: Option<serde_json::Value> = read_if_there(&self.0.join("state.json")).ok().flatten();
        let Some(raw) = raw.filter(|raw| raw["boot_id"] == boot_id()) else { return (None, Groups::default()) };
        (ProcessName::deserialize(&raw["init"]).ok(), Groups::deserialize(&raw["groups"]).unwrap_or_default())
    }

    pub(super) fn write_record(&self, record: &Record) -> Result<(), Error> {
        write(&self.0.join("state.json"), record)
    }

    pub(super) fn config(&self) -> Result<Config, Error> {
        let path = self.0.join("config.json");
        read_if_there(&path)?.ok_or_else(|| Error::file("read", &path)(std::io::Error::from(std::io::ErrorKind::NotFound)))
    }

    pub(super) fn write_config(&self, config: &Config) -> Result<(), Error> {
        write(&self.0.join("config.json"), config)
    }

    pub(super) fn remove(&self) -> Result<(), Error> {
        std::fs::remove_dir_all(&self.0).map_err(Error::file("remove", &self.0))
    }

    /// The directory, open, and the socket's path by it: paths of sockets are short.
    fn socket_path(&self) -> Result<(OwnedFd, PathBuf), Error> {
        let open = || rustix::fs::open(&self.0, rustix::fs::OFlags::PATH | rustix::fs::OFlags::CLOEXEC, rustix::fs::Mode::empty());
        let dir = open().map_err(Error::file("open", &self.0))?;
        let path = descriptor_path(&dir).join("start.sock");
        Ok((dir, path))
    }

    /// The socket that the container's first process waits at.
    pub(super) fn listen(&self) -> Result<OwnedFd, Error> {
        let (_dir, path) = self.socket_path()?;
        let failed = || Error::kernel::<rustix::io::Errno>("make the socket that the container waits at");
        let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).map_err(failed())?;
        let address = SocketAddrUnix::new(&path).map_err(failed())?;
        rustix::net::bind(&socket, &address).map_err(failed())?;
        rustix::net::listen(&socket, 16).map_err(failed())?;
        Ok(socket)
    }

    /// A connection to the first process; `None` where it waits no more.
    pub(super) fn connect(&self) -> Option<OwnedFd> {
        let (_dir, path) = self.socket_path().ok()?;
        let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).ok()?;
        connect(&socket, &SocketAddrUnix::new(&path).ok()?).ok()?;
        Some(socket)
    }

    /// How far the container has come, and its first process.
    pub(super) fn status(&self, record: &Record) -> (Status, Option<OwnedFd>) {
        if record.boot_id != boot_id() {
            return (Status::Stopped, None);
        }
        let Some(init) = record.init else {
            return (if record.creator.open().is_some() { Status::Creating } else { Status::Stopped }, None);
        };
        let Some(process) = init.open() else { return (Status::Stopped, None) };
        let status = match self.connect() {
            Some(_) => Status::Created,
            None if record.groups.is_frozen() => Status::Paused,
            None => Status::Running,
        };
        (status, Some(process))
    }
}

/// Waits for the end of a process; says whether it came in time.
pub(super) fn ended_within(process: &impl AsFd, time: std::time::Duration) -> bool {
    let time = Timespec { tv_sec: time.as_secs().cast_signed(), tv_nsec: time.subsec_nanos().into() };
    poll(&mut [PollFd::new(process, PollFlags::IN)], Some(&time)).is_ok_and(|ready| ready > 0)
}

/// Parses a JSON document.
pub(super) fn parse<T: for<'de> Deserialize<'de>>(path: &Path, bytes: &[u8]) -> Result<T, Error> {
    serde_json::from_slice(bytes).map_err(|source| Error::Parse { path: path.to_owned(), source })
}

fn read_if_there<T: for<'de> Deserialize<'de>>(path: &Path) -> Result<Option<T>, Error> {
    match std::fs::read(path) {
        Ok(bytes) => parse(path, &bytes).map(Some),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::file("read", path)(error)),
    }
}

fn write(path: &Path, value: &impl Serialize) -> Result<(), Error> {
    let bytes = serde_json::to_vec(value).map_err(|source| Error::Parse { path: path.to_owned(), source })?;
    replace(path, &bytes, 0o600)
}

/// Replaces a file: a reader sees all of it or nothing.
pub(super) fn replace(path: &Path, bytes: &[u8], mode: u32) -> Result<(), Error> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.new", std::process::id()));
    let temporary = path.with_file_name(name);
    let mut file = std::fs::OpenOptions::new();
    let mut file = file.write(true).create(true).truncate(true).mode(mode).open(&temporary).map_err(Error::file("create", &temporary))?;
    file.write_all(bytes).map_err(Error::file("write", &temporary))?;
    std::fs::rename(&temporary, path).map_err(Error::file("rename", &temporary))
}
