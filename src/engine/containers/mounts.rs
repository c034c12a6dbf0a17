//! Volumes, directories of the host, and file systems in memory: reading what the user wrote, and making mounts of it.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{FileType, Mode, OFlags};

use crate::executor::RootDriver;
use crate::executor::ops::{self, CopyRequest, CopySource};
use crate::path::RootPath;
use crate::runtime::container::ContainerSpec;
use crate::runtime::{AccessTimes, BindSource, MountOptions, MountSpec, Propagation, TmpfsTuning};
use crate::store::view::MergedView;
use crate::sys::tree::{Kind, LastLink, Tree, resolve};
use crate::sys::{Links, RootDir};

use super::super::{Engine, Error};
use super::{local_volumes, propagation};

/// Something to mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MountRequest {
    /// A file or directory of the host.
    Bind {
        /// What.
        source: PathBuf,
        /// Where.
        target: RootPath,
        /// Whether writes are refused.
        read_only: bool,
        /// How mounts travel.
        propagation: Propagation,
        /// What becomes of mounts below the source.
        below: Submounts,
        /// Whether a directory is made where nothing is; otherwise that is an error.
        create: bool,
        /// Whether a container with users of its own sees the files as theirs.
        mapped: bool,
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
        /// The directory or file in it that is wanted, instead of all of it.
        subpath: Option<RootPath>,
        /// Labels of a new one.
        labels: BTreeMap<String, String>,
        /// Where the files of a new one are, if not in the store.
        options: BTreeMap<String, String>,
    },
    /// The files of an image, which cannot be written.
    Image {
        /// Its name.
        image: String,
        /// The directory or file in it that is wanted.
        subpath: RootPath,
        /// Where.
        target: RootPath,
    },
    /// A file system in memory.
    Tmpfs {
        /// Where.
        target: RootPath,
        /// Its size in bytes.
        size: Option<u64>,
        /// How many files it may have.
        inodes: Option<u64>,
        /// The mode of its root; `None` is that of the directory that it covers.
        mode: Option<u32>,
        /// The user and group of its root.
        owner: (u32, u32),
        /// Whether writes are refused.
        read_only: bool,
        /// What cannot be done on it.
        options: MountOptions,
        /// What is seldom asked for.
        tuning: TmpfsTuning,
    },
}

/// What becomes of mounts below the source of a mount: `bind-recursive=`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Submounts {
    /// They come along, and are read-only where the mount is.
    #[default]
    Enabled,
    /// They stay where they are.
    Disabled,
    /// They come along, and can be written also where the mount is read-only.
    Writable,
}

/// How long a container may see other files than the host does, as Docker's desktop programs have it: here never, which all of these allow.
const CONSISTENCIES: [&str; 3] = ["consistent", "cached", "delegated"];

/// What a file system in memory is by default: Docker's.
const TMPFS: MountOptions = MountOptions { nosuid: true, nodev: true, noexec: true, mapped: false, writable_below: false };

impl MountRequest {
    /// Where it is mounted.
    pub fn target(&self) -> &RootPath {
        match self {
            MountRequest::Bind { target, .. }
            | MountRequest::Volume { target, .. }
            | MountRequest::Image { target, .. }
            | MountRequest::Tmpfs { target, .. } => target,
        }
    }

    /// Whether it is a volume of the container's own that can be written and begins with the files of the image.
    pub(super) fn is_own(&self) -> bool {
        matches!(self, MountRequest::Volume { name: None, read_only: false, copy: true, subpath: None, options, .. } if options.is_empty())
    }

    /// A volume that is mounted whole, and filled where it is empty.
    pub fn volume(name: Option<String>, target: RootPath) -> MountRequest {
        MountRequest::Volume {
            name,
            target,
            read_only: false,
            copy: true,
            subpath: None,
            labels: BTreeMap::new(),
            options: BTreeMap::new(),
        }
    }
}

/// A container whose volumes another one gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumesFrom {
    /// Which.
    pub container: String,
    /// Whether they can be written there; `None` as in that container.
    pub writable: Option<bool>,
}

/// Reads `--volumes-from CONTAINER[:ro|rw]`.
pub fn parse_volumes_from(text: &str) -> Result<VolumesFrom, String> {
    let (container, mode) = text.split_once(':').unwrap_or((text, ""));
    let writable = match mode {
        "" | "z" | "Z" => None,
        "rw" => Some(true),
        "ro" => Some(false),
        other => return Err(format!("the option `{other}` is not supported: expected ro or rw")),
    };
    if container.is_empty() {
        Err("expected CONTAINER[:ro]".to_owned())
    } else {
        Ok(VolumesFrom { container: container.to_owned(), writable })
    }
}

fn parse_propagation(text: &str) -> Option<Propagation> {
    match text {
        "private" | "rprivate" => Some(Propagation::Private),
        "slave" | "rslave" => Some(Propagation::Slave),
        "shared" | "rshared" => Some(Propagation::Shared),
        _ => None,
    }
}

/// Reads `--mount type=…,source=…,target=…`.
pub fn parse_mount(text: &str) -> Result<MountRequest, String> {
    let mut fields: BTreeMap<String, &str> = BTreeMap::new();
    let (mut labels, mut options) = (BTreeMap::new(), BTreeMap::new());
    let written = quoted_fields(text)?;
    for field in &written {
        let (key, value) = field.split_once('=').unwrap_or((field, ""));
        let key = match key.to_lowercase().as_str() {
            "src" => "source".to_owned(),
            "dst" | "destination" => "target".to_owned(),
            "ro" => "readonly".to_owned(),
            key => key.to_owned(),
        };
        if key == "volume-label" || key == "volume-opt" {
            let (name, value) = value.split_once('=').unwrap_or((value, ""));
            if key == "volume-label" { &mut labels } else { &mut options }.insert(name.to_owned(), value.to_owned());
        } else if fields.insert(key.clone(), value).is_some() {
            return Err(format!("`{key}` is given twice"));
        }
    }
    let kind = fields.remove("type").unwrap_or("volume").to_lowercase();
    let target = absolute(fields.remove("target").ok_or("a mount needs `target=`")?)?;
    let source = fields.remove("source").filter(|source| !source.is_empty());
    let read_only = take_flag(&mut fields, "readonly")?.unwrap_or(false);
    if let Some(word) = fields.remove("consistency").filter(|word| *word != "default" && !CONSISTENCIES.contains(word)) {
        return Err(format!("`{word}` is no consistency: expected default, consistent, cached or delegated"));
    }
    let mount = match kind.as_str() {
        "bind" => {
            let source = source.ok_or("a mount of the type bind needs `source=`")?;
            let given = fields.remove("bind-propagation").unwrap_or("rprivate");
            let propagation =
                parse_propagation(given).ok_or_else(|| format!("`{given}` is no propagation: expected rprivate, rslave or rshared"))?;
            let alone = take_flag(&mut fields, "bind-nonrecursive")?;
            let below = match fields.remove("bind-recursive") {
                Some(_) if alone.is_some() => return Err("`bind-recursive` says what `bind-nonrecursive` says".to_owned()),
                Some(word) => submounts(word, read_only, propagation)?,
                None if alone == Some(true) => Submounts::Disabled,
                None => Submounts::Enabled,
            };
            let create = take_flag(&mut fields, "bind-create-src")?.unwrap_or(false);
            let mapped = take_flag(&mut fields, "idmap")?.unwrap_or(false);
            MountRequest::Bind { source: source.into(), target, read_only, propagation, below, create, mapped }
        }
        "volume" => {
            let copy = !take_flag(&mut fields, "volume-nocopy")?.unwrap_or(false);
            let subpath = fields.remove("volume-subpath").map(part_of_volume).transpose()?;
            if !matches!(fields.remove("volume-driver"), None | Some("local")) {
                return Err("the only driver of volumes is `local`".to_owned());
            }
            let (labels, options) = (std::mem::take(&mut labels), std::mem::take(&mut options));
            MountRequest::Volume { name: source.map(str::to_owned), target, read_only, copy, subpath, labels, options }
        }
        "tmpfs" if source.is_some() => return Err("a mount of the type tmpfs has no `source`".to_owned()),
        "tmpfs" => {
            let size = fields.remove("tmpfs-size").map(bytes).transpose()?.filter(|size| *size > 0);
            let mode = fields.remove("tmpfs-mode").map(octal).transpose()?;
            MountRequest::Tmpfs {
                target,
                size,
                inodes: None,
                mode,
                owner: (0, 0),
                read_only,
                options: TMPFS,
                tuning: TmpfsTuning::default(),
            }
        }
        "image" => {
            let image = source.ok_or("a mount of the type image needs `source=`")?.to_owned();
            let subpath = RootPath::new(fields.remove("image-subpath").unwrap_or("/"));
            MountRequest::Image { image, subpath, target }
        }
        other => return Err(format!("the type `{other}` is not supported: expected bind, volume, tmpfs or image")),
    };
    let misplaced = [("volume-label", &labels), ("volume-opt", &options)].into_iter().find(|(_, given)| !given.is_empty());
    match fields.keys().next().map(String::as_str).or(misplaced.map(|(key, _)| key)) {
        Some(key) => Err(format!("a mount of the type {kind} has no `{key}`")),
        None => Ok(mount),
    }
}

/// Reads `bind-recursive=`, as Docker does.
fn submounts(word: &str, read_only: bool, propagation: Propagation) -> Result<Submounts, String> {
    match word {
        "enabled" => Ok(Submounts::Enabled),
        "disabled" => Ok(Submounts::Disabled),
        "writable" | "readonly" if !read_only => Err(format!("`bind-recursive={word}` needs `readonly`")),
        "writable" => Ok(Submounts::Writable),
        "readonly" if propagation != Propagation::Private => Err("`bind-recursive=readonly` needs `bind-propagation=rprivate`".to_owned()),
        // All of them are as read-only as the mount in any case, or it fails.
        "readonly" => Ok(Submounts::Enabled),
        other => Err(format!("`{other}` is nothing for `bind-recursive`: expected enabled, disabled, writable or readonly")),
    }
}

/// Reads `volume-subpath=`: a path in the volume.
fn part_of_volume(text: &str) -> Result<RootPath, String> {
    let is_inside = !text.starts_with('/') && !text.split('/').any(|part| part == "..");
    if is_inside { Ok(RootPath::new(text)) } else { Err(format!("`volume-subpath={text}` is not a relative path within the volume")) }
}

/// The fields of a line with commas between; one with a comma in it stands in quotation marks, of which two are one in there (RFC 4180, as Docker reads it).
fn quoted_fields(text: &str) -> Result<Vec<String>, String> {
    let (mut fields, mut rest) = (Vec::new(), text);
    loop {
        let (field, left) = match rest.strip_prefix('"') {
            None => rest.split_once(',').map_or((rest.to_owned(), None), |(field, left)| (field.to_owned(), Some(left))),
            Some(mut inner) => {
                let mut field = String::new();
                loop {
                    let (part, left) = inner.split_once('"').ok_or_else(|| format!("a quotation mark in `{text}` is not closed"))?;
                    field.push_str(part);
                    match left.strip_prefix('"') {
                        Some(left) => {
                            field.push('"');
                            inner = left;
                        }
                        None if left.is_empty() => break (field, None),
                        None => {
                            let left =
                                left.strip_prefix(',').ok_or_else(|| format!("a comma is missing behind a quotation mark in `{text}`"))?;
                            break (field, Some(left));
                        }
                    }
                }
            }
        };
        fields.push(field);
        match left {
            Some(left) => rest = left,
            None => return Ok(fields),
        }
    }
}

/// A key that is true where it has no value.
fn take_flag(fields: &mut BTreeMap<String, &str>, key: &str) -> Result<Option<bool>, String> {
    match fields.remove(key) {
        None => Ok(None),
        Some("" | "true" | "1") => Ok(Some(true)),
        Some("false" | "0") => Ok(Some(false)),
        Some(other) => Err(format!("`{key}` is true or false, not `{other}`")),
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
    let (mut read_only, mut copy, mut travels, mut mapped) = (None, true, None, false);
    for option in options.split(',').filter(|option| !option.is_empty()) {
        match option {
            "ro" | "rw" if read_only.is_some() => return Err("`ro` and `rw` are said once, and not both".to_owned()),
            "ro" | "rw" => read_only = Some(option == "ro"),
            // What the labels of SELinux would be asked for is as it is without it.
            "z" | "Z" => {}
            word if CONSISTENCIES.contains(&word) => {}
            "nocopy" => copy = false,
            "idmap" => mapped = true,
            other => match parse_propagation(other) {
                Some(_) if travels.is_some() => return Err("a mount has one propagation".to_owned()),
                Some(found) => travels = Some(found),
                None => {
                    return Err(format!(
                        "the option `{other}` is not supported: expected ro, rw, nocopy, idmap, rprivate, rslave or rshared"
                    ));
                }
            },
        }
    }
    let read_only = read_only.unwrap_or(false);
    let volume = |name: Option<&str>| match travels {
        Some(_) => Err("only a directory of this machine has a propagation".to_owned()),
        None => Ok(MountRequest::Volume {
            name: name.map(str::to_owned),
            target: target.clone(),
            read_only,
            copy,
            subpath: None,
            labels: BTreeMap::new(),
            options: BTreeMap::new(),
        }),
    };
    match source {
        None => volume(None),
        Some("") => Err(format!("`{text}` has no source")),
        Some(source) if source.starts_with(['/', '.']) => Ok(MountRequest::Bind {
            source: source.into(),
            target,
            read_only,
            propagation: travels.unwrap_or_default(),
            below: Submounts::Enabled,
            create: true,
            mapped,
        }),
        Some(name) if name.contains('/') || name == "~" => Err(format!("`{name}` is not the name of a volume; a path begins with / or ./")),
        Some(name) => volume(Some(name)),
    }
}

/// Reads `--tmpfs TARGET[:OPTIONS]`.
pub fn parse_tmpfs(text: &str) -> Result<MountRequest, String> {
    let (target, options) = text.split_once(':').unwrap_or((text, ""));
    let target = absolute(target)?;
    let (mut size, mut inodes, mut mode, mut owner, mut read_only, mut restricted) = (None, None, None, (0, 0), false, TMPFS);
    let (mut tuning, mut strict, mut never) = (TmpfsTuning::default(), false, false);
    let id = |value: &str| value.parse().map_err(|_| format!("`{value}` is not an ID"));
    for option in options.split(',').filter(|option| !option.is_empty()) {
        match option.split_once('=').unwrap_or((option, "")) {
            ("size", value) => size = Some(value.strip_suffix('%').map_or_else(|| bytes(value), part_of_memory)?),
            ("nr_blocks", value) => size = Some(bytes(value)?.saturating_mul(PAGE)),
            ("nr_inodes", value) => inodes = Some(bytes(value)?),
            ("uid", value) => owner.0 = id(value)?,
            ("gid", value) => owner.1 = id(value)?,
            ("mode", value) => mode = Some(octal(value)?),
            ("ro" | "rw", "") => read_only = option == "ro",
            ("exec" | "noexec", "") => restricted.noexec = option == "noexec",
            ("suid" | "nosuid", "") => restricted.nosuid = option == "nosuid",
            ("dev" | "nodev", "") => restricted.nodev = option == "nodev",
            ("atime" | "noatime", "") => never = option == "noatime",
            ("strictatime" | "nostrictatime", "") => strict = option == "strictatime",
            ("diratime" | "nodiratime", "") => tuning.nodiratime = option == "nodiratime",
            // As it is without them.
            ("defaults" | "relatime" | "norelatime", "") => {}
            ("sync" | "async", "") => set_whether(&mut tuning.settings, "sync", option == "sync"),
            ("mand" | "nomand", "") => set_whether(&mut tuning.settings, "mand", option == "mand"),
            ("dirsync", "") => set_whether(&mut tuning.settings, option, true),
            ("mpol", value) if !value.is_empty() => {
                set_whether(&mut tuning.settings, "mpol", false);
                tuning.settings.push(("mpol".to_owned(), Some(value.to_owned())));
            }
            ("unbindable" | "runbindable", "") => tuning.propagation = Propagation::Unbindable,
            (word, "") if let Some(found) = parse_propagation(word) => tuning.propagation = found,
            (other, _) => {
                return Err(format!(
                    "the option `{other}` is not supported: expected size=, nr_blocks=, nr_inodes=, mode=, uid=, gid=, mpol=, a propagation, or ro, exec, suid, dev, noatime, nodiratime, \
                     relatime, strictatime, sync, dirsync, mand and their opposites"
                ));
            }
        }
    }
    // As for mount(2).
    tuning.access_times = match (strict, never) {
        (true, _) => AccessTimes::Strict,
        (false, true) => AccessTimes::Never,
        (false, false) => AccessTimes::Relative,
    };
    Ok(MountRequest::Tmpfs { target, size, inodes, mode, owner, read_only, options: restricted, tuning })
}

/// Has a setting without a value in the list once, or not at all.
fn set_whether(settings: &mut Vec<(String, Option<String>)>, name: &str, wanted: bool) {
    settings.retain(|(known, _)| known != name);
    settings.extend(wanted.then(|| (name.to_owned(), None)));
}

fn octal(text: &str) -> Result<u32, String> {
    u32::from_str_radix(text, 8).map_err(|_| format!("`{text}` is not a mode"))
}

/// The unit of `nr_blocks` (tmpfs(5)).
const PAGE: u64 = 4096;

/// So many hundredths of this machine's memory, in bytes: a size of a tmpfs (tmpfs(5)).
fn part_of_memory(percent: &str) -> Result<u64, String> {
    let percent: u64 = percent.parse().map_err(|_| format!("`{percent}%` is not a size"))?;
    let known = rustix::system::sysinfo();
    let total = u128::from(known.totalram) * u128::from(known.mem_unit);
    u64::try_from(total * u128::from(percent) / 100).map_err(|_| format!("`{percent}%` is too large"))
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

/// The path of the host that a mount shows, or that it shows a part of.
pub(super) fn bind_path(mount: &MountSpec) -> Option<&PathBuf> {
    match mount {
        MountSpec::Bind { source: BindSource::Path(path) | BindSource::Below { directory: path, .. }, .. } => Some(path),
        _ => None,
    }
}

/// A bind mount of what belongs to containers, with everything below it.
pub(super) fn bind(source: impl Into<BindSource>, target: RootPath, is_file: bool, read_only: bool) -> MountSpec {
    MountSpec::Bind {
        source: source.into(),
        target,
        is_file,
        read_only,
        recursive: true,
        propagation: Propagation::Private,
        options: MountOptions { mapped: true, ..MountOptions::default() },
    }
}

/// The mode of a file system in memory, as Docker has it: that of the image's directory at its place, or everybody's.
fn mode_of(image: &MergedView, target: &RootPath) -> Result<u32, Error> {
    let read = |source| Error::Io { action: "read", path: target.to_path_buf(), source };
    let covered = resolve(image, target, LastLink::Follow).and_then(|path| image.metadata(&path)).map_err(read)?;
    Ok(covered.filter(|found| found.kind == Kind::Directory).map_or(0o1777, |directory| directory.mode))
}

/// Makes the directories of the host again that `-v` names and that are gone, as it did for the first start.
pub(super) fn make_missing(spec: &ContainerSpec) -> Result<(), Error> {
    for mount in &spec.sandbox.mounts {
        let MountSpec::Bind { source: BindSource::Path(path), is_file: false, .. } = mount else { continue };
        // It was written by a path that may have led through links.
        let by_volume = |text: &String| {
            let named = Path::new(text.split(':').next().unwrap_or_default());
            let resolved = named.parent().and_then(|parent| parent.canonicalize().ok()).zip(named.file_name());
            named == path || resolved.is_some_and(|(parent, name)| parent.join(name) == *path)
        };
        if spec.written.binds.iter().any(by_volume) && !path.exists() {
            std::fs::create_dir_all(path).map_err(|source| Error::Io { action: "make", path: path.clone(), source })?;
        }
    }
    Ok(())
}

impl Engine {
    /// Makes what a request of the container in `dir` needs (volumes, directories) and gives the mount, with the volume's name where it is one.
    /// Volumes without a name that are made for it are told to `made` at once, whatever fails afterwards.
    pub(super) fn mount(
        &self,
        request: &MountRequest,
        image: &Arc<MergedView>,
        dir: &Path,
        made: &mut Vec<String>,
    ) -> Result<(MountSpec, Option<String>), Error> {
        let mount = match request {
            MountRequest::Bind { source, target, read_only, propagation: travels, below, create, mapped } => {
                let failed = |action| move |error| Error::Io { action, path: source.clone(), source: error };
                let path = std::path::absolute(source).map_err(failed("find"))?;
                if *create && !path.try_exists().map_err(failed("open"))? {
                    std::fs::create_dir_all(&path).map_err(failed("make"))?;
                }
                let path = path.canonicalize().map_err(|error| match error.kind() {
                    ErrorKind::NotFound => Error::Usage {
                        message: format!("the source `{}` of a bind mount is not there", source.display()),
                        hint: Some("make it first, or name it with -v, which makes a directory".into()),
                    },
                    _ => failed("mount")(error),
                })?;
                propagation::check(&path, *travels)?;
                let is_file = !path.is_dir();
                MountSpec::Bind {
                    source: BindSource::Path(path),
                    target: target.clone(),
                    is_file,
                    read_only: *read_only,
                    recursive: *below != Submounts::Disabled,
                    propagation: *travels,
                    options: MountOptions { writable_below: *below == Submounts::Writable, mapped: *mapped, ..MountOptions::default() },
                }
            }
            MountRequest::Image { image, subpath, target } => self.image_mount(image, subpath, target, dir)?,
            MountRequest::Volume { name, target, read_only, copy, subpath, labels, options } => {
                local_volumes::check(options)?;
                let (name, anonymous) = match name {
                    Some(name) => (name.clone(), false),
                    None => (super::names::random_hex()?, true),
                };
                let bad = |error: crate::store::Error| match error {
                    error @ crate::store::Error::BadName { .. } => Error::Usage { message: error.to_string(), hint: None },
                    other => other.into(),
                };
                let is_new = self.store().ensure_volume(&name, anonymous, labels, options).map_err(bad)?;
                made.extend(anonymous.then(|| name.clone()));
                if is_new {
                    self.volume_event("create", &name);
                }
                let record = self.store().volume(&name)?.filter(|volume| !volume.options.is_empty());
                let path = record
                    .as_ref()
                    .and_then(local_volumes::directory)
                    .or_else(|| record.is_none().then(|| self.store().volume_path(&name)));
                if let Some(path) = path.as_ref().filter(|path| *copy && path.is_dir())
                    && is_empty(path)?
                {
                    fill(path, target, image)?;
                }
                let mount = match (record, subpath, path) {
                    (None, None, Some(path)) => bind(path, target.clone(), false, *read_only),
                    // The files of a directory that somebody named are not the volume's own.
                    (record, Some(subpath), Some(path)) => below(&path, subpath, target, *read_only, record.is_none())?,
                    (_, Some(_), None) => {
                        let message = format!("the volume `{name}` is a file system of its own, of which no part can be mounted");
                        return Err(Error::Usage { message, hint: Some("leave `volume-subpath=` out".into()) });
                    }
                    (Some(record), None, _) => local_volumes::mount(&record, target, *read_only)?,
                    (None, None, None) => return Err(Error::Usage { message: format!("no such volume: `{name}`"), hint: None }),
                };
                return Ok((mount, Some(name)));
            }
            MountRequest::Tmpfs { target, size, inodes, mode, owner, read_only, options, tuning } => MountSpec::Tmpfs {
                target: target.clone(),
                size: *size,
                inodes: *inodes,
                mode: mode.map_or_else(|| mode_of(image, target), Ok)?,
                owner: *owner,
                read_only: *read_only,
                options: *options,
                tuning: tuning.clone(),
            },
        };
        Ok((mount, None))
    }
}

impl Engine {
    /// The files of an image that is here, for the container in `dir`.
    fn image_mount(&self, image: &str, subpath: &RootPath, target: &RootPath, dir: &Path) -> Result<MountSpec, Error> {
        let found = self.local_image(image, None)?.ok_or_else(|| Error::NoSuchImage { name: image.to_owned(), alike: Vec::new() })?;
        let view = ops::view(self.store(), &found.snapshots)?;
        let read = |source| Error::Prepare(ops::Error::ReadBase { path: subpath.clone(), source });
        let at = resolve(&view, subpath, LastLink::Follow).map_err(read)?;
        let Some(metadata) = view.metadata(&at).map_err(read)? else {
            return Err(Error::Usage { message: format!("the image `{image}` has no `{subpath}`"), hint: None });
        };
        let rootfs = match self.root_driver()? {
            RootDriver::Overlay => self.store().rootfs(&found.snapshots, None, None),
            RootDriver::Copy { .. } | RootDriver::Fuse { .. } => self.copy_mounted_image(dir, &found.snapshots)?,
        };
        Ok(MountSpec::Overlay { rootfs, subpath: at, target: target.clone(), is_file: metadata.kind != Kind::Directory })
    }
}

/// A part of a volume. No link in the volume leads out of it, also if another container with that volume changes it meanwhile: it is looked for again when it is mounted.
fn below(volume: &Path, subpath: &RootPath, target: &RootPath, read_only: bool, mapped: bool) -> Result<MountSpec, Error> {
    let shown = volume.join(subpath.relative());
    let failed = |source| Error::Io { action: "mount", path: shown.clone(), source };
    let root = RootDir::open(volume).map_err(failed)?;
    let found = root.open_at(subpath.relative(), OFlags::PATH, Mode::empty(), Links::Follow).map_err(|error| match error.kind() {
        ErrorKind::NotFound => Error::Usage {
            message: format!("the volume has no `{subpath}`"),
            hint: Some("make it first, by a container that mounts the whole volume".into()),
        },
        _ => failed(error),
    })?;
    let stat = rustix::fs::fstat(&found).map_err(|errno| failed(errno.into()))?;
    let is_file = FileType::from_raw_mode(stat.st_mode) != FileType::Directory;
    let source = BindSource::Below { directory: volume.to_owned(), path: subpath.clone() };
    let mut mount = bind(source, target.clone(), is_file, read_only);
    if let MountSpec::Bind { options, .. } = &mut mount {
        options.mapped = mapped;
    }
    Ok(mount)
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
        let mut request = MountRequest::volume(name.map(str::to_owned), RootPath::new(target));
        if let MountRequest::Volume { read_only: flag, .. } = &mut request {
            *flag = read_only;
        }
        request
    }

    #[test]
    fn mounts_name_their_type_and_only_what_it_has() {
        let shown = |text: &str| parse_mount(text).unwrap();
        let expected = MountRequest::Bind {
            source: "/h".into(),
            target: RootPath::new("/c"),
            read_only: true,
            propagation: Propagation::Slave,
            below: Submounts::Enabled,
            create: false,
            mapped: false,
        };
        assert_eq!(shown("type=bind,src=/h,dst=/c,readonly,bind-propagation=rslave"), expected);
        assert_eq!(shown("Type=BIND,SRC=/h,Dst=/c,ReadOnly,Bind-Propagation=rslave"), expected);
        let MountRequest::Bind { source, .. } = shown("type=bind,\"source=/a,b\"\"c\",target=/c") else { panic!() };
        assert_eq!(source, Path::new("/a,b\"c"));
        assert_eq!(shown("type=bind,src=/h,dst=/c,ro,bind-propagation=rslave,consistency=delegated"), expected);
        assert_eq!(shown("source=v,target=/c"), volume(Some("v"), "/c", false));
        assert_eq!(shown("type=volume,dst=/c,ro=true"), volume(None, "/c", true));
        let image = MountRequest::Image { image: "i".into(), subpath: RootPath::new("/x"), target: RootPath::new("/c") };
        assert_eq!(shown("type=image,source=i,image-subpath=x,target=/c"), image);
        let wrong = [
            "type=bind,target=/c",
            "type=npipe,source=a,target=/c",
            "source=v",
            "type=tmpfs,target=/c,volume-nocopy",
            "type=bind,src=/h,dst=/c,ro=maybe",
            "type=bind,src=/h,dst=/c,volume-label=a=b",
            "target=/a,target=/b",
            "source=v,target=c",
            "type=bind,\"source=/h,target=/c",
            "type=bind,src=/h,dst=/c,consistency=sometimes",
            "type=tmpfs,src=/h,dst=/c",
        ];
        for text in wrong {
            assert!(parse_mount(text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_below_a_source_comes_along_as_it_is_said() {
        let below = |text: &str| {
            let MountRequest::Bind { below, .. } = parse_mount(&format!("type=bind,src=/h,dst=/c,{text}"))? else { panic!() };
            Ok::<_, String>(below)
        };
        assert_eq!(below("bind-recursive=enabled"), Ok(Submounts::Enabled));
        assert_eq!(below("bind-recursive=disabled"), Ok(Submounts::Disabled));
        assert_eq!(below("bind-nonrecursive"), Ok(Submounts::Disabled));
        assert_eq!(below("ro,bind-recursive=writable"), Ok(Submounts::Writable));
        assert_eq!(below("ro,bind-recursive=readonly"), Ok(Submounts::Enabled));
        for wrong in ["writable", "readonly", "maybe", "enabled,bind-nonrecursive", "readonly,ro,bind-propagation=rslave"] {
            assert!(below(&format!("bind-recursive={wrong}")).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_part_of_a_volume_is_within_it() {
        let part = |path: &str| parse_mount(&format!("type=volume,src=v,dst=/c,volume-subpath={path}"));
        assert!(part("a/b").is_ok());
        for outside in ["..", "../x", "a/../../x", "/a"] {
            assert!(part(outside).unwrap_err().contains("relative path within the volume"), "{outside}");
        }
    }

    #[test]
    fn a_source_is_a_path_if_it_looks_like_one_and_a_volume_otherwise() {
        let bind = |source: &str, read_only| MountRequest::Bind {
            source: source.into(),
            target: RootPath::new("/c"),
            read_only,
            propagation: Propagation::Private,
            below: Submounts::Enabled,
            create: true,
            mapped: false,
        };
        assert_eq!(parse_volume("/h:/c").unwrap(), bind("/h", false));
        assert_eq!(parse_volume("./h:/c:ro,z").unwrap(), bind("./h", true));
        assert_eq!(parse_volume("/h:/c:ro,cached").unwrap(), bind("/h", true));
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
            MountRequest::Tmpfs {
                target: RootPath::new("/t"),
                size: Some(64 << 20),
                inodes: None,
                mode: Some(0o700),
                owner: (0, 0),
                read_only: false,
                options: MountOptions { noexec: false, ..TMPFS },
                tuning: TmpfsTuning::default(),
            }
        );
        let MountRequest::Tmpfs { options, .. } = parse_tmpfs("/t:exec,suid,dev,noexec").unwrap() else { panic!() };
        assert_eq!(options, MountOptions { noexec: true, ..MountOptions::default() });
        for wrong in ["what", "remount", "bind", "lazytime", "noswap", "huge=always", "atime=3", "mpol", "mpol=", "size", "size="] {
            assert!(parse_tmpfs(&format!("/t:{wrong}")).is_err(), "{wrong}");
        }
        let tuned = |options: &str| match parse_tmpfs(&format!("/t:{options}")).unwrap() {
            MountRequest::Tmpfs { tuning, .. } => tuning,
            other => panic!("{other:?}"),
        };
        let plain = TmpfsTuning::default();
        assert_eq!(tuned("defaults,relatime,atime,diratime,async,nomand,norelatime,nostrictatime,rprivate"), plain);
        assert_eq!(tuned("noatime,relatime,sync,async").access_times, AccessTimes::Never);
        assert_eq!(tuned("noatime,atime,sync,async,dev"), plain);
        assert_eq!(tuned("strictatime,noatime").access_times, AccessTimes::Strict);
        let settings = vec![("sync".to_owned(), None), ("mpol".to_owned(), Some("bind:0".to_owned()))];
        assert_eq!(tuned("mpol=local,sync,sync,mpol=bind:0,rslave"), TmpfsTuning { settings, propagation: Propagation::Slave, ..plain });
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
