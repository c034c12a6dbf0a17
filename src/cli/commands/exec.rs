//! `strake exec`: another command in a running container.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use crate::cli::{Global, report};
use crate::engine::{Error, ExecOptions};

use super::container_flags::{terminal_size, variables};
use super::containers::open;
use super::detach_keys::detach_keys;
use super::run::{self, failure_code};

// Flags of `strake exec`.
#[derive(Debug, Args)]
pub(in crate::cli) struct ExecArgs {
    /// The container
    container: String,
    /// The command and its arguments
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
    /// Run it in the background
    #[arg(short, long)]
    detach: bool,
    /// The keys that leave it without ending it [default: ctrl-p,ctrl-q]
    #[arg(long, value_name = "KEYS", value_parser = detach_keys_value)]
    detach_keys: Option<DetachKeys>,
    /// A variable; without `=`, that of the environment (may be given several times)
    #[arg(short, long = "env", value_name = "NAME[=VALUE]")]
    env: Vec<String>,
    /// A file with variables, one a line (may be given several times)
    #[arg(long, value_name = "FILE")]
    env_file: Vec<PathBuf>,
    /// Pass standard input on
    #[arg(short, long)]
    interactive: bool,
    /// Allow it everything
    #[arg(long)]
    privileged: bool,
    /// Give it a terminal
    #[arg(short, long)]
    tty: bool,
    /// The user: `NAME|UID[:GROUP|GID]`
    #[arg(short, long, value_name = "USER")]
    user: Option<String>,
    /// The working directory
    #[arg(short, long, value_name = "DIR")]
    workdir: Option<String>,
}

/// What the keys of `--detach-keys` send; a type of its own, since clap takes a list for several values.
#[derive(Clone, Debug)]
pub(super) struct DetachKeys(pub(super) Vec<u8>);

/// Reads `--detach-keys`, for clap.
pub(super) fn detach_keys_value(text: &str) -> Result<DetachKeys, String> {
    detach_keys(text).map(DetachKeys)
}

/// Runs `strake exec`.
pub(in crate::cli) fn exec(global: &Global, args: ExecArgs) -> ExitCode {
    match start(global, args) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            report::error(&error);
            ExitCode::from(match &error {
                // As with Docker: it cannot be executed as that user.
                Error::Prepare(_) => 126,
                error => match failure_code(error) {
                    run::FAILED => 1,
                    code => code,
                },
            })
        }
    }
}

fn start(global: &Global, args: ExecArgs) -> Result<u8, Error> {
    if args.interactive && args.tty && !args.detach && !std::io::stdin().is_terminal() {
        return Err(run::no_terminal());
    }
    let engine = open(global)?;
    let info = engine.container(&args.container)?;
    let options = ExecOptions {
        env: variables(&args.env_file, &args.env)?,
        args: args.command,
        workdir: args.workdir,
        user: args.user,
        privileged: args.privileged,
        tty: args.tty,
        terminal: terminal_size(args.tty),
        stdin: args.interactive && !args.detach,
        detach: args.detach,
    };
    let (_, attachment) = engine.exec_in_container(&info, &options)?;
    if args.detach {
        return Ok(0);
    }
    let streams = run::PumpFlags {
        interactive: args.interactive,
        tty: args.tty,
        forward_signals: false,
        detach_keys: args.detach_keys,
        streams: Vec::new(),
    };
    match run::pump(&engine, &info, attachment, streams) {
        Err(error) if run::has_no_reader(&error) => Ok(run::NO_READER),
        outcome => Ok(outcome?.code_of_guest()),
    }
}
