//! `strake pull`, `push`, `save`, `load` and `import`: images on their way.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, ValueEnum};

use crate::cli::render::{ProgressMode, progress};
use crate::cli::{Global, env, report, settler};
use crate::engine::{ArchiveFormat, Engine, Error, ImageError, ImportRequest, PullRequest, SaveRequest};
use crate::oci::{Platform, Reference};

use super::legacy_flags::TrustFlag;
use super::{exit, until_interrupted, with_engine};

// Flags of `strake pull`.
#[derive(Debug, Args)]
pub(in crate::cli) struct PullArgs {
    /// The image
    #[arg(value_name = "NAME[:TAG|@DIGEST]")]
    name: Reference,
    /// Pull every tag of the repository
    #[arg(short, long)]
    all_tags: bool,
    /// The platform to choose where there are several [default: this machine's]
    #[arg(long, env = env::if_set(env::DEFAULT_PLATFORM), hide_env = true, value_name = "OS/ARCH")]
    platform: Option<Platform>,
    /// Keep the images for all platforms, and the index: `push` and `copy --all` pass them on
    #[arg(long)]
    all_platforms: bool,
    /// Show nothing but the image's name
    #[arg(short, long)]
    quiet: bool,
    #[command(flatten)]
    _trust: TrustFlag,
}

// Flags of `strake push`.
#[derive(Debug, Args)]
pub(in crate::cli) struct PushArgs {
    /// The image, under the name that it is to have in the registry
    #[arg(value_name = "NAME[:TAG]")]
    name: Reference,
    /// Push all names that images here have in the repository
    #[arg(short, long)]
    all_tags: bool,
    /// Fail where the name means one image here, and no index of several
    #[arg(long, conflicts_with = "platform")]
    all_platforms: bool,
    /// Send the image for this platform [default: the index that the name was built or pulled with, where all of it is here, else the image]
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<Platform>,
    /// Show nothing but the image's name
    #[arg(short, long)]
    quiet: bool,
    #[command(flatten)]
    _trust: TrustFlag,
}

// Flags of `strake import`.
#[derive(Debug, Args)]
pub(in crate::cli) struct ImportArgs {
    /// The tar archive with the root file system, compressed or not: a file, an address (`https://…`), or `-` for standard input
    file: PathBuf,
    /// The image's name
    #[arg(value_name = "NAME[:TAG]", value_parser = super::tag_name)]
    name: Option<Reference>,
    /// Change a setting of the image with an instruction, such as `CMD ["sh"]` (may be given several times)
    #[arg(short, long, value_name = "INSTRUCTION")]
    change: Vec<String>,
    /// A remark for the image's history
    #[arg(short, long, value_name = "TEXT")]
    message: Option<String>,
    /// What the image runs on [default: this machine's platform]
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<Platform>,
    /// Show no progress while an address is fetched
    #[arg(short, long)]
    quiet: bool,
}

// Flags of `strake save`.
#[derive(Debug, Args)]
pub(in crate::cli) struct SaveArgs {
    /// The images: names, IDs or the beginnings of IDs
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<String>,
    /// The file to write [default: standard output]
    #[arg(short, long, value_name = "FILE", default_value = "-", hide_default_value = true)]
    output: PathBuf,
    /// The images for this platform [default: those that the names stand for]
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<Platform>,
    /// Who is to read the archive
    #[arg(long, value_enum, default_value = "docker-archive")]
    format: SaveFormat,
}

/// `--format` of `save`.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum SaveFormat {
    /// `docker load`, and readers of OCI archives
    DockerArchive,
    /// Readers of OCI archives
    OciArchive,
}

// Flags of `strake load`.
#[derive(Debug, Args)]
pub(in crate::cli) struct LoadArgs {
    /// The archive, compressed or not [default: standard input]
    #[arg(short, long, value_name = "FILE", default_value = "-", hide_default_value = true)]
    input: PathBuf,
    /// Only the images for this platform [default: all, for this machine where there are several]
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<Platform>,
    /// Accepted for compatibility: no progress is shown
    #[arg(short, long)]
    quiet: bool,
}

fn mode(quiet: bool) -> ProgressMode {
    if quiet { ProgressMode::Quiet } else { ProgressMode::Auto }
}

/// Runs `strake pull`.
pub(in crate::cli) fn pull(global: &Global, args: PullArgs) -> ExitCode {
    exit(with_engine(global, None, |engine| async move {
        let names = match args.all_tags {
            true => tagged(&args.name, until_interrupted(engine.remote_tags(repository(&args.name)?)).await?)?,
            false => vec![args.name.clone()],
        };
        for reference in names {
            let platform = args.platform.clone().unwrap_or_else(Platform::host);
            let request = PullRequest { reference: reference.clone(), platform, all_platforms: args.all_platforms };
            let progress = progress(mode(args.quiet));
            let outcome = match until_interrupted(engine.pull(request, &progress)).await {
                // Signatures and the like have tags too.
                Err(error @ Error::Image { source: ImageError::NotAnImage { .. }, .. }) if args.all_tags => {
                    progress.warn(format!("`{}` is left out: it is no image", reference.familiar()));
                    drop((progress, error));
                    continue;
                }
                result => result?,
            };
            drop(progress);
            if !args.quiet {
                report::result(&format!("Digest: {}", outcome.digest));
                let status = if outcome.up_to_date { "Image is up to date for" } else { "Downloaded newer image for" };
                report::result(&format!("Status: {status} {}", outcome.name.familiar()));
            }
            report::result(&outcome.name.to_string());
        }
        settler::finish(engine).await
    }))
}

/// The repository that `-a` is about: all of its tags, so none may be named.
pub(super) fn repository(name: &Reference) -> Result<&Reference, Error> {
    match name.is_repository_alone() {
        true => Ok(name),
        false => {
            let message = format!("`{}` names a tag, and --all-tags means every tag", name.written());
            Err(Error::Usage { message, hint: Some("name the repository alone".to_owned()) })
        }
    }
}

/// The names of a repository's tags, sorted: registries list them in any order.
pub(super) fn tagged(repository: &Reference, mut tags: Vec<String>) -> Result<Vec<Reference>, Error> {
    tags.sort();
    let bad = |error: crate::oci::ReferenceError| Error::Usage { message: error.to_string(), hint: None };
    tags.into_iter().map(|tag| format!("{}:{tag}", repository.name()).parse().map_err(bad)).collect()
}

/// The names that images here have in a repository.
fn names_in(engine: &Engine, repository: &Reference) -> Result<Vec<Reference>, Error> {
    let names = engine.images()?.into_iter().flat_map(|image| image.names).map(|named| named.name);
    let mut names: Vec<Reference> = names.filter(|name| name.digest().is_none() && name.name() == repository.name()).collect();
    names.sort_by_key(Reference::to_string);
    match names.is_empty() {
        false => Ok(names),
        true => Err(Error::NoSuchImage { name: repository.familiar_name(), alike: Vec::new() }),
    }
}

/// Runs `strake push`.
pub(in crate::cli) fn push(global: &Global, args: PushArgs) -> ExitCode {
    exit(with_engine(global, None, |engine| async move {
        let names = if args.all_tags { names_in(&engine, repository(&args.name)?)? } else { vec![args.name] };
        for name in names {
            let progress = progress(mode(args.quiet));
            let outcome = match args.all_platforms {
                true => until_interrupted(engine.push_all(&name, &progress)).await?,
                false => until_interrupted(engine.push(&name, args.platform.as_ref(), &progress)).await?,
            };
            drop(progress);
            if args.quiet {
                report::result(&name.to_string());
            } else {
                let manifest = &outcome.manifest;
                report::result(&format!("{}: digest: {} size: {}", name.tag().unwrap_or("latest"), manifest.digest, manifest.size));
            }
        }
        settler::finish(engine).await
    }))
}

/// Runs `strake save`.
pub(in crate::cli) fn save(global: &Global, args: SaveArgs) -> ExitCode {
    if args.output == Path::new("-") && std::io::stdout().is_terminal() {
        let hint = Some("name a file with -o, or redirect standard output".to_owned());
        return exit(Err(Error::Usage { message: "an archive is not written to a terminal".into(), hint }));
    }
    exit(with_engine(global, None, |engine| async move {
        let format = match args.format {
            SaveFormat::DockerArchive => ArchiveFormat::Docker,
            SaveFormat::OciArchive => ArchiveFormat::Oci,
        };
        until_interrupted(engine.save(SaveRequest { images: args.images, platform: args.platform, format, dest: args.output })).await
    }))
}

/// Runs `strake load`.
pub(in crate::cli) fn load(global: &Global, args: LoadArgs) -> ExitCode {
    if args.input == Path::new("-") && std::io::stdin().is_terminal() {
        let hint = Some("name a file with -i, or redirect standard input".to_owned());
        return exit(Err(Error::Usage { message: "an archive is not read from a terminal".into(), hint }));
    }
    exit(with_engine(global, None, |engine| async move {
        let images = until_interrupted(engine.load(args.input, args.platform)).await?;
        settler::finish(engine).await?;
        for loaded in images {
            let what: Vec<String> = match loaded.names.as_slice() {
                [] => vec![format!("Loaded image ID: {}", loaded.image.id)],
                names => names.iter().map(|name| format!("Loaded image: {}", name.familiar())).collect(),
            };
            what.iter().for_each(|line| report::result(line));
        }
        Ok(())
    }))
}

/// Runs `strake import`.
pub(in crate::cli) fn import(global: &Global, args: ImportArgs) -> ExitCode {
    exit(with_engine(global, None, |engine| async move {
        let request = ImportRequest {
            source: args.file,
            name: args.name,
            changes: args.change,
            message: args.message,
            platform: args.platform.unwrap_or_else(Platform::host),
        };
        let progress = progress(mode(args.quiet));
        let image = until_interrupted(engine.import(request, &progress)).await;
        drop(progress);
        let image = image?;
        settler::finish(engine).await?;
        report::result(&image.id.to_string());
        Ok(())
    }))
}
