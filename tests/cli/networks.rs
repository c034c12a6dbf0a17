//! Networks, names and ports of containers. Every test is a host of its own: a network namespace with an uplink to an "outside" (a second one), and its own `/run`, so
//! that what is left can be counted. `ip` and `nft` are used to look, since they know nothing of our code.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::process::Command;
use std::time::Duration;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};

use crate::common::{Done, Run, World, able, processes, unable, wait_for, world};

pub(crate) const UPLINK: &str = "203.0.113.2";
pub(crate) const OUTSIDE: &str = "203.0.113.1";
pub(crate) const UPLINK6: &str = "2001:db8:113::2";
pub(crate) const OUTSIDE6: &str = "2001:db8:113::1";

#[track_caller]
pub(crate) fn sh(script: &str) -> String {
    let output = Command::new("sh").arg("-c").arg(script).output().unwrap();
    assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Runs `test` on a host of its own.
pub(crate) fn on_a_host(test: impl FnOnce(&World) + Send + 'static) {
    if !able(&["ip", "nft"]) {
        return;
    }
    let host = std::thread::spawn(move || {
        let Some(world) = world() else { return };
        become_a_host();
        test(&world);
    });
    if let Err(panic) = host.join() {
        std::panic::resume_unwind(panic);
    }
}

/// Makes this thread a host of its own, with an outside.
pub(crate) fn become_a_host() {
    unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).unwrap();
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>).unwrap();
    mount(Some("none"), "/run", Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
    sh(&format!(
        "ip link set lo up; ip netns add outside; ip link add up0 type veth peer name out0 netns outside
         ip addr add {UPLINK}/24 dev up0; ip -6 addr add {UPLINK6}/64 dev up0 nodad; ip link set up0 up
         ip -n outside link set lo up; ip -n outside addr add {OUTSIDE}/24 dev out0; ip -n outside -6 addr add {OUTSIDE6}/64 dev out0 nodad
         ip -n outside link set out0 up; ip route add default via {OUTSIDE}; ip -6 route add default via {OUTSIDE6}"
    ));
}

/// Runs `work` in another network namespace.
pub(crate) fn in_netns<T: Send + 'static>(path: &str, work: impl FnOnce() -> T + Send + 'static) -> T {
    let netns = std::fs::File::open(path).unwrap();
    let worker = std::thread::spawn(move || {
        setns(netns.as_fd(), CloneFlags::CLONE_NEWNET).unwrap();
        work()
    });
    worker.join().unwrap()
}

pub(crate) fn outside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    in_netns("/run/netns/outside", work)
}

pub(crate) fn inside<T: Send + 'static>(world: &World, container: &str, work: impl FnOnce() -> T + Send + 'static) -> T {
    in_netns(&format!("/proc/{}/ns/net", shown(world, "{{.State.Pid}}", container)), work)
}

#[track_caller]
pub(crate) fn shown(world: &World, format: &str, name: &str) -> String {
    world.strake(["inspect", "-f", format, name]).ok().stdout.trim_end().to_owned()
}

#[track_caller]
pub(crate) fn address(world: &World, network: &str, name: &str) -> String {
    shown(world, &format!("{{{{.NetworkSettings.Networks.{network}.IPAddress}}}}"), name)
}

/// Starts a container that sleeps, with these flags.
#[track_caller]
pub(crate) fn sleeper(world: &World, name: &str, flags: &[&str]) {
    let mut args = vec!["run", "-d", "--name", name];
    args.extend(flags);
    args.extend(["localhost/busybox", "sleep", "1000"]);
    world.strake(args).ok();
}

pub(crate) fn exec(world: &World, name: &str, script: &str) -> Done {
    world.strake(["exec", name, "sh", "-c", script]).run()
}

/// A server in a container that tells each caller the address it sees, and then says back what it hears until the caller has said all.
pub(crate) fn serve_tcp(world: &World, container: &str, port: u16) {
    tell_callers(inside(world, container, move || TcpListener::bind(("::", port)).unwrap()));
}

pub(crate) fn tell_callers(listener: TcpListener) {
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            std::thread::spawn(move || {
                let _ = writeln!(stream, "{}", stream.peer_addr().unwrap().ip().to_canonical());
                let mut heard = Vec::new();
                let _ = stream.read_to_end(&mut heard);
                let _ = stream.write_all(&heard);
            });
        }
    });
}

fn serve_udp(world: &World, container: &str, port: u16) {
    echo(inside(world, container, move || UdpSocket::bind(("::", port)).unwrap()));
}

/// Says back every datagram.
pub(crate) fn echo(socket: UdpSocket) {
    std::thread::spawn(move || {
        let mut buffer = [0; 2048];
        while let Ok((length, from)) = socket.recv_from(&mut buffer) {
            let _ = socket.send_to(&buffer[..length], from);
        }
    });
}

/// What a server of [`serve_tcp`] at `address` says of the caller; nothing where there is none.
pub(crate) fn ask(address: &str) -> Option<String> {
    let mut stream = TcpStream::connect_timeout(&address.parse().unwrap(), Duration::from_secs(2)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    stream.write_all(b"ping").ok()?;
    stream.shutdown(Shutdown::Write).ok()?;
    let mut heard = String::new();
    stream.read_to_string(&mut heard).ok()?;
    heard.strip_suffix("\nping").map(str::to_owned)
}

pub(crate) fn ask_udp(address: &str) -> bool {
    let to: SocketAddr = address.parse().unwrap();
    let any: IpAddr = if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { std::net::Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).unwrap();
    socket.connect(to).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(3))).unwrap();
    (0..3).any(|_| socket.send(b"ping").is_ok() && socket.recv(&mut [0; 16]).is_ok_and(|length| length == 4))
}

/// What there is of ours on the host.
fn left() -> String {
    sh("ip -o link | cut -d: -f2 | grep -E 'strake|st-|strk|sv' || true; nft list tables | grep strake || true")
}

/// The network that all containers share stays for a fifth of a second, for the next one.
#[track_caller]
pub(crate) fn nothing_is_left() {
    wait_for("the end of all networks", 10, || left().is_empty());
}

/// The port of the host that leads to a container's.
#[track_caller]
pub(crate) fn host_port(world: &World, container: &str, port: &str) -> String {
    let all = world.strake(["port", container, port]).ok().stdout;
    all.lines().next().unwrap().rsplit_once(':').unwrap().1.to_owned()
}

#[test]
fn networks_are_made_listed_inspected_and_removed() {
    on_a_host(|world| {
        let network = |args: &[&str]| world.strake(std::iter::once(&"network").chain(args));
        let id = network(&["create", "--subnet", "10.77.0.0/16", "--ip-range", "10.77.4.0/24", "--label", "a=b", "front"]).ok().stdout;
        assert_eq!(id.trim().len(), 64);
        let ls = network(&["ls", "--format", "{{.Name}} {{.Driver}} {{.Scope}}"]).ok().stdout;
        assert_eq!(ls, "bridge bridge local\nfront bridge local\nhost host local\nnone null local\n");
        assert!(network(&["ls"]).ok().stdout.starts_with("NETWORK ID "));
        assert_eq!(network(&["ls", "-q", "--no-trunc", "-f", "label=a=b"]).ok().stdout, id);
        assert_eq!(network(&["ls", "-q", "-f", "driver=bridge", "-f", "type=custom"]).ok().stdout.trim(), &id[..12]);
        assert_eq!(network(&["ls", "--format", "{{.Name}}", "-f", "dangling=true"]).ok().stdout, "front\n");
        let json: serde_json::Value = serde_json::from_str(&network(&["inspect", &id[..5]]).ok().stdout).unwrap();
        let one = &json[0];
        assert_eq!((one["Name"].as_str(), one["Id"].as_str(), one["Driver"].as_str()), (Some("front"), Some(id.trim()), Some("bridge")));
        let config = &one["IPAM"]["Config"][0];
        assert_eq!((config["Subnet"].as_str(), config["Gateway"].as_str()), (Some("10.77.0.0/16"), Some("10.77.0.1")));
        assert_eq!(config["IPRange"], "10.77.4.0/24");
        assert_eq!((one["Internal"].as_bool(), one["Labels"]["a"].as_str()), (Some(false), Some("b")));

        network(&["create", "front"]).fails().says(&["`front`"]);
        network(&["create", "--subnet", "10.77.8.0/24", "over"]).fails().says(&["over", "front"]);
        network(&["create", "-d", "overlay", "x"]).fails().says(&["bridge"]);
        network(&["create", "-o", "colour=red", "x"]).fails().says(&["colour"]);
        for name in ["bridge", "host", "none"] {
            network(&["create", name]).fails().says(&[name, "predefined"]);
            network(&["rm", name]).fails().says(&[name, "predefined"]);
        }
        sleeper(world, "c", &["--network", "front"]);
        assert_eq!(address(world, "front", "c"), "10.77.4.0");
        let json: serde_json::Value = serde_json::from_str(&network(&["inspect", "front"]).ok().stdout).unwrap();
        let member = json[0]["Containers"].as_object().unwrap().values().next().unwrap();
        assert_eq!((member["Name"].as_str(), member["IPv4Address"].as_str()), (Some("c"), Some("10.77.4.0/16")));
        network(&["rm", "front"]).fails().says(&["front", "`c`"]);
        assert_eq!(network(&["ls", "-q", "-f", "dangling=true"]).ok().stdout, "");
        assert_eq!(world.strake(["ps", "--format", "{{.Names}} {{.Networks}}", "-f", "network=front"]).ok().stdout, "c front\n");
        network(&["create", "back"]).ok();
        assert_eq!(network(&["prune", "-f", "--filter", "until=1h"]).ok().stdout, "");
        assert_eq!(network(&["prune", "-f"]).ok().stdout, "Deleted Networks:\nback\n\n");
        world.strake(["rm", "-f", "c"]).ok();
        nothing_is_left();
        let gone = network(&["rm", "front", "nothing"]).run();
        assert_eq!((gone.code, gone.stdout.as_str()), (1, "front\n"), "{gone}");
        network(&["rm", "-f", "nothing"]).ok();
        assert_eq!(std::fs::read_dir("/run/strake/nets").map_or(0, Iterator::count), 0);
        let events =
            ["events", "--since", "1h", "--until", "0s", "-f", "network=front", "--format", "{{.Action}} {{.Actor.Attributes.type}}"];
        let told = "create bridge\nconnect bridge\ndisconnect bridge\ndestroy bridge\n";
        assert_eq!(world.strake(events).ok().stdout, told);
        world.strake(["run", "--rm", "--network", "nothing", "localhost/busybox", "true"]).fails().says(&["`nothing`"]);
    });
}

#[test]
fn containers_of_a_network_find_each_other_by_name() {
    on_a_host(|world| {
        world.strake(["network", "create", "front"]).ok();
        // Nobody answers there, and that is said at once.
        sleeper(world, "web", &["--network", "front", "--network-alias", "both", "-h", "webhost", "--dns", OUTSIDE]);
        sleeper(world, "db", &["--network", "front,alias=both,alias=Store"]);
        let look =
            |name: &str| exec(world, "web", &format!("nslookup -type=a {name} | tail -n +3 | grep -o 'Address.*' | sed 's/.*: //' | sort"));
        let (web, db) = (address(world, "front", "web"), address(world, "front", "db"));
        assert_eq!(look("db").stdout, format!("{db}\n"));
        assert_eq!(look("DB.front").stdout, format!("{db}\n"));
        assert_eq!(look("store").stdout, format!("{db}\n"));
        assert_eq!(look("webhost").stdout, format!("{web}\n"));
        let mut both = [web.clone(), db.clone()];
        both.sort();
        assert_eq!(look("both").stdout, format!("{}\n", both.join("\n")));
        let id = shown(world, "{{.Id}}", "db");
        assert_eq!(look(&id[..12]).stdout, format!("{db}\n"));
        assert!(exec(world, "web", &format!("nslookup {db}")).stdout.contains("db.front"));
        // A name without an IPv6 address has none, and is known all the same.
        let none = exec(world, "web", "nslookup -type=aaaa db");
        assert!(!none.stdout.contains("NXDOMAIN") && !none.stdout.contains(&db), "{none}");
        assert_eq!(exec(world, "web", "ping -c 1 -W 5 db").code, 0);
        // Who comes later is found, who has gone is not.
        assert_eq!(look("late").stdout, "");
        sleeper(world, "late", &["--network", "front"]);
        assert_eq!(look("late").stdout, format!("{}\n", address(world, "front", "late")));
        world.strake(["rename", "late", "later"]).ok();
        assert_eq!((look("late").stdout.as_str(), look("later").stdout.is_empty()), ("", false));
        world.strake(["stop", "-t", "0", "later", "db"]).ok();
        assert_eq!(look("later").stdout, "");
        assert_eq!(look("both").stdout, format!("{web}\n"));
        // A container may have a DNS server of its own.
        inside(world, "web", || (UdpSocket::bind("0.0.0.0:53").unwrap(), TcpListener::bind("0.0.0.0:53").unwrap()));
        let conf = exec(world, "web", "cat /etc/resolv.conf").stdout;
        assert!(conf.starts_with("nameserver 127.0.0.11\n") && conf.contains("ndots:0"), "{conf}");
        // The bridge that all share has no names.
        sleeper(world, "plain", &[]);
        assert!(!exec(world, "plain", "cat /etc/resolv.conf").stdout.contains("127.0.0.11"));
        world.strake(["run", "--network-alias", "x", "localhost/busybox", "true"]).fails().says(&["aliases"]);
    });
}

#[test]
fn other_names_are_asked_of_other_servers() {
    on_a_host(|world| {
        // A server that is silent, and one that knows `far.example` by UDP only in part.
        outside(|| {
            let silent = UdpSocket::bind((OUTSIDE, 5353)).unwrap();
            let (socket, listener) = (UdpSocket::bind((OUTSIDE, 53)).unwrap(), TcpListener::bind((OUTSIDE, 53)).unwrap());
            let answer = |question: &[u8], cut: bool| {
                let end = 12 + question[12..].iter().position(|byte| *byte == 0).unwrap() + 5;
                let mut answer = question[..end].to_vec();
                answer[2] = 0x81 | if cut { 2 } else { 0 };
                answer[3] = 0x80;
                answer[6..12].copy_from_slice(&[0, u8::from(!cut), 0, 0, 0, 0]);
                if !cut {
                    answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 9, 0, 4, 198, 51, 100, 7]);
                }
                answer
            };
            std::thread::spawn(move || {
                let mut buffer = [0; 512];
                while let Ok((length, from)) = socket.recv_from(&mut buffer) {
                    let cut = buffer[..length].windows(3).any(|part| part == b"big");
                    socket.send_to(&answer(&buffer[..length], cut), from).unwrap();
                }
                drop(silent);
            });
            std::thread::spawn(move || {
                for stream in listener.incoming() {
                    let mut stream = stream.unwrap();
                    let mut length = [0; 2];
                    stream.read_exact(&mut length).unwrap();
                    let mut question = vec![0; usize::from(u16::from_be_bytes(length))];
                    stream.read_exact(&mut question).unwrap();
                    let answer = answer(&question, false);
                    stream.write_all(&u16::try_from(answer.len()).unwrap().to_be_bytes()).unwrap();
                    stream.write_all(&answer).unwrap();
                }
            });
        });
        world.strake(["network", "create", "front"]).ok();
        sleeper(world, "web", &["--network", "front", "--dns", OUTSIDE]);
        let far = exec(world, "web", "nslookup -type=a far.example");
        assert!(far.stdout.contains("198.51.100.7"), "{far}");
        // By TCP, as a client asks whose answer was cut.
        let answer = inside(world, "web", || {
            let mut stream = TcpStream::connect("127.0.0.11:53").unwrap();
            stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
            let question = b"\x00\x1d\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x03big\x07example\x00\x00\x01\x00\x01";
            stream.write_all(question).unwrap();
            let mut length = [0; 2];
            stream.read_exact(&mut length).unwrap();
            let mut answer = vec![0; usize::from(u16::from_be_bytes(length))];
            stream.read_exact(&mut answer).unwrap();
            answer
        });
        assert_eq!(answer[answer.len() - 4..], [198, 51, 100, 7]);
        // Nonsense is refused or passed over, and the server goes on.
        inside(world, "web", || {
            let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
            for message in
                [&b""[..], b"x", &[0xff; 600], &[0; 12], b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\xc0\x0c\x00\x01\x00\x01"]
            {
                socket.send_to(message, "127.0.0.11:53").unwrap();
            }
            let mut stream = TcpStream::connect("127.0.0.11:53").unwrap();
            let _ = stream.write_all(&[0xff; 70_000]);
        });
        assert!(exec(world, "web", "nslookup -type=a far.example").stdout.contains("198.51.100.7"));
        // What may not go out asks nobody.
        world.strake(["network", "create", "--internal", "closed"]).ok();
        let warned =
            ["run", "-d", "--name", "shut", "--network", "closed", "--dns", OUTSIDE, "-p", "80", "localhost/busybox", "sleep", "1000"];
        world.strake(warned).ok().says(&["no port is published"]);
        let refused = exec(world, "shut", "nslookup -type=a far.example; nslookup -type=a shut");
        assert!(!refused.stdout.contains("198.51.100.7") && refused.stdout.contains(&address(world, "closed", "shut")), "{refused}");
    });
}

#[test]
fn published_ports_are_reached_from_everywhere_and_others_from_nowhere() {
    on_a_host(|world| {
        sleeper(world, "web", &["-p", "80", "-p", "80/udp", "-p", "127.0.0.1::81", "-p", "[::1]::82", "--expose", "9"]);
        for port in [80, 81, 82, 83] {
            serve_tcp(world, "web", port);
        }
        serve_udp(world, "web", 80);
        let gateway = shown(world, "{{.NetworkSettings.Gateway}}", "web");
        let ip = shown(world, "{{.NetworkSettings.IPAddress}}", "web");
        let (tcp, udp) = (host_port(world, "web", "80"), host_port(world, "web", "80/udp"));
        assert_eq!(world.strake(["port", "web", "80"]).ok().stdout, format!("0.0.0.0:{tcp}\n[::]:{tcp}\n"));
        let ps = world.strake(["ps", "--format", "{{.Ports}}"]).ok().stdout;
        assert!(ps.starts_with("9/tcp, ") && ps.contains(&format!("0.0.0.0:{tcp}->80/tcp, [::]:{tcp}->80/tcp")), "{ps}");
        let inspected: serde_json::Value = serde_json::from_str(&shown(world, "{{json .NetworkSettings.Ports}}", "web")).unwrap();
        assert_eq!((inspected["80/tcp"][0]["HostPort"].as_str(), inspected["9/tcp"].is_null()), (Some(tcp.as_str()), true), "{inspected}");
        // This host, at each of its addresses.
        assert_eq!(ask(&format!("127.0.0.1:{tcp}")).unwrap(), gateway);
        assert_eq!(ask(&format!("[::1]:{tcp}")).unwrap(), gateway);
        assert_eq!(ask(&format!("{UPLINK}:{tcp}")).unwrap(), gateway);
        assert!(ask_udp(&format!("127.0.0.1:{udp}")) && ask_udp(&format!("[::1]:{udp}")) && ask_udp(&format!("{UPLINK}:{udp}")));
        assert!(ask(&format!("127.0.0.1:{}", host_port(world, "web", "81"))).is_some());
        assert!(ask(&format!("[::1]:{}", host_port(world, "web", "82"))).is_some());
        // Outside: the container sees who it is, and nothing else is open.
        let at = format!("{UPLINK}:{tcp}");
        assert_eq!(outside(move || ask(&at)).unwrap(), OUTSIDE);
        let at = format!("[{UPLINK6}]:{tcp}");
        assert!(outside(move || ask(&at)).is_some());
        let at = format!("{UPLINK}:{udp}");
        assert!(outside(move || ask_udp(&at)));
        let local = format!("{UPLINK}:{}", host_port(world, "web", "81"));
        assert_eq!(outside(move || ask(&local)), None);
        outside(|| sh(&format!("ip route add default via {UPLINK}")));
        for port in [80, 83] {
            let at = format!("{ip}:{port}");
            assert_eq!(outside(move || ask(&at)), None, "{port}");
        }
        // Other containers, by the host's address: on the same bridge, and on another.
        world.strake(["network", "create", "front"]).ok();
        sleeper(world, "near", &[]);
        sleeper(world, "far", &["--network", "front"]);
        for name in ["near", "far", "web"] {
            for (address, port, is_udp) in
                [(UPLINK, tcp.clone(), false), (gateway.as_str(), tcp.clone(), false), (UPLINK, udp.clone(), true)]
            {
                let at = format!("{address}:{port}");
                let reached = inside(world, name, move || if is_udp { ask_udp(&at) } else { ask(&at).is_some() });
                assert!(reached, "{name} {address} {is_udp}");
            }
        }
        // A port is had once.
        for (host, said) in [(format!("{tcp}:80"), tcp.clone()), (format!("127.0.0.1:{tcp}:80"), format!("127.0.0.1:{tcp}"))] {
            let taken = world.strake(["run", "-d", "--name", "two", "-p", &host, "localhost/busybox", "true"]).run();
            assert_eq!(taken.code, 125, "{taken}");
            taken.says(&[&said, "in use", "tcp"]);
            world.strake(["rm", "two"]).ok();
        }
        // The container has no IPv6 address, and the ones that could not start have left nothing.
        let tables = sh("nft list tables");
        assert_eq!((tables.matches("table ip strake-p-").count(), tables.matches("table ip6 ").count()), (1, 0), "{tables}");
        // With a new start it is there again, with the end it is free.
        world.strake(["restart", "-t", "0", "web"]).ok();
        serve_tcp(world, "web", 80);
        assert!(ask(&format!("127.0.0.1:{}", host_port(world, "web", "80"))).is_some());
        world.strake(["rm", "-f", "web", "near", "far"]).ok();
        nothing_is_left();
        TcpListener::bind(format!("0.0.0.0:{tcp}")).unwrap();
    });
}

#[test]
fn ranges_and_ports_of_the_image_are_published() {
    on_a_host(|world| {
        world.build("FROM localhost/busybox\nEXPOSE 7000 7001/udp\n", &["-t", "localhost/exposed"]).ok();
        world.strake(["run", "-d", "--name", "all", "-P", "--expose", "7002", "localhost/exposed", "sleep", "1000"]).ok();
        let ports = world.strake(["port", "all"]).ok().stdout;
        for port in ["7000/tcp -> 0.0.0.0:", "7001/udp -> 0.0.0.0:", "7002/tcp -> [::]:"] {
            assert!(ports.contains(port), "{port}: {ports}");
        }
        sleeper(world, "range", &["-p", "127.0.0.1:4100-4102:80-82", "-p", "4200-4209:90"]);
        assert_eq!(world.strake(["port", "range", "82/tcp"]).ok().stdout, "127.0.0.1:4102\n");
        assert!(world.strake(["ps"]).ok().stdout.contains("127.0.0.1:4100-4102->80-82/tcp"));
        assert_eq!(host_port(world, "range", "90"), "4200");
        sleeper(world, "next", &["-p", "4200-4209:90"]);
        assert_eq!(host_port(world, "next", "90"), "4201");
        let bindings = shown(world, "{{json .HostConfig.PortBindings}}", "range");
        assert!(bindings.contains(r#""82/tcp":[{"HostIp":"127.0.0.1","HostPort":"4102"}]"#), "{bindings}");
        for (port, said) in [("x:80", "`x`"), ("80-82:90-91", "80-82"), ("10.255.0.1:80:80", "10.255.0.1"), ("80/sctp", "SCTP")] {
            let refused = world.strake(["run", "--rm", "-p", port, "localhost/busybox", "true"]).run();
            assert_eq!(refused.code, 125, "{refused}");
            refused.says(&[said]);
        }
        let warned = world.strake(["run", "--rm", "--network", "host", "-p", "80:80", "localhost/busybox", "true"]).ok();
        warned.says(&["-p is without effect"]);
    });
}

#[test]
fn many_connections_at_once_are_whole_and_a_slow_one_blocks_nobody() {
    on_a_host(|world| {
        sleeper(world, "web", &["-p", "127.0.0.1::80"]);
        serve_tcp(world, "web", 80);
        let at = format!("127.0.0.1:{}", host_port(world, "web", "80"));
        // One that says a lot and hears nothing.
        let mut slow = TcpStream::connect(&at).unwrap();
        let text: Vec<u8> = (0..4_000_000u32).flat_map(|number| number.to_le_bytes()).collect();
        slow.write_all(&text).unwrap();
        slow.shutdown(Shutdown::Write).unwrap();
        let mut all: Vec<TcpStream> = (0..200).map(|_| TcpStream::connect(&at).unwrap()).collect();
        for (number, stream) in all.iter_mut().enumerate() {
            stream.write_all(number.to_string().as_bytes()).unwrap();
            stream.shutdown(Shutdown::Write).unwrap();
        }
        for (number, stream) in all.iter_mut().enumerate() {
            let mut heard = String::new();
            stream.read_to_string(&mut heard).unwrap();
            assert_eq!(heard.lines().nth(1), Some(number.to_string().as_str()));
        }
        let mut heard = Vec::new();
        slow.read_to_end(&mut heard).unwrap();
        let begin = heard.iter().position(|byte| *byte == b'\n').unwrap() + 1;
        assert!(heard[begin..] == text, "{} of {}", heard.len(), text.len());
    });
}

#[test]
fn networks_are_apart_and_internal_ones_closed() {
    on_a_host(|world| {
        world.strake(["network", "create", "a"]).ok();
        world.strake(["network", "create", "b"]).ok();
        world.strake(["network", "create", "--internal", "closed"]).ok();
        let server = outside(|| TcpListener::bind((OUTSIDE, 7)).unwrap());
        std::thread::spawn(move || server.incoming().for_each(drop));
        for (name, network) in [("one", "a"), ("two", "a"), ("three", "b"), ("shut", "closed"), ("shut2", "closed"), ("plain", "bridge")] {
            sleeper(world, name, &["--network", network]);
            serve_tcp(world, name, 80);
        }
        let connects = |from: &str, to: String, time| {
            inside(world, from, move || TcpStream::connect_timeout(&to.parse().unwrap(), Duration::from_millis(time)).is_ok())
        };
        let reaches = |from: &str, to: String| connects(from, to, 10_000);
        // What is dropped is not answered at all.
        let misses = |from: &str, to: String| !connects(from, to, 500);
        let at = |network: &str, name: &str| format!("{}:80", address(world, network, name));
        assert!(reaches("one", at("a", "two")));
        assert!(misses("one", at("b", "three")) && misses("three", at("a", "one")));
        assert!(misses("plain", at("a", "one")) && misses("one", at("bridge", "plain")));
        assert!(reaches("one", format!("{OUTSIDE}:7")) && reaches("plain", format!("{OUTSIDE}:7")));
        assert!(reaches("shut", at("closed", "shut2")));
        assert!(misses("shut", format!("{OUTSIDE}:7")) && misses("shut", at("a", "one")) && misses("one", at("closed", "shut")));
        assert!(!inside(world, "shut", || sh("ip route")).contains("default"));
        // One that is on both reaches both, and is known in both.
        world.strake(["network", "connect", "--alias", "bridged", "b", "one"]).ok();
        assert!(reaches("one", at("b", "three")) && reaches("one", at("a", "two")));
        assert_eq!(exec(world, "three", "ping -c 1 -W 5 bridged").code, 0);
        assert!(exec(world, "one", "grep -c one /etc/hosts; ip -o link").stdout.contains("eth1"));
        world.strake(["network", "connect", "b", "one"]).fails().says(&["`one`", "`b`"]);
        world.strake(["network", "disconnect", "a", "one"]).ok();
        assert!(misses("one", at("a", "two")) && reaches("one", at("b", "three")) && reaches("one", format!("{OUTSIDE}:7")));
        world.strake(["network", "disconnect", "a", "one"]).fails().says(&["`one`", "`a`"]);
        assert_eq!(shown(world, "{{json .NetworkSettings.Networks}}", "one").matches("NetworkID").count(), 1);
        world.strake(["restart", "-t", "0", "one"]).ok();
        assert!(reaches("one", at("b", "three")));
        // One of the shared bridge gets names with its first network.
        world.strake(["network", "connect", "a", "plain"]).ok();
        assert_eq!(exec(world, "plain", "ping -c 1 -W 5 two").code, 0);
        // A network that is gone is missed at the next start.
        world.strake(["stop", "-t", "0", "three", "one"]).ok();
        world.strake(["network", "rm", "b"]).ok();
        world.strake(["start", "three"]).fails().says(&["`b`", "`three`"]);
        world.strake(["network", "disconnect", "-f", "b", "three"]).ok();
        world.strake(["start", "three"]).ok();
        // Its name is meant, also where another's ID begins so.
        let begins = world.strake(["network", "inspect", "-f", "{{slice .Id 0 4}}", "a"]).ok().stdout;
        world.strake(["network", "create", begins.trim()]).ok();
        world.strake(["network", "connect", begins.trim(), "three"]).ok();
        world.strake(["stop", "-t", "0", "three"]).ok();
        world.strake(["network", "rm", begins.trim()]).ok();
        world.strake(["network", "disconnect", "-f", begins.trim(), "three"]).ok();
        world.strake(["start", "three"]).ok();
    });
}

#[test]
fn addresses_names_and_servers_are_as_asked_for() {
    on_a_host(|world| {
        world
            .strake([
                "network",
                "create",
                "--subnet",
                "10.78.0.0/24",
                "--gateway",
                "10.78.0.9",
                "-o",
                "com.docker.network.driver.mtu=1400",
                "fixed",
            ])
            .ok();
        world.strake(["network", "create", "free"]).ok();
        let flags =
            ["--network", "fixed", "--ip", "10.78.0.50", "--mac-address", "02:00:00:00:00:07", "-h", "me", "--domainname", "example.org"];
        sleeper(world, "c", &[&flags[..], &["--add-host", "up:host-gateway", "--add-host", "x=10.1.1.1"]].concat());
        let seen = inside(world, "c", || sh("ip -o -4 addr show eth0; ip -o link show eth0; ip route"));
        for part in ["10.78.0.50/24", "02:00:00:00:00:07", "mtu 1400", "default via 10.78.0.9"] {
            assert!(seen.contains(part), "{part}: {seen}");
        }
        assert_eq!(exec(world, "c", "hostname; cat /proc/sys/kernel/domainname").stdout, "me\nexample.org\n");
        let hosts = exec(world, "c", "cat /etc/hosts").stdout;
        for line in ["10.78.0.50\tme.example.org me\n", "10.78.0.9\tup\n", "10.1.1.1\tx\n"] {
            assert!(hosts.contains(line), "{line}: {hosts}");
        }
        let taken = world.strake(["run", "--rm", "--network", "fixed", "--ip", "10.78.0.50", "localhost/busybox", "true"]).run();
        assert_eq!(taken.code, 125, "{taken}");
        taken.says(&["10.78.0.50", "in use"]);
        for (network, ip, said) in [
            ("fixed", "10.79.0.1", "10.78.0.0/24"),
            ("fixed", "10.78.0.9", "10.78.0.9"),
            ("free", "10.78.0.1", "`free`"),
            ("bridge", "10.78.0.1", "users"),
        ] {
            world.strake(["run", "--rm", "--network", network, "--ip", ip, "localhost/busybox", "true"]).fails().says(&[said]);
        }
        let conf = |flags: &[&str]| {
            let args = [&["run", "--rm"], flags, &["localhost/busybox", "cat", "/etc/resolv.conf"]].concat();
            world.strake(args).ok().stdout
        };
        let wanted = ["--dns", "10.9.9.9", "--dns-search", "a.example", "--dns-option", "ndots:3"];
        assert_eq!(conf(&wanted), "nameserver 10.9.9.9\nsearch a.example\noptions ndots:3\n");
        assert_eq!(conf(&[&wanted[..], &["--network", "free"]].concat()), "nameserver 127.0.0.11\nsearch a.example\noptions ndots:3\n");
        assert_eq!(conf(&[&wanted[..], &["--network", "host"]].concat()), "nameserver 10.9.9.9\nsearch a.example\noptions ndots:3\n");
        world
            .strake(["run", "--link", "c", "localhost/busybox", "true"])
            .fails()
            .says(&["cannot link to the container", "put both on one network"]);
    });
}

#[test]
fn a_container_may_have_the_network_of_another() {
    on_a_host(|world| {
        sleeper(world, "owner", &["-p", "127.0.0.1::80", "-h", "theirs"]);
        sleeper(world, "guest", &["--network", "container:owner"]);
        let netns = |name: &str| exec(world, name, "readlink /proc/1/ns/net; hostname; cat /etc/hosts").stdout;
        assert_eq!(netns("owner"), netns("guest"));
        serve_tcp(world, "guest", 80);
        assert!(ask(&format!("127.0.0.1:{}", host_port(world, "owner", "80"))).is_some());
        assert!(shown(world, "{{.HostConfig.NetworkMode}}", "guest").starts_with("container:"));
        for flags in [["-p", "80"], ["-h", "x"], ["--dns", "1.1.1.1"], ["--add-host", "x:1.1.1.1"]] {
            let args = [&["run", "--rm", "--network", "container:owner"], &flags[..], &["localhost/busybox", "true"]].concat();
            world.strake(args).fails().says(&["contradict"]);
        }
        world.strake(["network", "connect", "bridge", "guest"]).fails().says(&["`guest`"]);
        world.strake(["stop", "-t", "0", "guest", "owner"]).ok();
        world.strake(["start", "guest"]).fails().says(&["does not run"]);
        world.strake(["run", "--network", "container:nobody", "localhost/busybox", "true"]).fails().says(&["`nobody`"]);
        let both = ["run", "--network", "host", "--network", "bridge", "localhost/busybox", "true"];
        world.strake(both).fails().says(&["host"]);
    });
}

#[test]
fn networks_have_ipv6_where_it_is_asked_for() {
    on_a_host(|world| {
        world.strake(["network", "create", "--ipv6", "auto"]).ok();
        world.strake(["network", "create", "--subnet", "fd00:77::/64", "--ipv6", "six"]).ok();
        let json: serde_json::Value = serde_json::from_str(&world.strake(["network", "inspect", "six"]).ok().stdout).unwrap();
        assert_eq!((json[0]["EnableIPv6"].as_bool(), json[0]["IPAM"]["Config"][1]["Subnet"].as_str()), (Some(true), Some("fd00:77::/64")));
        sleeper(world, "one", &["--network", "six", "--ip6", "fd00:77::77", "-p", "80"]);
        sleeper(world, "two", &["--network", "six"]);
        sleeper(world, "other", &["--network", "auto"]);
        serve_tcp(world, "one", 80);
        assert_eq!(shown(world, "{{.NetworkSettings.Networks.six.GlobalIPv6Address}}", "one"), "fd00:77::77");
        assert_eq!(shown(world, "{{.NetworkSettings.Networks.six.GlobalIPv6Address}}", "two"), "fd00:77::2");
        assert_eq!(exec(world, "two", "ping -6 -c 1 -W 5 one").code, 0);
        assert!(exec(world, "two", "nslookup -type=aaaa one").stdout.contains("fd00:77::77"));
        assert!(exec(world, "two", "nslookup fd00:77::77").stdout.contains("one.six"));
        let server = outside(|| TcpListener::bind((OUTSIDE6, 7)).unwrap());
        let seen = std::thread::spawn(move || server.accept().unwrap().1.ip().to_string());
        inside(world, "two", || TcpStream::connect_timeout(&format!("[{OUTSIDE6}]:7").parse().unwrap(), Duration::from_secs(5)).unwrap());
        assert_eq!(seen.join().unwrap(), UPLINK6);
        let port = host_port(world, "one", "80");
        let at = format!("[{UPLINK6}]:{port}");
        assert_eq!(outside(move || ask(&at)).unwrap(), OUTSIDE6);
        assert!(ask(&format!("[::1]:{port}")).is_some());
        let closed =
            inside(world, "other", || TcpStream::connect_timeout(&"[fd00:77::77]:80".parse().unwrap(), Duration::from_secs(2)).is_err());
        assert!(closed);
        world.strake(["rm", "-f", "one", "two", "other"]).ok();
        nothing_is_left();
    });
}

/// Says to all neighbours of `container` that it is a router (RFC 4861, section 4.2), for twenty seconds.
fn claim_to_be_a_router(world: &World, container: &str) {
    let mut message = vec![134, 0, 0, 0, 64, 0, 0, 20];
    message.extend([0; 8]);
    // The prefix 2001:db8:bad::/64, to make addresses from.
    message.extend([3, 4, 64, 0xc0, 0, 0, 0, 20, 0, 0, 0, 20, 0, 0, 0, 0]);
    message.extend("2001:db8:bad::".parse::<std::net::Ipv6Addr>().unwrap().octets());
    inside(world, container, move || {
        let icmp = Some(rustix::net::ipproto::ICMPV6);
        let flags = rustix::net::SocketFlags::CLOEXEC;
        let socket = rustix::net::socket_with(rustix::net::AddressFamily::INET6, rustix::net::SocketType::RAW, flags, icmp).unwrap();
        rustix::net::sockopt::set_ipv6_multicast_hops(&socket, 255).unwrap();
        let link = nix::net::if_::if_nametoindex("eth0").unwrap();
        let all = std::net::SocketAddrV6::new("ff02::1".parse().unwrap(), 0, 0, link);
        // Until it has an address to send from.
        wait_for("an address", 20, || rustix::net::sendto(&socket, &message, rustix::net::SendFlags::empty(), &all).is_ok());
        for _ in 0..3 {
            std::thread::sleep(Duration::from_millis(300));
            rustix::net::sendto(&socket, &message, rustix::net::SendFlags::empty(), &all).unwrap();
        }
    });
}

/// CVE-2020-13401: the host would send all its IPv6 through it.
#[test]
fn a_container_is_no_router_of_the_host() {
    on_a_host(|world| {
        let ways = || sh("ip -6 route show default; ip -6 address | grep 2001:db8:bad || true");
        let before = ways();
        world.strake(["network", "create", "old"]).ok();
        world.strake(["network", "create", "--ipv6", "--subnet", "2001:db8:8::/64", "new"]).ok();
        for network in ["bridge", "old", "new"] {
            sleeper(world, "liar", &["--network", network]);
            claim_to_be_a_router(world, "liar");
            assert_eq!(ways(), before, "{network}");
            world.strake(["rm", "-f", "liar"]).ok();
        }
        // The host goes on to listen to its own, where it did; what is made later is as it was.
        assert_eq!(sh("cat /proc/sys/net/ipv6/conf/default/accept_ra /proc/sys/net/ipv6/conf/up0/accept_ra"), "1\n2\n");
    });
}

#[test]
fn where_settings_are_read_only_containers_have_the_hosts_network_and_are_told() {
    on_a_host(|world| {
        sh("mount --bind /proc/sys /proc/sys; mount -o remount,ro,bind /proc/sys");
        let done = world.strake(["run", "--rm", "localhost/busybox", "ip", "-4", "-o", "addr"]).ok();
        done.says(&["/proc/sys is read-only", "using the host's network"]);
        assert!(done.stdout.contains(UPLINK), "{done}");
        world.strake(["network", "create", "named"]).ok();
        for flags in [&["-p", "8080:80"][..], &["--network", "named"]] {
            let done = world.strake([&["run", "--rm"][..], flags, &["localhost/busybox", "true"]].concat()).fails();
            assert_eq!(done.code, 125, "{done}");
            done.says(&["/proc/sys is read-only", "hint: ", "--network=host"]);
        }
        assert_eq!(left(), "", "nothing was made");
        assert!(world.strake(["doctor"]).run().stdout.contains("/proc/sys is read-only"));
        // What is said outside is enough.
        sh("mount -o remount,rw,bind /proc/sys; echo 1 > /proc/sys/net/ipv6/conf/default/disable_ipv6; echo 1 > /proc/sys/net/ipv4/ip_forward
            mount -o remount,ro,bind /proc/sys");
        world.strake(["run", "--rm", "-p", "8080:80", "localhost/busybox", "true"]).ok();
        nothing_is_left();
    });
}

#[test]
fn a_killed_supervisor_leaves_nothing_after_the_next_command() {
    on_a_host(|world| {
        world.strake(["network", "create", "front"]).ok();
        sleeper(world, "c", &["--network", "front", "-p", "80", "--network-alias", "x"]);
        let port = host_port(world, "c", "80");
        assert!(left().contains("strake-p-") && left().contains("st-"));
        let pid: i32 = shown(world, "{{.State.Pid}}", "c").parse().unwrap();
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        let supervisor: i32 = stat.rsplit_once(')').unwrap().1.split_whitespace().nth(1).unwrap().parse().unwrap();
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(supervisor), nix::sys::signal::Signal::SIGKILL).unwrap();
        // The kernel takes what belongs to processes at once, and the next command the rest.
        wait_for("the processes", 20, || processes(&world.root()).is_empty());
        TcpListener::bind(format!("0.0.0.0:{port}")).unwrap();
        wait_for("the table of ports", 10, || !sh("nft list tables").contains("strake-p-"));
        assert!(world.strake(["ps", "-a"]).ok().stdout.contains("Exited (137)"));
        nothing_is_left();
        world.strake(["start", "c"]).ok();
        assert_eq!(exec(world, "c", "nslookup -type=a x | grep -c Address").stdout, "2\n");
        world.strake(["rm", "-f", "c"]).ok();
        world.strake(["network", "rm", "front"]).ok();
        nothing_is_left();
        assert_eq!(std::fs::read_dir("/run/strake/nets").unwrap().count(), 0);
    });
}

#[test]
fn a_killed_service_is_started_anew_with_its_ports_and_names() {
    on_a_host(|world| {
        let kill_services = || sh("pkill -KILL -x --ns $$ --nslist net strake-net || true");
        world.strake(["network", "create", "front"]).ok();
        sleeper(world, "db", &["--network", "front"]);
        sleeper(world, "web", &["--network", "front", "-p", "18080:80", "-p", "81/udp"]);
        serve_tcp(world, "web", 80);
        serve_udp(world, "web", 81);
        let (ports, db) = (world.strake(["port", "web"]).ok().stdout, address(world, "front", "db"));
        let free = host_port(world, "web", "81/udp");
        for round in 0..3 {
            kill_services();
            let killed = std::time::Instant::now();
            wait_for(&format!("{round}: the port"), 10, || ask("127.0.0.1:18080").is_some());
            // Soon the first time; whoever goes on killing waits.
            assert!(round > 0 || killed.elapsed() < Duration::from_secs(5), "{:?}", killed.elapsed());
            assert!(outside(|| ask(&format!("{UPLINK}:18080"))).is_some(), "{round}");
            assert!(ask_udp(&format!("127.0.0.1:{free}")), "{round}");
            assert!(exec(world, "web", "nslookup -type=a db").stdout.contains(&db), "{round}");
            assert_eq!(world.strake(["port", "web"]).ok().stdout, ports, "{round}");
        }
        assert_eq!(world.strake(["logs", "web"]).ok().stderr, "");
        // Somebody else has taken the port: none is shown, the log says so, and it comes back with the port.
        let other = loop {
            kill_services();
            if let Ok(other) = TcpListener::bind("0.0.0.0:18080") {
                break other;
            }
        };
        wait_for("no port", 10, || world.strake(["port", "web"]).ok().stdout.is_empty());
        assert!(!world.strake(["ps"]).ok().stdout.contains("18080"));
        wait_for("the log", 10, || {
            let said = world.strake(["logs", "web"]).ok().stderr;
            said.contains("strake: the process that serves") && said.contains("0.0.0.0:18080 (tcp)")
        });
        drop(other);
        wait_for("the port, now that it is free", 10, || ask("127.0.0.1:18080").is_some());
        wait_for("that to be on record", 10, || world.strake(["port", "web"]).ok().stdout == ports);
        world.strake(["logs", "web"]).ok().says(&["are served again"]);
        world.strake(["rm", "-f", "web", "db"]).ok();
        assert_eq!(left(), "");
    });
}

#[test]
fn a_table_that_drops_for_a_purpose_of_its_own_stays_and_is_named() {
    on_a_host(|world| {
        sh("nft 'add table ip guard; add chain ip guard forward { type filter hook forward priority 0; policy drop; }'");
        let before = sh("nft list table ip guard");
        let plain = world.strake(["run", "--rm", "localhost/busybox", "true"]).ok();
        plain.says(&["`ip guard forward`", "host's network"]);
        // Ports and names work in spite of it, and what does not is said.
        world.strake(["network", "create", "front"]).ok();
        let named = world.strake(["run", "-d", "--name", "c", "--network", "front", "-p", "80", "localhost/busybox", "sleep", "1000"]).ok();
        named.says(&["nothing leads out", "`ip guard forward`"]);
        serve_tcp(world, "c", 80);
        let port = host_port(world, "c", "80");
        let at = format!("{UPLINK}:{port}");
        assert!(ask(&format!("127.0.0.1:{port}")).is_some() && outside(move || ask(&at)).is_some());
        world.strake(["rm", "-f", "c"]).ok();
        nothing_is_left();
        assert_eq!(sh("nft list table ip guard"), before);
        // Whoever owns the firewall can let the bridge through.
        sh("nft 'add rule ip guard forward iifname strake0 accept; add rule ip guard forward oifname strake0 accept'");
        world.strake(["run", "--rm", "localhost/busybox", "true"]).ok().omits(&["host's network"]);
    });
}

#[test]
fn without_root_ports_and_networks_are_refused_with_the_reason() {
    if !able(&["docker-registry", "setpriv"]) {
        return;
    }
    let world = World::new();
    let dir = world.short();
    std::fs::set_permissions(dir, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    std::fs::copy(env!("CARGO_BIN_EXE_strake"), dir.join("strake")).unwrap();
    std::fs::copy(crate::common::bases().join("busybox.tar"), dir.join("busybox.tar")).unwrap();
    let strake = |args: &[&str]| {
        let setpriv = crate::common::which("setpriv").unwrap();
        let run =
            Run::new(setpriv.to_str().unwrap(), ["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(dir.join("strake")).arg_all(args);
        // Neither pasta nor slirp4netns is there.
        run.env("HOME", dir).env("XDG_RUNTIME_DIR", dir.join("run")).env("STRAKE_ROOT", dir.join("store")).env("PATH", dir).dir("/")
    };
    let import = strake(&["import", "-c", "CMD [\"sh\"]", dir.join("busybox.tar").to_str().unwrap(), "localhost/busybox"]).run();
    if import.stderr.contains("user namespace") {
        return unable("user namespaces without root");
    }
    strake(&["run", "--rm", "localhost/busybox", "true"]).ok().says(&["without root", "host's network"]);
    strake(&["network", "create", "front"]).ok();
    strake(&["network", "create", "--internal", "closed"]).ok();
    for flags in [["-p", "8080:80"], ["--network", "front"], ["--network", "closed"]] {
        let refused = strake(&["run", "--rm", flags[0], flags[1], "localhost/busybox", "true"]).run();
        assert_eq!(refused.code, 125, "{refused}");
        refused.says(&["without root", "hint: run as root"]);
    }
    strake(&["run", "--rm", "-p", "8080:80", "localhost/busybox", "true"]).fails().says(&["pasta", "slirp4netns", "passt"]);
    strake(&["run", "--rm", "--network", "pasta", "localhost/busybox", "true"]).fails().says(&["`pasta` is not in the PATH", "passt"]);
    strake(&["network", "rm", "front", "closed"]).ok();
    assert_eq!(strake(&["ps", "-aq"]).ok().stdout, "");
}

#[test]
fn an_image_that_is_pulled_holds_no_address_meanwhile() {
    on_a_host(|world| {
        // A registry that takes its time.
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let image = format!("{}/slow", listener.local_addr().unwrap());
        for flags in [&["--pull", "missing"][..], &["--pull", "always"]] {
            let mut run = world.strake([&["run", "--rm"][..], flags, &[image.as_str(), "true"]].concat()).start();
            let (asked, _) = listener.accept().unwrap();
            // What is started meanwhile has come to its network by then.
            std::thread::sleep(Duration::from_millis(500));
            wait_for("the end of the bridge", 10, || !sh("ip -o link").contains("strake0"));
            assert_eq!(sh("find /run -path '*/addresses/*'"), "");
            drop(asked);
            run.kill().unwrap();
            run.wait().unwrap();
        }
        // What is here is started as ever.
        sleeper(world, "one", &[]);
        assert_eq!(exec(world, "one", "ls /sys/class/net").stdout, "eth0\nlo\n");
    });
}
