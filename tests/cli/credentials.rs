//! Whose credentials a registry gets: which file goes first, where a login is kept, what a logout leaves. Seen from a registry that takes any user and notes who came.

use std::os::unix::fs::PermissionsExt as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::common::faulty::{Act, Faulty, error};
use crate::common::{Run, World, able};

/// A registry with `app:1` that asks everybody who they are.
fn asking() -> Faulty {
    let (world, faulty) = (World::new(), Faulty::start());
    world.build("FROM scratch\nCOPY Dockerfile /\n", &["-q", "-t", &faulty.name("app:1"), "--push"]).ok();
    again(&faulty);
    faulty
}

/// Forgets who came.
fn again(faulty: &Faulty) {
    faulty.set(|request, _| {
        let refusal = || error(401, "UNAUTHORIZED", "who are you").with("WWW-Authenticate", "Basic realm=\"x\"");
        request.header("authorization").is_empty().then(|| Act::Reply(refusal()))
    });
}

/// Who came last.
fn user(faulty: &Faulty) -> String {
    let mut users = faulty.log().into_iter().filter_map(|request| {
        let pair = STANDARD.decode(request.header("authorization").strip_prefix("Basic ")?).unwrap();
        Some(String::from_utf8(pair).unwrap().split(':').next().unwrap().to_owned())
    });
    users.next_back().unwrap_or_default()
}

fn write(path: &std::path::Path, faulty: &Faulty, user: &str) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let auth = STANDARD.encode(format!("{user}:secret"));
    std::fs::write(path, format!(r#"{{"auths":{{"{}":{{"auth":"{auth}"}}}}}}"#, faulty.address())).unwrap();
}

#[test]
fn the_file_that_is_asked_for_goes_first_and_keeps_the_logins() {
    if !able(&[]) {
        return;
    }
    let (world, faulty) = (World::new(), asking());
    let (name, host) = (faulty.name("app:1"), faulty.address());
    let config = world.path("docker/config.json");
    let containers = world.path("home/.config/containers/auth.json");
    write(&containers, &faulty, "carol");
    let comes_as = |run: Run| {
        run.ok();
        user(&faulty)
    };
    let digest = || world.strake(["digest", &name]);
    assert_eq!(comes_as(digest()), "carol");
    write(&config, &faulty, "alice");
    assert_eq!(comes_as(digest()), "alice");
    write(&world.path("asked.json"), &faulty, "ci");
    write(&world.path("flag.json"), &faulty, "flag");
    let asked = |run: Run| run.env("REGISTRY_AUTH_FILE", world.path("asked.json"));
    assert_eq!(comes_as(asked(digest())), "ci");
    assert_eq!(comes_as(asked(digest()).arg("--authfile").arg("flag.json")), "flag");
    digest().arg("--authfile").arg("missing.json").fails().says(&["missing.json"]);
    // A login goes there, a file that is not there yet is made, and nothing else changes.
    let login = |user: &str| world.strake(["login", "-u", user, "--password-stdin", host]).stdin("secret");
    let before = std::fs::read(&config).unwrap();
    asked(login("new")).ok();
    assert_eq!(comes_as(asked(digest())), "new");
    login("fresh").arg("--authfile").arg("made/auth.json").ok();
    assert_eq!(comes_as(digest().arg("--authfile").arg("made/auth.json")), "fresh");
    assert_eq!(std::fs::read(&config).unwrap(), before);
    let shown = |run: Run| run.ok().stdout;
    assert_eq!(shown(asked(world.strake(["login", "--get-login", host]))), "new\n");
    assert_eq!(shown(world.strake(["login", "--get-login", host])), "alice\n");
    world.strake(["login", "--get-login", "example.test"]).fails().says(&["not logged in to `example.test`"]);
    // A logout from that file alone says what is left; one from all files leaves nothing.
    let logout = || world.strake(["logout", host]);
    asked(logout()).ok().says(&[&config.display().to_string(), "still has credentials"]);
    assert_eq!(comes_as(asked(digest())), "alice");
    logout()
        .env("DOCKER_AUTH_CONFIG", std::fs::read_to_string(&config).unwrap())
        .ok()
        .says(&["DOCKER_AUTH_CONFIG", "still has credentials"]);
    digest().fails().says(&["401"]);
    assert_eq!(shown(logout()), format!("Not logged in to {host}\n"));
    // All registries at once.
    write(&config, &faulty, "alice");
    write(&containers, &faulty, "carol");
    assert_eq!(shown(world.strake(["logout", "--all"])), format!("Removing login credentials for {host}\n"));
    digest().fails().says(&["401"]);
}

#[test]
fn helpers_of_registries_conf_come_before_the_files_or_after_them_as_it_says() {
    if !able(&[]) {
        return;
    }
    let (world, faulty) = (World::new(), asking());
    let (name, host) = (faulty.name("app:1"), faulty.address());
    let helper = world.path("docker-credential-mine");
    let kept = world.path("kept.json");
    let script = format!(
        "#!/bin/sh\nread -r line\ncase $1 in\n  store) printf %s \"$line\" > {0};;\n  get) cat {0} 2>/dev/null || {{ echo 'credentials not found in native keychain'; exit 1; }};;\n  erase) rm {0};;\nesac\n",
        kept.display()
    );
    std::fs::write(&helper, script).unwrap();
    std::fs::set_permissions(&helper, std::fs::Permissions::from_mode(0o755)).unwrap();
    let run = |helpers: &str, args: &[&str]| {
        let conf = world.path("home/.config/containers/registries.conf");
        std::fs::create_dir_all(conf.parent().unwrap()).unwrap();
        std::fs::write(conf, format!("credential-helpers = {helpers}\n")).unwrap();
        world.strake(args).env("PATH", format!("{}:/usr/bin:/bin", helper.parent().unwrap().display()))
    };
    let login = |helpers: &str, user: &str| run(helpers, &["login", "-u", user, "--password-stdin", host]).stdin("secret").ok();
    let (first, last) = (r#"["mine", "containers-auth.json"]"#, r#"["containers-auth.json", "mine"]"#);
    login(first, "helped");
    assert!(std::fs::read_to_string(&kept).unwrap().contains("helped") && !world.path("docker/config.json").exists());
    let comes_as = |helpers: &str| {
        run(helpers, &["digest", &name]).ok();
        user(&faulty)
    };
    assert_eq!((comes_as(first), comes_as(last)), ("helped".to_owned(), "helped".to_owned()));
    login(last, "filed");
    assert_eq!((comes_as(first), comes_as(last)), ("helped".to_owned(), "filed".to_owned()));
    run(first, &["logout", host]).ok();
    run(last, &["digest", &name]).fails().says(&["401"]);
    assert!(!kept.exists());
    run(r#"["../mine"]"#, &["digest", &name]).fails().says(&["registries.conf:1", "cannot be the name of a credential helper"]);
}

#[test]
fn registries_get_the_headers_that_docker_passes_on_and_no_others() {
    if !able(&[]) {
        return;
    }
    let (world, faulty) = (World::new(), asking());
    faulty.mend();
    std::fs::write(world.path("docker/config.json"), r#"{"HttpHeaders":{"X-Meta-Team":"blue","X-Secret":"for the daemon"}}"#).unwrap();
    world.strake(["digest", &faulty.name("app:1")]).ok();
    let log = faulty.log();
    let asked: Vec<_> = log.iter().filter(|request| request.path.contains("/manifests/")).collect();
    assert!(!asked.is_empty() && asked.iter().all(|request| request.header("x-meta-team") == "blue"));
    assert!(log.iter().all(|request| request.header("x-secret").is_empty()));
}
