//! A build context that comes through a pipe: a tar archive, compressed or not, or just a Dockerfile.

use std::collections::HashMap;
use std::ffi::OsString;

/// Who owns the files of a context.
#[derive(Debug, Default)]
pub enum Owners {
    /// Everything is 0:0 and has the mode that it has on disk.
    #[default]
    Root,
    /// Owners, modes and attributes as recorded, by device and inode; they need not be those on disk.
    Recorded(HashMap<(u64, u64), Attributes>),
}

/// What an archive says of an entry and the disk may not be able to hold without privileges.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attributes {
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Extended attributes, sorted by name.
    pub xattrs: Vec<(OsString, Vec<u8>)>,
}

impl Owners {
    pub(super) fn of(&self, dev: u64, ino: u64) -> Option<&Attributes> {
        match self {
            Owners::Root => None,
            Owners::Recorded(recorded) => recorded.get(&(dev, ino)),
        }
    }
}
