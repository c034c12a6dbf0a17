//! `RUN --mount`: fields as in CSV, `key=value` each.
//!
//! A mount is read twice. With the file, only what never depends on variables is checked ([`RunMount::check`]): the quotes, and that `from` holds no variable.
//! The rest is read by the graph, for the stages that are built, once the variables are known ([`RunMount::resolve`]): so BuildKit does it, and a mistake in a
//! stage that nothing needs is none. Fields are split before values are expanded: a comma in a value adds no field.

use std::ops::Range;

use nom::branch::alt;
use nom::bytes::complete::{tag, take_while, take_while1};
use nom::character::complete::char;
use nom::combinator::{consumed, map, value};
use nom::multi::{fold_many0, separated_list1};
use nom::sequence::delimited;
use nom::{IResult, Parser};

use crate::diag::{Diagnostic, SourceFile, Span, Spanned, did_you_mean};

use super::ast::{CacheSharing, RunMount, RunMountKind, Text, Word};
use super::expand::ExpandError;

const KEYS: [&str; 19] = [
    "type",
    "from",
    "source",
    "src",
    "target",
    "dst",
    "destination",
    "readonly",
    "ro",
    "readwrite",
    "rw",
    "id",
    "sharing",
    "required",
    "mode",
    "uid",
    "gid",
    "size",
    "env",
];
const TYPES: [&str; 5] = ["bind", "cache", "tmpfs", "secret", "ssh"];

/// Gives the value of a field, expanded.
type Expand<'e> = &'e mut dyn FnMut(&str) -> Result<String, ExpandError>;

impl RunMount {
    /// Reads the value of a `--mount` flag; `expand` replaces the variables of one value.
    pub fn resolve(
        flag: &Word,
        file: &SourceFile,
        expand: &mut dyn FnMut(&str) -> Result<String, ExpandError>,
    ) -> Result<RunMount, Box<Diagnostic>> {
        let mut fields = Fields::new(flag, file);
        for (range, text) in fields.split()? {
            fields.field(range, &text, expand)?;
        }
        fields.mount()
    }

    /// As [`RunMount::resolve`] of a mount without variables; with variables, nothing can be told.
    pub(super) fn preview(flag: &Word, file: &SourceFile) -> Result<(), Box<Diagnostic>> {
        if flag.text.contains('$') {
            return Ok(());
        }
        RunMount::resolve(flag, file, &mut |text| Ok(text.to_owned())).map(|_| ())
    }

    /// Checks what a build looks at before it comes to the step: that the fields can be told apart, and that `from` holds no variables.
    pub(super) fn check(flag: &Word, file: &SourceFile) -> Result<(), Box<Diagnostic>> {
        let fields = Fields::new(flag, file);
        for (range, text) in fields.split()? {
            if let Some((key, value)) = text.split_once('=').filter(|(key, _)| key.eq_ignore_ascii_case("from")) {
                fields.check_from(&range, key, value)?;
            }
        }
        Ok(())
    }
}

/// The fields of a line of CSV (RFC 4180, as Go reads it), each with how it is written; and what could not be read.
fn list(line: &str) -> (&str, Vec<(&str, String)>) {
    separated_list1(char(','), field).parse(line).unwrap_or((line, Vec::new()))
}

/// The fields of a line of CSV; `None` where its quotes do not match, or it is empty.
pub(super) fn fields(line: &str) -> Option<Vec<String>> {
    let (rest, fields) = list(line);
    (rest.is_empty() && !line.is_empty()).then(|| fields.into_iter().map(|(_, field)| field).collect())
}

/// The fields of a mount, by meaning.
struct Fields<'a> {
    flag: &'a Word,
    file: &'a SourceFile,
    kind: &'static str,
    values: Vec<Field>,
}

/// One field.
struct Field {
    /// The key, in lower case and under its first name.
    key: &'static str,
    /// The value; `None` for a key without `=`.
    value: Option<String>,
    /// The bytes of the flag's text.
    range: Range<usize>,
    /// The type of the mount, as far as it was known when the field came.
    kind: &'static str,
}

type Outcome<T> = Result<T, Box<Diagnostic>>;

impl<'a> Fields<'a> {
    fn new(flag: &'a Word, file: &'a SourceFile) -> Fields<'a> {
        Fields { flag, file, kind: "bind", values: Vec::new() }
    }

    /// Takes the flag apart at its commas.
    fn split(&self) -> Outcome<Vec<(Range<usize>, String)>> {
        let text = self.flag.text.as_str();
        if text.is_empty() {
            return Err(self.error(self.flag.span, "a mount needs fields").map_hint("write `--mount=type=…,target=…`"));
        }
        let offset = |part: &str| part.as_ptr() as usize - text.as_ptr() as usize;
        let (rest, written) = list(text);
        if !rest.is_empty() {
            let start = written.last().map_or(0, |(source, _)| offset(source));
            let end = rest.find(',').map_or(text.len(), |comma| offset(rest) + comma);
            let hint = "a quote stands around a whole field, as in `--mount=type=bind,\\\"source=a,b\\\",target=/c`, and is doubled within";
            return Err(self.error(self.span(start..end), "the quotes of this mount do not match").map_hint(hint));
        }
        Ok(written.into_iter().map(|(source, text)| (offset(source)..offset(source) + source.len(), text)).collect())
    }

    /// Adds one field.
    fn field(&mut self, range: Range<usize>, text: &str, expand: Expand<'_>) -> Outcome<()> {
        let (written, value) = text.split_once('=').map_or((text, None), |(key, value)| (key, Some(value)));
        let key = self.key(written, &range)?;
        let value = match value {
            None if matches!(key, "ro" | "rw" | "required") => None,
            None => return Err(self.error(self.span(range), format!("`{text}` needs a value")).map_hint(format!("write `{text}=…`"))),
            Some(value) => {
                if key == "from" {
                    self.check_from(&range, written, value)?;
                }
                Some(expand(value).map_err(|error| self.expansion_error(&range, value, error))?)
            }
        };
        if let ("type", Some(value)) = (key, &value) {
            self.kind = self.choice("type of mount", value, &TYPES, &range)?;
        }
        self.values.push(Field { key, value, range, kind: self.kind });
        Ok(())
    }

    /// Refuses variables in `from`: what a step needs is known before variables are.
    fn check_from(&self, range: &Range<usize>, key: &str, value: &str) -> Outcome<()> {
        if !value.char_indices().any(|(at, c)| c == '$' && at + 1 < value.len()) {
            return Ok(());
        }
        let hint = "begin a stage with `FROM $NAME AS stage`, and mount from that stage";
        Err(self
            .error(self.value_span(range, value), format!("variables are not expanded in `{}`", key.to_ascii_lowercase()))
            .map_hint(hint))
    }

    fn expansion_error(&self, range: &Range<usize>, value: &str, error: ExpandError) -> Box<Diagnostic> {
        let span = match self.is_plain(range, value) {
            true => {
                let start = range.end - value.len();
                self.span(start + error.range.start..start + error.range.end)
            }
            false => self.span(range.clone()),
        };
        let mut diagnostic = self.error(span, error.message);
        diagnostic.hint = error.hint;
        diagnostic
    }

    fn key(&self, written: &str, range: &Range<usize>) -> Outcome<&'static str> {
        let lower = written.to_ascii_lowercase();
        let known = KEYS.into_iter().find(|key| *key == lower);
        let Some(key) = known else { return Err(self.unknown_key(written, &lower, range)) };
        Ok(match key {
            "src" => "source",
            "dst" | "destination" => "target",
            "readonly" => "ro",
            "readwrite" => "rw",
            key => key,
        })
    }

    fn unknown_key(&self, written: &str, lower: &str, range: &Range<usize>) -> Box<Diagnostic> {
        if range.is_empty() {
            return self.error(self.flag.span, "an empty field in `--mount`").map_hint("take away the comma that is too many");
        }
        let mut diagnostic = self.error(self.span(range.clone()), format!("unknown key `{written}` in `--mount`"));
        if let Some(near) = did_you_mean(lower, KEYS).filter(|_| !written.is_empty()) {
            diagnostic = diagnostic.map_hint(format!("did you mean `{near}`?"));
            let key = range.start..range.start + written.len();
            if self.flag.text.get(key.clone()) == Some(written) {
                let span = self.span(key);
                if self.file.slice(span) == written {
                    diagnostic = Box::new(diagnostic.with_suggestion(span, near));
                }
            }
        }
        diagnostic
    }

    /// The mount, once all values are known.
    fn mount(&self) -> Outcome<RunMount> {
        for field in &self.values {
            self.check_allowed(field)?;
        }
        let target = self.text("target");
        if let Some(field) = self.last("target").filter(|field| field.value.as_deref().is_some_and(is_root)) {
            return Err(self.error(self.span(field.range.clone()), "the root directory cannot be the target of a mount"));
        }
        let kind = match self.kind {
            "cache" => self.cache()?,
            "tmpfs" => RunMountKind::Tmpfs { size: self.parsed("size", size)?, read_only: !self.writable()?.unwrap_or(true) },
            "secret" => self.secret(target.as_deref())?,
            "ssh" => RunMountKind::Ssh {
                id: self.text("id"),
                required: self.switch("required")?.unwrap_or(false),
                mode: self.parsed("mode", octal)?,
                uid: self.parsed("uid", number)?,
                gid: self.parsed("gid", number)?,
            },
            _ => RunMountKind::Bind { from: self.from(), source: self.text("source"), writable: self.writable()?.unwrap_or(false) },
        };
        // Switches that mean nothing for the type are checked all the same.
        self.writable()?;
        Ok(RunMount { kind, target, span: self.flag.span })
    }

    fn cache(&self) -> Outcome<RunMountKind> {
        let sharing = match self.last("sharing") {
            None => CacheSharing::Shared,
            Some(field) => {
                match self.choice("sharing", field.value.as_deref().unwrap_or(""), &["shared", "private", "locked"], &field.range)? {
                    "private" => CacheSharing::Private,
                    "locked" => CacheSharing::Locked,
                    _ => CacheSharing::Shared,
                }
            }
        };
        Ok(RunMountKind::Cache {
            id: self.text("id"),
            sharing,
            from: self.from(),
            source: self.text("source"),
            mode: self.parsed("mode", octal)?,
            uid: self.parsed("uid", number)?,
            gid: self.parsed("gid", number)?,
            read_only: !self.writable()?.unwrap_or(true),
        })
    }

    fn secret(&self, target: Option<&str>) -> Outcome<RunMountKind> {
        let (id, source) = (self.text("id"), self.text("source"));
        if let (Some(field), true) = (self.last("source"), id.is_some() && source.is_some()) {
            return Err(self.error(self.span(field.range.clone()), "a secret has an `id` or a `source`, not both"));
        }
        let id = id.or(source);
        if id.is_none() && target.is_none() {
            return Err(self.error(self.flag.span, "a secret needs an `id` or a `target`"));
        }
        Ok(RunMountKind::Secret {
            id,
            env: self.text("env"),
            required: self.switch("required")?.unwrap_or(false),
            mode: self.parsed("mode", octal)?,
            uid: self.parsed("uid", number)?,
            gid: self.parsed("gid", number)?,
        })
    }

    /// Refuses keys that mean nothing for the type of the mount. Those that are just not used (`id` of a bind mount) are let be, as in BuildKit.
    fn check_allowed(&self, field: &Field) -> Outcome<()> {
        let given = field.value.as_deref() != Some("");
        let allowed = |kind: &str| match field.key {
            "mode" | "uid" | "gid" => matches!(kind, "cache" | "secret" | "ssh"),
            "required" => matches!(kind, "secret" | "ssh"),
            "size" => kind == "tmpfs",
            "sharing" => kind == "cache",
            "from" => kind != "secret" || !given,
            "source" => kind != "ssh" || !given,
            _ => true,
        };
        let span = || self.span(field.range.clone());
        if !allowed(self.kind) {
            return Err(self.error(span(), format!("`{}` means nothing for a mount of type `{}`", field.key, self.kind)));
        }
        if matches!(field.key, "required" | "size") && !allowed(field.kind) {
            let hint = format!("write `type={}` first", self.kind);
            return Err(self.error(span(), format!("`{}` stands before the type of the mount", field.key)).map_hint(hint));
        }
        Ok(())
    }

    fn last(&self, key: &str) -> Option<&Field> {
        self.values.iter().rev().find(|field| field.key == key)
    }

    fn text(&self, key: &str) -> Option<String> {
        self.last(key).and_then(|field| field.value.clone()).filter(|value| !value.is_empty())
    }

    fn from(&self) -> Option<Spanned<Text>> {
        let field = self.last("from")?;
        let value = field.value.clone().filter(|value| !value.is_empty())?;
        let span = self.value_span(&field.range, &value);
        Some(Spanned::new(value.into(), span))
    }

    /// What the last of `ro` and `rw` says.
    fn writable(&self) -> Outcome<Option<bool>> {
        let Some(field) = self.values.iter().rev().find(|field| matches!(field.key, "ro" | "rw")) else { return Ok(None) };
        let on = self.boolean(field)?;
        Ok(Some(on == (field.key == "rw")))
    }

    fn switch(&self, key: &str) -> Outcome<Option<bool>> {
        self.last(key).map(|field| self.boolean(field)).transpose()
    }

    fn boolean(&self, field: &Field) -> Outcome<bool> {
        let Some(value) = &field.value else { return Ok(true) };
        boolean(value).ok_or_else(|| self.error(self.field_value_span(field), format!("`{}` is true or false, not `{value}`", field.key)))
    }

    fn parsed<T>(&self, key: &str, parse: fn(&str) -> Option<T>) -> Outcome<Option<T>> {
        let Some(field) = self.last(key) else { return Ok(None) };
        let value = field.value.as_deref().unwrap_or_default();
        parse(value).map(Some).ok_or_else(|| {
            let hint = match key {
                "size" => "write a number of bytes, or one with a unit: `64m`, `1.5GiB`",
                "mode" => "write the mode in octal digits: `0755`",
                _ => "write the ID as a number",
            };
            self.error(self.field_value_span(field), format!("`{value}` is no value for `{key}`")).map_hint(hint)
        })
    }

    fn choice(&self, what: &str, value: &str, choices: &[&'static str], range: &Range<usize>) -> Outcome<&'static str> {
        let lower = value.to_lowercase();
        if let Some(choice) = choices.iter().find(|choice| **choice == lower) {
            return Ok(choice);
        }
        let span = self.value_span(range, value);
        let mut diagnostic = self.error(span, format!("unknown {what} `{value}`"));
        diagnostic = match did_you_mean(&lower, choices.iter().copied()) {
            Some(near) if self.file.slice(span) == value => {
                Box::new(diagnostic.map_hint(format!("did you mean `{near}`?")).with_suggestion(span, near))
            }
            Some(near) => diagnostic.map_hint(format!("did you mean `{near}`?")),
            None => diagnostic.map_hint(format!("it is one of {}", choices.join(", "))),
        };
        Err(diagnostic)
    }

    /// Whether a field is written without quotes of its own and ends in `value`.
    fn is_plain(&self, range: &Range<usize>, value: &str) -> bool {
        let text = &self.flag.text[range.clone()];
        !text.starts_with('"') && text.strip_suffix(value).is_some_and(|key| key.ends_with('='))
    }

    /// Where the value of a field stands; the field where that cannot be told.
    fn value_span(&self, range: &Range<usize>, value: &str) -> Span {
        let start = if !value.is_empty() && self.is_plain(range, value) { range.end - value.len() } else { range.start };
        let span = self.span(start..range.end);
        if start != range.start && self.file.slice(span) != value { self.span(range.clone()) } else { span }
    }

    fn field_value_span(&self, field: &Field) -> Span {
        self.value_span(&field.range, field.value.as_deref().unwrap_or_default())
    }

    /// Where a part of the flag stands. Quotes that were taken out of the flag hide the place, unless the text of the field is still there, just once.
    fn span(&self, range: Range<usize>) -> Span {
        let flag = self.flag.span;
        let written = self.file.slice(flag);
        if written == self.flag.text {
            return Span::new(flag.start() + range.start, flag.start() + range.end);
        }
        // What is looked for is the whole field, since a part of it (such as a value) may stand at more places.
        let text = self.flag.text.as_str();
        let start = text[..range.start].rfind(',').map_or(0, |comma| comma + 1);
        let end = text[range.end..].find(',').map_or(text.len(), |comma| range.end + comma);
        let field = &text[start..end];
        match written.match_indices(field).map(|(at, _)| at).collect::<Vec<_>>().as_slice() {
            [at] if !field.is_empty() => Span::new(flag.start() + at + range.start - start, flag.start() + at + range.end - start),
            _ => flag,
        }
    }

    fn error(&self, span: Span, message: impl Into<String>) -> Box<Diagnostic> {
        Box::new(Diagnostic::error(self.file, span, message))
    }
}

/// Adds hints to boxed diagnostics.
trait MapHint {
    fn map_hint(self, hint: impl Into<String>) -> Self;
}

impl MapHint for Box<Diagnostic> {
    fn map_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

fn is_root(target: &str) -> bool {
    target.starts_with('/') && target.split('/').all(|part| part.is_empty() || part == ".")
}

/// One field of CSV: bare, or in double quotes (doubled to mean themselves); with the bytes it was written in.
fn field(input: &str) -> IResult<&str, (&str, String)> {
    let part = alt((map(take_while1(|c| c != '"'), str::to_owned), value("\"".to_owned(), tag("\"\""))));
    let quoted = fold_many0(part, String::new, |mut text: String, part| {
        text.push_str(&part);
        text
    });
    let bare = take_while(|c| c != ',' && c != '"');
    alt((consumed(delimited(char('"'), quoted, char('"'))), consumed(map(bare, str::to_owned)))).parse(input)
}

/// The spellings of true and false that flags take.
pub(super) fn boolean(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

fn octal(text: &str) -> Option<u32> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| u32::from_str_radix(text, 8).ok()).flatten()
}

fn number(text: &str) -> Option<u32> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}

/// A size in bytes: a number, perhaps with a fraction and a blank behind it, and a binary unit (`k`, `kb`, `kib` in any case, or `b`).
fn size(text: &str) -> Option<u64> {
    let end = text.rfind(|c: char| c.is_ascii_digit() || c == '.' || c == ' ')?;
    let (number, unit) = (&text[..=end], &text[end + 1..]);
    let number = number.strip_suffix(' ').unwrap_or(number);
    let value = number.parse::<f64>().ok().filter(|value| *value >= 0.0 && value.is_finite())?;
    let unit = unit.to_ascii_lowercase();
    let (prefix, rest) = unit.split_at_checked(1).unwrap_or(("", ""));
    let power = match (prefix, rest) {
        ("", _) | ("b", "") => 0,
        (prefix, "" | "b" | "ib") => i32::try_from("kmgtp".find(prefix)?).ok()? + 1,
        _ => return None,
    };
    let bytes = value * 1024f64.powi(power);
    (bytes < (1u64 << 63) as f64).then_some(bytes as u64)
}
