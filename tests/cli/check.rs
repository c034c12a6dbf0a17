//! `strake system check`: each kind of damage is found and named, and mended: from the registry, from a blob, or by giving up what is lost and nothing else.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::common::{Done, Registry, World, able, processes, wait_for, world};

fn check(world: &World) -> Done {
    world.strake(["system", "check"]).run()
}

/// The check finds something that it names so, and nothing is mended by looking.
#[track_caller]
fn finds(world: &World, texts: &[&str]) {
    for _ in 0..2 {
        let done = check(world);
        assert_eq!(done.code, 3, "{done}");
        texts.iter().for_each(|text| assert!(done.stdout.contains(text), "`{text}` is not said: {done}"));
        done.says(&["error: the store", "is damaged", "hint: `strake system check --repair`"]);
    }
}

/// Repairing says this and ends well, and then there is nothing to be found.
#[track_caller]
fn repairs(world: &World, texts: &[&str]) -> Done {
    let done = world.strake(["system", "check", "--repair"]).run();
    assert_eq!(done.code, 0, "{done}");
    texts.iter().for_each(|text| assert!(done.stdout.contains(text), "`{text}` is not said: {done}"));
    let after = check(world);
    assert!(after.code == 0 && !after.stdout.contains("bad:"), "{after}");
    done
}

/// All files in a directory of the store, the largest first.
fn files(world: &World, dir: &str) -> Vec<PathBuf> {
    let found = walkdir::WalkDir::new(world.root().join(dir)).into_iter().map(|entry| entry.unwrap());
    let mut files: Vec<PathBuf> = found.filter(|entry| entry.file_type().is_file()).map(|entry| entry.into_path()).collect();
    files.sort_by_key(|path| std::cmp::Reverse(path.metadata().unwrap().len()));
    files
}

fn name_of(path: &Path) -> &str {
    path.file_name().unwrap().to_str().unwrap()
}

/// Changes a byte in the middle of a file.
fn spoil(path: &Path) {
    let mut bytes = std::fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(path, bytes).unwrap();
}

/// A world with an image of two layers that was pulled, and its registry.
fn pulled() -> Option<(World, Registry, String)> {
    if !able(&["docker-registry"]) {
        return None;
    }
    let registry = Registry::empty();
    let name = registry.name("app:1");
    let maker = World::new();
    maker.write("a", "first".repeat(5_000)).write("b", "second".repeat(1_000));
    maker.build("FROM scratch\nCOPY a /dir/a\nCOPY b /dir/b\nLABEL x=y\n", &["-t", &name]).ok();
    maker.strake(["push", &name]).ok();
    let world = World::new();
    world.strake(["pull", &name]).ok();
    at_rest(&world);
    assert_eq!(files(&world, "blobs").len(), 4);
    Some((world, registry, name))
}

/// Makes all of the store durable, and waits for the processes that do the same.
fn at_rest(world: &World) {
    world.strake(["prune", "-f"]).ok();
    wait_for("the end of all that settles", 120, || processes(&world.root()).is_empty());
}

#[test]
fn a_good_store_is_said_to_be_good() {
    let Some(world) = world() else { return };
    world.strake(["run", "--name", "c", "-v", "v:/v", "--network", "none", "localhost/busybox", "true"]).ok();
    let done = check(&world);
    assert_eq!(done.code, 0, "{done}");
    assert!(done.stdout.contains("is good (looked at 1 image, 1 snapshot, "), "{done}");
    let quiet = world.strake(["system", "check", "-q", "--quick"]).ok();
    assert_eq!((quiet.stdout.as_str(), quiet.stderr.as_str()), ("", ""));
    let json: Value = serde_json::from_str(&world.strake(["system", "check", "--format", "json"]).ok().stdout).unwrap();
    assert_eq!((&json["Good"], &json["Images"], &json["Problems"]), (&true.into(), &1.into(), &Value::Array(vec![])));
}

#[test]
fn where_there_is_no_store_none_is_made() {
    let world = World::new();
    let done = world.strake(["system", "check"]).fails();
    done.says(&["there is no store in", "--root"]);
    assert_eq!(done.code, 1);
    assert!(!world.root().exists());
}

#[test]
fn blobs_that_are_damaged_are_fetched_again() {
    let Some((world, _registry, name)) = pulled() else { return };
    // Every blob: layers, config and manifest.
    for path in files(&world, "blobs") {
        let digest = format!("sha256:{}", name_of(&path));
        spoil(&path);
        finds(&world, &[&format!("bad: blob {digest} is damaged"), "hash to sha256:"]);
        repairs(&world, &[&format!("repair: blob {digest}: fetched again from `{}", name.rsplit_once(':').unwrap().0)]);
        let mut bytes = std::fs::read(&path).unwrap();
        bytes.pop();
        std::fs::write(&path, bytes).unwrap();
        finds(&world, &[&format!("bad: blob {digest}")]);
        repairs(&world, &["fetched again"]);
        std::fs::remove_file(&path).unwrap();
        finds(&world, &[&format!("bad: blob {digest} is missing: it is ")]);
        repairs(&world, &["fetched again"]);
    }
    world.strake(["validate", &name]).ok();
}

#[test]
fn without_the_registry_what_is_lost_is_given_up_and_nothing_else() {
    let Some((world, registry, name)) = pulled() else { return };
    world.build("FROM scratch\nCOPY Dockerfile /kept\n", &["-t", "localhost/kept"]).ok();
    drop(registry);
    let id = world.strake(["images", "-q", "--no-trunc", &name]).ok().stdout.trim().replace("sha256:", "");
    let config = files(&world, "blobs").into_iter().find(|path| name_of(path) == id).unwrap();
    spoil(&config);
    finds(&world, &["bad: blob sha256:"]);
    repairs(
        &world,
        &["repair: dropped blob sha256:", "does not give it", &format!("repair: dropped image sha256:{id}, which was `{name}`")],
    );
    let images = world.strake(["images", "--format", "{{.Repository}}"]).ok().stdout;
    assert_eq!(images, "localhost/kept\n");
    world.strake(["validate", "localhost/kept"]).ok();
}

#[test]
fn layers_whose_files_changed_are_unpacked_again() {
    let Some((world, _registry, name)) = pulled() else { return };
    let file = |name: &str| files(&world, "snapshots").into_iter().find(|path| name_of(path) == name).unwrap();
    let content = std::fs::read(file("a")).unwrap();
    type Damage = &'static dyn Fn(&Path);
    let damages: [(&str, Damage); 4] = [
        ("content", &|path| spoil(path)),
        ("a file more", &|path| std::fs::write(path.with_file_name("more"), "x").unwrap()),
        ("a file gone", &|path| std::fs::remove_file(path).unwrap()),
        ("mode", &|path| std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap()),
    ];
    for (what, damage) in damages {
        damage(&file("a"));
        let found = check(&world);
        assert!(found.code == 3 && found.stdout.contains("bad: snapshot "), "{what}: {found}");
        repairs(&world, &["unpacked again from blob sha256:"]);
        assert_eq!(std::fs::read(file("a")).unwrap(), content, "{what}");
        assert!(!file("a").with_file_name("more").exists());
    }
    // All of it: the directory.
    std::fs::remove_dir_all(file("b").ancestors().nth(3).unwrap()).unwrap();
    finds(&world, &["bad: snapshot ", "is missing"]);
    repairs(&world, &["unpacked again from blob"]);
    world.strake(["save", "-o", "out.tar", &name]).ok();
    world.strake(["validate", "--tarball", "out.tar"]).ok();
}

#[test]
fn a_built_layer_that_is_lost_goes_with_all_that_is_made_of_it() {
    let Some(world) = world() else { return };
    world.build("FROM localhost/busybox\nRUN echo one > /one\n", &["-t", "localhost/lost"]).ok();
    world.strake(["run", "--name", "c", "--network", "none", "localhost/lost", "true"]).ok();
    let one = files(&world, "snapshots").into_iter().find(|path| name_of(path) == "one").unwrap();
    std::fs::write(&one, "two\n").unwrap();
    finds(&world, &["bad: snapshot ", "RUN echo one > /one", "hash to"]);
    repairs(&world, &["dropped the container `c`", "repair: dropped snapshot ", "which was `localhost/lost:latest`"]);
    assert_eq!(world.strake(["ps", "-aq"]).ok().stdout, "");
    // The base is untouched, and the step runs again.
    world.strake(["run", "--rm", "--network", "none", "localhost/busybox", "true"]).ok();
    let again = world.build_as_it_is(&["-t", "localhost/lost"]).ok();
    assert_eq!(again.step("RUN echo one"), "DONE");
    let done = world.strake(["run", "--rm", "--network", "none", "localhost/lost", "cat", "/one"]).ok();
    assert_eq!(done.stdout, "one\n");
}

/// Runs SQL on the store's database, behind its back.
fn sql(world: &World, text: &str) {
    let script = "import sqlite3, sys; db = sqlite3.connect(sys.argv[1]); db.executescript(sys.argv[2]); db.commit(); db.close()";
    crate::common::Run::new("python3", ["-c", script, world.root().join("meta.db").to_str().unwrap(), text]).ok();
}

#[test]
fn an_image_that_is_filed_under_the_digest_of_another_is_found_and_not_believed() {
    if !able(&["python3", "docker-registry"]) {
        return;
    }
    let (world, registry) = (World::new(), crate::common::Registry::empty());
    let digest_of = |name: &str, file: &str| {
        world.build(&format!("FROM scratch\nCOPY Dockerfile /{file}\n"), &["-q", "--push", "-t", name]).ok();
        world.strake(["digest", name]).ok().stdout.trim().to_owned()
    };
    let (one, two) = (registry.name("one:1"), registry.name("two:1"));
    let (first, _) = (digest_of(&one, "one"), digest_of(&two, "two"));
    let pinned = registry.name(&format!("one@{first}"));
    world.strake(["pull", "-q", &pinned]).ok();
    world.strake(["system", "check"]).ok();
    sql(
        &world,
        &format!("UPDATE names SET (image, manifest) = (SELECT image, manifest FROM names WHERE name = '{two}') WHERE name = '{pinned}';"),
    );
    world.strake(["system", "check"]).fails();
    let found = world.strake(["system", "check"]).run();
    assert!(found.stdout.contains(&first) || found.stderr.contains(&first), "{found}");
    assert!((found.stdout.clone() + &found.stderr).contains("its digest is not that of the image"), "{found}");
    // What really has the digest is found by its other name.
    let id = |name: &str| world.strake(["inspect", "-f", "{{.Id}}", name]).ok().stdout;
    assert_eq!(id(&pinned), id(&one));
    world.strake(["system", "check", "--repair"]).run();
    world.strake(["system", "check"]).ok();
    world.strake(["pull", "-q", &pinned]).ok();
    assert_eq!(id(&pinned), id(&one));
}

#[test]
fn rows_that_name_what_is_not_there_are_dropped() {
    if !able(&["python3", "docker-registry"]) {
        return;
    }
    let world = World::new();
    world.busybox();
    world.build("FROM localhost/busybox\nRUN true\n", &["-t", "localhost/app"]).ok();
    let digest = format!("sha256:{}", "ab".repeat(32));
    let stack = "x'ffffff0000000000'";
    let broken = [
        (
            format!("INSERT INTO names (name, image, tagged_at) VALUES ('localhost/gone:1', '{digest}', 0)"),
            "the name `localhost/gone:1` names image",
        ),
        (format!("INSERT INTO chains VALUES ('{digest}', {stack}, 0)"), "which is not there"),
        (
            format!("INSERT INTO cache_records (result, output, snapshots, created_at, last_used) VALUES (x'00', x'00', {stack}, 0, 0)"),
            "of the build cache names snapshot",
        ),
        (
            format!("INSERT INTO layer_blobs (diff_id, digest, size, media_type) VALUES ('{digest}', '{digest}', 1, 'x')"),
            "is missing: it is recorded for the layer",
        ),
        (format!("INSERT INTO containers VALUES ('{}', 'gone', NULL, x'', 0)", "cd".repeat(32)), "names the directory `containers/"),
        ("UPDATE names SET image = 'nonsense' WHERE name LIKE '%app%'".to_owned(), "names image nonsense"),
    ];
    for (statement, said) in broken {
        sql(&world, &statement);
        finds(&world, &["bad: ", said]);
        repairs(&world, &["repair: dropped "]);
    }
    world.strake(["run", "--rm", "--network", "none", "localhost/busybox", "true"]).ok();
    world.build_as_it_is(&["-t", "localhost/app"]).ok();
}

#[test]
fn a_damaged_database_is_made_again_of_what_can_be_read() {
    if !able(&["python3", "docker-registry"]) {
        return;
    }
    let world = World::new();
    world.busybox();
    for number in 0..40 {
        world.strake(["tag", "localhost/busybox", &format!("localhost/name{number}")]).ok();
    }
    at_rest(&world);
    sql(&world, "PRAGMA wal_checkpoint(TRUNCATE)");
    // A page in the middle.
    let path = world.root().join("meta.db");
    let mut bytes = std::fs::read(&path).unwrap();
    let page = bytes.windows(14).position(|window| window == b"localhost/name").unwrap() / 4096 * 4096;
    bytes[page..page + 2000].fill(0x55);
    std::fs::write(&path, bytes).unwrap();
    let done = check(&world);
    assert!(done.code == 3 && done.stdout.contains("bad: the database `"), "{done}");
    world.strake(["images"]).run();
    repairs(&world, &["repair: made a new database with ", "which is now `"]);
    world.strake(["run", "--rm", "--network", "none", &surviving(&world), "true"]).ok();
}

fn surviving(world: &World) -> String {
    world.strake(["images", "-q"]).ok().stdout.lines().next().expect("the image survives").to_owned()
}

#[test]
fn a_database_that_is_lost_is_made_again_of_the_blobs() {
    let Some((world, _registry, name)) = pulled() else { return };
    world.strake(["run", "--rm", "-v", "precious:/v", "--network", "none", &name, "/nothing"]).run();
    std::fs::create_dir_all(world.root().join("volumes/precious/_data")).unwrap();
    std::fs::write(world.root().join("volumes/precious/_data/file"), "mine").unwrap();
    for how in ["garbage", "missing", "empty"] {
        let path = world.root().join("meta.db");
        let id = world.strake(["images", "-q"]).ok().stdout;
        for suffix in ["-wal", "-shm"] {
            let _ = std::fs::remove_file(format!("{}{suffix}", path.display()));
        }
        match how {
            "garbage" => std::fs::write(&path, "this is no database".repeat(1000)).unwrap(),
            "missing" => std::fs::remove_file(&path).unwrap(),
            _ => std::fs::write(&path, "").unwrap(),
        }
        let failed = world.strake(["images"]).fails();
        failed.says(&["meta.db", "strake system check --repair"]);
        let done = check(&world);
        assert!(done.code == 3 && done.stdout.contains("bad: the database `"), "{how}: {done}");
        let done = repairs(&world, &["repair: made a new database", "found among the blobs"]);
        assert!(how == "garbage" || done.stdout.contains("volume `precious`: found in its directory") || how == "empty", "{how}: {done}");
        assert_eq!(world.strake(["images", "-q"]).ok().stdout, id, "{how}");
        world.strake(["validate", id.trim()]).ok();
        assert_eq!(std::fs::read_to_string(world.root().join("volumes/precious/_data/file")).unwrap(), "mine");
    }
}

#[test]
fn directories_that_are_missing_or_closed_are_named_and_mended() {
    let Some(world) = world() else { return };
    use std::os::unix::fs::PermissionsExt;
    let mode = |path: &Path, mode| std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
    std::fs::remove_dir(world.root().join("ingest")).unwrap();
    mode(&world.root().join("snapshots"), 0o600);
    std::fs::write(world.root().join("snapshots/0/fs/stray"), "").unwrap();
    finds(&world, &["ingest` is missing", "snapshots` has the mode 600, which lacks some of 711", "snapshots/0/fs` is not empty"]);
    repairs(&world, &["ingest` is as it should be again"]);
    world.strake(["run", "--rm", "--network", "none", "localhost/busybox", "true"]).ok();
}

#[test]
fn what_killed_commands_left_is_no_damage_and_goes_with_a_repair() {
    let Some(world) = world() else { return };
    let killed = world.build("FROM localhost/busybox\nCOPY Dockerfile /\n", &[]).env("STRAKE_FAULT", "snapshot:complete:1").run();
    assert_eq!(killed.code, 137, "{killed}");
    let found = check(&world);
    assert!(found.code == 0 && found.stdout.contains("left over: a snapshot that nobody will complete (`"), "{found}");
    repairs(&world, &["repair: removed what was left over"]);
    assert!(!check(&world).stdout.contains("left over"));
}

#[test]
fn a_volume_without_a_row_is_kept_with_its_files() {
    if !able(&["python3", "docker-registry"]) {
        return;
    }
    let world = World::new();
    world.busybox();
    world.strake(["run", "--rm", "-v", "mine:/v", "--network", "none", "localhost/busybox", "sh", "-c", "echo precious > /v/f"]).ok();
    sql(&world, "DELETE FROM volumes WHERE name = 'mine'");
    finds(&world, &["bad: the volume `mine` is not recorded, and has files"]);
    repairs(&world, &["repair: recorded the volume `mine`"]);
    let read = world.strake(["run", "--rm", "-v", "mine:/v", "--network", "none", "localhost/busybox", "cat", "/v/f"]).ok();
    assert_eq!(read.stdout, "precious\n");
    // What a removal leaves that was cut short, and a making, is no damage.
    sql(&world, "INSERT INTO volumes VALUES ('gone', 0, '{}', 0)");
    std::fs::create_dir_all(world.root().join("volumes/begun/_data")).unwrap();
    let found = check(&world);
    assert_eq!((found.code, found.stdout.matches("left over: a volume that was being made or removed").count()), (0, 2), "{found}");
    world.strake(["prune", "-f"]).ok();
    assert!(!check(&world).stdout.contains("left over") && world.root().join("volumes/mine/_data/f").exists());
}
