//! Stamps: empty files whose time says when something was last done, by whichever process.

use std::fs::{self, File};
use std::path::Path;
use std::time::Duration;

use super::Error;

/// Whether something was not done within the last `interval`; it counts as done from now on. Two processes that ask at the same instant may both do it.
pub(crate) fn is_due(stamp: &Path, interval: Duration) -> Result<bool, Error> {
    let done = fs::metadata(stamp).and_then(|metadata| metadata.modified());
    if done.is_ok_and(|at| at.elapsed().is_ok_and(|age| age < interval)) {
        return Ok(false);
    }
    File::create(stamp).map_err(Error::io("create", stamp))?;
    Ok(true)
}
