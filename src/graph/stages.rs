//! Stages: which one a name means, and which ones the target reaches.

use std::collections::HashMap;

use crate::diag::{Diagnostic, Spanned, did_you_mean};
use crate::oci::Reference;
use crate::parser::{Dockerfile, Instruction, Stage, Word};

/// What a `FROM` starts from.
#[derive(Clone, Debug)]
pub(super) enum Base {
    /// An earlier stage.
    Stage(usize),
    /// Nothing.
    Scratch,
    /// An image.
    Image(Reference),
}

/// What a `--from` names.
#[derive(Clone, Debug)]
pub(super) enum FromTarget {
    /// An earlier stage.
    Stage(usize),
    /// Nothing.
    Scratch,
    /// An image.
    Image(Reference),
}

/// The names of the stages.
pub(super) struct StageNames<'a> {
    dockerfile: &'a Dockerfile,
    by_name: HashMap<&'a str, Vec<usize>>,
}

impl<'a> StageNames<'a> {
    pub(super) fn new(dockerfile: &'a Dockerfile) -> StageNames<'a> {
        let mut by_name: HashMap<&str, Vec<usize>> = HashMap::new();
        for (index, stage) in dockerfile.stages.iter().enumerate() {
            if let Some(name) = &stage.from.name {
                by_name.entry(&name.name).or_default().push(index);
            }
        }
        StageNames { dockerfile, by_name }
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
        Err(match did_you_mean(&lower, self.by_name.keys().copied()) {
            Some(near) => error.with_hint(format!("there is a stage `{near}`")),
            None if self.by_name.is_empty() => error.with_hint("no stage of this file has a name: add `AS name` to a `FROM`"),
            None => error.with_hint(format!("the stages are {}", self.list())),
        })
    }

    /// What the expanded name of a `FROM` means. Stage names are in lower case, so `FROM Base` never means a stage.
    pub(super) fn base(&self, stage: usize, name: &str, written: &Word) -> Result<Base, Diagnostic> {
        if name == "scratch" {
            return Ok(Base::Scratch);
        }
        if let Some(found) = self.before(name, stage) {
            return Ok(Base::Stage(found));
        }
        name.parse().map(Base::Image).map_err(|error| {
            let message = format!("`{name}` is neither a stage nor an image reference: {}", error.reason);
            let diagnostic = Diagnostic::error(&self.dockerfile.file, written.span, message);
            match self.before(&name.to_lowercase(), stage) {
                Some(_) => diagnostic.with_hint(format!("stage names are in lower case: write `{}`", name.to_lowercase())),
                None => diagnostic,
            }
        })
    }

    /// What the name of a `COPY --from` or `--mount=from=` in stage `stage` means: index, stage or image.
    pub(super) fn named(&self, stage: usize, from: &Spanned<String>) -> Result<FromTarget, Diagnostic> {
        let file = &self.dockerfile.file;
        let name = from.value.as_str();
        if let Ok(index) = name.parse::<usize>() {
            return match index {
                _ if index < stage => Ok(FromTarget::Stage(index)),
                _ if index < self.dockerfile.stages.len() => Err(self.not_before(stage, from, index)),
                _ => Err(Diagnostic::error(file, from.span, format!("there is no stage number {index}"))
                    .with_hint(format!("this file has {} stages, counted from 0", self.dockerfile.stages.len()))),
            };
        }
        let lower = name.to_lowercase();
        if let Some(found) = self.before(&lower, stage) {
            return Ok(FromTarget::Stage(found));
        }
        if let Some(later) = self.by_name.get(lower.as_str()).and_then(|stages| stages.first()) {
            return Err(self.not_before(stage, from, *later));
        }
        if lower == "scratch" {
            return Ok(FromTarget::Scratch);
        }
        name.parse().map(FromTarget::Image).map_err(|error: crate::oci::ReferenceError| {
            let message = format!("no stage or image named `{name}`");
            let diagnostic = Diagnostic::error(file, from.span, message).with_label(error.reason.clone());
            match self.near(name) {
                Some((near, line)) => diagnostic.with_hint(format!("stage `{near}` is defined on line {line}")),
                None => diagnostic,
            }
        })
    }

    /// The stage whose name is nearest to `name`, and its line.
    pub(super) fn near(&self, name: &str) -> Option<(&'a str, usize)> {
        let near = did_you_mean(name, self.by_name.keys().copied())?;
        let stage = *self.by_name.get(near)?.first()?;
        Some((near, self.dockerfile.file.line(self.dockerfile.stages[stage].statement.span.start)))
    }

    fn not_before(&self, stage: usize, from: &Spanned<String>, found: usize) -> Diagnostic {
        let message = if found == stage {
            format!("stage `{}` cannot copy from itself", from.value)
        } else {
            format!("cannot copy from stage `{}`: it needs to be defined before this stage", from.value)
        };
        Diagnostic::error(&self.dockerfile.file, from.span, message)
            .with_related(self.dockerfile.stages[found].from.image.span, "the stage begins here")
    }

    /// The last stage called `name` that begins before stage number `stage`.
    fn before(&self, name: &str, stage: usize) -> Option<usize> {
        self.by_name.get(name)?.iter().rev().find(|index| **index < stage).copied()
    }

    fn list(&self) -> String {
        let names: Vec<String> =
            self.dockerfile.stages.iter().filter_map(|stage| stage.from.name.as_ref()).map(|name| format!("`{}`", name.name)).collect();
        names.join(", ")
    }
}

/// The `--from`s of a stage's COPY and ADD instructions (`RUN --mount=from=` is read with the mounts).
pub(super) fn copy_froms(stage: &Stage) -> impl Iterator<Item = &Spanned<String>> {
    stage.instructions.iter().filter_map(|statement| match &statement.instruction {
        Instruction::Copy(copy) => copy.from.as_ref(),
        _ => None,
    })
}

/// The `from=` of a stage's `RUN --mount`s, read without expanding anything: `from` never holds variables.
pub(super) fn mount_froms(stage: &Stage) -> impl Iterator<Item = Spanned<String>> + '_ {
    let mounts = stage.instructions.iter().filter_map(|statement| match &statement.instruction {
        Instruction::Run(run) => Some(run.mounts.iter()),
        _ => None,
    });
    mounts.flatten().filter_map(|mount| {
        let pair = |field: &str| field.split_once('=').map(|(key, value)| (key.trim().to_lowercase(), value.trim().to_owned()));
        let from = mount.text.split(',').filter_map(pair).find(|(key, _)| key == "from")?.1;
        Some(Spanned::new(from, mount.span))
    })
}
