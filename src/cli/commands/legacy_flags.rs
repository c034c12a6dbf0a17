//! Flags of `docker build` that ask for nothing here: those of Docker's first builder, which BuildKit takes too, and those that choose a builder.
//!
//! Scripts give them, so they are taken. Where one asks for something that will not happen, a warning says so.

use clap::{ArgAction, Args};

use super::build::boolean;

// Flags that are not in the help.
#[derive(Debug, Default, Args)]
pub(super) struct LegacyFlags {
    #[arg(long, hide = true, value_parser = boolean, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    rm: Option<bool>,
    #[arg(long, hide = true, value_parser = boolean, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    force_rm: Option<bool>,
    #[arg(long, hide = true, value_parser = boolean, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    compress: Option<bool>,
    #[arg(long, hide = true, value_parser = boolean, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    squash: Option<bool>,
    #[arg(long, hide = true)]
    security_opt: Vec<String>,
    #[arg(long, hide = true)]
    builder: Option<String>,
    #[arg(long, hide = true, value_parser = attestation)]
    attest: Vec<String>,
}

impl LegacyFlags {
    /// What was asked for and will not happen, a sentence for each.
    pub(super) fn warnings(&self) -> Vec<String> {
        let mut found = Vec::new();
        if self.rm == Some(false) {
            found.push("--rm=false has no effect: a step leaves no container behind that could be kept");
        }
        if self.compress == Some(true) {
            found.push("--compress has no effect: the context is read where it is");
        }
        if self.squash == Some(true) {
            found.push("--squash has no effect, as with BuildKit: `strake flatten` makes one layer of an image");
        }
        if !self.security_opt.is_empty() {
            found.push(
                "--security-opt has no effect: steps have the default profile, and `--allow security.insecure` lets one ask for more",
            );
        }
        if self.builder.as_deref().is_some_and(|name| name != "default") {
            found.push("--builder has no effect: there is no builder but this program");
        }
        found.into_iter().map(str::to_owned).collect()
    }
}

/// `--attest`: only what says that there shall be none.
fn attestation(text: &str) -> Result<String, String> {
    if text.split(',').any(|field| field == "disabled=true") {
        return Ok(text.to_owned());
    }
    Err("attestations are not supported yet: leave the flag out, or add `disabled=true`".into())
}
