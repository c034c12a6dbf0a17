//! Further commands in a running container: what the user asked for, over what the container is.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;

use crate::executor::ops::lookup_user;
use crate::path::RootPath;
use crate::runtime::container::{self, Attachment, ExecRequest, State};
use crate::runtime::{Credentials, TerminalSize};

use super::super::{Engine, Error};
use super::prepare::unable;
use super::sharing::has_users;
use super::{ContainerInfo, names};

/// What is to run in a container.
#[derive(Clone, Debug)]
pub struct ExecOptions {
    /// The command and its arguments.
    pub args: Vec<String>,
    /// Variables beyond the container's, in order; one without a value is taken away.
    pub env: Vec<(String, Option<String>)>,
    /// The working directory; the container's where it is `None`.
    pub workdir: Option<String>,
    /// The user, as in `USER`; the container's where it is `None`.
    pub user: Option<String>,
    /// Whether it may do everything.
    pub privileged: bool,
    /// Whether it has a terminal.
    pub tty: bool,
    /// The size of that at first.
    pub terminal: Option<TerminalSize>,
    /// Whether it reads what the attachment sends.
    pub stdin: bool,
    /// Whether nobody listens to it.
    pub detach: bool,
}

impl Engine {
    /// Starts a command in a running container; gives its ID and the connection to it.
    ///
    /// # Errors
    /// The container does not run or stands still; there is no such user; the command cannot be started.
    pub fn exec_in_container(&self, info: &ContainerInfo, options: &ExecOptions) -> Result<(String, Attachment), Error> {
        self.must_run(info, "run a command in")?;
        let Some(spec) = &info.spec else { return Err(not_running(info)) };
        let mut process = spec.sandbox.process.clone();
        process.args = options.args.iter().map(OsString::from).collect();
        process.terminal = options.terminal;
        if let Some(workdir) = options.workdir.as_deref().filter(|workdir| !workdir.is_empty()) {
            if !workdir.starts_with('/') {
                let message = format!("the working directory `{workdir}` is not an absolute path");
                return Err(info.failed("run a command in", container::Error::Start { message, code: 126, hint: None }));
            }
            process.cwd = RootPath::new(workdir);
        }
        let mut home = None;
        if let Some(user) = &options.user {
            let user = self.in_container(info, |view| lookup_user(view, user))??;
            if spec.users.is_some() {
                has_users(&user, "another user with `--user`")?;
            }
            process.user = Credentials { uid: user.uid, gid: user.gid, additional_gids: user.additional_gids };
            home = spec.written.home_of_user.then(|| user.home.unwrap_or_else(|| "/".to_owned()));
        }
        if let Some(home) = home {
            set(&mut process.env, "HOME", Some(&home));
        }
        if options.tty && !process.env.iter().any(|entry| entry.as_bytes().starts_with(b"TERM=")) {
            set(&mut process.env, "TERM", Some("xterm"));
        }
        for (name, value) in &options.env {
            set(&mut process.env, name, value.as_deref());
        }
        if let Some(runtime) = &spec.runtime {
            runtime.can_execute(&process).map_err(|why| unable(runtime, &why))?;
        }
        let request = ExecRequest {
            id: names::random_hex()?,
            process,
            privileged: options.privileged,
            tty: options.tty,
            stdin: options.stdin,
            detach: options.detach,
        };
        let (_, attachment) = container::exec(&info.dir, &request).map_err(|source| match source {
            // It has just ended.
            container::Error::NotRunning | container::Error::Gone => not_running(info),
            source => info.failed("run a command in", source),
        })?;
        Ok((request.id, attachment))
    }

    /// Fails unless the container runs and does not stand still.
    pub(super) fn must_run(&self, info: &ContainerInfo, action: &str) -> Result<(), Error> {
        let name = &info.record.name;
        if info.is_paused() {
            let hint = Some(format!("`strake unpause {name}` lets it go on"));
            return Err(Error::Usage { message: format!("cannot {action} the container `{name}`: it is paused"), hint });
        }
        if matches!(info.state, Some(State::Restarting { .. })) {
            return Err(restarting(info, action));
        }
        if info.is_running() { Ok(()) } else { Err(not_running(info)) }
    }
}

/// What is said of one that its restart policy is about to start again.
pub(super) fn restarting(info: &ContainerInfo, action: &str) -> Error {
    let message = format!("cannot {action} the container `{}`: it is restarting", info.record.name);
    Error::Usage { message, hint: Some("wait until it runs".to_owned()) }
}

fn not_running(info: &ContainerInfo) -> Error {
    let name = &info.record.name;
    let hint = Some(format!("`strake start {name}` starts it"));
    Error::Usage { message: format!("the container `{name}` is not running"), hint }
}

/// Gives a variable a value in the place where it is, or takes it away.
fn set(env: &mut Vec<OsString>, name: &str, value: Option<&str>) {
    let is_it = |entry: &OsString| entry.as_bytes().strip_prefix(name.as_bytes()).is_some_and(|rest| rest.starts_with(b"="));
    let known = env.iter().position(is_it);
    match (known, value) {
        (Some(index), Some(value)) => env[index] = format!("{name}={value}").into(),
        (Some(index), None) => drop(env.remove(index)),
        (None, Some(value)) => env.push(format!("{name}={value}").into()),
        (None, None) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_replaced_in_place_added_and_taken_away() {
        let mut env: Vec<OsString> = vec!["A=1".into(), "AB=2".into(), "C=3".into()];
        for (name, value) in [("A", Some("x=y")), ("C", None), ("D", Some("")), ("E", None)] {
            set(&mut env, name, value);
        }
        assert_eq!(env, ["A=x=y", "AB=2", "D="]);
    }
}
