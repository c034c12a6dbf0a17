//! From the store to a registry: layers first, each as soon as it is compressed, then the config, then the manifest under its name.
//!
//! ```text
//! layer 1: [compress][ upload ......... ]
//! layer 2:           [compress][ upload ......]
//! config, manifest:                            [put]
//! ```
//!
//! An image that was pulled goes out with the bytes of its manifest as they came in, so that it keeps its digest. Nothing is visible in the registry under the
//! name before all that it needs is there.

use std::io::{Seek, SeekFrom};
use std::sync::Arc;

use tokio::task::JoinSet;

use crate::oci::{Descriptor, DiffId, Digest, Manifest, MediaType, Reference};
use crate::progress::StepProgress;
use crate::registry::{BlobSource, BlobUpload, ByteStream, Client, Uploaded, read_stream};
use crate::store::{ImageRecord, Store};
use crate::task::{blocking, fault_point};

use super::Error;
use super::blobs::{ImageManifest, complete_manifest, ensure_layer, stored_manifest};
use super::copy::tagged_as;

/// What a push did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pushed {
    /// What the name means in the registry now.
    pub manifest: Descriptor,
    /// Blobs that were sent.
    pub sent: usize,
    /// Blobs that were there already, or in another repository of the registry.
    pub present: usize,
}

/// Sends `image` to the registry of `reference`, under that name.
pub async fn push(
    client: &Client,
    store: &Store,
    reference: &Reference,
    image: &ImageRecord,
    progress: &StepProgress,
) -> Result<Pushed, Error> {
    let push = Push { client, store, reference, progress };
    let (known, looker) = (image.manifest.clone(), store.clone());
    let stored = blocking(move || known.map_or(Ok(None), |digest| stored_manifest(&looker, &digest))).await?;
    let mut uploads = JoinSet::new();
    let manifest = match stored {
        Some(manifest) => {
            for (layer, diff_id) in manifest.manifest.layers.iter().zip(&image.diff_ids) {
                push.upload(&mut uploads, layer.clone(), Some(diff_id)).await?;
            }
            manifest
        }
        None => push.compress_and_upload(&mut uploads, image).await?,
    };
    push.upload(&mut uploads, manifest.manifest.config.clone(), None).await?;
    let (sent, present) = finish(uploads).await?;
    fault_point("push:uploaded");
    let name = tagged_as(reference, &manifest.descriptor.digest);
    put(client, &name, &manifest.manifest, manifest.bytes, &manifest.descriptor.media_type).await?;
    fault_point("push:named");
    Ok(Pushed { manifest: manifest.descriptor, sent, present })
}

/// Sends the manifest `bytes` under the name `reference`, after its config and those of its layers that are in the store; the others must be there already.
pub async fn push_artifact(
    client: &Client,
    store: &Store,
    reference: &Reference,
    manifest: &Manifest,
    bytes: Vec<u8>,
    progress: &StepProgress,
) -> Result<(), Error> {
    let push = Push { client, store, reference, progress };
    let mut uploads = JoinSet::new();
    for layer in &manifest.layers {
        let (looker, digest) = (store.clone(), layer.digest.clone());
        let (here, diff_id) =
            blocking(move || Ok::<_, Error>((looker.blob_size(&digest)?.is_some(), looker.layer_of_blob(&digest)?))).await?;
        if here {
            push.upload(&mut uploads, layer.clone(), diff_id.as_ref()).await?;
        } else if !client.blob_exists(reference, &layer.digest).await? {
            return Err(crate::store::Error::NoBlob { digest: layer.digest.clone(), root: store.root().to_owned() }.into());
        }
    }
    push.upload(&mut uploads, manifest.config.clone(), None).await?;
    finish(uploads).await?;
    let media_type = manifest.media_type.clone().unwrap_or(MediaType::OciManifest);
    put(client, reference, manifest, bytes, &media_type).await
}

/// Stores a manifest; one that is about another is listed as that.
async fn put(client: &Client, reference: &Reference, manifest: &Manifest, bytes: Vec<u8>, media_type: &MediaType) -> Result<(), Error> {
    match &manifest.subject {
        Some(subject) => client.put_referrer(reference, bytes.into(), media_type, &subject.digest).await.map(drop)?,
        None => client.put_manifest(reference, bytes, media_type).await.map(drop)?,
    }
    Ok(())
}

/// Waits for the uploads; how many blobs were sent, and how many were there already.
async fn finish(mut uploads: Uploads) -> Result<(usize, usize), Error> {
    let (mut sent, mut present) = (0, 0);
    while let Some(joined) = uploads.join_next().await {
        match joined {
            // An error drops the other uploads with the set.
            Ok(Ok(Uploaded::Sent)) => sent += 1,
            Ok(Ok(Uploaded::Existed | Uploaded::Mounted)) => present += 1,
            Ok(Err(error)) => return Err(error.into()),
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }
    Ok((sent, present))
}

/// Uploads under way: several blobs at once, as many as the client lets through.
type Uploads = JoinSet<Result<Uploaded, crate::registry::Error>>;

struct Push<'a> {
    client: &'a Client,
    store: &'a Store,
    reference: &'a Reference,
    progress: &'a StepProgress,
}

impl Push<'_> {
    /// One layer after the other is compressed on all cores, while those before it are on their way.
    async fn compress_and_upload(&self, uploads: &mut Uploads, image: &ImageRecord) -> Result<ImageManifest, Error> {
        let mut layers = Vec::with_capacity(image.diff_ids.len());
        for (position, diff_id) in image.diff_ids.iter().enumerate() {
            let (store, image) = (self.store.clone(), image.clone());
            let layer = blocking(move || ensure_layer(&store, &image, position)).await?;
            fault_point("push:compressed");
            self.upload(uploads, layer.clone(), Some(diff_id)).await?;
            layers.push(layer);
        }
        let (store, image) = (self.store.clone(), image.clone());
        blocking(move || complete_manifest(&store, &image, layers)).await
    }

    /// Begins to send a blob. Two layers that are the same blob go once.
    async fn upload(&self, uploads: &mut Uploads, blob: Descriptor, diff_id: Option<&DiffId>) -> Result<(), Error> {
        // Layers that may not be given away are where their manifest says.
        if blob.is_elsewhere() {
            return Ok(());
        }
        let mount_from = match diff_id {
            None => None,
            Some(diff_id) => {
                let (store, reference, diff_id) = (self.store.clone(), self.reference.clone(), diff_id.clone());
                blocking(move || mount_source(&store, &reference, &diff_id)).await?
            }
        };
        let what = if diff_id.is_some() { "layer" } else { "config" };
        let meter = self.progress.upload_meter(format!("{what} {}", blob.digest.short()), blob.size);
        let counter = meter.clone();
        let upload = BlobUpload {
            source: Arc::new(StoredBlob { store: self.store.clone(), digest: blob.digest.clone() }),
            digest: blob.digest,
            size: blob.size,
            mount_from,
            progress: Some(Arc::new(move |count| counter.add(count))),
        };
        let (client, reference) = (self.client.clone(), self.reference.clone());
        uploads.spawn(async move {
            let outcome = client.ensure_blob(&reference, &upload).await?;
            fault_point("push:uploaded-one");
            meter.done();
            Ok(outcome)
        });
        Ok(())
    }
}

/// Another repository of the same registry that has the layer, by what was pulled from and pushed to there.
fn mount_source(store: &Store, reference: &Reference, diff_id: &DiffId) -> Result<Option<Reference>, Error> {
    for (names, image) in store.images()? {
        if !image.diff_ids.contains(diff_id) {
            continue;
        }
        for name in names {
            let elsewhere = name.registry() == reference.registry() && name.repository() != reference.repository();
            if elsewhere && store.tagged_manifest(&name)?.is_some() {
                return Ok(Some(name));
            }
        }
    }
    Ok(None)
}

/// A blob of the store as the source of an upload. It is looked up each time, as settling it moves it.
struct StoredBlob {
    store: Store,
    digest: Digest,
}

impl BlobSource for StoredBlob {
    fn open_at(&self, offset: u64) -> std::io::Result<ByteStream> {
        let mut file = self.store.open_blob(&self.digest).map_err(std::io::Error::other)?;
        file.seek(SeekFrom::Start(offset))?;
        Ok(read_stream(file))
    }
}
