//! The build checks, from text to what is told: the cases of `testdata/checks`, and the examples of `docs/checks.md`.

use std::collections::BTreeMap;
use std::path::Path;

use super::*;
use crate::diag::RULES;
use crate::graph::NetworkMode;
use crate::parser::parse;

/// What a Dockerfile is checked with.
#[derive(Clone, Default)]
struct Given {
    target: Option<String>,
    /// Only what the target reaches, although none is named.
    build: bool,
    args: BTreeMap<String, String>,
    ignore: String,
    bases: BTreeMap<String, ImageConfig>,
}

impl Given {
    /// Reads an option of a case.
    fn option(&mut self, line: &str) {
        match line.split_once(' ').unwrap_or((line, "")) {
            ("build", "") => self.build = true,
            ("target", name) => self.target = Some(name.to_owned()),
            ("arg", pair) => {
                let (name, value) = pair.split_once('=').unwrap();
                self.args.insert(name.to_owned(), value.to_owned());
            }
            ("ignore", pattern) => self.ignore.push_str(&format!("{pattern}\n")),
            ("base", rest) => {
                let mut words = rest.split(' ');
                let name = words.next().unwrap().to_owned();
                let mut config = ImageConfig::empty(&"linux/amd64".parse().unwrap());
                for (key, value) in words.map(|word| word.split_once('=').unwrap()) {
                    let value = value.replace('_', " ");
                    match key {
                        "arch" => config.architecture = value,
                        "env" => config.config.env.push(value.replace(' ', "_")),
                        "shell" => config.config.shell = vec![value],
                        "onbuild" => config.config.on_build.push(value),
                        other => panic!("no option {other}"),
                    }
                }
                self.bases.insert(name, config);
            }
            (other, _) => panic!("no option {other}"),
        }
    }

    /// All that `--check` finds, as a case writes it.
    fn check(&self, text: &str) -> Vec<String> {
        let found = self.report(text);
        let mut lines: Vec<String> =
            found.findings.iter().map(|(finding, lines)| format!("{} {}", lines.start(), finding.rule.unwrap().0)).collect();
        lines.extend(found.error.map(|(error, _)| match error {
            Error::Diagnostics(list) => format!("error {}", list.iter().map(|d| d.message.as_str()).collect::<Vec<_>>().join("; ")),
            other => format!("error {other}"),
        }));
        lines
    }

    fn report(&self, text: &str) -> CheckReport {
        let file = SourceFile::new("Dockerfile", text);
        let parsed = parse(&file);
        let argument = self.args.get(CHECK_ARGUMENT).map(String::as_str);
        let checks = match Checks::new(&parsed.dockerfile, argument) {
            Ok(checks) => checks,
            Err(error) => {
                let error = Some((Error::Diagnostics(vec![error]), None));
                return CheckReport { file, findings: Vec::new(), notes: Vec::new(), error };
            }
        };
        let broken = parsed.diagnostics.iter().any(Diagnostic::is_error);
        let mut found = Found { diagnostics: parsed.diagnostics, image: None };
        found.diagnostics.extend(lint(&parsed.dockerfile));
        if !broken {
            found.diagnostics.extend(self.plan(&parsed.dockerfile));
        }
        report(&file, &checks, found)
    }

    fn plan(&self, dockerfile: &Dockerfile) -> Vec<Diagnostic> {
        let rules = IgnoreRules::parse(&self.ignore, ".dockerignore").unwrap();
        let rules = LazyRules { directory: None, dockerfile: None, rules: OnceCell::from(Some(rules)) };
        let ignored = |path: &str| rules.hide(path);
        let platform: Platform = "linux/amd64".parse().unwrap();
        let all_stages = self.target.is_none() && !self.build;
        let request = PlanRequest {
            dockerfile,
            target: self.target.as_deref(),
            build_args: &self.args,
            labels: &[],
            contexts: graph::NamedContexts::NONE,
            implicit_platform: true,
            one_of_several: false,
            target_platform: platform.clone(),
            build_platform: platform,
            network: NetworkMode::Default,
            extra_hosts: std::sync::Arc::default(),
            entitlements: crate::graph::Entitlements::ALL,
            no_cache: false,
            no_cache_filter: &[],
            checks: CheckScope { all_stages, ignored: Some(&ignored) },
        };
        let mut images = ResolvedImages::new();
        loop {
            match graph::plan(&request, &images) {
                Ok(Planned::Ready(graph)) => return graph.warnings.clone(),
                Err(found) => return found,
                Ok(Planned::NeedsImages(needs)) => {
                    for need in needs {
                        let mut image = unknown_image(&need);
                        if let Some(config) = self.bases.get(need.reference.written()) {
                            image.config = config.clone();
                        }
                        images.insert(need.key(), image);
                    }
                }
            }
        }
    }
}

/// Whether what was found is what was expected; an expected error is a part of the message.
fn agree(expected: &[&str], found: &[String]) -> bool {
    let same = |expected: &str, found: &str| match (expected.strip_prefix("error "), found.strip_prefix("error ")) {
        (Some(part), Some(message)) => message.contains(part),
        _ => expected == found,
    };
    expected.len() == found.len() && expected.iter().zip(found).all(|(expected, found)| same(expected, found))
}

#[test]
fn every_case_finds_what_it_claims() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/checks");
    let (mut cases, mut failures) = (0, String::new());
    for entry in std::fs::read_dir(root).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "txt") {
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        for case in text.split("### ").filter(|case| !case.is_empty()) {
            let (claim, rest) = case.split_once('\n').unwrap();
            let (mut dockerfile, expected) = rest.split_once("---\n").unwrap_or_else(|| panic!("{claim} has no end"));
            let mut given = Given::default();
            while let Some(option) = dockerfile.strip_prefix("% ") {
                let (option, rest) = option.split_once('\n').unwrap();
                given.option(option);
                dockerfile = rest;
            }
            let (expected, found) = (expected.lines().collect::<Vec<_>>(), given.check(dockerfile));
            cases += 1;
            if !agree(&expected, &found) {
                failures.push_str(&format!("{}: {claim}\n  expected {expected:?}\n  found    {found:?}\n", path.display()));
            }
        }
    }
    assert!(failures.is_empty(), "{failures}");
    assert!(cases >= 120, "only {cases} cases");
}

/// What the examples of a rule need beyond the Dockerfile.
fn needs(rule: &str) -> Given {
    let mut given = Given::default();
    match rule {
        "CopyIgnoredFile" => given.option("ignore *.log"),
        "InvalidBaseImagePlatform" => given.option("base example/tool:arm64 arch=arm64"),
        "InvalidDefaultArgInFrom" => given.option("arg VERSION=3.20"),
        // What is off by default is on in its own examples only.
        "InvalidDefinitionDescription" | "InvalidExecForm" => given.option(&format!("arg {CHECK_ARGUMENT}=experimental={rule}")),
        _ => {}
    }
    given
}

/// The two examples of a section: what stands in its blocks of code behind `Bad:` and `Good:`.
fn example<'a>(section: &'a str, which: &str) -> Option<&'a str> {
    let (_, rest) = section.split_once(&format!("\n{which}:\n\n```dockerfile\n"))?;
    Some(rest.split_once("```")?.0)
}

#[test]
fn every_rule_is_explained_by_a_bad_example_that_it_finds_and_a_good_one() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/checks.md");
    let page = std::fs::read_to_string(path).unwrap();
    for rule in RULES {
        let name = rule.id.0;
        let (_, section) = page.split_once(&format!("\n## {name}\n")).unwrap_or_else(|| panic!("no section {name}"));
        let section = section.split("\n## ").next().unwrap();
        let given = needs(name);
        let bad = given.check(example(section, "Bad").unwrap_or_else(|| panic!("{name} has no bad example")));
        assert!(!bad.is_empty() && bad.iter().all(|found| found.ends_with(&format!(" {name}"))), "{name}, bad: {bad:?}");
        let good = given.check(example(section, "Good").unwrap_or_else(|| panic!("{name} has no good example")));
        assert!(good.is_empty(), "{name}, good: {good:?}");
    }
    let sections = page.lines().filter(|line| line.starts_with("## ")).count();
    assert_eq!(sections, RULES.len(), "a section that is about no rule");
}

#[test]
fn names_of_rules_that_do_not_exist_are_noted_with_the_likely_one() {
    let report = Given::default().report("# check=skip=JSONArgsRecomended,Unheard\nFROM scratch\n");
    let notes: Vec<_> = report.notes.iter().map(|note| (note.message.as_str(), note.hint.as_deref())).collect();
    let expected = [
        ("there is no build check `JSONArgsRecomended`", Some("did you mean `JSONArgsRecommended`?")),
        ("there is no build check `Unheard`", None),
    ];
    assert_eq!(notes, expected);
    assert!(report.error.is_none());
}

#[test]
fn options_point_at_what_is_wrong() {
    let text = "# check=skip=all;errr=true\nFROM scratch\n";
    let Some((Error::Diagnostics(list), _)) = Given::default().report(text).error else { panic!("no error") };
    assert_eq!((list[0].file.slice(list[0].span), list[0].hint.as_deref()), ("errr", Some("did you mean `error`?")));
}

#[test]
fn the_lines_are_those_of_the_whole_instruction() {
    let text = "FROM scratch\nLABEL a=1 \\\n  b=$x\nCOPY <<A /$y\n$z\nA\nCOPY a \\\n\n  <<B /\nb\nB\n";
    let report = Given::default().report(text);
    let lines: Vec<_> = report.findings.iter().map(|(finding, lines)| (finding.rule.unwrap().0, lines.clone())).collect();
    assert_eq!(lines, [("UndefinedVar", 2..=3), ("UndefinedVar", 4..=6), ("UndefinedVar", 4..=6), ("NoEmptyContinuation", 9..=9)]);
}

#[test]
fn more_findings_than_anyone_reads_are_not_kept() {
    let text = format!("FROM scratch\n{}", "ENV A=$B\n".repeat(20_000));
    assert_eq!(Given::default().report(&text).findings.len(), crate::diag::MAX_SHOWN);
}
