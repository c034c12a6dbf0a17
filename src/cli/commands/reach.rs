//! The flags by which a command reaches one registry, or those of both sides of a copy, other than always: as whom, with which certificate, how often.

use std::convert::Infallible;
use std::path::PathBuf;

use clap::Args;

use crate::diag::Secret;
use crate::engine::{Access, Credential, Effort, Engine, Error, Place, Who};

use super::build::boolean;

// How one registry is reached.
#[derive(Clone, Debug, Args)]
pub(super) struct ReachArgs {
    /// The user and the password for the registry; others can read command lines
    #[arg(long, value_name = "USER:PASSWORD", value_parser = secret)]
    creds: Option<Secret<String>>,
    /// A token for the registry, sent as it is
    #[arg(long, value_name = "TOKEN", value_parser = secret, conflicts_with = "creds")]
    registry_token: Option<Secret<String>>,
    /// Use no credentials for the registry
    #[arg(long, conflicts_with_all = ["creds", "registry_token"])]
    no_creds: bool,
    /// Look for the registry's certificates (`*.crt`, `*.cert` with `*.key`) in this folder
    #[arg(long, value_name = "DIR")]
    cert_dir: Option<PathBuf>,
    /// Whether the registry must have the certificate for its name; with `=false` it need not even speak TLS
    #[arg(long, default_value_t = true, num_args = 0..=1, require_equals = true, default_missing_value = "true", action = clap::ArgAction::Set, value_parser = boolean, value_name = "BOOL")]
    tls_verify: bool,
    /// How often something is tried again that gets no further [default: 5]
    #[arg(long, value_name = "NUMBER")]
    retry_times: Option<u32>,
}

impl ReachArgs {
    /// The engine that reaches the registry of `place` so.
    pub(super) fn engine(&self, engine: &Engine, place: &Place) -> Result<Engine, Error> {
        engine.reaching(place, &self.access()?, effort(self.retry_times, None))
    }

    /// The engine that reaches a registry itself so.
    pub(super) fn engine_at(&self, engine: &Engine, registry: &str) -> Result<Engine, Error> {
        engine.reaching_registry(registry, &self.access()?, effort(self.retry_times, None))
    }

    fn access(&self) -> Result<Access, Error> {
        let who = who("--creds", self.creds.as_ref(), self.registry_token.as_ref(), self.no_creds)?;
        Ok(Access { who, authfile: None, certificates: self.cert_dir.clone(), insecure: !self.tls_verify })
    }
}

// How `copy` reaches the registries of either side.
#[derive(Debug, Args)]
pub(super) struct SidesArgs {
    /// The user and the password for the source's registry; others can read command lines
    #[arg(long, value_name = "USER:PASSWORD", value_parser = secret)]
    src_creds: Option<Secret<String>>,
    /// The user and the password for the destination's registry
    #[arg(long, value_name = "USER:PASSWORD", value_parser = secret)]
    dest_creds: Option<Secret<String>>,
    /// A token for the source's registry, sent as it is
    #[arg(long, value_name = "TOKEN", value_parser = secret, conflicts_with = "src_creds")]
    src_registry_token: Option<Secret<String>>,
    /// A token for the destination's registry, sent as it is
    #[arg(long, value_name = "TOKEN", value_parser = secret, conflicts_with = "dest_creds")]
    dest_registry_token: Option<Secret<String>>,
    /// Use no credentials for the source's registry
    #[arg(long, conflicts_with_all = ["src_creds", "src_registry_token"])]
    src_no_creds: bool,
    /// Use no credentials for the destination's registry
    #[arg(long, conflicts_with_all = ["dest_creds", "dest_registry_token"])]
    dest_no_creds: bool,
    /// Look for credentials for the source's registry in this file first
    #[arg(long, value_name = "FILE")]
    src_authfile: Option<PathBuf>,
    /// Look for credentials for the destination's registry in this file first
    #[arg(long, value_name = "FILE")]
    dest_authfile: Option<PathBuf>,
    /// Look for certificates of the source's registry (`*.crt`, `*.cert` with `*.key`) in this folder
    #[arg(long, value_name = "DIR")]
    src_cert_dir: Option<PathBuf>,
    /// Look for certificates of the destination's registry in this folder
    #[arg(long, value_name = "DIR")]
    dest_cert_dir: Option<PathBuf>,
    /// Whether the source's registry must have the certificate for its name; with `=false` it need not even speak TLS
    #[arg(long, default_value_t = true, num_args = 0..=1, require_equals = true, default_missing_value = "true", action = clap::ArgAction::Set, value_parser = boolean, value_name = "BOOL")]
    src_tls_verify: bool,
    /// The same of the destination's registry
    #[arg(long, default_value_t = true, num_args = 0..=1, require_equals = true, default_missing_value = "true", action = clap::ArgAction::Set, value_parser = boolean, value_name = "BOOL")]
    dest_tls_verify: bool,
}

impl SidesArgs {
    /// How the source is reached.
    pub(super) fn of_source(&self) -> Result<Access, Error> {
        let who = who("--src-creds", self.src_creds.as_ref(), self.src_registry_token.as_ref(), self.src_no_creds)?;
        Ok(Access { who, authfile: self.src_authfile.clone(), certificates: self.src_cert_dir.clone(), insecure: !self.src_tls_verify })
    }

    /// How the destination is reached.
    pub(super) fn of_dest(&self) -> Result<Access, Error> {
        let who = who("--dest-creds", self.dest_creds.as_ref(), self.dest_registry_token.as_ref(), self.dest_no_creds)?;
        Ok(Access { who, authfile: self.dest_authfile.clone(), certificates: self.dest_cert_dir.clone(), insecure: !self.dest_tls_verify })
    }
}

/// `--retry-times` and `--jobs`.
pub(super) fn effort(retry_times: Option<u32>, jobs: Option<u16>) -> Effort {
    Effort { attempts: retry_times.map(|times| times.saturating_add(1)), jobs: jobs.map(usize::from) }
}

/// Who somebody is that flags describe, the first of which is `flag`.
fn who(flag: &str, creds: Option<&Secret<String>>, token: Option<&Secret<String>>, nobody: bool) -> Result<Who, Error> {
    let Some(creds) = creds else {
        return Ok(match token {
            Some(token) => Who::Given(Credential::RegistryToken(token.clone())),
            None if nobody => Who::Anonymous,
            None => Who::Known,
        });
    };
    match creds.expose().split_once(':') {
        Some((username, password)) if !username.is_empty() => {
            Ok(Who::Given(Credential::Basic { username: username.to_owned(), password: Secret::new(password.to_owned()) }))
        }
        _ => Err(Error::Usage { message: format!("{flag} is not of the form `USER:PASSWORD`"), hint: None }),
    }
}

/// A secret, for clap: which shows what it cannot use, so this takes anything.
fn secret(text: &str) -> Result<Secret<String>, Infallible> {
    Ok(Secret::new(text.to_owned()))
}
