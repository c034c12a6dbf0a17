//! Networks without root: `pasta` or `slirp4netns` carries the packets of a container. Every test is a host of its own with an outside, as in `networks.rs`, on which an
//! ordinary user with no subordinate ids and an openable `/dev/net/tun` runs everything.

use std::io::Write;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::common::{Run, World, able, bases, unable, wait_for, which};
use crate::networks::{OUTSIDE, UPLINK, UPLINK6, ask, ask_udp, become_a_host, echo, in_netns, outside, sh, tell_callers};

/// Hears a server out: the words of a shell before its address and port. The end of what is said to it never comes.
const HEAR: &str = "[ -e /f ] || mkfifo /f; timeout 20 nc -w 5 0<>/f";
const PROGRAMS: [&str; 2] = ["pasta", "slirp4netns"];

/// An ordinary user of the host.
struct User {
    dir: PathBuf,
    /// Where their programs are.
    path: PathBuf,
}

impl User {
    fn strake(&self, args: &[&str]) -> Run {
        let setpriv = which("setpriv").unwrap();
        let run = Run::new(setpriv.to_str().unwrap(), ["--reuid=65534", "--regid=65534", "--clear-groups"])
            .arg(self.dir.join("strake"))
            .arg_all(args);
        let run = run.env("HOME", &self.dir).env("XDG_RUNTIME_DIR", self.dir.join("run")).env("STRAKE_ROOT", self.dir.join("store"));
        run.env("PATH", &self.path).dir("/")
    }

    /// From here on these programs are in the `PATH`, and no others.
    fn has(&self, programs: &[&str]) {
        for name in PROGRAMS {
            let _ = std::fs::remove_file(self.path.join(name));
        }
        for name in programs {
            symlink(which(name).unwrap(), self.path.join(name)).unwrap();
        }
    }

    /// A program of that name that says something and fails.
    fn has_broken(&self, name: &str) {
        let path = self.path.join(name);
        let _ = std::fs::remove_file(&path);
        std::fs::write(&path, "#!/bin/sh\necho the tap is on fire >&2\nexit 1\n").unwrap();
        std::fs::set_permissions(path, PermissionsExt::from_mode(0o755)).unwrap();
    }

    #[track_caller]
    fn shell(&self, flags: &[&str], script: &str) -> String {
        let args = [&["run", "--rm"][..], flags, &["localhost/busybox", "sh", "-c", script]].concat();
        self.strake(&args).ok().omits(&["host's network"]).stdout.clone()
    }

    #[track_caller]
    fn shown(&self, format: &str, name: &str) -> String {
        self.strake(&["inspect", "-f", format, name]).ok().stdout.trim_end().to_owned()
    }
}

/// Runs `test` on a host of its own.
fn on_a_host(test: impl FnOnce(&User) + Send + 'static) {
    if !able(&["ip", "setpriv", "docker-registry", "pasta", "slirp4netns"]) {
        return;
    }
    let host = std::thread::spawn(move || {
        let world = World::new();
        become_a_host();
        sh("mkdir -p /run/dev /dev/net; mknod /run/dev/tun c 10 200; chmod 666 /run/dev/tun
            [ -e /dev/net/tun ] || touch /dev/net/tun; mount --bind /run/dev/tun /dev/net/tun
            echo nameserver 127.0.0.1 > /run/resolv.conf; mount --bind /run/resolv.conf /etc/resolv.conf");
        let (dir, path) = (world.short().to_owned(), world.short().join("bin"));
        std::fs::set_permissions(&dir, PermissionsExt::from_mode(0o777)).unwrap();
        std::fs::create_dir(&path).unwrap();
        std::fs::copy(env!("CARGO_BIN_EXE_strake"), dir.join("strake")).unwrap();
        std::fs::copy(bases().join("busybox.tar"), dir.join("busybox.tar")).unwrap();
        let user = User { dir, path };
        let import =
            user.strake(&["import", "-c", "CMD [\"sh\"]", user.dir.join("busybox.tar").to_str().unwrap(), "localhost/busybox"]).run();
        if import.stderr.contains("user namespace") {
            return unable("user namespaces without root");
        }
        assert_eq!(import.code, 0, "{import}");
        user.has(&PROGRAMS);
        test(&user);
        let ids = user.strake(&["ps", "-aq"]).ok().stdout;
        for id in ids.split_whitespace() {
            user.strake(&["rm", "-f", id]).ok();
        }
        wait_for("the end of all programs", 20, || carriers().is_empty());
        // A supervisor goes a moment after the command that its container ended.
        let run = user.dir.join("run");
        wait_for("the end of all files", 20, || sh(&format!("find {} -mindepth 1 | tee /dev/stderr", run.display())).is_empty());
    });
    if let Err(panic) = host.join() {
        std::panic::resume_unwind(panic);
    }
}

/// The programs that carry packets on this thread's host, and the processes that look after them.
fn carriers() -> Vec<String> {
    let own = std::fs::read_link("/proc/thread-self/ns/net").unwrap();
    let all = std::fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path());
    let comm = |path: &Path| std::fs::read_to_string(path.join("comm")).unwrap_or_default().trim().to_owned();
    let here = all.filter(|path| std::fs::read_link(path.join("ns/net")).is_ok_and(|netns| netns == own));
    let is_one = |comm: &String| ["pasta", "passt", "slirp4netns", "strake-net"].iter().any(|name| comm.starts_with(name));
    here.map(|path| comm(&path)).filter(is_one).collect()
}

/// A server that tells each caller who it is. (Old versions of pasta lose answers to clients that end their side of the connection first.)
fn greet(listener: TcpListener) {
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let _ = writeln!(stream, "{}", stream.peer_addr().unwrap().ip());
        }
    });
}

/// A DNS server at the host's loopback that knows an address for every name.
fn serve_names() {
    let socket = UdpSocket::bind("127.0.0.1:53").unwrap();
    std::thread::spawn(move || {
        let mut buffer = [0; 512];
        while let Ok((length, from)) = socket.recv_from(&mut buffer) {
            let question = &buffer[..length];
            let end = 12 + question[12..].iter().position(|byte| *byte == 0).unwrap() + 5;
            let mut answer = question[..end].to_vec();
            (answer[2], answer[3]) = (0x81, 0x80);
            let is_a = question[end - 3] == 1;
            answer[6..12].copy_from_slice(&[0, u8::from(is_a), 0, 0, 0, 0]);
            if is_a {
                answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 9, 0, 4, 198, 51, 100, 7]);
            }
            let _ = socket.send_to(&answer, from);
        }
    });
}

#[test]
fn a_container_has_a_network_of_its_own_and_the_way_out_by_either_program() {
    on_a_host(|user| {
        serve_names();
        outside(|| greet(TcpListener::bind((OUTSIDE, 7000)).unwrap()));
        greet(TcpListener::bind("127.0.0.1:7001").unwrap());
        greet(TcpListener::bind((UPLINK, 7002)).unwrap());
        for program in PROGRAMS {
            user.has(&[program]);
            let links = user.shell(&[], "ls /sys/class/net; ip -4 addr show eth0");
            assert!(links.starts_with("eth0\nlo\n") && links.contains("10.0.2.100/24"), "{program}: {links}");
            // Who answers sees the host.
            let far = user.shell(&[], &format!("{HEAR} {OUTSIDE} 7000"));
            assert_eq!(far, format!("{UPLINK}\n"), "{program}");
            // The host's loopback is the host's own, also by way of the gateway; what it offers to all is at its address.
            let near = user.shell(
                &["--add-host", "me:host-gateway"],
                &format!("for at in 127.0.0.1 10.0.2.2; do {HEAR} $at 7001 2>/dev/null; done; {HEAR} me 7002"),
            );
            assert_eq!(near, format!("{UPLINK}\n"), "{program}");
            // Names are asked of the host's servers, also of one at its loopback; of others where others are named.
            let names = user.shell(&[], "cat /etc/resolv.conf; nslookup -type=a far.example");
            assert!(names.starts_with("nameserver 127.0.0.11\n") && names.contains("198.51.100.7"), "{program}: {names}");
            assert_eq!(user.shell(&["--dns", "192.0.2.9"], "cat /etc/resolv.conf"), "nameserver 192.0.2.9\n");
            let mac = user.shell(&["--mac-address", "02:11:22:33:44:55"], "cat /sys/class/net/eth0/address");
            assert_eq!(mac, "02:11:22:33:44:55\n", "{program}");
        }
        // The better one is taken where both are there, and the one that is named where it is.
        user.has(&PROGRAMS);
        for (flags, expected) in [(&[][..], "pas"), (&["--network", "slirp4netns"], "slirp4netns"), (&["--network", "pasta"], "pas")] {
            user.strake(&[&["run", "-d", "--name", "one"][..], flags, &["localhost/busybox", "sleep", "1000"]].concat()).ok();
            assert!(carriers().iter().any(|comm| comm.starts_with(expected)), "{flags:?}: {:?}", carriers());
            let shown = user.shown("{{.HostConfig.NetworkMode}} {{.NetworkSettings.IPAddress}}", "one");
            assert!(shown.starts_with(flags.get(1).unwrap_or(&"bridge")), "{shown}");
            user.strake(&["rm", "-f", "one"]).ok();
        }
        user.strake(&["run", "--network", "pasta", "--network", "bridge", "localhost/busybox", "true"]).fails().says(&["`pasta`"]);
        assert_eq!(user.shell(&["--network", "none"], "ls /sys/class/net"), "lo\n");
        assert!(user.shell(&["--network", "host"], "ip -4 addr").contains(UPLINK));
    });
}

/// Servers in a container: of connections at its port 80, of datagrams at 81.
fn serve(user: &User, name: &str) {
    let netns = format!("/proc/{}/ns/net", user.shown("{{.State.Pid}}", name));
    let (listener, socket) = in_netns(&netns, || (TcpListener::bind("0.0.0.0:80").unwrap(), UdpSocket::bind("0.0.0.0:81").unwrap()));
    tell_callers(listener);
    echo(socket);
}

#[test]
fn ports_are_published_without_root() {
    on_a_host(|user| {
        for program in PROGRAMS {
            user.has(&[program]);
            let flags = ["-p", "7080:80", "-p", "7081:81/udp", "-p", "127.0.0.1::80", "-p", "[::1]:7083:80", "-p", "7090-7091:90-91"];
            let sleeps = ["--restart", "always", "localhost/busybox", "sleep", "1000"];
            user.strake(&[&["run", "-d", "--name", "web"][..], &flags, &sleeps].concat()).ok();
            serve(user, "web");
            assert!(user.strake(&["ps"]).ok().stdout.contains("0.0.0.0:7080->80/tcp, 127.0.0.1:"), "{program}");
            assert_eq!(user.shown("{{(index (index .NetworkSettings.Ports \"91/tcp\") 0).HostPort}}", "web"), "7091");
            let all = |when: &str| {
                // Any that is free, at each start.
                let free = user.strake(&["port", "web", "80"]).ok().stdout;
                let free = free.lines().find_map(|line| line.strip_prefix("127.0.0.1:")).unwrap().to_owned();
                let places = ["127.0.0.1:7080".to_owned(), format!("127.0.0.1:{free}"), "[::1]:7083".to_owned(), format!("{UPLINK}:7080")];
                for place in places {
                    wait_for(&format!("{program}: {place} {when}"), 20, || ask(&place).is_some());
                }
                // Asked again: old versions of pasta lose answers to clients that end their side first.
                for place in [format!("{UPLINK}:7080"), format!("[{UPLINK6}]:7080")] {
                    let asks = || {
                        let place = place.clone();
                        outside(move || ask(&place)).is_some()
                    };
                    wait_for(&format!("{program}: {place} from outside {when}"), 20, asks);
                }
                wait_for(&format!("{program}: datagrams {when}"), 20, || ask_udp("127.0.0.1:7081"));
                wait_for(&format!("{program}: datagrams from outside {when}"), 20, || outside(|| ask_udp(&format!("{UPLINK}:7081"))));
            };
            all("at first");
            // Not at an address that was not asked for.
            assert!(
                outside(move || TcpStream::connect_timeout(
                    &SocketAddr::new(UPLINK.parse::<IpAddr>().unwrap(), 7083),
                    Duration::from_secs(1)
                ))
                .is_err()
            );
            let taken = user.strake(&["run", "--rm", "-p", "7080:80", "localhost/busybox", "true"]).fails();
            assert_eq!(taken.code, 125);
            taken.says(&["0.0.0.0:7080 (tcp)", "in use", "hint:"]);
            // Its next start has a network of its own again, and the same ports.
            user.strake(&["kill", "-s", "KILL", "web"]).run();
            user.strake(&["start", "web"]).ok();
            serve(user, "web");
            all("after a start");
            user.strake(&["rm", "-f", "web"]).ok();
            // The kernel may take a moment for the end of one.
            wait_for(&format!("{program}: the end of all that carries"), 10, || carriers().is_empty());
            assert!(ask("127.0.0.1:7080").is_none());
        }
        let low = user.strake(&["run", "--rm", "-p", "80:80", "localhost/busybox", "true"]).fails();
        assert_eq!(low.code, 125);
        low.says(&["0.0.0.0:80 (tcp)", "net.ipv4.ip_unprivileged_port_start", "hint:"]);
        sh("echo 80 > /proc/sys/net/ipv4/ip_unprivileged_port_start");
        user.strake(&["run", "--rm", "-p", "80:80", "localhost/busybox", "true"]).ok();
    });
}

#[test]
fn the_program_ends_with_the_container_however_that_ends() {
    on_a_host(|user| {
        for program in PROGRAMS {
            user.has(&[program]);
            let begin = || {
                user.strake(&["run", "-d", "--name", "one", "-p", "7080:80", "localhost/busybox", "sleep", "1000"]).ok();
                assert!(carriers().len() >= 2, "{:?}", carriers());
            };
            begin();
            user.strake(&["stop", "-t", "0", "one"]).ok();
            user.strake(&["rm", "one"]).ok();
            assert!(carriers().is_empty(), "{program} after stop: {:?}", carriers());
            // The supervisor is killed; the service is.
            begin();
            let supervisor: i32 =
                sh("pgrep -u 65534 -f --ns $$ --nslist net '^[^ ]* strake-supervisor' | head -n 1").trim().parse().unwrap();
            kill(supervisor);
            wait_for("the end of all programs", 20, || carriers().is_empty());
            user.strake(&["rm", "-f", "one"]).ok();
            // A command that cannot be executed.
            user.strake(&["run", "--rm", "localhost/busybox", "/nowhere"]).fails();
            wait_for("the end of all programs", 20, || carriers().is_empty());
        }
    });
}

#[test]
fn a_program_or_service_that_is_killed_is_started_anew() {
    on_a_host(|user| {
        outside(|| greet(TcpListener::bind((OUTSIDE, 7000)).unwrap()));
        let pids = |comm: &str| sh(&format!("pgrep -u 65534 --ns $$ --nslist net '^{comm}' || true"));
        for program in PROGRAMS {
            user.has(&[program]);
            user.strake(&["run", "-d", "--name", "web", "-p", "7080:80", "-p", "81", "localhost/busybox", "sleep", "1000"]).ok();
            serve(user, "web");
            let look = |user: &User| {
                let links = user.strake(&["exec", "web", "sh", "-c", "ip addr show eth0 | grep -E 'ether|inet '"]).run().stdout;
                links + &user.strake(&["ps", "--format", "{{.Ports}}"]).ok().stdout
            };
            let before = look(user);
            for victim in ["strake-net", &program[..3]] {
                let old = pids(victim);
                kill(old.lines().last().unwrap().parse().unwrap());
                wait_for(&format!("{program}: the link after the end of {victim}"), 10, || {
                    !pids(victim).contains(old.trim()) && look(user) == before
                });
                wait_for(&format!("{program}: the port after the end of {victim}"), 10, || ask("127.0.0.1:7080").is_some());
                let far = user.strake(&["exec", "web", "sh", "-c", &format!("{HEAR} {OUTSIDE} 7000")]).ok().stdout;
                assert_eq!(far, format!("{UPLINK}\n"), "{program}: {victim}");
            }
            // Where that cannot be, nothing is shown that is not there, and the log says why.
            user.has(&[]);
            kill(pids(&program[..3]).lines().last().unwrap().parse().unwrap());
            wait_for("what cannot be", 10, || !user.strake(&["ps"]).ok().stdout.contains("7080"));
            assert_eq!(user.strake(&["port", "web"]).ok().stdout, "");
            user.strake(&["logs", "web"]).ok().says(&["strake: the process that serves", program]);
            user.has(&[program]);
            wait_for("the port, now that it can be", 20, || ask("127.0.0.1:7080").is_some());
            wait_for("what is shown of it", 10, || user.strake(&["ps"]).ok().stdout.contains("0.0.0.0:7080->80/tcp"));
            user.strake(&["rm", "-f", "web"]).ok();
            assert!(carriers().is_empty(), "{program}: {:?}", carriers());
        }
    });
}

fn kill(pid: i32) {
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL).unwrap();
}

#[test]
fn a_program_that_fails_is_quoted_and_another_takes_its_place() {
    on_a_host(|user| {
        user.has(&[]);
        user.has_broken("pasta");
        for flags in [&[][..], &["-p", "7080:80"], &["--network", "pasta"]] {
            let failed = user.strake(&[&["run", "--rm"][..], flags, &["localhost/busybox", "true"]].concat()).fails();
            assert_eq!(failed.code, 125, "{failed}");
            failed.says(&["`pasta`", "the tap is on fire", "hint:", "--network=host"]);
        }
        assert_eq!(user.strake(&["ps", "-aq"]).ok().stdout, "");
        user.has(&["slirp4netns"]);
        user.has_broken("pasta");
        assert_eq!(user.shell(&[], "ls /sys/class/net"), "eth0\nlo\n");
        // Where nothing can be carried, only those who ask for something are refused.
        user.has(&PROGRAMS);
        sh("chmod 600 /dev/net/tun");
        user.strake(&["run", "--rm", "localhost/busybox", "true"]).ok().says(&["`/dev/net/tun`", "host's network"]);
        user.strake(&["run", "--rm", "-p", "7080:80", "localhost/busybox", "true"]).fails().says(&["`/dev/net/tun`", "hint:", "chmod 666"]);
        let doctor = user.strake(&["doctor"]).run();
        assert!(doctor.stdout.contains("`/dev/net/tun` cannot be opened"), "{doctor}");
        sh("chmod 666 /dev/net/tun");
        let doctor = user.strake(&["doctor"]).run();
        assert!(doctor.stdout.contains("bin/pasta`"), "{doctor}");
        user.has(&[]);
        let doctor = user.strake(&["doctor"]).run();
        assert!(doctor.stdout.contains("passt") && doctor.stdout.contains("slirp4netns"), "{doctor}");
    });
}

#[test]
fn containers_of_a_user_share_what_they_are_told_to_share() {
    on_a_host(|user| {
        // However many come at once, they are in one user namespace.
        std::thread::scope(|scope| {
            for name in ["one", "two", "three", "four"] {
                let flags = ["run", "-d", "--ipc", "shareable", "--name", name, "localhost/busybox", "sleep", "1000"];
                scope.spawn(move || user.strake(&flags).ok());
            }
        });
        let namespaces = ["one", "two", "three", "four"]
            .map(|name| std::fs::read_link(format!("/proc/{}/ns/user", user.shown("{{.State.Pid}}", name))).unwrap());
        assert!(namespaces.iter().all(|namespace| *namespace == namespaces[0]), "{namespaces:?}");
        let script = "ip -4 -o addr show eth0 | grep -c 10.0.2.100; hostname; touch /dev/shm/seen; tr '\\0' ' ' < /proc/1/cmdline";
        let flags = ["--network", "container:one", "--pid", "container:two", "--ipc", "container:three"];
        let said = user.shell(&flags, script);
        assert_eq!(said, format!("1\n{}\nsleep 1000 ", &user.shown("{{.Id}}", "one")[..12]));
        user.strake(&["exec", "three", "ls", "/dev/shm/seen"]).ok();
        // A port of the other's leads to what serves in its network.
        user.strake(&["run", "-d", "--name", "web", "-p", "7080:80", "localhost/busybox", "sleep", "1000"]).ok();
        user.strake(&["run", "-d", "--name", "server", "--network", "container:web", "localhost/busybox", "sleep", "1000"]).ok();
        serve(user, "server");
        wait_for("the port", 20, || ask("127.0.0.1:7080").is_some());
        // Who is started again finds the others, also when all that were there at first are gone.
        for name in ["one", "two", "three", "four"] {
            user.strake(&["rm", "-f", name]).ok();
        }
        user.strake(&["restart", "-t", "0", "server"]).ok();
        assert!(user.strake(&["exec", "server", "ip", "addr"]).ok().stdout.contains("10.0.2.100"));
    });
}

#[test]
fn containers_are_on_networks_with_names_without_root() {
    on_a_host(|user| {
        serve_names();
        outside(|| greet(TcpListener::bind((OUTSIDE, 7000)).unwrap()));
        let sleeper = |name: &str, flags: &[&str]| {
            user.strake(&[&["run", "-d", "--name", name][..], flags, &["localhost/busybox", "sleep", "1000"]].concat()).ok()
        };
        let exec = |name: &str, script: &str| user.strake(&["exec", name, "sh", "-c", script]).run();
        let look = |name: &str, wanted: &str| {
            exec(name, &format!("nslookup -type=a {wanted} | tail -n +3 | grep -o 'Address.*' | sed 's/.*: //'")).stdout.trim().to_owned()
        };
        let address = |network: &str, name: &str| user.shown(&format!("{{{{.NetworkSettings.Networks.{network}.IPAddress}}}}"), name);
        for program in PROGRAMS {
            user.has(&[program]);
            user.strake(&["network", "create", "--subnet", "10.88.0.0/16", "front"]).ok();
            for flags in [&["back"][..], &["--internal", "closed"]] {
                user.strake(&[&["network", "create"][..], flags].concat()).ok();
            }
            // Those that come at once find one network.
            std::thread::scope(|scope| {
                scope.spawn(|| sleeper("db", &["--network", "front,alias=store", "--ip", "10.88.7.7"]));
                scope.spawn(|| sleeper("far", &["--network", "back"]));
                scope.spawn(|| sleeper("shut", &["--network", "closed"]));
                sleeper("web", &["--network", "front", "-p", "7080:80", "-p", "7081:81/udp", "--add-host", "me:host-gateway"])
                    .omits(&["warning"]);
            });
            assert_eq!(address("front", "db"), "10.88.7.7");
            assert_eq!(
                (look("web", "db"), look("web", "store"), look("db", "web")),
                ("10.88.7.7".into(), "10.88.7.7".into(), address("front", "web"))
            );
            assert_eq!(look("web", "far"), "198.51.100.7", "a name of another network is the host's servers' to know");
            assert_eq!(exec("web", "ping -c 1 -W 5 store").code, 0, "{program}");
            let other = address("back", "far");
            assert_ne!(exec("web", &format!("ping -c 1 -W 1 {other}")).code, 0, "{program}: networks are apart");
            assert_eq!(exec("web", &format!("{HEAR} {OUTSIDE} 7000")).stdout, format!("{UPLINK}\n"), "{program}: the way out");
            assert_eq!(exec("shut", &format!("{HEAR} {OUTSIDE} 7000 2>/dev/null")).stdout, "", "{program}: nothing leads out of it");
            assert!(exec("web", "grep me$ /etc/hosts").stdout.starts_with(UPLINK), "{program}");
            serve(user, "web");
            let ports = |when: &str| {
                wait_for(&format!("{program}: the port {when}"), 20, || ask("127.0.0.1:7080").is_some());
                assert!(outside(|| ask(&format!("{UPLINK}:7080"))).is_some(), "{program}: {when}");
                assert!(ask_udp("127.0.0.1:7081"), "{program}: {when}");
                assert!(exec("db", "nc -w 5 web 80 < /dev/null").stdout.starts_with("10.88.7.7"), "{program}: {when}");
            };
            ports("at first");
            // More networks, and fewer.
            user.strake(&["network", "connect", "back", "web"]).ok();
            assert_eq!(look("web", "far"), other, "{program}");
            assert_eq!(exec("far", "ping -c 1 -W 5 web").code, 0, "{program}");
            user.strake(&["network", "disconnect", "back", "web"]).ok();
            assert_ne!(look("web", "far"), other, "{program}");
            // What is killed is started anew.
            sh("pkill -KILL -x --ns $$ --nslist net strake-net");
            wait_for("names", 10, || look("web", "db") == "10.88.7.7");
            ports("after the service was killed");
            sh(&format!("pkill -KILL --ns $$ --nslist net '^{}'", &program[..3]));
            wait_for("the way out", 10, || exec("web", &format!("{HEAR} {OUTSIDE} 7000")).stdout == format!("{UPLINK}\n"));
            let web = address("front", "web");
            for victims in [&["strake-uplink"][..], &["strake-bridge"], &["strake-bridge", "strake-uplink"]] {
                let kill = victims.iter().map(|name| format!("pkill -KILL -x '{name}' --ns $UPLINK_OF --nslist user")).collect::<Vec<_>>();
                let holder = sh("pgrep -x --ns $$ --nslist net strake-uplink | tail -1");
                sh(&kill.join("; ").replace("$UPLINK_OF", holder.trim()));
                wait_for(&format!("{program}: all of it after the end of {victims:?}"), 20, || {
                    look("db", "web") == web && exec("db", "ping -c 1 -W 1 web").code == 0 && look("web", "db") == "10.88.7.7"
                });
                wait_for(&format!("{program}: the way out after the end of {victims:?}"), 20, || {
                    exec("web", &format!("{HEAR} {OUTSIDE} 7000")).stdout == format!("{UPLINK}\n")
                });
                ports(&format!("after the end of {victims:?}"));
                assert_eq!(exec("web", "ip -4 -o addr show eth0 | wc -l").stdout.trim(), "1", "{program}: {victims:?}");
                // Who comes now finds the same network.
                let new = ["run", "--rm", "--network", "front", "localhost/busybox", "ping", "-c", "1", "-W", "5", "db"];
                user.strake(&new).ok();
            }
            assert_eq!(
                user.strake(&["top", "web", "-o", "comm"]).ok().stdout.lines().skip(1).filter(|name| name.contains("strake")).count(),
                0
            );
            user.strake(&["restart", "-t", "0", "db"]).ok();
            assert_eq!(look("web", "db"), "10.88.7.7", "{program}");
            user.strake(&["network", "rm", "front"]).fails().says(&["in use"]);
            user.strake(&["rm", "-f", "web", "db", "far", "shut"]).ok();
            user.strake(&["network", "rm", "front", "back", "closed"]).ok();
            wait_for("the end of all programs", 20, || carriers().is_empty());
        }
    });
}

#[test]
fn containers_of_an_isolated_network_do_not_reach_each_other_without_root_either() {
    on_a_host(|user| {
        outside(|| greet(TcpListener::bind((OUTSIDE, 7000)).unwrap()));
        user.strake(&["network", "create", "-o", "com.docker.network.bridge.enable_icc=false", "--subnet", "10.85.0.0/24", "apart"]).ok();
        user.strake(&["network", "create", "--subnet", "10.86.0.0/24", "together"]).ok();
        for (name, network) in [("one", "apart"), ("two", "together")] {
            user.strake(&["run", "-d", "--name", name, "--network", network, "localhost/busybox", "sleep", "1000"]).ok();
        }
        user.strake(&["network", "connect", "apart", "two"]).ok();
        let exec = |name: &str, script: &str| user.strake(&["exec", name, "sh", "-c", script]).run();
        for (from, to) in [("one", "two"), ("two", "one")] {
            let at = user.shown("{{.NetworkSettings.Networks.apart.IPAddress}}", to);
            assert!(exec(from, &format!("nslookup -type=a {to}")).stdout.contains(&at), "{from} does not know {to}");
            assert_eq!(exec(from, &format!("ping -c 2 -W 1 {at}")).code, 1, "{from} reaches {to}");
            assert_eq!(exec(from, "ping -c 1 -W 10 10.85.0.1").code, 0, "{from} misses the gateway");
        }
        assert!(exec("one", &format!("{HEAR} {OUTSIDE} 7000")).stdout.contains(UPLINK));
        user.strake(&["rm", "-f", "one", "two"]).ok();
    });
}

#[test]
fn a_container_with_a_program_of_its_own_is_taken_to_other_networks() {
    on_a_host(|user| {
        serve_names();
        outside(|| greet(TcpListener::bind((OUTSIDE, 7000)).unwrap()));
        let sleeper = |name: &str, flags: &[&str]| {
            user.strake(&[&["run", "-d", "--name", name][..], flags, &["localhost/busybox", "sleep", "1000"]].concat()).ok()
        };
        let exec = |name: &str, script: &str| user.strake(&["exec", name, "sh", "-c", script]).run();
        let way_out = |name: &str| exec(name, &format!("{HEAR} {OUTSIDE} 7000")).stdout;
        let own = "ip -4 -o addr | grep -c 10.0.2.100";
        user.strake(&["network", "create", "--subnet", "10.88.0.0/16", "front"]).ok();
        for program in PROGRAMS {
            user.has(&[program]);
            sleeper("db", &["--network", "front", "--ip", "10.88.7.7"]);
            sleeper("solo", &["-p", "7082:80", "--cap-add", "NET_ADMIN"]);
            assert_eq!(exec("solo", own).stdout, "1\n", "{program}");
            // What cannot be leaves it as it was, also where the program could not be started again.
            user.has_broken(program);
            user.strake(&["network", "connect", "--ip", "10.88.7.7", "front", "solo"]).fails().says(&["10.88.7.7"]);
            user.has(&[program]);
            assert_eq!(exec("solo", own).stdout, "1\n", "{program}");
            assert_eq!(exec("solo", "ls /sys/class/net | grep -c eth").stdout, "1\n", "{program}");
            assert_eq!(way_out("solo"), format!("{UPLINK}\n"), "{program}");
            serve(user, "solo");
            wait_for("the port after a network that it could not have", 20, || ask("127.0.0.1:7082").is_some());
            // The program that is ended for nothing comes back as soon as it can.
            assert_eq!(exec("solo", "ip link add way0 type bridge").code, 0, "{program}");
            user.has_broken(program);
            let taken = ["network", "connect", "--driver-opt", "com.docker.network.endpoint.ifname=way0", "front", "solo"];
            user.strake(&taken).fails().says(&["another link of the name `way0`"]);
            user.has(&[program]);
            wait_for("the way out after a link that it could not have", 20, || way_out("solo") == format!("{UPLINK}\n"));
            wait_for("the port after it", 20, || ask("127.0.0.1:7082").is_some());
            assert_eq!(exec("solo", "ip link del way0").code, 0, "{program}");
            user.strake(&["network", "connect", "--alias", "lone", "front", "solo"]).ok();
            assert_eq!(exec("solo", own).stdout, "0\n", "{program}");
            assert_eq!(exec("solo", "ping -c 1 -W 5 db").code, 0, "{program}");
            assert_eq!(exec("db", "ping -c 1 -W 5 lone").code, 0, "{program}");
            assert_eq!(way_out("solo"), format!("{UPLINK}\n"), "{program}");
            wait_for("the port that was published before", 20, || ask("127.0.0.1:7082").is_some());
            user.strake(&["network", "disconnect", "front", "solo"]).ok();
            assert_ne!(exec("solo", "ping -c 1 -W 1 10.88.7.7").code, 0, "{program}");
            assert_eq!(way_out("solo"), format!("{UPLINK}\n"), "{program}");
            user.strake(&["restart", "-t", "0", "solo"]).ok();
            assert_eq!(exec("solo", own).stdout, "1\n", "{program}");
            sleeper("asked", &["--network", program]);
            user.strake(&["network", "connect", "front", "asked"]).fails().says(&[&format!("--network {program}"), "no other network"]);
            // Off the shared bridge it is on no network, and comes back to one.
            user.strake(&["network", "disconnect", "bridge", "solo"]).ok();
            assert_eq!(exec("solo", "ls /sys/class/net").stdout, "lo\n", "{program}");
            user.strake(&["network", "connect", "front", "solo"]).ok();
            assert_eq!(exec("solo", "ping -c 1 -W 5 db").code, 0, "{program}");
            user.strake(&["rm", "-f", "solo", "asked", "db"]).ok();
            // One that is on both from the start leaves nothing, either.
            let both = ["run", "--rm", "--network", "bridge", "--network", "front", "localhost/busybox", "ls", "/sys/class/net"];
            assert_eq!(user.strake(&both).ok().stdout, "eth0\neth1\nlo\n", "{program}");
            wait_for("the end of all programs", 20, || carriers().is_empty());
        }
    });
}

#[test]
fn build_steps_have_such_a_network_too() {
    on_a_host(|user| {
        serve_names();
        outside(|| greet(TcpListener::bind((OUTSIDE, 7000)).unwrap()));
        let context = user.dir.join("ctx");
        std::fs::create_dir(&context).unwrap();
        let dockerfile = format!(
            "FROM localhost/busybox\nRUN ls /sys/class/net; echo seen as $({HEAR} {OUTSIDE} 7000); nslookup -type=a far.example\n\
             RUN --network=none ls /sys/class/net | tr '\\n' ' '; echo only\nRUN --network=host ip -4 addr\n"
        );
        std::fs::write(context.join("Dockerfile"), dockerfile).unwrap();
        let build =
            || user.strake(&["build", "--no-cache", "--progress", "plain", "--allow", "network.host", context.to_str().unwrap()]).ok();
        for program in PROGRAMS {
            user.has(&[program]);
            let built = build();
            built
                .says(&["eth0", &format!("seen as {UPLINK}"), "198.51.100.7", "lo only", &format!("inet {UPLINK}/24")])
                .omits(&["host's network"]);
            wait_for("the end of all programs", 20, || carriers().is_empty());
        }
        user.has(&[]);
        user.has_broken("pasta");
        build().says(&["the tap is on fire", "it has the host's"]);
    });
}
