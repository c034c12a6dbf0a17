#!/bin/sh
# Runs fuzz targets one after the other and prints a line for each: executions, coverage, findings.
#
#   fuzz/run.sh [MINUTES [TARGET ...]]
#
# Stops at a target's first finding, which is left in fuzz/artifacts/TARGET. What was found to reach new code is kept in fuzz/corpus/TARGET.
set -eu

cd "$(dirname "$0")/.."
minutes=${1:-10}
[ $# -eq 0 ] || shift
[ $# -gt 0 ] || set -- parse expand ignore mount layer documents headers

# The instrumentation wants a nightly compiler, or this. What is fuzzed is safe code, so that the address sanitizer would only slow it down.
export RUSTC_BOOTSTRAP=1
command -v cargo-fuzz >/dev/null || cargo install --locked cargo-fuzz
cargo fuzz build --sanitizer none

failed=0
mkdir -p fuzz/logs
for target in "$@"; do
    dictionary=$target seeds=fuzz/seeds/$target length=4096
    case $target in
    parse) dictionary=dockerfile seeds=testdata/parser ;;
    expand) dictionary=dockerfile ;;
    # Headers and data of tar come in blocks of 512 bytes.
    layer) length=16384 ;;
    esac
    artifacts=fuzz/artifacts/$target log=fuzz/logs/$target.log
    mkdir -p "fuzz/corpus/$target" "$artifacts"
    touch fuzz/logs/start
    cargo fuzz run --sanitizer none "$target" "fuzz/corpus/$target" "$seeds" -- \
        -max_total_time=$((minutes * 60)) -max_len=$length -timeout=120 -rss_limit_mb=2048 \
        -dict="fuzz/dictionaries/$dictionary.dict" -print_final_stats=1 >"$log" 2>&1 || failed=1
    executions=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log" | tail -n 1)
    coverage=$(sed -n 's/.* cov: \([0-9]*\) .*/\1/p' "$log" | tail -n 1)
    findings=$(find "$artifacts" -type f -newer fuzz/logs/start | wc -l)
    echo "$target: $minutes minutes, ${executions:-0} executions, coverage ${coverage:-0}, $findings findings (log: $log)"
done
exit $failed
