"""A key server in Python whose answers a test decides: an honest one of either part of the protocol, and one class
for each way in which a key server can go wrong.

It runs in a thread of its own. What it does is the Behaviour that it has at that moment, so a test can make it fail
and lift the fault again: server.behaviour = SomeFault(); server.behaviour = Honest().
"""

import asyncio
import collections
import functools
import random
import socket
import ssl
import struct
import threading
import time

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, padding, rsa, utils

import kssl_codec as kssl
from harness import CHANNEL, SITES
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
    """Operations 0x61 and 0x62: rebuilds what is signed."""
    (scheme,) = struct.unpack_from("!H", request.payload)
    if scheme not in SCHEMES:
        raise Refused(Error.CRYPTO)
    content = request.payload[2:]
    if request.opcode == Op.SIGN_TLS13:
        content = kssl.certificate_verify(content)
    return sign_message(key, *SCHEMES[scheme], content)


def another_key(key):
    """A key of the same kind that is not this one."""
    if isinstance(key, ec.EllipticCurvePrivateKey):
        return ec.generate_private_key(key.curve)
    if isinstance(key, rsa.RSAPrivateKey):
        return rsa.generate_private_key(65537, key.key_size)
    return type(key).generate()


# ---- One connection.


class Link:
    """A connection of a proxy."""

    def __init__(self, server, reader, writer):
        self.server, self.reader, self.writer = server, reader, writer
        self.answered = 0
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

    opcodes = (Op.SIGN_TLS13, Op.SIGN_TLS12)
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
        await super().handle(link, request)

    async def hello(self, link, request):
        await self.reply(link, request, Op.ERROR, bytes([Error.BAD_OPCODE]))

    def signature(self, request):
        if request.opcode not in BARE:
            raise Refused(Error.BAD_OPCODE)
        return sign_bare(request, find_key(request))


# ---- Faults before any request.


class NeverTls(Behaviour):
    """Takes connections and says nothing."""

    async def accepted(self, sock):
        return False


class NotTls(Behaviour):
    """Is some other service."""

    async def accepted(self, sock):
        await asyncio.get_running_loop().sock_sendall(sock, b"220 mail.example ESMTP\r\n")
        return False


class GarbageAtOnce(Behaviour):
    """Speaks TLS, but not the protocol."""

    async def opened(self, link):
        await link.send(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")


class NoHello(Behaviour):
    async def hello(self, link, request):
        pass


class HelloError(Behaviour):
    def __init__(self, error=Error.BAD_OPCODE):
        self.error = error

    async def hello(self, link, request):
        await self.reply(link, request, Op.ERROR, bytes([self.error]))


class HelloPayload(Behaviour):
    """Its hello says what the test wants."""

    def __init__(self, payload):
        self.payload = payload

    async def hello(self, link, request):
        await self.reply(link, request, Op.SUCCESS, self.payload)


class Offers(Behaviour):
    """Knows these operations only."""

    def __init__(self, *opcodes):
        self.opcodes = opcodes


class ClockAhead(Behaviour):
    def __init__(self, seconds):
        self.clock_ahead = seconds


class ClosesAfterHello(Behaviour):
    async def hello(self, link, request):
        await super().hello(link, request)
        link.cut()


# ---- Faults in the answer to a request for a signature.


class Answers(Behaviour):
    """Every request for a signature gets this message."""

    def __init__(self, opcode, payload):
        self.opcode, self.payload = opcode, payload

    async def sign(self, link, request):
        await self.reply(link, request, self.opcode, self.payload)


class RawAnswer(Behaviour):
    """Every request gets these bytes: make(request) makes them."""

    def __init__(self, make):
        self.make = make

    async def sign(self, link, request):
        await self.write(link, self.make(request))


class HalfAFrame(Behaviour):
    """The first half of an answer, then not one byte more, pongs neither."""

    async def sign(self, link, request):
        whole = self.encode(request.id, Op.SUCCESS, self.signature(request))
        await link.send(whole[: len(whole) // 2])

    async def ping(self, link, request):
        pass


class NeverSigns(Behaviour):
    """Lives, and answers pings, but no request."""

    async def sign(self, link, request):
        pass


class Dead(NeverSigns):
    """Keeps its connections and answers nothing at all."""

    async def ping(self, link, request):
        pass


class OtherId(Behaviour):
    """The answer carries another id: change(id)."""

    def __init__(self, change):
        self.change = change

    async def sign(self, link, request):
        await self.reply(link, request, Op.SUCCESS, self.signature(request), self.change(request.id) & 0xFFFFFFFF)


class Twice(Behaviour):
    async def sign(self, link, request):
        await super().sign(link, request)
        await super().sign(link, request)


class Late(Behaviour):
    """The right answer, after the deadline."""

    def __init__(self, seconds):
        self.seconds = seconds

    async def sign(self, link, request):
        link.later(self.seconds, super().sign(link, request))


class OtherKey(Behaviour):
    """Signs the right content with a key of the same kind."""

    def signature(self, request):
        return sign_parts(request, another_key(find_key(request)))


class OtherContent(Behaviour):
    """Signs something else with the right key."""

    def signature(self, request):
        changed = bytearray(request.payload)
        changed[-1] ^= 1
        request.items = [(tag, bytes(changed) if tag == Tag.PAYLOAD else data) for tag, data in request.items]
        return super().signature(request)


class Corrupted(Behaviour):
    def __init__(self, change):
        self.change = change

    def signature(self, request):
        return self.change(super().signature(request))


# ---- Connections that end.


class ClosesOnRequest(Behaviour):
    """The first `count` requests of all cost their connection, unanswered and without a word; later ones are served."""

    def __init__(self, count, also=None):
        self.left = count
        self.also = also

    async def sign(self, link, request):
        if self.left > 0:
            self.left -= 1
            if self.also is not None:
                await link.send(self.also)
            link.cut()
        else:
            await super().sign(link, request)


class ClosesAfterReply(Behaviour):
    """One signature a connection. politely: with close_notify."""

    def __init__(self, politely=False):
        self.politely = politely

    async def sign(self, link, request):
        await super().sign(link, request)
        if self.politely:
            link.writer.close()
        else:
            link.cut()


# ---- What is odd, and right all the same.


class Reversed(Behaviour):
    """Waits for so many requests and answers them last first; later ones at once."""

    def __init__(self, count):
        self.count = count

    async def sign(self, link, request):
        link.held.append(request)
        if len(link.held) < self.count:
            return
        for held in reversed(link.held):
            await super().sign(link, held)
        self.count, link.held = 1, []


class OddButRight(Behaviour):
    """Random padding (none, too much, in front), any minor version, unknown and repeated unknown tags, trace items."""

    def __init__(self, seed=1):
        self.random = random.Random(seed)

    def encode(self, request_id, opcode, payload):
        chance = self.random
        items = [(Tag.OPCODE, bytes([opcode])), (Tag.PAYLOAD, payload)]
        items += [(0x7E, b"unknown"), (0x7E, b""), (Tag.CONTEXT, b"\xff\0"), (Tag.REGION, b"eu")]
        for _ in range(chance.randrange(3)):
            items.append((Tag.PADDING, bytes(chance.randrange(3000))))
        chance.shuffle(items)
        body = b"".join(kssl.item(tag, data) for tag, data in items)
        return kssl.frame(request_id, body, minor=chance.randrange(256))


class InPieces(Behaviour):
    """Frames lie over TLS records as they should not: pieces of this size, each in a record of its own."""

    def __init__(self, size):
        self.size = size

    async def write(self, link, data):
        for at in range(0, len(data), self.size):
            await link.send(data[at : at + self.size])


class Glued(Behaviour):
    """Each answer but the last half of it comes at once; that half comes with the start of the next answer."""

    async def write(self, link, data):
        rest = link.held.pop() if link.held else b""
        link.held.append(data[len(data) // 2 :])
        await link.send(rest + data[: len(data) // 2])
        link.later(0.05, self.flush(link))

    async def flush(self, link):
        if link.held:
            await link.send(link.held.pop())


# ---- The server.


class FakeKeyServer:
    """Listens on a port of its own; behaviour decides, and may be changed at any time."""

    def __init__(self, behaviour=None, certificate="keyserver", client_ca="ca"):
        self.behaviour = behaviour or Honest()
        self.requests = collections.deque(maxlen=10000)  # (link, message) of all that came
        self.links = []  # those open now
        self.accepted = 0
        self.violations = []
        self.errors = []  # of the fake itself
        self._tasks = set()
        self._sockets = set()
        self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._tls.load_cert_chain(CHANNEL / f"{certificate}.pem", CHANNEL / f"{certificate}-key.pem")
        self._tls.load_verify_locations(CHANNEL / f"{client_ca}.pem")
        self._tls.verify_mode = ssl.CERT_REQUIRED
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
