//! `build --build-context`: directories, images and layouts in place of stages and images.

use crate::common::{Image, Run, World};

fn world() -> Option<World> {
    let world = crate::common::world()?;
    std::fs::create_dir(world.path("other")).unwrap();
    Some(world)
}

fn write(world: &World, name: &str, text: &str) {
    std::fs::write(world.path("other").join(name), text).unwrap();
}

fn text_of(image: &Image, path: &str) -> String {
    String::from_utf8(image.tree()[path].content.clone()).unwrap()
}

#[test]
fn a_directory_is_copied_and_mounted_from_without_what_its_own_ignore_file_hides() {
    let Some(world) = world() else { return };
    world.write("main.txt", "main\n").write(".dockerignore", "*.md\n");
    write(&world, "shown.md", "shown\n");
    write(&world, "hidden.txt", "hidden\n");
    write(&world, ".dockerignore", "hidden.*\n");
    let text = "FROM localhost/busybox\nCOPY main.txt /main\nCOPY --from=other . /copied/\n\
                RUN --mount=from=other,target=/mounted ls /mounted > /listed\n";
    let image = world.image(text, &["--build-context", "other=other"]);
    assert_eq!(text_of(&image, "copied/shown.md"), "shown\n");
    assert_eq!(text_of(&image, "listed"), "shown.md\n");
    assert!(!image.tree().contains_key("copied/hidden.txt"));
    let done = world.build("FROM localhost/busybox\nCOPY --from=other hidden.txt /\n", &["--build-context", "other=other"]).fails();
    done.says(&["excluded by the pattern `hidden.*` on line 1"]);
}

#[test]
fn a_step_is_cached_by_what_it_reads_of_a_directory_and_not_by_the_rest_or_its_place() {
    let Some(world) = world() else { return };
    write(&world, "used", "1\n");
    write(&world, "unused", "1\n");
    let text = "FROM localhost/busybox\nCOPY --from=other used /used\nRUN echo the-step-ran > /ran\n";
    let build = |dir: &str| world.build(text, &["--build-context", &format!("other={dir}")]).ok();
    let cached = |dir: &str| {
        let done = build(dir);
        (done.step("COPY --from=other") == "CACHED", done.step("RUN echo") == "CACHED")
    };
    build("other");
    write(&world, "unused", "2\n");
    assert_eq!(cached("other"), (true, true));
    std::fs::rename(world.path("other"), world.path("moved")).unwrap();
    assert_eq!(cached("moved"), (true, true));
    std::fs::rename(world.path("moved"), world.path("other")).unwrap();
    write(&world, "used", "2\n");
    assert_eq!(cached("other"), (false, false));
}

#[test]
fn a_directory_takes_the_place_of_a_base_and_of_a_stage() {
    let Some(world) = world() else { return };
    write(&world, "f", "from the directory\n");
    let text = "FROM alpine:3 AS tools\nRUN exit 7\nFROM base\nCOPY --from=tools /f /g\nENV A=1\n";
    let image = world.image(text, &["--build-context", "base=other", "--build-context", "tools=other"]);
    assert_eq!((text_of(&image, "f").as_str(), text_of(&image, "g").as_str()), ("from the directory\n", "from the directory\n"));
    let config = image.run_config();
    assert_eq!(config["WorkingDir"], "/");
    let history = image.config["history"].as_array().unwrap().iter().filter(|entry| entry["empty_layer"] != true).count();
    assert_eq!(history, image.config["rootfs"]["diff_ids"].as_array().unwrap().len());
}

#[test]
fn an_image_takes_the_place_of_another_with_its_settings() {
    let Some(world) = world() else { return };
    let text = "FROM nowhere.invalid/base:1\nRUN echo ran > /ran\n";
    let image = world.image(text, &["--build-context", "nowhere.invalid/base:1=docker-image://localhost/busybox"]);
    assert_eq!(text_of(&image, "ran"), "ran\n");
    assert_eq!(image.run_config()["Cmd"], serde_json::json!(["sh"]));
}

#[test]
fn a_layout_takes_the_place_of_an_image_and_is_checked() {
    let Some(world) = world() else { return };
    let archive = world.path("base.tar");
    world.build("FROM localhost/busybox\nLABEL from=layout\n", &["-o", &format!("type=oci,dest={}", archive.display())]).ok();
    let layout = world.path("layout");
    std::fs::create_dir(&layout).unwrap();
    Run::new("tar", ["-xf".as_ref(), archive.as_os_str(), "-C".as_ref(), layout.as_os_str()]).ok();
    let text = "FROM nowhere.invalid/base\nRUN echo ran > /ran\n";
    let fresh = World::new();
    let flag = format!("nowhere.invalid/base=oci-layout://{}", layout.display());
    let image = fresh.image(text, &["--build-context", &flag]);
    assert_eq!(text_of(&image, "ran"), "ran\n");
    assert_eq!(image.run_config()["Labels"]["from"], "layout");

    // As for buildx, the only image is meant whatever the tag; of several, none is.
    let tagged = ["--build-context", &format!("{flag}:nosuch")];
    fresh.build(text, &tagged).ok();
    let path = layout.join("index.json");
    let mut index: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    let entries = index["manifests"].as_array_mut().unwrap();
    let mut second = entries[0].clone();
    second["annotations"]["org.opencontainers.image.ref.name"] = "other".into();
    entries.push(second);
    std::fs::write(&path, index.to_string()).unwrap();
    fresh.build(text, &tagged).fails().says(&["no image with the tag `nosuch`"]);
    fresh.build(text, &["--build-context", &format!("{flag}:other")]).ok();
    index["manifests"].as_array_mut().unwrap().truncate(1);
    std::fs::write(&path, index.to_string()).unwrap();
    let largest = walk(&layout.join("blobs/sha256")).into_iter().max_by_key(|path| path.metadata().unwrap().len()).unwrap();
    let mut bytes = std::fs::read(&largest).unwrap();
    bytes[100] ^= 1;
    std::fs::write(&largest, bytes).unwrap();
    World::new().build(text, &["--build-context", &flag]).fails().says(&["sha256:"]);
}

fn walk(dir: &std::path::Path) -> Vec<std::path::PathBuf> {
    std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect()
}

#[test]
fn what_cannot_be_read_is_told_even_where_nobody_names_it() {
    let Some(world) = world() else { return };
    let text = "FROM localhost/busybox\nCOPY --from=other x /\n";
    world.build(text, &["--build-context", "other=no/such/dir"]).fails().says(&["build context `other`", "no/such/dir"]);
    world.build("FROM localhost/busybox\n", &["--build-context", "other=no/such/dir"]).fails().says(&["build context `other`"]);
}

#[test]
fn the_host_name_and_the_names_of_cache_mounts_are_build_arguments() {
    let Some(world) = world() else { return };
    let text = "FROM localhost/busybox\nRUN --mount=type=cache,target=/c hostname > /name && touch /c/$(hostname) && ls /c > /seen\n";
    let image = world.image(text, &["--build-arg", "BUILDKIT_SANDBOX_HOSTNAME=one"]);
    assert_eq!((text_of(&image, "name").as_str(), text_of(&image, "seen").as_str()), ("one\n", "one\n"));
    let args = ["--build-arg", "BUILDKIT_SANDBOX_HOSTNAME=two", "--build-arg", "BUILDKIT_CACHE_MOUNT_NS=other"];
    let image = world.image(text, &args);
    assert_eq!((text_of(&image, "name").as_str(), text_of(&image, "seen").as_str()), ("two\n", "two\n"));
}
