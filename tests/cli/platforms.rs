//! Builds for several platforms at once: one run, one index.
//!
//! Nothing here needs an emulator: what runs does so on the platform that builds, and images for others hold files only.

use serde_json::{Value, json};

use crate::common::{Registry, Run, Several, World, able, bases, world};

/// This machine's platform, and another one.
const HERE: &str = if cfg!(target_arch = "aarch64") { "linux/arm64" } else { "linux/amd64" };
const THERE: &str = if cfg!(target_arch = "aarch64") { "linux/amd64" } else { "linux/arm64" };

fn both() -> String {
    format!("{HERE},{THERE}")
}

fn arch(platform: &str) -> &str {
    platform.split('/').nth(1).unwrap()
}

/// A build of one file for each platform, which needs no sandbox.
const FILES: &str = "FROM scratch\nARG TARGETARCH\nCOPY $TARGETARCH /arch\nCOPY common /common\n";

fn files() -> World {
    let world = World::new();
    world.write("amd64", "for amd64\n").write("arm64", "for arm64\n").write("common", "for all\n").write("Dockerfile", FILES);
    world
}

/// Builds for both platforms and reads the archive.
#[track_caller]
fn built(world: &World, args: &[&str]) -> Several {
    let archive = world.path("several.tar");
    let platforms = both();
    let output = format!("type=oci,dest={}", archive.display());
    world.build_as_it_is(&[&["--platform", &platforms, "-o", &output], args].concat()).ok();
    Several::oci_archive(&archive)
}

/// What the metadata of such a build say.
#[track_caller]
fn metadata(world: &World, args: &[&str]) -> Value {
    let (file, platforms) = (world.path("meta.json"), both());
    let args = [&["--platform", &platforms, "--metadata-file", file.to_str().unwrap()], args].concat();
    world.build_as_it_is(&args).ok();
    serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap()
}

fn raw(registry: &Registry, name: &str) -> Value {
    let out = Run::new("skopeo", ["inspect", "--raw", "--tls-verify=false", &registry.url(name)]).ok().stdout;
    serde_json::from_str(&out).unwrap()
}

/// The steps that ran, by title.
fn ran(done: &crate::common::Done) -> Vec<String> {
    done.steps().into_iter().filter(|(title, outcome)| title.starts_with('[') && outcome == "DONE").map(|(title, _)| title).collect()
}

#[test]
fn the_result_is_an_index_of_one_image_for_each_platform_in_their_order() {
    let world = files();
    let (archive, id, meta) = (world.path("out.tar"), world.path("id"), world.path("meta"));
    let output = format!("type=oci,dest={},name=registry.example/app:1", archive.display());
    let (platforms, id, meta) = (format!("{THERE},linux/arm/v7,{HERE}"), id.to_str().unwrap(), meta.to_str().unwrap());
    // What is named twice counts once.
    let args = ["--platform", &platforms, "--platform", THERE, "-o", &output, "--iidfile", id, "--metadata-file", meta];
    world.write("arm", "for arm\n");
    let said = world.build_as_it_is(&args).ok();
    let several = Several::oci_archive(&archive);
    assert_eq!(several.platforms(), [THERE, "linux/arm/v7", HERE]);
    for platform in [HERE, THERE, "linux/arm/v7"] {
        let image = several.of(platform);
        assert_eq!(image.file("arch"), format!("for {}\n", arch(platform)));
        assert_eq!(image.file("common"), "for all\n");
        assert_eq!(image.config["architecture"], arch(platform));
    }
    assert_eq!(several.of("linux/arm/v7").config["variant"], "v7");
    let (entry, index) = (&several.entry, &several.index);
    assert_eq!(entry["mediaType"], "application/vnd.oci.image.index.v1+json");
    assert_eq!(entry["annotations"]["io.containerd.image.name"], "registry.example/app:1");
    assert_eq!((&index["mediaType"], &index["schemaVersion"]), (&entry["mediaType"], &json!(2)));
    for of in index["manifests"].as_array().unwrap() {
        assert_eq!(of["mediaType"], "application/vnd.oci.image.manifest.v1+json");
    }
    // What is written for others is the index.
    let digest = entry["digest"].as_str().unwrap();
    let meta: Value = serde_json::from_slice(&std::fs::read(meta).unwrap()).unwrap();
    assert_eq!(meta["containerimage.digest"], digest);
    assert_eq!(
        (&meta["containerimage.descriptor"]["digest"], &meta["containerimage.descriptor"]["size"]),
        (&entry["digest"], &entry["size"])
    );
    assert_eq!(meta["containerimage.descriptor"]["mediaType"], entry["mediaType"]);
    assert_eq!((&meta["image.name"], &meta["containerimage.config.digest"]), (&json!("registry.example/app:1"), &Value::Null));
    assert_eq!(std::fs::read_to_string(id).unwrap(), digest);
    said.says(&[&format!("index {digest}"), " for linux/arm/v7"]);
    let quiet = world.build_as_it_is(&["-q", "--platform", &platforms, "-o", &output]).ok();
    assert_eq!(quiet.stdout.trim(), digest);
    // A directory has the same.
    let dir = world.path("layout");
    let output = format!("type=oci,tar=false,dest={}", dir.display());
    world.build_as_it_is(&["--platform", &platforms, "-o", &output]).ok();
    let top: Value = serde_json::from_slice(&std::fs::read(dir.join("index.json")).unwrap()).unwrap();
    assert_eq!(top["manifests"][0]["digest"], digest);
    assert!(dir.join("blobs").join(digest.replace(':', "/")).is_file());
}

#[test]
fn an_image_for_windows_has_its_shell_its_spelling_of_paths_and_no_search_path() {
    let (world, archive) = (World::new(), "out.tar");
    let text = "# escape=`\nFROM scratch\nENTRYPOINT foo bar\nWORKDIR C:\\app\nWORKDIR sub\nARG TARGETPLATFORM TARGETOSVERSION\n\
                LABEL for=$TARGETPLATFORM version=$TARGETOSVERSION\nCOPY Dockerfile .\\in\\\n";
    world.write("Dockerfile", text);
    let (platforms, output) = (format!("windows(10.0.20348.1)/amd64,{HERE}"), format!("type=oci,dest={}", world.path(archive).display()));
    world.build_as_it_is(&["--platform", &platforms, "-o", &output]).ok();
    let several = Several::oci_archive(&world.path(archive));
    let image = several.of("windows/amd64");
    let config = &image.config["config"];
    assert_eq!(config["Entrypoint"], json!(["cmd", "/S", "/C", "foo bar"]));
    assert_eq!((&config["Env"], &config["WorkingDir"]), (&Value::Null, &json!("\\app\\sub")));
    assert_eq!(config["Labels"], json!({ "for": "windows(10.0.20348.1)/amd64", "version": "10.0.20348.1" }));
    assert_eq!((&image.config["os"], &image.config["os.version"]), (&json!("windows"), &json!("10.0.20348.1")));
    assert_eq!(several.index["manifests"][0]["platform"]["os.version"], "10.0.20348.1");
    assert!(image.tree().contains_key("app/sub/in/Dockerfile"));
    let config = &several.of(HERE).config["config"];
    assert_eq!(config["Entrypoint"], json!(["/bin/sh", "-c", "foo bar"]));
    assert!(config["Env"][0].as_str().unwrap().starts_with("PATH="), "{config}");
}

#[test]
fn platforms_may_come_from_the_environment_and_malformed_ones_are_refused() {
    let world = files();
    let output = format!("type=oci,dest={}", world.path("out.tar").display());
    world.build_as_it_is(&["-o", &output]).env("DOCKER_DEFAULT_PLATFORM", both()).ok();
    assert_eq!(Several::oci_archive(&world.path("out.tar")).platforms(), [HERE, THERE]);
    world.build_as_it_is(&["--platform", &format!("{HERE},linux/")]).fails().says(&["`linux/` is not a platform"]);
    world.build_as_it_is(&["--platform", &format!("{HERE},")]).fails().says(&["is not a platform"]);
}

/// What tells by its content how often it was made.
const CROSS: &str = "FROM --platform=$BUILDPLATFORM localhost/busybox AS build\nRUN head -c 16 /dev/urandom | od -An -tx1 >/id\nARG TARGETARCH\n\
    RUN echo $TARGETARCH >/arch\nFROM scratch\nCOPY --from=build /id /arch /\n";

#[test]
fn what_is_the_same_for_all_platforms_runs_once_also_without_the_cache() {
    let Some(world) = world() else { return };
    world.write("Dockerfile", CROSS);
    let (platforms, archive) = (both(), world.path("out.tar"));
    let output = format!("type=oci,dest={}", archive.display());
    let args = ["--platform", &platforms, "-o", &output];
    let mut ids = Vec::new();
    for more in [&[][..], &["--no-cache"]] {
        let done = world.build_as_it_is(&[&args, more].concat()).ok();
        let steps = ran(&done);
        let of = |text: &str| steps.iter().filter(|title| title.contains(text)).map(String::as_str).collect::<Vec<_>>();
        assert_eq!(of("RUN head"), [format!("[{HERE} build 2/3] RUN head -c 16 /dev/urandom | od -An -tx1 >/id")], "{done}");
        let mut expected = [
            format!("[{HERE} build 3/3] RUN echo $TARGETARCH >/arch"),
            format!("[{HERE}->{} build 3/3] RUN echo $TARGETARCH >/arch", arch(THERE)),
        ];
        expected.sort();
        let mut found = of("RUN echo");
        found.sort_unstable();
        assert_eq!(found, expected, "{done}");
        assert_eq!(of("COPY").len(), 2, "{done}");
        let several = Several::oci_archive(&archive);
        assert_eq!(several.of(HERE).file("id"), several.of(THERE).file("id"));
        assert_eq!(several.of(THERE).file("arch"), format!("{}\n", arch(THERE)));
        ids.push(several.of(HERE).file("id"));
    }
    assert_ne!(ids[0], ids[1]);
    // From the cache it is the same index.
    let digest = |args: &[&str]| world.build_as_it_is(&[&["-q"], args].concat()).ok().stdout;
    let first = digest(&args);
    assert_eq!(digest(&args), first);
    assert_eq!(ran(&world.build_as_it_is(&args).ok()), Vec::<String>::new());
    // What one platform has run serves the build of all, and no platform is told where there is one.
    let done = world.build(&CROSS.replace("/id", "/other"), &["--platform", THERE]).ok();
    assert!(ran(&done).iter().any(|title| title.starts_with("[build 2/3] RUN")), "{done}");
    let done = world.build_as_it_is(&args).ok();
    assert_eq!(ran(&done).len(), 2, "{done}");
}

#[test]
fn a_name_in_the_store_means_the_index_and_what_runs_here() {
    if !able(&["docker-registry", "skopeo"]) {
        return;
    }
    let (world, registry) = (files(), Registry::empty());
    let name = registry.name("app:1");
    let meta = metadata(&world, &["-t", &name, "--load"]);
    let digest = meta["containerimage.digest"].as_str().unwrap();
    let listed = world.strake(["images", "--digests", "--format", "{{.Repository}}:{{.Tag}} {{.Platform}} {{.Digest}}"]).ok().stdout;
    assert_eq!(listed, format!("{name} {HERE} {digest}\n"));
    let inspected: Value = serde_json::from_str(&world.strake(["inspect", &name]).ok().stdout).unwrap();
    assert_eq!(inspected[0]["Architecture"], arch(HERE));
    // All of it outlives what frees space, and goes where the name goes, by one more name too.
    world.strake(["image", "prune", "-f"]).ok();
    world.strake(["prune", "-f"]).ok();
    let other = registry.name("elsewhere:2");
    world.strake(["tag", &name, &other]).ok();
    for name in [&name, &other] {
        let said = world.strake(["push", name]).ok().stdout;
        assert!(said.contains(digest), "{said}");
    }
    for name in ["app:1", "elsewhere:2"] {
        let index = raw(&registry, name);
        assert_eq!(index["manifests"].as_array().unwrap().len(), 2);
        world.strake(["validate", "--remote", &registry.name(name)]).ok();
    }
    assert_eq!(world.strake(["digest", &name]).ok().stdout.trim(), digest);
    // One of them alone, where that is asked for; here the name still means all.
    let one = registry.name("one:1");
    world.strake(["tag", &name, &one]).ok();
    world.strake(["push", "--platform", THERE, &one]).ok();
    assert!(raw(&registry, "one:1")["manifests"].is_null());
    world.strake(["push", &one]).ok();
    assert_eq!(raw(&registry, "one:1")["manifests"].as_array().unwrap().len(), 2);
    let archive = world.path("there.tar");
    world.strake(["save", "--platform", THERE, "-o", archive.to_str().unwrap(), &name]).ok();
    assert_eq!(crate::common::Image::docker_archive(&archive).file("arch"), format!("for {}\n", arch(THERE)));
    world.strake(["system", "check"]).ok();
    // Another build of the name for this machine alone takes its place.
    world.build_as_it_is(&["-t", &name]).ok();
    world.strake(["push", &name]).ok();
    assert!(raw(&registry, "app:1")["manifests"].is_null());
}

#[test]
fn an_index_without_a_name_leaves_its_images() {
    let world = files();
    let done = world.build_as_it_is(&["--platform", &both()]).ok();
    let shown = world.strake(["images", "--format", "{{.ID}} {{.Platform}}", "--no-trunc"]).ok().stdout;
    for platform in [HERE, THERE] {
        let line = done.stderr.lines().find(|line| line.ends_with(&format!(" for {platform}"))).unwrap();
        let id = line.split(' ').nth(1).unwrap();
        assert!(shown.contains(&format!("{id} {platform}\n")), "{shown}{done}");
    }
}

#[test]
fn the_index_and_all_of_its_images_are_pushed_by_name_and_by_digest() {
    if !able(&["docker-registry", "skopeo"]) {
        return;
    }
    let (world, registry) = (files(), Registry::empty());
    let meta = metadata(&world, &["-t", &registry.name("app:1"), "-t", &registry.name("too:1"), "--push"]);
    let digest = meta["containerimage.digest"].as_str().unwrap();
    for name in ["app:1", "too:1"] {
        let index = raw(&registry, name);
        let platforms: Vec<&str> =
            index["manifests"].as_array().unwrap().iter().map(|of| of["platform"]["architecture"].as_str().unwrap()).collect();
        assert_eq!(platforms, [arch(HERE), arch(THERE)]);
        assert_eq!(world.strake(["digest", &registry.name(name)]).ok().stdout.trim(), digest);
        world.strake(["validate", "--remote", &registry.name(name)]).ok();
    }
    // Other tools take from it what they need.
    let inspected =
        Run::new("skopeo", ["inspect", "--tls-verify=false", "--override-arch", arch(THERE), &registry.url("app:1")]).ok().stdout;
    assert_eq!(serde_json::from_str::<Value>(&inspected).unwrap()["Architecture"], arch(THERE));
    // By digest there is no tag, and Docker's types make a manifest list.
    let name = registry.name("quiet");
    let output = format!("type=image,name={name},push-by-digest=true,push=true,store=false,oci-mediatypes=false");
    let meta = metadata(&world, &["-o", &output]);
    let digest = meta["containerimage.digest"].as_str().unwrap();
    let list = raw(&registry, &format!("quiet@{digest}"));
    assert_eq!(list["mediaType"], "application/vnd.docker.distribution.manifest.list.v2+json");
    for of in list["manifests"].as_array().unwrap() {
        assert_eq!(of["mediaType"], "application/vnd.docker.distribution.manifest.v2+json");
    }
    Run::new("skopeo", ["inspect", "--raw", "--tls-verify=false", &registry.url("quiet:latest")]).fails();
    world.strake(["inspect", &name]).fails();
}

#[test]
fn files_lie_in_a_directory_for_each_platform_or_together() {
    let world = files();
    let (dir, tar, platforms) = (world.path("out"), world.path("out.tar"), both());
    let local = format!("type=local,dest={}", dir.display());
    let archive = format!("type=tar,dest={}", tar.display());
    world.build_as_it_is(&["--platform", &platforms, "-o", &local, "-o", &archive]).ok();
    let list = Run::new("tar", ["-tf".as_ref(), tar.as_os_str()]).ok().stdout;
    for platform in [HERE, THERE] {
        let name = platform.replace('/', "_");
        assert_eq!(std::fs::read_to_string(dir.join(&name).join("arch")).unwrap(), format!("for {}\n", arch(platform)));
        assert!(list.contains(&format!("{name}/common\n")), "{list}");
    }
    // What is written to one platform's file is not written to the other's.
    let common = |platform: &str| dir.join(platform.replace('/', "_")).join("common");
    std::fs::write(common(HERE), "changed\n").unwrap();
    assert_eq!(std::fs::read_to_string(common(THERE)).unwrap(), "for all\n");
    // `mode=delete` spares none of what is exported.
    std::fs::create_dir(dir.join("linux_old")).unwrap();
    world.build_as_it_is(&["--platform", &platforms, "-o", &format!("{local},mode=delete")]).ok();
    assert!(!dir.join("linux_old").exists() && dir.join("linux_amd64/arch").exists() && dir.join("linux_arm64/arch").exists());
    // Together, where no two have the same file.
    let together = format!("{local},platform-split=false,mode=delete");
    let refused = world.build_as_it_is(&["--platform", &platforms, "-o", &together]).fails();
    refused.says(&["`/arch` is in the result for", HERE, THERE, "platform-split"]);
    assert!(dir.join("linux_amd64/arch").exists());
    world.write("Dockerfile", "FROM scratch\nARG TARGETARCH\nCOPY $TARGETARCH /d/$TARGETARCH\n");
    world.build_as_it_is(&["--platform", &platforms, "-o", &together, "-o", &format!("{archive},platform-split=false")]).ok();
    for name in ["amd64", "arm64"] {
        assert_eq!(std::fs::read_to_string(dir.join("d").join(name)).unwrap(), format!("for {name}\n"));
    }
    assert!(!dir.join("linux_amd64").exists());
    let list = Run::new("tar", ["-tf".as_ref(), tar.as_os_str()]).ok().stdout;
    assert_eq!(list.lines().collect::<Vec<_>>(), ["d/", "d/amd64", "d/arm64"]);
}

#[test]
fn what_there_cannot_be_of_several_platforms_is_refused_before_anything_is_built() {
    let world = files();
    let platforms = both();
    let refused = |more: &[&str], texts: &[&str]| {
        let args = [&["--platform", &platforms], more].concat();
        world.build_as_it_is(&args).fails().says(texts).omits(&["COPY"]);
    };
    refused(&["-o", "type=docker,dest=/dev/null"], &["`type=docker`", "type=oci"]);
    refused(&["--build-arg", "BUILDKIT_MULTI_PLATFORM=0"], &["BUILDKIT_MULTI_PLATFORM is off"]);
    refused(&["--annotation", "manifest[linux/s390x]:a=b"], &["is for linux/s390x, which is not built", HERE]);
    refused(&["-o", "type=image,annotation-manifest-descriptor[linux/s390x].a=b"], &["is for linux/s390x, which is not built"]);
    // Nothing of it for Docker's own place, which is the store.
    world.build_as_it_is(&["--platform", &platforms, "-o", "type=docker", "-t", "n:1"]).ok();
}

#[test]
fn annotations_are_of_the_index_or_of_the_images_that_they_name() {
    let world = files();
    let manifest = format!("manifest[{THERE}],manifest-descriptor[{THERE}]:there=1");
    let args = [
        "--annotation",
        "everywhere=1",
        "--annotation",
        "index,index-descriptor:of=index",
        "--annotation",
        &manifest,
        "--annotation",
        "manifest-descriptor:all=1",
    ];
    let several = built(&world, &args);
    assert_eq!(several.index["annotations"], json!({ "of": "index" }));
    assert_eq!(several.entry["annotations"], json!({ "of": "index" }));
    assert_eq!(several.of(HERE).manifest["annotations"], json!({ "everywhere": "1" }));
    assert_eq!(several.of(THERE).manifest["annotations"], json!({ "everywhere": "1", "there": "1" }));
    let entries = &several.index["manifests"];
    assert_eq!(entries[0]["annotations"], json!({ "all": "1" }));
    assert_eq!(entries[1]["annotations"], json!({ "all": "1", "there": "1" }));
    // The same by keys of an output; what is for one platform goes before what is for all.
    let archive = world.path("keys.tar");
    let keys = format!("annotation.k=all,annotation[{THERE}].k=one,annotation-index.i=1,annotation-index-descriptor.d=1");
    let output = format!("type=oci,dest={},{keys}", archive.display());
    world.build_as_it_is(&["--platform", &both(), "-o", &output]).ok();
    let several = Several::oci_archive(&archive);
    assert_eq!(several.of(HERE).manifest["annotations"]["k"], "all");
    assert_eq!(several.of(THERE).manifest["annotations"]["k"], "one");
    assert_eq!((&several.index["annotations"]["i"], &several.entry["annotations"]["d"]), (&json!("1"), &json!("1")));
    // One image has no index, but a platform.
    world.build_as_it_is(&["--annotation", "index:a=b"]).fails().says(&["the result has none"]);
    let (archive, other) = (world.path("one.tar"), format!("manifest[{THERE}]:a=b"));
    let output = format!("type=oci,dest={}", archive.display());
    world.build_as_it_is(&["-o", &output, "--annotation", &other]).fails().says(&["which is not built"]);
    world.build_as_it_is(&["--platform", THERE, "-o", &output, "--annotation", &other]).ok();
    assert_eq!(crate::common::Image::oci_archive(&archive).manifest["annotations"]["a"], "b");
}

#[test]
fn an_index_can_be_had_of_one_platform() {
    let world = files();
    let (archive, dir) = (world.path("one.tar"), world.path("out"));
    let outputs = [format!("type=oci,dest={}", archive.display()), format!("type=local,dest={}", dir.display())];
    let done = world.build_as_it_is(&["--build-arg", "BUILDKIT_MULTI_PLATFORM=1", "-o", &outputs[0], "-o", &outputs[1]]).ok();
    done.omits(&["has no effect", "was not used"]);
    assert_eq!(Several::oci_archive(&archive).platforms(), [HERE]);
    assert!(dir.join(HERE.replace('/', "_")).join("arch").exists());
    world.build_as_it_is(&["--build-arg", "BUILDKIT_MULTI_PLATFORM=maybe"]).fails().says(&["is true or false, not `maybe`"]);
}

#[test]
fn one_platform_that_fails_fails_the_build_and_is_told() {
    let Some(world) = world() else { return };
    let text = "FROM --platform=$BUILDPLATFORM localhost/busybox AS build\nARG TARGETARCH\nRUN [ $TARGETARCH = HERE ] && sleep 60\nFROM scratch\nCOPY --from=build /etc/passwd /\n";
    world.write("Dockerfile", text.replace("HERE", arch(HERE)));
    let started = std::time::Instant::now();
    let failed = world.build_as_it_is(&["--platform", &both(), "-t", "broken:1"]).fails();
    failed.says(&[&format!("({HERE}->{}) exited with status 1", arch(THERE))]);
    assert!(started.elapsed().as_secs() < 50, "the other platform was not stopped: {failed}");
    world.strake(["inspect", "broken:1"]).fails();
    // A base that is not there for one of them.
    world.write("Dockerfile", "FROM localhost:1/base-$TARGETARCH\n");
    let failed = world
        .build("FROM scratch AS base-HERE\nFROM base-$TARGETARCH\n".replace("HERE", arch(HERE)).as_str(), &["--platform", &both()])
        .fails();
    failed.says(&[THERE]);
    // What is wrong for both is told once.
    let failed = world.build("FROM scratch\nCOPY --from=nowhere:$ /x /\n", &["--platform", &both()]).fails();
    assert_eq!(failed.stderr.matches("error:").count(), 2, "{failed}");
    failed.omits(&[THERE]);
}

#[test]
fn warnings_are_told_once_and_the_checks_look_at_all_platforms() {
    let world = files();
    let text = "FROM scratch as base\nARG TARGETARCH\nCOPY $TARGETARCH /arch\n";
    let done = world.build(text, &["--platform", &both()]).ok();
    assert_eq!(done.stderr.matches("FromAsCasing").count(), 1, "{done}");
    let checked = world.build_as_it_is(&["--platform", &both(), "--check"]).fails();
    assert_eq!(checked.stdout.matches("FromAsCasing").count(), 1, "{checked}");
    for call in ["outline", "targets"] {
        world.build_as_it_is(&["--platform", &both(), &format!("--call={call}")]).ok();
    }
}

#[test]
fn the_same_inputs_give_the_same_index_in_any_store() {
    let Some(world) = world() else { return };
    let text = "FROM --platform=$BUILDPLATFORM localhost/busybox AS build\nARG TARGETARCH\nRUN echo $TARGETARCH >/arch\nFROM scratch\nCOPY --from=build /arch /\n";
    world.write("Dockerfile", text).write("f", "x");
    let other = World::new();
    other.busybox().write("Dockerfile", text).write("f", "x");
    let digest =
        |world: &World, more: &[&str]| metadata(world, &[&["--reproducible", "-t", "n:1"], more].concat())["containerimage.digest"].clone();
    let first = digest(&world, &[]);
    assert_eq!(digest(&world, &[]), first);
    assert_eq!(digest(&world, &["--no-cache"]), first);
    assert_eq!(digest(&other, &["--verify-reproducible"]), first);
    // Times of files in layers are held to that of an output, for each platform.
    let archive = world.path("times.tar");
    let output = format!("type=oci,dest={},rewrite-timestamp=true,source-date-epoch=1000000000", archive.display());
    world.build_as_it_is(&["--platform", &both(), "-o", &output]).ok();
    let several = Several::oci_archive(&archive);
    for platform in [HERE, THERE] {
        assert_eq!(several.of(platform).tree()["arch"].mtime, 1_000_000_000);
        assert_eq!(several.of(platform).config["created"], "2001-09-09T01:46:40Z");
    }
    assert_eq!(several.entry["annotations"]["org.opencontainers.image.created"], "2001-09-09T01:46:40Z");
    // A step that differs is named with its platform.
    let text = text.replace("RUN echo", "RUN cat /proc/sys/kernel/random/uuid >/arch; echo");
    let text = text.replace(">/arch\n", ">>/arch\n");
    let failed = world.build(&text, &["--platform", &both(), "--verify-reproducible"]).fails();
    failed.says(&["gave two results", &format!("({HERE}->{})", arch(THERE))]);
}

#[test]
fn caches_carry_all_platforms_to_other_machines() {
    if !able(&["docker-registry"]) {
        return;
    }
    let registry = Registry::with_bases();
    let text = CROSS.replace("localhost", registry.host());
    let directory = tempfile::tempdir().unwrap();
    let places = [
        (format!("type=local,mode=max,dest={}", directory.path().display()), format!("type=local,src={}", directory.path().display())),
        (format!("type=registry,mode=max,ref={}", registry.name("cache")), format!("type=registry,ref={}", registry.name("cache"))),
    ];
    for (to, from) in places {
        let (maker, user) = (World::new(), World::new());
        maker.write("Dockerfile", &text);
        user.write("Dockerfile", &text);
        let first = metadata(&maker, &["--cache-to", &to, "-t", "n:1"]);
        let platforms = both();
        let done = user.build_as_it_is(&["--platform", &platforms, "--cache-from", &from, "-t", "n:1"]).ok();
        assert!(!ran(&done).iter().any(|title| title.contains("RUN") || title.contains("COPY")), "{done}");
        assert_eq!(metadata(&user, &["-t", "n:1"])["containerimage.digest"], first["containerimage.digest"]);
    }
    // In the images: each knows the steps of its own.
    let text = "FROM scratch\nARG TARGETARCH\nCOPY $TARGETARCH /arch\nADD busybox.tar /\n";
    let (maker, user) = (files(), files());
    for world in [&maker, &user] {
        world.write("Dockerfile", text);
        std::fs::copy(bases().join("busybox.tar"), world.context().join("busybox.tar")).unwrap();
    }
    let name = registry.name("inline:1");
    metadata(&maker, &["--cache-to", "type=inline", "-t", &name, "--push"]);
    let done = user.build_as_it_is(&["--platform", &both(), "--cache-from", &name]).ok();
    assert!(!ran(&done).iter().any(|title| title.contains("COPY") || title.contains("ADD")), "{done}");
}

#[test]
fn a_test_runs_in_the_image_of_each_platform() {
    let Some(world) = world() else { return };
    // Programs of this machine in images that say that they are for another: those run here.
    std::fs::copy(bases().join("busybox.tar"), world.context().join("busybox.tar")).unwrap();
    let text = "FROM scratch\nARG TARGETARCH\nADD busybox.tar /\nENV PATH=/bin ARCH=$TARGETARCH\n";
    world.build(text, &["--platform", &both(), "-t", "n:1", "--test", "echo tested $ARCH"]).ok().says(&["tested amd64", "tested arm64"]);
    let failed = world.build_as_it_is(&["--platform", &both(), "-t", "n:2", "--test", &format!("[ $ARCH = {} ]", arch(HERE))]).fails();
    failed.says(&[&format!("for {THERE} exited with status 1")]);
    world.strake(["inspect", "n:2"]).fails();
    // Nothing is left of the other platform that has no name.
    assert_eq!(world.strake(["images", "-q", "--filter", "dangling=true"]).ok().stdout, "");
}

#[test]
fn a_base_that_was_built_for_several_platforms_serves_each_of_them() {
    let world = files();
    world.build_as_it_is(&["--platform", &both(), "-t", "localhost/base:1"]).ok();
    world.write("Dockerfile", "FROM localhost/base:1\nCOPY common /more\n");
    let several = built(&world, &[]);
    for platform in [HERE, THERE] {
        assert_eq!(several.of(platform).file("arch"), format!("for {}\n", arch(platform)));
        assert_eq!(several.of(platform).file("more"), "for all\n");
    }
}

#[test]
fn reasons_compare_with_the_last_build_of_the_same_platform() {
    let Some(world) = world() else { return };
    let text = "FROM --platform=$BUILDPLATFORM localhost/busybox AS build\nARG TARGETARCH\nCOPY $TARGETARCH /arch\nRUN echo one $TARGETARCH\nFROM scratch\nCOPY --from=build /arch /\n";
    world.write("amd64", "1").write("arm64", "1");
    world.build(text, &["--platform", &both()]).ok();
    world.write(arch(THERE), "2");
    let done = world.build_as_it_is(&["--platform", &both(), "--explain"]).ok();
    assert_eq!(done.stderr.matches(&format!("why: {} changed", arch(THERE))).count(), 1, "{done}");
    assert_eq!(ran(&done).iter().filter(|title| title.contains(" build ")).count(), 2, "{done}");
    // A build for one of them knows what that of both did.
    world.write(arch(THERE), "3");
    world.build_as_it_is(&["--platform", THERE]).ok().says(&[&format!("why: {} changed", arch(THERE))]);
}

/// A stage for each platform whose command runs here.
const STEPS: &str = "FROM --platform=$BUILDPLATFORM localhost/busybox AS build\nARG TARGETARCH\nRUN echo $TARGETARCH > /arch\n\
    FROM --platform=$BUILDPLATFORM localhost/busybox\nARG TARGETARCH\nCOPY --from=build /arch /arch\nENV BUILT_FOR=$TARGETARCH\n";

#[test]
fn profile_and_status_tell_the_steps_of_each_platform() {
    let Some(world) = world() else { return };
    let file = world.path("profile.json");
    let args = ["--platform", &both(), "--profile", file.to_str().unwrap(), "--progress", "rawjson"];
    let done = world.build(STEPS, &args).ok();
    let trace: Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    let steps: Vec<&Value> = trace["traceEvents"].as_array().unwrap().iter().filter(|event| event["cat"] == "steps").collect();
    let status: Vec<Value> = done.stderr.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let vertexes: Vec<&Value> = status.iter().flat_map(|line| line["vertexes"].as_array().into_iter().flatten()).collect();
    for title in [
        format!("[{HERE} build 2/2] RUN echo $TARGETARCH > /arch"),
        format!("[{HERE}->{} build 2/2] RUN echo $TARGETARCH > /arch", arch(THERE)),
        format!("[{HERE} stage-1 2/2] COPY --from=build /arch /arch"),
        format!("[{HERE}->{} stage-1 2/2] COPY --from=build /arch /arch", arch(THERE)),
    ] {
        let of: Vec<_> = steps.iter().filter(|step| step["name"] == title.as_str()).collect();
        assert!(of.len() == 1 && of[0]["args"]["outcome"] == "done" && of[0]["dur"].as_f64().unwrap() > 0.0, "{title}: {steps:?}");
        let of: Vec<_> = vertexes.iter().filter(|vertex| vertex["name"] == title.as_str()).collect();
        assert!(of.iter().any(|vertex| vertex["completed"].is_string()), "{title}: {vertexes:?}");
        let digest = |vertex: &&&Value| vertex["digest"].as_str().unwrap().to_owned();
        assert!(of.iter().all(|vertex| digest(vertex) == digest(&of[0])), "one vertex, told again as it goes on");
    }
}

#[test]
fn a_container_runs_the_image_of_the_platform_that_is_asked_for() {
    let Some(world) = world() else { return };
    world.build(STEPS, &["--platform", &both(), "-t", "localhost/several:1"]).ok();
    let run = |args: &[&str]| {
        let image = ["localhost/several:1", "sh", "-c", "echo $BUILT_FOR $(cat /arch)"];
        world.strake([&["run", "--rm", "--network", "none"], args, &image].concat())
    };
    for platform in [HERE, THERE, HERE] {
        let expected = format!("{0} {0}\n", arch(platform));
        assert_eq!(run(&["--platform", platform]).ok().stdout, expected);
        assert_eq!(run(&["--pull", "never", "--platform", platform]).ok().stdout, expected);
    }
    assert_eq!(run(&[]).ok().stdout, format!("{0} {0}\n", arch(HERE)));
    run(&["--pull", "never", "--platform", "linux/s390x"]).fails().says(&["localhost/several:1"]);
}
