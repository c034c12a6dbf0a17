//! Commands killed at chosen and at random points: the store is whole after each, and the same command works then.
//!
//! A command first runs to its end and tells which fault points it passes (`src/task/fault.rs`), and how often. Then it is killed at these, one after the other, and now and
//! then at a random moment. After each kill `strake system check` finds nothing wrong, no process and no mount is left, and the same command succeeds and gives what it
//! should. `make crash` (`STRAKE_CRASH=long`) takes every point that is passed, at its first three passings and at its last; otherwise each scenario takes a sample of them.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::common::{Registry, Run, World, able, processes, remove_store, wait_for};

/// How many points of a scenario are taken in the short form.
const SAMPLE: usize = 3;
/// How many random moments.
const RANDOM: usize = 1;
/// The same in the long form.
const RANDOM_LONG: usize = 25;

fn is_long() -> bool {
    std::env::var_os("STRAKE_CRASH").is_some_and(|value| value == "long")
}

/// A command that is killed over and over, and what has to hold then.
struct Scenario<'a> {
    world: &'a World,
    /// Leaves the store so that the command has everything to do.
    reset: &'a dyn Fn(usize),
    /// The command. It gets the number of its round, should it need a name of its own.
    command: &'a dyn Fn(usize) -> Run,
    /// Checks from outside what the command made.
    verify: &'a dyn Fn(usize),
}

impl Scenario<'_> {
    /// Goes through all rounds.
    fn play(&self) {
        let (passed, elapsed) = self.points();
        let mut chosen = Vec::new();
        for (point, count) in &passed {
            let mut passings = vec![1, 2, 3, *count];
            passings.retain(|passing| passing <= count);
            passings.dedup();
            chosen.extend(passings.into_iter().map(|passing| (point.clone(), passing)));
        }
        assert!(chosen.len() >= 3, "only {chosen:?} are passed: is this a build with fault points?");
        if !is_long() {
            chosen = sample(chosen);
        }
        let mut random = Random(elapsed.as_nanos() as u64);
        let (mut round, mut reached) = (1, 0);
        for (point, passing) in &chosen {
            let what = format!("killed at {point}:{passing}");
            (self.reset)(round);
            let done = (self.command)(round).env("STRAKE_FAULT", format!("{point}:{passing}")).run();
            assert!([0, 137].contains(&done.code), "{what}: {done}");
            reached += usize::from(done.code == 137);
            self.aftermath(round, &what);
            round += 1;
        }
        // How often a point is passed may differ from run to run.
        assert!(reached > 0 && (!is_long() || reached * 2 >= chosen.len()), "{reached} of {} points were reached", chosen.len());
        for _ in 0..if is_long() { RANDOM_LONG } else { RANDOM } {
            (self.reset)(round);
            let moment = elapsed.mul_f64(random.fraction() * 1.1);
            let mut child = (self.command)(round).start();
            std::thread::sleep(moment);
            let _ = child.kill();
            child.wait().unwrap();
            self.aftermath(round, &format!("killed after {moment:?}"));
            round += 1;
        }
        println!("{} kills at {} points, {reached} reached", round - 1, passed.len());
        clean_in_the_end(self.world);
    }

    /// The points that the command passes, with how often, and how long it takes.
    fn points(&self) -> (BTreeMap<String, usize>, Duration) {
        (self.reset)(0);
        let trace = self.world.path("trace");
        let done = (self.command)(0).env("STRAKE_FAULT_TRACE", &trace).ok();
        (self.verify)(0);
        let text = std::fs::read_to_string(&trace).unwrap();
        let mut passed = BTreeMap::new();
        text.lines().for_each(|line| *passed.entry(line.to_owned()).or_default() += 1);
        (passed, done.elapsed)
    }

    /// What has to hold after a kill.
    fn aftermath(&self, round: usize, what: &str) {
        wait_for(&format!("{what}: the end of its sandboxes"), 30, || mounted(&self.world.root()).is_empty());
        good(self.world, what);
        let again = (self.command)(round).run();
        assert!(again.code == 0, "{what}: {again}");
        (self.verify)(round);
        good(self.world, &format!("{what}, and then done"));
    }
}

/// A sample that is spread over all of the points, another one from run to run.
fn sample(chosen: Vec<(String, usize)>) -> Vec<(String, usize)> {
    let step = chosen.len().div_ceil(SAMPLE);
    let start = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().subsec_nanos() as usize;
    chosen.into_iter().skip(start % step).step_by(step).collect()
}

struct Random(u64);

impl Random {
    /// From 0 to 1.
    fn fraction(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as f64 / (1u64 << 31) as f64
    }
}

/// Nothing is wrong with the store.
#[track_caller]
fn good(world: &World, what: &str) {
    let done = world.strake(["system", "check", "-q"]).run();
    assert!(done.code == 0 && done.stdout.is_empty(), "{what}: {done}");
}

/// The processes that have something of the store mounted, this one too.
fn mounted(root: &Path) -> Vec<String> {
    let root = root.to_str().unwrap();
    let processes = std::fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| entry.file_name().into_string().ok());
    processes
        .filter(|pid| pid.bytes().all(|byte| byte.is_ascii_digit()))
        .filter(|pid| std::fs::read_to_string(format!("/proc/{pid}/mountinfo")).is_ok_and(|mounts| mounts.contains(root)))
        .collect()
}

/// After a prune nothing is in the store that no row speaks of, and soon no process of it is left.
fn clean_in_the_end(world: &World) {
    for id in world.strake(["ps", "-aq"]).ok().stdout.split_whitespace() {
        world.strake(["rm", "-f", "-v", id]).run();
    }
    world.strake(["prune", "-f"]).ok();
    let checked = world.strake(["system", "check"]).ok();
    assert!(!checked.stdout.contains("left over"), "{checked}");
    let names = |dir: &str| -> Vec<String> {
        let entries = std::fs::read_dir(world.root().join(dir)).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    };
    for dir in ["trash", "leases"] {
        assert_eq!(names(dir), Vec::<String>::new(), "{dir}");
    }
    assert_eq!(names("locks"), ["store"]);
    assert_eq!(names("fresh").len(), 1);
    for (dir, prefix) in [("ingest", "anon-"), ("snapshots", "new-")] {
        let left: Vec<String> = names(dir).into_iter().filter(|name| name.starts_with(prefix)).collect();
        assert_eq!(left, Vec::<String>::new(), "{dir}");
    }
    wait_for("the end of all processes", 60, || processes(&world.root()).is_empty() && mounted(&world.root()).is_empty());
}

/// A registry with `small`, an image of three layers of a few files each, and the world that made it.
fn small_image(registry: &Registry) -> String {
    let world = World::new();
    for (dir, name) in [("one", "a"), ("one", "b"), ("two/deep", "c"), ("three", "d")] {
        world.write(&format!("{dir}/{name}"), name.repeat(30_000));
    }
    let name = registry.name("small:latest");
    world.build("FROM scratch\nCOPY one /one\nCOPY two /two\nCOPY three /one\nCMD [\"/x\"]\n", &["-t", &name]).ok();
    world.strake(["push", &name]).ok();
    name
}

/// The files of an image are those of `small_image`.
fn is_small(world: &World, name: &str) {
    world.strake(["validate", name]).ok();
}

fn files(world: &World) {
    for at in 0..6 {
        world.write(&format!("files/{at}"), vec![b'x'; 20_000]);
    }
}

#[test]
fn a_store_that_is_being_made() {
    if !able(&[]) {
        return;
    }
    let world = World::new();
    let scenario = Scenario {
        world: &world,
        reset: &|_| remove_store(&world.root()),
        command: &|_| world.strake(["images"]),
        verify: &|_| drop(world.strake(["images"]).ok()),
    };
    // There is nothing to check before there is a store.
    let (passed, _) = scenario.points();
    assert!(passed.contains_key("make:version"), "{passed:?}");
    for point in passed.keys() {
        (scenario.reset)(0);
        world.strake(["images"]).env("STRAKE_FAULT", format!("{point}:1")).fails();
        world.strake(["images"]).ok();
        good(&world, point);
    }
}

#[test]
fn the_first_command_after_a_power_cut() {
    if !able(&["docker-registry"]) {
        return;
    }
    let (world, registry) = (World::new(), Registry::empty());
    let name = small_image(&registry);
    let fresh = world.root().join("fresh");
    let reset = |_| {
        world.strake(["pull", &name]).ok();
        // Makes all so far durable.
        world.strake(["prune", "-f"]).ok();
        world.build("FROM scratch\nCOPY Dockerfile /\n", &["-t", "localhost/unsettled", "--no-cache"]).ok();
        // As if this boot had been another.
        for (number, boot) in std::fs::read_dir(&fresh).unwrap().flatten().enumerate() {
            std::fs::rename(boot.path(), fresh.join(format!("another{number}"))).unwrap();
        }
    };
    Scenario { world: &world, reset: &reset, command: &|_| world.strake(["images"]), verify: &|_| is_small(&world, &name) }.play();
}

#[test]
fn a_pull() {
    if !able(&["docker-registry"]) {
        return;
    }
    let (world, registry) = (World::new(), Registry::empty());
    let name = small_image(&registry);
    Scenario {
        world: &world,
        reset: &|_| drop(world.strake(["prune", "-f", "-a"]).ok()),
        command: &|_| world.strake(["pull", &name]),
        verify: &|_| is_small(&world, &name),
    }
    .play();
}

#[test]
fn a_load() {
    if !able(&["docker-registry"]) {
        return;
    }
    let (world, registry) = (World::new(), Registry::empty());
    let name = small_image(&registry);
    world.strake(["pull", &name]).ok();
    world.strake(["save", "-o", "small.tar", &name]).ok();
    Scenario {
        world: &world,
        reset: &|_| drop(world.strake(["prune", "-f", "-a"]).ok()),
        command: &|_| world.strake(["load", "-i", "small.tar"]),
        verify: &|_| is_small(&world, &name),
    }
    .play();
}

#[test]
fn a_save() {
    if !able(&["docker-registry"]) {
        return;
    }
    let (world, registry) = (World::new(), Registry::empty());
    let name = small_image(&registry);
    let saved = world.path("saved");
    let reset = |_| {
        let _ = std::fs::remove_dir_all(&saved);
        std::fs::create_dir(&saved).unwrap();
    };
    world.strake(["pull", &name]).ok();
    let verify = |_: usize| {
        world.strake(["validate", "--tarball", "saved/small.tar"]).ok();
        let names: Vec<_> = std::fs::read_dir(&saved).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, ["small.tar"]);
    };
    Scenario { world: &world, reset: &reset, command: &|_| world.strake(["save", "-o", "saved/small.tar", &name]), verify: &verify }.play();
}

#[test]
fn a_build() {
    if !able(&["docker-registry"]) {
        return;
    }
    let world = World::new();
    world.busybox();
    files(&world);
    let text = "FROM localhost/busybox AS one\nCOPY files /files\nRUN --mount=type=cache,target=/c echo x > /c/x && cp -r /files /more\n\
                FROM localhost/busybox\nWORKDIR /w\nCOPY --from=one /more /more\nRUN rm /more/0 && echo done > /done\n";
    world.write("Dockerfile", text);
    let verify = |_: usize| {
        let done = world.strake(["run", "--rm", "--network", "none", "localhost/built", "cat", "/done", "/more/5"]).ok();
        assert_eq!(done.stdout.len(), "done\n".len() + 20_000, "{done}");
    };
    Scenario {
        world: &world,
        reset: &|round| {
            if round % 8 == 0 {
                world.strake(["prune", "-f", "--build-cache"]).ok();
            }
        },
        command: &|_| world.build_as_it_is(&["--no-cache", "-t", "localhost/built"]),
        verify: &verify,
    }
    .play();
}

#[test]
fn a_push() {
    if !able(&["docker-registry"]) {
        return;
    }
    let (world, registry) = (World::new(), Registry::empty());
    let image = |round: usize| registry.name(&format!("pushed{round}:latest"));
    let reset = |round: usize| {
        world.write("unique", format!("{round} ").repeat(5_000));
        world.build("FROM scratch\nCOPY unique /unique\n", &["-t", &image(round)]).ok();
    };
    let verify = |round: usize| drop(world.strake(["validate", "--remote", &image(round)]).ok());
    Scenario { world: &world, reset: &reset, command: &|round| world.strake(["push", &image(round)]), verify: &verify }.play();
}

#[test]
fn a_prune() {
    if !able(&["docker-registry"]) {
        return;
    }
    let world = World::new();
    world.busybox();
    files(&world);
    world.write("Dockerfile", "FROM localhost/busybox\nCOPY files /files\nRUN --mount=type=cache,target=/c cp -r /files /more\n");
    let reset = |round: usize| {
        let name = format!("localhost/doomed{round}");
        world.build_as_it_is(&["--no-cache", "-t", &name]).ok();
        world.strake(["save", "-o", "doomed.tar", &name]).ok();
        world.strake(["rmi", "-f", &name]).ok();
    };
    let verify = |_: usize| {
        let done = world.strake(["run", "--rm", "--network", "none", "localhost/busybox", "echo", "hello"]).ok();
        assert_eq!(done.stdout, "hello\n");
        let records = world.strake(["builder", "du", "--format", "{{.Description}}"]).ok();
        assert!(!records.stdout.contains("cp -r"), "{records}");
    };
    Scenario { world: &world, reset: &reset, command: &|_| world.strake(["prune", "-f", "--build-cache"]), verify: &verify }.play();
}

#[test]
fn names_that_move_and_images_that_go() {
    if !able(&["docker-registry"]) {
        return;
    }
    let world = World::new();
    world.write("Dockerfile", "FROM scratch\nARG N\nLABEL n=$N\nCOPY Dockerfile /\n");
    let build = |number: &str| world.build_as_it_is(&["--build-arg", &format!("N={number}"), "-t", &format!("localhost/n:{number}")]);
    let reset = |_: usize| {
        for number in ["1", "2"] {
            build(number).ok();
        }
        world.strake(["tag", "localhost/n:1", "localhost/moving"]).ok();
    };
    let names = || world.strake(["images", "--format", "{{.Repository}}:{{.Tag}} {{.ID}}"]).ok().stdout;
    let verify = |_: usize| {
        let names = names();
        let id = |name: &str| names.lines().find_map(|line| line.strip_prefix(name)).map(str::to_owned);
        assert_eq!(id("localhost/moving:latest "), id("localhost/n:2 "), "{names}");
    };
    Scenario { world: &world, reset: &reset, command: &|_| world.strake(["tag", "localhost/n:2", "localhost/moving"]), verify: &verify }
        .play();
    let gone = |_: usize| assert_eq!(names().lines().filter(|line| line.starts_with("localhost/n:2 ")).count(), 0);
    let command = |_: usize| world.strake(["rmi", "-f", "localhost/n:2"]);
    for point in ["database:written", "database:committed"] {
        reset(0);
        command(0).env("STRAKE_FAULT", format!("{point}:1")).fails();
        good(&world, point);
        command(0).run();
        gone(0);
        good(&world, point);
    }
    // One image of an index goes, and the name moves on to the other.
    let (here, other) = if std::env::consts::ARCH == "aarch64" { ("arm64", "amd64") } else { ("amd64", "arm64") };
    let command = || world.strake(["rmi", "--platform", &format!("linux/{here}"), "localhost/index:1"]);
    for point in ["image:held", "name:moving", "database:committed", "manifest:removing", "trash:moved", "prune:decided"] {
        world.build_as_it_is(&["--platform", "linux/amd64,linux/arm64", "-t", "localhost/index:1"]).ok();
        assert_eq!(command().env("STRAKE_FAULT", format!("{point}:1")).run().code, 137, "{point}");
        good(&world, point);
        // Where it was gone already, that is an error.
        command().run();
        let now = world.strake(["image", "inspect", "-f", "{{.Architecture}}", "localhost/index:1"]).ok().stdout;
        assert_eq!(now.trim(), other, "{point}");
        world.strake(["validate", "localhost/index:1"]).ok();
        good(&world, point);
    }
}

#[test]
fn containers_that_come_and_go() {
    if !able(&["docker-registry"]) {
        return;
    }
    let world = World::new();
    world.busybox();
    let run = |_: usize| {
        world.strake([
            "run",
            "--rm",
            "--network",
            "none",
            "-v",
            "kept:/kept",
            "-v",
            "/anonymous",
            "localhost/busybox",
            "sh",
            "-c",
            "echo x | tee /kept/x",
        ])
    };
    let verify = |_: usize| {
        assert_eq!(std::fs::read(world.root().join("volumes/kept/_data/x")).unwrap(), b"x\n");
    };
    // A container whose command was killed ends by itself.
    let settled = |_: usize| {
        wait_for("the end of the containers", 60, || world.strake(["ps", "-q"]).ok().stdout.is_empty());
    };
    Scenario { world: &world, reset: &settled, command: &run, verify: &verify }.play();
    let make = |round: usize| {
        let name = format!("c{round}");
        world.strake(["run", "--name", &name, "--network", "none", "localhost/busybox", "sh", "-c", "echo x > /x"]).ok();
    };
    for (round, point) in
        ["database:committed:1", "container:forgotten:1", "trash:moved:1", "trash:emptied:1", "container:removed:1"].into_iter().enumerate()
    {
        make(round);
        let name = format!("c{round}");
        let killed = world.strake(["rm", &name]).env("STRAKE_FAULT", point).run();
        assert_eq!(killed.code, 137, "{point}: {killed}");
        good(&world, point);
        let listed = world.strake(["ps", "-a", "--format", "{{.Names}}"]).ok();
        assert!(!listed.stdout.lines().any(|line| line == name), "{point}: {listed}");
    }
    clean_in_the_end(&world);
}

#[test]
fn commands_beside_others() {
    if !able(&["docker-registry"]) {
        return;
    }
    let (world, registry) = (World::new(), Registry::empty());
    let name = small_image(&registry);
    let other = world.path("other");
    std::fs::create_dir(&other).unwrap();
    std::fs::write(other.join("Dockerfile"), "FROM scratch\nARG N\nCOPY Dockerfile /$N\n").unwrap();
    files(&world);
    world.write("Dockerfile", "FROM scratch\nCOPY files /files\nCOPY Dockerfile /\n");
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                world.strake(["prune", "-f"]).ok();
            }
        });
        scope.spawn(|| {
            for round in 0.. {
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                let argument = format!("N=f{}", round % 7);
                world.strake(["build", "-q", "--build-arg", &argument, "-t", "localhost/other", "other"]).ok();
                world.strake(["validate", "-q", "localhost/other"]).ok();
            }
        });
        // However this ends, the others must.
        let end = End(&stop);
        let pull = Scenario {
            world: &world,
            reset: &|_| drop(world.strake(["rmi", "-f", &name]).run()),
            command: &|_| world.strake(["pull", &name]),
            verify: &|_| is_small(&world, &name),
        };
        pull.play_beside();
        let build = Scenario {
            world: &world,
            reset: &|_| (),
            command: &|_| world.build_as_it_is(&["--no-cache", "-q", "-t", "localhost/built"]),
            verify: &|_| is_small(&world, "localhost/built"),
        };
        build.play_beside();
        let prune = Scenario {
            world: &world,
            reset: &|_| drop(world.build_as_it_is(&["--no-cache", "-q", "-t", "localhost/built"]).ok()),
            command: &|_| world.strake(["prune", "-f", "--build-cache"]),
            verify: &|_| is_small(&world, "localhost/built"),
        };
        prune.play_beside();
        drop(end);
    });
    clean_in_the_end(&world);
}

struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Scenario<'_> {
    /// The same while others use the store, which is never at rest then.
    fn play_beside(&self) {
        let (passed, elapsed) = self.points();
        let mut chosen: Vec<(String, usize)> = passed.iter().map(|(point, count)| (point.clone(), 1.max(count / 2))).collect();
        if !is_long() {
            chosen = sample(chosen).into_iter().step_by(2).collect();
        }
        let mut random = Random(elapsed.as_nanos() as u64);
        for round in 0..chosen.len() + if is_long() { RANDOM_LONG } else { RANDOM } {
            (self.reset)(round);
            let what = match chosen.get(round) {
                Some((point, passing)) => {
                    let done = (self.command)(round).env("STRAKE_FAULT", format!("{point}:{passing}")).run();
                    assert!([0, 137].contains(&done.code), "{done}");
                    format!("killed at {point}:{passing}")
                }
                None => {
                    let started = Instant::now();
                    let mut child = (self.command)(round).start();
                    std::thread::sleep(elapsed.mul_f64(random.fraction()));
                    let _ = child.kill();
                    child.wait().unwrap();
                    format!("killed after {:?}", started.elapsed())
                }
            };
            good(self.world, &what);
            let again = (self.command)(round).run();
            assert!(again.code == 0, "{what}: {again}");
            (self.verify)(round);
            good(self.world, &format!("{what}, and then done"));
        }
    }
}
