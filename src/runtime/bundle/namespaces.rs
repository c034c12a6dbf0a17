//! Namespaces of a bundle's container: which are joined, which are made, and in which order.
//!
//! Those to join are opened before anything changes. Those of others are entered first, as a new user namespace would take the right to; where that right comes from the
//! user namespace to join itself, they are tried again from inside of it. A new user namespace comes next, as all that are made after it belong to it.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::process::DumpableBehavior;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::Error;
use super::config::{Config, IdMapping, TimeOffset};
use crate::runtime::error::Failure;
use crate::runtime::users::become_user;
use crate::sys::process::unshare;

const CLONE_NEWTIME: libc::c_int = 0x80;

/// The kinds: the specification's word, the kernel's name and flag.
const KINDS: [(&str, &str, libc::c_int); 8] = [
    ("user", "user", libc::CLONE_NEWUSER),
    ("network", "net", libc::CLONE_NEWNET),
    ("ipc", "ipc", libc::CLONE_NEWIPC),
    ("uts", "uts", libc::CLONE_NEWUTS),
    ("cgroup", "cgroup", libc::CLONE_NEWCGROUP),
    ("time", "time", CLONE_NEWTIME),
    ("pid", "pid", libc::CLONE_NEWPID),
    ("mount", "mnt", libc::CLONE_NEWNS),
];

/// A namespace that is joined.
#[derive(Debug)]
struct Joined {
    name: String,
    flag: libc::c_int,
    fd: OwnedFd,
}

/// What is to become of all namespaces.
#[derive(Debug, Default)]
pub(super) struct Namespaces {
    join: Vec<Joined>,
    new: libc::c_int,
    offsets: Vec<(String, TimeOffset)>,
    /// The user and group that count as root of the user namespace that is joined, where they are known.
    user: Option<(u32, u32)>,
}

impl Namespaces {
    /// Those of a config; the ones to join are opened.
    pub(super) fn open(config: &Config) -> Result<Namespaces, Error> {
        let mut namespaces = Namespaces::default();
        let mut seen = 0;
        for namespace in &config.linux.namespaces {
            let member = "linux.namespaces";
            let kind = KINDS.iter().find(|(word, ..)| *word == namespace.kind);
            let (word, _, flag) = kind.ok_or_else(|| Error::invalid(member, format!("`{}` is no kind of namespace", namespace.kind)))?;
            if seen & flag != 0 {
                return Err(Error::invalid(member, format!("`{word}` is there twice")));
            }
            seen |= flag;
            if namespace.path.is_empty() {
                namespaces.new |= flag;
            } else {
                namespaces.join.push(joined(word, *flag, &namespace.path)?);
            }
        }
        if namespaces.new & libc::CLONE_NEWNS == 0 {
            return Err(Error::invalid("linux.namespaces", "the container needs a mount namespace of its own"));
        }
        namespaces.offsets = config.linux.time_offsets.iter().map(|(clock, offset)| (clock.clone(), *offset)).collect();
        Ok(namespaces)
    }

    /// Those of a process that are not this one's own.
    pub(super) fn of_process(pid: u32) -> Result<Namespaces, Error> {
        let mut join = Vec::new();
        for (word, name, flag) in KINDS {
            let (own, other) = (format!("/proc/self/ns/{name}"), format!("/proc/{pid}/ns/{name}"));
            match (std::fs::read_link(own), std::fs::read_link(&other)) {
                // Kernels without this kind have nothing to join.
                (Err(error), _) if error.kind() == io::ErrorKind::NotFound => {}
                (Ok(own), Ok(theirs)) if own == theirs => {}
                _ => join.push(joined(word, flag, &other)?),
            }
        }
        // Asked for here, as this process finds itself in no `/proc` of the container.
        Ok(Namespaces { join, user: Some(user_of(&pid.to_string())), ..Namespaces::default() })
    }

    /// Whether one of that kind is made.
    pub(super) fn makes(&self, flag: libc::c_int) -> bool {
        self.new & flag != 0
    }

    /// Whether the container is in another user namespace than its creator.
    pub(super) fn has_users(&self) -> bool {
        self.makes(libc::CLONE_NEWUSER) || self.join.iter().any(|joined| joined.flag == libc::CLONE_NEWUSER)
    }

    /// Enters them. `map` is called in the new user namespace, and returns when its IDs are mapped. A new PID namespace is for children only.
    pub(super) fn enter(&self, map: impl FnOnce() -> Result<(), Failure>) -> Result<(), Failure> {
        let mut later = Vec::new();
        let (users, others): (Vec<_>, Vec<_>) = self.join.iter().partition(|joined| joined.flag == libc::CLONE_NEWUSER);
        // The mount namespace takes `/proc` away, so it comes last.
        for joined in &others {
            match join(joined) {
                Err(_) if !users.is_empty() => later.push(*joined),
                other => other.map_err(Failure::step("join the namespace", &joined.name))?,
            }
        }
        for joined in &users {
            join(joined).map_err(Failure::step("join the namespace", &joined.name))?;
        }
        for joined in later {
            join(joined).map_err(Failure::step("join the namespace", &joined.name))?;
        }
        if self.makes(libc::CLONE_NEWUSER) {
            unshare(libc::CLONE_NEWUSER).map_err(Failure::step("make", "a user namespace"))?;
            map()?;
        }
        if self.has_users() {
            let (uid, gid) = self.user.unwrap_or_else(|| user_of("self"));
            become_user(uid, gid)?;
        }
        unshare(self.new & !libc::CLONE_NEWUSER).map_err(Failure::step("make", "namespaces"))?;
        self.set_clocks()
    }

    fn set_clocks(&self) -> Result<(), Failure> {
        const FILE: &str = "/proc/self/timens_offsets";
        if !self.makes(CLONE_NEWTIME) {
            return Ok(());
        }
        if self.has_users() && !self.offsets.is_empty() {
            // The files of a process that has become somebody else are the host's root's. Nobody sees this one who is root of its user namespace: that is new.
            let fail = || Failure::step::<rustix::io::Errno>("show", "the process of the namespaces");
            rustix::process::set_dumpable_behavior(DumpableBehavior::Dumpable).map_err(fail())?;
        }
        for (clock, offset) in &self.offsets {
            std::fs::write(FILE, format!("{clock} {} {}", offset.secs, offset.nanosecs)).map_err(Failure::step("write", FILE))?;
        }
        let fail = || Failure::step::<rustix::io::Errno>("hide", "the process of the namespaces");
        rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(fail())
    }
}

/// The user and group that count as root of a process's user namespace: not each has a root.
fn user_of(process: &str) -> (u32, u32) {
    let first = |file: &str| std::fs::read_to_string(format!("/proc/{process}/{file}")).ok().and_then(|map| first_id(&map)).unwrap_or(0);
    (first("uid_map"), first("gid_map"))
}

/// Root, where a user namespace has one, or the first ID that it has.
fn first_id(map: &str) -> Option<u32> {
    let ids: Vec<u32> = map.lines().filter_map(|line| line.split_whitespace().next()?.parse().ok()).collect();
    ids.iter().copied().find(|id| *id == 0).or(ids.first().copied())
}

fn joined(word: &str, flag: libc::c_int, path: &str) -> Result<Joined, Error> {
    let fd = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).map_err(Error::file("open the namespace", path))?;
    Ok(Joined { name: format!("{word} ({path})"), flag, fd })
}

fn join(joined: &Joined) -> io::Result<()> {
    const KNOWN: [(libc::c_int, LinkNameSpaceType); 8] = [
        (libc::CLONE_NEWUSER, LinkNameSpaceType::User),
        (libc::CLONE_NEWNET, LinkNameSpaceType::Network),
        (libc::CLONE_NEWIPC, LinkNameSpaceType::InterProcessCommunication),
        (libc::CLONE_NEWUTS, LinkNameSpaceType::HostNameAndNISDomainName),
        (libc::CLONE_NEWCGROUP, LinkNameSpaceType::ControlGroup),
        (CLONE_NEWTIME, LinkNameSpaceType::Time),
        (libc::CLONE_NEWPID, LinkNameSpaceType::ProcessID),
        (libc::CLONE_NEWNS, LinkNameSpaceType::Mount),
    ];
    let kind = KNOWN.iter().find(|(flag, _)| *flag == joined.flag).map(|(_, kind)| *kind);
    Ok(move_into_link_name_space(joined.fd.as_fd(), kind)?)
}

/// Maps the IDs of the user namespace that the process `pid` has just made.
pub(super) fn map_ids(pid: u32, users: &[IdMapping], groups: &[IdMapping]) -> Result<(), Error> {
    let write = |file: &str, mappings: &[IdMapping], helper: &'static str| -> Result<(), Error> {
        let path = format!("/proc/{pid}/{file}");
        let lines: Vec<String> = mappings.iter().map(|map| format!("{} {} {}", map.container, map.host, map.size)).collect();
        match std::fs::write(&path, lines.join("\n")) {
            Err(error)
                if error.kind() == io::ErrorKind::PermissionDenied && crate::runtime::rootless::run_id_map_helper(helper, pid, &lines) =>
            {
                Ok(())
            }
            other => other.map_err(Error::file("write", &path)),
        }
    };
    if matches!(groups, [IdMapping { size: 1, .. }]) {
        // A group that has less access than others could be left otherwise (user_namespaces(7)); only the privileged may map without that.
        let path = format!("/proc/{pid}/setgroups");
        if !rustix::process::geteuid().is_root() {
            std::fs::write(&path, "deny").map_err(Error::file("write", &path))?;
        }
    }
    write("gid_map", groups, "newgidmap")?;
    write("uid_map", users, "newuidmap")
}
