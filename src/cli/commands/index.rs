//! `strake index`: indexes at registries. Flags are those of `docker buildx imagetools`, `docker manifest annotate` and `crane index append`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use crate::cli::format::{Format, format, given};
use crate::cli::render::{ProgressMode, progress};
use crate::cli::{Global, report};
use crate::engine::{
    AddOptions, Engine, Error, IndexBase, IndexEdit, IndexOutcome, IndexRequest, Place, PlatformChange, RemoteDocument, Selector,
};
use crate::oci::{Digest, Index, ManifestOrIndex, Platform, Reference};

use super::edit::pair;
use super::places::place;
use super::{exit, tag_name, until_interrupted, with_any_store, with_engine};

// Flags of `strake index`.
#[derive(Debug, Args)]
pub(in crate::cli) struct IndexArgs {
    #[command(subcommand)]
    command: IndexCommand,
}

#[derive(Debug, Subcommand)]
enum IndexCommand {
    /// Make an index of images
    Create(Box<CreateArgs>),
    /// Add images to an index; those for the same platforms are replaced
    Append(Box<AppendArgs>),
    /// Take images out of an index
    Remove(RemoveArgs),
    /// Leave only the images for some platforms in an index
    Filter(FilterArgs),
    /// Change what an index says of itself, or of one of its images
    Annotate(Box<AnnotateArgs>),
    /// Show an index
    Inspect(InspectArgs),
}

// What is taken from the images that are added.
#[derive(Debug, Args)]
struct AddArgs {
    /// Only the images for these platforms
    #[arg(short, long, value_delimiter = ',', value_name = "OS/ARCH")]
    platform: Vec<Platform>,
    /// List the image that is added as one for this platform, whatever its config says
    #[arg(long, value_name = "OS/ARCH")]
    set_platform: Option<Platform>,
}

// Flags of `strake index create`.
#[derive(Debug, Args)]
struct CreateArgs {
    /// The images, after the index's name where that is not given with -t: `NAME` of a registry, `store:NAME`, `oci:DIR[:TAG]` or another place; a mere digest is of
    /// the index's own repository
    #[arg(value_name = "IMAGE")]
    images: Vec<String>,
    /// The name that the index gets (may be given several times)
    #[arg(short, long, value_name = "NAME[:TAG]", value_parser = tag_name)]
    tag: Vec<Reference>,
    /// Read images from a file, one a line
    #[arg(short, long, value_name = "FILE")]
    file: Vec<PathBuf>,
    /// Begin with the index that has the name already
    #[arg(long)]
    append: bool,
    /// Annotate the index, or with `manifest-descriptor[OS/ARCH]:` before it an entry (may be given several times)
    #[arg(long, value_name = "NAME=VALUE", value_parser = annotation)]
    annotation: Vec<Annotation>,
    #[command(flatten)]
    add: AddArgs,
    /// Make an index also of one image alone; with `=false` that image gets the name itself
    #[arg(long, default_value_t = true, num_args = 0..=1, default_missing_value = "true", action = clap::ArgAction::Set, value_name = "BOOL")]
    prefer_index: bool,
    /// Show the index, and send nothing
    #[arg(long)]
    dry_run: bool,
    /// Write descriptor and names of the index into a file
    #[arg(long, value_name = "FILE")]
    metadata_file: Option<PathBuf>,
    /// Show nothing but the result
    #[arg(short, long)]
    quiet: bool,
}

// Flags of `strake index append`.
#[derive(Debug, Args)]
struct AppendArgs {
    /// The index; without one (and with -t) an empty one
    #[arg(value_name = "INDEX")]
    index: Option<Reference>,
    /// The images, as in `index create`
    #[arg(value_name = "IMAGE")]
    images: Vec<String>,
    /// More images
    #[arg(short, long, value_delimiter = ',', value_name = "IMAGE")]
    manifest: Vec<String>,
    /// The result's name [default: that of the index]
    #[arg(short, long, value_name = "NAME[:TAG]", value_parser = tag_name)]
    tag: Option<Reference>,
    #[command(flatten)]
    add: AddArgs,
    /// Add the images of an index; with `=false` the index itself
    #[arg(long, default_value_t = true, num_args = 0..=1, default_missing_value = "true", action = clap::ArgAction::Set, value_name = "BOOL")]
    flatten: bool,
    /// Give an empty index Docker's media type
    #[arg(long)]
    docker_empty_base: bool,
    /// Show nothing but the result
    #[arg(short, long)]
    quiet: bool,
}

// Flags of `strake index remove`.
#[derive(Debug, Args)]
struct RemoveArgs {
    /// The index
    #[arg(value_name = "INDEX")]
    index: Reference,
    /// The images: their digests, their platforms, or names that stand for them
    #[arg(required = true, value_name = "DIGEST|OS/ARCH|NAME")]
    images: Vec<String>,
    /// The result's name [default: that of the index]
    #[arg(short, long, value_name = "NAME[:TAG]", value_parser = tag_name)]
    tag: Option<Reference>,
}

// Flags of `strake index filter`.
#[derive(Debug, Args)]
struct FilterArgs {
    /// The index
    #[arg(value_name = "INDEX")]
    index: Reference,
    /// The platforms that stay (may be given several times), with what is said about their images
    #[arg(short, long, required = true, value_delimiter = ',', value_name = "OS/ARCH")]
    platform: Vec<Platform>,
    /// The result's name [default: that of the index]
    #[arg(short, long, value_name = "NAME[:TAG]", value_parser = tag_name)]
    tag: Option<Reference>,
}

// Flags of `strake index annotate`.
#[derive(Debug, Args)]
struct AnnotateArgs {
    /// The index
    #[arg(value_name = "INDEX")]
    index: Reference,
    /// One of its images: its digest, its platform, or a name that stands for it [default: the index itself]
    #[arg(value_name = "DIGEST|OS/ARCH|NAME")]
    image: Option<String>,
    /// Set an annotation (may be given several times)
    #[arg(short, long, value_name = "NAME=VALUE", value_parser = pair)]
    annotation: Vec<(String, String)>,
    /// Take an annotation away
    #[arg(long, value_name = "NAME")]
    unset_annotation: Vec<String>,
    /// Set what the image is listed for
    #[arg(long, requires = "image", value_name = "OS/ARCH")]
    platform: Option<Platform>,
    /// Set the operating system
    #[arg(long, requires = "image", value_name = "OS")]
    os: Option<String>,
    /// Set the processor
    #[arg(long, requires = "image", value_name = "ARCH")]
    arch: Option<String>,
    /// Set the processor's variant
    #[arg(long, requires = "image", value_name = "VARIANT")]
    variant: Option<String>,
    /// Set the version of the operating system
    #[arg(long, requires = "image", value_name = "VERSION")]
    os_version: Option<String>,
    /// Set the needed features of the operating system
    #[arg(long, requires = "image", value_delimiter = ',', value_name = "FEATURE")]
    os_features: Vec<String>,
    /// The result's name [default: that of the index]
    #[arg(short, long, value_name = "NAME[:TAG]", value_parser = tag_name)]
    tag: Option<Reference>,
}

// Flags of `strake index inspect`.
#[derive(Debug, Args)]
struct InspectArgs {
    /// The index, or an image
    #[arg(value_name = "NAME[:TAG|@DIGEST]")]
    name: Reference,
    /// Show the document as the registry has it
    #[arg(long, conflicts_with = "format")]
    raw: bool,
    /// `json`, or a template such as `{{.Manifest.Digest}}` or `{{json .Manifest}}`
    #[arg(long, value_parser = format)]
    format: Option<Format>,
}

/// `--annotation` of `create`.
#[derive(Clone, Debug)]
struct Annotation {
    /// The entries; none for the index itself, and a part of it without a platform for all entries.
    entries: Option<Option<Platform>>,
    name: String,
    value: String,
}

/// Reads `--annotation`, for clap.
fn annotation(text: &str) -> Result<Annotation, String> {
    let (kind, rest) = match text.split_once(':') {
        Some((kind, rest)) if !kind.contains('=') && rest.contains('=') => (kind, rest),
        _ => ("index", text),
    };
    let entries = match kind.strip_prefix("manifest-descriptor") {
        Some("") => Some(None),
        Some(platform) => {
            let platform = platform.strip_prefix('[').and_then(|platform| platform.strip_suffix(']')).unwrap_or("");
            Some(Some(platform.parse::<Platform>().map_err(|error| error.to_string())?))
        }
        None if kind == "index" => None,
        None => return Err(format!("`{kind}` is not supported: expected `index` or `manifest-descriptor[OS/ARCH]`")),
    };
    let (name, value) = pair(rest)?;
    Ok(Annotation { entries, name, value })
}

/// Runs `strake index`.
pub(in crate::cli) fn run(global: &Global, args: IndexArgs) -> ExitCode {
    match args.command {
        IndexCommand::Create(args) => create(global, *args),
        IndexCommand::Append(args) => append(global, *args),
        IndexCommand::Remove(args) => exit(with_engine(global, None, |engine| async move {
            let edits = vec![IndexEdit::Remove(selectors(&engine, &args.images).await?)];
            change(&engine, args.index, edits, args.tag).await
        })),
        IndexCommand::Filter(args) => exit(with_engine(global, None, |engine| async move {
            change(&engine, args.index, vec![IndexEdit::Keep(args.platform)], args.tag).await
        })),
        IndexCommand::Annotate(args) => annotate(global, *args),
        IndexCommand::Inspect(args) => inspect(global, args),
    }
}

fn create(global: &Global, mut args: CreateArgs) -> ExitCode {
    exit(with_engine(global, None, |engine| async move {
        for file in &args.file {
            let text = std::fs::read_to_string(file).map_err(|source| Error::Io { action: "read", path: file.clone(), source })?;
            args.images.extend(text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')).map(str::to_owned));
        }
        if args.tag.is_empty() && !args.dry_run && !args.images.is_empty() {
            args.tag.push(tag_name(&args.images.remove(0)).map_err(usage)?);
        }
        if args.tag.is_empty() && (!args.dry_run || args.append) {
            return Err(usage("the index has no name: give it with -t".to_owned()));
        }
        if args.images.is_empty() && !args.append {
            return Err(usage("an index of what? name the images after the index".to_owned()));
        }
        let options = AddOptions { keep: args.add.platform, set_platform: args.add.set_platform, nested: false };
        let mut edits = vec![IndexEdit::Add(places(&args.images, args.tag.first())?, options)];
        for Annotation { entries, name, value } in args.annotation {
            let set: BTreeMap<String, String> = [(name, value)].into();
            let annotate = |entry| IndexEdit::Annotate { entry, set: set.clone(), unset: Vec::new() };
            match entries {
                None => edits.push(annotate(None)),
                Some(Some(platform)) => edits.push(annotate(Some(Selector::Platform(platform)))),
                Some(None) => edits.push(IndexEdit::AnnotateAll(set.clone())),
            }
        }
        let base = match args.tag.first() {
            Some(existing) if args.append => IndexBase::Existing(existing.clone()),
            _ => IndexBase::Empty { docker_types: false },
        };
        let to = if args.dry_run { Vec::new() } else { args.tag.clone() };
        let request = IndexRequest { base, edits, to, prefer_manifest: !args.prefer_index };
        let outcome = make(&engine, &request, args.quiet).await?;
        if let Some(path) = &args.metadata_file {
            metadata(path, &outcome, &args.tag)?;
        }
        if args.dry_run {
            let shown: Value = serde_json::from_slice(&outcome.bytes).unwrap_or_default();
            report::result(&serde_json::to_string_pretty(&shown).unwrap_or_default());
        }
        Ok(())
    }))
}

fn append(global: &Global, args: AppendArgs) -> ExitCode {
    exit(with_engine(global, None, |engine| async move {
        let images: Vec<String> = args.images.into_iter().chain(args.manifest).collect();
        if images.is_empty() {
            return Err(usage("what is added? name the images after the index, or with -m".to_owned()));
        }
        let options = AddOptions { keep: args.add.platform, set_platform: args.add.set_platform, nested: !args.flatten };
        let to = args.tag.or_else(|| args.index.clone()).ok_or_else(|| usage("the index has no name: give it with -t".to_owned()))?;
        let base = match args.index {
            Some(index) => IndexBase::Existing(index),
            None => IndexBase::Empty { docker_types: args.docker_empty_base },
        };
        let edits = vec![IndexEdit::Add(places(&images, Some(&to))?, options)];
        let request = IndexRequest { base, edits, to: vec![to], prefer_manifest: false };
        make(&engine, &request, args.quiet).await.map(drop)
    }))
}

fn annotate(global: &Global, args: AnnotateArgs) -> ExitCode {
    exit(with_engine(global, None, |engine| async move {
        let entry = match &args.image {
            Some(text) => Some(until_interrupted(engine.selector(text)).await?),
            None => None,
        };
        let features = (!args.os_features.is_empty()).then_some(args.os_features);
        let platform = PlatformChange {
            whole: args.platform,
            os: args.os,
            architecture: args.arch,
            variant: args.variant,
            os_version: args.os_version,
            os_features: features,
        };
        let set = args.annotation.into_iter().collect();
        let mut edits = vec![IndexEdit::Annotate { entry: entry.clone(), set, unset: args.unset_annotation }];
        if let Some(entry) = entry.filter(|_| platform != PlatformChange::default()) {
            edits.push(IndexEdit::Platform(entry, platform));
        }
        change(&engine, args.index, edits, args.tag).await
    }))
}

/// Changes an index in its place, or under another name.
async fn change(engine: &Engine, index: Reference, edits: Vec<IndexEdit>, tag: Option<Reference>) -> Result<(), Error> {
    let to = vec![tag.unwrap_or_else(|| index.clone())];
    let request = IndexRequest { base: IndexBase::Existing(index), edits, to, prefer_manifest: false };
    make(engine, &request, false).await.map(drop)
}

async fn make(engine: &Engine, request: &IndexRequest, quiet: bool) -> Result<IndexOutcome, Error> {
    if let Some(fixed) = request.to.iter().find(|name| name.digest().is_some()) {
        let message = format!("`{}` names an index by its digest, which a changed one cannot have", fixed.written());
        return Err(Error::Usage { message, hint: Some("give the result a name with -t".to_owned()) });
    }
    let progress = progress(if quiet { ProgressMode::Quiet } else { ProgressMode::Auto });
    let outcome = until_interrupted(engine.index(request, &progress)).await?;
    drop(progress);
    let mut repositories: Vec<String> = request.to.iter().map(Reference::familiar_name).collect();
    repositories.dedup();
    for repository in repositories {
        report::result(&format!("{repository}@{}", outcome.descriptor.digest));
    }
    Ok(outcome)
}

/// The places of images; a mere digest is of the index's repository.
fn places(images: &[String], index: Option<&Reference>) -> Result<Vec<Place>, Error> {
    let read = |text: &String| match (text.parse::<Digest>(), index) {
        (Ok(digest), Some(index)) => Ok(Place::Registry(index.only_digest(digest))),
        _ => place(text).map_err(usage),
    };
    images.iter().map(read).collect()
}

async fn selectors(engine: &Engine, texts: &[String]) -> Result<Vec<Selector>, Error> {
    let mut found = Vec::new();
    for text in texts {
        found.push(until_interrupted(engine.selector(text)).await?);
    }
    Ok(found)
}

fn usage(message: String) -> Error {
    Error::Usage { message, hint: None }
}

fn metadata(path: &Path, outcome: &IndexOutcome, names: &[Reference]) -> Result<(), Error> {
    let names: Vec<String> = names.iter().map(ToString::to_string).collect();
    let value = json!({ "containerimage.descriptor": outcome.descriptor, "image.name": names.join(",") });
    let text = serde_json::to_string_pretty(&value).unwrap_or_default();
    std::fs::write(path, text).map_err(|source| Error::Io { action: "write", path: path.to_owned(), source })
}

fn inspect(global: &Global, args: InspectArgs) -> ExitCode {
    exit(with_any_store(global, |engine| async move {
        let found = until_interrupted(engine.document(&Place::Registry(args.name.clone()), None)).await?;
        let parsed = match ManifestOrIndex::parse(&found.bytes, Some(&found.descriptor.media_type)) {
            Ok(ManifestOrIndex::Index(index)) => Some(*index),
            _ => None,
        };
        match given(&args.format) {
            _ if args.raw => report::output(|out| out.write_all(&found.bytes)),
            Some(format) => {
                let lower = matches!(format, Format::Json);
                report::result(&format.render(&shown(&args.name, &found, parsed.as_ref(), lower))?);
            }
            None => text(&args.name, &found, parsed.as_ref()),
        }
        Ok(())
    }))
}

/// What is shown with `--format`; the names of fields in lower case as in JSON, or as templates have them.
fn shown(name: &Reference, found: &RemoteDocument, index: Option<&Index>, lower: bool) -> Value {
    let at = &found.descriptor;
    let (entries, annotations) = (index.map(|index| &index.manifests), index.map(|index| &index.annotations));
    if lower {
        let manifest =
            json!({ "mediaType": at.media_type, "digest": at.digest, "size": at.size, "manifests": entries, "annotations": annotations });
        return json!({ "name": name.to_string(), "manifest": manifest });
    }
    let manifest =
        json!({ "MediaType": at.media_type, "Digest": at.digest, "Size": at.size, "Manifests": entries, "Annotations": annotations });
    json!({ "Name": name.to_string(), "Manifest": manifest })
}

fn text(name: &Reference, found: &RemoteDocument, index: Option<&Index>) {
    let line = |indent: &str, what: &str, value: &str| report::result(&format!("{indent}{:<12}{value}", format!("{what}:")));
    line("", "Name", &name.to_string());
    line("", "MediaType", found.descriptor.media_type.as_str());
    line("", "Digest", &found.descriptor.digest.to_string());
    let annotated = |indent: &str, annotations: &BTreeMap<String, String>| {
        for (name, value) in annotations {
            line(indent, "Annotation", &crate::cli::table::tame(&format!("{name}={value}")));
        }
    };
    let Some(index) = index else { return };
    annotated("", &index.annotations);
    report::result("\nManifests:");
    for (at, entry) in index.manifests.iter().enumerate() {
        if at > 0 {
            report::result("");
        }
        line("  ", "Name", &name.only_digest(entry.digest.clone()).to_string());
        line("  ", "MediaType", entry.media_type.as_str());
        if let Some(platform) = &entry.platform {
            let version = entry.platform.as_ref().and_then(|platform| platform.os_version.clone());
            line("  ", "Platform", &version.map_or_else(|| platform.to_string(), |version| format!("{platform} ({version})")));
        }
        if let Some(kind) = &entry.artifact_type {
            line("  ", "Artifact", kind);
        }
        annotated("  ", &entry.annotations);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn annotations_say_where_they_belong() {
        let read = |text: &str| annotation(text).map(|read| (read.entries, read.name, read.value));
        let (name, value) = ("a:b".to_owned(), "c:d".to_owned());
        assert_eq!(read("a:b=c:d"), Err("`a` is not supported: expected `index` or `manifest-descriptor[OS/ARCH]`".to_owned()));
        assert_eq!(read("index:a:b=c:d"), Ok((None, name, value)));
        assert_eq!(read("a=http://x"), Ok((None, "a".to_owned(), "http://x".to_owned())));
        let arm: Platform = "linux/arm64".parse().unwrap();
        assert_eq!(read("manifest-descriptor[linux/arm64]:a=b"), Ok((Some(Some(arm)), "a".to_owned(), "b".to_owned())));
        assert_eq!(read("manifest-descriptor:a=b"), Ok((Some(None), "a".to_owned(), "b".to_owned())));
        assert!(read("manifest:a=b").is_err() && read("a").is_err());
    }
}
