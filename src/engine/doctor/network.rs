//! Networks: a bridge of one's own with NAT as root, a program that carries packets without.

use super::{DoctorRequest, Finding};
use crate::runtime::Situation;
use crate::runtime::network::{Carrier, Network, Program, Unavailable, probe_tun};

pub(super) fn findings(request: &DoctorRequest, situation: Situation) -> Vec<Finding> {
    match situation {
        Situation::Root => vec![bridge()],
        Situation::UserNamespace(_) => vec![carried(request)],
        Situation::Chroot => vec![Finding::ok("network", "that of the container around this, for steps too")],
        // Nothing runs that could have one.
        Situation::Bare => Vec::new(),
    }
}

fn bridge() -> Finding {
    match Network::probe() {
        Ok(closed) if closed.is_empty() => Finding::ok("network", "a private one with nf_tables and a bridge"),
        Ok(closed) => {
            let found = format!(
                "a private one with nf_tables and a bridge; rules about it let its packets through `{}`, which drops others",
                closed.join("`, `")
            );
            Finding::ok("network", found)
        }
        Err(Unavailable { reason, hint }) => Finding::warn("network", format!("{reason}: containers use the host's network"), hint),
    }
}

fn carried(request: &DoctorRequest) -> Finding {
    let Some(program) = Program::find(&request.programs).into_iter().next() else {
        let found = "neither pasta nor slirp4netns is in the PATH: containers use the host's network and cannot publish ports";
        let fix = format!("apt-get install {} (or {})", Carrier::Pasta.package(), Carrier::Slirp4netns.package());
        return Finding::warn("network", found, fix);
    };
    match probe_tun() {
        Ok(()) => Finding::ok("network", format!("a private one by `{}`", program.path.display())),
        Err(Unavailable { reason, hint }) => Finding::warn(
            "network",
            format!("{reason}, so `{}` is of no use: containers use the host's network", program.carrier.name()),
            hint,
        ),
    }
}
