//! The directories of the store: whether they are there and this user's to use; and what killed commands left in them.

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::store::layout::{ACTIVE_PREFIX, DIRECTORIES, directory_mode};
use crate::store::lock::{Kind, Wait, lock_file};
use crate::store::open::{make_dir, set_mode};
use crate::store::prune::{is_abandoned, lock_if_free, name_of, paths};
use crate::store::{Error, SnapshotId, Store};

use super::{Leftover, Problem};

impl Store {
    /// What is wrong with the directories, and with the files that every command opens.
    pub(super) fn check_places(&self) -> Result<Vec<Problem>, Error> {
        let mut problems = Vec::new();
        let user = rustix::process::geteuid().as_raw();
        let root = self.root();
        let mut note = |path: &Path, what: String| problems.push(Problem::Place { path: path.to_owned(), what });
        for name in DIRECTORIES {
            let path = root.join(name);
            match fs::metadata(&path) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => note(&path, "is missing".to_owned()),
                Err(error) => note(&path, format!("cannot be used: {error}")),
                Ok(metadata) if !metadata.is_dir() => note(&path, "is no directory".to_owned()),
                Ok(metadata) if metadata.uid() != user => note(&path, format!("belongs to the user {}, not to {user}", metadata.uid())),
                Ok(metadata) if metadata.mode() & directory_mode(name) != directory_mode(name) => {
                    let (mode, needed) = (metadata.mode() & 0o7777, directory_mode(name));
                    note(&path, format!("has the mode {mode:o}, which lacks some of {needed:o}"));
                }
                Ok(_) => {}
            }
        }
        let scratch = self.snapshot_path(SnapshotId::SCRATCH);
        if !scratch.is_dir() && self.layout().snapshots().is_dir() {
            note(&scratch, "is missing".to_owned());
        } else if fs::read_dir(&scratch).is_ok_and(|mut entries| entries.next().is_some()) {
            note(&scratch, "is not empty, which the lowest layer must be".to_owned());
        }
        for path in [self.layout().database(), self.layout().version()] {
            let metadata = match fs::metadata(&path) {
                Ok(metadata) => metadata,
                // The database has a problem of its own then.
                Err(_) => continue,
            };
            if metadata.uid() != user && user != 0 {
                note(&path, format!("belongs to the user {}, not to {user}", metadata.uid()));
            }
        }
        Ok(problems)
    }

    /// Makes directories that are missing, and gives those of this user their modes. What stands in the way of a directory is moved to the trash.
    pub(super) fn mend_place(&self, path: &Path) -> Result<(), Error> {
        let scratch = self.snapshot_path(SnapshotId::SCRATCH);
        if path == scratch {
            crate::store::remove::discard(self, path)?;
            let parent = self.layout().snapshot(SnapshotId::SCRATCH);
            make_dir(&parent, 0o711)?;
            set_mode(&parent, 0o711)?;
            make_dir(path, 0o755)?;
            return set_mode(path, 0o755);
        }
        let mode = directory_mode(name_of(path));
        if path.parent() == Some(self.root()) && DIRECTORIES.contains(&name_of(path)) {
            if path.symlink_metadata().is_ok_and(|metadata| !metadata.is_dir()) && !path.is_dir() {
                let aside = path.with_extension("damaged");
                fs::rename(path, &aside).map_err(Error::io("move away", path))?;
            }
            make_dir(path, mode)?;
            let user = rustix::process::geteuid();
            if rustix::process::geteuid().is_root() {
                std::os::unix::fs::chown(path, Some(user.as_raw()), None).map_err(Error::io("change the owner of", path))?;
            }
            set_mode(path, mode)?;
            if name_of(path) == "blobs" {
                make_dir(&path.join("sha256"), 0o700)?;
                make_dir(&path.join("sha512"), 0o700)?;
            }
        }
        Ok(())
    }

    /// What killed commands left. The caller holds the store's lock exclusively.
    pub(super) fn leftovers(&self) -> Result<Vec<Leftover>, Error> {
        let mut found = Vec::new();
        let mut note = |path, what| found.push(Leftover { path, what });
        for path in paths(&self.layout().trash())? {
            note(path, "a removal that was cut short");
        }
        for path in paths(&self.layout().leases())? {
            if lock_if_free(&path)?.is_some() {
                note(path, "the lease of a command that was killed");
            }
        }
        for path in paths(&self.layout().ingests())? {
            if is_abandoned(&path)? && lock_if_free(&path)?.is_some() {
                note(path, "a blob that nobody will complete");
            }
        }
        let committed: HashSet<SnapshotId> = self.snapshots()?.into_iter().map(|snapshot| snapshot.id).collect();
        for path in paths(&self.layout().snapshots())? {
            match name_of(&path).parse::<SnapshotId>() {
                Ok(id) if id != SnapshotId::SCRATCH && !committed.contains(&id) => note(path, "a snapshot that was not committed"),
                Err(_) if name_of(&path).starts_with(ACTIVE_PREFIX) && lock_if_free(&path)?.is_some() => {
                    note(path, "a snapshot that nobody will complete");
                }
                _ => {}
            }
        }
        let containers: HashSet<String> = self.containers()?.into_iter().map(|container| container.id).collect();
        for path in paths(&self.layout().containers())?.into_iter().filter(|path| !containers.contains(name_of(path))) {
            note(path, "the files of a container that is gone");
        }
        for path in paths(&self.layout().cache_mounts())? {
            let lock_path = self.layout().lock(format_args!("mount-{}", name_of(&path)));
            if !path.join("ready").exists() && lock_file(&lock_path, Kind::Exclusive, Wait::No)?.is_some() {
                note(path, "a cache mount that nobody seeded");
            }
        }
        for (name, _) in self.left_volumes()? {
            note(self.layout().volume(&name), "a volume that was being made or removed");
        }
        let fresh = self.layout().fresh();
        for path in paths(&self.layout().fresh_of_all_boots())?.into_iter().filter(|path| *path != fresh) {
            note(path, "what another boot did not make durable");
        }
        Ok(found)
    }
}
