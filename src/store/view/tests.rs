use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use proptest::prelude::*;

use super::fixture::{Overlay, can_mount, listing, plant};
use super::{GrowingStack, Marks, MergedView};
use crate::path::RootPath;
use crate::sys::tree::{Kind, Tree};

/// What the view shows, in the words of [`listing`].
fn view_listing(view: &MergedView) -> Vec<String> {
    let mut lines = BTreeMap::new();
    let mut todo = vec![RootPath::root()];
    while let Some(directory) = todo.pop() {
        for entry in view.read_dir(&directory).unwrap() {
            let path = directory.join(&entry.name);
            let metadata = view.metadata(&path).unwrap().unwrap_or_else(|| panic!("{path} is listed but not there"));
            assert_eq!(metadata.kind, entry.kind, "{path}");
            let head = format!("{:04o} {}:{} {path}", metadata.mode, metadata.uid, metadata.gid);
            let line = match metadata.kind {
                Kind::Directory => {
                    todo.push(path.clone());
                    format!("d {head}")
                }
                Kind::Symlink => format!("l {}:{} {path} {}", metadata.uid, metadata.gid, view.read_link(&path).unwrap().display()),
                Kind::Fifo => format!("p {head}"),
                Kind::CharDevice => format!("c {head} {} {}", metadata.rdev.0, metadata.rdev.1),
                _ => format!("f {head} {}", std::io::read_to_string(view.open(&path).unwrap()).unwrap()).trim_end().to_owned(),
            };
            lines.insert(PathBuf::from(path.as_os_str()), line);
        }
    }
    lines.into_values().collect()
}

fn layers(directory: &Path, texts: &[&str]) -> Vec<PathBuf> {
    let make = |(index, text): (usize, &&str)| {
        let layer = directory.join(index.to_string());
        plant(&layer, text);
        layer
    };
    texts.iter().enumerate().map(make).collect()
}

#[track_caller]
fn same_as_kernel(texts: &[&str]) {
    let directory = tempfile::tempdir().unwrap();
    let layers = layers(directory.path(), texts);
    let overlay = Overlay::mount(&layers);
    let expected = listing(&overlay.root());
    // What lies above is none of a stack's business, nor whether its layers are listed.
    let above = directory.path().join("above");
    plant(&above, "w a\nf 0600 b other\nd 0700 d\no d\nf 0600 e other");
    let partly = |is_listed: fn(usize) -> bool| GrowingStack::partly_listed(&layers, std::slice::from_ref(&above), is_listed);
    let stacks = [layers.clone().into(), partly(|_| true), partly(|at| at % 2 == 0), partly(|at| at % 2 == 1)];
    for stack in stacks {
        let view = MergedView::new(stack, Marks::Trusted).unwrap();
        assert_eq!(view_listing(&view), expected, "{texts:#?} {:?}", view.layers());
        let root = view.metadata(&RootPath::root()).unwrap().unwrap();
        assert_eq!(root.mode, fs::metadata(overlay.root()).unwrap().mode() & 0o7777);
    }
}

#[test]
fn shows_what_overlayfs_shows() {
    if !can_mount("shows_what_overlayfs_shows") {
        return;
    }
    for texts in [
        // Merged directories, with the topmost one's mode.
        ["d 0700 a\nf 0644 a/x top", "d 0755 a\nf 0600 a/x low\nf 0644 a/y low", ""],
        // A whiteout ends the merge of what is above and below it.
        ["f 0644 d/new 1", "w d", "f 0644 d/old 1"],
        // So does a file.
        ["f 0644 d/new 1", "f 0644 d file", "f 0644 d/old 1"],
        // And a link, even one that leads to a directory.
        ["f 0644 d/new 1", "d 0755 e\nl d e", "f 0644 d/old 1"],
        // An opaque directory hides; the one above it merges with it.
        ["f 0644 d/a 1", "f 0644 d/b 1\no d", "f 0644 d/c 1"],
        // The root cannot be opaque.
        ["f 0644 a 1\no .", "f 0644 b 1", ""],
        // A file over a directory and a whiteout in a directory of its own.
        ["f 0644 d 1", "f 0644 d/c 1", "w e/f\nf 0644 e/g 1"],
        // Things that are not files.
        ["p 0600 pipe\nc 0666 null 1 3", "w pipe\nl link nowhere", "f 0644 null 1"],
    ] {
        same_as_kernel(&texts);
    }
}

#[test]
fn a_path_through_a_link_does_not_exist() {
    let directory = tempfile::tempdir().unwrap();
    let layers = layers(directory.path(), &["f 0644 real/file 1\nl link real\nl absolute /etc"]);
    let view = MergedView::new(layers, Marks::Trusted).unwrap();
    for path in ["/link/file", "/absolute/passwd", "/real/file/x", "/missing/x"] {
        assert_eq!(view.metadata(&RootPath::new(path)).unwrap(), None, "{path}");
        assert!(view.open(&RootPath::new(path)).is_err(), "{path}");
    }
    assert_eq!(view.read_dir(&RootPath::new("/link")).unwrap_err().kind(), std::io::ErrorKind::NotADirectory);
    assert!(view.open(&RootPath::new("/link")).is_err());
}

#[test]
fn tells_which_layer_an_entry_comes_from() {
    let directory = tempfile::tempdir().unwrap();
    let layers = layers(directory.path(), &["f 0644 a/top 1", "f 0644 a/low 1"]);
    let view = MergedView::new(layers.clone(), Marks::Trusted).unwrap();
    assert_eq!(view.layer_of(&RootPath::new("/a/top")).unwrap(), Some((0, layers[0].join("a/top"))));
    assert_eq!(view.layer_of(&RootPath::new("/a/low")).unwrap(), Some((1, layers[1].join("a/low"))));
    assert_eq!(view.layer_of(&RootPath::new("/a/none")).unwrap(), None);
    assert!(view.open_entry(&RootPath::new("/a/low")).unwrap().is_some());
}

#[test]
fn many_directories_need_few_descriptors() {
    let directory = tempfile::tempdir().unwrap();
    let layers = layers(directory.path(), &["d 0755 x"]);
    for index in 0..2000 {
        fs::create_dir(layers[0].join("x").join(index.to_string())).unwrap();
    }
    let view = MergedView::new(layers, Marks::Trusted).unwrap();
    let before = fs::read_dir("/proc/self/fd").unwrap().count();
    for index in 0..2000 {
        view.directory(&RootPath::new(format!("/x/{index}"))).unwrap().unwrap();
    }
    let after = fs::read_dir("/proc/self/fd").unwrap().count();
    assert!(after < before + 300, "{before} descriptors became {after}");
}

#[test]
fn a_view_without_layers_is_an_empty_root() {
    let view = MergedView::new(Vec::new(), Marks::Trusted).unwrap();
    assert_eq!(view.read_dir(&RootPath::root()).unwrap(), []);
    assert_eq!(view.metadata(&RootPath::root()).unwrap().unwrap().kind, Kind::Directory);
    assert_eq!(view.metadata(&RootPath::new("/x")).unwrap(), None);
}

/// Lines of [`plant`] for one layer: a small set of names, so that layers collide. A name inside of something that is no directory is left out.
fn layer_text(entries: &[(u8, usize, usize)]) -> String {
    let mut kinds: BTreeMap<String, u8> = BTreeMap::new();
    for (kind, parent, name) in entries {
        let parent = ["", "a/", "b/", "a/b/", "a/c/"][*parent];
        let name = ["a", "b", "c", "d"][*name];
        let path = format!("{parent}{name}");
        let blocked = kinds.keys().any(|known| path.starts_with(&format!("{known}/")) && !matches!(kinds[known], 0 | 1))
            || kinds.keys().any(|known| known.starts_with(&format!("{path}/")) && *kind > 1)
            || kinds.contains_key(&path);
        if !blocked {
            kinds.insert(path, *kind);
        }
    }
    let line = |(path, kind): (&String, &u8)| match kind {
        0 => format!("d 0750 {path}"),
        1 => format!("d 0711 {path}\no {path}"),
        2 => format!("f 0644 {path} {path}"),
        3 => format!("l {path} a"),
        _ => format!("w {path}"),
    };
    kinds.iter().map(line).collect::<Vec<_>>().join("\n")
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]
    #[test]
    fn random_stacks_look_as_overlayfs_shows_them(
        stack in proptest::collection::vec(proptest::collection::vec((0_u8..5, 0_usize..5, 0_usize..4), 0..10), 2..5)
    ) {
        if can_mount("random_stacks_look_as_overlayfs_shows_them") {
            let texts: Vec<String> = stack.iter().map(|layer| layer_text(layer)).collect();
            same_as_kernel(&texts.iter().map(String::as_str).collect::<Vec<_>>());
        }
    }
}

#[test]
fn a_node_that_takes_a_files_place_is_not_opened_where_layers_change() {
    use rustix::fs::{CWD, FileType, Mode, inotify, mknodat};

    let directory = tempfile::tempdir().unwrap();
    let (file, node) = (directory.path().join("file"), directory.path().join("node"));
    fs::write(&file, "content").unwrap();
    mknodat(CWD, &node, FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
    let watch = inotify::init(inotify::CreateFlags::NONBLOCK).unwrap();
    inotify::add_watch(&watch, &node, inotify::WatchFlags::OPEN).unwrap();
    let was_opened = || rustix::io::read(&watch, &mut [0_u8; 256]).is_ok();
    // After the view has seen a file under that name.
    let open = |view: &MergedView, name: &str| view.open_file(fs::File::open(directory.path()).unwrap(), name.as_ref());
    let still = MergedView::new(vec![directory.path().to_owned()], Marks::Trusted).unwrap();
    open(&still, "node").unwrap();
    assert!(was_opened(), "where nothing changes, nothing is asked twice");
    let changing = still.while_it_changes();
    open(&changing, "node").unwrap_err();
    assert!(!was_opened());
    assert_eq!(std::io::read_to_string(open(&changing, "file").unwrap()).unwrap(), "content");
    assert_eq!(std::io::read_to_string(changing.open(&RootPath::new("/file")).unwrap()).unwrap(), "content");
}
