//! `strake index`: indexes of images that are in registries, in the store and in files; and what other tools see of them.

use serde_json::{Value, json};

use crate::common::{Registry, Run, World, able};

const INDEX: &str = "application/vnd.oci.image.index.v1+json";

fn manifest(world: &World, name: &str) -> Value {
    serde_json::from_str(&world.strake(["manifest", name]).ok().stdout).unwrap()
}

fn digest(world: &World, name: &str) -> String {
    world.strake(["digest", name]).ok().stdout.trim().to_owned()
}

/// The platforms of an index with the digests.
fn platforms(index: &Value) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap_or("").to_owned();
    let platform = |entry: &Value| {
        let parts = ["os", "architecture", "variant"].map(|part| text(&entry["platform"][part]));
        parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("/")
    };
    index["manifests"].as_array().unwrap().iter().map(|entry| (platform(entry), text(&entry["digest"]))).collect()
}

/// A world with the images `app:amd64`, `app:arm64` and `app:armv7`, separately built, at a registry.
fn built() -> Option<(World, Registry)> {
    if !able(&["docker-registry", "skopeo"]) {
        return None;
    }
    let (world, registry) = (World::new(), Registry::empty());
    for (tag, platform) in [("amd64", "linux/amd64"), ("arm64", "linux/arm64"), ("armv7", "linux/arm/v7")] {
        let text = format!("FROM scratch\nCOPY Dockerfile /{tag}\n");
        world.build(&text, &["--platform", platform, "-t", &registry.name(&format!("app:{tag}")), "--push"]).ok();
    }
    Some((world, registry))
}

#[test]
fn an_index_of_separate_builds_serves_each_platform_its_own() {
    let Some((world, registry)) = built() else { return };
    let name = |tag: &str| registry.name(&format!("app:{tag}"));
    let shown = world.strake(["index", "create", "-q", "-t", &name("multi"), &name("amd64"), &name("arm64")]).ok().stdout;
    assert_eq!(shown.trim(), format!("{}@{}", registry.name("app"), digest(&world, &name("multi"))));
    let index = manifest(&world, &name("multi"));
    assert_eq!(index["mediaType"], INDEX);
    let (amd64, arm64) = (digest(&world, &name("amd64")), digest(&world, &name("arm64")));
    assert_eq!(platforms(&index), [("linux/amd64".to_owned(), amd64.clone()), ("linux/arm64".to_owned(), arm64.clone())]);
    let seen = Run::new("skopeo", ["inspect", "--override-arch", "arm64", "--tls-verify=false", "--format", "{{.Architecture}}"]);
    assert_eq!(seen.arg(registry.url("app:multi")).ok().stdout.trim(), "arm64");
    // The form of `docker manifest create`, and one of the store and of a file among the images.
    let archive = format!("oci-archive:{}", world.path("arm64.tar").display());
    world.strake(["copy", "-q", "--platform", "linux/arm64", &name("arm64"), &archive]).ok();
    let stored = format!("store:{}", name("amd64"));
    world.strake(["index", "create", "-q", &registry.name("other:1"), &stored, &archive]).ok();
    assert_eq!(platforms(&manifest(&world, &registry.name("other:1"))), platforms(&index));
    world.strake(["validate", "--remote", &registry.name("other:1")]).ok();
    // One index as it is keeps its digest, also in another registry.
    let elsewhere = Registry::empty();
    world.strake(["index", "create", "-q", "-t", &elsewhere.name("app:1"), "-t", &elsewhere.name("b:2"), &name("multi")]).ok();
    assert_eq!(digest(&world, &elsewhere.name("app:1")), digest(&world, &name("multi")));
    world.strake(["validate", "--remote", &elsewhere.name("b:2")]).ok();
    // Of what it names, only some; alone, without an index.
    world.strake(["index", "create", "-q", "--platform", "linux/arm64", "-t", &name("some"), &name("multi")]).ok();
    assert_eq!(platforms(&manifest(&world, &name("some"))), [("linux/arm64".to_owned(), arm64.clone())]);
    world.strake(["index", "create", "-q", "--prefer-index=false", "-t", &name("alone"), &name("arm64")]).ok();
    assert_eq!(digest(&world, &name("alone")), arm64);
    // Shown only; by digest; with what a build says of it elsewhere.
    let file = world.path("meta.json");
    let flags = ["--annotation", "index:a=b", "--annotation", "manifest-descriptor[linux/amd64]:c=d", "--metadata-file"];
    let shown = world.strake(["index", "create", "-t", &name("dry"), &amd64, "--dry-run"]).arg_all(&flags).arg(&file).ok().stdout;
    let shown: Value = serde_json::from_str(&shown).unwrap();
    assert_eq!((&shown["annotations"], &shown["manifests"][0]["annotations"]), (&json!({ "a": "b" }), &json!({ "c": "d" })));
    let meta: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    assert_eq!((&meta["image.name"], &meta["containerimage.descriptor"]["mediaType"]), (&json!(name("dry")), &json!(INDEX)));
    world.strake(["digest", &name("dry")]).fails();
    world
        .strake(["index", "create", "-t", &name("x"), "--platform", "linux/s390x", &name("multi")])
        .fails()
        .says(&["linux/s390x", "linux/amd64"]);
    world.strake(["index", "create", "-t", &name("x"), &name("missing")]).fails().says(&["missing", "404"]);
}

#[test]
fn an_index_is_added_to_reduced_and_annotated() {
    let Some((world, registry)) = built() else { return };
    let name = |tag: &str| registry.name(&format!("app:{tag}"));
    world.strake(["index", "create", "-q", &name("multi"), &name("amd64"), &name("arm64"), "--annotation", "kept=yes"]).ok();
    world.strake(["index", "append", "-q", &name("multi"), "-m", &name("armv7")]).ok();
    let of = |entries: &[(&str, &str)]| -> Vec<(String, String)> {
        entries.iter().map(|(platform, tag)| ((*platform).to_owned(), digest(&world, &name(tag)))).collect()
    };
    let all = [("linux/amd64", "amd64"), ("linux/arm64", "arm64"), ("linux/arm/v7", "armv7")];
    assert_eq!(platforms(&manifest(&world, &name("multi"))), of(&all));
    // A newer one takes the place of the one before.
    world.build("FROM scratch\nCOPY Dockerfile /newer\n", &["--platform", "linux/arm64", "-t", &name("newer"), "--push"]).ok();
    let done = world.strake(["index", "append", &name("multi"), &name("newer"), "-t", &registry.name("copy:2")]).ok();
    done.says(&["linux/arm64", &digest(&world, &name("arm64"))]);
    let copied = manifest(&world, &registry.name("copy:2"));
    assert_eq!(platforms(&copied), of(&[all[0], ("linux/arm64", "newer"), all[2]]));
    assert_eq!(copied["annotations"], json!({ "kept": "yes" }));
    world.strake(["validate", "--remote", &registry.name("copy:2")]).ok();
    assert_eq!(platforms(&manifest(&world, &name("multi"))), of(&all), "the index itself is as it was");
    world.strake(["index", "append", "-q", &name("multi"), &name("newer"), "--set-platform", "linux/riscv64", "-t", &name("risc")]).ok();
    assert_eq!(platforms(&manifest(&world, &name("risc")))[3].0, "linux/riscv64");
    // Some of its images alone, under another name; one that is not there is no reason to take away the others.
    let some = registry.name("copy:some");
    world.strake(["index", "filter", &name("multi"), "--platform", "linux/arm64,linux/arm/v7", "-t", &some]).ok();
    assert_eq!((platforms(&manifest(&world, &some)), &manifest(&world, &some)["annotations"]), (of(&all[1..]), &json!({ "kept": "yes" })));
    world.strake(["validate", "--remote", &some]).ok();
    world
        .strake(["index", "filter", &some, "--platform", "linux/arm64", "--platform", "linux/s390x"])
        .fails()
        .says(&["linux/s390x", "linux/arm64"]);
    world.strake(["index", "filter", &some, "--platform", "linux/arm64"]).ok();
    assert_eq!(platforms(&manifest(&world, &some)), of(&all[1..2]));
    // Taken out by platform, by digest and by name.
    world.strake(["index", "remove", &name("multi"), "linux/arm/v7", &digest(&world, &name("arm64"))]).ok();
    assert_eq!(platforms(&manifest(&world, &name("multi"))), of(&all[..1]));
    world.strake(["index", "remove", &name("multi"), "linux/arm64"]).fails().says(&["linux/arm64", "linux/amd64"]);
    world.strake(["index", "remove", &name("risc"), &name("newer")]).ok();
    assert_eq!(platforms(&manifest(&world, &name("risc"))), of(&all));
    // Annotated, as a whole and in part.
    world.strake(["index", "annotate", &name("risc"), "-a", "x=1", "--unset-annotation", "kept"]).ok();
    let flags = ["--annotation", "y=2", "--variant", "v8", "--os-features", "sse4,aes"];
    world.strake(["index", "annotate", &name("risc"), "linux/arm64"]).arg_all(&flags).ok();
    let index = manifest(&world, &name("risc"));
    assert_eq!((&index["annotations"], &index["manifests"][1]["annotations"]), (&json!({ "x": "1" }), &json!({ "y": "2" })));
    let platform = json!({ "architecture": "arm64", "os": "linux", "os.features": ["sse4", "aes"], "variant": "v8" });
    assert_eq!(index["manifests"][1]["platform"], platform);
    // Shown.
    let raw = world.strake(["index", "inspect", "--raw", &name("risc")]).ok().stdout;
    assert_eq!(raw, world.strake(["manifest", &name("risc")]).ok().stdout);
    let text = world.strake(["index", "inspect", &name("risc")]).ok().stdout;
    for part in ["linux/arm/v7", &digest(&world, &name("armv7")), "y=2", INDEX, &digest(&world, &name("risc"))] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let field = world.strake(["index", "inspect", "--format", "{{.Manifest.Digest}}", &name("risc")]).ok().stdout;
    assert_eq!(field.trim(), digest(&world, &name("risc")));
    // What is no index, or cannot be one any more.
    world.strake(["index", "append", &name("amd64"), &name("arm64")]).fails().says(&["not an index", "index create"]);
    let fixed = registry.name(&format!("app@{}", digest(&world, &name("risc"))));
    world.strake(["index", "remove", &fixed, "linux/arm64"]).fails().says(&["-t"]);
}

#[test]
fn dockers_images_make_dockers_list() {
    let Some((world, registry)) = built() else { return };
    let copy = ["--insecure-policy", "copy", "-q", "--format", "v2s2", "--src-tls-verify=false", "--dest-tls-verify=false"];
    for tag in ["amd64", "arm64"] {
        Run::new("skopeo", copy).arg(registry.url(&format!("app:{tag}"))).arg(registry.url(&format!("docker:{tag}"))).ok();
    }
    let name = |tag: &str| registry.name(&format!("docker:{tag}"));
    world.strake(["index", "create", "-q", &name("list"), &name("amd64"), &name("arm64")]).ok();
    let list = "application/vnd.docker.distribution.manifest.list.v2+json";
    assert_eq!(manifest(&world, &name("list"))["mediaType"], list);
    // An image of OCI's in it makes it an index of OCI's.
    world.strake(["index", "append", "-q", &name("list"), &registry.name("app:armv7"), "-t", &name("mixed")]).ok();
    assert_eq!(manifest(&world, &name("mixed"))["mediaType"], INDEX);
    world.strake(["validate", "--remote", &name("mixed")]).ok();
    world.strake(["index", "append", "-q", "-m", &name("amd64"), "-t", &name("made"), "--docker-empty-base"]).ok();
    assert_eq!(manifest(&world, &name("made"))["mediaType"], list);
}
