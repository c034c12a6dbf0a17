//! `strake search`: repositories of Docker Hub, or of a registry.

use std::process::ExitCode;

use clap::Args;
use serde_json::{Value, json};

use crate::cli::format::{Format, format, given};
use crate::cli::table::{Table, cut, tame};
use crate::cli::{Global, report};
use crate::engine::{Error, FoundRepository};
use crate::oci::{DOCKER_HUB, Reference};

use super::{exit, until_interrupted, with_any_store};

// Flags of `strake search`.
#[derive(Debug, Args)]
pub(in crate::cli) struct SearchArgs {
    /// What to search for, at Docker Hub; as `HOST/TERM` at another registry
    #[arg(value_name = "[HOST/]TERM")]
    term: String,
    /// How many to show at most, from 1 to 100
    #[arg(long, default_value_t = 25, value_parser = clap::value_parser!(u32).range(1..=100), value_name = "COUNT")]
    limit: u32,
    /// Only repositories that fit: `stars=COUNT` or more, `is-official=true|false`, `is-automated=true|false` (may be given several times)
    #[arg(short, long, value_name = "KEY=VALUE", value_parser = filter)]
    filter: Vec<Filter>,
    /// Show descriptions whole
    #[arg(long)]
    no_trunc: bool,
    /// `json`, or a template such as `{{.Name}}: {{.StarCount}}`
    #[arg(long, value_parser = format)]
    format: Option<Format>,
}

/// One `--filter`.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Filter {
    Stars(i64),
    Official(bool),
    Automated(bool),
}

fn filter(text: &str) -> Result<Filter, String> {
    let truth = |value: &str| match value {
        "true" | "1" => Ok(true),
        "false" | "0" => Ok(false),
        _ => Err(format!("`{value}` is neither true nor false")),
    };
    match text.split_once('=') {
        Some(("stars", count)) => count.parse().map(Filter::Stars).map_err(|_| format!("`{count}` is no number of stars")),
        Some(("is-official", value)) => truth(value).map(Filter::Official),
        Some(("is-automated", value)) => truth(value).map(Filter::Automated),
        _ => Err("expected `stars=COUNT`, `is-official=true|false` or `is-automated=true|false`".to_owned()),
    }
}

impl Filter {
    fn fits(&self, found: &FoundRepository) -> bool {
        match self {
            Filter::Stars(least) => found.star_count >= *least,
            Filter::Official(wanted) => found.is_official == *wanted,
            Filter::Automated(wanted) => found.is_automated == *wanted,
        }
    }
}

/// The registry that a term names, and the term that is searched for there.
fn split(text: &str) -> Result<(String, String), Error> {
    let bad = || Error::Usage { message: format!("`{text}` is nothing to search for"), hint: Some("write `TERM` or `HOST/TERM`".into()) };
    let (registry, term) = match text.split_once('/') {
        // As in references: only a name with a dot or a port, or this machine's, is a host.
        Some((host, term)) if host.contains(['.', ':']) || host == "localhost" => {
            let registry = format!("{host}/x").parse::<Reference>().map_err(|_| bad())?.registry().to_owned();
            (registry, term)
        }
        _ => (DOCKER_HUB.to_owned(), text),
    };
    // Official repositories are searched for by their short names.
    let term = if registry == DOCKER_HUB { term.strip_prefix("library/").unwrap_or(term) } else { term };
    if term.is_empty() || text.contains("://") { Err(bad()) } else { Ok((registry, term.to_owned())) }
}

/// Runs `strake search`.
pub(in crate::cli) fn run(global: &Global, args: SearchArgs) -> ExitCode {
    exit(with_any_store(global, |engine| async move {
        let (registry, term) = split(&args.term)?;
        let mut found = until_interrupted(engine.search(&registry, &term, args.limit)).await?;
        found.retain(|found| args.filter.iter().all(|filter| filter.fits(found)));
        found.sort_by_key(|found| std::cmp::Reverse(found.star_count));
        let mut table = Table::new(&["NAME", "DESCRIPTION", "STARS", "OFFICIAL"]);
        let mut rows = Vec::new();
        for found in &found {
            let row = row(found, args.no_trunc);
            match given(&args.format) {
                Some(_) => rows.push(row),
                None => {
                    let field = |name: &str| row[name].as_str().unwrap_or_default().to_owned();
                    let official = if found.is_official { "[OK]".to_owned() } else { String::new() };
                    table.row(vec![field("Name"), field("Description"), field("StarCount"), official]);
                }
            }
        }
        match given(&args.format) {
            Some(format) => format.show(&rows, &[]),
            None => {
                report::result(&table.render());
                Ok(())
            }
        }
    }))
}

fn row(found: &FoundRepository, whole: bool) -> Value {
    let description = tame(&found.description.replace(['\n', '\r'], " "));
    json!({
        "Name": tame(&found.name),
        "Description": if whole { description } else { cut(&description, 45) },
        "StarCount": found.star_count.to_string(),
        "IsOfficial": found.is_official.to_string(),
        "IsAutomated": found.is_automated.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_term_may_name_its_registry() {
        let read = |text: &str| split(text).ok().map(|(registry, term)| format!("{registry} {term}"));
        assert_eq!(read("busybox").as_deref(), Some("docker.io busybox"));
        assert_eq!(read("acme/app").as_deref(), Some("docker.io acme/app"));
        assert_eq!(read("library/debian").as_deref(), Some("docker.io debian"));
        assert_eq!(read("localhost:5000/a/b").as_deref(), Some("localhost:5000 a/b"));
        assert_eq!(read("index.docker.io/x").as_deref(), Some("docker.io x"));
        for bad in ["", "quay.io/", "https://quay.io/x"] {
            assert_eq!(read(bad), None, "{bad}");
        }
        assert_eq!(filter("stars=3"), Ok(Filter::Stars(3)));
        assert!(filter("stars=x").is_err() && filter("is-official=maybe").is_err() && filter("name=x").is_err());
    }
}
