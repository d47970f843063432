"""Workers come and go under load: no connection waits over a second for a live one, and the dead are replaced."""

import signal
import time

import pytest

import harness
from clients import Load
from harness import curl, wait_until

# The worst that a client may see while a process is replaced; shared cores and sanitizers get slack.
LIMIT = 1.0 if harness.STRICT else 4.0 if harness.SANITIZED else 1.5


def test_scaling_by_reload(stack):
    _, proxy = stack.pair(workers=4)
    assert len(proxy.children("worker")) == 4
    with Load(proxy.port) as load:
        load.more(20)
        for workers in (1, 3):
            proxy.config["workers"] = workers
            proxy.reload()
            load.more(20)
            wait_until(lambda: len(proxy.children("worker")) == workers, f"{workers} workers to be left")
            load.more(20)
    assert not load.failures, load.failures
    assert load.slowest() < LIMIT


def test_key_server_scaling_by_reload(stack):
    server, proxy = stack.pair(key_server={"workers": 4})
    with Load(proxy.port) as load:
        load.more(20)
        for workers in (1, 3):
            server.config["workers"] = workers
            server.reload()
            load.more(20)
            wait_until(lambda: len(server.children("frontend")) == workers, f"{workers} front ends to be left")
            load.more(20)
    assert not load.failures, load.failures
    assert load.slowest() < LIMIT


def assert_replaced(program, kind, victim, count):
    def replaced():
        live = program.children(kind)
        return len(live) == count and victim.pid not in [child.pid for child in live]

    wait_until(replaced, f"{kind} {victim.pid} to be replaced")


def test_kill_a_worker(stack):
    """What the dead worker held is lost; whoever connects meanwhile is served at once by the others."""
    _, proxy = stack.pair(workers=3)
    with Load(proxy.port, threads=3) as load:
        load.more(20)
        for victim in proxy.children("worker"):
            victim.signal(signal.SIGKILL)
            assert_replaced(proxy, "worker", victim, 3)
            load.more(30)
    # At most the connections that a dead worker had: one for each thread and kill.
    assert len(load.failures) <= 9, load.failures
    assert all(took < LIMIT for _, took, _ in load.failures), load.failures
    assert load.slowest() < LIMIT
    assert proxy.metric("keyless_children_restarted_total") == 3


def test_kill_the_only_worker(stack):
    """One worker: those who wait in the queue of its sockets are served by its successor."""
    _, proxy = stack.pair(workers=1)
    (victim,) = proxy.children("worker")
    victim.signal(signal.SIGKILL)
    began = time.monotonic()
    assert curl("p256.example", proxy.port).status == 0
    assert time.monotonic() - began < LIMIT
    assert_replaced(proxy, "worker", victim, 1)


def test_stalled_worker(stack):
    """A worker that stands still loses its sockets to the others, and gets them back when it goes on."""
    _, proxy = stack.pair(workers=2)
    victim = proxy.children("worker")[0]
    with Load(proxy.port, threads=1) as load:
        load.more(10)
        victim.signal(signal.SIGSTOP)
        wait_until(lambda: proxy.find("child stalls", child_pid=victim.pid), "the stall to be noticed")
        failed = len(load.failures)
        load.more(30)
        victim.signal(signal.SIGCONT)
        load.more(30)
    # The connection that the stalled worker was serving may fail; nobody after it.
    assert len(load.failures) - failed <= 1 and len(load.failures) <= 1, load.failures
    assert victim.alive()
    assert proxy.metric("keyless_children_stalled_total") >= 1


@pytest.mark.parametrize("kind", ["frontend", "signer"])
def test_kill_a_key_server_process(stack, kind):
    """Requests in flight are sent again: no client of the proxy notices."""
    server, proxy = stack.pair(key_server={"workers": 2})
    with Load(proxy.port) as load:
        load.more(20)
        for victim in server.children(kind):
            count = len(server.children(kind))
            victim.signal(signal.SIGKILL)
            assert_replaced(server, kind, victim, count)
            load.more(20)
    assert not load.failures, load.failures
    assert load.slowest() < LIMIT


def test_kill_the_helpers(stack):
    """The processes that serve /metrics are replaced too; no client notices, and no counter has fallen."""
    server, proxy = stack.pair()
    with Load(proxy.port) as load:
        load.more(20)
        before = proxy.metric("keyless_handshakes_total", outcome="ok")
        for program in (server, proxy):
            (victim,) = program.children("helper")
            victim.signal(signal.SIGKILL)
            assert_replaced(program, "helper", victim, 1)
            load.more(20)
    assert not load.failures, load.failures
    assert load.slowest() < LIMIT
    wait_until(lambda: _answers(proxy), "the new helper to answer")
    assert proxy.metric("keyless_handshakes_total", outcome="ok") >= before + 40


def _answers(program):
    try:
        return program.metrics()
    except OSError:
        return None


@pytest.mark.parametrize("which", ["key server", "proxy"])
def test_children_end_with_their_master(stack, which):
    """kill -9 of a master: its children drain and end by themselves."""
    server, proxy = stack.pair()
    program = server if which == "key server" else proxy
    children = program.children()
    assert children
    program.master().signal(signal.SIGKILL)
    program.popen.wait()
    program.popen = None
    wait_until(lambda: not any(child.alive() for child in children), "the orphans to end")
