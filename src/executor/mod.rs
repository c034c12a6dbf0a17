//! Running a build: which nodes must run, in which order, and one file per kind of op.
//!
//! [`run`] first computes every node's identity and looks it up (`probe`), before anything runs. Then it walks back from the target: a hit needs
//! nothing below it, a miss needs its inputs. What is needed runs as soon as its inputs are there, in parallel. One task owns the state of all nodes; the
//! work itself happens in tasks that report back to it.
//!
//! Before a node runs, its key is computed again from what its inputs really became, and looked up under a lock of that key: the same step in two
//! builds, or in two processes, runs once.

mod environment;
mod error;
mod explain;
mod mounted;
pub mod ops;
mod probe;
mod roots;
mod scheduler;
mod settings;
mod ssh;
mod told;

pub use environment::{CacheFailure, CacheLayers, Download, Environment, NetworkSource, Sources, StepNetwork};
pub use error::{Error, StepFailure};
pub use ops::{FailedSlot, FailedStep, FileTimes, ShellError};
pub use roots::{RootDriver, Roots};
pub use scheduler::{Outcome, run};
pub use settings::StepSettings;
pub use ssh::{AgentSocket, SshAgent, SshError, SshSource};
pub use told::{StepLayerAt, StepResult};
