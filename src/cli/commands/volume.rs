//! `strake volume`: volumes, which keep files beyond the containers that use them.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use crate::cli::confirm::confirmed;
use crate::cli::format::{Format, format, given};
use crate::cli::render::size;
use crate::cli::table::{Table, tame};
use crate::cli::{Global, report};
use crate::engine::{Engine, Error, VolumeInfo};

use super::container_flags::labels;
use super::containers::open;
use super::exit;
use super::several::{Failures, show};

// Flags of `strake volume`.
#[derive(Debug, Args)]
pub(in crate::cli) struct VolumeArgs {
    #[command(subcommand)]
    command: VolumeCommand,
}

#[derive(Debug, Subcommand)]
enum VolumeCommand {
    /// Make a volume
    Create(CreateArgs),
    /// List the volumes
    #[command(visible_alias = "list")]
    Ls(LsArgs),
    /// Show all that is known of volumes
    Inspect(InspectArgs),
    /// Remove volumes that no container uses
    #[command(visible_alias = "remove")]
    Rm(RmArgs),
    /// Remove all volumes that no container uses
    Prune(PruneArgs),
}

// Flags of `strake volume create`.
#[derive(Debug, Args)]
struct CreateArgs {
    /// Its name [default: 64 random digits]
    name: Option<String>,
    // How it was said before it was an argument.
    #[arg(long = "name", hide = true, value_name = "NAME", conflicts_with = "name")]
    named: Option<String>,
    /// A label (may be given several times)
    #[arg(long, value_name = "KEY=VALUE")]
    label: Vec<String>,
    /// The driver: `local`
    #[arg(short, long, default_value = "local", value_parser = ["local"])]
    driver: String,
    /// Where its files are, if not in the store: `type=`, `device=` and `o=` as for mount(8), such as `type=tmpfs`, `type=nfs` or `type=none` with `o=bind` (may be given several times)
    #[arg(short, long, value_name = "KEY=VALUE", value_parser = option)]
    opt: Vec<(String, String)>,
}

// Flags of `strake volume ls`.
#[derive(Debug, Args)]
struct LsArgs {
    /// Only the names
    #[arg(short, long)]
    quiet: bool,
    /// `json`, or a template such as `{{.Name}}`
    #[arg(long, value_parser = format)]
    format: Option<Format>,
    /// `name=`, `label=`, `driver=` or `dangling=true|false` (may be given several times)
    #[arg(short, long, value_name = "FILTER", value_parser = filter)]
    filter: Vec<(String, String)>,
}

// Flags of `strake volume inspect`.
#[derive(Debug, Args)]
struct InspectArgs {
    /// The volumes
    #[arg(required = true)]
    names: Vec<String>,
    /// `json`, or a template such as `{{.Mountpoint}}`
    #[arg(short, long, value_parser = format)]
    format: Option<Format>,
}

// Flags of `strake volume rm`.
#[derive(Debug, Args)]
struct RmArgs {
    /// The volumes
    #[arg(required = true)]
    names: Vec<String>,
    /// Say nothing of those that are not there
    #[arg(short, long)]
    force: bool,
}

// Flags of `strake volume prune`.
#[derive(Debug, Args)]
struct PruneArgs {
    /// Also volumes with a name that a user gave them
    #[arg(short, long)]
    all: bool,
    /// `label=KEY[=VALUE]`, `label!=KEY[=VALUE]` or `all=true` (may be given several times)
    #[arg(long, value_name = "FILTER", value_parser = prune_filter)]
    filter: Vec<(String, String)>,
    /// Do not ask
    #[arg(short, long)]
    force: bool,
}

fn option(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("expected KEY=VALUE")?;
    Ok((key.to_owned(), value.to_owned()))
}

fn filter(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("expected KEY=VALUE")?;
    match (key, value) {
        ("name" | "label" | "driver", _) | ("dangling", "true" | "false" | "1" | "0") => Ok((key.to_owned(), value.to_owned())),
        ("dangling", _) => Err(format!("`{value}` is neither true nor false")),
        _ => Err(format!("the filter `{key}` is not supported: expected name, label, driver or dangling")),
    }
}

fn prune_filter(text: &str) -> Result<(String, String), String> {
    if let Some(label) = text.strip_prefix("label!=") {
        return Ok(("label!".to_owned(), label.to_owned()));
    }
    match text.split_once('=') {
        Some(("label", label)) => Ok(("label".to_owned(), label.to_owned())),
        Some(("all", value @ ("true" | "1" | "false" | "0"))) => Ok(("all".to_owned(), value.to_owned())),
        _ => Err("expected label=KEY[=VALUE], label!=KEY[=VALUE] or all=true".to_owned()),
    }
}

fn has_label(volume: &VolumeInfo, label: &str) -> bool {
    let (key, wanted) = label.split_once('=').map_or((label, None), |(key, wanted)| (key, Some(wanted)));
    volume.record.labels.get(key).is_some_and(|value| wanted.is_none_or(|wanted| wanted == value))
}

/// Filters of one key are alternatives, except labels; different keys must all hold.
fn matches(volume: &VolumeInfo, filters: &[(String, String)]) -> bool {
    let holds = |key: &str, value: &str| match key {
        "name" => volume.record.name.contains(value),
        "driver" => value == "local",
        "dangling" => volume.users.is_empty() == matches!(value, "true" | "1"),
        _ => has_label(volume, value),
    };
    filters.iter().all(|(key, value)| match key.as_str() {
        "label" => holds(key, value),
        _ => filters.iter().any(|(other, value)| other == key && holds(key, value)),
    })
}

/// Runs `strake volume`.
pub(in crate::cli) fn run(global: &Global, args: VolumeArgs) -> ExitCode {
    if let VolumeCommand::Prune(args) = &args.command
        && !args.force
    {
        let which = if wants_all(args.all, &args.filter) { "all" } else { "anonymous" };
        if !confirmed(&format!("This will remove {which} local volumes not used by at least one container.\n")) {
            return ExitCode::SUCCESS;
        }
    }
    exit(open(global).and_then(|engine| match args.command {
        VolumeCommand::Create(args) => {
            let labels = labels(&Vec::<PathBuf>::new(), &args.label)?;
            report::result(&engine.create_volume(args.name.or(args.named).as_deref(), &labels, &args.opt.into_iter().collect())?);
            Ok(())
        }
        VolumeCommand::Ls(args) => list(&engine, &args),
        VolumeCommand::Inspect(args) => inspect(&engine, &args),
        VolumeCommand::Rm(args) => remove(&engine, &args),
        VolumeCommand::Prune(args) => {
            let freed = prune(&engine, args.all, &args.filter)?;
            report::result(&format!("Total reclaimed space: {}", size(freed)));
            Ok(())
        }
    }))
}

fn list(engine: &Engine, args: &LsArgs) -> Result<(), Error> {
    let mut table = Table::new(&["DRIVER", "VOLUME NAME"]);
    let mut rows = Vec::new();
    for volume in engine.volumes()?.into_iter().filter(|volume| matches(volume, &args.filter)) {
        match given(&args.format) {
            _ if args.quiet => report::result(&volume.record.name),
            Some(_) => rows.push(row(&volume)),
            None => table.row(vec!["local".to_owned(), volume.record.name]),
        }
    }
    match given(&args.format) {
        _ if args.quiet => {}
        Some(format) => format.show(&rows, &[("Name", "VOLUME NAME")])?,
        None => report::result(&table.render()),
    }
    Ok(())
}

fn row(volume: &VolumeInfo) -> Value {
    let labels: Vec<String> = volume.record.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    json!({
        "Availability": "N/A", "Driver": "local", "Group": "N/A", "Labels": tame(&labels.join(",")), "Links": "N/A",
        "Mountpoint": volume.path, "Name": volume.record.name, "Scope": "local", "Size": "N/A", "Status": "N/A",
    })
}

/// A volume in the shape that Docker gives it.
pub(super) fn value(volume: &VolumeInfo) -> Value {
    let created = jiff::Timestamp::try_from(volume.record.created_at).unwrap_or_default();
    json!({
        "CreatedAt": created.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(), "Driver": "local",
        "Labels": if volume.record.labels.is_empty() { Value::Null } else { json!(volume.record.labels) },
        "Mountpoint": volume.path, "Name": volume.record.name, "Options": if volume.record.options.is_empty() { Value::Null } else { json!(volume.record.options) }, "Scope": "local",
    })
}

fn inspect(engine: &Engine, args: &InspectArgs) -> Result<(), Error> {
    let (mut found, mut failures) = (Vec::new(), Failures::default());
    for name in &args.names {
        match engine.volume(name) {
            Ok(volume) => found.push(value(&volume)),
            Err(error) => failures.add(error),
        }
    }
    show(found, args.format.as_ref())?;
    failures.end()
}

fn remove(engine: &Engine, args: &RmArgs) -> Result<(), Error> {
    let all = engine.volumes()?;
    let mut failures = Failures::default();
    for name in &args.names {
        let removed = match all.iter().find(|volume| volume.record.name == *name) {
            None if args.force => Ok(()),
            None => engine.volume(name).map(drop),
            Some(volume) => engine.remove_volume(volume),
        };
        match removed {
            Ok(()) => report::result(name),
            Err(error) => failures.add(error),
        }
    }
    failures.end()
}

/// Whether volumes with a name are meant as well.
fn wants_all(all: bool, filters: &[(String, String)]) -> bool {
    all || filters.iter().any(|(key, value)| key == "all" && matches!(value.as_str(), "true" | "1"))
}

/// Removes volumes that no container uses, and says which; gives how many bytes that freed.
pub(super) fn prune(engine: &Engine, all: bool, filters: &[(String, String)]) -> Result<u64, Error> {
    let all = wants_all(all, filters);
    let wanted = |volume: &VolumeInfo| {
        volume.users.is_empty()
            && (all || volume.record.anonymous)
            && filters.iter().all(|(key, label)| match key.as_str() {
                "label" => has_label(volume, label),
                "label!" => !has_label(volume, label),
                _ => true,
            })
    };
    let (mut freed, mut names) = (0, Vec::new());
    for volume in engine.volumes()?.into_iter().filter(wanted) {
        let bytes = engine.volume_size(&volume);
        engine.remove_volume(&volume)?;
        freed += bytes;
        names.push(volume.record.name);
    }
    engine.pruned("volume", freed);
    if !names.is_empty() {
        report::result(&format!("Deleted Volumes:\n{}\n", names.join("\n")));
    }
    Ok(freed)
}
