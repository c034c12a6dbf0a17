//! From a registry into the store: manifest and config first, then all layers at once.
//!
//! ```text
//! network --chunks--> [blob to disk, hashed, decompressed] --tar--> [unpacked, hashed] --in order--> committed snapshot
//! ```
//!
//! Each layer is a pipeline of its own, so that nothing waits for a whole blob, or for the layer below. Only the commit goes in order: a layer's implied
//! directories take their metadata from the layers below, and a chain is recorded when all below it is there.

use std::io::Read;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::oci::{
    Algorithm, ChainId, Descriptor, DiffId, Digest, ImageConfig, ImageId, Manifest, ManifestOrIndex, MediaType, Platform, Reference,
};
use crate::progress::{Meter, StepProgress};
use crate::registry::Client;
use crate::store::{ActiveSnapshot, ImageRecord, Ingest, IngestWriter, LayerBlob, SnapshotId, SnapshotMeta, Store};
use crate::task::{blocking, fault_point};

use super::Error;
use super::layer::{Applied, ApplyOptions, Devices, apply, decompressor, inherit_directories};

/// How deep indexes may be nested.
const MAX_NESTING: usize = 4;

/// How large a config may be: it is read into memory.
const MAX_CONFIG: u64 = 8 << 20;

/// An image of which manifest and config are in the store.
#[derive(Clone, Debug)]
pub struct Resolved {
    /// What the name stands for: the manifest, or the index that it is in.
    pub top: Digest,
    /// The manifest's digest.
    pub manifest_digest: Digest,
    /// The manifest.
    pub manifest: Manifest,
    /// The config's digest.
    pub id: ImageId,
    /// The config.
    pub config: ImageConfig,
}

/// Fetches manifest and config of `reference` for `platform`. Blobs that are in the store already are not fetched again.
///
/// The registry is asked for what the name means, by digest too: that the bytes are here, from wherever, does not say that it has them, or gives them to this user. Only what it
/// said before, or what was pulled from or pushed to this repository, it is not asked for again.
pub async fn resolve(client: &Client, store: &Store, reference: &Reference, platform: &Platform) -> Result<Resolved, Error> {
    let (looker, name) = (store.clone(), reference.clone());
    let is_known = blocking(move || looker.is_known_at(&name)).await?;
    resolve_at(client, store, reference, platform, if is_known { Ask::ForMissing } else { Ask::First }).await
}

/// The same of an image of the store, by the digest of its manifest: the registry is asked for nothing but what is missing.
pub async fn resolve_stored(client: &Client, store: &Store, reference: &Reference, platform: &Platform) -> Result<Resolved, Error> {
    resolve_at(client, store, reference, platform, Ask::ForMissing).await
}

/// What a registry is asked for of a name with a digest.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ask {
    /// Whether it has it, also where the bytes are here.
    First,
    /// Bytes that are not here.
    ForMissing,
}

async fn resolve_at(client: &Client, store: &Store, reference: &Reference, platform: &Platform, ask: Ask) -> Result<Resolved, Error> {
    let name = reference.written().to_owned();
    let mut at = reference.clone();
    let mut top = None;
    let mut announced = None;
    for _ in 0..MAX_NESTING {
        let is_first = top.is_none() && ask == Ask::First;
        // Bytes that are here are what their digest says, so a registry has nothing to add to them.
        let fetched = match at.digest() {
            Some(digest) => fetch_known(client, store, &at, digest, is_first).await?,
            None => client.fetch_manifest(&at).await.map(|m| (m.bytes, m.media_type, m.digest))?,
        };
        let (bytes, media_type, digest) = fetched;
        if let Some(announced) = announced.filter(|size| *size != bytes.len() as u64) {
            return Err(Error::Size { name, digest, announced, actual: bytes.len() as u64 });
        }
        let parsed = ManifestOrIndex::parse(&bytes, Some(&media_type)).map_err(|source| Error::Manifest { name: name.clone(), source })?;
        store_bytes(store, &bytes, &digest).await?;
        if is_first && at.digest().is_some() {
            let (store, said, digest, kind) = (store.clone(), at.only_digest(digest.clone()), digest.clone(), parsed.media_type());
            blocking(move || store.record_remote_manifest(&said, &digest, &kind)).await?;
        }
        let top_digest = top.get_or_insert_with(|| digest.clone()).clone();
        match parsed {
            ManifestOrIndex::Manifest(manifest) => {
                return resolve_config(client, store, &at, &name, top_digest, digest, *manifest).await;
            }
            ManifestOrIndex::Index(index) => {
                let Some(found) = index.select(platform) else {
                    let found = index.platforms();
                    return Err(Error::NoPlatform { name, wanted: platform.clone(), found });
                };
                announced = Some(found.size);
                at = reference.with_digest(found.digest.clone());
            }
        }
    }
    Err(Error::NestedTooDeep { name, limit: MAX_NESTING })
}

/// A manifest whose digest is known: from the store where it is there. With `ask`, the registry must have it too.
async fn fetch_known(
    client: &Client,
    store: &Store,
    at: &Reference,
    digest: &Digest,
    ask: bool,
) -> Result<(Bytes, MediaType, Digest), Error> {
    let (store, wanted) = (store.clone(), digest.clone());
    let known = blocking(move || match store.blob_size(&wanted) {
        Ok(Some(_)) => store.read_blob(&wanted, MAX_CONFIG).map(Some),
        Ok(None) => Ok(None),
        Err(error) => Err(error),
    })
    .await?;
    match known {
        Some(bytes) => {
            if ask {
                client.resolve(at).await?;
            }
            Ok((bytes.into(), MediaType::Other(String::new()), digest.clone()))
        }
        None => client.fetch_manifest(at).await.map(|m| (m.bytes, m.media_type, m.digest)).map_err(Error::from),
    }
}

async fn store_bytes(store: &Store, bytes: &Bytes, digest: &Digest) -> Result<(), Error> {
    let (store, bytes, digest) = (store.clone(), bytes.clone(), digest.clone());
    Ok(blocking(move || store.put_blob_as(&bytes, &digest)).await?)
}

async fn resolve_config(
    client: &Client,
    store: &Store,
    at: &Reference,
    name: &str,
    top: Digest,
    manifest_digest: Digest,
    manifest: Manifest,
) -> Result<Resolved, Error> {
    let descriptor = manifest.config.clone();
    if !matches!(descriptor.media_type, MediaType::OciConfig | MediaType::DockerConfig) {
        let reason = format!("its config is of the type `{}`", descriptor.media_type);
        return Err(Error::NotAnImage { name: name.to_owned(), reason });
    }
    if descriptor.size > MAX_CONFIG {
        return Err(Error::TooLarge { what: "config", name: name.to_owned(), size: descriptor.size });
    }
    fetch_blob(client, store, at, &descriptor).await?;
    let (reader, digest) = (store.clone(), descriptor.digest.clone());
    let bytes = blocking(move || reader.read_blob(&digest, MAX_CONFIG)).await?;
    let config: ImageConfig = serde_json::from_slice(&bytes).map_err(|source| Error::Config {
        name: name.to_owned(),
        digest: descriptor.digest.clone(),
        source,
    })?;
    if config.rootfs.diff_ids.len() != manifest.layers.len() {
        let (layers, diff_ids) = (manifest.layers.len(), config.rootfs.diff_ids.len());
        return Err(Error::LayerCount { name: name.to_owned(), layers, diff_ids });
    }
    check_sizes(store, name, &manifest).await?;
    let id = ImageId::new(descriptor.digest);
    Ok(Resolved { top, manifest_digest, manifest, id, config })
}

/// Compares what a manifest announces with the blobs that are here already: those are not fetched, so nothing else would notice a wrong size.
async fn check_sizes(store: &Store, name: &str, manifest: &Manifest) -> Result<(), Error> {
    let (store, name) = (store.clone(), name.to_owned());
    let announced: Vec<_> = manifest.layers.iter().chain([&manifest.config]).map(|blob| (blob.digest.clone(), blob.size)).collect();
    blocking(move || {
        for (digest, announced) in announced {
            if let Some(actual) = store.blob_size(&digest)?.filter(|actual| *actual != announced) {
                return Err(Error::Size { name, digest, announced, actual });
            }
        }
        Ok(())
    })
    .await
}

/// Makes sure that a blob is in the store.
pub async fn fetch_blob(client: &Client, store: &Store, at: &Reference, descriptor: &Descriptor) -> Result<(), Error> {
    let Some(writer) = begin(store, &descriptor.digest).await? else { return Ok(()) };
    complete(client, at, descriptor, writer, None).await
}

/// Fetches what is missing of a blob. Where what was there already turns out to be wrong, all of it is fetched again.
async fn complete(client: &Client, at: &Reference, blob: &Descriptor, writer: IngestWriter, meter: Option<&Meter>) -> Result<(), Error> {
    let mut writer = writer;
    if writer.offset() > blob.size {
        writer.restart()?;
    }
    if let Some(meter) = meter {
        meter.add(writer.offset());
    }
    let mut resumed = writer.offset() > 0;
    loop {
        let mut stream = open_stream(client, at, blob, &writer).await?;
        let failure = loop {
            match stream.next_chunk().await {
                Ok(None) => break None,
                Ok(Some(chunk)) => {
                    if let Some(meter) = meter {
                        meter.add(chunk.len() as u64);
                    }
                    writer = blocking(move || writer.append(&chunk).map(|()| writer)).await?;
                }
                Err(error) => break Some(error),
            }
        };
        match failure {
            None => {
                let (digest, size) = (blob.digest.clone(), blob.size);
                return Ok(blocking(move || writer.commit(&digest, size)).await?);
            }
            Some(error) if is_damage(&error) && resumed => {
                writer.restart()?;
                resumed = false;
            }
            Some(error) => {
                if is_damage(&error) {
                    writer.abort();
                }
                return Err(error.into());
            }
        }
    }
}

/// Whether a layer failed for what is in it.
fn blames_content(error: &Error) -> bool {
    use super::layer::Error as E;
    let content =
        |kind| matches!(kind, std::io::ErrorKind::InvalidData | std::io::ErrorKind::InvalidInput | std::io::ErrorKind::UnexpectedEof);
    match error {
        Error::Layer { source: E::Read { source }, .. } => content(source.kind()),
        Error::Layer { source, .. } => {
            matches!(source, E::Malformed { .. } | E::Truncated { .. } | E::BadName { .. } | E::HeaderTooLarge { .. })
        }
        _ => false,
    }
}

/// Whether what has arrived is wrong, so that going on after it would never come to a good end.
fn is_damage(error: &crate::registry::Error) -> bool {
    use crate::registry::Error as E;
    matches!(error, E::DigestMismatch { .. } | E::SizeMismatch { .. })
}

/// Begins to write a blob; `None` where it is in the store already (perhaps because somebody else has just written it).
async fn begin(store: &Store, digest: &Digest) -> Result<Option<IngestWriter>, Error> {
    let (store, digest) = (store.clone(), digest.clone());
    blocking(move || {
        let mut ingest = store.ingest(Some(&digest))?;
        loop {
            match ingest {
                Ingest::Ready(writer) => return Ok(Some(writer)),
                Ingest::Present(_) => return Ok(None),
                Ingest::Busy(busy) => ingest = busy.wait()?,
            }
        }
    })
    .await
}

async fn open_stream(
    client: &Client,
    at: &Reference,
    blob: &Descriptor,
    writer: &IngestWriter,
) -> Result<crate::registry::BlobStream, Error> {
    match writer.offset() {
        0 => Ok(client.fetch_blob(at, blob).await?),
        offset => Ok(client.resume_blob(at, blob, offset, writer.hasher()).await?),
    }
}

/// Makes the layers of an image available as snapshots, bottom first: those that are missing are fetched and unpacked, all at once.
pub async fn unpack(
    client: &Client,
    store: &Store,
    reference: &Reference,
    image: &Resolved,
    progress: &StepProgress,
) -> Result<Vec<SnapshotId>, Error> {
    let diff_ids = image.config.rootfs.diff_ids.clone();
    let chain = ChainId::chain(&diff_ids);
    let Some(top) = chain.last().cloned() else { return Ok(Vec::new()) };
    // One process at a time unpacks a chain; who waited finds it done.
    let lock_key = *blake3::hash(format!("unpack {top}").as_bytes()).as_bytes();
    let lock_store = store.clone();
    let _lock = blocking(move || lock_store.lock_key(&lock_key)).await?;
    let (looker, names) = (store.clone(), chain.clone());
    let mut snapshots = blocking(move || known_prefix(&looker, &names)).await?;
    let missing = image.manifest.layers.iter().zip(&diff_ids).skip(snapshots.len());
    let mut tasks = JoinSet::new();
    for (position, (layer, diff_id)) in missing.enumerate() {
        let work = LayerWork {
            client: client.clone(),
            store: store.clone(),
            reference: reference.clone(),
            layer: layer.clone(),
            diff_id: diff_id.clone(),
            meter: progress.meter(format!("layer {}", layer.digest.short()), layer.size),
        };
        tasks.spawn(async move { (position, work.run().await) });
    }
    let mut ready: Vec<Option<(ActiveSnapshot, Applied)>> = (snapshots.len()..diff_ids.len()).map(|_| None).collect();
    while let Some(joined) = tasks.join_next().await {
        match joined {
            // An error drops the other tasks' downloads with the set; what has arrived stays for the next try.
            Ok((position, result)) => ready[position] = Some(result?),
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }
    for (active, applied) in ready.into_iter().flatten() {
        let (store, below, chain) = (store.clone(), snapshots.clone(), chain[snapshots.len()].clone());
        snapshots = blocking(move || commit_layer(&store, below, active, applied, Some(&chain))).await?;
    }
    Ok(snapshots)
}

/// The snapshots of the longest part of a chain, from the bottom, that is in the store.
pub(super) fn known_prefix(store: &Store, chain: &[ChainId]) -> Result<Vec<SnapshotId>, Error> {
    for id in chain.iter().rev() {
        if let Some(snapshots) = store.chain(id)? {
            return Ok(snapshots);
        }
    }
    Ok(Vec::new())
}

/// Commits the snapshot of a layer above `below`; `chain` names all of them together, where that is known.
pub(super) fn commit_layer(
    store: &Store,
    mut below: Vec<SnapshotId>,
    active: ActiveSnapshot,
    applied: Applied,
    chain: Option<&ChainId>,
) -> Result<Vec<SnapshotId>, Error> {
    // An image that shares these layers may have come in meanwhile.
    if let Some(known) = chain.map(|chain| store.chain(chain)).transpose()?.flatten() {
        return Ok(known);
    }
    let lower: Vec<_> = below.iter().rev().map(|id| store.snapshot_path(*id)).collect();
    inherit_directories(&active.fs_path(), &applied.implied_directories, &lower, store.marks())
        .map_err(|source| Error::Layer { layer: applied.diff_id.to_string(), source })?;
    let meta = SnapshotMeta {
        diff_id: Some(applied.diff_id.clone()),
        size: applied.unpacked_size,
        description: format!("layer {}", applied.diff_id),
    };
    fault_point("layer:inherited");
    let committed = active.commit(meta)?;
    store.set_diff_id(committed.id, &applied.diff_id, applied.tar_size)?;
    fault_point("layer:committed");
    below.push(committed.id);
    if let Some(chain) = chain {
        store.record_chain(chain, &below)?;
    }
    Ok(below)
}

/// One layer on its way.
struct LayerWork {
    client: Client,
    store: Store,
    reference: Reference,
    layer: Descriptor,
    diff_id: DiffId,
    meter: Meter,
}

impl LayerWork {
    async fn run(self) -> Result<(ActiveSnapshot, Applied), Error> {
        let (active, applied) = match begin(&self.store, &self.layer.digest).await? {
            None => self.unpack_blob().await?,
            Some(writer) if writer.offset() > 0 => {
                // The rest of an earlier download: its beginning has gone by, so the blob is completed first.
                complete(&self.client, &self.reference, &self.layer, writer, Some(&self.meter)).await?;
                self.unpack_blob().await?
            }
            Some(writer) => self.unpack_stream(writer).await?,
        };
        self.meter.done();
        if applied.diff_id != self.diff_id {
            return Err(Error::DiffId { digest: self.layer.digest, expected: self.diff_id, actual: applied.diff_id });
        }
        let (store, diff_id) = (self.store, self.diff_id);
        let blob = LayerBlob { digest: self.layer.digest, size: self.layer.size, media_type: self.layer.media_type, made_as: None };
        blocking(move || store.record_layer_blob(&diff_id, &blob)).await?;
        Ok((active, applied))
    }

    async fn unpack_blob(&self) -> Result<(ActiveSnapshot, Applied), Error> {
        let (store, layer, algorithm) = (self.store.clone(), self.layer.clone(), self.diff_id.algorithm());
        blocking(move || {
            let blob = store.open_blob(&layer.digest)?;
            unpack_reader(&store, &layer.digest, algorithm, blob)
        })
        .await
    }

    /// Unpacks while the blob is arriving, and keeps the blob.
    async fn unpack_stream(&self, writer: IngestWriter) -> Result<(ActiveSnapshot, Applied), Error> {
        let mut stream = open_stream(&self.client, &self.reference, &self.layer, &writer).await?;
        let (sender, receiver) = mpsc::channel::<Bytes>(16);
        let writer = Arc::new(Mutex::new(Some(writer)));
        let tee = Tee { receiver, chunk: Bytes::new(), writer: writer.clone() };
        let (store, layer, algorithm) = (self.store.clone(), self.layer.clone(), self.diff_id.algorithm());
        let unpacking = crate::task::spawn_blocking(move || unpack_reader(&store, &layer.digest, algorithm, tee));
        let mut failed = None;
        loop {
            match stream.next_chunk().await {
                Ok(Some(chunk)) => {
                    self.meter.add(chunk.len() as u64);
                    if sender.send(chunk).await.is_err() {
                        break;
                    }
                }
                Ok(None) => break,
                Err(error) => {
                    failed = Some(error);
                    break;
                }
            }
        }
        drop(sender);
        let unpacked = match unpacking.await {
            Ok(result) => result,
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        };
        // A damaged blob looks like a bad archive, and the difference matters to whoever has to act. The digest tells, at the end of the stream.
        if failed.is_none() && unpacked.as_ref().is_err_and(blames_content) {
            failed = loop {
                match stream.next_chunk().await {
                    Ok(Some(_)) => {}
                    Ok(None) => break None,
                    Err(error) => break Some(error).filter(is_damage),
                }
            };
        }
        // What the network says comes first: a cut stream also looks like a damaged archive.
        let taken = writer.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
        if let Some(error) = failed {
            if let Some(writer) = taken.filter(|_| is_damage(&error)) {
                writer.abort();
            }
            return Err(error.into());
        }
        let unpacked = unpacked?;
        let (digest, size) = (self.layer.digest.clone(), self.layer.size);
        if let Some(writer) = taken {
            blocking(move || writer.commit(&digest, size)).await?;
        }
        Ok(unpacked)
    }
}

/// Unpacks a layer's blob, whose diff ID is by `algorithm`, into a snapshot that is yet to be committed.
pub(super) fn unpack_reader(
    store: &Store,
    digest: &Digest,
    algorithm: Algorithm,
    reader: impl Read + Send + 'static,
) -> Result<(ActiveSnapshot, Applied), Error> {
    let failed = |source| Error::Layer { layer: digest.to_string(), source };
    let active = store.prepare()?;
    // As for Docker and containerd: what the media type says of the compression is wrong at times, and the bytes tell it.
    let tar = decompressor(reader, None).map_err(|source| failed(super::layer::Error::Read { source }))?;
    let applied = apply(tar, &active.fs_path(), &ApplyOptions { algorithm, ..apply_options(store) }).map_err(failed)?;
    fault_point("layer:applied");
    Ok((active, applied))
}

/// How layers are unpacked in a store.
pub(super) fn apply_options(store: &Store) -> ApplyOptions {
    let usual = ApplyOptions::default();
    // Only root of the machine makes devices; the others get images without them rather than none.
    let devices = if store.userxattr() { Devices::Skip } else { Devices::Create };
    let max_unpacked_size = store.layer_limit().unwrap_or(usual.max_unpacked_size);
    ApplyOptions { marks: store.marks(), devices, max_unpacked_size, ..usual }
}

/// Reads what arrives, and writes it to the blob on the way.
struct Tee {
    receiver: mpsc::Receiver<Bytes>,
    chunk: Bytes,
    writer: Arc<Mutex<Option<IngestWriter>>>,
}

impl Read for Tee {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if self.chunk.is_empty() {
            match self.receiver.blocking_recv() {
                None => return Ok(0),
                Some(chunk) => {
                    let mut writer = self.writer.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                    if let Some(writer) = writer.as_mut() {
                        writer.append(&chunk).map_err(std::io::Error::other)?;
                    }
                    self.chunk = chunk;
                }
            }
        }
        let count = buffer.len().min(self.chunk.len());
        buffer[..count].copy_from_slice(&self.chunk.split_to(count));
        Ok(count)
    }
}

/// Records a pulled image and names it as it was asked for.
pub fn record(store: &Store, reference: &Reference, image: &Resolved, snapshots: &[SnapshotId]) -> Result<ImageRecord, Error> {
    record_as(store, reference, Some(&image.top), image, snapshots)
}

/// Records a pulled image and gives it the name `name`, which stands for `manifest` at its registry, if it does for anything.
pub fn record_as(
    store: &Store,
    name: &Reference,
    manifest: Option<&Digest>,
    image: &Resolved,
    snapshots: &[SnapshotId],
) -> Result<ImageRecord, Error> {
    let mut size = 0;
    for id in snapshots {
        size += store.snapshot(*id)?.and_then(|snapshot| snapshot.tar_size).unwrap_or(0);
    }
    let record = ImageRecord {
        id: image.id.clone(),
        manifest: Some(image.manifest_digest.clone()),
        platform: image.config.platform(),
        created_at: std::time::SystemTime::now(),
        size,
        diff_ids: image.config.rootfs.diff_ids.clone(),
        snapshots: snapshots.to_vec(),
    };
    fault_point("pull:unpacked");
    store.put_image(&record)?;
    fault_point("pull:recorded");
    store.tag(name, &image.id, manifest)?;
    fault_point("pull:named");
    Ok(record)
}
