//! Containers: the life of each under a supervisor process of its own, and what other processes can do with it meanwhile. There is no daemon.
//!
//! ```text
//!   strake run ----- start ----> supervisor (this binary again, setsid) ---- launch ----> PID 1 of the container
//!      |  <-- started / failed -----|  owns: lock, stdio, log, netns, exit status
//!      |  <== attach frames =======>|
//!   strake attach, stop, kill =====>| attach.sock
//!   strake ps, logs, wait --------- files of the container's directory
//! ```
//!
//! What a killed supervisor leaves is correct by construction: its lock is free, so the container counts as ended; the sandbox dies with its parent; the
//! network's leases are locks as well. This folder does not know images, names or the store: a caller gives a directory and a complete [`ContainerSpec`].

mod attachment;
mod control;
mod error;
mod interactive;
mod log;
mod protocol;
mod serve;
mod spec;
mod start;
mod state;
mod supervisor;
mod terminal;

pub use attachment::{Attachment, HeldSignals, LocalIo, Outcome, PumpOptions, hold_signals};
pub use control::{attach, kill, resize, stop, wait};
pub use error::Error;
pub use interactive::interact;
pub use log::{LogOptions, LogRecord, LogStream, logs};
pub use spec::{ContainerSpec, HostAddress, LogDriver, LogSettings, NetworkRequest, StdinMode};
pub use start::{Mode, SUPERVISOR, Started, Starter};
pub use state::{State, create, load_spec, load_state};
pub use supervisor::supervisor_main;
pub use terminal::RawMode;

#[cfg(test)]
mod tests;
