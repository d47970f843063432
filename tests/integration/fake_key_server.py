"""A key server in Python whose answers a test decides. Here are the honest ones, of either part of the protocol;
key_server_faults.py has one class for each way in which a key server can go wrong.

It runs in a thread of its own. What it does is the Behaviour that it has at that moment, so a test can make it fail
and lift the fault again: server.behaviour = SomeFault(); server.behaviour = Honest().
"""

import asyncio
import collections
import functools
import socket
import ssl
import struct
import threading
import time

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, padding, rsa, utils

import kssl_codec as kssl
from harness import CHANNEL, PATIENCE, SITES
from kssl_codec import Error, Op, Tag

HASHES = {20: hashes.SHA1(), 28: hashes.SHA224(), 32: hashes.SHA256(), 48: hashes.SHA384(), 64: hashes.SHA512()}

# TLS SignatureScheme: how it signs.
SCHEMES = {
    0x0401: ("pkcs1", 32), 0x0501: ("pkcs1", 48), 0x0601: ("pkcs1", 64),
    0x0403: ("ecdsa", 32), 0x0503: ("ecdsa", 48), 0x0603: ("ecdsa", 64),
    0x0804: ("pss", 32), 0x0805: ("pss", 48), 0x0806: ("pss", 64),
    0x0807: ("ed25519", None), 0x0808: ("ed448", None),
}

# Bare operations: how they sign, and the size of the digest.
BARE = {
    Op.RSA_MD5SHA1: ("pkcs1", 36), Op.RSA_SHA1: ("pkcs1", 20), Op.RSA_SHA224: ("pkcs1", 28),
    Op.RSA_SHA256: ("pkcs1", 32), Op.RSA_SHA384: ("pkcs1", 48), Op.RSA_SHA512: ("pkcs1", 64),
    Op.ECDSA_MD5SHA1: ("ecdsa", 36), Op.ECDSA_SHA1: ("ecdsa", 20), Op.ECDSA_SHA224: ("ecdsa", 28),
    Op.ECDSA_SHA256: ("ecdsa", 32), Op.ECDSA_SHA384: ("ecdsa", 48), Op.ECDSA_SHA512: ("ecdsa", 64),
    Op.ED25519: ("ed25519", None),
    Op.RSA_PSS_SHA256: ("pss", 32), Op.RSA_PSS_SHA384: ("pss", 48), Op.RSA_PSS_SHA512: ("pss", 64),
}


class Refused(Exception):
    """The error octet that a request is answered with."""

    def __init__(self, error):
        super().__init__(f"error {error:#04x}")
        self.error = error


# ---- Signing.


def digest_of(size, data):
    chosen = hashes.Hash(HASHES[size])
    chosen.update(data)
    return chosen.finalize()


def rsa_md5sha1(key, digest):
    """PKCS#1 v1.5 without a DigestInfo: the one that TLS 1.1 signed."""
    numbers = key.private_numbers()
    n = numbers.public_numbers.n
    size = (n.bit_length() + 7) // 8
    block = b"\0\1" + b"\xff" * (size - 3 - len(digest)) + b"\0" + digest
    return pow(int.from_bytes(block, "big"), numbers.d, n).to_bytes(size, "big")


def ecdsa(key, digest):
    """A digest of any size over any curve: cut or filled up to the curve's, which says the same number."""
    size = min((key.curve.key_size + 7) // 8, 64)
    digest = digest[:size].rjust(size, b"\0")
    return key.sign(digest, ec.ECDSA(utils.Prehashed(HASHES[size])))


def sign_digest(key, how, digest):
    """Of RSA and ECDSA keys; Refused if the key is of another type."""
    if how == "ecdsa" and isinstance(key, ec.EllipticCurvePrivateKey):
        return ecdsa(key, digest)
    if not isinstance(key, rsa.RSAPrivateKey) or how not in ("pkcs1", "pss"):
        raise Refused(Error.CRYPTO)
    if len(digest) == 36:
        return rsa_md5sha1(key, digest)
    chosen = HASHES[len(digest)]
    pad = padding.PKCS1v15() if how == "pkcs1" else padding.PSS(padding.MGF1(chosen), len(digest))
    return key.sign(digest, pad, utils.Prehashed(chosen))


def sign_message(key, how, size, message):
    if how in ("ed25519", "ed448"):
        kind = ed25519.Ed25519PrivateKey if how == "ed25519" else ed448.Ed448PrivateKey
        if not isinstance(key, kind):
            raise Refused(Error.CRYPTO)
        return key.sign(message)
    return sign_digest(key, how, digest_of(size, message))


@functools.lru_cache(maxsize=None)
def site_keys():
    """The sites' private keys by SKI."""
    found = {}
    for path in sorted((SITES / "keys").iterdir()):
        key = serialization.load_pem_private_key(path.read_bytes(), None)
        found[kssl.ski(key.public_key())] = key
    return found


def find_key(request):
    """By SKI alone."""
    wanted = request.get(Tag.SKI)
    if wanted not in site_keys():
        raise Refused(Error.KEY_NOT_FOUND)
    return site_keys()[wanted]


def sign_bare(request, key):
    how, size = BARE[request.opcode]
    if size is None:
        return sign_message(key, how, size, request.payload or b"")
    if len(request.payload or b"") != size:
        raise Refused(Error.CRYPTO)
    return sign_digest(key, how, request.payload)


def sign_parts(request, key):
    """Operations 0x61, 0x62 and 0x63: rebuilds what is signed. A transcript is not checked: a real key server does."""
    (scheme,) = struct.unpack_from("!H", request.payload)
    if scheme not in SCHEMES:
        raise Refused(Error.CRYPTO)
    content = request.payload[2:]
    if request.opcode == Op.SIGN_TRANSCRIPT:
        content = kssl.certificate_verify(transcript_hash(content))
    elif request.opcode == Op.SIGN_TLS13:
        content = kssl.certificate_verify(content)
    return sign_message(key, *SCHEMES[scheme], content)


def transcript_hash(messages):
    """What a TLS 1.3 server signs of the messages ClientHello .. Certificate (RFC 8446 section 4.4.1)."""
    split, left = [], messages
    while left:
        size = 4 + int.from_bytes(left[1:4], "big")
        assert size <= len(left), "a message is cut short"
        split.append(left[:size])
        left = left[size:]
    assert [message[0] for message in split] in ([1, 2, 8, 11], [1, 2, 1, 2, 8, 11]), "not the messages of a transcript"
    server_hello = split[-3]
    suite = server_hello[39 + server_hello[38] : 41 + server_hello[38]]
    size = 48 if suite == b"\x13\x02" else 32
    if len(split) > 4:
        split[0] = b"\xfe\0\0" + bytes([size]) + digest_of(size, split[0])
    return digest_of(size, b"".join(split))


# ---- One connection.


class Link:
    """A connection of a proxy."""

    def __init__(self, server, reader, writer):
        self.server, self.reader, self.writer = server, reader, writer
        self.answered = 0
        self.waiting = 0  # for a signature
        self.held = []

    async def send(self, data):
        """In one TLS record, if it fits one."""
        self.writer.write(data)
        await self.writer.drain()

    def cut(self):
        """Ends the connection without a word."""
        self.writer.transport.abort()

    def later(self, seconds, coroutine):
        """Does something after a while, beside what goes on."""

        async def wait():
            await asyncio.sleep(seconds)
            try:
                await coroutine
            except OSError:
                pass

        self.server.remember(asyncio.get_running_loop().create_task(wait()))


class Behaviour:
    """An honest key server of ours (Part B). A fault overrides what it does otherwise."""

    opcodes = (Op.SIGN_TLS13, Op.SIGN_TLS12, Op.SIGN_TRANSCRIPT)
    clock_ahead = 0
    idle_timeout = 3600

    # ---- How bytes look.

    def encode(self, request_id, opcode, payload):
        return kssl.message(request_id, opcode, payload)

    async def write(self, link, data):
        await link.send(data)

    async def reply(self, link, request, opcode, payload=b"", request_id=None):
        request_id = request.id if request_id is None else request_id
        await self.write(link, self.encode(request_id, opcode, payload))
        link.answered += 1

    # ---- What happens.

    async def accepted(self, sock):
        """Whether TLS is to be spoken on a connection that was just accepted."""
        return True

    async def opened(self, link):
        """The channel is open."""

    async def hello(self, link, request):
        payload = kssl.hello(self.opcodes, int(time.time()) + self.clock_ahead)
        await self.reply(link, request, Op.SUCCESS, payload)

    async def ping(self, link, request):
        await self.reply(link, request, Op.PONG, request.payload or b"")

    def signature(self, request):
        if request.opcode not in self.opcodes:
            raise Refused(Error.BAD_OPCODE)
        return sign_parts(request, find_key(request))

    async def sign(self, link, request):
        try:
            signature = self.signature(request)
        except Refused as refused:
            await self.reply(link, request, Op.ERROR, bytes([refused.error]))
        else:
            await self.reply(link, request, Op.SUCCESS, signature)

    async def handle(self, link, request):
        handlers = {Op.HELLO: self.hello, Op.PING: self.ping}
        await handlers.get(request.opcode, self.sign)(link, request)


Honest = Behaviour


class PartA(Behaviour):
    """A key server that knows Part A alone, as strict as the strictest in the field: in order, no empty payload item in
    its answers, bare operations by SKI, a bound on requests in flight, idle connections closed without a word. What a
    client must not send it notes in server.violations."""

    opcodes = tuple(BARE)
    in_flight = 1024

    def encode(self, request_id, opcode, payload):
        return kssl.message(request_id, opcode, payload or None)

    def check(self, link, request):
        note = link.server.violations.append
        strange = [tag for tag in request.tags if tag not in kssl.PART_A_TAGS]
        if strange:
            note(f"tags that are not Part A's: {strange}")
        if len(set(request.tags)) != len(request.tags):
            note(f"a tag given twice: {request.tags}")
        if Tag.PAYLOAD not in request.tags:
            note("no payload item")
        if len(request.get(Tag.SKI) or bytes(20)) != 20:
            note("a SKI of a wrong size")

    async def handle(self, link, request):
        self.check(link, request)
        if request.opcode in BARE:
            link.waiting += 1
            if link.waiting > self.in_flight:
                link.server.violations.append(f"{link.waiting} requests in flight")
        await super().handle(link, request)

    async def reply(self, link, request, opcode, payload=b"", request_id=None):
        await super().reply(link, request, opcode, payload, request_id)
        if request.opcode in BARE:
            link.waiting -= 1

    async def hello(self, link, request):
        await self.reply(link, request, Op.ERROR, bytes([Error.BAD_OPCODE]))

    def signature(self, request):
        if request.opcode not in BARE:
            raise Refused(Error.BAD_OPCODE)
        return sign_bare(request, find_key(request))


# ---- The server.


class FakeKeyServer:
    """Listens on a port of its own; behaviour decides, and may be changed at any time."""

    def __init__(self, behaviour=None, certificate="keyserver"):
        self.behaviour = behaviour or Honest()
        self.requests = collections.deque(maxlen=10000)  # (link, message) of all that came
        self.links = []  # those open now
        self.accepted = 0
        self.violations = []
        self.errors = []  # of the fake itself
        self._tasks = set()
        self._sockets = set()
        self.show(certificate)
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self._listener.setblocking(False)
        self.port = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._started = threading.Event()

    def start(self):
        self._thread.start()
        self._started.wait()
        return self

    def stop(self):
        """Ends it; not 0 if the fake itself went wrong (self.errors)."""
        self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join()
        return len(self.errors)

    def __repr__(self):
        return f"FakeKeyServer(port={self.port}, errors={self.errors})"

    def show(self, certificate):
        """The certificate of connections from now on: a name in certs/out/channel."""
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(CHANNEL / f"{certificate}.pem", CHANNEL / f"{certificate}-key.pem")
        tls.load_verify_locations(CHANNEL / "ca.pem")
        tls.verify_mode = ssl.CERT_REQUIRED
        self._tls = tls

    def cut_all(self):
        """Ends all connections without a word."""

        def cut():
            for link in self.links:
                link.cut()
            while self._sockets:
                self._sockets.pop().close()

        self._loop.call_soon_threadsafe(cut)

    def run(self, coroutine):
        """In the server's own thread, to its end."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(PATIENCE)

    def count(self, *opcodes):
        """Requests seen with these opcodes."""
        return sum(1 for _, request in list(self.requests) if request.opcode in opcodes)

    def signatures_asked(self):
        return sum(1 for _, request in list(self.requests) if request.opcode not in (Op.HELLO, Op.PING))

    # ---- In the thread.

    def _run(self):
        asyncio.run(self._main())

    async def _main(self):
        self._loop = asyncio.get_running_loop()
        self._loop.set_exception_handler(lambda loop, context: None)  # peers vanish in many tests
        self._stopping = asyncio.Event()
        accepting = self._loop.create_task(self._accept())
        self._started.set()
        await self._stopping.wait()
        for task in [accepting, *self._tasks]:
            task.cancel()
        await asyncio.gather(accepting, *self._tasks, return_exceptions=True)
        for link in list(self.links):
            link.cut()
        for left in [self._listener, *self._sockets]:
            left.close()
        await asyncio.sleep(0)

    def remember(self, task):
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _accept(self):
        while True:
            accepted, _ = await self._loop.sock_accept(self._listener)
            accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # asyncio does so only for what it accepts
            self.accepted += 1
            self.remember(self._loop.create_task(self._serve(accepted)))

    async def _serve(self, accepted):
        if not await self.behaviour.accepted(accepted):
            self._sockets.add(accepted)  # held open to the end
            return
        try:
            link = await self._open(accepted)
        except (OSError, asyncio.TimeoutError):
            accepted.close()
            return
        self.links.append(link)
        try:
            await self._talk(link)
        except (OSError, asyncio.TimeoutError):
            pass
        except Exception as error:  # a fault of the fake must not look like one of the proxy
            self.errors.append(repr(error))
        finally:
            self.links.remove(link)
            link.cut()

    async def _open(self, accepted):
        reader = asyncio.StreamReader(limit=1 << 20)
        protocol = asyncio.StreamReaderProtocol(reader)
        transport, _ = await self._loop.connect_accepted_socket(
            lambda: protocol, accepted, ssl=self._tls, ssl_handshake_timeout=10
        )
        return Link(self, reader, asyncio.StreamWriter(transport, protocol, reader, self._loop))

    async def _talk(self, link):
        frames = kssl.FrameReader()
        await self.behaviour.opened(link)
        while True:
            data = await asyncio.wait_for(link.reader.read(65536), self.behaviour.idle_timeout)
            if not data:
                return
            frames.feed(data)
            for request in frames:
                self.requests.append((link, request))
                await self.behaviour.handle(link, request)
