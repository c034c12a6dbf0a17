//! What counts as a change, and how it is written.

use super::*;
use crate::image::layer::{LayerWritten, diff_id_only};

/// A lower layer, and an upper one that begins as overlayfs' copy of all of it.
struct Pair {
    _temp: tempfile::TempDir,
    lower: PathBuf,
    upper: PathBuf,
}

impl Pair {
    fn new() -> Pair {
        let temp = tempfile::tempdir().unwrap();
        let (lower, upper) = (temp.path().join("lower"), temp.path().join("upper"));
        for root in [&lower, &upper] {
            std::fs::create_dir_all(root.join("dir/sub")).unwrap();
            std::fs::write(root.join("dir/file"), "same").unwrap();
            std::fs::write(root.join("dir/sub/other"), "same").unwrap();
            std::os::unix::fs::symlink("file", root.join("dir/link")).unwrap();
            for entry in walkdir::WalkDir::new(root).contents_first(true) {
                set_time(entry.unwrap().path(), 1000, 1);
            }
        }
        Pair { _temp: temp, lower, upper }
    }

    fn names(&self) -> Vec<String> {
        names(&written(&self.upper, &[&self.lower]))
    }

    /// Does something in the upper layer and leaves the directory's times alone.
    fn change(&self, work: impl Fn(&Path)) -> Vec<String> {
        work(&self.upper);
        for dir in ["dir/sub", "dir", ""] {
            if self.upper.join(dir).symlink_metadata().is_ok_and(|metadata| metadata.is_dir()) {
                set_time(&self.upper.join(dir), 1000, 1);
            }
        }
        self.names()
    }
}

#[test]
fn what_was_only_copied_up_is_left_out() {
    assert_eq!(Pair::new().names(), Vec::<String>::new());
}

#[test]
fn a_changed_file_comes_with_its_parents_and_nothing_else() {
    let changed = Pair::new().change(|root| {
        std::fs::write(root.join("dir/sub/other"), "diff").unwrap();
        set_time(&root.join("dir/sub/other"), 1000, 1);
    });
    assert_eq!(changed, ["dir/", "dir/sub/", "dir/sub/other"], "same size and times: only the content tells");
    let touched = Pair::new().change(|root| set_time(&root.join("dir/file"), 1000, 2));
    assert_eq!(touched, ["dir/", "dir/file"]);
    let mode = Pair::new().change(|root| set_mode(&root.join("dir/sub"), 0o700));
    assert_eq!(mode, ["dir/", "dir/sub/"]);
    let link = Pair::new().change(|root| {
        std::fs::remove_file(root.join("dir/link")).unwrap();
        std::os::unix::fs::symlink("elif", root.join("dir/link")).unwrap();
        set_time(&root.join("dir/link"), 1000, 1);
    });
    assert_eq!(link, ["dir/", "dir/link"]);
}

#[test]
fn a_changed_attribute_is_a_change() {
    if !is_root() {
        return;
    }
    let attribute = Pair::new().change(|root| set_xattr(&root.join("dir/file"), "user.k", b"v"));
    assert_eq!(attribute, ["dir/", "dir/file"]);
    let foreign = Pair::new().change(|root| set_xattr(&root.join("dir/file"), "trusted.k", b"v"));
    assert_eq!(foreign, Vec::<String>::new(), "attributes that layers do not carry are none");
    let owner = Pair::new().change(|root| set_owner(&root.join("dir"), 5, 5));
    assert_eq!(owner, ["dir/"]);
}

#[test]
fn a_deletion_counts_only_where_there_is_something_to_delete() {
    if !is_root() {
        return;
    }
    let deleted = Pair::new().change(|root| {
        std::fs::remove_file(root.join("dir/file")).unwrap();
        make_whiteout(&root.join("dir/file"));
        make_whiteout(&root.join("dir/never"));
        make_whiteout(&root.join("nothing"));
    });
    assert_eq!(deleted, ["dir/", "dir/.wh.file"]);
    let whole = Pair::new().change(|root| {
        std::fs::remove_dir_all(root.join("dir")).unwrap();
        make_whiteout(&root.join("dir"));
    });
    assert_eq!(whole, [".wh.dir"]);
}

#[test]
fn an_opaque_mark_counts_only_over_a_directory() {
    if !is_root() {
        return;
    }
    let replaced = Pair::new().change(|root| {
        set_xattr(&root.join("dir"), "trusted.overlay.opaque", b"y");
        std::fs::remove_file(root.join("dir/file")).unwrap();
        make_whiteout(&root.join("dir/file"));
        std::fs::create_dir(root.join("new")).unwrap();
        set_xattr(&root.join("new"), "trusted.overlay.opaque", b"y");
    });
    let expected = ["dir/", "dir/.wh..wh..opq", "dir/link", "dir/sub/", "dir/sub/other", "new/"];
    assert_eq!(replaced, expected, "below the mark nothing is the same, and nothing needs deleting");
}

#[test]
fn layers_in_between_decide_what_is_below() {
    if !is_root() {
        return;
    }
    let pair = Pair::new();
    let middle = tempfile::tempdir().unwrap();
    std::fs::create_dir(middle.path().join("dir")).unwrap();
    make_whiteout(&middle.path().join("dir/file"));
    set_time(&middle.path().join("dir"), 1000, 1);
    let stream = written(&pair.upper, &[middle.path(), &pair.lower]);
    assert_eq!(names(&stream), ["dir/", "dir/file"], "it was deleted, so it is new");
    set_xattr(&middle.path().join("dir"), "trusted.overlay.opaque", b"y");
    let stream = written(&pair.upper, &[middle.path(), &pair.lower]);
    assert_eq!(names(&stream), ["dir/", "dir/file", "dir/link", "dir/sub/", "dir/sub/other"]);
}

#[test]
fn a_file_over_a_directory_and_the_reverse_need_no_deletion() {
    let swapped = Pair::new().change(|root| {
        std::fs::remove_dir_all(root.join("dir/sub")).unwrap();
        std::fs::write(root.join("dir/sub"), "file now").unwrap();
        std::fs::remove_file(root.join("dir/file")).unwrap();
        std::fs::create_dir(root.join("dir/file")).unwrap();
    });
    assert_eq!(swapped, ["dir/", "dir/file/", "dir/sub"]);
}

#[test]
fn the_first_name_of_a_file_holds_it_and_the_others_link_to_it() {
    let temp = tempfile::tempdir().unwrap();
    std::fs::create_dir(temp.path().join("a")).unwrap();
    std::fs::write(temp.path().join("z"), "data").unwrap();
    std::fs::hard_link(temp.path().join("z"), temp.path().join("a/first")).unwrap();
    std::fs::hard_link(temp.path().join("z"), temp.path().join("m")).unwrap();
    let stream = written(temp.path(), &[]);
    let mut archive = tar::Archive::new(&stream[..]);
    let entries: Vec<_> = archive
        .entries()
        .unwrap()
        .map(|entry| {
            let entry = entry.unwrap();
            (entry.path_bytes().into_owned(), entry.header().entry_type(), entry.link_name_bytes().map(|name| name.into_owned()))
        })
        .collect();
    let expected = [
        (b"a/".to_vec(), EntryType::Directory, None),
        (b"a/first".to_vec(), EntryType::Regular, None),
        (b"m".to_vec(), EntryType::Link, Some(b"a/first".to_vec())),
        (b"z".to_vec(), EntryType::Link, Some(b"a/first".to_vec())),
    ];
    assert_eq!(entries, expected);
}

#[test]
fn a_linked_file_is_written_whole_even_where_it_equals_the_one_below() {
    let linked = Pair::new().change(|root| std::fs::hard_link(root.join("dir/file"), root.join("dir/second")).unwrap());
    assert_eq!(linked, ["dir/", "dir/file", "dir/second"]);
}

#[test]
fn times_are_lowered_to_the_epoch_and_never_raised() {
    let temp = tempfile::tempdir().unwrap();
    std::fs::write(temp.path().join("new"), "").unwrap();
    std::fs::write(temp.path().join("old"), "").unwrap();
    set_time(&temp.path().join("new"), 2_000_000_000, 5);
    set_time(&temp.path().join("old"), 500, 5);
    let mut out = Vec::new();
    let options = LayerOptions { latest_time: Some(1000), marks: Marks::Trusted, ..LayerOptions::default() };
    write_layer(temp.path(), &Vec::new().into(), &mut out, &options).unwrap();
    let mut archive = tar::Archive::new(&out[..]);
    let times: Vec<u64> = archive.entries().unwrap().map(|entry| entry.unwrap().header().mtime().unwrap()).collect();
    assert_eq!(times, [1000, 500]);
}

#[test]
fn names_that_would_mean_deletions_are_refused() {
    let temp = tempfile::tempdir().unwrap();
    std::fs::write(temp.path().join(".wh.x"), "").unwrap();
    let error = write_layer(temp.path(), &Vec::new().into(), &mut std::io::sink(), &LayerOptions::default()).unwrap_err();
    assert!(matches!(error, Error::ReservedName { .. }), "{error}");
}

#[test]
fn entries_whose_content_is_in_another_layer_are_refused() {
    if !is_root() {
        return;
    }
    for name in ["trusted.overlay.redirect", "trusted.overlay.metacopy"] {
        let temp = tempfile::tempdir().unwrap();
        std::fs::create_dir(temp.path().join("d")).unwrap();
        set_xattr(&temp.path().join("d"), name, b"/x");
        let error = write_layer(temp.path(), &Vec::new().into(), &mut std::io::sink(), &LayerOptions::default()).unwrap_err();
        assert!(matches!(error, Error::OverlayFeature { .. }), "{error}");
    }
}

#[test]
fn sockets_are_left_out() {
    let temp = tempfile::tempdir().unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(temp.path().join("s")).unwrap();
    assert_eq!(names(&written(temp.path(), &[])), Vec::<String>::new());
}

#[test]
fn an_empty_layer_is_two_blocks_of_zeros() {
    let temp = tempfile::tempdir().unwrap();
    assert_eq!(written(temp.path(), &[]), [0; 1024]);
}

#[test]
fn every_kind_of_entry_survives_a_round_trip_and_gives_the_same_bytes_again() {
    if !is_root() {
        return;
    }
    let temp = tempfile::tempdir().unwrap();
    let (lower, layer) = (temp.path().join("lower"), temp.path().join("layer"));
    std::fs::create_dir_all(lower.join("deep")).unwrap();
    std::fs::write(lower.join("deep/gone"), "").unwrap();
    std::fs::create_dir_all(lower.join("opaque")).unwrap();
    std::fs::create_dir(&layer).unwrap();
    fill(&layer);
    let stream = written(&layer, &[&lower]);
    let (_temp, target, applied) = unpack(&stream);
    let applied = applied.unwrap();
    assert_eq!(describe(&target), describe(&layer));
    assert_eq!(written(&target, &[&lower]), stream);
    let LayerWritten { diff_id, size, entries } = diff_id_only(&layer, &vec![lower].into(), &LayerOptions::default()).unwrap();
    assert_eq!((diff_id, size, entries), (applied.diff_id, applied.tar_size, applied.entries));
}

#[test]
fn the_bytes_of_a_known_tree_are_pinned() {
    if !is_root() {
        return;
    }
    let temp = tempfile::tempdir().unwrap();
    let layer = temp.path().join("layer");
    std::fs::create_dir(&layer).unwrap();
    fill(&layer);
    let digest = crate::oci::Digest::sha256(&written(&layer, &[]));
    assert_eq!(digest.to_string(), "sha256:dc5bcb4aaf9909c33fd882243a5047d2a8550a7948bcc7e2bd6295066cd28728");
}

/// A container that is not paused exchanges names while its layer is read.
#[test]
fn a_device_that_is_exchanged_for_a_file_meanwhile_is_not_read() {
    if !is_root() {
        return;
    }
    let temp = tempfile::tempdir().unwrap();
    let (file, device) = (temp.path().join("file"), temp.path().join("device"));
    std::fs::write(&file, "what is written").unwrap();
    // It gives as many zeros as one likes.
    rustix::fs::mknodat(CWD, &device, FileType::CharacterDevice, Mode::from_raw_mode(0o666), rustix::fs::makedev(1, 5)).unwrap();
    let options = LayerOptions { meanwhile: crate::image::layer::Meanwhile::Anything, ..LayerOptions::default() };
    let stop = std::sync::atomic::AtomicBool::new(false);
    let mut kinds = std::collections::BTreeSet::new();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                let _ = rustix::fs::renameat_with(CWD, &file, CWD, &device, rustix::fs::RenameFlags::EXCHANGE);
            }
        });
        let mut wrong = Vec::new();
        for _ in 0..5000 {
            let mut stream = Vec::new();
            if let Err(error) = write_layer(temp.path(), &Vec::new().into(), &mut stream, &options) {
                wrong.push(error.to_string());
                continue;
            }
            for entry in tar::Archive::new(&stream[..]).entries().unwrap() {
                let mut entry = entry.unwrap();
                kinds.insert(entry.header().entry_type().as_byte());
                let mut content = String::new();
                std::io::Read::read_to_string(&mut entry, &mut content).unwrap();
                if entry.header().entry_type().is_file() && content != "what is written" {
                    wrong.push(content);
                }
            }
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        assert_eq!(wrong, Vec::<String>::new());
    });
    assert_eq!(kinds.into_iter().collect::<Vec<_>>(), [b'0', b'3']);
}
