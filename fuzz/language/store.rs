//! What a stack of layers looks like, for those that write one.

#[path = "../../src/store/view/mod.rs"]
pub mod view;
