//! `strake copy`, `manifest`, `config`, `digest`, `ls`, `catalog` and `delete`: images where they are, without the store in between.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use crate::cli::render::{ProgressMode, progress};
use crate::cli::{Global, env, report, settler};
use crate::engine::{CopyRequest, Engine, Error, Place, Wanted};
use crate::oci::{Platform, Reference};

use super::places::place;
use super::transfer::{repository, tagged};
use super::{exit, until_interrupted, with_any_store, with_engine};

// Flags of `strake copy`.
#[derive(Debug, Args)]
pub(in crate::cli) struct CopyArgs {
    /// What is copied: `NAME[:TAG|@DIGEST]` or `docker://NAME` of a registry, `store:NAME`, `oci:DIR[:TAG]`, `oci-archive:FILE[:TAG]`,
    /// `docker-archive:FILE[:NAME]`
    #[arg(value_parser = place)]
    source: Place,
    /// Where to, in the same words
    #[arg(value_parser = place)]
    dest: Place,
    /// Copy all images of an index, and the index
    #[arg(short, long, conflicts_with = "platform")]
    all: bool,
    /// The image to choose from an index [default: this machine's platform]
    #[arg(long, env = env::DEFAULT_PLATFORM, hide_env = true, value_name = "OS/ARCH")]
    platform: Option<Platform>,
    /// Copy what is about the image too: signatures, bills of materials and the like (not to the store or a Docker archive, which keep none)
    #[arg(short, long)]
    referrers: bool,
    /// Copy every tag of a repository to another repository
    #[arg(long)]
    all_tags: bool,
    /// Leave alone what the destination's registry has under the name already
    #[arg(short, long)]
    no_clobber: bool,
    /// Write the digest at the destination into a file
    #[arg(long, value_name = "FILE", conflicts_with = "all_tags")]
    digestfile: Option<PathBuf>,
    /// Show nothing but the digest
    #[arg(short, long)]
    quiet: bool,
}

// Flags of `strake manifest`, and of `strake digest`.
#[derive(Debug, Args)]
pub(in crate::cli) struct DocumentArgs {
    /// The image, at its registry
    #[arg(value_name = "NAME[:TAG|@DIGEST]")]
    name: Reference,
    /// Choose the image for this platform from an index
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<Platform>,
}

// Flags of `strake digest`.
#[derive(Debug, Args)]
pub(in crate::cli) struct DigestArgs {
    #[command(flatten)]
    document: DocumentArgs,
    /// Show the whole name, with the digest
    #[arg(long)]
    full_ref: bool,
}

// Flags of `strake config`.
#[derive(Debug, Args)]
pub(in crate::cli) struct ConfigArgs {
    /// The image, at its registry
    #[arg(value_name = "NAME[:TAG|@DIGEST]")]
    name: Reference,
    /// The image to choose from an index [default: this machine's platform]
    #[arg(long, env = env::DEFAULT_PLATFORM, hide_env = true, value_name = "OS/ARCH")]
    platform: Option<Platform>,
}

// Flags of `strake ls`.
#[derive(Debug, Args)]
pub(in crate::cli) struct LsArgs {
    /// The repository
    #[arg(value_name = "REPOSITORY")]
    repository: Reference,
    /// Show whole names, not tags
    #[arg(long)]
    full_ref: bool,
    /// Leave out tags that only keep signatures and the like (`sha256-…`)
    #[arg(short = 'O', long)]
    omit_digest_tags: bool,
}

// Flags of `strake catalog`.
#[derive(Debug, Args)]
pub(in crate::cli) struct CatalogArgs {
    /// The registry, such as `localhost:5000`
    registry: String,
    /// Show whole names
    #[arg(long)]
    full_ref: bool,
}

// Flags of `strake delete`.
#[derive(Debug, Args)]
pub(in crate::cli) struct DeleteArgs {
    /// What to delete at its registry: a tag, or the manifest that a digest names
    #[arg(required = true, value_name = "NAME:TAG|NAME@DIGEST")]
    names: Vec<Reference>,
    /// Delete what the tag stands for, and so every other tag of the same image too
    #[arg(long)]
    manifest: bool,
}

/// Runs `strake copy`.
pub(in crate::cli) fn copy(global: &Global, args: CopyArgs) -> ExitCode {
    exit(with_engine(global, None, |engine| async move {
        let pairs = match args.all_tags {
            true => every_tag(&engine, &args.source, &args.dest).await?,
            false => vec![(args.source.clone(), args.dest.clone())],
        };
        for (from, to) in pairs {
            copy_one(&engine, &args, from, to).await?;
        }
        settler::finish(engine).await
    }))
}

async fn copy_one(engine: &Engine, args: &CopyArgs, from: Place, to: Place) -> Result<(), Error> {
    if let Place::Registry(name) = &to
        && args.no_clobber
    {
        match until_interrupted(engine.remote_digest(name)).await {
            Ok(_) => {
                report::tell(&format!("`{}` is there already", name.familiar()));
                return Ok(());
            }
            Err(Error::Registry { source, .. }) if source.is_not_found() => {}
            Err(error) => return Err(error),
        }
    }
    let wanted = if args.all { Wanted::All } else { Wanted::Platform(args.platform.clone().unwrap_or_else(Platform::host)) };
    let request = CopyRequest { from, to, wanted, referrers: args.referrers };
    let to_stdout = matches!(&request.to, Place::Archive { path, .. } if path.as_os_str() == "-");
    let progress = progress(if args.quiet { ProgressMode::Quiet } else { ProgressMode::Auto });
    let outcome = until_interrupted(engine.copy(request, &progress)).await?;
    drop(progress);
    let digest = outcome.root.digest.to_string();
    if let Some(path) = args.digestfile.clone() {
        std::fs::write(&path, &digest).map_err(|source| Error::Io { action: "write", path, source })?;
    }
    if !to_stdout {
        report::result(&digest);
    }
    Ok(())
}

/// What `copy --all-tags` copies: each tag of a repository, to the same tag of another one.
async fn every_tag(engine: &Engine, from: &Place, to: &Place) -> Result<Vec<(Place, Place)>, Error> {
    let (Place::Registry(from), Place::Registry(to)) = (from, to) else {
        let message = "--all-tags copies from one registry to another, or the same one".to_owned();
        return Err(Error::Usage { message, hint: Some("name two repositories".to_owned()) });
    };
    let tags = until_interrupted(engine.remote_tags(repository(from)?)).await?;
    let (sources, dests) = (tagged(from, tags.clone())?, tagged(repository(to)?, tags)?);
    Ok(sources.into_iter().map(Place::Registry).zip(dests.into_iter().map(Place::Registry)).collect())
}

/// Runs `strake manifest`.
pub(in crate::cli) fn manifest(global: &Global, args: DocumentArgs) -> ExitCode {
    exit(with_any_store(global, |engine| async move {
        let found = until_interrupted(engine.remote_manifest(&args.name, args.platform.as_ref())).await?;
        bytes(&found.bytes);
        Ok(())
    }))
}

/// Runs `strake digest`.
pub(in crate::cli) fn digest(global: &Global, args: DigestArgs) -> ExitCode {
    exit(with_any_store(global, |engine| async move {
        let (args, full) = (args.document, args.full_ref);
        let digest = match &args.platform {
            None => until_interrupted(engine.remote_digest(&args.name)).await?.digest,
            Some(_) => until_interrupted(engine.remote_manifest(&args.name, args.platform.as_ref())).await?.descriptor.digest,
        };
        report::result(&if full { format!("{}@{digest}", args.name.familiar_name()) } else { digest.to_string() });
        Ok(())
    }))
}

/// Runs `strake config`.
pub(in crate::cli) fn config(global: &Global, args: ConfigArgs) -> ExitCode {
    exit(with_any_store(global, |engine| async move {
        let platform = args.platform.unwrap_or_else(Platform::host);
        let image = until_interrupted(engine.remote_image(&args.name, &platform)).await?;
        bytes(&image.config_bytes);
        Ok(())
    }))
}

/// Runs `strake ls`.
pub(in crate::cli) fn ls(global: &Global, args: LsArgs) -> ExitCode {
    exit(with_any_store(global, |engine| async move {
        for tag in until_interrupted(engine.remote_tags(&args.repository)).await? {
            if args.omit_digest_tags && tag.starts_with("sha256-") {
                continue;
            }
            report::result(&if args.full_ref { format!("{}:{tag}", args.repository.familiar_name()) } else { tag });
        }
        Ok(())
    }))
}

/// Runs `strake catalog`.
pub(in crate::cli) fn catalog(global: &Global, args: CatalogArgs) -> ExitCode {
    exit(with_any_store(global, |engine| async move {
        for repository in until_interrupted(engine.remote_catalog(&args.registry)).await? {
            report::result(&if args.full_ref { format!("{}/{repository}", args.registry) } else { repository });
        }
        Ok(())
    }))
}

/// Runs `strake delete`.
pub(in crate::cli) fn delete(global: &Global, args: DeleteArgs) -> ExitCode {
    exit(with_any_store(global, |engine| async move {
        for name in &args.names {
            let target = match args.manifest {
                true => name.only_digest(until_interrupted(engine.remote_digest(name)).await?.digest),
                false => name.clone(),
            };
            until_interrupted(engine.remote_delete(&target)).await?;
            report::result(&format!("Deleted: {}", target.familiar()));
        }
        Ok(())
    }))
}

/// Writes a document as it is, without a line end of our own: its digest is of these bytes.
fn bytes(document: &[u8]) {
    report::output(|out| out.write_all(document));
}
