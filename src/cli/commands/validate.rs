//! `strake validate`: whether images are whole.

use std::error::Error as StdError;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use serde_json::{Value, json};

use crate::cli::format::{Format, format, given};
use crate::cli::render::size;
use crate::cli::{Global, report};
use crate::engine::{ArchiveFormat, Bad, Depth, Error, Place, ValidateRequest, Validation};
use crate::oci::Platform;

use super::places::{place, stored_place};
use super::several::Failures;
use super::{exit, until_interrupted, with_engine};

// Flags of `strake validate`.
#[derive(Debug, Args)]
pub(in crate::cli) struct ValidateArgs {
    /// The images: `NAME` or `ID` of the store, `docker://NAME` of a registry, `oci:DIR[:TAG]`, `oci-archive:FILE`,
    /// `docker-archive:FILE`
    #[arg(required_unless_present = "tarball", value_name = "IMAGE")]
    images: Vec<String>,
    /// An archive, all of whose images are looked at (may be given several times)
    #[arg(long, value_name = "FILE")]
    tarball: Vec<PathBuf>,
    /// Names are those of registries, not of the store
    #[arg(long)]
    remote: bool,
    /// Only the image for this platform of an index [default: all of them]
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<Platform>,
    /// Of layers, only look whether they are there and how large they are
    #[arg(long)]
    fast: bool,
    /// `json`, or a template such as `{{.Name}} {{.Good}}`
    #[arg(long, value_parser = format)]
    format: Option<Format>,
    /// Show nothing but what is wrong
    #[arg(short, long)]
    quiet: bool,
}

/// Runs `strake validate`.
pub(in crate::cli) fn run(global: &Global, args: ValidateArgs) -> ExitCode {
    exit(with_engine(global, None, |engine| async move {
        let usage = |message| Error::Usage { message, hint: None };
        let (mut failures, read) = (Failures::default(), if args.remote { place } else { stored_place });
        let mut places = args.images.iter().map(|text| read(text).map_err(usage)).collect::<Result<Vec<Place>, Error>>()?;
        let archive = |path: &PathBuf| Place::Archive { path: path.clone(), format: ArchiveFormat::Docker, name: None };
        places.extend(args.tarball.iter().map(archive));
        for place in places {
            let depth = if args.fast { Depth::Documents } else { Depth::Bytes };
            let request = ValidateRequest { place, platform: args.platform.clone(), depth };
            let outcome = until_interrupted(engine.validate(&request)).await.and_then(|found| show(&args, &request.place, &found));
            if let Err(error) = outcome {
                failures.add(error);
            }
        }
        failures.end()
    }))
}

/// Shows what was found; damage is an error.
fn show(args: &ValidateArgs, place: &Place, found: &Validation) -> Result<(), Error> {
    let name = place.to_string();
    if let Some(format) = given(&args.format) {
        report::result(&format.render(&value(&name, found))?);
    } else {
        for bad in &found.bad {
            report::result(&format!("{name}: {} {}: {}", bad.what, bad.digest, reason(bad)));
        }
        if found.bad.is_empty() && !args.quiet {
            let looked = format!("{}, {}, {}", count(found.manifests, "manifest"), count(found.blobs, "blob"), size(found.size));
            report::result(&format!("{name}: good ({looked})"));
        }
    }
    match found.bad.len() {
        0 => Ok(()),
        bad => {
            let hint = match place {
                Place::Store(_) => Some("remove the image, and pull or build it again".to_owned()),
                _ => None,
            };
            let parts = if bad == 1 { "a part of it is".to_owned() } else { format!("{bad} parts of it are") };
            Err(Error::Usage { message: format!("`{name}` is damaged: {parts} not what it should be"), hint })
        }
    }
}

fn count(number: usize, what: &str) -> String {
    if number == 1 { format!("1 {what}") } else { format!("{number} {what}s") }
}

fn value(name: &str, found: &Validation) -> Value {
    let bad: Vec<Value> = found.bad.iter().map(|bad| json!({ "Digest": bad.digest, "What": bad.what, "Reason": reason(bad) })).collect();
    let good = bad.is_empty();
    json!({ "Name": name, "Good": good, "Manifests": found.manifests, "Blobs": found.blobs, "Size": found.size, "Bad": bad })
}

/// What is wrong, in one line.
fn reason(bad: &Bad) -> String {
    let causes = std::iter::successors(bad.fault.source(), |cause| (*cause).source());
    causes.fold(bad.fault.to_string(), |text, cause| format!("{text}: {cause}"))
}
