//! `strake validate`: damage is found wherever it is, and named; what is whole is good.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::common::{Registry, Run, World, able, wait_for};

/// Changes one byte in the middle of a file.
fn damage(path: &Path) {
    let mut bytes = std::fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(path, bytes).unwrap();
}

/// Where the store, a layout or a registry keeps a blob. The store moves it there when it is durable, soon after the command that made it.
fn blob(dir: &Path, digest: &str) -> PathBuf {
    let hex = digest.strip_prefix("sha256:").unwrap();
    let known = [dir.join("blobs/sha256").join(hex), dir.join("docker/registry/v2/blobs/sha256").join(&hex[..2]).join(hex).join("data")];
    let mut found = None;
    wait_for(&format!("the blob {digest} in {}", dir.display()), 120, || {
        found = known.iter().find(|path| path.exists()).cloned();
        found.is_some()
    });
    found.unwrap()
}

#[test]
fn a_registrys_image_is_good_until_a_blob_is_damaged_or_gone() {
    if !able(&["docker-registry"]) {
        return;
    }
    let (world, registry) = (World::new(), Registry::empty());
    let name = registry.name("app:1");
    world.busybox();
    world.build("FROM localhost/busybox\nRUN echo one > /one\n", &["-t", &name, "--push"]).ok();
    let good = world.strake(["validate", "--remote", &name]).ok().stdout;
    assert!(good.contains(&name) && good.contains("good (1 manifest, 3 blobs"), "{good}");
    let manifest: Value = serde_json::from_str(&world.strake(["manifest", &name]).ok().stdout).unwrap();
    let digest = |at: usize| manifest["layers"][at]["digest"].as_str().unwrap().to_owned();
    damage(&blob(&registry.storage(), &digest(1)));
    let done = world.strake(["validate", "--remote", &name]).fails();
    assert!(done.stdout.contains("layer 2") && done.stdout.contains(&digest(1)), "{done}");
    assert!(!done.stdout.contains(&digest(0)), "{done}");
    done.says(&["damaged", &name]);
    // What --fast does not read, it cannot find.
    world.strake(["validate", "--remote", "--fast", &name]).ok();
    std::fs::remove_file(blob(&registry.storage(), &digest(0))).unwrap();
    let done = world.strake(["validate", "--fast", &format!("docker://{name}")]).fails();
    assert!(done.stdout.contains(&format!("layer 1 of linux/amd64 {}: it is missing", digest(0))), "{done}");
    let both = world.strake(["validate", "--remote", "--format", "json", &name]).fails().stdout;
    let both: Value = serde_json::from_str(&both).unwrap();
    let bad: Vec<&str> = both["Bad"].as_array().unwrap().iter().map(|bad| bad["Digest"].as_str().unwrap()).collect();
    assert_eq!((both["Good"].as_bool(), bad), (Some(false), vec![digest(0).as_str(), digest(1).as_str()]));
    world.strake(["validate", "--remote", &registry.name("nothing:1")]).fails().says(&["nothing:1", "404"]);
}

#[test]
fn a_layout_is_checked_with_what_its_layers_unpack_to() {
    if !able(&[]) {
        return;
    }
    let world = World::new();
    let dir = world.path("layout");
    let place = format!("oci:{}", dir.display());
    world.build("FROM scratch\nCOPY Dockerfile /\n", &["-o", &format!("type=oci,dest={},tar=false", dir.display())]).ok();
    world.strake(["validate", &place]).ok();
    // Another config with another diff ID, all of whose digests and sizes are right.
    let read = |path: &Path| -> Value { serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap() };
    let mut index = read(&dir.join("index.json"));
    let mut manifest = read(&blob(&dir, index["manifests"][0]["digest"].as_str().unwrap()));
    let mut config = read(&blob(&dir, manifest["config"]["digest"].as_str().unwrap()));
    config["rootfs"]["diff_ids"][0] = Value::from(format!("sha256:{}", "0".repeat(64)));
    let put = |value: &Value| {
        let bytes = value.to_string().into_bytes();
        let hex = crate::common::hex(&<sha2::Sha256 as sha2::Digest>::digest(&bytes));
        std::fs::write(dir.join("blobs/sha256").join(&hex), &bytes).unwrap();
        (Value::from(format!("sha256:{hex}")), Value::from(bytes.len()))
    };
    (manifest["config"]["digest"], manifest["config"]["size"]) = put(&config);
    (index["manifests"][0]["digest"], index["manifests"][0]["size"]) = put(&manifest);
    std::fs::write(dir.join("index.json"), index.to_string()).unwrap();
    let done = world.strake(["validate", &place]).fails();
    assert!(done.stdout.contains("layer 1") && done.stdout.contains("unpacked it hashes to"), "{done}");
    // A config of too many layers.
    config["rootfs"]["diff_ids"].as_array_mut().unwrap().push(Value::from(format!("sha256:{}", "1".repeat(64))));
    (manifest["config"]["digest"], manifest["config"]["size"]) = put(&config);
    (index["manifests"][0]["digest"], index["manifests"][0]["size"]) = put(&manifest);
    std::fs::write(dir.join("index.json"), index.to_string()).unwrap();
    let done = world.strake(["validate", &place]).fails();
    assert!(done.stdout.contains("1 layers, the config 2"), "{done}");
}

#[test]
fn an_archive_is_checked_where_it_is_in_both_of_its_forms() {
    if !able(&["docker-registry", "skopeo"]) {
        return;
    }
    let (world, registry) = (World::new(), Registry::empty());
    world.busybox();
    world.build("FROM localhost/busybox\nRUN echo one > /one\n", &["-t", &registry.name("app:1"), "--push"]).ok();
    let (saved, oci, old) = (world.path("saved.tar"), world.path("oci.tar"), world.path("old.tar"));
    world.strake(["save", "-o", saved.to_str().unwrap(), &registry.name("app:1")]).ok();
    world.strake(["copy", "-q", &registry.name("app:1"), &format!("oci-archive:{}", oci.display())]).ok();
    let to = format!("docker-archive:{}:acme/old:1", old.display());
    Run::new("skopeo", ["--insecure-policy", "copy", "-q", "--src-tls-verify=false", &registry.url("app:1"), &to]).ok();
    for file in [&saved, &oci, &old] {
        let good = world.strake(["validate", "--tarball", file.to_str().unwrap()]).ok().stdout;
        assert!(good.contains("good (1 manifest, 3 blobs"), "{good}");
        // A byte of the largest file, which is the first layer.
        let mut bytes = std::fs::read(file).unwrap();
        let entries: Vec<(u64, u64)> = {
            let mut archive = tar::Archive::new(bytes.as_slice());
            archive.entries().unwrap().map(|entry| entry.unwrap()).map(|entry| (entry.size(), entry.raw_file_position())).collect()
        };
        let (size, at) = entries.into_iter().max().unwrap();
        bytes[usize::try_from(at + size / 2).unwrap()] ^= 1;
        std::fs::write(file, bytes).unwrap();
        let done = world.strake(["validate", &format!("docker-archive:{}", file.display())]).fails();
        assert!(done.stdout.contains("layer 1") && !done.stdout.contains("layer 2"), "{done}");
    }
    std::fs::write(world.path("none.tar"), "nothing at all").unwrap();
    world.strake(["validate", "--tarball", "none.tar"]).fails().says(&["none.tar"]);
    world.strake(["validate", "--tarball", "missing.tar"]).fails().says(&["missing.tar"]);
    world.strake(["validate", "oci-archive:none.tar:tag"]).fails().says(&["all images"]);
}

#[test]
fn an_image_of_the_store_is_good_packed_or_not_until_it_is_damaged() {
    if !able(&["docker-registry"]) {
        return;
    }
    let (world, registry) = (World::new(), Registry::with_bases());
    world.busybox();
    world.build("FROM localhost/busybox\nRUN echo here > /here\n", &["-t", "app"]).ok();
    // Nothing of it has been compressed yet.
    world.strake(["validate", "app", "localhost/busybox"]).ok();
    world.strake(["pull", &registry.name("busybox:latest")]).ok();
    let name = registry.name("busybox:latest");
    world.strake(["validate", &name]).ok();
    let manifest: Value = serde_json::from_str(&world.strake(["manifest", &name]).ok().stdout).unwrap();
    let layer = manifest["layers"][0]["digest"].as_str().unwrap().to_owned();
    damage(&blob(&world.root(), &layer));
    let done = world.strake(["validate", &name, "app"]).fails();
    assert!(done.stdout.contains(&format!("layer 1 {layer}: its bytes hash to")) && done.stdout.contains("store:app: good"), "{done}");
    // A file of a layer that is nowhere else.
    let out = world.strake(["inspect", "--format", "{{.Id}}", "app"]).ok().stdout;
    let snapshots: Vec<_> = std::fs::read_dir(world.root().join("snapshots")).unwrap().map(|entry| entry.unwrap().path()).collect();
    let file = snapshots.iter().map(|dir| dir.join("fs/here")).find(|path| path.exists()).unwrap();
    std::fs::write(file, "else\n").unwrap();
    let done = world.strake(["validate", out.trim()]).fails();
    assert!(done.stdout.contains("layer 2") && done.stdout.contains("unpacked it hashes to"), "{done}");
    world.strake(["validate", "nothing"]).fails().says(&["no such image", "nothing"]);
}
