//! Contexts through a pipe: what is told apart, what is kept of an archive, and what an archive cannot do.

use std::fs;
use std::io::{Cursor, Read, Write};
use std::path::Path;

use super::*;
use crate::path::RootPath;
use crate::sys::tree::{Kind, Tree};

/// An entry whose name is written as it is, however hostile.
fn header(name: &str, kind: tar::EntryType, size: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
    header.set_entry_type(kind);
    header.set_size(size);
    header.set_mode(0o644);
    header.set_uid(7);
    header.set_gid(8);
    header.set_mtime(1_000_000);
    header.set_cksum();
    header
}

fn link(name: &str, kind: tar::EntryType, target: &str) -> tar::Header {
    let mut header = header(name, kind, 0);
    header.as_old_mut().linkname[..target.len()].copy_from_slice(target.as_bytes());
    header.set_cksum();
    header
}

fn archive(entries: &[(tar::Header, &str)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (header, content) in entries {
        builder.append(header, content.as_bytes()).unwrap();
    }
    builder.into_inner().unwrap()
}

fn file(name: &str, content: &'static str) -> (tar::Header, &'static str) {
    (header(name, tar::EntryType::Regular, content.len() as u64), content)
}

fn sniff(bytes: &[u8]) -> Result<StdinInput, Error> {
    sniff_stdin(Cursor::new(bytes.to_vec()))
}

#[track_caller]
fn unpack(bytes: &[u8], dir: &Path) -> Result<LocalContext, Error> {
    match sniff(bytes).unwrap() {
        StdinInput::Archive(archive) => archive.into_context(dir),
        StdinInput::Dockerfile(text) => panic!("taken for a Dockerfile: {text:?}"),
    }
}

fn text(context: &LocalContext, path: &str) -> String {
    let mut text = String::new();
    context.open(&RootPath::new(path)).unwrap().read_to_string(&mut text).unwrap();
    text
}

#[test]
fn text_is_a_dockerfile() {
    let long = format!("FROM scratch\n{}", "# comment\n".repeat(1000));
    for dockerfile in ["F", "FROM scratch\n", &long] {
        match sniff(dockerfile.as_bytes()).unwrap() {
            StdinInput::Dockerfile(text) => assert_eq!(text, dockerfile),
            other => panic!("{other:?}"),
        }
    }
    assert!(matches!(sniff(b""), Err(Error::EmptyStdin)));
    assert!(matches!(sniff(b"FROM \xff"), Err(Error::NotText { offset: 5 })));
}

#[test]
fn archives_are_recognised_through_each_compression() {
    let plain = archive(&[file("Dockerfile", "FROM scratch"), file("src/a", "content")]);
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&plain).unwrap();
    let mut bzip2 = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
    bzip2.write_all(&plain).unwrap();
    let mut xz = liblzma::write::XzEncoder::new(Vec::new(), 1);
    xz.write_all(&plain).unwrap();
    let zstd = zstd::encode_all(&plain[..], 1).unwrap();
    for bytes in [plain, gzip.finish().unwrap(), bzip2.finish().unwrap(), xz.finish().unwrap(), zstd] {
        let dir = tempfile::tempdir().unwrap();
        let context = unpack(&bytes, dir.path()).unwrap();
        assert_eq!(text(&context, "/src/a"), "content");
        assert_eq!(text(&context, "/Dockerfile"), "FROM scratch");
    }
}

#[test]
fn an_empty_archive_is_an_empty_context() {
    let dir = tempfile::tempdir().unwrap();
    let context = unpack(&archive(&[]), dir.path()).unwrap();
    assert_eq!(context.read_dir(&RootPath::root()).unwrap(), []);
}

#[test]
fn owners_modes_and_times_are_those_of_the_archive() {
    let dir = tempfile::tempdir().unwrap();
    let secret = header("secret", tar::EntryType::Regular, 1);
    let mut setuid = header("setuid", tar::EntryType::Regular, 0);
    setuid.set_mode(0o4000);
    setuid.set_cksum();
    let mut closed = header("closed/", tar::EntryType::Directory, 0);
    closed.set_mode(0o111);
    closed.set_cksum();
    // Of a hard link, the last header counts for all names.
    let mut hard = link("hard", tar::EntryType::Link, "secret");
    hard.set_mode(0o640);
    hard.set_uid(9);
    hard.set_mtime(2_000_000);
    hard.set_cksum();
    let bytes = archive(&[
        (secret, "x"),
        (closed, ""),
        file("closed/in", "y"),
        file("made/on/the/way", "z"),
        (link("link", tar::EntryType::Symlink, "secret"), ""),
        (setuid, ""),
        (hard, ""),
    ]);
    let context = unpack(&bytes, dir.path()).unwrap();
    let of = |path: &str| context.metadata(&RootPath::new(path)).unwrap().unwrap();
    let (file, directory) = (Kind::File, Kind::Directory);
    let last = (0o640, 9, 2_000_000);
    for (path, kind, (mode, uid, mtime)) in [
        ("/secret", file, last),
        ("/hard", file, last),
        ("/setuid", file, (0o4000, 7, 1_000_000)),
        ("/closed", directory, (0o111, 7, 1_000_000)),
    ] {
        let found = of(path);
        assert_eq!((found.kind, found.mode, found.uid, found.gid, found.mtime), (kind, mode, uid, 8, (mtime, 0)), "{path}");
    }
    assert_eq!((of("/made/on").mode, of("/made/on").uid), (0o755, 0));
    assert_eq!((of("/link").kind, of("/link").uid, of("/link").mtime.0), (Kind::Symlink, 7, 1_000_000));
    assert_eq!(text(&context, "/secret"), "x");
    assert_eq!(text(&context, "/closed/in"), "y");
}

#[test]
fn attributes_of_the_archive_are_kept() {
    let dir = tempfile::tempdir().unwrap();
    let mut builder = tar::Builder::new(Vec::new());
    builder.append_pax_extensions([("SCHILY.xattr.security.capability", &b"\x01\x00caps"[..])]).unwrap();
    let (header, content) = file("tool", "x");
    builder.append(&header, content.as_bytes()).unwrap();
    let context = unpack(&builder.into_inner().unwrap(), dir.path()).unwrap();
    assert_eq!(context.xattrs(&RootPath::new("/tool")).unwrap(), [("security.capability".into(), b"\x01\x00caps".to_vec())]);
}

#[test]
fn an_ignore_file_in_an_archive_hides_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let context = unpack(&archive(&[file(".dockerignore", "*"), file("a", "x")]), dir.path()).unwrap();
    assert_eq!(context.read_dir(&RootPath::root()).unwrap().len(), 2);
}

#[test]
fn later_entries_replace_earlier_ones() {
    let dir = tempfile::tempdir().unwrap();
    let bytes = archive(&[
        file("a", "first"),
        file("a", "second"),
        (link("b", tar::EntryType::Symlink, "a"), ""),
        file("b", "not through the link"),
        file("c", "file"),
        (header("c/", tar::EntryType::Directory, 0), ""),
        file("c/in", "x"),
    ]);
    let context = unpack(&bytes, dir.path()).unwrap();
    assert_eq!(text(&context, "/a"), "second");
    assert_eq!(text(&context, "/b"), "not through the link");
    assert_eq!(text(&context, "/c/in"), "x");
}

#[test]
fn nothing_gets_out_of_the_directory() {
    let outer = tempfile::tempdir().unwrap();
    fs::write(outer.path().join("victim"), "unharmed").unwrap();
    let absolute = outer.path().join("victim");
    let absolute = absolute.to_str().unwrap();
    let outer_name = outer.path().to_str().unwrap();
    let cases = [
        vec![file("../victim", "bad")],
        vec![file(absolute, "bad")],
        vec![(link("x", tar::EntryType::Symlink, ".."), ""), file("x/victim", "bad")],
        vec![(link("x", tar::EntryType::Symlink, outer_name), ""), file("x/victim", "bad")],
        vec![(link("x", tar::EntryType::Symlink, absolute), ""), file("x", "bad")],
        vec![(link("x", tar::EntryType::Link, "../victim"), ""), file("x", "bad")],
        vec![(link("x", tar::EntryType::Link, absolute), ""), file("x", "bad")],
        vec![(link("x", tar::EntryType::Symlink, "../victim"), ""), (link("y", tar::EntryType::Link, "x"), ""), file("y", "bad")],
        vec![(link("x", tar::EntryType::Symlink, outer_name), ""), (header("x/", tar::EntryType::Directory, 0), "")],
    ];
    for (number, entries) in cases.iter().enumerate() {
        let dir = outer.path().join(format!("target{number}"));
        fs::create_dir(&dir).unwrap();
        // Whether it is refused or stays inside makes no difference here.
        let _ = unpack(&archive(entries), &dir);
        assert_eq!(fs::read_to_string(outer.path().join("victim")).unwrap(), "unharmed", "case {number}");
        assert_eq!(fs::metadata(outer.path().join("victim")).map(|found| std::os::unix::fs::MetadataExt::nlink(&found)).unwrap(), 1);
    }
}

#[test]
fn devices_and_broken_archives_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let error = unpack(&archive(&[(header("dev", tar::EntryType::Char, 0), "")]), dir.path()).unwrap_err();
    assert!(matches!(error, Error::UnsupportedEntry { kind: '3', .. }), "{error}");
    let mut cut = archive(&[file("a", "x"), file("b", "y")]);
    cut.truncate(1024 + 100);
    let error = unpack(&cut, dir.path()).unwrap_err();
    assert!(matches!(error, Error::ReadArchive { entries: 1, .. }), "{error}");
    let error = unpack(b"\x1f\x8b\x08 this is not gzip", dir.path()).unwrap_err();
    assert!(matches!(error, Error::ReadArchive { entries: 0, .. }), "{error}");
}

#[test]
fn a_global_header_is_no_file() {
    let dir = tempfile::tempdir().unwrap();
    let comment = "14 comment=ab\n";
    let global = header("pax_global_header", tar::EntryType::XGlobalHeader, comment.len() as u64);
    let context = unpack(&archive(&[(global, comment), file("a", "x")]), dir.path()).unwrap();
    assert_eq!(context.read_dir(&RootPath::root()).unwrap().len(), 1);
}
