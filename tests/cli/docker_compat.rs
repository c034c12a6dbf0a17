//! What scripts that were written for Docker's command line find here: the same fields, the same texts, the same answers to what is out of range. What is expected was seen with the client
//! of Docker 28.

use serde_json::Value;

use crate::common::registry::{Reply, scripted};
use crate::common::{Run, World, wait_for, world};
use crate::events::events;

#[track_caller]
pub(crate) fn shown(world: &World, format: &str, name: &str) -> String {
    world.strake(["inspect", "-f", format, name]).ok().stdout.trim_end_matches('\n').to_owned()
}

#[track_caller]
fn inspected(world: &World, args: &[&str]) -> Value {
    serde_json::from_str(&world.strake(std::iter::once(&"inspect").chain(args)).ok().stdout).unwrap()
}

#[test]
fn a_container_is_inspected_with_the_fields_that_docker_has() {
    let Some(world) = world() else { return };
    world.strake(["volume", "create", "kept"]).ok();
    world.strake(["create", "--name", "other", "-v", "kept:/kept", "localhost/busybox", "true"]).ok();
    let flags = ["-P", "--group-add", "50", "--volumes-from", "other:ro", "--annotation", "com.example/a=b", "--log-opt", "max-size=10m"];
    let mounts = ["-v", "/tmp:/t:ro", "-v", "/anonymous", "--tmpfs", "/scratch:size=1m", "--mount", "type=bind,src=/etc,dst=/m,readonly"];
    let args = ["create", "--name", "c"].iter().chain(&flags).chain(&mounts).chain(&["localhost/busybox", "true"]);
    world.strake(args).ok();
    let found = &inspected(&world, &["--size", "c"])[0];
    let host = &found["HostConfig"];
    assert_eq!(host["PublishAllPorts"], true);
    assert_eq!(host["GroupAdd"], serde_json::json!(["50"]));
    assert_eq!(host["VolumesFrom"], serde_json::json!(["other:ro"]));
    assert_eq!(host["Annotations"], serde_json::json!({ "com.example/a": "b" }));
    assert_eq!(host["Binds"], serde_json::json!(["/tmp:/t:ro"]));
    assert_eq!(host["Tmpfs"], serde_json::json!({ "/scratch": "size=1m" }));
    let mount = serde_json::json!([{ "Type": "bind", "Source": "/etc", "Target": "/m", "ReadOnly": true }]);
    assert_eq!(host["Mounts"], mount);
    assert!(!found["Mounts"].to_string().contains("/scratch"), "{found}");
    assert_eq!(host["LogConfig"], serde_json::json!({ "Type": "json-file", "Config": { "max-size": "10m" } }));
    for key in ["Links", "Isolation", "ConsoleSize", "DeviceRequests", "VolumeDriver", "Cgroup"] {
        assert!(host.as_object().unwrap().contains_key(key), "{key}");
    }
    for key in ["UpperDir", "LowerDir", "WorkDir"] {
        let path = found["GraphDriver"]["Data"][key].as_str().unwrap();
        assert!(path.split(':').all(|path| std::path::Path::new(path).is_dir()), "{key}: {path}");
    }
    assert_eq!(found["SizeRw"], 0);
    assert!(found["SizeRootFs"].as_u64().unwrap() > 1 << 20, "{found}");
    assert_eq!((&found["Config"]["AttachStdout"], &found["Config"]["AttachStdin"]), (&Value::Bool(true), &Value::Bool(false)));
    assert!(inspected(&world, &["c"])[0].get("SizeRw").is_none());
    // What the image and the user say, and nothing else.
    let env = found["Config"]["Env"].to_string();
    assert!(env.contains("PATH=") && !env.contains("HOSTNAME=") && !env.contains("HOME="), "{env}");
    assert!(found["Config"].get("StopSignal").is_none());
    world.strake(["create", "--name", "d", "--stop-signal", "INT", "-e", "A=b", "localhost/busybox", "true"]).ok();
    assert_eq!(shown(&world, "{{.Config.StopSignal}} {{index .Config.Env 1}}", "d"), "SIGINT A=b");
}

#[test]
fn who_is_attached_is_told() {
    let Some(world) = world() else { return };
    world.strake(["run", "--rm", "localhost/busybox", "true"]).ok();
    world.strake(["run", "-d", "--name", "c", "localhost/busybox", "sleep", "1"]).ok();
    let told = || events(&world, &["--filter", "event=attach"]).len();
    assert_eq!(told(), 1);
    world.strake(["attach", "--no-stdin", "c"]).ok();
    assert_eq!(told(), 2);
}

#[test]
fn a_running_containers_merged_tree_is_where_inspect_says() {
    let Some(world) = world() else { return };
    world.strake(["run", "-d", "--name", "c", "localhost/busybox", "sh", "-c", "echo hello > /greeting; exec sleep 1000"]).ok();
    let greeting = || std::fs::read_to_string(format!("{}/greeting", shown(&world, "{{.GraphDriver.Data.MergedDir}}", "c")));
    wait_for("the file", 20, || greeting().is_ok_and(|text| text == "hello\n"));
}

#[test]
fn an_image_is_inspected_with_its_layers_and_when_it_was_tagged() {
    let Some(world) = world() else { return };
    let dockerfile = "FROM localhost/busybox\nONBUILD RUN true\nSHELL [\"/bin/ash\", \"-c\"]\nSTOPSIGNAL SIGINT\nHEALTHCHECK CMD true\nRUN echo x > /x\n";
    world.build(dockerfile, &["-t", "localhost/i"]).ok();
    let found = &inspected(&world, &["--type", "image", "localhost/i"])[0];
    let config = &found["Config"];
    assert_eq!(
        (&config["OnBuild"][0], &config["Shell"][0], &config["StopSignal"]),
        (&"RUN true".into(), &"/bin/ash".into(), &"SIGINT".into())
    );
    assert_eq!(config["Healthcheck"]["Test"], serde_json::json!(["CMD-SHELL", "true"]));
    assert!(std::path::Path::new(found["GraphDriver"]["Data"]["UpperDir"].as_str().unwrap()).join("x").is_file(), "{found}");
    let tagged: jiff::Timestamp = found["Metadata"]["LastTagTime"].as_str().unwrap().parse().unwrap();
    assert!(jiff::Timestamp::now().duration_since(tagged).as_secs() < 600, "{tagged}");
    // A container has what its image says, and templates print nothing as Go does.
    world.strake(["create", "--name", "c", "localhost/i", "true"]).ok();
    assert_eq!(shown(&world, "{{.Config.OnBuild}} {{.Config.Shell}} {{.State.Health}}", "c"), "[RUN true] [/bin/ash -c] <nil>");
    world.strake(["create", "--name", "d", "localhost/busybox", "true"]).ok();
    let nothing =
        "{{.Config.Healthcheck}} {{.Config.Labels.x}} {{.HostConfig.CapAdd}} {{.HostConfig.Tmpfs}} {{.HostConfig.MemorySwappiness}}";
    assert_eq!(shown(&world, nothing, "d"), "<nil> <no value> [] map[] <nil>");
    assert_eq!(shown(&world, "{{.Config.Entrypoint}}|{{.Config.Volumes}}|{{.Config.User}}", "localhost/busybox"), "[]|map[]|");
}

#[test]
fn version_and_info_answer_what_scripts_ask_docker() {
    let Some(world) = world() else { return };
    let said = |args: &[&str]| world.strake(args).ok().stdout.trim_end().to_owned();
    assert_eq!(said(&["version", "-f", "{{.Client.Version}} {{.Server.Os}}"]), concat!(env!("CARGO_PKG_VERSION"), " linux"));
    assert!(said(&["version"]).contains(env!("CARGO_PKG_VERSION")));
    world.strake(["run", "-d", "--name", "c", "localhost/busybox", "sleep", "1000"]).ok();
    world.strake(["create", "localhost/busybox", "true"]).ok();
    let counts = "{{.Containers}} {{.ContainersRunning}} {{.ContainersStopped}} {{.Images}} {{.OSType}} {{.DockerRootDir}}";
    let expected = format!("2 1 1 1 linux {}", world.root().display());
    assert_eq!(said(&["info", "--format", counts]), expected);
    assert_eq!(said(&["system", "info", "--format", counts]), expected);
    let all: Value = serde_json::from_str(&said(&["info", "--format", "json"])).unwrap();
    assert!(all["NCPU"].as_u64() > Some(0) && all["MemTotal"].as_u64() > Some(1 << 20), "{all}");
    assert!(said(&["info"]).contains("2, 1 of them running"));
}

#[test]
fn structures_are_printed_as_docker_prints_them() {
    let Some(world) = world() else { return };
    world
        .strake([
            "run",
            "-d",
            "--name",
            "c",
            "-p",
            "127.0.0.1:0:80",
            "-v",
            "v:/v:ro",
            "--restart",
            "on-failure:3",
            "-l",
            "a=b",
            "localhost/busybox",
            "sleep",
            "1000",
        ])
        .ok();
    let port = shown(&world, "{{(index .NetworkSettings.Ports \"80/tcp\" 0).HostPort}}", "c");
    assert_eq!(shown(&world, "{{.NetworkSettings.Ports}}", "c"), format!("map[80/tcp:[{{127.0.0.1 {port}}}]]"));
    assert_eq!(
        shown(&world, "{{.HostConfig.RestartPolicy}} {{.Config.Labels}} {{.Config.ExposedPorts}}", "c"),
        "{on-failure 3} map[a:b] map[80/tcp:{}]"
    );
    let volume = world.root().join("volumes/v/_data");
    assert_eq!(shown(&world, "{{.Mounts}}", "c"), format!("[{{volume v {} /v local  false }}]", volume.display()));
    assert_eq!(world.strake(["ps", "--format", "{{.LocalVolumes}}"]).ok().stdout, "1\n");
    let sized = world.strake(["ps", "--format", "{{if .Names}}{{.Size}}{{end}}"]).ok().stdout;
    assert!(sized.starts_with("0B (virtual "), "{sized}");
    world.strake(["ps", "--filter", "exited=no"]).fails().says(&["`no` is no exit code"]);
}

#[test]
fn names_of_all_kinds_are_inspected_together_and_missing_ones_are_told() {
    let Some(world) = world() else { return };
    world.strake(["volume", "create", "v"]).ok();
    // No name that could be the beginning of an ID.
    world.strake(["create", "--name", "n", "localhost/busybox", "true"]).ok();
    let done = world.strake(["inspect", "none", "n", "nothing", "v", "localhost/busybox", "neither"]).run();
    assert_eq!(done.code, 1, "{done}");
    let found: Vec<Value> = serde_json::from_str(&done.stdout).unwrap();
    let kinds: Vec<&str> = ["IPAM", "HostConfig", "Mountpoint", "RootFS"].into_iter().collect();
    assert!(found.len() == 4 && found.iter().zip(kinds).all(|(value, key)| value.get(key).is_some()), "{done}");
    done.says(&["error: no such object: `nothing`", "error: no such object: `neither`"]);
    let done = world.strake(["inspect", "nothing"]).run();
    assert_eq!((done.code, done.stdout.as_str()), (1, "[]\n"), "{done}");
    for (kind, other, told) in [
        ("container", "localhost/busybox", "no such container"),
        ("image", "n", "no such image"),
        ("network", "n", "no such network"),
        ("volume", "n", "no such volume"),
    ] {
        let done = world.strake(["inspect", "--type", kind, other]).run();
        assert_eq!((done.code, done.stdout.as_str()), (1, "[]\n"), "{done}");
        done.says(&[told]);
    }
    assert_eq!(inspected(&world, &["--type=volume", "v"])[0]["Driver"], "local");
    world.strake(["inspect", "-s", "localhost/busybox"]).ok().says(&["--size has no effect on images"]);
}

#[test]
fn numbers_below_zero_are_values_of_flags_that_take_them() {
    let Some(world) = world() else { return };
    for name in ["a", "b"] {
        world
            .strake(["run", "-d", "--name", name, "localhost/busybox", "sh", "-c", "trap 'exit 7' TERM; while :; do sleep 0.1; done"])
            .ok();
    }
    world.strake(["create", "--name", "c", "--stop-timeout", "-1", "localhost/busybox", "true"]).ok();
    let names = |args: &[&str]| {
        let found = world.strake(["ps", "--format", "{{.Names}}"].iter().chain(args)).ok().stdout;
        found.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    assert_eq!((names(&["-n", "0"]), names(&["-n", "-1"]), names(&["-n", "2"])), ("b a".into(), "b a".into(), "c b".into()));
    assert_eq!(shown(&world, "{{.Config.StopTimeout}}", "c"), "-1");
    world.strake(["stop", "-t", "-1", "a"]).ok();
    assert_eq!(shown(&world, "{{.State.ExitCode}}", "a"), "7");
    world.strake(["restart", "-t", "-1", "b"]).ok();
    assert_eq!(shown(&world, "{{.State.Running}}", "b"), "true");
    let table = world.strake(["ps", "-a", "--format", "table"]).ok().stdout;
    let usual = world.strake(["ps", "-a"]).ok().stdout;
    // Times in the rows may have gone on meanwhile, and the columns with them.
    let begins = |text: &str| {
        let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        let rows: Vec<String> = text.lines().skip(1).map(|line| words(line).swap_remove(0)).collect();
        (words(text.lines().next().unwrap_or_default()), rows)
    };
    assert_eq!(begins(&table), begins(&usual));
    assert!(table.starts_with("CONTAINER ID") && table.lines().count() == 4, "{table}");
}

#[test]
fn details_of_a_log_are_the_labels_and_variables_that_were_chosen() {
    let Some(world) = world() else { return };
    let options = ["--log-opt", "labels=one,none", "--log-opt", "env-regex=^APP_", "--log-opt", "tag={{.Name}}/{{.ImageName}}"];
    let has = ["--label", "one=a b", "--label", "two=2", "-e", "APP_X=1,2", "-e", "OTHER=x"];
    let args = ["run", "--name", "c"].iter().chain(&options).chain(&has).chain(&["localhost/busybox", "echo", "hello"]);
    world.strake(args).ok();
    assert_eq!(world.strake(["logs", "-n", "all", "c"]).ok().stdout, "hello\n");
    let details = "APP_X=1%2C2,one=a+b,tag=c%2Flocalhost%2Fbusybox";
    assert_eq!(world.strake(["logs", "--details", "c"]).ok().stdout, format!("{details} hello\n"));
    let timed = world.strake(["logs", "--details", "-t", "c"]).ok().stdout;
    assert!(timed.ends_with(&format!("Z {details} hello\n")) && timed.starts_with("20"), "{timed}");
    world.strake(["run", "--name", "d", "localhost/busybox", "echo", "hello"]).ok();
    assert_eq!(world.strake(["logs", "--details", "d"]).ok().stdout, " hello\n");
    world.strake(["create", "--log-opt", "colour=red", "localhost/busybox", "true"]).fails().says(&["`colour`"]);
}

#[test]
fn what_is_out_of_range_is_refused_before_a_container_is_made() {
    let Some(world) = world() else { return };
    let there = std::thread::available_parallelism().unwrap().get();
    let above = (there + 1000).to_string();
    let deep = "/x".repeat(50_000);
    let refused: &[(&[&str], &str)] = &[
        (&["-m", "5m"], "less than 6m"),
        (&["--memory-reservation", "5m"], "less than 6m"),
        (&["-m", "64m", "--memory-reservation", "65m"], "--memory-reservation is more"),
        (&["-m", "64m", "--memory-swap", "32m"], "--memory-swap is less"),
        (&["--memory-swap", "64m"], "--memory-swap needs --memory"),
        (&["--cpus", &above], "above the number of processors"),
        (&["--cpus", "-1"], "--cpus"),
        (&["-w", "relative"], "the working directory 'relative' is invalid, it needs to be an absolute path"),
        (&["-w", &deep], "longer than a path may be"),
        (&["--mount", "type=volume,src=v,dst=/x,volume-subpath=../y"], "not a relative path within the volume"),
        (&["--mount", "type=volume,src=v,dst=/x,volume-subpath=/y"], "not a relative path within the volume"),
        (&["--mount", "type=volume,dst=/x,volume-subpath=nothing"], "nothing"),
        (&["-v", "/proc"], "nothing can be mounted on `/proc`"),
        (&["-v", "/dev"], "choose another place"),
        (&["-u", "2147483648"], "2147483648"),
        (&["--cpuset-cpus", &above], "available 0"),
        (&["--cpuset-cpus", "0-4294967295"], "which is not there"),
        (&["--log-opt", "compress=true"], "needs max-file"),
        (&["-u", "0:2147483648"], "2147483648"),
        (&["-u", "-1"], "-1"),
        (&["--ulimit", "nofile=10:5"], "soft limit"),
        (&["--name", "//two"], "`/two`"),
        (&["-v", "/tmp:/x", "-v", "/etc:/x/"], "duplicate mount point: `/x`"),
        (&["-v", "/tmp:/x", "--tmpfs", "/x"], "duplicate mount point: `/x`"),
        (&["-v", "/tmp:/x", "--mount", "type=bind,src=/etc,dst=/x"], "duplicate mount point: `/x`"),
    ];
    for (flags, told) in refused {
        let done = world.strake(["run", "--rm"].iter().chain(*flags).chain(&["localhost/busybox", "true"])).run();
        assert_eq!(done.code, 125, "{flags:?}: {done}");
        done.says(&[told]);
    }
    assert_eq!(world.strake(["ps", "-aq"]).ok().stdout, "");
    assert_eq!(world.strake(["volume", "ls", "-q"]).ok().stdout, "", "nothing is left of what failed");
    // What can be is made in no time, however deep.
    let done = world.strake(["run", "--rm", "-w", &"/x".repeat(2000), "localhost/busybox", "sh", "-c", "pwd | wc -c"]).ok();
    assert_eq!(done.stdout, "4001\n");
    assert!(done.elapsed < std::time::Duration::from_secs(15), "{:?}", done.elapsed);
    let allowed: &[&[&str]] = &[
        &["-m", "6m"],
        &["--pids-limit", "0"],
        &["--pids-limit", "-1"],
        &["-u", "2147483647"],
        &["--shm-size", "0"],
        &["-v", "/tmp:/x", "-v", "/tmp:/x"],
    ];
    for flags in allowed {
        world.strake(["run", "--rm"].iter().chain(*flags).chain(&["localhost/busybox", "true"])).ok();
    }
    let size = world.strake(["run", "--rm", "--shm-size", "0", "localhost/busybox", "df", "-k", "/dev/shm"]).ok().stdout;
    assert!(size.contains(" 65536 "), "{size}");
    // A name as `inspect` shows it means the container, and gives it that name.
    world.strake(["create", "--name", "/named", "localhost/busybox", "true"]).ok();
    assert_eq!(shown(&world, "{{.Name}}", "/named"), "/named");
    world.strake(["rm", "/named"]).ok();
}

#[test]
fn mounts_are_read_as_docker_reads_them() {
    let Some(world) = world() else { return };
    let odd = world.path("a,b");
    std::fs::create_dir(&odd).unwrap();
    std::fs::write(odd.join("file"), "found").unwrap();
    let mount = format!("TYPE=Bind,\"SRC={}\",Dst=/x,READONLY", odd.display());
    let done = world.strake(["run", "--rm", "--mount", &mount, "localhost/busybox", "sh", "-c", "cat /x/file; touch /x/no"]).run();
    assert_eq!((done.code, done.stdout.as_str()), (1, "found"), "{done}");
    done.says(&["Read-only"]);
    let options = "/x:nr_inodes=10,nr_blocks=100";
    let mounts = world.strake(["run", "--rm", "--tmpfs", options, "localhost/busybox", "grep", " /x ", "/proc/mounts"]).ok().stdout;
    assert!(mounts.contains("size=400k") && mounts.contains("nr_inodes=10"), "{mounts}");
    let mounts = world.strake(["run", "--rm", "--tmpfs", "/x:exec,suid", "localhost/busybox", "grep", " /x ", "/proc/mounts"]).ok().stdout;
    assert!(!mounts.contains("noexec") && !mounts.contains("nosuid") && mounts.contains("nodev"), "{mounts}");
}

#[test]
fn a_directory_that_a_volume_flag_names_is_made_again_for_a_later_start() {
    let Some(world) = world() else { return };
    let (made, named) = (world.path("made"), world.path("named"));
    std::fs::create_dir(&named).unwrap();
    let (volume, mount) = (format!("{}:/x", made.display()), format!("type=bind,src={},dst=/x", named.display()));
    let command = ["localhost/busybox", "touch", "/x/seen"];
    world.strake([&["create", "--name", "flag", "-v", &volume][..], &command].concat()).ok();
    world.strake([&["create", "--name", "mount", "--mount", &mount][..], &command].concat()).ok();
    std::fs::remove_dir(&made).unwrap();
    std::fs::remove_dir(&named).unwrap();
    world.strake(["start", "-a", "flag"]).ok();
    assert!(made.join("seen").exists());
    // What `--mount` names has to be there.
    world.strake(["start", "-a", "mount"]).fails().says(&["No such file"]);
    assert!(!named.exists());
    let twice = format!("{}:rslave,rshared", volume);
    world.strake(["create", "-v", &twice, "localhost/busybox"]).fails().says(&["one propagation"]);
}

#[test]
fn mounts_below_a_source_are_as_bind_recursive_says() {
    let Some(world) = world() else { return };
    let source = world.path("source");
    std::fs::create_dir_all(source.join("below")).unwrap();
    let host = std::thread::spawn(move || {
        use nix::mount::{MsFlags, mount};
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).unwrap();
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>).unwrap();
        mount(Some("none"), &source.join("below"), Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
        std::fs::write(source.join("below/file"), "").unwrap();
        let writes = |options: &str| {
            let mount = format!("type=bind,src={},dst=/x{options}", source.display());
            let script = "ls /x/below; touch /x/new && echo top; touch /x/below/new && echo below; rm -f /x/new /x/below/new";
            let said = world.strake(["run", "--rm", "--mount", &mount, "localhost/busybox", "sh", "-c", script]).run().stdout;
            said.split_whitespace().collect::<Vec<_>>().join(" ")
        };
        assert_eq!(writes(""), "file top below");
        assert_eq!(writes(",bind-recursive=disabled"), "top below");
        assert_eq!(writes(",ro"), "file");
        assert_eq!(writes(",ro,bind-recursive=readonly"), "file");
        assert_eq!(writes(",ro,bind-recursive=writable"), "file below");
    });
    if let Err(panic) = host.join() {
        std::panic::resume_unwind(panic);
    }
}

#[test]
fn words_that_make_no_sense_end_with_dockers_status() {
    let Some(world) = world() else { return };
    world.strake(["run", "-d", "--name", "c", "localhost/busybox", "sh", "-c", "echo one; echo two; exec sleep 1000"]).ok();
    wait_for("its words", 20, || world.strake(["logs", "c"]).ok().stdout == "one\ntwo\n");
    let status = |args: &[&str]| world.strake(args).run().code;
    for args in [&["kill", "-s", "NOPE", "c"][..], &["update", "--restart", "bad", "c"], &["inspect", "--type", "wrong", "c"]] {
        assert_eq!(status(args), 1, "{args:?}");
    }
    for args in [
        &["run", "--colour", "x"][..],
        &["container", "run", "--colour", "x"],
        &["create", "-m", "x", "y"],
        &["exec", "--colour", "c", "true"],
    ] {
        assert_eq!(status(args), 125, "{args:?}");
    }
    // What is no number is all, and no time is none.
    for args in [&["logs", "--tail", "bad", "c"][..], &["logs", "-n", "x", "c"], &["logs", "--until", "0", "c"]] {
        assert_eq!(world.strake(args).ok().stdout, "one\ntwo\n", "{args:?}");
    }
    // Nobody reads what a command says: it ends without a word about that.
    let script = format!("{} exec c yes | head -n 1", env!("CARGO_BIN_EXE_strake"));
    let mut run = crate::common::Run::new("sh", ["-c", &script]).env("STRAKE_ROOT", world.root()).env("HOME", world.path("home"));
    run.command().env("PATH", "/usr/bin:/bin:/usr/sbin:/sbin");
    let done = run.ok();
    assert_eq!((done.stdout.as_str(), done.stderr.as_str()), ("y\n", ""));
}

#[test]
fn a_directory_of_devices_gives_all_that_are_in_it() {
    let Some(world) = world() else { return };
    let dir = world.path("devices");
    std::fs::create_dir_all(dir.join("more")).unwrap();
    std::fs::write(dir.join("plain"), "").unwrap();
    for (name, minor) in [("one", 3), ("more/two", 5)] {
        Run::new("mknod", ["-m", "666"]).arg(dir.join(name)).arg_all(&["c", "1", &minor.to_string()]).ok();
    }
    let device = format!("{}:/dev/all", dir.display());
    let script = "head -c 2 /dev/all/more/two | od -An -tx1; echo lost > /dev/all/one; find /dev/all | sort";
    let said = world.strake(["run", "--rm", "--device", &device, "localhost/busybox", "sh", "-c", script]).ok().stdout;
    assert_eq!(said, " 00 00\n/dev/all\n/dev/all/more\n/dev/all/more/two\n/dev/all/one\n");
}

#[test]
fn filters_by_port_take_ranges_of_the_hosts_ports_and_of_the_containers_own() {
    let Some(world) = world() else { return };
    world
        .strake(["run", "-d", "--name", "web", "-p", "127.0.0.1::80", "--expose", "7000-7010/udp", "localhost/busybox", "sleep", "1000"])
        .ok();
    world.strake(["create", "--name", "plain", "localhost/busybox", "true"]).ok();
    let names = |filter: &str| world.strake(["ps", "-a", "--format", "{{.Names}}", "--filter", filter]).ok().stdout;
    for filter in ["expose=80/tcp", "expose=7005/udp", "expose=6000-7000/udp"] {
        assert_eq!(names(filter), "web\n", "{filter}");
    }
    let told = world.strake(["port", "web", "80"]).ok().stdout;
    if let Some((_, port)) = told.trim().rsplit_once(':') {
        let port: u16 = port.parse().unwrap();
        for filter in [format!("publish={port}"), format!("publish={}-{}/tcp", port - 1, port)] {
            assert_eq!(names(&filter), "web\n", "{filter}");
        }
        assert_eq!(names(&format!("publish={port}/udp")), "");
    }
    for filter in ["publish=80", "publish=7005/udp", "expose=7005", "expose=7011-7020/udp"] {
        assert_eq!(names(filter), "", "{filter}");
    }
    world.strake(["ps", "--filter", "publish=90-80"]).fails().says(&["90-80"]);
}

#[test]
fn lists_of_containers_show_what_docker_shows() {
    let Some(world) = world() else { return };
    std::fs::create_dir(world.path("dir")).unwrap();
    let bind = format!("{}:/dir", world.path("dir").display());
    world.strake(["create", "--name", "web", "-v", "vol:/vol", "-v", &bind, "localhost/busybox", "sh", "-c", "echo one"]).ok();
    world.strake(["create", "--name", "web2", "localhost/busybox", "true"]).ok();
    let ps = |args: &[&str]| world.strake(["ps", "-a"].iter().chain(args)).ok().stdout;
    let names = |filter: &str| ps(&["--format", "{{.Names}}", "--filter", filter]);
    // A name is a regular expression, with Docker's slash in front of it or without.
    for (filter, found) in
        [("name=^web$", "web\n"), ("name=^/web$", "web\n"), ("name=web", "web2\nweb\n"), ("name=^eb", ""), ("name=w.b2", "web2\n")]
    {
        assert_eq!(names(filter), found, "{filter}");
    }
    assert_eq!((names("is-task=false"), names("is-task=true")), ("web2\nweb\n".to_owned(), String::new()));
    let dir = world.path("dir").display().to_string();
    for volume in ["vol", "/vol", "/dir", &dir] {
        assert_eq!(names(&format!("volume={volume}")), "web\n", "{volume}");
    }
    let shown = ps(&["--no-trunc", "--format", "{{.Mounts}}|{{.LocalVolumes}}|{{.Command}}", "--filter", "name=^web$"]);
    assert_eq!(shown, format!("vol,{dir}|1|\"sh -c 'echo one'\"\n"));
    let size = ps(&["-s", "--format", "{{.Size}}", "--filter", "name=^web$"]);
    assert!(size.starts_with("0B (virtual ") && size.ends_with("B)\n"), "{size}");
    let row: Value = serde_json::from_str(&ps(&["--format", "json", "--filter", "name=^web$"])).unwrap();
    assert_eq!(row["State"], "created");
    // No column of a table is narrower than ten.
    assert!(ps(&[]).starts_with("CONTAINER ID   IMAGE") && ps(&[]).contains("PORTS     NAMES"), "{}", ps(&[]));
    let mounts = "{{range .Mounts}}{{.Type}}:{{.Name}}:{{.Driver}} {{end}}";
    assert_eq!(shown_words(&world, mounts, "web"), ["bind::", "volume:vol:local"]);
}

#[track_caller]
fn shown_words(world: &World, format: &str, name: &str) -> Vec<String> {
    let mut words: Vec<String> = shown(world, format, name).split_whitespace().map(str::to_owned).collect();
    words.sort();
    words
}

#[test]
fn what_was_asked_of_a_health_check_is_shown_as_it_was_asked() {
    let Some(world) = world() else { return };
    world
        .strake(["create", "--name", "a", "--health-cmd", "true", "--health-interval", "7s", "-v", "/data", "localhost/busybox", "true"])
        .ok();
    world.strake(["create", "--name", "b", "--no-healthcheck", "localhost/busybox", "true"]).ok();
    world.strake(["create", "--name", "c", "localhost/busybox", "true"]).ok();
    assert_eq!(shown(&world, "{{json .Config.Healthcheck}}", "a"), r#"{"Test":["CMD-SHELL","true"],"Interval":7000000000}"#);
    assert_eq!(shown(&world, "{{json .Config.Healthcheck}}", "b"), r#"{"Test":["NONE"]}"#);
    assert_eq!(shown(&world, "{{json .Config.Healthcheck}}", "c"), "null");
    // An anonymous volume is one more `VOLUME`, also of an image that is made of the container.
    assert_eq!(shown(&world, "{{json .Config.Volumes}}", "a"), r#"{"/data":{}}"#);
    world.strake(["commit", "a", "localhost/kept"]).ok();
    assert_eq!(shown(&world, "{{json .Config.Volumes}} {{.Config.Healthcheck.Interval}}", "localhost/kept"), r#"{"/data":{}} 7s"#);
}

#[test]
fn a_container_that_could_not_be_started_was_created_and_no_more() {
    let Some(world) = world() else { return };
    let failed = world.strake(["run", "-d", "--name", "c", "localhost/busybox", "nonesuch"]).run();
    assert_eq!((failed.code, failed.stdout.trim()), (127, shown(&world, "{{.Id}}", "c").as_str()), "{failed}");
    assert_eq!(shown(&world, "{{.State.Status}} {{.State.ExitCode}}", "c"), "created 127");
    assert_eq!(world.strake(["ps", "-a", "--format", "{{.Status}}"]).ok().stdout, "Created\n");
    // An empty word is no command either, and an empty name is none.
    assert_eq!(world.strake(["run", "--rm", "--name", "", "localhost/busybox", ""]).run().code, 127);
    assert_eq!(world.strake(["start", "-a", "c"]).run().code, 1);
    // Who was never started has not failed.
    world.strake(["create", "--name", "d", "localhost/busybox", "true"]).ok();
    assert_eq!(world.strake(["wait", "d"]).ok().stdout, "0\n");
}

#[test]
fn command_lines_that_make_no_sense_end_with_the_status_of_docker() {
    let Some(world) = world() else { return };
    world.strake(["create", "--name", "c", "--log-driver", "none", "localhost/busybox", "true"]).ok();
    for (args, status) in [
        (&["run"][..], 1),
        (&["exec", "c"], 1),
        (&["stop"], 1),
        (&["rename", "c"], 1),
        (&["logs", "c", "c"], 1),
        (&["ps", "--colour"], 125),
        (&["ps", "extra"], 1),
        (&["ps", "--filter", "what=1"], 1),
        (&["stop", "-t", "soon", "c"], 125),
        (&["update", "-m", "1m", "c"], 1),
        (&["volume", "what"], 1),
        (&["volume", "ls", "--colour"], 125),
        (&["run", "-it", "localhost/busybox", "true"], 1),
        // It keeps no log.
        (&["logs", "c"], 1),
        (&["build", "--colour", "."], 2),
    ] {
        let done = world.strake(args).run();
        assert_eq!(done.code, status, "{args:?}: {done}");
    }
}

#[test]
fn flags_that_ask_for_the_usual_and_little_ones_are_taken() {
    let Some(world) = world() else { return };
    let run = |flags: &[&str], command: &[&str]| {
        let words = ["run", "--rm"].iter().chain(flags).chain(&["localhost/busybox"]).chain(command).copied().collect::<Vec<_>>();
        world.strake(words).ok().stdout
    };
    assert_eq!(run(&["--isolation", "default", "--volume-driver", "local", "--log-opt", "max-file=3"], &["echo", "hi"]), "hi\n");
    world.strake(["run", "--isolation", "hyperv", "localhost/busybox"]).fails().says(&["hyperv"]);
    // What is added by name stays, whatever is dropped.
    let both = run(&["--cap-add", "NET_ADMIN", "--cap-drop", "NET_ADMIN"], &["grep", "CapBnd", "/proc/self/status"]);
    let added = run(&["--cap-add", "NET_ADMIN"], &["grep", "CapBnd", "/proc/self/status"]);
    assert_eq!(both, added);
    let names = run(&["--network", "none", "-h", "web.example.com"], &["tail", "-n1", "/etc/hosts"]);
    assert_eq!(names.split_whitespace().skip(1).collect::<Vec<_>>(), ["web.example.com", "web"]);
    let mounts = run(&["--tmpfs", "/scratch"], &["cat", "/proc/mounts"]);
    assert!(mounts.contains("shm /dev/shm tmpfs") && mounts.contains("tmpfs /scratch tmpfs"), "{mounts}");
    world.strake(["volume", "create", "--name", "named"]).ok();
    assert_eq!(world.strake(["volume", "ls", "-q"]).ok().stdout, "named\n");
}

#[test]
fn a_compressed_archive_is_copied_into_a_container() {
    let Some(world) = world() else { return };
    world.strake(["create", "--name", "c", "localhost/busybox", "true"]).ok();
    std::fs::write(world.path("f"), "inside").unwrap();
    let dir = world.path("").display().to_string();
    let script = format!("tar -C {dir} -czf - f | {} cp - c:/tmp", env!("CARGO_BIN_EXE_strake"));
    let mut copy = crate::common::Run::new("sh", ["-c", &script]).env("STRAKE_ROOT", world.root()).env("HOME", world.path("home"));
    copy.command().env("PATH", "/usr/bin:/bin:/usr/sbin:/sbin");
    copy.ok();
    // Where nobody looks, nothing is told.
    let out = world.path("out").display().to_string();
    assert_eq!(world.strake(["cp", "c:/tmp/f", &out]).ok().stderr, "");
    assert_eq!(std::fs::read_to_string(out).unwrap(), "inside");
}

#[test]
fn figures_of_containers_are_under_the_name_that_was_asked_for() {
    let Some(world) = world() else { return };
    world.strake(["create", "--name", "c", "localhost/busybox", "true"]).ok();
    let format = "{{.Container}}|{{.CPUPerc}}|{{.MemUsage}}|{{.PIDs}}";
    assert_eq!(world.strake(["stats", "--no-stream", "--format", format, "c"]).ok().stdout, "c|0.00%|0B / 0B|0\n");
    world.strake(["run", "-d", "--name", "d", "localhost/busybox", "sleep", "1000"]).ok();
    let top = world.strake(["top", "d", "aux"]).ok().stdout;
    assert!(top.starts_with("USER                PID                 %CPU                %MEM"), "{top}");
}

#[test]
fn volumes_with_options_are_mounted_for_their_containers() {
    let Some(world) = world() else { return };
    let run = |args: &[&str]| world.strake(["run", "--rm"].iter().chain(args)).ok().stdout;
    world.strake(["volume", "create", "-o", "type=tmpfs", "-o", "device=tmpfs", "-o", "o=size=1m,uid=7,mode=750", "ram"]).ok();
    let script = "stat -c '%u %a' /x; grep ' /x ' /proc/mounts; echo kept > /x/f";
    let said = run(&["-v", "ram:/x", "localhost/busybox", "sh", "-c", script]);
    assert!(said.starts_with("7 750\ntmpfs /x tmpfs rw") && said.contains("size=1024k"), "{said}");
    assert!(!std::fs::read_to_string("/proc/self/mounts").unwrap().contains(world.root().to_str().unwrap()));
    assert_eq!(run(&["-v", "ram:/x", "localhost/busybox", "ls", "/x"]), "");
    let outside = world.path("outside");
    std::fs::create_dir(&outside).unwrap();
    let device = format!("device={}", outside.display());
    world.strake(["volume", "create", "-o", "type=none", "-o", "o=bind", "-o", &device, "dir"]).ok();
    run(&["-v", "dir:/x", "localhost/busybox", "sh", "-c", "echo written > /x/f"]);
    assert_eq!(std::fs::read_to_string(outside.join("f")).unwrap(), "written\n");
    // Those who share it have it too, and it is in use.
    world.strake(["create", "--name", "c", "-v", "dir:/x:ro", "-v", "ram:/y", "localhost/busybox", "true"]).ok();
    assert_eq!(
        run(&["--volumes-from", "c", "localhost/busybox", "sh", "-c", "cat /x/f; touch /x/no || touch /y/yes && ls /y"]),
        "written\nyes\n"
    );
    world.strake(["volume", "rm", "dir"]).fails().says(&["in use", "`c`"]);
    let mounts = &inspected(&world, &["c"])[0]["Mounts"];
    let shown: Vec<_> =
        mounts.as_array().unwrap().iter().map(|mount| (mount["Type"].as_str().unwrap(), mount["Name"].as_str().unwrap())).collect();
    assert_eq!(shown, [("volume", "dir"), ("volume", "ram")]);
    let options = serde_json::json!({ "device": "tmpfs", "o": "size=1m,uid=7,mode=750", "type": "tmpfs" });
    assert_eq!(inspected(&world, &["--type", "volume", "ram"])[0]["Options"], options);
    // A volume that is there stays as it is.
    assert_eq!(world.strake(["volume", "create", "-o", "type=tmpfs", "-o", "device=tmpfs", "ram"]).ok().stdout, "ram\n");
    assert_eq!(inspected(&world, &["--type", "volume", "ram"])[0]["Options"], options);
    let mount = "type=volume,source=new,target=/x,volume-opt=type=tmpfs,volume-opt=device=tmpfs,\"volume-opt=o=size=2m,mode=700\"";
    assert!(run(&["--mount", mount, "localhost/busybox", "grep", " /x ", "/proc/mounts"]).contains("size=2048k,mode=700"));
}

#[test]
fn a_volume_may_be_a_file_system_of_a_device() {
    let Some(world) = world() else { return };
    if !crate::common::able(&["mkfs.ext4", "losetup"]) {
        return;
    }
    let image = world.path("disk");
    std::fs::File::create(&image).unwrap().set_len(8 << 20).unwrap();
    Run::new("mkfs.ext4", ["-q", "-F"]).arg(&image).ok();
    let device = Run::new("losetup", ["--find", "--show"]).arg(&image).ok().stdout.trim().to_owned();
    world.strake(["volume", "create", "-o", "type=ext4", "-o", &format!("device={device}"), "disk"]).ok();
    let first = world.strake(["run", "--rm", "-v", "disk:/d", "localhost/busybox", "sh", "-c", "echo kept > /d/f"]).run();
    let second = world.strake(["run", "--rm", "-v", "disk:/d:ro", "localhost/busybox", "sh", "-c", "cat /d/f; touch /d/no"]).run();
    Run::new("losetup", ["--detach", &device]).ok();
    assert_eq!(first.code, 0, "{first}");
    assert_eq!((second.code, second.stdout.as_str()), (1, "kept\n"), "{second}");
}

#[test]
fn options_of_volumes_that_make_no_sense_are_refused() {
    let Some(world) = world() else { return };
    for (options, told) in [
        (&["type=tmpfs"][..], "needs `device`"),
        (&["o=bind", "device=/x"], "needs `type`"),
        (&["size=10m"], "no limits to single volumes"),
        (&["colour=red"], "`colour`"),
        (&["type=none", "device=/x"], "o=bind"),
    ] {
        let options: Vec<&str> = options.iter().flat_map(|option| ["-o", option]).collect();
        world.strake(["volume", "create"].iter().chain(&options).chain(&["v"])).fails().says(&[told]);
    }
    assert_eq!(world.strake(["volume", "ls", "-q"]).ok().stdout, "");
    world.strake(["volume", "create", "-o", "type=none", "-o", "o=bind", "-o", "device=/nowhere/at/all", "v"]).ok();
    world.strake(["run", "--rm", "-v", "v:/x", "localhost/busybox", "true"]).fails().says(&["/nowhere/at/all"]);
    world.strake(["volume", "create", "-o", "type=nosuchfs", "-o", "device=none", "w"]).ok();
    world.strake(["run", "--rm", "-v", "w:/x", "localhost/busybox", "true"]).fails().says(&["file system", "/x"]);
}

#[test]
fn an_init_shows_nothing_of_the_engine_and_may_no_more_than_the_command() {
    let Some(world) = world() else { return };
    let script = "tr '\\0' ' ' < /proc/1/cmdline; echo; cat /proc/1/comm; for p in 1 self; do grep -E '^(Uid|Gid|Groups|Cap|NoNewPrivs)' /proc/$p/status; echo; done";
    let said = |flags: &[&str]| {
        let command = ["localhost/busybox", "sh", "-c", script];
        world.strake(["run", "--rm", "--init"].iter().chain(flags).chain(&command)).ok().stdout
    };
    for flags in [&[][..], &["--cap-drop", "ALL"], &["-u", "1000:1000"], &["--cap-add", "NET_ADMIN", "--security-opt", "no-new-privileges"]]
    {
        let said = said(flags);
        let (head, status) = said.split_once("strake-init\n").unwrap();
        assert_eq!(head.trim_end_matches([' ', '\n']), "strake-init", "{said}");
        let [init, command] = status.trim_end().split("\n\n").collect::<Vec<_>>()[..] else { panic!("{said}") };
        assert_eq!(init, command, "{flags:?}");
    }
    // It ends with the command, passes signals on to it whoever that is, and other commands come in.
    let trap = "trap 'exit 7' TERM; while :; do sleep 0.1; done";
    world.strake(["run", "-d", "--init", "--name", "c", "-u", "1000", "--cap-drop", "ALL", "localhost/busybox", "sh", "-c", trap]).ok();
    assert_eq!(world.strake(["exec", "c", "cat", "/proc/1/comm"]).ok().stdout, "strake-init\n");
    world.strake(["stop", "-t", "30", "c"]).ok();
    assert_eq!(shown(&world, "{{.State.ExitCode}}", "c"), "7");
}

#[test]
fn a_link_gives_a_name_and_variables() {
    let Some(world) = world() else { return };
    let other = ["run", "-d", "--name", "db", "--expose", "5432", "-e", "SECRET=x", "localhost/busybox", "sleep", "1000"];
    world.strake(other).ok();
    let address = shown(&world, "{{.NetworkSettings.IPAddress}}", "db");
    if address.is_empty() {
        println!("skipped: containers have the host's network here");
        return;
    }
    let script = "grep base /etc/hosts; env | grep ^BASE | sort; ping -c 1 -W 5 base > /dev/null && echo there";
    let link = ["run", "--rm", "--name", "web", "--link", "db:base", "-e", "BASE_ENV_SECRET=own", "localhost/busybox", "sh", "-c", script];
    let said = world.strake(link).ok().stdout;
    let id = shown(&world, "{{.Id}}", "db");
    let expected = format!(
        "{address}\tbase {} db\nBASE_ENV_SECRET=own\nBASE_NAME=/web/base\nBASE_PORT=tcp://{address}:5432\nBASE_PORT_5432_TCP=tcp://{address}:5432\n\
         BASE_PORT_5432_TCP_ADDR={address}\nBASE_PORT_5432_TCP_PORT=5432\nBASE_PORT_5432_TCP_PROTO=tcp\nthere\n",
        &id[..12]
    );
    assert_eq!(said, expected);
    world.strake(["create", "--name", "later", "--link", "db", "localhost/busybox", "true"]).ok();
    assert_eq!(shown(&world, "{{.HostConfig.Links}}", "later"), "[/db:/later/db]");
    world.strake(["stop", "-t", "0", "db"]).ok();
    world.strake(["start", "later"]).fails().says(&["cannot link", "does not run", "strake start"]);
    let network = ["run", "--rm", "--network", "host", "--link", "db", "localhost/busybox", "true"];
    world.strake(network).fails().says(&["--link"]);
    world.strake(["run", "--rm", "--link", "nobody", "localhost/busybox", "true"]).fails().says(&["`nobody`"]);
}

#[test]
fn an_archive_is_imported_from_an_address() {
    let Some(world) = world() else { return };
    let tar = std::fs::read(crate::common::bases().join("busybox.tar")).unwrap();
    let url =
        scripted(move |_, path| if path.ends_with("/root.tar") { Reply::body("application/x-tar", tar.clone()) } else { Reply::missing() });
    world.strake(["import", &format!("http://{url}/root.tar"), "localhost/web:1"]).ok();
    assert_eq!(world.strake(["run", "--rm", "localhost/web:1", "echo", "it runs"]).ok().stdout, "it runs\n");
    let comment = world.strake(["inspect", "-f", "{{.Comment}}", "localhost/web:1"]).ok().stdout;
    assert_eq!(comment, format!("Imported from http://{url}/root.tar\n"));
    world.strake(["import", &format!("http://{url}/none.tar"), "localhost/web:2"]).fails().says(&["404", "none.tar"]);
    world.strake(["import", "ftp://localhost/x.tar"]).fails().says(&["http://"]);
}

#[test]
fn global_flags_tell_what_happens_inside() {
    let Some(world) = world() else { return };
    // An event that cannot be put on record is nothing that a user hears of unasked.
    std::fs::remove_file(world.root().join("events.log")).unwrap();
    std::fs::create_dir(world.root().join("events.log")).unwrap();
    let quiet = world.strake(["tag", "localhost/busybox", "localhost/a"]).ok();
    assert_eq!(quiet.stderr, "");
    for flags in [&["-D"][..], &["--debug"], &["--log-level", "debug"], &["-l", "DEBUG"]] {
        world.strake(flags.iter().chain(&["tag", "localhost/busybox", "localhost/a"])).ok().says(&["debug: an event is not on record"]);
    }
    for flags in [&["--log-level=warn"][..], &["-l", "fatal"]] {
        assert_eq!(world.strake(flags.iter().chain(&["tag", "localhost/busybox", "localhost/a"])).ok().stderr, "");
    }
    world.strake(["-l", "loud", "ps"]).fails().says(&["loud"]);
}

#[test]
fn file_systems_in_memory_are_like_the_directories_that_they_cover() {
    let Some(world) = world() else { return };
    let mode = |flags: &[&str], path: &str| {
        let args = [&["run", "--rm", "--network", "none"][..], flags, &["localhost/busybox", "stat", "-c", "%a", path]].concat();
        world.strake(args).ok().stdout.trim().to_owned()
    };
    assert_eq!(mode(&[], "/root"), "700", "the image has it closed");
    assert_eq!(mode(&["--tmpfs", "/root"], "/root"), "700");
    assert_eq!(mode(&["--mount", "type=tmpfs,dst=/root"], "/root"), "700");
    assert_eq!(mode(&["--tmpfs", "/root:mode=750"], "/root"), "750");
    assert_eq!(mode(&["--mount", "type=tmpfs,dst=/root,tmpfs-mode=1777"], "/root"), "1777");
    assert_eq!(mode(&["--tmpfs", "/new/one"], "/new/one"), "1777");
    for options in ["ro,rw", "rw,ro", "ro,ro"] {
        world.strake(["run", "--rm", "-v", &format!("a:/b:{options}"), "localhost/busybox", "true"]).fails().says(&["`ro` and `rw`"]);
    }
}

#[test]
fn a_container_without_addresses_has_the_fields_of_a_network_all_the_same() {
    let Some(world) = world() else { return };
    for network in ["none", "host"] {
        world.strake(["run", "-d", "--network", network, "--name", network, "localhost/busybox", "sleep", "100"]).ok();
        let format = "{{range $name, $on := .NetworkSettings.Networks}}{{$name}}:{{$on.IPAddress}}:{{$on.IPPrefixLen}}:{{$on.Gateway}}:{{$on.MacAddress}}:{{$on.DNSNames}}{{end}}";
        assert_eq!(shown(&world, format, network), format!("{network}::0:::[]"));
        let id = shown(&world, &format!("{{{{.NetworkSettings.Networks.{network}.EndpointID}}}}"), network);
        assert_eq!(id.len(), 64, "{id}");
        world.strake(["stop", "-t", "0", network]).ok();
        assert_eq!(shown(&world, &format!("{{{{.NetworkSettings.Networks.{network}.EndpointID}}}}"), network), "");
    }
}

#[test]
fn containers_are_found_by_an_image_below_theirs() {
    let Some(world) = world() else { return };
    world.build("FROM localhost/busybox\nRUN echo x > /x\n", &["-t", "localhost/above"]).ok();
    world.build("FROM scratch\nCOPY Dockerfile /\n", &["-t", "localhost/other"]).ok();
    for image in ["busybox", "above", "other"] {
        world.strake(["create", "--network", "none", "--name", image, &format!("localhost/{image}"), "true"]).ok();
    }
    let found = |image: &str| {
        let found = world.strake(["ps", "-a", "--filter", &format!("ancestor={image}"), "--format", "{{.Names}}"]).ok().stdout;
        found.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    assert_eq!(found("localhost/busybox"), "above busybox");
    assert_eq!((found("localhost/above"), found("localhost/other"), found("nosuch")), ("above".into(), "other".into(), String::new()));
}

#[test]
fn a_log_that_cannot_be_written_is_a_failure_and_one_that_nobody_reads_is_none() {
    let Some(world) = world() else { return };
    world.strake(["run", "--network", "none", "--name", "c", "localhost/busybox", "seq", "1", "100000"]).ok();
    let script = format!(
        "{0} logs c >/dev/full; echo $?; {0} logs -f c >/dev/full; echo $?; set -o pipefail; {0} logs c | head -n 1; echo $?",
        env!("CARGO_BIN_EXE_strake")
    );
    let mut run = Run::new("bash", ["-c", &script]);
    run.command().env("STRAKE_ROOT", world.root());
    let done = run.ok();
    assert_eq!(done.stdout, "1\n1\n1\n0\n");
    assert!(done.stderr.contains("cannot write to standard output"), "{done}");
}

#[test]
fn the_contents_of_a_directory_come_with_its_mode() {
    let Some(world) = world() else { return };
    let make = "mkdir -p /d/sub; echo x > /d/f; chmod 750 /d";
    world.strake(["run", "--network", "none", "--name", "c", "localhost/busybox", "sh", "-c", make]).ok();
    let script = format!("{} cp c:/d/. - | tar tvf - | awk '{{print $1, $6}}' | sort", env!("CARGO_BIN_EXE_strake"));
    let mut run = Run::new("bash", ["-c", &script]);
    run.command().env("STRAKE_ROOT", world.root());
    assert_eq!(run.ok().stdout, "-rw-r--r-- f\ndrwxr-x--- ./\ndrwxr-xr-x sub/\n");
}

#[test]
fn containers_are_stopped_together() {
    let Some(world) = world() else { return };
    let names = ["a", "b", "c", "d"];
    for name in names {
        let deaf = [
            "run",
            "-d",
            "--network",
            "none",
            "--name",
            name,
            "localhost/busybox",
            "sh",
            "-c",
            "trap '' TERM; while :; do sleep 0.1; done",
        ];
        world.strake(deaf).ok();
    }
    let done = world.strake(["stop", "-t", "3", "a", "b", "nosuch", "c", "a", "d"]).fails();
    assert_eq!((done.code, done.stdout.as_str()), (1, "a\nb\nc\na\nd\n"), "{done}");
    assert!(done.elapsed < std::time::Duration::from_secs(11) && done.stderr.contains("nosuch"), "{done}");
    for name in names {
        assert_eq!(shown(&world, "{{.State.Status}} {{.State.ExitCode}}", name), "exited 137");
    }
}
