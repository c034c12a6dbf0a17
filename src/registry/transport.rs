//! One request, from URL to answer: authorization, redirects, time limits, and trying again.
//!
//! Redirects are followed by hand, because only here it is known which origin an `Authorization` belongs to. A request with a streaming body is
//! never repeated from here (except after a 401 or a redirect, with its source opened anew): `upload` knows what the server already has.

use std::borrow::Cow;
use std::io::{self, Read};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use reqwest::header::{
    AUTHORIZATION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderValue, LOCATION, RETRY_AFTER, WARNING, WWW_AUTHENTICATE,
};
use reqwest::{Method, StatusCode};
use url::Url;

use crate::diag::SafeUrl;
use crate::oci::Digest;

use super::auth::{AuthScheme, Scope, TokenRequest, basic, bearer, merge, pair_of, parse_challenges, parse_token};
use super::client::Client;
use super::connect::{Trust, blocking};
use super::credentials::{self, Credential};
use super::error::{Error, StatusError, TransportCause, parse_codes, tame};
use super::headers::warning;
use super::host::{Host, Scheme, base_url, is_loopback, same_origin, scheme_of, without_port};
use super::retry::{Backoff, parse_retry_after};
use super::source::BlobSource;

const REDIRECT_LIMIT: usize = 10;

/// How much of an error's body is read.
const ERROR_BODY_LIMIT: u64 = 64 << 10;

/// The largest answer of a token server.
const TOKEN_LIMIT: u64 = 1 << 20;

/// A connection that moves next to nothing for this many idle times is given up, even if it is never quite idle.
pub(super) const SLOW: u32 = 5;

/// Less than this in [`SLOW`] idle times is next to nothing.
pub(super) const SLOW_BYTES: u64 = 64 << 10;

/// A request. Not `Debug`, since its payload may be a secret.
#[derive(Clone)]
pub(super) struct Call {
    pub(super) method: Method,
    pub(super) url: Url,
    /// The repository whose credentials apply; empty for none.
    pub(super) repository: String,
    pub(super) scopes: Vec<Scope>,
    pub(super) headers: HeaderMap,
    pub(super) payload: Payload,
    /// Idle times to wait for the head of the answer: storing a large blob takes a server a while.
    pub(super) patience: u32,
    /// Whether the payload is for this origin alone.
    confidential: bool,
    /// Whether every certificate of this host will do.
    insecure: bool,
}

/// What is sent.
#[derive(Clone)]
pub(super) enum Payload {
    None,
    Bytes(Bytes),
    Source(Slice),
}

/// Headers that are for one origin alone.
#[derive(Clone, Copy)]
struct Authority<'a> {
    origin: &'a Url,
    authorization: Option<&'a HeaderValue>,
    headers: &'a HeaderMap,
}

/// A part of a blob that is sent.
#[derive(Clone)]
pub(super) struct Slice {
    pub(super) digest: Digest,
    pub(super) source: Arc<dyn BlobSource>,
    pub(super) offset: u64,
    pub(super) length: u64,
    /// Told where the stream stands, as offsets into the blob.
    pub(super) sent_to: Arc<dyn Fn(u64) + Send + Sync>,
}

/// An answer whose body has not been read.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) method: Method,
    /// Where it came from, after redirects.
    pub(super) url: Url,
    pub(super) response: reqwest::Response,
}

/// An answer whose body has been read.
#[derive(Debug)]
pub(super) struct Collected {
    pub(super) url: Url,
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Call {
    pub(super) fn new(method: Method, url: Url, repository: &str, scopes: Vec<Scope>) -> Call {
        let (headers, payload, repository) = (HeaderMap::new(), Payload::None, repository.to_owned());
        Call { method, url, repository, scopes, headers, payload, patience: 1, confidential: false, insecure: false }
    }
}

impl Reply {
    pub(super) fn status(&self) -> StatusCode {
        self.response.status()
    }

    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.response.headers().get(name)?.to_str().ok()
    }

    pub(super) fn safe_url(&self) -> SafeUrl {
        SafeUrl::new(self.url.as_str())
    }

    /// The next piece of the body.
    pub(super) async fn chunk(&mut self, idle: Duration) -> Result<Option<Bytes>, Error> {
        match tokio::time::timeout(idle, self.response.chunk()).await {
            Ok(Ok(chunk)) => Ok(chunk),
            Ok(Err(source)) => Err(transport_error(&self.method, &self.url, source, false)),
            Err(_) => Err(Error::Timeout { method: self.method.to_string(), url: self.safe_url(), after: idle }),
        }
    }

    /// Reads the whole body. However steadily it trickles, it may take no longer than a few idle times.
    async fn collect(self, idle: Duration, limit: u64) -> Result<Collected, Error> {
        let after = idle * SLOW;
        let late = Error::Timeout { method: self.method.to_string(), url: self.safe_url(), after };
        tokio::time::timeout(after, self.collect_all(idle, limit)).await.unwrap_or(Err(late))
    }

    async fn collect_all(mut self, idle: Duration, limit: u64) -> Result<Collected, Error> {
        let url = self.safe_url();
        let too_large = || Error::TooLarge { url: url.clone(), limit };
        let announced = self.response.content_length().unwrap_or(0);
        if announced > limit && self.method != Method::HEAD {
            return Err(too_large());
        }
        let mut body = Vec::with_capacity(usize::try_from(announced.min(limit)).unwrap_or(0).min(1 << 20));
        while self.method != Method::HEAD {
            let Some(chunk) = self.chunk(idle).await? else { break };
            if body.len() as u64 + chunk.len() as u64 > limit {
                return Err(too_large());
            }
            body.extend_from_slice(&chunk);
        }
        let body = match self.header(CONTENT_ENCODING.as_str()) {
            Some(encoding) if encoding.eq_ignore_ascii_case("gzip") => {
                let bad = |value: String| Error::BadAnswer { url: self.safe_url(), what: "a gzip encoding", value };
                gunzip(&body, limit).map_err(|error| bad(error.to_string()))?.ok_or_else(too_large)?
            }
            _ => body,
        };
        Ok(Collected { status: self.status(), headers: self.response.headers().clone(), url: self.url, body: body.into() })
    }
}

impl Collected {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    pub(super) fn safe_url(&self) -> SafeUrl {
        SafeUrl::new(self.url.as_str())
    }
}

impl Client {
    /// Sends a request, as often as the retry policy allows, and reads its whole answer. Error statuses are errors.
    pub(super) async fn collect(&self, host: &Arc<Host>, call: &Call, limit: u64) -> Result<Collected, Error> {
        let mut backoff = Backoff::new(self.retry);
        loop {
            match self.collect_once(host, call, limit).await {
                Ok(collected) => return Ok(collected),
                Err(error) => backoff.pause(error).await?,
            }
        }
    }

    /// The same with one attempt.
    pub(super) async fn collect_once(&self, host: &Arc<Host>, call: &Call, limit: u64) -> Result<Collected, Error> {
        self.send(host, call).await?.collect(self.inner.options.idle_timeout, limit).await
    }

    /// Sends a request once (twice where the first is refused for want of a token). Error statuses are errors.
    pub(super) async fn send(&self, host: &Arc<Host>, call: &Call) -> Result<Reply, Error> {
        let base = self.base(host).await?;
        let mut call = Cow::Borrowed(call);
        if host.insecure {
            call.to_mut().insecure = true;
        }
        let call = &*call;
        let mut refused = false;
        loop {
            let (authorization, token_id) = self.authorization(host, call).await?;
            let authority = Authority { origin: &base, authorization: authorization.as_ref(), headers: &self.inner.headers };
            let reply = self.dispatch(call, Some(authority)).await?;
            if reply.status() == StatusCode::UNAUTHORIZED && !refused && same_origin(&reply.url, &base) {
                refused = true;
                if self.answer_challenge(host, call, &reply, token_id, authorization.as_ref()).await? {
                    continue;
                }
            }
            return self.check(host, call, reply).await;
        }
    }

    /// The root of a registry's API.
    pub(super) async fn base(&self, host: &Arc<Host>) -> Result<Url, Error> {
        match scheme_of(&host.name, &self.inner.options.plain_http) {
            Scheme::Https | Scheme::Probe if host.insecure => {
                let probed = host.base.get_or_try_init(|| self.probe_insecure(host)).await;
                probed.cloned().or_else(|_| base_url(&host.name, "https"))
            }
            Scheme::Http => base_url(&host.name, "http"),
            Scheme::Https => base_url(&host.name, "https"),
            Scheme::Probe => {
                let probed = host.base.get_or_try_init(|| self.probe(host)).await;
                // A host that does not answer is asked again with the next request, which reports why.
                probed.cloned().or_else(|_| base_url(&host.name, "http"))
            }
        }
    }

    /// Finds out whether a loopback registry speaks TLS.
    async fn probe(&self, host: &Arc<Host>) -> Result<Url, Error> {
        let (plain, tls) = (base_url(&host.name, "http")?, base_url(&host.name, "https")?);
        let ping = |base: &Url| base.join("v2/").map(|url| Call::new(Method::GET, url, "", Vec::new()));
        let bad = |_| Error::BadHost { host: host.name.clone() };
        match self.dispatch(&ping(&plain).map_err(bad)?, None).await {
            Ok(reply) if reply.status() == StatusCode::BAD_REQUEST => {
                // Servers that speak TLS on the port say so in plain HTTP: "… HTTP request to an HTTPS server".
                let body = reply.collect(self.inner.options.idle_timeout, ERROR_BODY_LIMIT).await?.body;
                let wants_tls = String::from_utf8_lossy(&body).to_lowercase().contains("https");
                Ok(if wants_tls { tls } else { plain })
            }
            Ok(reply) => {
                let challenges = parse_challenges(authenticate_headers(&reply));
                host.auth.lock().await.learn(&challenges, &reply.url, |realm| self.may_be_plain(&reply.url, realm))?;
                Ok(plain)
            }
            Err(Error::Transport { cause: TransportCause::Broken, .. }) => match self.dispatch(&ping(&tls).map_err(bad)?, None).await {
                Ok(_)
                | Err(Error::Transport { cause: TransportCause::Tls | TransportCause::Identity, .. } | Error::NoRootCertificates { .. }) => {
                    Ok(tls)
                }
                Err(_) => Ok(plain),
            },
            Err(error) => Err(error),
        }
    }

    /// Finds out whether an insecure registry speaks TLS, which it may do with any certificate.
    async fn probe_insecure(&self, host: &Arc<Host>) -> Result<Url, Error> {
        let (plain, tls) = (base_url(&host.name, "http")?, base_url(&host.name, "https")?);
        let ping = tls.join("v2/").map_err(|_| Error::BadHost { host: host.name.clone() })?;
        let call = Call { insecure: true, ..Call::new(Method::GET, ping, "", Vec::new()) };
        match self.dispatch(&call, None).await {
            Ok(_) => Ok(tls),
            Err(Error::Transport { .. }) => Ok(plain),
            Err(error) => Err(error),
        }
    }

    /// Sends a request and follows its redirects. Only the origin of `authority` gets what is in it.
    async fn dispatch(&self, call: &Call, authority: Option<Authority<'_>>) -> Result<Reply, Error> {
        let mut url = call.url.clone();
        for _ in 0..=REDIRECT_LIMIT {
            let mut headers = call.headers.clone();
            let ours = authority.filter(|authority| same_origin(authority.origin, &url));
            if let Some(ours) = ours {
                headers.extend(ours.headers.clone());
                headers.extend(ours.authorization.map(|value| (AUTHORIZATION, value.clone())));
            }
            let reply = self.exchange(call, url.clone(), headers).await?;
            if ours.is_some() {
                self.note_warnings(&url, &reply);
            }
            let reads = matches!(call.method, Method::GET | Method::HEAD);
            let follow = match reply.status().as_u16() {
                301..=303 => reads,
                307 | 308 => true,
                _ => false,
            };
            let Some(location) = reply.header(LOCATION.as_str()).filter(|_| follow) else { return Ok(reply) };
            let next = url.join(location).ok().filter(|next| matches!(next.scheme(), "http" | "https"));
            let Some(next) = next else {
                let value = SafeUrl::new(&tame(&self.inner.sent.scrub(location), 200)).to_string();
                return Err(Error::BadAnswer { url: reply.safe_url(), what: "a redirect", value });
            };
            if url.scheme() == "https" && next.scheme() == "http" {
                return Err(Error::Downgrade { from: reply.safe_url(), to: SafeUrl::new(next.as_str()) });
            }
            if call.confidential && !same_origin(&call.url, &next) {
                return Ok(reply);
            }
            url = next;
        }
        Err(Error::TooManyRedirects { url: SafeUrl::new(call.url.as_str()), limit: REDIRECT_LIMIT })
    }

    /// One request, one answer. Waits while bytes leave, and for `patience` idle times after the last has left.
    async fn exchange(&self, call: &Call, url: Url, headers: HeaderMap) -> Result<Reply, Error> {
        let anyone = call.insecure && url.host_str() == call.url.host_str();
        let trust = if anyone { Trust::Anyone } else { Trust::Checked };
        let connection = self.inner.connections.client(&url, &self.inner.options, trust).await?;
        let mut request = connection.http.request(call.method.clone(), url.clone()).headers(headers);
        let flow = Arc::new(Flow::default());
        match &call.payload {
            Payload::None if matches!(call.method, Method::GET | Method::HEAD | Method::DELETE) => {}
            Payload::None => request = request.header(CONTENT_LENGTH, 0),
            Payload::Bytes(bytes) => request = request.body(bytes.clone()),
            Payload::Source(slice) => {
                let stream = open_slice(slice, flow.clone()).await?;
                request = request.header(CONTENT_LENGTH, slice.length).body(reqwest::Body::wrap_stream(stream));
            }
        }
        let idle = self.inner.options.idle_timeout;
        let sending = request.send();
        tokio::pin!(sending);
        let (mut seen, mut waited) = (0, 0);
        let (mut rounds, mut before) = (0, 0);
        let result = loop {
            match tokio::time::timeout(idle, &mut sending).await {
                Ok(result) => break result,
                Err(_) => {
                    let now = flow.bytes.load(Ordering::Relaxed);
                    waited = if now == seen { waited + 1 } else { 0 };
                    let ended = !matches!(&call.payload, Payload::Source(slice) if now < slice.length);
                    if now == seen && waited >= if ended { call.patience } else { 1 } {
                        let url = SafeUrl::new(url.as_str());
                        return Err(Error::Timeout { method: call.method.to_string(), url, after: idle * waited });
                    }
                    seen = now;
                    rounds += 1;
                    if rounds == SLOW {
                        if !ended && now - before < SLOW_BYTES {
                            let url = SafeUrl::new(url.as_str());
                            return Err(Error::Timeout { method: call.method.to_string(), url, after: idle * SLOW });
                        }
                        (rounds, before) = (0, now);
                    }
                }
            }
        };
        if let (Payload::Source(slice), Some(fault)) = (&call.payload, flow.fault()) {
            return Err(match fault {
                Fault::Read(source) => Error::Source { digest: slice.digest.clone(), source },
                Fault::Short(actual) => {
                    Error::SourceSize { digest: slice.digest.clone(), expected: slice.offset + slice.length, actual: slice.offset + actual }
                }
            });
        }
        match result {
            Ok(response) => Ok(Reply { method: call.method.clone(), url, response }),
            Err(source) => Err(transport_error(&call.method, &url, source, connection.is_asked())),
        }
    }

    /// The credential for a repository. A helper that fails is a warning: the image may be public.
    async fn credential(&self, host: &Arc<Host>, repository: &str) -> Result<Option<Credential>, Error> {
        let mut known = host.credentials.lock().await;
        if let Some(found) = known.get(repository) {
            return Ok(found.clone());
        }
        let credentials = self.inner.options.credentials.clone();
        let (name, path) = (host.name.clone(), repository.to_owned());
        let found = match blocking(move || credentials.lookup(&name, &path)).await? {
            Ok(found) => found,
            Err(error @ (credentials::Error::Helper { .. } | credentials::Error::HelperStart { .. })) => {
                let reason = error.whole();
                self.warn(format!("{reason}; going on without credentials for `{}`", host.name));
                *host.helper_failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(reason);
                None
            }
            Err(error) => return Err(Error::Credentials(error)),
        };
        match &found {
            Some(Credential::Basic { username, password }) => {
                self.inner.sent.add(password);
                self.inner.sent.add(&pair_of(username, password));
            }
            Some(Credential::IdentityToken(token) | Credential::RegistryToken(token)) => self.inner.sent.add(token),
            None => {}
        }
        known.insert(repository.to_owned(), found.clone());
        Ok(found)
    }

    /// The `Authorization` for a request, as far as we know what the registry wants; with the token's number.
    async fn authorization(&self, host: &Arc<Host>, call: &Call) -> Result<(Option<HeaderValue>, Option<u64>), Error> {
        let mut state = host.auth.lock().await;
        match state.scheme.clone() {
            AuthScheme::None => Ok((None, None)),
            AuthScheme::Basic => match self.credential(host, &call.repository).await? {
                Some(Credential::Basic { username, password }) => Ok((basic(&username, &password), None)),
                _ => Ok((None, None)),
            },
            AuthScheme::Bearer { realm, service } => {
                let credential = self.credential(host, &call.repository).await?;
                if let Some(Credential::RegistryToken(token)) = &credential {
                    return Ok((bearer(token), None));
                }
                let token = match state.token(&call.scopes) {
                    Some(token) => token,
                    None => {
                        let granted = self.fetch_token(host, &realm, service.as_deref(), &call.scopes, credential.as_ref()).await?;
                        state.keep(call.scopes.clone(), granted)
                    }
                };
                Ok((bearer(&token.value), Some(token.id)))
            }
        }
    }

    /// Deals with a 401: learns what is wanted and gets it. Says whether there is something new to try.
    async fn answer_challenge(
        &self,
        host: &Arc<Host>,
        call: &Call,
        reply: &Reply,
        token_id: Option<u64>,
        sent: Option<&HeaderValue>,
    ) -> Result<bool, Error> {
        let challenges = parse_challenges(authenticate_headers(reply));
        let mut state = host.auth.lock().await;
        if let Some(id) = token_id {
            state.refuse(id);
        }
        let named = state.learn(&challenges, &reply.url, |realm| self.may_be_plain(&reply.url, realm))?;
        let credential = self.credential(host, &call.repository).await?;
        match (state.scheme.clone(), credential) {
            (AuthScheme::None, _) => Ok(false),
            (AuthScheme::Basic, Some(Credential::Basic { .. })) => Ok(sent.is_none()),
            (AuthScheme::Basic, _) => Ok(false),
            (AuthScheme::Bearer { .. }, Some(Credential::RegistryToken(_))) => Ok(sent.is_none()),
            (AuthScheme::Bearer { realm, service }, credential) => {
                let scopes = merge(&call.scopes, &named);
                if state.token(&scopes).is_none() {
                    let granted = self.fetch_token(host, &realm, service.as_deref(), &scopes, credential.as_ref()).await?;
                    state.keep(scopes, granted);
                }
                Ok(true)
            }
        }
    }

    /// Whether a token server may be asked without TLS: on this machine, where the user said so, and where the registry at `from` is asked so itself.
    fn may_be_plain(&self, from: &Url, realm: &Url) -> bool {
        let host = realm.host_str().unwrap_or_default();
        let authority = realm.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
        let named = scheme_of(&authority, &self.inner.options.plain_http) == Scheme::Http;
        named || is_loopback(host.trim_matches(['[', ']'])) || (from.scheme() == "http" && from.host_str() == realm.host_str())
    }

    async fn fetch_token(
        &self,
        host: &Arc<Host>,
        realm: &Url,
        service: Option<&str>,
        scopes: &[Scope],
        credential: Option<&Credential>,
    ) -> Result<super::auth::Granted, Error> {
        let request = TokenRequest::new(realm, service, scopes, credential, self.inner.offline_tokens);
        let error = match self.ask_for_token(host, &request, credential.is_some()).await {
            Ok(granted) => return Ok(granted),
            Err(error) => error,
        };
        match (&request, credential) {
            // Servers of OAuth2 alone refuse GET.
            (TokenRequest::Get { .. }, Some(Credential::Basic { username, password })) if matches!(error.status(), Some(404 | 405)) => {
                let request = TokenRequest::password_grant(realm, service, scopes, username, password);
                self.ask_for_token(host, &request, true).await
            }
            _ => Err(error),
        }
    }

    /// One attempt: whoever needs the token tries again.
    async fn ask_for_token(&self, host: &Arc<Host>, request: &TokenRequest, had_credentials: bool) -> Result<super::auth::Granted, Error> {
        let (mut call, authorization) = token_call(request);
        call.insecure = host.insecure && call.url.host_str().is_some_and(|at| without_port(&host.name) == at.trim_matches(['[', ']']));
        let authority = Authority { origin: &call.url, authorization: authorization.as_ref(), headers: &HeaderMap::new() };
        let reply = self.dispatch(&call, Some(authority)).await?;
        let reply = self.check_status(reply, host, had_credentials).await?;
        let answer = reply.collect(self.inner.options.idle_timeout, TOKEN_LIMIT).await?;
        let granted = parse_token(&answer.url, &answer.body)?;
        self.inner.sent.add(&granted.value);
        if let Some(token) = &granted.refresh_token {
            self.inner.sent.add(token);
        }
        Ok(granted)
    }

    async fn check(&self, host: &Arc<Host>, call: &Call, reply: Reply) -> Result<Reply, Error> {
        if reply.status().is_success() {
            return Ok(reply);
        }
        let had_credentials = host.credentials.lock().await.get(&call.repository).is_some_and(Option::is_some);
        self.check_status(reply, host, had_credentials).await
    }

    /// Makes an error of every status but success.
    async fn check_status(&self, reply: Reply, host: &Host, had_credentials: bool) -> Result<Reply, Error> {
        if reply.status().is_success() {
            return Ok(reply);
        }
        let content_type = reply.header(CONTENT_TYPE.as_str()).unwrap_or("").to_owned();
        let retry_after = reply.header(RETRY_AFTER.as_str()).and_then(parse_retry_after);
        let (method, url, status) = (reply.method.to_string(), reply.safe_url(), reply.status().as_u16());
        // The status counts; a body that is cut, slow or too long only costs its words.
        let idle = self.inner.options.idle_timeout.min(Duration::from_secs(5));
        let body = reply.collect(idle, ERROR_BODY_LIMIT).await.map(|answer| answer.body).unwrap_or_default();
        let codes = parse_codes(&body, &content_type, |text| self.inner.sent.scrub(text));
        Err(Error::Status(Box::new(StatusError {
            method,
            url,
            status,
            codes,
            registry: host.name.clone(),
            had_credentials,
            helper_failure: host.helper_failure.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            retry_after,
        })))
    }

    /// Keeps `Warning: 299` (distribution-spec 1.1, "Warnings").
    fn note_warnings(&self, url: &Url, reply: &Reply) {
        for value in reply.response.headers().get_all(WARNING) {
            let Some(text) = value.to_str().ok().and_then(warning) else { continue };
            self.warn(format!("{}: {}", url.host_str().unwrap_or_default(), tame(&self.inner.sent.scrub(&text), 256)));
        }
    }
}

fn token_call(request: &TokenRequest) -> (Call, Option<HeaderValue>) {
    match request {
        TokenRequest::Get { url, authorization } => (Call::new(Method::GET, url.clone(), "", Vec::new()), authorization.clone()),
        TokenRequest::Post { url, form } => {
            let mut call = Call::new(Method::POST, url.clone(), "", Vec::new());
            call.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
            call.payload = Payload::Bytes(Bytes::from(form.expose().clone()));
            call.confidential = true;
            (call, None)
        }
    }
}

/// Unpacks what a proxy packed without being asked to; `None` where it is larger than `limit`.
fn gunzip(bytes: &[u8], limit: u64) -> io::Result<Option<Vec<u8>>> {
    let mut unpacked = Vec::new();
    flate2::read::MultiGzDecoder::new(bytes).take(limit.saturating_add(1)).read_to_end(&mut unpacked)?;
    Ok((unpacked.len() as u64 <= limit).then_some(unpacked))
}

fn authenticate_headers(reply: &Reply) -> impl Iterator<Item = &str> {
    reply.response.headers().get_all(WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok())
}

/// What has gone out of a streaming body.
#[derive(Default)]
struct Flow {
    bytes: AtomicU64,
    fault: Mutex<Option<Fault>>,
}

enum Fault {
    Read(io::Error),
    Short(u64),
}

impl Flow {
    fn fault(&self) -> Option<Fault> {
        self.fault.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn fail(&self, fault: Fault) -> io::Error {
        *self.fault.lock().unwrap_or_else(PoisonError::into_inner) = Some(fault);
        io::Error::other("the source of the blob failed")
    }
}

/// Opens a part of a blob as a body of exactly its length.
async fn open_slice(slice: &Slice, flow: Arc<Flow>) -> Result<impl Stream<Item = io::Result<Bytes>> + Send + 'static, Error> {
    let (source, offset) = (slice.source.clone(), slice.offset);
    let opened = blocking(move || source.open_at(offset)).await?;
    let stream = opened.map_err(|source| Error::Source { digest: slice.digest.clone(), source })?;
    let state = (stream, slice.length, slice.clone(), flow);
    Ok(futures_util::stream::unfold(Some(state), |state| async {
        let (mut stream, left, slice, flow) = state?;
        if left == 0 {
            return None;
        }
        match stream.next().await {
            None => Some((Err(flow.fail(Fault::Short(slice.length - left))), None)),
            Some(Err(error)) => Some((Err(flow.fail(Fault::Read(error))), None)),
            Some(Ok(mut chunk)) => {
                chunk.truncate(usize::try_from(left).unwrap_or(usize::MAX));
                let left = left - chunk.len() as u64;
                flow.bytes.store(slice.length - left, Ordering::Relaxed);
                (slice.sent_to)(slice.offset + slice.length - left);
                Some((Ok(chunk), Some((stream, left, slice, flow))))
            }
        }
    }))
}

/// Says what broke. The client's own message loses its URL, which may carry a signature. `is_asked` says whether the server wanted a certificate of ours.
pub(super) fn transport_error(method: &Method, url: &Url, error: reqwest::Error, is_asked: bool) -> Error {
    let error = error.without_url();
    if error.is_builder() {
        return Error::Setup(error);
    }
    let cause = match tls_error(&error) {
        Some(rustls::Error::InvalidMessage(_)) => TransportCause::NotTls,
        // What we say of its certificate comes before what it says of ours.
        Some(rustls::Error::AlertReceived(_)) if is_asked => TransportCause::Identity,
        Some(_) => TransportCause::Tls,
        // A server that closes at our certificate may do so before the connection counts as made, and its alert may be lost.
        None if is_asked && (!error.is_connect() || was_connected(&error)) => TransportCause::Identity,
        None if error.is_connect() => TransportCause::Connect,
        None => TransportCause::Broken,
    };
    Error::Transport { method: method.to_string(), url: SafeUrl::new(url.as_str()), cause, source: error }
}

/// The TLS error in a chain of errors.
fn tls_error<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a rustls::Error> {
    find_cause(error, &|_: &rustls::Error| true)
}

/// Whether a failure to connect came after the other end had answered: it then closed the connection, of which the system tells in few ways.
fn was_connected(error: &(dyn std::error::Error + 'static)) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    let system = find_cause(error, &|_: &io::Error| true);
    system.is_none_or(|error| matches!(error.kind(), BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof))
}

/// The first error of a type in a chain of errors for which `is_it` holds; `io::Error` hides what it wraps from the chain.
fn find_cause<'a, E>(error: &'a (dyn std::error::Error + 'static), is_it: &dyn Fn(&E) -> bool) -> Option<&'a E>
where
    E: std::error::Error + 'static,
{
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<E>().filter(|found| is_it(found)) {
            return Some(found);
        }
        let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        if let Some(found) = inner.and_then(|inner| find_cause(inner as &(dyn std::error::Error + 'static), is_it)) {
            return Some(found);
        }
        next = error.source();
    }
    None
}
