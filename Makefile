# `make` shows what Strake does, `make test` runs every check, `make bench` compares with peers.
# A machine with Debian 12 and Rust is enough: what else is needed is installed (as root, otherwise by sudo).

HOST := $(shell rustc -vV | sed -n 's/^host: //p')
STRAKE := target/$(HOST)/release/strake
# The tests' runner, where it is installed.
RUNNER := $(shell command -v cargo-nextest >/dev/null && echo 'nextest run' || echo test)
SUDO := $(shell [ "$$(id -u)" = 0 ] || echo sudo)

.PHONY: demo test lint bench build setup setup-demo measure stress fuzz crash

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

# Builds, images, containers with their networks: all of them, also where one misses a goal. QUICK=1 leaves the peers out.
bench: setup build
	missed=0; for bench in run images store containers; do $(SUDO) env QUICK=$(QUICK) bench/$$bench.sh $(STRAKE) || missed=1; done; exit $$missed

setup:
	tests/setup.sh

setup-demo:
	tests/setup.sh demo

# Runs the tests that are ignored because they only measure and print; they write some gigabytes.
measure: setup
	cargo test --locked --lib -- --ignored --nocapture --test-threads=1

# Runs so many containers in a row, in every way in which one can end, and counts what they leave.
RUNS := 1000
stress: setup build
	$(SUDO) bench/stress.sh $(RUNS) $(STRAKE)

# Kills commands at all of their fault points and at many random moments, and lets sixteen processes work on one store for minutes: the long form of these tests.
crash: setup
	STRAKE_CRASH=long STRAKE_TESTS_REQUIRE=1 cargo test --locked --test cli -- --nocapture --test-threads=2 crash:: crowd::

# Runs each fuzz target for so many minutes, one after the other.
MINUTES := 10
fuzz:
	fuzz/run.sh $(MINUTES)
