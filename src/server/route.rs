//! What a path asks for (distribution-spec 1.1, "Endpoints").
//!
//! Names of repositories hold slashes and may hold the words of the API (`a/blobs/b`), so paths are read from their end.

use crate::oci::{Digest, Reference};

use super::reply::Refusal;

/// A manifest by its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// What the tag points to.
    Tag(String),
    /// The manifest with this digest.
    Digest(Digest),
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Target::Tag(tag) => f.write_str(tag),
            Target::Digest(digest) => digest.fmt(f),
        }
    }
}

/// What a path stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Route {
    /// Whether this is a registry.
    Base,
    /// What Prometheus reads.
    Metrics,
    /// The repositories.
    Catalog,
    /// The tags of a repository.
    Tags(String),
    /// A manifest.
    Manifest(String, Target),
    /// A blob.
    Blob(String, Digest),
    /// Where uploads begin.
    Uploads(String),
    /// An upload that has begun.
    Upload(String, String),
    /// The manifests that are about another.
    Referrers(String, Digest),
    /// Nothing that we have.
    Unknown,
}

impl Route {
    /// Reads a path as it came, still encoded.
    pub(super) fn parse(path: &str) -> Result<Route, Refusal> {
        let Some(path) = decoded(path) else { return Ok(Route::Unknown) };
        match path.as_str() {
            "/v2" | "/v2/" => return Ok(Route::Base),
            "/metrics" => return Ok(Route::Metrics),
            "/v2/_catalog" | "/v2/_catalog/" => return Ok(Route::Catalog),
            _ => {}
        }
        let Some(rest) = path.strip_prefix("/v2/") else { return Ok(Route::Unknown) };
        let parts: Vec<&str> = rest.split('/').collect();
        let name = |parts: &[&str]| -> Result<String, Refusal> {
            let name = parts.join("/");
            if Reference::is_repository(&name) { Ok(name) } else { Err(Refusal::bad_name(&name)) }
        };
        match parts.as_slice() {
            [repository @ .., "tags", "list"] if !repository.is_empty() => Ok(Route::Tags(name(repository)?)),
            [repository @ .., "blobs", "uploads"] | [repository @ .., "blobs", "uploads", ""] if !repository.is_empty() => {
                Ok(Route::Uploads(name(repository)?))
            }
            [repository @ .., "blobs", "uploads", id] if !repository.is_empty() => Ok(Route::Upload(name(repository)?, (*id).to_owned())),
            [repository @ .., "blobs", digest] if !repository.is_empty() => Ok(Route::Blob(name(repository)?, parse_digest(digest)?)),
            [repository @ .., "referrers", digest] if !repository.is_empty() => {
                Ok(Route::Referrers(name(repository)?, parse_digest(digest)?))
            }
            [repository @ .., "manifests", target] if !repository.is_empty() => {
                Ok(Route::Manifest(name(repository)?, parse_target(target)?))
            }
            _ => Ok(Route::Unknown),
        }
    }

    /// The route without names, for metrics.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Route::Base => "base",
            Route::Metrics => "metrics",
            Route::Catalog => "catalog",
            Route::Tags(_) => "tags",
            Route::Manifest(..) => "manifest",
            Route::Blob(..) => "blob",
            Route::Uploads(_) => "uploads",
            Route::Upload(..) => "upload",
            Route::Referrers(..) => "referrers",
            Route::Unknown => "unknown",
        }
    }
}

/// Reads a digest.
pub(super) fn parse_digest(text: &str) -> Result<Digest, Refusal> {
    text.parse().map_err(|error: crate::oci::DigestError| Refusal::bad_digest(error.to_string()))
}

fn parse_target(text: &str) -> Result<Target, Refusal> {
    if text.contains(':') {
        return parse_digest(text).map(Target::Digest);
    }
    // What is no tag is only wrong where somebody wants to make it one: nothing can be there.
    Ok(Target::Tag(text.to_owned()))
}

/// Replaces `%3A` by `:`; `None` where that is malformed or no text.
fn decoded(path: &str) -> Option<String> {
    let mut parts = path.split('%');
    let mut bytes = parts.next()?.as_bytes().to_vec();
    for part in parts {
        let hex = part.get(..2).filter(|hex| hex.bytes().all(|byte| byte.is_ascii_hexdigit()))?;
        bytes.push(u8::from_str_radix(hex, 16).ok()?);
        bytes.extend_from_slice(&part.as_bytes()[2..]);
    }
    String::from_utf8(bytes).ok()
}

/// The parameters of a request.
#[derive(Clone, Debug, Default)]
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    /// Reads what stands after `?`.
    pub(super) fn parse(text: Option<&str>) -> Query {
        Query(url::form_urlencoded::parse(text.unwrap_or_default().as_bytes()).into_owned().collect())
    }

    /// The first value of a parameter.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// All values of a parameter.
    pub(super) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(path: &str, route: Route) {
        assert_eq!(Route::parse(path).map_err(|_| "refused").unwrap(), route, "{path}");
    }

    #[test]
    fn paths_are_read_from_their_end() {
        let digest = Digest::sha256(b"x");
        check("/v2/", Route::Base);
        check("/v2/a/b/tags/list", Route::Tags("a/b".into()));
        check("/v2/tags/list/tags/list", Route::Tags("tags/list".into()));
        check("/v2/a/manifests/v1", Route::Manifest("a".into(), Target::Tag("v1".into())));
        check(&format!("/v2/a/manifests/{digest}"), Route::Manifest("a".into(), Target::Digest(digest.clone())));
        check(&format!("/v2/a/blobs/b/blobs/{digest}"), Route::Blob("a/blobs/b".into(), digest.clone()));
        check(&format!("/v2/a/blobs/sha256%3A{}", digest.hex()), Route::Blob("a".into(), digest.clone()));
        check("/v2/a/manifests/.x", Route::Manifest("a".into(), Target::Tag(".x".into())));
        check("/v2/a/blobs/uploads/", Route::Uploads("a".into()));
        check("/v2/a/blobs/uploads", Route::Uploads("a".into()));
        check("/v2/a/blobs/uploads/x", Route::Upload("a".into(), "x".into()));
        check(&format!("/v2/a/referrers/{digest}"), Route::Referrers("a".into(), digest));
        for path in ["/", "/v1/", "/v2/a", "/v2/tags/list", "/v2/a/tags", "/v2/a/b/c", "/v2/%zz/tags/list", "/v2/_catalog/x"] {
            check(path, Route::Unknown);
        }
    }

    #[test]
    fn bad_names_digests_and_tags_are_refused() {
        for path in [
            "/v2/A/tags/list",
            "/v2/../tags/list",
            "/v2/a//b/tags/list",
            "/v2/a/blobs/sha256:12",
            "/v2/a/blobs/md5:d41d8cd98f00b204e9800998ecf8427e",
            "/v2/a/manifests/sha256:totallywrong",
            "/v2/a/referrers/x",
        ] {
            assert!(Route::parse(path).is_err(), "{path}");
        }
        assert!(Route::parse(&format!("/v2/{}/tags/list", "a".repeat(256))).is_err());
    }
}
