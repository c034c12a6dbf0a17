//! Which frontends are built in, and what `BUILDKIT_SYNTAX` changes.

use crate::diag::SourceFile;
use crate::parser::*;

fn mistakes(text: &str, syntax: Option<&str>) -> Vec<String> {
    let parsed = parse_with(&SourceFile::new("Dockerfile", text), ParseOptions { syntax });
    parsed.diagnostics.into_iter().filter(|diagnostic| diagnostic.is_error()).map(|diagnostic| diagnostic.message).collect()
}

#[test]
fn every_version_of_the_dockerfile_frontend_is_built_in() {
    for image in [
        "docker/dockerfile",
        "docker/dockerfile:1",
        "docker/dockerfile:1.4-labs",
        "docker/dockerfile@sha256:00",
        "docker/dockerfile:1@sha256:00",
        "docker.io/docker/dockerfile:1.7",
        "index.docker.io/docker/dockerfile",
        "docker/dockerfile-upstream:master",
    ] {
        assert!(is_built_in(image), "{image}");
    }
    for image in [
        "",
        "dockerfile",
        "docker/dockerfilex",
        "docker/dockerfile-x:1",
        "docker/dockerfile/x",
        "ghcr.io/docker/dockerfile:1",
        "index.docker/dockerfile",
        "index.ghcr.io/docker/dockerfile",
        "library/docker/dockerfile",
        "Docker/Dockerfile",
    ] {
        assert!(!is_built_in(image), "{image}");
    }
}

#[test]
fn the_build_argument_replaces_what_the_file_says() {
    let foreign = "# syntax=example.com/other\nFROM scratch\n";
    assert_eq!(mistakes(foreign, None), ["the frontend `example.com/other` is not supported"]);
    assert_eq!(mistakes(foreign, Some("docker/dockerfile:1.9 --flag")), [""; 0]);
    let own = "# syntax=docker/dockerfile:1\nFROM scratch\nCOPPY\n";
    let message = "the frontend `example.com/other:1`, which `BUILDKIT_SYNTAX` asks for, is not supported";
    assert_eq!(mistakes(own, Some(" example.com/other:1 x ")), [message]);
    assert_eq!(mistakes(own, Some("")).len(), 1, "no frontend at all is none of ours");
}

#[test]
fn a_foreign_frontend_is_the_only_mistake() {
    let parsed = parse(&SourceFile::new("Dockerfile", "# syntax=example.com/other\nwhat: ever\n"));
    assert_eq!(parsed.diagnostics.len(), 1);
    assert!(parsed.dockerfile.stages.is_empty() && parsed.dockerfile.global_args.is_empty());
}
