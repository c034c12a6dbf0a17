//! `strake mutate`, `append`, `flatten` and `rebase`: images made of images. Flags are those of crane's commands of the same names.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use crate::cli::render::{ProgressMode, progress};
use crate::cli::{Global, report, settler};
use crate::engine::{
    ArchiveFormat, BasePlace, ConfigChanges, Edit, EditOutcome, EditRequest, EditTarget, Engine, Error, Place, RebaseRequest,
};
use crate::oci::{Platform, Reference};

use super::places::{found_place, place_beside};
use super::{exit, until_interrupted, with_engine};

// What all of them take.
#[derive(Debug, Args)]
struct TargetArgs {
    /// The result's name, in the store or the registry that the image is in, or a place: `store:NAME`, `docker://NAME`, `oci:DIR[:TAG]`,
    /// `oci-archive:FILE[:TAG]`, `docker-archive:FILE[:NAME]` [default: the image's own name]
    #[arg(short, long, visible_aliases = ["new-tag", "new_tag"], value_name = "NAME")]
    tag: Option<String>,
    /// Write the result into a file, as `docker load` reads it
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Names are those of registries, not of the store
    #[arg(long)]
    remote: bool,
    /// The image to choose from an index [default: this machine's platform]
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<Platform>,
    /// Do it to all images of an index, and make an index of the results
    #[arg(long, conflicts_with = "platform")]
    all_platforms: bool,
    /// Show nothing but the result
    #[arg(short, long)]
    quiet: bool,
}

// Flags of `strake mutate`.
#[derive(Debug, Args)]
pub(in crate::cli) struct MutateArgs {
    /// The image: a name or ID of the store, or else a name at its registry; `docker://NAME`, `oci:DIR[:TAG]`, `oci-archive:FILE[:TAG]`,
    /// `docker-archive:FILE[:NAME]`
    image: String,
    /// Set a variable of the environment (may be given several times, like those below)
    #[arg(short, long, value_name = "NAME=VALUE", value_parser = pair)]
    env: Vec<(String, String)>,
    /// Take a variable away
    #[arg(long, value_name = "NAME")]
    unset_env: Vec<String>,
    /// Set a label
    #[arg(short, long, value_name = "NAME=VALUE", value_parser = pair)]
    label: Vec<(String, String)>,
    /// Take a label away
    #[arg(long, value_name = "NAME")]
    unset_label: Vec<String>,
    /// Set an annotation of the manifest
    #[arg(short, long, value_name = "NAME=VALUE", value_parser = pair)]
    annotation: Vec<(String, String)>,
    /// Take an annotation away
    #[arg(long, value_name = "NAME")]
    unset_annotation: Vec<String>,
    /// Set the entrypoint: words with commas between them, or a JSON array; nothing for none. The command goes with the old one
    #[arg(long, value_name = "WORDS", value_parser = words)]
    entrypoint: Vec<Words>,
    /// Set the command, in the same way
    #[arg(long, value_name = "WORDS", value_parser = words)]
    cmd: Vec<Words>,
    /// Set the user
    #[arg(short, long, value_name = "USER[:GROUP]")]
    user: Option<String>,
    /// Set the working directory
    #[arg(short, long, value_name = "DIR")]
    workdir: Option<String>,
    /// Set the ports, such as `80,53/udp`, in place of those that there are
    #[arg(long, value_name = "PORTS", value_parser = words)]
    exposed_ports: Vec<Words>,
    /// Set what the image runs on
    #[arg(long, value_name = "OS/ARCH")]
    set_platform: Option<Platform>,
    /// Add a layer, from a tar archive
    #[arg(long, value_name = "FILE")]
    append: Vec<PathBuf>,
    /// Push the result to this repository, under nothing but its digest
    #[arg(short, long, conflicts_with_all = ["tag", "output"], value_name = "REPOSITORY")]
    repo: Option<Reference>,
    #[command(flatten)]
    target: TargetArgs,
}

// Flags of `strake append`.
#[derive(Debug, Args)]
pub(in crate::cli) struct AppendArgs {
    /// The image to add the layers to [default: an empty one]
    #[arg(short, long, value_name = "IMAGE")]
    base: Option<String>,
    /// A layer: a tar archive, plain or compressed; `-` is standard input (may be given several times)
    #[arg(short = 'f', long = "new-layer", visible_aliases = ["new_layer", "file"], value_name = "FILE")]
    layers: Vec<PathBuf>,
    /// More layers
    #[arg(value_name = "FILE", required_unless_present = "layers")]
    more: Vec<PathBuf>,
    /// Have annotations say what the base is, so that `rebase` finds it
    #[arg(long, requires = "base")]
    set_base_image_annotations: bool,
    #[command(flatten)]
    target: TargetArgs,
}

// Flags of `strake flatten`.
#[derive(Debug, Args)]
pub(in crate::cli) struct FlattenArgs {
    /// The image: a name or ID of the store, or else a name at its registry; or a place, such as `oci:DIR[:TAG]`
    image: String,
    #[command(flatten)]
    target: TargetArgs,
}

// Flags of `strake rebase`.
#[derive(Debug, Args)]
pub(in crate::cli) struct RebaseArgs {
    /// The image: a name or ID of the store, or else a name at its registry; or a place, such as `oci:DIR[:TAG]`
    #[arg(required_unless_present = "original")]
    image: Option<String>,
    /// The same, as crane's scripts have it
    #[arg(long, hide = true, value_name = "IMAGE", conflicts_with = "image")]
    original: Option<String>,
    /// The result's name, as crane's scripts have it
    #[arg(long, hide = true, value_name = "NAME", conflicts_with = "tag")]
    rebased: Option<String>,
    /// The base that it has, or `scratch` [default: what its annotations say]
    #[arg(long, visible_alias = "old_base", value_name = "IMAGE")]
    old_base: Option<String>,
    /// The base that it gets [default: what the name in its annotations stands for now]
    #[arg(long, visible_alias = "new_base", value_name = "IMAGE")]
    new_base: Option<String>,
    /// Do not compare files: the image's stay as they are, also those that it made of files which the new base has changed
    #[arg(short, long)]
    force: bool,
    #[command(flatten)]
    target: TargetArgs,
}

/// `NAME=VALUE`, for clap.
pub(super) fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some(("", _)) | None => Err("expected `NAME=VALUE`".to_owned()),
        Some((name, value)) => Ok((name.to_owned(), value.to_owned())),
    }
}

/// A list of words.
#[derive(Clone, Debug)]
struct Words(Vec<String>);

/// Words with commas between them, or a JSON array, for clap.
fn words(text: &str) -> Result<Words, String> {
    if text.starts_with('[') {
        return serde_json::from_str(text).map(Words).map_err(|error| format!("this is no JSON array of words: {error}"));
    }
    Ok(Words(if text.is_empty() { Vec::new() } else { text.split(',').map(str::to_owned).collect() }))
}

/// All words of a flag, where it was given.
fn all(flag: Vec<Words>) -> Option<Vec<String>> {
    (!flag.is_empty()).then(|| flag.into_iter().flat_map(|words| words.0).collect())
}

/// Runs `strake mutate`.
pub(in crate::cli) fn mutate(global: &Global, args: MutateArgs) -> ExitCode {
    let changes = ConfigChanges {
        env: args.env,
        unset_env: args.unset_env,
        labels: args.label,
        unset_labels: args.unset_label,
        annotations: args.annotation,
        unset_annotations: args.unset_annotation,
        entrypoint: all(args.entrypoint),
        cmd: all(args.cmd),
        user: args.user,
        workdir: args.workdir,
        exposed_ports: all(args.exposed_ports),
        platform: args.set_platform,
    };
    let edits = args.append.into_iter().map(Edit::Append).chain([Edit::Change(changes)]).collect();
    run(global, Some(args.image), args.target, args.repo, |_| Ok(edits))
}

/// Runs `strake append`.
pub(in crate::cli) fn append(global: &Global, args: AppendArgs) -> ExitCode {
    let named = args.set_base_image_annotations.then_some(Edit::NameBase);
    let edits = named.into_iter().chain(args.layers.into_iter().chain(args.more).map(Edit::Append)).collect();
    run(global, args.base, args.target, None, |_| Ok(edits))
}

/// Runs `strake flatten`.
pub(in crate::cli) fn flatten(global: &Global, args: FlattenArgs) -> ExitCode {
    run(global, Some(args.image), args.target, None, |_| Ok(vec![Edit::Flatten]))
}

/// Runs `strake rebase`.
pub(in crate::cli) fn rebase(global: &Global, args: RebaseArgs) -> ExitCode {
    let remote = args.target.remote;
    let target = TargetArgs { tag: args.target.tag.or(args.rebased), ..args.target };
    run(global, args.image.or(args.original), target, None, |engine| {
        let base = |text: Option<String>| match text.as_deref() {
            None => Ok(None),
            Some("scratch") => Ok(Some(BasePlace::Scratch)),
            Some(text) => found_place(engine, text, remote).map(|place| Some(BasePlace::Image(place))),
        };
        let (old, new) = (base(args.old_base)?, base(args.new_base)?);
        Ok(vec![Edit::Rebase(RebaseRequest { old, new, check_files: !args.force })])
    })
}

fn run(
    global: &Global,
    image: Option<String>,
    args: TargetArgs,
    repo: Option<Reference>,
    edits: impl FnOnce(&Engine) -> Result<Vec<Edit>, Error>,
) -> ExitCode {
    exit(with_engine(global, None, |engine| async move {
        let image = image.map(|text| found_place(&engine, &text, args.remote)).transpose()?;
        let to = match repo {
            Some(repository) => EditTarget::Digest(repository),
            None => target(image.as_ref(), &args)?,
        };
        let request = EditRequest { image, platform: args.platform, all: args.all_platforms, edits: edits(&engine)?, to };
        let progress = progress(if args.quiet { ProgressMode::Quiet } else { ProgressMode::Auto });
        let outcome = until_interrupted(engine.edit(&request, &progress)).await?;
        drop(progress);
        settler::finish(engine).await?;
        match outcome {
            EditOutcome::Stored(image) => report::result(&image.id.to_string()),
            EditOutcome::Sent { place: Place::Registry(reference), digest } => {
                report::result(&format!("{}@{digest}", reference.familiar_name()));
            }
            EditOutcome::Sent { place: Place::Archive { path, .. }, .. } if path.as_os_str() == "-" => {}
            EditOutcome::Sent { digest, .. } => report::result(&digest.to_string()),
        }
        Ok(())
    }))
}

/// Where the result goes.
fn target(image: Option<&Place>, args: &TargetArgs) -> Result<EditTarget, Error> {
    Ok(match (&args.output, &args.tag) {
        (Some(path), tag) => EditTarget::Place(Place::Archive { path: path.clone(), format: ArchiveFormat::Docker, name: tag.clone() }),
        (None, Some(tag)) => EditTarget::Place(place_beside(image, tag)?),
        (None, None) => EditTarget::Same,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_separated_by_commas_or_json() {
        let read = |text: &str| words(text).map(|words| words.0);
        assert_eq!(read("a,b c"), Ok(vec!["a".to_owned(), "b c".to_owned()]));
        assert_eq!(read(r#"["a,b","c"]"#), Ok(vec!["a,b".to_owned(), "c".to_owned()]));
        assert_eq!(read(""), Ok(vec![]));
        assert!(read("[a").is_err());
        assert_eq!(all(vec![]), None);
        assert_eq!(pair("A=b=c"), Ok(("A".to_owned(), "b=c".to_owned())));
        assert!(pair("A").is_err() && pair("=b").is_err());
    }
}
