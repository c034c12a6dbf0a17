//! A scripted HTTP server on loopback: it answers what a test tells it to, byte for byte, and cuts, stalls or babbles where it is told to.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::oci::Reference;
use crate::registry::{Client, ClientOptions, Credential, Credentials, RetryPolicy};

/// A request as it arrived.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub(super) method: String,
    /// Path and query.
    pub(super) path: String,
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
}

impl Asked {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    pub(super) fn is(&self, method: &str, prefix: &str) -> bool {
        self.method == method && self.path.starts_with(prefix)
    }

    /// The first byte of a `Range` header.
    pub(super) fn range(&self) -> Option<usize> {
        self.header("range")?.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok()
    }
}

/// What follows the body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Then {
    Keep,
    Cut,
    Stall,
    /// A byte now and then.
    Trickle,
    /// The body again and again, until the client has enough.
    Repeat,
}

#[derive(Clone, Debug)]
pub(super) struct Answer {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    /// `Content-Length`; without one the body is chunked.
    length: Option<usize>,
    then: Then,
}

impl Answer {
    pub(super) fn new(status: u16) -> Answer {
        Answer { status, headers: Vec::new(), body: Vec::new(), length: Some(0), then: Then::Keep }
    }

    pub(super) fn body(mut self, body: impl AsRef<[u8]>) -> Answer {
        self.body = body.as_ref().to_vec();
        self.length = Some(self.body.len());
        self
    }

    pub(super) fn header(mut self, name: &str, value: impl ToString) -> Answer {
        self.headers.push((name.to_owned(), value.to_string()));
        self
    }

    pub(super) fn length(mut self, length: usize) -> Answer {
        self.length = Some(length);
        self
    }

    pub(super) fn chunked(mut self) -> Answer {
        self.length = None;
        self
    }

    pub(super) fn then(mut self, then: Then) -> Answer {
        self.then = then;
        self
    }

    /// A part of `content` from `start` on, as the answer to a range.
    pub(super) fn part(content: &[u8], start: usize) -> Answer {
        let range = format!("bytes {start}-{}/{}", content.len() - 1, content.len());
        Answer::new(206).header("Content-Range", range).body(&content[start..])
    }

    /// Sends only the first `count` bytes of the body, then closes the connection.
    pub(super) fn cut_after(mut self, count: usize) -> Answer {
        self.body.truncate(count);
        self.then(Then::Cut)
    }
}

type Handler = dyn Fn(&Asked) -> Answer + Send + Sync;

pub(super) struct Server {
    pub(super) port: u16,
    log: Arc<Mutex<Vec<Asked>>>,
    cuts: Arc<Mutex<VecDeque<usize>>>,
}

impl Server {
    /// Starts a server. The probe of `/v2/` gets 200 unless `handler` is `with_ping`.
    pub(super) async fn start(handler: impl Fn(&Asked) -> Answer + Send + Sync + 'static) -> Server {
        Server::with_ping(move |asked| if asked.path == "/v2/" { Answer::new(200).body("{}") } else { handler(asked) }).await
    }

    pub(super) async fn with_ping(handler: impl Fn(&Asked) -> Answer + Send + Sync + 'static) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = Server { port, log: Arc::default(), cuts: Arc::default() };
        let (log, cuts, handler): (_, _, Arc<Handler>) = (server.log.clone(), server.cuts.clone(), Arc::new(handler));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, handler.clone(), log.clone(), cuts.clone()));
            }
        });
        server
    }

    /// The next request with a body is cut after `count` bytes of it; the handler still sees those.
    pub(super) fn cut_upload_after(&self, count: usize) {
        self.cuts.lock().unwrap().push_back(count);
    }

    pub(super) fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub(super) fn reference(&self, rest: &str) -> Reference {
        format!("{}/{rest}", self.host()).parse().unwrap()
    }

    /// The requests so far, without the probe.
    pub(super) fn log(&self) -> Vec<Asked> {
        self.log.lock().unwrap().iter().filter(|asked| asked.path != "/v2/").cloned().collect()
    }

    pub(super) fn count(&self, method: &str, prefix: &str) -> usize {
        self.log().iter().filter(|asked| asked.is(method, prefix)).count()
    }
}

async fn serve(mut stream: TcpStream, handler: Arc<Handler>, log: Arc<Mutex<Vec<Asked>>>, cuts: Arc<Mutex<VecDeque<usize>>>) {
    let mut buffer = Vec::new();
    while let Some(head_end) = read_head(&mut stream, &mut buffer).await {
        let mut asked = parse_head(&buffer[..head_end]);
        buffer.drain(..head_end);
        let length: usize = asked.header("content-length").map_or(0, |length| length.parse().unwrap());
        let cut = if length > 0 { cuts.lock().unwrap().pop_front() } else { None };
        let wanted = cut.unwrap_or(length).min(length);
        while buffer.len() < wanted {
            if stream.read_buf(&mut buffer).await.unwrap_or(0) == 0 {
                return;
            }
        }
        asked.body = buffer.drain(..wanted).collect();
        log.lock().unwrap().push(asked.clone());
        let answer = handler(&asked);
        if cut.is_some() || write_answer(&mut stream, &asked, answer).await.is_none() {
            return;
        }
    }
}

async fn read_head(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<usize> {
    loop {
        if let Some(at) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
            return Some(at + 4);
        }
        if stream.read_buf(buffer).await.ok()? == 0 {
            return None;
        }
    }
}

fn parse_head(head: &[u8]) -> Asked {
    let text = String::from_utf8(head.to_vec()).unwrap();
    let mut lines = text.split("\r\n");
    let mut first = lines.next().unwrap().split(' ');
    let (method, path) = (first.next().unwrap().to_owned(), first.next().unwrap().to_owned());
    let headers = lines.filter_map(|line| line.split_once(": ")).map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
    Asked { method, path, headers, body: Vec::new() }
}

async fn write_answer(stream: &mut TcpStream, asked: &Asked, answer: Answer) -> Option<()> {
    let mut head = format!("HTTP/1.1 {} X\r\n", answer.status);
    for (name, value) in &answer.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    match answer.length {
        Some(length) => head.push_str(&format!("Content-Length: {length}\r\n\r\n")),
        None => head.push_str("Transfer-Encoding: chunked\r\n\r\n"),
    }
    stream.write_all(head.as_bytes()).await.ok()?;
    if asked.method == "HEAD" {
        return Some(());
    }
    let piece = match answer.length {
        Some(_) => answer.body.clone(),
        None => [format!("{:x}\r\n", answer.body.len()).as_bytes(), answer.body.as_slice(), b"\r\n"].concat(),
    };
    stream.write_all(&piece).await.ok()?;
    match answer.then {
        Then::Keep if answer.length.is_none() => stream.write_all(b"0\r\n\r\n").await.ok(),
        Then::Keep => Some(()),
        Then::Cut => None,
        Then::Stall => {
            tokio::time::sleep(Duration::from_secs(60)).await;
            None
        }
        Then::Trickle => loop {
            tokio::time::sleep(Duration::from_millis(20)).await;
            stream.write_all(b" ").await.ok()?;
        },
        Then::Repeat => loop {
            stream.write_all(&piece).await.ok()?;
        },
    }
}

/// Options that make failures quick.
pub(super) fn quick() -> ClientOptions {
    let ms = Duration::from_millis;
    ClientOptions {
        retry: RetryPolicy { attempts: 5, first_pause: ms(2), longest_pause: ms(10), longest_retry_after: Duration::from_secs(3) },
        connect_timeout: Duration::from_secs(5),
        idle_timeout: ms(1000),
        ..ClientOptions::default()
    }
}

pub(super) fn client() -> Client {
    Client::new(quick()).unwrap()
}

pub(super) fn client_of(server: &Server, user: &str, password: &str) -> Client {
    let credentials = Credentials::default().with(&server.host(), basic(user, password));
    Client::new(ClientOptions { credentials, ..quick() }).unwrap()
}

pub(super) fn basic(user: &str, password: &str) -> Credential {
    Credential::Basic { username: user.to_owned(), password: crate::diag::Secret::new(password.to_owned()) }
}
