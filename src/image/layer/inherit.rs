//! Gives directories that a layer only implies the metadata of the layers below, once those are there.
//!
//! A layer is unpacked before the layers below it are known. A tar stream that holds `usr/bin/x` but not `usr/bin` leaves a directory whose owner, mode and
//! times are made up; in an overlay that directory would shadow the real one's.

use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid};

use crate::path::RootPath;
use crate::store::view::Marks;
use crate::sys::{Links, RootDir, xattr};

use super::lower::LowerLayers;
use super::{Error, is_overlay_attribute};

/// What became of the implied directories.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inherited {
    /// How many have a lower layer's metadata now.
    pub inherited: u64,
    /// Directories that stand where the layers below have a symbolic link, which they hide. An unpacker that sees the layers below would have followed it.
    pub over_links: Vec<RootPath>,
}

/// Gives each of the directories `implied` of the layer `target` the metadata of its counterpart in `lower` (topmost first). Call it with parents before
/// children, as [`super::apply()`] reports them.
pub fn inherit_directories(target: &Path, implied: &[RootPath], lower: &[PathBuf], marks: Marks) -> Result<Inherited, Error> {
    let mut out = Inherited::default();
    if implied.is_empty() || lower.is_empty() {
        return Ok(out);
    }
    let layers = LowerLayers::new(&lower.to_vec().into(), marks);
    let root = RootDir::open(target).map_err(|source| fail("open", &RootPath::root(), target, source))?;
    // Children first: copying changes no times, but a directory without permissions closes the way to its children.
    for path in implied.iter().rev() {
        let Some(found) = layers.find(path)? else { continue };
        match FileType::from_raw_mode(found.stat.st_mode) {
            FileType::Directory => {
                copy_metadata(&root, path, &layers, &found)?;
                out.inherited += 1;
            }
            FileType::Symlink => out.over_links.push(path.clone()),
            _ => {}
        }
    }
    out.over_links.reverse();
    Ok(out)
}

fn copy_metadata(root: &RootDir, path: &RootPath, layers: &LowerLayers, found: &super::lower::Found) -> Result<(), Error> {
    let failed = |action, source| fail(action, path, root.path(), source);
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW;
    let dir = root.open_at(path.relative(), flags, Mode::empty(), Links::Refuse).map_err(|source| failed("open", source))?;
    let this = Path::new(".");
    let (uid, gid) = (Uid::from_raw(found.stat.st_uid), Gid::from_raw(found.stat.st_gid));
    rustix::fs::chownat(&dir, this, Some(uid), Some(gid), AtFlags::empty()).map_err(|errno| failed("change the owner of", errno.into()))?;
    for name in layers.xattr_names(found.layer, path)? {
        if is_overlay_attribute(name.as_bytes()) {
            continue;
        }
        if let Some(value) = layers.xattr(found.layer, path, &name)? {
            // What the lower layer could have, this one can; if not, Docker would not mind either.
            let _ = xattr::set(dir.as_fd(), this, &name, &value);
        }
    }
    rustix::fs::chmodat(&dir, this, Mode::from_raw_mode(found.stat.st_mode & 0o7777), AtFlags::empty())
        .map_err(|errno| failed("change the mode of", errno.into()))?;
    let last_modification = Timespec { tv_sec: found.stat.st_mtime, tv_nsec: found.stat.st_mtime_nsec as i64 };
    let times = Timestamps { last_access: Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_OMIT }, last_modification };
    rustix::fs::utimensat(&dir, this, &times, AtFlags::empty()).map_err(|errno| failed("set the times of", errno.into()))
}

fn fail(action: &'static str, path: &RootPath, root: &Path, source: std::io::Error) -> Error {
    Error::Entry { action, path: path.clone(), root: root.to_owned(), source }
}
