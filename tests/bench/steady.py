"""Clients at a steady rate: each makes a full handshake and a request, whatever became of the others."""

import collections
import pathlib
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "integration"))

import clients  # noqa: E402

RATE = 100  # clients a second
THREADS = 16

Seen = collections.namedtuple("Seen", "began handshake problem")  # when, seconds until it was done or had failed, None or what


def quantile(values, share):
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


class Steady(clients.Load):
    """Few enough for the clients, which share the machine, not to be what is measured."""

    def __init__(self, port, rate=RATE, threads=THREADS, timeout=10.0):
        super().__init__(port, threads=threads, timeout=timeout)
        self.pause = threads / rate
        self.seen = []

    def _run(self):
        tls = clients.context()
        due = time.monotonic()
        while not self._stop.wait(max(0.0, due - time.monotonic())):
            due = max(due + self.pause, time.monotonic())
            self._note(self._one(tls))

    def _one(self, tls):
        began = time.monotonic()
        handshake = problem = None
        try:
            with clients.connect(self.port, self.name, tls, self.timeout) as client:
                handshake = time.monotonic() - began
                client.sendall(f"GET / HTTP/1.1\r\nHost: {self.name}\r\nConnection: close\r\n\r\n".encode())
                if not client.recv(4096).startswith(b"HTTP/1.1 200"):
                    problem = "another answer"
        except OSError as error:
            problem = f"{type(error).__name__}: {error}"
        return Seen(began, handshake or time.monotonic() - began, problem)

    def _note(self, one):
        with self._lock:
            self.seen.append(one)
            if one.problem is None:
                self.done += 1
            else:
                self.failures.append(one)

    def during(self, seconds):
        """Lets so much time go by, in which clients come."""
        self._stop.wait(max(0.0, seconds))

    def between(self, begin, end):
        """Those that came then; all of them are done when this returns."""
        with self._lock:
            return [one for one in self.seen if begin <= one.began < end]
