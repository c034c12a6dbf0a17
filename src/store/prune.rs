//! Frees what nothing needs: decides under the store's exclusive lock, moves what goes to the trash, and removes it once others may go on.
//!
//! Rows go before files: being killed in between leaves files without rows, which the next prune takes. A directory or file without a row is left alone
//! only while its maker holds it locked. Volumes are never taken: they are the user's.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rusqlite::params;

use crate::oci::{ImageId, Reference};
use crate::task::fault_point;

use super::layout::{ACTIVE_PREFIX, hex, parse_flat_name};
use super::lease::Leased;
use super::lock::{Kind, Wait, lock, lock_file, still_named};
use super::needs::sweep_rows;
use super::open::to_micros;
use super::remove::{move_to_trash, remove_tree};
use super::settle::file_names;
use super::usage::{DiskSpace, Measured};
use super::{Error, PruneRule, SnapshotId, Store, UsageRecord};

/// How long a download that was cut short waits for somebody to resume it.
const RESUME_TIME: Duration = Duration::from_secs(24 * 60 * 60);

/// Which images prune may take. Those of containers and of running commands always stay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PruneImages {
    /// None.
    #[default]
    Keep,
    /// Those without a name.
    Dangling,
    /// All.
    All,
}

/// What to free. The default frees garbage only: what no image, container, lease or cache record needs.
#[derive(Clone, Debug, Default)]
pub struct PruneOptions {
    /// Images.
    pub images: PruneImages,
    /// Of those images, only these; without it, all of them.
    pub only_images: Option<Vec<ImageId>>,
    /// All cache records (and unpacked bases), and the snapshots that only they hold.
    pub build_cache: bool,
    /// Cache mounts that nobody uses now.
    pub cache_mounts: bool,
    /// Downloads that were cut short, also those that are new enough to be resumed.
    pub downloads: bool,
    /// Only what was last used (for images: came in) before this moment.
    pub until: Option<SystemTime>,
    /// Rules that choose records of the build cache, one after the other.
    pub rules: Vec<PruneRule>,
    /// Say what would be freed, and free nothing.
    pub dry_run: bool,
}

impl PruneOptions {
    /// Everything that is not in use.
    pub fn all() -> PruneOptions {
        PruneOptions { images: PruneImages::All, build_cache: true, cache_mounts: true, downloads: true, ..PruneOptions::default() }
    }
}

/// What was freed (or would be).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PruneReport {
    /// Bytes on disk.
    pub freed: u64,
    /// Images.
    pub images: Vec<ImageId>,
    /// Names of those images.
    pub names: Vec<Reference>,
    /// Cache records.
    pub cache_records: usize,
    /// Snapshots.
    pub snapshots: usize,
    /// Blobs.
    pub blobs: usize,
    /// Cache mounts.
    pub cache_mounts: usize,
    /// What rules took of the build cache, in the order in which it went.
    pub records: Vec<UsageRecord>,
    /// Leftovers of processes that were killed: unfinished snapshots, downloads that nobody resumed, removals that were cut short.
    pub leftovers: usize,
}

impl Store {
    /// Frees what `options` says and nothing needs. Any number of other processes may work on the store at the same time: they wait while this decides,
    /// which takes milliseconds, and not while it removes.
    pub fn prune(&self, options: &PruneOptions) -> Result<PruneReport, Error> {
        self.make_room();
        self.flush()?;
        let mut report = PruneReport::default();
        // Walking trees takes its time, so it is done before anybody has to wait.
        let sizes = if options.rules.is_empty() { None } else { Some((self.measure_cache()?, self.disk_space()?)) };
        let exclusive = self.lock_store(Kind::Exclusive)?;
        fault_point("prune:locked");
        let leased = self.leased()?;
        let scope = Scope { options, leased: &leased, sizes: sizes.as_ref() };
        if options.dry_run {
            let doomed = self.database().rehearse("see what is needed", |tx| sweep_rows(self, tx, &scope, &mut report))?;
            report.freed = doomed.snapshot_bytes;
            for digest in &doomed.blobs {
                report.freed += self.blob_size(digest)?.unwrap_or(0);
            }
            return Ok(report);
        }
        let doomed = self.database().write("remove what is not needed", |tx| sweep_rows(self, tx, &scope, &mut report))?;
        let mut removal = Removal { store: self, taken: 0, first_error: None };
        for id in &doomed.snapshots {
            removal.take(&self.layout().snapshot(*id));
        }
        for digest in &doomed.blobs {
            removal.take(&self.layout().settled_blob(digest));
            removal.take(&self.layout().fresh_blob(digest));
        }
        let mounts = if options.cache_mounts { self.old_cache_mounts(options)? } else { doomed.mounts };
        report.cache_mounts = self.take_cache_mounts(mounts, &mut removal)?;
        // What was taken is freed even where something else cannot be: it may be just the space that was missing.
        let leftovers = self.take_leftovers(options, &mut removal);
        fault_point("prune:decided");
        drop(exclusive);
        report.freed = removal.finish()?;
        report.leftovers = leftovers?;
        self.keep_reserve();
        Ok(report)
    }

    fn old_cache_mounts(&self, options: &PruneOptions) -> Result<Vec<(Vec<u8>, i64)>, Error> {
        let until = options.until.map_or(i64::MAX, to_micros);
        self.database().read("list the cache mounts", |db| {
            let mut query = db.prepare("SELECT id, instance FROM cache_mounts WHERE last_used < ?")?;
            query.query_map([until], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
        })
    }

    /// Takes those of these cache mounts that nobody uses.
    fn take_cache_mounts(&self, mounts: Vec<(Vec<u8>, i64)>, removal: &mut Removal<'_>) -> Result<usize, Error> {
        let mut taken = 0;
        for (id, instance) in mounts {
            let name = format!("{}.{instance}", hex(&id));
            let lock_path = self.layout().lock(format_args!("mount-{name}"));
            let Some(_lock) = lock_file(&lock_path, Kind::Exclusive, Wait::No)? else { continue };
            removal.take(&self.layout().cache_mounts().join(&name));
            self.database().write("remove a cache mount", |tx| {
                Ok(tx.execute("DELETE FROM cache_mounts WHERE id = ? AND instance = ?", params![id, instance])?)
            })?;
            taken += 1;
        }
        Ok(taken)
    }

    /// Takes what killed processes left. The caller holds the store's lock exclusively, so whatever is being made is locked by whoever makes it.
    fn take_leftovers(&self, options: &PruneOptions, removal: &mut Removal<'_>) -> Result<usize, Error> {
        let mut taken = paths(&self.layout().trash())?.len().saturating_sub(removal.taken);
        taken += self.take_left_snapshots(removal)?;
        taken += self.take_left_ingests(options, removal)?;
        taken += self.take_left_mounts(removal)?;
        let containers: HashSet<String> = self.containers()?.into_iter().map(|container| container.id).collect();
        for path in paths(&self.layout().containers())? {
            if !containers.contains(name_of(&path)) {
                removal.take(&path);
                taken += 1;
            }
        }
        taken += self.take_left_volumes()?;
        self.remove_stale_locks()?;
        Ok(taken)
    }

    fn take_left_snapshots(&self, removal: &mut Removal<'_>) -> Result<usize, Error> {
        let committed: HashSet<SnapshotId> = self.snapshots()?.into_iter().map(|snapshot| snapshot.id).collect();
        let mut taken = 0;
        for path in paths(&self.layout().snapshots())? {
            let name = name_of(&path);
            let is_left = match name.parse::<SnapshotId>() {
                Ok(id) => id != SnapshotId::SCRATCH && !committed.contains(&id),
                // Its owner is dead and does not come back, so the lock need not be kept.
                Err(_) => name.starts_with(ACTIVE_PREFIX) && lock_if_free(&path)?.is_some(),
            };
            if is_left {
                removal.take(&path);
                taken += 1;
            }
        }
        Ok(taken)
    }

    fn take_left_ingests(&self, options: &PruneOptions, removal: &mut Removal<'_>) -> Result<usize, Error> {
        let mut taken = 0;
        for path in paths(&self.layout().ingests())? {
            let is_asked_for =
                options.downloads && written_at(&path)?.is_some_and(|written| options.until.is_none_or(|until| written < until));
            // Locked until it is gone: somebody may come to resume it.
            if (is_asked_for || is_abandoned(&path)?)
                && let Some(_lock) = lock_if_free(&path)?
            {
                removal.take(&path);
                taken += 1;
            }
        }
        Ok(taken)
    }

    fn take_left_mounts(&self, removal: &mut Removal<'_>) -> Result<usize, Error> {
        let mut taken = 0;
        for path in paths(&self.layout().cache_mounts())? {
            let lock_path = self.layout().lock(format_args!("mount-{}", name_of(&path)));
            let ready = path.join("ready");
            if let Some(_lock) = lock_file(&lock_path, Kind::Exclusive, Wait::No)?
                && !ready.try_exists().map_err(Error::io("stat", &ready))?
            {
                removal.take(&path);
                taken += 1;
            }
        }
        Ok(taken)
    }

    /// Removes the lock files that nobody holds. Whoever waits for one of them sees that it has lost its name, and makes it again.
    fn remove_stale_locks(&self) -> Result<(), Error> {
        for path in paths(&self.layout().locks())? {
            if path != self.layout().store_lock()
                && let Some(_lock) = lock_file(&path, Kind::Exclusive, Wait::No)?
            {
                fs::remove_file(&path).map_err(Error::io("remove", &path))?;
            }
        }
        Ok(())
    }
}

/// What decides what goes.
pub(crate) struct Scope<'a> {
    pub(crate) options: &'a PruneOptions,
    pub(crate) leased: &'a Leased,
    /// For rules: what the records and the disk are large.
    pub(crate) sizes: Option<&'a (Measured, DiskSpace)>,
}

/// What is on its way out: taken from its place while prune decides, removed from the trash afterwards. One thing that cannot be removed does not keep the
/// others.
struct Removal<'a> {
    store: &'a Store,
    taken: usize,
    first_error: Option<Error>,
}

impl Removal<'_> {
    fn take(&mut self, path: &Path) {
        let moved = move_to_trash(self.store, path);
        fault_point("prune:taken");
        match moved {
            Ok(moved) => self.taken += usize::from(moved.is_some()),
            Err(error) => drop(self.first_error.get_or_insert(error)),
        }
    }

    /// Empties the trash, and gives the bytes that this freed.
    fn finish(mut self) -> Result<u64, Error> {
        let mut freed = 0;
        for path in paths(&self.store.layout().trash())? {
            match remove_tree(&path) {
                Ok(bytes) => freed += bytes,
                Err(error) => drop(self.first_error.get_or_insert(error)),
            }
            fault_point("prune:removed");
        }
        self.first_error.map_or(Ok(freed), Err)
    }
}

/// The paths of all that is in a directory of the store.
pub(super) fn paths(dir: &Path) -> Result<Vec<PathBuf>, Error> {
    Ok(file_names(dir)?.into_iter().map(|name| dir.join(name)).collect())
}

/// The last part of a path in the store.
pub(super) fn name_of(path: &Path) -> &str {
    path.file_name().and_then(OsStr::to_str).unwrap_or_default()
}

/// Locks a file or directory that nobody holds; `None` where somebody does, or where it is gone.
pub(super) fn lock_if_free(path: &Path) -> Result<Option<File>, Error> {
    match File::open(path) {
        Ok(file) => Ok((lock(&file, path, Kind::Exclusive, Wait::No)? && still_named(&file, path)?).then_some(file)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::io("open", path)(error)),
    }
}

/// Whether nobody will resume an ingest: one without a known digest, or one that nobody has written to for a day.
pub(super) fn is_abandoned(path: &Path) -> Result<bool, Error> {
    if parse_flat_name(name_of(path)).is_none() {
        return Ok(true);
    }
    let Some(written) = written_at(path)? else { return Ok(false) };
    // The clock may have been set back since: what seems to be of tomorrow is no download of just now either.
    let age = written.elapsed().unwrap_or_else(|ahead| ahead.duration());
    Ok(age > RESUME_TIME)
}

/// When a file was last written to; `None` where it is gone.
fn written_at(path: &Path) -> Result<Option<SystemTime>, Error> {
    match fs::symlink_metadata(path) {
        Ok(metadata) => metadata.modified().map(Some).map_err(Error::io("stat", path)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::io("stat", path)(error)),
    }
}
