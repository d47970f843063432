"""limits.handshakes: so many handshakes of a worker wait for their signatures at a time. A further one is refused at once,
before the key exchange; a session is resumed, and who has the signature is served, however full the house is."""

import collections
import concurrent.futures
import ssl
import time

import pytest

import clients
import fake_key_server as fake
import key_server_faults as faults
import tls_client
import tls_wire as wire
from harness import wait_until
from kssl_codec import Tag
from test_odd_hellos import MODES, PSK
from test_tickets import BOTH, Client
from watched import LONG, Watched, at_once, key_channel, refused, request_series, served

FULL = "limits.handshakes wait for a signature"


class World:
    """A proxy for few handshakes, and a key server that answers when it is told to."""

    def __init__(self, stack, handshakes, **changes):
        self.server = stack.fake_key_server()
        self.proxy = stack.proxy(self.server, limits={"handshakes": handshakes, "handshake_timeout": "60s"},
                                 key_channel=key_channel(timeout="60s"), **changes)
        self.watched = Watched(self.proxy)
        self.asked_before = self.server.signatures_asked()
        self.holds = faults.Holds()

    def hold(self):
        self.server.behaviour = self.holds

    def client(self, name="p256.example", version="1.3", **settings):
        return tls_client.Client(self.proxy.port, tls_client.hello_of(name, version), **settings)

    def fill(self, count):
        """So many clients, each of whom waits for its signature."""
        self.hold()
        found = []
        while len(found) < count:
            found.append(self.client(f"client{len(found)}.wild.example"))
            found[-1].send_hello()
            self.wait_pending(len(found))
        return found

    def wait_pending(self, count):
        wait_until(lambda: self.proxy.metric("keyless_key_requests_pending") == count, f"{count} signatures to be pending")

    def release(self):
        """The key server answers the oldest of those whom it has."""
        wait_until(lambda: self.holds.kept, "a signature to be asked for")
        self.holds.release(self.server)

    def names_asked(self):
        """The names for which signatures were asked, in order."""
        asked = [request for _, request in list(self.server.requests) if request.get(Tag.SNI)]
        return [request.get(Tag.SNI).decode() for request in asked][self.asked_before:]

    def serve(self, waiting):
        """Lets the key server answer each of them, who then asks for a page."""
        for client in waiting:
            self.release()
            client.answer_server_hello()
            client.finish()
            assert client.ask()["key_server"] == "keys-a"
            client.close()

    def finish(self):
        self.server.behaviour = fake.Honest()
        self.watched.assert_whole()
        assert not self.server.errors


def test_newcomers_are_refused(stack):
    """With an alert, a line and a count each; whoever comes when one has been served takes its place."""
    world = World(stack, handshakes=2)
    waiting = world.fill(2)
    for _ in range(3):
        assert refused(world.proxy) < LONG
    world.watched.assert_failed(FULL, 3, stage="certificate")
    assert world.watched.gained("keyless_key_requests_total") == 0, "the two that wait have no outcome yet"
    world.serve(waiting[:1])
    next_one = world.client("next.wild.example")
    next_one.send_hello()
    world.wait_pending(2)
    world.serve([waiting[1], next_one])
    assert world.names_asked() == ["client0.wild.example", "client1.wild.example", "next.wild.example"]
    assert not world.proxy.find("worker ended", after=world.watched.mark)
    world.finish()


def test_the_place_of_one_that_leaves(stack):
    world = World(stack, handshakes=1)
    (waiting,) = world.fill(1)
    refused(world.proxy)
    waiting.close()
    world.wait_pending(0)
    other = world.client("other.wild.example")
    other.send_hello()
    world.wait_pending(1)
    world.release()  # the answer to the one that left is late
    world.serve([other])
    world.watched.assert_failed(FULL, stage="certificate")
    world.finish()


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_3, ssl.TLSVersion.TLSv1_2])
def test_sessions_are_resumed(stack, version):
    """However full the house is, and as often as they come."""
    world = World(stack, handshakes=1, tickets=BOTH)
    known = Client(world.proxy.port, version=version)
    assert not known.resumes()
    waiting = world.fill(1)
    for _ in range(3):
        assert known.resumes()
        refused(world.proxy)
    assert world.proxy.metric("keyless_key_requests_pending") == 1
    world.serve(waiting)
    world.watched.assert_failed(FULL, 3, stage="certificate")
    world.finish()


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_3, ssl.TLSVersion.TLSv1_2])
def test_a_session_that_is_no_good(stack, version):
    """It is refused as one without."""
    world = World(stack, handshakes=1, tickets=BOTH)
    known = Client(world.proxy.port, version=version)
    known.visit()
    world.proxy.restart()  # the key of its ticket is gone
    world.watched = Watched(world.proxy)
    waiting = world.fill(1)
    with pytest.raises(ssl.SSLError) as caught:
        known.visit()
    assert "ALERT_INTERNAL_ERROR" in str(caught.value)
    world.watched.assert_failed(FULL, stage="certificate")
    assert world.watched.gained("keyless_key_requests_total") == 0
    world.serve(waiting)
    world.finish()
    assert not known.resumes()
    assert known.resumes()


CLAIMS = {
    "nothing": ("1.3", lambda hello: hello),
    "a session, TLS 1.3": ("1.3", lambda hello: hello.adding(MODES, PSK)),
    "a ticket of one octet, TLS 1.3": ("1.3", lambda hello: hello.adding((wire.SESSION_TICKET, b"x"))),
    "a ticket, TLS 1.2": ("1.2", lambda hello: hello.adding((wire.SESSION_TICKET, bytes(192)))),
}


@pytest.mark.parametrize("tickets", ["local", "off"])
@pytest.mark.parametrize("claim", CLAIMS)
def test_the_alert_is_all_there_is(stack, claim, tickets):
    """Whatever a client claims to bring: no ServerHello is made for it."""
    version, change = CLAIMS[claim]
    world = World(stack, handshakes=1, tickets={"source": tickets, **({"tls12": True} if tickets == "local" else {})})
    waiting = world.fill(1)
    with world.client(version=version) as client:
        client.hello = change(client.hello)
        client.send_hello()
        with pytest.raises(tls_client.Alert) as seen:
            client.read_record()
        assert seen.value.number == wire.INTERNAL_ERROR
        assert client.outcome() == "end"
    world.watched.assert_failed(FULL, stage="certificate")
    world.serve(waiting)
    world.finish()


def test_told_once_a_second(stack):
    """At a level that operators see; the lines of the clients are for those who look closer."""
    world = World(stack, handshakes=1, log={"level": "info"})
    (waiting,) = world.fill(1)
    count, began = 0, time.monotonic()
    while time.monotonic() - began < 2:
        refused(world.proxy)
        count += 1
    took = time.monotonic() - began
    world.watched.assert_counted('keyless_handshake_failures_total{reason="too_many_pending"}', count)
    lines = world.proxy.find("handshakes refused", after=world.watched.mark)
    assert 1 <= len(lines) <= took + 1
    assert count / 4 <= sum(int(line["refused"]) for line in lines) <= count
    assert {(line["level"], line["limit"], line["reason"]) for line in lines} == {("warn", "1", FULL)}
    assert not world.proxy.find("handshake failed", after=world.watched.mark)
    world.serve([waiting])


@pytest.mark.parametrize("version", ["1.3", "1.2"])
def test_who_has_its_signature_is_served(stack, version):
    world = World(stack, handshakes=1)
    world.hold()
    first, second = world.client(version=version), world.client(version=version)
    first.send_hello()
    world.wait_pending(1)
    world.release()
    first.answer_server_hello()
    second.send_hello()
    world.wait_pending(1)
    first.finish()
    assert first.ask()["key_server"] == "keys-a"
    first.close()
    world.serve([second])
    world.finish()


def test_the_second_hello_is_refused(stack):
    """A client that was sent a HelloRetryRequest while there was room has no place kept for it."""
    world = World(stack, handshakes=1, tls={"default": "localhost", "groups": "X25519:P-256"})
    retried = world.client(groups=())
    retried.send_hello()
    assert retried.read_server_hello().retry
    waiting = world.fill(1)
    retried.hello = retried.second_hello()
    retried.send_hello()
    assert retried.outcome() == wire.INTERNAL_ERROR
    retried.close()
    world.watched.assert_failed(FULL, stage="certificate")
    world.serve(waiting)
    world.finish()


def test_a_crowd(stack):
    """Many more clients at once than places: each is served or refused, and none is lost."""
    world = World(stack, handshakes=2)
    world.server.behaviour = faults.Slow(0.02)
    tls = clients.context()

    def visit(_):
        try:
            return clients.get(world.proxy.port, tls=tls)[9:12]
        except ssl.SSLError as error:
            assert "ALERT_INTERNAL_ERROR" in str(error)
            return b"refused"

    with concurrent.futures.ThreadPoolExecutor(64) as pool:
        outcomes = collections.Counter(pool.map(visit, range(64)))
    assert set(outcomes) == {b"200", b"refused"}, outcomes
    world.watched.assert_failed(FULL, outcomes[b"refused"], stage="certificate")
    world.watched.assert_counted('keyless_handshakes_total{outcome="ok"}', outcomes[b"200"])
    world.finish()


def test_nobody_is_refused_while_there_is_room(stack):
    """Clients that come one after another, as many at a time as there is room for."""
    server, proxy = stack.pair(limits={"handshakes": 24})
    watched = Watched(proxy)
    for _ in range(4):
        at_once(proxy, 24)
    watched.assert_counted('keyless_handshakes_total{outcome="ok"}', 96)
    assert not proxy.find("handshake failed", after=watched.mark)
    watched.assert_whole()
    assert not server.find("request refused")


def test_one_that_waits_runs_out_of_time(stack):
    """limits.handshake_timeout holds for those that wait for a signature, and their place is free again."""
    server = stack.fake_key_server()
    proxy = stack.proxy(server, limits={"handshakes": 1, "handshake_timeout": "4s"}, key_channel=key_channel(timeout="4s"))
    watched = Watched(proxy)
    late = tls_client.Client(proxy.port)  # its time runs from here
    began = time.monotonic()
    wait_until(lambda: proxy.metric("keyless_connections_open") == 1, "the client to be accepted")
    while time.monotonic() - began < 2:
        served(proxy)  # meanwhile: by so much its own time is up before the key server's
    server.behaviour = faults.Holds()
    late.send_hello()
    assert late.outcome() in (wire.INTERNAL_ERROR, "end")
    line = proxy.wait_for("handshake failed", after=watched.mark, reason="timeout")
    assert line["stage"] == "key"
    watched.assert_counted('keyless_handshake_failures_total{reason="timeout"}', 1)
    watched.assert_counted(request_series("cancelled"), 1)
    assert proxy.metric("keyless_key_requests_pending") == 0
    server.behaviour = fake.Honest()
    late.close()
    watched.assert_whole()
