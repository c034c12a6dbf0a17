//! For tests: trees written down as text, and real overlay mounts to compare with.
//!
//! One entry a line: `d MODE PATH`, `f MODE PATH CONTENT`, `l PATH TARGET`, `h PATH OTHER`, `p MODE PATH` (pipe), `c MODE PATH MAJOR MINOR`, `w PATH` (whiteout),
//! `o PATH` (makes a directory opaque), `u UID:GID PATH`, `m MODE PATH`, `t SECONDS PATH`, `x NAME=VALUE PATH`. [`listing`] tells the same of what is on disk.

use std::collections::HashMap;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

/// Whether this is root; says so if not.
pub(crate) fn can_mount(test: &str) -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        eprintln!("{test} is skipped: it mounts overlays and makes devices, which needs root");
    }
    root
}

/// Makes the entries of `text` below `root`. Parents are made as needed, 0755.
#[track_caller]
pub(crate) fn plant(root: &Path, text: &str) {
    fs::create_dir_all(root).unwrap();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let at = |index: usize| root.join(words[index].trim_start_matches('/'));
        let mode = || u32::from_str_radix(words[1], 8).unwrap();
        let above = |path: PathBuf| {
            if !path.parent().unwrap().is_dir() {
                fs::DirBuilder::new().recursive(true).mode(0o755).create(path.parent().unwrap()).unwrap();
            }
            path
        };
        let set_mode = |path: &Path, mode: u32| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        match words[0] {
            "d" => {
                fs::create_dir_all(above(at(2))).unwrap();
                set_mode(&at(2), mode());
            }
            "f" => {
                fs::write(above(at(2)), words[3..].join(" ")).unwrap();
                set_mode(&at(2), mode());
            }
            "l" => symlink(words[2], above(at(1))).unwrap(),
            "h" => fs::hard_link(at(2), above(at(1))).unwrap(),
            "p" => make_node(&above(at(2)), FileType::Fifo, mode(), (0, 0)),
            "c" => make_node(&above(at(2)), FileType::CharacterDevice, mode(), (words[3].parse().unwrap(), words[4].parse().unwrap())),
            "w" => make_node(&above(at(1)), FileType::CharacterDevice, 0, (0, 0)),
            "o" => rustix::fs::setxattr(at(1), "trusted.overlay.opaque", b"y", rustix::fs::XattrFlags::empty()).unwrap(),
            "u" => {
                let (uid, gid) = words[1].split_once(':').unwrap();
                std::os::unix::fs::lchown(at(2), Some(uid.parse().unwrap()), Some(gid.parse().unwrap())).unwrap();
            }
            "m" => set_mode(&at(2), mode()),
            "t" => touch(&at(2), words[1].parse().unwrap()),
            "x" => {
                let (name, value) = words[1].split_once('=').unwrap();
                rustix::fs::lsetxattr(at(2), name, value.as_bytes(), rustix::fs::XattrFlags::empty()).unwrap();
            }
            other => panic!("no such entry: {other}"),
        }
    }
}

fn make_node(path: &Path, file_type: FileType, mode: u32, rdev: (u32, u32)) {
    let device = rustix::fs::makedev(rdev.0, rdev.1);
    rustix::fs::mknodat(rustix::fs::CWD, path, file_type, Mode::from_raw_mode(mode), device).unwrap();
    // Without what this process's mask takes away.
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// Sets the time of last modification.
pub(crate) fn touch(path: &Path, seconds: i64) {
    let time = rustix::fs::Timespec { tv_sec: seconds, tv_nsec: 123 };
    let times = rustix::fs::Timestamps { last_access: time, last_modification: time };
    rustix::fs::utimensat(rustix::fs::CWD, path, &times, rustix::fs::AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

/// The entries below `root`, sorted by path: kind, mode, owner, path and content. Later names of a file say which one was first.
pub(crate) fn listing(root: &Path) -> Vec<String> {
    let mut out = Vec::new();
    let mut first: HashMap<(u64, u64), String> = HashMap::new();
    let mut todo = vec![root.to_owned()];
    let mut paths = Vec::new();
    while let Some(directory) = todo.pop() {
        for entry in fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            if path.symlink_metadata().is_ok_and(|metadata| metadata.is_dir()) {
                todo.push(path.clone());
            }
            paths.push(path);
        }
    }
    paths.sort();
    for path in paths {
        // A directory that is not merged shows its whiteouts, but they cannot be looked up.
        let Ok(metadata) = path.symlink_metadata() else { continue };
        let name = format!("/{}", path.strip_prefix(root).unwrap().display());
        let kind = metadata.file_type();
        let head = format!("{:04o} {}:{} {name}", metadata.mode() & 0o7777, metadata.uid(), metadata.gid());
        let line = if kind.is_dir() {
            format!("d {head}")
        } else if let Some(other) = first.get(&(metadata.dev(), metadata.ino())).filter(|_| metadata.nlink() > 1) {
            format!("h {name} {other}")
        } else if kind.is_symlink() {
            format!(
                "l {}:{} {name} {}",
                metadata.uid(),
                metadata.gid(),
                String::from_utf8_lossy(fs::read_link(&path).unwrap().as_os_str().as_bytes())
            )
        } else if kind.is_fifo() {
            format!("p {head}")
        } else if kind.is_char_device() {
            format!("c {head} {} {}", rustix::fs::major(metadata.rdev()), rustix::fs::minor(metadata.rdev()))
        } else {
            format!("f {head} {}", fs::read_to_string(&path).unwrap()).trim_end().to_owned()
        };
        if !kind.is_dir() {
            first.insert((metadata.dev(), metadata.ino()), name);
        }
        out.push(line);
    }
    out
}

/// A read-only overlay made by the kernel.
pub(crate) struct Overlay {
    directory: tempfile::TempDir,
}

impl Overlay {
    /// Mounts layers, topmost first.
    #[track_caller]
    pub(crate) fn mount(layers: &[PathBuf]) -> Overlay {
        let directory = tempfile::tempdir().unwrap();
        // The kernel wants two layers at least.
        fs::create_dir(directory.path().join("nothing")).unwrap();
        fs::create_dir(directory.path().join("merged")).unwrap();
        let mut lower: Vec<String> = layers.iter().map(|layer| layer.display().to_string()).collect();
        lower.push(directory.path().join("nothing").display().to_string());
        let options = std::ffi::CString::new(format!("lowerdir={},redirect_dir=off,metacopy=off", lower.join(":"))).unwrap();
        mount("overlay", directory.path().join("merged"), "overlay", MountFlags::RDONLY, options.as_c_str()).unwrap();
        Overlay { directory }
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.directory.path().join("merged")
    }
}

impl Drop for Overlay {
    fn drop(&mut self) {
        unmount(self.root(), UnmountFlags::DETACH).unwrap();
    }
}
