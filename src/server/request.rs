//! Requests as they are served: the head, taken apart, and the body, which arrives.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Incoming};
use hyper::header::{AsHeaderName, CONTENT_LENGTH, CONTENT_TYPE, EXPECT};
use hyper::{HeaderMap, Method, StatusCode};

use super::metrics::Metrics;
use super::reply::Refusal;
use super::route::Query;

/// How long nothing may arrive in the middle of a body.
const IDLE: Duration = Duration::from_secs(60);

/// How much of a body that nobody wants is read, so that the client hears why: one that still writes when the connection is closed may not.
const DRAIN_LIMIT: usize = 64 << 20;
const DRAIN_TIME: Duration = Duration::from_secs(10);

/// The head of a request.
pub(super) struct Head {
    pub(super) method: Method,
    pub(super) query: Query,
    pub(super) headers: HeaderMap,
}

impl Head {
    /// A header as text, if it is there and is text.
    pub(super) fn header(&self, name: impl AsHeaderName) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The size of the body, where the client told it.
    pub(super) fn content_length(&self) -> Option<u64> {
        self.header(CONTENT_LENGTH)?.trim().parse().ok()
    }

    /// The type of the body, without parameters.
    pub(super) fn content_type(&self) -> Option<&str> {
        let kind = self.header(CONTENT_TYPE)?.split(';').next()?.trim();
        (!kind.is_empty()).then_some(kind)
    }
}

/// The body of a request.
pub(super) struct RequestBody {
    incoming: Incoming,
    metrics: Arc<Metrics>,
}

impl RequestBody {
    /// The body that `incoming` brings.
    pub(super) fn new(incoming: Incoming, metrics: Arc<Metrics>) -> RequestBody {
        RequestBody { incoming, metrics }
    }

    /// The next bytes; `None` at the end.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, Refusal> {
        loop {
            let frame = poll_fn(|context| Pin::new(&mut self.incoming).poll_frame(context));
            let cut = |what: &str| Refusal::new(StatusCode::BAD_REQUEST, "BLOB_UPLOAD_INVALID", what);
            match tokio::time::timeout(IDLE, frame).await {
                Err(_) => {
                    let message =
                        format!("nothing has arrived for {} s: what came before is kept, so ask for the range and go on", IDLE.as_secs());
                    return Err(Refusal::new(StatusCode::REQUEST_TIMEOUT, "BLOB_UPLOAD_INVALID", message));
                }
                Ok(None) => return Ok(None),
                Ok(Some(Err(_))) => return Err(cut("the request ended before its body did")),
                Ok(Some(Ok(frame))) => {
                    // Trailers say nothing here.
                    let Ok(bytes) = frame.into_data() else { continue };
                    self.metrics.received(bytes.len());
                    if !bytes.is_empty() {
                        return Ok(Some(bytes));
                    }
                }
            }
        }
    }

    /// All of it, if that is at most `limit` bytes.
    pub(super) async fn whole(&mut self, head: &Head, limit: usize) -> Result<Vec<u8>, Refusal> {
        let too_large = || {
            let message = format!("the manifest is larger than {limit} bytes");
            Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, "MANIFEST_INVALID", message)
        };
        if head.content_length().is_some_and(|length| length > limit as u64) {
            return Err(too_large());
        }
        let mut all = Vec::new();
        while let Some(bytes) = self.next().await? {
            if all.len() + bytes.len() > limit {
                return Err(too_large());
            }
            all.extend_from_slice(&bytes);
        }
        Ok(all)
    }

    /// Reads what is left and forgets it, within limits.
    pub(super) async fn drain(&mut self, head: &Head) {
        // Who waits for leave to send gets none, and sends nothing.
        if self.incoming.is_end_stream() || head.headers.contains_key(EXPECT) {
            return;
        }
        let _ = tokio::time::timeout(DRAIN_TIME, async {
            let mut left = DRAIN_LIMIT;
            while let Ok(Some(bytes)) = self.next().await {
                let Some(less) = left.checked_sub(bytes.len()) else { return };
                left = less;
            }
        })
        .await;
    }
}
