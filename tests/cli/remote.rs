//! Images where they are: `copy` between registries, layouts, archives and the store, and what a registry tells without giving the image.

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::common::{Registry, Run, World, able, hex};

fn registry() -> Option<(World, Registry)> {
    able(&["docker-registry", "skopeo"]).then(|| (World::new(), Registry::with_bases()))
}

/// The digest that skopeo sees behind a name.
fn digest_by_skopeo(url: &str) -> String {
    let raw = Run::new("skopeo", ["inspect", "--raw", "--tls-verify=false", url]).ok();
    format!("sha256:{}", hex(&Sha256::digest(raw.stdout.as_bytes())))
}

/// Puts an index of two platforms into a registry, with a signature of the index; tells the digest of the index.
fn index(world: &World, registry: &Registry, repository: &str) -> String {
    let (amd64, arm64) = (registry.name(&format!("{repository}:amd64")), registry.name(&format!("{repository}:arm64")));
    world.busybox();
    for (name, platform) in [(&amd64, "linux/amd64"), (&arm64, "linux/arm64")] {
        let dockerfile = format!("FROM scratch\nCOPY Dockerfile /{}\n", platform.replace('/', "-"));
        world.build(&dockerfile, &["--platform", platform, "-t", name, "--push"]).ok();
    }
    let entry = |name: &str, architecture: &str| {
        let raw = world.strake(["manifest", name]).ok().stdout;
        json!({ "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": format!("sha256:{}", hex(&Sha256::digest(raw.as_bytes()))),
                "size": raw.len(), "platform": { "os": "linux", "architecture": architecture } })
    };
    let manifests = [entry(&amd64, "amd64"), entry(&arm64, "arm64")];
    let kind = "application/vnd.oci.image.index.v1+json";
    let index = json!({ "schemaVersion": 2, "mediaType": kind, "manifests": manifests }).to_string();
    put(registry, &format!("{repository}/manifests/both"), kind, &index);
    format!("sha256:{}", hex(&Sha256::digest(index.as_bytes())))
}

fn put(registry: &Registry, path: &str, kind: &str, body: &str) {
    let url = format!("http://{}/v2/{path}", registry.host());
    Run::new("curl", ["-sSf", "-X", "PUT", "-H", &format!("Content-Type: {kind}"), "--data-binary", "@-", &url]).stdin(body).ok();
}

#[test]
fn a_registry_tells_of_an_image_without_giving_it() {
    let Some((world, registry)) = registry() else { return };
    let (name, url) = (registry.name("busybox:latest"), registry.url("busybox:latest"));
    let digest = digest_by_skopeo(&url);
    assert_eq!(world.strake(["digest", &name]).ok().stdout.trim(), digest);
    let raw = Run::new("skopeo", ["inspect", "--raw", "--tls-verify=false", &url]).ok().stdout;
    assert_eq!(world.strake(["manifest", &name]).ok().stdout, raw);
    let config = Run::new("skopeo", ["inspect", "--config", "--raw", "--tls-verify=false", &url]).ok().stdout;
    assert_eq!(world.strake(["config", &name]).ok().stdout.trim_end(), config.trim_end());
    let seen: Value = serde_json::from_str(&world.strake(["inspect", "--remote", &name]).ok().stdout).unwrap();
    let config: Value = serde_json::from_str(&config).unwrap();
    assert_eq!(seen[0]["RootFS"]["Layers"], config["rootfs"]["diff_ids"]);
    assert_eq!(seen[0]["RepoDigests"], json!([format!("{}@{digest}", registry.name("busybox"))]));
    assert_eq!(world.strake(["images", "-q"]).ok().stdout, "", "nothing was pulled");
    world.strake(["manifest", &registry.name("nothing:1")]).fails().says(&["nothing:1", "404"]);
}

#[test]
fn tags_and_repositories_are_listed_over_many_pages() {
    let Some((world, registry)) = registry() else { return };
    // Never into a repository of the bases: their files are those of all the tests' registries.
    world.strake(["copy", &registry.name("busybox:latest"), &registry.name("many:latest")]).ok();
    let raw = world.strake(["manifest", &registry.name("many:latest")]).ok().stdout;
    let kind: Value = serde_json::from_str::<Value>(&raw).unwrap()["mediaType"].clone();
    // More than the hundred that a registry gives at a time.
    for at in 0..105 {
        put(&registry, &format!("many/manifests/t{at:03}"), kind.as_str().unwrap(), &raw);
    }
    put(&registry, &format!("many/manifests/sha256-{}", "0".repeat(64)), kind.as_str().unwrap(), &raw);
    let tags = world.strake(["ls", "-O", &registry.name("many")]).ok().stdout;
    let mut tags: Vec<&str> = tags.lines().collect();
    tags.sort_unstable();
    assert_eq!((tags.len(), tags[0], tags[105]), (106, "latest", "t104"));
    assert_eq!(world.strake(["ls", &registry.name("many")]).ok().stdout.lines().count(), 107);
    let whole = world.strake(["ls", "--full-ref", "-O", &registry.name("many")]).ok().stdout;
    assert!(whole.lines().any(|line| line == registry.name("many:t007")));
    assert_eq!(world.strake(["catalog", registry.host()]).ok().stdout, "busybox\nmany\nminbase\n");
}

#[test]
fn a_tag_is_deleted_with_its_manifest_when_asked_for() {
    let Some((world, registry)) = registry() else { return };
    let name = registry.name("busybox:latest");
    world.strake(["copy", &name, &registry.name("mine/app:1")]).ok();
    world.strake(["copy", &name, &registry.name("mine/app:2")]).ok();
    world.strake(["delete", "--manifest", &registry.name("mine/app:1")]).ok();
    world.strake(["digest", &registry.name("mine/app:2")]).fails().says(&["404"]);
    world.strake(["digest", &name]).ok();
}

#[test]
fn a_copy_keeps_the_digest_wherever_it_goes() {
    let Some((world, registry)) = registry() else { return };
    let other = Registry::empty();
    let from = registry.name("made/here:1");
    world.busybox();
    world.build("FROM localhost/busybox\nRUN echo kept > /word\n", &["-t", &from, "--push"]).ok();
    let digest = digest_by_skopeo(&registry.url("made/here:1"));
    let (layout, archive) = (world.path("layout"), world.path("image.tar"));
    let (layout, archive) = (format!("oci:{}:v1", layout.display()), format!("oci-archive:{}:v1", archive.display()));
    for (source, dest) in [
        (from.as_str(), other.name("a/b:1").as_str()),
        (&other.name("a/b:1"), &layout),
        (&layout, &archive),
        (&archive, &other.name("c:2")),
        (&other.name("c:2"), &other.name("d:3")),
        (&other.name("d:3"), "store:mine:1"),
        ("store:mine:1", &other.name("e:4")),
    ] {
        let done = world.strake(["copy", "-q", source, dest]).ok();
        assert_eq!(done.stdout.trim(), digest, "{source} to {dest}");
    }
    for name in ["a/b:1", "c:2", "d:3", "e:4"] {
        assert_eq!(digest_by_skopeo(&other.url(name)), digest, "{name}");
    }
    // Others can read what was written.
    for place in [&layout, &archive] {
        assert!(Run::new("skopeo", ["inspect", place]).ok().stdout.contains(&digest), "{place}");
    }
    assert_eq!(world.strake(["run", "--rm", "mine:1", "cat", "/word"]).ok().stdout, "kept\n");
}

#[test]
fn every_tag_is_copied_and_what_is_there_is_left_alone() {
    let Some((world, registry)) = registry() else { return };
    world.busybox();
    for tag in ["1", "2"] {
        world.build(&format!("FROM scratch\nCOPY Dockerfile /{tag}\n"), &["-t", &registry.name(&format!("app:{tag}")), "--push"]).ok();
    }
    let other = Registry::empty();
    let digest = |name: &str| world.strake(["digest", name]).ok().stdout;
    world.strake(["copy", "-q", &registry.name("app:1"), &other.name("moved:2")]).ok();
    let done = world.strake(["copy", "-q", "--all-tags", "--no-clobber", &registry.name("app"), &other.name("moved")]).ok();
    done.says(&[&other.name("moved:2"), "there already"]);
    assert_eq!(done.stdout, digest(&registry.name("app:1")));
    assert_eq!(digest(&other.name("moved:2")), digest(&registry.name("app:1")));
    world.strake(["copy", "-q", "--all-tags", &registry.name("app"), &other.name("moved")]).ok();
    for tag in ["1", "2"] {
        assert_eq!(digest(&other.name(&format!("moved:{tag}"))), digest(&registry.name(&format!("app:{tag}"))));
    }
    world.strake(["copy", "--all-tags", &registry.name("app:1"), &other.name("moved")]).fails().says(&["all-tags", "app:1"]);
    world.strake(["copy", "--all-tags", &registry.name("app"), "docker-archive:all.tar"]).fails().says(&["all-tags"]);
}

#[test]
fn a_docker_archive_of_a_copy_is_loaded_and_copied_on() {
    let Some((world, registry)) = registry() else { return };
    let tar = world.path("busybox.tar");
    let archive = format!("docker-archive:{}:acme/busy:7", tar.display());
    world.strake(["copy", "-q", &registry.name("busybox:latest"), &archive]).ok();
    assert_eq!(world.strake(["load", "-q", "-i", tar.to_str().unwrap()]).ok().stdout, "Loaded image: acme/busy:7\n");
    let config = |url: &str| Run::new("skopeo", ["inspect", "--config", "--tls-verify=false", url]).ok().stdout;
    assert_eq!(config(&archive), config(&registry.url("busybox:latest")));
    // The form without an OCI index, as skopeo writes it.
    let old = world.path("old.tar");
    let to = format!("docker-archive:{}:acme/old:1", old.display());
    Run::new("skopeo", ["--insecure-policy", "copy", "-q", "--src-tls-verify=false", &registry.url("busybox:latest"), &to]).ok();
    world.strake(["copy", "-q", &format!("docker-archive:{}", old.display()), &registry.name("from/old:1")]).ok();
    assert_eq!(config(&registry.url("from/old:1")), config(&registry.url("busybox:latest")));
}

#[test]
fn all_images_of_an_index_are_copied_or_the_one_that_is_wanted() {
    let Some((world, registry)) = registry() else { return };
    let digest = index(&world, &registry, "multi");
    let (from, other) = (registry.name("multi:both"), Registry::empty());
    assert_eq!(world.strake(["copy", "-q", "--all", &from, &other.name("multi:both")]).ok().stdout.trim(), digest);
    for platform in ["linux/amd64", "linux/arm64"] {
        let here = world.strake(["digest", "--platform", platform, &from]).ok().stdout;
        assert_eq!(world.strake(["digest", "--platform", platform, &other.name("multi:both")]).ok().stdout, here);
        let to = other.name("one:1");
        assert_eq!(world.strake(["copy", "-q", "--platform", platform, &from, &to]).ok().stdout, here);
    }
    let layout = format!("oci:{}:both", world.path("layout").display());
    assert_eq!(world.strake(["copy", "-q", "--all", &from, &layout]).ok().stdout.trim(), digest);
    assert_eq!(world.strake(["copy", "-q", "--all", &layout, &other.name("again:1")]).ok().stdout.trim(), digest);
    world.strake(["copy", "--platform", "linux/s390x", &from, &other.name("x:1")]).fails().says(&["linux/s390x", "linux/arm64"]);
    world
        .strake(["copy", "--all", &from, &format!("docker-archive:{}", world.path("x.tar").display())])
        .fails()
        .says(&["index", "platform"]);
    assert!(!world.path("x.tar").exists());
}

#[test]
fn what_is_about_an_image_goes_with_it_when_asked_for() {
    let Some((world, registry)) = registry() else { return };
    world.strake(["copy", &registry.name("busybox:latest"), &registry.name("app:1")]).ok();
    let subject = digest_by_skopeo(&registry.url("app:1"));
    let size = Run::new("skopeo", ["inspect", "--raw", "--tls-verify=false", &registry.url("app:1")]).ok().stdout.len();
    let empty = "{}";
    let blob = format!("sha256:{}", hex(&Sha256::digest(empty)));
    let upload = format!("http://{}/v2/app/blobs/uploads/", registry.host());
    let started = Run::new("curl", ["-sSf", "-X", "POST", "-D", "-", "-o", "/dev/null", &upload]).ok().stdout;
    let location =
        started.lines().find_map(|line| line.to_lowercase().strip_prefix("location: ").map(|_| line[10..].trim().to_owned())).unwrap();
    let url = format!("{location}&digest={blob}");
    Run::new("curl", ["-sSf", "-X", "PUT", "-H", "Content-Type: application/octet-stream", "--data-binary", "@-", &url]).stdin(empty).ok();
    let kind = "application/vnd.oci.image.manifest.v1+json";
    let part = json!({ "mediaType": "application/vnd.oci.empty.v1+json", "digest": blob, "size": 2 });
    let signature =
        json!({ "schemaVersion": 2, "mediaType": kind, "artifactType": "application/x.signature", "config": part, "layers": [part],
                            "subject": { "mediaType": kind, "digest": subject, "size": size } })
        .to_string();
    let signed = format!("sha256:{}", hex(&Sha256::digest(&signature)));
    put(&registry, &format!("app/manifests/{signed}"), kind, &signature);
    // This registry keeps no list of referrers, so it is kept under a tag.
    let list = json!({ "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json",
                       "manifests": [{ "mediaType": kind, "digest": signed, "size": signature.len(), "artifactType": "application/x.signature" }] });
    let tag = subject.replace(':', "-");
    put(&registry, &format!("app/manifests/{tag}"), "application/vnd.oci.image.index.v1+json", &list.to_string());

    let other = Registry::empty();
    world.strake(["copy", "-q", &registry.name("app:1"), &other.name("plain:1")]).ok();
    world.strake(["digest", &other.name(&format!("plain@{signed}"))]).fails();
    let layout = format!("oci:{}:b", world.path("layout").display());
    for (from, to) in [(registry.name("app:1"), layout.clone()), (layout, other.name("signed:1"))] {
        world.strake(["copy", "-q", "--referrers", &from, &to]).ok();
    }
    assert_eq!(world.strake(["manifest", &other.name(&format!("signed@{signed}"))]).ok().stdout, signature);
    let listed: Value = serde_json::from_str(&world.strake(["manifest", &other.name(&format!("signed:{tag}"))]).ok().stdout).unwrap();
    assert_eq!(listed["manifests"][0]["digest"], json!(signed));
    assert_eq!(listed["manifests"][0]["artifactType"], "application/x.signature");
    // And it is listed for whoever asks.
    let about = |flags: &[&str]| world.strake(["referrers", "--format", "{{.Digest}} {{.ArtifactType}}"]).arg_all(flags).ok().stdout;
    let (name, line) = (other.name("signed:1"), format!("{signed} application/x.signature\n"));
    assert_eq!(about(&[&name]), line);
    assert_eq!(about(&["--artifact-type", "application/x.signature", &name]), line);
    assert_eq!(about(&["--artifact-type", "application/x.other", &name]), "");
    assert_eq!(about(&[&other.name("plain:1")]), "");
    let shown = world.strake(["referrers", &name]).ok().stdout;
    assert!(shown.starts_with("DIGEST") && shown.contains(&signed), "{shown}");
    world.strake(["referrers", &other.name("missing:1")]).fails().says(&["404"]);
}

#[test]
fn damaged_and_missing_sources_leave_nothing_behind() {
    let Some((world, registry)) = registry() else { return };
    let dir = world.path("layout");
    let layout = format!("oci:{}:v1", dir.display());
    world.strake(["copy", "-q", &registry.name("busybox:latest"), &layout]).ok();
    let blobs = dir.join("blobs/sha256");
    let mut largest: Vec<_> = std::fs::read_dir(&blobs).unwrap().map(|entry| entry.unwrap().path()).collect();
    largest.sort_by_key(|path| std::fs::metadata(path).unwrap().len());
    let layer = largest.pop().unwrap();
    let mut bytes = std::fs::read(&layer).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&layer, &bytes).unwrap();
    let archive = world.path("out.tar");
    world.strake(["copy", &layout, &format!("oci-archive:{}", archive.display())]).fails().says(&["hashes to"]);
    bytes.truncate(middle);
    std::fs::write(&layer, &bytes).unwrap();
    world.strake(["copy", &layout, &format!("oci-archive:{}", archive.display())]).fails().says(&["ends before"]);
    world.strake(["copy", &layout, &registry.name("broken:1")]).fails();
    world.strake(["digest", &registry.name("broken:1")]).fails();
    std::fs::remove_file(&layer).unwrap();
    world.strake(["copy", &layout, &format!("oci-archive:{}", archive.display())]).fails().says(&["cannot read", "blobs/sha256"]);
    let left: Vec<_> = std::fs::read_dir(world.path("")).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    assert!(!left.iter().any(|name| name.starts_with("out.tar")), "{left:?}");
    world.strake(["copy", "store:nothing", &registry.name("x:1")]).fails().says(&["no such image", "nothing"]);
}
