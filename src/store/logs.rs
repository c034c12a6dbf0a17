//! Logs of build steps: whole, on disk, a directory for each build. Only those of the latest builds are kept.

use std::fs::File;
use std::path::PathBuf;

use super::layout::random_name;
use super::open::{make_dir, now};
use super::remove::remove_tree;
use super::{Error, Store};

/// How many builds' logs are kept.
const KEPT: usize = 64;

/// The logs of one build. The directory is made with the first log: most builds that find everything in the cache have none.
#[derive(Clone, Debug)]
pub struct BuildLogs {
    store: Store,
    dir: PathBuf,
}

impl Store {
    /// Names a place for the logs of a new build.
    pub fn build_logs(&self) -> Result<BuildLogs, Error> {
        // The time first, so that sorting by name is sorting by age.
        let name = format!("{:016x}-{}", now(), random_name()?);
        Ok(BuildLogs { store: self.clone(), dir: self.layout().logs().join(name) })
    }
}

impl BuildLogs {
    /// Makes a log called `name`, which is cleaned to be a file's name.
    pub fn create(&self, name: &str) -> Result<(File, PathBuf), Error> {
        if !self.dir.try_exists().map_err(Error::io("stat", &self.dir))? {
            self.forget_old();
            make_dir(&self.store.layout().logs(), 0o700)?;
            make_dir(&self.dir, 0o700)?;
        }
        let clean: String = name.chars().map(|c| if c.is_ascii_alphanumeric() || c == '.' { c } else { '-' }).take(100).collect();
        let path = self.dir.join(format!("{}.log", clean.trim_matches(['-', '.'])));
        let file = File::options().append(true).create(true).open(&path).map_err(Error::io("create", &path))?;
        Ok((file, path))
    }

    /// Removes the logs of the oldest builds. Whatever cannot be removed stays: logs are no promise.
    fn forget_old(&self) {
        let Ok(entries) = std::fs::read_dir(self.store.layout().logs()) else { return };
        let mut builds: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        builds.sort();
        let surplus = builds.len().saturating_sub(KEPT - 1);
        for path in builds.into_iter().take(surplus) {
            let _ = remove_tree(&path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_latest_builds_keep_their_logs() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::open(root.path()).unwrap();
        let mut last = PathBuf::new();
        for _ in 0..KEPT + 5 {
            last = store.build_logs().unwrap().create("[a 1/2] RUN x/../y").unwrap().1;
        }
        assert!(last.exists() && last.file_name().unwrap() == "a-1-2--RUN-x-..-y.log", "{last:?}");
        assert_eq!(std::fs::read_dir(store.layout().logs()).unwrap().count(), KEPT);
    }
}
