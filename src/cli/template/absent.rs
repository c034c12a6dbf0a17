//! What Go makes of fields that are not there: of which type they are there decides how they are printed, and JSON does not say that.

use serde_json::Value;

/// The type that a field has in Docker's structures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Pointer,
    List,
    Map,
    Text,
    Switch,
}

/// Fields that may be missing, or `null`.
const FIELDS: [(&str, Kind); 82] = [
    ("Health", Kind::Pointer),
    ("Healthcheck", Kind::Pointer),
    ("IPAMConfig", Kind::Pointer),
    ("Init", Kind::Pointer),
    ("MemorySwappiness", Kind::Pointer),
    ("OomKillDisable", Kind::Pointer),
    ("PidsLimit", Kind::Pointer),
    ("SizeRootFs", Kind::Pointer),
    ("SizeRw", Kind::Pointer),
    ("StopTimeout", Kind::Pointer),
    ("UsageData", Kind::Pointer),
    ("BindOptions", Kind::Pointer),
    ("TmpfsOptions", Kind::Pointer),
    ("VolumeOptions", Kind::Pointer),
    ("Aliases", Kind::List),
    ("Args", Kind::List),
    ("Binds", Kind::List),
    ("BlkioDeviceReadBps", Kind::List),
    ("BlkioDeviceReadIOps", Kind::List),
    ("BlkioDeviceWriteBps", Kind::List),
    ("BlkioDeviceWriteIOps", Kind::List),
    ("BlkioWeightDevice", Kind::List),
    ("CapAdd", Kind::List),
    ("CapDrop", Kind::List),
    ("Cmd", Kind::List),
    ("Config", Kind::List),
    ("DNSNames", Kind::List),
    ("DeviceCgroupRules", Kind::List),
    ("DeviceRequests", Kind::List),
    ("Devices", Kind::List),
    ("Dns", Kind::List),
    ("DnsOptions", Kind::List),
    ("DnsSearch", Kind::List),
    ("Entrypoint", Kind::List),
    ("Env", Kind::List),
    ("ExecIDs", Kind::List),
    ("ExtraHosts", Kind::List),
    ("GroupAdd", Kind::List),
    ("Links", Kind::List),
    ("MaskedPaths", Kind::List),
    ("Mounts", Kind::List),
    ("OnBuild", Kind::List),
    ("ReadonlyPaths", Kind::List),
    ("RepoDigests", Kind::List),
    ("RepoTags", Kind::List),
    ("SecondaryIPAddresses", Kind::List),
    ("SecondaryIPv6Addresses", Kind::List),
    ("SecurityOpt", Kind::List),
    ("Shell", Kind::List),
    ("Ulimits", Kind::List),
    ("VolumesFrom", Kind::List),
    ("Annotations", Kind::Map),
    ("Containers", Kind::Map),
    ("Data", Kind::Map),
    ("DriverOpts", Kind::Map),
    ("ExposedPorts", Kind::Map),
    ("Labels", Kind::Map),
    ("Networks", Kind::Map),
    ("Options", Kind::Map),
    ("PortBindings", Kind::Map),
    ("Ports", Kind::Map),
    ("Status", Kind::Map),
    ("StorageOpt", Kind::Map),
    ("Sysctls", Kind::Map),
    ("Tmpfs", Kind::Map),
    ("Volumes", Kind::Map),
    ("Author", Kind::Text),
    ("Cgroup", Kind::Text),
    ("Comment", Kind::Text),
    ("Domainname", Kind::Text),
    ("Hostname", Kind::Text),
    ("Image", Kind::Text),
    ("MacAddress", Kind::Text),
    ("Name", Kind::Text),
    ("StopSignal", Kind::Text),
    ("User", Kind::Text),
    ("Variant", Kind::Text),
    ("WorkingDir", Kind::Text),
    ("ArgsEscaped", Kind::Switch),
    ("AttachStdin", Kind::Switch),
    ("OpenStdin", Kind::Switch),
    ("Tty", Kind::Switch),
];

fn kind(field: &str) -> Option<Kind> {
    FIELDS.iter().find(|(known, _)| *known == field).map(|(_, kind)| *kind)
}

/// What a field is that Docker's structure has and the value does not say; `None` for a field that is unknown there.
///
/// `above` is the field that it is one of, where it is not at the top: the rows of lists have fields of the same names.
pub(super) fn absent(field: &str, above: Option<&str>) -> Option<Value> {
    match above {
        Some("Config" | "ContainerConfig" | "HostConfig" | "NetworkSettings" | "State") => {}
        None if matches!(field, "SizeRw" | "SizeRootFs" | "Variant") => {}
        _ => return None,
    }
    Some(match kind(field)? {
        Kind::Text => Value::String(String::new()),
        Kind::Switch => Value::Bool(false),
        Kind::Pointer | Kind::List | Kind::Map => Value::Null,
    })
}

/// The same for a row of `Mounts`, which not all have a name and a driver.
pub(super) fn of_mount(row: &Value, field: &str) -> Option<Value> {
    let known = matches!(field, "Name" | "Driver") && row.get("Destination").is_some() && row.get("Propagation").is_some();
    known.then(|| Value::String(String::new()))
}

/// How Go prints what is nothing, by the path of fields that led there.
pub(super) fn printed(path: &[String]) -> &'static str {
    let Some((last, above)) = path.split_last() else { return "<no value>" };
    if above.last().is_some_and(|above| super::shown::is_map(above)) {
        // The key of a map that has it not.
        return "<no value>";
    }
    match kind(last) {
        Some(Kind::Pointer) => "<nil>",
        Some(Kind::List) => "[]",
        Some(Kind::Map) => "map[]",
        Some(Kind::Text | Kind::Switch) | None => "<no value>",
    }
}
