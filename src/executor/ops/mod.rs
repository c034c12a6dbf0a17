//! One file per kind of step: RUN ([`exec`]), COPY and ADD, the directories of WORKDIR, and who USER and `--chown` mean.
//!
//! All but RUN write a new layer's directory above a [`MergedView`](crate::store::view::MergedView), in user space: `upper` holds the rules of the overlay
//! form, so that the others speak of files only. They mount nothing, start no process and trust no name.

mod add_archive;
mod archive_plan;
#[cfg(test)]
mod archive_tests;
mod copy;
mod crew;
mod dates;
mod error;
pub mod exec;
mod failed;
mod fill;
mod layer_diff;
#[cfg(test)]
mod layer_diff_tests;
mod mkdir;
mod select;
mod share;
mod step;
pub(crate) mod stubs;
#[cfg(test)]
mod tests;
mod unmounted;
mod upper;
mod users;
#[cfg(test)]
mod users_tests;
mod walk;

pub use copy::{Aids, Copied, CopyRequest, CopySource, Owner, Unpack, copy, copy_with};
pub use dates::FileTimes;
pub(super) use dates::{Rule, dated};
pub use error::{BadEntry, Error};
pub use exec::TAIL_LINES;
pub use failed::{FailedSlot, FailedStep, ShellError};
pub use mkdir::make_dir;
pub use select::{Naming, SourceRoot, select};
pub use share::Sharing;
pub(super) use step::missing_hint;
pub use step::{DiffIdWanted, Made, copy_step, exclude_rules, mkdir_step, view};
pub use users::{ProcessUser, ResolvedOwner, lookup_owner, lookup_user};
