//! Records: results by key, and what each step was made of the last time.

use serde::{Deserialize, Serialize};

use crate::store::{CacheEntry, SnapshotId, Store};
use crate::task::fault_point;

use super::portable::MAX_KEYS;
use super::{CacheKey, Components, MissReason, explain};

/// The result of an op: its identity, and the snapshots of its file system, bottom first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// The identity, of which keys of later ops are made.
    pub key: CacheKey,
    /// The snapshots, bottom first.
    pub snapshots: Vec<SnapshotId>,
}

/// The place of a step in a Dockerfile, under which its components are remembered from build to build.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct StepSlot([u8; 32]);

impl StepSlot {
    /// The slot named by these texts.
    pub fn new(parts: &[&str]) -> StepSlot {
        let mut hasher = blake3::Hasher::new();
        for part in parts {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part.as_bytes());
        }
        StepSlot(*hasher.finalize().as_bytes())
    }
}

/// The build cache of a store. Cloning is cheap.
#[derive(Clone, Debug)]
pub struct BuildCache {
    store: Store,
}

/// More files than this are not remembered one by one: the explanation then says that files changed, without their names.
pub const MAX_REMEMBERED_FILES: usize = 20_000;

/// What the store keeps of a step, beside the record's own fields.
#[derive(Serialize, Deserialize)]
struct Remembered {
    components: Components,
}

impl BuildCache {
    /// The cache in `store`.
    pub fn new(store: Store) -> BuildCache {
        BuildCache { store }
    }

    /// The result that was made under `key`, if all of it is still there. What cannot be read is a miss.
    pub fn get(&self, key: &CacheKey) -> Option<Output> {
        match self.store.cache_get(&key.0) {
            Ok(entry) => entry.map(|entry| Output { key: CacheKey(entry.result), snapshots: entry.snapshots }),
            Err(error) => {
                tracing::warn!(%key, %error, "the cache record cannot be read");
                None
            }
        }
    }

    /// What the result is called that was made under `key`, if it is still there. [`BuildCache::get`] gives it.
    pub fn find(&self, key: &CacheKey) -> Option<CacheKey> {
        match self.store.cache_result(&key.0) {
            Ok(result) => result.map(CacheKey),
            Err(error) => {
                tracing::warn!(%key, %error, "the cache record cannot be read");
                None
            }
        }
    }

    /// Records a result under each of `keys`.
    ///
    /// # Errors
    /// The store cannot be written.
    pub fn put(&self, keys: &[CacheKey], output: &Output) -> Result<(), crate::store::Error> {
        let keys: Vec<[u8; 32]> = keys.iter().map(|key| key.0).collect();
        let entry = CacheEntry { result: output.key.0, output: Vec::new(), snapshots: output.snapshots.clone() };
        fault_point("step:committed");
        self.store.cache_put(&keys, &entry)?;
        fault_point("step:recorded");
        Ok(())
    }

    /// All keys under which the result of `key` is found: by definition, by content.
    pub fn keys_with(&self, key: &CacheKey) -> Vec<CacheKey> {
        let mut keys: Vec<CacheKey> = self.store.cache_keys_with(&key.0, MAX_KEYS).unwrap_or_default().into_iter().map(CacheKey).collect();
        if !keys.contains(key) {
            keys.insert(0, *key);
        }
        keys
    }

    /// Why a step that is made of `components` is not in the cache: compared with the first of `slots` that is known.
    pub fn explain(&self, slots: &[StepSlot], components: &Components) -> MissReason {
        let known = slots.iter().find_map(|slot| self.remembered(slot));
        explain(known.as_ref(), components)
    }

    /// The layer that the last build of a step made, where it is still there: it may have much in common with the one that is made now.
    pub fn earlier_layer(&self, slots: &[StepSlot]) -> Option<SnapshotId> {
        let components = slots.iter().find_map(|slot| self.remembered(slot))?;
        self.get(&components.key())?.snapshots.last().copied()
    }

    /// Remembers what a step is made of, for the next build's explanations. Failing to is no failure of the build.
    pub fn remember(&self, slots: &[StepSlot], components: &Components) {
        let mut components = components.clone();
        components.limit_files(MAX_REMEMBERED_FILES);
        let Ok(bytes) = serde_json::to_vec(&Remembered { components }) else { return };
        let steps: Vec<([u8; 32], &[u8])> = slots.iter().map(|slot| (slot.0, bytes.as_slice())).collect();
        if let Err(error) = self.store.put_step_components(&steps) {
            tracing::warn!(%error, "what the step was made of cannot be remembered");
        }
    }

    fn remembered(&self, slot: &StepSlot) -> Option<Components> {
        let bytes = self.store.step_components(&slot.0).ok()??;
        serde_json::from_slice::<Remembered>(&bytes).ok().map(|remembered| remembered.components)
    }
}
