#!/bin/sh
# From nothing to a TLS handshake whose signature came from the key server:
#   sh conf/quickstart.sh            installs what is missing, builds, makes certificates, starts a key server and a
#                                    proxy with its demo backend, makes a request with curl, stops everything
#   sh conf/quickstart.sh --keep     leaves both running, and says how to reach and stop them
set -eu

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
root=$(dirname -- "$here")
build=$root/build/quickstart
run=$build/run
keep=no
case ${1:-} in
'') ;;
--keep) keep=yes ;;
*) sed -n '2,5s/^# \{0,1\}//p' "$0"; exit 2 ;;
esac

say() {
    printf '==> %s\n' "$*"
}

# stop_program NAME: ends the one that we started, if it still runs, and waits for it
stop_program() {
    pid=$(cat "$run/$1.pid" 2>/dev/null) || return 0
    rm -f "$run/$1.pid"
    tr '\0' ' ' 2>/dev/null <"/proc/$pid/cmdline" | grep -q "^$build/.*keyless-$1 " || return 0
    kill -TERM "$pid"
    tries=100
    while kill -0 "$pid" 2>/dev/null && [ $tries -gt 0 ]; do
        sleep 0.1
        tries=$((tries - 1))
    done
    ! kill -0 "$pid" 2>/dev/null || kill -KILL "$pid"
}

stop_all() {
    stop_program proxy
    stop_program keyserver
}

# start_program NAME BINARY CONFIGURATION: starts it and waits until it says that it is ready
start_program() {
    say "starting the $1: keyless-$1 -c ${3#"$root/"}"
    : >"$run/$1.log"
    "$build/$2" -c "$3" >>"$run/$1.log" 2>&1 </dev/null &
    echo $! >"$run/$1.pid"
    tries=150
    until grep -q ' event=ready' "$run/$1.log"; do
        if ! kill -0 "$(cat "$run/$1.pid")" 2>/dev/null || [ $tries -eq 0 ]; then
            echo "quickstart.sh: the $1 did not start; its log ($run/$1.log):" >&2
            cat "$run/$1.log" >&2
            exit 1
        fi
        sleep 0.1
        tries=$((tries - 1))
    done
}

sh "$here/install-packages.sh" build

say "building (cmake --preset release) in $build"
mkdir -p "$build"
(cd "$root" && cmake --preset release -B "$build" -DKEYLESS_TESTS=OFF && cmake --build "$build") \
    >"$build/build.log" 2>&1 || { cat "$build/build.log" >&2; exit 1; }

say "making certificates: sh certs/make-certs.sh"
sh "$root/certs/make-certs.sh"

mkdir -p "$run"
stop_all
trap stop_all EXIT
trap 'exit 130' INT TERM
start_program keyserver keyserver/keyless-keyserver "$here/keyserver.yaml"
proxy_config=$here/proxy.yaml
if ! grep -q '^0\{31\}1 ' /proc/net/if_inet6 2>/dev/null; then
    say "this machine has no IPv6 loopback: leaving [::1] out of the proxy's addresses"
    proxy_config=$run/proxy.yaml
    sed -e '/"\[::1\]:/d' -e "s|\.\./certs/|$root/certs/|" "$here/proxy.yaml" >"$proxy_config"
fi
start_program proxy proxy/keyless-proxy "$proxy_config"

url=https://localhost:8443/
say "curl --cacert certs/out/sites/ca.pem $url"
answer=$(curl --silent --show-error --fail --max-time 10 --ipv4 --cacert "$root/certs/out/sites/ca.pem" "$url")
echo "$answer"
# A handshake with no key server in it would leave the name out.
echo "$answer" | grep -Eq '"key_server": *"[^"]+"' || { echo "quickstart.sh: no key server signed" >&2; exit 1; }
say "that handshake was signed by the key server; the proxy holds no private key of the site"

if [ $keep = yes ]; then
    trap - EXIT
    say "both are running; logs in $run"
    say "try: curl --cacert $root/certs/out/sites/ca.pem $url"
    say "stop: kill $(cat "$run/proxy.pid") $(cat "$run/keyserver.pid")"
fi
