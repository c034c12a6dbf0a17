#!/usr/bin/env bash
# Runs many containers in a row, in every way in which one can end, and counts what the machine has before and after: a difference is a failure.
# It does so in mount, network and PID namespaces of its own, so that nothing else on the machine is counted.
# usage: bench/stress.sh [RUNS [STRAKE]]   (as root)
set -euo pipefail
# shellcheck source=bench/lib.sh
. "$(dirname "$0")/lib.sh"
cd "$(dirname "$0")/.."
runs=${1:-1000}
strake=${2:-$(ls -t target/*/release/strake target/*/debug/strake 2>/dev/null | head -1)}
[ -x "$strake" ] || { echo "build strake first, or name it" >&2; exit 2; }
strake=$(realpath "$strake")
own_namespaces "$runs" "$strake"
parent=strake-stress-$RANDOM
# On a real disk: overlays and locks are what they are there.
work=$(mktemp -d /var/tmp/stress.XXXX)
export STRAKE_ROOT=$work/store HOME=$work

clean() {
    "$strake" ps -aq | xargs -r "$strake" rm -f >/dev/null 2>&1 || true
    rm -rf "$work"
    find /sys/fs/cgroup -depth -type d -path "*/$parent*" -exec rmdir {} + 2>/dev/null || true
}
trap clean EXIT

mkdir "$work/base"
cp target/bases/busybox.tar "$work/base/"
printf 'FROM scratch\nADD busybox.tar /\nCMD ["true"]\n' >"$work/base/Dockerfile"
"$strake" build -q -t stress "$work/base" >/dev/null
"$strake" run --rm -m 64m --cgroup-parent "$parent" stress
sleep 1
left_behind >"$work/before"

begin=$SECONDS
for ((i = 0; i < runs; i++)); do
    case $((i % 10)) in
    0 | 1 | 2 | 3 | 4) "$strake" run --rm stress ;;
    5) "$strake" run --rm -m 64m --cgroup-parent "$parent" -v /anonymous stress sh -c 'exit 3' || [ $? = 3 ] ;;
    6) "$strake" rm -f "$("$strake" run -d stress sleep 1000)" >/dev/null ;;
    7) "$strake" run --rm stress no-such-command 2>/dev/null || [ $? = 127 ] ;;
    8)
        id=$("$strake" run -d -m 64m --cgroup-parent "$parent" stress sleep 1000)
        pid=$("$strake" inspect --format '{{.State.Pid}}' "$id")
        kill -9 "$(awk '/^PPid/ { print $2 }' "/proc/$pid/status")"
        "$strake" rm -f "$id" >/dev/null
        ;;
    9) "$strake" run --rm -w /proc/self/fd/9 stress 2>/dev/null || [ $? = 125 ] ;;
    esac
done
echo "$runs runs in $((SECONDS - begin)) s"

# What was killed is swept by the next run, where it is old enough for nobody to need it; groups after a minute.
for ((wait = 0; wait < 15; wait++)); do
    sleep 5
    "$strake" run --rm -m 64m --cgroup-parent "$parent" stress
    # A supervisor leaves it to the command that started it to remove the container, for half a second.
    sleep 1
    left_behind >"$work/after"
    cmp -s "$work/before" "$work/after" && break
done
paste "$work/before" "$work/after" | awk '{ bad = $2 != $4; if (bad) failed = 1; printf "%-22s %6s %6s%s\n", $1, $2, $4, bad ? "   <- left behind" : "" } END { exit failed }'
