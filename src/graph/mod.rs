//! From a syntax tree to a graph of operations: which steps the target needs, what each reads, and the image config at the end.
//!
//! Pure and deterministic: the same Dockerfile, arguments and base images give the same graph. It does no I/O: when it needs a base image's config it
//! returns [`Planned::NeedsImages`] and is called again with the answers. It does not know how an operation runs, nor what is cached.
//!
//! ```text
//! Dockerfile --stages--> what the target reaches --lower--> nodes (op + inputs) + image config with history
//! ```

mod checks;
mod contexts;
mod epoch;
mod git_url;
mod history;
mod join;
mod lower;
mod op;
mod outline;
mod plan;
mod scope;
mod stages;
#[cfg(test)]
mod tests;

pub use checks::CheckScope;
pub use contexts::{ContextName, ContextNameError, NamedContext, NamedContexts};
pub use epoch::{EpochSource, SOURCE_DATE_EPOCH, epoch_source};
pub use git_url::{GitMtime, GitSource, GitUrlError};
pub use lower::is_secret;
pub use op::{
    BuildGraph, BuildTarget, CopyOp, CopySource, ExecMount, ExecMountKind, ExecOp, InlineScript, MkdirOp, NetworkMode, Node, NodeId, Op,
    RemoteTree, SecurityMode, SourceOp, Step, Unpack,
};
pub use outline::{Outline, OutlineArg, OutlineMount, Target, outline, targets};
pub use plan::{Entitlements, ImageNeed, PlanRequest, Planned, ResolvedImage, ResolvedImages, plan};

/// What of the language's own types an operation carries, for the folders above, which do not import the parser.
pub use crate::parser::{CacheSharing, chmod::Mode as FileMode};
