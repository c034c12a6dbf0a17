//! The database itself: whether SQLite can read all of it, and a new one made of what can be read of it.

use std::fs;
use std::path::{Path, PathBuf};

use rusqlite::types::Value;
use rusqlite::{Connection, OpenFlags, params_from_iter};

use crate::store::database::Fault;
use crate::store::error::is_damage;
use crate::store::lock::Kind;
use crate::store::open::now;
use crate::store::prune::{name_of, paths};
use crate::store::{Error, Store};

use super::Problem;

/// What became of a damaged database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rebuilt {
    /// Where the old one is now; none where there was none.
    pub aside: Option<PathBuf>,
    /// How many rows were kept.
    pub kept: usize,
    /// The volumes whose rows were made again of their directories.
    pub volumes: Vec<String>,
}

/// How many of SQLite's complaints are told.
const COMPLAINTS: usize = 5;

impl Store {
    /// What is wrong with the database.
    pub(crate) fn check_database(&self) -> Result<Vec<Problem>, Error> {
        let path = self.layout().database();
        let problem = |what: String| vec![Problem::Database { path: path.clone(), what }];
        if path.symlink_metadata().is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound) {
            return Ok(problem("it is missing".to_owned()));
        }
        let complaints = self.database().read("check", |db| {
            // The tables that every command reads, so that an empty or foreign file is noticed.
            db.query_row("SELECT count(*) FROM names JOIN images ON image = id", [], |row| row.get::<_, i64>(0))?;
            let sql = format!("PRAGMA integrity_check({COMPLAINTS})");
            db.prepare(&sql)?.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<Vec<String>>>()
        });
        match complaints {
            Ok(complaints) if complaints == ["ok"] => Ok(Vec::new()),
            Ok(complaints) => Ok(problem(complaints.join("; ").replace('\n', " "))),
            Err(Error::Database { source, .. }) if is_damage(&source) => Ok(problem(source.to_string())),
            Err(error) => Err(error),
        }
    }

    /// Puts a new database in the place of a damaged one, with all rows that can still be read. The old one is kept beside it. Nobody else should use the store:
    /// who has the old one open goes on writing there.
    ///
    /// # Errors
    /// The new one cannot be written.
    pub fn rebuild_database(&self) -> Result<Rebuilt, Error> {
        let _exclusive = self.lock_store(Kind::Exclusive)?;
        self.database().forget_connections();
        let path = self.layout().database();
        let aside = move_aside(&path)?;
        self.database().create()?;
        let mut rebuilt = Rebuilt { aside, kept: 0, volumes: Vec::new() };
        if let Some(old) = rebuilt.aside.as_ref().and_then(|old| open_damaged(old)) {
            rebuilt.kept = self.database().write_durably("copy what can be read", |tx| Ok(copy_tables(&old, tx)?))?;
        }
        let names: Vec<String> = paths(&self.layout().volumes())?.iter().map(|path| name_of(path).to_owned()).collect();
        rebuilt.volumes = self.database().write_durably("record volumes", |tx| record_volumes(tx, names))?;
        Ok(rebuilt)
    }
}

/// Renames the database and its log; gives its new name.
fn move_aside(path: &Path) -> Result<Option<PathBuf>, Error> {
    let aside = path.with_file_name(format!("meta.db.damaged-{}", now()));
    let with = |path: &Path, suffix: &str| {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        PathBuf::from(name)
    };
    let mut found = None;
    for suffix in ["", "-wal", "-shm"] {
        let (from, to) = (with(path, suffix), with(&aside, suffix));
        match fs::rename(&from, &to) {
            Ok(()) if suffix.is_empty() => found = Some(to),
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(Error::io("move away", &from)(error)),
        }
    }
    Ok(found)
}

fn open_damaged(path: &Path) -> Option<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    Connection::open_with_flags(path, flags).ok()
}

/// Copies the rows that can be read of each table that the new database has; gives how many those are.
fn copy_tables(old: &Connection, new: &Connection) -> rusqlite::Result<usize> {
    let tables: Vec<String> = new
        .prepare("SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%' AND name <> 'removals'")?
        .query_map([], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    // Rows come in any order, and what they refer to may be lost: the next look tells.
    new.execute_batch("PRAGMA defer_foreign_keys = on")?;
    let mut kept = 0;
    for table in tables {
        let columns: Vec<String> =
            new.prepare("SELECT name FROM pragma_table_info(?)")?.query_map([&table], |row| row.get(0))?.collect::<Result<_, _>>()?;
        let list = columns.join(", ");
        let marks = vec!["?"; columns.len()].join(", ");
        let mut insert = new.prepare(&format!("INSERT OR IGNORE INTO {table} ({list}) VALUES ({marks})"))?;
        // From both ends: a damaged page in the middle hides what lies beyond it.
        for order in ["", "DESC"] {
            let from = format!("SELECT {list} FROM {table} ORDER BY 1 {order}");
            let Ok(mut query) = old.prepare(&from) else { continue };
            let Ok(mut rows) = query.query([]) else { continue };
            while let Ok(Some(row)) = rows.next() {
                let values: Result<Vec<Value>, _> = (0..columns.len()).map(|at| row.get(at)).collect();
                // What has another type than the table wants is no row of ours.
                kept += values.ok().and_then(|values| insert.execute(params_from_iter(values)).ok()).unwrap_or(0);
            }
        }
    }
    new.execute("DELETE FROM cache_keys WHERE record NOT IN (SELECT id FROM cache_records)", [])?;
    Ok(kept)
}

/// Records the volumes that have files and no row: they are the user's, and are never given up.
pub(super) fn record_volumes(tx: &Connection, names: Vec<String>) -> Result<Vec<String>, Fault> {
    let mut made = Vec::new();
    let sql = "INSERT OR IGNORE INTO volumes (name, anonymous, labels, created_at) VALUES (?, ?, '{}', ?)";
    for name in names {
        // Names that nobody chose are random and have 64 digits.
        let anonymous = name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_hexdigit());
        if tx.execute(sql, rusqlite::params![name, anonymous, now()])? > 0 {
            made.push(name);
        }
    }
    Ok(made)
}
