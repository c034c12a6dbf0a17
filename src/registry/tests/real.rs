//! The whole way through a real registry (`docker-registry`, as Debian packages it), with and without passwords and TLS.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::AsyncReadExt;

use crate::diag::Secret;
use crate::oci::{Descriptor, Digest, Hasher, MediaType, Reference};
use crate::registry::{
    BlobUpload, Client, ClientOptions, CredentialFiles, Credentials, Error, LoginOutcome, LoginTarget, MountOutcome, TransportCause,
    Uploaded, save_login,
};

use super::server::{basic, quick};
use super::{blob, content};

const PROGRAM: &str = "/usr/bin/docker-registry";

/// A real registry on a busy machine may take its time.
fn patient() -> ClientOptions {
    ClientOptions { idle_timeout: Duration::from_secs(20), ..quick() }
}

struct Registry {
    child: Child,
    folder: tempfile::TempDir,
    port: u16,
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Starts a registry. `fill` may put files into its folder, and gives back what its configuration says besides: lines of the section `http`, then a
/// line `---`, then other sections.
async fn start(fill: impl Fn(&Path) -> Option<String>) -> Option<Registry> {
    if !Path::new(PROGRAM).exists() {
        eprintln!("skipped: {PROGRAM} is not installed");
        return None;
    }
    for _ in 0..5 {
        let folder = tempfile::tempdir().unwrap();
        let extra = fill(folder.path())?;
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let (http, rest) = extra.split_once("---\n").unwrap_or(("", &extra));
        let storage = folder.path().join("storage").display().to_string();
        let config = format!(
            "version: 0.1\nlog: {{level: error, accesslog: {{disabled: true}}}}\nstorage: {{filesystem: {{rootdirectory: {storage}}}, delete: {{enabled: \
             true}}}}\nhttp:\n  addr: 127.0.0.1:{port}\n{http}{rest}"
        );
        let path = folder.path().join("config.yml");
        std::fs::write(&path, config).unwrap();
        let child = Command::new(PROGRAM).arg("serve").arg(&path).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let mut registry = Registry { child, folder, port };
        for _ in 0..400 {
            if registry.child.try_wait().unwrap().is_some() {
                // Somebody else took the port in between.
                break;
            }
            if tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_ok() {
                return Some(registry);
            }
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
    }
    panic!("the registry did not start");
}

impl Registry {
    fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    fn reference(&self, rest: &str) -> Reference {
        format!("{}/{rest}", self.host()).parse().unwrap()
    }
}

fn upload(content: &[u8]) -> BlobUpload {
    let source = Arc::new(Bytes::copy_from_slice(content));
    BlobUpload { digest: Digest::sha256(content), size: content.len() as u64, source, mount_from: None, progress: None }
}

async fn read(client: &Client, reference: &Reference, blob: &Descriptor) -> Result<Vec<u8>, Error> {
    let mut stream = client.fetch_blob(reference, blob).await?;
    let mut out = Vec::new();
    while let Some(chunk) = stream.next_chunk().await? {
        out.extend_from_slice(&chunk);
    }
    Ok(out)
}

fn manifest(config: &[u8], layer: &[u8]) -> Vec<u8> {
    let config = Descriptor::new(MediaType::OciConfig, Digest::sha256(config), config.len() as u64);
    let document = serde_json::json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": config,
        "layers": [blob(layer)],
    });
    serde_json::to_vec(&document).unwrap()
}

/// Pushes an image, pulls it again, and deletes it.
async fn round_trip(client: &Client, registry: &Registry) {
    let (config, layer) = (b"{}".to_vec(), content(3_000_000));
    let reference = registry.reference("acme/app:1.0");
    assert_eq!(client.ensure_blob(&reference, &upload(&config)).await.unwrap(), Uploaded::Sent);
    assert_eq!(client.ensure_blob(&reference, &upload(&layer)).await.unwrap(), Uploaded::Sent);
    assert_eq!(client.ensure_blob(&reference, &upload(&layer)).await.unwrap(), Uploaded::Existed);
    let bytes = manifest(&config, &layer);
    let digest = client.put_manifest(&reference, bytes.clone(), &MediaType::OciManifest).await.unwrap();

    let found = client.resolve(&reference).await.unwrap();
    assert_eq!((&found.digest, found.size), (&digest, bytes.len() as u64));
    let fetched = client.fetch_manifest(&reference.with_digest(digest.clone())).await.unwrap();
    assert_eq!((fetched.bytes, fetched.media_type), (Bytes::from(bytes), MediaType::OciManifest));
    assert!(read(client, &reference, &blob(&layer)).await.unwrap() == layer);
    let mut hasher = Hasher::new(crate::oci::Algorithm::Sha256);
    hasher.update(&layer[..1_000_000]);
    let mut rest = client.resume_blob(&reference, &blob(&layer), 1_000_000, hasher).await.unwrap();
    while rest.next_chunk().await.unwrap().is_some() {}

    let other = registry.reference("acme/other:1");
    assert_eq!(client.mount_blob(&other, &Digest::sha256(&layer), &reference).await.unwrap(), MountOutcome::Mounted);
    assert!(client.blob_exists(&other, &Digest::sha256(&layer)).await.unwrap());
    assert_eq!(client.mount_blob(&other, &Digest::sha256(b"nowhere"), &reference).await.unwrap(), MountOutcome::Refused);

    assert_eq!(client.tags(&reference).await.unwrap(), ["1.0"]);
    client.delete_manifest(&reference.with_digest(digest)).await.unwrap();
    let error = client.fetch_manifest(&reference).await.unwrap_err();
    assert!(error.is_not_found() && error.has_code("MANIFEST_UNKNOWN"), "{error}");
}

#[tokio::test]
async fn an_image_goes_through_an_open_registry() {
    let Some(registry) = start(|_| Some(String::new())).await else { return };
    round_trip(&Client::new(patient()).unwrap(), &registry).await;
}

#[tokio::test]
async fn a_manifest_without_its_blobs_is_refused_in_the_registrys_words() {
    let Some(registry) = start(|_| Some(String::new())).await else { return };
    let bytes = manifest(b"no", b"no");
    let client = Client::new(patient()).unwrap();
    let error = client.put_manifest(&registry.reference("a/b:1"), bytes, &MediaType::OciManifest).await.unwrap_err();
    assert!(error.has_code("MANIFEST_BLOB_UNKNOWN"), "{error}");
}

#[tokio::test]
async fn all_tags_are_listed() {
    let Some(registry) = start(|_| Some(String::new())).await else { return };
    let client = Client::new(patient()).unwrap();
    let reference = registry.reference("a/b:0");
    client.ensure_blob(&reference, &upload(b"{}")).await.unwrap();
    let bytes = manifest(b"{}", b"{}");
    for tag in 0..5 {
        client.put_manifest(&registry.reference(&format!("a/b:{tag}")), bytes.clone(), &MediaType::OciManifest).await.unwrap();
    }
    let mut tags = client.tags(&reference).await.unwrap();
    tags.sort();
    assert_eq!(tags, ["0", "1", "2", "3", "4"]);
}

/// A line to `port` that breaks: the n-th connection is closed after `limits[n]` bytes in either direction; later ones hold.
async fn breaking_line(port: u16, limits: Vec<u64>) -> u16 {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let here = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let mut limits = limits.into_iter();
        while let Ok((client, _)) = listener.accept().await {
            let limit = limits.next().unwrap_or(u64::MAX);
            let server = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
            tokio::spawn(async move {
                let ((from_client, mut to_client), (from_server, mut to_server)) = (client.into_split(), server.into_split());
                let (mut up, mut down) = (from_client.take(limit), from_server.take(limit));
                tokio::select! {
                    _ = tokio::io::copy(&mut up, &mut to_server) => {}
                    _ = tokio::io::copy(&mut down, &mut to_client) => {}
                }
            });
        }
    });
    here
}

#[tokio::test]
async fn a_line_that_breaks_again_and_again_only_costs_time() {
    let Some(registry) = start(|_| Some(String::new())).await else { return };
    let content = content(20_000_000);
    let limits = vec![1_000_000, 7_000_000, 5_000_000, 100, 3_000_000];
    let port = breaking_line(registry.port, limits.clone()).await;
    let reference: Reference = format!("127.0.0.1:{port}/a/b").parse().unwrap();
    assert_eq!(Client::new(patient()).unwrap().ensure_blob(&reference, &upload(&content)).await.unwrap(), Uploaded::Sent);

    let port = breaking_line(registry.port, limits).await;
    let reference: Reference = format!("127.0.0.1:{port}/a/b").parse().unwrap();
    assert!(read(&Client::new(patient()).unwrap(), &reference, &blob(&content)).await.unwrap() == content);
}

fn htpasswd(folder: &Path) -> Option<String> {
    let made = Command::new("htpasswd").args(["-Bbn", "alice", "secret:pw"]).output();
    let Ok(made) = made else {
        eprintln!("skipped: htpasswd is not installed");
        return None;
    };
    let path = folder.join("htpasswd");
    std::fs::write(&path, made.stdout).unwrap();
    Some(format!("auth:\n  htpasswd:\n    realm: test\n    path: {}\n", path.display()))
}

#[tokio::test]
async fn a_saved_login_opens_a_registry_with_passwords() {
    let Some(registry) = start(htpasswd).await else { return };
    let anonymous = Client::new(patient()).unwrap();
    let error = anonymous.resolve(&registry.reference("a/b:1")).await.unwrap_err();
    assert!(error.is_unauthorized() && error.has_code("UNAUTHORIZED"), "{error}");
    assert!(error.hint().unwrap().contains("strake login"));
    assert!(anonymous.ping_auth(&registry.host(), &basic("alice", "wrong")).await.unwrap_err().is_unauthorized());
    let credential = basic("alice", "secret:pw");
    let outcome = anonymous.ping_auth(&registry.host(), &credential).await.unwrap();
    assert_eq!(outcome, LoginOutcome::Accepted { identity_token: None });

    let config = registry.folder.path().join("docker/config.json");
    let target = LoginTarget { config: config.clone(), helper: None, helper_dirs: Vec::new() };
    save_login(&target, &registry.host(), "alice", &credential).unwrap();
    let files = CredentialFiles { docker_config: Some(config), ..CredentialFiles::default() };
    let credentials = Credentials::load(&files).unwrap();
    round_trip(&Client::new(ClientOptions { credentials, ..patient() }).unwrap(), &registry).await;
}

/// A self-signed certificate for 127.0.0.1.
fn certificate(folder: &Path) -> Option<(PathBuf, PathBuf)> {
    let (cert, key) = (folder.join("cert.pem"), folder.join("key.pem"));
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=test"])
        .args(["-addext", "subjectAltName=IP:127.0.0.1", "-addext", "basicConstraints=critical,CA:FALSE", "-keyout"])
        .args([&key, Path::new("-out"), &cert])
        .stderr(Stdio::null())
        .status();
    if !made.is_ok_and(|status| status.success()) {
        eprintln!("skipped: openssl cannot make a certificate");
        return None;
    }
    Some((cert, key))
}

#[tokio::test]
async fn a_registry_with_tls_needs_a_certificate_that_we_trust() {
    let tls = |folder: &Path| {
        let (cert, key) = certificate(folder)?;
        Some(format!("  tls:\n    certificate: {}\n    key: {}\n---\n", cert.display(), key.display()))
    };
    let Some(registry) = start(tls).await else { return };
    let reference = registry.reference("acme/app:1.0");
    let error = Client::new(patient()).unwrap().resolve(&reference).await.unwrap_err();
    assert!(matches!(error, Error::Transport { cause: TransportCause::Tls, .. } | Error::NoRootCertificates { .. }), "{error:?}");
    assert!(error.hint().is_some());

    let careless = Client::new(ClientOptions { skip_tls_verify: vec![registry.host()], ..patient() }).unwrap();
    round_trip(&careless, &registry).await;

    let certs = registry.folder.path().join("certs.d");
    std::fs::create_dir_all(certs.join(registry.host())).unwrap();
    std::fs::copy(registry.folder.path().join("cert.pem"), certs.join(registry.host()).join("ca.crt")).unwrap();
    let trusting = Client::new(ClientOptions { certs_dirs: vec![certs], ..patient() }).unwrap();
    assert!(trusting.resolve(&reference).await.unwrap_err().is_not_found());
}

#[tokio::test]
async fn plain_http_where_tls_is_expected_is_explained() {
    let Some(registry) = start(|_| Some(String::new())).await else { return };
    // A name that is not loopback, at a loopback address: only the proxy setting gets us there without a name server.
    let proxies = crate::registry::Proxies { https: Some(Secret::new(format!("https://{}", registry.host()))), ..Default::default() };
    let client = Client::new(ClientOptions { proxies, skip_tls_verify: vec!["*".to_owned()], ..patient() }).unwrap();
    let reference: Reference = "registry.example/a/b:1".parse().unwrap();
    let error = client.resolve(&reference).await.unwrap_err();
    assert!(error.to_string().ends_with("the server does not speak TLS"), "{error:?}");
    assert!(error.hint().unwrap().contains("--plain-http"));
}
