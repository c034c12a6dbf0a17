//! `strake events`: what happens to containers, images, volumes and networks.

use std::process::ExitCode;

use clap::Args;
use jiff::Timestamp;
use serde_json::json;

use crate::cli::format::{Format, format, given};
use crate::cli::{Global, report};
use crate::engine::{Error, Event, EventOptions};

use super::containers::{open, time};
use super::exit;

// Flags of `strake events`.
#[derive(Debug, Args)]
pub(in crate::cli) struct EventsArgs {
    /// Also those since then: RFC 3339, seconds since the epoch, or `10m` for ten minutes ago
    #[arg(long, value_name = "TIME", value_parser = time, allow_hyphen_values = true)]
    since: Option<Timestamp>,
    /// Only those before that time, from the first that is known, and none that are to come after it [default: for ever]
    #[arg(long, value_name = "TIME", value_parser = time, allow_hyphen_values = true)]
    until: Option<Timestamp>,
    /// `container=`, `volume=`, `network=` or `daemon=` with the beginning of an ID or a name, `image=`, `type=`, `event=`, `scope=` or `label=` (may be given several times)
    #[arg(short, long, value_name = "FILTER", value_parser = filter)]
    filter: Vec<(String, String)>,
    /// `json`, or a template such as `{{.Action}} {{.Actor.ID}}`
    #[arg(long, value_parser = format)]
    format: Option<Format>,
}

fn filter(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("expected KEY=VALUE")?;
    match key {
        "container" | "volume" | "network" | "daemon" | "image" | "type" | "event" | "scope" | "label" => {
            Ok((key.to_owned(), value.to_owned()))
        }
        // Of Docker's kinds of things that are not here, nothing is told.
        "config" | "node" | "plugin" | "secret" | "service" => Ok(("type".to_owned(), key.to_owned())),
        _ => Err(format!("the filter `{key}` is not supported: expected container, volume, network, image, type, event, scope or label")),
    }
}

/// Whether an image's name is meant, with its tag or without.
fn is_image(name: &str, wanted: &str) -> bool {
    let untagged = name.rsplit_once(':').filter(|(_, tag)| !tag.contains('/')).map_or(name, |(name, _)| name);
    !name.is_empty() && (name == wanted || untagged == wanted)
}

/// Filters of one key are alternatives, except labels; different keys must all hold.
fn matches(event: &Event, filters: &[(String, String)]) -> bool {
    let attribute = |name: &str| event.actor.attributes.get(name).map_or("", String::as_str);
    let holds = |key: &str, value: &str| match key {
        "container" | "volume" | "network" | "daemon" => {
            event.kind == key && (event.actor.id.starts_with(value) || attribute("name").starts_with(value))
        }
        "image" if event.kind == "image" => [event.actor.id.as_str(), attribute("name")].into_iter().any(|name| is_image(name, value)),
        "image" => is_image(attribute("image"), value),
        "scope" => event.scope == value,
        "type" => event.kind == value,
        // Some actions go on behind a colon: `exec_start: COMMAND`.
        "event" => event.action == value || event.action.split_once(':').is_some_and(|(action, _)| action == value),
        _ => {
            let (name, wanted) = value.split_once('=').map_or((value, None), |(name, wanted)| (name, Some(wanted)));
            event.actor.attributes.get(name).is_some_and(|known| wanted.is_none_or(|wanted| wanted == known))
        }
    };
    filters.iter().all(|(key, value)| match key.as_str() {
        "label" => holds(key, value),
        _ => filters.iter().any(|(other, value)| other == key && holds(key, value)),
    })
}

/// Runs `strake events`.
pub(in crate::cli) fn events(global: &Global, args: &EventsArgs) -> ExitCode {
    if let (Some(since), Some(until)) = (args.since, args.until)
        && since > until
    {
        let message = format!("the time of --since ({since}) is after that of --until ({until})");
        return exit(Err(Error::Usage { message, hint: None }));
    }
    exit(open(global).and_then(|engine| {
        let mut failure: Option<Error> = None;
        let options = EventOptions { since: args.since, until: args.until };
        engine.events(&options, &mut |event| {
            if !matches(event, &args.filter) {
                return true;
            }
            match show(event, given(&args.format)) {
                Ok(line) => report::result(&line),
                Err(error) => failure = Some(error),
            }
            failure.is_none()
        })?;
        failure.map_or(Ok(()), Err)
    }))
}

fn show(event: &Event, format: Option<&Format>) -> Result<String, Error> {
    if let Some(format) = format {
        let mut value = json!(event);
        // What the fields are called in Docker's own structure, where that is not their name in JSON.
        let text = |text: &Option<String>| json!(text.as_deref().unwrap_or_default());
        let named = [
            ("ID", text(&event.id)),
            ("Status", text(&event.status)),
            ("From", text(&event.from)),
            ("Scope", json!(event.scope)),
            ("Time", json!(event.time)),
            ("TimeNano", json!(event.time_nano)),
        ];
        for (name, field) in named.into_iter().filter(|(name, _)| format.mentions(name)) {
            value[name] = field;
        }
        return format.render(&value);
    }
    let time = Timestamp::from_nanosecond(i128::from(event.time_nano)).unwrap_or_default();
    let attributes: Vec<String> = event.actor.attributes.iter().map(|(name, value)| format!("{name}={value}")).collect();
    Ok(format!(
        "{} {} {} {} ({})",
        time.strftime("%Y-%m-%dT%H:%M:%S.%9fZ"),
        event.kind,
        event.action,
        event.actor.id,
        attributes.join(", ")
    ))
}
