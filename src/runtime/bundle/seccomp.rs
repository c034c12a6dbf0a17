//! The system call filter of a config: `linux.seccomp` to a program.

use serde_json::{Value, json};

use super::Error;
use super::listener::Listener;
use crate::runtime::Capabilities;
use crate::runtime::seccomp::{Filter, SeccompHost, SeccompProfile, filter};

/// The filter of a config, for a container with this bounding set, and who is asked by it about system calls; `None` where it is empty.
pub(super) fn compile(seccomp: &Value, bounding: Capabilities) -> Result<Option<(Filter, Option<Listener>)>, Error> {
    let invalid = |error| Error::invalid("linux.seccomp", crate::diag::with_causes(&error));
    let profile = SeccompProfile::parse(&seccomp.to_string()).map_err(invalid)?;
    let Some(rules) = profile.rules_for_listener(&SeccompHost::of_this_machine(bounding)).map_err(invalid)? else { return Ok(None) };
    let listener = match profile.listener().filter(|_| rules.asks()) {
        Some((path, metadata)) => Some(Listener::new(path, metadata)?),
        None => None,
    };
    Ok(Some((filter(&rules), listener)))
}

/// The flags of filters; the last needs Linux 5.19.
const FLAGS: [&str; 4] =
    ["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW", "SECCOMP_FILTER_FLAG_TSYNC", "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"];

/// What filters can do, for `features`.
pub(super) fn features() -> Value {
    json!({
        "enabled": true,
        "actions": [
            "SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO", "SCMP_ACT_KILL", "SCMP_ACT_KILL_PROCESS", "SCMP_ACT_KILL_THREAD", "SCMP_ACT_LOG", "SCMP_ACT_NOTIFY",
            "SCMP_ACT_TRACE", "SCMP_ACT_TRAP",
        ],
        "operators": [
            "SCMP_CMP_EQ", "SCMP_CMP_GE", "SCMP_CMP_GT", "SCMP_CMP_LE", "SCMP_CMP_LT", "SCMP_CMP_MASKED_EQ", "SCMP_CMP_NE",
        ],
        "archs": ["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM", "SCMP_ARCH_X32", "SCMP_ARCH_X86", "SCMP_ARCH_X86_64"],
        "knownFlags": FLAGS,
        "supportedFlags": FLAGS[..if SeccompHost::of_this_machine(Capabilities::NONE).kernel < (5, 19) { 3 } else { 4 }],
    })
}
