//! How a container's health is found out: the flags over what the image says, and Docker's values where nobody says anything.

use std::ffi::OsString;
use std::time::Duration;

use crate::oci::{HealthConfig, RuntimeConfig};
use crate::runtime::container::HealthCheck;

/// What the user wants of the health check; what is `None` is as the image has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HealthRequest {
    /// Whether there is to be none.
    pub none: bool,
    /// The command, for the shell.
    pub command: Option<String>,
    /// From the end of one probe to the next.
    pub interval: Option<Duration>,
    /// How long one may take.
    pub timeout: Option<Duration>,
    /// For how long after the start failures do not count.
    pub start_period: Option<Duration>,
    /// The interval meanwhile.
    pub start_interval: Option<Duration>,
    /// How many failures in a row make it unhealthy.
    pub retries: Option<u32>,
}

/// The check that the request and the image ask for, if they do.
pub(super) fn health_check(config: &RuntimeConfig, request: &HealthRequest) -> Option<HealthCheck> {
    if request.none {
        return None;
    }
    let image = config.healthcheck.clone().unwrap_or_default();
    let written = match &request.command {
        Some(command) => vec!["CMD-SHELL".to_owned(), command.clone()],
        None => image.test.clone(),
    };
    let command: Vec<OsString> = match written.split_first()? {
        (kind, args) if kind == "CMD" && !args.is_empty() => args.iter().map(OsString::from).collect(),
        (kind, args) if kind == "CMD-SHELL" && !args.is_empty() => {
            let shell = match config.shell.is_empty() {
                true => vec!["/bin/sh".to_owned(), "-c".to_owned()],
                false => config.shell.clone(),
            };
            shell.iter().chain(args).map(OsString::from).collect()
        }
        _ => return None,
    };
    Some(HealthCheck {
        command,
        written,
        interval: chosen(request.interval, image.interval, 30),
        timeout: chosen(request.timeout, image.timeout, 30),
        start_period: chosen(request.start_period, image.start_period, 0),
        start_interval: chosen(request.start_interval, image.start_interval, 5),
        retries: request
            .retries
            .filter(|retries| *retries > 0)
            .or_else(|| u32::try_from(image.retries).ok().filter(|retries| *retries > 0))
            .unwrap_or(3),
    })
}

/// The flag's value, or the image's in nanoseconds, or so many seconds; 0 is no value.
fn chosen(flag: Option<Duration>, image: i64, seconds: u64) -> Duration {
    let image = u64::try_from(image).ok().map(Duration::from_nanos);
    flag.filter(|time| !time.is_zero()).or(image.filter(|time| !time.is_zero())).unwrap_or(Duration::from_secs(seconds))
}

/// The check as it was written: the flags over what the image says, where either says anything.
pub(super) fn written_health(config: &RuntimeConfig, request: &HealthRequest) -> Option<HealthConfig> {
    if request.none {
        return Some(HealthConfig { test: vec!["NONE".to_owned()], ..HealthConfig::default() });
    }
    if config.healthcheck.is_none() && *request == HealthRequest::default() {
        return None;
    }
    let image = config.healthcheck.clone().unwrap_or_default();
    let time = |flag: Option<Duration>, image: i64| match flag.filter(|time| !time.is_zero()) {
        Some(time) => i64::try_from(time.as_nanos()).unwrap_or(i64::MAX),
        None => image,
    };
    Some(HealthConfig {
        test: request.command.clone().map_or(image.test, |command| vec!["CMD-SHELL".to_owned(), command]),
        interval: time(request.interval, image.interval),
        timeout: time(request.timeout, image.timeout),
        start_period: time(request.start_period, image.start_period),
        start_interval: time(request.start_interval, image.start_interval),
        retries: request.retries.filter(|retries| *retries > 0).map_or(image.retries, i64::from),
    })
}

/// The check as an image's config holds it.
pub(super) fn health_config(check: &HealthCheck) -> HealthConfig {
    let nanoseconds = |time: Duration| i64::try_from(time.as_nanos()).unwrap_or(i64::MAX);
    HealthConfig {
        test: check.written.clone(),
        interval: nanoseconds(check.interval),
        timeout: nanoseconds(check.timeout),
        start_period: nanoseconds(check.start_period),
        start_interval: nanoseconds(check.start_interval),
        retries: i64::from(check.retries),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(test: &[&str]) -> RuntimeConfig {
        let test = test.iter().map(|&word| word.to_owned()).collect();
        let health = HealthConfig { test, interval: 7_000_000_000, ..HealthConfig::default() };
        RuntimeConfig { healthcheck: Some(health), ..RuntimeConfig::default() }
    }

    #[test]
    fn flags_win_over_the_image_and_the_image_over_the_usual() {
        let check = health_check(&image(&["CMD", "a", "b"]), &HealthRequest { retries: Some(9), ..HealthRequest::default() }).unwrap();
        assert_eq!(check.command, ["a", "b"]);
        assert_eq!((check.interval.as_secs(), check.timeout.as_secs(), check.retries), (7, 30, 9));
        let request = HealthRequest { command: Some("x y".into()), interval: Some(Duration::from_secs(1)), ..HealthRequest::default() };
        let check = health_check(&image(&["CMD", "a"]), &request).unwrap();
        assert_eq!((check.command.join(" ".as_ref()), check.interval.as_secs()), ("/bin/sh -c x y".into(), 1));
    }

    #[test]
    fn what_was_written_has_no_more_than_was_said() {
        let request = HealthRequest { command: Some("true".into()), retries: Some(2), ..HealthRequest::default() };
        let written = written_health(&image(&["CMD", "a"]), &request).unwrap();
        assert_eq!(
            (written.test.join(" "), written.interval, written.timeout, written.retries),
            ("CMD-SHELL true".into(), 7_000_000_000, 0, 2)
        );
        let none = HealthRequest { none: true, ..HealthRequest::default() };
        assert_eq!(written_health(&RuntimeConfig::default(), &none).unwrap().test, ["NONE"]);
        assert_eq!(written_health(&RuntimeConfig::default(), &HealthRequest::default()), None);
    }

    #[test]
    fn there_is_none_where_nobody_asks_and_where_somebody_asks_for_none() {
        let none = HealthRequest { none: true, ..HealthRequest::default() };
        assert_eq!(health_check(&image(&["CMD", "a"]), &none), None);
        assert_eq!(health_check(&image(&["NONE"]), &HealthRequest::default()), None);
        let interval = HealthRequest { interval: Some(Duration::from_secs(1)), ..HealthRequest::default() };
        assert_eq!(health_check(&RuntimeConfig::default(), &interval), None);
    }
}
