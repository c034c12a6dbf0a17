//! Directories that were looked up lately, by path, with their descriptors.
//!
//! The bound is on descriptors, not on paths, because a directory that many layers have needs many. Two generations stand in for a least-recently-used
//! list: when the young one is full, it becomes the old one, and what is asked for again moves back. A directory in use outlives its place in the cache.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::MergedDir;
use crate::path::RootPath;

/// How many descriptors one generation may hold. Two generations, several views and everything else must fit into the usual limit of 1024.
const MAX_DESCRIPTORS: usize = 96;

#[derive(Debug, Default)]
pub(super) struct DirectoryCache(Mutex<Generations>);

#[derive(Debug, Default)]
struct Generations {
    young: HashMap<RootPath, Arc<MergedDir>>,
    young_descriptors: usize,
    old: HashMap<RootPath, Arc<MergedDir>>,
}

impl DirectoryCache {
    pub(super) fn get(&self, path: &RootPath) -> Option<Arc<MergedDir>> {
        let mut generations = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = generations.young.get(path) {
            return Some(Arc::clone(found));
        }
        let (path, found) = generations.old.remove_entry(path)?;
        generations.insert(path, Arc::clone(&found));
        Some(found)
    }

    pub(super) fn put(&self, path: RootPath, directory: Arc<MergedDir>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(path, directory);
    }
}

impl Generations {
    fn insert(&mut self, path: RootPath, directory: Arc<MergedDir>) {
        if self.young_descriptors >= MAX_DESCRIPTORS {
            self.old = std::mem::take(&mut self.young);
            self.young_descriptors = 0;
        }
        self.young_descriptors += directory.descriptors();
        self.young.insert(path, directory);
    }
}
