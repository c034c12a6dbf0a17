//! `strake registry serve` and `gc`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, Subcommand};
use tokio::signal::unix::{SignalKind, signal};

use crate::cli::render::size;
use crate::cli::{Global, env, report};
use crate::engine::{Collected, Error, RegistryEvent, ServeRequest, bind_registry, collect_registry};
use crate::task::CancellationToken;
use crate::task::parallelism;

use super::{exit, on_runtime};

// Flags of `strake registry`.
#[derive(Debug, Args)]
pub(in crate::cli) struct RegistryArgs {
    #[command(subcommand)]
    command: RegistryCommand,
}

#[derive(Debug, Subcommand)]
enum RegistryCommand {
    /// Serve a registry: push to it, pull from it, or let it stand for another one
    Serve(ServeArgs),
    /// Remove what no manifest of a registry's storage names any more; the registry may be served meanwhile
    Gc(GcArgs),
}

// Where a registry keeps what it has.
#[derive(Debug, Args)]
struct StorageArgs {
    /// The directory that it keeps everything in [default: /var/lib/strake-registry as root, $XDG_DATA_HOME/strake-registry otherwise]
    #[arg(long, value_name = "DIR")]
    storage: Option<PathBuf>,
    /// How long blobs that no manifest names and uploads that nobody ends are kept (as in `30m`)
    #[arg(long, value_name = "DURATION", default_value = "24h", value_parser = duration)]
    gc_grace: Duration,
}

impl StorageArgs {
    fn dir(&self, global: &Global) -> PathBuf {
        self.storage.clone().unwrap_or_else(|| env::registry_storage(global))
    }
}

// Flags of `strake registry serve`.
#[derive(Debug, Args)]
struct ServeArgs {
    /// Where to listen; without a host, on all addresses; port 0 is any free one, which is then shown
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:5000")]
    addr: String,
    #[command(flatten)]
    storage: StorageArgs,
    /// Only let in the users of this file, which `htpasswd -B` writes
    #[arg(long, value_name = "HTPASSWD")]
    auth: Option<PathBuf>,
    /// Speak TLS with this certificate (PEM, with the chain)
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// The key of the certificate (PEM)
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// Refuse everything that would change the registry
    #[arg(long, conflicts_with = "mirror")]
    readonly: bool,
    /// Stand for this registry: fetch what is asked for, and keep it (HOST:PORT/PREFIX, port and prefix if any, perhaps after `http://`)
    #[arg(long, value_name = "UPSTREAM")]
    mirror: Option<String>,
    /// How often to remove what no manifest names any more; 0 is never
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = duration)]
    gc_interval: Duration,
    /// Show every request
    #[arg(long)]
    access_log: bool,
}

// Flags of `strake registry gc`.
#[derive(Debug, Args)]
struct GcArgs {
    #[command(flatten)]
    storage: StorageArgs,
}

/// Runs `strake registry`.
pub(in crate::cli) fn run(global: &Global, args: RegistryArgs) -> ExitCode {
    match args.command {
        RegistryCommand::Serve(args) => serve(global, args),
        RegistryCommand::Gc(args) => gc(global, &args),
    }
}

fn serve(global: &Global, args: ServeArgs) -> ExitCode {
    let options = env::engine_options(global);
    let scheme = if args.tls_cert.is_some() { "https" } else { "http" };
    let request = ServeRequest {
        storage: args.storage.dir(global),
        address: args.addr,
        htpasswd: args.auth,
        tls: args.tls_cert.zip(args.tls_key),
        readonly: args.readonly,
        mirror: args.mirror,
        collect_every: Some(args.gc_interval).filter(|every| !every.is_zero()),
        grace: args.storage.gc_grace,
        log_requests: args.access_log,
        events: Arc::new(|event| tell(&event)),
    };
    exit(on_runtime(
        parallelism(),
        || Ok(()),
        |()| async move {
            // Before anything can be told to stop us.
            let mut signals = Signals::new()?;
            let server = bind_registry(&options, request).await?;
            report::result(&format!("listening on {scheme}://{}", server.address()));
            let stop = CancellationToken::new();
            let serving = server.run(stop.clone());
            tokio::pin!(serving);
            tokio::select! {
                () = &mut serving => return Ok(()),
                () = signals.next() => stop.cancel(),
            }
            report::tell("stopping as soon as transfers under way have ended; once more to stop now");
            tokio::select! {
                () = serving => {}
                () = signals.next() => {}
            }
            Ok(())
        },
    ))
}

/// What asks a server to stop.
struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

impl Signals {
    fn new() -> Result<Signals, Error> {
        let failed = |source| Error::Io { action: "watch", path: "the signals".into(), source };
        let interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
        Ok(Signals { interrupt, terminate: signal(SignalKind::terminate()).map_err(failed)? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

fn tell(event: &RegistryEvent) {
    match event {
        RegistryEvent::Access(access) => report::tell(&access.to_string()),
        RegistryEvent::Problem(problem) => report::tell(&format!("error: {problem}")),
        RegistryEvent::Collected(done) => report::tell(&collected(done)),
    }
}

fn collected(done: &Collected) -> String {
    format!("removed {} blobs of {} and {} uploads", done.blobs, size(done.bytes), done.uploads)
}

fn gc(global: &Global, args: &GcArgs) -> ExitCode {
    let (storage, grace) = (args.storage.dir(global), args.storage.gc_grace);
    exit(on_runtime(
        parallelism(),
        || Ok(()),
        |()| async move {
            match collect_registry(&storage, grace).await? {
                Some(done) => report::result(&collected(&done)),
                None => report::tell("another process is removing garbage just now"),
            }
            Ok(())
        },
    ))
}

/// Reads a duration, for clap.
fn duration(text: &str) -> Result<Duration, String> {
    let nanoseconds = crate::parser::duration::parse(text)?;
    u64::try_from(nanoseconds).map(Duration::from_nanos).map_err(|_| "a duration cannot be negative".to_owned())
}
