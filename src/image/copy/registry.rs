//! A copy into a registry: blobs at the same time, then the manifests in order, the name last.

use std::sync::Arc;

use tokio::task::JoinSet;

use crate::image::Error;
use crate::oci::{Algorithm, Descriptor, Digest, Reference};
use crate::progress::StepProgress;
use crate::registry::{BlobUpload, Client, Uploaded};

use super::{Collection, Source};

/// Where a copy goes.
#[derive(Clone, Debug)]
pub struct Target {
    /// Who sends it. It is another client than the one of a source that is a registry: each holds connections while it waits for the other, and the
    /// limit of connections to one host would let them wait for ever.
    pub client: Client,
    /// The name.
    pub reference: Reference,
}

/// Sends a collection to a registry. What is there already, or in the source's repository of the same registry, is not sent.
///
/// # Errors
/// The source, the registry.
pub async fn to_registry(source: &Source, what: &Collection, target: &Target, progress: &StepProgress) -> Result<(), Error> {
    let mut uploads = JoinSet::new();
    for blob in &what.blobs {
        let meter = progress.meter(format!("blob {}", blob.digest.short()), blob.size);
        let counter = meter.clone();
        let upload = BlobUpload {
            digest: blob.digest.clone(),
            size: blob.size,
            source: source.blob(blob),
            mount_from: source.mount_source(blob),
            progress: Some(Arc::new(move |count| counter.add(count))),
        };
        let Target { client, reference } = target.clone();
        uploads.spawn(async move {
            let outcome = client.ensure_blob(&reference, &upload).await?;
            meter.done();
            Ok::<Uploaded, crate::registry::Error>(outcome)
        });
    }
    while let Some(joined) = uploads.join_next().await {
        match joined {
            // An error drops the other uploads with the set.
            Ok(result) => drop(result?),
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }
    put_documents(what, target).await
}

async fn put_documents(what: &Collection, target: &Target) -> Result<(), Error> {
    let is_root = |descriptor: &Descriptor| descriptor.digest == what.root.digest;
    let (root, others): (Vec<_>, Vec<_>) = what.documents.iter().partition(|document| is_root(&document.descriptor));
    // What is about the root may come before it: registries take a subject that is not there yet.
    for document in others.into_iter().chain(root) {
        let by_digest = target.reference.only_digest(document.descriptor.digest.clone());
        let name = if is_root(&document.descriptor) { named(&target.reference, by_digest) } else { by_digest };
        let media_type = &document.descriptor.media_type;
        match &document.subject {
            None => target.client.put_manifest(&name, document.bytes.clone(), media_type).await.map(drop)?,
            Some(subject) => target.client.put_referrer(&name, document.bytes.clone(), media_type, &subject.digest).await.map(drop)?,
        }
    }
    Ok(())
}

/// The tag where there is one, else the digest; both where a tag alone would have the registry call it by another digest.
fn named(reference: &Reference, by_digest: Reference) -> Reference {
    match by_digest.digest() {
        Some(digest) if reference.digest().is_none() => tagged_as(reference, digest),
        _ => by_digest,
    }
}

/// The name under which a manifest is sent so that it keeps its digest.
pub(in crate::image) fn tagged_as(reference: &Reference, digest: &Digest) -> Reference {
    if digest.algorithm() == Algorithm::Sha256 { reference.clone() } else { reference.with_digest(digest.clone()) }
}
