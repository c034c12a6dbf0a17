//! Searching for repositories, as Docker Hub and the registries of Docker's first protocol can (`/v1/search`). No specification has it.

use reqwest::Method;
use serde::Deserialize;
use url::Url;

use crate::diag::SafeUrl;
use crate::oci::DOCKER_HUB;

use super::client::Client;
use super::error::Error;
use super::transport::Call;

/// The largest answer.
const ANSWER_LIMIT: u64 = 8 << 20;

/// Where Docker Hub is searched: its registry has no search.
const HUB: &str = "https://index.docker.io/";

/// A repository that was found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct FoundRepository {
    /// Its name, as the registry gives it.
    pub name: String,
    /// What its owner says of it.
    #[serde(deserialize_with = "text")]
    pub description: String,
    /// How many like it.
    pub star_count: i64,
    /// Whether Docker keeps it.
    pub is_official: bool,
    /// Whether it is built by Docker Hub.
    pub is_automated: bool,
}

/// A text; registries send `null` for none.
fn text<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    Ok(Option::<String>::deserialize(deserializer)?.unwrap_or_default())
}

#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    results: Option<Vec<FoundRepository>>,
}

impl Client {
    /// Searches a registry for repositories; at most `limit` are asked for.
    ///
    /// # Errors
    /// The registry has no search ([`Error::is_not_found`]), cannot be reached, or answers with something else.
    pub async fn search(&self, registry: &str, term: &str, limit: u32) -> Result<Vec<FoundRepository>, Error> {
        let host = self.host(registry);
        let bad_host = |_| Error::BadHost { host: registry.to_owned() };
        let base = if registry == DOCKER_HUB { Url::parse(HUB).map_err(bad_host)? } else { self.base(&host).await? };
        let mut url = base.join("v1/search").map_err(bad_host)?;
        url.query_pairs_mut().append_pair("q", term).append_pair("n", &limit.to_string());
        let answer = self.collect(&host, &Call::new(Method::GET, url, "", Vec::new()), ANSWER_LIMIT).await?;
        let bad = |_| {
            let value = self.beginning(&answer.body);
            Error::BadAnswer { url: SafeUrl::new(answer.url.as_str()), what: "a list of repositories", value }
        };
        let parsed: Answer = serde_json::from_slice(&answer.body).map_err(bad)?;
        let mut found = parsed.results.unwrap_or_default();
        found.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
        Ok(found)
    }
}
