//! The connections to `registry.db`, and its tables.
//!
//! Readers never wait. Writers of this process queue on a mutex and those of other processes on SQLite's lock. Every commit is on the disk when it returns: what a
//! client was told to be stored is stored.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, OptionalExtension, Row, Transaction, TransactionBehavior};

use super::{Access, Error};

/// The version of the tables.
const FORMAT: u32 = 1;

/// The tables. `links` says which repository shows which blob, `contents` what each manifest names (the roots of garbage collection).
const SCHEMA: &str = "
CREATE TABLE repositories (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE) STRICT;

CREATE TABLE blobs (digest TEXT PRIMARY KEY, size INTEGER NOT NULL) STRICT, WITHOUT ROWID;

CREATE TABLE links (
    repository INTEGER NOT NULL,
    digest TEXT NOT NULL,
    touched INTEGER NOT NULL,
    PRIMARY KEY (repository, digest)
) STRICT, WITHOUT ROWID;
CREATE INDEX links_by_digest ON links (digest);

CREATE TABLE manifests (
    id INTEGER PRIMARY KEY,
    repository INTEGER NOT NULL,
    digest TEXT NOT NULL,
    media_type TEXT NOT NULL,
    bytes BLOB NOT NULL,
    subject TEXT,
    artifact_type TEXT,
    descriptor TEXT,
    UNIQUE (repository, digest)
) STRICT;
CREATE INDEX manifests_by_subject ON manifests (repository, subject) WHERE subject IS NOT NULL;

CREATE TABLE contents (
    repository INTEGER NOT NULL,
    digest TEXT NOT NULL,
    manifest TEXT NOT NULL,
    size INTEGER NOT NULL,
    PRIMARY KEY (repository, digest, manifest)
) STRICT, WITHOUT ROWID;
CREATE INDEX contents_by_manifest ON contents (repository, manifest);

CREATE TABLE tags (
    repository INTEGER NOT NULL,
    name TEXT NOT NULL,
    digest TEXT NOT NULL,
    PRIMARY KEY (repository, name)
) STRICT, WITHOUT ROWID;
CREATE INDEX tags_by_digest ON tags (repository, digest);
";

/// How many idle connections are kept.
const IDLE_CONNECTIONS: usize = 8;

/// How long another process may hold the lock.
const PATIENCE: Duration = Duration::from_secs(30);

/// The database of one storage.
pub(super) struct Database {
    path: PathBuf,
    /// How connections are opened: the URI and its flags.
    uri: String,
    flags: OpenFlags,
    idle: Mutex<Vec<Connection>>,
    writer: Mutex<()>,
}

/// What stops a transaction: SQLite, or something else that was done in it.
pub(super) enum Fault {
    Sql(rusqlite::Error),
    Other(Error),
}

impl From<rusqlite::Error> for Fault {
    fn from(error: rusqlite::Error) -> Fault {
        Fault::Sql(error)
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Fault {
        Fault::Other(error)
    }
}

impl Database {
    /// Opens the database of the storage `root`, and makes its tables where it may.
    pub(super) fn open(root: &Path, access: Access) -> Result<Database, Error> {
        let path = root.join("registry.db");
        let mut flags = OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_URI;
        flags |= match access {
            Access::Write => OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE,
            Access::Read => OpenFlags::SQLITE_OPEN_READ_ONLY,
        };
        let uri = format!("file:{}", escaped(&path));
        let mut database = Database { path, uri, flags, idle: Mutex::default(), writer: Mutex::default() };
        match access {
            Access::Write => database.create()?,
            Access::Read if !database.path.exists() => return Err(Error::NoStorage { path: root.to_owned() }),
            Access::Read if database.format().is_err() => {
                // Where SQLite cannot even make the file of its shared memory, nobody else writes either.
                database.uri.push_str("?immutable=1");
                database.idle.get_mut().unwrap_or_else(PoisonError::into_inner).clear();
            }
            Access::Read => {}
        }
        let found = database.format()?;
        if found != FORMAT {
            return Err(if found == 0 {
                Error::NoStorage { path: root.to_owned() }
            } else {
                Error::NewerStorage { path: root.to_owned(), found, known: FORMAT }
            });
        }
        Ok(database)
    }

    fn create(&self) -> Result<(), Error> {
        let action = "make the tables";
        let connection = self.take(action)?;
        connection.pragma_update(None, "journal_mode", "wal").map_err(|source| self.error(action, source.into()))?;
        self.give_back(connection);
        self.write(action, |tx| {
            let tables: i64 = tx.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
            if tables == 0 {
                tx.execute_batch(SCHEMA)?;
                tx.pragma_update(None, "user_version", FORMAT)?;
            }
            Ok(())
        })
    }

    fn format(&self) -> Result<u32, Error> {
        self.read("read the format", |connection| connection.query_row("PRAGMA user_version", [], |row| row.get(0)))
    }

    /// Reads, as of one instant.
    pub(super) fn read<T>(&self, action: &'static str, f: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T, Error> {
        let connection = self.take(action)?;
        let outcome = connection.unchecked_transaction().and_then(|tx| f(&tx));
        self.give_back(connection);
        outcome.map_err(|source| self.error(action, source.into()))
    }

    /// Writes in one transaction: all of it happens or nothing, and it is on the disk when this returns.
    pub(super) fn write<T>(&self, action: &'static str, f: impl FnOnce(&Transaction<'_>) -> Result<T, Fault>) -> Result<T, Error> {
        // The mutex guards no data, so a thread that panicked with it left nothing half done.
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let mut connection = self.take(action)?;
        let outcome = transact(&mut connection, f);
        drop(writer);
        self.give_back(connection);
        outcome.map_err(|fault| self.error(action, fault))
    }

    fn take(&self, action: &'static str) -> Result<Connection, Error> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        match idle {
            Some(connection) => Ok(connection),
            None => self.connect().map_err(|source| self.error(action, source.into())),
        }
    }

    fn connect(&self) -> rusqlite::Result<Connection> {
        let connection = Connection::open_with_flags(&self.uri, self.flags)?;
        connection.busy_timeout(PATIENCE)?;
        connection.execute_batch("PRAGMA synchronous=full; PRAGMA wal_autocheckpoint=2000;")?;
        connection.set_prepared_statement_cache_capacity(64);
        Ok(connection)
    }

    fn give_back(&self, connection: Connection) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < IDLE_CONNECTIONS {
            idle.push(connection);
        }
    }

    fn error(&self, action: &'static str, fault: Fault) -> Error {
        match fault {
            Fault::Other(error) => error,
            Fault::Sql(source) => Error::Database { action, path: self.path.clone(), source },
        }
    }
}

fn transact<T>(connection: &mut Connection, f: impl FnOnce(&Transaction<'_>) -> Result<T, Fault>) -> Result<T, Fault> {
    let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let value = f(&tx)?;
    tx.commit()?;
    Ok(value)
}

/// The number of a repository, if it is there.
pub(super) fn repository(connection: &Connection, name: &str) -> rusqlite::Result<Option<i64>> {
    connection.prepare_cached("SELECT id FROM repositories WHERE name = ?1")?.query_row([name], |row| row.get(0)).optional()
}

/// The number of a repository, which is made if it is not there.
pub(super) fn ensure_repository(tx: &Transaction<'_>, name: &str) -> rusqlite::Result<i64> {
    if let Some(id) = repository(tx, name)? {
        return Ok(id);
    }
    tx.execute("INSERT INTO repositories (name) VALUES (?1)", [name])?;
    Ok(tx.last_insert_rowid())
}

/// A column that holds a size or a count.
pub(super) fn count(row: &Row<'_>, column: usize) -> rusqlite::Result<u64> {
    let value: i64 = row.get(column)?;
    u64::try_from(value).map_err(|_| rusqlite::Error::IntegralValueOutOfRange(column, value))
}

/// A size as a column holds it.
pub(super) fn column(size: u64) -> i64 {
    i64::try_from(size).unwrap_or(i64::MAX)
}

/// A path as a part of SQLite's URIs, which give `?`, `#` and `%` meanings.
fn escaped(path: &Path) -> String {
    path.to_string_lossy().replace('%', "%25").replace('?', "%3f").replace('#', "%23")
}
