//! Layers alone.

#[path = "../../src/image/layer/mod.rs"]
pub mod layer;
