//! Certificates and keys for those who connect.

use std::path::Path;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

use super::Error;

/// Takes a chain of certificates and its key, both PEM.
pub(super) fn acceptor(chain: &Path, key: &Path) -> Result<TlsAcceptor, Error> {
    let bad = |what, path: &Path, reason: String| Error::Tls { what, path: path.to_owned(), reason };
    let text = std::fs::read(chain).map_err(Error::io("read", chain))?;
    let certificates: Vec<_> =
        CertificateDer::pem_slice_iter(&text).collect::<Result<_, _>>().map_err(|error| bad("certificate", chain, error.to_string()))?;
    if certificates.is_empty() {
        return Err(bad("certificate", chain, "it holds no PEM certificate".into()));
    }
    let text = std::fs::read(key).map_err(Error::io("read", key))?;
    let private = PrivateKeyDer::from_pem_slice(&text).map_err(|error| bad("key", key, error.to_string()))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(certificates, private));
    let mut config = config.map_err(|error| bad("key", key, error.to_string()))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}
