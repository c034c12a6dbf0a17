//! Images that mean harm, pulled as root: nothing outside of the image's own files changes, what is refused is named, and what other tools take is taken.

use std::io::Write as _;
use std::path::Path;

use serde_json::json;
use sha2::{Digest as _, Sha256};
use tar::{EntryType, Header};

use crate::common::faulty::Faulty;
use crate::common::{Run, World, able, hex};

const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// A stream of tar, put together entry by entry.
#[derive(Clone, Default)]
struct Tar(Vec<u8>);

impl Tar {
    fn entry(mut self, kind: EntryType, name: impl AsRef<[u8]>, link: &str, data: &[u8]) -> Tar {
        let name = name.as_ref();
        if name.len() > 100 {
            self = self.pax(&[("path", name)]);
        }
        let mut header = Header::new_ustar();
        let short = &name[..name.len().min(100)];
        header.as_old_mut().name[..short.len()].copy_from_slice(short);
        header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_entry_type(kind);
        header.set_mode(if kind == EntryType::Directory { 0o755 } else { 0o644 });
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1_000_000_000);
        header.set_size(data.len() as u64);
        if matches!(kind, EntryType::Char | EntryType::Block) {
            header.set_device_major(1).unwrap();
            header.set_device_minor(3).unwrap();
        }
        header.set_cksum();
        self.0.extend_from_slice(header.as_bytes());
        self.0.extend_from_slice(data);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    fn pax(self, records: &[(&str, &[u8])]) -> Tar {
        let mut body = Vec::new();
        for (key, value) in records {
            let rest = key.len() + value.len() + 3;
            let length = (rest + 1..rest + 9).find(|length| rest + length.to_string().len() == *length).unwrap();
            body.extend_from_slice(format!("{length} {key}=").as_bytes());
            body.extend_from_slice(value);
            body.push(b'\n');
        }
        self.entry(EntryType::XHeader, "pax", "", &body)
    }

    fn file(self, name: impl AsRef<[u8]>, data: &str) -> Tar {
        self.entry(EntryType::Regular, name, "", data.as_bytes())
    }

    fn dir(self, name: &str) -> Tar {
        self.entry(EntryType::Directory, name, "", b"")
    }

    fn symlink(self, name: &str, to: &str) -> Tar {
        self.entry(EntryType::Symlink, name, to, b"")
    }

    fn hard_link(self, name: &str, to: &str) -> Tar {
        self.entry(EntryType::Link, name, to, b"")
    }

    fn end(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 1024, 0);
        self.0
    }
}

fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex(&Sha256::digest(bytes)))
}

/// Puts an image of these layers into a registry; the diff IDs are those of the layers unless others are given.
fn put(faulty: &Faulty, tag: &str, layers: &[Vec<u8>], diff_ids: Option<Vec<String>>) -> String {
    let diff_ids = diff_ids.unwrap_or_else(|| layers.iter().map(|layer| digest(layer)).collect());
    let rootfs = json!({ "type": "layers", "diff_ids": diff_ids });
    let config = json!({ "architecture": "amd64", "os": "linux", "config": {}, "rootfs": rootfs }).to_string();
    let blob = |kind: &str, bytes: &[u8]| json!({ "mediaType": kind, "size": bytes.len(), "digest": faulty.put_blob(bytes) });
    let layers: Vec<_> = layers.iter().map(|layer| blob(LAYER, layer)).collect();
    let manifest = json!({ "schemaVersion": 2, "mediaType": MANIFEST, "config": blob(CONFIG, config.as_bytes()), "layers": layers });
    faulty.put_manifest(tag, MANIFEST, manifest.to_string().as_bytes());
    faulty.name(&format!("hostile:{tag}"))
}

/// A world with files that nobody may touch, some of them where a layer's directory could be left for.
struct Watched {
    world: World,
}

impl Watched {
    fn new() -> Watched {
        let world = World::new();
        world.strake(["images"]).ok();
        for victim in Watched::victims(&world) {
            std::fs::write(victim, "untouched").unwrap();
        }
        Watched { world }
    }

    fn victims(world: &World) -> [std::path::PathBuf; 2] {
        [world.path("victim"), world.root().join("snapshots/victim")]
    }

    #[track_caller]
    fn look(&self, what: &str) {
        for victim in Watched::victims(&self.world) {
            assert_eq!(std::fs::read_to_string(&victim).unwrap(), "untouched", "{what}");
            assert_eq!(std::os::unix::fs::MetadataExt::nlink(&std::fs::metadata(&victim).unwrap()), 1, "{what}");
        }
        std::fs::remove_file(self.world.root().join("snapshots/victim")).unwrap();
        self.world.strake(["system", "check"]).ok();
        std::fs::write(self.world.root().join("snapshots/victim"), "untouched").unwrap();
    }
}

#[test]
fn layers_that_reach_out_reach_nothing() {
    if !able(&[]) {
        return;
    }
    let (watched, faulty) = (Watched::new(), Faulty::start());
    let victim = watched.world.path("victim");
    let absolute = victim.to_str().unwrap();
    let parent = watched.world.path("");
    let parent = parent.to_str().unwrap().trim_end_matches('/');
    let deep = |name: &str| format!("{}{name}", "../".repeat(12));
    let cases: Vec<(&str, Tar, bool)> = vec![
        ("a name that climbs", Tar::default().file("../victim", "mine"), true),
        ("a name that climbs from below", Tar::default().dir("a").file("a/../../victim", "mine"), true),
        ("a name that climbs far", Tar::default().file(deep(&absolute[1..]), "mine"), true),
        (
            "a whiteout that climbs",
            Tar::default().file("../.wh.victim", "").file(deep(&format!("{}/.wh..wh..opq", &parent[1..])), ""),
            true,
        ),
        ("an absolute name", Tar::default().file(absolute, "mine"), true),
        ("a file through a link", Tar::default().symlink("l", parent).file("l/victim", "mine"), true),
        ("a file through a relative link", Tar::default().symlink("l", "../../").file("l/victim", "mine"), true),
        ("a file through /proc", Tar::default().symlink("l", "/proc/self/root").file(format!("l{absolute}"), "mine"), true),
        ("a link that is overwritten", Tar::default().symlink("l", absolute).file("l", "mine"), true),
        ("a directory that becomes a link", Tar::default().dir("d").symlink("d", parent).file("d/victim", "mine"), true),
        ("a link that becomes a directory", Tar::default().symlink("d", parent).dir("d").file("d/victim", "mine"), true),
        ("a hard link to itself", Tar::default().hard_link("h", "h"), false),
        ("a hard link out", Tar::default().hard_link("h", absolute), false),
        ("a hard link that climbs", Tar::default().hard_link("h", &deep("victim")), false),
        ("a hard link through a link", Tar::default().symlink("l", parent).hard_link("h", "l/victim"), false),
        ("a hard link to a link, written through", Tar::default().symlink("l", absolute).hard_link("h", "l").file("h", "mine"), true),
        ("a whiteout through a link", Tar::default().symlink("l", parent).file("l/.wh.victim", ""), true),
        ("an opaque mark through a link", Tar::default().symlink("l", parent).file("l/.wh..wh..opq", ""), true),
        ("a whiteout of the parent", Tar::default().dir("a").file("a/.wh...", ""), false),
        ("a whiteout of itself", Tar::default().file(".wh..", ""), false),
        ("a whiteout of nothing", Tar::default().file(".wh.", ""), false),
        ("a whiteout with a slash", Tar::default().pax(&[("path", b".wh.../victim")]).file("x", ""), false),
        ("an attribute of overlayfs", Tar::default().pax(&[("SCHILY.xattr.trusted.overlay.redirect", parent.as_bytes())]).dir("d"), true),
        ("a device", Tar::default().entry(EntryType::Block, "sda", "", b"").entry(EntryType::Char, "null", "", b""), true),
        ("a pipe in place of a directory", Tar::default().entry(EntryType::Fifo, "d", "", b"").file("d/victim", "x"), true),
        ("a zero byte", Tar::default().pax(&[("path", b"a\0b")]).file("x", ""), false),
        ("a name of 256 bytes", Tar::default().file("n".repeat(256), ""), false),
        ("a path of 5000 bytes", Tar::default().file("n/".repeat(2500), ""), false),
        ("a header of a gigabyte", Tar::default().pax(&[("size", b"1073741824")]).file("x", ""), false),
        ("a record that is longer than its header", Tar::default().entry(EntryType::XHeader, "pax", "", b"99 path=x\n"), false),
        ("a record of no length", Tar::default().entry(EntryType::XHeader, "pax", "", b"0 path=x\n"), false),
        (
            "a record of a length beyond numbers",
            Tar::default().entry(EntryType::XHeader, "pax", "", b"99999999999999999999999 a=b\n"),
            false,
        ),
    ];
    for (number, (what, tar, taken)) in cases.into_iter().enumerate() {
        let name = put(&faulty, &number.to_string(), &[tar.end()], None);
        let done = watched.world.strake(["pull", &name]).run();
        assert_eq!(done.code == 0, taken, "{what}: {done}");
        assert!(!done.stderr.contains("panicked"), "{what}: {done}");
        if !taken {
            assert!(done.stderr.contains("error: cannot pull") && done.stderr.contains("caused by:"), "{what}: {done}");
        }
        watched.look(what);
    }
}

/// The entries of an image's files, as `tar` lists them.
fn files(world: &World, name: &str) -> String {
    let out = world.path("files.tar");
    world.build(&format!("FROM {name}\n"), &["-o", &format!("type=tar,dest={}", out.display())]).ok();
    listed(&out)
}

fn listed(tar: &Path) -> String {
    Run::new("tar", ["--quoting-style=escape", "--numeric-owner", "-tvf"]).arg(tar).ok().stdout
}

#[test]
fn oddities_that_others_take_are_taken() {
    if !able(&["tar"]) {
        return;
    }
    let (world, faulty) = (World::new(), Faulty::start());
    let thousand: Vec<(String, Vec<u8>)> = (0..2000).map(|n| (format!("LIBARCHIVE.note{n}"), b"x".to_vec())).collect();
    let records: Vec<(&str, &[u8])> = thousand.iter().map(|(key, value)| (key.as_str(), value.as_slice())).collect();
    let first = Tar::default()
        .dir("./")
        .dir("./a")
        .file("./a/file", "one")
        .file("a/file", "two, longer")
        .file("b", "a file")
        .dir("b")
        .file("b/below", "in the directory")
        .symlink("c", "a")
        .file("c/through", "lands in a")
        .file("/absolute", "x")
        .file("a/../sideways", "x")
        .file("a/../../climbed", "x")
        .file("/../above", "x")
        .file(b"caf\xe9", "Latin-1")
        .file("n".repeat(255), "long")
        .symlink("dangling", "/no/where")
        .hard_link("twin", "dangling")
        .file(".wh.missing", "")
        .file("implied/parents/file", "x")
        .pax(&records)
        .file("noted", "x")
        .file("gone", "x")
        .dir("opaque")
        .file("opaque/old", "x")
        .dir("again")
        .file("again/theirs", "x")
        .file("replaced", "x")
        .end();
    // A whiteout deletes what the layers below have, also where it comes after what its own layer brings.
    let second = Tar::default()
        .file(".wh.gone", "")
        .file("opaque/new", "y")
        .file("opaque/.wh..wh..opq", "")
        .file(".wh..wh.plnk", "x")
        .dir("again")
        .file("again/mine", "y")
        .file(".wh.again", "")
        .file("replaced", "new, longer by far")
        .file(".wh.replaced", "")
        .end();
    // No entry at all, as zero blocks and as no bytes.
    let name = put(&faulty, "odd", &[first, second, vec![0; 1024], Vec::new()], None);
    world.strake(["pull", &name]).ok();
    let seen = files(&world, &name);
    for line in [
        " 11 ",
        "a/file",
        "b/below",
        "a/through",
        "absolute",
        "sideways",
        " climbed",
        " above",
        "caf\\351",
        "implied/parents/file",
        "noted",
        "opaque/new",
        "again/mine",
        " 18 ",
    ] {
        assert!(seen.contains(line), "{line}: {seen}");
    }
    assert!(seen.contains(&"n".repeat(255)) && seen.contains("c -> a") && seen.contains("dangling -> /no/where"), "{seen}");
    for gone in ["missing", "gone", "opaque/old", "plnk", "again/theirs"] {
        assert!(!seen.contains(gone), "{gone}: {seen}");
    }
    world.strake(["validate", &name]).ok();
    world.strake(["system", "check"]).ok();
}

#[test]
fn configs_and_layers_that_disagree_are_refused() {
    if !able(&[]) {
        return;
    }
    let (world, faulty) = (World::new(), Faulty::start());
    let layer = Tar::default().file("file", "x").end();
    let other = digest(b"something else");
    for (tag, diff_ids, words) in [
        ("none", vec![], ["1", "0"]),
        ("more", vec![digest(&layer), other.clone()], ["1", "2"]),
        ("wrong", vec![other.clone()], ["sha256:", other.as_str()]),
    ] {
        let name = put(&faulty, tag, std::slice::from_ref(&layer), Some(diff_ids));
        world.strake(["pull", &name]).fails().says(&["cannot pull", &name]).says(&words);
        assert_eq!(world.strake(["images", "-q"]).ok().stdout, "");
        world.strake(["system", "check"]).ok();
    }
    world.strake(["pull", &put(&faulty, "right", &[layer], None)]).ok();
}

#[test]
fn a_bomb_ends_at_the_limit_and_leaves_nothing() {
    if !able(&[]) {
        return;
    }
    let (world, faulty) = (World::new(), Faulty::start());
    let name = put(&faulty, "bomb", &[Tar::default().file("zeros", &"\0".repeat(3 << 20)).end()], None);
    let pull = |limit: &str| world.strake(["pull", &name]).env("STRAKE_MAX_LAYER_SIZE", limit);
    pull("2MB").fails().says(&["unpacks to more than 2097152 bytes", "STRAKE_MAX_LAYER_SIZE"]);
    assert_eq!(world.strake(["images", "-q"]).ok().stdout, "");
    world.strake(["system", "check"]).ok();
    pull("much").fails().says(&["`much`", "STRAKE_MAX_LAYER_SIZE"]);
    pull("4MB").ok();
}

#[test]
fn a_manifest_of_another_size_than_its_descriptor_says_is_refused() {
    if !able(&["tar"]) {
        return;
    }
    let (world, faulty) = (World::new(), Faulty::start());
    let name = put(&faulty, "one", &[Tar::default().file("file", "x").end()], None);
    let manifest = faulty.manifest("one").unwrap();
    let index = |wrong: i64| {
        let size = i64::try_from(manifest.len()).unwrap() + wrong;
        let entry = json!({ "mediaType": MANIFEST, "digest": digest(&manifest), "size": size, "platform": { "os": "linux", "architecture": "amd64" } });
        json!({ "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": [entry] }).to_string()
    };
    for (tag, wrong) in [("more", 7), ("fewer", -1)] {
        faulty.put_manifest(tag, "application/vnd.oci.image.index.v1+json", index(wrong).as_bytes());
        let name = faulty.name(&format!("hostile:{tag}"));
        world.strake(["pull", "--platform", "linux/amd64", &name]).fails().says(&["announces", &manifest.len().to_string()]);
        world.strake(["copy", "--all", &name, "oci:out"]).fails().says(&["announces"]);
    }
    assert_eq!(world.strake(["images", "-q"]).ok().stdout, "");
    // The same of a layout, and of an archive of it.
    world.strake(["copy", &name, "oci:layout:1"]).ok();
    for wrong in [0, 7] {
        std::fs::write(world.path("layout/index.json"), index(wrong)).unwrap();
        Run::new("tar", ["-cf", "../layout.tar", "."]).dir(world.path("layout")).ok();
        let runs = [
            vec!["load", "-i", "layout.tar"],
            vec!["copy", "oci:layout", "store:a:1"],
            vec!["copy", "oci-archive:layout.tar", "oci:other"],
        ];
        for run in runs {
            let done = world.strake(&run).run();
            assert_eq!(done.code == 0, wrong == 0, "{done}");
            assert!(wrong == 0 || done.stderr.contains("announces"), "{done}");
        }
    }
    world.strake(["system", "check"]).ok();
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn an_archive_that_add_unpacks_ends_at_the_limit_of_a_layer() {
    if !able(&[]) {
        return;
    }
    let world = World::new();
    let bomb = Tar::default().file("zeros", &"\0".repeat(3 << 20)).file("more", &"\0".repeat(3 << 20)).end();
    world.write("bomb.tgz", gzip(&bomb)).write("bomb.tar", &bomb);
    for (archive, destination) in [("bomb.tgz", "/"), ("bomb.tar", "/"), ("bomb.tar", "/etc/")] {
        let text = format!("FROM scratch\nADD {archive} {destination}\n");
        let build = |limit: &str| {
            world.write("Dockerfile", &text);
            world.build_as_it_is(&["-t", "app:1"]).env("STRAKE_MAX_LAYER_SIZE", limit)
        };
        build("4MB").fails().says(&["unpacks to more than 4194304 bytes", "STRAKE_MAX_LAYER_SIZE"]);
        build("8MB").ok();
        world.strake(["rmi", "app:1"]).ok();
        world.strake(["builder", "prune", "-af"]).ok();
    }
    world.strake(["system", "check"]).ok();
}

#[test]
fn layers_are_unpacked_by_their_bytes_whatever_their_type_says() {
    if !able(&["tar"]) {
        return;
    }
    let (world, faulty) = (World::new(), Faulty::start());
    let layer = Tar::default().file("file", "x").end();
    let blob = gzip(&layer);
    let kinds = [
        "application/vnd.docker.image.rootfs.diff.tar.zstd",
        "application/vnd.oci.image.layer.v1.tar+zstd",
        "application/vnd.oci.image.layer.v1.tar",
    ];
    for (number, kind) in kinds.into_iter().enumerate() {
        let tag = format!("t{number}");
        put(&faulty, &tag, std::slice::from_ref(&layer), None);
        let mut manifest: serde_json::Value = serde_json::from_slice(&faulty.manifest(&tag).unwrap()).unwrap();
        manifest["layers"][0] = json!({ "mediaType": kind, "size": blob.len(), "digest": faulty.put_blob(&blob) });
        faulty.put_manifest(&tag, MANIFEST, manifest.to_string().as_bytes());
        let (name, world) = (faulty.name(&format!("hostile:{tag}")), World::new());
        world.strake(["pull", "-q", &name]).ok();
        assert!(files(&world, &name).contains("file"));
    }
    // An entry that is no image is none that there could be for this machine.
    let entry =
        json!({ "mediaType": "text/plain", "digest": digest(b"x"), "size": 1, "platform": { "os": "linux", "architecture": "amd64" } });
    let index = json!({ "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": [entry] });
    faulty.put_manifest("plain", "application/vnd.oci.image.index.v1+json", index.to_string().as_bytes());
    let pull = world.strake(["pull", "--platform", "linux/amd64", &faulty.name("hostile:plain")]).fails();
    pull.says(&["has no image for linux/amd64"]).omits(&["it has images for"]);
}

#[test]
fn a_foreign_layer_comes_from_its_address_and_takes_nobodys_credentials_there() {
    if !able(&["tar"]) {
        return;
    }
    let (world, faulty, elsewhere) = (World::new(), Faulty::start(), Faulty::start());
    let layer = Tar::default().file("file", "x").end();
    let blob = gzip(&layer);
    let at = elsewhere.put_blob(&blob);
    let url = format!("http://{}/v2/base/blobs/{at}", elsewhere.address());
    let auth = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, "me:secret");
    std::fs::write(
        world.path("docker/config.json"),
        json!({ "auths": { elsewhere.address(): { "auth": auth } }, "HttpHeaders": { "X-Meta-Team": "blue" } }).to_string(),
    )
    .unwrap();
    elsewhere.set(|_, _| None);
    let foreign = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip";
    let nondistributable = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip";
    for (tag, kind, urls) in [
        ("docker", foreign, json!(["ftp://nowhere/x", "http://127.0.0.1:1/gone", &url])),
        ("oci", nondistributable, json!([&url])),
        ("away", foreign, json!(["http://registry.invalid/x"])),
        ("usual", "application/vnd.oci.image.layer.v1.tar+gzip", json!([&url])),
    ] {
        put(&faulty, tag, std::slice::from_ref(&layer), None);
        let mut manifest: serde_json::Value = serde_json::from_slice(&faulty.manifest(tag).unwrap()).unwrap();
        manifest["layers"][0] = json!({ "mediaType": kind, "size": blob.len(), "digest": &at, "urls": urls });
        faulty.put_manifest(tag, MANIFEST, manifest.to_string().as_bytes());
        let name = faulty.name(&format!("hostile:{tag}"));
        let settings = world.path("config.toml");
        std::fs::write(&settings, "[transfer]\nattempts = 1\n").unwrap();
        let pull = world.strake(["pull", "-q", &name]).env("STRAKE_CONFIG", &settings);
        match tag {
            "docker" | "oci" => {
                pull.ok();
                assert!(files(&world, &name).contains("file"));
                world.strake(["validate", &name]).ok();
                // It stays where it is: no other registry gets it.
                world.strake(["copy", "-q", &name, "oci:copied"]).ok();
                assert!(!world.path("copied/blobs/sha256").join(&at[7..]).exists());
            }
            _ => drop(pull.fails().says(&["404"])),
        }
        world.strake(["rmi", "-f", &name]).run();
        world.strake(["prune", "-f", "-a"]).run();
    }
    let log = elsewhere.log();
    assert!(!log.is_empty());
    for request in log {
        assert!(request.header("authorization").is_empty() && request.header("x-meta-team").is_empty(), "{:?}", request.headers);
    }
}
