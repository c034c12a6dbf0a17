//! Registries with TLS: certificates that they ask for, and proxies that tunnel to them.

use std::io::{BufRead, BufReader, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use crate::common::{Registry, Run, World, able};

/// A certificate for the registry of these tests and its key.
pub(crate) struct Certificate {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
}

/// Makes one that signs itself.
pub(crate) fn certificate(world: &World, name: &str) -> Certificate {
    let (certificate, key) = (world.path(&format!("{name}.crt")), world.path(&format!("{name}.key")));
    let request = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2", "-subj"];
    let names = "subjectAltName=IP:127.0.0.1,DNS:registry.invalid";
    Run::new("openssl", request)
        .arg(format!("/CN={name}"))
        .arg("-addext")
        .arg(names)
        .arg("-keyout")
        .arg(&key)
        .arg("-out")
        .arg(&certificate)
        .ok();
    Certificate { certificate, key }
}

/// Makes the folder of `certs.d` for a host, with copies of these files.
fn trust(world: &World, host: &str, files: &[(&str, &PathBuf)]) -> PathBuf {
    let folder = world.path("home").join(".config/docker/certs.d").join(host);
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).unwrap();
    for (name, file) in files {
        std::fs::copy(file, folder.join(name)).unwrap();
    }
    folder
}

#[test]
fn copy_and_login_take_any_certificate_of_the_registry_that_a_flag_is_about() {
    if !able(&["docker-registry", "openssl"]) {
        return;
    }
    let world = World::new();
    let server = certificate(&world, "server");
    let registry = Registry::with_certificates(&server.certificate, &server.key, None);
    let name = registry.name("app:1");
    world.build("FROM scratch\nCOPY Dockerfile /\n", &["-q", "-t", "app:1"]).ok();
    let run = |args: &[&str]| world.strake(args).env("STRAKE_CONFIG", quick(&world));
    run(&["copy", "store:app:1", &name]).fails().says(&["certificate"]);
    run(&["copy", "--src-tls-verify=false", "store:app:1", &name]).fails().says(&["certificate"]);
    run(&["copy", "--dest-tls-verify=false", "store:app:1", &name]).ok();
    run(&["copy", &name, "oci:copy"]).fails().says(&["certificate"]);
    run(&["copy", "--src-tls-verify=false", &name, "oci:copy"]).ok();
    let login = |flag: &[&str]| run(&["login", "-u", "tester", "--password-stdin"]).arg_all(flag).arg(registry.host()).stdin("x");
    login(&[]).fails().says(&["certificate"]);
    login(&["--tls-verify=true"]).fails().says(&["certificate"]);
    login(&["--tls-verify=false"]).ok();
}

#[test]
fn a_folder_of_certificates_that_a_flag_names_is_for_that_registry() {
    if !able(&["docker-registry", "openssl"]) {
        return;
    }
    let world = World::new();
    let (server, client) = (certificate(&world, "server"), certificate(&world, "client"));
    let registry = Registry::with_certificates(&server.certificate, &server.key, Some(&client.certificate));
    let name = registry.name("app:1");
    world.build("FROM scratch\nCOPY Dockerfile /\n", &["-q", "-t", "app:1"]).ok();
    let run = |args: &[&str]| world.strake(args).env("STRAKE_CONFIG", quick(&world));
    std::fs::create_dir(world.path("certs")).unwrap();
    std::fs::copy(&server.certificate, world.path("certs/ca.crt")).unwrap();
    run(&["copy", "store:app:1", &name]).fails().says(&["certificate"]);
    // It asks who we are, too.
    run(&["copy", "--dest-cert-dir", "certs", "store:app:1", &name]).fails().says(&["certificate"]);
    std::fs::copy(&client.certificate, world.path("certs/us.cert")).unwrap();
    std::fs::copy(&client.key, world.path("certs/us.key")).unwrap();
    run(&["copy", "--dest-cert-dir", "certs", "store:app:1", &name]).ok();
    run(&["copy", "--src-cert-dir", "certs", &name, "oci:copy"]).ok();
    for args in [&["manifest", &name][..], &["catalog", registry.host()], &["inspect", "--remote", &name]] {
        run(args).fails().says(&["certificate"]);
        run(args).arg_all(&["--cert-dir", "certs"]).ok();
    }
    run(&["digest", "--cert-dir", "nowhere", &name]).fails().says(&["nowhere"]);
}

#[test]
fn a_certificate_that_the_system_trusts_itself_is_believed_for_its_names_only() {
    if !able(&["docker-registry", "openssl"]) {
        return;
    }
    let world = World::new();
    let (server, other) = (certificate(&world, "server"), certificate(&world, "other"));
    let registry = Registry::with_certificates(&server.certificate, &server.key, None);
    let name = registry.name("app:1");
    world.build("FROM scratch\nCOPY Dockerfile /\n", &["-q", "-t", &name]).ok();
    let push = |name: &str, trusted: &PathBuf| {
        world.strake(["push", "-q", name]).env("STRAKE_CONFIG", quick(&world)).env("SSL_CERT_FILE", trusted)
    };
    push(&name, &other.certificate).fails().says(&["certificate"]);
    push(&name, &server.certificate).ok();
    // It is for 127.0.0.1, and not for every name of this machine.
    let elsewhere = name.replace("127.0.0.1", "localhost");
    world.strake(["tag", &name, &elsewhere]).ok();
    push(&elsewhere, &server.certificate).fails().says(&["certificate"]);
}

#[test]
fn a_registry_that_asks_who_we_are_is_shown_the_certificate_for_it() {
    if !able(&["docker-registry", "openssl"]) {
        return;
    }
    let world = World::new();
    let (server, ours, other) = (certificate(&world, "server"), certificate(&world, "ours"), certificate(&world, "other"));
    let registry = Registry::with_certificates(&server.certificate, &server.key, Some(&ours.certificate));
    let name = registry.name("app:1");
    world.build("FROM scratch\nCOPY Dockerfile /\n", &["-q", "-t", &name]).ok();
    let push = || world.strake(["push", "-q", &name]).env("STRAKE_CONFIG", quick(&world));
    // The server is not known; then it is, and does not know us, or takes us for somebody else.
    push().fails().says(&["certificate", &format!("certs.d/{}/ca.crt", registry.host())]);
    let ca = ("ca.crt", &server.certificate);
    trust(&world, registry.host(), &[ca]);
    let hint = format!("certs.d/{}/client.cert", registry.host());
    push().fails().says(&["asks for a client certificate", &hint]);
    trust(&world, registry.host(), &[ca, ("client.cert", &other.certificate), ("client.key", &other.key)]);
    push().fails().says(&["asks for a client certificate", &hint]);
    // Files that do not go together are named.
    let folder = trust(&world, registry.host(), &[ca, ("client.cert", &ours.certificate)]);
    push().fails().says(&[folder.join("client.key").to_str().unwrap()]);
    trust(&world, registry.host(), &[ca, ("client.cert", &ours.certificate), ("client.key", &other.key)]);
    push().fails().says(&["client certificate"]);
    trust(&world, registry.host(), &[ca, ("client.cert", &ours.certificate), ("client.key", &ours.key)]);
    push().ok();
    let reader = World::new();
    reader.strake(["pull", "-q", &name]).env("HOME", world.path("home")).ok();
    assert!(registry.storage().join("docker/registry/v2/repositories/app").is_dir());
}

/// Settings that give up soon.
fn quick(world: &World) -> PathBuf {
    let path = world.path("quick.toml");
    std::fs::write(&path, "[transfer]\nattempts = 1\n").unwrap();
    path
}

/// A proxy that connects whoever has the password to `to`, wherever they want to go. Gives its port, and what it was asked.
fn tunnel(to: String) -> (u16, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (port, asked) = (listener.local_addr().unwrap().port(), Arc::new(Mutex::new(Vec::new())));
    let log = asked.clone();
    std::thread::spawn(move || {
        for mut client in listener.incoming().flatten() {
            let (to, log) = (to.clone(), log.clone());
            std::thread::spawn(move || {
                let mut head = Vec::new();
                let mut lines = BufReader::new(client.try_clone().unwrap());
                loop {
                    let mut line = String::new();
                    if lines.read_line(&mut line).unwrap_or(0) == 0 || line == "\r\n" {
                        break;
                    }
                    head.push(line.trim_end().to_owned());
                }
                // A connection that was opened ahead and not used says nothing.
                let Some(first) = head.first() else { return };
                log.lock().unwrap().push(first.clone());
                if !head.iter().any(|line| line.eq_ignore_ascii_case("proxy-authorization: Basic dXNlcjpwcm94eS1wYXNz")) {
                    let _ = client.write_all(b"HTTP/1.1 407 who are you\r\nContent-Length: 0\r\n\r\n");
                    return;
                }
                client.write_all(b"HTTP/1.1 200 go on\r\n\r\n").unwrap();
                // What TLS begins with comes after our answer, so nothing is left in the reader.
                let server = TcpStream::connect(to).unwrap();
                let (mut from, mut into) = (client.try_clone().unwrap(), server.try_clone().unwrap());
                std::thread::spawn(move || {
                    let _ = std::io::copy(&mut from, &mut into);
                    let _ = into.shutdown(Shutdown::Write);
                });
                let _ = std::io::copy(&mut { server }, &mut client);
                let _ = client.shutdown(Shutdown::Write);
            });
        }
    });
    (port, asked)
}

#[test]
fn a_registry_behind_a_proxy_is_reached_through_a_tunnel() {
    if !able(&["docker-registry", "openssl"]) {
        return;
    }
    let world = World::new();
    let server = certificate(&world, "server");
    let registry = Registry::with_certificates(&server.certificate, &server.key, None);
    let (proxy, asked) = tunnel(registry.host().to_owned());
    trust(&world, "registry.invalid:5443", &[("ca.crt", &server.certificate)]);
    let name = "registry.invalid:5443/app:1";
    world.build("FROM scratch\nCOPY Dockerfile /\n", &["-q", "-t", name]).ok();
    let push = |user: &str| {
        let url = format!("http://{user}@127.0.0.1:{proxy}");
        world.strake(["push", "-q", name]).env("HTTPS_PROXY", url).env("STRAKE_CONFIG", quick(&world))
    };
    push("user:wrong-pass").fails().says(&["registry.invalid:5443"]).omits(&["wrong-pass"]);
    push("user:proxy-pass").ok();
    let asked = std::mem::take(&mut *asked.lock().unwrap());
    assert!(!asked.is_empty() && asked.iter().all(|line| line == "CONNECT registry.invalid:5443 HTTP/1.1"), "{asked:?}");
    assert!(registry.storage().join("docker/registry/v2/repositories/app").is_dir());
    // The proxy is trusted with nothing: without the registry's certificate there is no connection.
    trust(&world, "registry.invalid:5443", &[]);
    push("user:proxy-pass").fails().says(&["certificate"]);
}
