//! Pulls from a registry that serves what it should, or not.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde_json::json;

use super::pull::{record, resolve, resolve_stored, unpack};
use crate::image::Error;
use crate::oci::{Digest, Platform, Reference};
use crate::progress::Progress;
use crate::registry::{Client, ClientOptions};
use crate::store::{ImageRecord, Ingest, Store};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// A registry with one image of one layer. It damages that many answers before it serves the layer well.
struct Served {
    layer: Vec<u8>,
    config: Vec<u8>,
    manifest: Vec<u8>,
    damaged: AtomicUsize,
}

impl Served {
    fn new(damaged: usize) -> Arc<Served> {
        let content = vec![b'x'; 300_000];
        let mut builder = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_ustar();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, "hello", content.as_slice()).unwrap();
        let layer = builder.into_inner().unwrap();
        let diff_id = Digest::sha256(&layer).to_string();
        let config = json!({ "architecture": "amd64", "os": "linux", "rootfs": { "type": "layers", "diff_ids": [diff_id] } });
        let config = config.to_string().into_bytes();
        let descriptor =
            |kind: &str, bytes: &[u8]| json!({ "mediaType": kind, "digest": Digest::sha256(bytes).to_string(), "size": bytes.len() });
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": descriptor("application/vnd.oci.image.config.v1+json", &config),
            "layers": [descriptor("application/vnd.oci.image.layer.v1.tar", &layer)],
        });
        Arc::new(Served { layer, config, manifest: manifest.to_string().into_bytes(), damaged: AtomicUsize::new(damaged) })
    }

    /// Listens on loopback; gives the image's name there.
    async fn listen(self: &Arc<Served>) -> Reference {
        let app = Router::new()
            .route("/v2/", get(async || "{}"))
            .route("/v2/a/manifests/{name}", get(manifest))
            .route("/v2/a/blobs/{digest}", get(blob))
            .with_state(self.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, app).await });
        format!("{address}/a:1").parse().unwrap()
    }
}

async fn manifest(State(served): State<Arc<Served>>) -> Response {
    ([(CONTENT_TYPE, MANIFEST)], served.manifest.clone()).into_response()
}

async fn blob(State(served): State<Arc<Served>>, Path(digest): Path<String>) -> Response {
    if digest == Digest::sha256(&served.config).to_string() {
        return served.config.clone().into_response();
    }
    if digest != Digest::sha256(&served.layer).to_string() {
        return StatusCode::NOT_FOUND.into_response();
    }
    let mut bytes = served.layer.clone();
    if served.damaged.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok() {
        // The header of the archive, so that unpacking fails long before the digest can.
        bytes[0] ^= 0xff;
    }
    bytes.into_response()
}

fn store() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("store")).unwrap();
    (dir, store)
}

async fn pull(store: &Store, name: &Reference) -> Result<ImageRecord, Error> {
    let client = Client::new(ClientOptions::default()).unwrap();
    let resolved = resolve(&client, store, name, &Platform::host()).await?;
    let step = Progress::silent().start("pull", None);
    let snapshots = unpack(&client, store, name, &resolved, &step).await?;
    record(store, name, &resolved, &snapshots)
}

fn is_whole(store: &Store, image: &ImageRecord) -> bool {
    let path = store.snapshot_path(image.snapshots[0]).join("hello");
    std::fs::metadata(path).is_ok_and(|metadata| metadata.len() == 300_000)
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_on_the_way_is_told_as_such_and_does_not_last() {
    let ((_dir, store), served) = (store(), Served::new(1));
    let name = served.listen().await;
    let error = pull(&store, &name).await.unwrap_err();
    assert!(matches!(error, Error::Registry(crate::registry::Error::DigestMismatch { .. })), "{error}");
    assert!(store.resolve(&name).unwrap().is_none());
    let image = pull(&store, &name).await.unwrap();
    assert!(is_whole(&store, &image));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_beginning_that_is_wrong_is_fetched_again() {
    let ((_dir, store), served) = (store(), Served::new(0));
    let name = served.listen().await;
    for length in [1000, served.layer.len(), served.layer.len() + 1] {
        let (_dir, store) = self::store();
        let Ingest::Ready(mut writer) = store.ingest(Some(&Digest::sha256(&served.layer))).unwrap() else { panic!("nobody writes it") };
        writer.append(&vec![b'?'; length]).unwrap();
        drop(writer);
        let image = pull(&store, &name).await.unwrap();
        assert!(is_whole(&store, &image), "after {length} bytes");
    }
    assert!(store.images().unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn two_pulls_at_once_unpack_once() {
    let ((_dir, store), served) = (store(), Served::new(0));
    let name = served.listen().await;
    let (one, two) = tokio::join!(pull(&store, &name), pull(&store, &name));
    assert_eq!(one.unwrap().snapshots, two.unwrap().snapshots);
    assert_eq!(store.snapshots().unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_came_from_a_repository_is_not_asked_for_by_digest() {
    let ((_dir, store), served) = (store(), Served::new(0));
    let name = served.listen().await;
    pull(&store, &name).await.unwrap();
    let by_digest = |name: &Reference| name.only_digest(Digest::sha256(&served.manifest));
    // Nobody listens there, and nothing came from there.
    let elsewhere = by_digest(&"127.0.0.1:1/a:1".parse().unwrap());
    pull(&store, &elsewhere).await.unwrap_err();
    assert!(store.resolve(&elsewhere).unwrap().is_none());
    let image = store.resolve(&name).unwrap().unwrap();
    let silent = Client::new(ClientOptions::default()).unwrap();
    resolve_stored(&silent, &store, &elsewhere, &Platform::host()).await.unwrap();
    // As it would be if it had been pulled from there.
    store.tag(&"127.0.0.1:1/a:1".parse().unwrap(), &image.id, image.manifest.as_ref()).unwrap();
    pull(&store, &elsewhere).await.unwrap();
}
