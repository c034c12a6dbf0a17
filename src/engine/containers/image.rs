//! The image that a container is made of: found in the store, or fetched.

use crate::image::pull;
use crate::oci::{ImageConfig, Platform, Reference};
use crate::progress::{Progress, StepOutcome};
use crate::store::{ImageRecord, SnapshotId};

use super::super::sources::snapshots_of;
use super::super::stored_index::image_in_index;
use super::super::{Engine, Error};

/// How large a config may be: it is read into memory.
const MAX_CONFIG: u64 = 8 << 20;

/// An image that can be run: its layers are unpacked.
#[derive(Clone, Debug)]
pub struct RunImage {
    /// The image.
    pub record: ImageRecord,
    /// Its config.
    pub config: ImageConfig,
    /// Its layers, bottom first.
    pub snapshots: Vec<SnapshotId>,
}

impl Engine {
    /// The image that `text` means, if it is here, unpacked and of that platform.
    pub fn local_image(&self, text: &str, platform: Option<&Platform>) -> Result<Option<RunImage>, Error> {
        let Some(mut record) = self.find_image(text)? else { return Ok(None) };
        if let Some(platform) = platform.filter(|platform| !record.platform.matches(platform)) {
            let failed = |source| Error::Image { action: "read", name: text.to_owned(), source };
            match image_in_index(self.store(), text, platform).map_err(failed)? {
                Some(other) => record = other,
                None => return Ok(None),
            }
        }
        self.run_image(record, text)
    }

    /// An image that is here, as messages call it `name`; `None` where it is not unpacked.
    pub(super) fn run_image(&self, record: ImageRecord, name: &str) -> Result<Option<RunImage>, Error> {
        let Some(snapshots) = snapshots_of(self.store(), &record)? else { return Ok(None) };
        let bytes = self.store().read_blob(record.id.digest(), MAX_CONFIG)?;
        let digest = record.id.digest().clone();
        let name = name.to_owned();
        let config = serde_json::from_slice(&bytes).map_err(|source| Error::Image {
            action: "run",
            name: name.clone(),
            source: crate::image::Error::Config { name, digest, source },
        })?;
        Ok(Some(RunImage { record, config, snapshots }))
    }

    /// Fetches and unpacks an image. One that is here but not unpacked is asked of no registry, unless `always`.
    pub async fn fetch_image(&self, text: &str, platform: Option<&Platform>, always: bool, progress: &Progress) -> Result<RunImage, Error> {
        let host = Platform::host();
        let wanted = platform.unwrap_or(&host);
        let local = if always { None } else { self.find_image(text)?.filter(|image| image.platform.matches(wanted)) };
        let reference: Reference =
            match local.as_ref().map(|image| self.store().names_of(&image.id)).transpose()?.and_then(|names| names.into_iter().next()) {
                Some(name) => name,
                None => text.parse().map_err(|error: crate::oci::ReferenceError| Error::Usage {
                    message: format!("`{text}` is not the name of an image: {}", error.reason),
                    hint: None,
                })?,
            };
        let client = self.client()?;
        let reference = match local {
            Some(_) => reference,
            None => {
                client.long_name(&reference).await.map_err(|source| Error::Registry { action: "look up", name: text.to_owned(), source })?
            }
        };
        let manifest = local.as_ref().and_then(|image| image.manifest.clone());
        let failed = |source| Error::Image { action: "pull", name: reference.written().to_owned(), source };
        let step = progress.start(format!("pull {}", reference.written()), None);
        let pulled = async {
            let resolved = match manifest {
                Some(digest) => pull::resolve_stored(&client, self.store(), &reference.with_digest(digest), wanted).await?,
                None => pull::resolve(&client, self.store(), &reference, wanted).await?,
            };
            let snapshots = pull::unpack(&client, self.store(), &reference, &resolved, &step).await?;
            let record = pull::record(self.store(), &reference, &resolved, &snapshots)?;
            Ok(RunImage { record, config: resolved.config, snapshots })
        };
        let pulled = pulled.await;
        step.finish(if pulled.is_ok() { StepOutcome::Done } else { StepOutcome::Failed });
        for warning in client.take_warnings() {
            progress.warn(warning);
        }
        pulled.map_err(failed)
    }
}
