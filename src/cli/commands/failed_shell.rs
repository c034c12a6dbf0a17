//! `strake build --on-error=shell`: the user's terminal becomes that of a shell in the failed step's sandbox.

use std::io::IsTerminal;
use std::os::fd::AsFd;

use clap::ValueEnum;

use crate::cli::{env, report};
use crate::engine::Error;
use crate::executor::{FailedSlot, FailedStep};
use crate::runtime::TerminalSize;
use crate::runtime::container::{LocalIo, interact};

/// `--on-error`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum OnError {
    /// The build ends
    #[default]
    Fail,
    /// A shell in the sandbox of the RUN step that failed, then the build ends
    Shell,
}

/// Where a failed step is to be left; nowhere unless a shell is wanted.
pub(super) fn slot(on_error: OnError) -> Result<Option<FailedSlot>, Error> {
    if on_error == OnError::Fail {
        return Ok(None);
    }
    if !std::io::stdin().is_terminal() || !std::io::stdout().is_terminal() {
        let message = "--on-error=shell needs a terminal at its input and output".to_owned();
        return Err(Error::Usage { message, hint: Some("leave it out where nobody can type".into()) });
    }
    Ok(Some(FailedSlot::default()))
}

/// Opens the shell, and returns when the user has left it.
pub(super) fn open(mut step: FailedStep) {
    let size = rustix::termios::tcgetwinsize(std::io::stdout()).ok().filter(|size| size.ws_row > 0 && size.ws_col > 0);
    let size = size.map(|size| TerminalSize { rows: size.ws_row, columns: size.ws_col });
    let mut running = match step.shell(size, env::term().as_deref()) {
        Ok(running) => running,
        Err(error) => return report::warning("cannot open a shell in the failed step", &error),
    };
    report::tell("this is the sandbox of the failed step, as the command left it; what you change is dropped when you leave (`exit`)");
    let (stdin, stdout, stderr) = (std::io::stdin(), std::io::stdout(), std::io::stderr());
    let io = LocalIo { stdin: Some(stdin.as_fd()), stdout: stdout.as_fd(), stderr: stderr.as_fd() };
    if let Err(error) = interact(&mut running, io) {
        report::warning("the shell ended", &error);
    }
}
