//! `registries.conf` (containers-registries.conf(5), version 2): where images are read from, which registries are blocked or insecure, what short names mean.
//!
//! A name belongs to the rule with the longest prefix. Reading goes to the rule's mirrors in their order, then to its location; writing goes to the name itself, as
//! the format has it. Short names mean Docker Hub, as in Docker, unless somebody decided otherwise: by `unqualified-search-registries`, or by an alias in a file
//! of the user's own. The aliases that distributions install below `/etc` count with the former only: `FROM fedora` is to mean the same on every machine.
//!
//! Files are read here and nowhere else; which files is the caller's business ([`RegistriesFiles`]).

mod file;
mod load;

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;

use crate::oci::{DOCKER_HUB, Reference};

use super::credentials::HelperOrder;
use super::error::Error;
pub use load::RegistriesFiles;

/// What all files together say.
#[derive(Clone, Debug, Default)]
pub struct Registries {
    rules: Vec<Rule>,
    /// `host[:port]`, in the order in which they are asked for short names.
    search: Vec<String>,
    mode: ShortNameMode,
    aliases: HashMap<String, Alias>,
    /// `credential-helpers`, in their order.
    helpers: Vec<String>,
}

/// How `credential-helpers` calls all files with credentials.
const FILES: &str = "containers-auth.json";

/// `short-name-mode`. Nobody is asked: what would ask falls back as it does without a terminal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum ShortNameMode {
    /// All registries are tried (`disabled`, `permissive`).
    #[default]
    Permissive,
    /// More than one registry is an error.
    Enforcing,
}

/// What a short name stands for.
#[derive(Clone, Debug)]
struct Alias {
    /// A name with a registry, without tag and digest.
    name: String,
    /// Whether the user wrote it, rather than a distribution.
    own: bool,
}

/// A `[[registry]]` table.
#[derive(Clone, Debug)]
struct Rule {
    prefix: String,
    /// What takes the place of the prefix; none leaves names as they are.
    location: Option<String>,
    insecure: bool,
    blocked: bool,
    mirrors: Vec<Mirror>,
    /// Who says so.
    file: Arc<Path>,
}

/// A `[[registry.mirror]]` table.
#[derive(Clone, Debug)]
struct Mirror {
    location: String,
    insecure: bool,
    pulls: Pulls,
}

/// For which names a mirror is asked (`pull-from-mirror`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Pulls {
    #[default]
    All,
    Digest,
    Tag,
}

impl Registries {
    /// The same with mirrors by registry (`docker.io`), which take the place of those that there are for the same prefix.
    ///
    /// # Errors
    /// A registry or a mirror that is no `host[:port][/path]`; `file` is where that stands.
    pub fn with_mirrors(mut self, by_registry: &BTreeMap<String, Vec<String>>, file: &Path) -> Result<Registries, Error> {
        for (registry, wanted) in by_registry.iter().filter(|(_, wanted)| !wanted.is_empty()) {
            let location = |text: &str| file::location(text).map_err(|reason| Error::Conf { path: file.to_owned(), line: None, reason });
            let prefix = location(registry)?;
            let mut mirrors = Vec::new();
            for mirror in wanted {
                mirrors.push(Mirror { location: location(mirror)?, insecure: false, pulls: Pulls::All });
            }
            let known = self.rules.iter().find(|rule| rule.prefix == prefix);
            let (insecure, blocked) = known.map_or((false, false), |rule| (rule.insecure, rule.blocked));
            let rule = Rule { location: Some(prefix.clone()), prefix, insecure, blocked, mirrors, file: file.into() };
            self.rules.retain(|known| known.prefix != rule.prefix);
            self.rules.push(rule);
        }
        Ok(self)
    }

    /// The credential helpers that are asked besides the files. Where the files are not among them, they come last.
    pub fn credential_helpers(&self) -> HelperOrder {
        let mut parts = self.helpers.splitn(2, |name| name == FILES).map(<[String]>::to_vec);
        let (before, after) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        HelperOrder { before, after: after.into_iter().filter(|name| name != FILES).collect() }
    }

    /// The names at which the image `reference` is looked for, in their order.
    ///
    /// # Errors
    /// It is blocked, or a rule makes something of it that is no name.
    pub(super) fn sources(&self, reference: &Reference) -> Result<Vec<Reference>, Error> {
        let text = reference.to_string();
        let Some((rule, length)) = self.rule(&text) else { return Ok(vec![reference.clone()]) };
        self.check(reference)?;
        let rest = &text[length..];
        let fits = |mirror: &&Mirror| match mirror.pulls {
            Pulls::All => true,
            Pulls::Digest => reference.digest().is_some(),
            Pulls::Tag => reference.digest().is_none(),
        };
        let mut sources = Vec::new();
        for location in rule.mirrors.iter().filter(fits).map(|mirror| &mirror.location).chain(&rule.location) {
            sources.push(rewritten(location, rest, rule)?);
        }
        if rule.location.is_none() {
            sources.push(reference.clone());
        }
        Ok(sources)
    }

    /// Where the repository of `reference` really is, mirrors aside.
    pub(super) fn location(&self, reference: &Reference) -> Result<Reference, Error> {
        let mut sources = self.sources(reference)?;
        Ok(sources.pop().unwrap_or_else(|| reference.clone()))
    }

    /// Refuses what is blocked.
    pub(super) fn check(&self, reference: &Reference) -> Result<(), Error> {
        self.check_text(&reference.to_string())
    }

    /// Refuses a registry that is blocked as a whole.
    pub(super) fn check_registry(&self, name: &str) -> Result<(), Error> {
        self.check_text(name)
    }

    fn check_text(&self, text: &str) -> Result<(), Error> {
        match self.rule(text) {
            Some((rule, _)) if rule.blocked => {
                Err(Error::Blocked { name: text.to_owned(), prefix: rule.prefix.clone(), path: rule.file.to_path_buf() })
            }
            _ => Ok(()),
        }
    }

    /// Whether certificates do not count, and TLS need not be, where `name` is asked: a reference, a repository or a registry.
    pub(super) fn is_insecure(&self, name: &str) -> bool {
        let by_prefix = self.rule(name).is_some_and(|(rule, _)| rule.insecure);
        let at = |location: &String| match_length(location, name).is_some();
        by_prefix
            || self.rules.iter().any(|rule| {
                (rule.insecure && rule.location.as_ref().is_some_and(at))
                    || rule.mirrors.iter().any(|mirror| mirror.insecure && at(&mirror.location))
            })
    }

    /// The names that `reference` may stand for, in the order in which registries are to be asked: more than one only for short names.
    ///
    /// # Errors
    /// Several registries could be meant, and the mode forbids to try.
    pub fn long_names(&self, reference: &Reference) -> Result<Vec<Reference>, Error> {
        if !reference.is_short() {
            return Ok(vec![reference.clone()]);
        }
        let familiar = reference.familiar();
        let short = reference.familiar_name();
        let rest = familiar.strip_prefix(&short).unwrap_or_default();
        let made = |name: String| format!("{name}{rest}").parse::<Reference>().ok();
        if let Some(alias) = self.aliases.get(&short).filter(|alias| alias.own || !self.search.is_empty())
            && let Some(name) = made(alias.name.clone())
        {
            return Ok(vec![name]);
        }
        if self.mode == ShortNameMode::Enforcing && self.search.len() > 1 {
            return Err(Error::Ambiguous { name: short, registries: self.search.clone() });
        }
        let names: Vec<Reference> = self.search.iter().filter_map(|registry| made(format!("{registry}/{short}"))).collect();
        Ok(if names.is_empty() { vec![reference.clone()] } else { names })
    }

    /// The rule with the longest prefix, and how much of `text` that is.
    fn rule(&self, text: &str) -> Option<(&Rule, usize)> {
        let fitting = self.rules.iter().filter_map(|rule| Some((rule, match_length(&rule.prefix, text)?)));
        // Of a host and of a wildcard that fits it, the host counts.
        fitting.max_by_key(|(rule, length)| (*length, !rule.prefix.starts_with("*.")))
    }
}

/// How much of `name` is what `prefix` means; `None` where it is not.
fn match_length(prefix: &str, name: &str) -> Option<usize> {
    if let Some(domain) = prefix.strip_prefix('*') {
        let host = &name[..name.find([':', '/', '@']).unwrap_or(name.len())];
        return (host.len() > domain.len() && host.ends_with(domain)).then_some(host.len());
    }
    let rest = name.strip_prefix(prefix)?;
    // After a host, `:` begins a port, which makes it another host.
    let separators: &[char] = if prefix.contains('/') { &['/', ':', '@'] } else { &['/'] };
    (rest.is_empty() || rest.starts_with(separators)).then_some(prefix.len())
}

fn rewritten(location: &str, rest: &str, rule: &Rule) -> Result<Reference, Error> {
    let name = format!("{location}{rest}");
    name.parse().map_err(|error: crate::oci::ReferenceError| Error::Conf {
        path: rule.file.to_path_buf(),
        line: None,
        reason: format!("the prefix `{}` makes `{name}`, which is no image's name: {}", rule.prefix, error.reason),
    })
}

/// Whether a file may say that a short name stands for `text`: with a registry, without tag and digest.
fn is_long_name(text: &str) -> bool {
    text.parse::<Reference>().is_ok_and(|name| !name.is_short() && name.digest().is_none() && name.name().ends_with(without_hub(text)))
}

fn without_hub(text: &str) -> &str {
    text.strip_prefix(DOCKER_HUB).and_then(|rest| rest.strip_prefix('/')).unwrap_or(text)
}

#[cfg(test)]
mod tests;
