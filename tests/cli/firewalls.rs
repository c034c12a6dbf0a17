//! Networks beside firewalls of others: what they drop gets through where Strake may let it, and nothing of theirs is changed. Every test is a host of its own, as in `networks`; the rules are made by
//! `iptables`, `nft` and a real `dockerd`.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::common::{World, able, wait_for, which};
use crate::networks::{
    OUTSIDE, OUTSIDE6, UPLINK, UPLINK6, address, ask, exec, host_port, inside, nothing_is_left, on_a_host, outside, serve_tcp, sh, sleeper,
    tell_callers,
};

/// Whether a container gets to a server outside.
#[track_caller]
fn gets_out(world: &World, container: &str, to: &'static str, port: u16) -> Option<String> {
    outside(move || tell_callers(TcpListener::bind((to, port)).unwrap()));
    let at = if to.contains(':') { format!("[{to}]:{port}") } else { format!("{to}:{port}") };
    inside(world, container, move || ask(&at))
}

/// All rules of iptables, without those that Docker's chains have.
fn saved() -> String {
    sh("iptables-save -t filter | grep -v '^#' | sed 's/\\[.*\\]//'; ip6tables-save -t filter | grep -v '^#' | sed 's/\\[.*\\]//'")
}

#[test]
fn where_iptables_drops_what_is_forwarded_networks_lead_out_and_nothing_is_left() {
    on_a_host(|world| {
        if !able(&["iptables", "ip6tables"]) {
            return;
        }
        // As Docker makes them; the last one logs what is going to be dropped, as ufw has it.
        sh("for t in iptables ip6tables; do $t -N DOCKER-USER; $t -A DOCKER-USER -j RETURN; $t -N DOCKER-ISOLATION; $t -N late; $t -A late -m limit --limit 3/min -j LOG
            $t -A DOCKER-ISOLATION -i docker0 ! -o docker0 -j DROP; $t -A FORWARD -j DOCKER-USER; $t -A FORWARD -j DOCKER-ISOLATION; $t -A FORWARD -j late; $t -P FORWARD DROP; done");
        let before = saved();
        world.strake(["network", "create", "--ipv6", "front"]).ok();
        world.strake(["network", "create", "--internal", "closed"]).ok();
        let plain = world.strake(["run", "-d", "--name", "plain", "-p", "80", "localhost/busybox", "sleep", "1000"]).ok();
        plain.omits(&["host's network", "nothing leads out"]);
        let named =
            world.strake(["run", "-d", "--name", "named", "--network", "front", "-p", "80", "localhost/busybox", "sleep", "1000"]).ok();
        named.omits(&["nothing leads out"]);
        sleeper(world, "a", &["--network", "closed"]);
        sleeper(world, "b", &["--network", "closed"]);
        assert_eq!(gets_out(world, "plain", OUTSIDE, 7001).as_deref(), Some(UPLINK));
        assert_eq!(gets_out(world, "named", OUTSIDE, 7002).as_deref(), Some(UPLINK));
        assert_eq!(gets_out(world, "named", OUTSIDE6, 7003).as_deref(), Some(UPLINK6));
        for name in ["plain", "named"] {
            serve_tcp(world, name, 80);
            serve_tcp(world, name, 81);
            let port = host_port(world, name, "80");
            let (v4, v6, local) = (format!("{UPLINK}:{port}"), format!("[{UPLINK6}]:{port}"), format!("127.0.0.1:{port}"));
            assert!(ask(&local).is_some(), "{name} from this host");
            assert_eq!(outside(move || ask(&v4)).as_deref(), Some(OUTSIDE), "{name} from another host");
            assert!(outside(move || ask(&v6)).is_some(), "{name} from another host by IPv6");
        }
        assert!(exec(world, "a", "ping -c 1 -W 3 b").code == 0, "what stays on a bridge");
        // What is not published is as closed as ever, and so are other networks.
        let (plain, named, closed) = (address(world, "bridge", "plain"), address(world, "front", "named"), address(world, "closed", "a"));
        sh(&format!("for a in {plain} {named} {closed}; do ip -n outside route add $a via {UPLINK}; done"));
        for to in [format!("{plain}:81"), format!("{named}:81")] {
            assert_eq!(outside(move || ask(&to)), None);
        }
        assert_eq!(
            (exec(world, "plain", &format!("ping -c 1 -W 2 {named}")).code, exec(world, "named", &format!("ping -c 1 -W 2 {closed}")).code),
            (1, 1)
        );
        // iptables lists the rules, tries them for itself, and makes others.
        let listed = saved();
        assert_eq!(listed.matches("made and removed by strake").count(), 7, "{listed}");
        sh(
            "iptables -A FORWARD -i x0 -j ACCEPT; iptables -D FORWARD -i x0 -j ACCEPT; iptables -I DOCKER-USER -s 192.0.2.1 -j DROP; iptables -D DOCKER-USER -s 192.0.2.1 -j DROP",
        );
        let ours = sh("iptables -S FORWARD").lines().position(|line| line.contains("strake0")).unwrap();
        assert!(ours > 2 && sh("iptables -S FORWARD").lines().last().unwrap().ends_with("-j late"), "{}", sh("iptables -S FORWARD"));
        sh("iptables-save | iptables-restore");
        assert_eq!(saved(), listed);
        assert_eq!(gets_out(world, "plain", OUTSIDE, 7004).as_deref(), Some(UPLINK));
        let doctor = world.strake(["doctor"]).run().stdout;
        assert!(doctor.contains("let its packets through `ip filter FORWARD`"), "{doctor}");
        world.strake(["rm", "-f", "plain", "named", "a", "b"]).ok();
        nothing_is_left();
        assert_eq!(saved(), before);
    });
}

#[test]
fn rules_that_are_made_anew_let_containers_through_again() {
    on_a_host(|world| {
        if !able(&["iptables"]) {
            return;
        }
        sleeper(world, "c", &[]);
        assert!(gets_out(world, "c", OUTSIDE, 7011).is_some());
        // A firewall that starts later, one that starts again, and one that ends with a rule for all.
        for (port, rules) in [
            (7012, "iptables -P FORWARD DROP"),
            (7013, "iptables -F FORWARD"),
            (7014, "nft delete table ip filter; iptables -P FORWARD DROP"),
            (
                7015,
                "iptables -P FORWARD ACCEPT; iptables -F FORWARD; iptables -N end; iptables -A end -j REJECT; iptables -A FORWARD -j end",
            ),
        ] {
            sh(rules);
            wait_for(rules, 10, || sh("iptables -S FORWARD").matches("strake0").count() == 2);
            assert!(gets_out(world, "c", OUTSIDE, port).is_some(), "{rules}");
        }
        // One that somebody has kept of a network that is gone goes as well.
        sh(
            "iptables -A FORWARD -i st-gone -m comment --comment 'made and removed by strake-gone' -j ACCEPT; iptables -A FORWARD -i st-gone -m comment --comment 'made by strake' -j ACCEPT",
        );
        // What was killed left them; the next command removes them.
        let pid = world.strake(["inspect", "-f", "{{.State.Pid}}", "c"]).ok().stdout;
        let parent = sh(&format!("ps -o ppid= -p {}", pid.trim()));
        sh(&format!("kill -9 {}", parent.trim()));
        assert!(sh("iptables -S FORWARD").contains("strake0"));
        wait_for("the end of the container", 10, || !Path::new(&format!("/proc/{}", pid.trim())).exists());
        world.strake(["ps"]).ok();
        nothing_is_left();
        assert_eq!(
            sh("iptables -S FORWARD | grep strake").trim(),
            "-A FORWARD -i st-gone -m comment --comment \"made by strake\" -j ACCEPT"
        );
    });
}

#[test]
fn what_a_firewall_drops_by_rules_of_its_own_stays_dropped() {
    on_a_host(|world| {
        if !able(&["iptables"]) {
            return;
        }
        sh(
            "iptables -P FORWARD DROP; iptables -A FORWARD -p tcp --dport 7021 -j DROP; iptables -A FORWARD -i up0 -p tcp --dport 80 -j REJECT",
        );
        sleeper(world, "c", &["-p", "80"]);
        assert_eq!(gets_out(world, "c", OUTSIDE, 7021), None);
        assert!(gets_out(world, "c", OUTSIDE, 7022).is_some());
        serve_tcp(world, "c", 80);
        let at = format!("{UPLINK}:{}", host_port(world, "c", "80"));
        assert_eq!(outside(move || ask(&at)), None);
        // The bridge of another program is not opened by way of ours, though bridges to other hosts are.
        sh("ip link add br-other type bridge; ip addr add 198.51.100.1/24 dev br-other; ip link set br-other up
            ip netns add other; ip link add o0 type veth peer name eth0 netns other; ip link set o0 master br-other up
            ip -n other addr add 198.51.100.2/24 dev eth0; ip -n other link set eth0 up; ip -n other route add default via 198.51.100.1");
        let other = |work: fn()| crate::networks::in_netns("/run/netns/other", work);
        other(|| tell_callers(TcpListener::bind("0.0.0.0:7023").unwrap()));
        assert!(ask("198.51.100.2:7023").is_some());
        assert_eq!(inside(world, "c", || ask("198.51.100.2:7023")), None);
        let c = address(world, "bridge", "c");
        serve_tcp(world, "c", 82);
        let at = format!("{c}:82");
        assert_eq!(crate::networks::in_netns("/run/netns/other", move || ask(&at)), None);
        world.strake(["rm", "-f", "c"]).ok();
        nothing_is_left();
    });
}

#[test]
fn rules_about_the_bridge_that_do_not_let_it_through_change_nothing() {
    on_a_host(|world| {
        if !able(&["iptables", "ip6tables"]) {
            return;
        }
        sh(
            "for t in iptables ip6tables; do $t -P FORWARD DROP; done; iptables -A INPUT -i strake0 -j ACCEPT; iptables -A FORWARD -i strake0 -p tcp --dport 9 -j ACCEPT",
        );
        sleeper(world, "c", &[]);
        assert!(gets_out(world, "c", OUTSIDE, 7031).is_some());
        // The tables of one family go, and of the other stay.
        world.strake(["network", "create", "--ipv6", "front"]).ok();
        sleeper(world, "six", &["--network", "front"]);
        assert!(gets_out(world, "six", OUTSIDE6, 7032).is_some());
        let tables = || sh("nft list tables").matches("table ip6 strake-").count();
        assert_eq!(tables(), 1);
        sh("nft flush ruleset ip6");
        wait_for("the table of IPv6", 10, || tables() == 1);
        // The host's own way out moves into a bridge.
        sh(&format!(
            "ip link add br0 type bridge; ip link set br0 up; ip link set up0 master br0; ip addr flush dev up0; ip addr add {UPLINK}/24 dev br0; ip route replace default via {OUTSIDE}"
        ));
        sleeper(world, "later", &[]);
        assert!(gets_out(world, "later", OUTSIDE, 7033).is_some());
        world.strake(["rm", "-f", "c", "six", "later"]).ok();
        nothing_is_left();
    });
}

#[test]
fn tables_of_other_purposes_and_of_iptables_legacy_are_named_and_left_alone() {
    on_a_host(|world| {
        sh(
            "nft 'add table inet vpn; add chain inet vpn forward { type filter hook forward priority 0; }; add rule inet vpn forward oifname tun0 accept; add rule inet vpn forward reject'",
        );
        let before = sh("nft list ruleset");
        world.strake(["run", "--rm", "localhost/busybox", "true"]).ok().says(&["`inet vpn forward`", "host's network"]);
        let doctor = world.strake(["doctor"]).run().stdout;
        assert!(
            doctor.contains("`inet vpn forward`") && doctor.contains("nft insert rule inet vpn forward iifname strake0 accept"),
            "{doctor}"
        );
        assert_eq!(sh("nft list ruleset"), before);
        sh("nft delete table inet vpn");
        // Those that may let our packets through by other means are their owner's business.
        for rules in [
            "add rule inet own forward ct state established,related accept; add rule inet own forward ip saddr 10.0.0.0/8 accept; add rule inet own forward drop",
            "add chain inet own mine; add rule inet own mine accept; add rule inet own forward iifname strake0 jump mine; add rule inet own forward oifname strake0 goto mine; add rule inet own forward drop",
            "add rule inet own forward iifname { strake0, x0 } accept; add rule inet own forward drop",
        ] {
            sh(&format!("nft 'add table inet own; add chain inet own forward {{ type filter hook forward priority 0; }}; {rules}'"));
            world.strake(["run", "--rm", "localhost/busybox", "true"]).ok().omits(&["host's network"]);
            sh("nft delete table inet own");
        }
        // Answers, and what goes to published ports, are not the way out; a rule about the link of the default route is (firewalld has such rules about the links of a zone).
        let begin = "add table inet own; add chain inet own zone; add chain inet own forward { type filter hook forward priority 0; }";
        let known = "add rule inet own forward ct state { established, related } accept; add rule inet own forward ct status dnat accept";
        let rest = "add rule inet own forward iifname lo accept; add rule inet own forward jump zone; add rule inet own forward reject";
        sh(&format!("nft '{begin}; {known}; {rest}'"));
        world.strake(["run", "--rm", "localhost/busybox", "true"]).ok().says(&["`inet own forward`", "host's network"]);
        sh("nft add rule inet own zone iifname up0 accept");
        world.strake(["run", "--rm", "localhost/busybox", "true"]).ok().says(&["host's network"]);
        sh("nft add rule inet own zone oifname up0 accept");
        sleeper(world, "out", &[]);
        assert!(gets_out(world, "out", OUTSIDE, 7034).is_some());
        world.strake(["rm", "-f", "out"]).ok();
        sh("nft delete table inet own");
        // So it is where what lets them out is reached by the rule that drops the rest.
        for rule in ["oifname up0 accept", "iifname strake0 accept"] {
            let end = format!("add rule inet own zone {rule}; add rule inet own zone reject; add rule inet own forward jump zone");
            sh(&format!("nft '{begin}; {known}; {end}'"));
            world.strake(["run", "--rm", "localhost/busybox", "true"]).ok().omits(&["host's network"]);
            sh("nft delete table inet own");
        }
        if !able(&["iptables-legacy"]) {
            return;
        }
        world.strake(["run", "--rm", "localhost/busybox", "true"]).ok().omits(&["host's network"]);
        sh("iptables-legacy -P FORWARD DROP");
        world.strake(["run", "--rm", "localhost/busybox", "true"]).ok().says(&["iptables-legacy", "host's network"]);
        sh("iptables-legacy -A FORWARD -i strake0 -j ACCEPT; iptables-legacy -A FORWARD -o strake0 -j ACCEPT");
        world.strake(["run", "--rm", "localhost/busybox", "true"]).ok().omits(&["host's network"]);
    });
}

#[test]
fn firewalld_s_tables_let_networks_through() {
    on_a_host(|world| {
        // As firewalld 1.3 has them, in short.
        sh("nft 'add table inet firewalld; add chain inet firewalld FWD_public; add rule inet firewalld FWD_public reject with icmpx admin-prohibited
            add chain inet firewalld ZONES; add rule inet firewalld ZONES iifname up0 goto FWD_public; add rule inet firewalld ZONES goto FWD_public
            add chain inet firewalld filter_FORWARD { type filter hook forward priority 10; policy accept; }
            add rule inet firewalld filter_FORWARD ct state established,related accept; add rule inet firewalld filter_FORWARD ct status dnat accept
            add rule inet firewalld filter_FORWARD jump ZONES; add rule inet firewalld filter_FORWARD ct state invalid drop'");
        let before = sh("nft list ruleset");
        sleeper(world, "c", &[]);
        assert!(gets_out(world, "c", OUTSIDE, 7031).is_some(), "{}", sh("nft list ruleset"));
        world.strake(["rm", "-f", "c"]).ok();
        nothing_is_left();
        assert_eq!(sh("nft list ruleset"), before);
    });
}

/// A Docker of its own, which ends with the test.
struct Docker {
    daemon: Child,
    dir: tempfile::TempDir,
}

impl Docker {
    fn start(dir: tempfile::TempDir) -> Docker {
        let at = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
        let log = std::fs::File::create(at("log")).unwrap();
        let mut command = Command::new("dockerd");
        command.args(["--data-root", &at("root"), "--exec-root", &at("exec"), "-p", &at("pid"), "--storage-driver", "vfs"]);
        command.args(["-H", &format!("unix://{}", at("sock"))]).stdout(Stdio::null()).stderr(log);
        let docker = Docker { daemon: command.spawn().unwrap(), dir };
        wait_for("the start of dockerd", 60, || docker.run(&["version"]).is_some());
        docker
    }

    fn run(&self, args: &[&str]) -> Option<String> {
        let socket = format!("unix://{}", self.dir.path().join("sock").display());
        let output = Command::new("docker").args(["-H", &socket]).args(args).output().unwrap();
        output.status.success().then(|| String::from_utf8(output.stdout).unwrap())
    }

    /// Ends it and starts another.
    fn restart(mut self) -> Docker {
        self.end();
        let dir = std::mem::replace(&mut self.dir, tempfile::tempdir().unwrap());
        Docker::start(dir)
    }

    fn end(&mut self) {
        let pid = nix::unistd::Pid::from_raw(self.daemon.id().cast_signed());
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
        let _ = self.daemon.wait();
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        self.end();
    }
}

/// Nobody needs to install a daemon that changes the firewall of the host for these tests.
fn has_docker() -> bool {
    let missing = ["dockerd", "docker", "containerd"].into_iter().find(|program| which(program).is_none());
    missing.iter().for_each(|program| println!("skipped in part: `{program}` is not installed"));
    missing.is_none()
}

#[test]
fn beside_a_real_docker_networks_work_and_keep_apart() {
    on_a_host(|world| {
        if !able(&["iptables"]) || !has_docker() {
            return;
        }
        // Docker makes the policy to drop where it switches forwarding on.
        std::fs::write("/proc/sys/net/ipv4/ip_forward", "0").unwrap();
        let docker = Docker::start(tempfile::Builder::new().prefix("dk").tempdir().unwrap());
        assert!(sh("iptables -S FORWARD").starts_with("-P FORWARD DROP"));
        let before = saved();
        world.strake(["network", "create", "front"]).ok();
        sleeper(world, "plain", &["-p", "80"]);
        sleeper(world, "named", &["--network", "front", "-p", "80"]);
        let works = |port: u16| {
            for (name, port) in [("plain", port), ("named", port + 1)] {
                assert_eq!(gets_out(world, name, OUTSIDE, port).as_deref(), Some(UPLINK), "{name}");
                let published = host_port(world, name, "80");
                let at = format!("{UPLINK}:{published}");
                assert_eq!(outside(move || ask(&at)).as_deref(), Some(OUTSIDE), "{name}");
                assert!(ask(&format!("127.0.0.1:{published}")).is_some(), "{name}");
            }
        };
        serve_tcp(world, "plain", 80);
        serve_tcp(world, "named", 80);
        works(7041);
        // Docker's containers and ours meet at published ports only.
        docker.run(&["import", crate::common::bases().join("busybox.tar").to_str().unwrap(), "busybox"]).unwrap();
        docker.run(&["run", "-d", "--name", "dd", "-p", "8099:80", "busybox", "nc", "-ll", "-p", "80", "-e", "echo", "docker"]).unwrap();
        let theirs = docker.run(&["inspect", "-f", "{{.NetworkSettings.IPAddress}}", "dd"]).unwrap().trim().to_owned();
        let ours = address(world, "bridge", "plain");
        assert_ne!(exec(world, "plain", &format!("ping -c 1 -W 2 {theirs}")).code, 0);
        assert_eq!(docker.run(&["exec", "dd", "ping", "-c", "1", "-W", "2", &ours]), None);
        assert_eq!(exec(world, "plain", &format!("nc -w 3 {UPLINK} 8099 </dev/null")).stdout, "docker\n");
        let published = host_port(world, "plain", "80");
        let heard = docker.run(&["exec", "dd", "sh", "-c", &format!("echo hello | nc -w 3 {UPLINK} {published}")]).unwrap();
        assert!(heard.contains("hello"), "{heard}");
        docker.run(&["rm", "-f", "dd"]).unwrap();
        let docker = docker.restart();
        works(7043);
        docker.run(&["network", "create", "x"]).unwrap();
        docker.run(&["network", "rm", "x"]).unwrap();
        works(7045);
        world.strake(["rm", "-f", "plain", "named"]).ok();
        nothing_is_left();
        assert_eq!(saved(), before);
    });
}

#[test]
fn a_docker_that_starts_after_a_container_does_not_cut_it_off() {
    on_a_host(|world| {
        if !able(&["iptables"]) || !has_docker() {
            return;
        }
        sleeper(world, "c", &[]);
        assert!(gets_out(world, "c", OUTSIDE, 7051).is_some());
        std::fs::write("/proc/sys/net/ipv4/ip_forward", "0").unwrap();
        let _docker = Docker::start(tempfile::Builder::new().prefix("dk").tempdir().unwrap());
        assert!(sh("iptables -S FORWARD").starts_with("-P FORWARD DROP"));
        wait_for("the rules", 10, || sh("iptables -S FORWARD").contains("-i strake0"));
        assert!(gets_out(world, "c", OUTSIDE, 7052).is_some());
        world.strake(["rm", "-f", "c"]).ok();
        nothing_is_left();
        assert!(!saved().contains("strake"));
    });
}
