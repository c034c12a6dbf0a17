//! `--format`: JSON, or a template of `{{.Field}}` and `{{json .Field}}` over the same values. Nothing more of Go's templates.

use serde_json::Value;

use crate::engine::Error;

/// How results are written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Format {
    /// One JSON value a line.
    Json,
    /// Text with fields in it.
    Template(Vec<Part>),
}

/// A piece of a template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// Text as it is.
    Text(String),
    /// A field, by the names that lead to it; none is the whole.
    Field(Vec<String>),
    /// The same as JSON.
    Json(Vec<String>),
}

/// Reads `--format`, for clap.
pub(super) fn format(text: &str) -> Result<Format, String> {
    match text {
        "json" => Ok(Format::Json),
        _ if text.starts_with("table") => Err("a table of one's own is not supported: leave `table` out".to_owned()),
        _ => template(text).map(Format::Template),
    }
}

fn template(text: &str) -> Result<Vec<Part>, String> {
    let mut parts = Vec::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("{{") {
        if !before.is_empty() {
            parts.push(Part::Text(unescape(before)));
        }
        let (action, after) = after.split_once("}}").ok_or_else(|| format!("`{{{{{after}` is not closed by `}}}}`"))?;
        parts.push(self::action(action.trim_matches('-').trim())?);
        rest = after;
    }
    if !rest.is_empty() {
        parts.push(Part::Text(unescape(rest)));
    }
    if !parts.iter().any(|part| !matches!(part, Part::Text(_))) {
        return Err("expected `json`, or a template such as `{{.ID}}`".to_owned());
    }
    Ok(parts)
}

fn action(action: &str) -> Result<Part, String> {
    let (make, path): (fn(Vec<String>) -> Part, &str) = match action.strip_prefix("json") {
        Some(path) if path.starts_with([' ', '\t']) => (Part::Json, path.trim()),
        _ => (Part::Field, action),
    };
    let names = path.strip_prefix('.').filter(|names| !names.contains([' ', '|', '(', '"', '$']));
    let names = names.ok_or_else(|| format!("`{{{{{action}}}}}` is not supported: expected `{{{{.Field}}}}` or `{{{{json .Field}}}}`"))?;
    Ok(make(names.split('.').filter(|name| !name.is_empty()).map(str::to_owned).collect()))
}

/// `\t` and `\n` as the shell leaves them in single quotes.
fn unescape(text: &str) -> String {
    text.replace("\\t", "\t").replace("\\n", "\n")
}

impl Format {
    /// Writes one value.
    ///
    /// # Errors
    /// A field that the value does not have.
    pub(super) fn render(&self, value: &Value) -> Result<String, Error> {
        let parts = match self {
            Format::Json => return Ok(value.to_string()),
            Format::Template(parts) => parts,
        };
        let mut out = String::new();
        for part in parts {
            match part {
                Part::Text(text) => out.push_str(text),
                Part::Field(path) => plain(find(value, path)?, &mut out),
                Part::Json(path) => out.push_str(&find(value, path)?.to_string()),
            }
        }
        Ok(out)
    }
}

fn find<'a>(value: &'a Value, path: &[String]) -> Result<&'a Value, Error> {
    let mut at = value;
    for (depth, name) in path.iter().enumerate() {
        at = at.get(name).ok_or_else(|| {
            let fields: Vec<&str> = at.as_object().map(|object| object.keys().map(String::as_str).collect()).unwrap_or_default();
            let place = if depth == 0 { String::new() } else { format!(" in `.{}`", path[..depth].join(".")) };
            let hint = if fields.is_empty() { "it has no fields".to_owned() } else { format!("the fields are {}", fields.join(", ")) };
            Error::Usage { message: format!("there is no field `{name}`{place}"), hint: Some(hint) }
        })?;
    }
    Ok(at)
}

/// A value as Go prints it: `text`, `[a b]`, `map[key:value]`.
fn plain(value: &Value, out: &mut String) {
    match value {
        Value::Null => out.push_str("<no value>"),
        Value::String(text) => out.push_str(text),
        Value::Array(values) => {
            out.push('[');
            for (at, value) in values.iter().enumerate() {
                if at > 0 {
                    out.push(' ');
                }
                plain(value, out);
            }
            out.push(']');
        }
        Value::Object(fields) => {
            out.push_str("map[");
            for (at, (name, value)) in fields.iter().enumerate() {
                if at > 0 {
                    out.push(' ');
                }
                out.push_str(name);
                out.push(':');
                plain(value, out);
            }
            out.push(']');
        }
        other => out.push_str(&other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[track_caller]
    fn check(text: &str, expected: &str) {
        let value = json!({ "ID": "12ab", "Size": 7, "Config": { "Cmd": ["sh", "-c"], "User": null } });
        assert_eq!(format(text).unwrap().render(&value).unwrap(), expected);
    }

    #[test]
    fn templates_show_fields() {
        check("{{.ID}}", "12ab");
        check("{{ .ID }}:{{.Size}}\\t!", "12ab:7\t!");
        check("{{.Config.Cmd}} {{.Config.User}}", "[sh -c] <no value>");
        check("{{json .Config.Cmd}}", r#"["sh","-c"]"#);
        check("{{json .}}", r#"{"ID":"12ab","Size":7,"Config":{"Cmd":["sh","-c"],"User":null}}"#);
    }

    #[test]
    fn what_is_not_supported_is_refused() {
        for text in ["", "table", "{{.ID", "{{range .Config}}", "{{index .Config 0}}", "{{.ID | upper}}"] {
            assert!(format(text).is_err(), "{text}");
        }
    }

    #[test]
    fn an_unknown_field_is_an_error_that_lists_the_fields() {
        let Format::Template(parts) = format("{{.Nmae}}").unwrap() else { panic!("a template") };
        let error = Format::Template(parts).render(&json!({ "Name": 1, "Tag": 2 })).unwrap_err();
        assert_eq!(error.hint().unwrap(), "the fields are Name, Tag");
    }
}
