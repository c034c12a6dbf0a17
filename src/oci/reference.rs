//! References: the names of images (distribution-spec 1.1, "Pulling manifests"; Docker's short names).
//!
//! `oci-spec` has the grammar; this type adds what a user of Docker expects around it: `debian` means
//! `docker.io/library/debian:latest`, `index.docker.io` is `docker.io`, and messages show the name as it was written.

use std::fmt;
use std::str::FromStr;

use oci_spec::distribution::Reference as Grammar;

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
    pub fn familiar_name(&self) -> String {
        if self.registry != DOCKER_HUB {
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

    /// The name as the user wrote it.
    pub fn written(&self) -> &str {
        &self.written
    }

    /// The same repository at `digest`.
    pub fn with_digest(&self, digest: Digest) -> Reference {
        let tag = self.tag().map(str::to_owned);
        Reference { target: TagOrDigest::Digest { tag, digest }, ..self.clone() }
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
        let bad = |reason: &str| ReferenceError { text: text.to_owned(), reason: reason.to_owned() };
        if text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit() && !b.is_ascii_uppercase()) {
            return Err(bad("64 hexadecimal digits are an image ID, not a name"));
        }
        if let Some((registry, repository, tag)) = plain(text) {
            return Ok(Reference::normalised(registry, repository, TagOrDigest::Tag(tag.unwrap_or("latest").to_owned()), text));
        }
        let parsed: Grammar = text.parse().map_err(|error| bad(&explain(text, &error)))?;
        let tag = parsed.tag().map(str::to_owned);
        let target = match parsed.digest() {
            None => TagOrDigest::Tag(tag.unwrap_or_else(|| "latest".to_owned())),
            Some(digest) => {
                let digest = digest.parse().map_err(|error: super::DigestError| bad(&error.to_string()))?;
                TagOrDigest::Digest { tag, digest }
            }
        };
        Ok(Reference::normalised(parsed.registry(), parsed.repository(), target, text))
    }
}

impl Reference {
    fn normalised(registry: &str, repository: &str, target: TagOrDigest, written: &str) -> Reference {
        let registry = match registry {
            "index.docker.io" | "registry-1.docker.io" => DOCKER_HUB,
            other => other,
        };
        let mut repository = repository.to_owned();
        if registry == DOCKER_HUB && !repository.contains('/') {
            repository.insert_str(0, "library/");
        }
        Reference { registry: registry.to_owned(), repository, target, written: written.to_owned() }
    }
}

/// Registry, repository and tag of a name as nearly all are; `None` leaves it to the grammar, whose regular expression takes milliseconds to compile.
fn plain(text: &str) -> Option<(&str, &str, Option<&str>)> {
    let (name, tag) = match text.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
        _ => (text, None),
    };
    let word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    // Words with single separators between them.
    let part = |part: &str| part.split(['.', '_', '-']).all(|piece| !piece.is_empty() && piece.bytes().all(word));
    let good_tag = |tag: &str| {
        let first = tag.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        first && tag.len() <= 128 && tag.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-'))
    };
    let (registry, repository) = match name.split_once('/') {
        Some((host, rest)) if host.contains(['.', ':']) || host == "localhost" => (host, rest),
        _ => (DOCKER_HUB, name),
    };
    let (host, port) = registry.split_once(':').unwrap_or((registry, "0"));
    let good_port = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    let good =
        name.len() <= 128 && tag.is_none_or(good_tag) && good_port && part(host) && !host.contains('_') && repository.split('/').all(part);
    good.then_some((registry, repository, tag))
}

/// Says what is wrong with a name in the words of its grammar.
fn explain(text: &str, error: &oci_spec::distribution::ParseError) -> String {
    if text.is_empty() {
        return "it is empty".to_owned();
    }
    if text.bytes().any(|b| b.is_ascii_whitespace()) {
        return "it holds a blank".to_owned();
    }
    let path = text.split_once('/').map_or(text, |(_, rest)| rest);
    if path.split([':', '@']).next().unwrap_or(path).bytes().any(|b| b.is_ascii_uppercase()) {
        return "a repository's name is in lower case".to_owned();
    }
    error.to_string()
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
    fn plain_names_mean_what_the_grammar_says() {
        let names = [
            "a",
            "a/b",
            "a.b/c",
            "localhost/a",
            "localhost:5/a/b",
            "a:1",
            "a/b:T_x.-",
            "x.y:80/q-r/s_t:v",
            "docker.io/a",
            "1.2.3.4:5/a",
            "a:80/b",
        ];
        for text in names {
            let (registry, repository, tag) = plain(text).unwrap();
            let grammar: Grammar = text.parse().unwrap();
            let short = grammar.repository().strip_prefix("library/").filter(|_| !repository.contains("library/"));
            let expected = (grammar.registry(), short.unwrap_or(grammar.repository()), tag);
            assert_eq!((registry, repository, tag), expected, "{text}");
            assert_eq!(grammar.tag(), Some(tag.unwrap_or("latest")), "{text}");
        }
        for text in [
            "",
            "A",
            "a//b",
            "a--b",
            "a:",
            "a:/b",
            "-a",
            "a_/b",
            "a:b:c",
            "a@sha256:1",
            ":5/a",
            "a.b:/c",
            "x_y.z/a",
            "a/b:t/c",
            ".a",
            "a:-x",
        ] {
            assert!(plain(text).is_none(), "{text}");
        }
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
    }
}
