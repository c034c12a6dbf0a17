//! Whether an image is whole, wherever it is.

use crate::image::copy::Wanted;
pub use crate::image::validate::{Bad, Depth, Fault, Validation};
use crate::image::validate::{validate, validate_stored};
use crate::oci::Platform;
use crate::task::blocking;

use super::{Engine, Error, Place};

/// A look at all bytes of an image.
#[derive(Clone, Debug)]
pub struct ValidateRequest {
    /// The image.
    pub place: Place,
    /// The image to look at in an index; all of them without it.
    pub platform: Option<Platform>,
    /// How much is looked at.
    pub depth: Depth,
}

impl Engine {
    /// Looks at all that an image consists of; what is wrong is in the result.
    ///
    /// # Errors
    /// There is no such image, or it cannot be reached.
    pub async fn validate(&self, request: &ValidateRequest) -> Result<Validation, Error> {
        let name = request.place.to_string();
        let failed = |source| Error::Image { action: "look at", name: name.clone(), source };
        match &request.place {
            Place::Store(text) => {
                let _lease = self.hold().await?;
                let (store, image, depth) = (self.store.clone(), self.image(text)?, request.depth);
                blocking(move || validate_stored(&store, &image, depth)).await.map_err(failed)
            }
            Place::Archive { .. } => {
                let hint = Some("`strake load` checks all that it loads; `strake copy` makes a layout of it, as in `oci:DIR`".to_owned());
                Err(Error::Usage { message: format!("`{name}` is an archive, which is not looked at where it is"), hint })
            }
            place => {
                let wanted = request.platform.clone().map_or(Wanted::All, Wanted::Platform);
                let source = self.source(place, &self.client()?).await.map_err(|failure| failure.of("look at", &name))?;
                validate(&source, &wanted, request.depth).await.map_err(failed)
            }
        }
    }
}
