//! Networks: a bridge of one's own with NAT as root, a helper without.

use super::{Finding, program};
use crate::runtime::network::{Network, Unavailable};

pub(super) fn findings(rootless: bool) -> Vec<Finding> {
    if rootless {
        return vec![match ["pasta", "slirp4netns"].into_iter().find(|name| program(name).is_some()) {
            Some(name) => Finding::ok("network", format!("`{name}` is installed")),
            None => Finding::warn(
                "network",
                "neither pasta nor slirp4netns is installed: containers use the host's network",
                "apt-get install passt",
            ),
        }];
    }
    vec![match Network::probe() {
        Ok(()) => Finding::ok("network", "a private one with nf_tables and a bridge"),
        Err(Unavailable { reason, hint }) => Finding::warn("network", format!("{reason}: containers use the host's network"), hint),
    }]
}
