#!/usr/bin/env bash
# Compares how Strake builds with Debian's buildah and dockerd with BuildKit, and with the bare work, in one run and on one disk (bench/README.md).
# usage: bench/run.sh STRAKE-BINARY   (as root)
#
# Each figure is the mean of the runs after a discarded first one. It prints a table in Markdown and exits with 1 where a goal is missed.
# QUICK=1 leaves the peers out and runs everything twice only: for work on the code.
set -euo pipefail
# shellcheck source=bench/lib.sh
. "$(dirname "$0")/lib.sh"
own_namespaces "$@"
binary=$(realpath "$1")
few=${quick:+2} few=${few:-4}
more=${quick:+10} more=${more:-20}

make_disk 24
python3 "$here/trees.py" . many big archive small stages
strake() { quote "$binary" "$@"; }
"$binary" import -c 'CMD ["sh"]' "$bases/busybox.tar" localhost/busybox >/dev/null
buildah=() docker=() isolation=
[ -n "$quick" ] || make_peers

# row, directory, ours runs, prepare, our flags, buildah's flags, docker's flags
against_peers() {
    local row=$1 dir=$2 runs=$3 prepare=$4
    local ours
    # shellcheck disable=SC2086
    ours=$(strake build -q --network host $5 -t "$row" "$dir")
    measure "$row" strake "$runs" "$prepare" "$ours"
    sh -c "$settled; ${prepare:-true}"
    peak "$row" "$ours"
    [ ${#buildah[@]} = 0 ] || measure "$row" buildah 2 "${8:-}" "$(quote "${buildah[@]}" bud -q --network host --isolation $isolation $6 -t "$row" "$dir")"
    [ ${#docker[@]} = 0 ] || measure "$row" docker 2 "${8:-}" "$(quote "${docker[@]}" build -q --network host $7 -t "$row" "$dir")"
}

fresh="rm -rf $STRAKE_ROOT"
against_peers cached small "$more" '' '' --layers ''
against_peers steps steps "$few" '' --no-cache '--no-cache --layers' --no-cache
mkdir busybox && tar -xf "$bases/busybox.tar" -C busybox
measure steps bare "$few" '' "$(quote bash -c 'for at in {1..20}; do chroot busybox /bin/sh -c "true $at"; done')"
measure steps loop "$few" '' "$(quote bash -c 'for at in {1..20}; do :; done')"
against_peers sleep sleep "$few" '' --no-cache '--no-cache --layers --jobs 8' --no-cache

cp="cp -a many/src out"
gone="rm -rf out"
measure cold bare "$few" "$gone" "$cp"
# Files that were touched within the last seconds are not remembered, so the tree has to be a little old.
sleep 3
against_peers cold many "$few" "$fresh" '' '--no-cache --layers' --no-cache
measure fifty bare "$more" '' "find many/src -printf '%p %s %m %U %G %T@ %C@ %i %n %y %l\n'"
"$binary" build -q -t fifty many >/dev/null
against_peers fifty many "$more" '' '' --layers ''
change='date +%s.%N > many/src/d05/d250/f50'
measure changed bare "$few" "$gone" "$cp"
against_peers changed many "$few" "$change" '' --layers '' "$change"
sh -c "$change"
if command -v strace >/dev/null; then
    strace -f -e trace=openat2 -o "$work/trace" "$binary" build -q -t changed many >/dev/null
    # Once to hash it, once to copy it; directories are opened too, and other files not at all.
    grep -c 'src/d[0-9]*/d[0-9]*/f' "$work/trace" >"results/changed.opened" || true
fi
rm -rf out

measure big bare "$few" 'rm -f copy' "sh -c 'cp big/file copy && sha256sum copy'"
measure big openssl "$few" 'rm -f copy' "sh -c 'cp big/file copy && openssl dgst -sha256 copy'"
rm -f copy
against_peers big big "$few" "$fresh" '' '--no-cache --layers' --no-cache
measure tar bare "$few" 'rm -rf out; mkdir out' 'tar -xf tar/a.tar -C out'
against_peers tar tar "$few" "$fresh" '' '--no-cache --layers' --no-cache
rm -rf out
for count in 250 500 1000 2000; do
    for shape in stages stacked joined; do
        measure "$shape$count" strake 2 "$fresh" "$(strake build -q -t stages "$shape$count")"
    done
done
peak stages1000 "$(strake build -q --no-cache -t stages stages1000)"

columns=(buildah docker)
heading "buildah isolation: ${isolation:-not run}; dockerd: $(dockerd_version)"
peers='(buildah == "" || buildah / ours >= 20) && (docker == "" || docker / ours >= 20)'
line cached 'nothing to do, 10 instructions, small context' '15 ms, 20 x each peer' "ours < 15 && $peers"
line fifty 'nothing to do, 50,000 files (bare: `find -printf`)' '1.5 x bare' 'ours < 1.5 * bare'
line steps '20 trivial RUN steps (bare: clone, chroot, exec, wait)' 'bare + 12 ms a step' 'ours - bare < 20 * 12'
line cold 'COPY of 50,000 files, cold (bare: `cp -a`)' '1.3 x bare' 'ours < 1.3 * bare'
line changed 'the same with one file changed (bare: `cp -a`)' '1.0 x bare' 'ours < bare'
line big 'COPY of 1 GiB, cold (bare: `cp`, `sha256sum`)' '1.3 x bare' 'ours < 1.3 * bare'
line sleep '8 stages of `RUN sleep 1`' '1.3 s' 'ours < 1300'
line tar 'ADD of a tarball of 20,000 files (bare: `tar x`)' '1.2 x bare' 'ours < 1.2 * bare'
line stages1000 '1,000 stages of one COPY each, each from the one before' '3 s' 'ours < 3000'
line stacked1000 'the same, each FROM the one before' '3 s' 'ours < 3000'
line joined1000 'the same, all copied into one more (2,000 COPY)' '6 s' 'ours < 6000'
echo
echo "1 GiB against \`cp\` and \`openssl dgst -sha256\` (with the processor's SHA instructions): $(got big openssl) ms."
for shape in stages stacked joined; do
    echo "Stages ($shape): 250 in $(got ${shape}250 strake), 500 in $(got ${shape}500 strake), 1,000 in $(got ${shape}1000 strake), 2,000 in $(got ${shape}2000 strake) ms."
done
echo "One file changed: $(got changed opened) openings of files of the context (one to hash, one to copy)."
exit $missed
