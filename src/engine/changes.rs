//! `--change` of `import`: instructions that change a config without running anything, in the Dockerfile's own grammar.

use crate::diag::{Diagnostic, SourceFile};
use crate::graph::{CheckScope, NamedContexts, NetworkMode, PlanRequest, Planned, ResolvedImages, plan};
use crate::oci::{Platform, RuntimeConfig};
use crate::parser::parse;

use super::Error;

/// What may be changed.
const ALLOWED: [&str; 11] =
    ["CMD", "ENTRYPOINT", "ENV", "EXPOSE", "HEALTHCHECK", "LABEL", "ONBUILD", "STOPSIGNAL", "USER", "VOLUME", "WORKDIR"];

/// Applies instructions to `config`: they are planned as a Dockerfile on an empty image, whose config is then taken.
pub(super) fn apply_changes(config: &mut RuntimeConfig, changes: &[String]) -> Result<(), Error> {
    if changes.is_empty() {
        return Ok(());
    }
    for change in changes {
        let mut goes_on = false;
        for line in change.split('\n').map(str::trim) {
            let is_comment = line.is_empty() || line.starts_with('#');
            let begins = !goes_on && (!is_comment || change.trim().is_empty());
            goes_on = line.ends_with('\\') || goes_on && is_comment;
            let keyword = line.split_whitespace().next().unwrap_or("").to_ascii_uppercase();
            if begins && !ALLOWED.contains(&keyword.as_str()) {
                let hint = Some(format!("it can be one of {}", ALLOWED.join(", ")));
                return Err(Error::Usage { message: format!("`{line}` is no change of an image's settings"), hint });
            }
        }
    }
    let file = SourceFile::new("--change", format!("FROM scratch\n{}\n", changes.join("\n")));
    let parsed = parse(&file);
    if parsed.diagnostics.iter().any(Diagnostic::is_error) {
        return Err(Error::Diagnostics(parsed.diagnostics));
    }
    let request = PlanRequest {
        dockerfile: &parsed.dockerfile,
        target: None,
        build_args: &std::collections::BTreeMap::new(),
        labels: &[],
        contexts: NamedContexts::NONE,
        target_platform: Platform::host(),
        implicit_platform: true,
        one_of_several: false,
        build_platform: Platform::host(),
        network: NetworkMode::None,
        extra_hosts: std::sync::Arc::default(),
        entitlements: crate::graph::Entitlements::ALL,
        no_cache: false,
        no_cache_filter: &[],
        checks: CheckScope::default(),
    };
    let needs_images = || Error::Usage { message: "a change cannot name an image".into(), hint: None };
    match plan(&request, &ResolvedImages::new()).map_err(Error::Diagnostics)? {
        Planned::Ready(graph) => {
            *config = graph.targets[0].config.config.clone();
            Ok(())
        }
        Planned::NeedsImages(_) => Err(needs_images()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_set_what_a_dockerfile_would() {
        let mut config = RuntimeConfig::default();
        let changes = ["CMD [\"/bin/sh\"]", "ENV A=b C=d", "EXPOSE 80", "LABEL x=y", "USER app", "WORKDIR /srv", "VOLUME /data"];
        apply_changes(&mut config, &changes.map(str::to_owned)).unwrap();
        assert_eq!(config.cmd, ["/bin/sh"]);
        assert!(config.env.ends_with(&["A=b".to_owned(), "C=d".to_owned()]), "{:?}", config.env);
        assert!(config.exposed_ports.contains_key("80/tcp"));
        assert_eq!(config.labels["x"], "y");
        assert_eq!((config.user.as_str(), config.working_dir.as_str()), ("app", "/srv"));
        assert!(config.volumes.contains_key("/data"));
    }

    #[test]
    fn a_change_may_be_several_lines() {
        let mut config = RuntimeConfig::default();
        apply_changes(&mut config, &["# both\nENV A=1\nLABEL x=y \\\n  z=RUN\n\nCMD a".to_owned(), "USER b".to_owned()]).unwrap();
        assert!(config.env.contains(&"A=1".to_owned()), "{:?}", config.env);
        assert_eq!((config.labels["x"].as_str(), config.labels["z"].as_str(), config.user.as_str()), ("y", "RUN", "b"));
    }

    #[test]
    fn instructions_that_run_or_copy_are_refused() {
        for change in ["RUN rm -rf /", "COPY a b", "FROM x", "CMD a\nRUN b", "", "ADD x y"] {
            assert!(matches!(apply_changes(&mut RuntimeConfig::default(), &[change.to_owned()]), Err(Error::Usage { .. })), "{change}");
        }
    }
}
