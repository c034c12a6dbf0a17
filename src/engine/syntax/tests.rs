//! The tree that tools see is pinned: by a file that holds every instruction and flag, and by the documentation of its fields.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::parse_source;
use crate::diag::SourceFile;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/syntax")
}

fn tree(text: &str) -> Value {
    serde_json::to_value(parse_source(&SourceFile::new("Dockerfile", text)).tree).unwrap()
}

fn golden(name: &str) {
    let text = std::fs::read_to_string(folder().join(format!("{name}.Dockerfile"))).unwrap();
    let actual = serde_json::to_string_pretty(&tree(&text)).unwrap() + "\n";
    let path = folder().join(format!("{name}.json"));
    if std::env::var_os("STRAKE_ACCEPT").is_some() {
        std::fs::write(&path, &actual).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(expected == actual, "{} is not what the parser makes:\n{actual}", path.display());
}

#[test]
fn every_instruction_and_flag_has_the_documented_shape() {
    golden("everything");
}

#[test]
fn mistakes_stand_beside_the_tree() {
    golden("mistakes");
}

#[test]
fn the_golden_file_holds_every_instruction_and_flag() {
    let text = std::fs::read_to_string(folder().join("everything.Dockerfile")).unwrap();
    let tree = tree(&text).to_string();
    let keywords =
        "FROM RUN CMD LABEL MAINTAINER EXPOSE ENV ADD COPY ENTRYPOINT VOLUME USER WORKDIR ARG ONBUILD STOPSIGNAL HEALTHCHECK SHELL";
    for keyword in keywords.split(' ') {
        assert!(tree.contains(&format!("\"keyword\":\"{keyword}\"")), "{keyword}");
    }
    let flags = "platform mount network security device from chown chmod link parents exclude checksum keep-git-dir unpack interval timeout start-period \
                 start-interval retries";
    for flag in flags.split_whitespace() {
        assert!(tree.contains(&format!("\"name\":\"{flag}\"")), "--{flag}");
    }
}

/// Every path of field names in `value`; elements of arrays are `[]`.
fn fields(value: &Value, path: &str, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields_of) => {
            for (name, value) in fields_of {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                found.insert(path.clone());
                fields(value, &path, found);
            }
        }
        Value::Array(values) => values.iter().for_each(|value| fields(value, path, found)),
        _ => {}
    }
}

/// The same with the places that hold instructions, spans and so on under the one name that the documentation has for them.
fn documented_names(found: BTreeSet<String>) -> BTreeSet<String> {
    let types = [
        ("stages.from", "instruction"),
        ("stages.instructions", "instruction"),
        ("global_args", "instruction"),
        ("directives.syntax", "directive"),
        ("directives.check", "directive"),
        ("instruction.trigger.instruction", "instruction"),
        ("instruction.flags", "flag"),
        ("instruction.pairs", "pair"),
        ("instruction.heredocs", "heredoc"),
        ("instruction.trigger", "trigger"),
        ("diagnostics.suggestion", "suggestion"),
        ("diagnostics.related", "related"),
        ("stages", "stage"),
        ("diagnostics", "diagnostic"),
        ("directives", "directives"),
    ];
    let rename = |path: String| {
        let mut path = path;
        for (place, name) in types {
            if let Some(rest) = path.strip_prefix(place).filter(|rest| rest.starts_with('.')) {
                path = format!("{name}{rest}");
            }
        }
        match path.split_once(".span.") {
            Some((_, end)) => format!("span.{end}"),
            None if path.contains('.') => path,
            None => format!("file.{path}"),
        }
    };
    found.into_iter().map(rename).filter(|path| !path.starts_with("instruction.trigger.instruction.")).collect()
}

/// The fields that the tables of `docs/parse.md` list, as `object.field`: each object is a heading.
fn documented() -> BTreeSet<String> {
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/parse.md")).unwrap();
    let mut object = String::new();
    let mut found = BTreeSet::new();
    for line in text.lines() {
        if let Some(heading) = line.strip_prefix("### ") {
            object = heading.trim_matches('`').to_owned();
        } else if let Some(row) = line.strip_prefix("| `") {
            found.insert(format!("{object}.{}", row.split('`').next().unwrap_or_default()));
        }
    }
    found
}

#[test]
fn the_documentation_lists_the_fields_that_there_are_and_no_others() {
    let mut found = BTreeSet::new();
    for name in ["everything", "mistakes"] {
        let text = std::fs::read_to_string(folder().join(format!("{name}.Dockerfile"))).unwrap();
        fields(&tree(&text), "", &mut found);
    }
    let (documented, made) = (documented(), documented_names(found));
    let missing: Vec<_> = made.difference(&documented).collect();
    let stale: Vec<_> = documented.difference(&made).collect();
    assert!(missing.is_empty() && stale.is_empty(), "not documented: {missing:?}; documented and not there: {stale:?}");
}

#[test]
fn lines_are_those_of_the_first_and_the_last_byte() {
    let tree = tree("FROM a\nRUN <<EOF\nx\nEOF\n\nRUN a \\\n  b\r\n");
    let stage = &tree["stages"][0];
    let lines = |index: usize| {
        let node = &stage["instructions"][index];
        (node["start_line"].as_u64().unwrap(), node["end_line"].as_u64().unwrap())
    };
    assert_eq!((lines(0), lines(1)), ((2, 4), (6, 7)));
    assert_eq!((&stage["start_line"], &stage["end_line"]), (&Value::from(1), &Value::from(7)));
}

#[test]
fn flags_keep_their_order_and_lose_their_quotes() {
    let tree = tree("FROM a\nCOPY --link --chown='1:2' --from=x \\\n --exclude=\"a b\" [\"s p\", \"/d\"]\n");
    let node = &tree["stages"][0]["instructions"][0];
    let flags: Vec<(&str, Option<&str>)> =
        node["flags"].as_array().unwrap().iter().map(|flag| (flag["name"].as_str().unwrap(), flag["value"].as_str())).collect();
    assert_eq!(flags, [("link", None), ("chown", Some("1:2")), ("from", Some("x")), ("exclude", Some("a b"))]);
    assert_eq!((node["form"].as_str(), &node["arguments"]), (Some("exec"), &serde_json::json!(["s p", "/d"])));
}

#[test]
fn blank_lines_behind_a_last_continuation_belong_to_the_instruction() {
    for (text, last) in [
        ("FROM a\nRUN a \\\n\n", 3),
        ("FROM a\nRUN a \\\n   ", 3),
        ("FROM a\nRUN a \\\n# x\n\n", 4),
        ("FROM a\nRUN a \\\n\n\n\n", 5),
        ("FROM a\r\nRUN a \\\r\n\r\n", 3),
        ("FROM a\nRUN a \\\n", 2),
        ("FROM a\nRUN a\n\n", 2),
    ] {
        let tree = tree(text);
        let stage = &tree["stages"][0];
        assert_eq!((&stage["end_line"], &stage["instructions"][0]["end_line"]), (&last.into(), &last.into()), "{text:?}");
    }
}

#[test]
fn what_a_health_check_is_keeps_its_spelling() {
    let tree = tree("FROM a\nHEALTHCHECK none\nHEALTHCHECK Cmd [\"x\"]\n");
    let arguments = |index: usize| tree["stages"][0]["instructions"][index]["arguments"].clone();
    assert_eq!((arguments(0), arguments(1)), (serde_json::json!(["none"]), serde_json::json!(["Cmd", "x"])));
}
