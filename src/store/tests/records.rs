//! Snapshots, cache records, checksums, locks and cache mounts.

use super::process::Worker;
use super::*;
use crate::path::RootPath;
use crate::store::settle::remove_snapshots;
use crate::sys::RootfsMount;
use crate::sys::tree::Tree;

#[test]
fn snapshot_ids_survive_text_and_are_short() {
    for text in ["0", "1", "z", "10", "zz", "1y2p0ij32e8e7"] {
        assert_eq!(text.parse::<SnapshotId>().unwrap().to_string(), text);
    }
    for text in ["", "new-1", "01", "A", "-1", "+1", "zzzzzzzzzzzzzzzzzzzz"] {
        assert!(text.parse::<SnapshotId>().is_err(), "{text}");
    }
}

#[test]
fn a_dropped_snapshot_leaves_nothing() {
    let (_dir, store) = new_store();
    let active = store.prepare().unwrap();
    std::fs::create_dir_all(active.fs_path().join("a/b")).unwrap();
    std::fs::write(active.fs_path().join("a/b/c"), "x").unwrap();
    drop(active);
    assert_eq!(listing(&store, "snapshots"), ["0"]);
    assert_eq!(listing(&store, "trash"), Vec::<String>::new());
}

#[test]
fn a_diff_id_is_recorded_later() {
    let (_dir, store) = new_store();
    let id = snapshot(&store, "x");
    let diff_id = DiffId::new(Digest::sha256(b"tar"));
    store.set_diff_id(id, &diff_id, 1024).unwrap();
    let known = store.snapshot(id).unwrap().unwrap();
    assert_eq!((known.diff_id, known.tar_size, known.size), (Some(diff_id.clone()), Some(1024), 1));
    assert_eq!(store.snapshots_of(&diff_id).unwrap()[0].id, id);
    assert!(matches!(store.set_diff_id("zz".parse().unwrap(), &diff_id, 1), Err(Error::NoSnapshot { .. })));
}

#[test]
fn a_rootfs_has_its_topmost_layer_first() {
    let (_dir, store) = new_store();
    let (a, b) = (snapshot(&store, "a"), snapshot(&store, "b"));
    let active = store.prepare().unwrap();
    let stub = Path::new("/stub");
    let RootfsMount::Overlay { lower, upper, .. } = store.rootfs(&[a, b], Some(&active), Some(stub)) else { panic!("no overlay") };
    assert_eq!(lower, [stub.to_owned(), store.snapshot_path(b), store.snapshot_path(a)]);
    assert_eq!(upper.unwrap().upper, active.fs_path());
    let RootfsMount::Overlay { lower, upper, .. } = store.rootfs(&[], None, None) else { panic!("no overlay") };
    assert_eq!((lower.len(), upper), (1, None));
}

#[test]
fn a_chain_is_known_until_one_of_its_snapshots_goes() {
    let (_dir, store) = new_store();
    let chain = ChainId::extend(None, &DiffId::new(Digest::sha256(b"layer")));
    let layers = [snapshot(&store, "a"), snapshot(&store, "b")];
    assert_eq!(store.chain(&chain).unwrap(), None);
    store.record_chain(&chain, &layers).unwrap();
    assert_eq!(store.chain(&chain).unwrap(), Some(layers.to_vec()));
    assert!(matches!(store.record_chain(&chain, &["zz".parse().unwrap()]), Err(Error::NoSnapshot { .. })));
    store.prune(&PruneOptions::all()).unwrap();
    assert_eq!(store.chain(&chain).unwrap(), None);
}

#[test]
fn a_layers_blob_is_forgotten_with_the_blob() {
    let (_dir, store) = new_store();
    let diff_id = DiffId::new(Digest::sha256(b"tar"));
    let digest = store.put_blob(b"compressed").unwrap();
    let blob = LayerBlob { digest: digest.clone(), size: 10, media_type: MediaType::OciLayerZstd, made_as: None };
    store.record_layer_blob(&diff_id, &blob).unwrap();
    assert_eq!(store.layer_blobs(&diff_id).unwrap(), [blob]);
    assert_eq!(store.layer_of_blob(&digest).unwrap(), Some(diff_id.clone()));
    store.prune(&PruneOptions::default()).unwrap();
    assert_eq!(store.layer_blobs(&diff_id).unwrap(), []);
    assert_eq!(store.layer_of_blob(&digest).unwrap(), None);
}

#[test]
fn a_record_is_found_by_each_of_its_keys() {
    let (_dir, store) = new_store();
    let id = snapshot(&store, "x");
    store.cache_put(&[key(1), key(2)], &entry(&[id])).unwrap();
    assert_eq!(store.cache_get(&key(2)).unwrap(), Some(entry(&[id])));
    assert_eq!(store.cache_get_many(&[key(3), key(1)]).unwrap(), [None, Some(entry(&[id]))]);
    let other = CacheEntry { output: b"newer".to_vec(), ..entry(&[]) };
    store.cache_put(&[key(1)], &other).unwrap();
    assert_eq!(store.cache_get_many(&[key(1), key(2)]).unwrap(), [Some(other.clone()), Some(entry(&[id]))]);
    // The record without a key is gone, and with it what held the snapshot.
    store.cache_put(&[key(2)], &other).unwrap();
    verify(&store);
    assert_eq!(store.prune(&PruneOptions::default()).unwrap().snapshots, 1);
    assert!(matches!(store.cache_put(&[key(4)], &entry(&[id])), Err(Error::NoSnapshot { .. })));
    assert_eq!(store.cache_clear().unwrap(), 2);
    assert_eq!(store.cache_get(&key(1)).unwrap(), None);
}

#[test]
fn the_components_of_a_step_are_the_latest() {
    let (_dir, store) = new_store();
    assert_eq!(store.step_components(&key(1)).unwrap(), None);
    store.put_step_components(&[(key(1), b"one"), (key(2), b"two")]).unwrap();
    store.put_step_components(&[(key(1), b"three")]).unwrap();
    assert_eq!(store.step_components(&key(1)).unwrap().as_deref(), Some(&b"three"[..]));
    assert_eq!(store.step_components(&key(2)).unwrap().as_deref(), Some(&b"two"[..]));
}

#[test]
fn a_checksum_holds_until_the_stamp_changes() {
    let (_dir, store) = new_store();
    let stamp = FileStamp { dev: u64::MAX, ino: 7, size: 10, mtime: (1, 2), ctime: (-3, 4) };
    store.remember_checksums(&[(stamp, key(1)), (FileStamp { ino: 8, ..stamp }, key(2))]).unwrap();
    let others = [
        FileStamp { size: 11, ..stamp },
        FileStamp { mtime: (1, 3), ..stamp },
        FileStamp { ctime: (-3, 5), ..stamp },
        FileStamp { dev: 1, ..stamp },
    ];
    assert_eq!(store.checksums(&others).unwrap(), [None; 4]);
    let both = [FileStamp { ino: 8, ..stamp }, stamp];
    assert_eq!(store.checksums(&both).unwrap(), [Some(key(2)), Some(key(1))]);
    store.remember_checksums(&[(others[0], key(3))]).unwrap();
    assert_eq!(store.checksums(&[stamp, others[0]]).unwrap(), [None, Some(key(3))]);
}

#[test]
fn checksums_are_found_among_many_others() {
    let (_dir, store) = new_store();
    let stamp = |ino: u64| FileStamp { dev: ino % 3, ino: ino.wrapping_mul(7), size: ino, mtime: (1, 2), ctime: (3, 4) };
    let sum = |ino: u64| key((ino % 251) as u8);
    let known: Vec<(FileStamp, [u8; 32])> = (0..3000).map(|ino| (stamp(ino), sum(ino))).collect();
    store.remember_checksums(&known).unwrap();
    for step in [1, 2, 13, 100, 1000, 2999] {
        // Every other one was never remembered; the same file may be asked for twice, and in any order.
        let asked: Vec<u64> = (0..6000).rev().filter(|ino| ino % step == 0).chain([0, 0, 5999]).collect();
        let stamps: Vec<FileStamp> = asked.iter().map(|ino| stamp(*ino)).collect();
        let expected: Vec<Option<[u8; 32]>> = asked.iter().map(|ino| (*ino < 3000).then(|| sum(*ino))).collect();
        assert_eq!(store.checksums(&stamps).unwrap(), expected);
    }
}

#[test]
fn a_key_is_locked_by_one_process_and_freed_by_its_death() {
    let (_dir, store) = new_store();
    let mut worker = Worker::start("key", store.root());
    worker.wait_for("locked");
    assert!(store.try_lock_key(&key(1)).unwrap().is_none());
    assert!(store.try_lock_key(&key(2)).unwrap().is_some());
    worker.kill();
    let lock = store.lock_key(&key(1)).unwrap();
    assert!(store.try_lock_key(&key(1)).unwrap().is_none());
    drop(lock);
    assert!(store.try_lock_key(&key(1)).unwrap().is_some());
    assert_eq!(listing(&store, "locks"), ["store"]);
}

#[test]
fn a_key_is_held_by_one_thread_at_a_time() {
    let (_dir, store) = new_store();
    let inside = std::sync::atomic::AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..50 {
                    let _lock = store.lock_key(&key(1)).unwrap();
                    assert_eq!(inside.fetch_add(1, std::sync::atomic::Ordering::SeqCst), 0);
                    inside.fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
                }
            });
        }
    });
}

#[test]
fn a_cache_mount_is_seeded_once_and_kept() {
    let (_dir, store) = new_store();
    let mut mount = store.cache_mount(&key(1), "/root/.cache", MountSharing::Shared).unwrap();
    assert!(mount.is_new());
    std::fs::write(mount.path().join("half"), "x").unwrap();
    drop(mount);
    // Whoever was seeding gave up, so the next one starts over.
    mount = store.cache_mount(&key(1), "/root/.cache", MountSharing::Shared).unwrap();
    assert!(mount.is_new() && !mount.path().join("half").exists());
    std::fs::write(mount.path().join("seed"), "x").unwrap();
    mount.seeded().unwrap();
    let other = store.cache_mount(&key(1), "/root/.cache", MountSharing::Shared).unwrap();
    assert!(!other.is_new() && other.path().join("seed").exists());
    let private = store.cache_mount(&key(1), "/root/.cache", MountSharing::Private).unwrap();
    assert!(private.is_new() && private.path() != other.path());
    assert_eq!(store.prune(&PruneOptions::all()).unwrap().cache_mounts, 0);
    drop((mount, other, private));
    assert_eq!(store.prune(&PruneOptions::all()).unwrap().cache_mounts, 2);
    assert_eq!(listing(&store, "cachemounts"), Vec::<String>::new());
}

#[test]
fn who_waited_for_the_seed_of_a_shared_cache_mount_does_not_wait_for_its_use() {
    let (_dir, store) = new_store();
    let mut first = store.cache_mount(&key(1), "x", MountSharing::Shared).unwrap();
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let second = store.cache_mount(&key(1), "x", MountSharing::Shared).unwrap();
            sender.send(second.is_new()).unwrap();
        });
        assert!(receiver.recv_timeout(std::time::Duration::from_millis(100)).is_err());
        first.seeded().unwrap();
        let is_new = receiver.recv_timeout(std::time::Duration::from_secs(10));
        drop(first);
        assert_eq!(is_new, Ok(false));
    });
}

#[test]
fn a_locked_cache_mount_makes_others_wait() {
    let (_dir, store) = new_store();
    let mut first = store.cache_mount(&key(1), "x", MountSharing::Locked).unwrap();
    first.seeded().unwrap();
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let _second = store.cache_mount(&key(1), "x", MountSharing::Locked).unwrap();
            sender.send(()).unwrap();
        });
        assert!(receiver.recv_timeout(std::time::Duration::from_millis(50)).is_err());
        drop(first);
        receiver.recv_timeout(std::time::Duration::from_secs(10)).unwrap();
    });
}

#[test]
fn a_record_costs_the_same_however_many_layers_it_names() {
    let (_dir, store) = new_store();
    let rows = || -> i64 {
        let count = |db: &rusqlite::Connection| {
            let tables = "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite%'";
            let tables: Vec<String> = db.prepare(tables)?.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
            tables.iter().map(|table| db.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get::<_, i64>(0))).sum()
        };
        store.database().read("count", count).unwrap()
    };
    let (mut stack, mut before, mut added) = (Vec::new(), rows(), Vec::new());
    for number in 1..=30 {
        stack.push(snapshot(&store, "layer"));
        store.cache_put(&[key(number)], &entry(&stack)).unwrap();
        store.record_chain(&ChainId::chain(&[DiffId::new(Digest::sha256(&[number]))])[0], &stack).unwrap();
        added.push(rows() - before);
        before = rows();
    }
    assert_eq!(added, [added[0]; 30]);
    // All of them go with the lowest layer.
    store.database().write("remove", |tx| Ok(remove_snapshots(tx, &stack[..1].iter().copied().collect())?)).unwrap();
    assert!((1..=30).all(|number| store.cache_get(&key(number)).unwrap().is_none()));
    verify(&store);
}

#[test]
fn the_layers_of_a_deep_stack_are_looked_at_once() {
    let (_dir, store) = new_store();
    let layer = |name: &str| {
        let active = store.prepare().unwrap();
        std::fs::create_dir(active.fs_path().join("d")).unwrap();
        std::fs::write(active.fs_path().join("d").join(name), name).unwrap();
        active.commit(SnapshotMeta::default()).unwrap().id
    };
    let mut stack: Vec<SnapshotId> = (0..40).map(|number| layer(&format!("file{number}"))).collect();
    let names = |stack: &[SnapshotId]| store.view(stack).unwrap().read_dir(&RootPath::new("/d")).unwrap().len();
    assert_eq!(names(&stack), 40);
    // Whoever asked one of these again would not find it.
    for id in &stack[..40] {
        std::fs::remove_dir_all(store.snapshot_path(*id)).unwrap();
    }
    for more in 41..50 {
        stack.push(layer(&format!("file{more}")));
        assert_eq!(names(&stack), more);
        let view = store.view(&stack).unwrap();
        assert_eq!(view.metadata(&RootPath::new("/d/nothing")).unwrap(), None);
        assert_eq!(view.metadata(&RootPath::new(format!("/d/file{more}"))).unwrap().unwrap().nlink, 1);
    }
    // Another branch, and a part of the stack.
    let branch = [&stack[..30], &[layer("other")]].concat();
    assert_eq!((names(&branch), names(&stack[..20]), names(&stack)), (31, 20, 49));
}
