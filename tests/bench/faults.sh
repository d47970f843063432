#!/bin/sh
# What clients notice while one of two key servers goes wrong: failures, latency, requests that were asked of both, and the time until
# the key server is used again.
#   sh tests/bench/faults.sh [--rounds N] [--seconds S] [--fault NAME ...] [--strict]   (default: 3 rounds, 3 s each, all faults)
# Prints a table in Markdown; with --strict, exit status 1 when a client failed that should not have. Dropped packets need root.
set -eu

. "$(dirname -- "$0")/release-build.sh"
exec /usr/bin/python3 "$here/faults.py" "$@"
