//! Variables: what each name stands for, and where.
//!
//! There are three scopes. *Global* (`ARG` before the first `FROM`, and the platform arguments) is seen by `FROM` lines only. A *stage* sees its own
//! `ARG`s and `ENV`s, in one list in which a later line wins (as BuildKit does for RUN); only `ENV` reaches the image. *Build arguments* give
//! values to names that are declared, and to the proxy variables, which need no declaration.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::oci::Platform;

use super::epoch::SOURCE_DATE_EPOCH;

/// Names and values in the order in which they were set first.
#[derive(Clone, Debug, Default)]
pub(super) struct Environment {
    vars: Vec<(String, String)>,
    index: HashMap<String, usize>,
}

impl Environment {
    /// Reads `NAME=value` entries; one without `=` is empty.
    pub(super) fn from_entries(entries: &[String]) -> Environment {
        let mut environment = Environment::default();
        for entry in entries {
            let (name, value) = entry.split_once('=').unwrap_or((entry, ""));
            environment.set(name, value);
        }
        environment
    }

    pub(super) fn set(&mut self, name: &str, value: &str) {
        match self.index.get(name) {
            Some(at) => value.clone_into(&mut self.vars[*at].1),
            None => {
                self.index.insert(name.to_owned(), self.vars.len());
                self.vars.push((name.to_owned(), value.to_owned()));
            }
        }
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.index.get(name).map(|at| self.vars[*at].1.as_str())
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.vars.iter().map(|(name, _)| name.as_str())
    }

    pub(super) fn vars(&self) -> &[(String, String)] {
        &self.vars
    }
}

/// The values of `--build-arg`, and which of them something asked for.
#[derive(Debug)]
pub(super) struct BuildArgs<'a> {
    values: &'a BTreeMap<String, String>,
    used: BTreeSet<String>,
}

impl<'a> BuildArgs<'a> {
    pub(super) fn new(values: &'a BTreeMap<String, String>) -> BuildArgs<'a> {
        BuildArgs { values, used: BTreeSet::new() }
    }

    pub(super) fn get(&mut self, name: &str) -> Option<&'a str> {
        let (name, value) = self.values.get_key_value(name)?;
        self.used.insert(name.clone());
        Some(value)
    }

    /// The names that nothing declared: they have no effect.
    pub(super) fn unused(&self) -> Vec<&'a str> {
        let known = |name: &str| self.used.contains(name) || is_proxy(name) || is_predefined(name);
        self.values.keys().map(String::as_str).filter(|name| !known(name)).collect()
    }

    /// The proxy variables, in both spellings, as every command gets them. Empty ones are not set.
    pub(super) fn proxy_env(&self) -> Vec<(String, String)> {
        let mut env = BTreeMap::new();
        for (name, value) in self.values.iter().filter(|(name, _)| is_proxy(name)) {
            env.insert(name.to_uppercase(), value.clone());
            env.insert(name.to_lowercase(), value.clone());
        }
        env.retain(|_, value| !value.is_empty());
        env.into_iter().collect()
    }

    /// What `BUILDKIT_CACHE_MOUNT_NS` puts before the names of cache mounts.
    pub(super) fn cache_namespace(&self) -> Option<&'a str> {
        self.setting("BUILDKIT_CACHE_MOUNT_NS")
    }

    /// The host name of steps, where `BUILDKIT_SANDBOX_HOSTNAME` gives one.
    pub(super) fn hostname(&self) -> Option<&'a str> {
        self.setting("BUILDKIT_SANDBOX_HOSTNAME")
    }

    fn setting(&self, name: &str) -> Option<&'a str> {
        self.values.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }
}

const PROXIES: &[&str] = &["HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY"];

/// Whether this is a proxy variable, which needs no `ARG`; in any case, as BuildKit has it.
fn is_proxy(name: &str) -> bool {
    PROXIES.iter().any(|proxy| name.eq_ignore_ascii_case(proxy))
}

/// Whether this is a name that the builder itself reads.
fn is_predefined(name: &str) -> bool {
    name.starts_with("BUILDKIT_") || name == SOURCE_DATE_EPOCH || PLATFORM_ARGS.contains(&name)
}

const PLATFORM_ARGS: &[&str] = &[
    "BUILDPLATFORM",
    "BUILDOS",
    "BUILDOSVERSION",
    "BUILDARCH",
    "BUILDVARIANT",
    "TARGETPLATFORM",
    "TARGETOS",
    "TARGETOSVERSION",
    "TARGETARCH",
    "TARGETVARIANT",
    "TARGETSTAGE",
];

/// The `ARG`s of a stage, each name once, in the order in which they came first.
#[derive(Clone, Debug, Default)]
pub(super) struct DeclaredArgs {
    /// Names, each with the value that it was declared with last.
    args: Vec<(String, Option<String>)>,
    index: HashMap<String, usize>,
}

impl DeclaredArgs {
    pub(super) fn declare(&mut self, name: &str, value: Option<String>) {
        match self.index.get(name) {
            Some(at) => self.args[*at].1 = value,
            None => {
                self.index.insert(name.to_owned(), self.args.len());
                self.args.push((name.to_owned(), value));
            }
        }
    }

    pub(super) fn contains(&self, name: &str) -> bool {
        self.index.contains_key(name)
    }

    pub(super) fn iter(&self) -> impl ExactSizeIterator<Item = (&str, Option<&str>)> {
        self.args.iter().map(|(name, value)| (name.as_str(), value.as_deref()))
    }
}

/// The platform arguments, which are global; `--build-arg` overrides them.
pub(super) fn platform_args(build: &Platform, target: &Platform, stage: &str, args: &mut BuildArgs<'_>) -> Environment {
    let mut environment = Environment::default();
    for (prefix, platform) in [("BUILD", build), ("TARGET", target)] {
        let values = [
            ("PLATFORM", platform.to_string()),
            ("OS", platform.os.clone()),
            ("OSVERSION", platform.os_version.clone().unwrap_or_default()),
            ("ARCH", platform.architecture.clone()),
            ("VARIANT", platform.variant.clone().unwrap_or_default()),
        ];
        for (name, value) in values {
            environment.set(&format!("{prefix}{name}"), &value);
        }
    }
    environment.set("TARGETSTAGE", stage);
    for name in PLATFORM_ARGS {
        if let Some(value) = args.get(name) {
            environment.set(name, value);
        }
    }
    environment
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn setting_again_keeps_the_place_and_changes_the_value() {
        let mut environment = Environment::from_entries(&["A=1".into(), "B=x=y".into(), "C".into()]);
        environment.set("A", "2");
        let expected = [("A", "2"), ("B", "x=y"), ("C", "")].map(|(n, v)| (n.to_owned(), v.to_owned()));
        assert_eq!(environment.vars(), expected);
    }

    #[test]
    fn proxies_are_never_unused_and_come_in_both_spellings() {
        let values = BTreeMap::from([("http_proxy".to_owned(), "p".to_owned()), ("X".to_owned(), "1".to_owned())]);
        let args = BuildArgs::new(&values);
        assert_eq!(args.unused(), ["X"]);
        assert_eq!(args.proxy_env(), [("HTTP_PROXY".to_owned(), "p".to_owned()), ("http_proxy".to_owned(), "p".to_owned())]);
    }
}
