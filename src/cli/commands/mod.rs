//! One file per group of commands: their flags, and what they show.

pub(super) mod build;
mod build_cache;
mod build_context;
mod build_logs;
pub(super) mod builder;
mod check;
pub(super) mod container;
pub(super) mod container_files;
mod container_flags;
pub(super) mod container_views;
pub(super) mod containers;
pub(super) mod context;
mod detach_keys;
pub(super) mod diff;
pub(super) mod doctor;
pub(super) mod edit;
pub(super) mod events;
pub(super) mod exec;
mod failed_shell;
pub(super) mod image;
pub(super) mod images;
pub(super) mod index;
pub(super) mod information;
pub(super) mod inspect;
mod isolation_flags;
mod legacy_flags;
pub(super) mod life;
mod limit_flags;
mod log_flags;
pub(super) mod login;
pub(super) mod network;
mod network_flags;
pub(super) mod oci;
mod oci_log;
mod outputs;
pub(super) mod parse;
mod places;
pub(super) mod ports;
pub(super) mod prune;
mod reach;
pub(super) mod referrers;
pub(super) mod registry;
pub(super) mod remote;
pub(super) mod run;
mod runtime_flag;
pub(super) mod search;
mod secret_flag;
mod several;
mod step_flags;
pub(super) mod system;
pub(super) mod transfer;
pub(super) mod validate;
pub(super) mod volume;

use std::error::Error as _;
use std::future::Future;
use std::io::ErrorKind;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use rustix::fs::Access;

use crate::engine::{Engine, Error};
use crate::oci::Reference;
use crate::runtime::Spawner;
use crate::task::{is_idle, parallelism};

use super::{Global, env, report};

/// Opens the engine and runs `work` to its end on a new runtime.
fn with_engine<F, T>(global: &Global, spawner: Option<Spawner>, work: impl FnOnce(Engine) -> F) -> Result<T, Error>
where
    F: Future<Output = Result<T, Error>>,
{
    // What a build computes is done by threads of its own. Those of the runtime wait and move bytes, and each of them is a twentieth of what a build takes that has nothing to do.
    let threads = if spawner.is_some() { 1 } else { parallelism() };
    on_runtime(threads, || Engine::open(env::engine_options(global), spawner), work)
}

/// The same for what only looks at a Dockerfile: without the right to write to the store, an empty one takes its place for as long as this command runs.
fn with_any_store<F, T>(global: &Global, work: impl FnOnce(Engine) -> F) -> Result<T, Error>
where
    F: Future<Output = Result<T, Error>>,
{
    let mut options = env::engine_options(global);
    let open = Engine::open(options.clone(), None);
    match open {
        Err(error) if !is_denied(&error) => Err(error),
        Ok(engine) if rustix::fs::access(&options.root, Access::WRITE_OK).is_ok() => on_runtime(parallelism(), || Ok(engine), work),
        _ => {
            let scratch = Scratch::new()?;
            options.root = scratch.0.join("store");
            on_runtime(parallelism(), || Engine::open(options, None), work)
        }
    }
}

fn is_denied(error: &Error) -> bool {
    let causes = std::iter::successors(error.source(), |cause| (**cause).source());
    let kinds = causes.filter_map(|cause| cause.downcast_ref::<std::io::Error>()).map(std::io::Error::kind);
    kinds.into_iter().any(|kind| matches!(kind, ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem))
}

/// A directory of this process alone, which goes with this value.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Result<Scratch, Error> {
        let nanoseconds = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |time| time.subsec_nanos());
        let path = std::env::temp_dir().join(format!("strake-{}-{nanoseconds}", std::process::id()));
        // Where somebody else has made it, this fails.
        match std::fs::DirBuilder::new().mode(0o700).create(&path) {
            Ok(()) => Ok(Scratch(path)),
            Err(source) => Err(Error::Io { action: "create", path, source }),
        }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What is left is empty but for what a later boot clears away.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Runs `work` on a new runtime that has so many `threads`, beside this one and those for blocking work.
fn on_runtime<E, F, T>(threads: usize, open: impl FnOnce() -> Result<E, Error>, work: impl FnOnce(E) -> F) -> Result<T, Error>
where
    F: Future<Output = Result<T, Error>>,
{
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().max_blocking_threads(512).build();
    let runtime = runtime.map_err(|source| Error::Io { action: "start", path: "the asynchronous runtime".into(), source })?;
    let opened = open()?;
    let result = runtime.block_on(work(opened));
    // Threads that a cancelled command left behind may wait for another process, or have much to compress; the store is good whenever they end, and whoever
    // has stopped the command does not wait for them.
    // Where nothing of the kind is left, there is no need to see every thread off.
    if result.is_ok() && is_idle() {
        runtime.shutdown_background();
        return result;
    }
    let stopped = result.as_ref().is_err_and(Error::is_interruption);
    runtime.shutdown_timeout(if stopped { Duration::from_millis(100) } else { Duration::from_secs(2) });
    result
}

/// Tells of a failure and gives its exit status.
fn exit(result: Result<(), Error>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report::error(&error);
            if matches!(error, Error::Interrupted) { ExitCode::from(STOPPED) } else { ExitCode::FAILURE }
        }
    }
}

/// The exit status of a command that a signal stopped, as a shell has it for SIGINT.
const STOPPED: u8 = 130;

/// Runs `work` until it ends or a signal asks to stop: then it is dropped, which leaves the store good and downloads ready to be resumed.
async fn until_interrupted<T>(work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    use tokio::signal::unix::{SignalKind, signal};
    let failed = |source| Error::Io { action: "watch", path: "the signals".into(), source };
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    tokio::select! {
        result = work => result,
        _ = interrupt.recv() => Err(Error::Interrupted),
        _ = terminate.recv() => Err(Error::Interrupted),
    }
}

/// Reads a name that an image is to have, for clap.
fn tag_name(text: &str) -> Result<Reference, String> {
    let reference: Reference = text.parse().map_err(|error: crate::oci::ReferenceError| error.reason)?;
    if reference.digest().is_some() {
        return Err("an image gets its digest from its content; give a tag".into());
    }
    if reference.is_like_digest() {
        return Err("it would be taken for an ID".into());
    }
    Ok(reference)
}
