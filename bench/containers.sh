#!/usr/bin/env bash
# Compares how Strake runs containers with Debian's podman, and with crun (or runc) on the bare bundle, in one run (bench/README.md). bench/networks.sh, which it ends with, has the rows
# about networks.
# usage: bench/containers.sh STRAKE-BINARY   (as root)
#
# It prints tables in Markdown and exits with 1 where a goal is missed. QUICK=1 leaves podman out and runs less often.
set -euo pipefail
# shellcheck source=bench/lib.sh
. "$(dirname "$0")/lib.sh"
own_namespaces "$@"
binary=$(realpath "$1")
few=${quick:+2} few=${few:-10}
more=${quick:+10} more=${more:-50}

make_disk 4
strake() { quote "$binary" "$@"; }
"$binary" import -q -c 'CMD ["sh"]' "$bases/busybox.tar" localhost/busybox >/dev/null
make_storage
podman=()
if [ -z "$quick" ]; then
    make_podman
fi

# directory, command...: a bundle as the runtime itself proposes it, without a terminal
bundle() {
    mkdir -p "$1/rootfs"
    tar -xf "$bases/busybox.tar" -C "$1/rootfs"
    (cd "$1" && "$runtime" spec)
    python3 - "$@" <<'PY'
import json, sys
path = f"{sys.argv[1]}/config.json"
config = json.load(open(path))
config["process"]["terminal"], config["process"]["args"] = False, sys.argv[2:]
json.dump(config, open(path, "w"))
PY
}
bare=()
for runtime in crun runc; do
    command -v "$runtime" >/dev/null || continue
    rm -rf bundle
    bundle bundle true
    bare=("$runtime" --root "$work/$runtime")
    if "${bare[@]}" run -b bundle probe >/dev/null 2>&1; then break; fi
    bare=()
done

# row, prepare, command...: of all who run it; `podman` is left out where it cannot
against_podman() {
    local row=$1 prepare=$2
    shift 2
    measure "$row" strake "$more" "$prepare" "$(strake "$@")"
    peak "$row" "$(strake "$@")"
    [ ${#podman[@]} = 0 ] || ! "${podman[@]}" "$@" >/dev/null 2>&1 || measure "$row" podman "$few" '' "$(quote "${podman[@]}" "$@")"
}
[ ${#bare[@]} = 0 ] || measure run bare "$more" '' "$(quote "${bare[@]}" run -b bundle bare)"
# The bridge stays for a moment when the last container has gone: to find none, or one.
alone='sleep 0.5' following="$(strake run --rm localhost/busybox true)"
against_podman run "$alone" run --rm "${limits[@]}" localhost/busybox true
against_podman next "$following" run --rm "${limits[@]}" localhost/busybox true
against_podman none '' run --rm --network none "${limits[@]}" localhost/busybox true
against_podman userns "$alone" run --rm --userns auto "${limits[@]}" localhost/busybox true
for row in next none userns; do [ ! -e results/run.bare ] || cp results/run.bare "results/$row.bare"; done

processes() { find /proc -maxdepth 1 -name '[0-9]*' -printf '%f\n' | sort; }
# row, name, command that starts a container: the MiB of all processes that came with it and are not in it (their share of what several use), to results/ROW.NAME. Of this, what is no
# file's goes to results/ROW-own.NAME; and what they have mapped of files that others may use too comes on top in results/ROW-resident.NAME.
idle() {
    local row=$1 name=$2 process before
    shift 2
    before=$(processes)
    "$@" >/dev/null
    # Whoever is only there for the start has gone.
    sleep 2
    for process in $(comm -13 <(echo "$before") <(processes)); do
        if [ "$(readlink "/proc/$process/ns/pid")" = "$(readlink /proc/self/ns/pid)" ]; then cat "/proc/$process/smaps_rollup" 2>/dev/null || true; fi
    done >"results/$row.$name.rollup"
    awk '/^Pss:/ { sum += $2 } END { printf "%.2f\n", sum / 1024 }' "results/$row.$name.rollup" >"results/$row.$name"
    awk '/^Pss_Anon:|^Pss_Shmem:/ { sum += $2 } END { printf "%.2f\n", sum / 1024 }' "results/$row.$name.rollup" >"results/$row-own.$name"
    awk '/^Rss:/ { sum += $2 } END { printf "%.1f", sum / 1024 }' "results/$row.$name.rollup" >"results/$row-resident.$name"
}
idle idle strake "$binary" run -d --name idle localhost/busybox sleep 1000000
measure exec strake "$more" '' "$(strake exec idle true)"
peak exec "$(strake exec idle true)"
if [ ${#podman[@]} != 0 ]; then
    idle idle podman "${podman[@]}" run -d --name idle "${limits[@]}" localhost/busybox sleep 1000000
    measure exec podman "$few" '' "$(quote "${podman[@]}" exec idle true)"
    "${podman[@]}" rm -f -t 0 idle >/dev/null
fi
if [ ${#bare[@]} != 0 ]; then
    bundle sleeping sleep 1000000
    "${bare[@]}" run -d -b sleeping sleeping </dev/null >/dev/null 2>&1
    measure exec bare "$more" '' "$(quote "${bare[@]}" exec sleeping true)"
    "${bare[@]}" delete -f sleeping
fi
# Ten more: what they share with each other counts once, and not ten times.
idle ten strake bash -c "for at in {1..10}; do $(strake run -d localhost/busybox sleep 1000000); done"
awk '{ printf "%.2f\n", $1 / 10 }' results/ten.strake >results/each.strake
"$binary" ps -aq | xargs "$binary" rm -f >/dev/null

columns=(podman) most=200
heading "Bare work: ${bare[0]:-not run} of the bundle that it proposes itself, $([ ${#bare[@]} = 0 ] || "$runtime" --version | head -1)"
fast='ours < 20 && (podman == "" || podman / ours >= 15) && bare / ours >= 3'
line run '`run --rm busybox true`, default bridge (bare: `run` of the bundle, no network)' '20 ms, 15 x podman, 3 x bare' "$fast"
line next 'the same, right after another one' 'the same' "$fast"
line none 'the same with `--network none`' 'the same' "$fast"
line userns 'the same with `--userns auto`, default bridge' 'the same' "$fast"
line exec '`exec` in a running container' '10 ms' 'ours < 10'
line idle 'a detached idle container: PSS beside its own process' '3 MiB' 'ours < 3' MiB
line idle-own 'the same: what is no page of a file' '3 MiB' 'ours < 3' MiB
line each 'ten such containers: PSS beside its own process of each' '3 MiB' 'ours < 3' MiB
echo
echo "Resident beside the idle container's own process: $(got idle-resident strake) MiB."
echo
"$here/networks.sh" "$binary" ${quick:+20} || missed=1
exit $missed
