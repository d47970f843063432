"""What a stolen edge might try to have signed or decrypted, by every operation that takes such content, through a real key
server over mutual TLS. A case is a row: who asks, by which operation and key, for what, and what the answer and the log
must say. Each is refused, told in one line that names peer, key and reason, and counted; and whoever asked is served right
after on the same connection: a refusal costs nothing but itself."""

import contextlib
import dataclasses
import datetime
import functools
import hashlib
import os
import struct

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

import kssl_codec as kssl
import kssl_peer
import tls_wire as wire
import transcripts
from harness import SITES
from kssl_codec import Error, Op, Tag
from kssl_peer import Peer, private_site_key, site_key
from transcripts import adding, after, at, having, order, patched, record, without

NAMES = ["p256.example", "rsa2048.example", "ed25519.example", "*.wild.example"]
CLIENTS = [
    {"match": "DNS:edge1.example", "keys": ["p256", "rsa2048", "ed25519", "wildcard", "demo"], "names": NAMES,
     "allow": ["tls13", "tls12", "transcript"], "alpn": ["h2", "http/1.1", ""]},
    {"match": "DNS:edge2.example", "keys": ["p256", "rsa2048", "ed25519", "ed448"], "allow": ["digest", "decrypt"]},
    {"match": "DNS:stranger.example", "keys": ["p256"], "allow": ["tls12"]},
]
TLS, BARE, TLS12_ONLY = "edge1", "edge2", "stranger"

CRYPTO, NOT_FOUND, BAD_OPCODE, FORMAT = Error.CRYPTO, Error.KEY_NOT_FOUND, Error.BAD_OPCODE, Error.FORMAT
POLICY, CONTENT = Error.POLICY, Error.CONTENT
# What a line says where the error says it all.
REASONS = {CRYPTO: "cryptography failed", NOT_FOUND: "key not found", BAD_OPCODE: "bad opcode", FORMAT: "format error",
           CONTENT: "content not acceptable"}
NOT_THE_CLIENTS = "the SNI is none of the client's names"
NOT_COVERED = "the key's certificates have names that the client has not"


@dataclasses.dataclass(frozen=True)
class Case:
    name: str
    opcode: int
    key: object  # a site; octets of an SKI; None: the request names none
    payload: object  # octets, or what makes them
    error: Error
    reason: str | None = None  # None: what the error is called
    edge: str = TLS
    items: tuple = ()

    @property
    def ski(self):
        return kssl.ski(site_key(self.key)) if isinstance(self.key, str) else self.key

    def ask(self, peer):
        named = [] if self.key is None else [(Tag.SKI, self.ski)]
        payload = self.payload() if callable(self.payload) else self.payload
        return peer.request(self.opcode, payload, [*named, *self.items])


# ---- The contents that TLS 1.3 signs, right and wrong.


def content(context, spaces=64, zero=b"\0", rest=bytes(32)):
    return b" " * spaces + context + zero + rest


SERVER, CLIENT = b"TLS 1.3, server CertificateVerify", b"TLS 1.3, client CertificateVerify"
CREDENTIAL = b"TLS, server delegated credentials"

# As whole messages: none is one that a server signs.
CONTENTS = {
    "a client's CertificateVerify": content(CLIENT),
    "a client's, of 48 octets": content(CLIENT, rest=bytes(48)),
    "a delegated credential": content(CREDENTIAL, rest=b"leaf and credential"),
    "63 spaces": content(SERVER, spaces=63),
    "65 spaces": content(SERVER, spaces=65),
    "no zero": content(SERVER, zero=b""),
    "a zero too many": content(SERVER, zero=b"\0\0"),
    "another context": content(b"TLS 1.4, server CertificateVerify"),
    "no context": content(b""),
    "spaces alone": b" " * 130,
    **{f"a hash of {size}": content(SERVER, rest=bytes(size)) for size in (0, 20, 31, 33, 47, 49, 64)},
}


# ---- Operations that show no handshake: the SNI is claimed.


def sni(name):
    return ((Tag.SNI, name),)


MINE = sni(b"p256.example")


def claims(opcode, good):
    """What is true of every operation with a claimed SNI; good: a payload with nothing wrong, for p256."""
    return [
        Case("another SNI", opcode, "p256", good, POLICY, NOT_THE_CLIENTS, items=sni(b"p384.example")),
        Case("no SNI", opcode, "p256", good, POLICY, NOT_THE_CLIENTS),
        Case("an empty SNI", opcode, "p256", good, POLICY, NOT_THE_CLIENTS, items=sni(b"")),
        Case("a label more than the wildcard", opcode, "wildcard", good, POLICY, NOT_THE_CLIENTS,
             items=sni(b"a.b.wild.example")),
        Case("the wildcard's own domain", opcode, "wildcard", good, POLICY, NOT_THE_CLIENTS, items=sni(b"wild.example")),
        Case("the wildcard itself", opcode, "wildcard", good, POLICY, NOT_THE_CLIENTS, items=sni(b"*.wild.example")),
        Case("an SNI with a zero", opcode, "p256", good, POLICY, NOT_THE_CLIENTS, items=sni(b"p256.example\0.evil")),
        Case("an SNI of 256 octets", opcode, "p256", good, POLICY, NOT_THE_CLIENTS, items=sni(b"a" * 256)),
        Case("a key that serves for names of others too", opcode, "demo", good, POLICY, NOT_COVERED, items=MINE),
        Case("another client's key", opcode, "p384", good, NOT_FOUND, items=sni(b"p384.example")),
        Case("nobody's key", opcode, b"k" * 20, good, NOT_FOUND, items=MINE),
        Case("a key by its digest", opcode, None, good, FORMAT,
             items=((Tag.DIGEST, kssl.legacy_digest(site_key("p256"))), *MINE)),
        Case("no key", opcode, None, good, FORMAT, items=MINE),
        Case("no payload", opcode, "p256", None, FORMAT, items=MINE),
        Case("half a scheme", opcode, "p256", b"\x04", FORMAT, items=MINE),
        Case("who may have digests alone", opcode, "p256", good, BAD_OPCODE, edge=BARE, items=MINE),
    ]


def tls13(name, scheme, rest, error, key="p256", **how):
    return Case(name, Op.SIGN_TLS13, key, struct.pack("!H", scheme) + rest, error, items=MINE, **how)


TLS13 = [
    *claims(Op.SIGN_TLS13, kssl.sign_tls13(0x0403, bytes(32))),
    # A hash alone is taken, and only of a size that no content has: what is before it is the key server's.
    *(tls13(f"for a hash, {name}", 0x0403, octets, FORMAT) for name, octets in CONTENTS.items()),
    *(tls13(f"a hash of {size}", 0x0403, bytes(size), FORMAT) for size in (0, 1, 20, 31, 33, 47, 49, 64, 60000)),
    tls13("an octet behind a hash of 48", 0x0403, bytes(48) + b"x", FORMAT),
    Case("a hash of no size, nobody's key", Op.SIGN_TLS13, b"k" * 20, kssl.sign_tls13(0x0403, bytes(31)), FORMAT),
    tls13("pkcs1", 0x0401, bytes(32), CRYPTO, "rsa2048"),
    tls13("pkcs1, sha512", 0x0601, bytes(32), CRYPTO, "rsa2048"),
    tls13("pkcs1, sha1", 0x0201, bytes(32), CRYPTO, "rsa2048"),
    tls13("rsa_pss_pss", 0x0809, bytes(32), CRYPTO, "rsa2048"),
    tls13("another type's scheme", 0x0804, bytes(32), CRYPTO),
    tls13("another curve's scheme", 0x0503, bytes(48), CRYPTO),
    tls13("ecdsa, sha1", 0x0203, bytes(32), CRYPTO),
    tls13("ed448's for ed25519", 0x0808, bytes(32), CRYPTO, "ed25519"),
    tls13("no scheme", 0x0000, bytes(32), CRYPTO),
    Case("who may have TLS 1.2 alone", Op.SIGN_TLS13, "p256", kssl.sign_tls13(0x0403, bytes(32)), BAD_OPCODE,
         edge=TLS12_ONLY, items=MINE),
]


# ---- TLS 1.2.

X25519, SECP256R1, SECP384R1, SECP521R1, X448 = 0x001D, 0x0017, 0x0018, 0x0019, 0x001E
MARKED, MARK_11 = os.urandom(24) + kssl.DOWNGRADE_12, os.urandom(24) + kssl.DOWNGRADE_12[:7] + b"\0"
UNMARKED, SPACES = os.urandom(31) + b"\x07", b" " * 32
PARAMS = kssl.ecdh_params(X25519, bytes(range(32)))
P256, P384 = kssl_peer.point(ec.SECP256R1()), kssl_peer.point(ec.SECP384R1())


def dhe(p, g, y):
    """ServerDHParams (RFC 5246 section 7.4.3)."""
    return wire.vector16(p) + wire.vector16(g) + wire.vector16(y)


# The points of a named group, and parameters of sizes that there are.
BAD_PARAMS = {
    "explicit prime curve": b"\x01" + PARAMS[1:],
    "explicit curve over 2^m": b"\x02" + PARAMS[1:],
    "curve type 0": b"\0" + PARAMS[1:],
    "curve type 4": b"\x04" + PARAMS[1:],
    **{f"group {group:#06x}": kssl.ecdh_params(group, bytes(range(32)))
       for group in (0x0000, 0x0016, 0x001F, 0x0100, 0x11EC, 0x5A5A, 0xFF01, 0xFF02)},
    "secp256k1 with a point": kssl.ecdh_params(0x0016, P256),
    "brainpoolP256r1 with a point": kssl.ecdh_params(0x001A, P256),
    "the point of another group": kssl.ecdh_params(SECP256R1, bytes(32)),
    "a group for another's point": kssl.ecdh_params(X25519, P256),
    "a length of 31": struct.pack("!BHB", 3, X25519, 31) + bytes(32),
    "a length of 33": struct.pack("!BHB", 3, X25519, 33) + bytes(32),
    "octets behind, up to X448's size": PARAMS + bytes(60 - len(PARAMS)),
    "off the curve": kssl.ecdh_params(SECP256R1, b"\x04" + bytes(63) + b"\x01"),
    "off the curve, P-384": kssl.ecdh_params(SECP384R1, P384[:-1] + bytes([P384[-1] ^ 1])),
    "off the curve, P-521": kssl.ecdh_params(SECP521R1, b"\x04" + bytes(131) + b"\x01"),
    "coordinates too large": kssl.ecdh_params(SECP256R1, b"\x04" + b"\xff" * 64),
    "of another curve": kssl.ecdh_params(SECP384R1, b"\x04" + P256[1:] + bytes(32)),
    "compressed, filled up": kssl.ecdh_params(SECP256R1, bytes([2 + P256[-1] % 2]) + P256[1:33] + bytes(32)),
    "hybrid": kssl.ecdh_params(SECP256R1, bytes([6 + P256[-1] % 2]) + P256[1:]),
    "at infinity, filled up": kssl.ecdh_params(SECP256R1, bytes(65)),
    "DHE, small enough": dhe(bytes(31), b"\x02", bytes(31)),
}
# Of sizes that there are not.
NO_PARAMS = {
    "compressed": kssl.ecdh_params(SECP256R1, bytes([2 + P256[-1] % 2]) + P256[1:33]),
    "at infinity": kssl.ecdh_params(SECP256R1, b"\0"),
    "a short point": kssl.ecdh_params(SECP256R1, P256[:-1]),
    "a long point": kssl.ecdh_params(SECP256R1, P256 + b"x"),
    "an octet behind": PARAMS + b"x",
    "DHE": dhe(os.urandom(256), b"\x02", os.urandom(256)),
    **{f"{size} octets": bytes(size) for size in (0, 1, 35, 37, 68, 70, 136, 138)},
}


def tls12(name, error, server_random=MARKED, params=PARAMS, scheme=0x0403, key="p256", edge=TLS, client_random=bytes(32)):
    return Case(name, Op.SIGN_TLS12, key, kssl.sign_tls12(scheme, client_random, server_random, params), error, edge=edge,
                items=MINE)


def behind_spaces(context, size):
    """Parameters that would make a content of TLS 1.3 out of randoms of spaces."""
    return (context + b"\0").ljust(size, b"h")


TLS12 = [
    *claims(Op.SIGN_TLS12, kssl.sign_tls12(0x0403, bytes(32), MARKED, PARAMS)),
    tls12("no mark", CONTENT, UNMARKED),
    tls12("the mark not at the end", CONTENT, MARKED[1:] + b"x"),
    tls12("the mark of 1.1", CONTENT, MARK_11),
    tls12("the mark of 1.1, without tls13", CONTENT, MARK_11, edge=TLS12_ONLY),
    *(tls12(f"{name}{where}", CONTENT, params=params, edge=edge) for name, params in BAD_PARAMS.items()
      for edge, where in ((TLS, ""), (TLS12_ONLY, ", without tls13"))),
    *(tls12(name, FORMAT, params=params) for name, params in NO_PARAMS.items()),
    # 64 spaces in front: a client's CertificateVerify or a credential for who reads the parameters as context.
    tls12("randoms of spaces", CONTENT, SPACES, client_random=SPACES),
    *(tls12(f"spaces and {name}, {size} octets{where}", CONTENT, SPACES, behind_spaces(context, size), edge=edge,
            client_random=SPACES)
      for name, context in (("a client's context", CLIENT), ("a server's context", SERVER), ("a credential", CREDENTIAL))
      for size in (36, 60, 69, 101, 137)
      for edge, where in ((TLS, ""), (TLS12_ONLY, ", without tls13"))),
    *(tls12(f"spaces and a client's context, hash of {size}", FORMAT, SPACES, CLIENT + b"\0" + bytes(size), edge=TLS12_ONLY,
            client_random=SPACES) for size in (32, 48)),
    tls12("another type's scheme", CRYPTO, scheme=0x0804),
    tls12("ecdsa, sha1", CRYPTO, scheme=0x0203),
    tls12("pkcs1, md5 and sha1", CRYPTO, scheme=0x0101, key="rsa2048"),
    tls12("rsa_pss_pss", CRYPTO, scheme=0x0809, key="rsa2048"),
    tls12("another client's key, by who may have TLS 1.2 alone", NOT_FOUND, key="rsa2048", edge=TLS12_ONLY),
]


# ---- Whole handshakes.


@functools.cache
def base(name):
    return {
        "plain": lambda: record("p256", "p256.example"),
        "retry": lambda: record("p256", "p256.example", group="secp384r1"),
        "asking": lambda: record("p256", "p256.example", asks=True),
        "p384": lambda: record("p384", "p384.example"),
        "rsa": lambda: record("rsa2048", "rsa2048.example"),
    }[name]()


def shown(name, error, reason, change=lambda messages: messages, of="plain", key="p256", scheme=0x0403, **how):
    """The messages of a handshake, changed."""
    make = of if callable(of) else functools.partial(base, of)
    return Case(name, Op.SIGN_TRANSCRIPT, key, lambda: transcripts.payload(scheme, change(make())), error, reason, **how)


@functools.cache
def other_leaf():
    """A certificate of p256's key that the key server has not."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "p256.example")])
    now = datetime.datetime.utcnow()
    made = (x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(site_key("p256")).serial_number(1)
            .not_valid_before(now - datetime.timedelta(days=1)).not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.SubjectAlternativeName([x509.DNSName("p256.example")]), False)
            .sign(private_site_key("p256"), hashes.SHA256()))
    return made.public_bytes(serialization.Encoding.DER)


def with_leaf(leaf):
    return at(3, lambda message: transcripts.certificate(leaf, *transcripts.leaves_of(message)[1:]))


COOKIE = wire.vector16(b"crumbs")
MISSING = "a handshake message is missing or cut short"


def expected(message):
    return f"another message where {message} should be"


VERSION = [
    shown("a ServerHello of TLS 1.2", CONTENT, "the server does not negotiate TLS 1.3",
          at(1, without(wire.SUPPORTED_VERSIONS))),
    shown("TLS 1.2 chosen", CONTENT, "the server does not negotiate TLS 1.3",
          at(1, having(wire.SUPPORTED_VERSIONS, b"\x03\x03"))),
    shown("DTLS 1.3 chosen", CONTENT, "the server does not negotiate TLS 1.3",
          at(1, having(wire.SUPPORTED_VERSIONS, b"\xfe\xfc"))),
    shown("a ServerHello of DTLS", CONTENT, "the server does not negotiate TLS 1.3", at(1, patched(4, b"\xfe\xfd"))),
    shown("TLS 1.3 not offered", CONTENT, "the client does not offer TLS 1.3",
          at(0, having(wire.SUPPORTED_VERSIONS, b"\x02\x03\x03"))),
    shown("no versions offered", CONTENT, "the client does not offer TLS 1.3", at(0, without(wire.SUPPORTED_VERSIONS))),
    shown("DTLS", CONTENT, "the ClientHello is not one of TLS over TCP", at(0, patched(4, b"\xfe\xfd"))),
    shown("DTLS 1.0", CONTENT, "the ClientHello is not one of TLS over TCP", at(0, patched(4, b"\xfe\xff"))),
    shown("QUIC", CONTENT, "the ClientHello is one of QUIC", at(0, adding(wire.QUIC_PARAMETERS, b"\x01\x02\x03"))),
    shown("QUIC, empty", CONTENT, "the ClientHello is one of QUIC", at(0, adding(wire.QUIC_PARAMETERS, b""))),
    shown("QUIC of the drafts", CONTENT, "the ClientHello is one of QUIC", at(0, adding(wire.QUIC_PARAMETERS_DRAFT, b"\x01"))),
    shown("QUIC in a retried hello", CONTENT, "the ClientHello is one of QUIC", at(0, adding(wire.QUIC_PARAMETERS, b"")),
          "retry"),
    shown("QUIC of the server's", CONTENT, "an extension that EncryptedExtensions must not have",
          at(2, adding(wire.QUIC_PARAMETERS, b"\x01"))),
]

CHOICE = [
    shown("a scheme not offered", CONTENT, "the scheme is none that the client offered",
          at(0, having(wire.SIGNATURE_ALGORITHMS, wire.list16(0x0804)))),
    shown("no schemes offered", CONTENT, "the scheme is none that the client offered", at(0, without(wire.SIGNATURE_ALGORITHMS))),
    shown("another type's scheme", CRYPTO, None, scheme=0x0804),
    shown("another curve's scheme", CRYPTO, None, scheme=0x0503),
    shown("pkcs1", CRYPTO, None, of="rsa", key="rsa2048", scheme=0x0401),
    shown("a suite not offered", CONTENT, "the suite is none that the client offered", at(1, patched(71, b"\x13\x05"))),
    shown("a suite of TLS 1.2", CONTENT, "the suite is none that the client offered", at(1, patched(71, b"\xc0\x2b"))),
    shown("a group not offered", CONTENT, "the group is none that the client sent a share of",
          at(0, having(wire.SUPPORTED_GROUPS, wire.list16(wire.P384)))),
    shown("a group without a share", CONTENT, "the group is none that the client sent a share of",
          at(0, having(wire.KEY_SHARE, wire.shares((wire.P384, P384))))),
    shown("no share of the server's", CONTENT, "the ServerHello has no key share", at(1, without(wire.KEY_SHARE))),
    shown("another session id", CONTENT, "the server echoes another session id", at(1, patched(39, b"0123"))),
    shown("compression", CONTENT, "the server chose compression", at(1, patched(73, b"\x01"))),
    shown("compression offered", CONTENT, "the client offers compression", at(0, lambda hello: compressing(hello))),
]


def compressing(hello):
    """A ClientHello that offers DEFLATE too."""
    place = 39 + 32 + 2 + int.from_bytes(hello[71:73], "big")
    assert hello[place:place + 2] == b"\x01\0"
    body = hello[4:place] + b"\x02\0\x01" + hello[place + 2:]
    return wire.message(wire.CLIENT_HELLO, body)


NAME = [
    shown("another SNI", CONTENT, "the certificate is not for this SNI", of=lambda: record("p256", "p384.example")),
    shown("a label more", CONTENT, "the certificate is not for this SNI", of=lambda: record("p256", "a.p256.example")),
    shown("a label more than the wildcard", CONTENT, "the certificate is not for this SNI", key="wildcard",
          of=lambda: record("wildcard", "a.b.wild.example")),
    shown("the wildcard's own domain", CONTENT, "the certificate is not for this SNI", key="wildcard",
          of=lambda: record("wildcard", "wild.example")),
    shown("no SNI", POLICY, NOT_THE_CLIENTS, of=lambda: record("p256", None)),
    shown("an SNI that is not the client's", POLICY, NOT_THE_CLIENTS, of=lambda: record("demo", "demo.example"), key="demo"),
    shown("two SNIs", FORMAT, "malformed server_name",
          at(0, having(wire.SERVER_NAME, wire.names(b"p256.example", b"x.example")))),
    shown("an empty SNI", FORMAT, "malformed server_name", at(0, having(wire.SERVER_NAME, wire.names(b"")))),
    shown("another SNI claimed beside", FORMAT, "the SNI is not that of the ClientHello", items=sni(b"p384.example")),
    shown("none claimed beside", FORMAT, "the SNI is not that of the ClientHello", items=sni(b"")),
    shown("another protocol", CONTENT, "the protocol is none that the client offered",
          at(2, having(wire.ALPN, wire.vector16(wire.vector8(b"h3"))))),
    shown("a protocol, none offered", CONTENT, "an extension that EncryptedExtensions must not have", at(0, without(wire.ALPN))),
    shown("two protocols", FORMAT, "malformed protocol choice",
          at(2, having(wire.ALPN, wire.vector16(wire.vector8(b"h2") * 2)))),
    shown("a protocol that is not the client's", POLICY, "the protocol is none of the client's",
          of=lambda: record("p256", "p256.example", protocols=["imap"])),
    shown("acme", POLICY, "the protocol is acme-tls/1", of=lambda: record("p256", "p256.example", protocols=["acme-tls/1"])),
]

CERTIFICATE = [
    shown("another site's certificate", NOT_FOUND, "the certificate is none of this key's", of="p384"),
    shown("a certificate that the key server has not", NOT_FOUND, "the certificate is none of this key's",
          lambda messages: with_leaf(other_leaf())(messages)),
    shown("a certificate changed in one octet", NOT_FOUND, "the certificate is none of this key's",
          lambda messages: with_leaf(flipped(transcripts.leaves_of(messages[3])[0]))(messages)),
    shown("the issuer in the leaf's place", NOT_FOUND, "the certificate is none of this key's",
          at(3, lambda message: transcripts.certificate(*transcripts.leaves_of(message)[::-1]))),
    shown("no certificate", FORMAT, "malformed Certificate", at(3, lambda message: transcripts.certificate())),
    shown("a context", CONTENT, "the Certificate has a context",
          at(3, lambda message: transcripts.certificate(*transcripts.leaves_of(message), context=b"x"))),
    shown("a delegated credential", CONTENT, "an extension that a certificate must not have",
          at(3, lambda message: transcripts.certificate(*transcripts.leaves_of(message),
                                                        extras=wire.u16(wire.DELEGATED_CREDENTIAL) + wire.vector16(b"dc")))),
    shown("compressed", FORMAT, "a compressed certificate", at(3, patched(0, bytes([wire.COMPRESSED_CERTIFICATE])))),
    shown("another client's key", NOT_FOUND, None, of="p384", key="p384"),
    shown("nobody's key", NOT_FOUND, None, key=b"k" * 20),
]


def flipped(leaf):
    return leaf[:-1] + bytes([leaf[-1] ^ 1])


EXTENSIONS = [
    *(shown(f"an extension twice, message {number}", FORMAT, f"malformed {what}", at(number, adding(kind, b"", first=first)), of)
      for number, what, kind, of, first in (
          (0, "ClientHello", wire.SERVER_NAME, "plain", False), (0, "ClientHello", wire.SERVER_NAME, "plain", True),
          (1, "ServerHello", wire.KEY_SHARE, "plain", True), (2, "EncryptedExtensions", wire.ALPN, "plain", True),
          (3, "CertificateRequest", wire.SIGNATURE_ALGORITHMS, "asking", True), (2, "ClientHello", wire.ALPN, "retry", True),
          (1, "ServerHello", wire.KEY_SHARE, "retry", True))),
    shown("an extension twice, of the certificate", FORMAT, "malformed Certificate",
          at(3, lambda message: transcripts.certificate(*transcripts.leaves_of(message),
                                                        extras=2 * (wire.u16(wire.SCT) + wire.vector16(b"x"))))),
    shown("pre_shared_key in the ServerHello", CONTENT, "the server resumes a session",
          at(1, adding(wire.PRE_SHARED_KEY, b"\0\0"))),
    shown("pre_shared_key, offered too", CONTENT, "the server resumes a session",
          lambda messages: at(1, adding(wire.PRE_SHARED_KEY, b"\0\0"))(
              at(0, adding(wire.PRE_SHARED_KEY, wire.identities(b"ticket"), first=False))(messages))),
    shown("pre_shared_key in EncryptedExtensions", CONTENT, "an extension that EncryptedExtensions must not have",
          at(2, adding(wire.PRE_SHARED_KEY, b"\0\0"))),
    shown("early_data in EncryptedExtensions", CONTENT, "the server takes early data", at(2, adding(wire.EARLY_DATA, b""))),
    shown("early_data, offered too", CONTENT, "the server takes early data",
          lambda messages: at(2, adding(wire.EARLY_DATA, b""))(at(0, adding(wire.EARLY_DATA, b""))(messages))),
    shown("early_data in the ServerHello", CONTENT, "an extension that a ServerHello must not have",
          at(1, adding(wire.EARLY_DATA, b""))),
    shown("the SNI's answer in the ServerHello", CONTENT, "an extension that a ServerHello must not have",
          at(1, adding(wire.SERVER_NAME, b""))),
    shown("a raw public key", CONTENT, "an extension that EncryptedExtensions must not have",
          at(2, adding(wire.SERVER_CERTIFICATE_TYPE, b"\x02"))),
    shown("a request with a context", CONTENT, "the CertificateRequest has a context",
          at(3, lambda message: wire.message(message[0], wire.vector8(b"x") + message[5:])), "asking"),
    shown("a request without schemes", CONTENT, "the CertificateRequest names no signature schemes",
          at(3, without(wire.SIGNATURE_ALGORITHMS)), "asking"),
]

GROUP_NOT = "the HelloRetryRequest asks for a group that it had or could not have"
NOT_THE_FIRSTS = "the second ClientHello is not the first one's"
CHANGED = "the second ClientHello changed what it must not change"
NOT_THE_COOKIE = "the cookie is not that of the HelloRetryRequest"

# The messages of a retried handshake: ClientHello 0, HelloRetryRequest 1, ClientHello 2, ServerHello 3, and so on.
RETRY = [
    shown("another random", CONTENT, NOT_THE_FIRSTS, at(2, patched(6, b"0123")), "retry"),
    shown("another session id", CONTENT, NOT_THE_FIRSTS,
          lambda messages: at(3, patched(39, b"0123"))(at(2, patched(39, b"0123"))(messages)), "retry"),
    shown("other suites", CONTENT, NOT_THE_FIRSTS, at(2, patched(39 + 32 + 2, b"\x13\x05")), "retry"),
    shown("another SNI", CONTENT, CHANGED, at(0, having(wire.SERVER_NAME, wire.names(b"p384.example"))), "retry"),
    shown("no SNI at first", CONTENT, CHANGED, at(0, without(wire.SERVER_NAME)), "retry"),
    shown("other protocols", CONTENT, CHANGED, at(2, having(wire.ALPN, wire.vector16(wire.vector8(b"h2") * 2))), "retry"),
    shown("other protocols at first", CONTENT, CHANGED, at(0, without(wire.ALPN)), "retry"),
    shown("other schemes", CONTENT, CHANGED, at(2, having(wire.SIGNATURE_ALGORITHMS, wire.list16(0x0403))), "retry"),
    shown("other schemes at first", CONTENT, CHANGED, at(0, having(wire.SIGNATURE_ALGORITHMS, wire.list16(0x0403))), "retry"),
    shown("other groups", CONTENT, CHANGED, at(2, having(wire.SUPPORTED_GROUPS, wire.list16(wire.P384))), "retry"),
    shown("other versions", CONTENT, CHANGED, at(0, having(wire.SUPPORTED_VERSIONS, b"\x04\x03\x04\x03\x03")), "retry"),
    shown("early data in the second", CONTENT, "early data after a HelloRetryRequest", at(2, adding(wire.EARLY_DATA, b"")),
          "retry"),
    shown("for a group that was not offered", CONTENT, GROUP_NOT, at(1, having(wire.KEY_SHARE, wire.u16(wire.FFDHE2048 + 0xFF))),
          "retry"),
    shown("for a group that was there", CONTENT, GROUP_NOT, at(1, having(wire.KEY_SHARE, wire.u16(wire.X25519))), "retry"),
    shown("for another group", CONTENT, "the second ClientHello has not the one share that was asked for",
          at(1, having(wire.KEY_SHARE, wire.u16(wire.P521))), "retry"),
    shown("for no group", CONTENT, "the HelloRetryRequest names no group", at(1, without(wire.KEY_SHARE)), "retry"),
    shown("two shares", CONTENT, "the second ClientHello has not the one share that was asked for",
          at(2, having(wire.KEY_SHARE, wire.shares((wire.P384, P384), (wire.P256, P256)))), "retry"),
    shown("another group after it", CONTENT, "the ServerHello has another group than the HelloRetryRequest",
          at(3, having(wire.KEY_SHARE, wire.u16(wire.P256) + wire.vector16(P256))), "retry"),
    shown("another suite after it", CONTENT, "the ServerHello has another suite than the HelloRetryRequest",
          at(1, patched(71, b"\x13\x03")), "retry"),
    shown("of TLS 1.2", CONTENT, "the server does not negotiate TLS 1.3",
          at(1, having(wire.SUPPORTED_VERSIONS, b"\x03\x03")), "retry"),
    shown("with an extension more", CONTENT, "an extension that a HelloRetryRequest must not have",
          at(1, adding(wire.ALPN, b"")), "retry"),
    shown("a cookie that does not come back", CONTENT, NOT_THE_COOKIE, at(1, adding(wire.COOKIE, COOKIE)), "retry"),
    shown("a cookie out of nowhere", CONTENT, NOT_THE_COOKIE, at(2, adding(wire.COOKIE, COOKIE)), "retry"),
    shown("another cookie", CONTENT, NOT_THE_COOKIE,
          lambda messages: at(1, adding(wire.COOKIE, COOKIE))(
              at(2, adding(wire.COOKIE, wire.vector16(b"cookie")))(messages)), "retry"),
    shown("a cookie without a retry", CONTENT, "a cookie without a HelloRetryRequest", at(0, adding(wire.COOKIE, COOKIE))),
    shown("made up", CONTENT, "the server echoes another session id",
          lambda messages: [messages[0], base("retry")[1], messages[0], *messages[1:]]),
    shown("without the second hello", FORMAT, expected("ClientHello"), order(0, 1, 3, 4, 5), "retry"),
    shown("left out", FORMAT, expected("ServerHello"), order(0, 2, 3, 4, 5), "retry"),
    shown("left out, and the second hello", CONTENT, "the group is none that the client sent a share of",
          order(0, 3, 4, 5), "retry"),
    shown("twice", FORMAT, "a second HelloRetryRequest", order(0, 1, 2, 1, 3, 4, 5), "retry"),
    shown("that is a ServerHello by its random", FORMAT, expected("EncryptedExtensions"), at(1, patched(6, bytes(32))), "retry"),
]

FORM = [
    *(shown(f"message {number} cut short", FORMAT, MISSING, lambda messages, number=number: [
        *messages[:number], messages[number][:-1]]) for number in range(4)),
    *(shown(f"message {number} missing", FORMAT, reason, order(*(n for n in range(4) if n != number)))
      for number, reason in enumerate([*map(expected, ("ClientHello", "ServerHello", "EncryptedExtensions")), MISSING])),
    shown("no messages", FORMAT, MISSING, order()),
    shown("half a header", FORMAT, MISSING, lambda messages: [messages[0][:3]]),
    shown("the certificate before the extensions", FORMAT, expected("EncryptedExtensions"), order(0, 1, 3, 2)),
    shown("the ServerHello first", FORMAT, expected("ClientHello"), order(1, 0, 2, 3)),
    shown("a ClientHello twice", FORMAT, expected("ServerHello"), order(0, 0, 1, 2, 3)),
    shown("the request behind the certificate", FORMAT, "something behind Certificate", order(0, 1, 2, 4, 3), "asking"),
    shown("an octet behind", FORMAT, "something behind Certificate", lambda messages: [*messages, b"\0"]),
    shown("a CertificateVerify behind", FORMAT, "something behind Certificate",
          after(3, wire.message(wire.CERTIFICATE_VERIFY, bytes(8)))),
    shown("a ticket between", FORMAT, expected("EncryptedExtensions"), after(1, wire.message(wire.NEW_SESSION_TICKET, b""))),
    *(shown(f"an octet more in message {number}", FORMAT, f"malformed {what}",
            at(number, lambda message: wire.message(message[0], message[4:] + b"x")))
      for number, what in enumerate(("ClientHello", "ServerHello", "EncryptedExtensions", "Certificate"))),
    shown("the hash in their place", FORMAT, MISSING, lambda messages: [transcripts.transcript_hash(messages)]),
    shown("a content in their place", FORMAT, MISSING, lambda messages: [content(CLIENT)]),
    shown("the first hello's hash in its place", FORMAT, expected("ClientHello"), lambda messages: [
        b"\xfe\0\0\x20" + hashlib.sha256(messages[0]).digest(), *messages[1:]], "retry"),
    Case("no payload", Op.SIGN_TRANSCRIPT, "p256", None, FORMAT),
    Case("half a scheme", Op.SIGN_TRANSCRIPT, "p256", b"\x04", FORMAT),
    Case("no key", Op.SIGN_TRANSCRIPT, None, lambda: transcripts.payload(0x0403, base("plain")), FORMAT),
    shown("who may have digests alone", BAD_OPCODE, None, edge=BARE),
    shown("who may have TLS 1.2 alone", BAD_OPCODE, None, edge=TLS12_ONLY),
]


# ---- Bare operations.

DIGESTS = {Op.RSA_MD5SHA1: 36, Op.RSA_SHA1: 20, Op.RSA_SHA224: 28, Op.RSA_SHA256: 32, Op.RSA_SHA384: 48, Op.RSA_SHA512: 64,
           Op.RSA_PSS_SHA256: 32, Op.RSA_PSS_SHA384: 48, Op.RSA_PSS_SHA512: 64, Op.ECDSA_MD5SHA1: 36, Op.ECDSA_SHA1: 20,
           Op.ECDSA_SHA224: 28, Op.ECDSA_SHA256: 32, Op.ECDSA_SHA384: 48, Op.ECDSA_SHA512: 64}


def signer_of(opcode):
    return "rsa2048" if opcode < Op.ECDSA_MD5SHA1 or opcode >= Op.RSA_PSS_SHA256 else "p256"


BARE_CASES = [
    # Who may not have them gets none, whatever it is of.
    *(Case(f"{opcode.name}{where}", opcode, signer_of(opcode), bytes(size), BAD_OPCODE, edge=edge)
      for opcode, size in DIGESTS.items() for edge, where in ((TLS, ""), (TLS12_ONLY, ", by who may have TLS 1.2 alone"))),
    *(Case(f"ED25519, {name}", Op.ED25519, "ed25519", octets, BAD_OPCODE) for name, octets in CONTENTS.items()),
    Case("ED25519, a server's", Op.ED25519, "ed25519", content(SERVER), BAD_OPCODE),
    Case("the digest of a client's", Op.ECDSA_SHA256, "p256", hashlib.sha256(content(CLIENT)).digest(), BAD_OPCODE),
    *(Case(f"{opcode.name}, by who may have TLS", opcode, "rsa2048", bytes(256), BAD_OPCODE)
      for opcode in (Op.RSA_DECRYPT, Op.RSA_DECRYPT_RAW)),
    *(Case(f"{opcode.name}", opcode, "p256", content(CREDENTIAL), BAD_OPCODE, edge=edge)
      for opcode in (Op.SEAL, Op.UNSEAL, Op.CUSTOM, Op.DELEGATED_CREDENTIAL) for edge in (TLS, BARE)),
    # Who may have them has an oracle, but where the message itself is shown.
    *(Case(f"ED25519, {name}, allowed", Op.ED25519, "ed25519", octets, CONTENT, edge=BARE)
      for name, octets in CONTENTS.items() if octets.startswith(b" " * 64)),
    *(Case(f"{opcode.name}, {wrong} octets", opcode, signer_of(opcode), bytes(wrong), CRYPTO, edge=BARE)
      for opcode, size in DIGESTS.items() for wrong in (0, size - 1, size + 1, 130)),
    *(Case(f"{opcode.name}, another type of key", opcode, {"rsa2048": "p256", "p256": "rsa2048"}[signer_of(opcode)], bytes(size),
           CRYPTO, edge=BARE) for opcode, size in DIGESTS.items()),
    *(Case(f"ED25519 with {key}", Op.ED25519, key, b"message", CRYPTO, edge=BARE)
      for key in ("p256", "rsa2048", "ed448")),
    *(Case(f"{opcode.name}, another client's key", opcode, "p384", bytes(32), NOT_FOUND, edge=BARE)
      for opcode in (Op.ECDSA_SHA256, Op.RSA_SHA256, Op.ED25519, Op.RSA_DECRYPT, Op.RSA_DECRYPT_RAW)),
    Case("another client's key by its digest", Op.ECDSA_SHA384, None, bytes(48), NOT_FOUND, edge=BARE,
         items=((Tag.DIGEST, kssl.legacy_digest(site_key("p384"))),)),
    *(Case(f"{opcode.name}, {size} octets", opcode, "rsa2048", bytes(size), CRYPTO, edge=BARE)
      for opcode in (Op.RSA_DECRYPT, Op.RSA_DECRYPT_RAW) for size in (0, 1, 255, 257)),
    *(Case(f"{opcode.name}, larger than the modulus", opcode, "rsa2048", b"\xff" * 256, CRYPTO, edge=BARE)
      for opcode in (Op.RSA_DECRYPT, Op.RSA_DECRYPT_RAW)),
    *(Case(f"{opcode.name} with a curve's key", opcode, "p256", bytes(256), CRYPTO, edge=BARE)
      for opcode in (Op.RSA_DECRYPT, Op.RSA_DECRYPT_RAW)),
]


# ---- The one driver.


@pytest.fixture(scope="module")
def server(module_stack):
    return module_stack.key_server(clients=CLIENTS, certificates=[{"dir": str(SITES / "chains")}],
                                   log={"level": "info", "rate": 0})


OPERATIONS = {Op.SIGN_TLS13: "sign-tls13", Op.SIGN_TLS12: "sign-tls12", Op.SIGN_TRANSCRIPT: "sign-transcript"}


def good(peer, case):
    """A signature that the asker may have, by the operation that it asked for where it may have that."""
    key = site_key("p256")
    if case.edge == BARE:
        message = kssl.certificate_verify(bytes(32))
        answer = peer.with_key(Op.ED25519, site_key("ed25519"), message)
        kssl_peer.verify_scheme(site_key("ed25519"), answer.payload, message, 0x0807)
    elif case.edge == TLS12_ONLY or case.opcode == Op.SIGN_TLS12:
        answer = peer.sign_tls12(key, 0x0403, bytes(32), MARKED, PARAMS, items=MINE)
        kssl_peer.verify_scheme(key, answer.payload, bytes(32) + MARKED + PARAMS, 0x0403)
    elif case.opcode == Op.SIGN_TRANSCRIPT:
        answer = transcripts.sign(peer, "p256", base("plain"))
        kssl_peer.verify_scheme(key, answer.payload, kssl.certificate_verify(transcripts.transcript_hash(base("plain"))), 0x0403)
    else:
        answer = peer.sign_tls13(key, 0x0403, bytes(32), items=MINE)
        kssl_peer.verify_scheme(key, answer.payload, kssl.certificate_verify(bytes(32)), 0x0403)


def check_line(server, mark, peer, case):
    """The one line names the peer, its entry, the key that was asked for, the error and the reason."""
    line = server.wait_for("request refused", after=mark)
    assert len(server.find("request refused", after=mark)) == 1
    host, port = peer.raw.getsockname()
    assert (line["peer"], line["client"]) == (f"{host}:{port}", f"DNS:{case.edge}.example")
    assert line.get("key") == (case.ski.hex() if case.key is not None else None)
    assert (line["opcode"], line["error"]) == (str(int(case.opcode)), str(int(case.error)))
    assert line["operation"] == OPERATIONS.get(case.opcode, line["operation"])
    assert line["reason"] == (case.reason or REASONS[case.error])


def counts(server, case):
    """Refusals with its error, with any, and the asker's answers that were an error."""
    page, client = server.metrics(), f'client="DNS:{case.edge}.example"'
    return [page.sum("keyless_keyserver_refusals_total", f'error="0x{case.error:02X}"'),
            page.sum("keyless_keyserver_refusals_total"),
            page.sum("keyless_keyserver_requests_total", client, 'outcome="error"'),
            page.sum("keyless_keyserver_requests_forbidden_total")]


def cases():
    groups = {"tls13": TLS13, "tls12": TLS12, "transcript": [*VERSION, *CHOICE, *NAME, *CERTIFICATE, *EXTENSIONS, *FORM],
              "retry": RETRY, "bare": BARE_CASES}
    return [pytest.param(case, id=f"{group}: {case.name}") for group, rows in groups.items() for case in rows]


@pytest.fixture(scope="module")
def peers(server):
    """One connection of each client's, for everything: what is refused on it is never the last."""
    with contextlib.ExitStack() as opened:
        yield functools.cache(lambda edge: opened.enter_context(Peer(server.port, edge)))


@pytest.mark.parametrize("case", cases())
def test_refused(server, peers, case):
    peer = peers(case.edge)
    mark, before = server.mark(), counts(server, case)
    answer = case.ask(peer)
    assert answer.error == case.error, answer
    check_line(server, mark, peer, case)
    gained = [now - then for now, then in zip(counts(server, case), before)]
    # Nothing of it came as far as the signer's own checks.
    assert gained == [1, 1, 1, 0]
    good(peer, case)


# ---- What is not refused, because it is nothing of the kind.


@pytest.mark.parametrize("octets", [b" " * 32, b" " * 48, CLIENT[:32], content(CLIENT)[56:104]], ids=repr)
def test_hashes_that_look_like_contents(peers, octets):
    """Whatever is given for a hash stands behind the server's context."""
    answer = peers(TLS).sign_tls13(site_key("ed25519"), 0x0807, octets, items=sni(b"ed25519.example"))
    kssl_peer.verify_scheme(site_key("ed25519"), answer.payload, kssl.certificate_verify(octets), 0x0807)


@pytest.mark.parametrize("message", [content(SERVER), content(SERVER, rest=bytes(48)), content(CLIENT, spaces=63), b" " * 63,
                                     b""], ids=len)
def test_messages_that_may_be_signed(peers, message):
    """A server's CertificateVerify, and what no peer of TLS 1.3 takes for anything: for it 64 spaces stand in front."""
    answer = peers(BARE).with_key(Op.ED25519, site_key("ed25519"), message)
    kssl_peer.verify_scheme(site_key("ed25519"), answer.payload, message, 0x0807)


@pytest.mark.parametrize("of", ["plain", "retry", "asking"])
def test_handshakes_as_they_are(peers, of):
    """What the forgeries are made of is signed when it is not changed."""
    answer = transcripts.sign(peers(TLS), "p256", base(of))
    signed = kssl.certificate_verify(transcripts.transcript_hash(base(of)))
    kssl_peer.verify_scheme(site_key("p256"), answer.payload, signed, 0x0403)


def test_without_the_mark(peers):
    """For a client that may have TLS 1.2 alone, whose clients cannot be brought down to it."""
    answer = peers(TLS12_ONLY).sign_tls12(site_key("p256"), 0x0403, bytes(32), UNMARKED, PARAMS)
    kssl_peer.verify_scheme(site_key("p256"), answer.payload, bytes(32) + UNMARKED + PARAMS, 0x0403)
