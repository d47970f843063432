#!/bin/sh
# Random faults of two key servers, one after the other, under a steady load of full handshakes.
#   sh tests/bench/chaos.sh [SECONDS] [--seed N]      (default: 600 s)
# Prints its seed, each fault, and what became of the clients and of the worker's memory; exit status 1 when a client failed, one of the
# proxy's processes grew, too much was asked twice, or (from a minute on) one of 100 handshakes took too long.
set -eu

. "$(dirname -- "$0")/release-build.sh"
exec /usr/bin/python3 "$here/chaos.py" "$@"
