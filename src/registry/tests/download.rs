//! Downloads: every fault ends in the right bytes or in one clear error.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use crate::oci::{Descriptor, Digest, Hasher};
use crate::registry::{BlobStream, Client, Error};

use super::server::{Answer, Asked, Server, Then, client, quick};
use super::{blob, content};

async fn read_all(mut stream: BlobStream) -> Result<Vec<u8>, Error> {
    let mut out = Vec::new();
    while let Some(chunk) = stream.next_chunk().await? {
        out.extend_from_slice(&chunk);
    }
    assert!(stream.next_chunk().await?.is_none(), "a finished stream stays finished");
    Ok(out)
}

async fn fetch(client: &Client, server: &Server, blob: &Descriptor) -> Result<Vec<u8>, Error> {
    read_all(client.fetch_blob(&server.reference("a/b"), blob).await?).await
}

/// A server of one blob; `fault` may answer the n-th request (from 0) for it.
async fn serve(content: Vec<u8>, fault: impl Fn(usize, &Asked) -> Option<Answer> + Send + Sync + 'static) -> Server {
    let number = AtomicUsize::new(0);
    Server::start(move |asked| {
        if let Some(answer) = fault(number.fetch_add(1, SeqCst), asked) {
            return answer;
        }
        match asked.range() {
            Some(start) => Answer::part(&content, start),
            None => Answer::new(200).body(&content),
        }
    })
    .await
}

#[tokio::test]
async fn a_blob_arrives_whole_in_one_request() {
    let content = content(300_000);
    let server = serve(content.clone(), |_, _| None).await;
    assert_eq!(fetch(&client(), &server, &blob(&content)).await.unwrap(), content);
    assert_eq!(server.log().len(), 1);
    assert_eq!(server.log()[0].path, format!("/v2/a/b/blobs/{}", Digest::sha256(&content)));
}

#[tokio::test]
async fn an_empty_blob_needs_no_request() {
    let server = serve(Vec::new(), |_, _| None).await;
    assert_eq!(fetch(&client(), &server, &blob(b"")).await.unwrap(), b"");
}

#[tokio::test]
async fn a_cut_at_any_offset_is_resumed_by_range() {
    let content = content(100_000);
    for offset in [0, 1, 17, 50_000, 99_999] {
        let whole = content.clone();
        let server = serve(content.clone(), move |n, _| (n == 0).then(|| Answer::new(200).body(&whole).cut_after(offset))).await;
        assert_eq!(fetch(&client(), &server, &blob(&content)).await.unwrap(), content, "cut after {offset}");
        let expected = if offset == 0 { None } else { Some(offset) };
        assert_eq!(server.log()[1].range(), expected);
    }
}

#[tokio::test]
async fn several_cuts_in_a_row_are_resumed() {
    let content = content(100_000);
    let whole = content.clone();
    let server = serve(content.clone(), move |n, asked| {
        (n < 3).then(|| match asked.range() {
            Some(start) => Answer::part(&whole, start).cut_after(10_000),
            None => Answer::new(200).body(&whole).cut_after(10_000),
        })
    })
    .await;
    assert_eq!(fetch(&client(), &server, &blob(&content)).await.unwrap(), content);
    assert_eq!(server.log()[3].range(), Some(30_000));
}

#[tokio::test]
async fn a_server_that_always_cuts_is_given_up() {
    let content = content(100_000);
    let whole = content.clone();
    let server = serve(content.clone(), move |_, _| Some(Answer::new(200).body(&whole).cut_after(50_000))).await;
    let error = fetch(&client(), &server, &blob(&content)).await.unwrap_err();
    assert!(error.is_retryable(), "{error}");
    assert_eq!(server.log().len(), 5);
}

#[tokio::test]
async fn a_server_that_ignores_ranges_sends_what_we_have_again() {
    let content = content(100_000);
    let whole = content.clone();
    let server = serve(content.clone(), move |n, _| {
        let answer = Answer::new(200).body(&whole);
        Some(if n == 0 { answer.cut_after(40_000) } else { answer })
    })
    .await;
    assert_eq!(fetch(&client(), &server, &blob(&content)).await.unwrap(), content);
}

#[tokio::test]
async fn a_server_that_refuses_ranges_is_asked_without() {
    let content = content(100_000);
    let whole = content.clone();
    let server = serve(content.clone(), move |n, asked| match asked.range() {
        Some(_) => Some(Answer::new(416)),
        None if n == 0 => Some(Answer::new(200).body(&whole).cut_after(40_000)),
        None => None,
    })
    .await;
    assert_eq!(fetch(&client(), &server, &blob(&content)).await.unwrap(), content);
}

#[tokio::test]
async fn a_range_that_begins_elsewhere_does_not_damage_the_blob() {
    let content = content(100_000);
    let whole = content.clone();
    let server = serve(content.clone(), move |n, asked| match asked.range() {
        Some(start) if n == 1 => Some(Answer::part(&whole, start + 5)),
        Some(start) => Some(Answer::part(&whole, start - 5)),
        None if n == 0 => Some(Answer::new(200).body(&whole).cut_after(40_000)),
        None => None,
    })
    .await;
    assert_eq!(fetch(&client(), &server, &blob(&content)).await.unwrap(), content);
}

#[tokio::test]
async fn a_server_that_sends_less_than_the_range_is_asked_for_the_rest() {
    let content = content(100_000);
    let whole = content.clone();
    let server = serve(content.clone(), move |n, asked| match asked.range() {
        Some(start) if n == 1 => {
            let range = format!("bytes {start}-{}/{}", start + 9999, whole.len());
            Some(Answer::new(206).header("Content-Range", range).body(&whole[start..start + 10_000]))
        }
        None if n == 0 => Some(Answer::new(200).body(&whole).cut_after(40_000)),
        _ => None,
    })
    .await;
    assert_eq!(fetch(&client(), &server, &blob(&content)).await.unwrap(), content);
    assert_eq!(server.log()[2].range(), Some(50_000));
}

#[tokio::test]
async fn a_stalled_body_is_resumed() {
    let content = content(100_000);
    let whole = content.clone();
    let server =
        serve(content.clone(), move |n, _| (n == 0).then(|| Answer::new(200).body(&whole[..30_000]).length(whole.len()).then(Then::Stall)))
            .await;
    let begin = Instant::now();
    assert_eq!(fetch(&client(), &server, &blob(&content)).await.unwrap(), content);
    assert!(begin.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn a_server_that_trickles_does_not_keep_us_for_ever() {
    let server = Server::start(|_| Answer::new(200).length(1_000_000).then(Then::Trickle)).await;
    let idle_timeout = Duration::from_millis(60);
    let client = Client::new(crate::registry::ClientOptions { idle_timeout, ..quick() }).unwrap();
    let begin = Instant::now();
    let error = fetch(&client, &server, &blob(&content(1_000_000))).await.unwrap_err();
    assert!(matches!(error, Error::Timeout { .. }), "{error}");
    let error = client.fetch_manifest(&server.reference("a:1")).await.unwrap_err();
    assert!(matches!(error, Error::Timeout { .. }), "{error}");
    assert!(begin.elapsed() < Duration::from_secs(10));
}

#[tokio::test]
async fn a_server_that_never_answers_is_a_timeout() {
    let content = content(100);
    let server = serve(content.clone(), |_, _| Some(Answer::new(200).length(100).then(Then::Stall))).await;
    let error = fetch(&client(), &server, &blob(&content)).await.unwrap_err();
    assert!(matches!(error, Error::Timeout { .. }), "{error}");
}

#[tokio::test]
async fn wrong_bytes_are_an_error_and_not_an_end() {
    let right = content(100_000);
    let mut wrong = right.clone();
    wrong[77_777] ^= 1;
    let server = serve(wrong, |_, _| None).await;
    let mut stream = client().fetch_blob(&server.reference("a/b"), &blob(&right)).await.unwrap();
    let error = loop {
        match stream.next_chunk().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("wrong bytes ended well"),
            Err(error) => break error,
        }
    };
    assert!(matches!(&error, Error::DigestMismatch { expected, .. } if **expected == Digest::sha256(&right)), "{error}");
    assert!(stream.next_chunk().await.is_err(), "a failed stream never ends well");
}

#[tokio::test]
async fn a_blob_of_another_size_is_refused() {
    let content = content(1000);
    let short = serve(content[..900].to_vec(), |_, _| None).await;
    let long = serve([content.clone(), vec![0; 10]].concat(), |_, _| None).await;
    for server in [short, long] {
        let error = fetch(&client(), &server, &blob(&content)).await.unwrap_err();
        assert!(matches!(error, Error::SizeMismatch { expected: 1000, actual: 900 | 1010, .. }), "{error}");
    }
}

#[tokio::test]
async fn an_endless_body_is_refused_and_never_handed_out() {
    let content = content(100_000);
    let piece = content[..30_000].to_vec();
    let server = serve(Vec::new(), move |_, _| Some(Answer::new(200).body(&piece).chunked().then(Then::Repeat))).await;
    let mut stream = client().fetch_blob(&server.reference("a/b"), &blob(&content)).await.unwrap();
    let mut received = 0;
    let error = loop {
        match stream.next_chunk().await {
            Ok(Some(chunk)) => received += chunk.len(),
            Ok(None) => panic!("an endless body ended"),
            Err(error) => break error,
        }
    };
    assert!(received <= content.len());
    assert!(matches!(error, Error::SizeMismatch { at_least: true, .. }), "{error}");
}

#[tokio::test]
async fn bytes_after_the_end_of_a_chunked_body_are_refused() {
    let content = content(1000);
    let piece = content.clone();
    let server = serve(Vec::new(), move |_, _| Some(Answer::new(200).body(&piece).chunked().then(Then::Repeat))).await;
    let error = fetch(&client(), &server, &blob(&content)).await.unwrap_err();
    assert!(matches!(error, Error::SizeMismatch { .. }), "{error}");
}

#[tokio::test]
async fn a_download_of_an_earlier_process_is_continued() {
    let content = content(100_000);
    let server = serve(content.clone(), |_, _| None).await;
    let mut hasher = Hasher::new(crate::oci::Algorithm::Sha256);
    hasher.update(&content[..60_000]);
    let stream = client().resume_blob(&server.reference("a/b"), &blob(&content), 60_000, hasher).await.unwrap();
    assert_eq!(read_all(stream).await.unwrap(), content[60_000..]);
    assert_eq!(server.log()[0].range(), Some(60_000));
}

#[tokio::test]
async fn a_download_that_was_complete_is_only_checked() {
    let content = content(1000);
    let server = serve(content.clone(), |_, _| None).await;
    for (bytes, right) in [(content.clone(), true), (vec![0; 1000], false)] {
        let mut hasher = Hasher::new(crate::oci::Algorithm::Sha256);
        hasher.update(&bytes);
        let stream = client().resume_blob(&server.reference("a/b"), &blob(&content), 1000, hasher).await.unwrap();
        assert_eq!(read_all(stream).await.is_ok(), right);
    }
    assert_eq!(server.log().len(), 0);
}

#[tokio::test]
async fn a_busy_server_is_asked_again() {
    let content = content(1000);
    let server = serve(content.clone(), |n, _| (n < 2).then(|| Answer::new(503).body("busy"))).await;
    assert_eq!(fetch(&client(), &server, &blob(&content)).await.unwrap(), content);
    assert_eq!(server.log().len(), 3);
}

#[tokio::test]
async fn retry_after_is_honoured() {
    let content = content(1000);
    let server = serve(content.clone(), |n, _| (n == 0).then(|| Answer::new(429).header("Retry-After", 1))).await;
    let begin = Instant::now();
    assert_eq!(fetch(&client(), &server, &blob(&content)).await.unwrap(), content);
    assert!(begin.elapsed() >= Duration::from_secs(1));
}

#[tokio::test]
async fn a_retry_after_that_is_too_long_is_an_error_at_once() {
    let server = serve(Vec::new(), |_, _| Some(Answer::new(429).header("Retry-After", 3600))).await;
    let error = fetch(&client(), &server, &blob(b"x")).await.unwrap_err();
    assert_eq!((error.status(), server.log().len()), (Some(429), 1));
    assert!(error.hint().unwrap().contains("3600 s"));
}

#[tokio::test]
async fn a_missing_blob_is_not_asked_for_again() {
    let server = serve(Vec::new(), |_, _| Some(Answer::new(404).body(r#"{"errors":[{"code":"BLOB_UNKNOWN","message":"unknown"}]}"#))).await;
    let error = fetch(&client(), &server, &blob(b"x")).await.unwrap_err();
    assert!(error.is_not_found() && error.has_code("BLOB_UNKNOWN"), "{error}");
    assert_eq!(server.log().len(), 1);
}

#[tokio::test]
async fn a_cut_behind_a_redirect_asks_the_registry_for_a_new_address() {
    let content = content(50_000);
    let (whole, number) = (content.clone(), AtomicUsize::new(0));
    let storage = Server::start(move |asked| match asked.range() {
        _ if !asked.path.ends_with(&format!("key={}", number.load(SeqCst))) => Answer::new(403),
        Some(start) => Answer::part(&whole, start),
        None => {
            number.fetch_add(1, SeqCst);
            Answer::new(200).body(&whole).cut_after(20_000)
        }
    })
    .await;
    let (port, number) = (storage.port, AtomicUsize::new(0));
    let server = serve(Vec::new(), move |_, _| {
        let key = number.fetch_add(1, SeqCst);
        Some(Answer::new(307).header("Location", format!("http://127.0.0.1:{port}/data?key={key}")))
    })
    .await;
    assert_eq!(fetch(&client(), &server, &blob(&content)).await.unwrap(), content);
}

#[tokio::test]
async fn redirects_without_end_are_an_error() {
    let server = serve(Vec::new(), |n, _| Some(Answer::new(302).header("Location", format!("/again/{n}")))).await;
    let error = fetch(&client(), &server, &blob(b"x")).await.unwrap_err();
    assert!(matches!(error, Error::TooManyRedirects { .. }), "{error}");
    assert_eq!(server.log().len(), 11);
}

#[tokio::test]
async fn no_more_blobs_move_at_once_than_allowed() {
    let content = content(1000);
    let server = serve(content.clone(), |_, _| None).await;
    let client = Client::new(crate::registry::ClientOptions { max_concurrency_per_host: 2, ..quick() }).unwrap();
    let (reference, blob) = (server.reference("a/b"), blob(&content));
    let first = client.fetch_blob(&reference, &blob).await.unwrap();
    let _second = client.fetch_blob(&reference, &blob).await.unwrap();
    let third = client.fetch_blob(&reference, &blob);
    tokio::pin!(third);
    assert!(tokio::time::timeout(Duration::from_millis(100), &mut third).await.is_err(), "the third waits");
    read_all(first).await.unwrap();
    assert_eq!(read_all(third.await.unwrap()).await.unwrap(), content);
}

#[tokio::test]
async fn nobody_listening_is_a_clear_error() {
    let server = serve(Vec::new(), |_, _| None).await;
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let reference = format!("127.0.0.1:{port}/a/b").parse().unwrap();
    let error = client().fetch_blob(&reference, &blob(b"x")).await.unwrap_err();
    assert!(error.to_string().ends_with("cannot connect"), "{error}");
    drop(server);
}
