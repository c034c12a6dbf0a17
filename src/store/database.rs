//! The connections to `meta.db`, and its tables.
//!
//! WAL with `synchronous=NORMAL`: a commit costs no flush, and a power cut loses the last transactions but never part of one. Whoever promises more
//! uses [`Database::write_durably`]. Writers of this process queue on a mutex (fair, no polling); writers of other processes are met with
//! SQLite's busy handler, which sleeps far less than SQLite's own.
//!
//! A checkpoint waits for the disk, so the last connection does none when it closes and a long transaction does none either: `settle` does it.

use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags, Row, Transaction, TransactionBehavior};
use rustix::fs::{FallocateFlags, Mode, OFlags};
use rustix::io::Errno;

use crate::task::fault_point;

use super::Error;
use super::error::{LITTLE, is_out_of_bytes};

/// The tables. A change here is a new format: raise `FORMAT` and add a step to `migrate`.
const SCHEMA: &str = "
CREATE TABLE snapshots (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    diff_id TEXT,
    size INTEGER NOT NULL,
    tar_size INTEGER,
    description TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    settled INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE INDEX snapshots_unsettled ON snapshots (id) WHERE settled = 0;
CREATE INDEX snapshots_by_diff_id ON snapshots (diff_id) WHERE diff_id IS NOT NULL;

CREATE TABLE chains (
    chain TEXT PRIMARY KEY,
    snapshots BLOB NOT NULL,
    last_used INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE layer_blobs (
    diff_id TEXT NOT NULL,
    digest TEXT NOT NULL,
    size INTEGER NOT NULL,
    media_type TEXT NOT NULL,
    made_as TEXT,
    PRIMARY KEY (diff_id, digest)
) STRICT, WITHOUT ROWID;
CREATE INDEX layer_blobs_by_digest ON layer_blobs (digest);

CREATE TABLE images (
    id TEXT PRIMARY KEY,
    manifest TEXT,
    platform TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    size INTEGER NOT NULL,
    diff_ids TEXT NOT NULL,
    snapshots BLOB NOT NULL,
    settled INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;
CREATE INDEX images_unsettled ON images (id) WHERE settled = 0;

CREATE TABLE names (
    name TEXT PRIMARY KEY,
    image TEXT NOT NULL,
    manifest TEXT,
    tagged_at INTEGER NOT NULL,
    settled INTEGER NOT NULL DEFAULT 0,
    settled_image TEXT,
    settled_manifest TEXT
) STRICT, WITHOUT ROWID;
CREATE INDEX names_by_image ON names (image);
CREATE INDEX names_unsettled ON names (name) WHERE settled = 0;

CREATE TABLE remote_manifests (
    name TEXT PRIMARY KEY,
    digest TEXT NOT NULL,
    media_type TEXT NOT NULL,
    checked_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE cache_records (
    id INTEGER PRIMARY KEY,
    result BLOB NOT NULL,
    output BLOB NOT NULL,
    snapshots BLOB NOT NULL,
    created_at INTEGER NOT NULL,
    last_used INTEGER NOT NULL
) STRICT;
CREATE TABLE cache_keys (
    key BLOB PRIMARY KEY,
    record INTEGER NOT NULL REFERENCES cache_records ON DELETE CASCADE
) STRICT, WITHOUT ROWID;
CREATE INDEX cache_keys_by_record ON cache_keys (record);

CREATE TABLE steps (
    slot BLOB PRIMARY KEY,
    components BLOB NOT NULL,
    used_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE checksums (
    dev INTEGER NOT NULL,
    ino INTEGER NOT NULL,
    size INTEGER NOT NULL,
    mtime INTEGER NOT NULL,
    ctime INTEGER NOT NULL,
    sum BLOB NOT NULL,
    PRIMARY KEY (dev, ino)
) STRICT, WITHOUT ROWID;

CREATE TABLE cache_mounts (
    id BLOB NOT NULL,
    instance INTEGER NOT NULL,
    description TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    last_used INTEGER NOT NULL,
    PRIMARY KEY (id, instance)
) STRICT, WITHOUT ROWID;

CREATE TABLE containers (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    image TEXT,
    snapshots BLOB NOT NULL,
    created_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE volumes (
    name TEXT PRIMARY KEY,
    anonymous INTEGER NOT NULL,
    labels TEXT NOT NULL,
    created_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE networks (
    name TEXT PRIMARY KEY,
    config BLOB NOT NULL,
    created_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
";

/// Counts the removals of snapshots, whoever does them: what was seen before the last one has to be looked at again.
const REMOVALS: &str = "
CREATE TABLE removals (count INTEGER NOT NULL) STRICT;
INSERT INTO removals VALUES (0);
CREATE TRIGGER snapshots_removed AFTER DELETE ON snapshots BEGIN UPDATE removals SET count = count + 1; END;
";

/// How long the log may be before `settle` empties it: reading this much takes some 50 µs.
const LOG_LENGTH: u64 = 128 * 1024;

/// How many idle connections are kept.
const IDLE_CONNECTIONS: usize = 4;

/// The database of one store.
pub(crate) struct Database {
    path: PathBuf,
    /// Why it cannot be written, where that is so.
    read_only: Option<Errno>,
    idle: Mutex<Vec<Connection>>,
    writer: Mutex<()>,
}

/// What stops a transaction: SQLite, or something else that the store was doing in it.
pub(crate) enum Fault {
    Sql(rusqlite::Error),
    Store(Error),
}

impl From<rusqlite::Error> for Fault {
    fn from(error: rusqlite::Error) -> Fault {
        Fault::Sql(error)
    }
}

impl From<rusqlite::types::FromSqlError> for Fault {
    fn from(error: rusqlite::types::FromSqlError) -> Fault {
        Fault::Sql(error.into())
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Fault {
        Fault::Store(error)
    }
}

impl Database {
    /// The database in the file `path`; nothing is opened yet.
    pub(crate) fn new(path: PathBuf, read_only: Option<Errno>) -> Database {
        Database { path, read_only, idle: Mutex::new(Vec::new()), writer: Mutex::new(()) }
    }

    /// Makes the tables in a new (or half made) file.
    pub(crate) fn create(&self) -> Result<(), Error> {
        let action = "make the tables";
        let fault = |source| self.error(action, Fault::Sql(source));
        let connection = self.open(OpenFlags::SQLITE_OPEN_CREATE).map_err(fault)?;
        connection.pragma_update(None, "journal_mode", "wal").map_err(fault)?;
        fault_point("database:created");
        self.give_back(connection);
        self.write_durably(action, |tx| {
            let tables: i64 = tx.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
            if tables == 0 {
                tx.execute_batch(SCHEMA)?;
                tx.execute_batch(REMOVALS)?;
                tx.pragma_update(None, "user_version", super::FORMAT)?;
            }
            Ok(())
        })
    }

    /// Brings the tables of an older format up to this one.
    pub(crate) fn migrate(&self) -> Result<(), Error> {
        self.write_durably("bring the tables up to date", |tx| {
            let found: u32 = tx.query_row("PRAGMA user_version", [], |row| row.get(0))?;
            if found < 2 {
                tx.execute_batch("ALTER TABLE layer_blobs ADD COLUMN made_as TEXT")?;
            }
            // The tables by which records were found that name a snapshot stay, for processes that are still at work. Nobody else looks into them.
            if found < 3 {
                tx.execute_batch(REMOVALS)?;
            }
            tx.pragma_update(None, "user_version", super::FORMAT)?;
            Ok(())
        })
    }

    /// Reads.
    pub(crate) fn read<T>(&self, action: &'static str, f: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T, Error> {
        let connection = self.take(action)?;
        let outcome = f(&connection);
        self.give_back(connection);
        outcome.map_err(|source| self.error(action, Fault::Sql(source)))
    }

    /// Reads several things as of one instant.
    pub(crate) fn read_together<T>(&self, action: &'static str, f: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T, Error> {
        self.read(action, |connection| {
            let tx = connection.unchecked_transaction()?;
            f(&tx)
        })
    }

    /// Writes in one transaction: all of it happens or nothing. Visible at once, durable some time later.
    pub(crate) fn write<T>(&self, action: &'static str, f: impl FnOnce(&Transaction<'_>) -> Result<T, Fault>) -> Result<T, Error> {
        self.check_writable(action)?;
        let writer = self.queue();
        let mut connection = self.take(action)?;
        let outcome = transact(&mut connection, f);
        drop(writer);
        self.give_back(connection);
        outcome.map_err(|fault| self.error(action, fault))
    }

    /// Does what `write` does and takes it back: tells what would come of it.
    pub(crate) fn rehearse<T>(&self, action: &'static str, f: impl FnOnce(&Transaction<'_>) -> Result<T, Fault>) -> Result<T, Error> {
        self.check_writable(action)?;
        let _writer = self.queue();
        let mut connection = self.take(action)?;
        let outcome = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(Fault::Sql).and_then(|tx| f(&tx));
        self.give_back(connection);
        outcome.map_err(|fault| self.error(action, fault))
    }

    /// Writes in one transaction that is on the disk when this returns.
    pub(crate) fn write_durably<T>(&self, action: &'static str, f: impl FnOnce(&Transaction<'_>) -> Result<T, Fault>) -> Result<T, Error> {
        self.check_writable(action)?;
        let writer = self.queue();
        let mut connection = self.take(action)?;
        // SQLite ignores this pragma inside of a transaction, so it comes before.
        let outcome = connection
            .pragma_update(None, "synchronous", "full")
            .map_err(Fault::Sql)
            .and_then(|()| transact(&mut connection, f))
            .and_then(|value| connection.pragma_update(None, "synchronous", "normal").map(|()| value).map_err(Fault::Sql));
        drop(writer);
        if outcome.is_ok() {
            self.give_back(connection);
        }
        outcome.map_err(|fault| self.error(action, fault))
    }

    /// Moves what the log holds into the database where it is long: the first process to open the database reads all of the log.
    pub(crate) fn checkpoint_if_long(&self) -> Result<(), Error> {
        if !self.has_long_log() {
            return Ok(());
        }
        let _writer = self.queue();
        // Whoever reads at this moment keeps his part of the log; that is no error, and the next settling tries again.
        fault_point("database:before-checkpoint");
        self.read("write the log back", |connection| connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())))?;
        fault_point("database:after-checkpoint");
        Ok(())
    }

    /// Whether there is something to move.
    pub(crate) fn has_long_log(&self) -> bool {
        self.read_only.is_none() && self.log_length().is_some_and(|length| length >= LOG_LENGTH)
    }

    /// How long the log is, if there is one: only a store that nobody has written to yet has none.
    fn log_length(&self) -> Option<u64> {
        std::fs::metadata(self.beside("-wal")).ok().map(|metadata| metadata.len())
    }

    /// Whether all files are there that SQLite makes for a database, which stay when it is closed.
    pub(crate) fn has_its_files(&self) -> bool {
        self.path.exists() && ["-wal", "-shm"].iter().all(|suffix| self.beside(suffix).exists())
    }

    fn beside(&self, suffix: &str) -> PathBuf {
        let mut path = self.path.clone().into_os_string();
        path.push(suffix);
        path.into()
    }

    /// Closes the connections that are open and not in use.
    pub(crate) fn forget_connections(&self) {
        self.idle().clear();
    }

    fn queue(&self) -> MutexGuard<'_, ()> {
        // The mutex guards no data, so a thread that panicked with it left nothing half done.
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Connection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, action: &'static str) -> Result<Connection, Error> {
        let idle = self.idle().pop();
        match idle {
            Some(connection) => Ok(connection),
            None => {
                self.check_space()?;
                self.open(OpenFlags::empty()).map_err(|source| self.error(action, Fault::Sql(source)))
            }
        }
    }

    fn give_back(&self, connection: Connection) {
        let mut idle = self.idle();
        if idle.len() < IDLE_CONNECTIONS {
            idle.push(connection);
        }
    }

    fn open(&self, extra: OpenFlags) -> rusqlite::Result<Connection> {
        let access = if self.read_only.is_some() { OpenFlags::SQLITE_OPEN_READ_ONLY } else { OpenFlags::SQLITE_OPEN_READ_WRITE };
        let flags = access | OpenFlags::SQLITE_OPEN_NO_MUTEX | extra;
        let mut connection = match self.read_only.filter(|_| self.log_length().is_none_or(|length| length == 0)) {
            None => Connection::open_with_flags(&self.path, flags)?,
            // SQLite needs a log beside it, even to read, unless it is told that nobody writes.
            Some(_) => Connection::open_with_flags(self.immutable_address(), flags | OpenFlags::SQLITE_OPEN_URI)?,
        };
        connection.busy_handler(Some(wait_for_writer))?;
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
        connection.execute_batch(
            "PRAGMA synchronous=normal; PRAGMA mmap_size=67108864; PRAGMA foreign_keys=on; PRAGMA wal_autocheckpoint=4000;",
        )?;
        connection.set_prepared_statement_cache_capacity(64);
        Ok(connection)
    }

    /// The database's file as an address that says that it does not change.
    fn immutable_address(&self) -> String {
        let escape = |byte: &u8| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'.' | b'-' | b'_' => char::from(*byte).to_string(),
            byte => format!("%{byte:02X}"),
        };
        let path: String = self.path.as_os_str().as_bytes().iter().map(escape).collect();
        format!("file:{path}?immutable=1")
    }

    /// Fails where there is no space for the index of the log. SQLite maps that file into memory, and where blocks are smaller than pages it has holes then: the kernel
    /// kills who writes into a hole that cannot be filled. The store's reserve is given up first.
    fn check_space(&self) -> Result<(), Error> {
        if self.read_only.is_some() || !is_out_of_bytes(&self.path) {
            return Ok(());
        }
        let _ = std::fs::remove_file(self.path.with_file_name("reserve"));
        if !is_out_of_bytes(&self.path) {
            return Ok(());
        }
        // What is called free is not always what can be had, by root least of all: only trying tells. Without a name nothing is left of it.
        let dir = self.path.parent().unwrap_or(&self.path);
        let probe = rustix::fs::open(dir, OFlags::WRONLY | OFlags::TMPFILE | OFlags::CLOEXEC, Mode::RUSR | Mode::WUSR);
        match probe.and_then(|probe| rustix::fs::fallocate(probe, FallocateFlags::empty(), 0, LITTLE)) {
            Err(Errno::NOSPC | Errno::DQUOT) => Err(Error::io("open", &self.path)(Errno::NOSPC)),
            // Where it cannot be tried, SQLite tries.
            _ => Ok(()),
        }
    }

    fn check_writable(&self, action: &'static str) -> Result<(), Error> {
        match self.read_only {
            None => Ok(()),
            Some(errno) => {
                let root = self.path.parent().unwrap_or(&self.path).to_owned();
                Err(Error::ReadOnly { action, root, source: errno.into() })
            }
        }
    }

    fn error(&self, action: &'static str, fault: Fault) -> Error {
        match fault {
            Fault::Store(error) => error,
            Fault::Sql(source) if source.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) => {
                Error::DatabaseBusy { action, path: self.path.clone() }
            }
            Fault::Sql(source) => Error::Database { action, path: self.path.clone(), source },
        }
    }
}

fn transact<T>(connection: &mut Connection, f: impl FnOnce(&Transaction<'_>) -> Result<T, Fault>) -> Result<T, Fault> {
    let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let value = f(&tx)?;
    fault_point("database:written");
    tx.commit()?;
    fault_point("database:committed");
    Ok(value)
}

/// SQLite's busy handler: whether to try again after the `tries`th refusal. Gives up after half a minute.
fn wait_for_writer(tries: i32) -> bool {
    // A transaction of ours takes some 50 µs, so the first sleeps are as short.
    let pause = match tries {
        0..20 => Duration::from_micros(100),
        20..100 => Duration::from_micros(500),
        _ => Duration::from_millis(2),
    };
    if tries >= 15_000 {
        return false;
    }
    std::thread::sleep(pause);
    true
}

/// Reads a column that holds the text of something.
pub(crate) fn parsed<T>(row: &Row<'_>, column: usize) -> rusqlite::Result<T>
where
    T: std::str::FromStr<Err: std::error::Error + Send + Sync + 'static>,
{
    let text = row.get_ref(column)?.as_str()?;
    text.parse().map_err(|error| rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Text, Box::new(error)))
}

/// Reads a column that holds the text of something, or nothing.
pub(crate) fn parsed_option<T>(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<T>>
where
    T: std::str::FromStr<Err: std::error::Error + Send + Sync + 'static>,
{
    match row.get_ref(column)? {
        rusqlite::types::ValueRef::Null => Ok(None),
        _ => parsed(row, column).map(Some),
    }
}
