//! Checks a credential before `login` keeps it.

use reqwest::Method;

use crate::diag::{SafeUrl, Secret};

use super::auth::AuthScheme;
use super::client::Client;
use super::credentials::{Credential, Credentials};
use super::error::Error;
use super::options::ClientOptions;
use super::transport::Call;

/// What a registry said to a credential.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LoginOutcome {
    /// It accepted it.
    Accepted {
        /// A token to keep instead of the password, where the registry gives one.
        identity_token: Option<Secret<String>>,
    },
    /// It asks nobody for credentials, so this one was not checked.
    NotAsked,
}

impl Client {
    /// Checks `credential` against the registry `name` (`ghcr.io`, `docker.io`), with the options of this client but none of its credentials.
    ///
    /// # Errors
    /// The registry refuses the credential ([`Error::is_unauthorized`]) or cannot be reached.
    pub async fn ping_auth(&self, name: &str, credential: &Credential) -> Result<LoginOutcome, Error> {
        let credentials = Credentials::default().with(name, credential.clone());
        self.options().registries.check_registry(name)?;
        let client = Client::make(ClientOptions { credentials, ..self.options().clone() }, true)?;
        let host = client.host(name);
        let base = client.base(&host).await?;
        let url = base.join("v2/").map_err(|_| Error::BadHost { host: name.to_owned() })?;
        let answer = client.collect(&host, &Call::new(Method::GET, url, "", Vec::new()), 1 << 20).await?;
        let state = host.auth.lock().await;
        match state.scheme {
            AuthScheme::None if answer.status.is_success() => Ok(LoginOutcome::NotAsked),
            AuthScheme::None => {
                let (url, value) = (SafeUrl::new(answer.url.as_str()), answer.status.to_string());
                Err(Error::BadAnswer { url, what: "a status", value })
            }
            AuthScheme::Basic | AuthScheme::Bearer { .. } => Ok(LoginOutcome::Accepted { identity_token: state.refresh_token().cloned() }),
        }
    }
}
