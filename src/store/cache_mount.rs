//! Cache mounts: directories that steps keep between builds (`RUN --mount=type=cache`).
//!
//! Whoever uses one holds a lock: shared, or exclusive for `sharing=locked`. A private one takes the first instance that nobody uses. A new one is
//! handed out exclusively until it has been seeded, so nobody sees half of a seed; what a killed seeder left is cleared.

use std::fs::File;
use std::path::{Path, PathBuf};

use rusqlite::{OptionalExtension, params};

use crate::task::fault_point;

use super::layout::hex;
use super::lock::{Kind, Wait, lock, lock_file};
use super::open::{make_dir, now, set_mode, stale_use};
use super::remove::discard;
use super::{Error, Store};

/// Who else may use a cache mount at the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MountSharing {
    /// Anyone.
    Shared,
    /// Nobody: others wait.
    Locked,
    /// Nobody: others get another directory.
    Private,
}

/// A cache mount in use. Dropping it lets others have it.
#[must_use = "the cache mount may be pruned as soon as this is dropped"]
#[derive(Debug)]
pub struct CacheMount {
    dir: PathBuf,
    lock: File,
    sharing: MountSharing,
    is_new: bool,
}

impl CacheMount {
    /// The directory to mount.
    pub fn path(&self) -> PathBuf {
        self.dir.join("fs")
    }

    /// Whether it is empty and this caller's to seed (files, owner, mode). Then [`CacheMount::seeded`] must follow.
    pub fn is_new(&self) -> bool {
        self.is_new
    }

    /// Declares the mount seeded: from now on others may share it. Does nothing where it was not new.
    pub fn seeded(&mut self) -> Result<(), Error> {
        if !self.is_new {
            return Ok(());
        }
        let ready = self.ready();
        File::create(&ready).map_err(Error::io("create", &ready))?;
        fault_point("mount:seeded");
        self.is_new = false;
        if self.sharing == MountSharing::Shared {
            lock(&self.lock, &self.dir, Kind::Shared, Wait::Yes)?;
        }
        Ok(())
    }

    fn ready(&self) -> PathBuf {
        self.dir.join("ready")
    }
}

impl Store {
    /// Takes the cache mount `id`, which is made where there is none. Blocks where `sharing` says so. `description` is for people.
    pub fn cache_mount(&self, id: &[u8; 32], description: &str, sharing: MountSharing) -> Result<CacheMount, Error> {
        self.take_mount(id, description, sharing, sharing)
    }

    /// The same, emptied: waits until nobody uses it, then it is as a new one.
    pub fn empty_cache_mount(&self, id: &[u8; 32], description: &str, sharing: MountSharing) -> Result<CacheMount, Error> {
        let alone = if sharing == MountSharing::Private { MountSharing::Private } else { MountSharing::Locked };
        let mut mount = self.take_mount(id, description, sharing, alone)?;
        if !mount.is_new {
            self.make_mount(&mut mount)?;
        }
        Ok(mount)
    }

    /// Takes a mount for `sharing`, locked as for `locked`.
    fn take_mount(&self, id: &[u8; 32], description: &str, sharing: MountSharing, locked: MountSharing) -> Result<CacheMount, Error> {
        let mut instance = 0;
        let (name, lock) = loop {
            let name = format!("{}.{instance}", hex(id));
            let lock_path = self.layout().lock(format_args!("mount-{name}"));
            match self.lock_mount(&name, &lock_path, locked)? {
                Some(lock) => break (name, lock),
                None => instance += 1,
            }
        };
        let dir = self.layout().cache_mounts().join(&name);
        let mut mount = CacheMount { dir, lock, sharing, is_new: false };
        if !mount.ready().try_exists().map_err(Error::io("stat", &mount.dir))? {
            self.make_mount(&mut mount)?;
        }
        self.record_mount(id, instance, description)?;
        Ok(mount)
    }

    /// Locks one instance: exclusively where the mount is yet to be seeded. `None` where a private one is in use.
    fn lock_mount(&self, name: &str, path: &Path, sharing: MountSharing) -> Result<Option<File>, Error> {
        let ready = self.layout().cache_mounts().join(name).join("ready");
        let is_ready = || ready.try_exists().map_err(Error::io("stat", &ready));
        match sharing {
            MountSharing::Locked => lock_file(path, Kind::Exclusive, Wait::Yes),
            MountSharing::Private => lock_file(path, Kind::Exclusive, Wait::No),
            MountSharing::Shared => loop {
                // Waits for whoever is seeding it, and then shares it.
                let shared = lock_file(path, Kind::Shared, Wait::Yes)?;
                if is_ready()? {
                    return Ok(shared);
                }
                drop(shared);
                // It is new (or prune removed it): never waits here, or it would wait for all who share it from then on.
                if let Some(file) = lock_file(path, Kind::Exclusive, Wait::No)?
                    && !is_ready()?
                {
                    return Ok(Some(file));
                }
            },
        }
    }

    fn make_mount(&self, mount: &mut CacheMount) -> Result<(), Error> {
        if mount.dir.try_exists().map_err(Error::io("stat", &mount.dir))? {
            discard(self, &mount.dir)?;
        }
        make_dir(&mount.dir, 0o711)?;
        let path = mount.path();
        make_dir(&path, 0o755)?;
        set_mode(&path, 0o755)?;
        mount.is_new = true;
        fault_point("mount:made");
        Ok(())
    }

    fn record_mount(&self, id: &[u8; 32], instance: i64, description: &str) -> Result<(), Error> {
        let now = now();
        let last_used = self.database().read("look a cache mount up", |db| {
            let sql = "SELECT last_used FROM cache_mounts WHERE id = ? AND instance = ?";
            db.prepare_cached(sql)?.query_row(params![id, instance], |row| row.get::<_, i64>(0)).optional()
        })?;
        if last_used.is_some_and(|last_used| !stale_use(now)(last_used)) {
            return Ok(());
        }
        self.database().write("record a cache mount", |tx| {
            let sql = "INSERT INTO cache_mounts (id, instance, description, created_at, last_used) VALUES (?1, ?2, ?3, ?4, ?4)
                ON CONFLICT DO UPDATE SET last_used = excluded.last_used, description = excluded.description";
            tx.prepare_cached(sql)?.execute(params![id, instance, description, now])?;
            Ok(())
        })
    }
}
