//! `cp` without root: the files of a container are in a user namespace of its own, whether it runs or not. And what looks at its processes where those of others are hidden.

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use crate::common::{Nobody, World, able};

#[test]
fn files_go_into_and_out_of_a_running_container_without_root() {
    if !able(&["setpriv", "docker-registry"]) {
        return;
    }
    let world = World::new();
    let Some(nobody) = Nobody::of(&world) else { return };
    let strake = |args: &[&str]| nobody.strake(args);
    let dir = world.short();
    std::fs::create_dir(dir.join("tree")).unwrap();
    std::fs::write(dir.join("tree/file"), "from the host").unwrap();
    // What is mounted in the container only is reached, and a link of the container's leads nowhere else.
    let script = "echo inside > /dev/shm/note; ln -s /tmp /out; echo ready; exec sleep 1000";
    let run = ["run", "-d", "--name", "one", "--network", "none", "-v", "data:/data", "localhost/busybox", "sh", "-c", script];
    strake(&run).ok();
    crate::common::wait_for("the container", 20, || strake(&["logs", "one"]).ok().stdout == "ready\n");
    for to in ["one:/data", "one:/dev/shm", "one:/out"] {
        strake(&["cp", "tree", to]).ok();
    }
    let seen = strake(&["exec", "one", "sh", "-c", "cat /data/tree/file /dev/shm/tree/file /tmp/tree/file"]).ok().stdout;
    assert_eq!(seen, "from the host".repeat(3));
    strake(&["cp", "one:/dev/shm/note", "note"]).ok();
    strake(&["cp", "one:/data/tree", "back"]).ok();
    assert_eq!(std::fs::read_to_string(dir.join("note")).unwrap(), "inside\n");
    assert_eq!(std::fs::read_to_string(dir.join("back/file")).unwrap(), "from the host");
    assert!(!std::path::Path::new("/tmp/tree/file").exists());
    strake(&["cp", "one:/nowhere", "x"]).fails().says(&["/nowhere"]);
    strake(&["rm", "-f", "-v", "one"]).ok();
    strake(&["cp", "one:/etc", "x"]).fails();
}

/// `hidepid=2` shows a user no process that they could not trace: none in a user namespace beside their own.
#[test]
fn processes_are_found_where_the_host_hides_those_of_others() {
    if !able(&["setpriv"]) {
        return;
    }
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut version = release.split('.').map_while(|part| part.parse::<u32>().ok());
    if (version.next(), version.next()) < (Some(5), Some(8)) {
        return eprintln!("skipped: before Linux 5.8 all mounts of /proc hide alike");
    }
    let world = World::new();
    std::thread::scope(|scope| {
        let test = scope.spawn(|| {
            unshare(CloneFlags::CLONE_NEWNS).unwrap();
            mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>).unwrap();
            mount(Some("proc"), "/proc", Some("proc"), MsFlags::empty(), Some("hidepid=2")).unwrap();
            look_at_a_container(&world);
        });
        if let Err(panic) = test.join() {
            std::panic::resume_unwind(panic);
        }
    });
}

fn look_at_a_container(world: &World) {
    let Some(nobody) = Nobody::of(world) else { return };
    let strake = |args: &[&str]| nobody.strake(args);
    for name in ["one", "two"] {
        strake(&[
            "run",
            "-d",
            "--name",
            name,
            "--network",
            "none",
            "localhost/busybox",
            "sh",
            "-c",
            "echo x > /dev/shm/x; sleep 1000 & wait",
        ])
        .ok();
    }
    for name in ["one", "two"] {
        let top = || strake(&["top", name, "-o", "pid,args"]).ok().stdout;
        crate::common::wait_for("the container's second process", 20, || top().lines().any(|line| line.ends_with(" sleep 1000")));
        let count = strake(&["stats", "--no-stream", "--format", "{{.PIDs}}", name]).ok().stdout;
        assert_eq!(count, "2\n");
        crate::common::wait_for("the container's file", 20, || strake(&["cp", &format!("{name}:/dev/shm/x"), "x"]).run().code == 0);
        assert_eq!(std::fs::read_to_string(world.short().join("x")).unwrap(), "x\n");
        strake(&["exec", name, "touch", "/changed"]).ok();
        assert!(strake(&["diff", name]).ok().stdout.contains("A /changed"));
        strake(&["commit", "--pause=false", name, "localhost/copy"]).ok();
        strake(&["rm", "-f", name]).ok();
    }
    // With nobody there, nothing is left of the place where they met.
    strake(&["top", "one"]).fails().says(&["`one`"]);
    let met = world.short().join("run");
    crate::common::wait_for("the end of the place", 20, || !met.join("strake/namespace").exists());
}
