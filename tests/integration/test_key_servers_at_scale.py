"""Several key servers and many of something: of clients that leave, of channels that come back at once, of keys."""

import signal
import socket
import time

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

import clients
import harness
import kssl_codec as kssl
from counters import Gains
from harness import curl, wait_until
from kssl_codec import Op
from kssl_peer import Peer, channel_context, site_key
from test_several_key_servers import entry
from watched import key_channel

CLIENTS, BATCH = 2000, 250
AT_ONCE = 50  # fewer than the burst of hedges that the budget lets through
# A thousand processes would be busy with themselves: each has sixteen channels, under sixteen names of the same key server.
PROXIES, WORKERS, ENTRIES = (4, 16, 16) if harness.STRICT else (1, 16, 16)
ANSWERS_WITHIN = 2.0  # seconds, however many come back at once
LOOK_AGAIN = 20  # connections, as asking all proxies for their channels takes longer than a connection
KEYS = 20_000


@pytest.mark.release
def test_clients_leave_while_their_request_is_hedged(stack, lean):
    """Both key servers have it, neither answers: nothing is left of the clients, and what comes afterwards is counted as late."""
    servers = [stack.key_server(queues={"deadline": "60s"}) for _ in range(2)]  # nor does it give up
    channel = key_channel(timeout="60s", attempt_timeout="60s", hedge="1ms", hedge_share="100%")
    proxy = stack.proxy(0, key_servers=[entry(servers[0], "keys-a"), entry(servers[1], "keys-b")], key_channel=channel,
                        limits={"handshakes": BATCH, "handshake_timeout": "60s"})
    wait_until(lambda: proxy.metric("keyless_key_channels_up") == 2, "two channels")
    proxy.wait_tried()
    hello = clients.client_hello("p256.example")
    signers = [server.children("signer")[0] for server in servers]
    (worker,) = proxy.children("worker")
    gains = Gains(proxy)

    def pending():
        return proxy.metric("keyless_key_requests_pending")

    def in_flight():
        return proxy.metric("keyless_key_server_requests_in_flight")

    def hedged():
        return proxy.metric("keyless_key_requests_hedged_total")

    def stop():
        for signer in signers:
            signer.signal(signal.SIGSTOP)

    def go_on():
        for signer in signers:
            signer.signal(signal.SIGCONT)

    def connect(count):
        """So many clients that wait for a signature that both have been asked for."""
        before, found = hedged(), []
        while len(found) < count:
            for _ in range(AT_ONCE):
                client = socket.create_connection(("127.0.0.1", proxy.port), timeout=harness.PATIENCE)
                client.sendall(hello)
                found.append(client)
            wait_until(lambda: hedged() == before + len(found), f"{len(found)} to be hedged ({hedged() - before})", 5)
        assert pending() == count
        wait_until(lambda: in_flight() == 2 * count, "all of them to be on their way")
        return found

    def leave_in_batches(count):
        for _ in range(count // BATCH):
            stop()
            try:
                for client in connect(BATCH):
                    client.close()
                wait_until(lambda: pending() == 0, "the proxy to notice that they left")
                assert in_flight() == 2 * BATCH, "an answer that may still come is not forgotten"
            finally:
                go_on()
            wait_until(lambda: in_flight() == 0, "what both were asked to be answered")
            assert curl("p256.example", proxy.port).status == 0

    leave_in_batches(2 * BATCH)  # fibres, arenas and tables reach their size
    wait_until(lambda: proxy.metric("keyless_connections_open") == 0, "all connections to be closed")
    descriptors, resident = worker.descriptors(), worker.resident()
    leave_in_batches(CLIENTS)
    wait_until(lambda: proxy.metric("keyless_connections_open") == 0, "all connections to be closed")
    wait_until(lambda: worker.descriptors() <= descriptors, "the descriptors to be closed")
    # A paused job that is not resumed leaks 34.5 kB: 2,000 of them would be 69 MB.
    assert worker.resident() - resident < (24_000_000 if harness.SANITIZED else 8_000_000)
    assert proxy.children("worker")[0].pid == worker.pid, "the worker was replaced"
    left = 2 * BATCH + CLIENTS
    gains.assert_failures(client_closed=left)
    gains.assert_gained("keyless_key_requests_total", left, outcome="cancelled")
    for name in ("keys-a", "keys-b"):  # of the clients that were served one answer may have been late, too
        assert left <= gains.gained("keyless_key_answers_late_total", server=name) <= left + left // BATCH

    # All places are there: a full house at once is served, each by whoever is first.
    stop()
    waiting = connect(BATCH)
    go_on()
    wait_until(lambda: pending() == 0, "all of them to be answered")
    for client in waiting:
        assert client.recv(1) == b"\x16", "no handshake record"
        client.close()


@pytest.mark.release
@pytest.mark.skipif(harness.SANITIZED, reason="hundreds of channels")
def test_many_channels_come_back_at_once(stack):
    """A key server that was killed and is started again: from then on it answers everybody soon, whoever else comes back."""
    channels = PROXIES * WORKERS * ENTRIES
    server = stack.key_server(limits={"connections": 2 * channels, "per_address": 0}, log={"level": "info"})
    settings = {"workers": WORKERS, "log": {"level": "warn"}, "tickets": {"source": "off"}}
    settings["certificates"] = [{"file": str(harness.SITES / "chains" / "p256.pem")}]
    settings["tls"] = {"default": "p256.example"}
    settings["key_servers"] = [entry(server, f"keys-{i}") for i in range(ENTRIES)]
    proxies = [stack.proxy(0, start=False, **settings) for _ in range(PROXIES)]
    for proxy in proxies:
        proxy.launch()

    def up():
        return sum(proxy.metric("keyless_key_channels_up") for proxy in proxies)

    wait_until(lambda: all(proxy.readiness()[0] == 200 for proxy in proxies), "all proxies to be ready", 120)
    wait_until(lambda: up() == channels, f"{channels} channels", 120)
    server.kill_all()
    wait_until(lambda: up() == 0, "no channels", 60)
    tls = channel_context()
    after = server.mark()
    began = time.monotonic()
    server.launch()
    server.wait_ready(after)
    assert time.monotonic() - began < ANSWERS_WITHIN, "it did not become ready"
    key = site_key("p256")
    slowest, count = 0.0, 0
    while count < LOOK_AGAIN or count % LOOK_AGAIN or up() < channels:
        asked = time.monotonic()
        with Peer(server.port, context=tls) as peer:
            assert peer.sign_tls13(key, 0x0403, bytes(32)).error is None
        slowest = max(slowest, time.monotonic() - asked)
        count += 1
        assert time.monotonic() - began < 60, f"{up()} of {channels} channels came back"
    print(f"{channels} channels up after {time.monotonic() - began:.2f} s; slowest of {count} connections with a signature {slowest:.2f} s")
    assert slowest < ANSWERS_WITHIN
    for proxy in proxies:
        assert curl("p256.example", proxy.port).status == 0


@pytest.fixture(scope="module")
def many_keys(tmp_path_factory):
    """A directory with P-256 keys that nobody has a certificate for, and the keys of the sites."""
    directory = tmp_path_factory.mktemp("many")
    how = (serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    for i in range(KEYS):
        keep(directory / f"other{i}.key", ec.generate_private_key(ec.SECP256R1()).private_bytes(*how))
    for source in (harness.SITES / "keys").glob("*.key"):
        keep(directory / source.name, source.read_bytes())
    return directory


def keep(path, key):
    path.touch(mode=0o600)
    path.write_bytes(key)


def listed(server):
    """How many keys the key server tells us of, and in how many pages."""
    keys, pages, after, more = 0, 0, b"", True
    with Peer(server.port) as peer:
        while more:
            page = peer.request(Op.LIST, after).get(kssl.Tag.PAYLOAD)
            more, rest = page[0] == 1, page[1:]
            pages += 1
            while rest:
                after, rest = rest[:20], rest[22 + rest[21] :]
                keys += 1
    return keys, pages


@pytest.mark.release
@pytest.mark.skipif(harness.SANITIZED, reason="thousands of keys are made and read")
@pytest.mark.parametrize("may_use", ["three", "all"])
def test_one_of_two_has_twenty_thousand_keys(stack, many_keys, tmp_path, may_use):
    """Of which the client may use three, or all: it is asked for what it has and the other has not, and only for that."""
    few = tmp_path / "few"
    few.mkdir()
    for name in ("rsa2048", "ed25519"):
        keep(few / f"{name}.key", (harness.SITES / "keys" / f"{name}.key").read_bytes())
    three = ["p256", "p384", "p521"]

    def allow(*keys):
        return [{"match": "DNS:edge1.example", "keys": list(keys), "allow": ["tls13", "tls12", "list"]}]

    many = stack.key_server(keys=[{"dir": str(many_keys)}],
                            clients=allow(*three if may_use == "three" else "*"))
    other = stack.key_server(keys=[{"dir": str(few)}], clients=allow("*"))
    keys, pages = listed(many)
    assert (keys, pages) == (3, 1) if may_use == "three" else keys > KEYS and pages > 10, (keys, pages)
    proxy = stack.proxy(0, key_servers=[entry(many, "many", mode="tbs"), entry(other, "other", mode="tbs")],
                        key_channel=key_channel(hedge="off"), tickets={"source": "off"})
    wait_until(lambda: proxy.metric("keyless_key_channels_up") == 2, "two channels")
    wait_until(lambda: proxy.metric("keyless_certificates_untried") == 0, "all chains to be tried")
    moved = proxy.metric("keyless_key_requests_moved_total")
    for _ in range(10):
        for name in ("p256.example", "p384.example"):
            assert harness.curl(name, proxy.port).json()["key_server"] == "many"
        if may_use == "three":
            assert harness.curl("rsa2048.example", proxy.port).json()["key_server"] == "other"
    assert proxy.metric("keyless_key_requests_moved_total") == moved, "one was asked for what it has not"
