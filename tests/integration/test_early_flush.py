"""tls.early_flush: ServerHello to Certificate go out while the signature is made, where the key server's answers take
long enough."""

import pytest

import fake_key_server as fake
import key_server_faults as faults
import tls_client
import tls_wire as wire
from counters import Gains
from harness import SITES, curl, wait_until
from watched import Watched, key_channel, served

FLUSHED = "keyless_handshakes_flushed_early_total"
VERSIONS = ["1.3", "1.2"]


def start(stack, early_flush, behaviour=None, **changes):
    server = stack.fake_key_server(behaviour)
    proxy = stack.proxy(server, tls={"early_flush": early_flush}, key_channel=key_channel(timeout="10s"), **changes)
    wait_until(lambda: proxy.metric("keyless_key_channels_up") == 1, "the channel to be up")
    proxy.wait_tried()
    return server, proxy


def client_of(proxy, version="1.3", name="p256.example", **settings):
    return tls_client.Client(proxy.port, tls_client.hello_of(name, version), **settings)


def park(server, client):
    """Sends the ClientHello; returns when its signature is asked for and kept."""
    holds = server.behaviour = faults.Holds()
    client.send_hello()
    wait_until(lambda: holds.kept, "the signature to be asked for")
    return holds


def pass_worker(proxy):
    """What the worker did in the turn before is done once it has answered somebody else."""
    with tls_client.Client(proxy.port) as other:
        other.send(b"nonsense" * 8)
        other.outcome()


def finish(server, client, holds):
    holds.release(server)
    client.read_signed()
    client.finish()
    assert client.ask()["key_server"] == "keys-a"
    client.close()


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", ["p256.example", "rsa2048.example"])
def test_on(stack, version, name):
    """The client has the whole chain before the key server has answered."""
    server, proxy = start(stack, "on")
    client = client_of(proxy, version, name)
    holds = park(server, client)
    client.read_server_hello()
    client.read_unsigned()
    assert client.leaf
    assert len(holds.kept) == 1, "the signature was there already"
    wait_until(lambda: proxy.metric(FLUSHED) == 1, "it to be counted")
    finish(server, client, holds)
    assert proxy.metric(FLUSHED) == 1


@pytest.mark.parametrize("version", VERSIONS)
def test_off(stack, version):
    """Everything goes out at once, when the signature is there."""
    server, proxy = start(stack, "off", faults.SlowHello(0.05))
    client = client_of(proxy, version)
    holds = park(server, client)
    pass_worker(proxy)
    client.socket.setblocking(False)
    with pytest.raises(BlockingIOError):
        client.socket.recv(1)
    client.socket.settimeout(20)
    holds.release(server)
    client.answer_server_hello()
    client.finish()
    client.ask()
    client.close()
    assert proxy.metric(FLUSHED) == 0


def test_after_a_hello_retry(stack):
    server, proxy = start(stack, "on")
    client = client_of(proxy, groups=())
    holds = server.behaviour = faults.Holds()
    client.send_hello()
    assert client.read_server_hello().retry
    client.hello = client.second_hello()
    client.send_hello()
    client.read_server_hello()
    client.read_unsigned()
    wait_until(lambda: holds.kept, "the signature to be asked for")
    finish(server, client, holds)
    assert proxy.metric(FLUSHED) == 1


@pytest.mark.parametrize("setting", [None, "auto", "30ms"])
def test_by_the_time_that_answers_take(stack, setting):
    """The hello is the first answer that is measured: here it takes longer than auto's millisecond, and than 30 ms. Of
    test requests there is one, so that the mean stays there."""
    certificates = [{"file": str(SITES / "chains" / "p256.pem")}]
    server, proxy = start(stack, setting, faults.SlowHello(0.05), certificates=certificates)
    client = client_of(proxy)
    holds = park(server, client)
    client.read_server_hello()
    client.read_unsigned()
    finish(server, client, holds)
    assert proxy.metric(FLUSHED) == 1


def test_a_key_server_that_becomes_slow(stack):
    """Below the threshold nothing is flushed; answers that take longer move the mean over it."""
    server, proxy = start(stack, "250ms")
    served(proxy)
    assert proxy.metric(FLUSHED) == 0
    server.behaviour = faults.Late(1.2)

    def flushed():
        served(proxy)
        return proxy.metric(FLUSHED)

    wait_until(flushed, "the mean to rise over the threshold")
    assert proxy.status()["key_servers"][0]["latency_seconds"] > 0.25


def test_leaving_after_the_flight(stack):
    """A client that takes the chain and leaves before the signature is there leaves nothing behind."""
    server, proxy = start(stack, "on")
    watched = Watched(proxy)
    for manner in ("FIN", "RST"):
        client = client_of(proxy)
        park(server, client)
        client.read_server_hello()
        client.read_unsigned()
        tls_client.leave(client, manner)
        watched.wait_quiet()
    watched.assert_counted('keyless_handshakes_total{outcome="client_gone"}', 2)
    watched.assert_counted('keyless_key_requests_total{outcome="cancelled"}', 2)
    server.behaviour = fake.Honest()
    watched.assert_whole()


def test_key_server_that_refuses_after_the_flight(stack):
    """The alert comes behind the certificate."""
    server, proxy = start(stack, "on")
    watched = Watched(proxy)
    server.behaviour = faults.NeverSigns()
    asked = server.signatures_asked()
    client = client_of(proxy)
    client.send_hello()
    client.read_server_hello()
    client.read_unsigned()
    wait_until(lambda: server.signatures_asked() == asked + 1, "the signature to be asked for")
    server.cut_all()  # asked again over the next channel, it is answered an error
    server.behaviour = faults.Answers(0xFF, b"\x02")
    assert client.outcome() == wire.INTERNAL_ERROR
    watched.assert_failed("key not found")
    server.behaviour = fake.Honest()
    watched.assert_whole()


def test_with_curl(stack):
    """Ordinary clients don't notice."""
    server, proxy = stack.pair(tls={"default": "localhost", "early_flush": "on"})
    proxy.wait_tried()
    gains = Gains(server)
    for version in ("1.2", "1.3"):
        for name in ("p256.example", "rsa2048.example"):
            answer = curl(name, proxy.port, f"--tlsv{version}", "--tls-max", version).json()
            assert answer["sni"] == name
    assert proxy.metric(FLUSHED) == 4
    gains.assert_gained("keyless_keyserver_signatures_total", 4, outcome="ok")


def test_what_is_no_duration(stack):
    server = stack.fake_key_server()
    proxy = stack.proxy(server, start=False, tls={"early_flush": "sometimes"})
    checked = proxy.check()
    assert checked.returncode == 2
    assert 'tls.early_flush: got "sometimes", expected a duration' in checked.stderr
    assert "or auto, on or off" in checked.stderr
