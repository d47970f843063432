"""Clients that leave, or fall silent, at each point of the handshake: by FIN, by RST, by an alert, by saying nothing.
One line that names stage and reason, one count, nothing left open, and the next client is served."""

import contextlib
import ctypes
import errno
import os
import socket
import stat
import subprocess
import threading
import time

import pytest

import harness
import tls_wire as wire
from harness import wait_until
from observed import Observed
from tls_client import Client, End, leave, walk_to

def hello_to_retry(key_shares):
    return wire.tls13_hello(groups=(wire.P384, wire.X25519), key_shares=key_shares)


# How each walk begins: the ClientHello and the groups of which it holds shares.
WALKS = {
    "1.3": (None, (wire.X25519,)),
    "1.3 with a retry": (hello_to_retry, (wire.P384,)),
    "1.2": (wire.tls12_hello(), (wire.X25519,)),
}
# The stage that the proxy is at, by the point that the client has come to.
STAGES = {
    "1.3": {"connected": "client hello", "half a ClientHello": "client hello", "server's flight": "finished",
            "ChangeCipherSpec": "finished", "half a Finished": "finished"},
    "1.3 with a retry": {"HelloRetryRequest": "certificate"},
    "1.2": {"connected": "client hello", "half a ClientHello": "client hello", "server's flight": "finished",
            "ClientKeyExchange": "finished", "ChangeCipherSpec": "finished", "half a Finished": "finished"},
}
POINTS = [(version, point) for version, stages in STAGES.items() for point in stages]
NO_NAME_YET = ("connected", "half a ClientHello")


@pytest.fixture(scope="module")
def proxy(module_stack):
    return module_stack.pair(tls={"default": "localhost"})[1]


def client_at(proxy, version, point):
    hello, groups = WALKS[version]
    client = Client(proxy.port, hello, groups)
    try:
        walk_to(client, point)
    except BaseException:
        client.socket.close()
        raise
    return client


def name_at(point):
    return "" if point in NO_NAME_YET else "p256.example"


def point_id(value):
    return value.replace(" ", "-")


@pytest.mark.parametrize("manner, reason", [("FIN", "client closed"), ("RST", "connection reset by client")])
@pytest.mark.parametrize("version, point", POINTS, ids=point_id)
def test_leaves(proxy, version, point, manner, reason):
    observed = Observed(proxy)
    leave(client_at(proxy, version, point), manner)
    observed.assert_failed(reason, STAGES[version][point], name_at(point), "client_gone")
    observed.assert_whole()


@pytest.mark.parametrize("version, point", [(version, point) for version, point in POINTS if "half" not in point],
                         ids=point_id)
def test_leaves_with_an_alert(proxy, version, point):
    observed = Observed(proxy)
    with client_at(proxy, version, point) as client:
        client.send_record(wire.ALERT, wire.alert(wire.INTERNAL_ERROR))
        seen = client.outcome()
    # Nothing but a ClientHello may come first; and between ChangeCipherSpec and Finished nothing at all in TLS 1.2.
    expected = {("1.3", "connected"): "unexpected message", ("1.2", "connected"): "unexpected message",
                ("1.2", "ChangeCipherSpec"): "data between ccs and finished"}.get((version, point))
    assert seen == (wire.UNEXPECTED_MESSAGE if expected else "end")
    observed.assert_failed(expected or "client sent alert: internal error", STAGES[version][point], name_at(point))
    observed.assert_whole()


@pytest.mark.parametrize("version", ["1.3", "1.2"])
@pytest.mark.parametrize("manner", ["FIN", "RST", "alert"])
def test_leaves_while_the_signature_is_pending(stack, version, manner):
    server = stack.key_server()
    relay = stack.relay(server)
    proxy = stack.proxy(relay.port)
    Observed(proxy).assert_whole()
    observed = Observed(proxy)
    relay.command("stall")
    client = client_at(proxy, version, "ClientHello")
    wait_until(lambda: proxy.metric("keyless_key_requests_pending") == 1, "the request for a signature")
    if manner == "alert":
        client.send_record(wire.ALERT, wire.alert(wire.INTERNAL_ERROR))
    leave(client, "RST" if manner == "RST" else "FIN")
    observed.assert_failed("client closed", "key", outcome="client_gone")
    observed.gains.assert_gained("keyless_key_requests_total", server="keys-a", outcome="cancelled")
    wait_until(lambda: proxy.metric("keyless_key_requests_pending") == 0, "the request to be given up")
    relay.command("resume")
    observed.assert_whole()


@pytest.mark.parametrize("point", ["Finished", "done"])
@pytest.mark.parametrize("version", ["1.3", "1.2"])
def test_leaves_when_it_has_finished(proxy, version, point):
    """The handshake is done, and counts as that."""
    observed = Observed(proxy)
    leave(client_at(proxy, version, point), "FIN")
    observed.assert_served()
    observed.assert_whole()


@pytest.mark.parametrize("version", ["1.3", "1.2"])
def test_resets_when_it_has_finished(proxy, version):
    """Whether the proxy has seen the Finished before the reset is chance; either way it is counted once."""
    observed = Observed(proxy)
    leave(client_at(proxy, version, "Finished"), "RST")
    wait_until(observed.gained, "the handshake to end")
    gained = observed.gained()
    assert gained in ({"ok": 1}, {"client_gone": 1})
    observed.assert_whole()  # by then it has its line, too
    assert len(observed.failures()) == gained.get("client_gone", 0)


# ---- Silence.

@pytest.fixture(scope="module")
def impatient(module_stack):
    return module_stack.pair(tls={"default": "localhost"}, limits={"handshake_timeout": "2s"})[1]


def test_falls_silent(impatient):
    """At every point at once: all end at the deadline, none before."""
    observed = Observed(impatient)
    with contextlib.ExitStack() as all_of_them:
        began = time.monotonic()
        silent = {point: all_of_them.enter_context(client_at(impatient, *point)) for point in POINTS}
        ports = {client.socket.getsockname()[1]: point for point, client in silent.items()}
        for client in silent.values():
            assert client.outcome() == "end"
        assert 1.9 < time.monotonic() - began < 2 + harness.PATIENCE / 2
    observed.assert_counted(aborted=len(POINTS))
    observed.gains.assert_failures(timeout=len(POINTS))
    lines = {int(line["client"].rpartition(":")[2]): line for line in observed.failures()}
    for port, (version, point) in ports.items():
        line = lines[port]
        assert (line["stage"], line["reason"]) == (STAGES[version][point], "timeout"), (version, point)
        assert line.get("sni", "") == name_at(point)
    assert len(observed.failures()) == len(POINTS)
    observed.assert_whole()


def test_octets_that_drip(impatient):
    """A client that is never silent for long has no more time than others."""
    observed = Observed(impatient)
    ended = threading.Event()
    with Client(impatient.port) as client:
        hello = client.hello.padded(4000).record()

        def drip():
            with contextlib.suppress(OSError):
                for octet in hello:
                    client.send(bytes([octet]))
                    if ended.wait(0.02):
                        return

        dripping = threading.Thread(target=drip)
        dripping.start()
        assert client.outcome() == "end"
        ended.set()
        dripping.join()
    observed.assert_failed("timeout", sni="", outcome="aborted")
    observed.assert_whole()


# ---- A client that reads nothing.

BIG = f"0042.{'x' * 50}.example"


def big_chain(directory):
    """A chain with a Certificate message of some 20 kB, for a key that the key server has."""
    sites, request, made = harness.SITES, directory / "csr", directory / "chains"
    (directory / "ext").write_text("subjectAltName = " + ",".join(f"DNS:{i:04}.{'x' * 50}.example" for i in range(300)))
    made.mkdir()
    for command in (
        ["req", "-new", "-key", sites / "keys" / "p256.key", "-subj", "/CN=big", "-out", request],
        ["x509", "-req", "-in", request, "-CA", sites / "private" / "issuer.pem", "-CAkey",
         sites / "private" / "issuer-key.pem", "-days", "30", "-extfile", directory / "ext", "-out", made / "big.pem"],
    ):
        subprocess.run(["openssl", *command], check=True, capture_output=True)
    return made


def hello_of_big(key_shares):
    return wire.tls13_hello(name=BIG.encode(), key_shares=key_shares)


PIDFD_GETFD = 438  # of all architectures; the C library of Debian 12 has no function for it


def shrink_send_buffers(proxy):
    """Makes the buffers of the connections that the proxy accepts as small as can be: they have them from the listening
    sockets, of which a copy is taken out of the worker."""
    (worker,) = proxy.children("worker")
    call = ctypes.CDLL(None, use_errno=True).syscall
    shrunk = 0
    with os.fdopen(os.pidfd_open(worker.pid)) as handle:
        for number in os.listdir(f"/proc/{worker.pid}/fd"):
            copy = call(PIDFD_GETFD, handle.fileno(), int(number), 0)
            if copy < 0 and ctypes.get_errno() in (errno.EPERM, errno.ENOSYS):
                pytest.skip("no descriptor can be had from another process here")
            if copy >= 0 and stat.S_ISSOCK(os.fstat(copy).st_mode):
                with socket.socket(fileno=copy) as listening:
                    if listening.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                        listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
                        shrunk += 1
            elif copy >= 0:
                os.close(copy)
    assert shrunk > 0


def deaf(connection):
    """A window of about 1 kB."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 200)


@pytest.mark.parametrize("version", ["1.3", "1.2"])
def test_reads_nothing(stack, tmp_path, version):
    chains = [{"dir": str(harness.SITES / "chains")}, {"dir": str(big_chain(tmp_path))}]
    _, proxy = stack.pair({"certificates": chains}, certificates=chains, limits={"handshake_timeout": "2s"})
    hello = {"1.3": hello_of_big, "1.2": wire.tls12_hello(name=BIG.encode())}[version]
    with Client(proxy.port, hello) as client:  # it can be done
        client.handshake().ask()
        client.close()
    shrink_send_buffers(proxy)
    observed = Observed(proxy)
    with Client(proxy.port, hello, prepare=deaf) as client:
        client.send_hello()
        observed.assert_failed("timeout", "certificate", BIG, "aborted")
        # What comes after all is the part of the flight that the kernels had.
        with pytest.raises(End):
            client.answer_server_hello()
    observed.assert_whole()


@pytest.mark.parametrize("manner", ["FIN", "RST"])
def test_leaves_with_the_flight_unread(stack, tmp_path, manner):
    """Closing with octets unread is a reset either way."""
    chains = [{"dir": str(harness.SITES / "chains")}, {"dir": str(big_chain(tmp_path))}]
    _, proxy = stack.pair({"certificates": chains}, certificates=chains)
    shrink_send_buffers(proxy)
    observed = Observed(proxy)
    with Client(proxy.port, hello_of_big, prepare=deaf) as client:
        client.send_hello()
        client.read_server_hello()  # the rest is on its way, and has no room
        leave(client, manner)
    observed.assert_failed("connection reset by client", "certificate", BIG, "client_gone")
    observed.assert_whole()


def test_reads_slowly(stack, tmp_path):
    """The same flight, in a trickle."""
    chains = [{"dir": str(harness.SITES / "chains")}, {"dir": str(big_chain(tmp_path))}]
    _, proxy = stack.pair({"certificates": chains}, certificates=chains)
    shrink_send_buffers(proxy)
    observed = Observed(proxy)
    with Client(proxy.port, hello_of_big, prepare=deaf) as client:
        client.send_hello()
        assert client.answer_server_hello().finish().ask()["version"] == "TLSv1.3"
        client.close()
    observed.assert_served()
    observed.assert_whole()


# ---- Many at once.

def test_all_at_once(proxy):
    """Every way of leaving, interleaved: as many lines, as many counts."""
    Observed(proxy).assert_whole()
    observed = Observed(proxy)
    failing = [(version, point, manner) for version, point in POINTS for manner in ("FIN", "RST")]
    leaving = [(client_at(proxy, version, point), manner) for version, point, manner in failing]
    for client, manner in leaving:
        leave(client, manner)
    observed.assert_counted(client_gone=len(failing))
    observed.gains.assert_failures(client_closed=len(POINTS), client_reset=len(POINTS))
    observed.assert_whole()  # by then each has its line
    assert len(observed.failures()) == len(failing)

