//! The local terminal of an attached client: raw while attached, as it was afterwards, on every way out.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::termios::{OptionalActions, Termios, isatty, tcgetattr, tcgetwinsize, tcsetattr};

use super::Error;
use crate::runtime::TerminalSize;

/// A terminal that passes every key on; dropping it restores what it was.
#[derive(Debug)]
pub struct RawMode {
    terminal: OwnedFd,
    before: Termios,
}

impl RawMode {
    /// Makes the terminal raw. `None` where `fd` is no terminal.
    pub fn enter(fd: BorrowedFd<'_>) -> Result<Option<RawMode>, Error> {
        if !isatty(fd) {
            return Ok(None);
        }
        let terminal = fd.try_clone_to_owned().map_err(Error::local("use the terminal"))?;
        let before = tcgetattr(&terminal).map_err(Error::local("read the terminal's settings"))?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(&terminal, OptionalActions::Drain, &raw).map_err(Error::local("make the terminal raw"))?;
        Ok(Some(RawMode { terminal, before }))
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        // A terminal that is gone needs no settings.
        let _ = tcsetattr(&self.terminal, OptionalActions::Drain, &self.before);
    }
}

/// The size of a terminal; `None` where `fd` is none or does not know.
pub(super) fn size(fd: impl AsFd) -> Option<TerminalSize> {
    let size = tcgetwinsize(fd).ok()?;
    (size.ws_row > 0 && size.ws_col > 0).then_some(TerminalSize { rows: size.ws_row, columns: size.ws_col })
}
