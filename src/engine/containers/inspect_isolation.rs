//! What `inspect` says of a container's isolation, under Docker's names of `HostConfig`.

use serde_json::{Map, Value, json};

use crate::runtime::container::ContainerSpec;
use crate::runtime::{MASKED, Privileges, READ_ONLY, Resource, Sharing, SystemPaths, Throttle, ThrottleKind};

/// The fields of `HostConfig` about namespaces, control groups and the kernel's files.
pub(super) fn isolation(spec: &ContainerSpec) -> Map<String, Value> {
    let (sandbox, namespaces) = (&spec.sandbox, &spec.sandbox.namespaces);
    let limits = sandbox.cgroup.clone().unwrap_or_default();
    let ipc = match &namespaces.ipc {
        _ if namespaces.no_shm => "none".to_owned(),
        Sharing::Own if namespaces.ipc_shareable => "shareable".to_owned(),
        other => mode(other, "private"),
    };
    let hidden = sandbox.system_paths == SystemPaths::Masked && sandbox.privileges != Privileges::Insecure;
    let paths = |list: &[&str]| if hidden { json!(list) } else { json!([]) };
    let throttles = |kind| throttles(&limits.throttles, kind);
    let devices = sandbox
        .devices
        .iter()
        .map(|device| json!({ "PathOnHost": device.source, "PathInContainer": device.target.to_string(), "CgroupPermissions": device.access.to_string() }));
    let ulimits = sandbox.process.rlimits.iter().map(|limit| {
        let number = |value: u64| if value == u64::MAX { json!(-1) } else { json!(value) };
        json!({ "Name": resource(limit.resource), "Hard": number(limit.hard), "Soft": number(limit.soft) })
    });
    let sysctls: Map<String, Value> = sandbox.sysctls.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
    let value = json!({
        "PidMode": mode(&namespaces.pid, ""),
        "IpcMode": ipc,
        "UTSMode": mode(&namespaces.uts, ""),
        "UsernsMode": if spec.users.is_some() { "auto" } else { "" },
        "CgroupnsMode": mode(&namespaces.cgroup, "private"),
        "CgroupParent": limits.parent.unwrap_or_default(),
        "BlkioWeight": limits.blkio_weight.unwrap_or(0),
        "BlkioDeviceReadBps": throttles(ThrottleKind::ReadBytes),
        "BlkioDeviceWriteBps": throttles(ThrottleKind::WriteBytes),
        "BlkioDeviceReadIOps": throttles(ThrottleKind::ReadOperations),
        "BlkioDeviceWriteIOps": throttles(ThrottleKind::WriteOperations),
        "MemorySwappiness": limits.swappiness,
        "OomKillDisable": limits.oom_kill_disable,
        "OomScoreAdj": sandbox.process.oom_score_adjust.unwrap_or(0),
        "Devices": devices.collect::<Vec<_>>(),
        "Sysctls": sysctls,
        "Ulimits": ulimits.collect::<Vec<_>>(),
        "MaskedPaths": paths(&MASKED),
        "ReadonlyPaths": paths(&READ_ONLY),
    });
    match value {
        Value::Object(fields) => fields,
        _ => Map::new(),
    }
}

fn mode(sharing: &Sharing, own: &str) -> String {
    match sharing {
        Sharing::Own => own.to_owned(),
        Sharing::Host => "host".to_owned(),
        Sharing::Container(id) => format!("container:{id}"),
    }
}

fn throttles(all: &[Throttle], kind: ThrottleKind) -> Value {
    let of_kind = all.iter().filter(|throttle| throttle.kind == kind);
    Value::Array(of_kind.map(|throttle| json!({ "Path": throttle.path, "Rate": throttle.rate })).collect())
}

/// The name that `--ulimit` has for it.
fn resource(resource: Resource) -> Value {
    json!(resource)
}
