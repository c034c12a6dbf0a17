//! Tests of layers from outside: trees in, bytes out, and back.

mod applying;
mod blobs;
mod flattening;
mod hostile;
mod interop;
mod overlay;
mod writing;

use std::collections::BTreeMap;
use std::fs::Metadata;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, Timespec, Timestamps, UTIME_OMIT, Uid};
use tar::{EntryType, Header};

use super::{Applied, ApplyOptions, Error, LayerOptions, apply, write_layer};
use crate::store::view::{GrowingStack, Marks};

/// Whether the test can run; prints why where it cannot.
#[track_caller]
pub(crate) fn is_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        eprintln!("skipped: owners, devices and trusted attributes need root");
    }
    root
}

/// A tar stream made by hand, entry by entry, with whatever nonsense a test wants.
#[derive(Default)]
struct Stream(Vec<u8>);

impl Stream {
    fn header(name: &str, kind: EntryType, size: usize) -> Header {
        let mut header = Header::new_ustar();
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_entry_type(kind);
        header.set_mode(if kind == EntryType::Directory { 0o755 } else { 0o644 });
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1_000_000_000);
        header.set_size(size as u64);
        header.set_cksum();
        header
    }

    fn raw(mut self, header: &Header, data: &[u8]) -> Stream {
        self.0.extend_from_slice(header.as_bytes());
        self.0.extend_from_slice(data);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    fn file(self, name: &str, data: &str) -> Stream {
        self.raw(&Stream::header(name, EntryType::Regular, data.len()), data.as_bytes())
    }

    fn directory(self, name: &str) -> Stream {
        self.raw(&Stream::header(name, EntryType::Directory, 0), b"")
    }

    fn link(self, kind: EntryType, name: &str, to: &str) -> Stream {
        let mut header = Stream::header(name, kind, 0);
        header.as_old_mut().linkname[..to.len()].copy_from_slice(to.as_bytes());
        header.set_cksum();
        self.raw(&header, b"")
    }

    fn symlink(self, name: &str, to: &str) -> Stream {
        self.link(EntryType::Symlink, name, to)
    }

    fn hard_link(self, name: &str, to: &str) -> Stream {
        self.link(EntryType::Link, name, to)
    }

    fn pax(self, records: &[(&str, &[u8])]) -> Stream {
        let mut body = Vec::new();
        for (key, value) in records {
            let rest = key.len() + value.len() + 3;
            let length = (rest + 1..rest + 9).find(|length| rest + length.to_string().len() == *length).unwrap();
            body.extend_from_slice(format!("{length} {key}=").as_bytes());
            body.extend_from_slice(value);
            body.push(b'\n');
        }
        self.raw(&Stream::header("pax", EntryType::XHeader, body.len()), &body)
    }

    fn end(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 1024, 0);
        self.0
    }
}

/// Unpacks `stream` below a fresh directory, which has a file beside the target to be hit by mistake.
fn unpack(stream: &[u8]) -> (tempfile::TempDir, PathBuf, Result<Applied, Error>) {
    let temp = tempfile::tempdir().unwrap();
    let target = temp.path().join("layer");
    std::fs::create_dir(&target).unwrap();
    std::fs::create_dir(temp.path().join("outside")).unwrap();
    std::fs::write(temp.path().join("outside/victim"), "untouched").unwrap();
    let applied = apply(stream, &target, &ApplyOptions::default());
    (temp, target, applied)
}

/// The tar stream of a layer's directory.
fn written(layer: &Path, lower: &[&Path]) -> Vec<u8> {
    let mut out = Vec::new();
    let lower: Vec<PathBuf> = lower.iter().map(|path| path.to_path_buf()).collect();
    write_layer(layer, &lower.clone().into(), &mut out, &LayerOptions::default()).unwrap();
    // Whether layers are listed is only a matter of speed.
    for listed in [0, 1] {
        let mut again = Vec::new();
        let stack = GrowingStack::partly_listed(&lower, &[], |at| at % 2 == listed);
        write_layer(layer, &stack, &mut again, &LayerOptions::default()).unwrap();
        assert_eq!(again, out);
    }
    out
}

/// The names in a tar stream, in order.
fn names(stream: &[u8]) -> Vec<String> {
    let mut archive = tar::Archive::new(stream);
    archive.entries().unwrap().map(|entry| String::from_utf8_lossy(&entry.unwrap().path_bytes()).into_owned()).collect()
}

/// Everything that can be seen of a tree, a line for each path. Times are whole seconds, as in layers.
fn describe(root: &Path) -> BTreeMap<PathBuf, String> {
    let mut out = BTreeMap::new();
    let mut inodes = BTreeMap::new();
    for entry in walkdir::WalkDir::new(root).sort_by_file_name().min_depth(1) {
        let entry = entry.unwrap();
        let metadata = entry.path().symlink_metadata().unwrap();
        let path = entry.path().strip_prefix(root).unwrap().to_owned();
        let first = inodes.entry(metadata.ino()).or_insert_with(|| path.clone()).clone();
        let line = describe_entry(entry.path(), &metadata);
        out.insert(path, if metadata.is_dir() { line } else { format!("{line} first={}", first.display()) });
    }
    out
}

fn describe_entry(path: &Path, metadata: &Metadata) -> String {
    let kind = metadata.file_type();
    let what = if kind.is_dir() {
        "dir".to_owned()
    } else if kind.is_symlink() {
        format!("link {:?}", std::fs::read_link(path).unwrap())
    } else if kind.is_file() {
        format!("file {} {}", metadata.size(), crate::oci::Digest::sha256(&std::fs::read(path).unwrap()).short())
    } else if kind.is_fifo() {
        "fifo".to_owned()
    } else {
        format!("device {} {:x}", if kind.is_char_device() { "char" } else { "block" }, metadata.rdev())
    };
    let mut xattrs = Vec::new();
    let dir = crate::sys::RootDir::open(path.parent().unwrap()).unwrap();
    let name = Path::new(path.file_name().unwrap());
    use std::os::fd::AsFd;
    for key in crate::sys::xattr::list(dir.as_fd(), name).unwrap() {
        xattrs.push((key.clone(), crate::sys::xattr::get(dir.as_fd(), name, &key).unwrap()));
    }
    xattrs.sort();
    // A whiteout's owner, mode and time mean nothing.
    if kind.is_char_device() && metadata.rdev() == 0 {
        return "whiteout".to_owned();
    }
    format!("{what} {:o} {}:{} {} {xattrs:?}", metadata.mode() & 0o7777, metadata.uid(), metadata.gid(), metadata.mtime())
}

fn set_time(path: &Path, seconds: i64, nanoseconds: i64) {
    let times = Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec { tv_sec: seconds, tv_nsec: nanoseconds },
    };
    rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

fn set_owner(path: &Path, uid: u32, gid: u32) {
    rustix::fs::chownat(CWD, path, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)), AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

fn set_mode(path: &Path, mode: u32) {
    rustix::fs::chmodat(CWD, path, Mode::from_raw_mode(mode), AtFlags::empty()).unwrap();
}

fn set_xattr(path: &Path, name: &str, value: &[u8]) {
    rustix::fs::lsetxattr(path, name, value, rustix::fs::XattrFlags::empty()).unwrap();
}

fn make_whiteout(path: &Path) {
    rustix::fs::mknodat(CWD, path, FileType::CharacterDevice, Mode::empty(), 0).unwrap();
}

/// A tree with one of everything that a layer can hold.
fn fill(root: &Path) {
    let at = |name: &str| root.join(name);
    for dir in ["bin", "empty", "deep/er", "opaque"] {
        std::fs::create_dir_all(at(dir)).unwrap();
    }
    std::fs::write(at("bin/tool"), "#!/bin/sh\n").unwrap();
    std::fs::write(at("big"), vec![b'x'; 3_000_001]).unwrap();
    std::fs::write(at("nothing"), "").unwrap();
    std::fs::hard_link(at("big"), at("deep/er/same")).unwrap();
    std::os::unix::fs::symlink("../bin/tool", at("deep/link")).unwrap();
    let long = "n".repeat(255);
    std::fs::create_dir_all(at("long").join(&long)).unwrap();
    std::fs::write(at("long").join(&long).join(&long), "long").unwrap();
    std::os::unix::fs::symlink("t".repeat(3000), at("long/link")).unwrap();
    use std::os::unix::ffi::OsStrExt;
    std::fs::write(root.join(std::ffi::OsStr::from_bytes(b"latin-\xe9")), "é").unwrap();
    rustix::fs::mknodat(CWD, at("fifo"), FileType::Fifo, Mode::from_raw_mode(0o640), 0).unwrap();
    rustix::fs::mknodat(CWD, at("null"), FileType::CharacterDevice, Mode::from_raw_mode(0o666), rustix::fs::makedev(1, 3)).unwrap();
    rustix::fs::mknodat(CWD, at("disk"), FileType::BlockDevice, Mode::from_raw_mode(0o660), rustix::fs::makedev(8, 17)).unwrap();
    for entry in walkdir::WalkDir::new(root) {
        let entry = entry.unwrap();
        if entry.file_type().is_dir() || entry.file_type().is_file() {
            set_mode(entry.path(), if entry.file_type().is_dir() { 0o755 } else { 0o644 });
        }
    }
    for (name, mode) in [("fifo", 0o640), ("null", 0o666), ("disk", 0o660)] {
        set_mode(&at(name), mode);
    }
    set_owner(&at("bin/tool"), 1000, 3_000_000);
    set_owner(&at("deep/link"), 12, 34);
    set_mode(&at("bin/tool"), 0o4755);
    set_mode(&at("empty"), 0o1777);
    set_mode(&at("deep"), 0o2750);
    set_xattr(&at("bin/tool"), "security.capability", &[1, 0, 0, 2, 0, 4, 10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    set_xattr(&at("big"), "user.note", b"line\nline\0end");
    set_xattr(&at("deep"), "user.dir", b"");
    make_whiteout(&at("deep/gone"));
    set_xattr(&at("opaque"), "trusted.overlay.opaque", b"y");
    for entry in walkdir::WalkDir::new(root).contents_first(true) {
        set_time(entry.unwrap().path(), 1_234_567_890, 987_654_321);
    }
    set_time(&at("nothing"), -5, 0);
}
