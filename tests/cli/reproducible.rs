//! The same inputs give the same digest: `SOURCE_DATE_EPOCH`, `rewrite-timestamp`, `--reproducible` and `--verify-reproducible`.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::common::registry::{Reply, scripted};
use crate::common::web::{Web, commit};
use crate::common::{Image, Run, World, able};

const EPOCH: &str = "1600000000";
const DATE: &str = "2020-09-13T12:26:40Z";

fn world() -> Option<World> {
    if !able(&[]) {
        return None;
    }
    let world = World::new();
    world.busybox();
    Some(world)
}

/// When each entry of an image's history was made, and the image.
fn dates(image: &Image) -> Vec<String> {
    let history = image.config["history"].as_array().unwrap();
    let mut dates: Vec<String> = history.iter().map(|entry| entry["created"].as_str().unwrap().to_owned()).collect();
    dates.push(image.config["created"].as_str().unwrap().to_owned());
    dates
}

/// The dates of what the base image has not.
fn new_dates(image: &Image) -> Vec<String> {
    // The base has ADD, ENV and CMD.
    dates(image).split_off(3)
}

/// Builds `dockerfile` with this environment and reads the image.
#[track_caller]
fn built(world: &World, dockerfile: &str, args: &[&str], env: &[(&str, &str)]) -> Image {
    let archive = world.path("image.oci.tar");
    let output = format!("type=oci,dest={}", archive.display());
    let mut all = vec!["-o", &output];
    all.extend(args);
    let run = env.iter().fold(world.build(dockerfile, &all), |run, (name, value)| run.env(name, value));
    run.ok();
    Image::oci_archive(&archive)
}

#[test]
fn source_date_epoch_dates_what_a_build_adds_and_nothing_of_its_base() {
    let Some(world) = world() else { return };
    let text = "FROM localhost/busybox\nRUN echo \"${SOURCE_DATE_EPOCH-none}\" > /seen\nLABEL a=b\n";
    let base = built(&world, "FROM localhost/busybox\n", &[], &[]);
    let now = built(&world, text, &[], &[]);
    assert!(new_dates(&now).iter().all(|date| date.as_str() > "2026"), "{:?}", dates(&now));
    let image = built(&world, text, &[], &[("SOURCE_DATE_EPOCH", EPOCH)]);
    assert_eq!(new_dates(&image), [DATE, DATE, DATE]);
    assert_eq!(dates(&image)[..3], dates(&base)[..3]);
    // What commands write keeps its time, and they see only what the Dockerfile declares.
    assert!(image.tree()["seen"].mtime > 1_700_000_000);
    assert_eq!(image.tree()["seen"].content, b"none\n");
    let args = ["--build-arg", "SOURCE_DATE_EPOCH=5"];
    assert_eq!(new_dates(&built(&world, text, &args, &[("SOURCE_DATE_EPOCH", EPOCH)]))[0], "1970-01-01T00:00:05Z");
    let args = ["--build-arg", "SOURCE_DATE_EPOCH="];
    assert_eq!(dates(&built(&world, text, &args, &[("SOURCE_DATE_EPOCH", EPOCH)])), dates(&now));
    let declared = "ARG SOURCE_DATE_EPOCH=1600000000\nFROM localhost/busybox\nARG SOURCE_DATE_EPOCH\nRUN echo $SOURCE_DATE_EPOCH > /seen\n";
    let image = built(&world, declared, &[], &[]);
    assert_eq!((new_dates(&image)[0].as_str(), image.tree()["seen"].content.as_slice()), (DATE, &b"1600000000\n"[..]));
    let image = built(&world, declared, &["--build-arg", "SOURCE_DATE_EPOCH=7"], &[]);
    assert_eq!((new_dates(&image)[0].as_str(), image.tree()["seen"].content.as_slice()), ("1970-01-01T00:00:07Z", &b"7\n"[..]));
    for (value, said) in [("tomorrow", "`tomorrow`"), ("999999999999", "999999999999")] {
        world.build(text, &["--build-arg", &format!("SOURCE_DATE_EPOCH={value}")]).fails().says(&[said]);
    }
}

/// As in BuildKit (`dispatchCopy` and `dispatchWorkdir` give the time to all that they make): later files are lowered, earlier ones raised.
#[test]
fn with_source_date_epoch_what_is_copied_and_made_has_that_time_but_what_is_unpacked_its_own() {
    let Some(world) = world() else { return };
    let text = "FROM localhost/busybox AS stage\nRUN mkdir /s; touch -d @1000 /s/old\nFROM localhost/busybox\nWORKDIR /made/deep\nCOPY d /new/dir/\nCOPY <<E /doc\nx\nE\n\
                COPY --from=stage /s /s\nCOPY --link f /link/f\nADD a.tar /out/\nRUN touch /ran\n";
    world.write("d/sub/f", "f").write("f", "f");
    let old = std::time::UNIX_EPOCH + std::time::Duration::from_secs(5000);
    std::fs::File::open(world.context().join("d/sub/f")).unwrap().set_modified(old).unwrap();
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_ustar();
    header.set_mtime(1234);
    header.set_mode(0o644);
    header.set_size(1);
    tar.append_data(&mut header, "unpacked", &b"u"[..]).unwrap();
    world.write("a.tar", tar.into_inner().unwrap());
    let tree = built(&world, text, &[], &[("SOURCE_DATE_EPOCH", EPOCH)]).tree();
    for path in ["made", "made/deep", "new", "new/dir", "new/dir/sub", "new/dir/sub/f", "doc", "s", "s/old", "link", "link/f", "out"] {
        assert_eq!(tree[path].mtime.to_string(), EPOCH, "{path}");
    }
    assert_eq!(tree["out/unpacked"].mtime, 1234);
    assert!(tree["ran"].mtime > 1_700_000_000);
    // So builds at different times are the same, without `rewrite-timestamp`.
    let text = "FROM localhost/busybox\nWORKDIR /w\nCOPY f /new/\nCOPY <<E /doc/\nx\nE\n";
    let args = ["--no-cache"];
    let first = built(&world, text, &args, &[("SOURCE_DATE_EPOCH", EPOCH)]);
    std::thread::sleep(std::time::Duration::from_millis(1100));
    world.write("f", "f");
    assert_eq!(first.manifest, built(&world, text, &args, &[("SOURCE_DATE_EPOCH", EPOCH)]).manifest);
    // A result with one time is not taken for that with another, or with none.
    for (value, expected) in [("7", Some(7)), ("", None)] {
        let mtime = built(&world, text, &[], &[("SOURCE_DATE_EPOCH", value)]).tree()["w"].mtime;
        assert!(expected.map_or(mtime > 1_700_000_000, |expected| mtime == expected), "{value}: {mtime}");
    }
}

#[test]
fn a_time_can_be_that_of_an_archive_or_of_a_file_that_a_stage_adds() {
    let Some(world) = world() else { return };
    let server = scripted(|_, _| {
        let mut reply = Reply::body("text/plain", "file");
        reply.headers.push(("Last-Modified", "Wed, 03 Jan 2007 08:09:10 GMT".into()));
        reply
    });
    let stage = format!("FROM scratch AS When\nARG HOST={server}\nADD http://$HOST/file /\nFROM localhost/busybox\n");
    let text = format!("{stage}ARG SOURCE_DATE_EPOCH\nRUN echo $SOURCE_DATE_EPOCH > /seen\n");
    let image = built(&world, &text, &[], &[("SOURCE_DATE_EPOCH", "wHEN")]);
    assert_eq!((new_dates(&image)[0].as_str(), image.tree()["seen"].content.as_slice()), ("2007-01-03T08:09:10Z", &b"1167811750\n"[..]));
    let bad = "FROM localhost/busybox AS when\nFROM scratch AS also\nADD http://x.invalid/f /\nRUN x\nFROM localhost/busybox\nLABEL a=b\n";
    world.build(bad, &["--build-arg", "SOURCE_DATE_EPOCH=when"]).fails().says(&["does not start from scratch", "Dockerfile:1"]);
    world.build(bad, &["--build-arg", "SOURCE_DATE_EPOCH=also"]).fails().says(&["has a `RUN`", "Dockerfile:4"]);
    // A directory has no time of its own; an archive that of its newest file.
    let text = "FROM localhost/busybox\nCOPY f /\n";
    world.write("f", "x").build(text, &["--build-arg", "SOURCE_DATE_EPOCH=context"]).ok().says(&["no time of its own"]);
    let mut tar = tar::Builder::new(Vec::new());
    for (name, mtime, content) in [("f", 1_000_000_000, "x"), ("Dockerfile", 999_999_999, text)] {
        let mut header = tar::Header::new_ustar();
        header.set_mtime(mtime);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_size(content.len() as u64);
        tar.append_data(&mut header, name, content.as_bytes()).unwrap();
    }
    let archive = world.path("image.oci.tar");
    let output = format!("type=oci,dest={}", archive.display());
    let args = ["build", "--build-arg", "SOURCE_DATE_EPOCH=context", "-o", &output, "-"];
    world.strake(args).stdin(tar.into_inner().unwrap()).ok();
    assert_eq!(new_dates(&Image::oci_archive(&archive))[0], "2001-09-09T01:46:40Z");
}

#[test]
fn a_stage_that_has_another_time_for_another_platform_is_told() {
    let Some(world) = world() else { return };
    let server = scripted(|_, path| {
        let year = if path.contains("arm64") { "2008" } else { "2007" };
        let mut reply = Reply::body("text/plain", "file");
        reply.headers.push(("Last-Modified", format!("Wed, 03 Jan {year} 08:09:10 GMT")));
        reply
    });
    let build = |file: &str| {
        let text = format!("FROM scratch AS dated\nARG TARGETARCH\nADD http://{server}/{file} /\nFROM scratch\nCOPY f /\n");
        let output = format!("type=oci,dest={}", world.path("several.tar").display());
        let args = ["--platform", "linux/amd64,linux/arm64", "--build-arg", "SOURCE_DATE_EPOCH=dated", "-o", &output];
        world.write("f", "f").build(&text, &args).ok()
    };
    let said = "adds something else for linux/arm64 than for linux/amd64: the time of what it adds for linux/amd64 is that of all images";
    build("$TARGETARCH").says(&[said]);
    build("one").omits(&["adds something else"]);
}

#[test]
fn rewrite_timestamp_lowers_times_in_new_layers_only_and_never_raises_them() {
    let Some(world) = world() else { return };
    let text = "FROM localhost/busybox\nWORKDIR /w\nRUN echo new > /w/new; touch -d @1000 /w/old; ln -s new /w/link; rm /etc/passwd\nCOPY f /w/\nCMD [\"x\"]\n";
    world.write("f", "f");
    let (plain, rewritten) = (world.path("plain.tar"), world.path("rewritten.tar"));
    let outputs = [
        format!("type=oci,dest={}", plain.display()),
        format!("type=oci,dest={},rewrite-timestamp=true", rewritten.display()),
        "type=image,name=localhost/kept,rewrite-timestamp=true".to_owned(),
    ];
    let args = |arg: &'static str| [vec!["--build-arg", arg], outputs.iter().flat_map(|output| ["-o", output]).collect()].concat();
    world.build(text, &args("SOURCE_DATE_EPOCH=1600000000")).ok();
    let (one, two) = (Image::oci_archive(&plain), Image::oci_archive(&rewritten));
    assert_eq!(one.manifest["layers"][0], two.manifest["layers"][0], "the base's layer is another");
    let times =
        |image: &Image| -> Vec<u64> { image.layers[1..].iter().flat_map(|layer| layer.values().map(|entry| entry.mtime)).collect() };
    assert!(times(&one).iter().any(|time| *time > 1_700_000_000));
    assert!(times(&two).iter().all(|time| *time <= 1_600_000_000), "{:?}", times(&two));
    let marked = |image: &Image| -> Vec<Value> {
        let layers = image.manifest["layers"].as_array().unwrap();
        layers.iter().map(|layer| layer["annotations"]["buildkit/rewritten-timestamp"].clone()).collect()
    };
    assert!(marked(&one).iter().all(Value::is_null));
    let expected: Vec<Value> = marked(&two).iter().enumerate().map(|(at, _)| if at == 0 { Value::Null } else { EPOCH.into() }).collect();
    assert_eq!(marked(&two), expected);
    let tree = two.tree();
    for (path, time) in [("w", 1_600_000_000), ("w/new", 1_600_000_000), ("w/link", 1_600_000_000), ("w/old", 1000), ("etc", 1_600_000_000)]
    {
        assert_eq!(tree[path].mtime, time, "{path}");
    }
    assert!(two.layers[2].contains_key("etc/.wh.passwd") && !tree.contains_key("etc/passwd"));
    assert_eq!(one.tree().keys().collect::<Vec<_>>(), tree.keys().collect::<Vec<_>>());
    assert_eq!(new_dates(&two), vec![DATE; 5]);
    // What is kept is that image, files and all.
    let stat = world.strake(["run", "--rm", "--network=none", "localhost/kept", "stat", "-c", "%Y", "/w/new"]).ok();
    assert_eq!(stat.stdout.trim(), EPOCH);
    let id = |world: &World| world.strake(["images", "-q", "--no-trunc", "localhost/kept"]).ok().stdout;
    let before = id(&world);
    // Again from the cache, with its compressed layers gone, and from scratch: the same.
    let bytes = std::fs::read(&rewritten).unwrap();
    world.build(text, &args("SOURCE_DATE_EPOCH=1600000000")).ok();
    assert!(std::fs::read(&rewritten).unwrap() == bytes, "from the cache it is another image");
    assert_eq!(id(&world), before);
    // Another time is another image; none is the plain one's layers.
    world.build(text, &args("SOURCE_DATE_EPOCH=1500000000")).ok();
    let other = Image::oci_archive(&rewritten);
    assert_eq!((other.tree()["w/new"].mtime, other.tree()["w/old"].mtime), (1_500_000_000, 1000));
    world.build(text, &args("SOURCE_DATE_EPOCH=")).ok().says(&["rewrite-timestamp has no effect"]);
    let layers = Image::oci_archive(&rewritten).manifest["layers"].clone();
    assert_eq!(layers, built(&world, text, &[], &[]).manifest["layers"]);
}

#[test]
fn an_outputs_own_time_wins_and_exported_files_have_the_time() {
    let Some(world) = world() else { return };
    world.write("f", "f");
    let (local, tar, oci) = (world.path("local"), world.path("files.tar"), world.path("image.tar"));
    let outputs = [
        format!("type=local,dest={}", local.display()),
        format!("type=tar,dest={}", tar.display()),
        format!("type=oci,dest={},source-date-epoch=1500000000", oci.display()),
    ];
    let args: Vec<&str> = outputs.iter().flat_map(|output| ["-o", output.as_str()]).collect();
    let run = world.build("FROM localhost/busybox\nCOPY f /d/\n", &args);
    run.env("SOURCE_DATE_EPOCH", EPOCH).ok();
    for path in ["f", "", "../bin/busybox"] {
        let metadata = std::fs::symlink_metadata(local.join("d").join(path)).unwrap();
        assert_eq!(std::os::unix::fs::MetadataExt::mtime(&metadata), 1_600_000_000, "{path}");
    }
    let files = crate::common::image::entries(&std::fs::read(&tar).unwrap());
    assert!(files.len() > 2 && files.values().all(|entry| entry.mtime == 1_600_000_000));
    assert_eq!(new_dates(&Image::oci_archive(&oci))[0], "2017-07-14T02:40:00Z");
    let index = Run::new("tar", ["-xOf".as_ref(), oci.as_os_str(), "index.json".as_ref()]).ok();
    let index: Value = serde_json::from_str(&index.stdout).unwrap();
    assert_eq!(index["manifests"][0]["annotations"]["org.opencontainers.image.created"], "2017-07-14T02:40:00Z");
}

/// Writes a context with all kinds of files, all of whose times are `time`. What its commands write depends on times where it can.
fn write_context(dir: &Path, time: &str) {
    let at = |name: &str| dir.join(name);
    std::fs::create_dir_all(at("src/deep")).unwrap();
    std::fs::copy(crate::common::bases().join("busybox.tar"), at("busybox.tar")).unwrap();
    std::fs::write(at("src/a"), "one").unwrap();
    std::fs::write(at("src/deep/b"), "two").unwrap();
    std::os::unix::fs::symlink("a", at("src/link")).unwrap();
    std::fs::hard_link(at("src/a"), at("src/hard")).unwrap();
    std::fs::File::create(at("src/sparse")).unwrap().set_len(3 << 20).unwrap();
    std::fs::write(at("Dockerfile"), DOCKERFILE).unwrap();
    let mut archive = tar::Builder::new(std::fs::File::create(at("a.tar")).unwrap());
    let mut header = tar::Header::new_ustar();
    header.set_mtime(777_777_777);
    header.set_size(1);
    header.set_mode(0o640);
    header.set_uid(3);
    archive.append_data(&mut header, "in/archive", &b"x"[..]).unwrap();
    archive.into_inner().unwrap();
    for (path, mode) in [("", 0o755), ("src", 0o755), ("src/deep", 0o755), ("src/a", 0o644), ("src/deep/b", 0o755), ("src/sparse", 0o644)] {
        std::fs::set_permissions(at(path), PermissionsExt::from_mode(mode)).unwrap();
    }
    Run::new(
        "find",
        [dir.as_os_str(), "-exec".as_ref(), "touch".as_ref(), "-h".as_ref(), "-d".as_ref(), time.as_ref(), "{}".as_ref(), "+".as_ref()],
    )
    .ok();
}

const DOCKERFILE: &str = r#"FROM scratch AS base
ADD busybox.tar /
ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
FROM base AS one
RUN mkdir -p /out/d && echo 1 > /out/d/1 && touch /out/now
FROM base AS two
RUN sleep 0.1; mkdir /out; date -d @$SOURCE_DATE_EPOCH > /out/date; ls -lan /bin /etc/passwd | grep -v -e total -e '\.\.$' > /out/list; tar cf /out/t.tar /etc/passwd
FROM base
WORKDIR /w/k
COPY src /src
COPY --link src/a /linked/deep/a
COPY --parents src/deep/b /p/
COPY <<EOF /doc
hello
EOF
ADD a.tar /ar
COPY --from=one /out /one
COPY --from=two /out /two
RUN rm -rf /etc/passwd /src/deep && mkdir /src/deep && echo 3 > /src/deep/3 && ln /src/a /src/hard2 && mkfifo /fifo && chown 5:7 /one/now && chmod 4755 /one/d/1 && mv /one/d /moved && touch /tmp/x && rm /tmp/x
RUN mkdir /etc/new && rmdir /etc/new; ls -lanR /src /w /one /moved /ar /linked /p /doc | grep -v -e total -e '\.\.$' > /list; umask > /umask; id > /id; hostname >> /id; env | sort > /env
USER 33:33
WORKDIR /home/u
LABEL a=b
CMD ["sh"]
"#;

/// The digest of the manifest in the file that `--metadata-file` wrote.
fn digest(metadata: &Path) -> String {
    let metadata: Value = serde_json::from_slice(&std::fs::read(metadata).unwrap()).unwrap();
    metadata["containerimage.digest"].as_str().unwrap().to_owned()
}

/// An ordinary user with sub-ids, for as long as the test runs.
struct User {
    name: String,
    home: tempfile::TempDir,
}

impl User {
    fn new() -> User {
        let name = format!("e2e-{}", std::process::id());
        Run::new("useradd", ["--no-create-home", &name]).ok();
        // Not in the target directory, which an ordinary user may not reach.
        let home = tempfile::Builder::new().prefix("e2e-").tempdir_in("/var/tmp").unwrap();
        std::fs::copy(env!("CARGO_BIN_EXE_strake"), home.path().join("strake")).unwrap();
        User { name, home }
    }

    /// The command under test, run by this user with a umask that hides everything.
    fn strake(&self, dir: &Path, args: &[&str]) -> Run {
        let owner = format!("{0}:{0}", self.name);
        Run::new("chown", ["-R".as_ref(), owner.as_ref(), self.home.path().as_os_str()]).ok();
        let script = format!("umask 077; exec setpriv --reuid={0} --regid={0} --init-groups \"$@\"", self.name);
        let mut run = Run::new("sh", ["-c", &script, "sh"]).arg(self.home.path().join("strake"));
        run.command().args(args).current_dir(dir).env_clear().env("HOME", self.home.path());
        run.env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
    }
}

impl Drop for User {
    fn drop(&mut self) {
        Run::new("userdel", [&self.name]).run();
    }
}

#[test]
fn reproducible_builds_give_one_digest_in_any_directory_at_any_time_on_any_number_of_cores_as_root_or_not() {
    if !able(&["taskset", "useradd", "newuidmap", "setpriv"]) {
        return;
    }
    let (world, user) = (World::new(), User::new());
    let mut digests = Vec::new();
    // An ordinary user, another umask, a longer path, files that are older than the build's time.
    let context = user.home.path().join("a/much/deeper/directory");
    write_context(&context, "2019-01-01 01:01:01");
    let metadata = user.home.path().join("metadata");
    let args = ["build", "--reproducible", "--metadata-file", metadata.to_str().unwrap(), "."];
    user.strake(&context, &args).env("SOURCE_DATE_EPOCH", EPOCH).ok();
    digests.push(digest(&metadata));
    // Root, one core, and files that are newer than it, with fractions of a second. The steps were built before without a time.
    let context = world.context();
    write_context(&context, "2024-06-06 06:06:06.5");
    let metadata = world.path("metadata");
    world.build_as_it_is(&[]).ok();
    let archive = world.path("image.tar");
    let output = format!("type=oci,dest={}", archive.display());
    let mut run = Run::new("taskset", ["-c", "0", env!("CARGO_BIN_EXE_strake"), "build", "--metadata-file"]).arg(&metadata);
    run.command().args(["-o", &output]).arg(&context).env_clear().env("STRAKE_ROOT", world.root());
    run.env("STRAKE_REPRODUCIBLE", "1").env("SOURCE_DATE_EPOCH", EPOCH).env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").ok();
    digests.push(digest(&metadata));
    // From the cache; then from the settings and in another store.
    let again = |root: PathBuf, extra: &[&str]| {
        let args = [&["build", "--metadata-file", metadata.to_str().unwrap()], extra, &["ctx"]].concat();
        world.strake(args).env("STRAKE_ROOT", root).env("SOURCE_DATE_EPOCH", EPOCH)
    };
    again(world.root(), &["--reproducible"]).ok();
    digests.push(digest(&metadata));
    std::fs::create_dir_all(world.path("home/.config/strake")).unwrap();
    std::fs::write(world.path("home/.config/strake/config.toml"), "[build]\nreproducible = true\n").unwrap();
    again(world.path("other"), &[]).ok();
    digests.push(digest(&metadata));
    digests.dedup();
    assert_eq!(digests.len(), 1, "{digests:?}");
    let image = Image::oci_archive(&archive);
    assert!(dates(&image).iter().all(|date| date == DATE), "{:?}", dates(&image));
    let later: Vec<_> = image.tree().into_iter().filter(|(_, entry)| entry.mtime > 1_600_000_000).map(|(path, _)| path).collect();
    assert!(later.is_empty(), "{later:?}");
    assert_eq!(image.tree()["two/date"].content, b"Sun Sep 13 12:26:40 UTC 2020\n");
    again(world.path("other"), &["--reproducible=false"]).ok();
    assert_ne!(digest(&metadata), digests[0]);
    std::fs::write(world.path("home/.config/strake/config.toml"), "[build]\nreproducable = true\n").unwrap();
    again(world.root(), &[]).fails().says(&["config.toml:2", "reproducable"]);
    std::fs::remove_file(world.path("home/.config/strake/config.toml")).unwrap();
    world.build_as_it_is(&[]).env("STRAKE_REPRODUCIBLE", "perhaps").fails().says(&["STRAKE_REPRODUCIBLE is `perhaps`"]);
}

#[test]
fn without_a_time_that_of_the_contexts_commit_is_taken() {
    if !able(&["git"]) {
        return;
    }
    let world = World::new();
    world.busybox().write("f", "f").write("Dockerfile", "FROM localhost/busybox\nCOPY f /f\nRUN echo $SOURCE_DATE_EPOCH > /seen\n");
    let run_git = |args: &[&str]| {
        let all = [&["-c", "user.name=A", "-c", "user.email=a@b", "-c", "init.defaultBranch=main"], args].concat();
        Run::new("git", all).dir(world.context()).env("GIT_COMMITTER_DATE", "1600000000 +0200").env("HOME", world.path("home")).ok()
    };
    run_git(&["init", "-q"]);
    run_git(&["add", "."]);
    run_git(&["commit", "-q", "-m", "x"]);
    let archive = world.path("image.tar");
    let output = format!("type=oci,dest={}", archive.display());
    world.build_as_it_is(&["--reproducible", "-o", &output]).ok();
    let image = Image::oci_archive(&archive);
    assert_eq!(new_dates(&image), [DATE, DATE, DATE]);
    let tree = image.tree();
    let seen = (tree["f"].mtime, tree["seen"].mtime, tree["seen"].content.as_slice());
    assert_eq!(seen, (1_600_000_000, 1_600_000_000, &b"1600000000\n"[..]));
    world.build_as_it_is(&["--reproducible", "--build-arg", "SOURCE_DATE_EPOCH=5", "-o", &output]).ok();
    assert_eq!(Image::oci_archive(&archive).tree()["seen"].content, b"5\n");
    // A repository that cannot be read is no reason to take another time.
    std::fs::write(world.context().join(".git/HEAD"), "nonsense").unwrap();
    world.build_as_it_is(&["--reproducible"]).fails().says(&["git repository", "give the time as SOURCE_DATE_EPOCH"]);
    world.build_as_it_is(&[]).ok();
    // Without a repository it is always the same, too.
    let elsewhere = tempfile::tempdir().unwrap();
    std::fs::write(elsewhere.path().join("Dockerfile"), "FROM localhost/busybox\nRUN echo $SOURCE_DATE_EPOCH > /seen\n").unwrap();
    world.strake(["build", "--reproducible", "-o", &output]).arg(elsewhere.path()).ok().says(&["1970-01-01"]);
    assert_eq!(Image::oci_archive(&archive).tree()["seen"].content, b"0\n");
}

#[test]
fn verify_reproducible_names_the_step_and_the_files_that_differ() {
    let Some(world) = world() else { return };
    let good = "FROM localhost/busybox\nRUN echo x > /x\nCOPY --from=localhost/busybox /etc/passwd /p\n";
    let metadata = world.path("metadata");
    world.build(good, &["--verify-reproducible"]).ok().says(&["reproducible but for times", "--reproducible"]);
    let epoch = ["--build-arg", "SOURCE_DATE_EPOCH=9", "--metadata-file", metadata.to_str().unwrap()];
    let done = world.build(good, &[&["--verify-reproducible", "--reproducible"], &epoch[..]].concat()).ok();
    done.says(&["reproducible: two builds gave", &digest(&metadata)]);
    // Steps that were cached are no proof.
    let bad = "FROM localhost/busybox\nRUN echo x > /x\n\nRUN cat /proc/sys/kernel/random/uuid > /id; mkdir -p /d/$(cat /id); echo same > /same\nRUN cp /id /copy\n";
    world.build(bad, &["-t", "localhost/bad"]).ok();
    let before = world.strake(["images", "-q", "localhost/bad"]).ok().stdout;
    for extra in [&[][..], &["--reproducible"]] {
        let done = world.build(bad, &[&["--verify-reproducible", "-t", "localhost/bad"], extra].concat()).fails();
        done.says(&["Dockerfile:4", "/id: content", "only the first build has it", "only the second build has it", "not compared: 1"]);
        assert!(!["/same", "/x:", "/copy:"].iter().any(|path| done.stderr.contains(&format!("  {path}"))), "{done}");
    }
    let after = world.strake(["images", "-q", "localhost/bad"]).ok().stdout;
    assert_eq!(after, before, "a result that is not reproducible got the name");
}

#[test]
fn layers_that_are_compressed_again_are_the_same() {
    let Some(world) = world() else { return };
    world.write("f", "f".repeat(3 << 20));
    let text = "FROM localhost/busybox\nCOPY f /f\nRUN touch /x\n";
    for spec in ["", ",compression=zstd,force-compression=true", ",compression=gzip,compression-level=9,force-compression=true"] {
        let archive = world.path("image.tar");
        let output = format!("type=oci,dest={}{spec}", archive.display());
        world.build(text, &["-o", &output]).ok();
        let first = std::fs::read(&archive).unwrap();
        // All images go, and with them every blob; what steps gave stays in the cache.
        let images = world.strake(["images", "-q", "--no-trunc", "-a"]).ok().stdout;
        world.strake([&["rmi", "-f"], images.split_whitespace().collect::<Vec<_>>().as_slice()].concat()).ok();
        remove_blobs(&world.root().join("blobs"));
        remove_blobs(&world.root().join("fresh"));
        world.strake(["build", "-t", "localhost/busybox", "base"]).ok().says(&["CACHED"]);
        world.build(text, &["-o", &output]).ok().says(&["CACHED"]);
        assert!(std::fs::read(&archive).unwrap() == first, "{spec}");
    }
}

/// Removes all files below a directory, as if they had been pruned.
fn remove_blobs(dir: &Path) {
    for entry in walkdir::WalkDir::new(dir).into_iter().filter_map(Result::ok).filter(|entry| entry.file_type().is_file()) {
        std::fs::remove_file(entry.path()).unwrap();
    }
}

#[test]
fn a_repository_as_a_context_gives_its_commits_time() {
    if !able(&["git"]) {
        return;
    }
    let world = World::new();
    let app = world.path("srv/app.git");
    commit(&app, &[("Dockerfile", "FROM scratch\nCOPY f /f\n"), ("f", "f")]);
    // What the helper commits is always of the same time.
    let (seconds, date) = (1_700_000_000, "2023-11-14T22:13:20Z");
    let web = Web::git(&world.path("srv"), None);
    let archive = world.path("image.tar");
    let output = format!("type=oci,dest={}", archive.display());
    for args in [&["--build-arg", "SOURCE_DATE_EPOCH=context"][..], &["--reproducible"]] {
        let all = [&["build", "-o", &output], args].concat();
        world.strake(all).arg(web.url("/app.git")).ok();
        let image = Image::oci_archive(&archive);
        assert_eq!((dates(&image), image.tree()["f"].mtime), (vec![date.to_owned(); 2], seconds), "{args:?}");
    }
    // As a named context, and as what a stage adds.
    let text = format!("FROM scratch AS time\nADD {} /\nFROM scratch\nLABEL a=b\n", web.url("/app.git"));
    let named = format!("other={}", web.url("/app.git"));
    for (value, extra) in [("time", &[][..]), ("other", &["--build-context", &named])] {
        let epoch = format!("SOURCE_DATE_EPOCH={value}");
        world.build(&text, &[&["-o", &output, "--build-arg", &epoch], extra].concat()).ok();
        assert_eq!(Image::oci_archive(&archive).config["created"], date, "{value}");
    }
}
