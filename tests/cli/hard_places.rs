//! Where a store can hardly live: a full disk, one without inodes, a read-only one, somebody else's, one of the future. The error says what and where, the store is whole,
//! and once the cause is gone everything works.

use std::path::{Path, PathBuf};

use crate::common::{Done, Registry, Run, World, able, processes, wait_for};

/// A small file system of its own at the store's place.
struct Disk {
    at: PathBuf,
}

impl Disk {
    fn mount(world: &World, megabytes: u64, options: &[&str]) -> Disk {
        let image = world.path("disk.img");
        std::fs::File::create(&image).unwrap().set_len(megabytes << 20).unwrap();
        Run::new("mkfs.ext4", ["-q", "-F", "-m", "0"]).arg_all(options).arg(&image).ok();
        let at = world.root();
        std::fs::create_dir(&at).unwrap();
        Run::new("mount", ["-o", "loop"]).arg(&image).arg(&at).ok();
        Disk { at }
    }

    /// Mounts it again with other options, once nobody writes there.
    fn remount(&self, option: &str) {
        wait_for("the end of all that settles", 120, || processes(&self.at).is_empty());
        Run::new("mount", ["-o", &format!("remount,{option}")]).arg(&self.at).ok();
    }

    /// Takes all the bytes that are left.
    fn fill(&self) {
        use std::io::Write;
        let mut filler = std::fs::File::options().append(true).create(true).open(self.at.join("filler")).unwrap();
        for size in [1 << 20, 1 << 12, 1] {
            while filler.write_all(&vec![7; size]).is_ok() {}
        }
    }

    /// Takes all the inodes that are left.
    fn use_inodes_up(&self) {
        let dir = self.at.join("fillers");
        let _ = std::fs::create_dir(&dir);
        for number in 0.. {
            if std::fs::File::create(dir.join(number.to_string())).is_err() {
                return;
            }
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        Run::new("umount", ["-l"]).arg(&self.at).run();
    }
}

#[track_caller]
fn good(world: &World, what: &str) {
    let done = world.strake(["system", "check", "-q"]).run();
    assert!(done.code == 0 && done.stdout.is_empty(), "{what}: {done}");
}

/// The command fails, and names the store and what to do.
#[track_caller]
fn refuses(world: &World, run: Run, texts: &[&str]) -> Done {
    let done = run.fails();
    done.says(&[world.root().to_str().unwrap(), "error:", "hint:"]).says(texts);
    done
}

/// What is tried while nothing can be written; each gives an error then, and works afterwards.
fn writers<'a>(world: &'a World, remote: &'a str) -> Vec<(&'static str, Run)> {
    vec![
        ("build", world.build_as_it_is(&["--no-cache", "-t", "localhost/built"])),
        ("pull", world.strake(["pull", remote])),
        ("load", world.strake(["load", "-i", "busybox.tar"])),
        ("run", world.strake(["run", "--rm", "--network", "none", "localhost/busybox", "sh", "-c", "head -c 3000000 /dev/zero > /x"])),
    ]
}

/// A world with a disk of that kind, an image at a registry and one in an archive.
fn on_disk(megabytes: u64, options: &[&str]) -> Option<(World, Disk, Registry, String)> {
    if !able(&["docker-registry", "mkfs.ext4", "mount"]) {
        return None;
    }
    let registry = Registry::empty();
    let remote = registry.name("big:1");
    let maker = World::new();
    for at in 0..4 {
        // Bytes that compress badly.
        let mut word = at + 1u32;
        let noise = std::iter::repeat_with(|| {
            word = word.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (word >> 24) as u8
        });
        maker.write(&format!("noise{at}"), noise.take(1_500_000).collect::<Vec<u8>>());
    }
    maker.build("FROM scratch\nCOPY . /\n", &["-t", &remote]).ok();
    maker.strake(["push", &remote]).ok();
    let world = World::new();
    let disk = Disk::mount(&world, megabytes, options);
    world.busybox();
    world.strake(["save", "-o", "busybox.tar", "localhost/busybox"]).ok();
    for at in 0..40 {
        world.write(&format!("files/{at}"), vec![at; 100_000]);
    }
    world.write("Dockerfile", "FROM localhost/busybox\nCOPY files /files\nRUN cp -r /files /more\n");
    Some((world, disk, registry, remote))
}

#[test]
fn a_full_disk() {
    let Some((world, disk, _registry, remote)) = on_disk(64, &[]) else { return };
    world.build("FROM localhost/busybox\nRUN head -c 6000000 /dev/urandom > /doomed\n", &["-t", "localhost/doomed"]).ok();
    // Made durable, and with what it takes to give something up.
    world.strake(["prune", "-f"]).ok();
    world.write("Dockerfile", "FROM localhost/busybox\nCOPY files /files\nRUN cp -r /files /more\n");
    disk.fill();
    // What a program in a container writes is its own affair.
    for (what, run) in writers(&world, &remote).into_iter().filter(|(what, _)| *what != "run") {
        match what {
            // A step names the file by its path in the image.
            "build" => drop(run.fails().says(&["`COPY files /files` failed", "/files/", "No space left on device"])),
            // All of that image is here.
            "load" => drop(run.run()),
            _ => drop(refuses(&world, run, &["No space left on device", "strake prune"])),
        }
        good(&world, what);
    }
    // Looking needs no space, and neither does making some.
    world.strake(["images"]).ok();
    world.strake(["inspect", "localhost/busybox"]).ok();
    world.strake(["rmi", "-f", "localhost/doomed"]).ok();
    world.strake(["prune", "-f", "--build-cache"]).ok();
    world.strake(["tag", "localhost/busybox", "localhost/again"]).ok();
    std::fs::remove_file(disk.at.join("filler")).unwrap();
    for (what, run) in writers(&world, &remote) {
        let done = run.run();
        assert_eq!(done.code, 0, "{what}: {done}");
        good(&world, what);
    }
    world.strake(["validate", &remote]).ok();
}

#[test]
fn a_disk_without_inodes() {
    let Some((world, disk, _registry, remote)) = on_disk(64, &["-N", "2000"]) else { return };
    world.strake(["prune", "-f"]).ok();
    disk.use_inodes_up();
    for (what, run) in writers(&world, &remote).into_iter().take(3) {
        refuses(&world, run, &["No space left on device", "inodes"]);
        good(&world, what);
        disk.use_inodes_up();
    }
    world.strake(["images"]).ok();
    world.strake(["prune", "-f"]).ok();
    std::fs::remove_dir_all(disk.at.join("fillers")).unwrap();
    for (what, run) in writers(&world, &remote) {
        let done = run.run();
        assert_eq!(done.code, 0, "{what}: {done}");
        good(&world, what);
    }
}

#[test]
fn a_read_only_disk() {
    let Some((world, disk, _registry, remote)) = on_disk(64, &[]) else { return };
    world.strake(["pull", &remote]).ok();
    world.strake(["run", "--name", "c", "--network", "none", "localhost/busybox", "true"]).ok();
    world.strake(["save", "-o", "before.tar", &remote]).ok();
    // Everything is durable after this.
    world.strake(["prune", "-f"]).ok();
    disk.remount("ro");
    // What only looks works.
    let listed = world.strake(["images", "--format", "{{.Repository}}"]).ok().stdout;
    assert!(listed.contains("localhost/busybox"), "{listed}");
    world.strake(["save", "-o", "after.tar", &remote]).ok();
    assert_eq!(std::fs::read(world.path("before.tar")).unwrap(), std::fs::read(world.path("after.tar")).unwrap());
    let inspected = ["inspect", "history", "validate"].map(|command| vec![command, remote.as_str()]);
    let others = [vec!["ps", "-a"], vec!["system", "df"], vec!["builder", "du"], vec!["logs", "c"], vec!["system", "check"]];
    for command in inspected.into_iter().chain(others) {
        let done = world.strake(&command).run();
        assert_eq!(done.code, 0, "{command:?}: {done}");
    }
    // What writes says why not.
    let mut commands = writers(&world, "localhost/busybox");
    commands.retain(|(what, _)| *what != "pull");
    commands.push(("tag", world.strake(["tag", "localhost/busybox", "localhost/more"])));
    commands.push(("rmi", world.strake(["rmi", "-f", "localhost/busybox"])));
    commands.push(("rm", world.strake(["rm", "c"])));
    commands.push(("prune", world.strake(["prune", "-f"])));
    commands.push(("pull", world.strake(["pull", &remote.replace(":1", ":2")])));
    for (what, run) in commands {
        if what == "pull" {
            // A name that is nowhere: whichever comes first, it ends well.
            run.fails();
        } else {
            refuses(&world, run, &["Read-only file system", "--root"]);
        }
    }
    disk.remount("rw");
    for (what, run) in writers(&world, &remote) {
        let done = run.run();
        assert_eq!(done.code, 0, "{what}: {done}");
    }
    good(&world, "writable again");
}

#[test]
fn a_store_of_somebody_else() {
    if !able(&["docker-registry", "setpriv"]) {
        return;
    }
    let world = World::new();
    world.busybox();
    let binary = env!("CARGO_BIN_EXE_strake");
    let copy = world.short().join("strake");
    std::fs::copy(binary, &copy).unwrap();
    for path in [world.short(), world.path("").as_path()] {
        std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    }
    let before = std::fs::read_dir(world.root()).unwrap().count();
    for command in
        [vec!["tag", "localhost/busybox", "localhost/mine"], vec!["prune", "-f"], vec!["save", "-o", "/dev/null", "localhost/busybox"]]
    {
        let other = Run::new("setpriv", ["--reuid=65534", "--regid=65534", "--clear-groups"]);
        let done = other.arg(&copy).arg("--root").arg(world.root()).arg_all(&command).dir("/").fails();
        done.says(&["error:"]);
        assert!(done.stderr.contains("ermission denied"), "{command:?}: {done}");
        assert!(done.stderr.contains(world.root().to_str().unwrap()) || done.stderr.contains("user namespace"), "{command:?}: {done}");
    }
    assert_eq!(std::fs::read_dir(world.root()).unwrap().count(), before);
    good(&world, "after somebody else");
}

#[test]
fn a_store_of_a_newer_version_is_left_alone() {
    let world = World::new();
    world.strake(["images"]).ok();
    let version = world.root().join("version");
    std::fs::write(&version, "4711\n").unwrap();
    let state = |path: &Path| path.metadata().unwrap().modified().unwrap();
    let database = state(&world.root().join("meta.db"));
    for command in [vec!["images"], vec!["prune", "-f"], vec!["system", "check"], vec!["system", "check", "--repair"], vec!["run", "x"]] {
        let done = world.strake(&command).fails();
        done.says(&[world.root().to_str().unwrap(), "has format 4711", "use a newer version of strake"]);
    }
    assert_eq!(std::fs::read_to_string(&version).unwrap(), "4711\n");
    assert_eq!(state(&world.root().join("meta.db")), database);
}

#[test]
fn a_path_that_is_no_directory() {
    let world = World::new();
    let file = world.path("file");
    std::fs::write(&file, "content").unwrap();
    let link = world.path("link");
    std::os::unix::fs::symlink("nowhere", &link).unwrap();
    let no_directory = "is a file, or lies below one";
    for (root, said) in
        [(&file, no_directory), (&file.join("below"), no_directory), (&link, "is a symbolic link to `nowhere`, where nothing is")]
    {
        let done = world.strake(["images"]).arg("--root").arg(root).fails();
        done.says(&[&format!("the store `{}` {said}", root.display()), "--root"]);
    }
    // Where nothing can be made, whoever asks.
    world.strake(["images"]).arg("--root").arg("/proc/below/store").fails().says(&[
        "cannot create `/proc/below/store`",
        "in `/proc`",
        "--root",
        "STRAKE_ROOT",
    ]);
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "content");
    // A link to a directory is as good as the directory.
    std::fs::create_dir(world.path("real")).unwrap();
    std::os::unix::fs::symlink("real", world.path("good")).unwrap();
    world.strake(["images"]).arg("--root").arg(world.path("good")).ok();
    assert!(world.path("real/meta.db").exists());
}

#[test]
fn a_clock_that_jumps() {
    if !able(&["docker-registry", "python3", "touch"]) {
        return;
    }
    let world = World::new();
    world.busybox();
    let text = "FROM localhost/busybox\nCOPY Dockerfile /\nRUN --mount=type=cache,target=/c echo x > /c/x\n";
    world.build(text, &["-t", "localhost/app"]).ok();
    let sql = |text: &str| {
        let script = "import sqlite3, sys; db = sqlite3.connect(sys.argv[1]); print(db.executescript(sys.argv[2]).fetchall() if ';' in sys.argv[2] else db.execute(sys.argv[2]).fetchall()); db.commit()";
        Run::new("python3", ["-c", script, world.root().join("meta.db").to_str().unwrap(), text]).ok().stdout
    };
    // In microseconds: the year 2100, and 1970.
    for moment in ["4102444800000000", "0"] {
        sql(&format!(
            "UPDATE cache_records SET created_at = {moment}, last_used = {moment}; UPDATE chains SET last_used = {moment}; UPDATE snapshots SET created_at = {moment};
             UPDATE images SET created_at = {moment}; UPDATE names SET tagged_at = {moment}; UPDATE cache_mounts SET created_at = {moment}, last_used = {moment};
             UPDATE steps SET used_at = {moment};"
        ));
        let date = if moment == "0" { "1970-01-02" } else { "2100-01-01" };
        for path in ["gc", "meta.db", "ingest", "version"].map(|name| world.root().join(name)).iter().filter(|path| path.exists()) {
            Run::new("touch", ["-d", date]).arg(path).ok();
        }
        std::fs::write(world.root().join(format!("ingest/sha256-{}", "ab".repeat(32))), "begun").unwrap();
        Run::new("touch", ["-d", date]).arg(world.root().join(format!("ingest/sha256-{}", "ab".repeat(32)))).ok();
        good(&world, moment);
        world.strake(["images"]).ok();
        world.strake(["system", "df", "-v"]).ok();
        world.strake(["builder", "du"]).ok();
        let built = world.build_as_it_is(&["-t", "localhost/app"]).ok();
        assert_eq!(built.step("COPY Dockerfile"), "CACHED", "{moment}");
        // What is used is of now again, so that it is pruned when it should be.
        let of_now = "SELECT count(*) FROM cache_records WHERE abs(last_used - strftime('%s', 'now') * 1000000) < 600000000";
        assert_ne!(sql(of_now).trim(), "[(0,)]", "{moment}");
        // Half a download of another time is nobody's.
        world.strake(["prune", "-f"]).ok();
        assert_eq!(std::fs::read_dir(world.root().join("ingest")).unwrap().count(), 0, "{moment}");
        world.strake(["run", "--rm", "--network", "none", "localhost/app", "true"]).ok();
    }
    good(&world, "in the end");
}

#[test]
fn a_file_system_that_cannot_rename_to_new_names_only() {
    if !able(&["bindfs", "mount"]) {
        return;
    }
    let world = World::new();
    let below = world.path("below");
    std::fs::create_dir(&below).unwrap();
    std::fs::create_dir(world.root()).unwrap();
    Run::new("bindfs", [&below, &world.root()]).ok();
    let _disk = Disk { at: world.root() };
    world.busybox();
    world.build("FROM localhost/busybox\nRUN echo made > /file && mkdir /dir\nCOPY Dockerfile /dir/\n", &["-t", "localhost/app"]).ok();
    assert_eq!(
        world.strake(["run", "--rm", "--network", "none", "localhost/app", "sh", "-c", "cat /file; ls /dir"]).ok().stdout,
        "made\nDockerfile\n"
    );
    world.strake(["rmi", "localhost/app"]).ok();
    world.strake(["prune", "-af"]).ok();
    good(&world, "after all is removed");
}
