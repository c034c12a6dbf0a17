#!/usr/bin/env bash
# Compares how Strake moves images with Debian's podman, dockerd, skopeo and docker-registry, and with the bare work (tar, pigz, curl), in one run and on one disk (bench/README.md).
# usage: bench/images.sh STRAKE-BINARY   (as root)
#
# Registries are on loopback. It prints a table in Markdown and exits with 1 where a goal is missed.
# QUICK=1 leaves podman, dockerd and skopeo out and runs everything twice only. LAYER_MIB, FILE_MIB: other sizes than the goals are about, for work on the code.
set -euo pipefail
# shellcheck source=bench/lib.sh
. "$(dirname "$0")/lib.sh"
own_namespaces "$@"
binary=$(realpath "$1")
few=${quick:+2} few=${few:-4}
more=${quick:+10} more=${more:-20}
export LAYER_MIB=${LAYER_MIB:-100} FILE_MIB=${FILE_MIB:-1024}

make_disk 16
python3 "$here/trees.py" . layers big text
strake() { quote "$binary" "$@"; }
source=127.0.0.1:5000 target=127.0.0.1:5001 own=127.0.0.1:5002
start_registry source 5000
start_registry target 5001
"$binary" registry serve --addr "$own" --storage "$work/disk/own" >"$work/own.log" 2>&1 &
serving=$!
servers+=("$serving")
answers "$own"
for form in gzip zstd plain; do
    [ -d "layers/$form" ] || continue
    "$binary" copy -q "oci:layers/$form" "docker://$source/layers:$form" >/dev/null
done
"$binary" copy -q "oci:layers/plain" "docker://$own/layers:plain" >/dev/null
podman=() docker=()
if [ -z "$quick" ]; then
    make_storage
    make_podman
    start_dockerd
fi

# row, runs, prepare, command: ours, and its peak of memory after the same preparation
ours() {
    measure "$1" strake "$2" "$3" "$4"
    sh -c "$settled; ${3:-true}" >/dev/null
    peak "$1" "$4"
}

fresh="rm -rf $STRAKE_ROOT"
image=$source/layers:gzip
measure pull bare "$few" 'rm -rf out; mkdir out' "bash -c 'for layer in layers/*.tar.gz; do tar -xzf \$layer -C out; done'"
rm -rf out
ours pull "$few" "$fresh" "$(strake pull -q "$image")"
# Nothing is lost on the way: every file of the layers is in the store, and no more than that.
"$binary" validate "$image" >/dev/null
[ ${#podman[@]} = 0 ] || measure pull podman 2 "$(quote "${podman[@]}" rmi -f "$image") >/dev/null 2>&1 || true" "$(quote "${podman[@]}" pull -q --tls-verify=false "$image")"
[ ${#docker[@]} = 0 ] || measure pull docker 2 "$(quote "${docker[@]}" rmi -f "$image") >/dev/null 2>&1 || true" "$(quote "${docker[@]}" pull -q "$image")"
if [ -d layers/zstd ]; then
    ours zstd "$few" "$fresh" "$(strake pull -q "$source/layers:zstd")"
    got pull strake >results/zstd.bare
fi

# Nothing new: what was pulled goes back to where it came from.
$fresh
"$binary" pull -q "$image" >/dev/null
ours again "$more" '' "$(strake push -q "$image")"
lines=$(wc -l <"$work/source.log")
"$binary" push -q "$image" >/dev/null
# It writes them when they are answered.
sleep 0.2
tail -n "+$((lines + 1))" "$work/source.log" | grep -c ' HTTP/1.1" ' >results/requests.strake || true

# repository, file, digest: what any client has to do at least
upload() {
    local location
    location=$(curl -sf -X POST -D - -o /dev/null "http://$1/blobs/uploads/" | tr -d '\r' | sed -n 's/^[Ll]ocation: //p')
    curl -sf -X PUT -H 'Content-Type: application/octet-stream' -T "$2" -o /dev/null "$location&digest=$3"
}
# from, to, digest: the same from one registry to another, without a file
move() { curl -sf "http://$1/blobs/$3" | upload "$2" - "$3"; }
export -f upload move

# row, directory: a layer that no registry has, compressed on the way there
push() {
    local row=$1 image=$target/$1 level size ours
    local prepare="$fresh target/docker; $(strake build -q -t "$image" "$2") >/dev/null; $settled"
    ours "$row" "$few" "$prepare" "$(strake push -q "$image")"
    if ! command -v pigz >/dev/null; then echo "$row: pigz is not installed: nothing to compare with" >&2 && return; fi
    ours=$(curl -sf -H 'Accept: application/vnd.oci.image.manifest.v1+json' "http://$target/v2/$row/manifests/latest" |
        python3 -c 'import json, sys; print(json.load(sys.stdin)["layers"][0]["size"])')
    tar -cf layer.tar -C "$2" file
    # The fastest that makes it as small, or within a hundredth.
    for level in 1 2 3 4 5 6 7 8 9; do
        pigz -n -p 2 "-$level" <layer.tar >layer.gz
        size=$(stat -c %s layer.gz)
        [ $((size * 100)) -gt $((ours * 101)) ] || break
    done
    echo "$row: $ours bytes, and $size by pigz -$level" >>results/ratios
    measure "$row" bare "$few" "rm -rf target/docker layer.gz" \
        "$(quote bash -c "pigz -n -p 2 -$level <layer.tar >layer.gz && upload $target/v2/bare layer.gz sha256:$(sha256sum <layer.gz | cut -d' ' -f1)")"
    rm -f layer.tar layer.gz
    $fresh target/docker
}
push incompressible big
push text text

from=docker://$source/layers:plain to=docker://$target/copied:plain
ours copy "$few" 'rm -rf target/docker' "$(strake copy -q "$from" "$to")"
blobs=$(tr '\n' ' ' <layers/plain.digests)
measure copy bare "$few" 'rm -rf target/docker' "$(quote bash -c "set -e; for blob in $blobs; do move $source/v2/layers $target/v2/copied \$blob; done")"
measure copy parallel "$few" 'rm -rf target/docker' "$(quote bash -c "printf '%s\n' $blobs | xargs -P 6 -I {} bash -c 'move $source/v2/layers $target/v2/copied {}'")"
[ -n "$quick" ] || ! command -v skopeo >/dev/null ||
    measure copy skopeo 2 'rm -rf target/docker' "$(quote skopeo --insecure-policy copy -q --src-tls-verify=false --dest-tls-verify=false "$from" "$to")"

# 64 clients, which all want the same at once. A client that does not get all of it fails.
clients() { quote bash -c "seq 64 | xargs -P 64 -I {} curl -sf -o /dev/null http://$1/v2/layers/blobs/$(head -1 layers/plain.digests)"; }
measure serve bare "$few" '' "$(clients "$source")"
measure serve strake "$few" '' "$(clients "$own")"
awk '/^VmHWM/ { printf "%.0f\n", $2 / 1024 }' "/proc/$serving/status" >results/serve.peak

columns=(podman docker skopeo) most=200
heading "dockerd: $(dockerd_version)"
size=$((6 * LAYER_MIB))
line pull "pull and unpack, 6 gzip layers, $size MB unpacked, cold (bare: \`tar xzf\`, one after the other)" '0.6 x bare, 2 x each peer' \
    'ours < 0.6 * bare && (podman == "" || podman / ours >= 2) && (docker == "" || docker / ours >= 2)'
line zstd 'the same with zstd (bare: ours with gzip)' '0.7 x bare' 'ours < 0.7 * bare'
line incompressible "push of $FILE_MIB MiB that nothing can compress, a new layer (bare: \`pigz -p2\`, upload by \`curl\`)" '1.1 x bare' 'ours < 1.1 * bare'
line text "push of $FILE_MIB MiB of text, a new layer (bare: the same)" '1.1 x bare' 'ours < 1.1 * bare'
line again 'push with nothing new, 6 layers' '30 ms' 'ours < 30'
line requests 'the same: requests' 'under 10' 'ours < 10' requests
line copy "copy from registry to registry, $size MB (bare: \`curl\`, one blob after the other)" '1.3 x bare' 'ours < 1.3 * bare'
line serve "\`registry serve\`: $LAYER_MIB MB to each of 64 clients at once (bare: docker-registry)" '1.0 x bare' 'ours <= bare'
echo
echo "Peak of memory: under $most MiB in all rows; of \`registry serve\`, that of the server, which has had a push too."
[ ! -e results/ratios ] || sed 's/^/Compressed: /; s/$/./' results/ratios
echo "Copying with six \`curl\` at once takes $(got copy parallel) ms."
exit $missed
