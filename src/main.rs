//! The `strake` binary.

fn main() {}
