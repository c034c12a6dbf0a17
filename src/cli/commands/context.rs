//! `strake context ls`: what of the build context is sent, how large it is, and which pattern decided.

use std::io::{self, Write};
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand, ValueEnum};
use serde_json::json;

use crate::cli::render::size;
use crate::cli::report;
use crate::engine::{ContextEntry, ContextFiles, ContextTotal, DecidedBy, DockerfileSource, Error, ReadAs, Why};
use crate::sys::tree::Kind;

use super::build_context::local;
use super::parse::OutputFormat;

/// The version of the fields of `--format json`.
const SCHEMA: u32 = 1;

// Flags of `strake context`.
#[derive(Debug, Args)]
pub(in crate::cli) struct ContextArgs {
    #[command(subcommand)]
    command: ContextCommand,
}

#[derive(Debug, Subcommand)]
enum ContextCommand {
    /// List what of a build context is sent to a build
    ///
    /// Names are shown with `\` before what is not printable, and before `\` itself.
    Ls(LsArgs),
}

// Flags of `strake context ls`.
#[derive(Debug, Args)]
struct LsArgs {
    /// The build context
    #[arg(default_value = ".")]
    context: PathBuf,
    /// Say whether this path of the context is sent, and which pattern decided
    #[arg(long, value_name = "PATH")]
    why: Option<PathBuf>,
    /// The Dockerfile, whose own ignore file (`FILE.dockerignore`) replaces that of the context
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// The order; by size, a directory counts with all that is sent below it
    #[arg(long, value_enum, default_value = "name")]
    sort: Sort,
    /// How to write the list
    #[arg(long, value_enum, default_value = "text")]
    format: OutputFormat,
}

/// `--sort`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Sort {
    /// By path
    Name,
    /// The largest first
    Size,
}

/// Runs `strake context`.
pub(in crate::cli) fn run(args: ContextArgs) -> ExitCode {
    let ContextCommand::Ls(args) = args.command;
    super::exit(list(args))
}

fn list(args: LsArgs) -> Result<(), Error> {
    let dockerfile = match args.file {
        None => DockerfileSource::Default,
        Some(path) if path.as_os_str() == "-" => DockerfileSource::Stdin,
        Some(path) => DockerfileSource::Path(path),
    };
    let files = ContextFiles::open(&local(args.context.clone())?, &dockerfile)?;
    match (args.why, args.format) {
        (Some(path), OutputFormat::Text) => report::result(&explanation(&files.why(&path)?, &files)),
        (Some(path), OutputFormat::Json) => report::result(&explanation_json(&files.why(&path)?, &files).to_string()),
        (None, format) => {
            let mut failure = None;
            report::output(|out| {
                let mut list = List { out, format, first: true, sorted: args.sort };
                list.begin(&args.context.display().to_string(), &files)?;
                match list.entries(&files)? {
                    Ok(total) => list.end(total, &files),
                    Err(error) => {
                        failure = Some(error);
                        Ok(())
                    }
                }
            });
            return failure.map_or(Ok(()), Err);
        }
    }
    Ok(())
}

/// A list that is being written.
struct List<'a> {
    out: &'a mut dyn Write,
    format: OutputFormat,
    first: bool,
    sorted: Sort,
}

impl List<'_> {
    fn begin(&mut self, context: &str, files: &ContextFiles) -> io::Result<()> {
        match self.format {
            OutputFormat::Text => writeln!(self.out, "{:>8}  {:<6}  PATH", "SIZE", "KIND"),
            OutputFormat::Json => {
                let (context, ignore_file) = (json!(context), json!(ignore_file(files)));
                write!(self.out, "{{\"schema\":{SCHEMA},\"context\":{context},\"ignore_file\":{ignore_file},\"entries\":[")
            }
        }
    }

    /// Writes the files; the inner error is that of reading them.
    fn entries(&mut self, files: &ContextFiles) -> io::Result<Result<ContextTotal, Error>> {
        if self.sorted == Sort::Size {
            let (entries, total) = match files.by_size() {
                Ok(sorted) => sorted,
                Err(error) => return Ok(Err(error)),
            };
            entries.iter().try_for_each(|entry| self.entry(entry))?;
            return Ok(Ok(total));
        }
        let mut written = Ok(());
        let total = files.walk(|entry| {
            written = self.entry(entry);
            if written.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        });
        written.map(|()| total)
    }

    fn entry(&mut self, entry: &ContextEntry) -> io::Result<()> {
        let bytes = match entry.kind {
            Kind::File => Some(entry.size),
            Kind::Directory if self.sorted == Sort::Size => Some(entry.size),
            _ => None,
        };
        match self.format {
            OutputFormat::Text => {
                let shown = bytes.map_or_else(|| "-".to_owned(), size);
                writeln!(self.out, "{shown:>8}  {:<6}  {}", kind(entry.kind), escaped(&entry.path))
            }
            OutputFormat::Json => {
                self.out.write_all(if self.first { b"\n" } else { b",\n" })?;
                self.first = false;
                let mut value = json!({ "path": null, "escaped": null, "kind": kind(entry.kind), "size": bytes });
                (value["path"], value["escaped"]) = json_path(&entry.path);
                serde_json::to_writer(&mut self.out, &value).map_err(io::Error::from)
            }
        }
    }

    fn end(&mut self, total: ContextTotal, files: &ContextFiles) -> io::Result<()> {
        let ContextTotal { files: count, directories, others, bytes } = total;
        match self.format {
            OutputFormat::Text => {
                let mut line = format!(
                    "total {}: {}, {}",
                    size(bytes),
                    counted(count, "file", "files"),
                    counted(directories, "directory", "directories")
                );
                if others > 0 {
                    line.push_str(&format!(", {}", counted(others, "other", "others")));
                }
                let ignored = ignore_file(files).map_or_else(|| "no ignore file".to_owned(), |file| format!("ignore file {file}"));
                writeln!(self.out, "{line}; {ignored}")
            }
            OutputFormat::Json => {
                let total = json!({ "files": count, "directories": directories, "others": others, "bytes": bytes });
                writeln!(self.out, "\n],\"total\":{total}}}")
            }
        }
    }
}

fn counted(count: u64, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

fn ignore_file(files: &ContextFiles) -> Option<String> {
    use std::os::unix::ffi::OsStrExt;
    let file = files.ignore_file()?;
    Some(escaped(file.strip_prefix("./").unwrap_or(file).as_os_str().as_bytes()))
}

fn kind(kind: Kind) -> &'static str {
    match kind {
        Kind::File => "file",
        Kind::Directory => "dir",
        Kind::Symlink => "link",
        Kind::CharDevice | Kind::BlockDevice => "device",
        Kind::Fifo => "pipe",
        Kind::Socket => "socket",
    }
}

/// A name on one line that means one name: `\` before what is not printable, not UTF-8, or `\`.
fn escaped(name: &[u8]) -> String {
    let mut text = String::with_capacity(name.len());
    for chunk in name.utf8_chunks() {
        for character in chunk.valid().chars() {
            // Marks that change the direction of text could make a name look like another.
            let misleading = matches!(character, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}');
            match character {
                '\\' | '\n' | '\r' | '\t' => text.extend(character.escape_default()),
                _ if character.is_control() || misleading => text.extend(character.escape_unicode()),
                _ => text.push(character),
            }
        }
        chunk.invalid().iter().for_each(|byte| text.push_str(&format!("\\x{byte:02x}")));
    }
    text
}

/// A path as JSON: itself where it is UTF-8, or else escaped; and whether it is.
fn json_path(path: &[u8]) -> (serde_json::Value, serde_json::Value) {
    match std::str::from_utf8(path) {
        Ok(path) => (json!(path), json!(false)),
        Err(_) => (json!(escaped(path)), json!(true)),
    }
}

fn explanation(why: &Why, files: &ContextFiles) -> String {
    let sent = match (why.sent, why.kind) {
        (true, Some(_)) => "sent",
        (false, Some(_)) => "not sent",
        (true, None) => "would be sent",
        (false, None) => "would not be sent",
    };
    let what = why.kind.map_or("it does not exist", kind);
    let path = if why.path.is_empty() { ".".to_owned() } else { escaped(&why.path) };
    let mut text = format!("{sent}: {path} ({what})\n  {}", reason(why, files));
    if why.sent && why.ignored {
        text.push_str("\n  it is there for what is brought back below it");
    }
    if why.kind == Some(Kind::Socket) {
        text.push_str("\n  sockets are never sent");
    }
    if let Some(read_as) = why.read_as {
        let what = if read_as == ReadAs::Dockerfile { "the Dockerfile" } else { "the ignore file" };
        text.push_str(&format!("\n  it is {what}: the builder reads it in any case, and COPY sees it only where it is sent"));
    }
    text
}

fn reason(why: &Why, files: &ContextFiles) -> String {
    let Some(DecidedBy { file, line, pattern, matched }) = &why.decided_by else {
        return ignore_file(files).map_or_else(|| "there is no ignore file".to_owned(), |file| format!("no pattern of {file} matches it"));
    };
    let verb = if why.ignored { "ignores" } else { "brings back" };
    let what = if *matched == why.path { "it".to_owned() } else { format!("`{}` above it", escaped(matched)) };
    format!(
        "{}:{line}: `{}` {verb} {what}",
        escaped(file.strip_prefix("./").unwrap_or(file).as_os_str().as_encoded_bytes()),
        escaped(pattern.as_bytes())
    )
}

fn explanation_json(why: &Why, files: &ContextFiles) -> serde_json::Value {
    let (path, escaped_path) = json_path(&why.path);
    let decided_by = why.decided_by.as_ref().map(|decided| {
        json!({
            "file": ignore_file(files),
            "line": decided.line,
            "pattern": decided.pattern,
            "matched": json_path(&decided.matched).0,
        })
    });
    let read_as = why.read_as.map(|read_as| if read_as == ReadAs::Dockerfile { "dockerfile" } else { "ignore_file" });
    json!({
        "schema": SCHEMA,
        "path": path,
        "escaped": escaped_path,
        "kind": why.kind.map(kind),
        "sent": why.sent,
        "ignored": why.ignored,
        "decided_by": decided_by,
        "read_as": read_as,
    })
}

#[cfg(test)]
mod tests {
    use super::escaped;

    #[test]
    fn shown_names_are_on_one_line_and_differ_where_the_names_do() {
        for (name, shown) in [
            (&b"plain/name \xc3\xa9"[..], "plain/name \u{e9}"),
            (b"a\nb", "a\\nb"),
            (b"a\\nb", "a\\\\nb"),
            (b"\xff", "\\xff"),
            (b"\\xff", "\\\\xff"),
            (b"\x1b[31m", "\\u{1b}[31m"),
            ("a\u{202e}b".as_bytes(), "a\\u{202e}b"),
        ] {
            assert_eq!(escaped(name), shown);
        }
    }
}
