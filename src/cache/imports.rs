//! The imported caches of one build, and how steps are found in them.
//!
//! What a result is called differs from store to store: with `--no-cache`, or where a copy hit by its content, its name is not its key. So beside the names
//! that this build gives, [`Imports`] keeps the names that each cache gives to the same results, and looks a step up by its components *in the cache's names*.
//! Here the result is called by this build's own key, always: no name that a cache chose gets into this store.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::oci::{Descriptor, Digest};

use super::portable::{ImportedCache, OfferedLayer, StepName};
use super::{CacheKey, Components};

/// A layer that one of the caches has for a step.
#[derive(Clone, Debug)]
pub struct Offer {
    /// Which cache.
    pub cache: usize,
    /// Its layer.
    pub layer: OfferedLayer,
    /// All keys that the cache finds the step by. Those that this build has not computed are good for nothing but that same cache.
    pub keys: Vec<CacheKey>,
}

/// The caches that a build imports.
#[derive(Debug, Default)]
pub struct Imports {
    caches: Vec<ImportedCache>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Of each cache, what it calls the results of this build.
    names: Vec<HashMap<CacheKey, CacheKey>>,
    /// Blobs that turned out not to be there, or not to be what they should.
    bad: HashSet<(usize, Digest)>,
    /// Caches that cannot be reached any more.
    lost: HashSet<usize>,
    /// Caches of which the user was told.
    told: HashSet<usize>,
}

impl Imports {
    /// These caches, of which the first that has a step gives it.
    pub fn new(caches: Vec<ImportedCache>) -> Imports {
        let names = vec![HashMap::new(); caches.len()];
        Imports { caches, state: Mutex::new(State { names, ..State::default() }) }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.caches.is_empty()
    }

    /// What a cache is called.
    pub fn name(&self, cache: usize) -> &str {
        self.caches.get(cache).map_or("", |cache| &cache.name)
    }

    /// Looks for a step that is made of `components`, and that this build calls `name`.
    pub fn find(&self, components: &Components, name: CacheKey) -> Option<Offer> {
        let mut state = self.state();
        let mut offer = None;
        for (at, cache) in self.caches.iter().enumerate() {
            let names = &mut state.names[at];
            let Some(record) = cache.record(&components.in_names(names).key()) else { continue };
            names.insert(name, record.result);
            offer = offer.or_else(|| cache.layer(record).map(|layer| Offer { cache: at, layer, keys: record.keys.clone() }));
            if offer.as_ref().is_some_and(|offer| {
                state.lost.contains(&offer.cache) || state.bad.contains(&(offer.cache, offer.layer.blob.digest.clone()))
            }) {
                offer = None;
            }
        }
        offer
    }

    /// Says that this build's result `name` is made of results by `make`: each cache's name of it follows from its names of those.
    pub fn derive(&self, name: CacheKey, make: impl Fn(&dyn Fn(CacheKey) -> CacheKey) -> CacheKey) {
        for names in &mut self.state().names {
            let there = make(&|key| names.get(&key).copied().unwrap_or(key));
            if there != name {
                names.insert(name, there);
            }
        }
    }

    /// What a step of that name was made of when a cache was written, and what it is made of now in that cache's names.
    pub fn compare(&self, step: &StepName, components: &Components) -> Option<(Components, Components)> {
        let state = self.state();
        self.caches.iter().zip(&state.names).find_map(|(cache, names)| {
            let before = cache.components_of(step)?.clone();
            Some((before, components.in_names(names).abridged()))
        })
    }

    /// Takes an offer back. True where the user has not been told of this cache yet.
    pub fn reject(&self, cache: usize, blob: &Descriptor, whole_cache: bool) -> bool {
        let mut state = self.state();
        state.bad.insert((cache, blob.digest.clone()));
        if whole_cache {
            state.lost.insert(cache);
        }
        state.told.insert(cache)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
