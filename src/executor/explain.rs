//! `--explain`: what became of each step's lookup.

use crate::cache::{CacheKey, Change, MissReason};
use crate::graph::Step;
use crate::progress::{Difference, Explanation, Verdict};

use super::Environment;

/// Which kind of key a result was found by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FoundBy {
    /// What the instruction says and what its inputs are called.
    Definition,
    /// The content of exactly the files that it reads.
    Content,
}

/// Says that a step was found, in this store or in an imported cache.
pub(super) fn hit(environment: &Environment, step: &Step, key: &CacheKey, by: FoundBy, cache: Option<&str>) {
    let by = match by {
        FoundBy::Definition => "definition",
        FoundBy::Content => "content",
    };
    tell(environment, step, key, || Verdict::Hit { by, cache: cache.map(str::to_owned) });
}

/// Says why a step runs.
pub(super) fn miss(environment: &Environment, step: &Step, key: &CacheKey, reason: &MissReason) {
    tell(environment, step, key, || {
        let changes = match reason {
            MissReason::Changed(changes) => changes.as_slice(),
            _ => &[],
        };
        Verdict::Miss { reason: reason.to_string(), differences: changes.iter().map(difference).collect() }
    });
}

fn difference(change: &Change) -> Difference {
    let (what, old, new) = change.parts();
    Difference { text: change.to_string(), what, old, new }
}

fn tell(environment: &Environment, step: &Step, key: &CacheKey, verdict: impl FnOnce() -> Verdict) {
    if environment.explain {
        environment.progress.explain(Explanation { title: step.title(), key: key.to_string(), verdict: verdict() });
    }
}
