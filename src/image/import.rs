//! An image of one layer, made of a root file system in a tar.
//!
//! The archive is read once: it is unpacked while it is stored. Its bytes are kept where they can be a layer's blob, since another program's tar cannot be
//! made again from the files; what registries do not know (xz, bzip2) is kept as the plain tar.

use std::io::{self, Read, Write};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use crate::oci::{Algorithm, ChainId, DiffId, HistoryEntry, ImageConfig, ImageId, MediaType, Reference};
use crate::store::{ImageRecord, IngestWriter, LayerBlob, Store};

use super::Error;
use super::assemble::timestamp;
use super::layer::{Compression, decompressor, read_ahead, sniff};
use super::pull::{commit_layer, known_prefix, unpack_reader};

/// How many bytes tell the compression.
const START: usize = 6;

/// Makes an image of the tar `archive`, which may be compressed. `config` says all but the layer.
pub fn import(
    store: &Store,
    archive: impl Read + Send + 'static,
    mut config: ImageConfig,
    comment: &str,
    name: Option<&Reference>,
) -> Result<ImageRecord, Error> {
    let (diff_id, tar_size, snapshots) = import_layer(store, archive)?;
    let now = timestamp(SystemTime::now());
    config.created = Some(now.clone());
    config.rootfs.diff_ids = vec![diff_id];
    config.history = vec![HistoryEntry { created: Some(now), comment: Some(comment.to_owned()), ..HistoryEntry::default() }];
    let id = ImageId::new(store.put_blob(&config.to_bytes())?);
    let record = ImageRecord {
        id,
        manifest: None,
        platform: config.platform(),
        created_at: SystemTime::now(),
        size: tar_size,
        diff_ids: config.rootfs.diff_ids,
        snapshots,
    };
    store.put_image(&record)?;
    if let Some(name) = name {
        store.tag(name, &record.id, None)?;
    }
    Ok(record)
}

/// Stores and unpacks the one layer.
fn import_layer(store: &Store, archive: impl Read + Send + 'static) -> Result<(DiffId, u64, Vec<crate::store::SnapshotId>), Error> {
    let failed = |source| Error::Io { action: "read", path: "the archive".into(), source };
    let (kind, archive) = peek(archive).map_err(failed)?;
    let media_type = match kind {
        Compression::Gzip => MediaType::OciLayerGzip,
        Compression::Zstd => MediaType::OciLayerZstd,
        Compression::Uncompressed | Compression::Bzip2 | Compression::Xz => MediaType::OciLayer,
    };
    let source: Box<dyn Read + Send> = match kind {
        Compression::Bzip2 | Compression::Xz => decompressor(archive, Some(kind)).map_err(failed)?,
        _ => Box::new(archive),
    };
    let writer = Arc::new(Mutex::new(Some(store.ingest_new()?)));
    // A thread of its own hashes and writes the blob, this one the files.
    let tee = read_ahead(Tee { source, writer: writer.clone() });
    let name = crate::oci::Digest::sha256(b"");
    let (active, applied) = unpack_reader(store, &name, Algorithm::default(), tee).map_err(|error| match error {
        Error::Layer { source, .. } => Error::Layer { layer: "in the archive".into(), source },
        other => other,
    })?;
    let writer = writer.lock().unwrap_or_else(PoisonError::into_inner).take();
    let Some(writer) = writer else { return Err(failed(io::ErrorKind::BrokenPipe.into())) };
    let size = writer.offset();
    let digest = writer.commit_as_is()?;
    let (diff_id, tar_size) = (applied.diff_id.clone(), applied.tar_size);
    let chain = ChainId::chain(std::slice::from_ref(&diff_id));
    // The same archive again is the same snapshot.
    let known = known_prefix(store, &chain)?;
    let snapshots = if known.is_empty() { commit_layer(store, known, active, applied, Some(&chain[0]))? } else { known };
    store.record_layer_blob(&diff_id, &LayerBlob { digest, size, media_type, made_as: None })?;
    Ok((diff_id, tar_size, snapshots))
}

/// Tells a stream's compression without losing its first bytes.
pub(super) fn peek<R: Read>(mut reader: R) -> io::Result<(Compression, impl Read + use<R>)> {
    let mut start = Vec::with_capacity(START);
    reader.by_ref().take(START as u64).read_to_end(&mut start)?;
    Ok((sniff(&start), io::Cursor::new(start).chain(reader)))
}

/// Reads, and writes what it has read to a blob.
struct Tee {
    source: Box<dyn Read + Send>,
    writer: Arc<Mutex<Option<IngestWriter>>>,
}

impl Read for Tee {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.source.read(buffer)?;
        if let Some(writer) = self.writer.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
            writer.write_all(&buffer[..count])?;
        }
        Ok(count)
    }
}
