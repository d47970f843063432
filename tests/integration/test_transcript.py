"""Signatures over whole TLS 1.3 handshakes: the key server sees what it signs for. What a stolen edge might make of it is
test_oracle.py's."""

import pytest

import kssl_codec as kssl
import kssl_peer
from counters import refusals_checked
from harness import SITES
from kssl_codec import Error, Op
from kssl_peer import Peer, site_key
from transcripts import SCHEMES, record, sign, transcript_hash

SITES_OF_EACH_TYPE = ["p256", "p384", "p521", "rsa2048", "ed25519", "ed448"]
ALL = ["tls13", "tls12", "transcript", "list", "digest"]

CLIENTS = [
    {"match": "DNS:edge1.example", "keys": ["*"], "allow": ALL},
    {"match": "DNS:edge2.example", "keys": ["*"], "allow": ALL, "require": "transcript"},
]


@pytest.fixture(scope="module")
def server(module_stack):
    return module_stack.key_server(
        clients=CLIENTS, certificates=[{"dir": str(SITES / "chains")}], log={"level": "debug", "rate": 0}
    )


@pytest.fixture(autouse=True)
def every_refusal_is_told(server):
    with refusals_checked(server):
        yield


@pytest.fixture
def edge(server):
    with Peer(server.port, "edge2") as peer:
        yield peer


@pytest.mark.parametrize("group", [None, "prime256v1", "secp384r1"])
@pytest.mark.parametrize("site", SITES_OF_EACH_TYPE)
def test_signed(edge, site, group):
    """All key types, with and without a HelloRetryRequest; the hash is the key server's own."""
    messages = record(site, f"{site}.example", group=group)
    assert (len(messages) == 6) == (group is not None)
    answer = sign(edge, site, messages)
    assert answer.opcode == Op.SUCCESS
    content = kssl.certificate_verify(transcript_hash(messages))
    kssl_peer.verify_scheme(site_key(site), answer.payload, content, SCHEMES[site])


def test_claimed_name(edge):
    """The SNI beside it may be written otherwise."""
    messages = record("p256", "p256.example")
    assert sign(edge, "p256", messages, items=[(kssl.Tag.SNI, b"P256.example")]).opcode == Op.SUCCESS


def test_required(server, edge):
    """`require: transcript` leaves no other way to a TLS 1.3 signature."""
    assert edge.sign_tls13(site_key("p256"), 0x0403, bytes(32)).error == Error.BAD_OPCODE
    assert edge.with_key(0x15, site_key("p256"), bytes(32)).error == Error.BAD_OPCODE
    opcodes = set(kssl.parse_hello(edge.hello().payload).opcodes)
    assert Op.SIGN_TRANSCRIPT in opcodes and not opcodes & {0x61, 0x15, 0x05}
    with Peer(server.port, "edge1") as other:
        assert other.sign_tls13(site_key("p256"), 0x0403, bytes(32)).opcode == Op.SUCCESS


def test_without_certificates(stack):
    """A key server that has no certificates signs no transcript, and does not say it did."""
    server = stack.key_server(
        certificates=None, clients=[{"match": "DNS:edge1.example", "keys": ["*"], "allow": ["tls13", "tls12"]}]
    )
    with Peer(server.port, "edge1") as peer:
        assert set(kssl.parse_hello(peer.hello().payload).opcodes) & {0x61, 0x62, 0x63} == {0x61, 0x62}
        assert sign(peer, "p256", record("p256", "p256.example")).error == Error.BAD_OPCODE


@pytest.mark.parametrize("entry, setting", [({"require": "transcript"}, "require"), ({"allow": ["transcript"]}, "allow")])
def test_transcripts_without_certificates_are_refused(stack, entry, setting):
    """Who asks for what cannot be had is told so before the start."""
    server = stack.key_server(
        start=False, certificates=None, clients=[{"match": "DNS:edge1.example", "keys": ["*"], **entry}]
    )
    checked = server.check()
    assert checked.returncode == 2
    assert f"clients[0].{setting}: " in checked.stderr and "expected certificates, such as" in checked.stderr


def test_renewal(stack, tmp_path):
    """A certificate that comes with a reload is taken from then on."""
    sites = tmp_path / "renewed"
    sites.mkdir()
    server = stack.key_server(clients=CLIENTS, certificates=[{"dir": str(sites)}])
    messages = record("p256", "p256.example")
    with Peer(server.port, "edge1") as peer:
        assert sign(peer, "p256", messages).error == Error.KEY_NOT_FOUND
    (sites / "p256.pem").write_bytes((SITES / "chains" / "p256.pem").read_bytes())
    server.reload()
    with Peer(server.port, "edge1") as peer:
        assert sign(peer, "p256", messages).opcode == Op.SUCCESS
