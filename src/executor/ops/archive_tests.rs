//! ADD of archives, seen through a real overlay.

use std::fs;
use std::io::Write;
use std::os::unix::fs::MetadataExt;

use tar::{Builder, EntryType, Header};

use super::tests::Bench;
use crate::store::view::fixture::{can_mount, listing};

/// An entry: type, name, mode, owner, content or link target.
type Entry<'a> = (EntryType, &'a str, u32, u32, &'a str);

/// An archive whose names are taken as they are, however hostile.
fn archive(entries: &[Entry<'_>]) -> Vec<u8> {
    let mut builder = Builder::new(Vec::new());
    for (kind, name, mode, owner, text) in entries {
        let mut header = Header::new_ustar();
        header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
        header.set_entry_type(*kind);
        header.set_mode(*mode);
        header.set_uid((*owner).into());
        header.set_gid((*owner).into());
        header.set_mtime(1234);
        let data = if kind.is_file() { text.as_bytes() } else { &[] };
        if !kind.is_file() {
            header.as_mut_bytes()[157..157 + text.len()].copy_from_slice(text.as_bytes());
        }
        header.set_size(data.len() as u64);
        header.set_cksum();
        builder.append(&header, data).unwrap();
    }
    builder.into_inner().unwrap()
}

fn bench(base: &[&str], name: &str, content: &[u8]) -> Bench {
    let bench = Bench::new(base, "");
    fs::write(bench.source().join(name), content).unwrap();
    bench
}

#[track_caller]
fn case(base: &[&str], entries: &[Entry<'_>], instruction: &str, expected: &[&str]) {
    let bench = bench(base, "a.tar", &archive(entries));
    if let Err(error) = bench.run(instruction) {
        panic!("{instruction}: {error:?}");
    }
    assert_eq!(bench.merged(), expected, "{instruction}");
}

const F: EntryType = EntryType::Regular;
const D: EntryType = EntryType::Directory;
const L: EntryType = EntryType::Symlink;
const H: EntryType = EntryType::Link;

#[test]
fn archives_are_known_by_their_content_in_every_compression() {
    if !can_mount("archives_are_known_by_their_content_in_every_compression") {
        return;
    }
    let plain = archive(&[(D, "d", 0o700, 5, ""), (F, "d/f", 0o4640, 6, "F"), (F, "implied/g", 0o644, 0, "G")]);
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&plain).unwrap();
    let mut bzip2 = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
    bzip2.write_all(&plain).unwrap();
    let mut xz = liblzma::write::XzEncoder::new(Vec::new(), 0);
    xz.write_all(&plain).unwrap();
    let zstd = zstd::encode_all(plain.as_slice(), 1).unwrap();
    let expected = ["d 0755 0:0 /x", "d 0700 5:5 /x/d", "f 4640 6:6 /x/d/f F", "d 0755 0:0 /x/implied", "f 0644 0:0 /x/implied/g G"];
    for content in [plain.clone(), gzip.finish().unwrap(), bzip2.finish().unwrap(), xz.finish().unwrap(), zstd] {
        let bench = bench(&[], "anything.txt", &content);
        bench.run("ADD anything.txt /x").unwrap();
        assert_eq!(bench.merged(), expected);
        let time = |path: &str| fs::metadata(bench.upper().join(path)).unwrap().mtime();
        assert_eq!((time("x/d"), time("x/d/f")), (1234, 1234));
    }
    let bench = bench(&[], "a.tar", &plain);
    bench.run("COPY a.tar /x").unwrap();
    assert_eq!(fs::read(bench.upper().join("x")).unwrap(), plain);
}

#[test]
fn what_is_no_archive_is_copied() {
    let mut empty = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    empty.write_all(&[]).unwrap();
    let mut text = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    text.write_all(&[b'x'; 2000]).unwrap();
    for content in [Vec::new(), vec![0; 1024], b"hello".to_vec(), empty.finish().unwrap(), text.finish().unwrap(), archive(&[])] {
        let bench = bench(&[], "a.tar.gz", &content);
        bench.run("ADD a.tar.gz /x").unwrap();
        assert_eq!(fs::read(bench.upper().join("x")).unwrap(), content);
        bench.run("ADD --unpack=true a.tar.gz /y").unwrap();
        assert_eq!(fs::read(bench.upper().join("y")).unwrap(), content);
    }
}

#[test]
fn chown_applies_to_every_entry_and_unpack_can_be_turned_off() {
    if !can_mount("chown_applies_to_every_entry_and_unpack_can_be_turned_off") {
        return;
    }
    let entries = [(D, "./", 0o700, 9, ""), (F, "f", 0o4755, 5, "F"), (L, "l", 0o777, 5, "f")];
    case(&[], &entries, "ADD --chown=1:2 a.tar /x/", &["d 0755 1:2 /x", "f 4755 1:2 /x/f F", "l 1:2 /x/l f"]);
    // `--chmod` is not for what is unpacked, nor for the directories made for it.
    let below = ["d 0755 1:2 /x", "d 0755 1:2 /x/y", "f 4755 1:2 /x/y/f F", "l 1:2 /x/y/l f"];
    case(&[], &entries, "ADD --chown=1:2 --chmod=700 a.tar /x/y/", &below);
    // The destination keeps what it has.
    case(&["d 0711 x"], &entries, "ADD a.tar /x/", &["d 0711 0:0 /x", "f 4755 5:5 /x/f F", "l 5:5 /x/l f"]);
    let bench = bench(&[], "a.tar", &archive(&entries));
    bench.run("ADD --unpack=false a.tar /x").unwrap();
    assert!(fs::metadata(bench.upper().join("x")).unwrap().is_file());
}

#[test]
fn entries_replace_what_they_find_and_directories_merge() {
    if !can_mount("entries_replace_what_they_find_and_directories_merge") {
        return;
    }
    let base = "f 0644 d/old O\nf 0644 real/r R\nl link real\nf 0644 file F";
    let entries = [
        (D, "d", 0o711, 0, ""),
        (F, "d/new", 0o644, 0, "N"),
        (D, "link", 0o700, 0, ""),
        (F, "link/in", 0o644, 0, "I"),
        (L, "file", 0o777, 0, "d"),
    ];
    let expected = [
        "d 0711 0:0 /d",
        "f 0644 0:0 /d/new N",
        "f 0644 0:0 /d/old O",
        "l 0:0 /file d",
        "d 0700 0:0 /link",
        "f 0644 0:0 /link/in I",
        "d 0755 0:0 /real",
        "f 0644 0:0 /real/r R",
    ];
    case(&[base], &entries, "ADD a.tar /", &expected);
    // A file takes the place of a directory, and a directory of that file: nothing of the first one shows through.
    case(&["f 0644 d/old O"], &[(F, "d", 0o644, 0, "F")], "ADD a.tar /", &["f 0644 0:0 /d F"]);
    let twice = [(F, "d/x/y", 0o644, 0, "1"), (F, "d", 0o644, 0, "F"), (D, "d", 0o700, 0, ""), (F, "d/n", 0o644, 0, "N")];
    case(&["f 0644 d/old O"], &twice, "ADD a.tar /", &["d 0700 0:0 /d", "f 0644 0:0 /d/n N"]);
}

#[test]
fn times_that_docker_does_not_keep_become_zero() {
    for (time, expected) in [(-86400_i64, 0), (-1, 0), (0, 0), (1234, 1234), (9_223_372_036, 9_223_372_036), (9_223_372_037, 0)] {
        let mut header = Header::new_gnu();
        header.set_path("f").unwrap();
        header.set_entry_type(F);
        header.set_size(0);
        header.set_mode(0o644);
        // The binary form, which has a sign.
        let field = &mut header.as_gnu_mut().unwrap().mtime;
        field.copy_from_slice(&[[if time < 0 { 0xff } else { 0x80 }, 0, 0, 0].as_slice(), &time.to_be_bytes()].concat());
        if time < 0 {
            field[1..4].fill(0xff);
        }
        header.set_cksum();
        let mut builder = Builder::new(Vec::new());
        builder.append(&header, &[][..]).unwrap();
        let bench = bench(&[], "a.tar", &builder.into_inner().unwrap());
        bench.run("ADD a.tar /").unwrap();
        assert_eq!(fs::metadata(bench.upper().join("f")).unwrap().mtime(), expected, "{time}");
    }
}

#[test]
fn links_on_the_way_stay_inside_the_destination() {
    if !can_mount("links_on_the_way_stay_inside_the_destination") {
        return;
    }
    let outside = tempfile::tempdir().unwrap();
    let target = outside.path().to_str().unwrap();
    let entries =
        [(L, "evil", 0o777, 0, target), (F, "evil/x", 0o644, 0, "X"), (L, "up", 0o777, 0, "../../../.."), (F, "up/y", 0o644, 0, "Y")];
    let bench = bench(&["d 0755 etc"], "a.tar", &archive(&entries));
    bench.run("ADD a.tar /d/").unwrap();
    assert_eq!(listing(outside.path()), [""; 0]);
    assert_eq!(fs::read_to_string(bench.upper().join("d/y")).unwrap(), "Y");
    assert_eq!(fs::read_to_string(bench.upper().join("d").join(target.trim_start_matches('/')).join("x")).unwrap(), "X");
    // Above the destination there is nothing to climb to, for plain archives and for those that are unpacked in their order.
    for name in ["../x", "a/../../x", "/../../x"] {
        case(&[], &[(F, name, 0o644, 0, "X")], "ADD a.tar /d/", &["d 0755 0:0 /d", "f 0644 0:0 /d/x X"]);
        let linked = [(F, name, 0o644, 0, "X"), (H, "../y", 0o644, 0, "../../x")];
        case(&["f 0644 x old"], &linked, "ADD a.tar /d/", &["d 0755 0:0 /d", "f 0644 0:0 /d/x X", "h /d/y /d/x", "f 0644 0:0 /x old"]);
    }
    let around = [(L, "a", 0o777, 0, "b"), (L, "b", 0o777, 0, "a"), (F, "a/x", 0o644, 0, "X")];
    let error = self::bench(&[], "a.tar", &archive(&around)).run("ADD a.tar /").unwrap_err();
    assert_eq!(error.to_string(), "cannot unpack `a/x`: too many symbolic links on the way");
}

#[test]
fn hard_links_join_entries_also_with_files_of_the_base() {
    if !can_mount("hard_links_join_entries_also_with_files_of_the_base") {
        return;
    }
    // The link's own header has the last word.
    let entries = [(F, "a", 0o644, 0, "A"), (H, "sub/b", 0o600, 7, "a")];
    case(&[], &entries, "ADD a.tar /", &["f 0600 7:7 /a A", "d 0755 0:0 /sub", "h /sub/b /a"]);
    case(&["f 0644 old O"], &[(H, "new", 0o640, 1, "old")], "ADD a.tar /", &["f 0640 1:1 /new O", "h /old /new"]);
    case(
        &["f 0644 d/old O"],
        &[(H, "new", 0o640, 1, "/old")],
        "ADD a.tar /d",
        &["d 0755 0:0 /d", "f 0640 1:1 /d/new O", "h /d/old /d/new"],
    );
    for (target, reason) in [("none", "its link target `none` does not exist"), ("d", "its link target `d` is a directory")] {
        let bench = bench(&["d 0755 d"], "a.tar", &archive(&[(H, "x", 0o644, 0, target)]));
        assert_eq!(bench.run("ADD a.tar /").unwrap_err().to_string(), format!("cannot unpack `x`: {reason}"));
    }
}

#[test]
fn an_archive_cannot_say_anything_to_overlayfs() {
    if !can_mount("an_archive_cannot_say_anything_to_overlayfs") {
        return;
    }
    let mut builder = Builder::new(Vec::new());
    let attribute = [("SCHILY.xattr.trusted.overlay.opaque", b"y".as_slice()), ("SCHILY.xattr.user.note", b"n".as_slice())];
    builder.append_pax_extensions(attribute).unwrap();
    builder.get_mut().extend(archive(&[(D, "d", 0o755, 0, ""), (EntryType::Char, "w", 0o644, 0, "")]));
    let bench = bench(&["f 0644 d/old O\nf 0644 w W"], "a.tar", builder.get_ref());
    let copied = bench.run("ADD a.tar /").unwrap();
    assert_eq!(copied.warnings, ["`/w` of the archive is left out: such a device cannot be made"]);
    assert_eq!(bench.merged(), ["d 0755 0:0 /d", "f 0644 0:0 /d/old O", "f 0644 0:0 /w W"]);
    let mut value = [0; 8];
    assert_eq!(rustix::fs::getxattr(bench.upper().join("d"), "user.note", &mut value[..]).unwrap(), 1);
}

#[test]
fn a_truncated_archive_is_an_error() {
    let mut content = archive(&[(F, "a", 0o644, 0, "A"), (F, "b", 0o644, 0, &"b".repeat(4000))]);
    content.truncate(2000);
    let error = bench(&[], "a.tar", &content).run("ADD a.tar /").unwrap_err();
    assert_eq!(error.to_string(), "cannot read the archive after 1 entries");
}

/// An uncompressed archive without surprises is unpacked in another order, by several threads, than a compressed one.
#[test]
fn a_large_archive_gives_the_same_layer_whether_it_is_compressed_or_not() {
    if !can_mount("a_large_archive_gives_the_same_layer_whether_it_is_compressed_or_not") {
        return;
    }
    let large = "l".repeat(300_000);
    let mut names: Vec<(EntryType, String, u32, u32, String)> = Vec::new();
    for directory in (0..12).rev() {
        for file in (0..60).rev() {
            names.push((F, format!("d{directory}/f{file}"), 0o640 + file % 8, file, "x".repeat((file * directory * 9) as usize)));
        }
        // Described after what is in it, and between others by name.
        names.push((D, format!("d{directory}"), 0o2751, directory, String::new()));
        names.push((F, format!("d{directory}.x"), 0o4755, 9, String::new()));
        names.push((L, format!("d{directory}/deep/er/link"), 0o777, 3, "../../../d1".to_owned()));
    }
    names.push((F, "d3/large".to_owned(), 0o600, 1, large));
    let mut builder = Builder::new(Vec::new());
    builder.append_pax_extensions([("SCHILY.xattr.user.note", b"n".as_slice())]).unwrap();
    let mut content = builder.get_ref().clone();
    let entries: Vec<Entry<'_>> =
        names.iter().map(|(kind, name, mode, owner, text)| (*kind, name.as_str(), *mode, *owner, text.as_str())).collect();
    content.extend(archive(&entries));
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&content).unwrap();
    let gzip = gzip.finish().unwrap();
    for (base, instruction) in [(&[][..], "ADD a /"), (&["d 0755 opt\nt 5 opt"], "ADD a /opt/app/"), (&[], "ADD --chown=4:5 a /x/y")] {
        let [plain, packed] = [&content, &gzip].map(|content| {
            let bench = bench(base, "a", content);
            let copied = bench.run_telling(instruction, None).unwrap();
            let times: Vec<i64> = ["d3", "d3/large", "d3/deep/er/link"]
                .map(|name| {
                    let path = ["", "opt/app", "x/y"].map(|above| bench.upper().join(above).join(name));
                    path.iter().find_map(|path| fs::symlink_metadata(path).ok()).unwrap().mtime()
                })
                .into();
            assert!(copied.layer.is_some(), "{instruction}");
            (bench.merged(), (copied.entries, copied.bytes, copied.warnings), times, copied.layer.map(|layer| (layer.size, layer.entries)))
        });
        assert_eq!(plain, packed, "{instruction}");
        assert_eq!(plain.2, [1234, 1234, 1234], "{instruction}");
    }
}

#[test]
fn an_archive_that_replaces_what_it_made_is_unpacked_in_its_order() {
    if !can_mount("an_archive_that_replaces_what_it_made_is_unpacked_in_its_order") {
        return;
    }
    case(&[], &[(F, "f", 0o644, 0, "1"), (F, "f", 0o600, 0, "2")], "ADD a.tar /", &["f 0600 0:0 /f 2"]);
    case(
        &[],
        &[(F, "f", 0o644, 0, "1"), (D, "f", 0o700, 0, ""), (F, "f/g", 0o644, 0, "G")],
        "ADD a.tar /",
        &["d 0700 0:0 /f", "f 0644 0:0 /f/g G"],
    );
    case(
        &[],
        &[(L, "l", 0o777, 0, "d"), (F, "l/f", 0o644, 0, "F")],
        "ADD a.tar /x/",
        &["d 0755 0:0 /x", "d 0755 0:0 /x/d", "f 0644 0:0 /x/d/f F", "l 0:0 /x/l d"],
    );
    case(
        &[],
        &[(D, "d", 0o700, 0, ""), (F, "d/f", 0o644, 0, "F"), (D, "d", 0o711, 1, "")],
        "ADD a.tar /",
        &["d 0711 1:1 /d", "f 0644 0:0 /d/f F"],
    );
}
