//! The rarer keys of `--output`: names with digests, registries without proper certificates, and how files lie in a directory.

use serde_json::Value;

use crate::common::{Registry, Run, World, able};
use crate::tls::certificate;

/// A build of one file that needs no sandbox.
fn world() -> World {
    let world = World::new();
    world.write("f", "one\n").write("Dockerfile", "FROM scratch\nCOPY f /d/f\n");
    world
}

/// Builds with this output; gives what the metadata say.
#[track_caller]
fn built(world: &World, args: &[&str]) -> Value {
    let meta = world.path("meta.json");
    world.build_as_it_is(&[args, &["--metadata-file", meta.to_str().unwrap()]].concat()).ok();
    serde_json::from_slice(&std::fs::read(meta).unwrap()).unwrap()
}

fn digest(meta: &Value) -> &str {
    meta["containerimage.digest"].as_str().unwrap()
}

#[test]
fn a_canonical_name_is_one_more_name_that_stays_when_the_tag_goes() {
    if !able(&[]) {
        return;
    }
    let world = world();
    let meta = built(&world, &["-t", "n:1", "-o", "type=image,name-canonical=true"]);
    assert_eq!(meta["image.name"], "docker.io/library/n:1");
    let name = format!("n@{}", digest(&meta));
    world.strake(["rmi", "n:1"]).ok();
    let repository: Value = serde_json::from_str(&world.strake(["inspect", &name]).ok().stdout).unwrap();
    assert_eq!(repository[0]["RepoTags"], serde_json::json!([]));
    // Without the key there is nothing of the kind.
    let meta = built(&world, &["-t", "other:1", "-o", "type=image,name-canonical=false"]);
    world.strake(["tag", "other:1", "kept:1"]).ok();
    world.strake(["rmi", "other:1"]).ok();
    world.strake(["inspect", &format!("other@{}", digest(&meta))]).fails();
}

#[test]
fn several_machines_push_by_digest_under_canonical_names() {
    if !able(&["docker-registry", "skopeo"]) {
        return;
    }
    let (world, registry) = (world(), Registry::empty());
    let spec = format!("type=image,name={},push-by-digest=true,name-canonical=true,push=true", registry.name("app"));
    let meta = built(&world, &["-o", &spec]);
    let name = format!("app@{}", digest(&meta));
    Run::new("skopeo", ["inspect", "--raw", "--tls-verify=false", &registry.url(&name)]).ok();
    Run::new("skopeo", ["inspect", "--raw", "--tls-verify=false", &registry.url("app:latest")]).fails();
    world.strake(["inspect", &registry.name(&name)]).ok();
}

#[test]
fn an_image_without_a_name_gets_one_of_its_prefix_and_digest() {
    if !able(&["docker-registry", "skopeo"]) {
        return;
    }
    let (world, registry) = (world(), Registry::empty());
    let meta = built(&world, &["-o", "type=image,dangling-name-prefix=acme/lost"]);
    let name = format!("acme/lost@{}", digest(&meta));
    assert_eq!(meta["image.name"], format!("docker.io/{name}"));
    world.strake(["inspect", &name]).ok();
    // Those that have a name keep to it.
    world.write("f", "two\n");
    let meta = built(&world, &["-t", "n:1", "-o", "type=image,dangling-name-prefix=acme/lost"]);
    assert_eq!(meta["image.name"], "docker.io/library/n:1");
    world.strake(["inspect", &format!("acme/lost@{}", digest(&meta))]).fails();
    // At a registry it is the same.
    let spec = format!("type=image,push=true,dangling-name-prefix={}", registry.name("lost"));
    let meta = built(&world, &["-o", &spec]);
    Run::new("skopeo", ["inspect", "--raw", "--tls-verify=false", &registry.url(&format!("lost@{}", digest(&meta)))]).ok();
}

#[test]
fn an_insecure_push_takes_any_certificate_and_only_where_it_is_asked_for() {
    if !able(&["docker-registry", "openssl"]) {
        return;
    }
    let world = world();
    let server = certificate(&world, "server");
    let registry = Registry::with_certificates(&server.certificate, &server.key, None);
    let push = |keys: &str| world.build_as_it_is(&["-o", &format!("type=registry,name={}{keys}", registry.name("app:1"))]);
    push("").fails().says(&["certificate"]);
    push(",registry.insecure=false").fails().says(&["certificate"]);
    let pushed = registry.storage().join("docker/registry/v2/repositories/app");
    assert!(!pushed.exists());
    push(",registry.insecure=true").ok();
    assert!(pushed.is_dir());
    // Plain HTTP is as good.
    let plain = Registry::empty();
    world.build_as_it_is(&["-o", &format!("type=registry,registry.insecure=true,name={}", plain.name("app:1"))]).ok();
    assert!(plain.storage().join("docker/registry/v2/repositories/app").is_dir());
}

#[test]
fn a_directory_is_emptied_of_what_is_not_exported_where_that_is_asked_for() {
    let world = world();
    let dir = world.path("out");
    let outside = world.path("outside");
    for (path, text) in
        [("outside/kept", "x"), ("out/old", "x"), ("out/d/old", "x"), ("out/d/f/was/a/directory", "x"), ("out/gone/x/y", "x")]
    {
        std::fs::create_dir_all(world.path(path).parent().unwrap()).unwrap();
        std::fs::write(world.path(path), text).unwrap();
    }
    std::os::unix::fs::symlink(&outside, dir.join("link")).unwrap();
    let names = |dir: &std::path::Path| {
        let mut names: Vec<_> = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    };
    let spec = |keys: &str| format!("type=local,dest={}{keys}", dir.display());
    world.build_as_it_is(&["-o", &spec(",mode=delete")]).ok();
    assert_eq!((names(&dir), names(&dir.join("d"))), (vec!["d".to_owned()], vec!["f".to_owned()]));
    assert_eq!(std::fs::read_to_string(dir.join("d/f")).unwrap(), "one\n");
    assert!(outside.join("kept").exists());
    // What is there stays with `copy`, as without the key.
    for keys in [",mode=copy", ""] {
        std::fs::write(dir.join("own"), "x").unwrap();
        world.build_as_it_is(&["-o", &spec(keys)]).ok();
        assert_eq!(names(&dir), ["d", "own"], "{keys}");
    }
    world.build_as_it_is(&["-o", "type=local,dest=/,mode=delete"]).fails().says(&["the whole file system"]).omits(&["COPY"]);
}

#[test]
fn files_lie_in_a_directory_of_their_platform_where_that_is_asked_for() {
    let world = world();
    let platform = format!("linux_{}", if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" });
    let (dir, tar) = (world.path("out"), world.path("out.tar"));
    std::fs::create_dir_all(dir.join("linux_other")).unwrap();
    let local = format!("type=local,platform-split=true,dest={}", dir.display());
    let archive = format!("type=tar,platform-split=true,dest={}", tar.display());
    world.build_as_it_is(&["-o", &local, "-o", &archive]).ok();
    assert_eq!(std::fs::read_to_string(dir.join(&platform).join("d/f")).unwrap(), "one\n");
    assert!(dir.join("linux_other").is_dir() && !dir.join("d").exists());
    let list = Run::new("tar", ["-tf".as_ref(), tar.as_os_str()]).ok().stdout;
    assert_eq!(list.lines().collect::<Vec<_>>(), [format!("{platform}/"), format!("{platform}/d/"), format!("{platform}/d/f")]);
    world.build_as_it_is(&["--platform", "linux/arm/v7", "-o", &format!("{local},mode=delete")]).ok();
    assert!(dir.join("linux_arm_v7/d/f").exists() && !dir.join(&platform).exists() && !dir.join("linux_other").exists());
    world.build_as_it_is(&["-o", &format!("type=local,platform-split=false,dest={}", dir.display())]).ok();
    assert!(dir.join("d/f").exists());
}

#[test]
fn keys_that_would_change_nothing_are_taken_and_others_refused() {
    let world = world();
    let nothing = "type=image,compatibility-version=30,prefer-nondist-layers=false,attestation-inline=0,oci-artifact=F";
    world.build_as_it_is(&["-o", nothing]).ok();
    for (spec, said) in [
        ("type=image,prefer-nondist-layers=true", "`prefer-nondist-layers=true` is not supported"),
        ("type=image,attestation-inline=true", "`attestation-inline=true` is not supported"),
        ("type=image,compatibility-version=10", "`compatibility-version=10` is not supported"),
        ("type=local,dest=x,mode=move", "`mode` is copy or delete"),
        ("type=oci,dest=x,name-canonical=true", "`name-canonical` is for images in the store and at registries"),
    ] {
        let done = world.build_as_it_is(&["-o", spec]).fails();
        assert_eq!(done.code, 2);
        done.says(&[said]);
    }
}
