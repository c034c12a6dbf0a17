//! The registry, asked over real sockets: what is on the wire is what counts.

mod conformance;
mod data;
mod faults;
mod garbage;
mod mirror;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use crate::oci::Digest;
use crate::task::CancellationToken;

use super::{Event, Options, Server};

/// A registry that runs until it is dropped or stopped.
struct Running {
    dir: Arc<tempfile::TempDir>,
    address: SocketAddr,
    stop: CancellationToken,
    task: JoinHandle<()>,
    events: Arc<Mutex<Vec<String>>>,
}

impl Running {
    /// An empty one.
    async fn start() -> Running {
        Running::with(|_| {}).await
    }

    /// One with other options.
    async fn with(change: impl FnOnce(&mut Options)) -> Running {
        Running::on(Arc::new(tempfile::tempdir().unwrap()), change).await
    }

    /// One with the storage of another.
    async fn on(dir: Arc<tempfile::TempDir>, change: impl FnOnce(&mut Options)) -> Running {
        let events = Arc::new(Mutex::new(Vec::new()));
        let told = events.clone();
        let mut options = Options {
            address: "127.0.0.1:0".into(),
            storage: dir.path().join("storage"),
            htpasswd: None,
            tls: None,
            readonly: false,
            mirror: None,
            collect_every: None,
            grace: Duration::from_secs(3600),
            log_requests: true,
            events: Arc::new(move |event| {
                told.lock().unwrap().push(match event {
                    Event::Access(access) => access.to_string(),
                    other => format!("{other:?}"),
                });
            }),
        };
        change(&mut options);
        let server = Server::bind(options).await.unwrap();
        let (address, stop) = (server.address(), CancellationToken::new());
        let task = tokio::spawn(server.run(stop.clone()));
        Running { dir, address, stop, task, events }
    }

    fn storage(&self) -> PathBuf {
        self.dir.path().join("storage")
    }

    /// What is in a directory of the storage.
    fn files(&self, dir: &str) -> Vec<String> {
        let entries = std::fs::read_dir(self.storage().join(dir)).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    /// Stops it as SIGTERM would.
    async fn stop(mut self) {
        self.stop.cancel();
        (&mut self.task).await.unwrap();
    }

    async fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        let mut request = format!("{method} {path} HTTP/1.1\r\nHost: registry\r\nConnection: close\r\nContent-Length: {}\r\n", body.len());
        for (name, value) in headers {
            request += &format!("{name}: {value}\r\n");
        }
        let mut socket = TcpStream::connect(self.address).await.unwrap();
        socket.write_all((request + "\r\n").as_bytes()).await.unwrap();
        // Who refuses early may not read all of it.
        let _ = socket.write_all(body).await;
        let mut bytes = Vec::new();
        socket.read_to_end(&mut bytes).await.unwrap();
        Answer::parse(&bytes)
    }

    async fn get(&self, path: &str) -> Answer {
        self.send("GET", path, &[], b"").await
    }

    async fn head(&self, path: &str) -> Answer {
        self.send("HEAD", path, &[], b"").await
    }

    async fn post(&self, path: &str, body: &[u8]) -> Answer {
        self.send("POST", path, &[], body).await
    }

    async fn delete(&self, path: &str) -> Answer {
        self.send("DELETE", path, &[], b"").await
    }

    /// Pushes a blob, which must work.
    async fn push_blob(&self, name: &str, bytes: &[u8]) -> Digest {
        let digest = Digest::sha256(bytes);
        self.post(&format!("/v2/{name}/blobs/uploads/?digest={digest}"), bytes).await.is(201);
        digest
    }

    async fn put_manifest(&self, name: &str, reference: &str, kind: &str, bytes: &[u8]) -> Answer {
        self.send("PUT", &format!("/v2/{name}/manifests/{reference}"), &[("Content-Type", kind)], bytes).await
    }

    /// Begins an upload; gives its address.
    async fn begin(&self, name: &str) -> String {
        self.post(&format!("/v2/{name}/blobs/uploads/"), b"").await.is(202).header("location").to_owned()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// An answer as it came.
#[derive(Debug)]
struct Answer {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Answer {
    fn parse(bytes: &[u8]) -> Answer {
        let end = bytes.windows(4).position(|part| part == b"\r\n\r\n").expect("a head");
        let head = std::str::from_utf8(&bytes[..end]).unwrap();
        let mut lines = head.split("\r\n");
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let headers =
            lines.map(|line| line.split_once(": ").unwrap()).map(|(name, value)| (name.to_lowercase(), value.to_owned())).collect();
        Answer { status, headers, body: bytes[end + 4..].to_vec() }
    }

    /// The header, which must be there.
    #[track_caller]
    fn header(&self, name: &str) -> &str {
        self.find(name).unwrap_or_else(|| panic!("no {name} in {self:?}"))
    }

    fn find(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    #[track_caller]
    fn is(self, status: u16) -> Answer {
        assert_eq!(self.status, status, "{:?} {}", self.headers, String::from_utf8_lossy(&self.body[..self.body.len().min(500)]));
        self
    }

    /// Refused with this status and this code of the specification.
    #[track_caller]
    fn refused(self, status: u16, code: &str) -> Answer {
        let answer = self.is(status);
        let error = &answer.json()["errors"][0];
        assert_eq!(error["code"], code, "{error}");
        assert!(!error["message"].as_str().unwrap().is_empty());
        answer
    }

    #[track_caller]
    fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// Bytes that look like nothing, and differ by `seed`.
fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    std::iter::repeat_with(next).take(length).collect()
}

/// Another address with a parameter more.
fn with_query(location: &str, query: &str) -> String {
    format!("{location}{}{query}", if location.contains('?') { '&' } else { '?' })
}

fn exists(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}
