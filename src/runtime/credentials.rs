//! What a process is before it runs foreign code: user, groups, capabilities, limits.
//!
//! The order is dictated by the kernel: the bounding set needs `CAP_SETPCAP`, groups and users need `CAP_SETGID`/`CAP_SETUID`, so the sets are narrowed first
//! where that does not take those away, then the user changes, then the final sets are written. A user other than root ends with empty permitted and effective
//! sets and the bounding set as asked, as in other container runtimes; nothing is ever inheritable or ambient.

use rustix::io::Errno;
use rustix::process::Resource as KernelResource;
use rustix::thread::{CapabilitySet, CapabilitySets};

use super::capabilities::Capabilities;
use super::error::{BECOME, Failure};
use super::spec::{ProcessSpec, Resource, Rlimit};

/// The five sets of capabilities of a process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct ProcessCapabilities {
    pub(super) bounding: Capabilities,
    pub(super) effective: Capabilities,
    pub(super) inheritable: Capabilities,
    pub(super) permitted: Capabilities,
    pub(super) ambient: Capabilities,
}

/// Limits resources; before the user changes, because raising them needs privileges.
pub(super) fn set_limits(process: &ProcessSpec) -> Result<(), Failure> {
    process.rlimits.iter().try_for_each(|limit| set_limit(None, limit))
}

/// Limits one resource, of this process or of another with the same user.
pub(super) fn set_limit(pid: Option<rustix::process::Pid>, limit: &Rlimit) -> Result<(), Failure> {
    let value = |number: u64| (number != u64::MAX).then_some(number);
    let wanted = rustix::process::Rlimit { current: value(limit.soft), maximum: value(limit.hard) };
    rustix::process::prlimit(pid, kernel_resource(limit.resource), wanted)
        .map(drop)
        .map_err(Failure::step("set the limit", format!("{:?}", limit.resource).to_lowercase()))
}

/// Raises the hard limits that [`set_limits`] will need: in a user namespace nobody may.
pub(super) fn raise_hard_limits(process: &ProcessSpec) -> Result<(), Failure> {
    for limit in &process.rlimits {
        let (resource, wanted) = (kernel_resource(limit.resource), (limit.hard != u64::MAX).then_some(limit.hard));
        let now = rustix::process::getrlimit(resource);
        let is_enough = now.maximum.is_none_or(|now| wanted.is_some_and(|wanted| wanted <= now));
        if !is_enough {
            rustix::process::setrlimit(resource, rustix::process::Rlimit { current: now.current, maximum: wanted })
                .map_err(Failure::step("set the limit", format!("{:?}", limit.resource).to_lowercase()))?;
        }
    }
    Ok(())
}

fn kernel_resource(resource: Resource) -> KernelResource {
    match resource {
        Resource::As => KernelResource::As,
        Resource::Core => KernelResource::Core,
        Resource::Cpu => KernelResource::Cpu,
        Resource::Data => KernelResource::Data,
        Resource::Fsize => KernelResource::Fsize,
        Resource::Locks => KernelResource::Locks,
        Resource::Memlock => KernelResource::Memlock,
        Resource::Msgqueue => KernelResource::Msgqueue,
        Resource::Nice => KernelResource::Nice,
        Resource::Nofile => KernelResource::Nofile,
        Resource::Nproc => KernelResource::Nproc,
        Resource::Rss => KernelResource::Rss,
        Resource::Rtprio => KernelResource::Rtprio,
        Resource::Rttime => KernelResource::Rttime,
        Resource::Sigpending => KernelResource::Sigpending,
        Resource::Stack => KernelResource::Stack,
    }
}

/// Takes every capability that is not in `keep` out of the bounding set.
pub(super) fn limit_bounding_set(keep: Capabilities) -> Result<(), Failure> {
    for number in 0..64 {
        let capability = CapabilitySet::from_bits_retain(1 << number);
        if keep.contains(Capabilities::from_bits(1 << number)) {
            continue;
        }
        match rustix::thread::remove_capability_from_bounding_set(capability) {
            Ok(()) => {}
            // Past the last capability that this kernel knows.
            Err(Errno::INVAL) => break,
            // Without CAP_SETPCAP, as in a container that was given few: what is not there need not go.
            Err(Errno::PERM) if rustix::thread::capability_is_in_bounding_set(capability) == Ok(false) => {}
            Err(error) => return Err(Failure::step("drop the capability", number)(error)),
        }
    }
    Ok(())
}

/// What this process may do itself, and so the most that it can give to others.
pub(super) fn held() -> Capabilities {
    rustix::thread::capabilities(None).map_or(Capabilities::ALL, |sets| Capabilities::from_bits(sets.permitted.bits()))
}

/// Becomes the user, keeping the permitted set for [`set_final_capabilities`].
pub(super) fn change_user(process: &ProcessSpec) -> Result<(), Failure> {
    let user = &process.user;
    let fail = |what: &'static str| Failure::step::<Errno>("set", what);
    let groups: Vec<_> = user.additional_gids.iter().map(|gid| rustix::fs::Gid::from_raw(*gid)).collect();
    match rustix::thread::set_thread_groups(&groups) {
        // A user namespace with a single ID forbids it (user_namespaces(7)); neither the groups that this process has nor any others mean something inside.
        Err(Errno::PERM) if rustix::thread::capabilities(None).is_ok_and(|sets| sets.effective.contains(CapabilitySet::SETGID)) => {}
        other => other.map_err(fail("supplementary groups"))?,
    }
    rustix::thread::set_keep_capabilities(true).map_err(fail("keep capabilities"))?;
    let gid = rustix::fs::Gid::from_raw(user.gid);
    rustix::thread::set_thread_res_gid(gid, gid, gid).map_err(Failure::step(BECOME, format!("group {}", user.gid)))?;
    let uid = rustix::fs::Uid::from_raw(user.uid);
    rustix::thread::set_thread_res_uid(uid, uid, uid).map_err(Failure::step(BECOME, format!("user {}", user.uid)))?;
    rustix::thread::set_keep_capabilities(false).map_err(fail("keep capabilities"))
}

/// Writes the capability sets that the command starts with: all of `keep` for root, none for others. With `admin`, CAP_SYS_ADMIN can still be raised until the
/// command is executed, which takes it away: what that leaves to root is in the bounding set, and others have nothing.
pub(super) fn set_final_capabilities(keep: Capabilities, uid: u32, admin: bool) -> Result<(), Failure> {
    let fail = || Failure::step::<Errno>("set", "capabilities");
    rustix::thread::clear_ambient_capability_set().map_err(fail())?;
    let now = rustix::thread::capabilities(None).map_err(fail())?;
    let sets = if uid == 0 { CapabilitySet::from_bits_retain(keep.bits()) & now.permitted } else { CapabilitySet::empty() };
    let spare = if admin { CapabilitySet::SYS_ADMIN & now.permitted } else { CapabilitySet::empty() };
    let sets = CapabilitySets { effective: sets, permitted: sets | spare, inheritable: CapabilitySet::empty() };
    rustix::thread::set_capabilities(None, sets).map_err(fail())
}

/// Makes CAP_SYS_ADMIN effective.
pub(super) fn raise_admin() -> Result<(), Failure> {
    let fail = || Failure::step::<Errno>("raise", "CAP_SYS_ADMIN");
    let now = rustix::thread::capabilities(None).map_err(fail())?;
    let effective = now.effective | (CapabilitySet::SYS_ADMIN & now.permitted);
    rustix::thread::set_capabilities(None, CapabilitySets { effective, ..now }).map_err(fail())
}

/// Writes all sets but the bounding one, as far as this process has what is in them. `admin` is that of [`set_final_capabilities`].
pub(super) fn set_capability_sets(wanted: ProcessCapabilities, admin: bool) -> Result<(), Failure> {
    let fail = || Failure::step::<Errno>("set", "capabilities");
    rustix::thread::clear_ambient_capability_set().map_err(fail())?;
    let now = rustix::thread::capabilities(None).map_err(fail())?;
    let of = |set: Capabilities| CapabilitySet::from_bits_retain(set.bits());
    let permitted = of(wanted.permitted) & now.permitted;
    let inheritable = of(wanted.inheritable) & (now.permitted | now.inheritable);
    let spare = if admin { CapabilitySet::SYS_ADMIN & now.permitted } else { CapabilitySet::empty() };
    let sets = CapabilitySets { effective: of(wanted.effective) & permitted, permitted: permitted | spare, inheritable };
    rustix::thread::set_capabilities(None, sets).map_err(fail())?;
    for number in 0..64 {
        let one = CapabilitySet::from_bits_retain(1 << number);
        // Only what is in both others can be ambient (capabilities(7)).
        if (of(wanted.ambient) & permitted & inheritable).contains(one) {
            rustix::thread::configure_capability_in_ambient_set(one, true).map_err(fail())?;
        }
    }
    Ok(())
}
