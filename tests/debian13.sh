#!/bin/sh
# Groups of tests/run.sh on Debian 13, with its OpenSSL 3.5 and gcc 14: in a root made by debootstrap below build/, in namespaces of
# their own, so that no process and no mount stays behind. Needs root. This is what sh tests/run.sh --debian 13 runs.
#   sh tests/debian13.sh GROUP ...
set -eu

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
top=$(dirname -- "$here")
base=$top/build/debian13
[ "$(id -u)" -eq 0 ] || { echo "debian13.sh: needs root, to make a root of Debian 13 and to change into it" >&2; exit 1; }
[ $# -gt 0 ] || { echo "usage: sh tests/debian13.sh GROUP ..." >&2; exit 2; }

if [ ! -e "$base/made" ]; then
    command -v debootstrap >/dev/null || sh "$top/conf/install-packages.sh" debian13
    rm -rf "$base"
    mkdir -p "$base/root"
    # Where this machine gets its own packages from, the other release's are too.
    mirror=$(apt-cache policy debootstrap | awk '$1 ~ /^[0-9]+$/ && $2 ~ /^http/ {print $2; exit}')
    echo "==> debootstrap trixie"
    debootstrap --variant=minbase --include=ca-certificates trixie "$base/root" "${mirror:-http://deb.debian.org/debian}" \
        >"$base/debootstrap.log" 2>&1 || { tail -n 40 "$base/debootstrap.log"; exit 1; }
    cp /etc/apt/apt.conf.d/* "$base/root/etc/apt/apt.conf.d/" 2>/dev/null || true
    touch "$base/made"
fi
cp /etc/resolv.conf /etc/hosts "$base/root/etc/" 2>/dev/null || true

# What git knows of; what an earlier run built there stays, so that only what has changed is built again.
mkdir -p "$base/root/work"
find "$base/root/work" -mindepth 1 -maxdepth 1 ! -name build ! -name certs -exec rm -rf {} +
(cd "$top" && git ls-files -z | xargs -0 tar cf - --) | tar xf - -C "$base/root/work"

groups=
for group in "$@"; do groups="$groups --group $group"; done
# The first process of a namespace ignores what it does not trap, and ends all others with it: so an interrupted run is one.
exec unshare --mount --pid --fork sh -euc '
    trap "exit 130" INT TERM
    mount --make-rprivate /
    mount --bind "$1" "$1" # so that tests/systemd.sh can make namespaces in there: their root must be a mount
    mount -t proc proc "$1/proc"
    mount --rbind /dev "$1/dev"
    mount --rbind /sys "$1/sys"
    env -u DESTDIR LC_ALL=C.UTF-8 chroot "$1" sh -c "cd /work && exec sh tests/run.sh$2" &
    wait $!
' sh "$base/root" "$groups"
