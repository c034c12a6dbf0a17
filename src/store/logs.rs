//! Logs of build steps: whole, on disk, a directory for each build. Only those of the latest builds are kept.

use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime};

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
    /// How many logs were made.
    count: Arc<AtomicU32>,
}

/// A build whose logs are there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoggedBuild {
    /// Names the build among those that are kept.
    pub id: String,
    /// When it began.
    pub at: SystemTime,
    /// The titles of the steps that ran, in the order in which they began, with their logs.
    pub steps: Vec<(String, PathBuf)>,
}

/// The file with the titles, one a line, in the order of the logs' numbers.
const TITLES: &str = "titles";

impl Store {
    /// Names a place for the logs of a new build.
    pub fn build_logs(&self) -> Result<BuildLogs, Error> {
        // The time first, so that sorting by name is sorting by age.
        let name = format!("{:016x}-{}", now(), random_name()?);
        Ok(BuildLogs { store: self.clone(), dir: self.layout().logs().join(name), count: Arc::default() })
    }

    /// The builds that ran steps, the latest first.
    pub fn logged_builds(&self) -> Result<Vec<LoggedBuild>, Error> {
        let logs = self.layout().logs();
        let entries = match std::fs::read_dir(&logs) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(Error::io("read", &logs)(error)),
        };
        let mut builds: Vec<LoggedBuild> = entries.flatten().filter_map(|entry| logged_build(&entry.path())).collect();
        builds.sort_by(|one, other| (other.at, &other.id).cmp(&(one.at, &one.id)));
        Ok(builds)
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
        let number = self.count.fetch_add(1, Ordering::Relaxed) + 1;
        let path = self.dir.join(format!("{number:03}-{}.log", clean.trim_matches(['-', '.'])));
        let file = File::options().append(true).create(true).open(&path).map_err(Error::io("create", &path))?;
        let titles = self.dir.join(TITLES);
        let mut titles = File::options().append(true).create(true).open(&titles).map_err(Error::io("create", &titles))?;
        let line = format!("{number:03} {}\n", name.replace(['\n', '\r'], " "));
        // Without its title, a log is called by its file's name.
        let _ = titles.write_all(line.as_bytes());
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

/// Reads the directory of a build's logs; `None` where it is none.
fn logged_build(dir: &std::path::Path) -> Option<LoggedBuild> {
    let id = dir.file_name()?.to_str()?.to_owned();
    let micros = u64::from_str_radix(id.split('-').next()?, 16).ok()?;
    let titles = std::fs::read_to_string(dir.join(TITLES)).unwrap_or_default();
    let title = |number: &str| titles.lines().find_map(|line| line.strip_prefix(number)?.strip_prefix(' ')).map(str::to_owned);
    let mut steps: Vec<(String, PathBuf)> = Vec::new();
    for entry in std::fs::read_dir(dir).ok()?.flatten() {
        let name = entry.file_name().into_string().ok()?;
        if let Some(stem) = name.strip_suffix(".log") {
            let number = stem.split('-').next().unwrap_or_default();
            steps.push((title(number).unwrap_or_else(|| stem.to_owned()), entry.path()));
        }
    }
    steps.sort_by(|one, other| one.1.cmp(&other.1));
    Some(LoggedBuild { id, at: SystemTime::UNIX_EPOCH + Duration::from_micros(micros), steps })
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
        assert!(last.exists() && last.file_name().unwrap() == "001-a-1-2--RUN-x-..-y.log", "{last:?}");
        assert_eq!(std::fs::read_dir(store.layout().logs()).unwrap().count(), KEPT);
    }

    #[test]
    fn builds_are_listed_with_their_steps_in_order() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::open(root.path()).unwrap();
        assert_eq!(store.logged_builds().unwrap(), []);
        for titles in [vec!["[a 1/1] RUN old"], vec!["[b 2/2] RUN z", "[b 1/2] RUN\na"]] {
            let logs = store.build_logs().unwrap();
            for title in titles {
                logs.create(title).unwrap().0.write_all(title.as_bytes()).unwrap();
            }
        }
        let builds = store.logged_builds().unwrap();
        let titles = |build: &LoggedBuild| build.steps.iter().map(|(title, _)| title.clone()).collect::<Vec<_>>();
        assert_eq!(titles(&builds[0]), ["[b 2/2] RUN z", "[b 1/2] RUN a"]);
        assert_eq!(titles(&builds[1]), ["[a 1/1] RUN old"]);
        assert_eq!(std::fs::read_to_string(&builds[0].steps[1].1).unwrap(), "[b 1/2] RUN\na");
        assert!(builds[0].at.elapsed().unwrap() < Duration::from_secs(60));
    }
}
