//! One file: what it may say, and what is wrong with it, by line. Keys that are not known are left to the tools that they are for.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use serde::Deserialize;
use toml::Spanned;

use crate::diag::SourceFile;
use crate::oci::Reference;

use super::super::error::Error;
use super::{Alias, Mirror, Pulls, Rule, ShortNameMode, is_long_name};

/// Whose file it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    System,
    User,
}

/// What one file says; `None` is nothing.
#[derive(Debug, Default)]
pub(super) struct Document {
    pub(super) rules: Vec<Rule>,
    pub(super) search: Option<Vec<String>>,
    pub(super) mode: Option<ShortNameMode>,
    /// `credential-helpers`.
    pub(super) helpers: Option<Vec<String>>,
    /// Short names and what they stand for; `None` takes an alias of an earlier file away.
    pub(super) aliases: Vec<(String, Option<Alias>)>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Text {
    unqualified_search_registries: Option<Vec<Spanned<String>>>,
    short_name_mode: Option<Spanned<String>>,
    credential_helpers: Option<Vec<Spanned<String>>>,
    #[serde(default)]
    registry: Vec<Spanned<RegistryTable>>,
    #[serde(default)]
    aliases: BTreeMap<Spanned<String>, Spanned<String>>,
    registries: Option<Spanned<Version1>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct RegistryTable {
    prefix: Option<Spanned<String>>,
    location: Option<Spanned<String>>,
    #[serde(default)]
    insecure: bool,
    #[serde(default)]
    blocked: bool,
    #[serde(default)]
    mirror_by_digest_only: bool,
    #[serde(default)]
    mirror: Vec<Spanned<MirrorTable>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct MirrorTable {
    location: Option<Spanned<String>>,
    #[serde(default)]
    insecure: bool,
    pull_from_mirror: Option<Spanned<String>>,
}

/// The format before: lists of registries.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Version1 {
    search: List,
    insecure: List,
    block: List,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct List {
    registries: Vec<Spanned<String>>,
}

/// Where something is wrong, and what.
type Wrong = (std::ops::Range<usize>, String);

impl Document {
    /// Reads the text of the file `path`.
    ///
    /// # Errors
    /// What is wrong, with its line.
    pub(super) fn parse(path: &Path, text: &str, owner: Owner) -> Result<Document, Error> {
        let wrong = |(span, reason): Wrong| {
            let line = SourceFile::new("", text).line(span.start.min(text.len()));
            Error::Conf { path: path.to_owned(), line: Some(line), reason }
        };
        let parsed: Text =
            toml::from_str(text).map_err(|error| wrong((error.span().unwrap_or_default(), error.message().replace('\n', "; "))))?;
        read(parsed, &path.into(), owner).map_err(wrong)
    }
}

fn read(text: Text, file: &Arc<Path>, owner: Owner) -> Result<Document, Wrong> {
    let mut document = Document::default();
    if let Some(old) = text.registries {
        let span = old.span();
        if !text.registry.is_empty() || text.unqualified_search_registries.is_some() {
            return Err((span, "`[registries.…]` of version 1 does not go together with version 2 of the format".to_owned()));
        }
        return version_1(old.into_inner(), file);
    }
    for table in text.registry {
        document.rules.push(rule(table, file)?);
    }
    if let Some(names) = text.unqualified_search_registries {
        document.search = Some(names.iter().map(host).collect::<Result<_, _>>()?);
    }
    if let Some(mode) = text.short_name_mode {
        document.mode = Some(match mode.get_ref().as_str() {
            "" | "permissive" | "disabled" => ShortNameMode::Permissive,
            "enforcing" => ShortNameMode::Enforcing,
            other => {
                return Err((mode.span(), format!("`{other}` is no `short-name-mode`: it is `enforcing`, `permissive` or `disabled`")));
            }
        });
    }
    if let Some(helpers) = text.credential_helpers {
        document.helpers = Some(helpers.iter().map(helper).collect::<Result<_, _>>()?);
    }
    for (short, long) in text.aliases {
        document.aliases.push(alias(&short, &long, owner)?);
    }
    Ok(document)
}

fn rule(table: Spanned<RegistryTable>, file: &Arc<Path>) -> Result<Rule, Wrong> {
    let span = table.span();
    let table = table.into_inner();
    let place = |text: &Spanned<String>| location(text.get_ref()).map_err(|reason| (text.span(), reason));
    let written = |text: &&Spanned<String>| !text.get_ref().is_empty();
    let at = table.location.as_ref().filter(written).map(place).transpose()?;
    let prefix = match table.prefix.as_ref().filter(written) {
        Some(prefix) if prefix.get_ref().starts_with("*.") => {
            let domain = &prefix.get_ref()[2..];
            if domain.is_empty() || domain.contains(['/', ':', '@', '*']) {
                return Err((prefix.span(), format!("`{}` is no prefix: after `*.` comes a domain and nothing else", prefix.get_ref())));
            }
            prefix.get_ref().clone()
        }
        Some(prefix) => place(prefix)?,
        None => at.clone().ok_or_else(|| (span.clone(), "a `[[registry]]` needs a `location` or a `prefix`".to_owned()))?,
    };
    if at.is_none() && !prefix.starts_with("*.") {
        return Err((span, format!("the registry with the prefix `{prefix}` needs a `location`")));
    }
    let mut mirrors = Vec::new();
    for mirror in table.mirror {
        mirrors.push(read_mirror(mirror, table.mirror_by_digest_only)?);
    }
    Ok(Rule { prefix, location: at, insecure: table.insecure, blocked: table.blocked, mirrors, file: file.clone() })
}

fn read_mirror(table: Spanned<MirrorTable>, by_digest_only: bool) -> Result<Mirror, Wrong> {
    let span = table.span();
    let MirrorTable { location: at, insecure, pull_from_mirror } = table.into_inner();
    let Some(at) = at else { return Err((span, "a mirror needs a `location`".to_owned())) };
    let found = location(at.get_ref()).map_err(|reason| (at.span(), reason))?;
    let pulls = match pull_from_mirror.as_ref().map(|text| text.get_ref().as_str()) {
        None | Some("") if by_digest_only => Pulls::Digest,
        None | Some("") => Pulls::All,
        Some(_) if by_digest_only => {
            return Err((span, "`pull-from-mirror` does not go together with `mirror-by-digest-only` of the registry".to_owned()));
        }
        Some("all") => Pulls::All,
        Some("digest-only") => Pulls::Digest,
        Some("tag-only") => Pulls::Tag,
        Some(other) => {
            let span = pull_from_mirror.as_ref().map_or(span, Spanned::span);
            return Err((span, format!("`{other}` is no `pull-from-mirror`: it is `all`, `digest-only` or `tag-only`")));
        }
    };
    Ok(Mirror { location: found, insecure, pulls })
}

fn alias(short: &Spanned<String>, long: &Spanned<String>, owner: Owner) -> Result<(String, Option<Alias>), Wrong> {
    let name = short.get_ref();
    let plain = |reference: Reference| reference.is_short() && reference.digest().is_none() && reference.familiar_name() == *name;
    if !name.parse::<Reference>().is_ok_and(plain) {
        return Err((short.span(), format!("`{name}` is no short name: it has neither registry nor tag")));
    }
    if long.get_ref().is_empty() {
        return Ok((name.clone(), None));
    }
    if !is_long_name(long.get_ref()) {
        let reason = format!("`{}` is no name with a registry and without a tag, so `{name}` cannot stand for it", long.get_ref());
        return Err((long.span(), reason));
    }
    Ok((name.clone(), Some(Alias { name: long.get_ref().clone(), own: owner == Owner::User })))
}

/// The name of a credential helper, or that of the files.
fn helper(name: &Spanned<String>) -> Result<String, Wrong> {
    let text = name.get_ref();
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte)) {
        return Err((name.span(), format!("`{text}` cannot be the name of a credential helper: it is what follows `docker-credential-`")));
    }
    Ok(text.clone())
}

/// A registry, without anything after it.
fn host(text: &Spanned<String>) -> Result<String, Wrong> {
    let found = location(text.get_ref()).map_err(|reason| (text.span(), reason))?;
    if found.contains(['/', '@']) {
        return Err((text.span(), format!("`{found}` is no registry: expected a host, with a port where needed")));
    }
    Ok(found)
}

/// A `host[:port][/path]`, without the slashes at its end.
pub(super) fn location(text: &str) -> Result<String, String> {
    let trimmed = text.trim_end_matches('/');
    let host = trimmed.split('/').next().unwrap_or_default();
    if trimmed.contains("://") {
        return Err(format!("`{text}` is no location: it is written without `https://`"));
    }
    if host.is_empty() || trimmed.contains([' ', '?', '#', '\\', '*']) || host.contains('@') {
        return Err(format!("`{text}` is no location: expected a host, with a port and a path where needed"));
    }
    Ok(trimmed.to_owned())
}

fn version_1(old: Version1, file: &Arc<Path>) -> Result<Document, Wrong> {
    let mut document = Document::default();
    let mut rule_of = |name: &Spanned<String>| -> Result<usize, Wrong> {
        let prefix = location(name.get_ref()).map_err(|reason| (name.span(), reason))?;
        if let Some(at) = document.rules.iter().position(|rule| rule.prefix == prefix) {
            return Ok(at);
        }
        let location = Some(prefix.clone());
        document.rules.push(Rule { prefix, location, insecure: false, blocked: false, mirrors: Vec::new(), file: file.clone() });
        Ok(document.rules.len() - 1)
    };
    let mut marked = (Vec::new(), Vec::new());
    for name in &old.insecure.registries {
        marked.0.push(rule_of(name)?);
    }
    for name in &old.block.registries {
        marked.1.push(rule_of(name)?);
    }
    marked.0.into_iter().for_each(|at| document.rules[at].insecure = true);
    marked.1.into_iter().for_each(|at| document.rules[at].blocked = true);
    if !old.search.registries.is_empty() {
        document.search = Some(old.search.registries.iter().map(host).collect::<Result<_, _>>()?);
    }
    Ok(document)
}
