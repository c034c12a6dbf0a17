//! Root file systems where the kernel mounts no overlays: all files of a stack of layers, copied into one directory; and afterwards what somebody changed there,
//! as a layer in overlay form.
//!
//! What was copied is remembered by inode number and time of change ([`Record`]): the kernel sets that time whenever a file, its metadata or its names change, and nobody can
//! set it back. So no file is read to find out that it is as it was. The kernel's clock for this goes in steps of some milliseconds, which [`CopiedRoot::settle`]
//! waits for.
//!
//! The layer that results is what an overlay would have got: changed files whole, deletions as marks, directories that took another's place hiding it. Names that
//! share a file below part when it changes, as they do in an overlay. One thing differs: writing to such a file through one of its names changes the others.
//!
//! Trees of images are walked by descriptor, one name at a time, and no link is followed.

mod changes;
mod entry;
mod lay;
mod linked;
mod overlook;
mod record;
mod stubs;

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::view::Marks;
use super::{Error, SnapshotId, Store};
use crate::path::RootPath;
pub use overlook::Watched;
use record::Record;

/// The error that `path` of the tree `root` cannot be had.
fn failed(action: &'static str, root: &Path, path: &RootPath) -> impl FnOnce(std::io::Error) -> Error + use<> {
    let path = root.join(path.relative());
    move |source| Error::Io { action, path, source }
}

/// How long the kernel's clock is waited for. No file system of this machine is coarser; one on a server may be.
const LONGEST_STEP: Duration = Duration::from_secs(2);

/// A directory with all files of a stack of layers.
#[derive(Debug)]
pub struct CopiedRoot {
    path: PathBuf,
    marks: Marks,
    record: Record,
}

impl Store {
    /// Copies a stack of committed snapshots (bottom first) into the empty directory `target`.
    ///
    /// # Errors
    /// What cannot be read or written. Then `target` has part of it.
    pub fn copy_root(&self, snapshots: &[SnapshotId], target: &Path) -> Result<CopiedRoot, Error> {
        let mut root = CopiedRoot { path: target.to_owned(), marks: self.marks(), record: Record::default() };
        self.add_layers(&mut root, snapshots)?;
        Ok(root)
    }

    /// Puts further snapshots on top of those that were copied.
    ///
    /// # Errors
    /// As [`Store::copy_root`].
    pub fn add_layers(&self, root: &mut CopiedRoot, snapshots: &[SnapshotId]) -> Result<(), Error> {
        let mut absent = std::mem::take(&mut root.record.absent);
        for id in snapshots {
            absent.extend(lay::lay(&self.snapshot_path(*id), &root.path, root.marks)?);
        }
        root.record = Record::of(&root.path)?;
        root.record.absent = absent;
        Ok(())
    }
}

impl CopiedRoot {
    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Puts a layer on top that counts as changes: what a command is to find there, and to leave there.
    ///
    /// # Errors
    /// What cannot be read or written.
    pub fn put(&mut self, layer: &Path) -> Result<(), Error> {
        lay::lay(layer, &self.path, self.marks).map(drop)
    }

    /// Makes sure that any change from now on can be told from what is there.
    ///
    /// # Errors
    /// No file can be made beside the directory.
    pub fn settle(&self) -> Result<(), Error> {
        let path = self.path.with_extension("clock");
        let failed = || Error::io("create", &path);
        let begun = Instant::now();
        loop {
            let file = File::create(&path).map_err(failed())?;
            let metadata = file.metadata().map_err(failed())?;
            std::fs::remove_file(&path).map_err(failed())?;
            if (metadata.ctime(), metadata.ctime_nsec()) > self.record.latest() || begun.elapsed() > LONGEST_STEP {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Writes to `path` what is needed to open it again.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn save(&self, path: &Path) -> Result<(), Error> {
        std::fs::write(path, self.record.to_bytes()).map_err(Error::io("write", path))
    }

    /// Opens the directory `root` again, which was saved as `saved` in the store `store`.
    ///
    /// # Errors
    /// The file cannot be read, or is none of these.
    pub fn open(store: &Store, root: &Path, saved: &Path) -> Result<CopiedRoot, Error> {
        let bytes = std::fs::read(saved).map_err(Error::io("read", saved))?;
        let bad = || Error::io("read", saved)(std::io::Error::from(std::io::ErrorKind::InvalidData));
        Ok(CopiedRoot { path: root.to_owned(), marks: store.marks(), record: Record::from_bytes(&bytes).ok_or_else(bad)? })
    }
}
