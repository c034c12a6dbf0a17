//! What a container's supervisor puts on record of it, beside its own start and end: the volumes that it mounts, and an end that nobody saw.

use std::fs::{File, OpenOptions};
use std::os::fd::AsFd;
use std::path::Path;

use jiff::Timestamp;
use rustix::fs::{FlockOperation, flock};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::runtime::network::builtin_id;

use super::journal::{Journal, Recorded};
use super::state::{self, ContainerDir};
use super::{ContainerSpec, NetworkRequest, State};

/// Records what happened to the container, where that is wanted.
pub(super) fn journal(spec: &ContainerSpec, action: &str, more: &[(&str, String)]) {
    let own = spec.labels.iter().map(|(name, value)| (name.as_str(), value.clone()));
    let known = [("image", spec.image.clone()), ("name", spec.name.clone())];
    write(spec, "container", action, &spec.id, own.chain(known).chain(more.iter().cloned()));
}

/// Records that a container has its volumes, at its start.
pub(super) fn mounts(spec: &ContainerSpec) {
    for volume in &spec.written.mounted_volumes {
        let place = [
            ("container", spec.id.clone()),
            ("destination", volume.target.clone()),
            ("driver", "local".to_owned()),
            ("propagation", String::new()),
            ("read/write", (!volume.read_only).to_string()),
        ];
        write(spec, "volume", "mount", &volume.name, place);
    }
}

/// Records that it has them no more.
pub(super) fn unmounts(spec: &ContainerSpec) {
    for volume in &spec.written.mounted_volumes {
        write(spec, "volume", "unmount", &volume.name, [("container", spec.id.clone()), ("driver", "local".to_owned())]);
    }
}

/// Records that it is on its networks no more, of which the service that is gone cannot tell.
fn disconnects(spec: &ContainerSpec) {
    let one = |id: &str, name: &str, kind: &str| {
        let place = [("container", spec.id.clone()), ("name", name.to_owned()), ("type", kind.to_owned())];
        write(spec, "network", "disconnect", id, place);
    };
    match &spec.network {
        NetworkRequest::Host => one(&builtin_id("host"), "host", "host"),
        NetworkRequest::None => one(&builtin_id("none"), "none", "null"),
        NetworkRequest::Container { .. } => {}
        NetworkRequest::Networks(endpoints) => {
            endpoints.iter().for_each(|endpoint| one(&endpoint.plan.id, &endpoint.plan.name, "bridge"));
        }
    }
}

fn write<'a>(spec: &ContainerSpec, kind: &str, action: &str, id: &str, attributes: impl IntoIterator<Item = (&'a str, String)>) {
    let Some(path) = &spec.journal else { return };
    let attributes = attributes.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    Journal::new(path).write(&Recorded { kind, action, id, attributes: &attributes });
}

/// Ends a container's first process that its supervisor did not take along: the kernel forgets to where the process has set-user-ID rights, or asks for that (prctl(2), `PR_SET_PDEATHSIG`).
fn end_survivor(pid: u32, started: u64) {
    let Some(raw) = Pid::from_raw(pid.cast_signed()) else { return };
    let Ok(process) = pidfd_open(raw, PidfdFlags::empty()) else { return };
    // Opened first, then asked whose it is: another process may have the number by now.
    if state::start_ticks(pid) == Some(started) {
        let _ = crate::sys::process::signal_pidfd(process.as_fd(), libc::SIGKILL);
    }
}

/// Puts the end of a container on record whose supervisor was killed: it ended with that, and the time is when this was noticed. Gives its state from now on; `None` where that cannot be
/// written, or somebody else is at it.
pub fn record_unseen_end(dir: &Path, spec: &ContainerSpec) -> Option<State> {
    let container = ContainerDir::new(dir);
    // While this is held nobody starts the container; who asks whether it runs is not in the way.
    let _free = container.share_lock()?;
    // Of several who notice it, one writes.
    let config = File::open(container.file("config.json")).ok()?;
    flock(&config, FlockOperation::NonBlockingLockExclusive).ok()?;
    let writable = OpenOptions::new().append(true).open(container.file("state.json")).is_ok();
    let before = state::read::<State>(&container.file("state.json")).ok()?;
    if !writable || !matches!(before, State::Running { .. } | State::Restarting { .. }) {
        return None;
    }
    if let State::Running { pid, start_ticks, boot_id, .. } = &before
        && *boot_id == state::boot_id()
    {
        end_survivor(*pid, *start_ticks);
        // What stands still ends no more than it hears, and the container's next run would be taken for paused.
        super::pause::forget(&spec.id);
    }
    let ended = state::load_state(dir).ok()?;
    let State::Exited { code, oom_killed, started_at, finished_at, error, restarts, by_hand } = ended else { return None };
    let (was_seen, now) = (finished_at.is_some(), Timestamp::now().to_string());
    let ended = State::Exited { code, oom_killed, started_at, finished_at: finished_at.or(Some(now)), error, restarts, by_hand };
    container.write_state(&ended).ok()?;
    if !was_seen {
        disconnects(spec);
        unmounts(spec);
        journal(spec, "die", &[("exitCode", code.to_string())]);
    }
    Some(ended)
}
