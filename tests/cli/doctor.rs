//! `strake doctor` says what is there, changes nothing, and its status tells whether containers work.

use serde_json::Value;

use crate::common::{Run, World, able};

fn findings(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

fn verdict<'a>(value: &'a Value, name: &str) -> &'a str {
    let all = value["Findings"].as_array().unwrap();
    all.iter().find(|finding| finding["name"] == name).unwrap_or_else(|| panic!("{name}: {value}"))["verdict"].as_str().unwrap()
}

#[test]
fn root_is_told_what_there_is() {
    if !able(&[]) {
        return;
    }
    let world = World::new();
    let is_mounted = || std::fs::read_to_string("/proc/self/mountinfo").unwrap().contains(world.path("").to_str().unwrap());
    let plain = world.strake(["doctor"]).ok().stdout;
    assert!(
        plain.contains("overlayfs") && plain.contains("kernel") && plain.trim_end().ends_with("builds and containers work here"),
        "{plain}"
    );
    let value = findings(&world.strake(["doctor", "--format", "json"]).ok().stdout);
    assert_eq!((value["Works"].as_bool(), value["Rootless"].as_bool()), (Some(true), Some(false)));
    for name in ["kernel", "namespaces", "overlayfs", "seccomp", "store", "store's file system"] {
        assert_eq!(verdict(&value, name), "ok", "{name}: {value}");
    }
    assert!(!world.root().exists(), "looking makes no store");
    assert!(!is_mounted(), "looking leaves no mount");
    // What is wrong has a command that mends it.
    std::fs::write(world.path("docker/config.json"), "{").unwrap();
    let value = findings(&world.strake(["doctor", "--format", "json"]).ok().stdout);
    assert_eq!(verdict(&value, "registries"), "warn");
    for finding in value["Findings"].as_array().unwrap() {
        assert_eq!(finding["verdict"] != "ok", finding["fix"].is_string(), "{finding}");
    }
    let bad = world.strake(["doctor", "--root", "/proc/nowhere"]).fails();
    assert!(bad.code == 1 && bad.stdout.contains("missing"), "{bad}");
}

#[test]
fn another_user_is_told_of_subordinate_ids_and_namespaces() {
    if !able(&["setpriv"]) {
        return;
    }
    let world = World::new();
    let binary = world.short().join("strake");
    std::fs::copy(env!("CARGO_BIN_EXE_strake"), &binary).unwrap();
    let allow = |mode| std::os::unix::fs::PermissionsExt::from_mode(mode);
    std::fs::set_permissions(world.short(), allow(0o755)).unwrap();
    let root = world.short().join("root");
    std::fs::create_dir(&root).unwrap();
    std::fs::set_permissions(&root, allow(0o777)).unwrap();
    let args = [
        "--reuid",
        "64000",
        "--regid",
        "64000",
        "--clear-groups",
        binary.to_str().unwrap(),
        "--root",
        root.to_str().unwrap(),
        "doctor",
        "--format",
        "json",
    ];
    let done = Run::new("setpriv", args).run();
    let value = findings(&done.stdout);
    assert_eq!(value["Rootless"], true);
    // Nobody has given that number any.
    assert_eq!(verdict(&value, "subordinate ids"), "warn", "{value}");
    assert_eq!(done.code == 0, value["Works"] == true, "{done}");
    assert_eq!(std::fs::read_dir(&root).unwrap().count(), 0);
}
