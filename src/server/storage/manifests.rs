//! Manifests and tags. A manifest's bytes are in the database, so that it appears with its tag, its contents and its place among the referrers at one instant.

use rusqlite::{OptionalExtension, params};

use crate::oci::{Descriptor, Digest};

use super::database::{column, count, ensure_repository, repository};
use super::{Error, Storage};

/// A manifest that is to be stored.
#[derive(Clone, Debug)]
pub(crate) struct NewManifest {
    /// The digest of `bytes`.
    pub(crate) digest: Digest,
    /// The media type to serve it under.
    pub(crate) media_type: String,
    /// The document.
    pub(crate) bytes: Vec<u8>,
    /// Blobs that must be in the repository already.
    pub(crate) required: Vec<Digest>,
    /// Everything that it names, with sizes.
    pub(crate) contents: Vec<(Digest, u64)>,
    /// What it is about, and how it is shown among the referrers of that.
    pub(crate) referrer: Option<(Digest, Descriptor)>,
}

/// A manifest that is there.
#[derive(Clone, Debug)]
pub(crate) struct StoredManifest {
    /// The digest of `bytes`.
    pub(crate) digest: Digest,
    /// The media type that it came under.
    pub(crate) media_type: String,
    /// The document.
    pub(crate) bytes: Vec<u8>,
}

/// What came of storing a manifest.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Put {
    /// It is stored.
    Stored,
    /// These blobs are not in the repository; nothing was stored.
    Missing(Vec<Digest>),
}

impl Storage {
    /// Stores a manifest and makes `tags` point to it.
    pub(crate) fn put_manifest(&self, name: &str, manifest: &NewManifest, tags: &[String]) -> Result<Put, Error> {
        let digest = manifest.digest.to_string();
        let subject = manifest.referrer.as_ref().map(|(subject, _)| subject.to_string());
        let descriptor = manifest.referrer.as_ref().map(|(_, descriptor)| descriptor);
        let artifact_type = descriptor.and_then(|descriptor| descriptor.artifact_type.clone());
        let descriptor = descriptor.map(|descriptor| serde_json::json!(descriptor).to_string());
        self.database.write("store a manifest", |tx| {
            let id = repository(tx, name)?;
            let mut has = tx.prepare_cached("SELECT 1 FROM links WHERE repository = ?1 AND digest = ?2")?;
            let mut missing = Vec::new();
            for blob in &manifest.required {
                if !has.exists(params![id, blob.to_string()])? && !missing.contains(blob) {
                    missing.push(blob.clone());
                }
            }
            if !missing.is_empty() {
                return Ok(Put::Missing(missing));
            }
            let id = ensure_repository(tx, name)?;
            let sql = "INSERT INTO manifests (repository, digest, media_type, bytes, subject, artifact_type, descriptor)
                       VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) ON CONFLICT DO UPDATE SET media_type = excluded.media_type, descriptor = excluded.descriptor";
            tx.execute(sql, params![id, digest, manifest.media_type, manifest.bytes, subject, artifact_type, descriptor])?;
            let mut names = tx.prepare_cached("INSERT OR IGNORE INTO contents (repository, digest, manifest, size) VALUES (?1, ?2, ?3, ?4)")?;
            for (content, size) in &manifest.contents {
                names.execute(params![id, content.to_string(), digest, column(*size)])?;
            }
            for tag in tags {
                let sql = "INSERT INTO tags (repository, name, digest) VALUES (?1, ?2, ?3) ON CONFLICT DO UPDATE SET digest = excluded.digest";
                tx.execute(sql, params![id, tag, digest])?;
            }
            Ok(Put::Stored)
        })
    }

    /// The manifest of a digest.
    pub(crate) fn manifest(&self, name: &str, digest: &Digest) -> Result<Option<StoredManifest>, Error> {
        let found = self.database.read("look up a manifest", |connection| {
            let sql =
                "SELECT media_type, bytes FROM manifests m JOIN repositories r ON r.id = m.repository WHERE r.name = ?1 AND m.digest = ?2";
            connection.prepare_cached(sql)?.query_row(params![name, digest.to_string()], |row| Ok((row.get(0)?, row.get(1)?))).optional()
        })?;
        Ok(found.map(|(media_type, bytes)| StoredManifest { digest: digest.clone(), media_type, bytes }))
    }

    /// The digest that a tag points to.
    pub(crate) fn tag(&self, name: &str, tag: &str) -> Result<Option<Digest>, Error> {
        let found: Option<String> = self.database.read("look up a tag", |connection| {
            let sql = "SELECT t.digest FROM tags t JOIN repositories r ON r.id = t.repository WHERE r.name = ?1 AND t.name = ?2";
            connection.prepare_cached(sql)?.query_row([name, tag], |row| row.get(0)).optional()
        })?;
        Ok(found.and_then(|digest| digest.parse().ok()))
    }

    /// Removes a tag; tells whether it was there. The manifest stays.
    pub(crate) fn delete_tag(&self, name: &str, tag: &str) -> Result<bool, Error> {
        self.database.write("delete a tag", |tx| {
            let Some(id) = repository(tx, name)? else { return Ok(false) };
            Ok(tx.execute("DELETE FROM tags WHERE repository = ?1 AND name = ?2", params![id, tag])? > 0)
        })
    }

    /// Removes a manifest with all tags that point to it; tells whether it was there. Its blobs stay until the next collection.
    pub(crate) fn delete_manifest(&self, name: &str, digest: &Digest) -> Result<bool, Error> {
        let digest = digest.to_string();
        self.database.write("delete a manifest", |tx| {
            let Some(id) = repository(tx, name)? else { return Ok(false) };
            tx.execute("DELETE FROM tags WHERE repository = ?1 AND digest = ?2", params![id, digest])?;
            tx.execute("DELETE FROM contents WHERE repository = ?1 AND manifest = ?2", params![id, digest])?;
            Ok(tx.execute("DELETE FROM manifests WHERE repository = ?1 AND digest = ?2", params![id, digest])? > 0)
        })
    }

    /// The size that a manifest of the repository gives for a blob, if any names it.
    pub(crate) fn named_size(&self, name: &str, digest: &Digest) -> Result<Option<u64>, Error> {
        self.database.read("look up a size", |connection| {
            let sql =
                "SELECT c.size FROM contents c JOIN repositories r ON r.id = c.repository WHERE r.name = ?1 AND c.digest = ?2 LIMIT 1";
            connection.prepare_cached(sql)?.query_row(params![name, digest.to_string()], |row| count(row, 0)).optional()
        })
    }
}
