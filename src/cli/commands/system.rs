//! `strake system df`: what images, containers, volumes and the build cache take on the disk. (`strake system check` is in `check`, `info` in `information`, `prune` in `prune`.)

use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use crate::cli::format::{Format, format, given};
use crate::cli::render::size;
use crate::cli::table::{Table, ago, date};
use crate::cli::{Global, report};
use crate::engine::SpaceUsage;
use crate::task::blocking;

use super::check::{self, CheckArgs};
use super::information::{self, InfoArgs};
use super::{builder, containers, exit, prune, with_engine};

// Flags of `strake system`.
#[derive(Debug, Args)]
pub(in crate::cli) struct SystemArgs {
    #[command(subcommand)]
    command: SystemCommand,
}

#[derive(Debug, Subcommand)]
enum SystemCommand {
    /// Show what everything takes on the disk
    Df(DfArgs),
    /// Look whether everything in the store is as it should be, and mend what is not
    ///
    /// Exit status: 0 where all is good (or good again), 3 where something is wrong, 1 where that cannot be told.
    Check(CheckArgs),
    /// Show what this machine and the store are
    Info(InfoArgs),
    /// Remove containers that have ended, images that nothing needs, and the build cache but for what images share
    Prune(prune::SystemPruneArgs),
}

// Flags of `strake system df`.
#[derive(Debug, Args)]
struct DfArgs {
    /// Show each image, container, volume and record of the build cache
    #[arg(short, long)]
    verbose: bool,
    /// How to show each kind (with `-v`, all of it): `json`, or a template such as `{{.Type}}: {{.Size}}`
    #[arg(long, value_name = "FORMAT", value_parser = format)]
    format: Option<Format>,
}

/// Runs `strake system`.
pub(in crate::cli) fn run(global: &Global, args: SystemArgs) -> ExitCode {
    let args = match args.command {
        SystemCommand::Check(args) => return check::run(global, &args),
        SystemCommand::Info(args) => return information::info(global, args),
        SystemCommand::Prune(args) => return prune::system_prune(global, args),
        SystemCommand::Df(args) => args,
    };
    exit(with_engine(global, None, |engine| async move {
        let usage = blocking(move || engine.space_usage()).await?;
        match (given(&args.format), args.verbose) {
            (Some(format), true) => report::result(&format.render(&everything(&usage))?),
            (Some(format), false) => format.show(&kinds(&usage), &[])?,
            (None, true) => show_everything(&usage),
            (None, false) => {
                let mut table = Table::new(&["TYPE", "TOTAL", "ACTIVE", "SIZE", "RECLAIMABLE"]);
                kinds(&usage).iter().for_each(|row| table.row(cells(row, &["Type", "TotalCount", "Active", "Size", "Reclaimable"])));
                report::result(&table.render());
            }
        }
        Ok(())
    }))
}

/// The texts of some fields of a row.
fn cells(row: &Value, fields: &[&str]) -> Vec<String> {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    fields.iter().map(|field| text(&row[field])).collect()
}

/// One row for each kind of thing.
fn kinds(usage: &SpaceUsage) -> [Value; 4] {
    let store = &usage.store;
    let used_images = store.images.iter().filter(|image| image.containers > 0).count();
    let running = usage.containers.iter().filter(|info| info.is_running()).count();
    let container_sizes = || store.containers.iter().zip(&usage.containers).map(|((_, bytes), info)| (*bytes, !info.is_running()));
    let volume_sizes = || store.volumes.iter().zip(&usage.volume_links).map(|((_, bytes), links)| (*bytes, *links == 0));
    let cache_free = store.cache.iter().filter(|record| !record.shared && !record.in_use).map(|record| record.size).sum();
    let linked = usage.volume_links.iter().filter(|links| **links > 0).count();
    let in_use = store.cache.iter().filter(|record| record.in_use).count();
    [
        kind("Images", store.images.len(), used_images, store.image_bytes, store.image_bytes_unused),
        kind("Containers", store.containers.len(), running, all(container_sizes()), idle(container_sizes())),
        kind("Local Volumes", store.volumes.len(), linked, all(volume_sizes()), idle(volume_sizes())),
        kind("Build Cache", store.cache.len(), in_use, store.cache_bytes(), cache_free),
    ]
}

fn all(sizes: impl Iterator<Item = (u64, bool)>) -> u64 {
    sizes.map(|(bytes, _)| bytes).sum()
}

fn idle(sizes: impl Iterator<Item = (u64, bool)>) -> u64 {
    sizes.filter(|(_, idle)| *idle).map(|(bytes, _)| bytes).sum()
}

fn kind(name: &str, count: usize, active: usize, bytes: u64, reclaimable: u64) -> Value {
    let part = if bytes > 0 { format!(" ({}%)", u128::from(reclaimable) * 100 / u128::from(bytes)) } else { String::new() };
    json!({
        "Type": name,
        "TotalCount": count.to_string(),
        "Active": active.to_string(),
        "Size": size(bytes),
        "Reclaimable": format!("{}{part}", size(reclaimable)),
        "SizeBytes": bytes,
        "ReclaimableBytes": reclaimable,
    })
}

/// Everything, by kind.
fn everything(usage: &SpaceUsage) -> Value {
    let store = &usage.store;
    let containers = store.containers.iter().zip(&usage.containers).map(|((_, bytes), info)| {
        let mut row = containers::row(info, false);
        row["Size"] = size(*bytes).into();
        row["SizeBytes"] = (*bytes).into();
        row
    });
    let volumes = store.volumes.iter().zip(&usage.volume_links).map(
        |((volume, bytes), links)| json!({ "Name": volume.name, "Links": links.to_string(), "Size": size(*bytes), "SizeBytes": bytes }),
    );
    json!({
        "Images": images(usage),
        "Containers": containers.collect::<Vec<_>>(),
        "Volumes": volumes.collect::<Vec<_>>(),
        "BuildCache": store.cache.iter().map(builder::row).collect::<Vec<_>>(),
    })
}

/// A row for each name of each image, and for those without a name.
fn images(usage: &SpaceUsage) -> Vec<Value> {
    let mut rows = Vec::new();
    for image in &usage.store.images {
        let names = if image.names.is_empty() { vec![None] } else { image.names.iter().map(Some).collect() };
        for name in names {
            rows.push(json!({
                "Repository": name.map_or_else(|| "<none>".to_owned(), |name| name.familiar_name()),
                "Tag": name.and_then(|name| name.tag()).unwrap_or("<none>"),
                "ID": image.image.id.digest().short(),
                "CreatedAt": date(image.image.created_at),
                "CreatedSince": ago(image.image.created_at),
                "Size": size(image.bytes),
                "SharedSize": size(image.bytes - image.unique),
                "UniqueSize": size(image.unique),
                "Containers": image.containers.to_string(),
                "SizeBytes": image.bytes,
                "UniqueSizeBytes": image.unique,
            }));
        }
    }
    rows
}

fn show_everything(usage: &SpaceUsage) {
    let all = everything(usage);
    let section = |title: &str, header: &[&str], rows: &Value, fields: &[&str]| {
        let mut table = Table::new(header);
        rows.as_array().into_iter().flatten().for_each(|row| table.row(cells(row, fields)));
        report::result(&format!("{title}\n\n{}\n", table.render()));
    };
    let header = ["REPOSITORY", "TAG", "IMAGE ID", "CREATED", "SIZE", "SHARED SIZE", "UNIQUE SIZE", "CONTAINERS"];
    let fields = ["Repository", "Tag", "ID", "CreatedSince", "Size", "SharedSize", "UniqueSize", "Containers"];
    section("Images space usage:", &header, &all["Images"], &fields);
    let header = ["CONTAINER ID", "IMAGE", "COMMAND", "SIZE", "CREATED", "STATUS", "NAMES"];
    section("Containers space usage:", &header, &all["Containers"], &["ID", "Image", "Command", "Size", "RunningFor", "Status", "Names"]);
    section("Local Volumes space usage:", &["VOLUME NAME", "LINKS", "SIZE"], &all["Volumes"], &["Name", "Links", "Size"]);
    let header = ["CACHE ID", "CACHE TYPE", "SIZE", "CREATED", "LAST USED", "IN USE", "SHARED", "DESCRIPTION"];
    let fields = ["ID", "CacheType", "Size", "CreatedSince", "LastUsedSince", "InUse", "Shared", "Description"];
    let mut cache = all["BuildCache"].clone();
    for row in cache.as_array_mut().into_iter().flatten() {
        let text = row["Description"].as_str().unwrap_or_default().replace(['\n', '\t'], " ");
        row["Description"] = text.chars().take(60).collect::<String>().into();
    }
    section(&format!("Build cache usage: {}", size(usage.store.cache_bytes())), &header, &cache, &fields);
}
