//! `--log-driver` and `--log-opt`, and what `strake logs --details` shows of them.
//!
//! A container's labels and variables never change, so they are not written with each line: who asks for them gets those that the options chose.

use std::collections::BTreeMap;

use clap::Args;
use regex_lite::Regex;
use serde_json::json;

use crate::cli::template::Template;
use crate::engine::{ContainerInfo, Error, parse_bytes};
use crate::runtime::container::{ContainerSpec, LogDriver, LogSettings};

// How a container's output is kept.
#[derive(Debug, Args)]
pub(super) struct LogFlags {
    /// How its output is kept: `json-file`, `local` (the same, in five files of 20 MB that are compressed when they are full), or `none`
    #[arg(long, value_name = "DRIVER", default_value = "json-file", value_parser = log_driver)]
    log_driver: LogDriver,
    /// `max-size=10m` begins a new log file after so many bytes, `max-file=3` keeps so many, `compress=true` compresses the older ones; `labels=`, `env=` (names with commas between), `labels-regex=`, `env-regex=` and `tag=` choose
    /// what `strake logs --details` shows (may be given several times)
    #[arg(long, value_name = "KEY=VALUE", value_parser = log_option)]
    log_opt: Vec<(String, String)>,
}

fn log_driver(text: &str) -> Result<LogDriver, String> {
    match text {
        "json-file" => Ok(LogDriver::JsonFile),
        "local" => Ok(LogDriver::Local),
        "none" => Ok(LogDriver::None),
        _ => Err("this log driver is not supported: expected json-file, local or none".to_owned()),
    }
}

fn log_option(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("expected KEY=VALUE")?;
    match key {
        "max-size" => max_size(value).map(drop)?,
        "max-file" => max_file(value).map(drop)?,
        "compress" => is_true(value).map(drop)?,
        "labels" | "env" => {}
        // The log is a file that nobody reads from the container's end: writing to it waits for no one in either mode.
        "mode" if matches!(value, "blocking" | "non-blocking") => {}
        "mode" => return Err(format!("`{value}` is not a mode: expected blocking or non-blocking")),
        "max-buffer-size" => drop(parse_bytes(value)?),
        "labels-regex" | "env-regex" => drop(Regex::new(value).map_err(|error| error.to_string())?),
        "tag" => drop(Template::parse(value)?),
        _ => {
            let known = "max-size, max-file, compress, mode, max-buffer-size, labels, labels-regex, env, env-regex or tag";
            return Err(format!("the option `{key}` is not supported: expected {known}"));
        }
    }
    Ok((key.to_owned(), value.to_owned()))
}

fn max_size(text: &str) -> Result<Option<u64>, String> {
    match text {
        "-1" => Ok(None),
        text => match parse_bytes(text)? {
            0 => Err("a log of 0 bytes holds nothing".to_owned()),
            size => Ok(Some(size)),
        },
    }
}

fn max_file(text: &str) -> Result<u32, String> {
    match text.parse() {
        Ok(number @ 1..) => Ok(number),
        _ => Err(format!("`{text}` is not a number of files: at least 1")),
    }
}

fn is_true(text: &str) -> Result<bool, String> {
    text.parse().map_err(|_| format!("`{text}` is neither true nor false"))
}

impl LogFlags {
    /// How the output is kept, and the options as they were written.
    pub(super) fn settings(self) -> Result<(LogSettings, BTreeMap<String, String>), Error> {
        let usage = |message| Error::Usage { message, hint: None };
        let mut log = LogSettings::of(self.log_driver);
        let has = |wanted: &str| self.log_opt.iter().any(|(key, value)| format!("{key}={value}") == wanted);
        if self.log_opt.iter().any(|(key, _)| key == "max-buffer-size") && !has("mode=non-blocking") {
            return Err(usage("--log-opt max-buffer-size is for mode=non-blocking".to_owned()));
        }
        for (key, value) in &self.log_opt {
            match key.as_str() {
                "max-size" => log.max_size = max_size(value).map_err(usage)?,
                "max-file" => log.max_files = max_file(value).map_err(usage)?,
                "compress" => log.compress = is_true(value).map_err(usage)?,
                _ => {}
            }
        }
        if log.compress && log.max_files < 2 && self.log_driver == LogDriver::JsonFile {
            let hint = Some("only files that are full are compressed: say --log-opt max-size= and --log-opt max-file=2 or more".to_owned());
            return Err(Error::Usage { message: "--log-opt compress needs max-file".to_owned(), hint });
        }
        Ok((log, self.log_opt.into_iter().collect()))
    }
}

/// What the options chose of a container, as Docker shows it: `KEY=VALUE` in the order of the keys, with commas between.
pub(super) fn details(info: &ContainerInfo) -> Result<String, Error> {
    let Some(spec) = &info.spec else { return Ok(String::new()) };
    let mut shown = BTreeMap::new();
    let variables: BTreeMap<String, String> = spec.sandbox.process.env.iter().filter_map(|entry| pair(&entry.to_string_lossy())).collect();
    for (option, value) in &spec.written.log_options {
        match option.as_str() {
            "labels" => choose(&mut shown, &spec.labels, |name| value.split(',').any(|wanted| wanted == name)),
            "env" => choose(&mut shown, &variables, |name| value.split(',').any(|wanted| wanted == name)),
            "labels-regex" => choose(&mut shown, &spec.labels, matching(value)),
            "env-regex" => choose(&mut shown, &variables, matching(value)),
            "tag" => drop(shown.insert("tag".to_owned(), tag(value, spec)?)),
            _ => {}
        }
    }
    let entries = shown.iter().map(|(name, value)| format!("{}={}", escaped(name), escaped(value)));
    Ok(entries.collect::<Vec<_>>().join(","))
}

fn pair(entry: &str) -> Option<(String, String)> {
    entry.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()))
}

fn choose(shown: &mut BTreeMap<String, String>, all: &BTreeMap<String, String>, is_wanted: impl Fn(&str) -> bool) {
    shown.extend(all.iter().filter(|(name, _)| is_wanted(name)).map(|(name, value)| (name.clone(), value.clone())));
}

fn matching(pattern: &str) -> impl Fn(&str) -> bool {
    let pattern = Regex::new(pattern).ok();
    move |name| pattern.as_ref().is_some_and(|pattern| pattern.is_match(name))
}

/// `tag=`: a template over what the container is.
fn tag(text: &str, spec: &ContainerSpec) -> Result<String, Error> {
    let short = |id: &str| id.chars().take(12).collect::<String>();
    let image = spec.image_id.trim_start_matches("sha256:");
    let value = json!({
        "ID": short(&spec.id), "FullID": spec.id, "Name": spec.name, "ImageID": short(image), "ImageFullID": spec.image_id, "ImageName": spec.image, "DaemonName": "strake",
    });
    let failed = |message| Error::Usage { message, hint: Some("the template is that of `--log-opt tag=`".to_owned()) };
    let template = Template::parse(text).map_err(failed)?;
    template.render(&value).map_err(|failure| failed(failure.message))
}

/// As in the query of an address: what is neither a letter nor a digit nor one of `-_.~` by its number, and a plus sign for a blank.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(byte.into()),
            b' ' => out.push('+'),
            other => out.push_str(&format!("%{other:02X}")),
        }
    }
    out
}
