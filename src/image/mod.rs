//! Images: what they are made of, and how they come and go.
//!
//! [`layer`] turns directories into tar streams and blobs, and back. [`pull`] and [`push`] join the registry and the store; [`load`] and [`import`] read
//! archives; [`assemble`] makes an image of a build's snapshots and config, [`rewrite`] one without times that say when; [`blobs`] makes the blobs and the
//! manifest of an image that was built here, when they are first wanted; [`copy`] brings images from one place to another as they are, and [`remote`]
//! only looks at those of a registry. [`validate`] reads all bytes again, [`check`] the files of snapshots; [`edit`] makes
//! images of images without running anything, [`index`] indexes of images, [`several`] that of a build for several platforms, and [`compare`] tells two apart.

pub mod archive;
pub mod assemble;
pub mod blobs;
pub mod check;
pub mod compare;
pub mod copy;
pub mod daemon;
pub mod edit;
mod error;
pub mod export;
pub mod import;
pub mod imported;
pub mod index;
pub mod layer;
pub mod load;
mod platform_files;
pub mod pull;
pub mod push;
pub mod remote;
pub mod rewrite;
pub mod several;
pub mod validate;

pub use error::Error;

#[cfg(test)]
mod pull_tests;
