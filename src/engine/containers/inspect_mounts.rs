//! What `inspect` says of a container's files: its mounts, as they are and as they were asked for, and the directories that its root is made of.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use crate::runtime::container::{ContainerSpec, State};
use crate::runtime::{MountSpec, Propagation};
use crate::sys::RootfsMount;

use super::super::Engine;
use super::{ContainerInfo, MountRequest, Submounts, VolumesFrom, mounts};

impl std::fmt::Display for VolumesFrom {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mode = match self.writable {
            None => "",
            Some(true) => ":rw",
            Some(false) => ":ro",
        };
        write!(f, "{}{mode}", self.container)
    }
}

fn propagation(known: Propagation) -> &'static str {
    match known {
        Propagation::Private => "rprivate",
        Propagation::Slave => "rslave",
        Propagation::Shared => "rshared",
        Propagation::Unbindable => "runbindable",
    }
}

impl MountRequest {
    /// The request as an entry of `HostConfig.Binds`; `None` for what is no directory of the host and no volume with a name.
    pub(super) fn bind_text(&self) -> Option<String> {
        let (source, target, options) = match self {
            MountRequest::Bind { source, target, read_only, propagation: travels, mapped, .. } => {
                let travels = (*travels != Propagation::default()).then(|| propagation(*travels));
                let source = std::path::absolute(source).unwrap_or_else(|_| source.clone());
                (source.display().to_string(), target, [read_only.then_some("ro"), travels, mapped.then_some("idmap")])
            }
            MountRequest::Volume { name: Some(name), target, read_only, copy, .. } => {
                (name.clone(), target, [read_only.then_some("ro"), (!copy).then_some("nocopy"), None])
            }
            _ => return None,
        };
        let options: Vec<&str> = options.into_iter().flatten().collect();
        let options = if options.is_empty() { String::new() } else { format!(":{}", options.join(",")) };
        Some(format!("{source}:{target}{options}"))
    }

    /// The request as an entry of `HostConfig.Mounts`.
    pub(super) fn inspected(&self) -> Value {
        let (mut options, mut value) = (Map::new(), Map::new());
        let (kind, source, read_only, key) = match self {
            MountRequest::Bind { source, read_only, propagation: travels, below, create, .. } => {
                if *travels != Propagation::default() {
                    options.insert("Propagation".into(), json!(propagation(*travels)));
                }
                options.extend((*below == Submounts::Disabled).then(|| ("NonRecursive".to_owned(), json!(true))));
                options.extend((*below == Submounts::Writable).then(|| ("ReadOnlyNonRecursive".to_owned(), json!(true))));
                options.extend(create.then(|| ("CreateMountpoint".to_owned(), json!(true))));
                ("bind", source.display().to_string(), *read_only, "BindOptions")
            }
            MountRequest::Volume { name, read_only, copy, subpath, labels, options: driver, .. } => {
                options.extend((!copy).then(|| ("NoCopy".to_owned(), json!(true))));
                options.extend((!labels.is_empty()).then(|| ("Labels".to_owned(), json!(labels))));
                options.extend((!driver.is_empty()).then(|| ("DriverConfig".to_owned(), json!({ "Name": "local", "Options": driver }))));
                options.extend(subpath.as_ref().map(|path| ("Subpath".to_owned(), json!(path.relative()))));
                ("volume", name.clone().unwrap_or_default(), *read_only, "VolumeOptions")
            }
            MountRequest::Image { image, subpath, .. } => {
                options.extend((!subpath.is_root()).then(|| ("Subpath".to_owned(), json!(subpath.relative()))));
                ("image", image.clone(), true, "ImageOptions")
            }
            MountRequest::Tmpfs { size, mode, read_only, .. } => {
                options.extend(size.map(|size| ("SizeBytes".to_owned(), json!(size))));
                options.extend(mode.map(|mode| ("Mode".to_owned(), json!(mode))));
                ("tmpfs", String::new(), *read_only, "TmpfsOptions")
            }
        };
        value.insert("Type".into(), json!(kind));
        value.extend((!source.is_empty()).then(|| ("Source".to_owned(), json!(source))));
        value.insert("Target".into(), json!(self.target().to_string()));
        value.extend((read_only && kind != "image").then(|| ("ReadOnly".to_owned(), json!(true))));
        value.extend((!options.is_empty()).then(|| (key.to_owned(), Value::Object(options))));
        Value::Object(value)
    }
}

impl Engine {
    /// `Mounts`.
    pub(super) fn mounts_json(&self, spec: &ContainerSpec) -> Value {
        let containers: Option<PathBuf> = self.store().container_dir(&spec.id).parent().map(Path::to_owned);
        let volume = |target: &str| spec.written.mounted_volumes.iter().find(|volume| volume.target == target);
        let list = spec.sandbox.mounts.iter().filter_map(|mount| match mount {
            mount if let Some(volume) = volume(&mount.target().to_string()) => Some(json!({
                "Type": "volume", "Name": volume.name, "Source": self.store().volume_path(&volume.name), "Destination": volume.target, "Driver": "local",
                "Mode": "", "RW": !volume.read_only, "Propagation": "",
            })),
            MountSpec::Bind { target, read_only, propagation: travels, .. } => {
                let path = mounts::bind_path(mount)?;
                if path.parent().and_then(Path::parent) == containers.as_deref() {
                    return None;
                }
                Some(json!({
                    "Type": "bind", "Source": path, "Destination": target.to_string(), "Mode": if *read_only { "ro" } else { "" }, "RW": !read_only,
                    "Propagation": propagation(*travels),
                }))
            }
            MountSpec::Filesystem { .. } => None,
            // Those of `--tmpfs` are in `HostConfig.Tmpfs` alone, as with Docker.
            MountSpec::Tmpfs { target, .. } if spec.written.tmpfs.contains_key(&target.to_string()) => None,
            MountSpec::Tmpfs { target, read_only, .. } => Some(
                json!({ "Type": "tmpfs", "Source": "", "Destination": target.to_string(), "Mode": "", "RW": !read_only, "Propagation": "" }),
            ),
            MountSpec::Overlay { target, .. } => {
                Some(json!({ "Type": "image", "Source": "", "Destination": target.to_string(), "Mode": "", "RW": false, "Propagation": "" }))
            }
        });
        Value::Array(list.collect())
    }

    /// `GraphDriver` of an image: the directories of its layers.
    pub fn image_layers(&self, image: &crate::store::ImageRecord) -> Value {
        graph_driver(&self.store().rootfs(&image.snapshots, None, None), None)
    }
}

/// `GraphDriver`: the directories that a container's root is made of. The merged tree is mounted for the container alone, so it is there by one of its processes.
pub(super) fn container_layers(info: &ContainerInfo, spec: &ContainerSpec) -> Value {
    let pid = match &info.state {
        Some(State::Running { pid, .. }) => Some(*pid),
        _ => None,
    };
    graph_driver(&spec.sandbox.rootfs, pid)
}

fn graph_driver(rootfs: &RootfsMount, pid: Option<u32>) -> Value {
    let mut data = Map::new();
    let text = |path: &PathBuf| path.display().to_string();
    match rootfs {
        RootfsMount::Overlay { lower, upper: Some(upper), .. } => {
            data.insert("LowerDir".into(), json!(lower.iter().map(text).collect::<Vec<_>>().join(":")));
            data.insert("UpperDir".into(), json!(upper.upper));
            data.insert("WorkDir".into(), json!(upper.work));
        }
        RootfsMount::Overlay { lower, upper: None, .. } => {
            if let Some((top, below)) = lower.split_first() {
                if !below.is_empty() {
                    data.insert("LowerDir".into(), json!(below.iter().map(text).collect::<Vec<_>>().join(":")));
                }
                data.insert("UpperDir".into(), json!(top));
            }
        }
        RootfsMount::Bind { source, .. } => drop(data.insert("UpperDir".into(), json!(source))),
        RootfsMount::Fuse { lower, changes, .. } => {
            data.insert("LowerDir".into(), json!(lower.iter().map(text).collect::<Vec<_>>().join(":")));
            data.insert("UpperDir".into(), json!(changes.upper));
            data.insert("WorkDir".into(), json!(changes.work));
        }
    }
    if let Some(pid) = pid {
        data.insert("MergedDir".into(), json!(format!("/proc/{pid}/root")));
    }
    let name = if matches!(rootfs, RootfsMount::Fuse { .. }) { "fuse-overlayfs" } else { "overlay2" };
    json!({ "Data": data, "Name": name })
}
