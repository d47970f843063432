"""A TLS client of which every message can be left out, changed or sent at the wrong time: 1.3 and 1.2, with keys.

It is there to misbehave: certificates and signatures are other clients' business (curl, s_client, gnutls-cli,
tstclnt check those), but each Finished of the server's is checked here.
"""

import contextlib
import hashlib
import hmac
import json
import socket

from cryptography.hazmat.primitives.asymmetric import ec, x25519
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

import tls_wire as wire
from harness import PATIENCE

SUITES = {
    wire.AES128_13: ("sha256", 16, AESGCM),
    wire.AES256_13: ("sha384", 32, AESGCM),
    wire.CHACHA_13: ("sha256", 32, ChaCha20Poly1305),
    wire.ECDSA_AES128: ("sha256", 16, AESGCM),
    wire.RSA_AES128: ("sha256", 16, AESGCM),
}
CURVES = {wire.P256: ec.SECP256R1, wire.P384: ec.SECP384R1, wire.P521: ec.SECP521R1}


class Alert(Exception):
    """The server sent one."""

    def __init__(self, level, number):
        super().__init__(f"alert {number} of level {level}")
        self.level, self.number = level, number


class End(Exception):
    """The server ended the connection."""


class Share:
    """One side of a key exchange."""

    def __init__(self, group):
        self.group = group
        if group == wire.X25519:
            self.private = x25519.X25519PrivateKey.generate()
            self.public = self.private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        else:
            self.private = ec.generate_private_key(CURVES[group]())
            self.public = self.private.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)

    def secret(self, peer):
        if self.group == wire.X25519:
            return self.private.exchange(x25519.X25519PublicKey.from_public_bytes(peer))
        public = ec.EllipticCurvePublicKey.from_encoded_point(self.private.curve, peer)
        return self.private.exchange(ec.ECDH(), public)


# ---- Record protection.

def expand(secret, info, size, name):
    """HKDF-Expand (RFC 5869)."""
    made, block, count = b"", b"", 1
    while len(made) < size:
        block = hmac.digest(secret, block + info + bytes([count]), name)
        made, count = made + block, count + 1
    return made[:size]


def expand_label(secret, label, context, size, name):
    info = wire.u16(size) + wire.vector8(b"tls13 " + label) + wire.vector8(context)
    return expand(secret, info, size, name)


class Plain:
    """Before there are keys."""

    def seal(self, kind, body):
        return wire.record(kind, body)

    def open(self, kind, _version, body):
        return kind, body


class Protection13:
    def __init__(self, secret, suite):
        self.secret, self.suite = secret, suite
        self.hash, size, aead = SUITES[suite]
        self.aead = aead(expand_label(secret, b"key", b"", size, self.hash))
        self.iv = expand_label(secret, b"iv", b"", 12, self.hash)
        self.count = 0

    def nonce(self):
        number = int.from_bytes(self.iv, "big") ^ self.count
        self.count += 1
        return number.to_bytes(12, "big")

    def seal(self, kind, body, padding=0):
        return self.seal_inner(body + bytes([kind]) + bytes(padding))

    def seal_inner(self, inner):
        header = wire.u8(wire.APPLICATION_DATA) + wire.u16(wire.TLS12, len(inner) + 16)
        return header + self.aead.encrypt(self.nonce(), inner, header)

    def open(self, kind, version, body):
        if kind == wire.CHANGE_CIPHER_SPEC:
            return kind, body
        assert kind == wire.APPLICATION_DATA, f"a record of type {kind} that is not encrypted"
        header = wire.u8(kind) + wire.u16(version, len(body))
        inner = self.aead.decrypt(self.nonce(), body, header).rstrip(b"\0")
        return inner[-1], inner[:-1]

    def next(self):
        """After a KeyUpdate."""
        secret = expand_label(self.secret, b"traffic upd", b"", hashlib.new(self.hash).digest_size, self.hash)
        return Protection13(secret, self.suite)


class Protection12:
    def __init__(self, key, salt):
        self.aead, self.salt, self.count = AESGCM(key), salt, 0

    def additional(self, kind, size):
        made = self.count.to_bytes(8, "big") + wire.u8(kind) + wire.u16(wire.TLS12, size)
        self.count += 1
        return made

    def seal(self, kind, body):
        explicit = self.count.to_bytes(8, "big")
        sealed = self.aead.encrypt(self.salt + explicit, body, self.additional(kind, len(body)))
        return wire.record(kind, explicit + sealed)

    def open(self, kind, _version, body):
        opened = self.aead.decrypt(self.salt + body[:8], body[8:], self.additional(kind, len(body) - 24))
        return kind, opened


# ---- The client.

def hello_of(name, version="1.3"):
    """What Client takes for hello: what a client of today sends, or one that has not heard of TLS 1.3."""
    if version == "1.3":
        return lambda pairs: wire.tls13_hello(name=name.encode(), key_shares=pairs)
    return wire.tls12_hello(name=name.encode())


class Client:
    """One connection. What it sends next is up to the test."""

    def __init__(self, port, hello=None, groups=(wire.X25519,), timeout=None, address="127.0.0.1", prepare=None):
        """hello: a wire.Hello, or a function that makes one of this client's key shares. prepare: sets up the socket
        before it is connected."""
        self.shares = {group: Share(group) for group in groups}
        pairs = [(group, share.public) for group, share in self.shares.items()]
        made = hello(pairs) if callable(hello) else hello
        self.hello = made or wire.tls13_hello(key_shares=pairs)
        self.socket = socket.socket()
        self.socket.settimeout(PATIENCE if timeout is None else timeout)
        if prepare:
            prepare(self.socket)
        self.socket.connect((address, port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.writing = self.reading = Plain()
        self.transcript = b""
        self.received = b""  # octets that are no whole record yet
        self.messages = b""  # handshake octets that are no whole message yet
        self.version = self.suite = self.server = None
        self.leaf = None  # the server's certificate, DER
        self.largest = 0  # of the server's records
        self.key_updates = 0  # the server's
        self.tickets = []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    # ---- Octets and records.

    def send(self, data):
        self.socket.sendall(data)

    def send_record(self, kind, body):
        self.send(self.writing.seal(kind, body))

    def send_message(self, kind, body):
        """One handshake message in one record, as the keys of the moment have it."""
        made = wire.message(kind, body)
        self.transcript += made
        self.send_record(wire.HANDSHAKE, made)

    def send_data(self, data):
        self.send_record(wire.APPLICATION_DATA, data)

    def receive(self, size):
        while len(self.received) < size:
            chunk = self.socket.recv(65536)
            if not chunk:
                raise End(f"{len(self.received)} of {size} octets")
            self.received += chunk
        taken, self.received = self.received[:size], self.received[size:]
        return taken

    def read_record(self):
        """The next record as (type, content); the server's alert as an exception."""
        header = self.receive(5)
        version, size = int.from_bytes(header[1:3], "big"), int.from_bytes(header[3:5], "big")
        kind, body = header[0], self.receive(size)
        # An alert may come before both sides have keys, or be told of by a server that has none yet.
        if not (kind == wire.ALERT and size == 2):
            kind, body = self.reading.open(kind, version, body)
        if kind == wire.ALERT:
            raise Alert(*body)
        self.largest = max(self.largest, len(body))
        return kind, body

    def read_message(self, expected=None):
        """The next handshake message's body, or (type, body) if any will do."""
        while not self._whole_message():
            kind, body = self.read_record()
            if kind == wire.CHANGE_CIPHER_SPEC and self.version == wire.TLS13:
                continue
            assert kind == wire.HANDSHAKE, f"a record of type {kind} where a handshake message belongs"
            self.messages += body
        size = 4 + int.from_bytes(self.messages[1:4], "big")
        made, self.messages = self.messages[:size], self.messages[size:]
        self.transcript += made
        if expected is None:
            return made[0], made[4:]
        assert made[0] == expected, f"handshake message {made[0]} where {expected} was expected"
        return made[4:]

    def _whole_message(self):
        return len(self.messages) >= 4 and len(self.messages) >= 4 + int.from_bytes(self.messages[1:4], "big")

    def outcome(self):
        """Reads to the end; how the server ended it: an alert's number, "end", or "reset"."""
        try:
            while True:
                self.read_record()
        except Alert as seen:
            return seen.number
        except End:
            return "end"
        except ConnectionError:
            return "reset"

    # ---- The handshake's parts.

    def note_hello(self):
        self.transcript += self.hello.message()

    def send_hello(self):
        self.note_hello()
        self.send(self.hello.record())

    def read_server_hello(self):
        before = self.transcript
        self.server = wire.ServerHello.parse(self.read_message(wire.SERVER_HELLO))
        self.version, self.suite = self.server.version, self.server.suite
        self.hash = SUITES[self.suite][0]
        if self.server.retry:
            first = hashlib.new(self.hash, before).digest()
            self.transcript = wire.message(254, first) + self.transcript[len(before):]
        return self.server

    def second_hello(self):
        """What a HelloRetryRequest asks for."""
        group = int.from_bytes(self.server.extensions[wire.KEY_SHARE], "big")
        self.shares = {group: Share(group)}
        pair = (group, self.shares[group].public)
        return self.hello.without(wire.EARLY_DATA).having((wire.KEY_SHARE, wire.shares(pair)))

    def read_unsigned(self):
        """The server's first flight up to its Certificate: what needs no signature."""
        if self.version == wire.TLS13:
            self._read_unsigned13()
        else:
            self._read_unsigned12()

    def read_signed(self):
        """What comes after that; then there are keys."""
        if self.version == wire.TLS13:
            self._read_signed13()
        else:
            self._read_signed12()

    def read_flight(self):
        """The rest of the server's first flight."""
        self.read_unsigned()
        self.read_signed()

    def start(self):
        """Up to the end of the server's first flight; a HelloRetryRequest is done."""
        self.send_hello()
        return self.answer_server_hello()

    def answer_server_hello(self):
        if self.read_server_hello().retry:
            self.hello = self.second_hello()
            self.send_hello()
            assert not self.read_server_hello().retry, "a second HelloRetryRequest"
        self.read_flight()
        return self

    def finish(self):
        """What a client answers, in one piece each."""
        if self.version == wire.TLS13:
            self.send(wire.record(wire.CHANGE_CIPHER_SPEC, b"\1"))
            self.send_message(wire.FINISHED, self.finished())
        else:
            self.send_message(wire.CLIENT_KEY_EXCHANGE, wire.vector8(self.share.public))
            self.change_cipher()
            self.send_message(wire.FINISHED, self.finished())
        self.conclude()
        return self

    def conclude(self):
        """After the client's Finished."""
        if self.version == wire.TLS13:
            self.reading, self.writing = self._application_keys()
        else:
            self.read_finished12()

    def handshake(self):
        return self.start().finish()

    def digest(self):
        return hashlib.new(self.hash, self.transcript).digest()

    def finished(self):
        """The contents of the client's Finished, as it must be now."""
        if self.version == wire.TLS13:
            return self._finished13(self.writing.secret)
        return self._prf(self.master, b"client finished" + self.digest(), 12)

    # ---- TLS 1.3.

    def _finished13(self, secret):
        key = expand_label(secret, b"finished", b"", len(secret), self.hash)
        return hmac.digest(key, self.digest(), self.hash)

    def _derive(self, secret, label, digest):
        return expand_label(secret, label, digest, len(digest), self.hash)

    def _read_unsigned13(self):
        key_share = wire.Reader(self.server.extensions[wire.KEY_SHARE])
        self.share = self.shares[key_share.number(2)]
        shared = self.share.secret(key_share.vector(2))
        zero = bytes(hashlib.new(self.hash).digest_size)
        empty = hashlib.new(self.hash).digest()
        early = hmac.digest(zero, zero, self.hash)
        handshake = hmac.digest(self._derive(early, b"derived", empty), shared, self.hash)
        digest = self.digest()
        self.writing = Protection13(self._derive(handshake, b"c hs traffic", digest), self.suite)
        self.reading = Protection13(self._derive(handshake, b"s hs traffic", digest), self.suite)
        self.master = hmac.digest(self._derive(handshake, b"derived", empty), zero, self.hash)
        self.read_message(wire.ENCRYPTED_EXTENSIONS)
        certificates = wire.Reader(self.read_message(wire.CERTIFICATE))
        assert certificates.vector(1) == b"", "a context that nobody gave"
        self.leaf = wire.Reader(certificates.vector(3)).vector(3)

    def _read_signed13(self):
        self.read_message(wire.CERTIFICATE_VERIFY)
        expected = self._finished13(self.reading.secret)
        assert self.read_message(wire.FINISHED) == expected, "the server's Finished is wrong"
        self.digest_of_flight = self.digest()
        # The server writes under its application keys from here on.
        self.reading_next = Protection13(self._derive(self.master, b"s ap traffic", self.digest_of_flight), self.suite)
        self.reading = self.reading_next

    def _application_keys(self):
        mine = self._derive(self.master, b"c ap traffic", self.digest_of_flight)
        return self.reading, Protection13(mine, self.suite)

    def send_key_update(self, requested=0):
        self.send_record(wire.HANDSHAKE, wire.message(wire.KEY_UPDATE, wire.u8(requested)))
        self.writing = self.writing.next()

    # ---- TLS 1.2.

    def _prf(self, secret, seed, size):
        made, block = b"", seed
        while len(made) < size:
            block = hmac.digest(secret, block, "sha256")
            made += hmac.digest(secret, block + seed, "sha256")
        return made[:size]

    def _read_unsigned12(self):
        certificates = wire.Reader(self.read_message(wire.CERTIFICATE))
        self.leaf = wire.Reader(certificates.vector(3)).vector(3)

    def _read_signed12(self):
        exchange = wire.Reader(self.read_message(wire.SERVER_KEY_EXCHANGE))
        assert exchange.number(1) == 3, "no named curve"
        self.share = Share(exchange.number(2))
        shared = self.share.secret(exchange.vector(1))
        self.read_message(wire.SERVER_HELLO_DONE)
        randoms = (self.hello.random, self.server.random)
        self.master = self._prf(shared, b"master secret" + randoms[0] + randoms[1], 48)
        block = wire.Reader(self._prf(self.master, b"key expansion" + randoms[1] + randoms[0], 40))
        keys = [block.take(16), block.take(16)]
        self.writing_next = Protection12(keys[0], block.take(4))
        self.reading_next = Protection12(keys[1], block.take(4))

    def change_cipher(self):
        self.send_record(wire.CHANGE_CIPHER_SPEC, b"\1")
        self.writing = self.writing_next

    def read_finished12(self):
        expected = self._prf(self.master, b"server finished" + self.digest(), 12)
        kind, body = self.read_record()
        assert (kind, body) == (wire.CHANGE_CIPHER_SPEC, b"\1"), "no ChangeCipherSpec"
        self.reading = self.reading_next
        assert self.read_message(wire.FINISHED) == expected, "the server's Finished is wrong"

    # ---- Afterwards.

    def read_data(self):
        """The next application data; KeyUpdates of the server's are followed, and its tickets kept."""
        while True:
            kind, body = self.read_record()
            if kind == wire.APPLICATION_DATA:
                return body
            if kind == wire.HANDSHAKE and body[0] == wire.NEW_SESSION_TICKET:
                self.tickets.append(body)
                continue
            assert kind == wire.HANDSHAKE and body[0] == wire.KEY_UPDATE, f"record {kind}, message {body[:1]!r}"
            self.key_updates += 1
            self.reading = self.reading.next()

    def read_answer(self):
        """One answer of builtin:hello, as the facts that it tells."""
        got = b""
        while b"\r\n\r\n" not in got:
            got += self.read_data()
        head, _, body = got.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 "), head
        fields = dict(line.split(b": ", 1) for line in head.split(b"\r\n")[1:])
        size = int(fields[b"Content-Length"])
        while len(body) < size:
            body += self.read_data()
        return json.loads(body)

    def ask(self):
        """One request and its answer over this connection."""
        self.send_data(REQUEST)
        return self.read_answer()

    def close(self):
        """As a client should."""
        with contextlib.suppress(OSError):
            self.send_record(wire.ALERT, wire.alert(wire.CLOSE_NOTIFY, wire.WARNING))
        self.socket.close()


REQUEST = b"GET / HTTP/1.1\r\nHost: p256.example\r\n\r\n"


def leave(client, manner):
    """Ends a connection without a word of TLS: "FIN" or "RST"."""
    if manner == "RST":
        client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, bytes([1, 0, 0, 0, 0, 0, 0, 0]))
    client.socket.close()


# ---- The ways of a full handshake, each point by its name: a test goes on as far as it likes.

def walk(client):
    """The points at which a client can leave. Each name is of what was done last."""
    yield "connected"
    client.note_hello()
    hello = client.hello.record()
    client.send(hello[:40])
    yield "half a ClientHello"
    client.send(hello[40:])
    yield "ClientHello"
    client.read_server_hello()
    if client.server.retry:
        yield "HelloRetryRequest"
        client.hello = client.second_hello()
        client.send_hello()
        client.read_server_hello()
    client.read_flight()
    yield "server's flight"
    yield from walk13(client) if client.version == wire.TLS13 else walk12(client)
    client.conclude()
    yield "done"


def send_finished_in_halves(client):
    content = wire.message(wire.FINISHED, client.finished())
    client.transcript += content
    sealed = client.writing.seal(wire.HANDSHAKE, content)
    client.send(sealed[:20])
    yield "half a Finished"
    client.send(sealed[20:])
    yield "Finished"


def walk13(client):
    client.send(wire.record(wire.CHANGE_CIPHER_SPEC, b"\1"))
    yield "ChangeCipherSpec"
    yield from send_finished_in_halves(client)


def walk12(client):
    client.send_message(wire.CLIENT_KEY_EXCHANGE, wire.vector8(client.share.public))
    yield "ClientKeyExchange"
    client.change_cipher()
    yield "ChangeCipherSpec"
    yield from send_finished_in_halves(client)


def walk_to(client, point):
    for reached in walk(client):
        if reached == point:
            return
    raise AssertionError(f"the handshake has no point {point!r}")
