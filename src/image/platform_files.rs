//! The files of a result for one platform or several as one tree: each in a directory of its platform (`platform-split`), or all of them in one.

use std::ffi::OsString;
use std::fs::File;
use std::io;

use crate::path::RootPath;
use crate::sys::inode::Xattrs;
use crate::sys::tree::{DirEntry, Kind, Metadata, Tree};

use super::Error;

/// The files for one platform.
pub struct PlatformFiles<'a> {
    /// The platform, as messages call it.
    pub platform: String,
    /// The files.
    pub tree: &'a dyn Tree,
}

/// How the files for several platforms lie beside each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FilesLayout {
    /// Each platform's in a directory that is named after it.
    Split,
    /// All together: no two platforms may have a file of the same path.
    Merged,
}

impl PlatformFiles<'_> {
    /// The directory of the platform: `linux_arm64`.
    fn directory(&self) -> OsString {
        self.platform.replace('/', "_").into()
    }
}

/// Hands the files, laid out, to `write` as one tree.
///
/// # Errors
/// Those of `write`; two platforms have the same file.
pub(super) fn with_layout<T>(
    files: &[PlatformFiles<'_>],
    layout: FilesLayout,
    write: impl FnOnce(&dyn Tree) -> Result<T, Error>,
) -> Result<T, Error> {
    match (files, layout) {
        ([only], FilesLayout::Merged) => write(only.tree),
        (files, FilesLayout::Split) => {
            let mut directories: Vec<_> = files.iter().map(|files| (files.directory(), files.tree)).collect();
            directories.sort_by(|one, other| one.0.cmp(&other.0));
            write(&Directories { directories })
        }
        (files, FilesLayout::Merged) => {
            let merged = Merged { trees: files.iter().map(|files| files.tree).collect() };
            let failed = |source| Error::Io { action: "read", path: "the result".into(), source };
            match merged.conflict().map_err(failed)? {
                None => write(&merged),
                Some((path, one, other)) => {
                    let (one, other) = (files[one].platform.clone(), files[other].platform.clone());
                    Err(Error::Overlap { path, one, other })
                }
            }
        }
    }
}

/// Metadata of the tree at `position`. Trees share layers, and so files with several names; one platform's file is to be no link to another's.
fn apart(metadata: Metadata, position: usize) -> Metadata {
    Metadata { dev: metadata.dev ^ ((position as u64 + 1) << 48), ..metadata }
}

/// Trees, each in a directory with a single name; sorted by name.
struct Directories<'a> {
    directories: Vec<(OsString, &'a dyn Tree)>,
}

impl Directories<'_> {
    /// The tree that a path leads into, and the path in it; `None` for what is outside of all.
    fn inner(&self, path: &RootPath) -> Option<(usize, RootPath)> {
        self.directories.iter().enumerate().find_map(|(position, (name, _))| {
            let rest = path.relative().strip_prefix(name).ok()?;
            Some((position, if rest.as_os_str().is_empty() { RootPath::root() } else { RootPath::new(rest) }))
        })
    }

    fn existing(&self, path: &RootPath) -> io::Result<(&dyn Tree, RootPath)> {
        let (position, inner) = self.inner(path).ok_or(io::ErrorKind::NotFound)?;
        Ok((self.directories[position].1, inner))
    }
}

impl Tree for Directories<'_> {
    fn metadata(&self, path: &RootPath) -> io::Result<Option<Metadata>> {
        match self.inner(path) {
            Some((position, inner)) if !inner.is_root() => {
                Ok(self.directories[position].1.metadata(&inner)?.map(|metadata| apart(metadata, position)))
            }
            Some(_) => Ok(Some(Metadata::IMPLIED_DIRECTORY)),
            None => Ok(path.is_root().then_some(Metadata::IMPLIED_DIRECTORY)),
        }
    }

    fn read_dir(&self, path: &RootPath) -> io::Result<Vec<DirEntry>> {
        if path.is_root() {
            return Ok(self.directories.iter().map(|(name, _)| DirEntry { name: name.clone(), kind: Kind::Directory }).collect());
        }
        let (tree, inner) = self.existing(path)?;
        tree.read_dir(&inner)
    }

    fn read_link(&self, path: &RootPath) -> io::Result<OsString> {
        let (tree, inner) = self.existing(path)?;
        tree.read_link(&inner)
    }

    fn open(&self, path: &RootPath) -> io::Result<File> {
        let (tree, inner) = self.existing(path)?;
        tree.open(&inner)
    }

    fn xattrs(&self, path: &RootPath) -> io::Result<Vec<(OsString, Vec<u8>)>> {
        match self.existing(path) {
            Ok((tree, inner)) if !inner.is_root() => tree.xattrs(&inner),
            _ => Ok(Vec::new()),
        }
    }

    fn open_with_xattrs(&self, path: &RootPath) -> io::Result<(File, Xattrs)> {
        let (tree, inner) = self.existing(path)?;
        tree.open_with_xattrs(&inner)
    }
}

/// Trees one over the other, which have nothing but directories in common. A directory of several is like that of the first.
struct Merged<'a> {
    trees: Vec<&'a dyn Tree>,
}

impl Merged<'_> {
    /// Something that two of the trees have, and that is not a directory in both.
    fn conflict(&self) -> io::Result<Option<(RootPath, usize, usize)>> {
        let mut pending = vec![RootPath::root()];
        while let Some(dir) = pending.pop() {
            let mut found: Vec<(OsString, Kind, usize)> = Vec::new();
            for (position, tree) in self.trees.iter().enumerate().filter(|(_, tree)| is_directory(**tree, &dir)) {
                found.extend(tree.read_dir(&dir)?.into_iter().map(|entry| (entry.name, entry.kind, position)));
            }
            found.sort_by(|one, other| (&one.0, one.2).cmp(&(&other.0, other.2)));
            for pair in found.windows(2).filter(|pair| pair[0].0 == pair[1].0) {
                let path = dir.join(&pair[0].0);
                if (pair[0].1, pair[1].1) != (Kind::Directory, Kind::Directory) {
                    return Ok(Some((path, pair[0].2, pair[1].2)));
                }
                if pending.last() != Some(&path) {
                    pending.push(path);
                }
            }
        }
        Ok(None)
    }

    /// The first tree that has something there.
    fn first(&self, path: &RootPath) -> io::Result<&dyn Tree> {
        let has = |tree: &&&dyn Tree| tree.metadata(path).is_ok_and(|metadata| metadata.is_some());
        Ok(*self.trees.iter().find(has).ok_or(io::ErrorKind::NotFound)?)
    }
}

fn is_directory(tree: &dyn Tree, path: &RootPath) -> bool {
    path.is_root() || tree.metadata(path).is_ok_and(|metadata| metadata.is_some_and(|metadata| metadata.kind == Kind::Directory))
}

impl Tree for Merged<'_> {
    fn metadata(&self, path: &RootPath) -> io::Result<Option<Metadata>> {
        for (position, tree) in self.trees.iter().enumerate() {
            if let Some(metadata) = tree.metadata(path)? {
                return Ok(Some(apart(metadata, position)));
            }
        }
        Ok(None)
    }

    fn read_dir(&self, path: &RootPath) -> io::Result<Vec<DirEntry>> {
        let mut entries = Vec::new();
        for tree in self.trees.iter().filter(|tree| is_directory(**tree, path)) {
            entries.extend(tree.read_dir(path)?);
        }
        entries.sort_by(|one, other| one.name.cmp(&other.name));
        entries.dedup_by(|one, other| one.name == other.name);
        Ok(entries)
    }

    fn read_link(&self, path: &RootPath) -> io::Result<OsString> {
        self.first(path)?.read_link(path)
    }

    fn open(&self, path: &RootPath) -> io::Result<File> {
        self.first(path)?.open(path)
    }

    fn xattrs(&self, path: &RootPath) -> io::Result<Vec<(OsString, Vec<u8>)>> {
        self.first(path)?.xattrs(path)
    }

    fn open_with_xattrs(&self, path: &RootPath) -> io::Result<(File, Xattrs)> {
        self.first(path)?.open_with_xattrs(path)
    }
}
