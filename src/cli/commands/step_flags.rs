//! The flags of `strake build` that are about its RUN steps: what they may do, what they see, and how much they may use.
//!
//! Names and values are those of `docker build` and `docker buildx build`. What `--memory` and the other flags of Docker's first builder say, buildx says with
//! `--resource`; where both name the same thing, `--resource` wins.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

use clap::{Args, ValueEnum};

use crate::cli::env;
use crate::engine::{Error, parse_bytes};
use crate::executor::{SshAgent, SshSource, StepSettings};
use crate::graph::{Entitlements, NetworkMode};
use crate::runtime::container::HostAddress;
use crate::runtime::{AppArmor, CgroupSpec, Resource, Rlimit, Situation, can_chroot, cdi, situation};

use super::limit_flags::check_sets;

// Flags about RUN steps.
#[derive(Debug, Default, Args)]
pub(super) struct StepFlags {
    /// The network of RUN steps
    #[arg(long, value_enum, default_value = "default")]
    network: Network,
    /// What RUN steps may ask for: `network.host`, `security.insecure`, or `device[=VENDOR/CLASS[=NAME]]` (may be given several times)
    #[arg(long, value_name = "ENTITLEMENT", value_parser = entitlement, value_delimiter = ',')]
    allow: Vec<Entitlement>,
    /// A name for /etc/hosts in RUN steps, `NAME:ADDRESS` or `NAME=ADDRESS[,ADDRESS…]`; the address may be `host-gateway` (may be given several times)
    #[arg(long, value_name = "NAME:ADDRESS", value_parser = extra_host)]
    add_host: Vec<ExtraHost>,
    /// An SSH agent for RUN --mount=type=ssh: `ID[=SOCKET|KEY[,KEY…]]`, where `default` alone is the agent of SSH_AUTH_SOCK; `ID=SOCKET,raw=true` passes on whatever a socket says (may be given several times)
    #[arg(long, value_name = "ID[=SOCKET|KEY[,KEY…]]", value_parser = ssh)]
    ssh: Vec<Option<(String, SshPaths)>>,
    /// How RUN steps are kept apart: `oci` (namespaces, as root), `rootless` (namespaces, in a user namespace), `chroot`, or `default`, which is the most of these that can be had
    #[arg(long, value_name = "KIND", value_parser = isolation, default_value = "default")]
    isolation: Isolation,
    /// The size of /dev/shm in RUN steps [default: 64m]
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes)]
    shm_size: Option<u64>,
    /// A limit of processes in RUN steps, such as `nofile=1024:2048` (may be given several times)
    #[arg(long, value_name = "NAME=SOFT[:HARD]", value_parser = ulimit)]
    ulimit: Vec<Rlimit>,
    /// The control group below which each RUN step gets its own
    #[arg(long, value_name = "PATH", value_parser = cgroup_parent)]
    cgroup_parent: Option<String>,
    /// A limit of each RUN step: `memory`, `memory-swap`, `cpu-shares`, `cpu-period`, `cpu-quota`, `cpuset-cpus` or `cpuset-mems` (may be given several
    /// times)
    #[arg(long, value_name = "KEY=VALUE", value_parser = resource)]
    resource: Vec<CgroupSpec>,
    /// The memory that each RUN step may use, such as `512m`
    #[arg(short, long, value_name = "BYTES", value_parser = memory)]
    memory: Option<u64>,
    /// The memory and swap that each RUN step may use together; `-1` is no limit of swap [default: twice the memory]
    #[arg(long, value_name = "BYTES", value_parser = memory_swap, allow_negative_numbers = true)]
    memory_swap: Option<u64>,
    /// The processors that each RUN step may use, such as `1.5`
    #[arg(long, value_name = "NUMBER", value_parser = super::limit_flags::cpus)]
    cpus: Option<u64>,
    /// The share of CPU time of each RUN step when there is too little; 1024 is normal
    #[arg(short = 'c', long, value_name = "SHARES", value_parser = cpu_shares)]
    cpu_shares: Option<u64>,
    /// The period that `--cpu-quota` is of, in microseconds [default: 100000]
    #[arg(long, value_name = "MICROSECONDS", value_parser = cpu_period)]
    cpu_period: Option<u64>,
    /// The CPU time that each RUN step may use in each period, in microseconds
    #[arg(long, value_name = "MICROSECONDS", value_parser = cpu_quota, allow_negative_numbers = true)]
    cpu_quota: Option<u64>,
    /// The CPUs that RUN steps may use, such as `0-3,7`
    #[arg(long, value_name = "LIST", value_parser = number_list)]
    cpuset_cpus: Option<String>,
    /// The memory nodes that RUN steps may use, such as `0,1`
    #[arg(long, value_name = "LIST", value_parser = number_list)]
    cpuset_mems: Option<String>,
}

/// `--isolation`, in the words of buildah and of `docker build`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Isolation {
    #[default]
    Default,
    Oci,
    Rootless,
    Chroot,
}

fn isolation(text: &str) -> Result<Isolation, String> {
    match text {
        "" | "default" => Ok(Isolation::Default),
        "oci" => Ok(Isolation::Oci),
        "rootless" => Ok(Isolation::Rootless),
        "chroot" => Ok(Isolation::Chroot),
        _ => Err("expected `default`, `oci`, `rootless` or `chroot`".to_owned()),
    }
}

impl Isolation {
    /// Whether steps run by chroot alone.
    ///
    /// # Errors
    /// What was asked for cannot be had.
    fn is_chroot(self) -> Result<bool, Error> {
        let found = situation();
        let possible = match self {
            Isolation::Default => return Ok(found == Some(Situation::Chroot)),
            Isolation::Oci => found == Some(Situation::Root),
            Isolation::Rootless => matches!(found, Some(Situation::UserNamespace(_))),
            Isolation::Chroot => can_chroot(),
        };
        if possible {
            return Ok(self == Isolation::Chroot);
        }
        let reason = match self {
            Isolation::Rootless if found == Some(Situation::Root) => "`--isolation=rootless` is for other users than root",
            Isolation::Chroot => "`--isolation=chroot` needs root with the capabilities that containers have by default",
            Isolation::Oci => "`--isolation=oci` needs root with CAP_SYS_ADMIN",
            Isolation::Rootless | Isolation::Default => "`--isolation=rootless` needs user namespaces",
        };
        Err(Error::Usage {
            message: reason.to_owned(),
            hint: Some("leave it out, and see `strake doctor` for what can be had here".to_owned()),
        })
    }
}

/// `--network`.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum Network {
    /// A private one where possible
    #[default]
    #[value(alias = "")]
    Default,
    /// None
    None,
    /// This machine's
    Host,
}

impl StepFlags {
    /// The network of steps that do not name one.
    pub(super) fn network(&self) -> NetworkMode {
        match self.network {
            Network::Default => NetworkMode::Default,
            Network::None => NetworkMode::None,
            Network::Host => NetworkMode::Host,
        }
    }

    /// What steps may ask for. Who gives the host's network to all steps allows it, too.
    pub(super) fn entitlements(&self) -> Entitlements {
        Entitlements {
            network_host: matches!(self.network, Network::Host) || self.allow.contains(&Entitlement::NetworkHost),
            security_insecure: self.allow.contains(&Entitlement::SecurityInsecure),
            all_devices: self.allow.contains(&Entitlement::AllDevices),
            devices: self
                .allow
                .iter()
                .filter_map(|allowed| if let Entitlement::Device(name) = allowed { Some(name.clone()) } else { None })
                .collect(),
        }
    }

    /// What every step gets.
    ///
    /// # Errors
    /// Values that contradict each other, and agents or keys of `--ssh` that are not there.
    pub(super) fn settings(&self) -> Result<StepSettings, Error> {
        let cgroup = self.limits();
        check_limits(&cgroup)?;
        check_sets(&cgroup)?;
        let mut rlimits: Vec<Rlimit> = Vec::new();
        for limit in &self.ulimit {
            // The last of a kind counts.
            rlimits.retain(|earlier| earlier.resource != limit.resource);
            rlimits.push(*limit);
        }
        Ok(StepSettings {
            chroot: self.isolation.is_chroot()?,
            extra_hosts: self
                .add_host
                .iter()
                .flat_map(|ExtraHost(name, addresses)| addresses.iter().map(|at| (name.clone(), *at)))
                .collect(),
            shm_size: self.shm_size.filter(|size| *size > 0),
            rlimits,
            cgroup,
            ssh: self.agents()?,
            apparmor: AppArmor::Default,
        })
    }

    fn limits(&self) -> CgroupSpec {
        let mut limits = CgroupSpec {
            parent: self.cgroup_parent.clone(),
            memory: self.memory,
            memory_swap: self.memory_swap,
            cpu_millis: self.cpus,
            cpu_shares: self.cpu_shares,
            cpu_period: self.cpu_period,
            cpu_quota: self.cpu_quota,
            cpuset_cpus: self.cpuset_cpus.clone(),
            cpuset_mems: self.cpuset_mems.clone(),
            ..CgroupSpec::default()
        };
        for given in self.resource.iter().cloned() {
            limits.memory = given.memory.or(limits.memory);
            limits.memory_swap = given.memory_swap.or(limits.memory_swap);
            limits.cpu_shares = given.cpu_shares.or(limits.cpu_shares);
            limits.cpu_period = given.cpu_period.or(limits.cpu_period);
            limits.cpu_quota = given.cpu_quota.or(limits.cpu_quota);
            limits.cpuset_cpus = given.cpuset_cpus.or(limits.cpuset_cpus);
            limits.cpuset_mems = given.cpuset_mems.or(limits.cpuset_mems);
        }
        // Zero is how Docker's flags say "no limit".
        let limits_of = |value: Option<u64>| value.filter(|value| *value > 0);
        limits.memory = limits_of(limits.memory);
        limits.memory_swap = limits_of(limits.memory_swap);
        limits.cpu_millis = limits_of(limits.cpu_millis);
        limits.cpu_shares = limits_of(limits.cpu_shares);
        limits.cpu_period = limits_of(limits.cpu_period);
        limits.cpu_quota = limits_of(limits.cpu_quota);
        limits
    }

    fn agents(&self) -> Result<BTreeMap<String, SshAgent>, Error> {
        let mut agents = BTreeMap::new();
        for (id, paths) in self.ssh.iter().flatten() {
            let source = match paths {
                SshPaths::None => env::ssh_auth_sock().map(SshSource::Agent).ok_or_else(|| no_agent(id))?,
                SshPaths::Given(paths) => SshSource::Paths(paths.clone()),
                SshPaths::Raw(path) => SshSource::Raw(path.clone()),
            };
            let agent = source.open().map_err(|source| Error::Ssh { id: id.clone(), source })?;
            if agents.insert(id.clone(), agent).is_some() {
                let message = format!("--ssh names the ID `{id}` twice");
                return Err(Error::Usage { message, hint: Some("give every agent an ID of its own".into()) });
            }
        }
        Ok(agents)
    }
}

fn no_agent(id: &str) -> Error {
    let message = format!("--ssh {id}: there is no SSH agent, as SSH_AUTH_SOCK is not set");
    Error::Usage { message, hint: Some(format!("start one with `eval $(ssh-agent)` and `ssh-add`, or name a key file: `--ssh {id}=FILE`")) }
}

pub(super) fn check_limits(limits: &CgroupSpec) -> Result<(), Error> {
    let refuse = |message: &str, hint: &str| Err(Error::Usage { message: message.to_owned(), hint: Some(hint.to_owned()) });
    match (limits.memory, limits.memory_swap) {
        (None, Some(_)) => return refuse("--memory-swap needs --memory", "give --memory, too: --memory-swap is of both together"),
        (Some(memory), Some(both)) if both < memory => {
            return refuse("--memory-swap is less than --memory", "--memory-swap is the limit of memory and swap together");
        }
        _ => {}
    }
    if let (Some(memory), Some(kept)) = (limits.memory, limits.memory_reservation)
        && kept > memory
    {
        return refuse("--memory-reservation is more than --memory", "what is kept for it is a part of what it may use");
    }
    if limits.cpu_millis.is_some() && (limits.cpu_period.is_some() || limits.cpu_quota.is_some()) {
        return refuse("--cpus and --cpu-period or --cpu-quota contradict each other", "give one or the other");
    }
    Ok(())
}

/// What a build may be allowed beyond the sandbox.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Entitlement {
    NetworkHost,
    SecurityInsecure,
    AllDevices,
    Device(String),
}

fn entitlement(text: &str) -> Result<Entitlement, String> {
    match text {
        "network.host" => Ok(Entitlement::NetworkHost),
        "security.insecure" => Ok(Entitlement::SecurityInsecure),
        "device" => Ok(Entitlement::AllDevices),
        text => match text.strip_prefix("device=") {
            Some(name) if cdi::is_name(name) || cdi::is_name(&format!("{name}=x")) => Ok(Entitlement::Device(name.to_owned())),
            Some(name) => Err(format!("`{name}` is no name of a device: expected VENDOR/CLASS or VENDOR/CLASS=NAME")),
            None => Err("there is no such entitlement: it is `network.host`, `security.insecure` or `device`".into()),
        },
    }
}

/// A name and its addresses.
#[derive(Clone, Debug)]
struct ExtraHost(String, Vec<HostAddress>);

/// Reads `--add-host`.
fn extra_host(text: &str) -> Result<ExtraHost, String> {
    let (name, addresses) = split_host(text)?;
    let addresses: Result<Vec<_>, _> = addresses.split(',').map(host_address).collect();
    Ok(ExtraHost(name.to_owned(), addresses?))
}

/// Takes `NAME=ADDRESS` or `NAME:ADDRESS` apart; an address may hold colons itself.
pub(super) fn split_host(text: &str) -> Result<(&str, &str), String> {
    let split = text.split_once('=').or_else(|| text.split_once(':'));
    let (name, address) = split.filter(|(name, address)| !name.is_empty() && !address.is_empty()).ok_or("expected NAME:ADDRESS")?;
    if name.contains(|c: char| c.is_whitespace() || c.is_control() || c == '#') {
        return Err(format!("`{name}` is not the name of a host"));
    }
    Ok((name, address))
}

/// An IP address, in brackets or not, or `host-gateway`.
pub(super) fn host_address(text: &str) -> Result<HostAddress, String> {
    if text == "host-gateway" {
        return Ok(HostAddress::Gateway);
    }
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    let address: IpAddr = bare.parse().map_err(|_| format!("`{text}` is not an address"))?;
    Ok(HostAddress::Address(address))
}

/// What `--ssh` says of an ID.
#[derive(Clone, Debug, PartialEq, Eq)]
enum SshPaths {
    /// Nothing.
    None,
    /// A socket of an agent, or files with keys.
    Given(Vec<PathBuf>),
    /// A socket that need not be an agent's.
    Raw(PathBuf),
}

/// Reads `--ssh`; empty is none.
fn ssh(text: &str) -> Result<Option<(String, SshPaths)>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    let (id, fields) = text.split_once('=').unwrap_or((text, ""));
    let (mut raw, mut paths) = (false, Vec::new());
    for field in fields.split(',').filter(|field| !field.is_empty()) {
        match field.strip_prefix("raw=") {
            Some(value) => raw = super::build::boolean(value)?,
            None => paths.push(PathBuf::from(field)),
        }
    }
    let paths = match (raw, paths.as_slice()) {
        (true, [path]) => SshPaths::Raw(path.clone()),
        (true, _) => return Err("`raw=true` needs exactly one socket: `ID=SOCKET,raw=true`".into()),
        (false, []) => SshPaths::None,
        (false, _) => SshPaths::Given(paths),
    };
    let id = if id.is_empty() { "default" } else { id };
    Ok(Some((id.to_owned(), paths)))
}

pub(super) fn ulimit(text: &str) -> Result<Rlimit, String> {
    let (name, values) = text.split_once('=').ok_or("expected NAME=SOFT[:HARD]")?;
    let resource = resource_named(name)
        .ok_or_else(|| format!("there is no limit `{name}`: it is one of {}", RESOURCES.map(|(name, _)| name).join(", ")))?;
    let number = |text: &str| match text.trim() {
        "-1" | "unlimited" => Ok(u64::MAX),
        text => text.parse::<u64>().map_err(|_| format!("`{text}` is not a limit")),
    };
    let (soft, hard) = match values.split_once(':') {
        Some((soft, hard)) => (number(soft)?, number(hard)?),
        None => (number(values)?, number(values)?),
    };
    if soft > hard {
        return Err("the soft limit is above the hard one".into());
    }
    Ok(Rlimit { resource, soft, hard })
}

const RESOURCES: [(&str, Resource); 16] = [
    ("as", Resource::As),
    ("core", Resource::Core),
    ("cpu", Resource::Cpu),
    ("data", Resource::Data),
    ("fsize", Resource::Fsize),
    ("locks", Resource::Locks),
    ("memlock", Resource::Memlock),
    ("msgqueue", Resource::Msgqueue),
    ("nice", Resource::Nice),
    ("nofile", Resource::Nofile),
    ("nproc", Resource::Nproc),
    ("rss", Resource::Rss),
    ("rtprio", Resource::Rtprio),
    ("rttime", Resource::Rttime),
    ("sigpending", Resource::Sigpending),
    ("stack", Resource::Stack),
];

fn resource_named(name: &str) -> Option<Resource> {
    RESOURCES.iter().find(|(known, _)| *known == name).map(|(_, resource)| *resource)
}

fn cgroup_parent(text: &str) -> Result<String, String> {
    let bare = text.trim_matches('/');
    if bare.is_empty() || bare.split('/').any(|part| matches!(part, "" | "." | "..")) {
        return Err("expected the path of a control group".into());
    }
    Ok(bare.to_owned())
}

/// The least memory that Docker takes for a limit; with less no program starts.
const LEAST_MEMORY: u64 = 6 << 20;

/// Reads a limit of memory.
pub(super) fn memory(text: &str) -> Result<u64, String> {
    match parse_bytes(text)? {
        bytes if bytes > 0 && bytes < LEAST_MEMORY => Err("no command runs in less than 6m".into()),
        bytes => Ok(bytes),
    }
}

pub(super) fn memory_swap(text: &str) -> Result<u64, String> {
    if text == "-1" { Ok(u64::MAX) } else { parse_bytes(text) }
}

fn whole(text: &str, range: std::ops::RangeInclusive<u64>) -> Result<u64, String> {
    match text.parse::<u64>() {
        Ok(0) => Ok(0),
        Ok(number) if range.contains(&number) => Ok(number),
        _ => Err(format!("expected a whole number from {} to {}", range.start(), range.end())),
    }
}

pub(super) fn cpu_shares(text: &str) -> Result<u64, String> {
    whole(text, 2..=262_144)
}

pub(super) fn cpu_period(text: &str) -> Result<u64, String> {
    whole(text, 1000..=1_000_000)
}

pub(super) fn cpu_quota(text: &str) -> Result<u64, String> {
    // As Docker has it: -1 is no limit.
    if text == "-1" { Ok(0) } else { whole(text, 1000..=u64::MAX >> 1) }
}

/// `0-3,7`, as the kernel takes it.
pub(super) fn number_list(text: &str) -> Result<String, String> {
    let number = |text: &str| text.parse::<u32>().ok();
    let part = |part: &str| match part.split_once('-') {
        Some((first, last)) => number(first).zip(number(last)).is_some_and(|(first, last)| first <= last),
        None => number(part).is_some(),
    };
    if text.split(',').all(part) { Ok(text.to_owned()) } else { Err("expected numbers and ranges, such as `0-3,7`".into()) }
}

/// Reads `--resource KEY=VALUE`; a value may be followed by `,KEY=VALUE`, except that of a set, which may hold commas itself.
fn resource(text: &str) -> Result<CgroupSpec, String> {
    let mut limits = CgroupSpec::default();
    let mut rest = text;
    while !rest.is_empty() {
        let (key, after) = rest.split_once('=').ok_or_else(|| format!("`{rest}` has no value: expected KEY=VALUE"))?;
        let (value, next) = value_of(after);
        rest = next;
        match key {
            "memory" => limits.memory = Some(memory(value)?),
            "memory-swap" => limits.memory_swap = Some(memory_swap(value)?),
            "cpu-shares" => limits.cpu_shares = Some(cpu_shares(value)?),
            "cpu-period" => limits.cpu_period = Some(cpu_period(value)?),
            "cpu-quota" => limits.cpu_quota = Some(cpu_quota(value)?),
            "cpuset-cpus" => limits.cpuset_cpus = Some(number_list(value)?),
            "cpuset-mems" => limits.cpuset_mems = Some(number_list(value)?),
            key => {
                return Err(format!(
                    "there is no resource `{key}`: it is memory, memory-swap, cpu-shares, cpu-period, cpu-quota, cpuset-cpus or cpuset-mems"
                ));
            }
        }
    }
    Ok(limits)
}

/// The value at the start of `text`, and the fields behind it: a comma ends it where a key follows.
fn value_of(text: &str) -> (&str, &str) {
    let ends = |(at, _): &(usize, &str)| text[at + 1..].chars().next().is_some_and(|c| c.is_ascii_alphabetic());
    match text.match_indices(',').find(ends) {
        Some((at, _)) => (&text[..at], &text[at + 1..]),
        None => (text, ""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_named_with_a_colon_or_an_equals_sign() {
        let parsed = |text: &str| extra_host(text).map(|ExtraHost(name, addresses)| (name, addresses)).ok();
        let ip = |text: &str| HostAddress::Address(text.parse().unwrap());
        assert_eq!(parsed("db:10.0.0.1"), Some(("db".into(), vec![ip("10.0.0.1")])));
        assert_eq!(parsed("db=10.0.0.1,::2"), Some(("db".into(), vec![ip("10.0.0.1"), ip("::2")])));
        assert_eq!(parsed("six:2001:db8::1"), Some(("six".into(), vec![ip("2001:db8::1")])));
        assert_eq!(parsed("six=[::1]"), Some(("six".into(), vec![ip("::1")])));
        assert_eq!(parsed("host:host-gateway"), Some(("host".into(), vec![HostAddress::Gateway])));
        for bad in ["", "db", "db:", ":1.2.3.4", "db:one", "a b:1.2.3.4", "db=1.2.3.4,", "db:[::1"] {
            assert_eq!(parsed(bad), None, "{bad}");
        }
    }

    #[test]
    fn limits_have_a_soft_and_a_hard_value() {
        let nofile = |soft, hard| Ok(Rlimit { resource: Resource::Nofile, soft, hard });
        assert_eq!(ulimit("nofile=10"), nofile(10, 10));
        assert_eq!(ulimit("nofile=10:20"), nofile(10, 20));
        assert_eq!(ulimit("nofile=10:-1"), nofile(10, u64::MAX));
        for bad in ["nofile", "nofile=", "nofile=x", "nofile=20:10", "nofile=-1:10", "files=1"] {
            assert!(ulimit(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn resources_are_given_one_by_one_or_together() {
        let limits = resource("memory=64m,cpuset-cpus=0,2-3,cpu-quota=5000").unwrap();
        assert_eq!((limits.memory, limits.cpu_quota), (Some(64 << 20), Some(5000)));
        assert_eq!(limits.cpuset_cpus.as_deref(), Some("0,2-3"));
        for bad in ["memory", "memory=", "memory=1m", "cpuset-cpus=3-1", "disk=1", "cpu-period=5"] {
            assert!(resource(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_agent_has_an_id_and_perhaps_paths() {
        let parsed = |text: &str| ssh(text).unwrap().unwrap();
        assert_eq!(parsed("default"), ("default".into(), SshPaths::None));
        assert_eq!(parsed("work=/a,/b"), ("work".into(), SshPaths::Given(vec!["/a".into(), "/b".into()])));
        assert_eq!(parsed("=/a"), ("default".into(), SshPaths::Given(vec!["/a".into()])));
        assert_eq!(parsed("x=/s,raw=true"), ("x".into(), SshPaths::Raw("/s".into())));
        assert_eq!(parsed("x=/s,raw=false"), ("x".into(), SshPaths::Given(vec!["/s".into()])));
        for bad in ["x=raw=true", "x=/a,/b,raw=true", "x=/a,raw=perhaps"] {
            assert!(ssh(bad).is_err(), "{bad}");
        }
    }
}
