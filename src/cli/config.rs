//! The user's settings: `$STRAKE_CONFIG`, or `strake/config.toml` in the directory for settings. Flags and variables of the environment win over it.
//!
//! ```toml
//! # Builds give the same image wherever and whenever they run, as with --reproducible.
//! [build]
//! reproducible = true
//! ```
//!
//! It is TOML of which the few kinds of lines are read that settings need: comments, `[section]`, and `key = true` or `false`. Anything else is an error that names
//! the line, so that no setting is ever ignored.

use std::path::{Path, PathBuf};

use crate::engine::Error;

/// What the file says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Config {
    /// `reproducible` in `[build]`.
    pub(super) reproducible: Option<bool>,
}

/// What the file knows, for messages.
const KNOWN: &str = "`reproducible` in `[build]`";

impl Config {
    /// Reads the file `path`. One that is not there says nothing, unless it was `asked` for.
    ///
    /// # Errors
    /// A file that cannot be read, and a line that means nothing.
    pub(super) fn load(path: &Path, asked: bool) -> Result<Config, Error> {
        match std::fs::read_to_string(path) {
            Ok(text) => Config::parse(&text).map_err(|(line, what)| Error::Usage {
                message: format!("{}:{line}: {what}", path.display()),
                hint: Some(format!("the settings are: {KNOWN}")),
            }),
            Err(source) if !asked && matches!(source.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) => {
                Ok(Config::default())
            }
            Err(source) => Err(Error::Io { action: "read", path: PathBuf::from(path), source }),
        }
    }

    fn parse(text: &str) -> Result<Config, (usize, String)> {
        let mut config = Config::default();
        let mut section = String::new();
        for (number, line) in text.lines().enumerate() {
            let fail = |what: String| Err((number + 1, what));
            // No value of a setting holds a `#`.
            let line = line.split('#').next().unwrap_or_default().trim();
            if line.is_empty() {
                continue;
            }
            if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
                section = name.trim().to_owned();
                if section != "build" {
                    return fail(format!("there is no section `[{section}]`"));
                }
                continue;
            }
            let Some((key, value)) = line.split_once('=') else { return fail(format!("`{line}` is neither a section nor a setting")) };
            let (key, value) = (key.trim(), value.trim());
            match (section.as_str(), key) {
                ("build", "reproducible") if config.reproducible.is_some() => return fail(format!("`{key}` is set twice")),
                ("build", "reproducible") => match value {
                    "true" => config.reproducible = Some(true),
                    "false" => config.reproducible = Some(false),
                    _ => return fail(format!("`{key}` is true or false, not `{value}`")),
                },
                ("", _) => return fail(format!("the setting `{key}` is in no section")),
                _ => return fail(format!("there is no setting `{key}` in `[{section}]`")),
            }
        }
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_read_and_nothing_else_is_accepted() {
        let reproducible = |text: &str| Config::parse(text).map(|config| config.reproducible);
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
        ] {
            assert_eq!(reproducible(text).unwrap_err().0, line, "{text}");
        }
    }

    #[test]
    fn a_file_that_is_not_there_matters_only_where_it_was_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.toml");
        assert_eq!(Config::load(&path, false).unwrap(), Config::default());
        assert!(Config::load(&path, true).is_err());
        std::fs::write(&path, "[build]\nx = 1\n").unwrap();
        let message = Config::load(&path, false).unwrap_err().to_string();
        assert_eq!(message, format!("{}:2: there is no setting `x` in `[build]`", path.display()));
    }
}
