//! `cp` without root: the files of a container are in a user namespace of its own, whether it runs or not.

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
