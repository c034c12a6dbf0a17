//! A store of 1,000 images and 20,000 layers: makes it, and measures what lists and prunes it.
//!
//! `cargo bench --bench store` makes it in a directory of its own and prints what listing, `df` and prune take in this process. `cargo bench --bench store -- DIR` makes it in
//! `DIR` and leaves it there, for whole commands (`strake --root DIR images`). The goals are 50 ms for lists and seconds for prune.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a bench")]

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use strake::oci::{ChainId, Descriptor, DiffId, Digest, ImageConfig, ImageId, Manifest, MediaType, Platform, Reference};
use strake::store::{ImageRecord, LayerBlob, PruneImages, PruneOptions, SnapshotMeta, Store};

const IMAGES: usize = 1_000;
const LAYERS: usize = 20;

fn main() {
    // The arguments that cargo gives to benches have dashes.
    let dir = std::env::args().skip(1).find(|argument| !argument.starts_with('-')).map(PathBuf::from);
    match dir {
        Some(dir) => make(&Store::open(&dir).unwrap()),
        None => measure(),
    }
}

fn measure() {
    let parent = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tmp");
    std::fs::create_dir_all(&parent).unwrap();
    let dir = tempfile::Builder::new().prefix("bench-").tempdir_in(parent).unwrap();
    let root = dir.path().join("store");
    let started = Instant::now();
    make(&Store::open(&root).unwrap());
    println!("made in          {:?}", started.elapsed());
    println!("list             {:?}", median(|| assert_eq!(Store::open(&root).unwrap().images().unwrap().len(), IMAGES)));
    println!("df, first        {:?}", timed(|| drop(Store::open(&root).unwrap().usage().unwrap())));
    println!("df               {:?}", median(|| assert_eq!(Store::open(&root).unwrap().usage().unwrap().images.len(), IMAGES)));
    let prune = |images| {
        let options = PruneOptions { images, ..PruneOptions::default() };
        Store::open(&root).unwrap().prune(&options).unwrap()
    };
    println!("prune of nothing {:?}", median(|| assert_eq!(prune(PruneImages::Dangling).snapshots, 0)));
    println!(
        "prune of all     {:?}",
        timed(|| assert_eq!(Store::open(&root).unwrap().prune(&PruneOptions::all()).unwrap().images.len(), IMAGES))
    );
}

fn timed(f: impl FnOnce()) -> Duration {
    let started = Instant::now();
    f();
    started.elapsed()
}

fn median(f: impl Fn()) -> Duration {
    let mut times: Vec<Duration> = (0..5).map(|_| timed(&f)).collect();
    times.sort();
    times[2]
}

/// Images as pulls leave them: config, manifest, a blob and a snapshot for each layer, a chain for each stack.
fn make(store: &Store) {
    let _lease = store.lease().unwrap();
    for number in 0..IMAGES {
        make_image(store, number);
    }
    store.settle().unwrap();
}

fn make_image(store: &Store, number: usize) {
    let (mut diff_ids, mut snapshots, mut layers, mut chain) = (Vec::new(), Vec::new(), Vec::new(), None);
    for layer in 0..LAYERS {
        let text = format!("layer {layer} of image {number}");
        let diff_id = DiffId::new(Digest::sha256(text.as_bytes()));
        let digest = store.put_blob(format!("{text}, compressed").as_bytes()).unwrap();
        let active = store.prepare().unwrap();
        std::fs::write(active.fs_path().join("file"), &text).unwrap();
        let meta = SnapshotMeta { diff_id: Some(diff_id.clone()), size: text.len() as u64, description: format!("layer {diff_id}") };
        snapshots.push(active.commit(meta).unwrap().id);
        let media_type = MediaType::OciLayerGzip;
        let size = store.blob_size(&digest).unwrap().unwrap();
        layers.push(Descriptor::new(media_type.clone(), digest.clone(), size));
        store.record_layer_blob(&diff_id, &LayerBlob { digest, size, media_type, made_as: None }).unwrap();
        chain = Some(ChainId::extend(chain.as_ref(), &diff_id));
        store.record_chain(chain.as_ref().unwrap(), &snapshots).unwrap();
        diff_ids.push(diff_id);
    }
    let mut config = ImageConfig::empty(&Platform::host());
    config.rootfs.diff_ids.clone_from(&diff_ids);
    let config = store.put_blob(&config.to_bytes()).unwrap();
    let manifest = Manifest {
        schema_version: 2,
        media_type: Some(MediaType::OciManifest),
        artifact_type: None,
        config: Descriptor::new(MediaType::OciConfig, config.clone(), store.blob_size(&config).unwrap().unwrap()),
        layers,
        subject: None,
        annotations: Default::default(),
    };
    let manifest = store.put_blob(&serde_json::to_vec(&manifest).unwrap()).unwrap();
    let id = ImageId::new(config);
    let record = ImageRecord {
        id: id.clone(),
        manifest: Some(manifest.clone()),
        platform: Platform::host(),
        created_at: std::time::SystemTime::now(),
        size: 1_000_000,
        diff_ids,
        snapshots,
    };
    store.put_image(&record).unwrap();
    let name: Reference = format!("registry.example/team{}/image{number}:v{}", number % 20, number % 7).parse().unwrap();
    store.tag(&name, &id, Some(&manifest)).unwrap();
}
