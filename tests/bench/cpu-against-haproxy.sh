#!/bin/sh
# CPU per full handshake: our proxy, whose keys are on a key server, against HAProxy with its key on disk. One worker each, the same
# backend, the same client; rounds alternate and the median of the ratios counts, because the machine is shared. Each client sends a
# request and takes the answer: for one that leaves after its handshake HAProxy mostly does not connect to the backend at all.
#   sh tests/bench/cpu-against-haproxy.sh [ROUNDS [HANDSHAKES]]      (default 7 rounds of 1500)
# The key server's own CPU is told beside, since it runs elsewhere. Prints a table in Markdown.
set -eu

command -v haproxy >/dev/null || sh "$(dirname -- "$0")/../../conf/install-packages.sh" bench
. "$(dirname -- "$0")/release-build.sh"
rounds=${1:-7}
handshakes=${2:-1500}
build=$KEYLESS_BUILD
work=$(mktemp -d)
pids=

finish() {
    for pid in $pids; do kill "$pid" 2>/dev/null || true; done
    wait 2>/dev/null || true
    rm -rf "$work"
}
trap finish EXIT
trap 'exit 130' INT TERM

certs=$root/certs/out
chmod 755 "$work"
mkdir "$work/haproxy"
for site in p256 rsa2048; do
    cat "$certs/sites/chains/$site.pem" "$certs/sites/keys/$site.key" >"$work/haproxy/$site.pem"
done

cat >"$work/nginx.conf" <<E2
daemon off; master_process off; pid $work/nginx.pid; error_log $work/nginx.log;
events { worker_connections 4096; }
http { access_log off; client_body_temp_path $work/b; proxy_temp_path $work/p; fastcgi_temp_path $work/f;
       uwsgi_temp_path $work/u; scgi_temp_path $work/s;
       server { listen 127.0.0.1:28080 backlog=4096; location / { return 200 "ok"; } } }
E2
cat >"$work/haproxy.cfg" <<E2
global
    nbthread 1
    maxconn 4000
defaults
    mode tcp
    timeout connect 5s
    timeout client 30s
    timeout server 30s
frontend tls
    bind 127.0.0.1:28443 backlog 4096 ssl crt $work/haproxy/
    default_backend web
backend web
    server nginx 127.0.0.1:28080
E2
cat >"$work/keyserver.yaml" <<E2
workers: 1
listen: 127.0.0.1:22407
tls: {certificate: $certs/channel/keyserver.pem, key: $certs/channel/keyserver-key.pem, client_ca: $certs/channel/ca.pem}
keys: [{dir: $certs/sites/keys}]
certificates: [{dir: $certs/sites/chains}]
clients: [{match: "DNS:edge1.example", keys: ["*"], allow: [transcript, tls12]}]
log: {level: warn}
E2
cat >"$work/proxy.yaml" <<E2
workers: 1
listen: [{address: "127.0.0.1:28444", backend: web}]
certificates: [{dir: $certs/sites/chains}]
key_servers: [{address: "127.0.0.1:22407", server_name: keys.example}]
key_channel: {certificate: $certs/channel/edge1.pem, key: $certs/channel/edge1-key.pem, ca: $certs/channel/ca.pem}
backends: {web: {servers: ["127.0.0.1:28080"]}}
log: {level: warn}
E2

# start NAME COMMAND...
start() {
    name=$1
    shift
    "$@" >"$work/$name.out" 2>&1 &
    pids="$! $pids"
    eval "${name}_pid=$!"
}

# wait_for PORT
wait_for() {
    tries=200
    until "$build/tests/bench/keyless-bench" handshake --quiet --count 1 --warm-up 0 --request / --sni p256.example "127.0.0.1:$1" >/dev/null 2>&1; do
        tries=$((tries - 1))
        [ $tries -gt 0 ] || { echo "nothing answers at port $1" >&2; cat "$work"/*.out >&2; exit 1; }
        sleep 0.1
    done
}

start nginx nginx -p "$work" -c "$work/nginx.conf"
start haproxy haproxy -db -f "$work/haproxy.cfg"
start keyserver "$build/keyserver/keyless-keyserver" -c "$work/keyserver.yaml"
start proxy "$build/proxy/keyless-proxy" -c "$work/proxy.yaml"
wait_for 28443
wait_for 28444

# shellcheck disable=SC2154  # start assigns them
cat >"$work/measure.py" <<'E2'
import json, statistics, subprocess, sys

bench, rounds, count, proxy, haproxy, keyserver = sys.argv[1], int(sys.argv[2]), sys.argv[3], *map(int, sys.argv[4:])


def cpu(pid):
    """Nanoseconds on a CPU of a process and its descendants."""
    total = 0
    import os
    for task in os.listdir(f"/proc/{pid}/task"):
        total += int(open(f"/proc/{pid}/task/{task}/schedstat").read().split()[0])
        for child in open(f"/proc/{pid}/task/{task}/children").read().split():
            total += cpu(int(child))
    return total


def run(port, site, pid):
    done = subprocess.run([bench, "handshake", "--json", "--count", count, "--parallel", "8", "--tls", "1.3", "--groups", "X25519",
                           "--ciphersuites", "TLS_AES_128_GCM_SHA256", "--request", "/", "--sni", f"{site}.example",
                           "--pid", str(pid), f"127.0.0.1:{port}"], capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"keyless-bench failed: {done.stderr}")
    return json.loads(done.stdout)


print("| key | proxy alone | HAProxy, key on disk | ratio (median of pairs) | key server beside |")
print("|---|---|---|---|---|")
for site, name in (("p256", "ECDSA P-256"), ("rsa2048", "RSA-2048")):
    ours, theirs, signer = [], [], []
    for _ in range(rounds):
        before = cpu(keyserver)
        ours.append(run(28444, site, proxy)["cpu_us"])
        signer.append((cpu(keyserver) - before) / 1000 / int(count))
        theirs.append(run(28443, site, haproxy)["cpu_us"])
    ratio = statistics.median(a / b for a, b in zip(ours, theirs))
    print(f"| {name} | {statistics.median(ours):.0f} us | {statistics.median(theirs):.0f} us | {ratio:.2f} | "
          f"{statistics.median(signer):.0f} us |")
E2
/usr/bin/python3 "$work/measure.py" "$build/tests/bench/keyless-bench" "$rounds" "$handshakes" "$proxy_pid" "$haproxy_pid" "$keyserver_pid"
