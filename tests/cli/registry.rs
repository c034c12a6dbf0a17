//! The registry that is in the binary: other tools push to it and pull from it, it is killed in the middle, and nothing is lost.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sha2::Digest as _;

use crate::common::{Registry, Run, World, able};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// A `strake registry serve`; it is killed with this value.
struct Served {
    child: Child,
    address: String,
}

impl Served {
    /// Starts one on the storage `storage` of a world.
    fn start(world: &World, args: &[&str]) -> Served {
        let mut all = vec!["registry", "serve", "--addr", "127.0.0.1:0"];
        if !args.contains(&"--storage") {
            all.extend(["--storage", "storage"]);
        }
        all.extend(args);
        let mut run = world.strake(all);
        let mut child = run.command().stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.trim().strip_prefix("listening on ").unwrap_or_else(|| panic!("{line:?}"));
        let address = address.strip_prefix("http://").or_else(|| address.strip_prefix("https://")).unwrap().to_owned();
        Served { child, address }
    }

    fn name(&self, name: &str) -> String {
        format!("{}/{name}", self.address)
    }

    fn url(&self, name: &str) -> String {
        format!("docker://{}/{name}", self.address)
    }

    /// Sends a request; gives status, head and body. `None` where the server is gone.
    fn send(&self, method: &str, path: &str, kind: &str, body: &[u8]) -> Option<(u16, String, Vec<u8>)> {
        send(&self.address, method, path, kind, body)
    }

    fn signal(&self, signal: nix::sys::signal::Signal) {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(i32::try_from(self.child.id()).unwrap()), signal).unwrap();
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn send(address: &str, method: &str, path: &str, kind: &str, body: &[u8]) -> Option<(u16, String, Vec<u8>)> {
    let mut socket = TcpStream::connect(address).ok()?;
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    socket.write_all(head.as_bytes()).and_then(|()| socket.write_all(body)).ok()?;
    let mut bytes = Vec::new();
    socket.read_to_end(&mut bytes).ok()?;
    let end = bytes.windows(4).position(|part| part == b"\r\n\r\n")?;
    let head = String::from_utf8(bytes[..end].to_vec()).ok()?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    Some((status, head, bytes[end + 4..].to_vec()))
}

fn sha256(bytes: &[u8]) -> String {
    sha2::Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// podman with a store of its own.
fn podman(world: &World, args: &[&str]) -> Run {
    let (root, run) = (world.path("peer"), world.short().join("run"));
    let mut all: Vec<String> =
        ["--root", root.to_str().unwrap(), "--runroot", run.to_str().unwrap(), "--storage-driver", "overlay"].map(String::from).into();
    all.extend(args.iter().map(|arg| (*arg).to_owned()));
    Run::new("podman", all).env("TMPDIR", world.path(""))
}

#[test]
fn skopeo_podman_and_strake_push_to_it_and_pull_from_it() {
    if !able(&["docker-registry", "skopeo", "podman"]) {
        return;
    }
    let (world, source) = (World::new(), Registry::with_bases());
    let served = Served::start(&world, &[]);
    // skopeo pushes.
    let copy = ["--insecure-policy", "copy", "-q", "--src-tls-verify=false", "--dest-tls-verify=false"];
    Run::new("skopeo", copy).arg(source.url("busybox")).arg(served.url("by/skopeo:1")).ok();
    let digest = |url: &str| Run::new("skopeo", ["inspect", "--tls-verify=false", "--format", "{{.Digest}}", url]).ok().stdout;
    assert_eq!(digest(&served.url("by/skopeo:1")), digest(&source.url("busybox")));
    // podman pulls and pushes.
    podman(&world, &["pull", "-q", "--tls-verify=false", &served.name("by/skopeo:1")]).ok();
    podman(&world, &["tag", &served.name("by/skopeo:1"), &served.name("by/podman:1")]).ok();
    podman(&world, &["push", "-q", "--tls-verify=false", &served.name("by/podman:1")]).ok();
    // We pull, build, push, and run what was pulled.
    world.write("Dockerfile", format!("FROM {}\nRUN echo built > /file\n", served.name("by/podman:1")));
    world.build_as_it_is(&["-t", &served.name("by/strake:1"), "--push"]).ok();
    let other = World::new();
    let ran = other.strake(["run", "--rm", &served.name("by/strake:1"), "cat", "/file"]).ok();
    assert_eq!(ran.stdout, "built\n");
    // skopeo reads all of it back, and deletes.
    let to = format!("dir:{}", world.path("back").display());
    Run::new("skopeo", ["--insecure-policy", "copy", "-q", "--src-tls-verify=false", &served.url("by/strake:1"), &to]).ok();
    let tags = |name: &str| served.send("GET", &format!("/v2/{name}/tags/list"), "", b"").unwrap().2;
    assert_eq!(serde_json::from_slice::<Value>(&tags("by/strake")).unwrap(), json!({ "name": "by/strake", "tags": ["1"] }));
    Run::new("skopeo", ["delete", "--tls-verify=false", &served.url("by/strake:1")]).ok();
    assert_eq!(serde_json::from_slice::<Value>(&tags("by/strake")).unwrap(), json!({ "name": "by/strake", "tags": [] }));
    let (_, _, catalog) = served.send("GET", "/v2/_catalog", "", b"").unwrap();
    assert_eq!(serde_json::from_slice::<Value>(&catalog).unwrap(), json!({ "repositories": ["by/podman", "by/skopeo"] }));
}

#[test]
fn a_second_push_mounts_or_finds_everything() {
    if !able(&["docker-registry"]) {
        return;
    }
    let world = World::new();
    let served = Served::start(&world, &[]);
    world.busybox();
    for name in ["one", "two"] {
        world.strake(["tag", "localhost/busybox", &served.name(name)]).ok();
        world.strake(["push", &served.name(name)]).ok();
    }
    let (_, _, metrics) = served.send("GET", "/metrics", "", b"").unwrap();
    let metrics = String::from_utf8(metrics).unwrap();
    let count = |name: &str| -> u64 {
        let line =
            metrics.lines().find(|line| line.starts_with(&format!("strake_registry_{name} "))).unwrap_or_else(|| panic!("{metrics}"));
        line.rsplit(' ').next().unwrap().parse().unwrap()
    };
    assert_eq!((count("repositories"), count("blobs"), count("manifests")), (2, 2, 2));
    let bytes = count("received_bytes_total");
    world.strake(["push", &served.name("two")]).ok();
    assert!(bytes < count("blob_bytes") + 8192, "the second repository was sent the blobs again: {metrics}");
}

/// What a pusher was told to be stored: manifests by repository.
type Promised = HashMap<String, Vec<(String, Vec<u8>)>>;

/// Pushes images until the server is gone; gives what it was told to be stored.
fn push_until_gone(address: &str, pusher: usize, round: usize, stop: &AtomicBool) -> Promised {
    let mut promised = Promised::new();
    let name = format!("pusher{pusher}");
    for number in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let config = format!("{{\"pusher\":{pusher},\"round\":{round},\"number\":{number}}}").into_bytes();
        // Shared with the other pushers, and large enough to be cut.
        let layer = format!("layer {round} {number} ").repeat(20_000).into_bytes();
        let mut push = || -> Option<()> {
            for (index, blob) in [&config, &layer].into_iter().enumerate() {
                let digest = format!("digest=sha256:{}", sha256(blob));
                if index == 0 {
                    send(address, "POST", &format!("/v2/{name}/blobs/uploads/?{digest}"), "", blob).filter(|answer| answer.0 == 201)?;
                    continue;
                }
                let (_, head, _) =
                    send(address, "POST", &format!("/v2/{name}/blobs/uploads/"), "", b"").filter(|answer| answer.0 == 202)?;
                let location = head.lines().find_map(|line| line.strip_prefix("location: "))?;
                let half = blob.len() / 2;
                send(address, "PATCH", location, "", &blob[..half]).filter(|answer| answer.0 == 202)?;
                send(address, "PUT", &format!("{location}?{digest}"), "", &blob[half..]).filter(|answer| answer.0 == 201)?;
            }
            let descriptor =
                |kind: &str, bytes: &[u8]| json!({ "mediaType": kind, "digest": format!("sha256:{}", sha256(bytes)), "size": bytes.len() });
            let manifest = json!({
                "schemaVersion": 2, "mediaType": MANIFEST,
                "config": descriptor("application/vnd.oci.image.config.v1+json", &config),
                "layers": [descriptor("application/vnd.oci.image.layer.v1.tar", &layer)],
            });
            let manifest = manifest.to_string().into_bytes();
            let tag = format!("r{round}-{number}");
            send(address, "PUT", &format!("/v2/{name}/manifests/{tag}"), MANIFEST, &manifest).filter(|answer| answer.0 == 201)?;
            promised.entry(name.clone()).or_default().push((tag, manifest));
            Some(())
        };
        if push().is_none() {
            break;
        }
    }
    promised
}

/// Every blob in the storage has its name's hash, and every promise is kept to the last byte.
fn check(served: &Served, storage: &Path, promised: &Promised) {
    for entry in std::fs::read_dir(storage.join("blobs/sha256")).unwrap() {
        let path = entry.unwrap().path();
        assert_eq!(sha256(&std::fs::read(&path).unwrap()), path.file_name().unwrap().to_str().unwrap());
    }
    for (name, manifests) in promised {
        for (tag, manifest) in manifests {
            let (status, _, body) = served.send("GET", &format!("/v2/{name}/manifests/{tag}"), "", b"").unwrap();
            assert!(status == 200 && body == *manifest, "{name}:{tag}: {status}");
            let manifest: Value = serde_json::from_slice(manifest).unwrap();
            for descriptor in [&manifest["config"], &manifest["layers"][0]] {
                let digest = descriptor["digest"].as_str().unwrap();
                let (status, _, body) = served.send("GET", &format!("/v2/{name}/blobs/{digest}"), "", b"").unwrap();
                assert!(status == 200 && format!("sha256:{}", sha256(&body)) == digest, "{name}@{digest}: {status}, {} bytes", body.len());
            }
        }
    }
}

#[test]
fn what_it_said_to_have_is_there_after_it_was_killed() {
    let world = World::new();
    let storage = world.path("storage");
    let mut promised = Promised::new();
    for round in 0..8 {
        // A server that collects garbage all the time, and another one on the same storage.
        let mut one = Served::start(&world, &["--gc-interval", "20ms", "--gc-grace", "30s"]);
        let two = Served::start(&world, &[]);
        check(&one, &storage, &promised);
        let stop = AtomicBool::new(false);
        let pushed: Vec<Promised> = std::thread::scope(|scope| {
            let pushers: Vec<_> = (0..4)
                .map(|pusher| {
                    let address = if pusher == 3 { &two.address } else { &one.address };
                    let stop = &stop;
                    scope.spawn(move || push_until_gone(address, pusher, round, stop))
                })
                .collect();
            std::thread::sleep(Duration::from_millis(150 + 37 * round as u64));
            one.child.kill().unwrap();
            std::thread::sleep(Duration::from_millis(50));
            stop.store(true, Ordering::Relaxed);
            pushers.into_iter().map(|pusher| pusher.join().unwrap()).collect()
        });
        for (name, manifests) in pushed.into_iter().flatten() {
            promised.entry(name).or_default().extend(manifests);
        }
    }
    assert!(promised.values().map(Vec::len).sum::<usize>() > 5, "too little was pushed to tell anything");
    let served = Served::start(&world, &[]);
    check(&served, &storage, &promised);
    // Uploads that were cut are all that is too much, and they go.
    let done = world.strake(["registry", "gc", "--storage", "storage", "--gc-grace", "0s"]).ok();
    assert!(done.stdout.starts_with("removed "), "{done}");
    assert_eq!(std::fs::read_dir(storage.join("uploads")).unwrap().count(), 0);
    check(&served, &storage, &promised);
}

#[test]
fn two_pushes_of_one_image_at_once_both_succeed() {
    if !able(&["docker-registry"]) {
        return;
    }
    let world = World::new();
    let served = Served::start(&world, &[]);
    world.busybox();
    let names = ["same:1", "same:1", "same:2", "other:1"].map(|name| served.name(name));
    for name in &names {
        world.strake(["tag", "localhost/busybox", name]).ok();
    }
    std::thread::scope(|scope| {
        for name in &names {
            scope.spawn(|| world.strake(["push", name]).ok());
        }
    });
    let other = World::new();
    for name in &names {
        other.strake(["pull", name]).ok();
    }
}

#[test]
fn sixty_four_clients_pull_a_blob_at_once() {
    let world = World::new();
    let served = Served::start(&world, &[]);
    let blob: Vec<u8> = (0..8_000_000_u32).map(|number| (number.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let digest = format!("sha256:{}", sha256(&blob));
    assert_eq!(served.send("POST", &format!("/v2/a/blobs/uploads/?digest={digest}"), "", &blob).unwrap().0, 201);
    std::thread::scope(|scope| {
        for _ in 0..64 {
            scope.spawn(|| {
                let (status, _, body) = served.send("GET", &format!("/v2/a/blobs/{digest}"), "", b"").unwrap();
                assert!(status == 200 && body == blob);
            });
        }
    });
}

/// A certificate for 127.0.0.1 and its key.
fn certificate(world: &World) -> (PathBuf, PathBuf) {
    let (certificate, key) = (world.path("server.crt"), world.path("server.key"));
    let request =
        ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=registry", "-addext", "subjectAltName=IP:127.0.0.1"];
    Run::new("openssl", request).arg("-keyout").arg(&key).arg("-out").arg(&certificate).ok();
    (certificate, key)
}

#[test]
fn with_a_certificate_and_users_it_lets_in_whom_it_should() {
    if !able(&["docker-registry", "skopeo", "openssl", "htpasswd"]) {
        return;
    }
    let world = World::new();
    let (certificate, key) = certificate(&world);
    std::fs::write(world.path("users"), Run::new("htpasswd", ["-Bbn", "tester", "pass-word"]).ok().stdout).unwrap();
    let served =
        Served::start(&world, &["--auth", "users", "--tls-cert", certificate.to_str().unwrap(), "--tls-key", key.to_str().unwrap()]);
    world.busybox();
    let name = served.name("private:1");
    world.strake(["tag", "localhost/busybox", &name]).ok();
    // Who does not know the certificate, the user or the password.
    world.strake(["push", &name]).fails();
    let ours = |args: &[&str]| world.strake(["--tls-skip-verify", &served.address]).arg(args[0]).arg(&name);
    ours(&["push"]).fails().says(&["401"]);
    let login = |password: &str| {
        world.strake(["--tls-skip-verify", &served.address, "login", "-u", "tester", "--password-stdin", &served.address]).stdin(password)
    };
    login("wrong").fails().says(&["401"]);
    login("pass-word").ok();
    ours(&["push"]).ok();
    let to = format!("dir:{}", world.path("back").display());
    let copy = ["--insecure-policy", "copy", "-q", "--src-tls-verify=false", "--src-creds"];
    Run::new("skopeo", copy).arg("tester:pass-word").arg(served.url("private:1")).arg(&to).ok();
    Run::new("skopeo", copy).arg("tester:wrong").arg(served.url("private:1")).arg(&to).fails();
}

#[test]
fn nobody_comes_in_while_the_file_of_users_is_broken_or_gone() {
    if !able(&["htpasswd", "curl"]) {
        return;
    }
    let world = World::new();
    let users = world.path("users");
    let good = Run::new("htpasswd", ["-Bbn", "tester", "pass-word"]).ok().stdout;
    std::fs::write(&users, &good).unwrap();
    let served = Served::start(&world, &["--auth", "users"]);
    let status = |user: &str| {
        let url = format!("http://{}/v2/", served.address);
        Run::new("curl", ["-s", "-o", "/dev/null", "-w", "%{http_code}", "-u", user, &url]).ok().stdout
    };
    assert_eq!((status("tester:pass-word").as_str(), status("tester:wrong").as_str()), ("200", "401"));
    for broken in [Some(format!("{good}md5user:$apr1$x$y\n")), Some("tester:pass-word\n".to_owned()), None] {
        match &broken {
            Some(text) => std::fs::write(&users, text).unwrap(),
            None => std::fs::remove_file(&users).unwrap(),
        }
        assert_eq!(status("tester:pass-word"), "500", "{broken:?}");
    }
    // A user that was taken out is out at once, and one who is in again comes in.
    std::fs::write(&users, Run::new("htpasswd", ["-Bbn", "other", "word"]).ok().stdout).unwrap();
    assert_eq!((status("tester:pass-word").as_str(), status("other:word").as_str()), ("401", "200"));
    std::fs::write(&users, &good).unwrap();
    assert_eq!(status("tester:pass-word"), "200");
}

/// The digest of these bytes by sha512.
fn sha512(bytes: &[u8]) -> String {
    format!("sha512:{}", sha2::Sha512::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect::<String>())
}

#[test]
fn an_image_by_sha512_alone_is_pulled_built_on_checked_and_sent_on() {
    if !able(&["tar"]) {
        return;
    }
    let world = World::new();
    let served = Served::start(&world, &[]);
    std::fs::write(world.path("file"), "content").unwrap();
    Run::new("tar", ["-cf", "layer.tar", "file"]).dir(world.path("")).ok();
    let layer = std::fs::read(world.path("layer.tar")).unwrap();
    let config =
        json!({ "architecture": "amd64", "os": "linux", "config": {}, "rootfs": { "type": "layers", "diff_ids": [sha512(&layer)] } });
    let config = config.to_string().into_bytes();
    for blob in [&layer, &config] {
        let path = format!("/v2/app/blobs/uploads/?digest={}", sha512(blob));
        assert_eq!(served.send("POST", &path, "application/octet-stream", blob).unwrap().0, 201);
    }
    let manifest = json!({
        "schemaVersion": 2, "mediaType": MANIFEST,
        "config": { "mediaType": "application/vnd.oci.image.config.v1+json", "digest": sha512(&config), "size": config.len() },
        "layers": [{ "mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": sha512(&layer), "size": layer.len() }],
    });
    let manifest = manifest.to_string().into_bytes();
    let digest = sha512(&manifest);
    assert_eq!(served.send("PUT", &format!("/v2/app/manifests/{digest}?tag=1"), MANIFEST, &manifest).unwrap().0, 201);
    let (name, pinned) = (served.name("app:1"), served.name(&format!("app@{digest}")));
    assert_eq!(world.strake(["digest", &name]).ok().stdout.trim(), digest);
    for name in [&name, &pinned] {
        let world = World::new();
        world.strake(["pull", "-q", "--platform", "linux/amd64", name]).ok();
        world.strake(["validate", name]).ok();
        world.strake(["build", "-q", "--platform", "linux/amd64", "-t", "derived:1", "-"]).stdin(format!("FROM {name}\nLABEL a=b\n")).ok();
        world.strake(["image", "export", "derived:1", "files.tar"]).ok();
        assert_eq!(Run::new("tar", ["-xOf", "files.tar", "file"]).dir(world.path("")).ok().stdout, "content");
        world.strake(["validate", "derived:1"]).ok();
        world.strake(["system", "check"]).ok();
    }
    // On to another repository, from the store and from the registry, as it is, and by the digest that it had.
    world.strake(["pull", "-q", "--platform", "linux/amd64", &name]).ok();
    world.strake(["tag", &name, &served.name("pushed:1")]).ok();
    world.strake(["push", "-q", &served.name("pushed:1")]).ok();
    world.strake(["copy", "-q", "--platform", "linux/amd64", &name, &served.name("copied:1")]).ok();
    for copy in ["pushed:1", "copied:1"] {
        assert_eq!(world.strake(["manifest", &served.name(copy)]).ok().stdout, String::from_utf8(manifest.clone()).unwrap(), "{copy}");
        assert_eq!(world.strake(["digest", &served.name(copy)]).ok().stdout.trim(), digest, "{copy}");
        world.strake(["validate", "--remote", &served.name(copy)]).ok();
    }
    // One that is damaged is told from one that is not.
    let wrong = String::from_utf8(config.clone()).unwrap().replace(&sha512(&layer), &sha512(b"other")).into_bytes();
    assert_eq!(served.send("POST", &format!("/v2/app/blobs/uploads/?digest={}", sha512(&wrong)), "", &wrong).unwrap().0, 201);
    let lying = String::from_utf8(manifest).unwrap().replace(&sha512(&config), &sha512(&wrong)).into_bytes();
    assert_eq!(served.send("PUT", &format!("/v2/app/manifests/{}?tag=bad", sha512(&lying)), MANIFEST, &lying).unwrap().0, 201);
    world.strake(["pull", "--platform", "linux/amd64", &served.name("app:bad")]).fails().says(&["sha512:"]);
    world.strake(["validate", "--remote", &served.name("app:bad")]).fails();
    world.strake(["system", "check"]).ok();
}

#[test]
fn a_mirror_serves_what_it_has_when_the_upstream_is_gone() {
    if !able(&["docker-registry", "skopeo"]) {
        return;
    }
    let (world, upstream) = (World::new(), Registry::with_bases());
    let mirror = Served::start(&world, &["--mirror", &format!("http://{}", upstream.host())]);
    let first = World::new();
    assert_eq!(first.strake(["run", "--rm", &mirror.name("busybox"), "echo", "one"]).ok().stdout, "one\n");
    let to = format!("dir:{}", world.path("back").display());
    Run::new("skopeo", ["--insecure-policy", "copy", "-q", "--src-tls-verify=false", &mirror.url("minbase:bookworm"), &to]).ok();
    first.strake(["tag", &mirror.name("busybox"), &mirror.name("new")]).ok();
    first.strake(["push", &mirror.name("new")]).fails().says(&["mirror"]);
    drop(upstream);
    let second = World::new();
    assert_eq!(second.strake(["run", "--rm", &mirror.name("busybox"), "echo", "two"]).ok().stdout, "two\n");
    second.strake(["pull", &mirror.name("minbase:bookworm")]).ok();
}

#[test]
fn it_stops_when_it_is_told_to() {
    let world = World::new();
    for signal in [nix::sys::signal::Signal::SIGTERM, nix::sys::signal::Signal::SIGINT] {
        let mut served = Served::start(&world, &[]);
        assert_eq!(served.send("GET", "/v2/", "", b"").unwrap().0, 200);
        // A connection that says nothing is no transfer.
        let _idle = TcpStream::connect(&served.address).unwrap();
        let begun = Instant::now();
        served.signal(signal);
        let status = served.child.wait().unwrap();
        assert!(status.success() && begun.elapsed() < Duration::from_secs(10), "{status} after {:?}", begun.elapsed());
    }
    // Nothing but the storage was made.
    assert!(!world.root().exists());
}

#[test]
fn what_it_cannot_serve_is_an_error_that_says_so() {
    let world = World::new();
    let serve = |args: &[&str]| world.strake(["registry", "serve", "--addr", "127.0.0.1:0", "--storage", "storage"].iter().chain(args));
    serve(&["--readonly"]).fails().says(&["storage", "holds no registry"]);
    std::fs::write(world.path("users"), "tester:plain\n").unwrap();
    serve(&["--auth", "users"]).fails().says(&["line 1 of `users`", "bcrypt", "htpasswd -B"]);
    serve(&["--auth", "none"]).fails().says(&["cannot read `none`"]);
    serve(&["--tls-cert", "users", "--tls-key", "users"]).fails().says(&["certificate", "users"]);
    serve(&["--tls-cert", "users"]).fails().says(&["--tls-key"]);
    serve(&["--mirror", "ftp://x"]).fails().says(&["ftp://x"]);
    serve(&["--mirror", "team"]).fails().says(&["`team` is no registry"]);
    for mirror in ["http://me:hidden@127.0.0.1:1/team", "me:hidden@127.0.0.1:1"] {
        serve(&["--mirror", mirror]).fails().says(&["without a user and a password", "strake login 127.0.0.1:1"]).omits(&["hidden"]);
    }
    serve(&["--gc-grace", "-1h"]).fails();
    world.strake(["registry", "gc", "--storage", "none"]).fails().says(&["none"]);
    let served = Served::start(&world, &[]);
    world
        .strake(["registry", "serve", "--addr", &served.address, "--storage", "storage"])
        .fails()
        .says(&["cannot listen on", &served.address]);
}

#[test]
fn every_request_is_logged_where_that_is_wanted() {
    let world = World::new();
    let mut run = world.strake(["registry", "serve", "--addr", "127.0.0.1:0", "--storage", "storage", "--access-log"]);
    let mut child: Child = run.command().stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let address = line.trim().strip_prefix("listening on http://").unwrap().to_owned();
    send(&address, "GET", "/v2/a/tags/list?n=1", "", b"").unwrap();
    let mut logged = String::new();
    BufReader::new(child.stderr.take().unwrap()).read_line(&mut logged).unwrap();
    let _ = child.kill();
    let _ = child.wait();
    assert!(logged.starts_with("127.0.0.1:") && logged.contains(" - \"GET /v2/a/tags/list?n=1\" 404 "), "{logged}");
}
