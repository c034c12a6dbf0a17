//! Control groups of sandboxes, on v2, v1 and hybrid systems.
//!
//! Who asks for no limits, and needs no rules for devices, gets no group on v1 and hybrid systems: a process is moved into a v1 group, which waits for an RCU grace period (milliseconds), and
//! a group without limits tells nothing that is worth it. On v2 the process is born in its group, which costs microseconds, and gives the peak memory of
//! the whole sandbox. Without limits a group that cannot be made is not missed; with limits it is an error.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rustix::fs::{Access, CWD, Mode, OFlags};

use super::bundle::DeviceRule;
use super::device_rules;
use super::error::{Failure, LimitKind};
use super::scope;
use super::spec::{CgroupSpec, ThrottleKind};

const ROOT: &str = "/sys/fs/cgroup";

/// Where groups are made unless the spec says otherwise.
const PARENT: &str = "strake";

/// The leaf for the processes that are in the way of a group's controllers.
const LEAF: &str = "strake-init";

/// The CPU bandwidth period in microseconds.
const PERIOD: u64 = 100_000;

/// How old an empty group is that nobody will use any more.
const STALE: Duration = Duration::from_secs(60);

/// Whether all controllers are in the one v2 hierarchy.
pub fn is_unified() -> bool {
    is_version_2(Path::new(ROOT))
}

fn is_version_2(directory: &Path) -> bool {
    const CGROUP2_SUPER_MAGIC: i64 = 0x6367_7270;
    rustix::fs::statfs(directory).is_ok_and(|stat| stat.f_type == CGROUP2_SUPER_MAGIC)
}

/// The v1 controllers whose groups a sandbox is put into, with limits or where only their parent is named.
const LEGACY_CONTROLLERS: [&str; 6] = ["memory", "cpu", "cpuacct", "cpuset", "pids", "blkio"];

/// The groups of one sandbox, removed on drop.
#[derive(Debug, Default)]
pub(super) struct Cgroup {
    /// One directory per hierarchy.
    directories: Vec<PathBuf>,
    /// The v2 directory, to be born in.
    unified: Option<OwnedFd>,
    /// `cgroup.procs` of the v1 groups, to be moved into.
    joins: Vec<OwnedFd>,
    /// The group that accounts memory.
    memory: Option<PathBuf>,
}

/// A value to write: controller, file, text.
struct Setting {
    kind: LimitKind,
    controller: &'static str,
    file: &'static str,
    value: String,
    /// Whether a kernel without the file (no swap accounting) is good enough.
    optional: bool,
    /// Another file and its text, for kernels without that one.
    instead: Option<(&'static str, String)>,
}

impl Setting {
    /// Whether the group in `directory` has what it sets.
    fn is_there(&self, directory: &Path) -> bool {
        directory.join(self.file).exists() || self.instead.as_ref().is_some_and(|(file, _)| directory.join(file).exists())
    }
}

/// A limit of processes that was raised for a moment, as a command that enters a group is born in it, while others come to it as they are.
#[derive(Debug)]
pub(super) struct Room {
    file: std::fs::File,
    limit: u64,
    raised: u64,
}

impl Room {
    /// Sets the limit to what it was, unless somebody has changed it.
    pub(super) fn close(self) {
        if number_in(&self.file) == Some(self.raised) {
            let _ = self.file.write_all_at(self.limit.to_string().as_bytes(), 0);
        }
    }
}

impl AsFd for Room {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

fn number_in(file: &std::fs::File) -> Option<u64> {
    let mut text = [0; 32];
    let length = file.read_at(&mut text, 0).ok()?;
    std::str::from_utf8(&text[..length]).ok()?.trim().parse().ok()
}

impl Cgroup {
    /// Makes the groups that `spec` needs; `None` where none is needed, or none is possible and no limit was asked for.
    /// With `needed` one is made wherever that is possible, as the only way to find its processes again. With rules for devices there is one.
    pub(super) fn prepare(spec: Option<&CgroupSpec>, needed: bool, devices: Option<&[DeviceRule]>) -> Result<Option<Cgroup>, Failure> {
        let empty = CgroupSpec::default();
        let spec = spec.unwrap_or(&empty);
        let mut group = Cgroup::prepare_limits(spec, needed || devices.is_some())?;
        if let Some(rules) = devices {
            group.get_or_insert_default().shut_devices(spec, rules)?;
        }
        Ok(group)
    }

    /// Keeps the processes of the group from all devices but those that the rules allow.
    fn shut_devices(&mut self, spec: &CgroupSpec, rules: &[DeviceRule]) -> Result<(), Failure> {
        let fail = |error: io::Error| unavailable(LimitKind::Devices, error.to_string());
        match &self.unified {
            Some(group) => device_rules::attach(group, rules).map_err(fail),
            None if is_unified() => Err(unavailable(LimitKind::Devices, "no control group can be made".to_owned())),
            None => device_rules::write(&self.add_legacy(spec, "devices", LimitKind::Devices)?, rules).map_err(fail),
        }
    }

    fn prepare_limits(spec: &CgroupSpec, needed: bool) -> Result<Option<Cgroup>, Failure> {
        let unified = is_unified();
        if !spec.has_limits() {
            return match (&spec.parent, unified) {
                // Who names a parent wants the processes there, whether it can be had cheaply or not.
                (Some(_), true) => Cgroup::make_unified(spec, &[]).map(Some),
                (Some(_), false) => Cgroup::make_legacy_everywhere(spec).map(Some),
                (None, true) => Ok(Cgroup::unlimited(spec)),
                (None, false) if needed => Ok(Cgroup::make_legacy_everywhere(spec).ok()),
                (None, false) => Ok(None),
            };
        }
        if unified && (spec.swappiness.is_some() || spec.oom_kill_disable) {
            let reason = "control groups of version 2 have neither a swappiness nor a way to keep processes from being killed".to_owned();
            return Err(unavailable(LimitKind::Swapping, reason));
        }
        let settings = if unified { unified_settings(spec) } else { legacy_settings(spec) };
        if unified { Cgroup::make_unified(spec, &settings).map(Some) } else { Cgroup::make_legacy(spec, &settings).map(Some) }
    }

    fn unlimited(spec: &CgroupSpec) -> Option<Cgroup> {
        let parent = unified_base().join(PARENT);
        make_dir_all(&parent).ok()?;
        // With the memory controller the group knows its peak; without, it still does no harm.
        let _ = std::fs::write(parent.join("cgroup.subtree_control"), "+memory");
        let directory = make_group(&parent, spec).ok()?;
        Cgroup::open_unified(directory).ok()
    }

    fn open_unified(directory: PathBuf) -> Result<Cgroup, Failure> {
        let fail = Failure::step("open the control group", directory.display());
        let fd = rustix::fs::openat(CWD, &directory, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).map_err(fail)?;
        let memory = directory.join("memory.current").exists().then(|| directory.clone());
        Ok(Cgroup { directories: vec![directory], unified: Some(fd), joins: Vec::new(), memory })
    }

    fn make_unified(spec: &CgroupSpec, settings: &[Setting]) -> Result<Cgroup, Failure> {
        let (base, relative) = match &spec.parent {
            Some(parent) => (PathBuf::from(ROOT), parent.trim_start_matches('/')),
            None => (base_with(settings)?, PARENT),
        };
        let parent = base.join(relative);
        make_dir_all(&parent).map_err(cgroup_failure(&parent))?;
        for setting in settings {
            let mut at = base.clone();
            enable(&at, setting)?;
            for name in relative.split('/').filter(|name| !name.is_empty()) {
                at.push(name);
                enable(&at, setting)?;
            }
        }
        let directory = make_group(&parent, spec).map_err(cgroup_failure(&parent))?;
        let group = Cgroup::open_unified(directory.clone())?;
        settings.iter().try_for_each(|setting| write_setting(&directory, setting))?;
        Ok(group)
    }

    /// A group without limits in the hierarchy of every v1 controller that limits something.
    fn make_legacy_everywhere(spec: &CgroupSpec) -> Result<Cgroup, Failure> {
        let mut group = Cgroup::default();
        for controller in LEGACY_CONTROLLERS.into_iter().filter(|name| Path::new(ROOT).join(name).is_dir()) {
            group.add_legacy(spec, controller, LimitKind::Memory)?;
        }
        Ok(group)
    }

    fn make_legacy(spec: &CgroupSpec, settings: &[Setting]) -> Result<Cgroup, Failure> {
        let mut group = Cgroup::default();
        let mut made: Vec<(&str, PathBuf)> = Vec::new();
        for setting in settings {
            let directory = match made.iter().find(|(controller, _)| *controller == setting.controller) {
                Some((_, directory)) => directory.clone(),
                None => {
                    let directory = group.add_legacy(spec, setting.controller, setting.kind)?;
                    made.push((setting.controller, directory.clone()));
                    directory
                }
            };
            write_setting(&directory, setting)?;
        }
        // Programs that look for their limits want to see the groups of all these (the JVM takes a system with fewer for one without limits). Two may be one hierarchy,
        // whose group is that with the limits.
        let place = |controller: &str| Path::new(ROOT).join(controller).canonicalize().ok();
        let mut known: Vec<_> = made.iter().map(|(controller, _)| place(controller)).collect();
        for controller in LEGACY_CONTROLLERS {
            let place = place(controller);
            if !known.contains(&place) {
                known.push(place);
                let _ = group.add_legacy(spec, controller, LimitKind::Memory);
            }
        }
        Ok(group)
    }

    /// Makes the group in the hierarchy of one v1 controller.
    fn add_legacy(&mut self, spec: &CgroupSpec, controller: &str, kind: LimitKind) -> Result<PathBuf, Failure> {
        let root = Path::new(ROOT).join(controller);
        if !root.is_dir() {
            return Err(unavailable(kind, format!("the `{controller}` cgroup controller is not mounted")));
        }
        let parent = root.join(spec.parent.as_deref().unwrap_or(PARENT).trim_start_matches('/'));
        make_dir_all(&parent).map_err(cgroup_failure(&parent))?;
        let directory = make_group(&parent, spec).map_err(cgroup_failure(&parent))?;
        self.directories.push(directory.clone());
        if controller == "cpuset" {
            // A v1 cpuset is born without CPUs and memory, at every level.
            let below: Vec<_> = directory.ancestors().take_while(|group| *group != root).collect();
            for group in below.into_iter().rev() {
                for file in ["cpuset.cpus", "cpuset.mems"] {
                    inherit(group, file).map_err(cgroup_failure(group))?;
                }
            }
        }
        if controller == "memory" {
            self.memory = Some(directory.clone());
        }
        self.joins.push(open_procs(&directory)?);
        Ok(directory)
    }

    /// The groups in these directories, which another process made and removes.
    pub(super) fn existing(directories: &[PathBuf]) -> Result<Cgroup, Failure> {
        let mut group = Cgroup::default();
        for directory in directories {
            if is_version_2(directory) {
                let mut opened = Cgroup::open_unified(directory.clone())?;
                opened.directories.clear();
                group.unified = opened.unified.take();
            } else {
                group.joins.push(open_procs(directory)?);
            }
        }
        Ok(group)
    }

    /// Sees to it that two more processes can be born in the groups in these directories, which have as many as they may.
    pub(super) fn make_room(groups: &[PathBuf]) -> Option<Room> {
        const NEEDED: u64 = 2;
        groups.iter().find_map(|group| {
            let file = std::fs::File::options().read(true).write(true).open(group.join("pids.max")).ok()?;
            // Of several, the next one finds the limit as it is meant.
            rustix::fs::flock(&file, rustix::fs::FlockOperation::LockExclusive).ok()?;
            // No number is no limit.
            let limit = number_in(&file)?;
            let now: u64 = std::fs::read_to_string(group.join("pids.current")).ok()?.trim().parse().ok()?;
            // Those that came to it are there beyond the limit.
            let raised = limit.max(now).checked_add(NEEDED)?;
            (now + NEEDED > limit && file.write_all_at(raised.to_string().as_bytes(), 0).is_ok()).then_some(Room { file, limit, raised })
        })
    }

    /// The groups that another runtime is about to make in these directories. They are removed with this value, as far as they are there.
    pub(super) fn adopt(directories: Vec<PathBuf>) -> Cgroup {
        let memory_hierarchy = Path::new(ROOT).join(if is_unified() { "" } else { "memory" });
        let memory = directories.iter().find(|directory| directory.starts_with(&memory_hierarchy)).cloned();
        Cgroup { directories, unified: None, joins: Vec::new(), memory }
    }

    /// The groups of [`Cgroup::adopt`] have been made, as far as they ever will.
    pub(super) fn adopted(&mut self) {
        self.directories.retain(|directory| directory.exists());
    }

    /// Where the groups are.
    pub(super) fn directories(&self) -> &[PathBuf] {
        &self.directories
    }

    /// The directory for `CLONE_INTO_CGROUP`.
    pub(super) fn unified(&self) -> Option<BorrowedFd<'_>> {
        self.unified.as_ref().map(|fd| fd.as_fd())
    }

    /// Gives up being born in the v2 group (before Linux 5.7, or where the group may not hold processes yet): init moves into it. Says whether there was one.
    pub(super) fn join_instead(&mut self) -> Result<bool, Failure> {
        let Some(directory) = self.unified.take() else { return Ok(false) };
        let flags = OFlags::WRONLY | OFlags::CLOEXEC;
        let procs = rustix::fs::openat(&directory, "cgroup.procs", flags, Mode::empty()).map_err(Failure::step("open", "cgroup.procs"))?;
        self.joins.push(procs);
        Ok(true)
    }

    /// Moves the calling process into the groups that it is not born in.
    pub(super) fn join(&self) -> Result<(), Failure> {
        for procs in &self.joins {
            rustix::io::write(procs, b"0").map_err(Failure::step("enter", "the control group"))?;
        }
        Ok(())
    }

    /// The most memory that the group used, and whether something in it was killed for want of memory.
    pub(super) fn memory_usage(&self) -> (Option<u64>, bool) {
        let Some(directory) = &self.memory else { return (None, false) };
        let number = |file: &str| std::fs::read_to_string(directory.join(file)).ok()?.trim().parse().ok();
        let peak = number("memory.peak").or_else(|| number("memory.max_usage_in_bytes"));
        let killed = ["memory.events", "memory.oom_control"].iter().any(|file| {
            let text = std::fs::read_to_string(directory.join(file)).unwrap_or_default();
            text.lines().filter_map(|line| line.strip_prefix("oom_kill ")).any(|count| count.trim() != "0")
        });
        (peak, killed)
    }

    /// Kills all processes in the group, also those that are being made meanwhile.
    pub(super) fn kill_all(&self) {
        let Some(directory) = self.directories.first() else { return };
        // Linux 5.14, version 2.
        if std::fs::write(directory.join("cgroup.kill"), "1").is_ok() {
            return;
        }
        for _ in 0..100 {
            let text = std::fs::read_to_string(directory.join("cgroup.procs")).unwrap_or_default();
            let pids: Vec<i32> = text.lines().filter_map(|line| line.parse().ok()).collect();
            if pids.is_empty() {
                return;
            }
            for pid in pids.into_iter().filter_map(rustix::process::Pid::from_raw) {
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Removes the groups as far as they are empty, with those that a privileged container has made below; says whether all are gone.
    pub(super) fn try_remove(&mut self) -> bool {
        self.joins.clear();
        self.directories.retain(|directory| match remove_tree(directory) {
            Ok(()) => false,
            Err(error) => error.raw_os_error() == Some(libc::EBUSY),
        });
        self.directories.is_empty()
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // The kernel takes a moment to account the last process out.
        for wait in [0, 1, 5, 20, 50] {
            std::thread::sleep(Duration::from_millis(wait));
            if self.try_remove() {
                return;
            }
        }
    }
}

/// Where [`PARENT`] is on a v2 system: at the top, or where that is not ours in the group of this process, which was delegated to us if anything was
/// (cgroups(7), "cgroup delegation").
fn unified_base() -> PathBuf {
    let writable = |path: &Path| rustix::fs::access(path, Access::WRITE_OK).is_ok();
    let root = PathBuf::from(ROOT);
    if writable(&root) {
        return root;
    }
    let groups = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let own = groups.lines().find_map(|line| line.strip_prefix("0::/")).map(|path| root.join(path.strip_suffix(LEAF).unwrap_or(path)));
    own.filter(|own| writable(own)).unwrap_or(root)
}

/// The same for groups with limits. An ordinary user whose own group cannot have them gets one from systemd, into which this process is moved.
fn base_with(settings: &[Setting]) -> Result<PathBuf, Failure> {
    let base = unified_base();
    let writable = rustix::fs::access(&base, Access::WRITE_OK).is_ok();
    let lacks = |setting: &&Setting| !lists(&base, "cgroup.controllers", setting.controller);
    let missing = if writable { settings.iter().find(lacks) } else { settings.first() };
    let Some(missing) = missing.filter(|_| base == Path::new(ROOT) || writable) else { return Ok(base) };
    match scope::enter() {
        Ok(()) => Ok(unified_base()),
        // What is lacking is said where it is handed on.
        Err(_) if writable => Ok(base),
        Err(error) => Err(unavailable(missing.kind, format!("no control group is this user's, and {error}"))),
    }
}

/// The `cgroupsPath` of a container that another runtime makes.
pub(super) fn path_for_others(spec: Option<&CgroupSpec>, id: &str) -> String {
    let parent = match spec.and_then(|spec| spec.parent.as_deref()) {
        Some(parent) => PathBuf::from(parent.trim_matches('/')),
        None if is_unified() => unified_base().strip_prefix(ROOT).unwrap_or(Path::new("")).join(PARENT),
        None => PathBuf::from(PARENT),
    };
    format!("/{}", parent.join(id).display())
}

/// The v1 groups that the sandbox `name`, which was started without limits, has got since.
pub(super) fn late(name: &str) -> Vec<PathBuf> {
    let places = LEGACY_CONTROLLERS.iter().map(|controller| Path::new(ROOT).join(controller).join(PARENT).join(name));
    places.filter(|group| group.is_dir()).collect()
}

/// Makes those v1 groups that `limits` need beside the ones in `directories`, for the sandbox `name`. Its processes are not in them yet.
pub(super) fn make_late(name: &str, directories: &[PathBuf], limits: &CgroupSpec) -> Result<Vec<PathBuf>, Failure> {
    if is_unified() {
        return Ok(Vec::new());
    }
    let spec = CgroupSpec { name: Some(name.to_owned()), ..CgroupSpec::default() };
    let mut group = Cgroup::default();
    for setting in legacy_settings(limits) {
        let root = Path::new(ROOT).join(setting.controller);
        if !directories.iter().chain(&group.directories).any(|known| known.starts_with(&root)) {
            group.add_legacy(&spec, setting.controller, setting.kind)?;
        }
    }
    Ok(std::mem::take(&mut group.directories))
}

/// Removes the groups of [`late`], in which nothing runs any more; says whether something was killed in them for want of memory.
pub(super) fn remove_late(name: &str) -> bool {
    let directories = late(name);
    let memory = directories.iter().find(|group| group.starts_with(Path::new(ROOT).join("memory"))).cloned();
    let group = Cgroup { directories, unified: None, joins: Vec::new(), memory };
    group.memory_usage().1
}

/// Changes the limits of a running sandbox, whose groups are in these directories.
pub(super) fn update(directories: &[PathBuf], spec: &CgroupSpec) -> Result<(), Failure> {
    let unified = is_unified();
    let mut settings = if unified { unified_settings(spec) } else { legacy_settings(spec) };
    // Lower and higher limits need opposite orders, as memory alone may never exceed memory with swap: what is refused at first is tried again at last.
    for last in [false, true] {
        let mut refused = Vec::new();
        for setting in settings {
            let root = Path::new(ROOT).join(setting.controller);
            let fits = |directory: &&PathBuf| if unified { is_version_2(directory) } else { directory.starts_with(&root) };
            let Some(directory) = directories.iter().find(fits) else {
                return Err(unavailable(setting.kind, "it runs without a control group for that".to_owned()));
            };
            if unified && !setting.is_there(directory) {
                hand_on(directory, &setting)?;
            }
            match write_setting(directory, &setting) {
                Err(_) if !last => refused.push(setting),
                other => other?,
            }
        }
        settings = refused;
        settings.reverse();
    }
    Ok(())
}

fn unavailable(what: LimitKind, reason: String) -> Failure {
    Failure::Limit { what, reason }
}

fn cgroup_failure(path: &Path) -> impl FnOnce(io::Error) -> Failure {
    let path = path.display().to_string();
    move |error| Failure::Cgroup { path, errno: error.raw_os_error().unwrap_or(libc::EIO) }
}

fn open_procs(directory: &Path) -> Result<OwnedFd, Failure> {
    let procs = directory.join("cgroup.procs");
    let flags = OFlags::WRONLY | OFlags::CLOEXEC;
    rustix::fs::openat(CWD, &procs, flags, Mode::empty()).map_err(|errno| cgroup_failure(&procs)(errno.into()))
}

fn make_dir_all(path: &Path) -> io::Result<()> {
    std::fs::create_dir_all(path)
}

/// Makes the sandbox's own group. A name that was asked for may be left over from a run that was killed, and is used again.
fn make_group(parent: &Path, spec: &CgroupSpec) -> io::Result<PathBuf> {
    if let Some(name) = &spec.name {
        let path = parent.join(name.replace('/', "-"));
        return match std::fs::create_dir(&path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
            _ => Ok(path),
        };
    }
    sweep_once(parent);
    loop {
        let path = parent.join(format!("{:08x}", getrandom::u32().map_err(|_| io::Error::from_raw_os_error(libc::EIO))?));
        match std::fs::create_dir(&path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            other => return other.map(|()| path),
        }
    }
}

/// Removes what sandboxes left in `parent` whose spawner was killed; once per process. The kernel refuses to remove groups that are in use, and those that
/// were made just now may be about to be used.
fn sweep_once(parent: &Path) {
    static SWEPT: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());
    if !SWEPT.lock().unwrap_or_else(PoisonError::into_inner).insert(parent.to_owned()) {
        return;
    }
    let Ok(entries) = std::fs::read_dir(parent) else { return };
    for entry in entries.flatten() {
        let is_ours = entry.file_name().to_str().is_some_and(|name| name.len() == 8 && u32::from_str_radix(name, 16).is_ok());
        let made = entry.metadata().and_then(|metadata| metadata.created().or(metadata.modified()));
        let is_old = made.is_ok_and(|made| made.elapsed().is_ok_and(|age| age > STALE));
        if !is_ours || !is_old {
            continue;
        }
        // In one that is in use, what its container has made stays.
        let is_empty = std::fs::read_to_string(entry.path().join("cgroup.events")).is_ok_and(|text| text.contains("populated 0"));
        let _ = if is_empty { remove_tree(&entry.path()) } else { std::fs::remove_dir(entry.path()) };
    }
}

/// Looks at a group and all below it, the deepest first.
pub(super) fn visit(group: &Path, look: &mut dyn FnMut(&Path)) {
    let entries = std::fs::read_dir(group).into_iter().flatten().flatten();
    for entry in entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
        visit(&entry.path(), look);
    }
    look(group);
}

/// Removes a group with those below it.
pub(super) fn remove_tree(group: &Path) -> io::Result<()> {
    let mut result = Ok(());
    visit(group, &mut |directory| match std::fs::remove_dir(directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => result = Err(error),
        _ => {}
    });
    result
}

/// Gives a v1 cpuset that has nothing what its parent has.
pub(super) fn inherit(group: &Path, file: &str) -> io::Result<()> {
    if !std::fs::read_to_string(group.join(file))?.trim().is_empty() {
        return Ok(());
    }
    let Some(parent) = group.parent() else { return Ok(()) };
    std::fs::write(group.join(file), std::fs::read_to_string(parent.join(file))?.trim())
}

/// Hands a v2 controller on to a group that was made without it.
fn hand_on(group: &Path, setting: &Setting) -> Result<(), Failure> {
    let base = Some(unified_base()).filter(|base| group.starts_with(base)).unwrap_or_else(|| PathBuf::from(ROOT));
    let above: Vec<&Path> = group.ancestors().skip(1).take_while(|directory| directory.starts_with(&base)).collect();
    above.into_iter().rev().try_for_each(|directory| enable(directory, setting))
}

/// Whether a file of a v2 group names the controller.
fn lists(directory: &Path, file: &str, controller: &str) -> bool {
    let text = std::fs::read_to_string(directory.join(file)).unwrap_or_default();
    text.split_ascii_whitespace().any(|name| name == controller)
}

/// Hands a v2 controller on to the groups in `directory`.
fn enable(directory: &Path, setting: &Setting) -> Result<(), Failure> {
    if lists(directory, "cgroup.subtree_control", setting.controller) {
        return Ok(());
    }
    if !lists(directory, "cgroup.controllers", setting.controller) {
        let reason = format!("the `{}` cgroup controller is not delegated to `{}`", setting.controller, directory.display());
        return Err(unavailable(setting.kind, reason));
    }
    let control = directory.join("cgroup.subtree_control");
    let add = || std::fs::write(&control, format!("+{}", setting.controller));
    match add() {
        // Only leaves may hold processes (cgroups(7), "no internal processes"): in a container this group holds ours.
        Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {
            vacate(directory).map_err(cgroup_failure(directory))?;
            add().map_err(cgroup_failure(&control))
        }
        other => other.map_err(cgroup_failure(&control)),
    }
}

/// Moves the processes of a group to a leaf of it.
pub(super) fn vacate(directory: &Path) -> io::Result<()> {
    let leaf = directory.join(LEAF);
    make_dir_all(&leaf)?;
    for pid in std::fs::read_to_string(directory.join("cgroup.procs"))?.lines() {
        match std::fs::write(leaf.join("cgroup.procs"), pid) {
            Err(error) if error.raw_os_error() != Some(libc::ESRCH) => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

fn write_setting(directory: &Path, setting: &Setting) -> Result<(), Failure> {
    let mut path = directory.join(setting.file);
    let mut value = &setting.value;
    if let (Some((file, text)), false) = (&setting.instead, path.exists()) {
        (path, value) = (directory.join(file), text);
    }
    match std::fs::write(&path, value) {
        Err(error) if setting.optional && matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
            Err(unavailable(setting.kind, format!("the kernel refuses `{}` for {}", setting.value, setting.file)))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound || error.kind() == io::ErrorKind::PermissionDenied => {
            Err(unavailable(setting.kind, format!("this kernel has no {}", setting.file)))
        }
        other => other.map_err(cgroup_failure(&path)),
    }
}

/// What swap may be used together with memory: as much again, unless said otherwise.
pub(super) fn memory_and_swap(spec: &CgroupSpec, memory: u64) -> Option<u64> {
    match spec.memory_swap {
        Some(u64::MAX) => None,
        Some(total) => Some(total.max(memory)),
        None => Some(memory.saturating_mul(2)),
    }
}

fn unified_settings(spec: &CgroupSpec) -> Vec<Setting> {
    let mut out = Vec::new();
    let mut add =
        |kind, controller, file, value: String, optional| out.push(Setting { kind, controller, file, value, optional, instead: None });
    if let Some(memory) = spec.memory {
        add(LimitKind::Memory, "memory", "memory.max", memory.to_string(), false);
        let swap = memory_and_swap(spec, memory).map_or_else(|| "max".to_owned(), |total| (total - memory).to_string());
        add(LimitKind::Memory, "memory", "memory.swap.max", swap, spec.memory_swap.is_none());
    }
    if let Some(bytes) = spec.memory_reservation {
        add(LimitKind::Memory, "memory", "memory.low", bytes.to_string(), false);
    }
    if let Some((quota, period)) = bandwidth(spec) {
        let quota = quota.map_or_else(|| "max".to_owned(), |quota| quota.to_string());
        add(LimitKind::Cpu, "cpu", "cpu.max", format!("{quota} {period}"), false);
    }
    if let Some(shares) = spec.cpu_shares {
        add(LimitKind::Cpu, "cpu", "cpu.weight", cpu_weight(shares).to_string(), false);
    }
    if let Some(cpus) = &spec.cpuset_cpus {
        add(LimitKind::Cpuset, "cpuset", "cpuset.cpus", cpus.clone(), false);
    }
    if let Some(nodes) = &spec.cpuset_mems {
        add(LimitKind::Cpuset, "cpuset", "cpuset.mems", nodes.clone(), false);
    }
    if let Some(pids) = spec.pids {
        add(LimitKind::Pids, "pids", "pids.max", count(pids), false);
    }
    for throttle in &spec.throttles {
        let key = match throttle.kind {
            ThrottleKind::ReadBytes => "rbps",
            ThrottleKind::WriteBytes => "wbps",
            ThrottleKind::ReadOperations => "riops",
            ThrottleKind::WriteOperations => "wiops",
        };
        let (major, minor) = throttle.device;
        add(LimitKind::Disk, "io", "io.max", format!("{major}:{minor} {key}={}", throttle.rate), false);
    }
    if let Some(weight) = spec.blkio_weight {
        // The range 10..=1000 of v1 on 1..=10000 of v2; the scheduler BFQ has a file of its own, with its own range.
        let converted = 1 + (weight.clamp(10, 1000) - 10) * 9999 / 990;
        let instead = Some(("io.weight", converted.to_string()));
        out.push(Setting {
            kind: LimitKind::Disk,
            controller: "io",
            file: "io.bfq.weight",
            value: weight.to_string(),
            optional: false,
            instead,
        });
    }
    out
}

fn legacy_settings(spec: &CgroupSpec) -> Vec<Setting> {
    let mut out = Vec::new();
    let mut add =
        |kind, controller, file, value: String, optional| out.push(Setting { kind, controller, file, value, optional, instead: None });
    if let Some(memory) = spec.memory {
        add(LimitKind::Memory, "memory", "memory.limit_in_bytes", memory.to_string(), false);
        let total = memory_and_swap(spec, memory).map_or_else(|| "-1".to_owned(), |total| total.to_string());
        add(LimitKind::Memory, "memory", "memory.memsw.limit_in_bytes", total, spec.memory_swap.is_none());
    }
    if let Some(bytes) = spec.memory_reservation {
        add(LimitKind::Memory, "memory", "memory.soft_limit_in_bytes", bytes.to_string(), false);
    }
    if let Some((quota, period)) = bandwidth(spec) {
        add(LimitKind::Cpu, "cpu", "cpu.cfs_period_us", period.to_string(), false);
        let quota = quota.map_or_else(|| "-1".to_owned(), |quota| quota.to_string());
        add(LimitKind::Cpu, "cpu", "cpu.cfs_quota_us", quota, false);
    }
    if let Some(shares) = spec.cpu_shares {
        add(LimitKind::Cpu, "cpu", "cpu.shares", shares.to_string(), false);
    }
    if let Some(cpus) = &spec.cpuset_cpus {
        add(LimitKind::Cpuset, "cpuset", "cpuset.cpus", cpus.clone(), false);
    }
    if let Some(nodes) = &spec.cpuset_mems {
        add(LimitKind::Cpuset, "cpuset", "cpuset.mems", nodes.clone(), false);
    }
    if let Some(pids) = spec.pids {
        add(LimitKind::Pids, "pids", "pids.max", count(pids), false);
    }
    if let Some(swappiness) = spec.swappiness {
        add(LimitKind::Memory, "memory", "memory.swappiness", swappiness.to_string(), false);
    }
    if spec.oom_kill_disable {
        add(LimitKind::Memory, "memory", "memory.oom_control", "1".to_owned(), false);
    }
    for throttle in &spec.throttles {
        let file = match throttle.kind {
            ThrottleKind::ReadBytes => "blkio.throttle.read_bps_device",
            ThrottleKind::WriteBytes => "blkio.throttle.write_bps_device",
            ThrottleKind::ReadOperations => "blkio.throttle.read_iops_device",
            ThrottleKind::WriteOperations => "blkio.throttle.write_iops_device",
        };
        let (major, minor) = throttle.device;
        add(LimitKind::Disk, "blkio", file, format!("{major}:{minor} {}", throttle.rate), false);
    }
    if let Some(weight) = spec.blkio_weight {
        let instead = Some(("blkio.bfq.weight", weight.to_string()));
        out.push(Setting {
            kind: LimitKind::Disk,
            controller: "blkio",
            file: "blkio.weight",
            value: weight.to_string(),
            optional: false,
            instead,
        });
    }
    out
}

/// The weight of v2 (1 to 10,000, normally 100) for shares of v1 (2 to 262,144, normally 1024): the curve through the least, the normal and the most, as runc and crun have it.
pub(super) fn cpu_weight(shares: u64) -> u64 {
    match shares {
        ..=2 => 1,
        262_144.. => 10_000,
        _ => {
            let log = (shares as f64).log2();
            10f64.powf((log * log + 125.0 * log) / 612.0 - 7.0 / 34.0).ceil() as u64
        }
    }
}

/// Microseconds of CPU time (`None` is no limit) in each period, and that period.
pub(super) fn bandwidth(spec: &CgroupSpec) -> Option<(Option<u64>, u64)> {
    match (spec.cpu_millis, spec.cpu_quota, spec.cpu_period) {
        (None, None, None) => None,
        (Some(millis), ..) => Some((Some(quota(millis)), PERIOD)),
        (None, quota, period) => Some((quota, period.unwrap_or(PERIOD))),
    }
}

/// Microseconds per period; the kernel takes no less than 1000.
fn quota(cpu_millis: u64) -> u64 {
    (cpu_millis.saturating_mul(PERIOD) / 1000).max(1000)
}

fn count(pids: u64) -> String {
    if pids == u64::MAX { "max".to_owned() } else { pids.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_become_the_weights_that_others_give_them() {
        let weights = [0, 2, 3, 512, 1024, 2048, 262_144, u64::MAX].map(cpu_weight);
        assert_eq!(weights, [1, 1, 2, 59, 100, 174, 10_000, 10_000]);
    }
}
