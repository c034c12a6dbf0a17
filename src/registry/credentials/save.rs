//! Login and logout: changes Docker's `config.json`, or hands the secret to the helper that it names.
//!
//! The file is replaced whole (temporary file, `fsync`, `rename`), mode 0600, with unknown fields and their order kept. A lock on the folder keeps two
//! logins at once from losing one of them. A `config.json` that is a symbolic link stays one.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use serde_json::{Map, Value};

use crate::diag::Secret;
use crate::oci::DOCKER_HUB;

use super::config_file::{BASE64_OUT, ConfigFile, malformed};
use super::helper::{Helper, TOKEN_USER};
use super::{Credential, Error, HUB_KEY, helper_key, normal_key};

/// Where logins are kept.
#[derive(Clone, Debug)]
pub struct LoginTarget {
    /// Docker's `config.json`, or a file of that form; it is made where it is missing.
    pub config: PathBuf,
    /// The helper that keeps logins in place of the file.
    pub helper: Option<String>,
    /// Folders to look for `docker-credential-*` in before `PATH`.
    pub helper_dirs: Vec<PathBuf>,
}

/// Where a login was kept (or erased).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Saved {
    /// In the file, where whoever may read it sees the secret.
    File(PathBuf),
    /// By a helper.
    Helper(String),
    /// Nowhere: there was nothing to erase.
    Nothing,
}

/// Keeps a login. `username` goes with identity tokens too, for display.
///
/// # Errors
/// The file cannot be read, understood or written, or the helper fails. The file is then as it was.
pub fn save_login(target: &LoginTarget, registry: &str, username: &str, credential: &Credential) -> Result<Saved, Error> {
    let path = real_path(&target.config);
    let host = normal_key(registry);
    let by_helper = |name: &str| {
        let helper = Helper::new(name, &target.helper_dirs)?;
        match credential {
            Credential::Basic { username, password } => helper.store(&helper_key(&host), username, password),
            Credential::IdentityToken(token) | Credential::RegistryToken(token) => helper.store(&helper_key(&host), TOKEN_USER, token),
        }
    };
    if let Some(name) = &target.helper {
        by_helper(name)?;
        return Ok(Saved::Helper(name.clone()));
    }
    let _lock = lock_folder(&path)?;
    let mut document = load_document(&path)?;
    let parsed = ConfigFile::load(&path)?;
    let key = entry_key(&document, &host);
    if let Some(name) = parsed.as_ref().and_then(|file| file.helper_for(&host)) {
        by_helper(name)?;
        // The empty entry tells other tools which servers are known.
        set_entry(&mut document, &host, &key, Value::Object(Map::new()));
        write_document(&path, &document)?;
        return Ok(Saved::Helper(name.to_owned()));
    }
    set_entry(&mut document, &host, &key, entry(username, credential));
    write_document(&path, &document)?;
    Ok(Saved::File(path))
}

/// Forgets a login, in the file and in its helper.
///
/// # Errors
/// As for [`save_login`].
pub fn erase_login(target: &LoginTarget, registry: &str) -> Result<Saved, Error> {
    let path = real_path(&target.config);
    let host = normal_key(registry);
    if let Some(name) = &target.helper {
        return erase_by_helper(name, &host, &target.helper_dirs);
    }
    let Some(parsed) = ConfigFile::load(&path)? else { return Ok(Saved::Nothing) };
    let _lock = lock_folder(&path)?;
    let mut document = load_document(&path)?;
    let mut saved = match parsed.helper_for(&host) {
        Some(name) => erase_by_helper(name, &host, &target.helper_dirs)?,
        None => Saved::Nothing,
    };
    if let Some(Value::Object(auths)) = document.get_mut("auths") {
        let keys: Vec<String> = auths.keys().filter(|key| normal_key(key) == host).cloned().collect();
        for key in &keys {
            auths.shift_remove(key);
        }
        if !keys.is_empty() {
            write_document(&path, &document)?;
            if saved == Saved::Nothing {
                saved = Saved::File(path);
            }
        }
    }
    Ok(saved)
}

fn erase_by_helper(name: &str, host: &str, dirs: &[PathBuf]) -> Result<Saved, Error> {
    let helper = Helper::new(name, dirs)?;
    if helper.get(&helper_key(host))?.is_none() {
        return Ok(Saved::Nothing);
    }
    helper.erase(&helper_key(host))?;
    Ok(Saved::Helper(name.to_owned()))
}

/// Forgets all logins; says for which registries.
///
/// # Errors
/// As for [`save_login`].
pub fn erase_logins(target: &LoginTarget) -> Result<Vec<String>, Error> {
    let names: Vec<String> = list_logins(target)?.into_iter().map(|(name, _)| name).collect();
    names.iter().try_for_each(|name| erase_login(target, name).map(drop))?;
    Ok(names)
}

/// The registries that there are logins for, with the user where it is known.
///
/// # Errors
/// The file cannot be read or understood, or a helper fails.
pub fn list_logins(target: &LoginTarget) -> Result<Vec<(String, Option<String>)>, Error> {
    let file = if target.helper.is_some() { None } else { ConfigFile::load(&real_path(&target.config))? };
    let in_file = file.iter().flat_map(|file| file.keys().map(|key| (key.clone(), file.user(key))));
    let mut logins: Vec<(String, Option<String>)> = in_file.collect();
    let mut names: Vec<&str> = target.helper.iter().map(String::as_str).chain(file.iter().flat_map(ConfigFile::helpers)).collect();
    names.sort_unstable();
    names.dedup();
    for name in names {
        for (server, user) in Helper::new(name, &target.helper_dirs)?.list()? {
            logins.push((normal_key(&server), Some(user)));
        }
    }
    logins.sort();
    logins.dedup_by(|a, b| a.0 == b.0);
    Ok(logins)
}

fn entry(username: &str, credential: &Credential) -> Value {
    let encode = |user: &str, password: &str| Value::String(BASE64_OUT.encode(format!("{user}:{password}")));
    let mut entry = Map::new();
    match credential {
        Credential::Basic { username, password } => {
            entry.insert("auth".to_owned(), encode(username, password.expose()));
        }
        Credential::IdentityToken(token) => {
            entry.insert("auth".to_owned(), encode(username, ""));
            entry.insert("identitytoken".to_owned(), Value::String(token.expose().clone()));
        }
        Credential::RegistryToken(token) => {
            entry.insert("registrytoken".to_owned(), Value::String(token.expose().clone()));
        }
    }
    Value::Object(entry)
}

/// The key that the file already has for `host`, or the one that Docker would write.
fn entry_key(document: &Map<String, Value>, host: &str) -> String {
    let usual = if host == DOCKER_HUB { HUB_KEY } else { host };
    let Some(Value::Object(auths)) = document.get("auths") else { return usual.to_owned() };
    if auths.contains_key(usual) {
        return usual.to_owned();
    }
    auths.keys().find(|key| normal_key(key) == host).cloned().unwrap_or_else(|| usual.to_owned())
}

/// Sets one entry, and drops other spellings of the same registry, which would contradict it.
fn set_entry(document: &mut Map<String, Value>, host: &str, key: &str, entry: Value) {
    let auths = document.entry("auths").or_insert_with(|| Value::Object(Map::new()));
    if !auths.is_object() {
        *auths = Value::Object(Map::new());
    }
    let Value::Object(auths) = auths else { return };
    auths.retain(|other, _| other == key || normal_key(other) != host);
    auths.insert(key.to_owned(), entry);
}

fn load_document(path: &Path) -> Result<Map<String, Value>, Error> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Map::new()),
        Err(source) => return Err(Error::Read { path: path.to_owned(), source }),
    };
    if bytes.trim_ascii().is_empty() {
        return Ok(Map::new());
    }
    serde_json::from_slice(&bytes).map_err(|error| malformed(path, &error))
}

/// The file itself where `path` is a symbolic link to it.
fn real_path(path: &Path) -> PathBuf {
    fs::canonicalize(path).unwrap_or_else(|_| path.to_owned())
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Locks the folder of `path`, which is made where it is missing. On file systems without locks, nothing is locked.
fn lock_folder(path: &Path) -> Result<File, Error> {
    let wrap = |source| Error::Write { path: path.to_owned(), source };
    let folder = folder_of(path);
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(wrap)?;
    let handle = File::open(folder).map_err(wrap)?;
    match handle.lock() {
        Ok(()) => Ok(handle),
        Err(error) if error.kind() == io::ErrorKind::Unsupported => Ok(handle),
        Err(source) => Err(wrap(source)),
    }
}

fn write_document(path: &Path, document: &Map<String, Value>) -> Result<(), Error> {
    let mut bytes = Vec::new();
    let formatter = serde_json::ser::PrettyFormatter::with_indent(b"\t");
    let mut serializer = serde_json::Serializer::with_formatter(&mut bytes, formatter);
    serde::Serialize::serialize(document, &mut serializer).expect("a JSON value is always JSON");
    bytes.push(b'\n');
    let bytes = Secret::new(bytes);
    replace_file(path, bytes.expose()).map_err(|source| Error::Write { path: path.to_owned(), source })
}

fn replace_file(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = folder_of(path);
    let mut random = [0; 8];
    getrandom::fill(&mut random).map_err(|error| io::Error::other(error.to_string()))?;
    let temporary = folder.join(format!(".config.json.{:016x}", u64::from_le_bytes(random)));
    let result = write_new(&temporary, bytes).and_then(|()| fs::rename(&temporary, path));
    if let Err(error) = result {
        // The first error is the one to report.
        let _ = fs::remove_file(&temporary);
        return Err(error);
    }
    File::open(folder)?.sync_all()
}

fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}
