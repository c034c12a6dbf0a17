//! Paths inside root file systems.
//!
//! A path in an image is not a path of this machine: [`RootPath`] is absolute, clean (no `.`, `..`, `//`) and means nothing until something resolves it in
//! a root directory. Names are bytes, as on Linux; they need not be UTF-8. This folder does no I/O.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// An absolute, clean path inside a root file system. `..` at the root stays at the root.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RootPath(Vec<u8>);

impl RootPath {
    /// `/`.
    pub fn root() -> RootPath {
        RootPath(b"/".to_vec())
    }

    /// Cleans `path`; a relative one is taken from `/`.
    pub fn new(path: impl AsRef<OsStr>) -> RootPath {
        RootPath::root().join(path)
    }

    /// `path` as seen from here: an absolute one replaces this path, a relative one is appended; both are cleaned without looking at links.
    pub fn join(&self, path: impl AsRef<OsStr>) -> RootPath {
        let path = path.as_ref().as_bytes();
        // A single name, as when a tree is walked, needs no cleaning.
        if !path.is_empty() && path != b"." && path != b".." && !path.contains(&b'/') {
            let above = if self.is_root() { &[][..] } else { &self.0 };
            return RootPath([above, b"/", path].concat());
        }
        let mut parts: Vec<&[u8]> = Vec::new();
        if path.first() != Some(&b'/') {
            parts.extend(self.components_bytes());
        }
        for part in path.split(|b| *b == b'/') {
            match part {
                b"" | b"." => {}
                b".." => {
                    parts.pop();
                }
                name => parts.push(name),
            }
        }
        let mut out = Vec::with_capacity(path.len() + 1);
        for part in parts {
            out.push(b'/');
            out.extend_from_slice(part);
        }
        if out.is_empty() {
            out.push(b'/');
        }
        RootPath(out)
    }

    /// Whether this is `/`.
    pub fn is_root(&self) -> bool {
        self.0 == b"/"
    }

    /// The names from the root down.
    pub fn components(&self) -> impl DoubleEndedIterator<Item = &OsStr> {
        self.components_bytes().map(OsStr::from_bytes)
    }

    fn components_bytes(&self) -> impl DoubleEndedIterator<Item = &[u8]> {
        self.0.split(|b| *b == b'/').filter(|part| !part.is_empty())
    }

    /// The directory that holds this path; `None` for `/`.
    pub fn parent(&self) -> Option<RootPath> {
        if self.is_root() {
            return None;
        }
        let cut = self.0.iter().rposition(|b| *b == b'/').unwrap_or(0);
        Some(RootPath(self.0[..cut.max(1)].to_vec()))
    }

    /// The last name; `None` for `/`.
    pub fn file_name(&self) -> Option<&OsStr> {
        let cut = self.0.iter().rposition(|b| *b == b'/').map_or(0, |slash| slash + 1);
        self.0.get(cut..).filter(|name| !name.is_empty()).map(OsStr::from_bytes)
    }

    /// This path without its leading slash: relative to the root, `.` for the root itself.
    pub fn relative(&self) -> &Path {
        if self.is_root() { Path::new(".") } else { Path::new(OsStr::from_bytes(&self.0[1..])) }
    }

    /// The path as bytes, with its leading slash.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The path as the system's string type.
    pub fn as_os_str(&self) -> &OsStr {
        OsStr::from_bytes(&self.0)
    }

    /// The path for use inside the root file system.
    pub fn to_path_buf(&self) -> PathBuf {
        PathBuf::from(OsString::from_vec(self.0.clone()))
    }

    /// Whether `self` is `other` or lies below it.
    pub fn starts_with(&self, other: &RootPath) -> bool {
        other.is_root() || self == other || (self.0.starts_with(&other.0) && self.0.get(other.0.len()) == Some(&b'/'))
    }
}

impl fmt::Display for RootPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&String::from_utf8_lossy(&self.0), f)
    }
}

impl fmt::Debug for RootPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&String::from_utf8_lossy(&self.0), f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn joining_cleans_and_stays_inside() {
        for (base, path, expected) in [
            ("/", "a", "/a"),
            ("/a/b", "../c", "/a/c"),
            ("/a", "/x//y/./z/", "/x/y/z"),
            ("/a", "../../../..", "/"),
            ("/", "", "/"),
            ("/a", ".", "/a"),
        ] {
            assert_eq!(RootPath::new(base).join(path).to_string(), expected, "{base} + {path}");
        }
    }

    #[test]
    fn parent_and_name_take_a_path_apart() {
        let path = RootPath::new("/usr/bin/env");
        assert_eq!(path.parent(), Some(RootPath::new("/usr/bin")));
        assert_eq!(path.file_name(), Some(OsStr::new("env")));
        assert_eq!(RootPath::new("/usr").parent(), Some(RootPath::root()));
        assert_eq!(RootPath::root().parent(), None);
        assert_eq!(RootPath::root().relative(), Path::new("."));
    }

    #[test]
    fn starts_with_compares_whole_names() {
        assert!(RootPath::new("/a/b").starts_with(&RootPath::new("/a")));
        assert!(!RootPath::new("/ab").starts_with(&RootPath::new("/a")));
        assert!(RootPath::new("/ab").starts_with(&RootPath::root()));
    }
}
