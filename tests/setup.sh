#!/usr/bin/env bash
# Prepares what the end-to-end tests, the demonstration and the benchmarks need, and does nothing where it is there already:
#   - Debian packages: the peers to compare with, a registry, and what base images are made of;
#   - target/bases/{busybox,minbase}.tar: root file systems, and
#   - target/bases/registry: the storage of a docker-registry that has both as images.
# As root it installs directly, otherwise by sudo. `setup.sh demo` leaves out what only tests and benchmarks need.
set -euo pipefail
cd "$(dirname "$0")/.."

what=${1:-all}
bases=target/bases
as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi }

# command:package
needed=(cc:build-essential docker-registry:docker-registry skopeo:skopeo busybox:busybox-static mmdebstrap:mmdebstrap curl:curl)
if [ "$what" = all ]; then
    needed+=(umoci:umoci podman:podman buildah:buildah hyperfine:hyperfine htpasswd:apache2-utils newuidmap:uidmap mkfs.ext4:e2fsprogs
        losetup:mount iptables:iptables runc:runc crun:crun openssl:openssl pasta:passt slirp4netns:slirp4netns bindfs:bindfs)
fi
missing=()
for pair in "${needed[@]}"; do
    command -v "${pair%%:*}" >/dev/null || [ -x "/usr/sbin/${pair%%:*}" ] || missing+=("${pair#*:}")
done
if [ -n "${missing[*]:-}" ]; then
    echo "installing ${missing[*]}"
    as_root env DEBIAN_FRONTEND=noninteractive apt-get update -q >/dev/null
    # The package docker-registry starts a service, which the tests neither need nor want.
    as_root env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get install -qy --no-install-recommends "${missing[@]}" </dev/null >/dev/null
fi

mkdir -p "$bases"

# A tar that does not depend on the day it was made.
pack() { tar --sort=name --numeric-owner --owner=0 --group=0 --mtime=@1700000000 -C "$1" -cf "$2" .; }

if [ ! -e "$bases/busybox.tar" ]; then
    echo "making the busybox base"
    root=$(mktemp -d)
    mkdir -p "$root"/{bin,etc,home,root,usr/bin,usr/sbin,sbin,var/tmp,tmp}
    chmod 0755 "$root"
    chmod 0700 "$root/root"
    chmod 1777 "$root/tmp" "$root/var/tmp"
    cp "$(command -v busybox)" "$root/bin/busybox"
    for applet in $("$root/bin/busybox" --list); do
        [ "$applet" = busybox ] || ln -s busybox "$root/bin/$applet"
    done
    printf 'root:x:0:0:root:/root:/bin/sh\ndaemon:x:1:1:daemon:/usr/sbin:/bin/false\nnobody:x:65534:65534:nobody:/home:/bin/false\n' >"$root/etc/passwd"
    printf 'root:x:0:\ndaemon:x:1:\nstaff:x:50:nobody\nnogroup:x:65534:\n' >"$root/etc/group"
    pack "$root" "$bases/busybox.tar.new"
    rm -rf "$root"
    mv "$bases/busybox.tar.new" "$bases/busybox.tar"
fi

if [ ! -e "$bases/minbase.tar" ]; then
    echo "making the Debian base"
    # The mirrors that this machine uses, so that a nearby one is used here too. The image names Debian's own.
    mapfile -t mirrors < <(apt-get indextargets --format '$(ORIGIN) $(CODENAME) deb $(REPO_URI) $(RELEASE) main' 'Created-By: Packages' |
        sed -n 's/^Debian bookworm[a-z-]* //p' | sort -u)
    sources=$(mktemp)
    cat >"$sources" <<'END'
deb http://deb.debian.org/debian bookworm main
deb http://deb.debian.org/debian bookworm-updates main
deb http://deb.debian.org/debian-security bookworm-security main
END
    rm -f "$bases/minbase.tar.new"
    as_root mmdebstrap --quiet --variant=minbase --mode=root --format=tar --aptopt='Acquire::Languages "none"' \
        --customize-hook='rm -rf "$1"/etc/apt/sources.list.d/* "$1"/etc/resolv.conf "$1"/etc/hostname' \
        --customize-hook="upload $sources /etc/apt/sources.list" --customize-hook='chmod 0644 "$1"/etc/apt/sources.list' \
        bookworm "$bases/minbase.tar.new" "${mirrors[@]}" </dev/null
    rm -f "$sources"
    mv "$bases/minbase.tar.new" "$bases/minbase.tar"
fi

# Writes a docker-archive with one layer: what `skopeo` reads, and not made by the program under test.
docker_archive() { # layer, command, name, output
    local dir config
    dir=$(mktemp -d)
    cp "$1" "$dir/layer.tar"
    config='{"architecture":"'$(dpkg --print-architecture)'","os":"linux","created":"2023-11-14T22:13:20Z","config":{"Env":["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],"Cmd":["'$2'"]},"rootfs":{"type":"layers","diff_ids":["sha256:'$(sha256sum <"$1" | cut -d' ' -f1)'"]},"history":[{"created":"2023-11-14T22:13:20Z","created_by":"import"}]}'
    printf '%s' "$config" >"$dir/config.json"
    printf '[{"Config":"config.json","RepoTags":["%s"],"Layers":["layer.tar"]}]' "$3" >"$dir/manifest.json"
    tar -C "$dir" -cf "$4" manifest.json config.json layer.tar
    rm -rf "$dir"
}

if [ ! -e "$bases/registry" ] && [ "$what" = all ]; then
    echo "filling the registry"
    work=$(mktemp -d)
    trap 'kill "$registry" 2>/dev/null || true; rm -rf "$work"' EXIT
    port=$((20000 + RANDOM % 20000))
    cat >"$work/config.yml" <<END
version: 0.1
log: {level: error, accesslog: {disabled: true}}
storage: {filesystem: {rootdirectory: $work/storage}}
http: {addr: "127.0.0.1:$port"}
END
    docker-registry serve "$work/config.yml" >"$work/log" 2>&1 &
    registry=$!
    for _ in $(seq 100); do curl -sf "http://127.0.0.1:$port/v2/" >/dev/null && break; sleep 0.1; done
    docker_archive "$bases/busybox.tar" sh busybox:latest "$work/busybox.tar"
    docker_archive "$bases/minbase.tar" bash minbase:bookworm "$work/minbase.tar"
    skopeo --insecure-policy copy -q --dest-tls-verify=false "docker-archive:$work/busybox.tar" "docker://127.0.0.1:$port/busybox:latest"
    skopeo --insecure-policy copy -q --dest-tls-verify=false "docker-archive:$work/minbase.tar" "docker://127.0.0.1:$port/minbase:bookworm"
    kill "$registry"
    wait "$registry" 2>/dev/null || true
    mv "$work/storage" "$bases/registry"
fi
