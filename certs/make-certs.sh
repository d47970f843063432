#!/bin/sh
# Makes a private CA and every certificate that the demo and the tests need. Nothing it makes is ever committed,
# and nothing of it may be used outside a test.
#
#   sh certs/make-certs.sh [--force] [DIR]        DIR is certs/out beside this script unless given
#
#   DIR/channel/   the CA of the channel between proxies and key servers, and both ends' certificates; the ones
#                  whose names begin with bad- must be refused, each for the reason in its name
#   DIR/sites/     ca.pem for clients; chains/NAME.pem for the proxy (public); keys/NAME.key for the key server alone
#   DIR/ticket.secret  what the key server makes ticket keys from
#
# A second run keeps what is still good for two days and makes the rest.
set -eu

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
force=no
out=$here/out
for argument in "$@"; do
    case $argument in
    --force) force=yes ;;
    -h | --help) sed -n '2,12s/^# \{0,1\}//p' "$0"; exit 0 ;;
    -*) echo "make-certs.sh: unknown option $argument" >&2; exit 2 ;;
    *) out=$argument ;;
    esac
done

umask 077
mkdir -p "$out"
chmod 755 "$out"
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
made=

quietly() {
    "$@" >"$scratch/log" 2>&1 || { echo "make-certs.sh: failed: $*" >&2; cat "$scratch/log" >&2; exit 1; }
}

# make_key FILE TYPE
make_key() {
    case $2 in
    rsa*) set -- "$1" -algorithm RSA -pkeyopt "rsa_keygen_bits:${2#rsa}" ;;
    p*) set -- "$1" -algorithm EC -pkeyopt "ec_paramgen_curve:P-${2#p}" ;;
    *) set -- "$1" -algorithm "$2" ;;
    esac
    file=$1
    shift
    quietly openssl genpkey "$@" -out "$file"
    chmod 600 "$file"
}

# is_good CERTIFICATE KEY: both exist and the certificate has two days left
is_good() {
    [ "$force" = no ] && [ -s "$1" ] && [ -s "$2" ] &&
        openssl x509 -in "$1" -noout -checkend 172800 >/dev/null 2>&1
}

# make_ca CERTIFICATE KEY NAME [ISSUER ISSUER_KEY]: a root, or an intermediate of ISSUER
make_ca() {
    ! is_good "$1" "$2" || return 0
    make_key "$2" p256
    pathlen=
    [ $# -eq 3 ] || pathlen=,pathlen:0
    {
        echo "basicConstraints = critical, CA:TRUE$pathlen"
        echo "keyUsage = critical, keyCertSign, cRLSign"
        echo "subjectKeyIdentifier = hash"
    } >"$scratch/ext"
    quietly openssl req -new -key "$2" -subj "/O=keyless test/CN=$3" -out "$scratch/csr"
    if [ $# -eq 3 ]; then
        quietly openssl x509 -req -in "$scratch/csr" -key "$2" -days 3000 -extfile "$scratch/ext" -out "$1"
    else
        quietly openssl x509 -req -in "$scratch/csr" -CA "$4" -CAkey "$5" -days 1000 \
            -extfile "$scratch/ext" -out "$1"
    fi
    chmod 644 "$1"
    made="$made $(basename "$1")"
}

# validity DAYS: openssl 3.4 no longer takes negative days, 3.0 takes nothing else for a certificate that has expired.
validity() {
    if [ "$1" -lt 0 ] && openssl x509 -help 2>&1 | grep -q -- -not_before; then
        echo "-not_before 20200101000000Z -not_after 20200102000000Z"
    else
        echo "-days $1"
    fi
}

# make_leaf CERTIFICATE KEY TYPE CA CA_KEY SANS EKU [DAYS]
# EKU "none" leaves the extension out; negative DAYS make a certificate that has expired.
make_leaf() {
    days=${8:-365}
    if [ "$days" -gt 0 ]; then
        ! is_good "$1" "$2" || return 0
    elif [ "$force" = no ] && [ -s "$1" ] && [ -s "$2" ]; then
        return 0
    fi
    if [ "$force" = yes ] || [ ! -s "$2" ]; then make_key "$2" "$3"; fi
    name=${6%%,*}
    {
        echo "basicConstraints = critical, CA:FALSE"
        echo "keyUsage = critical, digitalSignature"
        [ "$7" = none ] || echo "extendedKeyUsage = $7"
        echo "subjectAltName = $6"
        echo "subjectKeyIdentifier = hash"
        echo "authorityKeyIdentifier = keyid"
    } >"$scratch/ext"
    quietly openssl req -new -key "$2" -subj "/O=keyless test/CN=${name#*:}" -out "$scratch/csr"
    # shellcheck disable=SC2046  # an option and its value, or two
    quietly openssl x509 -req -in "$scratch/csr" -CA "$4" -CAkey "$5" $(validity "$days") \
        -extfile "$scratch/ext" -out "$1"
    chmod 644 "$1"
    made="$made $(basename "$1")"
}

# ---- The channel between proxies and key servers.

channel=$out/channel
mkdir -p "$channel" "$channel/private"
chmod 755 "$channel"
make_ca "$channel/ca.pem" "$channel/private/ca-key.pem" "channel CA"
make_ca "$channel/bad-other-ca.pem" "$channel/private/bad-other-ca-key.pem" "another CA"

# channel_leaf NAME SANS EKU [CA] [DAYS]
channel_leaf() {
    make_leaf "$channel/$1.pem" "$channel/$1-key.pem" p256 \
        "$channel/${4:-ca}.pem" "$channel/private/${4:-ca}-key.pem" "$2" "$3" "${5:-365}"
}
channel_leaf keyserver DNS:keys.example,DNS:localhost serverAuth
channel_leaf edge1 DNS:edge1.example clientAuth
channel_leaf edge2 DNS:edge2.example clientAuth
channel_leaf edge-no-eku DNS:edge1.example none
channel_leaf stranger DNS:stranger.example clientAuth
channel_leaf bad-edge-other-ca DNS:edge1.example clientAuth bad-other-ca
channel_leaf bad-edge-expired DNS:edge1.example clientAuth ca -1
channel_leaf bad-edge-server-eku DNS:edge1.example serverAuth
channel_leaf bad-keyserver-other-ca DNS:keys.example serverAuth bad-other-ca
channel_leaf bad-keyserver-expired DNS:keys.example serverAuth ca -1
channel_leaf bad-keyserver-client-eku DNS:keys.example clientAuth
channel_leaf bad-keyserver-name DNS:other.example serverAuth

# ---- Sites: one for each type of key, one with two, a wildcard, and the demo's.

sites=$out/sites
mkdir -p "$sites" "$sites/chains" "$sites/keys" "$sites/private"
chmod 755 "$sites" "$sites/chains"
make_ca "$sites/ca.pem" "$sites/private/ca-key.pem" "site root CA"
make_ca "$sites/private/issuer.pem" "$sites/private/issuer-key.pem" "site issuing CA" \
    "$sites/ca.pem" "$sites/private/ca-key.pem"

# site NAME TYPE SANS: the chain is the leaf, then the issuing CA
site() {
    make_leaf "$sites/private/$1.pem" "$sites/keys/$1.key" "$2" \
        "$sites/private/issuer.pem" "$sites/private/issuer-key.pem" "$3" serverAuth
    cat "$sites/private/$1.pem" "$sites/private/issuer.pem" >"$scratch/chain"
    if ! cmp -s "$scratch/chain" "$sites/chains/$1.pem"; then
        install -m 644 "$scratch/chain" "$sites/chains/.$1.new"
        mv "$sites/chains/.$1.new" "$sites/chains/$1.pem"
    fi
}
site demo p256 DNS:localhost,DNS:demo.example
site rsa2048 rsa2048 DNS:rsa2048.example
site p256 p256 DNS:p256.example
site p384 p384 DNS:p384.example
site p521 p521 DNS:p521.example
site ed25519 ed25519 DNS:ed25519.example
site ed448 ed448 DNS:ed448.example
site dual-ecdsa p256 DNS:dual.example
site dual-rsa rsa2048 DNS:dual.example
site wildcard p256 "DNS:*.wild.example"

# What ticket keys are made from; a key server goes on writing it.
if [ ! -s "$out/ticket.secret" ]; then
    openssl rand -out "$out/ticket.secret" 32
    made="$made ticket.secret"
fi

if [ -n "$made" ]; then
    echo "make-certs.sh: made in $out:$made"
else
    echo "make-certs.sh: everything in $out is still good"
fi
