#!/bin/sh
# What many names cost the proxy: a P-256 and an RSA chain for each; start, reload, memory of a worker, CPU of a handshake.
#   sh tests/bench/many-names.sh [--names N] [--visited N] [--strict]      (default: 10000 names, all visited)
# Prints a table in Markdown; --strict fails when one of the limits is passed.
set -eu

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
root=$(dirname -- "$(dirname -- "$here")")
log=$(mktemp)
(cd "$root" && cmake --preset release && cmake --build --preset release) >"$log" 2>&1 || { cat "$log"; exit 1; }
rm -f "$log"
sh "$root/certs/make-certs.sh" >/dev/null
KEYLESS_BUILD=$root/build/release KEYLESS_SANITIZED=0 exec /usr/bin/python3 "$here/many_names.py" "$@"
