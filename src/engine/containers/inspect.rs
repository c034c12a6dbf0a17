//! A container as JSON, in the shape that Docker gives it.

use std::path::PathBuf;

use serde_json::{Value, json};

use crate::runtime::container::{ContainerSpec, NetworkRequest, State, StdinMode};
use crate::runtime::{MountSpec, Privileges};

use super::super::{Engine, Error};
use super::{ContainerInfo, mounts};

impl Engine {
    /// All about the container that `text` means; `None` where there is none.
    pub fn inspect_container(&self, text: &str) -> Result<Option<Value>, Error> {
        let Some(record) = self.store().find_container(text)? else { return Ok(None) };
        let info = ContainerInfo::load(self.store(), record);
        let mut value = json!({
            "Id": info.record.id,
            "Name": format!("/{}", info.record.name),
            "Created": info.spec.as_ref().map(|spec| spec.created.clone()),
            "State": state(&info),
            "Image": info.record.image.as_ref().map(ToString::to_string),
            "Platform": "linux",
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
            object.insert("HostConfig".into(), host_config(spec));
            object.insert("Mounts".into(), self.mounts_json(spec));
            object.insert("Config".into(), config(spec, &args));
            let address = match &info.state {
                Some(State::Running { address: Some(address), .. }) => address.to_string(),
                _ => String::new(),
            };
            object.insert("NetworkSettings".into(), json!({ "IPAddress": address }));
        }
        Ok(Some(value))
    }

    fn mounts_json(&self, spec: &ContainerSpec) -> Value {
        let own: Option<PathBuf> = Some(self.store().container_dir(&spec.id));
        let list = spec.sandbox.mounts.iter().filter_map(|mount| match mount {
            MountSpec::Bind { target, read_only, .. } => {
                let path = mounts::bind_path(mount)?;
                if path.parent() == own.as_deref() {
                    return None;
                }
                let volume = path.parent().and_then(|dir| dir.file_name()?.to_str()).filter(|name| self.store().volume_path(name) == *path);
                let kind = if volume.is_some() { "volume" } else { "bind" };
                Some(json!({ "Type": kind, "Name": volume, "Source": path, "Destination": target.to_string(), "RW": !read_only }))
            }
            MountSpec::Tmpfs { target, read_only, .. } => {
                Some(json!({ "Type": "tmpfs", "Source": "", "Destination": target.to_string(), "RW": !read_only }))
            }
            MountSpec::Overlay { .. } => None,
        });
        Value::Array(list.collect())
    }
}

fn state(info: &ContainerInfo) -> Value {
    let status = info.status();
    match &info.state {
        Some(State::Running { pid, started_at, .. }) => json!({
            "Status": status, "Running": true, "Pid": pid, "ExitCode": 0, "OOMKilled": false, "Error": "", "StartedAt": started_at, "FinishedAt": Value::Null,
        }),
        Some(State::Exited { code, oom_killed, started_at, finished_at, error }) => json!({
            "Status": status, "Running": false, "Pid": 0, "ExitCode": code, "OOMKilled": oom_killed, "Error": error.as_deref().unwrap_or(""),
            "StartedAt": started_at, "FinishedAt": finished_at,
        }),
        Some(State::Created) | None => {
            json!({ "Status": status, "Running": false, "Pid": 0, "ExitCode": 0, "OOMKilled": false, "Error": "" })
        }
    }
}

fn host_config(spec: &ContainerSpec) -> Value {
    let limits = spec.sandbox.cgroup.clone().unwrap_or_default();
    let network = match spec.network {
        NetworkRequest::Host => "host",
        NetworkRequest::None => "none",
        NetworkRequest::Private { .. } => "default",
    };
    json!({
        "AutoRemove": spec.auto_remove,
        "NetworkMode": network,
        "Privileged": spec.sandbox.privileges == Privileges::Insecure,
        "ReadonlyRootfs": spec.sandbox.read_only_root,
        "Init": spec.sandbox.init,
        "ShmSize": spec.sandbox.shm_size,
        "Memory": limits.memory.unwrap_or(0),
        "NanoCpus": limits.cpu_millis.unwrap_or(0).saturating_mul(1_000_000),
        "PidsLimit": limits.pids,
    })
}

fn config(spec: &ContainerSpec, args: &[String]) -> Value {
    let process = &spec.sandbox.process;
    let env: Vec<_> = process.env.iter().map(|entry| entry.to_string_lossy().into_owned()).collect();
    json!({
        "Hostname": spec.sandbox.hostname,
        "User": format!("{}:{}", process.user.uid, process.user.gid),
        "Tty": spec.tty,
        "OpenStdin": spec.stdin != StdinMode::Closed,
        "StdinOnce": spec.stdin == StdinMode::Once,
        "Env": env,
        "Cmd": args,
        "Image": spec.image,
        "WorkingDir": process.cwd.to_string(),
        "Labels": spec.labels,
        "StopSignal": spec.stop_signal,
        "StopTimeout": spec.stop_timeout.as_secs(),
    })
}
