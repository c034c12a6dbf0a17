//! Authentication: challenges, tokens that run out, and where an `Authorization` may not go.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use base64::Engine as _;

use crate::diag::Secret;
use crate::oci::Digest;
use crate::registry::{Client, ClientOptions, Credential, Credentials, LoginOutcome};

use super::server::{Answer, Asked, Server, basic, client, client_of, quick};
use super::{blob, content};

const USER: &str = "alice";
const PASSWORD: &str = "hunter2 päss:word";

fn authorization(user: &str, password: &str) -> String {
    format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}")))
}

/// What the token server and the registry of a test agree on.
#[derive(Default)]
struct Tokens {
    /// The token that is good now.
    valid: Mutex<String>,
    issued: AtomicUsize,
}

/// A registry that wants bearer tokens, with its own token server. `answer` gives the content.
async fn token_registry(anonymous: bool, answer: impl Fn(&Asked, &dyn Fn()) -> Answer + Send + Sync + 'static) -> (Server, Arc<Tokens>) {
    let tokens = Arc::new(Tokens::default());
    let shared = tokens.clone();
    let server = Server::with_ping(move |asked| {
        let host = asked.header("host").unwrap();
        if asked.path.starts_with("/token") {
            let user = asked.header("authorization").map(str::to_owned);
            if !(anonymous && user.is_none() || user == Some(authorization(USER, PASSWORD))) {
                return Answer::new(401).body(r#"{"details":"incorrect username or password"}"#);
            }
            let token = format!("token-{}", shared.issued.fetch_add(1, SeqCst));
            *shared.valid.lock().unwrap() = token.clone();
            return Answer::new(200).body(format!(r#"{{"token":"{token}","expires_in":300}}"#));
        }
        let valid = shared.valid.lock().unwrap().clone();
        if valid.is_empty() || asked.header("authorization") != Some(&format!("Bearer {valid}")) {
            let challenge = format!(r#"Bearer realm="http://{host}/token",service="test reg",scope="repository:a/b:pull""#);
            return Answer::new(401)
                .header("WWW-Authenticate", challenge)
                .body(r#"{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}"#);
        }
        answer(asked, &|| shared.valid.lock().unwrap().clear())
    })
    .await;
    (server, tokens)
}

async fn read(client: &Client, server: &Server, content: &[u8]) -> Result<Vec<u8>, crate::registry::Error> {
    let mut stream = client.fetch_blob(&server.reference("a/b"), &blob(content)).await?;
    let mut out = Vec::new();
    while let Some(chunk) = stream.next_chunk().await? {
        out.extend_from_slice(&chunk);
    }
    Ok(out)
}

#[tokio::test]
async fn a_token_is_fetched_once_and_serves_all_requests() {
    let (server, tokens) = token_registry(false, |_, _| Answer::new(200).body("{}")).await;
    let client = client_of(&server, USER, PASSWORD);
    let reference = server.reference("a/b:1");
    let calls = (0..8).map(|_| client.fetch_manifest(&reference));
    for result in futures_util::future::join_all(calls).await {
        result.unwrap();
    }
    assert_eq!(tokens.issued.load(SeqCst), 1);
    let asked = server.log().into_iter().find(|asked| asked.path.starts_with("/token")).unwrap();
    assert_eq!(asked.path, "/token?service=test+reg&scope=repository%3Aa%2Fb%3Apull&account=alice");
}

#[tokio::test]
async fn public_images_need_no_credentials() {
    let (server, _) = token_registry(true, |_, _| Answer::new(200).body("{}")).await;
    client().fetch_manifest(&server.reference("a/b:1")).await.unwrap();
    let asked = server.log().into_iter().find(|asked| asked.path.starts_with("/token")).unwrap();
    assert_eq!(asked.header("authorization"), None);
}

#[tokio::test]
async fn refused_credentials_are_reported_without_being_shown() {
    let (server, _) = token_registry(false, |_, _| Answer::new(200)).await;
    let error = client_of(&server, USER, "wrong-secret").fetch_manifest(&server.reference("a/b:1")).await.unwrap_err();
    assert!(error.is_unauthorized());
    assert!(error.to_string().contains("incorrect username or password"), "{error}");
    assert!(error.hint().unwrap().contains("were refused"));
    assert!(!format!("{error} {error:?}").contains("wrong-secret"));
}

#[tokio::test]
async fn missing_credentials_are_named_in_the_hint() {
    let (server, _) = token_registry(false, |_, _| Answer::new(200)).await;
    let error = client().fetch_manifest(&server.reference("a/b:1")).await.unwrap_err();
    let host = server.host();
    assert_eq!(error.hint().unwrap(), format!("no credentials for `{host}` were found; run `strake login {host}`"));
}

#[tokio::test]
async fn a_token_that_runs_out_in_the_middle_is_replaced() {
    let content = content(100_000);
    let whole = content.clone();
    let number = AtomicUsize::new(0);
    let (server, tokens) = token_registry(true, move |asked, revoke| match asked.range() {
        Some(start) => Answer::part(&whole, start),
        None => {
            assert_eq!(number.fetch_add(1, SeqCst), 0);
            revoke();
            Answer::new(200).body(&whole).cut_after(30_000)
        }
    })
    .await;
    assert_eq!(read(&client(), &server, &content).await.unwrap(), content);
    assert_eq!(tokens.issued.load(SeqCst), 2);
}

#[tokio::test]
async fn a_registry_that_refuses_every_token_is_not_asked_for_ever() {
    let server = Server::with_ping(|asked| match asked.path.starts_with("/token") {
        true => Answer::new(200).body(r#"{"access_token":"t"}"#),
        false => Answer::new(401).header("WWW-Authenticate", format!(r#"Bearer realm="http://{}/token""#, asked.header("host").unwrap())),
    })
    .await;
    let error = client().fetch_manifest(&server.reference("a/b:1")).await.unwrap_err();
    assert_eq!(error.status(), Some(401));
    assert_eq!(server.count("GET", "/v2/"), 2);
}

#[tokio::test]
async fn basic_is_sent_when_it_is_asked_for() {
    let server = Server::with_ping(|asked| match asked.header("authorization") {
        Some(value) if value == authorization(USER, PASSWORD) => Answer::new(200).body("{}"),
        _ => Answer::new(401).header("WWW-Authenticate", r#"Basic realm="reg""#),
    })
    .await;
    client_of(&server, USER, PASSWORD).fetch_manifest(&server.reference("a:1")).await.unwrap();
    let error = client_of(&server, USER, "other").fetch_manifest(&server.reference("a:1")).await.unwrap_err();
    assert_eq!(error.status(), Some(401));
    assert!(client().fetch_manifest(&server.reference("a:1")).await.unwrap_err().hint().unwrap().contains("strake login"));
}

#[tokio::test]
async fn nothing_is_sent_to_a_registry_that_does_not_ask() {
    let server = Server::start(|_| Answer::new(200).body("{}")).await;
    client_of(&server, USER, PASSWORD).fetch_manifest(&server.reference("a:1")).await.unwrap();
    assert!(server.log().iter().all(|asked| asked.header("authorization").is_none()));
}

#[tokio::test]
async fn authorization_and_own_headers_do_not_follow_a_redirect_to_another_host() {
    let content = content(1000);
    let whole = content.clone();
    let storage = Server::start(move |_| Answer::new(200).body(&whole)).await;
    let port = storage.port;
    let (server, _) = token_registry(true, move |asked, _| match asked.path.as_str() {
        "/elsewhere" => Answer::new(307).header("Location", format!("http://127.0.0.1:{port}/data")),
        _ => Answer::new(307).header("Location", "/elsewhere"),
    })
    .await;
    let extra_headers = vec![("X-Custom".to_owned(), Secret::new("mine".to_owned()))];
    let client = Client::new(ClientOptions { extra_headers, ..quick() }).unwrap();
    assert_eq!(read(&client, &server, &content).await.unwrap(), content);
    let asked = &storage.log()[0];
    assert_eq!((asked.header("authorization"), asked.header("x-custom")), (None, None));
    let hop = server.log().into_iter().find(|asked| asked.path == "/elsewhere").unwrap();
    assert!(hop.header("authorization").is_some() && hop.header("x-custom") == Some("mine"), "the same origin still gets them");
    let token = server.log().into_iter().find(|asked| asked.path.starts_with("/token")).unwrap();
    assert_eq!(token.header("x-custom"), None);
}

#[tokio::test]
async fn an_identity_token_is_exchanged_by_post() {
    let server = Server::with_ping(|asked| {
        if asked.is("POST", "/token") {
            let form: Vec<(String, String)> = url::form_urlencoded::parse(&asked.body).into_owned().collect();
            let get = |name: &str| form.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
            assert_eq!((get("grant_type"), get("refresh_token")), (Some("refresh_token"), Some("refresh me")));
            assert_eq!(get("scope"), Some("repository:a:pull"));
            return Answer::new(200).body(r#"{"access_token":"good"}"#);
        }
        match asked.header("authorization") {
            Some("Bearer good") => Answer::new(200).body("{}"),
            _ => Answer::new(401).header("WWW-Authenticate", format!(r#"Bearer realm="http://{}/token""#, asked.header("host").unwrap())),
        }
    })
    .await;
    let credential = Credential::IdentityToken(Secret::new("refresh me".to_owned()));
    let credentials = Credentials::default().with(&server.host(), credential);
    let client = Client::new(ClientOptions { credentials, ..quick() }).unwrap();
    client.fetch_manifest(&server.reference("a:1")).await.unwrap();
}

#[tokio::test]
async fn a_refresh_token_does_not_follow_a_redirect_to_another_host() {
    let thief = Server::start(|_| Answer::new(200).body(r#"{"access_token":"good"}"#)).await;
    let port = thief.port;
    let server = Server::with_ping(move |asked| match asked.path.starts_with("/token") {
        true => Answer::new(307).header("Location", format!("http://127.0.0.1:{port}/token")),
        false => Answer::new(401).header("WWW-Authenticate", format!(r#"Bearer realm="http://{}/token""#, asked.header("host").unwrap())),
    })
    .await;
    let credential = Credential::IdentityToken(Secret::new("refresh me".to_owned()));
    let credentials = Credentials::default().with(&server.host(), credential);
    let client = Client::new(ClientOptions { credentials, ..quick() }).unwrap();
    assert_eq!(client.fetch_manifest(&server.reference("a:1")).await.unwrap_err().status(), Some(307));
    assert!(thief.log().is_empty());
}

#[tokio::test]
async fn a_busy_token_server_is_asked_again_but_not_for_ever() {
    let asked_for = AtomicUsize::new(0);
    let server = Server::with_ping(move |asked| match asked.path.starts_with("/token") {
        true if asked_for.fetch_add(1, SeqCst) < 2 => Answer::new(503),
        true => Answer::new(200).body(r#"{"token":"good"}"#),
        false if asked.header("authorization") == Some("Bearer good") => Answer::new(200).body("{}"),
        false => Answer::new(401).header("WWW-Authenticate", format!(r#"Bearer realm="http://{}/token""#, asked.header("host").unwrap())),
    })
    .await;
    client().fetch_manifest(&server.reference("a:1")).await.unwrap();
    let down = Server::with_ping(|asked| match asked.path.starts_with("/token") {
        true => Answer::new(503),
        false => Answer::new(401).header("WWW-Authenticate", format!(r#"Bearer realm="http://{}/token""#, asked.header("host").unwrap())),
    })
    .await;
    assert_eq!(client().fetch_manifest(&down.reference("a:1")).await.unwrap_err().status(), Some(503));
    assert_eq!(down.count("GET", "/token"), 5);
}

#[tokio::test]
async fn a_token_server_without_get_is_asked_by_oauth() {
    let server = Server::with_ping(|asked| match asked.path.starts_with("/token") {
        true if asked.method == "GET" => Answer::new(405),
        true => Answer::new(200).body(r#"{"access_token":"good"}"#),
        false if asked.header("authorization") == Some("Bearer good") => Answer::new(200).body("{}"),
        false => Answer::new(401).header("WWW-Authenticate", format!(r#"Bearer realm="http://{}/token""#, asked.header("host").unwrap())),
    })
    .await;
    client_of(&server, USER, PASSWORD).fetch_manifest(&server.reference("a:1")).await.unwrap();
    let form = server.log().into_iter().find(|asked| asked.method == "POST").unwrap().body;
    assert!(String::from_utf8(form).unwrap().starts_with("grant_type=password&username=alice&"));
}

#[tokio::test]
async fn a_mount_asks_for_both_repositories_in_one_token() {
    let (server, _) = token_registry(true, |_, _| Answer::new(201)).await;
    let (to, from) = (server.reference("a/b"), server.reference("c/d"));
    client().mount_blob(&to, &Digest::sha256(b"x"), &from).await.unwrap();
    let asked = server.log().into_iter().find(|asked| asked.path.starts_with("/token")).unwrap();
    assert!(asked.path.contains("scope=repository%3Aa%2Fb%3Apull%2Cpush&scope=repository%3Ac%2Fd%3Apull"), "{}", asked.path);
}

#[tokio::test]
async fn login_checks_the_credential() {
    let (server, _) = token_registry(false, |_, _| Answer::new(200).body("{}")).await;
    let good = client().ping_auth(&server.host(), &basic(USER, PASSWORD)).await.unwrap();
    assert_eq!(good, LoginOutcome::Accepted { identity_token: None });
    assert!(client().ping_auth(&server.host(), &basic(USER, "no")).await.unwrap_err().is_unauthorized());
    let open = Server::start(|_| Answer::new(404)).await;
    assert_eq!(client().ping_auth(&open.host(), &basic(USER, PASSWORD)).await.unwrap(), LoginOutcome::NotAsked);
}

#[tokio::test]
async fn login_keeps_the_refresh_token_that_the_server_gives() {
    let server = Server::with_ping(|asked| match asked.path.starts_with("/token") {
        true => {
            assert!(asked.path.contains("offline_token=true"), "{}", asked.path);
            Answer::new(200).body(r#"{"token":"good","refresh_token":"later"}"#)
        }
        false if asked.header("authorization") == Some("Bearer good") => Answer::new(200).body("{}"),
        false => Answer::new(401).header("WWW-Authenticate", format!(r#"Bearer realm="http://{}/token""#, asked.header("host").unwrap())),
    })
    .await;
    let outcome = client().ping_auth(&server.host(), &basic(USER, PASSWORD)).await.unwrap();
    assert_eq!(outcome, LoginOutcome::Accepted { identity_token: Some(Secret::new("later".to_owned())) });
}

#[tokio::test]
async fn a_token_server_that_answers_nonsense_is_an_error_without_secrets() {
    for body in ["", "<html>", "{}", r#"{"token":"secret\nvalue"}"#, r#"{"token":7}"#] {
        let server = Server::with_ping(move |asked| match asked.path.starts_with("/token") {
            true => Answer::new(200).body(body),
            false => {
                Answer::new(401).header("WWW-Authenticate", format!(r#"Bearer realm="http://{}/token""#, asked.header("host").unwrap()))
            }
        })
        .await;
        let error = client().fetch_manifest(&server.reference("a:1")).await.unwrap_err();
        assert!(error.to_string().contains("a token"), "{error}");
        assert!(!format!("{error:?}").contains("secret"));
    }
}
