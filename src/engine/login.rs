//! Logging in to registries and out again. A credential is checked before it is kept.

use crate::diag::Secret;
use crate::oci::DOCKER_HUB;
use crate::registry::{Credential, LoginOutcome, LoginTarget, Saved, erase_login, save_login};
use crate::task::blocking;

use super::{Engine, Error};

/// A login.
#[derive(Clone, Debug)]
pub struct LoginRequest {
    /// The registry, as the user wrote it.
    pub registry: String,
    /// The user.
    pub username: String,
    /// The password, or a token in its place.
    pub password: Secret<String>,
}

/// A login that succeeded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoginResult {
    /// The registry's name.
    pub registry: String,
    /// Whether the registry has checked the credential: some ask nobody for one.
    pub checked: bool,
    /// Where it is kept.
    pub saved: Saved,
}

impl Engine {
    /// Checks a credential with its registry and keeps it.
    ///
    /// # Errors
    /// The registry refuses it or cannot be reached; it cannot be kept.
    pub async fn login(&self, request: LoginRequest) -> Result<LoginResult, Error> {
        let registry = registry_name(&request.registry)?;
        let client = self.client()?;
        let credential = Credential::Basic { username: request.username.clone(), password: request.password };
        let failed = |source| Error::Registry { action: "log in to", name: registry.clone(), source };
        let outcome = client.ping_auth(&registry, &credential).await.map_err(failed)?;
        let (checked, keep) = match outcome {
            LoginOutcome::Accepted { identity_token: Some(token) } => (true, Credential::IdentityToken(token)),
            LoginOutcome::Accepted { identity_token: None } => (true, credential),
            LoginOutcome::NotAsked => (false, credential),
        };
        let (target, name) = (self.login_target()?, registry.clone());
        let saved = blocking(move || save_login(&target, &name, &request.username, &keep)).await?;
        Ok(LoginResult { registry, checked, saved })
    }

    /// Forgets a credential; tells the registry's name and where the credential was.
    ///
    /// # Errors
    /// The file cannot be read or written, or the helper fails.
    pub async fn logout(&self, registry: &str) -> Result<(String, Saved), Error> {
        let registry = registry_name(registry)?;
        let (target, name) = (self.login_target()?, registry.clone());
        let erased = blocking(move || erase_login(&target, &name)).await?;
        Ok((registry, erased))
    }

    fn login_target(&self) -> Result<LoginTarget, Error> {
        let files = &self.options.credentials;
        let no_file = || Error::Usage { message: "there is no file to keep credentials in".into(), hint: None };
        let config = files.docker_config.clone().ok_or_else(no_file)?;
        Ok(LoginTarget { config, helper_dirs: files.helper_dirs.clone() })
    }
}

/// The registry that is meant by `ghcr.io`, `https://ghcr.io/v2/` or nothing at all.
fn registry_name(text: &str) -> Result<String, Error> {
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://")).unwrap_or(text);
    let host = rest.split('/').next().unwrap_or(rest).to_ascii_lowercase();
    match host.as_str() {
        "" if text.is_empty() => Ok(DOCKER_HUB.to_owned()),
        "index.docker.io" | "registry-1.docker.io" | "docker.io" => Ok(DOCKER_HUB.to_owned()),
        host if !host.is_empty() && !host.contains(|c: char| c.is_whitespace() || c == '@') => Ok(host.to_owned()),
        _ => Err(Error::Usage {
            message: format!("`{text}` is not a registry"),
            hint: Some("write it as `ghcr.io` or `localhost:5000`".into()),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registries_may_be_written_as_urls() {
        for (text, name) in [
            ("", "docker.io"),
            ("https://index.docker.io/v1/", "docker.io"),
            ("GHCR.io", "ghcr.io"),
            ("http://localhost:5000/v2/", "localhost:5000"),
        ] {
            assert_eq!(registry_name(text).unwrap(), name);
        }
        for text in ["https://", "a b", "user@host", "/"] {
            assert!(registry_name(text).is_err(), "{text}");
        }
    }
}
