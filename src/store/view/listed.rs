//! What the listed layers of a stack have in one directory. Their directories are opened only where something is found in them.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::{Mode, OFlags};

use super::catalogue::Listed;
use super::stack::LayerStack;
use crate::path::RootPath;
use crate::sys::{Links, RootDir};

/// A directory, as far as listed layers have it. Layers are counted from the top.
#[derive(Debug)]
pub(super) struct ListedDir {
    stack: LayerStack,
    path: RootPath,
    /// The topmost listed layer that has it.
    first: usize,
    /// What is below this layer does not show here.
    lowest: usize,
    /// The layer's directory that was used last: who asks once asks again.
    opened: Mutex<Option<(usize, Arc<OwnedFd>)>>,
}

impl ListedDir {
    /// The root directory; `None` where all layers must be asked.
    pub(super) fn root(stack: &LayerStack, unlisted: &[usize]) -> Option<ListedDir> {
        let first = (0..stack.len()).find(|index| unlisted.get(*index) != Some(index))?;
        Some(ListedDir::new(stack.clone(), RootPath::root(), first, stack.len()))
    }

    fn new(stack: LayerStack, path: RootPath, first: usize, lowest: usize) -> ListedDir {
        ListedDir { stack, path, first, lowest, opened: Mutex::default() }
    }

    pub(super) fn child(&self, name: &OsStr, first: usize, lowest: usize) -> ListedDir {
        ListedDir::new(self.stack.clone(), self.path.join(name), first, lowest)
    }

    pub(super) fn first(&self) -> usize {
        self.first
    }

    pub(super) fn lowest(&self) -> usize {
        self.lowest
    }

    /// The topmost layer that has `name` here.
    pub(super) fn topmost(&self, name: &OsStr) -> Option<(usize, Listed)> {
        self.stack.topmost(&self.path, name, self.lowest)
    }

    /// All layers that have it, topmost first.
    pub(super) fn all(&self, name: &OsStr) -> Vec<(usize, Listed)> {
        self.stack.listed(&self.path, name, self.lowest)
    }

    /// The names here, each with the topmost layer that has it.
    pub(super) fn names(&self) -> Vec<(OsString, (usize, Listed))> {
        self.stack.names(&self.path, self.lowest)
    }

    /// The directory in `layer`.
    pub(super) fn open(&self, layer: usize) -> io::Result<Arc<OwnedFd>> {
        let mut opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((at, fd)) = opened.as_ref()
            && *at == layer
        {
            return Ok(Arc::clone(fd));
        }
        let root = RootDir::open(&self.stack.layer(layer).ok_or(rustix::io::Errno::NOENT)?)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW;
        let fd = Arc::new(root.open_at(self.path.relative(), flags, Mode::empty(), Links::Refuse)?);
        *opened = Some((layer, Arc::clone(&fd)));
        Ok(fd)
    }
}
