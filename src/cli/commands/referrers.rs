//! `strake referrers`: what is about an image at its registry.

use std::process::ExitCode;

use clap::Args;
use serde_json::{Value, json};

use crate::cli::format::{Format, format, given};
use crate::cli::render::size;
use crate::cli::table::{Table, tame};
use crate::cli::{Global, report};
use crate::engine::Place;
use crate::oci::{Descriptor, Platform, Reference};

use super::places::at_registry;
use super::reach::ReachArgs;
use super::{exit, until_interrupted, with_any_store};

// Flags of `strake referrers`.
#[derive(Debug, Args)]
pub(in crate::cli) struct ReferrersArgs {
    /// The image: its name at a registry
    #[arg(value_name = "NAME", value_parser = at_registry)]
    name: Reference,
    /// What is about the image for this platform [default: about what the name stands for, an index or an image]
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<Platform>,
    /// Only artifacts of this type
    #[arg(long, value_name = "TYPE")]
    artifact_type: Option<String>,
    /// `json`, or a template such as `{{.Digest}} {{.ArtifactType}}`
    #[arg(long, value_parser = format)]
    format: Option<Format>,
    #[command(flatten)]
    reach: ReachArgs,
}

/// Runs `strake referrers`.
pub(in crate::cli) fn referrers(global: &Global, args: ReferrersArgs) -> ExitCode {
    exit(with_any_store(global, |engine| async move {
        let engine = args.reach.engine(&engine, &Place::Registry(args.name.clone()))?;
        let asked = engine.remote_referrers(&args.name, args.platform.as_ref(), args.artifact_type.as_deref());
        let rows: Vec<Value> = until_interrupted(asked).await?.iter().map(row).collect();
        match given(&args.format) {
            Some(format) => format.show(&rows, &[("ArtifactType", "TYPE")]),
            None => {
                let mut table = Table::new(&["DIGEST", "TYPE", "SIZE"]);
                let field = |row: &Value, name: &str| row[name].as_str().unwrap_or_default().to_owned();
                for row in &rows {
                    table.row(vec![field(row, "Digest"), tame(&field(row, "ArtifactType")), size(row["Size"].as_u64().unwrap_or(0))]);
                }
                report::result(&table.render());
                Ok(())
            }
        }
    }))
}

fn row(found: &Descriptor) -> Value {
    json!({
        "Digest": found.digest.to_string(),
        "ArtifactType": found.artifact_type.clone().unwrap_or_default(),
        "MediaType": found.media_type.as_str(),
        "Size": found.size,
        "Annotations": found.annotations,
    })
}
