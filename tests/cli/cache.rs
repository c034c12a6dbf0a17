//! What the cache takes, what it does not, and what it says about it.

use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, SystemTime};

use crate::common::{World, processes, wait_for};

fn world() -> Option<World> {
    let world = crate::common::world()?;
    world.write("src/a.txt", "a").write("src/b.txt", "b").write("other.txt", "o");
    Some(world)
}

const DOCKERFILE: &str = "FROM localhost/busybox\nARG LEVEL=1\nCOPY other.txt /\nRUN echo first $LEVEL\nCOPY src /src/\nRUN cat /src/a.txt; head -c 16 /dev/urandom > /stamp\nLABEL l=1\n";

#[test]
fn a_second_build_runs_nothing_and_makes_the_same_image() {
    let Some(world) = world() else { return };
    let first = world.build(DOCKERFILE, &[]).ok();
    let second = world.build(DOCKERFILE, &[]).ok();
    assert_eq!(first.image_id(), second.image_id());
    let steps = second.steps();
    assert!(steps.len() >= 4, "{second}");
    for (title, outcome) in steps {
        assert_eq!(outcome, "CACHED", "{title}: {second}");
    }
}

#[test]
fn a_build_with_nothing_to_do_writes_nothing() {
    let Some(world) = world() else { return };
    let build = || world.build(DOCKERFILE, &["-t", "app"]).ok();
    // Every command reads what stands in the log: it must not grow.
    let log = || std::fs::metadata(world.root().join("meta.db-wal")).unwrap();
    build();
    build();
    wait_for("the flush", 60, || processes(&world.root()).is_empty());
    // Checksums are remembered by the first build that comes some time after the files.
    wait_for("a build that writes nothing", 60, || {
        let before = log();
        build();
        (log().len(), log().modified().unwrap()) == (before.len(), before.modified().unwrap())
    });
}

#[test]
fn a_changed_file_runs_its_dependents_again_and_is_named() {
    let Some(world) = world() else { return };
    world.build(DOCKERFILE, &[]).ok();
    world.write("src/a.txt", "changed");
    let done = world.build(DOCKERFILE, &[]).ok();
    assert_eq!(done.step("COPY other.txt"), "CACHED");
    assert_eq!(done.step("RUN echo first"), "CACHED");
    assert_eq!(done.step("COPY src"), "DONE");
    assert_eq!(done.step("RUN cat"), "DONE");
    done.says(&["src/a.txt changed"]);
    world.write("src/new.txt", "n");
    world.build(DOCKERFILE, &[]).ok().says(&["src/new.txt is new"]);
    std::fs::remove_file(world.context().join("src/b.txt")).unwrap();
    world.build(DOCKERFILE, &[]).ok().says(&["src/b.txt is gone"]);
}

#[test]
fn a_new_time_is_no_change_and_a_new_mode_is_one() {
    let Some(world) = world() else { return };
    world.build(DOCKERFILE, &[]).ok();
    let path = world.context().join("src/a.txt");
    std::fs::File::open(&path).unwrap().set_modified(SystemTime::now() + Duration::from_secs(3600)).unwrap();
    let touched = world.build(DOCKERFILE, &[]).ok();
    assert_eq!(touched.step("COPY src"), "CACHED", "{touched}");
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
    let chmod = world.build(DOCKERFILE, &[]).ok();
    assert_eq!(chmod.step("COPY src"), "DONE", "{chmod}");
    assert_eq!(chmod.step("COPY other.txt"), "CACHED", "{chmod}");
}

#[test]
fn a_changed_build_argument_is_named_with_both_values() {
    let Some(world) = world() else { return };
    world.build(DOCKERFILE, &["--build-arg", "LEVEL=1.2"]).ok();
    let done = world.build(DOCKERFILE, &["--build-arg", "LEVEL=1.3"]).ok();
    assert_eq!(done.step("COPY other.txt"), "CACHED", "a COPY does not read the argument: {done}");
    assert_eq!(done.step("RUN echo first"), "DONE");
    done.says(&["LEVEL: 1.2 -> 1.3"]);
}

#[test]
fn files_copied_from_a_stage_count_by_their_content() {
    let Some(world) = world() else { return };
    let text = |comment: &str| {
        format!(
            "FROM localhost/busybox AS b\nRUN echo same > /out; : {comment}\nFROM localhost/busybox\nCOPY --from=b /out /out\nRUN head -c 16 /dev/urandom > /stamp\n"
        )
    };
    let first = world.build(&text("one"), &[]).ok();
    let second = world.build(&text("two"), &[]).ok();
    assert_eq!(second.step("RUN echo same"), "DONE");
    assert_eq!(second.step("COPY --from=b"), "CACHED", "{second}");
    assert_eq!(second.step("RUN head"), "CACHED", "{second}");
    assert_eq!(first.image_id(), second.image_id());
}

#[test]
fn no_cache_runs_everything_again() {
    let Some(world) = world() else { return };
    let first = world.build(DOCKERFILE, &[]).ok();
    let second = world.build(DOCKERFILE, &["--no-cache"]).ok();
    assert_eq!(second.step("RUN echo first"), "DONE");
    assert_eq!(second.step("RUN cat"), "DONE");
    assert_ne!(first.image_id(), second.image_id(), "the stamp is another one");
    // What ran again is what is taken from now on.
    assert_eq!(world.build(DOCKERFILE, &[]).ok().image_id(), second.image_id());
}

#[test]
fn builds_at_once_run_the_same_step_once() {
    let Some(world) = world() else { return };
    world.write("Dockerfile", "FROM localhost/busybox\nRUN sleep 1; head -c 16 /dev/urandom | md5sum > /random\n");
    let done: Vec<_> = std::thread::scope(|scope| {
        let builds: Vec<_> = (0..3).map(|_| scope.spawn(|| world.build_as_it_is(&[]).ok())).collect();
        builds.into_iter().map(|build| build.join().unwrap()).collect()
    });
    assert_eq!(done[0].image_id(), done[1].image_id());
    assert_eq!(done[0].image_id(), done[2].image_id());
    let ran = done.iter().filter(|done| done.step("RUN sleep") == "DONE").count();
    assert_eq!(ran, 1, "{}\n{}\n{}", done[0], done[1], done[2]);
}

#[test]
fn a_file_changed_within_the_clocks_granularity_is_noticed() {
    let Some(world) = world() else { return };
    for content in ["1", "2", "3", "4", "5", "6"] {
        world.write("src/a.txt", content);
        let tree = world.image("FROM localhost/busybox\nCOPY src/a.txt /\n", &[]).tree();
        assert_eq!(tree["a.txt"].content, content.as_bytes());
    }
}
