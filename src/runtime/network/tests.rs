//! The network from outside: every test is a host of its own (a fresh network namespace) with an uplink to an "internet", a second namespace with a server.
//! `ip` and `nft` are used to look, since they know nothing of our code.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, setns, unshare};

use super::*;

const UPLINK: &str = "203.0.113.2";
const SERVER: &str = "203.0.113.1:80";

/// Runs `test` on a host of its own. Says why not where that is not possible.
fn on_a_fresh_host(test: impl FnOnce(&Path) + Send + 'static) {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: needs root for network namespaces");
        return;
    }
    let host = std::thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        sh("ip link set lo up");
        internet();
        let dir = tempfile::tempdir().unwrap();
        test(dir.path());
    });
    if let Err(panic) = host.join() {
        std::panic::resume_unwind(panic);
    }
}

/// Connects this host with a namespace whose server tells each caller the address it sees.
fn internet() {
    let (told, tid) = channel();
    let (go, start): (Sender<()>, _) = channel();
    let (done, ready) = channel();
    std::thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        told.send(rustix::thread::gettid().as_raw_nonzero()).unwrap();
        start.recv().unwrap();
        sh("ip addr add 203.0.113.1/24 dev inet0 && ip link set inet0 up && ip link set lo up");
        let listener = TcpListener::bind(SERVER).unwrap();
        done.send(()).unwrap();
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let peer = stream.peer_addr().unwrap().ip();
            // A caller asks for a connection back to an address by naming it.
            let mut ask = String::new();
            BufReader::new(&stream).read_line(&mut ask).unwrap();
            let answer = match ask.trim().parse::<SocketAddr>() {
                Ok(address) => {
                    sh(&format!("ip route replace {} via {UPLINK}", address.ip()));
                    TcpStream::connect_timeout(&address, Duration::from_millis(300)).map_or("blocked", |_| "connected").to_owned()
                }
                Err(_) => peer.to_string(),
            };
            stream.write_all(answer.as_bytes()).unwrap();
        }
    });
    let tid = tid.recv().unwrap();
    sh(&format!("ip link add up0 mtu 1400 type veth peer name inet0 mtu 1400 netns {tid}"));
    sh(&format!("ip addr add {UPLINK}/24 dev up0 && ip link set up0 up && ip route add default via 203.0.113.1"));
    go.send(()).unwrap();
    ready.recv().unwrap();
}

#[track_caller]
fn sh(script: &str) -> String {
    let output = Command::new("sh").arg("-c").arg(script).output().unwrap();
    assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Runs `work` inside of `netns`.
fn inside<T: Send + 'static>(netns: &Netns, work: impl FnOnce() -> T + Send + 'static) -> T {
    let fd = netns.fd().try_clone_to_owned().unwrap();
    std::thread::spawn(move || {
        setns(fd.as_fd(), CloneFlags::CLONE_NEWNET).unwrap();
        work()
    })
    .join()
    .unwrap()
}

/// What the server of the internet answers to `line`.
fn ask(line: &str) -> String {
    let mut stream = TcpStream::connect_timeout(&SERVER.parse().unwrap(), Duration::from_secs(3)).unwrap();
    writeln!(stream, "{line}").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn a_namespace_reaches_the_internet_as_the_host() {
    on_a_fresh_host(|dir| {
        let network = Network::open(dir).unwrap();
        let netns = network.acquire().unwrap();
        assert_eq!(inside(&netns, || ask("who")), UPLINK);
        let link = inside(&netns, || sh("ip -o addr show dev eth0; ip -o link show dev eth0; ip route"));
        assert!(link.contains(&netns.address().to_string()), "{link}");
        assert!(link.contains("mtu 1400"), "{link}");
        assert!(inside(&netns, || sh("ip -o link show lo")).contains("UP"));
    });
}

#[test]
fn namespaces_have_addresses_of_their_own_and_reach_each_other_and_the_host() {
    on_a_fresh_host(|dir| {
        let network = Network::open(dir).unwrap();
        let (a, b) = (network.acquire().unwrap(), network.acquire().unwrap());
        assert_ne!(a.address().address, b.address().address);
        assert_eq!(a.address().network(), b.address().network());
        let on_host = TcpListener::bind((network.gateway().address, 0)).unwrap();
        let at = on_host.local_addr().unwrap();
        let seen = inside(&a, move || TcpStream::connect_timeout(&at, Duration::from_secs(3)).unwrap().local_addr().unwrap().ip());
        assert_eq!(on_host.accept().unwrap().1.ip(), seen);
        assert_eq!(seen, IpAddr::V4(a.address().address));
        let in_b = inside(&b, || TcpListener::bind("0.0.0.0:80").unwrap());
        let to = SocketAddr::from((b.address().address, 80));
        inside(&a, move || TcpStream::connect_timeout(&to, Duration::from_secs(3)).unwrap());
        assert_eq!(in_b.accept().unwrap().1.ip(), seen);
    });
}

#[test]
fn neighbours_of_the_host_cannot_reach_a_namespace() {
    on_a_fresh_host(|dir| {
        let network = Network::open(dir).unwrap();
        let netns = network.acquire().unwrap();
        let _listener = inside(&netns, || TcpListener::bind("0.0.0.0:80").unwrap());
        let address = SocketAddr::from((netns.address().address, 80));
        // The first packet may be lost while the bridge learns of its new port, and is sent again a second later.
        assert!(TcpStream::connect_timeout(&address, Duration::from_secs(10)).is_ok(), "the host itself can");
        assert_eq!(ask(&address.to_string()), "blocked");
    });
}

#[test]
fn the_last_user_leaves_nothing_and_other_tables_are_not_touched() {
    on_a_fresh_host(|dir| {
        sh(
            "nft 'add table ip other; add chain ip other c { type filter hook forward priority 5; policy accept; }; add rule ip other c counter'",
        );
        let (rules, links) = (sh("nft -s list ruleset"), sh("ip -o link | cut -d' ' -f2"));
        let first = Network::open(dir).unwrap();
        let second = Network::open(dir).unwrap();
        assert_eq!(first.gateway(), second.gateway());
        let netns = second.acquire().unwrap();
        drop(first);
        let during = sh("nft -s list ruleset");
        assert!(during.starts_with(&rules) && during.contains("masquerade"), "{during}");
        drop(second);
        assert!(sh("ip -o link").contains(BRIDGE), "a namespace keeps its network");
        drop(netns);
        assert_eq!(sh("nft -s list ruleset"), rules);
        assert_eq!(sh("ip -o link | cut -d' ' -f2"), links);
    });
}

#[test]
fn what_a_killed_process_held_is_free_and_used_again() {
    on_a_fresh_host(|dir| {
        let test = "runtime::network::tests::holds_a_namespace_until_killed";
        let mut owner = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", test, "--nocapture", "--ignored"])
            .env("STRAKE_TEST_RUN_DIR", dir)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(owner.stdout.take().unwrap()).lines().map(Result::unwrap);
        let address = lines.into_iter().find_map(|line| line.split_once("holds ").map(|(_, address)| address.to_owned())).unwrap();
        let file = std::fs::File::open(dir.join("addresses").join(&address)).unwrap();
        assert!(file.try_lock().is_err());
        owner.kill().unwrap();
        owner.wait().unwrap();
        file.try_lock().unwrap();
        drop(file);
        assert!(sh("ip -o link").contains(BRIDGE), "the killed process could not tidy up");
        let network = Network::open(dir).unwrap();
        let netns = network.acquire().unwrap();
        assert_eq!(inside(&netns, || ask("who")), UPLINK);
        drop((network, netns));
        assert!(!sh("ip -o link; nft list ruleset").contains("strake"));
    });
}

/// The process that is killed; not a test by itself.
#[test]
#[ignore = "a helper of another test"]
fn holds_a_namespace_until_killed() {
    let Some(dir) = std::env::var_os("STRAKE_TEST_RUN_DIR") else { return };
    let network = Network::open(Path::new(&dir)).unwrap();
    let netns = network.acquire().unwrap();
    println!("holds {}", netns.address().address);
    std::thread::sleep(Duration::from_secs(60));
}

#[test]
fn a_namespace_takes_over_an_address_whose_link_is_still_there() {
    on_a_fresh_host(|dir| {
        let network = Network::open(dir).unwrap();
        let all = network.gateway().network().hosts();
        network.0.next.store(0, Ordering::Relaxed);
        let first = network.acquire().unwrap();
        let (address, kept) = (first.address(), first.fd().try_clone_to_owned().unwrap());
        drop(first);
        network.0.next.store(all, Ordering::Relaxed);
        let second = network.acquire().unwrap();
        assert_eq!(second.address(), address);
        assert_eq!(inside(&second, || ask("who")), UPLINK);
        drop(kept);
    });
}

#[test]
fn a_firewall_that_drops_forwarded_packets_makes_it_unavailable() {
    on_a_fresh_host(|dir| {
        Network::probe().unwrap();
        sh("nft 'add table ip guard; add chain ip guard forward { type filter hook forward priority 0; policy drop; }'");
        let why = Network::probe().unwrap_err();
        assert!(why.reason.contains("`ip guard forward`"), "{why}");
        assert!(matches!(Network::open(dir), Err(Error::Unavailable(_))));
        assert!(!sh("ip -o link").contains(BRIDGE));
    });
}

#[test]
fn a_subnet_in_use_on_the_host_is_not_taken() {
    on_a_fresh_host(|dir| {
        sh("ip route add 10.0.0.0/8 via 203.0.113.1");
        let network = Network::open(dir).unwrap();
        assert_eq!(network.gateway().address.octets()[0], 172);
    });
}

#[test]
fn opening_and_closing_at_once_never_pulls_the_network_from_under_anyone() {
    on_a_fresh_host(|dir| {
        let workers: Vec<_> = (0..4)
            .map(|_| {
                let dir = dir.to_owned();
                std::thread::spawn(move || {
                    for _ in 0..8 {
                        let network = Network::open(&dir).unwrap();
                        let netns = network.acquire().unwrap();
                        drop(network);
                        assert_eq!(inside(&netns, || ask("who")), UPLINK);
                    }
                })
            })
            .collect();
        workers.into_iter().for_each(|worker| worker.join().unwrap());
        assert!(!sh("ip -o link; nft list ruleset").contains("strake"));
    });
}

#[test]
fn a_pool_hands_out_ready_namespaces_and_more_when_it_is_empty() {
    on_a_fresh_host(|dir| {
        let start = Instant::now();
        let network = Network::open(dir).unwrap();
        let opened = start.elapsed();
        let start = Instant::now();
        let cold = network.acquire().unwrap();
        let cold_time = start.elapsed();
        let pool = NetnsPool::new(network, 2).unwrap();
        std::thread::sleep(Duration::from_millis(200));
        let start = Instant::now();
        let ready = pool.acquire().unwrap();
        let ready_time = start.elapsed();
        println!("open {opened:?}, acquire cold {cold_time:?}, from the pool {ready_time:?}");
        let burst: Vec<_> = (0..5).map(|_| pool.acquire().unwrap()).collect();
        let mut addresses: Vec<_> = burst.iter().chain([&cold, &ready]).map(|netns| netns.address().address).collect();
        addresses.sort_unstable();
        addresses.dedup();
        assert_eq!(addresses.len(), 7);
        let start = Instant::now();
        drop((pool, burst, cold, ready));
        println!("close {:?}", start.elapsed());
        assert!(!sh("ip -o link; nft list ruleset").contains("strake"));
    });
}
