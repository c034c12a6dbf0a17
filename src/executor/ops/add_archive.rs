//! ADD of an archive: unpacks a tar into a directory of the new layer.

use std::fs::File;
use std::sync::Arc;

use super::copy::{Copied, CopyRequest};
use super::error::Error;
use super::upper::{Upper, UpperDir};

/// Whether the file's content is a tar archive, plain or compressed.
pub(super) fn is_archive(_file: File) -> bool {
    false
}

/// Unpacks `file` into `directory`.
pub(super) fn unpack(_upper: &Upper<'_>, _directory: &Arc<UpperDir>, _file: File, _request: &CopyRequest) -> Result<Copied, Error> {
    Ok(Copied::default())
}
