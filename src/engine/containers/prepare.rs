//! Making a container: its row, its directory with all that the sandbox mounts, and its spec.

use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::executor::RootDriver;
use crate::executor::ops::{self, ProcessUser, lookup_user, make_dir, stubs::make_stubs};
use crate::oci::RuntimeConfig;
use crate::parser::signals;
use crate::path::RootPath;
use crate::runtime::container::{self, ContainerSpec, MountedVolume};
use crate::runtime::{
    AppArmor, Credentials, DEFAULT_SHM_SIZE, DeviceSpec, ForeignRuntime, Isolation, MountSpec, Privileges, ProcessSpec, SandboxSpec,
    Situation, can_mount_roots, cdi, obstacle, situation,
};
use crate::store::view::MergedView;
use crate::store::{ContainerRecord, Error as StoreError, new_container_id};
use crate::sys::OverlayUpper;
use crate::sys::tree::Tree;
use crate::task::fault_point;

use super::super::{Engine, Error};
use super::health::health_check;
use super::network::Network;
use super::{ContainerInfo, MountRequest, RunImage, RunRequest, merge, mounts, names};

/// How often a name is made up.
const ATTEMPTS: u32 = 20;
/// SIGTERM.
const TERM: i32 = 15;

impl Engine {
    /// Makes a container that has not run yet.
    pub fn create_container(&self, request: &RunRequest, image: &RunImage) -> Result<ContainerInfo, Error> {
        if merge::command(&image.config.config, request).is_empty() {
            let message = format!("no command: the image `{}` names none", request.image);
            return Err(Error::Usage { message, hint: Some("name one after the image".into()) });
        }
        must_not_meet(&request.mounts)?;
        let record = self.name_container(request, image)?;
        let mut made = Vec::new();
        match self.prepare(request, image, &record, &mut made) {
            Ok(()) => {
                let info = ContainerInfo::load(self.store(), record);
                self.event("container", "create", &info, &[]);
                Ok(info)
            }
            Err(error) => {
                // The failure matters more than what may be left of it.
                let _ = self.store().remove_container(&record.id);
                for name in made {
                    let _ = self.store().remove_volume(&name);
                }
                Err(error)
            }
        }
    }

    fn name_container(&self, request: &RunRequest, image: &RunImage) -> Result<ContainerRecord, Error> {
        let create = |name: &str| {
            let id = request.id.clone().map_or_else(new_container_id, Ok)?;
            self.store().create_container(id, name, Some(&image.record.id), &image.snapshots)
        };
        if let Some(name) = &request.name {
            return create(name).map_err(|error| match error {
                StoreError::NameTaken { .. } => Error::Usage {
                    message: error.to_string(),
                    hint: Some(format!("remove that container with `strake rm {name}`, or give this one another name")),
                },
                StoreError::BadName { .. } => Error::Usage { message: error.to_string(), hint: None },
                other => other.into(),
            });
        }
        let mut attempt = 0;
        loop {
            match create(&names::random_name(attempt)?) {
                Err(StoreError::NameTaken { .. }) if attempt < ATTEMPTS => attempt += 1,
                other => return Ok(other?),
            }
        }
    }

    /// Prepares all that the container is; `own` becomes the volumes that were made for it alone.
    fn prepare(&self, request: &RunRequest, image: &RunImage, record: &ContainerRecord, own: &mut Vec<String>) -> Result<(), Error> {
        let dir = self.store().container_dir(&record.id);
        let config = &image.config.config;
        let view = Arc::new(ops::view(self.store(), &image.snapshots)?);
        let mut user = lookup_user(&*view, request.user.as_deref().unwrap_or(&config.user))?;
        must_be_possible(&user)?;
        for group in &request.group_add {
            let gid = lookup_user(&*view, &format!("0:{group}"))?.gid;
            if !user.additional_gids.contains(&gid) {
                user.additional_gids.push(gid);
            }
        }
        let upper = dir.join("fs");
        like_image(&view, &upper)?;
        let workdir = RootPath::new(match request.workdir.as_deref().unwrap_or(&config.working_dir) {
            "" => "/",
            path => path,
        });
        make_dir(&view, &upper, &workdir, None, 0o755, None)?;
        let mut edits = cdi::resolve(&request.named_devices)?;
        let network = self.network_of(request, config)?;
        // Before anything is made that stays.
        let users = self.own_users(request, &network.request, &user)?;
        let hostname = network.hostname(request, record);
        let shared = self.volumes_from(request)?;
        let by_chroot = situation() == Some(Situation::Chroot);
        let mut volumes: Vec<MountedVolume> = Vec::new();
        let mut made: Vec<MountSpec> = Vec::new();
        for mount in wanted_mounts(request, config) {
            let asked_for = request.mounts.iter().any(|asked| asked.target() == mount.target());
            if by_chroot && mount.is_own() {
                // It would go with the container, and have what the image has there: the directory in the container's own root is as good.
                make_dir(&view, &upper, mount.target(), None, 0o755, None)?;
                continue;
            }
            // A volume of the image gives way to one of another container.
            if asked_for || !shared.iter().any(|(shared, _)| shared.target() == mount.target()) {
                let (made_of, volume) = self.mount(&mount, &view, &dir, own)?;
                volumes.extend(volume.map(|name| mounted(name, &made_of)));
                made.push(made_of);
            }
        }
        let mut all = self.name_files(&network, &dir, &hostname)?;
        for mount in &mut all {
            if let MountSpec::Bind { read_only, .. } = mount {
                *read_only = request.read_only;
            }
        }
        all.retain(|file| !made.iter().any(|mount| mount.target() == file.target()));
        for (mount, volume) in shared.into_iter().filter(|(shared, _)| !made.iter().any(|mount| mount.target() == shared.target())) {
            volumes.extend(volume.map(|name| mounted(name, &mount)));
            all.push(mount);
        }
        all.extend(made.iter().cloned());
        let described = edits.take_mounts();
        all.retain(|mount| described.iter().all(|other| other.target() != mount.target()));
        all.extend(described);
        // What lies on another mount comes after it.
        all.sort_by_key(|mount| mount.target().components().count());

        let stubs = dir.join("stubs");
        std::fs::create_dir(&stubs).map_err(|source| Error::Io { action: "make", path: stubs.clone(), source })?;
        let overlay = OverlayUpper { upper: upper.clone(), work: dir.join("work") };
        let rootfs = self.store().rootfs_on(&image.snapshots, Some(overlay), Some(&stubs));
        let mut sandbox = SandboxSpec::new(rootfs, process(request, config, &hostname, &user, workdir));
        sandbox.mounts = all;
        sandbox.hostname = hostname;
        sandbox.read_only_root = request.read_only;
        // Whatever happens to the machine, nobody sees the files of one that removes itself again. Without this the kernel brings all of the disk up to date at its end.
        sandbox.volatile = request.auto_remove;
        sandbox.shm_size = request.shm_size.filter(|size| *size > 0).unwrap_or(DEFAULT_SHM_SIZE);
        sandbox.namespaces = self.namespaces(request)?;
        sandbox.init = request.init;
        sandbox.annotations.clone_from(&request.annotations);
        sandbox.system_paths = request.system_paths;
        sandbox.devices = devices(&request.devices)?;
        sandbox.device_rules = request.device_rules.iter().map(|(_, rule)| rule.clone()).collect();
        edits.apply(&mut sandbox);
        // Who asks for another runtime has its hooks, too.
        let runtime = match &request.runtime {
            None if !sandbox.hooks.is_empty() => Some(ForeignRuntime::own().map_err(|source| Error::Io {
                action: "find this program by",
                path: "/proc/self/exe".into(),
                source,
            })?),
            runtime => runtime.clone(),
        };
        sandbox.sysctls.clone_from(&request.sysctls);
        sandbox.cgroup = request.limits.is_wanted().then(|| request.limits.clone());
        sandbox.privileges = match request.privileged {
            true => Privileges::Insecure,
            false => Privileges::Default { add: request.cap_add, drop: request.cap_drop },
        };
        sandbox.seccomp = request.seccomp.filter(sandbox.privileges)?;
        sandbox.apparmor = match &request.apparmor {
            Some(profile) => profile.clone(),
            None if request.privileged => AppArmor::Unconfined,
            None => AppArmor::Default,
        };
        sandbox.apparmor.must_be_there().map_err(Error::Runtime)?;
        if by_chroot {
            sandbox.isolation = unmounted(request, &sandbox, &dir)?;
        } else if !can_mount_roots() {
            return Err(Error::Runtime(crate::runtime::Error::no_sandbox()));
        } else {
            make_stubs(&view, &upper, &stubs, &sandbox)?;
        }
        // What another program makes cannot be shown as other users' files, and goes to no other runtime.
        let as_any = !by_chroot && users.is_none() && request.runtime.is_none();
        match self.root_driver()? {
            RootDriver::Overlay if !by_chroot => {}
            RootDriver::Fuse { program, .. } if as_any => {
                sandbox.rootfs = self.fuse_container_root(&dir, &image.snapshots, (&upper, &stubs), program)?;
            }
            _ => sandbox.rootfs = self.copy_container_root(&dir, &image.snapshots, (&upper, &stubs))?,
        }
        if let Some(domain) = &request.domain {
            sandbox.sysctls.push(("kernel.domainname".to_owned(), domain.clone()));
        }
        if let Some(runtime) = &runtime {
            runtime.can_run(&sandbox).map_err(|why| unable(runtime, &why))?;
        }
        let mut spec = self.spec(request, image, record, sandbox, network);
        spec.runtime = runtime;
        spec.users = users;
        spec.written.mounted_volumes = volumes;
        fault_point("container:prepared");
        container::create(&dir, &spec).map_err(|source| Error::Container { action: "make", name: record.name.clone(), source })
    }

    fn spec(
        &self,
        request: &RunRequest,
        image: &RunImage,
        record: &ContainerRecord,
        sandbox: SandboxSpec,
        network: Network,
    ) -> ContainerSpec {
        let config = &image.config.config;
        ContainerSpec {
            image: request.image.clone(),
            image_id: image.record.id.to_string(),
            tty: request.tty,
            stdin: request.stdin,
            auto_remove: request.auto_remove,
            log: request.log,
            restart: request.restart,
            health: health_check(config, &request.health),
            journal: Some(self.store().journal_path()),
            stop_signal: request.stop_signal.or_else(|| signals::number(&config.stop_signal)).unwrap_or(TERM),
            stop_timeout: request.stop_timeout.unwrap_or(Duration::from_secs(10)),
            network: network.request,
            ports: network.ports,
            names: network.names,
            labels: merge::labels(config, request),
            written: merge::written(config, request),
            ..ContainerSpec::new(&record.id, &record.name, sandbox)
        }
    }

    /// The volumes and directories of other containers, those with their names.
    fn volumes_from(&self, request: &RunRequest) -> Result<Vec<(MountSpec, Option<String>)>, Error> {
        let mut shared: Vec<(MountSpec, Option<String>)> = Vec::new();
        for from in &request.volumes_from {
            let other = self.container(&from.container)?;
            let Some(spec) = &other.spec else { continue };
            for mount in &spec.sandbox.mounts {
                let (MountSpec::Bind { read_only, .. } | MountSpec::Filesystem { read_only, .. }) = mount else { continue };
                let own = matches!(mount, MountSpec::Bind { .. })
                    && mounts::bind_path(mount).is_none_or(|path| path.parent() == Some(&other.dir));
                if own || shared.iter().any(|(known, _)| known.target() == mount.target()) {
                    continue;
                }
                // What is read-only there stays so.
                let sealed = *read_only || from.writable == Some(false);
                let mut mount = mount.clone();
                if let MountSpec::Bind { read_only, .. } | MountSpec::Filesystem { read_only, .. } = &mut mount {
                    *read_only = sealed;
                }
                let target = mount.target().to_string();
                let volume = spec.written.mounted_volumes.iter().find(|volume| volume.target == target);
                shared.push((mount, volume.map(|volume| volume.name.clone())));
            }
        }
        Ok(shared)
    }
}

fn mounted(name: String, mount: &MountSpec) -> MountedVolume {
    let read_only = match mount {
        MountSpec::Bind { read_only, .. } | MountSpec::Filesystem { read_only, .. } => *read_only,
        MountSpec::Tmpfs { .. } | MountSpec::Overlay { .. } => false,
    };
    MountedVolume { name, target: mount.target().to_string(), read_only }
}

/// How a container runs by chroot alone: only while somebody waits for it, as nothing of it can be found again. The files about names and addresses are copied into its root.
fn unmounted(request: &RunRequest, sandbox: &SandboxSpec, dir: &Path) -> Result<Isolation, Error> {
    if !request.auto_remove {
        let message =
            "where there are no namespaces, a container runs by chroot alone and has to be removed at its end (`run --rm`)".to_owned();
        return Err(Error::Usage { message, hint: Some(obstacle().fix) });
    }
    let own = |mount: &MountSpec| mounts::bind_path(mount).is_some_and(|path| path.parent() == Some(dir));
    let lent = sandbox.mounts.iter().enumerate().filter(|(_, mount)| own(mount)).map(|(number, _)| number).collect();
    Ok(Isolation::Chroot { lent })
}

/// No two mounts are at one place, unless they are the same.
fn must_not_meet(mounts: &[MountRequest]) -> Result<(), Error> {
    for (at, mount) in mounts.iter().enumerate() {
        if mounts[..at].iter().any(|earlier| earlier.target() == mount.target() && earlier != mount) {
            let hint = Some("leave one of them out".to_owned());
            return Err(Error::Usage { message: format!("duplicate mount point: `{}`", mount.target()), hint });
        }
    }
    Ok(())
}

/// The largest number of a user or group, as Docker has it.
const LARGEST_ID: u32 = i32::MAX.unsigned_abs();

fn must_be_possible(user: &ProcessUser) -> Result<(), Error> {
    if user.uid <= LARGEST_ID && user.gid <= LARGEST_ID {
        return Ok(());
    }
    let message = format!("there is no user or group {}: the largest number is {LARGEST_ID}", user.uid.max(user.gid));
    Err(Error::Usage { message, hint: None })
}

/// The devices that are asked for; for a directory, all that are in it.
fn devices(asked: &[DeviceSpec]) -> Result<Vec<DeviceSpec>, Error> {
    let mut all = Vec::new();
    let mut left: Vec<DeviceSpec> = asked.iter().rev().cloned().collect();
    while let Some(device) = left.pop() {
        let found = std::fs::metadata(&device.source);
        let found = found.map_err(|source| Error::Io { action: "look at the device", path: device.source.clone(), source })?;
        if found.file_type().is_block_device() || found.file_type().is_char_device() {
            all.push(device);
            continue;
        }
        let Ok(entries) = std::fs::read_dir(&device.source) else {
            let message = format!("`{}` is not a device", device.source.display());
            return Err(Error::Usage { message, hint: Some("a file or a pipe of this machine is given with -v".to_owned()) });
        };
        let mut inner: Vec<DeviceSpec> = entries.flatten().filter_map(|entry| below(&device, &entry)).collect();
        inner.sort_by(|one, other| other.source.cmp(&one.source));
        left.extend(inner);
    }
    Ok(all)
}

/// A device, or a directory, in the directory of `device`. Links are followed where they were named, and left alone in here.
fn below(device: &DeviceSpec, entry: &std::fs::DirEntry) -> Option<DeviceSpec> {
    let kind = entry.file_type().ok()?;
    let name = entry.file_name();
    let wanted = kind.is_dir() || kind.is_block_device() || kind.is_char_device();
    wanted.then(|| DeviceSpec { access: device.access, ..DeviceSpec::new(entry.path(), device.target.join(&name)) })
}

/// What another runtime cannot do.
pub(super) fn unable(runtime: &ForeignRuntime, why: &str) -> Error {
    Error::Usage { message: format!("the OCI runtime `{}` cannot do that: {why}", runtime.name), hint: None }
}

/// Gives the writable layer's root what the image says of `/`: in an overlay, the topmost directory counts.
fn like_image(view: &MergedView, upper: &Path) -> Result<(), Error> {
    let root = RootPath::root();
    let read = |source| Error::Prepare(ops::Error::ReadBase { path: root.clone(), source });
    let Some(metadata) = view.metadata(&root).map_err(read)? else { return Ok(()) };
    let failed = |source| Error::Io { action: "prepare", path: upper.to_owned(), source };
    std::os::unix::fs::chown(upper, Some(metadata.uid), Some(metadata.gid)).map_err(failed)?;
    std::fs::set_permissions(upper, std::fs::Permissions::from_mode(metadata.mode & 0o7777)).map_err(failed)
}

/// What the user wants mounted, and a volume for each of the image's that nothing else is mounted on.
fn wanted_mounts(request: &RunRequest, config: &RuntimeConfig) -> Vec<MountRequest> {
    let mut wanted = request.mounts.clone();
    for path in config.volumes.keys().map(RootPath::new).filter(|path| !path.is_root()) {
        if !wanted.iter().any(|mount| *mount.target() == path) {
            wanted.push(MountRequest::volume(None, path));
        }
    }
    wanted
}

fn process(request: &RunRequest, config: &RuntimeConfig, hostname: &str, user: &ProcessUser, workdir: RootPath) -> ProcessSpec {
    let env = merge::environment(config, request, hostname, user.home.as_deref());
    let env = env.into_iter().map(|(name, value)| format!("{name}={value}").into()).collect();
    let mut process = ProcessSpec::new(merge::command(config, request).into_iter().map(Into::into).collect(), env);
    process.cwd = workdir;
    process.user = Credentials { uid: user.uid, gid: user.gid, additional_gids: user.additional_gids.clone() };
    process.terminal = request.terminal.filter(|_| request.tty);
    process.no_new_privileges = request.no_new_privileges;
    process.rlimits.clone_from(&request.rlimits);
    process.oom_score_adjust = request.oom_score_adjust;
    process
}
