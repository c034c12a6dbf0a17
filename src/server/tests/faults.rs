//! Clients that go wrong, servers that stop, several servers, those who may not come in.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::oci::Digest;

use super::{Answer, Running, noise, with_query};

/// Sends the beginning of a request and goes away.
async fn cut(registry: &Running, request: &str, part: &[u8]) {
    let mut socket = TcpStream::connect(registry.address).await.unwrap();
    socket.write_all(request.as_bytes()).await.unwrap();
    socket.write_all(part).await.unwrap();
    socket.flush().await.unwrap();
    // What was sent has to arrive before the end does.
    tokio::time::sleep(Duration::from_millis(300)).await;
}

#[tokio::test]
async fn an_upload_that_was_cut_goes_on_where_it_was() {
    let registry = Running::start().await;
    let bytes = noise(500_000, 1);
    let location = registry.begin("a").await;
    cut(&registry, &format!("PATCH {location} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n", bytes.len()), &bytes[..300_000]).await;
    let range = registry.get(&location).await.is(204).header("range").to_owned();
    assert_eq!(range, "0-299999");
    let headers = [("Content-Range", "300000-499999")];
    registry.send("PATCH", &location, &headers, &bytes[300_000..]).await.is(202);
    let digest = Digest::sha256(&bytes);
    registry.send("PUT", &with_query(&location, &format!("digest={digest}")), &[], b"").await.is(201);
    assert!(registry.get(&format!("/v2/a/blobs/{digest}")).await.is(200).body == bytes);
}

#[tokio::test]
async fn a_whole_blob_that_was_cut_leaves_nothing() {
    let registry = Running::start().await;
    let digest = Digest::sha256(b"never");
    cut(&registry, &format!("POST /v2/a/blobs/uploads/?digest={digest} HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n"), b"half").await;
    for _ in 0..50 {
        if registry.files("uploads").is_empty() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(registry.files("uploads").is_empty() && registry.files("blobs/sha256").is_empty());
}

#[tokio::test]
async fn another_server_on_the_same_storage_goes_on_with_an_upload() {
    let one = Running::start().await;
    let two = Running::on(one.dir.clone(), |_| {}).await;
    let bytes = noise(10_000, 1);
    let location = one.begin("a").await;
    one.send("PATCH", &location, &[], &bytes[..4000]).await.is(202);
    assert_eq!(two.get(&location).await.is(204).header("range"), "0-3999");
    two.send("PATCH", &location, &[], &bytes[4000..7000]).await.is(202);
    // This one remembers a hash of less than is there by now.
    let digest = Digest::sha256(&bytes);
    one.send("PUT", &with_query(&location, &format!("digest={digest}")), &[], &bytes[7000..]).await.is(201);
    assert!(two.get(&format!("/v2/a/blobs/{digest}")).await.is(200).body == bytes);
    one.stop().await;
    assert!(two.get(&format!("/v2/a/blobs/{digest}")).await.is(200).body == bytes);
}

#[tokio::test]
async fn the_same_blob_may_be_pushed_by_many_at_once() {
    let registry = Arc::new(Running::start().await);
    let bytes = Arc::new(noise(100_000, 1));
    let digest = Digest::sha256(&bytes);
    let pushes = (0..16).map(|number| {
        let (registry, bytes, digest) = (registry.clone(), bytes.clone(), digest.clone());
        tokio::spawn(async move { registry.post(&format!("/v2/a{}/blobs/uploads/?digest={digest}", number % 4), &bytes).await.is(201) })
    });
    for push in pushes.collect::<Vec<_>>() {
        push.await.unwrap();
    }
    assert_eq!(registry.files("blobs/sha256"), [digest.hex()]);
    assert!(registry.get(&format!("/v2/a3/blobs/{digest}")).await.is(200).body == *bytes);
}

#[tokio::test]
async fn a_stop_waits_for_transfers() {
    let registry = Running::start().await;
    let bytes = noise(8 << 20, 1);
    let digest = registry.push_blob("a", &bytes).await;
    let mut socket = TcpStream::connect(registry.address).await.unwrap();
    socket.write_all(format!("GET /v2/a/blobs/{digest} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).await.unwrap();
    let mut first = [0; 1000];
    socket.read_exact(&mut first).await.unwrap();
    let address = registry.address;
    let stopping = tokio::spawn(registry.stop());
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(TcpStream::connect(address).await.is_err(), "nobody else is let in");
    let mut rest = first.to_vec();
    socket.read_to_end(&mut rest).await.unwrap();
    assert!(Answer::parse(&rest).body == bytes);
    tokio::time::timeout(Duration::from_secs(5), stopping).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_read_only_registry_changes_nothing() {
    let registry = Running::start().await;
    let digest = registry.push_blob("a", b"content").await;
    let reader = Running::on(registry.dir.clone(), |options| options.readonly = true).await;
    registry.stop().await;
    assert_eq!(reader.get(&format!("/v2/a/blobs/{digest}")).await.is(200).body, b"content");
    reader.head(&format!("/v2/a/blobs/{digest}")).await.is(200);
    for (method, path) in [
        ("POST", "/v2/a/blobs/uploads/".to_owned()),
        ("PUT", "/v2/a/manifests/x".to_owned()),
        ("DELETE", format!("/v2/a/blobs/{digest}")),
        ("DELETE", "/v2/a/manifests/x".to_owned()),
    ] {
        reader.send(method, &path, &[], b"body").await.refused(405, "UNSUPPORTED");
    }
}

#[tokio::test]
async fn only_users_with_the_right_password_come_in() {
    let dir = tempfile::tempdir().unwrap();
    let users = dir.path().join("users");
    std::fs::write(&users, format!("tester:{}\n", bcrypt::hash("pass-word", 4).unwrap())).unwrap();
    let registry = Running::with(|options| options.htpasswd = Some(users)).await;
    let basic = |text: &str| format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(text));
    for path in ["/v2/", "/v2/_catalog", "/metrics", "/v2/a/tags/list", "/elsewhere"] {
        let answer = registry.get(path).await.refused(401, "UNAUTHORIZED");
        assert!(answer.header("www-authenticate").starts_with("Basic realm="));
        for wrong in ["tester:wrong", "nobody:pass-word", "tester:", ""] {
            registry.send("GET", path, &[("Authorization", &basic(wrong))], b"").await.refused(401, "UNAUTHORIZED");
        }
    }
    let right = basic("tester:pass-word");
    registry.send("GET", "/v2/", &[("Authorization", &right)], b"").await.is(200);
    registry.send("POST", "/v2/a/blobs/uploads/", &[("Authorization", &right)], b"").await.is(202);
    let log = registry.events.lock().unwrap().join("\n");
    assert!(log.contains(" tester \"GET /v2/\" 200 ") && log.contains(" - \"GET /v2/\" 401 "), "{log}");
    assert!(!log.contains("pass-word") && !log.contains(right.trim_start_matches("Basic ")));
}

#[tokio::test]
async fn requests_are_counted() {
    let registry = Running::start().await;
    let digest = registry.push_blob("a", b"counted").await;
    registry.get(&format!("/v2/a/blobs/{digest}")).await.is(200);
    registry.get("/v2/a/blobs/sha256:bad").await.is(400);
    registry.begin("a").await;
    let answer = registry.get("/metrics").await.is(200);
    assert_eq!(answer.header("content-type"), "text/plain; version=0.0.4; charset=utf-8");
    let text = String::from_utf8(answer.body).unwrap();
    for line in [
        "requests_total{method=\"GET\",route=\"blob\",status=\"200\"} 1",
        "requests_total{method=\"POST\",route=\"uploads\",status=\"201\"} 1",
        "requests_total{method=\"GET\",route=\"invalid\",status=\"400\"} 1",
        "requests_in_flight 1",
        "received_bytes_total 7",
        "uploads 1",
        "blobs 1",
        "blob_bytes 7",
    ] {
        assert!(text.lines().any(|known| known == format!("strake_registry_{line}")), "{line} in\n{text}");
    }
}

#[tokio::test]
async fn a_file_that_was_changed_behind_our_back_is_not_served() {
    let registry = Running::start().await;
    let digest = registry.push_blob("a", b"content").await;
    std::fs::write(registry.storage().join("blobs/sha256").join(digest.hex()), b"cut").unwrap();
    registry.get(&format!("/v2/a/blobs/{digest}")).await.refused(500, "UNKNOWN");
    let log = registry.events.lock().unwrap().join("\n");
    assert!(log.contains(&digest.to_string()) && log.contains("3 bytes instead of 7"), "{log}");
    // Whoever has the content can mend it.
    registry.push_blob("a", b"content").await;
    assert_eq!(registry.get(&format!("/v2/a/blobs/{digest}")).await.is(200).body, b"content");
}

#[tokio::test]
async fn broken_requests_do_no_harm() {
    let registry = Running::start().await;
    for request in ["", "\r\n\r\n", "GET\r\n\r\n", "GET /v2/ HTTP/9\r\n\r\n", "\0\0\0", "GET http://x/v2/ HTTP/1.1\r\nHost: x\r\n\r\n"] {
        cut(&registry, request, b"").await;
    }
    let mut socket = TcpStream::connect(registry.address).await.unwrap();
    socket.write_all(b"GET /v2/ HTTP/1.0\r\n\r\n").await.unwrap();
    let mut bytes = Vec::new();
    socket.read_to_end(&mut bytes).await.unwrap();
    assert!(bytes.starts_with(b"HTTP/1.0 200") || bytes.starts_with(b"HTTP/1.1 200"));
    registry.get("/v2/").await.is(200);
}
