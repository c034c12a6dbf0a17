//! Which files a source of COPY or ADD names, and what they are called at the destination.
//!
//! The cache makes its keys from this and [`copy`](super::copy()) copies this, so the two cannot disagree. A source that is a link is followed inside its
//! tree and keeps the link's name; links further down are copied as they are. With `--parents`, names keep the directories below the pivot `/./`, `**` is
//! any depth, and nothing is followed. What a mount wants of a context comes with all links that lead there.

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};

use super::error::Error;
use crate::context::{self, Pattern};
use crate::diag::did_you_mean;
use crate::path::RootPath;
use crate::sys::tree::{Kind, LastLink, Metadata, Tree, resolve, resolve_by};

/// Something that a source names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceRoot {
    /// Where it is in the tree, links resolved.
    pub path: RootPath,
    /// Its name at the destination. With `--parents`, with the directories above it, and empty for the pivot itself.
    pub name: OsString,
    /// What is at `path`.
    pub metadata: Metadata,
}

impl SourceRoot {
    /// Where the patterns of `--exclude` start: for a file that is named itself there, they have no say in it.
    pub fn exclude_base(&self, parents: bool) -> RootPath {
        if !parents {
            return self.path.clone();
        }
        // The directory that the names of `--parents` start below.
        let mut pivot = self.path.clone();
        for _ in RootPath::new(&self.name).components() {
            pivot = pivot.parent().unwrap_or_else(RootPath::root);
        }
        pivot
    }
}

/// Which names things get at the destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Naming {
    /// Their last name.
    Last,
    /// With `--parents`.
    Parents,
    /// All of it, and the links on the way are there too.
    Way,
}

impl Naming {
    /// That of a copy.
    pub fn of(parents: bool, with_way: bool) -> Naming {
        match (parents, with_way) {
            (_, true) => Naming::Way,
            (true, false) => Naming::Parents,
            (false, false) => Naming::Last,
        }
    }
}

/// Resolves a source. Sorted; empty only for a wildcard that matches nothing.
pub fn select(tree: &dyn Tree, pattern: &str, naming: Naming) -> Result<Vec<SourceRoot>, Error> {
    match naming {
        Naming::Last => select_last(tree, pattern),
        Naming::Parents => select_with_parents(tree, pattern),
        Naming::Way => select_way(tree, pattern),
    }
}

/// A path and the links that are followed to it, each in its place, so that who looks for the path in a copy of them is led to the same files.
fn select_way(tree: &dyn Tree, path: &str) -> Result<Vec<SourceRoot>, Error> {
    let path = RootPath::new(path);
    let read_error = |source| Error::Read { path: path.clone(), source };
    let mut found = Vec::new();
    let end = resolve_by(tree, &path, LastLink::Follow, |link| found.push(link.clone())).map_err(read_error)?;
    if tree.metadata(&end).map_err(read_error)?.is_none() {
        return Err(missing(tree, end));
    }
    // What lies in the end itself is copied with it.
    found.retain(|link| !link.starts_with(&end));
    found.push(end);
    found.sort_unstable();
    found.dedup();
    let mut roots = Vec::with_capacity(found.len());
    for path in found {
        if let Some(metadata) = tree.metadata(&path).map_err(|source| Error::Read { path: path.clone(), source })? {
            roots.push(SourceRoot { name: path.relative().as_os_str().to_owned(), path, metadata });
        }
    }
    Ok(roots)
}

fn select_last(tree: &dyn Tree, pattern: &str) -> Result<Vec<SourceRoot>, Error> {
    let paths = match context::expand(tree, pattern) {
        Ok(paths) => paths,
        Err(context::Error::Missing { path }) => return Err(missing(tree, path)),
        Err(error) => return Err(Error::Select(error)),
    };
    let plain = !Pattern::is_wildcard(pattern);
    let written = RootPath::new(pattern);
    if paths.is_empty() {
        check_fixed_part(tree, &written)?;
    }
    let mut roots = Vec::with_capacity(paths.len());
    for path in paths {
        let read_error = |source| Error::Read { path: path.clone(), source };
        let name = if plain { written.file_name() } else { path.file_name() };
        let name = name.unwrap_or_default().to_owned();
        let resolved = resolve(tree, &path, LastLink::Follow).map_err(read_error)?;
        match tree.metadata(&resolved).map_err(read_error)? {
            Some(metadata) => roots.push(SourceRoot { path: resolved, name, metadata }),
            None => return Err(missing(tree, resolved)),
        }
    }
    Ok(roots)
}

/// Fails where the directory that a wildcard is to match in is not there: that is a mistake, where a wildcard without matches is none.
fn check_fixed_part(tree: &dyn Tree, pattern: &RootPath) -> Result<(), Error> {
    let is_fixed = |part: &&OsStr| part.to_str().is_none_or(|part| !Pattern::is_wildcard(part));
    let fixed = pattern.components().take_while(is_fixed).fold(RootPath::root(), |path, part| path.join(part));
    let read_error = |source| Error::Read { path: fixed.clone(), source };
    let resolved = resolve(tree, &fixed, LastLink::Follow).map_err(read_error)?;
    match tree.metadata(&resolved).map_err(read_error)? {
        Some(_) => Ok(()),
        None => Err(missing(tree, fixed)),
    }
}

fn missing(tree: &dyn Tree, path: RootPath) -> Error {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let entries = path.parent().and_then(|parent| tree.read_dir(&parent).ok()).unwrap_or_default();
    let names: Vec<_> = entries.iter().filter_map(|entry| entry.name.to_str()).collect();
    let near = did_you_mean(&name, names).map(str::to_owned);
    Error::Missing { path, near }
}

/// The directory that names start below, and the pattern of what to copy from it.
fn split_pivot(pattern: &str) -> (&str, &str) {
    match pattern.find("/./") {
        Some(at) => (pattern.get(..at).unwrap_or_default(), pattern.get(at + 3..).unwrap_or_default()),
        None => ("", pattern),
    }
}

fn select_with_parents(tree: &dyn Tree, pattern: &str) -> Result<Vec<SourceRoot>, Error> {
    let (pivot, rest) = split_pivot(pattern);
    let rest_path = RootPath::new(rest);
    let parts = rest_path.components().map(Part::new).collect::<Result<Vec<_>, _>>()?;
    let plain = parts.iter().all(|part| matches!(part, Part::Name(_)));
    let mut roots = Vec::new();
    for base in select_last(tree, pivot)? {
        let mut found: Vec<RootPath> = matches_below(tree, &base.path, &parts)?.into_iter().collect();
        if found.is_empty() && plain {
            return Err(missing(tree, RootPath::new(OsStr::new(pivot)).join(rest_path.relative())));
        }
        // By components, so that what lies in a directory follows it: as bytes, `a b` is between `a` and `a/x`.
        found.sort_unstable_by(|one, other| one.components().cmp(other.components()));
        let mut last: Option<RootPath> = None;
        for path in found {
            // What lies in a directory that is copied whole needs no root of its own.
            if last.as_ref().is_some_and(|last| path.starts_with(last)) {
                continue;
            }
            let metadata = tree.metadata(&path).map_err(|source| Error::Read { path: path.clone(), source })?;
            let Some(metadata) = metadata else { continue };
            let cut = if base.path.is_root() { 1 } else { base.path.as_bytes().len() + 1 };
            let name = path.as_bytes().get(cut..).unwrap_or_default();
            let name = <OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(name).to_owned();
            if metadata.kind == Kind::Directory {
                last = Some(path.clone());
            }
            roots.push(SourceRoot { path, name, metadata });
        }
    }
    Ok(roots)
}

enum Part {
    Name(OsString),
    Wildcard(Pattern),
    AnyDepth,
}

impl Part {
    fn new(name: &OsStr) -> Result<Part, Error> {
        let text = name.to_str().unwrap_or_default();
        if text == "**" {
            return Ok(Part::AnyDepth);
        }
        if Pattern::is_wildcard(text) {
            return Pattern::new(text).map(Part::Wildcard).map_err(Error::Select);
        }
        Ok(Part::Name(name.to_owned()))
    }
}

fn matches_below(tree: &dyn Tree, base: &RootPath, parts: &[Part]) -> Result<HashSet<RootPath>, Error> {
    let mut found = HashSet::new();
    let mut seen = HashSet::new();
    let mut todo = vec![(base.clone(), 0)];
    while let Some((directory, position)) = todo.pop() {
        if !seen.insert((directory.clone(), position)) {
            continue;
        }
        let Some(part) = parts.get(position) else {
            found.insert(directory);
            continue;
        };
        if let Part::Name(name) = part {
            let next = directory.join(name);
            if tree.metadata(&next).map_err(|source| Error::Read { path: next.clone(), source })?.is_some() {
                todo.push((next, position + 1));
            }
            continue;
        }
        let metadata = tree.metadata(&directory).map_err(|source| Error::Read { path: directory.clone(), source })?;
        if metadata.is_none_or(|metadata| metadata.kind != Kind::Directory) {
            continue;
        }
        let is_last = position + 1 == parts.len();
        if matches!(part, Part::AnyDepth) && !is_last {
            todo.push((directory.clone(), position + 1));
        }
        for entry in tree.read_dir(&directory).map_err(|source| Error::Read { path: directory.clone(), source })? {
            let next = directory.join(&entry.name);
            match part {
                Part::Wildcard(wildcard) if wildcard.matches(entry.name.as_encoded_bytes()) => todo.push((next, position + 1)),
                Part::AnyDepth if is_last => todo.push((next, position + 1)),
                Part::AnyDepth if entry.kind == Kind::Directory => todo.push((next, position)),
                _ => {}
            }
        }
    }
    Ok(found)
}
