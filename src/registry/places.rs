//! Reads from where `registries.conf` says: mirrors in their order, then the registry itself.
//!
//! What cannot be had at one place is asked for at the next; that a mirror does not have an image is nothing to speak of, every other failure is a warning.
//! The place that had an image's manifest is asked for its blobs first, so that an image comes from one place.

use std::future::Future;
use std::sync::PoisonError;

use crate::oci::Reference;

use super::client::Client;
use super::error::Error;

impl Client {
    /// What a short name stands for: where there are several candidates, the first whose registry has it. Other names are what they are.
    ///
    /// # Errors
    /// None of the registries has it (the error is that of the last one, the others are warnings), or they must not be tried.
    pub async fn long_name(&self, reference: &Reference) -> Result<Reference, Error> {
        let mut names = self.options().registries.long_names(reference)?.into_iter().peekable();
        while let Some(name) = names.next() {
            if names.peek().is_none() {
                return Ok(name);
            }
            match self.hurried().resolve(&name).await {
                Ok(_) => return Ok(name),
                Err(error @ Error::Stopped) => return Err(error),
                Err(error) => self.warn(format!("`{}` is not `{name}`: {error}", reference.written())),
            }
        }
        Ok(reference.clone())
    }

    /// Asks the places of `reference` one after the other until one answers.
    pub(super) async fn at_places<T, F>(&self, reference: &Reference, ask: impl Fn(Client, Reference) -> F) -> Result<T, Error>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let mut places = self.places(reference)?.into_iter().peekable();
        loop {
            let Some(place) = places.next() else { return ask(self.clone(), reference.clone()).await };
            let client = if places.peek().is_some() { self.hurried() } else { self.clone() };
            let error = match ask(client, place.clone()).await {
                Ok(answer) => {
                    self.note_place(reference, place);
                    return Ok(answer);
                }
                Err(error) => error,
            };
            let Some(next) = places.peek().filter(|_| !matches!(error, Error::Stopped)) else { return Err(error) };
            if !error.is_not_found() {
                self.warn(format!("{error}; trying `{}`", next.name()));
            }
        }
    }

    /// The places of a reference, the one before all that had something of its repository.
    fn places(&self, reference: &Reference) -> Result<Vec<Reference>, Error> {
        let mut places = self.options().registries.sources(reference)?;
        let found_at = self.inner.found_at.lock().unwrap_or_else(PoisonError::into_inner);
        // A digest is the same wherever it is; a tag is what the first place says.
        if let Some(known) = found_at.get(&reference.name()).filter(|_| reference.digest().is_some()) {
            places.retain(|place| place.name() != known.name());
            places.insert(0, known.at_target_of(reference));
        }
        Ok(places)
    }

    fn note_place(&self, reference: &Reference, place: Reference) {
        if place.name() != reference.name() {
            self.inner.found_at.lock().unwrap_or_else(PoisonError::into_inner).insert(reference.name(), place);
        }
    }
}
