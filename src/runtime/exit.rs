//! How a sandbox ended and what it used.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::sys::process::ProcessIo;

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ExitStatus {
    /// By itself, with this code.
    Code(u8),
    /// By this signal.
    Signal(i32),
}

impl ExitStatus {
    /// Whether it succeeded.
    pub fn success(self) -> bool {
        self == ExitStatus::Code(0)
    }

    /// The code as shells and `docker run` give it: 128 + the signal's number for a process that was killed.
    pub fn code(self) -> u8 {
        match self {
            ExitStatus::Code(code) => code,
            ExitStatus::Signal(signal) => 128u8.wrapping_add(signal as u8),
        }
    }
}

/// The end of a sandbox.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// How its process ended.
    pub status: ExitStatus,
    /// The most memory used, in bytes: of the whole sandbox where a memory cgroup counted it, otherwise of its largest process.
    pub peak_memory: Option<u64>,
    /// Whether the kernel killed something in it because its memory limit was reached.
    pub oom_killed: bool,
    /// CPU time in user mode of the process and those it waited for.
    pub user_time: Duration,
    /// CPU time in the kernel of the process and those it waited for.
    pub system_time: Duration,
    /// What the process and those it waited for read and wrote, where the kernel counts that.
    #[serde(default)]
    pub io: Option<ProcessIo>,
}
