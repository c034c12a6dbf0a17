//! Faults on the wire: each ends in success or in one clear error within a bounded time; what is in the store is whole, and the same command works once the
//! registry is good again.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use crate::common::faulty::{Act, Faulty, error, kind};
use crate::common::web::{Reply, Request};
use crate::common::{Done, Run, World, able};

/// No case may take longer, on a machine that is busy with other tests.
const BOUND: Duration = Duration::from_secs(60);

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// A command that tries nothing more than three times, and gives a silent connection up: soon in cases of those that stall, and otherwise after what no server here takes on a busy machine.
fn transfer(world: &World, case: &str, args: &[&str]) -> Run {
    // A file for each, as several transfers of a test go on at the same time.
    static NUMBER: AtomicUsize = AtomicUsize::new(0);
    let config = world.path(&format!("config-{}.toml", NUMBER.fetch_add(1, Ordering::Relaxed)));
    let patience = if case.contains("stall") { 2 } else { 20 };
    std::fs::write(&config, format!("[transfer]\nidle-timeout = {patience}\nattempts = 3\n")).unwrap();
    world.strake(args).env("STRAKE_CONFIG", config)
}

/// A registry with `app:1`, of one layer of some hundred kilobytes that no compression makes small.
fn registry() -> Faulty {
    let (world, faulty) = (World::new(), Faulty::start());
    let mut state = 1u32;
    let noise = std::iter::repeat_with(|| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    });
    let noise: Vec<u8> = noise.take(300_000).collect();
    world.write("noise", noise).build("FROM scratch\nCOPY noise /\n", &["-t", &faulty.name("app:1"), "--push"]).ok();
    faulty
}

fn document(faulty: &Faulty) -> Value {
    serde_json::from_slice(&faulty.manifest("1").unwrap()).unwrap()
}

/// What is to come of a case.
enum Ends {
    Well,
    /// In an error that says all of this.
    Badly(&'static [&'static str]),
}
use Ends::{Badly, Well};

#[track_caller]
fn judge(name: &str, ends: &Ends, done: &Done) {
    assert!(done.elapsed < BOUND, "{name} took {:?}", done.elapsed);
    assert!(!done.stderr.contains("panicked"), "{name}: {done}");
    match ends {
        Well => assert!(done.code == 0, "{name}: {done}"),
        Badly(words) => {
            assert!(done.code != 0, "{name} should fail: {done}");
            assert_eq!(done.stderr.lines().filter(|line| line.starts_with("error:")).count(), 1, "{name}: {done}");
            for word in *words {
                assert!(done.stderr.contains(word), "{name} does not say `{word}`: {done}");
            }
        }
    }
}

type Fault = Box<dyn Fn(&Request, usize) -> Option<Act> + Send + Sync>;

fn case(fault: impl Fn(&Request, usize) -> Option<Act> + Send + Sync + 'static) -> Fault {
    Box::new(fault)
}

/// Only for requests of a kind.
fn on(what: &'static str, act: impl Fn(usize) -> Option<Act> + Send + Sync + 'static) -> Fault {
    case(move |request, number| if kind(request) == what { act(number) } else { None })
}

/// Only for the first request of a kind.
fn once(what: &'static str, act: impl Fn() -> Act + Send + Sync + 'static) -> Fault {
    on(what, move |number| (number == 0).then(&act))
}

fn always(what: &'static str, act: impl Fn() -> Act + Send + Sync + 'static) -> Fault {
    on(what, move |_| Some(act()))
}

fn change(change: impl Fn(Reply) -> Reply + Send + 'static) -> Act {
    Act::Change(Box::new(change))
}

fn busy(status: u16, retry_after: &str) -> Act {
    Act::Reply(error(status, "TOOMANYREQUESTS", "slow down").with("Retry-After", retry_after))
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    std::io::Write::write_all(&mut encoder, bytes).unwrap();
    encoder.finish().unwrap()
}

/// Runs the cases of a pull, a few at a time: each with a registry and a world of its own.
fn pulls(cases: Vec<(String, Ends, Fault)>) {
    let good = registry();
    let queue = std::sync::Mutex::new(cases);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while let Some((name, ends, fault)) = {
                    let mut queue = queue.lock().unwrap();
                    queue.pop()
                } {
                    let (world, faulty) = (World::new(), good.copy());
                    faulty.set(fault);
                    let image = faulty.name("app:1");
                    let done = transfer(&world, &name, &["pull", &image]).run();
                    judge(&name, &ends, &done);
                    let listed = world.strake(["images", "-q"]).ok().stdout;
                    assert_eq!(listed.is_empty(), done.code != 0, "{name}: {listed}");
                    faulty.mend();
                    world.strake(["system", "check"]).ok();
                    transfer(&world, "mended", &["pull", &image]).ok();
                    world.strake(["validate", &image]).ok();
                }
            });
        }
    });
}

#[test]
fn a_pull_survives_cuts_anywhere() {
    if !able(&[]) {
        return;
    }
    let mut cases = Vec::new();
    for offset in [0, 1, 9, 12, 15, 40, 100, 200, 300, 500, 900] {
        for what in ["ping", "manifest", "blob"] {
            cases.push((format!("{what} cut after {offset}"), Well, once(what, move || Act::Cut(offset))));
        }
    }
    for offset in [1_000, 100_000, 250_000] {
        // The config comes first and is not that long; the layer is cut again and again, and gets further each time.
        cases.push((
            format!("blobs cut at {offset}"),
            Well,
            on("blob", move |number| (1..3).contains(&number).then_some(Act::Cut(offset))),
        ));
    }
    cases.push(("manifest always cut".into(), Badly(&["app:1", "the connection"]), always("manifest", || Act::Cut(30))));
    cases.push(("blob always cut".into(), Badly(&["app:1", "the connection"]), always("blob", || Act::Cut(60))));
    pulls(cases);
}

#[test]
fn a_pull_waits_for_servers_that_are_slow_or_busy_but_not_for_ever() {
    if !able(&[]) {
        return;
    }
    let mut cases = vec![
        ("manifest stalls once".to_owned(), Well, once("manifest", || Act::Stall(40))),
        ("blob stalls once".to_owned(), Well, on("blob", |number| (number == 1).then_some(Act::Stall(10_000)))),
        ("blob stalls in its head once".to_owned(), Well, on("blob", |number| (number == 1).then_some(Act::Stall(5)))),
        ("ping stalls once".to_owned(), Well, once("ping", || Act::Stall(0))),
        ("manifest always stalls".to_owned(), Badly(&["app:1", "nothing"]), always("manifest", || Act::Stall(40))),
        ("blob always stalls".to_owned(), Badly(&["app:1", "nothing"]), always("blob", || Act::Stall(100))),
        ("429 until a date that has passed".to_owned(), Well, once("manifest", || busy(429, "Wed, 21 Oct 2015 07:28:00 GMT"))),
        ("429 with a second".to_owned(), Well, once("manifest", || busy(429, "1"))),
        ("429 with nonsense".to_owned(), Well, once("blob", || busy(429, "-5 soon"))),
        ("429 for an age".to_owned(), Badly(&["429", "slow down", "try again in"]), always("manifest", || busy(429, "99999999999"))),
        ("429 for longer than numbers are".to_owned(), Badly(&["429"]), always("manifest", || busy(429, "99999999999999999999999"))),
        ("429 until the year 9999".to_owned(), Badly(&["429"]), always("manifest", || busy(429, "Fri, 31 Dec 9999 23:59:59 GMT"))),
        ("429 for ever".to_owned(), Badly(&["429", "slow down"]), always("manifest", || busy(429, "0"))),
    ];
    for status in [408, 500, 502, 503, 504] {
        cases.push((format!("{status} once"), Well, once("manifest", move || busy(status, "0"))));
        cases.push((format!("{status} once for a blob"), Well, once("blob", move || busy(status, "0"))));
        let words: &[&str] = &["app:1", "slow down"];
        cases.push((format!("{status} always"), Badly(words), always("blob", move || busy(status, "0"))));
    }
    pulls(cases);
}

#[test]
fn a_pull_takes_nothing_but_what_the_digests_say() {
    if !able(&[]) {
        return;
    }
    let digest = |value: &'static str| {
        move || {
            change(move |mut reply| {
                reply.headers.retain(|(name, _)| name != "Docker-Content-Digest");
                if value.is_empty() { reply } else { reply.with("Docker-Content-Digest", value) }
            })
        }
    };
    let other = "sha256:0000000000000000000000000000000000000000000000000000000000000000";
    let cases = vec![
        ("another digest stated".to_owned(), Badly(&["app:1", "digest"]), always("manifest", digest(other))),
        ("a digest that is none".to_owned(), Well, always("manifest", digest("sha256:nonsense"))),
        ("no digest stated".to_owned(), Well, always("manifest", digest(""))),
        (
            "other bytes".to_owned(),
            Badly(&["does not match its digest", "damaged content"]),
            always("blob", || {
                change(|mut reply| {
                    reply.body[10] ^= 1;
                    reply
                })
            }),
        ),
        (
            "a byte too many".to_owned(),
            Badly(&["wrong size"]),
            always("blob", || {
                change(|mut reply| {
                    reply.body.push(0);
                    reply
                })
            }),
        ),
        (
            "a byte too few".to_owned(),
            Badly(&["wrong size"]),
            always("blob", || {
                change(|mut reply| {
                    reply.body.pop();
                    reply
                })
            }),
        ),
        (
            "an endless blob".to_owned(),
            Badly(&["wrong size"]),
            always("blob", || Act::Endless(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n".to_vec(), vec![7; 65536])),
        ),
        (
            "an endless manifest".to_owned(),
            Badly(&["is larger than"]),
            always("manifest", || Act::Endless(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n".to_vec(), vec![b' '; 65536])),
        ),
        (
            "endless headers".to_owned(),
            Badly(&["app:1"]),
            always("manifest", || Act::Endless(b"HTTP/1.1 200 OK\r\n".to_vec(), b"A: b\r\n".repeat(1000))),
        ),
        (
            "50 MB of manifest".to_owned(),
            Badly(&["is larger than"]),
            always("manifest", || Act::Reply(Reply::new(200, vec![b' '; 50 << 20]).with("Content-Type", MANIFEST))),
        ),
        (
            "no JSON".to_owned(),
            Badly(&["app:1"]),
            always("manifest", || Act::Reply(Reply::new(200, "<html>").with("Content-Type", MANIFEST))),
        ),
        ("nothing".to_owned(), Badly(&["app:1"]), always("manifest", || Act::Reply(Reply::new(200, "").with("Content-Type", MANIFEST)))),
        ("no HTTP".to_owned(), Badly(&["app:1"]), always("manifest", || Act::Raw(b"220 mail.example ESMTP\r\n".to_vec()))),
        (
            "schema 1".to_owned(),
            Badly(&["app:1", "schema"]),
            always("manifest", || {
                let kind = "application/vnd.docker.distribution.manifest.v1+prettyjws";
                let text = json!({ "schemaVersion": 1, "name": "app", "tag": "1", "architecture": "amd64", "fsLayers": [], "history": [] });
                Act::Reply(Reply::new(200, text.to_string()).with("Content-Type", kind))
            }),
        ),
        (
            "redirects in a circle".to_owned(),
            Badly(&["redirected more than"]),
            case(|request, _| (kind(request) == "blob").then(|| Act::Reply(Reply::new(307, "").with("Location", &request.path)))),
        ),
        (
            "a redirect to nowhere".to_owned(),
            Badly(&["a redirect"]),
            always("blob", || Act::Reply(Reply::new(302, "").with("Location", "gopher://x/"))),
        ),
        (
            "the registry's words".to_owned(),
            Badly(&["403", "DENIED", "only on Tuesdays"]),
            always("manifest", || Act::Reply(error(403, "DENIED", "only on Tuesdays"))),
        ),
        (
            "markup for words".to_owned(),
            Badly(&["500 Internal Server Error"]),
            always("manifest", || Act::Reply(Reply::new(500, "<html><b>secret</b></html>").with("Content-Type", "text/html"))),
        ),
    ];
    pulls(cases);
}

#[test]
fn a_pull_gets_on_with_servers_of_all_kinds() {
    if !able(&[]) {
        return;
    }
    let close = || change(|reply| reply.with("Connection", "close"));
    let ranges = |status: u16, range: &'static str| {
        on("blob", move |number| match number {
            1 => Some(Act::Cut(50_000)),
            2 => Some(change(move |mut reply| {
                reply.status = status;
                reply.headers.retain(|(name, _)| name != "Content-Range");
                if range.is_empty() { reply } else { reply.with("Content-Range", range) }
            })),
            _ => None,
        })
    };
    let ignored = |request: &Request, number: usize| match (kind(request), number) {
        ("blob", 1) => Some(50_000),
        _ => None,
    };
    let cases = vec![
        ("HTTP/1.0".to_owned(), Well, case(|_, _| Some(Act::Http10))),
        ("connections for one request".to_owned(), Well, case(move |_, _| Some(close()))),
        ("a range that begins elsewhere".to_owned(), Well, ranges(206, "bytes 60000-60009/*")),
        ("a range that is not told".to_owned(), Well, ranges(206, "")),
        ("416".to_owned(), Well, ranges(416, "")),
        (
            "a manifest in gzip".to_owned(),
            Well,
            always("manifest", || {
                change(|mut reply| {
                    reply.body = gzip(&reply.body);
                    reply.with("Content-Encoding", "gzip")
                })
            }),
        ),
        (
            "a bomb in gzip".to_owned(),
            Badly(&["is larger than"]),
            always("manifest", || {
                change(|mut reply| {
                    reply.body = gzip(&vec![b' '; 64 << 20]);
                    reply.with("Content-Encoding", "gzip")
                })
            }),
        ),
        (
            "a blob in gzip".to_owned(),
            Badly(&["content encoding"]),
            always("blob", || {
                change(|mut reply| {
                    reply.body = gzip(&reply.body);
                    reply.with("Content-Encoding", "gzip")
                })
            }),
        ),
        (
            "types with parameters".to_owned(),
            Well,
            always("manifest", || {
                change(|mut reply| {
                    reply.headers.retain(|(name, _)| name != "Content-Type");
                    reply.with("Content-Type", "application/vnd.oci.image.manifest.v1+json; charset=utf-8")
                })
            }),
        ),
        (
            "a type that says nothing".to_owned(),
            Well,
            always("manifest", || {
                change(|mut reply| {
                    reply.headers.retain(|(name, _)| name != "Content-Type");
                    reply.with("Content-Type", "application/octet-stream")
                })
            }),
        ),
        (
            "the whole blob for a range".to_owned(),
            Well,
            case(move |request, number| match (kind(request), number) {
                ("blob", 2) => Some(change({
                    let range = request.header("range").to_owned();
                    move |reply| {
                        assert!(range.starts_with("bytes="), "{range}");
                        Reply { status: 206, ..reply }
                    }
                })),
                _ => ignored(request, number).map(Act::Cut),
            }),
        ),
    ];
    pulls(cases);
}

#[test]
fn warnings_are_shown_once_and_nothing_is_asked_twice() {
    if !able(&[]) {
        return;
    }
    let (world, faulty) = (World::new(), registry());
    let image = faulty.name("app:1");
    faulty.set(|_, _| Some(change(|reply| reply.with("Warning", "299 - \"this registry \\\"moves\\\" on Monday\""))));
    let done = world.strake(["pull", &image]).ok();
    assert_eq!(done.stderr.matches("this registry \"moves\" on Monday").count(), 1, "{done}");
    let asked: Vec<String> = faulty.log().iter().map(|request| format!("{} {}", request.method, kind(request))).collect();
    assert_eq!(asked, ["GET ping", "GET manifest", "GET blob", "GET blob"]);
    faulty.mend();
    world.strake(["pull", &image]).ok();
    assert!(faulty.log().len() <= 2, "a pull of what is here asks for the manifest alone: {:?}", faulty.log());
}

/// A world with the image `app`, ready to be pushed; its layer is a blob already.
fn pusher() -> World {
    let (world, good) = (World::new(), registry());
    world.strake(["pull", &good.name("app:1")]).ok();
    world.strake(["tag", &good.name("app:1"), "app"]).ok();
    world
}

/// Runs the cases of a push: each to a registry of its own.
fn pushes(cases: Vec<(String, Ends, Fault)>) {
    let world = pusher();
    let queue = std::sync::Mutex::new(cases);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while let Some((name, ends, fault)) = {
                    let mut queue = queue.lock().unwrap();
                    queue.pop()
                } {
                    let faulty = Faulty::start();
                    let image = faulty.name("app:1");
                    world.strake(["tag", "app", &image]).ok();
                    faulty.set(fault);
                    let done = transfer(&world, &name, &["push", &image]).run();
                    judge(&name, &ends, &done);
                    assert_eq!(faulty.manifest("1").is_some(), done.code == 0, "{name}: {done}");
                    faulty.mend();
                    transfer(&world, "mended", &["push", &image]).ok();
                    let manifest = document(&faulty);
                    for blob in [&manifest["config"], &manifest["layers"][0]] {
                        let bytes = faulty.blob(blob["digest"].as_str().unwrap()).unwrap();
                        assert_eq!(bytes.len() as u64, blob["size"].as_u64().unwrap(), "{name}");
                    }
                }
            });
        }
    });
}

/// For uploads of one method.
fn sending(method: &'static str, act: impl Fn(usize) -> Option<Act> + Send + Sync + 'static) -> Fault {
    case(move |request, number| if kind(request) == "upload" && request.method == method { act(number) } else { None })
}

#[test]
fn a_push_survives_cuts_at_every_stage() {
    if !able(&[]) {
        return;
    }
    let mut cases = Vec::new();
    for count in [0, 1, 1_000, 65_536, 200_000, 299_999] {
        cases.push((
            format!("content cut after {count}, lost"),
            Well,
            sending("PUT", move |number| (number < 2).then_some(Act::CutRequest(count))),
        ));
        cases.push((
            format!("content cut after {count}, kept"),
            Well,
            sending("PUT", move |number| (number < 2).then_some(Act::KeepPart(count))),
        ));
    }
    for count in [0, 10, 30, 60] {
        for method in ["POST", "PUT"] {
            cases.push((
                format!("answer to {method} cut after {count}"),
                Well,
                sending(method, move |number| (number < 2).then_some(Act::Cut(count))),
            ));
        }
        let manifest = move |request: &Request, number: usize| {
            (kind(request) == "manifest" && request.method == "PUT" && number == 0).then_some(Act::Cut(count))
        };
        cases.push((format!("answer to the manifest cut after {count}"), Well, case(manifest)));
    }
    cases.push(("content always cut".into(), Badly(&["app:1", "the connection broke"]), sending("PUT", |_| Some(Act::CutRequest(100)))));
    pushes(cases);
}

#[test]
fn a_push_gets_on_with_registries_of_all_kinds() {
    if !able(&[]) {
        return;
    }
    let refuse = |status: u16| move || Act::Reply(error(status, "UNSUPPORTED", "not in this way"));
    let place = |make: fn(&str) -> Option<String>| {
        sending("POST", move |_| {
            Some(change(move |mut reply| {
                let location = reply.headers.iter().find(|(name, _)| name == "Location").map(|(_, value)| make(value));
                reply.headers.retain(|(name, _)| name != "Location");
                match location.flatten() {
                    Some(location) => reply.with("Location", &location),
                    None => reply,
                }
            }))
        })
    };
    let mut cases = vec![
        ("no place to send to".to_owned(), Badly(&["app:1", "upload location"]), place(|_| None)),
        ("a place that is none".to_owned(), Badly(&["upload location"]), place(|_| Some("ftp://x/".to_owned()))),
        ("a place relative to the request".to_owned(), Well, place(|path| path.rsplit('/').next().map(str::to_owned))),
        (
            "no ranges kept".to_owned(),
            Well,
            case(|request, number| match (kind(request), request.method.as_str()) {
                ("upload", "PUT") if number == 1 => Some(Act::KeepPart(100_000)),
                ("upload", "GET") => Some(Act::Reply(Reply::new(204, ""))),
                _ => None,
            }),
        ),
        (
            "sessions that vanish".to_owned(),
            Well,
            case(|request, number| match (kind(request), request.method.as_str()) {
                ("upload", "PUT") if number < 2 => Some(Act::Reply(error(404, "BLOB_UPLOAD_UNKNOWN", "gone"))),
                _ => None,
            }),
        ),
        (
            "409 for a piece".to_owned(),
            Well,
            case(|request, number| match (kind(request), request.method.as_str()) {
                ("upload", "PUT") if number == 1 => Some(Act::KeepPart(100_000)),
                ("upload", "PATCH") => Some(Act::Reply(error(409, "BLOB_UPLOAD_INVALID", "no"))),
                _ => None,
            }),
        ),
        ("HTTP/1.0".to_owned(), Well, case(|_, _| Some(Act::Http10))),
        (
            "stored as something else".to_owned(),
            Badly(&["stored"]),
            sending("PUT", |_| {
                Some(change(|mut reply| {
                    reply.headers.retain(|(name, _)| name != "Docker-Content-Digest");
                    reply.with("Docker-Content-Digest", "sha256:0000000000000000000000000000000000000000000000000000000000000000")
                }))
            }),
        ),
        (
            "the manifest refused".to_owned(),
            Badly(&["MANIFEST_INVALID", "no such shape"]),
            case(|request, _| {
                (kind(request) == "manifest" && request.method == "PUT")
                    .then(|| Act::Reply(error(400, "MANIFEST_INVALID", "no such shape")))
            }),
        ),
        ("writing refused".to_owned(), Badly(&["403", "DENIED"]), sending("POST", |_| Some(Act::Reply(error(403, "DENIED", "read only"))))),
        ("sending stalls once".to_owned(), Well, sending("PUT", |number| (number == 0).then_some(Act::Stall(0)))),
        ("sending always stalls".to_owned(), Badly(&["nothing"]), sending("PUT", |_| Some(Act::Stall(0)))),
        (
            "everything refused".to_owned(),
            Badly(&["app:1", "not in this way"]),
            case(move |request, _| (kind(request) == "upload" && request.method != "POST").then(refuse(405))),
        ),
    ];
    for status in [405, 411, 413, 501] {
        let whole = move |request: &Request, _| {
            let with_content = request.header("content-length") != "0";
            (kind(request) == "upload" && request.method == "PUT" && with_content).then(refuse(status))
        };
        cases.push((format!("{status} for content in a PUT"), Well, case(whole)));
    }
    for status in [404, 405, 501] {
        cases.push((
            format!("{status} for pieces"),
            Well,
            case(move |request, number| match (kind(request), request.method.as_str()) {
                ("upload", "PUT") if number < 2 => Some(Act::KeepPart(100_000)),
                ("upload", "PATCH") => Some(refuse(status)()),
                _ => None,
            }),
        ));
    }
    for status in [429, 500, 502, 503, 504] {
        cases.push((
            format!("{status} once everywhere"),
            Well,
            case(move |request, number| (number == 0 && kind(request) != "ping").then(|| busy(status, "0"))),
        ));
    }
    pushes(cases);
}

#[test]
fn a_proxy_that_takes_little_at_once_gets_little_at_once() {
    if !able(&[]) {
        return;
    }
    let (world, faulty) = (pusher(), Faulty::start());
    let image = faulty.name("app:1");
    world.strake(["tag", "app", &image]).ok();
    faulty.set(|request, _| {
        let length: usize = request.header("content-length").parse().unwrap_or(0);
        (kind(request) == "upload" && length > 280_000).then(|| Act::Reply(Reply::new(413, "<html>")))
    });
    world.strake(["push", &image]).ok();
    assert!(faulty.manifest("1").is_some());
}

#[test]
fn two_pushes_at_once_and_one_that_repeats_them() {
    if !able(&[]) {
        return;
    }
    let (world, faulty) = (pusher(), Faulty::start());
    let image = faulty.name("app:1");
    world.strake(["tag", "app", &image]).ok();
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| world.strake(["push", &image]).ok());
        }
    });
    faulty.mend();
    world.strake(["push", &image]).ok();
    let asked: Vec<String> = faulty.log().iter().map(|request| format!("{} {}", request.method, kind(request))).collect();
    assert_eq!(asked.len(), 4, "{asked:?}");
    assert!(asked.iter().all(|asked| !asked.contains("upload")), "{asked:?}");
}
