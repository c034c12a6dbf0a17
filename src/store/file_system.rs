//! What the file system that the store is on can keep, and what the kernel was found to do with it. Found out by trying, once for each place.

use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::Store;
use super::layout::random_name;
use super::view::Marks;
use crate::sys::RootDir;

/// The number of FUSE in statfs(2).
const FUSE: i64 = 0x6573_5546;

impl Store {
    /// The marks of this store, where those of overlayfs would be `native`.
    ///
    /// A store keeps to portable ones once it has some, wherever it is moved, since the kernel does not understand them. What cannot be found out is taken for
    /// the best: then making a mark fails, and says why.
    pub(super) fn find_marks(&self, native: Marks) -> Marks {
        let path = self.layout().marks();
        let known = fs::read_to_string(&path).unwrap_or_default();
        let (what, place) = known.trim().split_once(' ').unwrap_or_default();
        if what == "portable" {
            return Marks::Portable;
        }
        let snapshots = self.layout().snapshots();
        let Ok(here) = fs::metadata(&snapshots).map(|metadata| metadata.dev().to_string()) else { return native };
        if place == here || self.is_read_only() {
            return native;
        }
        // Not among the snapshots, where somebody may be clearing up.
        let (Ok(directory), Ok(name)) = (RootDir::open(self.root()), random_name()) else { return native };
        let name = format!("marks-{name}");
        // What FUSE has is another program's: one that overlays directories itself takes such marks for its own. Nor does the kernel mount overlays on it.
        let is_fuse = rustix::fs::fstatfs(&directory).is_ok_and(|stat| stat.f_type == FUSE);
        let marks = match !is_fuse && native.can_be_kept(directory.as_fd(), name.as_ref()) {
            true => native,
            false if Marks::Portable.can_be_kept(directory.as_fd(), name.as_ref()) => Marks::Portable,
            false => return native,
        };
        let what = if marks.are_native() { "native" } else { "portable" };
        self.note(&path, &format!("{what} {here}\n"));
        marks
    }

    /// Whether the kernel was found to mount overlays of this store's layers in these circumstances, which the caller describes in a line.
    pub fn mounts_overlays(&self, circumstances: &str) -> bool {
        fs::read_to_string(self.layout().overlay()).is_ok_and(|known| known.trim_end() == self.here(circumstances))
    }

    /// Remembers that it does.
    pub fn remember_overlays(&self, circumstances: &str) {
        self.note(&self.layout().overlay(), &(self.here(circumstances) + "\n"));
    }

    fn here(&self, circumstances: &str) -> String {
        let device = fs::metadata(self.layout().snapshots()).map_or(0, |metadata| metadata.dev());
        format!("{device} {circumstances}")
    }

    /// Writes what can be found out again: without it, it is.
    fn note(&self, path: &Path, text: &str) {
        let Ok(name) = random_name() else { return };
        let temporary = self.layout().trash().join(name);
        if fs::write(&temporary, text).and_then(|()| fs::rename(&temporary, path)).is_err() {
            let _ = fs::remove_file(&temporary);
        }
    }
}
