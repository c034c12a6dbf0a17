//! What the store takes on the disk, and how it is freed, from outside.

use std::collections::HashSet;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use serde_json::Value;

use crate::common::registry::Registry;
use crate::common::{World, able, world};

const STEPS: &str = "FROM localhost/busybox AS tools\nRUN head -c 300000 /dev/urandom > /tool\nFROM localhost/busybox\nCOPY --from=tools /tool /tool\n\
    RUN --mount=type=cache,target=/c,id=things head -c 200000 /dev/urandom > /c/thing; echo done > /done\n";

/// What `du` says of some directories of the store, each inode once.
fn blocks(root: &Path, dirs: &[&str]) -> u64 {
    let mut seen = HashSet::new();
    let entries = dirs.iter().flat_map(|dir| walkdir::WalkDir::new(root.join(dir)).min_depth(1)).map(|entry| entry.unwrap());
    entries
        .map(|entry| entry.metadata().unwrap())
        .filter(|metadata| seen.insert(metadata.ino()))
        .map(|metadata| metadata.blocks() * 512)
        .sum()
}

fn rows(world: &World, args: &[&str]) -> Vec<Value> {
    let out = world.strake(args).ok().stdout;
    out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn bytes(world: &World, kind: &str) -> (u64, u64) {
    let rows = rows(world, &["system", "df", "--format", "json"]);
    let row = rows.iter().find(|row| row["Type"] == kind).unwrap();
    (row["SizeBytes"].as_u64().unwrap(), row["ReclaimableBytes"].as_u64().unwrap())
}

fn descriptions(world: &World, filters: &[&str]) -> Vec<String> {
    let mut args = vec!["builder", "du", "--format", "json"];
    filters.iter().for_each(|filter| args.extend(["--filter", filter]));
    rows(world, &args).iter().map(|row| row["Description"].as_str().unwrap().to_owned()).collect()
}

fn prints(world: &World, args: &[&str], texts: &[&str]) {
    let done = world.strake(args).ok();
    texts.iter().for_each(|text| assert!(done.stdout.contains(text), "`{text}` is not printed: {done}"));
}

#[test]
fn df_says_what_is_on_the_disk_and_counts_nothing_twice() {
    if !able(&[]) {
        return;
    }
    let world = World::new();
    world.busybox();
    world.build(STEPS, &["-t", "app"]).ok();
    world.build("FROM app\nCMD [\"true\"]\n", &["-t", "app:two"]).ok();
    world.strake(["run", "--name", "c", "-v", "vol:/v", "app", "sh", "-c", "head -c 100000 /dev/urandom | tee /v/f > /f"]).ok();
    world.strake(["save", "-o", "image.tar", "app"]).ok();
    let text = world.strake(["system", "df"]).ok();
    assert_eq!(
        text.stdout.lines().next().unwrap().split_whitespace().collect::<Vec<_>>(),
        ["TYPE", "TOTAL", "ACTIVE", "SIZE", "RECLAIMABLE"]
    );
    let sum: u64 = ["Images", "Containers", "Local Volumes", "Build Cache"].map(|kind| bytes(&world, kind).0).iter().sum();
    let scratch = blocks(&world.root(), &["snapshots/0"]) + std::fs::metadata(world.root().join("snapshots/0")).unwrap().blocks() * 512;
    let boot =
        std::fs::read_dir(world.root().join("fresh")).unwrap().map(|boot| boot.unwrap().metadata().unwrap().blocks() * 512).sum::<u64>();
    let algorithms = ["sha256", "sha512"].map(|name| std::fs::metadata(world.root().join("blobs").join(name)).unwrap().blocks() * 512);
    let disk = blocks(&world.root(), &["snapshots", "blobs", "fresh", "containers", "volumes", "cachemounts"]);
    assert_eq!(sum, disk - scratch - boot - algorithms.iter().sum::<u64>());
    let (volume, unused) = bytes(&world, "Local Volumes");
    assert!(volume >= 100_000 && unused == 0);
    assert!(bytes(&world, "Containers").0 >= 100_000 && bytes(&world, "Build Cache").0 >= 500_000);
    let all = &rows(&world, &["system", "df", "-v", "--format", "json"])[0];
    let image =
        |tag: &str| all["Images"].as_array().unwrap().iter().find(|row| row["Tag"] == tag && row["Repository"] == "app").unwrap().clone();
    assert!(image("two")["UniqueSizeBytes"].as_u64().unwrap() < 20_000, "all of its layers are shared");
    assert_eq!(image("latest")["Containers"], "1");
    prints(&world, &["system", "df", "-v"], &["Images space usage:", "exec.cachemount", "Local Volumes space usage:"]);
}

#[test]
fn builder_prune_takes_what_its_filters_and_limits_say() {
    if !able(&[]) {
        return;
    }
    let world = World::new();
    world.busybox();
    world.build(STEPS, &["-t", "app"]).ok();
    let tool = "RUN head -c 300000 /dev/urandom > /tool";
    assert_eq!(descriptions(&world, &["private", "type=regular"]), [tool]);
    assert_eq!(descriptions(&world, &["type==exec.cachemount"]), ["things"]);
    for (filter, complaint) in
        [("colour=red", "colour"), ("until=yesterday", "duration"), ("id~=(", "regular expression"), ("shared=maybe", "true or false")]
    {
        world.strake(["builder", "prune", "-f", "--filter", filter]).fails().says(&[complaint]);
    }
    prints(&world, &["builder", "prune", "-f", "--filter", "until=24h"], &["Total: 0B"]);
    prints(&world, &["prune", "-f", "--max-used-space", "10gb"], &["Total reclaimed space: 0B"]);
    prints(&world, &["prune", "-f", "--filter", "type=exec.cachemount", "--dry-run", "--verbose"], &["exec.cachemount", "things"]);
    world.strake(["prune", "-f", "--filter", "type=exec.cachemount"]).ok();
    assert_eq!(descriptions(&world, &["mutable"]), Vec::<String>::new());
    // Without --all the image's own steps stay in the cache.
    world.strake(["builder", "prune", "-f"]).ok();
    assert_eq!(descriptions(&world, &["private"]), Vec::<String>::new());
    world.build(STEPS, &["-t", "app"]).ok().says(&["CACHED"]).omits(&["DONE"]);
    world.strake(["builder", "prune", "-af"]).ok();
    world.strake(["run", "--rm", "app", "test", "-s", "/tool"]).ok();
    let again = world.build(STEPS, &["-t", "app"]).ok();
    assert!(again.steps().iter().filter(|(title, _)| title.contains("RUN")).all(|(_, end)| end.starts_with("DONE")), "{again}");
}

#[test]
fn prunes_beside_builds_and_pulls_take_nothing_in_use() {
    if !able(&["docker-registry"]) {
        return;
    }
    let (world, registry) = (World::new(), Registry::with_bases());
    world.busybox();
    let base = registry.name("busybox");
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let pruner = scope.spawn(|| {
            let mut rounds = 0;
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                world.strake(["builder", "prune", "-af"]).ok();
                world.strake(["prune", "--filter", "until=0s", "-f"]).ok();
                rounds += 1;
            }
            rounds
        });
        let workers: Vec<_> = (0..2)
            .map(|worker| {
                let (world, base, registry) = (&world, &base, &registry);
                scope.spawn(move || {
                    let dir = world.path(&format!("ctx{worker}"));
                    std::fs::create_dir(&dir).unwrap();
                    for round in 0..4 {
                        std::fs::write(dir.join("file"), format!("{worker} {round}")).unwrap();
                        let text = format!(
                            "FROM localhost/busybox AS a\nRUN --mount=type=cache,id=c{worker},target=/c echo {worker} {round} > /c/x; cp /c/x /a\n\
                             FROM {base}\nCOPY file /file\nCOPY --from=a /a /a\nRUN cat /a /file > /both\n"
                        );
                        std::fs::write(dir.join("Dockerfile"), text).unwrap();
                        let tag = format!("w{worker}:r{round}");
                        let plain = ["--plain-http", registry.host()];
                        world.strake(plain.into_iter().chain(["build", "-t", &tag, dir.to_str().unwrap()])).ok();
                        world.strake(plain.into_iter().chain(["pull", base])).ok();
                        let said = world.strake(["run", "--rm", &tag, "cat", "/both"]).ok();
                        assert_eq!(said.stdout, format!("{worker} {round}\n{worker} {round}"));
                    }
                })
            })
            .collect();
        let ended: Vec<_> = workers.into_iter().map(|worker| worker.join()).collect();
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        assert!(pruner.join().unwrap() > 1);
        ended.into_iter().for_each(|worker| worker.unwrap());
    });
    for worker in 0..2 {
        let archive = format!("w{worker}.tar");
        world.strake(["save", "-o", &archive, &format!("w{worker}:r0"), &format!("w{worker}:r3")]).ok();
    }
}

#[test]
fn system_prune_takes_what_docker_takes_and_volumes_only_when_asked() {
    if !able(&[]) {
        return;
    }
    let world = World::new();
    world.busybox();
    world.build("FROM localhost/busybox\nLABEL a=b\n", &[]).ok();
    world.build("FROM localhost/busybox\nVOLUME /v\n", &["-t", "kept"]).ok();
    world.strake(["run", "--name", "gone", "--network", "none", "kept", "true"]).ok();
    world.strake(["create", "--name", "filtered", "--label", "keep", "kept", "true"]).ok();
    world.strake(["volume", "create", "mine"]).ok();
    let count = |args: &[&str]| world.strake(args).ok().stdout.lines().count();
    let (containers, volumes) = (["ps", "-aq"], ["volume", "ls", "-q"]);
    assert_eq!((count(&containers), count(&volumes)), (2, 3));
    world.strake(["system", "prune", "-f", "--filter", "label!=keep"]).ok();
    assert_eq!((count(&containers), count(&volumes)), (1, 3));
    assert!(world.strake(["images", "-q", "--filter", "dangling=true"]).ok().stdout.is_empty());
    let refused = world.strake(["system", "prune", "-f", "--volumes", "--filter", "until=1h"]).fails();
    assert!(refused.stderr.contains("until= is not for volumes"), "{refused}");
    prints(
        &world,
        &["system", "prune", "-af", "--volumes"],
        &["Deleted Containers:", "Deleted Volumes:", "Untagged: ", "Total reclaimed space: "],
    );
    assert_eq!(world.strake(volumes).ok().stdout, "mine\n");
    assert_eq!(count(&["images", "-q"]), 0);
}

#[test]
fn a_pull_that_was_cut_goes_on_unless_its_space_is_asked_for() {
    if !able(&["docker-registry"]) {
        return;
    }
    let (world, registry) = (World::new(), Registry::with_bases());
    let name = registry.name("busybox:latest");
    let downloads = || std::fs::read_dir(world.root().join("ingest")).unwrap().count();
    let cut = || {
        world.strake(["pull", &name]).env("STRAKE_FAULT", "ingest:appended:2").fails();
        assert!(downloads() > 0);
    };
    world.build("FROM scratch\nCOPY Dockerfile /\n", &["-t", "other:1"]).ok();
    cut();
    world.strake(["rmi", "other:1"]).ok();
    world.strake(["prune", "-f", "--filter", "type=regular"]).ok();
    world.strake(["prune", "-f", "--older-than", "1h"]).ok();
    world.strake(["system", "prune", "-f", "--filter", "until=1h"]).ok();
    assert!(downloads() > 0);
    world.strake(["prune", "-f"]).ok();
    assert_eq!(downloads(), 0);
    cut();
    world.strake(["system", "prune", "-f"]).ok();
    assert_eq!(downloads(), 0);
    world.strake(["pull", &name]).ok();
    world.strake(["system", "check"]).ok();
}

#[test]
fn prune_asks_first_and_takes_only_y_for_a_yes() {
    let Some(world) = world() else { return };
    world.strake(["volume", "create", "v"]).ok();
    let volumes = || world.strake(["volume", "ls", "-q"]).ok().stdout;
    let ask = |answer: &str| world.strake(["volume", "prune", "-a"]).stdin(answer).ok().stdout;
    let asked =
        "WARNING! This will remove all local volumes not used by at least one container.\nAre you sure you want to continue? [y/N] ";
    for answer in ["", "\n", "n\n", "yes\n", "no y\n"] {
        assert_eq!(ask(answer), asked, "{answer:?}");
        assert_eq!(volumes(), "v\n");
    }
    assert_eq!(ask(" Y\n"), format!("{asked}Deleted Volumes:\nv\n\nTotal reclaimed space: 0B\n"));
    assert_eq!(volumes(), "");
    world.strake(["create", "--name", "c", "localhost/busybox", "true"]).ok();
    for (command, what) in [
        (&["container", "prune"][..], "all stopped containers.\n"),
        (&["image", "prune"], "all dangling images.\n"),
        (&["image", "prune", "-a"], "all images without at least one container associated to them.\n"),
        (&["volume", "prune"], "anonymous local volumes not used by at least one container.\n"),
        (&["network", "prune"], "all custom networks not used by at least one container.\n"),
        (&["builder", "prune"], "all dangling build cache. "),
        (&["buildx", "prune", "-a"], "all build cache. "),
        (&["prune"], "all dangling images, and leftovers. "),
        (&["prune", "-a"], "all images without at least one container associated to them, and all build cache. "),
    ] {
        let said = world.strake(command).ok().stdout;
        assert_eq!(said, format!("WARNING! This will remove {what}Are you sure you want to continue? [y/N] "));
    }
    let said = world.strake(["system", "prune", "--volumes", "--filter", "label=a"]).ok().stdout;
    let parts = "  - all stopped containers\n  - all networks not used by at least one container\n  \
                 - all anonymous volumes not used by at least one container\n  - all dangling images\n";
    let filters = "  Items to be pruned will be filtered with:\n  - label=a\n";
    assert_eq!(said, format!("WARNING! This will remove:\n{parts}\n{filters}\nAre you sure you want to continue? [y/N] "));
    assert_eq!(world.strake(["ps", "-aq"]).ok().stdout.lines().count(), 1);
    assert_eq!(world.strake(["images", "-q"]).ok().stdout.lines().count(), 1);
}
