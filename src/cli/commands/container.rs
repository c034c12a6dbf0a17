//! `strake container`: the commands for containers under the names that `docker container` has for them, and `strake container prune`.

use std::process::ExitCode;

use clap::{Args, Subcommand};

use crate::cli::confirm::confirmed;
use crate::cli::render::size;
use crate::cli::{Global, report};
use crate::engine::{ContainerInfo, Engine, Error};

use super::containers::{self, open};
use super::{container_files, container_views, exec, exit, inspect, life, ports, run};

// Flags of `strake container`.
#[derive(Debug, Args)]
pub(in crate::cli) struct ContainerArgs {
    #[command(subcommand)]
    command: ContainerCommand,
}

#[derive(Debug, Subcommand)]
enum ContainerCommand {
    /// Be the terminal of a running container
    Attach(containers::AttachArgs),
    /// Make an image of a container
    Commit(container_files::CommitArgs),
    /// Copy files into a container, or out of it
    Cp(container_files::CpArgs),
    /// Make a container, without starting it
    #[command(disable_help_flag = true)]
    Create(Box<run::CreateArgs>),
    /// Show what a container has changed of its image's files
    Diff(container_views::DiffArgs),
    /// Run another command in a running container
    Exec(exec::ExecArgs),
    /// Write all files of a container to an archive
    Export(container_files::ExportArgs),
    /// Show all that is known of containers
    Inspect(inspect::ContainerInspectArgs),
    /// Send a signal to containers
    Kill(containers::KillArgs),
    /// Show what a container wrote
    Logs(containers::LogsArgs),
    /// List containers
    #[command(visible_aliases = ["list", "ps"])]
    Ls(containers::PsArgs),
    /// Make all processes of containers stand still
    Pause(life::PauseArgs),
    /// Show the ports that a container has published
    Port(ports::PortArgs),
    /// Remove containers that do not run
    Prune(PruneArgs),
    /// Give a container another name
    Rename(life::RenameArgs),
    /// Stop containers and start them again
    Restart(life::RestartArgs),
    /// Remove containers
    #[command(visible_alias = "remove")]
    Rm(containers::RmArgs),
    /// Run a command in a new container
    #[command(disable_help_flag = true)]
    Run(Box<run::RunArgs>),
    /// Start containers that were stopped
    Start(containers::StartArgs),
    /// Show what containers use
    Stats(container_views::StatsArgs),
    /// Stop containers
    Stop(containers::StopArgs),
    /// Show the processes of a container
    Top(container_views::TopArgs),
    /// Let containers go on that stand still
    Unpause(life::PauseArgs),
    /// Change the limits and the restart policy of containers
    Update(life::UpdateArgs),
    /// Wait for the end of containers, and show their exit codes
    Wait(containers::WaitArgs),
}

// Flags of `strake container prune`.
#[derive(Debug, Args)]
struct PruneArgs {
    /// `until=AGE` (`24h`, or a time), `label=KEY[=VALUE]` or `label!=KEY[=VALUE]` (may be given several times; all must hold)
    #[arg(long, value_name = "FILTER", value_parser = filter)]
    filter: Vec<(String, String)>,
    /// Do not ask
    #[arg(short, long)]
    force: bool,
}

/// Reads a `--filter`, for clap.
pub(super) fn filter(text: &str) -> Result<(String, String), String> {
    if let Some(label) = text.strip_prefix("label!=") {
        return Ok(("label!".to_owned(), label.to_owned()));
    }
    match text.split_once('=') {
        Some(("label", label)) => Ok(("label".to_owned(), label.to_owned())),
        Some(("until", time)) => super::prune::until(time).map(|_| ("until".to_owned(), time.to_owned())),
        _ => Err("expected until=AGE, label=KEY[=VALUE] or label!=KEY[=VALUE]".to_owned()),
    }
}

/// Runs `strake container`.
pub(in crate::cli) fn run(global: &Global, args: ContainerArgs) -> ExitCode {
    match args.command {
        ContainerCommand::Attach(args) => containers::attach(global, &args),
        ContainerCommand::Commit(args) => container_files::commit(global, args),
        ContainerCommand::Cp(args) => container_files::cp(global, &args),
        ContainerCommand::Create(args) => run::create(global, *args),
        ContainerCommand::Diff(args) => container_views::diff(global, &args),
        ContainerCommand::Exec(args) => exec::exec(global, args),
        ContainerCommand::Export(args) => container_files::export(global, &args),
        ContainerCommand::Inspect(args) => inspect::inspect_containers(global, args),
        ContainerCommand::Kill(args) => containers::kill(global, &args),
        ContainerCommand::Logs(args) => containers::logs(global, &args),
        ContainerCommand::Ls(args) => containers::ps(global, &args),
        ContainerCommand::Pause(args) => life::pause(global, &args),
        ContainerCommand::Port(args) => ports::port(global, &args),
        ContainerCommand::Prune(args) if !args.force && !confirmed("This will remove all stopped containers.\n") => ExitCode::SUCCESS,
        ContainerCommand::Prune(args) => exit(open(global).and_then(|engine| {
            let freed = prune(&engine, &args.filter)?;
            report::result(&format!("Total reclaimed space: {}", size(freed)));
            Ok(())
        })),
        ContainerCommand::Rename(args) => life::rename(global, &args),
        ContainerCommand::Restart(args) => life::restart(global, &args),
        ContainerCommand::Rm(args) => containers::rm(global, &args),
        ContainerCommand::Run(args) => run::run(global, *args),
        ContainerCommand::Start(args) => containers::start(global, &args),
        ContainerCommand::Stats(args) => container_views::stats(global, &args),
        ContainerCommand::Stop(args) => containers::stop(global, &args),
        ContainerCommand::Top(args) => container_views::top(global, &args),
        ContainerCommand::Unpause(args) => life::unpause(global, &args),
        ContainerCommand::Update(args) => life::update(global, &args),
        ContainerCommand::Wait(args) => containers::wait(global, &args),
    }
}

/// Removes containers that have ended, and says which; gives how many bytes that freed.
pub(super) fn prune(engine: &Engine, filters: &[(String, String)]) -> Result<u64, Error> {
    let labels = |info: &ContainerInfo| info.spec.as_ref().map_or_else(Default::default, |spec| spec.labels.clone());
    let has = |info: &ContainerInfo, label: &str| {
        let (key, wanted) = label.split_once('=').map_or((label, None), |(key, wanted)| (key, Some(wanted)));
        labels(info).get(key).is_some_and(|value| wanted.is_none_or(|wanted| wanted == value))
    };
    let old = |info: &ContainerInfo, age: &str| {
        let age = super::prune::until(age).unwrap_or_default();
        info.record.created_at.elapsed().is_ok_and(|lived| lived >= age)
    };
    let wanted = |info: &ContainerInfo| {
        !info.is_alive()
            && filters.iter().all(|(key, value)| match key.as_str() {
                "label" => has(info, value),
                "label!" => !has(info, value),
                _ => old(info, value),
            })
    };
    let (mut freed, mut ids) = (0, Vec::new());
    for info in engine.containers()?.into_iter().filter(wanted) {
        let bytes = engine.container_size(&info);
        engine.remove_container(&info, false, false)?;
        freed += bytes;
        ids.push(info.record.id);
    }
    engine.pruned("container", freed);
    if !ids.is_empty() {
        report::result(&format!("Deleted Containers:\n{}\n", ids.join("\n")));
    }
    Ok(freed)
}
