//! The build cache as records that are listed and pruned one by one: the layers of cached steps and of unpacked bases, and cache mounts.
//!
//! A layer's parents are the layers directly below it in any stack that the store knows. As in BuildKit a record is *in use* while a command or a container
//! needs it, and *shared* where an image has it too: pruning a shared record forgets the step and frees nothing.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::time::SystemTime;

use rusqlite::Connection;

use crate::oci::{ChainId, DiffId};

use super::layout::hex;
use super::lease::Leased;
use super::lock::{Kind, Wait, lock_file};
use super::open::from_micros;
use super::snapshot::unpack;
use super::usage::Measured;
use super::{Error, SnapshotId, Store};

/// What a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordKind {
    /// A layer.
    Layer,
    /// A cache mount.
    CacheMount,
}

impl RecordKind {
    /// The name of the type, as BuildKit has it.
    pub fn name(self) -> &'static str {
        match self {
            RecordKind::Layer => "regular",
            RecordKind::CacheMount => "exec.cachemount",
        }
    }
}

/// One record of the build cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsageRecord {
    /// Names it: 25 letters and digits that stay the same as long as it lives.
    pub id: String,
    /// What it is.
    pub kind: RecordKind,
    /// The records below it.
    pub parents: Vec<String>,
    /// Where it is from, for people.
    pub description: String,
    /// What it takes on the disk, in bytes, with its compressed forms.
    pub size: u64,
    /// When it was made.
    pub created_at: SystemTime,
    /// When it was last used, to within a minute.
    pub last_used: SystemTime,
    /// Whether a command or a container needs it now.
    pub in_use: bool,
    /// Whether an image has it too.
    pub shared: bool,
}

impl UsageRecord {
    /// Whether it is written to after it was made.
    pub fn is_mutable(&self) -> bool {
        self.kind == RecordKind::CacheMount
    }
}

/// What a record stands for in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    Layer(SnapshotId),
    Mount { id: Vec<u8>, instance: i64 },
}

/// A record with what it stands for and what is above it.
pub(crate) struct Entry {
    pub(crate) record: UsageRecord,
    pub(crate) target: Target,
    /// The entries below, by position.
    pub(crate) below: Vec<usize>,
    /// How many entries are directly above it.
    pub(crate) above: usize,
}

const TWELVE_DIGITS: u128 = 36u128.pow(12);

/// The name of a record: like BuildKit's, so that nobody takes it for the beginning of another.
fn record_id(what: &str) -> String {
    let digest = blake3::hash(what.as_bytes());
    let mut rest = u128::from_le_bytes(digest.as_bytes()[..16].try_into().unwrap_or_default());
    let mut digits = String::with_capacity(36);
    // Twelve digits fit into a word, whose division is many times faster.
    for _ in 0..3 {
        let mut part = u64::try_from(rest % TWELVE_DIGITS).unwrap_or(0);
        rest /= TWELVE_DIGITS;
        for _ in 0..12 {
            digits.push(char::from(b"0123456789abcdefghijklmnopqrstuvwxyz"[(part % 36) as usize]));
            part /= 36;
        }
    }
    digits.truncate(25);
    digits
}

/// Lists the layers, in the order of their age.
pub(crate) fn layers(db: &Connection, leased: &Leased, measured: &Measured) -> rusqlite::Result<Vec<Entry>> {
    let used = in_use(db, leased)?;
    let stacks = Stacks::load(db)?;
    let shared = in_images(db, &stacks)?;
    let mut positions: HashMap<SnapshotId, usize> = HashMap::new();
    let mut entries: Vec<Entry> = Vec::new();
    let mut query = db.prepare("SELECT id, size, description, created_at FROM snapshots ORDER BY id")?;
    let mut rows = query.query([])?;
    while let Some(row) = rows.next()? {
        let id = SnapshotId::from_row(row, 0)?;
        let created_at: i64 = row.get(3)?;
        let record = UsageRecord {
            id: record_id(&format!("layer {id} {created_at}")),
            kind: RecordKind::Layer,
            parents: Vec::new(),
            description: row.get(2)?,
            size: measured.snapshot(id).unwrap_or(row.get::<_, i64>(1)?.cast_unsigned()),
            created_at: from_micros(created_at),
            last_used: from_micros(stacks.last_used.get(&id).copied().unwrap_or(created_at)),
            in_use: used.contains(&id),
            shared: shared.contains(&id),
        };
        positions.insert(id, entries.len());
        entries.push(Entry { record, target: Target::Layer(id), below: Vec::new(), above: 0 });
    }
    for (above, below) in &stacks.edges {
        let (Some(&above), Some(&below)) = (positions.get(above), positions.get(below)) else { continue };
        entries[above].below.push(below);
        entries[below].above += 1;
        let parent = entries[below].record.id.clone();
        entries[above].record.parents.push(parent);
    }
    Ok(entries)
}

/// All stacks of layers that the store knows.
struct Stacks {
    /// Each layer with those directly below it.
    edges: BTreeSet<(SnapshotId, SnapshotId)>,
    last_used: HashMap<SnapshotId, i64>,
    chains: HashMap<String, Vec<SnapshotId>>,
}

impl Stacks {
    fn load(db: &Connection) -> rusqlite::Result<Stacks> {
        let mut stacks = Stacks { edges: BTreeSet::new(), last_used: HashMap::new(), chains: HashMap::new() };
        let mut query =
            db.prepare("SELECT snapshots, last_used, NULL FROM cache_records UNION ALL SELECT snapshots, last_used, chain FROM chains")?;
        let mut rows = query.query([])?;
        while let Some(row) = rows.next()? {
            let (stack, last_used) = (unpack(row, 0)?, row.get::<_, i64>(1)?);
            stacks.edges.extend(stack.windows(2).map(|pair| (pair[1], pair[0])));
            for id in &stack {
                let known = stacks.last_used.entry(*id).or_insert(last_used);
                *known = last_used.max(*known);
            }
            if let Some(chain) = row.get::<_, Option<String>>(2)? {
                stacks.chains.insert(chain, stack);
            }
        }
        Ok(stacks)
    }
}

/// The layers that a command or a container needs.
fn in_use(db: &Connection, leased: &Leased) -> rusqlite::Result<HashSet<SnapshotId>> {
    let mut used: HashSet<SnapshotId> = leased.snapshots.iter().copied().collect();
    let mut query = db.prepare("SELECT snapshots FROM containers")?;
    let mut rows = query.query([])?;
    while let Some(row) = rows.next()? {
        used.extend(unpack(row, 0)?);
    }
    Ok(used)
}

/// The layers that images have.
fn in_images(db: &Connection, stacks: &Stacks) -> rusqlite::Result<HashSet<SnapshotId>> {
    let mut shared = HashSet::new();
    let mut query = db.prepare("SELECT snapshots, diff_ids FROM images")?;
    let mut rows = query.query([])?;
    while let Some(row) = rows.next()? {
        let own = unpack(row, 0)?;
        shared.extend(&own);
        let diff_ids = row.get_ref(1)?.as_str()?.split_whitespace();
        if own.len() == diff_ids.clone().count() {
            continue;
        }
        let diff_ids: Vec<DiffId> = diff_ids.filter_map(|id| id.parse().ok()).collect();
        let chain = ChainId::chain(&diff_ids).pop().and_then(|chain| stacks.chains.get(&chain.to_string()));
        shared.extend(chain.into_iter().flatten());
    }
    Ok(shared)
}

impl Store {
    /// Lists the cache mounts.
    pub(crate) fn mount_entries(&self, measured: &Measured) -> Result<Vec<Entry>, Error> {
        type Row = (Vec<u8>, i64, String, i64, i64);
        let rows: Vec<Row> = self.database().read("list the cache mounts", |db| {
            let mut query = db.prepare("SELECT id, instance, description, created_at, last_used FROM cache_mounts ORDER BY created_at")?;
            query.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?)))?.collect()
        })?;
        let mut entries = Vec::with_capacity(rows.len());
        for (id, instance, description, created_at, last_used) in rows {
            let name = format!("{}.{instance}", hex(&id));
            let lock_path = self.layout().lock(format_args!("mount-{name}"));
            let record = UsageRecord {
                id: record_id(&format!("mount {name} {created_at}")),
                kind: RecordKind::CacheMount,
                parents: Vec::new(),
                description,
                size: measured.mounts.get(&name).copied().unwrap_or(0),
                created_at: from_micros(created_at),
                last_used: from_micros(last_used),
                in_use: lock_file(&lock_path, Kind::Exclusive, Wait::No)?.is_none(),
                shared: false,
            };
            entries.push(Entry { record, target: Target::Mount { id, instance }, below: Vec::new(), above: 0 });
        }
        Ok(entries)
    }

    /// The names of all cache mounts' directories.
    pub(crate) fn mount_names(&self) -> Result<BTreeMap<String, std::path::PathBuf>, Error> {
        let dir = self.layout().cache_mounts();
        Ok(super::settle::file_names(&dir)?.into_iter().map(|name| (name.clone(), dir.join(name))).collect())
    }
}
