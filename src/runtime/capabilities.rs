//! Sets of capabilities by name and number.
//!
//! A value type only; `credentials` applies it to the process. Numbers come from `linux/capability.h` and never change.

use serde::{Deserialize, Serialize};

/// A set of capabilities: bit `n` is capability number `n`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capabilities(u64);

/// Names without `CAP_`; the index is the number.
const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

impl Capabilities {
    /// None at all.
    pub const NONE: Capabilities = Capabilities(0);
    /// Every capability that exists.
    pub const ALL: Capabilities = Capabilities((1 << NAMES.len()) - 1);
    /// The 14 that containers have by default: chown, dac_override, fowner, fsetid, kill, setgid, setuid, setpcap, net_bind_service, net_raw,
    /// sys_chroot, mknod, audit_write, setfcap.
    pub const DEFAULT: Capabilities = Capabilities(0xa804_25fb);

    /// Tracing processes, and looking into their files and memory.
    pub const SYS_PTRACE: Capabilities = Capabilities(1 << 19);

    /// What the kernel has no narrower capability for, mounting among it.
    pub const SYS_ADMIN: Capabilities = Capabilities(1 << 21);

    /// The set of one capability, by its name with or without `CAP_`, in any case; `ALL` is every one. `None` where there is no such name.
    pub fn named(name: &str) -> Option<Capabilities> {
        let name = name.to_ascii_uppercase();
        if name == "ALL" {
            return Some(Capabilities::ALL);
        }
        let short = name.strip_prefix("CAP_").unwrap_or(&name);
        NAMES.iter().position(|known| *known == short).map(|number| Capabilities(1 << number))
    }

    /// What is in either set.
    pub fn union(self, other: Capabilities) -> Capabilities {
        Capabilities(self.0 | other.0)
    }

    /// What is in both sets.
    pub fn intersection(self, other: Capabilities) -> Capabilities {
        Capabilities(self.0 & other.0)
    }

    /// What is in this set and not in the other.
    pub fn without(self, other: Capabilities) -> Capabilities {
        Capabilities(self.0 & !other.0)
    }

    /// Whether all of `other` is in this set.
    pub fn contains(self, other: Capabilities) -> bool {
        self.0 & other.0 == other.0
    }

    /// The set as a mask, as in `/proc/PID/status`.
    pub fn bits(self) -> u64 {
        self.0
    }

    /// The set of a mask; bits without a capability are kept, as a newer kernel may know them.
    pub fn from_bits(bits: u64) -> Capabilities {
        Capabilities(bits)
    }

    /// The names in this set, without `CAP_`.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        NAMES.iter().enumerate().filter(move |(number, _)| self.0 & (1 << number) != 0).map(|(_, name)| *name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_set_is_the_fourteen_of_containers() {
        let mut names: Vec<_> = Capabilities::DEFAULT.names().collect();
        names.sort_unstable();
        let expected =
            "AUDIT_WRITE CHOWN DAC_OVERRIDE FOWNER FSETID KILL MKNOD NET_BIND_SERVICE NET_RAW SETFCAP SETGID SETPCAP SETUID SYS_CHROOT";
        assert_eq!(names.join(" "), expected);
    }

    #[test]
    fn names_are_found_in_every_spelling() {
        let expected = Some(Capabilities(1 << 12));
        for name in ["NET_ADMIN", "CAP_NET_ADMIN", "cap_net_admin", "net_admin"] {
            assert_eq!(Capabilities::named(name), expected, "{name}");
        }
        assert_eq!(Capabilities::named("NET_ADMINS"), None);
        assert_eq!(Capabilities::named("all"), Some(Capabilities::ALL));
    }
}
