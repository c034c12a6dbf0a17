//! `COPY` and `ADD` to nodes.

use std::borrow::Cow;

use crate::diag::SafeUrl;
use crate::graph::git_url::GitSource;
use crate::graph::history::Layer;
use crate::graph::op::{CopyOp, CopySource, NodeId, Op, RemoteTree, SourceOp, Unpack};
use crate::oci::{Algorithm, Digest};
use crate::parser::{Add, Copy, CopyPaths, Statement, Word};

use super::{FromOf, Lowering, StageState, unix_spelling};

/// What `COPY` and `ADD` have in common.
struct Request<'x> {
    keyword: &'static str,
    paths: &'x CopyPaths,
    chown: Option<&'x Word>,
    chmod: Option<&'x Word>,
    exclude: &'x [Word],
    keep_git_dir: Option<bool>,
    parents: bool,
    link: bool,
    unpack: Unpack,
    checksum: Option<&'x Word>,
    /// What paths are read from, when not the build context.
    from: Option<NodeId>,
}

impl Lowering<'_, '_> {
    pub(super) fn copy(&mut self, state: &mut StageState, statement: &Statement, copy: &Copy) {
        let from = match &copy.from {
            None => None,
            Some(from) => {
                let Some(origin) = self.origin(from, FromOf::Copy) else { return };
                let Some(node) = self.origin_node(&origin, from.span) else { return };
                Some(node)
            }
        };
        let request = Request {
            keyword: "COPY",
            paths: &copy.paths,
            chown: copy.chown.as_ref(),
            chmod: copy.chmod.as_ref(),
            exclude: &copy.exclude,
            keep_git_dir: None,
            parents: copy.parents,
            link: copy.link,
            unpack: Unpack::Never,
            checksum: None,
            from,
        };
        self.copy_files(state, statement, &request);
    }

    pub(super) fn add_instruction(&mut self, state: &mut StageState, statement: &Statement, add: &Add) {
        let unpack = match add.unpack {
            None => Unpack::Local,
            Some(false) => Unpack::Never,
            Some(true) => Unpack::Always,
        };
        let request = Request {
            keyword: "ADD",
            paths: &add.paths,
            chown: add.chown.as_ref(),
            chmod: add.chmod.as_ref(),
            exclude: &add.exclude,
            keep_git_dir: add.keep_git_dir,
            parents: false,
            link: add.link,
            unpack,
            checksum: add.checksum.as_ref(),
            from: None,
        };
        self.copy_files(state, statement, &request);
    }

    fn copy_files(&mut self, state: &mut StageState, statement: &Statement, request: &Request<'_>) {
        let Some(destination) = self.expand(&request.paths.destination, state) else { return };
        let chmod = self.chmod(state, request);
        // Patterns are taken as they are written.
        let exclude: Vec<String> = request.exclude.iter().map(|word| word.text.to_string()).collect();
        let Ok(checksum) = self.checksum(state, request) else { return };
        // BuildKit merges only what needs no look at the base.
        let link = request.link && chmod.is_none();
        let chown = self.chown(state, request, link);

        let mut history = request.keyword.to_owned();
        let flags = [("--chown=", &chown), ("--chmod=", &chmod)];
        if request.parents {
            history.push_str(" --parents");
        }
        for (flag, value) in flags {
            if let Some(value) = value {
                history.extend([" ", flag, value]);
            }
        }
        let base = if link { self.scratch() } else { state.node };
        let mut inputs = vec![base];
        let mut sources = Vec::new();
        for word in &request.paths.sources {
            let Some(pattern) = self.expand(word, state) else { return };
            history.extend([" ", &pattern]);
            match self.source_of(request, word, &pattern, checksum.as_deref(), &mut inputs) {
                Some(source) => sources.push(source),
                None => return,
            }
        }
        for heredoc in &request.paths.heredocs {
            history.extend([" <<", &heredoc.delimiter]);
            let Some(content) = self.expand_heredoc(heredoc, state) else { return };
            sources.push(CopySource::Inline { name: heredoc.delimiter.to_string(), content });
        }
        history.extend([" ", &destination]);
        let op = CopyOp {
            sources,
            destination: unix_spelling(&state.config, &destination).into_owned(),
            workdir: state.workdir(),
            chown,
            chmod,
            parents: request.parents,
            with_way: false,
            exclude,
            unpack: request.unpack,
            link,
        };
        let below = state.node;
        let text = super::run::step_text(statement, &self.request.dockerfile.file);
        let node = self.add(state, Op::Copy(op), &inputs, statement, text.clone());
        state.node = if link {
            state.position -= 1;
            self.add(state, Op::Merge, &[below, node], statement, format!("LINK {text}"))
        } else {
            node
        };
        self.commit(state, history, Layer::Marked);
    }

    /// `--chown`; `link`: for a layer that is made without the base, where no name can be looked up.
    fn chown(&mut self, state: &StageState, request: &Request<'_>, link: bool) -> Option<String> {
        let word = request.chown?;
        let text = self.expand(word, state).filter(|text| !text.is_empty())?;
        let is_name = |part: &&str| !matches!(*part, "" | "root") && !part.bytes().all(|byte| byte.is_ascii_digit());
        if link && let Some(name) = text.splitn(2, ':').find(is_name) {
            let message = format!("--link takes no look at the files below, so `{name}` of --chown cannot be looked up");
            let hint = Some("give numbers, such as --chown=1000:1000, or leave --link out".to_owned());
            self.error_at(word.span, message, hint);
        }
        Some(text)
    }

    /// `--chmod`, checked.
    fn chmod(&mut self, state: &StageState, request: &Request<'_>) -> Option<String> {
        let word = request.chmod?;
        let text = self.expand(word, state).filter(|text| !text.is_empty())?;
        if let Err(reason) = crate::parser::chmod::Mode::parse(&text) {
            let hint = Some("give octal digits up to 07777, or a symbolic mode such as `u=rwX,go=rX`".to_owned());
            self.error_at(word.span, reason, hint);
        }
        Some(text)
    }

    /// `--checksum`, expanded: it needs exactly one source, and that from elsewhere.
    fn checksum(&mut self, state: &StageState, request: &Request<'_>) -> Result<Option<String>, ()> {
        let Some(word) = request.checksum else { return Ok(None) };
        let Some(text) = self.expand(word, state) else { return Err(()) };
        if text.is_empty() {
            return Ok(None);
        }
        let [source] = request.paths.sources.as_slice() else {
            self.error_at(word.span, "--checksum needs exactly one source".to_owned(), None);
            return Err(());
        };
        let source = self.expand(source, state).ok_or(())?;
        if GitSource::parse(&source).is_none() && !is_http(&source) {
            self.error_at(word.span, "--checksum needs a source that is a URL".to_owned(), None);
            return Err(());
        }
        Ok(Some(text))
    }

    fn source_of(
        &mut self,
        request: &Request<'_>,
        word: &Word,
        pattern: &str,
        checksum: Option<&str>,
        inputs: &mut Vec<NodeId>,
    ) -> Option<CopySource> {
        let is_copy = request.keyword == "COPY";
        if let Some(parsed) = GitSource::parse(pattern) {
            if is_copy {
                self.error_at(word.span, "COPY cannot read from a git repository".to_owned(), Some("use ADD".to_owned()));
                return None;
            }
            return match parsed {
                Ok(source) => self.repository(request, word, source, checksum, inputs),
                Err(error) => {
                    self.error_at(word.span, error.to_string(), None);
                    None
                }
            };
        }
        if is_http(pattern) {
            if is_copy {
                self.error_at(word.span, "COPY cannot read from a URL".to_owned(), Some("use ADD".to_owned()));
                return None;
            }
            let checksum = match checksum.map(sha256).transpose() {
                Ok(checksum) => checksum,
                Err(reason) => {
                    self.error_at(request.checksum.map_or(word.span, |word| word.span), reason, None);
                    return None;
                }
            };
            return Some(self.download(pattern, checksum.as_ref(), inputs));
        }
        let node = match request.from {
            Some(node) => node,
            None => self.context(None),
        };
        Some(CopySource::Path { input: input_of(inputs, node), pattern: pattern.to_owned() })
    }

    /// A git repository as a source: what is in its directory.
    fn repository(
        &mut self,
        request: &Request<'_>,
        word: &Word,
        mut source: GitSource,
        checksum: Option<&str>,
        inputs: &mut Vec<NodeId>,
    ) -> Option<CopySource> {
        if let Some(Err(error)) = checksum.map(|checksum| source.demand(checksum)) {
            self.error_at(request.checksum.map_or(word.span, |word| word.span), error.to_string(), None);
            return None;
        }
        match (request.keep_git_dir, source.keep_git_dir) {
            (Some(flag), Some(address)) if flag != address => {
                let message = format!("--keep-git-dir={flag} contradicts `keep-git-dir={address}` in the address");
                self.error_at(word.span, message, None);
                return None;
            }
            (Some(flag), None) => source.keep_git_dir = Some(flag),
            _ => {}
        }
        let node = self.remote(&RemoteTree::Git(source));
        Some(CopySource::Path { input: input_of(inputs, node), pattern: "/".to_owned() })
    }

    fn download(&mut self, url: &str, checksum: Option<&Digest>, inputs: &mut Vec<NodeId>) -> CopySource {
        let name = download_name(url);
        let key = format!("http {url} {checksum:?}");
        let node = self.source(&key, self.target_platform.clone(), None, || {
            (SourceOp::Http { url: url.to_owned(), name, checksum: checksum.cloned() }, SafeUrl::new(url).to_string())
        });
        CopySource::Download { input: input_of(inputs, node) }
    }

    /// The files of `tree`.
    pub(super) fn remote(&mut self, tree: &RemoteTree) -> NodeId {
        self.source(&format!("remote {tree:?}"), self.target_platform.clone(), None, || {
            let text = match tree {
                RemoteTree::Git(_) => format!("[internal] load git source {tree}"),
                RemoteTree::Http { .. } => format!("[internal] load remote build context {tree}"),
            };
            (SourceOp::Remote(tree.clone()), text)
        })
    }

    /// The build context, or the named context `name`.
    pub(super) fn context(&mut self, name: Option<&str>) -> NodeId {
        if let (None, Some(tree)) = (name, self.request.contexts.main()) {
            return self.remote(tree);
        }
        let key = name.map_or(Cow::Borrowed("context"), |name| format!("context {name}").into());
        self.source(&key, self.target_platform.clone(), None, || {
            let text = name.map_or_else(|| "build context".to_owned(), |name| format!("build context {name}"));
            (SourceOp::Context { name: name.map(str::to_owned) }, text)
        })
    }

    pub(super) fn scratch(&mut self) -> NodeId {
        self.source("scratch", self.target_platform.clone(), None, || (SourceOp::Scratch, "FROM scratch".to_owned()))
    }
}

/// The position of a node among the inputs (never the first, which is the base); it is added where it is missing.
pub(super) fn input_of(inputs: &mut Vec<NodeId>, node: NodeId) -> usize {
    match inputs.iter().skip(1).position(|input| *input == node) {
        Some(position) => position + 1,
        None => {
            inputs.push(node);
            inputs.len() - 1
        }
    }
}

/// The name of a downloaded file: the last part of the address's path.
fn download_name(url: &str) -> String {
    let path = url.split(['?', '#']).next().unwrap_or(url);
    let path = path.split_once("://").map_or(path, |(_, rest)| rest.split_once('/').map_or("", |(_, path)| path));
    let decoded = percent_decoded(path).unwrap_or_default();
    match decoded.trim_end_matches('/').rsplit('/').next() {
        None | Some("" | "." | "..") => "__unnamed__".to_owned(),
        Some(name) => name.to_owned(),
    }
}

/// Replaces `%41` by `A`; `None` where that is malformed.
fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = text.bytes();
    let mut decoded = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            decoded.push(byte);
            continue;
        }
        let mut digit = || char::from(bytes.next()?).to_digit(16);
        let (high, low) = (digit()?, digit()?);
        decoded.push(u8::try_from(high * 16 + low).ok()?);
    }
    // A name with a zero byte or with bytes that are no text would be no name of a file that anyone means.
    String::from_utf8(decoded).ok().filter(|text| !text.contains('\0'))
}

pub(in crate::graph) fn is_http(source: &str) -> bool {
    source.starts_with("http://") || source.starts_with("https://")
}

/// The checksum of a file from a web server.
fn sha256(text: &str) -> Result<Digest, String> {
    let digest: Digest = text.parse().map_err(|error: crate::oci::DigestError| error.to_string())?;
    match digest.algorithm() {
        Algorithm::Sha256 => Ok(digest),
        other => Err(format!("the checksum of a download is `sha256:…`, not `{}:…`", other.name())),
    }
}
