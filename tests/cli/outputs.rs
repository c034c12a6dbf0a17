//! Where results go: registries, layouts, archives, and how images are packed on the way.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::common::{Registry, Run, World, able};

const DOCKERFILE: &str = "FROM localhost/busybox\nRUN seq 100000 > /numbers\nCOPY f /f\n";

fn world() -> World {
    let world = World::new();
    world.busybox().write("f", "one\n");
    world
}

fn json_of(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// The raw manifest of an image in a registry.
fn manifest(url: &str) -> Value {
    let raw = Run::new("skopeo", ["inspect", "--raw", "--tls-verify=false", url]).ok().stdout;
    serde_json::from_str(&raw).unwrap()
}

fn layer_types(manifest: &Value) -> Vec<&str> {
    manifest["layers"].as_array().unwrap().iter().map(|layer| layer["mediaType"].as_str().unwrap()).collect()
}

const GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
const ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";

#[test]
fn push_sends_every_tag_and_the_metadata_names_the_digest() {
    if !able(&["docker-registry", "skopeo"]) {
        return;
    }
    let (world, registry) = (world(), Registry::with_bases());
    let (one, two) = (registry.name("a:1"), registry.name("b/c:2"));
    let (meta, iid) = (world.path("meta.json"), world.path("iid"));
    let flags = ["--push", "-t", &one, "-t", &two, "--metadata-file", meta.to_str().unwrap(), "--iidfile", iid.to_str().unwrap()];
    world.build(DOCKERFILE, &flags).ok();
    let meta = json_of(&meta);
    for name in ["a:1", "b/c:2"] {
        let seen = Run::new("skopeo", ["inspect", "--format", "{{.Digest}}", "--tls-verify=false", &registry.url(name)]).ok().stdout;
        assert_eq!(json!(seen.trim()), meta["containerimage.digest"], "{name}");
    }
    assert_eq!(meta["containerimage.config.digest"], json!(std::fs::read_to_string(iid).unwrap()));
    assert_eq!(meta["containerimage.descriptor"]["digest"], meta["containerimage.digest"]);
    assert_eq!(meta["containerimage.descriptor"]["mediaType"], "application/vnd.oci.image.manifest.v1+json");
    assert_eq!(meta["image.name"], json!(format!("{one},{two}")));
    assert_eq!(layer_types(&manifest(&registry.url("a:1"))), [GZIP, GZIP, GZIP]);
}

#[test]
fn a_push_without_a_name_ends_before_anything_runs() {
    let world = world();
    let done = world.build("FROM localhost/busybox\nRUN exit 7\n", &["--push"]).fails();
    done.says(&["an image that is pushed needs a name", "add `-t"]).omits(&["exit 7"]);
}

#[test]
fn an_output_that_cannot_be_written_is_refused_before_anything_runs() {
    let world = World::new();
    world.write("Dockerfile", "FROM scratch\nCOPY . /\n");
    let done = world.build_as_it_is(&["-o", "-", "-o", "type=oci,dest=-"]).fails();
    done.says(&["only one output"]).omits(&["COPY"]);
    assert_eq!(done.stdout, "");
    std::fs::write(world.path("file"), "").unwrap();
    for (spec, said) in [
        ("type=local,dest=-", "the directory cannot be standard output"),
        ("type=oci,tar=false,dest=-", "the OCI layout cannot be standard output"),
        ("type=local,dest=file", "`file` is a file"),
        ("file", "`file` is a file"),
        ("type=oci,tar=false,dest=file", "`file` is a file"),
        ("type=tar,dest=ctx", "`ctx` is a directory"),
        ("type=docker,dest=.", "`.` is a directory"),
        ("type=oci,dest=nowhere/x.tar", "there is no directory `nowhere`"),
        ("type=oci,dest=x.tar,compression-level=13", "0 to 12"),
        ("type=oci,dest=x.tar,compression=zstd,compression-level=23", "0 to 22"),
    ] {
        world.build_as_it_is(&["-o", spec]).fails().says(&[said]).omits(&["COPY"]);
    }
    for flag in ["--iidfile", "--metadata-file", "--profile"] {
        for path in ["nowhere/x", "ctx", "file/x"] {
            world.build_as_it_is(&[flag, path]).fails().says(&[&format!("cannot write `{path}`")]).omits(&["COPY"]);
        }
    }
    assert!(!world.path("-").exists() && !world.path("x.tar").exists());
}

#[test]
fn flags_have_the_form_that_docker_gives_them() {
    if !able(&[]) {
        return;
    }
    let world = World::new();
    world.write("Dockerfile", "FROM scratch AS s\nCOPY . /\n");
    let off = ["--pull=false", "--push=false", "--load=false", "--check=false", "-q=false", "--provenance=false", "--sbom", "false"];
    world.build_as_it_is(&off).ok().says(&["COPY . /"]);
    assert_eq!(world.build_as_it_is(&["--no-cache=false"]).ok().step("COPY"), "CACHED");
    assert_eq!(world.build_as_it_is(&["--no-cache=true"]).ok().step("COPY"), "DONE");
    // The last of two counts.
    let twice = ["--no-cache", "--no-cache=0", "--target", "none", "--target=s", "--progress=tty", "--progress", "plain"];
    assert_eq!(world.build_as_it_is(&twice).ok().step("COPY"), "CACHED");
    // Tags are gathered, and short flags can be written together.
    let done = world.build_as_it_is(&["-t", "one:1", "-qt", "two:1"]).ok();
    assert!(done.stdout.starts_with("sha256:"), "{done}");
    let images = world.strake(["images"]).ok().stdout;
    assert!(images.contains("one") && images.contains("two"), "{images}");
    assert!(world.build_as_it_is(&["--check=true"]).ok().stdout.contains("Check complete"));
    // What a script leaves empty is as if it were not there.
    let empty = ["--cache-from=", "--cache-to", "", "--annotation", "", "--secret=", "--progress", "", "--network=", "--target=", "--ssh="];
    assert_eq!(world.build_as_it_is(&empty).ok().step("COPY"), "CACHED");
    for name in ["BUILDKIT_PROGRESS", "DOCKER_DEFAULT_PLATFORM", "SOURCE_DATE_EPOCH"] {
        world.build_as_it_is(&[]).env(name, "").ok().says(&["COPY"]);
        world.build_as_it_is(&[]).env(name, "nonsense").fails().says(&["nonsense"]);
    }
    world.strake(["doctor"]).env("STRAKE_ROOT", "").run().omits(&["a value is required"]);
    world.build_as_it_is(&["-D", "--policy", "disabled=true"]).ok();
    world.build_as_it_is(&["--policy", "filename=x"]).fails().says(&["policies about sources are not supported"]);
    world.build_as_it_is(&["--pull=maybe"]).fails().says(&["maybe", "true or false"]);
    for flag in ["--provenance=true", "--provenance=mode=max", "--sbom=generator=x"] {
        world.build_as_it_is(&[flag]).fails().says(&["not supported yet", flag.split('=').next().unwrap()]);
    }
}

#[test]
fn a_build_has_the_names_that_docker_has_for_it() {
    if !able(&[]) {
        return;
    }
    let world = World::new();
    world.write("Dockerfile", "FROM scratch\nCOPY Dockerfile /\n");
    let plain = world.build_as_it_is(&["-q"]).ok().stdout;
    for name in [["buildx", "build"], ["buildx", "b"], ["builder", "build"], ["image", "build"]] {
        let told = world.strake(name.iter().chain(&["--pull=false", "-q", "-t", "named:1", "ctx"])).ok();
        assert_eq!((told.stdout.as_str(), told.stderr.as_str()), (plain.as_str(), ""), "{name:?}");
        let checked = world.strake(name.iter().chain(&["--check", "ctx"])).ok().stdout;
        assert!(checked.contains("Check complete"), "{checked}");
    }
    assert!(world.strake(["buildx", "du"]).ok().stdout.contains("Total:"));
    world.strake(["buildx", "prune", "-af"]).ok();
}

#[test]
fn a_registry_that_is_down_costs_the_push_and_nothing_else() {
    let world = world();
    let archive = world.path("x.tar");
    let spec = format!("type=oci,dest={}", archive.display());
    let done = world.build(DOCKERFILE, &["--push", "-t", "127.0.0.1:9/x:1", "-o", &spec]).fails();
    done.says(&["127.0.0.1:9/x:1"]);
    assert!(archive.exists());
    world.strake(["run", "--rm", "127.0.0.1:9/x:1", "cat", "/f"]).ok();
}

#[test]
fn compression_is_for_what_was_built_unless_forced() {
    if !able(&["docker-registry", "skopeo", "podman"]) {
        return;
    }
    let (world, registry) = (world(), Registry::with_bases());
    let dockerfile = DOCKERFILE.replace("localhost/busybox", &registry.name("busybox:latest"));
    let push = |name: &str, keys: &str| {
        let spec = format!("type=image,push=true,name={},{keys}", registry.name(name));
        world.build(&dockerfile, &["-o", &spec]).ok();
        manifest(&registry.url(name))
    };
    assert_eq!(layer_types(&push("z:1", "compression=zstd")), [GZIP, ZSTD, ZSTD]);
    assert_eq!(layer_types(&push("z:2", "compression=zstd,force-compression=true")), [ZSTD, ZSTD, ZSTD]);
    // What was made for one does not show in another.
    let plain = push("z:3", "store=true");
    assert_eq!(layer_types(&plain), [GZIP, GZIP, GZIP]);
    let docker = push("z:4", "oci-mediatypes=false");
    assert_eq!(docker["mediaType"], "application/vnd.docker.distribution.manifest.v2+json");
    assert!(layer_types(&docker).iter().all(|kind| *kind == "application/vnd.docker.image.rootfs.diff.tar.gzip"));
    let tarred = push("z:5", "compression=uncompressed,force-compression=true");
    assert!(layer_types(&tarred).iter().all(|kind| *kind == "application/vnd.oci.image.layer.v1.tar"));
    let best = push("z:6", "compression=zstd,compression-level=19");
    let size = |manifest: &Value| manifest["layers"][1]["size"].as_u64().unwrap();
    assert!(size(&best) < size(&push("z:7", "compression=zstd")));
    assert_eq!(push("z:8", "compression=zstd,compression-level=19"), best);
    // All of them are the same image.
    let ids = ["z:1", "z:2", "z:3", "z:4", "z:5", "z:6"].map(|name| manifest(&registry.url(name))["config"]["digest"].clone());
    assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    // And others can read them.
    let fresh = World::new();
    for name in ["z:2", "z:5"] {
        let done = fresh.strake(["run", "--rm", &registry.name(name), "sh", "-c", "cat /f; tail -1 /numbers"]).ok();
        assert_eq!(done.stdout, "one\n100000\n", "{name}");
        fresh.strake(["rmi", "-f", &registry.name(name)]).ok();
    }
}

#[test]
fn an_image_can_be_pushed_by_its_digest_alone() {
    if !able(&["docker-registry", "skopeo"]) {
        return;
    }
    let (world, registry, meta) = (world(), Registry::with_bases(), tempfile::NamedTempFile::new().unwrap());
    let spec = format!("type=image,push=true,push-by-digest=true,name={}", registry.name("d"));
    world.build(DOCKERFILE, &["-o", &spec, "--metadata-file", meta.path().to_str().unwrap()]).ok();
    let digest = json_of(meta.path())["containerimage.digest"].as_str().unwrap().to_owned();
    assert_eq!(manifest(&registry.url(&format!("d@{digest}")))["layers"].as_array().unwrap().len(), 3);
    Run::new("skopeo", ["inspect", "--raw", "--tls-verify=false", &registry.url("d:latest")]).fails();
}

#[test]
fn annotations_stand_in_the_manifest() {
    let world = world();
    let dir = world.path("layout");
    let spec = format!("type=oci,tar=false,dest={},annotation-manifest-descriptor.d=e", dir.display());
    world.build(DOCKERFILE, &["-o", &spec, "--annotation", "manifest:a.b=c", "--annotation", "x=y=z", "-t", "n:1"]).ok();
    let index = json_of(&dir.join("index.json"));
    let entry = &index["manifests"][0];
    assert_eq!(entry["annotations"]["d"], "e");
    assert_eq!(entry["annotations"]["org.opencontainers.image.ref.name"], "1");
    let digest = entry["digest"].as_str().unwrap().replace(':', "/");
    assert_eq!(json_of(&dir.join("blobs").join(digest))["annotations"], json!({ "a.b": "c", "x": "y=z" }));
    world.build(DOCKERFILE, &["--annotation", "index:a=b"]).fails().says(&["the result has none"]);
    world.build(DOCKERFILE, &["--annotation", "manifets:a=b"]).fails().says(&["no place `manifets`"]);
    // Also where nothing is annotated.
    world.build(DOCKERFILE, &["--annotation", "manifets:a=b", "-o", "type=cacheonly"]).fails().says(&["no place `manifets`"]);
    // Manifests in Docker's format have some, too.
    let spec = format!("type=oci,tar=false,dest={},oci-mediatypes=false,annotation.k=v", world.path("other").display());
    world.build(DOCKERFILE, &["-o", &spec]).ok();
    let entry = &json_of(&world.path("other/index.json"))["manifests"][0];
    let manifest = json_of(&world.path("other/blobs").join(entry["digest"].as_str().unwrap().replace(':', "/")));
    assert_eq!(manifest["mediaType"], "application/vnd.docker.distribution.manifest.v2+json");
    assert_eq!(manifest["annotations"], json!({ "k": "v" }));
}

#[test]
fn the_names_of_the_build_go_before_those_of_an_output() {
    let world = World::new();
    world.write("Dockerfile", "FROM scratch\nCOPY . /\n");
    let meta = world.path("meta.json");
    let args = ["--metadata-file", meta.to_str().unwrap(), "-o", "type=image,name=a.b/out:1"];
    let done = world.build_as_it_is(&[&args[..], &["-t", "n:1", "-t", "n:2"]].concat()).ok();
    done.says(&["`name=` of an output has no effect"]);
    assert_eq!(json_of(&meta)["image.name"], "docker.io/library/n:1,docker.io/library/n:2");
    world.strake(["inspect", "n:2"]).ok();
    world.strake(["inspect", "a.b/out:1"]).fails();
    world.build_as_it_is(&args).ok().omits(&["no effect"]);
    world.strake(["inspect", "a.b/out:1"]).ok();
    // What a script leaves empty is not given.
    world.build_as_it_is(&["-o", "", "-t", "n:3"]).ok().says(&["naming to docker.io/library/n:3"]);
}

#[test]
fn what_points_at_an_image_tells_its_platform_and_has_its_annotations() {
    let world = world();
    let (dir, meta) = (world.path("layout"), world.path("meta.json"));
    let spec = format!("type=oci,tar=false,dest={},annotation-manifest-descriptor.d=e", dir.display());
    world.build(DOCKERFILE, &["-o", &spec, "--metadata-file", meta.to_str().unwrap()]).ok();
    let descriptor = &json_of(&meta)["containerimage.descriptor"];
    let platform = &descriptor["platform"];
    assert_eq!(
        (&platform["os"], platform["architecture"].is_string(), &descriptor["annotations"]["d"]),
        (&json!("linux"), true, &json!("e"))
    );
    // Without a name it is the latest of its layout.
    let index = json_of(&dir.join("index.json"));
    assert_eq!((&index["manifests"][0]["platform"], index["manifests"].as_array().unwrap().len()), (platform, 1));
    assert_eq!(index["manifests"][0]["annotations"]["org.opencontainers.image.ref.name"], "latest");
    world.write("f", "two\n").build(DOCKERFILE, &["-o", &spec]).ok();
    assert_eq!(json_of(&dir.join("index.json"))["manifests"].as_array().unwrap().len(), 1);
    // So it is where it is pushed.
    if !able(&["docker-registry"]) {
        return;
    }
    let registry = Registry::empty();
    for keys in ["", ",annotation-manifest-descriptor.d=e"] {
        let spec = format!("type=image,push=true,name={}{keys}", registry.name("a:1"));
        world.build(DOCKERFILE, &["-o", &spec, "--metadata-file", meta.to_str().unwrap()]).ok();
        let pushed = &json_of(&meta)["containerimage.descriptor"];
        assert_eq!(&pushed["platform"], platform);
        assert_eq!(pushed["annotations"]["d"], if keys.is_empty() { Value::Null } else { json!("e") });
    }
}

#[test]
fn a_layout_gathers_images_and_others_read_it() {
    if !able(&["skopeo", "umoci"]) {
        return;
    }
    let world = world();
    let dir = world.path("layout");
    let spec = format!("type=oci,tar=false,dest={}", dir.display());
    world.build(DOCKERFILE, &["-o", &spec, "-t", "n:1"]).ok();
    world.build("FROM localhost/busybox\n", &["-o", &spec, "-t", "n:2"]).ok();
    world.write("f", "two\n").build(DOCKERFILE, &["-o", &spec, "-t", "n:1"]).ok();
    let tags = Run::new("umoci", ["ls", "--layout", dir.to_str().unwrap()]).ok().stdout;
    assert_eq!(tags.split_whitespace().collect::<std::collections::BTreeSet<_>>(), ["1", "2"].into());
    for (tag, layers) in [("1", 3), ("2", 1)] {
        let seen = Run::new("skopeo", ["inspect", &format!("oci:{}:{tag}", dir.display())]).ok().stdout;
        let seen: Value = serde_json::from_str(&seen).unwrap();
        assert_eq!(seen["Layers"].as_array().unwrap().len(), layers, "{tag}");
    }
    let bundle = world.path("bundle");
    Run::new("umoci", ["unpack", "--image", &format!("{}:1", dir.display()), bundle.to_str().unwrap()]).ok();
    assert_eq!(std::fs::read_to_string(bundle.join("rootfs/f")).unwrap(), "two\n");
}

#[test]
fn several_outputs_come_of_one_build() {
    let world = world();
    let (dir, tar, oci) = (world.path("dir"), world.path("t.tar"), world.path("o.tar"));
    let specs = [format!("{}", dir.display()), format!("type=tar,dest={}", tar.display()), format!("type=oci,dest={}", oci.display())];
    let done = world.build(DOCKERFILE, &["-o", &specs[0], "-o", &specs[1], "-o", &specs[2], "-t", "n:1"]).ok();
    assert_eq!(std::fs::read_to_string(dir.join("f")).unwrap(), "one\n");
    assert!(tar.exists() && oci.exists());
    done.omits(&["naming to"]);
    world.strake(["inspect", "n:1"]).fails();
    // With --load it is in the store too; `cacheonly` is nowhere.
    world.build(DOCKERFILE, &["-o", &specs[0], "--load", "-t", "n:1"]).ok().says(&["naming to docker.io/library/n:1"]);
    world.strake(["inspect", "n:1"]).ok();
    world.build(DOCKERFILE, &["-o", "type=cacheonly", "-t", "n:2"]).ok();
    world.strake(["inspect", "n:2"]).fails();
}

#[test]
fn logs_of_builds_are_kept_whole_and_shown_again() {
    let world = world();
    let loud = "FROM localhost/busybox\nRUN seq 30000\nRUN echo second; exit 3\n";
    world.build(loud, &[]).fails();
    let shown = world.strake(["build", "logs"]).ok().stdout;
    let lines: Vec<&str> = shown.lines().collect();
    assert_eq!(lines[0], "==> [2/3] RUN seq 30000");
    assert!(lines[1..30001].iter().zip(1..).all(|(line, number)| line.parse() == Ok(number)));
    assert_eq!(lines[30001..], ["==> [3/3] RUN echo second; exit 3", "second"]);
    let one = world.strake(["build", "logs", "--step", "second"]).ok().stdout;
    assert_eq!(one, "==> [3/3] RUN echo second; exit 3\nsecond\n");
    world.strake(["build", "logs", "--step", "nothing like it"]).fails().says(&["no step", "`nothing like it`"]);
    let list = world.strake(["build", "logs", "--list"]).ok().stdout;
    let row = list.lines().nth(1).unwrap();
    assert!(row.contains("[3/3] RUN echo second"), "{list}");
    let id = row.split_whitespace().next().unwrap();
    assert_eq!(world.strake(["build", "logs", &id[..20]]).ok().stdout, shown);
    world.strake(["build", "logs", "nonesuch"]).fails().says(&["nonesuch", "--list"]);
}

#[test]
fn raw_progress_has_nothing_but_json_and_tells_of_findings_and_failures() {
    if !able(&[]) {
        return;
    }
    let world = World::new();
    let lines =
        |done: &crate::common::Done| -> Vec<Value> { done.stderr.lines().map(|line| serde_json::from_str(line).unwrap()).collect() };
    let text = |value: &Value| String::from_utf8(STANDARD.decode(value.as_str().unwrap()).unwrap()).unwrap();
    let raw = ["--progress=rawjson", "-t", "n:1"];
    let messages = lines(&world.build("FROM scratch as x\nCOPY . /\n", &raw).ok());
    let warning = &messages.iter().find_map(|message| message["warnings"].as_array()).unwrap()[0];
    assert!(text(&warning["short"]).starts_with("FromAsCasing: ") && text(&warning["short"]).ends_with(" (line 1)"), "{warning}");
    assert!(text(&warning["detail"][0]).contains("case") && warning["url"].as_str().unwrap().ends_with("#fromascasing"), "{warning}");
    assert_eq!(warning["range"], json!([{ "start": { "line": 1 }, "end": { "line": 1 } }]));
    assert_eq!((&warning["level"], warning["vertex"].is_string()), (&json!(1), true));
    assert!(warning["sourceInfo"]["filename"].as_str().unwrap().ends_with("Dockerfile"));
    for (dockerfile, place, message) in [
        ("FROM scratch as x\nCOPY absent /\n", "Dockerfile:2: ", "absent"),
        ("FROM scratch as x\nRUNN\n", "Dockerfile:2: ", "RUNN"),
        ("FROM 127.0.0.1:1/x as x\n", "Dockerfile:1: ", "127.0.0.1:1"),
        ("# check=error=true\nFROM scratch as x\n", "", "FromAsCasing"),
    ] {
        let messages = lines(&world.build(dockerfile, &raw).fails());
        assert_eq!(messages.iter().filter(|message| message["warnings"].is_array()).count(), 1, "{messages:?}");
        let error = messages.last().unwrap()["error"].as_str().unwrap();
        assert!(error.contains(place) && error.contains(message), "{error}");
    }
}

#[test]
fn a_failed_build_leaves_no_file_of_an_earlier_one_and_archives_have_names() {
    if !able(&[]) {
        return;
    }
    let world = World::new();
    let (meta, iid) = (world.path("meta.json"), world.path("iid"));
    let files = ["--metadata-file", meta.to_str().unwrap(), "--iidfile", iid.to_str().unwrap()];
    for to in [["-o", "type=oci,dest=x,name=a.b/c:1"], ["-t", "a.b/c:1"]] {
        world.build("FROM scratch\nCOPY . /\n", &[&files[..], &to, &["-o", "type=docker,dest=y"]].concat()).ok();
        assert_eq!(json_of(&meta)["image.name"], "a.b/c:1");
    }
    assert!(meta.exists() && iid.exists());
    world.build("FROM scratch\nCOPY absent /\n", &files).fails();
    assert!(!meta.exists() && !iid.exists());
    // What is no file stays.
    world.build_as_it_is(&["--iidfile", "/dev/null"]).fails().omits(&["/dev/null"]);
    assert!(Path::new("/dev/null").exists());
}

#[test]
fn raw_progress_is_json_lines_that_tell_the_whole_story() {
    let world = world();
    let done = world.build("FROM localhost/busybox\nRUN echo hello; exit 3\n", &["--progress", "rawjson"]).fails();
    let messages: Vec<Value> = done.stderr.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let all = |key: &str| -> Vec<Value> { messages.iter().filter_map(|message| message[key].as_array()).flatten().cloned().collect() };
    let vertexes = all("vertexes");
    let begun = vertexes.iter().find(|vertex| vertex["name"].as_str().unwrap().contains("RUN echo hello")).unwrap();
    assert!(begun["started"].is_string() && begun.get("completed").is_none());
    let ended = vertexes.iter().rfind(|vertex| vertex["digest"] == begun["digest"]).unwrap();
    assert!(ended["completed"].is_string() && ended["error"].is_string());
    let log = all("logs").into_iter().find(|log| log["vertex"] == begun["digest"]).unwrap();
    assert_eq!(log["data"], "aGVsbG8K");
}

#[test]
fn a_layout_with_a_broken_blob_is_mended_by_the_next_build() {
    let world = world();
    let dir = world.path("layout");
    let spec = format!("type=oci,tar=false,dest={}", dir.display());
    world.build(DOCKERFILE, &["-o", &spec, "-t", "n:1"]).ok();
    let blobs = || std::fs::read_dir(dir.join("blobs/sha256")).unwrap().map(|entry| entry.unwrap().path());
    let before: Vec<_> = blobs().map(|path| std::fs::read(path).unwrap()).collect();
    for path in blobs() {
        let length = std::fs::metadata(&path).unwrap().len() as usize;
        std::fs::write(&path, vec![0; length]).unwrap();
    }
    world.build(DOCKERFILE, &["-o", &spec, "-t", "n:1"]).ok();
    let mut after: Vec<_> = blobs().map(|path| std::fs::read(path).unwrap()).collect();
    let mut before = before;
    before.sort();
    after.sort();
    assert!(before == after);
}
