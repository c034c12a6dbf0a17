//! Connections: HTTP clients with the right roots, certificates and proxies for each server.
//!
//! Root certificates are read when the first `https` URL is met, not before: parsing them costs milliseconds that a build against a local registry
//! need not pay, and a system without any can still use plain HTTP. Servers with their own folder in `certs.d` get a client of their own.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ResolvesClientCert, WebPkiServerVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::sign::CertifiedKey;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio::sync::{Mutex, OnceCell};
use url::Url;

use super::error::Error;
use super::host::{base_url, matches_host};
use super::options::{CertificateFiles, ClientOptions};
use super::proxy::Chooser;

/// Whose certificates are believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Trust {
    /// Those that the system and `certs.d` vouch for.
    Checked,
    /// Every one.
    Anyone,
}

/// A HTTP client for servers of one kind.
#[derive(Clone, Debug)]
pub(super) struct Connection {
    pub(super) http: reqwest::Client,
    /// Whether a server asked for a certificate. With TLS 1.3 it breaks the connection if it does not like what it got, and its reason may be lost.
    is_asked: Arc<AtomicBool>,
}

impl Connection {
    /// Whether a server asked for a certificate of ours.
    pub(super) fn is_asked(&self) -> bool {
        self.is_asked.load(Ordering::Relaxed)
    }
}

/// What the system trusts.
#[derive(Clone, Debug)]
struct Roots {
    store: Arc<RootCertStore>,
    /// The same as they are in files: a server may have one of them itself.
    certificates: Arc<[CertificateDer<'static>]>,
}

/// HTTP clients by what they must trust.
#[derive(Debug, Default)]
pub(super) struct Connections {
    plain: OnceCell<Connection>,
    roots: OnceCell<Roots>,
    usual: OnceCell<Connection>,
    /// For `host` or `host:port` with certificates of their own, or none to check.
    special: Mutex<HashMap<(String, Trust), Option<Connection>>>,
}

impl Connections {
    /// The client for `url`.
    pub(super) async fn client(&self, url: &Url, options: &ClientOptions, trust: Trust) -> Result<Connection, Error> {
        if url.scheme() == "http" {
            let plain = || async { build(options, tls_config(RootCertStore::empty(), None)) };
            return self.plain.get_or_try_init(plain).await.cloned();
        }
        let authority = authority(url);
        let mut special = self.special.lock().await;
        if let Some(known) = special.get(&(authority.clone(), trust)) {
            if let Some(client) = known {
                return Ok(client.clone());
            }
        } else {
            let made = self.special_client(&authority, options, trust).await?;
            special.insert((authority.clone(), trust), made.clone());
            if let Some(client) = made {
                return Ok(client);
            }
        }
        drop(special);
        let roots = self.roots().await?;
        if roots.store.is_empty() {
            return Err(Error::NoRootCertificates { host: authority });
        }
        self.usual.get_or_try_init(|| async { build(options, trusting(roots.store, roots.certificates.to_vec(), None)) }).await.cloned()
    }

    async fn special_client(&self, authority: &str, options: &ClientOptions, trust: Trust) -> Result<Option<Connection>, Error> {
        if trust == Trust::Anyone || options.skip_tls_verify.iter().any(|pattern| matches_host(pattern, authority)) {
            let mut config = tls_config(RootCertStore::empty(), None)?;
            config.tls.dangerous().set_certificate_verifier(Arc::new(TrustEveryone(provider())));
            return build(options, Ok(config)).map(Some);
        }
        let asked = options.certs_folder.as_ref().filter(|(registry, _)| is_at(registry, authority)).map(|(_, folder)| folder.clone());
        let named = options.certificates.get(authority).cloned();
        let folders: Vec<PathBuf> = options.certs_dirs.iter().flat_map(|dir| folder_names(authority).map(|name| dir.join(name))).collect();
        if folders.is_empty() && named.is_none() && asked.is_none() {
            return Ok(None);
        }
        let found = blocking(move || match (asked, named) {
            (Some(folder), _) => read_folder(&folder).map(Some),
            (None, Some(files)) => read_files(&files).map(Some),
            (None, None) => folders.iter().find(|folder| folder.is_dir()).map(|folder| read_folder(folder)).transpose(),
        });
        let Some(folder) = found.await?? else { return Ok(None) };
        let system = self.roots().await?;
        let mut roots = RootCertStore::clone(&system.store);
        roots.add_parsable_certificates(folder.authorities.iter().cloned());
        let known = folder.authorities.into_iter().chain(system.certificates.iter().cloned()).collect();
        build(options, trusting(Arc::new(roots), known, folder.identity)).map(Some)
    }

    async fn roots(&self) -> Result<Roots, Error> {
        let load = || async {
            let found = blocking(rustls_native_certs::load_native_certs).await?;
            for error in &found.errors {
                tracing::debug!(%error, "a root certificate cannot be read");
            }
            let mut roots = RootCertStore::empty();
            roots.add_parsable_certificates(found.certs.iter().cloned());
            Ok(Roots { store: Arc::new(roots), certificates: found.certs.into() })
        };
        self.roots.get_or_try_init(load).await.cloned()
    }
}

/// Runs blocking code elsewhere. Its panic is ours.
pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Error> {
    match crate::task::spawn_blocking(work).await {
        Ok(result) => Ok(result),
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(_) => Err(Error::Stopped),
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

type Identity = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

/// How a client does TLS.
struct TlsConfig {
    tls: ClientConfig,
    is_asked: Arc<AtomicBool>,
}

/// What we show to servers that ask who we are.
#[derive(Debug)]
struct ShowIdentity {
    identity: Option<Arc<CertifiedKey>>,
    is_asked: Arc<AtomicBool>,
}

impl ResolvesClientCert for ShowIdentity {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.is_asked.store(true, Ordering::Relaxed);
        self.identity.clone()
    }

    fn has_certs(&self) -> bool {
        self.identity.is_some()
    }
}

fn tls_config(roots: RootCertStore, identity: Option<Identity>) -> Result<TlsConfig, Error> {
    let bad = |error: rustls::Error| Error::BadOption { option: "client certificate", value: error.to_string() };
    let builder = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions().map_err(bad)?;
    let identity = identity.map(|(chain, key)| CertifiedKey::from_der(chain, key, &provider())).transpose().map_err(bad)?;
    let is_asked = Arc::new(AtomicBool::new(false));
    let shown = ShowIdentity { identity: identity.map(Arc::new), is_asked: is_asked.clone() };
    let mut tls = builder.with_root_certificates(roots).with_client_cert_resolver(Arc::new(shown));
    tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsConfig { tls, is_asked })
}

/// A client that believes those authorities, and servers that have one of the `known` certificates themselves.
fn trusting(roots: Arc<RootCertStore>, known: Vec<CertificateDer<'static>>, identity: Option<Identity>) -> Result<TlsConfig, Error> {
    let mut config = tls_config(RootCertStore::clone(&roots), identity)?;
    let bad = |error: rustls::client::VerifierBuilderError| Error::BadOption { option: "certificate", value: error.to_string() };
    let usual = WebPkiServerVerifier::builder_with_provider(roots, provider()).build().map_err(bad)?;
    config.tls.dangerous().set_certificate_verifier(Arc::new(SelfSigned { usual, known }));
    Ok(config)
}

fn build(options: &ClientOptions, config: Result<TlsConfig, Error>) -> Result<Connection, Error> {
    let TlsConfig { tls, is_asked } = config?;
    let loopback = [SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0), SocketAddr::new(IpAddr::V6(Ipv6Addr::LOCALHOST), 0)];
    let mut builder = reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .user_agent(&options.user_agent)
        .redirect(reqwest::redirect::Policy::none())
        .referer(false)
        .connect_timeout(options.connect_timeout)
        // Without a name server, too, this machine is this machine.
        .resolve_to_addrs("localhost", &loopback)
        .tcp_nodelay(true)
        .tcp_keepalive(Duration::from_secs(30))
        .pool_idle_timeout(Duration::from_secs(30))
        // The default windows of HTTP/2 (64 KiB) hold a layer on a distant server to a few MB/s.
        .http2_initial_stream_window_size(4 << 20)
        .http2_initial_connection_window_size(16 << 20)
        .no_proxy();
    if options.proxies.http.is_some() || options.proxies.https.is_some() {
        let chooser = Chooser::new(&options.proxies)?;
        builder = builder.proxy(reqwest::Proxy::custom(move |url| chooser.choose(url)));
    }
    Ok(Connection { http: builder.build().map_err(Error::Setup)?, is_asked })
}

/// What a folder of `certs.d` holds.
struct CertsFolder {
    authorities: Vec<CertificateDer<'static>>,
    identity: Option<Identity>,
}

/// `host` or `host:port` of a URL.
fn authority(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

/// Whether the registry of this name answers at `there`.
fn is_at(registry: &str, there: &str) -> bool {
    base_url(registry, "https").is_ok_and(|url| authority(&url) == there)
}

/// What the folder of a registry may be called: with the port that TLS has without saying, too.
fn folder_names(authority: &str) -> impl Iterator<Item = String> {
    let has_port = authority.rsplit(']').next().unwrap_or(authority).contains(':');
    let with_port = (!has_port).then(|| format!("{authority}:443"));
    std::iter::once(authority.to_owned()).chain(with_port)
}

fn read_files(files: &CertificateFiles) -> Result<CertsFolder, Error> {
    let mut found = CertsFolder { authorities: Vec::new(), identity: None };
    for path in &files.authorities {
        found.authorities.extend(read_certificates(path)?);
    }
    if let Some((certificate, key)) = &files.identity {
        found.identity = Some((read_certificates(certificate)?, read_key(key)?));
    }
    Ok(found)
}

fn read_key(path: &Path) -> Result<PrivateKeyDer<'static>, Error> {
    PrivateKeyDer::from_pem_file(path).map_err(|error| Error::Certificate { path: path.to_owned(), reason: error.to_string() })
}

fn read_folder(folder: &Path) -> Result<CertsFolder, Error> {
    let bad = |path: &Path, reason: String| Error::Certificate { path: path.to_owned(), reason };
    let entries = std::fs::read_dir(folder).map_err(|error| bad(folder, error.to_string()))?;
    let mut paths: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.sort();
    let mut found = CertsFolder { authorities: Vec::new(), identity: None };
    for path in paths {
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("crt" | "pem") => found.authorities.extend(read_certificates(&path)?),
            Some("cert") if found.identity.is_none() => {
                found.identity = Some((read_certificates(&path)?, read_key(&path.with_extension("key"))?));
            }
            _ => {}
        }
    }
    Ok(found)
}

fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let bad = |reason: String| Error::Certificate { path: path.to_owned(), reason };
    let certificates = CertificateDer::pem_file_iter(path).map_err(|error| bad(error.to_string()))?;
    let certificates: Result<Vec<_>, _> = certificates.collect();
    let certificates = certificates.map_err(|error| bad(error.to_string()))?;
    if certificates.is_empty() { Err(bad("it holds no certificate in PEM form".to_owned())) } else { Ok(certificates) }
}

/// Checks as usual, but takes a certificate that was put into the folder, or among the system's, itself, as programs written in Go and those with OpenSSL do: the usual check refuses an authority's own
/// certificate for a server, which is what `openssl req -x509` makes.
#[derive(Debug)]
struct SelfSigned {
    usual: Arc<WebPkiServerVerifier>,
    known: Vec<CertificateDer<'static>>,
}

impl ServerCertVerifier for SelfSigned {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let error = match self.usual.verify_server_cert(certificate, others, name, ocsp, now) {
            Err(error @ rustls::Error::InvalidCertificate(CertificateError::Other(_))) => error,
            result => return result,
        };
        // This is found after the times were checked, and before the name is.
        let is_authority = format!("{error:?}").contains("CaUsedAsEndEntity");
        if !is_authority || !self.known.iter().any(|known| known.as_ref() == certificate.as_ref()) {
            return Err(error);
        }
        rustls::client::verify_server_name(&ParsedCertificate::try_from(certificate)?, name)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.usual.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.usual.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.usual.supported_verify_schemes()
    }
}

/// Accepts every certificate, for hosts that the user named.
#[derive(Debug)]
struct TrustEveryone(Arc<CryptoProvider>);

impl ServerCertVerifier for TrustEveryone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
