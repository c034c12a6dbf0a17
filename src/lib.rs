//! Strake builds Dockerfiles, moves the images and runs them.
//!
//! `ARCHITECTURE.md` has the map: which folder owns what, and which may import which (`tests/architecture.rs` enforces it).

pub mod cache;
pub mod cli;
pub mod context;
pub mod diag;
pub mod engine;
pub mod executor;
pub mod graph;
pub mod image;
pub mod oci;
pub mod parser;
pub mod path;
pub mod progress;
pub mod registry;
pub mod runtime;
pub mod server;
pub mod store;
pub mod sys;
pub mod task;
