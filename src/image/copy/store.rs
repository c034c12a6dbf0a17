//! A copy into the store: blobs as they are. What an image of the store is besides (snapshots, a row), others make of them.

use futures_util::StreamExt as _;
use tokio::task::JoinSet;

use crate::image::Error;
use crate::image::archive::begin;
use crate::oci::Descriptor;
use crate::progress::{Meter, StepProgress};
use crate::store::Store;
use crate::task::blocking;

use super::{Collection, Source};

/// Keeps all documents and blobs of a collection in the store.
///
/// # Errors
/// The source, the store; bytes that are not what they should be.
pub async fn all_to_store(source: &Source, what: &Collection, store: &Store, progress: &StepProgress) -> Result<(), Error> {
    let mut fetches = JoinSet::new();
    for blob in &what.blobs {
        let meter = progress.meter(format!("blob {}", blob.digest.short()), blob.size);
        fetches.spawn(to_store(store.clone(), source.clone(), blob.clone(), meter));
    }
    while let Some(joined) = fetches.join_next().await {
        match joined {
            // An error drops the other downloads with the set.
            Ok(result) => result?,
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }
    for document in &what.documents {
        let (store, bytes, digest) = (store.clone(), document.bytes.clone(), document.descriptor.digest.clone());
        blocking(move || store.put_blob_as(&bytes, &digest)).await?;
    }
    Ok(())
}

/// Sees to it that a blob is in the store.
///
/// # Errors
/// The source, the store; bytes that are not what they should be.
pub async fn to_store(store: Store, source: Source, blob: Descriptor, meter: Meter) -> Result<(), Error> {
    let digest = blob.digest.clone();
    let Some(mut writer) = blocking(move || begin(&store, Some(&digest))).await? else { return Ok(()) };
    writer.restart()?;
    let failed = |source| Error::Io { action: "read", path: blob.digest.to_string().into(), source };
    let opener = source.blob(&blob);
    let mut stream = blocking(move || opener.open_at(0)).await.map_err(failed)?;
    while let Some(chunk) = stream.next().await {
        let chunk = chunk.map_err(failed)?;
        meter.add(chunk.len() as u64);
        if writer.offset() + chunk.len() as u64 > blob.size {
            writer.abort();
            let (name, digest, announced) = (source.name(), blob.digest.clone(), blob.size);
            return Err(Error::Size { name, digest, announced, actual: announced + 1 });
        }
        writer = blocking(move || writer.append(&chunk).map(|()| writer)).await?;
    }
    meter.done();
    let (digest, size) = (blob.digest.clone(), blob.size);
    Ok(blocking(move || writer.commit(&digest, size)).await?)
}
