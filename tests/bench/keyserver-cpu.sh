#!/bin/sh
# CPU of the key server per signature at saturation, all its processes together, beside the bare operation by `openssl speed` on the same
# core. The key server has one core to itself, the load generator another; both runs of a pair follow each other at once, and the median
# of the pairs' ratios counts, because the machine is shared.
#   sh tests/bench/keyserver-cpu.sh [--strict] [PAIRS [SECONDS]]      (default 15 pairs of 1 s each)
# KEYSERVER=FILE measures another binary. Prints a table in Markdown; with --strict, exit status 1 when an aim is missed.
set -eu

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
root=$(dirname -- "$(dirname -- "$here")")
strict=
if [ "${1:-}" = --strict ]; then
    strict=--strict
    shift
fi
build=$root/build/release
work=$(mktemp -d)
pid=

finish() {
    [ -z "$pid" ] || kill "$pid" 2>/dev/null || true
    wait 2>/dev/null || true
    rm -rf "$work"
}
trap finish EXIT
trap 'exit 130' INT TERM

(cd "$root" && cmake --preset release && cmake --build --preset release) >"$work/build.log" 2>&1 || { cat "$work/build.log"; exit 1; }
sh "$root/certs/make-certs.sh" >/dev/null
certs=$root/certs/out
chmod 755 "$work"
cat >"$work/keyserver.yaml" <<E2
workers: 1
listen: 127.0.0.1:22408
tls: {certificate: $certs/channel/keyserver.pem, key: $certs/channel/keyserver-key.pem, client_ca: $certs/channel/ca.pem}
keys: [{dir: $certs/sites/keys}]
certificates: [{dir: $certs/sites/chains}]
clients: [{match: "DNS:edge1.example", keys: ["*"], allow: [tls13, transcript]}]
log: {level: info}
E2
taskset -c 0 "${KEYSERVER:-$build/keyserver/keyless-keyserver}" -c "$work/keyserver.yaml" >"$work/keyserver.log" 2>&1 &
pid=$!
tries=100
until grep -q 'event=ready' "$work/keyserver.log"; do
    tries=$((tries - 1))
    [ $tries -gt 0 ] || { cat "$work/keyserver.log" >&2; exit 1; }
    sleep 0.1
done
/usr/bin/python3 "$here/keyserver_cpu.py" $strict "$build/tests/bench/keyless-bench" "$certs" "$pid" "${1:-15}" "${2:-1}"
