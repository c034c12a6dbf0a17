//! Values as Go prints them: `text`, `[a b]`, `map[key:value]` for maps, `{value value}` for structures, `<nil>`.
//!
//! JSON does not tell maps and structures apart. What is known of a field tells: maps with keys of the user's are listed here; of what nothing is known, the names tell, as those of Go's
//! structures begin with a capital letter. A structure that is reached through two pointers is printed by Go as an address; here it is shown.

use serde_json::{Map, Value};

use super::absent;
use crate::oci::go_duration;

/// Fields that are maps with keys of the user's.
pub(super) fn is_map(field: &str) -> bool {
    const MAPS: [&str; 16] = [
        "Annotations",
        "Attributes",
        "AuxiliaryAddresses",
        "Containers",
        "Data",
        "DriverOpts",
        "ExposedPorts",
        "Labels",
        "Networks",
        "Options",
        "PortBindings",
        "Ports",
        "StorageOpt",
        "Sysctls",
        "Tmpfs",
        "Volumes",
    ];
    MAPS.contains(&field)
}

/// Fields of Go's type for durations.
const DURATIONS: [&str; 4] = ["Interval", "StartInterval", "StartPeriod", "Timeout"];

/// The fields of structures that are written without those that are empty, by the list that they are in and the field above that.
const WHOLE: [((&str, &str), &[&str]); 2] = [
    (("Mounts", ""), &["Type", "Name", "Source", "Destination", "Driver", "Mode", "RW", "Propagation"]),
    (("Config", "IPAM"), &["Subnet", "IPRange", "Gateway", "AuxiliaryAddresses"]),
];

/// Appends a value, to which the fields `path` led; without any, where that is not known.
pub(super) fn show(value: &Value, path: &[String], out: &mut String) {
    let mut last = path.iter().rev().map(String::as_str);
    let field = last.next().unwrap_or_default();
    shown(value, field, last.next().unwrap_or_default(), out);
}

/// Appends a value that is, or is in, the field `field` of `above`.
fn shown(value: &Value, field: &str, above: &str, out: &mut String) {
    match value {
        Value::Null if is_map(above) => out.push_str("[]"),
        Value::Null => out.push_str("<nil>"),
        Value::String(text) => out.push_str(text),
        Value::Number(number) if above == "Healthcheck" && DURATIONS.contains(&field) => match number.as_i64() {
            Some(nanoseconds) => out.push_str(&go_duration(nanoseconds)),
            None => out.push_str(&number.to_string()),
        },
        Value::Array(values) => {
            let each = values.iter().map(|value| move |out: &mut String| shown(value, field, above, out));
            listed("[", each, "]", out);
        }
        Value::Object(fields) if field == "Ulimits" => {
            let text = |name: &str| fields.get(name).map_or_else(String::new, |value| value.to_string().replace('"', ""));
            out.push_str(&format!("{}={}:{}", text("Name"), text("Soft"), text("Hard")));
        }
        Value::Object(fields) if is_structure(fields, field, above) => structure(fields, field, above, out),
        Value::Object(_) => {
            let each = super::functions::sorted(value).into_iter().map(|(name, value)| {
                move |out: &mut String| {
                    out.push_str(name);
                    out.push(':');
                    // Its fields are a structure's, whatever the user's key.
                    shown(value, "", field, out);
                }
            });
            listed("map[", each, "]", out);
        }
        other => out.push_str(&other.to_string()),
    }
}

/// Whether an object is a structure of Go's.
fn is_structure(fields: &Map<String, Value>, field: &str, above: &str) -> bool {
    if is_map(field) || (field, above) == ("Config", "LogConfig") {
        return false;
    }
    match fields.is_empty() {
        true => field == "Config" || is_map(above),
        false => fields.keys().all(|name| name.starts_with(|c: char| c.is_ascii_uppercase()) && name.chars().all(char::is_alphanumeric)),
    }
}

fn structure(fields: &Map<String, Value>, field: &str, above: &str, out: &mut String) {
    let whole = WHOLE.iter().find(|(place, _)| *place == (field, above));
    let names: Vec<&str> = whole.map_or_else(|| fields.keys().map(String::as_str).collect(), |(_, names)| names.to_vec());
    let each = names.into_iter().map(|name| {
        move |out: &mut String| match fields.get(name) {
            Some(Value::Null) => out.push_str(absent::printed(&[name.to_owned()])),
            Some(value) => shown(value, name, field, out),
            None if is_map(name) => out.push_str("map[]"),
            None => {}
        }
    });
    listed("{", each, "}", out);
}

/// Appends elements with blanks between them.
fn listed(open: &str, elements: impl Iterator<Item = impl Fn(&mut String)>, close: &str, out: &mut String) {
    out.push_str(open);
    for (at, element) in elements.enumerate() {
        out.push_str(if at > 0 { " " } else { "" });
        element(out);
    }
    out.push_str(close);
}
