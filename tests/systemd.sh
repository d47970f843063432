#!/bin/sh
# The units at work: a systemd of our own, in namespaces, over a throw-away copy of this root, starts both programs as installed,
# stops them, passes sockets on, and restarts what hangs. Needs root, systemd, overlayfs and cgroup2; nothing stays behind.
#   sh tests/systemd.sh            after: cmake --preset release && cmake --build --preset release
# Exit status 77: not possible here, and it says why.
set -eu

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
top=$(dirname -- "$here")
base=$top/build/systemd

cannot() {
    echo "systemd.sh: not run: $1" >&2
    exit 77
}

[ "$(id -u)" -eq 0 ] || cannot "needs root"
[ -x /lib/systemd/systemd ] || cannot "systemd is not installed"
parent=$(awk '$3 == "cgroup2" {print $2; exit}' /proc/mounts)
[ -n "$parent" ] || cannot "no cgroup2 is mounted"
group=$parent$(awk -F: '$1 == 0 {print $3}' /proc/self/cgroup)/keyless-systemd-$$
mkdir "$group" 2>/dev/null || cannot "cgroup2 is read-only"
leave() {
    find "$group" -depth -type d -exec rmdir {} + 2>/dev/null || true
}
trap leave EXIT

rm -rf "$base"
secrets=$base/var/lib/keyless-keyserver
mkdir -p "$base/over" "$base/shared" "$base/etc/keyless" "$secrets"
(umask 077 && openssl rand -out "$secrets/ticket.secret" 32)
DESTDIR=$base/installed cmake --install "$top/build/release" >/dev/null
sh "$top/certs/make-certs.sh" "$base/etc/keyless/certs" >/dev/null

cat >"$base/etc/keyless/keyserver.yaml" <<'YAML'
user: nobody
listen: ["0.0.0.0:2407", "[::]:2407"]
tls: {certificate: certs/channel/keyserver.pem, key: certs/channel/keyserver-key.pem, client_ca: certs/channel/ca.pem}
keys: [{dir: certs/sites/keys}]
certificates: [{dir: certs/sites/chains}]
clients: [{match: "DNS:edge1.example", keys: ["*"], allow: [transcript, tls12, list]}]
ticket_keys: {secret: /var/lib/keyless-keyserver/ticket.secret}
audit: {file: /var/log/keyless/audit.log}
admin: {listen: "unix:/run/keyless-keyserver/admin.sock"}
YAML
cat >"$base/etc/keyless/proxy.yaml" <<'YAML'
user: nobody
workers: 2
listen: [{address: "0.0.0.0:443", backend: web}, {address: "[::]:443", backend: web}]
certificates: [{dir: certs/sites/chains}]
key_servers: [{address: "127.0.0.1:2407", server_name: keys.example}]
key_channel: {certificate: certs/channel/edge1.pem, key: certs/channel/edge1-key.pem, ca: certs/channel/ca.pem}
backends: {web: {servers: ["builtin:hello"]}}
YAML

# What runs inside, as a service of that systemd: each step must succeed.
cat >"$base/shared/steps" <<'STEPS'
set -eu
until_true() {
    tries=300
    until "$@" >/dev/null 2>&1; do
        tries=$((tries - 1))
        [ $tries -gt 0 ] || { echo "in vain: $*"; systemctl --no-pager -l status keyless-proxy keyless-keyserver; exit 1; }
        sleep 0.1
    done
}
get() {
    curl -sS --max-time 20 --cacert /etc/keyless/certs/sites/ca.pem --resolve p256.example:443:127.0.0.1 https://p256.example/
}
property() {
    systemctl show --value -p "$2" "$1"
}
logged() {
    grep -q "$2" "/shared/$1.log"
}
not_logged() {
    if logged "$@"; then return 1; fi
}
restarts() {
    [ "$(property "$1" NRestarts)" = "$2" ] && [ "$(property "$1" ActiveState)" = active ]
}
# hang KIND: stops all processes of the proxy that are called so
hang() {
    found=0
    for pid in $(cat "/sys/fs/cgroup$(property keyless-proxy.service ControlGroup)/cgroup.procs"); do
        [ "$(cat "/proc/$pid/comm")" = "$1" ] || continue
        kill -STOP "$pid"
        found=$((found + 1))
    done
    [ $found -gt 0 ]
}
set -x

: "starting, by systemd and by the first client"
systemctl start keyless-keyserver.service
systemctl start keyless-proxy.socket
[ "$(property keyless-proxy.service ActiveState)" = inactive ]
get
[ "$(property keyless-proxy.service ActiveState)" = active ]
logged keyless-proxy 'event=listening address=0.0.0.0:443 sockets=1 opened_by="the service manager"'
not_logged keyless-keyserver opened_by

: "writing where it may"
[ -S /run/keyless-keyserver/admin.sock ]
[ -s /var/log/keyless/audit.log ]
[ "$(stat -c %s /var/lib/keyless-keyserver/ticket.secret)" -ne 32 ]

: "confined as far as without systemd"
for program in keyless-proxy keyless-keyserver; do
    not_logged $program 'not wholly confined'
    logged $program 'event=confined system_calls=true'
done

: "reloading"
for program in keyless-proxy keyless-keyserver; do
    systemctl reload $program.service
    until_true logged $program 'event=reloaded generation=2'
    until_true sh -c "systemctl show --value -p StatusText $program.service | grep -q '^generation 2, '"
done
get

: "restarting, while somebody connects"
systemctl --no-block restart keyless-proxy.service
get
until_true restarts keyless-proxy.service 0

: "a master that hangs is replaced"
systemctl kill --kill-whom=main -s SIGSTOP keyless-proxy.service
until_true restarts keyless-proxy.service 1
get

: "workers that all hang are replaced with their master, which lives"
hang kless-worker
until_true restarts keyless-proxy.service 2
logged keyless-proxy 'event="watchdog starves" kind=worker'
get

: "stopping"
systemctl stop keyless-proxy.socket keyless-proxy.service keyless-keyserver.service
for program in keyless-proxy keyless-keyserver; do
    [ "$(property $program.service Result)" = success ]
done
echo done >/shared/outcome
STEPS

# Beside the units as they are: where their logs go, no boot around them, and a watchdog that does not take half a minute.
units=$base/etc/systemd/system
mkdir -p "$units"
cp "$base/installed/usr/local/lib/systemd/system/"* "$units/"
for program in keyless-proxy keyless-keyserver; do
    mkdir "$units/$program.service.d" "$units/$program.socket.d"
    printf '[Unit]\nDefaultDependencies=no\n' >"$units/$program.socket.d/test.conf"
    printf '[Unit]\nDefaultDependencies=no\n[Service]\nWatchdogSec=3\nStandardOutput=append:/shared/%s.log\nStandardError=inherit\n' \
        $program >"$units/$program.service.d/test.conf"
done
printf '[Unit]\nDefaultDependencies=no\nAllowIsolate=yes\n' | tee "$units/network-online.target" >"$units/test.target"
printf 'Wants=test.service\n' >>"$units/test.target"
cat >"$units/test.service" <<'UNIT'
[Unit]
DefaultDependencies=no
[Service]
Type=oneshot
ExecStart=/bin/sh /shared/steps
ExecStopPost=/bin/systemctl --no-block exit
StandardOutput=file:/shared/steps.log
StandardError=inherit
UNIT

cat >"$base/enter" <<'ENTER'
set -eu
mount --make-rprivate /
mount -t tmpfs tmpfs "$1/over"
mkdir "$1/over/upper" "$1/over/work" "$1/over/root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$1/over/upper,workdir=$1/over/work" "$1/over/root"
new=$1/over/root
mount -t proc proc "$new/proc"
mount -t sysfs sysfs "$new/sys"
mount -t cgroup2 cgroup2 "$new/sys/fs/cgroup"
mount --rbind /dev "$new/dev"
mount -t tmpfs tmpfs "$new/run"
mount -t tmpfs tmpfs "$new/tmp"
cp -r "$1/installed/usr" "$1/etc" "$1/var" "$new/"
mkdir -p "$new/shared" "$new/old"
mount --bind "$1/shared" "$new/shared"
cd "$new"
pivot_root . old
umount -l /old
exec env -i container=other PATH=/usr/sbin:/usr/bin:/sbin:/bin /lib/systemd/systemd --system --unit=test.target \
    --log-target=console --show-status=no
ENTER

timeout -k 5 170 sh -c 'echo $$ >"$1/cgroup.procs" && exec unshare --cgroup --mount --pid --uts --ipc --net --fork --kill-child \
    sh "$2/enter" "$2"' sh "$group" "$base" >"$base/console.log" 2>&1 || true
if [ "$(cat "$base/shared/outcome" 2>/dev/null)" != done ]; then
    tail -n 50 "$base/console.log" "$base/shared/"*.log >&2
    exit 1
fi
