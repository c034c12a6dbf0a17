//! Control groups that systemd makes (`--systemd-cgroup`): each container is a transient scope, a unit with a delegated group of its own.
//!
//! On machines with systemd the tree of groups is its own, so engines have it asked: `cgroupsPath` is then `SLICE:PREFIX:NAME`, and the group that of
//! `PREFIX-NAME.scope` in that slice. Limits are properties of the unit as well as files of its group, as systemd writes files again by what it knows. Only with cgroup v2.

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Deserializer, Serialize};

use super::Error;
use super::dbus::{Body, Bus, BusSocket, Object, Refused, Value};

const MANAGER: Object =
    Object { service: "org.freedesktop.systemd1", path: "/org/freedesktop/systemd1", interface: "org.freedesktop.systemd1.Manager" };

/// Annotations with this prefix are properties of the unit.
pub(super) const PROPERTY: &str = "org.systemd.property.";

/// The systemd that makes units: the machine's, or an ordinary user's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SystemdManager {
    /// The sockets of the bus that it is on, the likeliest first.
    #[serde(deserialize_with = "sockets")]
    pub bus: Vec<BusSocket>,
    /// Whether it is a user's.
    pub of_user: bool,
}

/// One path, where an earlier version has written it.
fn sockets<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<BusSocket>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Written {
        All(Vec<BusSocket>),
        One(PathBuf),
    }
    Ok(match Written::deserialize(deserializer)? {
        Written::All(all) => all,
        Written::One(path) => vec![BusSocket::Path(path)],
    })
}

/// The unit of a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Unit {
    manager: SystemdManager,
    slice: String,
    name: String,
}

impl Unit {
    /// That of a container by its `cgroupsPath`.
    pub(super) fn plan(manager: &SystemdManager, cgroups_path: &str, id: &str) -> Result<Unit, Error> {
        let wrong = |reason: String| Error::invalid("linux.cgroupsPath", reason);
        let (slice, prefix, name) = match cgroups_path.splitn(3, ':').collect::<Vec<_>>()[..] {
            [""] => ("", "strake", id),
            [slice, prefix, name] => (slice, prefix, name),
            _ => return Err(wrong(format!("`{cgroups_path}` is not `SLICE:PREFIX:NAME`, which systemd needs"))),
        };
        let slice = match slice {
            "" if manager.of_user => "user.slice",
            "" => "system.slice",
            slice => slice,
        };
        if in_tree(slice).is_none() {
            return Err(wrong(format!("`{slice}` is no name of a slice")));
        }
        let name = if prefix.is_empty() { name.to_owned() } else { format!("{prefix}-{name}") };
        let fits = |letter: char| letter.is_ascii_alphanumeric() || "-_.:\\@".contains(letter);
        let name: String =
            name.chars().map(|letter| if fits(letter) { letter.to_string() } else { format!("\\x{:02x}", u32::from(letter)) }).collect();
        if name.len() > 240 || name.ends_with(".slice") {
            return Err(wrong(format!("`{name}.scope` is no name of a unit")));
        }
        Ok(Unit { manager: manager.clone(), slice: slice.to_owned(), name: format!("{name}.scope") })
    }

    /// The group, below the mount of the hierarchy.
    pub(super) fn group(&self) -> Result<PathBuf, Error> {
        let mut path = PathBuf::new();
        if self.manager.of_user {
            let get = Object { interface: "org.freedesktop.DBus.Properties", ..MANAGER };
            let mut which = Body::default();
            which.text(MANAGER.interface).text("ControlGroup");
            let own = self.connect().and_then(|mut bus| bus.call(get, "Get", "ss", &which)).map_err(self.failed("find"))?;
            path.push(own.trim_start_matches('/'));
        }
        path.push(in_tree(&self.slice).unwrap_or_default());
        Ok(path.join(&self.name))
    }

    /// Starts it, with a process in it.
    pub(super) fn start(&self, pid: u32, properties: Vec<(String, Value)>) -> Result<(), Error> {
        let own = [
            ("Description", Value::Text(format!("container {}", self.name.trim_end_matches(".scope")))),
            ("Slice", Value::Text(self.slice.clone())),
            ("Delegate", Value::Bool(true)),
            ("DefaultDependencies", Value::Bool(false)),
            ("CollectMode", Value::Text("inactive-or-failed".to_owned())),
            ("CPUAccounting", Value::Bool(true)),
            ("IOAccounting", Value::Bool(true)),
            ("MemoryAccounting", Value::Bool(true)),
            ("TasksAccounting", Value::Bool(true)),
            ("PIDs", Value::U32s(vec![pid])),
        ];
        // What the caller says comes later, and counts.
        let all: Vec<_> = own.map(|(name, value)| (name.to_owned(), value)).into_iter().chain(properties).collect();
        let mut body = Body::default();
        body.text(&self.name).text("replace").properties(&all).no_units();
        let start = |bus: &mut Bus| self.job(bus, "StartTransientUnit", "ssa(sv)a(sa(sv))", &body);
        let started = self.connect().and_then(|mut bus| match start(&mut bus) {
            // One of that name has failed, and was not forgotten yet.
            Err(error) if is(&error, "UnitExists") => {
                self.forget(&mut bus);
                start(&mut bus)
            }
            other => other,
        });
        started.map_err(self.failed("start"))
    }

    /// Changes properties of it, until it ends.
    pub(super) fn set(&self, properties: &[(String, Value)]) -> Result<(), Error> {
        if properties.is_empty() {
            return Ok(());
        }
        let mut body = Body::default();
        body.text(&self.name).u32(1).properties(properties);
        let set = self.connect().and_then(|mut bus| bus.call(MANAGER, "SetUnitProperties", "sba(sv)", &body));
        set.map(drop).map_err(self.failed("change"))
    }

    /// Stops it, if it is there, with all that runs in it.
    pub(super) fn stop(&self) -> Result<(), Error> {
        let mut body = Body::default();
        body.text(&self.name).text("replace");
        let stopped = self.connect().and_then(|mut bus| {
            let stopped = self.job(&mut bus, "StopUnit", "ss", &body);
            self.forget(&mut bus);
            stopped
        });
        match stopped {
            Err(error) if is(&error, "NoSuchUnit") => Ok(()),
            other => other.map_err(self.failed("stop")),
        }
    }

    fn connect(&self) -> io::Result<Bus> {
        Bus::connect(&self.manager.bus)
    }

    /// Lets a unit go that has failed.
    fn forget(&self, bus: &mut Bus) {
        let mut body = Body::default();
        body.text(&self.name);
        // One that has not is none that could be let go.
        let _ = bus.call(MANAGER, "ResetFailedUnit", "s", &body);
    }

    /// Has something done with the unit, and waits until it is.
    fn job(&self, bus: &mut Bus, member: &str, signature: &str, body: &Body) -> io::Result<()> {
        bus.listen(MANAGER.interface, "JobRemoved")?;
        bus.call(MANAGER, "Subscribe", "", &Body::default())?;
        let job = bus.call(MANAGER, member, signature, body)?;
        loop {
            let signal = bus.signal("JobRemoved")?;
            if signal.first() == Some(&job) {
                return match signal.get(2).map(String::as_str) {
                    Some("done") => Ok(()),
                    result => Err(io::Error::other(format!("its job ended as `{}`", result.unwrap_or_default()))),
                };
            }
        }
    }

    fn failed(&self, verb: &'static str) -> impl FnOnce(io::Error) -> Error {
        let unit = self.name.clone();
        move |source| Error::Unit { verb, unit, source }
    }
}

/// Moves this process into a delegated scope of its own, which the user's systemd makes that is on this bus.
pub(in crate::runtime) fn enter_scope(bus: PathBuf, name: String) -> io::Result<()> {
    let unit = Unit { manager: SystemdManager { bus: vec![BusSocket::Path(bus)], of_user: true }, slice: "user.slice".to_owned(), name };
    unit.start(std::process::id(), Vec::new()).map_err(|error| match error {
        Error::Unit { source, .. } => io::Error::new(source.kind(), format!("systemd makes no scope: {source}")),
        other => io::Error::other(other),
    })
}

/// Whether that is what systemd refused something for.
fn is(error: &io::Error, name: &str) -> bool {
    let refused = error.get_ref().and_then(|error| error.downcast_ref::<Refused>());
    refused.is_some_and(|refused| refused.name.strip_prefix("org.freedesktop.systemd1.") == Some(name))
}

/// Where a slice is in the tree: `a-b.slice` is in `a.slice`; `-.slice` is the root.
fn in_tree(slice: &str) -> Option<PathBuf> {
    let name = slice.strip_suffix(".slice").filter(|name| !name.contains('/'))?;
    if name == "-" {
        return Some(PathBuf::new());
    }
    let parts: Vec<&str> = name.split('-').collect();
    if parts.iter().any(|part| part.is_empty()) {
        return None;
    }
    Some((1..=parts.len()).map(|count| format!("{}.slice", parts[..count].join("-"))).collect())
}

/// Properties that annotations name, with values in the text form of GVariant.
pub(super) fn of_annotations<'a>(annotations: impl Iterator<Item = (&'a String, &'a String)>) -> Result<Vec<(String, Value)>, Error> {
    let properties = annotations.filter_map(|(name, value)| Some((name.strip_prefix(PROPERTY)?, value)));
    let property = |(name, text): (&str, &String)| {
        let wrong = || Error::invalid(format!("annotations ({PROPERTY}{name})"), format!("`{text}` is no value of a property of a unit"));
        let value = value(text.trim()).ok_or_else(wrong)?;
        // Times have a name in seconds for people, and are microseconds.
        let Some(stem) = name.strip_suffix("Sec").filter(|stem| !stem.ends_with('U')) else { return Ok((name.to_owned(), value)) };
        let seconds = match value {
            Value::I32(number) => u64::try_from(number).ok(),
            Value::I64(number) => u64::try_from(number).ok(),
            Value::U32(number) => Some(number.into()),
            Value::U64(number) => Some(number),
            _ => None,
        };
        let micros = seconds.and_then(|seconds| seconds.checked_mul(1_000_000)).ok_or_else(wrong)?;
        Ok((format!("{stem}USec"), Value::U64(micros)))
    };
    properties.map(property).collect()
}

fn value(text: &str) -> Option<Value> {
    match text.split_once(char::is_whitespace).map(|(kind, number)| (kind, number.trim())) {
        Some(("uint64", number)) => return number.parse().ok().map(Value::U64),
        Some(("int64", number)) => return number.parse().ok().map(Value::I64),
        Some(("uint32", number)) => return number.parse().ok().map(Value::U32),
        Some(("int32", number)) => return number.parse().ok().map(Value::I32),
        _ => {}
    }
    match text {
        "true" => return Some(Value::Bool(true)),
        "false" => return Some(Value::Bool(false)),
        _ => {}
    }
    if let Some(items) = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        return items.split(',').map(|item| quoted(item.trim())).collect::<Option<_>>().map(Value::Texts);
    }
    quoted(text).map(Value::Text).or_else(|| text.parse().ok().map(Value::I32))
}

/// A text in quotes, without any inside of it.
fn quoted(text: &str) -> Option<String> {
    let inner = ['\'', '"'].iter().find_map(|quote| text.strip_prefix(*quote)?.strip_suffix(*quote))?;
    (!inner.contains(['\'', '"', '\\'])).then(|| inner.to_owned())
}

/// The property for what is written to a file of the group; none where systemd knows none.
pub(super) fn property(file: &str, text: &str) -> Option<(String, Value)> {
    let amount = || if text == "max" { Some(u64::MAX) } else { text.parse().ok() };
    let named = |name: &str, value: Value| Some((name.to_owned(), value));
    match file {
        "memory.max" => named("MemoryMax", Value::U64(amount()?)),
        "memory.high" => named("MemoryHigh", Value::U64(amount()?)),
        "memory.low" => named("MemoryLow", Value::U64(amount()?)),
        "memory.min" => named("MemoryMin", Value::U64(amount()?)),
        "memory.swap.max" => named("MemorySwapMax", Value::U64(amount()?)),
        "pids.max" => named("TasksMax", Value::U64(amount()?)),
        "cpu.weight" => named("CPUWeight", Value::U64(amount()?)),
        "io.weight" => named("IOWeight", Value::U64(text.strip_prefix("default ")?.parse().ok()?)),
        "cpuset.cpus" => named("AllowedCPUs", Value::Bytes(mask(text)?)),
        "cpuset.mems" => named("AllowedMemoryNodes", Value::Bytes(mask(text)?)),
        "cpu.max" => {
            let (quota, period) = text.split_once(' ')?;
            let period: u64 = period.parse().ok()?;
            let second = match quota {
                "max" => u64::MAX,
                // What systemd makes of it are whole hundredths.
                quota => (quota.parse::<u64>().ok()?.checked_mul(1_000_000)? / period.max(1)).next_multiple_of(10_000),
            };
            named("CPUQuotaPerSecUSec", Value::U64(second))
        }
        _ => None,
    }
}

/// A list such as `0-3` as bits.
fn mask(list: &str) -> Option<Vec<u8>> {
    let numbers = super::scheduling::numbers(list, 8192)?;
    let mut bits = vec![0; numbers.iter().max().map_or(0, |last| last / 8 + 1)];
    numbers.iter().for_each(|number| bits[number / 8] |= 1 << (number % 8));
    Some(bits)
}

/// Whether systemd runs this machine.
pub(super) fn is_there() -> bool {
    Path::new("/run/systemd/system").exists()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manager() -> SystemdManager {
        SystemdManager { bus: vec![BusSocket::Path("/run/dbus/system_bus_socket".into())], of_user: false }
    }

    #[test]
    fn a_unit_is_where_its_slice_is_in_the_tree() {
        let group = |path: &str| Unit::plan(&manager(), path, "id").and_then(|unit| unit.group()).map(|path| path.display().to_string());
        assert_eq!(group("machine.slice:libpod:abc").unwrap(), "machine.slice/libpod-abc.scope");
        assert_eq!(
            group("kubepods-burstable-podx.slice:cri-containerd:1").unwrap(),
            "kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podx.slice/cri-containerd-1.scope"
        );
        assert_eq!(group("").unwrap(), "system.slice/strake-id.scope");
        assert_eq!(group("-.slice::x").unwrap(), "x.scope");
        assert_eq!(group(":docker:a+b").unwrap(), "system.slice/docker-a\\x2bb.scope");
        for wrong in ["/a/b", "a.slice:b", "a--b.slice:x:y", "a/b.slice:x:y", "a:x:y", "a.slice:x:y.slice"] {
            assert!(group(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn limits_are_properties() {
        let value = |file: &str, text: &str| property(file, text);
        assert_eq!(value("memory.max", "max"), Some(("MemoryMax".into(), Value::U64(u64::MAX))));
        assert_eq!(value("cpu.max", "50000 100000"), Some(("CPUQuotaPerSecUSec".into(), Value::U64(500_000))));
        assert_eq!(value("cpuset.cpus", "0,9"), Some(("AllowedCPUs".into(), Value::Bytes(vec![1, 2]))));
        assert_eq!(value("io.max", "8:0 rbps=5"), None);
    }

    #[test]
    fn annotations_are_properties() {
        let of = |name: &str, text: &str| of_annotations([(&format!("{PROPERTY}{name}"), &text.to_owned())].into_iter());
        assert_eq!(of("TimeoutStopUSec", "uint64 5").unwrap(), [("TimeoutStopUSec".to_owned(), Value::U64(5))]);
        assert_eq!(of("TimeoutStopSec", "2").unwrap(), [("TimeoutStopUSec".to_owned(), Value::U64(2_000_000))]);
        assert_eq!(of("KillSignal", "37").unwrap(), [("KillSignal".to_owned(), Value::I32(37))]);
        assert_eq!(of("After", "['a', 'b']").unwrap(), [("After".to_owned(), Value::Texts(vec!["a".into(), "b".into()]))]);
        assert!(of("CollectMode", "inactive").is_err());
        assert!(of("TimeoutStopSec", "'x'").is_err());
    }
}
