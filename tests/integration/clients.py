"""Clients that do what curl can't: leave half-way, connect without end, send raw bytes."""

import contextlib
import socket
import ssl
import threading
import time

from harness import PATIENCE, SITE_CA


def context(**changes):
    made = ssl.create_default_context(cafile=str(SITE_CA))
    for name, value in changes.items():
        setattr(made, name, value)
    return made


def client_hello(name, tls=None):
    """The bytes of a ClientHello, made by OpenSSL."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = (tls or context()).wrap_bio(incoming, outgoing, server_hostname=name)
    with contextlib.suppress(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()


def connect(port, name="p256.example", tls=None, timeout=None, address="127.0.0.1", no_delay=True):
    """A TLS connection; closed by the caller (or with with)."""
    timeout = PATIENCE if timeout is None else timeout
    raw = socket.create_connection((address, port), timeout=timeout)
    raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, int(no_delay))
    try:
        return (tls or context()).wrap_socket(raw, server_hostname=name, suppress_ragged_eofs=False)
    except BaseException:
        raw.close()
        raise


def get(port, name="p256.example", tls=None, timeout=None):
    """One request over one connection, verified; the answer's bytes."""
    with connect(port, name, tls, timeout) as client:
        client.sendall(f"GET / HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n".encode())
        answer = b""
        with contextlib.suppress(ssl.SSLEOFError):
            while chunk := client.recv(65536):
                answer += chunk
        return answer


def works(port):
    """Whether a client is served."""
    with contextlib.suppress(OSError):
        return get(port).startswith(b"HTTP/1.1 200")
    return False


class Load:
    """Threads that connect, ask and close without pause; counts what clients saw."""

    def __init__(self, port, threads=2, name="p256.example", timeout=5.0):
        self.port, self.name, self.timeout = port, name, timeout
        self.done = 0
        self.failures = []  # (when it began, seconds it took, what happened)
        self.seen = []  # (when it began, seconds it took) of all
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(threads)]

    def _run(self):
        tls = context()
        while not self._stop.is_set():
            began = time.monotonic()
            problem = None
            try:
                answer = get(self.port, self.name, tls, self.timeout)
                if not answer.startswith(b"HTTP/1.1 200"):
                    problem = f"answer {answer[:60]!r}"
            except OSError as error:
                problem = f"{type(error).__name__}: {error}"
            took = time.monotonic() - began
            with self._lock:
                self.seen.append((began, took))
                if problem is None:
                    self.done += 1
                else:
                    self.failures.append((began, took, problem))

    def __enter__(self):
        self.began = time.monotonic()
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        for thread in self._threads:
            thread.join(PATIENCE)

    def slowest(self, since=0.0):
        """Of those that began after that moment and are done."""
        with self._lock:
            return max((took for began, took in self.seen if began >= since), default=0.0)

    def more(self, count, timeout=None):
        """Waits until `count` more requests have been answered."""
        from harness import wait_until

        goal = self.done + count
        wait_until(lambda: self.done >= goal, f"{count} more answers (failures: {self.failures[-3:]})", timeout)
