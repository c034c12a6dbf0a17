//! Limits of a container that runs. On v1 and hybrid systems one that was started without limits has no groups; it gets those that it needs when it is limited, with its ID as their name, and
//! all its processes are moved there.

use std::path::PathBuf;

use super::Error;
use super::pause::gather;
use crate::runtime::{CgroupSpec, cgroup};

/// Changes the limits of the container `id`, whose groups are `groups` and whose first process is `pid`.
///
/// # Errors
/// The kernel refuses a limit, or there can be no group for it.
pub fn limit(id: &str, pid: u32, groups: &[PathBuf], limits: &CgroupSpec) -> Result<(), Error> {
    let made = cgroup::make_late(id, groups, limits).map_err(crate::runtime::Error::from)?;
    made.iter().try_for_each(|group| gather(group, pid))?;
    Ok(cgroup::update(&[groups, &made].concat(), limits).map_err(crate::runtime::Error::from)?)
}

/// Adds the groups that the container has got since it was started to those that it was started in.
pub(super) fn add(id: &str, groups: &mut Vec<PathBuf>) {
    let late = cgroup::late(id);
    groups.extend(late.into_iter().filter(|group| !groups.contains(group)).collect::<Vec<_>>());
}

/// Removes what a container that has ended has got so; says whether something in it was killed for want of memory.
pub fn forget(id: &str) -> bool {
    cgroup::remove_late(id)
}
