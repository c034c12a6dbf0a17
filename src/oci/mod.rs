//! The types of the OCI specifications (image-spec 1.1, distribution-spec 1.1) and of Docker's image format 2.
//!
//! Four kinds of hash meet in this field and each is a type of its own here, so that mixing them up does not compile: [`Digest`] (of
//! some bytes), [`DiffId`] (of a layer's uncompressed tar), [`ChainId`] (of a stack of layers) and [`ImageId`] (of an image's config).
//!
//! Structures that we parse and write again keep the fields that they do not know, in order, and the raw bytes of whatever was pulled are kept beside
//! the parsed form: a digest belongs to bytes, not to a structure. The crate `oci-spec` has the grammar of references; its image
//! structures lose fields (`Healthcheck`, `OnBuild`, `Shell`) and order, so those are our own.
//!
//! This folder does no I/O.

mod config;
mod descriptor;
mod digest;
mod duration;
mod manifest;
mod media_type;
mod platform;
mod reference;

pub use config::{HealthConfig, HistoryEntry, ImageConfig, RootFs, RuntimeConfig};
pub use descriptor::Descriptor;
pub use digest::{Algorithm, ChainId, DiffId, Digest, DigestError, Hasher, ImageId};
pub use duration::go_duration;
pub use manifest::{Index, Manifest, ManifestError, ManifestOrIndex};
pub use media_type::MediaType;
pub use platform::{Platform, PlatformError};
pub use reference::{DOCKER_HUB, Reference, ReferenceError, TagOrDigest};
