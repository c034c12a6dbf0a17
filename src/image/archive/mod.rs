//! Archives of whole images: `docker save` and OCI layouts in a tar; layouts in a directory.

mod artifact;
mod read;
mod write;

pub use artifact::{LayoutLock, is_whole, write_artifact};
pub(super) use read::{Spooled, bad, begin, clean, spool};
pub use write::{ArchiveFormat, Packed, Saved, write_archive, write_layout, write_packed};
pub(super) use write::{ArchiveWriter, LayoutWriter, names_of_entry};
