"""Signatures over whole TLS 1.3 handshakes: the key server sees what it signs for, and refuses what a stolen edge
might make of it."""

import hashlib
import ssl

import pytest

import kssl_codec as kssl
import kssl_peer
from counters import refusals_checked
from harness import SITES
from kssl_codec import Error, Op
from kssl_peer import Peer, site_key

SIGN_TRANSCRIPT = 0x63
SCHEMES = {"p256": 0x0403, "p384": 0x0503, "p521": 0x0603, "rsa2048": 0x0804, "ed25519": 0x0807, "ed448": 0x0808}
ALL = ["tls13", "tls12", "transcript", "list", "digest"]

CLIENTS = [
    {"match": "DNS:edge1.example", "keys": ["*"], "allow": ALL},
    {"match": "DNS:edge2.example", "keys": ["*"], "allow": ALL, "require": "transcript"},
    {"match": "DNS:stranger.example", "keys": ["*"], "allow": ["tls13"], "names": ["other.example"]},
]


def record(site, name, protocols=("h2",), group=None):
    """The messages ClientHello .. Certificate of a handshake with a site's chain, in memory."""
    messages, complete = [], []

    def note(connection, direction, version, content_type, message_type, data):
        if int(content_type) == 22 and not complete and data:
            messages.append(bytes(data))
            complete.extend([True] if data[0] == 11 else [])

    server_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_context.load_cert_chain(SITES / "chains" / f"{site}.pem", SITES / "keys" / f"{site}.key")
    server_context.set_alpn_protocols(list(protocols))
    if group:
        server_context.set_ecdh_curve(group)
    server_context._msg_callback = note
    client_context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client_context.check_hostname, client_context.verify_mode = False, ssl.CERT_NONE
    client_context.minimum_version = ssl.TLSVersion.TLSv1_3
    client_context.set_alpn_protocols(list(protocols))
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = client_context.wrap_bio(down, up, server_hostname=name)
    server = server_context.wrap_bio(up, down, server_side=True)
    for _ in range(4):
        for side in client, server:
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                pass
    assert complete, "no Certificate"
    return messages


def payload(site, messages):
    return SCHEMES[site].to_bytes(2, "big") + b"".join(messages)


def sign(peer, site, messages, **how):
    return peer.with_key(SIGN_TRANSCRIPT, site_key(site), payload(site, messages), **how)


def transcript_hash(messages):
    server_hello = messages[-3]
    suite = server_hello[39 + server_hello[38] : 41 + server_hello[38]]
    digest = hashlib.sha384 if suite == b"\x13\x02" else hashlib.sha256
    if len(messages) > 4:
        first = digest(messages[0]).digest()
        messages = [b"\xfe\0\0" + bytes([len(first)]) + first, *messages[1:]]
    return digest(b"".join(messages)).digest()


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
@pytest.mark.parametrize("site", SCHEMES)
def test_signed(edge, site, group):
    """All key types, with and without a HelloRetryRequest; the hash is the key server's own."""
    messages = record(site, f"{site}.example", group=group)
    assert (len(messages) == 6) == (group is not None)
    answer = sign(edge, site, messages)
    assert answer.opcode == Op.SUCCESS
    content = kssl.certificate_verify(transcript_hash(messages))
    kssl_peer.verify_scheme(site_key(site), answer.payload, content, SCHEMES[site])


def test_claimed_name(edge):
    """The SNI beside it is the transcript's or nothing."""
    messages = record("p256", "p256.example")
    same = sign(edge, "p256", messages, items=[(kssl.Tag.SNI, b"P256.example")])
    other = sign(edge, "p256", messages, items=[(kssl.Tag.SNI, b"p384.example")])
    assert (same.opcode, other.error) == (Op.SUCCESS, Error.FORMAT)


def replaced(messages, at, old, new):
    assert messages[at].count(old) == 1
    return [*messages[:at], messages[at].replace(old, new), *messages[at + 1 :]]


def forgeries():
    """What a stolen edge might send: (name, site asked for, messages, error, the reason logged)."""
    good = record("p256", "p256.example")
    retry = record("p256", "p256.example", group="secp384r1")
    p384 = record("p384", "p384.example")
    content, policy, form = Error.CONTENT, 0x40, Error.FORMAT
    return [
        ("cut short", good[:-1] + [good[-1][:-1]], form, "a handshake message is missing or cut short"),
        ("reordered", [good[0], good[1], good[3], good[2]], form,
         "another message where EncryptedExtensions should be"),
        ("trailing", [*good, b"\0"], form, "something behind Certificate"),
        ("compressed", good[:-1] + [b"\x19" + good[-1][1:]], form, "a compressed certificate"),
        ("another SNI", record("p256", "p384.example"), content, "the certificate is not for this SNI"),
        ("a label more", record("p256", "a.p256.example"), content, "the certificate is not for this SNI"),
        ("another site's certificate", p384, Error.KEY_NOT_FOUND, "the certificate is none of this key's"),
        ("acme", record("p256", "p256.example", protocols=["acme-tls/1"]), policy, "the protocol is acme-tls/1"),
        ("another protocol", replaced(good, 2, b"\x02h2", b"\x02h3"), content,
         "the protocol is none that the client offered"),
        ("TLS 1.2", replaced(good, 1, b"\0\x2b\0\x02\x03\x04", b"\0\x2b\0\x02\x03\x03"), content,
         "the server does not negotiate TLS 1.3"),
        ("DTLS", [good[0][:4] + b"\xfe\xfd" + good[0][6:], *good[1:]], content,
         "the ClientHello is not one of TLS over TCP"),
        ("a forged retry", [good[0], retry[1], good[0], *good[1:]], content,
         "the server echoes another session id"),
        ("a retry without the second hello", [*retry[:2], *retry[3:]], form,
         "another message where ClientHello should be"),
        ("a retry left out", [retry[0], *retry[3:]], content, "the group is none that the client sent a share of"),
    ]


def test_forgeries_are_refused(server, edge):
    """Each with its error and one line that says why."""
    for name, messages, error, reason in forgeries():
        mark = server.mark()
        answer = sign(edge, "p256", messages)
        assert answer.error == error, name
        line = server.wait_for("request refused", after=mark)
        assert (line["operation"], line["reason"]) == ("sign-transcript", reason), name


def test_schemes(edge):
    """A scheme of another key type."""
    messages = record("p256", "p256.example")
    assert edge.with_key(SIGN_TRANSCRIPT, site_key("p256"), b"\x08\x04" + b"".join(messages)).error == Error.CRYPTO


def test_required(server, edge):
    """`require: transcript` leaves no other way to a TLS 1.3 signature."""
    assert edge.sign_tls13(site_key("p256"), 0x0403, bytes(32)).error == Error.BAD_OPCODE
    assert edge.with_key(0x15, site_key("p256"), bytes(32)).error == Error.BAD_OPCODE
    opcodes = set(kssl.parse_hello(edge.hello().payload).opcodes)
    assert SIGN_TRANSCRIPT in opcodes and not opcodes & {0x61, 0x15, 0x05}
    with Peer(server.port, "edge1") as other:
        assert other.sign_tls13(site_key("p256"), 0x0403, bytes(32)).opcode == Op.SUCCESS


def test_names(server):
    """What is claimed, and what is seen, must be among the client's names."""
    with Peer(server.port, "stranger") as peer:
        messages = record("p256", "p256.example")
        assert sign(peer, "p256", messages).error == 0x40
        for name in b"p256.example", b"other.example":
            answer = peer.sign_tls13(site_key("p256"), 0x0403, bytes(32), items=[(kssl.Tag.SNI, name)])
            assert answer.error == 0x40


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
