//! `context ls`: what a build would get of its context, and which pattern decided about a path.
//!
//! The files are listed through the same [`LocalContext`] that a build reads, so that the list cannot be wrong. Nothing is built, and no store is opened.

use std::ops::ControlFlow;
use std::path::{Component, Path, PathBuf};

use crate::context::{IgnoreRules, LocalContext, Owners};
use crate::path::RootPath;
use crate::sys::tree::{DirEntry, Kind, Tree};

use super::build::find_dockerfile;
use super::{DockerfileSource, Error};

/// The files of a build context.
pub struct ContextFiles {
    context: LocalContext,
    dir: PathBuf,
    dockerfile: Option<PathBuf>,
}

/// One of the files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContextEntry {
    /// Its path in the context, without leading slash; names need not be UTF-8.
    pub path: Vec<u8>,
    /// What it is.
    pub kind: Kind,
    /// Bytes of a file; of a directory, what is sent below it, where that is known; 0 for the others.
    pub size: u64,
}

/// All of the files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ContextTotal {
    /// How many regular files.
    pub files: u64,
    /// How many directories, without the context itself.
    pub directories: u64,
    /// How many links, pipes and devices.
    pub others: u64,
    /// The bytes of the regular files.
    pub bytes: u64,
}

/// Why a path is sent or not.
#[derive(Clone, Debug)]
pub struct Why {
    /// The path in the context, without leading slash.
    pub path: Vec<u8>,
    /// What is there; `None` if nothing is.
    pub kind: Option<Kind>,
    /// Whether it is sent, or would be if it existed.
    pub sent: bool,
    /// What the patterns say, which for a directory is not always what happens: it is sent for the sake of what is below it.
    pub ignored: bool,
    /// The pattern that decided.
    pub decided_by: Option<DecidedBy>,
    /// What the builder reads it as, whether it is sent or not.
    pub read_as: Option<ReadAs>,
}

/// A pattern that decided.
#[derive(Clone, Debug)]
pub struct DecidedBy {
    /// The ignore file.
    pub file: PathBuf,
    /// The line, from 1.
    pub line: usize,
    /// The pattern as written.
    pub pattern: String,
    /// What it matches: the path, or a directory above it.
    pub matched: Vec<u8>,
}

/// What the builder reads without the context.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadAs {
    /// It is the Dockerfile.
    Dockerfile,
    /// It is the ignore file.
    IgnoreFile,
}

impl ContextFiles {
    /// Opens the context `dir` as a build with this Dockerfile would. There need not be any Dockerfile.
    ///
    /// # Errors
    /// The directory or its ignore file cannot be read.
    pub fn open(dir: &Path, dockerfile: &DockerfileSource) -> Result<ContextFiles, Error> {
        if dir == Path::new("-") {
            let hint = "no ignore file applies to an archive: all that `tar -t` lists is sent".to_owned();
            return Err(Error::Usage { message: "a context on standard input cannot be listed".into(), hint: Some(hint) });
        }
        let dockerfile = match dockerfile {
            DockerfileSource::Stdin | DockerfileSource::Url(_) | DockerfileSource::Read(_) => None,
            other => Some(find_dockerfile(dir, other)),
        };
        let context = LocalContext::open(dir, dockerfile.as_deref())?;
        Ok(ContextFiles { context, dir: dir.to_owned(), dockerfile })
    }

    /// The ignore file that applies.
    pub fn ignore_file(&self) -> Option<&Path> {
        self.context.ignore_file()
    }

    /// Shows every file to `visit`: directories before what is in them, names in the order of their bytes. Ends early where that says so.
    ///
    /// # Errors
    /// A directory cannot be read.
    pub fn walk(&self, mut visit: impl FnMut(&ContextEntry) -> ControlFlow<()>) -> Result<ContextTotal, Error> {
        let mut total = ContextTotal::default();
        let root = RootPath::root();
        // Without recursion: a tree may be as deep as somebody cares to make it.
        let mut open = vec![(self.read_dir(&root)?.into_iter(), root)];
        while let Some((entries, directory)) = open.last_mut() {
            let Some(DirEntry { name, kind }) = entries.next() else {
                open.pop();
                continue;
            };
            let path = directory.join(&name);
            let mut entry = ContextEntry { path: path.as_bytes()[1..].to_vec(), kind, size: 0 };
            match kind {
                Kind::File => {
                    let failed = |source| crate::context::Error::Read { path: path.clone(), source };
                    entry.size = self.context.metadata(&path).map_err(failed)?.map_or(0, |metadata| metadata.size);
                    total.files += 1;
                    total.bytes += entry.size;
                }
                Kind::Directory => {
                    total.directories += 1;
                    let below = self.read_dir(&path)?.into_iter();
                    open.push((below, path));
                }
                _ => total.others += 1,
            }
            if visit(&entry).is_break() {
                break;
            }
        }
        Ok(total)
    }

    /// All files, the largest first; the size of a directory is that of everything below it.
    ///
    /// # Errors
    /// A directory cannot be read.
    pub fn by_size(&self) -> Result<(Vec<ContextEntry>, ContextTotal), Error> {
        let mut entries: Vec<ContextEntry> = Vec::new();
        // The directories that the walk is in.
        let mut open: Vec<usize> = Vec::new();
        let total = self.walk(|entry| {
            let inside =
                |directory: &ContextEntry| entry.path.starts_with(&directory.path) && entry.path.get(directory.path.len()) == Some(&b'/');
            while open.last().is_some_and(|index| !inside(&entries[*index])) {
                open.pop();
            }
            open.iter().for_each(|index| entries[*index].size += entry.size);
            if entry.kind == Kind::Directory {
                open.push(entries.len());
            }
            entries.push(entry.clone());
            ControlFlow::Continue(())
        })?;
        // Stable, so that a directory stands before the only file in it.
        entries.sort_by_key(|entry| std::cmp::Reverse(entry.size));
        Ok((entries, total))
    }

    fn read_dir(&self, path: &RootPath) -> Result<Vec<DirEntry>, Error> {
        Ok(self.context.read_dir(path).map_err(|source| crate::context::Error::Read { path: path.clone(), source })?)
    }

    /// Says why `path` is sent or not. It is relative to the context, or absolute below the context's directory; a leading slash alone changes nothing.
    ///
    /// # Errors
    /// The path leads out of the context, or a directory cannot be read.
    pub fn why(&self, path: &Path) -> Result<Why, Error> {
        let path = self.in_context(path)?;
        let failed = |source| crate::context::Error::Read { path: path.clone(), source };
        let bare = LocalContext::with_rules(&self.dir, IgnoreRules::default(), Owners::Root)?;
        let kind = bare.metadata(&path).map_err(failed)?.map(|metadata| metadata.kind);
        let relative = path.as_bytes()[1..].to_vec();
        let explained = self.context.rules().explain(&relative);
        let sent = match kind {
            Some(_) => self.context.metadata(&path).map_err(failed)?.is_some(),
            None => !explained.ignored,
        };
        let decided_by = explained.pattern.zip(self.ignore_file()).map(|((line, pattern), file)| DecidedBy {
            file: file.to_owned(),
            line,
            pattern: pattern.to_owned(),
            matched: relative[..explained.matched].to_vec(),
        });
        let read_as = self.read_as(&path);
        Ok(Why { path: relative, kind, sent, ignored: explained.ignored, decided_by, read_as })
    }

    fn in_context(&self, path: &Path) -> Result<RootPath, Error> {
        let below = match (path.is_absolute(), self.dir.canonicalize()) {
            (true, Ok(dir)) => path.strip_prefix(dir).unwrap_or(path),
            _ => path,
        };
        let mut depth = 0usize;
        for component in below.components() {
            match component {
                Component::Normal(_) => depth += 1,
                Component::ParentDir if depth == 0 => {
                    let hint = format!("paths are relative to the context `{}`", self.dir.display());
                    return Err(Error::Usage { message: format!("`{}` is outside of the context", path.display()), hint: Some(hint) });
                }
                Component::ParentDir => depth -= 1,
                _ => {}
            }
        }
        Ok(RootPath::new(below))
    }

    fn read_as(&self, path: &RootPath) -> Option<ReadAs> {
        let dir = self.dir.canonicalize().ok()?;
        let is = |file: Option<&Path>| {
            let file = file?;
            // The name counts, not where a link leads.
            let parent = file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new(".")).canonicalize().ok()?;
            let whole = parent.join(file.file_name()?);
            Some(RootPath::new(whole.strip_prefix(&dir).ok()?) == *path)
        };
        match (is(self.dockerfile.as_deref()), is(self.ignore_file())) {
            (Some(true), _) => Some(ReadAs::Dockerfile),
            (_, Some(true)) => Some(ReadAs::IgnoreFile),
            _ => None,
        }
    }
}
