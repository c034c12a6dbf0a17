//! `SOURCE_DATE_EPOCH`: what it names, in the forms that BuildKit takes.
//!
//! The value is that of the build argument, else of an `ARG SOURCE_DATE_EPOCH=…` before the first `FROM`; an empty one is none. It is a number of seconds,
//! or says where the time comes from: `context`, a named context, or a stage that consists of `FROM scratch` and one `ADD` from elsewhere. What time that
//! is, only the engine can find out.

use crate::diag::Diagnostic;
use crate::oci::Digest;
use crate::parser::{Add, Instruction, Stage, Statement, Word};

use super::git_url::GitSource;
use super::lower::{expand_word, expansion_error, is_http};
use super::plan::{PlanRequest, Planner};
use super::scope::Environment;

/// The name of the argument.
pub const SOURCE_DATE_EPOCH: &str = "SOURCE_DATE_EPOCH";

/// Where the time of a build comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EpochSource {
    /// A number: seconds since the epoch.
    Seconds(i64),
    /// The build context.
    Context,
    /// The named context of this name.
    NamedContext(String),
    /// A file on a web server, which a stage adds.
    Http {
        /// Its address.
        url: String,
        /// What its content must hash to.
        checksum: Option<Digest>,
    },
    /// A git repository, which a stage adds.
    Git(GitSource),
    /// Nothing that is known.
    Unknown(String),
}

/// Where the time of a build comes from, if it has one.
///
/// # Errors
/// Mistakes of the Dockerfile, as [`super::plan()`] finds them too, and a stage that is no source of a time.
pub fn epoch_source(request: &PlanRequest<'_>) -> Result<Option<EpochSource>, Vec<Diagnostic>> {
    let given = request.build_args.get(SOURCE_DATE_EPOCH);
    let declared = request.dockerfile.global_args.iter().any(|statement| match &statement.instruction {
        Instruction::Arg(declarations) => declarations.iter().any(|declaration| declaration.name.text == SOURCE_DATE_EPOCH),
        _ => false,
    });
    if given.is_none() && !declared {
        return Ok(None);
    }
    let planner = Planner::new(request)?;
    let value = given.map(String::as_str).or_else(|| planner.global().get(SOURCE_DATE_EPOCH)).unwrap_or_default();
    if value.is_empty() {
        return Ok(None);
    }
    if let Ok(seconds) = value.parse() {
        return Ok(Some(EpochSource::Seconds(seconds)));
    }
    if value == "context" {
        return Ok(Some(EpochSource::Context));
    }
    if let Some(name) = request.contexts.called(value) {
        return Ok(Some(EpochSource::NamedContext(name)));
    }
    let named = |stage: &&Stage| stage.from.name.as_ref().is_some_and(|name| name.name.eq_ignore_ascii_case(value));
    match request.dockerfile.stages.iter().find(named) {
        Some(stage) => stage_source(request, planner.global().clone(), stage).map(Some).map_err(|error| vec![error]),
        None => Ok(Some(EpochSource::Unknown(value.to_owned()))),
    }
}

/// What a stage adds, if that is all that it does.
fn stage_source(request: &PlanRequest<'_>, mut scope: Environment, stage: &Stage) -> Result<EpochSource, Diagnostic> {
    let dockerfile = request.dockerfile;
    let refuse = |statement: &Statement, message: &str| {
        let hint = format!("a stage that {SOURCE_DATE_EPOCH} names is `FROM scratch` and one `ADD` of a URL, with `ARG`s at most");
        Err(Diagnostic::error(&dockerfile.file, statement.keyword.span, message).with_hint(hint))
    };
    // The name of a stage is no time: what expands it would be wrong.
    scope.set(SOURCE_DATE_EPOCH, "");
    let expand = |word: &Word, scope: &Environment| {
        let expanded = expand_word(word, dockerfile.directives.escape, scope);
        expanded.map(|expanded| expanded.text).map_err(|error| expansion_error(&dockerfile.file, word, &error))
    };
    if expand(&stage.from.image, &scope)? != "scratch" {
        return refuse(&stage.statement, &format!("the stage that {SOURCE_DATE_EPOCH} names does not start from scratch"));
    }
    let mut found = None;
    for statement in &stage.instructions {
        match &statement.instruction {
            Instruction::Arg(declarations) => {
                for declaration in declarations {
                    let name = declaration.name.text.as_str();
                    match (request.build_args.get(name), &declaration.default) {
                        (Some(given), _) => scope.set(name, given),
                        (None, Some(default)) => {
                            let value = expand(default, &scope)?;
                            scope.set(name, &value);
                        }
                        (None, None) => {}
                    }
                }
            }
            Instruction::Add(add) => {
                let [word] = add.paths.sources.as_slice() else {
                    return refuse(statement, &format!("the stage that {SOURCE_DATE_EPOCH} names adds more than one thing"));
                };
                if found.is_some() || !add.paths.heredocs.is_empty() {
                    return refuse(statement, &format!("the stage that {SOURCE_DATE_EPOCH} names adds more than one thing"));
                }
                match add_source(request, add, word, &expand(word, &scope)?, |word| expand(word, &scope)) {
                    Ok(Some(source)) => found = Some(source),
                    Ok(None) => return refuse(statement, &format!("the stage that {SOURCE_DATE_EPOCH} names adds files of the context")),
                    Err(error) => return Err(error),
                }
            }
            _ => {
                let keyword = statement.keyword.value.to_uppercase();
                return refuse(statement, &format!("the stage that {SOURCE_DATE_EPOCH} names has a `{keyword}`"));
            }
        }
    }
    match found {
        Some(source) => Ok(source),
        None => refuse(&stage.statement, &format!("the stage that {SOURCE_DATE_EPOCH} names adds nothing")),
    }
}

/// What an `ADD` of `source` reads; `None` where that is a file of the context.
fn add_source(
    request: &PlanRequest<'_>,
    add: &Add,
    word: &Word,
    source: &str,
    expand: impl Fn(&Word) -> Result<String, Diagnostic>,
) -> Result<Option<EpochSource>, Diagnostic> {
    let refuse = |error: String| Diagnostic::error(&request.dockerfile.file, word.span, error);
    let checksum = add.checksum.as_ref().map(expand).transpose()?.filter(|text| !text.is_empty());
    if let Some(parsed) = GitSource::parse(source) {
        let mut parsed = parsed.map_err(|error| refuse(error.to_string()))?;
        if let Some(checksum) = checksum {
            parsed.demand(&checksum).map_err(|error| refuse(error.to_string()))?;
        }
        return Ok(Some(EpochSource::Git(parsed)));
    }
    if !is_http(source) {
        return Ok(None);
    }
    let checksum = checksum.map(|text| text.parse().map_err(|error: crate::oci::DigestError| refuse(error.to_string()))).transpose()?;
    Ok(Some(EpochSource::Http { url: source.to_owned(), checksum }))
}
