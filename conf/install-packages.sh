#!/bin/sh
# Installs the Debian packages that are missing: sh conf/install-packages.sh build | test | tidy | bench | browser | testssl | systemd | debian13
# Says what it installs; does nothing when all is there. Needs root, or sudo.
set -eu

build="gcc cmake ninja-build pkg-config libc6-dev libssl-dev libevent-dev libyaml-dev libc-ares-dev libseccomp-dev openssl curl"
test="$build libcmocka-dev python3 python3-pytest python3-pytest-timeout python3-pytest-xdist python3-cryptography nginx-light
    gnutls-bin libnss3-tools nftables iproute2 strace procps clang libclang-rt-dev clang-format ccache"

case ${1:-} in
build) wanted=$build ;;
test) wanted=$test ;;
tidy) wanted="$test clang-tidy" ;;
bench) wanted="$build python3 python3-pytest python3-cryptography nftables iproute2 nginx-light haproxy valgrind" ;;
browser) wanted="$test chromium" ;;
testssl) wanted="$test testssl.sh" ;;
systemd) wanted="$build systemd util-linux" ;;
debian13) wanted="debootstrap git util-linux" ;;
*) echo "usage: sh conf/install-packages.sh build|test|tidy|bench|browser|testssl|systemd|debian13" >&2; exit 2 ;;
esac

missing=
for package in $wanted; do
    state=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true)
    [ "$state" = installed ] || missing="$missing $package"
done
[ -n "$missing" ] || exit 0

as_root=
if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null || { echo "install-packages.sh: missing:$missing; run as root or install sudo" >&2; exit 1; }
    as_root=sudo
fi
echo "==> installing:$missing"

# A package's service (nginx) must not start only because it is installed.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' | $as_root tee "$policy" >/dev/null
    $as_root chmod 755 "$policy"
    trap '$as_root rm -f "$policy"' EXIT
fi
quiet() {
    "$@" >"$log" 2>&1 || { cat "$log" >&2; echo "install-packages.sh: failed: $*" >&2; exit 1; }
}
log=$(mktemp)
quiet $as_root apt-get update
# shellcheck disable=SC2086  # one word a package
quiet $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends $missing
rm -f "$log"
