//! What the conformance program of the distribution specification 1.1 asks of blobs, uploads and errors.

use crate::oci::{Algorithm, Digest};

use super::{Running, noise, with_query};

const A: &str = "conformance/repo1";
const B: &str = "conformance/repo2";

/// The blob is there, with all that a client may look at; deleting it takes effect at once.
async fn check_blob(registry: &Running, name: &str, digest: &Digest, bytes: &[u8]) {
    let path = format!("/v2/{name}/blobs/{digest}");
    for method in ["HEAD", "GET"] {
        let answer = registry.send(method, &path, &[], b"").await.is(200);
        assert_eq!(answer.header("content-length"), bytes.len().to_string());
        assert_eq!(answer.header("docker-content-digest"), digest.to_string());
        assert_eq!(answer.header("docker-distribution-api-version"), "registry/2.0");
        assert!(answer.body == if method == "GET" { bytes } else { &[] }, "{method} {path}");
    }
    registry.delete(&path).await.is(202);
    registry.head(&path).await.is(404);
    registry.get(&path).await.refused(404, "BLOB_UNKNOWN");
    registry.delete(&path).await.refused(404, "BLOB_UNKNOWN");
}

/// Follows the answer that ends an upload to the blob.
async fn check_created(registry: &Running, answer: super::Answer, digest: &Digest, bytes: &[u8]) {
    let answer = answer.is(201);
    assert_eq!(answer.header("location"), format!("/v2/{A}/blobs/{digest}"));
    assert_eq!(answer.header("docker-content-digest"), digest.to_string());
    assert!(registry.get(answer.header("location")).await.is(200).body == bytes);
}

async fn chunk(registry: &Running, method: &str, location: &str, bytes: &[u8], start: usize, end: usize) -> super::Answer {
    let range = format!("{start}-{}", end - 1);
    let headers = [("Content-Range", range.as_str()), ("Content-Type", "application/octet-stream")];
    registry.send(method, location, &headers, &bytes[start..end]).await
}

#[tokio::test]
async fn blobs_come_in_by_every_way() {
    let registry = Running::start().await;
    for (seed, algorithm) in [Algorithm::Sha256, Algorithm::Sha512].into_iter().enumerate() {
        for (case, bytes) in [noise(512, seed as u64), Vec::new(), b"{}".to_vec(), noise(3_145_723, 7)].into_iter().enumerate() {
            let digest = Digest::of(algorithm, &bytes);
            let last = format!("digest={digest}");
            registry.get(&format!("/v2/{A}/blobs/{digest}")).await.refused(404, "BLOB_UNKNOWN");

            // One POST.
            let answer = registry.post(&format!("/v2/{A}/blobs/uploads/?{last}"), &bytes).await;
            check_created(&registry, answer, &digest, &bytes).await;
            check_blob(&registry, A, &digest, &bytes).await;

            // POST and PUT.
            let location = registry.begin(A).await;
            let answer = registry.send("PUT", &with_query(&location, &last), &[], &bytes).await;
            check_created(&registry, answer, &digest, &bytes).await;
            check_blob(&registry, A, &digest, &bytes).await;

            // A stream: one PATCH without a range.
            let location = registry.begin(A).await;
            let answer = registry.send("PATCH", &location, &[], &bytes).await.is(202);
            assert_eq!(answer.header("range"), format!("0-{}", bytes.len().saturating_sub(1)));
            let answer = registry.send("PUT", &with_query(answer.header("location"), &last), &[], b"").await;
            check_created(&registry, answer, &digest, &bytes).await;
            check_blob(&registry, A, &digest, &bytes).await;

            if bytes.len() < 3 {
                continue;
            }
            // Chunks, the last with PATCH or with PUT.
            for put_last in [false, true] {
                let mut location = registry.begin(A).await;
                let size = bytes.len() / 3 + 1;
                let mut start = 0;
                while start < bytes.len() {
                    let end = (start + size).min(bytes.len());
                    if put_last && end == bytes.len() {
                        let answer = chunk(&registry, "PUT", &with_query(&location, &last), &bytes, start, end).await;
                        check_created(&registry, answer, &digest, &bytes).await;
                    } else {
                        let answer = chunk(&registry, "PATCH", &location, &bytes, start, end).await.is(202);
                        assert_eq!(answer.header("range"), format!("0-{}", end - 1));
                        answer.header("location").clone_into(&mut location);
                    }
                    start = end;
                }
                if !put_last {
                    let answer = registry.send("PUT", &with_query(&location, &last), &[], b"").await;
                    check_created(&registry, answer, &digest, &bytes).await;
                }
                check_blob(&registry, A, &digest, &bytes).await;
            }
            assert!(registry.files("uploads").is_empty(), "case {case}");
        }
    }
}

#[tokio::test]
async fn chunks_out_of_order_are_refused_and_the_upload_goes_on() {
    let registry = Running::start().await;
    let bytes = noise(3000, 1);
    let digest = Digest::sha256(&bytes);
    for put_last in [false, true] {
        let mut location = registry.begin(A).await;
        for start in [0, 1000, 2000] {
            // Ahead of where we are, or back at the beginning, with the method that the chunk would have.
            let bad = if start < 2000 { start + 1000 } else { 0 };
            let (method, target) = if put_last && bad == 2000 {
                ("PUT", with_query(&location, &format!("digest={digest}")))
            } else {
                ("PATCH", location.clone())
            };
            chunk(&registry, method, &target, &bytes, bad, bad + 1000).await.refused(416, "BLOB_UPLOAD_INVALID");
            let answer = registry.get(&location).await.is(204);
            assert_eq!(answer.header("range"), format!("0-{}", usize::max(start, 1) - 1));
            answer.header("location").clone_into(&mut location);
            let answer = chunk(&registry, "PATCH", &location, &bytes, start, start + 1000).await.is(202);
            // The same chunk again is one too many.
            chunk(&registry, "PATCH", answer.header("location"), &bytes, start, start + 1000).await.refused(416, "BLOB_UPLOAD_INVALID");
        }
        registry.send("PUT", &with_query(&location, &format!("digest={digest}")), &[], b"").await.is(201);
        check_blob(&registry, A, &digest, &bytes).await;
    }
    let location = registry.begin(A).await;
    registry.send("PATCH", &location, &[("Content-Range", "0-9")], &bytes[..5]).await.refused(400, "SIZE_INVALID");
    registry.send("PATCH", &location, &[("Content-Range", "nonsense")], &bytes[..5]).await.refused(416, "BLOB_UPLOAD_INVALID");
    assert_eq!(registry.get(&location).await.is(204).header("range"), "0-0");
}

#[tokio::test]
async fn content_that_is_not_what_its_digest_says_is_refused() {
    let registry = Running::start().await;
    let (bytes, other) = (noise(1000, 1), noise(1000, 2));
    for digest in [Digest::sha256(&other), Digest::of(Algorithm::Sha512, &other)] {
        registry.post(&format!("/v2/{A}/blobs/uploads/?digest={digest}"), &bytes).await.refused(400, "DIGEST_INVALID");
        let location = registry.begin(A).await;
        registry.send("PUT", &with_query(&location, &format!("digest={digest}")), &[], &bytes).await.refused(400, "DIGEST_INVALID");
        let location = registry.begin(A).await;
        registry.send("PATCH", &location, &[], &bytes).await.is(202);
        registry.send("PUT", &with_query(&location, &format!("digest={digest}")), &[], b"").await.refused(400, "DIGEST_INVALID");
        // It is over.
        registry.get(&location).await.refused(404, "BLOB_UPLOAD_UNKNOWN");
        registry.head(&format!("/v2/{A}/blobs/{digest}")).await.is(404);
    }
    let location = registry.begin(A).await;
    registry.send("PUT", &location, &[], &bytes).await.refused(400, "DIGEST_INVALID");
    registry.send("PUT", &with_query(&location, "digest=sha256:12"), &[], &bytes).await.refused(400, "DIGEST_INVALID");
    assert!(registry.files("blobs/sha256").is_empty() && registry.files("blobs/sha512").is_empty());
}

#[tokio::test]
async fn uploads_belong_to_one_repository_and_can_be_cancelled() {
    let registry = Running::start().await;
    let location = registry.begin(A).await;
    registry.send("PATCH", &location, &[], b"some").await.is(202);
    let elsewhere = location.replace(A, B);
    for (method, path) in [("GET", &elsewhere), ("PATCH", &elsewhere), ("DELETE", &elsewhere)] {
        registry.send(method, path, &[], b"").await.refused(404, "BLOB_UPLOAD_UNKNOWN");
    }
    registry.delete(&location).await.is(204);
    registry.get(&location).await.refused(404, "BLOB_UPLOAD_UNKNOWN");
    registry.send("PATCH", &location, &[], b"more").await.refused(404, "BLOB_UPLOAD_UNKNOWN");
    registry.get(&format!("/v2/{A}/blobs/uploads/..%2f..%2fx")).await.is(404);
    assert!(registry.files("uploads").is_empty());
}

#[tokio::test]
async fn blobs_are_mounted_from_where_they_are_and_seen_nowhere_else() {
    let registry = Running::start().await;
    let digest = registry.push_blob(B, b"mounted").await;
    registry.head(&format!("/v2/{A}/blobs/{digest}")).await.is(404);
    let uploads = format!("/v2/{A}/blobs/uploads/");
    // From a repository that does not have it, from none at all, and what nobody has: sessions.
    let unknown = Digest::sha256(b"unknown");
    for query in [format!("mount={digest}&from=conformance/other"), format!("mount={unknown}&from={B}"), format!("mount={unknown}")] {
        let answer = registry.post(&with_query(&uploads, &query), b"").await.is(202);
        assert!(answer.header("location").starts_with(&uploads), "{query}");
    }
    registry.head(&format!("/v2/{A}/blobs/{digest}")).await.is(404);
    for query in [format!("mount={digest}&from={B}"), format!("mount={digest}")] {
        let answer = registry.post(&with_query(&uploads, &query), b"").await.is(201);
        assert_eq!(answer.header("location"), format!("/v2/{A}/blobs/{digest}"));
        check_blob(&registry, A, &digest, b"mounted").await;
    }
    check_blob(&registry, B, &digest, b"mounted").await;
    // Now nobody has it, though its bytes are still there.
    registry.post(&with_query(&uploads, &format!("mount={digest}")), b"").await.is(202);
    assert_eq!(registry.files("blobs/sha256"), [digest.hex()]);
}

#[tokio::test]
async fn parts_of_blobs_are_served() {
    let registry = Running::start().await;
    let bytes = noise(2048, 3);
    let digest = registry.push_blob(A, &bytes).await;
    let path = format!("/v2/{A}/blobs/{digest}");
    for (range, start, end) in [("500-1499", 500, 1500), ("500-", 500, 2048), ("-500", 1548, 2048), ("2000-5000", 2000, 2048)] {
        let answer = registry.send("GET", &path, &[("Range", &format!("bytes={range}"))], b"").await.is(206);
        assert_eq!(answer.header("content-range"), format!("bytes {start}-{}/2048", end - 1));
        assert_eq!(answer.header("content-length"), (end - start).to_string());
        assert!(answer.body == bytes[start..end], "{range}");
        // Ranges are GET's (RFC 9110, 14.2).
        let answer = registry.send("HEAD", &path, &[("Range", &format!("bytes={range}"))], b"").await.is(200);
        assert_eq!(answer.header("content-length"), "2048");
    }
    for range in ["500-0", "5000-10000", "2048-", "-0"] {
        let answer = registry.send("GET", &path, &[("Range", &format!("bytes={range}"))], b"").await.is(416);
        assert_eq!(answer.header("content-range"), "bytes */2048");
    }
    let etag = registry.head(&path).await.is(200).header("etag").to_owned();
    registry.send("GET", &path, &[("If-None-Match", &etag)], b"").await.is(304);
    registry.send("GET", &path, &[("Range", "bytes=1-2"), ("If-Range", &etag)], b"").await.is(206);
    registry.send("GET", &path, &[("Range", "bytes=1-2"), ("If-Range", "\"other\"")], b"").await.is(200);
}

#[tokio::test]
async fn errors_have_the_form_and_the_codes_of_the_specification() {
    let registry = Running::start().await;
    registry.get("/v2/").await.is(200);
    let digest = Digest::sha256(b"nothing");
    registry.get(&format!("/v2/{A}/manifests/.INVALID_MANIFEST_NAME")).await.refused(404, "MANIFEST_UNKNOWN");
    registry.head(&format!("/v2/{A}/manifests/.INVALID_MANIFEST_NAME")).await.is(404);
    registry.get(&format!("/v2/{A}/manifests/{digest}")).await.refused(404, "MANIFEST_UNKNOWN");
    registry.get(&format!("/v2/{A}/manifests/missing")).await.refused(404, "MANIFEST_UNKNOWN");
    registry.delete(&format!("/v2/{A}/manifests/missing")).await.refused(404, "MANIFEST_UNKNOWN");
    registry.get(&format!("/v2/{A}/manifests/sha256:baddigeststring")).await.refused(400, "DIGEST_INVALID");
    let manifest = "application/vnd.oci.image.manifest.v1+json";
    registry.put_manifest(A, "sha256:totallywrong", manifest, b"blablabla").await.refused(400, "DIGEST_INVALID");
    registry.put_manifest(A, &digest.to_string(), manifest, b"blablabla").await.refused(400, "DIGEST_INVALID");
    registry.put_manifest(A, "tag", manifest, b"blablabla").await.refused(400, "MANIFEST_INVALID");
    registry.put_manifest(A, ".tag", manifest, b"{}").await.refused(400, "MANIFEST_INVALID");
    registry.get("/v2/Upper/tags/list").await.refused(400, "NAME_INVALID");
    registry.get("/v2/none/tags/list").await.refused(404, "NAME_UNKNOWN");
    registry.get("/v1/").await.refused(404, "UNSUPPORTED");
    let answer = registry.send("PATCH", &format!("/v2/{A}/manifests/tag"), &[], b"x").await.refused(405, "UNSUPPORTED");
    assert_eq!(answer.header("allow"), "GET, HEAD, PUT, DELETE");
}
