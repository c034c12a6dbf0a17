//! The committed layers below a layer, seen as one tree: which of them shows through at a path.
//!
//! Nobody changes a committed layer, so a path that was found to be a directory stays one, and relative paths can be handed to the kernel whole.

use std::cell::OnceCell;
use std::ffi::{OsStr, OsString};
use std::os::fd::AsFd;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use crate::path::RootPath;
use crate::store::view::{LayerStack, Listed, Marks, is_whiteout_stat};
use crate::sys::tree::Kind;
use crate::sys::{Links, RootDir, xattr};

use super::Error;

/// Layers, topmost first. One is opened when it is first asked.
pub(super) struct LowerLayers {
    stack: LayerStack,
    opened: Vec<OnceCell<RootDir>>,
    /// Those that have to be asked what they have.
    unlisted: Vec<usize>,
    marks: Marks,
}

/// What shows through at a path.
pub(super) struct Found {
    /// The layer that it is in.
    pub(super) layer: usize,
    pub(super) stat: Stat,
}

/// What one layer says of a path.
enum Answer {
    Found(Stat),
    /// Nothing; the layers below may.
    Nothing,
    /// Nothing, and it hides the layers below.
    Hidden,
}

impl LowerLayers {
    pub(super) fn new(stack: &LayerStack, marks: Marks) -> LowerLayers {
        let opened = (0..stack.len()).map(|_| OnceCell::new()).collect();
        LowerLayers { stack: stack.clone(), opened, unlisted: stack.unlisted(), marks }
    }

    /// The indexes of all layers, which is where the root directory is merged from.
    pub(super) fn all(&self) -> Vec<usize> {
        (0..self.opened.len()).collect()
    }

    pub(super) fn root(&self, layer: usize) -> Result<&RootDir, Error> {
        if let Some(root) = self.opened[layer].get() {
            return Ok(root);
        }
        let path = self.stack.layer(layer).unwrap_or_default();
        let root = RootDir::open(&path).map_err(|source| Error::Entry { action: "open", path: RootPath::root(), root: path, source })?;
        Ok(self.opened[layer].get_or_init(|| root))
    }

    /// What the layers show at any path.
    pub(super) fn find(&self, path: &RootPath) -> Result<Option<Found>, Error> {
        let lowest = self.lowest_listed(path);
        let listed = self.listed(path).first().copied().filter(|(at, _)| *at <= lowest);
        let last = listed.map_or(lowest, |(at, _)| at);
        // Every layer has a root.
        let all = if path.is_root() { self.all() } else { Vec::new() };
        for &layer in if path.is_root() { &all } else { &self.unlisted }.iter().take_while(|layer| **layer <= last) {
            match self.ask(layer, path)? {
                Answer::Found(stat) => return Ok(Some(Found { layer, stat })),
                Answer::Nothing => {}
                Answer::Hidden => return Ok(None),
            }
        }
        match listed {
            Some((layer, what)) if what != Listed::Whiteout => match self.ask(layer, path)? {
                Answer::Found(stat) => Ok(Some(Found { layer, stat })),
                Answer::Nothing | Answer::Hidden => Ok(None),
            },
            _ => Ok(None),
        }
    }

    /// The topmost of the listed layers that hides what the layers below it have in the directory of `path`.
    fn lowest_listed(&self, path: &RootPath) -> usize {
        let mut lowest = self.opened.len();
        let mut above = path.parent();
        while let Some(directory) = above.filter(|directory| !directory.is_root()) {
            let hides = self.listed(&directory).into_iter().find(|(_, what)| *what != Listed::Entry(Kind::Directory));
            lowest = hides.map_or(lowest, |(at, _)| lowest.min(at));
            above = directory.parent();
        }
        lowest
    }

    /// What the layers `merged`, in all of which the parent of `path` is a directory that shows through, show at `path`; and if it is a directory, which
    /// layers it is merged from.
    pub(super) fn find_in(&self, merged: &[usize], path: &RootPath) -> Result<Option<(Found, Vec<usize>)>, Error> {
        let mut found: Option<(Found, Vec<usize>)> = None;
        let mut listed = self.listed(path).into_iter().peekable();
        for &layer in merged {
            while listed.next_if(|(at, _)| *at < layer).is_some() {}
            let known = match listed.next_if(|(at, _)| *at == layer) {
                Some((_, what)) => Some(what),
                None if self.is_listed(layer) => continue,
                None => None,
            };
            if let Some((_, merged)) = &mut found
                && let Some(what) = known
            {
                if matches!(what, Listed::Opaque | Listed::Entry(Kind::Directory)) {
                    merged.push(layer);
                }
                if what != Listed::Entry(Kind::Directory) {
                    break;
                }
                continue;
            }
            let stat = match rustix::fs::statat(self.root(layer)?, path.relative(), AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => stat,
                Err(Errno::NOENT) => continue,
                Err(errno) => return Err(self.fail(layer, path, errno)),
            };
            if is_whiteout_stat(&stat) {
                break;
            }
            let directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
            match &mut found {
                None if !directory => return Ok(Some((Found { layer, stat }, Vec::new()))),
                None => found = Some((Found { layer, stat }, vec![layer])),
                Some(_) if !directory => break,
                Some((_, merged)) => merged.push(layer),
            }
            if self.opaque(layer, path)? {
                break;
            }
        }
        Ok(found)
    }

    /// Which of the listed layers have `path`, topmost first.
    fn listed(&self, path: &RootPath) -> Vec<(usize, Listed)> {
        match (path.parent(), path.file_name()) {
            (Some(parent), Some(name)) => self.stack.listed(&parent, name, self.opened.len()),
            _ => Vec::new(),
        }
    }

    /// Whether what a layer has is known without asking.
    fn is_listed(&self, layer: usize) -> bool {
        self.unlisted.len() < self.opened.len() && self.unlisted.binary_search(&layer).is_err()
    }

    /// The names of all attributes of `path` in one layer.
    pub(super) fn xattr_names(&self, layer: usize, path: &RootPath) -> Result<Vec<OsString>, Error> {
        xattr::list(self.root(layer)?.as_fd(), path.relative()).map_err(|source| self.fail(layer, path, source))
    }

    /// An attribute of `path` in one layer.
    pub(super) fn xattr(&self, layer: usize, path: &RootPath, name: &OsStr) -> Result<Option<Vec<u8>>, Error> {
        xattr::get(self.root(layer)?.as_fd(), path.relative(), name).map_err(|source| self.fail(layer, path, source))
    }

    fn ask(&self, layer: usize, path: &RootPath) -> Result<Answer, Error> {
        let root = self.root(layer)?;
        let stat = root
            .open_at(path.relative(), OFlags::PATH | OFlags::NOFOLLOW, Mode::empty(), Links::Refuse)
            .and_then(|fd| Ok(rustix::fs::fstat(fd)?));
        let missing = match stat {
            Ok(stat) if is_whiteout_stat(&stat) => return Ok(Answer::Hidden),
            Ok(stat) => return Ok(Answer::Found(stat)),
            Err(error) => error,
        };
        match Errno::from_io_error(&missing) {
            // A name on the way is a link, a file or a whiteout there.
            Some(Errno::NOTDIR | Errno::LOOP) => Ok(Answer::Hidden),
            Some(Errno::NOENT) if self.hides(layer, path)? => Ok(Answer::Hidden),
            Some(Errno::NOENT) => Ok(Answer::Nothing),
            _ => Err(self.fail(layer, path, missing)),
        }
    }

    /// Whether one of the directories above `path` hides the layers below.
    fn hides(&self, layer: usize, path: &RootPath) -> Result<bool, Error> {
        let mut above = path.parent();
        while let Some(path) = above {
            // Those that are missing have no attributes.
            let exists = self.root(layer)?.open_at(path.relative(), OFlags::PATH, Mode::empty(), Links::Refuse).is_ok();
            if exists && self.opaque(layer, &path)? {
                return Ok(true);
            }
            above = path.parent();
        }
        Ok(false)
    }

    fn opaque(&self, layer: usize, path: &RootPath) -> Result<bool, Error> {
        self.marks.is_opaque_at(self.root(layer)?.as_fd(), path.relative()).map_err(|source| self.fail(layer, path, source))
    }

    pub(super) fn fail(&self, layer: usize, path: &RootPath, source: impl Into<std::io::Error>) -> Error {
        Error::Entry { action: "read", path: path.clone(), root: self.stack.layer(layer).unwrap_or_default(), source: source.into() }
    }
}
