//! Snapshots: directories that hold one layer's own files in overlay form.
//!
//! An active snapshot is a directory of its own that its owner writes to; committing renames it to its number and inserts the row, in one
//! transaction. A snapshot's row is the promise that its directory is there and whole; a directory without a row is garbage.
//! Committed snapshots are never written again. What a layer's files mean is not known here.

use std::fmt;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::SystemTime;

use rusqlite::{OptionalExtension, Row, params};

use crate::oci::DiffId;
use crate::sys::{OverlayUpper, RootfsMount, rename_new};
use crate::task::fault_point;

use super::database::parsed_option;
use super::lock::{Kind, Wait, lock};
use super::open::{from_micros, make_dir, now, set_mode, to_micros};
use super::remove::{discard, remove_tree};
use super::view::LayerStack;
use super::{Error, Store};

/// Names a committed snapshot. Written in base 36, so that many fit into the options of one mount.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SnapshotId(u64);

impl SnapshotId {
    /// The empty layer, which every store has.
    pub const SCRATCH: SnapshotId = SnapshotId(0);

    /// The number.
    pub fn number(self) -> u64 {
        self.0
    }

    pub(crate) fn from_row(row: &Row<'_>, column: usize) -> rusqlite::Result<SnapshotId> {
        let number: i64 = row.get(column)?;
        u64::try_from(number).map(SnapshotId).map_err(|_| rusqlite::Error::IntegralValueOutOfRange(column, number))
    }

    /// The number as SQLite has it. Numbers come from SQLite, so none is too large.
    pub(crate) fn sql(self) -> i64 {
        self.0.cast_signed()
    }
}

impl fmt::Display for SnapshotId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut digits = [0u8; 13];
        let mut at = digits.len();
        let mut rest = self.0;
        loop {
            at -= 1;
            digits[at] = b"0123456789abcdefghijklmnopqrstuvwxyz"[(rest % 36) as usize];
            rest /= 36;
            if rest == 0 {
                break;
            }
        }
        digits[at..].iter().try_for_each(|digit| fmt::Write::write_char(f, char::from(*digit)))
    }
}

/// Why a string is not the ID of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not the ID of a snapshot")]
pub struct SnapshotIdError(String);

impl FromStr for SnapshotId {
    type Err = SnapshotIdError;

    fn from_str(text: &str) -> Result<SnapshotId, SnapshotIdError> {
        let canonical = |id: &SnapshotId| id.to_string() == text;
        let id = u64::from_str_radix(text, 36).ok().filter(|number| *number <= i64::MAX as u64).map(SnapshotId);
        id.filter(canonical).ok_or_else(|| SnapshotIdError(text.to_owned()))
    }
}

/// The empty file beside the files of a layer that stands alone.
const ALONE: &str = "alone";

/// What is known of a snapshot when it is committed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SnapshotMeta {
    /// The digest of the layer as a tar, where it is known already.
    pub diff_id: Option<DiffId>,
    /// What its files take, in bytes.
    pub size: u64,
    /// Where it is from, for people: `RUN make`, or a layer's digest.
    pub description: String,
}

/// A snapshot that is whole and does not change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommittedSnapshot {
    /// Its name.
    pub id: SnapshotId,
    /// The digest of the layer as a tar, where it is known.
    pub diff_id: Option<DiffId>,
    /// What its files take, in bytes.
    pub size: u64,
    /// The length of the layer as a tar, where it is known.
    pub tar_size: Option<u64>,
    /// Where it is from, for people.
    pub description: String,
    /// When it was committed.
    pub created_at: SystemTime,
}

/// A snapshot that is being written. Dropping it removes it.
#[derive(Debug)]
pub struct ActiveSnapshot {
    store: Store,
    /// The directory, taken by `commit`.
    path: PathBuf,
    /// The locked directory: whose lock can be had has no owner, and is garbage.
    lock: Option<File>,
}

impl ActiveSnapshot {
    /// The directory to write the layer's files to: the root directory of the layer, mode 0755.
    pub fn fs_path(&self) -> PathBuf {
        self.path.join("fs")
    }

    /// The empty directory beside it that overlayfs needs for its work.
    pub fn work_path(&self) -> PathBuf {
        self.path.join("work")
    }

    /// A file beside them that stays with the snapshot: whoever writes the layer may say there what its files were made of.
    pub fn list_path(&self) -> PathBuf {
        self.path.join("sources")
    }

    /// Says of the layer that it is what it is whatever lies below: all of it counts as a change, also what the layers below have in the same way.
    ///
    /// # Errors
    /// The store cannot be written.
    pub fn stand_alone(&self) -> Result<(), Error> {
        let path = self.path.join(ALONE);
        File::create(&path).map(drop).map_err(Error::io("create", &path))
    }

    /// A directory beside them for whoever writes the layer: not made here, and to be removed before the commit.
    pub fn scratch_path(&self) -> PathBuf {
        self.path.join("scratch")
    }

    /// Takes away what was written to the layer so far.
    ///
    /// # Errors
    /// What cannot be read or removed.
    pub fn clear(&self) -> Result<(), Error> {
        let path = self.fs_path();
        let failed = || Error::io("read", &path);
        for entry in std::fs::read_dir(&path).map_err(failed())? {
            remove_tree(&entry.map_err(failed())?.path())?;
        }
        Ok(())
    }

    /// Makes it a committed snapshot. The layer must not be mounted or written any more.
    pub fn commit(mut self, meta: SnapshotMeta) -> Result<CommittedSnapshot, Error> {
        remove_tree(&self.work_path())?;
        fault_point("snapshot:complete");
        let store = self.store.clone();
        let shared = store.lock_store(Kind::Shared)?;
        let created_at = now();
        let id =
            store.database().write("commit a snapshot", |tx| {
                tx.prepare_cached("INSERT INTO snapshots (diff_id, size, description, created_at) VALUES (?, ?, ?, ?)")?.execute(
                    params![meta.diff_id.as_ref().map(DiffId::to_string), meta.size.cast_signed(), meta.description, created_at],
                )?;
                let id = SnapshotId(tx.last_insert_rowid().cast_unsigned());
                store.hold(format_args!("snapshot {id}"))?;
                fault_point("snapshot:inserted");
                self.rename_to(&store.layout().snapshot(id))?;
                fault_point("snapshot:renamed");
                Ok(id)
            })?;
        drop(shared);
        fault_point("snapshot:committed");
        // From here on the directory belongs to its row.
        self.lock = None;
        let created_at = from_micros(created_at);
        Ok(CommittedSnapshot { id, diff_id: meta.diff_id, size: meta.size, tar_size: None, description: meta.description, created_at })
    }

    /// Gives a complete layer the place `path`, which is free. The layer must not be mounted or written any more.
    pub(crate) fn take_place(mut self, path: &Path) -> Result<(), Error> {
        remove_tree(&self.work_path())?;
        self.rename_to(path)?;
        self.lock = None;
        Ok(())
    }

    /// Renames the directory inside of the transaction that inserts the row: should the transaction not commit, the number is given out again and the
    /// directory found here by the next commit, which throws it away.
    fn rename_to(&mut self, path: &Path) -> Result<(), Error> {
        let rename = |from: &Path| rename_new(rustix::fs::CWD, from, rustix::fs::CWD, path);
        let mut outcome = rename(&self.path);
        if outcome == Err(rustix::io::Errno::EXIST) {
            discard(&self.store, path)?;
            outcome = rename(&self.path);
        }
        outcome.map_err(Error::io("create", path))?;
        self.path = path.to_owned();
        Ok(())
    }
}

impl Drop for ActiveSnapshot {
    fn drop(&mut self) {
        if self.lock.is_some() {
            // What cannot be removed now is garbage without an owner, and prune reports it.
            let _ = discard(&self.store, &self.path);
        }
    }
}

impl Store {
    /// Makes an empty snapshot to write to.
    pub fn prepare(&self) -> Result<ActiveSnapshot, Error> {
        let path = self.layout().new_snapshot()?;
        let shared = self.lock_store(Kind::Shared)?;
        make_dir(&path, 0o711)?;
        fault_point("snapshot:made");
        let file = File::open(&path).map_err(Error::io("open", &path))?;
        lock(&file, &path, Kind::Exclusive, Wait::Yes)?;
        drop(shared);
        set_mode(&path, 0o711)?;
        let active = ActiveSnapshot { store: self.clone(), path, lock: Some(file) };
        let fs_path = active.fs_path();
        make_dir(&fs_path, 0o755)?;
        // Not left to the umask: this is what the layer says of `/`.
        set_mode(&fs_path, 0o755)?;
        make_dir(&active.work_path(), 0o700)?;
        fault_point("snapshot:prepared");
        Ok(active)
    }

    /// The committed snapshot `id`, where there is one.
    pub fn snapshot(&self, id: SnapshotId) -> Result<Option<CommittedSnapshot>, Error> {
        self.database().read("read a snapshot", |db| {
            let sql = "SELECT id, diff_id, size, tar_size, description, created_at FROM snapshots WHERE id = ?";
            db.prepare_cached(sql)?.query_row([id.sql()], snapshot_from_row).optional()
        })
    }

    /// The committed snapshots, oldest first.
    pub fn snapshots(&self) -> Result<Vec<CommittedSnapshot>, Error> {
        self.database().read("list the snapshots", |db| {
            let sql = "SELECT id, diff_id, size, tar_size, description, created_at FROM snapshots ORDER BY id";
            db.prepare_cached(sql)?.query_map([], snapshot_from_row)?.collect()
        })
    }

    /// The committed snapshots that are the layer `diff_id`, newest first.
    pub fn snapshots_of(&self, diff_id: &DiffId) -> Result<Vec<CommittedSnapshot>, Error> {
        self.database().read("look a layer up", |db| {
            let sql = "SELECT id, diff_id, size, tar_size, description, created_at FROM snapshots WHERE diff_id = ? ORDER BY id DESC";
            db.prepare_cached(sql)?.query_map([diff_id.to_string()], snapshot_from_row)?.collect()
        })
    }

    /// The directory of a committed snapshot's files. Whether it exists is not asked.
    pub fn snapshot_path(&self, id: SnapshotId) -> PathBuf {
        self.layout().snapshot_fs(id)
    }

    /// The layers that the layer of a snapshot is compared with where it lies above `below` (bottom first): none for one that stands alone
    /// ([`ActiveSnapshot::stand_alone`]).
    pub fn layers_below(&self, id: SnapshotId, below: &[SnapshotId]) -> Result<LayerStack, Error> {
        let stands_alone = !below.is_empty() && self.layout().snapshot(id).join(ALONE).exists();
        self.stack(if stands_alone { &[] } else { below })
    }

    /// The file beside a committed snapshot's files ([`ActiveSnapshot::list_path`]). Not every snapshot has one.
    pub fn snapshot_list_path(&self, id: SnapshotId) -> PathBuf {
        self.layout().snapshot(id).join("sources")
    }

    /// Records the digest and the length of a snapshot's layer as a tar.
    pub fn set_diff_id(&self, id: SnapshotId, diff_id: &DiffId, tar_size: u64) -> Result<(), Error> {
        let changed = self.database().write("record a diff ID", |tx| {
            let sql = "UPDATE snapshots SET diff_id = ?, tar_size = ? WHERE id = ?";
            Ok(tx.prepare_cached(sql)?.execute(params![diff_id.to_string(), tar_size.cast_signed(), id.sql()])?)
        })?;
        if changed == 0 { Err(Error::NoSnapshot { id, root: self.root().to_owned() }) } else { Ok(()) }
    }

    /// Says that what is in a snapshot was made at `created_at`, somewhere else, before it was committed here.
    pub fn date_snapshot(&self, id: SnapshotId, created_at: SystemTime) -> Result<(), Error> {
        self.database().write("date a snapshot", |tx| {
            let sql = "UPDATE snapshots SET created_at = ? WHERE id = ?";
            tx.prepare_cached(sql)?.execute(params![to_micros(created_at), id.sql()])?;
            Ok(())
        })
    }

    /// The root file system made of `layers` (bottom first). Changes go to `upper`; without one it is read-only. `extra_lower` comes directly below the
    /// upper, above all layers.
    pub fn rootfs(&self, layers: &[SnapshotId], upper: Option<&ActiveSnapshot>, extra_lower: Option<&Path>) -> RootfsMount {
        let upper = upper.map(|active| OverlayUpper { upper: active.fs_path(), work: active.work_path() });
        self.rootfs_on(layers, upper, extra_lower)
    }

    /// The same with any directories for the changes, such as a container's.
    pub fn rootfs_on(&self, layers: &[SnapshotId], upper: Option<OverlayUpper>, extra_lower: Option<&Path>) -> RootfsMount {
        let mut lower: Vec<PathBuf> = extra_lower.map(Path::to_owned).into_iter().collect();
        lower.extend(layers.iter().rev().map(|id| self.snapshot_path(*id)));
        // Overlayfs wants one lower directory below an upper, and two without: the empty layer makes up the number.
        if lower.len() < if upper.is_some() { 1 } else { 2 } {
            lower.push(self.snapshot_path(SnapshotId::SCRATCH));
        }
        RootfsMount::Overlay { lower, upper, userxattr: self.userxattr() }
    }
}

fn snapshot_from_row(row: &Row<'_>) -> rusqlite::Result<CommittedSnapshot> {
    Ok(CommittedSnapshot {
        id: SnapshotId::from_row(row, 0)?,
        diff_id: parsed_option(row, 1)?,
        size: row.get::<_, i64>(2)?.cast_unsigned(),
        tar_size: row.get::<_, Option<i64>>(3)?.map(i64::cast_unsigned),
        description: row.get(4)?,
        created_at: from_micros(row.get(5)?),
    })
}

/// Snapshots as a column holds them: eight bytes each, little-endian.
pub(crate) fn pack(ids: &[SnapshotId]) -> Vec<u8> {
    ids.iter().flat_map(|id| id.0.to_le_bytes()).collect()
}

/// Reads a column of packed snapshots.
pub(crate) fn unpack(row: &Row<'_>, column: usize) -> rusqlite::Result<Vec<SnapshotId>> {
    let bytes = row.get_ref(column)?.as_blob()?;
    Ok(bytes.as_chunks().0.iter().map(|number| SnapshotId(u64::from_le_bytes(*number))).collect())
}
