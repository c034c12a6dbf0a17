//! What the layers of a deep stack hold, by path, so that not each of them need be asked for a name.
//!
//! A name is asked of every layer above the one that has it, and of all where none has it: in a stack of a thousand layers that is most of what a build of
//! a thousand steps would do. So each layer of a deep stack is walked once, when it comes to the stack. A stack that stands on another shares its
//! catalogue, which only grows: each looks at the layers below its own height. Layers with very many entries are not listed, but asked as ever.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};

use super::Marks;
use super::directory::for_each_entry;
use crate::path::RootPath;
use crate::sys::tree::Kind;
use crate::sys::{Links, RootDir};

/// A layer with more entries is not listed.
const MAX_ENTRIES_OF_LAYER: usize = 4096;

/// With more entries in all, no further layer is listed: one takes some hundred bytes of memory.
const MAX_ENTRIES: usize = 200_000;

/// What a layer has under a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Listed {
    /// The mark of a deletion.
    Whiteout,
    /// A directory that hides those below it.
    Opaque,
    /// An entry; a directory merges with those below it.
    Entry(Kind),
}

/// The layers of a stack, and the entries of those that are listed. Layers are counted from the bottom, so that the numbers stay when the stack grows.
#[derive(Clone, Debug, Default)]
pub(super) struct Catalogue {
    layers: Vec<PathBuf>,
    /// Those that are not listed.
    unlisted: Vec<usize>,
    /// By directory and name the layers that have an entry there, lowest first.
    directories: HashMap<RootPath, HashMap<OsString, Vec<(usize, Listed)>>>,
    entries: usize,
}

impl Catalogue {
    pub(super) fn height(&self) -> usize {
        self.layers.len()
    }

    pub(super) fn layer(&self, at: usize) -> Option<&PathBuf> {
        self.layers.get(at)
    }

    /// The layers below `height` that are not listed, lowest first.
    pub(super) fn unlisted(&self, height: usize) -> &[usize] {
        &self.unlisted[..self.unlisted.partition_point(|at| *at < height)]
    }

    /// Which layers below `height` have `name` in `directory`, lowest first.
    pub(super) fn entries(&self, directory: &RootPath, name: &OsStr, height: usize) -> &[(usize, Listed)] {
        let all = self.directories.get(directory).and_then(|names| names.get(name)).map_or(&[][..], Vec::as_slice);
        below(all, height)
    }

    /// Calls `visit` with each name in `directory` and the layers below `height` that have it, lowest first.
    pub(super) fn for_each_name(&self, directory: &RootPath, height: usize, mut visit: impl FnMut(&OsStr, &[(usize, Listed)])) {
        for (name, layers) in self.directories.get(directory).into_iter().flatten() {
            visit(name, below(layers, height));
        }
    }

    /// Puts a layer on top. `marks` are those of the layer.
    pub(super) fn push(&mut self, layer: PathBuf, marks: Marks) -> io::Result<()> {
        self.push_within(MAX_ENTRIES.saturating_sub(self.entries).min(MAX_ENTRIES_OF_LAYER), layer, marks)
    }

    /// The same; the layer is listed if it has at most `room` entries.
    pub(super) fn push_within(&mut self, room: usize, layer: PathBuf, marks: Marks) -> io::Result<()> {
        let at = self.layers.len();
        match list(&layer, marks, room)? {
            Some(entries) => {
                self.entries += entries.len();
                for (directory, name, what) in entries {
                    self.directories.entry(directory).or_default().entry(name).or_default().push((at, what));
                }
            }
            None => self.unlisted.push(at),
        }
        self.layers.push(layer);
        Ok(())
    }

    /// The same without the layers from `height` on.
    pub(super) fn up_to(&self, height: usize) -> Catalogue {
        let mut directories = HashMap::new();
        let mut entries = 0;
        for (directory, names) in &self.directories {
            let kept = names.iter().map(|(name, layers)| (name.clone(), below(layers, height).to_vec()));
            let kept: HashMap<_, _> = kept.filter(|(_, layers)| !layers.is_empty()).collect();
            entries += kept.values().map(Vec::len).sum::<usize>();
            if !kept.is_empty() {
                directories.insert(directory.clone(), kept);
            }
        }
        Catalogue { layers: self.layers[..height].to_vec(), unlisted: self.unlisted(height).to_vec(), directories, entries }
    }
}

fn below(layers: &[(usize, Listed)], height: usize) -> &[(usize, Listed)] {
    &layers[..layers.partition_point(|(at, _)| *at < height)]
}

/// Directory, name, and what is there.
type Entry = (RootPath, OsString, Listed);

/// The entries of a layer, if there are at most `room`.
fn list(layer: &Path, marks: Marks, room: usize) -> io::Result<Option<Vec<Entry>>> {
    let root = RootDir::open(layer).map_err(|error| io::Error::new(error.kind(), format!("layer {}: {error}", layer.display())))?;
    let mut entries: Vec<Entry> = Vec::new();
    // Directories, and where their own entries are.
    let mut todo: Vec<(RootPath, Option<usize>)> = vec![(RootPath::root(), None)];
    while let Some((directory, own)) = todo.pop() {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW;
        let fd = root.open_at(directory.relative(), flags, Mode::empty(), Links::Refuse)?;
        // On the root the mark means nothing.
        if let Some(own) = own
            && marks.is_opaque(&fd)?
        {
            entries[own].2 = Listed::Opaque;
        }
        let mut full = false;
        for_each_entry(&fd, |name, kind| {
            full |= entries.len() >= room;
            if full {
                return;
            }
            let name = OsStr::from_bytes(name);
            if kind == Some(Kind::Directory) {
                todo.push((directory.join(name), Some(entries.len())));
            }
            entries.push((directory.clone(), name.to_owned(), kind.map_or(Listed::Whiteout, Listed::Entry)));
        })?;
        if full {
            return Ok(None);
        }
    }
    Ok(Some(entries))
}
