//! Another base below an image's own layers, as if it had been built on that one.
//!
//! The layers of the old base are replaced by those of the new one. Of the config, what the image took over from its old base comes from the new one, and what
//! it set itself stays: each variable, label, port and volume by itself, the rest setting by setting. What cannot be right is refused ([`Refusal`]): an image that does
//! not stand on the old base, or a base that would have asked for other steps. What the files say against it, [`super::conflicts()`] finds.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::oci::{DiffId, Digest, HistoryEntry, ImageConfig, Platform, RuntimeConfig};
use crate::path::RootPath;

use super::changes::name_of;
use super::draft::Draft;

/// The annotation with the name of the base image (image-spec 1.1, "Pre-Defined Annotation Keys").
pub const BASE_NAME: &str = "org.opencontainers.image.base.name";

/// The annotation with the digest of the base image's manifest.
pub const BASE_DIGEST: &str = "org.opencontainers.image.base.digest";

/// Why an image cannot be put on another base.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It has fewer layers than the old base.
    #[error("`{image}` is not built on `{base}`: it has {has} layers, and the base alone has {needs}")]
    TooFewLayers {
        /// The image.
        image: String,
        /// The old base.
        base: String,
        /// How many layers the image has.
        has: usize,
        /// How many the old base has.
        needs: usize,
    },
    /// A layer is not the old base's.
    #[error("`{image}` is not built on `{base}`: its layer {position} is {actual}, and that of the base {expected}")]
    OtherLayer {
        /// The image.
        image: String,
        /// The old base.
        base: String,
        /// Which layer, from 1.
        position: usize,
        /// The image's.
        actual: DiffId,
        /// The old base's.
        expected: DiffId,
    },
    /// The history is not that of an image on the old base.
    #[error("`{image}` is not built on `{base}`: the history of the base is not the beginning of its history")]
    OtherHistory {
        /// The image.
        image: String,
        /// The old base.
        base: String,
    },
    /// The image says that it has another base.
    #[error("`{image}` says that its base is {stated}, and `{base}` is not that")]
    OtherBase {
        /// The image.
        image: String,
        /// The old base.
        base: String,
        /// What the image says.
        stated: Digest,
    },
    /// One of the three is for something else.
    #[error("`{image}` is for {wanted}, and `{base}` for {actual}")]
    OtherPlatform {
        /// The image.
        image: String,
        /// What it is for.
        wanted: Platform,
        /// A base.
        base: String,
        /// What that is for.
        actual: Platform,
    },
    /// Files of the image were made of files that the new base has changed.
    #[error("`{image}` has changed files of its old base that are not the same in `{base}`: {}", first(.paths))]
    Files {
        /// The image.
        image: String,
        /// The new base.
        base: String,
        /// The files.
        paths: Vec<RootPath>,
    },
    /// The new base has steps for whoever builds on it.
    #[error("`{base}` has ONBUILD triggers, which only a build can run")]
    Triggers {
        /// The new base.
        base: String,
    },
}

impl Refusal {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Refusal::Files { .. } => "build it again on the new base; with --force the image's files stay as they are",
            Refusal::Triggers { .. } => "build it again on the new base",
            Refusal::OtherPlatform { .. } => "choose the images of one platform with --platform",
            _ => "name the base that it was built on, with the digest that it had then",
        }
    }
}

/// The first of some paths, and how many there are besides.
fn first(paths: &[RootPath]) -> String {
    const SHOWN: usize = 5;
    let shown: Vec<String> = paths.iter().take(SHOWN).map(|path| path.as_os_str().to_string_lossy().into_owned()).collect();
    let more = if paths.len() > SHOWN { format!(" and {} more", paths.len() - SHOWN) } else { String::new() };
    format!("{}{more}", shown.join(", "))
}

/// Puts `image`, which stands on `old`, on `new`. `named` is what the annotations are to say of the new base.
///
/// # Errors
/// [`Refusal`].
pub fn rebase(image: &Draft, old: &Draft, new: &Draft, named: Option<(String, Digest)>) -> Result<Draft, Refusal> {
    check(image, old, new)?;
    let mut result = image.clone();
    let own = &image.layers[old.layers.len()..];
    result.layers = new.layers.iter().chain(own).cloned().collect();
    result.config.config = merge_config(&image.config.config, &old.config.config, &new.config.config);
    result.config.history = merge_history(image, old, new);
    result.config.os_version.clone_from(&new.config.os_version);
    result.config.os_features.clone_from(&new.config.os_features);
    let packed = image.wants_manifest();
    match named {
        Some((name, digest)) if packed => {
            result.annotations.insert(BASE_NAME.to_owned(), name);
            result.annotations.insert(BASE_DIGEST.to_owned(), digest.to_string());
        }
        _ => result.annotations.retain(|name, _| name != BASE_NAME && name != BASE_DIGEST),
    }
    Ok(result)
}

fn check(image: &Draft, old: &Draft, new: &Draft) -> Result<(), Refusal> {
    let (name, base) = (image.name.clone(), old.name.clone());
    for other in [old, new] {
        let (wanted, actual) = (image.config.platform(), other.config.platform());
        if !actual.matches(&wanted) {
            return Err(Refusal::OtherPlatform { image: name, wanted, base: other.name.clone(), actual });
        }
    }
    let (has, needs) = (image.layers.len(), old.layers.len());
    if has < needs {
        return Err(Refusal::TooFewLayers { image: name, base, has, needs });
    }
    for (at, (one, other)) in image.layers.iter().zip(&old.layers).enumerate() {
        if one.diff_id != other.diff_id {
            let (actual, expected) = (one.diff_id.clone(), other.diff_id.clone());
            return Err(Refusal::OtherLayer { image: name, base, position: at + 1, actual, expected });
        }
    }
    let stated = image.annotations.get(BASE_DIGEST).and_then(|digest| digest.parse::<Digest>().ok());
    if let Some(stated) = stated.filter(|stated| !old.digests.is_empty() && !old.digests.contains(stated)) {
        return Err(Refusal::OtherBase { image: name, base, stated });
    }
    let told = |config: &ImageConfig| !config.history.is_empty();
    if told(&image.config) && told(&old.config) && !begins_with(&image.config.history, &old.config.history) {
        return Err(Refusal::OtherHistory { image: name, base });
    }
    let triggers = &new.config.config.on_build;
    if !triggers.is_empty() && *triggers != old.config.config.on_build {
        return Err(Refusal::Triggers { base: new.name.clone() });
    }
    Ok(())
}

/// Whether a history goes on from another. Times may have been rewritten since.
fn begins_with(history: &[HistoryEntry], beginning: &[HistoryEntry]) -> bool {
    let same = |(one, other): (&HistoryEntry, &HistoryEntry)| one.created_by == other.created_by && one.empty_layer == other.empty_layer;
    history.len() >= beginning.len() && history.iter().zip(beginning).all(same)
}

/// The new base's history, then the image's own. Entries with layers must be as many as layers, so where one of the two has none, there is none.
fn merge_history(image: &Draft, old: &Draft, new: &Draft) -> Vec<HistoryEntry> {
    let layers = |history: &[HistoryEntry]| history.iter().filter(|entry| !entry.empty_layer).count();
    let own = image.config.history.get(old.config.history.len()..).unwrap_or_default();
    let (below, own_layers) = (layers(&new.config.history), image.layers.len() - old.layers.len());
    if image.config.history.is_empty() || below != new.layers.len() || layers(own) != own_layers {
        return Vec::new();
    }
    new.config.history.iter().chain(own).cloned().collect()
}

/// What the image took over from `old` comes from `new`; what it has of its own stays.
fn merge_config(image: &RuntimeConfig, old: &RuntimeConfig, new: &RuntimeConfig) -> RuntimeConfig {
    let own_entrypoint = image.entrypoint != old.entrypoint;
    RuntimeConfig {
        user: pick(&image.user, &old.user, &new.user),
        exposed_ports: pick_each(&image.exposed_ports, &old.exposed_ports, &new.exposed_ports),
        env: merge_env(&image.env, &old.env, &new.env),
        // An entrypoint of the image's own has taken the base's command away.
        cmd: if own_entrypoint { image.cmd.clone() } else { pick(&image.cmd, &old.cmd, &new.cmd) },
        entrypoint: pick(&image.entrypoint, &old.entrypoint, &new.entrypoint),
        volumes: pick_each(&image.volumes, &old.volumes, &new.volumes),
        working_dir: pick(&image.working_dir, &old.working_dir, &new.working_dir),
        labels: pick_each(&image.labels, &old.labels, &new.labels),
        stop_signal: pick(&image.stop_signal, &old.stop_signal, &new.stop_signal),
        args_escaped: pick(&image.args_escaped, &old.args_escaped, &new.args_escaped),
        healthcheck: pick(&image.healthcheck, &old.healthcheck, &new.healthcheck),
        on_build: image.on_build.clone(),
        shell: pick(&image.shell, &old.shell, &new.shell),
        other: merge_other(&image.other, &old.other, &new.other),
    }
}

fn pick<T: PartialEq + Clone>(image: &T, old: &T, new: &T) -> T {
    if image == old { new.clone() } else { image.clone() }
}

fn pick_each<V: PartialEq + Clone>(
    image: &BTreeMap<String, V>,
    old: &BTreeMap<String, V>,
    new: &BTreeMap<String, V>,
) -> BTreeMap<String, V> {
    let names = image.keys().chain(new.keys());
    let picked = |name: &String| pick(&image.get(name), &old.get(name), &new.get(name)).map(|value| (name.clone(), value.clone()));
    names.filter_map(picked).collect()
}

fn merge_env(image: &[String], old: &[String], new: &[String]) -> Vec<String> {
    let value = |env: &[String], name: &str| env.iter().find(|entry| name_of(entry) == name).cloned();
    let mut merged: Vec<String> = Vec::new();
    // The base's first, as in a build.
    for name in new.iter().chain(image).map(|entry| name_of(entry)) {
        let picked = pick(&value(image, name), &value(old, name), &value(new, name));
        if !merged.iter().any(|entry| name_of(entry) == name) {
            merged.extend(picked);
        }
    }
    merged
}

fn merge_other(image: &Map<String, Value>, old: &Map<String, Value>, new: &Map<String, Value>) -> Map<String, Value> {
    let mut merged = Map::new();
    for name in new.keys().chain(image.keys()) {
        if let Some(value) = pick(&image.get(name), &old.get(name), &new.get(name)) {
            merged.insert(name.clone(), value.clone());
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(env: &[&str], cmd: &[&str], user: &str, labels: &[(&str, &str)]) -> RuntimeConfig {
        let owned = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect();
        let labels = labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        RuntimeConfig { env: owned(env), cmd: owned(cmd), user: user.to_owned(), labels, ..RuntimeConfig::default() }
    }

    #[test]
    fn what_the_image_set_stays_and_what_it_took_over_is_the_new_bases() {
        let old = config(&["PATH=/bin", "V=1", "GONE=1", "UNSET=x"], &["sh"], "", &[("kept", "old"), ("mine", "base")]);
        let new = config(&["PATH=/usr/bin", "V=2", "NEW=n", "UNSET=y"], &["bash"], "app", &[("kept", "new"), ("more", "m")]);
        let image = config(&["PATH=/opt/bin:/bin", "V=1", "GONE=1", "OWN=o"], &["sh"], "", &[("kept", "old"), ("mine", "changed")]);
        let merged = merge_config(&image, &old, &new);
        assert_eq!(merged.env, ["PATH=/opt/bin:/bin", "V=2", "NEW=n", "OWN=o"]);
        assert_eq!((merged.cmd, merged.user), (vec!["bash".to_owned()], "app".to_owned()));
        let labels: Vec<_> = merged.labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
        assert_eq!(labels, ["kept=new", "mine=changed", "more=m"]);
    }

    #[test]
    fn an_entrypoint_of_the_image_keeps_the_bases_command_away() {
        let (old, new) = (config(&[], &["sh"], "", &[]), config(&[], &["bash"], "", &[]));
        let image = RuntimeConfig { entrypoint: vec!["/app".into()], ..RuntimeConfig::default() };
        let merged = merge_config(&image, &old, &new);
        assert_eq!((merged.entrypoint.len(), merged.cmd.len()), (1, 0));
    }
}
