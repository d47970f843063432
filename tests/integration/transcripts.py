"""Transcripts of TLS 1.3 handshakes, ClientHello .. Certificate, as a proxy shows them to a key server: recorded from
OpenSSL in memory, and changed in one place with all lengths right, as a forger would."""

import hashlib
import ssl

import tls_wire
from harness import SITES
from kssl_codec import Op
from kssl_peer import site_key

SCHEMES = {"p256": 0x0403, "p384": 0x0503, "p521": 0x0603, "rsa2048": 0x0804, "ed25519": 0x0807, "ed448": 0x0808,
           "wildcard": 0x0403, "demo": 0x0403}


def record(site, name, protocols=("h2",), group=None, asks=False):
    """The messages of a handshake with a site's chain. name None: without SNI; group: the server takes no other, so that
    there is a HelloRetryRequest; asks: with a CertificateRequest."""
    messages, complete = [], []

    def note(connection, direction, version, content_type, message_type, data):
        if int(content_type) == 22 and not complete and data:
            messages.append(bytes(data))
            complete.extend([True] if data[0] == tls_wire.CERTIFICATE else [])

    server_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_context.load_cert_chain(SITES / "chains" / f"{site}.pem", SITES / "keys" / f"{site}.key")
    server_context.set_alpn_protocols(list(protocols))
    if group:
        server_context.set_ecdh_curve(group)
    if asks:
        server_context.verify_mode = ssl.CERT_OPTIONAL
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


def payload(scheme, messages):
    return scheme.to_bytes(2, "big") + b"".join(messages)


def sign(peer, site, messages, **how):
    return peer.with_key(Op.SIGN_TRANSCRIPT, site_key(site), payload(SCHEMES[site], messages), **how)


def transcript_hash(messages):
    """As both ends of the handshake compute it (RFC 8446 section 4.4.1)."""
    server_hello = next(message for message in reversed(messages) if message[0] == tls_wire.SERVER_HELLO)
    suite = server_hello[39 + server_hello[38] : 41 + server_hello[38]]
    digest = hashlib.sha384 if suite == b"\x13\x02" else hashlib.sha256
    if [message[0] for message in messages].count(tls_wire.CLIENT_HELLO) > 1:
        first = digest(messages[0]).digest()
        messages = [b"\xfe\0\0" + tls_wire.vector8(first), *messages[1:]]
    return digest(b"".join(messages)).digest()


# ---- Changing them. A change takes a list of messages and gives another.


def at(index, change):
    """One message changed."""
    return lambda messages: [*messages[:index], change(messages[index]), *messages[index + 1 :]]


def after(index, *inserted):
    """Others put behind a message."""
    return lambda messages: [*messages[: index + 1], *inserted, *messages[index + 1 :]]


def order(*indices):
    """These of the messages, in this order."""
    return lambda messages: [messages[index] for index in indices]


def patched(offset, octets):
    """A message with other octets in a place. Bodies begin at 4; a hello's version there, its random at 6, its session id
    (OpenSSL's has 32 octets) at 39; a ServerHello's suite at 71, its compression at 73."""
    return lambda message: message[:offset] + octets + message[offset + len(octets) :]


# Octets before the list of extensions, from the start of the body; the fields marked have a length in front.
_BEFORE = {
    tls_wire.CLIENT_HELLO: (2 + 32, "v8", "v16", "v8"),
    tls_wire.SERVER_HELLO: (2 + 32, "v8", 2 + 1),
    tls_wire.ENCRYPTED_EXTENSIONS: (),
    tls_wire.CERTIFICATE_REQUEST: ("v8",),
}


def _split(message):
    reader = tls_wire.Reader(message[4:])
    for field in _BEFORE[message[0]]:
        if isinstance(field, int):
            reader.take(field)
        else:
            reader.vector(int(field[1:]) // 8)
    before, found = reader.data[: reader.at], []
    offered = tls_wire.Reader(reader.vector(2))
    while offered:
        found.append((offered.number(2), offered.vector(2)))
    assert not reader, "something behind the extensions"
    return before, found


def extensions(change):
    """A message whose list of (type, content) is changed."""

    def changed(message):
        before, found = _split(message)
        body = b"".join(tls_wire.u16(kind) + tls_wire.vector16(data) for kind, data in change(found))
        return tls_wire.message(message[0], before + tls_wire.vector16(body))

    return changed


def having(kind, data):
    """The extension with this content, in its place."""

    def change(found):
        assert kind in [its for its, _ in found], f"no extension {kind}"
        return [(its, data if its == kind else content) for its, content in found]

    return extensions(change)


def adding(kind, data, first=True):
    """The extension too, even where there is one; at the front, since pre_shared_key must be the last."""
    return extensions(lambda found: [(kind, data), *found] if first else [*found, (kind, data)])


def without(kind):
    def change(found):
        assert kind in [its for its, _ in found], f"no extension {kind}"
        return [pair for pair in found if pair[0] != kind]

    return extensions(change)


def certificate(*leaves, context=b"", extras=b""):
    """A Certificate message; extras: what the first entry's extensions are."""
    entries = b"".join(tls_wire.vector24(leaf) + tls_wire.vector16(extras if number == 0 else b"")
                       for number, leaf in enumerate(leaves))
    return tls_wire.message(tls_wire.CERTIFICATE, tls_wire.vector8(context) + tls_wire.vector24(entries))


def leaves_of(message):
    """The certificates of a Certificate message."""
    reader = tls_wire.Reader(message[4:])
    reader.vector(1)
    entries, found = tls_wire.Reader(reader.vector(3)), []
    while entries:
        found.append(entries.vector(3))
        entries.vector(2)
    return found
