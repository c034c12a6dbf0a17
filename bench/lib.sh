# What the benches have in common: namespaces and a disk of their own, the stores on it, registries, the peers, and measuring. Sourced by each of them.

self=$(realpath "$0")
here=$(dirname "$self")
bases=$(realpath "$here/../target/bases")
quick=${QUICK:-}
# shellcheck source=bench/table.sh
. "$here/table.sh"

# Runs the bench again in mount, network and PID namespaces of its own: nothing else on the machine counts or is touched, and whatever it started ends with it. Before any other
# thing; it is given all arguments.
own_namespaces() {
    if [ "${IN_OWN_NAMESPACES:-}" != "$self" ]; then
        IN_OWN_NAMESPACES=$self exec unshare --net --mount --pid --fork --kill-child --mount-proc --propagation private "$self" "$@"
    fi
    mount -t tmpfs none /run
    ip link set lo up
}

# Makes $work/disk, a journalled ext4 with direct I/O of so many gigabytes, and goes there. All stores, trees and copies are on it.
make_disk() {
    # Short: podman puts sockets below it, and their names have a limit.
    work=$(mktemp -d /var/tmp/sb.XXXX)
    loop= servers=()
    trap cleanup EXIT
    truncate -s "$1G" "$work/disk.img"
    mkfs.ext4 -q -O has_journal "$work/disk.img"
    mkdir "$work/disk"
    loop=$(losetup --find --show --direct-io=on "$work/disk.img")
    mount "$loop" "$work/disk"
    # It goes when it is no longer mounted, whatever becomes of this script.
    losetup -d "$loop"
    cd "$work/disk"
    results=$work/disk/results
    mkdir tmp home results
    export TMPDIR=$work/disk/tmp HOME=$work/disk/home STRAKE_ROOT=$work/disk/strake
}

cleanup() {
    cd /
    local server
    for server in "${servers[@]}"; do
        kill "$server" 2>/dev/null && wait "$server" 2>/dev/null || true
    done
    # The last containers may still be on their way out.
    sleep 1
    umount -R "$work/disk/buildah/overlay" 2>/dev/null || true
    umount -l "$work/disk" 2>/dev/null || true
    [ -z "$loop" ] || losetup -d "$loop" 2>/dev/null || true
    rm -rf "$work"
}

quote() { printf '%q ' "$@"; }

# Where buildah and podman keep what they have, and the limits that they may give here: `peer`, `limits`.
make_storage() {
    peer=(--root "$work/disk/buildah" --runroot "$work/disk/buildah-run" --storage-driver overlay)
    limits=(--ulimit nofile=1024:1024 --ulimit nproc=1000:1000)
}

# podman with the base, and with a runtime that works here: `podman`, or nothing where none does.
make_podman() {
    podman=(podman "${peer[@]}" --cgroup-manager cgroupfs)
    "${podman[@]}" image exists localhost/busybox || "${podman[@]}" import -q -c 'CMD ["sh"]' "$bases/busybox.tar" localhost/busybox >/dev/null
    local try
    for try in '' runc; do
        # shellcheck disable=SC2206
        [ -z "$try" ] || podman+=(--runtime $try)
        if "${podman[@]}" run --rm --network none "${limits[@]}" localhost/busybox true >/dev/null 2>&1; then return 0; fi
    done
    podman=()
}

# The same base for all, and for each peer the fastest isolation that this machine lets it have.
make_peers() {
    make_storage
    buildah=(buildah "${peer[@]}")
    local container
    container=$("${buildah[@]}" from scratch)
    "${buildah[@]}" add -q "$container" "$bases/busybox.tar" / >/dev/null
    "${buildah[@]}" config --cmd sh --env PATH=/bin:/usr/bin "$container"
    "${buildah[@]}" commit -q "$container" localhost/busybox >/dev/null
    "${buildah[@]}" rm "$container" >/dev/null
    mkdir -p probe
    printf 'FROM localhost/busybox\nRUN true\n' >probe/Dockerfile
    isolation=chroot
    local try
    for try in 'oci' "oci --runtime runc ${limits[*]}"; do
        # shellcheck disable=SC2086
        if "${buildah[@]}" bud -q --network host --isolation $try -t probe probe >/dev/null 2>&1; then isolation=$try && break; fi
    done
    start_dockerd
}

# Debian's dockerd with BuildKit, where it runs: without networks of its own, which no row needs.
start_dockerd() {
    docker=()
    # Debian's own client: newer ones build with BuildKit only where buildx is installed beside them.
    command -v dockerd >/dev/null && [ -x /usr/bin/docker ] || return 0
    dockerd --data-root "$work/disk/docker" --exec-root "$work/docker-run" --pidfile "$work/docker.pid" -H "unix://$work/docker.sock" \
        --iptables=false --bridge=none --ip-forward=false --ip-masq=false --storage-driver overlay2 >"$work/dockerd.log" 2>&1 &
    local daemon=$!
    servers+=("$daemon")
    local client=(env DOCKER_BUILDKIT=1 /usr/bin/docker -H "unix://$work/docker.sock")
    for _ in $(seq 100); do
        if "${client[@]}" info >/dev/null 2>&1; then
            "${client[@]}" import -c 'CMD ["sh"]' "$bases/busybox.tar" localhost/busybox >/dev/null && docker=("${client[@]}")
            return 0
        fi
        kill -0 "$daemon" 2>/dev/null || break
        sleep 0.1
    done
}

dockerd_version() { if [ ${#docker[@]} = 0 ]; then echo 'not run'; else "${docker[@]}" version -f '{{.Server.Version}}'; fi; }

# name, port: Debian's docker-registry on loopback, which keeps everything in disk/NAME and writes a line for each request to NAME.log.
start_registry() {
    cat >"$work/$1.yml" <<END
version: 0.1
log: {level: error}
storage: {filesystem: {rootdirectory: $work/disk/$1}}
http: {addr: "127.0.0.1:$2"}
END
    mkdir -p "$work/disk/$1"
    docker-registry serve "$work/$1.yml" >"$work/$1.log" 2>&1 &
    servers+=($!)
    answers "127.0.0.1:$2"
}

# host:port: waits until a registry answers there.
answers() {
    for _ in $(seq 100); do
        if curl -sf -o /dev/null "http://$1/v2/"; then return 0; fi
        sleep 0.1
    done
    echo "no registry answers at $1" >&2
    return 1
}

# What comes before each run: the flush that our builds leave to the background has ended, and nothing of an earlier run is left to be written.
settled="while pgrep -f '[s]trake-settler' >/dev/null; do sleep 0.05; done; sync"

# row, name, runs, prepare, command: the mean of the runs after a discarded first one, in milliseconds, to results/ROW.NAME. A command that fails has none.
measure() {
    local file=$results/$1.$2
    local prepare=(--prepare "$(quote sh -c "$settled; ${4:-true}; sync")")
    echo "$1: $2" >&2
    # What was deleted goes back to the real disk.
    fstrim "$work/disk" 2>/dev/null || true
    if hyperfine --style none -N --warmup 1 --runs "$3" "${prepare[@]}" --export-csv "$file.csv" "$5" >/dev/null 2>"$file.log"; then
        awk -F, 'NR == 2 { printf "%.2f\n", $2 * 1000 }' "$file.csv" >"$file"
    else
        sed 's/^/    /' "$file.log" >&2
    fi
}

# row, command: what our command takes of memory at most, in MiB, to results/ROW.peak.
peak() {
    /usr/bin/time -o "$results/$1.kib" -f %M sh -c "$2" >/dev/null 2>&1 || true
    awk '/^[0-9]/ { printf "%.0f\n", $1 / 1024 }' "$results/$1.kib" >"$results/$1.peak"
}

# row, name: what was measured, or nothing.
got() { cat "$results/$1.$2" 2>/dev/null || true; }

# What there is that a container could have left, a line for each kind: here, below the store, and below the control group $parent.
left_behind() {
    local name
    echo "mounts $(wc -l </proc/self/mountinfo)"
    echo "cgroups $(find /sys/fs/cgroup -type d 2>/dev/null | grep -c "/$parent/" || true)"
    echo "namespaces $(find /proc/[0-9]*/ns -type l -printf '%l\n' 2>/dev/null | sort -u | wc -l)"
    echo "processes $(pgrep -fc "$STRAKE_ROOT" || true)"
    echo "links $(ip -o link | wc -l)"
    echo "tables $(nft list tables 2>/dev/null | grep -c strake || true)"
    # As root the addresses and names of running networks are here.
    for name in /run/strake "$STRAKE_ROOT"/{containers,trash,leases,volumes}; do echo "${name##*/} $(files "$name")"; done
}
files() { if [ -d "$1" ]; then find "$1" -mindepth 1 2>/dev/null | wc -l; else echo 0; fi; }
