//! Images: what they are made of, and how they come and go.
//!
//! [`layer`] turns directories into tar streams and blobs, and back.

pub mod layer;
