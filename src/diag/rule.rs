//! The rules of the build checks: one table of their names, what each is about, and where it is explained.
//!
//! Names and meaning are BuildKit's, so that a `# check=skip=…` means the same to both. Code that finds something knows only the name ([`RuleId`]); whether a
//! rule is switched on is decided in one place, over diagnostics (`parser::Checks`).

use super::RuleId;

/// The page that explains the rules.
pub const CHECKS_PAGE: &str = concat!(env!("CARGO_PKG_REPOSITORY"), "/blob/main/docs/checks.md");

/// How many findings are collected before any is ruled out; a file with more is not meant to be read by anyone.
pub const MAX_FOUND: usize = 10_000;

/// How many warnings are shown of one file.
pub const MAX_SHOWN: usize = 10_000;

/// One rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Its name.
    pub id: RuleId,
    /// What it is about, in a sentence.
    pub description: &'static str,
    /// Whether it is off unless `experimental=` names it.
    pub experimental: bool,
}

impl Rule {
    /// Where the rule is explained.
    pub fn url(&self) -> String {
        format!("{CHECKS_PAGE}#{}", self.id.0.to_lowercase())
    }
}

impl RuleId {
    /// The rule of this name, if it is one of the table.
    pub fn rule(self) -> Option<&'static Rule> {
        RULES.iter().find(|rule| rule.id == self)
    }
}

const fn rule(name: &'static str, description: &'static str) -> Rule {
    Rule { id: RuleId(name), description, experimental: false }
}

const fn experimental(name: &'static str, description: &'static str) -> Rule {
    Rule { experimental: true, ..rule(name, description) }
}

/// All rules. `InvalidExecForm` is our own; the others are BuildKit's.
pub const RULES: &[Rule] = &[
    rule("StageNameCasing", "The names of stages are written in small letters"),
    rule("FromAsCasing", "`AS` is written in the case of its `FROM`"),
    rule("NoEmptyContinuation", "An instruction over several lines holds no empty line"),
    rule("ConsistentInstructionCasing", "The keywords of a file are all in capitals or all in small letters"),
    rule("DuplicateStageName", "Each stage has a name of its own"),
    rule("ReservedStageName", "No stage has a name that already means something else"),
    rule("JSONArgsRecommended", "`CMD` and `ENTRYPOINT` are lists in JSON, so that signals reach the program"),
    rule("MaintainerDeprecated", "The author of an image is a label; `MAINTAINER` is an old form"),
    rule("UndefinedArgInFrom", "The variables of a `FROM` are declared by an `ARG` before the first `FROM`"),
    rule("WorkdirRelativePath", "The first `WORKDIR` is an absolute path, so that it does not depend on the base image"),
    rule("UndefinedVar", "A variable is defined before it is used"),
    rule("MultipleInstructionsDisallowed", "An instruction of which only the last one counts stands once in a stage"),
    rule("LegacyKeyValueFormat", "`ENV` and `LABEL` are written `name=value`, with an equals sign"),
    rule("InvalidBaseImagePlatform", "A base image is made for the platform that is built for"),
    rule("RedundantTargetPlatform", "`--platform=$TARGETPLATFORM` says what is so anyway"),
    rule("SecretsUsedInArgOrEnv", "Secrets come by `RUN --mount=type=secret`, not by `ARG` or `ENV`, which anyone can read in the image"),
    rule("InvalidDefaultArgInFrom", "The defaults of the `ARG`s make a valid name of every base image"),
    rule("FromPlatformFlagConstDisallowed", "`FROM --platform` takes a variable, so that the file builds for more than one platform"),
    rule("CopyIgnoredFile", "What `COPY` and `ADD` name is not hidden by the ignore file"),
    experimental("InvalidDefinitionDescription", "A comment right above an `ARG` or a named stage begins with its name and describes it"),
    rule("ExposeProtoCasing", "The protocols of `EXPOSE` are written in small letters"),
    rule("ExposeInvalidFormat", "`EXPOSE` names ports of the container only, without addresses or ports of the host"),
    experimental("InvalidExecForm", "What looks like a list in JSON is one; otherwise a shell gets it as it is"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_found_by_name_and_link_to_their_section() {
        let rule = RuleId("UndefinedVar").rule().unwrap();
        assert!(rule.url().ends_with("/blob/main/docs/checks.md#undefinedvar"), "{}", rule.url());
        assert_eq!(RuleId("Unheard").rule(), None);
    }

    #[test]
    fn no_name_stands_twice() {
        let names: std::collections::BTreeSet<_> = RULES.iter().map(|rule| rule.id).collect();
        assert_eq!(names.len(), RULES.len());
    }
}
