"""Counters of the programs as tests look at them: what they gain, and under which reason a failure is counted."""

import collections
import re

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
    ("client_refused_certificate",
     "client sent alert: (bad certificate|unsupported certificate|certificate (revoked|expired|unknown)|unknown CA)"),
    ("client_alert", "client sent (alert: .*|an alert)"),
    ("no_key_server", "no key server"),
    ("key_timeout", "key server timeout"),
    ("key_error",
     "cryptography failed|key not found|read failed|version mismatch|bad opcode|unexpected opcode|format error|"
     "internal error|sealing key expired|remote configuration error|refused by policy|content not acceptable|"
     "over its rate|replay|overloaded|unknown error|no error"),
    ("key_invalid", "unexpected answer|signature of a wrong size"),
    ("key_wrong", "wrong signature from key server"),
    ("key_refused", "operation not offered by key server|no bare operation has this signature scheme|"
                    "too many signatures pending|not a content that a TLS server signs"),
    ("timeout", "timeout"),
    ("dropped", "the worker ends"),
]

KEY_FAILURES = ("no_key_server", "key_timeout", "key_error", "key_invalid", "key_wrong", "key_refused")


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
