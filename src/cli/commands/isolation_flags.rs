//! The flags of `strake run` and `strake create` about what keeps a container apart from its machine.

use std::path::PathBuf;

use clap::Args;

use crate::engine::{Error, RunRequest, SeccompRequest};
use crate::runtime::SystemPaths;

/// What keeps a container apart.
#[derive(Debug, Args)]
pub(super) struct IsolationFlags {
    /// `seccomp=FILE|unconfined|builtin`, `no-new-privileges`, `systempaths=unconfined`, `apparmor=unconfined` or `label=disable` (may be given several times)
    #[arg(long, value_name = "OPTION", value_parser = security)]
    security_opt: Vec<Security>,
}

/// `--security-opt`.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Security {
    NoNewPrivileges(bool),
    Seccomp(Filter),
    SystemPaths,
    /// What this machine does not have, and is as it would be without.
    Nothing(String),
}

/// `--security-opt seccomp=`.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Filter {
    Default,
    Unconfined,
    File(PathBuf),
}

impl IsolationFlags {
    /// Writes into the request what was asked for.
    pub(super) fn over(self, request: &mut RunRequest) -> Result<(), Error> {
        for option in self.security_opt {
            match option {
                Security::NoNewPrivileges(on) => request.no_new_privileges = on,
                Security::Seccomp(Filter::Default) => request.seccomp = SeccompRequest::Default,
                Security::Seccomp(Filter::Unconfined) => request.seccomp = SeccompRequest::Unconfined,
                Security::Seccomp(Filter::File(path)) => request.seccomp = SeccompRequest::read(&path)?,
                Security::SystemPaths => request.system_paths = SystemPaths::Unconfined,
                Security::Nothing(text) => request.security_labels.push(text),
            }
        }
        Ok(())
    }
}

fn security(text: &str) -> Result<Security, String> {
    match text.split_once(['=', ':']).unwrap_or((text, "")) {
        ("no-new-privileges", "" | "true") => Ok(Security::NoNewPrivileges(true)),
        ("no-new-privileges", "false") => Ok(Security::NoNewPrivileges(false)),
        ("seccomp", "unconfined") => Ok(Security::Seccomp(Filter::Unconfined)),
        ("seccomp", "builtin") => Ok(Security::Seccomp(Filter::Default)),
        ("seccomp", path) if !path.is_empty() => Ok(Security::Seccomp(Filter::File(path.into()))),
        ("systempaths", "unconfined") => Ok(Security::SystemPaths),
        ("apparmor", "unconfined") | ("label", "disable") => Ok(Security::Nothing(text.to_owned())),
        _ => {
            Err("expected seccomp=FILE|unconfined|builtin, no-new-privileges, systempaths=unconfined, apparmor=unconfined or label=disable"
                .to_owned())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_about_security_are_dockers() {
        assert_eq!(security("seccomp=x/y=z.json"), Ok(Security::Seccomp(Filter::File("x/y=z.json".into()))));
        assert_eq!(security("seccomp:unconfined"), Ok(Security::Seccomp(Filter::Unconfined)));
        assert_eq!(security("no-new-privileges"), Ok(Security::NoNewPrivileges(true)));
        assert_eq!(security("no-new-privileges:false"), Ok(Security::NoNewPrivileges(false)));
        for text in ["seccomp=", "seccomp", "no-new-privileges=maybe", "systempaths=x", "x=y"] {
            assert!(security(text).is_err(), "{text}");
        }
    }
}
