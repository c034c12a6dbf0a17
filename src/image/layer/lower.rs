//! The committed layers below a layer, seen as one tree: which of them shows through at a path.
//!
//! Nobody changes a committed layer, so a path that was found to be a directory stays one, and relative paths can be handed to the kernel whole.

use std::ffi::{OsStr, OsString};
use std::os::fd::AsFd;
use std::path::PathBuf;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use crate::path::RootPath;
use crate::sys::{Links, RootDir, xattr};

use super::{Error, is_opaque};

/// Layers, topmost first.
pub(super) struct LowerLayers {
    layers: Vec<RootDir>,
    userxattr: bool,
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
    pub(super) fn open(paths: &[PathBuf], userxattr: bool) -> Result<LowerLayers, Error> {
        let open = |path: &PathBuf| {
            let fail = |source| Error::Entry { action: "open", path: RootPath::root(), root: path.clone(), source };
            RootDir::open(path).map_err(fail)
        };
        Ok(LowerLayers { layers: paths.iter().map(open).collect::<Result<_, _>>()?, userxattr })
    }

    /// The indexes of all layers, which is where the root directory is merged from.
    pub(super) fn all(&self) -> Vec<usize> {
        (0..self.layers.len()).collect()
    }

    pub(super) fn root(&self, layer: usize) -> &RootDir {
        &self.layers[layer]
    }

    /// What the layers show at any path.
    pub(super) fn find(&self, path: &RootPath) -> Result<Option<Found>, Error> {
        for layer in 0..self.layers.len() {
            match self.ask(layer, path)? {
                Answer::Found(stat) => return Ok(Some(Found { layer, stat })),
                Answer::Nothing => {}
                Answer::Hidden => return Ok(None),
            }
        }
        Ok(None)
    }

    /// What the layers `merged`, in all of which the parent of `path` is a directory that shows through, show at `path`; and if it is a directory, which
    /// layers it is merged from.
    pub(super) fn find_in(&self, merged: &[usize], path: &RootPath) -> Result<Option<(Found, Vec<usize>)>, Error> {
        let mut found: Option<(Found, Vec<usize>)> = None;
        for &layer in merged {
            let stat = match rustix::fs::statat(&self.layers[layer], path.relative(), AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => stat,
                Err(Errno::NOENT) => continue,
                Err(errno) => return Err(self.fail(layer, path, errno)),
            };
            if is_whiteout(&stat) {
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

    /// The names of all attributes of `path` in one layer.
    pub(super) fn xattr_names(&self, layer: usize, path: &RootPath) -> Result<Vec<OsString>, Error> {
        xattr::list(self.layers[layer].as_fd(), path.relative()).map_err(|source| self.fail(layer, path, source))
    }

    /// An attribute of `path` in one layer.
    pub(super) fn xattr(&self, layer: usize, path: &RootPath, name: &OsStr) -> Result<Option<Vec<u8>>, Error> {
        xattr::get(self.layers[layer].as_fd(), path.relative(), name).map_err(|source| self.fail(layer, path, source))
    }

    fn ask(&self, layer: usize, path: &RootPath) -> Result<Answer, Error> {
        let root = &self.layers[layer];
        let stat = root
            .open_at(path.relative(), OFlags::PATH | OFlags::NOFOLLOW, Mode::empty(), Links::Refuse)
            .and_then(|fd| Ok(rustix::fs::fstat(fd)?));
        let missing = match stat {
            Ok(stat) if is_whiteout(&stat) => return Ok(Answer::Hidden),
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
            let exists = self.layers[layer].open_at(path.relative(), OFlags::PATH, Mode::empty(), Links::Refuse).is_ok();
            if exists && self.opaque(layer, &path)? {
                return Ok(true);
            }
            above = path.parent();
        }
        Ok(false)
    }

    fn opaque(&self, layer: usize, path: &RootPath) -> Result<bool, Error> {
        is_opaque(&self.layers[layer], path.relative(), self.userxattr).map_err(|source| self.fail(layer, path, source))
    }

    pub(super) fn fail(&self, layer: usize, path: &RootPath, source: impl Into<std::io::Error>) -> Error {
        Error::Entry { action: "read", path: path.clone(), root: self.layers[layer].path().to_owned(), source: source.into() }
    }
}

/// Whether this is overlayfs' mark of a deletion.
pub(super) fn is_whiteout(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0
}
