#!/usr/bin/env bash
# Compares Strake with Debian's buildah and podman, in one run and on one disk: a journalled ext4 of its own, mounted with direct I/O, that holds all stores.
# usage: bench/run.sh STRAKE-BINARY   (as root)
#
#   cached  a build of ten instructions with nothing to do       strake build            buildah bud --layers            at least 10 times
#   steps   twenty trivial RUN steps on busybox, no cache        strake build --no-cache buildah bud --no-cache --layers at least  8 times
#   run     one container that does nothing                      strake run --rm         podman run --rm                 at least  8 times
#
# Each figure is the mean of the runs after a discarded first one. It exits with 1 where a floor is missed.
set -euo pipefail
cd "$(dirname "$0")/.."
binary=$(realpath "$1")
bases=$PWD/target/bases
# Short: podman puts sockets below it, and their names have a limit.
work=$(mktemp -d /var/tmp/sb.XXXX)
loop=
cleanup() {
    cd /
    # The last containers may still be on their way out.
    sleep 1
    umount -R "$work/disk/buildah/overlay" 2>/dev/null || true
    umount -l "$work/disk" 2>/dev/null || true
    [ -z "$loop" ] || losetup -d "$loop" 2>/dev/null || true
    rm -rf "$work"
}
trap cleanup EXIT

truncate -s 6G "$work/disk.img"
mkfs.ext4 -q -O has_journal "$work/disk.img"
mkdir "$work/disk"
loop=$(losetup --find --show --direct-io=on "$work/disk.img")
mount "$loop" "$work/disk"
cd "$work/disk"
mkdir ctx steps tmp home
export TMPDIR=$work/disk/tmp HOME=$work/disk/home STRAKE_ROOT=$work/disk/strake

strake=("$binary")
peer=(--root "$work/disk/buildah" --runroot "$work/disk/buildah-run" --storage-driver overlay)
buildah=(buildah "${peer[@]}")
podman=(podman "${peer[@]}" --cgroup-manager cgroupfs)
limits=()

# The same base for both.
"${strake[@]}" import -c 'CMD ["sh"]' "$bases/busybox.tar" localhost/busybox >/dev/null
container=$("${buildah[@]}" from scratch)
"${buildah[@]}" add -q "$container" "$bases/busybox.tar" / >/dev/null
"${buildah[@]}" config --cmd sh --env PATH=/bin:/usr/bin "$container"
"${buildah[@]}" commit -q "$container" localhost/busybox >/dev/null
"${buildah[@]}" rm "$container" >/dev/null

for at in $(seq 20); do echo "file $at" >"ctx/file$at"; done
cat >ctx/Dockerfile <<'END'
FROM localhost/busybox
ENV A=1
WORKDIR /app
COPY file1 file2 /app/
RUN echo one > /one
COPY . /src/
RUN cat /src/* > /all
ENV B=2
RUN wc -l /all
CMD ["cat", "/all"]
END
{ echo 'FROM localhost/busybox'; for at in $(seq 20); do echo "RUN echo $at > /step$at"; done; } >steps/Dockerfile

# buildah's own isolation where the machine lets it, chroot otherwise: what is faster for it is not asked.
isolation=oci
if ! "${buildah[@]}" bud -q --network host --isolation oci -t probe steps >/dev/null 2>&1; then isolation=chroot; fi
network=host

# Debian's own choice of runtime and limits where the machine lets it have them; else runc, and limits that every machine allows.
if ! "${podman[@]}" run --rm --network "$network" localhost/busybox true 2>/dev/null; then
    podman+=(--runtime runc)
    limits=(--ulimit nofile=1024:1024 --ulimit nproc=1000:1000)
fi
if [ "$isolation" = chroot ] && "${buildah[@]}" bud -q --network host --isolation oci --runtime runc "${limits[@]}" -t probe steps >/dev/null 2>&1; then
    isolation='oci --runtime runc'
fi

quote() { printf '%q ' "$@"; }
echo "buildah isolation: $isolation; podman: ${podman[*]} ${limits[*]}; network: $network"
measure() { # name, runs, ours, theirs
    hyperfine -N --warmup 1 --runs "$2" --export-csv "$work/disk/$1.csv" -n strake "$3" -n peer "$4" >&2
}
measure cached 20 "$(quote "${strake[@]}" build -q --network "$network" -t c ctx)" \
    "$(quote "${buildah[@]}" bud -q --layers --network "$network" --isolation $isolation -t c ctx)"
measure steps 4 "$(quote "${strake[@]}" build -q --no-cache --network "$network" -t s steps)" \
    "$(quote "${buildah[@]}" bud -q --no-cache --layers --network "$network" --isolation $isolation -t s steps)"
measure run 15 "$(quote "${strake[@]}" run --rm --network "$network" localhost/busybox true)" \
    "$(quote "${podman[@]}" run --rm --network "$network" "${limits[@]}" localhost/busybox true)"

printf '\n%-8s %12s %12s %8s %7s\n' what strake peer ratio floor
missed=0
for pair in cached:10 steps:8 run:8; do
    name=${pair%%:*} floor=${pair#*:}
    awk -F, -v name="$name" -v floor="$floor" 'NR == 2 { ours = $2 } NR == 3 { theirs = $2 }
        END { printf "%-8s %9.1f ms %9.1f ms %7.1fx %6dx\n", name, ours * 1000, theirs * 1000, theirs / ours, floor; exit theirs / ours < floor }' \
        "$work/disk/$name.csv" || missed=1
done
exit $missed
