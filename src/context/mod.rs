//! The build context: which files a Dockerfile can see, what their content is, and which of them a wildcard names.
//!
//! - [`IgnoreRules`]: `.dockerignore`, and COPY's `--exclude`.
//! - [`LocalContext`]: a directory of this machine as a [`Tree`](crate::sys::tree::Tree), without what is ignored; [`Excluding`] hides parts of any tree.
//! - [`checksum()`]: what the cache compares of a selection of a tree, and [`diff`]: what changed.
//! - [`expand`]: wildcards in the sources of COPY and ADD.
//! - [`sniff_stdin`]: a context that comes through a pipe.
//! - [`commit_time`]: when the commit was made that a context has checked out.
//!
//! Invariants: nothing here follows a link out of the tree or writes to it, no checksum depends on a time, and what is ignored does not exist for anyone
//! who reads through these types. This folder knows neither the store (it takes a [`ChecksumMemo`]) nor instructions.

mod archive;
mod checksum;
mod error;
mod exclude;
mod git;
mod glob;
mod ignore;
mod local;
mod pattern;
mod regexp;
mod wildcard;

pub use archive::{Archive, Attributes, Owners, StdinInput, sniff_stdin};
pub use checksum::{
    Change, ChecksumMemo, ChecksumOptions, EntryFacts, FileStamp, Filter, NoMemo, RootEntry, SeenMemo, TreeChecksum, checksum, diff,
};
pub(crate) use error::VANISHED;
pub use error::{BadPattern, Error};
pub use exclude::Excluding;
pub use git::{GitError, commit_time};
pub use glob::{Pattern, expand};
pub use ignore::{Decision, DirectoryState, Explanation, IgnoreRules};
pub use local::LocalContext;

#[cfg(test)]
mod archive_tests;
#[cfg(test)]
mod ignore_tests;
#[cfg(test)]
mod tree_tests;
