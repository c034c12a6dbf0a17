//! Logging in to registries and out again. A credential is checked before it is kept.

use crate::diag::Secret;
use crate::oci::DOCKER_HUB;
use crate::registry::{
    Client, Credential, CredentialFiles, Credentials, LoginOutcome, LoginTarget, Saved, erase_login, erase_logins, save_login,
};
use crate::task::blocking;

use super::{Engine, Error, client_options_without, registries, set_up_failed};

/// A login.
#[derive(Clone, Debug)]
pub struct LoginRequest {
    /// The registry, as the user wrote it.
    pub registry: String,
    /// The user.
    pub username: String,
    /// The password, or a token in its place.
    pub password: Secret<String>,
    /// Whether the registry must have the certificate for its name.
    pub tls_verify: bool,
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

/// A logout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogoutResult {
    /// The registry's name.
    pub registry: String,
    /// Whether there was a credential that is forgotten now.
    pub forgotten: bool,
    /// What has another one, which is used from now on.
    pub left: Vec<String>,
}

impl Engine {
    /// Checks a credential with its registry and keeps it.
    ///
    /// # Errors
    /// The registry refuses it or cannot be reached; it cannot be kept.
    pub async fn login(&self, request: LoginRequest) -> Result<LoginResult, Error> {
        let registry = registry_name(&request.registry)?;
        // Known credentials do not count here, and the file for them need not be there yet.
        let mut options = client_options_without(&self.options)?;
        if !request.tls_verify {
            options.insecure.push(registry.clone());
        }
        let client = Client::new(options).map_err(set_up_failed)?;
        let credential = Credential::Basic { username: request.username.clone(), password: request.password };
        let failed = |source| Error::Registry { action: "log in to", name: registry.clone(), source };
        let outcome = client.ping_auth(&registry, &credential).await.map_err(failed)?;
        let (checked, keep) = match outcome {
            LoginOutcome::Accepted { identity_token: Some(token) } => (true, Credential::IdentityToken(token)),
            LoginOutcome::Accepted { identity_token: None } => (true, credential),
            LoginOutcome::NotAsked => (false, credential),
        };
        let (targets, name) = (self.login_targets()?, registry.clone());
        let Some(target) = targets.into_iter().next() else {
            return Err(Error::Usage { message: "there is no file to keep credentials in".into(), hint: None });
        };
        let saved = blocking(move || save_login(&target, &name, &request.username, &keep)).await?;
        Ok(LoginResult { registry, checked, saved })
    }

    /// Forgets the credentials for a registry: those in the file that was asked for, or else in all files that are looked at.
    ///
    /// # Errors
    /// A file cannot be read or written, or a helper fails.
    pub async fn logout(&self, registry: &str) -> Result<LogoutResult, Error> {
        let registry = registry_name(registry)?;
        let (targets, name, files) = (self.login_targets()?, registry.clone(), self.options.credentials.clone());
        let helpers = self.helper_order()?;
        let (forgotten, left) = blocking(move || {
            let mut forgotten = false;
            for target in targets {
                forgotten |= erase_login(&target, &name)? != Saved::Nothing;
            }
            // The file that was asked for need not be there.
            let files = CredentialFiles { asked: files.asked.filter(|path| path.exists()), ..files };
            let left = Credentials::load(&files)?.with_helpers(helpers).places_of(&name)?;
            Ok::<_, crate::registry::CredentialError>((forgotten, left))
        })
        .await?;
        Ok(LogoutResult { registry, forgotten, left })
    }

    /// Forgets all credentials, of the same files and helpers; says for which registries.
    ///
    /// # Errors
    /// As [`Engine::logout`].
    pub async fn logout_of_all(&self) -> Result<Vec<String>, Error> {
        let targets = self.login_targets()?;
        let erased = blocking(move || targets.iter().map(erase_logins).collect::<Result<Vec<_>, _>>()).await?;
        let mut names = erased.concat();
        names.sort();
        names.dedup();
        Ok(names)
    }

    /// The user of the credential for a registry, as it would be used; a token stands for none (`<token>`). `None` where there is no credential.
    ///
    /// # Errors
    /// As [`Engine::logout`].
    pub async fn logged_in_as(&self, registry: &str) -> Result<Option<String>, Error> {
        let (registry, files, helpers) = (registry_name(registry)?, self.options.credentials.clone(), self.helper_order()?);
        let found = blocking(move || Credentials::load(&files)?.with_helpers(helpers).lookup(&registry, "")).await?;
        Ok(found.map(|credential| match credential {
            Credential::Basic { username, .. } => username,
            Credential::IdentityToken(_) | Credential::RegistryToken(_) => "<token>".to_owned(),
        }))
    }

    /// Where logins are, the place that keeps a new one first.
    fn login_targets(&self) -> Result<Vec<LoginTarget>, Error> {
        let files = &self.options.credentials;
        let target =
            |config: &std::path::PathBuf, helper| LoginTarget { config: config.clone(), helper, helper_dirs: files.helper_dirs.clone() };
        if let Some(asked) = &files.asked {
            return Ok(vec![target(asked, None)]);
        }
        let helpers = self.helper_order()?;
        let by_helper = |name: &String| target(&std::path::PathBuf::new(), Some(name.clone()));
        let by_file = files.docker_config.iter().chain(&files.auth_json).map(|path| target(path, None));
        Ok(helpers.before.iter().map(by_helper).chain(by_file).chain(helpers.after.iter().map(by_helper)).collect())
    }

    fn helper_order(&self) -> Result<crate::registry::HelperOrder, Error> {
        let settings = (self.options.registry_settings)()?;
        Ok(registries(&self.options, &settings)?.credential_helpers())
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
