//! What the server answers: replies and refusals (distribution-spec 1.1, "Error Codes").

use std::fmt::Write as _;

use bytes::Bytes;
use hyper::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::{HeaderMap, StatusCode};
use serde_json::{Value, json};

use super::Error;
use super::body::ReplyBody;

/// The digest of what a reply is about.
pub(super) const CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");
/// Which protocol this is.
pub(super) const API_VERSION: HeaderName = HeaderName::from_static("docker-distribution-api-version");
/// The subject of the manifest that was stored.
pub(super) const OCI_SUBJECT: HeaderName = HeaderName::from_static("oci-subject");
/// The filters of the list of referrers.
pub(super) const OCI_FILTERS: HeaderName = HeaderName::from_static("oci-filters-applied");
/// The tags that were set.
pub(super) const OCI_TAG: HeaderName = HeaderName::from_static("oci-tag");
/// The name of an upload.
pub(super) const UPLOAD_UUID: HeaderName = HeaderName::from_static("docker-upload-uuid");

/// An answer.
pub(super) struct Reply {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: ReplyBody,
}

impl Reply {
    /// A reply without a body.
    pub(super) fn empty(status: StatusCode) -> Reply {
        let mut reply = Reply { status, headers: HeaderMap::new(), body: ReplyBody::Empty };
        if status != StatusCode::NO_CONTENT && status != StatusCode::NOT_MODIFIED {
            reply.headers.insert(CONTENT_LENGTH, HeaderValue::from(0));
        }
        reply
    }

    /// A reply with a document.
    pub(super) fn document(status: StatusCode, media_type: &str, bytes: impl Into<Bytes>) -> Reply {
        let bytes = bytes.into();
        let mut reply = Reply::empty(status).with(CONTENT_TYPE, media_type);
        reply.headers.insert(CONTENT_LENGTH, HeaderValue::from(bytes.len()));
        reply.body = ReplyBody::whole(bytes);
        reply
    }

    /// A reply with JSON.
    pub(super) fn json(status: StatusCode, value: &Value) -> Reply {
        Reply::document(status, "application/json", value.to_string())
    }

    /// Adds a header. What HTTP does not allow in one is left out.
    pub(super) fn with(mut self, name: HeaderName, value: &str) -> Reply {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.headers.append(name, value);
        }
        self
    }
}

/// A request that is not done, and why.
pub(super) struct Refusal {
    status: StatusCode,
    code: &'static str,
    message: String,
    detail: Value,
    headers: HeaderMap,
    /// What went wrong on our side.
    cause: Option<Error>,
}

impl Refusal {
    /// A refusal with one of the codes of the specification.
    pub(super) fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Refusal {
        Refusal { status, code, message: message.into(), detail: Value::Null, headers: HeaderMap::new(), cause: None }
    }

    /// Adds what a program can use.
    pub(super) fn detail(mut self, detail: Value) -> Refusal {
        self.detail = detail;
        self
    }

    /// Adds a header.
    pub(super) fn with(mut self, name: HeaderName, value: &str) -> Refusal {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.headers.insert(name, value);
        }
        self
    }

    /// What went wrong on our side, if anything did, with all causes.
    pub(super) fn problem(&self) -> Option<String> {
        let mut text = self.cause.as_ref()?.to_string();
        let mut cause = std::error::Error::source(self.cause.as_ref()?);
        while let Some(error) = cause {
            let _ = write!(text, ": {error}");
            cause = error.source();
        }
        Some(text)
    }

    /// The repository's name is not one.
    pub(super) fn bad_name(name: &str) -> Refusal {
        let message =
            format!("`{name}` is no name of a repository: use a-z and 0-9 with single `.`, `_`, `__` or dashes between them, and `/`");
        Refusal::new(StatusCode::BAD_REQUEST, "NAME_INVALID", message)
    }

    /// There is no such repository.
    pub(super) fn unknown_name(name: &str) -> Refusal {
        Refusal::new(StatusCode::NOT_FOUND, "NAME_UNKNOWN", format!("there is no repository `{name}`")).detail(json!({ "name": name }))
    }

    /// The digest is not one.
    pub(super) fn bad_digest(reason: impl Into<String>) -> Refusal {
        Refusal::new(StatusCode::BAD_REQUEST, "DIGEST_INVALID", reason)
    }

    /// There is no such blob in the repository.
    pub(super) fn unknown_blob(digest: &str) -> Refusal {
        let message = format!("there is no blob {digest} in this repository");
        Refusal::new(StatusCode::NOT_FOUND, "BLOB_UNKNOWN", message).detail(json!({ "digest": digest }))
    }

    /// There is no such manifest in the repository.
    pub(super) fn unknown_manifest(name: &str, reference: &str) -> Refusal {
        let message = format!("there is no manifest `{reference}` in `{name}`");
        Refusal::new(StatusCode::NOT_FOUND, "MANIFEST_UNKNOWN", message).detail(json!({ "name": name, "reference": reference }))
    }

    /// There is no such upload.
    pub(super) fn unknown_upload() -> Refusal {
        let message = "there is no such upload in this repository: it has ended, was cancelled, or has expired";
        Refusal::new(StatusCode::NOT_FOUND, "BLOB_UPLOAD_UNKNOWN", message)
    }

    /// The server does not do this.
    pub(super) fn unsupported(message: impl Into<String>) -> Refusal {
        Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "UNSUPPORTED", message)
    }

    /// The answer that tells of it.
    pub(super) fn reply(self) -> Reply {
        let mut error = json!({ "code": self.code, "message": self.message });
        if !self.detail.is_null() {
            error["detail"] = self.detail;
        }
        let mut reply = Reply::json(self.status, &json!({ "errors": [error] }));
        reply.headers.extend(self.headers);
        reply
    }
}

impl From<Error> for Refusal {
    /// What is our own fault: the client is told no more than that, except where its user can do something about it.
    fn from(error: Error) -> Refusal {
        let (status, message) = if error.is_full_disk() {
            (StatusCode::INSUFFICIENT_STORAGE, "no space is left on the registry's disk")
        } else {
            (StatusCode::INTERNAL_SERVER_ERROR, "the registry has a problem of its own; its log says which")
        };
        Refusal { cause: Some(error), ..Refusal::new(status, "UNKNOWN", message) }
    }
}
