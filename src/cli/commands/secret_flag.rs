//! `--secret` of `strake build`: `id=NAME[,src=FILE|,env=VARIABLE]`, as buildx reads it.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::cli::env;
use crate::diag::Secret;
use crate::engine::Error;

use super::outputs::split;

/// A secret, and where its value is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SecretFlag {
    id: String,
    source: SecretSource,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum SecretSource {
    File(PathBuf),
    Variable(String),
    /// The variable, or else the file, that is called like the secret.
    Own,
}

/// Reads one flag, for clap; empty is none. With `type=env`, `src` is a variable, too.
pub(super) fn secret(text: &str) -> Result<Option<SecretFlag>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    let (mut id, mut file, mut variable, mut is_variable) = (None, None, None, false);
    for field in split(text)? {
        let (key, value) = field.split_once('=').ok_or_else(|| format!("`{field}` has no value: {FORM}"))?;
        let value = value.to_owned();
        match (key.to_lowercase().as_str(), value.as_str()) {
            ("src" | "source" | "env", "") => {}
            ("id", _) => id = Some(value),
            ("src" | "source", _) => file = Some(value),
            ("env", _) => variable = Some(value),
            ("type", "file") => is_variable = false,
            ("type", "env") => is_variable = true,
            ("type", _) => return Err(format!("a secret is of the type file or env, not `{value}`")),
            _ => return Err(format!("a secret has no `{key}`: {FORM}")),
        }
    }
    let id = id.filter(|id| !id.is_empty()).ok_or_else(|| format!("a secret has no id: {FORM}"))?;
    if is_variable && variable.is_none() {
        variable = file.take();
    }
    let source = match (file, variable) {
        (_, Some(name)) => SecretSource::Variable(name),
        (Some(file), None) => SecretSource::File(file.into()),
        (None, None) => SecretSource::Own,
    };
    Ok(Some(SecretFlag { id, source }))
}

/// The form of the flag, at the end of messages.
const FORM: &str = "write `id=NAME,src=FILE` or `id=NAME,env=VARIABLE`";

impl SecretFlag {
    fn value(&self) -> Result<Vec<u8>, Error> {
        let read = |path: PathBuf| std::fs::read(&path).map_err(|source| Error::Io { action: "read", path, source });
        match &self.source {
            SecretSource::File(path) => read(path.clone()),
            // As with buildx; a warning tells of it.
            SecretSource::Variable(name) => Ok(env::variable(name).unwrap_or_default().into_bytes()),
            SecretSource::Own => env::variable(&self.id).map_or_else(|| read(PathBuf::from(&self.id)), |value| Ok(value.into_bytes())),
        }
    }
}

/// The values of all secrets, by name; of one name the last.
///
/// # Errors
/// A file cannot be read.
pub(super) fn values(secrets: &[Option<SecretFlag>]) -> Result<BTreeMap<String, Secret<Vec<u8>>>, Error> {
    secrets.iter().flatten().map(|secret| Ok((secret.id.clone(), Secret::new(secret.value()?)))).collect()
}

/// What of them is empty although nobody may have meant it, a sentence for each.
pub(super) fn warnings(secrets: &[Option<SecretFlag>]) -> impl Iterator<Item = String> {
    secrets.iter().flatten().filter_map(|secret| match &secret.source {
        SecretSource::Variable(name) if env::variable(name).is_none() => {
            Some(format!("the secret `{}` is empty: the variable `{name}` is not set", secret.id))
        }
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_read_as_buildx_reads_it() {
        for (text, source) in [
            ("id=a,src=f", SecretSource::File("f".into())),
            (r#"ID=a,type=file,"Source=with,comma""#, SecretSource::File("with,comma".into())),
            ("id=a,env=V", SecretSource::Variable("V".into())),
            ("type=env,src=V,id=a", SecretSource::Variable("V".into())),
            ("id=a,src=f,env=V", SecretSource::Variable("V".into())),
            ("id=a", SecretSource::Own),
            ("id=a,src=,env=", SecretSource::Own),
        ] {
            assert_eq!(secret(text), Ok(Some(SecretFlag { id: "a".into(), source })), "{text}");
        }
        assert_eq!(secret(""), Ok(None));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for text in ["a", "src=f", "id=,src=f", "id=a,type=vault", "id=a,target=x", r#"id=a,"src=f"#] {
            assert!(secret(text).is_err(), "{text}");
        }
    }
}
