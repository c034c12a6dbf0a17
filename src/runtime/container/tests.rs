//! Whole containers with a busybox root: real supervisors, judged by what comes out of them.
//!
//! The supervisor is this test binary again. The harness has threads and a supervisor must not, so the loader calls what is listed in `.init_array` and that
//! turns the process into a supervisor before the harness begins.

#![expect(unsafe_code, reason = "a static in `.init_array` has no safe form; only tests have it")]

use std::ffi::OsString;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::*;
use crate::path::RootPath;
use crate::runtime::network::{CARETAKER, caretaker_main};
use crate::runtime::{Credentials, ProcessSpec, SandboxSpec};
use crate::sys::{OverlayUpper, RootfsMount};

// SAFETY: the section holds pointers to functions of this signature (System V ABI, "Initialization and Termination Functions"); the C library is ready by then,
// and the function uses nothing of Rust's runtime that `main` would set up.
#[used]
#[unsafe(link_section = ".init_array.00100")]
static SUPERVISE: extern "C" fn() = supervise_if_asked;

extern "C" fn supervise_if_asked() {
    let line = std::fs::read("/proc/self/cmdline").unwrap_or_default();
    let mut args = line.split(|byte| *byte == 0).map(|arg| OsString::from_vec(arg.to_vec())).skip(1);
    match args.next() {
        Some(arg) if arg == SUPERVISOR => crate::sys::process::exit_now(match supervisor_main(args, &super::Surroundings::default()) {
            Supervised::Ended(code) => code,
            Supervised::Abandoned { .. } => 0,
        }),
        Some(arg) if arg == CARETAKER => {
            caretaker_main(args);
            crate::sys::process::exit_now(0)
        }
        _ => {}
    }
}

/// One pump at a time: signal handlers belong to the process.
static PUMPING: Mutex<()> = Mutex::new(());

fn pumping() -> MutexGuard<'static, ()> {
    PUMPING.lock().unwrap_or_else(PoisonError::into_inner)
}

fn skip() -> bool {
    let skip = !rustix::process::geteuid().is_root();
    if skip {
        println!("skipped: containers of this test need root");
    }
    skip
}

/// A container's directory and its root file system.
struct Lab {
    temp: tempfile::TempDir,
}

impl Lab {
    fn new() -> Lab {
        let temp = tempfile::tempdir().unwrap();
        for name in ["base/bin", "base/proc", "base/dev", "base/sys", "base/etc", "base/tmp", "upper", "work"] {
            std::fs::create_dir_all(temp.path().join(name)).unwrap();
        }
        std::fs::copy("/bin/busybox", temp.path().join("base/bin/busybox")).unwrap();
        for name in ["sh", "true", "cat", "echo", "sleep", "stty", "seq", "head", "id", "ip", "yes", "tty"] {
            symlink("busybox", temp.path().join("base/bin").join(name)).unwrap();
        }
        let all = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(temp.path(), all).unwrap();
        Lab { temp }
    }

    fn dir(&self) -> PathBuf {
        self.temp.path().join("container")
    }

    fn spec(&self, args: &[&str]) -> ContainerSpec {
        let upper = OverlayUpper { upper: self.temp.path().join("upper"), work: self.temp.path().join("work") };
        let rootfs = RootfsMount::Overlay { lower: vec![self.temp.path().join("base")], upper: Some(upper), userxattr: false };
        let process = ProcessSpec::new(args.iter().map(OsString::from).collect(), vec!["PATH=/bin".into()]);
        ContainerSpec::new("0123456789abcdef", "test", SandboxSpec::new(rootfs, process))
    }

    fn shell(&self, script: &str) -> ContainerSpec {
        self.spec(&["/bin/sh", "-c", script])
    }

    #[track_caller]
    fn start(&self, spec: &ContainerSpec, mode: Mode) -> Started {
        create(&self.dir(), spec).unwrap();
        Starter::default().start(&self.dir(), mode).unwrap()
    }

    /// Runs in the foreground with `input` on a pipe.
    #[track_caller]
    fn run(&self, spec: &ContainerSpec, input: &[u8]) -> Ran {
        let _alone = pumping();
        let attachment = self.start(spec, Mode::Attached).attachment.unwrap();
        let (read, write) = std::io::pipe().unwrap();
        let (mut stdout, mut stderr) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
        let input = input.to_vec();
        let feeder = std::thread::spawn(move || {
            // The container may not want it all.
            let _ = { write }.write_all(&input);
        });
        let io = LocalIo { stdin: (spec.stdin != StdinMode::Closed).then(|| read.as_fd()), stdout: stdout.as_fd(), stderr: stderr.as_fd() };
        let outcome = attachment.pump(io, &PumpOptions::default()).unwrap();
        drop(read);
        feeder.join().unwrap();
        Ran { outcome, stdout: contents(&mut stdout), stderr: contents(&mut stderr) }
    }

    fn log(&self) -> Vec<String> {
        let mut texts = Vec::new();
        logs(&self.dir(), &LogOptions::default(), &mut |record| {
            texts.push(record.log);
            true
        })
        .unwrap();
        texts
    }
}

struct Ran {
    outcome: Outcome,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
}

fn contents(file: &mut File) -> Vec<u8> {
    std::io::Seek::rewind(file).unwrap();
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).unwrap();
    bytes
}

#[track_caller]
fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !condition() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

const fn exited(code: u8) -> Outcome {
    Outcome::Exited { code, oom_killed: false }
}

#[test]
fn output_and_exit_code_come_back_and_are_on_record() {
    if skip() {
        return;
    }
    let lab = Lab::new();
    let ran = lab.run(&lab.shell("echo out; echo err >&2; exit 3"), b"");
    assert_eq!((ran.outcome, &ran.stdout[..], &ran.stderr[..]), (exited(3), &b"out\n"[..], &b"err\n"[..]));
    assert_eq!(wait(&lab.dir()).unwrap(), 3);
    let state = load_state(&lab.dir()).unwrap();
    assert!(matches!(&state, State::Exited { code: 3, started_at: Some(_), finished_at: Some(_), error: None, .. }), "{state:?}");
    let mut log = lab.log();
    log.sort();
    assert_eq!(log, ["err\n", "out\n"]);
    assert!(matches!(kill(&lab.dir(), 9), Err(Error::NotRunning)));
}

#[test]
fn ten_megabytes_go_through_whole() {
    if skip() {
        return;
    }
    let lab = Lab::new();
    let mut spec = lab.spec(&["cat"]);
    spec.stdin = StdinMode::Once;
    spec.log.driver = LogDriver::None;
    let input: Vec<u8> = (0..10u32 << 20).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let start = Instant::now();
    let ran = lab.run(&spec, &input);
    println!("10 MiB through cat: {:?}", start.elapsed());
    assert_eq!(ran.outcome, exited(0));
    assert!(ran.stdout == input, "{} bytes came back", ran.stdout.len());
}

#[test]
fn a_container_that_reads_nothing_ends_although_input_waits() {
    if skip() {
        return;
    }
    let lab = Lab::new();
    let mut spec = lab.shell("head -c 3");
    spec.stdin = StdinMode::Once;
    let ran = lab.run(&spec, &vec![b'x'; 1 << 20]);
    assert_eq!((ran.outcome, &ran.stdout[..]), (exited(0), &b"xxx"[..]));
}

#[test]
fn what_cannot_be_started_says_why_and_gives_docker_s_codes() {
    if skip() {
        return;
    }
    let lab = Lab::new();
    let mut no_cwd = lab.spec(&["true"]);
    no_cwd.sandbox.process.cwd = RootPath::new("/nowhere");
    for (spec, expected, word) in
        [(lab.spec(&["nonsense"]), 127, "nonsense"), (lab.spec(&["/etc"]), 126, "/etc"), (no_cwd, 125, "/nowhere")]
    {
        create(&lab.dir(), &spec).unwrap();
        let error = Starter::default().start(&lab.dir(), Mode::Detached).unwrap_err();
        assert!(error.to_string().contains(word), "{error}");
        assert!(matches!(load_state(&lab.dir()).unwrap(), State::Exited { started_at: None, .. }));
        if expected != 125 {
            assert_eq!(error.exit_code(), expected, "{error}");
        }
    }
}

#[test]
fn stopping_asks_first_and_kills_what_does_not_listen() {
    if skip() {
        return;
    }
    let polite = Lab::new();
    polite.start(&polite.shell("trap 'exit 7' TERM; echo ready; while :; do sleep 0.02; done"), Mode::Detached);
    eventually("the trap is set", || polite.log() == ["ready\n"]);
    assert_eq!(stop(&polite.dir(), None, None).unwrap(), 7);

    let deaf = Lab::new();
    deaf.start(&deaf.shell("trap '' TERM; echo ready; while :; do sleep 0.02; done"), Mode::Detached);
    eventually("the trap is set", || deaf.log() == ["ready\n"]);
    let start = Instant::now();
    assert_eq!(stop(&deaf.dir(), None, Some(Duration::from_millis(300))).unwrap(), 137);
    assert!(start.elapsed() >= Duration::from_millis(300));
    assert_eq!(stop(&deaf.dir(), None, None).unwrap(), 137, "a second time does no harm");
}

/// The supervisor of a running container: the parent of its PID 1.
fn supervisor_of(pid: u32) -> i32 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    stat.rsplit_once(')').unwrap().1.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn a_killed_supervisor_takes_its_container_along_and_nobody_thinks_that_it_runs() {
    if skip() {
        return;
    }
    for uid in [0, 1000] {
        let lab = Lab::new();
        let mut spec = lab.spec(&["sleep", "1000"]);
        spec.sandbox.process.user = Credentials { uid, gid: uid, additional_gids: Vec::new() };
        let mut started = lab.start(&spec, Mode::Detached);
        assert!(matches!(load_state(&lab.dir()).unwrap(), State::Running { pid, .. } if pid == started.pid));
        assert!(matches!(Starter::default().start(&lab.dir(), Mode::Detached), Err(Error::Running)));
        let supervisor = rustix::process::Pid::from_raw(supervisor_of(started.pid)).unwrap();
        rustix::process::kill_process(supervisor, rustix::process::Signal::KILL).unwrap();
        eventually("the supervisor is gone", || started.reap());
        eventually(&format!("the container of user {uid} is gone"), || !Path::new(&format!("/proc/{}", started.pid)).exists());
        assert!(matches!(load_state(&lab.dir()).unwrap(), State::Exited { code: 137, .. }));
        assert_eq!(wait(&lab.dir()).unwrap(), 137);
        // And it can be started again.
        let mut again = Starter::default().start(&lab.dir(), Mode::Detached).unwrap();
        assert_eq!(stop(&lab.dir(), Some(9), None).unwrap(), 137);
        eventually("the supervisor ends", || again.reap());
    }
}

/// A terminal of the test's own: the side that a user sits at, and the other.
fn terminal() -> (File, OwnedFd) {
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
    let user = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
    grantpt(&user).unwrap();
    unlockpt(&user).unwrap();
    let name = ptsname(&user, Vec::new()).unwrap();
    let flags = rustix::fs::OFlags::RDWR | rustix::fs::OFlags::NOCTTY | rustix::fs::OFlags::CLOEXEC;
    let program = rustix::fs::open(name.as_c_str(), flags, rustix::fs::Mode::empty()).unwrap();
    let size = rustix::termios::Winsize { ws_row: 40, ws_col: 101, ws_xpixel: 0, ws_ypixel: 0 };
    rustix::termios::tcsetwinsize(&program, size).unwrap();
    (File::from(user), program)
}

/// Reads from a terminal until `text` has come.
#[track_caller]
fn expect(user: &mut File, text: &str) -> String {
    let mut seen = Vec::new();
    let mut byte = [0];
    while !String::from_utf8_lossy(&seen).contains(text) {
        user.read_exact(&mut byte).unwrap();
        seen.push(byte[0]);
    }
    String::from_utf8_lossy(&seen).into_owned()
}

#[test]
fn a_terminal_has_the_user_s_size_and_keys_and_is_restored() {
    if skip() {
        return;
    }
    let lab = Lab::new();
    // The size is sent right after the start, so it is looked at after the first key.
    let mut spec = lab.shell("tty; read line; stty size; echo got $line; exit 5");
    (spec.tty, spec.stdin) = (true, StdinMode::Once);
    let (mut user, program) = terminal();
    let before = rustix::termios::tcgetattr(&program).unwrap();
    let (_alone, attachment) = (pumping(), lab.start(&spec, Mode::Attached).attachment.unwrap());
    let local = program.try_clone().unwrap();
    let pump = std::thread::spawn(move || {
        let io = LocalIo { stdin: Some(local.as_fd()), stdout: local.as_fd(), stderr: local.as_fd() };
        attachment.pump(io, &PumpOptions { tty: true, ..PumpOptions::default() }).unwrap()
    });
    expect(&mut user, "/dev/");
    user.write_all(b"hello\r").unwrap();
    expect(&mut user, "40 101");
    expect(&mut user, "got hello");
    assert_eq!(pump.join().unwrap(), exited(5));
    let after = rustix::termios::tcgetattr(&program).unwrap();
    assert_eq!((after.local_modes, after.input_modes, after.output_modes), (before.local_modes, before.input_modes, before.output_modes));
}

#[test]
fn a_user_detaches_and_attaches_again() {
    if skip() {
        return;
    }
    let lab = Lab::new();
    let mut spec = lab.shell("while read line; do echo \"<$line>\"; done");
    (spec.tty, spec.stdin) = (true, StdinMode::Once);
    let (mut user, program) = terminal();
    let _alone = pumping();
    let first = lab.start(&spec, Mode::Attached).attachment.unwrap();
    let sit_at = |attachment: Attachment| {
        let local = program.try_clone().unwrap();
        std::thread::spawn(move || {
            let io = LocalIo { stdin: Some(local.as_fd()), stdout: local.as_fd(), stderr: local.as_fd() };
            attachment.pump(io, &PumpOptions { tty: true, ..PumpOptions::default() }).unwrap()
        })
    };
    let pump = sit_at(first);
    user.write_all(b"one\r").unwrap();
    expect(&mut user, "<one>");
    user.write_all(&[16, 17]).unwrap();
    assert_eq!(pump.join().unwrap(), Outcome::Detached);
    assert!(matches!(load_state(&lab.dir()).unwrap(), State::Running { .. }));

    let pump = sit_at(attach(&lab.dir()).unwrap());
    user.write_all(b"two\r").unwrap();
    expect(&mut user, "<two>");
    // The end-of-file key.
    user.write_all(&[4]).unwrap();
    assert_eq!(pump.join().unwrap(), exited(0));
}

#[test]
fn signals_to_the_client_reach_the_container() {
    if skip() {
        return;
    }
    let lab = Lab::new();
    let _alone = pumping();
    let attachment =
        lab.start(&lab.shell("trap 'exit 9' USR1; echo ready; while :; do sleep 0.02; done"), Mode::Attached).attachment.unwrap();
    let dir = lab.dir();
    let sender = std::thread::spawn(move || {
        eventually("the trap is set", || std::fs::read_to_string(dir.join("container.log")).is_ok_and(|text| text.contains("ready")));
        rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::USR1).unwrap();
    });
    let null = File::options().write(true).open("/dev/null").unwrap();
    let io = LocalIo { stdin: None, stdout: null.as_fd(), stderr: null.as_fd() };
    assert_eq!(attachment.pump(io, &PumpOptions::default()).unwrap(), exited(9));
    sender.join().unwrap();
}

#[test]
fn signals_reach_the_container_although_nobody_reads_the_output() {
    if skip() {
        return;
    }
    let lab = Lab::new();
    let _alone = pumping();
    let mut spec = lab.spec(&["yes"]);
    (spec.sandbox.init, spec.log.driver) = (true, LogDriver::None);
    let attachment = lab.start(&spec, Mode::Attached).attachment.unwrap();
    let (read, write) = std::io::pipe().unwrap();
    let dir = lab.dir();
    let sender = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(300));
        rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::TERM).unwrap();
        assert_eq!(wait(&dir).unwrap(), 143);
        // The pump still has output for us.
        drop(read);
    });
    let null = File::options().write(true).open("/dev/null").unwrap();
    let io = LocalIo { stdin: None, stdout: write.as_fd(), stderr: null.as_fd() };
    assert!(matches!(attachment.pump(io, &PumpOptions::default()), Err(Error::Local { .. })));
    sender.join().unwrap();
}

#[test]
fn a_client_that_does_not_read_does_not_stop_the_container() {
    if skip() {
        return;
    }
    let lab = Lab::new();
    let mut spec = lab.shell("read go; seq 1 300000; echo done >&2");
    spec.stdin = StdinMode::Open;
    lab.start(&spec, Mode::Detached);
    let idle = attach(&lab.dir()).unwrap();
    let (go, mut null) = (attach(&lab.dir()).unwrap(), tempfile::tempfile().unwrap());
    let (read, mut write) = std::io::pipe().unwrap();
    write.write_all(b"go\n").unwrap();
    let _alone = pumping();
    let io = LocalIo { stdin: Some(read.as_fd()), stdout: null.as_fd(), stderr: null.as_fd() };
    assert_eq!(go.pump(io, &PumpOptions::default()).unwrap(), exited(0));
    let text = contents(&mut null);
    assert!(text.ends_with(b"300000\n") || text.ends_with(b"done\n"));
    drop(idle);
    assert_eq!(lab.log().len(), 300_001);
}

#[test]
fn the_starter_loses_nothing_however_slowly_it_reads() {
    if skip() {
        return;
    }
    let lab = Lab::new();
    let mut spec = lab.spec(&["seq", "1", "400000"]);
    spec.log.driver = LogDriver::None;
    let _alone = pumping();
    let attachment = lab.start(&spec, Mode::Attached).attachment.unwrap();
    let (mut read, write) = std::io::pipe().unwrap();
    let reader = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(500));
        let mut text = String::new();
        read.read_to_string(&mut text).unwrap();
        text
    });
    let null = File::options().write(true).open("/dev/null").unwrap();
    let io = LocalIo { stdin: None, stdout: write.as_fd(), stderr: null.as_fd() };
    assert_eq!(attachment.pump(io, &PumpOptions::default()).unwrap(), exited(0));
    drop(write);
    let text = reader.join().unwrap();
    assert!(text.lines().enumerate().all(|(index, line)| line == (index + 1).to_string()));
    assert_eq!(text.lines().count(), 400_000);
}

#[test]
fn a_detached_container_keeps_nothing_of_the_starter_open() {
    if skip() {
        return;
    }
    let lab = Lab::new();
    let (read, leaked) = rustix::pipe::pipe().unwrap();
    lab.start(&lab.spec(&["sleep", "1000"]), Mode::Detached);
    drop(leaked);
    rustix::io::ioctl_fionbio(&read, true).unwrap();
    // Programs that other tests run meanwhile may have it for a moment.
    eventually("the pipe has no writer", || rustix::io::read(&read, &mut [0; 1]) == Ok(0));
    assert!(matches!(load_state(&lab.dir()).unwrap(), State::Running { .. }));
    stop(&lab.dir(), Some(9), None).unwrap();
}

#[test]
fn a_log_is_followed_to_the_end() {
    if skip() {
        return;
    }
    let lab = Lab::new();
    lab.start(&lab.shell("for n in 1 2 3; do echo $n; sleep 0.1; done"), Mode::Detached);
    let mut seen = Vec::new();
    let options = LogOptions { follow: true, ..LogOptions::default() };
    logs(&lab.dir(), &options, &mut |record| {
        seen.push(record.log);
        true
    })
    .unwrap();
    assert_eq!(seen, ["1\n", "2\n", "3\n"]);
    assert_eq!(wait(&lab.dir()).unwrap(), 0);
}

#[test]
fn a_private_network_is_there_for_the_container_and_gone_after_it() {
    if skip() {
        return;
    }
    let host = std::thread::spawn(|| {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
        let lab = Lab::new();
        let mut spec = lab.shell("ip -o -4 addr show dev eth0; ip route");
        let extra_hosts = vec![("host.docker.internal".to_owned(), HostAddress::Gateway)];
        let (plan, run_dir) = (crate::runtime::network::NetworkPlan::default_bridge(), lab.temp.path().join("net"));
        spec.network = NetworkRequest::Networks(vec![EndpointSpec { plan, run_dir, request: Default::default() }]);
        spec.names.extra_hosts = extra_hosts;
        spec.sandbox.hostname = "web".to_owned();
        let begin = Instant::now();
        let mut started = lab.start(&spec, Mode::Detached);
        assert_eq!(started.warnings, Vec::<String>::new());
        assert_eq!(wait(&lab.dir()).unwrap(), 0);
        println!("start to exit with a private network: {:?}", begin.elapsed());
        let hosts = std::fs::read_to_string(lab.dir().join("hosts")).unwrap();
        let address = hosts.lines().find_map(|line| line.strip_suffix("\tweb")).unwrap();
        let gateway = hosts.lines().find_map(|line| line.strip_suffix("\thost.docker.internal")).unwrap();
        let log = lab.log().concat();
        assert!(log.contains(&format!("inet {address}/20")), "{log}");
        assert!(log.contains(&format!("default via {gateway}")), "{log}");
        eventually("the supervisor ends", || started.reap());
        eventually("the bridge is gone", || {
            let links = std::process::Command::new("ip").args(["-o", "link"]).output().unwrap().stdout;
            !String::from_utf8_lossy(&links).contains("strake0")
        });
    });
    host.join().unwrap();
}

#[test]
fn a_start_takes_milliseconds() {
    if skip() {
        return;
    }
    let mut times = Vec::new();
    for _ in 0..5 {
        let lab = Lab::new();
        let start = Instant::now();
        let ran = lab.run(&lab.spec(&["true"]), b"");
        times.push(start.elapsed());
        assert_eq!(ran.outcome, exited(0));
    }
    times.sort();
    println!("start to exit of `true`: {times:?}");
    assert!(times[0] < Duration::from_millis(500));
}
