//! The command line: arguments, rendering, exit codes. No domain logic.
//!
//! This is the only folder that prints, reads the environment or looks for the home directory; the rest gets values.

mod call;
mod commands;
mod completion;
mod config;
mod confirm;
mod env;
mod format;
mod go_flags;
mod render;
mod report;
mod settler;
mod table;
mod template;
mod trace;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

use commands::build::BuildArgs;
pub use render::ProgressMode;

/// Builds Dockerfiles, moves the images and runs them. No daemon.
#[derive(Debug, Parser)]
#[command(name = "strake", version, arg_required_else_help = true, args_override_self = true)]
struct Arguments {
    #[command(flatten)]
    global: Global,
    /// Tell what happens inside, on standard error (before the command; the same as `--log-level debug`)
    #[arg(short = 'D', long)]
    debug: bool,
    /// How much is told of what happens inside (before the command)
    #[arg(short, long, value_name = "LEVEL", value_enum, ignore_case = true)]
    log_level: Option<trace::LogLevel>,
    #[command(subcommand)]
    command: Command,
}

// What every command takes.
#[derive(Debug, Default, clap::Args)]
struct Global {
    /// The store's directory [default: /var/lib/strake as root, $XDG_DATA_HOME/strake otherwise]
    #[arg(long, global = true, value_name = "DIR", env = env::if_set(env::ROOT), hide_env = true)]
    root: Option<PathBuf>,
    /// Use plain HTTP with this registry (host, or host:port; may be given several times)
    #[arg(long, global = true, value_name = "HOST")]
    plain_http: Vec<String>,
    /// Do not check the certificate of this registry (may be given several times)
    #[arg(long, global = true, value_name = "HOST")]
    tls_skip_verify: Vec<String>,
    /// Credentials for registries are in this file first, and logins are kept there [default: $REGISTRY_AUTH_FILE]
    #[arg(long, global = true, value_name = "FILE")]
    authfile: Option<PathBuf>,
    /// Whether this runs without the rights of root, whatever its name: that cannot be told any more once this process is root in a user namespace.
    #[arg(skip = !crate::runtime::is_root())]
    rootless: bool,
}

// `defer`: the flags of a command are described only when it is the one that is run; all of them together take a millisecond of each start. What it is for comes from here, so the
// types of the flags have no documentation comment of their own, which would take its place.
#[derive(Debug, Subcommand)]
#[command(defer = true)]
enum Command {
    /// Build an image from a Dockerfile
    Build(Box<BuildArgs>),
    /// Show the syntax tree of a Dockerfile
    Parse(commands::parse::ParseArgs),
    /// Look at a build context
    Context(commands::context::ContextArgs),
    /// Fetch an image from a registry
    Pull(commands::transfer::PullArgs),
    /// Send an image to a registry
    Push(commands::transfer::PushArgs),
    /// Write images to an archive
    Save(commands::transfer::SaveArgs),
    /// Load the images of an archive
    Load(commands::transfer::LoadArgs),
    /// Make an image of a root file system in a tar archive
    Import(commands::transfer::ImportArgs),
    /// Copy an image from one place to another as it is: registries, the store, layouts, archives
    Copy(Box<commands::remote::CopyArgs>),
    /// Show the manifest of an image, at its registry or elsewhere
    Manifest(commands::remote::DocumentArgs),
    /// Show the config of an image, at its registry or elsewhere
    Config(commands::remote::ConfigArgs),
    /// Show the digest that an image has, at its registry or elsewhere
    Digest(commands::remote::DigestArgs),
    /// Show a blob of a repository, whole and checked
    Blob(commands::remote::BlobArgs),
    /// List what is about an image at its registry: signatures, bills of materials and the like
    Referrers(commands::referrers::ReferrersArgs),
    /// List the tags of a repository
    #[command(visible_alias = "list-tags")]
    Ls(commands::remote::LsArgs),
    /// List the repositories of a registry
    Catalog(commands::remote::CatalogArgs),
    /// Make indexes of images at a registry, and change them
    Index(commands::index::IndexArgs),
    /// Delete tags or images at their registry
    Delete(commands::remote::DeleteArgs),
    /// Check all bytes of images: every digest, every size, every layer
    Validate(commands::validate::ValidateArgs),
    /// Show what differs between two images, files and config, or what a container has changed
    Diff(commands::diff::DiffArgs),
    /// Make an image with another config, labels, annotations or platform
    Mutate(Box<commands::edit::MutateArgs>),
    /// Make an image with more layers, from tar archives
    Append(commands::edit::AppendArgs),
    /// Make an image whose layers are one
    Flatten(commands::edit::FlattenArgs),
    /// Make an image on another base
    Rebase(commands::edit::RebaseArgs),
    /// Search Docker Hub or a registry for repositories
    Search(commands::search::SearchArgs),
    /// Manage images, in the words of `docker image`
    Image(commands::image::ImageArgs),
    /// List the images
    Images(commands::images::ImagesArgs),
    /// Give an image one more name
    Tag(commands::images::TagArgs),
    /// Remove images, or names of images
    Rmi(commands::images::RmiArgs),
    /// Show all that is known of containers, images, networks and volumes
    Inspect(commands::inspect::InspectArgs),
    /// Show how an image came to be
    History(commands::images::HistoryArgs),
    /// Manage containers, in the words of `docker container`
    Container(commands::container::ContainerArgs),
    /// Manage volumes
    Volume(commands::volume::VolumeArgs),
    /// Manage networks
    Network(commands::network::NetworkArgs),
    /// Make a container, without starting it
    #[command(disable_help_flag = true)]
    Create(Box<commands::run::CreateArgs>),
    /// Run a command in a new container
    #[command(disable_help_flag = true)]
    Run(Box<commands::run::RunArgs>),
    /// Run another command in a running container
    Exec(commands::exec::ExecArgs),
    /// List containers
    Ps(commands::containers::PsArgs),
    /// Show what a container wrote
    Logs(commands::containers::LogsArgs),
    /// Stop containers
    Stop(commands::containers::StopArgs),
    /// Start containers that were stopped
    Start(commands::containers::StartArgs),
    /// Stop containers and start them again
    Restart(commands::life::RestartArgs),
    /// Make all processes of containers stand still
    Pause(commands::life::PauseArgs),
    /// Let containers go on that stand still
    Unpause(commands::life::PauseArgs),
    /// Give a container another name
    Rename(commands::life::RenameArgs),
    /// Change the limits and the restart policy of containers
    Update(commands::life::UpdateArgs),
    /// Show the processes of a container
    Top(commands::container_views::TopArgs),
    /// Show what containers use
    Stats(commands::container_views::StatsArgs),
    /// Show the ports that a container has published
    Port(commands::ports::PortArgs),
    /// Copy files into a container, or out of it
    Cp(commands::container_files::CpArgs),
    /// Make an image of a container
    Commit(commands::container_files::CommitArgs),
    /// Write all files of a container to an archive
    Export(commands::container_files::ExportArgs),
    /// Show what happens to containers and volumes
    Events(commands::events::EventsArgs),
    /// Send a signal to containers
    Kill(commands::containers::KillArgs),
    /// Wait for the end of containers, and show their exit codes
    Wait(commands::containers::WaitArgs),
    /// Be the terminal of a running container
    Attach(commands::containers::AttachArgs),
    /// Be the OCI runtime that another engine calls: create, start, state, kill, delete, exec and others
    #[command(disable_help_flag = true)]
    Oci(commands::oci::Misplaced),
    /// Remove containers
    Rm(commands::containers::RmArgs),
    /// Free what nothing needs
    Prune(commands::prune::PruneArgs),
    /// Build images, look at the build cache, and free it
    #[command(visible_alias = "buildx")]
    Builder(commands::builder::BuilderArgs),
    /// Look at the whole store
    System(commands::system::SystemArgs),
    /// Show what this machine and the store are
    Info(commands::information::InfoArgs),
    /// Show the version of this program
    Version(commands::information::VersionArgs),
    /// Show what this machine has for builds and containers, what it lacks, and what to do about it
    Doctor(commands::doctor::DoctorArgs),
    /// Serve a registry, and clean it up
    Registry(commands::registry::RegistryArgs),
    /// Write what a shell needs to complete the command line
    Completion(completion::CompletionArgs),
    /// Keep a credential for a registry
    Login(commands::login::LoginArgs),
    /// Forget the credential for a registry
    Logout(commands::login::LogoutArgs),
}

impl Command {
    /// The flags of a build, under whichever of its names.
    fn build(&self) -> Option<&BuildArgs> {
        match self {
            Command::Build(args) => Some(args),
            Command::Builder(args) => args.build(),
            Command::Image(args) => args.build(),
            _ => None,
        }
    }
}

/// Runs the command line and returns the exit status.
///
/// Call it at the very start of `main`: what starts sandboxes must be started before there is any thread.
pub fn main() -> ExitCode {
    if let Err(error) = env::arm_fault_points() {
        report::error(&error);
        return ExitCode::FAILURE;
    }
    let mut args = std::env::args_os();
    let program = args.next();
    let helper = container_init().or_else(|| supervisor(&mut args)).or_else(spawner).or_else(network_service).or_else(network_caretaker);
    if let Some(code) = helper.or_else(overlay_trial).or_else(settler::settler) {
        return code;
    }
    if let Some(code) = commands::oci::main(program.as_deref()) {
        return code;
    }
    // After all that is no command of a user's: there the environment is an image's.
    if let Some(code) = completion::answer() {
        return code;
    }
    let given = program.into_iter().chain(std::env::args_os().skip(1)).collect();
    let arguments = match parsed(given) {
        Ok(arguments) => arguments,
        Err(error) => {
            // Help and versions go to standard output and are no failure; clap knows which is which.
            let _ = error.print();
            return ExitCode::from(usage_code(&error));
        }
    };
    let debug = arguments.debug || arguments.command.build().is_some_and(BuildArgs::is_debug);
    let level = if debug { Some(trace::LogLevel::Debug) } else { arguments.log_level };
    level.into_iter().for_each(trace::listen);
    // What only reads the user's files, or keeps files of its own, needs no other user's rights, nor a kernel that gives them.
    let only_reads = match &arguments.command {
        Command::Parse(_)
        | Command::Context(_)
        | Command::Registry(_)
        | Command::Doctor(_)
        | Command::Version(_)
        | Command::Completion(_) => true,
        command => command.build().is_some_and(BuildArgs::is_call),
    };
    // Held to the end: others who come find the user's containers by it.
    let mut _member = None;
    if !only_reads {
        let run_dir = || env::run_dir(&arguments.global);
        match arguments.command {
            Command::Run(_) | Command::Start(_) | Command::Restart(_) | Command::Container(_) => {
                (_, _member) = crate::runtime::establish_among(&run_dir());
            }
            // What looks for the processes of containers.
            Command::Top(_)
            | Command::Stats(_)
            | Command::Pause(_)
            | Command::Unpause(_)
            | Command::Update(_)
            | Command::Cp(_)
            | Command::Commit(_)
            | Command::Export(_)
            | Command::Diff(_) => drop(crate::runtime::establish_beside(&run_dir())),
            _ => drop(crate::runtime::establish()),
        }
    }
    match arguments.command {
        Command::Build(args) => commands::build::run(&arguments.global, *args),
        Command::Parse(args) => commands::parse::run(&args),
        Command::Context(args) => commands::context::run(args),
        Command::Pull(args) => commands::transfer::pull(&arguments.global, args),
        Command::Push(args) => commands::transfer::push(&arguments.global, args),
        Command::Save(args) => commands::transfer::save(&arguments.global, args),
        Command::Load(args) => commands::transfer::load(&arguments.global, args),
        Command::Import(args) => commands::transfer::import(&arguments.global, args),
        Command::Copy(args) => commands::remote::copy(&arguments.global, *args),
        Command::Manifest(args) => commands::remote::manifest(&arguments.global, args),
        Command::Config(args) => commands::remote::config(&arguments.global, args),
        Command::Digest(args) => commands::remote::digest(&arguments.global, args),
        Command::Blob(args) => commands::remote::blob(&arguments.global, args),
        Command::Referrers(args) => commands::referrers::referrers(&arguments.global, args),
        Command::Ls(args) => commands::remote::ls(&arguments.global, args),
        Command::Catalog(args) => commands::remote::catalog(&arguments.global, args),
        Command::Index(args) => commands::index::run(&arguments.global, args),
        Command::Delete(args) => commands::remote::delete(&arguments.global, args),
        Command::Validate(args) => commands::validate::run(&arguments.global, args),
        Command::Diff(args) => commands::diff::run(&arguments.global, args),
        Command::Mutate(args) => commands::edit::mutate(&arguments.global, *args),
        Command::Append(args) => commands::edit::append(&arguments.global, args),
        Command::Flatten(args) => commands::edit::flatten(&arguments.global, args),
        Command::Rebase(args) => commands::edit::rebase(&arguments.global, args),
        Command::Search(args) => commands::search::run(&arguments.global, args),
        Command::Image(args) => commands::image::run(&arguments.global, args),
        Command::Images(args) => commands::images::images(&arguments.global, args),
        Command::Tag(args) => commands::images::tag(&arguments.global, args),
        Command::Rmi(args) => commands::images::rmi(&arguments.global, args),
        Command::Inspect(args) => commands::inspect::inspect(&arguments.global, args),
        Command::History(args) => commands::images::history(&arguments.global, args),
        Command::Container(args) => commands::container::run(&arguments.global, args),
        Command::Volume(args) => commands::volume::run(&arguments.global, args),
        Command::Network(args) => commands::network::run(&arguments.global, args),
        Command::Create(args) => commands::run::create(&arguments.global, *args),
        Command::Restart(args) => commands::life::restart(&arguments.global, &args),
        Command::Pause(args) => commands::life::pause(&arguments.global, &args),
        Command::Unpause(args) => commands::life::unpause(&arguments.global, &args),
        Command::Rename(args) => commands::life::rename(&arguments.global, &args),
        Command::Update(args) => commands::life::update(&arguments.global, &args),
        Command::Top(args) => commands::container_views::top(&arguments.global, &args),
        Command::Stats(args) => commands::container_views::stats(&arguments.global, &args),
        Command::Port(args) => commands::ports::port(&arguments.global, &args),
        Command::Cp(args) => commands::container_files::cp(&arguments.global, &args),
        Command::Commit(args) => commands::container_files::commit(&arguments.global, args),
        Command::Export(args) => commands::container_files::export(&arguments.global, &args),
        Command::Events(args) => commands::events::events(&arguments.global, &args),
        Command::Run(args) => commands::run::run(&arguments.global, *args),
        Command::Exec(args) => commands::exec::exec(&arguments.global, args),
        Command::Ps(args) => commands::containers::ps(&arguments.global, &args),
        Command::Logs(args) => commands::containers::logs(&arguments.global, &args),
        Command::Stop(args) => commands::containers::stop(&arguments.global, &args),
        Command::Start(args) => commands::containers::start(&arguments.global, &args),
        Command::Kill(args) => commands::containers::kill(&arguments.global, &args),
        Command::Wait(args) => commands::containers::wait(&arguments.global, &args),
        Command::Attach(args) => commands::containers::attach(&arguments.global, &args),
        Command::Oci(_) => commands::oci::misplaced(),
        Command::Rm(args) => commands::containers::rm(&arguments.global, &args),
        Command::Prune(args) => commands::prune::run(&arguments.global, args),
        Command::Builder(args) => commands::builder::run(&arguments.global, args),
        Command::System(args) => commands::system::run(&arguments.global, args),
        Command::Info(args) => commands::information::info(&arguments.global, args),
        Command::Version(args) => commands::information::version(&args),
        Command::Doctor(args) => commands::doctor::run(&arguments.global, &args),
        Command::Registry(args) => commands::registry::run(&arguments.global, args),
        Command::Completion(args) => completion::run(&args),
        Command::Login(args) => commands::login::login(&arguments.global, args),
        Command::Logout(args) => commands::login::logout(&arguments.global, args),
    }
}

/// Reads the command line.
fn parsed(given: Vec<OsString>) -> Result<Arguments, clap::Error> {
    use clap::error::ErrorKind;
    let refused = match Arguments::try_parse_from(go_flags::normal(given.clone(), Arguments::command)) {
        Err(error) if error.use_stderr() => error,
        done => return done,
    };
    // As with Docker, a group of commands alone, and the program's name alone, ask for help.
    if matches!(refused.kind(), ErrorKind::MissingSubcommand | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand) {
        return Arguments::try_parse_from(given.into_iter().chain(["--help".into()]));
    }
    // What is wrong is said of the line as it was written.
    Arguments::try_parse_from(go_flags::rewritten(given, Arguments::command())).map_err(|_| refused)
}

/// Flags that Docker takes with any word, which it refuses only when it does the work.
const REFUSED_LATE: [&str; 3] = ["--signal", "--restart", "--type"];

/// Commands of Docker whose exit statuses scripts know.
const DOCKERS: [&str; 30] = [
    "run",
    "exec",
    "create",
    "start",
    "stop",
    "restart",
    "kill",
    "pause",
    "unpause",
    "wait",
    "rm",
    "rename",
    "attach",
    "logs",
    "ps",
    "ls",
    "list",
    "inspect",
    "top",
    "stats",
    "port",
    "cp",
    "diff",
    "commit",
    "export",
    "update",
    "events",
    "container",
    "volume",
    "network",
];

/// Flags of theirs whose values Docker's command line reads itself, rather than handing them on.
const READ_EARLY: [&str; 4] = ["--time", "--timeout", "--last", "--detach-keys"];

/// The exit status for a command line that makes no sense. With Docker it is 125 where a flag is not understood and 1 where words are missing or too many, or whoever
/// does the work refuses one; of commands that start something, all that is about their flags is 125. Commands that Docker has not, or has otherwise, end with 2.
fn usage_code(error: &clap::Error) -> u8 {
    use clap::error::{ContextKind, ContextValue, ErrorKind};
    let mut words = std::env::args_os().skip(1).skip_while(|word| word.as_encoded_bytes().starts_with(b"-"));
    let mut command = words.next();
    if command.as_ref().is_some_and(|command| command == "container") {
        command = words.next();
    }
    let is_one_of = |known: &[&str]| command.as_ref().is_some_and(|command| known.iter().any(|known| command == *known));
    let (starts_something, is_dockers) = (is_one_of(&["run", "exec", "create"]), is_one_of(&DOCKERS));
    let is_value = matches!(error.kind(), ErrorKind::InvalidValue | ErrorKind::ValueValidation);
    let flag = match error.get(ContextKind::InvalidArg) {
        Some(ContextValue::String(flag)) => flag.as_str(),
        _ => "",
    };
    let is_flag = |known: &[&str]| known.iter().any(|known| flag.starts_with(known));
    let lacks_words =
        matches!(error.kind(), ErrorKind::MissingRequiredArgument | ErrorKind::InvalidSubcommand | ErrorKind::MissingSubcommand)
            || error.kind() == ErrorKind::UnknownArgument && !flag.starts_with('-');
    match () {
        () if !error.use_stderr() => 0,
        () if is_value && is_flag(&REFUSED_LATE) && !starts_something => 1,
        () if !is_dockers => u8::try_from(error.exit_code()).unwrap_or(2),
        () if lacks_words || is_value && !starts_something && !is_flag(&READ_EARLY) => 1,
        () => commands::run::FAILED,
    }
}

/// Runs this process as a container's supervisor, if that is what it was started for.
fn supervisor(args: &mut impl Iterator<Item = OsString>) -> Option<ExitCode> {
    use crate::engine::Engine;
    use crate::runtime::container::{SUPERVISOR, Supervised, supervisor_main};
    let first = std::env::args_os().nth(1)?;
    if first != SUPERVISOR {
        return None;
    }
    args.next();
    let rest: Vec<OsString> = args.collect();
    let code = match supervisor_main(rest.clone(), &env::surroundings()) {
        Supervised::Ended(code) => {
            commands::run::after_supervisor(&rest, Engine::finish_container);
            code
        }
        Supervised::Abandoned { removes_itself: true } => {
            commands::run::after_supervisor(&rest, Engine::abandon_container);
            0
        }
        Supervised::Abandoned { removes_itself: false } => 0,
    };
    Some(ExitCode::from(u8::try_from(code).unwrap_or(1)))
}

/// Runs this process as the init of a container that another runtime runs, if that is what it was started for.
fn container_init() -> Option<ExitCode> {
    use crate::runtime::{INIT, init_main};
    if std::env::args_os().nth(1)? != INIT {
        return None;
    }
    let (code, why) = init_main(std::env::args_os().skip(2).collect(), env::all());
    report::tell(&format!("error: {why}"));
    Some(ExitCode::from(code))
}

/// Runs this process as the one that starts sandboxes for a build, if that is what it was started for.
fn spawner() -> Option<ExitCode> {
    use crate::runtime::{SPAWNER, spawner_main};
    (std::env::args_os().nth(1)? == SPAWNER).then(|| ExitCode::from(u8::try_from(spawner_main()).unwrap_or(1)))
}

/// Runs this process as the service of a build step's network, if that is what it was started for.
fn network_service() -> Option<ExitCode> {
    use crate::runtime::network::{SERVICE, service_main};
    (std::env::args_os().nth(1)? == SERVICE).then(service_main).map(|()| ExitCode::SUCCESS)
}

/// Runs this process as the one that removes the network which nobody uses any more, if that is what it was started for.
fn network_caretaker() -> Option<ExitCode> {
    use crate::runtime::network::{CARETAKER, caretaker_main};
    (std::env::args_os().nth(1)? == CARETAKER).then(|| caretaker_main(std::env::args_os().skip(2))).map(|()| ExitCode::SUCCESS)
}

/// Runs this process as a trial of an overlay, if that is what it was started for.
fn overlay_trial() -> Option<ExitCode> {
    use crate::runtime::{TRIAL, trial_main};
    (std::env::args_os().nth(1)? == TRIAL).then(|| ExitCode::from(trial_main(std::env::args_os().skip(2))))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::Arguments;

    #[test]
    fn a_command_says_of_itself_what_the_list_of_commands_says_of_it() {
        let listed = Arguments::command();
        let mut built = listed.clone();
        built.build();
        for command in listed.get_subcommands() {
            let about = built.find_subcommand(command.get_name()).and_then(|command| command.get_about()).map(ToString::to_string);
            assert_eq!(about, command.get_about().map(ToString::to_string), "{}", command.get_name());
        }
    }
}
