//! Completion of command lines in shells: `strake completion`, and the answers to the shell.
//!
//! What a shell is given only asks this program each time, so that it offers the commands and flags of the version that is there, and the names of what is in the store. It asks by an
//! environment variable, and that is looked at before any command is.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Arg, Args, Command, CommandFactory, ValueEnum};
use clap_complete::CompleteEnv;
use clap_complete::engine::{ArgValueCandidates, ArgValueCompleter, CompletionCandidate, PathCompleter, ValueCompleter as _};
use clap_complete::env::{Bash, EnvCompleter, Fish, Shells, Zsh};

use crate::engine::{Engine, Error};

use super::{Arguments, Global, env, report};

/// How the program is called in a shell.
const NAME: &str = "strake";

/// The shells that it is made for.
const SHELLS: Shells<'static> = Shells(&[&Bash, &Zsh, &Fish]);

// Flags of `strake completion`.
#[derive(Debug, Args)]
pub(super) struct CompletionArgs {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

/// A shell that can be told.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Shell {
    /// `source <(strake completion bash)` in ~/.bashrc
    Bash,
    /// `source <(strake completion zsh)` in ~/.zshrc
    Zsh,
    /// `strake completion fish | source` in ~/.config/fish/config.fish
    Fish,
}

/// Runs `strake completion`.
pub(super) fn run(args: &CompletionArgs) -> ExitCode {
    let shell: &dyn EnvCompleter = match args.shell {
        Shell::Bash => &Bash,
        Shell::Zsh => &Zsh,
        Shell::Fish => &Fish,
    };
    report::output(|mut out| shell.write_registration(env::COMPLETE, NAME, NAME, NAME, &mut out));
    ExitCode::SUCCESS
}

/// Answers a shell, if it is one that asks.
pub(super) fn answer() -> Option<ExitCode> {
    let asked = CompleteEnv::with_factory(described).var(env::COMPLETE).bin(NAME).completer(NAME).shells(SHELLS);
    match asked.try_complete(std::env::args_os(), std::env::current_dir().ok().as_deref()) {
        Ok(true) => Some(ExitCode::SUCCESS),
        Ok(false) => None,
        Err(_) => Some(ExitCode::FAILURE),
    }
}

/// The command line, with what is asked of the store where a name is wanted.
fn described() -> Command {
    let mut root = Arguments::command();
    // Flags are described when they are asked for, which this does for all commands.
    root.build();
    root.mut_subcommands(|command| {
        let name = command.get_name().to_owned();
        let command = command.mut_args(|arg| named(arg, "", &name));
        command.mut_subcommands(|below| {
            let own = below.get_name().to_owned();
            below.mut_args(|arg| named(arg, &name, &own))
        })
    })
}

/// What has names.
#[derive(Clone, Copy)]
enum Kind {
    Container,
    Image,
    Network,
    Volume,
}

/// An argument, with the names that it may have; `group` is the word before the command's.
fn named(arg: Arg, group: &str, command: &str) -> Arg {
    let kinds: &'static [Kind] = match (arg.get_id().as_str(), group, command) {
        ("from" | "to", "" | "container", "cp") => return arg.add(ArgValueCompleter::new(in_container)),
        ("container" | "containers" | "volumes_from", ..) | ("names", "container", _) => &[Kind::Container],
        ("networks" | "network", "network", _) | ("names" | "name", "network", "inspect") | ("network", _, "run" | "create") => {
            &[Kind::Network]
        }
        ("names", "volume", _) => &[Kind::Volume],
        ("names", "", "inspect") => &[Kind::Container, Kind::Image, Kind::Network, Kind::Volume],
        ("from", _, "diff") => &[Kind::Container, Kind::Image],
        ("image" | "images", ..) | ("names", "image", _) | ("name", _, "pull" | "push") | ("to", "", "diff") => &[Kind::Image],
        _ => return arg,
    };
    arg.add(ArgValueCandidates::new(move || kinds.iter().flat_map(|kind| names(*kind)).collect()))
}

/// The names of that kind. Where there is no store, or none that can be read, there are none: the command itself says why.
fn names(kind: Kind) -> Vec<CompletionCandidate> {
    let root = root_of(std::env::args_os()).or_else(env::root);
    let options = env::engine_options(&Global { root, rootless: !crate::runtime::is_root(), ..Global::default() });
    if !Path::new(&options.root).join("version").exists() {
        return Vec::new();
    }
    Engine::open(options, None).and_then(|engine| found(&engine, kind)).unwrap_or_default()
}

fn found(engine: &Engine, kind: Kind) -> Result<Vec<CompletionCandidate>, Error> {
    let plain = |name: String| CompletionCandidate::new(name);
    Ok(match kind {
        Kind::Container => {
            let told = |status: &str, image: &str| Some(format!("{status}, {image}").into());
            engine
                .containers()?
                .into_iter()
                .map(|info| {
                    let image = info.spec.as_ref().map_or("", |spec| spec.image.as_str());
                    plain(info.record.name.clone()).help(told(info.status(), image))
                })
                .collect()
        }
        Kind::Image => engine.images()?.iter().flat_map(|image| &image.names).map(|named| plain(named.name.familiar())).collect(),
        Kind::Network => engine.networks()?.into_iter().map(|network| plain(network.config.plan.name)).collect(),
        Kind::Volume => engine.volumes()?.into_iter().map(|volume| plain(volume.record.name)).collect(),
    })
}

/// `CONTAINER:`, or a path of this machine.
fn in_container(current: &std::ffi::OsStr) -> Vec<CompletionCandidate> {
    let mut all = PathCompleter::any().complete(current);
    let wanted = current.to_str().unwrap_or("/");
    let containers = names(Kind::Container).into_iter().filter_map(|known| Some(format!("{}:", known.get_value().to_str()?)));
    all.extend(containers.filter(|known| known.starts_with(wanted)).map(CompletionCandidate::new));
    all
}

/// `--root` of the line that is being written.
fn root_of(words: impl Iterator<Item = OsString>) -> Option<PathBuf> {
    let words: Vec<OsString> = words.collect();
    let next = words.iter().position(|word| word == "--root").and_then(|at| words.get(at + 1)).map(PathBuf::from);
    next.or_else(|| words.iter().find_map(|word| word.to_str()?.strip_prefix("--root=").map(PathBuf::from)))
}
