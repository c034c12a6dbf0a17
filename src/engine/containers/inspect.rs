//! A container as JSON, in the shape that Docker gives it.

use std::time::Duration;

use serde_json::{Value, json};

use crate::parser::signals;
use crate::runtime::container::{self, ContainerSpec, LogDriver, RestartPolicy, State, StdinMode};
use crate::runtime::{Capabilities, Privileges};

use super::super::{Engine, Error};
use super::ContainerInfo;
use super::health::health_config;
use super::inspect_isolation::isolation;
use super::inspect_mounts::container_layers;
use super::inspect_network::{extra_hosts, network_mode, network_settings, port_bindings, texts};

/// The time of what has not happened.
const NEVER: &str = "0001-01-01T00:00:00Z";

impl Engine {
    /// All about the container that `text` means, with the sizes of its files where `sizes`; `None` where there is none.
    pub fn inspect_container(&self, text: &str, sizes: bool) -> Result<Option<Value>, Error> {
        let Some(record) = self.store().find_container(text)? else { return Ok(None) };
        let info = ContainerInfo::load(self.store(), record);
        let mut value = json!({
            "Id": info.record.id,
            "Name": format!("/{}", info.record.name),
            "Created": info.spec.as_ref().map(|spec| spec.created.clone()),
            "State": state(&info),
            "Image": info.record.image.as_ref().map(ToString::to_string),
            "RestartCount": restarts(&info),
            "Driver": "overlay2",
            "Platform": "linux",
            "MountLabel": "",
            "ProcessLabel": "",
            "AppArmorProfile": info.spec.as_ref().map_or("", |spec| spec.sandbox.apparmor.shown()),
            "ExecIDs": exec_ids(&info),
        });
        if let (Some(spec), Some(object)) = (&info.spec, value.as_object_mut()) {
            let args: Vec<String> = spec.sandbox.process.args.iter().map(|arg| arg.to_string_lossy().into_owned()).collect();
            object.insert("Path".into(), json!(args.first()));
            object.insert("Args".into(), json!(args.get(1..).unwrap_or_default()));
            for (key, file) in
                [("ResolvConfPath", "resolv.conf"), ("HostnamePath", "hostname"), ("HostsPath", "hosts"), ("LogPath", "container.log")]
            {
                object.insert(key.into(), json!(info.dir.join(file)));
            }
            if spec.log.driver == LogDriver::None {
                object.insert("LogPath".into(), json!(""));
            }
            object.insert("HostConfig".into(), self.host_config(spec));
            object.insert("GraphDriver".into(), container_layers(&info, spec));
            if sizes {
                let (written, whole) = self.container_sizes(&info);
                object.insert("SizeRw".into(), json!(written));
                object.insert("SizeRootFs".into(), json!(whole));
            }
            object.insert("Mounts".into(), self.mounts_json(spec));
            object.insert("Config".into(), config(spec, &args));
            object.insert("NetworkSettings".into(), network_settings(&info, spec));
        }
        Ok(Some(value))
    }

    /// `HostConfig.Links`: `/OTHER:/CONTAINER/ALIAS`.
    fn links_json(&self, spec: &ContainerSpec) -> Value {
        let name = |id: &str| self.store().find_container(id).ok().flatten().map_or_else(|| id.to_owned(), |record| record.name);
        let links = &spec.names.links;
        let texts = links.iter().map(|link| format!("/{}:/{}/{}", name(&link.id), spec.name, link.alias)).collect::<Vec<_>>();
        if texts.is_empty() { Value::Null } else { json!(texts) }
    }

    fn host_config(&self, spec: &ContainerSpec) -> Value {
        let limits = spec.sandbox.cgroup.clone().unwrap_or_default();
        let (add, drop) = match spec.sandbox.privileges {
            Privileges::Default { add, drop } => (names(add), names(drop)),
            Privileges::Insecure => (Value::Null, Value::Null),
        };
        let isolation = isolation(spec);
        let (written, list) = (&spec.written, |all: &Vec<String>| if all.is_empty() { Value::Null } else { json!(all) });
        let mut value = json!({
            "Binds": list(&written.binds),
            "ContainerIDFile": written.cidfile,
            "LogConfig": log_config(spec),
            "AutoRemove": spec.auto_remove,
            "NetworkMode": network_mode(spec),
            "PortBindings": port_bindings(&spec.ports),
            "Dns": texts(&spec.names.resolv.servers),
            "DnsSearch": spec.names.resolv.search,
            "DnsOptions": spec.names.resolv.options,
            "ExtraHosts": extra_hosts(spec),
            "RestartPolicy": restart_policy(spec.restart),
            "PublishAllPorts": written.publish_all,
            "VolumesFrom": list(&written.volumes_from),
            "GroupAdd": list(&written.group_add),
            "Links": self.links_json(spec),
            "Privileged": spec.sandbox.privileges == Privileges::Insecure,
            "CapAdd": add,
            "CapDrop": drop,
            "SecurityOpt": security(spec),
            "ReadonlyRootfs": spec.sandbox.read_only_root,
            "Runtime": spec.runtime.as_ref().map_or("strake", |runtime| runtime.name.as_str()),
            "Init": spec.sandbox.init,
            "ShmSize": spec.sandbox.shm_size,
            "Memory": limits.memory.unwrap_or(0),
            "MemorySwap": limits.memory_swap.map_or_else(|| json!(limits.memory.unwrap_or(0).saturating_mul(2)), |swap| if swap == u64::MAX { json!(-1) } else { json!(swap) }),
            "MemoryReservation": limits.memory_reservation.unwrap_or(0),
            "NanoCpus": limits.cpu_millis.unwrap_or(0).saturating_mul(1_000_000),
            "CpuShares": limits.cpu_shares.unwrap_or(0),
            "CpuPeriod": limits.cpu_period.unwrap_or(0),
            "CpuQuota": limits.cpu_quota.unwrap_or(0),
            "CpusetCpus": limits.cpuset_cpus.unwrap_or_default(),
            "CpusetMems": limits.cpuset_mems.unwrap_or_default(),
            "PidsLimit": limits.pids,
        });
        if let Value::Object(fields) = &mut value {
            fields.extend(never().into_iter().map(|(name, value)| (name.to_owned(), value)));
            fields.insert("DeviceCgroupRules".to_owned(), list(&written.device_rules));
            let requests =
                json!([{ "Driver": "cdi", "Count": 0, "DeviceIDs": written.named_devices, "Capabilities": null, "Options": null }]);
            fields.insert("DeviceRequests".to_owned(), if written.named_devices.is_empty() { Value::Null } else { requests });
            fields.extend((!written.tmpfs.is_empty()).then(|| ("Tmpfs".to_owned(), json!(written.tmpfs))));
            fields.extend((!written.mounts.is_empty()).then(|| ("Mounts".to_owned(), json!(written.mounts))));
            fields.extend((!written.annotations.is_empty()).then(|| ("Annotations".to_owned(), json!(written.annotations))));
            fields.extend(isolation);
        }
        value
    }
}

/// Fields of what containers here never have.
fn never() -> [(&'static str, Value); 11] {
    [
        ("VolumeDriver", json!("")),
        ("Cgroup", json!("")),
        ("ConsoleSize", json!([0, 0])),
        ("Isolation", json!("")),
        ("CpuRealtimePeriod", json!(0)),
        ("CpuRealtimeRuntime", json!(0)),
        ("CpuCount", json!(0)),
        ("CpuPercent", json!(0)),
        ("IOMaximumIOps", json!(0)),
        ("IOMaximumBandwidth", json!(0)),
        ("BlkioWeightDevice", json!([])),
    ]
}

fn names(set: Capabilities) -> Value {
    match set {
        Capabilities::NONE => Value::Null,
        Capabilities::ALL => json!(["ALL"]),
        set => json!(set.names().map(|name| format!("CAP_{name}")).collect::<Vec<_>>()),
    }
}

fn security(spec: &ContainerSpec) -> Value {
    let options = &spec.written.security;
    if options.is_empty() { Value::Null } else { json!(options) }
}

fn log_config(spec: &ContainerSpec) -> Value {
    let log = &spec.log;
    let mut config: serde_json::Map<String, Value> =
        spec.written.log_options.iter().map(|(key, value)| (key.clone(), json!(value))).collect();
    let usual = container::LogSettings::of(log.driver);
    if let Some(size) = log.max_size.filter(|_| log.max_size != usual.max_size) {
        config.entry("max-size").or_insert_with(|| json!(size.to_string()));
    }
    if log.max_files != usual.max_files {
        config.entry("max-file").or_insert_with(|| json!(log.max_files.to_string()));
    }
    json!({ "Type": log.driver, "Config": config })
}

fn restart_policy(policy: RestartPolicy) -> Value {
    let (name, most) = match policy {
        RestartPolicy::No => ("no", 0),
        RestartPolicy::Always => ("always", 0),
        RestartPolicy::UnlessStopped => ("unless-stopped", 0),
        RestartPolicy::OnFailure(most) => ("on-failure", most),
    };
    json!({ "Name": name, "MaximumRetryCount": most })
}

fn restarts(info: &ContainerInfo) -> u32 {
    match &info.state {
        Some(State::Running { restarts, .. } | State::Restarting { restarts, .. } | State::Exited { restarts, .. }) => *restarts,
        _ => 0,
    }
}

/// The commands that run in it beside its own; `null` without any, as Docker has it.
fn exec_ids(info: &ContainerInfo) -> Value {
    let ids = if info.is_running() { container::execs(&info.dir) } else { Vec::new() };
    if ids.is_empty() { Value::Null } else { json!(ids) }
}

fn state(info: &ContainerInfo) -> Value {
    let status = info.status();
    let (mut pid, mut code, mut oom, mut why) = (0, 0, false, "");
    let (mut started, mut finished) = (NEVER, NEVER);
    match &info.state {
        Some(State::Running { pid: running, started_at, .. }) => (pid, started) = (*running, started_at),
        Some(State::Exited { code: ended, oom_killed, started_at, finished_at, error, .. }) => {
            (code, oom, why) = (*ended, *oom_killed, error.as_deref().unwrap_or(""));
            (started, finished) = (started_at.as_deref().unwrap_or(NEVER), finished_at.as_deref().unwrap_or(NEVER));
        }
        Some(State::Restarting { code: ended, oom_killed, started_at, finished_at, .. }) => {
            (code, oom, started, finished) = (*ended, *oom_killed, started_at, finished_at);
        }
        Some(State::Created) | None => {}
    }
    let mut value = json!({
        "Status": status,
        "Running": info.is_alive(),
        "Paused": status == "paused",
        "Restarting": status == "restarting",
        "OOMKilled": oom,
        "Dead": status == "dead",
        "Pid": pid,
        "ExitCode": code,
        "Error": why,
        "StartedAt": started,
        "FinishedAt": finished,
    });
    if let (Some(health), Some(object)) = (&info.health, value.as_object_mut()) {
        object.insert("Health".into(), json!(health));
    }
    value
}

fn config(spec: &ContainerSpec, args: &[String]) -> Value {
    let (process, written) = (&spec.sandbox.process, &spec.written);
    let command = if written.command.is_empty() && written.entrypoint.is_empty() { args } else { &written.command };
    let ports: serde_json::Map<String, Value> = written.ports.iter().map(|port| (port.clone(), json!({}))).collect();
    let volumes: serde_json::Map<String, Value> = written.volumes.iter().map(|path| (path.clone(), json!({}))).collect();
    let mut value = json!({
        "Hostname": spec.sandbox.hostname,
        "Domainname": spec.names.domain.as_deref().unwrap_or_default(),
        "User": written.user,
        "AttachStdin": written.attached[0],
        "AttachStdout": written.attached[1],
        "AttachStderr": written.attached[2],
        "Tty": spec.tty,
        "OpenStdin": spec.stdin != StdinMode::Closed,
        "StdinOnce": spec.stdin == StdinMode::Once,
        "Env": written.env,
        "Cmd": command,
        "Image": spec.image,
        "Volumes": volumes,
        "ExposedPorts": ports,
        "WorkingDir": process.cwd.to_string(),
        "Entrypoint": if written.entrypoint.is_empty() { Value::Null } else { json!(written.entrypoint) },
        "OnBuild": if written.on_build.is_empty() { Value::Null } else { json!(written.on_build) },
        "Labels": spec.labels,
        "StopTimeout": if spec.stop_timeout == Duration::MAX { json!(-1) } else { json!(spec.stop_timeout.as_secs()) },
    });
    if let Some(object) = value.as_object_mut() {
        object.extend(stop_signal(spec).map(|signal| ("StopSignal".to_owned(), json!(signal))));
        let health = written.health.clone().or_else(|| spec.health.as_ref().map(health_config));
        object.extend(health.map(|health| ("Healthcheck".to_owned(), json!(health))));
        object.extend((!written.shell.is_empty()).then(|| ("Shell".to_owned(), json!(written.shell))));
    }
    value
}

/// The signal that asks it to stop, where that is another than usual or the image says it.
fn stop_signal(spec: &ContainerSpec) -> Option<String> {
    let of_image = spec.written.stop_signal.clone();
    let is_usual = of_image.as_ref().map_or(spec.stop_signal == libc::SIGTERM, |word| signals::number(word) == Some(spec.stop_signal));
    match is_usual {
        true => of_image,
        false => Some(signals::name(spec.stop_signal).map_or_else(|| spec.stop_signal.to_string(), |name| format!("SIG{name}"))),
    }
}
