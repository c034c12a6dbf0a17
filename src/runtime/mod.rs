//! A process in a sandbox.

pub mod network;
