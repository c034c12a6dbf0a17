//! One file per group of commands: their flags, and what they show.

pub(super) mod build;
pub(super) mod containers;
pub(super) mod run;
mod table;

use std::future::Future;
use std::process::ExitCode;

use crate::engine::{Engine, Error};
use crate::runtime::Spawner;

use super::{Global, env, report};

/// Opens the engine and runs `work` to its end on a new runtime.
fn with_engine<F, T>(global: &Global, spawner: Option<Spawner>, work: impl FnOnce(Engine) -> F) -> Result<T, Error>
where
    F: Future<Output = Result<T, Error>>,
{
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().max_blocking_threads(512).build();
    let runtime = runtime.map_err(|source| Error::Io { action: "start", path: "the asynchronous runtime".into(), source })?;
    let engine = Engine::open(env::engine_options(global), spawner)?;
    runtime.block_on(work(engine))
}

/// Tells of a failure and gives its exit status.
fn exit(result: Result<(), Error>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report::error(&error);
            ExitCode::FAILURE
        }
    }
}
