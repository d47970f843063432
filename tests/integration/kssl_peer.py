"""A client of the key server, in Python: mutual TLS over TCP, frames of kssl_codec over it.

It does what it is told, also what no proper client does; nothing here is shared with the programs' own code.
"""

import contextlib
import itertools
import socket
import ssl

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, padding, rsa, utils

import kssl_codec as kssl
from harness import CHANNEL, PATIENCE, SITES


def channel_context(certificate="edge1", ca=CHANNEL / "ca.pem", maximum=None):
    """How a client of this name (a file in certs/out/channel; None: without certificate) does TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(str(ca))
    if certificate is not None:
        context.load_cert_chain(str(CHANNEL / f"{certificate}.pem"), str(CHANNEL / f"{certificate}-key.pem"))
    if maximum is not None:
        context.maximum_version = maximum
    return context


class Closed(Exception):
    """The server has closed the connection; the text says how."""


class Peer:
    """One connection. Ids are counted up unless given."""

    def __init__(self, port, certificate="edge1", context=None, timeout=None, server_name="keys.example", rcvbuf=None):
        self.raw = socket.socket()
        if rcvbuf is not None:
            self.raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, rcvbuf)
        self.raw.settimeout(PATIENCE if timeout is None else timeout)
        try:
            self.raw.connect(("127.0.0.1", port))
            context = context or channel_context(certificate)
            self.tls = context.wrap_socket(self.raw, server_hostname=server_name, suppress_ragged_eofs=False)
        except BaseException:
            self.raw.close()
            raise
        self.reader = kssl.FrameReader()
        self.ids = itertools.count(1)
        self.records = []  # sizes of what each read of a record gave

    def close(self):
        with contextlib.suppress(OSError):
            self.tls.close()

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        self.close()

    # ---- Octets and messages.

    def send(self, data):
        self.tls.sendall(data)

    def receive(self):
        """The next message."""
        while True:
            for message in self.reader:
                return message
            try:
                # OpenSSL gives at most one record at a time.
                data = self.tls.recv(16384)
            except ssl.SSLEOFError as error:
                raise Closed("without close_notify") from error
            except (ssl.SSLError, ConnectionError) as error:
                raise Closed(str(error)) from error
            if not data:
                raise Closed("in good order")
            self.records.append(len(data))
            self.reader.feed(data)

    def request(self, opcode, payload=b"", items=(), request_id=None, **how):
        """One message there, one back, which must have the same id."""
        request_id = next(self.ids) if request_id is None else request_id
        self.send(kssl.message(request_id, opcode, payload, items, **how))
        answer = self.receive()
        assert answer.id == request_id, f"the answer to {request_id} has id {answer.id}"
        return answer

    def raw_request(self, data):
        """Whatever octets; one message back."""
        self.send(data)
        return self.receive()

    # ---- Operations. Each returns the answering message.

    def ping(self, payload=b"ping", **how):
        return self.request(kssl.Op.PING, payload, **how)

    def hello(self, name=b"", **how):
        return self.request(kssl.Op.HELLO, name, **how)

    def listing(self, after=b"", **how):
        return self.request(kssl.Op.LIST, after, **how)

    def with_key(self, opcode, key, payload, **how):
        """key: a public key, or the octets of an SKI."""
        name = key if isinstance(key, bytes) else kssl.ski(key)
        return self.request(opcode, payload, [(kssl.Tag.SKI, name), *how.pop("items", ())], **how)

    def sign_tls13(self, key, scheme, transcript_hash, **how):
        return self.with_key(kssl.Op.SIGN_TLS13, key, kssl.sign_tls13(scheme, transcript_hash), **how)

    def sign_tls12(self, key, scheme, client_random, server_random, params, **how):
        payload = kssl.sign_tls12(scheme, client_random, server_random, params)
        return self.with_key(kssl.Op.SIGN_TLS12, key, payload, **how)

    def until_closed(self):
        """What still comes, and how the connection ended."""
        messages = []
        try:
            while True:
                messages.append(self.receive())
        except Closed as end:
            return messages, str(end)


# ---- Keys and what they sign.


def site_key(name):
    """The public key of a site that make-certs.sh has made."""
    private = serialization.load_pem_private_key((SITES / "keys" / f"{name}.key").read_bytes(), None)
    return private.public_key()


HASHES = {
    "md5": hashes.MD5,
    "sha1": hashes.SHA1,
    "sha224": hashes.SHA224,
    "sha256": hashes.SHA256,
    "sha384": hashes.SHA384,
    "sha512": hashes.SHA512,
}

# SignatureScheme: padding or curve, and hash.
SCHEMES = {
    0x0401: ("pkcs1", "sha256"),
    0x0501: ("pkcs1", "sha384"),
    0x0601: ("pkcs1", "sha512"),
    0x0403: ("ecdsa", "sha256"),
    0x0503: ("ecdsa", "sha384"),
    0x0603: ("ecdsa", "sha512"),
    0x0804: ("pss", "sha256"),
    0x0805: ("pss", "sha384"),
    0x0806: ("pss", "sha512"),
    0x0807: ("eddsa", None),
    0x0808: ("eddsa", None),
}


def verify_digest(public, signature, digest, form, name):
    """Of a bare digest; raises InvalidSignature."""
    algorithm = utils.Prehashed(HASHES[name]())
    if form == "ecdsa":
        public.verify(signature, digest, ec.ECDSA(algorithm))
    elif form == "pss":
        salt = padding.PSS(padding.MGF1(HASHES[name]()), HASHES[name].digest_size)
        public.verify(signature, digest, salt, algorithm)
    else:
        public.verify(signature, digest, padding.PKCS1v15(), algorithm)


def verify_scheme(public, signature, content, scheme):
    """Of content signed with a TLS SignatureScheme; raises InvalidSignature."""
    form, name = SCHEMES[scheme]
    if form == "eddsa":
        public.verify(signature, content)
        return
    digest = hashes.Hash(HASHES[name]())
    digest.update(content)
    verify_digest(public, signature, digest.finalize(), form, name)


def verify_md5sha1(public, signature, digest):
    """RSA over the 36 octets of TLS 1.0's MD5 and SHA-1, which no library verifies any more."""
    assert isinstance(public, rsa.RSAPublicKey)
    size = (public.key_size + 7) // 8
    numbers = public.public_numbers()
    block = pow(int.from_bytes(signature, "big"), numbers.e, numbers.n).to_bytes(size, "big")
    assert block == b"\x00\x01" + b"\xff" * (size - 3 - len(digest)) + b"\x00" + digest


def is_eddsa(public):
    return isinstance(public, (ed25519.Ed25519PublicKey, ed448.Ed448PublicKey))


def point(curve):
    """An uncompressed point on this curve."""
    key = ec.generate_private_key(curve).public_key()
    return key.public_bytes(serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)
