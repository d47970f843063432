"""What an idle connection costs the proxy."""

import contextlib
import ssl

import pytest

import clients
import harness
from harness import wait_until
from test_relay import Backend

WARM_UP, CONNECTIONS = 100, 500
# Of the worker's resident memory; kernel buffers are not in it. The README tells what was measured, with OpenSSL 3.0: 3.5 keeps
# 8 kB more of a connection, and in TLS 1.3 the client's share of the key exchange, which with X25519MLKEM768 is another 7 kB.
NEW = harness.openssl_version() >= (3, 5)
OCTETS = {ssl.TLSVersion.TLSv1_2: 28_000 if NEW else 20_000, ssl.TLSVersion.TLSv1_3: 35_000 if NEW else 20_000}


def hold(connection):
    """Says a word and waits for the client's end."""
    connection.sendall(b"x")
    connection.recv(1)


@pytest.mark.release
@pytest.mark.skipif(harness.SANITIZED, reason="a sanitizer's memory is not ours")
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["1.2", "1.3"])
def test_idle_connections(stack, version):
    with contextlib.ExitStack() as exits:
        backend = exits.enter_context(Backend(hold))
        _, proxy = stack.pair(backends={"web": {"servers": [backend.address]}})
        (worker,) = proxy.children("worker")
        tls = clients.context(minimum_version=version, maximum_version=version)

        def connect(count):
            for _ in range(count):
                assert exits.enter_context(clients.connect(proxy.port, tls=tls)).recv(1) == b"x"

        connect(WARM_UP)
        before = worker.resident()
        connect(CONNECTIONS)
        each = (worker.resident() - before) / CONNECTIONS
        print(f"{each:.0f} octets each")
        assert 0 < each < OCTETS[version]
        assert proxy.metric("keyless_connections_open") == WARM_UP + CONNECTIONS
    wait_until(lambda: proxy.metric("keyless_connections_open") == 0, "all to be closed")
