//! Checksums of files outside of the store, remembered by what `stat(2)` says of them, so that an unchanged build context is not read again.
//!
//! One row for each inode. Whether a stamp is too young to be trusted is the caller's to decide.

use rusqlite::params;

use crate::sys::tree::Metadata;

use super::{Error, Store};

/// What tells one state of a file from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FileStamp {
    /// The device.
    pub dev: u64,
    /// The inode on it.
    pub ino: u64,
    /// The size in bytes.
    pub size: u64,
    /// Time of last modification: seconds and nanoseconds.
    pub mtime: (i64, u32),
    /// Time of last change of the inode: seconds and nanoseconds.
    pub ctime: (i64, u32),
}

impl FileStamp {
    /// The stamp in what `lstat(2)` said.
    pub fn of(metadata: &Metadata) -> FileStamp {
        let Metadata { dev, ino, size, mtime, ctime, .. } = *metadata;
        FileStamp { dev, ino, size, mtime, ctime }
    }
}

impl Store {
    /// The checksum that was remembered for each stamp; `None` where there is none or the file has changed since.
    pub fn checksums(&self, stamps: &[FileStamp]) -> Result<Vec<Option<[u8; 32]>>, Error> {
        // Neighbours in the table are asked for one after the other: the same pages serve many rows.
        let mut order: Vec<usize> = (0..stamps.len()).collect();
        order.sort_unstable_by_key(|index| (stamps[*index].dev, stamps[*index].ino));
        let mut sums = vec![None; stamps.len()];
        self.database().read_together("look checksums up", |db| {
            let mut query = db.prepare_cached("SELECT size, mtime, ctime, sum FROM checksums WHERE dev = ? AND ino = ?")?;
            for index in order {
                let stamp = &stamps[index];
                let mut rows = query.query(params![stamp.dev.cast_signed(), stamp.ino.cast_signed()])?;
                if let Some(row) = rows.next()?
                    && row.get::<_, i64>(0)? == stamp.size.cast_signed()
                    && row.get::<_, i64>(1)? == nanoseconds(stamp.mtime)
                    && row.get::<_, i64>(2)? == nanoseconds(stamp.ctime)
                {
                    sums[index] = Some(row.get(3)?);
                }
            }
            Ok(())
        })?;
        Ok(sums)
    }

    /// Remembers checksums, in one transaction.
    pub fn remember_checksums(&self, sums: &[(FileStamp, [u8; 32])]) -> Result<(), Error> {
        if sums.is_empty() {
            return Ok(());
        }
        self.database().write("remember checksums", |tx| {
            let sql = "INSERT OR REPLACE INTO checksums (dev, ino, size, mtime, ctime, sum) VALUES (?, ?, ?, ?, ?, ?)";
            let mut insert = tx.prepare_cached(sql)?;
            for (stamp, sum) in sums {
                insert.execute(params![
                    stamp.dev.cast_signed(),
                    stamp.ino.cast_signed(),
                    stamp.size.cast_signed(),
                    nanoseconds(stamp.mtime),
                    nanoseconds(stamp.ctime),
                    sum
                ])?;
            }
            Ok(())
        })
    }
}

/// One number for a moment. Wraps around after some 584 years, which still tells moments apart.
fn nanoseconds((seconds, nanoseconds): (i64, u32)) -> i64 {
    seconds.wrapping_mul(1_000_000_000).wrapping_add(i64::from(nanoseconds))
}
