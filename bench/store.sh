#!/usr/bin/env bash
# Lists and prunes a store of 1,000 images and 20,000 layers, against the bare work: removing as many files (bench/README.md).
# usage: bench/store.sh STRAKE-BINARY   (as root)
#
# It prints a table in Markdown and exits with 1 where a goal is missed. IMAGES, LAYERS: other sizes than the goals are about, for work on the code.
set -euo pipefail
# shellcheck source=bench/lib.sh
. "$(dirname "$0")/lib.sh"
own_namespaces "$@"
binary=$(realpath "$1")
IMAGES=${IMAGES:-1000} LAYERS=${LAYERS:-20}

make_disk 4
strake() { quote "$binary" "$@"; }
mkdir context
for ((image = 1; image <= IMAGES; image++)); do
    {
        echo FROM scratch
        for ((layer = 1; layer <= LAYERS; layer++)); do printf 'COPY <<END /%s\n%s %s\nEND\n' "$layer" "$image" "$layer"; done
    } >context/Dockerfile
    "$binary" build -q -t "image$image" context >/dev/null
done
# Nobody waits for what the builds left to be flushed.
while pgrep -f '[s]trake-settler' >/dev/null; do sleep 0.05; done
[ "$("$binary" images -q | wc -l)" = "$IMAGES" ]
[ "$("$binary" image inspect image1 -f '{{len .RootFS.Layers}}')" = "$LAYERS" ]
cp -a "$STRAKE_ROOT" kept

measure list strake 20 '' "$(strake images)"
peak list "$(strake images)"
measure df strake 10 '' "$(strake system df)"
peak df "$(strake system df)"
measure prune bare 2 'rm -rf copy; cp -a kept copy' "sh -c 'rm -rf copy; sync'"
again="rm -rf $STRAKE_ROOT; cp -a kept $STRAKE_ROOT"
measure prune strake 2 "$again" "$(strake prune -f -a)"
sh -c "$again; sync"
peak prune "$(strake prune -f -a)"
[ -z "$("$binary" images -q)" ]

columns=()
heading 'one user, everything in the page cache'
line list "\`images\`, of $IMAGES images" '50 ms' 'ours < 50'
line df "\`system df\`, of $((IMAGES * LAYERS)) layers" '-' 'ours > 0'
line prune "\`prune -a\` of all (bare: \`rm -rf\` of the store, and \`sync\`)" '10 s' 'ours < 10000'
exit $missed
