# `make` shows what Strake does, `make test` runs every check, `make bench` compares with peers.
# A machine with Debian 12 and Rust is enough: what else is needed is installed (as root, otherwise by sudo).

HOST := $(shell rustc -vV | sed -n 's/^host: //p')
STRAKE := target/$(HOST)/release/strake
# The tests' runner, where it is installed.
RUNNER := $(shell command -v cargo-nextest >/dev/null && echo 'nextest run' || echo test)
SUDO := $(shell [ "$$(id -u)" = 0 ] || echo sudo)

.PHONY: demo test lint bench build setup setup-demo measure fuzz

demo: setup-demo build
	examples/demo.sh $(STRAKE)

build:
	cargo build --locked --release

test: setup lint
	cargo $(RUNNER) --locked --lib --bins --tests
	RUSTDOCFLAGS='-D warnings' cargo doc --locked --no-deps --lib --document-private-items

lint:
	cargo fmt --check
	cargo clippy --locked --all-targets -- -D warnings

bench: setup build
	$(SUDO) bench/run.sh $(STRAKE)

setup:
	tests/setup.sh

setup-demo:
	tests/setup.sh demo

# Runs the tests that are ignored because they only measure and print; they write some gigabytes.
measure: setup
	cargo test --locked --lib -- --ignored --nocapture --test-threads=1

# Runs each fuzz target for so many minutes, one after the other.
MINUTES := 10
fuzz:
	fuzz/run.sh $(MINUTES)
