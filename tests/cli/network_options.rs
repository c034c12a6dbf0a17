//! What can be asked of a network and of a container's place on it beyond names and addresses, and what containers find where they were edited or a device is given by its path. The hosts are those of
//! [`networks`](crate::networks).

use std::net::{TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use crate::common::world;
use crate::networks::{
    OUTSIDE, OUTSIDE6, UPLINK, address, ask, exec, host_port, inside, nothing_is_left, on_a_host, outside, serve_tcp, sh, shown, sleeper,
};

#[test]
fn the_preferred_network_is_the_way_out_and_links_have_the_names_that_were_asked_for() {
    on_a_host(|world| {
        world.strake(["network", "create", "--subnet", "10.81.0.0/24", "--subnet", "fd00:81::/64", "first"]).ok();
        world.strake(["network", "create", "--subnet", "10.82.0.0/24", "--subnet", "fd00:82::/64", "second"]).ok();
        world.strake(["network", "create", "--subnet", "10.83.0.0/24", "third"]).ok();
        let named = "name=second,gw-priority=7,driver-opt=com.docker.network.endpoint.ifname=way0";
        sleeper(world, "c", &["--network", "name=first,gw-priority=-2", "--network", named, "-p", "127.0.0.1:8080:80"]);
        let routes = |what: &'static str| inside(world, "c", move || sh(&format!("ip {what} route show default")));
        assert!(routes("-4").starts_with("default via 10.82.0.1 dev way0"), "{}", routes("-4"));
        assert!(routes("-6").starts_with("default via fd00:82::1 dev way0"), "{}", routes("-6"));
        assert!(exec(world, "c", "ip -o -4 addr show eth0").stdout.contains("10.81.0."));
        // The way out moves with the networks that the container comes to and leaves.
        world.strake(["network", "connect", "--gw-priority", "9", "third", "c"]).ok();
        assert!(routes("-4").starts_with("default via 10.83.0.1 dev eth1"), "{}", routes("-4"));
        assert_eq!((routes("-4").lines().count(), routes("-6").as_str()), (1, ""), "the way out is one for both families");
        world.strake(["network", "disconnect", "third", "c"]).ok();
        assert!(routes("-4").contains("dev way0") && routes("-6").contains("dev way0"));
        world.strake(["network", "disconnect", "second", "c"]).ok();
        assert!(routes("-4").contains("10.81.0.1") && routes("-6").contains("fd00:81::1"));
        world.strake(["network", "connect", "--driver-opt", "com.docker.network.endpoint.ifname=way1", "second", "c"]).ok();
        assert!(
            routes("-4").contains("10.82.0.1 dev way1"),
            "a network that nothing is said of goes before one below zero: {}",
            routes("-4")
        );
        let place = |field: &str| shown(world, &format!("{{{{json .NetworkSettings.Networks.{field}}}}}"), "c");
        assert_eq!((place("first.GwPriority"), place("second.GwPriority")), ("-2".to_owned(), "0".to_owned()));
        assert!(place("second.DriverOpts").contains("way1") && place("first.DriverOpts") == "null");
        for option in ["gw-priority=x", "driver-opt=a=b", "driver-opt=com.docker.network.endpoint.ifname=lo"] {
            let option = format!("name=first,{option}");
            assert_eq!(world.strake(["run", "--rm", "--network", &option, "localhost/busybox", "true"]).run().code, 125, "{option}");
        }
    });
}

#[test]
fn a_way_out_that_was_chosen_inside_stays_and_so_does_a_link() {
    on_a_host(|world| {
        world.strake(["network", "create", "--subnet", "10.81.0.0/24", "first"]).ok();
        world.strake(["network", "create", "--subnet", "10.82.0.0/24", "second"]).ok();
        sleeper(world, "c", &["--network", "first"]);
        inside(world, "c", || sh("ip route replace default via 10.81.0.77"));
        let seen = || inside(world, "c", || (sh("ip route show default"), sh("ip -o link show type veth | wc -l").trim().to_owned()));
        let is_chosen = |(route, links): (String, String), count: &str| {
            assert!(route.starts_with("default via 10.81.0.77 ") && route.lines().count() == 1, "{route}");
            assert_eq!(links, count);
        };
        world.strake(["network", "connect", "--gw-priority", "5", "second", "c"]).ok();
        assert!(address(world, "second", "c").starts_with("10.82.0."));
        is_chosen(seen(), "2");
        world.strake(["network", "disconnect", "second", "c"]).ok();
        is_chosen(seen(), "1");
        let named = "com.docker.network.endpoint.ifname=eth0";
        let connect = ["network", "connect", "--driver-opt", named, "second", "c"];
        world.strake(connect).fails().says(&["`second`", "another link of the name `eth0`"]);
        is_chosen(seen(), "1");
        assert_eq!(shown(world, "{{range $name, $_ := .NetworkSettings.Networks}}{{$name}} {{end}}", "c").trim(), "first");
        for name in ["web%d", "a b", "é", "sixteen-letters-"] {
            let option = format!("name=first,driver-opt=com.docker.network.endpoint.ifname={name}");
            let refused = world.strake(["run", "--rm", "--network", &option, "localhost/busybox", "true"]).run();
            assert!(refused.code == 125 && refused.stderr.contains("15 characters of ASCII, without blanks"), "{refused}");
        }
    });
}

#[test]
fn addresses_that_are_set_aside_are_not_given_out() {
    on_a_host(|world| {
        let flags =
            ["--subnet", "10.84.0.0/29", "--subnet", "fd00:84::/64", "--aux-address", "a=10.84.0.2", "--aux-address", "b=10.84.0.4"];
        world
            .strake([&["network", "create"][..], &flags, &["--aux-address", "c=fd00:84::2", "--ipam-driver", "default", "n"]].concat())
            .ok();
        let shown = world.strake(["network", "inspect", "-f", "{{json .IPAM.Config}}", "n"]).ok().stdout;
        assert!(shown.contains(r#""AuxiliaryAddresses":{"a":"10.84.0.2","b":"10.84.0.4"}"#), "{shown}");
        assert!(shown.contains(r#""AuxiliaryAddresses":{"c":"fd00:84::2"}"#), "{shown}");
        let mut all: Vec<String> = ["x", "y", "z"]
            .iter()
            .map(|name| {
                sleeper(world, name, &["--network", "n"]);
                address(world, "n", name)
            })
            .collect();
        all.sort();
        assert_eq!(all, ["10.84.0.3", "10.84.0.5", "10.84.0.6"]);
        assert!(!exec(world, "x", "ip -o -6 addr show eth0").stdout.contains("fd00:84::2/"));
        let run =
            |flag: &str, asked: &str| world.strake(["run", "--rm", "--network", "n", flag, asked, "localhost/busybox", "true"]).fails();
        world.strake(["rm", "-f", "z"]).ok();
        run("--ip", "10.84.0.2").says(&["set aside"]);
        run("--ip6", "fd00:84::2").says(&["set aside"]);
        let create = |flags: &[&str]| world.strake([&["network", "create", "--subnet", "10.85.0.0/24"], flags, &["m"]].concat()).fails();
        create(&["--aux-address", "a=10.86.0.1"]).says(&["a=10.86.0.1", "not in a subnet"]);
        create(&["--aux-address", "a=10.85.0.1"]).says(&["the gateway"]);
        create(&["--aux-address", "a=10.85.0.2", "--aux-address", "b=10.85.0.2"]).says(&["named twice"]);
        create(&["--gateway", "10.85.0.2", "--gateway", "10.85.0.3"]).says(&["10.85.0.3", "second gateway"]);
    });
}

#[test]
fn a_server_that_fails_is_given_up_for_the_next() {
    on_a_host(|world| {
        sh("ip -n outside addr add 203.0.113.9/24 dev out0; ip -n outside addr add 203.0.113.10/24 dev out0");
        // Two of them cannot answer (SERVFAIL) or will not (REFUSED), the third does.
        outside(|| {
            for (server, outcome) in [("203.0.113.9", 2), ("203.0.113.10", 5), (OUTSIDE, 0)] {
                let socket = UdpSocket::bind((server, 53)).unwrap();
                std::thread::spawn(move || {
                    let mut buffer = [0; 512];
                    while let Ok((length, from)) = socket.recv_from(&mut buffer) {
                        let mut answer = buffer[..length].to_vec();
                        (answer[2], answer[3]) = (0x81, 0x80 | outcome);
                        answer[6..12].copy_from_slice(&[0, u8::from(outcome == 0), 0, 0, 0, 0]);
                        if outcome == 0 {
                            answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 9, 0, 4, 198, 51, 100, 7]);
                        }
                        socket.send_to(&answer, from).unwrap();
                    }
                });
            }
        });
        world.strake(["network", "create", "front"]).ok();
        let asked = |servers: &[&str]| {
            let flags: Vec<&str> = servers.iter().flat_map(|server| ["--dns", server]).collect();
            let command = ["localhost/busybox", "nslookup", "-type=a", "far.example"];
            world.strake([&["run", "--rm", "--network", "front"], &flags[..], &command].concat()).run()
        };
        let found = asked(&["203.0.113.9", "203.0.113.10", OUTSIDE]);
        assert!(found.stdout.contains("198.51.100.7"), "{found}");
        // Where none is left, the last one's word counts.
        let refused = asked(&["203.0.113.9", "203.0.113.10"]);
        assert!(format!("{refused}").contains("REFUSED"), "{refused}");
    });
}

#[test]
fn what_somebody_wrote_into_the_files_about_names_outlives_a_change_of_networks() {
    on_a_host(|world| {
        world.strake(["network", "create", "--subnet", "10.87.0.0/24", "n"]).ok();
        sleeper(world, "c", &["-h", "me"]);
        exec(world, "c", "echo '1.2.3.4 mine' >> /etc/hosts; echo 'nameserver 9.9.9.9' > /etc/resolv.conf");
        let files = || exec(world, "c", "cat /etc/hosts /etc/resolv.conf").stdout;
        world.strake(["network", "connect", "n", "c"]).ok();
        let connected = files();
        for line in ["1.2.3.4 mine\n", "10.87.0.2\tme\n", "nameserver 9.9.9.9\n"] {
            assert!(connected.contains(line), "{line}: {connected}");
        }
        assert!(!connected.contains("127.0.0.11"), "{connected}");
        world.strake(["network", "disconnect", "bridge", "c"]).ok();
        let bridge = connected.lines().find(|line| line.ends_with("\tme") && !line.starts_with("10.87.")).unwrap().to_owned();
        assert!(!files().contains(&bridge) && files().contains("1.2.3.4 mine") && files().contains("10.87.0.2\tme"), "{}", files());
        // What nobody would write there is not read.
        exec(world, "c", "truncate -s 2M /etc/hosts");
        world.strake(["network", "connect", "bridge", "c"]).ok();
        assert_eq!(exec(world, "c", "wc -c < /etc/hosts").stdout.trim(), (2 << 20).to_string());
        world.strake(["network", "disconnect", "bridge", "c"]).ok();
        // The next start begins anew.
        world.strake(["restart", "-t", "0", "c"]).ok();
        assert!(!files().contains("mine") && files().contains("nameserver 127.0.0.11\n"), "{}", files());
    });
}

#[test]
fn a_device_that_all_containers_have_works_at_any_path_and_no_other_does() {
    let Some(world) = world() else { return };
    world.write("disk", "");
    let script = "echo gone > /etc/gone && cat /etc/gone && head -c 3 /etc/zero | wc -c; head -c 1 /kernel; cat /kernel > /etc/gone";
    let binds = ["-v", "/dev/null:/etc/gone", "-v", "/dev/zero:/etc/zero:ro", "-v", "/dev/kmsg:/kernel"];
    let done = world.strake([&["run", "--rm"], &binds[..], &["localhost/busybox", "sh", "-c", script]].concat()).run();
    assert_eq!(done.stdout, "3\n", "{done}");
    done.says(&["can't open '/kernel': "]);
    let seen =
        world.strake(["run", "--rm", "--userns=auto", "-v", "/dev/null:/x", "localhost/busybox", "sh", "-c", "echo y > /x; cat /x"]).run();
    assert_eq!((seen.code, seen.stdout.as_str()), (0, ""), "{seen}");
}

#[test]
fn ports_are_listed_once_and_an_empty_host_name_is_none() {
    on_a_host(|world| {
        sleeper(world, "c", &["-P", "--expose", "7000-7002", "--expose", "9000-9002/udp", "-p", "127.0.0.1:9001:9001/udp"]);
        let ports = world.strake(["ps", "--format", "{{.Ports}}"]).ok().stdout;
        assert!(ports.contains("->7000/tcp") && !ports.split(", ").any(|port| !port.contains("->")), "{ports}");
        sleeper(world, "d", &["--expose", "7000-7002", "--expose", "7004", "--expose", "7003/udp", "--hostname="]);
        let ports = world.strake(["ps", "--filter", "name=d", "--format", "{{.Ports}}"]).ok().stdout;
        assert_eq!(ports, "7000-7002/tcp, 7003/udp, 7004/tcp\n");
        assert!(shown(world, "{{json .Config.ExposedPorts}}", "d").contains("\"7001/tcp\""));
        let id = shown(world, "{{.Id}}", "d");
        assert_eq!(exec(world, "d", "hostname").stdout.trim_end(), &id[..12]);
        world.strake(["run", "--rm", "-v", "~/x:/x", "localhost/busybox", "true"]).dir(world.context()).fails().says(&["`~/x`"]);
        assert!(!world.context().join("~").exists());
    });
}

#[test]
fn containers_of_an_isolated_network_reach_all_but_each_other() {
    on_a_host(|world| {
        let icc = "com.docker.network.bridge.enable_icc=false";
        world.strake(["network", "create", "-o", icc, "--subnet", "10.85.0.0/24", "--subnet", "fd00:85::/64", "apart"]).ok();
        world.strake(["network", "create", "--subnet", "10.86.0.0/24", "together"]).ok();
        let options = world.strake(["network", "inspect", "-f", "{{json .Options}}", "apart"]).ok().stdout;
        assert_eq!(options.trim(), r#"{"com.docker.network.bridge.enable_icc":"false"}"#);
        for name in ["one", "two", "late"] {
            let network = if name == "late" { "together" } else { "apart" };
            sleeper(world, name, &["--network", network, "-p", "127.0.0.1::81", "-p", &format!("{UPLINK}::80")]);
            serve_tcp(world, name, 80);
        }
        world.strake(["network", "connect", "apart", "late"]).ok();
        let far = outside(|| TcpListener::bind("[::]:7").unwrap());
        std::thread::spawn(move || far.incoming().for_each(drop));
        let near = TcpListener::bind("[::]:9").unwrap();
        std::thread::spawn(move || near.incoming().for_each(drop));
        let v6 = |name: &str| shown(world, "{{.NetworkSettings.Networks.apart.GlobalIPv6Address}}", name);
        let connects = |from: &str, to: String, time| {
            inside(world, from, move || TcpStream::connect_timeout(&to.parse().unwrap(), Duration::from_millis(time)).is_ok())
        };
        let reaches = |from: &str, to: String| connects(from, to, 10_000);
        let misses = |from: &str, to: String| !connects(from, to, 200);
        let are_apart = |all: &[&str]| {
            for from in all {
                for to in all.iter().filter(|to| *to != from) {
                    let (v4, v6) = (address(world, "apart", to), v6(to));
                    assert!(misses(from, format!("{v4}:80")) && misses(from, format!("[{v6}]:80")), "{from} reaches {to}");
                }
            }
        };
        are_apart(&["one", "two", "late"]);
        // Nor by way of the host, which would pass on what is sent to it.
        for (from, to) in [("one", "two"), ("two", "one")] {
            let (v4, v6) = (address(world, "apart", to), v6(to));
            let routes = format!("ip route add {v4} via 10.85.0.1; ip -6 route add {v6} via fd00:85::1");
            inside(world, from, move || sh(&routes));
        }
        let v4 = address(world, "apart", "two");
        are_apart(&["one", "two"]);
        // All else is as on any network: names, the host, the outside, and ports that are published.
        assert!(exec(world, "one", "nslookup two").stdout.contains(&v4));
        for from in ["one", "two"] {
            for to in [format!("{OUTSIDE}:7"), format!("[{OUTSIDE6}]:7"), "10.85.0.1:9".to_owned(), "[fd00:85::1]:9".to_owned()] {
                assert!(reaches(from, to.clone()), "{from} misses {to}");
            }
        }
        let published = format!("{UPLINK}:{}", host_port(world, "two", "80"));
        let at = published.clone();
        assert_eq!(outside(move || ask(&at)).unwrap(), OUTSIDE);
        assert!(reaches("one", published) && ask(&format!("{v4}:80")).is_some());
        // Other networks are what they were.
        sleeper(world, "mate", &["--network", "together"]);
        assert!(reaches("mate", format!("{}:80", address(world, "together", "late"))));
        world.strake(["restart", "-t", "0", "two"]).ok();
        serve_tcp(world, "two", 80);
        are_apart(&["one", "two"]);
        world.strake(["rm", "-f", "one", "two", "late", "mate"]).ok();
        nothing_is_left();
    });
}
