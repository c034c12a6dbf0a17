//! Building: Dockerfile to graph, graph to snapshots, snapshots to an image and whatever else was asked for.
//!
//! A build for several platforms is one build: the Dockerfile is read once and planned for each of them, their graphs become one ([`planning`]), which runs like any
//! other, and what comes of it is an index of as many images.

mod input;
mod memo;
mod planning;
mod request;
mod run;

pub(super) use input::{Context, Input, find_dockerfile, keep_git_dir, layouts, named_contexts, read_bounded, read_dockerfile, read_stdin};
pub(super) use planning::Platforms;
pub use request::{BuildContext, BuildOutcome, BuildRequest, ContextSource, DockerfileSource, PlatformOutcome};
