//! What a killed process, a power cut and a full disk leave.

use std::time::Duration;

use rustix::mount::{MountFlags, UnmountFlags};

use super::process::{Worker, big};
use super::*;

/// Numbers that differ from run to run, so that over time every instant is hit.
fn random(limit: u64) -> u64 {
    u64::from_le_bytes(layout::random_bytes().unwrap()) % limit
}

#[test]
fn being_killed_at_any_instant_breaks_no_promise() {
    let (_dir, store) = new_store();
    // A slow machine gets as far in more rounds.
    let mut round = 0;
    while round < 50 || (store.snapshots().unwrap().len() <= 50 && round < 500) {
        // Two at once: one dies while the other works.
        let mut workers = [Worker::start("busy", store.root()), Worker::start("busy", store.root())];
        for worker in &mut workers {
            worker.wait_for("started");
        }
        for worker in &mut workers {
            std::thread::sleep(Duration::from_micros(random(60_000)));
            worker.kill();
        }
        if round % 10 == 9 {
            verify(&Store::open(store.root()).unwrap());
        }
        round += 1;
    }
    let store = Store::open(store.root()).unwrap();
    verify(&store);
    println!("{} snapshots before the last prune", store.snapshots().unwrap().len());
    assert!(store.snapshots().unwrap().len() > 50, "the workers did not get anywhere");
    store.prune(&PruneOptions::default()).unwrap();
    verify(&store);
    verify_no_garbage(&store);
    store.prune(&PruneOptions::all()).unwrap();
    verify_no_garbage(&store);
    assert_eq!(store.snapshots().unwrap(), []);
    assert_eq!(listing(&store, "blobs/sha256"), Vec::<String>::new());
}

#[test]
fn a_power_cut_takes_what_is_not_settled_and_nothing_else() {
    let (dir, store) = new_store();
    let root = dir.path().join("store");
    let old = snapshot(&store, "old");
    let old_image = image(&store, "old config", &[old]);
    store.tag(&name("app"), &old_image, None).unwrap();
    store.cache_put(&[key(1)], &entry(&[old])).unwrap();
    store.settle().unwrap();
    let new = snapshot(&store, "new");
    let new_image = image(&store, "new config", &[new]);
    store.tag(&name("app"), &new_image, None).unwrap();
    store.tag(&name("fresh"), &new_image, None).unwrap();
    store.cache_put(&[key(2)], &entry(&[old, new])).unwrap();
    store.record_chain(&ChainId::extend(None, &DiffId::new(Digest::sha256(b"new"))), &[new]).unwrap();
    drop(store);

    let store = Store::open_in_boot(&root, "another-boot").unwrap();
    verify(&store);
    assert_eq!(store.snapshot(new).unwrap(), None);
    assert_eq!(store.cache_get(&key(2)).unwrap(), None);
    assert_eq!(store.resolve(&name("fresh")).unwrap(), None);
    assert_eq!(store.blob_size(new_image.digest()).unwrap(), None);
    // The name falls back to where it pointed when it was last on the disk.
    assert_eq!(store.resolve(&name("app")).unwrap().unwrap().id, old_image);
    assert_eq!(store.cache_get(&key(1)).unwrap(), Some(entry(&[old])));
    // The directory without a row is in nobody's way.
    for number in 0..3 {
        snapshot(&store, &format!("again {number}"));
    }
    verify(&store);
    store.prune(&PruneOptions::default()).unwrap();
    verify_no_garbage(&store);
}

#[test]
fn what_is_settled_survives_a_power_cut() {
    let (dir, store) = new_store();
    let snapshot = snapshot(&store, "kept");
    let image = image(&store, "config", &[snapshot]);
    store.tag(&name("app"), &image, None).unwrap();
    store.settle().unwrap();
    assert_eq!(listing(&store, "blobs/sha256"), [image.digest().hex()]);
    drop(store);
    let store = Store::open_in_boot(&dir.path().join("store"), "another-boot").unwrap();
    assert_eq!(store.resolve(&name("app")).unwrap().unwrap().snapshots, [snapshot]);
    verify(&store);
}

#[test]
fn a_killed_download_is_resumed_where_it_ended() {
    let (_dir, store) = new_store();
    let (big, digest) = (big(), Digest::sha256(&big()));
    let mut worker = Worker::start("partial", store.root());
    worker.wait_for("written");
    assert!(matches!(store.ingest(Some(&digest)).unwrap(), Ingest::Busy(_)));
    store.prune(&PruneOptions::all()).unwrap();
    worker.kill();
    store.prune(&PruneOptions { downloads: false, ..PruneOptions::all() }).unwrap();
    let before = Some(std::time::SystemTime::now() - std::time::Duration::from_secs(3600));
    store.prune(&PruneOptions { until: before, ..PruneOptions::all() }).unwrap();
    let Ingest::Ready(mut writer) = store.ingest(Some(&digest)).unwrap() else { panic!("not ready") };
    assert_eq!(writer.offset(), 1_000_000);
    writer.append(&big[1_000_000..]).unwrap();
    writer.commit(&digest, big.len() as u64).unwrap();
    assert_eq!(store.blob_size(&digest).unwrap(), Some(big.len() as u64));
    assert_eq!(listing(&store, "ingest"), Vec::<String>::new());
}

#[test]
fn a_killed_download_goes_where_everything_is_to_go() {
    let (_dir, store) = new_store();
    let mut worker = Worker::start("partial", store.root());
    worker.wait_for("written");
    store.prune(&PruneOptions::all()).unwrap();
    assert_eq!(listing(&store, "ingest").len(), 1, "somebody is at it");
    worker.kill();
    assert!(store.prune(&PruneOptions::all()).unwrap().freed >= 1_000_000);
    assert_eq!(listing(&store, "ingest"), Vec::<String>::new());
}

#[test]
fn two_processes_that_want_one_blob_write_it_once() {
    let (_dir, store) = new_store();
    let mut workers = [Worker::start("ingest", store.root()), Worker::start("ingest", store.root())];
    let mut results: Vec<String> = workers.iter_mut().map(|worker| worker.wait_for("result")).collect();
    results.sort();
    assert_eq!(results, ["present 3000000", "wrote"]);
    verify(&store);
}

#[test]
fn wrong_bytes_are_refused_and_not_resumed() {
    let (_dir, store) = new_store();
    let digest = Digest::sha256(b"right");
    let write = |bytes: &[u8]| {
        let Ingest::Ready(mut writer) = store.ingest(Some(&digest)).unwrap() else { panic!("not ready") };
        assert_eq!(writer.offset(), 0);
        writer.append(bytes).unwrap();
        writer.commit(&digest, 5)
    };
    assert!(matches!(write(b"wrong"), Err(Error::DigestMismatch { .. })));
    assert!(matches!(write(b"righ"), Err(Error::SizeMismatch { .. })));
    assert_eq!(store.blob_size(&digest).unwrap(), None);
    write(b"right").unwrap();
    assert!(matches!(store.ingest(Some(&digest)).unwrap(), Ingest::Present(5)));
}

#[test]
fn sha512_blobs_are_kept_too() {
    let (_dir, store) = new_store();
    let digest = Digest::of(crate::oci::Algorithm::Sha512, b"bytes");
    let Ingest::Ready(mut writer) = store.ingest(Some(&digest)).unwrap() else { panic!("not ready") };
    writer.append(b"bytes").unwrap();
    writer.commit(&digest, 5).unwrap();
    store.sync().unwrap();
    assert_eq!(listing(&store, "blobs/sha512"), [digest.hex()]);
    assert_eq!(store.read_blob(&digest, 5).unwrap(), b"bytes");
    assert!(matches!(store.read_blob(&digest, 4), Err(Error::BlobTooLarge { .. })));
}

/// A small file system of its own.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount(megabytes: u32) -> SmallDisk {
        let dir = tempfile::tempdir().unwrap();
        let options = std::ffi::CString::new(format!("size={megabytes}m")).unwrap();
        rustix::mount::mount("tmpfs", dir.path(), "tmpfs", MountFlags::empty(), Some(options.as_c_str())).unwrap();
        SmallDisk(dir)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(self.0.path(), UnmountFlags::DETACH);
    }
}

#[test]
fn a_full_disk_is_said_so_and_harms_nothing() {
    if !is_root("mounting a small file system") {
        return;
    }
    let disk = SmallDisk::mount(4);
    let store = Store::open(&disk.0.path().join("store")).unwrap();
    let base = snapshot(&store, "base");
    let image = image(&store, "config", &[base]);
    store.settle().unwrap();

    let error = store.put_blob(&vec![7; 8_000_000]).unwrap_err();
    assert!(error.is_disk_full(), "{error:?}");
    assert!(error.to_string().contains(&store.root().join("ingest").display().to_string()), "{error}");
    assert!(error.hint().unwrap().contains("strake prune"));

    // Nothing at all is left, not even for the database.
    let _ = std::fs::write(disk.0.path().join("filler"), vec![0; 8_000_000]);
    let error = (0..100_000u32).find_map(|round| store.tag(&name(&format!("app:{round}")), &image, None).err());
    assert!(error.as_ref().unwrap().is_disk_full(), "{error:?}");
    let error = store.prepare().and_then(|active| {
        let wrote = std::fs::write(active.fs_path().join("file"), vec![1; 4096]);
        assert!(wrote.is_err());
        active.commit(SnapshotMeta::default())
    });
    assert!(error.unwrap_err().is_disk_full());
    verify(&store);
    std::fs::remove_file(disk.0.path().join("filler")).unwrap();
    store.tag(&name("app"), &image, None).unwrap();
    snapshot(&store, "after");
    store.settle().unwrap();
    verify(&store);
    store.prune(&PruneOptions::default()).unwrap();
    verify_no_garbage(&store);
}
