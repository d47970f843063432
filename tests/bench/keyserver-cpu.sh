#!/bin/sh
# CPU of the key server per signature at saturation, all its processes together, beside the bare operation by `openssl speed` on the same
# core. The key server has one core to itself, the load generator another; both runs of a pair follow each other at once, and the median
# of the pairs' ratios counts, because the machine is shared.
#   sh tests/bench/keyserver-cpu.sh [--strict] [PAIRS [SECONDS]]      (default 15 pairs of 1 s each)
# KEYSERVER=FILE measures another binary. Prints a table in Markdown; with --strict, exit status 1 when an aim is missed.
set -eu

. "$(dirname -- "$0")/keyserver-run.sh"
cat >"$work/keyserver.yaml" <<E2
workers: 1
listen: 127.0.0.1:22408
tls: {certificate: $certs/channel/keyserver.pem, key: $certs/channel/keyserver-key.pem, client_ca: $certs/channel/ca.pem}
keys: [{dir: $certs/sites/keys}]
certificates: [{dir: $certs/sites/chains}]
clients: [{match: "DNS:edge1.example", keys: ["*"], allow: [tls13, transcript]}]
log: {level: info}
E2
keyserver_start
/usr/bin/python3 "$here/keyserver_cpu.py" $strict "$build/tests/bench/keyless-bench" "$certs" "$pid" "${1:-15}" "${2:-1}"
