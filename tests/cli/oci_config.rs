//! `strake oci`: that a container is what the `config.json` of its bundle says, as the OCI runtime specification has it.

use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::Path;

use serde_json::{Value, json};

use crate::common::bundle::{Bundle, bundle, lines};
use crate::common::{Run, able, bases, unable, wait_for};

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

/// Listens at a socket, says whom it is told of, and what it is asked; directories it lets nobody make.
const PROGRAM: &str = r#"
    #include <errno.h>
    #include <linux/seccomp.h>
    #include <poll.h>
    #include <stdio.h>
    #include <string.h>
    #include <sys/ioctl.h>
    #include <sys/socket.h>
    #include <sys/syscall.h>
    #include <sys/un.h>
    #include <unistd.h>
    #ifndef SYS_mkdir
    #define SYS_mkdir SYS_mkdirat
    #endif
    int main(int argc, char **argv) {
        int server = socket(AF_UNIX, SOCK_STREAM, 0);
        struct sockaddr_un name = {.sun_family = AF_UNIX};
        strcpy(name.sun_path, argv[1]);
        if (bind(server, (void *)&name, sizeof name) || listen(server, 4)) return 1;
        setvbuf(stdout, 0, _IOLBF, 0);
        puts("listens");
        for (;;) {
            int client = accept(server, 0, 0);
            if (fork()) { close(client); continue; }
            close(server);
            char text[65536], control[64];
            struct iovec part = {text, sizeof text - 1};
            struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
            long length = recvmsg(client, &message, 0);
            if (length <= 0 || !CMSG_FIRSTHDR(&message)) return 1;
            int asked = *(int *)CMSG_DATA(CMSG_FIRSTHDR(&message));
            printf("%.*s\n", (int)length, text);
            for (;;) {
                struct seccomp_notif question = {0};
                if (ioctl(asked, SECCOMP_IOCTL_NOTIF_RECV, &question)) {
                    /* ENOENT where who asked was interrupted meanwhile, and also where nobody is left. */
                    struct pollfd left = {.fd = asked, .events = POLLIN};
                    if ((errno == EINTR || errno == ENOENT) && poll(&left, 1, 0) >= 0 && !(left.revents & POLLHUP)) continue;
                    return 0;
                }
                struct seccomp_notif_resp answer = {.id = question.id, .flags = SECCOMP_USER_NOTIF_FLAG_CONTINUE};
                if (question.data.nr == SYS_mkdir || question.data.nr == SYS_mkdirat) { answer.flags = 0; answer.error = -EXDEV; }
                ioctl(asked, SECCOMP_IOCTL_NOTIF_SEND, &answer);
            }
        }
    }
"#;

#[test]
fn a_program_is_asked_about_system_calls() {
    let script = "mkdir /tmp/x 2>&1; ulimit -n; ls /proc/self/fd | wc -l; ps -o pid,args; exec sleep 1000";
    let Some(mut bundle) = able(&["cc"]).then(|| bundle(script)).flatten() else { return };
    let [source, program, socket, said] = ["program.c", "program", "program.sock", "said"].map(|name| bundle.world.path(name));
    std::fs::write(&source, PROGRAM).unwrap();
    Run::new("cc", ["-o".as_ref(), program.as_os_str(), source.as_os_str()]).ok();
    let mut command = std::process::Command::new(&program);
    command.arg(&socket).stdout(std::fs::File::create(&said).unwrap()).process_group(0);
    let running = Group(command.spawn().unwrap());
    let told = || std::fs::read_to_string(&said).unwrap();
    wait_for("the program", 60, || told().contains("listens"));
    bundle.config["root"]["readonly"] = json!(false);
    bundle.config["process"]["rlimits"] = json!([{"type": "RLIMIT_NOFILE", "soft": 12, "hard": 12}]);
    // Also what a runtime needs itself until its command runs.
    let asked = ["mkdir", "mkdirat", "execve", "wait4", "sendmsg", "write", "close"];
    bundle.config["linux"]["seccomp"] = json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "listenerPath": socket.to_str().unwrap(),
        "listenerMetadata": "of the test",
        "syscalls": [{"names": asked, "action": "SCMP_ACT_NOTIFY"}],
    });
    for (id, no_new_privileges) in [("asked1", false), ("asked2", true)] {
        bundle.config["process"]["noNewPrivileges"] = json!(no_new_privileges);
        bundle.created(id);
        let before = told().lines().count();
        bundle.oci(&["start", id]).ok();
        wait_for("what the command says", 60, || bundle.output().contains("ps -o"));
        let output = bundle.output();
        assert!(output.contains("/tmp/x': Invalid cross-device link") || output.contains("/tmp/x': Cross-device link"), "{output}");
        assert!(output.contains("\n12\n"), "fewer than the runtime needs itself: {output}");
        // Standard streams and the listing itself: nothing of the filter; and no process but the command's.
        assert!(output.contains("\n4\n"), "{output}");
        assert!(!output.contains("strake") && output.lines().filter(|line| line.trim_start().starts_with("1 ")).count() == 1, "{output}");
        let state: serde_json::Value = serde_json::from_str(told().lines().nth(before).unwrap()).unwrap();
        let pid = &bundle.state(id)["pid"];
        assert_eq!((&state["pid"], &state["state"]["pid"], &state["state"]["id"]), (pid, pid, &json!(id)), "{state}");
        assert_eq!((&state["fds"], &state["metadata"]), (&json!(["seccompFd"]), &json!("of the test")));
        assert_eq!(state["state"]["status"], json!("creating"));

        // A further command is another process, with a filter of its own.
        let done = bundle.oci(&["exec", id, "mkdir", "/tmp/y"]).fails();
        done.says(&["ross-device link"]);
        let state: serde_json::Value = serde_json::from_str(told().lines().nth(before + 1).unwrap()).unwrap();
        assert_eq!((&state["state"]["pid"], &state["state"]["status"]), (pid, &json!("running")));
        assert!(state["pid"].as_u64() > pid.as_u64());
        bundle.oci(&["delete", "--force", id]).ok();
        std::fs::remove_file(bundle.world.path("output")).unwrap();
    }
    // Who was to be asked is gone before there is anything to ask: nothing runs that nobody judges.
    bundle.created("asked3");
    drop(running);
    bundle.oci(&["start", "asked3"]).fails().says(&["listenerPath", "refused"]);
    assert_eq!(bundle.output(), "");
    wait_for("the end", 60, || bundle.status("asked3") == "stopped");
}

#[test]
fn a_container_that_waits_keeps_nobody_from_the_program_that_is_asked() {
    let Some(mut bundle) = bundle("true") else { return };
    let socket = bundle.world.short().join("asked");
    let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    listener.set_nonblocking(true).unwrap();
    bundle.config["linux"]["seccomp"] = json!({
        "defaultAction": "SCMP_ACT_ALLOW", "listenerPath": socket,
        "syscalls": [{"names": ["sync"], "action": "SCMP_ACT_NOTIFY"}],
    });
    bundle.created("waits");
    assert_eq!(listener.accept().unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
    bundle.oci(&["start", "waits"]).ok();
    listener.accept().unwrap();
}

/// A process that ends with the test, with those that it made.
struct Group(std::process::Child);

impl Drop for Group {
    fn drop(&mut self) {
        Run::new("kill", ["-KILL", "--", &format!("-{}", self.0.id())]).run();
        let _ = self.0.wait();
    }
}

#[test]
fn network_devices_move_in_with_their_addresses() {
    let Some(mut bundle) =
        bundle("cat /proc/sys/net/ipv4/conf/inner/forwarding /seen /sys/class/net/inner/operstate; ip -o addr show dev inner")
    else {
        return;
    };
    let ip = |args: &str| Run::new("ip", args.split_whitespace());
    // Names of devices are the machine's.
    let outer = format!("sto{}", std::process::id());
    let moved = format!("sti{}", std::process::id());
    if ip(&format!("link add {outer} type veth peer name {moved}")).run().code != 0 {
        return unable("this machine makes no pair of network devices");
    }
    ip(&format!("addr add 10.213.7.2/24 brd + dev {moved}")).ok();
    ip(&format!("addr add 169.254.3.4/16 scope link dev {moved}")).ok();
    ip(&format!("link set {outer} up")).ok();
    bundle.config["linux"]["netDevices"] = json!({moved.as_str(): {"name": "inner"}});
    bundle.config["linux"]["sysctl"] = json!({"net.ipv4.conf.inner.forwarding": "1"});
    let look = format!("ls /proc/sys/net/ipv4/conf | grep -c inner > {}", bundle.rootfs("seen").display());
    bundle.config["hooks"] = json!({"createContainer": [{"path": "/bin/sh", "args": ["sh", "-c", look]}]});
    let said = bundle.runs();
    assert!(said.starts_with("1\n1\nup\n"), "parameters of it are set, and hooks find it: {said}");
    assert!(said.contains("inet 10.213.7.2/24 brd 10.213.7.255 scope global inner"), "{said}");
    assert!(!said.contains("169.254.3.4"), "addresses of a link alone stay behind: {said}");
    // It was the container's, so it has gone with it, and its other end too.
    wait_for("the end of the pair", 60, || ip(&format!("link show {outer}")).run().code != 0);
}

#[test]
fn network_devices_move_in_all_or_none() {
    let Some(mut bundle) = bundle("true") else { return };
    let ip = |args: &str| Run::new("ip", args.split_whitespace());
    let [joined, one, two, peer, taken] = ["n", "a", "b", "p", "q"].map(|name| format!("st{name}{}", std::process::id()));
    if ip(&format!("netns add {joined}")).run().code != 0 {
        return unable("this machine makes no network namespace with a name");
    }
    for (device, peer) in [(&one, &peer), (&two, &taken)] {
        ip(&format!("link add {device} type veth peer name {peer}")).ok();
    }
    ip(&format!("addr add 10.213.8.2/24 dev {one}")).ok();
    ip(&format!("link set {taken} netns {joined}")).ok();
    bundle.config["linux"]["netDevices"] = json!({one.as_str(): {"name": "inner"}, two.as_str(): {"name": taken}});
    for namespace in bundle.config["linux"]["namespaces"].as_array_mut().unwrap() {
        if namespace["type"] == "network" {
            namespace["path"] = json!(format!("/run/netns/{joined}"));
        }
    }
    let done = bundle.create("all", &[]);
    let there = ip(&format!("-n {joined} -o link show")).run().stdout;
    let here = [&one, &two].map(|device| ip(&format!("-o addr show dev {device}")).run());
    for args in [format!("link del {one}"), format!("link del {two}"), format!("netns del {joined}")] {
        ip(&args).run();
    }
    assert_eq!(done.code, 1, "{done}");
    done.says(&[&two, "File exists"]);
    assert!(!there.contains("inner") && !there.contains(&format!(" {two}")), "{there}");
    assert!(here[0].stdout.contains("10.213.8.2/24") && here[1].code == 0, "{}{}", here[0], here[1]);
}

#[test]
fn sockets_of_a_manager_of_services_are_passed_on() {
    let Some(mut bundle) = bundle("echo $LISTEN_FDS $LISTEN_PID $$; cat <&3") else { return };
    bundle.config["process"]["env"].as_array_mut().unwrap().push(json!("LISTEN_PID=7"));
    bundle.save();
    std::fs::write(bundle.world.path("passed"), "passed on\n").unwrap();
    let root = bundle.world.path("oci");
    let command = format!("{} oci --root {} run --bundle {}", env!("CARGO_BIN_EXE_strake"), root.display(), bundle.dir().display());
    let run = |id: &str, pid: &str| {
        let passed = bundle.world.path("passed");
        Run::new("sh", ["-c", &format!("exec 3<{}; LISTEN_FDS=1 LISTEN_PID={pid} exec {command} {id}", passed.display())]).run()
    };
    let done = run("passed1", "$$");
    assert_eq!((done.code, done.stdout.as_str()), (0, "1 1 1\npassed on\n"), "{done}");
    // Hooks are not who they are for.
    let seen = bundle.world.path("seen");
    let look = format!("readlink /proc/$$/fd/3 > {}; true", seen.display());
    bundle.config["hooks"] = json!({"createRuntime": [{"path": "/bin/sh", "args": ["sh", "-c", look]}]});
    bundle.save();
    let done = run("passed3", "$$");
    assert_eq!((done.code, done.stdout.as_str()), (0, "1 1 1\npassed on\n"), "{done}");
    assert_eq!(std::fs::read_to_string(&seen).unwrap(), "");
    // Those of another process are none.
    let done = run("passed2", "1");
    assert!(done.code != 0 && done.stdout == "7 1\n", "{done}");
    // More than there are are not made up of what the runtime opens itself.
    let refused = |command: &str| Run::new("sh", ["-c", command]).run();
    for (script, says) in [
        (format!("LISTEN_FDS=4294967295 LISTEN_PID=$$ exec {command} passed4"), "not so many"),
        (format!("exec 3</dev/null; LISTEN_FDS=2 LISTEN_PID=$$ exec {command} passed5"), "descriptor 4"),
        (format!("exec {command} --preserve-fds=9 passed6"), "descriptor 3"),
    ] {
        let done = refused(&script);
        assert_eq!(done.code, 1, "{script}: {done}");
        done.says(&["cannot pass descriptors on", says]);
    }
}

#[test]
fn hooks_have_the_environment_that_is_meant() {
    let Some(mut bundle) = bundle("true") else { return };
    bundle.config["root"]["readonly"] = json!(false);
    // An environment may be empty, which is not the same as none.
    bundle.config["process"]["args"] = json!(["/bin/true"]);
    bundle.config["process"]["env"] = json!([]);
    let hook = |file: &Path| json!({"path": "/bin/sh", "args": ["sh", "-c", format!("cat /proc/$$/environ > {}; true", file.display())]});
    let [none, empty, named] = ["none", "empty", "named"].map(|name| bundle.world.path(name));
    let with = |file: &Path, env: Value| {
        let mut hook = hook(file);
        hook["env"] = env;
        hook
    };
    bundle.config["hooks"] = json!({
        "createRuntime": [hook(&none), with(&empty, json!([])), with(&named, json!(["A=b"]))],
        "startContainer": [hook(Path::new("/none")), with(Path::new("/named"), json!(["A=b"]))],
    });
    bundle.runs();
    let said = |path: &Path| std::fs::read_to_string(path).unwrap();
    assert!(said(&none).contains("PATH="), "the caller's");
    assert_eq!((said(&empty).as_str(), said(&named).as_str()), ("", "A=b\0"));
    assert_eq!((said(&bundle.rootfs("none")).as_str(), said(&bundle.rootfs("named")).as_str()), ("", "A=b\0"), "the command's");
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
