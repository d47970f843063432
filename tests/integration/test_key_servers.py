"""Key servers that are slow, wrong or hostile: the client gets an alert within the deadline, or is served where an
answer can still be had; the log names the cause, a metric counts it, nothing leaks, and once the fault is lifted the
next client is served."""

import re
import ssl
import struct
import time

import pytest

import clients
import fake_key_server as fake
import key_server_faults as faults
import kssl_codec as kssl
from counters import Gains
from harness import wait_until
from kssl_codec import Op
from watched import LONG, SLACK, TIMEOUT, Watched, at_once, key_channel, refused, request_series, served

ALL_LINES = {"level": "debug", "rate": 0}


@pytest.fixture
def world(stack):
    """An honest fake, a proxy that uses it, and what it looks like in good days."""
    server = stack.fake_key_server()
    watched = Watched(stack.proxy(server, key_channel=key_channel(), log=ALL_LINES))
    yield server, watched
    assert not server.errors, server.errors


@pytest.fixture
def patient(stack):
    """The same with a long deadline, where it is not to be waited for."""
    server = stack.fake_key_server()
    watched = Watched(stack.proxy(server, key_channel=key_channel(timeout=f"{LONG:.0f}s"), log=ALL_LINES))
    yield server, watched
    assert not server.errors, server.errors


# ---- Answers that are no signature: the client is refused at once, the channel stays.


def flip(signature):
    changed = bytearray(signature)
    changed[len(changed) // 2] ^= 0x10
    return bytes(changed)


REFUSED_AT_ONCE = {
    # behaviour, the cause in the log, the counter
    "another key": (faults.OtherKey, "wrong signature from key server", request_series("wrong")),
    "other content": (faults.OtherContent, "wrong signature from key server", request_series("wrong")),
    "corrupted": (lambda: faults.Corrupted(flip), "wrong signature from key server", request_series("wrong")),
    "not DER": (lambda: faults.Corrupted(lambda s: bytes(64)), "wrong signature from key server",
                request_series("wrong")),
    "empty": (lambda: faults.Answers(Op.SUCCESS, b""), "signature of a wrong size", request_series("invalid")),
    "no payload item": (lambda: faults.Answers(Op.SUCCESS, None), "signature of a wrong size",
                        request_series("invalid")),
    "a byte too long": (lambda: faults.Answers(Op.SUCCESS, bytes(73)), "signature of a wrong size",
                        request_series("invalid")),
    "oversized": (lambda: faults.Answers(Op.SUCCESS, bytes(60000)), "signature of a wrong size",
                  request_series("invalid")),
    "pong": (lambda: faults.Answers(Op.PONG, b"\x30\x06\x02\x01\x01\x02\x01\x01"), "unexpected answer",
             request_series("invalid")),
    "a request": (lambda: faults.Answers(Op.SIGN_TLS13, b"x"), "unexpected answer", request_series("invalid")),
    "error without a payload": (lambda: faults.Answers(Op.ERROR, None), "unexpected answer", request_series("invalid")),
    "error of two octets": (lambda: faults.Answers(Op.ERROR, b"\2\2"), "unexpected answer", request_series("invalid")),
}


@pytest.mark.parametrize("fault", REFUSED_AT_ONCE)
def test_answer_that_is_no_signature(patient, fault):
    server, watched = patient
    behaviour, reason, counter = REFUSED_AT_ONCE[fault]
    server.behaviour = behaviour()
    assert refused(watched.proxy) < LONG, "the deadline was waited for"
    watched.assert_failed(reason)
    watched.assert_counted(counter, 1)
    assert watched.gained("keyless_key_channels_lost_total") == 0
    server.behaviour = fake.Honest()
    watched.assert_whole()


def test_a_key_server_that_begins_to_lie(patient):
    """ECDSA: after the first 256 of a key only one in 16 is looked at; the first that is found wrong is the end of all
    trust: from then on, every one is found."""
    server, watched = patient
    wrong = lambda: watched.gained(request_series("wrong"))
    tls = clients.context()
    for _ in range(260):
        served(watched.proxy, tls=tls)
    server.behaviour = faults.OtherKey()
    lies = 0
    while wrong() == 0:
        with pytest.raises(ssl.SSLError) as caught:  # the proxy's alert, or the client sees the lie itself
            clients.get(watched.proxy.port, tls=tls)
        assert "ALERT_INTERNAL_ERROR" in str(caught.value) or "bad signature" in str(caught.value)
        lies += 1
        assert lies < 600, "no sample in 600 signatures"
    for _ in range(20):
        refused(watched.proxy, tls=tls)
    assert wrong() == 21
    watched.assert_failed("wrong signature from key server", 21)
    # Those who saw it themselves said so.
    watched.assert_counted('keyless_handshake_failures_total{reason="client_alert"}', lies - 1)
    server.behaviour = fake.Honest()
    watched.assert_whole()


def test_verified_again_after_a_reload(patient):
    """What was trusted before is looked at anew."""
    server, watched = patient
    tls = clients.context()
    for _ in range(260):
        served(watched.proxy, tls=tls)
    watched.proxy.reload()
    server.behaviour = faults.OtherKey()
    for _ in range(20):
        refused(watched.proxy, tls=tls)
    assert watched.gained(request_series("wrong")) == 20
    server.behaviour = fake.Honest()
    wait_until(lambda: clients.works(watched.proxy.port), "it to be used again")


def test_every_signature_verified(stack):
    server = stack.fake_key_server()
    watched = Watched(stack.proxy(server, key_channel=key_channel(verify="all", timeout=f"{LONG:.0f}s")))
    tls = clients.context()
    for _ in range(260):
        served(watched.proxy, tls=tls)
    server.behaviour = faults.OtherKey()
    for _ in range(20):
        refused(watched.proxy, tls=tls)
    watched.assert_failed("wrong signature from key server", 20)
    watched.assert_counted(request_series("wrong"), 20)
    server.behaviour = fake.Honest()
    watched.assert_whole()
    assert not server.errors


@pytest.mark.parametrize("name", ["rsa2048.example", "p384.example", "ed25519.example", "ed448.example"])
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["1.2", "1.3"])
@pytest.mark.parametrize("fault", [faults.OtherKey, faults.OtherContent], ids=["another key", "other content"])
def test_wrong_signature_of_each_key_type(patient, name, version, fault):
    server, watched = patient
    tls = clients.context(minimum_version=version, maximum_version=version)
    served(watched.proxy, name, tls)
    server.behaviour = fault()
    assert refused(watched.proxy, name, tls) < LONG
    watched.assert_failed("wrong signature from key server")
    watched.assert_counted(request_series("wrong"), 1)
    watched.assert_logged("wrong signature from key server", server="keys-a")
    server.behaviour = fake.Honest()
    served(watched.proxy, name, tls)
    watched.assert_whole()


NAMED_ERRORS = {
    0x00: "no error", 0x01: "cryptography failed", 0x02: "key not found", 0x03: "read failed",
    0x04: "version mismatch", 0x05: "bad opcode", 0x06: "unexpected opcode", 0x07: "format error",
    0x08: "internal error", 0x0A: "sealing key expired", 0x0B: "remote configuration error",
    0x40: "refused by policy", 0x41: "content not acceptable", 0x42: "over its rate", 0x43: "replay",
    0x44: "overloaded",
}


def test_every_error(patient):
    """All 256 of them, also those that nobody has given a meaning."""
    server, watched = patient
    asked = server.signatures_asked()
    for error in range(256):
        server.behaviour = faults.Answers(Op.ERROR, bytes([error]))
        assert refused(watched.proxy) < LONG
        watched.assert_failed(NAMED_ERRORS.get(error, "unknown error"))
    watched.assert_counted(request_series("error"), 256)
    for error in (0x01, 0x02, 0x05, 0x07, 0x08, 0x40, 0x41, 0x42, 0x43, 0x44):
        watched.assert_counted(f'keyless_key_errors_total{{server="keys-a",error="0x{error:02X}",reason="{NAMED_ERRORS[error]}"}}', 1)
    watched.assert_counted('keyless_key_errors_total{server="keys-a",error="other"}', 246)
    assert server.signatures_asked() == asked + 256, "something was asked again"
    assert watched.gained("keyless_key_channels_lost_total") == 0
    server.behaviour = fake.Honest()
    watched.assert_whole()


# ---- No answer, or one that nobody can tell to be the answer: the client is refused at the deadline.

LOST = 'keyless_key_channels_lost_total{server="keys-a"}'
LATE = 'keyless_key_answers_late_total{server="keys-a"}'
UNKNOWN = 'keyless_key_answers_unknown_total{server="keys-a"}'
SILENT = ("key server lost", "silent: a ping was not answered in time")
NOT_ASKED = ("stray answer", "the key server answers a request that nobody made")
BEFORE = ("stray answer", "the key server has answered this request before")


def other_id(change):
    return lambda: faults.OtherId(change)


# The proxy has asked before, in the same slot: what is asked now has the next generation.
AT_THE_DEADLINE = {
    # behaviour, the counter that rises by one, the line beside the handshake's
    "never signs": (faults.NeverSigns, None, None),
    "dead": (faults.Dead, LOST, SILENT),
    "half a frame": (faults.HalfAFrame, LOST, SILENT),
    "wrong id": (other_id(lambda i: i + 2), UNKNOWN, NOT_ASKED),
    "another generation": (other_id(lambda i: i + 0x100), UNKNOWN, NOT_ASKED),
    "the generation before": (other_id(lambda i: i - 1), UNKNOWN, BEFORE),
    "unknown id": (other_id(lambda i: 0x7FFF1234), UNKNOWN, NOT_ASKED),
    "an id of the link's own": (other_id(lambda i: 0xFFFFF000 | i), UNKNOWN, NOT_ASKED),
    "the hello's id": (other_id(lambda i: 0xFFFF0001), UNKNOWN, BEFORE),
    "late": (lambda: faults.Late(2 * TIMEOUT), LATE, None),
}


@pytest.mark.parametrize("fault", AT_THE_DEADLINE)
def test_no_answer_in_time(world, fault):
    server, watched = world
    behaviour, counter, line = AT_THE_DEADLINE[fault]
    server.behaviour = behaviour()
    took = refused(watched.proxy)
    assert TIMEOUT * 0.9 < took < TIMEOUT + SLACK
    watched.assert_failed("key server timeout")
    watched.assert_counted(request_series("timeout"), 1)
    if counter:
        watched.assert_counted(counter, 1)
    if line:
        event, reason = line
        assert watched.assert_logged(event, server="keys-a")["reason"] == reason
    if counter != UNKNOWN:
        assert watched.gained(UNKNOWN) == 0 and not watched.proxy.find("stray answer")
    server.behaviour = fake.Honest()
    watched.assert_whole()


def test_a_dead_link_is_noticed_and_replaced(world):
    """The link is silent although it was pinged: it is given up, and its log line says so."""
    server, watched = world
    server.behaviour = faults.Dead()
    refused(watched.proxy)
    watched.assert_failed("key server timeout")
    lost = watched.assert_logged("key server lost", server="keys-a")
    assert "silent" in lost["reason"]
    watched.assert_counted(LOST, 1)
    server.behaviour = fake.Honest()
    watched.assert_whole()


# ---- Frames that make the channel useless: it is given up, the requests go out on the next one until the deadline.

UNPARSABLE = {
    "garbage": (lambda request: b"HTTP/1.1 500 Oops\r\n\r\n", "another version"),
    "major version 2": (lambda request: kssl.message(request.id, Op.SUCCESS, bytes(71), major=2), "another version"),
    "an item that is cut short": (lambda request: kssl.frame(request.id, b"\x11\0\1\xf0\x12\0\x40short"),
                                  "does not parse"),
    "an item twice": (lambda request: kssl.message(request.id, Op.SUCCESS, b"x", [(kssl.Tag.PAYLOAD, b"y")]),
                      "does not parse"),
    "no opcode": (lambda request: kssl.frame(request.id, kssl.item(kssl.Tag.PAYLOAD, b"x")), "does not parse"),
    "an empty body": (lambda request: kssl.frame(request.id, b""), "does not parse"),
}


@pytest.mark.parametrize("fault", UNPARSABLE)
def test_unparsable_answer(world, fault):
    """It is asked again on a few more channels, and then no longer."""
    server, watched = world
    make, reason = UNPARSABLE[fault]
    server.behaviour = faults.RawAnswer(make)
    took = refused(watched.proxy)
    assert took < TIMEOUT + SLACK
    watched.assert_failed(("no key server", "key server timeout"))
    lost = watched.assert_logged("key server lost", server="keys-a")
    assert reason in lost["reason"]
    watched.assert_counted("keyless_key_channels_lost_total")
    watched.assert_counted("keyless_key_requests_resent_total")
    server.behaviour = fake.Honest()
    watched.assert_whole()


# ---- Key servers that never become one.

NEVER_READY = {
    # behaviour, what the line "key server not reached" says
    "accepts, never TLS": (faults.NeverTls, "handshake was not complete within 1 s"),
    "not TLS": (faults.NotTls, "TLS"),
    "garbage after the handshake": (faults.GarbageAtOnce, "another version"),
    "no answer to hello": (faults.NoHello, "hello was not answered in time"),
    "knows Part A only": (faults.HelloError, "does not know our operations"),
    "hello of version 2": (lambda: faults.HelloPayload(kssl.hello([0x61, 0x62], 0, version=2)), "hello does not parse"),
    "hello cut short": (lambda: faults.HelloPayload(b"\1\2\x61\x62\0\0"), "hello does not parse"),
    "empty hello": (lambda: faults.HelloPayload(b""), "hello does not parse"),
}


@pytest.mark.parametrize("fault", NEVER_READY)
def test_never_ready(world, fault):
    """After a restart, something else is there: clients are refused at the deadline."""
    server, watched = world
    behaviour, reason = NEVER_READY[fault]
    server.behaviour = behaviour()
    server.cut_all()
    watched.assert_logged("key server lost", server="keys-a")
    accepted = server.accepted
    took = refused(watched.proxy)
    assert TIMEOUT * 0.9 < took < TIMEOUT + SLACK
    watched.assert_failed("no key server")
    line = watched.assert_logged("key server not reached", server="keys-a")
    assert reason in line["reason"], line
    watched.assert_counted("keyless_key_connects_failed_total")
    watched.assert_counted(request_series("no_server"), 1)
    assert watched.proxy.metric("keyless_key_channels_up") == 0
    assert server.accepted - accepted < 20, "no pause between attempts"
    server.behaviour = fake.Honest()
    server.cut_all()
    watched.assert_whole()


WRONG_CERTIFICATES = {
    "bad-keyserver-other-ca": "self-signed certificate in certificate chain|unable to get local issuer|self signed",
    "bad-keyserver-expired": "expired",
    "bad-keyserver-client-eku": "purpose",
    "bad-keyserver-name": "mismatch|name",
}


@pytest.mark.parametrize("certificate", WRONG_CERTIFICATES)
def test_wrong_certificate(world, certificate):
    """Whoever answers at the address is not the key server: not one request goes to it."""
    server, watched = world
    server.show(certificate)
    server.cut_all()
    watched.assert_logged("key server lost", server="keys-a")
    asked = len(server.requests)
    assert TIMEOUT * 0.9 < refused(watched.proxy) < TIMEOUT + SLACK
    watched.assert_failed("no key server")
    line = watched.assert_logged("key server not reached", server="keys-a")
    assert re.search(WRONG_CERTIFICATES[certificate], line["reason"]), line
    watched.assert_counted("keyless_key_connects_failed_total")
    assert len(server.requests) == asked and watched.proxy.metric("keyless_key_channels_up") == 0
    server.show("keyserver")
    watched.assert_whole()


def test_start_without_a_key_server(stack):
    """The proxy starts all the same, refuses, and serves as soon as there is one."""
    server = stack.fake_key_server(faults.NeverTls())
    proxy = stack.proxy(server, key_channel=key_channel())
    gains = Gains(proxy)
    assert refused(proxy) < TIMEOUT + SLACK
    line = proxy.wait_for("handshake failed", stage="key", sni="p256.example")
    assert line["reason"] == "no key server"
    gains.assert_failures(no_key_server=1)
    gains.assert_gained("keyless_key_requests_total", server="none", outcome="no_server")
    assert proxy.metric("keyless_key_connects_failed_total", server="keys-a") > 0
    server.behaviour = fake.Honest()
    server.cut_all()
    Watched(proxy).assert_whole()


def test_the_mode_is_never_lowered(world):
    """A key server that knows only bare operations gets no digest unasked: not one request but hello."""
    server, watched = world
    server.behaviour = fake.PartA()
    server.cut_all()
    watched.assert_logged("key server lost", server="keys-a")
    asked = server.signatures_asked()
    refused(watched.proxy)
    refused(watched.proxy, tls=clients.context(maximum_version=ssl.TLSVersion.TLSv1_2))
    watched.assert_failed("no key server", 2)
    watched.assert_counted(request_series("no_server"), 2)
    assert server.count(Op.HELLO) > 1
    assert server.signatures_asked() == asked
    server.behaviour = fake.Honest()
    watched.assert_whole()


@pytest.mark.parametrize("offered, version", [
    (Op.SIGN_TRANSCRIPT, ssl.TLSVersion.TLSv1_2), (Op.SIGN_TLS12, ssl.TLSVersion.TLSv1_3),
], ids=["only 1.3", "only 1.2"])
def test_operation_that_is_not_offered(stack, offered, version):
    server = stack.fake_key_server(faults.Offers(offered))
    other = ssl.TLSVersion.TLSv1_3 if version == ssl.TLSVersion.TLSv1_2 else ssl.TLSVersion.TLSv1_2
    watched = Watched(stack.proxy(server, key_channel=key_channel(timeout=f"{LONG:.0f}s")),
                      clients.context(minimum_version=other, maximum_version=other),
                      tried=offered == Op.SIGN_TRANSCRIPT)
    asked = server.signatures_asked()
    assert refused(watched.proxy, tls=clients.context(minimum_version=version, maximum_version=version)) < LONG
    watched.assert_failed("operation not offered by key server")
    watched.assert_counted(request_series("refused"), 1)
    assert server.signatures_asked() == asked
    watched.assert_whole()


# ---- The same fault, again and again.

OFTEN = 500


def often(watched, fault, count):
    """fault: what a client gets, and the reason if that is an alert."""
    tls = clients.context()
    for _ in range(count):
        fault[0](watched.proxy, tls=tls)
    if fault[1] is not None:
        watched.assert_failed(fault[1], count)


AGAIN = {
    "wrong signature": (faults.OtherKey, (refused, "wrong signature from key server")),
    "error": (lambda: faults.Answers(Op.ERROR, b"\x08"), (refused, "internal error")),
    "closed after each reply": (lambda: faults.ClosesAfterReply(politely=True), (served, None)),
}


@pytest.mark.release
@pytest.mark.parametrize("fault", AGAIN)
def test_memory_of_a_fault_that_goes_on(stack, lean, fault):
    """One leaked fibre has 34 kB, one TLS connection more: hundreds of them would be seen."""
    behaviour, seen = AGAIN[fault]
    server = stack.fake_key_server()
    watched = Watched(stack.proxy(server, key_channel=key_channel(), log={"level": "debug", "rate": 0}))
    server.behaviour = behaviour()
    often(watched, seen, OFTEN // 5)  # what is made once is there
    resident = watched.worker.resident()
    often(watched, seen, OFTEN)
    watched.wait_quiet()
    grown = watched.worker.resident() - resident
    assert grown < OFTEN * 4_000, f"{grown} octets"
    server.behaviour = fake.Honest()
    watched.assert_whole()
    assert not server.errors, server.errors


# ---- Faults behind which an answer can still be had: the client is served.


def test_answered_twice(world):
    server, watched = world
    server.behaviour = faults.Twice()
    for _ in range(3):
        served(watched.proxy)
    watched.assert_counted(UNKNOWN, 3)
    assert watched.assert_logged("stray answer", server="keys-a")["reason"] == BEFORE[1]
    assert watched.gained(LATE) == 0
    server.behaviour = fake.Honest()
    watched.assert_whole()


@pytest.mark.parametrize("also", [None, b"\1\0\4\0half"], ids=["silently", "after half a frame"])
def test_closed_on_a_request(world, also):
    """A channel that ends under a request: the request goes out again on the next one."""
    server, watched = world
    server.behaviour = faults.ClosesOnRequest(2, also)
    served(watched.proxy)
    watched.assert_counted("keyless_key_requests_resent_total", 2)
    watched.assert_counted(LOST, 2)
    watched.assert_logged("key server lost", server="keys-a", unanswered="1")
    watched.assert_whole()


@pytest.mark.parametrize("politely", [False, True], ids=["silently", "close_notify"])
def test_closed_after_each_reply(world, politely):
    server, watched = world
    server.behaviour = faults.ClosesAfterReply(politely)
    for _ in range(12):
        served(watched.proxy)
    watched.assert_counted("keyless_key_channels_lost_total")
    server.behaviour = fake.Honest()
    watched.assert_whole()


def test_closed_after_hello(stack):
    """A key server that is up and down again all the time: no storm of connections."""
    server = stack.fake_key_server(faults.ClosesAfterHello())
    proxy = stack.proxy(server, start=False, key_channel=key_channel()).launch()
    wait_until(lambda: server.accepted > 4, "some attempts")
    proxy.wait_for("key server lost", server="keys-a")
    # One whose end overtakes the hello was never up.
    ends = ("keyless_key_channels_lost_total", "keyless_key_connects_failed_total")
    wait_until(lambda: sum(proxy.metric(name, server="keys-a") for name in ends) >= 4, "their ends to be counted")
    refused_or_not_yet = clients.client_hello("p256.example")
    assert refused_or_not_yet  # made before the clock runs
    began, first = time.monotonic(), server.accepted
    wait_until(lambda: server.accepted >= first + 2, "two more")
    assert time.monotonic() - began > 0.1, "no pause between attempts"
    server.behaviour = fake.Honest()
    proxy.wait_ready()
    Watched(proxy).assert_whole()


def test_answers_in_reverse(world):
    server, watched = world
    server.behaviour = faults.Reversed(8)
    at_once(watched.proxy, 8)
    watched.assert_counted(request_series("ok"), 8)
    watched.assert_whole()


ODD = {
    "padding, minor version, unknown tags": faults.OddButRight,
    "a byte at a time": lambda: faults.InPieces(1),
    "records of 7 octets": lambda: faults.InPieces(7),
    "frames split between records": faults.Glued,
    "hello with more behind it": lambda: faults.HelloPayload(
        kssl.hello([0x62, 0x63, 0x99], int(time.time()), trailing=b"more")),
}


@pytest.mark.parametrize("oddity", ODD)
def test_odd_but_right(stack, oddity):
    server = stack.fake_key_server(ODD[oddity]())
    watched = Watched(stack.proxy(server, key_channel=key_channel(timeout="5s")))
    for name in ("rsa2048.example", "p384.example", "ed25519.example"):
        served(watched.proxy, name)
    at_once(watched.proxy, 6)
    watched.assert_counted(request_series("ok"), 9)
    assert watched.gained("keyless_key_channels_lost_total") == 0
    watched.assert_whole()
    assert not server.errors


@pytest.mark.parametrize("ahead", [120, -120])
def test_clock_that_differs(stack, ahead):
    server = stack.fake_key_server(faults.ClockAhead(ahead))
    proxy = stack.proxy(server, key_channel=key_channel())
    line = proxy.wait_for("key server's clock differs", server="keys-a")
    assert abs(int(line["ahead_seconds"]) - ahead) <= 2
    assert line["level"] == "warn"
    assert proxy.metric("keyless_key_channels_clock_skewed") == 1
    served(proxy)
    server.behaviour = faults.ClosesOnRequest(1)  # an honest clock from the next channel on
    served(proxy)
    wait_until(lambda: proxy.metric("keyless_key_channels_clock_skewed") == 0, "the clock to be right again")


def test_what_a_request_carries(world):
    """Requests are whole, padded, and tell what the policy and the audit need."""
    server, watched = world
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        served(watched.proxy, tls=clients.context(minimum_version=version, maximum_version=version))
    requests = {request.opcode: request for _, request in server.requests}
    ski = kssl.ski(next(key.public_key() for s, key in fake.site_keys().items()
                        if s == requests[Op.SIGN_TRANSCRIPT].get(kssl.Tag.SKI)))
    for opcode in (Op.SIGN_TRANSCRIPT, Op.SIGN_TLS12):
        request = requests[opcode]
        assert (request.major, request.minor) == (1, 0)
        assert request.size >= kssl.PAD_TO
        assert request.get(kssl.Tag.SKI) == ski
        assert request.get(kssl.Tag.SNI) == b"p256.example"
        assert request.get(kssl.Tag.CLIENT_IP) == bytes([127, 0, 0, 1])
        trace = request.get(kssl.Tag.TRACE)
        assert 0 < len(trace) <= 32 and trace.isascii()
        (scheme,) = struct.unpack_from("!H", request.payload)
        assert scheme == 0x0403
    assert requests[Op.SIGN_TRANSCRIPT].payload[2] == 1, "not a ClientHello"
    assert requests[Op.SIGN_TLS12].size == kssl.PAD_TO
    assert requests[Op.SIGN_TLS12].payload[58:66] == kssl.DOWNGRADE_12


def test_one_name_for_a_request_in_both_logs(stack):
    """The line of a handshake whose signature was refused leads to the key server's."""
    nobody = [{"match": "DNS:edge1.example", "keys": ["nothing"], "allow": ["tls13", "tls12"]}]
    server, proxy = stack.pair({"clients": nobody})
    refused(proxy)
    line = proxy.wait_for("handshake failed", stage="key", reason="key not found")
    server.wait_for("request refused", request=line["request"])
