//! Stages: what each starts from and copies from, found out once for all of them.
//!
//! Every stage of the file is looked at, also those that the target does not reach, since BuildKit refuses a file whose names make no sense wherever
//! they stand. What an instruction says beyond its names is of interest in reachable stages only.

use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap};

use crate::diag::{Diagnostic, Span, Spanned, did_you_mean};
use crate::oci::{Platform, Reference, ReferenceError};
use crate::parser::{Dockerfile, Instruction, Stage, Text, Word};

use super::contexts::{NamedContext, NamedContexts};
use super::op::RemoteTree;

/// What a `FROM`, a `--from` or a mount's `from` names.
#[derive(Clone, Debug)]
pub(super) enum Origin {
    /// A stage.
    Stage(usize),
    /// Nothing.
    Scratch,
    /// An image; with `layout`, that of the named context of that name.
    Image {
        /// Its name.
        reference: Reference,
        /// The named context that it comes from, where that is a directory with an image.
        layout: Option<String>,
    },
    /// The directory of a named context.
    Context(String),
    /// The files of a named context that is not on this machine.
    Remote(String, RemoteTree),
}

/// What is known of a stage before any of it is lowered.
#[derive(Debug)]
pub(super) struct StageFacts {
    /// What it starts from.
    pub(super) base: Origin,
    /// `FROM --platform`.
    pub(super) platform: Option<Platform>,
    /// What it copies and mounts from.
    pub(super) froms: Vec<(Origin, Spanned<Text>)>,
    /// Whether a named context took its place: then its instructions do not count.
    pub(super) replaced: bool,
}

/// Whose `from` is looked up: the rules differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FromOf {
    /// `COPY --from`, which takes the number of a stage too.
    Copy,
    /// `RUN --mount=from=`.
    Mount,
}

/// The names of the stages.
pub(super) struct StageNames<'a> {
    dockerfile: &'a Dockerfile,
    contexts: &'a NamedContexts,
    target_platform: &'a Platform,
    by_name: HashMap<&'a str, Vec<usize>>,
    /// The named contexts that something was looked up in.
    used: RefCell<BTreeSet<String>>,
}

impl<'a> StageNames<'a> {
    pub(super) fn new(dockerfile: &'a Dockerfile, contexts: &'a NamedContexts, target_platform: &'a Platform) -> StageNames<'a> {
        let mut by_name: HashMap<&str, Vec<usize>> = HashMap::new();
        for (index, stage) in dockerfile.stages.iter().enumerate() {
            if let Some(name) = &stage.from.name {
                by_name.entry(&name.name).or_default().push(index);
            }
        }
        StageNames { dockerfile, contexts, target_platform, by_name, used: RefCell::default() }
    }

    /// The stage to build: the last one, or the one that `--target` names (upper and lower case are the same).
    pub(super) fn target(&self, wanted: Option<&str>) -> Result<usize, Diagnostic> {
        let last = self.dockerfile.stages.len() - 1;
        let Some(wanted) = wanted.filter(|name| !name.is_empty()) else { return Ok(last) };
        let lower = wanted.to_lowercase();
        if let Some(index) = self.by_name.get(lower.as_str()).and_then(|stages| stages.last()) {
            return Ok(*index);
        }
        let span = self.dockerfile.stages[last].from.image.span;
        let error = Diagnostic::error(&self.dockerfile.file, span, format!("target stage `{wanted}` does not exist"));
        let number = wanted.bytes().all(|b| b.is_ascii_digit());
        Err(match did_you_mean(&lower, self.by_name.keys().copied()) {
            Some(near) if !number => error.with_hint(format!("there is a stage `{near}`")),
            _ if self.by_name.is_empty() => error.with_hint("no stage of this file has a name: add `AS name` to a `FROM`"),
            _ if number => error.with_hint(format!("a target is named, not numbered: the stages are {}", self.list())),
            _ => error.with_hint(format!("the stages are {}", self.list())),
        })
    }

    /// The named context that takes the place of a stage's name. BuildKit reads that name as an image's, and refuses it where it is none.
    pub(super) fn replacement(&self, stage: &Stage, platform: Option<&Platform>) -> Result<Option<Origin>, Diagnostic> {
        let Some(name) = &stage.from.name else { return Ok(None) };
        let refuse = |error: ReferenceError| {
            let message = format!("the stage name `{}` cannot be used: {}", name.written.value, error.reason);
            let hint = "a separator (`-`, `_`, `.`) stands between letters or digits, as in image names";
            Diagnostic::error(&self.dockerfile.file, name.written.span, message).with_hint(hint)
        };
        if self.contexts.is_empty() {
            return Reference::check(&name.name).map(|()| None).map_err(refuse);
        }
        let reference: Reference = name.name.parse().map_err(refuse)?;
        Ok(self.context(&reference, platform.unwrap_or(self.target_platform)))
    }

    /// What the expanded name of a `FROM` means. Stage names are in lower case, so `FROM Base` never means a stage.
    pub(super) fn base(&self, stage: usize, name: &str, written: &Word, platform: Option<&Platform>) -> Result<Origin, Diagnostic> {
        if let Some(found) = self.before(name, stage) {
            return Ok(Origin::Stage(found));
        }
        if name == "scratch" {
            return Ok(Origin::Scratch);
        }
        match name.parse() {
            Ok(reference) => Ok(self.context_or_image(reference, platform.unwrap_or(self.target_platform))),
            Err(error) => {
                let error: ReferenceError = error;
                let message = format!("`{name}` is neither a stage nor an image reference: {}", error.reason);
                let diagnostic = Diagnostic::error(&self.dockerfile.file, written.span, message);
                let lower = name.to_lowercase();
                Err(match self.before(&lower, stage) {
                    Some(_) => diagnostic.with_hint(format!("stage names are in lower case: write `{lower}`")),
                    None if lower == "scratch" => diagnostic.with_hint("write `scratch` in lower case"),
                    None => diagnostic,
                })
            }
        }
    }

    /// What the name of a `COPY --from` or `--mount=from=` means. A stage is the last one of that name in the file, as BuildKit has it; whether it
    /// may be used where it is named is for [`StageNames::check_order`].
    pub(super) fn named(&self, from: &Spanned<Text>, of: FromOf) -> Result<Origin, Diagnostic> {
        let file = &self.dockerfile.file;
        let name = from.value.as_str();
        let number = name.parse::<i64>().ok();
        if let (FromOf::Copy, Some(number)) = (of, number) {
            let index = usize::try_from(number).ok().filter(|index| *index < self.dockerfile.stages.len());
            return index.map(Origin::Stage).ok_or_else(|| {
                let last = self.dockerfile.stages.len() - 1;
                Diagnostic::error(file, from.span, format!("there is no stage number {number}"))
                    .with_hint(format!("the stages of this file have the numbers 0 to {last}"))
            });
        }
        // Names of stages are in lower case, so that most need no copy.
        let called = self.by_name.get(name).or_else(|| self.by_name.get(name.to_lowercase().as_str()));
        if let Some(found) = called.and_then(|stages| stages.last()) {
            return Ok(Origin::Stage(*found));
        }
        if name == "scratch" {
            return Ok(Origin::Scratch);
        }
        if name.contains('$') {
            let hint = "begin a stage with `FROM $NAME AS stage`, with the `ARG` before the first `FROM`, and copy from that stage";
            return Err(Diagnostic::error(file, from.span, "variables are not expanded in `--from`").with_hint(hint));
        }
        let reference: Reference = name.parse().map_err(|error: ReferenceError| {
            let message = format!("no stage or image named `{name}`");
            let diagnostic = Diagnostic::error(file, from.span, message).with_label(error.reason.clone());
            match self.near(name) {
                Some((near, line)) => diagnostic.with_hint(format!("stage `{near}` is defined on line {line}")),
                None => diagnostic,
            }
        })?;
        let origin = self.context_or_image(reference, self.target_platform);
        let is_index = number.and_then(|number| usize::try_from(number).ok()).filter(|index| *index < self.dockerfile.stages.len());
        if let (Origin::Image { .. }, Some(index)) = (&origin, is_index) {
            // BuildKit takes it for an image of that name, which nobody means.
            let message = format!("`from={index}` of a mount names an image, not stage number {index}");
            return Err(Diagnostic::error(file, from.span, message).with_hint("name the stage with `AS`, and mount from that name"));
        }
        Ok(origin)
    }

    /// Refuses what is copied from a stage that does not come before `stage`.
    pub(super) fn check_order(&self, stage: usize, found: usize, from: &Spanned<Text>) -> Result<(), Diagnostic> {
        if found < stage {
            return Ok(());
        }
        let message = if found == stage {
            format!("stage `{}` cannot copy from itself", from.value)
        } else {
            format!("cannot copy from stage `{}`: it needs to be defined before this stage", from.value)
        };
        let error = Diagnostic::error(&self.dockerfile.file, from.span, message)
            .with_related(self.dockerfile.stages[found].from.image.span, "the stage begins here");
        Err(match self.before(&from.value.to_lowercase(), stage) {
            Some(_) => error.with_hint("the name stands for the last stage that has it: give the earlier one another name"),
            None => error,
        })
    }

    /// The stage whose name is nearest to `name`, and its line.
    pub(super) fn near(&self, name: &str) -> Option<(&'a str, usize)> {
        let near = did_you_mean(name, self.by_name.keys().copied())?;
        let stage = *self.by_name.get(near)?.first()?;
        Some((near, self.dockerfile.file.line(self.dockerfile.stages[stage].statement.span.start())))
    }

    /// The named contexts that this plan has no use for, and that nothing in the file seems to mean.
    pub(super) fn unused_contexts(&self) -> Vec<&'a str> {
        let used = self.used.borrow();
        let text = self.dockerfile.file.text().to_lowercase();
        let mut unused: Vec<&str> =
            self.contexts.names().filter(|name| !used.contains(*name) && !text.contains(&name.to_lowercase())).collect();
        unused.dedup();
        unused
    }

    /// A name that the file has, of a stage or of what one begins with, which is nearly `name`.
    pub(super) fn near_context(&self, name: &str) -> Option<&'a str> {
        let images = self.dockerfile.stages.iter().map(|stage| stage.from.image.text.as_str());
        did_you_mean(name, self.by_name.keys().copied().chain(images))
    }

    fn context_or_image(&self, reference: Reference, platform: &Platform) -> Origin {
        self.context(&reference, platform).unwrap_or(Origin::Image { reference, layout: None })
    }

    fn context(&self, name: &Reference, platform: &Platform) -> Option<Origin> {
        let (context, found) = self.contexts.find(name, platform)?;
        self.used.borrow_mut().insert(context.name().to_owned());
        Some(match found {
            NamedContext::Directory => Origin::Context(context.to_string()),
            NamedContext::Image(reference) => Origin::Image { reference: reference.clone(), layout: None },
            NamedContext::Layout => Origin::Image { reference: name.clone(), layout: Some(context.to_string()) },
            NamedContext::Scratch => Origin::Scratch,
            NamedContext::Remote(tree) => Origin::Remote(context.to_string(), tree.clone()),
        })
    }

    /// The last stage called `name` that begins before stage number `stage`.
    fn before(&self, name: &str, stage: usize) -> Option<usize> {
        let stages = self.by_name.get(name)?;
        stages.partition_point(|index| *index < stage).checked_sub(1).map(|at| stages[at])
    }

    fn list(&self) -> String {
        const SHOWN: usize = 20;
        let names = self.dockerfile.stages.iter().filter_map(|stage| stage.from.name.as_ref());
        let mut names: Vec<String> = names.map(|name| format!("`{}`", name.name)).take(SHOWN + 1).collect();
        if names.len() > SHOWN {
            names[SHOWN] = "…".to_owned();
        }
        names.join(", ")
    }
}

/// The `from`s of a stage, unresolved: those of `COPY`, and those of mounts, which never hold variables.
pub(super) fn froms(stage: &Stage) -> impl Iterator<Item = (FromOf, Spanned<Text>)> + '_ {
    stage.instructions.iter().flat_map(|statement| {
        let copy = match &statement.instruction {
            Instruction::Copy(copy) => copy.from.clone(),
            _ => None,
        };
        let mounts = match &statement.instruction {
            Instruction::Run(run) => run.mounts.as_slice(),
            _ => &[],
        };
        copy.map(|from| (FromOf::Copy, from)).into_iter().chain(mounts.iter().filter_map(mount_from).map(|from| (FromOf::Mount, from)))
    })
}

/// The `from=` of a mount; the last one counts.
fn mount_from(mount: &Word) -> Option<Spanned<Text>> {
    let pair = |field: &str| field.split_once('=').map(|(key, value)| (key.trim().to_lowercase(), value.trim().to_owned()));
    let fields = mount.text.split(',').map(|field| field.trim_matches('"'));
    let from = fields.filter_map(pair).rfind(|(key, _)| key == "from")?.1;
    (!from.is_empty()).then(|| Spanned::new(from.into(), mount.span))
}

/// Stages that copy from each other in a circle, told where one of them names the next; circles of one are told by [`StageNames::check_order`].
pub(super) fn circles(dockerfile: &Dockerfile, facts: &[StageFacts]) -> Vec<Diagnostic> {
    // What copies from earlier stages only cannot close a circle.
    let starts: Vec<usize> = (0..facts.len())
        .filter(|stage| facts[*stage].froms.iter().any(|(origin, _)| matches!(origin, Origin::Stage(found) if found > stage)))
        .collect();
    let mut errors = Vec::new();
    let mut seen = vec![false; facts.len()];
    let mut open = vec![false; facts.len()];
    for start in starts {
        if std::mem::replace(&mut seen[start], true) {
            continue;
        }
        // Each stage of the path, with how many of its names were followed.
        let mut path: Vec<(usize, usize)> = vec![(start, 0)];
        open[start] = true;
        while let Some((stage, at)) = path.last_mut() {
            let (stage, from) = (*stage, *at);
            *at += 1;
            match facts[stage].froms.get(from) {
                Some((Origin::Stage(found), name)) if open[*found] && *found != stage => {
                    let circle = path.iter().map(|(stage, _)| *stage).skip_while(|stage| stage != found);
                    errors.push(circle_error(dockerfile, name.span, circle.chain([*found])));
                }
                Some((Origin::Stage(found), _)) if !std::mem::replace(&mut seen[*found], true) => {
                    open[*found] = true;
                    path.push((*found, 0));
                }
                Some(_) => {}
                None => {
                    open[stage] = false;
                    path.pop();
                }
            }
        }
    }
    errors
}

fn circle_error(dockerfile: &Dockerfile, span: Span, circle: impl Iterator<Item = usize>) -> Diagnostic {
    const SHOWN: usize = 10;
    let name = |stage: usize| match &dockerfile.stages[stage].from.name {
        Some(name) => format!("`{}`", name.name),
        None => format!("number {stage}"),
    };
    let names: Vec<String> = circle.take(SHOWN).map(name).collect();
    Diagnostic::error(&dockerfile.file, span, format!("stages copy from each other in a circle: {}", names.join(" from ")))
}
