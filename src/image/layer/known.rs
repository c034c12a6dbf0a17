//! Files of a layer whose content its writer still has in hand when the layer is finished, so that they need not be read again for the diff ID.
//!
//! For what is not written in the order of the stream ([`super::stream`] is for the rest), such as an archive that is unpacked. What is kept is bounded; files
//! that are not known are read.

use std::collections::HashMap;
use std::os::fd::AsFd;

use rustix::fs::FileType;

use crate::path::RootPath;

use super::record::{Head, SMALL};

/// Some files of a layer.
#[derive(Debug)]
pub struct KnownFiles {
    files: HashMap<RootPath, KnownFile>,
    /// How many bytes may still be kept.
    room: usize,
}

#[derive(Debug)]
pub(super) struct KnownFile {
    pub(super) head: Head,
    pub(super) content: Box<[u8]>,
}

impl KnownFiles {
    /// The largest file that is kept.
    pub const MAX_FILE: u64 = SMALL;

    /// What a file takes beside its content.
    const OVERHEAD: usize = 256;

    /// None yet; not more than about `room` bytes will be kept.
    pub fn new(room: usize) -> KnownFiles {
        KnownFiles { files: HashMap::new(), room }
    }

    /// Adds the file `path`, open as `file` and finished, that has this content, one name and no extended attributes.
    pub fn add(&mut self, path: RootPath, file: impl AsFd, content: Vec<u8>) {
        let Ok(stat) = rustix::fs::fstat(file) else { return };
        let takes = content.len() + path.as_bytes().len() + KnownFiles::OVERHEAD;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile
            || u64::try_from(stat.st_size) != Ok(content.len() as u64)
            || takes > self.room
        {
            return;
        }
        self.room -= takes;
        let head = Head::new(&path, &stat, Vec::new(), None);
        self.files.insert(path, KnownFile { head, content: content.into_boxed_slice() });
    }

    /// Forgets a file that was replaced, or got another name.
    pub fn forget(&mut self, path: &RootPath) {
        self.files.remove(path);
    }

    /// Forgets all: something larger was replaced.
    pub fn forget_all(&mut self) {
        self.files.clear();
    }

    pub(super) fn take(&mut self, path: &RootPath) -> Option<KnownFile> {
        self.files.remove(path)
    }
}
