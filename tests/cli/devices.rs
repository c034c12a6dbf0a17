//! Devices of containers and steps: for some uses only, by rules, and by the names that CDI specifications give them.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use crate::common::{Done, Nobody, World, able, world};

fn run(world: &World, flags: &[&str], script: &str) -> Done {
    let mut args = vec!["run", "--rm", "--network", "host"];
    args.extend(flags);
    args.extend(["localhost/busybox", "sh", "-c", script]);
    world.strake(args).run()
}

/// A specification where this machine has them, gone after the test.
struct Described {
    path: PathBuf,
    kind: String,
}

impl Described {
    fn new(name: &str, extension: &str, text: &str) -> Described {
        let kind = format!("strake-test-{name}-{}.example/thing", std::process::id());
        std::fs::create_dir_all("/etc/cdi").unwrap();
        let path = PathBuf::from(format!("/etc/cdi/strake-test-{name}-{}.{extension}", std::process::id()));
        std::fs::write(&path, text.replace("KIND", &kind)).unwrap();
        Described { path, kind }
    }

    fn device(&self, name: &str) -> String {
        format!("{}={name}", self.kind)
    }
}

impl Drop for Described {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
        // Others may have some of their own there.
        let _ = std::fs::remove_dir("/etc/cdi");
    }
}

/// A device of every machine that can mount files, which containers do not have by default.
const CONTROL: &str = "/dev/loop-control";

#[test]
fn a_device_can_be_given_for_reading_alone() {
    let Some(world) = world() else { return };
    let script = "(: < /dev/given) && echo read; (: > /dev/given) 2>/dev/null || echo sealed; echo x > /dev/null && echo usual";
    let given = |access: &str| format!("{CONTROL}:/dev/given:{access}");
    let done = run(&world, &["--device", &given("r")], script);
    assert_eq!(done.stdout, "read\nsealed\nusual\n", "{done}");
    let done = run(&world, &["--device", &given("rw")], script);
    assert_eq!(done.stdout, "read\nusual\n", "{done}");
    world.strake(["create", "--name", "c", "--device", &given("r"), "localhost/busybox", "true"]).ok();
    let said = world.strake(["inspect", "--format", "{{(index .HostConfig.Devices 0).CgroupPermissions}}", "c"]).ok().stdout;
    assert_eq!(said, "r\n");
    for (device, expected) in [("/dev/there-is-none", "/dev/there-is-none"), ("/etc/passwd:/dev/x", "not a device")] {
        run(&world, &["--device", device], "true").says(&[expected]);
    }
}

#[test]
fn rules_let_a_container_use_nodes_that_it_makes() {
    let Some(world) = world() else { return };
    let script = "for d in /dev /root; do mkdir -p $d; mknod $d/own c 10 237; (: < $d/own) && echo read; (: > $d/own) 2>/dev/null || echo sealed; done
                  mknod /dev/other c 1 11; (: < /dev/other) 2>/dev/null || echo kept; echo x > /dev/null && echo usual";
    let done = run(&world, &["--device-cgroup-rule", "c 10:237 r"], script);
    assert_eq!(done.stdout, "read\nsealed\nread\nsealed\nkept\nusual\n", "{done}");
    let without = run(&world, &[], "mknod /dev/own c 10 237; (: < /dev/own) 2>/dev/null || echo kept");
    assert_eq!(without.stdout, "kept\n", "{without}");
    for rule in ["c 1:5", "x 1:5 r", "c 1:5 rwx"] {
        assert_ne!(run(&world, &["--device-cgroup-rule", rule], "true").code, 0, "{rule}");
    }
    world.strake(["create", "--name", "c", "--device-cgroup-rule", "b *:* r", "localhost/busybox", "true"]).ok();
    let said = world.strake(["inspect", "--format", "{{json .HostConfig.DeviceCgroupRules}}", "c"]).ok().stdout;
    assert_eq!(said, "[\"b *:* r\"]\n");
}

const YAML: &str = "cdiVersion: 0.6.0
kind: KIND
containerEdits:
  env: [OF_ALL=yes]
devices:
- name: one
  containerEdits:
    env: [\"GREETING=hello there\", PATH=/bin]
    additionalGids: [4711]
    deviceNodes:
    - {path: /dev/things/nought, hostPath: /dev/zero}
    - {path: /dev/things/mine, hostPath: /dev/null, fileMode: 416, uid: 7, gid: 8}
    mounts:
    - {hostPath: /etc/hostname, containerPath: /opt/thing/file, options: [ro, bind]}
- name: broken
  containerEdits:
    intelRdt: {closID: x}
";

#[test]
fn a_device_by_name_brings_what_its_specification_says() {
    let Some(world) = world() else { return };
    let things = Described::new("yaml", "yaml", YAML);
    let one = things.device("one");
    let script = "echo $OF_ALL $GREETING $PATH; id -G | grep -o 4711; head -c 2 /dev/things/nought | wc -c; stat -c '%a %u %g' /dev/things/mine
                  echo x > /dev/things/mine && echo taken; cmp /opt/thing/file /host && echo same; (echo x > /opt/thing/file) 2>/dev/null || echo sealed";
    let done = run(&world, &["--device", &one, "-v", "/etc/hostname:/host:ro", "-e", "GREETING=x"], script);
    assert_eq!(done.stdout, "yes hello there /bin\n4711\n2\n640 7 8\ntaken\nsame\nsealed\n", "{done}");
    assert!(!world.strake(["run", "--rm", "--device", &one, "localhost/busybox", "true"]).ok().stderr.contains("error"));
    world.strake(["create", "--name", "c", "--device", &one, "localhost/busybox", "true"]).ok();
    let said = world.strake(["inspect", "--format", "{{json .HostConfig.DeviceRequests}}", "c"]).ok().stdout;
    assert!(said.contains(&one) && said.contains("\"cdi\""), "{said}");
    assert_eq!(world.strake(["diff", "c"]).ok().stdout, "");
    run(&world, &["--device", &things.device("broken")], "true").says(&["Intel RDT"]);
    run(&world, &["--device", &things.device("two")], "true").says(&["there is no device", "there are:", &one]);
    run(&world, &["--device", "no-such.example/thing=x"], "true").says(&["there is no device", "/etc/cdi"]);
}

#[test]
fn gpus_are_those_that_a_specification_describes() {
    let Some(world) = world() else { return };
    if std::fs::exists("/etc/cdi/nvidia.yaml").unwrap_or(false) || std::fs::exists("/var/run/cdi/nvidia.yaml").unwrap_or(false) {
        return eprintln!("skipped: this machine has GPUs");
    }
    run(&world, &["--gpus", "all"], "true").says(&["nvidia.com/gpu=all", "nvidia-ctk cdi generate"]);
    run(&world, &["--gpus", "\"device=3\""], "true").says(&["nvidia.com/gpu=3"]);
    run(&world, &["--gpus", "all,capabilities=utility"], "true").says(&["capabilities=utility", "leave it out"]);
}

#[test]
fn hooks_of_a_device_are_run() {
    let Some(world) = world() else { return };
    let (seen, program) = (world.path("seen"), world.path("hook"));
    std::fs::write(&program, format!("#!/bin/sh\n{{ echo $1 $WHO; cat; }} > {}\n", seen.display())).unwrap();
    std::fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let text = serde_json::json!({
        "cdiVersion": "0.5.0",
        "kind": "KIND",
        "devices": [{ "name": "x", "containerEdits": {
            "env": ["A=b"],
            "hooks": [{ "hookName": "createRuntime", "path": program, "args": ["hook", "first"], "env": ["WHO=me"] }],
        }}],
    });
    let things = Described::new("hooks", "json", &text.to_string());
    let done = run(&world, &["--device", &things.device("x")], "echo $A; exit 3");
    assert_eq!((done.stdout.as_str(), done.code), ("b\n", 3), "{done}");
    let said = std::fs::read_to_string(&seen).unwrap();
    assert!(said.starts_with("first me\n") && said.contains("\"bundle\""), "{said}");
    let text = format!("FROM localhost/busybox\nRUN --device={},required true\n", things.device("x"));
    world.build(&text, &["--allow", "device"]).fails().says(&["hooks"]);
}

#[test]
fn a_step_gets_the_devices_that_it_may_have() {
    let Some(world) = world() else { return };
    let things = Described::new("step", "yaml", YAML);
    let (one, other) = (things.device("one"), things.device("other"));
    let step = |device: &str| {
        format!("FROM localhost/busybox\nRUN --device={device} echo got-$OF_ALL && (head -c 2 /dev/things/nought | wc -c) || echo none\n")
    };
    let text = step(&format!("{one},required"));
    world.build(&text, &[]).fails().says(&["Dockerfile:2:", "needs the entitlement", &format!("--allow device={one}")]);
    for allowed in ["device".to_owned(), format!("device={one}"), format!("device={}", things.kind)] {
        world.build(&text, &["--no-cache", "--allow", &allowed]).ok().says(&["got-yes\n", " 2\n"]);
    }
    world.build(&step(&other), &["--allow", "device"]).ok().says(&["got-\n"]);
    world.build(&step(&format!("{other},required")), &["--allow", "device"]).fails().says(&["there is no device", &one]);
    // What is there belongs to no layer.
    let image = world.image(&text, &["--allow=device"]);
    assert!(image.layers[1].is_empty(), "{:?}", image.layers[1].keys());
}

#[test]
fn without_root_a_device_is_none_that_it_is_not() {
    if !able(&["setpriv"]) {
        return;
    }
    let world = World::new();
    let Some(nobody) = Nobody::of(&world) else { return };
    let strake = |args: &[&str]| nobody.strake(args);
    let node = |more: &str| format!("\n  containerEdits:\n    deviceNodes:\n    - {{path: /dev/given, hostPath: /dev/zero{more}}}\n");
    let text = [("same", ", type: c, major: 1, minor: 5"), ("any", ""), ("owned", ", uid: 7"), ("other", ", type: c, major: 1, minor: 3")]
        .map(|(name, more)| format!("- name: {name}{}", node(more)))
        .concat();
    let things = Described::new("rootless", "yaml", &format!("cdiVersion: 0.6.0\nkind: KIND\ndevices:\n{text}"));
    std::fs::set_permissions(&things.path, PermissionsExt::from_mode(0o644)).unwrap();
    let run = |name: &str| {
        let device = things.device(name);
        strake(&["run", "--rm", "--network", "none", "--device", &device, "localhost/busybox", "sh", "-c", "head -c 2 /dev/given | wc -c"])
            .run()
    };
    for name in ["same", "any", "owned"] {
        let done = run(name);
        assert_eq!((done.code, done.stdout.as_str()), (0, "2\n"), "{name}: {done}");
    }
    let done = run("other");
    assert_eq!(done.code, 125, "{done}");
    done.says(&["cannot give the device `/dev/zero`", "c 1:3", "c 1:5", "only root can make device nodes"]);
}
