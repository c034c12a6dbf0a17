//! From a build's result to an image: diff IDs of the snapshots, times of the history, the config, the name.
//!
//! Times come from the snapshots, not from the clock, so that a build that finds everything in the cache gives the same image ID as the one before it. A build that
//! has a time of its own ([`Dates`]) gives all that it adds that time. What comes from the base image keeps its own.

use std::time::SystemTime;

use crate::oci::{ChainId, DiffId, HistoryEntry, ImageConfig, ImageId, Reference};
use crate::store::{CommittedSnapshot, ImageRecord, SnapshotId, Store};
use crate::task::{fault_point, in_parallel};

use super::Error;
use super::layer::{LayerOptions, diff_id_only};

/// What the dates in an image's config are held to, in seconds since the epoch. The base image's are not touched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Dates {
    /// The date of everything that was done now (`SOURCE_DATE_EPOCH` as a build argument); without it, when it was done.
    pub all: Option<i64>,
    /// Later ones become this (`source-date-epoch` of an output).
    pub latest: Option<i64>,
}

/// Makes the image of `config` and `snapshots` (bottom first), and gives it `names`.
///
/// # Errors
/// The store, and a history that does not fit the snapshots.
pub fn assemble(
    store: &Store,
    config: ImageConfig,
    snapshots: &[SnapshotId],
    names: &[Reference],
    dates: Dates,
) -> Result<ImageRecord, Error> {
    let record = make_record(store, config, snapshots, dates)?;
    store.put_image(&record)?;
    fault_point("build:recorded");
    if let Some(chain) = ChainId::chain(&record.diff_ids).last() {
        store.record_chain(chain, snapshots)?;
    }
    for name in names {
        store.tag(name, &record.id, None)?;
    }
    Ok(record)
}

/// As [`assemble`], of an image that the store does not list: it is only one of those of an index. Its layers are found by their chain.
///
/// # Errors
/// The store, and a history that does not fit the snapshots.
pub fn assemble_unlisted(store: &Store, config: ImageConfig, snapshots: &[SnapshotId], dates: Dates) -> Result<ImageRecord, Error> {
    let record = make_record(store, config, snapshots, dates)?;
    if let Some(chain) = ChainId::chain(&record.diff_ids).last() {
        store.record_chain(chain, snapshots)?;
    }
    Ok(record)
}

/// The image, with its config in the store.
fn make_record(store: &Store, config: ImageConfig, snapshots: &[SnapshotId], dates: Dates) -> Result<ImageRecord, Error> {
    let layers = complete(store, snapshots)?;
    let mut config = config;
    let base_layers = config.rootfs.diff_ids.len();
    config.rootfs.diff_ids = layers.iter().map(|layer| layer.diff_id.clone()).collect();
    date_history(&mut config, &layers, base_layers, dates)?;
    let bytes = config.to_bytes();
    let id = ImageId::new(store.put_blob(&bytes)?);
    let size = layers.iter().map(|layer| layer.tar_size).sum();
    fault_point("build:packed");
    Ok(ImageRecord {
        id,
        manifest: None,
        platform: config.platform(),
        created_at: SystemTime::now(),
        size,
        diff_ids: config.rootfs.diff_ids.clone(),
        snapshots: snapshots.to_vec(),
    })
}

/// The diff IDs of a stack of snapshots, bottom first; what is not known is found out.
pub(super) fn diff_ids(store: &Store, snapshots: &[SnapshotId]) -> Result<Vec<DiffId>, Error> {
    Ok(complete(store, snapshots)?.into_iter().map(|layer| layer.diff_id).collect())
}

/// A layer of which everything is known.
pub(super) struct Layer {
    pub(super) diff_id: DiffId,
    tar_size: u64,
    pub(super) created_at: SystemTime,
}

/// Finds out the diff IDs that nobody needed so far; several at once, since each only reads. Mostly there are none, and no thread is started.
fn complete(store: &Store, snapshots: &[SnapshotId]) -> Result<Vec<Layer>, Error> {
    let known: Vec<_> = snapshots.iter().map(|id| Ok(known(&committed(store, *id)?))).collect::<Result<_, Error>>()?;
    let missing: Vec<usize> = (0..known.len()).filter(|at| known[*at].is_none()).collect();
    let mut made = in_parallel(&missing, |at| complete_one(store, snapshots[*at], &snapshots[..*at])).into_iter();
    known.into_iter().filter_map(|layer| layer.map(Ok).or_else(|| made.next())).collect()
}

/// Finds out the diff ID of the snapshot `id`, which lies above `below`, where nobody needed it so far.
pub(super) fn complete_one(store: &Store, id: SnapshotId, below: &[SnapshotId]) -> Result<Layer, Error> {
    let found = committed(store, id)?;
    if let Some(layer) = known(&found) {
        return Ok(layer);
    }
    let options = LayerOptions { latest_time: None, marks: store.marks(), ..LayerOptions::default() };
    let written = diff_id_only(&store.snapshot_path(id), &store.layers_below(id, below)?, &options)
        .map_err(|source| Error::Layer { layer: format!("of `{}`", found.description), source })?;
    store.set_diff_id(id, &written.diff_id, written.size)?;
    Ok(Layer { diff_id: written.diff_id, tar_size: written.size, created_at: found.created_at })
}

fn committed(store: &Store, id: SnapshotId) -> Result<CommittedSnapshot, Error> {
    store.snapshot(id)?.ok_or_else(|| Error::SnapshotGone { id: id.to_string() })
}

/// The layer of a snapshot of which everything is known.
fn known(snapshot: &CommittedSnapshot) -> Option<Layer> {
    let (diff_id, tar_size) = snapshot.diff_id.clone().zip(snapshot.tar_size)?;
    Some(Layer { diff_id, tar_size, created_at: snapshot.created_at })
}

/// Gives every entry of the history that has no time one: layers that of their snapshot, the others that of the layer before them (of the first new
/// layer where there is none), and the image that of its last entry. BuildKit does the same.
fn date_history(config: &mut ImageConfig, layers: &[Layer], base_layers: usize, dates: Dates) -> Result<(), Error> {
    let in_history = config.history.iter().filter(|entry| !entry.empty_layer).count();
    // Some bases have layers without history (made by `import`, or squashed); then theirs comes first, unnamed.
    let missing = layers.len().checked_sub(in_history).ok_or(Error::History { history: in_history, snapshots: layers.len() })?;
    if missing > base_layers {
        return Err(Error::History { history: in_history, snapshots: layers.len() });
    }
    for _ in 0..missing {
        config.history.insert(0, HistoryEntry::default());
    }
    let undated: Vec<bool> = config.history.iter().map(|entry| entry.created.is_none()).collect();
    if let Some(seconds) = dates.all {
        config.history.iter_mut().filter(|entry| entry.created.is_none()).for_each(|entry| entry.created = Some(date(seconds)));
    }
    let mut next_layer = 0;
    for entry in &mut config.history {
        if !entry.empty_layer {
            if entry.created.is_none() && next_layer >= base_layers {
                entry.created = Some(timestamp(layers[next_layer].created_at));
            }
            next_layer += 1;
        }
    }
    let first_new = config.history.iter().position(|entry| entry.created.is_none());
    let following = first_new.and_then(|at| config.history[at..].iter().find_map(|entry| entry.created.clone()));
    let preceding = config.history.iter().rev().find_map(|entry| entry.created.clone());
    let mut time = following.or(preceding);
    for entry in &mut config.history {
        match &entry.created {
            Some(created) => time = Some(created.clone()),
            None => entry.created.clone_from(&time),
        }
    }
    if let Some(latest) = dates.latest {
        let later = |created: &str| created.parse::<jiff::Timestamp>().is_ok_and(|created| created.as_second() >= latest);
        let ours = config.history.iter_mut().zip(undated).filter(|(_, undated)| *undated).map(|(entry, _)| entry);
        for entry in ours.filter(|entry| entry.created.as_deref().is_some_and(later)) {
            entry.created = Some(date(latest));
        }
    }
    if config.created.is_none() {
        // Nothing with a time at all: `FROM scratch` without layers. The epoch is as good as any, and always the same.
        let last = config.history.iter().rev().find_map(|entry| entry.created.clone());
        config.created = Some(last.unwrap_or_else(|| date(dates.all.or(dates.latest).unwrap_or(0))));
    }
    Ok(())
}

/// A second since the epoch as RFC 3339 in UTC.
pub fn date(seconds: i64) -> String {
    jiff::Timestamp::from_second(seconds).unwrap_or(jiff::Timestamp::UNIX_EPOCH).to_string()
}

/// A time as RFC 3339 in UTC.
pub(super) fn timestamp(time: SystemTime) -> String {
    jiff::Timestamp::try_from(time).unwrap_or(jiff::Timestamp::UNIX_EPOCH).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::{Digest, Platform};
    use std::time::Duration;

    fn layer(seconds: u64) -> Layer {
        let created_at = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        Layer { diff_id: DiffId::new(Digest::sha256(b"")), tar_size: 0, created_at }
    }

    fn entry(empty_layer: bool) -> HistoryEntry {
        HistoryEntry { empty_layer, ..HistoryEntry::default() }
    }

    #[test]
    fn entries_take_the_time_of_their_layer_or_of_the_one_before() {
        let mut config = ImageConfig::empty(&Platform::host());
        config.history = vec![entry(true), entry(false), entry(true), entry(false), entry(true)];
        date_history(&mut config, &[layer(10), layer(20)], 0, Dates::default()).unwrap();
        let times: Vec<_> = config.history.iter().map(|e| e.created.clone().unwrap()).collect();
        let (ten, twenty) = ("1970-01-01T00:00:10Z", "1970-01-01T00:00:20Z");
        assert_eq!(times, [ten, ten, ten, twenty, twenty]);
        assert_eq!(config.created.as_deref(), Some(twenty));
    }

    #[test]
    fn a_builds_own_time_is_that_of_all_that_it_adds_and_of_nothing_else() {
        let base = "2001-02-03T04:05:06Z".to_owned();
        let history = || vec![HistoryEntry { created: Some(base.clone()), ..entry(false) }, entry(false), entry(true)];
        let times = |dates| {
            let mut config = ImageConfig::empty(&Platform::host());
            config.history = history();
            date_history(&mut config, &[layer(10), layer(2_000_000_000)], 1, dates).unwrap();
            let mut times: Vec<_> = config.history.iter().map(|e| e.created.clone().unwrap()).collect();
            times.push(config.created.unwrap());
            times
        };
        let (new, ten, late) = ("2033-05-18T03:33:20Z", "1970-01-01T00:00:10Z", "2064-01-24T05:20:00Z");
        assert_eq!(times(Dates::default()), [&base, new, new, new]);
        assert_eq!(times(Dates { all: Some(10), latest: None }), [&base, ten, ten, ten]);
        assert_eq!(times(Dates { all: Some(2_968_377_600), latest: None }), [&base, late, late, late]);
        assert_eq!(times(Dates { all: None, latest: Some(10) }), [&base, ten, ten, ten]);
        assert_eq!(times(Dates { all: None, latest: Some(2_968_377_600) }), [&base, new, new, new]);
        assert_eq!(times(Dates { all: Some(2_968_377_600), latest: Some(10) }), [&base, ten, ten, ten]);
    }

    #[test]
    fn an_image_of_nothing_is_dated_the_epoch() {
        let mut config = ImageConfig::empty(&Platform::host());
        date_history(&mut config, &[], 0, Dates::default()).unwrap();
        assert_eq!(config.created.as_deref(), Some("1970-01-01T00:00:00Z"));
    }

    #[test]
    fn a_history_with_too_many_layers_is_refused() {
        let mut config = ImageConfig::empty(&Platform::host());
        config.history = vec![entry(false), entry(false)];
        assert!(matches!(date_history(&mut config, &[layer(1)], 0, Dates::default()), Err(Error::History { .. })));
    }
}
