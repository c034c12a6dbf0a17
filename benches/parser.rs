//! How fast Dockerfile text becomes a syntax tree: lexing and instruction parsing, on one core.
//!
//! The text is made up, but of what real files are made of: continuations, comments, flags, mounts, heredocs, lists, exec forms. `mixed` is what the
//! project's goal of 200 MB/s is measured with; the others show what a single kind of instruction costs. Dropping the tree is not measured.

use divan::Bencher;
use divan::counter::BytesCount;
use strake::diag::SourceFile;
use strake::parser::{lint, parse};

fn main() {
    divan::main();
}

/// One stage of each text has about this many bytes; a file has as many stages as make [`SIZE`].
const STAGE: &str = r#"
# Compiles the program: everything that it needs is mounted, so that no layer holds a cache.
FROM --platform=$BUILDPLATFORM docker.io/library/rust:${RUST_VERSION}-slim-bookworm@sha256:5b9332190bb3b9ece73b810cd1f1e9f06343b294ce184bcb067f0747d7d333ea AS build-@
ARG TARGETARCH TARGETVARIANT
ARG FEATURES="default,tls,http2"
WORKDIR /usr/src/application
RUN apt-get update \
    && apt-get install -y --no-install-recommends \
        build-essential \
        ca-certificates \
        clang \
        cmake \
        curl \
        git \
        libclang-dev \
        libpq-dev \
        libssl-dev \
        # for the documentation
        pandoc \
        pkg-config \
        protobuf-compiler \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt/archives/*.deb
COPY --link Cargo.toml Cargo.lock rust-toolchain.toml ./
COPY --link --chown=1000:1000 --chmod=0644 src/ ./src/
RUN --mount=type=cache,target=/usr/local/cargo/registry,sharing=locked \
    --mount=type=cache,target=/usr/src/application/target,id=target-$TARGETARCH \
    --mount=type=bind,source=build.rs,target=build.rs,readonly \
    --mount=type=secret,id=token,target=/run/secrets/token,required \
    set -eux; \
    cargo build --release --locked --features "${FEATURES}" --target-dir target; \
    install -D -m 0755 target/release/application /out/usr/bin/application; \
    for file in LICENSE README.md CHANGELOG.md; do \
        install -D -m 0644 "$file" "/out/usr/share/doc/application/$file"; \
    done
RUN <<EOF
set -e
cat > /out/etc/application.conf <<CONF
listen = 0.0.0.0:8080
workers = 16
log_level = "info"
CONF
mkdir -p /out/var/lib/application /out/var/log/application
chown -R 1000:1000 /out/var/lib/application /out/var/log/application
EOF

# What is left of it.
FROM docker.io/library/debian:bookworm-slim AS run-@
LABEL org.opencontainers.image.title="application" \
      org.opencontainers.image.description="A server that answers requests, and does not much else" \
      org.opencontainers.image.source=https://example.com/organisation/application \
      org.opencontainers.image.licenses=Apache-2.0 \
      org.opencontainers.image.version=${VERSION:-0.0.0}
ENV PATH=/opt/application/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    LANG=C.UTF-8 \
    APPLICATION_HOME=/var/lib/application APPLICATION_LOG="/var/log/application/server log.txt"
ENV GREETING hello, world; this is the old form
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
RUN groupadd --gid 1000 application && useradd --uid 1000 --gid application --home-dir "$APPLICATION_HOME" application
COPY --from=build-@ --chown=application:application /out/ /
COPY <<-"SETTINGS" /etc/application/settings.toml
	[server]
	address = "0.0.0.0:8080"
	timeout = 30
SETTINGS
ADD --checksum=sha256:24454f830cdb571e2c4ad15481119c43b3cafd48dd869a9b2945d1036d1dc68d https://example.com/models/small.bin /opt/models/
ONBUILD RUN application check --strict /etc/application/settings.toml
VOLUME ["/var/lib/application", "/var/log/application"]
EXPOSE 8080/tcp 8443/tcp 9090
USER application
STOPSIGNAL SIGINT
HEALTHCHECK --interval=30s --timeout=3s --start-period=10s --retries=3 CMD ["application", "health", "--quiet"]
ENTRYPOINT ["/usr/bin/application", "serve"]
CMD ["--config", "/etc/application/settings.toml", "--workers", "16"]
"#;

const SIZE: usize = 4 << 20;

fn file(head: &str, unit: &str) -> SourceFile {
    let mut text = head.to_owned();
    for number in 0.. {
        if text.len() >= SIZE {
            break;
        }
        text.push_str(&unit.replace('@', &number.to_string()));
    }
    SourceFile::new("Dockerfile", text)
}

/// Parses `file`, which has no mistakes.
fn measure(bencher: Bencher<'_, '_>, file: &SourceFile) {
    assert!(parse(file).diagnostics.is_empty(), "a text that is measured has a mistake");
    bencher.counter(BytesCount::new(file.text().len())).bench_local(|| parse(file));
}

#[divan::bench(sample_count = 20)]
fn mixed(bencher: Bencher<'_, '_>) {
    let head = "# syntax=docker/dockerfile:1\n\nARG RUST_VERSION=1.95\nARG VERSION\n";
    measure(bencher, &file(head, STAGE));
}

#[divan::bench(sample_count = 20)]
fn mixed_with_checks(bencher: Bencher<'_, '_>) {
    let file = file("ARG RUST_VERSION=1.95\nARG VERSION\n", STAGE);
    bencher.counter(BytesCount::new(file.text().len())).bench_local(|| {
        let parsed = parse(&file);
        let warnings = lint(&parsed.dockerfile).len();
        (parsed, warnings)
    });
}

/// Kinds of instructions, each repeated.
const KINDS: [(&str, &str); 12] = [
    ("comments", "# A line that says something about the next, at some length, as people do.\nUSER root\n"),
    ("run", "RUN make --jobs=8 --keep-going PREFIX=/usr/local DESTDIR=/out install && make clean\n"),
    (
        "run_continued",
        "RUN set -eux; \\\n    apt-get update; \\\n    apt-get install -y one two three; \\\n    rm -rf /var/lib/apt/lists/*\n",
    ),
    ("run_mount", "RUN --mount=type=cache,target=/root/.cache --mount=type=secret,id=token make\n"),
    ("run_heredoc", "RUN <<EOF\nset -e\nfor i in 1 2 3; do\n  echo \"number $i\" >> /numbers.txt\ndone\nEOF\n"),
    ("copy", "COPY --link --chown=1000:1000 package.json package-lock.json tsconfig.json ./\n"),
    ("copy_json", "COPY [\"a file.txt\", \"another file.txt\", \"/destination directory/\"]\n"),
    ("env", "ENV NAME=value OTHER=\"a value with blanks\" THIRD=/usr/local/bin:$PATH\n"),
    ("label", "LABEL org.opencontainers.image.title=\"application\" org.opencontainers.image.version=1.2.3\n"),
    ("exec", "CMD [\"--config\", \"/etc/application/settings.toml\", \"--workers\", \"16\"]\n"),
    ("expose", "EXPOSE 8080/tcp 8443/tcp 9090\n"),
    ("from", "FROM docker.io/library/debian:bookworm-slim AS stage-@\n"),
];

#[divan::bench(args = KINDS.map(|(name, _)| name), sample_count = 10)]
fn kind(bencher: Bencher<'_, '_>, name: &str) {
    let unit = KINDS.into_iter().find(|(kind, _)| *kind == name).map_or("", |(_, unit)| unit);
    measure(bencher, &file("FROM scratch\n", unit));
}
