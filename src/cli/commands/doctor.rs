//! `strake doctor`: what this machine has and lacks.

use std::process::ExitCode;

use clap::Args;
use serde_json::json;

use crate::cli::format::{Format, format, given};
use crate::cli::table::Table;
use crate::cli::{Global, env, report};
use crate::engine::{Verdict, examine};

// Flags of `strake doctor`.
#[derive(Debug, Args)]
pub(in crate::cli) struct DoctorArgs {
    /// `json`, or a template such as `{{range .Findings}}{{.name}}: {{.verdict}}\n{{end}}`
    #[arg(long, value_parser = format)]
    format: Option<Format>,
}

/// Runs `strake doctor`.
pub(in crate::cli) fn run(global: &Global, args: &DoctorArgs) -> ExitCode {
    let findings = examine(&env::doctor_request(global));
    let works = findings.iter().all(|finding| finding.verdict != Verdict::Missing);
    match given(&args.format) {
        Some(format) => match format.render(&json!({ "Works": works, "Rootless": global.rootless, "Findings": findings })) {
            Ok(text) => report::result(&text),
            Err(error) => return super::exit(Err::<(), _>(error)),
        },
        None => {
            let mut table = Table::new(&["", "WHAT", "FOUND"]).with_narrowest(0);
            for finding in &findings {
                let word = match finding.verdict {
                    Verdict::Ok => "ok",
                    Verdict::Warn => "warn",
                    Verdict::Missing => "missing",
                };
                table.row(vec![word.to_owned(), finding.name.to_owned(), finding.found.clone()]);
                if let Some(fix) = &finding.fix {
                    table.row(vec![String::new(), String::new(), format!("-> {fix}")]);
                }
            }
            report::result(&table.render());
            let limited = findings.iter().any(|finding| finding.name == "namespaces" && finding.verdict == Verdict::Warn);
            report::result(if works && limited {
                "\nbuilds work here, and containers that are removed at their end"
            } else if works {
                "\nbuilds and containers work here"
            } else {
                "\nnot everything works here until what is missing is there"
            });
        }
    }
    if works { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
