//! `strake top`, `stats` and `diff`: what is in containers.

use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};

use crate::cli::format::{Format, format, given};
use crate::cli::table::Table;
use crate::cli::{Global, report};
use crate::engine::{ChangeKind, ContainerInfo, ContainerUsage, Engine, Error, ProcessRow};

use super::containers::open;
use super::exit;

// Flags of `strake top`.
#[derive(Debug, Args)]
pub(in crate::cli) struct TopArgs {
    /// The container
    container: String,
    /// What to show of its processes, in the words of `ps`: `-ef`, `aux`, or `-o` with columns such as `pid,user,args`
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "PS OPTIONS")]
    options: Vec<String>,
}

// Flags of `strake stats`.
#[derive(Debug, Args)]
pub(in crate::cli) struct StatsArgs {
    /// The containers [default: all that run]
    containers: Vec<String>,
    /// Also those that do not run
    #[arg(short, long)]
    all: bool,
    /// Show it once
    #[arg(long)]
    no_stream: bool,
    /// Cut nothing off
    #[arg(long)]
    no_trunc: bool,
    /// `json`, or a template such as `{{.Name}} {{.CPUPerc}}`
    #[arg(long, value_parser = format)]
    format: Option<Format>,
}

// Flags of `strake container diff`.
#[derive(Debug, Args)]
pub(in crate::cli) struct DiffArgs {
    /// The container
    pub(super) container: String,
}

/// What a column of `ps` is called, and what it shows of a process.
type Column = (&'static str, fn(&ProcessRow) -> String);

const COLUMNS: [(&str, Column); 24] = [
    ("pid", ("PID", |row| row.pid.to_string())),
    ("ppid", ("PPID", |row| row.parent.to_string())),
    ("uid", ("UID", |row| row.uid.to_string())),
    ("user", ("USER", |row| user(row.uid))),
    ("euser", ("EUSER", |row| user(row.uid))),
    ("uname", ("USER", |row| user(row.uid))),
    ("comm", ("COMMAND", |row| row.name.clone())),
    ("ucmd", ("CMD", |row| row.name.clone())),
    ("args", ("COMMAND", |row| row.command.clone())),
    ("command", ("COMMAND", |row| row.command.clone())),
    ("cmd", ("CMD", |row| row.command.clone())),
    ("time", ("TIME", |row| clock(row.cpu))),
    ("etimes", ("ELAPSED", |row| row.age.to_string())),
    ("rss", ("RSS", |row| row.resident.to_string())),
    ("vsz", ("VSZ", |row| row.virtual_memory.to_string())),
    ("stat", ("STAT", |row| row.state.to_string())),
    ("s", ("S", |row| row.state.to_string())),
    ("tty", ("TT", |row| row.terminal.clone())),
    ("ni", ("NI", |row| row.nice.to_string())),
    ("pcpu", ("%CPU", |row| format!("{:.1}", row.cpu as f64 * 100.0 / row.age.max(1) as f64))),
    ("%cpu", ("%CPU", |row| format!("{:.1}", row.cpu as f64 * 100.0 / row.age.max(1) as f64))),
    ("pmem", ("%MEM", |row| share_of_memory(row.resident))),
    ("%mem", ("%MEM", |row| share_of_memory(row.resident))),
    ("stime", ("STIME", |row| began(row.age))),
];

const FULL: [Column; 8] = [
    ("UID", |row| user(row.uid)),
    ("PID", |row| row.pid.to_string()),
    ("PPID", |row| row.parent.to_string()),
    ("C", |row| (row.cpu * 100 / row.age.max(1)).to_string()),
    ("STIME", |row| began(row.age)),
    ("TTY", |row| row.terminal.clone()),
    ("TIME", |row| clock(row.cpu)),
    ("CMD", |row| row.command.clone()),
];

const BSD: [Column; 11] = [
    ("USER", |row| user(row.uid)),
    ("PID", |row| row.pid.to_string()),
    ("%CPU", |row| format!("{:.1}", row.cpu as f64 * 100.0 / row.age.max(1) as f64)),
    ("%MEM", |row| share_of_memory(row.resident)),
    ("VSZ", |row| row.virtual_memory.to_string()),
    ("RSS", |row| row.resident.to_string()),
    ("TTY", |row| row.terminal.clone()),
    ("STAT", |row| row.state.to_string()),
    ("START", |row| began(row.age)),
    ("TIME", |row| clock(row.cpu)),
    ("COMMAND", |row| row.command.clone()),
];

/// The columns that `ps` would show with these options.
fn columns(options: &[String]) -> Result<Vec<Column>, Error> {
    let words: Vec<&str> = options.iter().map(String::as_str).collect();
    let refuse = |what: &str| {
        let hint = Some("expected nothing, `-ef`, `aux`, or `-o` with columns".to_owned());
        Err(Error::Usage { message: format!("`{what}` is not supported for a container's processes"), hint })
    };
    let names = match words[..] {
        [] | ["-ef" | "-f" | "-eF"] => return Ok(FULL.to_vec()),
        ["aux" | "-aux" | "ax" | "axu"] => return Ok(BSD.to_vec()),
        ["-eo" | "-o" | "-Ao" | "o" | "axo", names] => names,
        [only] if only.starts_with("-o") => &only[2..],
        _ => return refuse(&words.join(" ")),
    };
    let mut chosen = Vec::new();
    for name in names.split(',') {
        let (name, title) = name.split_once('=').map_or((name, None), |(name, title)| (name, Some(title)));
        match COLUMNS.iter().find(|(known, _)| *known == name) {
            Some((_, column)) if title.is_none() => chosen.push(*column),
            _ => return refuse(name),
        }
    }
    Ok(chosen)
}

fn user(uid: u32) -> String {
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let name = passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
    });
    name.unwrap_or_else(|| uid.to_string())
}

/// So many KiB as a part of the machine's memory.
fn share_of_memory(resident: u64) -> String {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let total = text.lines().find_map(|line| line.strip_prefix("MemTotal:")?.split_whitespace().next()?.parse::<u64>().ok());
    format!("{:.1}", resident as f64 * 100.0 / total.unwrap_or(0).max(1) as f64)
}

fn clock(seconds: u64) -> String {
    format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

/// When what is so many seconds old began: the time of today, or the day.
fn began(age: u64) -> String {
    let now = jiff::Zoned::now();
    let span = jiff::SignedDuration::from_secs(i64::try_from(age).unwrap_or(i64::MAX));
    match now.checked_sub(span) {
        Ok(then) if then.date() == now.date() => then.strftime("%H:%M").to_string(),
        Ok(then) => then.strftime("%b%d").to_string(),
        Err(_) => "?".to_owned(),
    }
}

/// Runs `strake top`.
pub(in crate::cli) fn top(global: &Global, args: &TopArgs) -> ExitCode {
    exit(columns(&args.options).and_then(|columns| {
        let engine = open(global)?;
        let info = engine.container(&args.container)?;
        let titles: Vec<&str> = columns.iter().map(|(title, _)| *title).collect();
        let mut table = Table::new(&titles).with_narrowest(20);
        for row in engine.container_processes(&info)? {
            table.row(columns.iter().map(|(_, show)| show(&row)).collect());
        }
        report::result(&table.render());
        Ok(())
    }))
}

/// Runs `strake container diff`.
pub(in crate::cli) fn diff(global: &Global, args: &DiffArgs) -> ExitCode {
    exit(open(global).and_then(|engine| {
        let info = engine.container(&args.container)?;
        for change in engine.container_changes(&info)? {
            let letter = match change.kind {
                ChangeKind::Added => 'A',
                ChangeKind::Changed => 'C',
                ChangeKind::Deleted => 'D',
            };
            report::result(&format!("{letter} {}", change.path));
        }
        Ok(())
    }))
}

/// How long CPU time is measured before it is shown the first time.
const FIRST_LOOK: Duration = Duration::from_millis(500);

/// How often it is shown again.
const EVERY: Duration = Duration::from_secs(1);

/// Runs `strake stats`.
pub(in crate::cli) fn stats(global: &Global, args: &StatsArgs) -> ExitCode {
    exit(open(global).and_then(|engine| show_stats(&engine, args)))
}

fn show_stats(engine: &Engine, args: &StatsArgs) -> Result<(), Error> {
    // Names that mean nothing are told at once.
    for name in &args.containers {
        engine.container(name)?;
    }
    let mut before = look(engine, args)?;
    std::thread::sleep(FIRST_LOOK);
    loop {
        let now = look(engine, args)?;
        let rows: Vec<Value> = now.iter().map(|seen| stats_row(seen, earlier(&before, &seen.info), args.no_trunc)).collect();
        show_rows(&rows, args)?;
        if args.no_stream {
            return Ok(());
        }
        before = now;
        std::thread::sleep(EVERY);
    }
}

/// A container as it was seen once.
struct Seen {
    info: ContainerInfo,
    /// As the user called it, where that was needed.
    called: Option<String>,
    usage: Option<ContainerUsage>,
}

fn look(engine: &Engine, args: &StatsArgs) -> Result<Vec<Seen>, Error> {
    let chosen: Vec<(ContainerInfo, Option<String>)> = if args.containers.is_empty() {
        engine.containers()?.into_iter().filter(|info| args.all || info.is_running()).map(|info| (info, None)).collect()
    } else {
        args.containers.iter().filter_map(|name| Some((engine.container(name).ok()?, Some(name.clone())))).collect()
    };
    Ok(chosen.into_iter().map(|(info, called)| Seen { usage: engine.container_usage(&info), info, called }).collect())
}

fn earlier<'a>(before: &'a [Seen], info: &ContainerInfo) -> Option<&'a ContainerUsage> {
    before.iter().find(|earlier| earlier.info.record.id == info.record.id)?.usage.as_ref()
}

fn show_rows(rows: &[Value], args: &StatsArgs) -> Result<(), Error> {
    if let Some(format) = given(&args.format) {
        return format.show(rows, &[("ID", "CONTAINER ID")]);
    }
    let mut table = Table::new(&["CONTAINER ID", "NAME", "CPU %", "MEM USAGE / LIMIT", "MEM %", "NET I/O", "BLOCK I/O", "PIDS"]);
    for row in rows {
        let fields = ["ID", "Name", "CPUPerc", "MemUsage", "MemPerc", "NetIO", "BlockIO", "PIDs"];
        table.row(fields.map(|field| row[field].as_str().unwrap_or_default().to_owned()).into());
    }
    if !args.no_stream && std::io::stdout().is_terminal() {
        // The same place again, and nothing below it.
        let mut out = std::io::stdout().lock();
        let _ = out.write_all(b"\x1b[H\x1b[J").and_then(|()| out.flush());
    }
    report::result(&table.render());
    Ok(())
}

fn stats_row(Seen { info, called, usage }: &Seen, before: Option<&ContainerUsage>, whole: bool) -> Value {
    let id = if whole { info.record.id.as_str() } else { info.short_id() };
    // One that does not run uses nothing.
    let mut row = json!({
        "ID": id, "Container": called.as_deref().unwrap_or(id), "Name": info.record.name, "CPUPerc": "0.00%", "MemUsage": "0B / 0B", "MemPerc": "0.00%",
        "NetIO": "0B / 0B", "BlockIO": "0B / 0B", "PIDs": "0",
    });
    if let Some(now) = usage {
        let used = before.map_or(0, |before| now.cpu.saturating_sub(before.cpu));
        let passed = before.map_or(0.0, |before| now.at.duration_since(before.at).as_nanos() as f64);
        let cpu = if passed > 0.0 { used as f64 * 100.0 / passed } else { 0.0 };
        let memory = if now.memory_limit > 0 { now.memory as f64 * 100.0 / now.memory_limit as f64 } else { 0.0 };
        row["CPUPerc"] = format!("{cpu:.2}%").into();
        row["MemUsage"] = format!("{} / {}", binary(now.memory), binary(now.memory_limit)).into();
        row["MemPerc"] = format!("{memory:.2}%").into();
        row["NetIO"] = format!("{} / {}", decimal(now.network.0), decimal(now.network.1)).into();
        row["BlockIO"] = format!("{} / {}", decimal(now.blocks.0), decimal(now.blocks.1)).into();
        row["PIDs"] = now.tasks.to_string().into();
    }
    row
}

/// Bytes in units of 1024, with four digits, as Docker shows memory.
fn binary(bytes: u64) -> String {
    scaled(bytes, 1024.0, ["B", "KiB", "MiB", "GiB", "TiB", "PiB"], 4)
}

/// Bytes in units of 1000, with three digits, as Docker shows traffic.
fn decimal(bytes: u64) -> String {
    scaled(bytes, 1000.0, ["B", "kB", "MB", "GB", "TB", "PB"], 3)
}

fn scaled(bytes: u64, base: f64, units: [&str; 6], digits: usize) -> String {
    let (mut value, mut unit) = (bytes as f64, 0);
    while value >= base && unit + 1 < units.len() {
        (value, unit) = (value / base, unit + 1);
    }
    let before = (value.max(1.0).log10().floor() as usize) + 1;
    let text = format!("{value:.*}", digits.saturating_sub(before));
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{text}{}", units[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_as_docker_shows_them() {
        for (bytes, shown) in [(0, "0B"), (968, "968B"), (1024, "1KiB"), (1_540_096, "1.469MiB"), (8_324_608_000, "7.753GiB")] {
            assert_eq!(binary(bytes), shown);
        }
        for (bytes, shown) in [(0, "0B"), (866, "866B"), (1090, "1.09kB"), (123_456_789, "123MB")] {
            assert_eq!(decimal(bytes), shown);
        }
    }

    #[test]
    fn options_of_ps_choose_the_columns() {
        let titles = |options: &[&str]| {
            let options: Vec<String> = options.iter().map(|&option| option.to_owned()).collect();
            columns(&options).map(|columns| columns.iter().map(|(title, _)| *title).collect::<Vec<_>>().join(" "))
        };
        assert_eq!(titles(&[]).unwrap(), "UID PID PPID C STIME TTY TIME CMD");
        assert_eq!(titles(&["-o", "pid,args"]).unwrap(), "PID COMMAND");
        assert_eq!(titles(&["-opid"]).unwrap(), "PID");
        assert!(titles(&["--forest"]).is_err() && titles(&["-o", "pid,what"]).is_err());
    }
}
