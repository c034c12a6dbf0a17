#!/usr/bin/env bash
# The speed of networks: containers that are started in parallel and answer over the bridge, and what goes through the bridge compared with a bare veth pair.
# usage: bench/networks.sh STRAKE-BINARY [CONTAINERS]   (as root)
#
# All happens in namespaces of its own, so that nothing of this machine's network counts or is touched. It prints ratios and exits with 1 where a goal is missed.
set -euo pipefail
# shellcheck source=bench/lib.sh
. "$(dirname "$0")/lib.sh"
own_namespaces "$@"
binary=$(realpath "$1")
count=${2:-200}
parent=strake-networks-$RANDOM
work=$(mktemp -d /var/tmp/sb.XXXX)
export STRAKE_ROOT=$work/store HOME=$work
strake() { "$binary" "$@"; }
cleanup() {
    strake ps -aq | xargs -r "$binary" rm -f >/dev/null 2>&1 || true
    rm -rf "$work"
    find /sys/fs/cgroup -depth -type d -path "*/$parent*" -exec rmdir {} + 2>/dev/null || true
}
trap cleanup EXIT
strake import -c 'CMD ["sh"]' "$bases/busybox.tar" localhost/busybox >/dev/null
missed=0
judge() { # what, value, at most
    if awk -v value="$2" -v most="$3" 'BEGIN { exit !(value <= most) }'; then met=yes; else met=NO missed=1; fi
    echo "| $1 | $2 | $3 | $met |"
}
echo "| what | here | goal | met |"
echo "|---|---|---|---|"

strake network create front >/dev/null
strake run --rm --cgroup-parent "$parent" --network front localhost/busybox true
# Some processes stay for a moment longer, as does the run before it.
sleep 1
left_behind >"$work/before"
begin=$(date +%s.%N)
for number in $(seq "$count"); do
    strake run -d --name "c$number" --cgroup-parent "$parent" --network front localhost/busybox \
        sh -c 'echo "$HOSTNAME" > /index.html; exec httpd -f -p 80 -h /' >/dev/null &
done
wait
answered=0
for number in $(seq "$count"); do
    address=$(strake inspect -f '{{.NetworkSettings.Networks.front.IPAddress}}' "c$number")
    for _ in 1 2 3 4 5 6 7 8 9 10; do
        if wget -q -T 5 -t 1 -O /dev/null "http://$address/"; then answered=$((answered + 1)) && break; fi
        sleep 0.05
    done
done
seconds=$(awk -v begin="$begin" -v end="$(date +%s.%N)" 'BEGIN { printf "%.1f", end - begin }')
judge "$count containers started in parallel, each answering over the bridge, in seconds" "$seconds" 8
judge "of these, how many did not answer" $((count - answered)) 0
strake ps -aq | xargs "$binary" rm -f >/dev/null
sleep 1
left_behind >"$work/after"
judge "mounts, groups, namespaces, processes, links, tables and files left after \`rm -f\`" "$(diff "$work/before" "$work/after" | grep -c '^>' || true)" 0
diff "$work/before" "$work/after" >&2 || true
strake network rm front >/dev/null

cat >"$work/pour.py" <<'PY'
import socket, sys, threading, time
# Sends for a while to who asks; gives the GB/s that arrived.
def serve(listener, seconds):
    stream, _ = listener.accept()
    block, end = bytes(1 << 20), time.monotonic() + seconds
    while time.monotonic() < end:
        stream.sendall(block)
    stream.close()
if sys.argv[1] == "send":
    listener = socket.create_server((sys.argv[2], 5001))
    serve(listener, float(sys.argv[3]))
else:
    stream = socket.create_connection((sys.argv[2], 5001))
    block, total, begin = bytearray(1 << 20), 0, time.monotonic()
    while length := stream.recv_into(block):
        total += length
    print(total / (time.monotonic() - begin) / 1e9)
PY
strake run -d --name pour localhost/busybox sleep 1000 >/dev/null
pid=$(strake inspect -f '{{.State.Pid}}' pour)
gateway=$(strake inspect -f '{{.NetworkSettings.Gateway}}' pour)
ip netns add bare
ip link add bare0 mtu 1500 type veth peer name eth0 mtu 1500 netns bare
ip addr add 192.0.2.1/24 dev bare0
ip link set bare0 up
ip -n bare addr add 192.0.2.2/24 dev eth0
ip -n bare link set eth0 up
once() { # address, command that enters the namespace
    python3 "$work/pour.py" send "$1" 2 &
    sleep 0.3
    "${@:2}" python3 "$work/pour.py" take "$1"
    wait $!
}
bridge=() bare=()
for _ in 1 2 3 4 5; do
    bridge+=("$(once "$gateway" nsenter -t "$pid" -n)")
    bare+=("$(once 192.0.2.1 ip netns exec bare)")
done
best() { printf '%s\n' "$@" | sort -g | tail -1; }
rate() { printf '%.2f' "$(best "$@")"; }
ratio=$(awk -v bare="$(best "${bare[@]}")" -v bridge="$(best "${bridge[@]}")" 'BEGIN { printf "%.3f", bare / bridge }')
judge "throughput of a bare veth pair ($(rate "${bare[@]}") GB/s) over that of the bridge ($(rate "${bridge[@]}") GB/s)" "$ratio" 1.05
exit $missed
