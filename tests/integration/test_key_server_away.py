"""The real key server, gone, frozen, restarted, refusing, and behind a line that delays, stalls, cuts, corrupts and
drops: what clients see, what is logged and counted, and that everything is whole again afterwards."""

import concurrent.futures
import contextlib
import signal
import time

import pytest

import clients
import harness
from counters import Gains
from harness import curl, wait_until
from watched import SLACK, TIMEOUT, Watched, at_once, key_channel, refused, request_series, served

LOST = 'keyless_key_channels_lost_total{server="keys-a"}'
CONNECTS_FAILED = 'keyless_key_connects_failed_total{server="keys-a"}'


@contextlib.contextmanager
def frozen(program):
    processes = program.processes()
    for process in processes:
        process.signal(signal.SIGSTOP)
    try:
        yield
    finally:
        for process in processes:
            process.signal(signal.SIGCONT)


@pytest.fixture
def real(stack):
    server = stack.key_server()
    return server, Watched(stack.proxy(server, key_channel=key_channel()))


@pytest.fixture
def relayed(stack):
    server = stack.key_server()
    relay = stack.relay(server)
    return relay, Watched(stack.proxy(relay.port, key_channel=key_channel()))


def test_frozen(real):
    server, watched = real
    with frozen(server):
        took = refused(watched.proxy)
        assert TIMEOUT * 0.9 < took < TIMEOUT + SLACK
        watched.assert_failed("key server timeout")
        watched.assert_counted(request_series("timeout"), 1)
        watched.assert_logged("key server lost", server="keys-a", reason="silent")
        watched.assert_counted(LOST, 1)
    watched.assert_whole()


def test_frozen_for_less_than_the_deadline(stack):
    """A key server that pauses costs time and nothing else."""
    server = stack.key_server()
    watched = Watched(stack.proxy(server, key_channel=key_channel(timeout="10s")))
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        with frozen(server):
            client = pool.submit(served, watched.proxy)
            wait_until(lambda: watched.proxy.metric("keyless_key_requests_pending") == 1, "the request to wait")
        client.result()
    watched.assert_whole()
    watched.assert_counted(request_series("ok"), 2)
    assert watched.gained("keyless_key_channels_lost_total") == 0


def test_gone(real):
    server, watched = real
    assert server.stop() == 0
    watched.assert_logged("key server lost", server="keys-a")
    took = refused(watched.proxy)
    assert TIMEOUT * 0.9 < took < TIMEOUT + SLACK
    watched.assert_failed("no key server")
    watched.assert_counted(request_series("no_server"), 1)
    watched.assert_logged("key server not reached", server="keys-a", reason="refused")
    wait_until(lambda: watched.proxy.metric("keyless_key_channels_up") == 0, "no channel to be up")
    watched.assert_counted(LOST, 1)
    watched.assert_counted(CONNECTS_FAILED)
    # Back after an outage of some length: used within a second.
    mark = watched.proxy.mark()
    server.start()
    began = time.monotonic()
    watched.wait_up()
    assert time.monotonic() - began < 1.0 + SLACK / 2
    watched.proxy.wait_for("key server connected", after=mark)
    assert len(watched.proxy.find("key server connected", after=mark)) == 1
    watched.assert_whole()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGQUIT, signal.SIGKILL])
def test_restart_under_load(stack, number):
    """Nobody's handshake fails for a restart that is shorter than the deadline."""
    server = stack.key_server()
    watched = Watched(stack.proxy(server, key_channel=key_channel(timeout="10s")))
    with clients.Load(watched.proxy.port, threads=3, timeout=20.0) as load:
        load.more(10)
        if number == signal.SIGKILL:
            server.kill_all()
        else:
            assert server.stop(number) == 0
        server.start()
        began = time.monotonic()
        load.more(1)
        assert time.monotonic() - began < 1.0 + SLACK / 2
        load.more(20)
    assert not load.failures, load.failures
    watched.assert_logged("key server lost", server="keys-a")
    watched.assert_counted(LOST, 1)
    watched.assert_counted(request_series("ok"), watched.gained('keyless_handshakes_total{outcome="ok"}'))
    watched.assert_whole()


@pytest.mark.parametrize("edge", ["bad-edge-other-ca", "stranger"])
def test_key_server_that_refuses_us(stack, edge):
    server = stack.key_server()
    proxy = stack.proxy(server, key_channel=key_channel(
        certificate=str(harness.CHANNEL / f"{edge}.pem"), key=str(harness.CHANNEL / f"{edge}-key.pem")))
    (worker,) = proxy.children("worker")
    gains = Gains(proxy)
    assert TIMEOUT * 0.9 < refused(proxy) < TIMEOUT + SLACK
    proxy.wait_for("handshake failed", stage="key", reason="no key server")
    proxy.wait_for("key server not reached", server="keys-a")
    gains.assert_failures(no_key_server=1)
    gains.assert_gained("keyless_key_requests_total", server="none", outcome="no_server")
    counted = {"stranger": ("keyless_keyserver_connections_refused_total", "no_client_entry"),
               "bad-edge-other-ca": ("keyless_keyserver_handshake_failures_total", "certificate_refused")}
    name, reason = counted[edge]
    wait_until(lambda: server.metric(name, reason=reason) > 0, "the key server to count its refusals")
    # Each attempt leaves nothing behind: the one that is under way has one descriptor.
    attempts, descriptors = 4, worker.descriptors()
    wait_until(lambda: gains.gained("keyless_key_connects_failed_total", server="keys-a") > attempts, "more attempts")
    assert worker.descriptors() <= descriptors + 1
    assert proxy.metric("keyless_key_channels_up") == 0
    proxy.config["key_channel"] = key_channel()
    proxy.reload()
    wait_until(lambda: [child.pid for child in proxy.children("worker")] != [worker.pid] and
               len(proxy.children("worker")) == 1, "the new worker to be alone")
    Watched(proxy).assert_whole()


def test_delay_on_the_way(relayed):
    relay, watched = relayed
    relay.command("delay", 40000)
    relay.stats()
    answer = curl("p256.example", watched.proxy.port).json()
    really = relay.stats()
    assert really["delay_mean_us"] >= 40000
    assert answer["key_ms"] >= 80
    relay.command("delay", 0)
    watched.assert_whole()


def test_stall_on_the_way(relayed):
    relay, watched = relayed
    relay.command("stall")
    took = refused(watched.proxy)
    assert TIMEOUT * 0.9 < took < TIMEOUT + SLACK
    watched.assert_failed("key server timeout")
    watched.assert_counted(request_series("timeout"), 1)
    watched.assert_logged("key server lost", server="keys-a", reason="silent")
    watched.assert_counted(LOST, 1)
    relay.command("resume")
    watched.assert_whole()


def test_cut_on_the_way(relayed):
    """Every channel is reset while clients come: they are served, over the next one."""
    relay, watched = relayed
    with clients.Load(watched.proxy.port, threads=2) as load:
        for _ in range(5):
            load.more(4)
            relay.command("cut")
        load.more(4)
    assert not load.failures, load.failures
    watched.assert_counted(LOST, 5)
    watched.assert_whole()


def test_corruption_on_the_way(relayed):
    """TLS sees it: the channel ends, no wrong answer is ever taken for one."""
    relay, watched = relayed
    relay.command("corrupt", 500)
    took = refused(watched.proxy)
    assert took < TIMEOUT + SLACK
    watched.assert_failed(("no key server", "key server timeout"))
    watched.assert_logged("key server lost", server="keys-a")
    watched.assert_counted("keyless_key_channels_lost_total")
    assert watched.gained(request_series("wrong")) == 0
    relay.command("corrupt", 0)
    watched.assert_whole()


def test_reordering_on_the_way(stack):
    """A record before its turn is one that does not decrypt: whoever gets it ends the channel, what was asked over it is
    asked again over the next, and every client is served."""
    relay = stack.relay(stack.key_server())
    watched = Watched(stack.proxy(relay.port, key_channel=key_channel(timeout="9s")))
    tls, came = clients.context(), []
    with concurrent.futures.ThreadPoolExecutor(64) as pool:

        def come():
            """Whoever waits for nobody: if all did, a record that is held back would have none behind it."""
            came.append(pool.submit(served, watched.proxy, tls=tls))
            return watched.gained("keyless_key_channels_lost_total") >= 4

        # Each new channel's handshake is fewer pieces than that, so what is asked again is asked before the next exchange.
        relay.command("reorder", 10)
        wait_until(come, "four channels to be lost")
        relay.command("reorder", 0)
        wait_until(lambda: come() and all(client.done() for client in came[:-8]), "those who wait to be served")
    for client in came:
        client.result()
    watched.assert_logged("key server lost", server="keys-a", reason="bad record mac")
    watched.assert_counted("keyless_key_requests_resent_total")
    watched.wait_quiet()
    assert watched.gained("keyless_key_requests_total") == watched.gained(request_series("ok")) > 0, "no other outcome"
    watched.assert_whole()


def test_connections_that_are_dropped(relayed):
    relay, watched = relayed
    relay.command("drop")
    relay.command("cut")
    took = refused(watched.proxy)
    assert TIMEOUT * 0.9 < took < TIMEOUT + SLACK
    watched.assert_failed("no key server")
    watched.assert_counted(request_series("no_server"), 1)
    watched.assert_counted(LOST, 1)
    watched.assert_counted(CONNECTS_FAILED)
    relay.command("accept")
    watched.assert_whole()


def test_slow_line(relayed):
    """A key server behind a line of 40 kB/s: slow, and every signature comes. What is asked has up to 5 kB: with
    X25519MLKEM768 the handshake's two messages have 2.3 kB more."""
    relay, watched = relayed
    relay.command("rate", 40000)
    at_once(watched.proxy, 6)
    watched.assert_counted(request_series("ok"), 6)
    relay.command("rate", 0)
    watched.assert_whole()
