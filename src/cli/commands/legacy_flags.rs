//! Flags of Docker that ask for nothing here: those of `docker build` for its first builder, which BuildKit takes too, those that choose a builder, and content trust's.
//!
//! Scripts give them, so they are taken. Where one asks for something that will not happen, a warning says so.

use clap::{ArgAction, Args};

use crate::engine::Error;
use crate::runtime::AppArmor;

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
    #[arg(long, hide = true, value_parser = policy)]
    policy: Vec<String>,
    // Buildx has it behind `build`, too.
    #[arg(short = 'D', long, hide = true)]
    pub(super) debug: bool,
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
        if self.security_opt.iter().any(|option| profile(option).is_none()) {
            found.push(
                "--security-opt has no effect but for apparmor=PROFILE|unconfined: steps have the default profile, and `--allow security.insecure` lets one ask for more",
            );
        }
        if self.builder.as_deref().is_some_and(|name| name != "default") {
            found.push("--builder has no effect: there is no builder but this program");
        }
        found.into_iter().map(str::to_owned).collect()
    }

    /// The AppArmor profile of steps: the last that `--security-opt` names.
    ///
    /// # Errors
    /// It is not there.
    pub(super) fn apparmor(&self) -> Result<AppArmor, Error> {
        let named = self.security_opt.iter().filter_map(|option| profile(option)).next_back();
        let profile = named.map_or(AppArmor::Default, AppArmor::named);
        profile.must_be_there().map_err(Error::Runtime)?;
        Ok(profile)
    }
}

/// What an option says of AppArmor.
fn profile(option: &str) -> Option<&str> {
    option.split_once(['=', ':']).filter(|(name, profile)| *name == "apparmor" && !profile.is_empty()).map(|(_, profile)| profile)
}

// What Docker up to 28 takes for `pull`, `push`, `run` and `create`: its default asks for nothing.
#[derive(Debug, Default, Args)]
pub(super) struct TrustFlag {
    #[arg(long, hide = true, value_parser = without_trust, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    disable_content_trust: Option<bool>,
}

/// `--disable-content-trust`: only what says that nobody asks for it.
fn without_trust(text: &str) -> Result<bool, String> {
    match boolean(text)? {
        true => Ok(true),
        false => Err("signatures of Docker Content Trust cannot be checked or made: leave the flag out".into()),
    }
}

/// `--attest`: only what says that there shall be none.
fn attestation(text: &str) -> Result<String, String> {
    if text.split(',').any(|field| field == "disabled=true") {
        return Ok(text.to_owned());
    }
    Err("attestations are not supported yet: leave the flag out, or add `disabled=true`".into())
}

/// `--policy`: only what says that there shall be none.
fn policy(text: &str) -> Result<String, String> {
    if text.split(',').any(|field| field == "disabled=true") {
        return Ok(text.to_owned());
    }
    Err("policies about sources are not supported: leave the flag out, or add `disabled=true`".into())
}
