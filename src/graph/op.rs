//! The operations that a build is made of, and the graph that holds them.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use petgraph::Direction;
use petgraph::stable_graph::{NodeIndex, StableDiGraph};
use petgraph::visit::{EdgeRef, NodeIndexable};

use crate::diag::{Diagnostic, SafeUrl, SourceFile, Span};
use crate::oci::{Digest, ImageConfig, ImageId, Platform, Reference};
use crate::parser::{CacheSharing, Text};
use crate::path::RootPath;

use super::git_url::GitSource;

/// A node of a [`BuildGraph`].
pub type NodeId = NodeIndex<u32>;

/// The operations that the target of a build needs, and what becomes of their result.
#[derive(Debug)]
pub struct BuildGraph {
    /// Nodes, and for each of a node's inputs an edge from the input, weighted with the input's position.
    graph: StableDiGraph<Node, usize>,
    /// What is built: one image, or one for each platform, in their order.
    pub targets: Vec<BuildTarget>,
    /// What to tell the user; none of these is an error.
    pub warnings: Vec<Diagnostic>,
}

/// An image that is built.
#[derive(Clone, Debug)]
pub struct BuildTarget {
    /// The node whose file system it has.
    pub node: NodeId,
    /// Its config, without times and diff IDs. Each history entry that is no empty layer belongs to one snapshot of the target above the base's.
    pub config: ImageConfig,
}

/// One operation.
#[derive(Clone, Debug)]
pub struct Node {
    /// What to do.
    pub op: Op,
    /// How to show it.
    pub step: Step,
    /// The platform that it is done for. Most nodes share it.
    pub platform: Arc<Platform>,
}

/// How an operation is shown, and where it was written.
#[derive(Clone, Debug)]
pub struct Step {
    /// The stage's name (`stage-0` for the nameless first).
    pub stage: Text,
    /// The number of this step in its stage, from 1, and how many there are.
    pub position: (usize, usize),
    /// The instruction with its variables expanded.
    pub text: String,
    /// Where it was written.
    pub source: Option<(SourceFile, Span)>,
    /// Whether `--no-cache` is on for its stage.
    pub ignore_cache: bool,
    /// What it is done for, as names tell it: `linux/amd64`, or `linux/amd64->arm64` for what is done on the one for the other. Several where one step does for all
    /// of them.
    pub platforms: Arc<[String]>,
    /// Whether its title tells the platform: in a build for several, where it is for one of them.
    pub tells_platform: bool,
}

impl Step {
    /// The step in BuildKit's form: `[build 2/5] RUN make`, and in a build for several platforms `[linux/amd64 build 2/5] RUN make`.
    pub fn title(&self) -> String {
        self.titled(self.platform())
    }

    /// The same without the platform: what the step is called in builds for one.
    pub fn plain_title(&self) -> String {
        self.titled(None)
    }

    /// The platform, where it must be told to know one step from the other.
    pub fn platform(&self) -> Option<&str> {
        self.platforms.first().filter(|_| self.tells_platform).map(String::as_str)
    }

    /// The instruction as messages have it: in backticks, and with the platform where that must be told.
    pub fn quoted(&self) -> String {
        let platform = self.platform().map_or_else(String::new, |platform| format!(" ({platform})"));
        format!("`{}`{platform}", self.text)
    }

    fn titled(&self, platform: Option<&str>) -> String {
        let (index, total) = self.position;
        let (platform, gap) = platform.map_or(("", ""), |platform| (platform, " "));
        match (total, platform) {
            (0, "") => self.text.clone(),
            (0, platform) => format!("[{platform}] {}", self.text),
            _ => {
                let width = total.to_string().len();
                let space = if self.stage.is_empty() { "" } else { " " };
                format!("[{platform}{gap}{}{space}{index:>width$}/{total}] {}", self.stage, self.text)
            }
        }
    }
}

/// What a node does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// Files from outside. No inputs.
    Source(SourceOp),
    /// A command in a sandbox. Input 0 is its root file system; mounts name further inputs.
    Exec(ExecOp),
    /// Files copied into a root file system. Input 0 is that root file system; sources name further inputs.
    Copy(CopyOp),
    /// A directory made (`WORKDIR`). Input 0 is the root file system.
    Mkdir(MkdirOp),
    /// The snapshots of input 1 on top of those of input 0 (`--link`).
    Merge,
}

/// Where files come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SourceOp {
    /// Nothing: no layers.
    Scratch,
    /// An image.
    Image {
        /// Its name.
        reference: Reference,
        /// The digest of its config: what the name stood for when the build began.
        id: ImageId,
        /// The digest of its manifest, for messages.
        manifest: Digest,
    },
    /// The files of the build context, or of a directory given with `--build-context`.
    Context {
        /// The name of the named context; `None` is the build context.
        name: Option<String>,
    },
    /// Files from elsewhere, as a file system.
    Remote(RemoteTree),
    /// A file from a web server.
    Http {
        /// Its address.
        url: String,
        /// Its name at the destination.
        name: String,
        /// What it must hash to.
        checksum: Option<Digest>,
    },
}

/// Files from elsewhere.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum RemoteTree {
    /// A directory of a git repository.
    Git(GitSource),
    /// What a web server has: an archive's content, or the one file `context`.
    Http {
        /// Its address.
        url: String,
    },
}

impl std::fmt::Display for RemoteTree {
    /// The address, without a password.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            RemoteTree::Git(source) => source.fmt(f),
            RemoteTree::Http { url } => SafeUrl::new(url).fmt(f),
        }
    }
}

/// A command in a sandbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecOp {
    /// Program and arguments.
    pub args: Vec<String>,
    /// The environment, in order; commands that have the same share it. `HOME` is added when it runs, if it is missing.
    pub env: Arc<[(String, String)]>,
    /// The names of those variables that are build arguments; explanations say so.
    pub build_args: BTreeSet<String>,
    /// Proxy variables, which are set but are no part of the cache key.
    pub proxy_env: Vec<(String, String)>,
    /// The working directory.
    pub workdir: RootPath,
    /// `USER`, to be looked up in the root file system; empty for root.
    pub user: String,
    /// The host name, where it is not the usual one.
    pub hostname: Option<String>,
    /// The network.
    pub network: NetworkMode,
    /// The privileges.
    pub security: SecurityMode,
    /// The devices of CDI specifications that it gets, and whether it needs each.
    pub devices: Vec<(String, bool)>,
    /// The names of `--add-host`; what they resolve to is no part of the op.
    pub extra_hosts: Arc<[String]>,
    /// What is mounted.
    pub mounts: Vec<ExecMount>,
    /// A heredoc that begins with `#!`: the file is there while the command runs.
    pub script: Option<InlineScript>,
}

/// A heredoc's body as a program, mounted read-only at `/dev/pipes/NAME`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InlineScript {
    /// The name of the file.
    pub name: String,
    /// The program.
    pub body: String,
}

/// The network of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NetworkMode {
    /// A private one with NAT where possible, else the host's.
    Default,
    /// None but `lo`.
    None,
    /// The host's.
    Host,
}

impl NetworkMode {
    /// The word for it on the command line.
    pub fn name(self) -> &'static str {
        match self {
            NetworkMode::Default => "default",
            NetworkMode::None => "none",
            NetworkMode::Host => "host",
        }
    }
}

/// The privileges of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SecurityMode {
    /// The usual sandbox.
    Sandbox,
    /// All capabilities, no filter.
    Insecure,
}

/// Something mounted while a command runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecMount {
    /// Where.
    pub target: RootPath,
    /// What.
    pub kind: ExecMountKind,
}

/// What is mounted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExecMountKind {
    /// Files of an input.
    Bind {
        /// Which input of the node.
        input: usize,
        /// The path in it.
        source: String,
        /// Whether writes are allowed; they are dropped afterwards.
        writable: bool,
    },
    /// A directory that outlives the build.
    Cache {
        /// Its name.
        id: String,
        /// Who may use it at once.
        sharing: CacheSharing,
        /// The input that a new one is filled from, and the path in it.
        seed: Option<(usize, String)>,
        /// The directory of it that is mounted alone.
        subpath: Option<RootPath>,
        /// Mode of a new one.
        mode: u32,
        /// Owner of a new one.
        uid: u32,
        /// Group of a new one.
        gid: u32,
        /// Whether it is read-only.
        read_only: bool,
    },
    /// An empty directory in memory.
    Tmpfs {
        /// Size limit in bytes.
        size: Option<u64>,
        /// Whether it is read-only.
        read_only: bool,
    },
    /// A secret.
    Secret {
        /// Its name.
        id: String,
        /// The variable that holds it.
        env: Option<String>,
        /// Whether there is a file too.
        file: bool,
        /// Whether the step fails without it.
        required: bool,
        /// Mode of the file.
        mode: u32,
        /// Owner of the file.
        uid: u32,
        /// Group of the file.
        gid: u32,
    },
    /// The socket of an SSH agent.
    Ssh {
        /// Its ID.
        id: String,
        /// Whether the step fails without it.
        required: bool,
        /// Mode of the socket.
        mode: u32,
        /// Owner of the socket.
        uid: u32,
        /// Group of the socket.
        gid: u32,
    },
}

/// Files copied into a root file system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CopyOp {
    /// What is copied, in order.
    pub sources: Vec<CopySource>,
    /// The destination as written (a final slash matters), variables expanded.
    pub destination: String,
    /// The working directory that a relative destination starts from.
    pub workdir: RootPath,
    /// `--chown`, to be looked up in the root file system.
    pub chown: Option<String>,
    /// `--chmod`.
    pub chmod: Option<String>,
    /// `--parents`.
    pub parents: bool,
    /// For a mount: with `parents`, the links on the way to a source are copied, too, and followed. No wildcards.
    pub with_way: bool,
    /// `--exclude`.
    pub exclude: Vec<String>,
    /// Whether archives are unpacked.
    pub unpack: Unpack,
    /// `--link`: the layer does not depend on what is below it.
    pub link: bool,
}

/// Whether `ADD` unpacks archives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unpack {
    /// Never (`COPY`, `--unpack=false`).
    Never,
    /// Local ones (`ADD`).
    Local,
    /// Also those from web servers (`--unpack=true`).
    Always,
}

/// One source of a copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CopySource {
    /// Paths of an input.
    Path {
        /// Which input of the node.
        input: usize,
        /// The path, perhaps with wildcards.
        pattern: String,
    },
    /// The file of an [`SourceOp::Http`] input.
    Download {
        /// Which input of the node.
        input: usize,
    },
    /// A heredoc.
    Inline {
        /// Its name.
        name: String,
        /// Its content.
        content: String,
    },
}

/// A directory to make, with its parents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MkdirOp {
    /// The directory.
    pub path: RootPath,
    /// Its owner, to be looked up in the root file system; empty for root.
    pub user: String,
}

impl BuildGraph {
    /// Keeps of what lowering made what `target` reaches.
    pub(super) fn new(graph: StableDiGraph<Node, usize>, target: BuildTarget, warnings: Vec<Diagnostic>) -> BuildGraph {
        let mut graph = BuildGraph { graph, targets: vec![target], warnings };
        graph.drop_unreachable();
        graph
    }

    /// A graph of nodes that are all needed, each after its inputs.
    pub(super) fn joint(graph: StableDiGraph<Node, usize>, targets: Vec<BuildTarget>, warnings: Vec<Diagnostic>) -> BuildGraph {
        BuildGraph { graph, targets, warnings }
    }

    /// The node of an ID.
    pub fn node(&self, id: NodeId) -> &Node {
        &self.graph[id]
    }

    /// How many nodes there are.
    pub fn len(&self) -> usize {
        self.graph.node_count()
    }

    /// Whether there are no nodes; a planned graph has at least one.
    pub fn is_empty(&self) -> bool {
        self.graph.node_count() == 0
    }

    /// The inputs of a node, in their order.
    pub fn inputs(&self, id: NodeId) -> Vec<NodeId> {
        let mut inputs: Vec<(usize, NodeId)> =
            self.graph.edges_directed(id, Direction::Incoming).map(|edge| (*edge.weight(), edge.source())).collect();
        inputs.sort_unstable();
        inputs.into_iter().map(|(_, node)| node).collect()
    }

    /// The nodes that read a node's result.
    pub fn dependents(&self, id: NodeId) -> Vec<NodeId> {
        let mut nodes: Vec<NodeId> = self.graph.neighbors_directed(id, Direction::Outgoing).collect();
        nodes.sort_unstable();
        nodes.dedup();
        nodes
    }

    /// All nodes, each after its inputs: the order in which the Dockerfile says them.
    pub fn nodes(&self) -> impl Iterator<Item = NodeId> + '_ {
        // Lowering adds a node after its inputs, so the indices are a topological order already.
        self.graph.node_indices()
    }

    /// The nodes whose layers the targets' file systems are made of.
    pub fn layers_of_targets(&self) -> HashSet<NodeId> {
        let mut found = HashSet::new();
        let mut todo = self.target_nodes();
        while let Some(id) = todo.pop() {
            if found.insert(id) {
                let below = if matches!(self.node(id).op, Op::Merge) { usize::MAX } else { 1 };
                todo.extend(self.inputs(id).into_iter().take(below));
            }
        }
        found
    }

    /// The nodes of the targets.
    pub fn target_nodes(&self) -> Vec<NodeId> {
        self.targets.iter().map(|target| target.node).collect()
    }

    fn drop_unreachable(&mut self) {
        let mut keep = vec![false; self.graph.node_bound()];
        let mut todo = self.target_nodes();
        while let Some(id) = todo.pop() {
            if !std::mem::replace(&mut keep[id.index()], true) {
                todo.extend(self.graph.neighbors_directed(id, Direction::Incoming));
            }
        }
        self.graph.retain_nodes(|_, id| keep[id.index()]);
    }
}
