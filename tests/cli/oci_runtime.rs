//! `strake oci`: what the OCI runtime specification promises of a runtime, checked from outside.
//!
//! The verbs are called as engines call them, on bundles of our own. What is expected comes from the specification's text and, where that is silent, from what runc does.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::{Value, json};

use crate::common::terminal::Terminal;
use crate::common::{Done, Run, World, able, bases, groups, unable, wait_for};

/// A bundle with busybox as its root, and a runtime's root of its own.
struct Bundle {
    world: World,
    config: Value,
}

/// The bundle with that command.
#[track_caller]
fn bundle(command: &str) -> Option<Bundle> {
    if !able(&["docker-registry"]) {
        return None;
    }
    let world = World::new();
    let dir = world.path("bundle");
    std::fs::create_dir_all(dir.join("rootfs")).unwrap();
    Run::new("tar", ["-C".as_ref(), dir.join("rootfs").as_os_str(), "-xf".as_ref(), bases().join("busybox.tar").as_os_str()]).ok();
    world.strake(["oci", "spec", "--bundle", "bundle"]).ok();
    let mut config: Value = serde_json::from_slice(&std::fs::read(dir.join("config.json")).unwrap()).unwrap();
    config["process"]["terminal"] = json!(false);
    config["process"]["args"] = json!(["sh", "-c", command]);
    Some(Bundle { world, config })
}

impl Bundle {
    fn dir(&self) -> PathBuf {
        self.world.path("bundle")
    }

    fn rootfs(&self, name: &str) -> PathBuf {
        self.dir().join("rootfs").join(name)
    }

    fn save(&self) -> &Bundle {
        std::fs::write(self.dir().join("config.json"), self.config.to_string()).unwrap();
        self
    }

    fn oci(&self, args: &[&str]) -> Run {
        let root = self.world.path("oci");
        self.world.strake(["oci", "--root", root.to_str().unwrap()]).arg_all(args)
    }

    /// What the container's process wrote.
    fn output(&self) -> String {
        std::fs::read_to_string(self.world.path("output")).unwrap_or_default()
    }

    /// Makes the container `id`. Its streams go to files, as pipes would be open as long as it lives.
    #[track_caller]
    fn create(&self, id: &str, flags: &[&str]) -> Done {
        self.save();
        let output = std::fs::File::options().create(true).append(true).open(self.world.path("output")).unwrap();
        let log = self.world.path("log.json");
        let _ = std::fs::remove_file(&log);
        let root = self.world.path("oci");
        let global =
            ["oci", "--root", root.to_str().unwrap(), "--log", log.to_str().unwrap(), "--log-format", "json", "create", "--bundle"];
        let mut run = self.world.strake(global).arg(self.dir()).arg_all(flags).arg(id);
        let command = run.command();
        let status = command.stdin(Stdio::null()).stdout(output.try_clone().unwrap()).stderr(output).status().unwrap();
        let said = std::fs::read_to_string(&log).unwrap_or_default();
        let messages: Vec<String> =
            said.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["msg"].as_str().unwrap().to_owned()).collect();
        Done::of("create", status.code().unwrap(), messages.join("\n"))
    }

    #[track_caller]
    fn created(&self, id: &str) {
        let done = self.create(id, &[]);
        assert_eq!(done.code, 0, "{done}\n{}", self.output());
    }

    #[track_caller]
    fn state(&self, id: &str) -> Value {
        serde_json::from_str(&self.oci(&["state", id]).ok().stdout).unwrap()
    }

    fn status(&self, id: &str) -> String {
        self.state(id)["status"].as_str().unwrap().to_owned()
    }

    /// Runs the command to its end, and gives what it wrote.
    #[track_caller]
    fn runs(&self) -> String {
        self.save();
        // Tests go on at the same time, and containers of one ID would share their control groups.
        let id = format!("c{}", std::process::id());
        let done = self.oci(&["run", "--bundle", self.dir().to_str().unwrap(), &id]).run();
        assert_eq!(done.code, 0, "{done}");
        done.stdout
    }

    /// Nothing is left of the container.
    #[track_caller]
    fn is_gone(&self, id: &str) {
        self.oci(&["state", id]).fails().says(&["does not exist"]);
        assert!(!self.world.path("oci").join(id).exists());
        assert_eq!(groups(id), Vec::<PathBuf>::new());
    }
}

impl Drop for Bundle {
    fn drop(&mut self) {
        let ids = self.oci(&["list", "-q"]).run().stdout;
        for id in ids.split_whitespace() {
            self.oci(&["delete", "--force", id]).run();
        }
        // What a `cgroupsPath` is below stays when its container goes.
        for group in groups(&format!("strake-test-{}", std::process::id())) {
            let _ = std::fs::remove_dir(group);
        }
    }
}

fn lines(text: &str) -> Vec<&str> {
    text.lines().collect()
}

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
fn the_process_is_as_its_config_says() {
    let facts = "id -u; id -g; id -G; umask; pwd; echo $A-$HOME; ulimit -n; ulimit -Hn; cat /proc/self/oom_score_adj; grep -E 'Cap|NoNew' /proc/self/status; uname -m";
    let Some(mut bundle) = bundle(facts) else { return };
    let process = &mut bundle.config["process"];
    process["user"] = json!({"uid": 65534, "gid": 50, "additionalGids": [7, 8], "umask": 0o27});
    process["cwd"] = json!("/tmp");
    process["env"] = json!(["PATH=/bin", "A=1"]);
    process["rlimits"] = json!([{"type": "RLIMIT_NOFILE", "soft": 100, "hard": 200}]);
    process["oomScoreAdj"] = json!(321);
    process["noNewPrivileges"] = json!(false);
    // Numbers 0, 5 and 13: chown, kill, net_raw.
    process["capabilities"] = json!({
        "bounding": ["CAP_CHOWN", "CAP_KILL", "CAP_NET_RAW", "CAP_OF_THE_FUTURE"],
        "permitted": ["CAP_CHOWN", "CAP_KILL"],
        "inheritable": ["CAP_CHOWN", "CAP_NET_RAW"],
        "effective": ["CAP_CHOWN"],
        "ambient": ["CAP_CHOWN"],
    });
    bundle.config["linux"]["personality"] = json!({"domain": "LINUX32"});
    let said = bundle.runs();
    let said = lines(&said);
    assert_eq!(said[..9], ["65534", "50", "50 7 8", "0027", "/tmp", "1-/home", "100", "200", "321"]);
    let set = |name: &str| u64::from_str_radix(said.iter().find_map(|line| line.strip_prefix(name)).unwrap().trim(), 16).unwrap();
    // What is ambient is all that an ordinary user has after an execution.
    assert_eq!((set("CapBnd:"), set("CapPrm:"), set("CapEff:"), set("CapInh:"), set("CapAmb:")), (0x2021, 1, 1, 0x2001, 1));
    assert!(said.contains(&"NoNewPrivs:\t0"));
    assert_eq!(said.last(), Some(&if cfg!(target_arch = "x86_64") { "i686" } else { "armv8l" }));
}

#[test]
fn the_file_system_is_as_the_config_says() {
    let script = "touch /root-file 2>/dev/null && echo writable; cat /hidden/file; ls /hidden-dir; touch /fixed/x 2>/dev/null && echo fixed is writable; \
        cat /bound/file; touch /bound/x 2>/dev/null && echo bound is writable; touch /bound/below/x 2>/dev/null && echo below is writable; \
        touch /all/below/x 2>/dev/null && echo all is writable; cat /memory/inner/file; cat /up/hosts; touch /memory/x 2>/dev/null && echo memory is writable; \
        stat -c '%a %U' /dev/mine; ls -l /dev/null | cut -c1-10; readlink /dev/ptmx; readlink /dev/stdin; cat /proc/sys/kernel/msgmax; hostname; cat /proc/sys/kernel/domainname; \
        echo x > /proc/sys/kernel/msgmax || true; [ -s /proc/kcore ] && echo kcore; ls /sys/firmware";
    let Some(mut bundle) = bundle(script) else { return };
    for (file, text) in [("hidden/file", "secret"), ("hidden-dir/file", "secret"), ("fixed/file", ""), ("up/hosts", "copied up\n")] {
        std::fs::create_dir_all(bundle.rootfs(file).parent().unwrap()).unwrap();
        std::fs::write(bundle.rootfs(file), text).unwrap();
    }
    let source = bundle.world.path("source");
    std::fs::create_dir_all(source.join("below")).unwrap();
    std::fs::write(source.join("file"), "from the host\n").unwrap();
    Run::new("mount", ["-t", "tmpfs", "below", source.join("below").to_str().unwrap()]).ok();
    let from = source.to_str().unwrap();
    let mounts = bundle.config["mounts"].as_array_mut().unwrap();
    mounts.extend([
        json!({"destination": "/bound", "source": from, "options": ["rbind", "ro"]}),
        json!({"destination": "/all", "type": "none", "source": from, "options": ["rbind", "rro"]}),
        json!({"destination": "/memory", "type": "tmpfs", "source": "tmpfs", "options": ["ro", "size=1m"]}),
        json!({"destination": "/memory/inner/file", "source": source.join("file"), "options": ["bind"]}),
        json!({"destination": "/up", "type": "tmpfs", "source": "tmpfs", "options": ["tmpcopyup"]}),
    ]);
    bundle.config["linux"]["maskedPaths"] = json!(["/hidden/file", "/hidden-dir", "/proc/kcore", "/sys/firmware", "/not/there"]);
    bundle.config["linux"]["readonlyPaths"] = json!(["/fixed", "/proc/sys"]);
    bundle.config["linux"]["devices"] =
        json!([{"path": "/dev/mine", "type": "c", "major": 1, "minor": 3, "fileMode": 0o640, "uid": 1, "gid": 2}]);
    bundle.config["linux"]["sysctl"] = json!({"kernel.msgmax": "4242"});
    bundle.config["hostname"] = json!("inside");
    bundle.config["domainname"] = json!("example.test");
    let said = bundle.runs();
    Run::new("umount", [source.join("below")]).ok();
    let expected = [
        "from the host",
        // Read-only holds for the mount itself, unless it is said of all below.
        "below is writable",
        "from the host",
        "copied up",
        "640 daemon",
        "crw-rw-rw-",
        "pts/ptmx",
        "/proc/self/fd/0",
        "4242",
        "inside",
        "example.test",
    ];
    assert_eq!(lines(&said), expected);
}

#[test]
fn namespaces_are_made_or_joined_as_asked() {
    let Some(mut bundle) = bundle("exec sleep 1000") else { return };
    bundle.created("first");
    bundle.oci(&["start", "first"]).ok();
    let pid = bundle.state("first")["pid"].as_u64().unwrap();
    let link = |pid: u64, kind: &str| std::fs::read_link(format!("/proc/{pid}/ns/{kind}")).unwrap();
    let own = u64::from(std::process::id());
    assert!(["pid", "net", "ipc", "uts", "mnt", "cgroup"].iter().all(|kind| link(pid, kind) != link(own, kind)));
    let path = |kind: &str| format!("/proc/{pid}/ns/{kind}");
    bundle.config["linux"]["namespaces"] = json!([
        {"type": "mount"}, {"type": "uts"},
        {"type": "pid", "path": path("pid")}, {"type": "network", "path": path("net")}, {"type": "ipc", "path": path("ipc")},
    ]);
    bundle.created("second");
    bundle.oci(&["start", "second"]).ok();
    let second = bundle.state("second")["pid"].as_u64().unwrap();
    assert!(["pid", "net", "ipc"].iter().all(|kind| link(second, kind) == link(pid, kind)));
    assert!(["mnt", "uts"].iter().all(|kind| link(second, kind) != link(pid, kind)));
    assert_eq!(link(second, "cgroup"), link(own, "cgroup"), "of what is not named, the caller's");
    let ps = bundle.oci(&["exec", "second", "ps"]).ok().stdout;
    assert!(ps.lines().filter(|line| line.contains("sleep 1000")).count() == 2, "{ps}");
    bundle.oci(&["delete", "--force", "second"]).ok();
    assert_eq!(bundle.status("first"), "running");
    let wrong = json!([{"type": "mount"}, {"type": "network", "path": "/not/there"}]);
    bundle.config["hostname"] = json!("");
    bundle.config["linux"]["namespaces"] = wrong;
    bundle.create("third", &[]).says(&["/not/there", "o such file or directory"]);
    bundle.is_gone("third");
}

#[test]
fn a_user_namespace_has_the_ids_of_the_config() {
    let Some(mut bundle) = bundle("id -u; cat /proc/self/uid_map; touch /tmp/made; echo x > /dev/null && echo null works") else { return };
    bundle.config["root"]["readonly"] = json!(false);
    let mut namespaces = bundle.config["linux"]["namespaces"].as_array().unwrap().clone();
    namespaces.push(json!({"type": "user"}));
    bundle.config["linux"]["namespaces"] = namespaces.into();
    let map = json!([{"containerID": 0, "hostID": 100_000, "size": 1000}]);
    bundle.config["linux"]["uidMappings"] = map.clone();
    bundle.config["linux"]["gidMappings"] = map;
    // Others must be able to get to the root file system.
    for dir in bundle.rootfs("").ancestors().take_while(|dir| dir.starts_with(bundle.world.path(""))) {
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    Run::new("chown", ["-R", "100000:100000", bundle.rootfs("").to_str().unwrap()]).ok();
    let said = bundle.runs();
    let words: Vec<&str> = said.split_whitespace().collect();
    assert_eq!(words, ["0", "0", "100000", "1000", "null", "works"]);
    assert_eq!(std::fs::metadata(bundle.rootfs("tmp/made")).unwrap().uid(), 100_000);
}

/// Gives the container users of its own, to whom its files belong; the directories on the way are open to them.
fn in_user_namespace(bundle: &mut Bundle, first: u32, map: (u32, u32)) {
    use std::os::unix::fs::PermissionsExt;
    bundle.config["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "user"}));
    let map = json!([{"containerID": first, "hostID": map.0, "size": map.1}]);
    bundle.config["linux"]["uidMappings"] = map.clone();
    bundle.config["linux"]["gidMappings"] = map.clone();
    for dir in bundle.rootfs("").ancestors().take_while(|dir| dir.starts_with(bundle.world.path(""))) {
        std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    let owner = map[0]["hostID"].as_u64().unwrap();
    Run::new("chown", ["-R", &format!("{owner}:{owner}"), bundle.rootfs("").to_str().unwrap()]).ok();
}

#[test]
fn a_user_namespace_reaches_what_its_maker_reaches_and_sets_its_clocks() {
    use std::os::unix::fs::PermissionsExt;
    let Some(mut bundle) = bundle("cat /one/file /two/file; grep monotonic /proc/self/timens_offsets") else { return };
    in_user_namespace(&mut bundle, 0, (100_000, 1000));
    let mounts = bundle.config["mounts"].as_array_mut().unwrap();
    for name in ["one", "two"] {
        let closed = bundle.world.path("bundle").join(format!("closed-{name}"));
        std::fs::create_dir_all(closed.join("in")).unwrap();
        std::fs::write(closed.join("in/file"), name).unwrap();
        std::fs::set_permissions(&closed, std::fs::Permissions::from_mode(0o700)).unwrap();
        mounts.push(
            json!({"destination": format!("/{name}"), "type": "bind", "source": format!("closed-{name}/in"), "options": ["rbind", "ro"]}),
        );
    }
    bundle.config["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "time"}));
    bundle.config["linux"]["timeOffsets"] = json!({"monotonic": {"secs": 7881, "nanosecs": 27}});
    let said = bundle.runs();
    assert_eq!(said.split_whitespace().collect::<Vec<_>>(), ["onetwomonotonic", "7881", "27"]);
    // What is not there is still told.
    bundle.config["mounts"]
        .as_array_mut()
        .unwrap()
        .push(json!({"destination": "/x", "type": "bind", "source": "closed-one/nothing", "options": ["bind"]}));
    let done = bundle.create("missing", &[]);
    assert_eq!(done.code, 1);
    done.says(&["closed-one/nothing"]);
    bundle.is_gone("missing");
}

#[test]
fn a_user_namespace_need_not_have_a_root() {
    let Some(mut bundle) = bundle("id -u; cat /proc/self/uid_map") else { return };
    in_user_namespace(&mut bundle, 1000, (100_000, 1));
    bundle.config["process"]["user"] = json!({"uid": 1000, "gid": 1000});
    for options in bundle.config["mounts"].as_array_mut().unwrap().iter_mut().filter_map(|mount| mount["options"].as_array_mut()) {
        options.retain(|option| option != "gid=5");
    }
    assert_eq!(bundle.runs().split_whitespace().collect::<Vec<_>>(), ["1000", "1000", "100000", "1"]);
    bundle.config["process"]["args"] = json!(["sleep", "1000"]);
    bundle.created("n");
    bundle.oci(&["start", "n"]).ok();
    assert_eq!(bundle.oci(&["exec", "n", "id", "-u"]).ok().stdout, "1000\n");
}

#[test]
fn an_ordinary_user_gets_a_config_to_begin_with() {
    use std::os::unix::fs::PermissionsExt;
    if !able(&["setpriv", "unshare"]) {
        return;
    }
    let probe = Run::new("setpriv", ["--reuid=65534", "--regid=65534", "--clear-groups", "unshare", "-r", "true"]).run();
    if !probe.stderr.is_empty() {
        return unable("user namespaces without root");
    }
    let Some(bundle) = bundle("true") else { return };
    let dir = bundle.world.short().join("theirs");
    let of_theirs = |script: &str| {
        let args = ["--reuid=65534", "--regid=65534", "--clear-groups", "sh", "-c"];
        Run::new("setpriv", args).arg(script).env("PATH", std::env::var_os("PATH").unwrap()).dir(&dir)
    };
    std::fs::create_dir(&dir).unwrap();
    std::fs::set_permissions(bundle.world.short(), std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::copy(env!("CARGO_BIN_EXE_strake"), dir.join("strake")).unwrap();
    std::fs::copy(bases().join("busybox.tar"), dir.join("busybox.tar")).unwrap();
    std::os::unix::fs::chown(&dir, Some(65534), Some(65534)).unwrap();
    of_theirs("mkdir rootfs && tar -C rootfs -xf busybox.tar && ./strake oci spec --rootless").ok();
    let path = dir.join("config.json");
    let mut config: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    config["process"]["terminal"] = json!(false);
    config["process"]["args"] = json!(["id", "-u"]);
    std::fs::write(&path, config.to_string()).unwrap();
    let done = of_theirs("./strake oci --root $PWD/state run theirs").run();
    assert_eq!((done.code, done.stdout.as_str()), (0, "0\n"), "{done}");
    config["process"]["args"] = json!(["sleep", "1000"]);
    std::fs::write(&path, config.to_string()).unwrap();
    of_theirs("oci='./strake oci --root state'; $oci create waits >/dev/null 2>&1 </dev/null && $oci start waits").ok();
    let refused = of_theirs("./strake oci --root state exec --cgroup nothing waits true").fails();
    of_theirs("./strake oci --root state delete --force waits").ok();
    refused.says(&["no control groups"]);
    // As podman of an ordinary user calls it: as root of a user namespace, with a place of the user's.
    let script = "mkdir run; export USER=theirs XDG_RUNTIME_DIR=$PWD/run; rm config.json; unshare -r ./strake oci spec --rootless
        sed -i 's/\"terminal\": true/\"terminal\": false/; s/\"sh\"/\"true\"/' config.json
        unshare -r ./strake oci run --keep again && test -d run/strake/oci/again && unshare -r ./strake oci delete again";
    of_theirs(script).ok();
}

#[test]
fn mount_points_are_made_where_links_lead_and_memory_is_like_the_directory_below() {
    let Some(mut bundle) = bundle("cat /nowhere/deep/sub/file /up/file; stat -c %a /kept /made /asked; grep -c . /hosts") else { return };
    bundle.config["root"]["readonly"] = json!(false);
    std::fs::create_dir(bundle.dir().join("source")).unwrap();
    std::fs::write(bundle.dir().join("source/file"), "here\n").unwrap();
    std::os::unix::fs::symlink("/nowhere/deep", bundle.rootfs("dangling")).unwrap();
    std::os::unix::fs::symlink("../../../hosts", bundle.rootfs("bin/file-of-nothing")).unwrap();
    for name in ["kept", "asked"] {
        use std::os::unix::fs::PermissionsExt;
        std::fs::create_dir(bundle.rootfs(name)).unwrap();
        std::fs::set_permissions(bundle.rootfs(name), std::fs::Permissions::from_mode(0o710)).unwrap();
    }
    let mounts = bundle.config["mounts"].as_array_mut().unwrap();
    for target in ["/dangling/sub", "/../../up"] {
        mounts.push(json!({"destination": target, "type": "bind", "source": "source", "options": ["bind"]}));
    }
    mounts.push(json!({"destination": "/bin/file-of-nothing", "type": "bind", "source": "source/file", "options": ["bind"]}));
    for (target, options) in [("/kept", json!([])), ("/made", json!([])), ("/asked", json!(["mode=0444"]))] {
        mounts.push(json!({"destination": target, "type": "tmpfs", "source": "tmpfs", "options": options}));
    }
    assert_eq!(lines(&bundle.runs()), ["here", "here", "710", "1777", "444", "1"]);
    assert!(bundle.rootfs("nowhere/deep/sub").is_dir() && !Path::new("/nowhere").exists(), "it is in the root file system");
    // A link that leads to itself is no way.
    std::os::unix::fs::symlink("/round", bundle.rootfs("round")).unwrap();
    bundle.config["mounts"].as_array_mut().unwrap().push(json!({"destination": "/round/x", "type": "tmpfs", "source": "tmpfs"}));
    assert_eq!(bundle.create("round", &[]).code, 1);
}

#[test]
fn each_variable_is_there_once_with_the_last_value() {
    let Some(mut bundle) = bundle("env") else { return };
    bundle.config["process"]["args"] = json!(["env"]);
    let mut env = |list: Value| {
        bundle.config["process"]["env"] = list;
        let mut said: Vec<String> = bundle.runs().lines().map(str::to_owned).collect();
        said.sort();
        said
    };
    assert_eq!(env(json!(["PATH=/bin", "ONE=two", "ONE=three", "HOME=/over", "HOME="])), ["HOME=/root", "ONE=three", "PATH=/bin"]);
    assert_eq!(env(json!(["PATH=/bin", "HOME=/over", "ONE=x", "ONE="])), ["HOME=/over", "ONE=", "PATH=/bin"]);
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
fn the_filter_of_the_config_is_loaded() {
    let Some(mut bundle) = bundle("mkdir /tmp/x; chmod 700 /tmp; chmod 755 /tmp; grep Seccomp: /proc/self/status") else { return };
    bundle.config["root"]["readonly"] = json!(false);
    for no_new_privileges in [false, true] {
        bundle.config["process"]["noNewPrivileges"] = json!(no_new_privileges);
        bundle.config["linux"]["seccomp"] = json!({
            "defaultAction": "SCMP_ACT_ALLOW",
            "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_AARCH64"],
            "syscalls": [
                {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 39},
                {"names": ["chmod"], "action": "SCMP_ACT_ERRNO", "args": [{"index": 1, "value": 0o700, "op": "SCMP_CMP_EQ"}]},
                {"names": ["fchmodat"], "action": "SCMP_ACT_ERRNO", "args": [{"index": 2, "value": 0o700, "op": "SCMP_CMP_EQ"}]},
            ],
        });
        bundle.save();
        let done = bundle.oci(&["run", "--bundle", bundle.dir().to_str().unwrap(), "filtered"]).ok();
        assert_eq!(done.stdout, "Seccomp:\t2\n");
        done.says(&["Directory not empty", "Operation not permitted"]);
        assert_eq!(done.stderr.lines().count(), 2, "{done}");
    }
    bundle.config["linux"]["seccomp"] = json!({"defaultAction": "SCMP_ACT_SING"});
    bundle.create("unfiltered", &[]).says(&["SCMP_ACT_SING"]);
    bundle.is_gone("unfiltered");
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
    let Some(bundle) = bundle("exec sleep 1000") else { return };
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
fn a_filter_may_forbid_what_only_the_runtime_needs() {
    let Some(mut bundle) = bundle("grep -E '^Cap(Prm|Eff)|^Seccomp:' /proc/self/status") else { return };
    // Older profiles lack what is newer than they are; without "no new privileges" the filter counts while rights are given up.
    let forbidden = ["faccessat2", "openat2", "close_range", "capset", "setgroups", "setresgid", "setresuid", "statx", "keyctl", "sendmsg"];
    bundle.config["linux"]["seccomp"] =
        json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": forbidden, "action": "SCMP_ACT_ERRNO"}]});
    for uid in [0, 1000] {
        bundle.config["process"]["noNewPrivileges"] = json!(false);
        bundle.config["process"]["user"] = json!({"uid": uid, "gid": uid});
        bundle.config["process"]["capabilities"]["ambient"] = json!([]);
        let said = bundle.runs();
        let sets: Vec<&str> = said.split_whitespace().collect();
        let expected = if uid == 0 { "0000000020000420" } else { "0000000000000000" };
        assert_eq!(sets, ["CapPrm:", expected, "CapEff:", expected, "Seccomp:", "2"], "what loads it is gone");
    }
}

#[test]
fn how_a_process_is_scheduled_is_as_the_config_says() {
    let Some(mut bundle) = bundle("cut -d' ' -f19,41 /proc/self/stat; grep -c ' bind' /proc/self/numa_maps; exec sleep 1000") else {
        return;
    };
    bundle.config["process"]["scheduler"] = json!({"policy": "SCHED_BATCH", "nice": 7});
    bundle.config["process"]["ioPriority"] = json!({"class": "IOPRIO_CLASS_BE", "priority": 6});
    let nodes = Path::new("/proc/self/numa_maps").exists();
    if nodes {
        bundle.config["linux"]["memoryPolicy"] = json!({"mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES"]});
    }
    bundle.created("s");
    bundle.oci(&["start", "s"]).ok();
    let pid = bundle.state("s")["pid"].to_string();
    wait_for("the command", 60, || bundle.output().lines().count() >= 2);
    let said = bundle.output();
    assert!(said.starts_with("7 3\n"), "nice value and SCHED_BATCH: {said}");
    assert!(!nodes || said.lines().nth(1) != Some("0"), "{said}");
    let priority = Run::new("ionice", ["-p", &pid]).ok().stdout;
    assert_eq!(priority.trim(), "best-effort: prio 6");
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
fn files_of_a_mount_are_shown_as_those_of_others() {
    let Some(mut bundle) = bundle("stat -c %u:%g /mnt/file /mnt/other; touch /mnt/new") else { return };
    let source = bundle.world.path("source");
    std::fs::create_dir(&source).unwrap();
    for (name, id) in [("file", 1000), ("other", 5)] {
        std::fs::write(source.join(name), "").unwrap();
        std::os::unix::fs::chown(source.join(name), Some(id), Some(id)).unwrap();
    }
    std::os::unix::fs::chown(&source, Some(1000), Some(1000)).unwrap();
    let maps = |inside: u32, outside: u32, size: u32| json!([{"containerID": inside, "hostID": outside, "size": size}]);
    let mount = json!({
        "destination": "/mnt", "source": source, "options": ["rbind"], "uidMappings": maps(1000, 0, 1), "gidMappings": maps(1000, 0, 1),
    });
    let mounts = bundle.config["mounts"].as_array_mut().unwrap();
    mounts.push(mount);
    let last = mounts.len() - 1;
    // IDs that nothing is mapped to are nobody's.
    assert_eq!(bundle.runs(), "0:0\n65534:65534\n");
    let owner = |name: &str| std::fs::metadata(source.join(name)).unwrap().uid();
    assert_eq!(owner("new"), 1000, "the files stay whose they are");
    // As the container's own users have it.
    std::fs::remove_file(source.join("new")).unwrap();
    std::os::unix::fs::chown(&source, Some(0), Some(0)).unwrap();
    bundle.config["mounts"][last] = json!({"destination": "/mnt", "source": source, "options": ["bind", "idmap"]});
    bundle.config["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "user"}));
    for kind in ["uidMappings", "gidMappings"] {
        bundle.config["linux"][kind] = maps(0, 200_000, 65536);
    }
    assert_eq!(bundle.runs(), "1000:1000\n5:5\n");
    assert_eq!(owner("new"), 0);
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
    let cases: [(&str, Value, &str); 16] = [
        ("/process/scheduler", json!({"policy": "SCHED_FAST"}), "SCHED_FAST"),
        ("/process/ioPriority", json!({"class": "IOPRIO_CLASS_BE", "priority": 9}), "ioPriority"),
        ("/linux/memoryPolicy", json!({"mode": "MPOL_BIND", "nodes": "0-"}), "0-"),
        ("/linux/netDevices", json!({"eth7": {}}), "eth7"),
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
    assert_eq!(version, [&format!("strake oci version {own}"), "spec: 1.1.0"], "as engines read it");
    let features: Value = serde_json::from_str(&bundle.oci(&["features"]).ok().stdout).unwrap();
    assert!(features["linux"]["namespaces"].as_array().unwrap().contains(&json!("user")));
}
