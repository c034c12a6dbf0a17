//! What unpacking makes of streams that mean harm: nothing beside the target changes, and every refusal has a name.

use super::*;

#[track_caller]
fn refused(stream: Stream) -> Error {
    let (temp, _target, applied) = unpack(&stream.end());
    let victim = std::fs::read_to_string(temp.path().join("outside/victim")).unwrap();
    assert_eq!(victim, "untouched");
    assert_eq!(std::fs::read_dir(temp.path().join("outside")).unwrap().count(), 1);
    applied.unwrap_err()
}

/// Unpacks, whatever comes of it, and makes sure that nothing outside was touched.
#[track_caller]
fn contained(stream: Vec<u8>) -> (tempfile::TempDir, PathBuf, Result<Applied, Error>) {
    let (temp, target, applied) = unpack(&stream);
    assert_eq!(std::fs::read_to_string(temp.path().join("outside/victim")).unwrap(), "untouched");
    assert_eq!(std::fs::read_dir(temp.path().join("outside")).unwrap().count(), 1);
    assert_eq!(std::fs::read_dir(temp.path()).unwrap().count(), 2);
    (temp, target, applied)
}

#[test]
fn names_that_climb_end_at_the_root() {
    for name in ["../outside/victim", "a/../../outside/victim", "/../outside/victim", "../../../../outside/victim"] {
        let (_temp, target, applied) = contained(Stream::default().file(name, "mine").hard_link("../h", name).end());
        applied.unwrap();
        for made in ["outside/victim", "h"] {
            assert_eq!(std::fs::read_to_string(target.join(made)).unwrap(), "mine", "{name}");
        }
        assert!(matches!(refused(Stream::default().hard_link("x", name)), Error::HardLinkTarget { .. }), "{name}");
        contained(Stream::default().directory(name).symlink(&format!("{name}/l"), "/").end()).2.unwrap();
    }
    contained(Stream::default().file("../outside/.wh.victim", "").file("../../.wh..wh..opq", "").end()).2.unwrap();
    assert!(matches!(refused(Stream::default().file("..", "bad")), Error::BadName { .. }));
    assert!(matches!(refused(Stream::default().file("", "bad")), Error::BadName { .. }));
    assert!(matches!(refused(Stream::default().pax(&[("path", b"a\0b")]).file("x", "bad")), Error::BadName { .. }));
}

#[test]
fn absolute_names_are_taken_from_the_root_of_the_layer() {
    let (_temp, target, applied) = contained(Stream::default().file("/etc/f", "x").file("//g", "x").file("a/../h", "x").end());
    applied.unwrap();
    for name in ["etc/f", "g", "h"] {
        assert!(target.join(name).is_file(), "{name}");
    }
}

#[test]
fn links_on_the_way_lead_nowhere_outside() {
    for to in ["../outside", "../../outside", "/../../outside", "/proc/self/root/tmp", "/proc/self/cwd"] {
        for through in ["l", "l/deeper"] {
            let stream = Stream::default().symlink("l", to).file(&format!("{through}/victim"), "bad").end();
            contained(stream).2.unwrap();
            let _ = contained(Stream::default().symlink("l", to).directory(&format!("{through}/new")).end());
            let _ = contained(Stream::default().symlink("l", to).hard_link("h", &format!("{through}/victim")).end());
            let _ = contained(Stream::default().symlink("l", to).file(&format!("{through}/.wh.victim"), "").end());
            let _ = contained(Stream::default().symlink("l", to).file(&format!("{through}/.wh..wh..opq"), "").end());
        }
    }
}

#[test]
fn a_link_at_the_end_is_replaced_and_not_written_through() {
    let (temp, target, applied) = contained(Stream::default().symlink("l", "../outside/victim").file("l", "mine").end());
    applied.unwrap();
    assert_eq!(std::fs::read_to_string(target.join("l")).unwrap(), "mine");
    drop(temp);
    let (_temp, target, applied) = contained(Stream::default().symlink("d", "../outside").directory("d").file("d/f", "x").end());
    applied.unwrap();
    assert!(target.join("d").symlink_metadata().unwrap().is_dir());
}

#[test]
fn directories_swapped_for_links_between_entries_do_not_mislead() {
    let stream = Stream::default()
        .directory("d/e")
        .file("d/e/one", "1")
        .symlink("d", "../outside")
        .file("d/e/two", "2")
        .directory("d")
        .file("d/e/three", "3")
        .end();
    let (_temp, target, applied) = contained(stream);
    applied.unwrap();
    assert!(target.join("d/e/three").is_file());
    assert!(!target.join("d/e/one").exists());
}

#[test]
fn links_in_circles_are_refused() {
    assert!(matches!(refused(Stream::default().symlink("a", "b").symlink("b", "a").file("a/f", "x")), Error::Entry { .. }));
    let stream = Stream::default().symlink("a", "a/a/a/a/a").file("a/f", "x");
    assert!(matches!(refused(stream), Error::Entry { .. }));
}

#[test]
fn links_lead_to_no_directory_whose_name_would_mean_a_deletion() {
    for to in [".wh.x", "a/.wh.x/b", "/.wh..wh..opq"] {
        let error = refused(Stream::default().symlink("d", to).file("d/f", "x"));
        assert!(matches!(error, Error::BadName { .. }), "{to}: {error}");
    }
}

#[test]
fn hard_links_to_what_is_not_in_the_layer_are_refused() {
    for stream in [
        Stream::default().hard_link("h", "missing"),
        Stream::default().hard_link("h", "h"),
        Stream::default().hard_link("h", "no/where"),
        Stream::default().directory("d").hard_link("h", "d"),
        Stream::default().directory("d").hard_link("d/h", "d"),
        Stream::default().symlink("l", "/outside/victim").hard_link("h", "l/x"),
        Stream::default().file("f", "").hard_link("f/h", "f"),
    ] {
        assert!(matches!(refused(stream), Error::HardLinkTarget { .. }));
    }
    // To itself: nothing to do, and the file stays.
    let (_temp, target, applied) = contained(Stream::default().file("f", "x").hard_link("f", "./f").end());
    applied.unwrap();
    assert_eq!(std::fs::read_to_string(target.join("f")).unwrap(), "x");
}

#[test]
fn whiteouts_that_name_no_entry_are_refused() {
    for name in [".wh.", ".wh..", ".wh...", "a/.wh...", ".wh.a/b"] {
        assert!(matches!(refused(Stream::default().file(name, "")), Error::BadName { .. }), "{name}");
    }
}

#[test]
fn a_stream_cut_anywhere_inside_an_entry_is_an_error() {
    let stream = Stream::default().pax(&[("mtime", b"1.5")]).file("f", &"x".repeat(1000)).end();
    for length in (1..512 * 5).filter(|length| length % 512 != 0 || *length == 1024 || *length == 2048) {
        let (_temp, _target, applied) = unpack(&stream[..length]);
        assert!(matches!(applied, Err(Error::Truncated { .. } | Error::Malformed { .. })), "{length}");
    }
}

#[test]
fn noise_is_an_error_and_never_a_panic() {
    let clean = Stream::default().pax(&[("SCHILY.xattr.user.a", b"v"), ("size", b"3")]).file("f", "abc").symlink("l", "f").end();
    // Names, numbers and records; little of the padding. Every byte of them is for the fuzz target.
    for at in (0..clean.len()).filter(|at| (at % 512 < 160 && at % 3 == 0) || at % 111 == 0) {
        for value in [0, 0xff, b'9'] {
            let mut noisy = clean.clone();
            noisy[at] = value;
            drop(contained(noisy));
        }
        // With the checksum mended the change gets further in.
        let mut noisy = clean.clone();
        noisy[at] ^= 0x15;
        let block = at / 512 * 512;
        let mut header = Header::new_old();
        header.as_mut_bytes().copy_from_slice(&noisy[block..block + 512]);
        header.set_cksum();
        noisy[block..block + 512].copy_from_slice(header.as_bytes());
        drop(contained(noisy));
    }
}

#[test]
fn sizes_beyond_the_limits_are_refused_before_anything_is_written() {
    let mut huge = Stream::header("f", EntryType::Regular, 0);
    huge.set_size(u64::MAX >> 1);
    huge.set_cksum();
    assert!(matches!(refused(Stream::default().raw(&huge, b"")), Error::TooLarge { .. }));
    for size in ["18446744073709551615", "9223372036854775807"] {
        let stream = Stream::default().pax(&[("size", size.as_bytes())]).file("f", "");
        assert!(matches!(refused(stream), Error::TooLarge { .. }));
    }
    let mut header = Stream::header("x", EntryType::XHeader, 0);
    header.set_size(1 << 40);
    header.set_cksum();
    assert!(matches!(refused(Stream::default().raw(&header, b"")), Error::HeaderTooLarge { .. }));
    header.set_entry_type(EntryType::GNULongName);
    header.set_cksum();
    assert!(matches!(refused(Stream::default().raw(&header, b"")), Error::HeaderTooLarge { .. }));
}

#[test]
fn a_sparse_file_counts_with_its_holes() {
    let map = b"0,1,8796093022207,1";
    let stream = Stream::default().pax(&[("GNU.sparse.size", b"8796093022208"), ("GNU.sparse.map", map)]).file("f", "ab").end();
    let temp = tempfile::tempdir().unwrap();
    let options = ApplyOptions { max_unpacked_size: 1 << 30, ..ApplyOptions::default() };
    assert!(matches!(apply(&stream[..], temp.path(), &options), Err(Error::TooLarge { .. })));
    for map in ["0,3", "5,1,2,1", "0,1,99,1", "0,18446744073709551615", "1"] {
        let stream = Stream::default().pax(&[("GNU.sparse.size", b"50"), ("GNU.sparse.map", map.as_bytes())]).file("f", "ab");
        assert!(matches!(refused(stream), Error::Malformed { .. }), "{map}");
    }
}

#[test]
fn too_many_entries_are_refused() {
    let stream = Stream::default().file("a", "").file("b", "").file("c", "").end();
    let temp = tempfile::tempdir().unwrap();
    let options = ApplyOptions { max_entries: 2, ..ApplyOptions::default() };
    assert!(matches!(apply(&stream[..], temp.path(), &options), Err(Error::TooManyEntries { limit: 2 })));
}

#[test]
fn implied_directories_count_as_entries() {
    let stream = Stream::default().file("a/b/c/d/e/f", "").end();
    let temp = tempfile::tempdir().unwrap();
    let options = ApplyOptions { max_entries: 4, ..ApplyOptions::default() };
    assert!(matches!(apply(&stream[..], temp.path(), &options), Err(Error::TooManyEntries { limit: 4 })));
}

#[test]
fn paths_as_deep_as_a_path_can_be_work_and_deeper_ones_are_refused() {
    let deep = "d/".repeat(2046) + "f";
    let (temp, _target, applied) = contained(Stream::default().pax(&[("path", deep.as_bytes())]).file("x", "deep").end());
    assert_eq!(applied.unwrap().implied_directories.len(), 2047);
    drop(temp);
    let too_deep = "d/".repeat(2048) + "f";
    let stream = Stream::default().pax(&[("path", too_deep.as_bytes())]).file("x", "deep");
    assert!(matches!(refused(stream), Error::BadName { .. }));
    // Replacing the deep tree removes it without recursion.
    let stream = Stream::default().pax(&[("path", deep.as_bytes())]).file("x", "deep").file("d", "flat").end();
    let (_temp, target, applied) = contained(stream);
    assert_eq!(applied.unwrap().implied_directories.len(), 1);
    assert!(target.join("d").is_file());
}

#[test]
fn a_hundred_thousand_entries_of_the_same_names_end_in_reasonable_time() {
    let mut stream = Stream::default().directory("d");
    for _ in 0..80_000 {
        stream = stream.directory("d");
    }
    for _ in 0..5_000 {
        stream = stream.file("d/x", "").directory("d/x").symlink("d/x", "d").hard_link("d/y", "d/x");
    }
    let start = std::time::Instant::now();
    contained(stream.end()).2.unwrap();
    assert!(start.elapsed().as_secs() < 60, "{:?}", start.elapsed());
}
