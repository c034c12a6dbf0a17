//! The command line: arguments, rendering, exit codes. No domain logic.
pub mod render;
