//! Tests of the store from outside: what survives which death, what prune takes, what two processes see of each other.
//!
//! The tests that need another process start this test binary again, with a role and a store in its environment (see `process`).

mod crash;
mod images;
mod process;
mod prune;
mod records;
mod space;
mod speed;

use std::path::Path;
use std::time::SystemTime;

use crate::oci::{ChainId, DiffId, Digest, ImageId, MediaType, Platform, Reference};

use super::snapshot::unpack;
use super::*;

/// A store in a directory of its own.
fn new_store() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("store")).unwrap();
    (dir, store)
}

/// Commits a snapshot with one file, which holds `text`.
#[track_caller]
fn snapshot(store: &Store, text: &str) -> SnapshotId {
    let active = store.prepare().unwrap();
    std::fs::write(active.fs_path().join("file"), text).unwrap();
    let meta = SnapshotMeta { diff_id: None, size: text.len() as u64, description: text.to_owned() };
    active.commit(meta).unwrap().id
}

/// Records an image whose config is `config`.
#[track_caller]
fn image(store: &Store, config: &str, snapshots: &[SnapshotId]) -> ImageId {
    let id = ImageId::new(store.put_blob(config.as_bytes()).unwrap());
    store.put_image(&record(&id, snapshots)).unwrap();
    id
}

fn record(id: &ImageId, snapshots: &[SnapshotId]) -> ImageRecord {
    ImageRecord {
        id: id.clone(),
        manifest: None,
        platform: Platform::host(),
        created_at: SystemTime::now(),
        size: 1,
        diff_ids: Vec::new(),
        snapshots: snapshots.to_vec(),
    }
}

fn name(text: &str) -> Reference {
    text.parse().unwrap()
}

fn key(number: u8) -> [u8; 32] {
    [number; 32]
}

fn entry(snapshots: &[SnapshotId]) -> CacheEntry {
    CacheEntry { result: key(9), output: b"output".to_vec(), snapshots: snapshots.to_vec() }
}

/// The names in a directory of the store, sorted.
fn listing(store: &Store, dir: &str) -> Vec<String> {
    let mut names: Vec<String> =
        std::fs::read_dir(store.root().join(dir)).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Whether the tests run as root; says why a test is skipped where not.
fn is_root(what: &str) -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        println!("skipped: {what} needs root");
    }
    root
}

/// Checks every promise that the store makes: all that a row or a name speaks of is there and whole.
#[track_caller]
fn verify(store: &Store) {
    let check: String = store.database().read("check", |db| db.query_row("PRAGMA integrity_check", [], |row| row.get(0))).unwrap();
    assert_eq!(check, "ok");
    for snapshot in store.snapshots().unwrap() {
        // The workers write the description into the layer.
        let text = std::fs::read_to_string(store.snapshot_path(snapshot.id).join("file")).unwrap();
        assert_eq!(text, snapshot.description);
        assert!(!store.layout().snapshot(snapshot.id).join("work").exists());
    }
    let fresh = store.fresh_blobs().unwrap();
    let settled = store.settled_blobs().unwrap();
    for digest in settled.iter().map(|text| text.parse::<Digest>().unwrap()).chain(fresh) {
        assert_eq!(Digest::of(digest.algorithm(), &store.read_blob(&digest, u64::MAX).unwrap()), digest);
    }
    for (_, image) in store.images().unwrap() {
        assert!(store.blob_size(image.id.digest()).unwrap().is_some(), "{}", image.id);
        assert!(image.snapshots.iter().all(|id| store.snapshot(*id).unwrap().is_some()), "{}", image.id);
    }
    let dangling = |sql: &str| -> i64 { store.database().read("check", |db| db.query_row(sql, [], |row| row.get(0))).unwrap() };
    assert_eq!(dangling("SELECT count(*) FROM names WHERE image NOT IN (SELECT id FROM images)"), 0);
    for sql in ["SELECT snapshots FROM cache_records", "SELECT snapshots FROM chains"] {
        let named =
            store.database().read("check", |db| db.prepare(sql)?.query_map([], |row| unpack(row, 0))?.collect::<Result<Vec<_>, _>>());
        assert!(named.unwrap().into_iter().flatten().all(|id| store.snapshot(id).unwrap().is_some()), "{sql}");
    }
    assert_eq!(dangling("SELECT count(*) FROM cache_records WHERE id NOT IN (SELECT record FROM cache_keys)"), 0);
}

/// Checks that nothing is in the store's directories that no row speaks of.
#[track_caller]
fn verify_no_garbage(store: &Store) {
    let mut expected: Vec<String> = store.snapshots().unwrap().iter().map(|snapshot| snapshot.id.to_string()).collect();
    expected.push("0".to_owned());
    expected.sort();
    assert_eq!(listing(store, "snapshots"), expected);
    for dir in ["trash", "leases"] {
        assert_eq!(listing(store, dir), Vec::<String>::new(), "{dir}");
    }
    assert_eq!(listing(store, "locks"), ["store"]);
    assert!(listing(store, "ingest").iter().all(|name| !name.starts_with("anon-")));
}

#[test]
fn opening_twice_gives_the_same_store() {
    let (dir, store) = new_store();
    let digest = store.put_blob(b"hello").unwrap();
    let again = Store::open(&dir.path().join("store")).unwrap();
    assert_eq!(again.read_blob(&digest, 100).unwrap(), b"hello");
    assert_eq!(std::fs::read_to_string(store.root().join("version")).unwrap(), "3\n");
}

#[test]
fn many_processes_make_one_store_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("a/b/store");
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| Store::open(&root).unwrap().put_blob(b"x").unwrap());
        }
    });
    verify(&Store::open(&root).unwrap());
}

#[test]
fn a_store_of_the_first_format_is_brought_up_to_date() {
    let (_dir, store) = new_store();
    let (root, digest) = (store.root().to_owned(), store.put_blob(b"layer").unwrap());
    let diff_id = DiffId::new(digest.clone());
    let blob = LayerBlob { digest, size: 5, media_type: MediaType::OciLayer, made_as: None };
    store.record_layer_blob(&diff_id, &blob).unwrap();
    drop(store);
    let database = rusqlite::Connection::open(root.join("meta.db")).unwrap();
    let older = "ALTER TABLE layer_blobs DROP COLUMN made_as; DROP TRIGGER snapshots_removed; DROP TABLE removals; PRAGMA user_version = 1";
    database.execute_batch(older).unwrap();
    drop(database);
    std::fs::write(root.join("version"), "1\n").unwrap();
    let store = Store::open(&root).unwrap();
    assert_eq!(store.layer_blobs(&diff_id).unwrap(), [blob]);
    assert_eq!(std::fs::read_to_string(root.join("version")).unwrap(), "3\n");
    // What only the new tables can do: a record is refused once what it names was removed.
    let id = snapshot(&store, "gone");
    store.cache_put(&[key(1)], &entry(&[id])).unwrap();
    store.prune(&PruneOptions::all()).unwrap();
    assert!(matches!(store.cache_put(&[key(1)], &entry(&[id])), Err(Error::NoSnapshot { .. })));
    verify(&store);
}

#[test]
fn a_newer_format_is_refused_and_left_alone() {
    let (_dir, store) = new_store();
    std::fs::write(store.root().join("version"), "7\n").unwrap();
    let error = Store::open(store.root()).unwrap_err();
    assert_eq!(error.to_string(), format!("the store `{}` has format 7, and this version knows formats up to 3", store.root().display()));
    assert!(error.hint().is_some());
    std::fs::write(store.root().join("version"), "what\n").unwrap();
    assert!(matches!(Store::open(store.root()), Err(Error::BadVersion { .. })));
}

#[test]
fn a_root_that_cannot_be_made_is_named() {
    let error = Store::open(Path::new("/proc/nowhere/store")).unwrap_err();
    assert!(error.to_string().contains("/proc/nowhere/store"), "{error}");
}
