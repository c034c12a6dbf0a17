//! Local contexts, exclusion, wildcards and checksums, on real directories.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::sync::Mutex;
use std::time::{Duration, SystemTime};

use super::*;
use crate::path::RootPath;
use crate::sys::tree::{Kind, LastLink, Tree, resolve};

/// A directory with these files; the content of each is its name.
fn directory(files: &[&str]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for file in files {
        let path = dir.path().join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, file).unwrap();
    }
    dir
}

fn open(dir: &Path) -> LocalContext {
    LocalContext::open(dir, None).unwrap()
}

fn sum(tree: &dyn Tree, path: &str) -> TreeChecksum {
    checksum(tree, &RootPath::new(path), &ChecksumOptions::default(), &NoMemo).unwrap()
}

/// The checksum of a directory as a new build sees it.
fn sum_of(dir: &Path) -> [u8; 32] {
    sum(&open(dir), "/").digest
}

/// Every path that can be seen, by walking.
fn visible(tree: &dyn Tree) -> Vec<String> {
    let mut found = Vec::new();
    let mut todo = vec![RootPath::root()];
    while let Some(path) = todo.pop() {
        for entry in tree.read_dir(&path).unwrap() {
            let path = path.join(&entry.name);
            assert_eq!(tree.metadata(&path).unwrap().unwrap().kind, entry.kind);
            found.push(path.to_string());
            if entry.kind == Kind::Directory {
                todo.push(path);
            }
        }
    }
    found.sort();
    found
}

fn age(path: &Path, seconds: u64) {
    let time = SystemTime::now() - Duration::from_secs(seconds);
    fs::File::open(path).unwrap().set_modified(time).unwrap();
}

/// Whether this process may read everything, so that permissions prove nothing.
fn reads_everything(dir: &Path) -> bool {
    let probe = dir.join("probe");
    fs::write(&probe, "").unwrap();
    fs::set_permissions(&probe, fs::Permissions::from_mode(0o0)).unwrap();
    let readable = fs::read(&probe).is_ok();
    fs::remove_file(&probe).unwrap();
    readable
}

#[test]
fn what_is_ignored_does_not_exist() {
    let dir = directory(&["a", "node_modules/x/y", "src/main.rs", "src/notes.md", ".dockerignore"]);
    fs::write(dir.path().join(".dockerignore"), "node_modules\n**/*.md\n.dockerignore\n").unwrap();
    let context = open(dir.path());
    assert_eq!(visible(&context), ["/a", "/src", "/src/main.rs"]);
    for hidden in ["/node_modules", "/node_modules/x/y", "/src/notes.md", "/.dockerignore"] {
        assert_eq!(context.metadata(&RootPath::new(hidden)).unwrap(), None, "{hidden}");
        assert!(context.open(&RootPath::new(hidden)).is_err(), "{hidden}");
    }
}

#[test]
fn directories_above_what_is_brought_back_exist() {
    let dir = directory(&["a/b/keep", "a/b/drop", "a/c/drop", "top"]);
    fs::write(dir.path().join(".dockerignore"), "*\n!a/b/keep\n").unwrap();
    let context = open(dir.path());
    assert_eq!(visible(&context), ["/a", "/a/b", "/a/b/keep"]);
    assert_eq!(context.metadata(&RootPath::new("/a/b/keep")).unwrap().unwrap().size, 8);
}

#[test]
fn an_ignored_directory_with_nothing_to_bring_back_stays_hidden() {
    let dir = directory(&["a/b/drop", "c/x.rs"]);
    fs::write(dir.path().join(".dockerignore"), "*\n!**/*.rs\n").unwrap();
    assert_eq!(visible(&open(dir.path())), ["/c", "/c/x.rs"]);
}

#[test]
fn the_ignore_file_of_the_dockerfile_replaces_the_general_one() {
    let dir = directory(&["a", "b", "build/web.Dockerfile"]);
    fs::write(dir.path().join(".dockerignore"), "a\nbuild\n.dockerignore\n").unwrap();
    let dockerfile = dir.path().join("build/web.Dockerfile");
    assert_eq!(visible(&LocalContext::open(dir.path(), Some(&dockerfile)).unwrap()), ["/b"]);
    fs::write(dir.path().join("build/web.Dockerfile.dockerignore"), "b\nbuild\n.dockerignore").unwrap();
    let context = LocalContext::open(dir.path(), Some(&dockerfile)).unwrap();
    assert_eq!(visible(&context), ["/a"]);
    assert!(context.ignore_file().unwrap().ends_with("build/web.Dockerfile.dockerignore"));
}

#[test]
fn an_ignore_file_that_is_a_directory_has_no_rules() {
    let dir = directory(&["a", ".dockerignore/x", "Dockerfile.dockerignore/y"]);
    let context = LocalContext::open(dir.path(), Some(&dir.path().join("Dockerfile"))).unwrap();
    assert!(visible(&context).contains(&"/.dockerignore/x".to_owned()));
    assert_eq!(context.ignore_file(), None);
}

#[test]
fn a_context_that_is_no_directory_is_named() {
    let dir = directory(&["file", "bad/.dockerignore"]);
    let error = LocalContext::open(&dir.path().join("none"), None).unwrap_err();
    assert!(matches!(error, Error::NotFound { .. }) && error.to_string().contains("none"), "{error}");
    let error = LocalContext::open(&dir.path().join("file"), None).unwrap_err();
    assert!(matches!(error, Error::NotADirectory { .. }) && error.hint().is_some(), "{error}");
    fs::write(dir.path().join("bad/.dockerignore"), "x\n[\n").unwrap();
    let error = LocalContext::open(&dir.path().join("bad"), None).unwrap_err();
    assert!(error.to_string().contains("bad/.dockerignore:2: bad pattern `[`"), "{error}");
}

#[test]
fn files_belong_to_root_and_keep_mode_and_time() {
    let dir = directory(&["tool"]);
    let path = dir.path().join("tool");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o4755)).unwrap();
    age(&path, 1000);
    let metadata = open(dir.path()).metadata(&RootPath::new("/tool")).unwrap().unwrap();
    assert_eq!((metadata.uid, metadata.gid, metadata.mode), (0, 0, 0o4755));
    let expected = fs::metadata(&path).unwrap().modified().unwrap().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    assert_eq!(metadata.mtime, (expected.as_secs() as i64, expected.subsec_nanos()));
}

#[test]
fn sockets_are_listed() {
    let dir = directory(&["a"]);
    let _socket = std::os::unix::net::UnixListener::bind(dir.path().join("socket")).unwrap();
    assert_eq!(visible(&open(dir.path())), ["/a", "/socket"]);
}

#[test]
fn links_do_not_lead_out_of_the_context() {
    let outside = directory(&["secret", "d/secret"]);
    let dir = directory(&["a"]);
    symlink(outside.path().join("secret"), dir.path().join("file")).unwrap();
    symlink(outside.path(), dir.path().join("out")).unwrap();
    symlink("../../../../../../etc", dir.path().join("up")).unwrap();
    let context = open(dir.path());
    for path in ["/file", "/out/secret", "/out/d/secret", "/up/passwd", "/../../etc/passwd"] {
        assert!(context.open(&RootPath::new(path)).is_err(), "{path}");
        let resolved = resolve(&context, &RootPath::new(path), LastLink::Follow).unwrap();
        assert!(context.open(&resolved).is_err(), "{path} -> {resolved}");
    }
    assert_eq!(context.metadata(&RootPath::new("/out/secret")).unwrap(), None);
    assert_eq!(context.read_link(&RootPath::new("/up")).unwrap(), "../../../../../../etc");
}

#[test]
fn a_directory_that_becomes_a_link_is_not_followed() {
    let outside = directory(&["secret"]);
    let dir = directory(&["d/secret"]);
    let context = open(dir.path());
    assert!(context.metadata(&RootPath::new("/d/secret")).unwrap().is_some());
    fs::remove_dir_all(dir.path().join("d")).unwrap();
    symlink(outside.path(), dir.path().join("d")).unwrap();
    assert!(context.open(&RootPath::new("/d/secret")).is_err());
}

#[test]
fn odd_names_are_kept_as_they_are() {
    let dir = tempfile::tempdir().unwrap();
    let odd = OsStr::from_bytes(b"a\xff\nb \\*");
    fs::write(dir.path().join(odd), "x").unwrap();
    let context = open(dir.path());
    assert_eq!(context.read_dir(&RootPath::root()).unwrap()[0].name, odd);
    assert_eq!(sum(&context, "/").files[1].0, RootPath::root().join(odd));
}

#[test]
fn paths_of_four_thousand_bytes_work() {
    let dir = tempfile::tempdir().unwrap();
    let root = crate::sys::RootDir::open(dir.path()).unwrap();
    let name = "d".repeat(199);
    let mut path = RootPath::root();
    for _ in 0..20 {
        path = path.join(&name);
        let (parent, name) = root.open_parent(path.relative(), crate::sys::Links::Refuse).unwrap();
        rustix::fs::mkdirat(parent, name, rustix::fs::Mode::RWXU).unwrap();
    }
    let flags = rustix::fs::OFlags::CREATE | rustix::fs::OFlags::WRONLY;
    let file = path.join("f".repeat(60));
    root.open_at(file.relative(), flags, rustix::fs::Mode::RUSR, crate::sys::Links::Refuse).unwrap();
    fs::write(dir.path().join(".dockerignore"), "**\n!**/f*\n").unwrap();
    let context = open(dir.path());
    assert!(file.as_bytes().len() > 4000);
    let files = sum(&context, "/").files;
    assert_eq!(files.last().map(|(path, _)| path), Some(&file));
    assert_eq!(files.len(), 22);
}

#[test]
fn a_deep_tree_fits_a_small_stack() {
    std::thread::Builder::new().stack_size(256 * 1024).spawn(walk_a_deep_tree).unwrap().join().unwrap();
}

fn walk_a_deep_tree() {
    let dir = tempfile::tempdir().unwrap();
    let root = crate::sys::RootDir::open(dir.path()).unwrap();
    let path = RootPath::new("d/".repeat(400));
    let mut at = root.open_at(Path::new("."), rustix::fs::OFlags::PATH, rustix::fs::Mode::empty(), crate::sys::Links::Refuse).unwrap();
    for name in path.components() {
        rustix::fs::mkdirat(&at, name, rustix::fs::Mode::RWXU).unwrap();
        at = rustix::fs::openat(&at, name, rustix::fs::OFlags::PATH, rustix::fs::Mode::empty()).unwrap();
    }
    rustix::fs::mknodat(&at, "f", rustix::fs::FileType::RegularFile, rustix::fs::Mode::RUSR, 0).unwrap();
    let rules = IgnoreRules::parse("**\n!**/f", "x").unwrap();
    let context = LocalContext::with_rules(dir.path(), rules.clone(), Owners::Root).unwrap();
    assert_eq!(sum(&context, "/").files.len(), 402);
    let all = LocalContext::with_rules(dir.path(), IgnoreRules::default(), Owners::Root).unwrap();
    let excluding = Excluding::new(&all, RootPath::root(), &rules);
    assert_eq!(sum(&excluding, "/"), sum(&context, "/"));
}

#[test]
fn touching_changes_nothing_and_everything_else_does() {
    let dir = directory(&["a", "d/b"]);
    let path = |name: &str| dir.path().join(name);
    symlink("a", path("link")).unwrap();
    let mut seen = vec![sum_of(dir.path())];
    age(&path("a"), 5000);
    age(&path("d"), 5000);
    assert_eq!(sum_of(dir.path()), seen[0], "times");

    let mut expect_new = |what: &str| {
        let now = sum_of(dir.path());
        assert!(!seen.contains(&now), "{what}");
        seen.push(now);
    };
    fs::write(path("a"), "z").unwrap();
    expect_new("content");
    fs::set_permissions(path("a"), fs::Permissions::from_mode(0o600)).unwrap();
    expect_new("mode of a file");
    fs::set_permissions(path("d"), fs::Permissions::from_mode(0o711)).unwrap();
    expect_new("mode of a directory");
    fs::rename(path("d/b"), path("d/c")).unwrap();
    expect_new("name");
    fs::remove_file(path("link")).unwrap();
    symlink("d", path("link")).unwrap();
    expect_new("target of a link");
    fs::create_dir(path("empty")).unwrap();
    expect_new("an empty directory");
    fs::remove_dir(path("empty")).unwrap();
    fs::write(path("empty"), "").unwrap();
    expect_new("kind");
    fs::rename(path("d/c"), path("c")).unwrap();
    expect_new("place");
    if rustix::fs::setxattr(path("a"), "user.kind", b"x", rustix::fs::XattrFlags::empty()).is_ok() {
        expect_new("attribute of a file");
        rustix::fs::setxattr(path("d"), "user.kind", b"x", rustix::fs::XattrFlags::empty()).unwrap();
        expect_new("attribute of a directory");
    } else {
        eprintln!("skipped in part: the temporary directory has no extended attributes");
    }
}

#[test]
fn a_checksum_does_not_depend_on_where_the_selection_is() {
    let dir = directory(&["one/a", "one/sub/b", "two/a", "two/sub/b"]);
    for copy in ["two/a", "two/sub/b"] {
        fs::write(dir.path().join(copy), copy.replace("two", "one")).unwrap();
    }
    let context = open(dir.path());
    assert_eq!(sum(&context, "/one").digest, sum(&context, "/two").digest);
    assert_ne!(sum(&context, "/one").digest, sum(&context, "/one/sub").digest);
    let paths: Vec<String> = sum(&context, "/one").files.iter().map(|(path, _)| path.to_string()).collect();
    assert_eq!(paths, ["/one", "/one/a", "/one/sub", "/one/sub/b"]);
}

#[test]
fn hard_links_count_by_content_only() {
    let linked = directory(&["a"]);
    fs::hard_link(linked.path().join("a"), linked.path().join("b")).unwrap();
    let copied = directory(&["a"]);
    fs::write(copied.path().join("b"), "a").unwrap();
    assert_eq!(sum_of(linked.path()), sum_of(copied.path()));
}

#[test]
fn the_selected_directory_itself_can_be_left_out() {
    let dir = directory(&["d/a"]);
    let contents = ChecksumOptions { root: RootEntry::ContentsOnly, ..Default::default() };
    let of = |options| checksum(&open(dir.path()), &RootPath::new("/d"), &options, &NoMemo).unwrap().digest;
    let before = (of(ChecksumOptions::default()), of(contents));
    fs::set_permissions(dir.path().join("d"), fs::Permissions::from_mode(0o700)).unwrap();
    assert_ne!(of(ChecksumOptions::default()), before.0);
    assert_eq!(of(contents), before.1);
}

#[test]
fn a_filter_leaves_things_out() {
    let dir = directory(&["a", "b/c", "b/d"]);
    let context = open(dir.path());
    let filter = |path: &RootPath, _: Kind| path.file_name() != Some(OsStr::new("b"));
    let options = ChecksumOptions { filter: Some(&filter), ..Default::default() };
    let files = checksum(&context, &RootPath::root(), &options, &NoMemo).unwrap().files;
    assert_eq!(files.iter().map(|(path, _)| path.to_string()).collect::<Vec<_>>(), ["/", "/a"]);
}

#[test]
fn a_missing_selection_is_named() {
    let dir = directory(&["a"]);
    let error = checksum(&open(dir.path()), &RootPath::new("/b/c"), &ChecksumOptions::default(), &NoMemo).unwrap_err();
    assert_eq!(error.to_string(), "`/b/c` does not exist");
}

#[test]
fn an_unreadable_file_is_named() {
    let dir = directory(&["a", "b"]);
    if reads_everything(dir.path()) {
        eprintln!("skipped: this user may read every file");
        return;
    }
    fs::set_permissions(dir.path().join("b"), fs::Permissions::from_mode(0o0)).unwrap();
    let error = checksum(&open(dir.path()), &RootPath::root(), &ChecksumOptions::default(), &NoMemo).unwrap_err();
    assert_eq!(error.to_string(), "cannot read `/b`");
    assert!(error.hint().is_some());
}

#[test]
fn several_threads_find_what_one_finds() {
    let dir = tempfile::tempdir().unwrap();
    for number in 0..400u32 {
        let path = dir.path().join(format!("{}/{number}", number % 7));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, number.to_le_bytes().repeat(number as usize * 3)).unwrap();
    }
    let with = |threads| {
        let options = ChecksumOptions { threads, ..Default::default() };
        checksum(&open(dir.path()), &RootPath::root(), &options, &NoMemo).unwrap()
    };
    assert_eq!(with(1), with(8));
}

/// A memo in memory that counts what it is told.
#[derive(Default)]
struct Memo {
    known: Mutex<HashMap<FileStamp, [u8; 32]>>,
}

impl ChecksumMemo for Memo {
    fn get_many(&self, stamps: &[FileStamp]) -> Vec<Option<[u8; 32]>> {
        let known = self.known.lock().unwrap();
        stamps.iter().map(|stamp| known.get(stamp).copied()).collect()
    }

    fn put_many(&self, digests: &[(FileStamp, [u8; 32])]) {
        self.known.lock().unwrap().extend(digests.iter().copied());
    }
}

/// Claims to know every file.
struct Oracle;

impl ChecksumMemo for Oracle {
    fn get_many(&self, stamps: &[FileStamp]) -> Vec<Option<[u8; 32]>> {
        vec![Some([7; 32]); stamps.len()]
    }

    fn put_many(&self, digests: &[(FileStamp, [u8; 32])]) {
        panic!("nothing was to be hashed, but these were: {digests:?}");
    }
}

#[test]
fn a_file_that_the_memo_knows_is_not_read() {
    let dir = directory(&["a", "d/b"]);
    let context = open(dir.path());
    // They are seen, and then gone: who reads them fails.
    assert_eq!(visible(&context).len(), 3);
    fs::remove_file(dir.path().join("a")).unwrap();
    fs::remove_file(dir.path().join("d/b")).unwrap();
    checksum(&context, &RootPath::root(), &ChecksumOptions::default(), &Oracle).unwrap();
    assert!(checksum(&context, &RootPath::root(), &ChecksumOptions::default(), &NoMemo).is_err());
}

#[test]
fn a_file_that_was_just_written_is_not_remembered() {
    let dir = directory(&["old", "new"]);
    // Nobody can set the time of the last change of an inode, so the files have to grow old.
    std::thread::sleep(Duration::from_millis(3100));
    fs::write(dir.path().join("new"), "newer").unwrap();
    let memo = Memo::default();
    let first = checksum(&open(dir.path()), &RootPath::root(), &ChecksumOptions::default(), &memo).unwrap();
    let ino = open(dir.path()).metadata(&RootPath::new("/old")).unwrap().unwrap().ino;
    let known: Vec<u64> = memo.known.lock().unwrap().keys().map(|stamp| stamp.ino).collect();
    assert_eq!(known, [ino]);
    assert_eq!(checksum(&open(dir.path()), &RootPath::root(), &ChecksumOptions::default(), &memo).unwrap(), first);
    // A changed time of modification is no way around the time of change.
    age(&dir.path().join("new"), 5000);
    checksum(&open(dir.path()), &RootPath::root(), &ChecksumOptions::default(), &memo).unwrap();
    assert_eq!(memo.known.lock().unwrap().len(), 1);
}

#[test]
fn a_difference_names_what_changed() {
    let path = |name: &str| RootPath::new(name);
    let old = [(path("/a"), [1; 32]), (path("/b"), [2; 32]), (path("/d"), [4; 32])];
    let new = [(path("/b"), [3; 32]), (path("/c"), [3; 32]), (path("/d"), [4; 32]), (path("/e"), [5; 32])];
    let expected = [Change::Removed(path("/a")), Change::Modified(path("/b")), Change::Added(path("/c")), Change::Added(path("/e"))];
    assert_eq!(diff(&old, &new), expected);
    assert_eq!(diff(&old, &old), []);
}

#[test]
fn exclusion_is_relative_to_what_is_copied() {
    let dir = directory(&["src/a.md", "src/keep.md", "src/x/b.md", "src/x/c.rs", "a.md", "src/drop/in", "src/drop/keep"]);
    let context = open(dir.path());
    let rules = IgnoreRules::from_patterns(["**/*.md", "!keep.md", "drop", "!drop/keep"], "--exclude").unwrap();
    let excluding = Excluding::new(&context, RootPath::new("/src"), &rules);
    let expected = ["/a.md", "/src", "/src/drop", "/src/drop/keep", "/src/keep.md", "/src/x", "/src/x/c.rs"];
    assert_eq!(visible(&excluding), expected);
    assert!(excluding.open(&RootPath::new("/src/a.md")).is_err());
    assert_eq!(excluding.metadata(&RootPath::new("/src/x/b.md")).unwrap(), None);
    assert_eq!(sum(&excluding, "/src").files.len(), 6);
}

#[test]
fn wildcards_name_what_exists() {
    let dir = directory(&[
        "a.txt",
        "b.txt",
        "d/a.txt",
        "d/e/a.txt",
        "x[1]",
        "*lit",
        "pkg/one/go.mod",
        "pkg/two/go.mod",
        "pkg/three/x",
        "pkg/one-b/go.mod",
    ]);
    symlink("d", dir.path().join("link")).unwrap();
    let context = open(dir.path());
    let paths = |pattern: &str| -> Vec<String> { expand(&context, pattern).unwrap().iter().map(RootPath::to_string).collect() };
    assert_eq!(paths("*.txt"), ["/a.txt", "/b.txt"]);
    assert_eq!(paths("/*.txt"), ["/a.txt", "/b.txt"]);
    assert_eq!(paths("./?.txt"), ["/a.txt", "/b.txt"]);
    assert_eq!(paths("*/a.txt"), ["/d/a.txt"]);
    assert_eq!(paths("**/a.txt"), ["/d/a.txt"]);
    assert_eq!(paths("d/*"), ["/d/a.txt", "/d/e"]);
    assert_eq!(paths("link/*.txt"), ["/d/a.txt"]);
    assert_eq!(paths("pkg/*/go.mod"), ["/pkg/one/go.mod", "/pkg/one-b/go.mod", "/pkg/two/go.mod"]);
    assert_eq!(paths("d[^x]a.txt"), ["/d/a.txt"]);
    assert_eq!(paths("[^l]/[^x]*"), ["/d/a.txt", "/d/e"]);
    assert_eq!(paths("[b/a].txt"), ["/a.txt", "/b.txt"]);
    assert_eq!(paths("nothing*"), [""; 0]);
    assert_eq!(paths("none/*"), [""; 0]);
    assert_eq!(paths("a.txt/*"), [""; 0]);
    assert_eq!(paths("x[[]1]"), ["/x[1]"]);
    assert_eq!(paths("[*]lit"), ["/*lit"]);
    assert_eq!(paths("a.txt"), ["/a.txt"]);
    assert_eq!(paths("../../d/./a.txt"), ["/d/a.txt"]);
    assert_eq!(paths("link/a.txt"), ["/d/a.txt"]);
    assert_eq!(paths("link"), ["/link"]);
    assert_eq!(paths("/"), ["/"]);
    assert!(matches!(expand(&context, "missing"), Err(Error::Missing { .. })));
    assert!(matches!(expand(&context, "a["), Err(Error::BadWildcard { reason: BadPattern::OpenClass, .. })));
}

#[test]
fn a_wildcard_matches_as_in_go() {
    for (pattern, name, expected) in [
        ("abc", "abc", true),
        ("*", "abc", true),
        ("*c", "abc", true),
        ("a*", "a", true),
        ("a*", "ab/c", false),
        ("a*/b", "abc/b", true),
        ("a*b*c*d*e*", "axbxcxdxexxx", true),
        ("a*b?c*x", "abxbbxdbxebxczzx", true),
        ("a*b?c*x", "abxbbxdbxebxczzy", false),
        ("ab[c]", "abc", true),
        ("ab[b-d]", "abc", true),
        ("ab[e-g]", "abc", false),
        ("ab[^c]", "abc", false),
        ("ab[^b-d]", "abc", false),
        ("ab[^e-g]", "abc", true),
        ("a\\*b", "a*b", true),
        ("a\\*b", "ab", false),
        ("a?b", "a☺b", true),
        ("a[^a]b", "a☺b", true),
        ("a???b", "a☺b", false),
        ("[a-ζ]*", "α", true),
        ("*[a-ζ]", "A", false),
        ("a?b", "a/b", false),
        ("a*b", "a/b", false),
        ("[\\]a]", "]", true),
        ("[\\-]", "-", true),
        ("[x\\-]", "x", true),
        ("[x\\-]", "z", false),
        ("[\\-x]", "a", false),
        ("*x", "xxx", true),
        ("[z-a]", "m", false),
        ("**", "ab", true),
        ("", "", true),
        ("", "a", false),
        ("?", "", false),
        ("a.b", "axb", false),
        ("[[]x]", "[x]", true),
    ] {
        assert_eq!(Pattern::new(pattern).unwrap().matches(name.as_bytes()), expected, "{pattern} {name}");
    }
    for bad in ["[]a]", "[-]", "[x-]", "[-x]", "\\", "[a-b-c]", "[", "[^", "[^bc", "a[", "ab\\"] {
        assert!(Pattern::new(bad).is_err(), "{bad}");
    }
}
