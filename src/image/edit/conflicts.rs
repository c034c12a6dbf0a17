//! What the files say against another base: an image's layers hold whole files, also those of which a step changed a line of what its base had.
//!
//! A path counts where the image's own layers have a file that the old base had too, and the new base has something else there: what the image has was made of the
//! old file. A package database is the usual one. It also counts where the image has a directory and the new base a link or a file, which the directory would hide.

use std::io;

use crate::path::RootPath;
use crate::sys::tree::{Kind, Tree};

use crate::image::compare::same_entry;

/// The paths, sorted, at which `own` (the image's own layers, merged) cannot lie above `new` as it did above `old`.
///
/// # Errors
/// A tree cannot be read.
pub fn conflicts(own: &dyn Tree, old: &dyn Tree, new: &dyn Tree) -> io::Result<Vec<RootPath>> {
    let (mut found, mut directories) = (Vec::new(), vec![RootPath::root()]);
    while let Some(directory) = directories.pop() {
        for (name, metadata) in own.examine_dir(&directory)? {
            let path = directory.join(&name);
            if metadata.kind == Kind::Directory {
                match new.metadata(&path)? {
                    Some(there) if there.kind != Kind::Directory => found.push(path),
                    _ => directories.push(path),
                }
            } else if old.metadata(&path)?.is_some() && !same_entry(old, new, &path)? {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}
