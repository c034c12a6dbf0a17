//! `strake inspect`, and `inspect` of images and containers: all that is known of things, as JSON in the shape that Docker gives it.

use std::process::ExitCode;

use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use crate::cli::format::{Format, format};
use crate::cli::table::stamp;
use crate::cli::{Global, report, settler};
use crate::engine::{Engine, Error, ImageDetails, NamedAs, Place};
use crate::oci::{ImageConfig, Platform};

use super::places::{found_place, has_prefix, place};
use super::reach::ReachArgs;
use super::remote::bytes;
use super::several::{Failures, show};
use super::{exit, network, until_interrupted, volume, with_engine};

// Flags of `strake inspect`.
#[derive(Debug, Args)]
pub(in crate::cli) struct InspectArgs {
    #[command(flatten)]
    image: ImageInspectArgs,
    #[command(flatten)]
    sizes: SizeFlag,
    /// Only things of this kind [default: a container, or else an image, a network or a volume]
    #[arg(long = "type", value_name = "KIND", value_enum, conflicts_with = "remote")]
    kind: Option<Named>,
}

// Flags of `strake image inspect`.
#[derive(Debug, Args)]
pub(in crate::cli) struct ImageInspectArgs {
    /// What to show: names, IDs or the beginnings of IDs
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
    /// `json`, or a template such as `{{.Id}}` or `{{json .Config}}`
    #[arg(short, long, value_parser = format)]
    format: Option<Format>,
    /// Look at images in their registries, without pulling them; `docker://NAME`, `oci:DIR[:TAG]` and other places are looked at where they are anyhow
    #[arg(long)]
    remote: bool,
    /// Show the bytes of the manifest or index; with --config those of the config
    #[arg(long, conflicts_with = "format")]
    raw: bool,
    /// Show the config of an image
    #[arg(long, conflicts_with = "format")]
    config: bool,
    /// The image for this platform, where the name stands for several [default: the one that the name means here; with `--remote`, this machine's platform]
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<Platform>,
    #[command(flatten)]
    reach: ReachArgs,
}

// Flags of `strake container inspect`.
#[derive(Debug, Args)]
pub(in crate::cli) struct ContainerInspectArgs {
    /// The containers: names, IDs or the beginnings of IDs
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
    /// `json`, or a template such as `{{.Id}}` or `{{json .Config}}`
    #[arg(short, long, value_parser = format)]
    format: Option<Format>,
    #[command(flatten)]
    sizes: SizeFlag,
}

// What takes a while.
#[derive(Clone, Copy, Debug, Args)]
struct SizeFlag {
    /// With the sizes of containers' files (`SizeRw` and `SizeRootFs`)
    #[arg(short, long)]
    size: bool,
}

/// What a name may stand for: `--type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Named {
    /// A container
    Container,
    /// An image
    Image,
    /// A network
    Network,
    /// A volume
    Volume,
}

/// Runs `strake inspect`.
pub(in crate::cli) fn inspect(global: &Global, args: InspectArgs) -> ExitCode {
    let InspectArgs { image, sizes, kind } = args;
    if image.remote || image.raw || image.config {
        return inspect_images(global, image);
    }
    if image.platform.is_some() && !matches!(kind, None | Some(Named::Image)) {
        let message = "--platform is about images, and --type names something else".to_owned();
        return exit(Err(Error::Usage { message, hint: None }));
    }
    let kind = if image.platform.is_some() { Some(Named::Image) } else { kind };
    inspect_all(global, image.names, image.format, sizes, kind, image.platform, Some(image.reach))
}

/// Runs `strake image inspect`.
pub(in crate::cli) fn inspect_images(global: &Global, args: ImageInspectArgs) -> ExitCode {
    if args.raw || args.config {
        return inspect_documents(global, args);
    }
    if !args.remote {
        let (sizes, kind) = (SizeFlag { size: false }, Some(Named::Image));
        return inspect_all(global, args.names, args.format, sizes, kind, args.platform, Some(args.reach));
    }
    exit(with_engine(global, None, |engine| async move {
        let (mut found, mut failures) = (Vec::new(), Failures::default());
        for name in &args.names {
            let value = match place(name) {
                Ok(place) => inspect_place(&args.reach.engine(&engine, &place)?, &place, args.platform.clone()).await,
                Err(message) => Err(Error::Usage { message, hint: None }),
            };
            match value {
                Ok(value) => found.push(value),
                Err(error) => failures.add(error),
            }
        }
        show(found, args.format.as_ref())?;
        failures.end()
    }))
}

/// Shows the bytes of manifests, or configs.
fn inspect_documents(global: &Global, args: ImageInspectArgs) -> ExitCode {
    exit(with_engine(global, None, |engine| async move {
        for name in &args.names {
            let place = found_place(&engine, name, args.remote)?;
            let engine = args.reach.engine(&engine, &place)?;
            let document = if args.config {
                let platform = args.platform.clone().unwrap_or_else(Platform::host);
                until_interrupted(engine.image_at(&place, &platform)).await?.config_bytes
            } else {
                until_interrupted(engine.document(&place, args.platform.as_ref())).await?.bytes
            };
            bytes(&document);
        }
        settler::finish(engine).await
    }))
}

/// Runs `strake container inspect`.
pub(in crate::cli) fn inspect_containers(global: &Global, args: ContainerInspectArgs) -> ExitCode {
    inspect_all(global, args.names, args.format, args.sizes, Some(Named::Container), None, None)
}

fn inspect_all(
    global: &Global,
    names: Vec<String>,
    format: Option<Format>,
    sizes: SizeFlag,
    kind: Option<Named>,
    platform: Option<Platform>,
    reach: Option<ReachArgs>,
) -> ExitCode {
    exit(with_engine(global, None, |engine| async move {
        let (mut found, mut failures) = (Vec::new(), Failures::default());
        for name in &names {
            let value = match &platform {
                _ if is_elsewhere(&engine, name)? => match found_place(&engine, name, false) {
                    Ok(place) => {
                        let reached = reach.as_ref().map(|reach| reach.engine(&engine, &place)).transpose()?;
                        inspect_place(reached.as_ref().unwrap_or(&engine), &place, platform.clone()).await
                    }
                    Err(error) => Err(error),
                },
                Some(platform) => inspect_for(&engine, name, platform).await,
                None => inspect_one(&engine, name, kind, sizes),
            };
            match value {
                Ok(value) => found.push(value),
                Err(error) => failures.add(error),
            }
        }
        show(found, format.as_ref())?;
        // An image of an index may have been unpacked.
        if platform.is_some() {
            settler::finish(engine).await?;
        }
        failures.end()
    }))
}

/// Whether a name says itself where the image is, and no image is called so.
fn is_elsewhere(engine: &Engine, name: &str) -> Result<bool, Error> {
    Ok(has_prefix(name) && (name.starts_with("docker://") || engine.image_details(name)?.is_none()))
}

/// The image for `platform` that `name` means here.
async fn inspect_for(engine: &Engine, name: &str, platform: &Platform) -> Result<Value, Error> {
    let image = engine.image_for(name, Some(platform)).await?;
    Ok(image_value(engine, &engine.details_of(image)?))
}

/// What `name` means: the first of the kinds that has one.
fn inspect_one(engine: &Engine, name: &str, kind: Option<Named>, sizes: SizeFlag) -> Result<Value, Error> {
    let may_be = |asked| kind.is_none_or(|kind| kind == asked);
    if may_be(Named::Container)
        && let Some(container) = engine.inspect_container(name, sizes.size)?
    {
        return Ok(container);
    }
    if may_be(Named::Image)
        && let Some(details) = engine.image_details(name)?
    {
        if sizes.size {
            report::tell("warning: --size has no effect on images");
        }
        return Ok(image_value(engine, &details));
    }
    if may_be(Named::Network)
        && let Ok(network) = engine.network(name)
    {
        return Ok(network::value(&network));
    }
    if may_be(Named::Volume)
        && let Ok(volume) = engine.volume(name)
    {
        return Ok(volume::value(&volume));
    }
    Err(match kind {
        Some(Named::Container) => Error::NoSuchContainer { name: name.to_owned() },
        Some(Named::Image) => no_image(engine, name)?,
        Some(Named::Network) => return engine.network(name).map(|network| network::value(&network)),
        Some(Named::Volume) => return engine.volume(name).map(|volume| volume::value(&volume)),
        None => Error::Usage { message: format!("no such object: `{name}`"), hint: no_image(engine, name)?.hint() },
    })
}

/// Why there is no such image.
fn no_image(engine: &Engine, name: &str) -> Result<Error, Error> {
    match engine.image(name) {
        Err(error) => Ok(error),
        // It has come meanwhile.
        Ok(_) => Err(Error::NoSuchImage { name: name.to_owned(), alike: Vec::new() }),
    }
}

/// The image of a place, most often a registry.
async fn inspect_place(engine: &Engine, place: &Place, platform: Option<Platform>) -> Result<Value, Error> {
    if let Place::Store(name) = place {
        let image = engine.image_for(name, platform.as_ref()).await?;
        return Ok(image_value(engine, &engine.details_of(image)?));
    }
    let image = until_interrupted(engine.image_at(place, &platform.unwrap_or_else(Platform::host))).await?;
    let Some(config) = &image.config else {
        let kind = image.manifest.artifact_type.as_deref().unwrap_or(image.manifest.config.media_type.as_str());
        let message = format!("`{place}` is not an image but an artifact of the type `{kind}`");
        return Err(Error::Usage { message, hint: Some("`strake manifest` shows its manifest".to_owned()) });
    };
    let names: Vec<NamedAs> = match place {
        Place::Registry(name) => vec![NamedAs { name: name.clone(), digest: Some(image.top.clone()) }],
        _ => Vec::new(),
    };
    let size = image.manifest.layers.iter().map(|layer| layer.size).sum();
    let (id, layers) = (image.manifest.config.digest.to_string(), json!(config.rootfs.diff_ids));
    let mut value = docker_value(&id, &names, config, size, &layers);
    if let Some(object) = value.as_object_mut() {
        object.insert("Manifest".to_owned(), json!(image.digest));
        object.insert("Blobs".to_owned(), json!(image.manifest.layers));
    }
    Ok(value)
}

/// An image of the store in the form of `docker image inspect`.
fn image_value(engine: &Engine, details: &ImageDetails) -> Value {
    let ImageDetails { image, names, config, tagged_at } = details;
    let mut value = docker_value(&image.id.to_string(), names, config, image.size, &json!(image.diff_ids));
    if let Some(object) = value.as_object_mut() {
        object.insert("GraphDriver".to_owned(), engine.image_layers(image));
        let tagged = tagged_at.map_or_else(|| "0001-01-01T00:00:00Z".to_owned(), stamp);
        object.insert("Metadata".to_owned(), json!({ "LastTagTime": tagged }));
    }
    value
}

/// An image in the form of `docker image inspect`.
fn docker_value(id: &str, names: &[NamedAs], config: &ImageConfig, size: u64, layers: &Value) -> Value {
    let tags: Vec<String> = names.iter().filter(|named| named.name.digest().is_none()).map(|named| named.name.familiar()).collect();
    let mut digests: Vec<String> = names
        .iter()
        .filter_map(|named| named.name.digest().or(named.digest.as_ref()).map(|digest| format!("{}@{digest}", named.name.familiar_name())))
        .collect();
    digests.dedup();
    let comment = config.history.last().and_then(|entry| entry.comment.clone()).unwrap_or_default();
    let mut value = json!({
        "Id": id,
        "RepoTags": tags,
        "RepoDigests": digests,
        "Parent": "",
        "Comment": comment,
        "Created": config.created.clone().unwrap_or_default(),
        "Author": config.author.clone().unwrap_or_default(),
        "Architecture": config.architecture,
        "Os": config.os,
        "Size": size,
        "Config": config.config,
        "RootFS": { "Type": config.rootfs.kind, "Layers": layers },
    });
    if let (Some(variant), Some(object)) = (&config.variant, value.as_object_mut()) {
        object.insert("Variant".to_owned(), json!(variant));
    }
    value
}
