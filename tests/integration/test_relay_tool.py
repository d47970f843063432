"""keyless-relay itself: each fault does what it says, and nothing else."""

import contextlib
import fcntl
import socket
import termios
import threading
import time

import pytest

from harness import PATIENCE, Relay, wait_until


@pytest.fixture
def echo():
    """A server that sends back what it gets; its port."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve(connection):
        with connection, contextlib.suppress(OSError):
            while data := connection.recv(65536):
                connection.sendall(data)

    def accept():
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    yield listener.getsockname()[1]
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()


@pytest.fixture
def relay(echo):
    made = Relay(echo).start()
    yield made
    assert made.stop() == 0


def connect(relay):
    return socket.create_connection(("127.0.0.1", relay.port), timeout=PATIENCE)


def receive(sock, size):
    """Exactly so many octets, or what came before the end."""
    data = b""
    while len(data) < size and (more := sock.recv(size - len(data))):
        data += more
    return data


def unsent(client):
    """Octets that the other end has not acknowledged yet."""
    return int.from_bytes(fcntl.ioctl(client, termios.TIOCOUTQ, bytes(4)), "little")


def exchange(client, data):
    client.sendall(data)
    return receive(client, len(data))


def test_passes_everything_on(relay):
    with connect(relay) as client:
        data = bytes(range(256)) * 4000
        threading.Thread(target=client.sendall, args=(data,)).start()
        assert receive(client, len(data)) == data
        client.shutdown(socket.SHUT_WR)
        assert client.recv(1) == b""
    assert relay.stats()["octets"] == 2 * len(data)


def test_delay_is_what_it_reports(relay):
    with connect(relay) as client:
        exchange(client, b"before")
        relay.command("delay", 30000)
        relay.stats()
        began = time.monotonic()
        exchange(client, b"after")
        took = time.monotonic() - began
        reported = relay.stats()
    assert took >= 0.06
    assert 30000 <= reported["delay_mean_us"] <= reported["delay_max_us"]
    # There and back: both are part of what the client has seen, however busy the machine is.
    assert 2 * reported["delay_mean_us"] <= took * 1_000_000


def test_stall_and_resume(relay):
    with connect(relay) as client:
        exchange(client, b"x")
        relay.command("stall")
        client.sendall(b"held")
        client.settimeout(0.2)
        with pytest.raises(TimeoutError):
            client.recv(1)
        relay.command("resume")
        client.settimeout(PATIENCE)
        assert receive(client, 4) == b"held"


def test_corrupt():
    listener = socket.create_server(("127.0.0.1", 0))
    relay = Relay(listener.getsockname()[1]).start()
    relay.command("corrupt", 4)
    with connect(relay) as client:
        client.sendall(b"\0" * 8)
        with listener.accept()[0] as server:
            assert receive(server, 8) == b"\0\0\0\1\0\0\0\1"
            relay.command("corrupt", 0)
            client.sendall(b"clean")
            assert receive(server, 5) == b"clean"
    listener.close()
    assert relay.stop() == 0


def test_reorder():
    listener = socket.create_server(("127.0.0.1", 0))
    relay = Relay(listener.getsockname()[1]).start()
    relay.command("reorder", 2)
    with connect(relay) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with listener.accept()[0] as server:
            client.sendall(b"a")
            assert server.recv(1) == b"a"
            client.sendall(b"b")  # the second piece waits for the third
            wait_until(lambda: unsent(client) == 0, "the relay's machine to have it")
            server.settimeout(0.2)
            with pytest.raises(TimeoutError):
                server.recv(1)
            server.settimeout(PATIENCE)
            client.sendall(b"c")
            assert receive(server, 2) == b"cb"
            client.sendall(b"d")  # the third that counts goes on; the fourth would wait
            assert server.recv(1) == b"d"
            client.sendall(b"e")
            client.shutdown(socket.SHUT_WR)  # and nothing that waits is lost at the end
            assert receive(server, 2) == b"e"
    listener.close()
    assert relay.stop() == 0


def test_rate(relay):
    with connect(relay) as client:
        relay.command("rate", 200000)
        began = time.monotonic()
        exchange(client, bytes(40000))
        assert time.monotonic() - began >= 0.15
        relay.command("rate", 0)


def test_drop_and_accept(relay):
    with connect(relay) as old:
        exchange(old, b"x")
        relay.command("drop")
        with connect(relay) as client:
            with contextlib.suppress(ConnectionResetError):
                assert client.recv(1) == b""
        assert exchange(old, b"still here") == b"still here"
        relay.command("accept")
        with connect(relay) as client:
            assert exchange(client, b"again") == b"again"


def test_cut(relay):
    with connect(relay) as client:
        exchange(client, b"x")
        assert relay.stats()["open"] == 1
        relay.command("cut")
        with pytest.raises(ConnectionResetError):
            client.recv(1)
        assert relay.stats()["open"] == 0


def test_unknown_command(relay):
    with pytest.raises(AssertionError, match="unknown command"):
        relay.command("explode")
    with pytest.raises(AssertionError, match="unknown command"):
        relay.command("delay")
