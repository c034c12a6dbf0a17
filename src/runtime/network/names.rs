//! By which names the containers of a network are found: one file for each, which its supervisor writes and everybody's DNS servers read.
//!
//! A file counts while its owner holds the address that it names, so that one of a killed owner says nothing. Answers are found in what was read before as long as the
//! directory has not changed since; files are replaced by renaming, which changes it.

use std::collections::HashMap;
use std::fs::File;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use super::Error;
use super::lease::RunDir;

/// How old a change of the directory must be for its time to tell it from the next one.
const SETTLED: Duration = Duration::from_millis(100);

/// What a container is called in one network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Names {
    /// The container's ID.
    pub(super) id: String,
    /// All names, the first one first: that is the one that its address leads to.
    pub(super) names: Vec<String>,
    /// Its address.
    pub(super) v4: Ipv4Addr,
    /// Its IPv6 address.
    pub(super) v6: Option<Ipv6Addr>,
}

/// Names that can be found. Dropping it takes them back.
#[derive(Debug)]
pub(super) struct Published {
    path: PathBuf,
}

impl Drop for Published {
    fn drop(&mut self) {
        // One that stays says nothing: its address is free.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Lets names be found, in place of those that the same container had.
pub(super) fn publish(run_dir: &RunDir, names: &Names) -> Result<Published, Error> {
    let directory = run_dir.names();
    std::fs::create_dir_all(&directory).map_err(Error::file("create", &directory))?;
    let (path, new) = (directory.join(&names.id), directory.join(format!(".{}", names.id)));
    let text = serde_json::to_vec(names).unwrap_or_default();
    std::fs::write(&new, text).and_then(|()| std::fs::rename(&new, &path)).map_err(Error::file("write", &path))?;
    Ok(Published { path })
}

/// The names of one network, as a DNS server reads them.
#[derive(Debug)]
pub(super) struct Directory {
    /// The network's name.
    pub(super) network: String,
    run_dir: RunDir,
    read_at: Option<SystemTime>,
    known: Vec<Names>,
}

impl Directory {
    pub(super) fn new(network: &str, run_dir: &Path) -> Result<Directory, Error> {
        Ok(Directory { network: network.to_owned(), run_dir: RunDir::open(run_dir)?, read_at: None, known: Vec::new() })
    }

    /// Those who have that name, in this network. It is compared without regard to case; the beginning of an ID from twelve digits on is a name as well.
    pub(super) fn named(&mut self, name: &str) -> Vec<Names> {
        let name = name.to_ascii_lowercase();
        let bare = name.strip_suffix(&format!(".{}", self.network.to_ascii_lowercase())).unwrap_or(&name).to_owned();
        let is_id = |text: &str| text.len() >= 12 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let has = |names: &Names, wanted: &str| {
            names.names.iter().any(|name| name.eq_ignore_ascii_case(wanted)) || is_id(wanted) && names.id.starts_with(wanted)
        };
        self.find(|names| has(names, &name) || has(names, &bare))
    }

    /// Who has that address.
    pub(super) fn at(&mut self, address: IpAddr) -> Option<Names> {
        let has = |names: &Names| match address {
            IpAddr::V4(address) => names.v4 == address,
            IpAddr::V6(address) => names.v6 == Some(address),
        };
        self.find(has).into_iter().next()
    }

    fn find(&mut self, wanted: impl Fn(&Names) -> bool) -> Vec<Names> {
        self.refresh();
        self.known.iter().filter(|names| wanted(names) && self.is_alive(names)).cloned().collect()
    }

    fn refresh(&mut self) {
        let directory = self.run_dir.names();
        let changed = std::fs::metadata(&directory).and_then(|metadata| metadata.modified()).ok();
        if changed.is_none() {
            self.known.clear();
        }
        if changed.is_some() && changed == self.read_at {
            return;
        }
        let read = |entry: std::fs::DirEntry| {
            let hidden = entry.file_name().as_encoded_bytes().starts_with(b".");
            (!hidden).then(|| serde_json::from_slice(&std::fs::read(entry.path()).ok()?).ok()).flatten()
        };
        self.known = std::fs::read_dir(&directory).into_iter().flatten().flatten().filter_map(read).collect();
        let settled = changed.filter(|at| SystemTime::now().duration_since(*at).is_ok_and(|age| age > SETTLED));
        self.read_at = settled;
    }

    /// Whether somebody holds the address.
    fn is_alive(&self, names: &Names) -> bool {
        let Ok(file) = File::open(self.run_dir.address(names.v4.into())) else { return false };
        let held = flock(&file, FlockOperation::NonBlockingLockShared).is_err();
        if !held {
            let _ = flock(&file, FlockOperation::Unlock);
        }
        held
    }
}

/// The names of several containers by address: what the answers to one question are made of.
pub(super) fn merged(found: Vec<Names>) -> Vec<Names> {
    let mut seen = HashMap::new();
    found.into_iter().filter(|names| seen.insert((names.id.clone(), names.v4), ()).is_none()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(id: &str, names: &[&str], last: u8) -> Names {
        let names = names.iter().map(|name| (*name).to_owned()).collect();
        Names { id: id.repeat(64), names, v4: Ipv4Addr::new(10, 0, 0, last), v6: None }
    }

    #[test]
    fn names_are_found_while_their_address_is_held() {
        let dir = tempfile::tempdir().unwrap();
        let run_dir = RunDir::open(dir.path()).unwrap();
        let subnet = "10.0.0.0/24".parse().unwrap();
        let mut directory = Directory::new("front", dir.path()).unwrap();
        assert!(directory.named("web").is_empty());
        let lease = run_dir.take_this(subnet, Ipv4Addr::new(10, 0, 0, 2)).unwrap();
        let other = run_dir.take_this(subnet, Ipv4Addr::new(10, 0, 0, 3)).unwrap();
        let published = publish(&run_dir, &names("a", &["web", "both"], 2)).unwrap();
        let second = publish(&run_dir, &names("b", &["db", "both"], 3)).unwrap();
        let found = |directory: &mut Directory, name: &str| {
            let mut last: Vec<u8> = directory.named(name).iter().map(|names| names.v4.octets()[3]).collect();
            last.sort_unstable();
            last
        };
        assert_eq!(found(&mut directory, "WEB"), [2]);
        assert_eq!(found(&mut directory, "web.front"), [2]);
        assert_eq!(found(&mut directory, "both"), [2, 3]);
        assert_eq!(found(&mut directory, &"a".repeat(12)), [2]);
        assert!(found(&mut directory, &"a".repeat(11)).is_empty() && found(&mut directory, "web.back").is_empty());
        assert_eq!(directory.at("10.0.0.3".parse().unwrap()).unwrap().names[0], "db");
        // One that was killed leaves its file.
        drop(other);
        assert_eq!(found(&mut directory, "both"), [2]);
        drop((published, second));
        assert!(found(&mut directory, "web").is_empty());
        drop(lease);
    }
}
