//! Containers of OCI bundles: this program as the runtime that other engines call (OCI runtime specification 1.1).
//!
//! A bundle is a directory with a `config.json`, which says everything; the caller does what an engine does (images, networks, logs). What makes such a container are the same
//! parts that make our own sandboxes (mounts by descriptor, credentials, terminals, the execution); what differs is that everything is as the config says, and
//! that nobody stays: `create` ends while the container's first process waits, and whoever called it is that process's parent from then on.
//!
//! ```text
//!   engine (conmon, containerd-shim) ----> strake oci create ---- clone ----> init: waits at ROOT/<id>/start.sock
//!                                          strake oci start ----------------> init executes the command
//!                                          strake oci exec  ---- clone ----> joins the namespaces of init
//!                                          strake oci kill, delete --------> by what is on record
//! ```
//!
//! `config.rs` is the document, `check.rs` what of it is refused, `create.rs` and `init.rs` the two sides of making a container, `control.rs` the rest of its life, and
//! `state.rs` what is on record. `systemd.rs` has systemd make the control groups, over `dbus.rs`. `of_sandbox.rs` is for the other way round: one of our sandboxes as a config for another runtime. Nothing else here knows images or our own containers.

mod cgroups;
mod check;
mod config;
mod control;
mod copy_up;
mod create;
mod dbus;
mod error;
mod filesystem;
mod foreground;
mod hooks;
mod id_mapped;
mod init;
mod listener;
mod namespaces;
mod net_devices;
mod of_sandbox;
mod options;
mod process;
mod resources;
mod scheduling;
mod seccomp;
mod state;
mod stats;
mod systemd;
mod template;

pub(super) use cgroups::planned_groups;
pub use config::{
    CapabilityLists, Config, ConsoleSize, DeviceRule, Hook, Hooks, Mount, Namespace, Process, Resources, RlimitEntry, Root, User,
};
pub use control::{delete, kill, list, pause, processes, resume, start, state, stats, update};
pub(in crate::runtime) use copy_up::copy_up;
pub use create::{CreateOptions, ExecOptions, Made, create, exec, process_of};
pub use dbus::BusSocket;
pub use error::Error;
pub use foreground::wait;
pub(super) use of_sandbox::{Surroundings, of_sandbox, process_of_sandbox};
pub use state::{Containers, OCI_VERSION, Report, Status};
pub use systemd::SystemdManager;
pub(in crate::runtime) use systemd::enter_scope;
pub use template::{features, template, template_without_root};
