//! What is known of a container: its row, its files, and the truth about whether it runs.

use std::path::PathBuf;

use crate::runtime::container::{self, ContainerSpec, State, load_spec, load_state};
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
}

impl ContainerInfo {
    pub(super) fn load(store: &Store, record: ContainerRecord) -> ContainerInfo {
        let dir = store.container_dir(&record.id);
        let (spec, state) = (load_spec(&dir).ok(), load_state(&dir).ok());
        ContainerInfo { record, dir, spec, state }
    }

    /// Whether it runs.
    pub fn is_running(&self) -> bool {
        matches!(self.state, Some(State::Running { .. }))
    }

    /// The state in one word, as `--filter status=` takes it.
    pub fn status(&self) -> &'static str {
        match self.state {
            Some(State::Created) => "created",
            Some(State::Running { .. }) => "running",
            Some(State::Exited { .. }) => "exited",
            None => "dead",
        }
    }

    /// The first twelve digits of the ID.
    pub fn short_id(&self) -> &str {
        self.record.id.get(..12).unwrap_or(&self.record.id)
    }

    pub(super) fn failed(&self, action: &'static str, source: container::Error) -> Error {
        Error::Container { action, name: self.record.name.clone(), source }
    }
}
