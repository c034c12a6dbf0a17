//! From an op of the graph to what the files beside this one do: lookups in the root file system, a new snapshot, the op, the commit.

use std::collections::HashMap;
use std::sync::Arc;

use crate::context::{IgnoreRules, LocalContext};
use crate::executor::{Download, Environment, Error as BuildError};
use crate::graph::{CopyOp, CopySource as OpSource, FileMode, MkdirOp, Op, SourceOp, Step, Unpack as OpUnpack};
use crate::image::layer::{LayerOptions, LayerWritten};
use crate::path::RootPath;
use crate::store::view::MergedView;
use crate::store::{SnapshotId, SnapshotMeta, Store};
use crate::sys::tree::Tree;
use crate::task::fault_point;

use super::dates::limit_times;
use super::{Aids, CopyRequest, CopySource, Error, Owner, Sharing, Unpack, copy_with, lookup_owner, make_dir};

/// The files of a stack of snapshots.
pub fn view(store: &Store, snapshots: &[SnapshotId]) -> Result<MergedView, BuildError> {
    Ok(store.view(snapshots)?)
}

/// The rules of `--exclude`, if there are any.
pub fn exclude_rules(patterns: &[String]) -> Result<Option<IgnoreRules>, Error> {
    if patterns.is_empty() {
        return Ok(None);
    }
    IgnoreRules::from_patterns(patterns.iter().map(String::as_str), "--exclude").map(Some).map_err(Error::Select)
}

/// The download of an input, with the op that asked for it.
type DownloadOf<'a> = dyn Fn(usize) -> Option<(&'a Download, &'a Op)> + 'a;

/// Whether the diff ID of a layer will be asked for, so that it is found out while the layer is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiffIdWanted {
    /// It will.
    Yes,
    /// Probably not: the layer is not the image's.
    No,
}

/// What a step made.
pub struct Made {
    /// Its layer.
    pub snapshot: SnapshotId,
    /// A file of a context that others have changed while the build ran, so that the layer is not what the step's key tells.
    pub changed: Option<RootPath>,
}

impl From<SnapshotId> for Made {
    fn from(snapshot: SnapshotId) -> Made {
        Made { snapshot, changed: None }
    }
}

/// Does a `COPY` or `ADD` above `base`; what did not change is shared with the layer that the step made `earlier`.
pub fn copy_step(
    environment: &Environment,
    step: &Step,
    op: &CopyOp,
    (base, earlier, wanted): (&[SnapshotId], Option<SnapshotId>, DiffIdWanted),
    trees: &HashMap<usize, Arc<dyn Tree>>,
    contexts: &[Arc<LocalContext>],
    download: &DownloadOf<'_>,
) -> Result<Made, BuildError> {
    let made = environment.times.made();
    // Directories of the base into which something came have the time of now; what was unpacked has its own.
    let latest = environment.times.latest().or(made.filter(|_| op.unpack == OpUnpack::Never));
    let view = view(&environment.store, base)?;
    let owner = op.chown.as_ref().map(|spec| chown_of(environment, step, (base, &view), spec)).transpose()?;
    let request = CopyRequest {
        sources: op.sources.iter().filter_map(|source| copy_source(source, trees, download, made)).collect(),
        destination: op.destination.clone(),
        workdir: op.workdir.clone(),
        chown: owner,
        chmod: op.chmod.as_deref().map(|text| chmod_of(text, step)).transpose()?,
        parents: op.parents,
        with_way: op.with_way,
        exclude: op.exclude.clone(),
        link: op.link,
        unpack: match op.unpack {
            OpUnpack::Never => Unpack::Never,
            OpUnpack::Local => Unpack::Sniff,
            OpUnpack::Always => Unpack::Always,
        },
        max_unpacked: environment.store.layer_limit(),
        created_time: made.map(|seconds| (seconds, 0)),
    };
    let active = environment.store.prepare()?;
    if op.link {
        // It may come to lie above other bases, so what this one has too is no less a part of it.
        active.stand_alone()?;
    }
    let store = &environment.store;
    let sharing = Sharing::new(&*environment.checksums);
    // Times that are held to the build's own are set afterwards, which nobody may do to a shared file.
    let sharing = match earlier.filter(|_| made.is_none()) {
        Some(id) => sharing.with(&store.snapshot_path(id), &store.snapshot_list_path(id)),
        None => sharing,
    };
    let options = LayerOptions { latest_time: latest, marks: store.marks(), ..LayerOptions::default() };
    let diff = (wanted == DiffIdWanted::Yes).then_some(&options);
    let copied = copy_with(&view, &active.fs_path(), &request, Aids { sharing: Some(&sharing), diff }).map_err(|source| {
        let hint = missing_hint(contexts, &source);
        BuildError::Files { step: Box::new(step.clone()), source, hint }
    })?;
    for warning in copied.warnings {
        environment.progress.warn(format!("{}: {warning}", step.text));
    }
    let list = active.list_path();
    sharing.write(&list, copied.bytes).map_err(|source| BuildError::Io { action: "write", path: list, source })?;
    let id = commit(active, step, copied.bytes, latest)?;
    if let Some(LayerWritten { diff_id, size, .. }) = copied.layer {
        store.set_diff_id(id, &diff_id, size)?;
    }
    Ok(Made { snapshot: id, changed: copied.changed })
}

/// The owner of `--chown`. Where there is no file system to look at (`FROM scratch`), a name is an error, as in BuildKit.
fn chown_of(environment: &Environment, step: &Step, (base, view): (&[SnapshotId], &MergedView), spec: &str) -> Result<Owner, BuildError> {
    let nobody = base.is_empty() && lookup_owner(view, spec).is_ok_and(|resolved| resolved.warning.is_some());
    if nobody {
        let reason = format!("`{spec}` cannot be looked up: the stage is empty so far, and has no users");
        let hint = Some("give numbers, such as --chown=1000:1000".to_owned());
        return Err(BuildError::Refused { step: Box::new(step.clone()), reason, hint });
    }
    owner_of(environment, step, view, spec)
}

/// Looks up an owner, and warns about names that nobody has.
fn owner_of(environment: &Environment, step: &Step, view: &MergedView, spec: &str) -> Result<Owner, BuildError> {
    let failed = |source| BuildError::Files { step: Box::new(step.clone()), source, hint: None };
    let resolved = lookup_owner(view, spec).map_err(failed)?;
    if let Some(warning) = resolved.warning {
        environment.progress.warn(format!("{}: {warning}", step.text));
    }
    Ok(resolved.owner)
}

fn copy_source(
    source: &OpSource,
    trees: &HashMap<usize, Arc<dyn Tree>>,
    download: &DownloadOf<'_>,
    made: Option<i64>,
) -> Option<CopySource> {
    match source {
        OpSource::Path { input, pattern } => Some(CopySource::Tree { tree: trees.get(input)?.clone(), pattern: pattern.clone() }),
        OpSource::Inline { name, content } => {
            // `../` in a name climbs within a file system of its own, and so never out of the destination.
            let name = RootPath::new(name).relative().to_string_lossy().into_owned();
            Some(CopySource::File { name, content: content.clone().into_bytes(), mode: 0o644 })
        }
        OpSource::Download { input } => {
            let (download, op) = download(*input)?;
            let Op::Source(SourceOp::Http { name, .. }) = op else { return None };
            // When a server says that it changed a file is not what the file is.
            let mtime = Some((made.or(download.modified).unwrap_or(0), 0));
            Some(CopySource::HostFile { path: download.path.clone(), name: name.clone(), mode: 0o600, uid: 0, gid: 0, mtime })
        }
    }
}

fn chmod_of(text: &str, step: &Step) -> Result<FileMode, BuildError> {
    let refused = |reason| BuildError::Refused { step: Box::new(step.clone()), reason, hint: None };
    FileMode::parse(text).map_err(refused)
}

/// Why a source that is there on disk was not found: an ignore rule hides it.
pub(in crate::executor) fn missing_hint(contexts: &[Arc<LocalContext>], error: &Error) -> Option<String> {
    let Error::Missing { path, .. } = error else { return None };
    contexts.iter().find_map(|context| {
        let decision = context.rules().decide_path(path);
        let (line, pattern) = decision.pattern.filter(|_| decision.ignored)?;
        let file = context.ignore_file().map_or_else(|| ".dockerignore".to_owned(), |file| file.display().to_string());
        Some(format!("it is excluded by the pattern `{pattern}` on line {line} of {file}"))
    })
}

/// Does a `WORKDIR`.
pub fn mkdir_step(environment: &Environment, step: &Step, op: &MkdirOp, base: &[SnapshotId]) -> Result<SnapshotId, BuildError> {
    let failed = |source| BuildError::Files { step: Box::new(step.clone()), source, hint: None };
    let view = view(&environment.store, base)?;
    let owner = if op.user.is_empty() { None } else { Some(owner_of(environment, step, &view, &op.user)?) };
    let active = environment.store.prepare()?;
    let made = environment.times.made();
    make_dir(&view, &active.fs_path(), &op.path, owner, 0o755, made.map(|seconds| (seconds, 0))).map_err(failed)?;
    commit(active, step, 0, made)
}

/// Makes a finished layer a snapshot. Nothing in it is later than `epoch` (seconds since the epoch), if that is given.
pub(super) fn commit(active: crate::store::ActiveSnapshot, step: &Step, size: u64, epoch: Option<i64>) -> Result<SnapshotId, BuildError> {
    if let Some(seconds) = epoch {
        let path = active.fs_path();
        limit_times(&path, seconds).map_err(|source| BuildError::Io { action: "set the times of files in", path, source })?;
    }
    fault_point("step:written");
    let meta = SnapshotMeta { diff_id: None, size, description: step.text.clone() };
    Ok(active.commit(meta)?.id)
}
