//! What the conformance program of the distribution specification 1.1 asks of manifests, tags and referrers.

use serde_json::{Value, json};

use crate::oci::{Algorithm, Digest};

use super::{Answer, Running, noise};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const NAME: &str = "conformance/data";

fn descriptor(kind: &str, algorithm: Algorithm, bytes: &[u8]) -> Value {
    json!({ "mediaType": kind, "digest": Digest::of(algorithm, bytes).to_string(), "size": bytes.len() })
}

/// A manifest whose blobs were pushed, with further fields.
async fn image(registry: &Running, seed: u64, more: Value) -> Value {
    let (config, layer) = (format!("{{\"seed\":{seed}}}").into_bytes(), noise(100, seed));
    registry.push_blob(NAME, &config).await;
    registry.push_blob(NAME, &layer).await;
    let mut manifest = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": descriptor("application/vnd.oci.image.config.v1+json", Algorithm::Sha256, &config),
        "layers": [descriptor("application/vnd.oci.image.layer.v1.tar+gzip", Algorithm::Sha256, &layer)],
    });
    manifest.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    manifest
}

fn index(children: &[&Value], more: Value) -> Value {
    let children: Vec<_> =
        children.iter().map(|child| descriptor(child["mediaType"].as_str().unwrap(), Algorithm::Sha256, &bytes(child))).collect();
    let mut index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": children });
    index.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    index
}

/// Spaces and all: a registry keeps bytes, not what they mean.
fn bytes(document: &Value) -> Vec<u8> {
    let mut bytes = serde_json::to_vec_pretty(document).unwrap();
    bytes.push(b'\n');
    bytes
}

async fn put(registry: &Running, reference: &str, document: &Value) -> Answer {
    registry.put_manifest(NAME, reference, document["mediaType"].as_str().unwrap(), &bytes(document)).await
}

/// Pushes by digest and by tag, reads by both, deletes tag and manifest.
async fn check(registry: &Running, document: &Value) {
    let (body, kind) = (bytes(document), document["mediaType"].as_str().unwrap());
    let digest = Digest::sha256(&body).to_string();
    for reference in [digest.as_str(), "tag"] {
        let answer = put(registry, reference, document).await.is(201);
        assert_eq!(answer.header("docker-content-digest"), digest);
        assert_eq!(answer.find("oci-subject"), document["subject"]["digest"].as_str());
        for path in [answer.header("location").to_owned(), format!("/v2/{NAME}/manifests/{reference}")] {
            for method in ["GET", "HEAD"] {
                let answer = registry.send(method, &path, &[("Accept", MANIFEST)], b"").await.is(200);
                assert_eq!(answer.header("content-type"), kind);
                assert_eq!(answer.header("content-length"), body.len().to_string());
                assert_eq!(answer.header("docker-content-digest"), digest);
                assert!(answer.body == if method == "GET" { &body[..] } else { &[] }, "{method} {path}");
            }
        }
    }
    registry.delete(&format!("/v2/{NAME}/manifests/tag")).await.is(202);
    registry.head(&format!("/v2/{NAME}/manifests/tag")).await.is(404);
    registry.head(&format!("/v2/{NAME}/manifests/{digest}")).await.is(200);
    put(registry, "other", document).await.is(201);
    registry.delete(&format!("/v2/{NAME}/manifests/{digest}")).await.is(202);
    for gone in [digest.as_str(), "other"] {
        registry.head(&format!("/v2/{NAME}/manifests/{gone}")).await.is(404);
    }
}

#[tokio::test]
async fn every_kind_of_manifest_is_kept_byte_for_byte() {
    let registry = Running::start().await;
    let one = image(&registry, 1, json!({})).await;
    let two = image(&registry, 2, json!({ "annotations": { "a": "b" } })).await;
    registry.push_blob(NAME, b"{}").await;
    let list = index(&[&one, &two], json!({}));
    let missing = json!({ "mediaType": MANIFEST, "digest": Digest::sha256(b"missing content").to_string(), "size": 123 });
    let foreign = json!([
        { "mediaType": "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip", "digest": Digest::sha256(b"far").to_string(), "size": 12345,
          "urls": ["https://store.example.com/far"] },
        { "mediaType": "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", "digest": Digest::sha256(b"away").to_string(), "size": 1 },
    ]);
    let large: serde_json::Map<String, Value> =
        (0..390).map(|number| (format!("large-annotation-{number}"), json!("A".repeat(10_000)))).collect();
    let empty = descriptor("application/vnd.oci.empty.v1+json", Algorithm::Sha256, b"{}");
    let data = json!([{ "mediaType": "text/plain", "digest": Digest::sha256(b"{}").to_string(), "size": 2, "data": "e30=" }]);
    let mut docker = one.clone();
    docker["mediaType"] = json!("application/vnd.docker.distribution.manifest.v2+json");
    let mut docker_list = list.clone();
    docker_list["mediaType"] = json!("application/vnd.docker.distribution.manifest.list.v2+json");
    for document in [
        one.clone(),
        two,
        list.clone(),
        index(&[&list, &list], json!({})),
        index(&[], json!({})),
        // An index may name what is not here.
        index(&[&json!({ "mediaType": MANIFEST, "not": "pushed" })], json!({})),
        index(&[&one], json!({ "artifactType": "application/x", "subject": missing, "annotations": { "c": "d" } })),
        image(&registry, 3, json!({ "layers": [] })).await,
        image(&registry, 3, json!({ "layers": null })).await,
        image(&registry, 3, json!({ "layers": foreign })).await,
        image(&registry, 3, json!({ "layers": data })).await,
        image(&registry, 3, json!({ "annotations": large })).await,
        image(&registry, 3, json!({ "org.example.unknown": [1, { "x": null }] })).await,
        image(&registry, 3, json!({ "artifactType": "application/x", "config": empty, "layers": [empty] })).await,
        image(&registry, 3, json!({ "artifactType": "application/x", "config": empty, "layers": [empty], "subject": missing })).await,
        docker,
        docker_list,
    ] {
        check(&registry, &document).await;
    }
}

#[tokio::test]
async fn manifests_that_make_no_sense_are_refused() {
    let registry = Running::start().await;
    let good = image(&registry, 1, json!({})).await;
    let unknown = Digest::sha256(b"unknown").to_string();
    let mut sparse = good.clone();
    sparse["layers"][0]["digest"] = json!(unknown);
    let answer = put(&registry, "x", &sparse).await.refused(404, "MANIFEST_BLOB_UNKNOWN");
    assert_eq!(answer.json()["errors"][0]["detail"][0]["digest"], unknown.as_str());
    sparse["config"]["digest"] = json!("md5:d41d8cd98f00b204e9800998ecf8427e");
    put(&registry, "x", &sparse).await.refused(400, "MANIFEST_INVALID");
    // A blob of another repository is not one of this.
    registry.put_manifest("elsewhere", "x", MANIFEST, &bytes(&good)).await.refused(404, "MANIFEST_BLOB_UNKNOWN");
    let schema_1 = json!({ "schemaVersion": 1, "name": "x", "tag": "y", "fsLayers": [] });
    for kind in ["application/vnd.docker.distribution.manifest.v1+prettyjws", "application/json"] {
        registry.put_manifest(NAME, "x", kind, &bytes(&schema_1)).await.refused(400, "MANIFEST_INVALID");
    }
    let mut both = good.clone();
    both["manifests"] = json!([]);
    for (kind, document) in [
        (INDEX, &good),
        (MANIFEST, &index(&[&good], json!({}))),
        (MANIFEST, &both),
        (MANIFEST, &json!({ "schemaVersion": 2 })),
        (INDEX, &json!({ "schemaVersion": 2, "config": good["config"], "layers": good["layers"] })),
        ("application/vnd.docker.distribution.manifest.v2+json", &good),
        (MANIFEST, &json!([1, 2])),
        (MANIFEST, &json!({ "schemaVersion": 2, "mediaType": "application/x", "config": good["config"], "layers": [] })),
    ] {
        registry.put_manifest(NAME, "x", kind, &bytes(document)).await.refused(400, "MANIFEST_INVALID");
    }
    let huge = vec![b' '; (8 << 20) + 1];
    registry.put_manifest(NAME, "x", MANIFEST, &huge).await.refused(413, "MANIFEST_INVALID");
    registry.get(&format!("/v2/{NAME}/manifests/x")).await.refused(404, "MANIFEST_UNKNOWN");
    // Old tools call everything JSON, or nothing at all.
    registry.put_manifest(NAME, "y", "application/json", &bytes(&good)).await.is(201);
    registry.send("PUT", &format!("/v2/{NAME}/manifests/z"), &[], &bytes(&good)).await.is(201);
    registry.put_manifest(NAME, "w", &format!("{MANIFEST}; charset=utf-8"), &bytes(&good)).await.is(201);
    assert_eq!(registry.get(&format!("/v2/{NAME}/manifests/w")).await.header("content-type"), MANIFEST);
}

#[tokio::test]
async fn digests_of_sha512_and_tags_beside_a_digest_are_taken() {
    let registry = Running::start().await;
    let document = image(&registry, 1, json!({})).await;
    let body = bytes(&document);
    let digest = Digest::of(Algorithm::Sha512, &body).to_string();
    let path = format!("{digest}?tag=one&tag=two");
    let answer = registry.put_manifest(NAME, &path, MANIFEST, &body).await.is(201);
    assert_eq!(answer.header("docker-content-digest"), digest);
    let tags: Vec<_> = answer.headers.iter().filter(|(name, _)| name == "oci-tag").map(|(_, tag)| tag.as_str()).collect();
    assert_eq!(tags, ["one", "two"]);
    for reference in [digest.as_str(), "one", "two"] {
        let answer = registry.get(&format!("/v2/{NAME}/manifests/{reference}")).await.is(200);
        assert_eq!(answer.header("docker-content-digest"), digest);
        assert!(answer.body == body);
    }
    registry.put_manifest(NAME, &format!("{digest}?tag=-x"), MANIFEST, &body).await.refused(400, "MANIFEST_INVALID");
}

#[tokio::test]
async fn tags_are_listed_in_pages() {
    let registry = Running::start().await;
    let document = image(&registry, 1, json!({})).await;
    let list = format!("/v2/{NAME}/tags/list");
    assert_eq!(registry.get(&list).await.is(200).json(), json!({ "name": NAME, "tags": [] }));
    for tag in ["b", "C", "a", "10", "9", "_x", "B"] {
        put(&registry, tag, &document).await.is(201);
    }
    let all = ["10", "9", "_x", "a", "B", "b", "C"];
    assert_eq!(registry.get(&list).await.is(200).json()["tags"], json!(all));
    for n in [1, 2, 3, 7, 8, 99_999_999_999] {
        let (mut found, mut path, mut pages) = (Vec::new(), format!("{list}?n={n}"), 0);
        loop {
            let answer = registry.get(&path).await.is(200);
            found.extend(answer.json()["tags"].as_array().unwrap().iter().map(|tag| tag.as_str().unwrap().to_owned()));
            pages += 1;
            let Some(link) = answer.find("link") else { break };
            assert!(link.ends_with("; rel=\"next\""), "{link}");
            path = link[1..link.find('>').unwrap()].to_owned();
        }
        assert_eq!(found, all, "n={n}");
        assert_eq!(pages, all.len().div_ceil(n), "n={n}");
    }
    let answer = registry.get(&format!("{list}?n=0")).await.is(200);
    assert_eq!((answer.json()["tags"].clone(), answer.find("link")), (json!([]), None));
    assert_eq!(registry.get(&format!("{list}?last=a")).await.json()["tags"], json!(["B", "b", "C"]));
    // What never was a tag has its place too.
    assert_eq!(registry.get(&format!("{list}?last=aa&n=2")).await.json()["tags"], json!(["B", "b"]));
    assert_eq!(registry.get(&format!("{list}?last=C")).await.json()["tags"], json!([]));
    registry.get(&format!("{list}?n=-1")).await.refused(400, "PAGINATION_NUMBER_INVALID");
}

#[tokio::test]
async fn repositories_are_listed_in_pages() {
    let registry = Running::start().await;
    registry.push_blob("only/blobs", b"x").await;
    let document = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [] });
    for name in ["c", "a/b", "a"] {
        registry.put_manifest(name, "x", INDEX, &bytes(&document)).await.is(201);
    }
    assert_eq!(registry.get("/v2/_catalog").await.is(200).json(), json!({ "repositories": ["a", "a/b", "c"] }));
    let answer = registry.get("/v2/_catalog?n=2").await.is(200);
    assert_eq!(answer.json()["repositories"], json!(["a", "a/b"]));
    assert_eq!(answer.header("link"), "</v2/_catalog?n=2&last=a%2Fb>; rel=\"next\"");
    let answer = registry.get("/v2/_catalog?n=2&last=a%2Fb").await.is(200);
    assert_eq!((answer.json()["repositories"].clone(), answer.find("link")), (json!(["c"]), None));
}

#[tokio::test]
async fn referrers_are_listed_whether_or_not_the_subject_is_there() {
    let registry = Running::start().await;
    let subject = image(&registry, 1, json!({})).await;
    let about = descriptor(MANIFEST, Algorithm::Sha256, &bytes(&subject));
    let list = format!("/v2/{NAME}/referrers/{}", about["digest"].as_str().unwrap());
    // Before anything is there at all.
    let answer = registry.get(&format!("/v2/nowhere/referrers/{}", Digest::sha256(b"x"))).await.is(200);
    assert_eq!(answer.header("content-type"), INDEX);
    assert_eq!(answer.json(), json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [] }));
    let by_config = image(&registry, 2, json!({ "subject": about })).await;
    let notes = json!({ "org.example": "hello" });
    let by_type = image(&registry, 3, json!({ "subject": about, "artifactType": "application/x+1", "annotations": notes })).await;
    let by_index = index(&[&subject], json!({ "subject": about, "artifactType": "application/x+1" }));
    for document in [&by_config, &by_type, &by_index, &subject] {
        put(&registry, &Digest::sha256(&bytes(document)).to_string(), document).await.is(201);
    }
    let mut expected: Vec<Value> =
        [(&by_config, "application/vnd.oci.image.config.v1+json"), (&by_type, "application/x+1"), (&by_index, "application/x+1")]
            .into_iter()
            .map(|(document, kind)| {
                let mut expected = descriptor(document["mediaType"].as_str().unwrap(), Algorithm::Sha256, &bytes(document));
                if let Some(notes) = document.get("annotations") {
                    expected["annotations"] = notes.clone();
                }
                expected["artifactType"] = json!(kind);
                expected
            })
            .collect();
    expected.sort_by_key(|descriptor| descriptor["digest"].as_str().unwrap().to_owned());
    let found = registry.get(&list).await.is(200);
    assert_eq!((found.json()["manifests"].clone(), found.find("oci-filters-applied")), (json!(expected), None));
    let found = registry.get(&format!("{list}?artifactType=application/x%2B1")).await.is(200);
    assert_eq!(found.header("oci-filters-applied"), "artifactType");
    expected.retain(|descriptor| descriptor["artifactType"] == "application/x+1");
    assert_eq!(found.json()["manifests"], json!(expected));
    registry.delete(&format!("/v2/{NAME}/manifests/{}", Digest::sha256(&bytes(&by_type)))).await.is(202);
    assert_eq!(registry.get(&list).await.is(200).json()["manifests"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn long_lists_of_referrers_have_pages() {
    let registry = Running::start().await;
    let about = descriptor(MANIFEST, Algorithm::Sha256, b"subject");
    let mut expected = Vec::new();
    for number in 0..5 {
        let notes = json!({ "number": number.to_string(), "long": "x".repeat(1 << 20) });
        let document = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [], "subject": about, "annotations": notes });
        put(&registry, "x", &document).await.is(201);
        expected.push(Digest::sha256(&bytes(&document)).to_string());
    }
    expected.sort();
    let (mut found, mut path) = (Vec::new(), format!("/v2/{NAME}/referrers/{}", about["digest"].as_str().unwrap()));
    loop {
        let answer = registry.get(&path).await.is(200);
        assert!(answer.body.len() < 4 << 20);
        found.extend(answer.json()["manifests"].as_array().unwrap().iter().map(|entry| entry["digest"].as_str().unwrap().to_owned()));
        let Some(link) = answer.find("link") else { break };
        path = link[1..link.find('>').unwrap()].to_owned();
    }
    assert_eq!(found, expected);
}
