//! `RUN` to nodes.

use std::sync::Arc;

use crate::diag::{SourceFile, Spanned};
use crate::graph::history::Layer;
use crate::graph::op::{
    CopyOp, CopySource, ExecMount, ExecMountKind, ExecOp, InlineScript, NetworkMode, NodeId, Op, SecurityMode, Step, Unpack,
};
use crate::oci::Platform;
use crate::parser::{self, Heredoc, Mode, Run, RunMount, RunMountKind, RunNetwork, RunScript, RunSecurity, Statement};
use crate::path::RootPath;

use super::copy::input_of;
use super::{FromOf, Lowering, Origin, StageState, expansion_error, shell_words};

/// The longest argument or variable of a program (`MAX_ARG_STRLEN` of execve(2), less the zero byte at the end).
const MAX_STRING: usize = 128 * 1024 - 1;

impl Lowering<'_, '_> {
    pub(super) fn run(&mut self, state: &mut StageState, statement: &Statement, run: &Run) {
        let (args, script) = match run.script() {
            RunScript::Exec(words) => (words, None),
            RunScript::Shell(text) => (shell_words(&state.config, text), None),
            RunScript::Shebang { name, body } => {
                let program = format!("/dev/pipes/{name}");
                (shell_words(&state.config, program), Some(InlineScript { name, body }))
            }
        };
        for device in run.devices.iter().filter(|device| !self.request.entitlements.device(&device.value.name)) {
            let name = &device.value.name;
            self.not_entitled(device.span, &format!("use the device `{name}`"), &format!("device={name}"));
        }
        let mut inputs = vec![state.node];
        let mut mounts = Vec::new();
        for word in &run.mounts {
            let agents = mounts.iter().filter(|mount: &&ExecMount| matches!(mount.kind, ExecMountKind::Ssh { .. })).count();
            match self.mount(state, word, &mut inputs, agents) {
                Some(mount) => mounts.push(mount),
                None => return,
            }
        }
        let network = match &run.network {
            None => self.request.network,
            Some(Spanned { value: RunNetwork::Default, .. }) => self.request.network,
            Some(Spanned { value: RunNetwork::None, .. }) => NetworkMode::None,
            Some(Spanned { value: RunNetwork::Host, span }) => {
                if !self.request.entitlements.network_host {
                    self.not_entitled(*span, "use the host's network", "network.host");
                }
                NetworkMode::Host
            }
        };
        let security = match &run.security {
            Some(Spanned { value: RunSecurity::Insecure, span }) => {
                if !self.request.entitlements.security_insecure {
                    self.not_entitled(*span, "run without a sandbox", "security.insecure");
                }
                SecurityMode::Insecure
            }
            _ => SecurityMode::Sandbox,
        };
        let Some(mut env) = self.exec_env(state, statement, &args) else { return };
        if let Some(agent) = mounts.iter().find(|mount| matches!(mount.kind, ExecMountKind::Ssh { .. })) {
            const SOCKET: &str = "SSH_AUTH_SOCK";
            // The first one is where programs look, unless they were told to look elsewhere.
            if state.env.get(SOCKET).is_none() {
                env = env.iter().cloned().chain([(SOCKET.to_owned(), agent.target.to_string())]).collect();
            }
        }
        let mut proxy_env = self.args.proxy_env();
        proxy_env.retain(|(name, _)| state.env.get(name).is_none());
        let history = format!("RUN {}", history_text(state, &args));
        let in_image = |name: &str| state.config.config.env.iter().any(|entry| entry.split('=').next() == Some(name));
        let build_args = state.args.iter().map(|(name, _)| name.to_owned()).filter(|name| !in_image(name)).collect();
        let op = ExecOp {
            args,
            env,
            build_args,
            proxy_env,
            workdir: state.workdir(),
            user: state.config.config.user.clone(),
            hostname: self.args.hostname().map(str::to_owned),
            network,
            security,
            devices: run.devices.iter().map(|device| (device.value.name.clone(), device.value.required)).collect(),
            extra_hosts: self.request.extra_hosts.clone(),
            mounts,
            script,
        };
        state.node = self.add(state, Op::Exec(op), &inputs, statement, step_text(statement, &self.request.dockerfile.file));
        self.commit(state, history, Layer::Marked);
    }

    /// The environment of a command, if the kernel can take it and the arguments at all; if not, says what it cannot.
    fn exec_env(&mut self, state: &mut StageState, statement: &Statement, args: &[String]) -> Option<Arc<[(String, String)]>> {
        if args.is_empty() {
            self.error_at(statement.keyword.span, "`RUN` needs a command".to_owned(), None);
            return None;
        }
        for arg in args {
            self.check_string(statement, arg.len(), arg, || "the command".to_owned())?;
        }
        if let Some(known) = &state.exec_env {
            return Some(known.clone());
        }
        for (name, value) in state.env.vars() {
            self.check_string(statement, name.len() + value.len() + 1, value, || format!("the variable `{name}`"))?;
        }
        Some(state.exec_env.insert(state.env.vars().into()).clone())
    }

    fn check_string(&mut self, statement: &Statement, length: usize, text: &str, what: impl Fn() -> String) -> Option<()> {
        if text.contains('\0') {
            self.error_at(statement.keyword.span, format!("{} holds a zero byte, which no program can be given", what()), None);
            return None;
        }
        if length > MAX_STRING {
            let message = format!("{} has {length} bytes: the kernel takes at most {MAX_STRING}", what());
            let hint = "put it into a file with `COPY <<EOF /file`, and let the command read that".to_owned();
            self.error_at(statement.keyword.span, message, Some(hint));
            return None;
        }
        Some(())
    }

    /// Refuses what `--allow` must name first.
    fn not_entitled(&mut self, span: crate::diag::Span, what: &str, entitlement: &str) {
        let hint = format!("allow it with `--allow {entitlement}`, if you trust this Dockerfile");
        self.error_at(span, format!("this step wants to {what}, which needs the entitlement `{entitlement}`"), Some(hint));
    }

    /// One mount; `agents` is the number of SSH agents that the step has already.
    fn mount(&mut self, state: &StageState, word: &parser::Word, inputs: &mut Vec<NodeId>, agents: usize) -> Option<ExecMount> {
        let escape = self.request.dockerfile.directives.escape;
        let mut undefined = parser::Expanded::default();
        let mut expand = |text: &str| {
            let expanded = parser::expand(text, escape, &*state.env, Mode::Word)?;
            undefined.undefined.extend(expanded.undefined);
            Ok(expanded.text)
        };
        let mount = match RunMount::resolve(word, &self.file, &mut expand) {
            Ok(mount) => mount,
            Err(error) => {
                self.error_at(error.span, error.message, error.hint);
                return None;
            }
        };
        self.warn_undefined(&parser::Word { text: parser::Text::default(), span: word.span }, &undefined, state);
        let target = mount.target.as_ref().map(|target| state.workdir().join(target));
        if target.as_ref().is_some_and(RootPath::is_root) {
            self.error_at(word.span, "a mount cannot have the target `/`".to_owned(), None);
            return None;
        }
        if let Some(target) = target.as_ref().filter(|target| target.starts_with(&RootPath::new("/proc"))) {
            self.error_at(word.span, format!("nothing can be mounted on `{target}`: what is in /proc is the kernel's"), None);
            return None;
        }
        let span = word.span;
        match mount.kind {
            RunMountKind::Bind { from, source, writable } => {
                let source = source.unwrap_or_else(|| "/".into());
                let node = self.mount_source(from.as_ref(), &source, state, span)?;
                let kind = ExecMountKind::Bind { input: input_of(inputs, node), source, writable };
                self.mount_at(span, target, kind)
            }
            RunMountKind::Cache { id, sharing, from, source, mode, uid, gid, read_only } => {
                let (seed, subpath) = match &from {
                    None => (None, source.map(RootPath::new).filter(|path| !path.is_root())),
                    Some(_) => {
                        let source = source.unwrap_or_else(|| "/".into());
                        let node = self.mount_source(from.as_ref(), &source, state, span)?;
                        (Some((input_of(inputs, node), source)), None)
                    }
                };
                // By default the target as it is written, whatever the working directory.
                let id = id.or_else(|| mount.target.as_deref().map(clean)).unwrap_or_default();
                let id = self.args.cache_namespace().map_or(id.clone(), |namespace| format!("{namespace}/{id}"));
                let (mode, uid, gid) = (mode.unwrap_or(0o755), uid.unwrap_or(0), gid.unwrap_or(0));
                self.mount_at(span, target, ExecMountKind::Cache { id, sharing, seed, subpath, mode, uid, gid, read_only })
            }
            RunMountKind::Tmpfs { size, read_only } => self.mount_at(span, target, ExecMountKind::Tmpfs { size, read_only }),
            RunMountKind::Secret { id, env, required, mode, uid, gid } => {
                let id = id.or_else(|| target.as_ref().and_then(|t| t.file_name()).map(|n| n.to_string_lossy().into_owned()));
                let id = id.unwrap_or_default();
                let name = id.trim_end_matches('/').rsplit('/').next().unwrap_or_default().to_owned();
                let file = env.is_none() || target.is_some();
                let target = target.unwrap_or_else(|| RootPath::new("/run/secrets").join(&name));
                let (mode, uid, gid) = (mode.unwrap_or(0o400), uid.unwrap_or(0), gid.unwrap_or(0));
                Some(ExecMount { target, kind: ExecMountKind::Secret { id, env, file, required, mode, uid, gid } })
            }
            RunMountKind::Ssh { id, required, mode, uid, gid } => {
                let target = target.unwrap_or_else(|| RootPath::new(format!("/run/buildkit/ssh_agent.{agents}")));
                let id = id.unwrap_or_else(|| "default".to_owned());
                let (mode, uid, gid) = (mode.unwrap_or(0o600), uid.unwrap_or(0), gid.unwrap_or(0));
                Some(ExecMount { target, kind: ExecMountKind::Ssh { id, required, mode, uid, gid } })
            }
        }
    }

    /// What a mount's files come from: the build context unless `from` names something.
    fn mount_source(
        &mut self,
        from: Option<&Spanned<parser::Text>>,
        source: &str,
        state: &StageState,
        span: crate::diag::Span,
    ) -> Option<NodeId> {
        let origin = match from {
            None if self.request.contexts.main().is_some() => return Some(self.context(None)),
            None => return Some(self.context_files(None, source, &state.platform, Some(span))),
            Some(from) => self.origin(from, FromOf::Mount)?,
        };
        match origin {
            Origin::Context(name) => Some(self.context_files(Some(&name), source, &state.platform, Some(span))),
            origin => self.origin_node(&origin, from.map_or(crate::diag::Span::new(0, 0), |from| from.span)),
        }
    }

    /// Files of a context, as the file system of a step.
    ///
    /// They are copied first, and by their content: a step must see them without what is ignored, owned by root, and as they were when their checksum was
    /// taken. `span` is the mount that asks for them.
    pub(super) fn context_files(
        &mut self,
        context: Option<&str>,
        source: &str,
        platform: &Arc<Platform>,
        span: Option<crate::diag::Span>,
    ) -> NodeId {
        let pattern = RootPath::new(source).relative().to_string_lossy().into_owned();
        let key = format!("context copy {} {pattern}", context.unwrap_or(""));
        if let Some(node) = self.sources.get(&key) {
            return *node;
        }
        let op = CopyOp {
            parents: pattern != ".",
            with_way: pattern != ".",
            sources: vec![CopySource::Path { input: 1, pattern: pattern.clone() }],
            destination: "/".into(),
            workdir: RootPath::root(),
            chown: None,
            chmod: None,
            exclude: Vec::new(),
            unpack: Unpack::Never,
            link: true,
        };
        let inputs = [self.scratch(), self.context(context)];
        let text = match context {
            None => format!("[internal] context {source} for RUN --mount"),
            Some(name) => format!("[context {name}] load {source}"),
        };
        let step = Step {
            stage: parser::Text::default(),
            position: (0, 0),
            text,
            source: span.map(|span| (self.request.dockerfile.file.clone(), self.trigger_span.unwrap_or(span))),
            ignore_cache: false,
            platforms: Arc::new([platform.to_string()]),
            tells_platform: false,
        };
        let node = self.add_node(Op::Copy(op), &inputs, step, platform.clone());
        self.sources.insert(key, node);
        node
    }

    fn mount_at(&mut self, span: crate::diag::Span, target: Option<RootPath>, kind: ExecMountKind) -> Option<ExecMount> {
        match target {
            Some(target) => Some(ExecMount { target, kind }),
            None => {
                let hint = Some("add `target=/path`".to_owned());
                self.error_at(span, "this mount has no target".to_owned(), hint);
                None
            }
        }
    }

    /// A heredoc's content: variables are expanded unless its delimiter is quoted, and quotes are just characters.
    pub(super) fn expand_heredoc(&mut self, heredoc: &Heredoc, state: &StageState) -> Option<String> {
        if !heredoc.expand {
            return Some(heredoc.body.value.clone());
        }
        let word = parser::Word { text: heredoc.body.value.as_str().into(), span: heredoc.body.span };
        match parser::expand(&word.text, '\\', &*state.env, Mode::Heredoc) {
            Ok(expanded) => {
                self.warn_undefined(&word, &expanded, state);
                Some(expanded.text)
            }
            Err(error) => {
                let diagnostic = expansion_error(&self.file, &word, &error);
                self.error_at(diagnostic.span, diagnostic.message, diagnostic.hint);
                None
            }
        }
    }
}

/// A path without `.`, `..` and needless slashes; a relative one stays so.
fn clean(path: &str) -> String {
    let absolute = RootPath::new(path).to_string();
    if path.starts_with('/') { absolute } else { absolute.trim_start_matches('/').to_owned() }
}

/// How many characters of an instruction are shown.
const MAX_STEP_TEXT: usize = 1000;

/// A step's text: the instruction on one line; of a heredoc the first line.
pub(super) fn step_text(statement: &Statement, file: &SourceFile) -> String {
    let mut lines = statement.original(file).lines();
    let first = lines.next().unwrap_or_default().trim_end();
    let text = match lines.find(|line| !line.trim().is_empty()) {
        Some(body) => format!("{first} ({}...)", body.trim()),
        None => first.to_owned(),
    };
    let text = match text.split_once(char::is_whitespace) {
        Some((keyword, rest)) => format!("{} {}", keyword.to_uppercase(), rest.trim_start()),
        None => text,
    };
    match text.char_indices().nth(MAX_STEP_TEXT) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

/// The words of a RUN in history: the ARGs in scope, counted, then the command.
fn history_text(state: &StageState, args: &[String]) -> String {
    let declared = state.args.iter();
    let mut texts = Vec::with_capacity(declared.len() + args.len() + 1);
    if declared.len() > 0 {
        texts.push(format!("|{}", declared.len()));
    }
    texts.extend(declared.map(|(name, value)| format!("{name}={}", state.env.get(name).or(value).unwrap_or_default())));
    texts.extend(args.iter().cloned());
    texts.join(" ")
}
