//! Values that must not be shown: secrets, and URLs that may hold one.

use std::fmt;

/// A value that `Debug` does not show. Take it out with [`Secret::expose`], at the place that sends it.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Secret<T>(T);

impl<T> Secret<T> {
    /// Wraps a secret.
    pub fn new(value: T) -> Secret<T> {
        Secret(value)
    }

    /// The secret itself.
    pub fn expose(&self) -> &T {
        &self.0
    }
}

impl<T> fmt::Debug for Secret<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

/// A URL for messages: without user, password, and the values of its query (signed URLs carry keys there).
#[derive(Clone, PartialEq, Eq)]
pub struct SafeUrl(String);

impl SafeUrl {
    /// Redacts `url`.
    pub fn new(url: &str) -> SafeUrl {
        let (base, query) = url.split_once('?').map_or((url, None), |(base, query)| (base, Some(query)));
        let base = match base.split_once("://") {
            Some((scheme, rest)) => {
                let (authority, path) = rest.split_once('/').map_or((rest, None), |(a, p)| (a, Some(p)));
                let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
                match path {
                    Some(path) => format!("{scheme}://{host}/{path}"),
                    None => format!("{scheme}://{host}"),
                }
            }
            None => base.to_owned(),
        };
        let Some(query) = query else { return SafeUrl(base) };
        let shown: Vec<String> = query.split('&').map(shown_pair).collect();
        SafeUrl(format!("{base}?{}", shown.join("&")))
    }
}

/// Query parameters that say what was asked for and are never secret.
const HARMLESS: &[&str] = &["scope", "service", "mount", "from", "digest", "n", "last", "ns", "artifactType", "tag", "offline_token"];

fn shown_pair(pair: &str) -> String {
    match pair.split_once('=') {
        Some((key, _)) if !HARMLESS.contains(&key) => format!("{key}=…"),
        _ => pair.to_owned(),
    }
}

impl fmt::Display for SafeUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for SafeUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_do_not_print() {
        assert_eq!(format!("{:?}", Secret::new("hunter2")), "[redacted]");
    }

    #[test]
    fn urls_lose_passwords_and_signatures() {
        let url = SafeUrl::new("https://user:pw@host:1/v2/x?X-Amz-Signature=abc&scope=repository:x:pull");
        assert_eq!(url.to_string(), "https://host:1/v2/x?X-Amz-Signature=…&scope=repository:x:pull");
    }
}
