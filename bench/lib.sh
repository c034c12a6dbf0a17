# What the benches have in common: a disk of their own, the stores on it, the peers, and measuring. Sourced by bench/run.sh.

# Makes $work/disk, a journalled ext4 with direct I/O of so many gigabytes, and goes there. All stores, trees and copies are on it.
make_disk() {
    # Short: podman puts sockets below it, and their names have a limit.
    work=$(mktemp -d /var/tmp/sb.XXXX)
    loop= dockerd_pid=
    trap cleanup EXIT
    truncate -s "$1G" "$work/disk.img"
    mkfs.ext4 -q -O has_journal "$work/disk.img"
    mkdir "$work/disk"
    loop=$(losetup --find --show --direct-io=on "$work/disk.img")
    mount "$loop" "$work/disk"
    cd "$work/disk"
    mkdir tmp home results
    export TMPDIR=$work/disk/tmp HOME=$work/disk/home STRAKE_ROOT=$work/disk/strake
}

cleanup() {
    cd /
    if [ -n "$dockerd_pid" ]; then
        kill "$dockerd_pid" 2>/dev/null && wait "$dockerd_pid" 2>/dev/null || true
    fi
    # The last containers may still be on their way out.
    sleep 1
    umount -R "$work/disk/buildah/overlay" 2>/dev/null || true
    umount -l "$work/disk" 2>/dev/null || true
    [ -z "$loop" ] || losetup -d "$loop" 2>/dev/null || true
    rm -rf "$work"
}

quote() { printf '%q ' "$@"; }

# The same base for all, and for each peer the fastest isolation that this machine lets it have.
make_peers() {
    peer=(--root "$work/disk/buildah" --runroot "$work/disk/buildah-run" --storage-driver overlay)
    buildah=(buildah "${peer[@]}")
    local container
    container=$("${buildah[@]}" from scratch)
    "${buildah[@]}" add -q "$container" "$bases/busybox.tar" / >/dev/null
    "${buildah[@]}" config --cmd sh --env PATH=/bin:/usr/bin "$container"
    "${buildah[@]}" commit -q "$container" localhost/busybox >/dev/null
    "${buildah[@]}" rm "$container" >/dev/null
    mkdir -p probe
    printf 'FROM localhost/busybox\nRUN true\n' >probe/Dockerfile
    limits=(--ulimit nofile=1024:1024 --ulimit nproc=1000:1000)
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
    dockerd_pid=$!
    local client=(env DOCKER_BUILDKIT=1 /usr/bin/docker -H "unix://$work/docker.sock")
    for _ in $(seq 100); do
        if "${client[@]}" info >/dev/null 2>&1; then
            "${client[@]}" import -c 'CMD ["sh"]' "$bases/busybox.tar" localhost/busybox >/dev/null && docker=("${client[@]}")
            return 0
        fi
        kill -0 "$dockerd_pid" 2>/dev/null || break
        sleep 0.1
    done
}

# What comes before each run: the flush that our builds leave to the background has ended, and nothing of an earlier run is left to be written.
settled="while pgrep -f '[s]trake-settler' >/dev/null; do sleep 0.05; done; sync"

# row, name, runs, prepare, command: the mean of the runs after a discarded first one, in milliseconds, to results/ROW.NAME. A command that fails has none.
measure() {
    local file=$work/disk/results/$1.$2
    local prepare=(--prepare "$(quote sh -c "$settled; ${4:-true}; sync")")
    echo "$1: $2" >&2
    if hyperfine --style none -N --warmup 1 --runs "$3" "${prepare[@]}" --export-csv "$file.csv" "$5" >/dev/null 2>"$file.log"; then
        awk -F, 'NR == 2 { printf "%.2f\n", $2 * 1000 }' "$file.csv" >"$file"
    else
        sed 's/^/    /' "$file.log" >&2
    fi
}

# row, command: what our command takes of memory at most, in MiB, to results/ROW.peak.
peak() {
    /usr/bin/time -o "$work/disk/results/$1.kib" -f %M sh -c "$2" >/dev/null 2>&1 || true
    awk '{ printf "%.0f\n", $1 / 1024 }' "$work/disk/results/$1.kib" >"$work/disk/results/$1.peak"
}

# row, name: what was measured, or nothing.
got() { cat "$work/disk/results/$1.$2" 2>/dev/null || true; }
