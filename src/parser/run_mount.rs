//! `RUN --mount`: fields as in CSV, `key=value` each.
//!
//! The values may hold variables, so that a mount is read twice: with the file, as far as it can be ([`RunMount::check`]), and by the graph once the
//! variables are known ([`RunMount::resolve`]). Fields are split before values are expanded: a comma in a value adds no field.

use std::borrow::Cow;
use std::ops::Range;

use nom::branch::alt;
use nom::bytes::complete::{tag, take_till, take_while1};
use nom::character::complete::{char, one_of};
use nom::combinator::{all_consuming, consumed, map, opt, recognize, value};
use nom::multi::{fold_many0, separated_list1};
use nom::sequence::delimited;
use nom::{IResult, Parser};

use crate::diag::{Diagnostic, SourceFile, Span, Spanned, did_you_mean};

use super::ast::{CacheSharing, RunMount, RunMountKind, Word};
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

/// Gives the value of a field, expanded; `None` where it is not known yet.
type Expand<'e> = &'e mut dyn for<'v> FnMut(&'v str) -> Result<Option<Cow<'v, str>>, ExpandError>;

impl RunMount {
    /// Reads the value of a `--mount` flag; `expand` replaces the variables of one value. `from` is never expanded.
    pub fn resolve(
        flag: &Word,
        file: &SourceFile,
        expand: &mut dyn FnMut(&str) -> Result<String, ExpandError>,
    ) -> Result<RunMount, Box<Diagnostic>> {
        let fields = Fields::read(flag, file, &mut |value| expand(value).map(|value| Some(Cow::Owned(value))))?;
        fields.mount()
    }

    /// Checks a flag as far as that is possible before the variables are known.
    pub(super) fn check(flag: &Word, file: &SourceFile) -> Result<(), Box<Diagnostic>> {
        let mut deferred = false;
        let fields = Fields::read(flag, file, &mut |value| {
            let plain = !value.contains(['$', '\'', '"', '\\', '`']);
            deferred |= !plain;
            Ok(plain.then_some(Cow::Borrowed(value)))
        })?;
        if !deferred {
            fields.mount()?;
        }
        Ok(())
    }
}

/// The fields of a mount, by meaning.
struct Fields<'a> {
    flag: &'a Word,
    file: &'a SourceFile,
    /// Whether the flag's text is what the file holds, byte for byte.
    verbatim: bool,
    kind: &'static str,
    values: Vec<Field<'a>>,
}

/// One field.
struct Field<'a> {
    /// The key, in lower case and under its first name.
    key: &'static str,
    /// The value; `None` for a key without `=`.
    value: Option<Cow<'a, str>>,
    /// The bytes of the flag.
    span: Span,
}

impl Field<'_> {
    fn into_owned(self) -> Field<'static> {
        Field { value: self.value.map(|value| Cow::Owned(value.into_owned())), ..self }
    }
}

type Outcome<T> = Result<T, Box<Diagnostic>>;

impl<'a> Fields<'a> {
    fn read(flag: &'a Word, file: &'a SourceFile, expand: Expand<'_>) -> Outcome<Fields<'a>> {
        let mut fields = Fields { flag, file, verbatim: file.slice(flag.span) == flag.text, kind: "bind", values: Vec::new() };
        let Ok((_, written)) = all_consuming(separated_list1(char(','), field)).parse(&flag.text) else {
            return Err(fields.error(flag.span, "the quotes of this mount do not match"));
        };
        for (source, text) in written {
            let start = source.as_ptr() as usize - flag.text.as_ptr() as usize;
            let range = start..start + source.len();
            let field = match text {
                Cow::Borrowed(text) => fields.field(range, text, expand)?,
                Cow::Owned(text) => fields.field(range, &text, expand)?.map(Field::into_owned),
            };
            fields.values.extend(field);
        }
        Ok(fields)
    }

    /// Reads one field; nothing where its value is unknown.
    fn field<'t>(&mut self, range: Range<usize>, text: &'t str, expand: Expand<'_>) -> Outcome<Option<Field<'t>>> {
        let span = self.span(range.clone());
        let (key, value) = text.split_once('=').map_or((text, None), |(key, value)| (key, Some(value)));
        let key = self.key(key, span)?;
        // Quotes around a field hide where exactly its value stands.
        let value_span = match value {
            Some(value) if self.flag.text.get(range.clone()) == Some(text) => self.span(range.end - value.len()..range.end),
            _ => span,
        };
        let value = match value {
            None if matches!(key, "ro" | "rw" | "required") => None,
            None => return Err(self.error(span, format!("`{text}` needs a value")).map_hint(format!("write `{text}=…`"))),
            Some(value) if key == "from" => {
                if value.contains('$') {
                    let hint = "begin a stage with `FROM $NAME AS stage`, and mount from that stage";
                    return Err(self.error(value_span, "variables are not expanded in `from`").map_hint(hint));
                }
                Some(Cow::Borrowed(value))
            }
            Some(value) => match expand(value) {
                Ok(Some(value)) => Some(value),
                Ok(None) => return Ok(None),
                Err(error) => return Err(self.error(value_span, error.message)),
            },
        };
        if let ("type", Some(value)) = (key, &value) {
            self.kind = self.choice("type of mount", value, &TYPES, value_span)?;
        }
        Ok(Some(Field { key, value, span }))
    }

    fn key(&self, written: &str, span: Span) -> Outcome<&'static str> {
        let known = KEYS.into_iter().find(|key| key.eq_ignore_ascii_case(written));
        let Some(key) = known else {
            let lower = written.to_ascii_lowercase();
            let mut diagnostic = self.error(span, format!("unknown key `{written}` in `--mount`"));
            if let Some(near) = did_you_mean(&lower, KEYS).filter(|_| !written.is_empty()) {
                diagnostic = diagnostic.map_hint(format!("did you mean `{near}`?"));
            }
            return Err(diagnostic);
        };
        Ok(match key {
            "src" => "source",
            "dst" | "destination" => "target",
            "readonly" => "ro",
            "readwrite" => "rw",
            key => key,
        })
    }

    /// The mount, once all values are known.
    fn mount(&self) -> Outcome<RunMount> {
        for field in &self.values {
            self.check_allowed(field)?;
        }
        let target = self.text("target");
        if let Some(field) = self.last("target").filter(|field| field.value.as_deref().is_some_and(is_root)) {
            return Err(self.error(field.span, "the root directory cannot be the target of a mount"));
        }
        let kind = match self.kind {
            "cache" => self.cache()?,
            "tmpfs" => RunMountKind::Tmpfs { size: self.parsed("size", size)? },
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
        Ok(RunMount { kind, target, span: self.flag.span })
    }

    fn cache(&self) -> Outcome<RunMountKind> {
        let sharing = match self.last("sharing") {
            None => CacheSharing::Shared,
            Some(field) => {
                match self.choice("sharing", field.value.as_deref().unwrap_or(""), &["shared", "private", "locked"], field.span)? {
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
            return Err(self.error(field.span, "a secret has an `id` or a `source`, not both"));
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

    /// Refuses keys that mean nothing for the type of the mount.
    fn check_allowed(&self, field: &Field<'_>) -> Outcome<()> {
        let allowed = match field.key {
            "mode" | "uid" | "gid" => matches!(self.kind, "cache" | "secret" | "ssh"),
            "required" => matches!(self.kind, "secret" | "ssh"),
            "env" => self.kind == "secret",
            "size" => self.kind == "tmpfs",
            "sharing" => self.kind == "cache",
            "from" => matches!(self.kind, "bind" | "cache" | "tmpfs"),
            "source" => self.kind != "ssh",
            _ => true,
        };
        if allowed {
            return Ok(());
        }
        Err(self.error(field.span, format!("`{}` means nothing for a mount of type `{}`", field.key, self.kind)))
    }

    fn last(&self, key: &str) -> Option<&Field<'_>> {
        self.values.iter().rev().find(|field| field.key == key)
    }

    fn text(&self, key: &str) -> Option<String> {
        self.last(key)?.value.as_deref().filter(|value| !value.is_empty()).map(str::to_owned)
    }

    fn from(&self) -> Option<Spanned<String>> {
        let field = self.last("from")?;
        let value = field.value.as_deref().filter(|value| !value.is_empty())?;
        let start = field.span.end - value.len().min(field.span.end - field.span.start);
        let span = if self.file.slice(Span::new(start, field.span.end)) == value { Span::new(start, field.span.end) } else { field.span };
        Some(Spanned::new(value.to_owned(), span))
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

    fn boolean(&self, field: &Field<'_>) -> Outcome<bool> {
        let Some(value) = &field.value else { return Ok(true) };
        boolean(value).ok_or_else(|| self.error(field.span, format!("`{}` is true or false, not `{value}`", field.key)))
    }

    fn parsed<T>(&self, key: &str, parse: fn(&str) -> Option<T>) -> Outcome<Option<T>> {
        let Some(field) = self.last(key) else { return Ok(None) };
        let value = field.value.as_deref().unwrap_or_default();
        parse(value).map(Some).ok_or_else(|| self.error(field.span, format!("`{value}` is no value for `{key}`")))
    }

    fn choice(&self, what: &str, value: &str, choices: &[&'static str], span: Span) -> Outcome<&'static str> {
        if let Some(choice) = choices.iter().find(|choice| choice.eq_ignore_ascii_case(value)) {
            return Ok(choice);
        }
        let lower = value.to_ascii_lowercase();
        let mut diagnostic = self.error(span, format!("unknown {what} `{value}`"));
        diagnostic = match did_you_mean(&lower, choices.iter().copied()) {
            Some(near) => diagnostic.map_hint(format!("did you mean `{near}`?")),
            None => diagnostic.map_hint(format!("it is one of {}", choices.join(", "))),
        };
        Err(diagnostic)
    }

    /// Where a part of the flag stands; the whole flag where quotes or continuations hide the place.
    fn span(&self, range: Range<usize>) -> Span {
        let flag = self.flag.span;
        if !self.verbatim {
            return flag;
        }
        Span::new(flag.start + range.start, flag.start + range.end)
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
fn field(input: &str) -> IResult<&str, (&str, Cow<'_, str>)> {
    if input.starts_with('"')
        && let Ok((rest, (written, text))) = consumed(quoted).parse(input)
    {
        return Ok((rest, (written, Cow::Owned(text))));
    }
    map(take_till(|c| c == ','), |written| (written, Cow::Borrowed(written))).parse(input)
}

fn quoted(input: &str) -> IResult<&str, String> {
    let part = alt((take_while1(|c| c != '"'), value("\"", tag("\"\""))));
    delimited(char('"'), fold_many0(part, String::new, |text: String, part| text + part), char('"')).parse(input)
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

/// A size in bytes: a number, perhaps with a fraction, and a binary unit.
fn size(text: &str) -> Option<u64> {
    let digits = |input| take_while1(|c: char| c.is_ascii_digit()).parse(input);
    let number = recognize((digits, opt((char('.'), digits))));
    let unit = (opt(one_of("kKmMgGtTpP")), opt(one_of("iI")), opt(one_of("bB")));
    let parsed: IResult<&str, _> = all_consuming((number, opt(char(' ')), unit)).parse(text);
    let (_, (number, _, (unit, infix, _))) = parsed.ok()?;
    let power = match unit.map(|unit| unit.to_ascii_lowercase()) {
        None if infix.is_some() => return None,
        None => 0,
        Some('k') => 1,
        Some('m') => 2,
        Some('g') => 3,
        Some('t') => 4,
        Some(_) => 5,
    };
    let factor = 1u64 << (10 * power);
    match number.parse::<u64>() {
        Ok(whole) => whole.checked_mul(factor),
        Err(_) => {
            let bytes = number.parse::<f64>().ok()? * factor as f64;
            (bytes < 9.0e18).then_some(bytes as u64)
        }
    }
}
