//! Blobs: one file for all repositories, shown in those that have a link to it.

use std::fs::File;
use std::path::Path;

use rusqlite::{OptionalExtension, params};

use crate::oci::Digest;

use super::database::{column, count, ensure_repository, repository};
use super::{Access, Error, Storage, now};

/// A link is touched again only where that was so many seconds ago: a push asks for every blob that it needs.
const TOUCH_EVERY: i64 = 300;

/// A blob that can be read.
#[derive(Debug)]
pub(crate) struct Blob {
    /// Its file, which stays readable whatever happens to the blob.
    pub(crate) file: File,
    /// Its size in bytes.
    pub(crate) size: u64,
}

/// Why somebody wants to know a blob.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Intent {
    Read,
    /// He may be about to push a manifest that names it, so it must stay for the grace period.
    Rely,
}

impl Storage {
    /// Opens a blob of a repository.
    pub(crate) fn blob(&self, repository: &str, digest: &Digest) -> Result<Option<Blob>, Error> {
        let Some(size) = self.find(repository, digest, Intent::Read)? else { return Ok(None) };
        let path = self.blob_path(digest);
        let file = match File::open(&path) {
            Ok(file) => file,
            // Deleted and collected since we looked.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::io("open", &path)(error)),
        };
        let found = file.metadata().map_err(Error::io("stat", &path))?.len();
        if found != size {
            return Err(Error::Damaged { digest: digest.to_string(), path, found, expected: size });
        }
        Ok(Some(Blob { file, size }))
    }

    /// The size of a blob of a repository. Who asks may go on to push what names it, so collection leaves it alone for a while.
    pub(crate) fn rely_on_blob(&self, repository: &str, digest: &Digest) -> Result<Option<u64>, Error> {
        self.find(repository, digest, Intent::Rely)
    }

    fn find(&self, name: &str, digest: &Digest, intent: Intent) -> Result<Option<u64>, Error> {
        let text = digest.to_string();
        let found: Option<(u64, i64)> = self.database.read("look up a blob", |connection| {
            let sql = "SELECT size, touched FROM repositories r JOIN links l ON l.repository = r.id JOIN blobs b ON b.digest = l.digest
                       WHERE r.name = ?1 AND l.digest = ?2";
            connection.prepare_cached(sql)?.query_row(params![name, text], |row| Ok((count(row, 0)?, row.get(1)?))).optional()
        })?;
        let Some((size, touched)) = found else { return Ok(None) };
        if intent == Intent::Rely && self.access == Access::Write && now() - touched > TOUCH_EVERY {
            let changed = self.database.write("touch a blob", |tx| {
                let Some(id) = repository(tx, name)? else { return Ok(0) };
                Ok(tx.execute("UPDATE links SET touched = ?3 WHERE repository = ?1 AND digest = ?2", params![id, text, now()])?)
            })?;
            // Collected since we looked.
            return Ok((changed > 0).then_some(size));
        }
        Ok(Some(size))
    }

    /// Shows a blob of repository `from` (or of any, if that is `None`) in `repository` too; tells whether there was one.
    pub(crate) fn mount_blob(&self, name: &str, digest: &Digest, from: Option<&str>) -> Result<bool, Error> {
        let text = digest.to_string();
        self.database.write("mount a blob", |tx| {
            let sql =
                "SELECT 1 FROM links l JOIN repositories r ON r.id = l.repository WHERE l.digest = ?1 AND (?2 IS NULL OR r.name = ?2)";
            let there = tx.prepare_cached(sql)?.exists(params![text, from])?;
            if there {
                link(tx, name, &text)?;
            }
            Ok(there)
        })
    }

    /// Makes the file `path`, whose content was hashed and synced, the blob `digest` of a repository.
    pub(super) fn adopt_blob(&self, path: &Path, name: &str, digest: &Digest, size: u64) -> Result<(), Error> {
        let (target, dir, text) = (self.blob_path(digest), self.blob_dir(digest), digest.to_string());
        self.database.write("store a blob", |tx| {
            // Inside of the transaction, so that no collection can take the file for garbage before its row is there.
            std::fs::rename(path, &target).map_err(Error::io("rename", path))?;
            File::open(&dir).and_then(|dir| dir.sync_all()).map_err(Error::io("sync", &dir))?;
            tx.execute("INSERT INTO blobs (digest, size) VALUES (?1, ?2) ON CONFLICT DO NOTHING", params![text, column(size)])?;
            link(tx, name, &text)?;
            Ok(())
        })
    }

    /// Takes a blob out of a repository; tells whether it was there. The next collection frees its bytes if nobody else has it.
    pub(crate) fn delete_blob(&self, name: &str, digest: &Digest) -> Result<bool, Error> {
        self.database.write("delete a blob", |tx| {
            let Some(id) = repository(tx, name)? else { return Ok(false) };
            Ok(tx.execute("DELETE FROM links WHERE repository = ?1 AND digest = ?2", params![id, digest.to_string()])? > 0)
        })
    }
}

fn link(tx: &rusqlite::Transaction<'_>, name: &str, digest: &str) -> rusqlite::Result<()> {
    let id = ensure_repository(tx, name)?;
    let sql = "INSERT INTO links (repository, digest, touched) VALUES (?1, ?2, ?3) ON CONFLICT DO UPDATE SET touched = excluded.touched";
    tx.execute(sql, params![id, digest, now()])?;
    Ok(())
}
