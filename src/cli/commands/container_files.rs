//! `strake cp`, `export` and `commit`: files in and out of a container, all of them as an archive, and as an image.

use std::io::{BufWriter, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;

use crate::cli::render::size;
use crate::cli::{Global, report};
use crate::engine::{CommitRequest, CopyFiles, Error};
use crate::oci::Reference;

use super::containers::open;
use super::{exit, tag_name};

// Flags of `strake cp`.
#[derive(Debug, Args)]
pub(in crate::cli) struct CpArgs {
    /// What to copy: `CONTAINER:PATH`, a path of this machine, or `-` for a tar archive at standard input
    #[arg(allow_hyphen_values = true)]
    from: String,
    /// Where to: the same, with `-` for standard output
    #[arg(allow_hyphen_values = true)]
    to: String,
    /// Keep users and groups
    #[arg(short, long)]
    archive: bool,
    /// Follow a link that is to be copied
    #[arg(short = 'L', long)]
    follow_link: bool,
    /// Say nothing
    #[arg(short, long)]
    quiet: bool,
}

// Flags of `strake export`.
#[derive(Debug, Args)]
pub(in crate::cli) struct ExportArgs {
    /// The container
    container: String,
    /// The file to write [default: standard output]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

// Flags of `strake commit`.
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

/// `CONTAINER:PATH`; a path with a slash or a dot at its beginning is one of this machine, whatever it holds.
fn in_container(text: &str) -> Option<(&str, &str)> {
    if text.starts_with(['/', '.']) {
        return None;
    }
    text.split_once(':').filter(|(container, path)| !container.is_empty() && !path.is_empty())
}

/// Runs `strake cp`.
pub(in crate::cli) fn cp(global: &Global, args: &CpArgs) -> ExitCode {
    exit(open(global).and_then(|engine| {
        let usage = |message: &str, hint: &str| Error::Usage { message: message.to_owned(), hint: Some(hint.to_owned()) };
        let words = "write `strake cp CONTAINER:PATH PATH` or `strake cp PATH CONTAINER:PATH`";
        let flags = CopyFiles { archive: args.archive, follow: args.follow_link };
        let copied = match (in_container(&args.from), in_container(&args.to)) {
            (Some((container, path)), None) => {
                if args.to == "-" && std::io::stdout().is_terminal() {
                    return Err(usage("an archive is not for a terminal", "redirect the output, or name a path"));
                }
                let info = engine.container(container)?;
                match args.to.as_str() {
                    "-" => engine.archive_from_container(&info, path, flags, &mut std::io::stdout().lock()).map(|()| 0)?,
                    to => engine.copy_from_container(&info, path, Path::new(to), flags)?,
                }
            }
            (None, Some((container, path))) => {
                let info = engine.container(container)?;
                match args.from.as_str() {
                    "-" => engine.archive_to_container(&info, std::io::stdin(), path).map(|()| 0)?,
                    from => engine.copy_to_container(&info, Path::new(from), path, flags)?,
                }
            }
            (Some(_), Some(_)) => {
                return Err(usage("files cannot be copied from one container to another", "copy them to this machine first"));
            }
            (None, None) => return Err(usage("neither of the two paths is in a container", words)),
        };
        // Scripts are told nothing, as with Docker.
        if !args.quiet && args.from != "-" && args.to != "-" && std::io::stdout().is_terminal() {
            report::tell(&format!("copied {} to {}", size(copied), args.to));
        }
        Ok(())
    }))
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
