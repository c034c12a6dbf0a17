//! Uploads: in one request, in two, in chunks, as a stream, or mounted from elsewhere (distribution-spec 1.1, "Pushing blobs").
//!
//! Nothing is held in memory: what arrives goes through a short queue to a thread that writes and hashes. What came before a cut stays, so that the client can ask how far
//! it got and go on.

use bytes::Bytes;
use hyper::StatusCode;
use hyper::header::{CONTENT_RANGE, LOCATION, RANGE};
use tokio::sync::mpsc;

use crate::oci::{Algorithm, Digest};
use crate::task::blocking;

use super::super::range;
use super::super::reply::{CONTENT_DIGEST, Refusal, Reply, UPLOAD_UUID};
use super::super::request::{Head, RequestBody};
use super::super::route::parse_digest;
use super::super::storage::{Opened, Upload, UploadId};
use super::Service;

/// Pieces that wait for the disk; each has some kilobytes.
const QUEUE: usize = 32;

/// `POST /v2/NAME/blobs/uploads/`: begins an upload, takes a whole blob (`digest`), or mounts one (`mount`, `from`).
pub(super) async fn begin(service: &Service, name: &str, head: &Head, body: &mut RequestBody) -> Result<Reply, Refusal> {
    if let Some(mount) = head.query.get("mount") {
        let digest = parse_digest(mount)?;
        let (target, wanted, from) = (name.to_owned(), digest.clone(), head.query.get("from").map(str::to_owned));
        if service.with_storage(move |storage| storage.mount_blob(&target, &wanted, from.as_deref())).await? {
            return Ok(created(name, &digest));
        }
    } else if let Some(text) = head.query.get("digest") {
        let digest = parse_digest(text)?;
        let upload = new_upload(service, name, digest.algorithm()).await?;
        let upload = match receive(upload, body).await {
            (upload, Ok(())) => upload,
            (upload, Err(refusal)) => {
                // Nobody knows its name, so nobody can go on.
                service.with_storage(move |storage| storage.cancel_upload(*upload)).await?;
                return Err(refusal);
            }
        };
        return commit(service, name, upload, digest).await;
    }
    let algorithm = match head.query.get("digest-algorithm") {
        None | Some("sha256") => Algorithm::Sha256,
        Some("sha512") => Algorithm::Sha512,
        Some(other) => return Err(Refusal::bad_digest(format!("the algorithm `{other}` is unknown: use `sha256` or `sha512`"))),
    };
    let upload = new_upload(service, name, algorithm).await?;
    let reply = progress(Reply::empty(StatusCode::ACCEPTED), name, upload.id(), 0);
    service.storage.pause_upload(*upload);
    Ok(reply)
}

/// `PATCH /v2/NAME/blobs/uploads/ID`: adds a chunk, or a stream of unknown length.
pub(super) async fn patch(service: &Service, name: &str, id: &str, head: &Head, body: &mut RequestBody) -> Result<Reply, Refusal> {
    let upload = open(service, name, id, Algorithm::Sha256).await?;
    let upload = append(service, name, upload, head, body).await?;
    let reply = progress(Reply::empty(StatusCode::ACCEPTED), name, upload.id(), upload.length());
    service.storage.pause_upload(*upload);
    Ok(reply)
}

/// `PUT /v2/NAME/blobs/uploads/ID?digest=DIGEST`: adds the last chunk, if there is one, and makes a blob of all.
pub(super) async fn finish(service: &Service, name: &str, id: &str, head: &Head, body: &mut RequestBody) -> Result<Reply, Refusal> {
    let missing = || Refusal::bad_digest("the parameter `digest` is missing: it says what the upload is to become");
    let digest = parse_digest(head.query.get("digest").ok_or_else(missing)?)?;
    let upload = open(service, name, id, digest.algorithm()).await?;
    let upload = append(service, name, upload, head, body).await?;
    commit(service, name, upload, digest).await
}

/// `GET /v2/NAME/blobs/uploads/ID`: tells how far an upload has come.
pub(super) async fn status(service: &Service, name: &str, id: &str) -> Result<Reply, Refusal> {
    let id: UploadId = id.parse().map_err(|()| Refusal::unknown_upload())?;
    let (repository, wanted) = (name.to_owned(), id.clone());
    let length = service.with_storage(move |storage| storage.upload_length(&repository, &wanted)).await?;
    Ok(progress(Reply::empty(StatusCode::NO_CONTENT), name, &id, length.ok_or_else(Refusal::unknown_upload)?))
}

/// `DELETE /v2/NAME/blobs/uploads/ID`: gives an upload up.
pub(super) async fn cancel(service: &Service, name: &str, id: &str) -> Result<Reply, Refusal> {
    let upload = open(service, name, id, Algorithm::Sha256).await?;
    service.with_storage(move |storage| storage.cancel_upload(*upload)).await?;
    Ok(Reply::empty(StatusCode::NO_CONTENT))
}

async fn new_upload(service: &Service, name: &str, algorithm: Algorithm) -> Result<Box<Upload>, Refusal> {
    let name = name.to_owned();
    Ok(service.with_storage(move |storage| storage.begin_upload(&name, algorithm)).await?)
}

async fn open(service: &Service, name: &str, id: &str, algorithm: Algorithm) -> Result<Box<Upload>, Refusal> {
    let id: UploadId = id.parse().map_err(|()| Refusal::unknown_upload())?;
    let name = name.to_owned();
    match service.with_storage(move |storage| storage.open_upload(&name, &id, algorithm)).await? {
        Opened::Upload(upload) => Ok(upload),
        Opened::Busy => Err(Refusal::new(StatusCode::CONFLICT, "BLOB_UPLOAD_INVALID", "another request writes to this upload")),
        Opened::Unknown => Err(Refusal::unknown_upload()),
    }
}

/// Adds the body of a request to an upload, if it belongs where the upload has come to.
async fn append(service: &Service, name: &str, upload: Box<Upload>, head: &Head, body: &mut RequestBody) -> Result<Box<Upload>, Refusal> {
    let start = upload.length();
    let announced = match head.header(CONTENT_RANGE) {
        None => None,
        Some(header) => match range::of_chunk(header) {
            Some((first, length)) if first == start => Some(length),
            _ => {
                let message = format!("the chunk `{header}` does not belong here: the next byte is {start}");
                let refusal = Refusal::new(StatusCode::RANGE_NOT_SATISFIABLE, "BLOB_UPLOAD_INVALID", message);
                let refusal = refusal.with(LOCATION, &location(name, upload.id())).with(RANGE, &so_far(start));
                service.storage.pause_upload(*upload);
                return Err(refusal);
            }
        },
    };
    let wrong_size = |length: u64, announced: u64| {
        let message = format!("the chunk has {length} bytes, and its range {announced}");
        Refusal::new(StatusCode::BAD_REQUEST, "SIZE_INVALID", message)
    };
    if let (Some(announced), Some(length)) = (announced, head.content_length())
        && announced != length
    {
        service.storage.pause_upload(*upload);
        return Err(wrong_size(length, announced));
    }
    let (upload, outcome) = receive(upload, body).await;
    let length = upload.length() - start;
    if let (Ok(()), Some(announced)) = (&outcome, announced)
        && announced != length
    {
        blocking(move || {
            let mut upload = upload;
            upload.truncate(start)
        })
        .await?;
        return Err(wrong_size(length, announced));
    }
    match outcome {
        Ok(()) => Ok(upload),
        Err(refusal) => {
            service.storage.pause_upload(*upload);
            Err(refusal)
        }
    }
}

/// Writes a body to an upload. What came before something went wrong is in it.
async fn receive(upload: Box<Upload>, body: &mut RequestBody) -> (Box<Upload>, Result<(), Refusal>) {
    let (sender, mut receiver) = mpsc::channel::<Bytes>(QUEUE);
    // Where this request is dropped in the middle, the queue ends, and with it the writing.
    let writer = crate::task::spawn_blocking(move || {
        let mut upload = upload;
        let mut outcome = Ok(());
        while let Some(bytes) = receiver.blocking_recv() {
            outcome = upload.write(&bytes);
            if outcome.is_err() {
                break;
            }
        }
        (upload, outcome)
    });
    let received = loop {
        match body.next().await {
            Ok(None) => break Ok(()),
            Ok(Some(bytes)) => {
                if sender.send(bytes).await.is_err() {
                    // The writer has stopped, and tells why.
                    break Ok(());
                }
            }
            Err(refusal) => break Err(refusal),
        }
    };
    drop(sender);
    let (upload, written) = blocking_result(writer).await;
    (upload, written.map_err(Refusal::from).and(received))
}

/// The value of blocking work that was begun elsewhere; a panic of the work goes on here.
async fn blocking_result<T>(work: tokio::task::JoinHandle<T>) -> T {
    match work.await {
        Ok(value) => value,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => std::future::pending().await,
        },
    }
}

async fn commit(service: &Service, name: &str, upload: Box<Upload>, digest: Digest) -> Result<Reply, Refusal> {
    let wanted = digest.clone();
    match service.with_storage(move |storage| storage.commit_upload(*upload, &wanted)).await? {
        None => Ok(created(name, &digest)),
        Some(actual) => {
            Err(Refusal::bad_digest(format!("the upload does not match its digest: {digest} was announced, {actual} has arrived")))
        }
    }
}

fn created(name: &str, digest: &Digest) -> Reply {
    let reply = Reply::empty(StatusCode::CREATED).with(LOCATION, &format!("/v2/{name}/blobs/{digest}"));
    reply.with(CONTENT_DIGEST, &digest.to_string())
}

fn location(name: &str, id: &UploadId) -> String {
    format!("/v2/{name}/blobs/uploads/{}", id.as_str())
}

/// The header `Range` of an upload. Nothing yet is `0-0` too, as everybody writes it.
fn so_far(length: u64) -> String {
    format!("0-{}", length.saturating_sub(1))
}

/// Adds where an upload goes on, and how far it has come.
fn progress(reply: Reply, name: &str, id: &UploadId, length: u64) -> Reply {
    reply.with(LOCATION, &location(name, id)).with(RANGE, &so_far(length)).with(UPLOAD_UUID, id.as_str())
}
