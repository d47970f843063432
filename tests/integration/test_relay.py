"""What passes between clients and backends: bytes, ends, resets; and what bounds it: time, memory, descriptors."""

import concurrent.futures
import contextlib
import hashlib
import os
import select
import socket
import ssl
import struct
import threading
import time

import pytest

import clients
import harness
from counters import Gains
from harness import PATIENCE, curl, free_port, open_to_all, wait_until

# Each way, over one connection.
BYTES = int(os.environ.get("KEYLESS_TEST_BYTES", 200_000_000 if harness.SANITIZED else 1_000_000_000))
RESET = struct.pack("ii", 1, 0)


class Backend:
    """A plain server in Python: handle(socket) runs in a thread for each connection."""

    def __init__(self, handle, path=None, port=0, backlog=64):
        self.handle = handle
        self.listener = socket.socket(socket.AF_UNIX if path else socket.AF_INET)
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.listener.bind(str(path) if path else ("127.0.0.1", port))
        self.listener.listen(backlog)
        self.address = f"unix:{path}" if path else f"127.0.0.1:{self.listener.getsockname()[1]}"
        self.accepted = 0
        self.problems = []
        self.open = []

    def __enter__(self):
        self.thread = threading.Thread(target=self._accept, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, kind, *_):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for connection in self.open:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        if kind is None:
            assert not self.problems, self.problems

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self.listener.accept()
                connection.settimeout(PATIENCE)
                self.accepted += 1
                self.open.append(connection)
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection):
        try:
            with connection:
                self.handle(connection)
        except AssertionError as error:
            self.problems.append(error)
        except OSError:
            pass


class Client:
    """A TLS client that can end its side and go on reading, which ssl.SSLSocket cannot. Never blocks by itself:
    turn() moves what can be moved."""

    def __init__(self, port, name="p256.example", tls=None):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = tls or clients.context()
        tls.options &= ~ssl.OP_IGNORE_UNEXPECTED_EOF  # an end without close_notify is an error
        self.tls = tls.wrap_bio(self.incoming, self.outgoing, server_hostname=name)
        self.unsent = b""
        self.ended = False
        self.tcp_ended = False
        while not self._attempt(self.tls.do_handshake):
            self._exchange(wait=True)
        self.flush()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def _attempt(self, call, *arguments):
        try:
            call(*arguments)
            return True
        except ssl.SSLWantReadError:
            return False

    def _exchange(self, wait, read=True):
        """Sends what libssl wants sent, and reads from the socket if asked to."""
        if not self.unsent:
            self.unsent = self.outgoing.read()
        timeout = PATIENCE if wait else 0
        readable, writable, _ = select.select([self.socket] if read else [], [self.socket] if self.unsent else [], [],
                                              timeout)
        assert readable or writable or not wait, "waited in vain for the proxy"
        if writable:
            self.unsent = self.unsent[self.socket.send(self.unsent):]
        if readable:
            data = self.socket.recv(262144)
            if data:
                self.incoming.write(data)
            else:
                self.tcp_ended = True
                self.incoming.write_eof()

    @property
    def queued(self):
        return len(self.unsent) + self.outgoing.pending

    def flush(self):
        while self.queued:
            self._exchange(wait=True, read=False)

    def write(self, data):
        """Queues data; turn() or flush() sends it."""
        self.tls.write(data)

    def say(self, data):
        self.write(data)
        self.flush()

    def end(self):
        """close_notify; reading goes on."""
        with contextlib.suppress(ssl.SSLWantReadError):
            self.tls.unwrap()
        self.flush()

    def turn(self, wait=True):
        """Moves what can be moved; returns what was decrypted, or None after the peer's close_notify."""
        if not self.ended:
            self._exchange(wait)
        decrypted = []
        while True:
            try:
                data = self.tls.read(262144)
            except ssl.SSLWantReadError:
                return b"".join(decrypted)
            except ssl.SSLZeroReturnError:
                data = b""
            if not data:
                self.ended = True
                return b"".join(decrypted) or None
            decrypted.append(data)

    def hear(self, size):
        heard = b""
        while len(heard) < size:
            more = self.turn()
            assert more is not None, f"ended after {heard!r}"
            heard += more
        return heard

    def hear_end(self):
        """Everything until close_notify."""
        heard = b""
        while (more := self.turn()) is not None:
            heard += more
        return heard


def assert_cut_off(client):
    """The end comes without close_notify."""
    with pytest.raises((ssl.SSLError, ConnectionResetError)) as caught:
        client.hear_end()
    assert isinstance(caught.value, ConnectionResetError) or caught.value.reason == "UNEXPECTED_EOF_WHILE_READING"


def read_all(connection):
    data = b""
    while more := connection.recv(65536):
        data += more
    return data


def closed(proxy, reason):
    return proxy.metric("keyless_connections_closed_total", reason=reason)


def cpu_seconds(process):
    fields = process._read("stat").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def assert_idle(process, seconds=1.0):
    """The process does next to nothing: a loop that spins would use the whole time."""
    before = cpu_seconds(process)
    time.sleep(seconds)  # the only way to see that nothing happens
    assert cpu_seconds(process) - before < 0.3 * seconds


@pytest.fixture(scope="module")
def key_server(module_stack):
    return module_stack.key_server()


@pytest.fixture
def proxy_for(stack, key_server):
    """proxy_for(backend or address, ...): a proxy with these servers behind it."""

    def make(*servers, **changes):
        addresses = [server if isinstance(server, str) else server.address for server in servers]
        web = {"servers": addresses, **changes.pop("backend", {})}
        return stack.proxy(key_server, backends={"web": web}, **changes)

    return make


# ---- Bytes.


def numbered(total):
    """A stream of chunks of uneven size that never repeats."""
    block = os.urandom(1 << 20)
    sent = 0
    while sent < total:
        size = min(total - sent, 1 + (sent * 2654435761) % len(block))
        yield sent.to_bytes(8, "big") + block[:size - 8] if size >= 8 else block[:size]
        sent += size


@pytest.mark.parametrize("version", ["TLSv1_2", "TLSv1_3"])
def test_much_each_way(proxy_for, version):
    """Both ways at once over one connection; hashes compared."""
    hashes = {name: hashlib.sha256() for name in ("client sent", "backend got", "backend sent", "client got")}

    def serve(connection):
        def send():
            for chunk in numbered(BYTES):
                hashes["backend sent"].update(chunk)
                connection.sendall(chunk)
            connection.shutdown(socket.SHUT_WR)

        sender = threading.Thread(target=send)
        sender.start()
        while chunk := connection.recv(1 << 20):
            hashes["backend got"].update(chunk)
        sender.join()

    tls = clients.context()
    tls.maximum_version = tls.minimum_version = getattr(ssl.TLSVersion, version)
    with Backend(serve) as backend:
        proxy = proxy_for(backend)
        with Client(proxy.port, tls=tls) as client:
            chunks = numbered(BYTES)
            sending, got = True, 0
            while sending or got < BYTES:
                while sending and client.queued < 500_000:
                    chunk = next(chunks, None)
                    if chunk is None:
                        sending = False
                        break
                    hashes["client sent"].update(chunk)
                    client.write(chunk)
                data = client.turn()
                if data is not None:
                    hashes["client got"].update(data)
                    got += len(data)
            client.flush()
            client.end()
            assert client.hear_end() == b""
        wait_until(lambda: closed(proxy, "finished") == 1, "the connection to end in good order")
        assert got == BYTES
        assert proxy.metric("keyless_client_bytes_total", direction="in") == BYTES
        assert proxy.metric("keyless_client_bytes_total", direction="out") == BYTES
    digests = {name: digest.hexdigest() for name, digest in hashes.items()}
    assert digests["client sent"] == digests["backend got"]
    assert digests["backend sent"] == digests["client got"]


@pytest.mark.release
@pytest.mark.parametrize("slow", ["client", "backend"])
def test_slow_readers_cost_bounded_memory(proxy_for, lean, slow):
    """Thirty connections whose reader stands still: the writer is stopped, the worker holds next to nothing."""
    count, moved = 30, [0] * 30
    go_on = threading.Event()

    def pour(connection):
        with contextlib.suppress(TimeoutError):
            index = int(connection.recv(2))
            while True:
                moved[index] += connection.send(bytes(65536))

    def stand_still(connection):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        connection.settimeout(None)  # the clients end one after the other, and all of that takes longer than one may
        go_on.wait()
        got = len(read_all(connection))
        connection.sendall(str(got).encode())

    with Backend(pour if slow == "client" else stand_still) as backend, contextlib.ExitStack() as exits:
        exits.callback(go_on.set)
        proxy = proxy_for(backend)
        (worker,) = proxy.children("worker")
        with Client(proxy.port) as first:  # what is allocated once
            first.say(b"00")
        held = [exits.enter_context(Client(proxy.port)) for _ in range(count)]
        wait_until(lambda: proxy.metric("keyless_connections_open") >= count, "all to be connected")
        resident = worker.resident()
        for index, client in enumerate(held):
            if slow == "client":
                client.say(b"%02d" % index)
            else:
                moved[index] = pour_client(client)

        def stopped():
            before = list(moved)
            time.sleep(0.3)
            return moved == before and all(moved)

        wait_until(stopped, "the writers to be stopped", timeout=60)
        # What the kernel's buffers take is the kernel's; a relay without back pressure would go on for ever.
        assert max(moved) < 64_000_000
        allowed = count * (400_000 if harness.SANITIZED else 80_000)
        assert worker.resident() - resident < allowed
        assert_idle(worker)
        go_on.set()
        if slow == "backend":
            for index, client in enumerate(held):
                client.flush()
                client.end()
                assert int(client.hear_end()) == moved[index]


def pour_client(client):
    """Writes until the socket takes nothing for a while; returns how much was written in all."""
    written = 0
    while True:
        while client.queued < 200_000:
            client.write(bytes(16384))
            written += 16384
        queued = client.queued
        client._exchange(wait=False, read=False)
        if client.queued == queued:
            time.sleep(0.05)
            client._exchange(wait=False, read=False)
            if client.queued == queued:
                return written


def test_unix_socket_backend(proxy_for, stack):
    path = stack.directory / "backend.sock"
    open_to_all(stack.directory)
    with Backend(lambda connection: connection.sendall(read_all(connection)[::-1]), path=path) as backend:
        path.chmod(0o666)  # the worker is nobody
        proxy = proxy_for(backend)
        with Client(proxy.port) as client:
            client.say(b"desrever")
            client.end()
            assert client.hear_end() == b"reversed"


# ---- Ends.


def test_client_ends_first(proxy_for):
    with Backend(lambda connection: connection.sendall(b"got " + read_all(connection))) as backend:
        proxy = proxy_for(backend)
        with Client(proxy.port) as client:
            client.say(b"everything")
            client.end()
            assert client.hear_end() == b"got everything"
        wait_until(lambda: closed(proxy, "finished") == 1, "the connection to end in good order")
        assert proxy.metric("keyless_connections_truncated_total") == 0


def test_backend_ends_first(proxy_for):
    heard = []

    def serve(connection):
        connection.sendall(b"my last word")
        connection.shutdown(socket.SHUT_WR)
        heard.append(read_all(connection))

    with Backend(serve) as backend:
        proxy = proxy_for(backend)
        with Client(proxy.port) as client:
            assert client.hear_end() == b"my last word"
            client.say(b"but mine comes later")
            client.end()
            wait_until(lambda: heard, "the backend to hear the client's end")
        assert heard == [b"but mine comes later"]
        wait_until(lambda: closed(proxy, "finished") == 1, "the connection to end in good order")


def test_client_ends_tcp_only(proxy_for):
    """No close_notify: passed on as an end, and counted."""
    with Backend(lambda connection: connection.sendall(b"got " + read_all(connection))) as backend:
        proxy = proxy_for(backend)
        with Client(proxy.port) as client:
            client.say(b"this")
            client.socket.shutdown(socket.SHUT_WR)
            assert client.hear_end() == b"got this"
        wait_until(lambda: proxy.metric("keyless_connections_truncated_total") == 1, "the truncation to be counted")


def test_backend_resets(proxy_for):
    """The client gets what there was, and must see that it was not all."""

    def serve(connection):
        connection.recv(16)
        connection.sendall(b"half an ans")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        connection.recv(16)

    with Backend(serve) as backend:
        proxy = proxy_for(backend)
        with Client(proxy.port) as client:
            client.say(b"question")
            assert client.hear(11) == b"half an ans"
            client.say(b"more")
            assert_cut_off(client)
        wait_until(lambda: closed(proxy, "backend_lost") == 1, "the reset to be counted")


def test_client_resets(proxy_for):
    """The backend must see that what it got was not all."""
    seen = []

    def serve(connection):
        connection.sendall(b"hello")
        try:
            seen.append(read_all(connection))
        except ConnectionResetError:
            seen.append("reset")

    with Backend(serve) as backend:
        proxy = proxy_for(backend)
        with Client(proxy.port) as client:
            assert client.hear(5) == b"hello"
            client.say(b"half a quest")
            client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        wait_until(lambda: seen, "the backend to see its end")
        assert seen == ["reset"]
        wait_until(lambda: closed(proxy, "client_lost") == 1, "the reset to be counted")


def test_backend_answers_early(proxy_for):
    """Like 413 to a long upload: the backend answers and closes with the upload unread, the answer arrives."""

    heard = threading.Semaphore(0)

    def serve(connection):
        connection.recv(16)
        connection.sendall(b"too long")
        connection.shutdown(socket.SHUT_WR)
        heard.acquire(timeout=PATIENCE)  # as a server that lingers, but not for long enough

    with Backend(serve) as backend:
        proxy = proxy_for(backend)
        for _ in range(5):
            with Client(proxy.port) as client:
                for _ in range(200):
                    client.write(bytes(16384))
                assert client.hear(8) == b"too long"
                heard.release()
        # Whose end is seen first is chance, the client's or the backend's: each is counted once.
        ends = ("finished", "client_lost", "backend_lost")
        wait_until(lambda: sum(closed(proxy, reason) for reason in ends) == 5, "the ends to be counted")
        assert proxy.metric("keyless_connections_closed_total") == 5
        assert proxy.metric("keyless_client_bytes_total", direction="out") == 5 * len(b"too long")


def test_garbage_after_the_handshake(proxy_for):
    with Backend(read_all) as backend:
        proxy = proxy_for(backend)
        with Client(proxy.port) as client:
            client.socket.sendall(b"\x17\x03\x03\x00\x20" + bytes(32))
            with pytest.raises(ssl.SSLError, match="bad record mac|BAD_RECORD_MAC"):
                client.hear_end()
        wait_until(lambda: closed(proxy, "client_broken") == 1, "the end to be counted")


# ---- Backends that fail.


def test_next_server_when_one_refuses(proxy_for):
    away = f"127.0.0.1:{free_port()}"
    with Backend(lambda connection: connection.sendall(b"here")) as backend:
        proxy = proxy_for(away, backend, away)
        for _ in range(6):
            with Client(proxy.port) as client:
                assert client.hear_end() == b"here"
        assert backend.accepted == 6
    # Of six clients two began with the first, two with the second, two with the third and then the first.
    assert len(proxy.find("backend connect failed", server=away, reason="refused")) == 6
    assert not proxy.find("no backend server")
    assert proxy.metric("keyless_backend_connects_total", outcome="ok") == 6
    assert proxy.metric("keyless_backend_connects_total", outcome="failed") == 6


def test_no_server_left(proxy_for):
    proxy = proxy_for(f"127.0.0.1:{free_port()}", "unix:/nonexistent/backend.sock")
    began = time.monotonic()
    answer = curl("p256.example", proxy.port)
    assert answer.status in (52, 56), answer.error
    assert time.monotonic() - began < PATIENCE / 2
    line = proxy.wait_for("no backend server", backend="web", tried=2)
    assert line["client"].startswith("127.0.0.1:")
    assert proxy.find("backend connect failed", reason="refused")
    assert proxy.find("backend connect failed", reason="No such file")
    wait_until(lambda: closed(proxy, "no_backend") == 1, "the end to be counted")


@contextlib.contextmanager
def silent_server():
    """A server that never takes a connection: the queue in front of it is full."""
    with contextlib.ExitStack() as exits:
        silent = exits.enter_context(socket.socket())
        silent.bind(("127.0.0.1", 0))
        silent.listen(0)
        for _ in range(4):
            filler = exits.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(silent.getsockname())
        yield f"127.0.0.1:{silent.getsockname()[1]}"


def test_server_that_does_not_answer(proxy_for):
    """The next one is tried after connect_timeout. A client that has said all it had to say by then is served."""
    with silent_server() as silent, Backend(lambda connection: connection.sendall(read_all(connection))) as backend:
        proxy = proxy_for(silent, backend, backend={"connect_timeout": "300ms"})
        with Client(proxy.port) as client:
            client.say(b"here")
            client.end()
            client.socket.shutdown(socket.SHUT_WR)
            assert client.hear_end() == b"here"
        proxy.wait_for("backend connect failed", server=silent, reason="timeout")
        for outcome in ("ok", "failed"):
            assert proxy.metric("keyless_backend_connects_total", outcome=outcome) == 1
        wait_until(lambda: closed(proxy, "finished") == 1, "the connection to end in good order")


def test_client_resets_while_its_backend_is_awaited(proxy_for):
    with silent_server() as silent:
        proxy = proxy_for(silent, backend={"connect_timeout": "1m"})
        (worker,) = proxy.children("worker")
        with Client(proxy.port) as client:
            client.say(b"here")
            wait_until(lambda: proxy.metric("keyless_handshakes_total", outcome="ok") == 1, "the handshake")
            assert_idle(worker)
            client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        wait_until(lambda: closed(proxy, "client_lost") == 1, "the reset to be seen")


# ---- Time.


def test_idle_timeout(proxy_for):
    """Counted from the last byte in either direction, not from the start."""
    with Backend(lambda connection: [connection.sendall(b"tick") for _ in iter(lambda: connection.recv(16), b"")]) as backend:
        proxy = proxy_for(backend, limits={"idle_timeout": "1500ms"})
        with Client(proxy.port) as client:
            began = time.monotonic()
            while time.monotonic() - began < 2.5:
                client.say(b"t")
                assert client.hear(4) == b"tick"
                time.sleep(0.1)
            quiet = time.monotonic()
            assert_cut_off(client)
            assert 1.2 < time.monotonic() - quiet < PATIENCE / 2
        wait_until(lambda: closed(proxy, "idle") == 1, "the timeout to be counted")


def test_client_that_never_says_anything(proxy_for):
    proxy = proxy_for("builtin:hello", limits={"handshake_timeout": "300ms"})
    gains = Gains(proxy)
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=PATIENCE) as client:
        assert client.recv(1) == b""
    line = proxy.wait_for("handshake failed", reason="timeout")
    assert line["stage"] == "client hello"
    gains.assert_failures(timeout=1)
    gains.assert_gained("keyless_handshakes_total", outcome="aborted")
    assert closed(proxy, "handshake_failed") == 1


def test_client_that_never_closes(proxy_for):
    """Told of the backend's end, it stays: it is let go after a while, and nothing is held for it till then."""
    with Backend(lambda connection: connection.sendall(b"bye")) as backend:
        proxy = proxy_for(backend, limits={"idle_timeout": "500ms"})
        with Client(proxy.port) as client:
            assert client.hear_end() == b"bye"
            assert client.socket.recv(1) == b""
        wait_until(lambda: closed(proxy, "finished") == 1, "the connection to end in good order")


def test_client_that_never_ends_its_side(proxy_for):
    """A backend that has ended its own side and reads on must not take our giving up for the client's end."""
    seen = []

    def serve(connection):
        connection.sendall(b"go on")
        connection.shutdown(socket.SHUT_WR)
        try:
            seen.append(read_all(connection))
        except ConnectionResetError:
            seen.append("reset")

    with Backend(serve) as backend:
        proxy = proxy_for(backend, limits={"idle_timeout": "500ms"})
        with Client(proxy.port) as client:
            assert client.hear_end() == b"go on"
            client.say(b"half an upl")
            wait_until(lambda: seen, "the backend to see its end")
        assert seen == ["reset"]
        wait_until(lambda: closed(proxy, "finished") == 1, "the end to be counted")


# ---- Bounds.


def test_out_of_descriptors(proxy_for):
    """Accepting pauses and the CPU is idle; those who are in are served; the rest are when there is room again."""
    with Backend(lambda connection: [connection.sendall(b"yes") for _ in iter(lambda: connection.recv(16), b"")]) as backend:
        proxy = proxy_for(backend, wrapper=["sh", "-c", 'ulimit -n 48; "$0" "$@"; exit $?'])
        (worker,) = proxy.children("worker")
        with contextlib.ExitStack() as exits:
            waiting = [exits.enter_context(socket.create_connection(("127.0.0.1", proxy.port))) for _ in range(40)]
            wait_until(lambda: proxy.metric("keyless_accept_paused_total", reason="descriptors") >= 1, "the pause")
            proxy.wait_for("accepting paused", reason="out of descriptors")
            served = proxy.metric("keyless_connections_open")
            assert 5 <= served < 40
            assert_idle(worker, seconds=1.5)
            # However long the pause has lasted, those who are in have what they need for their backends, and
            # make room for the others when they leave.
            tls = clients.context()

            def serve(client):
                client.settimeout(PATIENCE)
                with tls.wrap_socket(client, server_hostname="p256.example") as inside:
                    inside.sendall(b"in?")
                    return inside.recv(3)

            with concurrent.futures.ThreadPoolExecutor(len(waiting)) as pool:
                assert set(pool.map(serve, waiting)) == {b"yes"}
        with Client(proxy.port) as client:
            client.say(b"still there?")
            assert client.hear(3) == b"yes"
        assert not proxy.find("backend connect failed")
        assert not proxy.find("accept failed")


def test_limit_of_connections(proxy_for):
    proxy = proxy_for("builtin:hello", limits={"connections": 5, "handshakes": 5})
    (worker,) = proxy.children("worker")
    with contextlib.ExitStack() as exits:
        held = [exits.enter_context(Client(proxy.port)) for _ in range(5)]
        waiting = exits.enter_context(socket.create_connection(("127.0.0.1", proxy.port), timeout=PATIENCE))
        waiting.sendall(clients.client_hello("p256.example"))
        wait_until(lambda: proxy.metric("keyless_accept_paused_total", reason="limit") == 1, "the pause")
        proxy.wait_for("accepting paused", reason="limits.connections", connections=5)
        assert_idle(worker)
        assert proxy.metric("keyless_connections_open") == 5
        held[0].socket.close()
        assert waiting.recv(1) == b"\x16"


def assert_cancelled(gains):
    """One client has left while its signature was pending."""
    gains.assert_failures(client_closed=1)
    gains.assert_gained("keyless_handshakes_total", outcome="client_gone")
    gains.assert_gained("keyless_key_requests_total", server="keys-a", outcome="cancelled")


def test_early_bytes_while_the_signature_is_pending(stack):
    """A client that sends more than its ClientHello is left alone until the signature comes, without spinning."""
    server, proxy = stack.pair({"queues": {"deadline": "60s"}})
    gains = Gains(proxy)
    (worker,) = proxy.children("worker")
    (signer,) = server.children("signer")
    signer.signal(harness.signal.SIGSTOP)
    try:
        with socket.create_connection(("127.0.0.1", proxy.port), timeout=PATIENCE) as client:
            client.sendall(clients.client_hello("p256.example") + b"\x14\x03\x03\x00\x01\x01")
            wait_until(lambda: proxy.metric("keyless_key_requests_pending") == 1, "the request")
            client.sendall(b"\x14\x03\x03\x00\x01\x01")
            assert_idle(worker)
            assert proxy.metric("keyless_key_requests_pending") == 1
        wait_until(lambda: proxy.metric("keyless_key_requests_pending") == 0, "the client to be missed")
        assert_cancelled(gains)
    finally:
        signer.signal(harness.signal.SIGCONT)
    assert curl("p256.example", proxy.port).status == 0


@pytest.mark.parametrize("how", ["close", "reset"])
def test_leaving_with_bytes_unread(stack, how):
    """Neither FIN nor RST may hide behind bytes that nobody reads while the signature is pending."""
    server, proxy = stack.pair({"queues": {"deadline": "60s"}}, key_channel={
        "certificate": str(harness.CHANNEL / "edge1.pem"), "key": str(harness.CHANNEL / "edge1-key.pem"),
        "ca": str(harness.CHANNEL / "ca.pem"), "timeout": "9s"})
    gains = Gains(proxy)
    (signer,) = server.children("signer")
    signer.signal(harness.signal.SIGSTOP)
    try:
        client = socket.create_connection(("127.0.0.1", proxy.port), timeout=PATIENCE)
        client.sendall(clients.client_hello("p256.example"))
        wait_until(lambda: proxy.metric("keyless_key_requests_pending") == 1, "the request")
        client.sendall(b"\x14\x03\x03\x00\x01\x01")
        if how == "reset":
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        client.close()
        wait_until(lambda: proxy.metric("keyless_key_requests_pending") == 0, "the client to be missed", timeout=5)
        proxy.wait_for("handshake failed", stage="key", reason="client closed")
        assert_cancelled(gains)
    finally:
        signer.signal(harness.signal.SIGCONT)
