//! Manifests and tags.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use crate::oci::{Digest, MediaType};
use crate::registry::Error;

use super::server::{Answer, Server, Then, client};

const TYPE: &str = "application/vnd.oci.image.manifest.v1+json";

#[tokio::test]
async fn a_name_resolves_without_fetching_the_manifest() {
    let digest = Digest::sha256(b"{}");
    let server =
        Server::start(move |_| Answer::new(200).header("Content-Type", TYPE).header("Docker-Content-Digest", &digest).length(2)).await;
    let found = client().resolve(&server.reference("a:1")).await.unwrap();
    assert_eq!((found.digest, found.size, found.media_type), (Digest::sha256(b"{}"), 2, MediaType::OciManifest));
    assert_eq!((server.count("HEAD", "/v2/a/manifests/1"), server.log().len()), (1, 1));
    assert_eq!(server.log()[0].header("accept").unwrap().split(", ").count(), 4);
}

#[tokio::test]
async fn a_name_resolves_by_fetching_where_head_says_too_little_or_is_refused() {
    for status in [200, 405, 403] {
        let server = Server::start(move |asked| match asked.method.as_str() {
            "HEAD" => Answer::new(status),
            _ => Answer::new(200).header("Content-Type", TYPE).body("{}"),
        })
        .await;
        let found = client().resolve(&server.reference("a:1")).await.unwrap();
        assert_eq!((found.digest, found.size), (Digest::sha256(b"{}"), 2));
    }
}

#[tokio::test]
async fn a_manifest_must_match_its_digest() {
    let server = Server::start(|_| Answer::new(200).header("Content-Type", TYPE).body("{ }")).await;
    let reference = server.reference("a:1").with_digest(Digest::sha256(b"{}"));
    let error = client().fetch_manifest(&reference).await.unwrap_err();
    assert!(matches!(error, Error::DigestMismatch { what: "manifest", .. }), "{error}");
}

#[tokio::test]
async fn a_manifest_must_match_what_the_registry_states() {
    let server = Server::start(|_| Answer::new(200).header("Docker-Content-Digest", Digest::sha256(b"other")).body("{}")).await;
    let error = client().fetch_manifest(&server.reference("a:1")).await.unwrap_err();
    assert!(matches!(error, Error::DigestMismatch { .. }), "{error}");
}

#[tokio::test]
async fn a_cut_manifest_is_fetched_again() {
    let number = AtomicUsize::new(0);
    let server = Server::start(move |_| {
        let answer = Answer::new(200).header("Content-Type", TYPE).body("{ }");
        if number.fetch_add(1, SeqCst) == 0 { answer.cut_after(1) } else { answer }
    })
    .await;
    assert_eq!(&client().fetch_manifest(&server.reference("a:1")).await.unwrap().bytes[..], b"{ }");
}

#[tokio::test]
async fn a_manifest_that_is_too_large_is_refused() {
    let announced = Server::start(|_| Answer::new(200).length(5 << 20).then(Then::Stall)).await;
    let endless = Server::start(|_| Answer::new(200).body(vec![b' '; 100_000]).chunked().then(Then::Repeat)).await;
    for server in [announced, endless] {
        let error = client().fetch_manifest(&server.reference("a:1")).await.unwrap_err();
        assert!(matches!(error, Error::TooLarge { limit: 4_194_304, .. }), "{error}");
    }
}

#[tokio::test]
async fn all_pages_of_tags_are_read() {
    let server = Server::start(|asked| match asked.path.as_str() {
        "/v2/a/tags/list" => Answer::new(200).header("Link", r#"</v2/a/tags/list?last=2&n=2>; rel="next""#).body(r#"{"tags":["1","2"]}"#),
        "/v2/a/tags/list?last=2&n=2" => Answer::new(200).body(r#"{"tags":["3"]}"#),
        _ => Answer::new(404),
    })
    .await;
    assert_eq!(client().tags(&server.reference("a")).await.unwrap(), ["1", "2", "3"]);
}

#[tokio::test]
async fn pages_without_end_are_an_error() {
    let same = Server::start(|_| Answer::new(200).header("Link", r#"</v2/a/tags/list>; rel="next""#).body(r#"{"tags":["1"]}"#)).await;
    let number = AtomicUsize::new(0);
    let fresh = Server::start(move |_| {
        let next = number.fetch_add(1, SeqCst);
        Answer::new(200).header("Link", format!(r#"</v2/a/tags/list?last={next}>; rel="next""#)).body(r#"{"tags":["1"]}"#)
    })
    .await;
    for server in [same, fresh] {
        let error = client().tags(&server.reference("a")).await.unwrap_err();
        assert!(matches!(error, Error::EndlessPages { .. }), "{error}");
    }
}

#[tokio::test]
async fn a_tag_of_a_manifest_by_sha512_is_set_with_its_digest() {
    for knows in [true, false] {
        let server = Server::start(move |asked| match asked.path.split_once("?tag=") {
            Some((_, tag)) if knows => Answer::new(201).header("OCI-Tag", tag),
            Some(_) => Answer::new(400),
            None => Answer::new(201),
        })
        .await;
        let digest = Digest::of(crate::oci::Algorithm::Sha512, b"{}");
        let name = server.reference("a:1").with_digest(digest.clone());
        assert_eq!(client().put_manifest(&name, &b"{}"[..], &MediaType::OciManifest).await.unwrap(), digest);
        let paths: Vec<String> = server.log().into_iter().map(|asked| asked.path).collect();
        let by_digest = format!("/v2/a/manifests/{digest}?tag=1");
        assert_eq!(paths, if knows { vec![by_digest] } else { vec![by_digest, "/v2/a/manifests/1".to_owned()] });
    }
}

#[tokio::test]
async fn null_tags_are_no_tags() {
    let server = Server::start(|_| Answer::new(200).body(r#"{"name":"a","tags":null}"#)).await;
    assert!(client().tags(&server.reference("a")).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_manifest_is_put_with_its_type_and_checked() {
    let server = Server::start(|asked| Answer::new(201).header("Docker-Content-Digest", Digest::sha256(&asked.body))).await;
    let digest = client().put_manifest(&server.reference("a:1"), &b"{}"[..], &MediaType::OciManifest).await.unwrap();
    assert_eq!(digest, Digest::sha256(b"{}"));
    let asked = &server.log()[0];
    assert_eq!((asked.method.as_str(), asked.path.as_str(), asked.header("content-type")), ("PUT", "/v2/a/manifests/1", Some(TYPE)));
    let other = Server::start(|_| Answer::new(201).header("Docker-Content-Digest", Digest::sha256(b"x"))).await;
    let error = client().put_manifest(&other.reference("a:1"), &b"{}"[..], &MediaType::OciManifest).await.unwrap_err();
    assert!(matches!(error, Error::StoredOther { .. }), "{error}");
}

#[tokio::test]
async fn warnings_of_the_registry_are_kept_once() {
    let server = Server::start(|_| Answer::new(200).header("Warning", r#"299 - "this tag is \"old\"""#).body("{}")).await;
    let client = client();
    client.fetch_manifest(&server.reference("a:1")).await.unwrap();
    client.fetch_manifest(&server.reference("a:1")).await.unwrap();
    assert_eq!(client.take_warnings(), [r#"127.0.0.1: this tag is "old""#]);
    assert!(client.take_warnings().is_empty());
}

#[tokio::test]
async fn calls_can_be_spawned() {
    fn sendable<T: Send>(value: T) -> T {
        value
    }
    let server = Server::start(|_| Answer::new(404)).await;
    let (client, reference) = (client(), server.reference("a:1"));
    assert!(sendable(client.fetch_manifest(&reference)).await.unwrap_err().is_not_found());
    drop(sendable(client.tags(&reference)));
    drop(sendable(client.fetch_blob(&reference, &super::blob(b"x"))));
}

fn referrers_index(types: &[&str]) -> String {
    let descriptor = |kind: &&str| {
        let digest = Digest::sha256(kind.as_bytes());
        format!(r#"{{"mediaType":"{TYPE}","digest":"{digest}","size":2,"artifactType":"{kind}"}}"#)
    };
    let all: Vec<String> = types.iter().map(descriptor).collect();
    let media_type = MediaType::OciIndex;
    format!(r#"{{"schemaVersion":2,"mediaType":"{media_type}","manifests":[{}]}}"#, all.join(","))
}

#[tokio::test]
async fn referrers_come_from_all_pages_of_the_api_and_are_filtered() {
    let subject = Digest::sha256(b"subject");
    let path = format!("/v2/a/referrers/{subject}");
    let first = format!("{path}?artifactType=sbom");
    let server = Server::start(move |asked| match &asked.path {
        asked if *asked == first => {
            Answer::new(200).header("Link", format!(r#"<{path}?page=2>; rel="next""#)).body(referrers_index(&["sbom", "signature"]))
        }
        _ => Answer::new(200).body(referrers_index(&["sbom"])),
    })
    .await;
    let found = client().referrers(&server.reference("a:1"), &subject, Some("sbom")).await.unwrap();
    assert_eq!(found.iter().map(|descriptor| &descriptor.digest).collect::<Vec<_>>(), [&Digest::sha256(b"sbom"), &Digest::sha256(b"sbom")]);
}

#[tokio::test]
async fn referrers_come_from_a_tag_where_the_api_is_missing() {
    let subject = Digest::sha256(b"subject");
    let tag = format!("/v2/a/manifests/sha256-{}", subject.hex());
    let server =
        Server::start(move |asked| if asked.path == tag { Answer::new(200).body(referrers_index(&["sbom"])) } else { Answer::new(404) })
            .await;
    assert_eq!(client().referrers(&server.reference("a:1"), &subject, None).await.unwrap().len(), 1);
    assert_eq!(client().referrers(&server.reference("b:1"), &subject, None).await.unwrap().len(), 0);
}
