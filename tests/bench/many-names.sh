#!/bin/sh
# What many names cost the proxy: a P-256 and an RSA chain for each; start, reload, memory of a worker, CPU of a handshake.
#   sh tests/bench/many-names.sh [--names N] [--visited N] [--strict]      (default: 10000 names, all visited)
# Prints a table in Markdown; --strict fails when one of the limits is passed.
set -eu

. "$(dirname -- "$0")/release-build.sh"
exec /usr/bin/python3 "$here/many_names.py" "$@"
