# Prints what was measured as a table in Markdown, and keeps in mind what goal was missed. Sourced by lib.sh; a bench sets what follows, calls `heading` and `line`, and exits with $missed.

missed=0
# The peers that have a column of their own, and the MiB that no row may reach.
columns=() most=150

# format: it, with the name of each column.
each() { [ ${#columns[@]} = 0 ] || printf "$1" "${columns[@]}"; }

# what is to be said of the peers
heading() {
    echo
    echo "$("$binary" --version), Linux $(uname -r), $(nproc) processors, load $(cut -d' ' -f1-3 /proc/loadavg); all on one $(stat -f -c %T .) ($(findmnt -no FSTYPE,OPTIONS -T .));"
    echo "$1."
    echo
    echo "| what | Strake | bare work | ratio |$(each ' %s (Strake is better) |') peak | goal | met |"
    echo "|---|---|---|---|$(each '%.0s---|')---|---|---|"
}

# row, what, goal in words, expression over ours, bare and the peers (awk) that is true where the goal is met, unit (or ms): where there is nothing to compare with, the goal is left open.
line() {
    local row=$1 name values=()
    for name in "${columns[@]}"; do values+=(-v "$name=$(got "$row" "$name")"); done
    awk -v what="$2" -v goal="$3" -v unit="${5:-ms}" -v ours="$(got "$row" strake)" -v bare="$(got "$row" bare)" -v peak="$(got "$row" peak)" -v most="$most" "${values[@]}" '
        function show(value) { return value == "" ? "-" : sprintf(value == int(value) ? "%d %s" : "%.1f %s", value, unit) }
        function peer(value) { return show(value) (value == "" || ours + 0 == 0 ? "" : sprintf(" (%.1f x)", value / ours)) " | " }
        BEGIN {
            open = bare == "" && "'"${4//\"/\\\"}"'" ~ /bare/
            met = ours != "" && ('"$4"') && peak < most
            printf "| %s | %s | %s | %s | ", what, show(ours), show(bare), bare == "" || ours == "" ? "-" : sprintf("%.2f", ours / bare)
            printf "%s", "" '"$(each 'peer(%s) ')"'
            printf "%s | %s | %s |\n", peak == "" ? "-" : peak " MiB", goal, met ? "yes" : open && ours != "" ? "left open" : "**no**"
            exit !met && !(open && ours != "")
        }' || missed=1
}
