//! `strake oci`: what the OCI runtime specification promises of a runtime, checked from outside.
//!
//! The verbs are called as engines call them, on bundles of our own. What is expected comes from the specification's text and, where that is silent, from what runc does.

use std::path::Path;

use serde_json::{Value, json};

use crate::common::bundle::bundle;
use crate::common::terminal::Terminal;
use crate::common::{Run, groups, unable, wait_for};

#[test]
fn a_container_lives_as_the_specification_says() {
    let Some(mut bundle) = bundle("echo ran >> /ran; exec sleep 1000") else { return };
    bundle.config["root"]["readonly"] = json!(false);
    bundle.config["annotations"] = json!({"com.example.key": "value"});
    let pid_file = bundle.world.path("pid");
    let done = bundle.create("life", &["--pid-file", pid_file.to_str().unwrap()]);
    assert_eq!(done.code, 0, "{done}");

    // Created: the process is there, and has run nothing.
    let state = bundle.state("life");
    assert_eq!(
        (&state["id"], &state["status"], &state["annotations"]["com.example.key"]),
        (&json!("life"), &json!("created"), &json!("value"))
    );
    assert_eq!(state["bundle"], json!(bundle.dir().canonicalize().unwrap()));
    assert!(state["ociVersion"].as_str().unwrap().starts_with("1."));
    let pid = state["pid"].as_u64().unwrap();
    assert_eq!(std::fs::read_to_string(&pid_file).unwrap(), pid.to_string());
    assert!(Path::new(&format!("/proc/{pid}")).exists() && !bundle.rootfs("ran").exists());
    let again = bundle.create("life", &[]);
    assert_eq!(again.code, 1);
    again.says(&["`life` exists already"]);
    bundle.oci(&["delete", "life"]).fails().says(&["cannot delete the container `life`: it is created"]);

    // What happens to the document from now on does not matter.
    bundle.config["process"]["args"] = json!(["nothing"]);
    bundle.save();
    bundle.oci(&["start", "life"]).ok();
    wait_for("the command", 60, || bundle.rootfs("ran").exists());
    assert_eq!((bundle.status("life").as_str(), bundle.state("life")["pid"].as_u64()), ("running", Some(pid)));
    bundle.oci(&["start", "life"]).fails().says(&["it is running"]);
    bundle.oci(&["delete", "life"]).fails().says(&["it is running"]);
    assert_eq!(std::fs::read_to_string(bundle.rootfs("ran")).unwrap(), "ran\n", "once, whoever asks");

    bundle.oci(&["kill", "life", "KILL"]).ok();
    wait_for("the end", 60, || bundle.status("life") == "stopped");
    bundle.oci(&["kill", "life"]).fails().says(&["container not running"]);
    bundle.oci(&["start", "life"]).fails().says(&["it is stopped"]);
    bundle.oci(&["exec", "life", "true"]).fails();
    bundle.oci(&["delete", "life"]).ok();
    bundle.is_gone("life");
    bundle.oci(&["delete", "life"]).fails().says(&["does not exist"]);
    bundle.oci(&["delete", "--force", "life"]).ok();
    for id in ["", "a/b", "..", "a b"] {
        assert_eq!(bundle.create(id, &[]).code, 1, "{id:?}");
    }
}

#[test]
fn a_container_that_only_was_made_can_be_killed_and_removed() {
    let Some(bundle) = bundle("true") else { return };
    bundle.created("k1");
    bundle.oci(&["kill", "k1", "TERM"]).ok();
    wait_for("the end", 60, || bundle.status("k1") == "stopped");
    bundle.oci(&["delete", "k1"]).ok();
    bundle.is_gone("k1");
    bundle.created("k2");
    let list: Value = serde_json::from_str(&bundle.oci(&["list", "--format", "json"]).ok().stdout).unwrap();
    assert_eq!((&list[0]["id"], &list[0]["status"]), (&json!("k2"), &json!("created")));
    bundle.oci(&["delete", "--force", "k2"]).ok();
    bundle.is_gone("k2");
}

#[test]
fn a_container_with_a_damaged_record_is_removed_with_its_process() {
    let Some(bundle) = bundle("exec sleep 1000") else { return };
    bundle.created("damaged");
    bundle.oci(&["start", "damaged"]).ok();
    let pid = bundle.state("damaged")["pid"].as_u64().unwrap();
    let path = bundle.world.path("oci").join("damaged/state.json");
    let mut record: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    record["owner"] = json!("somebody");
    std::fs::write(&path, record.to_string()).unwrap();
    bundle.oci(&["delete", "damaged"]).fails();
    bundle.oci(&["delete", "--force", "damaged"]).ok();
    // Whose parent does not ask for its end is still listed.
    let state = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    assert!(state.is_empty() || state.contains(") Z "), "{state}");
    bundle.is_gone("damaged");
}

#[test]
fn hooks_run_in_their_order_where_they_belong() {
    let Some(mut bundle) = bundle("echo command >> /log") else { return };
    bundle.config["root"]["readonly"] = json!(false);
    let log = bundle.rootfs("log");
    let hook = |name: &str, log: &str| {
        let script = format!(
            "state=$(cat); echo {name} $(echo \"$state\" | grep -o '\"status\":\"[a-z]*\"') $(readlink /proc/self/ns/mnt) $A $(pwd -P) $(ls dev 2>/dev/null | grep -c '^null$') >> {log}"
        );
        json!([{"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["A=only", "PATH=/bin:/usr/bin"], "timeout": 60}])
    };
    let host = log.to_str().unwrap().to_owned();
    bundle.config["hooks"] = json!({
        "prestart": hook("prestart", &host),
        "createRuntime": hook("createRuntime", &host),
        "createContainer": hook("createContainer", &host),
        "startContainer": hook("startContainer", "/log"),
        "poststart": hook("poststart", &host),
        "poststop": hook("poststop", &host),
    });
    bundle.created("hooks");
    let said = |from: usize| std::fs::read_to_string(&log).unwrap_or_default().lines().skip(from).map(str::to_owned).collect::<Vec<_>>();
    let own = std::fs::read_link("/proc/self/ns/mnt").unwrap().to_str().unwrap().to_owned();
    let pid = bundle.state("hooks")["pid"].as_u64().unwrap();
    let inner = std::fs::read_link(format!("/proc/{pid}/ns/mnt")).unwrap().to_str().unwrap().to_owned();
    let root = log.parent().unwrap().canonicalize().unwrap();
    let (root, directory) = (root.to_str().unwrap(), root.parent().unwrap().to_str().unwrap());
    // Those of the moment in which the container has its mounts and not yet its root are where that is, with all that is mounted there.
    let line = |name: &str, status: &str, ns: &str, place: &str| {
        let mounted = u8::from(name.ends_with("Container"));
        format!("{name} \"status\":\"{status}\" {ns} only {place} {mounted}")
    };
    let expected = [
        line("prestart", "creating", &own, directory),
        line("createRuntime", "creating", &own, directory),
        line("createContainer", "creating", &inner, root),
    ];
    assert_eq!(said(0), expected);
    bundle.oci(&["start", "hooks"]).ok();
    wait_for("the end", 60, || bundle.status("hooks") == "stopped");
    let mut rest = said(3);
    assert_eq!(rest.remove(0), line("startContainer", "created", &inner, "/"));
    // The command runs while the next hooks do.
    rest.retain(|line| line != "command");
    assert!(rest.len() == 1 && rest[0].starts_with("poststart \"status\":\""), "{rest:?}");
    bundle.oci(&["delete", "hooks"]).ok();
    assert_eq!(said(0).last(), Some(&line("poststop", "stopped", &own, directory)));
}

#[test]
fn a_hook_that_fails_ends_what_it_belongs_to() {
    let Some(mut bundle) = bundle("echo ran") else { return };
    for (moment, says) in
        [("prestart", "prestart hook"), ("createRuntime", "createRuntime hook"), ("createContainer", "createContainer hook")]
    {
        let after = bundle.world.path(moment);
        let notes = json!([{"path": "/bin/sh", "args": ["sh", "-c", format!("cat > {}", after.display())]}]);
        let fails = json!([{"path": "/bin/sh", "args": ["sh", "-c", "echo because >&2; exit 7"]}]);
        bundle.config["hooks"] = json!({moment: fails, "poststop": notes});
        let done = bundle.create("failing", &[]);
        assert_eq!(done.code, 1, "{done}");
        done.says(&[says, "it exited with 7", "because"]);
        bundle.is_gone("failing");
        // Who takes back what hooks have made is called all the same.
        let state: Value = serde_json::from_str(&std::fs::read_to_string(after).unwrap()).unwrap();
        assert_eq!((state["id"].as_str(), state["status"].as_str()), (Some("failing"), Some("stopped")));
    }
    bundle.config["hooks"] = json!({"createRuntime": [{"path": "/bin/sleep", "args": ["sleep", "100"], "timeout": 1}]});
    bundle.create("failing", &[]).says(&["ran longer than 1 s"]);
    bundle.is_gone("failing");
    bundle.config["hooks"] = json!({"startContainer": [{"path": "/bin/false"}]});
    bundle.created("failing");
    bundle.oci(&["start", "failing"]).fails().says(&["startContainer hook", "it exited with 1"]);
    wait_for("the end", 60, || bundle.status("failing") == "stopped");
    assert!(!bundle.output().lines().any(|line| line == "ran"), "the command has not run");
    bundle.oci(&["delete", "failing"]).ok();
    // Those after the start are only told of.
    bundle.config["hooks"] = json!({"poststart": [{"path": "/bin/false"}], "poststop": [{"path": "/bin/false"}]});
    bundle.created("warned");
    bundle.oci(&["start", "warned"]).ok().says(&["poststart hook"]);
    bundle.oci(&["delete", "--force", "warned"]).ok().says(&["poststop hook"]);
    bundle.is_gone("warned");
}

#[test]
fn hooks_that_name_no_environment_have_the_callers_or_inside_the_commands() {
    let Some(mut bundle) = bundle("true") else { return };
    bundle.config["root"]["readonly"] = json!(false);
    bundle.config["process"]["env"] = json!(["PATH=/bin", "OF_COMMAND=yes"]);
    let log = bundle.rootfs("log").to_str().unwrap().to_owned();
    let hook = |log: &str| json!([{"path": "/bin/sh", "args": ["sh", "-c", format!("echo $OF_COMMAND $OF_CALLER >> {log}")]}]);
    bundle.config["hooks"] = json!({"createRuntime": hook(&log), "startContainer": hook("/log")});
    bundle.save();
    bundle.oci(&["run", "--bundle", bundle.dir().to_str().unwrap(), "env"]).env("OF_CALLER", "caller").ok();
    assert_eq!(std::fs::read_to_string(&log).unwrap(), "caller\nyes\n");
}

#[test]
fn limits_hold_can_be_changed_and_leave_nothing() {
    let Some(mut bundle) = bundle("exec sleep 1000") else { return };
    let id = format!("limits-{}", std::process::id());
    bundle.config["linux"]["cgroupsPath"] = json!(format!("/strake-tests/{id}"));
    bundle.config["linux"]["resources"] = json!({
        "memory": {"limit": 32 << 20, "reservation": 16 << 20},
        "cpu": {"shares": 512, "quota": 50_000, "period": 100_000},
        "pids": {"limit": 20},
        "devices": [{"allow": false, "access": "rwm"}, {"allow": true, "type": "c", "major": 1, "minor": 11, "access": "r"}],
    });
    bundle.created(&id);
    bundle.oci(&["start", &id]).ok();
    let places = groups(&id);
    assert!(!places.is_empty());
    let read = |files: [&str; 2]| {
        let found = places.iter().flat_map(|dir| files.map(|file| dir.join(file))).find(|path| path.exists()).unwrap();
        std::fs::read_to_string(found).unwrap().trim().to_owned()
    };
    assert_eq!(read(["memory.limit_in_bytes", "memory.max"]), (32 << 20).to_string());
    assert_eq!(read(["pids.max", "pids.max"]), "20");
    assert!(["50000", "50000 100000"].contains(&read(["cpu.cfs_quota_us", "cpu.max"]).as_str()));
    // A device that no rule allows cannot be opened, whoever makes it.
    bundle.config["process"]["capabilities"] = json!(null);
    let made = bundle
        .oci(&["exec", "--cap", "CAP_MKNOD", &id, "sh", "-c", "mknod /dev/shm/kmsg c 1 11; mknod /dev/kmem c 1 2; cat /dev/kmem"])
        .fails();
    assert!(made.stderr.contains("Operation not permitted"), "{made}");
    std::fs::write(bundle.world.path("resources"), json!({"memory": {"limit": 64 << 20}}).to_string()).unwrap();
    bundle.oci(&["update", "--resources", "resources", &id]).ok();
    bundle.oci(&["update", "--pids-limit", "30", &id]).ok();
    assert_eq!((read(["memory.limit_in_bytes", "memory.max"]), read(["pids.max", "pids.max"])), ((64 << 20).to_string(), "30".to_owned()));
    let stats: Value = serde_json::from_str(&bundle.oci(&["events", "--stats", &id]).ok().stdout).unwrap();
    assert_eq!((&stats["data"]["pids"]["limit"], &stats["data"]["memory"]["usage"]["limit"]), (&json!(30), &json!(64 << 20)));
    let ps: Vec<u64> = serde_json::from_str(&bundle.oci(&["ps", "--format", "json", &id]).ok().stdout).unwrap();
    assert_eq!(ps, [bundle.state(&id)["pid"].as_u64().unwrap()]);
    bundle.oci(&["pause", &id]).ok();
    assert_eq!(bundle.status(&id), "paused");
    bundle.oci(&["exec", &id, "true"]).fails().says(&["paused"]);
    bundle.oci(&["resume", &id]).ok();
    assert_eq!(bundle.status(&id), "running");
    bundle.oci(&["pause", &id]).ok();
    bundle.oci(&["delete", "--force", &id]).ok();
    bundle.is_gone(&id);
}

#[test]
fn a_create_that_is_killed_leaves_what_delete_removes() {
    let Some(mut bundle) = bundle("true") else { return };
    bundle.config["hooks"] = json!({"createRuntime": [{"path": "/bin/sleep", "args": ["sleep", "1000"]}]});
    bundle.save();
    for force in [true, false] {
        let flags = ["create", "--bundle", bundle.dir().to_str().unwrap(), "cut"].map(str::to_owned);
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        let mut create = bundle.oci(&flags).start();
        wait_for("the hook", 60, || Run::new("pgrep", ["-P", &create.id().to_string(), "-f", "sleep 1000"]).run().code == 0);
        assert_eq!(bundle.status("cut"), "creating");
        bundle.oci(&["start", "cut"]).fails().says(&["it is creating"]);
        let inner = Run::new("pgrep", ["-P", &create.id().to_string()]).ok().stdout;
        if !force {
            create.kill().unwrap();
            create.wait().unwrap();
            // The hook is the host's; what was to become the container is gone.
            let left = || {
                inner
                    .split_whitespace()
                    .filter(|pid| {
                        std::fs::read_to_string(format!("/proc/{pid}/stat"))
                            .is_ok_and(|stat| stat.contains("(strake) ") && !stat.contains(") Z "))
                    })
                    .count()
            };
            wait_for("the container's processes", 60, || left() == 0);
            assert_eq!(bundle.status("cut"), "stopped");
            bundle.oci(&["delete", "cut"]).ok();
        } else {
            bundle.oci(&["delete", "--force", "cut"]).ok();
            create.wait().unwrap();
        }
        for pid in inner
            .split_whitespace()
            .filter(|pid| std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim() == "sleep"))
        {
            Run::new("kill", [pid]).run();
        }
        bundle.is_gone("cut");
    }
    // Before it said anything at all, and after something damaged what it said.
    std::fs::create_dir_all(bundle.world.path("oci/empty")).unwrap();
    bundle.oci(&["delete", "--force", "empty"]).ok();
    bundle.config["hooks"] = json!({});
    bundle.created("damaged");
    let pid = bundle.state("damaged")["pid"].as_u64().unwrap();
    std::fs::write(bundle.world.path("oci/damaged/state.json"), "{").unwrap();
    bundle.oci(&["delete", "--force", "damaged"]).ok();
    Run::new("kill", ["-9", &pid.to_string()]).run();
    assert!(!bundle.world.path("oci/damaged").exists());
    for path in groups("damaged") {
        wait_for("its group to be empty", 60, || std::fs::remove_dir(&path).is_ok());
    }
}

#[test]
fn commands_are_executed_in_a_running_container() {
    let Some(mut bundle) = bundle("exec sleep 1000") else { return };
    bundle.config["process"]["noNewPrivileges"] = json!(false);
    bundle.created("e");
    bundle.oci(&["start", "e"]).ok();
    let done = bundle
        .oci(&[
            "exec",
            "--cwd",
            "/tmp",
            "--user",
            "7:8",
            "--env",
            "A=b",
            "e",
            "sh",
            "-c",
            "pwd; id -u; id -g; echo $A; cat /proc/1/comm; exit 9",
        ])
        .run();
    assert_eq!((done.code, done.stdout.as_str()), (9, "/tmp\n7\n8\nb\nsleep\n"), "{done}");
    assert_eq!(bundle.oci(&["exec", "e", "cat"]).stdin("through a pipe").ok().stdout, "through a pipe");
    let missing = bundle.oci(&["exec", "e", "nothing-there"]).run();
    assert_eq!(missing.code, 255);
    missing.says(&["executable file not found in $PATH"]);
    let gains =
        |flags: &[&str]| bundle.oci(&[&["exec"][..], flags, &["e", "grep", "NoNewPrivs", "/proc/self/status"]].concat()).ok().stdout;
    assert_eq!(gains(&[]), "NoNewPrivs:\t0\n");
    assert_eq!(gains(&["--no-new-privs"]), "NoNewPrivs:\t1\n");
    // What confines it is named, and is there.
    bundle.oci(&["exec", "--apparmor", "no-such-profile", "e", "true"]).fails().says(&["`no-such-profile`", "apparmorProfile"]);
    if !Path::new("/sys/fs/selinux/enforce").exists() {
        bundle.oci(&["exec", "--process-label", "a:b:c:s0", "e", "true"]).fails().says(&["`a:b:c:s0`", "SELinux"]);
    }
    // As engines do it: the process in a file, its number in another, and nobody waits.
    let process = json!({"args": ["sh", "-c", "echo $$ > /dev/shm/pid; exec sleep 500"], "cwd": "/", "user": {"uid": 0, "gid": 0}, "env": ["PATH=/bin"]});
    std::fs::write(bundle.world.path("process.json"), process.to_string()).unwrap();
    bundle.oci(&["exec", "--detach", "--process", "process.json", "--pid-file", "exec.pid", "e"]).start().wait().unwrap();
    let pid = std::fs::read_to_string(bundle.world.path("exec.pid")).unwrap();
    wait_for("the command", 60, || {
        std::fs::read_to_string(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.starts_with("sleep\x00500"))
    });
    let pids: Vec<u64> = serde_json::from_str(&bundle.oci(&["ps", "--format", "json", "e"]).ok().stdout).unwrap();
    assert!(pids.contains(&pid.parse().unwrap()), "it is in the container's groups: {pids:?}");
    bundle.oci(&["kill", "--all", "e", "KILL"]).ok();
    wait_for("the end", 60, || bundle.status("e") == "stopped");
}

#[test]
fn further_commands_are_on_the_cpus_that_the_config_names() {
    let Some(mut bundle) = bundle("exec sleep 1000") else { return };
    let cpus = |pid: &str| {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap().trim().to_owned()
    };
    if cpus("self") == "0" {
        return unable("a second CPU");
    }
    bundle.config["process"]["execCPUAffinity"] = json!({"initial": "0", "final": "1"});
    bundle.created("c");
    bundle.oci(&["start", "c"]).ok();
    assert_eq!(cpus(&bundle.state("c")["pid"].to_string()), cpus("self"), "not of the first process");
    let exec = |args: &[&str]| bundle.oci(&["exec"]).arg_all(args).ok().stdout.trim().replace("Cpus_allowed_list:\t", "");
    assert_eq!(exec(&["c", "grep", "Cpus_allowed_list", "/proc/self/status"]), "1");
    let process = json!({"args": ["grep", "Cpus_allowed_list", "/proc/self/status"], "cwd": "/", "env": ["PATH=/bin"], "execCPUAffinity": {"initial": "0"}});
    std::fs::write(bundle.world.path("process.json"), process.to_string()).unwrap();
    assert_eq!(exec(&["--process", "process.json", "c"]), "0");
}

#[test]
fn capabilities_of_further_commands_are_not_inherited() {
    let Some(mut bundle) = bundle("exec sleep 1000") else { return };
    bundle.config["process"]["capabilities"] = json!({});
    bundle.created("caps");
    bundle.oci(&["start", "caps"]).ok();
    let sets = |flags: &[&str]| {
        let done = bundle.oci(&["exec"]).arg_all(flags).arg_all(&["caps", "grep", "^Cap", "/proc/self/status"]).ok();
        let sets = done.stdout.lines().map(|line| line.split_whitespace().last().unwrap().trim_start_matches('0').to_owned());
        (sets.collect::<Vec<_>>(), done.stderr.lines().count())
    };
    assert_eq!(sets(&[]).0, ["", "", "", "", ""]);
    assert_eq!(sets(&["--cap", "CAP_KILL", "--cap", "CAP_AUDIT_WRITE"]).0, ["", "20000020", "20000020", "20000020", ""]);
    assert_eq!(sets(&["--user", "5", "--cap", "CAP_KILL"]).0, ["", "", "", "20", ""]);
    assert_eq!(sets(&["--cap", "NONSENSE"]).1, 1, "what is not known is told once");
}

#[test]
fn further_commands_are_in_the_groups_that_are_named_and_wait_where_all_stands_still() {
    let Some(mut bundle) = bundle("exec sleep 1000") else { return };
    let path = format!("/strake-test-{}/groups", std::process::id());
    bundle.config["linux"]["cgroupsPath"] = json!(path);
    bundle.created("e");
    bundle.oci(&["start", "e"]).ok();
    let own = groups("groups");
    if own.is_empty() {
        return unable("control groups");
    }
    for group in &own {
        let _ = std::fs::create_dir(group.join("below"));
    }
    // On v1 in one hierarchy: groups of others need more before they take processes.
    let is_v1 = Path::new("/sys/fs/cgroup/pids").exists();
    let (below, line) = if is_v1 { ("pids:below", ":pids:") } else { ("below", "0::") };
    let said = bundle.oci(&["exec", "--cgroup", below, "e", "cat", "/proc/self/cgroup"]).ok().stdout;
    let meant: Vec<&str> = said.lines().filter(|group| group.ends_with("/below")).collect();
    assert!(matches!(meant[..], [one] if one.contains(line)), "{said}");
    for (wanted, word) in [("..", "leads upwards"), ("nothing-there", "nothing-there"), ("nonsense:/", "nonsense")] {
        let done = bundle.oci(&["exec", "--cgroup", wanted, "e", "true"]).run();
        assert_eq!(done.code, 255, "{wanted}: {done}");
        done.says(&[word]);
    }
    // A descriptor of it for who asked.
    let socket = bundle.world.short().join("pidfd");
    let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let exec = bundle.oci(&["exec", "--detach", "--pid-file", "pid", "--pidfd-socket", socket.to_str().unwrap(), "e", "sleep", "1000"]);
    assert!(exec.start().wait().unwrap().success());
    let pidfd = receive(&listener.accept().unwrap().0);
    let pid = std::fs::read_to_string(bundle.world.path("pid")).unwrap();
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", std::os::fd::AsRawFd::as_raw_fd(&pidfd))).unwrap();
    assert!(info.contains(&format!("Pid:\t{pid}\n")), "{info}");
    // Not in what stands still, unless it may wait.
    bundle.oci(&["pause", "e"]).ok();
    bundle.oci(&["exec", "e", "true"]).fails().says(&["paused"]);
    let mut waiting = bundle.oci(&["exec", "--ignore-paused", "e", "true"]).start();
    std::thread::sleep(std::time::Duration::from_millis(300));
    assert!(waiting.try_wait().unwrap().is_none());
    bundle.oci(&["resume", "e"]).ok();
    assert!(waiting.wait().unwrap().success());
}

#[test]
fn what_shares_the_hosts_processes_is_killed_whole() {
    let Some(mut bundle) = bundle("sleep 1000 & exec sleep 1000") else { return };
    bundle.config["linux"]["namespaces"].as_array_mut().unwrap().retain(|one| one["type"] != "pid");
    bundle.created("shared");
    bundle.oci(&["start", "shared"]).ok();
    let first = bundle.state("shared")["pid"].as_i64().unwrap();
    let pids = || serde_json::from_str::<Vec<i32>>(&bundle.oci(&["ps", "--format", "json", "shared"]).ok().stdout).unwrap();
    wait_for("both", 60, || pids().len() == 2);
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(first as i32), nix::sys::signal::Signal::SIGKILL).unwrap();
    wait_for("the end of the first", 60, || bundle.status("shared") == "stopped");
    assert_eq!(pids().len(), 1, "the other goes on");
    bundle.oci(&["kill", "shared", "KILL"]).ok();
    wait_for("the end of the other", 60, || pids().is_empty());
    bundle.oci(&["kill", "--all", "shared", "KILL"]).ok();
    bundle.oci(&["kill", "shared", "KILL"]).fails().says(&["not running"]);
}

#[test]
fn others_in_a_group_that_was_there_before_a_container_outlive_it() {
    let Some(mut bundle) = bundle("exec sleep 1000") else { return };
    bundle.config["linux"]["cgroupsPath"] = json!(format!("/strake-test-{}/shared", std::process::id()));
    bundle.config["linux"]["namespaces"].as_array_mut().unwrap().retain(|one| one["type"] != "pid");
    for id in ["earlier", "later"] {
        bundle.created(id);
        bundle.oci(&["start", id]).ok();
    }
    if groups("shared").is_empty() {
        return unable("control groups");
    }
    bundle.oci(&["kill", "later", "KILL"]).ok();
    wait_for("the end of the later one", 60, || bundle.status("later") == "stopped");
    assert_eq!(bundle.status("earlier"), "running");
    bundle.oci(&["kill", "earlier", "KILL"]).ok();
    wait_for("the end of the earlier one", 60, || bundle.status("earlier") == "stopped");
}

#[test]
fn terminals_work_in_the_foreground_and_by_socket() {
    let Some(mut bundle) = bundle("read line; echo got $line; stty size; tty") else { return };
    bundle.config["process"]["terminal"] = json!(true);
    bundle.config["process"]["consoleSize"] = json!({"height": 11, "width": 22});
    let done = bundle.create("t", &[]);
    assert_eq!(done.code, 1);
    done.says(&["--console-socket"]);
    bundle.is_gone("t");
    // By socket, as engines do.
    let path = bundle.world.short().join("console");
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let done = bundle.create("t", &["--console-socket", path.to_str().unwrap()]);
    assert_eq!(done.code, 0, "{done}");
    let master = receive(&listener.accept().unwrap().0);
    bundle.oci(&["start", "t"]).ok();
    rustix::io::write(&master, b"typed\n").unwrap();
    let mut seen = Vec::new();
    let mut buffer = [0; 1024];
    while let Ok(length @ 1..) = rustix::io::read(&master, &mut buffer) {
        seen.extend_from_slice(&buffer[..length]);
    }
    let seen = String::from_utf8(seen).unwrap();
    assert!(seen.ends_with("got typed\r\n11 22\r\n/dev/console\r\n") || seen.ends_with("got typed\r\n11 22\r\n/dev/pts/0\r\n"), "{seen:?}");
    bundle.oci(&["delete", "--force", "t"]).ok();
    // At the user's own terminal.
    bundle.save();
    let mut terminal = Terminal::start(bundle.oci(&["run", "--bundle", bundle.dir().to_str().unwrap(), "u"]), 24, 80);
    terminal.type_in("by hand\n");
    terminal.expect("got by hand");
    assert!(terminal.child.wait().unwrap().success());
    bundle.is_gone("u");
}

/// The descriptor that comes over a connection.
fn receive(stream: &std::os::unix::net::UnixStream) -> std::os::fd::OwnedFd {
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = rustix::net::RecvAncillaryBuffer::new(&mut space);
    let mut bytes = [0; 64];
    rustix::net::recvmsg(stream, &mut [std::io::IoSliceMut::new(&mut bytes)], &mut control, rustix::net::RecvFlags::CMSG_CLOEXEC).unwrap();
    let mut found = control.drain().filter_map(|message| match message {
        rustix::net::RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    });
    found.next().unwrap()
}

#[test]
fn what_cannot_be_is_told_to_the_caller() {
    let Some(mut bundle) = bundle("true") else { return };
    bundle.config["mounts"].as_array_mut().unwrap().insert(0, json!({"destination": "/mnt", "source": "/", "options": ["rbind"]}));
    let original = bundle.config.clone();
    let asking = |path: Value| {
        let rules = json!([{"names": ["sync"], "action": "SCMP_ACT_NOTIFY"}]);
        json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": path, "syscalls": rules})
    };
    let cases: [(&str, Value, &str); 20] = [
        ("/process/scheduler", json!({"policy": "SCHED_FAST"}), "SCHED_FAST"),
        ("/process/ioPriority", json!({"class": "IOPRIO_CLASS_BE", "priority": 9}), "ioPriority"),
        ("/linux/memoryPolicy", json!({"mode": "MPOL_BIND", "nodes": "0-"}), "0-"),
        ("/linux/netDevices", json!({"eth/7": {}}), "eth/7"),
        ("/linux/netDevices", json!({"strake-none": {}}), "No such device"),
        ("/linux/netDevices", json!({"eth7": {"name": "eth0"}, "eth8": {"name": "eth0"}}), "eth8"),
        ("/linux/seccomp", asking(json!("")), "listenerPath"),
        ("/linux/seccomp", asking(json!("/nowhere.sock")), "/nowhere.sock"),
        ("/mounts/0/options", json!(["idmap", "rbind"]), "user namespace"),
        ("/mounts/0/options", json!(["bind", "idmap=uids=0-1-10"]), "uidMappings"),
        ("/process/args", json!(["nothing-there"]), "executable file not found in $PATH"),
        ("/process/args", json!(["/nothing/there"]), "no such file or directory"),
        ("/process/args", json!(["/etc/passwd"]), "permission denied"),
        ("/process/args", json!([]), "process.args"),
        ("/process/cwd", json!("relative"), "process.cwd"),
        ("/process/rlimits", json!([{"type": "RLIMIT_FUN", "soft": 1, "hard": 1}]), "RLIMIT_FUN"),
        ("/process/rlimits", json!([{"type": "RLIMIT_NOFILE", "soft": 1u64 << 40, "hard": 1u64 << 40}]), "the limit"),
        ("/root/path", json!("nowhere"), "nowhere"),
        ("/linux/namespaces", json!([{"type": "mount"}, {"type": "space"}]), "space"),
        ("/ociVersion", json!("3.0"), "ociVersion"),
    ];
    for (pointer, value, says) in cases {
        bundle.config = original.clone();
        let (parent, name) = pointer.rsplit_once('/').unwrap();
        bundle.config.pointer_mut(parent).unwrap()[name] = value;
        let done = bundle.create("wrong", &[]);
        assert_eq!(done.code, 1, "{pointer}");
        done.says(&[says]);
        bundle.is_gone("wrong");
    }
    std::fs::write(bundle.dir().join("config.json"), "{").unwrap();
    bundle.oci(&["create", "--bundle", "bundle", "wrong"]).fails().says(&["config.json"]);
    if !Path::new("/run/systemd/system").exists() {
        bundle.config = original;
        bundle.save();
        bundle.oci(&["--systemd-cgroup", "create", "--bundle", "bundle", "wrong"]).fails().says(&["cgroupfs"]);
        bundle.is_gone("wrong");
    }
    bundle.oci(&["kill", "wrong", "NOSUCH"]).fails().says(&["NOSUCH"]);
    bundle.oci(&["checkpoint", "--image-path", "x", "wrong"]).fails().says(&["not supported"]);
    let version = bundle.oci(&["--version"]).ok().stdout;
    let version: Vec<&str> = version.lines().collect();
    let own = env!("CARGO_PKG_VERSION");
    assert_eq!(version, [&format!("strake oci version {own}"), "spec: 1.3.0"], "as engines read it");
    let features: Value = serde_json::from_str(&bundle.oci(&["features"]).ok().stdout).unwrap();
    assert_eq!((&features["ociVersionMin"], &features["ociVersionMax"]), (&json!("1.0.0"), &json!("1.3.0")));
    for (list, word) in [
        ("/hooks", "createContainer"),
        ("/mountOptions", "rro"),
        ("/linux/namespaces", "user"),
        ("/linux/capabilities", "CAP_CHECKPOINT_RESTORE"),
        ("/linux/seccomp/actions", "SCMP_ACT_NOTIFY"),
        ("/linux/seccomp/operators", "SCMP_CMP_MASKED_EQ"),
        ("/linux/seccomp/archs", "SCMP_ARCH_X86_64"),
        ("/linux/seccomp/knownFlags", "SECCOMP_FILTER_FLAG_LOG"),
        ("/linux/seccomp/supportedFlags", "SECCOMP_FILTER_FLAG_LOG"),
        ("/linux/memoryPolicy/modes", "MPOL_BIND"),
        ("/potentiallyUnsafeConfigAnnotations", "org.systemd.property."),
    ] {
        let found = features.pointer(list).and_then(Value::as_array);
        assert!(found.is_some_and(|words| words.contains(&json!(word))), "{list} lacks {word}: {features}");
    }
    let parts = ["v1", "v2", "systemd", "systemdUser", "rdma"].map(|part| format!("cgroup/{part}"));
    let others = ["seccomp", "apparmor", "selinux", "mountExtensions/idmap", "netDevices"].map(|part| format!("{part}/enabled"));
    for part in parts.iter().chain(&others) {
        assert_eq!(features.pointer(&format!("/linux/{part}")), Some(&json!(true)), "{part}");
    }
    // Refused in a config.
    assert_eq!(features["linux"]["intelRdt"]["enabled"], json!(false));
}
