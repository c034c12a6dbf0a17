//! Volumes, directories of the host, and file systems in memory: reading what the user wrote, and making mounts of it.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::executor::ops::{self, CopyRequest, CopySource};
use crate::path::RootPath;
use crate::runtime::{BindSource, MountOptions, MountSpec, Propagation};
use crate::store::view::MergedView;
use crate::sys::tree::{Kind, LastLink, Tree, resolve};

use super::super::{Engine, Error};

/// Something to mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MountRequest {
    /// A file or directory of the host; a directory is made where nothing is.
    Bind {
        /// What.
        source: PathBuf,
        /// Where.
        target: RootPath,
        /// Whether writes are refused.
        read_only: bool,
    },
    /// A volume; one without a name is the container's own.
    Volume {
        /// Its name.
        name: Option<String>,
        /// Where.
        target: RootPath,
        /// Whether writes are refused.
        read_only: bool,
        /// Whether an empty one gets the files that the image has there.
        copy: bool,
    },
    /// A file system in memory.
    Tmpfs {
        /// Where.
        target: RootPath,
        /// Its size in bytes.
        size: Option<u64>,
        /// The mode of its root.
        mode: u32,
        /// Whether writes are refused.
        read_only: bool,
        /// Whether programs on it can be run.
        exec: bool,
    },
}

impl MountRequest {
    /// Where it is mounted.
    pub fn target(&self) -> &RootPath {
        match self {
            MountRequest::Bind { target, .. } | MountRequest::Volume { target, .. } | MountRequest::Tmpfs { target, .. } => target,
        }
    }
}

/// Reads `-v [SOURCE:]TARGET[:OPTIONS]`.
pub fn parse_volume(text: &str) -> Result<MountRequest, String> {
    let parts: Vec<&str> = text.split(':').collect();
    let (source, target, options) = match parts[..] {
        [target] => (None, target, ""),
        [source, target] => (Some(source), target, ""),
        [source, target, options] => (Some(source), target, options),
        _ => return Err(format!("`{text}` has too many colons: expected [SOURCE:]TARGET[:OPTIONS]")),
    };
    let target = absolute(target)?;
    let (mut read_only, mut copy) = (false, true);
    for option in options.split(',').filter(|option| !option.is_empty()) {
        match option {
            "ro" => read_only = true,
            // What the labels of SELinux would be asked for is as it is without it.
            "rw" | "z" | "Z" | "rprivate" | "private" => {}
            "nocopy" => copy = false,
            other => return Err(format!("the option `{other}` is not supported: expected ro, rw or nocopy")),
        }
    }
    match source {
        None => Ok(MountRequest::Volume { name: None, target, read_only, copy }),
        Some("") => Err(format!("`{text}` has no source")),
        Some(source) if source.starts_with(['/', '.']) => Ok(MountRequest::Bind { source: source.into(), target, read_only }),
        Some(name) if name.contains('/') => Err(format!("`{name}` is not the name of a volume; a path begins with / or ./")),
        Some(name) => Ok(MountRequest::Volume { name: Some(name.to_owned()), target, read_only, copy }),
    }
}

/// Reads `--tmpfs TARGET[:OPTIONS]`.
pub fn parse_tmpfs(text: &str) -> Result<MountRequest, String> {
    let (target, options) = text.split_once(':').unwrap_or((text, ""));
    let target = absolute(target)?;
    let (mut size, mut mode, mut read_only, mut exec) = (None, 0o1777, false, false);
    for option in options.split(',').filter(|option| !option.is_empty()) {
        match option.split_once('=').unwrap_or((option, "")) {
            ("size", value) => size = Some(bytes(value)?),
            ("mode", value) => mode = u32::from_str_radix(value, 8).map_err(|_| format!("`{value}` is not a mode"))?,
            ("ro", "") => read_only = true,
            ("exec", "") => exec = true,
            ("rw" | "noexec" | "nosuid" | "nodev", "") => {}
            (other, _) => return Err(format!("the option `{other}` is not supported: expected size=, mode=, ro, rw, exec or noexec")),
        }
    }
    Ok(MountRequest::Tmpfs { target, size, mode, read_only, exec })
}

/// Reads a number of bytes: `64m`, `1g`, `4096`.
pub fn bytes(text: &str) -> Result<u64, String> {
    let lower = text.to_ascii_lowercase();
    let digits = lower.trim_end_matches('b').trim_end_matches('i');
    let (digits, shift) = match digits.as_bytes().last() {
        Some(b'k') => (&digits[..digits.len() - 1], 10),
        Some(b'm') => (&digits[..digits.len() - 1], 20),
        Some(b'g') => (&digits[..digits.len() - 1], 30),
        Some(b't') => (&digits[..digits.len() - 1], 40),
        _ => (digits, 0),
    };
    let unit = 1u64 << shift;
    let number: f64 =
        digits.parse().ok().filter(|number: &f64| number.is_finite() && *number >= 0.0).ok_or_else(|| format!("`{text}` is not a size"))?;
    let value = number * unit as f64;
    if value >= u64::MAX as f64 { Err(format!("`{text}` is too large")) } else { Ok(value as u64) }
}

fn absolute(target: &str) -> Result<RootPath, String> {
    if !target.starts_with('/') {
        return Err(format!("`{target}` is not an absolute path in the container"));
    }
    let path = RootPath::new(target);
    if path.is_root() { Err("nothing can be mounted on `/`".to_owned()) } else { Ok(path) }
}

/// The path of the host that a mount shows.
pub(super) fn bind_path(mount: &MountSpec) -> Option<&PathBuf> {
    match mount {
        MountSpec::Bind { source: BindSource::Path(path), .. } => Some(path),
        _ => None,
    }
}

/// A bind mount with everything below it.
pub(super) fn bind(source: PathBuf, target: RootPath, is_file: bool, read_only: bool) -> MountSpec {
    MountSpec::Bind {
        source: BindSource::Path(source),
        target,
        is_file,
        read_only,
        recursive: true,
        propagation: Propagation::Private,
        options: MountOptions::default(),
    }
}

impl Engine {
    /// Makes what a request needs (volumes, directories) and gives the mount.
    pub(super) fn mount(&self, request: &MountRequest, image: &Arc<MergedView>) -> Result<MountSpec, Error> {
        match request {
            MountRequest::Bind { source, target, read_only } => {
                let failed = |action| move |error| Error::Io { action, path: source.clone(), source: error };
                let path = std::path::absolute(source).map_err(failed("find"))?;
                if !path.try_exists().map_err(failed("open"))? {
                    std::fs::create_dir_all(&path).map_err(failed("make"))?;
                }
                let path = path.canonicalize().map_err(failed("open"))?;
                let is_file = !path.is_dir();
                Ok(bind(path, target.clone(), is_file, *read_only))
            }
            MountRequest::Volume { name, target, read_only, copy } => {
                let (name, anonymous) = match name {
                    Some(name) => (name.clone(), false),
                    None => (super::names::random_hex()?, true),
                };
                self.store().ensure_volume(&name, anonymous, &std::collections::BTreeMap::new())?;
                let path = self.store().volume_path(&name);
                if *copy && is_empty(&path)? {
                    fill(&path, target, image)?;
                }
                Ok(bind(path, target.clone(), false, *read_only))
            }
            MountRequest::Tmpfs { target, size, mode, read_only, exec } => Ok(MountSpec::Tmpfs {
                target: target.clone(),
                size: *size,
                mode: *mode,
                owner: (0, 0),
                read_only: *read_only,
                options: MountOptions { nosuid: true, nodev: true, noexec: !exec },
            }),
        }
    }
}

fn is_empty(path: &Path) -> Result<bool, Error> {
    let mut entries = std::fs::read_dir(path).map_err(|source| Error::Io { action: "read", path: path.to_owned(), source })?;
    Ok(entries.next().is_none())
}

/// Gives an empty volume the files, the owner and the mode of the directory that the image has at `target`.
fn fill(volume: &Path, target: &RootPath, image: &Arc<MergedView>) -> Result<(), Error> {
    let read = |source| Error::Prepare(ops::Error::ReadBase { path: target.clone(), source });
    let from = resolve(&**image, target, LastLink::Follow).map_err(read)?;
    let Some(metadata) = image.metadata(&from).map_err(read)?.filter(|metadata| metadata.kind == Kind::Directory) else { return Ok(()) };
    if !image.read_dir(&from).map_err(read)?.is_empty() {
        let request = CopyRequest::fill(CopySource::Tree { tree: image.clone(), pattern: escaped(&from.to_string()) });
        ops::copy(&image.without_layers(), volume, &request)?;
    }
    let failed = |action| move |source| Error::Io { action, path: volume.to_owned(), source };
    std::os::unix::fs::chown(volume, Some(metadata.uid), Some(metadata.gid)).map_err(failed("chown"))?;
    std::fs::set_permissions(volume, std::fs::Permissions::from_mode(metadata.mode & 0o7777)).map_err(failed("chmod"))
}

/// A pattern that means just this path.
fn escaped(path: &str) -> String {
    path.chars().flat_map(|c| matches!(c, '*' | '?' | '[' | '\\').then_some('\\').into_iter().chain([c])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn volume(name: Option<&str>, target: &str, read_only: bool) -> MountRequest {
        MountRequest::Volume { name: name.map(str::to_owned), target: RootPath::new(target), read_only, copy: true }
    }

    #[test]
    fn a_source_is_a_path_if_it_looks_like_one_and_a_volume_otherwise() {
        let bind = |source: &str, read_only| MountRequest::Bind { source: source.into(), target: RootPath::new("/c"), read_only };
        assert_eq!(parse_volume("/h:/c").unwrap(), bind("/h", false));
        assert_eq!(parse_volume("./h:/c:ro,z").unwrap(), bind("./h", true));
        assert_eq!(parse_volume("name:/c:ro").unwrap(), volume(Some("name"), "/c", true));
        assert_eq!(parse_volume("/c").unwrap(), volume(None, "/c", false));
    }

    #[test]
    fn volumes_that_make_no_sense_are_refused() {
        for text in ["", "c", "/h:c", "/h:/", "a/b:/c", ":/c", "/h:/c:rx", "/h:/c:ro:x"] {
            assert!(parse_volume(text).is_err(), "{text}");
        }
    }

    #[test]
    fn file_systems_in_memory_have_size_and_mode() {
        let tmpfs = parse_tmpfs("/t:size=64m,mode=700,exec").unwrap();
        assert_eq!(
            tmpfs,
            MountRequest::Tmpfs { target: RootPath::new("/t"), size: Some(64 << 20), mode: 0o700, read_only: false, exec: true }
        );
        assert!(parse_tmpfs("/t:what").is_err());
    }

    #[test]
    fn sizes_have_units() {
        for (text, value) in [("0", 0), ("512", 512), ("1k", 1024), ("1.5m", 1_572_864), ("2GB", 2 << 30), ("1KiB", 1024)] {
            assert_eq!(bytes(text).unwrap(), value, "{text}");
        }
        for text in ["", "m", "-1", "1x", "99999999t", "nan"] {
            assert!(bytes(text).is_err(), "{text}");
        }
    }

    #[test]
    fn patterns_of_paths_match_only_them() {
        assert_eq!(escaped("/a[1]*"), "/a\\[1]\\*");
    }
}
