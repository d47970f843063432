"""limits.handshakes: so many handshakes of a worker wait for their signatures at a time. Further ones wait for their
turn, in the order in which they came; none is lost, and none that needs no signature waits."""

import signal
import time

import pytest

import fake_key_server as fake
import key_server_faults as faults
import tls_client
import tls_wire as wire
from harness import wait_until
from kssl_codec import Tag
from watched import Watched, at_once, key_channel, served

EXHAUSTED = "keyless_fibres_exhausted_total"


class World:
    """A proxy with few fibres, and a key server that answers when it is told to."""

    def __init__(self, stack, handshakes, **changes):
        self.server = stack.fake_key_server()
        limits = {"handshakes": handshakes, **changes.pop("limits", {})}
        self.proxy = stack.proxy(self.server, limits=limits, key_channel=key_channel(timeout="10s"), **changes)
        self.watched = Watched(self.proxy)
        self.asked_before = self.server.signatures_asked()
        self.holds = self.server.behaviour = faults.Holds()

    def client(self, name="p256.example", version="1.3", **settings):
        """Connected, and accepted: it has said nothing yet."""
        accepted = self.proxy.metric("keyless_connections_total")
        made = tls_client.Client(self.proxy.port, tls_client.hello_of(name, version), **settings)
        wait_until(lambda: self.proxy.metric("keyless_connections_total") > accepted, "the client to be accepted")
        return made

    def names_asked(self):
        """The names for which signatures were asked, in order."""
        asked = [request for _, request in list(self.server.requests) if request.get(Tag.SNI)]
        return [request.get(Tag.SNI).decode() for request in asked][self.asked_before:]

    def wait_asked(self, count):
        wait_until(lambda: len(self.names_asked()) == count, f"{count} signatures to be asked for")

    def wait_exhausted(self, count):
        wait_until(lambda: self.watched.gained(EXHAUSTED) == count, f"{count} handshakes to wait for a fibre")

    def release(self, count=1):
        self.holds.release(self.server, count)

    def finish(self):
        self.server.behaviour = fake.Honest()
        self.watched.assert_whole()
        assert not self.server.errors


def test_each_in_its_turn(stack):
    """Six clients and two fibres: signatures are asked for in the order in which the clients came."""
    world = World(stack, handshakes=2)
    names = [f"client{i}.wild.example" for i in range(6)]
    waiting = []
    for i, name in enumerate(names):
        waiting.append(world.client(name))
        waiting[-1].send_hello()
        if i < 2:
            world.wait_asked(i + 1)
        else:
            world.wait_exhausted(i - 1)
    assert world.names_asked() == names[:2]
    assert world.proxy.metric("keyless_key_requests_pending") == 2
    for i, client in enumerate(waiting):
        world.release()
        client.answer_server_hello()
        client.finish()
        assert client.ask()["sni"] == names[i]
        world.wait_asked(min(i + 3, 6))
        client.close()
    assert world.names_asked() == names
    world.watched.assert_counted(EXHAUSTED, 4)
    lines = world.proxy.find("handshake has to wait", after=world.watched.mark)
    assert len(lines) == 4 and all(line["limit"] == "2" for line in lines), lines
    assert world.watched.gained('keyless_handshakes_total{outcome="ok"}') == 6
    assert not world.proxy.find("handshake failed", after=world.watched.mark)
    world.finish()


def test_newcomer_does_not_overtake(stack):
    """A ClientHello that comes in the same turn of the loop as the answer that frees the only fibre."""
    world = World(stack, handshakes=1)
    names = ["first.wild.example", "second.wild.example", "new.wild.example"]
    first, second, newcomer = map(world.client, names)
    first.send_hello()
    world.wait_asked(1)
    second.send_hello()
    world.wait_exhausted(1)
    world.watched.worker.signal(signal.SIGSTOP)
    wait_until(lambda: world.watched.worker.state() == "T", "the worker to stop")
    world.release()
    newcomer.send_hello()
    world.watched.worker.signal(signal.SIGCONT)
    world.wait_asked(2)
    world.wait_exhausted(2)
    for client in (first, second, newcomer):
        client.answer_server_hello()
        client.finish()
        client.ask()
        client.close()
        if client is not newcomer:
            world.release()
    assert world.names_asked() == names
    world.finish()


@pytest.mark.parametrize("version", ["1.3", "1.2"])
def test_finished_needs_no_fibre(stack, version):
    """Who has the signature is served while the house is full."""
    world = World(stack, handshakes=1)
    first, second = world.client(version=version), world.client(version=version)
    first.send_hello()
    world.wait_asked(1)
    world.release()
    first.answer_server_hello()
    second.send_hello()
    world.wait_asked(2)
    first.finish()
    assert first.ask()["key_server"] == "keys-a"
    assert world.proxy.metric("keyless_key_requests_pending") == 1
    assert world.watched.gained(EXHAUSTED) == 0
    world.release()
    second.answer_server_hello()
    second.finish()
    second.ask()
    for client in (first, second):
        client.close()
    world.finish()


def test_counted_once(stack):
    """A client that is sent a HelloRetryRequest needs a fibre twice, and may wait twice: it is one handshake."""
    world = World(stack, handshakes=1, tls={"default": "localhost", "groups": "X25519:P-256"})
    first, third = world.client("first.wild.example"), world.client("third.wild.example")
    retried = world.client("retried.wild.example", groups=())
    first.send_hello()
    world.wait_asked(1)
    retried.send_hello()
    world.wait_exhausted(1)
    third.send_hello()
    world.wait_exhausted(2)
    world.release()
    assert retried.read_server_hello().retry
    world.wait_asked(2)  # third's: the other's first turn was for the HelloRetryRequest alone
    retried.hello = retried.second_hello()
    retried.send_hello()
    served_before = world.watched.gained('keyless_handshakes_total{outcome="ok"}')
    world.release()
    world.wait_asked(3)
    world.release()
    for client in (first, third):
        client.answer_server_hello()
    retried.read_server_hello()
    retried.read_flight()
    for client in (first, retried, third):
        client.finish()
        client.ask()
        client.close()
    assert world.names_asked() == ["first.wild.example", "third.wild.example", "retried.wild.example"]
    assert served_before == 0
    world.watched.assert_counted(EXHAUSTED, 2)
    assert len(world.proxy.find("handshake has to wait", after=world.watched.mark)) == 2
    world.finish()


def test_one_that_waits_runs_out_of_time(stack):
    """limits.handshake_timeout holds for those that wait for a fibre; they leave the queue."""
    server = stack.fake_key_server()
    proxy = stack.proxy(server, limits={"handshakes": 1, "handshake_timeout": "4s"}, key_channel=key_channel(timeout="4s"))
    watched = Watched(proxy)
    late = tls_client.Client(proxy.port)  # its time runs from here
    began = time.monotonic()
    wait_until(lambda: proxy.metric("keyless_connections_open") == 1, "the client to be accepted")
    while time.monotonic() - began < 2:
        served(proxy)  # meanwhile: by so much it is the first whose time is up
    holds = server.behaviour = faults.Holds()
    with tls_client.Client(proxy.port) as first:
        first.send_hello()
        wait_until(lambda: holds.kept, "the first one's signature to be asked for")
        late.send_hello()
        wait_until(lambda: watched.gained(EXHAUSTED) == 1, "the other to wait")
        assert late.outcome() in (wire.INTERNAL_ERROR, "end")
        line = proxy.wait_for("handshake failed", after=watched.mark, reason="timeout")
        assert line["stage"] == "client hello"
        assert proxy.metric("keyless_key_requests_pending") == 1
        watched.assert_counted('keyless_handshake_failures_total{reason="timeout"}', 1)
        holds.release(server)
        first.answer_server_hello()
        first.finish()
        first.ask()
    server.behaviour = fake.Honest()
    watched.assert_whole()


def test_a_house_that_stays_full(stack):
    """Many more clients than fibres, all at once: each is served."""
    server, proxy = stack.pair(limits={"handshakes": 2})
    watched = Watched(proxy)
    for _ in range(4):
        at_once(proxy, 24)
    watched.assert_counted('keyless_handshakes_total{outcome="ok"}', 96)
    assert not proxy.find("handshake failed", after=watched.mark)
    watched.assert_whole()
    assert not server.find("request refused")
