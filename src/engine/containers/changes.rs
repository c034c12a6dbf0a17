//! What a container has changed: as a list, as a layer of a new image, and all its files as an archive.

use std::collections::BTreeMap;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::image::assemble::{Dates, assemble};
use crate::image::layer::{ApplyOptions, Error as LayerError, LayerOptions, Meanwhile, apply, write_layer, write_rootfs_tar};
use crate::oci::{HistoryEntry, ImageConfig, ImageId, Platform, Reference, RuntimeConfig};
use crate::path::RootPath;
use crate::runtime::container::ContainerSpec;
use crate::store::view::{MergedView, is_whiteout_metadata};
use crate::store::{ImageRecord, SnapshotMeta};
use crate::sys::tree::{Kind, Metadata, Tree};

use super::super::changes::apply_changes;
use super::super::{Engine, Error};
use super::ContainerInfo;
use super::archive::at;
use super::health::health_config;

/// What happened to a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeKind {
    /// It is new.
    Added,
    /// It is not as it was.
    Changed,
    /// It is gone.
    Deleted,
}

/// A file that a container has changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileChange {
    /// What happened.
    pub kind: ChangeKind,
    /// Its path in the container.
    pub path: RootPath,
}

/// How an image is made of a container.
#[derive(Clone, Debug, Default)]
pub struct CommitRequest {
    /// The image's name.
    pub name: Option<Reference>,
    /// Who made it.
    pub author: String,
    /// A remark.
    pub message: String,
    /// Instructions that change its config.
    pub changes: Vec<String>,
    /// Whether the container stands still meanwhile.
    pub pause: bool,
}

impl Engine {
    /// What a container has changed of its image's files, by path.
    pub fn container_changes(&self, info: &ContainerInfo) -> Result<Vec<FileChange>, Error> {
        let image = self.store().view(&info.record.snapshots)?;
        let layer = self.container_layer(info)?;
        let upper = &layer.path;
        let mut found = BTreeMap::new();
        let failed = |source| Error::Io { action: "read", path: upper.clone(), source };
        compare(upper, &RootPath::root(), &image, &mut found).map_err(failed)?;
        Ok(found.into_values().collect())
    }

    /// Writes all files of a container, without what is mounted in it, as a tar archive.
    pub fn export_container(&self, info: &ContainerInfo, out: &mut impl Write) -> Result<(), Error> {
        let layer = self.container_layer(info)?;
        let view = self.view_with(&layer.path, info)?;
        let failed = |source| Error::Output { to: "the archive".to_owned(), source };
        write_rootfs_tar(&view, out, None)
            .map_err(|source| failed(crate::image::Error::Layer { layer: info.record.name.clone(), source }))?;
        self.event("container", "export", info, &[]);
        Ok(())
    }

    /// Makes an image of a container: its image's layers, one with what it has changed, and its config.
    pub fn commit_container(&self, info: &ContainerInfo, request: &CommitRequest) -> Result<ImageRecord, Error> {
        let Some(spec) = &info.spec else {
            return Err(Error::Usage { message: format!("the container `{}` was never whole", info.record.name), hint: None });
        };
        let paused = request.pause && info.is_running() && !info.is_paused();
        if paused {
            self.pause_container(info)?;
        }
        let committed = self.commit_now(info, spec, request);
        if paused {
            self.unpause_container(info)?;
        }
        committed
    }

    fn commit_now(&self, info: &ContainerInfo, spec: &ContainerSpec, request: &CommitRequest) -> Result<ImageRecord, Error> {
        let store = self.store();
        let failed = |source| Error::Image { action: "commit", name: info.record.name.clone(), source };
        let layer_failed = |source| failed(crate::image::Error::Layer { layer: info.record.name.clone(), source });
        let active = store.prepare()?;
        let target = active.fs_path();
        let changes = self.container_layer(info)?;
        let (upper, lower) = (changes.path.clone(), store.stack(&info.record.snapshots)?);
        let (read, mut write) = std::io::pipe().map_err(|source| Error::Io { action: "make", path: "a pipe".into(), source })?;
        let options = LayerOptions { marks: store.marks(), meanwhile: Meanwhile::Anything, ..LayerOptions::default() };
        let (written, applied) = std::thread::scope(|scope| {
            let writer = scope.spawn(move || {
                let written = write_layer(&upper, &lower, &mut write, &options);
                drop(write);
                written
            });
            let applied = apply(read, &target, &ApplyOptions { marks: store.marks(), ..ApplyOptions::default() });
            (writer.join(), applied)
        });
        let written = written.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        let written = match (written, applied) {
            // Where unpacking gave up, the other half only says that nobody reads any more.
            (Err(LayerError::Write { .. }), Err(error)) => Err(error),
            (written, applied) => written.and_then(|written| applied.map(|_| written)),
        };
        let written = written.map_err(layer_failed)?;
        let line: Vec<String> = spec.sandbox.process.args.iter().map(|arg| arg.to_string_lossy().into_owned()).collect();
        let meta = SnapshotMeta { diff_id: Some(written.diff_id.clone()), size: written.size, description: line.join(" ") };
        let snapshot = active.commit(meta)?;
        store.set_diff_id(snapshot.id, &written.diff_id, written.size)?;
        let mut config = match &info.record.image {
            Some(id) => self.config_below(id)?,
            None => ImageConfig::empty(&Platform::host()),
        };
        config.created = Some(jiff::Timestamp::now().to_string());
        config.author = Some(request.author.clone()).filter(|author| !author.is_empty());
        config.config = container_config(&config.config, spec);
        change(&mut config.config, &request.changes)?;
        config.history.push(HistoryEntry {
            created: config.created.clone(),
            created_by: Some(line.join(" ")),
            author: config.author.clone(),
            comment: Some(request.message.clone()).filter(|message| !message.is_empty()),
            empty_layer: false,
        });
        let mut snapshots = info.record.snapshots.clone();
        snapshots.push(snapshot.id);
        let names: Vec<Reference> = request.name.iter().cloned().collect();
        let record = assemble(store, config, &snapshots, &names, Dates::default()).map_err(failed)?;
        self.tagged_all(&record.id, &names);
        let name = request.name.as_ref().map_or_else(String::new, Reference::familiar);
        let made = [("comment", request.message.as_str()), ("imageID", &record.id.to_string()), ("imageRef", &name)];
        self.event("container", "commit", info, &made);
        self.finish(true)?;
        Ok(record)
    }

    /// The config of the image that a container is made of; where that was removed, one without a history.
    fn config_below(&self, id: &ImageId) -> Result<ImageConfig, Error> {
        match self.store().image(id)? {
            Some(record) => self.config_of(&record),
            None => Ok(ImageConfig::empty(&Platform::host())),
        }
    }
}

/// Compares what is at `path` of the upper directory with the image, and goes on below.
fn compare(upper: &Path, path: &RootPath, image: &MergedView, found: &mut BTreeMap<RootPath, FileChange>) -> std::io::Result<()> {
    for entry in std::fs::read_dir(upper.join(path.relative())).map_err(|error| at(path.relative(), &error))? {
        let entry = entry?;
        let path = path.join(entry.file_name());
        // What vanishes meanwhile is no change.
        let Ok(metadata) = entry.metadata() else { continue };
        let below = image.metadata(&path)?;
        let kind = match &below {
            None if is_whiteout_metadata(&metadata) => continue,
            None => ChangeKind::Added,
            Some(_) if is_whiteout_metadata(&metadata) => ChangeKind::Deleted,
            Some(_) => ChangeKind::Changed,
        };
        let same_directory = metadata.is_dir() && below.as_ref().is_some_and(|below| is_same_directory(&metadata, below));
        if !same_directory {
            note(found, &path, kind);
        }
        // A change of the names in a directory is a change of the directory.
        if let Some(parent) = path.parent().filter(|parent| kind != ChangeKind::Changed && !parent.is_root()) {
            found.entry(parent.clone()).or_insert(FileChange { kind: ChangeKind::Changed, path: parent });
        }
        if metadata.is_dir() {
            compare(upper, &path, image, found)?;
        }
    }
    Ok(())
}

fn note(found: &mut BTreeMap<RootPath, FileChange>, path: &RootPath, kind: ChangeKind) {
    found.insert(path.clone(), FileChange { kind, path: path.clone() });
}

fn is_same_directory(upper: &std::fs::Metadata, below: &Metadata) -> bool {
    below.kind == Kind::Directory
        && (upper.mtime(), upper.mtime_nsec()) == (below.mtime.0, i64::from(below.mtime.1))
        && (upper.mode() & 0o7777, upper.uid(), upper.gid()) == (below.mode, below.uid, below.gid)
}

/// The image's settings as the container has them.
fn container_config(image: &RuntimeConfig, spec: &ContainerSpec) -> RuntimeConfig {
    let written = &spec.written;
    let empty = || serde_json::Value::Object(serde_json::Map::new());
    let mut config = image.clone();
    config.entrypoint.clone_from(&written.entrypoint);
    config.cmd.clone_from(&written.command);
    config.env.clone_from(&written.env);
    config.user.clone_from(&written.user);
    config.working_dir.clone_from(&written.workdir);
    config.labels.clone_from(&spec.labels);
    config.exposed_ports = written.ports.iter().map(|port| (port.clone(), empty())).collect();
    config.volumes = written.volumes.iter().map(|path| (path.clone(), empty())).collect();
    if let Some(signal) = &written.stop_signal {
        config.stop_signal.clone_from(signal);
    }
    if let Some(health) = written.health.clone().or_else(|| spec.health.as_ref().map(health_config)) {
        config.healthcheck = Some(health);
    }
    config
}

/// Applies instructions over what the config has: they may refer to its variables and its directory.
fn change(config: &mut RuntimeConfig, changes: &[String]) -> Result<(), Error> {
    if changes.is_empty() {
        return Ok(());
    }
    let quoted =
        |value: &str| value.chars().flat_map(|c| matches!(c, '"' | '\\' | '$').then_some('\\').into_iter().chain([c])).collect::<String>();
    let plain: Vec<(&str, &str)> =
        config.env.iter().filter(|entry| !entry.contains('\n')).filter_map(|entry| entry.split_once('=')).collect();
    let mut lines: Vec<String> = plain.iter().map(|(name, value)| format!("ENV {name}=\"{}\"", quoted(value))).collect();
    lines.extend(Some(&config.working_dir).filter(|dir| !dir.is_empty()).map(|dir| format!("WORKDIR {dir}")));
    lines.extend(changes.iter().cloned());
    let mut changed = RuntimeConfig::default();
    apply_changes(&mut changed, &lines)?;
    let odd: Vec<String> = config.env.iter().filter(|entry| entry.contains('\n')).cloned().collect();
    config.env = changed.env.into_iter().chain(odd).collect();
    if !changed.entrypoint.is_empty() {
        config.entrypoint = changed.entrypoint;
        config.cmd.clear();
    }
    if !changed.cmd.is_empty() {
        config.cmd = changed.cmd;
    }
    let or_before = |new: String, before: &String| if new.is_empty() { before.clone() } else { new };
    config.user = or_before(changed.user, &config.user);
    config.working_dir = or_before(changed.working_dir, &config.working_dir);
    config.stop_signal = or_before(changed.stop_signal, &config.stop_signal);
    config.labels.extend(changed.labels);
    config.exposed_ports.extend(changed.exposed_ports);
    config.volumes.extend(changed.volumes);
    config.on_build.extend(changed.on_build);
    config.healthcheck = changed.healthcheck.or(config.healthcheck.take());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_come_over_what_the_container_has() {
        let mut config = RuntimeConfig {
            env: vec!["PATH=/bin".into(), "A=a \"b\" $c\\".into()],
            cmd: vec!["old".into()],
            working_dir: "/srv".into(),
            ..RuntimeConfig::default()
        };
        let changes = ["ENV B=$A", "WORKDIR sub", "ENTRYPOINT [\"new\"]", "LABEL l=1"].map(str::to_owned);
        change(&mut config, &changes).unwrap();
        assert_eq!(config.env, ["PATH=/bin", "A=a \"b\" $c\\", "B=a \"b\" $c\\"]);
        assert_eq!((config.entrypoint.join(" "), config.cmd.len(), config.working_dir.as_str()), ("new".to_owned(), 0, "/srv/sub"));
        assert!(change(&mut config, &["RUN x".to_owned()]).is_err());
    }
}
