//! Changes of an image's config and annotations.

use serde_json::{Map, Value};

use crate::oci::{Platform, RuntimeConfig};

use super::draft::Draft;

/// What is to be changed. What is set comes after what is taken away.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConfigChanges {
    /// Variables of the environment that are set.
    pub env: Vec<(String, String)>,
    /// Variables that are taken away.
    pub unset_env: Vec<String>,
    /// Labels that are set.
    pub labels: Vec<(String, String)>,
    /// Labels that are taken away.
    pub unset_labels: Vec<String>,
    /// Annotations of the manifest that are set.
    pub annotations: Vec<(String, String)>,
    /// Annotations that are taken away.
    pub unset_annotations: Vec<String>,
    /// The entrypoint; an empty one is none. The command that went with the old one goes with it.
    pub entrypoint: Option<Vec<String>>,
    /// The command; an empty one is none.
    pub cmd: Option<Vec<String>>,
    /// The user.
    pub user: Option<String>,
    /// The working directory.
    pub workdir: Option<String>,
    /// Ports, `80` or `80/udp`, in place of those that there are.
    pub exposed_ports: Option<Vec<String>>,
    /// What it runs on.
    pub platform: Option<Platform>,
}

impl ConfigChanges {
    /// Makes the changes.
    pub fn apply(&self, draft: &mut Draft) {
        if let Some(platform) = &self.platform {
            let config = &mut draft.config;
            config.os.clone_from(&platform.os);
            config.architecture.clone_from(&platform.architecture);
            config.variant.clone_from(&platform.variant);
            config.os_version.clone_from(&platform.os_version);
            config.os_features.clone_from(&platform.os_features);
        }
        self.apply_to_config(&mut draft.config.config);
        draft.annotations.retain(|name, _| !self.unset_annotations.contains(name));
        draft.annotations.extend(self.annotations.iter().cloned());
    }

    fn apply_to_config(&self, config: &mut RuntimeConfig) {
        config.env.retain(|entry| !self.unset_env.iter().any(|name| name == name_of(entry)));
        for (name, value) in &self.env {
            set_env(&mut config.env, name, value);
        }
        config.labels.retain(|name, _| !self.unset_labels.contains(name));
        config.labels.extend(self.labels.iter().cloned());
        if let Some(entrypoint) = &self.entrypoint {
            config.entrypoint.clone_from(entrypoint);
            config.cmd.clear();
        }
        if let Some(cmd) = &self.cmd {
            config.cmd.clone_from(cmd);
        }
        if let Some(user) = &self.user {
            config.user.clone_from(user);
        }
        if let Some(workdir) = &self.workdir {
            config.working_dir.clone_from(workdir);
        }
        if let Some(ports) = &self.exposed_ports {
            let port = |text: &String| if text.contains('/') { text.clone() } else { format!("{text}/tcp") };
            config.exposed_ports = ports.iter().map(|text| (port(text), Value::Object(Map::new()))).collect();
        }
    }
}

/// Sets a variable where it stands, or at the end.
pub(super) fn set_env(env: &mut Vec<String>, name: &str, value: &str) {
    let entry = format!("{name}={value}");
    match env.iter_mut().find(|entry| name_of(entry) == name) {
        Some(known) => *known = entry,
        None => env.push(entry),
    }
}

/// The name of a variable in `NAME=value`.
pub(super) fn name_of(entry: &str) -> &str {
    entry.split_once('=').map_or(entry, |(name, _)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_keep_their_place_and_an_entrypoint_takes_the_command_with_it() {
        let mut draft = Draft::scratch(&Platform::host());
        draft.config.config.env = vec!["A=1".into(), "B=2".into(), "C=3".into()];
        draft.config.config.cmd = vec!["old".into()];
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let changes = ConfigChanges {
            env: vec![pair("A", "x=y"), pair("D", "")],
            unset_env: vec!["B".into(), "AB".into()],
            entrypoint: Some(vec!["/bin/app".into()]),
            exposed_ports: Some(vec!["80".into(), "53/udp".into()]),
            platform: Some("linux/arm/v6".parse().unwrap()),
            ..ConfigChanges::default()
        };
        changes.apply(&mut draft);
        let config = &draft.config.config;
        assert_eq!(config.env, ["A=x=y", "C=3", "D="]);
        assert_eq!((config.entrypoint.as_slice(), config.cmd.is_empty()), (&["/bin/app".to_owned()][..], true));
        assert_eq!(config.exposed_ports.keys().collect::<Vec<_>>(), ["53/udp", "80/tcp"]);
        assert_eq!(draft.config.platform().to_string(), "linux/arm/v6");
    }
}
