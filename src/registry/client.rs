//! The client itself: what all operations share.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use url::Url;

use crate::oci::Reference;

use super::connect::{Connections, Trust};
use super::error::{Error, tame};
use super::host::{Host, Hosts, matches_host};
use super::options::{ClientOptions, RetryPolicy};
use super::scrub::Sent;

/// Warnings that are kept until somebody takes them.
const WARNINGS_LIMIT: usize = 32;

/// Speaks to registries. Cheap to clone; all clones share connections, tokens and limits.
///
/// Calls may be made from any number of tasks at once. Dropping a call's future stops it; what a registry has then already done (a blob or a
/// manifest stored) stays done.
#[derive(Clone, Debug)]
pub struct Client {
    pub(super) inner: Arc<Inner>,
    /// Usually that of the options.
    pub(super) retry: RetryPolicy,
}

#[derive(Debug)]
pub(super) struct Inner {
    pub(super) options: ClientOptions,
    pub(super) headers: HeaderMap,
    pub(super) connections: Connections,
    pub(super) hosts: Hosts,
    /// Whether token servers are asked for refresh tokens (only `login` does).
    pub(super) offline_tokens: bool,
    warnings: Mutex<Vec<String>>,
    /// Where images were found, by repository: their blobs are asked for there.
    pub(super) found_at: Mutex<HashMap<String, Reference>>,
    /// What must not come back in a message.
    pub(super) sent: Sent,
}

impl Client {
    /// A client. Nothing is read or connected yet.
    ///
    /// # Errors
    /// A header that HTTP does not allow.
    pub fn new(options: ClientOptions) -> Result<Client, Error> {
        Client::make(options, false)
    }

    pub(super) fn make(options: ClientOptions, offline_tokens: bool) -> Result<Client, Error> {
        let mut headers = HeaderMap::new();
        let sent = Sent::default();
        for (name, value) in &options.extra_headers {
            let bad = || Error::BadOption { option: "HTTP header", value: tame(name, 60) };
            let parsed = HeaderName::from_bytes(name.as_bytes()).map_err(|_| bad())?;
            sent.add(value);
            let mut value = HeaderValue::from_str(value.expose()).map_err(|_| bad())?;
            value.set_sensitive(true);
            headers.insert(parsed, value);
        }
        HeaderValue::from_str(&options.user_agent)
            .map_err(|_| Error::BadOption { option: "user agent", value: tame(&options.user_agent, 60) })?;
        let inner = Inner {
            options,
            headers,
            connections: Connections::default(),
            hosts: Hosts::default(),
            offline_tokens,
            warnings: Mutex::default(),
            found_at: Mutex::default(),
            sent,
        };
        Ok(Client { retry: inner.options.retry, inner: Arc::new(inner) })
    }

    /// The same client, which gives up soon: for places that are one of several.
    pub(super) fn hurried(&self) -> Client {
        Client { inner: self.inner.clone(), retry: RetryPolicy { attempts: self.retry.attempts.min(2), ..self.retry } }
    }

    /// The options that it was made with.
    pub fn options(&self) -> &ClientOptions {
        &self.inner.options
    }

    /// A connection for `url`, which need be no registry's: with the certificates, proxies and time limits of this client, and without its credentials. It
    /// follows no redirects.
    ///
    /// # Errors
    /// Certificates that cannot be read.
    pub async fn connection(&self, url: &Url) -> Result<reqwest::Client, Error> {
        Ok(self.inner.connections.client(url, &self.inner.options, Trust::Checked).await?.http)
    }

    /// Takes what registries (`Warning: 299`) and credential helpers want the user to know, each once.
    pub fn take_warnings(&self) -> Vec<String> {
        std::mem::take(&mut self.inner.warnings.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn warn(&self, text: String) {
        let mut warnings = self.inner.warnings.lock().unwrap_or_else(PoisonError::into_inner);
        if warnings.len() < WARNINGS_LIMIT && !warnings.contains(&text) {
            warnings.push(text);
        }
    }

    /// The registry `name` as a whole.
    pub(super) fn host(&self, name: &str) -> Arc<Host> {
        let insecure = self.may_be_insecure(name, name);
        self.inner.hosts.get(name, insecure, self.inner.options.max_concurrency_per_host)
    }

    /// The registry of `reference`.
    pub(super) fn host_of(&self, reference: &Reference) -> Arc<Host> {
        let insecure = self.may_be_insecure(reference.registry(), &reference.to_string());
        self.inner.hosts.get(reference.registry(), insecure, self.inner.options.max_concurrency_per_host)
    }

    /// Whether the registry `host` need prove nothing, for what is called `name`.
    fn may_be_insecure(&self, host: &str, name: &str) -> bool {
        let options = &self.inner.options;
        options.insecure.iter().any(|pattern| matches_host(pattern, host)) || options.registries.is_insecure(name)
    }

    /// The URL of `rest` in the repository of `reference`: `…/v2/NAME/REST`.
    pub(super) async fn repository_url(&self, reference: &Reference, rest: &str) -> Result<Url, Error> {
        self.inner.options.registries.check(reference)?;
        let host = self.host_of(reference);
        let base = self.base(&host).await?;
        let path = format!("v2/{}/{rest}", reference.repository());
        base.join(&path).map_err(|_| Error::BadHost { host: reference.registry().to_owned() })
    }
}
