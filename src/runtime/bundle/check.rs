//! What of a config can be told to be wrong before anything is made.

use super::Error;
use super::config::{Config, Hook};
use super::options::{Options, propagation};
use crate::runtime::namespaces::namespace_of_parameter;

/// Looks for what contradicts itself or is not supported.
pub(super) fn check(config: &Config) -> Result<(), Error> {
    version(&config.oci_version)?;
    let has = |kind: &str| config.linux.namespaces.iter().any(|namespace| namespace.kind == kind);
    if !config.hostname.is_empty() && !has("uts") {
        return Err(Error::invalid("hostname", "it needs a UTS namespace"));
    }
    if !config.domainname.is_empty() && !has("uts") {
        return Err(Error::invalid("domainname", "it needs a UTS namespace"));
    }
    users(config)?;
    mounts(config)?;
    config.linux.sysctl.keys().try_for_each(|name| sysctl(name, &has))?;
    devices(config)?;
    if config.linux.intel_rdt.is_some() {
        return Err(Error::invalid("linux.intelRdt", "it is not supported"));
    }
    super::net_devices::check(&config.linux.net_devices, has("network"))?;
    if !config.linux.time_offsets.is_empty() && !has("time") {
        return Err(Error::invalid("linux.timeOffsets", "they need a time namespace"));
    }
    // Setting them shows the process that does it, with the host's files open, to whoever is root of that namespace.
    let joined = config.linux.namespaces.iter().any(|namespace| namespace.kind == "user" && !namespace.path.is_empty());
    if !config.linux.time_offsets.is_empty() && joined {
        return Err(Error::invalid("linux.timeOffsets", "they cannot be set in a user namespace that is joined"));
    }
    let kind = &config.linux.rootfs_propagation;
    if !kind.is_empty() && propagation(kind).is_none() {
        return Err(Error::invalid("linux.rootfsPropagation", format!("`{kind}` is no kind of propagation")));
    }
    if !config.linux.mount_label.is_empty() && !std::path::Path::new("/sys/fs/selinux/enforce").exists() {
        return Err(Error::invalid("linux.mountLabel", "this kernel has no SELinux"));
    }
    hooks(config)
}

fn version(version: &str) -> Result<(), Error> {
    match version.split('.').next() {
        Some("1") => Ok(()),
        _ => Err(Error::invalid("ociVersion", format!("`{version}` is not a version 1 of the runtime specification"))),
    }
}

fn users(config: &Config) -> Result<(), Error> {
    let linux = &config.linux;
    let mapped = !linux.uid_mappings.is_empty() || !linux.gid_mappings.is_empty();
    match linux.namespaces.iter().find(|namespace| namespace.kind == "user") {
        None if mapped => Err(Error::invalid("linux.uidMappings", "they need a user namespace")),
        Some(namespace) if !namespace.path.is_empty() && mapped => {
            Err(Error::invalid("linux.uidMappings", "a user namespace that is joined has its own"))
        }
        Some(namespace) if namespace.path.is_empty() && (linux.uid_mappings.is_empty() || linux.gid_mappings.is_empty()) => {
            Err(Error::invalid("linux.uidMappings", "a new user namespace needs mappings of users and groups"))
        }
        _ => Ok(()),
    }
}

fn mounts(config: &Config) -> Result<(), Error> {
    for (index, mount) in config.mounts.iter().enumerate() {
        let member = || format!("mounts[{index}] ({})", mount.destination);
        let options = Options::parse(&mount.options);
        if mount.destination.is_empty() {
            return Err(Error::invalid(member(), "it has no destination"));
        }
        let (users, groups) = (!mount.uid_mappings.is_empty(), !mount.gid_mappings.is_empty());
        if users != groups {
            return Err(Error::invalid(member(), "mappings of users and of groups need each other"));
        }
        if options.id_mapped.is_some() && !users && !config.linux.namespaces.iter().any(|namespace| namespace.kind == "user") {
            return Err(Error::invalid(member(), "`idmap` needs mappings, or a user namespace that has them"));
        }
        if (options.id_mapped.is_some() || users) && options.bind.is_none() {
            return Err(Error::invalid(member(), "only bind mounts can have mappings of IDs"));
        }
        if let Some((key, _)) = options.data.iter().find(|(key, _)| options.bind.is_some() && matches!(key.as_str(), "idmap" | "ridmap")) {
            return Err(Error::invalid(
                member(),
                format!("mappings in the option `{key}=` are not supported: they belong in `uidMappings` and `gidMappings`"),
            ));
        }
        if options.bind.is_some() && mount.source.is_empty() {
            return Err(Error::invalid(member(), "a bind mount needs a source"));
        }
        if options.bind.is_none() && (mount.kind.is_empty() || mount.kind == "none" || mount.kind == "bind") {
            return Err(Error::invalid(member(), "it has neither a type nor the option `bind`"));
        }
        if options.copy_up && mount.kind != "tmpfs" {
            return Err(Error::invalid(member(), "`tmpcopyup` is for file systems in memory (tmpfs)"));
        }
    }
    Ok(())
}

/// A parameter that is not one of the container's namespaces would be the host's.
fn sysctl(name: &str, has: &dyn Fn(&str) -> bool) -> Result<(), Error> {
    let dotted = name.replace('/', ".");
    let wrong = |reason: String| Err(Error::invalid(format!("linux.sysctl ({name})"), reason));
    if dotted.split('.').any(|part| part.is_empty()) {
        return wrong("it is no name of a kernel parameter".to_owned());
    }
    let Some(needs) = namespace_of_parameter(&dotted) else {
        return wrong("it is not one of a namespace: setting it would change the host".to_owned());
    };
    if has(needs) { Ok(()) } else { wrong(format!("it needs a namespace of the kind `{needs}`")) }
}

fn devices(config: &Config) -> Result<(), Error> {
    for device in &config.linux.devices {
        let member = || format!("linux.devices ({})", device.path);
        if !device.path.starts_with('/') {
            return Err(Error::invalid(member(), "its path is not absolute"));
        }
        if !matches!(device.kind.as_str(), "c" | "b" | "u" | "p") {
            return Err(Error::invalid(member(), format!("`{}` is no type of device", device.kind)));
        }
        let number = |number: Option<i64>| number.is_some_and(|number| u32::try_from(number).is_ok());
        if device.kind != "p" && !(number(device.major) && number(device.minor)) {
            return Err(Error::invalid(member(), "it needs a major and a minor number"));
        }
    }
    for rule in config.linux.resources.iter().flat_map(|resources| &resources.devices) {
        let kind = matches!(rule.kind.as_str(), "" | "a" | "b" | "c");
        if !kind || rule.access.chars().any(|letter| !"rwm".contains(letter)) {
            return Err(Error::invalid("linux.resources.devices", format!("`{} {}` is no rule for devices", rule.kind, rule.access)));
        }
    }
    Ok(())
}

fn hooks(config: &Config) -> Result<(), Error> {
    let hooks = &config.hooks;
    let all: [(&str, &[Hook]); 6] = [
        ("prestart", &hooks.prestart),
        ("createRuntime", &hooks.create_runtime),
        ("createContainer", &hooks.create_container),
        ("startContainer", &hooks.start_container),
        ("poststart", &hooks.poststart),
        ("poststop", &hooks.poststop),
    ];
    for (moment, list) in all {
        for hook in list {
            let member = || format!("hooks.{moment}");
            if !hook.path.starts_with('/') {
                return Err(Error::invalid(member(), format!("the path `{}` is not absolute", hook.path)));
            }
            if hook.timeout.is_some_and(|timeout| timeout <= 0) {
                return Err(Error::invalid(member(), format!("the timeout of `{}` is not greater than 0", hook.path)));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(json: serde_json::Value) -> Config {
        let mut config: Config = serde_json::from_value(json).unwrap();
        config.oci_version = "1.0.2".to_owned();
        config
    }

    #[track_caller]
    fn refused(json: serde_json::Value, word: &str) {
        let error = check(&config(json)).unwrap_err().to_string();
        assert!(error.contains(word), "{error}");
    }

    #[test]
    fn what_contradicts_itself_is_named() {
        use serde_json::json;
        refused(json!({"hostname": "x"}), "hostname");
        refused(json!({"linux": {"uidMappings": [{"containerID": 0, "hostID": 0, "size": 1}]}}), "uidMappings");
        refused(json!({"linux": {"namespaces": [{"type": "user"}]}}), "uidMappings");
        refused(json!({"linux": {"sysctl": {"kernel.panic": "1"}}}), "kernel.panic");
        refused(json!({"linux": {"sysctl": {"net.ipv4.ip_forward": "1"}}}), "network");
        refused(json!({"linux": {"devices": [{"path": "/dev/x", "type": "c"}]}}), "/dev/x");
        refused(json!({"linux": {"intelRdt": {}}}), "intelRdt");
        refused(json!({"linux": {"rootfsPropagation": "sideways"}}), "sideways");
        refused(json!({"hooks": {"poststop": [{"path": "relative"}]}}), "relative");
        refused(json!({"mounts": [{"destination": "/x", "options": ["bind"]}]}), "/x");
        refused(json!({"mounts": [{"destination": "/x"}]}), "neither");
        let error = check(&Config { oci_version: "2.0.0".to_owned(), ..Config::default() }).unwrap_err().to_string();
        assert!(error.contains("ociVersion"), "{error}");
    }

    #[test]
    fn unknown_members_and_null_are_no_errors() {
        let json = serde_json::json!({"mounts": null, "future": {"a": 1}, "linux": {"namespaces": null, "seccomp": null, "future": 1}, "hooks": null});
        check(&config(json)).unwrap();
    }
}
