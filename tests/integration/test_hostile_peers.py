"""Peers that mean the key server harm, with a certificate and without. Meanwhile another client is served in time, the
front end's memory stays bounded, and each hostile connection is ended, told and counted for what it is.

Who never reads its answers, and who holds all places there are, is in test_keyserver_life.py."""

import contextlib
import random
import resource
import select
import socket
import time
import warnings

import pytest

import harness
import kssl_codec as kssl
from counters import Gains, refusals_counted
from harness import wait_until
from kssl_codec import Error, Op
from kssl_peer import Closed, Peer, channel_context, site_key

CLIENTS = [
    {"match": "DNS:edge1.example", "keys": ["*"], "allow": ["tls13", "tls12", "list", "digest"]},
    {"match": "DNS:edge2.example", "keys": ["*"], "allow": ["tls13"]},
]
# How long another client may have to wait for its connection and a signature; shared cores and sanitizers get slack.
DEADLINE = 1.0 if harness.STRICT else 4.0 if harness.SANITIZED else 2.0
ELSEWHERE = "127.0.0.2"
CLOSED = "keyless_keyserver_connections_closed_total"
FAILED = "keyless_keyserver_handshake_failures_total"
REFUSED = "keyless_keyserver_connections_refused_total"
OPEN = "keyless_keyserver_connections"


def serve_another(server, times=1):
    """A client of another address and certificate gets its signatures in time, over connections of its own."""
    for _ in range(times):
        began = time.monotonic()
        with Peer(server.port, "edge2", source=ELSEWHERE, timeout=DEADLINE) as peer:
            assert peer.sign_tls13(site_key("p256"), 0x0403, bytes(32)).opcode == Op.SUCCESS
        assert time.monotonic() - began < DEADLINE


class Memory:
    """What the only front end takes, from now on."""

    def __init__(self, server):
        (self.process,) = server.children("frontend")
        serve_another(server, 3)
        self.before = self.process.resident()

    def assert_grown_less(self, octets):
        grown = self.process.resident() - self.before
        assert grown < octets, f"{grown >> 10} kB"


@contextlib.contextmanager
def descriptors_for(connections):
    """So many as this process may have at once; fewer than asked for are told."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (before[1], before[1]))
    most = connections if before[1] == resource.RLIM_INFINITY else min(connections, before[1] - 500)
    if most < connections:
        warnings.warn(f"only {most} connections of {connections}: the hard limit of descriptors is {before[1]}")
    yield most
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def silent(server, stack_of, count, source="127.0.0.1"):
    """Connections that say nothing. The kernel accepts them, whatever the server does later."""
    made = []
    for _ in range(count):
        one = stack_of.enter_context(contextlib.closing(socket.socket()))
        one.bind((source, 0))
        one.connect(("127.0.0.1", server.port))
        made.append(one)
    return made


# ---- Too slow.


def has_closed(raw):
    """Whether the other side has, with an octet of ours still unread (a reset) or not."""
    try:
        return not raw.recv(65536)
    except ConnectionResetError:
        return True


def trickle(peers, data, period):
    """An octet of data to each that is left, every period seconds, until all are closed; how long that took."""
    began = time.monotonic()
    left = {peer.raw: peer for peer in peers}
    for octet in data:
        for raw, peer in list(left.items()):
            try:
                peer.send(bytes([octet]))
            except (OSError, Closed):
                del left[raw]
        due = time.monotonic() + period
        while left and (wait := due - time.monotonic()) > 0:
            for raw in select.select(list(left), [], [], wait)[0]:
                if has_closed(raw):
                    del left[raw]
        if not left:
            return time.monotonic() - began
    raise AssertionError(f"{len(left)} are still open")


SLOW = {
    # What is sent at once, what follows octet by octet, and how fast.
    "header": (b"", kssl.message(7, Op.PING, bytes(900))[:8], 0.5),
    "body": (kssl.message(7, Op.PING, bytes(900))[:8], kssl.message(7, Op.PING, bytes(900))[8:], 0.1),
    "body that is skipped": (kssl.frame(7, b"", major=9, length=60000), bytes(1000), 0.1),
}


@pytest.mark.parametrize("what", SLOW)
def test_slow_frames(stack, lean, what):
    """What counts is the last whole frame, not the last octet: half a frame holds its place for idle_timeout."""
    server = stack.key_server(clients=CLIENTS, limits={"idle_timeout": "2s"})
    memory, gains, mark = Memory(server), Gains(server), server.mark()
    at_once, slowly, period = SLOW[what]
    with contextlib.ExitStack() as opened:
        peers = [opened.enter_context(Peer(server.port)) for _ in range(30)]
        for peer in peers:
            assert peer.ping().opcode == Op.PONG
            peer.send(at_once)
        serve_another(server, 3)
        took = trickle(peers, slowly, period)
        assert took < len(slowly) * period
        memory.assert_grown_less(8 << 20)
    gains.assert_gained(CLOSED, len(peers), reason="idle")
    told = server.find("connection closed", after=mark, client="edge1", reason="idle: no frame within 2 s")
    assert len(told) == len(peers)
    assert {line["requests"] for line in told} == {"2" if what == "body that is skipped" else "1"}
    serve_another(server)


# ---- Too many.


def test_ten_thousand_without_handshake(stack, lean):
    """Where so many are allowed, they cost memory that is bounded, and nobody waits for them."""
    with descriptors_for(10000) as count, contextlib.ExitStack() as opened:
        server = stack.key_server(clients=CLIENTS, log={"level": "info"}, limits={
            "connections": count + 100, "per_address": 0, "handshake_timeout": "20s"})
        memory, gains, mark = Memory(server), Gains(server), server.mark()
        made = silent(server, opened, count)
        wait_until(lambda: server.metric(OPEN) >= count, f"{count} connections to be there at once")
        serve_another(server, 3)
        # An SSL object with its buffers; with the sanitizer's zones around all of it.
        memory.assert_grown_less(count * (32 if harness.SANITIZED else 20) << 10)
        gains.assert_gained(FAILED, 0)
        for one in made[::2]:
            one.close()
        wait_until(lambda: gains.gained(FAILED, reason="closed") == len(made[::2]), "those that left to be counted")
        serve_another(server)
        wait_until(lambda: gains.gained(FAILED, reason="timeout") == len(made[1::2]), "the others to time out", 60)
        wait_until(lambda: server.metric(OPEN) == 0, "all to be closed")
        gains.assert_gained(FAILED, count)
        lines = server.find("handshake failed", after=mark)
        assert 0 < len(lines) < count / 4, "lines are limited"
        serve_another(server, 3)


def test_thousands_with_handshake(stack, lean):
    """The same with a certificate: an open connection that asks nothing costs little, and ends as idle."""
    with descriptors_for(1000 if harness.SANITIZED else 10000) as count, contextlib.ExitStack() as opened:
        server = stack.key_server(clients=CLIENTS, log={"level": "info", "rate": 10}, limits={
            "connections": count + 100, "idle_timeout": "2m"})
        memory, gains, context = Memory(server), Gains(server), channel_context()
        peers = [opened.enter_context(Peer(server.port, context=context)) for _ in range(count)]
        wait_until(lambda: server.metric(OPEN) == count, f"{count} connections to be there at once")
        serve_another(server, 3)
        memory.assert_grown_less(count * (80 if harness.SANITIZED else 40) << 10)
        assert all(peer.ping().opcode == Op.PONG for peer in peers[:: count // 100])
        for peer in peers:
            peer.raw.close()
        wait_until(lambda: gains.gained(CLOSED, reason="lost") == count, "all to be counted as lost")
        wait_until(lambda: server.metric(OPEN) == 0, "all to be closed")
        serve_another(server, 3)


# ---- Too many of one address.


def ended(one):
    """Closed by the server, perhaps with an alert before."""
    one.settimeout(harness.PATIENCE)
    with contextlib.suppress(ConnectionResetError):
        while one.recv(4096):
            pass
    return True


def still_there(one):
    one.setblocking(False)
    try:
        return one.recv(1) != b""
    except BlockingIOError:
        return True
    except ConnectionError:
        return False


def test_strangers_of_one_address(stack):
    """They have as many handshakes as limits.per_address says, and whoever else wants to is let in."""
    server = stack.key_server(clients=CLIENTS, limits={"per_address": 4, "connections": 10, "handshake_timeout": "1m"})
    gains, mark = Gains(server), server.mark()
    with contextlib.ExitStack() as opened:
        # Those who have shown who they are count no longer.
        friends = [opened.enter_context(Peer(server.port)) for _ in range(5)]
        held = silent(server, opened, 4)
        wait_until(lambda: server.metric(OPEN) == 9, "them to be accepted")
        refused = silent(server, opened, 20)
        assert all(ended(one) for one in refused)
        assert all(still_there(one) for one in held)
        gains.assert_gained(REFUSED, len(refused), reason="per_address")
        line = server.wait_for("connection refused", after=mark)
        assert line["level"] == "warn" and "limits.per_address" in line["reason"]
        assert line["peer"] in {"{}:{}".format(*one.getsockname()) for one in refused}
        with pytest.raises((Closed, ConnectionError)):
            Peer(server.port)
        serve_another(server, 3)
        assert all(friend.ping().opcode == Op.PONG for friend in friends)
        # A place that is free is had again.
        held.pop().close()
        wait_until(lambda: server.metric(OPEN) == 8, "its end to be noticed")
        with Peer(server.port) as peer:
            assert peer.ping().opcode == Op.PONG


def test_strangers_whose_time_is_up(stack):
    """Whoever is ended, for whatever reason, is no longer counted."""
    server = stack.key_server(clients=CLIENTS, limits={"per_address": 2, "handshake_timeout": "500ms"})
    gains = Gains(server)
    with contextlib.ExitStack() as opened:
        for number in (1, 2, 3):
            assert all(ended(one) for one in silent(server, opened, 2))
            gains.assert_gained(FAILED, 2 * number, reason="timeout")
        for _ in range(5):
            with Peer(server.port, "stranger") as peer:  # turned away after its handshake
                assert peer.until_closed() == ([], "in good order")
        gains.assert_gained(REFUSED, 5, reason="no_client_entry")
        for one in silent(server, opened, 2):
            one.sendall(b"no TLS at all")
            assert ended(one)
    gains.assert_gained(REFUSED, 0, reason="per_address")


def test_strangers_of_one_address_at_several_workers(stack):
    """Each has its share, so that all together have what is allowed."""
    server = stack.key_server(clients=CLIENTS, workers=2, limits={"per_address": 4, "handshake_timeout": "1m"})
    gains = Gains(server)
    with contextlib.ExitStack() as opened:
        made = silent(server, opened, 60)
        gains.assert_gained(REFUSED, len(made) - 4, reason="per_address")
        assert sum(still_there(one) for one in made) == 4
        serve_another(server)


def test_unix_sockets_have_no_address(stack, tmp_path):
    path = tmp_path / "keys.sock"
    server = stack.key_server(start=False, clients=CLIENTS, limits={"per_address": 1})
    server.config["listen"] = [f"unix:{path}"]
    server.start()
    with contextlib.ExitStack() as opened:
        for _ in range(5):
            opened.enter_context(contextlib.closing(socket.socket(socket.AF_UNIX))).connect(str(path))
        wait_until(lambda: server.metric(OPEN) == 5, "all to be accepted")
        with Peer(path) as peer:
            assert peer.ping().opcode == Op.PONG


@pytest.mark.release
def test_ten_thousand_of_one_address(stack, lean):
    """With the limits as they are by default: nobody else notices, memory and log stay small."""
    with descriptors_for(10000) as count, contextlib.ExitStack() as opened:
        server = stack.key_server(clients=CLIENTS, log={"level": "info"}, limits={"handshake_timeout": "1m"})
        memory, gains, mark = Memory(server), Gains(server), server.mark()
        for _ in range(10):
            silent(server, opened, count // 10)
            serve_another(server)
        refused = count // 10 * 10 - 128
        wait_until(lambda: gains.gained(REFUSED, reason="per_address") == refused, f"{refused} to be refused")
        assert server.metric(OPEN) == 128
        memory.assert_grown_less(16 << 20)
        assert 0 < len(server.find("connection refused", after=mark)) < refused / 4, "lines are limited"
        serve_another(server, 3)


# ---- Nonsense, in and instead of TLS.


def test_records_of_one_octet(stack, lean):
    """The most work for what is sent. All of it is answered, and others come in between."""
    server = stack.key_server(clients=CLIENTS)
    memory, context = Memory(server), channel_context()
    frames = [kssl.message(number, Op.PING, b"x" * 500, pad=False) for number in range(60)]
    with contextlib.ExitStack() as opened:
        peers = [opened.enter_context(Peer(server.port, context=context)) for _ in range(10)]
        for peer in peers:
            for octet in b"".join(frames):
                peer.tls.write(bytes([octet]))
        unsent = peers
        while unsent:
            unsent = [peer for peer in unsent if not peer._write()]
            serve_another(server)
        for peer in peers:
            answers = [peer.receive() for _ in frames]
            assert [(answer.id, answer.opcode) for answer in answers] == [(n, Op.PONG) for n in range(len(frames))]
        memory.assert_grown_less(8 << 20)
    serve_another(server)


def test_random_octets_in_tls(stack, lean):
    """Whatever they happen to say is refused, with an error for each frame that they make, and nothing is lost count of."""
    server = stack.key_server(clients=CLIENTS)
    memory, before = Memory(server), refusals_counted(server.metrics())
    seen = dict.fromkeys(before, 0)
    chance = random.Random(1)
    for _ in range(20):
        with Peer(server.port) as peer:
            # Random lengths cover half a message at a time, so ask for enough; a third of it looks like our version.
            data = b"".join((b"\1" if chance.random() < 0.3 else b"") + chance.randbytes(2000) for _ in range(100))
            peer.send(data)
            serve_another(server)
            messages = until_quiet(peer)
            assert all(message.opcode == Op.ERROR for message in messages)
            for message in messages:
                seen[message.error] += 1
    assert sum(seen.values()) > 50 and seen[Error.VERSION] and seen[Error.FORMAT]
    wait_until(lambda: server.metric(OPEN) == 0, "all to be closed")
    after = refusals_counted(server.metrics())
    assert {error: after[error] - before[error] for error in after} == seen
    memory.assert_grown_less(8 << 20)
    serve_another(server)


def until_quiet(peer):
    """What is answered until the connection is closed, as it is when the server is told that nothing more comes."""
    with contextlib.suppress(Exception):
        peer.tls.unwrap()
    peer._flush()
    return peer.until_closed()[0]


def no_tls(chance):
    return chance.randbytes(3000)


def no_hello(chance):
    """A record as the first one must be, but for what is in it."""
    return b"\x16\3\1\x0b\xb8" + chance.randbytes(3000)


def no_end(chance):
    """A hello that is said to be longer than any."""
    return b"\x16\3\1\x40\0\1\xff\xff\xff" + chance.randbytes(16380)


@pytest.mark.parametrize("make", [no_tls, no_hello, no_end])
def test_random_octets_instead_of_tls(stack, lean, make):
    server = stack.key_server(clients=CLIENTS)
    memory, gains, mark = Memory(server), Gains(server), server.mark()
    chance = random.Random(2)
    for number in (1, 2, 3):
        with contextlib.ExitStack() as opened:
            made = silent(server, opened, 100)
            for one in made:
                one.sendall(make(chance))
            serve_another(server, 3)
            assert all(ended(one) for one in made)
        gains.assert_gained(FAILED, number * len(made), reason="protocol")
    gains.assert_gained(FAILED, 3 * len(made))
    assert server.find("handshake failed", after=mark, reason="TLS error during the TLS handshake")
    wait_until(lambda: server.metric(OPEN) == 0, "all to be closed")
    memory.assert_grown_less(16 << 20)
