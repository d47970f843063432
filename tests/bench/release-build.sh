# Makes the release build and the certificates, and tells tests in Python of it; to be sourced. Sets here and root.
# shellcheck shell=sh disable=SC2034
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
root=$(dirname -- "$(dirname -- "$here")")
log=$(mktemp)
mkdir -p "$root/build" # two may come at a time
(cd "$root" && flock build sh -c 'cmake --preset release && cmake --build --preset release') >"$log" 2>&1 || { cat "$log"; exit 1; }
rm -f "$log"
sh "$root/certs/make-certs.sh" ${KEYLESS_CERTS:+"$KEYLESS_CERTS"} >/dev/null
export KEYLESS_BUILD="$root/build/release" KEYLESS_SANITIZED=0
