//! `strake copy`, `manifest`, `config`, `digest`, `blob`, `ls`, `catalog` and `delete`: images where they are, without the store in between.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, ValueEnum};

use crate::cli::render::{ProgressMode, progress};
use crate::cli::{Global, env, report, settler};
use crate::engine::{
    ArchiveFormat, Compression, CompressionSpec, CopyForm, CopyRequest, Effort, Engine, Error, ManifestFormat, Place, Wanted,
};
use crate::oci::{Platform, Reference};

use super::outputs::compression;
use super::places::{at_registry, place};
use super::reach::{ReachArgs, SidesArgs, effort};
use super::transfer::{repository, tagged};
use super::{exit, until_interrupted, with_any_store, with_engine};

// Flags of `strake copy`.
#[derive(Debug, Args)]
pub(in crate::cli) struct CopyArgs {
    /// What is copied: `NAME[:TAG|@DIGEST]` or `docker://NAME` of a registry, `store:NAME`, `dir:DIR`, `oci:DIR[:TAG]`, `oci-archive:FILE[:TAG]`,
    /// `docker-archive:FILE[:NAME]`, `docker-daemon:NAME`
    #[arg(value_parser = place)]
    source: Place,
    /// Where to, in the same words
    #[arg(value_parser = place)]
    dest: Place,
    /// Copy all images of an index, and the index
    #[arg(short, long, conflicts_with = "platform")]
    all: bool,
    /// The same in skopeo's words: `all`, or `system` for one image
    #[arg(long, value_enum, value_name = "WHICH", conflicts_with = "all")]
    multi_arch: Option<MultiArch>,
    /// The image to choose from an index [default: this machine's platform]
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<Platform>,
    /// Copy what is about the image too: signatures, bills of materials and the like (not to the store or a Docker archive, which keep none)
    #[arg(short, long)]
    referrers: bool,
    /// Copy every tag of a repository, or of a layout (`oci:DIR`), to another one
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
    #[command(flatten)]
    sides: SidesArgs,
    #[command(flatten)]
    form: FormArgs,
    /// How often something is tried again that gets no further [default: 5]
    #[arg(long, value_name = "NUMBER")]
    retry_times: Option<u32>,
    /// How many blobs are moved at once [default: 6]
    #[arg(short, long, visible_alias = "image-parallel-copies", value_name = "NUMBER", value_parser = clap::value_parser!(u16).range(1..=64))]
    jobs: Option<u16>,
}

// What a copy is to be like.
#[derive(Debug, Args)]
struct FormArgs {
    /// The format of manifests and indexes at the destination [default: as they are]
    #[arg(short, long, value_enum)]
    format: Option<FormatArg>,
    /// Fail where the image would get another digest
    #[arg(long)]
    preserve_digests: bool,
    /// One more name in an archive, or for a Docker daemon (may be given several times)
    #[arg(long, value_name = "NAME:TAG", value_parser = super::tag_name)]
    additional_tag: Vec<Reference>,
    /// What layers are compressed with at the destination: `uncompressed`, `gzip` or `zstd` [default: as they are]
    #[arg(long, value_name = "KIND", value_parser = compression, conflicts_with = "preserve_digests")]
    dest_compress_format: Option<Compression>,
    /// How hard they are compressed
    #[arg(long, value_name = "NUMBER", conflicts_with = "dest_decompress")]
    dest_compress_level: Option<u32>,
    /// Compress layers with gzip
    #[arg(long, conflicts_with_all = ["dest_compress_format", "preserve_digests"])]
    dest_compress: bool,
    /// Do not compress layers
    #[arg(long, conflicts_with_all = ["dest_compress_format", "dest_compress", "preserve_digests"])]
    dest_decompress: bool,
}

/// `--multi-arch` of `copy`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum MultiArch {
    /// All images of an index, and the index
    All,
    /// The image for this machine, or for `--platform`
    System,
}

/// `--format` of `copy`.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum FormatArg {
    /// The OCI image specification's
    Oci,
    /// Docker's schema 2
    #[value(alias = "docker")]
    V2s2,
}

// Flags of `strake manifest`, and of `strake digest`.
#[derive(Debug, Args)]
pub(in crate::cli) struct DocumentArgs {
    /// The image: its name at a registry, or a place, such as `store:NAME` or `oci:DIR[:TAG]`
    #[arg(value_name = "IMAGE", value_parser = place)]
    image: Place,
    /// Choose the image for this platform from an index
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<Platform>,
    #[command(flatten)]
    reach: ReachArgs,
}

// Flags of `strake digest`.
#[derive(Debug, Args)]
pub(in crate::cli) struct DigestArgs {
    /// The image: its name at a registry, or a place, such as `store:NAME` or `oci:DIR[:TAG]`
    #[arg(value_name = "IMAGE", required_unless_present = "tarball")]
    image: Option<String>,
    /// Choose the image for this platform from an index
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<Platform>,
    /// The archive that the image is in; the image is its name there, where there are several
    #[arg(long, value_name = "FILE", conflicts_with = "full_ref")]
    tarball: Option<PathBuf>,
    /// Show the whole name, with the digest
    #[arg(long)]
    full_ref: bool,
    #[command(flatten)]
    reach: ReachArgs,
}

// Flags of `strake config`.
#[derive(Debug, Args)]
pub(in crate::cli) struct ConfigArgs {
    /// The image: its name at a registry, or a place, such as `store:NAME` or `oci:DIR[:TAG]`
    #[arg(value_name = "IMAGE", value_parser = place)]
    image: Place,
    /// The image to choose from an index [default: this machine's platform]
    #[arg(long, env = env::if_set(env::DEFAULT_PLATFORM), hide_env = true, value_name = "OS/ARCH")]
    platform: Option<Platform>,
    #[command(flatten)]
    reach: ReachArgs,
}

// Flags of `strake blob`.
#[derive(Debug, Args)]
pub(in crate::cli) struct BlobArgs {
    /// The blob: a layer, a config or something else that manifests of the repository name
    #[arg(value_name = "NAME@DIGEST", value_parser = at_registry)]
    blob: Reference,
    #[command(flatten)]
    reach: ReachArgs,
}

// Flags of `strake ls`.
#[derive(Debug, Args)]
pub(in crate::cli) struct LsArgs {
    /// The repository, or a layout: `oci:DIR`
    #[arg(value_name = "REPOSITORY", value_parser = place)]
    repository: Place,
    /// Show whole names, not tags
    #[arg(long)]
    full_ref: bool,
    /// Leave out tags that only keep signatures and the like (`sha256-…`)
    #[arg(short = 'O', long)]
    omit_digest_tags: bool,
    #[command(flatten)]
    reach: ReachArgs,
}

// Flags of `strake catalog`.
#[derive(Debug, Args)]
pub(in crate::cli) struct CatalogArgs {
    /// The registry, such as `localhost:5000`
    registry: String,
    /// Show whole names
    #[arg(long)]
    full_ref: bool,
    #[command(flatten)]
    reach: ReachArgs,
}

// Flags of `strake delete`.
#[derive(Debug, Args)]
pub(in crate::cli) struct DeleteArgs {
    /// What to delete at its registry: a tag, or the manifest that a digest names
    #[arg(required = true, value_name = "NAME:TAG|NAME@DIGEST", value_parser = at_registry)]
    names: Vec<Reference>,
    /// Delete what the tag stands for, and so every other tag of the same image too
    #[arg(long)]
    manifest: bool,
    #[command(flatten)]
    reach: ReachArgs,
}

/// Runs `strake copy`.
pub(in crate::cli) fn copy(global: &Global, args: CopyArgs) -> ExitCode {
    exit(with_engine(global, None, |engine| async move {
        let pairs = match args.all_tags {
            true => {
                let reader = engine.reaching(&args.source, &args.sides.of_source()?, args.effort())?;
                every_tag(&reader, &args.source, &args.dest).await?
            }
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
        let writer = engine.reaching(&to, &args.sides.of_dest()?, args.effort())?;
        match until_interrupted(writer.remote_digest(name)).await {
            Ok(_) => {
                report::tell(&format!("`{}` is there already", name.familiar()));
                return Ok(());
            }
            Err(Error::Registry { source, .. }) if source.is_not_found() => {}
            Err(error) => return Err(error),
        }
    }
    let request = CopyRequest {
        from,
        to,
        wanted: args.wanted()?,
        referrers: args.referrers,
        from_access: args.sides.of_source()?,
        to_access: args.sides.of_dest()?,
        effort: args.effort(),
        form: args.form.form()?,
    };
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

impl CopyArgs {
    fn effort(&self) -> Effort {
        effort(self.retry_times, self.jobs)
    }

    fn wanted(&self) -> Result<Wanted, Error> {
        match (self.all || self.multi_arch == Some(MultiArch::All), &self.platform) {
            (true, None) => Ok(Wanted::All),
            (true, Some(_)) => Err(Error::Usage { message: "--multi-arch=all and --platform exclude each other".to_owned(), hint: None }),
            (false, Some(platform)) => Ok(Wanted::Platform(platform.clone())),
            (false, None) => Ok(Wanted::Platform(env::default_platform()?.unwrap_or_else(Platform::host))),
        }
    }
}

impl FormArgs {
    fn compression(&self) -> Result<Option<CompressionSpec>, Error> {
        let kind = match (self.dest_compress, self.dest_decompress) {
            (true, _) => Some(Compression::Gzip),
            (_, true) => Some(Compression::Uncompressed),
            _ => self.dest_compress_format,
        };
        if kind.is_none() && self.dest_compress_level.is_some() {
            let hint = Some("name a form with --dest-compress-format".to_owned());
            return Err(Error::Usage { message: "--dest-compress-level is of layers that are compressed anew".to_owned(), hint });
        }
        Ok(kind.map(|kind| CompressionSpec { kind, level: self.dest_compress_level }))
    }

    fn form(&self) -> Result<CopyForm, Error> {
        Ok(CopyForm {
            format: self.format.map(|format| match format {
                FormatArg::Oci => ManifestFormat::Oci,
                FormatArg::V2s2 => ManifestFormat::Docker,
            }),
            compression: self.compression()?,
            preserve_digests: self.preserve_digests,
            more_names: self.additional_tag.clone(),
        })
    }
}

/// What `copy --all-tags` copies: each tag of a repository or a layout, to the same tag of another one.
async fn every_tag(engine: &Engine, from: &Place, to: &Place) -> Result<Vec<(Place, Place)>, Error> {
    // What cannot be is said before anything is asked.
    each_tag(from, &[]).and(each_tag(to, &[]))?;
    let mut tags = until_interrupted(engine.tags_at(from)).await?;
    tags.sort();
    Ok(each_tag(from, &tags)?.into_iter().zip(each_tag(to, &tags)?).collect())
}

/// A place at each of these tags.
fn each_tag(at: &Place, tags: &[String]) -> Result<Vec<Place>, Error> {
    match at {
        Place::Registry(name) => Ok(tagged(repository(name)?, tags.to_vec())?.into_iter().map(Place::Registry).collect()),
        Place::Layout { dir, tag: None } => Ok(tags.iter().map(|tag| Place::Layout { dir: dir.clone(), tag: Some(tag.clone()) }).collect()),
        other => {
            let message = format!("--all-tags is for repositories and layouts, and `{other}` is neither");
            Err(Error::Usage { message, hint: Some("name a repository at a registry, or `oci:DIR`".to_owned()) })
        }
    }
}

/// Runs `strake manifest`.
pub(in crate::cli) fn manifest(global: &Global, args: DocumentArgs) -> ExitCode {
    exit(with_any_store(global, |engine| async move {
        let engine = args.reach.engine(&engine, &args.image)?;
        let found = until_interrupted(engine.document(&args.image, args.platform.as_ref())).await?;
        bytes(&found.bytes);
        Ok(())
    }))
}

/// Runs `strake digest`.
pub(in crate::cli) fn digest(global: &Global, args: DigestArgs) -> ExitCode {
    exit(with_any_store(global, |engine| async move {
        let usage = |message| Error::Usage { message, hint: None };
        let image = match args.tarball {
            Some(path) => Place::Archive { path, format: ArchiveFormat::Docker, name: args.image },
            None => place(&args.image.unwrap_or_default()).map_err(usage)?,
        };
        let engine = args.reach.engine(&engine, &image)?;
        let digest = match (&image, &args.platform) {
            (Place::Registry(name), None) => until_interrupted(engine.remote_digest(name)).await?.digest,
            _ => until_interrupted(engine.document(&image, args.platform.as_ref())).await?.descriptor.digest,
        };
        report::result(&match &image {
            Place::Registry(name) if args.full_ref => format!("{}@{digest}", name.familiar_name()),
            other if args.full_ref => return Err(usage(format!("--full-ref is about names at registries, and `{other}` is none"))),
            _ => digest.to_string(),
        });
        Ok(())
    }))
}

/// Runs `strake config`.
pub(in crate::cli) fn config(global: &Global, args: ConfigArgs) -> ExitCode {
    exit(with_any_store(global, |engine| async move {
        let engine = args.reach.engine(&engine, &args.image)?;
        let platform = args.platform.unwrap_or_else(Platform::host);
        let image = until_interrupted(engine.image_at(&args.image, &platform)).await?;
        bytes(&image.config_bytes);
        Ok(())
    }))
}

/// Runs `strake blob`.
pub(in crate::cli) fn blob(global: &Global, args: BlobArgs) -> ExitCode {
    exit(with_any_store(global, |engine| async move {
        let engine = args.reach.engine(&engine, &Place::Registry(args.blob.clone()))?;
        until_interrupted(engine.remote_blob(&args.blob, bytes)).await
    }))
}

/// Runs `strake ls`.
pub(in crate::cli) fn ls(global: &Global, args: LsArgs) -> ExitCode {
    exit(with_any_store(global, |engine| async move {
        let engine = args.reach.engine(&engine, &args.repository)?;
        for tag in until_interrupted(engine.tags_at(&args.repository)).await? {
            if args.omit_digest_tags && tag.starts_with("sha256-") {
                continue;
            }
            report::result(&match &args.repository {
                Place::Registry(name) if args.full_ref => format!("{}:{tag}", name.familiar_name()),
                other if args.full_ref => format!("{other}:{tag}"),
                _ => tag,
            });
        }
        Ok(())
    }))
}

/// Runs `strake catalog`.
pub(in crate::cli) fn catalog(global: &Global, args: CatalogArgs) -> ExitCode {
    exit(with_any_store(global, |engine| async move {
        let engine = args.reach.engine_at(&engine, &args.registry)?;
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
            let engine = args.reach.engine(&engine, &Place::Registry(name.clone()))?;
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
pub(super) fn bytes(document: &[u8]) {
    report::output(|out| out.write_all(document));
}
