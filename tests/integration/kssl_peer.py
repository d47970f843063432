"""A client of the key server, in Python: mutual TLS over TCP, frames of kssl_codec over it.

It does what it is told, also what no proper client does; nothing here is shared with the programs' own code.
"""

import collections
import contextlib
import functools
import itertools
import select
import socket
import ssl
import time

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


# Errors that were answered to any Peer: {(where it connected to, error): count}.
refusals = collections.Counter()


class Closed(Exception):
    """The server has closed the connection; the text says how."""


class Peer:
    """One connection, to a port of loopback or to a Unix socket's path. Ids are counted up unless given.

    TLS runs over memory: one thread sends and receives at the same time, as a pipelining client must.
    """

    def __init__(self, where, certificate="edge1", context=None, timeout=None, server_name="keys.example", rcvbuf=None,
                 source=None):
        self.where = where
        is_port = isinstance(where, int)
        self.timeout = PATIENCE if timeout is None else timeout
        self.raw = socket.socket(socket.AF_INET if is_port else socket.AF_UNIX)
        if rcvbuf is not None:
            self.raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, rcvbuf)
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.unsent = b""
        self.tls = (context or channel_context(certificate)).wrap_bio(
            self.incoming, self.outgoing, server_hostname=server_name
        )
        self.reader = kssl.FrameReader()
        self.ids = itertools.count(1)
        self.records = []  # octets of each record received
        try:
            self.raw.settimeout(self.timeout)
            if source is not None:
                self.raw.bind((source, 0))
            self.raw.connect(("127.0.0.1", where) if is_port else str(where))
            self.raw.setblocking(False)
            self._handshake()
        except BaseException:
            self.raw.close()
            raise

    def close(self):
        """close_notify, if that needs no waiting, and the end."""
        with contextlib.suppress(OSError, Closed):
            with contextlib.suppress(ssl.SSLWantReadError):
                self.tls.unwrap()
            self._write()
        self.raw.close()

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        self.close()

    # ---- Octets.

    def _write(self):
        """What is to be sent, as far as the socket takes it; whether all is gone."""
        self.unsent += self.outgoing.read()
        with contextlib.suppress(BlockingIOError):
            while self.unsent:
                self.unsent = self.unsent[self.raw.send(self.unsent) :]
        return not self.unsent

    def _read(self):
        """What has come in goes to TLS; False: nothing has."""
        try:
            data = self.raw.recv(65536)
        except BlockingIOError:
            return False
        if data:
            self.incoming.write(data)
        else:
            self.incoming.write_eof()
        return True

    def _wait(self, reading, writing, deadline):
        poll = select.poll()  # select knows no descriptors past 1,023
        poll.register(self.raw, (select.POLLIN if reading else 0) | (select.POLLOUT if writing else 0))
        if not poll.poll(max(0, deadline - time.monotonic()) * 1000):
            raise TimeoutError("nothing moves on the connection")

    def _exchange(self, deadline):
        """Waits until something has come in, sending meanwhile what is to be sent."""
        try:
            while True:
                sent = self._write()
                if self._read():
                    return
                self._wait(True, not sent, deadline)
        except (ConnectionError, OSError) as error:
            if isinstance(error, TimeoutError):
                raise
            # What has arrived before is still to be read.
            self.incoming.write_eof()
            self.broken = str(error)

    broken = None

    def _tls(self, operation, *arguments):
        deadline = time.monotonic() + self.timeout
        while True:
            try:
                return operation(*arguments)
            except ssl.SSLWantReadError:
                self._exchange(deadline)

    def _handshake(self):
        try:
            self._tls(self.tls.do_handshake)
            self._flush()
        except (ssl.SSLEOFError, ssl.SSLZeroReturnError) as error:
            raise Closed(self.broken or "in the handshake") from error

    def _flush(self):
        deadline = time.monotonic() + self.timeout
        while not self._write():
            self._wait(False, True, deadline)

    def send(self, data):
        """Sends all of it without reading; TimeoutError: the server takes no more."""
        self.tls.write(data)
        self._flush()

    def send_records(self, pieces):
        """Each of the pieces in a record of its own."""
        for piece in pieces:
            self.tls.write(piece)
        self._flush()

    # ---- Messages.

    def receive(self):
        """The next message."""
        while True:
            for message in self.reader:
                if message.error is not None:
                    refusals[self.where, message.error] += 1
                return message
            try:
                # At most one record at a time.
                data = self._tls(self.tls.read, 16384)
            except ssl.SSLZeroReturnError as error:
                raise Closed("in good order") from error
            except ssl.SSLEOFError as error:
                raise Closed(self.broken or "without close_notify") from error
            except ssl.SSLError as error:
                raise Closed(str(error)) from error
            if not data:
                raise Closed("in good order")
            self.records.append(len(data))
            self.reader.feed(data)

    def pipeline(self, messages):
        """Whole messages, sent and answered at the same time; the answers as they come."""
        batch = list(messages)
        self.tls.write(b"".join(batch))
        return [self.receive() for _ in batch]

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

    def until_closed(self):
        """What still comes, and how the connection ended."""
        messages = []
        try:
            while True:
                messages.append(self.receive())
        except Closed as end:
            return messages, str(end)

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


# ---- Keys and what they sign.


@functools.cache
def private_site_key(name):
    """The key of a site that make-certs.sh has made."""
    return serialization.load_pem_private_key((SITES / "keys" / f"{name}.key").read_bytes(), None)


def write_key(directory, name, key):
    """Puts a private key where a key server finds it: `keys: [{dir: directory}]`."""
    file = directory / f"{name}.key"
    file.touch(mode=0o600)
    file.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8,
                                       serialization.NoEncryption()))


@functools.cache
def site_key(name):
    """Its public half."""
    return private_site_key(name).public_key()


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
