//! What is collected, and what never is.

use std::time::Duration;

use serde_json::json;

use crate::oci::Digest;

use super::super::storage::{Access, Storage};
use super::super::{Collected, collect};
use super::{Running, exists, noise};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// Pushes an image of one config and one layer; gives the digests of both and of the manifest.
async fn push(registry: &Running, name: &str, layer: &[u8]) -> [Digest; 3] {
    let (config, layer) = (registry.push_blob(name, b"{}").await, registry.push_blob(name, layer).await);
    let document = json!({
        "schemaVersion": 2,
        "config": { "mediaType": "application/vnd.oci.image.config.v1+json", "digest": config.to_string(), "size": 2 },
        "layers": [{ "mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": layer.to_string(), "size": 1 }],
    });
    let bytes = document.to_string().into_bytes();
    registry.put_manifest(name, "latest", MANIFEST, &bytes).await.is(201);
    [config, layer, Digest::sha256(&bytes)]
}

#[tokio::test]
async fn what_no_manifest_names_goes_and_the_rest_stays() {
    let registry = Running::start().await;
    let [config, layer, manifest] = push(&registry, "kept", b"layer").await;
    let [_, other, gone] = push(&registry, "gone", b"other layer").await;
    let loose = registry.push_blob("kept", b"loose").await;
    let location = registry.begin("kept").await;
    std::fs::write(registry.storage().join("blobs/sha256").join(Digest::sha256(b"orphan").hex()), b"orphan").unwrap();
    // All of it is young.
    assert_eq!(collect(&registry.storage(), Duration::from_secs(60)).unwrap(), Some(Collected::default()));
    registry.delete(&format!("/v2/gone/manifests/{gone}")).await.is(202);
    let done = collect(&registry.storage(), Duration::ZERO).unwrap().unwrap();
    assert_eq!(done, Collected { blobs: 3, bytes: (b"loose".len() + b"other layer".len() + b"orphan".len()) as u64, uploads: 1 });
    let mut left = vec![config.hex(), layer.hex()];
    left.sort();
    let mut files = registry.files("blobs/sha256");
    files.sort();
    assert_eq!(files, left);
    for digest in [&config, &layer] {
        registry.get(&format!("/v2/kept/blobs/{digest}")).await.is(200);
    }
    registry.get(&format!("/v2/kept/manifests/{manifest}")).await.is(200);
    for (name, digest) in [("kept", &loose), ("gone", &other), ("gone", &config)] {
        registry.get(&format!("/v2/{name}/blobs/{digest}")).await.refused(404, "BLOB_UNKNOWN");
    }
    registry.get(&location).await.refused(404, "BLOB_UPLOAD_UNKNOWN");
    registry.get("/v2/gone/tags/list").await.refused(404, "NAME_UNKNOWN");
    // And it can come again.
    push(&registry, "gone", b"other layer").await;
}

#[tokio::test]
async fn a_blob_that_was_asked_for_stays_for_the_push_that_asked() {
    let registry = Running::start().await;
    let digest = registry.push_blob("a", b"old").await;
    // As if it had been pushed long ago.
    let sql = format!("UPDATE links SET touched = touched - 7200 WHERE digest = '{digest}'");
    rusqlite::Connection::open(registry.storage().join("registry.db")).unwrap().execute(&sql, []).unwrap();
    registry.head(&format!("/v2/a/blobs/{digest}")).await.is(200);
    assert_eq!(collect(&registry.storage(), Duration::from_secs(3600)).unwrap().unwrap().blobs, 0);
    registry.head(&format!("/v2/a/blobs/{digest}")).await.is(200);
}

#[tokio::test]
async fn an_upload_that_is_written_to_is_not_given_up() {
    let registry = Running::start().await;
    let storage = Storage::open(&registry.storage(), Access::Write).unwrap();
    let upload = storage.begin_upload("a", crate::oci::Algorithm::Sha256).unwrap();
    assert_eq!(collect(&registry.storage(), Duration::ZERO).unwrap().unwrap().uploads, 0);
    assert_eq!(registry.files("uploads").len(), 1);
    drop(upload);
    assert_eq!(collect(&registry.storage(), Duration::ZERO).unwrap().unwrap().uploads, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn collecting_all_the_time_takes_nothing_from_those_who_push() {
    let registry = std::sync::Arc::new(Running::start().await);
    let storage = registry.storage();
    let stop = crate::task::CancellationToken::new();
    let stopped = stop.clone();
    let collector = tokio::task::spawn_blocking(move || {
        let mut removed = 0;
        while !stopped.is_cancelled() {
            removed += collect(&storage, Duration::from_secs(600)).unwrap().map_or(0, |done| done.blobs);
        }
        removed
    });
    let pushers = (0..4).map(|pusher| {
        let registry = registry.clone();
        tokio::spawn(async move {
            let name = format!("pusher{pusher}");
            for round in 0..30 {
                // The same few layers again and again, from all of them.
                let layer = noise(2000, round % 3);
                let [config, layer, manifest] = push(&registry, &name, &layer).await;
                for digest in [&config, &layer] {
                    registry.get(&format!("/v2/{name}/blobs/{digest}")).await.is(200);
                }
                registry.delete(&format!("/v2/{name}/manifests/{manifest}")).await.is(202);
                // What was pushed becomes old at once.
                let sql = format!("UPDATE links SET touched = 0 WHERE repository = (SELECT id FROM repositories WHERE name = '{name}')");
                let database = registry.storage().join("registry.db");
                crate::task::blocking(move || {
                    let connection = rusqlite::Connection::open(database).unwrap();
                    connection.busy_timeout(Duration::from_secs(30)).unwrap();
                    connection.execute(&sql, []).unwrap();
                })
                .await;
            }
        })
    });
    for pusher in pushers.collect::<Vec<_>>() {
        pusher.await.unwrap();
    }
    stop.cancel();
    assert!(collector.await.unwrap() > 0);
    collect(&registry.storage(), Duration::ZERO).unwrap();
    assert!(registry.files("blobs/sha256").is_empty());
}

#[test]
fn what_is_no_storage_is_not_made_one() {
    let dir = tempfile::tempdir().unwrap();
    assert!(collect(dir.path(), Duration::ZERO).is_err());
    assert!(Storage::open(dir.path(), Access::Read).is_err());
    assert!(!exists(&dir.path().join("registry.db")));
    drop(Storage::open(dir.path(), Access::Write).unwrap());
    let newer = rusqlite::Connection::open(dir.path().join("registry.db")).unwrap();
    newer.pragma_update(None, "user_version", 99).unwrap();
    let error = Storage::open(dir.path(), Access::Write).err().unwrap().to_string();
    assert!(error.contains("format 99"), "{error}");
}
