//! The server as a whole: it listens, keeps connections, collects garbage now and then, and stops without cutting anybody off.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::header::HeaderValue;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use crate::task::{CancellationToken, blocking};

use super::api::Service;
use super::auth::Users;
use super::body::{Buffers, ReplyBody};
use super::mirror::Mirror;
use super::reply::{API_VERSION, Reply};
use super::request::{Head, RequestBody};
use super::route::{Query, Route};
use super::storage::{self, Storage};
use super::{Access, Error, Event, Events, Options, tls};

/// How long a client may take for the head of a request, or to begin the next.
const HEAD_TIME: Duration = Duration::from_secs(60);

/// How long a TLS handshake may take.
const HANDSHAKE_TIME: Duration = Duration::from_secs(15);

/// How long transfers under way may go on after the server was asked to stop.
const STOP_TIME: Duration = Duration::from_secs(30);

/// A pause where the kernel gives no further connection: too many files are open.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// A registry that listens.
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    shared: Arc<Shared>,
    tls: Option<TlsAcceptor>,
    collect_every: Option<Duration>,
    grace: Duration,
}

/// What connections share.
struct Shared {
    service: Service,
    events: Events,
    log_requests: bool,
}

impl Server {
    /// Opens the storage and listens. From now on clients can connect; they are answered once [`Server::run`] runs.
    ///
    /// # Errors
    /// The storage, a file or the address cannot be used.
    pub async fn bind(options: Options) -> Result<Server, Error> {
        let access = if options.readonly { storage::Access::Read } else { storage::Access::Write };
        let (root, htpasswd, tls) = (options.storage, options.htpasswd, options.tls);
        let (storage, users, tls) = blocking(move || {
            let tls = tls.map(|(chain, key)| tls::acceptor(&chain, &key)).transpose()?;
            let users = htpasswd.map(|path| Users::load(&path)).transpose()?;
            Ok::<_, Error>((Arc::new(Storage::open(&root, access)?), users, tls))
        })
        .await?;
        let mirror = match options.mirror {
            Some((upstream, client)) => Some(Arc::new(Mirror::new(client, &upstream, storage.clone())?)),
            None => None,
        };
        let failed = |source| Error::Listen { address: options.address.clone(), source };
        let listener = match options.address.strip_prefix(':') {
            // All addresses of this machine, of both kinds where the kernel has both.
            Some(port) => match TcpListener::bind(format!("[::]:{port}")).await {
                Ok(listener) => Ok(listener),
                Err(_) => TcpListener::bind(format!("0.0.0.0:{port}")).await,
            },
            None => TcpListener::bind(&options.address).await,
        };
        let listener = listener.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let service = Service { storage, mirror, users, metrics: Arc::default(), buffers: Buffers::default() };
        let shared = Arc::new(Shared { service, events: options.events, log_requests: options.log_requests });
        let collect_every = options.collect_every.filter(|_| !options.readonly);
        Ok(Server { listener, address, shared, tls, collect_every, grace: options.grace })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `stop`; then transfers under way end, for half a minute at most. Dropping this cuts all of them, which leaves the storage good.
    pub async fn run(self, stop: CancellationToken) {
        let mut connections = JoinSet::new();
        let collector = self.collector(stop.clone());
        tokio::pin!(collector);
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                () = &mut collector => {}
                Some(_) = connections.join_next() => {}
                accepted = self.listener.accept() => match accepted {
                    Ok((socket, client)) => {
                        let (shared, tls, stop) = (self.shared.clone(), self.tls.clone(), stop.clone());
                        connections.spawn(connection(shared, tls, socket, client, stop));
                    }
                    Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
                },
            }
        }
        drop(self.listener);
        let ended = tokio::time::timeout(STOP_TIME, async { while connections.join_next().await.is_some() {} }).await;
        if ended.is_err() {
            connections.shutdown().await;
        }
        if let Some(mirror) = &self.shared.service.mirror {
            mirror.stop();
        }
    }

    /// Collects garbage now and then; never ends.
    fn collector(&self, stop: CancellationToken) -> impl Future<Output = ()> + use<> {
        let (shared, every, grace) = (self.shared.clone(), self.collect_every, self.grace);
        async move {
            let Some(every) = every else { return std::future::pending().await };
            loop {
                let outcome = shared.service.with_storage(move |storage| storage.collect(grace)).await;
                match outcome {
                    Ok(Some(done)) => {
                        shared.service.metrics.collected(&done);
                        if done != storage::Collected::default() {
                            (shared.events)(Event::Collected(done));
                        }
                    }
                    // Another process of this storage is at it.
                    Ok(None) => {}
                    Err(error) => {
                        let problem = super::reply::Refusal::from(error).problem().unwrap_or_default();
                        (shared.events)(Event::Problem(format!("cannot collect garbage: {problem}")));
                    }
                }
                if stop.is_cancelled() {
                    return std::future::pending().await;
                }
                tokio::time::sleep(every).await;
            }
        }
    }
}

/// Serves one client.
async fn connection(shared: Arc<Shared>, tls: Option<TlsAcceptor>, socket: TcpStream, client: SocketAddr, stop: CancellationToken) {
    // Small answers must not wait for the acknowledgement of others.
    let _ = socket.set_nodelay(true);
    let metrics = shared.service.metrics.clone();
    metrics.connections(1);
    match tls {
        None => converse(shared, socket, client, stop).await,
        Some(tls) => {
            // Whoever does not finish the handshake has nobody to tell what was wrong.
            if let Ok(Ok(stream)) = tokio::time::timeout(HANDSHAKE_TIME, tls.accept(socket)).await {
                converse(shared, stream, client, stop).await;
            }
        }
    }
    metrics.connections(-1);
}

async fn converse(
    shared: Arc<Shared>,
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    client: SocketAddr,
    stop: CancellationToken,
) {
    let service = service_fn(move |request| {
        let shared = shared.clone();
        async move { Ok::<_, Infallible>(respond(shared, client, request).await) }
    });
    let mut builder = hyper::server::conn::http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEAD_TIME);
    let connection = builder.serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    // How a connection ends is the client's affair.
    tokio::select! {
        _ = connection.as_mut() => {}
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            let _ = connection.await;
        }
    }
}

/// Answers a request, whatever comes of it.
async fn respond(shared: Arc<Shared>, client: SocketAddr, request: Request<Incoming>) -> Response<Told> {
    let begun = Instant::now();
    let service = &shared.service;
    service.metrics.in_flight(1);
    let (parts, incoming) = request.into_parts();
    let mut body = RequestBody::new(incoming, service.metrics.clone());
    let head = Head { method: parts.method, query: Query::parse(parts.uri.query()), headers: parts.headers };
    let mut told = Told {
        shared: shared.clone(),
        client,
        user: None,
        method: head.method.clone(),
        path: if shared.log_requests { parts.uri.to_string() } else { String::new() },
        route: "invalid",
        status: 0,
        begun,
        sent: 0,
        body: ReplyBody::Empty,
    };
    let outcome = async {
        told.user = service.admit(&head).await?;
        let route = Route::parse(parts.uri.path())?;
        told.route = route.kind();
        service.answer(&route, &head, &mut body).await
    };
    let Reply { status, mut headers, body: answer } = match outcome.await {
        Ok(reply) => reply,
        Err(refusal) => {
            if let Some(problem) = refusal.problem() {
                (shared.events)(Event::Problem(format!("{} {}: {problem}", head.method, parts.uri.path())));
            }
            body.drain(&head).await;
            refusal.reply()
        }
    };
    // What a HEAD would have sent is told by its headers only.
    let answer = if head.method == hyper::Method::HEAD { ReplyBody::Empty } else { answer };
    headers.insert(API_VERSION, HeaderValue::from_static("registry/2.0"));
    (told.status, told.body) = (status.as_u16(), answer);
    let mut response = Response::new(told);
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}

/// An answer that is counted and told of when it has been sent, or when it cannot be.
struct Told {
    shared: Arc<Shared>,
    client: SocketAddr,
    user: Option<String>,
    method: hyper::Method,
    path: String,
    route: &'static str,
    status: u16,
    begun: Instant,
    sent: u64,
    body: ReplyBody,
}

impl Body for Told {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        if let Poll::Ready(Some(Ok(frame))) = &polled
            && let Some(bytes) = frame.data_ref()
        {
            self.sent += bytes.len() as u64;
            self.shared.service.metrics.sent(bytes.len());
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Told {
    fn drop(&mut self) {
        let duration = self.begun.elapsed();
        let metrics = &self.shared.service.metrics;
        metrics.in_flight(-1);
        let method = match self.method.as_str() {
            "GET" => "GET",
            "HEAD" => "HEAD",
            "POST" => "POST",
            "PUT" => "PUT",
            "PATCH" => "PATCH",
            "DELETE" => "DELETE",
            // Clients may call a method as they like, and each would be a counter.
            _ => "other",
        };
        metrics.request((method, self.route, self.status), u64::try_from(duration.as_micros()).unwrap_or(u64::MAX));
        if self.shared.log_requests {
            (self.shared.events)(Event::Access(Access {
                client: self.client,
                user: self.user.take(),
                method: self.method.to_string(),
                path: std::mem::take(&mut self.path),
                status: self.status,
                bytes: self.sent,
                duration,
                complete: self.status != 0 && self.body.is_end_stream(),
            }));
        }
    }
}
