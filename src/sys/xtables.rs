//! The packet filter that was before nf_tables, as iptables-legacy uses it: what its chain for forwarded packets does with those that no rule is about. Read only, and only where it is in use:
//! asking for a table makes it.

#![expect(unsafe_code, reason = "the system call has no safe wrapper in the libraries")]

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use rustix::net::{AddressFamily, SocketFlags, SocketType, ipproto, socket_with};

/// The protocols, each with its table list in `/proc` and the layout of its rules.
const FAMILIES: [Layout; 2] = [
    Layout { list: "/proc/net/ip_tables_names", domain: AddressFamily::INET, level: libc::SOL_IP, target_offset: 88 },
    Layout { list: "/proc/net/ip6_tables_names", domain: AddressFamily::INET6, level: libc::SOL_IPV6, target_offset: 140 },
];
const GET_INFO: i32 = 64;
const GET_ENTRIES: i32 = 65;
const NAME: usize = 32;
/// `struct ipt_getinfo`: name, hooks, 5 entries, 5 ends (the policies), count, size.
const INFO: usize = NAME + 4 + 20 + 20 + 4 + 4;
/// The hook of packets on their way through.
const FORWARD: usize = 2;
/// `struct ipt_get_entries` before its entries: name and size, aligned for their counters.
const ENTRIES: usize = 40;
/// `struct xt_entry_target`.
const TARGET: usize = 32;
/// As a standard target has it: `-NF_DROP - 1`.
const DROP: i32 = -1;
/// More than any table has.
const MAX: usize = 64 << 20;

struct Layout {
    list: &'static str,
    domain: AddressFamily,
    level: i32,
    /// Where `struct ipt_entry` says where its target is.
    target_offset: usize,
}

/// Whether the table `filter` of IPv4 (or of IPv6) drops forwarded packets that no rule is about, and has no rule about `link` either. `false` where it cannot be told.
pub fn drops_forwarded(ipv6: bool, link: &str) -> bool {
    let layout = &FAMILIES[usize::from(ipv6)];
    let tables = std::fs::read_to_string(Path::new(layout.list)).unwrap_or_default();
    if !tables.lines().any(|table| table == "filter") {
        return false;
    }
    read(layout).is_ok_and(|(policy_at, entries)| drops(layout, policy_at, &entries) && !names(&entries, link))
}

fn names(entries: &[u8], link: &str) -> bool {
    let name = [link.as_bytes(), &[0]].concat();
    entries.windows(name.len()).any(|part| part == name)
}

fn drops(layout: &Layout, policy_at: usize, entries: &[u8]) -> bool {
    let target = || {
        let at = entries.get(policy_at + layout.target_offset..)?.first_chunk::<2>()?;
        entries.get(policy_at + usize::from(u16::from_ne_bytes(*at)) + TARGET..)?.first_chunk::<4>()
    };
    target().is_some_and(|verdict| i32::from_ne_bytes(*verdict) == DROP)
}

/// Where the policy of forwarded packets is, and all rules.
fn read(layout: &Layout) -> io::Result<(usize, Vec<u8>)> {
    let socket = socket_with(layout.domain, SocketType::RAW, SocketFlags::CLOEXEC, Some(ipproto::RAW))?;
    let mut info = vec![0; INFO];
    info[..6].copy_from_slice(b"filter");
    get(&socket, layout.level, GET_INFO, &mut info)?;
    let number = |at: usize| info.get(at..).and_then(<[u8]>::first_chunk::<4>).map_or(0, |bytes| u32::from_ne_bytes(*bytes) as usize);
    let (policy_at, size) = (number(NAME + 4 + 20 + 4 * FORWARD), number(INFO - 4));
    if size > MAX {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut entries = vec![0; ENTRIES + size];
    entries[..6].copy_from_slice(b"filter");
    entries[NAME..NAME + 4].copy_from_slice(&u32::try_from(size).unwrap_or(0).to_ne_bytes());
    get(&socket, layout.level, GET_ENTRIES, &mut entries)?;
    Ok((policy_at, entries.split_off(ENTRIES)))
}

fn get(socket: &OwnedFd, level: i32, option: i32, buffer: &mut [u8]) -> io::Result<()> {
    let mut length = libc::socklen_t::try_from(buffer.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: the descriptor is open (borrowed); `buffer` is writable for `length` bytes, which is its length, and both outlive the call; the kernel writes no more than that.
    let result = unsafe { libc::getsockopt(socket.as_raw_fd(), level, option, buffer.as_mut_ptr().cast(), &raw mut length) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
