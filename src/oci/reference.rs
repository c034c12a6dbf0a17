//! References: the names of images (distribution-spec 1.1, "Pulling manifests"; Docker's short names).
//!
//! `debian` means `docker.io/library/debian:latest`, `index.docker.io` is `docker.io`, and messages show the name as it was written.
//!
//! The grammar is read by hand: that of `oci-spec` is a regular expression whose compilation takes 60 ms, ten times as long as a build that finds
//! everything in the cache. The tests compare the two.

use std::fmt;
use std::str::FromStr;

use super::Digest;

/// The registry of names without one.
pub const DOCKER_HUB: &str = "docker.io";

/// What follows the repository: a tag, a digest, or both (then the digest decides and the tag is decoration).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TagOrDigest {
    /// `:tag`.
    Tag(String),
    /// `@digest`, perhaps with a tag before it.
    Digest {
        /// The tag that was written before the digest.
        tag: Option<String>,
        /// What decides.
        digest: Digest,
    },
}

/// The full name of an image: registry, repository, and tag or digest.
///
/// Equality is that of the normalised name; the user's spelling is kept for messages only.
#[derive(Clone, Debug)]
pub struct Reference {
    registry: String,
    repository: String,
    target: TagOrDigest,
    written: String,
}

/// Why a string is not a reference.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not an image reference: {reason}")]
pub struct ReferenceError {
    /// What was written.
    pub text: String,
    /// What is wrong with it.
    pub reason: String,
}

impl Reference {
    /// The registry's host, with a port where one was given; `docker.io` for short names.
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// The repository, with `library/` before the single names of Docker Hub.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// Tag or digest.
    pub fn target(&self) -> &TagOrDigest {
        &self.target
    }

    /// The tag, where there is one.
    pub fn tag(&self) -> Option<&str> {
        match &self.target {
            TagOrDigest::Tag(tag) => Some(tag),
            TagOrDigest::Digest { tag, .. } => tag.as_deref(),
        }
    }

    /// The digest, where there is one.
    pub fn digest(&self) -> Option<&Digest> {
        match &self.target {
            TagOrDigest::Tag(_) => None,
            TagOrDigest::Digest { digest, .. } => Some(digest),
        }
    }

    /// Registry and repository, normalised: `docker.io/library/debian`.
    pub fn name(&self) -> String {
        format!("{}/{}", self.registry, self.repository)
    }

    /// The name as Docker shows it: without `docker.io/` and `library/`, without the tag.
    ///
    /// A repository of Docker Hub that would be taken for one of another registry (`docker.io/localhost/app`) keeps its registry, as it would not be the same name.
    pub fn familiar_name(&self) -> String {
        let begins_with_registry = || self.repository.split_once('/').is_some_and(|(first, _)| is_registry(first));
        if self.registry != DOCKER_HUB || begins_with_registry() {
            return self.name();
        }
        let short = self.repository.strip_prefix("library/").filter(|rest| !rest.contains('/'));
        short.unwrap_or(&self.repository).to_owned()
    }

    /// The name and tag as Docker shows them.
    pub fn familiar(&self) -> String {
        let name = self.familiar_name();
        match &self.target {
            TagOrDigest::Tag(tag) => format!("{name}:{tag}"),
            TagOrDigest::Digest { tag: Some(tag), digest } => format!("{name}:{tag}@{digest}"),
            TagOrDigest::Digest { tag: None, digest } => format!("{name}@{digest}"),
        }
    }

    /// Whether it was written without a registry (`debian`, `acme/app`), so that it means Docker Hub unless somebody decided otherwise.
    pub fn is_short(&self) -> bool {
        self.registry == DOCKER_HUB && split(&self.written).is_ok_and(|parts| !parts.qualified)
    }

    /// Whether neither tag nor digest was written (`debian`): where a command is about repositories, all of this one is meant.
    pub fn is_repository_alone(&self) -> bool {
        split(&self.written).is_ok_and(|parts| parts.tag.is_none() && parts.digest.is_none())
    }

    /// Whether it is written as IDs are (`sha256:0123…`), so that it must not be a name of anything else.
    pub fn is_like_digest(&self) -> bool {
        self.registry == DOCKER_HUB && matches!(self.repository.as_str(), "library/sha256" | "library/sha512")
    }

    /// The name as the user wrote it.
    pub fn written(&self) -> &str {
        &self.written
    }

    /// The same repository at `digest`.
    pub fn with_digest(&self, digest: Digest) -> Reference {
        let tag = self.tag().map(str::to_owned);
        Reference { target: TagOrDigest::Digest { tag, digest }, ..self.clone() }
    }

    /// This repository at the tag and digest of `other`.
    pub fn at_target_of(&self, other: &Reference) -> Reference {
        Reference { target: other.target.clone(), ..self.clone() }
    }

    /// Whether this is a reference: what parsing it says, without making one.
    pub fn check(text: &str) -> Result<(), ReferenceError> {
        parts(text)?.digest().map(drop)
    }

    /// Whether this is the name of a repository in some registry.
    pub fn is_repository(text: &str) -> bool {
        text.len() <= MAX_NAME && text.split('/').all(is_path_component)
    }

    /// Whether this is a tag.
    pub fn is_tag(text: &str) -> bool {
        is_tag(text)
    }

    /// `digest` in the same repository, without a tag.
    pub fn only_digest(&self, digest: Digest) -> Reference {
        Reference { target: TagOrDigest::Digest { tag: None, digest }, ..self.clone() }
    }
}

impl PartialEq for Reference {
    fn eq(&self, other: &Reference) -> bool {
        (&self.registry, &self.repository, &self.target) == (&other.registry, &other.repository, &other.target)
    }
}

impl Eq for Reference {}

impl std::hash::Hash for Reference {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        (&self.registry, &self.repository, &self.target).hash(state);
    }
}

impl PartialOrd for Reference {
    fn partial_cmp(&self, other: &Reference) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Reference {
    fn cmp(&self, other: &Reference) -> std::cmp::Ordering {
        (&self.registry, &self.repository, &self.target).cmp(&(&other.registry, &other.repository, &other.target))
    }
}

impl fmt::Display for Reference {
    /// The normalised name: `docker.io/library/debian:12`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        match &self.target {
            TagOrDigest::Tag(tag) => write!(f, ":{tag}"),
            TagOrDigest::Digest { tag, digest } => {
                if let Some(tag) = tag {
                    write!(f, ":{tag}")?;
                }
                write!(f, "@{digest}")
            }
        }
    }
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Reference, ReferenceError> {
        let parts = parts(text)?;
        let registry = match parts.registry {
            "index.docker.io" | "registry-1.docker.io" => DOCKER_HUB,
            other => other,
        };
        let mut repository = parts.repository.to_owned();
        if registry == DOCKER_HUB && !repository.contains('/') {
            repository.insert_str(0, "library/");
        }
        if registry.len() + 1 + repository.len() > MAX_NAME {
            return Err(ReferenceError {
                text: text.to_owned(),
                reason: format!("a name has at most {MAX_NAME} characters, with its registry"),
            });
        }
        let tag = parts.tag.map(str::to_owned);
        let target = match parts.digest()? {
            None => TagOrDigest::Tag(tag.unwrap_or_else(|| "latest".to_owned())),
            Some(digest) => TagOrDigest::Digest { tag, digest },
        };
        Ok(Reference { registry: registry.to_owned(), repository, target, written: text.to_owned() })
    }
}

/// A name taken apart; what is missing is as it is written, not as it is meant.
struct Parts<'a> {
    text: &'a str,
    registry: &'a str,
    /// Whether the registry was written.
    qualified: bool,
    repository: &'a str,
    tag: Option<&'a str>,
    digest: Option<&'a str>,
}

impl Parts<'_> {
    fn digest(&self) -> Result<Option<Digest>, ReferenceError> {
        let parsed = self.digest.map(str::parse).transpose();
        parsed.map_err(|error: super::DigestError| ReferenceError { text: self.text.to_owned(), reason: error.to_string() })
    }
}

/// Takes a name apart.
fn parts(text: &str) -> Result<Parts<'_>, ReferenceError> {
    let reason = if text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit() && !b.is_ascii_uppercase()) {
        "64 hexadecimal digits are an image ID, not a name".to_owned()
    } else {
        match split(text) {
            Ok(parts) => return Ok(parts),
            Err(reason) => reason,
        }
    };
    Err(ReferenceError { text: text.to_owned(), reason })
}

/// The longest name (registry and repository) that registries take.
const MAX_NAME: usize = 255;

/// Takes a name apart by the grammar of distribution's package `reference`.
fn split(text: &str) -> Result<Parts<'_>, String> {
    if text.is_empty() {
        return Err("it is empty".to_owned());
    }
    if text.bytes().any(|b| b.is_ascii_whitespace()) {
        return Err("it holds a blank".to_owned());
    }
    let (rest, digest) = match text.split_once('@') {
        Some((rest, digest)) => (rest, Some(digest)),
        None => (text, None),
    };
    // A colon after the last slash begins the tag; one before it is a port's.
    let last = rest.rfind('/').map_or(0, |at| at + 1);
    let (name, tag) = match rest[last..].split_once(':') {
        Some((_, tag)) => (&rest[..rest.len() - tag.len() - 1], Some(tag)),
        None => (rest, None),
    };
    let (registry, qualified, repository) = match name.split_once('/') {
        Some((registry, repository)) if is_registry(registry) => (registry, true, repository),
        _ => (DOCKER_HUB, false, name),
    };
    if !is_host(registry) {
        return Err(format!("`{registry}` is no host"));
    }
    if let Some(part) = repository.split('/').find(|part| !is_path_component(part)) {
        return Err(match part {
            "" => "a part of the repository's name is empty".to_owned(),
            part if part.bytes().any(|b| b.is_ascii_uppercase()) => "a repository's name is in lower case".to_owned(),
            part => {
                format!("`{part}` is no part of a repository's name: use a-z and 0-9, with single `.`, `_`, `__` or dashes between them")
            }
        });
    }
    if let Some(tag) = tag.filter(|tag| !is_tag(tag)) {
        return Err(format!("`{tag}` is no tag: use up to 128 letters, digits, `_`, `.` and `-`, not beginning with `.` or `-`"));
    }
    Ok(Parts { text, registry, qualified, repository, tag, digest })
}

/// Whether what stands before the first slash of a name is a registry, and not the beginning of a repository of Docker Hub.
fn is_registry(part: &str) -> bool {
    part.contains(['.', ':']) || part == "localhost" || part.bytes().any(|b| b.is_ascii_uppercase())
}

/// Whether this is a host name or address, perhaps with a port.
fn is_host(text: &str) -> bool {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !text.ends_with(']') => (host, Some(port)),
        _ => (text, None),
    };
    if port.is_some_and(|port| port.is_empty() || !port.bytes().all(|b| b.is_ascii_digit())) {
        return false;
    }
    if let Some(address) = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        return !address.is_empty() && address.bytes().all(|b| b.is_ascii_hexdigit() || b == b':');
    }
    let label = |label: &str| {
        let inside = label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        !label.is_empty() && inside && !label.starts_with('-') && !label.ends_with('-')
    };
    host.split('.').all(label)
}

/// Whether this is one part of a repository's name: runs of a-z and 0-9, joined by `.`, `_`, `__` or dashes.
fn is_path_component(part: &str) -> bool {
    let word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = part.as_bytes();
    let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else { return false };
    if !word(*first) || !word(*last) {
        return false;
    }
    let separators = bytes.split(|b| word(*b)).filter(|separator| !separator.is_empty());
    separators.into_iter().all(|separator| matches!(separator, b"." | b"_" | b"__") || separator.iter().all(|b| *b == b'-'))
}

fn is_tag(tag: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    tag.len() <= 128 && tag.bytes().next().is_some_and(word) && tag.bytes().all(|b| word(b) || b == b'.' || b == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, normal: &str) {
        let reference: Reference = text.parse().unwrap();
        assert_eq!(reference.to_string(), normal);
        assert_eq!(reference.written(), text);
    }

    #[test]
    fn names_are_normalised_as_docker_does() {
        check("debian", "docker.io/library/debian:latest");
        check("debian:12", "docker.io/library/debian:12");
        check("acme/app", "docker.io/acme/app:latest");
        check("index.docker.io/library/debian", "docker.io/library/debian:latest");
        check("localhost/app", "localhost/app:latest");
        check("localhost:5000/a/b/c:1.2-x", "localhost:5000/a/b/c:1.2-x");
        check("127.0.0.1:5000/app", "127.0.0.1:5000/app:latest");
        check("ghcr.io/acme/app", "ghcr.io/acme/app:latest");
        let digest = Digest::sha256(b"x");
        check(&format!("debian@{digest}"), &format!("docker.io/library/debian@{digest}"));
        check(&format!("debian:12@{digest}"), &format!("docker.io/library/debian:12@{digest}"));
    }

    #[test]
    fn bad_names_are_refused_with_a_reason() {
        for text in ["", "Debian", "a b", "-a", "debian:", "debian:a/b", "debian@sha256:12", "ghcr.io/Acme/app", "a//b"] {
            let error = text.parse::<Reference>().unwrap_err();
            assert!(!error.reason.is_empty(), "{text}");
        }
        assert!(Digest::sha256(b"").hex().parse::<Reference>().is_err());
    }

    #[test]
    fn familiar_names_drop_the_hub() {
        let familiar = |text: &str| text.parse::<Reference>().unwrap().familiar();
        assert_eq!(familiar("docker.io/library/debian:12"), "debian:12");
        assert_eq!(familiar("acme/app"), "acme/app:latest");
        assert_eq!(familiar("localhost:5000/app"), "localhost:5000/app:latest");
        // Without it they would be names of other registries.
        assert_eq!(familiar("docker.io/localhost/app"), "docker.io/localhost/app:latest");
        assert_eq!(familiar("docker.io/e.x/app"), "docker.io/e.x/app:latest");
    }

    #[test]
    fn long_names_and_strange_hosts_are_refused() {
        for text in
            ["a:1:2", "5_k.6/d", "host:x/a", "-h.io/a", "h.io:/a", "a..b", "a___b", "a_", "[::g]/a", &format!("h.io/{}", "a".repeat(260))]
        {
            assert!(text.parse::<Reference>().is_err(), "{text}");
        }
        // The limit is that of the whole name, so that it can be written in full.
        assert!("a".repeat(255 - "docker.io/library/".len()).parse::<Reference>().is_ok());
        assert!("a".repeat(256 - "docker.io/library/".len()).parse::<Reference>().is_err());
        assert_eq!("[::1]:5000/a--b__c.d".parse::<Reference>().unwrap().registry(), "[::1]:5000");
        assert!(format!("a:{}", "t".repeat(129)).parse::<Reference>().is_err());
    }

    proptest::proptest! {
        /// The grammar of `oci-spec` is the oracle for what is a reference and how it is taken apart. Left out is what it takes for a repository of the Hub and
        /// Docker for a host: a first part with capitals, and one with a dot or a port and a `_`, which no host has.
        #[test]
        fn the_grammar_is_that_of_oci_spec(text in "([a-z0-9.-]{1,6}(:[0-9]{0,3})?/)?[a-z0-9._-]{0,5}(/[a-zA-Z0-9._-]{0,5}){0,2}(:[a-zA-Z0-9._-]{0,4})?") {
            let first = text.split_once('/').map_or("", |(first, _)| first);
            proptest::prop_assume!(!(first.contains('_') && first.contains(['.', ':'])));
            let ours = text.parse::<Reference>();
            match text.parse::<oci_spec::distribution::Reference>() {
                Ok(theirs) => {
                    let ours = ours.unwrap_or_else(|error| panic!("{error}"));
                    proptest::prop_assert_eq!(ours.repository(), theirs.repository());
                    proptest::prop_assert_eq!(ours.registry(), theirs.registry());
                    proptest::prop_assert_eq!(ours.tag(), theirs.tag());
                }
                Err(_) => proptest::prop_assert!(ours.is_err(), "{} was taken", text),
            }
        }
    }
}
