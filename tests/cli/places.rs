//! Images where they are: every place is named in the same words by every command, and copies reach both sides and take on the form that is asked for.

use serde_json::Value;

use crate::common::{Registry, Run, World, able, wait_for};

/// A world with `NAME` at a registry and in all other places, and what those are called.
fn everywhere(world: &World, registry: &Registry) -> (String, Vec<String>) {
    let name = registry.name("app:1");
    world.write("file", "content").build("FROM scratch\nCOPY file /\nENV A=b\n", &["-q", "-t", &name, "--push"]).ok();
    let places = ["store:app:1", "oci:layout:1", "oci-archive:oci.tar", "docker-archive:docker.tar:app:1", "dir:plain"];
    for place in places {
        world.strake(["copy", "-q", &name, place]).ok();
    }
    let url = format!("docker://{name}");
    (name, places.into_iter().map(str::to_owned).chain([url]).collect())
}

#[test]
fn every_place_is_looked_at_in_the_same_words() {
    if !able(&["docker-registry", "skopeo"]) {
        return;
    }
    let (world, registry) = (World::new(), Registry::empty());
    let (name, places) = everywhere(&world, &registry);
    let of = |args: &[&str]| world.strake(args).ok().stdout;
    let (digest, manifest, config) = (of(&["digest", &name]), of(&["manifest", &name]), of(&["config", &name]));
    for place in &places {
        assert_eq!(of(&["digest", place]), digest, "{place}");
        assert_eq!(of(&["manifest", place]), manifest, "{place}");
        assert_eq!(of(&["inspect", "--raw", place]), manifest, "{place}");
        for args in [vec!["config", place], vec!["inspect", "--config", place], vec!["image", "inspect", "--raw", "--config", place]] {
            assert_eq!(of(&args), config, "{place}");
        }
        let seen: Value = serde_json::from_str(&of(&["inspect", place])).unwrap();
        assert!(seen[0]["Config"]["Env"].as_array().unwrap().contains(&"A=b".into()), "{place}: {seen}");
        world.strake(["validate", place.strip_suffix(":app:1").filter(|place| place.starts_with("docker-archive")).unwrap_or(place)]).ok();
    }
    // Names of the store and of registries stay what they were.
    let id = serde_json::from_str::<Value>(&manifest).unwrap()["config"]["digest"].as_str().unwrap().to_owned();
    assert_eq!(of(&["inspect", "-f", "{{.Id}}", "app:1"]).trim(), id);
    assert_eq!(of(&["inspect", "--remote", "-f", "{{.Id}}", &name]).trim(), id);
    assert_eq!(of(&["inspect", "--raw", "app:1"]), manifest);
    assert_eq!(of(&["digest", "--tarball", "docker.tar"]), digest);
    assert_eq!(of(&["digest", "--tarball", "docker.tar", "app:1"]), digest);
    world.strake(["digest", "--tarball", "docker.tar", "app:2"]).fails().says(&["app:2"]);
    world.strake(["digest", "--full-ref", "dir:plain"]).fails().says(&["--full-ref", "dir:plain"]);
    world.strake(["digest", "oci:nothing"]).fails().says(&["oci:nothing"]);
    // skopeo reads what is in a directory, and writes one.
    let skopeo = |args: &[&str]| Run::new("skopeo", ["--insecure-policy"]).arg_all(args).dir(world.path("")).ok().stdout;
    assert_eq!(skopeo(&["inspect", "--raw", "dir:plain"]), manifest);
    skopeo(&["copy", "-q", "dir:plain", "oci:again:1"]);
    assert_eq!(of(&["digest", "oci:again:1"]), digest);
    // Repositories at registries, with the prefix too.
    let repository = format!("docker://{}", registry.name("app"));
    assert_eq!(of(&["ls", &repository]), "1\n");
    assert_eq!(of(&["list-tags", &registry.name("app")]), "1\n");
    assert_eq!(of(&["ls", "oci:layout"]), "1\n");
    world.strake(["ls", "store:app:1"]).fails().says(&["store:app:1", "no list of tags"]);
    world.strake(["delete", "--manifest", &format!("docker://{name}")]).ok();
    world.strake(["digest", &name]).fails().says(&["404"]);
}

#[test]
fn an_index_goes_through_a_directory_and_back() {
    if !able(&["docker-registry", "skopeo"]) {
        return;
    }
    let (world, registry) = (World::new(), Registry::empty());
    let name = registry.name("app:all");
    world.write("file", "content");
    world.build("FROM scratch\nCOPY file /\n", &["-q", "--platform", "linux/amd64,linux/arm64", "-t", &name, "--push"]).ok();
    let digest = world.strake(["digest", &name]).ok().stdout;
    world.strake(["copy", "--all", &name, "dir:ours"]).ok();
    let skopeo = ["--insecure-policy", "copy", "-q", "--all", "--src-tls-verify=false"];
    Run::new("skopeo", skopeo).arg(registry.url("app:all")).arg("dir:theirs").dir(world.path("")).ok();
    let files = |dir: &str| {
        let mut names: Vec<_> = std::fs::read_dir(world.path(dir)).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    assert_eq!(files("ours"), files("theirs"));
    for dir in ["dir:ours", "dir:theirs"] {
        let copy = registry.name(&format!("copied:{}", &dir[4..]));
        world.strake(["copy", "--all", dir, &copy]).ok();
        assert_eq!(world.strake(["digest", &copy]).ok().stdout, digest);
    }
    world.strake(["copy", "--platform", "linux/arm64", "dir:theirs", "store:one:1"]).ok();
    assert_eq!(world.strake(["inspect", "-f", "{{.Architecture}}", "one:1"]).ok().stdout, "arm64\n");
    std::fs::write(world.path("ours/manifest.json"), "{}").unwrap();
    world.strake(["copy", "dir:ours", "store:two:1"]).fails();
    world.strake(["system", "check"]).ok();
}

#[test]
fn the_files_of_an_image_are_exported_without_a_container() {
    if !able(&["docker-registry", "tar"]) {
        return;
    }
    let (world, registry) = (World::new(), Registry::empty());
    let name = registry.name("app:1");
    world.write("file", "content");
    world.build("FROM scratch\nCOPY file /a/\n", &["-q", "--platform", "linux/amd64,linux/arm64", "-t", &name, "--push"]).ok();
    let other = World::new();
    let listed = |tar: &str| Run::new("tar", ["-tf", tar]).dir(other.path("")).ok().stdout;
    // One that is nowhere here, and gets no name by this.
    other.strake(["image", "export", "--platform", "linux/arm64", &name, "files.tar"]).ok();
    assert!(listed("files.tar").lines().any(|line| line.trim_start_matches("./") == "a/file"), "{}", listed("files.tar"));
    assert_eq!(other.strake(["images", "-q"]).ok().stdout, "");
    let piped = other.strake(["image", "export", &format!("docker://{name}"), "-"]).ok().stdout;
    assert!(piped.contains("ustar"));
    // One that is here, and the same by its container.
    other.strake(["pull", "-q", &name]).ok();
    other.strake(["image", "export", "-o", "image.tar", &name]).ok();
    let id = other.strake(["create", &name, "/a/file"]).ok().stdout;
    other.strake(["export", "-o", "container.tar", id.trim()]).ok();
    assert_eq!(listed("image.tar"), listed("container.tar"));
    other.strake(["image", "export", &registry.name("nothing:1"), "x.tar"]).fails().says(&["nothing:1"]);
}

#[test]
fn a_copy_reaches_both_registries_with_their_own_credentials() {
    if !able(&["docker-registry", "htpasswd"]) {
        return;
    }
    let (world, from, to) = (World::new(), Registry::with_password(), Registry::with_password());
    world.write("file", "content").build("FROM scratch\nCOPY file /\n", &["-q", "-t", "app:1"]).ok();
    let (name, copy) = (from.name("app:1"), to.name("copy:1"));
    let good = "tester:pass-word";
    world.strake(["copy", "-q", "--dest-creds", good, "store:app:1", &name]).ok();
    world.strake(["copy", "-q", "--src-creds", good, &name, &copy]).fails().says(&["401"]);
    world
        .strake(["copy", "-q", "--src-creds", "tester:wrong", "--dest-creds", good, &name, &copy])
        .fails()
        .says(&["401"])
        .omits(&["wrong"]);
    let done = world.strake(["copy", "-q", "--src-creds", good, "--dest-creds", good, "--retry-times", "1", "-j", "2", &name, &copy]).ok();
    // What is looked at before the copy is looked at with them too.
    let both = ["--src-creds", good, "--dest-creds", good];
    world.strake(["copy", "-q", "--all-tags", &from.name("app"), &to.name("every")]).arg_all(&both).ok();
    world.strake(["copy", "--no-clobber", &name, &to.name("every:1")]).arg_all(&both).ok().says(&["is there already"]);
    let login = |host: &str, file: &str| {
        world.strake(["--authfile", file, "login", "-u", "tester", "--password-stdin", host]).stdin("pass-word").ok();
    };
    login(from.host(), "from.json");
    login(to.host(), "to.json");
    let files = ["copy", "-q", "--src-authfile", "from.json", "--dest-authfile", "to.json", &name, &to.name("copy:2")];
    assert_eq!(world.strake(files).ok().stdout, done.stdout);
    world.strake(files).arg("--src-no-creds").fails().says(&["401"]);
    // What is no user and password may be a password all the same.
    for wrong in ["pass-word", ":pass-word"] {
        world.strake(["copy", "--src-creds", wrong, &name, &copy]).fails().says(&["--src-creds", "USER:PASSWORD"]).omits(&["pass-word"]);
    }
}

#[test]
fn registries_are_looked_at_as_somebody_else() {
    if !able(&["docker-registry", "htpasswd"]) {
        return;
    }
    let (world, registry) = (World::new(), Registry::with_password());
    world.build("FROM scratch\nCOPY Dockerfile /\n", &["-q", "-t", "app:1"]).ok();
    let (name, url, good) = (registry.name("app:1"), registry.url("app:1"), "tester:pass-word");
    world.strake(["copy", "-q", "--dest-creds", good, "store:app:1", &name]).ok();
    let manifest: Value = serde_json::from_str(&world.strake(["manifest", "--creds", good, &name]).ok().stdout).unwrap();
    let config = registry.name(&format!("app@{}", manifest["config"]["digest"].as_str().unwrap()));
    let lookers: [&[&str]; 9] = [
        &["manifest", &name],
        &["config", &url],
        &["digest", &name],
        &["blob", &config],
        &["ls", &registry.name("app")],
        &["catalog", registry.host()],
        &["inspect", "--remote", &name],
        &["inspect", "--raw", &url],
        &["image", "inspect", &url],
    ];
    for looker in lookers {
        let as_somebody = |flags: &[&str]| world.strake(looker.iter().chain(flags));
        as_somebody(&["--creds", good]).ok().omits(&["pass-word"]);
        as_somebody(&["--creds", "tester:wrong-word"]).fails().says(&["401"]).omits(&["wrong-word"]);
        as_somebody(&["--no-creds"]).fails().says(&["401"]);
        as_somebody(&["--registry-token", "some-token"]).fails().says(&["401"]).omits(&["some-token"]);
        as_somebody(&["--creds", "pass-word"]).fails().says(&["--creds is not of the form"]).omits(&["pass-word"]);
    }
    // Where there is no registry, there is nobody to show them to.
    world.strake(["copy", "-q", "store:app:1", "oci:layout:1"]).ok();
    for place in ["store:app:1", "oci:layout:1"] {
        for flags in [&["--creds", good][..], &["--registry-token", "pass-word"], &["--no-creds"], &["--cert-dir", "."]] {
            for command in ["manifest", "inspect"] {
                world.strake([command, place]).arg_all(flags).fails().says(&[place, "is no registry"]).omits(&["pass-word"]);
            }
        }
        world.strake(["manifest", "--tls-verify=false", place]).ok();
    }
    for flags in [&["--src-creds", good][..], &["--src-authfile", "x.json"], &["--dest-no-creds"], &["--dest-cert-dir", "."]] {
        world.strake(["copy", "store:app:1", "oci:other:1"]).arg_all(flags).fails().says(&["is no registry"]).omits(&["pass-word"]);
    }
    assert!(!world.path("other").exists());
    // Skopeo's words.
    let layers = |place: &str| {
        let manifest: Value = serde_json::from_str(&world.strake(["manifest", place]).ok().stdout).unwrap();
        manifest["layers"][0]["mediaType"].as_str().unwrap().to_owned()
    };
    world.strake(["copy", "-q", "--dest-decompress", "store:app:1", "oci:plain:1"]).ok();
    world.strake(["copy", "-q", "--dest-compress", "--dest-compress-level", "1", "oci:plain:1", "oci:packed:1"]).ok();
    assert_eq!(
        (&*layers("oci:plain:1"), &*layers("oci:packed:1")),
        ("application/vnd.oci.image.layer.v1.tar", "application/vnd.oci.image.layer.v1.tar+gzip")
    );
    world.strake(["copy", "--dest-compress-level", "1", "oci:plain:1", "oci:x:1"]).fails().says(&["--dest-compress-format"]);
    // A name of one word is a registry too, which is asked by way of a proxy here.
    let short = world
        .strake(["--plain-http", "*", "catalog", "--creds", good, "one-word"])
        .env("http_proxy", format!("http://{}", registry.host()));
    assert_eq!(short.ok().stdout, "app\n");
    // Nobody listens there, and it is asked once.
    world.strake(["digest", "--retry-times", "0", "127.0.0.1:1/app"]).fails().says(&["cannot connect"]);
    world.strake(["delete", "--no-creds", &name]).fails().says(&["401"]);
    world.strake(["delete", "--manifest", "--creds", good, &name]).ok();
}

#[test]
fn a_copy_takes_on_the_form_that_is_asked_for() {
    if !able(&["docker-registry", "skopeo"]) {
        return;
    }
    let (world, registry) = (World::new(), Registry::empty());
    let name = registry.name("app:1");
    world.write("file", "content".repeat(1000));
    world.build("FROM scratch\nCOPY file /\n", &["-q", "--platform", "linux/amd64,linux/arm64", "-t", &name, "--push"]).ok();
    let digest = |name: &str| world.strake(["digest", name]).ok().stdout;
    let raw = |name: &str| -> Value {
        let raw = Run::new("skopeo", ["inspect", "--raw", "--tls-verify=false", &registry.url(name)]).ok().stdout;
        serde_json::from_str(&raw).unwrap()
    };
    // Docker's format, all of an index; and back to the very same.
    let docker = registry.name("docker:1");
    world.strake(["copy", "-q", "--all", "--format", "v2s2", &name, &docker]).ok();
    assert_eq!(raw("docker:1")["mediaType"], "application/vnd.docker.distribution.manifest.list.v2+json");
    world.strake(["copy", "-q", "--platform", "linux/arm64", &docker, &registry.name("docker:arm")]).ok();
    let one = raw("docker:arm");
    assert_eq!(one["mediaType"], "application/vnd.docker.distribution.manifest.v2+json");
    assert_eq!(one["config"]["mediaType"], "application/vnd.docker.container.image.v1+json");
    assert_eq!(one["layers"][0]["mediaType"], "application/vnd.docker.image.rootfs.diff.tar.gzip");
    world.strake(["validate", "--remote", &docker]).ok();
    world.strake(["copy", "-q", "--all", "--format", "oci", &docker, &registry.name("back:1")]).ok();
    assert_eq!(digest(&registry.name("back:1")), digest(&name));
    world.strake(["copy", "-q", "--all", "--preserve-digests", "--format", "oci", &name, &registry.name("kept:1")]).ok();
    assert_eq!(digest(&registry.name("kept:1")), digest(&name));
    world.strake(["copy", "--preserve-digests", "--format", "v2s2", &name, &docker]).fails().says(&["--preserve-digests"]);
    world.strake(["copy", "--format", "v2s2", &name, "store:x:1"]).fails().says(&["--format"]);
    // Layers that are compressed otherwise unpack to the same.
    let zstd = registry.name("zstd:1");
    world.strake(["copy", "-q", "--dest-compress-format", "zstd", "--platform", "linux/amd64", &name, &zstd]).ok();
    assert_eq!(raw("zstd:1")["layers"][0]["mediaType"], "application/vnd.oci.image.layer.v1.tar+zstd");
    world.strake(["validate", "--remote", &zstd]).ok();
    assert_eq!(world.strake(["images", "-aq"]).ok().stdout.lines().count(), 1, "nothing but what was built");
    let config = |name: &str| world.strake(["config", "--platform", "linux/amd64", name]).ok().stdout;
    assert_eq!(config(&zstd), config(&name));
    // All images of an index, too, which then is another one.
    let both = registry.name("zstd:2");
    world.strake(["copy", "-q", "--all", "--dest-compress-format", "zstd", &name, &both]).ok();
    world.strake(["validate", "--remote", &both]).ok();
    let index = raw("zstd:2");
    let platforms: Vec<&Value> = index["manifests"].as_array().unwrap().iter().map(|entry| &entry["platform"]["architecture"]).collect();
    assert_eq!(platforms, ["amd64", "arm64"]);
    for platform in ["linux/amd64", "linux/arm64"] {
        let manifest = world.strake(["manifest", "--platform", platform, &both]).ok().stdout;
        assert!(manifest.contains("tar+zstd") && !manifest.contains("tar+gzip"), "{manifest}");
        let config = |name: &str| world.strake(["config", "--platform", platform, name]).ok().stdout;
        assert_eq!(config(&both), config(&name));
    }
    world.strake(["copy", "--referrers", "--dest-compress-format", "zstd", &name, &zstd]).fails().says(&["--dest-compress-format"]);
    // An archive with several names for one image.
    world.strake(["copy", "-q", "--platform", "linux/amd64", "--additional-tag", "b:2", &name, "docker-archive:two.tar:a:1"]).ok();
    let other = World::new();
    let two = world.path("two.tar").display().to_string();
    let loaded = other.strake(["load", "-i", &two]).ok().stdout;
    assert_eq!(loaded, "Loaded image: a:1\nLoaded image: b:2\n");
    other.strake(["copy", "-q", &format!("docker-archive:{two}"), "oci:out:1"]).ok();
    world.strake(["copy", "--additional-tag", "b:2", &name, &docker]).fails().says(&["--additional-tag is for archives"]);
}

#[test]
fn an_appended_image_knows_its_base_and_is_put_on_the_next_one() {
    if !able(&["docker-registry", "tar"]) {
        return;
    }
    let (world, registry) = (World::new(), Registry::empty());
    let (base, app) = (registry.name("base:1"), registry.name("app:1"));
    let push_base = |content: &str| {
        world.write("base", content).build("FROM scratch\nCOPY base /\n", &["-q", "-t", &base, "--push"]).ok();
        world.strake(["rmi", &base]).ok();
    };
    push_base("one");
    let digest = world.strake(["digest", &base]).ok().stdout;
    std::fs::write(world.path("own"), "mine").unwrap();
    Run::new("tar", ["-cf", "own.tar", "own"]).dir(world.path("")).ok();
    world.strake(["append", "-q", "--set-base-image-annotations", "-b", &base, "-f", "own.tar", "-t", &app]).ok();
    let annotations = |name: &str| -> Value {
        serde_json::from_str::<Value>(&world.strake(["manifest", name]).ok().stdout).unwrap()["annotations"].clone()
    };
    assert_eq!(annotations(&app)["org.opencontainers.image.base.name"], base);
    assert_eq!(annotations(&app)["org.opencontainers.image.base.digest"], digest.trim());
    push_base("two");
    world.strake(["rebase", "-q", "--original", &app, "--rebased", &registry.name("app:2")]).ok();
    world.strake(["image", "export", &registry.name("app:2"), "files.tar"]).ok();
    assert_eq!(Run::new("tar", ["-xOf", "files.tar", "base"]).dir(world.path("")).ok().stdout, "two");
    world.strake(["append", "--set-base-image-annotations", "-f", "own.tar", "-t", "x:1"]).fails().says(&["--base"]);
}

#[test]
fn all_images_of_an_index_are_changed_where_it_is() {
    if !able(&["docker-registry", "skopeo", "tar"]) {
        return;
    }
    let (world, registry) = (World::new(), Registry::empty());
    let name = registry.name("app:1");
    world.write("one", "1").write("two", "2");
    let text = "FROM scratch\nCOPY one two /\nCOPY one /again\n";
    world.build(text, &["-q", "--platform", "linux/amd64,linux/arm64", "-t", &name, "--push"]).ok();
    let at = format!("docker://{name}");
    let raw = |name: &str| -> Value { serde_json::from_str(&world.strake(["manifest", name]).ok().stdout).unwrap() };
    let of = |name: &str, platform: &str| -> (Value, Value) {
        let manifest = world.strake(["manifest", "--platform", platform, name]).ok().stdout;
        let config = world.strake(["config", "--platform", platform, name]).ok().stdout;
        (serde_json::from_str(&manifest).unwrap(), serde_json::from_str(&config).unwrap())
    };
    let before = raw(&name);
    // In the registry, under its own name; layers stay the blobs that they are.
    world.strake(["mutate", "-q", "-l", "team=web", &at]).fails().says(&["--all-platforms"]);
    world.strake(["mutate", "-q", "--all-platforms", "-l", "team=web", &at]).ok();
    let after = raw(&name);
    assert_eq!(after["mediaType"], before["mediaType"]);
    for (entry, platform) in ["linux/amd64", "linux/arm64"].into_iter().enumerate() {
        assert_eq!(after["manifests"][entry]["platform"], before["manifests"][entry]["platform"]);
        let (manifest, config) = of(&name, platform);
        assert_eq!(config["config"]["Labels"]["team"], "web");
        assert_eq!(manifest["layers"].as_array().unwrap().len(), 2);
    }
    // The name of the store stands for the index too.
    world.strake(["mutate", "-q", "--all-platforms", "-l", "team=web", &name, "-t", "store:same:1"]).ok();
    world.strake(["copy", "-q", "--all", "store:same:1", "oci:same"]).ok();
    assert_eq!(world.strake(["digest", "oci:same"]).ok().stdout, world.strake(["digest", &name]).ok().stdout);
    // Flat, into the store and from there on; the same again is the same.
    world.strake(["flatten", "-q", "--all-platforms", &at, "-t", "store:flat:1"]).ok();
    let copies = [registry.name("flat:1"), registry.name("flat:2")];
    world.strake(["copy", "-q", "--all", "store:flat:1", &copies[0]]).ok();
    world.strake(["flatten", "-q", "--all-platforms", &at, "-t", &copies[1]]).ok();
    let digest = |name: &str| world.strake(["digest", name]).ok().stdout;
    assert_eq!(digest(&copies[0]), digest(&copies[1]));
    world.strake(["validate", "--remote", &copies[1]]).ok();
    for platform in ["linux/amd64", "linux/arm64"] {
        assert_eq!(of(&copies[1], platform).0["layers"].as_array().unwrap().len(), 1);
        world.strake(["image", "export", "--platform", platform, &format!("docker://{}", copies[1]), "files.tar"]).ok();
        let files = Run::new("tar", ["-tf", "files.tar"]).dir(world.path("")).ok().stdout;
        assert!(["again", "one", "two"].iter().all(|file| files.contains(file)), "{files}");
    }
    world.strake(["system", "check"]).ok();
    // What there is no index for, and what cannot be for all of them.
    world.strake(["copy", "-q", "--platform", "linux/arm64", &name, &registry.name("one:1")]).ok();
    world.strake(["flatten", "--all-platforms", &registry.name("one:1")]).fails().says(&["is not an index"]);
    world.strake(["mutate", "--all-platforms", "--set-platform", "linux/s390x", &at]).fails().says(&["cannot all be for one platform"]);
    world.strake(["append", "--all-platforms", "-b", &at, "-f", "-"]).stdin("").fails().says(&["standard input"]);
    assert_eq!(raw(&name), after);
}

#[test]
fn every_tag_goes_through_a_layout_to_another_registry() {
    if !able(&["docker-registry"]) {
        return;
    }
    let (world, registry, away) = (World::new(), Registry::empty(), Registry::empty());
    for tag in ["1", "2"] {
        let text = format!("FROM scratch\nLABEL tag={tag}\nCOPY Dockerfile /\n");
        world.build(&text, &["-q", "--platform", "linux/amd64,linux/arm64", "-t", &registry.name(&format!("app:{tag}")), "--push"]).ok();
    }
    let copy = |from: &str, to: &str| world.strake(["copy", "-q", "--all", "--all-tags", from, to]);
    copy(&registry.name("app"), "oci:taken").ok();
    assert_eq!(world.strake(["ls", "oci:taken"]).ok().stdout, "1\n2\n");
    assert_eq!(world.strake(["list-tags", "--full-ref", "oci:taken"]).ok().stdout, "oci:taken:1\noci:taken:2\n");
    copy("oci:taken", &away.name("brought")).ok();
    for tag in ["1", "2"] {
        let digest = |name: String| world.strake(["digest", &name]).ok().stdout;
        let brought = away.name(&format!("brought:{tag}"));
        assert_eq!(digest(brought.clone()), digest(registry.name(&format!("app:{tag}"))));
        world.strake(["validate", "--remote", &brought]).ok();
    }
    copy("oci:taken:1", &away.name("brought")).fails().says(&["`oci:taken:1` is neither"]);
    copy(&registry.name("app"), "docker-archive:taken.tar").fails().says(&["`docker-archive:taken.tar` is neither"]);
    world.strake(["ls", "store:app"]).fails().says(&["no list of tags", "oci:DIR"]);
}

/// A service that speaks as Docker's daemon does, and ends with this.
struct Service(std::process::Child);

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn images_go_to_a_docker_daemon_and_come_from_it() {
    if !able(&["podman", "docker-registry"]) {
        return;
    }
    let (world, registry) = (World::new(), Registry::empty());
    let socket = world.path("docker.sock");
    let (storage, run) = (world.path("podman"), world.path("podman-run"));
    let podman = |args: &[&str]| {
        let own = ["--storage-driver", "vfs", "--root", storage.to_str().unwrap(), "--runroot", run.to_str().unwrap()];
        Run::new("podman", own).arg_all(args).dir(world.path(""))
    };
    let url = format!("unix://{}", socket.display());
    let strake = |args: &[&str]| world.strake(args).env("DOCKER_HOST", &url);
    strake(&["digest", "docker-daemon:app:1"]).fails().says(&["cannot ask the Docker daemon at", "docker.sock", "DOCKER_HOST=unix://"]);
    let service = Service(podman(&["system", "service", "--time=0", &url]).start());
    wait_for("the service", 30, || std::os::unix::net::UnixStream::connect(&socket).is_ok());
    let name = registry.name("app:1");
    world.write("file", "content").build("FROM scratch\nCOPY file /\nLABEL a=b\n", &["-q", "-t", &name, "--push"]).ok();
    let id = world.strake(["image", "inspect", "-f", "{{.Id}}", &name]).ok().stdout;
    // From a registry and from the store, with one more name.
    strake(&["copy", "-q", &name, "docker-daemon:localhost/app:1"]).ok();
    strake(&["copy", "-q", "--additional-tag", "localhost/app:3", &format!("store:{name}"), "docker-daemon:localhost/app:2"]).ok();
    for tag in ["1", "2", "3"] {
        let known = podman(&["image", "inspect", "-f", "sha256:{{.Id}}", &format!("localhost/app:{tag}")]).ok().stdout;
        assert_eq!(known, id);
    }
    // And back.
    let other = World::new();
    other.strake(["copy", "-q", "docker-daemon:localhost/app:1", "store:back:1"]).env("DOCKER_HOST", &url).ok();
    assert_eq!(other.strake(["image", "inspect", "-f", "{{.Id}}", "back:1"]).ok().stdout, id);
    other.strake(["validate", "back:1"]).ok();
    strake(&["copy", "-q", "docker-daemon:localhost/app:1", "oci:layout:1"]).ok();
    world.strake(["validate", "oci:layout:1"]).ok();
    // What it says is told, and what cannot be is said before.
    strake(&["copy", "docker-daemon:localhost/missing:1", "oci:layout:2"]).fails().says(&["answers 404", "localhost/missing:1"]);
    let by_digest = format!("docker-daemon:app@sha256:{}", "0".repeat(64));
    strake(&["copy", &name, &by_digest]).fails().says(&["cannot call an image"]);
    world.strake(["digest", "docker-daemon:app:1"]).env("DOCKER_HOST", "tcp://127.0.0.1:1").fails().says(&["DOCKER_HOST", "unix://PATH"]);
    drop(service);
    strake(&["copy", "-q", &name, "docker-daemon:localhost/app:1"]).fails().says(&["cannot send to the Docker daemon"]);
}

#[test]
fn a_blob_of_a_repository_is_shown_as_it_is() {
    if !able(&["docker-registry"]) {
        return;
    }
    let (world, registry) = (World::new(), Registry::empty());
    let name = registry.name("app:1");
    world.build("FROM scratch\nCOPY Dockerfile /\n", &["-q", "-t", &name, "--push"]).ok();
    let manifest: Value = serde_json::from_str(&world.strake(["manifest", &name]).ok().stdout).unwrap();
    let blob = |digest: &str| world.strake(["blob", &registry.name(&format!("app@{digest}"))]);
    let config = blob(manifest["config"]["digest"].as_str().unwrap()).ok().stdout;
    assert_eq!(config, world.strake(["config", &name]).ok().stdout);
    blob(&format!("sha256:{}", "0".repeat(64))).fails().says(&["no blob sha256:000"]);
    world.strake(["blob", &name]).fails().says(&["names no blob", "NAME@sha256:"]);
}
