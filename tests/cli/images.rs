//! The images that are here, in the words of `docker image`; images for several platforms; and `search`.

use serde_json::Value;

use crate::common::registry::{Reply, scripted};
use crate::common::{Registry, Run, World, able};

fn names(world: &World) -> Vec<String> {
    let listed = world.strake(["image", "ls", "--format", "{{.Repository}}:{{.Tag}}"]).ok().stdout;
    let mut names: Vec<String> = listed.lines().map(str::to_owned).collect();
    names.sort();
    names
}

#[test]
fn image_has_the_commands_and_prunes_what_the_filters_choose() {
    if !able(&[]) {
        return;
    }
    let world = World::new();
    let build =
        |name: &str, label: &str| world.build(&format!("FROM scratch\nCOPY Dockerfile /{name}\nLABEL {label}\n"), &["-t", name]).ok();
    build("one", "kind=a keep=yes");
    build("two", "kind=b");
    build("three", "kind=a");
    world.strake(["image", "tag", "three", "four:1"]).ok();
    // Another image takes the name, so one has none.
    build("two", "kind=c");
    assert_eq!(names(&world), ["<none>:<none>", "four:1", "one:latest", "three:latest", "two:latest"]);
    let found: Value = serde_json::from_str(&world.strake(["image", "inspect", "one"]).ok().stdout).unwrap();
    assert_eq!(found[0]["Config"]["Labels"]["keep"], "yes");
    assert!(world.strake(["image", "history", "one"]).ok().stdout.contains("LABEL kind=a"));
    world.strake(["image", "prune", "-f", "--filter", "label=kind=z"]).ok();
    world.strake(["image", "prune", "-f", "--filter", "until=1h"]).ok();
    assert_eq!(names(&world).len(), 5);
    let pruned = world.strake(["image", "prune", "-f"]).ok().stdout;
    assert!(pruned.contains("Deleted: sha256:") && pruned.contains("Total reclaimed space"), "{pruned}");
    assert_eq!(names(&world), ["four:1", "one:latest", "three:latest", "two:latest"]);
    let pruned = world.strake(["image", "prune", "-a", "-f", "--filter", "label=kind=a", "--filter", "label!=keep"]).ok().stdout;
    assert!(pruned.contains("Untagged: four:1") && pruned.contains("Untagged: three"), "{pruned}");
    assert_eq!(names(&world), ["one:latest", "two:latest"]);
    world.strake(["image", "rm", "two"]).ok();
    assert_eq!(names(&world), ["one:latest"]);
    world.strake(["image", "prune", "-f", "--all", "--filter", "name=x"]).fails().says(&["label"]);
    world.strake(["image", "prune", "-f", "--all"]).ok();
    assert_eq!(names(&world), Vec::<String>::new());
}

#[test]
fn images_are_listed_by_label_and_age_and_history_has_plain_numbers() {
    if !able(&[]) {
        return;
    }
    let world = World::new();
    for (name, time, label) in [("old", "1000000000", "a=1"), ("middle", "1100000000", "a=2"), ("new", "1200000000", "b=1")] {
        let text = format!("FROM scratch\nCOPY Dockerfile /{name}\nLABEL {label}\n");
        world.build(&text, &["-t", name, "--build-arg", &format!("SOURCE_DATE_EPOCH={time}")]).ok();
    }
    let listed = |filters: &[&str]| {
        let filters = filters.iter().flat_map(|filter| ["--filter", filter]).collect::<Vec<_>>();
        let listed = world.strake(["images", "--format", "{{.Repository}}"]).arg_all(&filters).ok().stdout;
        listed.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(listed(&[]), ["new", "middle", "old"]);
    assert_eq!(listed(&["label=a"]), ["middle", "old"]);
    assert_eq!(listed(&["label=a=2"]), ["middle"]);
    assert_eq!(listed(&["before=middle"]), ["old"]);
    assert_eq!(listed(&["since=old"]), ["new", "middle"]);
    assert_eq!(listed(&["until=2005-01-01T00:00:00Z", "label=a"]), ["middle", "old"]);
    assert_eq!(listed(&["reference=n*", "reference=old"]), ["new", "old"]);
    world.strake(["images", "-f", "since=nothing"]).fails().says(&["no such image", "nothing"]);
    let plain = world.strake(["history", "--human=false", "--format", "{{.CreatedSince}} {{.Size}}", "old"]).ok().stdout;
    assert!(plain.lines().any(|line| line == "2001-09-09T01:46:40Z 0"), "{plain}");
}

#[test]
fn all_tags_of_a_repository_are_pulled_and_pushed() {
    if !able(&["docker-registry"]) {
        return;
    }
    let (world, registry) = (World::new(), Registry::empty());
    let name = |name: &str| registry.name(name);
    world.build("FROM scratch\nCOPY Dockerfile /a\n", &["-t", &name("app:1")]).ok();
    for other in ["app:2", "other:3"] {
        world.strake(["tag", &name("app:1"), &name(other)]).ok();
    }
    world.strake(["push", "-q", "-a", &name("app")]).ok();
    let digest = world.strake(["digest", "--full-ref", &name("app:2")]).ok().stdout;
    assert!(digest.starts_with(&format!("{}@sha256:", name("app"))), "{digest}");
    world.strake(["digest", &name("other:3")]).fails();
    world.strake(["push", "-a", &name("app:1")]).fails().says(&["all-tags"]);
    world.strake(["push", "-a", &name("nothing")]).fails().says(&["nothing"]);
    let other = World::new();
    let pulled = other.strake(["pull", "-q", "--all-tags", &name("app")]).ok().stdout;
    assert_eq!(pulled, format!("{}\n{}\n", name("app:1"), name("app:2")));
    assert_eq!(names(&other), [name("app:1"), name("app:2")]);
}

/// The name of an image for three platforms, one of them this machine's.
fn several_platforms(registry: &Registry) -> String {
    let maker = World::new();
    let name = registry.name("app:multi");
    let mut images = vec!["index".to_owned(), "create".into(), "-q".into(), "-t".into(), name.clone()];
    for platform in ["linux/amd64", "linux/arm64", "linux/arm/v6"] {
        let one = registry.name(&format!("app:{}", platform.replace('/', "-")));
        let text = format!("FROM scratch\nCOPY Dockerfile /{}\n", platform.replace('/', "-"));
        maker.build(&text, &["--platform", platform, "-t", &one, "--push"]).ok();
        images.push(one);
    }
    maker.strake(images).ok();
    name
}

#[test]
fn all_platforms_are_pulled_listed_and_pushed_on() {
    if !able(&["docker-registry", "skopeo"]) {
        return;
    }
    let registry = Registry::empty();
    let name = several_platforms(&registry);
    let digest = World::new().strake(["digest", &name]).ok().stdout;
    // By variant: what runs on arm/v7 is the image for arm/v6.
    let world = World::new();
    world.strake(["pull", "-q", "--platform", "linux/arm/v7", &name]).ok();
    let platform = |world: &World| world.strake(["images", "--format", "{{.Platform}}"]).ok().stdout;
    assert_eq!(platform(&world), "linux/arm/v6\n");
    assert!(world.strake(["images"]).ok().stdout.contains("linux/arm/v6"));
    world.strake(["push", "--all-platforms", &name]).fails().says(&["no index", "pull --all-platforms"]);
    // All of them, kept by the name, and sent elsewhere with the digest that they have.
    let world = World::new();
    world.strake(["pull", "-q", "--all-platforms", &name]).ok();
    assert_eq!(platform(&world).trim(), format!("linux/{}", if cfg!(target_arch = "x86_64") { "amd64" } else { "arm64" }));
    world.strake(["image", "prune", "-f"]).ok();
    world.strake(["prune", "-f"]).ok();
    drop(registry);
    let other = Registry::empty();
    let copy = other.name("elsewhere:1");
    world.strake(["copy", "-q", "--all", &format!("store:{name}"), &copy]).ok();
    assert_eq!(world.strake(["digest", &copy]).ok().stdout, digest);
    world.strake(["validate", "--remote", &copy]).ok();
    let world = World::new();
    world.strake(["pull", "-q", "--all-platforms", &copy]).ok();
    let emptied = other.storage().join("docker/registry/v2/repositories/elsewhere");
    std::fs::remove_dir_all(emptied).unwrap();
    world.strake(["push", "-q", "--all-platforms", &copy]).ok();
    assert_eq!(world.strake(["digest", &copy]).ok().stdout, digest);
    world.strake(["validate", "--remote", &copy]).ok();
}

#[test]
fn one_platform_of_several_is_saved_loaded_and_pushed() {
    if !able(&["docker-registry"]) {
        return;
    }
    let registry = Registry::empty();
    let name = several_platforms(&registry);
    let platform = |world: &World| world.strake(["images", "--format", "{{.Repository}}:{{.Tag}} {{.Platform}}"]).ok().stdout;
    let (world, directory) = (World::new(), tempfile::tempdir().unwrap());
    let file = |name: &str| directory.path().join(name).display().to_string();
    world.strake(["pull", "-q", "--all-platforms", &name]).ok();
    world.strake(["save", "--platform", "linux/arm64", "-o", &file("one.tar"), &name]).ok();
    let reader = World::new();
    reader.strake(["load", "-q", "-i", &file("one.tar")]).ok();
    assert_eq!(platform(&reader), format!("{name} linux/arm64\n"));
    world.strake(["save", "--platform", "linux/s390x", "-o", &file("none.tar"), &name]).fails().says(&["linux/s390x", "--all-platforms"]);
    // Of an archive with all of them.
    world.strake(["copy", "-q", "--all", &format!("store:{name}"), &format!("oci-archive:{}:{name}", file("all.tar"))]).ok();
    let reader = World::new();
    reader.strake(["load", "-i", &file("all.tar"), "--platform", "linux/s390x"]).fails().says(&["no image for linux/s390x"]);
    assert_eq!(platform(&reader), "");
    reader.strake(["load", "-q", "-i", &file("all.tar"), "--platform", "linux/arm/v6"]).ok();
    assert!(platform(&reader).ends_with(" linux/arm/v6\n"));
    // The name in the registry stands for that one afterwards.
    world.strake(["push", "-q", "--platform", "linux/arm64", "--all-platforms", &name]).fails().says(&["cannot be used with"]);
    world.strake(["push", "-q", "--platform", "linux/arm64", &name]).ok();
    let reader = World::new();
    reader.strake(["pull", "-q", &name]).ok();
    assert_eq!(platform(&reader), format!("{name} linux/arm64\n"));
}

#[test]
fn an_index_goes_through_an_archive_and_the_store_whole() {
    if !able(&["docker-registry", "skopeo"]) {
        return;
    }
    let registry = Registry::empty();
    let name = several_platforms(&registry);
    let digest = World::new().strake(["digest", &name]).ok().stdout;
    let (world, directory) = (World::new(), tempfile::tempdir().unwrap());
    let file = |name: &str| directory.path().join(name).display().to_string();
    // What a name stands for in a store, seen by sending it on.
    let sent = |world: &World, from: &str| {
        let copy = registry.name("copy:1");
        world.strake(["tag", from, &copy]).ok();
        world.strake(["push", "-q", &copy]).ok();
        world.strake(["rmi", &copy]).ok();
        world.strake(["system", "check"]).ok();
        world.strake(["digest", &copy]).ok().stdout
    };
    world.strake(["pull", "-q", "--all-platforms", &name]).ok();
    let host = world.strake(["image", "inspect", "-f", "{{.Id}}", &name]).ok().stdout;
    for (format, flags) in [("docker-archive", &["-o"][..]), ("oci-archive", &["--format", "oci-archive", "-o"])] {
        let archive = file(format);
        world.strake(["save"]).arg_all(flags).arg(&archive).arg(&name).ok();
        // Others see the index; in Docker's form there is the image that runs here.
        let raw = Run::new("skopeo", ["inspect", "--raw", &format!("oci-archive:{archive}:multi")]).ok().stdout;
        assert_eq!(raw, world.strake(["manifest", &name]).ok().stdout, "{format}");
        if format == "docker-archive" {
            let seen = Run::new("skopeo", ["inspect", "--config", "--raw", &format!("docker-archive:{archive}")]).ok().stdout;
            assert_eq!(seen.trim_end(), world.strake(["config", &format!("store:{name}")]).ok().stdout.trim_end());
        }
        let reader = World::new();
        reader.strake(["load", "-q", "-i", &archive]).ok();
        assert_eq!(reader.strake(["image", "inspect", "-f", "{{.Id}}", &name]).ok().stdout, host, "{format}");
        reader.strake(["prune", "-f"]).ok();
        assert_eq!(sent(&reader, &name), digest, "{format}");
        // One of them alone, where that is asked for.
        let reader = World::new();
        reader.strake(["load", "-q", "-i", &archive, "--platform", "linux/amd64"]).ok();
        assert_ne!(sent(&reader, &name), digest, "{format}");
    }
    // The same by copies, from every kind of place.
    let layout = format!("oci:{}:multi", file("layout"));
    world.strake(["copy", "-q", "--all", &format!("store:{name}"), &layout]).ok();
    for from in [&name, &layout, &format!("oci-archive:{}", file("oci-archive")), &format!("docker-archive:{}", file("docker-archive"))] {
        let reader = World::new();
        let shown = reader.strake(["copy", "-q", "--all", from, "store:kept:1"]).ok().stdout;
        assert_eq!(shown, digest, "{from}");
        assert_eq!(reader.strake(["image", "inspect", "-f", "{{.Id}}", "kept:1"]).ok().stdout, host, "{from}");
        reader.strake(["copy", "-q", "--all", "store:kept:1", "store:other:2"]).ok();
        assert_eq!(sent(&reader, "other:2"), digest, "{from}");
        let wrong = format!("store:kept@sha256:{}", "0".repeat(64));
        reader.strake(["copy", "-q", "--all", from, &wrong]).fails().says(&["sha256:000"]);
    }
    // Skopeo's words; and Docker's variable, which is no flag that could be in the way.
    let copy =
        |flags: &[&str], to: &str| world.strake(["copy", "-q", &name, to]).arg_all(flags).env("DOCKER_DEFAULT_PLATFORM", "linux/s390x");
    assert_eq!(copy(&["--all"], "oci:all:1").ok().stdout, digest);
    assert_eq!(copy(&["--multi-arch", "all", "--image-parallel-copies", "1"], "oci:all:2").ok().stdout, digest);
    copy(&["--multi-arch", "system"], "oci:one:1").fails().says(&["linux/s390x"]);
    assert_ne!(copy(&["--multi-arch", "system", "--platform", "linux/arm64"], "oci:one:1").ok().stdout, digest);
    copy(&["--all", "--platform", "linux/arm64"], "oci:one:1").fails().says(&["--platform"]);
    copy(&["--multi-arch=all", "--platform", "linux/arm64"], "oci:one:1").fails().says(&["exclude each other"]);
}

#[test]
fn a_repository_alone_is_saved_with_all_its_tags() {
    if !able(&["tar"]) {
        return;
    }
    let world = World::new();
    for (content, tags) in [("one", ["app:1", "app:2", "other:1"]), ("two", ["app:latest", "localhost/app:3", "third:1"])] {
        world.write("file", content);
        world.build("FROM scratch\nCOPY file /\n", &tags.map(|tag| ["-t", tag]).concat()).ok();
    }
    let saved = |images: &[&str]| {
        world.strake(["save", "-o", "saved.tar"]).arg_all(images).ok();
        let manifest = crate::common::Run::new("tar", ["-xOf", "saved.tar", "manifest.json"]).dir(world.path("")).ok().stdout;
        let entries: Vec<Value> = serde_json::from_str(&manifest).unwrap();
        let mut tags: Vec<String> = entries.iter().map(|entry| entry["RepoTags"].to_string()).collect();
        tags.sort();
        tags.join(" ")
    };
    assert_eq!(saved(&["app"]), r#"["app:1","app:2"] ["app:latest"]"#);
    assert_eq!(saved(&["localhost/app", "app:2"]), r#"["app:2"] ["localhost/app:3"]"#);
    // An ID is no repository, though it could be the name of one.
    let id = world.strake(["images", "-q", "other"]).ok().stdout;
    assert_eq!(saved(&[id.trim()]), "[]");
    world.strake(["save", "-o", "saved.tar", "app:9"]).fails().says(&["no such image: `app:9`"]);
}

#[test]
fn scripts_find_the_words_and_the_exit_codes_of_docker() {
    if !able(&["docker-registry"]) {
        return;
    }
    let registry = Registry::empty();
    let name = several_platforms(&registry);
    let world = World::new();
    world.strake(["pull", "-q", "--disable-content-trust", "--all-platforms", &name]).ok();
    world.strake(["pull", "--disable-content-trust=false", &name]).fails().says(&["--disable-content-trust", "cannot be checked"]);
    world.strake(["push", "-q", "--disable-content-trust=true", &name]).ok();
    // What shall not be there, and is not.
    world.strake(["rmi", "-f", "missing", "gone:1"]).ok().says(&["no such image: `missing`", "no such image: `gone:1`"]);
    world.strake(["rmi", "missing"]).fails();
    // The images of an index are looked at one by one.
    let inspected = |platform: &str| {
        let seen = world.strake(["image", "inspect", "--platform", platform, "-f", "{{.Architecture}} {{.Id}}", &name]).ok().stdout;
        let config: Value = serde_json::from_str(&world.strake(["config", "--platform", platform, &name]).ok().stdout).unwrap();
        assert_eq!(seen.split(' ').next(), config["architecture"].as_str());
        seen
    };
    assert_ne!(inspected("linux/arm64"), inspected("linux/amd64"));
    world.strake(["inspect", "--platform", "linux/s390x", &name]).fails().says(&["linux/s390x"]);
    world.strake(["inspect", "--platform", "linux/arm64", "--type", "container", &name]).fails().says(&["--platform is about images"]);
    let history = world.strake(["history", "--platform", "linux/arm64", "--no-trunc", &name]).ok().stdout;
    assert!(history.contains("/linux-arm64"), "{history}");
    world.strake(["tag", &name, "all:1"]).ok();
    world.build("FROM scratch\nCOPY Dockerfile /\n", &["-t", "one:1"]).ok();
    world.strake(["rmi", "--platform", "linux/s390x", "one:1"]).fails().says(&["not for linux/s390x"]);
    world.strake(["save", "-o", "one.tar", "one:1"]).ok();
    let host = world.strake(["image", "inspect", "-f", "{{.Os}}/{{.Architecture}}", "one:1"]).ok().stdout;
    world.strake(["rmi", "--platform", host.trim(), "one:1"]).ok();
    assert_eq!(world.strake(["load", "-q", "-i", "one.tar"]).ok().stdout, "Loaded image: one:1\n");
}

#[test]
fn one_image_of_an_index_is_removed_and_the_others_stay() {
    if !able(&["docker-registry"]) {
        return;
    }
    let registry = Registry::empty();
    let name = several_platforms(&registry);
    let world = World::new();
    let (host, other) = match std::env::consts::ARCH {
        "aarch64" => ("linux/arm64", "linux/amd64"),
        _ => ("linux/amd64", "linux/arm64"),
    };
    let pull = || world.strake(["pull", "-q", "--all-platforms", &name]).ok();
    let files =
        |dir: &str| walkdir::WalkDir::new(world.root().join(dir)).into_iter().flatten().filter(|at| at.file_type().is_file()).count();
    let blobs = || files("blobs") + files("fresh");
    let architecture = || world.strake(["image", "inspect", "-f", "{{.Architecture}}", &name]).ok().stdout;
    let healthy = || world.strake(["system", "check"]).ok();
    pull();
    let all = blobs();
    world
        .strake(["rmi", "--platform", "linux/s390x", &name])
        .fails()
        .says(&["linux/amd64, linux/arm64, linux/arm/v6", "not for linux/s390x"]);
    // What another name means too is left.
    world.strake(["tag", &name, "alias:1"]).ok();
    world.strake(["rmi", "-f", "--platform", other, &name]).fails().says(&["also one of `alias:1`", "strake rmi alias:1"]);
    world.strake(["rmi", "alias:1"]).ok();
    // The one that the name does not stand for.
    let config: Value = serde_json::from_str(&world.strake(["manifest", "--platform", other, &name]).ok().stdout).unwrap();
    let deleted = world.strake(["rmi", "--platform", other, &name]).ok().stdout;
    assert_eq!(deleted, format!("Deleted: {}\n", config["config"]["digest"].as_str().unwrap()));
    assert!(blobs() < all);
    world.strake(["push", "--platform", other, &name]).fails().says(&["not for"]);
    assert_eq!(architecture().trim(), host.split_once('/').unwrap().1);
    world.strake(["prune", "-f"]).ok();
    healthy();
    // The one that it stands for: now it stands for the other one.
    pull();
    assert_eq!(blobs(), all);
    world.strake(["create", "--name", "user", &name, "/x"]).ok();
    world.strake(["rmi", "--platform", host, &name]).fails().says(&["used by the container `user`"]);
    world.strake(["rm", "user"]).ok();
    world.strake(["rmi", "--platform", host, &name]).ok();
    assert_eq!(architecture().trim(), other.split_once('/').unwrap().1);
    world.strake(["validate", &name]).ok();
    healthy();
    // The last one takes the name along.
    world.strake(["rmi", "--platform", other, &name]).ok();
    assert_eq!(architecture().trim(), "arm");
    let gone = world.strake(["rmi", "--platform", "linux/arm/v6", &name]).ok().stdout;
    assert!(gone.contains("Untagged") && gone.contains("Deleted"), "{gone}");
    assert_eq!(world.strake(["images", "-q"]).ok().stdout, "");
    healthy();
}

#[test]
fn an_image_that_an_index_has_for_two_platforms_is_not_removed_for_one() {
    if !able(&["docker-registry"]) {
        return;
    }
    let (world, registry) = (World::new(), Registry::empty());
    let (one, both) = (registry.name("app:one"), registry.name("app:both"));
    World::new().build("FROM scratch\nCOPY Dockerfile /\n", &["--platform", "linux/amd64", "-t", &one, "--push"]).ok();
    world.strake(["index", "create", "-q", "-t", &both, &one]).ok();
    world.strake(["index", "append", "-q", &both, &one, "--set-platform", "linux/arm64"]).ok();
    world.strake(["pull", "-q", "--all-platforms", &both]).ok();
    for platform in ["linux/amd64", "linux/arm64"] {
        world.strake(["rmi", "--platform", platform, &both]).fails().says(&[platform, "another platform", "strake rmi"]);
    }
    world.strake(["push", &both]).ok();
    world.strake(["system", "check"]).ok();
    world.strake(["rmi", &both]).ok();
    assert_eq!(world.strake(["images", "-q"]).ok().stdout, "");
}

#[test]
fn search_asks_as_docker_does_and_shows_the_best_first() {
    if !able(&["docker-registry"]) {
        return;
    }
    let world = World::new();
    let address = scripted(|method, path| match (method, path) {
        ("GET", "/v1/search?q=web+server&n=3") => Reply::body(
            "application/json",
            r#"{"num_results":4,"query":"web server","results":[
                {"name":"acme/small","description":"few\nlines","star_count":2,"is_official":false,"is_automated":true},
                {"name":"nginx","description":"A server with a description that is longer than anybody reads","star_count":900,"is_official":true},
                {"name":"acme/none","description":null,"star_count":0},
                {"name":"acme/toomany","star_count":1}]}"#,
        ),
        ("GET", "/v2/") => Reply::body("application/json", "{}"),
        ("GET", path) if path.starts_with("/v1/search?q=broken") => Reply::body("text/html", "<html>"),
        _ => Reply::missing(),
    });
    let term = format!("{address}/web server");
    let shown = world.strake(["search", "--limit", "3", &term]).ok().stdout;
    let lines: Vec<Vec<&str>> =
        shown.lines().map(|line| line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect()).collect();
    assert_eq!(lines[0], ["NAME", "DESCRIPTION", "STARS", "OFFICIAL"]);
    assert_eq!((lines[1][0], lines[1][2], lines[1][3]), ("nginx", "900", "[OK]"));
    assert!(lines[1][1].chars().count() <= 45 && lines[1][1].ends_with('…'), "{shown}");
    assert_eq!((lines[2][0], lines[2][1], lines.len()), ("acme/small", "few lines", 4));
    let flags = ["--no-trunc", "--filter", "is-official=true", "--format", "{{.Name}}|{{.StarCount}}|{{.Description}}"];
    let whole = world.strake(["search", "--limit", "3", &term]).arg_all(&flags).ok().stdout;
    assert_eq!(whole, "nginx|900|A server with a description that is longer than anybody reads\n");
    let json =
        world.strake(["search", "--limit", "3", "--filter", "stars=2", "-f", "is-automated=true", "--format", "json", &term]).ok().stdout;
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&json["Name"], &json["StarCount"], &json["IsOfficial"]), (&"acme/small".into(), &"2".into(), &"false".into()));
    world.strake(["search", &format!("{address}/broken")]).fails().says(&["list of repositories"]);
    world.strake(["search", "--limit", "101", &term]).fails();
    // A registry without a search is searched by its list.
    let registry = Registry::with_bases();
    let shown = world.strake(["search", "--format", "{{.Name}}", &registry.name("busy")]).ok().stdout;
    assert_eq!(shown, format!("{}\n", registry.name("busybox")));
}
