//! `strake pull`, `push`, `save`, `load` and `import`: images on their way.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, ValueEnum};

use crate::cli::render::{ProgressMode, progress};
use crate::cli::{Global, env, report};
use crate::engine::{ArchiveFormat, Engine, Error, ImportRequest, PullRequest, SaveRequest};
use crate::oci::{Platform, Reference};

use super::{exit, until_interrupted, with_engine};

/// Flags of `strake pull`.
#[derive(Debug, Args)]
pub(in crate::cli) struct PullArgs {
    /// The image
    #[arg(value_name = "NAME[:TAG|@DIGEST]")]
    name: Reference,
    /// The platform to choose where there are several [default: this machine's]
    #[arg(long, env = env::DEFAULT_PLATFORM, hide_env = true, value_name = "OS/ARCH")]
    platform: Option<Platform>,
    /// Keep the images for all platforms, and the index: `push --all-platforms` and `copy --all` pass them on
    #[arg(long)]
    all_platforms: bool,
    /// Show nothing but the image's name
    #[arg(short, long)]
    quiet: bool,
}

/// Flags of `strake push`.
#[derive(Debug, Args)]
pub(in crate::cli) struct PushArgs {
    /// The image, under the name that it is to have in the registry
    #[arg(value_name = "NAME[:TAG]")]
    name: Reference,
    /// Send the index that the image was pulled with by `pull --all-platforms`, and all its images
    #[arg(long)]
    all_platforms: bool,
    /// Show nothing but the image's name
    #[arg(short, long)]
    quiet: bool,
}

/// Flags of `strake import`.
#[derive(Debug, Args)]
pub(in crate::cli) struct ImportArgs {
    /// The tar archive with the root file system, compressed or not; `-` is standard input
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
    /// Accepted for compatibility: nothing but the image's ID is shown anyway
    #[arg(short, long, hide = true)]
    quiet: bool,
}

/// Flags of `strake save`.
#[derive(Debug, Args)]
pub(in crate::cli) struct SaveArgs {
    /// The images: names, IDs or the beginnings of IDs
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<String>,
    /// The file to write [default: standard output]
    #[arg(short, long, value_name = "FILE", default_value = "-", hide_default_value = true)]
    output: PathBuf,
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

/// Flags of `strake load`.
#[derive(Debug, Args)]
pub(in crate::cli) struct LoadArgs {
    /// The archive, compressed or not [default: standard input]
    #[arg(short, long, value_name = "FILE", default_value = "-", hide_default_value = true)]
    input: PathBuf,
    /// Show nothing but names and IDs
    #[arg(short, long)]
    quiet: bool,
}

fn mode(quiet: bool) -> ProgressMode {
    if quiet { ProgressMode::Quiet } else { ProgressMode::Auto }
}

/// Runs `strake pull`.
pub(in crate::cli) fn pull(global: &Global, args: PullArgs) -> ExitCode {
    exit(with_engine(global, None, |engine| async move {
        let reference = args.name.clone();
        let request =
            PullRequest { reference: args.name, platform: args.platform.unwrap_or_else(Platform::host), all_platforms: args.all_platforms };
        let progress = progress(mode(args.quiet));
        let outcome = until_interrupted(engine.pull(request, &progress)).await?;
        drop(progress);
        settle(engine).await?;
        if !args.quiet {
            report::result(&format!("Digest: {}", outcome.digest));
            let status = if outcome.up_to_date { "Image is up to date for" } else { "Downloaded newer image for" };
            report::result(&format!("Status: {status} {}", reference.familiar()));
        }
        report::result(&reference.to_string());
        Ok(())
    }))
}

/// Runs `strake push`.
pub(in crate::cli) fn push(global: &Global, args: PushArgs) -> ExitCode {
    exit(with_engine(global, None, |engine| async move {
        let progress = progress(mode(args.quiet));
        let outcome = match args.all_platforms {
            true => until_interrupted(engine.push_all(&args.name, &progress)).await?,
            false => until_interrupted(engine.push(&args.name, &progress)).await?,
        };
        drop(progress);
        settle(engine).await?;
        if args.quiet {
            report::result(&args.name.to_string());
        } else {
            let manifest = &outcome.manifest;
            report::result(&format!("{}: digest: {} size: {}", args.name.tag().unwrap_or("latest"), manifest.digest, manifest.size));
        }
        Ok(())
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
        until_interrupted(engine.save(SaveRequest { images: args.images, format, dest: args.output })).await
    }))
}

/// Runs `strake load`.
pub(in crate::cli) fn load(global: &Global, args: LoadArgs) -> ExitCode {
    if args.input == Path::new("-") && std::io::stdin().is_terminal() {
        let hint = Some("name a file with -i, or redirect standard input".to_owned());
        return exit(Err(Error::Usage { message: "an archive is not read from a terminal".into(), hint }));
    }
    exit(with_engine(global, None, |engine| async move {
        let images = until_interrupted(engine.load(args.input)).await?;
        settle(engine).await?;
        for loaded in images {
            let what: Vec<String> = match loaded.names.as_slice() {
                [] if args.quiet => vec![loaded.image.id.to_string()],
                [] => vec![format!("Loaded image ID: {}", loaded.image.id)],
                names if args.quiet => names.iter().map(Reference::familiar).collect(),
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
        let image = until_interrupted(engine.import(request)).await?;
        settle(engine).await?;
        report::result(&image.id.to_string());
        Ok(())
    }))
}

/// Makes durable what the command made.
async fn settle(engine: Engine) -> Result<(), Error> {
    crate::task::blocking(move || engine.finish(true)).await
}
