//! What the rows say, against each other and against the names in the directories.

use std::collections::{HashMap, HashSet};

use rusqlite::Connection;
use rusqlite::types::ValueRef;

use crate::oci::{ChainId, DiffId, Digest, ImageId, Reference};
use crate::store::prune::{name_of, paths};
use crate::store::snapshot::unpack;
use crate::store::{Error, SnapshotId, Store};

use super::{BlobUse, Problem, Record, StoreCheck};

/// What is to be read, once nobody has to wait for it.
pub(super) struct Looked {
    /// The blobs with the sizes that are recorded for them.
    pub(super) blobs: Vec<(Digest, Option<u64>)>,
    /// The snapshots that have a directory, with where they are from.
    pub(super) snapshots: Vec<(SnapshotId, String)>,
}

/// All that rows may name.
struct Known {
    blobs: HashSet<Digest>,
    snapshots: HashMap<SnapshotId, String>,
    snapshot_dirs: HashSet<SnapshotId>,
    images: HashSet<String>,
    containers: HashSet<String>,
    volumes: HashSet<String>,
    chains: HashMap<String, Vec<SnapshotId>>,
    layers_with_blobs: HashSet<String>,
}

impl Store {
    /// Compares all rows. The caller holds the store's lock exclusively.
    pub(super) fn check_rows(&self, report: &mut StoreCheck) -> Result<Looked, Error> {
        let settled: HashSet<Digest> = self.settled_blobs()?.iter().filter_map(|name| name.parse().ok()).collect();
        let blobs: HashSet<Digest> = settled.into_iter().chain(self.fresh_blobs()?).collect();
        let names =
            |dir: &std::path::Path| Ok::<_, Error>(paths(dir)?.iter().map(|path| name_of(path).to_owned()).collect::<HashSet<String>>());
        let snapshot_dirs = names(&self.layout().snapshots())?.iter().filter_map(|name| name.parse().ok()).collect();
        let containers = names(&self.layout().containers())?;
        // One that its maker was killed over has no files yet, and is a leftover.
        let mut volumes = names(&self.layout().volumes())?;
        volumes.retain(|name| !self.is_unused_volume(name));
        let mut sizes: HashMap<Digest, u64> = HashMap::new();
        let mut problems = Vec::new();
        let known = self.database().read_together("look at the rows", |db| {
            let known = Known {
                blobs,
                snapshots: snapshots(db)?,
                snapshot_dirs,
                images: strings(db, "SELECT id FROM images")?,
                containers,
                volumes,
                chains: chains(db)?,
                layers_with_blobs: strings(db, "SELECT diff_id FROM layer_blobs")?,
            };
            check_snapshots(&known, &mut problems);
            check_layer_blobs(db, &known, &mut sizes, &mut problems)?;
            report.images = check_images(db, &known, &mut problems)?;
            check_names(db, &known, &mut problems)?;
            check_stacks(db, &known, &mut problems)?;
            check_places(db, &known, &mut problems)?;
            Ok(known)
        })?;
        report.problems.extend(problems);
        (report.snapshots, report.blobs) = (known.snapshots.len(), known.blobs.len());
        let mut blobs: Vec<(Digest, Option<u64>)> = known.blobs.into_iter().map(|digest| (digest.clone(), sizes.remove(&digest))).collect();
        blobs.sort();
        let dirs = known.snapshot_dirs;
        let mut snapshots: Vec<_> = known.snapshots.into_iter().filter(|(id, _)| dirs.contains(id)).collect();
        snapshots.sort();
        Ok(Looked { blobs, snapshots })
    }
}

fn strings(db: &Connection, sql: &str) -> rusqlite::Result<HashSet<String>> {
    db.prepare(sql)?.query_map([], |row| row.get(0))?.collect()
}

fn snapshots(db: &Connection) -> rusqlite::Result<HashMap<SnapshotId, String>> {
    let mut query = db.prepare("SELECT id, description FROM snapshots")?;
    query.query_map([], |row| Ok((SnapshotId::from_row(row, 0)?, row.get(1)?)))?.collect()
}

fn chains(db: &Connection) -> rusqlite::Result<HashMap<String, Vec<SnapshotId>>> {
    let mut query = db.prepare("SELECT chain, snapshots FROM chains")?;
    query.query_map([], |row| Ok((row.get(0)?, unpack(row, 1)?)))?.collect()
}

fn check_snapshots(known: &Known, problems: &mut Vec<Problem>) {
    let mut missing: Vec<_> = known.snapshots.iter().filter(|(id, _)| !known.snapshot_dirs.contains(id)).collect();
    missing.sort();
    problems.extend(missing.into_iter().map(|(id, text)| Problem::SnapshotMissing { id: *id, description: text.clone() }));
}

fn check_layer_blobs(
    db: &Connection,
    known: &Known,
    sizes: &mut HashMap<Digest, u64>,
    problems: &mut Vec<Problem>,
) -> rusqlite::Result<()> {
    let mut query = db.prepare("SELECT diff_id, digest, size FROM layer_blobs ORDER BY diff_id, digest")?;
    let mut rows = query.query([])?;
    while let Some(row) = rows.next()? {
        let (diff_id, digest): (String, String) = (row.get(0)?, row.get(1)?);
        match (diff_id.parse::<DiffId>(), digest.parse::<Digest>()) {
            (Ok(layer), Ok(blob)) if !known.blobs.contains(&blob) => {
                problems.push(Problem::BlobMissing { digest: blob, needed: BlobUse::Layer(layer) });
            }
            (Ok(_), Ok(blob)) => drop(sizes.insert(blob, row.get::<_, i64>(2)?.cast_unsigned())),
            _ => problems.push(Problem::Unreadable {
                record: Record::LayerBlob { diff_id, digest },
                reason: "it holds something else than digests".to_owned(),
            }),
        }
    }
    Ok(())
}

/// Checks the images; gives how many there are.
fn check_images(db: &Connection, known: &Known, problems: &mut Vec<Problem>) -> rusqlite::Result<usize> {
    let mut query = db.prepare("SELECT id, manifest, diff_ids, snapshots, platform FROM images ORDER BY id")?;
    let mut rows = query.query([])?;
    let mut count = 0;
    while let Some(row) = rows.next()? {
        count += 1;
        let text: String = row.get(0)?;
        let manifest: Option<String> = row.get(1)?;
        let unreadable = |reason: &str| Problem::Unreadable { record: Record::Image(text.clone()), reason: reason.to_owned() };
        let Ok(id) = text.parse::<ImageId>() else {
            problems.push(unreadable("its ID is no digest"));
            continue;
        };
        let diff_ids: Result<Vec<DiffId>, _> = row.get_ref(2)?.as_str()?.split_whitespace().map(str::parse).collect();
        let platform = serde_json::from_str::<crate::oci::Platform>(row.get_ref(4)?.as_str()?);
        let (Ok(diff_ids), Ok(_)) = (diff_ids, platform) else {
            problems.push(unreadable("its layers or its platform make no sense"));
            continue;
        };
        if !known.blobs.contains(id.digest()) {
            problems.push(Problem::BlobMissing { digest: id.digest().clone(), needed: BlobUse::Config(id.clone()) });
        }
        match manifest.map(|manifest| manifest.parse::<Digest>()) {
            Some(Ok(digest)) if !known.blobs.contains(&digest) => {
                problems.push(Problem::BlobMissing { digest, needed: BlobUse::Manifest(id.clone()) });
            }
            Some(Err(_)) => problems.push(unreadable("its manifest is no digest")),
            _ => {}
        }
        let stack = unpack(row, 3)?;
        check_stack(known, &stack, || Record::Image(text.clone()), problems);
        check_layers(known, &id, &diff_ids, &stack, problems);
    }
    Ok(count)
}

/// Whether each layer of an image is there, as files or as a blob.
fn check_layers(known: &Known, id: &ImageId, diff_ids: &[DiffId], stack: &[SnapshotId], problems: &mut Vec<Problem>) {
    let chain = ChainId::chain(diff_ids).pop().and_then(|chain| known.chains.get(&chain.to_string()));
    if stack.len() == diff_ids.len() || chain.is_some_and(|chain| chain.len() == diff_ids.len()) {
        return;
    }
    for (position, diff_id) in diff_ids.iter().enumerate() {
        if !known.layers_with_blobs.contains(&diff_id.to_string()) && !manifest_has_it(known, diff_ids, position) {
            problems.push(Problem::LayerMissing { image: id.clone(), position, diff_id: diff_id.clone() });
        }
    }
}

/// Whether the layer is there as part of a stack that is recorded below it.
fn manifest_has_it(known: &Known, diff_ids: &[DiffId], position: usize) -> bool {
    let chains = ChainId::chain(&diff_ids[..=position]);
    chains.last().is_some_and(|chain| known.chains.contains_key(&chain.to_string()))
}

/// Whether all snapshots that a row names have rows.
fn check_stack(known: &Known, stack: &[SnapshotId], record: impl Fn() -> Record, problems: &mut Vec<Problem>) {
    let is_there = |id: &&SnapshotId| **id == SnapshotId::SCRATCH || known.snapshots.contains_key(*id);
    if let Some(missing) = stack.iter().find(|id| !is_there(id)) {
        problems.push(Problem::Dangling { record: record(), missing: format!("snapshot {missing}") });
    }
}

fn check_names(db: &Connection, known: &Known, problems: &mut Vec<Problem>) -> rusqlite::Result<()> {
    let mut query = db.prepare(
        "SELECT name, names.image, names.manifest, images.manifest FROM names LEFT JOIN images ON images.id = names.image ORDER BY name",
    )?;
    let mut rows = query.query([])?;
    while let Some(row) = rows.next()? {
        let (name, image): (String, String) = (row.get(0)?, row.get(1)?);
        let Ok(reference) = name.parse::<Reference>() else {
            let reason = "it is no name of an image".to_owned();
            problems.push(Problem::Unreadable { record: Record::Name(name), reason });
            continue;
        };
        if !known.images.contains(&image) {
            problems.push(Problem::Dangling { record: Record::Name(name), missing: format!("image {image}") });
            continue;
        }
        if let Some(digest) = reference.digest().map(Digest::to_string)
            && ![row.get::<_, Option<String>>(2)?, row.get(3)?].contains(&Some(digest))
        {
            let reason = format!("its digest is not that of the image {image}");
            problems.push(Problem::Unreadable { record: Record::Name(name), reason });
            continue;
        }
        if let ValueRef::Text(manifest) = row.get_ref(2)?
            && let Ok(digest) = String::from_utf8_lossy(manifest).parse::<Digest>()
            && !known.blobs.contains(&digest)
        {
            problems.push(Problem::BlobMissing { digest, needed: BlobUse::Named(reference) });
        }
    }
    Ok(())
}

fn check_stacks(db: &Connection, known: &Known, problems: &mut Vec<Problem>) -> rusqlite::Result<()> {
    let mut chains: Vec<_> = known.chains.iter().collect();
    chains.sort();
    for (chain, stack) in chains {
        check_stack(known, stack, || Record::Chain(chain.clone()), problems);
    }
    let mut records = HashSet::new();
    let mut query = db.prepare("SELECT id, snapshots FROM cache_records ORDER BY id")?;
    let mut rows = query.query([])?;
    while let Some(row) = rows.next()? {
        let id: i64 = row.get(0)?;
        records.insert(id);
        check_stack(known, &unpack(row, 1)?, || Record::CacheRecord(id), problems);
    }
    let mut query = db.prepare("SELECT key, record FROM cache_keys")?;
    let mut rows = query.query([])?;
    while let Some(row) = rows.next()? {
        let record: i64 = row.get(1)?;
        if !records.contains(&record) {
            problems.push(Problem::Dangling { record: Record::CacheKey(row.get(0)?), missing: format!("record {record}") });
        }
    }
    Ok(())
}

/// Containers and volumes.
fn check_places(db: &Connection, known: &Known, problems: &mut Vec<Problem>) -> rusqlite::Result<()> {
    let mut query = db.prepare("SELECT id, snapshots FROM containers ORDER BY id")?;
    let mut rows = query.query([])?;
    while let Some(row) = rows.next()? {
        let id: String = row.get(0)?;
        check_stack(known, &unpack(row, 1)?, || Record::Container(id.clone()), problems);
        if !known.containers.contains(&id) {
            problems.push(Problem::Dangling { record: Record::Container(id.clone()), missing: format!("the directory `containers/{id}`") });
        }
    }
    // A row without a directory is what a removal leaves that was cut short.
    let recorded = strings(db, "SELECT name FROM volumes")?;
    problems.extend(known.volumes.difference(&recorded).map(|name| Problem::VolumeUnrecorded { name: name.clone() }));
    Ok(())
}
