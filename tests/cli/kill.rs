//! A killed command leaves a store that the next one uses without repair.
//!
//! The moment of the kill moves through the whole run of the command: from its very start to about its end.

use std::time::{Duration, Instant};

use crate::common::{Registry, World, able};

const ROUNDS: u32 = 8;

/// Kills `start`ed commands at moments spread over `whole`, and calls `check` after each.
fn rounds(whole: Duration, start: impl Fn(u32) -> std::process::Child, check: impl Fn(u32)) {
    for round in 0..ROUNDS {
        let mut child = start(round);
        std::thread::sleep(whole * (round + 1) / (ROUNDS + 1));
        let _ = child.kill();
        child.wait().unwrap();
        check(round);
    }
}

#[test]
fn a_build_works_after_one_that_was_killed() {
    if !able(&["docker-registry"]) {
        return;
    }
    let world = World::new();
    world.busybox();
    for at in 0..20 {
        world.write(&format!("files/{at}"), vec![b'x'; 100_000]);
    }
    let text = "FROM localhost/busybox\nCOPY files /files\nRUN for i in $(seq 6); do cp -r /files /f$i; done\nCOPY --chown=1:1 files /more\nRUN rm -r /f1 && echo done > /done\n";
    let timed = world.build(text, &[]).ok().elapsed;
    rounds(
        timed,
        |_| world.build_as_it_is(&["--no-cache", "-t", "localhost/killed"]).start(),
        |round| {
            let image = world.image(text, &["--no-cache"]);
            assert_eq!(image.tree()["done"].content, b"done\n", "round {round}");
            assert_eq!(image.tree().keys().filter(|path| path.starts_with("more/")).count(), 20, "round {round}");
        },
    );
}

#[test]
fn a_pull_works_after_one_that_was_killed() {
    if !able(&["docker-registry"]) {
        return;
    }
    let registry = Registry::with_bases();
    let name = registry.name("minbase:bookworm");
    let timed = {
        let world = World::new();
        let started = Instant::now();
        world.strake(["pull", &name]).ok();
        started.elapsed()
    };
    // One store for all: what one round leaves, the next must cope with.
    let world = World::new();
    rounds(
        timed,
        |_| world.strake(["pull", &name]).start(),
        |round| {
            world.strake(["images"]).ok();
            if round % 4 == 3 {
                world.strake(["pull", &name]).ok();
                world.strake(["rmi", "-f", &name]).ok();
            }
        },
    );
    world.strake(["pull", &name]).ok();
    world.build(&format!("FROM {name}\nRUN dpkg -V libc6 && dpkg -V bash\n"), &[]).ok();
}

#[test]
fn a_push_works_after_one_that_was_killed() {
    if !able(&["docker-registry", "skopeo"]) {
        return;
    }
    let (world, registry) = (World::new(), Registry::empty());
    world.busybox();
    let text = |round: u32| format!("FROM localhost/busybox\nRUN head -c 4000000 /dev/urandom > /r; echo {round}\n");
    let image = |round: u32| registry.name(&format!("pushed{round}"));
    world.build(&text(99), &["-t", &image(99)]).ok();
    let started = Instant::now();
    world.strake(["push", &image(99)]).ok();
    let timed = started.elapsed();
    rounds(
        timed,
        |round| {
            world.build(&text(round), &["-t", &image(round)]).ok();
            world.strake(["push", &image(round)]).start()
        },
        |round| {
            world.strake(["push", &image(round)]).ok();
            let archive = world.path(&format!("{round}.tar"));
            let to = format!("oci-archive:{}", archive.display());
            let from = registry.url(&format!("pushed{round}"));
            crate::common::Run::new("skopeo", ["--insecure-policy", "copy", "-q", "--src-tls-verify=false", &from, &to]).ok();
        },
    );
}
