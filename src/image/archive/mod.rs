//! Archives of whole images: `docker save` and OCI layouts in a tar.

mod write;

pub use write::{ArchiveFormat, write_archive};
