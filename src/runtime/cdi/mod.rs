//! The Container Device Interface (CDI): devices by names such as `vendor.com/class=name`, which files in [`DIRECTORIES`] describe.
//!
//! What a name stands for is looked up once, when a container is made, and becomes part of its spec ([`Edits::apply`]). Hooks are for OCI runtimes to run: a container that
//! has any is run by `strake oci` (`bundle`), where all else is done by our own sandbox.

mod document;

use std::path::{Path, PathBuf};

use document::Document;

use super::bundle::{Hook, Hooks};
use super::spec::{BindSource, DeviceAccess, DeviceNode, DeviceSpec, MountOptions, MountSpec, NodeKind, Propagation, SandboxSpec};
use crate::path::RootPath;

/// Where descriptions are. What is in the later one counts.
pub const DIRECTORIES: [&str; 2] = ["/etc/cdi", "/var/run/cdi"];

/// Why a device cannot be had by its name.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No description names it.
    #[error("there is no device `{name}`")]
    Unknown {
        /// The name.
        name: String,
        /// The devices of its kind that there are.
        known: Vec<String>,
        /// Files that could not be read, with the reasons.
        broken: Vec<String>,
    },
    /// Several descriptions name it.
    #[error("the device `{name}` is described twice: in `{}` and `{}`", one.display(), other.display())]
    Ambiguous {
        /// The name.
        name: String,
        /// A file.
        one: PathBuf,
        /// Another one.
        other: PathBuf,
    },
    /// Its description asks for something that cannot be done.
    #[error("the device `{name}` cannot be given: {reason}")]
    Unusable {
        /// The name.
        name: String,
        /// What is in the way.
        reason: String,
    },
}

impl Error {
    /// What the user can do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Error::Unknown { broken, .. } if !broken.is_empty() => Some(format!("not all descriptions can be read: {}", broken.join("; "))),
            Error::Unknown { known, .. } if !known.is_empty() => Some(format!("there are: {}", known.join(", "))),
            Error::Unknown { name, .. } if name.starts_with("nvidia.com/") => {
                Some("describe the GPUs of this machine with `nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml`".to_owned())
            }
            Error::Unknown { .. } => Some(format!("descriptions of devices (CDI) belong into {}", DIRECTORIES.join(" or "))),
            Error::Ambiguous { .. } => Some("remove one of the files".to_owned()),
            Error::Unusable { .. } => None,
        }
    }
}

/// Whether `text` is the name of such a device, rather than a path.
pub fn is_name(text: &str) -> bool {
    let word = |text: &str, others: &str| {
        let ends = |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric());
        let all = text.chars().all(|letter| letter.is_ascii_alphanumeric() || others.contains(letter));
        all && ends(text.bytes().next()) && ends(text.bytes().last())
    };
    let Some((kind, name)) = text.split_once('=') else { return false };
    let Some((vendor, class)) = kind.split_once('/') else { return false };
    let begins = |text: &str| text.starts_with(|letter: char| letter.is_ascii_alphabetic());
    begins(vendor) && begins(class) && word(vendor, "_-.") && word(class, "_-") && word(name, "_-.:")
}

/// What containers get for devices.
#[derive(Clone, Debug, Default)]
pub struct Edits {
    env: Vec<String>,
    devices: Vec<DeviceSpec>,
    mounts: Vec<MountSpec>,
    hooks: Hooks,
    gids: Vec<u32>,
}

/// Looks up what the names stand for.
///
/// # Errors
/// A name stands for nothing, for several things, or for something that cannot be done.
pub fn resolve(names: &[String]) -> Result<Edits, Error> {
    resolve_in(&DIRECTORIES.map(Path::new), names)
}

/// A file, how much it counts, and what it says.
struct Known {
    path: PathBuf,
    rank: usize,
    document: Document,
}

fn resolve_in(directories: &[&Path], names: &[String]) -> Result<Edits, Error> {
    let mut edits = Edits::default();
    if names.is_empty() {
        return Ok(edits);
    }
    let (known, broken) = load(directories);
    let mut used: Vec<usize> = Vec::new();
    for name in names {
        let (at, device) = find(&known, &broken, name)?;
        let unusable = |reason| Error::Unusable { name: name.clone(), reason };
        if !used.contains(&at) {
            used.push(at);
            edits.add(&known[at].document.container_edits).map_err(unusable)?;
        }
        edits.add(&device.container_edits).map_err(unusable)?;
    }
    Ok(edits)
}

fn load(directories: &[&Path]) -> (Vec<Known>, Vec<String>) {
    let (mut known, mut broken) = (Vec::new(), Vec::new());
    for (rank, directory) in directories.iter().enumerate() {
        let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
        let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
        paths.sort();
        for path in paths {
            let yaml = match path.extension().and_then(|extension| extension.to_str()) {
                Some("json") => false,
                Some("yaml" | "yml") => true,
                _ => continue,
            };
            let text = std::fs::read_to_string(&path).map_err(|error| error.to_string());
            match text.and_then(|text| Document::parse(&text, yaml)) {
                Ok(document) => known.push(Known { path, rank, document }),
                Err(reason) => broken.push(format!("`{}`: {reason}", path.display())),
            }
        }
    }
    (known, broken)
}

/// The device of that name, in the file that counts most, whose number is given.
fn find<'a>(known: &'a [Known], broken: &[String], name: &str) -> Result<(usize, &'a document::Device), Error> {
    let (kind, short) = name.split_once('=').unwrap_or((name, ""));
    let of_kind = || known.iter().enumerate().filter(|(_, file)| file.document.kind == kind);
    let mut best: Option<(usize, &document::Device)> = None;
    for (at, file) in of_kind() {
        for device in file.document.devices.iter().filter(|device| device.name == short) {
            match best {
                Some((other, _)) if known[other].rank == file.rank => {
                    let (one, other) = (known[other].path.clone(), file.path.clone());
                    return Err(Error::Ambiguous { name: name.to_owned(), one, other });
                }
                _ => best = Some((at, device)),
            }
        }
    }
    best.ok_or_else(|| {
        let mut names: Vec<String> =
            of_kind().flat_map(|(_, file)| file.document.devices.iter().map(|device| format!("{kind}={}", device.name))).collect();
        names.sort();
        names.dedup();
        Error::Unknown { name: name.to_owned(), known: names, broken: broken.to_vec() }
    })
}

impl Edits {
    fn add(&mut self, edits: &document::Edits) -> Result<(), String> {
        if edits.intel_rdt.is_some() {
            return Err("it wants a class of Intel RDT, and cache and memory bandwidth are not divided here".to_owned());
        }
        if !edits.net_devices.is_empty() {
            return Err("it wants to move network devices, which is not supported".to_owned());
        }
        if let Some(entry) = edits.env.iter().find(|entry| entry.split_once('=').is_none_or(|(name, _)| name.is_empty())) {
            return Err(format!("its variable `{entry}` is not NAME=VALUE"));
        }
        self.env.extend(edits.env.iter().cloned());
        for node in &edits.device_nodes {
            self.devices.push(device(node)?);
        }
        for mount in &edits.mounts {
            self.mounts.push(bind(mount)?);
        }
        for hook in &edits.hooks {
            self.add_hook(hook)?;
        }
        // Group 0 is nothing to be given away.
        self.gids.extend(edits.additional_gids.iter().filter(|gid| **gid != 0));
        Ok(())
    }

    fn add_hook(&mut self, hook: &document::Hook) -> Result<(), String> {
        let list = match hook.hook_name.as_str() {
            "prestart" => &mut self.hooks.prestart,
            "createRuntime" => &mut self.hooks.create_runtime,
            "createContainer" => &mut self.hooks.create_container,
            "startContainer" => &mut self.hooks.start_container,
            "poststart" => &mut self.hooks.poststart,
            "poststop" => &mut self.hooks.poststop,
            other => return Err(format!("there is no moment `{other}` for a hook")),
        };
        list.push(Hook {
            path: hook.path.clone(),
            args: hook.args.clone(),
            env: (!hook.env.is_empty()).then(|| hook.env.clone()),
            timeout: hook.timeout,
        });
        Ok(())
    }

    /// The mounts, to be put among the others of a sandbox.
    pub fn take_mounts(&mut self) -> Vec<MountSpec> {
        std::mem::take(&mut self.mounts)
    }

    /// Puts all else into a sandbox.
    pub fn apply(self, sandbox: &mut SandboxSpec) {
        for entry in &self.env {
            let name = &entry.as_bytes()[..=entry.find('=').unwrap_or(0)];
            sandbox.process.env.retain(|known| !known.as_encoded_bytes().starts_with(name));
        }
        sandbox.process.env.extend(self.env.into_iter().map(Into::into));
        let given = self.devices;
        sandbox.devices.retain(|device| given.iter().all(|other| other.target != device.target));
        sandbox.devices.extend(given);
        let groups = &mut sandbox.process.user.additional_gids;
        for gid in self.gids {
            if !groups.contains(&gid) {
                groups.push(gid);
            }
        }
        sandbox.hooks = self.hooks;
    }
}

fn device(node: &document::Node) -> Result<DeviceSpec, String> {
    let target = RootPath::new(&node.path);
    if !target.starts_with(&RootPath::new("/dev")) || target.components().count() < 2 {
        return Err(format!("its node `{}` is not below /dev", node.path));
    }
    let source = PathBuf::from(if node.host_path.is_empty() { &node.path } else { &node.host_path });
    let access = match node.permissions.as_str() {
        "" => DeviceAccess::ALL,
        text => text.parse()?,
    };
    Ok(DeviceSpec { node: own_node(node, &source)?, source, target, access })
}

/// The node to make, where the host's own is not what is wanted or is not there.
fn own_node(node: &document::Node, source: &Path) -> Result<Option<DeviceNode>, String> {
    use std::os::unix::fs::{FileTypeExt, MetadataExt};
    let found = std::fs::metadata(source);
    let kind = match (node.kind.as_str(), &found) {
        ("b", _) => NodeKind::Block,
        ("c" | "u", _) => NodeKind::Character,
        ("p", _) => NodeKind::Pipe,
        ("", Ok(found)) if found.file_type().is_block_device() => NodeKind::Block,
        ("", Ok(found)) if found.file_type().is_char_device() => NodeKind::Character,
        ("", Ok(found)) if found.file_type().is_fifo() => NodeKind::Pipe,
        ("", Ok(_)) => return Err(format!("`{}` is no device", source.display())),
        ("", Err(error)) => return Err(format!("`{}`: {error}", source.display())),
        (other, _) => return Err(format!("`{other}` is no type of a device node")),
    };
    let of_host = |number: fn(u64) -> u32| found.as_ref().map_or(0, |found| number(found.rdev()));
    let numbered = !node.kind.is_empty() && (node.major != 0 || kind == NodeKind::Pipe);
    let number = |number: i64| u32::try_from(number).map_err(|_| format!("`{number}` is no number of a device"));
    let (major, minor) = match numbered {
        true => (number(node.major)?, number(node.minor)?),
        false => (of_host(rustix::fs::major), of_host(rustix::fs::minor)),
    };
    let same = !numbered || (of_host(rustix::fs::major), of_host(rustix::fs::minor)) == (major, minor);
    match &found {
        Err(error) if !numbered => Err(format!("`{}`: {error}", source.display())),
        Ok(_) if same && kind != NodeKind::Pipe && node.file_mode.is_none() && node.uid.is_none() && node.gid.is_none() => Ok(None),
        _ => {
            let of_host = found.ok();
            let host = |part: fn(&std::fs::Metadata) -> u32, default| of_host.as_ref().map_or(default, part);
            Ok(Some(DeviceNode {
                kind,
                major,
                minor,
                mode: node.file_mode.unwrap_or_else(|| host(|found| found.mode() & 0o7777, 0o666)),
                owner: (node.uid.unwrap_or_else(|| host(MetadataExt::uid, 0)), node.gid.unwrap_or_else(|| host(MetadataExt::gid, 0))),
            }))
        }
    }
}

fn bind(mount: &document::Mount) -> Result<MountSpec, String> {
    if !matches!(mount.kind.as_str(), "" | "none" | "bind") {
        return Err(format!("it wants a mount of type `{}`, and only directories and files of the host can be given", mount.kind));
    }
    let source = PathBuf::from(&mount.host_path);
    let found = std::fs::metadata(&source).map_err(|error| format!("`{}`: {error}", source.display()))?;
    if !source.is_absolute() || !mount.container_path.starts_with('/') {
        return Err(format!("its mount of `{}` on `{}` names no places from the root on", mount.host_path, mount.container_path));
    }
    let (mut read_only, mut recursive, mut propagation, mut options) = (false, false, Propagation::Private, MountOptions::default());
    for option in &mount.options {
        match option.as_str() {
            "ro" => read_only = true,
            "rw" => read_only = false,
            "bind" => recursive = false,
            "rbind" => recursive = true,
            "private" | "rprivate" => propagation = Propagation::Private,
            "slave" | "rslave" => propagation = Propagation::Slave,
            "shared" | "rshared" => propagation = Propagation::Shared,
            "nosuid" => options.nosuid = true,
            "suid" => options.nosuid = false,
            "nodev" => options.nodev = true,
            "dev" => options.nodev = false,
            "noexec" => options.noexec = true,
            "exec" => options.noexec = false,
            other => return Err(format!("the option `{other}` of its mount on `{}` is not supported", mount.container_path)),
        }
    }
    let (target, is_file) = (RootPath::new(&mount.container_path), !found.is_dir());
    Ok(MountSpec::Bind { source: BindSource::Path(source), target, is_file, read_only, recursive, propagation, options })
}

#[cfg(test)]
mod tests;
