//! What can go wrong between a layer's directory and its bytes.

use std::io;
use std::path::PathBuf;

use rustix::io::Errno;

use crate::path::RootPath;

/// Why a layer could not be unpacked, written or compressed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The stream could not be read, or could not be decompressed.
    #[error("cannot read the layer's stream")]
    Read {
        /// What stopped it.
        source: io::Error,
    },
    /// The stream could not be written.
    #[error("cannot write the layer's stream")]
    Write {
        /// What stopped it.
        source: io::Error,
    },
    /// The stream ends inside an entry.
    #[error("the layer's tar stream ends too early, after {position} bytes")]
    Truncated {
        /// How many bytes there were.
        position: u64,
    },
    /// The stream is no tar stream.
    #[error("the layer's tar stream is malformed at byte {position}: {reason}")]
    Malformed {
        /// Where the header begins.
        position: u64,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// An entry's name leads out of the root file system, or is no name.
    #[error("the layer's entry `{name}` has a name that is refused: {reason}")]
    BadName {
        /// The name as it is in the stream.
        name: String,
        /// Why.
        reason: &'static str,
    },
    /// The layer is larger than allowed.
    #[error("the layer unpacks to more than {limit} bytes")]
    TooLarge {
        /// The limit.
        limit: u64,
    },
    /// The layer has more entries than allowed.
    #[error("the layer has more than {limit} entries")]
    TooManyEntries {
        /// The limit.
        limit: u64,
    },
    /// An entry's extended header is larger than allowed.
    #[error("the layer's tar stream has an extended header of {size} bytes at byte {position}; {limit} are allowed")]
    HeaderTooLarge {
        /// Its size.
        size: u64,
        /// The limit.
        limit: u64,
        /// Where it begins.
        position: u64,
    },
    /// A hard link's target is not in the layer.
    #[error("`{path}` is a hard link to `{target}`, which is not in the same layer")]
    HardLinkTarget {
        /// The link.
        path: RootPath,
        /// What it links to.
        target: RootPath,
    },
    /// A path leads through a link or file that is no directory.
    #[error("`{path}` cannot be unpacked: a name on the way is not a directory")]
    NotADirectory {
        /// The path.
        path: RootPath,
    },
    /// A device node may not be made here.
    #[error("cannot create the device `{path}`")]
    Device {
        /// The device.
        path: RootPath,
        /// What stopped it.
        source: io::Error,
    },
    /// Something could not be done in a layer's directory.
    #[error("cannot {action} `{path}` in {root}", root = .root.display())]
    Entry {
        /// What we were doing, as a verb.
        action: &'static str,
        /// The entry.
        path: RootPath,
        /// The layer's directory.
        root: PathBuf,
        /// What stopped it.
        source: io::Error,
    },
    /// Something could not be read from a file tree.
    #[error("cannot read `{path}`")]
    Tree {
        /// The entry.
        path: RootPath,
        /// What stopped it.
        source: io::Error,
    },
    /// An entry cannot be represented in a layer.
    #[error("`{path}` cannot be part of a layer: names that begin with `.wh.` mean deletions there")]
    ReservedName {
        /// The entry.
        path: RootPath,
    },
    /// overlayfs was mounted with a feature that spreads an entry over layers.
    #[error("`{path}` refers to another layer by its attribute `{attribute}`")]
    OverlayFeature {
        /// The entry.
        path: RootPath,
        /// The attribute.
        attribute: String,
    },
    /// A file became shorter while it was read.
    #[error("`{path}` changed while it was read")]
    Changed {
        /// The file.
        path: RootPath,
    },
    /// Layers are not written in this format.
    #[error("layers are not compressed with {format}")]
    Format {
        /// The format.
        format: &'static str,
    },
    /// The compressor failed.
    #[error("cannot compress the layer with {format}")]
    Compress {
        /// The format.
        format: &'static str,
        /// What stopped it.
        source: io::Error,
    },
}

impl Error {
    /// What the user can do about it.
    pub fn hint(&self) -> Option<String> {
        if let Error::OverlayFeature { .. } = self {
            return Some("mount overlays with `redirect_dir=off,metacopy=off`".to_owned());
        }
        if let Error::TooLarge { .. } = self {
            return Some("STRAKE_MAX_LAYER_SIZE sets another limit".to_owned());
        }
        let (Error::Entry { source, .. } | Error::Device { source, .. } | Error::Write { source }) = self else {
            return None;
        };
        let errno = Errno::from_io_error(source)?;
        match (self, errno) {
            // One file has more attributes than the file system has room for.
            (Error::Entry { action: "set an attribute of", .. }, Errno::NOSPC) => None,
            (_, Errno::NOSPC | Errno::DQUOT) => Some("the disk is full; `strake prune` frees what is not in use".to_owned()),
            (Error::Device { .. }, Errno::PERM) => {
                Some("device nodes need root on the host; they cannot be made in a user namespace".to_owned())
            }
            (Error::Entry { action: "change the owner of", .. }, Errno::INVAL | Errno::PERM) => {
                let way = "it takes root, or a range in /etc/subuid and /etc/subgid; `strake copy` moves images without unpacking them";
                Some(way.to_owned())
            }
            _ => None,
        }
    }
}
