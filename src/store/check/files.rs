//! What the files say: the bytes of blobs, the shape of snapshots. Several at once, while other commands work: what one of them has removed meanwhile is no problem.

use std::fs;
use std::io::Read;

use crate::oci::{Digest, Hasher};
use crate::store::{Error, SnapshotId, Store};
use crate::task::in_parallel;

use super::rows::Looked;
use super::{CheckDepth, Problem, StoreCheck};

impl Store {
    pub(super) fn check_files(&self, looked: &Looked, depth: CheckDepth, report: &mut StoreCheck) -> Result<(), Error> {
        for looked in in_parallel(&looked.blobs, |(digest, recorded)| self.check_blob(digest, *recorded, depth)) {
            if let Some((size, problem)) = looked? {
                report.bytes += size;
                report.problems.extend(problem);
            }
        }
        for problem in in_parallel(&looked.snapshots, |(id, description)| self.check_snapshot(*id, description, depth)) {
            report.problems.extend(problem?);
        }
        Ok(())
    }

    /// A blob's size, and what is wrong with it; `None` where it is gone.
    fn check_blob(&self, digest: &Digest, recorded: Option<u64>, depth: CheckDepth) -> Result<Option<(u64, Option<Problem>)>, Error> {
        let unreadable = |reason: String| Some((0, Some(Problem::BlobUnreadable { digest: digest.clone(), reason })));
        let metadata = match self.find_blob(digest, "stat", |path| fs::symlink_metadata(path)) {
            Ok(Some(metadata)) => metadata,
            Ok(None) => return Ok(None),
            Err(error) => return Ok(unreadable(cause(&error))),
        };
        if !metadata.is_file() {
            return Ok(unreadable("it is no file".to_owned()));
        }
        let size = metadata.len();
        if let Some(expected) = recorded.filter(|recorded| *recorded != size) {
            return Ok(Some((size, Some(Problem::BlobSize { digest: digest.clone(), expected, actual: size }))));
        }
        if depth == CheckDepth::Structure {
            return Ok(Some((size, None)));
        }
        let mut file = match self.open_blob(digest) {
            Ok(file) => file,
            Err(Error::NoBlob { .. }) => return Ok(None),
            Err(error) => return Ok(unreadable(cause(&error))),
        };
        let mut hasher = Hasher::new(digest.algorithm());
        let mut buffer = vec![0; 256 * 1024];
        loop {
            match file.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => hasher.update(&buffer[..count]),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Ok(unreadable(error.to_string())),
            }
        }
        let actual = hasher.finish();
        let problem = (actual != *digest).then(|| Problem::BlobContent { digest: digest.clone(), size, actual });
        Ok(Some((size, problem)))
    }

    /// What is wrong with the shape of a snapshot's directory.
    fn check_snapshot(&self, id: SnapshotId, description: &str, depth: CheckDepth) -> Result<Option<Problem>, Error> {
        let what = self.snapshot_fault(id, depth);
        // Removed meanwhile, by somebody who may.
        if what.is_none() || self.snapshot(id)?.is_none() {
            return Ok(None);
        }
        Ok(what.map(|what| Problem::SnapshotAltered { id, description: description.to_owned(), what }))
    }

    fn snapshot_fault(&self, id: SnapshotId, depth: CheckDepth) -> Option<String> {
        let dir = self.layout().snapshot(id);
        let fs_path = self.snapshot_path(id);
        match fs::symlink_metadata(&fs_path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Some("its files are gone".to_owned()),
            Err(error) => return Some(format!("its files cannot be reached: {error}")),
            Ok(metadata) if !metadata.is_dir() => return Some("its `fs` is no directory".to_owned()),
            Ok(_) => {}
        }
        if dir.join("work").symlink_metadata().is_ok() {
            return Some("it was not complete when it was committed".to_owned());
        }
        if depth == CheckDepth::Structure {
            return None;
        }
        for entry in walkdir::WalkDir::new(&fs_path) {
            match entry {
                Ok(_) => {}
                Err(error) => return Some(error.to_string()),
            }
        }
        None
    }
}

/// The cause in few words: what was tried, and with what, is said already.
fn cause(error: &Error) -> String {
    std::error::Error::source(error).map_or_else(|| error.to_string(), ToString::to_string)
}
