//! Other processes: this test binary started again, in a role.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use super::*;

const ROLE: &str = "STRAKE_TEST_ROLE";
const ROOT: &str = "STRAKE_TEST_ROOT";

/// Another process on a store; killed when it is dropped.
pub(super) struct Worker {
    child: Child,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

impl Worker {
    /// Starts a process that plays `role` on the store in `root`.
    pub(super) fn start(role: &str, root: &Path) -> Worker {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "store::tests::process::play_role", "--nocapture", "--quiet", "--test-threads=1"])
            .env(ROLE, role)
            .env(ROOT, root)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Worker { child, lines }
    }

    /// Waits for a line `word value` and gives the value.
    #[track_caller]
    pub(super) fn wait_for(&mut self, word: &str) -> String {
        loop {
            let line = self.lines.next().expect("the worker ended early").unwrap();
            if let Some(at) = line.find(&format!("@{word} ")) {
                return line[at + word.len() + 2..].to_owned();
            }
        }
    }

    pub(super) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn say(word: &str, value: impl std::fmt::Display) {
    println!("@{word} {value}");
    std::io::stdout().flush().unwrap();
}

/// Does nothing in a normal run; in a worker, it is the worker.
#[test]
fn play_role() {
    let (Ok(role), Ok(root)) = (std::env::var(ROLE), std::env::var(ROOT)) else { return };
    let store = Store::open(Path::new(&root)).unwrap();
    match role.as_str() {
        "busy" => work_forever(&store),
        "lease" => hold(&store),
        "partial" => write_part(&store),
        "ingest" => ingest_big(&store),
        "active" => {
            let active = store.prepare().unwrap();
            say("made", active.fs_path().display());
            wait_for_end();
        }
        "prune" => {
            say("ready", 0);
            let options = PruneOptions { rules: vec![PruneRule::default()], ..PruneOptions::default() };
            (0..50).for_each(|_| drop(store.prune(&options).unwrap()));
            wait_for_end();
        }
        "key" => {
            let _lock = store.lock_key(&key(1)).unwrap();
            say("locked", 1);
            wait_for_end();
        }
        other => panic!("no role {other}"),
    }
}

fn wait_for_end() {
    std::io::stdin().lines().for_each(drop);
}

/// Everything that a build does to the store, over and over, until it is killed.
fn work_forever(store: &Store) {
    say("started", 0);
    for round in 0u64.. {
        let unique = format!("{}-{round}", std::process::id());
        let _lease = store.lease().unwrap();
        let snapshots = [super::snapshot(store, &format!("one {unique}")), super::snapshot(store, &format!("two {unique}"))];
        let config = ImageId::new(store.put_blob(format!("config {unique}").as_bytes()).unwrap());
        let manifest = store.put_blob(format!("manifest {unique}").as_bytes()).unwrap();
        let layer = unique.as_bytes().repeat(5000);
        let digest = Digest::sha256(&layer);
        if let Ingest::Ready(mut writer) = store.ingest(Some(&digest)).unwrap() {
            layer.chunks(16 * 1024).for_each(|chunk| writer.append(chunk).unwrap());
            writer.commit(&digest, layer.len() as u64).unwrap();
        }
        let diff_id = DiffId::new(digest.clone());
        let media_type = MediaType::OciLayer;
        store.record_layer_blob(&diff_id, &LayerBlob { digest, size: layer.len() as u64, media_type, made_as: None }).unwrap();
        store.set_diff_id(snapshots[0], &diff_id, layer.len() as u64).unwrap();
        let image = ImageRecord { manifest: Some(manifest.clone()), diff_ids: vec![diff_id.clone()], ..record(&config, &snapshots) };
        store.put_image(&image).unwrap();
        store.tag(&name(&format!("app:{}", round % 3)), &config, Some(&manifest)).unwrap();
        store.record_chain(&ChainId::extend(None, &diff_id), &snapshots[..1]).unwrap();
        store.cache_put(&[*digest_bytes(&format!("key {unique}")), *digest_bytes("shared")], &entry(&snapshots)).unwrap();
        let _active = store.prepare().unwrap();
        if round % 4 == 3 {
            store.remove_image(&config).unwrap();
            store.settle().unwrap();
        }
        if round % 5 == 4 {
            let rule = PruneRule { max_used_space: 1 << 20, ..PruneRule::default() };
            store.prune(&PruneOptions { images: PruneImages::Dangling, rules: vec![rule], ..PruneOptions::default() }).unwrap();
        }
    }
}

fn digest_bytes(text: &str) -> Box<[u8; 32]> {
    match Digest::sha256(text.as_bytes()) {
        Digest::Sha256(bytes) => Box::new(bytes),
        Digest::Sha512(_) => unreachable!(),
    }
}

fn hold(store: &Store) {
    let lease = store.lease().unwrap();
    let old: SnapshotId = store.snapshots().unwrap()[0].id;
    assert!(lease.add(&Resource::Snapshot(old)).unwrap());
    let made = super::snapshot(store, "made under a lease");
    let blob = store.put_blob(b"made under a lease").unwrap();
    say("snapshot", made);
    say("blob", blob);
    wait_for_end();
}

/// The blob that two processes want.
pub(super) fn big() -> Vec<u8> {
    (0..3_000_000u32).map(|number| (number.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
}

fn write_part(store: &Store) {
    let big = big();
    let Ingest::Ready(mut writer) = store.ingest(Some(&Digest::sha256(&big))).unwrap() else { panic!("not ready") };
    writer.append(&big[..1_000_000]).unwrap();
    say("written", 1_000_000);
    wait_for_end();
}

fn ingest_big(store: &Store) {
    let big = big();
    let digest = Digest::sha256(&big);
    let outcome = match store.ingest(Some(&digest)).unwrap() {
        Ingest::Busy(busy) => busy.wait().unwrap(),
        other => other,
    };
    match outcome {
        Ingest::Ready(mut writer) => {
            for chunk in big[writer.offset() as usize..].chunks(100_000) {
                writer.append(chunk).unwrap();
                std::thread::sleep(std::time::Duration::from_millis(2));
            }
            writer.commit(&digest, big.len() as u64).unwrap();
            say("result", "wrote");
        }
        Ingest::Present(size) => say("result", format_args!("present {size}")),
        Ingest::Busy(_) => say("result", "busy"),
    }
}
