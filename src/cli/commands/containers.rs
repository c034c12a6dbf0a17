//! `strake ps`, `logs`, `stop`, `rm` and their like: what is done with containers that exist.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use clap::Args;
use jiff::{SignedDuration, Timestamp};
use regex_lite::Regex;
use serde_json::{Value, json};

use crate::cli::format::{Format, format, given};
use crate::cli::render::size as shown_size;
use crate::cli::table::{Table, age_in_words, ago, cut, date, tame};
use crate::cli::{Global, env, report, settler};
use crate::engine::{ContainerInfo, Engine, Error};
use crate::runtime::container::{HealthStatus, LogOptions, LogStream, Mode, NetworkRequest, State, StdinMode};
use crate::runtime::network::builtin_id;

use super::build::boolean;
use super::container_flags::signal;
use super::exec::{DetachKeys, detach_keys_value};
use super::log_flags::details;
use super::ports::{self, Ports};
use super::run::{PumpFlags, no_terminal, pump};
use super::several::Failures;

// Flags of `strake ps`.
#[derive(Debug, Args)]
pub(in crate::cli) struct PsArgs {
    /// Also those that do not run
    #[arg(short, long)]
    all: bool,
    /// Only the IDs
    #[arg(short, long)]
    quiet: bool,
    /// The last ones made, whether they run or not
    #[arg(short = 'n', long, value_name = "NUMBER", allow_negative_numbers = true)]
    last: Option<i64>,
    /// The last one made
    #[arg(short, long)]
    latest: bool,
    /// Cut nothing off
    #[arg(long)]
    no_trunc: bool,
    /// `json`, or a template such as `{{.ID}} {{.Names}}`
    #[arg(long, value_parser = format)]
    format: Option<Format>,
    /// With how much each has written
    #[arg(short, long)]
    size: bool,
    /// `name=` (a regular expression), `id=`, `status=`, `health=`, `label=`, `ancestor=`, `exited=`, `before=`, `since=`, `volume=`, `network=`, `publish=`, `expose=` or `is-task=` (may be given several times)
    #[arg(short, long, value_name = "FILTER", value_parser = filter)]
    filter: Vec<(String, String)>,
}

// Flags of `strake logs`.
#[derive(Debug, Args)]
pub(in crate::cli) struct LogsArgs {
    /// The container
    container: String,
    /// Show what comes, until the container ends
    #[arg(short, long)]
    follow: bool,
    /// Only the last lines
    #[arg(short = 'n', long, value_name = "NUMBER", default_value = "all", allow_negative_numbers = true)]
    tail: String,
    /// With the time of each line
    #[arg(short, long)]
    timestamps: bool,
    /// With the labels and variables that `--log-opt` chose when the container was made
    #[arg(long)]
    details: bool,
    /// Only lines of that time or later: RFC 3339, or `10m` for ten minutes ago
    #[arg(long, value_name = "TIME", value_parser = time)]
    since: Option<Timestamp>,
    /// Only lines before that time; `0` is no time, as with Docker
    #[arg(long, value_name = "TIME", value_parser = end)]
    until: Option<Timestamp>,
}

// Flags of `strake stop`.
#[derive(Debug, Args)]
pub(in crate::cli) struct StopArgs {
    /// The containers
    #[arg(required = true)]
    containers: Vec<String>,
    /// Seconds until they are killed; `-1` is never [default: what they were made with]
    #[arg(short, long = "time", visible_alias = "timeout", value_name = "SECONDS", allow_negative_numbers = true, value_parser = patience)]
    time: Option<Duration>,
    /// The signal that asks them to stop [default: what they were made with]
    #[arg(short, long, value_parser = signal)]
    signal: Option<i32>,
}

// Flags of `strake rm`.
#[derive(Debug, Args)]
pub(in crate::cli) struct RmArgs {
    /// The containers
    #[arg(required = true)]
    containers: Vec<String>,
    /// Kill those that run
    #[arg(short, long)]
    force: bool,
    /// Remove their anonymous volumes as well
    #[arg(short, long)]
    volumes: bool,
}

// Flags of `strake kill`.
#[derive(Debug, Args)]
pub(in crate::cli) struct KillArgs {
    /// The containers
    #[arg(required = true)]
    containers: Vec<String>,
    /// The signal
    #[arg(short, long, default_value = "KILL", value_parser = signal)]
    signal: i32,
}

// Flags of `strake wait`.
#[derive(Debug, Args)]
pub(in crate::cli) struct WaitArgs {
    /// The containers
    #[arg(required = true)]
    containers: Vec<String>,
}

// Flags of `strake start`.
#[derive(Debug, Args)]
pub(in crate::cli) struct StartArgs {
    /// The containers
    #[arg(required_unless_present = "resume")]
    containers: Vec<String>,
    /// Start all that are to run by their restart policy and do not, as after a start of the machine
    #[arg(long, conflicts_with_all = ["containers", "attach", "interactive"])]
    resume: bool,
    /// Show the output, and pass signals on
    #[arg(short, long)]
    attach: bool,
    /// Pass standard input on
    #[arg(short, long)]
    interactive: bool,
    /// With -a or -i: pass signals on to the container; with `=false` they end this command only
    #[arg(long, default_value_t = true, num_args = 0..=1, require_equals = true, default_missing_value = "true", action = clap::ArgAction::Set, value_name = "BOOL")]
    sig_proxy: bool,
    /// The keys that leave the container running [default: ctrl-p,ctrl-q]
    #[arg(long, value_name = "KEYS", value_parser = detach_keys_value)]
    detach_keys: Option<DetachKeys>,
}

// Flags of `strake attach`.
#[derive(Debug, Args)]
pub(in crate::cli) struct AttachArgs {
    /// The container
    container: String,
    /// Pass no input on
    #[arg(long)]
    no_stdin: bool,
    /// Pass signals on to the container; with `=false` they end this command only
    #[arg(long, default_value_t = true, num_args = 0..=1, require_equals = true, default_missing_value = "true", action = clap::ArgAction::Set, value_name = "BOOL")]
    sig_proxy: bool,
    /// The keys that leave the container running [default: ctrl-p,ctrl-q]
    #[arg(long, value_name = "KEYS", value_parser = detach_keys_value)]
    detach_keys: Option<DetachKeys>,
}

fn filter(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("expected KEY=VALUE")?;
    match key {
        "status" if !["created", "restarting", "running", "removing", "paused", "exited", "dead"].contains(&value) => {
            Err(format!("`{value}` is no state of a container: expected created, restarting, running, paused, exited or dead"))
        }
        "health" if !["starting", "healthy", "unhealthy", "none"].contains(&value) => {
            Err(format!("`{value}` is no state of health: expected starting, healthy, unhealthy or none"))
        }
        "exited" if value.parse::<i32>().is_err() => Err(format!("`{value}` is no exit code")),
        "publish" | "expose" => Ports::parse(value).map(|_| (key.to_owned(), value.to_owned())),
        "name" => Regex::new(value).map(|_| (key.to_owned(), value.to_owned())).map_err(|error| error.to_string()),
        "is-task" => boolean(value).map(|_| (key.to_owned(), value.to_owned())),
        "id" | "status" | "health" | "label" | "ancestor" | "exited" | "before" | "since" | "volume" | "network" => {
            Ok((key.to_owned(), value.to_owned()))
        }
        _ => Err(format!(
            "the filter `{key}` is not supported: expected name, id, status, health, label, ancestor, exited, before, since, volume, network, publish, expose or is-task"
        )),
    }
}

/// Reads a point in time: RFC 3339, a date or a date with a time (of this machine's zone), seconds since the epoch, or how long ago.
pub(super) fn time(text: &str) -> Result<Timestamp, String> {
    if let Ok(time) = text.parse::<Timestamp>() {
        return Ok(time);
    }
    if let Some(time) = seconds(text) {
        return time;
    }
    // A date with a zone is its midnight there.
    if let (Some(date), Some(zone)) = (text.get(..10), text.get(10..))
        && zone.starts_with(['Z', '+', '-'])
        && let Ok(time) = format!("{date}T00:00:00{zone}").parse::<Timestamp>()
    {
        return Ok(time);
    }
    if let Ok(time) = text.parse::<jiff::civil::DateTime>() {
        return time.to_zoned(jiff::tz::TimeZone::system()).map(|time| time.timestamp()).map_err(|error| error.to_string());
    }
    let ago: SignedDuration = text.parse().map_err(|_| format!("`{text}` is no time: expected RFC 3339, or a duration such as 10m"))?;
    Timestamp::now().checked_sub(ago).map_err(|error| error.to_string())
}

/// The same for an end, of which `0` is none.
fn end(text: &str) -> Result<Timestamp, String> {
    if text == "0" { Ok(Timestamp::MAX) } else { time(text) }
}

/// Reads `1700000000` or `1700000000.5`; `None` for what is neither.
fn seconds(text: &str) -> Option<Result<Timestamp, String>> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let whole: i64 = whole.parse().ok()?;
    if fraction.is_empty() || fraction.len() > 9 || !fraction.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let nanoseconds = format!("{fraction:0<9}").parse().ok()?;
    Some(Timestamp::new(whole, nanoseconds).map_err(|error| error.to_string()))
}

/// Reads how many seconds a container has to stop; fewer than none are any number.
pub(super) fn patience(text: &str) -> Result<Duration, String> {
    let seconds: i64 = text.parse().map_err(|_| format!("`{text}` is not a number of seconds"))?;
    Ok(u64::try_from(seconds).map_or(Duration::MAX, Duration::from_secs))
}

/// Opens the engine for what needs neither an asynchronous runtime nor sandboxes.
pub(super) fn open(global: &Global) -> Result<Engine, Error> {
    let engine = Engine::open(env::engine_options(global), None)?;
    settler::shorten_log(&engine);
    Ok(engine)
}

/// Does something to each container, tells its name as the user wrote it, and goes on after a failure.
pub(super) fn each(global: &Global, names: &[String], work: impl Fn(&Engine, &ContainerInfo) -> Result<Option<String>, Error>) -> ExitCode {
    each_found(global, names, false, work)
}

/// The same; one that is not there is no failure where `may_be_gone`, and nothing is told of it.
fn each_found(
    global: &Global,
    names: &[String],
    may_be_gone: bool,
    work: impl Fn(&Engine, &ContainerInfo) -> Result<Option<String>, Error>,
) -> ExitCode {
    let engine = match open(global) {
        Ok(engine) => engine,
        Err(error) => return super::exit(Err(error)),
    };
    let mut code = ExitCode::SUCCESS;
    for name in names {
        match engine.container(name).and_then(|info| work(&engine, &info)) {
            Ok(said) => report::result(said.as_deref().unwrap_or(name)),
            Err(Error::NoSuchContainer { .. }) if may_be_gone => {}
            Err(error) => {
                report::error(&error);
                code = ExitCode::FAILURE;
            }
        }
    }
    code
}

/// How many containers are stopped at once.
const STOPPED_AT_ONCE: usize = 50;

/// Runs `strake stop`. Containers are asked together, so that one which takes its time keeps no other waiting.
pub(in crate::cli) fn stop(global: &Global, args: &StopArgs) -> ExitCode {
    super::exit(open(global).and_then(|engine| {
        let mut failures = Failures::default();
        for names in args.containers.chunks(STOPPED_AT_ONCE) {
            let stop = |name: &String| engine.stop_container(&engine.container(name)?, args.signal, args.time);
            std::thread::scope(|scope| {
                let all: Vec<_> = names.iter().map(|name| (name, scope.spawn(move || stop(name)))).collect();
                for (name, stopping) in all {
                    match stopping.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)) {
                        Ok(()) => report::result(name),
                        Err(error) => failures.add(error),
                    }
                }
            });
        }
        failures.end()
    }))
}

/// Runs `strake kill`.
pub(in crate::cli) fn kill(global: &Global, args: &KillArgs) -> ExitCode {
    each(global, &args.containers, |engine, info| engine.kill_container(info, args.signal).map(|()| None))
}

/// Runs `strake wait`.
pub(in crate::cli) fn wait(global: &Global, args: &WaitArgs) -> ExitCode {
    each(global, &args.containers, |engine, info| engine.wait_container(info).map(|code| Some(code.to_string())))
}

/// Runs `strake rm`.
pub(in crate::cli) fn rm(global: &Global, args: &RmArgs) -> ExitCode {
    // With -f, removing what is not there is done already.
    each_found(global, &args.containers, args.force, |engine, info| engine.remove_container(info, args.force, args.volumes).map(|()| None))
}

/// Runs `strake start`.
pub(in crate::cli) fn start(global: &Global, args: &StartArgs) -> ExitCode {
    if !(args.attach || args.interactive) {
        let resumed = || Ok(open(global)?.containers_to_resume()?.into_iter().map(|info| info.record.name).collect::<Vec<_>>());
        let names = match args.resume {
            false => args.containers.clone(),
            true => match resumed() {
                Ok(names) => names,
                Err(error) => return super::exit(Err(error)),
            },
        };
        return each(global, &names, |engine, info| {
            let started = engine.start_unless_running(info, Mode::Detached)?;
            for warning in started.map_or_else(Vec::new, |started| started.warnings) {
                report::tell(&format!("warning: {warning}"));
            }
            Ok(None)
        });
    }
    let [name] = &args.containers[..] else {
        let message = "one container at a time can be attached to".to_owned();
        return super::exit(Err(Error::Usage { message, hint: Some("start the others without -a".into()) }));
    };
    code(open(global).and_then(|engine| {
        let info = engine.container(name)?;
        let tty = info.spec.as_ref().is_some_and(|spec| spec.tty);
        let held = crate::runtime::container::hold_signals();
        let attachment = match engine.start_unless_running(&info, Mode::Attached)? {
            Some(started) => started.attachment,
            None => Some(engine.attach_container(&engine.container(&info.record.id)?)?),
        };
        let Some(attachment) = attachment else { return Ok(0) };
        let outcome = pump(
            &engine,
            &info,
            attachment,
            PumpFlags {
                interactive: args.interactive,
                tty,
                forward_signals: args.sig_proxy && !tty,
                detach_keys: args.detach_keys.clone(),
                streams: Vec::new(),
            },
        );
        drop(held);
        let pumped = outcome?;
        engine.finish_container(&info.record.id)?;
        Ok(pumped.code())
    }))
}

/// Runs `strake attach`.
pub(in crate::cli) fn attach(global: &Global, args: &AttachArgs) -> ExitCode {
    code(open(global).and_then(|engine| {
        let info = engine.container(&args.container)?;
        let tty = info.spec.as_ref().is_some_and(|spec| spec.tty);
        let interactive = !args.no_stdin && info.spec.as_ref().is_some_and(|spec| spec.stdin != StdinMode::Closed);
        if interactive && tty && info.is_running() && !info.is_paused() && !std::io::stdin().is_terminal() {
            return Err(no_terminal());
        }
        let attachment = engine.attach_container(&info)?;
        // As with Docker, only `run` passes signals on to a container with a terminal.
        let flags = PumpFlags {
            interactive,
            tty,
            forward_signals: args.sig_proxy && !tty,
            detach_keys: args.detach_keys.clone(),
            streams: Vec::new(),
        };
        Ok(pump(&engine, &info, attachment, flags)?.code_of_guest())
    }))
}

/// An exit status, or that of a failure, which is one for all with Docker.
fn code(result: Result<u8, Error>) -> ExitCode {
    match result {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            report::error(&error);
            ExitCode::FAILURE
        }
    }
}

/// Runs `strake logs`.
pub(in crate::cli) fn logs(global: &Global, args: &LogsArgs) -> ExitCode {
    super::exit(show_logs(global, args))
}

fn show_logs(global: &Global, args: &LogsArgs) -> Result<(), Error> {
    // As with Docker, what is no number of lines is all of them.
    let tail = args.tail.parse::<usize>().ok();
    let engine = open(global)?;
    let info = engine.container(&args.container)?;
    let details = if args.details { format!("{} ", details(&info)?) } else { String::new() };
    let options = LogOptions { follow: args.follow, tail, since: args.since, until: args.until };
    let (mut out, mut err) = (std::io::BufWriter::new(std::io::stdout().lock()), std::io::stderr().lock());
    engine.container_logs(&info, &options, &mut |record| {
        let time = if args.timestamps { format!("{} {details}", record.time) } else { details.clone() };
        let written = match record.stream {
            LogStream::Stdout => write!(out, "{time}{}", record.log).and_then(|()| if args.follow { out.flush() } else { Ok(()) }),
            // In the order of the log, where both go to one place.
            LogStream::Stderr => out.flush().and_then(|()| write!(err, "{time}{}", record.log)),
        };
        let goes_on = written.is_ok();
        // Whoever does not read on has enough.
        report::written(written);
        goes_on
    })?;
    report::written(out.flush());
    Ok(())
}

/// Runs `strake ps`.
pub(in crate::cli) fn ps(global: &Global, args: &PsArgs) -> ExitCode {
    super::exit(list(global, args))
}

fn list(global: &Global, args: &PsArgs) -> Result<(), Error> {
    let engine = open(global)?;
    // As with Docker, fewer than one are those that run.
    let last = if args.latest { Some(1) } else { args.last.and_then(|last| usize::try_from(last).ok()).filter(|last| *last > 0) };
    let by_state = args.filter.iter().any(|(key, _)| key == "status" || key == "exited");
    let all = args.all || last.is_some() || by_state;
    let bounds = bounds(&engine, &args.filter)?;
    let wanted = |info: &ContainerInfo| (all || info.is_alive()) && matches(&engine, info, &args.filter) && bounds.contain(info);
    let found = engine.containers()?.into_iter().filter(wanted);
    // They take time to find out.
    let with_sizes = args.size || given(&args.format).is_some_and(|format| format.mentions("Size"));
    let mut titles = vec!["CONTAINER ID", "IMAGE", "COMMAND", "CREATED", "STATUS", "PORTS", "NAMES"];
    titles.extend(args.size.then_some("SIZE"));
    let mut table = Table::new(&titles);
    let mut rows = Vec::new();
    for info in found.take(last.unwrap_or(usize::MAX)) {
        let mut row = row(&info, args.no_trunc);
        row["Mounts"] = mounts(&engine, &info, args.no_trunc).into();
        if with_sizes {
            row["Size"] = sizes(engine.container_sizes(&info)).into();
        }
        let field = |name: &str| row[name].as_str().unwrap_or_default().to_owned();
        match given(&args.format) {
            _ if args.quiet => report::result(&field("ID")),
            Some(_) => rows.push(row),
            None => {
                let mut cells: Vec<String> = ["ID", "Image", "Command", "RunningFor", "Status", "Ports", "Names"].map(field).into();
                cells.extend(args.size.then(|| field("Size")));
                table.row(cells);
            }
        }
    }
    match given(&args.format) {
        _ if args.quiet => {}
        Some(format) => format.show(&rows, &[("ID", "CONTAINER ID")])?,
        None => report::result(&table.render()),
    }
    Ok(())
}

/// The containers between which those are that are wanted: made before and after them.
#[derive(Default)]
struct Bounds {
    before: Option<SystemTime>,
    since: Option<SystemTime>,
}

fn bounds(engine: &Engine, filters: &[(String, String)]) -> Result<Bounds, Error> {
    let mut bounds = Bounds::default();
    for (key, value) in filters {
        match key.as_str() {
            "before" => bounds.before = Some(engine.container(value)?.record.created_at),
            "since" => bounds.since = Some(engine.container(value)?.record.created_at),
            _ => {}
        }
    }
    Ok(bounds)
}

impl Bounds {
    fn contain(&self, info: &ContainerInfo) -> bool {
        let made = info.record.created_at;
        self.before.is_none_or(|before| made < before) && self.since.is_none_or(|since| made > since)
    }
}

/// The bytes of what a container has written, and of all its files together, as Docker shows them.
fn sizes((written, whole): (u64, u64)) -> String {
    let virtual_size = if whole > 0 { format!(" (virtual {})", shown_size(whole)) } else { String::new() };
    format!("{}{virtual_size}", shown_size(written))
}

/// What a container mounts: volumes by name, directories of the host by path.
fn mounts(engine: &Engine, info: &ContainerInfo, whole: bool) -> String {
    let names = info.spec.as_ref().map_or_else(Vec::new, |spec| engine.sources_of(spec));
    names.iter().map(|name| if whole { name.clone() } else { cut(name, 15) }).collect::<Vec<_>>().join(",")
}

/// Whether one of a container's mounts has that name, that source or that place in it.
fn has_volume(engine: &Engine, info: &ContainerInfo, wanted: &str) -> bool {
    let Some(spec) = &info.spec else { return false };
    let mut targets = spec.sandbox.mounts.iter().map(|mount| mount.target().to_string());
    engine.sources_of(spec).iter().any(|name| name == wanted) || targets.any(|target| target == wanted)
}

/// Whether a container's name matches a regular expression, with the slash that Docker puts in front or without.
fn is_named(name: &str, wanted: &str) -> bool {
    Regex::new(wanted).is_ok_and(|wanted| wanted.is_match(name) || wanted.is_match(&format!("/{name}")))
}

/// Whether two names are of the same image.
fn is_image(known: &str, wanted: &str) -> bool {
    let reference = |name: &str| name.parse::<crate::oci::Reference>().ok();
    known == wanted || reference(wanted).is_some_and(|wanted| reference(known) == Some(wanted))
}

/// Whether an image has all layers of another one at its bottom.
fn is_made_of(engine: &Engine, image: &str, other: &str) -> bool {
    let (Ok(image), Ok(other)) = (engine.image(image), engine.image(other)) else { return false };
    !other.diff_ids.is_empty() && image.diff_ids.starts_with(&other.diff_ids)
}

/// The networks of a container: their IDs and names.
fn networks(info: &ContainerInfo) -> Vec<(String, String)> {
    match info.spec.as_ref().map(|spec| &spec.network) {
        Some(NetworkRequest::Host) => vec![(builtin_id("host"), "host".to_owned())],
        Some(NetworkRequest::None) => vec![(builtin_id("none"), "none".to_owned())],
        Some(NetworkRequest::Networks(endpoints)) => {
            endpoints.iter().map(|endpoint| (endpoint.plan.id.clone(), endpoint.plan.name.clone())).collect()
        }
        Some(NetworkRequest::Container { .. }) | None => Vec::new(),
    }
}

/// Whether a container is on the network of that name or ID.
fn is_on(info: &ContainerInfo, wanted: &str) -> bool {
    networks(info).iter().any(|(id, name)| name == wanted || !wanted.is_empty() && id.starts_with(wanted))
}

/// Filters of one key are alternatives, except labels; different keys must all hold.
fn matches(engine: &Engine, info: &ContainerInfo, filters: &[(String, String)]) -> bool {
    let mut groups: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (key, value) in filters {
        groups.entry(key).or_default().push(value);
    }
    let spec = info.spec.as_ref();
    let label = |wanted: &str| {
        let (key, value) = wanted.split_once('=').map_or((wanted, None), |(key, value)| (key, Some(value)));
        spec.and_then(|spec| spec.labels.get(key)).is_some_and(|known| value.is_none_or(|value| known == value))
    };
    groups.into_iter().all(|(key, values)| match key {
        "label" => values.into_iter().all(label),
        _ => values.into_iter().any(|value| match key {
            "name" => is_named(&info.record.name, value),
            // Tasks are those of a swarm.
            "is-task" => boolean(value) == Ok(false),
            "id" => info.record.id.starts_with(value),
            "status" => info.status() == value,
            "ancestor" => spec.is_some_and(|spec| {
                let is_it = is_image(&spec.image, value) || spec.image_id.trim_start_matches("sha256:").starts_with(value);
                is_it || is_made_of(engine, &spec.image_id, value)
            }),
            "health" => info.health.as_ref().map_or("none", |health| health.status.word()) == value,
            "volume" => has_volume(engine, info, value),
            "network" => is_on(info, value),
            "publish" => Ports::parse(value).is_ok_and(|wanted| ports::publishes(info, &wanted)),
            "expose" => Ports::parse(value).is_ok_and(|wanted| ports::exposes(info, &wanted)),
            "before" | "since" => true,
            "exited" => matches!(info.state, Some(State::Exited { code, .. }) if value.parse() == Ok(code)),
            _ => false,
        }),
    })
}

/// A container as the fields of a template.
pub(super) fn row(info: &ContainerInfo, whole: bool) -> Value {
    let spec = info.spec.as_ref();
    let args = spec.map_or_else(Vec::new, |spec| spec.sandbox.process.args.iter().map(|arg| arg.to_string_lossy().into_owned()).collect());
    let command = tame(&quoted(&args));
    let labels = spec.map(|spec| spec.labels.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(","));
    json!({
        "ID": if whole { info.record.id.as_str() } else { info.short_id() },
        "Image": spec.map_or("", |spec| spec.image.as_str()),
        "Command": format!("\"{}\"", if whole { command } else { cut(&command, 20) }),
        "CreatedAt": date(info.record.created_at),
        "RunningFor": ago(info.record.created_at),
        "State": info.status(),
        "Status": status(info),
        "Ports": ports::summary(info),
        "LocalVolumes": spec.map_or(0, |spec| spec.written.mounted_volumes.len()).to_string(),
        "Networks": networks(info).into_iter().map(|(_, name)| name).collect::<Vec<_>>().join(","),
        "Mounts": "",
        "Size": "0B",
        "Names": info.record.name,
        "Labels": tame(&labels.unwrap_or_default()),
    })
}

/// A command line as Docker shows it: arguments with blanks are in quotes, whatever is in them.
fn quoted(args: &[String]) -> String {
    let word = |(index, arg): (usize, &String)| if index > 0 && arg.contains(' ') { format!("'{arg}'") } else { arg.clone() };
    args.iter().enumerate().map(word).collect::<Vec<_>>().join(" ")
}

/// `Up 3 seconds`, `Exited (0) 2 minutes ago`.
fn status(info: &ContainerInfo) -> String {
    match &info.state {
        None => "Dead".to_owned(),
        Some(State::Created | State::Exited { started_at: None, .. }) => "Created".to_owned(),
        Some(State::Running { started_at, .. }) => {
            let how = match (info.is_paused(), &info.health) {
                (true, _) => " (Paused)".to_owned(),
                (_, Some(health)) if health.status == HealthStatus::Starting => " (health: starting)".to_owned(),
                (_, Some(health)) => format!(" ({})", health.status.word()),
                _ => String::new(),
            };
            format!("Up {}{how}", started_at.parse().map_or_else(|_| "for some time".to_owned(), |at| age_in_words(age(at))))
        }
        Some(State::Restarting { code, finished_at, .. }) => {
            let ago = finished_at.parse().map_or_else(|_| String::new(), |at| format!(" {} ago", age_in_words(age(at))));
            format!("Restarting ({code}){ago}")
        }
        Some(State::Exited { code, finished_at, .. }) => {
            let ago = finished_at
                .as_ref()
                .and_then(|at| at.parse().ok())
                .map_or_else(String::new, |at| format!(" {} ago", age_in_words(age(at))));
            format!("Exited ({code}){ago}")
        }
    }
}

/// Seconds since then.
fn age(since: Timestamp) -> u64 {
    SystemTime::now().duration_since(since.into()).unwrap_or_default().as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_points_or_how_long_ago() {
        assert_eq!(time("2026-01-02T03:04:05Z").unwrap().to_string(), "2026-01-02T03:04:05Z");
        assert_eq!(time("60").unwrap().as_second(), 60);
        let ago = Timestamp::now().as_second() - time("10m").unwrap().as_second();
        assert!((599..=601).contains(&ago), "{ago}");
        let ahead = time("-10m").unwrap().as_second() - Timestamp::now().as_second();
        assert!((599..=601).contains(&ahead), "{ahead}");
        assert_eq!(time("2026-01-02Z").unwrap().to_string(), "2026-01-02T00:00:00Z");
        assert_eq!(time("2026-01-02+02:00").unwrap().to_string(), "2026-01-01T22:00:00Z");
        assert!(time("soon").is_err());
    }

    #[test]
    fn names_are_found_by_regular_expressions_with_and_without_the_slash() {
        for (wanted, found) in
            [("we", true), ("^web$", true), ("/web", true), ("^/web$", true), ("^eb", false), ("^we$", false), ("w.b", true)]
        {
            assert_eq!(is_named("web", wanted), found, "{wanted}");
        }
        assert!(filter("name=[").is_err());
    }

    #[test]
    fn commands_are_shown_with_quotes_around_blanks() {
        let args = |words: &[&str]| quoted(&words.iter().map(|&word| word.to_owned()).collect::<Vec<_>>());
        assert_eq!(args(&["sh", "-c", "echo a"]), "sh -c 'echo a'");
        assert_eq!(args(&["my prog", "x"]), "my prog x");
    }

    #[test]
    fn filters_are_known_keys_with_a_value() {
        assert_eq!(filter("label=a=b").unwrap(), ("label".to_owned(), "a=b".to_owned()));
        assert!(filter("name").is_err());
        assert!(filter("colour=red").is_err());
    }
}
