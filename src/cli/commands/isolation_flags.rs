//! The flags of `strake run` and `strake create` about what keeps a container apart from its machine.

use std::path::PathBuf;

use clap::Args;

use crate::engine::{Error, RunRequest, SeccompRequest, parse_bytes};
use crate::runtime::bundle::DeviceRule;
use crate::runtime::{AppArmor, CgroupSpec, Sharing, SystemPaths, Throttle, ThrottleKind, cdi, parse_device_rule};

use super::super::config::Users;
use super::super::env;
use super::legacy_flags::TrustFlag;

// What keeps a container apart.
#[derive(Debug, Args)]
pub(super) struct IsolationFlags {
    /// `seccomp=FILE|unconfined|builtin`, `apparmor=PROFILE|unconfined`, `no-new-privileges`, `systempaths=unconfined` or `label=disable` (may be given several times)
    #[arg(long, value_name = "OPTION", value_parser = security)]
    security_opt: Vec<Security>,
    /// Whose processes it sees: `host`, or `container:NAME` [default: its own]
    #[arg(long, value_name = "MODE", value_parser = sharing)]
    pid: Option<Sharing>,
    /// Whose shared memory and message queues it has: `private`, `shareable` (with others), `container:NAME`, `host`, or `none` without /dev/shm
    #[arg(long, value_name = "MODE", value_parser = ipc)]
    ipc: Option<Ipc>,
    /// Whose host name it has: `host` [default: its own]
    #[arg(long, value_name = "MODE", value_parser = own_or_host)]
    uts: Option<Sharing>,
    /// Whose users it has: `host`, or with `auto` its own, which are nobody outside of it [default: as the settings say, or host]
    #[arg(long, value_name = "MODE", value_parser = users)]
    userns: Option<String>,
    /// Which control groups it sees: `private` or `host`
    #[arg(long, value_name = "MODE", value_parser = own_or_host)]
    cgroupns: Option<Sharing>,
    /// The control group that its own is made in
    #[arg(long, value_name = "GROUP")]
    cgroup_parent: Option<String>,
    /// A limit for reading from a disk, in bytes a second: `DEVICE:RATE` (may be given several times)
    #[arg(long, value_name = "DEVICE:RATE", value_parser = read_bytes)]
    device_read_bps: Vec<Throttle>,
    /// The same for writing
    #[arg(long, value_name = "DEVICE:RATE", value_parser = write_bytes)]
    device_write_bps: Vec<Throttle>,
    /// A limit for reading from a disk, in operations a second: `DEVICE:RATE` (may be given several times)
    #[arg(long, value_name = "DEVICE:RATE", value_parser = reads)]
    device_read_iops: Vec<Throttle>,
    /// The same for writing
    #[arg(long, value_name = "DEVICE:RATE", value_parser = writes)]
    device_write_iops: Vec<Throttle>,
    /// How readily its memory is swapped: 0 to 100; needs control groups of version 1
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true, value_parser = clap::value_parser!(i64).range(-1..=100))]
    memory_swappiness: Option<i64>,
    /// Let its processes wait for memory, rather than killing them; needs a memory limit and control groups of version 1
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    oom_kill_disable: Option<bool>,
    // Of what keeps containers apart there is one kind on Linux, and of volumes one driver here.
    #[arg(long, hide = true, value_parser = isolation)]
    isolation: Option<()>,
    #[arg(long, hide = true, value_parser = volume_driver)]
    volume_driver: Option<()>,
    /// A rule about the use of devices that are not given by name, such as `c 10:229 rwm` (may be given several times)
    #[arg(long, value_name = "RULE", value_parser = device_rule)]
    device_cgroup_rule: Vec<(String, DeviceRule)>,
    /// The GPUs of `nvidia.com/gpu` that it gets, by their CDI specification: `all`, a number, or `device=NAME[,NAME…]`
    #[arg(long, value_name = "GPUS", value_parser = gpus)]
    gpus: Option<Gpus>,
    /// Not supported: tells why
    #[arg(long, hide = true, value_parser = no_kernel_memory)]
    kernel_memory: Option<()>,
    /// Not supported: tells why
    #[arg(long, hide = true, value_parser = no_storage_options)]
    storage_opt: Vec<()>,
    /// Not supported: tells why
    #[arg(long, hide = true, value_parser = no_realtime)]
    cpu_rt_period: Option<()>,
    /// Not supported: tells why
    #[arg(long, hide = true, value_parser = no_realtime)]
    cpu_rt_runtime: Option<()>,
    /// Not supported: tells why
    #[arg(long, hide = true, value_parser = of_windows)]
    cpu_count: Option<()>,
    /// Not supported: tells why
    #[arg(long, hide = true, value_parser = of_windows)]
    cpu_percent: Option<()>,
    /// Not supported: tells why
    #[arg(long, hide = true, value_parser = of_windows)]
    io_maxbandwidth: Option<()>,
    /// Not supported: tells why
    #[arg(long, hide = true, value_parser = of_windows)]
    io_maxiops: Option<()>,
    /// Not supported: tells why
    #[arg(long, hide = true, value_parser = no_weight_of_device)]
    blkio_weight_device: Vec<()>,
    /// Not supported: tells why
    #[arg(long, hide = true, value_parser = no_link_local)]
    link_local_ip: Vec<()>,
    /// Not supported: tells why
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = no_daemon)]
    use_api_socket: Option<()>,
    #[command(flatten)]
    _trust: TrustFlag,
}

/// `--ipc`.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Ipc {
    Private,
    Shareable,
    None,
    Of(Sharing),
}

fn sharing(text: &str) -> Result<Sharing, String> {
    match text.split_once(':') {
        None if text.is_empty() || text == "private" => Ok(Sharing::Own),
        None if text == "host" => Ok(Sharing::Host),
        Some(("container", name)) if !name.is_empty() => Ok(Sharing::Container(name.to_owned())),
        _ => Err("expected host, private or container:NAME".to_owned()),
    }
}

fn ipc(text: &str) -> Result<Ipc, String> {
    match text {
        "" | "private" => Ok(Ipc::Private),
        "shareable" => Ok(Ipc::Shareable),
        "none" => Ok(Ipc::None),
        _ => sharing(text).map(Ipc::Of).map_err(|_| "expected private, shareable, container:NAME, host or none".to_owned()),
    }
}

fn own_or_host(text: &str) -> Result<Sharing, String> {
    match sharing(text) {
        Ok(sharing @ (Sharing::Own | Sharing::Host)) => Ok(sharing),
        _ => Err("expected host or private".to_owned()),
    }
}

fn users(text: &str) -> Result<String, String> {
    match text {
        "" | "host" | "auto" => Ok(text.to_owned()),
        _ => Err("expected host or auto".to_owned()),
    }
}

fn isolation(text: &str) -> Result<(), String> {
    if text.is_empty() || text == "default" { Ok(()) } else { Err(format!("there is no isolation `{text}` on Linux: expected default")) }
}

fn volume_driver(text: &str) -> Result<(), String> {
    if text.is_empty() || text == "local" { Ok(()) } else { Err(format!("there is no volume driver `{text}`: expected local")) }
}

fn device_rule(text: &str) -> Result<(String, DeviceRule), String> {
    Ok((text.to_owned(), parse_device_rule(text)?))
}

/// `--gpus`: names of CDI devices.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Gpus(Vec<String>);

/// Reads `--gpus`, which is written as a line of a table: a field with commas in it stands in double quotes.
fn gpus(text: &str) -> Result<Gpus, String> {
    let mut names: Vec<String> = Vec::new();
    for field in fields(text)? {
        let counted = |count: &str| match count {
            "all" | "-1" => Ok(vec!["all".to_owned()]),
            count => match count.parse::<u16>() {
                Ok(count) => Ok((0..count).map(|number| number.to_string()).collect()),
                Err(_) => Err(format!("`{count}` is neither `all` nor a number of GPUs")),
            },
        };
        match field.split_once('=') {
            None => names.extend(counted(&field)?),
            Some(("count", count)) => names.extend(counted(count)?),
            Some(("device", list)) => names.extend(list.split(',').map(str::to_owned)),
            Some(("driver", "nvidia" | "cdi" | "")) => {}
            Some(("capabilities" | "options", _)) => {
                return Err(format!("`{field}` cannot be had: what a GPU comes with is up to its CDI specification, so leave it out"));
            }
            Some(_) => return Err(format!("`{field}` says nothing about GPUs: expected `all`, a number, or `device=NAME[,NAME…]`")),
        }
    }
    let names: Vec<String> = names.into_iter().map(|name| format!("nvidia.com/gpu={name}")).collect();
    match names.iter().find(|name| !cdi::is_name(name)) {
        Some(name) => Err(format!("`{name}` is no name of a device")),
        None => Ok(Gpus(names)),
    }
}

/// The fields between commas.
fn fields(text: &str) -> Result<Vec<String>, String> {
    let (mut fields, mut quoted) = (vec![String::new()], false);
    for letter in text.chars() {
        match (letter, fields.last_mut()) {
            ('"', _) => quoted = !quoted,
            (',', _) if !quoted => fields.push(String::new()),
            (letter, Some(field)) => field.push(letter),
            (_, None) => {}
        }
    }
    // `device=0,1` without quotes is meant as with them.
    let is_name = |field: &String| !field.contains('=') && field != "all";
    if fields.len() > 1 && fields[0].starts_with("device=") && fields[1..].iter().all(is_name) {
        return Ok(vec![fields.join(",")]);
    }
    if quoted { Err(format!("`{text}` has a quote without its end")) } else { Ok(fields) }
}

fn no_kernel_memory(_: &str) -> Result<(), String> {
    Err("kernels have no such limit any more: --memory counts the kernel's memory as well".to_owned())
}

fn no_realtime(_: &str) -> Result<(), String> {
    Err("time for real-time processes cannot be set aside: --cpus and --cpu-shares rule the time of all others".to_owned())
}

fn of_windows(_: &str) -> Result<(), String> {
    Err("this is a limit of containers on Windows: on Linux there are --cpus, --device-read-bps, --device-write-iops and their like"
        .to_owned())
}

fn no_weight_of_device(_: &str) -> Result<(), String> {
    Err("weights of single devices are not supported: --blkio-weight is for all of them, and --device-read-bps and its like limit one"
        .to_owned())
}

fn no_daemon(text: &str) -> Result<(), String> {
    if text == "false" { Ok(()) } else { Err("there is no daemon whose socket the container could have".to_owned()) }
}

fn no_link_local(_: &str) -> Result<(), String> {
    Err("containers get no addresses beside those of their networks: --ip and --ip6 choose one".to_owned())
}

fn no_storage_options(_: &str) -> Result<(), String> {
    Err("the store sets no limits to single containers".to_owned())
}

fn read_bytes(text: &str) -> Result<Throttle, String> {
    throttle(text, ThrottleKind::ReadBytes)
}

fn write_bytes(text: &str) -> Result<Throttle, String> {
    throttle(text, ThrottleKind::WriteBytes)
}

fn reads(text: &str) -> Result<Throttle, String> {
    throttle(text, ThrottleKind::ReadOperations)
}

fn writes(text: &str) -> Result<Throttle, String> {
    throttle(text, ThrottleKind::WriteOperations)
}

fn throttle(text: &str, kind: ThrottleKind) -> Result<Throttle, String> {
    use std::os::unix::fs::{FileTypeExt, MetadataExt};
    let (path, rate) = text.rsplit_once(':').ok_or("expected DEVICE:RATE")?;
    let rate = match kind {
        ThrottleKind::ReadBytes | ThrottleKind::WriteBytes => parse_bytes(rate)?,
        _ => rate.parse().map_err(|_| format!("`{rate}` is not a number of operations"))?,
    };
    let metadata = std::fs::metadata(path).map_err(|error| format!("cannot look at `{path}`: {error}"))?;
    if !metadata.file_type().is_block_device() {
        return Err(format!("`{path}` is not a disk"));
    }
    let number = metadata.rdev();
    Ok(Throttle { path: path.into(), device: (rustix::fs::major(number), rustix::fs::minor(number)), kind, rate })
}

/// `--security-opt`.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Security {
    NoNewPrivileges(bool),
    Seccomp(Filter),
    SystemPaths,
    AppArmor(String),
    /// What this machine does not have, and is as it would be without.
    Nothing(String),
}

/// `--security-opt seccomp=`.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Filter {
    Default,
    Unconfined,
    File(PathBuf),
}

impl IsolationFlags {
    /// What these flags say of its control group.
    pub(super) fn group(&self) -> CgroupSpec {
        let throttles = [&self.device_read_bps, &self.device_write_bps, &self.device_read_iops, &self.device_write_iops];
        CgroupSpec {
            parent: self.cgroup_parent.clone().filter(|parent| !parent.is_empty()),
            throttles: throttles.into_iter().flatten().cloned().collect(),
            // -1 is how Docker says "as it is".
            swappiness: self.memory_swappiness.and_then(|number| u64::try_from(number).ok()),
            oom_kill_disable: self.oom_kill_disable.unwrap_or(false),
            ..CgroupSpec::default()
        }
    }

    /// Whether the container is to have users of its own. Settings that cannot be read are told of when it is made.
    pub(super) fn wants_own_users(&self) -> bool {
        match self.userns.as_deref().unwrap_or_default() {
            "" => env::users().is_ok_and(|users| users == Users::Own),
            mode => mode == "auto",
        }
    }

    /// Writes into the request what was asked for.
    pub(super) fn over(self, request: &mut RunRequest) -> Result<(), Error> {
        request.own_users = match self.userns.as_deref().unwrap_or_default() {
            "" => env::users()? == Users::Own,
            mode => mode == "auto",
        };
        let namespaces = &mut request.namespaces;
        namespaces.pid = self.pid.unwrap_or_default();
        namespaces.uts = self.uts.unwrap_or_default();
        namespaces.cgroup = self.cgroupns.unwrap_or_default();
        match self.ipc.unwrap_or(Ipc::Private) {
            Ipc::Private => {}
            Ipc::Shareable => namespaces.ipc_shareable = true,
            Ipc::None => namespaces.no_shm = true,
            Ipc::Of(sharing) => namespaces.ipc = sharing,
        }
        request.device_rules = self.device_cgroup_rule;
        request.named_devices.extend(self.gpus.into_iter().flat_map(|Gpus(names)| names));
        for option in self.security_opt {
            match option {
                Security::NoNewPrivileges(on) => request.no_new_privileges = on,
                Security::Seccomp(Filter::Default) => request.seccomp = SeccompRequest::Default,
                Security::Seccomp(Filter::Unconfined) => request.seccomp = SeccompRequest::Unconfined,
                Security::Seccomp(Filter::File(path)) => request.seccomp = SeccompRequest::read(&path)?,
                Security::SystemPaths => request.system_paths = SystemPaths::Unconfined,
                Security::AppArmor(profile) => {
                    request.apparmor = Some(AppArmor::named(&profile));
                    request.security_labels.push(format!("apparmor={profile}"));
                }
                Security::Nothing(text) => request.security_labels.push(text),
            }
        }
        Ok(())
    }
}

fn security(text: &str) -> Result<Security, String> {
    match text.split_once(['=', ':']).unwrap_or((text, "")) {
        ("no-new-privileges", "" | "true") => Ok(Security::NoNewPrivileges(true)),
        ("no-new-privileges", "false") => Ok(Security::NoNewPrivileges(false)),
        ("seccomp", "unconfined") => Ok(Security::Seccomp(Filter::Unconfined)),
        ("seccomp", "builtin") => Ok(Security::Seccomp(Filter::Default)),
        ("seccomp", path) if !path.is_empty() => Ok(Security::Seccomp(Filter::File(path.into()))),
        ("systempaths", "unconfined") => Ok(Security::SystemPaths),
        ("apparmor", profile) if !profile.is_empty() => Ok(Security::AppArmor(profile.to_owned())),
        ("label", "disable") => Ok(Security::Nothing(text.to_owned())),
        // Without SELinux such a label is one that nobody looks at.
        ("label", label)
            if label == "nested"
                || label
                    .split_once(':')
                    .is_some_and(|(key, value)| ["user", "role", "type", "level", "filetype"].contains(&key) && !value.is_empty()) =>
        {
            match std::fs::exists("/sys/fs/selinux/enforce") {
                Ok(true) => {
                    Err(format!("files and processes get no labels of SELinux here, so `{label}` would not hold: expected disable"))
                }
                _ => Ok(Security::Nothing(text.to_owned())),
            }
        }
        _ => {
            Err("expected seccomp=FILE|unconfined|builtin, apparmor=PROFILE|unconfined, no-new-privileges, systempaths=unconfined or label=disable"
                .to_owned())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn namespaces_are_named_as_docker_names_them() {
        assert_eq!(sharing("host"), Ok(Sharing::Host));
        assert_eq!(sharing("container:a"), Ok(Sharing::Container("a".into())));
        assert_eq!((ipc("none"), ipc("shareable")), (Ok(Ipc::None), Ok(Ipc::Shareable)));
        assert!(
            sharing("container:").is_err() && sharing("none").is_err() && own_or_host("container:a").is_err() && users("keep-id").is_err()
        );
    }

    #[test]
    fn gpus_are_devices_of_their_specification() {
        let names = |text: &str| gpus(text).map(|Gpus(names)| names.join(" ").replace("nvidia.com/gpu=", ""));
        assert_eq!(names("all"), Ok("all".to_owned()));
        assert_eq!(names("2"), Ok("0 1".to_owned()));
        assert_eq!(names("\"device=0,GPU-a1\""), Ok("0 GPU-a1".to_owned()));
        assert_eq!(names("device=0,1"), Ok("0 1".to_owned()));
        assert_eq!(names("count=1,driver=nvidia"), Ok("0".to_owned()));
        for text in ["", "some", "all,capabilities=utility", "device=", "device=a/b", "driver=amd,all", "\"device=0"] {
            assert!(gpus(text).is_err(), "{text}");
        }
    }

    #[test]
    fn options_about_security_are_dockers() {
        assert_eq!(security("seccomp=x/y=z.json"), Ok(Security::Seccomp(Filter::File("x/y=z.json".into()))));
        assert_eq!(security("seccomp:unconfined"), Ok(Security::Seccomp(Filter::Unconfined)));
        assert_eq!(security("apparmor:a//b"), Ok(Security::AppArmor("a//b".to_owned())));
        assert_eq!(security("no-new-privileges"), Ok(Security::NoNewPrivileges(true)));
        assert_eq!(security("no-new-privileges:false"), Ok(Security::NoNewPrivileges(false)));
        for text in ["seccomp=", "seccomp", "apparmor=", "no-new-privileges=maybe", "systempaths=x", "x=y"] {
            assert!(security(text).is_err(), "{text}");
        }
    }
}
