//! What can go wrong between us and a registry.
//!
//! An error names the request (method and redacted URL) and keeps the registry's own codes. Whether trying again may help is decided here, where
//! the error is born ([`Error::is_retryable`]); what the user can do is data ([`Error::hint`]), not text inside the message.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use crate::diag::SafeUrl;
use crate::oci::Digest;

use super::credentials;

/// Why a call to a registry failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The registry (or a server that it sent us to) answered with an error.
    #[error(transparent)]
    Status(Box<StatusError>),
    /// No answer, or a broken one: name resolution, connection, TLS, HTTP.
    #[error("{method} {url}: {cause}")]
    Transport {
        /// The method.
        method: String,
        /// The URL.
        url: SafeUrl,
        /// What broke.
        cause: TransportCause,
        /// What the HTTP client says.
        #[source]
        source: reqwest::Error,
    },
    /// Nothing moved for too long.
    #[error("{method} {url}: nothing, or next to nothing, arrived for {} s", after.as_secs_f32())]
    Timeout {
        /// The method.
        method: String,
        /// The URL.
        url: SafeUrl,
        /// How long we waited.
        after: Duration,
    },
    /// The connection ended before the blob did.
    #[error("GET {url}: the connection was closed after {received} of {size} bytes")]
    Cut {
        /// The URL.
        url: SafeUrl,
        /// Bytes that have arrived.
        received: u64,
        /// Bytes that were promised.
        size: u64,
    },
    /// The bytes are not those that the digest names.
    #[error("{what} {expected} does not match its digest: received {actual}, {size} bytes, from {url}")]
    DigestMismatch {
        /// `blob` or `manifest`.
        what: &'static str,
        /// The digest that was asked for.
        expected: Box<Digest>,
        /// The digest of what arrived.
        actual: Box<Digest>,
        /// The size of what arrived.
        size: u64,
        /// Where it came from.
        url: SafeUrl,
    },
    /// The blob has another size than its descriptor says.
    #[error("blob {digest} has the wrong size: its descriptor says {expected} bytes, {url} sends {}{actual}", if *.at_least { "at least " } else { "" })]
    SizeMismatch {
        /// The blob.
        digest: Digest,
        /// The size in the descriptor.
        expected: u64,
        /// The size that was sent or announced.
        actual: u64,
        /// Whether there may be more.
        at_least: bool,
        /// Where it came from.
        url: SafeUrl,
    },
    /// A manifest or another document is larger than we are ready to hold.
    #[error("{url} is larger than {limit} bytes: refused")]
    TooLarge {
        /// The document.
        url: SafeUrl,
        /// The limit in bytes.
        limit: u64,
    },
    /// A header or document of the answer makes no sense.
    #[error("{url} sent {what} that cannot be used: `{value}`")]
    BadAnswer {
        /// Who sent it.
        url: SafeUrl,
        /// What it is.
        what: &'static str,
        /// The beginning of it.
        value: String,
    },
    /// More redirects than any sane registry needs.
    #[error("{url} was redirected more than {limit} times")]
    TooManyRedirects {
        /// The first URL.
        url: SafeUrl,
        /// The limit.
        limit: usize,
    },
    /// A redirect (or a token server) would leave TLS.
    #[error("{from} leads to {to}, which is not encrypted: refused")]
    Downgrade {
        /// The encrypted URL.
        from: SafeUrl,
        /// Where it leads.
        to: SafeUrl,
    },
    /// A list in pages that leads back to itself.
    #[error("{what} at {url} does not end: the registry sends the same page again")]
    EndlessPages {
        /// What it lists.
        what: &'static str,
        /// The page that came again.
        url: SafeUrl,
    },
    /// A list in more pages than any real one has.
    #[error("{what} at {url} does not end: {names} names came, and there is yet another page")]
    TooManyPages {
        /// What it lists.
        what: &'static str,
        /// The next page.
        url: SafeUrl,
        /// How many names came.
        names: usize,
    },
    /// What is to be uploaded cannot be read.
    #[error("cannot read blob {digest} in order to upload it")]
    Source {
        /// The blob.
        digest: Digest,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// What is to be uploaded has changed or ended early.
    #[error("blob {digest} has {actual} bytes instead of {expected}: it is not uploaded")]
    SourceSize {
        /// The blob.
        digest: Digest,
        /// The promised size.
        expected: u64,
        /// What the source gave.
        actual: u64,
    },
    /// The registry stored something else than we sent.
    #[error("{url} stored {actual} instead of {expected}")]
    StoredOther {
        /// Where it was sent.
        url: SafeUrl,
        /// What was sent.
        expected: Digest,
        /// What the registry says that it has.
        actual: String,
    },
    /// A registry's name that makes no URL.
    #[error("`{host}` is not a registry: expected a host name, with a port where needed")]
    BadHost {
        /// The name.
        host: String,
    },
    /// An option that cannot be used.
    #[error("the {option} `{value}` cannot be used")]
    BadOption {
        /// Which.
        option: &'static str,
        /// Its value.
        value: String,
    },
    /// This system has no root certificates, so no server can be trusted.
    #[error("no root certificates were found, so `{host}` cannot be trusted")]
    NoRootCertificates {
        /// The server.
        host: String,
    },
    /// A certificate or key of `certs.d` cannot be used.
    #[error("cannot use `{path}`: {reason}")]
    Certificate {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A file about registries says what means nothing.
    #[error("{}{}: {reason}", path.display(), line.map_or_else(String::new, |line| format!(":{line}")))]
    Conf {
        /// The file.
        path: PathBuf,
        /// The line, where it is known.
        line: Option<usize>,
        /// What is wrong.
        reason: String,
    },
    /// A file about registries cannot be read.
    #[error("cannot read `{}`", path.display())]
    ConfRead {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Somebody decided that this is not used.
    #[error("`{name}` is blocked: `{}` says so of `{prefix}`", path.display())]
    Blocked {
        /// What was asked for.
        name: String,
        /// What is blocked.
        prefix: String,
        /// The file that says so.
        path: PathBuf,
    },
    /// A short name that several registries may have, where they must not be tried.
    #[error("the short name `{name}` may be of any of the registries {}, and `short-name-mode` is `enforcing`", registries.join(", "))]
    Ambiguous {
        /// The name.
        name: String,
        /// The registries.
        registries: Vec<String>,
    },
    /// The program is ending.
    #[error("the program is ending, so the registry is no longer asked")]
    Stopped,
    /// The HTTP client cannot be set up.
    #[error("cannot set up the HTTP client")]
    Setup(#[source] reqwest::Error),
    /// Credentials that cannot be read, written or fetched.
    #[error(transparent)]
    Credentials(credentials::Error),
}

/// What broke below HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransportCause {
    /// No connection (name resolution, refused, unreachable, timed out).
    Connect,
    /// The server does not speak TLS.
    NotTls,
    /// The server's certificate or the TLS handshake.
    Tls,
    /// The server asked for a certificate of ours, and there it ended.
    Identity,
    /// The connection broke, or what arrived is not HTTP.
    Broken,
}

impl fmt::Display for TransportCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            TransportCause::Connect => "cannot connect",
            TransportCause::NotTls => "the server does not speak TLS",
            TransportCause::Tls => "the TLS connection failed",
            TransportCause::Identity => "the server asks for a client certificate, and took none or not the one it got",
            TransportCause::Broken => "the connection broke",
        })
    }
}

/// One of the registry's own error codes (distribution-spec 1.1, "Error Codes").
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegistryCode {
    /// `MANIFEST_UNKNOWN`, `DENIED`, …; empty where the registry gave none.
    pub code: String,
    /// The registry's words, shortened and without control characters.
    pub message: String,
}

/// An answer with an error status.
#[derive(Debug)]
pub struct StatusError {
    /// The method.
    pub method: String,
    /// The URL.
    pub url: SafeUrl,
    /// The HTTP status.
    pub status: u16,
    /// The registry's codes and messages.
    pub codes: Vec<RegistryCode>,
    /// The registry that was asked, as in a reference.
    pub registry: String,
    /// Whether we had credentials for it.
    pub had_credentials: bool,
    /// Why a credential helper that was asked gave none.
    pub helper_failure: Option<String>,
    /// What `Retry-After` asked for.
    pub retry_after: Option<Duration>,
}

impl fmt::Display for StatusError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.method, self.url, self.status)?;
        if self.codes.is_empty() {
            let reason = reqwest::StatusCode::from_u16(self.status).ok().and_then(|status| status.canonical_reason());
            return reason.map_or(Ok(()), |reason| write!(f, " {reason}"));
        }
        for (i, code) in self.codes.iter().enumerate() {
            f.write_str(if i == 0 { " " } else { "; " })?;
            match (code.code.is_empty(), code.message.is_empty()) {
                (false, false) => write!(f, "{}: {}", code.code, code.message)?,
                (false, true) => f.write_str(&code.code)?,
                (true, _) => f.write_str(&code.message)?,
            }
        }
        Ok(())
    }
}

impl std::error::Error for StatusError {}

impl Error {
    /// The HTTP status, where there was an answer.
    pub fn status(&self) -> Option<u16> {
        match self {
            Error::Status(error) => Some(error.status),
            _ => None,
        }
    }

    /// Whether the registry used `code` in its answer.
    pub fn has_code(&self, code: &str) -> bool {
        matches!(self, Error::Status(error) if error.codes.iter().any(|known| known.code == code))
    }

    /// Whether the thing that was asked for is not there.
    pub fn is_not_found(&self) -> bool {
        self.status() == Some(404)
    }

    /// Whether the registry wants (other) credentials.
    pub fn is_unauthorized(&self) -> bool {
        matches!(self.status(), Some(401 | 403))
    }

    /// Whether the same request may succeed a little later. The client has already tried as often as its [`RetryPolicy`](super::RetryPolicy) allows.
    pub fn is_retryable(&self) -> bool {
        match self {
            Error::Status(error) => matches!(error.status, 408 | 429 | 500 | 502 | 503 | 504),
            Error::Transport { cause, .. } => matches!(cause, TransportCause::Connect | TransportCause::Identity | TransportCause::Broken),
            Error::Timeout { .. } | Error::Cut { .. } => true,
            _ => false,
        }
    }

    /// What `Retry-After` asked for.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Error::Status(error) => error.retry_after,
            _ => None,
        }
    }

    /// What the user can do about it, where we know.
    pub fn hint(&self) -> Option<String> {
        match self {
            Error::Status(error) => status_hint(error),
            Error::Transport { cause: TransportCause::NotTls, .. } => {
                Some("it may speak plain HTTP: allow that for this registry with `--plain-http`".to_owned())
            }
            Error::Transport { cause: TransportCause::Tls, url, .. } => Some(format!(
                "if the registry's certificate comes from a private authority, put the authority's certificate in `certs.d/{}/ca.crt`",
                authority(url)
            )),
            Error::Transport { cause: TransportCause::Identity, url, .. } => {
                Some(format!("put the certificate and its key in `certs.d/{0}/client.cert` and `certs.d/{0}/client.key`", authority(url)))
            }
            Error::NoRootCertificates { .. } => {
                Some("install the package `ca-certificates`, or set SSL_CERT_FILE to a file with root certificates".to_owned())
            }
            Error::DigestMismatch { .. } | Error::SizeMismatch { .. } => {
                Some("the registry, or a proxy before it, serves damaged content".to_owned())
            }
            Error::Credentials(error) => error.hint(),
            Error::Ambiguous { name, registries } => {
                let example = registries.first().map_or_else(String::new, |registry| format!("`{registry}/{name}`, "));
                Some(format!("write the whole name, such as {example}or give it an alias in registries.conf"))
            }
            Error::Downgrade { to, .. } => Some(format!("`--plain-http {}` allows it", authority(to))),
            _ => None,
        }
    }
}

fn authority(url: &SafeUrl) -> String {
    let text = url.to_string();
    let rest = text.split_once("://").map_or(text.as_str(), |(_, rest)| rest);
    rest.split(['/', '?']).next().unwrap_or(rest).to_owned()
}

fn status_hint(error: &StatusError) -> Option<String> {
    let registry = &error.registry;
    match (error.status, &error.helper_failure) {
        (401 | 403, Some(reason)) if !error.had_credentials => Some(format!("no credentials for `{registry}` were found: {reason}")),
        _ => hint_of_status(error),
    }
}

fn hint_of_status(error: &StatusError) -> Option<String> {
    let registry = &error.registry;
    match error.status {
        401 | 403 if !error.had_credentials => Some(format!("no credentials for `{registry}` were found; run `strake login {registry}`")),
        401 => Some(format!("the credentials for `{registry}` were refused; run `strake login {registry}` again")),
        403 => Some(format!("the credentials for `{registry}` do not allow this")),
        404 => Some("check the spelling of the name and the tag; a private repository is also reported as missing".to_owned()),
        413 => Some("the registry, or a proxy before it, limits the size of uploads".to_owned()),
        429 => {
            let when = error.retry_after.map_or_else(|| "later".to_owned(), |after| format!("in {} s", after.as_secs()));
            let login = if error.had_credentials { String::new() } else { format!("; `strake login {registry}` may raise the limit") };
            Some(format!("the registry limits how often it may be asked: try again {when}{login}"))
        }
        _ => None,
    }
}

/// Text of a stranger, made fit for a message: one line, no control characters, at most `limit` characters.
pub(crate) fn tame(text: &str, limit: usize) -> String {
    let flat = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    let mut out: String = flat.clone().take(limit).collect();
    if flat.count() > limit {
        out.push('…');
    }
    out.trim().to_owned()
}

/// The codes in the body of an error answer. Markup is not shown: storage servers put signatures into it.
pub(super) fn parse_codes(body: &[u8], content_type: &str, scrub: impl Fn(&str) -> String) -> Vec<RegistryCode> {
    let code = |value: &serde_json::Value, message: &serde_json::Value| RegistryCode {
        code: tame(&scrub(value.as_str().unwrap_or("")), 60),
        message: tame(&scrub(message.as_str().unwrap_or("")), 300),
    };
    if let Ok(document) = serde_json::from_slice::<serde_json::Value>(body) {
        if let Some(errors) = document["errors"].as_array() {
            return errors.iter().take(5).map(|error| code(&error["code"], &error["message"])).collect();
        }
        for key in ["message", "details", "error_description", "error"] {
            if document[key].is_string() {
                return vec![code(&serde_json::Value::Null, &document[key])];
            }
        }
        return Vec::new();
    }
    let text = String::from_utf8_lossy(body);
    let text = tame(&scrub(&text), 200);
    if text.is_empty() || !content_type.starts_with("text/plain") {
        return Vec::new();
    }
    vec![RegistryCode { code: String::new(), message: text }]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(status: u16, body: &str) -> Error {
        Error::Status(Box::new(StatusError {
            method: "GET".into(),
            url: SafeUrl::new("https://ghcr.io/v2/acme/base/manifests/1.4"),
            status,
            codes: parse_codes(body.as_bytes(), "application/json", str::to_owned),
            registry: "ghcr.io".into(),
            had_credentials: false,
            helper_failure: None,
            retry_after: None,
        }))
    }

    #[test]
    fn status_errors_show_the_registrys_own_words_and_a_hint() {
        let error = status(401, r#"{"errors":[{"code":"UNAUTHORIZED","message":"authentication\nrequired"}]}"#);
        assert_eq!(error.to_string(), "GET https://ghcr.io/v2/acme/base/manifests/1.4: 401 UNAUTHORIZED: authentication required");
        assert_eq!(error.hint().unwrap(), "no credentials for `ghcr.io` were found; run `strake login ghcr.io`");
        assert!(error.is_unauthorized() && !error.is_retryable());
    }

    #[test]
    fn status_errors_without_codes_show_the_reason() {
        assert_eq!(status(502, "<html>").to_string(), "GET https://ghcr.io/v2/acme/base/manifests/1.4: 502 Bad Gateway");
        assert!(status(502, "").is_retryable());
        assert!(!status(501, "").is_retryable());
    }

    #[test]
    fn markup_of_storage_servers_is_not_shown() {
        assert_eq!(parse_codes(b"<Error><AWSAccessKeyId>AK</AWSAccessKeyId></Error>", "application/xml", str::to_owned), vec![]);
    }
}
