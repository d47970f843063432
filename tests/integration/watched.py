"""A proxy that is watched while its key server misbehaves: what clients get, what is logged and counted, and that
nothing is left of it in the end."""

import collections
import concurrent.futures
import re
import ssl
import time

import pytest

import clients
import harness
from counters import KEY_FAILURES, failure_label, failures
from harness import wait_until

TIMEOUT = 1.0
# A deadline that nobody reaches: who is refused at once is refused before it, however busy the machine is.
LONG = 5.0
# What a client may wait beyond the deadline: its own handshake, on a busy machine and with sanitizers.
SLACK = 3.0 if harness.SANITIZED else 0.5


def key_channel(**changes):
    """Without a key server handshakes wait for one as long as for an answer, unless fail_fast is given."""
    changes.setdefault("timeout", f"{int(TIMEOUT * 1000)}ms")
    changes.setdefault("fail_fast", changes["timeout"])
    return {
        "certificate": str(harness.CHANNEL / "edge1.pem"),
        "key": str(harness.CHANNEL / "edge1-key.pem"),
        "ca": str(harness.CHANNEL / "ca.pem"),
        **changes,
    }


def served(proxy, name="p256.example", tls=None):
    answer = clients.get(proxy.port, name, tls)
    assert answer.startswith(b"HTTP/1.1 200"), answer[:200]


def refused(proxy, name="p256.example", tls=None):
    """The client's handshake ends with an alert of the proxy's; returns the seconds that took."""
    began = time.monotonic()
    with pytest.raises(ssl.SSLError) as caught:
        clients.get(proxy.port, name, tls)
    assert "ALERT_INTERNAL_ERROR" in str(caught.value), f"no alert, but {caught.value}"
    return time.monotonic() - began


def at_once(proxy, count, name="p256.example"):
    """So many clients at the same time, all served."""
    tls = clients.context()
    with concurrent.futures.ThreadPoolExecutor(count) as pool:
        list(pool.map(lambda _: served(proxy, name, tls), range(count)))


def request_series(outcome):
    """Under the key server that got the request, or had it last; of these outcomes none did, unless it was lost."""
    server = "none" if outcome in ("no_server", "refused", "too_many_pending") else "keys-a"
    return f'keyless_key_requests_total{{server="{server}",outcome="{outcome}"}}'


class Watched:
    """A proxy whose counters and descriptors are known from before the fault."""

    def __init__(self, proxy, tls=None, tried=True):
        """tls: what clients must be that are served in good days; tried: its key server answers test requests."""
        self.proxy, self.tls = proxy, tls
        self.told = []  # reasons of the failures that the test knows of, as they are counted
        (self.worker,) = proxy.children("worker")
        self.wait_up()
        if tried:
            proxy.wait_tried()
        served(proxy, tls=tls)  # what is made at the first use is there
        self.wait_quiet()
        self.descriptors = self.worker.descriptors()
        self.mark = proxy.mark()
        self.before = proxy.metrics()

    def wait_up(self):
        wait_until(lambda: self.proxy.metric("keyless_key_channels_up") == 1, "the channel to be up")

    def wait_quiet(self):
        for name in ("keyless_key_requests_pending", "keyless_key_server_requests_in_flight",
                     "keyless_connections_open"):
            wait_until(lambda n=name: self.proxy.metric(n) == 0, f"{name} to be 0")

    def gained(self, series):
        """How much the metric has risen; of one with further labels, the sum."""
        name, _, labels = series.partition("{")
        wanted = (name, *re.findall(r'\w+="[^"]*"', labels))
        now = self.proxy.metrics()
        # A key server has its series from its first count on.
        assert now.matching(*(part for part in wanted if not part.startswith("server="))), f"no such metric: {series}"
        return now.sum(*wanted) - self.before.sum(*wanted)

    def assert_counted(self, series, count=None):
        """The counter has risen, by this much if it is told; a counter of the past may come a moment late."""
        what = f"{series} to have risen by {'something' if count is None else count}"
        wait_until(lambda: self.gained(series) > 0 if count is None else self.gained(series) == count, what)

    def assert_failed(self, reason, count=1, stage="key"):
        """So many more handshakes have failed for want of a signature than were told of before: each has a line that
        names this cause (or one of these), a count of its outcome and one of its reason."""
        reasons = [reason] if isinstance(reason, str) else reason

        def lines():
            failed = self.proxy.find("handshake failed", after=self.mark)
            return [line for line in failed if failure_label(line["reason"]) in KEY_FAILURES][len(self.told) :]

        wait_until(lambda: len(lines()) >= count, f"{count} lines with one of {reasons}:\n{self.proxy.tail()}")
        found = lines()
        assert len(found) == count, found
        for line in found:
            assert line["reason"] in reasons and line["stage"] == stage, line
            assert line["client"].startswith("127.0.0.1:") and line["sni"].endswith(".example"), line
        self.told += [failure_label(line["reason"]) for line in found]
        self.assert_only_told()

    def failures(self):
        """{reason: count} of handshakes that failed for want of a signature."""
        gained = failures(self.proxy.metrics()) - failures(self.before)
        return {reason: gained[reason] for reason in KEY_FAILURES if gained[reason]}

    def assert_only_told(self):
        """Those failures are counted that the test knows of, and no others."""
        wanted = collections.Counter(self.told)
        wait_until(lambda: self.failures() == wanted, f"failures {wanted}, not {self.failures()}")
        assert self.gained('keyless_handshakes_total{outcome="key"}') == len(self.told)

    def assert_logged(self, event, **fields):
        return self.proxy.wait_for(event, after=self.mark, **fields)

    def assert_whole(self):
        """The fault is over: the next client is served, and everything is as it was."""
        self.wait_up()
        served(self.proxy, tls=self.tls)
        self.wait_quiet()
        self.assert_only_told()
        wait_until(lambda: self.worker.descriptors() <= self.descriptors, f"{self.descriptors} descriptors again")
        assert self.proxy.children("worker")[0].pid == self.worker.pid, "the worker was replaced"
