//! The two ways to ask a token server: GET (Docker's "token authentication") and OAuth2 POST; and its answer.

use std::time::Duration;

use base64::Engine as _;
use reqwest::header::HeaderValue;
use serde::Deserialize;
use url::Url;
use url::form_urlencoded::Serializer;

use crate::diag::{SafeUrl, Secret};
use crate::registry::credentials::Credential;
use crate::registry::error::Error;

use super::Scope;

/// Our name at token servers.
const CLIENT_ID: &str = "strake";

/// How to ask for a token.
#[derive(Debug)]
pub(in crate::registry) enum TokenRequest {
    Get { url: Url, authorization: Option<HeaderValue> },
    Post { url: Url, form: Secret<String> },
}

impl TokenRequest {
    /// The request for `scopes`. `offline` also asks for a refresh token, for `login`.
    pub(in crate::registry) fn new(
        realm: &Url,
        service: Option<&str>,
        scopes: &[Scope],
        credential: Option<&Credential>,
        offline: bool,
    ) -> TokenRequest {
        match credential {
            Some(Credential::IdentityToken(token)) => {
                TokenRequest::post(realm, service, scopes, &[("grant_type", "refresh_token"), ("refresh_token", token.expose())])
            }
            Some(Credential::Basic { username, password }) => {
                let mut url = get_url(realm, service, scopes);
                url.query_pairs_mut().append_pair("account", username);
                if offline {
                    url.query_pairs_mut().append_pair("offline_token", "true").append_pair("client_id", CLIENT_ID);
                }
                TokenRequest::Get { url, authorization: basic(username, password) }
            }
            None | Some(Credential::RegistryToken(_)) => TokenRequest::Get { url: get_url(realm, service, scopes), authorization: None },
        }
    }

    /// The same by OAuth2, for token servers that know no GET.
    pub(in crate::registry) fn password_grant(
        realm: &Url,
        service: Option<&str>,
        scopes: &[Scope],
        username: &str,
        password: &Secret<String>,
    ) -> TokenRequest {
        TokenRequest::post(realm, service, scopes, &[("grant_type", "password"), ("username", username), ("password", password.expose())])
    }

    fn post(realm: &Url, service: Option<&str>, scopes: &[Scope], grant: &[(&str, &str)]) -> TokenRequest {
        let mut form = Serializer::new(String::new());
        form.extend_pairs(grant).append_pair("client_id", CLIENT_ID);
        if let Some(service) = service {
            form.append_pair("service", service);
        }
        let scopes: Vec<String> = scopes.iter().map(Scope::to_string).collect();
        if !scopes.is_empty() {
            form.append_pair("scope", &scopes.join(" "));
        }
        TokenRequest::Post { url: realm.clone(), form: Secret::new(form.finish()) }
    }
}

fn get_url(realm: &Url, service: Option<&str>, scopes: &[Scope]) -> Url {
    let mut url = realm.clone();
    {
        let mut query = url.query_pairs_mut();
        if let Some(service) = service {
            query.append_pair("service", service);
        }
        for scope in scopes {
            query.append_pair("scope", &scope.to_string());
        }
    }
    if url.query() == Some("") {
        url.set_query(None);
    }
    url
}

/// The `Authorization` of a user.
pub(in crate::registry) fn basic(username: &str, password: &Secret<String>) -> Option<HeaderValue> {
    sensitive(&format!("Basic {}", pair_of(username, password).expose()))
}

/// User and password as they are sent.
pub(in crate::registry) fn pair_of(username: &str, password: &Secret<String>) -> Secret<String> {
    let pair = Secret::new(format!("{username}:{}", password.expose()));
    Secret::new(base64::engine::general_purpose::STANDARD.encode(pair.expose()))
}

/// The `Authorization` of a token; `None` where it holds bytes that no header may.
pub(in crate::registry) fn bearer(token: &Secret<String>) -> Option<HeaderValue> {
    sensitive(&format!("Bearer {}", token.expose()))
}

fn sensitive(text: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// What a token server gave.
#[derive(Debug)]
pub(in crate::registry) struct Granted {
    pub(in crate::registry) value: Secret<String>,
    /// How long to use it: a little less than it is good for.
    pub(in crate::registry) lifetime: Duration,
    pub(in crate::registry) refresh_token: Option<Secret<String>>,
}

#[derive(Deserialize)]
struct Answer {
    token: Option<String>,
    access_token: Option<String>,
    expires_in: Option<f64>,
    refresh_token: Option<String>,
}

/// Reads the answer of a token server.
pub(in crate::registry) fn parse_token(url: &Url, body: &[u8]) -> Result<Granted, Error> {
    let bad = |value: &str| Error::BadAnswer { url: SafeUrl::new(url.as_str()), what: "a token", value: value.to_owned() };
    let answer: Answer = serde_json::from_slice(body).map_err(|_| bad("not the JSON that was expected"))?;
    let value = answer.token.filter(|token| !token.is_empty()).or(answer.access_token).unwrap_or_default();
    let value = Secret::new(value);
    if value.expose().is_empty() || bearer(&value).is_none() {
        return Err(bad("no token in it"));
    }
    // Without a time, 60 s (token authentication specification, "Token Response Fields").
    let seconds = answer.expires_in.filter(|seconds| seconds.is_finite() && *seconds > 0.0).unwrap_or(60.0).min(86400.0);
    let lifetime = Duration::from_secs_f64((seconds - 15.0).max(seconds * 0.8));
    Ok(Granted { value, lifetime, refresh_token: answer.refresh_token.filter(|token| !token.is_empty()).map(Secret::new) })
}
