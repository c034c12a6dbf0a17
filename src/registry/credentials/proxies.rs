//! The proxies that `config.json` names for what runs in builds and containers. They are not for registries: those are reached as the environment says.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use serde::Deserialize;

use super::Error;
use super::config_file::malformed;

#[derive(Default, Deserialize)]
#[serde(default)]
struct Document {
    proxies: Option<BTreeMap<String, Option<Settings>>>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Settings {
    http_proxy: Option<String>,
    https_proxy: Option<String>,
    ftp_proxy: Option<String>,
    no_proxy: Option<String>,
    all_proxy: Option<String>,
}

/// The variables for proxies that Docker's `config.json` has, in both spellings. Of its entries, all but `default` are for daemons of some address.
///
/// # Errors
/// The file exists and cannot be read or understood.
pub fn configured_proxies(config: &Path) -> Result<Vec<(&'static str, String)>, Error> {
    let bytes = match std::fs::read(config) {
        Ok(bytes) => bytes,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => return Ok(Vec::new()),
        Err(source) => return Err(Error::Read { path: config.to_owned(), source }),
    };
    if bytes.trim_ascii().is_empty() {
        return Ok(Vec::new());
    }
    let document: Document = serde_json::from_slice(&bytes).map_err(|error| malformed(config, &error))?;
    let settings = document.proxies.and_then(|mut all| all.remove("default")).flatten().unwrap_or_default();
    let named = [
        (["HTTP_PROXY", "http_proxy"], settings.http_proxy),
        (["HTTPS_PROXY", "https_proxy"], settings.https_proxy),
        (["FTP_PROXY", "ftp_proxy"], settings.ftp_proxy),
        (["NO_PROXY", "no_proxy"], settings.no_proxy),
        (["ALL_PROXY", "all_proxy"], settings.all_proxy),
    ];
    let set = named.into_iter().filter_map(|(names, value)| Some((names, value.filter(|value| !value.is_empty())?)));
    Ok(set.flat_map(|(names, value)| names.map(|name| (name, value.clone()))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<(&'static str, String)>, Error> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.json");
        std::fs::write(&path, text).unwrap();
        configured_proxies(&path)
    }

    #[test]
    fn the_default_entry_gives_variables_in_both_spellings() {
        let text = r#"{"auths": 5, "proxies": {"default": {"httpProxy": "http://p:1", "noProxy": "x", "ftpProxy": ""}, "tcp://d": {"allProxy": "q"}}}"#;
        let expected = [("HTTP_PROXY", "http://p:1"), ("http_proxy", "http://p:1"), ("NO_PROXY", "x"), ("no_proxy", "x")]
            .map(|(n, v)| (n, v.to_owned()));
        assert_eq!(read(text).unwrap(), expected);
    }

    #[test]
    fn a_file_without_proxies_names_none_and_a_damaged_one_is_told() {
        for text in ["", "{}", r#"{"proxies": null}"#, r#"{"proxies": {"default": null}}"#] {
            assert_eq!(read(text).unwrap(), [], "{text}");
        }
        assert_eq!(configured_proxies(Path::new("/nowhere/config.json")).unwrap(), []);
        assert!(matches!(read("{").unwrap_err(), Error::Malformed { .. }));
    }
}
