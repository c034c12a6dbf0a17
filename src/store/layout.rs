//! Where things are below the store's root. No other file in the program knows a path in there.
//!
//! ```text
//! <root>/                       0711, so that processes in a user namespace can reach a snapshot
//!   version                     the store's format, in decimal; written last when a store is made
//!   marks                       `native` or `portable`, and the device: which marks the layers have
//!   overlay                     the circumstances under which the kernel was found to mount overlays of the layers
//!   meta.db, -wal, -shm         SQLite: names, images, snapshots, cache records, containers, volumes, networks, checksums
//!   blobs/<algorithm>/<hex>     settled blobs: whole and durable
//!   fresh/<boot id>/            made since this boot and not yet settled; another boot's directory is garbage
//!     <algorithm>-<hex>         a blob: whole, but only durable once it is settled and has moved to blobs/
//!   ingest/<algorithm>-<hex>    a download under way (flocked by whoever writes it) or one that a later process resumes
//!   ingest/anon-<random>        the same for bytes whose digest is not known yet; never resumed
//!   snapshots/<id>/fs           a committed snapshot: one layer's own files in overlay form; <id> in base 36
//!   snapshots/0/fs              the empty layer, below everything where overlayfs wants a lower directory
//!   snapshots/new-<random>/     an active snapshot (flocked by its owner): fs/ and work/
//!   cachemounts/<hex>.<n>/fs    RUN --mount=type=cache; `ready` beside it says that it was seeded
//!   containers/<id>/            a container's files; its writable layer is fs/ and work/
//!   volumes/<name>/_data        a volume
//!   leases/<random>             what a running command needs (flocked by its owner), one line for each thing
//!   locks/store                 shared while something is made visible, exclusive while prune decides
//!   locks/<key>                 one running step, or one cache mount
//!   gc                          was written when the size of the build cache was last looked at
//!   log                         was written when a process was last asked to shorten meta.db-wal
//!   trash/<random>              on its way out
//!   reserve                     space that is given up when the disk is full, so that something can be removed then
//! ```

use std::fmt;
use std::path::{Path, PathBuf};

use crate::oci::Digest;

use super::{Error, SnapshotId};

/// The paths of one store.
pub(crate) struct Layout {
    root: PathBuf,
    boot: String,
}

/// The directories that every store has.
pub(crate) const DIRECTORIES: &[&str] =
    &["blobs", "fresh", "ingest", "snapshots", "cachemounts", "containers", "volumes", "leases", "locks", "trash"];

/// The mode of one of them: layers are reached by processes in user namespaces, which need to pass through.
pub(crate) fn directory_mode(name: &str) -> u32 {
    if matches!(name, "snapshots" | "containers" | "volumes" | "cachemounts") { 0o711 } else { 0o700 }
}

/// How the name of an active snapshot's directory begins.
pub(crate) const ACTIVE_PREFIX: &str = "new-";

/// The directory that a container has, or will have, in the store below `root`.
pub fn container_dir(root: &Path, id: &str) -> PathBuf {
    root.join("containers").join(id)
}

/// Where trees are that are being removed.
pub(crate) fn trash(root: &Path) -> PathBuf {
    root.join("trash")
}

impl Layout {
    /// The paths below `root`, in the boot named `boot`.
    pub(crate) fn new(root: PathBuf, boot: String) -> Layout {
        Layout { root, boot }
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Whether all directories are there that a store has as soon as somebody has opened it in this boot.
    pub(crate) fn is_whole(&self) -> bool {
        DIRECTORIES.iter().all(|name| self.root.join(name).exists()) && self.fresh().exists()
    }

    pub(crate) fn version(&self) -> PathBuf {
        self.root.join("version")
    }

    pub(crate) fn marks(&self) -> PathBuf {
        self.root.join("marks")
    }

    pub(crate) fn overlay(&self) -> PathBuf {
        self.root.join("overlay")
    }

    pub(crate) fn database(&self) -> PathBuf {
        self.root.join("meta.db")
    }

    pub(crate) fn blobs(&self) -> PathBuf {
        self.root.join("blobs")
    }

    pub(crate) fn settled_blob(&self, digest: &Digest) -> PathBuf {
        self.root.join(format!("blobs/{}/{}", digest.algorithm().name(), digest.hex()))
    }

    pub(crate) fn fresh_of_all_boots(&self) -> PathBuf {
        self.root.join("fresh")
    }

    pub(crate) fn fresh(&self) -> PathBuf {
        self.root.join("fresh").join(&self.boot)
    }

    pub(crate) fn fresh_blob(&self, digest: &Digest) -> PathBuf {
        self.root.join(format!("fresh/{}/{}", self.boot, flat_name(digest)))
    }

    pub(crate) fn ingests(&self) -> PathBuf {
        self.root.join("ingest")
    }

    pub(crate) fn ingest(&self, digest: &Digest) -> PathBuf {
        self.root.join(format!("ingest/{}", flat_name(digest)))
    }

    pub(crate) fn new_ingest(&self) -> Result<PathBuf, Error> {
        Ok(self.root.join(format!("ingest/anon-{}", random_name()?)))
    }

    pub(crate) fn snapshots(&self) -> PathBuf {
        self.root.join("snapshots")
    }

    pub(crate) fn snapshot(&self, id: SnapshotId) -> PathBuf {
        self.root.join(format!("snapshots/{id}"))
    }

    pub(crate) fn snapshot_fs(&self, id: SnapshotId) -> PathBuf {
        self.root.join(format!("snapshots/{id}/fs"))
    }

    pub(crate) fn new_snapshot(&self) -> Result<PathBuf, Error> {
        Ok(self.root.join(format!("snapshots/{ACTIVE_PREFIX}{}", random_name()?)))
    }

    pub(crate) fn cache_mounts(&self) -> PathBuf {
        self.root.join("cachemounts")
    }

    pub(crate) fn containers(&self) -> PathBuf {
        self.root.join("containers")
    }

    pub(crate) fn container(&self, id: &str) -> PathBuf {
        container_dir(&self.root, id)
    }

    pub(crate) fn volumes(&self) -> PathBuf {
        self.root.join("volumes")
    }

    pub(crate) fn volume(&self, name: &str) -> PathBuf {
        self.root.join("volumes").join(name)
    }

    pub(crate) fn leases(&self) -> PathBuf {
        self.root.join("leases")
    }

    pub(crate) fn store_lock(&self) -> PathBuf {
        self.root.join("locks/store")
    }

    pub(crate) fn lock(&self, name: impl fmt::Display) -> PathBuf {
        self.root.join(format!("locks/{name}"))
    }

    pub(crate) fn locks(&self) -> PathBuf {
        self.root.join("locks")
    }

    pub(crate) fn gc_stamp(&self) -> PathBuf {
        self.root.join("gc")
    }

    pub(crate) fn log_stamp(&self) -> PathBuf {
        self.root.join("log")
    }

    pub(crate) fn reserve(&self) -> PathBuf {
        self.root.join("reserve")
    }

    pub(crate) fn logs(&self) -> PathBuf {
        self.root.join("logs")
    }

    pub(crate) fn trash(&self) -> PathBuf {
        trash(&self.root)
    }
}

/// `sha256-<hex>`: a digest as one file name.
fn flat_name(digest: &Digest) -> String {
    format!("{}-{}", digest.algorithm().name(), digest.hex())
}

/// The digest that a file in `fresh/` is named after.
pub(crate) fn parse_flat_name(name: &str) -> Option<Digest> {
    let (algorithm, hex) = name.split_once('-')?;
    format!("{algorithm}:{hex}").parse().ok()
}

/// A name that nothing else has: 80 random bits in base 32.
pub(crate) fn random_name() -> Result<String, Error> {
    const DIGITS: &[u8; 32] = b"0123456789abcdefghijklmnopqrstuv";
    let bytes: [u8; 16] = random_bytes()?;
    Ok(bytes.iter().map(|byte| char::from(DIGITS[usize::from(byte & 31)])).collect())
}

/// Random bytes of the kernel's.
pub(crate) fn random_bytes<const N: usize>() -> Result<[u8; N], Error> {
    let mut bytes = [0; N];
    match getrandom::fill(&mut bytes) {
        Ok(()) => Ok(bytes),
        Err(error) => Err(Error::NoRandom { source: std::io::Error::from_raw_os_error(error.raw_os_error().unwrap_or_default()) }),
    }
}

/// Lower-case hexadecimal digits of `bytes`.
pub(crate) fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut out = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        out.push(char::from(DIGITS[usize::from(byte >> 4)]));
        out.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
    out
}
