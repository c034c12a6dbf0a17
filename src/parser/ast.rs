//! The syntax tree of a Dockerfile.
//!
//! Text that may hold variables is a [`Word`]: unexpanded, with its span. Expansion makes `String`s of words (`expand`), so that the two cannot be mixed
//! up. Every node keeps the bytes it came from.

use std::sync::Arc;

use crate::diag::{SourceFile, Span, Spanned};

/// The text of a word. Most words are short: those take no memory of their own, which is a third of the time that parsing takes.
pub type Text = smol_str::SmolStr;

/// A whole Dockerfile.
#[derive(Clone, Debug)]
pub struct Dockerfile {
    /// The file it was read from.
    pub file: SourceFile,
    /// `# syntax`, `# escape`, `# check` at the top.
    pub directives: Directives,
    /// The `ARG` instructions before the first `FROM`.
    pub global_args: Vec<Statement>,
    /// The stages, in order.
    pub stages: Vec<Stage>,
}

/// The parser directives.
#[derive(Clone, Debug)]
pub struct Directives {
    /// The frontend's name (`docker/dockerfile:1`).
    pub syntax: Option<Spanned<String>>,
    /// The escape character: `\` or a backtick.
    pub escape: char,
    /// The value of `# check=`.
    pub check: Option<Spanned<String>>,
}

/// One stage: a `FROM` and what follows it.
#[derive(Clone, Debug)]
pub struct Stage {
    /// The `FROM`.
    pub from: Arc<From>,
    /// The `FROM` as a statement (its span, its comment).
    pub statement: Statement,
    /// The instructions, in order.
    pub instructions: Vec<Statement>,
}

/// An instruction with the place and the words it was written in.
#[derive(Clone, Debug)]
pub struct Statement {
    /// What it says.
    pub instruction: Instruction,
    /// The keyword as written.
    pub keyword: Spanned<Text>,
    /// From the first line of the instruction (which may hold nothing but an escape character) to its end: heredocs, and comments and blank lines
    /// behind a last continuation included.
    pub span: Span,
    /// The instruction as one logical line.
    pub line: LogicalLine,
    /// The comment lines directly above, without `#`, joined by line breaks.
    pub comment: Option<Box<str>>,
}

/// An instruction as one line: continuations joined, comments dropped, blanks around it removed; with heredoc bodies after it. What `ONBUILD` stores and
/// progress shows. Most instructions stand in the file just so, and are not copied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogicalLine {
    /// These bytes of the file.
    InFile(Span),
    /// What had to be put together.
    Joined(Box<str>),
}

impl Statement {
    /// The instruction as one line. `file` is the one it was read from.
    pub fn original<'a>(&'a self, file: &'a SourceFile) -> &'a str {
        match &self.line {
            LogicalLine::InFile(span) => file.slice(*span),
            LogicalLine::Joined(text) => text,
        }
    }
}

/// `FROM [--platform=P] image [AS name]`.
#[derive(Clone, Debug)]
pub struct From {
    /// `--platform`.
    pub platform: Option<Word>,
    /// Image, stage or `scratch`.
    pub image: Word,
    /// `AS name`, lower-cased; `written` has the user's spelling.
    pub name: Option<StageName>,
}

/// The name of a stage.
#[derive(Clone, Debug)]
pub struct StageName {
    /// In lower case, as it is looked up.
    pub name: Text,
    /// As written.
    pub written: Spanned<Text>,
}

/// Text in which variables may stand, as written (quotes and escapes included).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Word {
    /// The text with continuations joined.
    pub text: Text,
    /// Where it was written.
    pub span: Span,
}

/// An instruction, by keyword. What is large is kept apart: instructions are moved a few times while they are read.
#[derive(Clone, Debug)]
pub enum Instruction {
    /// `FROM` (only as the statement of a [`Stage`]).
    From(Arc<From>),
    /// `ARG name[=default] …`.
    Arg(Vec<ArgDeclaration>),
    /// `RUN`.
    Run(Box<Run>),
    /// `CMD`.
    Cmd(ShellOrExec),
    /// `ENTRYPOINT`.
    Entrypoint(ShellOrExec),
    /// `LABEL key=value …`.
    Label(Vec<KeyValue>),
    /// `MAINTAINER name`: the rest of the line.
    Maintainer(Word),
    /// `EXPOSE port …`.
    Expose(Vec<Word>),
    /// `ENV key=value …`.
    Env(Vec<KeyValue>),
    /// `ADD`.
    Add(Box<Add>),
    /// `COPY`.
    Copy(Box<Copy>),
    /// `VOLUME path …`.
    Volume(Vec<Word>),
    /// `USER user[:group]`.
    User(Word),
    /// `WORKDIR path`.
    Workdir(Word),
    /// `ONBUILD instruction`.
    Onbuild(Onbuild),
    /// `STOPSIGNAL signal`.
    StopSignal(Word),
    /// `HEALTHCHECK`.
    Healthcheck(Box<Healthcheck>),
    /// `SHELL ["program", "argument", …]`.
    Shell(Vec<Text>),
}

/// One declaration of an `ARG`.
#[derive(Clone, Debug)]
pub struct ArgDeclaration {
    /// The name.
    pub name: Word,
    /// The default, where one is given (it may be empty).
    pub default: Option<Word>,
}

/// One pair of `ENV` or `LABEL`.
#[derive(Clone, Debug)]
pub struct KeyValue {
    /// The key.
    pub key: Word,
    /// The value.
    pub value: Word,
    /// Whether it was written `KEY value`, without `=`.
    pub legacy: bool,
}

/// A command line for a shell, or a list of words to execute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ShellOrExec {
    /// For the shell (`SHELL`), as written.
    Shell(Word),
    /// The words of a JSON array.
    Exec(Vec<Text>),
}

/// A heredoc's body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heredoc {
    /// The delimiter without quotes; the file's name in `COPY` and `ADD`.
    pub delimiter: Text,
    /// The body: tabs already removed where `<<-` says so.
    pub body: Spanned<String>,
    /// Whether variables are expanded (`COPY`, `ADD`): no part of the delimiter was quoted.
    pub expand: bool,
    /// Whether it was written `<<-`.
    pub strip_tabs: bool,
    /// The number before `<<`, if any.
    pub file_descriptor: Option<u32>,
    /// Where `<<WORD` stands.
    pub span: Span,
    /// The body with its tabs, where `<<-` removed some.
    pub indented: Option<String>,
}

impl Heredoc {
    /// The body as it was written: what a shell gets, and what a trigger stores.
    pub fn written(&self) -> &str {
        self.indented.as_deref().unwrap_or(&self.body.value)
    }
}

/// `RUN`.
#[derive(Clone, Debug)]
pub struct Run {
    /// The command. With heredocs it is the line that holds the `<<WORD`s.
    pub command: ShellOrExec,
    /// The heredocs, in order.
    pub heredocs: Vec<Heredoc>,
    /// `--mount`, in order, unexpanded; checked as far as they hold no variables. `RunMount::resolve` reads them once variables are known.
    pub mounts: Vec<Word>,
    /// `--network`.
    pub network: Option<Spanned<RunNetwork>>,
    /// `--security`.
    pub security: Option<Spanned<RunSecurity>>,
    /// `--device`, in order.
    pub devices: Vec<Spanned<RunDevice>>,
}

/// `RUN --network`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunNetwork {
    /// What the build was given.
    Default,
    /// No network.
    None,
    /// The host's.
    Host,
}

/// `RUN --security`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunSecurity {
    /// The usual sandbox.
    Sandbox,
    /// All privileges.
    Insecure,
}

/// `RUN --device=[name=]NAME[,required]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunDevice {
    /// The CDI name.
    pub name: String,
    /// Whether the build fails without it.
    pub required: bool,
}

/// One `RUN --mount=…` with its variables expanded.
#[derive(Clone, Debug)]
pub struct RunMount {
    /// What is mounted.
    pub kind: RunMountKind,
    /// Where; relative to the working directory.
    pub target: Option<String>,
    /// Where the whole flag stands.
    pub span: Span,
}

/// The kinds of mounts of `RUN --mount`.
#[derive(Clone, Debug)]
pub enum RunMountKind {
    /// Files of a stage, image or context.
    Bind {
        /// Stage, image or named context; the build context without it.
        from: Option<Spanned<Text>>,
        /// Path in it.
        source: Option<String>,
        /// Whether writes are allowed (and dropped after the step).
        writable: bool,
    },
    /// A directory that outlives the build.
    Cache {
        /// Its name; the target without it.
        id: Option<String>,
        /// Who may use it at once.
        sharing: CacheSharing,
        /// Where a new one takes its files from.
        from: Option<Spanned<Text>>,
        /// Path in `from`.
        source: Option<String>,
        /// Mode of a new one (default 0755).
        mode: Option<u32>,
        /// Owner of a new one.
        uid: Option<u32>,
        /// Group of a new one.
        gid: Option<u32>,
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
    /// A secret, as a file or a variable.
    Secret {
        /// Its name; the target's last part without it.
        id: Option<String>,
        /// The variable to set.
        env: Option<String>,
        /// Whether the step fails without it.
        required: bool,
        /// Mode of the file (default 0400).
        mode: Option<u32>,
        /// Owner of the file.
        uid: Option<u32>,
        /// Group of the file.
        gid: Option<u32>,
    },
    /// A socket to the SSH agent.
    Ssh {
        /// Its name (`default` without it).
        id: Option<String>,
        /// Whether the step fails without it.
        required: bool,
        /// Mode of the socket (default 0600).
        mode: Option<u32>,
        /// Owner of the socket.
        uid: Option<u32>,
        /// Group of the socket.
        gid: Option<u32>,
    },
}

/// Who may use a cache mount at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CacheSharing {
    /// Anyone.
    Shared,
    /// Each step gets its own.
    Private,
    /// One after another.
    Locked,
}

/// `COPY`.
#[derive(Clone, Debug)]
pub struct Copy {
    /// Sources and destination.
    pub paths: CopyPaths,
    /// `--from`: stage, index, image or named context. Never expanded.
    pub from: Option<Spanned<Text>>,
    /// `--chown`.
    pub chown: Option<Word>,
    /// `--chmod`.
    pub chmod: Option<Word>,
    /// `--link`.
    pub link: bool,
    /// `--parents`.
    pub parents: bool,
    /// `--exclude`, in order.
    pub exclude: Vec<Word>,
}

/// `ADD`.
#[derive(Clone, Debug)]
pub struct Add {
    /// Sources and destination.
    pub paths: CopyPaths,
    /// `--chown`.
    pub chown: Option<Word>,
    /// `--chmod`.
    pub chmod: Option<Word>,
    /// `--link`.
    pub link: bool,
    /// `--exclude`, in order.
    pub exclude: Vec<Word>,
    /// `--checksum`.
    pub checksum: Option<Word>,
    /// `--keep-git-dir`.
    pub keep_git_dir: Option<bool>,
    /// `--unpack`.
    pub unpack: Option<bool>,
}

/// The paths of `COPY` and `ADD`.
#[derive(Clone, Debug)]
pub struct CopyPaths {
    /// The sources, in order (heredocs come after them).
    pub sources: Vec<Word>,
    /// Files given in place, in order.
    pub heredocs: Vec<Heredoc>,
    /// The destination.
    pub destination: Word,
}

/// `ONBUILD instruction`.
#[derive(Clone, Debug)]
pub struct Onbuild {
    /// The instruction's text, to be stored in the image's config: heredoc bodies and terminators included.
    pub trigger: String,
    /// The instruction, parsed. There is none where it has a mistake: that fails the build that it is triggered in, and this one only warns.
    pub statement: Option<Box<Statement>>,
}

/// `HEALTHCHECK`.
#[derive(Clone, Debug)]
pub enum Healthcheck {
    /// `NONE`: the base image's check is off.
    None,
    /// `CMD`; durations are in nanoseconds, and `None` where not given.
    Command {
        /// The check.
        command: ShellOrExec,
        /// `--interval`.
        interval: Option<i64>,
        /// `--timeout`.
        timeout: Option<i64>,
        /// `--start-period`.
        start_period: Option<i64>,
        /// `--start-interval`.
        start_interval: Option<i64>,
        /// `--retries`.
        retries: Option<i64>,
    },
}
