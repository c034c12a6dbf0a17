//! How a process is scheduled, how its reads and writes are, and where its memory comes from: system calls on the calling process.

#![expect(unsafe_code, reason = "the system calls have no safe wrapper in the libraries")]

use std::io;

/// What `sched_setattr(2)` takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SchedulerAttributes {
    /// `SCHED_*`.
    pub policy: u32,
    /// `SCHED_FLAG_*`.
    pub flags: u64,
    /// The nice value, of ordinary policies.
    pub nice: i32,
    /// The priority, of real-time policies.
    pub priority: u32,
    /// Nanoseconds of work in each period, with a deadline.
    pub runtime: u64,
    /// Nanoseconds until the work must be done.
    pub deadline: u64,
    /// Nanoseconds.
    pub period: u64,
}

fn done(result: libc::c_long) -> io::Result<()> {
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Sets the scheduler of this process.
pub fn set_scheduler(attributes: SchedulerAttributes) -> io::Result<()> {
    /// `struct sched_attr`.
    #[repr(C)]
    struct Attr {
        size: u32,
        policy: u32,
        flags: u64,
        nice: i32,
        priority: u32,
        runtime: u64,
        deadline: u64,
        period: u64,
    }
    let SchedulerAttributes { policy, flags, nice, priority, runtime, deadline, period } = attributes;
    let attr = Attr { size: size_of::<Attr>() as u32, policy, flags, nice, priority, runtime, deadline, period };
    // SAFETY: `attr` has the size that it names, outlives the call, and the kernel only reads it.
    done(unsafe { libc::syscall(libc::SYS_sched_setattr, 0, std::ptr::from_ref(&attr), 0) })
}

/// Sets the class (1 real-time, 2 best effort, 3 idle) and the priority of this process's reads and writes.
pub fn set_io_priority(class: u16, priority: u16) -> io::Result<()> {
    const IOPRIO_WHO_PROCESS: libc::c_int = 1;
    let value = libc::c_int::from(class) << 13 | libc::c_int::from(priority);
    // SAFETY: takes numbers only.
    done(unsafe { libc::syscall(libc::SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0, value) })
}

/// Sets where the memory of this process comes from: a mode with its flags (`MPOL_*`) and the nodes, as bits.
pub fn set_memory_policy(mode: i32, nodes: &[u64]) -> io::Result<()> {
    // The kernel takes one bit less than it is told (set_mempolicy(2)).
    let (mask, bits) = if nodes.is_empty() { (std::ptr::null(), 0) } else { (nodes.as_ptr(), nodes.len() * 64 + 1) };
    // SAFETY: `mask` is null, or has that many bits, outlives the call and is only read.
    done(unsafe { libc::syscall(libc::SYS_set_mempolicy, mode, mask, bits) })
}
