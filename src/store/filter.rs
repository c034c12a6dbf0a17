//! Filters of build cache records, as BuildKit has them: `type==exec.cachemount`, `description~=apt`, `shared`.
//!
//! A field is compared with `=` (or `==`), `!=` or `~=` (a regular expression that may match anywhere); alone it asks whether there is such a field. Whether a
//! record is in use, mutable, immutable, shared or private can also be compared with `true` and `false`. A condition on an unknown field is refused, as it would select nothing.

use std::str::FromStr;

use regex_lite::Regex;

use super::UsageRecord;

/// One condition on a record.
#[derive(Clone, Debug)]
pub struct RecordFilter {
    field: Field,
    test: Test,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Field {
    Id,
    Parents,
    Description,
    Type,
    InUse,
    Mutable,
    Immutable,
    Shared,
    Private,
}

#[derive(Clone, Debug)]
enum Test {
    Present,
    Equal(String),
    Different(String),
    Matches(Regex),
}

/// Why a text is no filter.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordFilterError {
    /// The field is not known.
    #[error("the filter `{0}` is not known: expected until, id, parents, description, inuse, mutable, immutable, shared, private or type")]
    UnknownField(String),
    /// The regular expression cannot be read.
    #[error("`{pattern}` is no regular expression: {reason}")]
    BadPattern {
        /// The expression.
        pattern: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A switch was compared with something else than `true` and `false`.
    #[error("`{0}` is either true or false, and cannot be `{1}`")]
    NotBoolean(String, String),
}

impl FromStr for RecordFilter {
    type Err = RecordFilterError;

    fn from_str(text: &str) -> Result<RecordFilter, RecordFilterError> {
        let Some((name, value)) = text.split_once('=') else {
            return Ok(RecordFilter { field: Field::parse(text)?, test: Test::Present });
        };
        let (field, test) = match (name.strip_suffix('!'), name.strip_suffix('~')) {
            (Some(name), _) => (Field::parse(name)?, Test::Different(value.to_owned())),
            (_, Some(name)) => (Field::parse(name)?, Test::Matches(pattern(value)?)),
            _ => match Field::parse(name)? {
                // Whoever names a record by hand names its beginning.
                Field::Id if !value.starts_with('=') => (Field::Id, Test::Matches(pattern(value)?)),
                field => (field, Test::Equal(value.strip_prefix('=').unwrap_or(value).to_owned())),
            },
        };
        match &test {
            Test::Equal(value) | Test::Different(value) if field.is_switch() && !matches!(value.as_str(), "true" | "false") => {
                Err(RecordFilterError::NotBoolean(name.trim_end_matches('!').to_owned(), value.clone()))
            }
            _ => Ok(RecordFilter { field, test }),
        }
    }
}

fn pattern(text: &str) -> Result<Regex, RecordFilterError> {
    Regex::new(text).map_err(|error| RecordFilterError::BadPattern { pattern: text.to_owned(), reason: error.to_string() })
}

impl Field {
    fn parse(name: &str) -> Result<Field, RecordFilterError> {
        Ok(match name.trim().to_ascii_lowercase().as_str() {
            "id" => Field::Id,
            "parents" => Field::Parents,
            "description" => Field::Description,
            "type" => Field::Type,
            "inuse" => Field::InUse,
            "mutable" => Field::Mutable,
            "immutable" => Field::Immutable,
            "shared" => Field::Shared,
            "private" => Field::Private,
            _ => return Err(RecordFilterError::UnknownField(name.to_owned())),
        })
    }

    fn is_switch(self) -> bool {
        matches!(self, Field::InUse | Field::Mutable | Field::Immutable | Field::Shared | Field::Private)
    }

    /// The value, and whether there is one.
    fn of(self, record: &UsageRecord) -> (String, bool) {
        let text = |text: String| (text.clone(), !text.is_empty());
        let switch = |on: bool| (on.to_string(), on);
        match self {
            Field::Id => text(record.id.clone()),
            Field::Parents => text(record.parents.join(";")),
            Field::Description => text(record.description.clone()),
            Field::Type => text(record.kind.name().to_owned()),
            Field::InUse => switch(record.in_use),
            Field::Mutable => switch(record.is_mutable()),
            Field::Immutable => switch(!record.is_mutable()),
            Field::Shared => switch(record.shared),
            Field::Private => switch(!record.shared),
        }
    }
}

impl RecordFilter {
    /// Whether the condition holds of `record`.
    pub fn matches(&self, record: &UsageRecord) -> bool {
        let (value, present) = self.field.of(record);
        match &self.test {
            Test::Present => present,
            Test::Equal(wanted) => value == *wanted,
            Test::Different(unwanted) => value != *unwanted,
            Test::Matches(pattern) => pattern.is_match(&value),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::super::RecordKind;
    use super::*;

    fn record() -> UsageRecord {
        UsageRecord {
            id: "abc123".into(),
            kind: RecordKind::Layer,
            parents: vec!["p1".into(), "p2".into()],
            description: "RUN apt-get install".into(),
            size: 1,
            created_at: SystemTime::UNIX_EPOCH,
            last_used: SystemTime::UNIX_EPOCH,
            in_use: false,
            shared: true,
        }
    }

    #[test]
    fn conditions_compare_fields_as_buildkit_does() {
        let holds = |text: &str| text.parse::<RecordFilter>().unwrap().matches(&record());
        for text in [
            "id=bc1",
            "id==abc123",
            "id~=^abc",
            "parents=p1;p2",
            "parents~=p2",
            "description~=apt.*inst",
            "type=regular",
            "type==regular",
            "type!=exec.cachemount",
            "shared",
            "shared=true",
            "private=false",
            "immutable",
            "mutable!=true",
            "inuse=false",
            "description",
        ] {
            assert!(holds(text), "{text}");
        }
        for text in [
            "id==abc",
            "id=^bc",
            "parents=p1",
            "description=RUN",
            "type=exec.cachemount",
            "type!=regular",
            "private",
            "mutable",
            "inuse",
            "shared!=true",
        ] {
            assert!(!holds(text), "{text}");
        }
    }

    #[test]
    fn what_could_never_hold_is_refused() {
        for text in ["colour=red", "", "id~=(", "shared=maybe"] {
            assert!(text.parse::<RecordFilter>().is_err(), "{text}");
        }
    }
}
