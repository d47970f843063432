#!/bin/sh
# Whether cheap signatures wait for dear ones: the latency of ECDSA P-256 while another client floods the same key server with RSA-4096,
# beside what it is while a program that has nothing to do with the key server takes as much CPU, at the same priority. The key server
# and that program share one core, the clients another; both runs of a pair follow each other at once, and the median of the pairs'
# ratios counts, because the machine is shared.
#   sh tests/bench/keyserver-flood.sh [--strict] [PAIRS [SECONDS]]      (default 7 pairs of 3 s each)
# Prints a table in Markdown; with --strict, exit status 1 when the aim is missed.
set -eu

. "$(dirname -- "$0")/keyserver-run.sh"
mkdir -m 700 "$work/keys"
cp "$certs/sites/keys/p256.key" "$work/keys/p256.key"
(umask 077 && openssl genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:4096 -out "$work/keys/rsa4096.key" 2>/dev/null)
for key in p256 rsa4096; do openssl pkey -in "$work/keys/$key.key" -pubout -out "$work/$key.pem"; done
cat >"$work/keyserver.yaml" <<E2
workers: 1
listen: 127.0.0.1:22409
tls: {certificate: $certs/channel/keyserver.pem, key: $certs/channel/keyserver-key.pem, client_ca: $certs/channel/ca.pem}
keys: [{dir: $work/keys}]
clients: [{match: "DNS:edge1.example", keys: ["*"], allow: [tls13]}, {match: "DNS:edge2.example", keys: ["*"], allow: [tls13]}]
log: {level: info}
E2
keyserver_start
/usr/bin/python3 "$here/keyserver_flood.py" $strict "$build/tests/bench/keyless-bench" "$certs" "$work" "$pid" "${1:-7}" "${2:-3}"
