"""What a client leaves behind at a proxy that serves nobody else meanwhile: one line, one count of its outcome and one of
its reason, nothing open, and the next client served."""

import clients
from counters import Gains, failure_label
from harness import wait_until

OUTCOMES = ("ok", "client_gone", "client", "key", "aborted", "internal")


def handshakes(proxy):
    """{outcome: count} of all handshakes that have ended."""
    series = {name: value for name, value in proxy.metrics().items() if name.startswith("keyless_handshakes_total{")}
    return {outcome: sum(value for name, value in series.items() if f'outcome="{outcome}"' in name)
            for outcome in OUTCOMES}


class Observed:
    """From now on."""

    def __init__(self, proxy):
        self.proxy = proxy
        (self.worker,) = proxy.children("worker")
        self.wait_closed()
        self.descriptors = self.worker.descriptors()
        self.mark = proxy.mark()
        self.before = handshakes(proxy)
        self.gains = Gains(proxy)

    def wait_closed(self):
        wait_until(lambda: self.proxy.metric("keyless_connections_open") == 0, "all connections to be closed")

    def gained(self):
        now = handshakes(self.proxy)
        gained = {outcome: now[outcome] - self.before[outcome] for outcome in OUTCOMES}
        return {outcome: count for outcome, count in gained.items() if count}

    def assert_counted(self, **expected):
        """So many handshakes of each outcome, and no others."""
        wait_until(lambda: sum(self.gained().values()) >= sum(expected.values()), f"{expected}, not {self.gained()}")
        assert self.gained() == expected

    def failures(self):
        return self.proxy.find("handshake failed", after=self.mark)

    def assert_failed(self, reason, stage="client hello", sni="p256.example", outcome="client"):
        """One handshake failed, for this reason, and said so in one line; sni None: whatever it was."""
        line = self.proxy.wait_for("handshake failed", after=self.mark)
        assert (line["stage"], line["reason"]) == (stage, reason)
        assert sni is None or line.get("sni", "") == sni
        assert line["client"].startswith("127.0.0.1:")
        self.assert_counted(**{outcome: 1})
        self.gains.assert_failures(**{failure_label(reason): 1})
        assert len(self.failures()) == 1, self.failures()

    def assert_served(self, count=1):
        """So many handshakes were done, and none failed."""
        self.assert_counted(ok=count)
        self.gains.assert_failures()
        assert not self.failures()

    def assert_whole(self, name="p256.example"):
        """Nothing is left of the client, and the next one is served."""
        self.wait_closed()
        answer = clients.get(self.proxy.port, name)
        assert answer.startswith(b"HTTP/1.1 200"), answer[:200]
        self.wait_closed()
        wait_until(lambda: self.worker.descriptors() <= self.descriptors, f"{self.descriptors} descriptors again")
        assert self.proxy.children("worker")[0].pid == self.worker.pid, "the worker was replaced"
