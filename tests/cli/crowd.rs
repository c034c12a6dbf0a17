//! Many processes on one store at once: nothing that one of them made is lost or altered by what the others do.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::common::{Registry, World, able};

/// How many processes there are at any time.
const CROWD: usize = 16;

/// How long they go on.
fn patience() -> Duration {
    Duration::from_secs(if std::env::var_os("STRAKE_CRASH").is_some_and(|value| value == "long") { 180 } else { 4 })
}

#[test]
fn sixteen_processes_build_pull_tag_remove_and_prune_at_once() {
    if !able(&["docker-registry"]) {
        return;
    }
    let (world, registry) = (World::new(), Registry::empty());
    let remote: Vec<String> = (0..3).map(|number| registry.name(&format!("remote{number}:latest"))).collect();
    let maker = World::new();
    for (number, name) in remote.iter().enumerate() {
        // Layers that they share, and layers of their own.
        maker.write("shared", "shared".repeat(10_000)).write("own", number.to_string().repeat(20_000));
        maker.build("FROM scratch\nCOPY shared /\nCOPY own /\n", &["-t", name]).ok();
        maker.strake(["push", name]).ok();
    }
    world.busybox();
    let deadline = Instant::now() + patience();
    let done = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for number in 0..CROWD {
            let (world, remote, done) = (&world, &remote, &done);
            scope.spawn(move || {
                let mut rounds = 0;
                while rounds == 0 || Instant::now() < deadline {
                    match number % 8 {
                        0..=2 => builds(world, number, rounds),
                        3 | 4 => pulls(world, number, &remote[(number + rounds) % remote.len()]),
                        5 => tags(world, number, rounds),
                        6 => loads(world, number, rounds),
                        _ => drop(world.strake(["prune", "-f", if rounds % 2 == 0 { "--build-cache" } else { "--dry-run" }]).ok()),
                    }
                    rounds += 1;
                }
                done.lock().unwrap().push((number, rounds));
            });
        }
    });
    println!("rounds of each: {:?}", done.lock().unwrap());
    let checked = world.strake(["system", "check"]).run();
    assert_eq!(checked.code, 0, "{checked}");
    // All that was made and not removed is there, with the right content.
    for number in (0..CROWD).filter(|number| number % 8 <= 2) {
        holds(&world, &format!("localhost/built{number}:kept"), &format!("first {number}\n"));
    }
    world.strake(["prune", "-f"]).ok();
    assert!(!world.strake(["system", "check"]).ok().stdout.contains("left over"));
}

/// The image has a file with this text.
#[track_caller]
fn holds(world: &World, name: &str, text: &str) {
    let done = world.strake(["run", "--rm", "--network", "none", name, "cat", "/text"]).ok();
    assert_eq!(done.stdout, text, "{name}");
}

fn builds(world: &World, number: usize, round: usize) {
    let dir = world.path(&format!("ctx{number}"));
    std::fs::create_dir_all(&dir).unwrap();
    // Some steps are all builders' and some are of one alone.
    let text = format!("FROM localhost/busybox\nRUN echo {} > /common\nCOPY text /text\nRUN cat /text >> /common\n", round % 3);
    let (tag, line) = if round == 0 { ("kept", format!("first {number}\n")) } else { ("now", format!("{number} in round {round}\n")) };
    std::fs::write(dir.join("Dockerfile"), text).unwrap();
    std::fs::write(dir.join("text"), &line).unwrap();
    let name = format!("localhost/built{number}:{tag}");
    world.strake(["build", "-q", "-t", &name, dir.to_str().unwrap()]).ok();
    holds(world, &name, &line);
    if round % 3 == 2 {
        world.strake(["rmi", "-f", &name]).ok();
    }
}

fn pulls(world: &World, number: usize, name: &str) {
    world.strake(["pull", "-q", name]).ok();
    // A name of its own, which nobody else removes. Another may have removed the image between the two.
    let mine = format!("localhost/mine{number}:latest");
    if world.strake(["tag", name, &mine]).run().code == 0 {
        world.strake(["validate", "-q", &mine]).ok();
        world.strake(["rmi", &mine]).ok();
    }
}

fn tags(world: &World, number: usize, round: usize) {
    let name = format!("localhost/tag{number}:{round}");
    world.strake(["tag", "localhost/busybox", &name]).ok();
    let listed = world.strake(["images", "--format", "{{.Repository}}:{{.Tag}}"]).ok().stdout;
    assert!(listed.lines().any(|line| line == name), "{name} is lost: {listed}");
    world.strake(["rmi", &name]).ok();
}

fn loads(world: &World, number: usize, round: usize) {
    let name = format!("localhost/loaded{number}:latest");
    let archive = world.path(&format!("archive{number}.tar"));
    let archive = archive.to_str().unwrap();
    world.strake(["tag", "localhost/busybox", &name]).ok();
    world.strake(["save", "-o", archive, &name]).ok();
    world.strake(["rmi", &name]).ok();
    world.strake(["load", "-q", "-i", archive]).ok();
    world.strake(["run", "--rm", "--network", "none", &name, "true"]).ok();
    if round.is_multiple_of(2) {
        world.strake(["rmi", &name]).ok();
    }
}
