//! Sandboxes with a busybox root, judged by what the processes in them say.

use std::ffi::OsString;
use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::testing::spawner;
use super::*;
use crate::path::RootPath;
use crate::sys::{OverlayUpper, RootfsMount};

/// A root file system with busybox as one layer, and a writable layer above it.
struct Rootfs {
    dir: tempfile::TempDir,
}

/// Whether this is the run of [`everything_works_without_root_that_the_kernel_allows`].
fn is_rootless() -> bool {
    std::env::var_os(testing::ROOTLESS).is_some()
}

const BUSYBOX: &str = "/bin/busybox";

impl Rootfs {
    fn new() -> Rootfs {
        let dir = tempfile::tempdir().unwrap();
        for name in ["base/bin", "base/proc", "base/dev", "base/sys", "base/etc", "base/tmp", "base/wdir", "upper", "wrk"] {
            std::fs::create_dir_all(dir.path().join(name)).unwrap();
        }
        std::fs::copy(BUSYBOX, dir.path().join("base/bin/busybox")).unwrap();
        for name in "sh true false cat ls id env pwd hostname sleep mount mknod head grep kill touch ps stat echo dd tr wc readlink umask ulimit stty tty rm sort sed date mkdir test".split(' ') {
            symlink("busybox", dir.path().join("base/bin").join(name)).unwrap();
        }
        Rootfs { dir }
    }

    fn base(&self) -> PathBuf {
        self.dir.path().join("base")
    }

    fn upper(&self) -> PathBuf {
        self.dir.path().join("upper")
    }

    fn mount(&self, lower: Vec<PathBuf>) -> RootfsMount {
        let upper = OverlayUpper { upper: self.upper(), work: self.dir.path().join("wrk") };
        RootfsMount::Overlay { lower, upper: Some(upper), userxattr: is_rootless() }
    }

    fn spec(&self, args: &[&str]) -> SandboxSpec {
        let args = args.iter().map(OsString::from).collect();
        SandboxSpec::new(self.mount(vec![self.base()]), ProcessSpec::new(args, vec!["PATH=/bin".into()]))
    }

    fn shell(&self, script: &str) -> SandboxSpec {
        self.spec(&["/bin/sh", "-c", script])
    }
}

/// Standard streams: nothing in, and a pipe that takes output and errors.
fn streams() -> (SandboxIo, File) {
    let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
    let stdin: OwnedFd = File::open("/dev/null").unwrap().into();
    let stderr = write.try_clone().unwrap();
    (SandboxIo::new(Stdio::Descriptors { stdin, stdout: write, stderr }), read.into())
}

struct Ran {
    exit: Exit,
    output: String,
}

#[track_caller]
fn run(spec: &SandboxSpec) -> Ran {
    try_run(spec).unwrap_or_else(|error| panic!("{error}: {:?}", std::error::Error::source(&error)))
}

fn try_run(spec: &SandboxSpec) -> Result<Ran> {
    let (io, mut read) = streams();
    let mut running = spawner().unwrap().spawn(spec, io)?;
    let mut output = Vec::new();
    read.read_to_end(&mut output).unwrap();
    let exit = running.wait()?;
    Ok(Ran { exit, output: String::from_utf8_lossy(&output).trim_end().to_owned() })
}

#[track_caller]
fn output(spec: &SandboxSpec) -> String {
    let ran = run(spec);
    assert_eq!(ran.exit.status, ExitStatus::Code(0), "{}", ran.output);
    ran.output
}

macro_rules! needs_root {
    () => {
        if spawner().is_none() {
            return;
        }
    };
}

#[test]
fn exit_codes_and_signals_come_back() {
    needs_root!();
    let rootfs = Rootfs::new();
    assert_eq!(run(&rootfs.shell("exit 42")).exit.status, ExitStatus::Code(42));
    // PID 1 ignores signals that it does not handle, so a child of it is killed, and then PID 1 by the host.
    let (io, _read) = streams();
    let mut running = spawner().unwrap().spawn(&rootfs.spec(&["sleep", "100"]), io).unwrap();
    running.kill(libc::SIGKILL).unwrap();
    assert_eq!(running.wait().unwrap().status, ExitStatus::Signal(9));
    assert_eq!(running.wait().unwrap().status.code(), 137);
    running.kill(libc::SIGTERM).unwrap();
}

#[test]
fn commands_that_cannot_run_say_why() {
    needs_root!();
    let rootfs = Rootfs::new();
    let write = |name: &str, text: &str, mode: u32| {
        let path = rootfs.base().join("bin").join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    write("plain", "text", 0o644);
    write("script", "#!/bin/nonesuch -x\n", 0o755);
    write("garbage", "no format", 0o755);
    write("escape", "#!/proc/self/exe\n", 0o755);
    let failure = |args: &[&str]| match try_run(&rootfs.spec(args)) {
        Err(Error::Exec(error)) => error,
        other => panic!("{args:?}: {:?}", other.map(|ran| ran.exit)),
    };
    let command = |name: &str| name.to_owned();
    assert_eq!(failure(&["nonesuch"]), ExecError::NotFound { command: command("nonesuch"), path: Some("/bin".into()) });
    assert_eq!(failure(&["/x/y"]), ExecError::NotFound { command: command("/x/y"), path: None });
    assert_eq!(failure(&["/bin/plain"]), ExecError::PermissionDenied { command: command("/bin/plain") });
    assert_eq!(failure(&["plain"]), ExecError::PermissionDenied { command: command("/bin/plain") });
    assert_eq!(failure(&["/bin"]), ExecError::IsDirectory { command: command("/bin") });
    assert_eq!(failure(&["/bin/garbage"]), ExecError::BadFormat { command: command("/bin/garbage") });
    let missing = failure(&["script"]);
    assert_eq!(missing, ExecError::MissingInterpreter { command: command("script"), interpreter: "/bin/nonesuch".into() });
    assert_eq!((missing.exit_code(), failure(&["/bin/plain"]).exit_code(), failure(&["nonesuch"]).exit_code()), (127, 126, 127));
    // The host's binary behind /proc/self/exe is out of reach, by name and as an interpreter.
    assert_eq!(failure(&["/proc/self/exe"]), ExecError::PermissionDenied { command: command("/proc/self/exe") });
    assert_eq!(failure(&["escape"]), ExecError::PermissionDenied { command: command("escape") });
    assert_eq!(failure(&[]), ExecError::NoCommand);
}

#[test]
fn environment_directory_and_hostname_are_exactly_those_of_the_spec() {
    needs_root!();
    let rootfs = Rootfs::new();
    let mut spec = rootfs.spec(&["env"]);
    spec.process.env.push(OsString::from_vec(b"BYTES=\xff\xfe".to_vec()));
    let (io, mut read) = streams();
    let mut running = spawner().unwrap().spawn(&spec, io).unwrap();
    let mut bytes = Vec::new();
    read.read_to_end(&mut bytes).unwrap();
    running.wait().unwrap();
    assert_eq!(bytes, b"PATH=/bin\nBYTES=\xff\xfe\n");
    let mut spec = rootfs.shell("pwd; hostname; umask; echo $$");
    spec.process.cwd = RootPath::new("/wdir");
    spec.hostname = "buildkitsandbox".into();
    assert_eq!(output(&spec), "/wdir\nbuildkitsandbox\n0022\n1");
    spec.process.cwd = RootPath::new("/nonesuch");
    let Err(Error::Setup { path, source, .. }) = try_run(&spec) else { panic!("a missing directory was accepted") };
    assert_eq!((path.as_str(), source.raw_os_error()), ("/nonesuch", Some(libc::ENOENT)));
}

#[test]
fn root_has_the_default_capabilities_and_the_filter() {
    needs_root!();
    let rootfs = Rootfs::new();
    let script = "grep -E '^(Cap|Seccomp:|NoNewPrivs)' /proc/self/status | tr '\\t' ' '";
    let expected = "CapInh: 0000000000000000\nCapPrm: 00000000a80425fb\nCapEff: 00000000a80425fb\nCapBnd: 00000000a80425fb\nCapAmb: 0000000000000000\nNoNewPrivs: 0\nSeccomp: 2";
    assert_eq!(output(&rootfs.shell(script)), expected);
    let mut spec = rootfs.shell(script);
    spec.process.no_new_privileges = true;
    assert_eq!(output(&spec), expected.replace("NoNewPrivs: 0", "NoNewPrivs: 1"));
    let mut spec = rootfs.shell("grep -E '^Cap(Eff|Bnd)' /proc/self/status | tr '\\t' ' '");
    let named = |name| Capabilities::named(name).unwrap();
    spec.privileges = Privileges::Default { add: named("NET_ADMIN"), drop: named("ALL") };
    assert_eq!(output(&spec), "CapEff: 0000000000001000\nCapBnd: 0000000000001000");
    spec.privileges = Privileges::Insecure;
    let text = output(&spec);
    assert!(text.starts_with("CapEff: 000001ff"), "{text}");
}

#[test]
fn users_get_their_ids_and_no_capabilities() {
    needs_root!();
    let rootfs = Rootfs::new();
    let script = "id -u; id -g; id -G; grep -E '^Cap(Prm|Eff|Bnd)' /proc/self/status | tr '\\t' ' '; echo to-stdout > /dev/stdout";
    let mut spec = rootfs.shell(script);
    spec.process.user = Credentials { uid: 1000, gid: 1001, additional_gids: vec![7, 8] };
    let expected = "1000\n1001\n1001 7 8\nCapPrm: 0000000000000000\nCapEff: 0000000000000000\nCapBnd: 00000000a80425fb\nto-stdout";
    assert_eq!(output(&spec), expected);
}

#[test]
fn only_the_default_devices_exist_and_no_others_work() {
    needs_root!();
    let rootfs = Rootfs::new();
    let devices = output(&rootfs.shell("ls /dev | sort | tr '\\n' ' '"));
    assert_eq!(devices, "fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero");
    let script = "echo x > /dev/null && head -c 3 /dev/zero | wc -c && head -c 3 /dev/urandom | wc -c && stat -c '%a %t %T' /dev/null";
    assert_eq!(output(&rootfs.shell(script)).lines().collect::<Vec<_>>().join(" "), "3 3 666 1 3");
    // MKNOD is a default capability; what is made by it cannot be opened, be it in the root or in /dev.
    for place in ["/null", "/dev/mine", "/dev/shm/mine", "/tmp/mine"] {
        let script = format!("mknod {place} c 1 3 && echo made; cat {place} 2>&1 && echo opened");
        let ran = run(&rootfs.shell(&script));
        assert!(ran.output.contains("made") && ran.output.contains("denied") && !ran.output.contains("opened"), "{place}: {}", ran.output);
    }
    let mut spec = rootfs.shell("ls /dev | wc -l; stat -c %t:%T /dev/kmsg");
    spec.privileges = Privileges::Insecure;
    assert!(output(&spec).ends_with("1:b"));
}

#[test]
fn sensitive_files_are_masked_or_read_only() {
    needs_root!();
    let rootfs = Rootfs::new();
    let script = "for f in /proc/kcore /proc/keys /proc/timer_list /proc/interrupts; do test -e $f && head -c 1 $f | wc -c; done; \
        ls /sys/firmware | wc -l; \
        for f in /proc/sys/kernel/hostname /proc/sysrq-trigger /sys/kernel/uevent_helper; do (echo x > $f) 2>&1 | grep -c 'Read-only\\|nonexistent'; done; \
        touch /sys/x 2>&1 | grep -c Read-only";
    let text = output(&rootfs.shell(script));
    let lines: Vec<_> = text.lines().collect();
    let (reads, writes) = lines.split_at(lines.len() - 4);
    assert!(reads.len() >= 3 && reads.iter().all(|line| *line == "0"), "{text}");
    assert!(writes.iter().all(|line| *line == "1"), "{text}");
    let mut spec = rootfs.shell("head -c 1 /proc/interrupts | wc -c");
    spec.system_paths = SystemPaths::Unconfined;
    assert_eq!(output(&spec), "1");
}

#[test]
fn descriptors_of_the_caller_do_not_leak() {
    needs_root!();
    let _open = File::open("/etc/passwd").unwrap();
    // `ls` itself opens the directory.
    assert_eq!(output(&Rootfs::new().shell("ls /proc/self/fd | tr '\\n' ' '")), "0 1 2 3");
}

#[test]
fn processes_network_and_files_of_the_host_are_out_of_sight() {
    needs_root!();
    let rootfs = Rootfs::new();
    let script =
        "ls -d /proc/[0-9]* | wc -l; ls /sys/class/net; grep -c : /proc/net/dev; test -e /etc/passwd || echo alone; grep -c . /proc/mounts";
    let text = output(&rootfs.shell(script));
    let lines: Vec<_> = text.lines().collect();
    assert!(lines[0].parse::<u32>().unwrap() <= 3, "{text}");
    assert_eq!(lines[1..4], ["lo", "1", "alone"], "{text}");
    let mounts = output(&rootfs.shell("cat /proc/mounts"));
    assert!(mounts.lines().all(|line| !line.contains("/dev/vda") && !line.contains("/dev/sda")), "{mounts}");
    let mut spec = rootfs.shell("readlink /proc/self/ns/net");
    spec.network = NetworkMode::Host;
    assert_eq!(output(&spec), std::fs::read_link("/proc/self/ns/net").unwrap().to_str().unwrap());
}

#[test]
fn loopback_is_up() {
    needs_root!();
    let flags = output(&Rootfs::new().shell("cat /sys/class/net/lo/flags"));
    assert_eq!(flags, "0x9");
}

#[test]
fn a_network_namespace_can_be_joined() {
    needs_root!();
    let rootfs = Rootfs::new();
    let (io, _read) = streams();
    let mut owner = spawner().unwrap().spawn(&rootfs.spec(&["sleep", "100"]), io).unwrap();
    let netns = format!("/proc/{}/ns/net", owner.pid());
    let name = std::fs::read_link(&netns).unwrap();
    let mut spec = rootfs.spec(&["readlink", "/proc/self/ns/net"]);
    spec.rootfs = RootfsMount::Bind { source: rootfs.base(), read_only: true };
    spec.network = NetworkMode::Joined;
    let (mut io, mut read) = streams();
    io.netns = Some(File::open(&netns).unwrap().into());
    let mut joined = spawner().unwrap().spawn(&spec, io).unwrap();
    let mut text = String::new();
    read.read_to_string(&mut text).unwrap();
    assert_eq!(text.trim_end(), name.to_str().unwrap());
    joined.wait().unwrap();
    owner.kill(libc::SIGKILL).unwrap();
    owner.wait().unwrap();
}

#[test]
fn the_writable_layer_holds_only_what_the_process_wrote() {
    needs_root!();
    let rootfs = Rootfs::new();
    std::fs::write(rootfs.base().join("etc/resolv.conf"), "image").unwrap();
    let source = rootfs.dir.path().join("resolv.conf");
    std::fs::write(&source, "host").unwrap();
    let mut spec = rootfs.shell("cat /etc/resolv.conf");
    spec.mounts.push(bind(&source, "/etc/resolv.conf", true));
    assert_eq!(output(&spec), "host");
    assert_eq!(std::fs::read_dir(rootfs.upper()).unwrap().count(), 0);
    output(&rootfs.shell("echo x > /tmp/file"));
    assert_eq!(std::fs::read(rootfs.upper().join("tmp/file")).unwrap(), b"x\n");
    assert_eq!(std::fs::read_dir(rootfs.upper()).unwrap().count(), 1);
}

fn bind(source: &Path, target: &str, read_only: bool) -> MountSpec {
    MountSpec::Bind {
        source: BindSource::Path(source.to_owned()),
        target: RootPath::new(target),
        is_file: !source.is_dir(),
        read_only,
        recursive: true,
        propagation: Propagation::Private,
        options: MountOptions::default(),
    }
}

#[test]
fn mounts_of_the_spec_are_made_with_their_options() {
    needs_root!();
    let rootfs = Rootfs::new();
    let dir = rootfs.dir.path().join("host");
    std::fs::create_dir(&dir).unwrap();
    std::fs::write(dir.join("file"), "content").unwrap();
    let script = "cat /wdir/file; (echo x > /wdir/new) 2>&1 | grep -c Read-only; stat -c '%a %u' /tmp; mkdir /tmp/x; cat /tmp/inner/file; cat /dev/extra/file; cat /proc/mounts | grep ' /tmp ' | grep -c noexec";
    let mut spec = rootfs.shell(script);
    spec.mounts.push(bind(&dir, "/wdir", true));
    let options = MountOptions { noexec: true, ..MountOptions::default() };
    let tmpfs = MountSpec::Tmpfs {
        target: RootPath::new("/tmp"),
        size: Some(1 << 20),
        inodes: None,
        mode: 0o1770,
        owner: (5, 6),
        read_only: false,
        options,
        tuning: TmpfsTuning::default(),
    };
    spec.mounts.push(tmpfs);
    spec.mounts.push(bind(&dir, "/tmp/inner", false));
    spec.mounts.push(bind(&dir, "/dev/extra", false));
    assert_eq!(output(&spec), "content1\n1770 5\ncontentcontent1");
    let targets: Vec<_> = mount_targets(&spec).into_iter().map(|(path, _)| path.to_string()).collect();
    assert_eq!(targets, ["/proc", "/dev", "/sys", "/wdir", "/tmp"]);
}

#[test]
fn parts_of_other_images_are_mounted_read_only() {
    needs_root!();
    let rootfs = Rootfs::new();
    let (one, two) = (rootfs.dir.path().join("one"), rootfs.dir.path().join("two"));
    for (dir, text) in [(&one, "upper"), (&two, "lower")] {
        std::fs::create_dir_all(dir.join("etc/inner")).unwrap();
        std::fs::write(dir.join("etc/name"), text).unwrap();
    }
    std::fs::write(two.join("etc/inner/deep"), "deep").unwrap();
    symlink("/etc/name", one.join("link")).unwrap();
    std::fs::write(rootfs.base().join("etc/file"), "").unwrap();
    let overlay = |lower: &[&PathBuf], subpath: &str, target: &str, is_file| MountSpec::Overlay {
        rootfs: RootfsMount::Overlay {
            lower: lower.iter().map(|path| path.to_path_buf()).collect(),
            upper: None,
            userxattr: is_rootless(),
        },
        subpath: RootPath::new(subpath),
        target: RootPath::new(target),
        is_file,
    };
    let mut spec = rootfs.shell("cat /wdir/etc/name /tmp/deep /etc/file; touch /wdir/x /tmp/x 2>&1 | grep -c Read-only");
    spec.mounts.push(overlay(&[&one, &two], "/", "/wdir", false));
    spec.mounts.push(overlay(&[&one, &two], "/etc/inner", "/tmp", false));
    // The link is followed inside of the other image.
    spec.mounts.push(overlay(&[&one], "/link", "/etc/file", true));
    assert_eq!(output(&spec), "upperdeepupper2");
}

#[test]
fn descriptors_can_be_mounted() {
    needs_root!();
    let rootfs = Rootfs::new();
    let dir = rootfs.dir.path().join("host");
    std::fs::create_dir(&dir).unwrap();
    std::fs::write(dir.join("file"), "content").unwrap();
    let mut spec = rootfs.shell("cat /wdir/file");
    let MountSpec::Bind { target, is_file, read_only, recursive, propagation, options, .. } = bind(&dir, "/wdir", true) else {
        unreachable!()
    };
    spec.mounts.push(MountSpec::Bind { source: BindSource::Descriptor(0), target, is_file, read_only, recursive, propagation, options });
    let (mut io, mut read) = streams();
    io.mount_fds.push(File::open(&dir).unwrap().into());
    let mut running = spawner().unwrap().spawn(&spec, io).unwrap();
    let mut text = String::new();
    read.read_to_string(&mut text).unwrap();
    assert_eq!(text, "content");
    running.wait().unwrap();
    let Err(Error::Invalid(_)) = try_run(&spec) else { panic!("a missing descriptor was accepted") };
}

#[test]
fn limits_and_parameters_of_the_process_are_set() {
    needs_root!();
    let rootfs = Rootfs::new();
    let mut spec = rootfs.shell("ulimit -n; ulimit -c; cat /proc/self/oom_score_adj; cat /proc/sys/kernel/msgmax; umask; test -w /dev/shm && stat -f -c %b /dev/shm");
    let limit = |resource, value| Rlimit { resource, soft: value, hard: value };
    spec.process.rlimits = vec![limit(Resource::Nofile, 77), limit(Resource::Core, u64::MAX)];
    spec.process.oom_score_adjust = Some(321);
    spec.process.umask = 0o077;
    spec.sysctls.push(("kernel.msgmax".into(), "12345".into()));
    spec.shm_size = 1 << 20;
    assert_eq!(output(&spec), "77\nunlimited\n321\n12345\n0077\n256");
}

#[test]
fn a_read_only_root_refuses_writes() {
    needs_root!();
    let mut spec = Rootfs::new().shell("(echo x > /tmp/x) 2>&1; echo y > /dev/shm/y && cat /dev/shm/y");
    let rootfs = Rootfs::new();
    spec.rootfs = rootfs.mount(vec![rootfs.base()]);
    spec.read_only_root = true;
    let text = output(&spec);
    assert!(text.contains("Read-only") && text.ends_with('y'), "{text}");
}

#[test]
fn links_of_a_hostile_image_do_not_lead_out() {
    needs_root!();
    for name in ["proc", "dev", "sys"] {
        let rootfs = Rootfs::new();
        let target = rootfs.dir.path().join("victim");
        std::fs::create_dir(&target).unwrap();
        std::fs::remove_dir(rootfs.base().join(name)).unwrap();
        symlink(&target, rootfs.base().join(name)).unwrap();
        let Err(Error::Setup { path, source, .. }) = try_run(&rootfs.shell("true")) else { panic!("a link at /{name} was accepted") };
        assert_eq!((path, source.raw_os_error()), (format!("/{name}"), Some(libc::ELOOP)));
    }
    let rootfs = Rootfs::new();
    let source = rootfs.dir.path().join("secret");
    std::fs::write(&source, "mounted").unwrap();
    // Both lead to a file of the host if they are resolved there; inside they lead to /etc/real.
    std::fs::write(rootfs.base().join("etc/real"), "image").unwrap();
    symlink("../../../../etc/real", rootfs.base().join("etc/resolv.conf")).unwrap();
    let mut spec = rootfs.shell("cat /etc/real");
    spec.mounts.push(bind(&source, "/etc/resolv.conf", true));
    assert_eq!(output(&spec), "mounted");
    std::fs::remove_file(rootfs.base().join("etc/resolv.conf")).unwrap();
    symlink("/proc/self/attr/exec", rootfs.base().join("etc/resolv.conf")).unwrap();
    let Err(Error::Setup { .. }) = try_run(&spec) else { panic!("a mount over /proc was accepted") };
}

#[test]
fn many_layers_with_long_and_odd_names_work() {
    needs_root!();
    let rootfs = Rootfs::new();
    let mut lower = Vec::new();
    for index in 0..120 {
        let long = "n".repeat(if index % 10 == 0 { 200 } else { 20 });
        let odd = if index % 7 == 0 { "a:b,c\\d \"" } else { "plain" };
        let layer = rootfs.dir.path().join(format!("{index}{odd}")).join(&long).join(&long);
        std::fs::create_dir_all(&layer).unwrap();
        std::fs::write(layer.join(format!("layer{index}")), index.to_string()).unwrap();
        std::fs::write(layer.join("top"), index.to_string()).unwrap();
        lower.push(layer);
    }
    lower.push(rootfs.base());
    let mut spec = rootfs.shell("ls /layer* | wc -l; cat /top");
    spec.rootfs = rootfs.mount(lower.clone());
    assert_eq!(output(&spec), "120\n0");
    lower.insert(3, rootfs.dir.path().join("missing"));
    spec.rootfs = rootfs.mount(lower);
    let Err(Error::Setup { path, .. }) = try_run(&spec) else { panic!("a missing layer was accepted") };
    assert!(path.ends_with("/missing"), "{path}");
}

#[test]
fn background_processes_end_with_the_command() {
    needs_root!();
    let rootfs = Rootfs::new();
    let begun = Instant::now();
    // The pipe closes only when every process that holds it has gone.
    let ran = run(&rootfs.shell("sleep 300 & echo started"));
    assert_eq!(ran.output, "started");
    assert!(begun.elapsed() < Duration::from_secs(60));
}

#[test]
fn init_reaps_and_passes_codes_and_signals_on() {
    needs_root!();
    let rootfs = Rootfs::new();
    let mut spec = rootfs.shell("cat /proc/1/comm; (sleep 0.05 &) ; sleep 0.2; ps -o stat | grep -c Z; exit 7");
    spec.init = true;
    let ran = run(&spec);
    assert_eq!((ran.output.as_str(), ran.exit.status), ("strake-init\n0", ExitStatus::Code(7)));
    let mut spec = rootfs.shell("trap 'echo got; exit 3' TERM; echo ready; while true; do sleep 0.05; done");
    spec.init = true;
    let (io, mut read) = streams();
    let mut running = spawner().unwrap().spawn(&spec, io).unwrap();
    let mut ready = [0; 6];
    read.read_exact(&mut ready).unwrap();
    running.kill(libc::SIGTERM).unwrap();
    assert_eq!(running.wait().unwrap().status, ExitStatus::Code(3));
}

#[test]
fn dropping_a_running_sandbox_kills_it() {
    needs_root!();
    let rootfs = Rootfs::new();
    let (io, mut read) = streams();
    let running = spawner().unwrap().spawn(&rootfs.shell("echo on; sleep 300"), io).unwrap();
    let mut on = [0; 3];
    read.read_exact(&mut on).unwrap();
    drop(running);
    let begun = Instant::now();
    read.read_to_end(&mut Vec::new()).unwrap();
    assert!(begun.elapsed() < Duration::from_secs(60));
}

#[test]
fn forbidden_system_calls_fail() {
    needs_root!();
    let rootfs = Rootfs::new();
    for script in ["unshare -U true", "mount -t tmpfs none /tmp", "chroot / true"] {
        let ran = run(&rootfs.shell(&format!("busybox {script} 2>&1")));
        let allowed = script.starts_with("chroot");
        assert_eq!(ran.exit.status.success(), allowed, "{script}: {}", ran.output);
        let denied = ran.output.contains("not permitted") || ran.output.contains("permission denied");
        assert!(allowed || denied, "{script}: {}", ran.output);
    }
}

/// A program that makes one system call with zeroes (except for `first`) and exits with the error number that it gives (0 without an error).
#[cfg(target_arch = "x86_64")]
fn caller_of(number: u32, first: u32, compat: bool) -> Vec<u8> {
    let mut code = vec![0x31, 0xf6, 0x31, 0xd2, 0x4d, 0x31, 0xd2, 0x31, 0xc9]; // xor esi, edx, r10, ecx
    code.push(0xbf); // mov edi, first
    code.extend(first.to_le_bytes());
    code.push(0xbb); // mov ebx, first
    code.extend(first.to_le_bytes());
    code.push(0xb8); // mov eax, number
    code.extend(number.to_le_bytes());
    code.extend(if compat { [0xcd, 0x80] } else { [0x0f, 0x05] }); // int 0x80, or syscall
    code.extend([0x31, 0xff, 0x85, 0xc0, 0x79, 0x04, 0xf7, 0xd8, 0x89, 0xc7]); // edi = eax < 0 ? -eax : 0
    code.extend([0xb8, 0x3c, 0, 0, 0, 0x0f, 0x05]); // exit
    let mut elf = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\x3e\0\x01\0\0\0".to_vec();
    let base = 0x40_0000u64;
    let size = (120 + code.len()) as u64;
    elf.extend((base + 120).to_le_bytes());
    elf.extend(64u64.to_le_bytes());
    elf.extend([0; 12]);
    elf.extend([64, 0, 56, 0, 1, 0, 64, 0, 0, 0, 0, 0]);
    elf.extend([1, 0, 0, 0, 5, 0, 0, 0]);
    for field in [0, base, base, size, size, 0x1000] {
        elf.extend(field.to_le_bytes());
    }
    elf.extend(code);
    elf
}

#[test]
#[cfg(target_arch = "x86_64")]
fn the_filter_judges_system_calls_of_every_abi() {
    needs_root!();
    let rootfs = Rootfs::new();
    let call = |number: u32, first: u32, compat: bool| {
        let path = rootfs.base().join("bin/caller");
        std::fs::write(&path, caller_of(number, first, compat)).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        run(&rootfs.spec(&["caller"])).exit.status
    };
    let (eperm, enosys) = (ExitStatus::Code(1), ExitStatus::Code(38));
    for (name, number) in [
        ("keyctl", 250),
        ("bpf", 321),
        ("add_key", 248),
        ("kexec_load", 246),
        ("io_uring_setup", 425),
        ("userfaultfd", 323),
        ("swapon", 167),
    ] {
        assert_eq!(call(number, 0, false), eperm, "{name}");
    }
    assert_eq!(call(56, libc::CLONE_NEWUSER as u32, false), eperm, "clone");
    assert_eq!(call(272, libc::CLONE_NEWUSER as u32, false), eperm, "unshare");
    assert_eq!(call(435, 0, false), enosys, "clone3");
    assert_eq!(call(9999, 0, false), enosys, "a system call of the future");
    assert_eq!(call(39, 0, false), ExitStatus::Code(0), "getpid");
    // x32 marks its numbers; 32-bit programs enter by interrupt 0x80.
    assert_eq!(call(0x4000_0000 | 250, 0, false), eperm, "x32 keyctl");
    if call(20, 0, true) == ExitStatus::Code(0) {
        assert_eq!(call(288, 0, true), eperm, "32-bit keyctl");
        assert_eq!(call(120, libc::CLONE_NEWUSER as u32, true), eperm, "32-bit clone");
        assert_eq!(call(357, 0, true), eperm, "32-bit bpf");
    } else {
        eprintln!("skipped: this kernel does not run 32-bit system calls");
    }
}

#[test]
fn sandboxes_die_with_their_spawner() {
    needs_root!();
    let rootfs = Rootfs::new();
    let (io, mut read) = streams();
    let mut running = testing::victim().spawn(&rootfs.shell("echo on; sleep 300"), io).unwrap();
    let mut on = [0; 3];
    read.read_exact(&mut on).unwrap();
    rustix::process::kill_process(
        rustix::process::Pid::from_raw(testing::victim().pid().unwrap() as i32).unwrap(),
        rustix::process::Signal::KILL,
    )
    .unwrap();
    let begun = Instant::now();
    read.read_to_end(&mut Vec::new()).unwrap();
    assert!(begun.elapsed() < Duration::from_secs(60));
    assert!(matches!(running.wait(), Err(Error::SpawnerGone)));
    let (io, _read) = streams();
    assert!(matches!(testing::victim().spawn(&rootfs.shell("true"), io), Err(Error::SpawnerGone)));
}

#[test]
fn launching_from_a_process_with_threads_is_refused() {
    let (io, _read) = streams();
    let rootfs = RootfsMount::Bind { source: "/".into(), read_only: true };
    let spec = SandboxSpec::new(rootfs, ProcessSpec::new(vec!["true".into()], Vec::new()));
    let _other = std::thread::spawn(|| std::thread::sleep(Duration::from_millis(200)));
    assert!(matches!(launch(&spec, io), Err(Error::Clone(error)) if error.raw_os_error() == Some(libc::EBUSY)));
}

#[test]
fn sandboxes_start_from_many_threads_at_once() {
    needs_root!();
    let rootfs = Rootfs::new();
    let base = RootfsMount::Bind { source: rootfs.base(), read_only: true };
    std::thread::scope(|scope| {
        for index in 0..16u8 {
            let mut spec = rootfs.shell(&format!("exit {index}"));
            spec.rootfs = base.clone();
            scope.spawn(move || assert_eq!(run(&spec).exit.status, ExitStatus::Code(index)));
        }
    });
}

#[test]
fn everything_works_without_root_that_the_kernel_allows() {
    needs_root!();
    if is_rootless() {
        return;
    }
    let names = [
        "exit_codes_and_signals_come_back",
        "commands_that_cannot_run_say_why",
        "environment_directory_and_hostname_are_exactly_those_of_the_spec",
        "sensitive_files_are_masked_or_read_only",
        "background_processes_end_with_the_command",
        "the_writable_layer_holds_only",
        "a_read_only_root_refuses_writes",
        "parts_of_other_images_are_mounted_read_only",
        "descriptors_of_the_caller_do_not_leak",
        "descriptors_can_be_mounted",
        "loopback_is_up",
        "processes_network_and_files_of_the_host_are_out_of_sight",
        "links_of_a_hostile_image_do_not_lead_out",
        "many_layers_with_long_and_odd_names_work",
        "root_has_the_default_capabilities_and_the_filter",
        "a_terminal_is_the_controlling_one",
        "init_reaps_and_passes_codes",
    ];
    // The build directory may be out of reach for an unprivileged user.
    let dir = tempfile::tempdir().unwrap();
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let program = dir.path().join("tests");
    std::fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    let ran = std::process::Command::new(&program).args(names).env(testing::ROOTLESS, "1").current_dir("/tmp").output().unwrap();
    if ran.status.code() == Some(77) {
        eprintln!("skipped: {}", String::from_utf8_lossy(&ran.stderr));
        return;
    }
    let text = String::from_utf8_lossy(&ran.stdout);
    assert!(ran.status.success(), "{text}");
    assert!(text.contains("17 passed"), "{text}");
}

#[test]
fn a_spawner_starts() {
    assert!(testing::is_started());
}

#[test]
fn a_spawner_starts_in_a_container_that_refuses_clone3() {
    needs_root!();
    let rootfs = Rootfs::new();
    let mut spec = rootfs.spec(&["/dev/tests", "--exact", "runtime::tests::a_spawner_starts"]);
    spec.mounts.push(bind(&std::env::current_exe().unwrap(), "/dev/tests", true));
    let text = output(&spec);
    assert!(text.contains("1 passed"), "{text}");
}

#[test]
fn a_command_can_join_a_running_sandbox() {
    needs_root!();
    let rootfs = Rootfs::new();
    let mut spec = rootfs.shell("echo mark > /tmp/mark; echo on; sleep 300");
    spec.hostname = "joined".into();
    let (io, mut first) = streams();
    let mut owner = spawner().unwrap().spawn(&spec, io).unwrap();
    first.read_exact(&mut [0; 3]).unwrap();
    let pid = rustix::process::Pid::from_raw(owner.pid() as i32).unwrap();
    let join = |script: &str, stdio: Option<Stdio>| {
        let (mut io, read) = streams();
        io.stdio = stdio.unwrap_or(io.stdio);
        io.join = Some(rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).unwrap());
        let mut spec = rootfs.shell(script);
        spec.process.cwd = RootPath::new("/tmp");
        (spawner().unwrap().spawn(&spec, io).unwrap(), read)
    };
    let script = "cat mark; hostname; cat /proc/1/cmdline | tr '\\0' ' ' | grep -c sleep; ls /proc/self/fd | tr '\\n' ' '; \
        grep -E '^(CapEff|Seccomp:)' /proc/self/status | tr '\\t' ' '; cat /sys/class/net/lo/flags; exit 9";
    let (mut running, mut read) = join(script, None);
    let mut text = String::new();
    read.read_to_string(&mut text).unwrap();
    assert_eq!(text, "mark\njoined\n1\n0 1 2 3 CapEff: 00000000a80425fb\nSeccomp: 2\n0x9\n");
    assert_eq!(running.wait().unwrap().status, ExitStatus::Code(9));
    let (mut running, _read) = join("tty", Some(Stdio::Terminal));
    let mut line = [0; 12];
    File::from(running.take_terminal().unwrap()).read_exact(&mut line).unwrap();
    assert_eq!(&line, b"/dev/pts/0\r\n");
    running.wait().unwrap();
    // It ends with its client, and with the sandbox.
    let (running, mut read) = join("sleep 300", None);
    drop(running);
    read.read_to_end(&mut Vec::new()).unwrap();
    let (mut running, _read) = join("sleep 300", None);
    owner.kill(libc::SIGKILL).unwrap();
    assert_eq!(running.wait().unwrap().status, ExitStatus::Code(137));
    owner.wait().unwrap();
}

/// Prints how long starts take: `cargo test --lib start_times -- --ignored --nocapture`.
#[test]
#[ignore = "a measurement"]
fn start_times() {
    needs_root!();
    let rootfs = Rootfs::new();
    for (name, network) in [("no network", NetworkMode::None), ("host network", NetworkMode::Host)] {
        let mut times = Vec::new();
        let mut ends = Vec::new();
        for _ in 0..200 {
            let mut spec = rootfs.spec(&["/bin/true"]);
            spec.network = network;
            let (io, _read) = streams();
            let begun = Instant::now();
            let mut running = spawner().unwrap().spawn(&spec, io).unwrap();
            times.push(begun.elapsed());
            running.wait().unwrap();
            ends.push(begun.elapsed());
        }
        times.sort();
        ends.sort();
        eprintln!("{name}: started p50 {:?} p95 {:?}; ended p50 {:?} p95 {:?}", times[100], times[190], ends[100], ends[190]);
    }
}

#[test]
fn a_terminal_is_the_controlling_one_of_the_command() {
    needs_root!();
    let rootfs = Rootfs::new();
    let mut spec = rootfs.shell("tty; stty size; test -c /dev/console && echo console; echo tty > /dev/tty");
    spec.process.terminal = Some(TerminalSize { rows: 33, columns: 99 });
    let mut running = spawner().unwrap().spawn(&spec, SandboxIo::new(Stdio::Terminal)).unwrap();
    let mut terminal = File::from(running.take_terminal().unwrap());
    let mut text = Vec::new();
    let mut buffer = [0; 256];
    // The kernel answers EIO when the last process has closed the other side.
    while let Ok(length) = terminal.read(&mut buffer) {
        text.extend_from_slice(&buffer[..length]);
    }
    assert_eq!(String::from_utf8_lossy(&text).replace('\r', ""), "/dev/pts/0\n33 99\nconsole\ntty\n");
    assert!(running.wait().unwrap().status.success());
}

#[test]
fn limits_are_enforced_and_running_out_of_memory_is_told() {
    needs_root!();
    let rootfs = Rootfs::new();
    let mut spec = rootfs.shell("head -c 200000000 /dev/zero | busybox tail -c 150000000 | wc -c");
    spec.cgroup = Some(CgroupSpec { memory: Some(32 << 20), memory_swap: Some(32 << 20), pids: Some(64), ..CgroupSpec::default() });
    let ran = match try_run(&spec) {
        Err(error @ (Error::Limit { .. } | Error::Cgroup { .. })) => {
            eprintln!("skipped: this system has no cgroups to limit with: {error}");
            return;
        }
        other => other.unwrap(),
    };
    assert!(ran.exit.oom_killed, "{:?} {}", ran.exit, ran.output);
    let peak = ran.exit.peak_memory.unwrap();
    assert!((16 << 20..=33 << 20).contains(&peak), "{peak}");
    spec.process = rootfs.shell("i=0; while [ $i -lt 100 ]; do sleep 1 & i=$((i+1)); done 2>&1").process;
    spec.cgroup = Some(CgroupSpec { pids: Some(20), ..CgroupSpec::default() });
    let ran = run(&spec);
    assert!(ran.output.contains("fork"), "{}", ran.output);
    assert!(!ran.exit.oom_killed);
}

#[test]
fn a_spec_survives_the_way_to_the_spawner() {
    let rootfs = RootfsMount::Overlay { lower: vec![PathBuf::from(OsString::from_vec(b"/a\xff".to_vec()))], upper: None, userxattr: true };
    let process = ProcessSpec::new(vec!["a".into(), OsString::from_vec(vec![0xc3])], vec!["A=ü".into()]);
    let mut spec = SandboxSpec::new(rootfs, process);
    spec.mounts.push(bind(Path::new("/x"), "/y", true));
    spec.cgroup = Some(CgroupSpec { memory: Some(1), ..CgroupSpec::default() });
    let text = serde_json::to_string(&spec).unwrap();
    assert_eq!(serde_json::from_str::<SandboxSpec>(&text).unwrap(), spec);
}
