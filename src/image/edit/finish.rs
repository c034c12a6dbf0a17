//! From a draft to an image: in the store, or as a collection that is copied elsewhere.

use std::collections::{HashMap, HashSet};
use std::time::SystemTime;

use tokio::task::JoinSet;

use crate::image::Error;
use crate::image::blobs::ensure_layer_as;
use crate::image::copy::{Collection, Document, Source, to_store};
use crate::image::layer::CompressionSpec;
use crate::image::load::unpack_layers;
use crate::image::pull::known_prefix;
use crate::oci::{ChainId, Descriptor, ImageConfig, ImageId, MediaType, Reference};
use crate::progress::StepProgress;
use crate::store::{ImageRecord, SnapshotId, Store};
use crate::task::blocking;

use super::draft::{Draft, LayerFrom};

impl Draft {
    /// The snapshots of the layers, bottom first: those that are not there are fetched and unpacked.
    ///
    /// # Errors
    /// Where the layers are, what is in them, the store.
    pub async fn unpack(&self, store: &Store, progress: &StepProgress) -> Result<Vec<SnapshotId>, Error> {
        let diff_ids = self.diff_ids();
        let (looker, chain) = (store.clone(), ChainId::chain(&diff_ids));
        let known = blocking(move || known_prefix(&looker, &chain)).await?.len();
        let mut fetches = JoinSet::new();
        for layer in &self.layers[known..] {
            if let LayerFrom::Blob(blob, source) = &layer.from {
                let meter = progress.meter(format!("layer {}", blob.digest.short()), blob.size);
                fetches.spawn(to_store(store.clone(), (**source).clone(), (**blob).clone(), meter));
            }
        }
        while let Some(joined) = fetches.join_next().await {
            match joined {
                Ok(result) => result?,
                Err(error) => std::panic::resume_unwind(error.into_panic()),
            }
        }
        let (store, layers) = (store.clone(), self.layers.clone());
        blocking(move || unpack_layers(&store, &|position| layers[position].stored_blob(&store), &diff_ids)).await
    }

    /// Makes it an image of the store, and gives it a name if there is one.
    ///
    /// # Errors
    /// As [`Draft::unpack`].
    pub async fn into_store(self, store: &Store, name: Option<Reference>, progress: &StepProgress) -> Result<ImageRecord, Error> {
        let mut image = self.clone().into_record(store, progress).await?;
        let store = store.clone();
        blocking(move || {
            if self.wants_manifest() {
                let (layers, size) = (self.descriptors(&store)?, self.config_bytes().1.len());
                let (_, bytes) = self.manifest_bytes(self.config_descriptor(&image.id, size), layers);
                image.manifest = Some(store.put_blob(&bytes)?);
            }
            store.put_image(&image)?;
            if let Some(name) = name {
                store.tag(&name, &image.id, None)?;
            }
            Ok(image)
        })
        .await
    }

    /// The same image with all layers compressed by `spec`, as blobs of the store.
    ///
    /// # Errors
    /// As [`Draft::unpack`].
    pub async fn recompressed(mut self, store: &Store, spec: CompressionSpec, progress: &StepProgress) -> Result<Draft, Error> {
        let image = self.clone().into_record(store, progress).await?;
        let store = store.clone();
        blocking(move || {
            for (position, layer) in self.layers.iter_mut().enumerate() {
                let blob = ensure_layer_as(&store, &image, position, spec)?;
                // Of a source in the store only what messages call it counts here: each blob is read by its own digest.
                let source = Source::Store { store: store.clone(), root: blob.clone(), name: self.name.clone() };
                layer.from = LayerFrom::Blob(Box::new(blob), Box::new(source));
            }
            Ok(self)
        })
        .await
    }

    /// What the store would say of it: it has the config and the layers, but does not list the image.
    ///
    /// # Errors
    /// As [`Draft::unpack`].
    pub async fn into_record(self, store: &Store, progress: &StepProgress) -> Result<ImageRecord, Error> {
        let snapshots = self.unpack(store, progress).await?;
        let store = store.clone();
        blocking(move || {
            let (config, bytes) = self.config_bytes();
            let id = ImageId::new(store.put_blob(&bytes)?);
            let mut size = 0;
            for id in &snapshots {
                size += store.snapshot(*id)?.and_then(|snapshot| snapshot.tar_size).unwrap_or(0);
            }
            let (platform, diff_ids) = (config.platform(), config.rootfs.diff_ids.clone());
            Ok(ImageRecord { id, manifest: None, platform, created_at: SystemTime::now(), size, diff_ids, snapshots })
        })
        .await
    }

    /// What a copy of it consists of, and where that is read. Config and manifest go into the store.
    ///
    /// # Errors
    /// The store; layers that cannot be compressed.
    pub async fn into_collection(self, store: &Store) -> Result<(Source, Collection, ImageConfig), Error> {
        let store = store.clone();
        blocking(move || {
            let (config, config_bytes) = self.config_bytes();
            let id = ImageId::new(store.put_blob(&config_bytes)?);
            let layers = self.descriptors(&store)?;
            let config_at = self.config_descriptor(&id, config_bytes.len());
            let (manifest, bytes) = self.manifest_bytes(config_at.clone(), layers.clone());
            let kind = manifest.media_type.clone().unwrap_or(MediaType::OciManifest);
            let root = Descriptor::new(kind, store.put_blob(&bytes)?, bytes.len() as u64);
            let (mut elsewhere, mut seen) = (HashMap::new(), HashSet::new());
            for (layer, blob) in self.layers.iter().zip(&layers) {
                if let LayerFrom::Blob(_, source) = &layer.from {
                    elsewhere.insert(blob.digest.clone(), (**source).clone());
                }
            }
            // Layers that may not be given away are where their manifest says.
            let sent = |blob: &&Descriptor| !blob.is_elsewhere();
            let blobs = layers.iter().filter(sent).chain([&config_at]).filter(|blob| seen.insert(blob.digest.clone())).cloned().collect();
            let documents = vec![Document { descriptor: root.clone(), bytes, subject: manifest.subject }];
            let source = Source::parts(&store, root.clone(), &self.name, elsewhere);
            Ok((source, Collection { root, documents, blobs, referrers: Vec::new() }, config))
        })
        .await
    }

    fn descriptors(&self, store: &Store) -> Result<Vec<Descriptor>, Error> {
        self.layers.iter().map(|layer| layer.descriptor(store, self.docker_types)).collect()
    }

    fn config_descriptor(&self, id: &ImageId, size: usize) -> Descriptor {
        let kind = if self.docker_types { MediaType::DockerConfig } else { MediaType::OciConfig };
        Descriptor::new(kind, id.digest().clone(), size as u64)
    }
}
