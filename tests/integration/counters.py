"""Counters of the programs as tests look at them: what they gain, and under which reason a failure is counted."""

import collections
import contextlib
import functools
import re

import kssl_peer
from harness import wait_until

# The reasons in the log that are counted under a name of their own.
_FAILURES = [
    ("client_closed", "client closed"),
    ("client_reset", "connection reset by client"),
    ("not_tls", "not TLS.*|bad record type"),
    ("protocol_version", "unsupported protocol version|fallback to an older version.*|hello in SSLv2 format"),
    ("no_shared_cipher", "no shared cipher|client offered no cipher"),
    ("no_shared_group", "no shared group|client offered no group"),
    ("no_shared_signature_algorithm", "no shared signature algorithm|client offered no signature algorithm"),
    ("no_shared_application_protocol", "no shared application protocol"),
    ("unknown_name", "no certificate for this name|no name asked for"),
    ("client_refused_certificate",
     "client sent alert: (bad certificate|unsupported certificate|certificate (revoked|expired|unknown)|unknown CA)"),
    ("client_alert", "client sent (alert: .*|an alert)"),
    ("no_client_certificate", "no client certificate"),
    ("client_certificate", "client certificate.*|name of the client certificate is not allowed|"
                           "revocation list .*|no revocation list .*|client has not the key of its certificate"),
    ("no_key_server", "no key server"),
    ("key_timeout", "key server timeout"),
    ("key_error",
     "cryptography failed|key not found|read failed|version mismatch|bad opcode|unexpected opcode|format error|"
     "internal error|sealing key expired|remote configuration error|refused by policy|content not acceptable|"
     "over its rate|replay|overloaded|unknown error|no error"),
    ("key_invalid", "unexpected answer|signature of a wrong size"),
    ("key_wrong", "wrong signature from key server"),
    ("key_refused", "operation not offered by key server|no bare operation has this signature scheme|"
                    "not a content that a TLS server signs|"
                    "no whole transcript of the handshake"),
    ("too_many_pending", "limits.handshakes wait for a signature"),
    ("key_transcript", "the transcript is not what libssl signs"),
    ("timeout", "timeout"),
    ("dropped", "the worker ends"),
]

KEY_FAILURES = ("no_key_server", "key_timeout", "key_error", "key_invalid", "key_wrong", "key_refused",
                "too_many_pending", "key_transcript")


@functools.cache
def failure_label(reason):
    """What a handshake is counted under that failed for this reason. Whatever else libssl says of a client is that its
    messages are not as they must be."""
    return next((label for label, texts in _FAILURES if re.fullmatch(texts, reason)), "malformed")


def failures(metrics):
    """{reason: count} of all handshakes that have failed."""
    counts = collections.Counter()
    for series, count in metrics.matching("keyless_handshake_failures_total").items():
        counts[re.search(r'reason="(\w+)"', series).group(1)] += int(count)
    return counts


class Gains:
    """What a program's counters gain from now on."""

    def __init__(self, program):
        self.program = program
        self.before = program.metrics()

    def gained(self, name, **labels):
        wanted = [f'{label}="{value}"' for label, value in labels.items()]
        return self.program.metrics().sum(name, *wanted) - self.before.sum(name, *wanted)

    def assert_gained(self, name, count=1, **labels):
        """The counter has risen by this much; one of what is past may come a moment late."""
        wait_until(lambda: self.gained(name, **labels) >= count, f"{name} {labels} to rise by {count}")
        assert self.gained(name, **labels) == count, f"{name} {labels}"

    def failures(self):
        """{reason: count} of the handshakes that have failed, those with a count only."""
        return +(failures(self.program.metrics()) - failures(self.before))

    def assert_failures(self, **expected):
        """So many handshakes have failed for each reason, and no others."""
        wait_until(lambda: self.failures().total() >= sum(expected.values()),
                   f"handshakes to fail for {expected}, not {self.failures()}")
        assert self.failures() == expected


# ---- The key server's refusals.

_REFUSALS = (0x01, 0x02, 0x04, 0x05, 0x06, 0x07, 0x08, 0x40, 0x41, 0x42, 0x44)


def refusals_counted(metrics):
    """{error: count}"""
    return {error: metrics.sum("keyless_keyserver_refusals_total", f'error="0x{error:02X}"') for error in _REFUSALS}


@contextlib.contextmanager
def refusals_checked(server):
    """Every error that was answered meanwhile has a count and a line of its own. The log must not be limited."""
    told, before, mark = kssl_peer.refusals.copy(), server.metrics(), server.mark()
    yield
    gained = server.metrics()
    answered = {error: count - told[where, error] for (where, error), count in kssl_peer.refusals.items()
                if where == server.port and count > told[where, error]}
    rise = {error: refusals_counted(gained)[error] - refusals_counted(before)[error] for error in _REFUSALS}
    assert {error: count for error, count in rise.items() if count} == answered
    assert gained.sum("keyless_keyserver_refusals_total") - before.sum("keyless_keyserver_refusals_total") == sum(
        answered.values())
    assert collections.Counter(int(line["error"]) for line in server.find("request refused", after=mark)) == answered
