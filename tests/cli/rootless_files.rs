//! `cp` without root: the files of a container are in a user namespace of its own, whether it runs or not.

use std::os::unix::fs::PermissionsExt;

use crate::common::{Run, World, able, bases, unable, which};

#[test]
fn files_go_into_and_out_of_a_running_container_without_root() {
    if !able(&["setpriv", "docker-registry"]) {
        return;
    }
    let world = World::new();
    let dir = world.short();
    std::fs::set_permissions(dir, PermissionsExt::from_mode(0o777)).unwrap();
    std::fs::copy(env!("CARGO_BIN_EXE_strake"), dir.join("strake")).unwrap();
    std::fs::copy(bases().join("busybox.tar"), dir.join("busybox.tar")).unwrap();
    let setpriv = which("setpriv").unwrap();
    let strake = |args: &[&str]| {
        let run = Run::new(setpriv.to_str().unwrap(), ["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(dir.join("strake"));
        run.arg_all(args).env("HOME", dir).env("XDG_RUNTIME_DIR", dir.join("run")).env("STRAKE_ROOT", dir.join("store")).dir(dir)
    };
    let import = strake(&["import", "-c", "CMD [\"sh\"]", "busybox.tar", "localhost/busybox"]).run();
    if import.stderr.contains("user namespace") {
        return unable("user namespaces without root");
    }
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
