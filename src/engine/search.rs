//! Searching registries for repositories.

use crate::oci::DOCKER_HUB;
pub use crate::registry::FoundRepository;

use super::{Engine, Error};

impl Engine {
    /// Searches a registry. One that has no search is asked for the list of its repositories, of which those count whose names contain the term.
    ///
    /// # Errors
    /// The registry cannot be reached, refuses, or has neither.
    pub async fn search(&self, registry: &str, term: &str, limit: u32) -> Result<Vec<FoundRepository>, Error> {
        let failed = |source| Error::Registry { action: "search", name: registry.to_owned(), source };
        let client = self.client()?;
        match client.search(registry, term, limit).await {
            Err(error) if error.is_not_found() && registry != DOCKER_HUB => {}
            result => return result.map_err(failed),
        }
        let names = client.catalog(registry).await.map_err(failed)?;
        let fitting = names.into_iter().filter(|name| name.contains(term)).take(usize::try_from(limit).unwrap_or(usize::MAX));
        Ok(fitting.map(|name| FoundRepository { name: format!("{registry}/{name}"), ..FoundRepository::default() }).collect())
    }
}
