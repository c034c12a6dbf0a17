//! `strake build logs`: what the steps of a build wrote, whole.

use std::fs::File;
use std::io::{self, Write};
use std::process::ExitCode;

use clap::Args;

use crate::cli::table::{Table, ago};
use crate::cli::{Global, report};
use crate::engine::{Engine, Error, LoggedBuild};

use super::{exit, with_engine};

// Flags of `strake build logs`.
#[derive(Debug, Args)]
pub(in crate::cli) struct BuildLogsArgs {
    /// The build, as `--list` names it, or the beginning of that [default: the latest that ran a step]
    build: Option<String>,
    /// List the builds whose logs are kept
    #[arg(short, long)]
    list: bool,
    /// Show only steps whose title has this in it
    #[arg(long, value_name = "TEXT")]
    step: Option<String>,
}

/// Runs `strake build logs`.
pub(in crate::cli) fn run(global: &Global, args: &BuildLogsArgs) -> ExitCode {
    exit(with_engine(global, None, |engine| async move {
        let builds = engine.store().logged_builds()?;
        if args.list { list(&builds) } else { show(&engine, &builds, args) }
    }))
}

fn list(builds: &[LoggedBuild]) -> Result<(), Error> {
    let mut table = Table::new(&["BUILD", "BEGAN", "STEPS", "LAST STEP"]);
    for build in builds {
        let last = build.steps.last().map(|(title, _)| title.clone()).unwrap_or_default();
        table.row(vec![build.id.clone(), ago(build.at), build.steps.len().to_string(), last]);
    }
    report::result(&table.render());
    Ok(())
}

fn show(engine: &Engine, builds: &[LoggedBuild], args: &BuildLogsArgs) -> Result<(), Error> {
    let found = match &args.build {
        Some(id) => builds.iter().find(|build| build.id.starts_with(id.as_str())),
        None => builds.first(),
    };
    let Some(build) = found else {
        let message = match &args.build {
            Some(id) => format!("there are no logs of a build `{id}` in the store `{}`", engine.options().root.display()),
            None => format!("no build in the store `{}` has run a step", engine.options().root.display()),
        };
        return Err(Error::Usage { message, hint: Some("`strake build logs --list` shows the builds whose logs are kept".into()) });
    };
    let wanted = |title: &str| args.step.as_ref().is_none_or(|text| title.contains(text.as_str()));
    let steps: Vec<_> = build.steps.iter().filter(|(title, _)| wanted(title)).collect();
    if let (Some(text), true) = (&args.step, steps.is_empty()) {
        let message = format!("no step of the build `{}` has `{text}` in its title", build.id);
        return Err(Error::Usage { message, hint: Some("without `--step`, the steps that ran are shown with their titles".into()) });
    }
    for (title, path) in steps {
        report::result(&format!("==> {title}"));
        let copied = File::open(path).and_then(|mut file| {
            let mut out = io::stdout().lock();
            io::copy(&mut file, &mut out).and_then(|_| out.flush())
        });
        match copied {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
            Err(source) => return Err(Error::Io { action: "show", path: path.clone(), source }),
            Ok(()) => {}
        }
    }
    Ok(())
}
