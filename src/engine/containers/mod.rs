//! Containers: from an image and a request to a [`ContainerSpec`] in a directory of the store, and what can be done with it from then on.
//!
//! Everything here blocks and needs no asynchronous runtime, so that a command on an image that is here starts none; only [`Engine::fetch_image`] asks a registry.
//! A container is the store's row first and its files second: one without files can still be listed and removed. A container that removes itself is removed by
//! whoever sees its end first, the command that started it or the process that was its supervisor.

mod archive;
mod changes;
mod copied;
mod copy_files;
mod events;
mod exec;
mod health;
mod image;
mod inspect;
mod inspect_isolation;
mod inspect_mounts;
mod inspect_network;
mod life;
mod list;
mod local_volumes;
mod merge;
mod mounts;
mod names;
mod network;
mod prepare;
mod propagation;
mod security;
mod sharing;
mod test_run;
mod usage;
mod volumes;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::oci::Platform;
use crate::path::RootPath;
use crate::runtime::bundle::DeviceRule;
use crate::runtime::container::{
    self, Attachment, ContainerSpec, HostAddress, LogDriver, LogOptions, LogRecord, LogSettings, Mode, Outlook, RestartPolicy, Started,
    Starter, State, StdinMode, Waiting,
};
use crate::runtime::network::{PortRequest, ResolvFlags};
use crate::runtime::{AppArmor, Capabilities, CgroupSpec, DeviceSpec, ForeignRuntime, Namespaces, Rlimit, SystemPaths, TerminalSize};
use crate::sys::THIS_PROGRAM;
use crate::task::fault_point;

use super::networks::default_endpoint;
use super::{Engine, EngineOptions, Error};

pub use changes::{ChangeKind, CommitRequest, FileChange};
pub use copy_files::CopyFiles;
pub use events::{Event, EventOptions};
pub use exec::ExecOptions;
pub use health::HealthRequest;
pub use image::RunImage;
pub use inspect_network::{endpoint_id, mac_text};
pub use life::{Healed, UpdateRequest};
pub use list::ContainerInfo;
pub use mounts::{MountRequest, Submounts, VolumesFrom, bytes as parse_bytes, parse_mount, parse_tmpfs, parse_volume, parse_volumes_from};
pub(super) use names::random_hex as random_id;
pub use network::{NetworkChoice, RunNetwork};
pub use security::SeccompRequest;
pub use usage::{ContainerUsage, ProcessRow};
pub use volumes::VolumeInfo;

/// How long somebody else's start of a container is waited for.
const STARTING: Duration = Duration::from_secs(30);

/// What a container is to be, beyond what its image says.
#[derive(Clone, Debug)]
pub struct RunRequest {
    /// The image, as the user wrote it.
    pub image: String,
    /// The command and its arguments; empty takes the image's.
    pub args: Vec<String>,
    /// In place of the image's entry point; an empty one takes it away.
    pub entrypoint: Option<String>,
    /// The container's name; made up where it is `None`.
    pub name: Option<String>,
    /// The ID that was made up for it already ([`Ahead`]).
    pub id: Option<String>,
    /// Variables, in order; one without a value is taken away.
    pub env: Vec<(String, Option<String>)>,
    /// Labels beyond the image's.
    pub labels: BTreeMap<String, String>,
    /// The working directory.
    pub workdir: Option<String>,
    /// The user, as in `USER`.
    pub user: Option<String>,
    /// Groups beside the user's own, by name or number.
    pub group_add: Vec<String>,
    /// The host name; the beginning of the ID where it is `None`.
    pub hostname: Option<String>,
    /// Whether it has a terminal.
    pub tty: bool,
    /// The size of that terminal at first.
    pub terminal: Option<TerminalSize>,
    /// What it reads.
    pub stdin: StdinMode,
    /// Whether it is removed when it has ended.
    pub auto_remove: bool,
    /// Volumes, directories of the host and file systems in memory.
    pub mounts: Vec<MountRequest>,
    /// The options of `--tmpfs` as they were written, by where each is mounted.
    pub tmpfs_options: BTreeMap<String, String>,
    /// Which of the mounts were asked for by `--mount`: where they are.
    pub mount_targets: Vec<RootPath>,
    /// Containers whose volumes it gets.
    pub volumes_from: Vec<VolumesFrom>,
    /// The network.
    pub network: RunNetwork,
    /// Names for its `/etc/hosts`.
    pub extra_hosts: Vec<(String, HostAddress)>,
    /// Other containers, and what it calls them.
    pub links: Vec<(String, String)>,
    /// The domain that it is in.
    pub domain: Option<String>,
    /// What it wants in its `/etc/resolv.conf`.
    pub resolv: ResolvFlags,
    /// Ports that it listens at beside the image's: `80/tcp`.
    pub ports: Vec<String>,
    /// Ports of it that are to be reached at the host's addresses.
    pub publish: Vec<PortRequest>,
    /// Whether all ports that it listens at are.
    pub publish_all: bool,
    /// Who runs it; `None` is our own runtime.
    pub runtime: Option<ForeignRuntime>,
    /// Whether PID 1 is a small init.
    pub init: bool,
    /// Whether its root is read-only.
    pub read_only: bool,
    /// Whether it may do everything.
    pub privileged: bool,
    /// Capabilities beyond the default ones.
    pub cap_add: Capabilities,
    /// Default capabilities that it does not get.
    pub cap_drop: Capabilities,
    /// Whether set-user-ID programs gain nothing.
    pub no_new_privileges: bool,
    /// Namespaces that it shares; other containers by the names that the user gave.
    pub namespaces: Namespaces,
    /// Whether its users are none of the host's.
    pub own_users: bool,
    /// The system call filter.
    pub seccomp: SeccompRequest,
    /// The AppArmor profile; where it is `None`, what suits its privileges.
    pub apparmor: Option<AppArmor>,
    /// Options about security modules, for display.
    pub security_labels: Vec<String>,
    /// Whether the kernel's sensitive files are masked.
    pub system_paths: SystemPaths,
    /// Devices of the host.
    pub devices: Vec<DeviceSpec>,
    /// Devices by the names that CDI specifications give them.
    pub named_devices: Vec<String>,
    /// Rules about the use of other devices, with what they were written as.
    pub device_rules: Vec<(String, DeviceRule)>,
    /// Kernel parameters of its namespaces.
    pub sysctls: Vec<(String, String)>,
    /// Limits of each process.
    pub rlimits: Vec<Rlimit>,
    /// How readily it is killed when memory runs out.
    pub oom_score_adjust: Option<i32>,
    /// Limits.
    pub limits: CgroupSpec,
    /// The size of `/dev/shm`.
    pub shm_size: Option<u64>,
    /// Whether it is started again when it has ended.
    pub restart: RestartPolicy,
    /// How its health is found out, where that is not as the image says.
    pub health: HealthRequest,
    /// Where its output is kept.
    pub log: LogSettings,
    /// The options of that as they were written.
    pub log_options: BTreeMap<String, String>,
    /// The signal that asks it to stop.
    pub stop_signal: Option<i32>,
    /// How long after that it is killed.
    pub stop_timeout: Option<Duration>,
    /// What others are to read of it.
    pub annotations: BTreeMap<String, String>,
    /// The file that its ID is written to, for display.
    pub cidfile: String,
    /// The streams that the command which makes it is attached to (input, output, errors), for display.
    pub attached: [bool; 3],
    /// The platform that the image must have.
    pub platform: Option<Platform>,
}

impl RunRequest {
    /// A request that asks for nothing but an image.
    pub fn new(image: impl Into<String>) -> RunRequest {
        RunRequest {
            image: image.into(),
            args: Vec::new(),
            entrypoint: None,
            name: None,
            id: None,
            env: Vec::new(),
            labels: BTreeMap::new(),
            workdir: None,
            user: None,
            group_add: Vec::new(),
            hostname: None,
            tty: false,
            terminal: None,
            stdin: StdinMode::Closed,
            auto_remove: false,
            mounts: Vec::new(),
            tmpfs_options: BTreeMap::new(),
            mount_targets: Vec::new(),
            volumes_from: Vec::new(),
            network: RunNetwork::None,
            extra_hosts: Vec::new(),
            links: Vec::new(),
            domain: None,
            resolv: ResolvFlags::default(),
            ports: Vec::new(),
            publish: Vec::new(),
            publish_all: false,
            runtime: None,
            init: false,
            read_only: false,
            privileged: false,
            cap_add: Capabilities::NONE,
            cap_drop: Capabilities::NONE,
            no_new_privileges: false,
            namespaces: Namespaces::default(),
            own_users: false,
            seccomp: SeccompRequest::Default,
            apparmor: None,
            security_labels: Vec::new(),
            system_paths: SystemPaths::Masked,
            devices: Vec::new(),
            named_devices: Vec::new(),
            device_rules: Vec::new(),
            sysctls: Vec::new(),
            rlimits: Vec::new(),
            oom_score_adjust: None,
            limits: CgroupSpec::default(),
            shm_size: None,
            restart: RestartPolicy::No,
            health: HealthRequest::default(),
            log: LogSettings::default(),
            log_options: BTreeMap::new(),
            stop_signal: None,
            stop_timeout: None,
            annotations: BTreeMap::new(),
            cidfile: String::new(),
            attached: [false; 3],
            platform: None,
        }
    }
}

/// What becomes of the files of a container that is removed.
#[derive(Clone, Copy, Debug)]
enum Files {
    Removed,
    /// Somebody else removes them ([`remove_remains`](crate::store::remove_remains)).
    Left,
}

/// The supervisor of a container that is still to be made: it makes ready what any container needs meanwhile.
#[derive(Debug)]
pub struct Ahead {
    /// The ID that the container gets ([`RunRequest::id`]).
    pub id: String,
    mode: Mode,
    waiting: Waiting,
}

/// How supervisors are executed.
fn starter(options: &EngineOptions) -> Starter {
    // The process outlives this one, and must find the store to remove its container.
    // Its working directory is another one.
    let absolute = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.to_owned()).into_os_string();
    let mut env = vec![("STRAKE_ROOT".into(), absolute(&options.root)), ("STRAKE_RUN_DIR".into(), absolute(&options.run_dir))];
    // Where programs are that may carry the container's packets.
    env.extend(std::env::join_paths(&options.programs).ok().map(|path| ("PATH".into(), path)));
    // It is executed from a mount that has no name, and may have to name this program to another runtime.
    env.extend(std::fs::read_link(THIS_PROGRAM).ok().map(|path| ("STRAKE_PROGRAM".into(), path.into_os_string())));
    Starter { env, ..Starter::default() }
}

impl Engine {
    /// The container that `text` means.
    pub fn container(&self, text: &str) -> Result<ContainerInfo, Error> {
        let record = self.store().find_container(text)?.ok_or_else(|| Error::NoSuchContainer { name: text.to_owned() })?;
        Ok(ContainerInfo::load(self.store(), record))
    }

    /// All containers, newest first. Those that should have removed themselves, and were kept from it by being killed, are removed now.
    pub fn containers(&self) -> Result<Vec<ContainerInfo>, Error> {
        let mut all = Vec::new();
        for record in self.store().containers()? {
            let info = ContainerInfo::load(self.store(), record);
            let ended = matches!(info.state, Some(State::Exited { .. }));
            let removes_itself = ended && info.spec.as_ref().is_some_and(|spec| spec.auto_remove);
            // One that cannot be removed now is still there, and is listed.
            if !removes_itself || self.discard_container(&info, true).is_err() {
                all.push(info);
            }
        }
        Ok(all)
    }

    /// Starts the supervisor of a container that is to be made by the engine with these options, probably on the network of those that ask for none (`on_bridge`). Where this process is
    /// killed over that, it removes one of `--rm` (`removes_itself`). `None` where that is of no use (there is no store yet): then the container is started as others are.
    pub fn ahead(options: &EngineOptions, mode: Mode, on_bridge: bool, removes_itself: bool) -> Option<Ahead> {
        let root = options.root.canonicalize().ok()?;
        let id = crate::store::new_container_id().ok()?;
        let endpoints = on_bridge.then(|| default_endpoint(&options.run_dir)).into_iter().collect();
        let outlook = Outlook { endpoints, removes_itself };
        let waiting = starter(options).ahead(&crate::store::container_dir(&root, &id), mode, &outlook).ok()?;
        Some(Ahead { id, mode, waiting })
    }

    /// Starts a container that was made, or has ended.
    pub fn start_container(&self, info: &ContainerInfo, mode: Mode) -> Result<Started, Error> {
        self.start_by(info, mode, || starter(self.options()).start(&info.dir, mode))
    }

    /// Starts a container that was made with the ID of `ahead`.
    pub fn start_by_ahead(&self, info: &ContainerInfo, ahead: Ahead) -> Result<Started, Error> {
        self.start_by(info, ahead.mode, || ahead.waiting.go())
    }

    fn start_by(
        &self,
        info: &ContainerInfo,
        mode: Mode,
        start: impl FnOnce() -> Result<Started, container::Error>,
    ) -> Result<Started, Error> {
        self.check_networks(info)?;
        info.spec.as_ref().map_or(Ok(()), mounts::make_missing)?;
        if mode == Mode::Attached {
            self.event("container", "attach", info, &[]);
        }
        fault_point("container:starting");
        let started = start().map_err(|source| info.failed("start", source));
        fault_point("container:started");
        started
    }

    /// Starts a container unless it runs, or somebody else starts it at this moment: then it gives `None` once it runs.
    ///
    /// # Errors
    /// It stands still, or cannot be started.
    pub fn start_unless_running(&self, info: &ContainerInfo, mode: Mode) -> Result<Option<Started>, Error> {
        let (mut now, begun) = (info.clone(), Instant::now());
        loop {
            if now.is_paused() {
                self.must_run(&now, "start")?;
            }
            if now.is_alive() {
                return Ok(None);
            }
            match self.start_container(&now, mode) {
                // Whoever starts it may fail yet.
                Err(Error::Container { source: container::Error::Running, .. }) if begun.elapsed() < STARTING => {
                    now = self.container(&info.record.id)?
                }
                other => return other.map(Some),
            }
        }
    }

    /// A connection to a running container that gets its output from now on.
    ///
    /// # Errors
    /// The container does not run or stands still.
    pub fn attach_container(&self, info: &ContainerInfo) -> Result<Attachment, Error> {
        self.must_run(info, "attach to")?;
        let attachment = container::attach(&info.dir).map_err(|source| info.failed("attach to", source))?;
        self.event("container", "attach", info, &[]);
        Ok(attachment)
    }

    /// Asks a container to stop, kills it after a while, and returns when it has ended. One that does not run is left alone.
    ///
    /// Without `signal` and `timeout` it is asked as it was made to be.
    pub fn stop_container(&self, info: &ContainerInfo, signal: Option<i32>, timeout: Option<Duration>) -> Result<(), Error> {
        if !info.is_alive() {
            return Ok(());
        }
        // What stands still hears nothing.
        self.thaw(info)?;
        match container::stop(&info.dir, signal, timeout) {
            // One of `--rm` removes itself when it has ended, at times before this has seen the end.
            Err(_) if !info.dir.exists() => {}
            other => {
                other.map_err(|source| info.failed("stop", source))?;
            }
        }
        self.event("container", "stop", info, &[]);
        Ok(())
    }

    /// Sends a signal to a container, which goes on if it stands still.
    pub fn kill_container(&self, info: &ContainerInfo, signal: i32) -> Result<(), Error> {
        container::kill(&info.dir, signal).map_err(|source| info.failed("send a signal to", source))
    }

    /// Waits for a container's end and gives its exit code.
    pub fn wait_container(&self, info: &ContainerInfo) -> Result<u8, Error> {
        // What was never started has not failed, as Docker says.
        if matches!(info.state, Some(State::Created)) {
            return Ok(0);
        }
        container::wait(&info.dir).map_err(|source| info.failed("wait for", source))
    }

    /// Gives the records of a container's log to `sink` until that says `false`.
    pub fn container_logs(&self, info: &ContainerInfo, options: &LogOptions, sink: &mut dyn FnMut(LogRecord) -> bool) -> Result<(), Error> {
        if info.spec.as_ref().is_some_and(|spec| spec.log.driver == LogDriver::None) {
            let message = format!("the container `{}` keeps no log", info.record.name);
            return Err(Error::Usage { message, hint: Some("it was made with `--log-driver none`".into()) });
        }
        container::logs(&info.dir, options, sink).map_err(|source| info.failed("read the log of", source))
    }

    /// Removes a container, with its anonymous volumes if `volumes`. One that runs is killed first if `force`, and an error otherwise.
    pub fn remove_container(&self, info: &ContainerInfo, force: bool, volumes: bool) -> Result<(), Error> {
        if info.is_alive() {
            if !force {
                let message = format!("the container `{}` is running", info.record.name);
                return Err(Error::Usage { message, hint: Some("stop it first, or remove it with -f".into()) });
            }
            self.thaw(info)?;
            container::destroy(&info.dir).map_err(|source| info.failed("kill", source))?;
        }
        self.discard_container(info, volumes)
    }

    /// What a supervisor does after the container's end: removes one that is to remove itself.
    pub fn finish_container(&self, id: &str) -> Result<(), Error> {
        self.finish_but(id, Files::Removed)
    }

    /// The same for the one whose connection the supervisor sees closed afterwards: that removes the files.
    pub fn forget_container(&self, id: &str) -> Result<(), Error> {
        self.finish_but(id, Files::Left)
    }

    /// What a supervisor does whose starter was killed while it made a container that was to remove itself: removes what there is of it.
    pub fn abandon_container(&self, id: &str) -> Result<(), Error> {
        let Some(record) = self.store().find_container(id)? else { return Ok(()) };
        let info = ContainerInfo::load(self.store(), record);
        if info.is_alive() { Ok(()) } else { self.discard_container(&info, true) }
    }

    fn finish_but(&self, id: &str, files: Files) -> Result<(), Error> {
        let Some(record) = self.store().find_container(id)? else { return Ok(()) };
        let info = ContainerInfo::load(self.store(), record);
        if info.spec.as_ref().is_some_and(|spec| spec.auto_remove) && !info.is_alive() {
            self.discard_container_but(&info, true, files)?;
        }
        Ok(())
    }

    /// Removes a container that does not run.
    fn discard_container(&self, info: &ContainerInfo, volumes: bool) -> Result<(), Error> {
        self.discard_container_but(info, volumes, Files::Removed)
    }

    fn discard_container_but(&self, info: &ContainerInfo, volumes: bool, files: Files) -> Result<(), Error> {
        container::forget_pause(&info.record.id);
        container::forget_late_limits(&info.record.id);
        if let Some(spec) = &info.spec
            && let Some(runtime) = &spec.runtime
        {
            runtime.forget(&spec.id, &spec.sandbox);
        }
        let removed = match files {
            Files::Removed => self.store().remove_container(&info.record.id)?,
            Files::Left => self.store().forget_container(&info.record.id)?,
        };
        if !removed {
            // Somebody else is at it, perhaps the container itself.
            return Ok(());
        }
        fault_point("container:removed");
        self.event("container", "destroy", info, &[]);
        let mounted = if volumes { info.spec.as_ref().map_or_else(Vec::new, |spec| self.volumes_of(spec)) } else { Vec::new() };
        for name in mounted {
            if self.store().volume(&name)?.is_some_and(|volume| volume.anonymous) {
                // Another container may have it by `--volumes-from`.
                let volume = self.volume(&name)?;
                if volume.users.is_empty() {
                    self.remove_volume(&volume)?;
                }
            }
        }
        Ok(())
    }

    /// The volumes that a container mounts, by name.
    pub fn volumes_of(&self, spec: &ContainerSpec) -> Vec<String> {
        let mut names: Vec<String> = spec.written.mounted_volumes.iter().map(|volume| volume.name.clone()).collect();
        // Containers of earlier versions have no list.
        for name in spec.sandbox.mounts.iter().filter_map(mounts::bind_path).filter_map(|path| self.volume_of(path)) {
            if !names.contains(&name) {
                names.push(name);
            }
        }
        names
    }

    /// What a container mounts: the names of its volumes, then the directories of the host.
    pub fn sources_of(&self, spec: &ContainerSpec) -> Vec<String> {
        let mut sources = self.volumes_of(spec);
        let containers = self.store().container_dir(&spec.id).parent().map(Path::to_owned);
        let paths = spec.sandbox.mounts.iter().filter_map(mounts::bind_path);
        for path in paths.filter(|path| self.volume_of(path).is_none() && path.parent().and_then(Path::parent) != containers.as_deref()) {
            let path = path.display().to_string();
            if !sources.contains(&path) {
                sources.push(path);
            }
        }
        sources
    }

    /// The volume whose files are at that path.
    fn volume_of(&self, path: &Path) -> Option<String> {
        let name = path.parent()?.file_name()?.to_str()?.to_owned();
        (self.store().volume_path(&name) == *path).then_some(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A request that asks for nothing.
    pub(super) fn request() -> RunRequest {
        RunRequest::new("image")
    }
}
