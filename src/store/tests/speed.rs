//! Figures, on demand: `cargo test --lib store::tests::speed -- --ignored --nocapture`.

use std::time::{Duration, Instant};

use super::*;

/// The median time of `f`, which is told the number of its round.
fn median<T>(rounds: u32, mut f: impl FnMut(u32) -> T) -> Duration {
    let mut times: Vec<Duration> = (0..rounds)
        .map(|round| {
            let start = Instant::now();
            let value = f(round);
            let time = start.elapsed();
            drop(value);
            time
        })
        .collect();
    times.sort();
    times[times.len() / 2]
}

fn numbered(number: u32) -> [u8; 32] {
    let mut key = [0; 32];
    key[..4].copy_from_slice(&number.to_le_bytes());
    key
}

#[test]
#[ignore = "prints figures"]
fn figures() {
    let (_dir, store) = new_store();
    let id = snapshot(&store, "x");
    let config = image(&store, "config", &[id]);
    store.tag(&name("app"), &config, None).unwrap();
    println!("cache_put    {:?}", median(2000, |n| store.cache_put(&[numbered(n), numbered(n + 100_000)], &entry(&[id])).unwrap()));
    println!("cache_get    {:?}", median(2000, |n| store.cache_get(&numbered(n)).unwrap().unwrap()));
    println!("put_blob     {:?}", median(500, |n| store.put_blob(&numbered(n)).unwrap()));
    println!("put_blob old {:?}", median(500, |n| store.put_blob(&numbered(n)).unwrap()));
    println!("snapshot     {:?}", median(300, |n| assert!(snapshot(&store, &n.to_string()).number() > 0)));
    println!("tag, move    {:?}", median(300, |n| store.tag(&name(&format!("app:{n}")), &config, None).unwrap()));
    println!("tag, same    {:?}", median(300, |n| store.tag(&name(&format!("app:{n}")), &config, None).unwrap()));
    println!("lease        {:?}", median(300, |_| store.lease().unwrap()));
    let lease = store.lease().unwrap();
    println!("lease.add    {:?}", median(300, |_| assert!(lease.add(&Resource::Snapshot(id)).unwrap())));
    let stamp = |n: u64| FileStamp { dev: 1, ino: n, size: 1, mtime: (n as i64, 0), ctime: (n as i64, 0) };
    let sums: Vec<_> = (0..10_000).map(|n| (stamp(n), key(1))).collect();
    let stamps: Vec<_> = sums.iter().map(|(stamp, _)| *stamp).collect();
    println!("remember 10k {:?}", median(1, |_| store.remember_checksums(&sums).unwrap()));
    println!("checksums    {:?} for 10k", median(5, |_| store.checksums(&stamps).unwrap()));
    println!("settle       {:?}", median(1, |_| store.settle().unwrap()));
    let root = store.root().to_owned();
    drop((lease, store));
    println!("open         {:?}", median(200, |_| Store::open(&root).unwrap()));
    let cold = |_| {
        let store = Store::open(&root).unwrap();
        assert!(store.cache_get(&numbered(1)).unwrap().is_some());
    };
    println!("open and get {:?}", median(200, cold));
}
