//! `strake login` and `logout`.
//!
//! The password is asked for without echo. While it is, Ctrl-C ends the line instead of the process, so that the terminal never stays without echo.

use std::io::{IsTerminal, Read, Write};
use std::process::ExitCode;

use clap::Args;
use rustix::termios::{LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcsetattr};

use crate::cli::{Global, report};
use crate::diag::Secret;
use crate::engine::{Error, LoginRequest, LogoutResult, Saved};
use crate::oci::DOCKER_HUB;

use super::build::boolean;
use super::{exit, until_interrupted, with_engine};

// Flags of `strake login`.
#[derive(Debug, Args)]
pub(in crate::cli) struct LoginArgs {
    /// The registry [default: docker.io]
    registry: Option<String>,
    /// The user
    #[arg(short, long, value_name = "NAME")]
    username: Option<String>,
    /// The password; it is better given with --password-stdin, as others can read command lines
    #[arg(short, long, value_name = "PASSWORD", conflicts_with = "password_stdin")]
    password: Option<String>,
    /// Read the password from standard input
    #[arg(long, requires = "username")]
    password_stdin: bool,
    /// Whether the registry must have the certificate for its name; with `=false` it need not even speak TLS
    #[arg(long, default_value_t = true, num_args = 0..=1, require_equals = true, default_missing_value = "true", action = clap::ArgAction::Set, value_parser = boolean, value_name = "BOOL")]
    tls_verify: bool,
    /// Show the user that is logged in, and nothing else
    #[arg(long, conflicts_with_all = ["username", "password", "password_stdin"])]
    get_login: bool,
}

// Flags of `strake logout`.
#[derive(Debug, Args)]
pub(in crate::cli) struct LogoutArgs {
    /// The registry [default: docker.io]
    #[arg(conflicts_with = "all")]
    registry: Option<String>,
    /// Forget the credentials for all registries
    #[arg(short, long)]
    all: bool,
}

/// The key that `Ctrl-C` sends.
const CTRL_C: u8 = 3;

/// How long a user name or a password may be.
const MAX_INPUT: u64 = 64 << 10;

/// Runs `strake login`.
pub(in crate::cli) fn login(global: &Global, args: LoginArgs) -> ExitCode {
    let (registry, tls_verify) = (args.registry.clone().unwrap_or_default(), args.tls_verify);
    if args.get_login {
        return exit(with_engine(global, None, |engine| async move {
            match engine.logged_in_as(&registry).await? {
                Some(user) => report::result(&user),
                None => {
                    let name = if registry.is_empty() { DOCKER_HUB } else { &registry };
                    return Err(Error::Usage { message: format!("not logged in to `{name}`"), hint: None });
                }
            }
            Ok(())
        }));
    }
    let (username, password) = match credentials(args) {
        Ok(credentials) => credentials,
        Err(error) => return exit(Err(error)),
    };
    exit(with_engine(global, None, |engine| async move {
        let result = until_interrupted(engine.login(LoginRequest { registry, username, password, tls_verify })).await?;
        if !result.checked {
            report::tell(&format!("warning: `{}` asks nobody for credentials, so these are not checked", result.registry));
        }
        match &result.saved {
            Saved::File(path) => report::tell(&format!("warning: the credentials are kept unencrypted in `{}`", path.display())),
            Saved::Helper(_) | Saved::Nothing => {}
        }
        report::result("Login Succeeded");
        Ok(())
    }))
}

/// Runs `strake logout`.
pub(in crate::cli) fn logout(global: &Global, args: LogoutArgs) -> ExitCode {
    exit(with_engine(global, None, |engine| async move {
        if args.all {
            for registry in engine.logout_of_all().await? {
                report::result(&format!("Removing login credentials for {registry}"));
            }
            return Ok(());
        }
        let LogoutResult { registry, forgotten, left } = engine.logout(&args.registry.unwrap_or_default()).await?;
        match (forgotten, left.is_empty()) {
            (true, _) => report::result(&format!("Removing login credentials for {registry}")),
            (false, true) => report::result(&format!("Not logged in to {registry}")),
            (false, false) => {}
        }
        for place in &left {
            report::tell(&format!("warning: `{place}` still has credentials for {registry}, which are used from now on"));
        }
        Ok(())
    }))
}

fn credentials(args: LoginArgs) -> Result<(String, Secret<String>), Error> {
    let missing = |what: &str| {
        let hint = Some("give both: `strake login -u NAME --password-stdin < FILE`".to_owned());
        Error::Usage { message: format!("there is no {what}, and no terminal to ask at"), hint }
    };
    let on_terminal = std::io::stdin().is_terminal();
    let username = match args.username {
        Some(username) => username,
        None if on_terminal => ask("Username: ")?,
        None => return Err(missing("user name")),
    };
    let password = match args.password {
        Some(password) => Secret::new(password),
        None if args.password_stdin => {
            let mut text = String::new();
            std::io::stdin().lock().take(MAX_INPUT).read_to_string(&mut text).map_err(unreadable)?;
            Secret::new(text.trim_end_matches(['\r', '\n']).to_owned())
        }
        None if on_terminal => {
            let _hidden = Hidden::begin()?;
            Secret::new(ask("Password: ")?)
        }
        None => return Err(missing("password")),
    };
    if username.is_empty() || password.expose().is_empty() {
        return Err(Error::Usage { message: "user name and password cannot be empty".into(), hint: None });
    }
    Ok((username, password))
}

/// Asks for one line at the terminal.
fn ask(prompt: &str) -> Result<String, Error> {
    {
        let mut out = std::io::stderr().lock();
        let _ = write!(out, "{prompt}").and_then(|()| out.flush());
    }
    let (mut line, mut byte) = (Vec::new(), [0]);
    let mut input = std::io::stdin().lock();
    while (line.len() as u64) < MAX_INPUT {
        match input.read(&mut byte).map_err(unreadable)? {
            0 => break,
            _ if byte[0] == b'\n' => break,
            _ if byte[0] == CTRL_C => return Err(Error::Interrupted),
            _ => line.push(byte[0]),
        }
    }
    Ok(String::from_utf8_lossy(&line).trim_end_matches('\r').to_owned())
}

fn unreadable(source: std::io::Error) -> Error {
    Error::Io { action: "read", path: "standard input".into(), source }
}

/// While it lives, the terminal does not show what is typed.
struct Hidden(Termios);

impl Hidden {
    fn begin() -> Result<Hidden, Error> {
        let failed = |error: rustix::io::Errno| Error::Io { action: "set up", path: "the terminal".into(), source: error.into() };
        let before = tcgetattr(std::io::stdin()).map_err(failed)?;
        let mut quiet = before.clone();
        quiet.local_modes.remove(LocalModes::ECHO | LocalModes::ISIG);
        quiet.local_modes.insert(LocalModes::ECHONL);
        quiet.special_codes[SpecialCodeIndex::VEOL] = CTRL_C;
        tcsetattr(std::io::stdin(), OptionalActions::Flush, &quiet).map_err(failed)?;
        Ok(Hidden(before))
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        // A terminal that has gone needs no echo.
        let _ = tcsetattr(std::io::stdin(), OptionalActions::Now, &self.0);
    }
}
