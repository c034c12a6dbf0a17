//! `--runtime`: which program runs a container.

use std::path::{Path, PathBuf};

use rustix::fs::Access;

use crate::cli::env;
use crate::engine::Error;
use crate::runtime::ForeignRuntime;

/// The name of the runtime that is this program.
const OWN: &str = "strake";

/// Where runtimes are that are not in an ordinary user's PATH.
const SYSTEM: [&str; 3] = ["/usr/local/sbin", "/usr/sbin", "/sbin"];

/// The runtime that a user means; `None` is our own.
///
/// # Errors
/// There is no such program, or it cannot be executed.
pub(super) fn runtime(name: &str) -> Result<Option<ForeignRuntime>, Error> {
    if name == OWN {
        return Ok(None);
    }
    let program = if name.contains('/') { absolute(name)? } else { find(name)? };
    if let Some(why) = unusable(&program) {
        return Err(refused(name, &format!("`{}` {why}", program.display()), None));
    }
    Ok(Some(ForeignRuntime { name: name.to_owned(), program, arguments: Vec::new() }))
}

fn refused(name: &str, why: &str, hint: Option<&str>) -> Error {
    Error::Usage { message: format!("cannot use the OCI runtime `{name}`: {why}"), hint: hint.map(str::to_owned) }
}

/// A path, from the root on: the container may be started again from anywhere.
fn absolute(name: &str) -> Result<PathBuf, Error> {
    std::path::absolute(name).map_err(|error| refused(name, &error.to_string(), None))
}

fn find(name: &str) -> Result<PathBuf, Error> {
    let dirs = env::program_dirs().into_iter().chain(SYSTEM.map(PathBuf::from)).filter(|dir| dir.is_absolute());
    let found: Vec<PathBuf> = dirs.map(|dir| dir.join(name)).filter(|path| path.is_file()).collect();
    let best = found.iter().find(|path| unusable(path).is_none()).or(found.first()).cloned();
    best.filter(|_| !name.is_empty()).ok_or_else(|| {
        let hint = "install it, or give its path; without --runtime containers are run by this program itself";
        refused(name, "no directory of PATH has such a program", Some(hint))
    })
}

/// Why a file cannot be executed, if it cannot.
fn unusable(program: &Path) -> Option<&'static str> {
    match std::fs::metadata(program) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Some("does not exist"),
        Err(_) => Some("cannot be reached"),
        Ok(meta) if meta.is_dir() => Some("is a directory"),
        Ok(_) if rustix::fs::access(program, Access::EXEC_OK).is_err() => Some("is not executable"),
        Ok(_) => None,
    }
}
