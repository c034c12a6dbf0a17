//! A control group from systemd, for who may make none: the calling process asks the service manager of its user for a scope of its own, which is delegated to it.
//!
//! A login session's group belongs to root, and only systemd may move a process out of it. What is below the scope is the caller's, and the scope goes away with the last process in it.

use std::io;
use std::path::PathBuf;

use super::bundle::enter_scope;

/// The bus that the service manager is on of the user that this process is to the machine.
fn bus() -> Option<PathBuf> {
    let socket = PathBuf::from(format!("/run/user/{}/bus", outer_user()?));
    socket.exists().then_some(socket)
}

/// The group below which that manager makes others; `None` where there is none.
pub fn lender() -> Option<PathBuf> {
    bus()?;
    let user = outer_user()?;
    let group = PathBuf::from(format!("/sys/fs/cgroup/user.slice/user-{user}.slice/user@{user}.service"));
    group.is_dir().then_some(group)
}

/// Moves this process into a delegated scope of its own.
///
/// # Errors
/// There is no such manager, it refuses (its words are in the error), or it takes too long.
pub(super) fn enter() -> io::Result<()> {
    let bus = bus().ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "no service manager of this user runs"))?;
    let nonce = getrandom::u32().map_err(|_| io::Error::from_raw_os_error(libc::EIO))?;
    enter_scope(bus, format!("strake-{}-{nonce:08x}.scope", std::process::id()))
}

/// The ID of this process's user outside of its user namespace.
fn outer_user() -> Option<u32> {
    outside(&std::fs::read_to_string("/proc/self/uid_map").ok()?, rustix::process::geteuid().as_raw())
}

/// What an ID is outside, by the text of a map.
fn outside(map: &str, id: u32) -> Option<u32> {
    map.lines().find_map(|line| {
        let mut numbers = line.split_ascii_whitespace().map(str::parse::<u32>);
        let (Some(Ok(inside)), Some(Ok(outside)), Some(Ok(count))) = (numbers.next(), numbers.next(), numbers.next()) else { return None };
        let offset = id.checked_sub(inside)?;
        if offset < count { outside.checked_add(offset) } else { None }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_known_by_the_number_outside() {
        assert_eq!(outside("         0          0 4294967295\n", 1000), Some(1000));
        assert_eq!(outside("0 1000 1\n1 100000 65536\n", 0), Some(1000));
        assert_eq!(outside("0 1000 1\n1 100000 65536\n", 7), Some(100_006));
        assert_eq!(outside("0 1000 1\n", 7), None);
    }
}
