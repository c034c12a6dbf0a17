//! The form that `config.json` and `auth.json` share. Unknown fields are ignored here; `save` keeps them.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use base64::engine::{DecodePaddingMode, general_purpose};
use serde::Deserialize;

use crate::diag::Secret;

use super::{Credential, Error, normal_key};

/// Base64 as other tools write it: with padding or without.
pub(super) const BASE64: GeneralPurpose =
    GeneralPurpose::new(&base64::alphabet::STANDARD, GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent));

/// Base64 as we write it.
pub(super) const BASE64_OUT: GeneralPurpose = general_purpose::STANDARD;

/// One file of credentials.
#[derive(Clone, Debug)]
pub(super) struct ConfigFile {
    pub(super) path: PathBuf,
    /// By normalised key.
    auths: BTreeMap<String, Entry>,
    creds_store: Option<String>,
    /// By normalised host.
    cred_helpers: BTreeMap<String, String>,
    pub(super) http_headers: Vec<(String, Secret<String>)>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Entry {
    auth: Hidden,
    username: Hidden,
    password: Hidden,
    identitytoken: Hidden,
    registrytoken: Hidden,
}

/// A string that may be missing or `null`, and does not print.
#[derive(Clone, Debug, Default)]
struct Hidden(Secret<String>);

impl<'de> Deserialize<'de> for Hidden {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Hidden, D::Error> {
        Ok(Hidden(Secret::new(Option::<String>::deserialize(deserializer)?.unwrap_or_default())))
    }
}

impl Hidden {
    fn text(&self) -> &str {
        self.0.expose()
    }
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Document {
    auths: Option<BTreeMap<String, Option<Entry>>>,
    #[serde(rename = "credsStore")]
    creds_store: Option<String>,
    #[serde(rename = "credHelpers")]
    cred_helpers: Option<BTreeMap<String, String>>,
    #[serde(rename = "HttpHeaders")]
    http_headers: Option<BTreeMap<String, String>>,
}

impl ConfigFile {
    /// Reads a file; a missing one is `None`.
    pub(super) fn load(path: &Path) -> Result<Option<ConfigFile>, Error> {
        match std::fs::read(path) {
            Ok(bytes) => ConfigFile::parse(path, &bytes).map(Some),
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
            Err(source) => Err(Error::Read { path: path.to_owned(), source }),
        }
    }

    pub(super) fn parse(path: &Path, bytes: &[u8]) -> Result<ConfigFile, Error> {
        let document: Document = if bytes.trim_ascii().is_empty() {
            Document::default()
        } else {
            serde_json::from_slice(bytes).map_err(|e| malformed(path, &e))?
        };
        let mut auths = BTreeMap::new();
        for (key, entry) in document.auths.unwrap_or_default() {
            let normal = normal_key(&key);
            // Where one registry has several spellings, the one that Docker itself writes wins.
            if key == super::HUB_KEY || key == normal || !auths.contains_key(&normal) {
                auths.insert(normal, entry.unwrap_or_default());
            }
        }
        let helpers = document.cred_helpers.unwrap_or_default();
        let headers = document.http_headers.unwrap_or_default();
        Ok(ConfigFile {
            path: path.to_owned(),
            auths,
            creds_store: document.creds_store.filter(|name| !name.is_empty()),
            cred_helpers: helpers.into_iter().map(|(host, name)| (normal_key(&host), name)).collect(),
            http_headers: headers.into_iter().map(|(name, value)| (name, Secret::new(value))).collect(),
        })
    }

    /// The helper that keeps the credentials of `host`. An empty name in `credHelpers` means none, in spite of `credsStore`.
    pub(super) fn helper_for(&self, host: &str) -> Option<&str> {
        let name = self.cred_helpers.get(host).or(self.creds_store.as_ref())?;
        (!name.is_empty()).then_some(name.as_str())
    }

    /// The names of all helpers of this file.
    pub(super) fn helpers(&self) -> impl Iterator<Item = &str> {
        self.creds_store.iter().chain(self.cred_helpers.values()).map(String::as_str).filter(|name| !name.is_empty())
    }

    /// The keys of all entries that hold a credential.
    pub(super) fn keys(&self) -> impl Iterator<Item = &String> {
        self.auths.iter().filter(|(_, entry)| entry.holds_something()).map(|(key, _)| key)
    }

    /// The user in the entry for exactly `key`.
    pub(super) fn user(&self, key: &str) -> Option<String> {
        let entry = self.auths.get(key)?;
        if !entry.username.text().is_empty() {
            return Some(entry.username.text().to_owned());
        }
        decode_auth(entry.auth.text()).map(|(user, _)| user)
    }

    /// The credential in the entry for exactly `key`.
    pub(super) fn credential(&self, key: &str) -> Result<Option<Credential>, Error> {
        let Some(entry) = self.auths.get(key) else { return Ok(None) };
        if !entry.registrytoken.text().is_empty() {
            return Ok(Some(Credential::RegistryToken(entry.registrytoken.0.clone())));
        }
        if !entry.identitytoken.text().is_empty() {
            return Ok(Some(Credential::IdentityToken(entry.identitytoken.0.clone())));
        }
        if !entry.auth.text().is_empty() {
            let bad = || Error::BadEntry { path: self.path.clone(), key: key.to_owned() };
            let (username, password) = decode_auth(entry.auth.text()).ok_or_else(bad)?;
            return Ok(Some(Credential::Basic { username, password }));
        }
        if entry.username.text().is_empty() {
            return Ok(None);
        }
        Ok(Some(Credential::Basic { username: entry.username.text().to_owned(), password: entry.password.0.clone() }))
    }
}

impl Entry {
    fn holds_something(&self) -> bool {
        [&self.auth, &self.username, &self.identitytoken, &self.registrytoken].iter().any(|field| !field.text().is_empty())
    }
}

fn decode_auth(auth: &str) -> Option<(String, Secret<String>)> {
    let text = String::from_utf8(BASE64.decode(auth.trim()).ok()?).ok()?;
    let (user, password) = text.split_once(':')?;
    // Old versions of Docker padded the password with NUL.
    Some((user.to_owned(), Secret::new(password.trim_end_matches('\0').to_owned())))
}

/// Says where a file is wrong without repeating any of it.
pub(super) fn malformed(path: &Path, error: &serde_json::Error) -> Error {
    let reason = match error.classify() {
        serde_json::error::Category::Eof => "it ends too early",
        serde_json::error::Category::Data => "a value has the wrong type",
        _ => "it is not JSON",
    };
    Error::Malformed { path: path.to_owned(), line: error.line(), column: error.column(), reason }
}
