# Prints what was measured as a table, and says what goal was missed. Sourced by bench/run.sh.

missed=0
# row, what, goal in words, expression over ours, bare, buildah, docker (awk) that is true where the goal is met, the bare work's name
line() {
    local row=$1
    awk -v what="$2" -v goal="$3" -v ours="$(got "$row" strake)" -v bare="$(got "$row" bare)" -v buildah="$(got "$row" buildah)" \
        -v docker="$(got "$row" docker)" -v peak="$(got "$row" peak)" '
        function ms(value) { return value == "" ? "-" : sprintf("%.1f ms", value) }
        function times(value) { return value == "" || ours + 0 == 0 ? "-" : sprintf("%.1f x", value / ours) }
        BEGIN {
            met = ours != "" && ('"$4"') && peak < 150
            printf "| %s | %s | %s | %s | %s (%s) | %s (%s) | %s MiB | %s | %s |\n", what, ms(ours), ms(bare), bare == "" ? "-" : sprintf("%.2f", ours / bare), \
                ms(buildah), times(buildah), ms(docker), times(docker), peak, goal, met ? "yes" : "**no**"
            exit !met
        }' || missed=1
}

echo
echo "$("$binary" --version), Linux $(uname -r), $(nproc) processors, load $(cut -d' ' -f1-3 /proc/loadavg); all on one $(stat -f -c %T .) ($(findmnt -no FSTYPE,OPTIONS -T .));"
echo "buildah isolation: ${isolation:-not run}; dockerd: $([ ${#docker[@]} = 0 ] && echo 'not run' || "${docker[@]}" version -f '{{.Server.Version}}')."
echo
echo '| what | Strake | bare work | ratio | buildah (Strake is faster) | dockerd (Strake is faster) | peak | goal | met |'
echo '|---|---|---|---|---|---|---|---|---|'
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
if [ -n "$(got run strake)" ]; then
    line run 'run of one container that does nothing' '-' 1
    echo
    echo "podman run: $(got run podman) ms."
fi
echo
echo "1 GiB against \`cp\` and \`openssl dgst -sha256\` (with the processor's SHA instructions): $(got big openssl) ms."
for shape in stages stacked joined; do
    echo "Stages ($shape): 250 in $(got ${shape}250 strake), 500 in $(got ${shape}500 strake), 1,000 in $(got ${shape}1000 strake), 2,000 in $(got ${shape}2000 strake) ms."
done
echo "One file changed: $(got changed opened) openings of files of the context (one to hash, one to copy)."
exit $missed
