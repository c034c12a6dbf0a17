//! AppArmor: the profile that containers and steps are in. Where the kernel has none, most of it cannot be seen: then only what is refused is tested.

use crate::common::{Done, World, able, world};

fn run(world: &World, flags: &[&str], script: &str) -> Done {
    let mut args = vec!["run", "--rm", "--network", "none"];
    args.extend(flags);
    args.extend(["localhost/busybox", "sh", "-c", script]);
    world.strake(args).run()
}

/// Whether this kernel has AppArmor. No machine can be given it by installing something, so nowhere is its lack a failure.
fn there() -> bool {
    let there = std::fs::read("/sys/module/apparmor/parameters/enabled").is_ok_and(|text| text.starts_with(b"Y"));
    if !there {
        eprintln!("skipped: this kernel has no AppArmor");
    }
    there
}

const OWN: &str = "cat /proc/self/attr/current";

#[test]
fn a_profile_that_is_not_there_is_refused_and_none_is_always_to_be_had() {
    let Some(world) = world() else { return };
    for flags in [&["--security-opt", "apparmor=there-is-no-such-profile"][..], &["--privileged", "--security-opt", "apparmor:no-such"]] {
        let done = run(&world, flags, "true");
        assert_eq!(done.code, 125, "{done}");
        done.says(&["cannot enter the AppArmor profile", "hint:"]);
    }
    let text = "FROM localhost/busybox\nRUN true\n";
    world.build(text, &["--security-opt", "apparmor=there-is-no-such-profile"]).fails().says(&["AppArmor profile"]);
    world.build(text, &["--security-opt", "apparmor=unconfined"]).ok().omits(&["no effect"]);
    assert_eq!(run(&world, &["--security-opt", "apparmor=unconfined"], "true").code, 0);
}

#[test]
fn containers_and_steps_are_in_our_profile_unless_another_is_asked_for() {
    let Some(world) = world() else { return };
    if !there() || !able(&["apparmor_parser"]) {
        return;
    }
    let own = "strake-default (enforce)\n";
    for (flags, expected) in [
        (&[][..], own),
        (&["--user", "1000", "--security-opt", "no-new-privileges"], own),
        (&["--userns", "auto"], own),
        (&["--pid", "host"], own),
        (&["--security-opt", "apparmor=unconfined"], "unconfined\n"),
        (&["--privileged"], "unconfined\n"),
        (&["--privileged", "--security-opt", "apparmor=strake-default"], own),
    ] {
        let done = run(&world, flags, OWN);
        assert_eq!(done.stdout, expected, "{flags:?}: {done}");
    }
    // The init of `--init` is in it as well, so that both may signal each other.
    let done = run(&world, &["--init"], "cat /proc/1/attr/current; kill -0 1 && echo heard");
    assert_eq!(done.stdout, format!("{own}heard\n"), "{done}");
    let text = "FROM localhost/busybox\nRUN cat /proc/self/attr/current\n";
    world.build(text, &["--no-cache"]).ok().says(&["strake-default (enforce)"]);
    world.build(text, &["--no-cache", "--security-opt", "apparmor=unconfined"]).ok().says(&[" unconfined\n"]);
    let insecure = "FROM localhost/busybox\nRUN --security=insecure cat /proc/self/attr/current\n";
    world.build(insecure, &["--no-cache", "--allow", "security.insecure"]).ok().says(&[" unconfined\n"]);
}

#[test]
fn a_container_in_our_profile_is_stopped_entered_and_shown() {
    let Some(world) = world() else { return };
    if !there() || !able(&["apparmor_parser"]) {
        return;
    }
    world
        .strake(["run", "-d", "--name", "c", "--network", "host", "localhost/busybox", "sh", "-c", "trap 'exit 7' TERM; sleep 1000 & wait"])
        .ok();
    assert_eq!(world.strake(["inspect", "--format", "{{.AppArmorProfile}}", "c"]).ok().stdout, "strake-default\n");
    for flags in [&["exec"][..], &["exec", "--privileged"]] {
        let args = flags.iter().chain(&["c", "sh", "-c", OWN]);
        assert_eq!(world.strake(args).ok().stdout, "strake-default (enforce)\n");
    }
    // Processes of a container may signal each other, and the machine may signal them.
    world.strake(["exec", "c", "sh", "-c", "kill -0 1"]).ok();
    world.strake(["stop", "c"]).ok();
    assert_eq!(world.strake(["wait", "c"]).ok().stdout, "7\n");
    world.strake(["create", "--name", "p", "--privileged", "localhost/busybox", "true"]).ok();
    assert_eq!(world.strake(["inspect", "--format", "{{.AppArmorProfile}}", "p"]).ok().stdout, "unconfined\n");
    assert!(world.strake(["info", "--format", "{{json .SecurityOptions}}"]).ok().stdout.contains("name=apparmor"));
}

#[test]
fn our_profile_keeps_from_mounting_and_from_what_is_the_whole_machines() {
    let Some(world) = world() else { return };
    if !there() || !able(&["apparmor_parser"]) {
        return;
    }
    let script = "mkdir /m; mount -t tmpfs none /m 2>/dev/null || echo kept
                  (echo 1 > /proc/sys/kernel/panic) 2>/dev/null || echo kept
                  (echo h > /proc/sysrq-trigger) 2>/dev/null || echo kept
                  (echo 0 > /sys/kernel/mm/ksm/run) 2>/dev/null || echo kept
                  cat /sys/kernel/security/lsm 2>/dev/null || echo kept
                  echo 5000 > /proc/sys/kernel/shmmni && echo own; echo x > /tmp/x && echo own; echo 5 > /proc/self/oom_score_adj && echo own";
    let flags = ["--cap-add", "ALL", "--security-opt", "systempaths=unconfined", "--tmpfs", "/tmp"];
    let done = run(&world, &flags, script);
    assert_eq!(done.stdout, "kept\nkept\nkept\nkept\nkept\nown\nown\nown\n", "{done}");
    // It is the profile that does: without it the same is possible.
    let free: Vec<&str> = flags.into_iter().chain(["--security-opt", "apparmor=unconfined"]).collect();
    assert_eq!(run(&world, &free, "mkdir /m; mount -t tmpfs none /m && echo mounted").stdout, "mounted\n");
}
