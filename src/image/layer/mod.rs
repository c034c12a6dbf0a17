//! Layers: everything between a layer's directory and its tar stream or blob.
//!
//! A layer's directory is in overlay form: it has marks ([`crate::store::view::Marks`]) of what is deleted and of directories that hide those below.
//! [`apply()`] makes such a directory of a tar stream without knowing the layers below; [`write_layer`] makes a tar stream of it again, and there the layers below decide what is a change.
//!
//! All of it blocks, uses memory that does not depend on the size of files, and takes tar streams as hostile. The same tree gives the same bytes, whatever
//! the number of cores and the sizes of reads: golden digests in the tests pin them.

mod apply;
mod compare;
mod compress;
mod decompress;
mod diff;
mod error;
mod flatten;
mod hashing;
mod inherit;
mod known;
mod lower;
mod record;
mod stream;
mod tar_reader;
mod tar_writer;
mod target;

pub use apply::{Applied, ApplyOptions, Devices, apply};
pub use compare::{EntryDifference, LayerAt, differences};
pub use compress::{Compressed, CompressionSpec, compress, write_compressed_layer};
pub use decompress::{Compression, decompressor, read_ahead, sniff};
pub use diff::{LayerOptions, LayerWritten, Meanwhile, diff_id_knowing, diff_id_only, write_layer};
pub use error::Error;
pub use flatten::{Copied, CopyOptions, Owners, RootfsWritten, copy_tree_to_dir, write_rootfs_tar};
pub use inherit::{Inherited, inherit_directories};
pub use known::KnownFiles;
pub use stream::{DirectoryHead, LayerEntries, LayerStream};
pub(crate) use tar_reader::{Member, MemberKind, TarReader};

/// Extended attributes: names and values.
type Xattrs = Vec<(Vec<u8>, Vec<u8>)>;

/// Whether an attribute belongs to overlayfs itself and so is never part of a layer. One taken from a tar stream could redirect a
/// directory to another.
fn is_overlay_attribute(name: &[u8]) -> bool {
    name.starts_with(b"trusted.overlay.") || name.starts_with(b"user.overlay.")
}

#[cfg(test)]
mod tests;
