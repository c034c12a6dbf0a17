//! Blobs that are there: read, looked for, deleted (distribution-spec 1.1, "Pulling blobs", "Deleting Blobs").

use hyper::header::{
    ACCEPT_RANGES, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, HeaderValue, IF_NONE_MATCH, IF_RANGE, RANGE,
};
use hyper::{Method, StatusCode};

use crate::oci::Digest;

use super::super::body::{FilePart, ReplyBody};
use super::super::mirror::Found;
use super::super::range::{self, Part};
use super::super::reply::{CONTENT_DIGEST, Refusal, Reply};
use super::super::request::Head;
use super::Service;

/// What a digest names never changes.
const FOREVER: &str = "max-age=31536000, immutable";

/// `GET` and `HEAD` of `/v2/NAME/blobs/DIGEST`.
pub(super) async fn get(service: &Service, name: &str, digest: &Digest, head: &Head) -> Result<Reply, Refusal> {
    let missing = || Refusal::unknown_blob(&digest.to_string());
    let is_head = head.method == Method::HEAD;
    if let Some(mirror) = &service.mirror {
        let found = if is_head { mirror.blob_size(name, digest).await?.map(Found::Size) } else { mirror.blob(name, digest).await? };
        return serve(service, found.ok_or_else(missing)?, digest, head);
    }
    let (name, wanted) = (name.to_owned(), digest.clone());
    let found = service
        .with_storage(move |storage| {
            if is_head {
                return Ok(storage.rely_on_blob(&name, &wanted)?.map(Found::Size));
            }
            Ok(storage.blob(&name, &wanted)?.map(Found::Blob))
        })
        .await?;
    serve(service, found.ok_or_else(missing)?, digest, head)
}

fn serve(service: &Service, found: Found, digest: &Digest, head: &Head) -> Result<Reply, Refusal> {
    let size = found.size();
    let etag = format!("\"{digest}\"");
    let reply = |status| {
        let reply = Reply::empty(status).with(CONTENT_DIGEST, &digest.to_string()).with(ETAG, &etag);
        reply.with(ACCEPT_RANGES, "bytes").with(CACHE_CONTROL, FOREVER)
    };
    if matches(head.header(IF_NONE_MATCH), &etag) {
        return Ok(reply(StatusCode::NOT_MODIFIED));
    }
    // Another entity than the client has the beginning of: it gets all of this one. Ranges are GET's alone (RFC 9110, 14.2).
    let counts = head.method == Method::GET && head.header(IF_RANGE).is_none_or(|tag| tag.trim() == etag);
    let part = range::requested(head.header(RANGE).filter(|_| counts), size);
    let (start, end, mut reply) = match part {
        Part::Whole => (0, size, reply(StatusCode::OK)),
        Part::Bytes(start, end) => {
            let range = format!("bytes {start}-{}/{size}", end - 1);
            (start, end, reply(StatusCode::PARTIAL_CONTENT).with(CONTENT_RANGE, &range))
        }
        Part::Unsatisfiable => {
            let message = format!("the blob has {size} bytes, and none of them is in the range");
            let refusal = Refusal::new(StatusCode::RANGE_NOT_SATISFIABLE, "SIZE_INVALID", message);
            return Err(refusal.with(CONTENT_RANGE, &format!("bytes */{size}")));
        }
    };
    reply = reply.with(CONTENT_TYPE, "application/octet-stream");
    reply.headers.insert(CONTENT_LENGTH, HeaderValue::from(end - start));
    reply.body = match found {
        Found::Size(_) => ReplyBody::Empty,
        Found::Blob(blob) => ReplyBody::File(FilePart::new(blob.file, start, end, service.buffers.clone())),
        Found::Arriving(arriving) => ReplyBody::Pieces(arriving.read(start, end), end - start),
    };
    Ok(reply)
}

/// Whether a list of entity tags names this one.
pub(super) fn matches(header: Option<&str>, etag: &str) -> bool {
    header.is_some_and(|list| list.split(',').map(str::trim).any(|tag| tag == "*" || tag.trim_start_matches("W/") == etag))
}

/// `DELETE /v2/NAME/blobs/DIGEST`.
pub(super) async fn delete(service: &Service, name: &str, digest: &Digest) -> Result<Reply, Refusal> {
    let (name, wanted) = (name.to_owned(), digest.clone());
    if service.with_storage(move |storage| storage.delete_blob(&name, &wanted)).await? {
        Ok(Reply::empty(StatusCode::ACCEPTED).with(CONTENT_DIGEST, &digest.to_string()))
    } else {
        Err(Refusal::unknown_blob(&digest.to_string()))
    }
}
