//! The default profile: which system calls a sandbox may make, by name, and which only with a capability or with certain arguments.
//!
//! Its effect is that of Docker's default profile, so that what runs there runs here: what is not named fails with `EPERM`; `clone3` fails with `ENOSYS`,
//! because its flags are behind a pointer and libraries then use `clone`; and what is newer than the profile fails with `ENOSYS`, as on an older kernel.

use std::borrow::Cow;

use super::rules::{Comparison, Condition, SeccompAction, SeccompRule, SeccompRules};
use super::tables::Abi;
use crate::runtime::Capabilities;

/// Every namespace that `clone(2)` can make. (Time namespaces have no flag there.)
const CLONE_NAMESPACES: u64 = (libc::CLONE_NEWNS
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET
    | libc::CLONE_NEWCGROUP) as u64;

/// Socket families of which sandboxes have use. Left out are those that the kernel has no more, AF_ALG (38: attack surface of the kernel's cryptography)
/// and AF_VSOCK (40: reaches the hypervisor past the network namespace).
const SOCKET_FAMILIES: [(u64, u64); 8] = [(0, 11), (13, 18), (21, 22), (24, 24), (26, 33), (35, 36), (39, 39), (41, 45)];

/// PER_LINUX and PER_LINUX32, each also with UNAME26; the last value only asks for the current one.
const PERSONALITIES: [u64; 5] = [0, 8, 0x2_0000, 0x2_0008, 0xffff_ffff];

/// The profile for a process with these capabilities in its bounding set.
pub(super) fn rules(capabilities: Capabilities) -> SeccompRules {
    let is_admin = capabilities.contains(Capabilities::named("SYS_ADMIN").unwrap_or_default());
    let mut rules = vec![always(ALLOWED), always(OF_ARCHITECTURE)];
    rules.extend(SOCKET_FAMILIES.map(|(first, last)| {
        let bounds = [(Comparison::GreaterOrEqual, first), (Comparison::LessOrEqual, last)];
        // What is at least 0 needs no comparison.
        let bounds = bounds.into_iter().filter(|bound| *bound != (Comparison::GreaterOrEqual, 0));
        with_conditions("socket", bounds.map(|(comparison, value)| Condition { argument: 0, comparison, value }).collect())
    }));
    rules.extend(PERSONALITIES.map(|value| {
        let condition = Condition { argument: 0, comparison: Comparison::Equal, value };
        with_conditions("personality", vec![condition])
    }));
    if !is_admin {
        let condition = Condition { argument: 0, comparison: Comparison::Masked(CLONE_NAMESPACES), value: 0 };
        rules.push(with_conditions("clone", vec![condition]));
        rules.push(SeccompRule { action: SeccompAction::Errno(libc::ENOSYS as u16), ..always("clone3") });
    }
    for (capability, list) in WITH_CAPABILITY {
        if Capabilities::named(capability).is_some_and(|capability| capabilities.contains(capability)) {
            rules.push(always(list));
        }
    }
    let default = SeccompAction::Errno(libc::EPERM as u16);
    SeccompRules { default, abis: Abi::of_this_machine(), rules, log: false, allow_speculation: false, killable_wait: false }
}

fn always(list: &'static str) -> SeccompRule {
    let names = list.split_ascii_whitespace().map(Cow::Borrowed).collect();
    SeccompRule { names, action: SeccompAction::Allow, conditions: Vec::new() }
}

fn with_conditions(name: &'static str, conditions: Vec<Condition>) -> SeccompRule {
    SeccompRule { conditions, ..always(name) }
}

#[cfg(target_arch = "x86_64")]
const OF_ARCHITECTURE: &str = "arch_prctl modify_ldt";
#[cfg(target_arch = "aarch64")]
const OF_ARCHITECTURE: &str = "arm_fadvise64_64 arm_sync_file_range breakpoint cacheflush set_tls sync_file_range2";
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
const OF_ARCHITECTURE: &str = "";

const WITH_CAPABILITY: [(&str, &str); 14] = [
    ("DAC_READ_SEARCH", "open_by_handle_at"),
    (
        "SYS_ADMIN",
        "bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie lsm_get_self_attr lsm_list_modules lsm_set_self_attr mount
        mount_setattr move_mount open_tree perf_event_open quotactl quotactl_fd setdomainname sethostname setns syslog umount umount2 unshare",
    ),
    ("SYS_BOOT", "reboot"),
    ("SYS_CHROOT", "chroot"),
    ("SYS_MODULE", "delete_module finit_module init_module"),
    ("SYS_PACCT", "acct"),
    ("SYS_PTRACE", "kcmp pidfd_getfd process_madvise"),
    ("SYS_RAWIO", "ioperm iopl"),
    ("SYS_TIME", "clock_settime clock_settime64 settimeofday stime"),
    ("SYS_TTY_CONFIG", "vhangup"),
    ("SYS_NICE", "get_mempolicy mbind set_mempolicy set_mempolicy_home_node"),
    ("SYSLOG", "syslog"),
    ("BPF", "bpf"),
    ("PERFMON", "perf_event_open"),
];

const ALLOWED: &str = "
    _llseek _newselect accept accept4 access adjtimex alarm bind brk cachestat capget capset chdir chmod chown chown32 clock_adjtime
    clock_adjtime64 clock_getres clock_getres_time64 clock_gettime clock_gettime64 clock_nanosleep clock_nanosleep_time64 close close_range
    connect copy_file_range creat dup dup2 dup3 epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait
    epoll_wait_old eventfd eventfd2 execve execveat exit exit_group faccessat faccessat2 fadvise64 fadvise64_64 fallocate fanotify_mark fchdir
    fchmod fchmodat fchmodat2 fchown fchown32 fchownat fcntl fcntl64 fdatasync fgetxattr flistxattr flock fork fremovexattr fsetxattr fstat
    fstat64 fstatat64 fstatfs fstatfs64 fsync ftruncate ftruncate64 futex futex_requeue futex_time64 futex_wait futex_waitv futex_wake futimesat
    get_robust_list get_thread_area getcpu getcwd getdents getdents64 getegid getegid32 geteuid geteuid32 getgid getgid32 getgroups getgroups32
    getitimer getpeername getpgid getpgrp getpid getppid getpriority getrandom getresgid getresgid32 getresuid getresuid32 getrlimit getrusage
    getsid getsockname getsockopt gettid gettimeofday getuid getuid32 getxattr getxattrat inotify_add_watch inotify_init inotify_init1
    inotify_rm_watch io_cancel io_destroy io_getevents io_pgetevents io_pgetevents_time64 io_setup io_submit ioctl ioprio_get ioprio_set ipc
    kill landlock_add_rule landlock_create_ruleset landlock_restrict_self lchown lchown32 lgetxattr link linkat listen listmount listxattr
    listxattrat llistxattr lremovexattr lseek lsetxattr lstat lstat64 madvise map_shadow_stack membarrier memfd_create memfd_secret mincore
    mkdir mkdirat mknod mknodat mlock mlock2 mlockall mmap mmap2 mprotect mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedreceive_time64
    mq_timedsend mq_timedsend_time64 mq_unlink mremap mseal msgctl msgget msgrcv msgsnd msync munlock munlockall munmap name_to_handle_at
    nanosleep newfstatat open openat openat2 pause pidfd_open pidfd_send_signal pipe pipe2 pkey_alloc pkey_free pkey_mprotect poll ppoll
    ppoll_time64 prctl pread64 preadv preadv2 prlimit64 process_mrelease process_vm_readv process_vm_writev pselect6 pselect6_time64 ptrace
    pwrite64 pwritev pwritev2 read readahead readlink readlinkat readv recv recvfrom recvmmsg recvmmsg_time64 recvmsg remap_file_pages
    removexattr removexattrat rename renameat renameat2 restart_syscall rmdir rseq rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo
    rt_sigreturn rt_sigsuspend rt_sigtimedwait rt_sigtimedwait_time64 rt_tgsigqueueinfo sched_get_priority_max sched_get_priority_min
    sched_getaffinity sched_getattr sched_getparam sched_getscheduler sched_rr_get_interval sched_rr_get_interval_time64 sched_setaffinity
    sched_setattr sched_setparam sched_setscheduler sched_yield seccomp select semctl semget semop semtimedop semtimedop_time64 send sendfile
    sendfile64 sendmmsg sendmsg sendto set_robust_list set_thread_area set_tid_address setfsgid setfsgid32 setfsuid setfsuid32 setgid setgid32
    setgroups setgroups32 setitimer setpgid setpriority setregid setregid32 setresgid setresgid32 setresuid setresuid32 setreuid setreuid32
    setrlimit setsid setsockopt setuid setuid32 setxattr setxattrat shmat shmctl shmdt shmget shutdown sigaltstack signalfd signalfd4
    sigprocmask sigreturn socketcall socketpair splice stat stat64 statfs statfs64 statmount statx symlink symlinkat sync sync_file_range syncfs
    sysinfo tee tgkill time timer_create timer_delete timer_getoverrun timer_gettime timer_gettime64 timer_settime timer_settime64
    timerfd_create timerfd_gettime timerfd_gettime64 timerfd_settime timerfd_settime64 times tkill truncate truncate64 ugetrlimit umask uname
    unlink unlinkat uretprobe utime utimensat utimensat_time64 utimes vfork vmsplice wait4 waitid waitpid write writev
";
