"""What the key server answers: every operation and every error, over the wire, signatures verified by another
library. What is refused for what it would sign is test_oracle.py's."""

import collections
import hashlib
import os
import socket
import ssl
import struct
import time

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa

import kssl_codec as kssl
import kssl_peer
from counters import Gains, refusals_checked
from harness import SITES
from kssl_codec import Error, Op, Tag
from kssl_peer import Peer, channel_context, site_key, write_key

CLIENTS = [
    {"match": "DNS:edge1.example", "keys": ["*"], "allow": ["tls13", "tls12", "list"]},
    {"match": "DNS:edge2.example", "keys": ["[!w]*"], "allow": ["tls13", "tls12", "list", "digest"]},
    {"match": "DNS:stranger.example", "keys": ["p256", "rsa2048"], "allow": "tls12"},
]

@pytest.fixture(scope="module")
def server(module_stack):
    return module_stack.key_server(clients=CLIENTS, workers=2, log={"level": "debug", "rate": 0})


@pytest.fixture(autouse=True)
def every_refusal_is_told(server):
    with refusals_checked(server):
        yield


@pytest.fixture
def edge1(server):
    """May ask for TLS signatures with any key."""
    with Peer(server.port, "edge1") as peer:
        yield peer


@pytest.fixture
def edge2(server):
    """May have bare digests signed too, but not with the keys whose names begin with w."""
    with Peer(server.port, "edge2") as peer:
        yield peer


@pytest.fixture
def tls12_only(server):
    with Peer(server.port, "stranger") as peer:
        yield peer


# ---- Signatures.

TLS13 = {
    "p256": [0x0403],
    "p384": [0x0503],
    "p521": [0x0603],
    "rsa2048": [0x0804, 0x0805, 0x0806],
    "ed25519": [0x0807],
    "ed448": [0x0808],
}

TLS12 = {
    "p256": [0x0403, 0x0503, 0x0603],
    "p384": [0x0403, 0x0503, 0x0603],
    "p521": [0x0403, 0x0503, 0x0603],
    "rsa2048": [0x0401, 0x0501, 0x0601, 0x0804, 0x0805, 0x0806],
    "ed25519": [0x0807],
    "ed448": [0x0808],
}

ALL_SCHEMES = sorted(kssl_peer.SCHEMES) + [0x0201, 0x0203, 0x0402, 0x0809, 0x080A, 0x080B, 0x081A, 0x0000, 0xFFFF]


@pytest.mark.parametrize("size", [32, 48])
@pytest.mark.parametrize("name", TLS13)
def test_tls13(edge1, name, size):
    key, transcript_hash = site_key(name), os.urandom(size)
    for scheme in ALL_SCHEMES:
        answer = edge1.sign_tls13(key, scheme, transcript_hash)
        if scheme not in TLS13[name]:
            assert answer.error == Error.CRYPTO, hex(scheme)
            continue
        assert answer.opcode == Op.SUCCESS
        kssl_peer.verify_scheme(key, answer.payload, kssl.certificate_verify(transcript_hash), scheme)


X25519, SECP256R1, SECP384R1, SECP521R1, X448 = 0x001D, 0x0017, 0x0018, 0x0019, 0x001E
CURVES = {SECP256R1: ec.SECP256R1(), SECP384R1: ec.SECP384R1(), SECP521R1: ec.SECP521R1()}


def params_of(group):
    if group in CURVES:
        return kssl.ecdh_params(group, kssl_peer.point(CURVES[group]))
    return kssl.ecdh_params(group, os.urandom({X25519: 32, X448: 56}[group]))


def marked():
    """A server random of a server that can do TLS 1.3."""
    return os.urandom(24) + kssl.DOWNGRADE_12


@pytest.mark.parametrize("name", TLS12)
def test_tls12(edge1, name):
    key, client, server_random, params = site_key(name), os.urandom(32), marked(), params_of(X25519)
    for scheme in ALL_SCHEMES:
        answer = edge1.sign_tls12(key, scheme, client, server_random, params)
        if scheme not in TLS12[name]:
            assert answer.error == Error.CRYPTO, hex(scheme)
            continue
        assert answer.opcode == Op.SUCCESS
        kssl_peer.verify_scheme(key, answer.payload, client + server_random + params, scheme)


@pytest.mark.parametrize("group", [X25519, SECP256R1, SECP384R1, SECP521R1, X448])
def test_tls12_groups(edge1, group):
    key, client, server_random, params = site_key("p256"), os.urandom(32), marked(), params_of(group)
    answer = edge1.sign_tls12(key, 0x0403, client, server_random, params)
    kssl_peer.verify_scheme(key, answer.payload, client + server_random + params, 0x0403)


# ---- Part A.

BARE = [  # opcode, key, hash, form
    (Op.RSA_SHA1, "rsa2048", "sha1", "pkcs1"),
    (Op.RSA_SHA224, "rsa2048", "sha224", "pkcs1"),
    (Op.RSA_SHA256, "rsa2048", "sha256", "pkcs1"),
    (Op.RSA_SHA384, "rsa2048", "sha384", "pkcs1"),
    (Op.RSA_SHA512, "rsa2048", "sha512", "pkcs1"),
    (Op.RSA_PSS_SHA256, "rsa2048", "sha256", "pss"),
    (Op.RSA_PSS_SHA384, "rsa2048", "sha384", "pss"),
    (Op.RSA_PSS_SHA512, "rsa2048", "sha512", "pss"),
]
# Any digest with any curve: what is too long for the curve is cut, what is shorter is taken as it is.
ECDSA = {Op.ECDSA_SHA1: "sha1", Op.ECDSA_SHA224: "sha224", Op.ECDSA_SHA256: "sha256", Op.ECDSA_SHA384: "sha384",
         Op.ECDSA_SHA512: "sha512"}
BARE += [(opcode, name, algorithm, "ecdsa") for opcode, algorithm in ECDSA.items() for name in ("p256", "p384", "p521")]


@pytest.mark.parametrize("by", ["ski", "digest"])
@pytest.mark.parametrize("opcode, name, algorithm, form", BARE)
def test_bare(edge2, opcode, name, algorithm, form, by):
    key, digest = site_key(name), hashlib.new(algorithm, b"message").digest()
    item = (Tag.SKI, kssl.ski(key)) if by == "ski" else (Tag.DIGEST, kssl.legacy_digest(key))
    answer = edge2.request(opcode, digest, [item])
    assert answer.opcode == Op.SUCCESS
    kssl_peer.verify_digest(key, answer.payload, digest, form, algorithm)


def test_bare_md5sha1(edge2):
    digest = hashlib.md5(b"message").digest() + hashlib.sha1(b"message").digest()
    answer = edge2.with_key(Op.RSA_MD5SHA1, site_key("rsa2048"), digest)
    kssl_peer.verify_md5sha1(site_key("rsa2048"), answer.payload, digest)


@pytest.mark.parametrize("name, size, algorithm", [("p256", 32, "sha256"), ("p384", 48, "sha384"), ("p521", 64, "sha512")])
def test_bare_ecdsa_md5sha1(edge2, name, size, algorithm):
    digest = hashlib.md5(b"message").digest() + hashlib.sha1(b"message").digest()
    answer = edge2.with_key(Op.ECDSA_MD5SHA1, site_key(name), digest)
    # 36 octets are cut to the order's size; where they are fewer, zeros in front make the same number of them.
    kssl_peer.verify_digest(site_key(name), answer.payload, digest[:size].rjust(size, b"\0"), "ecdsa", algorithm)


@pytest.mark.parametrize("size", [0, 1, 1000, 65528 - 23])
def test_bare_ed25519(edge2, size):
    message = os.urandom(size)
    answer = edge2.with_key(Op.ED25519, site_key("ed25519"), message)
    site_key("ed25519").verify(answer.payload, message)


# The first octet of a modulus of 2,050 bits is not full.
RSA_SIZES = [2050, 3072]


@pytest.fixture(scope="module")
def rsa_keys():
    return {bits: rsa.generate_private_key(65537, bits) for bits in RSA_SIZES}


@pytest.fixture(scope="module")
def rsa_server(module_stack, rsa_keys, tmp_path_factory):
    keys = tmp_path_factory.mktemp("rsa-keys")
    for bits, key in rsa_keys.items():
        write_key(keys, f"rsa{bits}", key)
    return module_stack.key_server(clients=CLIENTS, keys=[{"dir": str(keys)}])


@pytest.mark.parametrize("bits", RSA_SIZES)
def test_rsa_of_other_sizes(rsa_server, rsa_keys, bits):
    """Each RSA operation of either part answers as many octets as the modulus has."""
    key, size = rsa_keys[bits].public_key(), (bits + 7) // 8
    with Peer(rsa_server.port, "edge2") as peer:
        for opcode, algorithm, form in [(row[0], *row[2:]) for row in BARE if row[1] == "rsa2048"]:
            digest = hashlib.new(algorithm, b"message").digest()
            answer = peer.with_key(opcode, key, digest)
            assert len(answer.payload) == size
            kssl_peer.verify_digest(key, answer.payload, digest, form, algorithm)
        both = hashlib.md5(b"message").digest() + hashlib.sha1(b"message").digest()
        kssl_peer.verify_md5sha1(key, peer.with_key(Op.RSA_MD5SHA1, key, both).payload, both)
        for scheme in TLS13["rsa2048"]:
            answer = peer.sign_tls13(key, scheme, bytes(32))
            kssl_peer.verify_scheme(key, answer.payload, kssl.certificate_verify(bytes(32)), scheme)
        server_random, params = marked(), params_of(X25519)
        for scheme in TLS12["rsa2048"]:
            answer = peer.sign_tls12(key, scheme, bytes(32), server_random, params)
            kssl_peer.verify_scheme(key, answer.payload, bytes(32) + server_random + params, scheme)


# ---- Which opcodes, for whom.

ALWAYS = {Op.PING, Op.HELLO}
TLS = {Op.SIGN_TLS13, Op.SIGN_TRANSCRIPT, Op.SIGN_TLS12, Op.LIST}
DIGEST = {*range(0x02, 0x08), *range(0x12, 0x19), 0x35, 0x36, 0x37}
RESPONSES = {Op.SUCCESS, Op.PONG, Op.ERROR}


@pytest.mark.parametrize(
    "certificate, allowed",
    [("edge1", ALWAYS | TLS), ("edge2", ALWAYS | TLS | DIGEST), ("stranger", ALWAYS | {Op.SIGN_TLS12})],
)
def test_all_opcodes(server, certificate, allowed):
    with Peer(server.port, certificate) as peer:
        hello = kssl.parse_hello(peer.hello().payload)
        assert set(hello.opcodes) == allowed and len(hello.opcodes) == len(allowed)
        assert hello.version == 1 and abs(hello.time - time.time()) < 5
        for opcode in range(256):
            error = peer.request(opcode, b"x", [(Tag.SKI, b"k" * 20)]).error
            if opcode in RESPONSES:
                assert error == Error.UNEXPECTED_OPCODE
            elif opcode in allowed:
                assert error not in (Error.BAD_OPCODE, Error.UNEXPECTED_OPCODE)
            else:
                assert error == Error.BAD_OPCODE, hex(opcode)


def test_forbidden_keys_look_unknown(edge2):
    """The key exists, but for others: nothing but the log tells it from one that does not."""
    forbidden, unknown, digest = kssl.ski(site_key("wildcard")), os.urandom(20), bytes(32)
    answers = []
    for name in (forbidden, unknown):
        asks = [edge2.sign_tls13(name, 0x0403, digest), edge2.sign_tls13(name, 0xFFFF, digest)]
        asks += [edge2.with_key(Op.ECDSA_SHA256, name, digest), edge2.with_key(Op.ECDSA_SHA256, name, b"x")]
        assert [answer.error for answer in asks] == [Error.KEY_NOT_FOUND] * 4
        answers.append([answer.items for answer in asks])
    assert answers[0] == answers[1]
    hidden = kssl.legacy_digest(site_key("wildcard"))
    assert edge2.request(Op.ECDSA_SHA256, digest, [(Tag.DIGEST, hidden)]).error == Error.KEY_NOT_FOUND


def test_list(edge1, edge2, tls12_only):
    def expected(names):
        keys = [(kssl.ski(site_key(name)), kssl.key_type_number(site_key(name)), name) for name in names]
        return [kssl.ListEntry(*key) for key in sorted(keys)]

    names = [path.stem for path in (SITES / "keys").glob("*.key")]
    more, entries = kssl.parse_list(edge1.listing().payload)
    assert not more and entries == expected(names)
    assert kssl.parse_list(edge2.listing().payload)[1] == expected(n for n in names if not n.startswith("w"))
    assert kssl.parse_list(edge1.listing(entries[3].ski).payload) == (False, entries[4:])
    assert kssl.parse_list(edge1.listing(entries[-1].ski).payload) == (False, [])
    assert kssl.parse_list(edge1.listing(bytes(20)).payload) == (False, entries)
    assert edge1.listing(b"x" * 19).error == Error.FORMAT
    assert tls12_only.listing().error == Error.BAD_OPCODE


# ---- Frames.


def test_order_of_checks(tls12_only):
    """Each message is wrong in this point and in all later ones; the connection goes on after each."""
    peer, key, unknown = tls12_only, kssl.ski(site_key("p256")), bytes(19) + b"\x01"
    good = kssl.sign_tls12(0x0403, bytes(32), marked(), params_of(X25519))
    bad = kssl.sign_tls12(0x0403, bytes(32), marked()[:-1] + b"\x00", params_of(X25519))
    scheme = kssl.sign_tls12(0x0804, bytes(32), marked()[:-1] + b"\x00", params_of(X25519))
    body = kssl.item(Tag.OPCODE, b"\x99") + kssl.item(Tag.PAYLOAD, b"x")[:-1]
    assert peer.raw_request(kssl.frame(1, body)).error == Error.FORMAT
    assert peer.with_key(0x99, unknown, b"x").error == Error.BAD_OPCODE
    assert peer.with_key(Op.SIGN_TLS12, unknown, b"x").error == Error.FORMAT
    assert peer.with_key(Op.SIGN_TLS12, unknown, scheme).error == Error.KEY_NOT_FOUND
    assert peer.with_key(Op.SIGN_TLS12, key, scheme).error == Error.CRYPTO
    assert peer.with_key(Op.SIGN_TLS12, key, bad).error == Error.CONTENT
    assert peer.with_key(Op.SIGN_TLS12, key, good).error is None


@pytest.mark.parametrize("major", [0, 2, 0x16, 0xFF])
@pytest.mark.parametrize("length", [0, 1, 1000, 65535])
def test_other_versions(edge1, major, length):
    """Answered with the same id, exactly that many octets skipped, and the connection is kept."""
    skipped = kssl.frame(0xCAFE, os.urandom(length), major=major)
    edge1.send(skipped + kssl.message(0xBEEF, Op.PING, b"after"))
    answers = [edge1.receive(), edge1.receive()]
    assert [(a.id, a.error) for a in answers] == [(0xCAFE, Error.VERSION), (0xBEEF, None)]
    assert answers[1].payload == b"after"


def test_minor_version_is_ignored(edge1):
    for minor in (1, 0x7F, 0xFF):
        answer = edge1.ping(b"x", minor=minor)
        assert (answer.opcode, answer.major, answer.minor) == (Op.PONG, 1, 0)


BAD_BODIES = {
    "empty": b"",
    "no opcode": kssl.item(Tag.PAYLOAD, b"x"),
    "opcode of two octets": kssl.item(Tag.OPCODE, b"\xf1\xf1"),
    "opcode twice": kssl.item(Tag.OPCODE, b"\xf1") * 2,
    "payload twice": kssl.item(Tag.OPCODE, b"\xf1") + kssl.item(Tag.PAYLOAD, b"") * 2,
    "SKI of 19": kssl.item(Tag.OPCODE, b"\xf1") + kssl.item(Tag.SKI, bytes(19)),
    "digest of 31": kssl.item(Tag.OPCODE, b"\xf1") + kssl.item(Tag.DIGEST, bytes(31)),
    "client IP of 5": kssl.item(Tag.OPCODE, b"\xf1") + kssl.item(Tag.CLIENT_IP, bytes(5)),
    "no opcode's opcode": kssl.item(Tag.OPCODE, b""),
    "SKI of 0": kssl.item(Tag.OPCODE, b"\xf1") + kssl.item(Tag.SKI, b""),
    "SKI of 21": kssl.item(Tag.OPCODE, b"\xf1") + kssl.item(Tag.SKI, bytes(21)),
    "digest of 33": kssl.item(Tag.OPCODE, b"\xf1") + kssl.item(Tag.DIGEST, bytes(33)),
    "client IP of 0": kssl.item(Tag.OPCODE, b"\xf1") + kssl.item(Tag.CLIENT_IP, b""),
    "server IP of 15": kssl.item(Tag.OPCODE, b"\xf1") + kssl.item(Tag.SERVER_IP, bytes(15)),
    "one octet": b"\x11",
    "cut in a header": kssl.item(Tag.OPCODE, b"\xf1") + b"\x12\x00",
    "cut in the data": kssl.item(Tag.OPCODE, b"\xf1") + b"\x12\xff\xff" + bytes(100),
}


# Every tag whose data means something; the others may be repeated, as what is in them is not looked at.
ONCE = {Tag.DIGEST: 32, Tag.SNI: 9, Tag.CLIENT_IP: 4, Tag.SKI: 20, Tag.SERVER_IP: 16, Tag.CERTIFICATE_ID: 3, Tag.OPCODE: 1,
        Tag.PAYLOAD: 5, Tag.FUNCTION: 4, Tag.EXTRA: 8, Tag.TRACE: 6}
for twice, octets in ONCE.items():
    ping = kssl.item(Tag.OPCODE, b"\xf1") if twice != Tag.OPCODE else b""
    BAD_BODIES[f"{twice.name} twice"] = ping + 2 * kssl.item(twice, b"\xf1" * octets)
    BAD_BODIES[f"{twice.name} twice, apart"] = kssl.item(twice, b"\xf1" * octets) + ping + kssl.item(
        Tag.PADDING, bytes(7)) + kssl.item(twice, b"\xf1" * octets)


@pytest.mark.parametrize("what", BAD_BODIES)
def test_bad_bodies(edge1, what):
    answer = edge1.raw_request(kssl.frame(77, BAD_BODIES[what]))
    assert (answer.id, answer.error) == (77, Error.FORMAT)
    assert edge1.ping(b"still there").payload == b"still there"


def test_items_that_do_not_matter(edge1):
    """Unknown tags, repeated too; context; padding in any place, or none; items in any order."""
    items = [(0x77, b"x"), (0x77, b"y"), (0xFE, b""), (Tag.SNI, b"a.example"), (Tag.CLIENT_IP, bytes(16))]
    items += [(Tag.SERVER_IP, bytes(4)), (Tag.CERTIFICATE_ID, b"id"), (Tag.CONTEXT, b"c"), (Tag.CONTEXT, b"c")]
    items += [(Tag.REGION, b"r"), (Tag.TRACE, b"t"), (Tag.PADDING, bytes(3)), (Tag.PADDING, b"xyz")]
    assert edge1.ping(b"x", items=items).payload == b"x"
    assert edge1.ping(b"x", items=items, pad=False).payload == b"x"
    backwards = kssl.item(Tag.PAYLOAD, b"p") + kssl.item(Tag.OPCODE, b"\xf1")
    assert edge1.raw_request(kssl.frame(1, backwards)).payload == b"p"
    assert edge1.request(Op.PING, None).payload == b""


def test_missing_items(edge2):
    key = kssl.ski(site_key("p256"))
    payload = kssl.sign_tls13(0x0403, bytes(32))
    assert edge2.request(Op.SIGN_TLS13, payload).error == Error.FORMAT
    assert edge2.request(Op.SIGN_TLS13, payload, [(Tag.SKI, bytes(20))]).error == Error.FORMAT
    digest = kssl.legacy_digest(site_key("p256"))
    assert edge2.request(Op.SIGN_TLS13, payload, [(Tag.DIGEST, digest)]).error == Error.FORMAT
    assert edge2.request(Op.SIGN_TLS13, None, [(Tag.SKI, key)]).error == Error.FORMAT
    assert edge2.request(Op.ECDSA_SHA256, bytes(32)).error == Error.FORMAT
    assert edge2.request(Op.ECDSA_SHA256, None, [(Tag.SKI, key)]).error == Error.FORMAT
    zero_and_digest = [(Tag.SKI, bytes(20)), (Tag.DIGEST, digest)]
    assert edge2.request(Op.ECDSA_SHA256, bytes(32), zero_and_digest).opcode == Op.SUCCESS


def test_two_names_of_a_key(edge2):
    """The digest (0x01) is looked at only where there is no SKI, even if nobody knows the SKI."""
    digest, right, other = bytes(32), site_key("p256"), site_key("p384")
    names = [(Tag.DIGEST, kssl.legacy_digest(other)), (Tag.SKI, kssl.ski(right))]
    for items in (names, names[::-1]):
        kssl_peer.verify_digest(right, edge2.request(Op.ECDSA_SHA256, digest, items).payload, digest, "ecdsa", "sha256")
    unknown = [(Tag.SKI, b"k" * 20), (Tag.DIGEST, kssl.legacy_digest(right))]
    assert edge2.request(Op.ECDSA_SHA256, digest, unknown).error == Error.KEY_NOT_FOUND
    assert edge2.request(Op.ECDSA_SHA256, digest, [(Tag.DIGEST, b"d" * 32)]).error == Error.KEY_NOT_FOUND
    assert edge2.request(Op.ECDSA_SHA256, digest, [(Tag.DIGEST, bytes(32))]).error in (Error.FORMAT, Error.KEY_NOT_FOUND)


def test_ids_are_echoed(edge1):
    for request_id in (0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF):
        assert edge1.ping(b"x", request_id=request_id).id == request_id
        assert edge1.request(0x99, request_id=request_id).error == Error.BAD_OPCODE


@pytest.mark.parametrize("size", [0, 1, 996, 1013, 1014, 16000, 16384, 32768, 65000, 65528])
def test_ping_sizes(edge1, size):
    payload = os.urandom(size)
    answer = edge1.ping(payload)
    assert (answer.opcode, answer.payload) == (Op.PONG, payload)
    items = 4 + 3 + size
    assert answer.size == 8 + items + len(kssl.padding(items))


def test_answers_are_padded(edge1):
    answers = [edge1.ping(b"x"), edge1.sign_tls13(site_key("p256"), 0x0403, bytes(32)), edge1.request(0x99)]
    assert [answer.size for answer in answers] == [1024] * 3
    assert all(not any(answer.get(Tag.PADDING)) for answer in answers)


def test_octet_by_octet(edge1):
    message = kssl.message(5, Op.PING, b"slow", pad=False) + kssl.message(6, Op.PING, b"ly", pad=False)
    edge1.send_records(message[at : at + 1] for at in range(len(message)))
    assert [edge1.receive().payload for _ in range(2)] == [b"slow", b"ly"]


def test_pipelining(edge1):
    """2,048 at once under ids of which each is used twice; each gets its own answer."""
    key, count = site_key("p256"), 2048
    hashes = {n: os.urandom(32) for n in range(count)}
    ski = [(Tag.SKI, kssl.ski(key))]
    batch = [kssl.message(n // 2, Op.SIGN_TLS13, kssl.sign_tls13(0x0403, hashes[n]), ski) for n in hashes]
    answers = edge1.pipeline(batch)
    assert collections.Counter(a.id for a in answers) == {n: 2 for n in range(count // 2)}
    assert all(a.opcode == Op.SUCCESS for a in answers)
    for answer in answers[:: count // 64]:
        contents = [kssl.certificate_verify(hashes[2 * answer.id + i]) for i in range(2)]
        assert any(verifies(key, answer.payload, content) for content in contents)


def verifies(key, signature, content):
    try:
        kssl_peer.verify_scheme(key, signature, content, 0x0403)
        return True
    except Exception:
        return False


def test_equal_ids(edge1):
    payloads = [os.urandom(20) for _ in range(500)]
    answers = edge1.pipeline(kssl.message(1, Op.PING, payload) for payload in payloads)
    assert {a.id for a in answers} == {1}
    assert sorted(a.payload for a in answers) == sorted(payloads)


def test_records(edge1):
    """What fits a record lies within one: every record ends where a message of up to 16,384 octets does."""
    sizes = [10, 3000, 20000, 16384 - 15, 5, 7000, 7000, 7000, 65528, 1] * 10
    edge1.records.clear()
    answers = edge1.pipeline(kssl.message(n, Op.PING, bytes(size)) for n, size in enumerate(sizes))
    ends, position = set(), 0
    for size in edge1.records:
        assert size <= 16384
        position += size
        ends.add(position)
    at = 0
    for answer in answers:
        inside = [end for end in ends if at < end < at + answer.size]
        assert answer.size > 16384 or not inside
        if answer.size > 16384:
            assert at in ends or at == 0, "a long message starts a record of its own"
            assert len(inside) == (answer.size - 1) // 16384
        at += answer.size
    assert at == position


def test_timing_and_names(server, edge1):
    """Only between peers that have said hello: a request's name is logged, and an answer tells how long it took."""
    key, mark = site_key("p256"), server.mark()
    before = edge1.sign_tls13(key, 0x0403, bytes(32), items=[(Tag.TRACE, b"name-before")])
    assert before.get(Tag.EXTRA) is None
    edge1.hello(b"test 1.0")
    assert server.wait_for("client said hello", after=mark)["software"] == "test 1.0"
    after = edge1.sign_tls13(key, 0x0403, bytes(32), items=[(Tag.TRACE, b"name-after")])
    queue, sign = struct.unpack("!II", after.get(Tag.EXTRA))
    assert queue < 10_000_000 and 0 < sign < 10_000_000
    assert edge1.ping().get(Tag.EXTRA) is None
    for unfit in (b"x" * 33, b"two words", b"\x00", b"\xc3\xa4"):
        assert edge1.sign_tls13(key, 0x0403, bytes(32), items=[(Tag.TRACE, unfit)]).error is None
    edge1.sign_tls13(key, 0x0403, bytes(32), items=[(Tag.TRACE, b"x" * 32)])
    server.wait_for("request answered", after=mark, request="x" * 32)
    names = {line.get("request") for line in server.find("request answered", after=mark)}
    assert names == {None, "name-after", "x" * 32}


def test_refusals_are_logged(server, edge2):
    mark, key = server.mark(), kssl.ski(site_key("wildcard"))
    edge2.sign_tls13(key, 0x0403, bytes(32), items=[(Tag.SNI, b"a\nb.example")])
    line = server.wait_for("request refused", after=mark, key=key.hex())
    assert line["client"] == "DNS:edge2.example" and line["operation"] == "sign-tls13"
    assert line["peer"] == f"127.0.0.1:{edge2.raw.getsockname()[1]}" and line["sni"] == r"a\\x0ab.example"
    assert line["reason"] == "key not found" and line["level"] == "warn"


def test_metrics(server, edge1):
    def counts():
        return [
            server.metric("keyless_keyserver_requests_total", operation="sign-tls13", outcome="ok"),
            server.metric("keyless_keyserver_requests_total", operation="sign-tls13", outcome="error"),
            server.metric("keyless_keyserver_refusals_total", error="0x02"),
            server.metric("keyless_keyserver_sign_duration_seconds_count", **{"class": "ec"}),
        ]

    before = counts()
    for _ in range(3):
        edge1.sign_tls13(site_key("p256"), 0x0403, bytes(32))
    edge1.sign_tls13(bytes(19) + b"\x01", 0x0403, bytes(32))
    assert [b - a for a, b in zip(before, counts())] == [3, 1, 1, 3]
    assert server.metric("keyless_keyserver_keys") == len(list((SITES / "keys").glob("*.key")))


# ---- The channel.


def test_tls12_channel(server):
    with Peer(server.port, context=channel_context(maximum=ssl.TLSVersion.TLSv1_2)) as peer:
        assert peer.tls.version() == "TLSv1.2"
        assert "ECDHE" in peer.tls.cipher()[0]
        assert peer.ping(b"x").payload == b"x"


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_old_tls_is_refused(server):
    context = channel_context(maximum=ssl.TLSVersion.TLSv1_1)
    context.minimum_version = ssl.TLSVersion.TLSv1
    context.set_ciphers("ALL:@SECLEVEL=0")
    gains = Gains(server)
    with pytest.raises((ssl.SSLError, kssl_peer.Closed)):
        Peer(server.port, context=context)
    gains.assert_gained("keyless_keyserver_handshake_failures_total", reason="protocol")


@pytest.mark.parametrize("maximum", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_no_resumption(server, maximum):
    context = channel_context(maximum=maximum)
    with Peer(server.port, context=context) as peer:
        assert peer.ping(b"x").payload == b"x"
        assert peer.tls.session is None or not peer.tls.session.has_ticket


def refusal(server, certificate):
    """How the server says no; with TLS 1.3 that comes after the client's own handshake is done."""
    try:
        with Peer(server.port, certificate) as peer:
            peer.tls.write(kssl.message(1, Op.PING))
            messages, how = peer.until_closed()
    except (ssl.SSLError, kssl_peer.Closed) as error:
        return str(error)
    assert not messages
    return how


@pytest.mark.parametrize(
    "certificate, alert, counted",
    [
        ("bad-edge-other-ca", "UNKNOWN_CA", "certificate_refused"),
        ("bad-edge-expired", "CERTIFICATE_EXPIRED", "certificate_refused"),
        ("bad-edge-server-eku", "UNSUPPORTED_CERTIFICATE", "certificate_refused"),
        (None, "CERTIFICATE_REQUIRED", "no_certificate"),
    ],
)
def test_bad_certificates(server, certificate, alert, counted):
    mark, gains = server.mark(), Gains(server)
    said = refusal(server, certificate)
    assert alert.lower() in said.lower().replace(" ", "_"), said
    line = server.wait_for("handshake failed", after=mark)
    assert line["peer"].startswith("127.0.0.1:") and line["reason"]
    gains.assert_gained("keyless_keyserver_handshake_failures_total", reason=counted)
    gains.assert_gained("keyless_keyserver_handshake_failures_total")


def test_certificate_without_eku(server):
    with Peer(server.port, "edge-no-eku") as peer:
        assert peer.ping(b"x").payload == b"x"


def test_not_tls(server):
    mark, gains = server.mark(), Gains(server)
    with socket.create_connection(("127.0.0.1", server.port)) as plain:
        plain.sendall(b"GET / HTTP/1.1\r\n\r\n")
        plain.settimeout(10)
        while plain.recv(4096):
            pass
    assert server.wait_for("handshake failed", after=mark)["reason"]
    gains.assert_gained("keyless_keyserver_handshake_failures_total", reason="protocol")
