//! `strake export` and `strake commit`: the files of a container as an archive, and as an image.

use std::io::{BufWriter, IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use crate::cli::{Global, report};
use crate::engine::{CommitRequest, Error};
use crate::oci::Reference;

use super::containers::open;
use super::{exit, tag_name};

/// Flags of `strake export`.
#[derive(Debug, Args)]
pub(in crate::cli) struct ExportArgs {
    /// The container
    container: String,
    /// The file to write [default: standard output]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// Flags of `strake commit`.
#[derive(Debug, Args)]
pub(in crate::cli) struct CommitArgs {
    /// The container
    container: String,
    /// The image's name
    #[arg(value_name = "NAME[:TAG]", value_parser = tag_name)]
    name: Option<Reference>,
    /// Who made it
    #[arg(short, long, default_value = "", value_name = "TEXT")]
    author: String,
    /// A remark
    #[arg(short, long, default_value = "", value_name = "TEXT")]
    message: String,
    /// An instruction that changes its config, such as `CMD ["app"]` (may be given several times)
    #[arg(short, long, value_name = "INSTRUCTION")]
    change: Vec<String>,
    /// Let the container stand still meanwhile; with `=false` it goes on
    #[arg(short, long, default_value_t = true, num_args = 0..=1, require_equals = true, default_missing_value = "true", action = clap::ArgAction::Set, value_name = "BOOL")]
    pause: bool,
}

/// Runs `strake export`.
pub(in crate::cli) fn export(global: &Global, args: &ExportArgs) -> ExitCode {
    exit(open(global).and_then(|engine| {
        let info = engine.container(&args.container)?;
        let Some(path) = &args.output else {
            let stdout = std::io::stdout();
            if stdout.is_terminal() {
                let hint = Some("name a file with -o, or redirect the output".to_owned());
                return Err(Error::Usage { message: "an archive is not for a terminal".to_owned(), hint });
            }
            return engine.export_container(&info, &mut stdout.lock());
        };
        let failed = |action| move |source| Error::Io { action, path: path.clone(), source };
        let mut file = BufWriter::new(std::fs::File::create(path).map_err(failed("create"))?);
        engine.export_container(&info, &mut file)?;
        file.flush().map_err(failed("write"))
    }))
}

/// Runs `strake commit`.
pub(in crate::cli) fn commit(global: &Global, args: CommitArgs) -> ExitCode {
    exit(open(global).and_then(|engine| {
        let info = engine.container(&args.container)?;
        let CommitArgs { name, author, message, change, pause, .. } = args;
        let request = CommitRequest { name, author, message, changes: change, pause };
        let image = engine.commit_container(&info, &request)?;
        report::result(&image.id.to_string());
        Ok(())
    }))
}
