//! Whole trees as one stream or one directory.

use std::ffi::OsString;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;

use super::*;
use crate::image::layer::{Copied, CopyOptions, Owners, copy_tree_to_dir, write_rootfs_tar};
use crate::path::RootPath;
use crate::sys::tree::{DirEntry, Kind, Metadata, Tree};
use crate::sys::{RootDir, xattr};

/// A host directory as a tree.
struct Plain(PathBuf);

impl Plain {
    fn host(&self, path: &RootPath) -> PathBuf {
        self.0.join(path.relative())
    }
}

fn kind(file_type: std::fs::FileType) -> Kind {
    match () {
        () if file_type.is_dir() => Kind::Directory,
        () if file_type.is_symlink() => Kind::Symlink,
        () if file_type.is_file() => Kind::File,
        () if file_type.is_fifo() => Kind::Fifo,
        () if file_type.is_char_device() => Kind::CharDevice,
        () if file_type.is_block_device() => Kind::BlockDevice,
        () => Kind::Socket,
    }
}

impl Tree for Plain {
    fn metadata(&self, path: &RootPath) -> std::io::Result<Option<Metadata>> {
        let metadata = self.host(path).symlink_metadata()?;
        Ok(Some(Metadata {
            kind: kind(metadata.file_type()),
            mode: metadata.mode() & 0o7777,
            uid: metadata.uid(),
            gid: metadata.gid(),
            size: metadata.size(),
            mtime: (metadata.mtime(), metadata.mtime_nsec() as u32),
            ctime: (metadata.ctime(), metadata.ctime_nsec() as u32),
            rdev: (rustix::fs::major(metadata.rdev()), rustix::fs::minor(metadata.rdev())),
            dev: metadata.dev(),
            ino: metadata.ino(),
            nlink: metadata.nlink(),
        }))
    }

    fn read_dir(&self, path: &RootPath) -> std::io::Result<Vec<DirEntry>> {
        let entries = std::fs::read_dir(self.host(path))?;
        let mut out: Vec<DirEntry> = entries
            .map(|entry| {
                let entry = entry.unwrap();
                DirEntry { name: entry.file_name(), kind: kind(entry.file_type().unwrap()) }
            })
            .collect();
        out.sort();
        Ok(out)
    }

    fn read_link(&self, path: &RootPath) -> std::io::Result<OsString> {
        Ok(std::fs::read_link(self.host(path))?.into_os_string())
    }

    fn open(&self, path: &RootPath) -> std::io::Result<std::fs::File> {
        std::fs::File::open(self.host(path))
    }

    fn xattrs(&self, path: &RootPath) -> std::io::Result<Vec<(OsString, Vec<u8>)>> {
        let root = RootDir::open(&self.0)?;
        let mut out = Vec::new();
        for name in xattr::list(root.as_fd(), path.relative())? {
            let value = xattr::get(root.as_fd(), path.relative(), &name)?.unwrap();
            out.push((name, value));
        }
        out.sort();
        Ok(out)
    }
}

fn filled(temp: &Path) -> PathBuf {
    let tree = temp.join("tree");
    std::fs::create_dir(&tree).unwrap();
    fill(&tree);
    std::fs::remove_file(tree.join("deep/gone")).unwrap();
    rustix::fs::lremovexattr(tree.join("opaque"), "trusted.overlay.opaque").unwrap();
    tree
}

#[test]
fn a_tree_and_a_layer_of_the_same_files_give_the_same_stream() {
    if !is_root() {
        return;
    }
    let temp = tempfile::tempdir().unwrap();
    let tree = filled(temp.path());
    let mut out = Vec::new();
    let rootfs = write_rootfs_tar(&Plain(tree.clone()), &mut out, None).unwrap();
    assert!(out == written(&tree, &[]));
    assert_eq!(rootfs.diff_id.digest(), &crate::oci::Digest::sha256(&out));
    assert_eq!((rootfs.size, rootfs.entries), (out.len() as u64, describe(&tree).len() as u64));
}

#[test]
fn a_directory_that_keeps_owners_equals_the_tree() {
    if !is_root() {
        return;
    }
    let temp = tempfile::tempdir().unwrap();
    let tree = filled(temp.path());
    let out = temp.path().join("out");
    std::fs::create_dir(&out).unwrap();
    let options = CopyOptions { owners: Owners::Keep, ..CopyOptions::default() };
    copy_tree_to_dir(&Plain(tree.clone()), &out, &options).unwrap();
    assert_eq!(describe(&out), describe(&tree));
}

#[test]
fn a_directory_belongs_to_the_caller_and_keeps_modes_but_no_capabilities() {
    if !is_root() {
        return;
    }
    let temp = tempfile::tempdir().unwrap();
    let tree = filled(temp.path());
    let out = temp.path().join("out");
    std::fs::create_dir(&out).unwrap();
    let copied = copy_tree_to_dir(&Plain(tree), &out, &CopyOptions::default()).unwrap();
    assert_eq!(copied.skipped, [RootPath::new("/disk"), RootPath::new("/null")]);
    let tool = out.join("bin/tool").metadata().unwrap();
    assert_eq!((tool.uid(), tool.gid(), tool.mode() & 0o7777), (0, 0, 0o4755));
    assert_eq!((tool.mtime(), tool.mtime_nsec()), (1_234_567_890, 987_654_321));
    assert!(!describe(&out)[Path::new("bin/tool")].contains("capability"));
}

#[test]
fn what_was_in_the_directory_stays_or_is_replaced_but_links_are_not_followed_out() {
    let temp = tempfile::tempdir().unwrap();
    let (tree, out, outside) = (temp.path().join("tree"), temp.path().join("out"), temp.path().join("outside"));
    for dir in [&tree.join("a"), &tree.join("b"), &out.join("a"), &outside] {
        std::fs::create_dir_all(dir).unwrap();
    }
    for (path, text) in [(tree.join("a/f"), "new"), (tree.join("b/g"), "new"), (tree.join("h"), "new"), (outside.join("g"), "mine")] {
        std::fs::write(path, text).unwrap();
    }
    std::fs::write(out.join("a/f"), "a longer old text").unwrap();
    std::fs::write(out.join("a/kept"), "old").unwrap();
    std::os::unix::fs::symlink(&outside, out.join("b")).unwrap();
    std::os::unix::fs::symlink(outside.join("g"), out.join("h")).unwrap();
    set_time(&out, 4444, 0);
    let before = out.metadata().unwrap().mode();
    let copied = copy_tree_to_dir(&Plain(tree), &out, &CopyOptions::default()).unwrap();
    assert_eq!(copied, Copied { entries: 5, bytes: 9, skipped: Vec::new() });
    let read = |path: &str| std::fs::read_to_string(out.join(path)).unwrap();
    assert_eq!([read("a/f"), read("a/kept"), read("b/g"), read("h")], ["new", "old", "new", "new"]);
    assert_eq!(std::fs::read_to_string(outside.join("g")).unwrap(), "mine");
    assert_eq!(out.metadata().unwrap().mode(), before);
}
