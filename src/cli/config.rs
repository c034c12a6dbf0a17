//! The user's settings: `$STRAKE_CONFIG`, or `strake/config.toml` in the directory for settings. Flags and variables of the environment win over it.
//!
//! ```toml
//! [build]
//! # Builds give the same image wherever and whenever they run, as with --reproducible.
//! reproducible = true
//!
//! [gc]
//! # After a build, the cache is pruned by itself down to this.
//! max-used-space = "50GB"
//!
//! [containers]
//! # Containers have users of their own, as with --userns auto.
//! userns = "auto"
//!
//! [storage]
//! # The files of root file systems are copied, even where the kernel could mount overlays.
//! driver = "copy"
//! ```
//!
//! What the file knows not is an error that names the line, so that no setting is ever ignored.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Deserializer};

use crate::engine::{Error, GcSettings, GcSpace, RegistrySettings, StorageDriver, parse_bytes};
use crate::registry::CertificateFiles;

/// What the file says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Config {
    /// How images are built.
    #[serde(default)]
    pub(super) build: BuildConfig,
    /// What is kept of the build cache.
    #[serde(default)]
    pub(super) gc: GcConfig,
    /// How containers are made.
    #[serde(default)]
    pub(super) containers: ContainersConfig,
    /// How root file systems are made.
    #[serde(default)]
    pub(super) storage: StorageConfig,
    /// Single registries, by `host[:port]`.
    #[serde(default)]
    registry: BTreeMap<String, RegistryConfig>,
    /// How patient transfers are.
    #[serde(default)]
    transfer: TransferConfig,
}

/// `[registry."HOST"]`, with the keys of BuildKit's settings.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RegistryConfig {
    /// Asked before it: `host[:port][/path]`.
    mirrors: Vec<String>,
    /// It speaks no TLS.
    http: bool,
    /// Its certificate does not count.
    insecure: bool,
    /// Authorities that are trusted beside those of the system.
    ca: Vec<PathBuf>,
    /// Our own certificate.
    keypair: Option<[KeyPair; 1]>,
}

/// `[[registry."HOST".keypair]]`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyPair {
    key: PathBuf,
    cert: PathBuf,
}

/// `[transfer]`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct TransferConfig {
    /// Seconds that a connection may be silent.
    idle_timeout: Option<NonZeroU32>,
    /// How often something is tried without getting any further.
    attempts: Option<NonZeroU32>,
}

/// `[build]`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct BuildConfig {
    /// `--reproducible`.
    pub(super) reproducible: Option<bool>,
}

/// `[containers]`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ContainersConfig {
    /// `--userns`.
    pub(super) userns: Option<Users>,
}

/// Whose users a container has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Users {
    Host,
    #[serde(rename = "auto")]
    Own,
}

/// `[storage]`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct StorageConfig {
    /// `overlay` or `copy`.
    #[serde(default, deserialize_with = "driver")]
    pub(super) driver: Option<StorageDriver>,
}

fn driver<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<StorageDriver>, D::Error> {
    String::deserialize(deserializer)?.parse().map(Some).map_err(serde::de::Error::custom)
}

/// `[gc]`: what `strake prune --help` says of the options with the same names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct GcConfig {
    /// Whether the cache is pruned after builds at all.
    enabled: Option<bool>,
    #[serde(default, deserialize_with = "space")]
    reserved_space: Option<GcSpace>,
    #[serde(default, deserialize_with = "space")]
    max_used_space: Option<GcSpace>,
    #[serde(default, deserialize_with = "space")]
    min_free_space: Option<GcSpace>,
}

impl GcConfig {
    /// The same for the engine; `None` where the cache is left alone.
    pub(super) fn settings(&self) -> Option<GcSettings> {
        let GcConfig { reserved_space, max_used_space, min_free_space, .. } = *self;
        self.enabled.unwrap_or(true).then_some(GcSettings { reserved_space, max_used_space, min_free_space })
    }
}

/// A size: a number of bytes, text such as `10GB`, or a part of the disk such as `10%`.
fn space<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<GcSpace>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "expected a size, such as \"10GB\", \"10%\" or a number of bytes")]
    enum Size {
        Bytes(u64),
        Text(String),
    }
    let text = match Size::deserialize(deserializer)? {
        Size::Bytes(bytes) => return Ok(Some(GcSpace::Bytes(bytes))),
        Size::Text(text) => text,
    };
    let space = match text.strip_suffix('%') {
        Some(part) => {
            part.parse().ok().filter(|part| *part <= 100).map(GcSpace::Percent).ok_or_else(|| format!("`{text}` is no part of a disk"))
        }
        None => parse_bytes(&text).map(GcSpace::Bytes),
    };
    space.map(Some).map_err(serde::de::Error::custom)
}

impl Config {
    /// What is said of registries, in the file `file`.
    pub(super) fn registry_settings(self, file: PathBuf) -> RegistrySettings {
        let seconds = |seconds: NonZeroU32| Duration::from_secs(u64::from(seconds.get()));
        let mut settings = RegistrySettings {
            file,
            idle_timeout: self.transfer.idle_timeout.map(seconds),
            attempts: self.transfer.attempts.map(NonZeroU32::get),
            ..RegistrySettings::default()
        };
        for (name, registry) in self.registry {
            if registry.http {
                settings.plain_http.push(name.clone());
            }
            if registry.insecure {
                settings.skip_tls_verify.push(name.clone());
            }
            let identity = registry.keypair.map(|[pair]| (pair.cert, pair.key));
            if !registry.ca.is_empty() || identity.is_some() {
                settings.certificates.insert(name.clone(), CertificateFiles { authorities: registry.ca, identity });
            }
            settings.mirrors.insert(name, registry.mirrors);
        }
        settings
    }

    /// Reads the file `path`. One that is not there says nothing, unless it was `asked` for.
    ///
    /// # Errors
    /// A file that cannot be read, and a line that means nothing.
    pub(super) fn load(path: &Path, asked: bool) -> Result<Config, Error> {
        match std::fs::read_to_string(path) {
            Ok(text) => Config::parse(&text).map_err(|(line, what)| Error::Usage {
                message: format!("{}:{line}: {what}", path.display()),
                hint: Some("docs/config.md lists the settings".to_owned()),
            }),
            Err(source) if !asked && matches!(source.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) => {
                Ok(Config::default())
            }
            Err(source) => Err(Error::Io { action: "read", path: PathBuf::from(path), source }),
        }
    }

    /// Reads the text of a file; what is wrong comes with its line.
    fn parse(text: &str) -> Result<Config, (usize, String)> {
        toml::from_str(text).map_err(|error| {
            let at = error.span().map_or(0, |span| span.start.min(text.len()));
            let line = 1 + text.as_bytes()[..at].iter().filter(|byte| **byte == b'\n').count();
            (line, error.message().replace('\n', "; "))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_read_and_nothing_else_is_accepted() {
        let reproducible = |text: &str| Config::parse(text).map(|config| config.build.reproducible);
        assert_eq!(reproducible(""), Ok(None));
        assert_eq!(reproducible("# c\n\n [build] # b\n reproducible=true # yes\r\n"), Ok(Some(true)));
        assert_eq!(reproducible("[build]\nreproducible = false"), Ok(Some(false)));
        for (text, line) in [
            ("reproducible = true", 1),
            ("[build]\nreproducible = 1", 2),
            ("[build]\nreproducible = \"true\"", 2),
            ("[build]\nreproducible = true\nreproducible = true", 3),
            ("[build]\n\nReproducible = true", 3),
            ("[build]\nrepro", 2),
            ("[other]", 1),
            ("[build", 1),
            ("[build]\n[gc]\nmax-used-space = \"much\"", 3),
            ("[gc]\nmax-used-space = -1", 2),
            ("[gc]\nmax-used-space = \"101%\"", 2),
            ("[gc]\nmax-used-space = \"%\"", 2),
        ] {
            assert_eq!(reproducible(text).unwrap_err().0, line, "{text}");
        }
    }

    #[test]
    fn sizes_are_numbers_or_words_and_pruning_can_be_left_out() {
        let gc = |text: &str| Config::parse(text).unwrap().gc.settings();
        assert_eq!(gc(""), Some(GcSettings::default()));
        let some = GcSettings {
            reserved_space: Some(GcSpace::Bytes(2 << 30)),
            max_used_space: Some(GcSpace::Bytes(5)),
            min_free_space: Some(GcSpace::Percent(20)),
        };
        assert_eq!(gc("[gc]\nreserved-space = \"2GB\"\nmax-used-space = 5\nmin-free-space = \"20%\""), Some(some));
        assert_eq!(gc("[gc]\nenabled = false"), None);
    }

    #[test]
    fn a_storage_driver_is_one_that_there_is() {
        let driver = |text: &str| Config::parse(text).map(|config| config.storage.driver);
        assert_eq!(driver("[storage]"), Ok(None));
        assert_eq!(driver("[storage]\ndriver = \"vfs\""), Ok(Some(StorageDriver::Copy)));
        assert_eq!(driver("[storage]\ndriver = \"zfs\"").unwrap_err().0, 2);
    }

    #[test]
    fn a_file_that_is_not_there_matters_only_where_it_was_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.toml");
        assert_eq!(Config::load(&path, false).unwrap(), Config::default());
        assert!(Config::load(&path, true).is_err());
        std::fs::write(&path, "[build]\nx = 1\n").unwrap();
        let message = Config::load(&path, false).unwrap_err().to_string();
        assert!(message.starts_with(&format!("{}:2: unknown field `x`", path.display())), "{message}");
    }
}
