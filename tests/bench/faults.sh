#!/bin/sh
# What clients notice while one of two key servers goes wrong: failures, latency, requests that were asked of both, and the time until
# the key server is used again.
#   sh tests/bench/faults.sh [--rounds N] [--seconds S] [--fault NAME ...] [--strict] [--strict-times]   (default: 3 rounds, 3 s each, all faults)
# Prints a table in Markdown. With --strict, exit status 1 when more clients failed than may; with --strict-times, also when the median of the
# rounds is too long: 99 % of handshakes within the hedge, two round trips and 50 ms; of use within 1 s after both were gone. Dropped packets need root.
set -eu

. "$(dirname -- "$0")/release-build.sh"
exec /usr/bin/python3 "$here/faults.py" "$@"
