//! What differs between two images, wherever they are.

pub use crate::image::compare::{Change, FileDifference, Times};
use crate::image::compare::{compare_configs, compare_files};
use crate::oci::Platform;
use crate::progress::{Progress, StepOutcome, StepProgress};
use crate::task::blocking;

use super::copy::Failure;
use super::edit::view;
use super::{Engine, Error, Place};

/// Two images to compare.
#[derive(Clone, Debug)]
pub struct DiffRequest {
    /// The first.
    pub from: Place,
    /// The second.
    pub to: Place,
    /// Which image of an index.
    pub platform: Platform,
    /// Whether times count.
    pub times: Times,
}

/// What differs.
#[derive(Clone, Debug, Default)]
pub struct ImageDiff {
    /// Paths, sorted.
    pub files: Vec<FileDifference>,
    /// Fields of the config, sorted.
    pub config: Vec<Change>,
}

impl Engine {
    /// Compares two images. What is not here is fetched, and gets no name.
    ///
    /// # Errors
    /// There is no such image, or it cannot be reached or read.
    pub async fn diff(&self, request: &DiffRequest, progress: &Progress) -> Result<ImageDiff, Error> {
        let _lease = self.hold().await?;
        let step = progress.start(format!("compare {} and {}", request.from, request.to), None);
        let result = self.diff_now(request, &step).await;
        step.finish(if result.is_ok() { StepOutcome::Done } else { StepOutcome::Failed });
        result
    }

    async fn diff_now(&self, request: &DiffRequest, step: &StepProgress) -> Result<ImageDiff, Error> {
        let client = self.client()?;
        let (first, second) = (request.from.to_string(), request.to.to_string());
        let failed = |name: &str| {
            let name = name.to_owned();
            move |failure: Failure| failure.of("look at", &name)
        };
        let from = self.open_draft(&request.from, &request.platform, &client).await.map_err(failed(&first))?;
        let to = self.open_draft(&request.to, &request.platform, &client).await.map_err(failed(&second))?;
        let config = compare_configs(&from.config, &to.config, request.times);
        if from.diff_ids() == to.diff_ids() {
            return Ok(ImageDiff { files: Vec::new(), config });
        }
        let unpacked = |name: &str| {
            let name = name.to_owned();
            move |source| Error::Image { action: "unpack", name, source }
        };
        let one = from.unpack(&self.store, step).await.map_err(unpacked(&first))?;
        let other = to.unpack(&self.store, step).await.map_err(unpacked(&second))?;
        let (store, times) = (self.store.clone(), request.times);
        let files = blocking(move || {
            let unreadable = |source| Error::Io { action: "read", path: "the images' files".into(), source };
            compare_files(&view(&store, &one)?, &view(&store, &other)?, times).map_err(unreadable)
        });
        Ok(ImageDiff { files: files.await?, config })
    }
}
