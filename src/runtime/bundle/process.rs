//! The process of a bundle: from `process` of its config to what is applied, and how it is applied.
//!
//! All is prepared before anything changes: names become numbers, and what makes no sense is an error of `create`. The order in which it is applied is the kernel's, see
//! `credentials`.

use std::convert::Infallible;
use std::ffi::OsString;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;

use rustix::fs::{Mode, OFlags};

use super::Error;
use super::config::{CapabilityLists, Config, Process};
use super::listener::{self, Listener};
use super::scheduling::{Affinity, Scheduling};
use crate::path::RootPath;
use crate::runtime::apparmor;
use crate::runtime::capabilities::Capabilities;
use crate::runtime::credentials::{self, ProcessCapabilities};
use crate::runtime::error::{ENTER_PROFILE, Failure};
use crate::runtime::seccomp::Filter;
use crate::runtime::spec::{Credentials, ProcessSpec, Resource, Rlimit, TerminalSize};
use crate::runtime::{exec, init};
use crate::sys::process::{
    clone_process, close_on_exec_from, exit_now, join_new_session_keyring, keep_on_exec, reap, reset_signals, set_personality,
};

/// The first descriptor beyond the standard ones.
pub(super) const FIRST_PASSED: u32 = 3;

/// A process that is ready to be applied.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) spec: ProcessSpec,
    pub(super) terminal: bool,
    umask: Option<u32>,
    capabilities: ProcessCapabilities,
    filter: Option<Filter>,
    /// Who is asked about system calls by the filter.
    pub(super) listener: Option<Listener>,
    apparmor: String,
    selinux: String,
    /// `/proc` as the caller sees it, where there is a profile or a label to be written.
    proc: Option<OwnedFd>,
    personality: Option<u64>,
    scheduling: Scheduling,
    /// On which CPUs it is; only of further commands.
    pub(super) affinity: Affinity,
    /// Whether the caller's keys stay in reach.
    pub(super) keep_keyring: bool,
    /// How many descriptors beyond the standard ones are passed on.
    pub(super) preserve_fds: u32,
}

impl Plan {
    /// Prepares a process for a container with that config. Gives also what should be said about it.
    pub(super) fn new(process: &Process, config: &Config) -> Result<(Plan, Vec<String>), Error> {
        let mut warnings = Vec::new();
        if process.args.is_empty() {
            return Err(Error::invalid("process.args", "it must not be empty"));
        }
        if !process.cwd.starts_with('/') {
            return Err(Error::invalid("process.cwd", format!("`{}` is not absolute", process.cwd)));
        }
        let missing = |file: &str| !std::path::Path::new(file).exists();
        let profile = &process.apparmor_profile;
        let unusable = match profile.as_str() {
            "" => None,
            _ if !apparmor::is_enabled() => Some("this kernel has no AppArmor"),
            "unconfined" => None,
            _ if apparmor::is_loaded(profile) == Some(false) => Some("it is not loaded"),
            _ => None,
        };
        if let Some(why) = unusable {
            return Err(Error::invalid("process.apparmorProfile", format!("the profile `{profile}` is asked for, but {why}")));
        }
        if !process.selinux_label.is_empty() && missing("/sys/fs/selinux/enforce") {
            let reason = format!("the label `{}` is asked for, but this kernel has no SELinux", process.selinux_label);
            return Err(Error::invalid("process.selinuxLabel", reason));
        }
        let mut spec = ProcessSpec::new(strings(&process.args), environment(&process.env));
        spec.cwd = RootPath::new(&process.cwd);
        spec.user = Credentials { uid: process.user.uid, gid: process.user.gid, additional_gids: process.user.additional_gids.clone() };
        spec.terminal = process.console_size.map(|size| TerminalSize { rows: size.height, columns: size.width });
        spec.no_new_privileges = process.no_new_privileges;
        spec.rlimits = rlimits(process)?;
        spec.oom_score_adjust = process.oom_score_adj;
        let capabilities = capabilities(process.capabilities.as_ref(), &mut warnings);
        if !config.linux.namespaces.iter().any(|namespace| namespace.kind == "user") {
            let missing = capabilities.bounding.without(credentials::held());
            warnings.extend(missing.names().map(|name| format!("the capability `CAP_{name}` is not given, as this process lacks it")));
        }
        let (filter, listener) = match &config.linux.seccomp {
            Some(seccomp) => super::seccomp::compile(seccomp, capabilities.bounding)?.unzip(),
            None => (None, None),
        };
        // The container's own could be anything that looks like it.
        let proc = match process.apparmor_profile.is_empty() && process.selinux_label.is_empty() {
            true => None,
            false => Some(apparmor::host_proc().map_err(Error::file("open", "/proc"))?),
        };
        let plan = Plan {
            spec,
            terminal: process.terminal,
            umask: process.user.umask,
            capabilities,
            filter,
            listener: listener.flatten(),
            apparmor: profile.clone(),
            selinux: process.selinux_label.clone(),
            proc,
            personality: personality(config)?,
            scheduling: Scheduling::new(process, config)?,
            affinity: Affinity::default(),
            keep_keyring: false,
            preserve_fds: 0,
        };
        Ok((plan, warnings))
    }

    /// Tells the command of sockets that are passed on, as managers of services tell it (sd_listen_fds(3)): it is the first process of the container.
    pub(super) fn add_listen_fds(&mut self, number: u32) {
        let is_told =
            |entry: &OsString| [b"LISTEN_FDS=".as_slice(), b"LISTEN_PID="].iter().any(|name| entry.as_encoded_bytes().starts_with(name));
        self.spec.env.retain(|entry| !is_told(entry));
        self.spec.env.extend([format!("LISTEN_FDS={number}").into(), "LISTEN_PID=1".into()]);
    }

    /// Gives the process a home directory where the environment names none: that of its user, as others do.
    pub(super) fn add_home(&mut self) {
        if self.spec.env.iter().any(|entry| entry.as_encoded_bytes().starts_with(b"HOME=")) {
            return;
        }
        let passwd = users().unwrap_or_default();
        let uid = self.spec.user.uid.to_string();
        let home = passwd.split(|byte| *byte == b'\n').find_map(|line| {
            let fields: Vec<&[u8]> = line.split(|byte| *byte == b':').collect();
            (*fields.get(2)? == uid.as_bytes()).then(|| fields.get(5).copied())?
        });
        let home = home.filter(|home| !home.is_empty() && !home.contains(&0)).unwrap_or(b"/");
        self.spec.env.push(OsString::from_vec([b"HOME=", home].concat()));
    }

    /// Finds out whether the limits can be had and, as the user that it will be, whether the command can be executed: in a copy of this process, which keeps its own rights.
    pub(super) fn check(&self) -> Result<(), Failure> {
        let (mut read, mut write) = std::io::pipe().map_err(Failure::step("make", "a pipe"))?;
        match clone_process(0, None).map_err(Failure::step("fork", "to look for the command"))? {
            crate::sys::process::Cloned::Child => {
                let checked = credentials::set_limits(&self.spec)
                    .and_then(|()| self.scheduling.apply())
                    .and_then(|()| self.give_up())
                    .and_then(|()| exec::prepare(&self.spec).and_then(|command| command.check()).map_err(Failure::Exec));
                let told = match checked {
                    Ok(()) => Ok(()),
                    Err(failure) => serde_json::to_vec(&failure)
                        .map_err(std::io::Error::from)
                        .and_then(|bytes| std::io::Write::write_all(&mut write, &bytes)),
                };
                exit_now(i32::from(told.is_err()))
            }
            crate::sys::process::Cloned::Parent { pid, .. } => {
                drop(write);
                let mut said = Vec::new();
                let heard = std::io::Read::read_to_end(&mut read, &mut said);
                // A first process is told of children that it did not ask for as well; those are not waited for.
                let _ = reap(pid);
                match heard {
                    Ok(0) | Err(_) => Ok(()),
                    Ok(_) => Err(serde_json::from_slice(&said).unwrap_or(Failure::Clone { errno: libc::EPROTO })),
                }
            }
        }
    }

    /// Gives up everything that the command must not have, except what only execution takes away.
    fn give_up(&self) -> Result<(), Failure> {
        credentials::limit_bounding_set(self.capabilities.bounding)?;
        init::enter_cwd(&self.spec.cwd)?;
        credentials::change_user(&self.spec)?;
        credentials::set_capability_sets(self.capabilities, self.loads_as_admin())
    }

    /// Whether only CAP_SYS_ADMIN lets the system call filter be loaded.
    fn loads_as_admin(&self) -> bool {
        self.filter.is_some() && !self.spec.no_new_privileges
    }

    /// Gives up what the command must not have, and becomes it. What the filter might keep this process from telling, `caller` is told by another.
    pub(super) fn become_command(&self, caller: BorrowedFd<'_>) -> Result<Infallible, Failure> {
        let (late, limits): (Vec<_>, Vec<_>) =
            self.spec.rlimits.iter().partition(|limit| self.listener.is_some() && listener::is_late(limit));
        if !late.is_empty() {
            // Who gives them up cannot raise them.
            credentials::raise_hard_limits(&self.spec)?;
        }
        limits.iter().try_for_each(|limit| credentials::set_limit(None, limit))?;
        self.scheduling.apply()?;
        if !self.keep_keyring {
            // Kernels without keyrings have nothing to hide.
            let _ = join_new_session_keyring();
        }
        if let Some(umask) = self.umask {
            rustix::process::umask(rustix::fs::Mode::from_raw_mode(umask & 0o777));
        } else {
            rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
        }
        if let Some(personality) = self.personality {
            set_personality(personality).map_err(Failure::step("set", "the personality"))?;
        }
        self.set_labels()?;
        reset_signals().map_err(Failure::step("reset", "signals"))?;
        self.give_up()?;
        let command = exec::prepare(&self.spec).map_err(Failure::Exec)?;
        close_on_exec_from(FIRST_PASSED).map_err(Failure::step("close", "descriptors"))?;
        (0..self.preserve_fds)
            .try_for_each(|number| keep_on_exec(FIRST_PASSED + number))
            .map_err(Failure::step("pass on", "descriptors"))?;
        if self.spec.no_new_privileges {
            rustix::thread::set_no_new_privs(true).map_err(Failure::step("forbid", "new privileges"))?;
        }
        if self.loads_as_admin() {
            credentials::raise_admin()?;
        }
        // As the last thing: a filter may forbid everything but the execution, which takes CAP_SYS_ADMIN away.
        match (&self.filter, &self.listener) {
            (None, _) => {}
            (Some(filter), None) => filter.load().map_err(Failure::step("load", "the system call filter"))?,
            (Some(filter), Some(listener)) => listener.load(filter, &late, caller)?,
        }
        Err(Failure::Exec(command.execute()))
    }

    fn set_labels(&self) -> Result<(), Failure> {
        let Some(proc) = &self.proc else { return Ok(()) };
        if !self.selinux.is_empty() {
            let path = "thread-self/attr/exec";
            let written = rustix::fs::openat(proc, path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())
                .map_err(std::io::Error::from)
                .and_then(|file| std::io::Write::write_all(&mut std::fs::File::from(file), self.selinux.as_bytes()));
            written.map_err(Failure::step("enter the SELinux context", &self.selinux))?;
        }
        if !self.apparmor.is_empty() {
            apparmor::enter_on_exec(proc, &self.apparmor).map_err(Failure::step(ENTER_PROFILE, &self.apparmor))?;
        }
        Ok(())
    }
}

/// The variables, each once: of several values the last counts. A home directory that is empty is none.
fn environment(list: &[String]) -> Vec<OsString> {
    let name = |entry: &str| entry.split_once('=').map(|(name, _)| name.to_owned());
    let is_last =
        |at: usize, entry: &str| name(entry).is_none_or(|known| !list[at + 1..].iter().any(|later| name(later).as_ref() == Some(&known)));
    let counts = |(at, entry): &(usize, &String)| is_last(*at, entry) && *entry != "HOME=";
    list.iter().enumerate().filter(counts).map(|(_, entry)| entry.into()).collect()
}

fn strings(list: &[String]) -> Vec<OsString> {
    list.iter().map(OsString::from).collect()
}

fn rlimits(process: &Process) -> Result<Vec<Rlimit>, Error> {
    let mut limits: Vec<Rlimit> = Vec::new();
    for limit in &process.rlimits {
        let name = limit.kind.strip_prefix("RLIMIT_").unwrap_or("").to_lowercase();
        let resource: Resource = serde_json::from_value(name.into())
            .map_err(|_| Error::invalid("process.rlimits", format!("`{}` is no limit that the kernel has", limit.kind)))?;
        if limits.iter().any(|known| known.resource == resource) {
            return Err(Error::invalid("process.rlimits", format!("`{}` is there twice", limit.kind)));
        }
        if limit.soft > limit.hard {
            let reason = format!("`{}`: {} is above the hard limit, {}", limit.kind, limit.soft, limit.hard);
            return Err(Error::invalid("process.rlimits", reason));
        }
        limits.push(Rlimit { resource, soft: limit.soft, hard: limit.hard });
    }
    Ok(limits)
}

fn capabilities(lists: Option<&CapabilityLists>, warnings: &mut Vec<String>) -> ProcessCapabilities {
    let Some(lists) = lists else { return ProcessCapabilities::default() };
    let mut set = |names: &[String]| {
        let mut all = Capabilities::NONE;
        for name in names {
            match Capabilities::named(name).filter(|_| name != "ALL") {
                Some(one) => all = all.union(one),
                None => {
                    let warning = format!("the capability `{name}` is not known, and is not given");
                    // Once, in however many lists it is.
                    if !warnings.contains(&warning) {
                        warnings.push(warning);
                    }
                }
            }
        }
        all
    };
    ProcessCapabilities {
        bounding: set(&lists.bounding),
        effective: set(&lists.effective),
        inheritable: set(&lists.inheritable),
        permitted: set(&lists.permitted),
        ambient: set(&lists.ambient),
    }
}

fn personality(config: &Config) -> Result<Option<u64>, Error> {
    const PER_LINUX: u64 = 0;
    const PER_LINUX32: u64 = 8;
    let Some(personality) = &config.linux.personality else { return Ok(None) };
    if let Some(flag) = personality.flags.first() {
        return Err(Error::invalid("linux.personality.flags", format!("`{flag}` is not known")));
    }
    match personality.domain.as_str() {
        "LINUX" => Ok(Some(PER_LINUX)),
        "LINUX32" => Ok(Some(PER_LINUX32)),
        other => Err(Error::invalid("linux.personality.domain", format!("`{other}` is neither LINUX nor LINUX32"))),
    }
}

/// How much of the container's list of users is read: it is not trusted, and may be anything.
const MAX_USERS: u64 = 10 << 20;

/// The container's list of users, as far as it is a file.
fn users() -> std::io::Result<Vec<u8>> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = std::fs::File::from(rustix::fs::open("/etc/passwd", flags, Mode::empty())?);
    let mut bytes = Vec::new();
    if file.metadata()?.is_file() {
        std::io::Read::read_to_end(&mut std::io::Read::take(file, MAX_USERS), &mut bytes)?;
    }
    Ok(bytes)
}
