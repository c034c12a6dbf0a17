//! The build cache: keys, records, and why something missed.
//!
//! A key covers what an op reads, never when or where it ran. [`key`] has the table of every input that is hashed and every one that is left out on
//! purpose. Every result has an *identity*, which is the key that it was made under; the keys of ops that read it are made of that identity,
//! so a whole build can be looked up before anything runs.
//!
//! [`portable`] is the form in which records go to other stores, and [`Imports`] what came from there.
//!
//! Lookups never fail a build: what cannot be read is a miss. This folder neither runs ops nor touches the network.

mod imports;
pub mod key;
pub mod portable;
mod reason;
mod record;

pub use imports::{Imports, Offer};
pub use key::{CacheKey, Components, KEY_VERSION};
pub use reason::{Change, MissReason, explain};
pub use record::{BuildCache, MAX_REMEMBERED_FILES, Output, StepSlot};
