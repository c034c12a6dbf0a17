//! The `strake` binary.

fn main() -> std::process::ExitCode {
    strake::cli::main()
}
