//! Who may come in: users and bcrypt hashes in a file as `htpasswd -B` writes it.
//!
//! Whoever is in the file may do everything that the server does. The file is read again when it changes; while it cannot be read or understood, nobody comes in: who was taken out of it
//! must not stay in because of a mistake beside.
//! Checking a password costs milliseconds on purpose, so what was right once is remembered (as a hash, in memory) until the file changes.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tokio::sync::Semaphore;

use crate::oci::Digest;
use crate::task::blocking;

use super::Error;

/// What is checked for users that do not exist, so that they take as long as others: the hash of nothing that anyone knows.
const NOBODY: &str = "$2y$05$DvpicKlGCIFLq1Gdkc1PXOfO8hsZkJDFlMBEqBEZAQI0BjP35BWhS";

/// Passwords that are checked at once: they must not take all cores from those who are in.
const CHECKS: usize = 2;

/// The users of one registry. Cheap to clone.
#[derive(Clone)]
pub(super) struct Users {
    inner: Arc<Inner>,
}

struct Inner {
    path: PathBuf,
    state: Mutex<State>,
    checks: Semaphore,
}

struct State {
    /// What the file was when it was read: time and size.
    version: Option<(SystemTime, u64)>,
    hashes: HashMap<String, String>,
    /// Hashes of what was right before.
    right: HashSet<Digest>,
}

impl Users {
    /// Reads the users in the file `path`.
    pub(super) fn load(path: &Path) -> Result<Users, Error> {
        let (version, text) = read(path)?;
        let state = State { version, hashes: parse(path, &text)?, right: HashSet::new() };
        Ok(Users { inner: Arc::new(Inner { path: path.to_owned(), state: Mutex::new(state), checks: Semaphore::new(CHECKS) }) })
    }

    /// The user whom the header `Authorization` names, if the password is his.
    ///
    /// # Errors
    /// The file cannot be read, or not be understood.
    pub(super) async fn check(&self, header: Option<&str>) -> Result<Option<String>, Error> {
        let Some((user, password)) = header.and_then(basic) else { return Ok(None) };
        let users = self.clone();
        let (name, key) = (user.clone(), Digest::sha256(format!("{user}\0{password}").as_bytes()));
        let (hash, seen) = {
            let key = key.clone();
            blocking(move || users.look_up(&name, &key)).await?
        };
        if seen {
            return Ok(Some(user));
        }
        let Ok(_turn) = self.inner.checks.acquire().await else { return Ok(None) };
        let known = hash.clone();
        let right = blocking(move || bcrypt::verify(password, known.as_deref().unwrap_or(NOBODY)).unwrap_or(false)).await;
        if !right || hash.is_none() {
            return Ok(None);
        }
        let mut state = self.inner.state.lock().unwrap_or_else(PoisonError::into_inner);
        // The file may have changed while we counted.
        if state.hashes.get(&user) == hash.as_ref() {
            state.right.insert(key);
        }
        Ok(Some(user))
    }

    /// The hash of a user, and whether this password was right before.
    fn look_up(&self, user: &str, key: &Digest) -> Result<(Option<String>, bool), Error> {
        let mut state = self.inner.state.lock().unwrap_or_else(PoisonError::into_inner);
        let path = &self.inner.path;
        let version = std::fs::metadata(path).ok().and_then(|metadata| Some((metadata.modified().ok()?, metadata.len())));
        if version.is_none() || version != state.version {
            let (version, text) = read(path)?;
            *state = State { version, hashes: parse(path, &text)?, right: HashSet::new() };
        }
        Ok((state.hashes.get(user).cloned(), state.right.contains(key)))
    }
}

type Version = Option<(SystemTime, u64)>;

fn read(path: &Path) -> Result<(Version, String), Error> {
    let metadata = std::fs::metadata(path).map_err(Error::io("read", path))?;
    let text = std::fs::read_to_string(path).map_err(Error::io("read", path))?;
    Ok((metadata.modified().ok().map(|time| (time, metadata.len())), text))
}

fn parse(path: &Path, text: &str) -> Result<HashMap<String, String>, Error> {
    let mut hashes = HashMap::new();
    for (number, line) in text.lines().enumerate().map(|(number, line)| (number + 1, line.trim())) {
        let bad = |reason| Error::Htpasswd { path: path.to_owned(), line: number, reason };
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (user, hash) = line.split_once(':').filter(|(user, _)| !user.is_empty()).ok_or_else(|| bad("is not `user:hash`"))?;
        if !["$2y$", "$2b$", "$2a$"].iter().any(|start| hash.starts_with(start)) || hash.len() != 60 {
            return Err(bad("has a password that is not hashed with bcrypt"));
        }
        hashes.insert(user.to_owned(), hash.to_owned());
    }
    Ok(hashes)
}

/// User and password of a header `Authorization: Basic …`.
fn basic(header: &str) -> Option<(String, String)> {
    let (scheme, encoded) = header.trim().split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = String::from_utf8(STANDARD.decode(encoded.trim()).ok()?).ok()?;
    let (user, password) = decoded.split_once(':')?;
    Some((user.to_owned(), password.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `htpasswd -nbB tester pass-word`, at the lowest cost.
    const TESTER: &str = "tester:$2y$04$";

    fn line(password: &str) -> String {
        format!("tester:{}\n", bcrypt::hash(password, 4).unwrap())
    }

    fn header(user: &str, password: &str) -> String {
        format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
    }

    #[tokio::test]
    async fn a_changed_file_counts_at_once_and_a_broken_one_lets_nobody_in() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("users");
        std::fs::write(&path, line("one")).unwrap();
        let users = Users::load(&path).unwrap();
        for _ in 0..2 {
            assert_eq!(users.check(Some(&header("tester", "one"))).await.unwrap().as_deref(), Some("tester"));
        }
        for wrong in [None, Some(header("tester", "two")), Some(header("other", "one")), Some("Bearer x".into()), Some("Basic ?".into())] {
            assert_eq!(users.check(wrong.as_deref()).await.unwrap(), None, "{wrong:?}");
        }
        std::fs::write(&path, "tester:plain\n").unwrap();
        assert!(matches!(users.check(Some(&header("tester", "one"))).await, Err(Error::Htpasswd { line: 1, .. })));
        std::fs::remove_file(&path).unwrap();
        assert!(matches!(users.check(Some(&header("tester", "one"))).await, Err(Error::Io { .. })));
        std::fs::write(&path, format!("# changed\n{}", line("two"))).unwrap();
        assert!(users.check(Some(&header("tester", "one"))).await.unwrap().is_none());
        assert!(users.check(Some(&header("tester", "two"))).await.unwrap().is_some());
    }

    #[test]
    fn only_bcrypt_is_taken() {
        let path = Path::new("users");
        for text in ["tester:plain", "tester:{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g=", "tester:$apr1$x$y", "tester", ":x", TESTER] {
            let error = parse(path, &format!("\n{text}\n")).unwrap_err();
            assert!(matches!(error, Error::Htpasswd { line: 2, .. }), "{text}");
        }
    }
}
