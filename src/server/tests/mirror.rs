//! A registry that stands for another one, which is ours too.

use std::time::Duration;

use serde_json::json;

use crate::oci::Digest;
use crate::registry::{Client, ClientOptions, RetryPolicy};

use super::{Running, noise};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

async fn mirror_of(upstream: String) -> Running {
    let retry = RetryPolicy { attempts: 2, first_pause: Duration::from_millis(10), ..RetryPolicy::default() };
    let client = Client::new(ClientOptions { retry, plain_http: vec!["*".into()], ..ClientOptions::default() }).unwrap();
    Running::with(|options| options.mirror = Some((upstream, client))).await
}

/// Pushes an image with one large layer under `tag`; gives layer and manifest.
async fn push(registry: &Running, name: &str, tag: &str, layer: &[u8]) -> (Digest, Vec<u8>) {
    let config = registry.push_blob(name, b"{}").await;
    let digest = registry.push_blob(name, layer).await;
    let document = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": { "mediaType": "application/vnd.oci.image.config.v1+json", "digest": config.to_string(), "size": 2 },
        "layers": [{ "mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": digest.to_string(), "size": layer.len() }],
    });
    let bytes = document.to_string().into_bytes();
    registry.put_manifest(name, tag, MANIFEST, &bytes).await.is(201);
    (digest, bytes)
}

/// How often the upstream was asked for a blob's bytes.
fn blob_gets(registry: &Running) -> usize {
    registry.events.lock().unwrap().iter().filter(|line| line.contains("\"GET ") && line.contains("/blobs/sha256:")).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_asked_for_once_is_there_without_the_upstream() {
    let upstream = Running::start().await;
    let layer = noise(3 << 20, 1);
    let (digest, manifest) = push(&upstream, "team/app", "1", &layer).await;
    let mirror = mirror_of(format!("{}/team", upstream.address)).await;
    let answer = mirror.get("/v2/app/manifests/1").await.is(200);
    assert_eq!((answer.header("content-type"), &answer.body), (MANIFEST, &manifest));
    let path = format!("/v2/app/blobs/{digest}");
    assert_eq!(mirror.head(&path).await.is(200).header("content-length"), layer.len().to_string());
    // Many at once, some of them only for a part: one download.
    let part = [("Range", "bytes=3000000-3000099")];
    let (one, two, three, four) =
        tokio::join!(mirror.get(&path), mirror.get(&path), mirror.send("GET", &path, &part, b""), mirror.get(&path));
    for answer in [one, two, four] {
        assert!(answer.is(200).body == layer);
    }
    assert!(three.is(206).body == layer[3_000_000..3_000_100]);
    assert_eq!(blob_gets(&upstream), 1);
    assert!(mirror.get(&path).await.is(200).body == layer);
    assert_eq!(blob_gets(&upstream), 1);
    assert_eq!(mirror.get("/v2/app/tags/list").await.is(200).json()["tags"], json!(["1"]));
    // Pushing is for the upstream.
    mirror.post("/v2/app/blobs/uploads/", b"").await.refused(405, "UNSUPPORTED");
    mirror.get("/v2/app/manifests/none").await.refused(404, "MANIFEST_UNKNOWN");
    mirror.get(&format!("/v2/app/blobs/{}", Digest::sha256(b"none"))).await.refused(404, "BLOB_UNKNOWN");
    // A tag that moves is followed.
    let (_, newer) = push(&upstream, "team/app", "1", b"newer").await;
    assert!(mirror.get("/v2/app/manifests/1").await.is(200).body == newer);
    upstream.stop().await;
    for reference in ["1".to_owned(), Digest::sha256(&newer).to_string(), Digest::sha256(&manifest).to_string()] {
        mirror.get(&format!("/v2/app/manifests/{reference}")).await.is(200);
    }
    assert!(mirror.get(&path).await.is(200).body == layer);
    assert_eq!(mirror.get("/v2/app/tags/list").await.is(200).json()["tags"], json!(["1"]));
    mirror.get("/v2/app/manifests/other").await.refused(502, "UNKNOWN");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_that_is_not_what_it_should_be_is_never_given_whole_nor_kept() {
    let upstream = Running::start().await;
    let layer = noise(1 << 20, 1);
    let (digest, _) = push(&upstream, "app", "1", &layer).await;
    let mut wrong = layer.clone();
    wrong[1000] ^= 1;
    std::fs::write(upstream.storage().join("blobs/sha256").join(digest.hex()), &wrong).unwrap();
    let mirror = mirror_of(upstream.address.to_string()).await;
    mirror.get("/v2/app/manifests/1").await.is(200);
    let path = format!("/v2/app/blobs/{digest}");
    let answer = mirror.get(&path).await;
    assert!(answer.status == 502 || answer.body.len() < layer.len(), "{} {}", answer.status, answer.body.len());
    assert!(mirror.files("blobs/sha256").is_empty());
    std::fs::write(upstream.storage().join("blobs/sha256").join(digest.hex()), &layer).unwrap();
    assert!(mirror.get(&path).await.is(200).body == layer);
    for _ in 0..50 {
        if mirror.files("uploads").is_empty() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(mirror.files("uploads").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn referrers_and_deleted_tags_are_those_of_the_upstream() {
    let upstream = Running::start().await;
    let (_, manifest) = push(&upstream, "app", "1", b"layer").await;
    let subject = Digest::sha256(&manifest).to_string();
    let document = json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": [], "artifactType": "application/x",
        "subject": { "mediaType": MANIFEST, "digest": subject, "size": manifest.len() },
    });
    upstream.put_manifest("app", "sig", "application/vnd.oci.image.index.v1+json", document.to_string().as_bytes()).await.is(201);
    let mirror = mirror_of(upstream.address.to_string()).await;
    let found = mirror.get(&format!("/v2/app/referrers/{subject}?artifactType=application/x")).await.is(200);
    assert_eq!(found.json()["manifests"].as_array().unwrap().len(), 1);
    mirror.get("/v2/app/manifests/1").await.is(200);
    upstream.delete("/v2/app/manifests/1").await.is(202);
    mirror.get("/v2/app/manifests/1").await.refused(404, "MANIFEST_UNKNOWN");
    // Without the upstream nobody can say which there are: not even that there are none.
    upstream.stop().await;
    mirror.get(&format!("/v2/app/referrers/{subject}")).await.refused(502, "UNKNOWN");
}
