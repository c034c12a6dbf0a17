//! What unpacking makes of well-meant streams.

use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use super::*;
use crate::image::layer::{Devices, Inherited, inherit_directories};
use crate::path::RootPath;

fn is_whiteout(path: &Path) -> bool {
    path.symlink_metadata().is_ok_and(|metadata| metadata.file_type().is_char_device() && metadata.rdev() == 0)
}

fn opaque(path: &Path) -> bool {
    let mut buffer = [0u8; 8];
    rustix::fs::lgetxattr(path, "trusted.overlay.opaque", &mut buffer[..]).is_ok_and(|length| &buffer[..length] == b"y")
}

#[test]
fn a_deletion_becomes_a_device_and_an_opaque_mark_an_attribute() {
    if !is_root() {
        return;
    }
    let stream = Stream::default().file("etc/.wh.passwd", "").file("var/.wh..wh..opq", "").directory("var").file("var/x", "").end();
    let (_temp, target, applied) = unpack(&stream);
    assert_eq!(applied.unwrap().implied_directories, [RootPath::root(), RootPath::new("/etc")]);
    assert!(is_whiteout(&target.join("etc/passwd")));
    assert!(opaque(&target.join("var")));
    assert!(target.join("var/x").is_file());
}

#[test]
fn the_opaque_mark_may_come_before_or_after_the_entries_it_spares() {
    if !is_root() {
        return;
    }
    for stream in [
        Stream::default().directory("d").file("d/.wh..wh..opq", "").file("d/f", "x").end(),
        Stream::default().directory("d").file("d/f", "x").file("d/.wh..wh..opq", "").end(),
        Stream::default().file("d/f", "x").file("d/.wh..wh..opq", "").directory("d").end(),
    ] {
        let (_temp, target, applied) = unpack(&stream);
        applied.unwrap();
        assert!(opaque(&target.join("d")) && target.join("d/f").is_file());
    }
}

#[test]
fn a_directory_made_where_one_was_deleted_hides_the_one_below() {
    if !is_root() {
        return;
    }
    for stream in [
        Stream::default().file(".wh.d", "").directory("d").file("d/f", "x").end(),
        Stream::default().file(".wh.d", "").file("d/f", "x").end(),
    ] {
        let (_temp, target, applied) = unpack(&stream);
        applied.unwrap();
        assert!(opaque(&target.join("d")) && target.join("d/f").is_file());
    }
    let (_temp, target, applied) = unpack(&Stream::default().file(".wh.f", "").file("f", "x").end());
    applied.unwrap();
    assert_eq!(std::fs::read_to_string(target.join("f")).unwrap(), "x");
}

#[test]
fn a_deletion_leaves_what_its_own_layer_brings_before_it_or_after_it() {
    if !is_root() {
        return;
    }
    let brings = |stream: Stream| stream.directory("d").file("d/e/f", "x").file("k", "new").hard_link("l", "k");
    let deletes = |stream: Stream| stream.file(".wh.d", "").file(".wh.k", "");
    for stream in [deletes(brings(Stream::default())), brings(deletes(Stream::default())), deletes(deletes(brings(Stream::default())))] {
        let (_temp, target, applied) = unpack(&stream.end());
        assert_eq!(applied.unwrap().implied_directories, [RootPath::root(), RootPath::new("/d/e")]);
        assert_eq!(std::fs::read_to_string(target.join("d/e/f")).unwrap(), "x");
        assert_eq!(std::fs::read_to_string(target.join("k")).unwrap(), "new");
        assert_eq!(std::fs::read_to_string(target.join("l")).unwrap(), "new");
        assert!(opaque(&target.join("d")));
    }
    // What was replaced by a mark, and a mark that was replaced, are no targets of hard links and are ones.
    let (_temp, _target, applied) = unpack(&Stream::default().file(".wh.f", "").hard_link("h", "f").end());
    assert!(matches!(applied, Err(Error::HardLinkTarget { .. })));
}

#[test]
fn leftovers_of_aufs_are_skipped() {
    let stream = Stream::default().directory(".wh..wh.plnk").file(".wh..wh.plnk/1.2", "x").file(".wh..wh.aufs", "").file("f", "").end();
    let (_temp, target, applied) = unpack(&stream);
    assert_eq!(applied.unwrap().entries, 4);
    assert_eq!(describe(&target).len(), 1);
}

#[test]
fn the_later_of_two_entries_wins_whatever_they_are() {
    if !is_root() {
        return;
    }
    type Add = fn(Stream) -> Stream;
    let kinds: [(&str, Add); 4] = [
        ("file", |stream| stream.file("a", "later")),
        ("directory", |stream| stream.directory("a").file("a/inner/child", "x")),
        ("link", |stream| stream.symlink("a", "/elsewhere")),
        ("fifo", |stream| stream.raw(&Stream::header("a", EntryType::Fifo, 0), b"")),
    ];
    for (first_name, first) in kinds {
        for (second_name, second) in kinds {
            let (_temp, alone, applied) = unpack(&second(Stream::default()).end());
            applied.unwrap();
            let (_temp2, both, applied) = unpack(&second(first(Stream::default())).end());
            applied.unwrap();
            assert_eq!(describe(&both), describe(&alone), "{first_name} then {second_name}");
        }
    }
}

#[test]
fn a_directory_repeated_keeps_its_children_and_takes_the_later_metadata() {
    let mut header = Stream::header("d", EntryType::Directory, 0);
    header.set_mode(0o700);
    header.set_cksum();
    let (_temp, target, applied) = unpack(&Stream::default().directory("d").file("d/f", "x").raw(&header, b"").end());
    applied.unwrap();
    assert_eq!(target.join("d").metadata().unwrap().mode() & 0o7777, 0o700);
    assert!(target.join("d/f").is_file());
}

#[test]
fn times_are_exact_for_files_directories_and_links() {
    let stream = Stream::default()
        .pax(&[("mtime", b"1111111111.123456789")])
        .directory("d")
        .pax(&[("mtime", b"1222222222.000000001")])
        .symlink("d/l", "x")
        .pax(&[("mtime", b"-3.25")])
        .file("d/f", "x")
        .end();
    let (_temp, target, applied) = unpack(&stream);
    applied.unwrap();
    let time = |name: &str| {
        let metadata = target.join(name).symlink_metadata().unwrap();
        (metadata.mtime(), metadata.mtime_nsec())
    };
    assert_eq!([time("d"), time("d/l"), time("d/f")], [(1_111_111_111, 123_456_789), (1_222_222_222, 1), (-4, 750_000_000)]);
}

#[test]
fn a_read_only_directory_gets_its_children() {
    let mut header = Stream::header("d", EntryType::Directory, 0);
    header.set_mode(0);
    header.set_cksum();
    let (_temp, target, applied) = unpack(&Stream::default().raw(&header, b"").file("d/e/f", "x").end());
    applied.unwrap();
    assert_eq!(target.join("d").metadata().unwrap().mode() & 0o7777, 0);
    set_mode(&target.join("d"), 0o700);
}

#[test]
fn names_lead_through_the_layers_own_links_as_in_a_container() {
    let stream = Stream::default()
        .directory("usr/lib")
        .symlink("lib", "usr/lib")
        .file("lib/a", "a")
        .symlink("abs", "/usr/lib")
        .file("abs/new/b", "b")
        .symlink("up", "../../usr")
        .file("up/c", "c")
        .hard_link("lib/d", "abs/a")
        .end();
    let (_temp, target, applied) = unpack(&stream);
    applied.unwrap();
    for name in ["usr/lib/a", "usr/lib/new/b", "usr/c", "usr/lib/d"] {
        assert!(target.join(name).symlink_metadata().unwrap().is_file(), "{name}");
    }
    assert!(target.join("lib").is_symlink());
}

#[test]
fn the_last_entry_of_a_file_says_what_it_is_like() {
    if !is_root() {
        return;
    }
    let stream = |change: fn(&mut Header)| {
        let mut header = Stream::header("b", EntryType::Link, 0);
        header.as_old_mut().linkname[0] = b'a';
        change(&mut header);
        header.set_cksum();
        // A capability stays where the owner does.
        let capable: &[(&str, &[u8])] = &[("SCHILY.xattr.security.capability", b"\x01\0\0\x02\0\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0")];
        Stream::default().pax(capable).file("a", "x").raw(&header, b"").symlink("s", "a").hard_link("t", "s").end()
    };
    let seen = |stream: &[u8]| {
        let (_temp, target, applied) = unpack(stream);
        applied.unwrap();
        let stat = target.join("a").metadata().unwrap();
        assert_eq!((stat.ino(), stat.nlink()), (target.join("b").metadata().unwrap().ino(), 2));
        assert_eq!(target.join("s").symlink_metadata().unwrap().mtime(), target.join("t").symlink_metadata().unwrap().mtime());
        let capable = describe(&target).into_values().any(|line| line.contains("security.capability"));
        (stat.mode() & 0o7777, stat.uid(), stat.gid(), stat.mtime(), capable)
    };
    let first = seen(&stream(|_| {}));
    assert!(first.4);
    let changed = seen(&stream(|header| {
        header.set_mode(0o4711);
        header.set_mtime(77);
    }));
    assert_eq!(changed, (0o4711, first.1, first.2, 77, true));
    let given = seen(&stream(|header| {
        header.set_mode(0o6755);
        header.set_uid(70_000);
        header.set_gid(5);
    }));
    assert_eq!((given.0, given.1, given.2), (0o6755, 70_000, 5));
}

#[test]
fn attributes_of_overlayfs_in_a_stream_are_dropped() {
    if !is_root() {
        return;
    }
    let stream = Stream::default()
        .pax(&[("SCHILY.xattr.trusted.overlay.redirect", b"/etc"), ("SCHILY.xattr.user.kept", b"a\nb")])
        .directory("d")
        .pax(&[("SCHILY.xattr.user.overlay.opaque", b"y"), ("SCHILY.xattr.trusted.overlay.metacopy", b"")])
        .file("f", "")
        .end();
    let (_temp, target, applied) = unpack(&stream);
    applied.unwrap();
    let lines: Vec<String> = describe(&target).into_values().collect();
    assert!(lines.iter().all(|line| !line.contains("overlay")), "{lines:?}");
    assert!(lines[0].contains("user.kept"), "{lines:?}");
}

#[test]
fn owners_beyond_two_million_and_special_modes_survive() {
    if !is_root() {
        return;
    }
    let mut base256 = Stream::header("f", EntryType::Regular, 0);
    base256.set_uid(0xfedc_ba98);
    base256.set_gid(5_000_000);
    base256.set_mode(0o6755);
    base256.set_cksum();
    let stream = Stream::default().raw(&base256, b"").pax(&[("uid", b"4000000000"), ("gid", b"7")]).file("g", "").end();
    let (_temp, target, applied) = unpack(&stream);
    applied.unwrap();
    let f = target.join("f").metadata().unwrap();
    assert_eq!((f.uid(), f.gid(), f.mode() & 0o7777), (0xfedc_ba98, 5_000_000, 0o6755));
    let g = target.join("g").metadata().unwrap();
    assert_eq!((g.uid(), g.gid()), (4_000_000_000, 7));
}

#[test]
fn the_diff_id_covers_what_follows_the_end_of_the_archive() {
    let mut stream = Stream::default().file("f", "x").end();
    stream.extend_from_slice(&[0; 9000]);
    stream.extend_from_slice(b"anything");
    let (_temp, _target, applied) = unpack(&stream);
    let applied = applied.unwrap();
    assert_eq!(applied.diff_id.digest(), &crate::oci::Digest::sha256(&stream));
    assert_eq!((applied.tar_size, applied.unpacked_size, applied.entries), (stream.len() as u64, 1, 1));
}

#[test]
fn no_bytes_at_all_are_an_empty_layer() {
    let (_temp, target, applied) = unpack(b"");
    assert_eq!(applied.unwrap().implied_directories, [RootPath::root()]);
    assert!(describe(&target).is_empty());
}

#[test]
fn devices_can_be_left_out_and_reported() {
    let mut device = Stream::header("dev/sda", EntryType::Block, 0);
    device.set_device_major(8).unwrap();
    device.set_device_minor(0).unwrap();
    device.set_cksum();
    let stream = Stream::default().raw(&device, b"").end();
    let temp = tempfile::tempdir().unwrap();
    let options = ApplyOptions { devices: Devices::Skip, ..ApplyOptions::default() };
    let applied = apply(&stream[..], temp.path(), &options).unwrap();
    assert_eq!(applied.skipped_devices, [RootPath::new("/dev/sda")]);
    assert!(!temp.path().join("dev/sda").exists());
}

#[test]
fn an_implied_directory_takes_the_metadata_of_the_layers_below() {
    if !is_root() {
        return;
    }
    let lower = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(lower.path().join("srv/data")).unwrap();
    std::fs::create_dir_all(lower.path().join("usr/lib")).unwrap();
    std::os::unix::fs::symlink("usr/lib", lower.path().join("lib")).unwrap();
    set_owner(&lower.path().join("srv/data"), 33, 44);
    set_mode(&lower.path().join("srv/data"), 0o2770);
    set_xattr(&lower.path().join("srv/data"), "user.k", b"v");
    set_time(&lower.path().join("srv/data"), 77, 5);
    set_mode(lower.path(), 0o751);
    let middle = tempfile::tempdir().unwrap();
    let (_temp, target, applied) = unpack(&Stream::default().file("srv/data/f", "x").file("lib/g", "x").file("new/h", "x").end());
    let implied = applied.unwrap().implied_directories;
    let layers = [middle.path().to_owned(), lower.path().to_owned()];
    set_mode(middle.path(), 0o711);
    let inherited = inherit_directories(&target, &implied, &layers, Marks::Trusted).unwrap();
    assert_eq!(inherited, Inherited { inherited: 3, over_links: vec![RootPath::new("/lib")] });
    assert_eq!(describe(&target)[Path::new("srv/data")], describe(lower.path())[Path::new("srv/data")]);
    assert_eq!(target.metadata().unwrap().mode() & 0o7777, 0o711, "the topmost layer that has it counts");
}

#[test]
fn what_a_middle_layer_hides_is_not_inherited() {
    if !is_root() {
        return;
    }
    let lower = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(lower.path().join("a/b")).unwrap();
    std::fs::create_dir_all(lower.path().join("c/d")).unwrap();
    set_mode(&lower.path().join("a/b"), 0o700);
    set_mode(&lower.path().join("c/d"), 0o700);
    let middle = tempfile::tempdir().unwrap();
    std::fs::create_dir(middle.path().join("a")).unwrap();
    set_xattr(&middle.path().join("a"), "trusted.overlay.opaque", b"y");
    make_whiteout(&middle.path().join("c"));
    let (_temp, target, applied) = unpack(&Stream::default().file("a/b/f", "x").file("c/d/f", "x").end());
    let layers = [middle.path().to_owned(), lower.path().to_owned()];
    inherit_directories(&target, &applied.unwrap().implied_directories, &layers, Marks::Trusted).unwrap();
    for name in ["a/b", "c/d"] {
        assert_eq!(target.join(name).metadata().unwrap().mode() & 0o7777, 0o755, "{name}");
    }
}

#[test]
fn a_full_disk_is_named() {
    if !is_root() {
        return;
    }
    let temp = tempfile::tempdir().unwrap();
    let options = c"size=1m";
    let flags = rustix::mount::MountFlags::empty();
    if let Err(errno) = rustix::mount::mount("tmpfs", temp.path(), "tmpfs", flags, options) {
        eprintln!("skipped: cannot mount a tmpfs here: {errno}");
        return;
    }
    let stream = Stream::default().file("f", &"x".repeat(3 << 20)).end();
    let error = apply(&stream[..], temp.path(), &ApplyOptions::default()).unwrap_err();
    rustix::mount::unmount(temp.path(), rustix::mount::UnmountFlags::empty()).unwrap();
    assert!(error.to_string().starts_with("cannot write `/f` in "), "{error}");
    assert!(error.hint().is_some_and(|hint| hint.contains("full")));
}
