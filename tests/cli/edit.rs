//! Images made of images: `mutate`, `append`, `flatten`, `rebase`; and `diff`, which tells two apart.

use serde_json::{Value, json};

use crate::common::{Image, Registry, Run, World, able};

fn json_of(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// The digests of the layers in a manifest.
fn layers(manifest: &Value) -> Vec<String> {
    manifest["layers"].as_array().unwrap().iter().map(|layer| layer["digest"].as_str().unwrap().to_owned()).collect()
}

/// An image of the store, read from an archive of it.
fn saved(world: &World, name: &str) -> Image {
    let path = world.path("saved.tar");
    world.strake(["save", "--format", "oci-archive", "-o", path.to_str().unwrap(), name]).ok();
    Image::oci_archive(&path)
}

/// A tar archive of files with these contents.
fn tar(files: &[(&str, &str)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, content) in files {
        let mut header = tar::Header::new_ustar();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        builder.append_data(&mut header, name, content.as_bytes()).unwrap();
    }
    builder.into_inner().unwrap()
}

#[test]
fn mutate_changes_the_config_of_an_image_of_the_store_and_nothing_else() {
    if !able(&[]) {
        return;
    }
    let world = World::new();
    world.busybox();
    let text =
        "FROM localhost/busybox\nENV KEEP=1 SET=old GONE=1\nLABEL kept=yes gone=yes\nRUN echo word > /word\nCMD [\"cat\", \"/word\"]\n";
    world.build(text, &["-t", "app"]).ok();
    let before = saved(&world, "app");
    let flags = ["--env", "SET=new=er", "-e", "MORE=", "--unset-env", "GONE", "--label", "a.b=c d", "--unset-label", "gone"];
    let more = ["--entrypoint", "/bin/sh,-c", "--cmd", "[\"echo a,b\"]", "-u", "7:8", "-w", "/srv", "--exposed-ports", "80,53/udp"];
    let id = world.strake(["mutate", "app", "-q", "-t", "other:1"]).arg_all(&flags).arg_all(&more).ok().stdout;
    let after = saved(&world, "other:1");
    assert_eq!(after.config["rootfs"], before.config["rootfs"]);
    assert_eq!(after.config["history"], before.config["history"]);
    let config = after.run_config();
    let env: Vec<&str> = config["Env"].as_array().unwrap().iter().map(|entry| entry.as_str().unwrap()).collect();
    assert_eq!(env[1..], ["KEEP=1", "SET=new=er", "MORE="]);
    assert_eq!(config["Labels"], json!({ "a.b": "c d", "kept": "yes" }));
    assert_eq!((&config["Entrypoint"], &config["Cmd"]), (&json!(["/bin/sh", "-c"]), &json!(["echo a,b"])));
    assert_eq!((&config["User"], &config["WorkingDir"]), (&json!("7:8"), &json!("/srv")));
    assert_eq!(config["ExposedPorts"], json!({ "53/udp": {}, "80/tcp": {} }));
    // The same again is the same; the image that it was made of is as it was.
    assert_eq!(world.strake(["mutate", "app", "-q", "-t", "third"]).arg_all(&flags).arg_all(&more).ok().stdout, id);
    assert_eq!(saved(&world, "app").config, before.config);
    world
        .strake(["mutate", "-q", "app", "--entrypoint", "", "--cmd", "cat,/word", "--annotation", "a=b", "--set-platform", "linux/arm64"])
        .ok();
    let changed = saved(&world, "app");
    assert_eq!(changed.config["architecture"], "arm64");
    assert_eq!(changed.manifest["annotations"], json!({ "a": "b" }));
    assert_eq!(changed.run_config().get("Entrypoint"), None);
    world.strake(["mutate", "nothing@x", "--env", "A=b"]).fails().says(&["nothing@x"]);
}

#[test]
fn an_image_of_a_registry_is_changed_where_it_is_and_stays_of_its_kind() {
    if !able(&["docker-registry", "skopeo"]) {
        return;
    }
    let (world, registry) = (World::new(), Registry::with_bases());
    let (name, url) = (registry.name("mine/app:1"), registry.url("mine/app:1"));
    let copy = ["--insecure-policy", "copy", "-q", "--format", "v2s2", "--src-tls-verify=false", "--dest-tls-verify=false"];
    Run::new("skopeo", copy).arg(registry.url("busybox:latest")).arg(&url).ok();
    let before = json_of(&world.strake(["manifest", &name]).ok().stdout);
    // It works without the layers, as it need not read them.
    let digest = layers(&before)[0].clone();
    let hex = digest.strip_prefix("sha256:").unwrap();
    let blob = registry.storage().join("docker/registry/v2/blobs/sha256").join(&hex[..2]).join(hex).join("data");
    let (bytes, len) = (std::fs::read(&blob).unwrap(), std::fs::metadata(&blob).unwrap().len());
    std::fs::remove_file(&blob).unwrap();
    std::fs::write(&blob, vec![0; usize::try_from(len).unwrap()]).unwrap();
    let shown = world.strake(["mutate", "-q", &name, "--env", "A=b", "-a", "note=x"]).ok().stdout;
    std::fs::write(&blob, bytes).unwrap();
    let raw = world.strake(["manifest", &name]).ok().stdout;
    let after = json_of(&raw);
    assert_eq!(shown.trim(), format!("{}@{}", registry.name("mine/app"), world.strake(["digest", &name]).ok().stdout.trim()));
    assert_eq!(after["mediaType"], "application/vnd.docker.distribution.manifest.v2+json");
    assert_eq!((&after["layers"], &after["annotations"]), (&before["layers"], &json!({ "note": "x" })));
    assert_eq!(world.strake(["images", "-q"]).ok().stdout, "");
    let config = json_of(&Run::new("skopeo", ["inspect", "--config", "--raw", "--tls-verify=false", &url]).ok().stdout);
    assert!(config["config"]["Env"].as_array().unwrap().contains(&json!("A=b")));
    // By digest, to another repository (whose layers are mounted), and into a file.
    let by_digest = world.strake(["mutate", "-q", shown.trim(), "--env", "A=c"]).ok().stdout;
    assert_ne!(by_digest, shown);
    assert_eq!(world.strake(["manifest", &name]).ok().stdout, raw, "the tag stays where it is");
    world.strake(["manifest", by_digest.trim()]).ok();
    world.strake(["mutate", "-q", &name, "--user", "9", "-t", &registry.name("elsewhere:2")]).ok();
    world.strake(["validate", "--remote", &registry.name("elsewhere:2")]).ok();
    let pushed = world.strake(["mutate", "-q", &name, "--user", "9", "--repo", &registry.name("third")]).ok().stdout;
    assert!(pushed.starts_with(&registry.name("third@sha256:")), "{pushed}");
    let file = world.path("out.tar");
    world.strake(["mutate", "-q", &name, "--user", "9", "-o", file.to_str().unwrap(), "-t", "acme/x:1"]).ok();
    assert_eq!(world.strake(["load", "-q", "-i", file.to_str().unwrap()]).ok().stdout, "Loaded image: acme/x:1\n");
    // Nothing changed is nothing new.
    assert!(world.strake(["mutate", "-q", &name]).ok().stdout.trim().ends_with(world.strake(["digest", &name]).ok().stdout.trim()));
}

#[test]
fn layers_are_appended_from_archives_of_every_kind() {
    if !able(&["docker-registry", "skopeo"]) {
        return;
    }
    let (world, registry) = (World::new(), Registry::with_bases());
    let (plain, gzip, zstd) = (tar(&[("one", "1\n"), ("dir/in", "i\n")]), tar(&[("two", "2\n")]), tar(&[("one", "changed\n")]));
    std::fs::write(world.path("plain.tar"), &plain).unwrap();
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    std::io::Write::write_all(&mut encoder, &gzip).unwrap();
    let gzip = encoder.finish().unwrap();
    std::fs::write(world.path("layer.tgz"), &gzip).unwrap();
    std::fs::write(world.path("layer.zst"), zstd::encode_all(zstd.as_slice(), 3).unwrap()).unwrap();
    let files = ["-f", "plain.tar", "-f", "layer.tgz", "layer.zst"];
    // At a registry: what is compressed is sent as it is.
    let base = registry.name("busybox:latest");
    let name = registry.name("made:1");
    world.strake(["append", "-q", "-b", &base, "-t", &name]).arg_all(&files).ok();
    world.strake(["validate", "--remote", &name]).ok();
    let manifest = json_of(&world.strake(["manifest", &name]).ok().stdout);
    let hash = crate::common::hex(&<sha2::Sha256 as sha2::Digest>::digest(&gzip));
    assert_eq!(layers(&manifest)[2], format!("sha256:{hash}"));
    assert_eq!(world.strake(["images", "-q"]).ok().stdout, "");
    // In the store, where it runs.
    world.strake(["pull", "-q", &base]).ok();
    world.strake(["append", "-q", "--base", &base, "--new_tag", "made:2"]).arg_all(&files).ok();
    assert_eq!(world.strake(["run", "--rm", "made:2", "cat", "/one", "/two", "/dir/in"]).ok().stdout, "changed\n2\ni\n");
    let image = saved(&world, "made:2");
    let history: Vec<_> = image.history().into_iter().rev().take(3).collect();
    let entry = |file: &str| (format!("strake append {file}"), true);
    assert_eq!(history, [entry("layer.zst"), entry("layer.tgz"), entry("plain.tar")]);
    // Both are the same image.
    world.strake(["diff", "made:2", &format!("docker://{name}")]).ok();
    // Of nothing, and from standard input.
    world.strake(["append", "-q", "-f", "-", "-t", "alone"]).stdin(plain).ok();
    let alone = saved(&world, "alone");
    assert_eq!(alone.tree().keys().collect::<Vec<_>>(), ["dir/in", "one"]);
    std::fs::write(world.path("bad.tar"), "this is no archive at all").unwrap();
    world.strake(["append", "-b", "made:2", "-f", "bad.tar", "-t", "bad"]).fails().says(&["bad.tar"]);
    world.strake(["append", "-b", "made:2", "-f", "missing.tar"]).fails().says(&["missing.tar"]);
}

#[test]
fn flatten_keeps_the_files_and_drops_what_was_deleted() {
    if !able(&["docker-registry"]) {
        return;
    }
    let (world, registry) = (World::new(), Registry::empty());
    world.busybox();
    let text = "FROM localhost/busybox\nRUN echo secret > /secret; echo kept > /kept; mkdir -m 1777 /sticky; ln /kept /linked\nRUN rm /secret; chmod 700 /sticky\nUSER 5\n";
    world.build(text, &["-t", "app"]).ok();
    world.strake(["flatten", "-q", "app", "-t", "flat"]).ok();
    let flat = saved(&world, "flat");
    assert_eq!(flat.layers.len(), 1);
    assert!(!flat.layers[0].contains_key("secret") && !flat.layers[0].keys().any(|path| path.contains(".wh.")));
    assert_eq!(flat.layers[0]["kept"].links, ["kept", "linked"]);
    assert_eq!(flat.run_config()["User"], "5");
    let whole = saved(&world, "app");
    let told: Vec<_> = flat.history().iter().map(|(text, _)| text.clone()).collect();
    assert_eq!(told[..told.len() - 1], whole.history().iter().map(|(text, _)| text.clone()).collect::<Vec<_>>());
    assert_eq!(flat.history().iter().filter(|(_, layer)| *layer).count(), 1);
    let found = json_of(&world.strake(["diff", "--format", "json", "app", "flat"]).fails().stdout);
    assert_eq!(found["Files"], json!([]));
    let name = registry.name("app:1");
    world.strake(["copy", "-q", "store:app", &name]).ok();
    world.strake(["flatten", "-q", &name]).ok();
    assert_eq!(layers(&json_of(&world.strake(["manifest", &name]).ok().stdout)).len(), 1);
    world.strake(["validate", "--remote", &name]).ok();
}

#[test]
fn rebase_puts_an_image_on_another_base_or_says_why_not() {
    if !able(&["docker-registry"]) {
        return;
    }
    let (world, registry) = (World::new(), Registry::empty());
    world.busybox();
    let base = |version: u32, more: &str| {
        let text = format!("FROM localhost/busybox\nENV VERSION={version}\nRUN echo {version} > /version; echo same > /same{more}\n");
        world.build(&text, &["-t", &format!("base:{version}")]).ok();
    };
    base(1, "");
    base(2, "; echo new > /more");
    let text = "FROM base:1\nENV OWN=o\nRUN echo own > /own; echo mine >> /same\nCMD [\"cat\", \"/version\", \"/own\"]\n";
    world.build(text, &["-t", "app"]).ok();
    world.strake(["rebase", "-q", "app", "--old-base", "base:1", "--new_base", "base:2", "-t", "rebased"]).ok();
    assert_eq!(world.strake(["run", "--rm", "rebased"]).ok().stdout, "2\nown\n");
    assert_eq!(
        world.strake(["run", "--rm", "rebased", "sh", "-c", "echo $VERSION$OWN; cat /same /more"]).ok().stdout,
        "2o\nsame\nmine\nnew\n"
    );
    // As if it had been built on the other base, but for the times.
    world.build(&text.replace("base:1", "base:2"), &["-t", "built"]).ok();
    let found = world.strake(["diff", "rebased", "built"]).ok();
    assert_eq!(found.stdout, "");
    // Not where that would be wrong.
    let refused = |args: &[&str], says: &[&str]| {
        world.strake(["rebase", "-q", "-t", "never"]).arg_all(args).fails().says(says);
        world.strake(["inspect", "never"]).fails();
    };
    refused(&["app", "--old-base", "base:2", "--new-base", "base:1"], &["not built on `base:2`", "layer 2"]);
    refused(&["base:1", "--old-base", "app", "--new-base", "base:2"], &["not built on `app`", "2 layers"]);
    refused(&["app"], &["org.opencontainers.image.base", "--old-base"]);
    world.strake(["mutate", "-q", "base:2", "--set-platform", "linux/arm64", "-t", "arm"]).ok();
    refused(&["app", "--old-base", "base:1", "--new-base", "arm"], &["linux/arm64"]);
    world.build("FROM base:2\nRUN echo other > /same\n", &["-t", "changed"]).ok();
    refused(&["app", "--old-base", "base:1", "--new-base", "changed"], &["/same", "--force"]);
    world.strake(["rebase", "-q", "--force", "app", "--old-base", "base:1", "--new-base", "changed", "-t", "forced"]).ok();
    assert_eq!(world.strake(["run", "--rm", "forced", "cat", "/same"]).ok().stdout, "same\nmine\n");
    world.build("FROM base:2\nRUN rm /same; mkdir -p /opt; ln -s /opt /srv\n", &["-t", "linked"]).ok();
    world.build("FROM base:1\nRUN mkdir /srv; echo x > /srv/x\n", &["-t", "srv"]).ok();
    refused(&["srv", "--old-base", "base:1", "--new-base", "linked"], &["/srv"]);
    // At a registry, where the annotations say the rest the next time.
    for name in ["base:1", "base:2", "app"] {
        world.strake(["copy", "-q", &format!("store:{name}"), &registry.name(name)]).ok();
    }
    let (name, other) = (registry.name("app"), World::new());
    let bases = [registry.name("base:1"), registry.name("base:2")];
    other.strake(["rebase", "-q", &name, "--old-base", &bases[0], "--new-base", &bases[1]]).ok();
    other.strake(["validate", "--remote", &name]).ok();
    let manifest = json_of(&other.strake(["manifest", &name]).ok().stdout);
    assert_eq!(manifest["annotations"]["org.opencontainers.image.base.name"], json!(bases[1]));
    other.strake(["pull", "-q", &name]).ok();
    assert_eq!(other.strake(["run", "--rm", &name]).ok().stdout, "2\nown\n");
    base(2, "; echo newer > /more");
    world.strake(["copy", "-q", "store:base:2", &bases[1]]).ok();
    other.strake(["rebase", "-q", "--remote", &name]).ok();
    other.strake(["pull", "-q", &name]).ok();
    assert_eq!(other.strake(["run", "--rm", &name, "cat", "/more"]).ok().stdout, "newer\n");
}

#[test]
fn diff_tells_files_and_settings_apart_by_its_exit_status_too() {
    if !able(&[]) {
        return;
    }
    let world = World::new();
    world.busybox();
    let text = "FROM localhost/busybox\nENV A=1\nRUN echo x > /text; ln -s text /link; mkdir /dir; echo in > /dir/in\n";
    world.build(text, &["-t", "one"]).ok();
    let text = text
        .replace("A=1", "A=2")
        .replace("echo x", "echo yy")
        .replace("-s text", "-s dir")
        .replace("mkdir /dir;", "mkdir -m 700 /dir; chown 3:4 /dir;");
    world.build(&text.replace("/dir/in", "/new"), &["-t", "two"]).ok();
    let done = world.strake(["diff", "one", "one"]).ok();
    assert_eq!(done.stdout, "");
    let done = world.strake(["diff", "one", "two"]).run();
    assert_eq!(done.code, 1, "{done}");
    let files: Vec<&str> = done.stdout.lines().filter(|line| !line.starts_with("config ")).collect();
    let expected = [
        "C /dir: mode 0755 -> 0700, owner 0:0 -> 3:4",
        "D /dir/in",
        "C /link: link text -> dir",
        "A /new",
        "C /text: size 2 -> 3, content",
    ];
    assert_eq!(files, expected, "{done}");
    assert!(done.stdout.contains("config config.Env.A 1 -> 2\n"), "{done}");
    let found = json_of(&world.strake(["diff", "--format", "json", "two", "one"]).run().stdout);
    assert_eq!(found["Files"][1]["Change"], "added");
    assert_eq!(found["Files"][2]["Changes"], json!([{ "Field": "link", "From": "dir", "To": "text" }]));
    assert_eq!(world.strake(["diff", "-q", "one", "two"]).run().stdout, "");
    // Places of every kind.
    let archive = format!("oci-archive:{}", world.path("one.tar").display());
    world.strake(["copy", "-q", "store:one", &archive]).ok();
    world.strake(["diff", &archive, "one"]).ok();
    let failed = world.strake(["diff", "one", "oci:missing"]).fails();
    assert_eq!(failed.code, 2, "{failed}");
}
