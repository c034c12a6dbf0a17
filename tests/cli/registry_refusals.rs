//! What is said when a registry refuses, and what can be done about it.

use std::os::unix::fs::PermissionsExt as _;

use crate::common::{Registry, Run, World, able};

#[test]
fn a_credential_helper_that_fails_is_named_where_the_registry_refuses() {
    if !able(&["docker-registry", "htpasswd"]) {
        return;
    }
    let (world, private, public) = (World::new(), Registry::with_password(), Registry::empty());
    let bin = world.path("bin");
    std::fs::create_dir(&bin).unwrap();
    for (name, script) in [
        ("bad", "echo keychain locked; exit 1"),
        ("loud", "echo keychain jammed >&2; exit 1"),
        ("empty", "echo credentials not found in native keychain; exit 1"),
    ] {
        let path = bin.join(format!("docker-credential-{name}"));
        std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    let path = format!("{}:/usr/bin:/bin", bin.display());
    let ask = |helper: &str, name: &str| {
        std::fs::write(world.path("docker/config.json"), format!(r#"{{"credsStore":"{helper}"}}"#)).unwrap();
        world.strake(["ls", name]).env("PATH", &path)
    };
    let name = private.name("x/y");
    ask("bad", &name).fails().says(&["401", "docker-credential-bad", "keychain locked"]);
    ask("loud", &name).fails().says(&["401", "docker-credential-loud", "keychain jammed"]);
    ask("missing", &name).fails().says(&["401", "docker-credential-missing", "not installed"]);
    // To know nothing of a registry is no failure.
    ask("empty", &name).fails().says(&["401", "strake login"]).omits(&["docker-credential", "keychain"]);
    // Nobody needs a helper at a registry that is open to all.
    world.build("FROM scratch\nCOPY Dockerfile /\n", &["-q", "-t", &public.name("x/y:1")]).ok();
    world.strake(["push", "-q", &public.name("x/y:1")]).ok();
    for helper in ["bad", "missing"] {
        assert_eq!(ask(helper, &public.name("x/y")).ok().stdout, "1\n");
    }
}

#[test]
fn a_tag_that_cannot_be_deleted_is_told_by_its_digest() {
    if !able(&["docker-registry"]) {
        return;
    }
    let (world, registry) = (World::new(), Registry::empty());
    let name = registry.name("app:1");
    world.build("FROM scratch\nCOPY Dockerfile /\n", &["-q", "--push", "-t", &name]).ok();
    let digest = world.strake(["digest", &name]).ok().stdout;
    let by_digest = registry.name(&format!("app@{}", digest.trim()));
    world.strake(["delete", &name]).fails().says(&[&format!("`strake delete {by_digest}`"), "all tags of that manifest"]);
    world.strake(["digest", &name]).ok();
    world.strake(["delete", &by_digest]).ok();
    world.strake(["digest", &name]).fails();
}

#[test]
fn referrers_are_not_lost_where_the_destination_keeps_none() {
    if !able(&["docker-registry"]) {
        return;
    }
    let (world, registry) = (World::new(), Registry::empty());
    let name = registry.name("app:1");
    world.build("FROM scratch\nCOPY Dockerfile /\n", &["-q", "--push", "-t", &name]).ok();
    for to in ["store:app:1", "docker-archive:a.tar"] {
        world.strake(["copy", "--referrers", &name, to]).fails().says(&[to, "keeps no referrers"]);
        world.strake(["copy", &name, to]).ok();
    }
    world.strake(["copy", "--referrers", &name, "oci-archive:b.tar"]).ok();
}

/// People pin images by digests: no command may put another image behind one.
#[test]
fn a_digest_names_what_has_it_and_nothing_else() {
    if !able(&["docker-registry"]) {
        return;
    }
    let (world, registry) = (World::new(), Registry::empty());
    let (one, two) = (registry.name("one:1"), registry.name("two:1"));
    world.build("FROM scratch\nCOPY Dockerfile /\n", &["-q", "--push", "-t", &one]).ok();
    world.build("FROM scratch\nCOPY Dockerfile /other\n", &["-q", "--push", "-t", &two]).ok();
    let digest = |name: &str| world.strake(["digest", name]).ok().stdout.trim().to_owned();
    let (first, second) = (digest(&one), digest(&two));
    for to in [registry.name(&format!("three@{second}")), format!("store:three@{second}")] {
        world.strake(["copy", &one, &to]).fails().says(&[&first, "cannot be called"]);
    }
    world.strake(["digest", &registry.name(&format!("three@{second}"))]).fails();
    world.strake(["inspect", &format!("three@{second}")]).fails();
    world.strake(["copy", &one, &format!("store:three@{first}")]).ok();
    // A registry is asked for what it was not known to have, also where the bytes are here.
    world.strake(["pull", &registry.name(&format!("nowhere@{first}"))]).fails().says(&["404"]);
    world.build(&format!("FROM {}\nLABEL a=b\n", registry.name(&format!("nowhere@{first}"))), &[]).fails().says(&["404"]);
    let pinned = registry.name(&format!("one@{first}"));
    world.strake(["pull", &pinned]).ok();
    drop(registry);
    // From then on nobody needs it.
    world.build(&format!("FROM {pinned}\nLABEL a=b\n"), &[]).ok();
}

#[test]
fn an_archive_cannot_put_its_image_behind_a_digest_or_an_id() {
    if !able(&["docker-registry", "tar"]) {
        return;
    }
    let (world, registry) = (World::new(), Registry::empty());
    let name = registry.name("app:1");
    world.build("FROM scratch\nCOPY Dockerfile /\n", &["-q", "--push", "-t", &name]).ok();
    let id = |name: &str| world.strake(["inspect", "-f", "{{.Id}}", name]).ok().stdout.trim().to_owned();
    let pinned = registry.name(&format!("app@{}", world.strake(["digest", &name]).ok().stdout.trim()));
    world.strake(["pull", "-q", &pinned]).ok();
    let (true_id, attacker) = (id(&pinned), World::new());
    for known in [true_id.as_str(), "sha256:abc", "sha512:abc"] {
        world.strake(["tag", &name, known]).fails().says(&["taken for an ID"]);
        world.strake(["build", "-q", "-t", known, "-"]).stdin("FROM scratch\nLABEL a=b\n").fails().says(&["taken for an ID"]);
    }
    attacker.build("FROM scratch\nCOPY Dockerfile /evil\n", &["-q", "-t", "evil:1"]).ok();
    attacker.strake(["save", "-o", "evil.tar", "evil:1"]).ok();
    std::fs::create_dir(attacker.path("open")).unwrap();
    Run::new("tar", ["-xf", "evil.tar", "-C", "open"]).dir(attacker.path("")).ok();
    let manifest = std::fs::read_to_string(attacker.path("open/manifest.json")).unwrap();
    for poison in [pinned.clone(), pinned.replace("app@", "app:1@"), true_id.clone()] {
        std::fs::write(attacker.path("open/manifest.json"), manifest.replace("evil:1", &poison)).unwrap();
        Run::new("tar", ["-cf", "poison.tar", "-C", "open", "."]).dir(attacker.path("")).ok();
        let archive = attacker.path("poison.tar");
        for target in [&world, &World::new()] {
            target.strake(["load", "-i", archive.to_str().unwrap()]).fails();
            target.strake(["inspect", &format!("evil:{}", &poison[poison.len() - 8..])]).fails();
            target.strake(["system", "check"]).ok();
        }
        assert_eq!((id(&pinned), id(&true_id)), (true_id.clone(), true_id.clone()), "{poison}");
    }
}
