//! How long it takes to turn a Dockerfile of very many stages into a graph: parse and plan, on one core.
//!
//! The goal is 100 ms for 10,000 stages, whatever their shape: each built upon the one before, all copied from by the last, or none needed at all.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use divan::Bencher;
use strake::diag::SourceFile;
use strake::graph::{CheckScope, NamedContexts, NetworkMode, PlanRequest, Planned, ResolvedImages, plan};
use strake::oci::Platform;
use strake::parser::parse;

fn main() {
    divan::main();
}

const STAGES: usize = 10_000;

/// Every stage begins with the one before.
fn chain() -> String {
    let mut text = "FROM scratch AS s0\n".to_owned();
    for number in 1..STAGES {
        let _ = write!(text, "FROM s{} AS s{number}\nCOPY file{number} /files/\n", number - 1);
    }
    text
}

/// The last stage copies from all others.
fn fan_in() -> String {
    let mut text = String::new();
    for number in 0..STAGES - 1 {
        let _ = write!(text, "FROM scratch AS s{number}\nCOPY file{number} /\n");
    }
    text.push_str("FROM scratch\n");
    for number in 0..STAGES - 1 {
        let _ = writeln!(text, "COPY --from=s{number} /file{number} /files/");
    }
    text
}

/// Every stage copies from the two before.
fn lattice() -> String {
    let mut text = "FROM scratch AS s0\nFROM scratch AS s1\n".to_owned();
    for number in 2..STAGES {
        let _ = write!(text, "FROM scratch AS s{number}\nCOPY --from=s{} / /a\nCOPY --from=s{} / /b\n", number - 1, number - 2);
    }
    text
}

/// Only the last stage is needed; the others say what stages say.
fn independent() -> String {
    let mut text = "ARG VERSION=1\n".to_owned();
    for number in 0..STAGES {
        let _ = write!(
            text,
            "FROM scratch AS s{number}\nARG VERSION\nENV NUMBER={number}\nWORKDIR /src\nCOPY . .\nRUN make VERSION=$VERSION\nCMD [\"/app\"]\n"
        );
    }
    text
}

type Shape = (&'static str, fn() -> String);

const SHAPES: [Shape; 4] = [("chain", chain), ("fan_in", fan_in), ("lattice", lattice), ("independent", independent)];

fn text(name: &str) -> SourceFile {
    let text = SHAPES.into_iter().find(|(shape, _)| *shape == name).map(|(_, text)| text()).unwrap_or_default();
    SourceFile::new("Dockerfile", text)
}

fn to_graph(file: &SourceFile) -> Planned {
    let parsed = parse(file);
    assert!(parsed.diagnostics.is_empty(), "{:?}", parsed.diagnostics.first().map(|diagnostic| &diagnostic.message));
    let linux = || Platform::new("linux", "amd64", None);
    let request = PlanRequest {
        dockerfile: &parsed.dockerfile,
        target: None,
        build_args: &BTreeMap::new(),
        labels: &[],
        contexts: NamedContexts::NONE,
        target_platform: linux(),
        implicit_platform: false,
        one_of_several: false,
        build_platform: linux(),
        network: NetworkMode::Default,
        extra_hosts: std::sync::Arc::default(),
        entitlements: strake::graph::Entitlements::ALL,
        no_cache: false,
        no_cache_filter: &[],
        checks: CheckScope::default(),
    };
    match plan(&request, &ResolvedImages::new()) {
        Ok(planned @ Planned::Ready(_)) => planned,
        Ok(Planned::NeedsImages(needs)) => panic!("{} images are needed", needs.len()),
        Err(diagnostics) => panic!("{:?}", diagnostics.first().map(|diagnostic| &diagnostic.message)),
    }
}

#[divan::bench(args = SHAPES.map(|(name, _)| name), sample_count = 10)]
fn parse_and_plan(bencher: Bencher<'_, '_>, name: &str) {
    let file = text(name);
    bencher.bench_local(|| to_graph(&file));
}

#[divan::bench(args = SHAPES.map(|(name, _)| name), sample_count = 10)]
fn parse_only(bencher: Bencher<'_, '_>, name: &str) {
    let file = text(name);
    bencher.bench_local(|| parse(&file));
}
