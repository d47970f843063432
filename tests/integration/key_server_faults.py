"""The ways in which a key server can go wrong, and those that are odd and right all the same: one class each, which
overrides what an honest key server does otherwise."""

import asyncio
import collections
import contextlib
import functools
import random

from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa

import kssl_codec as kssl
from fake_key_server import Behaviour, find_key, sign_parts, site_keys
from kssl_codec import Error, Op, Tag


@functools.lru_cache(maxsize=None)
def another_key(key):
    """A key of the same kind that is not this one: of RSA, another site's, since making one takes its time."""
    if isinstance(key, ec.EllipticCurvePrivateKey):
        return ec.generate_private_key(key.curve)
    if isinstance(key, rsa.RSAPrivateKey):
        others = (other for other in site_keys().values() if isinstance(other, rsa.RSAPrivateKey))
        return next(other for other in others if other is not key and other.key_size == key.key_size)
    kind = ed25519.Ed25519PrivateKey if isinstance(key, ed25519.Ed25519PrivateKey) else ed448.Ed448PrivateKey
    return kind.generate()


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


class Holds(Behaviour):
    """Keeps requests for signatures until the test lets go of them, the oldest first."""

    def __init__(self):
        self.kept = collections.deque()

    async def sign(self, link, request):
        self.kept.append((link, request))

    def release(self, server, count=1):
        """Answers so many of them."""

        async def answer():
            for _ in range(count):
                await super(Holds, self).sign(*self.kept.popleft())

        server.run(answer())


class Slow(Behaviour):
    """Takes this long for each signature, for many at the same time."""

    def __init__(self, seconds):
        self.seconds = seconds

    async def sign(self, link, request):
        await asyncio.sleep(self.seconds)
        await super().sign(link, request)


class SlowHello(Behaviour):
    def __init__(self, seconds):
        self.seconds = seconds

    async def hello(self, link, request):
        await asyncio.sleep(self.seconds)
        await super().hello(link, request)


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
    """Waits for so many requests, but not long, and answers those that came last first."""

    PATIENCE = 0.02

    def __init__(self, count):
        self.count = count
        self.reversed = 0  # answers that overtook one

    async def sign(self, link, request):
        link.held.append(request)
        if len(link.held) == 1:
            asyncio.get_running_loop().create_task(self.lose_patience(link, request))
        if len(link.held) == self.count:
            await self.answer(link)

    async def lose_patience(self, link, request):
        await asyncio.sleep(self.PATIENCE)
        if request in link.held:
            await self.answer(link)

    async def answer(self, link):
        held, link.held = link.held, []
        self.reversed += len(held) - 1
        for request in reversed(held):
            with contextlib.suppress(OSError):
                await super().sign(link, request)


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
