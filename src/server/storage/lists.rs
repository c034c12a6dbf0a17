//! Lists: tags, repositories, referrers; and how much there is of everything.

use rusqlite::params;

use crate::oci::{Descriptor, Digest};

use super::database::{count, repository};
use super::{Error, Storage};

/// Which part of a list is wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Page {
    /// At most so many; `None`: all.
    pub(crate) limit: Option<u32>,
    /// Only what comes after this one.
    pub(crate) after: Option<String>,
}

/// How much there is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    /// Repositories.
    pub(crate) repositories: u64,
    /// Manifests, in all repositories.
    pub(crate) manifests: u64,
    /// Blobs, each counted once.
    pub(crate) blobs: u64,
    /// Their bytes.
    pub(crate) blob_bytes: u64,
    /// Uploads that have begun and not ended.
    pub(crate) uploads: u64,
}

/// What limits a page in SQLite: -1 is no limit. One more than wanted, to see whether there are more.
fn limit(page: &Page) -> i64 {
    page.limit.map_or(-1, |limit| i64::from(limit) + 1)
}

/// Cuts a list to the page; tells whether there are more.
pub(crate) fn cut<T>(mut found: Vec<T>, page: &Page) -> (Vec<T>, bool) {
    let wanted = page.limit.map_or(usize::MAX, |limit| limit as usize);
    let more = found.len() > wanted;
    found.truncate(wanted);
    // A page of nothing leads nowhere.
    (found, more && wanted > 0)
}

impl Storage {
    /// The tags of a repository without regard to case, and whether there are more; `None` where there is no such repository.
    pub(crate) fn tags(&self, name: &str, page: &Page) -> Result<Option<(Vec<String>, bool)>, Error> {
        self.database.read("list tags", |connection| {
            let Some(id) = repository(connection, name)? else { return Ok(None) };
            let sql = "SELECT name FROM tags WHERE repository = ?1
                       AND (?2 IS NULL OR name > ?2 COLLATE NOCASE OR (name = ?2 COLLATE NOCASE AND name > ?2))
                       ORDER BY name COLLATE NOCASE, name LIMIT ?3";
            let mut statement = connection.prepare_cached(sql)?;
            let found = statement.query_map(params![id, page.after, limit(page)], |row| row.get(0))?.collect::<Result<_, _>>()?;
            Ok(Some(cut(found, page)))
        })
    }

    /// The repositories that have manifests, by name, and whether there are more.
    pub(crate) fn repositories(&self, page: &Page) -> Result<(Vec<String>, bool), Error> {
        self.database.read("list repositories", |connection| {
            let sql = "SELECT name FROM repositories WHERE (?1 IS NULL OR name > ?1)
                       AND EXISTS (SELECT 1 FROM manifests WHERE repository = repositories.id) ORDER BY name LIMIT ?2";
            let mut statement = connection.prepare_cached(sql)?;
            let found = statement.query_map(params![page.after, limit(page)], |row| row.get(0))?.collect::<Result<_, _>>()?;
            Ok(cut(found, page))
        })
    }

    /// The manifests of a repository that are about `subject`, by digest, and whether there are more.
    pub(crate) fn referrers(
        &self,
        name: &str,
        subject: &Digest,
        artifact_type: Option<&str>,
        page: &Page,
    ) -> Result<(Vec<Descriptor>, bool), Error> {
        let found: Vec<String> = self.database.read("list referrers", |connection| {
            let Some(id) = repository(connection, name)? else { return Ok(Vec::new()) };
            let sql = "SELECT descriptor FROM manifests WHERE repository = ?1 AND subject = ?2
                       AND (?3 IS NULL OR artifact_type = ?3) AND (?4 IS NULL OR digest > ?4) ORDER BY digest LIMIT ?5";
            let mut statement = connection.prepare_cached(sql)?;
            let rows = statement.query_map(params![id, subject.to_string(), artifact_type, page.after, limit(page)], |row| row.get(0))?;
            rows.collect()
        })?;
        let (found, more) = cut(found, page);
        Ok((found.iter().filter_map(|text| serde_json::from_str(text).ok()).collect(), more))
    }

    /// Counts everything.
    pub(crate) fn totals(&self) -> Result<Totals, Error> {
        let mut totals = self.database.read("count", |connection| {
            let sql =
                "SELECT (SELECT count(*) FROM repositories), (SELECT count(*) FROM manifests), count(*), coalesce(sum(size), 0) FROM blobs";
            connection.query_row(sql, [], |row| {
                Ok(Totals {
                    repositories: count(row, 0)?,
                    manifests: count(row, 1)?,
                    blobs: count(row, 2)?,
                    blob_bytes: count(row, 3)?,
                    uploads: 0,
                })
            })
        })?;
        totals.uploads = std::fs::read_dir(self.upload_dir()).map_or(0, |entries| entries.count() as u64);
        Ok(totals)
    }
}
