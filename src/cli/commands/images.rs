//! `strake images`, `tag`, `rmi` and `history`: the images that are here.

use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use clap::Args;
use serde_json::{Value, json};

use crate::cli::format::{Format, format, given};
use crate::cli::render::size;
use crate::cli::table::{Table, ago, cut, date, tame};
use crate::cli::{Global, report, settler};
use crate::engine::{Engine, Error, HistoryLine, ImageSummary, NamedAs, Removal, Removed, parse_time};
use crate::oci::{ImageId, Platform, Reference};

use super::several::Failures;
use super::{exit, prune, until_interrupted, with_engine};

// Flags of `strake images`.
#[derive(Debug, Args)]
pub(in crate::cli) struct ImagesArgs {
    /// Only images of this repository, or of this name; `*` stands for any text
    name: Option<String>,
    /// Accepted for compatibility: there are no intermediate images to hide
    #[arg(short, long)]
    all: bool,
    /// Show nothing but IDs
    #[arg(short, long)]
    quiet: bool,
    /// Show IDs whole
    #[arg(long)]
    no_trunc: bool,
    /// Show digests
    #[arg(long)]
    digests: bool,
    /// `json`, or a template such as `{{.Repository}}:{{.Tag}}`
    #[arg(long, value_parser = format)]
    format: Option<Format>,
    /// Only images that fit: `dangling=true|false`, `reference=PATTERN`, `label=KEY[=VALUE]`, `before=IMAGE`, `since=IMAGE`, `until=AGE` (may be given several times; all must hold,
    /// but of several patterns one is enough)
    #[arg(short, long, value_name = "KEY=VALUE", value_parser = filter)]
    filter: Vec<Filter>,
}

/// `--filter` of `images`.
#[derive(Clone, Debug)]
enum Filter {
    Dangling(bool),
    Reference(String),
    Label(String, Option<String>),
    Before(String),
    Since(String),
    Until(Duration),
}

fn filter(text: &str) -> Result<Filter, String> {
    match text.split_once('=') {
        Some(("dangling", "true" | "1")) => Ok(Filter::Dangling(true)),
        Some(("dangling", "false" | "0")) => Ok(Filter::Dangling(false)),
        Some(("reference", pattern)) => Ok(Filter::Reference(pattern.to_owned())),
        Some(("label", label)) => Ok(match label.split_once('=') {
            Some((key, value)) => Filter::Label(key.to_owned(), Some(value.to_owned())),
            None => Filter::Label(label.to_owned(), None),
        }),
        Some(("before", image)) => Ok(Filter::Before(image.to_owned())),
        Some(("since", image)) => Ok(Filter::Since(image.to_owned())),
        Some(("until", age)) => prune::until(age).map(Filter::Until),
        _ => Err("expected `dangling=true|false`, `reference=PATTERN`, `label=KEY[=VALUE]`, `before=IMAGE`, `since=IMAGE` or `until=AGE`"
            .to_owned()),
    }
}

// Flags of `strake tag`.
#[derive(Debug, Args)]
pub(in crate::cli) struct TagArgs {
    /// The image: a name, an ID or the beginning of one
    image: String,
    /// The new name
    #[arg(value_name = "NAME[:TAG]", value_parser = super::tag_name)]
    name: Reference,
}

// Flags of `strake rmi`.
#[derive(Debug, Args)]
pub(in crate::cli) struct RmiArgs {
    /// The images: names, IDs or the beginnings of IDs
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<String>,
    /// Remove images that containers use, or that have several names
    #[arg(short, long)]
    force: bool,
    /// Leave the layers for `strake prune`
    #[arg(long)]
    no_prune: bool,
    /// Remove images for this platform only: of an index that one alone; what is for other platforms is left, and is an error
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<Platform>,
}

// Flags of `strake history`.
#[derive(Debug, Args)]
pub(in crate::cli) struct HistoryArgs {
    /// The image: a name, an ID or the beginning of one
    image: String,
    /// Show nothing but IDs
    #[arg(short, long)]
    quiet: bool,
    /// Show IDs and instructions whole
    #[arg(long)]
    no_trunc: bool,
    /// Show sizes and times for people; with `=false` bytes, and times as they are
    #[arg(short = 'H', long, default_value_t = true, num_args = 0..=1, require_equals = true, default_missing_value = "true", action = clap::ArgAction::Set, value_name = "BOOL")]
    human: bool,
    /// `json`, or a template such as `{{.CreatedBy}}`
    #[arg(long, value_parser = format)]
    format: Option<Format>,
    /// The image for this platform, where the name stands for several [default: the one that the name means here]
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<Platform>,
}

/// Runs `strake images`.
pub(in crate::cli) fn images(global: &Global, args: ImagesArgs) -> ExitCode {
    exit(with_engine(global, None, |engine| async move { list(&engine, &args) }))
}

fn list(engine: &Engine, args: &ImagesArgs) -> Result<(), Error> {
    let mut table = if args.digests {
        Table::new(&["REPOSITORY", "TAG", "DIGEST", "IMAGE ID", "PLATFORM", "CREATED", "SIZE"])
    } else {
        Table::new(&["REPOSITORY", "TAG", "IMAGE ID", "PLATFORM", "CREATED", "SIZE"])
    };
    let mut shown: Vec<ImageId> = Vec::new();
    let mut rows = Vec::new();
    let chosen = chosen(engine, &args.filter)?;
    for image in engine.images()?.into_iter().filter(|image| chosen.as_ref().is_none_or(|chosen| chosen.contains(&image.image.id))) {
        let names: Vec<Option<&NamedAs>> = if image.names.is_empty() { vec![None] } else { image.names.iter().map(Some).collect() };
        for named in names.into_iter().filter(|named| is_wanted(args, named.map(|named| &named.name))) {
            let row = image_row(&image, named, args.no_trunc);
            let field = |name: &str| row[name].as_str().unwrap_or_default().to_owned();
            match given(&args.format) {
                _ if args.quiet => {
                    if !shown.contains(&image.image.id) {
                        shown.push(image.image.id.clone());
                        report::result(&field("ID"));
                    }
                }
                Some(_) => rows.push(row),
                None => {
                    let mut cells = vec![field("Repository"), field("Tag")];
                    cells.extend(args.digests.then(|| field("Digest")));
                    cells.extend([field("ID"), field("Platform"), field("CreatedSince"), field("Size")]);
                    table.row(cells);
                }
            }
        }
    }
    match given(&args.format) {
        _ if args.quiet => {}
        Some(format) => format.show(&rows, &[("ID", "IMAGE ID")])?,
        None => report::result(&table.render()),
    }
    Ok(())
}

fn image_row(image: &ImageSummary, named: Option<&NamedAs>, whole: bool) -> Value {
    let none = || "<none>".to_owned();
    let created = image.created.as_deref().and_then(parse_time);
    let digest = named.and_then(|named| named.name.digest().or(named.digest.as_ref()));
    json!({
        "Repository": named.map_or_else(none, |named| named.name.familiar_name()),
        "Tag": named.and_then(|named| named.name.tag()).map_or_else(none, str::to_owned),
        "Digest": digest.map_or_else(none, ToString::to_string),
        "ID": shown_id(&image.image.id, whole),
        "Platform": image.image.platform.to_string(),
        "CreatedSince": created.map_or_else(|| "N/A".to_owned(), ago),
        "CreatedAt": created.map_or_else(|| "N/A".to_owned(), date),
        "Size": size(image.image.size),
        "VirtualSize": size(image.image.size),
        "Containers": "N/A",
        "SharedSize": "N/A",
        "UniqueSize": "N/A",
    })
}

fn shown_id(id: &ImageId, whole: bool) -> String {
    if whole { id.to_string() } else { id.digest().short() }
}

fn is_wanted(args: &ImagesArgs, name: Option<&Reference>) -> bool {
    let fits = |pattern: &str| name.is_some_and(|name| matches_name(pattern, name));
    let mut patterns = args.filter.iter().filter_map(|filter| match filter {
        Filter::Reference(pattern) => Some(pattern.as_str()),
        _ => None,
    });
    let by_pattern = patterns.clone().next().is_none() || patterns.any(fits);
    let by_name = |filter: &Filter| !matches!(filter, Filter::Dangling(dangling) if *dangling != name.is_none());
    args.name.as_deref().is_none_or(fits) && by_pattern && args.filter.iter().all(by_name)
}

/// The images of which the filters hold that ask for more than a name; `None` where there are no such filters.
fn chosen(engine: &Engine, filters: &[Filter]) -> Result<Option<Vec<ImageId>>, Error> {
    if filters.iter().all(|filter| matches!(filter, Filter::Dangling(_) | Filter::Reference(_))) {
        return Ok(None);
    }
    let made = |image: &ImageSummary| image.created.as_deref().and_then(parse_time).unwrap_or(image.image.created_at);
    let images = engine.images()?;
    let time_of = |text: &str| -> Result<SystemTime, Error> {
        let id = engine.image(text)?.id;
        Ok(images.iter().find(|image| image.image.id == id).map_or(SystemTime::UNIX_EPOCH, made))
    };
    let mut kept: Vec<&ImageSummary> = images.iter().collect();
    for filter in filters {
        match filter {
            Filter::Dangling(_) | Filter::Reference(_) => {}
            Filter::Before(text) => {
                let time = time_of(text)?;
                kept.retain(|image| made(image) < time);
            }
            Filter::Since(text) => {
                let time = time_of(text)?;
                kept.retain(|image| made(image) > time);
            }
            Filter::Until(age) => {
                let time = SystemTime::now().checked_sub(*age);
                kept.retain(|image| time.is_none_or(|time| made(image) < time));
            }
            Filter::Label(key, value) => {
                let mut labelled = Vec::new();
                for image in kept {
                    let details = engine.image_details(&image.image.id.to_string())?;
                    let label = details.as_ref().and_then(|details| details.config.config.labels.get(key));
                    labelled.extend(label.is_some_and(|label| value.as_ref().is_none_or(|value| value == label)).then_some(image));
                }
                kept = labelled;
            }
        }
    }
    Ok(Some(kept.into_iter().map(|image| image.image.id.clone()).collect()))
}

/// Whether a name is meant by `debian`, `debian:12`, `acme/*` or `*:12`.
fn matches_name(pattern: &str, name: &Reference) -> bool {
    if let Ok(exact) = pattern.parse::<Reference>() {
        return if exact.is_repository_alone() { name.name() == exact.name() } else { *name == exact };
    }
    let candidates = [name.familiar_name(), name.familiar(), name.name(), name.to_string()];
    candidates.iter().any(|candidate| wildcard(pattern.as_bytes(), candidate.as_bytes()))
}

/// Whether `text` fits `pattern`, in which `*` is any text without `/`, and `?` is any character but that.
fn wildcard(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t, mut star) = (0, 0, None);
    while t < text.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(b'?') if text[t] != b'/' => (p, t) = (p + 1, t + 1),
            Some(byte) if *byte == text[t] => (p, t) = (p + 1, t + 1),
            _ => match star {
                // The star takes one more.
                Some((at, from)) if text[from] != b'/' => {
                    star = Some((at, from + 1));
                    (p, t) = (at + 1, from + 1);
                }
                _ => return false,
            },
        }
    }
    pattern[p..].iter().all(|byte| *byte == b'*')
}

/// Runs `strake tag`.
pub(in crate::cli) fn tag(global: &Global, args: TagArgs) -> ExitCode {
    exit(with_engine(global, None, |engine| async move {
        engine.tag(&args.image, &args.name)?;
        settler::finish_later(&engine)
    }))
}

/// Runs `strake rmi`.
pub(in crate::cli) fn rmi(global: &Global, args: RmiArgs) -> ExitCode {
    exit(with_engine(global, None, |engine| async move {
        let removal = if args.force { Removal::Forced } else { Removal::Careful };
        let (mut failures, mut deleted) = (Failures::default(), false);
        for image in &args.images {
            let result = match &args.platform {
                Some(platform) => until_interrupted(engine.remove_platform(image, removal, platform)).await,
                None => engine.remove_image(image, removal),
            };
            match result {
                Ok(removed) => {
                    for what in removed {
                        match what {
                            Removed::Untagged(name) => report::result(&format!("Untagged: {}", name.familiar())),
                            Removed::Deleted(id) => {
                                deleted = true;
                                report::result(&format!("Deleted: {id}"));
                            }
                        }
                    }
                }
                // As for Docker: what shall not be there is not there.
                Err(error @ Error::NoSuchImage { .. }) if args.force => report::error(&error),
                Err(error) => failures.add(error),
            }
        }
        if deleted && !args.no_prune {
            engine.prune(&crate::engine::PruneOptions::default())?;
        }
        // A name may stand for another image of its index, which was unpacked for that.
        if args.platform.is_some() {
            settler::finish(engine).await?;
        }
        failures.end()
    }))
}

/// Runs `strake history`.
pub(in crate::cli) fn history(global: &Global, args: HistoryArgs) -> ExitCode {
    exit(with_engine(global, None, |engine| async move {
        let image = engine.image_for(&args.image, args.platform.as_ref()).await?;
        let lines = engine.history(&image)?;
        let mut table = Table::new(&["IMAGE", "CREATED", "CREATED BY", "SIZE", "COMMENT"]);
        let mut rows = Vec::new();
        for (at, line) in lines.iter().enumerate() {
            let id = if at == 0 { shown_id(&image.id, args.no_trunc) } else { "<missing>".to_owned() };
            let row = history_row(line, id, &args);
            let field = |name: &str| row[name].as_str().unwrap_or_default().to_owned();
            match given(&args.format) {
                _ if args.quiet => report::result(&field("ID")),
                Some(_) => rows.push(row),
                None => {
                    let by = if args.no_trunc { field("CreatedBy") } else { cut(&field("CreatedBy"), 45) };
                    table.row(vec![field("ID"), field("CreatedSince"), by, field("Size"), field("Comment")]);
                }
            }
        }
        match given(&args.format) {
            _ if args.quiet => {}
            Some(format) => format.show(&rows, &[("ID", "IMAGE")])?,
            None => report::result(&table.render()),
        }
        // An image of an index may have been unpacked.
        if args.platform.is_some() { settler::finish(engine).await } else { Ok(()) }
    }))
}

fn history_row(line: &HistoryLine, id: String, args: &HistoryArgs) -> Value {
    let whole = args.no_trunc;
    let written = || line.entry.created.clone().unwrap_or_else(|| "N/A".to_owned());
    let created = line.entry.created.as_deref().and_then(parse_time);
    let by = tame(line.entry.created_by.as_deref().unwrap_or(""));
    json!({
        "ID": id,
        "CreatedSince": if args.human { created.map_or_else(|| "N/A".to_owned(), ago) } else { written() },
        "CreatedAt": created.map_or_else(|| "N/A".to_owned(), date),
        "CreatedBy": if whole { by } else { cut(&by, 4000) },
        "Size": if args.human { size(line.size) } else { line.size.to_string() },
        "Comment": tame(line.entry.comment.as_deref().unwrap_or("")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fit_by_repository_by_tag_and_by_pattern() {
        let name: Reference = "localhost:5000/acme/app:1.2".parse().unwrap();
        for pattern in
            ["localhost:5000/acme/app", "localhost:5000/acme/app:1.2", "localhost:5000/acme/*", "*/*/app:1.?", "localhost:5000/*/app:*"]
        {
            assert!(matches_name(pattern, &name), "{pattern}");
        }
        for pattern in ["acme/app", "app", "localhost:5000/acme/app:1", "*", "*:1.2", "localhost:5000/acme/ap"] {
            assert!(!matches_name(pattern, &name), "{pattern}");
        }
        assert!(matches_name("deb*", &"debian:12".parse().unwrap()));
    }
}
