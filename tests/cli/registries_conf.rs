//! `registries.conf` and mirrors: where images are looked for, what is refused, what short names mean. Seen from registries that note what they are asked.

use std::path::PathBuf;
use std::process::{Child, Stdio};

use crate::common::faulty::{Act, Faulty, error};
use crate::common::web::{Reply, Web};
use crate::common::{Run, World, able};

/// A registry with `app:1`, whatever its repository is called.
fn registry() -> Faulty {
    let (world, faulty) = (World::new(), Faulty::start());
    world.write("file", "content").build("FROM scratch\nCOPY file /\n", &["-t", &faulty.name("app:1"), "--push"]).ok();
    faulty.mend();
    faulty
}

/// A command with a file of the user.
fn with(world: &World, conf: &str, args: &[&str]) -> Run {
    let path = world.path("home/.config/containers/registries.conf");
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, conf).unwrap();
    world.strake(args)
}

/// The repositories whose manifests were asked for.
fn asked(faulty: &Faulty) -> Vec<String> {
    let repository = |path: &str| path.strip_prefix("/v2/")?.split_once("/manifests/").map(|(name, _)| name.to_owned());
    faulty.log().iter().filter_map(|request| repository(&request.path)).collect()
}

#[test]
fn mirrors_come_first_and_the_name_stays() {
    if !able(&[]) {
        return;
    }
    let (good, empty) = (registry(), Faulty::start());
    let conf = format!(
        "[[registry]]\nprefix = \"example.test/acme\"\nlocation = \"{}/real\"\n[[registry.mirror]]\nlocation = \"{}/copy\"\n",
        good.address(),
        empty.address()
    );
    let world = World::new();
    let done = with(&world, &conf, &["pull", "example.test/acme/app:1"]).ok();
    assert_eq!((asked(&empty), asked(&good)), (vec!["copy/app".to_owned()], vec!["real/app".to_owned()]));
    done.omits(&["warning"]);
    assert!(world.strake(["images"]).ok().stdout.contains("example.test/acme/app"));
    world.strake(["validate", "example.test/acme/app:1"]).ok();
    // A mirror that fails is told of, and does no harm; one that works is asked alone, for blobs too.
    for fault in [503, 401] {
        empty.set(move |_, _| Some(Act::Reply(error(fault, "DENIED", "not today").with("Retry-After", "0"))));
        with(&World::new(), &conf, &["pull", "example.test/acme/app:1"]).ok().says(&["warning", "not today", "real"]);
    }
    let full = good.copy();
    let conf = conf.replace(empty.address(), full.address());
    good.mend();
    with(&World::new(), &conf, &["pull", "example.test/acme/app:1"]).ok();
    assert_eq!(good.log().len(), 0);
    // Nothing answers at the mirror.
    let conf = conf.replace(full.address(), "127.0.0.1:1");
    with(&World::new(), &conf, &["pull", "example.test/acme/app:1"]).ok().says(&["127.0.0.1:1"]);
    // Other commands read there too; a push goes to the name itself.
    assert_eq!(with(&world, &conf, &["ls", "example.test/other/app"]).fails().code, 1);
    with(&world, &conf, &["digest", "example.test/acme/app:1"]).ok();
    good.mend();
    with(&world, &conf, &["push", "example.test/acme/app:1"]).fails().says(&["https://example.test/"]);
    assert_eq!(good.log().len(), 0);
}

#[test]
fn what_is_blocked_is_asked_for_nowhere() {
    if !able(&[]) {
        return;
    }
    let (world, good) = (World::new(), registry());
    let conf = format!("[[registry]]\nlocation = \"{}/bad\"\nblocked = true\n", good.address());
    for command in ["pull", "digest", "ls"] {
        let name = good.name(if command == "ls" { "bad/app" } else { "bad/app:1" });
        with(&world, &conf, &[command, &name]).fails().says(&["is blocked", "registries.conf"]);
    }
    assert_eq!(good.log().len(), 0);
    with(&world, &conf, &["pull", &good.name("fine/app:1")]).ok();
    world.strake(["tag", &good.name("fine/app:1"), &good.name("bad/app:1")]).ok();
    with(&world, &conf, &["push", &good.name("bad/app:1")]).fails().says(&["is blocked"]);
}

#[test]
fn short_names_are_looked_for_where_the_file_says() {
    if !able(&[]) {
        return;
    }
    let (good, empty) = (registry(), Faulty::start());
    let search = format!("unqualified-search-registries = [\"{}\", \"{}\"]\n", empty.address(), good.address());
    let world = World::new();
    let done = with(&world, &search, &["pull", "app:1"]).ok();
    assert_eq!(done.stdout.lines().last(), Some(good.name("app:1").as_str()));
    assert_eq!((asked(&empty), asked(&good)[0].as_str()), (vec!["app".to_owned()], "app"));
    // It is the same image by its short name.
    world.strake(["inspect", "app:1"]).ok();
    good.mend();
    world.build("FROM app:1\nCOPY file /other\n", &[]).fails();
    world.write("file", "x").build("FROM app:1\nCOPY file /other\n", &[]).ok();
    assert_eq!(good.log().len(), 0, "the base is here");
    assert!(world.strake(["rmi", "app:1"]).ok().stdout.contains(&good.name("app:1")));
    // Builds find it, too.
    let other = World::new();
    with(&other, &search, &["images"]).ok();
    other.write("file", "x").build("FROM app:1\nCOPY file /other\n", &[]).ok();
    // More than one registry, and nobody may guess.
    let enforcing = format!("short-name-mode = \"enforcing\"\n{search}");
    with(&World::new(), &enforcing, &["pull", "app:1"]).fails().says(&["`app`", "enforcing", good.address()]);
    let alias = format!("{enforcing}[aliases]\n\"short\" = \"{}/long/app\"\n", good.address());
    let done = with(&World::new(), &alias, &["pull", "short:1"]).ok();
    assert_eq!(done.stdout.lines().last(), Some(good.name("long/app:1").as_str()));
    // A name with a registry is what it is.
    with(&World::new(), &search, &["pull", "127.0.0.1:1/app:1"]).fails().says(&["127.0.0.1:1"]);
}

#[test]
fn files_are_named_with_the_line_that_is_wrong() {
    if !able(&[]) {
        return;
    }
    let (world, good) = (World::new(), registry());
    let file = world.path("my.conf");
    std::fs::write(&file, "[[registry]]\nlocation = \"a.test\"\nblocked = \"yes\"\n").unwrap();
    let pull = || world.strake(["pull", &good.name("app:1")]).env("CONTAINERS_REGISTRIES_CONF", &file);
    pull().fails().says(&["my.conf:3:"]);
    world.strake(["images"]).env("CONTAINERS_REGISTRIES_CONF", &file).ok();
    std::fs::write(&file, "").unwrap();
    pull().ok();
    std::fs::remove_file(&file).unwrap();
    pull().fails().says(&["my.conf"]);
    let config = world.path("config.toml");
    std::fs::write(&config, "[registry.\"docker.io\"]\nmirror = []\n").unwrap();
    world.strake(["pull", "app:1"]).env("STRAKE_CONFIG", &config).fails().says(&["config.toml:2"]);
}

#[test]
fn mirrors_of_docker_hub_are_in_our_own_settings_too() {
    if !able(&[]) {
        return;
    }
    let (world, good) = (World::new(), registry());
    let config = world.path("config.toml");
    std::fs::write(&config, format!("[registry.\"docker.io\"]\nmirrors = [\"{}/hub\"]\n", good.address())).unwrap();
    world.strake(["pull", "app:1"]).env("STRAKE_CONFIG", &config).ok();
    assert_eq!(asked(&good), ["hub/library/app"]);
    assert!(world.strake(["images"]).ok().stdout.starts_with("REPOSITORY"));
    world.strake(["inspect", "docker.io/library/app:1"]).ok();
}

/// A registry of ours that speaks TLS with a certificate that nobody knows.
struct Tls {
    child: Child,
    address: String,
    certificate: PathBuf,
}

impl Tls {
    fn start(world: &World) -> Tls {
        let (certificate, key) = (world.path("server.crt"), world.path("server.key"));
        let request = "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=registry -addext subjectAltName=IP:127.0.0.1";
        Run::new("openssl", request.split(' ')).arg("-keyout").arg(&key).arg("-out").arg(&certificate).ok();
        let mut run = world.strake(["registry", "serve", "--addr", "127.0.0.1:0", "--storage", "tls-storage"]);
        run = run.arg("--tls-cert").arg(&certificate).arg("--tls-key").arg(&key);
        let mut child = run.command().stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut line = String::new();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(child.stdout.take().unwrap()), &mut line).unwrap();
        let address = line.trim().rsplit('/').next().unwrap().to_owned();
        Tls { child, address, certificate }
    }
}

impl Drop for Tls {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn an_insecure_registry_needs_no_certificate_and_no_tls_and_others_do() {
    if !able(&["openssl"]) {
        return;
    }
    let (world, plain) = (World::new(), registry());
    let tls = Tls::start(&world);
    with(&world, "", &["pull", &plain.name("app:1")]).ok();
    let name = format!("{}/trusted/app:1", tls.address);
    world.strake(["tag", &plain.name("app:1"), &name]).ok();
    world.strake(["push", &name]).fails().says(&["TLS"]);
    let conf = |place: &str| format!("[[registry]]\nlocation = \"{place}\"\ninsecure = true\n");
    with(&world, &conf(&format!("{}/other", tls.address)), &["push", &name]).fails().says(&["TLS"]);
    with(&world, &conf(&format!("{}/trusted", tls.address)), &["push", &name]).ok();
    with(&world, &conf(plain.address()), &["pull", &plain.name("app:1")]).ok();
    // By its own certificate: in a folder of the user, and in our settings.
    let folder = world.path("home/.config/containers/certs.d").join(&tls.address);
    std::fs::create_dir_all(&folder).unwrap();
    with(&world, "", &["digest", &name]).fails();
    std::fs::copy(&tls.certificate, folder.join("ca.crt")).unwrap();
    world.strake(["digest", &name]).ok();
    std::fs::remove_file(folder.join("ca.crt")).unwrap();
    let config = world.path("config.toml");
    std::fs::write(&config, format!("[registry.\"{}\"]\nca = [\"{}\"]\n", tls.address, tls.certificate.display())).unwrap();
    world.strake(["digest", &name]).env("STRAKE_CONFIG", &config).ok();
}

#[test]
fn proxies_are_asked_for_what_is_not_this_machine() {
    if !able(&[]) {
        return;
    }
    let good = registry();
    let image = good.clone();
    let proxy = Web::start(move |request| match request.header("proxy-authorization") {
        "Basic dXNlcjpwcm94eS1wYXNz" => {
            Reply::new(200, image.manifest("1").unwrap()).with("Content-Type", "application/vnd.oci.image.manifest.v1+json")
        }
        _ => Reply::new(407, "who are you"),
    });
    let world = World::new();
    let run = |user: &str, direct: &str| {
        let url = format!("http://{user}@127.0.0.1:{}", proxy.port);
        let run = world.strake(["--plain-http", "*", "manifest", "registry.invalid:5000/app:1"]);
        run.env("http_proxy", url).env("NO_PROXY", direct).env("STRAKE_CONFIG", config(&world))
    };
    run("user:proxy-pass", "").ok();
    assert!(proxy.take().iter().all(|request| request.path.starts_with("http://registry.invalid:5000/v2/")));
    run("user:wrong-pass", "other.invalid,registry.invalid:443").fails().says(&["407"]).omits(&["wrong-pass"]);
    proxy.take();
    for direct in ["registry.invalid", "*.invalid", ".invalid:5000", "*"] {
        run("user:proxy-pass", direct).fails();
        assert_eq!(proxy.take().len(), 0, "{direct}");
    }
    // This machine needs no exception.
    world.strake(["manifest", &good.name("app:1")]).env("http_proxy", "http://127.0.0.1:1").ok();
    world
        .strake(["manifest", &good.name("app:1")])
        .env("HTTP_PROXY", "socks5://user:proxy-pass@x")
        .fails()
        .says(&["proxy"])
        .omits(&["proxy-pass"]);
}

/// Settings that give up soon.
fn config(world: &World) -> PathBuf {
    let path = world.path("quick.toml");
    std::fs::write(&path, "[transfer]\nattempts = 1\n").unwrap();
    path
}

#[test]
fn a_registry_without_referrers_keeps_them_under_a_tag_until_they_are_deleted() {
    if !able(&[]) {
        return;
    }
    let (world, good) = (World::new(), registry());
    let about = good.manifest("1").unwrap();
    let subject = sha256(&about);
    let mut signature: serde_json::Value = serde_json::from_slice(&about).unwrap();
    let kind = "application/vnd.oci.image.manifest.v1+json";
    signature["artifactType"] = "application/x.signature".into();
    signature["subject"] = serde_json::json!({ "mediaType": kind, "digest": subject, "size": about.len() });
    let signed = good.put_manifest("signature", kind, signature.to_string().as_bytes());
    // As a copy of its own, and as an image that was pulled.
    for command in [vec!["copy"], vec!["pull", "push"]] {
        let to = Faulty::start();
        if command == ["copy"] {
            world
                .strake(["copy", &format!("docker://{}", good.name("app:signature")), &format!("docker://{}", to.name("app:signature"))])
                .ok();
        } else {
            world.strake(["pull", &good.name("app:signature")]).ok();
            world.strake(["tag", &good.name("app:signature"), &to.name("app:signature")]).ok();
            world.strake(["push", &to.name("app:signature")]).ok();
        }
        let tag = subject.replace(':', "-");
        let listed = |to: &Faulty| -> Vec<(String, String)> {
            let index: serde_json::Value = serde_json::from_slice(&to.manifest(&tag).unwrap()).unwrap();
            let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
            index["manifests"].as_array().unwrap().iter().map(|entry| (text(&entry["digest"]), text(&entry["artifactType"]))).collect()
        };
        assert_eq!(listed(&to), [(signed.clone(), "application/x.signature".to_owned())], "{command:?}");
        to.set(|request, _| (request.method == "DELETE").then(|| Act::Reply(Reply::new(202, ""))));
        world.strake(["delete", &to.name(&format!("app@{signed}"))]).ok();
        assert_eq!(listed(&to), [], "{command:?}");
    }
}

fn sha256(bytes: &[u8]) -> String {
    use sha2::Digest as _;
    format!("sha256:{}", crate::common::hex(&sha2::Sha256::digest(bytes)))
}
