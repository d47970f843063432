#!/bin/sh
# A key that a client may not use is to look like one that does not exist, in its time too: by callgrind's count the key server
# executes the same number of instructions for either, in each operation that names a key. So whoever asks learns nothing about other
# clients' keys. (What a look-up costs depends on the name asked for and on the client's own keys. The names compared here take the
# same places in its table; forbidden_key.c tells how.)
#   sh tests/bench/forbidden-keys.sh
# Prints a table in Markdown; exit status 1 when two counts differ by an instruction for each of the 32 requests, or more. (Some
# runs have one more in all, of either kind; what depends on the key is there with each request.)
set -eu

command -v valgrind >/dev/null || sh "$(dirname -- "$0")/../../conf/install-packages.sh" bench
. "$(dirname -- "$0")/release-build.sh"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM

# count OPERATION KIND: instructions of operation_decide and of what it calls
count() {
    valgrind --tool=callgrind --toggle-collect=operation_decide --callgrind-out-file=/dev/null \
        "$KEYLESS_BUILD/tests/bench/forbidden-key" "$root/certs/out/sites/chains/p256.pem" "$1" "$2" >"$work/out" 2>&1 ||
        { cat "$work/out" >&2; exit 1; }
    sed -n 's/^==[0-9]*== Collected : \([0-9]*\)$/\1/p' "$work/out"
}

status=0
echo "| operation | instructions, 32 forbidden keys | 32 unknown keys |"
echo "|---|---|---|"
for operation in sign-tls13 sign-tls12 sign-transcript ecdsa-sha256 ecdsa-sha256-by-digest ed25519 decrypt; do
    forbidden=$(count $operation forbidden)
    unknown=$(count $operation unknown)
    echo "| $operation | $forbidden | $unknown |"
    apart=$((forbidden - unknown))
    [ "${forbidden:-0}" -gt 0 ] && [ "${apart#-}" -lt 32 ] || status=1
done
[ $status -eq 0 ] || echo "forbidden-keys.sh: the counts differ" >&2
exit $status
