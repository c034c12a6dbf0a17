//! Strake builds Dockerfiles, moves the images and runs them.
//!
//! `ARCHITECTURE.md` has the map: which folder owns what, and which may import which (`tests/architecture.rs` enforces it).

pub mod diag;
pub mod oci;
pub mod parser;
pub mod path;
pub mod runtime;
pub mod sys;
