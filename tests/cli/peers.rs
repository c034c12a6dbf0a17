//! The real thing: the two examples, built, shipped and run as a person would, and compared entry by entry with what buildah makes of the same files.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::common::{Entry, Image, Registry, Run, World, able, remove_store, wait_for};

/// A copy of an example whose files have whole seconds for times: buildah's archives round times, which compiled Python files hold.
fn example(world: &World, name: &str) -> PathBuf {
    let (from, to) = (Path::new(env!("CARGO_MANIFEST_DIR")).join("examples").join(name), world.path(name));
    if !to.exists() {
        Run::new("cp", ["-r", from.to_str().unwrap(), to.to_str().unwrap()]).ok();
        Run::new("find", [to.to_str().unwrap(), "-exec", "touch", "-d", "2024-05-06T07:08:09Z", "{}", "+"]).ok();
    }
    to
}

/// Builds an example with strake; the image gets `name` and is returned as an archive says it.
fn ours(world: &World, registry: &Registry, example_name: &str, name: &str) -> Image {
    let archive = world.path("ours.tar");
    let base = format!("BASE={}", registry.name("minbase:bookworm"));
    let output = format!("type=docker,dest={}", archive.display());
    world.strake(["build", "-t", name, "-o", "type=image", "-o", &output, "--build-arg", &base]).arg(example(world, example_name)).ok();
    Image::docker_archive(&archive)
}

/// Builds the same with buildah. Its `vfs` driver will not do: it takes a file for unchanged that has a new content but its old size and time, as a backup
/// that `useradd` makes has.
fn theirs(world: &World, registry: &Registry, example_name: &str) -> Image {
    let archive = world.path("theirs.tar");
    let base = format!("BASE={}", registry.name("minbase:bookworm"));
    let buildah = |args: &[&str]| {
        let (root, run) = (world.path("buildah"), world.path("buildah-run"));
        let mut all: Vec<String> =
            ["--root", root.to_str().unwrap(), "--runroot", run.to_str().unwrap(), "--storage-driver", "overlay"].map(String::from).into();
        all.extend(args.iter().map(|arg| (*arg).to_owned()));
        Run::new("buildah", all).env("TMPDIR", world.path("")).env("BUILDAH_ISOLATION", "chroot")
    };
    let context = example(world, example_name);
    let bud = [
        "bud",
        "--network",
        "host",
        "--format",
        "docker",
        "--tls-verify=false",
        "--build-arg",
        &base,
        "-t",
        "peer",
        context.to_str().unwrap(),
    ];
    buildah(&bud).ok();
    buildah(&["push", "-q", "localhost/peer", &format!("docker-archive:{}:peer", archive.display())]).ok();
    buildah(&["rmi", "-af"]).run();
    Image::docker_archive(&archive)
}

/// Files whose bytes differ between any two runs of the same commands: logs with times, and caches keyed by inode numbers and times.
const DIFFER: [&str; 8] = [
    "var/log/apt/history.log",
    "var/log/apt/term.log",
    "var/log/apt/eipp.log.xz",
    "var/log/dpkg.log",
    "var/log/alternatives.log",
    "var/log/faillog",
    "var/cache/ldconfig/aux-cache",
    "var/cache/apt/pkgcache.bin",
];

/// Also by time or inode: another file of the same name is enough.
const DIFFER_BELOW: [&str; 2] = ["var/cache/apt/", "var/lib/apt/"];

/// What buildah leaves of its own sandbox: mount points that were not in the base.
const MOUNT_POINTS: [&str; 6] = ["etc/hosts", "etc/hostname", "etc/resolv.conf", "run/.containerenv", "run/secrets", "proc"];

fn compare(ours: &BTreeMap<String, Entry>, theirs: &BTreeMap<String, Entry>) {
    let mut problems = Vec::new();
    for path in ours.keys().chain(theirs.keys().filter(|path| !ours.contains_key(*path))) {
        let loose = DIFFER.contains(&path.as_str()) || DIFFER_BELOW.iter().any(|dir| path.starts_with(dir));
        match (ours.get(path), theirs.get(path)) {
            (None, Some(_)) if MOUNT_POINTS.contains(&path.as_str()) => {}
            (Some(_), None) => problems.push(format!("{path}: only ours")),
            (None, Some(_)) => problems.push(format!("{path}: only theirs")),
            (Some(a), Some(b)) => {
                let facts = |e: &Entry| (e.kind, e.mode, e.uid, e.gid, e.target.clone());
                if facts(a) != facts(b) {
                    problems.push(format!("{path}: {:?} here, {:?} there", facts(a), facts(b)));
                } else if !loose && a.content != b.content {
                    problems.push(format!("{path}: other content ({} bytes here, {} there)", a.content.len(), b.content.len()));
                } else if !loose && a.links != b.links {
                    problems.push(format!("{path}: linked as {:?} here, {:?} there", a.links, b.links));
                }
            }
            (None, None) => {}
        }
    }
    assert!(problems.is_empty(), "{} differences:\n{}", problems.len(), problems.join("\n"));
}

/// Compares what containers are run with.
fn compare_configs(ours: &Image, theirs: &Image) {
    let nothing = |value: &Value| {
        value.is_null()
            || value.as_array().is_some_and(Vec::is_empty)
            || value.as_object().is_some_and(serde_json::Map::is_empty)
            || value == ""
    };
    for key in [
        "Env",
        "Cmd",
        "Entrypoint",
        "WorkingDir",
        "User",
        "ExposedPorts",
        "Healthcheck",
        "Volumes",
        "StopSignal",
        "OnBuild",
        "Shell",
        "Labels",
    ] {
        let (a, mut b) = (ours.run_config()[key].clone(), theirs.run_config()[key].clone());
        if let Some(labels) = b.as_object_mut() {
            // buildah signs what it makes.
            labels.remove("io.buildah.version");
        }
        assert!(a == b || (nothing(&a) && nothing(&b)), "{key}: {a} here, {b} there");
    }
    for key in ["architecture", "os"] {
        assert_eq!(ours.config[key], theirs.config[key]);
    }
}

/// One request; the answer whole.
fn get(port: u16, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(std::time::Duration::from_secs(5))).ok()?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: x\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer)
}

#[test]
fn the_http_server_is_built_shipped_and_answers_and_is_what_buildah_makes() {
    if !able(&["docker-registry", "buildah", "skopeo"]) {
        return;
    }
    let (world, registry) = (World::new(), Registry::with_bases());
    let name = registry.name("http-server:1");
    let image = ours(&world, &registry, "http-server", &name);
    world.strake(["push", &name]).ok();
    remove_store(&world.root());
    world.strake(["pull", &name]).ok();

    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let id = world.strake(["run", "-d", "--name", "web", "--network", "host", "-e", &format!("PORT={port}"), &name]).ok().stdout;
    assert_eq!(id.trim().len(), 64, "{id}");
    wait_for("an answer over HTTP", 20, || get(port, "/").is_some());
    let answer = get(port, "/").unwrap();
    assert!(answer.starts_with("HTTP/1.0 200 OK") && answer.contains("Hello from a container"), "{answer}");
    assert!(get(port, "/nothing").unwrap().starts_with("HTTP/1.0 404"));
    let ps = world.strake(["ps"]).ok();
    assert!(ps.stdout.contains("web") && ps.stdout.contains(&id[..12]), "{ps}");
    let lines = [&format!("listening on port {port}"), "GET /index.html 200", "GET /nothing 404"];
    wait_for("the log of both requests", 20, || {
        let log = world.strake(["logs", "web"]).ok().stdout;
        lines.iter().all(|line| log.contains(line))
    });
    let stopped = world.strake(["stop", "web"]).ok();
    assert!(stopped.elapsed.as_secs() < 9, "it handles SIGTERM: {stopped}");
    assert!(get(port, "/").is_none());
    assert!(world.strake(["logs", "web"]).ok().stdout.ends_with("stopped\n"));
    world.strake(["rm", "web"]).ok();
    assert_eq!(world.strake(["ps", "-aq"]).ok().stdout, "");

    let theirs = theirs(&world, &registry, "http-server");
    compare_configs(&image, &theirs);
    compare(&image.tree(), &theirs.tree());
}

#[test]
fn the_python_program_passes_its_own_tests_and_is_what_buildah_makes() {
    if !able(&["docker-registry", "buildah", "skopeo"]) {
        return;
    }
    let (world, registry) = (World::new(), Registry::with_bases());
    let image = ours(&world, &registry, "python-app", "localhost/python-app");
    let tests = world.strake(["run", "--rm", "localhost/python-app", "python3", "-m", "unittest", "discover", "-s", "tests"]).ok();
    tests.says(&["Ran 2 tests", "OK"]);
    let counted = world.strake(["run", "--rm", "-i", "localhost/python-app"]).stdin("b a\nB\n").ok();
    assert_eq!(counted.stdout, "2 b\n1 a\n");
    assert_eq!(world.strake(["ps", "-aq"]).ok().stdout, "");

    let theirs = theirs(&world, &registry, "python-app");
    compare_configs(&image, &theirs);
    compare(&image.tree(), &theirs.tree());
}
