//! Others read what we write, and we read what they write.

use serde_json::{Value, json};

use crate::common::{Image, Registry, Run, World, able, bases};

/// An image with a bit of everything that layers can hold.
const DOCKERFILE: &str = "FROM localhost/busybox AS b\nRUN echo one > /one; ln /one /two; ln -s one /three; mkdir -m 1777 /d; mkfifo /d/pipe; chown 5:6 /one; chmod 4755 /one\n\
                          RUN rm /etc/group && echo x > /d/x\nENV A=1\nEXPOSE 80\nUSER nobody\nWORKDIR /d\nENTRYPOINT [\"/bin/sh\", \"-c\"]\nCMD [\"echo ran as $(id -u) in $(pwd) with A=$A\"]\n";

fn pushed() -> Option<(World, Registry, String)> {
    if !able(&["docker-registry", "skopeo", "podman", "buildah", "umoci", "runc"]) {
        return None;
    }
    let (world, registry) = (World::new(), Registry::with_bases());
    world.busybox();
    let name = registry.name("team/everything:1");
    world.build(DOCKERFILE, &["-t", &name]).ok();
    world.strake(["push", &name]).ok();
    Some((world, registry, name))
}

/// podman or buildah, with a store of its own.
fn peer(world: &World, program: &str, args: &[&str]) -> Run {
    let (root, run) = (world.path("peer"), world.short().join("run"));
    let mut all: Vec<String> =
        ["--root", root.to_str().unwrap(), "--runroot", run.to_str().unwrap(), "--storage-driver", "overlay"].map(String::from).into();
    all.extend(args.iter().map(|arg| (*arg).to_owned()));
    Run::new(program, all).env("TMPDIR", world.path("")).env("BUILDAH_ISOLATION", "chroot")
}

#[test]
fn skopeo_sees_a_pushed_image_as_it_was_built() {
    let Some((world, registry, name)) = pushed() else { return };
    let url = registry.url("team/everything:1");
    let seen: Value = serde_json::from_str(&Run::new("skopeo", ["inspect", "--tls-verify=false", &url]).ok().stdout).unwrap();
    assert_eq!(seen["RepoTags"], json!(["1"]));
    assert!(seen["Env"].as_array().unwrap().contains(&json!("A=1")));
    assert_eq!(seen["Layers"].as_array().unwrap().len(), 4, "the base, two commands, and the working directory");
    let config: Value = serde_json::from_str(&Run::new("skopeo", ["inspect", "--config", "--tls-verify=false", &url]).ok().stdout).unwrap();
    assert_eq!(config["config"]["User"], "nobody");
    let ours: Value = serde_json::from_str(&world.strake(["inspect", &name]).ok().stdout).unwrap();
    assert_eq!(ours[0]["RootFS"]["Layers"], config["rootfs"]["diff_ids"]);
    assert_eq!(ours[0]["Config"]["Cmd"], config["config"]["Cmd"]);
}

#[test]
fn podman_runs_a_pushed_image() {
    let Some((world, _registry, name)) = pushed() else { return };
    peer(&world, "podman", &["pull", "-q", "--tls-verify=false", &name]).ok();
    // runc, and limits that are not above the machine's own: what podman would choose itself is not allowed everywhere.
    let limits = ["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1000:1000"];
    let run = ["--runtime", "runc", "--cgroup-manager", "cgroupfs", "run", "--rm", "--network", "host"];
    let args: Vec<&str> = run.into_iter().chain(limits).chain([name.as_str()]).collect();
    let done = peer(&world, "podman", &args).ok();
    assert_eq!(done.stdout, "ran as 65534 in /d with A=1\n");
}

#[test]
fn umoci_unpacks_a_pushed_image() {
    let Some((world, registry, _)) = pushed() else { return };
    let layout = world.path("layout");
    let to = format!("oci:{}:x", layout.display());
    Run::new("skopeo", ["--insecure-policy", "copy", "-q", "--src-tls-verify=false", &registry.url("team/everything:1"), &to]).ok();
    let bundle = world.path("bundle");
    let image = format!("{}:x", layout.display());
    Run::new("umoci", ["unpack", "--image", &image, bundle.to_str().unwrap()]).ok();
    let root = bundle.join("rootfs");
    let meta = |name: &str| std::fs::symlink_metadata(root.join(name)).unwrap();
    use std::os::unix::fs::{FileTypeExt, MetadataExt};
    assert_eq!((meta("one").mode() & 0o7777, meta("one").uid(), meta("one").gid(), meta("one").nlink()), (0o4755, 5, 6, 2));
    assert_eq!(meta("one").ino(), meta("two").ino());
    assert!(meta("three").is_symlink() && meta("d/pipe").file_type().is_fifo());
    assert_eq!(meta("d").mode() & 0o7777, 0o1777);
    assert!(!root.join("etc/group").exists() && root.join("etc/passwd").exists());
}

#[test]
fn images_of_skopeo_buildah_and_podman_are_pulled_and_run() {
    if !able(&["docker-registry", "skopeo", "podman", "buildah"]) {
        return;
    }
    let (world, registry) = (World::new(), Registry::with_bases());
    // What skopeo put there.
    let done = world.strake(["run", "--rm", &registry.name("busybox"), "echo", "by skopeo"]).ok();
    assert_eq!(done.stdout, "by skopeo\n");
    world.write(
        "Containerfile",
        format!("FROM {}\nCOPY Containerfile /file\nENV WHO=peer\nUSER nobody\nCMD echo by $WHO as $(id -un)\n", registry.name("busybox")),
    );
    let context = world.context();
    for format in ["docker", "oci"] {
        let name = registry.name(&format!("by-buildah-{format}"));
        let bud = [
            "bud",
            "-q",
            "--format",
            format,
            "--network",
            "host",
            "--tls-verify=false",
            "-f",
            "Containerfile",
            "-t",
            &name,
            context.to_str().unwrap(),
        ];
        peer(&world, "buildah", &bud).dir(&context).ok();
        peer(&world, "buildah", &["push", "-q", "--tls-verify=false", &name]).ok();
        assert_eq!(world.strake(["run", "--rm", &name]).ok().stdout, "by peer as nobody\n");
    }
    let from = registry.name("by-buildah-oci");
    let name = registry.name("by-podman");
    peer(&world, "podman", &["tag", &from, &name]).ok();
    peer(&world, "podman", &["push", "-q", "--tls-verify=false", "--compression-format", "zstd", &name]).run();
    peer(&world, "podman", &["push", "-q", "--tls-verify=false", &name]).ok();
    assert_eq!(
        world.strake(["run", "--rm", &name, "cat", "/file"]).ok().stdout,
        std::fs::read_to_string(context.join("Containerfile")).unwrap()
    );
}

#[test]
fn an_imported_file_system_is_an_image_like_others() {
    if !able(&["docker-registry", "skopeo"]) {
        return;
    }
    let (world, registry) = (World::new(), Registry::empty());
    let name = registry.name("imported:1");
    let id =
        world.strake(["import", "-c", "CMD [\"sh\", \"-c\", \"echo imported\"]"]).arg(bases().join("busybox.tar")).arg(&name).ok().stdout;
    assert!(id.starts_with("sha256:"), "{id}");
    assert_eq!(world.strake(["run", "--rm", &name]).ok().stdout, "imported\n");
    world.strake(["push", &name]).ok();
    Run::new("skopeo", ["inspect", "--tls-verify=false", &registry.url("imported:1")]).ok();
    let listed = world.strake(["images"]).ok();
    assert!(listed.stdout.contains("imported"), "{listed}");
    world.strake(["tag", &name, "localhost/other:2"]).ok();
    world.strake(["rmi", &name]).ok();
    assert_eq!(world.strake(["run", "--rm", "localhost/other:2"]).ok().stdout, "imported\n");
}

#[test]
fn a_registry_with_a_password_takes_those_who_know_it() {
    if !able(&["docker-registry", "htpasswd"]) {
        return;
    }
    let (world, registry) = (World::new(), Registry::with_password());
    world.busybox();
    let name = registry.name("private");
    world.strake(["tag", "localhost/busybox", &name]).ok();
    let refused = world.strake(["push", &name]).fails();
    refused.says(&["401", registry.host()]);
    // base64 of tester:pass-word
    let config = format!(r#"{{"auths":{{"{}":{{"auth":"dGVzdGVyOnBhc3Mtd29yZA=="}}}}}}"#, registry.host());
    std::fs::write(world.path("docker/config.json"), config).unwrap();
    world.strake(["push", &name]).ok();
    world.strake(["rmi", "-f", &name]).ok();
    world.strake(["pull", &name]).ok();
    assert!(!refused.stderr.contains("pass-word"));
}

#[test]
fn a_second_push_sends_nothing_that_is_there() {
    let Some((world, registry, name)) = pushed() else { return };
    let uploads = || {
        Run::new(
            "find",
            [
                registry.storage().as_os_str(),
                "-type".as_ref(),
                "f".as_ref(),
                "-name".as_ref(),
                "data".as_ref(),
                "-printf".as_ref(),
                "%p %i\n".as_ref(),
            ],
        )
        .ok()
        .stdout
    };
    let before = uploads();
    world.strake(["push", &name]).ok();
    assert_eq!(uploads(), before, "a blob was stored again");
}

#[test]
fn saved_images_are_loaded_by_others_and_theirs_by_us() {
    let Some((world, registry, name)) = pushed() else { return };
    for format in ["docker", "oci"] {
        let (ours, theirs) = (world.path(&format!("ours.{format}.tar")), world.path(&format!("theirs.{format}.tar")));
        world.strake(["save", "--format", &format!("{format}-archive"), "-o", ours.to_str().unwrap(), &name]).ok();
        let image = if format == "docker" { Image::docker_archive(&ours) } else { Image::oci_archive(&ours) };
        assert!(image.tree().contains_key("d/pipe"));
        Run::new("skopeo", ["inspect", &format!("{format}-archive:{}", ours.display())]).ok();
        let to = match format {
            "docker" => format!("docker-archive:{}:example/theirs:{format}", theirs.display()),
            _ => format!("oci-archive:{}:example/theirs:{format}", theirs.display()),
        };
        Run::new("skopeo", ["--insecure-policy", "copy", "-q", "--src-tls-verify=false", &registry.url("team/everything:1"), &to]).ok();
        let other = World::new();
        for archive in [&ours, &theirs] {
            let loaded = other.strake(["load", "-i", archive.to_str().unwrap()]).ok();
            assert!(loaded.stdout.contains("Loaded image"), "{loaded}");
        }
        assert_eq!(other.strake(["run", "--rm", &name]).ok().stdout, "ran as 65534 in /d with A=1\n");
    }
}
