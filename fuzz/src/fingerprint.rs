//! Compares trees without `PartialEq`: by a hash of what `Debug` prints.

use std::fmt::{self, Debug, Write};

/// What of the printed text counts.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Keep {
    /// All of it.
    Everything,
    /// All but digits: trees that differ only in where they were written are the same.
    NoDigits,
}

/// A hash of `value`.
pub(crate) fn of(value: &dyn Debug, keep: Keep) -> u64 {
    let mut hasher = Hasher { hash: 0xcbf2_9ce4_8422_2325, keep };
    write!(hasher, "{value:?}").expect("a hasher takes any text");
    hasher.hash
}

struct Hasher {
    hash: u64,
    keep: Keep,
}

impl Write for Hasher {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes().filter(|byte| self.keep == Keep::Everything || !byte.is_ascii_digit()) {
            self.hash = (self.hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
        Ok(())
    }
}
