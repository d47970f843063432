# What the measurements of the key server share; to be sourced, with the script's own arguments. Leaves the number arguments, and sets:
#   here, root, build, certs    where things are; the release build is made
#   strict                      --strict or empty
#   work                        a directory of this run, which ends with it, as the key server does
# shellcheck shell=sh disable=SC2034
. "$(dirname -- "$0")/release-build.sh"
strict=
if [ "${1:-}" = --strict ]; then
    strict=--strict
    shift
fi
build=$KEYLESS_BUILD
work=$(mktemp -d)
pid=

finish() {
    [ -z "$pid" ] || kill "$pid" 2>/dev/null || true
    wait 2>/dev/null || true
    rm -rf "$work"
}
trap finish EXIT
trap 'exit 130' INT TERM

certs=$root/certs/out
chmod 755 "$work"

# Starts the key server of $work/keyserver.yaml on the first core, and waits until it is ready. KEYSERVER: another binary. Sets pid.
keyserver_start() {
    taskset -c 0 "${KEYSERVER:-$build/keyserver/keyless-keyserver}" -c "$work/keyserver.yaml" >"$work/keyserver.log" 2>&1 &
    pid=$!
    tries=100
    until grep -q 'event=ready' "$work/keyserver.log"; do
        tries=$((tries - 1))
        [ $tries -gt 0 ] || { cat "$work/keyserver.log" >&2; exit 1; }
        sleep 0.1
    done
}
