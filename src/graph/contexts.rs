//! Named contexts (`--build-context NAME=…`): what takes the place of stages and images of that name.
//!
//! Names are compared as image names, in their short form and without `:latest`, so that `debian`, `docker.io/library/debian` and `debian:latest` are one. A
//! name may be for one platform only (`debian::linux/arm64`), which goes before the name for all. The graph knows of a directory only that there is one: the engine opens it.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use crate::oci::{Platform, PlatformError, Reference, ReferenceError};

use super::op::RemoteTree;

/// The name of a named context.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ContextName {
    name: String,
    platform: Option<Platform>,
}

/// Why a string cannot be the name of a context.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ContextNameError {
    /// It is no image name.
    #[error(transparent)]
    Name(#[from] ReferenceError),
    /// What follows `::` is no platform.
    #[error(transparent)]
    Platform(#[from] PlatformError),
}

impl FromStr for ContextName {
    type Err = ContextNameError;

    fn from_str(text: &str) -> Result<ContextName, ContextNameError> {
        let (name, platform) = match text.split_once("::") {
            Some((name, platform)) => (name, Some(platform.parse()?)),
            None => (text, None),
        };
        Ok(ContextName { name: normal(&name.parse()?), platform })
    }
}

impl ContextName {
    /// The name alone.
    pub(super) fn name(&self) -> &str {
        &self.name
    }
}

impl fmt::Display for ContextName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        match &self.platform {
            Some(platform) => write!(f, "::{platform}"),
            None => Ok(()),
        }
    }
}

/// What a named context holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NamedContext {
    /// A directory of this machine.
    Directory,
    /// An image (`docker-image://`).
    Image(Reference),
    /// An image in a directory (`oci-layout://`).
    Layout,
    /// Nothing (`docker-image://scratch`).
    Scratch,
    /// Files of a git repository or from a web server.
    Remote(RemoteTree),
}

/// The named contexts of a build.
#[derive(Clone, Debug, Default)]
pub struct NamedContexts {
    by_name: BTreeMap<ContextName, NamedContext>,
    /// Where the build context itself is, if it is not on this machine.
    main: Option<RemoteTree>,
}

impl NamedContexts {
    /// No named contexts.
    pub const NONE: &'static NamedContexts = &NamedContexts { by_name: BTreeMap::new(), main: None };

    /// The same, with a build context that is not on this machine.
    pub fn with_main(self, main: Option<RemoteTree>) -> NamedContexts {
        NamedContexts { main, ..self }
    }

    /// Where the build context itself is, if it is not on this machine.
    pub(super) fn main(&self) -> Option<&RemoteTree> {
        self.main.as_ref()
    }

    /// Adds a context; one of the same name is replaced.
    pub fn insert(&mut self, name: ContextName, context: NamedContext) {
        self.by_name.insert(name, context);
    }

    /// The name of the context that is called `name`, for whatever platform.
    pub fn called(&self, name: &str) -> Option<String> {
        let wanted: ContextName = name.parse().ok()?;
        self.by_name.keys().find(|known| known.name == wanted.name).map(ToString::to_string)
    }

    /// The names, in order; one that is given for several platforms, so often.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.by_name.keys().map(ContextName::name)
    }

    /// Whether no name is one of a context.
    pub(super) fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }

    /// The context that takes the place of `name` on `platform`, if there is one.
    pub(super) fn find(&self, name: &Reference, platform: &Platform) -> Option<(&ContextName, &NamedContext)> {
        // These two words have a meaning of their own.
        if self.is_empty() || ["scratch", "context"].iter().any(|word| name.written().eq_ignore_ascii_case(word)) {
            return None;
        }
        let name = normal(name);
        let of = |platform| self.by_name.get_key_value(&ContextName { name: name.clone(), platform });
        of(Some(platform.normalised())).or_else(|| of(None))
    }
}

impl FromIterator<(ContextName, NamedContext)> for NamedContexts {
    fn from_iter<I: IntoIterator<Item = (ContextName, NamedContext)>>(contexts: I) -> NamedContexts {
        NamedContexts { by_name: contexts.into_iter().collect(), main: None }
    }
}

fn normal(name: &Reference) -> String {
    let familiar = name.familiar();
    familiar.strip_suffix(":latest").map_or(familiar.clone(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_compared_as_short_image_names() {
        let contexts: NamedContexts = [
            ("docker.io/library/debian:latest".parse().unwrap(), NamedContext::Directory),
            ("alpine:3".parse().unwrap(), NamedContext::Scratch),
            ("alpine:3::linux/arm64".parse().unwrap(), NamedContext::Layout),
        ]
        .into_iter()
        .collect();
        let find =
            |name: &str, platform: &str| contexts.find(&name.parse().unwrap(), &platform.parse().unwrap()).map(|found| found.1.clone());
        assert_eq!(find("debian", "linux/amd64"), Some(NamedContext::Directory));
        assert_eq!(find("docker.io/library/debian", "linux/amd64"), Some(NamedContext::Directory));
        assert_eq!(find("debian:12", "linux/amd64"), None);
        assert_eq!(find("alpine", "linux/amd64"), None);
        assert_eq!(find("alpine:3", "linux/amd64"), Some(NamedContext::Scratch));
        assert_eq!(find("alpine:3", "linux/arm64/v8"), Some(NamedContext::Layout));
    }

    #[test]
    fn the_words_with_a_meaning_of_their_own_are_never_replaced() {
        let contexts: NamedContexts =
            ["scratch", "context"].map(|name| (name.parse().unwrap(), NamedContext::Directory)).into_iter().collect();
        for name in ["scratch", "context"] {
            assert_eq!(contexts.find(&name.parse().unwrap(), &Platform::host()), None);
        }
    }

    #[test]
    fn what_is_no_image_name_is_no_context_name() {
        for name in ["", "Upper", "a b", "a::x/y/z/w", "::linux/amd64"] {
            assert!(name.parse::<ContextName>().is_err(), "{name}");
        }
    }
}
