//! RUN: a command in a sandbox on an overlay, whose writable layer becomes the snapshot.
//!
//! Mount points that the root file system lacks are put into a layer of their own between it and the writable one (`stubs.rs`), so that nothing of the
//! sandbox's scaffolding can end up in the snapshot.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags};

use crate::cache::{CacheKey, Output};
use crate::executor::roots::CopiedTree;
use crate::executor::ssh::AgentSocket;
use crate::executor::{Environment, Error, StepFailure, StepSettings};
use crate::graph::{CacheSharing, ExecMountKind, ExecOp, NetworkMode, SOURCE_DATE_EPOCH, SecurityMode, Step};
use crate::path::RootPath;
use crate::progress::{StepProgress, StepUsage, Stream};
use crate::runtime::{
    AppArmor, BindSource, Credentials, Exit, Isolation, MountOptions, MountSpec, NetworkMode as SandboxNetwork, Privileges, ProcessSpec,
    Propagation, Running, SHARED_PROCESSES, SandboxIo, SandboxSpec, Stdio, TmpfsTuning, can_mount_roots, cdi, shares_processes,
};
use crate::store::view::MergedView;
use crate::store::{ActiveSnapshot, CacheMount, MountSharing, SnapshotId};
use crate::sys::tree::{Kind, LastLink, Tree, resolve};
use crate::sys::{Links, RootDir};

use super::dates::limit_times;
use super::failed::FailedStep;
use super::step::{commit, view};
use super::stubs::{keep_modes, make_stubs, repeat};
use super::{ProcessUser, lookup_user, make_dir, unmounted};

/// The host name in a RUN step, as BuildKit sets it.
const HOSTNAME: &str = "buildkitsandbox";

/// How many layers overlayfs takes (`OVL_MAX_STACK` of the kernel is 500), less the one with the mount points.
const MAX_LAYERS: usize = 499;

/// How many lines of output a failure shows.
pub const TAIL_LINES: usize = 20;

/// Runs a command and returns the snapshot of what it changed.
pub fn run(
    environment: &Environment,
    step: &Step,
    op: &ExecOp,
    base: &[SnapshotId],
    inputs: &[Output],
    progress: &StepProgress,
) -> Result<SnapshotId, Error> {
    let failed = |source| Error::Files { step: Box::new(step.clone()), source, hint: None };
    let chroot = environment.steps.chroot;
    if chroot {
        unmounted::check(environment, step, op)?;
    } else if !can_mount_roots() {
        return Err(Error::Sandbox { step: Box::new(step.clone()), source: crate::runtime::Error::no_sandbox() });
    }
    let copied = chroot || environment.roots.are_copied(&environment.progress);
    if base.len() >= MAX_LAYERS && !copied {
        let reason = format!("its root file system has {} layers, and overlayfs takes {MAX_LAYERS} at most", base.len());
        return Err(refused(step, reason, "join RUN instructions, or start from an image with fewer layers"));
    }
    let tree = view(&environment.store, base)?;
    let user = lookup_user(&tree, &op.user).map_err(failed)?;
    let active = environment.store.prepare()?;
    // A base image may name a working directory that it does not have.
    let time = environment.times.latest().map(|seconds| (seconds, 0));
    make_dir(&tree, &active.fs_path(), &op.workdir, None, 0o755, time).map_err(failed)?;

    let mut root = copied.then(|| environment.roots.take(&environment.store, base)).transpose()?;
    let scratch = Scratch::new(&active)?;
    let mut held = Held::default();
    let hostname = op.hostname.clone().unwrap_or_else(|| HOSTNAME.to_owned());
    let network = if chroot { unmounted::network(environment, &hostname)? } else { (environment.network)(op.network, &hostname)? };
    let mounts = plan_mounts(environment, step, op, inputs, &network, &scratch, &mut held)?;
    let rootfs = match &root {
        Some(root) => root.mount(false),
        None => environment.store.rootfs(base, Some(&active), Some(&scratch.stubs)),
    };
    let mut spec = SandboxSpec::new(rootfs, process(op, &user, &held.env, environment.times.latest()));
    spec.volatile = true;
    spec.hostname = hostname;
    spec.mounts = mounts;
    give_devices(step, op, &mut spec)?;
    keep_modes(&tree, &mut spec.mounts).map_err(failed)?;
    spec.network = match (op.network, &network.namespace) {
        (NetworkMode::None, _) => SandboxNetwork::None,
        (_, Some(_)) => SandboxNetwork::Joined,
        (_, None) => SandboxNetwork::Host,
    };
    apply(&environment.steps, &mut spec);
    if op.security == SecurityMode::Insecure {
        spec.privileges = Privileges::Insecure;
        spec.apparmor = AppArmor::Unconfined;
    }
    if chroot {
        spec.isolation = Isolation::Chroot { lent: unmounted::lent(&spec.mounts, held.cache_mounts.iter().map(|(_, cache)| cache.path())) };
    } else {
        make_stubs(&tree, &active.fs_path(), &scratch.stubs, &spec).map_err(failed)?;
    }
    if let Some(seconds) = environment.times.latest() {
        for path in [active.fs_path(), scratch.stubs.clone(), scratch.files.clone()] {
            limit_times(&path, seconds).map_err(|source| Error::Io { action: "set the times of files in", path, source })?;
        }
    }
    let mut aside = None;
    if let Some(root) = &mut root {
        root.complete(&active.fs_path(), &scratch.stubs)?;
        aside = chroot.then(|| root.watch(&spec)).transpose()?;
    }

    let started = Instant::now();
    let log = StepLog::create(environment, step)?;
    let spare = environment.failed.as_ref().and(network.namespace.as_ref()).map(OwnedFd::try_clone).transpose();
    let spare = spare.map_err(|source| Error::Io { action: "copy", path: "a descriptor".into(), source })?;
    let mounted = || {
        // A shell after a failure mounts them again.
        if environment.failed.is_none() {
            held.unname_secrets();
        }
    };
    let outcome = supervise(environment, step, &spec, network.namespace, mounted, progress, &log);
    if let Ok(exit) = &outcome {
        progress.measured(usage(exit));
    }
    let files = StepFiles { active, root, _held: held, _network: network.guard };
    if !matches!(&outcome, Ok(exit) if exit.status.success()) {
        if let (Some(slot), false) = (&environment.failed, matches!(outcome, Err(Error::Cancelled))) {
            let (spawner, lease) = (environment.spawner.clone(), environment.lease.clone());
            slot.put(FailedStep { spec, netns: spare, spawner, shell: shell_of(op), _files: files, _lease: lease });
        }
        let memory_limit = environment.steps.cgroup.memory;
        return Err(Error::Step(Box::new(failure(step, &outcome?, started.elapsed(), log, memory_limit))));
    }
    let (layer, mut root) = files.into_layer();
    scratch.remove()?;
    if let Some(root) = &mut root {
        aside.iter().for_each(|aside| root.overlook(aside));
        root.collect(&tree, &layer, environment.times.latest())?;
    }
    let id = commit(layer, step, 0, environment.times.latest())?;
    if let Some(root) = root {
        environment.roots.keep([base, &[id]].concat(), root)?;
    }
    Ok(id)
}

/// What a command used.
fn usage(exit: &Exit) -> StepUsage {
    StepUsage {
        user_time: Some(exit.user_time),
        system_time: Some(exit.system_time),
        peak_memory: exit.peak_memory,
        read: exit.io.map(|io| io.read),
        written: exit.io.map(|io| io.written),
        hashed: None,
    }
}

/// The shell that runs the command, if one does.
fn shell_of(op: &ExecOp) -> Option<String> {
    const NAMES: [&str; 7] = ["sh", "bash", "ash", "dash", "zsh", "ksh", "fish"];
    op.args.first().filter(|program| NAMES.contains(&program.rsplit('/').next().unwrap_or_default())).cloned()
}

/// The writable layer of a step, and what must be there while something runs on it.
pub(super) struct StepFiles {
    active: ActiveSnapshot,
    /// The copied files that it runs on, where they are copied.
    root: Option<CopiedTree>,
    _held: Held,
    _network: Option<Box<dyn Send>>,
}

impl StepFiles {
    /// The layer, once nothing runs on it.
    fn into_layer(self) -> (ActiveSnapshot, Option<CopiedTree>) {
        (self.active, self.root)
    }
}

/// Gives the sandbox the devices that the step asks for; those that it does not need may be missing.
fn give_devices(step: &Step, op: &ExecOp, spec: &mut SandboxSpec) -> Result<(), Error> {
    let refused = |error: cdi::Error| {
        let hint = error.hint();
        Error::Refused { step: Box::new(step.clone()), reason: error.to_string(), hint }
    };
    let mut names = Vec::new();
    for (name, required) in &op.devices {
        match cdi::resolve(std::slice::from_ref(name)) {
            Err(cdi::Error::Unknown { .. }) if !required => {}
            other => {
                other.map_err(refused)?;
                names.push(name.clone());
            }
        }
    }
    let mut edits = cdi::resolve(&names).map_err(refused)?;
    spec.mounts.extend(edits.take_mounts());
    edits.apply(spec);
    if !spec.hooks.is_empty() {
        let reason = format!("the devices {} come with hooks, which are for containers", names.join(", "));
        return Err(self::refused(step, reason, "describe the devices without hooks in a file of their own"));
    }
    Ok(())
}

/// Gives the sandbox what the command line says of all steps.
fn apply(settings: &StepSettings, spec: &mut SandboxSpec) {
    spec.shm_size = settings.shm_size.unwrap_or(spec.shm_size);
    spec.apparmor = settings.apparmor.clone();
    spec.process.rlimits = settings.rlimits.clone();
    spec.cgroup = Some(settings.cgroup.clone()).filter(|cgroup| cgroup.has_limits() || cgroup.parent.is_some());
}

/// What lives as long as the command: locks and files, and the variables that secrets set.
#[derive(Default)]
struct Held {
    /// By key: a step that mounts one twice holds it once, or it would wait for itself.
    cache_mounts: Vec<([u8; 32], CacheMount)>,
    snapshots: Vec<ActiveSnapshot>,
    copies: Vec<Arc<CopiedTree>>,
    agents: Vec<AgentSocket>,
    env: Vec<(String, Vec<u8>)>,
    /// The files of secrets.
    secrets: Vec<PathBuf>,
}

impl Held {
    fn cache_mount(&self, key: &[u8; 32]) -> Option<&CacheMount> {
        self.cache_mounts.iter().find(|(known, _)| known == key).map(|(_, mount)| mount)
    }

    /// Takes the names of secrets away. Mounted, a file stays for as long as the mount; without a name it is gone with that, whatever ends this process or machine.
    fn unname_secrets(&self) {
        for path in &self.secrets {
            // One that stays is removed with the directory.
            let _ = std::fs::remove_file(path);
        }
    }
}

/// Directories beside the writable layer, for what the sandbox needs and the layer must not have.
struct Scratch {
    root: PathBuf,
    stubs: PathBuf,
    files: PathBuf,
}

impl Scratch {
    fn new(active: &ActiveSnapshot) -> Result<Scratch, Error> {
        let root = active.scratch_path();
        let scratch = Scratch { stubs: root.join("stubs"), files: root.join("files"), root };
        for dir in [&scratch.root, &scratch.stubs, &scratch.files] {
            make_host_dir(dir)?;
        }
        Ok(scratch)
    }

    fn file(&self, name: &str, content: &[u8], mode: u32) -> Result<PathBuf, Error> {
        use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
        let path = self.files.join(name);
        let failed = |source| Error::Io { action: "write", path: path.clone(), source };
        let mut file = File::options().write(true).create_new(true).mode(0o600).open(&path).map_err(failed)?;
        file.write_all(content).map_err(failed)?;
        file.set_permissions(std::fs::Permissions::from_mode(mode)).map_err(failed)?;
        Ok(path)
    }

    fn remove(self) -> Result<(), Error> {
        std::fs::remove_dir_all(&self.root).map_err(|source| Error::Io { action: "remove", path: self.root.clone(), source })
    }
}

fn make_host_dir(path: &Path) -> Result<(), Error> {
    std::fs::create_dir_all(path).map_err(|source| Error::Io { action: "make", path: path.to_owned(), source })
}

fn process(op: &ExecOp, user: &ProcessUser, secrets: &[(String, Vec<u8>)], epoch: Option<i64>) -> ProcessSpec {
    use std::ffi::OsString;
    use std::os::unix::ffi::OsStringExt;
    // An empty `HOME` counts as none.
    let has_home = op.env.iter().any(|(name, value)| name == "HOME" && !value.is_empty());
    let vars = op.env.iter().filter(|(name, _)| has_home || name != "HOME");
    let mut env: Vec<OsString> = vars.chain(&op.proxy_env).map(|(name, value)| format!("{name}={value}").into()).collect();
    for (name, value) in secrets {
        let mut entry = format!("{name}=").into_bytes();
        entry.extend_from_slice(value);
        env.push(OsString::from_vec(entry));
    }
    if !has_home {
        env.push(format!("HOME={}", user.home.as_deref().filter(|home| !home.is_empty()).unwrap_or("/")).into());
    }
    let mut process = ProcessSpec::new(op.args.iter().map(OsString::from).collect(), env);
    if let Some(seconds) = epoch.filter(|_| !op.env.iter().any(|(name, _)| name == SOURCE_DATE_EPOCH)) {
        process.env.push(format!("{SOURCE_DATE_EPOCH}={seconds}").into());
    }
    process.cwd = op.workdir.clone();
    process.user = Credentials { uid: user.uid, gid: user.gid, additional_gids: user.additional_gids.clone() };
    process
}

/// A read-only file of the builder's own.
fn bind_file(source: PathBuf, target: &str) -> MountSpec {
    MountSpec::Bind {
        source: BindSource::Path(source),
        target: RootPath::new(target),
        is_file: true,
        read_only: true,
        recursive: false,
        propagation: Propagation::Private,
        options: MountOptions { nosuid: true, nodev: true, ..MountOptions::default() },
    }
}

fn plan_mounts(
    environment: &Environment,
    step: &Step,
    op: &ExecOp,
    inputs: &[Output],
    network: &crate::executor::StepNetwork,
    scratch: &Scratch,
    held: &mut Held,
) -> Result<Vec<MountSpec>, Error> {
    let mut mounts = vec![
        bind_file(scratch.file("resolv.conf", network.resolv_conf.as_bytes(), 0o644)?, "/etc/resolv.conf"),
        bind_file(scratch.file("hosts", network.hosts.as_bytes(), 0o644)?, "/etc/hosts"),
    ];
    let given = mounts.len();
    if let Some(script) = &op.script {
        let file = scratch.file("script", script.body.as_bytes(), 0o755)?;
        mounts.push(bind_file(file, &format!("/dev/pipes/{}", script.name)));
    }
    take_cache_mounts(environment, step, op, inputs, held)?;
    for (number, mount) in op.mounts.iter().enumerate() {
        let target = mount.target.clone();
        match &mount.kind {
            ExecMountKind::Tmpfs { size, read_only } => mounts.push(MountSpec::Tmpfs {
                target,
                size: *size,
                inodes: None,
                mode: 0o1777,
                owner: (0, 0),
                read_only: *read_only,
                options: MountOptions { nosuid: true, nodev: true, ..MountOptions::default() },
                tuning: TmpfsTuning::default(),
            }),
            ExecMountKind::Secret { id, env, file, required, mode, uid, gid } => {
                let Some(secret) = environment.secrets.get(id) else {
                    if *required {
                        return Err(refused(
                            step,
                            format!("the secret `{id}` was not given"),
                            &format!("give it with --secret id={id},src=FILE"),
                        ));
                    }
                    // As in BuildKit: the variable is there, and empty.
                    held.env.extend(env.iter().map(|name| (name.clone(), Vec::new())));
                    continue;
                };
                if let Some(name) = env {
                    if secret.expose().contains(&0) {
                        let reason = format!("the secret `{id}` has a byte that is zero, and so cannot be the variable `{name}`");
                        return Err(refused(step, reason, "leave `env=` out of the mount: then it is a file"));
                    }
                    held.env.push((name.clone(), secret.expose().clone()));
                }
                if *file {
                    let path = scratch.file(&format!("secret-{number}"), secret.expose(), *mode)?;
                    std::os::unix::fs::chown(&path, Some(*uid), Some(*gid)).map_err(|source| Error::Io {
                        action: "chown",
                        path: path.clone(),
                        source,
                    })?;
                    mounts.push(bind_file(path.clone(), &target.to_string()));
                    held.secrets.push(path);
                }
            }
            ExecMountKind::Ssh { id, required, mode, uid, gid } => {
                let Some(agent) = environment.steps.ssh.get(id) else {
                    if *required {
                        let hint = format!("give it with --ssh {id}, or with a key: --ssh {id}=FILE");
                        return Err(refused(step, format!("the SSH agent `{id}` was not given"), &hint));
                    }
                    continue;
                };
                let name = format!("agent-{number}");
                let socket = AgentSocket::new(agent, &scratch.files, &name, (*mode, *uid, *gid));
                let socket = socket.map_err(|source| Error::Io { action: "make", path: scratch.files.join(name), source })?;
                mounts.push(bind_file(socket.path().to_owned(), &target.to_string()));
                held.agents.push(socket);
            }
            ExecMountKind::Cache { subpath, read_only, .. } => {
                let Some(cache) = cache_mount_key(&mount.kind, inputs).and_then(|key| held.cache_mount(&key)) else { continue };
                mounts.push(MountSpec::Bind {
                    source: match subpath {
                        None => BindSource::Path(cache.path()),
                        Some(path) => below_cache(step, cache, path)?,
                    },
                    target,
                    is_file: false,
                    read_only: *read_only,
                    recursive: false,
                    propagation: Propagation::Private,
                    options: MountOptions::default(),
                });
            }
            ExecMountKind::Bind { input, source, writable } => {
                mounts.push(bind_input(environment, step, &inputs[*input].snapshots, source, *writable, target, held)?);
            }
        }
    }
    // As in BuildKit: what is mounted below another mount can be seen, whichever stands first.
    mounts[given..].sort_by(|one, other| one.target().cmp(other.target()));
    Ok(mounts)
}

/// A directory that a cache has, where only that is mounted.
fn below_cache(step: &Step, cache: &CacheMount, path: &RootPath) -> Result<BindSource, Error> {
    let directory = cache.path();
    let found = RootDir::open(&directory)
        .and_then(|root| root.open_at(path.relative(), OFlags::PATH | OFlags::DIRECTORY, Mode::empty(), Links::Follow));
    match found {
        Ok(_) => Ok(BindSource::Below { directory, path: path.clone() }),
        Err(_) => {
            let reason = format!("the cache has no directory `{path}`");
            Err(refused(
                step,
                reason,
                "without `from=` a cache begins empty; leave `source=` out, or make the directory in an earlier step",
            ))
        }
    }
}

/// What tells the directories of cache mounts apart: the name, and what a new one starts with. So who asks for another owner, mode or seed has one that is so.
fn cache_mount_key(kind: &ExecMountKind, inputs: &[Output]) -> Option<[u8; 32]> {
    let ExecMountKind::Cache { id, seed, mode, uid, gid, .. } = kind else { return None };
    if seed.is_none() && (*mode, *uid, *gid) == NOTHING_ASKED {
        return Some(*blake3::hash(id.as_bytes()).as_bytes());
    }
    let seed: Option<(&CacheKey, &str)> = seed.as_ref().map(|(input, source)| (&inputs[*input].key, source.as_str()));
    let mut hasher = blake3::Hasher::new_derive_key("strake cache mount with a start of its own");
    hasher.update(format!("{} {id} {mode:o} {uid} {gid}", id.len()).as_bytes());
    if let Some((key, source)) = seed {
        hasher.update(&key.0).update(RootPath::new(source).relative().as_os_str().as_encoded_bytes());
    }
    Some(*hasher.finalize().as_bytes())
}

/// Takes the cache mounts of a step, in the order of their keys: two steps that want the same two cannot wait for each other.
fn take_cache_mounts(environment: &Environment, step: &Step, op: &ExecOp, inputs: &[Output], held: &mut Held) -> Result<(), Error> {
    let mut wanted: Vec<_> = op.mounts.iter().filter_map(|mount| Some((cache_mount_key(&mount.kind, inputs)?, &mount.kind))).collect();
    wanted.sort_by_key(|(key, _)| *key);
    for (key, kind) in wanted {
        let ExecMountKind::Cache { id, sharing, seed, mode, uid, gid, .. } = kind else { continue };
        if held.cache_mount(&key).is_some() {
            continue;
        }
        let sharing = match sharing {
            // It is moved into the root of the step, so nobody else can have it meanwhile.
            CacheSharing::Shared if environment.steps.chroot => MountSharing::Locked,
            CacheSharing::Shared => MountSharing::Shared,
            CacheSharing::Private => MountSharing::Private,
            CacheSharing::Locked => MountSharing::Locked,
        };
        let mut cache = cache_mount(environment, step, &key, id, sharing)?;
        if cache.is_new() {
            fill_cache_mount(environment, step, &cache.path(), seed.as_ref(), inputs, (*mode, *uid, *gid))?;
            cache.seeded()?;
        }
        held.cache_mounts.push((key, cache));
    }
    Ok(())
}

/// A cache mount. With `--no-cache` a build finds what its own steps left there, and nothing older, as with BuildKit.
fn cache_mount(environment: &Environment, step: &Step, key: &[u8; 32], id: &str, sharing: MountSharing) -> Result<CacheMount, Error> {
    if step.ignore_cache {
        let mut emptied = environment.emptied.lock().unwrap_or_else(PoisonError::into_inner);
        if emptied.insert(*key) {
            // Others of this build wait until it is empty.
            return Ok(environment.store.empty_cache_mount(key, id, sharing)?);
        }
    }
    Ok(environment.store.cache_mount(key, id, sharing)?)
}

/// Files of another stage or image, as an overlay of their own; what is written there is dropped with it.
fn bind_input(
    environment: &Environment,
    step: &Step,
    input: &[SnapshotId],
    source: &str,
    writable: bool,
    target: RootPath,
    held: &mut Held,
) -> Result<MountSpec, Error> {
    let tree = view(&environment.store, input)?;
    let (subpath, is_file) = find(&tree, source, step)?;
    if environment.steps.chroot || environment.roots.are_copied(&environment.progress) {
        let copy = match writable {
            true => Arc::new(environment.roots.writable(&environment.store, input)?),
            false => environment.roots.read_only(&environment.store, input)?,
        };
        let rootfs = copy.mount(!writable);
        held.copies.push(copy);
        return Ok(MountSpec::Overlay { rootfs, subpath, target, is_file });
    }
    let upper = if writable { Some(environment.store.prepare()?) } else { None };
    if let Some(active) = &upper {
        // What is seen of the mount's own directory is that of the writable layer.
        let (root, path) = (RootPath::root(), active.fs_path());
        let copied = tree.metadata(&root).and_then(|known| known.map_or(Ok(()), |metadata| repeat(&tree, &root, &path, &metadata)));
        copied.map_err(|source| Error::Io { action: "copy the metadata of the mount's source to", path, source })?;
    }
    let rootfs = environment.store.rootfs(input, upper.as_ref(), None);
    held.snapshots.extend(upper);
    Ok(MountSpec::Overlay { rootfs, subpath, target, is_file })
}

fn find(tree: &MergedView, source: &str, step: &Step) -> Result<(RootPath, bool), Error> {
    let path = RootPath::new(source);
    let read =
        |source| Error::Files { step: Box::new(step.clone()), source: super::Error::ReadBase { path: path.clone(), source }, hint: None };
    let found = resolve(tree, &path, LastLink::Follow).map_err(read)?;
    match tree.metadata(&found).map_err(read)? {
        Some(metadata) => Ok((found, metadata.kind != Kind::Directory)),
        None => Err(refused(step, format!("the mount's source `{source}` was not found"), "check `source=` and `from=` of the mount")),
    }
}

/// The mode, user and group of a cache mount that has none of these options.
const NOTHING_ASKED: (u32, u32, u32) = (0o755, 0, 0);

/// Gives a new cache mount its owner and mode, and the files that it starts with. A directory that it starts as keeps its own
/// where nothing else is asked for.
fn fill_cache_mount(
    environment: &Environment,
    step: &Step,
    path: &Path,
    seed: Option<&(usize, String)>,
    inputs: &[Output],
    (mut mode, mut uid, mut gid): (u32, u32, u32),
) -> Result<(), Error> {
    use std::os::unix::fs::PermissionsExt;
    if let Some((input, source)) = seed {
        let tree = view(&environment.store, &inputs[*input].snapshots)?;
        let (found, _) = find(&tree, source, step)?;
        let failed = |source| Error::Io { action: "read the metadata of the mount's source for", path: path.to_owned(), source };
        if let Some(own) =
            tree.metadata(&found).map_err(failed)?.filter(|own| own.kind == Kind::Directory && (mode, uid, gid) == NOTHING_ASKED)
        {
            (mode, uid, gid) = (own.mode, own.uid, own.gid);
        }
        let source = super::CopySource::Tree { tree: std::sync::Arc::new(tree), pattern: source.clone() };
        let created_time = environment.times.latest().map(|seconds| (seconds, 0));
        let request = super::CopyRequest { created_time, ..super::CopyRequest::fill(source) };
        let nothing = view(&environment.store, &[])?;
        super::copy(&nothing, path, &request).map_err(|source| Error::Files { step: Box::new(step.clone()), source, hint: None })?;
    }
    let failed = |action| move |source| Error::Io { action, path: path.to_owned(), source };
    std::os::unix::fs::chown(path, Some(uid), Some(gid)).map_err(failed("chown"))?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).map_err(failed("chmod"))
}

fn refused(step: &Step, reason: String, hint: &str) -> Error {
    Error::Refused { step: Box::new(step.clone()), reason, hint: Some(hint.to_owned()) }
}

/// Starts the sandbox, passes its output on, and waits for it. A cancelled build kills it.
fn supervise(
    environment: &Environment,
    step: &Step,
    spec: &SandboxSpec,
    netns: Option<OwnedFd>,
    started: impl FnOnce(),
    progress: &StepProgress,
    log: &StepLog,
) -> Result<Exit, Error> {
    let pipe = |source: std::io::Error| Error::Io { action: "make", path: "a pipe".into(), source };
    let (out_read, out_write) = std::io::pipe().map_err(pipe)?;
    let (err_read, err_write) = std::io::pipe().map_err(pipe)?;
    let stdin = File::open("/dev/null").map_err(|source| Error::Io { action: "open", path: "/dev/null".into(), source })?;
    let mut io = SandboxIo::new(Stdio::Descriptors { stdin: stdin.into(), stdout: out_write.into(), stderr: err_write.into() });
    io.netns = netns;
    let sandbox = |source| Error::Sandbox { step: Box::new(step.clone()), source };
    if spec.isolation == Isolation::Namespaces && shares_processes() {
        environment.confinement_told.call_once(|| environment.progress.warn(SHARED_PROCESSES));
    }
    let mut running = environment.spawner.spawn(spec, io).map_err(sandbox)?;
    started();
    std::thread::scope(|scope| {
        scope.spawn(|| forward(out_read, Stream::Stdout, progress, log));
        scope.spawn(|| forward(err_read, Stream::Stderr, progress, log));
        wait_or_cancel(environment, &mut running).map_err(|error| error.unwrap_or_else(sandbox))
    })
}

/// Either the build was cancelled, or waiting itself failed.
enum Interrupted {
    Cancelled,
    Failed(crate::runtime::Error),
}

impl Interrupted {
    fn unwrap_or_else(self, wrap: impl Fn(crate::runtime::Error) -> Error) -> Error {
        match self {
            Interrupted::Cancelled => Error::Cancelled,
            Interrupted::Failed(error) => wrap(error),
        }
    }
}

fn wait_or_cancel(environment: &Environment, running: &mut Running) -> Result<Exit, Interrupted> {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let tick = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };
    loop {
        let ready = {
            let mut fds = [PollFd::new(&*running, PollFlags::IN)];
            matches!(poll(&mut fds, Some(&tick)), Ok(count) if count > 0)
        };
        if ready {
            return running.wait().map_err(Interrupted::Failed);
        }
        if environment.cancel.is_cancelled() {
            running.kill(libc::SIGKILL).map_err(Interrupted::Failed)?;
            running.wait().map_err(Interrupted::Failed)?;
            return Err(Interrupted::Cancelled);
        }
    }
}

/// How much is read of a step's output at once, and how long a line may be before what comes on the other stream can meet it.
const CHUNK: usize = 256 * 1024;

/// Passes what a stream brings on, whole lines at a time (a carriage return ends one too), so that standard output and standard error do not meet within one.
fn forward(mut from: std::io::PipeReader, stream: Stream, progress: &StepProgress, log: &StepLog) {
    // The more fits in, the less often the command waits. Where the kernel refuses, it is as it was.
    let _ = rustix::pipe::fcntl_setpipe_size(&from, CHUNK);
    let pass = |bytes: &[u8]| {
        if !bytes.is_empty() {
            log.write(bytes);
            progress.log(stream, bytes.to_vec());
        }
    };
    let mut buffer = vec![0; CHUNK];
    let mut held = 0;
    loop {
        match from.read(&mut buffer[held..]) {
            Ok(0) => break,
            Ok(count) => {
                let end = held + count;
                // What was held has no end of a line in it.
                let lines = memchr::memrchr2(b'\n', b'\r', &buffer[held..end]).map_or(0, |at| held + at + 1);
                let lines = if lines == 0 && end == CHUNK { end } else { lines };
                pass(&buffer[..lines]);
                buffer.copy_within(lines..end, 0);
                held = end - lines;
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(_) => break,
        }
    }
    pass(&buffer[..held]);
}

/// A step's whole output on disk, and its last lines at hand.
struct StepLog {
    path: PathBuf,
    inner: Mutex<LogState>,
}

struct LogState {
    /// `None` once it could not be written: a full disk must not stop the step because of its log.
    file: Option<File>,
    /// The end of what was written: enough for the last lines.
    tail: Vec<u8>,
}

/// How much of the end of a step's output is kept at hand.
const TAIL_BYTES: usize = 64 * 1024;

impl StepLog {
    fn create(environment: &Environment, step: &Step) -> Result<StepLog, Error> {
        let (file, path) = environment.logs.create(&step.title())?;
        Ok(StepLog { path, inner: Mutex::new(LogState { file: Some(file), tail: Vec::new() }) })
    }

    fn write(&self, bytes: &[u8]) {
        let Ok(mut state) = self.inner.lock() else { return };
        if state.file.as_mut().is_some_and(|file| file.write_all(bytes).is_err()) {
            state.file = None;
        }
        state.tail.extend_from_slice(&bytes[bytes.len().saturating_sub(TAIL_BYTES)..]);
        if state.tail.len() > 2 * TAIL_BYTES {
            let surplus = state.tail.len() - TAIL_BYTES;
            state.tail.drain(..surplus);
        }
    }
}

fn failure(step: &Step, exit: &Exit, elapsed: Duration, log: StepLog, memory_limit: Option<u64>) -> StepFailure {
    let state = log.inner.into_inner().unwrap_or_else(PoisonError::into_inner);
    let lines: Vec<&[u8]> = state.tail.strip_suffix(b"\n").unwrap_or(&state.tail).split(|b| *b == b'\n').collect();
    let first = if state.tail.is_empty() { lines.len() } else { lines.len().saturating_sub(TAIL_LINES) };
    let tail = lines[first..].iter().map(|line| String::from_utf8_lossy(line).trim_end().to_owned()).collect();
    StepFailure {
        step: step.clone(),
        status: exit.status,
        elapsed,
        tail,
        log: state.file.map(|_| log.path),
        out_of_memory: exit.oom_killed,
        peak_memory: exit.peak_memory,
        memory_limit,
    }
}
