//! AppArmor: the profile that the command of a sandbox is put into.
//!
//! Unless another one is asked for, that is a profile of our own ([`DEFAULT_PROFILE`]), which is loaded by `apparmor_parser` where it is not. Where there is no AppArmor, or a
//! container around this has put this process into a profile already, there is none; an ordinary user can use what root has loaded.
//!
//! A process says which profile the next program that it executes is to be in, and processes that it makes have that from it (aa_change_onexec(2)). So it is said when a
//! sandbox's init begins, while `/proc` is the host's and nothing of a container can stand in for it.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use rustix::fs::{CWD, Mode, OFlags};
use serde::{Deserialize, Serialize};

use super::error::{ENTER_PROFILE, Error, Failure};

/// The profile of containers and steps that ask for no other.
pub const DEFAULT_PROFILE: &str = "strake-default";

/// The profile that is none.
const UNCONFINED: &str = "unconfined";

/// Says whether the kernel has AppArmor, and it is on.
const ENABLED: &str = "/sys/module/apparmor/parameters/enabled";

/// The profiles that are loaded, one a line, with their modes. Only root may read it.
const PROFILES: &str = "/sys/kernel/security/apparmor/profiles";

/// Where the program is that loads profiles.
const PARSERS: [&str; 4] =
    ["/usr/sbin/apparmor_parser", "/sbin/apparmor_parser", "/usr/bin/apparmor_parser", "/usr/local/sbin/apparmor_parser"];

/// What containers may do by AppArmor: everything, but mounting, and writing to those files of the kernel that are about the whole machine. Whoever may signal them may,
/// but they only each other, and so it is with tracing.
const RULES: &str = r"profile strake-default flags=(attach_disconnected,mediate_deleted) {
  file,
  network,
  unix,
  capability,
  umount,
  deny mount,

  signal (receive),
  signal (send) peer=strake-default,
  ptrace (trace,tracedby,read,readby) peer=strake-default,

  deny /proc/* w,
  deny /proc/{[^1-9s],s[^y],sy[^s],sys[^/]}** w,
  deny /proc/sys/{[^k],k[^e],ke[^r]}** w,
  deny /proc/sys/kernel/{[^s],s[^h],sh[^m]}** w,
  deny /proc/{kcore,sysrq-trigger} rwklx,

  deny /sys/{[^f]*,f[^s]*,fs/[^c]*,fs/c[^g]*,fs/cg[^r]*}/** wklx,
  deny /sys/{firmware,devices/virtual/powercap,kernel/security}/** rwklx,
}
";

/// Which profile a sandbox's command is put into.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AppArmor {
    /// Our own, where it can be had.
    #[default]
    Default,
    /// None.
    Unconfined,
    /// Another one, which must be loaded.
    Profile(String),
}

impl AppArmor {
    /// The profile of this name.
    pub fn named(name: &str) -> AppArmor {
        match name {
            UNCONFINED => AppArmor::Unconfined,
            DEFAULT_PROFILE => AppArmor::Default,
            name => AppArmor::Profile(name.to_owned()),
        }
    }

    /// The name of the profile that it is on this machine; nothing where that has no AppArmor.
    pub fn shown(&self) -> &str {
        match self {
            _ if !is_enabled() => "",
            AppArmor::Default => DEFAULT_PROFILE,
            AppArmor::Unconfined => UNCONFINED,
            AppArmor::Profile(name) => name,
        }
    }

    /// Fails where another one than ours is asked for that is not there, as far as this process can tell.
    ///
    /// # Errors
    /// There is no AppArmor, or the profile is not loaded.
    pub fn must_be_there(&self) -> Result<(), Error> {
        Ok(self.check()?)
    }

    /// That of a sandbox whose description does not know of profiles.
    pub(super) fn of_earlier_versions() -> AppArmor {
        AppArmor::Unconfined
    }

    /// Makes sure that it can be had: our own is loaded if it is not.
    pub(super) fn ready(&self) -> Result<(), Failure> {
        if *self == AppArmor::Default {
            found();
        }
        self.check()
    }

    fn check(&self) -> Result<(), Failure> {
        match self {
            AppArmor::Default | AppArmor::Unconfined => Ok(()),
            AppArmor::Profile(name) if !is_enabled() => Err(Failure::step(ENTER_PROFILE, name)(rustix::io::Errno::OPNOTSUPP)),
            AppArmor::Profile(name) if is_loaded(name) == Some(false) => Err(Failure::step(ENTER_PROFILE, name)(rustix::io::Errno::NOENT)),
            AppArmor::Profile(_) => Ok(()),
        }
    }

    /// The profile to enter, once this is [`ready`](AppArmor::ready).
    fn wanted(&self) -> Option<&str> {
        match self {
            AppArmor::Unconfined => None,
            AppArmor::Default => Some(DEFAULT_PROFILE).filter(|_| matches!(found(), Found::Loaded | Found::Unknown)),
            AppArmor::Profile(name) => Some(name),
        }
    }

    /// The profile for another runtime, which is to fail where it is not there.
    pub(super) fn for_others(&self) -> &str {
        self.wanted().filter(|_| *self != AppArmor::Default || *found() == Found::Loaded).unwrap_or_default()
    }

    /// Has the next program be in the profile that this process, or one that it makes, executes. `/proc` must be the host's.
    pub(super) fn on_exec(&self) -> Result<(), Failure> {
        let Some(profile) = self.wanted() else { return Ok(()) };
        let written = host_proc().and_then(|proc| enter_on_exec(&proc, profile));
        self.unless_missing(profile, written)
    }

    /// The same for a process that ends with its parent. Where executing a program changes the profile, AppArmor has a process forget that, so our own profile, which lets it execute all,
    /// is entered before, by the door. Others may not.
    pub(super) fn before_exec(&self) -> Result<Option<Door>, Failure> {
        if *self == AppArmor::Default { self.door() } else { self.on_exec().map(|()| None) }
    }

    /// What [`AppArmor::enter`] needs, to be opened while `/proc` is the host's, by the process that is to enter.
    pub(super) fn door(&self) -> Result<Option<Door>, Failure> {
        let Some(profile) = self.wanted() else { return Ok(None) };
        let file = host_proc().and_then(|proc| attribute(&proc, "current"));
        let file = file.map_err(Failure::step(ENTER_PROFILE, profile))?;
        Ok(Some(Door(file)))
    }

    /// Puts this process itself into the profile.
    pub(super) fn enter(&self, door: Option<Door>) -> Result<(), Failure> {
        let (Some(Door(mut file)), Some(profile)) = (door, self.wanted()) else { return Ok(()) };
        self.unless_missing(profile, file.write_all(format!("changeprofile {profile}").as_bytes()))
    }

    /// An ordinary user cannot see which profiles there are, so our own is missed by trying.
    fn unless_missing(&self, profile: &str, written: io::Result<()>) -> Result<(), Failure> {
        match written {
            Err(error) if *self == AppArmor::Default && *found() == Found::Unknown && error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
            other => other.map_err(Failure::step(ENTER_PROFILE, profile)),
        }
    }
}

/// An open file by which a process changes its own profile.
pub(super) struct Door(File);

/// `/proc` as it is seen here.
pub(super) fn host_proc() -> io::Result<OwnedFd> {
    Ok(rustix::fs::openat(CWD, "/proc", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
}

/// The same as [`AppArmor::on_exec`], with a `/proc` of before.
pub(super) fn enter_on_exec(proc: &impl AsFd, profile: &str) -> io::Result<()> {
    attribute(proc, "exec")?.write_all(format!("exec {profile}").as_bytes())
}

/// A file about this process. Before Linux 5.1 AppArmor has no directory of its own.
fn attribute(proc: &impl AsFd, name: &str) -> io::Result<File> {
    let open = |path: String| rustix::fs::openat(proc, path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty());
    let file = open(format!("thread-self/attr/apparmor/{name}")).or_else(|_| open(format!("thread-self/attr/{name}")))?;
    Ok(file.into())
}

/// Whether the kernel has AppArmor, and it is on.
pub fn is_enabled() -> bool {
    static ENABLED_HERE: OnceLock<bool> = OnceLock::new();
    *ENABLED_HERE.get_or_init(|| std::fs::read(ENABLED).is_ok_and(|text| text.starts_with(b"Y")))
}

/// Whether a profile is loaded, where that can be told.
pub(super) fn is_loaded(name: &str) -> Option<bool> {
    let text = std::fs::read_to_string(PROFILES).ok()?;
    Some(text.lines().any(|line| line.rsplit_once(" (").is_some_and(|(known, _)| known == name)))
}

/// How our profile was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// It is loaded.
    Loaded,
    /// Only root can tell; whether it is there is tried.
    Unknown,
    /// There is no AppArmor.
    Absent,
    /// A container around this, or something else, has put this process into a profile.
    Surrounded(String),
    /// It is not loaded; the program that can load it, where that is installed.
    Missing(Option<&'static str>),
}

/// Finds out whether our profile is loaded, and loads it where it is not; once in a process and those that it makes.
fn found() -> &'static Found {
    static FOUND: OnceLock<Found> = OnceLock::new();
    FOUND.get_or_init(|| match look() {
        // A profile that cannot be loaded is missed as one that nothing can load is: `doctor` tells.
        Found::Missing(Some(parser)) if load(parser).is_ok_and(|loaded| loaded) => Found::Loaded,
        other => other,
    })
}

/// Finds out whether our profile is loaded, and changes nothing.
pub fn look() -> Found {
    if !is_enabled() {
        return Found::Absent;
    }
    let read = |path: &str| std::fs::read_to_string(path);
    let own = read("/proc/thread-self/attr/apparmor/current").or_else(|_| read("/proc/thread-self/attr/current")).unwrap_or_default();
    let own = own.trim_end_matches(['\n', '\0']);
    if own != UNCONFINED && !own.ends_with(" (unconfined)") {
        return Found::Surrounded(own.to_owned());
    }
    match is_loaded(DEFAULT_PROFILE) {
        Some(true) => Found::Loaded,
        Some(false) => Found::Missing(PARSERS.into_iter().find(|path| std::fs::exists(path).unwrap_or(false))),
        None => Found::Unknown,
    }
}

/// Loads our profile; says whether the program did.
fn load(parser: &str) -> io::Result<bool> {
    let mut command = Command::new(parser);
    // Without its cache: that belongs to the profiles of the system.
    command.args(["--replace", "--skip-cache"]).env_clear().stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command.spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(RULES.as_bytes())?;
    }
    Ok(child.wait()?.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn profiles_are_named_as_docker_names_them() {
        assert_eq!(AppArmor::named("unconfined"), AppArmor::Unconfined);
        assert_eq!(AppArmor::named("strake-default"), AppArmor::Default);
        assert_eq!(AppArmor::named("x//y"), AppArmor::Profile("x//y".to_owned()));
    }

    #[test]
    fn a_profile_that_is_named_must_be_there() {
        let refused = AppArmor::named("there-is-no-such-profile").ready();
        // Where only root may list profiles, it is found out when it is entered.
        if !is_enabled() || is_loaded(DEFAULT_PROFILE).is_some() {
            assert!(matches!(&refused, Err(Failure::Step { path, .. }) if path == "there-is-no-such-profile"), "{refused:?}");
        }
        assert_eq!(AppArmor::Unconfined.ready(), Ok(()));
    }
}
