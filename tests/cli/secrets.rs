//! Secrets of registries: a server that says back what it was told does not get them into a message, and nobody but their server is told.

use std::sync::{Arc, Mutex};

use crate::common::web::{Reply, Request, Web};
use crate::common::{Done, World, able};

const PASSWORD: &str = "hunter2/and more";

/// `tester:hunter2/and more` in base64.
const PAIR: &str = "dGVzdGVyOmh1bnRlcjIvYW5kIG1vcmU=";

fn home(world: &World, address: &str) {
    std::fs::write(world.path("docker/config.json"), format!("{{\"auths\":{{\"{address}\":{{\"auth\":\"{PAIR}\"}}}}}}")).unwrap();
}

#[track_caller]
fn keeps_quiet(done: &Done) {
    for secret in [PASSWORD, PAIR, "hunter2", "t0ken-t0ken", "fresh-fresh"] {
        assert!(!done.stderr.contains(secret) && !done.stdout.contains(secret), "`{secret}` is shown: {done}");
    }
}

/// An error that holds all headers and the body of its request.
fn echo(request: &Request, status: u16) -> Reply {
    let text = format!("you said {:?} {}", request.headers, String::from_utf8_lossy(&request.body));
    let body = serde_json::json!({ "errors": [{ "code": format!("X {}", request.header("authorization")), "message": text }] });
    Reply::new(status, body.to_string()).with("Warning", &format!("299 - \"{}\"", request.header("authorization")))
}

#[test]
fn what_a_registry_says_back_is_shown_without_secrets() {
    if !able(&[]) {
        return;
    }
    for status in [400, 403, 500, 200] {
        let web = Web::start(move |request| match request.header("authorization") {
            "" => Reply::new(401, "{}").with("WWW-Authenticate", "Basic realm=\"x\""),
            _ => echo(request, status),
        });
        let world = World::new();
        let address = format!("127.0.0.1:{}", web.port);
        home(&world, &address);
        for command in ["pull", "ls", "digest", "manifest"] {
            let name = format!("{address}/app{}", if command == "ls" { "" } else { ":1" });
            let config = world.path("config.toml");
            std::fs::write(&config, "[transfer]\nattempts = 1\n").unwrap();
            keeps_quiet(&world.strake([command, &name]).env("STRAKE_CONFIG", &config).run());
        }
        assert!(web.take().iter().any(|request| request.header("authorization").ends_with(PAIR)), "it was told");
        let login = world.strake(["login", "-u", "tester", "--password-stdin", &address]).stdin(PASSWORD);
        keeps_quiet(&login.env("STRAKE_CONFIG", world.path("config.toml")).run());
    }
}

#[test]
fn what_a_token_server_says_back_is_shown_without_secrets() {
    if !able(&[]) {
        return;
    }
    for (entry, status) in [("auth", 400), ("identitytoken", 403), ("identitytoken", 200), ("auth", 200)] {
        let realm = Arc::new(Mutex::new(String::new()));
        let at = realm.clone();
        let web = Web::start(move |request| match request.path.as_str() {
            "/token" if status == 200 => Reply::new(200, "{\"token\":\"t0ken-t0ken\",\"refresh_token\":\"fresh-fresh\"}"),
            "/token" => echo(request, status),
            _ if request.header("authorization").is_empty() => {
                let challenge = format!("Bearer realm=\"{}\",service=\"s\"", at.lock().unwrap());
                Reply::new(401, "{}").with("WWW-Authenticate", &challenge)
            }
            _ => echo(request, 403),
        });
        *realm.lock().unwrap() = web.url("/token");
        let world = World::new();
        let address = format!("127.0.0.1:{}", web.port);
        let secret = if entry == "auth" { PAIR } else { "hunter2-refresh" };
        std::fs::write(world.path("docker/config.json"), format!("{{\"auths\":{{\"{address}\":{{\"{entry}\":\"{secret}\"}}}}}}")).unwrap();
        let done = world.strake(["digest", &format!("{address}/app:1")]).fails();
        keeps_quiet(&done);
        done.says(&[if status == 200 { "403" } else { "/token" }]);
    }
}

#[test]
fn a_token_server_without_tls_elsewhere_is_told_nothing() {
    if !able(&[]) {
        return;
    }
    // A name that only this machine knows would need a name server, so an address of the range for documentation will do: nothing may be sent there at all.
    let web = Web::start(|_| Reply::new(401, "{}").with("WWW-Authenticate", "Bearer realm=\"http://192.0.2.1/token\",service=\"s\""));
    let world = World::new();
    let address = format!("127.0.0.1:{}", web.port);
    home(&world, &address);
    let done = world.strake(["digest", &format!("{address}/app:1")]).fails();
    done.says(&["http://192.0.2.1/token", "not encrypted", "--plain-http"]);
    keeps_quiet(&done);
}

#[test]
fn blobs_that_lie_elsewhere_are_fetched_without_our_credentials() {
    if !able(&[]) {
        return;
    }
    let good = crate::common::faulty::Faulty::start();
    let world = World::new();
    world.write("file", "content").build("FROM scratch\nCOPY file /\n", &["-t", &good.name("app:1"), "--push"]).ok();
    good.mend();
    let (store, elsewhere) = (good.clone(), good.copy());
    let place = elsewhere.address().to_owned();
    elsewhere.mend();
    let web = Web::start(move |request| match request.header("authorization") {
        "" => Reply::new(401, "{}").with("WWW-Authenticate", "Basic realm=\"x\""),
        _ if request.path.contains("/blobs/") => Reply::new(307, "").with("Location", &format!("http://{place}{}", request.path)),
        _ if request.path.contains("/manifests/") => {
            Reply::new(200, store.manifest("1").unwrap()).with("Content-Type", "application/vnd.oci.image.manifest.v1+json")
        }
        _ => Reply::new(200, "{}"),
    });
    let other = World::new();
    let address = format!("127.0.0.1:{}", web.port);
    home(&other, &address);
    other.strake(["pull", &format!("{address}/app:1")]).ok();
    assert_eq!(elsewhere.log().len(), 2);
    assert!(elsewhere.log().iter().all(|request| request.header("authorization").is_empty()));
}
