//! One more layer, from a tar archive.
//!
//! What registries know (gzip, zstd) stays as it is; a plain tar, and one that is packed otherwise, is compressed when somebody wants it as a blob. The archive is
//! read through once before it is believed.

use std::io::{self, Read, Seek};

use crate::image::Error;
use crate::image::import::peek;
use crate::image::layer::{Compression, TarReader, decompressor};
use crate::oci::{Algorithm, DiffId, HistoryEntry, MediaType};
use crate::store::{LayerBlob, Store};

use super::draft::{Draft, DraftLayer};

/// How long an extended header of a layer may be.
const MAX_HEADER: u64 = 1 << 20;

/// Puts the archive that `open` opens on top of the layers. `created_by` is what the history says of it.
///
/// # Errors
/// It is no tar archive, or cannot be read; the store.
pub fn append(store: &Store, draft: &mut Draft, archive: impl Read + Send + 'static, name: &str, created_by: &str) -> Result<(), Error> {
    let (diff_id, blob) = store_layer(store, archive, name)?;
    store.record_layer_blob(&diff_id, &blob)?;
    draft.layers.push(DraftLayer::alone(diff_id, draft.config.platform(), Vec::new()));
    draft.add_history(HistoryEntry { created_by: Some(created_by.to_owned()), ..HistoryEntry::default() });
    Ok(())
}

fn store_layer(store: &Store, archive: impl Read + Send + 'static, name: &str) -> Result<(DiffId, LayerBlob), Error> {
    let read = |source| Error::Io { action: "read", path: name.into(), source };
    let (kind, archive) = peek(archive).map_err(read)?;
    let (media_type, mut bytes): (_, Box<dyn Read>) = match kind {
        Compression::Gzip => (MediaType::OciLayerGzip, Box::new(archive)),
        Compression::Zstd => (MediaType::OciLayerZstd, Box::new(archive)),
        Compression::Uncompressed => (MediaType::OciLayer, Box::new(archive)),
        Compression::Bzip2 | Compression::Xz => (MediaType::OciLayer, decompressor(archive, Some(kind)).map_err(read)?),
    };
    let mut writer = store.ingest_new()?;
    io::copy(&mut bytes, &mut writer).map_err(read)?;
    let size = writer.offset();
    let digest = writer.commit_as_is()?;
    let mut blob = store.open_blob(&digest)?;
    blob.rewind().map_err(read)?;
    let bad = |source| Error::Layer { layer: format!("`{name}`"), source };
    let mut tar = TarReader::new(decompressor(blob, None).map_err(read)?, MAX_HEADER, Algorithm::default());
    while tar.next().map_err(bad)?.is_some() {}
    let diff_id = DiffId::new(tar.finish().map_err(bad)?.0);
    Ok((diff_id, LayerBlob { digest, size, media_type, made_as: None }))
}
