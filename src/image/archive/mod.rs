//! Archives of whole images: `docker save` and OCI layouts in a tar.

mod read;
mod write;

pub(super) use read::{Spooled, bad, begin, spool};
pub use write::{ArchiveFormat, Packed, write_archive, write_layout, write_packed};
pub(super) use write::{ArchiveWriter, LayoutWriter, names_of_entry};
