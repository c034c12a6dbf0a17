//! What is needed: the roots of the store and all that they reach. Prune removes the rest.
//!
//! ```text
//! name ──────► image ──► config, manifest ──► layers' blobs        (manifests and indexes are read, for what they list)
//! container ─┘   │ └───► snapshots, also by the chain of its layers
//! lease ─────► image, snapshot, blob
//! cache record, chain ─► snapshots
//! image, snapshot ─────► blobs that were recorded for its layers
//! what a registry said ► manifest
//! ```

use std::collections::{BTreeSet, HashMap, HashSet};
use std::time::SystemTime;

use rusqlite::{Transaction, params};

use crate::oci::{ChainId, DiffId, Digest, ImageId, ManifestOrIndex};

use super::database::{Fault, parsed, parsed_option};
use super::lease::Leased;
use super::open::to_micros;
use super::policy::choose;
use super::prune::{PruneImages, PruneOptions, PruneReport, Scope};
use super::records::{Target, layers};
use super::settle::remove_snapshots;
use super::snapshot::unpack;
use super::{Error, SnapshotId, Store};

/// No manifest that a registry accepts is larger.
const MANIFEST_LIMIT: u64 = 4 << 20;

/// What is to be removed from the directories, once its rows are gone.
#[derive(Default)]
pub(crate) struct Doomed {
    pub(crate) snapshots: Vec<SnapshotId>,
    pub(crate) blobs: Vec<Digest>,
    /// Cache mounts, by id and instance.
    pub(crate) mounts: Vec<(Vec<u8>, i64)>,
    /// What the snapshots and cache mounts take, as far as that is known.
    pub(crate) snapshot_bytes: u64,
}

/// What stays.
#[derive(Default)]
struct Needed {
    snapshots: HashSet<SnapshotId>,
    blobs: HashSet<Digest>,
    diff_ids: HashSet<DiffId>,
    manifests: Vec<Digest>,
}

/// Removes the rows that the options and the roots allow, and tells which files go with them.
pub(crate) fn sweep_rows(store: &Store, tx: &Transaction<'_>, scope: &Scope<'_>, report: &mut PruneReport) -> Result<Doomed, Fault> {
    let Scope { options, leased, .. } = *scope;
    let until = options.until.map_or(i64::MAX, to_micros);
    let mut doomed = Doomed::default();
    remove_images(tx, options, until, leased, report)?;
    apply_rules(store, tx, scope, &mut doomed, report)?;
    if options.build_cache {
        report.cache_records += tx.execute("DELETE FROM cache_records WHERE last_used < ?", [until])?;
        remove_chains(tx, until)?;
        tx.execute("DELETE FROM remote_manifests WHERE checked_at < ?", [until])?;
        tx.execute("DELETE FROM steps WHERE used_at < ?", [until])?;
    }
    let needed = needs(store, tx, leased)?;
    sweep_snapshots(tx, &needed, &mut doomed)?;
    sweep_blobs(store, tx, needed, &mut doomed)?;
    report.snapshots = doomed.snapshots.len();
    report.blobs = doomed.blobs.len();
    Ok(doomed)
}

fn remove_images(
    tx: &Transaction<'_>,
    options: &PruneOptions,
    until: i64,
    leased: &Leased,
    report: &mut PruneReport,
) -> rusqlite::Result<()> {
    let named = match options.images {
        PruneImages::Keep => return Ok(()),
        // An image that a name would fall back to after a power cut counts as named.
        PruneImages::Dangling => {
            "AND id NOT IN (SELECT image FROM names) AND id NOT IN (SELECT settled_image FROM names WHERE settled_image IS NOT NULL)"
        }
        PruneImages::All => "",
    };
    let sql =
        format!("SELECT id FROM images WHERE created_at < ? {named} AND id NOT IN (SELECT image FROM containers WHERE image IS NOT NULL)");
    let ids: Vec<ImageId> = tx.prepare(&sql)?.query_map([until], |row| parsed(row, 0))?.collect::<Result<_, _>>()?;
    let chosen = |id: &ImageId| options.only_images.as_ref().is_none_or(|chosen| chosen.contains(id));
    for id in ids.into_iter().filter(|id| !leased.images.contains(id) && chosen(id)) {
        let text = id.to_string();
        let mut names = tx.prepare_cached("DELETE FROM names WHERE image = ? RETURNING name")?;
        let names = names.query_map([&text], |row| parsed(row, 0))?.collect::<rusqlite::Result<Vec<_>>>()?;
        report.names.extend(names);
        let sql = "UPDATE names SET settled_image = NULL, settled_manifest = NULL WHERE settled_image = ?";
        tx.prepare_cached(sql)?.execute([&text])?;
        tx.prepare_cached("DELETE FROM images WHERE id = ?")?.execute([&text])?;
        report.images.push(id);
    }
    Ok(())
}

/// Removes what the rules choose: the rows of layers with all records that name one; of shared layers, which images keep, the records only.
fn apply_rules(store: &Store, tx: &Transaction<'_>, scope: &Scope<'_>, doomed: &mut Doomed, report: &mut PruneReport) -> Result<(), Fault> {
    let Some((measured, disk)) = scope.sizes else { return Ok(()) };
    let mut entries = layers(tx, scope.leased, measured)?;
    entries.extend(store.mount_entries(measured)?);
    let (mut gone, mut disk, now) = (vec![false; entries.len()], *disk, SystemTime::now());
    let before: i64 = tx.query_row("SELECT count(*) FROM cache_records", [], |row| row.get(0))?;
    let (mut by_top, mut removed) = (records_by_top(tx)?, HashSet::new());
    let mut forget = tx.prepare("DELETE FROM cache_records WHERE id = ?")?;
    for rule in &scope.options.rules {
        for at in choose(&mut entries, &mut gone, rule, &mut disk, now) {
            let record = &entries[at].record;
            match &entries[at].target {
                Target::Mount { id, instance } => {
                    doomed.mounts.push((id.clone(), *instance));
                    doomed.snapshot_bytes += record.size;
                }
                Target::Layer(id) if record.shared => {
                    // What lay above it went before, with all records that name both.
                    let Some(records) = by_top.remove(id) else {
                        // The image has it, and nothing else does: there is nothing to take.
                        continue;
                    };
                    for record in records {
                        forget.execute([record])?;
                    }
                }
                Target::Layer(id) => {
                    removed.insert(*id);
                    doomed.snapshots.push(*id);
                    // Its compressed forms go with the blobs.
                    doomed.snapshot_bytes += measured.files(*id).unwrap_or(0);
                }
            }
            report.records.push(record.clone());
        }
    }
    remove_snapshots(tx, &removed)?;
    let after: i64 = tx.query_row("SELECT count(*) FROM cache_records", [], |row| row.get(0))?;
    report.cache_records += usize::try_from(before - after).unwrap_or(0);
    Ok(())
}

/// The cache records by the topmost layer that they name.
fn records_by_top(tx: &Transaction<'_>) -> rusqlite::Result<HashMap<SnapshotId, Vec<i64>>> {
    let mut by_top: HashMap<SnapshotId, Vec<i64>> = HashMap::new();
    let mut query = tx.prepare("SELECT id, snapshots FROM cache_records")?;
    let mut rows = query.query([])?;
    while let Some(row) = rows.next()? {
        if let Some(top) = unpack(row, 1)?.last() {
            by_top.entry(*top).or_default().push(row.get(0)?);
        }
    }
    Ok(by_top)
}

/// Forgets the chains that no image is made of.
fn remove_chains(tx: &Transaction<'_>, until: i64) -> rusqlite::Result<()> {
    let kept = image_chains(tx)?;
    let mut chains = tx.prepare("SELECT chain FROM chains WHERE last_used < ?")?;
    let chains: Vec<ChainId> = chains.query_map([until], |row| parsed(row, 0))?.collect::<Result<_, _>>()?;
    let mut remove = tx.prepare("DELETE FROM chains WHERE chain = ?")?;
    for chain in chains.iter().filter(|chain| !kept.contains(chain)) {
        remove.execute([chain.to_string()])?;
    }
    Ok(())
}

fn image_chains(tx: &Transaction<'_>) -> rusqlite::Result<HashSet<ChainId>> {
    let mut chains = HashSet::new();
    let mut query = tx.prepare("SELECT diff_ids FROM images")?;
    let mut rows = query.query([])?;
    while let Some(row) = rows.next()? {
        let diff_ids: Vec<DiffId> = row.get_ref(0)?.as_str()?.split_whitespace().filter_map(|id| id.parse().ok()).collect();
        chains.extend(ChainId::chain(&diff_ids).pop());
    }
    Ok(chains)
}

fn needs(store: &Store, tx: &Transaction<'_>, leased: &Leased) -> Result<Needed, Fault> {
    let mut needed = Needed::default();
    needed.snapshots.extend(&leased.snapshots);
    needed.manifests.extend(leased.blobs.iter().cloned());
    let mut images = tx.prepare("SELECT id, manifest, diff_ids, snapshots FROM images")?;
    let mut rows = images.query([])?;
    while let Some(row) = rows.next()? {
        needed.blobs.insert(parsed(row, 0)?);
        needed.manifests.extend(parsed_option(row, 1)?);
        needed.diff_ids.extend(row.get_ref(2)?.as_str()?.split_whitespace().filter_map(|id| id.parse().ok()));
        needed.snapshots.extend(unpack(row, 3)?);
    }
    for sql in ["SELECT snapshots FROM containers", "SELECT snapshots FROM chains", "SELECT snapshots FROM cache_records"] {
        let mut query = tx.prepare(sql)?;
        let mut rows = query.query([])?;
        while let Some(row) = rows.next()? {
            needed.snapshots.extend(unpack(row, 0)?);
        }
    }
    let names = "SELECT manifest FROM names UNION SELECT settled_manifest FROM names UNION SELECT digest FROM remote_manifests";
    let mut names = tx.prepare(names)?;
    let manifests: Vec<Option<Digest>> = names.query_map([], |row| parsed_option(row, 0))?.collect::<Result<_, _>>()?;
    needed.manifests.extend(manifests.into_iter().flatten());
    listed_blobs(store, std::mem::take(&mut needed.manifests), &mut needed.blobs)?;
    Ok(needed)
}

/// Adds manifests and indexes to `blobs`, and what they list. A blob that cannot be read or is no manifest lists nothing.
pub(crate) fn listed_blobs(store: &Store, mut manifests: Vec<Digest>, blobs: &mut HashSet<Digest>) -> Result<(), Error> {
    while let Some(digest) = manifests.pop() {
        if !blobs.insert(digest.clone()) {
            continue;
        }
        let bytes = match store.read_blob(&digest, MANIFEST_LIMIT) {
            Ok(bytes) => bytes,
            Err(Error::NoBlob { .. } | Error::BlobTooLarge { .. }) => continue,
            Err(error) => return Err(error),
        };
        match ManifestOrIndex::parse(&bytes, None) {
            Ok(ManifestOrIndex::Manifest(manifest)) => {
                blobs.insert(manifest.config.digest);
                blobs.extend(manifest.layers.into_iter().map(|layer| layer.digest));
            }
            Ok(ManifestOrIndex::Index(index)) => manifests.extend(index.manifests.into_iter().map(|entry| entry.digest)),
            Err(_) => {}
        }
    }
    Ok(())
}

fn sweep_snapshots(tx: &Transaction<'_>, needed: &Needed, doomed: &mut Doomed) -> rusqlite::Result<()> {
    let mut query = tx.prepare("SELECT id, size FROM snapshots")?;
    let mut rows = query.query([])?;
    while let Some(row) = rows.next()? {
        let id = SnapshotId::from_row(row, 0)?;
        if !needed.snapshots.contains(&id) {
            doomed.snapshots.push(id);
            doomed.snapshot_bytes = doomed.snapshot_bytes.saturating_add(row.get::<_, i64>(1)?.cast_unsigned());
        }
    }
    remove_snapshots(tx, &doomed.snapshots.iter().copied().collect())
}

fn sweep_blobs(store: &Store, tx: &Transaction<'_>, needed: Needed, doomed: &mut Doomed) -> Result<(), Fault> {
    let Needed { mut blobs, mut diff_ids, .. } = needed;
    // What is left of the snapshots is needed, and its compressed form is worth keeping.
    let mut query = tx.prepare("SELECT DISTINCT diff_id FROM snapshots WHERE diff_id IS NOT NULL")?;
    diff_ids.extend(query.query_map([], |row| parsed(row, 0))?.collect::<rusqlite::Result<Vec<_>>>()?);
    let mut query = tx.prepare("SELECT digest, diff_id FROM layer_blobs")?;
    let mut rows = query.query([])?;
    while let Some(row) = rows.next()? {
        if diff_ids.contains(&parsed(row, 1)?) {
            blobs.insert(parsed(row, 0)?);
        }
    }
    let settled = store.settled_blobs()?;
    let stored: BTreeSet<Digest> = settled.iter().filter_map(|name| name.parse().ok()).chain(store.fresh_blobs()?).collect();
    doomed.blobs = stored.into_iter().filter(|digest| !blobs.contains(digest)).collect();
    let mut forget = tx.prepare("DELETE FROM layer_blobs WHERE digest = ?")?;
    for digest in &doomed.blobs {
        forget.execute(params![digest.to_string()])?;
    }
    Ok(())
}
