#!/usr/bin/env bash
# Builds examples/http-server, ships it through a registry, runs it and asks it for a page. Everything happens in a temporary directory.
# usage: examples/demo.sh STRAKE-BINARY
set -euo pipefail
cd "$(dirname "$0")/.."
binary=$(realpath "$1")
as_root=()
[ "$(id -u)" = 0 ] || as_root=(sudo env)

mkdir -p target/demo
work=$(mktemp -d -p "$PWD/target/demo")
store=$work/store
strake() { "${as_root[@]}" "$binary" --root "$store" "$@"; }
say() { printf '\n\033[1m== %s\033[0m\n' "$*"; }
show() { printf '$ strake %s\n' "$*" | sed "s,$work/,,g"; strake "$@"; }
free_port() { local port; while port=$((20000 + RANDOM % 30000)); (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; do :; done; echo "$port"; }
cleanup() {
    strake rm -f demo-web >/dev/null 2>&1 || true
    [ -z "${registry_process:-}" ] || kill "$registry_process" 2>/dev/null || true
    "${as_root[@]}" rm -rf "$work"
}
trap cleanup EXIT

say 'A registry on the loopback interface'
"$binary" registry serve --addr 127.0.0.1:0 --storage "$work/registry" >"$work/registry.address" 2>"$work/registry.log" &
registry_process=$!
for _ in $(seq 100); do [ -s "$work/registry.address" ] && break; sleep 0.1; done
registry=$(sed 's,.*//,,' "$work/registry.address")
echo "$registry"

say 'A base image of a root file system (Debian, made by mmdebstrap)'
show import target/bases/minbase.tar "$registry/minbase:bookworm"
show push "$registry/minbase:bookworm"

say 'Build: a compiler in one stage, the program alone in the next'
image=$registry/http-server:1
show build --build-arg "BASE=$registry/minbase:bookworm" -t "$image" examples/http-server

say 'Build again: nothing to do'
time show build --build-arg "BASE=$registry/minbase:bookworm" -t "$image" examples/http-server

say 'Push it, forget everything, pull it'
show push "$image"
"${as_root[@]}" rm -rf "$store"
show pull "$image"

say 'Run it in the background and ask it'
port=$(free_port)
show run -d --name demo-web --network host -e "PORT=$port" "$image"
for _ in $(seq 100); do curl -sf "http://127.0.0.1:$port/" >/dev/null && break; sleep 0.1; done
printf '$ curl http://127.0.0.1:%s/\n' "$port"
page=$(curl -sf "http://127.0.0.1:$port/")
echo "$page"
show ps
show logs demo-web
show stop demo-web
show rm demo-web
case $page in *Hello*) say 'It works' ;; *) exit 1 ;; esac
