//! Namespaces that a container shares, as the user names them.

use crate::runtime::{Namespaces, Sharing};

use super::super::{Engine, Error};
use super::RunRequest;

impl Engine {
    /// The namespaces of a container that is made: other containers by ID, so that a new name means no other one.
    pub(super) fn namespaces(&self, request: &RunRequest) -> Result<Namespaces, Error> {
        let mut namespaces = request.namespaces.clone();
        if let Sharing::Container(name) = &namespaces.pid {
            namespaces.pid = Sharing::Container(self.container(name)?.record.id);
        }
        if let Sharing::Container(name) = &namespaces.ipc {
            let other = self.container(name)?;
            if other.spec.as_ref().is_none_or(|spec| !spec.sandbox.namespaces.ipc_shareable) {
                let message = format!("the inter-process communication of the container `{name}` is its own");
                return Err(Error::Usage { message, hint: Some("make that one with `--ipc shareable`".to_owned()) });
            }
            namespaces.ipc = Sharing::Container(other.record.id);
        }
        if namespaces.uts == Sharing::Host && request.hostname.is_some() {
            let message = "--hostname and `--uts host` contradict each other".to_owned();
            return Err(Error::Usage { message, hint: Some("leave one of them out".to_owned()) });
        }
        Ok(namespaces)
    }
}
