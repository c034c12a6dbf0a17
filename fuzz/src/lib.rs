//! What has to hold for any input: one module per fuzz target, each with a `check` that panics where it does not.
//!
//! The targets in `fuzz_targets` only hand their bytes over. Inputs are text that a person can write and read, so that a finding is understood from
//! its file. See `README.md` for how to run them.

pub mod documents;
pub mod expand;
pub mod headers;
pub mod ignore;
pub mod layer;
pub mod mount;
pub mod parse;

mod cost;
mod fingerprint;
mod reference;
