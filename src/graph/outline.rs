//! What a build takes: the arguments, secrets, SSH agents and caches of the stages that the target reaches, and the targets of a file.
//!
//! This reads the same tree as the planner, but plans nothing: it never fails for an instruction that it need not understand, and works without the configs of
//! base images (then an argument's default that uses a variable of the base is shown without it). Which arguments are listed is BuildKit's choice: those that a reached stage
//! declares or its `FROM` uses, with what their defaults are made of; not the predefined ones.

use std::collections::{BTreeMap, BTreeSet};

use super::lower::expand_word;
use super::plan::PlanRequest;
use super::scope::{BuildArgs, Environment, platform_args};
use super::stages::{Origin, StageNames, froms};
use crate::diag::{Diagnostic, Span};
use crate::oci::{Platform, Reference};
use crate::parser::{self, ArgDeclaration, Dockerfile, Instruction, Mode, RunMount, RunMountKind, Statement, Word};
use crate::path::RootPath;

/// What the target of a build takes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outline {
    /// The target's name, if it has one.
    pub name: Option<String>,
    /// What the comment above it says.
    pub description: Option<String>,
    /// The arguments, in the order of the file.
    pub args: Vec<OutlineArg>,
    /// The secrets.
    pub secrets: Vec<OutlineMount>,
    /// The SSH agents.
    pub ssh: Vec<OutlineMount>,
    /// The cache mounts.
    pub caches: Vec<OutlineMount>,
}

/// An argument.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutlineArg {
    /// Its name.
    pub name: String,
    /// Its value in this build: the one given, or the default.
    pub value: Option<String>,
    /// What the comment above it says.
    pub description: Option<String>,
    /// The instruction that declares it.
    pub span: Span,
}

/// A secret, SSH agent or cache that a step wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutlineMount {
    /// Its name.
    pub name: String,
    /// Whether the step fails without it.
    pub required: bool,
    /// The step.
    pub span: Span,
}

/// One stage of a file, as `--call=targets` lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Its name, if it has one.
    pub name: Option<String>,
    /// Whether it is built when none is named.
    pub default: bool,
    /// What the comment above it says.
    pub description: Option<String>,
    /// What it starts from, as written.
    pub base: String,
    /// Its `--platform`, as written.
    pub platform: Option<String>,
    /// Its `FROM`.
    pub span: Span,
}

/// All stages of a file.
pub fn targets(dockerfile: &Dockerfile) -> Vec<Target> {
    let last = dockerfile.stages.len().saturating_sub(1);
    let target = |(index, stage): (usize, &parser::Stage)| {
        let name = stage.from.name.as_ref().map(|name| name.name.to_string());
        Target {
            description: name.as_deref().and_then(|name| description(&stage.statement, name)),
            name,
            default: index == last,
            base: stage.from.image.text.to_string(),
            platform: stage.from.platform.as_ref().map(|platform| platform.text.to_string()),
            span: stage.statement.span,
        }
    };
    dockerfile.stages.iter().enumerate().map(target).collect()
}

/// What the target of `request` takes. `base_env` gives the environment of a base image, where it is known.
///
/// # Errors
/// The target does not exist.
pub fn outline(
    request: &PlanRequest<'_>,
    base_env: &mut dyn FnMut(&Reference, &Platform) -> Option<Vec<String>>,
) -> Result<Outline, Box<Diagnostic>> {
    let dockerfile = request.dockerfile;
    let names = StageNames::new(dockerfile, request.contexts, &request.target_platform);
    let target = names.target(request.target).map_err(Box::new)?;
    let mut reader = Reader::new(request);
    let (reached, bases) = reader.reach(&names, target);
    let mut environments: BTreeMap<usize, Environment> = BTreeMap::new();
    let mut outlines: BTreeMap<usize, StageOutline> = BTreeMap::new();
    for index in &reached {
        let stage = &dockerfile.stages[*index];
        let env = match bases.get(index) {
            Some(Origin::Stage(base)) => environments.get(base).cloned().unwrap_or_default(),
            Some(Origin::Image { reference, .. }) => {
                Environment::from_entries(&base_env(reference, &request.target_platform).unwrap_or_default())
            }
            _ => Environment::default(),
        };
        let mut of_stage = StageOutline { env, ..StageOutline::default() };
        reader.use_in_from(&stage.from.image, &mut of_stage);
        stage.from.platform.iter().for_each(|word| reader.use_in_from(word, &mut of_stage));
        stage.instructions.iter().for_each(|statement| reader.statement(statement, &mut of_stage));
        environments.insert(*index, std::mem::take(&mut of_stage.env));
        outlines.insert(*index, of_stage);
    }
    // The target comes first, then what it starts from, then the rest: the first to name an argument says what it is.
    let mut order = vec![target];
    while let Some(Origin::Stage(base)) = order.last().and_then(|index| bases.get(index)) {
        order.push(*base);
    }
    order.extend(reached.iter().rev().filter(|index| !order.contains(index)).copied().collect::<Vec<_>>());
    let stage = &dockerfile.stages[target];
    let name = stage.from.name.as_ref().map(|name| name.name.to_string());
    let description = name.as_deref().and_then(|name| description(&stage.statement, name));
    let mut outline = Outline { name, description, ..Outline::default() };
    for of_stage in order.iter().filter_map(|index| outlines.remove(index)) {
        reader.collect(of_stage, &mut outline);
    }
    outline.args.sort_by_key(|arg| arg.span.start());
    for mounts in [&mut outline.secrets, &mut outline.ssh, &mut outline.caches] {
        mounts.sort_by_key(|mount| mount.span.start());
    }
    Ok(outline)
}

/// A global argument.
struct Global {
    arg: OutlineArg,
    /// The arguments that its default uses.
    uses: BTreeSet<String>,
}

/// What one stage takes.
#[derive(Default)]
struct StageOutline {
    env: Environment,
    /// The arguments that it declares itself.
    own: BTreeMap<String, OutlineArg>,
    /// All that it declares or uses, in that order.
    used: Vec<String>,
    secrets: Vec<OutlineMount>,
    ssh: Vec<OutlineMount>,
    caches: Vec<OutlineMount>,
}

struct Reader<'a> {
    request: &'a PlanRequest<'a>,
    args: BuildArgs<'a>,
    global_env: Environment,
    globals: BTreeMap<String, Global>,
}

impl<'a> Reader<'a> {
    fn new(request: &'a PlanRequest<'a>) -> Reader<'a> {
        let mut args = BuildArgs::new(request.build_args);
        let stage = request.target.unwrap_or("default");
        let global_env = platform_args(&request.build_platform, &request.target_platform, stage, &mut args);
        let mut reader = Reader { request, args, global_env, globals: BTreeMap::new() };
        for statement in &request.dockerfile.global_args {
            let Instruction::Arg(declarations) = &statement.instruction else { continue };
            declarations.iter().for_each(|declaration| reader.declare_global(statement, declaration));
        }
        reader
    }

    fn declare_global(&mut self, statement: &Statement, declaration: &ArgDeclaration) {
        let name = declaration.name.text.to_string();
        let given = self.args.get(&name).map(str::to_owned);
        let mut uses = BTreeSet::new();
        let value = match (given, &declaration.default) {
            (Some(given), _) => Some(given),
            (None, Some(default)) => {
                uses = self.set_in(default, &self.global_env);
                self.expand(default, &self.global_env)
            }
            (None, None) => None,
        };
        if uses.remove(&name)
            && let Some(before) = self.globals.get(&name)
        {
            uses.extend(before.uses.iter().cloned());
        }
        if let Some(value) = &value {
            self.global_env.set(&name, value);
        }
        let arg = OutlineArg { description: description(statement, &name), name: name.clone(), value, span: statement.span };
        self.globals.insert(name, Global { arg, uses });
    }

    /// The stages that the target reaches, in the order of the file, and what they start from.
    fn reach(&self, names: &StageNames<'_>, target: usize) -> (Vec<usize>, BTreeMap<usize, Origin>) {
        let (mut reached, mut bases) = (BTreeSet::new(), BTreeMap::new());
        let mut todo = vec![target];
        while let Some(index) = todo.pop() {
            if !reached.insert(index) {
                continue;
            }
            let stage = &self.request.dockerfile.stages[index];
            let name = self.expand(&stage.from.image, &self.global_env).unwrap_or_default();
            if let Ok(base) = names.base(index, &name, &stage.from.image, None) {
                if let Origin::Stage(base) = base {
                    todo.push(base);
                }
                bases.insert(index, base);
            }
            for (of, from) in froms(stage) {
                if let Ok(Origin::Stage(source)) = names.named(&from, of) {
                    todo.push(source);
                }
            }
        }
        (reached.into_iter().collect(), bases)
    }

    fn use_in_from(&self, word: &Word, stage: &mut StageOutline) {
        stage.used.extend(self.set_in(word, &self.global_env));
    }

    fn statement(&mut self, statement: &Statement, stage: &mut StageOutline) {
        match &statement.instruction {
            Instruction::Arg(declarations) => declarations.iter().for_each(|declaration| self.declare(statement, declaration, stage)),
            Instruction::Env(pairs) => {
                let before = stage.env.clone();
                for pair in pairs {
                    if let (Some(key), Some(value)) = (self.expand(&pair.key, &before), self.expand(&pair.value, &before)) {
                        stage.env.set(&key, &value);
                    }
                }
            }
            Instruction::Run(run) => run.mounts.iter().for_each(|mount| self.mount(statement, mount, stage)),
            _ => {}
        }
    }

    fn declare(&mut self, statement: &Statement, declaration: &ArgDeclaration, stage: &mut StageOutline) {
        let Some(name) = self.expand(&declaration.name, &stage.env) else { return };
        let given = self.args.get(&name).map(str::to_owned);
        let inherited = self.global_env.get(&name).map(str::to_owned).filter(|_| given.is_none() && declaration.default.is_none());
        let is_inherited = inherited.is_some();
        let value = match (given, &declaration.default) {
            (Some(given), _) => Some(given),
            (None, Some(default)) => self.expand(default, &stage.env),
            (None, None) => inherited,
        };
        if let Some(value) = &value {
            stage.env.set(&name, value);
        }
        if !is_inherited {
            let arg = OutlineArg { description: description(statement, &name), name: name.clone(), value, span: statement.span };
            stage.own.insert(name.clone(), arg);
        }
        stage.used.push(name);
    }

    fn mount(&self, statement: &Statement, word: &Word, stage: &mut StageOutline) {
        let dockerfile = self.request.dockerfile;
        let escape = dockerfile.directives.escape;
        let mut expand = |text: &str| parser::expand(text, escape, &stage.env, Mode::Word).map(|expanded| expanded.text);
        let Ok(mount) = RunMount::resolve(word, &dockerfile.file, &mut expand) else { return };
        let target = mount.target.as_deref().map(RootPath::new);
        let last = || target.as_ref().and_then(|path| path.file_name()).map(|name| name.to_string_lossy().into_owned());
        let (list, name, required) = match mount.kind {
            RunMountKind::Secret { id, required, .. } => (&mut stage.secrets, id.or_else(last), required),
            RunMountKind::Ssh { id, required, .. } => (&mut stage.ssh, Some(id.unwrap_or_else(|| "default".to_owned())), required),
            RunMountKind::Cache { id, .. } => (&mut stage.caches, id.or_else(|| target.as_ref().map(RootPath::to_string)), false),
            _ => return,
        };
        let found = OutlineMount { name: name.unwrap_or_default(), required, span: statement.span };
        match list.iter_mut().find(|known| known.name == found.name) {
            // As in BuildKit, the last one of a stage counts.
            Some(known) => *known = found,
            None => list.push(found),
        }
    }

    /// Adds what a stage takes to what other stages take.
    fn collect(&self, stage: StageOutline, outline: &mut Outline) {
        let mut seen = BTreeSet::new();
        let mut todo = stage.used;
        while let Some(name) = todo.pop() {
            if !seen.insert(name.clone()) {
                continue;
            }
            let global = self.globals.get(&name);
            todo.extend(global.iter().flat_map(|global| global.uses.iter().cloned()));
            let Some(arg) = stage.own.get(&name).or(global.map(|global| &global.arg)) else { continue };
            if !outline.args.iter().any(|known| known.name == name) {
                outline.args.push(arg.clone());
            }
        }
        for (from, to) in [(stage.secrets, &mut outline.secrets), (stage.ssh, &mut outline.ssh), (stage.caches, &mut outline.caches)] {
            for mount in from {
                if !to.iter().any(|known| known.name == mount.name) {
                    to.push(mount);
                }
            }
        }
    }

    fn expand(&self, word: &Word, env: &Environment) -> Option<String> {
        expand_word(word, self.request.dockerfile.directives.escape, env).ok().map(|expanded| expanded.text)
    }

    /// The variables that a word uses and that are set.
    fn set_in(&self, word: &Word, env: &Environment) -> BTreeSet<String> {
        let names = word.variables(self.request.dockerfile.directives.escape);
        names.into_iter().filter(|name| env.get(name).is_some()).map(str::to_owned).collect()
    }
}

/// What the comment above a statement says of `name`: the line that begins with the name.
fn description(statement: &Statement, name: &str) -> Option<String> {
    let rest = |line: &str| line.strip_prefix(name)?.strip_prefix(' ').map(str::to_owned);
    statement.comment.as_deref()?.lines().find_map(rest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diag::SourceFile;
    use crate::graph::{CheckScope, NamedContexts, NetworkMode};
    use crate::parser::parse;

    fn outlined(text: &str, args: &[(&str, &str)], env: &[&str]) -> Outline {
        let parsed = parse(&SourceFile::new("Dockerfile", text));
        let platform: Platform = "linux/amd64".parse().unwrap();
        let request = PlanRequest {
            dockerfile: &parsed.dockerfile,
            target: None,
            build_args: &args.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
            labels: &[],
            contexts: NamedContexts::NONE,
            implicit_platform: true,
            one_of_several: false,
            target_platform: platform.clone(),
            build_platform: platform,
            network: NetworkMode::Default,
            extra_hosts: std::sync::Arc::default(),
            entitlements: crate::graph::Entitlements::ALL,
            no_cache: false,
            no_cache_filter: &[],
            checks: CheckScope::default(),
        };
        outline(&request, &mut |_, _| Some(env.iter().map(|entry| (*entry).to_owned()).collect())).unwrap()
    }

    fn values(outline: &Outline) -> Vec<(&str, Option<&str>)> {
        outline.args.iter().map(|arg| (arg.name.as_str(), arg.value.as_deref())).collect()
    }

    #[test]
    fn global_arguments_are_listed_where_they_are_used_with_what_they_are_made_of() {
        let text = "ARG A=1\nARG B=${A}2\nARG UNUSED=x\nARG C\nFROM base:$B\nARG C\nARG TARGETARCH\n";
        let outline = outlined(text, &[], &[]);
        assert_eq!(values(&outline), [("A", Some("1")), ("B", Some("12")), ("C", None)]);
        assert_eq!(values(&outlined(text, &[("B", "7")], &[])), [("B", Some("7")), ("C", None)]);
    }

    #[test]
    fn defaults_see_the_environment_of_the_stage() {
        let text = "FROM base AS one\nENV X=/x\nFROM one\nARG P=$X/$Y\n";
        assert_eq!(values(&outlined(text, &[], &["Y=y"])), [("P", Some("/x/y"))]);
    }

    #[test]
    fn only_what_the_target_reaches_counts() {
        let text =
            "FROM a AS one\nARG ONE\nRUN --mount=type=secret,id=s true\nFROM b AS two\nARG TWO\nFROM c\nCOPY --from=one / /\nARG THREE\n";
        let outline = outlined(text, &[], &[]);
        assert_eq!(values(&outline), [("ONE", None), ("THREE", None)]);
        assert_eq!(outline.secrets.iter().map(|secret| secret.name.as_str()).collect::<Vec<_>>(), ["s"]);
    }

    #[test]
    fn mounts_get_the_names_that_they_have_without_an_id() {
        let text = "FROM a\nRUN --mount=type=secret,target=/run/x/token --mount=type=ssh --mount=type=cache,target=/c/d true\n";
        let outline = outlined(text, &[], &[]);
        let name = |mounts: &[OutlineMount]| mounts.iter().map(|mount| mount.name.clone()).collect::<Vec<_>>();
        assert_eq!(
            (name(&outline.secrets), name(&outline.ssh), name(&outline.caches)),
            (vec!["token".into()], vec!["default".into()], vec!["/c/d".into()])
        );
    }
}
