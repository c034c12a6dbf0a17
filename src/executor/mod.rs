//! Runs the steps of a build.

pub mod ops;
