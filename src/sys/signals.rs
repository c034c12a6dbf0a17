//! Signals as readable bytes: a handler that writes each signal's number to a pipe, for loops that wait with `poll(2)`.
//!
//! Handlers belong to the whole process, so there can be one such pipe at a time; its guard puts the earlier handlers back. Other threads need not block anything. A copy of the process
//! that was made meanwhile has the handlers and not the pipe: there a signal does what it does by default.

#![expect(unsafe_code, reason = "installing a signal handler, and what that may do")]

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicI32, Ordering};

use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

/// The pipe that the handler writes to; -1 while there is none.
static WRITE_END: AtomicI32 = AtomicI32::new(-1);

/// Whose pipe it is.
static OWNER: AtomicI32 = AtomicI32::new(-1);

/// Signals that arrive as bytes while this exists.
#[derive(Debug)]
pub struct SignalPipe {
    read: OwnedFd,
    write: OwnedFd,
    earlier: Vec<(Signal, SigAction)>,
}

extern "C" fn on_signal(signal: libc::c_int) {
    // SAFETY: `getpid` has no preconditions and may be called in a signal handler.
    if unsafe { libc::getpid() } != OWNER.load(Ordering::Relaxed) {
        // SAFETY: `signal` may be called in a signal handler, and no code of ours is run by the default action.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
        // SAFETY: `raise` may be called in a signal handler; the signal takes effect when this returns.
        unsafe { libc::raise(signal) };
        return;
    }
    let fd = WRITE_END.load(Ordering::Relaxed);
    let byte = [signal as u8];
    // SAFETY: `__errno_location` has no preconditions and gives this thread's errno.
    let errno = unsafe { libc::__errno_location() };
    // SAFETY: the pointer is valid and aligned for this thread, which is the only one that uses it.
    let saved = unsafe { errno.read() };
    // SAFETY: `write` may be called in a signal handler; `byte` is one readable byte. A descriptor that is closed by now gives EBADF; a full pipe EAGAIN.
    unsafe { libc::write(fd, byte.as_ptr().cast(), 1) };
    // SAFETY: as for the read above; the interrupted code must find its own errno.
    unsafe { errno.write(saved) };
}

/// Ignores `signal` from now on. What this process executes inherits that unless it is reset.
pub fn ignore(signal: Signal) -> io::Result<()> {
    let action = SigAction::new(SigHandler::SigIgn, SaFlags::empty(), SigSet::empty());
    // SAFETY: ignoring a signal runs no code of ours.
    unsafe { sigaction(signal, &action) }?;
    Ok(())
}

/// In a copy of the process: the pipe is that of the other, whatever number this one has where it is.
pub(super) fn forget() {
    OWNER.store(-1, Ordering::SeqCst);
    WRITE_END.store(-1, Ordering::SeqCst);
}

impl SignalPipe {
    /// Catches `signals` until dropped. Fails with `EBUSY` while another pipe exists.
    pub fn install(signals: &[Signal]) -> io::Result<SignalPipe> {
        let flags = rustix::pipe::PipeFlags::CLOEXEC | rustix::pipe::PipeFlags::NONBLOCK;
        let (read, write) = rustix::pipe::pipe_with(flags)?;
        let claimed = WRITE_END.compare_exchange(-1, write.as_raw_fd(), Ordering::SeqCst, Ordering::SeqCst);
        claimed.map_err(|_| io::Error::from(rustix::io::Errno::BUSY))?;
        OWNER.store(rustix::process::getpid().as_raw_nonzero().get(), Ordering::SeqCst);
        let mut pipe = SignalPipe { read, write, earlier: Vec::with_capacity(signals.len()) };
        let action = SigAction::new(SigHandler::Handler(on_signal), SaFlags::SA_RESTART, SigSet::empty());
        for signal in signals {
            // SAFETY: the handler only calls what signal-safety(7) allows and touches nothing but an atomic and errno.
            let earlier = unsafe { sigaction(*signal, &action) }?;
            pipe.earlier.push((*signal, earlier));
        }
        Ok(pipe)
    }

    /// The next signal that has arrived, if any. Does not wait.
    pub fn take(&self) -> Option<i32> {
        let mut byte = [0u8];
        match rustix::io::read(&self.read, &mut byte) {
            Ok(1) => Some(i32::from(byte[0])),
            _ => None,
        }
    }
}

impl AsFd for SignalPipe {
    /// Becomes readable when a signal has arrived.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.read.as_fd()
    }
}

impl Drop for SignalPipe {
    fn drop(&mut self) {
        for (signal, action) in self.earlier.drain(..).rev() {
            // SAFETY: the action is what the kernel gave for this signal, so its handler, if any, is one that was installed before.
            let _ = unsafe { sigaction(signal, &action) };
        }
        // A copy of the process has forgotten it.
        let _ = WRITE_END.compare_exchange(self.write.as_raw_fd(), -1, Ordering::SeqCst, Ordering::SeqCst);
    }
}
