//! What the store takes on the disk, and what the rules of the build cache take of that.

use std::os::unix::fs::MetadataExt;
use std::time::{Duration, SystemTime};

use super::*;

/// Commits a snapshot whose file has so many KiB.
fn layer(store: &Store, name: &str, kib: usize) -> SnapshotId {
    let active = store.prepare().unwrap();
    std::fs::write(active.fs_path().join("file"), vec![b'x'; kib << 10]).unwrap();
    let meta = SnapshotMeta { diff_id: None, size: 0, description: name.to_owned() };
    active.commit(meta).unwrap().id
}

/// Records the stack under a key of that number, as last used so many hours ago.
fn cached(store: &Store, number: u8, stack: &[SnapshotId], hours: i64) {
    store.cache_put(&[key(number)], &entry(stack)).unwrap();
    let used = super::super::open::now() - hours * 3_600_000_000;
    let update = |tx: &rusqlite::Transaction<'_>| {
        Ok(tx.execute(
            "UPDATE cache_records SET last_used = ?1, created_at = ?1 WHERE id = (SELECT record FROM cache_keys WHERE key = ?2)",
            (used, key(number)),
        )?)
    };
    assert_eq!(store.database().write("age", update).unwrap(), 1);
}

fn pruned(store: &Store, rule: PruneRule) -> Vec<String> {
    let dry = store.prune(&PruneOptions { rules: vec![rule.clone()], dry_run: true, ..PruneOptions::default() }).unwrap();
    let report = store.prune(&PruneOptions { rules: vec![rule], ..PruneOptions::default() }).unwrap();
    assert_eq!(dry.records, report.records, "a dry run tells what happens");
    verify_no_garbage(store);
    report.records.into_iter().map(|record| record.description).collect()
}

fn rule(filters: &[&str]) -> PruneRule {
    let filters: Vec<RecordFilter> = filters.iter().map(|text| text.parse().unwrap()).collect();
    PruneRule { filters: vec![filters], ..PruneRule::default() }
}

/// What `du` would say of a directory.
fn blocks(path: &Path) -> u64 {
    let mut seen = std::collections::HashSet::new();
    let entries = walkdir::WalkDir::new(path).into_iter().map(|entry| entry.unwrap().metadata().unwrap());
    entries.filter(|metadata| metadata.is_dir() || seen.insert(metadata.ino())).map(|metadata| metadata.blocks() * 512).sum()
}

#[test]
fn sizes_are_those_of_the_disk_and_links_count_once() {
    let (_dir, store) = new_store();
    let first = layer(&store, "first", 100);
    assert_eq!(store.usage().unwrap().cache_bytes(), blocks(&store.layout().snapshot(first)));
    let active = store.prepare().unwrap();
    std::fs::hard_link(store.snapshot_path(first).join("file"), active.fs_path().join("again")).unwrap();
    std::fs::write(active.fs_path().join("own"), vec![b'y'; 50 << 10]).unwrap();
    std::fs::hard_link(active.fs_path().join("own"), active.fs_path().join("own2")).unwrap();
    let second = active.commit(SnapshotMeta { description: "second".into(), ..SnapshotMeta::default() }).unwrap().id;
    let all = || blocks(&store.root().join("snapshots")) - blocks(&store.layout().snapshot(SnapshotId::SCRATCH)) - own_blocks(&store);
    assert_eq!(store.usage().unwrap().cache_bytes(), all());
    cached(&store, 2, &[second], 0);
    // The file's bytes stay as long as one of both does.
    store.prune(&PruneOptions::default()).unwrap();
    assert!(store.snapshot(first).unwrap().is_none());
    assert_eq!(store.usage().unwrap().cache_bytes(), all());
}

/// What the directory of snapshots itself takes.
fn own_blocks(store: &Store) -> u64 {
    std::fs::metadata(store.root().join("snapshots")).unwrap().blocks() * 512
}

#[test]
fn an_image_and_the_cache_do_not_count_a_layer_twice() {
    let (_dir, store) = new_store();
    let (shared, own) = (layer(&store, "shared", 64), layer(&store, "own", 32));
    let (one, two) = (image(&store, "one", &[shared]), image(&store, "two", &[shared]));
    store.create_container(new_container_id().unwrap(), "c", Some(&one), &[shared]).unwrap();
    cached(&store, 1, &[shared, own], 0);
    let usage = store.usage().unwrap();
    let (shared_bytes, own_bytes) = (blocks(&store.layout().snapshot(shared)), blocks(&store.layout().snapshot(own)));
    assert_eq!(usage.cache_bytes(), own_bytes);
    let configs = 2 * 4096;
    assert_eq!(usage.image_bytes, shared_bytes + configs);
    assert_eq!(usage.image_bytes_unused, 4096);
    let of =
        |id: &ImageId| usage.images.iter().find(|image| image.image.id == *id).map(|image| (image.bytes, image.unique, image.containers));
    assert_eq!((of(&one), of(&two)), (Some((shared_bytes + 4096, 4096, 1)), Some((shared_bytes + 4096, 4096, 0))));
    let record = |name: &str| usage.cache.iter().find(|record| record.description == name).unwrap().clone();
    assert!(record("shared").shared && record("shared").in_use && !record("own").shared && !record("own").in_use);
    assert_eq!(record("own").parents, [record("shared").id]);
}

#[test]
fn a_layer_goes_only_after_those_above_it() {
    let (_dir, store) = new_store();
    let (a, b) = (layer(&store, "a", 8), layer(&store, "b", 8));
    cached(&store, 1, &[a], 90);
    cached(&store, 2, &[a, b], 1);
    assert_eq!(pruned(&store, rule(&["description==a"])), Vec::<String>::new());
    assert_eq!(pruned(&store, PruneRule { unused_for: Duration::from_secs(7200), ..PruneRule::default() }), Vec::<String>::new());
    assert!(store.cache_get(&key(1)).unwrap().is_some() && store.cache_get(&key(2)).unwrap().is_some());
    assert_eq!(pruned(&store, PruneRule::default()), ["b", "a"]);
}

#[test]
fn limits_keep_what_was_used_last() {
    let (_dir, store) = new_store();
    for number in 0..5 {
        let id = layer(&store, &format!("l{number}"), 100);
        cached(&store, number, &[id], 10 - i64::from(number));
    }
    let all = store.usage().unwrap().cache_bytes();
    let each = all / 5;
    assert_eq!(pruned(&store, PruneRule { max_used_space: all + 1, ..PruneRule::default() }), Vec::<String>::new());
    assert_eq!(pruned(&store, PruneRule { max_used_space: 4 * each, reserved_space: 3 * each + 1, ..PruneRule::default() }), ["l0", "l1"]);
    assert_eq!(pruned(&store, PruneRule { reserved_space: 2 * each + 1, ..PruneRule::default() }), ["l2"]);
    let free = store.disk_space().unwrap().free;
    assert_eq!(pruned(&store, PruneRule { min_free_space: free / 2, ..PruneRule::default() }), Vec::<String>::new());
    let disk = store.disk_space().unwrap();
    // More than there can ever be.
    assert_eq!(pruned(&store, PruneRule { min_free_space: 2 * disk.total, ..PruneRule::default() }), ["l3", "l4"]);
}

#[test]
fn what_images_share_needs_all_and_what_is_used_stays() {
    let (_dir, store) = new_store();
    let (shared, leased, loose) = (layer(&store, "shared", 8), layer(&store, "leased", 8), layer(&store, "loose", 8));
    image(&store, "i", &[shared]);
    for (number, id) in [(1, shared), (2, leased), (3, loose)] {
        cached(&store, number, &[id], 100);
    }
    let lease = store.lease().unwrap();
    assert!(lease.add(&Resource::Snapshot(leased)).unwrap());
    assert_eq!(pruned_with_lease(&store, PruneRule::default()), ["loose"]);
    assert!(store.cache_get(&key(1)).unwrap().is_some());
    assert_eq!(pruned_with_lease(&store, PruneRule { all: true, ..PruneRule::default() }), ["shared"]);
    assert!(store.cache_get(&key(1)).unwrap().is_none() && store.cache_get(&key(2)).unwrap().is_some());
    assert!(store.snapshot(shared).unwrap().is_some(), "the image has it");
    drop(lease);
    assert_eq!(pruned(&store, PruneRule::default()), ["leased"]);
}

fn pruned_with_lease(store: &Store, rule: PruneRule) -> Vec<String> {
    let report = store.prune(&PruneOptions { rules: vec![rule], ..PruneOptions::default() }).unwrap();
    verify_promises(store);
    report.records.into_iter().map(|record| record.description).collect()
}

/// What [`verify`] checks, of layers that do not hold their description.
fn verify_promises(store: &Store) {
    for snapshot in store.snapshots().unwrap() {
        assert!(store.snapshot_path(snapshot.id).join("file").exists());
    }
}

#[test]
fn cache_mounts_are_records_of_their_own_type() {
    let (_dir, store) = new_store();
    cached(&store, 1, &[layer(&store, "layer", 8)], 0);
    let mut mount = store.cache_mount(&key(7), "go-cache", MountSharing::Shared).unwrap();
    mount.seeded().unwrap();
    std::fs::write(mount.path().join("f"), vec![1; 20 << 10]).unwrap();
    assert!(pruned_with_lease(&store, rule(&["type==exec.cachemount"])).is_empty(), "it is in use");
    let record = store.usage().unwrap().cache.into_iter().find(|record| record.is_mutable()).unwrap();
    assert!(record.in_use && record.size >= 20 << 10);
    drop(mount);
    assert_eq!(pruned(&store, rule(&["type!=regular", "description~=^go"])), ["go-cache"]);
    assert_eq!(store.usage().unwrap().cache.len(), 1);
    assert_eq!(listing(&store, "cachemounts"), Vec::<String>::new());
}

#[test]
fn limits_may_be_parts_of_the_disk() {
    let settings = GcSettings { max_used_space: Some(GcSpace::Percent(50)), ..GcSettings::default() };
    let disk = 100 << 30;
    assert_eq!(GcLimits::new(&settings, disk), GcLimits { max_used_space: 51_000_000_000, ..GcLimits::of_disk(disk) });
}

#[test]
fn garbage_is_collected_where_a_limit_is_near_and_once_a_minute() {
    let (_dir, store) = new_store();
    for number in 0..3 {
        let id = layer(&store, &format!("l{number}"), 200);
        cached(&store, number, &[id], 10 - i64::from(number));
    }
    let each = store.usage().unwrap().cache_bytes() / 3;
    let none = Some(GcSpace::Bytes(0));
    let limits = |most| GcSettings { reserved_space: none, max_used_space: Some(GcSpace::Bytes(most)), min_free_space: none };
    assert!(store.collect_garbage(&limits(u64::MAX)).unwrap().is_none());
    assert!(!store.layout().gc_stamp().exists(), "nothing was near");
    let report = store.collect_garbage(&limits(2 * each + 1)).unwrap().unwrap();
    assert_eq!(report.records.iter().map(|record| record.description.as_str()).collect::<Vec<_>>(), ["l0"]);
    assert!(store.collect_garbage(&limits(1)).unwrap().is_none(), "looked at just now");
    let past = SystemTime::now() - Duration::from_secs(120);
    std::fs::File::options().write(true).open(store.layout().gc_stamp()).unwrap().set_modified(past).unwrap();
    assert_eq!(store.collect_garbage(&limits(1)).unwrap().unwrap().records.len(), 2);
}

#[test]
fn a_prune_that_is_killed_leaves_a_good_store() {
    let (_dir, store) = new_store();
    for round in 0..20u64 {
        for number in 0..8 {
            let id = snapshot(&store, &format!("{round} {number}"));
            store.cache_put(&[key(number)], &entry(&[id])).unwrap();
        }
        let mut worker = super::process::Worker::start("prune", store.root());
        worker.wait_for("ready");
        std::thread::sleep(Duration::from_micros(round * 150));
        worker.kill();
        verify(&store);
    }
    store.prune(&PruneOptions { rules: vec![PruneRule::default()], ..PruneOptions::default() }).unwrap();
    verify_no_garbage(&store);
    assert_eq!(listing(&store, "snapshots"), ["0"]);
}
