//! Checksums of files outside of the store, remembered by what `stat(2)` says of them, so that an unchanged build context is not read again.
//!
//! One row for each inode. Whether a stamp is too young to be trusted is the caller's to decide.

use rusqlite::{Row, params};

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
        // In the order of the table, so that neighbours are found by going on from the last one.
        let place = |index: &usize| (stamps[*index].dev.cast_signed(), stamps[*index].ino.cast_signed());
        let mut order: Vec<usize> = (0..stamps.len()).collect();
        order.sort_unstable_by_key(place);
        let mut sums = vec![None; stamps.len()];
        self.database().read_together("look checksums up", |db| {
            let sql = "SELECT dev, ino, size, mtime, ctime, sum FROM checksums WHERE (dev, ino) >= (?, ?) ORDER BY dev, ino";
            let mut query = db.prepare_cached(sql)?;
            let mut todo = order.iter().copied().peekable();
            while let Some(first) = todo.peek() {
                let (dev, ino) = place(first);
                let mut rows = query.query([dev, ino])?;
                let mut strangers = 0;
                while let Some(row) = rows.next()? {
                    let here = (row.get(0)?, row.get(1)?);
                    while todo.next_if(|index| place(index) < here).is_some() {}
                    strangers += 1;
                    while let Some(index) = todo.next_if(|index| place(index) == here) {
                        strangers = 0;
                        if is_state(row, &stamps[index])? {
                            sums[index] = Some(row.get(5)?);
                        }
                    }
                    // Looking the next one up costs as much as passing by a few others.
                    if strangers >= STRANGERS || todo.peek().is_none() {
                        break;
                    }
                }
                if strangers < STRANGERS {
                    // The table is at its end, or all are found.
                    break;
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
            // In the order of the table, which takes half as long where many are new.
            let mut sums: Vec<_> = sums.iter().collect();
            sums.sort_unstable_by_key(|(stamp, _)| (stamp.dev.cast_signed(), stamp.ino.cast_signed()));
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

/// How many rows of no interest are passed by before the next one of interest is looked up.
const STRANGERS: usize = 8;

/// Whether a row of `checksums` is of this state of the file.
fn is_state(row: &Row<'_>, stamp: &FileStamp) -> rusqlite::Result<bool> {
    Ok(row.get::<_, i64>(2)? == stamp.size.cast_signed()
        && row.get::<_, i64>(3)? == nanoseconds(stamp.mtime)
        && row.get::<_, i64>(4)? == nanoseconds(stamp.ctime))
}

/// One number for a moment. Wraps around after some 584 years, which still tells moments apart.
fn nanoseconds((seconds, nanoseconds): (i64, u32)) -> i64 {
    seconds.wrapping_mul(1_000_000_000).wrapping_add(i64::from(nanoseconds))
}
