//! What becomes of a build's result: files, archives, the store, registries.
//!
//! [`spec`] is what the user asks for. The result is made into images once for each way in which outputs want times ([`versions`]), and these go to all of their places
//! ([`deliver`]). A result for several platforms is an index; that, and so all images of it, is packed when its digest is first needed.

mod deliver;
mod spec;
mod versions;

pub use crate::image::blobs::Packing;
pub use crate::image::layer::{Compression, CompressionSpec};
pub use spec::{Annotation, AnnotationPlace, Destination, DigestNames, FileLayout, Output, OutputTimes, Push};
pub(super) use spec::{check, given_names, kept_names};
pub(super) use versions::{BuildResult, PlatformResult};
