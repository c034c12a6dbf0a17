//! `strake diff`: what differs between two images, or between a container and its image.

use std::process::ExitCode;

use clap::Args;
use serde_json::{Value, json};

use crate::cli::format::{Format, format, given};
use crate::cli::render::{ProgressMode, progress};
use crate::cli::{Global, env, report, settler};
use crate::engine::{Change, DiffRequest, Error, FileDifference, ImageDiff, Times};
use crate::oci::Platform;
use crate::sys::tree::Kind;

use super::container_views;
use super::places::found_place;
use super::{until_interrupted, with_engine};

// Flags of `strake diff`.
#[derive(Debug, Args)]
pub(in crate::cli) struct DiffArgs {
    /// The first image, or alone a container: a name or ID of the store, or else a name at its registry; `docker://NAME`, `oci:DIR[:TAG]`, `oci-archive:FILE[:TAG]`,
    /// `docker-archive:FILE[:NAME]`
    from: String,
    /// The second, in the same words [default: what the container has changed]
    to: Option<String>,
    /// Names are those of registries, not of the store
    #[arg(long)]
    remote: bool,
    /// The image to choose from an index [default: this machine's platform]
    #[arg(long, env = env::if_set(env::DEFAULT_PLATFORM), hide_env = true, value_name = "OS/ARCH")]
    platform: Option<Platform>,
    /// Times count too: those of files, and when the image and its steps were made
    #[arg(long)]
    times: bool,
    /// `json`, or a template such as `{{json .Files}}`
    #[arg(long, value_parser = format)]
    format: Option<Format>,
    /// Show nothing: the exit status tells
    #[arg(short, long)]
    quiet: bool,
}

/// Exit statuses, as those of diff(1).
const DIFFERENT: u8 = 1;
const FAILED: u8 = 2;

/// Runs `strake diff`.
pub(in crate::cli) fn run(global: &Global, args: DiffArgs) -> ExitCode {
    let Some(to) = args.to.clone() else { return container_views::diff(global, &container_views::DiffArgs { container: args.from }) };
    let outcome = with_engine(global, None, |engine| async move {
        let (from, to) = (found_place(&engine, &args.from, args.remote)?, found_place(&engine, &to, args.remote)?);
        let times = if args.times { Times::Count } else { Times::Ignore };
        let request = DiffRequest { from, to, platform: args.platform.clone().unwrap_or_else(Platform::host), times };
        let progress = progress(if args.quiet { ProgressMode::Quiet } else { ProgressMode::Auto });
        let found = until_interrupted(engine.diff(&request, &progress)).await?;
        drop(progress);
        settler::finish(engine).await?;
        show(&args, &request, &found)?;
        Ok(found.files.is_empty() && found.config.is_empty())
    });
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(DIFFERENT),
        Err(error) => {
            report::error(&error);
            ExitCode::from(if matches!(error, Error::Interrupted) { super::STOPPED } else { FAILED })
        }
    }
}

fn show(args: &DiffArgs, request: &DiffRequest, found: &ImageDiff) -> Result<(), Error> {
    match given(&args.format) {
        _ if args.quiet => {}
        Some(format) => {
            let files: Vec<Value> = found.files.iter().map(file_value).collect();
            let config: Vec<Value> = found.config.iter().map(change_value).collect();
            let (from, to) = (request.from.to_string(), request.to.to_string());
            report::result(&format.render(&json!({ "From": from, "To": to, "Files": files, "Config": config }))?);
        }
        None => {
            found.files.iter().for_each(|file| report::result(&file_line(file)));
            found.config.iter().for_each(|change| report::result(&format!("config {}", change_text(change))));
        }
    }
    Ok(())
}

/// One line of a path, in the letters of `docker diff`.
fn file_line(file: &FileDifference) -> String {
    let path = crate::cli::table::tame(&file.path.as_os_str().to_string_lossy());
    match (file.from, file.to) {
        (None, Some(Kind::Directory)) => format!("A {path}/"),
        (None, _) => format!("A {path}"),
        (Some(Kind::Directory), None) => format!("D {path}/"),
        (Some(_), None) => format!("D {path}"),
        (Some(from), Some(to)) if from != to => format!("C {path}: {} -> {}", kind_name(from), kind_name(to)),
        _ => {
            let changes: Vec<String> = file.changes.iter().map(change_text).collect();
            format!("C {path}: {}", changes.join(", "))
        }
    }
}

/// A change as `mode 0644 -> 0755`.
fn change_text(change: &Change) -> String {
    let text = |value: &Option<Value>| match value {
        None => "(none)".to_owned(),
        Some(Value::String(text)) => crate::cli::table::tame(text),
        Some(other) => other.to_string(),
    };
    match (&change.from, &change.to) {
        (None, None) => change.field.clone(),
        (from, to) => format!("{} {} -> {}", change.field, text(from), text(to)),
    }
}

fn file_value(file: &FileDifference) -> Value {
    let change = match (file.from, file.to) {
        (None, _) => "added",
        (_, None) => "removed",
        _ => "changed",
    };
    let changes: Vec<Value> = file.changes.iter().map(change_value).collect();
    let kind = |kind: Option<Kind>| kind.map(kind_name);
    let path = file.path.as_os_str().to_string_lossy();
    json!({ "Path": path, "Change": change, "FromKind": kind(file.from), "ToKind": kind(file.to), "Changes": changes })
}

fn change_value(change: &Change) -> Value {
    json!({ "Field": change.field, "From": change.from, "To": change.to })
}

fn kind_name(kind: Kind) -> &'static str {
    match kind {
        Kind::File => "file",
        Kind::Directory => "directory",
        Kind::Symlink => "symbolic link",
        Kind::CharDevice => "character device",
        Kind::BlockDevice => "block device",
        Kind::Fifo => "pipe",
        Kind::Socket => "socket",
    }
}
