//! Whether an image is whole, wherever it is.

use crate::image::copy::Wanted;
use std::fs::File;
use std::io::Read;
use std::path::Path;

pub use crate::image::validate::{Bad, Depth, Fault, Validation};
use crate::image::validate::{Reopen, validate, validate_archive, validate_stored};
use crate::oci::Platform;
use crate::task::blocking;

use super::transfer::open_input;
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
            Place::Archive { path, name: named, .. } => {
                if named.is_some() || request.platform.is_some() {
                    let message = format!("`{name}` is an archive, of which all images are looked at");
                    return Err(Error::Usage { message, hint: Some("name the file alone, without a tag or a platform".to_owned()) });
                }
                let (archive, path) = (open_input(path)?, path.clone());
                blocking(move || {
                    let open = || match File::open(&path) {
                        Ok(file) => Ok(Box::new(file) as Box<dyn Read + Send>),
                        Err(source) => Err(crate::image::Error::Io { action: "open", path: path.clone(), source }),
                    };
                    let again: Option<&Reopen<'_>> = if path == Path::new("-") { None } else { Some(&open) };
                    validate_archive(archive, again)
                })
                .await
                .map_err(failed)
            }
            place => {
                let wanted = request.platform.clone().map_or(Wanted::All, Wanted::Platform);
                let source = self.source(place, &self.client()?).await.map_err(|failure| failure.of("look at", &name))?;
                validate(&source, &wanted, request.depth).await.map_err(failed)
            }
        }
    }
}
