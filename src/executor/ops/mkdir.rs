//! WORKDIR: makes a directory that the root file system does not have yet.

use std::path::Path;

use super::copy::Owner;
use super::error::{Error, MAX_PATH};
use super::upper::{MadeDirectory, Mtime, Upper};
use crate::path::RootPath;
use crate::store::view::MergedView;
use crate::sys::tree::{Kind, LastLink, Tree, resolve};

/// Makes the directory `path` and its missing parents with `mode`, owned by `owner` (`None` is root, with the group of a directory that passes it on), in the empty directory `upper` above `base`. Links on the way are
/// followed inside the root file system; directories that exist are left alone. Returns whether anything was made: if not, `upper` was not touched.
pub fn make_dir(
    base: &MergedView,
    upper: &Path,
    path: &RootPath,
    owner: Option<Owner>,
    mode: u32,
    created_time: Option<(i64, u32)>,
) -> Result<bool, Error> {
    let read_error = |source| Error::ReadBase { path: path.clone(), source };
    let length = path.as_os_str().len();
    if length > MAX_PATH {
        return Err(Error::PathTooLong { length });
    }
    let resolved = resolve(base, path, LastLink::Follow).map_err(read_error)?;
    if let Some(metadata) = base.metadata(&resolved).map_err(read_error)? {
        return if metadata.kind == Kind::Directory { Ok(false) } else { Err(Error::NotADirectory { path: resolved }) };
    }
    let mtime = created_time.map_or(Mtime::Now, Mtime::At);
    let new = MadeDirectory { mode, owner, mtime };
    let layer = Upper::open(base, upper)?;
    drop(layer.enter_all(&resolved, &new)?);
    layer.finish()?;
    Ok(true)
}
