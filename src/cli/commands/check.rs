//! `strake system check`: whether the whole store is as it should be, and mending it.

use std::process::ExitCode;

use clap::Args;
use serde_json::{Value, json};

use crate::cli::render::size;
use crate::cli::{Global, env, report};
use crate::engine::{CheckDepth, CheckOutcome, Engine, Error};
use crate::task::parallelism;

use super::{on_runtime, until_interrupted};

// Flags of `strake system check`.
#[derive(Debug, Args)]
pub(super) struct CheckArgs {
    /// Mend what is wrong: fetch it again from its registry, unpack it again from its blob, or drop it with what depends on it
    #[arg(long)]
    repair: bool,
    /// Look at rows, names and sizes only, and read no blob and no layer
    #[arg(long)]
    quick: bool,
    /// Show nothing but what is wrong, and what is done about it
    #[arg(short, long)]
    quiet: bool,
    /// `json`: all of it as one object
    #[arg(long, value_name = "FORMAT", value_parser = ["json"])]
    format: Option<String>,
}

/// The exit status where something is wrong with the store, and still is in the end.
const DAMAGED: u8 = 3;

/// Runs `strake system check`.
pub(super) fn run(global: &Global, args: &CheckArgs) -> ExitCode {
    let depth = if args.quick { CheckDepth::Structure } else { CheckDepth::Content };
    let looked = on_runtime(
        parallelism(),
        || Engine::open_to_check(env::engine_options(global)),
        |engine| async move {
            let root = engine.store().root().display().to_string();
            let work = async { if args.repair { engine.repair(depth).await } else { engine.check(depth).await } };
            Ok((root, until_interrupted(work).await?))
        },
    );
    match looked {
        Ok((root, outcome)) => {
            match args.format {
                Some(_) => report::result(&value(&root, &outcome).to_string()),
                None => show(args, &root, &outcome),
            }
            if outcome.left.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(DAMAGED) }
        }
        Err(error) => super::exit(Err::<(), Error>(error)),
    }
}

fn show(args: &CheckArgs, root: &str, outcome: &CheckOutcome) {
    let found = &outcome.found;
    for problem in &found.problems {
        report::result(&format!("bad: {problem}"));
    }
    if !args.quiet {
        for leftover in &found.leftovers {
            report::result(&format!("left over: {} (`{}`)", leftover.what, leftover.path.display()));
        }
    }
    for line in &outcome.done {
        report::result(&format!("repair: {line}"));
    }
    let counted = format!(
        "{}, {}, {} of {}",
        count(found.images, "image"),
        count(found.snapshots, "snapshot"),
        count(found.blobs, "blob"),
        size(found.bytes)
    );
    if outcome.left.is_empty() {
        if !args.quiet {
            let state = if found.problems.is_empty() { "good" } else { "good again" };
            report::result(&format!("the store `{root}` is {state} (looked at {counted})"));
        }
        return;
    }
    if args.repair {
        for problem in &outcome.left {
            report::tell(&format!("still bad: {problem}"));
        }
    }
    let (is, hint) = match args.repair {
        true => ("still damaged", "stop what uses the store, and repair it again; or remove it and start with a new one"),
        false => ("damaged", "`strake system check --repair` fetches again what came from a registry, and drops the rest"),
    };
    report::tell(&format!("error: the store `{root}` is {is}: {}\nhint: {hint}", count(outcome.left.len(), "problem")));
}

fn count(number: usize, what: &str) -> String {
    if number == 1 { format!("1 {what}") } else { format!("{number} {what}s") }
}

fn value(root: &str, outcome: &CheckOutcome) -> Value {
    let texts = |problems: &[crate::engine::Problem]| problems.iter().map(ToString::to_string).collect::<Vec<_>>();
    let leftovers: Vec<Value> =
        outcome.found.leftovers.iter().map(|leftover| json!({ "Path": leftover.path, "What": leftover.what })).collect();
    json!({
        "Root": root,
        "Good": outcome.left.is_empty(),
        "Problems": texts(&outcome.found.problems),
        "LeftOver": leftovers,
        "Repairs": outcome.done,
        "Left": texts(&outcome.left),
        "Images": outcome.found.images,
        "Snapshots": outcome.found.snapshots,
        "Blobs": outcome.found.blobs,
        "BlobBytes": outcome.found.bytes,
    })
}
