//! What prune takes and what it leaves.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::time::Duration;

use super::process::Worker;
use super::*;
use crate::oci::{Descriptor, Manifest};

#[test]
fn prune_takes_what_nothing_needs_and_nothing_else() {
    let (_dir, store) = new_store();
    let ids: Vec<SnapshotId> = ["image", "cached", "container", "chain", "loose"].iter().map(|text| snapshot(&store, text)).collect();
    let kept = image(&store, "kept", &ids[..1]);
    store.tag(&name("kept"), &kept, None).unwrap();
    store.cache_put(&[key(1)], &entry(&ids[1..2])).unwrap();
    store.create_container(new_container_id().unwrap(), "c", None, &ids[2..3]).unwrap();
    store.record_chain(&ChainId::extend(None, &DiffId::new(Digest::sha256(b"l"))), &ids[3..4]).unwrap();
    let loose = store.put_blob(b"loose").unwrap();

    let plan = store.prune(&PruneOptions { dry_run: true, ..PruneOptions::default() }).unwrap();
    assert_eq!((plan.snapshots, plan.blobs, plan.freed), (1, 1, 10));
    assert!(store.snapshot(ids[4]).unwrap().is_some() && store.blob_size(&loose).unwrap().is_some());

    let report = store.prune(&PruneOptions::default()).unwrap();
    assert_eq!((report.snapshots, report.blobs, report.images.len()), (1, 1, 0));
    assert!(report.freed > 0);
    assert_eq!(store.snapshot(ids[4]).unwrap(), None);
    assert!(!store.snapshot_path(ids[4]).exists());
    assert_eq!(store.snapshots().unwrap().len(), 4);
    verify(&store);
    verify_no_garbage(&store);

    let report = store.prune(&PruneOptions::all()).unwrap();
    assert_eq!((report.snapshots, report.cache_records), (3, 1));
    assert_eq!((report.images, report.names), (vec![kept], vec![name("kept")]));
    assert_eq!(store.snapshots().unwrap()[0].id, ids[2]);
}

#[test]
fn dangling_images_go_and_named_or_used_ones_stay() {
    let (_dir, store) = new_store();
    let images: Vec<ImageId> = (0..3).map(|n| image(&store, &format!("c{n}"), &[snapshot(&store, &format!("s{n}"))])).collect();
    store.tag(&name("app"), &images[0], None).unwrap();
    store.create_container(new_container_id().unwrap(), "c", Some(&images[1]), &[]).unwrap();
    let options = PruneOptions { images: PruneImages::Dangling, ..PruneOptions::default() };
    let past = std::time::SystemTime::now() - Duration::from_secs(3600);
    assert_eq!(store.prune(&PruneOptions { until: Some(past), ..options.clone() }).unwrap().images, []);
    assert_eq!(store.prune(&options).unwrap().images, [images[2].clone()]);
    assert_eq!(store.prune(&PruneOptions::all()).unwrap().images, [images[0].clone()]);
    assert!(store.image(&images[1]).unwrap().is_some());
    verify(&store);
}

#[test]
fn an_image_that_a_name_falls_back_to_stays() {
    let (dir, store) = new_store();
    let (old, new) = (image(&store, "old", &[]), image(&store, "new", &[]));
    store.tag(&name("app"), &old, None).unwrap();
    store.settle().unwrap();
    store.tag(&name("app"), &new, None).unwrap();
    store.prune(&PruneOptions { images: PruneImages::Dangling, ..PruneOptions::default() }).unwrap();
    let store = Store::open_in_boot(&dir.path().join("store"), "another-boot").unwrap();
    assert_eq!(store.resolve(&name("app")).unwrap().map(|image| image.id), Some(old));
}

#[test]
fn pruning_all_takes_the_image_that_a_name_falls_back_to() {
    let (_dir, store) = new_store();
    let (old, new) = (image(&store, "old", &[]), image(&store, "new", &[]));
    store.tag(&name("app"), &old, None).unwrap();
    store.settle().unwrap();
    store.tag(&name("app"), &new, None).unwrap();
    assert_eq!(store.prune(&PruneOptions::all()).unwrap().images.len(), 2);
    assert_eq!(store.images().unwrap(), []);
}

#[test]
fn blobs_that_a_manifest_lists_stay() {
    let (_dir, store) = new_store();
    let layer = store.put_blob(b"layer").unwrap();
    let config = ImageId::new(store.put_blob(b"config").unwrap());
    let manifest = Manifest {
        schema_version: 2,
        media_type: Some(MediaType::OciManifest),
        artifact_type: None,
        config: Descriptor::new(MediaType::OciConfig, config.digest().clone(), 6),
        layers: vec![Descriptor::new(MediaType::OciLayer, layer.clone(), 5)],
        subject: None,
        annotations: std::collections::BTreeMap::new(),
    };
    let manifest = store.put_blob(&serde_json::to_vec(&manifest).unwrap()).unwrap();
    store.put_image(&ImageRecord { manifest: Some(manifest.clone()), ..record(&config, &[]) }).unwrap();
    assert_eq!(store.prune(&PruneOptions::default()).unwrap().blobs, 0);
    store.remove_image(&config).unwrap();
    assert_eq!(store.prune(&PruneOptions::default()).unwrap().blobs, 3);
    assert_eq!(store.blob_size(&layer).unwrap(), None);
}

#[test]
fn a_lease_of_another_process_protects_until_it_dies() {
    let (_dir, store) = new_store();
    let old = snapshot(&store, "old");
    let mut worker = Worker::start("lease", store.root());
    let made: SnapshotId = worker.wait_for("snapshot").parse().unwrap();
    let blob: Digest = worker.wait_for("blob").parse().unwrap();
    store.prune(&PruneOptions::all()).unwrap();
    assert!(store.snapshot_path(old).join("file").exists() && store.snapshot_path(made).join("file").exists());
    assert!(store.blob_size(&blob).unwrap().is_some());
    worker.kill();
    store.prune(&PruneOptions::all()).unwrap();
    assert_eq!(store.snapshots().unwrap(), []);
    assert_eq!(store.blob_size(&blob).unwrap(), None);
    verify_no_garbage(&store);
}

#[test]
fn a_leased_image_keeps_its_parts_even_when_it_is_removed() {
    let (_dir, store) = new_store();
    let layer = snapshot(&store, "layer");
    let id = image(&store, "config", &[layer]);
    let lease = store.lease().unwrap();
    assert_eq!(lease.add_all(&[Resource::Image(id.clone()), Resource::Blob(Digest::sha256(b"none"))]).unwrap(), [true, false]);
    store.prune(&PruneOptions::all()).unwrap();
    assert!(store.image(&id).unwrap().is_some());
    store.remove_image(&id).unwrap();
    store.prune(&PruneOptions::all()).unwrap();
    assert!(store.snapshot(layer).unwrap().is_some() && store.blob_size(id.digest()).unwrap().is_some());
    drop(lease);
    store.prune(&PruneOptions::all()).unwrap();
    assert_eq!(store.snapshot(layer).unwrap(), None);
    let lease = store.lease().unwrap();
    assert!(!lease.add(&Resource::Snapshot(layer)).unwrap());
}

#[test]
fn an_active_snapshot_of_a_living_process_stays() {
    let (_dir, store) = new_store();
    let mut worker = Worker::start("active", store.root());
    let path = std::path::PathBuf::from(worker.wait_for("made"));
    store.prune(&PruneOptions::all()).unwrap();
    assert!(path.exists());
    worker.kill();
    let report = store.prune(&PruneOptions::all()).unwrap();
    assert!(!path.exists());
    assert_eq!(report.leftovers, 1);
}

#[test]
fn builds_and_prunes_at_once_lose_nothing_that_is_leased() {
    let (_dir, store) = new_store();
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        // Also when a check fails: the other thread must end for the scope to end.
        let _stopping = Stop(&stop);
        scope.spawn(|| {
            let other = Store::open(store.root()).unwrap();
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                other.prune(&PruneOptions::all()).unwrap();
            }
        });
        for round in 0..100 {
            let lease = store.lease().unwrap();
            let id = snapshot(&store, &format!("round {round}"));
            let config = ImageId::new(store.put_blob(b"always the same").unwrap());
            store.put_image(&record(&config, &[id])).unwrap();
            store.tag(&name("app"), &config, None).unwrap();
            assert!(store.snapshot_path(id).join("file").exists());
            assert_eq!(store.read_blob(config.digest(), 100).unwrap(), b"always the same");
            drop(lease);
        }
    });
    verify(&store);
}

/// Tells another thread to stop when it is dropped.
struct Stop<'a>(&'a std::sync::atomic::AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, std::sync::atomic::Ordering::Relaxed);
    }
}

#[test]
fn trees_go_whatever_is_in_them() {
    let (dir, store) = new_store();
    let active = store.prepare().unwrap();
    let top = active.fs_path();
    let outside = dir.path().join("outside");
    std::fs::create_dir(&outside).unwrap();
    std::fs::write(outside.join("precious"), "x").unwrap();
    symlink(&outside, top.join("link")).unwrap();
    let locked = top.join("locked");
    std::fs::create_dir_all(locked.join("inner")).unwrap();
    std::fs::write(locked.join("inner/file"), "x").unwrap();
    std::fs::set_permissions(&locked, std::fs::Permissions::from_mode(0o0)).unwrap();
    // Deeper than both a path and a process's descriptors allow.
    let mut deep = rustix::fs::open(&top, rustix::fs::OFlags::DIRECTORY, rustix::fs::Mode::empty()).unwrap();
    for _ in 0..1500 {
        rustix::fs::mkdirat(&deep, "deeper", 0o755.into()).unwrap();
        deep = rustix::fs::openat(&deep, "deeper", rustix::fs::OFlags::DIRECTORY, rustix::fs::Mode::empty()).unwrap();
    }
    drop(active);
    assert_eq!(listing(&store, "snapshots"), ["0"]);
    assert_eq!(listing(&store, "trash"), Vec::<String>::new());
    assert!(outside.join("precious").exists());
}

#[test]
fn a_store_that_somebody_is_removing_is_not_opened_in_the_background() {
    let made = || {
        let (dir, store) = new_store();
        snapshot(&store, "x");
        drop(store);
        (dir.path().join("store"), dir)
    };
    let names = |root: &Path| {
        let mut names: Vec<_> = walkdir::WalkDir::new(root).into_iter().map(|entry| entry.unwrap().into_path()).collect();
        names.sort();
        names
    };
    let (whole, _dir) = made();
    assert!(Store::open_made(&whole).unwrap().is_some());
    for gone in ["version", "meta.db", "meta.db-wal", "meta.db-shm", "blobs", "fresh", "locks", "snapshots", "containers"] {
        let (root, _dir) = made();
        let path = root.join(gone);
        if path.is_dir() {
            std::fs::remove_dir_all(path).unwrap()
        } else {
            std::fs::remove_file(path).unwrap()
        }
        let before = names(&root);
        assert!(Store::open_made(&root).unwrap().is_none(), "{gone}");
        assert_eq!(names(&root), before, "{gone}");
    }
}
