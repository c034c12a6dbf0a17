//! Garbage collection, while requests are served and by any process.
//!
//! Roots are the manifests. What none of a repository's manifests names, and nobody has touched for the grace period, is unlinked from it; a blob without links goes with its
//! file. Each step is a transaction that excludes all writers, and a push touches what it relies on ([`Storage::rely_on_blob`]), so a blob that a client was told to be
//! there is there when its manifest comes, if that is within the grace period.

use std::fs::File;
use std::path::Path;
use std::time::{Duration, SystemTime};

use rusqlite::params;

use super::database::{Fault, count};
use super::{Error, Storage, now};

/// How many blobs go in one transaction, for which writers have to wait.
const BATCH: usize = 100;

/// What a collection did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// Blobs that are gone.
    pub blobs: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Uploads that were given up.
    pub uploads: u64,
}

impl Storage {
    /// Removes what nobody needs and nobody has touched for `grace`. `None` where another process is at it.
    pub(crate) fn collect(&self, grace: Duration) -> Result<Option<Collected>, Error> {
        let path = self.root.join("gc.lock");
        let lock = File::options().write(true).create(true).truncate(false).open(&path).map_err(Error::io("open", &path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(std::fs::TryLockError::WouldBlock) => return Ok(None),
            Err(std::fs::TryLockError::Error(error)) => return Err(Error::io("lock", &path)(error)),
        }
        let mut done = Collected::default();
        let before = now().saturating_sub(i64::try_from(grace.as_secs()).unwrap_or(i64::MAX));
        self.unlink(before)?;
        while self.sweep(&mut done)? {}
        self.sweep_orphans(grace, &mut done)?;
        self.expire_uploads(grace, &mut done)?;
        Ok(Some(done))
    }

    /// Takes blobs that no manifest names out of their repositories, and forgets repositories that have nothing any more.
    fn unlink(&self, before: i64) -> Result<(), Error> {
        self.database.write("mark garbage", |tx| {
            tx.execute(
                "DELETE FROM links WHERE touched <= ?1
                 AND NOT EXISTS (SELECT 1 FROM contents c WHERE c.repository = links.repository AND c.digest = links.digest)",
                [before],
            )?;
            tx.execute(
                "DELETE FROM repositories WHERE NOT EXISTS (SELECT 1 FROM links l WHERE l.repository = repositories.id)
                 AND NOT EXISTS (SELECT 1 FROM manifests m WHERE m.repository = repositories.id)",
                [],
            )?;
            Ok(())
        })
    }

    /// Removes some blobs that no repository has; tells whether there may be more.
    fn sweep(&self, done: &mut Collected) -> Result<bool, Error> {
        self.database.write("sweep garbage", |tx| {
            let sql = "SELECT digest, size FROM blobs WHERE NOT EXISTS (SELECT 1 FROM links l WHERE l.digest = blobs.digest) LIMIT ?1";
            let found: Vec<(String, u64)> =
                tx.prepare_cached(sql)?.query_map([BATCH as i64], |row| Ok((row.get(0)?, count(row, 1)?)))?.collect::<Result<_, _>>()?;
            for (text, size) in &found {
                if let Ok(digest) = text.parse() {
                    remove(&self.blob_path(&digest))?;
                }
                tx.execute("DELETE FROM blobs WHERE digest = ?1", [text])?;
                done.blobs += 1;
                done.bytes += size;
            }
            Ok(found.len() == BATCH)
        })
    }

    /// Removes files of blobs that have no row: a process was killed between the two.
    fn sweep_orphans(&self, grace: Duration, done: &mut Collected) -> Result<(), Error> {
        for algorithm in ["sha256", "sha512"] {
            let dir = self.root.join("blobs").join(algorithm);
            for (path, name, size) in old_files(&dir, grace)? {
                let digest = format!("{algorithm}:{name}");
                let row = |connection: &rusqlite::Connection| {
                    connection.prepare_cached("SELECT 1 FROM blobs WHERE digest = ?1")?.exists(params![digest])
                };
                if self.database.read("look for a blob", row)? {
                    continue;
                }
                // Looked at again where no writer can be between the file and the row.
                self.database.write("sweep garbage", |tx| {
                    if !row(tx)? {
                        remove(&path)?;
                        done.blobs += 1;
                        done.bytes += size;
                    }
                    Ok::<_, Fault>(())
                })?;
            }
        }
        Ok(())
    }

    /// Removes uploads to which nothing has come for `grace`.
    fn expire_uploads(&self, grace: Duration, done: &mut Collected) -> Result<(), Error> {
        for (path, _, _) in old_files(&self.upload_dir(), grace)? {
            let Ok(file) = File::open(&path) else { continue };
            // Somebody may be at it again.
            if file.try_lock().is_ok() {
                remove(&path)?;
                done.uploads += 1;
            }
        }
        Ok(())
    }
}

/// The files in `dir` that were written more than `grace` ago, with names and sizes.
fn old_files(dir: &Path, grace: Duration) -> Result<Vec<(std::path::PathBuf, String, u64)>, Error> {
    let entries = std::fs::read_dir(dir).map_err(Error::io("list", dir))?;
    let limit = SystemTime::now().checked_sub(grace).unwrap_or(SystemTime::UNIX_EPOCH);
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.map_err(Error::io("list", dir))?;
        // Files that go while we look are no concern of ours.
        let Ok(metadata) = entry.metadata() else { continue };
        if metadata.is_file() && metadata.modified().is_ok_and(|time| time <= limit) {
            found.push((entry.path(), entry.file_name().to_string_lossy().into_owned(), metadata.len()));
        }
    }
    Ok(found)
}

fn remove(path: &Path) -> Result<(), Error> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::io("remove", path)(error)),
        _ => Ok(()),
    }
}
