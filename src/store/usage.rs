//! What everything in the store takes on the disk.
//!
//! Sizes are blocks on the disk, and what is in several places by hard links counts once, so that the sums are what would be free without it. (Blocks that files
//! share by reflinks cannot be seen from outside and count for each.) A committed snapshot never changes, so it is walked once and its size remembered in a table of its
//! own, which is no part of the store's format: whatever is in it can be found out again.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OptionalExtension, params};
use walkdir::WalkDir;

use crate::oci::{DiffId, Digest, Reference};

use super::database::{parsed, parsed_option};
use super::layout::parse_flat_name;
use super::lease::Leased;
use super::lock::Kind;
use super::needs::listed_blobs;
use super::records::{Entry, layers};
use super::{ContainerRecord, Error, ImageRecord, SnapshotId, Store, UsageRecord, VolumeRecord};

/// What the store holds, and what that takes on the disk. Nothing is counted twice: [`StoreUsage::total`] is all of it.
#[derive(Clone, Debug, Default)]
pub struct StoreUsage {
    /// The images.
    pub images: Vec<ImageUsage>,
    /// What all images take together, in bytes.
    pub image_bytes: u64,
    /// What images without a container take that no other image needs, in bytes.
    pub image_bytes_unused: u64,
    /// The containers, with what their own files take, in bytes.
    pub containers: Vec<(ContainerRecord, u64)>,
    /// The volumes, with what they take, in bytes.
    pub volumes: Vec<(VolumeRecord, u64)>,
    /// The records of the build cache.
    pub cache: Vec<UsageRecord>,
}

/// What one image takes.
#[derive(Clone, Debug)]
pub struct ImageUsage {
    /// The image.
    pub image: ImageRecord,
    /// Its names.
    pub names: Vec<Reference>,
    /// What all of it takes, in bytes.
    pub bytes: u64,
    /// What no other image has, in bytes.
    pub unique: u64,
    /// How many containers were made of it.
    pub containers: usize,
}

impl StoreUsage {
    /// What the build cache takes that is in no image, in bytes.
    pub fn cache_bytes(&self) -> u64 {
        self.cache.iter().filter(|record| !record.shared).map(|record| record.size).sum()
    }

    /// What all of it takes, in bytes.
    pub fn total(&self) -> u64 {
        let sum = |sizes: &mut dyn Iterator<Item = u64>| sizes.sum::<u64>();
        let containers = sum(&mut self.containers.iter().map(|(_, bytes)| *bytes));
        let volumes = sum(&mut self.volumes.iter().map(|(_, bytes)| *bytes));
        self.image_bytes + containers + volumes + self.cache_bytes()
    }
}

/// The sizes of what is in the store's directories, as far as they were asked for.
#[derive(Default)]
pub(crate) struct Measured {
    snapshots: HashMap<SnapshotId, u64>,
    blobs: HashMap<Digest, u64>,
    /// The compressed forms of layers that no image has.
    packed: HashMap<SnapshotId, u64>,
    /// Cache mounts, by the names of their directories.
    pub(crate) mounts: BTreeMap<String, u64>,
}

impl Measured {
    /// What a layer takes with its compressed forms, if it was measured.
    pub(crate) fn snapshot(&self, id: SnapshotId) -> Option<u64> {
        Some(self.snapshots.get(&id)? + self.packed.get(&id).unwrap_or(&0))
    }

    /// What a layer's files take, if they were measured.
    pub(crate) fn files(&self, id: SnapshotId) -> Option<u64> {
        self.snapshots.get(&id).copied()
    }

    fn sum(&self, parts: &Parts) -> u64 {
        let snapshots = parts.snapshots.iter().filter_map(|id| self.snapshots.get(id));
        let blobs = parts.blobs.iter().filter_map(|digest| self.blobs.get(digest));
        snapshots.chain(blobs).sum()
    }
}

/// What an image is made of.
#[derive(Clone, Default)]
struct Parts {
    snapshots: HashSet<SnapshotId>,
    blobs: HashSet<Digest>,
}

impl Store {
    /// Finds out what everything takes. Only what was made since the last time is walked, beside containers, volumes and cache mounts, which change.
    ///
    /// # Errors
    /// The store. What vanishes meanwhile is not counted.
    pub fn usage(&self) -> Result<StoreUsage, Error> {
        let mut measured = self.measure_layers()?;
        for (name, path) in self.mount_names()? {
            measured.mounts.insert(name, tree_bytes(&path));
        }
        let leased = self.leased_now()?;
        let parts = self.parts_of_images(&mut measured)?;
        let mut entries: Vec<Entry> = self.database().read_together("list the build cache", |db| layers(db, &leased, &measured))?;
        entries.extend(self.mount_entries(&measured)?);
        let containers = self.containers()?;
        let mut usage = StoreUsage { cache: entries.into_iter().map(|entry| entry.record).collect(), ..StoreUsage::default() };
        self.images_usage(&mut usage, &measured, &parts, &containers)?;
        usage.containers =
            containers.into_iter().map(|container| (tree_bytes(&self.container_dir(&container.id)), container)).map(swap).collect();
        usage.volumes =
            self.volumes()?.into_iter().map(|volume| (tree_bytes(&self.layout().volume(&volume.name)), volume)).map(swap).collect();
        Ok(usage)
    }

    /// What living leases hold at this moment.
    fn leased_now(&self) -> Result<Leased, Error> {
        let _exclusive = self.lock_store(Kind::Exclusive)?;
        self.leased()
    }

    fn images_usage(
        &self,
        usage: &mut StoreUsage,
        measured: &Measured,
        parts: &BTreeMap<String, Parts>,
        containers: &[ContainerRecord],
    ) -> Result<(), Error> {
        let mut holders = (HashMap::<SnapshotId, usize>::new(), HashMap::<&Digest, usize>::new());
        for part in parts.values() {
            part.snapshots.iter().for_each(|id| *holders.0.entry(*id).or_default() += 1);
            part.blobs.iter().for_each(|digest| *holders.1.entry(digest).or_default() += 1);
        }
        let (mut all, mut active) = (Parts::default(), Parts::default());
        for (names, image) in self.images()? {
            let Some(part) = parts.get(&image.id.to_string()) else { continue };
            let unique = Parts {
                snapshots: part.snapshots.iter().copied().filter(|id| holders.0.get(id) == Some(&1)).collect(),
                blobs: part.blobs.iter().filter(|digest| holders.1.get(digest) == Some(&1)).cloned().collect(),
            };
            let count = containers.iter().filter(|container| container.image.as_ref() == Some(&image.id)).count();
            for sum in std::iter::once(&mut all).chain((count > 0).then_some(&mut active)) {
                sum.snapshots.extend(&part.snapshots);
                sum.blobs.extend(part.blobs.iter().cloned());
            }
            let (bytes, unique) = (measured.sum(part), measured.sum(&unique));
            usage.images.push(ImageUsage { image, names, bytes, unique, containers: count });
        }
        usage.image_bytes = measured.sum(&all);
        usage.image_bytes_unused = usage.image_bytes - measured.sum(&active);
        Ok(())
    }

    /// Finds out what images are made of, and gives the compressed layers that no image has to the newest snapshot of each layer.
    fn parts_of_images(&self, measured: &mut Measured) -> Result<BTreeMap<String, Parts>, Error> {
        // Rows first: a blob that is settled meanwhile is found where it was or where it goes.
        let (mut images, packed) =
            self.database().read_together("list what images are made of", |db| Ok((image_rows(db)?, packed_rows(db)?)))?;
        measured.blobs = self.blob_blocks()?;
        let mut forms: HashMap<&DiffId, Vec<&Digest>> = HashMap::with_capacity(packed.len());
        packed.iter().for_each(|layer| forms.entry(&layer.diff_id).or_default().push(&layer.digest));
        let mut parts = BTreeMap::new();
        for image in &mut images {
            let mut part = Parts { snapshots: std::mem::take(&mut image.snapshots), blobs: HashSet::new() };
            listed_blobs(self, std::mem::take(&mut image.manifests), &mut part.blobs)?;
            part.blobs.extend(image.id.parse());
            part.blobs.extend(image.diff_ids.iter().filter_map(|diff_id| forms.get(diff_id)).flatten().copied().cloned());
            parts.insert(image.id.clone(), part);
        }
        drop(forms);
        let in_images: HashSet<&Digest> = parts.values().flat_map(|part| &part.blobs).collect();
        for layer in packed.iter().filter(|layer| !in_images.contains(&layer.digest)) {
            let (Some(snapshot), Some(size)) = (layer.snapshot, measured.blobs.get(&layer.digest)) else { continue };
            *measured.packed.entry(snapshot).or_default() += size;
        }
        Ok(parts)
    }

    /// What each blob takes, in bytes.
    fn blob_blocks(&self) -> Result<HashMap<Digest, u64>, Error> {
        let mut blocks = HashMap::new();
        let flat: fn(&str) -> Option<Digest> = parse_flat_name;
        let named: [(PathBuf, &str); 3] = [
            (self.layout().fresh(), ""),
            (self.layout().blobs().join("sha256"), "sha256:"),
            (self.layout().blobs().join("sha512"), "sha512:"),
        ];
        for (dir, prefix) in named {
            let entries = match std::fs::read_dir(&dir) {
                Ok(entries) => entries,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                Err(error) => return Err(Error::io("list", &dir)(error)),
            };
            for entry in entries {
                let entry = entry.map_err(Error::io("list", &dir))?;
                let name = entry.file_name();
                let Some(name) = name.to_str() else { continue };
                let digest = if prefix.is_empty() { flat(name) } else { format!("{prefix}{name}").parse().ok() };
                // What vanishes meanwhile takes nothing.
                let Some((digest, metadata)) = digest.zip(entry.metadata().ok()) else { continue };
                blocks.insert(digest, metadata.blocks() * 512);
            }
        }
        Ok(blocks)
    }

    /// What layers and cache mounts take, for a decision of prune.
    pub(crate) fn measure_cache(&self) -> Result<Measured, Error> {
        let mut measured = self.measure_layers()?;
        for (name, path) in self.mount_names()? {
            measured.mounts.insert(name, tree_bytes(&path));
        }
        self.parts_of_images(&mut measured)?;
        Ok(measured)
    }

    /// What each committed snapshot takes; walks those that were not walked before.
    fn measure_layers(&self) -> Result<Measured, Error> {
        let (ids, mut known) = self.database().read_together("look sizes up", |db| Ok((snapshot_ids(db)?, known_sizes(db)?)))?;
        let living: HashSet<SnapshotId> = ids.iter().copied().collect();
        // What shared files with a snapshot that is gone may now be all that has them.
        let stale = known.keys().any(|id| !living.contains(id));
        if stale {
            known.retain(|id, size| living.contains(id) && !size.linked);
        }
        let new: Vec<SnapshotId> = ids.into_iter().filter(|id| !known.contains_key(id)).collect();
        if new.is_empty() && !stale {
            return Ok(Measured { snapshots: known.into_iter().map(|(id, size)| (id, size.bytes)).collect(), ..Measured::default() });
        }
        let walked = attribute(walk_all(new.iter().map(|id| (*id, self.layout().snapshot(*id))).collect()));
        self.remember_sizes(&walked, stale.then_some(&known))?;
        let sizes = known.into_iter().chain(walked);
        Ok(Measured { snapshots: sizes.map(|(id, size)| (id, size.bytes)).collect(), ..Measured::default() })
    }

    /// Remembers sizes; `only` these of the old ones are still right.
    fn remember_sizes(&self, walked: &HashMap<SnapshotId, Size>, only: Option<&HashMap<SnapshotId, Size>>) -> Result<(), Error> {
        if self.read_only().is_some() {
            return Ok(());
        }
        let remembered = self.database().write("remember sizes", |tx| {
            tx.execute_batch(SIZES)?;
            if only.is_some() {
                tx.execute("DELETE FROM snapshot_sizes", [])?;
            }
            let sql = "INSERT OR REPLACE INTO snapshot_sizes (snapshot, bytes, linked) SELECT ?1, ?2, ?3 WHERE EXISTS (SELECT 1 FROM snapshots WHERE id = ?1)";
            let mut insert = tx.prepare(sql)?;
            for (id, size) in only.into_iter().flatten().chain(walked) {
                insert.execute(params![id.sql(), size.bytes.cast_signed(), size.linked])?;
            }
            Ok(())
        });
        match remembered {
            // It is found out again the next time.
            Err(error) if error.is_disk_full() => Ok(()),
            other => other,
        }
    }
}

/// What is remembered of each snapshot: see the file's head.
const SIZES: &str =
    "CREATE TABLE IF NOT EXISTS snapshot_sizes (snapshot INTEGER PRIMARY KEY, bytes INTEGER NOT NULL, linked INTEGER NOT NULL) STRICT";

/// What a snapshot takes.
#[derive(Clone, Copy)]
struct Size {
    bytes: u64,
    /// Whether some of its files are in other snapshots too, by hard links: then it is only right as long as those are there.
    linked: bool,
}

/// An image's row.
struct ImageRow {
    id: String,
    manifests: Vec<Digest>,
    diff_ids: HashSet<DiffId>,
    snapshots: HashSet<SnapshotId>,
}

/// A compressed layer.
struct PackedRow {
    digest: Digest,
    diff_id: DiffId,
    snapshot: Option<SnapshotId>,
}

fn swap<A, B>((a, b): (A, B)) -> (B, A) {
    (b, a)
}

fn snapshot_ids(db: &Connection) -> rusqlite::Result<Vec<SnapshotId>> {
    db.prepare("SELECT id FROM snapshots ORDER BY id")?.query_map([], |row| SnapshotId::from_row(row, 0))?.collect()
}

fn known_sizes(db: &Connection) -> rusqlite::Result<HashMap<SnapshotId, Size>> {
    let table = "SELECT 1 FROM sqlite_schema WHERE name = 'snapshot_sizes'";
    if db.query_row(table, [], |_| Ok(())).optional()?.is_none() {
        return Ok(HashMap::new());
    }
    let mut query = db.prepare("SELECT snapshot, bytes, linked FROM snapshot_sizes")?;
    let sizes = query.query_map([], |row| {
        Ok((SnapshotId::from_row(row, 0)?, Size { bytes: row.get::<_, i64>(1)?.cast_unsigned(), linked: row.get(2)? }))
    })?;
    sizes.collect()
}

fn image_rows(db: &Connection) -> rusqlite::Result<Vec<ImageRow>> {
    let mut images = Vec::new();
    let mut query = db.prepare("SELECT id, manifest, diff_ids, snapshots FROM images")?;
    let mut names = db.prepare("SELECT manifest FROM names WHERE image = ?")?;
    let mut chains = db.prepare("SELECT snapshots FROM chains WHERE chain = ?")?;
    let mut rows = query.query([])?;
    while let Some(row) = rows.next()? {
        let id: String = row.get(0)?;
        let named: Vec<Option<Digest>> = names.query_map([&id], |row| parsed_option(row, 0))?.collect::<Result<_, _>>()?;
        let manifest: Option<Digest> = parsed_option(row, 1)?;
        let stack: Vec<DiffId> = row.get_ref(2)?.as_str()?.split_whitespace().filter_map(|id| id.parse().ok()).collect();
        let mut snapshots: HashSet<SnapshotId> = super::snapshot::unpack(row, 3)?.into_iter().collect();
        if snapshots.len() < stack.len()
            && let Some(chain) = crate::oci::ChainId::chain(&stack).pop()
        {
            let found = chains.query_row([chain.to_string()], |row| super::snapshot::unpack(row, 0)).optional()?;
            snapshots.extend(found.into_iter().flatten());
        }
        images.push(ImageRow {
            id,
            manifests: named.into_iter().flatten().chain(manifest).collect(),
            diff_ids: stack.into_iter().collect(),
            snapshots,
        });
    }
    Ok(images)
}

fn packed_rows(db: &Connection) -> rusqlite::Result<Vec<PackedRow>> {
    let sql = "SELECT digest, diff_id, (SELECT max(id) FROM snapshots WHERE snapshots.diff_id = layer_blobs.diff_id) FROM layer_blobs";
    let snapshot = |row: &rusqlite::Row<'_>| row.get::<_, Option<i64>>(2)?.map(|_| SnapshotId::from_row(row, 2)).transpose();
    db.prepare(sql)?
        .query_map([], |row| Ok(PackedRow { digest: parsed(row, 0)?, diff_id: parsed(row, 1)?, snapshot: snapshot(row)? }))?
        .collect()
}

/// What was found in a tree.
#[derive(Default)]
struct Walked {
    bytes: u64,
    /// Files with several names, with their blocks in bytes, the number of their names, and how many of those are here.
    linked: HashMap<u64, (u64, u64, u64)>,
}

fn walk(path: &Path) -> Walked {
    let mut walked = Walked::default();
    // What cannot be read or is gone takes nothing that could be told.
    for metadata in WalkDir::new(path).into_iter().flatten().filter_map(|entry| entry.metadata().ok()) {
        let bytes = metadata.blocks() * 512;
        if metadata.nlink() > 1 && !metadata.is_dir() {
            walked.linked.entry(metadata.ino()).or_insert((bytes, metadata.nlink(), 0)).2 += 1;
        } else {
            walked.bytes += bytes;
        }
    }
    walked
}

/// What a tree takes, in bytes.
fn tree_bytes(path: &Path) -> u64 {
    let walked = walk(path);
    walked.bytes + walked.linked.values().map(|(bytes, ..)| bytes).sum::<u64>()
}

/// Walks trees, on all cores.
fn walk_all(trees: Vec<(SnapshotId, PathBuf)>) -> Vec<(SnapshotId, Walked)> {
    let threads = crate::task::parallelism().min(trees.len()).max(1);
    let next = std::sync::atomic::AtomicUsize::new(0);
    let work = || {
        let mut walked = Vec::new();
        while let Some((id, path)) = trees.get(next.fetch_add(1, std::sync::atomic::Ordering::Relaxed)) {
            walked.push((*id, walk(path)));
        }
        walked
    };
    let mut all: Vec<(SnapshotId, Walked)> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        workers.into_iter().flat_map(|worker| worker.join().unwrap_or_default()).collect()
    });
    all.sort_by_key(|(id, _)| *id);
    all
}

/// Gives each file with several names to one snapshot: to the oldest that has it, where all of its names are in these. Otherwise one that was walked before
/// has it and has counted it.
fn attribute(walked: Vec<(SnapshotId, Walked)>) -> HashMap<SnapshotId, Size> {
    let mut names: HashMap<u64, u64> = HashMap::new();
    for (_, tree) in &walked {
        tree.linked.iter().for_each(|(ino, (.., here))| *names.entry(*ino).or_default() += here);
    }
    let mut given: HashSet<u64> = HashSet::new();
    let mut sizes = HashMap::with_capacity(walked.len());
    for (id, tree) in walked {
        let mut size = Size { bytes: tree.bytes, linked: false };
        for (ino, (bytes, links, here)) in tree.linked {
            size.linked |= here < links;
            if names.get(&ino) >= Some(&links) && given.insert(ino) {
                size.bytes += bytes;
            }
        }
        sizes.insert(id, size);
    }
    sizes
}

/// Total and free bytes of the store's file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskSpace {
    /// All of it.
    pub total: u64,
    /// What may still be written.
    pub free: u64,
}

impl Store {
    /// How large the file system of the store is.
    ///
    /// # Errors
    /// The kernel does not say.
    pub fn disk_space(&self) -> Result<DiskSpace, Error> {
        let stat = rustix::fs::statvfs(self.root()).map_err(Error::io("find the size of the file system of", self.root()))?;
        Ok(DiskSpace { total: stat.f_blocks * stat.f_frsize, free: stat.f_bavail * stat.f_frsize })
    }
}
