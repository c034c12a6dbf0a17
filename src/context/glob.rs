//! Wildcards in the sources of COPY and ADD: Go's `filepath.Match`, name by name.
//!
//! `*` and `?` stay within a name, there is no `**`, `[[]` names a bracket. A class may stand for a slash (`a[^b]c` names `a/c`), as for Docker. Directories on the way are not searched through links: only the part
//! before the first wildcard is resolved. A source without wildcards is a plain path, also if it has a backslash.

use std::io;

use crate::path::RootPath;
use crate::sys::tree::{Kind, LastLink, Tree, resolve};

use super::error::{BadPattern, Error};
use super::wildcard::Wildcard;

/// A wildcard for one name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern(Wildcard);

impl Pattern {
    /// Compiles a wildcard.
    pub fn new(pattern: &str) -> Result<Pattern, Error> {
        Pattern::from_bytes(pattern.as_bytes()).map_err(|reason| Error::BadWildcard { pattern: pattern.to_owned(), reason })
    }

    fn from_bytes(pattern: &[u8]) -> Result<Pattern, BadPattern> {
        Wildcard::new(pattern).map(Pattern)
    }

    /// Whether the whole of `name` matches.
    pub fn matches(&self, name: &[u8]) -> bool {
        self.0.matches(name)
    }

    /// Whether `text` has a wildcard that is not escaped.
    pub fn is_wildcard(text: &str) -> bool {
        has_wildcard(text.as_bytes())
    }
}

fn has_wildcard(text: &[u8]) -> bool {
    let mut bytes = text.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'\\' => {
                bytes.next();
            }
            b'*' | b'?' | b'[' => return true,
            _ => {}
        }
    }
    false
}

/// The paths of `tree` that `pattern` names, in the order of a walk: by names, level after level. `..` cannot leave the tree. A wildcard may match nothing; a plain path is returned if it
/// exists (as written: a link at its end is not followed) and is [`Error::Missing`] if not.
pub fn expand(tree: &dyn Tree, pattern: &str) -> Result<Vec<RootPath>, Error> {
    let whole = RootPath::new(pattern);
    let names: Vec<Vec<u8>> = whole.components().map(|name| name.as_encoded_bytes().to_vec()).collect();
    let plain = names.iter().take_while(|name| !has_wildcard(name)).count();
    if plain == names.len() {
        let resolved = resolve(tree, &whole, LastLink::Keep).map_err(|source| read_error(&whole, source))?;
        return match tree.metadata(&resolved).map_err(|source| read_error(&whole, source))? {
            Some(_) => Ok(vec![resolved]),
            None => Err(Error::Missing { path: whole }),
        };
    }
    let bad = |reason| Error::BadWildcard { pattern: pattern.to_owned(), reason };
    let whole = Wildcard::new(&names[plain..].join(&b'/')).map_err(bad)?;
    let start = names[..plain].iter().fold(RootPath::root(), |path, name| child(&path, name));
    let start = resolve(tree, &start, LastLink::Follow).map_err(|source| read_error(&start, source))?;
    // A class may also be written with a slash in it.
    let wildcards = names[plain..].iter().map(|name| Pattern::from_bytes(name)).collect::<Result<Vec<_>, _>>();
    let wildcards = match wildcards {
        Ok(wildcards) if !whole.crosses_directories() => wildcards,
        _ => return matches_below(tree, start, &whole),
    };
    let mut found = vec![start];
    for wildcard in &wildcards {
        let mut next = Vec::new();
        for directory in &found {
            next.extend(matches_in(tree, directory, wildcard)?);
        }
        found = next;
    }
    Ok(found)
}

/// All paths below `start` that match, seen from there. What is below a directory that matches belongs to it.
fn matches_below(tree: &dyn Tree, start: RootPath, wildcard: &Wildcard) -> Result<Vec<RootPath>, Error> {
    let skip = if start.is_root() { 1 } else { start.as_bytes().len() + 1 };
    let mut found = Vec::new();
    let mut todo = vec![start];
    while let Some(path) = todo.pop() {
        if path.as_bytes().get(skip..).is_some_and(|relative| !relative.is_empty() && wildcard.matches(relative)) {
            found.push(path);
            continue;
        }
        let metadata = tree.metadata(&path).map_err(|source| read_error(&path, source))?;
        if metadata.is_some_and(|metadata| metadata.kind == Kind::Directory) {
            let entries = tree.read_dir(&path).map_err(|source| read_error(&path, source))?;
            todo.extend(entries.iter().rev().map(|entry| path.join(&entry.name)));
        }
    }
    Ok(found)
}

/// The entries of `directory` that match; none if it is no directory.
fn matches_in(tree: &dyn Tree, directory: &RootPath, wildcard: &Pattern) -> Result<Vec<RootPath>, Error> {
    let metadata = tree.metadata(directory).map_err(|source| read_error(directory, source))?;
    if metadata.is_none_or(|metadata| metadata.kind != Kind::Directory) {
        return Ok(Vec::new());
    }
    let entries = tree.read_dir(directory).map_err(|source| read_error(directory, source))?;
    let matching = entries.iter().map(|entry| entry.name.as_encoded_bytes()).filter(|name| wildcard.matches(name));
    Ok(matching.map(|name| child(directory, name)).collect())
}

fn child(directory: &RootPath, name: &[u8]) -> RootPath {
    use std::os::unix::ffi::OsStrExt;
    directory.join(std::ffi::OsStr::from_bytes(name))
}

fn read_error(path: &RootPath, source: io::Error) -> Error {
    Error::Read { path: path.clone(), source }
}
