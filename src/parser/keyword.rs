//! The keywords of instructions.

use super::ast::Text;
use super::words;

/// The keyword of an instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Keyword {
    Add,
    Arg,
    Cmd,
    Copy,
    Entrypoint,
    Env,
    Expose,
    From,
    Healthcheck,
    Label,
    Maintainer,
    Onbuild,
    Run,
    Shell,
    StopSignal,
    User,
    Volume,
    Workdir,
}

use Keyword::*;

/// All keywords; of several that are as near to a misspelled one, the first is suggested.
pub(super) const ALL: [Keyword; 18] = [
    From,
    Run,
    Cmd,
    Label,
    Maintainer,
    Expose,
    Env,
    Add,
    Copy,
    Entrypoint,
    Volume,
    User,
    Workdir,
    Arg,
    Onbuild,
    StopSignal,
    Healthcheck,
    Shell,
];

/// All keywords, by how many letters they have.
const BY_LENGTH: [&[Keyword]; 12] = [
    &[],
    &[],
    &[],
    &[Run, Env, Cmd, Arg, Add],
    &[Copy, From, User],
    &[Label, Shell],
    &[Expose, Volume],
    &[Workdir, Onbuild],
    &[],
    &[],
    &[Entrypoint, Maintainer, StopSignal],
    &[Healthcheck],
];

impl Keyword {
    /// The keyword in capitals.
    pub(super) fn name(self) -> &'static str {
        match self {
            Add => "ADD",
            Arg => "ARG",
            Cmd => "CMD",
            Copy => "COPY",
            Entrypoint => "ENTRYPOINT",
            Env => "ENV",
            Expose => "EXPOSE",
            From => "FROM",
            Healthcheck => "HEALTHCHECK",
            Label => "LABEL",
            Maintainer => "MAINTAINER",
            Onbuild => "ONBUILD",
            Run => "RUN",
            Shell => "SHELL",
            StopSignal => "STOPSIGNAL",
            User => "USER",
            Volume => "VOLUME",
            Workdir => "WORKDIR",
        }
    }

    /// The keyword as it was written, without a copy where that is in capitals.
    pub(super) fn as_written(self, written: &str) -> Text {
        if written == self.name() { Text::new_static(self.name()) } else { written.into() }
    }

    /// The keyword that is written so, in any case.
    pub(super) fn find(written: &str) -> Option<Keyword> {
        let same_length = BY_LENGTH.get(written.len()).copied().unwrap_or_default();
        let first = written.as_bytes().first()?.to_ascii_uppercase();
        let is_it = |keyword: &Keyword| {
            let name = keyword.name();
            // Mostly it is written in capitals.
            name.as_bytes()[0] == first && (name == written || name.eq_ignore_ascii_case(written))
        };
        let plain = same_length.iter().copied().find(is_it);
        if plain.is_some() || written.is_ascii() {
            return plain;
        }
        ALL.into_iter().find(|keyword| words::is_keyword(written, keyword.name()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_keyword_is_found_in_any_case() {
        for keyword in ALL {
            assert_eq!(Keyword::find(keyword.name()), Some(keyword));
            assert_eq!(Keyword::find(&keyword.name().to_lowercase()), Some(keyword));
            assert_eq!(Keyword::find(&format!("{}S", keyword.name())), None);
        }
        assert_eq!(Keyword::find("wor\u{212a}dir"), Some(Workdir), "the Kelvin sign is a k");
        assert_eq!(Keyword::find(""), None);
    }
}
