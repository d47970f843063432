#!/bin/sh
# Where the proxy's instructions go in a full TLS 1.3 handshake, by function: a release build under callgrind, its worker's counts only.
# Connecting to the backend, relaying nothing and closing are part of it, as in life. Unlike time, counts are the same on a busy machine.
#   sh tests/bench/callgrind.sh [SITE [HANDSHAKES [OUT]]]    (default p256 320; sites as in certs/out/sites: p256, rsa2048, ...)
#   TLS=1.2 RESUMED=1 MODE=tbs SHOWN=200 sh tests/bench/callgrind.sh ...    another version; resumed handshakes; another mode of the key
#                                                            server; so many functions in each list
# Prints instructions per handshake in all, and by function (own and inclusive); the raw dump goes to OUT if given.
set -eu

command -v valgrind >/dev/null || sh "$(dirname -- "$0")/../../conf/install-packages.sh" bench
. "$(dirname -- "$0")/release-build.sh"
export KEYLESS_PATIENCE=120 PYTHONPATH="$root/tests/integration"
export PYTHONDONTWRITEBYTECODE=1
exec /usr/bin/python3 "$here/callgrind.py" "${1:-p256}" "${2:-320}" "${3:-}"
