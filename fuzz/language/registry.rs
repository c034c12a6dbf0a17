//! What the client reads in headers, without the client.

#![allow(dead_code, reason = "the client uses the rest")]

#[path = "../../src/registry/auth/challenge.rs"]
mod challenge;
#[path = "../../src/registry/headers.rs"]
mod headers;
#[path = "../../src/registry/auth/scope.rs"]
mod scope;

use scope::Scope;

/// The next page of a `Link`.
pub fn next_link(header: &str) -> Option<&str> {
    headers::next_link(header)
}

/// Start and total of a `Content-Range`.
pub fn content_range(header: &str) -> Option<(u64, Option<u64>)> {
    headers::content_range(header)
}

/// How much of an upload is there.
pub fn upload_range(header: &str) -> Option<u64> {
    headers::upload_range(header)
}

/// The text of a `Warning`.
pub fn warning(header: &str) -> Option<String> {
    headers::warning(header)
}

/// The challenges in a header, as the client understands them.
pub fn challenges(header: &str) -> Vec<String> {
    challenge::parse_challenges(std::iter::once(header)).iter().map(|challenge| format!("{challenge:?}")).collect()
}
