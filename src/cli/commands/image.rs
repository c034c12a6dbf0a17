//! `strake image`: the commands for images under the names that `docker image` has for them, and `strake image prune`.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use clap::{Args, Subcommand};

use crate::cli::confirm::confirmed;
use crate::cli::render::{ProgressMode, progress, size};
use crate::cli::{Global, report, settler};
use crate::engine::{Engine, Error, ImageSummary, PruneImages, PruneOptions, parse_time};
use crate::oci::Platform;
use crate::task::blocking;

use super::build::{self, BuildArgs};
use super::places::found_place;
use super::{exit, images, inspect, prune, transfer, until_interrupted, with_engine};

// Flags of `strake image`.
#[derive(Debug, Args)]
pub(in crate::cli) struct ImageArgs {
    #[command(subcommand)]
    command: ImageCommand,
}

#[derive(Debug, Subcommand)]
enum ImageCommand {
    /// Build an image from a Dockerfile
    Build(Box<BuildArgs>),
    /// List the images
    #[command(visible_alias = "list")]
    Ls(images::ImagesArgs),
    /// Remove images, or names of images
    #[command(visible_alias = "remove")]
    Rm(images::RmiArgs),
    /// Remove images that nothing needs
    Prune(PruneArgs),
    /// Show all that is known of images
    Inspect(inspect::ImageInspectArgs),
    /// Show how an image came to be
    History(images::HistoryArgs),
    /// Give an image one more name
    Tag(images::TagArgs),
    /// Fetch an image from a registry
    Pull(transfer::PullArgs),
    /// Send an image to a registry
    Push(transfer::PushArgs),
    /// Write images to an archive
    Save(transfer::SaveArgs),
    /// Load the images of an archive
    Load(transfer::LoadArgs),
    /// Make an image of a root file system in a tar archive
    Import(transfer::ImportArgs),
    /// Write all files of an image to an archive, without a container
    Export(ExportArgs),
}

// Flags of `strake image export`.
#[derive(Debug, Args)]
struct ExportArgs {
    /// The image: a name or ID of the store, or else a name at its registry; or a place, such as `docker://NAME` or `oci:DIR[:TAG]`
    image: String,
    /// The file to write; `-` is standard output
    #[arg(value_name = "FILE", conflicts_with = "output")]
    file: Option<PathBuf>,
    /// The same [default: standard output]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Names are those of registries, not of the store
    #[arg(long)]
    remote: bool,
    /// The image to choose from an index [default: this machine's platform]
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<Platform>,
}

// Flags of `strake image prune`.
#[derive(Debug, Args)]
struct PruneArgs {
    /// All images that no container uses, not only those without a name
    #[arg(short, long)]
    all: bool,
    /// Only images that fit: `until=AGE` (`24h`, or a time), `label=KEY[=VALUE]`, `label!=KEY[=VALUE]`, `dangling=true|false` (may be given several times; all must
    /// hold)
    #[arg(long, value_name = "FILTER", value_parser = filter)]
    filter: Vec<Filter>,
    /// Do not ask
    #[arg(short, long)]
    force: bool,
}

/// One `--filter` of `image prune`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Filter {
    /// Made this long ago, or longer.
    Until(Duration),
    /// Has a label, perhaps with a value; or has not.
    Label { wanted: bool, key: String, value: Option<String> },
    /// Only those without a name, or all.
    Dangling(bool),
}

/// Reads a `--filter`, for clap.
pub(super) fn filter(text: &str) -> Result<Filter, String> {
    let label = |wanted, text: &str| match text.split_once('=') {
        Some((key, value)) => Filter::Label { wanted, key: key.to_owned(), value: Some(value.to_owned()) },
        None => Filter::Label { wanted, key: text.to_owned(), value: None },
    };
    if let Some(rest) = text.strip_prefix("label!=") {
        return Ok(label(false, rest));
    }
    match text.split_once('=') {
        Some(("until", value)) => prune::until(value).map(Filter::Until),
        Some(("label", rest)) => Ok(label(true, rest)),
        Some(("dangling", "true" | "1")) => Ok(Filter::Dangling(true)),
        Some(("dangling", "false" | "0")) => Ok(Filter::Dangling(false)),
        _ => Err("expected `until=AGE`, `label=KEY[=VALUE]`, `label!=KEY[=VALUE]` or `dangling=true|false`".to_owned()),
    }
}

impl ImageArgs {
    /// The flags of a build, where that is what is asked for.
    pub(in crate::cli) fn build(&self) -> Option<&BuildArgs> {
        match &self.command {
            ImageCommand::Build(args) => Some(args),
            _ => None,
        }
    }
}

/// Runs `strake image`.
pub(in crate::cli) fn run(global: &Global, args: ImageArgs) -> ExitCode {
    match args.command {
        ImageCommand::Build(args) => build::run(global, *args),
        ImageCommand::Ls(args) => images::images(global, args),
        ImageCommand::Rm(args) => images::rmi(global, args),
        ImageCommand::Prune(args) if !args.force && !confirmed(warning(means_all(args.all, &args.filter))) => ExitCode::SUCCESS,
        ImageCommand::Prune(args) => exit(with_engine(global, None, |engine| async move {
            let freed = blocking(move || prune_images(&engine, args.all, &args.filter)).await?;
            report::result(&format!("Total reclaimed space: {}", size(freed)));
            Ok(())
        })),
        ImageCommand::Inspect(args) => inspect::inspect_images(global, args),
        ImageCommand::History(args) => images::history(global, args),
        ImageCommand::Tag(args) => images::tag(global, args),
        ImageCommand::Pull(args) => transfer::pull(global, args),
        ImageCommand::Push(args) => transfer::push(global, args),
        ImageCommand::Save(args) => transfer::save(global, args),
        ImageCommand::Load(args) => transfer::load(global, args),
        ImageCommand::Import(args) => transfer::import(global, args),
        ImageCommand::Export(args) => export(global, args),
    }
}

fn export(global: &Global, args: ExportArgs) -> ExitCode {
    let to = args.file.or(args.output).unwrap_or_else(|| PathBuf::from("-"));
    if to.as_os_str() == "-" && std::io::stdout().is_terminal() {
        let hint = Some("name a file, or redirect the output".to_owned());
        return exit(Err(Error::Usage { message: "an archive is not for a terminal".to_owned(), hint }));
    }
    exit(with_engine(global, None, |engine| async move {
        let place = found_place(&engine, &args.image, args.remote)?;
        let progress = progress(ProgressMode::Auto);
        let exported = until_interrupted(engine.export_image(&place, args.platform.as_ref(), &to, &progress)).await;
        drop(progress);
        exported?;
        settler::finish(engine).await
    }))
}

/// Removes images that nothing needs, and says which; gives how many bytes that freed.
pub(super) fn prune_images(engine: &Engine, all: bool, filters: &[Filter]) -> Result<u64, Error> {
    let all = means_all(all, filters);
    let mut chosen = Vec::new();
    for image in engine.images()? {
        let labels = match engine.image_details(&image.image.id.to_string())? {
            Some(details) => details.config.config.labels,
            None => continue,
        };
        if filters.iter().all(|filter| fits(filter, &image, &labels)) {
            chosen.push(image.image.id);
        }
    }
    let images = if all { PruneImages::All } else { PruneImages::Dangling };
    let report = engine.prune(&PruneOptions { images, only_images: Some(chosen), ..PruneOptions::default() })?;
    engine.pruned("image", report.freed);
    prune::show_images(&report);
    Ok(report.freed)
}

/// Whether images with a name are meant as well: a filter says so last.
fn means_all(all: bool, filters: &[Filter]) -> bool {
    let dangling = filters.iter().rev().find_map(|filter| match filter {
        Filter::Dangling(dangling) => Some(*dangling),
        _ => None,
    });
    dangling.map_or(all, |dangling| !dangling)
}

/// What is asked before.
fn warning(all: bool) -> &'static str {
    match all {
        true => "This will remove all images without at least one container associated to them.\n",
        false => "This will remove all dangling images.\n",
    }
}

fn fits(filter: &Filter, image: &ImageSummary, labels: &std::collections::BTreeMap<String, String>) -> bool {
    match filter {
        Filter::Dangling(_) => true,
        Filter::Until(age) => {
            let created = image.created.as_deref().and_then(parse_time).unwrap_or(image.image.created_at);
            SystemTime::now().checked_sub(*age).is_none_or(|moment| created < moment)
        }
        Filter::Label { wanted, key, value } => {
            let has = labels.get(key).is_some_and(|known| value.as_ref().is_none_or(|value| known == value));
            has == *wanted
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_are_dockers() {
        let label = |wanted, key: &str, value: Option<&str>| Filter::Label { wanted, key: key.into(), value: value.map(str::to_owned) };
        assert_eq!(filter("label=a"), Ok(label(true, "a", None)));
        assert_eq!(filter("label!=a=b"), Ok(label(false, "a", Some("b"))));
        assert_eq!(filter("until=24h"), Ok(Filter::Until(Duration::from_secs(24 * 3600))));
        assert_eq!(filter("dangling=false"), Ok(Filter::Dangling(false)));
        assert!(filter("name=x").is_err() && filter("until=soon").is_err());
    }
}
