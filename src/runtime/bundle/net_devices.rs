//! Network devices of the host that become the container's (config-linux.md, "Network devices").

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;

use super::Error;
use super::config::NetDevice;
use crate::runtime::network;

/// Looks for what the kernel would refuse.
pub(super) fn check(devices: &BTreeMap<String, NetDevice>, has_network: bool) -> Result<(), Error> {
    let mut names = BTreeSet::new();
    for (device, given) in devices {
        let wrong = |reason: String| Err(Error::invalid(format!("linux.netDevices ({device})"), reason));
        let name = given.name_of(device);
        if !has_network {
            return wrong("it needs a network namespace".to_owned());
        }
        if let Some(name) = [device.as_str(), name].into_iter().find(|name| !is_name(name)) {
            return wrong(format!("`{name}` is no name of a network device"));
        }
        if !names.insert(name) {
            return wrong(format!("another device is called `{name}` inside as well"));
        }
    }
    Ok(())
}

/// What the kernel takes as a name. Patterns (`eth%d`) would be another device's.
fn is_name(name: &str) -> bool {
    let fits = !name.is_empty() && name.len() < libc::IFNAMSIZ && !matches!(name, "." | "..");
    fits && !name.contains(|c: char| matches!(c, '/' | ':' | '%') || c.is_whitespace())
}

/// Moves devices into the network namespace of a process, all or none. This process has one thread.
pub(super) fn give(devices: &BTreeMap<String, NetDevice>, pid: u32) -> Result<(), Error> {
    if devices.is_empty() {
        return Ok(());
    }
    let path = format!("/proc/{pid}/ns/net");
    let namespace = File::open(&path).map_err(Error::file("open the namespace", &path))?;
    let mut moved = Vec::new();
    for (device, given) in devices {
        match network::move_device(device, given.name_of(device), &namespace) {
            Ok(device) => moved.push(device),
            Err(error) => {
                moved.iter().rev().for_each(|device| device.move_back(&namespace));
                return Err(Error::Network(error));
            }
        }
    }
    Ok(())
}
