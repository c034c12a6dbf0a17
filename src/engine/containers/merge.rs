//! What a container runs: the request over the image's config. Pure functions.

use crate::oci::RuntimeConfig;
use crate::runtime::container::Written;

use super::health::written_health;
use super::{MountRequest, RunRequest};

/// Where commands are looked for in an image that does not say.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The whole command line. Another entry point drops the image's command; an empty one only the entry point.
pub(super) fn command(config: &RuntimeConfig, request: &RunRequest) -> Vec<String> {
    let mut line = match request.entrypoint.as_deref() {
        None => config.entrypoint.clone(),
        Some("") => Vec::new(),
        Some(entrypoint) => vec![entrypoint.to_owned()],
    };
    if !request.args.is_empty() {
        line.extend(request.args.iter().cloned());
    } else if request.entrypoint.is_none() {
        line.extend(config.cmd.iter().cloned());
    }
    line
}

/// The environment: `PATH`, `HOSTNAME` and `TERM`, then the image's, then the request's. `HOME` is that of the user where nobody sets it.
pub(super) fn environment(config: &RuntimeConfig, request: &RunRequest, hostname: &str, home: Option<&str>) -> Vec<(String, String)> {
    let mut first = vec![("PATH", PATH), ("HOSTNAME", hostname)];
    first.extend(request.tty.then_some(("TERM", "xterm")));
    let mut env = variables(config, request, &first);
    if !env.iter().any(|(name, _)| name == "HOME") {
        env.push(("HOME".to_owned(), home.filter(|home| !home.is_empty()).unwrap_or("/").to_owned()));
    }
    env
}

/// The variables of the image and of the request, over those in `first`.
fn variables(config: &RuntimeConfig, request: &RunRequest, first: &[(&str, &str)]) -> Vec<(String, String)> {
    let mut env: Vec<(String, String)> = first.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let mut set = |name: &str, value: Option<&str>| {
        let known = env.iter().position(|(known, _)| known == name);
        match (known, value) {
            (Some(index), Some(value)) => value.clone_into(&mut env[index].1),
            (Some(index), None) => drop(env.remove(index)),
            (None, Some(value)) => env.push((name.to_owned(), value.to_owned())),
            (None, None) => {}
        }
    };
    for entry in &config.env {
        let (name, value) = entry.split_once('=').unwrap_or((entry, ""));
        set(name, Some(value));
    }
    for (name, value) in &request.env {
        set(name, value.as_deref());
    }
    env
}

/// What the container was made of, as it was written.
pub(super) fn written(config: &RuntimeConfig, request: &RunRequest) -> Written {
    let sets_home = config.env.iter().any(|entry| entry.starts_with("HOME="))
        || request.env.iter().any(|(name, value)| name == "HOME" && value.is_some());
    let entrypoint = match request.entrypoint.as_deref() {
        None => config.entrypoint.clone(),
        Some("") => Vec::new(),
        Some(entrypoint) => vec![entrypoint.to_owned()],
    };
    let line = command(config, request);
    let by_mount = |mount: &MountRequest| request.mount_targets.contains(mount.target());
    // `-v /data` is one more `VOLUME`.
    let is_anonymous = |mount: &&MountRequest| matches!(mount, MountRequest::Volume { name: None, .. }) && !by_mount(mount);
    let anonymous = request.mounts.iter().filter(is_anonymous).map(|mount| mount.target().to_string());
    Written {
        command: line.get(entrypoint.len()..).unwrap_or_default().to_vec(),
        entrypoint,
        user: request.user.clone().unwrap_or_else(|| config.user.clone()),
        workdir: request.workdir.clone().unwrap_or_else(|| config.working_dir.clone()),
        env: variables(config, request, &[]).into_iter().map(|(name, value)| format!("{name}={value}")).collect(),
        home_of_user: !sets_home,
        ports: config.exposed_ports.keys().chain(&request.ports).cloned().collect::<std::collections::BTreeSet<_>>().into_iter().collect(),
        volumes: config.volumes.keys().cloned().chain(anonymous).collect::<std::collections::BTreeSet<_>>().into_iter().collect(),
        security: security(request),
        stop_signal: Some(config.stop_signal.clone()).filter(|signal| !signal.is_empty()),
        log_options: request.log_options.clone(),
        annotations: request.annotations.clone(),
        mounted_volumes: Vec::new(),
        named_devices: request.named_devices.clone(),
        device_rules: request.device_rules.iter().map(|(text, _)| text.clone()).collect(),
        group_add: request.group_add.clone(),
        volumes_from: request.volumes_from.iter().map(ToString::to_string).collect(),
        publish_all: request.publish_all,
        tmpfs: request.tmpfs_options.clone(),
        binds: request.mounts.iter().filter(|mount| !by_mount(mount)).filter_map(MountRequest::bind_text).collect(),
        mounts: request.mounts.iter().filter(|mount| by_mount(mount)).map(MountRequest::inspected).collect(),
        cidfile: request.cidfile.clone(),
        on_build: config.on_build.clone(),
        shell: config.shell.clone(),
        attached: request.attached,
        health: written_health(config, &request.health),
    }
}

/// The options about security, in Docker's spelling.
fn security(request: &RunRequest) -> Vec<String> {
    let no_new_privileges = request.no_new_privileges.then(|| "no-new-privileges".to_owned());
    no_new_privileges.into_iter().chain(request.seccomp.written()).chain(request.security_labels.iter().cloned()).collect()
}

/// The labels: the request's over the image's.
pub(super) fn labels(config: &RuntimeConfig, request: &RunRequest) -> std::collections::BTreeMap<String, String> {
    let mut labels = config.labels.clone();
    labels.extend(request.labels.clone());
    labels
}

#[cfg(test)]
mod tests {
    use super::super::tests::request;
    use super::*;

    fn config() -> RuntimeConfig {
        RuntimeConfig { entrypoint: vec!["entry".into()], cmd: vec!["cmd".into()], ..RuntimeConfig::default() }
    }

    #[test]
    fn arguments_replace_the_command_and_keep_the_entry_point() {
        assert_eq!(command(&config(), &request()), ["entry", "cmd"]);
        assert_eq!(command(&config(), &RunRequest { args: vec!["x".into()], ..request() }), ["entry", "x"]);
    }

    #[test]
    fn another_entry_point_drops_the_images_command() {
        assert_eq!(command(&config(), &RunRequest { entrypoint: Some("other".into()), ..request() }), ["other"]);
        assert_eq!(command(&config(), &RunRequest { entrypoint: Some(String::new()), ..request() }), Vec::<String>::new());
        let cleared = RunRequest { entrypoint: Some(String::new()), args: vec!["sh".into()], ..request() };
        assert_eq!(command(&config(), &cleared), ["sh"]);
    }

    #[test]
    fn variables_override_in_order_and_one_without_value_is_taken_away() {
        let config = RuntimeConfig { env: vec!["A=image".into(), "B=image".into(), "PATH=/x".into()], ..RuntimeConfig::default() };
        let request = RunRequest { env: vec![("A".into(), Some("b=c".into())), ("B".into(), None)], tty: true, ..request() };
        let env = environment(&config, &request, "host", Some("/root"));
        let text: Vec<String> = env.iter().map(|(name, value)| format!("{name}={value}")).collect();
        assert_eq!(text, ["PATH=/x", "HOSTNAME=host", "TERM=xterm", "A=b=c", "HOME=/root"]);
    }

    #[test]
    fn home_is_the_root_directory_for_users_without_one() {
        let env = environment(&RuntimeConfig::default(), &request(), "host", None);
        assert_eq!(env.last(), Some(&("HOME".to_owned(), "/".to_owned())));
    }
}
