//! `strake builder`: the build cache, record by record.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use crate::cli::format::{Format, format, given};
use crate::cli::render::size;
use crate::cli::table::{Table, ago, date};
use crate::cli::{Global, report};
use crate::engine::UsageRecord;
use crate::task::blocking;

use super::build::{self, BuildArgs};
use super::prune::{self, BuilderPruneArgs, Condition, condition};
use super::{exit, with_engine};

// Flags of `strake builder`.
#[derive(Debug, Args)]
pub(in crate::cli) struct BuilderArgs {
    #[command(subcommand)]
    command: BuilderCommand,
}

#[derive(Debug, Subcommand)]
enum BuilderCommand {
    /// Build an image from a Dockerfile
    #[command(visible_alias = "b")]
    Build(Box<BuildArgs>),
    /// Show what the build cache takes on the disk
    Du(DuArgs),
    /// Free what nothing needs of the build cache
    Prune(BuilderPruneArgs),
}

// Flags of `strake builder du`.
#[derive(Debug, Args)]
struct DuArgs {
    /// Only records that this holds of, as with `strake builder prune` (may be given several times; all must hold)
    #[arg(long, value_name = "FILTER", value_parser = condition)]
    filter: Vec<Condition>,
    /// Show all that is known of each record
    #[arg(long)]
    verbose: bool,
    /// How to show each record: `json`, or a template such as `{{.ID}}`
    #[arg(long, value_name = "FORMAT", value_parser = format)]
    format: Option<Format>,
}

impl BuilderArgs {
    /// The flags of a build, where that is what is asked for.
    pub(in crate::cli) fn build(&self) -> Option<&BuildArgs> {
        match &self.command {
            BuilderCommand::Build(args) => Some(args),
            _ => None,
        }
    }
}

/// Runs `strake builder`.
pub(in crate::cli) fn run(global: &Global, args: BuilderArgs) -> ExitCode {
    match args.command {
        BuilderCommand::Build(args) => build::run(global, *args),
        BuilderCommand::Du(args) => du(global, args),
        BuilderCommand::Prune(args) => prune::builder_prune(global, &args),
    }
}

fn du(global: &Global, args: DuArgs) -> ExitCode {
    exit(with_engine(global, None, |engine| async move {
        let usage = blocking(move || engine.space_usage()).await?;
        let mut records = usage.store.cache;
        records.retain(|record| args.filter.iter().all(|condition| holds(condition, record)));
        // The largest last, beside the sums.
        records.sort_by_key(|record| record.size);
        if let Some(format) = given(&args.format) {
            return format.show(&records.iter().map(row).collect::<Vec<_>>(), &[]);
        }
        show(&records, args.verbose);
        let sum =
            |wanted: &dyn Fn(&UsageRecord) -> bool| size(records.iter().filter(|record| wanted(record)).map(|record| record.size).sum());
        let mut table = Table::new(&["Shared:", &sum(&|record| record.shared)]).with_narrowest(0);
        table.row(vec!["Private:".into(), sum(&|record| !record.shared)]);
        table.row(vec!["Reclaimable:".into(), sum(&|record| !record.shared && !record.in_use)]);
        table.row(vec!["Total:".into(), sum(&|_| true)]);
        report::result(&table.render());
        Ok(())
    }))
}

fn holds(condition: &Condition, record: &UsageRecord) -> bool {
    match condition {
        Condition::Until(age) => record.last_used.elapsed().unwrap_or_default() >= *age,
        Condition::Record(filter) => filter.matches(record),
    }
}

/// Shows what was pruned of the build cache, if anything was.
pub(super) fn show_pruned(records: &[UsageRecord], verbose: bool) {
    if !records.is_empty() {
        show(records, verbose);
    }
}

fn show(records: &[UsageRecord], verbose: bool) {
    if verbose {
        records.iter().for_each(|record| report::result(&details(record)));
        return;
    }
    let mut table = Table::new(&["ID", "RECLAIMABLE", "SIZE", "LAST ACCESSED"]).with_narrowest(0);
    let star = |yes: bool| if yes { "*" } else { "" };
    for record in records {
        let id = format!("{}{}", record.id, star(record.is_mutable()));
        let bytes = format!("{}{}", size(record.size), star(record.shared));
        table.row(vec![id, (!record.in_use).to_string(), bytes, ago(record.last_used)]);
    }
    report::result(&table.render());
}

/// All that is known of a record, a line for each thing.
fn details(record: &UsageRecord) -> String {
    let mut table = Table::new(&["ID:", &record.id]).with_narrowest(0);
    let mut line = |name: &str, value: String| table.row(vec![format!("{name}:"), value]);
    if !record.parents.is_empty() {
        line("Parents", record.parents.join(", "));
    }
    line("Created at", date(record.created_at));
    line("Mutable", record.is_mutable().to_string());
    line("Reclaimable", (!record.in_use).to_string());
    line("Shared", record.shared.to_string());
    line("Size", size(record.size));
    line("Description", record.description.replace('\n', " "));
    line("Last used", ago(record.last_used));
    line("Type", record.kind.name().to_owned());
    format!("{}\n", table.render())
}

/// A record as the fields of a template.
pub(super) fn row(record: &UsageRecord) -> Value {
    json!({
        "ID": record.id,
        "CacheType": record.kind.name(),
        "Type": record.kind.name(),
        "Parents": record.parents,
        "Description": record.description,
        "Mutable": record.is_mutable(),
        "Reclaimable": !record.in_use,
        "InUse": record.in_use,
        "Shared": record.shared,
        "Size": size(record.size),
        "SizeBytes": record.size,
        "CreatedAt": date(record.created_at),
        "CreatedSince": ago(record.created_at),
        "LastUsedAt": date(record.last_used),
        "LastUsedSince": ago(record.last_used),
    })
}
