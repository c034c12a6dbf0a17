//! `strake restart`, `pause`, `unpause`, `rename` and `update`: what changes containers that exist.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use crate::cli::{Global, report};
use crate::engine::{Error, UpdateRequest};
use crate::runtime::container::RestartPolicy;

use super::container_flags::{restart_policy, signal};
use super::containers::{each, open, patience};
use super::exit;
use super::limit_flags::LimitFlags;

// Flags of `strake restart`.
#[derive(Debug, Args)]
pub(in crate::cli) struct RestartArgs {
    /// The containers
    #[arg(required = true)]
    containers: Vec<String>,
    /// The signal that asks them to stop [default: what they were made with]
    #[arg(short, long, value_parser = signal)]
    signal: Option<i32>,
    /// Seconds until they are killed; `-1` is never [default: what they were made with]
    #[arg(short, long = "timeout", visible_alias = "time", value_name = "SECONDS", allow_negative_numbers = true, value_parser = patience)]
    time: Option<Duration>,
}

// Flags of `strake pause` and `strake unpause`.
#[derive(Debug, Args)]
pub(in crate::cli) struct PauseArgs {
    /// The containers
    #[arg(required = true)]
    containers: Vec<String>,
}

// Flags of `strake rename`.
#[derive(Debug, Args)]
pub(in crate::cli) struct RenameArgs {
    /// The container
    container: String,
    /// Its new name
    name: String,
}

// Flags of `strake update`.
#[derive(Debug, Args)]
pub(in crate::cli) struct UpdateArgs {
    /// The containers
    #[arg(required = true)]
    containers: Vec<String>,
    #[command(flatten)]
    limits: LimitFlags,
    /// When they are started again after their end: `no`, `always`, `unless-stopped` or `on-failure[:TIMES]`
    #[arg(long, value_name = "POLICY", value_parser = restart_policy)]
    restart: Option<RestartPolicy>,
}

/// Runs `strake restart`.
pub(in crate::cli) fn restart(global: &Global, args: &RestartArgs) -> ExitCode {
    each(global, &args.containers, |engine, info| {
        for warning in engine.restart_container(info, args.signal, args.time)? {
            report::tell(&format!("warning: {warning}"));
        }
        Ok(None)
    })
}

/// Runs `strake pause`.
pub(in crate::cli) fn pause(global: &Global, args: &PauseArgs) -> ExitCode {
    each(global, &args.containers, |engine, info| engine.pause_container(info).map(|()| None))
}

/// Runs `strake unpause`.
pub(in crate::cli) fn unpause(global: &Global, args: &PauseArgs) -> ExitCode {
    each(global, &args.containers, |engine, info| engine.unpause_container(info).map(|()| None))
}

/// Runs `strake rename`.
pub(in crate::cli) fn rename(global: &Global, args: &RenameArgs) -> ExitCode {
    exit(open(global).and_then(|engine| {
        let info = engine.container(&args.container)?;
        engine.rename_container(&info, args.name.trim_start_matches('/'))
    }))
}

/// Runs `strake update`.
pub(in crate::cli) fn update(global: &Global, args: &UpdateArgs) -> ExitCode {
    if args.restart.is_none() && args.limits.is_empty() {
        let hint = Some("`strake update --help` lists what can be changed".to_owned());
        return exit(Err(Error::Usage { message: "nothing to change was named".to_owned(), hint }));
    }
    each(global, &args.containers, |engine, info| {
        let before = info.spec.as_ref().and_then(|spec| spec.sandbox.cgroup.clone()).unwrap_or_default();
        let request = UpdateRequest { limits: args.limits.clone().over(before)?, restart: args.restart };
        engine.update_container(info, &request).map(|()| None)
    })
}
