//! Processes: making them, their signals, and what they give up before they run foreign code.
//!
//! [`clone_process`] is safe because it refuses to run in a process with threads: the copy then has every lock in a usable state and may run any code.

#![expect(unsafe_code, reason = "the system calls have no safe wrapper in the libraries")]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Which of the two processes this is.
#[derive(Debug)]
pub enum Cloned {
    /// The caller.
    Parent {
        /// The new process.
        pid: u32,
        /// A handle on it, `CLOEXEC`.
        pidfd: OwnedFd,
    },
    /// The new process. It must end by `execve` or [`exit_now`].
    Child,
}

/// Whether this process has one thread.
pub fn is_single_threaded() -> io::Result<bool> {
    // `.`, `..` and one directory for each thread.
    match rustix::fs::stat("/proc/self/task") {
        // In a root without `/proc`: the kernel refuses this flag to a process with threads, and otherwise does nothing (unshare(2)).
        // SAFETY: takes only flags, and nothing is unshared.
        Err(rustix::io::Errno::NOENT) => Ok(unsafe { libc::unshare(libc::CLONE_THREAD) } == 0),
        stat => Ok(stat?.st_nlink == 3),
    }
}

/// Copies this process with `clone3(2)`, with `CLONE_NEW*` flags (or `CLONE_PARENT`) and, for `CLONE_INTO_CGROUP`, the directory of a v2 cgroup.
/// Fails with `EBUSY` where this process has more than one thread.
pub fn clone_process(namespaces: u64, cgroup: Option<BorrowedFd<'_>>) -> io::Result<Cloned> {
    OneThread::of_this_process()?.clone_process(namespaces, cgroup)
}

/// That this process had one thread when it was asked. Whoever asks starts none afterwards: it is for what happens between a fork and an execution, where `/proc` may have
/// become somebody else's before the next fork.
#[derive(Debug)]
pub struct OneThread(());

impl OneThread {
    /// Asks. `/proc` must still be that of the machine. Fails with `EBUSY` where this process has more than one thread.
    pub fn of_this_process() -> io::Result<OneThread> {
        if is_single_threaded()? { Ok(OneThread(())) } else { Err(io::Error::from_raw_os_error(libc::EBUSY)) }
    }

    /// [`clone_process`].
    pub fn clone_process(&self, namespaces: u64, cgroup: Option<BorrowedFd<'_>>) -> io::Result<Cloned> {
        let mut pidfd: libc::c_int = -1;
        let mut flags = namespaces | libc::CLONE_PIDFD as u64;
        if cgroup.is_some() {
            // `libc` has it in a type that is too small.
            const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
            flags |= CLONE_INTO_CGROUP;
        }
        let args = libc::clone_args {
            flags,
            pidfd: std::ptr::from_mut(&mut pidfd) as u64,
            child_tid: 0,
            parent_tid: 0,
            // A sibling ends as this process does: the kernel wants no signal named then.
            exit_signal: if flags & libc::CLONE_PARENT as u64 == 0 { libc::SIGCHLD as u64 } else { 0 },
            stack: 0,
            stack_size: 0,
            tls: 0,
            set_tid: 0,
            set_tid_size: 0,
            cgroup: cgroup.map_or(0, |fd| fd.as_raw_fd() as u64),
        };
        // SAFETY: `args` and `pidfd` outlive the call, and the size is that of `args`. Without CLONE_VM the child has its own copy of memory and goes on on the
        // same stack, as after fork; this process has one thread (checked for this value), so no lock is held by a thread that the child lacks.
        let result = unsafe { libc::syscall(libc::SYS_clone3, std::ptr::from_ref(&args), size_of::<libc::clone_args>()) };
        let result = match result {
            // Filters of containers refuse it as if it did not exist, because its flags are behind a pointer.
            -1 if io::Error::last_os_error().raw_os_error() == Some(libc::ENOSYS) && cgroup.is_none() => clone_by_flags(flags, &mut pidfd),
            result => result,
        };
        match result {
            -1 => Err(io::Error::last_os_error()),
            0 => {
                super::signals::forget();
                Ok(Cloned::Child)
            }
            // SAFETY: the kernel stored a new descriptor that nobody else owns in `pidfd`.
            pid => Ok(Cloned::Parent { pid: pid as u32, pidfd: unsafe { OwnedFd::from_raw_fd(pidfd) } }),
        }
    }
}

/// `clone(2)` as a fork. Its arguments have another order on each architecture, but those that are used here have not.
fn clone_by_flags(flags: u64, pidfd: &mut libc::c_int) -> libc::c_long {
    let flags = flags | libc::SIGCHLD as u64;
    // SAFETY: as for clone3 in the caller; without a stack the child goes on on a copy of this one, and the kernel writes the descriptor to `pidfd`, which
    // outlives the call.
    unsafe { libc::syscall(libc::SYS_clone, flags, 0usize, std::ptr::from_mut(pidfd), 0usize, 0usize) }
}

/// The descriptor that whoever started this process has left open under that number, or that the process has opened which shares its descriptors with this one; it is not
/// passed on further. `None` where there is none. To be asked until it is there, before this process opens anything.
pub fn inherited_descriptor(number: i32) -> Option<OwnedFd> {
    if number <= libc::STDERR_FILENO {
        return None;
    }
    // SAFETY: where the number is not open the call fails and does nothing else.
    let result = unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) };
    // SAFETY: it is open, and as nothing was opened here yet, nobody else owns it in this process.
    (result == 0).then(|| unsafe { OwnedFd::from_raw_fd(number) })
}

/// Whether whoever started this process has left that descriptor open. What a process opens itself is closed when it executes a program.
pub fn is_inherited(number: u32) -> bool {
    // SAFETY: the call only looks, and fails where the number is not open.
    unsafe { libc::fcntl(number.cast_signed(), libc::F_GETFD) == 0 }
}

/// Leaves an open descriptor to the program that this process executes.
pub fn keep_on_exec(number: u32) -> io::Result<()> {
    // SAFETY: the call changes one flag of the descriptor, and fails where the number is not open.
    match unsafe { libc::fcntl(number.cast_signed(), libc::F_SETFD, 0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Ends this process at once, without running exit handlers that belong to the process it was cloned from.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: `_exit` has no preconditions.
    unsafe { libc::_exit(code) }
}

/// Gives every signal its default effect, and lets all of them through.
pub fn reset_signals() -> io::Result<()> {
    for signal in 1..=64 {
        // SAFETY: SIG_DFL is a valid disposition. SIGKILL, SIGSTOP and those that libc keeps for itself are refused without effect.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
    nix::sys::signal::SigSet::empty().thread_set_mask()?;
    Ok(())
}

/// Holds all signals back (except SIGKILL and SIGSTOP).
pub fn block_signals() -> io::Result<()> {
    nix::sys::signal::SigSet::all().thread_set_mask()?;
    Ok(())
}

/// Sends a signal by number, also a real-time one.
pub fn signal_pidfd(pidfd: BorrowedFd<'_>, signal: i32) -> io::Result<()> {
    // SAFETY: the descriptor is open for the call (borrowed); a null siginfo is allowed and no flags are given.
    let result = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), signal, std::ptr::null::<libc::siginfo_t>(), 0) };
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// How a child ended and what it used, together with the children that it waited for.
#[derive(Clone, Copy, Debug)]
pub struct Reaped {
    /// The exit code, or `Err` with the signal that ended it.
    pub status: Result<u8, i32>,
    /// CPU time in user mode.
    pub user_time: Duration,
    /// CPU time in the kernel.
    pub system_time: Duration,
    /// The largest resident set of one process, in bytes.
    pub max_rss: u64,
}

/// What a process, and the children that it waited for, moved by system calls and to and from the disk, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessIo {
    /// Read.
    pub read: u64,
    /// Written.
    pub written: u64,
}

impl ProcessIo {
    /// That of a process that has not been reaped yet, or with `None` that of this thread; `None` where the kernel does not count or does not tell.
    pub fn of(pid: Option<u32>) -> Option<ProcessIo> {
        let path = pid.map_or_else(|| "/proc/thread-self/io".to_owned(), |pid| format!("/proc/{pid}/io"));
        let text = std::fs::read_to_string(path).ok()?;
        let number = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
        Some(ProcessIo { read: number("rchar:")?, written: number("wchar:")? })
    }
}

/// Waits for the child `pid` to end, and leaves it to be reaped.
pub fn wait_for_end(pid: u32) -> io::Result<()> {
    use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};
    let id = Pid::from_raw(pid as i32).ok_or(io::ErrorKind::InvalidInput)?;
    loop {
        match waitid(WaitId::Pid(id), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT) {
            Err(rustix::io::Errno::INTR) => {}
            ended => return Ok(ended.map(drop)?),
        }
    }
}

/// CPU time of the calling thread in user mode and in the kernel, and the largest resident set of this process so far, in bytes.
pub fn thread_usage() -> (Duration, Duration, u64) {
    // SAFETY: an all-zero `rusage` is valid: it is plain numbers.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: `usage` is valid for writes during the call, which cannot fail with these arguments.
    unsafe { libc::getrusage(libc::RUSAGE_THREAD, &mut usage) };
    let time = |t: libc::timeval| Duration::new(t.tv_sec as u64, t.tv_usec as u32 * 1000);
    (time(usage.ru_utime), time(usage.ru_stime), usage.ru_maxrss as u64 * 1024)
}

/// Waits for the child `pid` to end and removes it.
pub fn reap(pid: u32) -> io::Result<Reaped> {
    let mut status = 0;
    // SAFETY: an all-zero `rusage` is valid: it is plain numbers.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    loop {
        // SAFETY: `status` and `usage` are valid for writes during the call.
        let result = unsafe { libc::wait4(pid as libc::pid_t, &mut status, 0, &mut usage) };
        if result != -1 {
            break;
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
    let status = if libc::WIFSIGNALED(status) { Err(libc::WTERMSIG(status)) } else { Ok(libc::WEXITSTATUS(status) as u8) };
    let time = |t: libc::timeval| Duration::new(t.tv_sec as u64, t.tv_usec as u32 * 1000);
    Ok(Reaped { status, user_time: time(usage.ru_utime), system_time: time(usage.ru_stime), max_rss: usage.ru_maxrss as u64 * 1024 })
}

/// Closes every descriptor from `first` on, except that those of `keep` stay open.
///
/// For a process that is about to run other code: owners of closed descriptors must not be used or dropped afterwards, so it is for callers that
/// end in `execve`, [`exit_now`] or a loop that owns only `keep`.
pub fn close_from(first: u32, keep: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut kept: Vec<u32> = keep.iter().map(|fd| fd.as_raw_fd() as u32).filter(|kept| *kept >= first).collect();
    kept.sort_unstable();
    let mut first = first;
    for kept in kept {
        if kept > first {
            close_range(first, kept - 1, 0)?;
        }
        first = kept + 1;
    }
    close_range(first, u32::MAX, 0)
}

/// Makes `execve` close every descriptor from `first` on.
pub fn close_on_exec_from(first: u32) -> io::Result<()> {
    close_range(first, u32::MAX, libc::CLOSE_RANGE_CLOEXEC)
}

fn close_range(first: u32, last: u32, flags: u32) -> io::Result<()> {
    // SAFETY: the call takes numbers only. That owners of the descriptors do not use them later is the documented duty of the callers above.
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, last, flags) };
    if result != -1 {
        return Ok(());
    }
    match io::Error::last_os_error() {
        // Linux before 5.9, or before 5.11 with the flag.
        error if matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EINVAL | libc::EPERM)) => close_listed(first, last, flags),
        error => Err(error),
    }
}

fn close_listed(first: u32, last: u32, flags: u32) -> io::Result<()> {
    let names: Vec<u32> = match std::fs::read_dir("/proc/self/fd") {
        Ok(entries) => entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect(),
        // In the root of a sandbox whose PID namespace this process is not in, it is in no `/proc`.
        Err(_) => {
            (0..rustix::process::getrlimit(rustix::process::Resource::Nofile).current.map_or(1 << 20, |limit| limit.min(1 << 20) as u32))
                .collect()
        }
    };
    for fd in names.into_iter().filter(|fd| (first..=last).contains(fd)) {
        if flags & libc::CLOSE_RANGE_CLOEXEC != 0 {
            // SAFETY: F_SETFD takes a number; a descriptor that is closed by now is refused with EBADF.
            unsafe { libc::fcntl(fd as i32, libc::F_SETFD, libc::FD_CLOEXEC) };
        } else {
            // SAFETY: as for close_range above.
            unsafe { libc::close(fd as i32) };
        }
    }
    Ok(())
}

/// Gives back the pages of this program's code and constants, several megabytes of which any command has touched. What is used again is read again, from the page cache.
pub fn forget_program_pages() -> io::Result<()> {
    let maps = std::fs::read_to_string("/proc/self/maps")?;
    // `FIRST-END r-xp OFFSET DEVICE INODE NAME` (proc_pid_maps(5)). What the start has written to and sealed is read-only too, but not at the beginning of the file.
    let is_of_program = |line: &&str| line.contains('/') && (line.contains(" r-xp ") || line.contains(" r--p 00000000 "));
    let number = |text: &str| usize::from_str_radix(text, 16).ok();
    let range = |line: &str| {
        let (first, end) = line.split_once(' ')?.0.split_once('-')?;
        number(first).zip(number(end))
    };
    // All are known before the first goes: each function that runs afterwards brings back the pages around it.
    let ranges: Vec<(usize, usize)> = maps.lines().filter(is_of_program).filter_map(range).collect();
    for (first, end) in ranges {
        // SAFETY: the mapping is of a file, and nothing has written to it (code and constants are linked for their places), so that what is read again is what is there now;
        // the kernel does that by itself, also for the code that makes this call.
        let result = unsafe { libc::madvise(std::ptr::with_exposed_provenance_mut(first), end - first, libc::MADV_DONTNEED) };
        if result == -1 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// Writes over what `/proc/PID/cmdline` says of this process. Its arguments are gone with that, so nobody may ask for them any more.
pub fn set_command_line(text: &[u8]) -> io::Result<()> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    // Fields 48 and 49; the name, in parentheses, may hold anything, and the fields after it are counted from the third (proc_pid_stat(5)).
    let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let mut places = fields.split_whitespace().skip(48 - 3).map_while(|field| field.parse::<usize>().ok());
    let place = places.next().zip(places.next()).filter(|(start, end)| *start > 0 && *start < *end);
    let (start, end) = place.ok_or(io::ErrorKind::InvalidData)?;
    let length = end - start;
    let mut line = text.to_vec();
    line.truncate(length - 1);
    line.resize(length, 0);
    // SAFETY: the kernel put this process's arguments into the `length` bytes at `start` of its stack when it was executed, and they stay mapped and writable for
    // its life. They are bytes without a type; the standard library made its copies of pointers to them, which nobody here follows any more. `line` has `length` bytes.
    unsafe { std::ptr::copy_nonoverlapping(line.as_ptr(), std::ptr::with_exposed_provenance_mut::<u8>(start), length) };
    Ok(())
}

/// Gives this process a new, empty session keyring, so that the keys of the caller's session are out of reach.
pub fn join_new_session_keyring() -> io::Result<()> {
    const KEYCTL_JOIN_SESSION_KEYRING: libc::c_int = 1;
    // SAFETY: a null name asks for an anonymous keyring.
    let result = unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, std::ptr::null::<libc::c_char>()) };
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Makes the kernel behave to this process as another system (`personality(2)`).
pub fn set_personality(personality: u64) -> io::Result<()> {
    // SAFETY: takes a number only.
    let result = unsafe { libc::personality(personality as libc::c_ulong) };
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// One instruction of a classic BPF program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct BpfInstruction {
    /// Operation.
    pub code: u16,
    /// How many instructions to skip where a condition holds.
    pub jump_true: u8,
    /// How many instructions to skip where it does not.
    pub jump_false: u8,
    /// The constant.
    pub constant: u32,
}

/// Makes the kernel run `program` on every system call of this thread and its descendants, with the flags of seccomp(2). Needs `CAP_SYS_ADMIN` or "no new
/// privileges".
pub fn load_seccomp_filter(program: &[BpfInstruction], flags: u64) -> io::Result<()> {
    install_seccomp_filter(program, flags).map(drop)
}

/// [`load_seccomp_filter`], with a new descriptor of the lowest free number by which another process is asked about system calls (seccomp_unotify(2)).
pub fn load_seccomp_filter_with_listener(program: &[BpfInstruction], flags: u64) -> io::Result<OwnedFd> {
    let listener = install_seccomp_filter(program, flags | libc::SECCOMP_FILTER_FLAG_NEW_LISTENER)?;
    // SAFETY: with this flag the kernel returns a new descriptor, which nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(listener as libc::c_int) })
}

fn install_seccomp_filter(program: &[BpfInstruction], flags: u64) -> io::Result<libc::c_long> {
    let length = u16::try_from(program.len()).map_err(|_| io::Error::from_raw_os_error(libc::E2BIG))?;
    let fprog = libc::sock_fprog { len: length, filter: program.as_ptr().cast_mut().cast() };
    // SAFETY: `fprog` points to `len` instructions that outlive the call and that the kernel only reads; `BpfInstruction` has the layout of `sock_filter`.
    let result = unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, std::ptr::from_ref(&fprog)) };
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// Sets the interface flags of `lo` to up, in the network namespace of this thread.
pub fn bring_loopback_up() -> io::Result<()> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
    let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    // SAFETY: an all-zero `ifreq` is valid: it is plain numbers and bytes.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    request.ifr_name[0] = b'l' as libc::c_char;
    request.ifr_name[1] = b'o' as libc::c_char;
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as i16;
    // SAFETY: SIOCSIFFLAGS reads an `ifreq`, which outlives the call.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as _, std::ptr::from_ref(&request)) };
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Unshares namespaces of this process, which must have a single thread.
pub fn unshare(flags: libc::c_int) -> io::Result<()> {
    if !is_single_threaded()? {
        return Err(io::Error::from_raw_os_error(libc::EBUSY));
    }
    // SAFETY: takes only flags. With one thread no other thread can be surprised by it, and CLONE_FILES is not among the namespaces.
    let result = unsafe { libc::unshare(flags & !libc::CLONE_FILES) };
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
