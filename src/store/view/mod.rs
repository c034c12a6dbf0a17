//! A stack of layers as one tree, without mounting anything: what overlayfs would show, worked out in user space.
//!
//! COPY, checksums and user lookups read images and stages through this, so a build needs no mount (and no privilege to make one) until a command runs. The
//! rules are the kernel's, quirks included: a whiteout or a file ends the search for directories below it, an opaque directory hides what is below it, the
//! topmost layer gives a merged directory its metadata, and an opaque mark on a layer's root means nothing. Redirects and metadata-only files are not
//! followed: snapshots are mounted with both features off. Layers are hostile: each name is opened from its parent's descriptor and no link is followed.

mod cache;
mod catalogue;
mod directory;
#[cfg(test)]
pub(crate) mod fixture;
mod listed;
mod marks;
mod stack;
#[cfg(test)]
mod tests;

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;

use rustix::fs::{FileType, Mode, OFlags};

use crate::path::RootPath;
use crate::sys::descriptor_path;
use crate::sys::tree::{DirEntry, Kind, Metadata, Tree};
use cache::DirectoryCache;
pub(crate) use catalogue::Listed;
use directory::LayerDir;
pub use directory::MergedDir;
use listed::ListedDir;
pub(crate) use marks::FuseMark;
pub use marks::{Marks, is_whiteout, is_whiteout_metadata, is_whiteout_stat, pipe_time};
pub(crate) use stack::GrowingStack;
pub use stack::LayerStack;

/// A read-only view of a stack of layer directories in overlay form. The layers must not change while it exists.
#[derive(Debug)]
pub struct MergedView {
    layers: LayerStack,
    marks: Marks,
    root: Arc<MergedDir>,
    cache: DirectoryCache,
    changing: bool,
}

impl MergedView {
    /// Opens a stack of layers. No layers at all make an empty root directory.
    pub fn new(layers: impl Into<LayerStack>, marks: Marks) -> io::Result<MergedView> {
        let layers = layers.into();
        let unlisted = layers.unlisted();
        let mut parts = Vec::with_capacity(unlisted.len());
        for index in &unlisted {
            let Some(layer) = layers.layer(*index) else { continue };
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let fd = rustix::fs::open(&layer, flags, Mode::empty())
                .map_err(|errno| io::Error::new(errno.kind(), format!("layer {}: {errno}", layer.display())))?;
            parts.push((*index, fd));
        }
        let root = MergedDir::new(parts, ListedDir::root(&layers, &unlisted));
        Ok(MergedView { layers, marks, root: Arc::new(root), cache: DirectoryCache::default(), changing: false })
    }

    /// The same where others may do with the topmost layer what they like while it is read, as processes of a container do.
    #[must_use]
    pub fn while_it_changes(self) -> MergedView {
        MergedView { changing: true, ..self }
    }

    /// A view of nothing, one empty root directory, to write a layer above that is mounted like these.
    pub fn without_layers(&self) -> MergedView {
        let root = Arc::new(MergedDir::new(Vec::new(), None));
        MergedView { layers: Vec::new().into(), marks: self.marks, root, cache: DirectoryCache::default(), changing: false }
    }

    /// The layers.
    pub fn layers(&self) -> &LayerStack {
        &self.layers
    }

    /// The marks of these layers.
    pub fn marks(&self) -> Marks {
        self.marks
    }

    /// The root directory.
    pub fn root(&self) -> Arc<MergedDir> {
        Arc::clone(&self.root)
    }

    /// The directory at `path`; `None` where none is (a link to one is none).
    pub fn directory(&self, path: &RootPath) -> io::Result<Option<Arc<MergedDir>>> {
        if path.is_root() {
            return Ok(Some(self.root()));
        }
        if let Some(found) = self.cache.get(path) {
            return Ok(Some(found));
        }
        // The nearest ancestor that is known, then down again: no recursion, for the depth is the layer's choice.
        let mut missing = vec![path.clone()];
        let mut directory = loop {
            let Some(parent) = missing.last().and_then(RootPath::parent).filter(|parent| !parent.is_root()) else { break self.root() };
            match self.cache.get(&parent) {
                Some(found) => break found,
                None => missing.push(parent),
            }
        };
        while let Some(step) = missing.pop() {
            let Some(name) = step.file_name() else { continue };
            match self.subdirectory(&directory, name)? {
                Some(found) => {
                    self.cache.put(step.clone(), Arc::clone(&found));
                    directory = found;
                }
                None => return Ok(None),
            }
        }
        Ok(Some(directory))
    }

    /// The directory `name` in `parent`, which must be a directory of this view. Does not touch the cache of paths: for walks that hold the parent anyway.
    pub fn subdirectory(&self, parent: &MergedDir, name: &OsStr) -> io::Result<Option<Arc<MergedDir>>> {
        Ok(parent.merge_child(name, self.marks)?.map(Arc::new))
    }

    /// The layer that gives the entry at `path` its metadata and content: its index from the top, and the entry's path on the host. That path is for reports and
    /// for making links of files that were looked at already: it is not safe to open where something may change the layer.
    pub fn layer_of(&self, path: &RootPath) -> io::Result<Option<(usize, PathBuf)>> {
        let index = match path.file_name() {
            None => self.root.topmost()?.map(|(index, _)| index),
            Some(name) => match self.parent(path)? {
                Some(parent) => parent.find(name)?.map(|found| found.layer),
                None => None,
            },
        };
        Ok(index.and_then(|index| self.layers.layer(index).map(|layer| (index, layer.join(path.relative())))))
    }

    /// A descriptor (`O_PATH`) of the entry at `path` in the layer that it comes from; of a link itself, not of where it leads.
    pub fn open_entry(&self, path: &RootPath) -> io::Result<Option<OwnedFd>> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let Some(name) = path.file_name() else {
            let Some((_, fd)) = self.root.topmost()? else { return Ok(None) };
            return Ok(Some(rustix::fs::openat(fd, ".", flags, Mode::empty())?));
        };
        let Some(parent) = self.parent(path)? else { return Ok(None) };
        let Some(found) = parent.find(name)? else { return Ok(None) };
        Ok(Some(rustix::fs::openat(found.directory, name, flags, Mode::empty())?))
    }

    /// Opens what was a regular file when it was looked at.
    fn open_file(&self, directory: impl AsFd, name: &OsStr) -> io::Result<File> {
        let flags = OFlags::RDONLY | OFlags::NOCTTY | OFlags::CLOEXEC;
        if !self.changing {
            return Ok(rustix::fs::openat(directory, name, flags | OFlags::NOFOLLOW | OFlags::NONBLOCK, Mode::empty())?.into());
        }
        // A container that runs may have put a device in its place since: the name is opened as a place, and that is asked what it is, and then opened.
        let place = rustix::fs::openat(directory, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
        if FileType::from_raw_mode(rustix::fs::fstat(&place)?.st_mode) != FileType::RegularFile {
            return Err(rustix::io::Errno::INVAL.into());
        }
        Ok(rustix::fs::open(descriptor_path(&place), flags, Mode::empty())?.into())
    }

    fn parent(&self, path: &RootPath) -> io::Result<Option<Arc<MergedDir>>> {
        match path.parent() {
            Some(parent) => self.directory(&parent),
            None => Ok(None),
        }
    }

    fn existing_parent(&self, path: &RootPath) -> io::Result<Arc<MergedDir>> {
        self.parent(path)?.ok_or_else(|| rustix::io::Errno::NOENT.into())
    }
}

impl Tree for MergedView {
    fn metadata(&self, path: &RootPath) -> io::Result<Option<Metadata>> {
        let Some(name) = path.file_name() else { return self.root.metadata().map(Some) };
        match self.parent(path)? {
            Some(parent) => Ok(parent.find(name)?.map(|found| found.metadata)),
            None => Ok(None),
        }
    }

    fn read_dir(&self, path: &RootPath) -> io::Result<Vec<DirEntry>> {
        match self.directory(path)? {
            Some(directory) => directory.read(),
            None if self.metadata(path)?.is_some() => Err(rustix::io::Errno::NOTDIR.into()),
            None => Err(rustix::io::Errno::NOENT.into()),
        }
    }

    fn read_link(&self, path: &RootPath) -> io::Result<OsString> {
        match path.file_name() {
            Some(name) => self.existing_parent(path)?.read_link(name),
            None => Err(rustix::io::Errno::INVAL.into()),
        }
    }

    fn open(&self, path: &RootPath) -> io::Result<File> {
        let Some(name) = path.file_name() else { return Err(rustix::io::Errno::ISDIR.into()) };
        let parent = self.existing_parent(path)?;
        let found = parent.find(name)?.ok_or(rustix::io::Errno::NOENT)?;
        // Opening a device that a layer brings could do anything, so it is looked at first.
        if found.metadata.kind != Kind::File {
            return Err(rustix::io::Errno::INVAL.into());
        }
        self.open_file(found.directory, name)
    }

    fn open_with_xattrs(&self, path: &RootPath) -> io::Result<(File, crate::sys::inode::Xattrs)> {
        let file = self.open(path)?;
        let attributes = crate::sys::inode::xattrs_of(&file)?;
        Ok((file, attributes))
    }

    fn xattrs(&self, path: &RootPath) -> io::Result<Vec<(OsString, Vec<u8>)>> {
        let Some(name) = path.file_name() else { return self.root.xattrs() };
        let parent = self.existing_parent(path)?;
        // With one layer there is nothing to look for; every file that is copied comes by here.
        let directory = match parent.only() {
            Some(directory) => LayerDir::Kept(directory),
            None => parent.find(name)?.ok_or(rustix::io::Errno::NOENT)?.directory,
        };
        crate::sys::inode::xattrs_at(directory.as_fd(), name)
    }
}
