//! Credentials as the ecosystem keeps them: Docker's `config.json` with its helpers, containers' `auth.json`, inline JSON.
//!
//! All files have one form, so they are read by one parser; they are asked in a fixed order: what the caller gave, the file that the user asked for, inline
//! JSON, `config.json` (which is what `login` writes, so a login always takes effect), then each `auth.json`. Within a file a helper comes before the text, and
//! a key with a longer path before a shorter one. Helpers that `registries.conf` names come before the files or after them, as it says.
//!
//! Paths come from the caller; this folder neither reads `$HOME` nor the environment. Everything here blocks.

mod config_file;
mod helper;
mod proxies;
mod save;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use crate::diag::Secret;
use crate::oci::DOCKER_HUB;

use config_file::ConfigFile;
use helper::Helper;
pub use proxies::configured_proxies;
pub use save::{LoginTarget, Saved, erase_login, erase_logins, list_logins, save_login};

/// Docker's key for Docker Hub.
const HUB_KEY: &str = "https://index.docker.io/v1/";

/// What proves who we are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Credential {
    /// User and password (or a personal access token).
    Basic {
        /// The user.
        username: String,
        /// The password.
        password: Secret<String>,
    },
    /// An OAuth2 refresh token, exchanged at the token server.
    IdentityToken(Secret<String>),
    /// A bearer token, sent as it is.
    RegistryToken(Secret<String>),
}

/// Where credentials may be found.
#[derive(Clone, Debug, Default)]
pub struct CredentialFiles {
    /// The file that the user asked for: it comes before all others, and logins are kept in it.
    pub asked: Option<PathBuf>,
    /// Docker's `config.json`; it may be missing.
    pub docker_config: Option<PathBuf>,
    /// Candidates for containers' `auth.json`, most important first; they may be missing.
    pub auth_json: Vec<PathBuf>,
    /// The content of `DOCKER_AUTH_CONFIG`.
    pub inline: Option<Secret<String>>,
    /// Folders to look for `docker-credential-*` in before `PATH`.
    pub helper_dirs: Vec<PathBuf>,
}

/// A set of credentials, read once and asked for each registry.
#[derive(Clone, Debug, Default)]
pub struct Credentials(Arc<Sources>);

#[derive(Clone, Debug, Default)]
struct Sources {
    given: Vec<(String, Credential)>,
    files: Vec<ConfigFile>,
    /// Helpers by themselves, which no file names.
    helpers: HelperOrder,
    helper_dirs: Vec<PathBuf>,
}

/// `credential-helpers` of `registries.conf`: helpers, with the place that all files have among them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HelperOrder {
    /// Those that are asked before the files; a login is kept by the first.
    pub before: Vec<String>,
    /// Those that are asked after them.
    pub after: Vec<String>,
}

/// Why credentials cannot be read, written or fetched.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file cannot be read.
    #[error("cannot read credentials from `{path}`")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file is not what it should be. Its text is not shown.
    #[error("`{path}` is not a credentials file: line {line}, column {column}: {reason}")]
    Malformed {
        /// The file, or the name of the variable.
        path: PathBuf,
        /// The line, 0 where it is not known.
        line: usize,
        /// The column.
        column: usize,
        /// What is wrong.
        reason: &'static str,
    },
    /// One entry is not `base64(user:password)`.
    #[error("the entry for `{key}` in `{path}` is malformed: `auth` is not the base64 form of `user:password`")]
    BadEntry {
        /// The file.
        path: PathBuf,
        /// The entry.
        key: String,
    },
    /// A file cannot be written.
    #[error("cannot write credentials to `{path}`")]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The name of a helper that is no file name.
    #[error("`{name}` cannot be the name of a credential helper")]
    HelperName {
        /// The name.
        name: String,
    },
    /// A helper cannot be started.
    #[error("cannot start the credential helper `{helper}`")]
    HelperStart {
        /// The program.
        helper: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A helper failed.
    #[error("the credential helper `{helper}` could not {action} the credentials: {reason}")]
    Helper {
        /// The program.
        helper: String,
        /// `get`, `store`, `erase` or `list`.
        action: &'static str,
        /// What it said.
        reason: String,
    },
}

impl Error {
    /// The message with its cause, in one line.
    pub(super) fn whole(&self) -> String {
        match self {
            Error::HelperStart { source, .. } if source.kind() == io::ErrorKind::NotFound => format!("{self}: it is not installed"),
            Error::HelperStart { source, .. } => format!("{self}: {source}"),
            _ => self.to_string(),
        }
    }

    /// What the user can do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Error::HelperStart { helper, source } if source.kind() == io::ErrorKind::NotFound => {
                Some(format!("install `{helper}` or remove it from `credsStore` and `credHelpers` of config.json"))
            }
            Error::BadEntry { .. } => Some("log in again".to_owned()),
            _ => None,
        }
    }
}

impl Credentials {
    /// Reads the files that there are.
    ///
    /// # Errors
    /// A file that exists and cannot be read or understood.
    pub fn load(files: &CredentialFiles) -> Result<Credentials, Error> {
        let mut loaded = Vec::new();
        if let Some(path) = &files.asked {
            let missing = || Error::Read { path: path.clone(), source: io::ErrorKind::NotFound.into() };
            loaded.push(ConfigFile::load(path)?.ok_or_else(missing)?);
        }
        if let Some(inline) = &files.inline {
            loaded.push(ConfigFile::parse(&PathBuf::from("DOCKER_AUTH_CONFIG"), inline.expose().as_bytes())?);
        }
        for path in files.docker_config.iter().chain(&files.auth_json) {
            loaded.extend(ConfigFile::load(path)?);
        }
        let helper_dirs = files.helper_dirs.clone();
        Ok(Credentials(Arc::new(Sources { files: loaded, helper_dirs, ..Sources::default() })))
    }

    /// The same set with helpers that no file names.
    #[must_use]
    pub fn with_helpers(&self, helpers: HelperOrder) -> Credentials {
        Credentials(Arc::new(Sources { helpers, ..Sources::clone(&self.0) }))
    }

    /// The same set with `credential` for `registry`, before all others.
    #[must_use]
    pub fn with(&self, registry: &str, credential: Credential) -> Credentials {
        let mut sources = Sources::clone(&self.0);
        sources.given.insert(0, (normal_key(registry), credential));
        Credentials(Arc::new(sources))
    }

    /// Those of the files' `HttpHeaders` that registries get, for [`ClientOptions::extra_headers`](super::ClientOptions::extra_headers): of all headers, which
    /// are for its daemon, Docker passes these on.
    pub fn http_headers(&self) -> Vec<(String, Secret<String>)> {
        let all = self.0.files.iter().flat_map(|file| file.http_headers.iter().cloned());
        all.filter(|(name, _)| name.to_ascii_lowercase().starts_with("x-meta-")).collect()
    }

    /// The credential for a repository (`acme/app`, or empty for the registry as a whole) at a registry (`ghcr.io`). May run a helper.
    ///
    /// # Errors
    /// A malformed entry, or a helper that fails otherwise than by saying that it has nothing.
    pub fn lookup(&self, registry: &str, repository: &str) -> Result<Option<Credential>, Error> {
        let host = normal_key(registry);
        let keys = candidate_keys(&host, repository);
        for key in &keys {
            if let Some((_, credential)) = self.0.given.iter().find(|(given, _)| given == key) {
                return Ok(Some(credential.clone()));
            }
        }
        let Sources { files, helpers, helper_dirs, .. } = &*self.0;
        // Closures, so that nothing is asked after something has answered.
        let by_helper = |name: &String| Helper::new(name, helper_dirs)?.get(&helper_key(&host));
        let by_file = |file: &ConfigFile| file.lookup(&host, &keys, helper_dirs);
        let asked = helpers.before.iter().map(by_helper).chain(files.iter().map(by_file)).chain(helpers.after.iter().map(by_helper));
        asked.filter_map(Result::transpose).next().transpose()
    }

    /// What still has a credential for a registry as a whole, as messages name it.
    ///
    /// # Errors
    /// As [`Credentials::lookup`].
    pub fn places_of(&self, registry: &str) -> Result<Vec<String>, Error> {
        let host = normal_key(registry);
        let Sources { files, helpers, helper_dirs, .. } = &*self.0;
        let mut places = Vec::new();
        for name in helpers.before.iter().chain(&helpers.after) {
            if Helper::new(name, helper_dirs)?.get(&helper_key(&host))?.is_some() {
                places.push(format!("docker-credential-{name}"));
            }
        }
        for file in files {
            if file.lookup(&host, std::slice::from_ref(&host), helper_dirs)?.is_some() {
                places.push(file.path.display().to_string());
            }
        }
        Ok(places)
    }
}

impl ConfigFile {
    /// The credential that a file has, by its helper or by the first of `keys` that it knows.
    fn lookup(&self, host: &str, keys: &[String], helper_dirs: &[PathBuf]) -> Result<Option<Credential>, Error> {
        if let Some(name) = self.helper_for(host)
            && let Some(found) = Helper::new(name, helper_dirs)?.get(&helper_key(host))?
        {
            return Ok(Some(found));
        }
        keys.iter().filter_map(|key| self.credential(key).transpose()).next().transpose()
    }
}

/// A key of a file, or a registry's name, in one form: `docker.io`, `ghcr.io`, `ghcr.io/acme`.
fn normal_key(key: &str) -> String {
    let rest = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://")).unwrap_or(key);
    let rest = rest.trim_end_matches('/');
    let rest = rest.strip_suffix("/v1").or_else(|| rest.strip_suffix("/v2")).unwrap_or(rest);
    let (host, path) = rest.split_once('/').map_or((rest, None), |(host, path)| (host, Some(path)));
    let host = match host.to_ascii_lowercase().as_str() {
        "index.docker.io" | "registry-1.docker.io" | "docker.io" => DOCKER_HUB.to_owned(),
        other => other.to_owned(),
    };
    path.map_or(host.clone(), |path| format!("{host}/{path}"))
}

/// The keys that may hold a repository's credential, the most special first.
fn candidate_keys(host: &str, repository: &str) -> Vec<String> {
    let mut keys = Vec::new();
    let mut path = repository;
    while !path.is_empty() {
        keys.push(format!("{host}/{path}"));
        path = path.rsplit_once('/').map_or("", |(parent, _)| parent);
    }
    keys.push(host.to_owned());
    keys
}

/// The name under which helpers keep a registry.
fn helper_key(host: &str) -> String {
    if host == DOCKER_HUB { HUB_KEY.to_owned() } else { host.to_owned() }
}

#[cfg(test)]
mod tests;
