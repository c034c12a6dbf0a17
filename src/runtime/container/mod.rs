//! Containers: the life of each under a supervisor process of its own, and what other processes can do with it meanwhile. There is no daemon.
//!
//! ```text
//!   strake run ----- start ----> supervisor (this binary again, setsid) ---- launch ----> PID 1 of the container
//!      |  <-- started / failed -----|  owns: lock, stdio, log, netns, exit status
//!      |  <== attach frames =======>|
//!   strake attach, stop, kill =====>| attach.sock
//!   strake exec ===================>|   which becomes the socket of a process of its own (`exec.rs`)
//!   strake ps, logs, wait --------- files of the container's directory
//! ```
//!
//! What a killed supervisor leaves is correct by construction: its lock is free, so the container counts as ended; the sandbox dies with its parent; the
//! network's leases are locks as well. This folder does not know images, names or the store: a caller gives a directory and a complete [`ContainerSpec`].

mod attachment;
mod chronicle;
mod control;
mod error;
mod exec;
mod health;
mod interactive;
pub mod journal;
mod late;
mod links;
mod log;
mod networking;
mod pause;
mod processes;
mod protocol;
mod restart;
mod root;
mod serve;
mod shared;
mod spec;
mod start;
mod state;
mod streams;
mod supervisor;
mod terminal;

pub use crate::runtime::network::EndpointSpec;
pub use attachment::{Attachment, HeldSignals, LocalIo, Outcome, PumpOptions, hold_signals};
pub use chronicle::record_unseen_end;
pub use control::{attach, change_networks, destroy, exec, execs, kill, resize, stop, wait};
pub use error::Error;
pub use exec::ExecRequest;
pub use health::{Health, HealthCheck, HealthStatus, Probed, load_health};
pub use interactive::interact;
pub(super) use interactive::{Partner, talk};
pub use late::{forget as forget_late_limits, limit};
pub use links::Link;
pub use log::{LogOptions, LogRecord, LogStream, logs};
pub use networking::NameSettings;
pub use pause::{forget as forget_pause, is_paused, pause, unpause};
pub use processes::processes_of;
pub use root::{ContainerRoot, beside, open_root};
pub use spec::{ContainerSpec, HostAddress, LogDriver, LogSettings, MountedVolume, NetworkRequest, RestartPolicy, StdinMode, Written};
pub use start::{Mode, Outlook, SUPERVISOR, Started, Starter, Waiting};
pub use state::{State, create, load_spec, load_state, save_spec};
pub use supervisor::{Supervised, Surroundings, supervisor_main};
pub use terminal::RawMode;

pub(super) use state::{boot_id, start_ticks};

#[cfg(test)]
mod tests;
