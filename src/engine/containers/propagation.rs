//! Whether mounts can travel as a bind mount asks. The mount of the host that its source is on has to have peers, or be a slave of some: the kernel says nothing where it has none, and
//! what somebody mounts later would be missing on the other side.
//!
//! In the mount namespace of an ordinary user nothing is more than a slave of the host's mounts, so `rshared` brings there what the host mounts, and takes nothing back.

use std::path::Path;

use rustix::fs::{AtFlags, CWD, StatxFlags};

use super::super::Error;
use crate::runtime::{Propagation, Situation, situation};

/// Refuses a propagation that the mount of this machine with `path` (which has no links in it) does not have.
pub(super) fn check(path: &Path, wanted: Propagation) -> Result<(), Error> {
    let expected = match (wanted, situation()) {
        (Propagation::Private | Propagation::Unbindable, _) => return Ok(()),
        // Nothing is mounted there.
        (_, Some(Situation::Chroot | Situation::Bare)) => return Ok(()),
        (Propagation::Shared, Some(Situation::Root) | None) => "shared",
        (Propagation::Shared | Propagation::Slave, _) => "shared or slave",
    };
    // Who cannot know does not refuse: before Linux 5.8, and without `/proc`.
    let Some(id) = mount_id(path) else { return Ok(()) };
    let Ok(mounts) = std::fs::read_to_string("/proc/self/mountinfo") else { return Ok(()) };
    let Some(peers) = peers(&mounts, id) else { return Ok(()) };
    if peers == Peers::Own || peers == Peers::Masters && expected != "shared" {
        return Ok(());
    }
    let place = path.ancestors().take_while(|above| mount_id(above) == Some(id)).last().unwrap_or(path).display();
    Err(Error::Usage {
        message: format!("`{}` is mounted on `{place}`, which is not a {expected} mount", path.display()),
        hint: Some(format!("say `mount --make-rshared {place}` on this machine first, or leave the propagation out")),
    })
}

/// With whom a mount shares what is mounted on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Peers {
    /// Those of its group.
    Own,
    /// It takes what others have, and gives nothing.
    Masters,
    Nobody,
}

/// Those of the mount with that ID, by the text of `/proc/self/mountinfo` (proc_pid_mountinfo(5)).
fn peers(mountinfo: &str, id: u64) -> Option<Peers> {
    let line = mountinfo.lines().find(|line| line.split(' ').next().and_then(|first| first.parse().ok()) == Some(id))?;
    let has = |tag: &str| line.split(' ').skip(6).take_while(|field| *field != "-").any(|field| field.starts_with(tag));
    Some(match (has("shared:"), has("master:")) {
        (true, _) => Peers::Own,
        (false, true) => Peers::Masters,
        (false, false) => Peers::Nobody,
    })
}

fn mount_id(path: &Path) -> Option<u64> {
    let found = rustix::fs::statx(CWD, path, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::MNT_ID).ok()?;
    (found.stx_mask & StatxFlags::MNT_ID.bits() != 0).then_some(found.stx_mnt_id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peers_are_among_the_optional_fields() {
        let text = "21 1 8:1 / / rw shared:1 - ext4 /dev/sda rw\n22 21 0:5 / /shared:3 rw,relatime - tmpfs master:1 rw\n\
                    23 21 0:6 / /m rw shared:4 master:2 - tmpfs t rw\n24 21 0:7 / /s rw master:2 propagate_from:1 - tmpfs t rw\n";
        let found = [21, 22, 23, 24, 2].map(|id| peers(text, id));
        assert_eq!(found, [Some(Peers::Own), Some(Peers::Nobody), Some(Peers::Own), Some(Peers::Masters), None]);
    }
}
