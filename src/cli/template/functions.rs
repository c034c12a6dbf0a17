//! The functions of templates: Go's own, and those that Docker adds.

use std::cmp::Ordering;

use serde_json::Value;

use super::shown::show;

type Function = fn(&[Value]) -> Result<Value, String>;

const FUNCTIONS: [(&str, Function); 23] = [
    ("eq", |args| compare(args, |found| found == Some(Ordering::Equal))),
    ("ge", |args| order(args, Ordering::is_ge)),
    ("gt", |args| order(args, Ordering::is_gt)),
    ("html", |args| Ok(joined(args).replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&#34;").into())),
    ("index", index),
    ("join", join),
    ("json", |args| Ok(one("json", args)?.to_string().into())),
    ("le", |args| order(args, Ordering::is_le)),
    ("len", length),
    ("lower", |args| Ok(text(one("lower", args)?).to_lowercase().into())),
    ("lt", |args| order(args, Ordering::is_lt)),
    ("ne", |args| compare(args, |found| found != Some(Ordering::Equal))),
    ("not", |args| Ok(Value::Bool(!is_true(one("not", args)?)))),
    ("pad", pad),
    ("print", |args| Ok(printed(args).into())),
    ("printf", |args| printf::printf(args).map(Value::String)),
    ("println", |args| Ok(format!("{}\n", spaced(args)).into())),
    ("slice", slice),
    ("split", split),
    ("title", |args| Ok(title(&text(one("title", args)?)).into())),
    ("trim", |args| Ok(text(one("trim", args)?).trim().into())),
    ("truncate", truncate),
    ("upper", |args| Ok(text(one("upper", args)?).to_uppercase().into())),
];

/// Whether there is such a function.
pub(super) fn is_known(name: &str) -> bool {
    matches!(name, "and" | "or") || FUNCTIONS.iter().any(|(known, _)| *known == name)
}

/// Calls a function.
pub(super) fn call(name: &str, args: Vec<Value>) -> Result<Value, String> {
    match FUNCTIONS.iter().find(|(known, _)| *known == name) {
        Some((_, function)) => function(&args),
        None => Err(format!("there is no function `{name}`")),
    }
}

/// What Go takes for true: what is not empty.
pub(super) fn is_true(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(value) => *value,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(list) => !list.is_empty(),
        Value::Object(fields) => !fields.is_empty(),
    }
}

/// The fields of a map in the order of their names.
pub(super) fn sorted(value: &Value) -> Vec<(&str, &Value)> {
    let mut fields: Vec<_> = value.as_object().into_iter().flatten().map(|(name, value)| (name.as_str(), value)).collect();
    fields.sort_unstable_by_key(|(name, _)| *name);
    fields
}

/// The value of a label in the `KEY=VALUE,…` of a row, or in a map.
pub(super) fn label(labels: &Value, key: &Value) -> Value {
    let key = text(key);
    let found = match labels {
        Value::String(list) => {
            list.split(',').find_map(|label| label.split_once('=').filter(|(name, _)| *name == key)).map(|(_, value)| value)
        }
        map => map.get(&key).and_then(Value::as_str),
    };
    found.unwrap_or("").into()
}

fn text(value: &Value) -> String {
    let mut out = String::new();
    show(value, &[], &mut out);
    out
}

fn one<'a>(name: &str, args: &'a [Value]) -> Result<&'a Value, String> {
    match args {
        [value] => Ok(value),
        _ => Err(format!("`{name}` wants one argument, and has {}", args.len())),
    }
}

fn joined(args: &[Value]) -> String {
    args.iter().map(text).collect()
}

/// As Go's `print`: a blank between two where neither is text.
fn printed(args: &[Value]) -> String {
    let mut out = String::new();
    for (at, value) in args.iter().enumerate() {
        if at > 0 && !value.is_string() && !args[at - 1].is_string() {
            out.push(' ');
        }
        show(value, &[], &mut out);
    }
    out
}

fn spaced(args: &[Value]) -> String {
    args.iter().map(text).collect::<Vec<_>>().join(" ")
}

fn ordering(one: &Value, other: &Value) -> Option<Ordering> {
    match (one, other) {
        (Value::Number(one), Value::Number(other)) => match (one.as_i64(), other.as_i64()) {
            (Some(one), Some(other)) => Some(one.cmp(&other)),
            _ => one.as_f64()?.partial_cmp(&other.as_f64()?),
        },
        (Value::String(one), Value::String(other)) => Some(one.cmp(other)),
        _ => (one == other).then_some(Ordering::Equal),
    }
}

/// Whether the first equals any of the others (or, for `ne`, does not equal the second).
fn compare(args: &[Value], holds: fn(Option<Ordering>) -> bool) -> Result<Value, String> {
    let (first, others) = args.split_first().filter(|(_, others)| !others.is_empty()).ok_or("a comparison wants two arguments")?;
    Ok(Value::Bool(others.iter().any(|other| holds(ordering(first, other)))))
}

fn order(args: &[Value], holds: fn(Ordering) -> bool) -> Result<Value, String> {
    let [one, other] = args else { return Err("a comparison wants two arguments".to_owned()) };
    let plain = |value: &Value| value.is_string() || value.is_number();
    match ordering(one, other).filter(|_| plain(one)) {
        Some(found) => Ok(Value::Bool(holds(found))),
        None => Err(format!("`{}` and `{}` cannot be compared", text(one), text(other))),
    }
}

fn length(args: &[Value]) -> Result<Value, String> {
    Ok(match one("len", args)? {
        Value::String(text) => text.len(),
        Value::Array(list) => list.len(),
        Value::Object(fields) => fields.len(),
        Value::Null => 0,
        other => return Err(format!("`{other}` has no length")),
    }
    .into())
}

fn index(args: &[Value]) -> Result<Value, String> {
    let (first, keys) = args.split_first().ok_or("`index` wants arguments")?;
    let mut at = first;
    for key in keys {
        at = match (at, key) {
            (Value::Array(list), Value::Number(number)) => {
                let index = number.as_u64().and_then(|index| usize::try_from(index).ok());
                index
                    .and_then(|index| list.get(index))
                    .ok_or_else(|| format!("there is no element {number} in a list of {}", list.len()))?
            }
            // Without the key Go gives what is empty.
            (Value::Object(fields), Value::String(name)) => match fields.get(name) {
                Some(value) => value,
                None => return Ok(Value::String(String::new())),
            },
            (Value::Null, _) => return Err("`index` of nothing: the value is not there".to_owned()),
            (_, key) => return Err(format!("`index` cannot take `{}` of this value", text(key))),
        };
    }
    Ok(at.clone())
}

fn slice(args: &[Value]) -> Result<Value, String> {
    let (first, bounds) = args.split_first().ok_or("`slice` wants arguments")?;
    let bounds = bounds.iter().map(|bound| bound.as_u64().and_then(|bound| usize::try_from(bound).ok())).collect::<Option<Vec<_>>>();
    let bounds = bounds.ok_or("the bounds of `slice` are whole numbers")?;
    let (start, end) = (bounds.first().copied().unwrap_or(0), bounds.get(1).copied());
    let found = match first {
        Value::String(text) => text.get(start..end.unwrap_or(text.len())).map(Value::from),
        Value::Array(list) => list.get(start..end.unwrap_or(list.len())).map(|part| Value::Array(part.to_vec())),
        _ => None,
    };
    found.ok_or_else(|| "`slice` is out of bounds".to_owned())
}

fn join(args: &[Value]) -> Result<Value, String> {
    match args {
        [Value::Array(list), separator] => Ok(list.iter().map(text).collect::<Vec<_>>().join(&text(separator)).into()),
        [Value::Null, _] => Ok("".into()),
        _ => Err("`join` wants a list and a separator".to_owned()),
    }
}

fn split(args: &[Value]) -> Result<Value, String> {
    match args {
        [Value::String(text), Value::String(separator)] if separator.is_empty() => {
            Ok(text.chars().map(|c| Value::from(c.to_string())).collect())
        }
        [Value::String(text), Value::String(separator)] => Ok(text.split(separator.as_str()).map(Value::from).collect()),
        _ => Err("`split` wants a text and a separator".to_owned()),
    }
}

fn pad(args: &[Value]) -> Result<Value, String> {
    match args {
        [Value::String(text), _, _] if text.is_empty() => Ok("".into()),
        [value, Value::Number(before), Value::Number(after)] => {
            let blanks = |number: &serde_json::Number| " ".repeat(number.as_u64().unwrap_or(0).min(1 << 16) as usize);
            Ok(format!("{}{}{}", blanks(before), text(value), blanks(after)).into())
        }
        _ => Err("`pad` wants a text and two numbers".to_owned()),
    }
}

fn truncate(args: &[Value]) -> Result<Value, String> {
    match args {
        [value, Value::Number(limit)] => Ok(text(value).chars().take(limit.as_u64().unwrap_or(0) as usize).collect::<String>().into()),
        _ => Err("`truncate` wants a text and a number".to_owned()),
    }
}

fn title(text: &str) -> String {
    let mut start = true;
    let upper = |c: char| c.to_uppercase().next().unwrap_or(c);
    text.chars()
        .map(|c| {
            let shown = if start { upper(c) } else { c };
            start = !c.is_alphanumeric() && c != '_' && c != '\'';
            shown
        })
        .collect()
}

mod printf {
    //! `printf`: the verbs that scripts use.

    use serde_json::Value;

    use super::text;

    /// Text with values in it, as Go's `fmt.Sprintf`.
    pub(super) fn printf(args: &[Value]) -> Result<String, String> {
        let Some((Value::String(format), values)) = args.split_first() else { return Err("`printf` wants a text first".to_owned()) };
        let mut values = values.iter();
        let (mut out, mut chars) = (String::new(), format.chars().peekable());
        while let Some(c) = chars.next() {
            if c != '%' {
                out.push(c);
                continue;
            }
            let mut flags = String::new();
            while let Some(flag) = chars.next_if(|c| "-+# 0123456789.".contains(*c)) {
                flags.push(flag);
            }
            match chars.next() {
                Some('%') => out.push('%'),
                Some(verb) => match values.next() {
                    Some(value) => out.push_str(&padded(&flags, &shown(verb, &flags, value)?)),
                    None => out.push_str(&format!("%!{verb}(MISSING)")),
                },
                None => out.push_str("%!(NOVERB)"),
            }
        }
        Ok(out)
    }

    fn shown(verb: char, flags: &str, value: &Value) -> Result<String, String> {
        let precision = flags.split_once('.').and_then(|(_, digits)| digits.parse::<usize>().ok());
        Ok(match verb {
            's' => text(value).chars().take(precision.unwrap_or(usize::MAX)).collect(),
            'v' | 'd' | 't' => text(value),
            'q' => Value::String(text(value)).to_string(),
            'x' => match value.as_i64() {
                Some(number) => format!("{number:x}"),
                None => text(value).bytes().map(|byte| format!("{byte:02x}")).collect(),
            },
            'f' => format!("{:.*}", precision.unwrap_or(6), value.as_f64().ok_or_else(|| format!("`{}` is not a number", text(value)))?),
            other => return Err(format!("`printf` does not know `%{other}`")),
        })
    }

    fn padded(flags: &str, text: &str) -> String {
        let (left, flags) = (flags.contains('-'), flags.trim_start_matches(['-', '+', '#', ' ']));
        let zeros = flags.starts_with('0');
        let width: usize = flags.split('.').next().and_then(|digits| digits.parse().ok()).unwrap_or(0).min(1 << 16);
        let blanks = width.saturating_sub(text.chars().count());
        match (left, zeros) {
            (true, _) => format!("{text}{}", " ".repeat(blanks)),
            (false, true) => match text.strip_prefix('-') {
                Some(digits) => format!("-{}{digits}", "0".repeat(blanks)),
                None => format!("{}{text}", "0".repeat(blanks)),
            },
            (false, false) => format!("{}{text}", " ".repeat(blanks)),
        }
    }
}
