//! What is known of a container: its row, its files, and the truth about whether it runs.

use std::path::PathBuf;

use crate::runtime::container::{self, ContainerSpec, Health, State, is_paused, load_health, load_spec, load_state, record_unseen_end};
use crate::store::{ContainerRecord, Store};

use super::super::Error;

/// A container.
#[derive(Clone, Debug)]
pub struct ContainerInfo {
    /// Its row.
    pub record: ContainerRecord,
    /// Its directory.
    pub dir: PathBuf,
    /// What it is; `None` where whoever made it was killed before it was written.
    pub spec: Option<ContainerSpec>,
    /// How far its life has come; `None` as well.
    pub state: Option<State>,
    /// How it is, where that is asked for.
    pub health: Option<Health>,
}

impl ContainerInfo {
    pub(super) fn load(store: &Store, record: ContainerRecord) -> ContainerInfo {
        let dir = store.container_dir(&record.id);
        let (spec, mut state) = (load_spec(&dir).ok(), load_state(&dir).ok());
        if let (Some(State::Exited { started_at: Some(_), error: Some(_), .. }), Some(spec)) = (&state, &spec) {
            // Its supervisor was killed, which this may be the first to notice.
            state = record_unseen_end(&dir, spec).or(state);
        }
        let health = spec.as_ref().filter(|spec| spec.health.is_some()).and_then(|_| load_health(&dir).ok().flatten());
        ContainerInfo { record, dir, spec, state, health }
    }

    /// Whether it runs.
    pub fn is_running(&self) -> bool {
        matches!(self.state, Some(State::Running { .. }))
    }

    /// Whether it runs, or is about to run again.
    pub fn is_alive(&self) -> bool {
        matches!(self.state, Some(State::Running { .. } | State::Restarting { .. }))
    }

    /// Whether it runs and stands still.
    pub fn is_paused(&self) -> bool {
        matches!(&self.state, Some(State::Running { cgroups, .. }) if is_paused(&self.record.id, cgroups))
    }

    /// The state in one word, as `--filter status=` takes it.
    pub fn status(&self) -> &'static str {
        match self.state {
            // One that never ran was made and no more, as Docker sees it, though its start was tried.
            Some(State::Created | State::Exited { started_at: None, .. }) => "created",
            Some(State::Running { .. }) if self.is_paused() => "paused",
            Some(State::Running { .. }) => "running",
            Some(State::Restarting { .. }) => "restarting",
            Some(State::Exited { .. }) => "exited",
            None => "dead",
        }
    }

    /// The first twelve digits of the ID.
    pub fn short_id(&self) -> &str {
        self.record.id.get(..12).unwrap_or(&self.record.id)
    }

    pub(super) fn failed(&self, action: &'static str, source: container::Error) -> Error {
        match source {
            container::Error::Gone => Error::NoSuchContainer { name: self.record.name.clone() },
            source => Error::Container { action, name: self.record.name.clone(), source },
        }
    }
}
