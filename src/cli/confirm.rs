//! Asking before something goes that somebody may miss, in the words of Docker's commands.
//!
//! The question goes to standard output and the answer comes from standard input, whatever they are: without a terminal, the end of the input is a no.

use std::io::{BufRead, Write};

/// Asks whether `warning` is meant, and says whether the answer was `y`.
pub(super) fn confirmed(warning: &str) -> bool {
    {
        let mut out = std::io::stdout().lock();
        let asked = write!(out, "WARNING! {warning}Are you sure you want to continue? [y/N] ").and_then(|()| out.flush());
        if asked.is_err() {
            // Nobody was asked.
            return false;
        }
    }
    let mut answer = String::new();
    let read = std::io::stdin().lock().read_line(&mut answer);
    read.is_ok() && answer.trim().eq_ignore_ascii_case("y")
}
