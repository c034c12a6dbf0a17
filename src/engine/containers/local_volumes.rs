//! Volumes whose files lie elsewhere: the options of Docker's `local` driver (`type`, `device`, `o`), and the mount that a container gets of them.
//!
//! Such a file system is mounted for each container that has the volume, in its own mount namespace: the kernel takes it away with the container, whatever was killed. So a `tmpfs`
//! is each container's own.

use std::collections::BTreeMap;
use std::net::ToSocketAddrs;
use std::path::{Path, PathBuf};

use crate::path::RootPath;
use crate::runtime::{BindSource, MountOptions, MountSpec, Propagation};
use crate::store::VolumeRecord;

use super::super::Error;

fn usage(message: String, hint: &str) -> Error {
    Error::Usage { message, hint: Some(hint.to_owned()) }
}

/// Looks whether the options of a new volume make sense together.
///
/// # Errors
/// An option that is unknown, or that needs another one; what is said for the user.
pub(super) fn check(options: &BTreeMap<String, String>) -> Result<(), Error> {
    const EXAMPLE: &str = "such as `-o type=nfs -o device=:/path -o o=addr=10.0.0.5,rw`, or `-o type=none -o o=bind -o device=/path`";
    for key in options.keys() {
        match key.as_str() {
            "type" | "device" | "o" => {}
            "size" => {
                let hint = "a volume in memory has one: `-o type=tmpfs -o device=tmpfs -o o=size=100m`";
                return Err(usage("the store sets no limits to single volumes".to_owned(), hint));
            }
            other => return Err(usage(format!("there is no option `{other}` of volumes: it is type, device or o"), EXAMPLE)),
        }
    }
    for (key, needed) in [("type", "device"), ("device", "type"), ("o", "type"), ("o", "device")] {
        if options.contains_key(key) && !options.contains_key(needed) {
            return Err(usage(format!("the option `{key}` of volumes needs `{needed}`"), EXAMPLE));
        }
    }
    parsed(options).map(drop)
}

/// What the options say.
struct Parsed<'a> {
    kind: &'a str,
    device: &'a str,
    /// Whether it is a directory of this machine; whether with what is mounted below it.
    bind: Option<bool>,
    read_only: bool,
    flags: MountOptions,
    propagation: Propagation,
    /// What the file system itself is told.
    data: Vec<(String, Option<String>)>,
}

fn parsed(options: &BTreeMap<String, String>) -> Result<Parsed<'_>, Error> {
    let text = |key: &str| options.get(key).map_or("", String::as_str);
    let mut parsed = Parsed {
        kind: text("type"),
        device: text("device"),
        bind: None,
        read_only: false,
        flags: MountOptions::default(),
        propagation: Propagation::Private,
        data: Vec::new(),
    };
    for option in text("o").split(',').filter(|option| !option.is_empty()) {
        match option {
            "bind" => parsed.bind = Some(false),
            "rbind" => parsed.bind = Some(true),
            "ro" => parsed.read_only = true,
            "rw" => parsed.read_only = false,
            "nosuid" => parsed.flags.nosuid = true,
            "nodev" => parsed.flags.nodev = true,
            "noexec" => parsed.flags.noexec = true,
            "private" | "rprivate" => parsed.propagation = Propagation::Private,
            "slave" | "rslave" => parsed.propagation = Propagation::Slave,
            "shared" | "rshared" => parsed.propagation = Propagation::Shared,
            // As it is without them.
            "defaults" | "suid" | "dev" | "exec" | "async" | "atime" | "diratime" | "relatime" | "nomand" | "silent" => {}
            "noatime" | "nodiratime" | "norelatime" | "strictatime" | "nostrictatime" | "remount" => {
                return Err(usage(format!("the mount option `{option}` is not supported for volumes"), "leave it out"));
            }
            other => {
                let (key, value) = other.split_once('=').map_or((other, None), |(key, value)| (key, Some(value.to_owned())));
                parsed.data.push((key.to_owned(), value));
            }
        }
    }
    if parsed.bind.is_some() && !parsed.data.is_empty() {
        let names: Vec<&str> = parsed.data.iter().map(|(key, _)| key.as_str()).collect();
        return Err(usage(format!("a directory that is mounted has no option `{}`", names.join(",")), "leave it out"));
    }
    if parsed.kind == "none" && parsed.bind.is_none() {
        return Err(usage("a volume of the type none needs `-o o=bind`".to_owned(), "or another type: tmpfs, nfs, ext4, …"));
    }
    Ok(parsed)
}

/// The directory of this machine that a volume stands for, where it does.
pub(super) fn directory(volume: &VolumeRecord) -> Option<PathBuf> {
    let parsed = parsed(&volume.options).ok()?;
    parsed.bind.map(|_| PathBuf::from(parsed.device))
}

/// The mount of a volume with options.
pub(super) fn mount(volume: &VolumeRecord, target: &RootPath, read_only: bool) -> Result<MountSpec, Error> {
    let parsed = parsed(&volume.options)?;
    let read_only = read_only || parsed.read_only;
    if let Some(recursive) = parsed.bind {
        let path = Path::new(parsed.device);
        let failed = |source| Error::Io { action: "mount", path: path.to_owned(), source };
        let source = path.canonicalize().map_err(failed)?;
        let is_file = !source.is_dir();
        return Ok(MountSpec::Bind {
            source: BindSource::Path(source),
            target: target.clone(),
            is_file,
            read_only,
            recursive,
            propagation: parsed.propagation,
            options: parsed.flags,
        });
    }
    let mut options = parsed.data;
    if parsed.kind.starts_with("nfs") || parsed.kind == "cifs" {
        options.iter_mut().filter(|(key, _)| key == "addr").filter_map(|(_, value)| value.as_mut()).try_for_each(resolve)?;
    }
    Ok(MountSpec::Filesystem {
        kind: parsed.kind.to_owned(),
        source: parsed.device.to_owned(),
        options,
        target: target.clone(),
        read_only,
        flags: parsed.flags,
    })
}

/// The kernel knows servers by their addresses alone.
fn resolve(server: &mut String) -> Result<(), Error> {
    let found = (server.as_str(), 0).to_socket_addrs().ok().and_then(|mut addresses| addresses.next());
    match found {
        Some(address) => *server = address.ip().to_string(),
        None => return Err(usage(format!("the server `{server}` of the volume has no address"), "give its address: `o=addr=…`")),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(all: &[(&str, &str)]) -> BTreeMap<String, String> {
        all.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    fn mounted(all: &[(&str, &str)]) -> MountSpec {
        let volume = VolumeRecord {
            name: "v".into(),
            anonymous: false,
            labels: BTreeMap::new(),
            options: options(all),
            created_at: std::time::SystemTime::UNIX_EPOCH,
        };
        mount(&volume, &RootPath::new("/x"), false).unwrap()
    }

    #[test]
    fn options_need_each_other() {
        for wrong in [&[("type", "tmpfs")][..], &[("device", "/d")], &[("o", "bind")], &[("size", "1m")], &[("colour", "red")]] {
            assert!(check(&options(wrong)).is_err(), "{wrong:?}");
        }
        assert!(check(&options(&[("type", "none"), ("device", "/d")])).is_err());
        assert!(check(&options(&[("type", "none"), ("device", "/d"), ("o", "bind,size=1m")])).is_err());
        assert!(check(&options(&[("type", "tmpfs"), ("device", "tmpfs")])).is_ok() && check(&options(&[])).is_ok());
    }

    #[test]
    fn a_servers_name_becomes_its_address_and_flags_are_the_mounts() {
        let MountSpec::Filesystem { kind, source, options, read_only, flags, .. } =
            mounted(&[("type", "nfs"), ("device", ":/srv"), ("o", "addr=127.0.0.1,ro,nosuid,soft,nfsvers=4")])
        else {
            panic!()
        };
        assert_eq!((kind.as_str(), source.as_str(), read_only, flags.nosuid, flags.noexec), ("nfs", ":/srv", true, true, false));
        let expected = [("addr", Some("127.0.0.1")), ("soft", None), ("nfsvers", Some("4"))];
        assert_eq!(options, expected.map(|(key, value)| (key.to_owned(), value.map(str::to_owned))));
        let bound = mounted(&[("type", "none"), ("device", "/tmp"), ("o", "rbind,ro")]);
        assert!(matches!(bound, MountSpec::Bind { recursive: true, read_only: true, is_file: false, .. }), "{bound:?}");
    }
}
