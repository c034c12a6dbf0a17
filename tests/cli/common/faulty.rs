//! A registry in memory that does wrong what a test tells it to: on the wire, byte by byte. Without a fault it does what the distribution specification says.

use std::collections::{BTreeMap, HashMap};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sha2::{Digest as _, Sha256};

use super::hex;
use super::web::{Reply, Request};

/// What is done instead of the usual.
pub(crate) enum Act {
    /// This is answered.
    Reply(Reply),
    /// The usual answer, changed.
    Change(Box<dyn Fn(Reply) -> Reply + Send>),
    /// The connection is closed after that many bytes of the usual answer, its head included.
    Cut(usize),
    /// The connection is closed after that many bytes of the request's body, and nothing is kept of it.
    CutRequest(usize),
    /// The same, but the registry keeps what it got of an upload.
    KeepPart(usize),
    /// That many bytes of the usual answer, and then nothing for a long time.
    Stall(usize),
    /// These bytes, and the connection is closed.
    Raw(Vec<u8>),
    /// These bytes, and then the second ones for as long as somebody takes them.
    Endless(Vec<u8>, Vec<u8>),
    /// The usual answer as a server of HTTP/1.0 gives it: no length, the end is the end of the connection.
    Http10,
}

type Fault = dyn Fn(&Request, usize) -> Option<Act> + Send + Sync;

#[derive(Default)]
struct Kept {
    blobs: HashMap<String, Vec<u8>>,
    /// By tag and by digest: type and bytes.
    manifests: HashMap<String, (String, Vec<u8>)>,
    uploads: HashMap<String, Vec<u8>>,
    log: Vec<Request>,
    seen: HashMap<(String, &'static str), usize>,
}

/// The registry. It ends with the process.
#[derive(Clone)]
pub(crate) struct Faulty {
    address: String,
    kept: Arc<Mutex<Kept>>,
    fault: Arc<Mutex<Arc<Fault>>>,
    next: Arc<AtomicUsize>,
}

/// What a request is about.
pub(crate) fn kind(request: &Request) -> &'static str {
    let path = &request.path;
    match () {
        () if path.contains("/manifests/") => "manifest",
        () if path.contains("/blobs/uploads") => "upload",
        () if path.contains("/blobs/") => "blob",
        () if path == "/v2/" => "ping",
        () => "other",
    }
}

impl Faulty {
    pub(crate) fn start() -> Faulty {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let faulty = Faulty {
            address: listener.local_addr().unwrap().to_string(),
            kept: Arc::default(),
            fault: Arc::new(Mutex::new(Arc::new(|_: &Request, _| None))),
            next: Arc::default(),
        };
        let server = faulty.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let server = server.clone();
                std::thread::spawn(move || server.serve(stream));
            }
        });
        faulty
    }

    /// Another registry with the same content.
    pub(crate) fn copy(&self) -> Faulty {
        let copy = Faulty::start();
        {
            let (from, mut to) = (self.kept.lock().unwrap(), copy.kept.lock().unwrap());
            (to.blobs, to.manifests) = (from.blobs.clone(), from.manifests.clone());
        }
        copy
    }

    /// From now on, `fault` is asked what to do with each request; the number counts requests of the same method and kind, from 0.
    pub(crate) fn set(&self, fault: impl Fn(&Request, usize) -> Option<Act> + Send + Sync + 'static) {
        *self.fault.lock().unwrap() = Arc::new(fault);
        let mut kept = self.kept.lock().unwrap();
        kept.seen.clear();
        kept.log.clear();
    }

    /// From now on it does everything right.
    pub(crate) fn mend(&self) {
        self.set(|_, _| None);
    }

    pub(crate) fn name(&self, name: &str) -> String {
        format!("{}/{name}", self.address)
    }

    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// What was asked since [`Faulty::set`].
    pub(crate) fn log(&self) -> Vec<Request> {
        self.kept.lock().unwrap().log.clone()
    }

    /// The bytes of a manifest, by tag or digest.
    pub(crate) fn manifest(&self, name: &str) -> Option<Vec<u8>> {
        self.kept.lock().unwrap().manifests.get(name).map(|(_, bytes)| bytes.clone())
    }

    /// The bytes of a blob.
    pub(crate) fn blob(&self, digest: &str) -> Option<Vec<u8>> {
        self.kept.lock().unwrap().blobs.get(digest).cloned()
    }

    /// Puts a manifest there, under a tag and its digest, which it gives back.
    pub(crate) fn put_manifest(&self, tag: &str, kind: &str, bytes: &[u8]) -> String {
        let digest = digest(bytes);
        let mut kept = self.kept.lock().unwrap();
        for name in [tag, &digest] {
            kept.manifests.insert(name.to_owned(), (kind.to_owned(), bytes.to_vec()));
        }
        digest
    }

    /// Puts a blob there; gives its digest.
    pub(crate) fn put_blob(&self, bytes: &[u8]) -> String {
        let digest = digest(bytes);
        self.kept.lock().unwrap().blobs.insert(digest.clone(), bytes.to_vec());
        digest
    }

    fn serve(&self, stream: TcpStream) {
        let _ = stream.set_read_timeout(Some(Duration::from_secs(60)));
        let _ = stream.set_write_timeout(Some(Duration::from_secs(60)));
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        let mut writer = stream;
        while let Some((mut request, length)) = read_head(&mut reader) {
            let number = {
                let mut kept = self.kept.lock().unwrap();
                let seen = kept.seen.entry((request.method.clone(), kind(&request))).or_insert(0);
                *seen += 1;
                *seen - 1
            };
            let fault = self.fault.lock().unwrap().clone();
            let act = fault(&request, number);
            let wanted = match act {
                Some(Act::CutRequest(count) | Act::KeepPart(count)) => count.min(length),
                _ => length,
            };
            request.body = vec![0; wanted];
            if reader.read_exact(&mut request.body).is_err() {
                return;
            }
            self.kept.lock().unwrap().log.push(request.clone());
            if self.answer(&mut writer, &request, act).is_none() {
                // A reset may take away what was sent; a plain end does not.
                let _ = writer.shutdown(std::net::Shutdown::Write);
                return;
            }
        }
    }

    /// Answers; `None` where the connection ends.
    fn answer(&self, writer: &mut TcpStream, request: &Request, act: Option<Act>) -> Option<()> {
        let is_head = request.method == "HEAD";
        let usual = || bytes_of(&self.usual(request), is_head);
        match act {
            None => writer.write_all(&usual()).ok(),
            Some(Act::Reply(reply)) => writer.write_all(&bytes_of(&reply, is_head)).ok(),
            Some(Act::Change(change)) => writer.write_all(&bytes_of(&change(self.usual(request)), is_head)).ok(),
            Some(Act::Cut(count)) => {
                let bytes = usual();
                let _ = writer.write_all(&bytes[..count.min(bytes.len())]);
                None
            }
            Some(Act::CutRequest(_)) => None,
            Some(Act::KeepPart(_)) => {
                let session = request.path.rsplit('/').next().unwrap_or_default();
                self.kept.lock().unwrap().uploads.get_mut(session)?.extend_from_slice(&request.body);
                None
            }
            Some(Act::Stall(count)) => {
                // A server that says nothing has done nothing.
                let bytes = if count == 0 { Vec::new() } else { usual() };
                let _ = writer.write_all(&bytes[..count.min(bytes.len())]);
                // Until the other side has had enough.
                let _ = writer.read(&mut [0; 1]);
                None
            }
            Some(Act::Raw(bytes)) => {
                let _ = writer.write_all(&bytes);
                None
            }
            Some(Act::Endless(first, again)) => {
                writer.write_all(&first).ok()?;
                while writer.write_all(&again).is_ok() {}
                None
            }
            Some(Act::Http10) => {
                let reply = self.usual(request);
                let mut head = format!("HTTP/1.0 {} x\r\n", reply.status);
                for (name, value) in &reply.headers {
                    head += &format!("{name}: {value}\r\n");
                }
                let _ = writer.write_all(head.as_bytes()).and_then(|()| writer.write_all(b"\r\n"));
                let _ = writer.write_all(if is_head { b"" } else { &reply.body });
                None
            }
        }
    }

    /// What a registry answers.
    fn usual(&self, request: &Request) -> Reply {
        let last = request.path.rsplit('/').next().unwrap_or_default().to_owned();
        let mut kept = self.kept.lock().unwrap();
        match (kind(request), request.method.as_str()) {
            ("ping", _) => Reply::new(200, "{}"),
            ("manifest", "PUT") => {
                let digest = digest(&request.body);
                let kind = request.header("content-type").to_owned();
                for name in [last, digest.clone()] {
                    kept.manifests.insert(name, (kind.clone(), request.body.clone()));
                }
                Reply::new(201, "").with("Docker-Content-Digest", &digest)
            }
            ("manifest", _) => match kept.manifests.get(&last) {
                Some((kind, bytes)) => {
                    Reply::new(200, bytes.clone()).with("Content-Type", kind).with("Docker-Content-Digest", &digest(bytes))
                }
                None => error(404, "MANIFEST_UNKNOWN", "manifest unknown"),
            },
            ("blob", _) => match kept.blobs.get(&last) {
                Some(bytes) => ranged(bytes, request.header("range")),
                None => error(404, "BLOB_UNKNOWN", "blob unknown"),
            },
            ("upload", "POST") => {
                let session = format!("s{}", self.next.fetch_add(1, Ordering::SeqCst));
                kept.uploads.insert(session.clone(), Vec::new());
                Reply::new(202, "").with("Location", &format!("{}/{session}?_state=a%2Bb", request.path.trim_end_matches('/')))
            }
            ("upload", method) => upload(&mut kept, request, &last, method),
            _ => error(404, "UNSUPPORTED", "there is no such thing"),
        }
    }
}

fn upload(kept: &mut Kept, request: &Request, session: &str, method: &str) -> Reply {
    let Some(bytes) = kept.uploads.get_mut(session) else { return error(404, "BLOB_UPLOAD_UNKNOWN", "upload unknown") };
    let range = |bytes: &[u8]| format!("0-{}", bytes.len().max(1) - 1);
    match method {
        "GET" => Reply::new(204, "").with("Range", &range(bytes)).with("Location", &request.path),
        "PATCH" => {
            let start = request.header("content-range").split('-').next().and_then(|start| start.parse().ok()).unwrap_or(0);
            if start != bytes.len() {
                return error(416, "RANGE_INVALID", "out of place").with("Range", &range(bytes));
            }
            bytes.extend_from_slice(&request.body);
            Reply::new(202, "").with("Range", &range(bytes)).with("Location", &request.path)
        }
        "PUT" => {
            bytes.extend_from_slice(&request.body);
            let wanted = request.query.split('&').find_map(|pair| pair.strip_prefix("digest=")).unwrap_or_default().replace("%3A", ":");
            let bytes = kept.uploads.remove(session).unwrap_or_default();
            if digest(&bytes) != wanted {
                return error(400, "DIGEST_INVALID", "digest does not match");
            }
            kept.blobs.insert(wanted.clone(), bytes);
            Reply::new(201, "").with("Docker-Content-Digest", &wanted)
        }
        _ => Reply::new(204, ""),
    }
}

/// An error as registries give it.
pub(crate) fn error(status: u16, code: &str, message: &str) -> Reply {
    let body = serde_json::json!({ "errors": [{ "code": code, "message": message }] }).to_string();
    Reply::new(status, body).with("Content-Type", "application/json")
}

fn ranged(bytes: &[u8], range: &str) -> Reply {
    let start = range.strip_prefix("bytes=").and_then(|range| range.split('-').next()).and_then(|start| start.parse::<usize>().ok());
    match start {
        None => Reply::new(200, bytes),
        Some(start) if start >= bytes.len() => Reply::new(416, ""),
        Some(start) => {
            let range = format!("bytes {start}-{}/{}", bytes.len() - 1, bytes.len());
            Reply::new(206, &bytes[start..]).with("Content-Range", &range)
        }
    }
}

fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex(&Sha256::digest(bytes)))
}

fn bytes_of(reply: &Reply, is_head: bool) -> Vec<u8> {
    let mut head = format!("HTTP/1.1 {} x\r\n", reply.status);
    for (name, value) in &reply.headers {
        head += &format!("{name}: {value}\r\n");
    }
    if !reply.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-length")) && reply.status != 204 {
        head += &format!("Content-Length: {}\r\n", reply.body.len());
    }
    let mut bytes = (head + "\r\n").into_bytes();
    if !is_head {
        bytes.extend_from_slice(&reply.body);
    }
    bytes
}

fn read_head(reader: &mut BufReader<TcpStream>) -> Option<(Request, usize)> {
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|length| *length > 0)?;
    let mut words = line.split_whitespace();
    let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        headers.insert(name.to_lowercase(), value.to_owned());
    }
    let length = headers.get("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    Some((Request { method, path: path.to_owned(), query: query.to_owned(), headers, body: Vec::new() }, length))
}
