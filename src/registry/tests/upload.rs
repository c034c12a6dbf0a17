//! Uploads against a registry in memory, with faults.

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use bytes::Bytes;

use crate::oci::Digest;
use crate::registry::{BlobSource, BlobUpload, ByteStream, Error, MountOutcome, Uploaded};

use super::content;
use super::server::{Answer, Asked, Server, client};

/// The registry's side: blobs and sessions.
#[derive(Default)]
struct Memory {
    blobs: Mutex<HashMap<String, Vec<u8>>>,
    sessions: Mutex<HashMap<String, Vec<u8>>>,
}

impl Memory {
    fn blob(&self, content: &[u8]) -> Option<Vec<u8>> {
        self.blobs.lock().unwrap().get(&Digest::sha256(content).to_string()).cloned()
    }

    /// What a registry of distribution-spec 1.1 answers.
    fn answer(&self, asked: &Asked) -> Answer {
        let (path, query) = asked.path.split_once('?').unwrap_or((&asked.path, ""));
        let query: HashMap<String, String> = url::form_urlencoded::parse(query.as_bytes()).into_owned().collect();
        if let Some(digest) = path.strip_prefix("/v2/a/b/blobs/sha256:") {
            let found = self.blobs.lock().unwrap().contains_key(&format!("sha256:{digest}"));
            return Answer::new(if found { 200 } else { 404 });
        }
        let mut sessions = self.sessions.lock().unwrap();
        if asked.is("POST", "/v2/a/b/blobs/uploads/") {
            let id = format!("/v2/a/b/blobs/uploads/{}", sessions.len());
            sessions.insert(id.clone(), Vec::new());
            return Answer::new(202).header("Location", format!("{id}?_state=opaque%2Fvalue"));
        }
        assert_eq!(query.get("_state").map(String::as_str), Some("opaque/value"), "the query of a location is kept");
        let Some(session) = sessions.get_mut(path) else { return Answer::new(404) };
        let range = format!("0-{}", session.len().saturating_sub(1));
        let location = format!("{path}?_state=opaque%2Fvalue");
        match asked.method.as_str() {
            "GET" => Answer::new(204).header("Location", location).header("Range", range),
            "PATCH" => {
                let start: usize = asked.header("content-range").unwrap().split('-').next().unwrap().parse().unwrap();
                if start != session.len() {
                    return Answer::new(416);
                }
                session.extend_from_slice(&asked.body);
                Answer::new(202).header("Location", location).header("Range", format!("0-{}", session.len() - 1))
            }
            "PUT" => {
                session.extend_from_slice(&asked.body);
                let digest = Digest::sha256(session).to_string();
                if Some(&digest) != query.get("digest") {
                    return Answer::new(400).body(r#"{"errors":[{"code":"DIGEST_INVALID"}]}"#);
                }
                self.blobs.lock().unwrap().insert(digest.clone(), session.clone());
                sessions.remove(path);
                Answer::new(201).header("Docker-Content-Digest", digest)
            }
            other => panic!("{other}"),
        }
    }
}

async fn registry(fault: impl Fn(&Asked) -> Option<Answer> + Send + Sync + 'static) -> (Server, Arc<Memory>) {
    let memory = Arc::new(Memory::default());
    let shared = memory.clone();
    let server = Server::start(move |asked| fault(asked).unwrap_or_else(|| shared.answer(asked))).await;
    (server, memory)
}

fn upload(content: &[u8]) -> BlobUpload {
    BlobUpload {
        digest: Digest::sha256(content),
        size: content.len() as u64,
        source: Arc::new(Bytes::copy_from_slice(content)),
        mount_from: None,
        progress: None,
    }
}

async fn send(server: &Server, content: &[u8]) -> Result<Uploaded, Error> {
    client().upload_blob(&server.reference("a/b"), &upload(content)).await
}

#[tokio::test]
async fn a_blob_is_sent_in_one_put() {
    for length in [0, 1, 500_000] {
        let content = content(length);
        let (server, memory) = registry(|_| None).await;
        assert_eq!(send(&server, &content).await.unwrap(), Uploaded::Sent);
        assert_eq!(memory.blob(&content).unwrap(), content);
        assert_eq!(server.log().iter().map(|asked| asked.method.as_str()).collect::<Vec<_>>(), ["POST", "PUT"]);
        assert_eq!(server.log()[1].header("content-length"), Some(length.to_string().as_str()));
    }
}

#[tokio::test]
async fn a_blob_that_is_there_is_not_sent() {
    let content = content(1000);
    let (server, memory) = registry(|_| None).await;
    let reference = server.reference("a/b");
    assert!(!client().blob_exists(&reference, &Digest::sha256(&content)).await.unwrap());
    assert_eq!(client().ensure_blob(&reference, &upload(&content)).await.unwrap(), Uploaded::Sent);
    assert!(client().blob_exists(&reference, &Digest::sha256(&content)).await.unwrap());
    assert_eq!(client().ensure_blob(&reference, &upload(&content)).await.unwrap(), Uploaded::Existed);
    assert_eq!(server.count("PUT", "/"), 1);
    assert!(memory.blob(&content).is_some());
}

#[tokio::test]
async fn a_registry_that_cannot_be_asked_gets_the_blob() {
    let content = content(1000);
    for status in [405, 501] {
        let (server, memory) = registry(move |asked| (asked.method == "HEAD").then(|| Answer::new(status))).await;
        assert_eq!(client().ensure_blob(&server.reference("a/b"), &upload(&content)).await.unwrap(), Uploaded::Sent, "{status}");
        assert!(memory.blob(&content).is_some());
    }
}

#[tokio::test]
async fn a_cut_upload_is_resumed_where_the_registry_stands() {
    let content = content(500_000);
    let (server, memory) = registry(|_| None).await;
    server.cut_upload_after(200_000);
    server.cut_upload_after(100_000);
    assert_eq!(send(&server, &content).await.unwrap(), Uploaded::Sent);
    assert_eq!(memory.blob(&content).unwrap(), content);
    // HEAD asks whether only the answer was lost; whether it comes depends on what the socket had taken.
    let log: Vec<Asked> = server.log().into_iter().filter(|asked| asked.method != "HEAD").collect();
    let methods: Vec<&str> = log.iter().map(|asked| asked.method.as_str()).collect();
    assert_eq!(methods, ["POST", "PUT", "GET", "PATCH", "GET", "PATCH", "PUT"]);
    assert_eq!(log[5].header("content-range"), Some("300000-499999"));
}

#[tokio::test]
async fn a_registry_that_refuses_patch_gets_everything_again() {
    let content = content(500_000);
    for status in [400, 404, 405, 501] {
        let (server, memory) = registry(move |asked| (asked.method == "PATCH").then(|| Answer::new(status))).await;
        server.cut_upload_after(200_000);
        assert_eq!(send(&server, &content).await.unwrap(), Uploaded::Sent, "{status}");
        assert_eq!(memory.blob(&content).unwrap(), content);
        assert_eq!((server.count("PATCH", "/"), server.count("POST", "/")), (1, 2));
    }
}

#[tokio::test]
async fn a_session_that_is_gone_is_begun_again() {
    let content = content(100_000);
    let (server, memory) = registry(|asked| (asked.method == "GET").then(|| Answer::new(404))).await;
    server.cut_upload_after(50_000);
    assert_eq!(send(&server, &content).await.unwrap(), Uploaded::Sent);
    assert_eq!(memory.blob(&content).unwrap(), content);
    assert_eq!(server.count("POST", "/"), 2);
}

#[tokio::test]
async fn a_piece_that_is_out_of_place_is_put_right() {
    let content = content(100_000);
    let refused = AtomicU64::new(0);
    let (server, memory) =
        registry(move |asked| (asked.method == "PATCH" && refused.fetch_add(1, SeqCst) == 0).then(|| Answer::new(416))).await;
    server.cut_upload_after(50_000);
    assert_eq!(send(&server, &content).await.unwrap(), Uploaded::Sent);
    assert_eq!(memory.blob(&content).unwrap(), content);
}

#[tokio::test]
async fn a_busy_registry_is_asked_again() {
    let content = content(100_000);
    let busy = AtomicU64::new(0);
    let (server, memory) = registry(move |asked| (asked.method == "PUT" && busy.fetch_add(1, SeqCst) < 2).then(|| Answer::new(503))).await;
    assert_eq!(send(&server, &content).await.unwrap(), Uploaded::Sent);
    assert_eq!(memory.blob(&content).unwrap(), content);
}

#[tokio::test]
async fn an_upload_whose_answer_was_lost_is_not_repeated() {
    let content = content(100_000);
    let (server, memory) = registry(|_| None).await;
    server.cut_upload_after(content.len());
    assert_eq!(send(&server, &content).await.unwrap(), Uploaded::Sent);
    assert!(memory.blob(&content).is_some());
    assert_eq!(server.count("PUT", "/"), 1);
}

#[tokio::test]
async fn an_upload_that_is_always_cut_is_given_up() {
    let content = content(100_000);
    let (server, _) = registry(|asked| (asked.method == "GET").then(|| Answer::new(404))).await;
    for _ in 0..50 {
        server.cut_upload_after(50_000);
    }
    let error = send(&server, &content).await.unwrap_err();
    assert!(error.is_retryable(), "{error}");
    assert_eq!(server.count("PUT", "/"), 5);
}

#[tokio::test]
async fn a_registry_that_refuses_for_good_is_not_asked_again() {
    let content = content(1000);
    for status in [401, 403] {
        let (server, _) = registry(move |asked| (asked.method == "PUT").then(|| Answer::new(status))).await;
        assert_eq!(send(&server, &content).await.unwrap_err().status(), Some(status));
        assert_eq!(server.count("PUT", "/"), 1);
    }
    let (server, _) = registry(|asked| (asked.method == "PUT").then(|| Answer::new(413))).await;
    assert!(send(&server, &content).await.unwrap_err().hint().unwrap().contains("limits the size"));
}

#[tokio::test]
async fn large_blobs_go_in_pieces_where_whole_ones_are_refused() {
    let content = content((32 << 20) + 1000);
    let (server, memory) = registry(|asked| (asked.method == "PUT" && asked.body.len() > 32 << 20).then(|| Answer::new(413))).await;
    assert_eq!(send(&server, &content).await.unwrap(), Uploaded::Sent);
    assert!(memory.blob(&content).unwrap() == content);
    assert_eq!(server.count("PATCH", "/"), 2);
}

#[tokio::test]
async fn progress_counts_every_byte_once() {
    let content = content(500_000);
    let (server, _) = registry(|_| None).await;
    server.cut_upload_after(200_000);
    let seen = Arc::new(AtomicU64::new(0));
    let counter = seen.clone();
    let progress: crate::registry::Progress = Arc::new(move |delta| {
        counter.fetch_add(delta, SeqCst);
    });
    let upload = BlobUpload { progress: Some(progress), ..upload(&content) };
    client().upload_blob(&server.reference("a/b"), &upload).await.unwrap();
    assert_eq!(seen.load(SeqCst), 500_000);
}

/// A source that gives fewer bytes than promised, or none.
struct Broken(Option<usize>);

impl BlobSource for Broken {
    fn open_at(&self, _: u64) -> io::Result<ByteStream> {
        let Some(length) = self.0 else { return Err(io::Error::from(io::ErrorKind::PermissionDenied)) };
        Ok(Box::pin(futures_util::stream::iter([Ok(Bytes::from(vec![0; length]))])))
    }
}

#[tokio::test]
async fn a_source_that_fails_ends_the_upload_at_once() {
    let (server, _) = registry(|_| None).await;
    for length in [None, Some(10)] {
        let upload = BlobUpload { source: Arc::new(Broken(length)), ..upload(&content(1000)) };
        let error = client().upload_blob(&server.reference("a/b"), &upload).await.unwrap_err();
        match length {
            None => assert!(matches!(error, Error::Source { .. }), "{error}"),
            Some(_) => assert!(matches!(error, Error::SourceSize { expected: 1000, actual: 10, .. }), "{error}"),
        }
    }
}

#[tokio::test]
async fn a_file_is_uploaded_from_any_offset() {
    let content = content(700_000);
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("blob"), &content).unwrap();
    let (server, memory) = registry(|_| None).await;
    server.cut_upload_after(300_001);
    let source = Arc::new(crate::registry::FileSource::new(folder.path().join("blob")));
    client().upload_blob(&server.reference("a/b"), &BlobUpload { source, ..upload(&content) }).await.unwrap();
    assert!(memory.blob(&content).unwrap() == content);
}

#[tokio::test]
async fn a_mount_saves_the_transfer() {
    let content = content(1000);
    let (server, _) = registry(|asked| asked.path.contains("mount=").then(|| Answer::new(201).header("Location", "/v2/a/b/blobs/x"))).await;
    let (to, from) = (server.reference("a/b"), server.reference("c/d"));
    assert_eq!(client().mount_blob(&to, &Digest::sha256(&content), &from).await.unwrap(), MountOutcome::Mounted);
    let upload = BlobUpload { mount_from: Some(from), ..upload(&content) };
    assert_eq!(client().ensure_blob(&to, &upload).await.unwrap(), Uploaded::Mounted);
    let asked = server.log().into_iter().find(|asked| asked.method == "POST").unwrap();
    assert!(asked.path.ends_with(&format!("?mount={}&from=c%2Fd", upload.digest.to_string().replace(':', "%3A"))), "{}", asked.path);
}

#[tokio::test]
async fn a_refused_mount_goes_on_in_the_session_that_came_with_it() {
    let content = content(1000);
    let (server, memory) = registry(|_| None).await;
    let upload = BlobUpload { mount_from: Some(server.reference("c/d")), ..upload(&content) };
    assert_eq!(client().ensure_blob(&server.reference("a/b"), &upload).await.unwrap(), Uploaded::Sent);
    assert_eq!(memory.blob(&content).unwrap(), content);
    assert_eq!(server.count("POST", "/"), 1);
}

#[tokio::test]
async fn a_mount_from_a_forbidden_repository_becomes_an_upload() {
    let content = content(1000);
    let (server, memory) = registry(|asked| asked.path.contains("mount=").then(|| Answer::new(403))).await;
    let upload = BlobUpload { mount_from: Some(server.reference("c/d")), ..upload(&content) };
    assert_eq!(client().ensure_blob(&server.reference("a/b"), &upload).await.unwrap(), Uploaded::Sent);
    assert_eq!(memory.blob(&content).unwrap(), content);
}
