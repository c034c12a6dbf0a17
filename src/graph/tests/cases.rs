//! Runs the files of `testdata/graph`: each holds cases, and each case a Dockerfile, how it is built, and what the graph makes of it.
//!
//! ```text
//! ===== what is claimed
//! target=NAME  arg=NAME=VALUE  label=KEY=VALUE  platform=OS/ARCH  build-platform=OS/ARCH  context=NAME=dir|layout|scratch|REF
//! image=REF {"config": …}      the config of a base image; others have none
//! show=env,args,config,history,warnings,ops,need    what is compared, beside the nodes
//! -----
//! the Dockerfile
//! -----
//! what is expected
//! ```
//!
//! `STRAKE_ACCEPT=1` rewrites the expectations; read the difference before you commit it.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use crate::diag::{Diagnostic, SourceFile};
use crate::graph::{
    BuildGraph, CopyOp, CopySource, ExecMountKind, ExecOp, NamedContext, NamedContexts, NetworkMode, NodeId, Op, PlanRequest, Planned,
    ResolvedImage, ResolvedImages, SourceOp, plan,
};
use crate::oci::{Digest, ImageConfig, ImageId, Platform};
use crate::parser::parse;

#[derive(Default)]
struct Case {
    title: String,
    options: Vec<String>,
    dockerfile: String,
    expected: String,
}

#[test]
fn every_case_gives_the_expected_graph() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/graph");
    let accept = std::env::var_os("STRAKE_ACCEPT").is_some();
    let mut files: Vec<_> = fs::read_dir(&root).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let (mut count, mut failures) = (0, String::new());
    for path in files {
        let mut cases = read(&fs::read_to_string(&path).unwrap());
        count += cases.len();
        for case in &mut cases {
            let actual = outcome(case);
            if accept {
                case.expected = actual;
            } else if case.expected != actual {
                let file = path.file_name().unwrap().to_string_lossy();
                let _ = writeln!(failures, "--- {file}: {}, expected\n{}--- actual\n{actual}", case.title, case.expected);
            }
        }
        if accept {
            fs::write(&path, cases.iter().map(written).collect::<String>()).unwrap();
        }
    }
    assert!(count >= 120, "only {count} cases");
    assert!(failures.is_empty(), "{failures}");
}

fn read(text: &str) -> Vec<Case> {
    let mut cases: Vec<Case> = Vec::new();
    let mut part = 0;
    for line in text.split_inclusive('\n') {
        if let Some(title) = line.strip_prefix("===== ") {
            cases.push(Case { title: title.trim().to_owned(), ..Case::default() });
            part = 0;
        } else if line == "-----\n" {
            part += 1;
        } else {
            let case = cases.last_mut().expect("a case begins with a title");
            match part {
                0 => case.options.push(line.trim_end().to_owned()),
                1 => case.dockerfile.push_str(line),
                _ => case.expected.push_str(line),
            }
        }
    }
    cases
}

fn written(case: &Case) -> String {
    let options: String = case.options.iter().map(|line| format!("{line}\n")).collect();
    format!("===== {}\n{options}-----\n{}-----\n{}", case.title, case.dockerfile, case.expected)
}

/// What a case says, in words: the graph, or the mistakes.
fn outcome(case: &Case) -> String {
    let parsed = parse(&SourceFile::new("Dockerfile", case.dockerfile.as_str()));
    if parsed.diagnostics.iter().any(Diagnostic::is_error) {
        return format!("refused by the parser\n{}", diagnostics(&parsed.diagnostics));
    }
    let words = || case.options.iter().filter(|line| !line.starts_with("image=")).flat_map(|line| line.split_whitespace());
    let all = |key: &str| -> Vec<&str> { words().filter_map(|word| word.strip_prefix(key)).collect() };
    let pair = |text: &str| text.split_once('=').map(|(k, v)| (k.to_owned(), v.to_owned())).unwrap();
    let build_args: BTreeMap<_, _> = all("arg=").into_iter().map(pair).collect();
    let labels: Vec<_> = all("label=").into_iter().map(pair).collect();
    let contexts: NamedContexts =
        all("context=").into_iter().map(pair).map(|(name, value)| (name.parse().unwrap(), context(&value))).collect();
    let platform = all("platform=").first().map(|platform| platform.parse::<Platform>().unwrap());
    let host: Platform = "linux/amd64".parse().unwrap();
    let request = PlanRequest {
        dockerfile: &parsed.dockerfile,
        target: all("target=").first().copied(),
        build_args: &build_args,
        labels: &labels,
        contexts: &contexts,
        target_platform: platform.clone().unwrap_or_else(|| host.clone()),
        implicit_platform: platform.is_none(),
        one_of_several: false,
        build_platform: all("build-platform=").first().map_or(host, |platform| platform.parse().unwrap()),
        network: NetworkMode::Default,
        extra_hosts: std::sync::Arc::default(),
        entitlements: crate::graph::Entitlements::ALL,
        no_cache: false,
        no_cache_filter: &[],
        checks: crate::graph::CheckScope::default(),
    };
    let show: Vec<&str> = all("show=").into_iter().flat_map(|what| what.split(',')).collect();
    let mut images = ResolvedImages::new();
    let mut needs = String::new();
    loop {
        match plan(&request, &images) {
            Err(errors) => return diagnostics(&errors),
            Ok(Planned::NeedsImages(found)) => {
                for need in found {
                    let layout = need.layout.as_ref().map_or_else(String::new, |layout| format!(" in the layout {layout}"));
                    let _ = writeln!(needs, "needs {} for {}{layout}", need.reference.familiar(), need.platform);
                    let image = image(case, &need.reference.familiar(), &need.platform);
                    assert!(images.insert(need.key(), image).is_none(), "{}: asked twice", case.title);
                }
            }
            Ok(Planned::Ready(graph)) => {
                let needs = if show.contains(&"need") { needs } else { String::new() };
                return format!("{needs}{}", described(&graph, &show));
            }
        }
    }
}

fn context(value: &str) -> NamedContext {
    match value {
        "dir" => NamedContext::Directory,
        "layout" => NamedContext::Layout,
        "scratch" => NamedContext::Scratch,
        image => NamedContext::Image(image.parse().unwrap()),
    }
}

/// The image that a case gives a name, or one with an empty config.
fn image(case: &Case, name: &str, platform: &Platform) -> ResolvedImage {
    let name = name.trim_end_matches(":latest");
    let given = case.options.iter().find_map(|line| line.strip_prefix("image=")?.strip_prefix(name)?.strip_prefix(' '));
    let mut config: ImageConfig = given.map_or_else(|| ImageConfig::empty(platform), |json| serde_json::from_str(json).unwrap());
    if config.architecture.is_empty() {
        let ImageConfig { config: runtime, history, author, .. } = config;
        config = ImageConfig { config: runtime, history, author, ..ImageConfig::empty(platform) };
    }
    let digest = Digest::sha256(format!("{name} {platform}").as_bytes());
    ResolvedImage { id: ImageId::new(digest.clone()), manifest: digest, config }
}

fn described(graph: &BuildGraph, show: &[&str]) -> String {
    let numbers: HashMap<NodeId, usize> = graph.nodes().enumerate().map(|(number, id)| (id, number)).collect();
    let mut text = String::new();
    for id in graph.nodes() {
        let node = graph.node(id);
        let inputs: Vec<String> = graph.inputs(id).iter().map(|input| numbers[input].to_string()).collect();
        let inputs = if inputs.is_empty() { String::new() } else { format!(" <- {}", inputs.join(" ")) };
        let platform = if node.platform.to_string() == "linux/amd64" { String::new() } else { format!(" ({})", node.platform) };
        let mark = if id == graph.targets[0].node { "*" } else { "" };
        let _ = writeln!(text, "{mark}{} {}{platform}{inputs}", numbers[&id], op(&node.op, show));
        if show.contains(&"titles") {
            let _ = writeln!(text, "    {}", node.step.title());
        }
    }
    let config = &graph.targets[0].config;
    if show.contains(&"config") {
        let mut shown = config.clone();
        shown.history.clear();
        let _ = writeln!(text, "{}", serde_json::to_string(&shown).unwrap());
    }
    if show.contains(&"history") {
        for entry in &config.history {
            let layer = if entry.empty_layer { "-" } else { "+" };
            let _ = writeln!(text, "{layer} {}", entry.created_by.as_deref().unwrap_or("(none)").escape_debug());
        }
    }
    let warnings = diagnostics(&graph.warnings);
    if show.contains(&"warnings") {
        text.push_str(&warnings);
    }
    text
}

fn op(op: &Op, show: &[&str]) -> String {
    match op {
        Op::Source(SourceOp::Scratch) => "scratch".to_owned(),
        Op::Source(SourceOp::Image { reference, .. }) => format!("image {}", reference.familiar()),
        Op::Source(SourceOp::Context { name: None }) => "context".to_owned(),
        Op::Source(SourceOp::Context { name: Some(name) }) => format!("context {name}"),
        Op::Source(SourceOp::Remote(tree)) => format!("remote {tree}"),
        Op::Source(SourceOp::Http { url, name, checksum }) => {
            let checksum = checksum.as_ref().map_or_else(String::new, |checksum| format!(" checked {}", &checksum.to_string()[..15]));
            format!("http {url} as {name}{checksum}")
        }
        Op::Exec(exec) => described_exec(exec, show),
        Op::Copy(copy) => described_copy(copy),
        Op::Mkdir(mkdir) => {
            let user = if mkdir.user.is_empty() { String::new() } else { format!(" for {}", mkdir.user) };
            format!("mkdir {}{user}", mkdir.path)
        }
        Op::Merge => "merge".to_owned(),
    }
}

fn described_exec(exec: &ExecOp, show: &[&str]) -> String {
    let mut text = format!("exec {:?}", exec.args);
    let mut add = |name: &str, value: &str, usual: &str| {
        if value != usual {
            let _ = write!(text, " {name}={value}");
        }
    };
    add("workdir", &exec.workdir.to_string(), "/");
    add("user", &exec.user, "");
    add("hostname", exec.hostname.as_deref().unwrap_or(""), "");
    add("network", exec.network.name(), "default");
    add("security", if exec.security == crate::graph::SecurityMode::Insecure { "insecure" } else { "sandbox" }, "sandbox");
    for (name, required) in &exec.devices {
        add("device", &format!("{name}{}", if *required { ",required" } else { "" }), "");
    }
    if let Some(script) = &exec.script {
        add("script", &format!("{}:{:?}", script.name, script.body), "");
    }
    for mount in &exec.mounts {
        add("mount", &format!("{}:{}", mount.target, described_mount(&mount.kind)), "");
    }
    for (name, value) in &exec.proxy_env {
        add("proxy", &format!("{name}:{value}"), "");
    }
    if show.contains(&"env") {
        let variables = exec.env.iter().filter(|(name, _)| name != "PATH");
        let variables: Vec<String> = variables.map(|(name, value)| format!("{name}={}", value.escape_debug())).collect();
        add("env", &format!("[{}]", variables.join(" ")), "[]");
    }
    text
}

fn described_mount(kind: &ExecMountKind) -> String {
    match kind {
        ExecMountKind::Bind { input, source, writable } => format!("bind({input} {source}{})", if *writable { " rw" } else { "" }),
        ExecMountKind::Cache { id, sharing, seed, subpath, mode, uid, gid, read_only } => {
            let seed = seed.as_ref().map_or_else(String::new, |(input, path)| format!(" seed {input} {path}"));
            let seed = subpath.as_ref().map_or(seed, |path| format!(" only {path}"));
            let read_only = if *read_only { " ro" } else { "" };
            format!("cache({id} {sharing:?} {mode:o} {uid}:{gid}{seed}{read_only})")
        }
        ExecMountKind::Tmpfs { size, .. } => format!("tmpfs({})", size.unwrap_or(0)),
        ExecMountKind::Ssh { id, required, mode, uid, gid } => format!("ssh({id} required={required} {mode:o} {uid}:{gid})"),
        ExecMountKind::Secret { id, env, file, required, mode, uid, gid } => {
            let env = env.as_ref().map_or_else(String::new, |env| format!(" as ${env}"));
            let file = if *file { format!(" file {mode:o} {uid}:{gid}") } else { String::new() };
            format!("secret({id}{env}{file}{})", if *required { " required" } else { "" })
        }
    }
}

fn described_copy(copy: &CopyOp) -> String {
    let mut text = "copy".to_owned();
    for source in &copy.sources {
        let _ = match source {
            CopySource::Path { input, pattern } => write!(text, " {input}:{pattern}"),
            CopySource::Download { input } => write!(text, " {input}:download"),
            CopySource::Inline { name, content } => write!(text, " {name}={content:?}"),
        };
    }
    let _ = write!(text, " to {:?}", copy.destination);
    if !copy.workdir.is_root() {
        let _ = write!(text, " in {}", copy.workdir);
    }
    for (name, value) in [("chown", &copy.chown), ("chmod", &copy.chmod)] {
        if let Some(value) = value {
            let _ = write!(text, " {name}={value}");
        }
    }
    for pattern in &copy.exclude {
        let _ = write!(text, " exclude={pattern}");
    }
    for (word, on) in [("parents", copy.parents), ("link", copy.link)] {
        if on {
            let _ = write!(text, " {word}");
        }
    }
    if copy.unpack != crate::graph::Unpack::Never {
        let _ = write!(text, " unpack={:?}", copy.unpack);
    }
    text
}

fn diagnostics(diagnostics: &[Diagnostic]) -> String {
    let mut text = String::new();
    for diagnostic in diagnostics {
        let kind = if diagnostic.is_error() { "error" } else { "warning" };
        let at = diagnostic.file.slice(diagnostic.span).escape_debug().to_string();
        let line = diagnostic.file.line(diagnostic.span.start());
        let _ = writeln!(text, "{kind} on line {line} at `{at}`: {}", diagnostic.message);
        if let Some(hint) = &diagnostic.hint {
            let _ = writeln!(text, "    hint: {hint}");
        }
    }
    text
}
