//! Leases: what a running command needs, so that prune leaves it alone.
//!
//! A lease is a file that its owner holds locked; whose lock can be had has a dead owner and is void. A line names one thing. Blobs, snapshots and images that
//! a process makes are added to all of its leases before they are visible, so they are safe before anything names them.
//!
//! Leases are files and not rows because taking one must not wait for a writer.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{Read, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use crate::oci::{ChainId, Digest, ImageId};
use crate::task::fault_point;

use super::layout::random_name;
use super::lock::{Kind, Wait, lock, lock_file};
use super::{Error, SnapshotId, Store};

/// Something that a lease can hold.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Resource {
    /// A committed snapshot.
    Snapshot(SnapshotId),
    /// A blob.
    Blob(Digest),
    /// An image, with its config, its manifest and its snapshots.
    Image(ImageId),
}

/// Holds what a command needs. Dropping it lets go; so does dying.
#[must_use = "what a lease holds may be pruned as soon as it is dropped"]
#[derive(Debug)]
pub struct Lease {
    store: Store,
    /// None where the store can only be read: nobody prunes it then.
    file: Option<Arc<LeaseFile>>,
}

/// The file of a lease.
#[derive(Debug)]
pub(crate) struct LeaseFile {
    path: PathBuf,
    file: Mutex<File>,
}

impl LeaseFile {
    fn append(&self, lines: &str) -> Result<(), Error> {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.write_all(lines.as_bytes()).map_err(Error::io("write", &self.path))
    }
}

impl Drop for LeaseFile {
    fn drop(&mut self) {
        // Still locked: prune finds either a living lease or none.
        fault_point("lease:released");
        let _ = fs::remove_file(&self.path);
        fault_point("lease:removed");
    }
}

impl Lease {
    /// Adds `resource`; false where it is not in the store (any more). Once this says true, it stays.
    pub fn add(&self, resource: &Resource) -> Result<bool, Error> {
        Ok(self.add_all(std::slice::from_ref(resource))? == [true])
    }

    /// Adds several things and says of each whether it is in the store.
    pub fn add_all(&self, resources: &[Resource]) -> Result<Vec<bool>, Error> {
        // Prune does not decide while this is held, so what is seen here is still there when the line is written.
        let _shared = self.store.lock_store(Kind::Shared)?;
        let mut lines = String::new();
        let mut present = Vec::with_capacity(resources.len());
        for resource in resources {
            present.push(self.store.describe(resource, &mut lines)?);
        }
        if let Some(file) = self.file.as_ref().filter(|_| !lines.is_empty()) {
            file.append(&lines)?;
            fault_point("lease:added");
        }
        Ok(present)
    }
}

/// What all living leases hold.
#[derive(Debug, Default)]
pub(crate) struct Leased {
    pub(crate) snapshots: HashSet<SnapshotId>,
    pub(crate) blobs: HashSet<Digest>,
    pub(crate) images: HashSet<ImageId>,
}

impl Store {
    /// Takes a lease, which holds nothing yet but what this store (and its clones) makes from now on.
    pub fn lease(&self) -> Result<Lease, Error> {
        if self.read_only().is_some() {
            return Ok(Lease { store: self.clone(), file: None });
        }
        let path = self.layout().leases().join(random_name()?);
        // Prune must not find the file before it is locked.
        let _shared = self.lock_store(Kind::Shared)?;
        let Some(file) = lock_file(&path, Kind::Exclusive, Wait::No)? else {
            return Err(Error::io("lock", &path)(std::io::Error::from(std::io::ErrorKind::WouldBlock)));
        };
        let file = Arc::new(LeaseFile { path, file: Mutex::new(file) });
        self.leases().push(Arc::downgrade(&file));
        fault_point("lease:taken");
        Ok(Lease { store: self.clone(), file: Some(file) })
    }

    /// Adds what is about to be made visible to all leases of this process. The caller holds the store's lock, shared.
    pub(crate) fn hold(&self, line: std::fmt::Arguments<'_>) -> Result<(), Error> {
        let mut leases = self.leases();
        leases.retain(|lease| lease.strong_count() > 0);
        let living: Vec<Arc<LeaseFile>> = leases.iter().filter_map(Weak::upgrade).collect();
        drop(leases);
        if living.is_empty() {
            return Ok(());
        }
        let line = format!("{line}\n");
        living.iter().try_for_each(|lease| lease.append(&line))
    }

    /// Writes the lines that hold `resource`; false where it is not in the store.
    fn describe(&self, resource: &Resource, lines: &mut String) -> Result<bool, Error> {
        // Writing to a string cannot fail.
        match resource {
            Resource::Snapshot(id) => {
                let present = *id == SnapshotId::SCRATCH || self.snapshot(*id)?.is_some();
                if present {
                    let _ = writeln!(lines, "snapshot {id}");
                }
                Ok(present)
            }
            Resource::Blob(digest) => {
                let present = self.blob_size(digest)?.is_some();
                if present {
                    let _ = writeln!(lines, "blob {digest}");
                }
                Ok(present)
            }
            Resource::Image(id) => {
                let Some(image) = self.image(id)? else { return Ok(false) };
                let _ = writeln!(lines, "image {id}\nblob {}", id.digest());
                if let Some(manifest) = &image.manifest {
                    let _ = writeln!(lines, "blob {manifest}");
                }
                let chain = match ChainId::chain(&image.diff_ids).last() {
                    Some(chain) => self.chain(chain)?.unwrap_or_default(),
                    None => Vec::new(),
                };
                for snapshot in image.snapshots.iter().chain(&chain) {
                    let _ = writeln!(lines, "snapshot {snapshot}");
                }
                Ok(true)
            }
        }
    }

    /// Reads the living leases and removes the dead ones. The caller holds the store's lock exclusively.
    pub(crate) fn leased(&self) -> Result<Leased, Error> {
        let mut leased = Leased::default();
        let dir = self.layout().leases();
        for entry in fs::read_dir(&dir).map_err(Error::io("list", &dir))? {
            let path = entry.map_err(Error::io("list", &dir))?.path();
            let mut file = match File::open(&path) {
                Ok(file) => file,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                Err(error) => return Err(Error::io("open", &path)(error)),
            };
            if lock(&file, &path, Kind::Exclusive, Wait::No)? {
                let _ = fs::remove_file(&path);
                continue;
            }
            let mut text = String::new();
            file.read_to_string(&mut text).map_err(Error::io("read", &path))?;
            leased.read(&text, &path)?;
        }
        Ok(leased)
    }
}

impl Leased {
    /// Reads the lines of one lease; the last one may be cut short by a full disk. Any other line that is not understood is an error: pruning past it could free what it holds.
    fn read(&mut self, text: &str, path: &Path) -> Result<(), Error> {
        for line in text.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n')) {
            let (kind, value) = line.split_once(' ').unwrap_or((line, ""));
            let understood = match kind {
                "snapshot" => value.parse().map(|id| self.snapshots.insert(id)).is_ok(),
                "blob" => value.parse().map(|digest| self.blobs.insert(digest)).is_ok(),
                "image" => value.parse().map(|id| self.images.insert(id)).is_ok(),
                _ => false,
            };
            if !understood {
                let error = std::io::Error::new(std::io::ErrorKind::InvalidData, format!("`{line}` is not a line of a lease"));
                return Err(Error::io("understand", path)(error));
            }
        }
        Ok(())
    }
}
