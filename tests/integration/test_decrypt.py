"""Raw decryption (operations 0x01 and 0x08), for entries that `allow: [decrypt]` alone: always the whole block, never a
word about its padding."""

import os

import pytest
from cryptography.hazmat.primitives.asymmetric import padding, rsa

import kssl_codec as kssl
from counters import Gains, refusals_checked
from kssl_codec import Error, Op, Tag
from kssl_peer import Peer, private_site_key, site_key, write_key

OPCODES = [Op.RSA_DECRYPT, Op.RSA_DECRYPT_RAW]
CLIENTS = [
    {"match": "DNS:edge1.example", "keys": ["*"], "allow": ["decrypt"]},
    {"match": "DNS:edge2.example", "keys": ["p256", "odd"], "allow": ["tls13", "tls12", "digest", "decrypt"],
     "schemes": ["ecdsa_secp256r1_sha256"]},
]


@pytest.fixture(scope="module")
def odd_key():
    """Of 2,050 bits: the first octet of a block is not full."""
    return rsa.generate_private_key(65537, 2050)


@pytest.fixture(scope="module")
def server(module_stack, odd_key, tmp_path_factory):
    keys = tmp_path_factory.mktemp("keys")
    private = {"odd": odd_key, **{name: private_site_key(name) for name in ("rsa2048", "p256", "ed25519")}}
    for name, key in private.items():
        write_key(keys, name, key)
    return module_stack.key_server(clients=CLIENTS, keys=[{"dir": str(keys)}], log={"level": "debug", "rate": 0})


@pytest.fixture(autouse=True)
def every_refusal_is_told(server):
    with refusals_checked(server):
        yield


@pytest.fixture
def edge(server):
    with Peer(server.port, "edge1") as peer:
        yield peer


@pytest.fixture(params=["rsa2048", "odd"])
def key(request, odd_key):
    return odd_key if request.param == "odd" else private_site_key("rsa2048")


def modulus(key):
    return key.public_key().public_numbers().n


def size_of(key):
    return (key.key_size + 7) // 8


@pytest.mark.parametrize("opcode", OPCODES)
def test_block_whole(server, edge, key, opcode):
    """The padding is the asker's to take off."""
    gains = Gains(server)
    premaster = os.urandom(48)
    ciphertext = key.public_key().encrypt(premaster, padding.PKCS1v15())
    answer = edge.with_key(opcode, key.public_key(), ciphertext)
    assert answer.opcode == Op.SUCCESS and len(answer.payload) == size_of(key)
    assert answer.payload[:2] == b"\0\2" and answer.payload.endswith(b"\0" + premaster)
    gains.assert_gained("keyless_keyserver_requests_total", 1, operation="decrypt", outcome="ok")


@pytest.mark.parametrize("opcode", OPCODES)
def test_padding_is_nobodys_business(edge, key, opcode):
    """What is not padded at all is answered like what is: there is no oracle."""
    n, d = modulus(key), key.private_numbers().d
    for number in (0, 1, 2, n - 1, int.from_bytes(os.urandom(256), "big") % n):
        answer = edge.with_key(opcode, key.public_key(), number.to_bytes(size_of(key), "big"))
        assert answer.opcode == Op.SUCCESS
        assert answer.payload == pow(number, d, n).to_bytes(size_of(key), "big")


@pytest.mark.parametrize("opcode", OPCODES)
def test_what_is_no_ciphertext(server, edge, key, opcode):
    n, size = modulus(key), size_of(key)
    for number in (n, n + 1, (1 << 8 * size) - 1):
        assert edge.with_key(opcode, key.public_key(), number.to_bytes(size, "big")).error == Error.CRYPTO
    gains = Gains(server)
    for wrong in (0, 1, size - 1, size + 1, 4096, 60000):
        assert edge.with_key(opcode, key.public_key(), bytes(wrong)).error == Error.CRYPTO
    gains.assert_gained("keyless_keyserver_requests_total", 6, operation="decrypt", outcome="error")
    assert edge.with_key(opcode, key.public_key(), None).error == Error.FORMAT
    assert edge.request(opcode, bytes(size)).error == Error.FORMAT


@pytest.mark.parametrize("opcode", OPCODES)
def test_other_keys(edge, opcode):
    for name in ("p256", "ed25519"):
        assert edge.with_key(opcode, site_key(name), bytes(256)).error == Error.CRYPTO
    assert edge.with_key(opcode, os.urandom(20), bytes(256)).error == Error.KEY_NOT_FOUND


@pytest.mark.parametrize("opcode", OPCODES)
def test_by_the_legacy_digest(edge, opcode):
    key = private_site_key("rsa2048")
    ciphertext = key.public_key().encrypt(b"x" * 48, padding.PKCS1v15())
    answer = edge.request(opcode, ciphertext, [(Tag.DIGEST, kssl.legacy_digest(key.public_key()))])
    assert answer.opcode == Op.SUCCESS and answer.payload.endswith(b"x" * 48)


def test_only_where_allowed(server, edge, odd_key):
    """decrypt alone allows nothing else, and no list of schemes has it."""
    always = {Op.HELLO, Op.PING}
    assert set(kssl.parse_hello(edge.hello().payload).opcodes) == always | set(OPCODES)
    assert edge.sign_tls13(site_key("p256"), 0x0403, bytes(32)).error == Error.BAD_OPCODE
    assert edge.with_key(Op.RSA_SHA256, site_key("rsa2048"), bytes(32)).error == Error.BAD_OPCODE
    with Peer(server.port, "edge2") as narrow:
        block = bytes(size_of(odd_key))
        assert narrow.with_key(Op.RSA_DECRYPT, odd_key.public_key(), block).error == Error.POLICY
        assert narrow.with_key(Op.RSA_DECRYPT, site_key("rsa2048"), bytes(256)).error == Error.KEY_NOT_FOUND


def test_pipelined(edge, key):
    """Many at once, each its own answer; the key is not spoilt by those that are none."""
    public, size = key.public_key(), size_of(key)
    messages = [os.urandom(48) for _ in range(40)]
    asked = [public.encrypt(message, padding.PKCS1v15()) for message in messages]
    frames = [kssl.message(number, Op.RSA_DECRYPT, data, [(Tag.SKI, kssl.ski(public))])
              for number, data in enumerate([*asked, b"\xff" * size])]
    answers = {answer.id: answer for answer in edge.pipeline(frames)}
    for number, message in enumerate(messages):
        assert answers[number].payload.endswith(b"\0" + message)
    assert answers[40].error == Error.CRYPTO
