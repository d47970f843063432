"""The audit log: a record of each operation, made by the signer and written by a process of its own, before the answer
leaves; none is missing when that process dies, and nothing is done that cannot be recorded."""

import concurrent.futures
import contextlib
import hashlib
import json
import os
import signal
import stat

import pytest

import kssl_codec as kssl
from counters import Gains
from harness import SANITIZED, wait_until
from kssl_codec import Error, Op, Tag
from kssl_peer import Closed, Peer, site_key
from test_ticket_keys import entry, raw_secret
from test_transcript import record as handshake
from test_transcript import sign as sign_handshake

EVERYTHING = ["tls13", "tls12", "transcript", "list", "digest", "decrypt", "ticket-keys"]
MARKED = bytes(24) + kssl.DOWNGRADE_12
X25519 = kssl.ecdh_params(0x001D, bytes(range(32)))


def start(stack, tmp_path, clients=None, wrapper=(), on_error="stop", **changes):
    clients = clients or [entry("edge1", allow=EVERYTHING), entry("edge2", allow=EVERYTHING)]
    return stack.key_server(
        clients=clients, audit={"file": str(tmp_path / "audit.log"), "on_error": on_error}, wrapper=wrapper,
        ticket_keys={"secret": str(raw_secret(tmp_path)), "rotate": "24h"}, **changes
    )


def records(tmp_path, name="audit.log"):
    """All whole lines."""
    text = (tmp_path / name).read_text() if (tmp_path / name).exists() else ""
    return [json.loads(line) for line in text.rpartition("\n")[0].splitlines() if line]


def wait_records(tmp_path, count):
    return wait_until(lambda: len(found := records(tmp_path)) >= count and found, f"{count} records")


def test_what_is_recorded(stack, tmp_path):
    """Who, key, name and whether it is only claimed, client address, operation, a digest of what was signed, outcome."""
    server = start(stack, tmp_path)
    gains = Gains(server)
    p256, rsa, ed25519 = site_key("p256"), site_key("rsa2048"), site_key("ed25519")
    with Peer(server.port) as peer:
        peer.hello()
        assert peer.sign_tls13(p256, 0x0403, bytes(32), items=[
            (Tag.SNI, b"p256.example"), (Tag.CLIENT_IP, bytes([192, 0, 2, 1])), (Tag.TRACE, b"request-1")
        ]).opcode == Op.SUCCESS
        assert peer.sign_tls12(rsa, 0x0804, bytes(32), MARKED, X25519, items=[
            (Tag.CLIENT_IP, bytes.fromhex("20010db8000000000000000000000001"))]).opcode == Op.SUCCESS
        messages = handshake("p256", "p256.example")
        assert sign_handshake(peer, "p256", messages).opcode == Op.SUCCESS
        assert peer.with_key(Op.ECDSA_SHA256, p256, b"d" * 32).opcode == Op.SUCCESS
        assert peer.with_key(Op.ED25519, ed25519, b"message").opcode == Op.SUCCESS
        assert peer.with_key(Op.RSA_DECRYPT, rsa, bytes(255) + b"\2").opcode == Op.SUCCESS
        assert peer.request(Op.TICKET_KEYS).opcode == Op.SUCCESS
        assert peer.with_key(Op.RSA_DECRYPT, rsa, b"\xff" * 256).error == Error.CRYPTO
        # Nothing of these is an operation with a secret: what front ends refuse is in the log.
        assert peer.with_key(Op.ECDSA_SHA256, b"\1" * 20, b"d" * 32).error == Error.KEY_NOT_FOUND
        peer.listing()
    found = wait_records(tmp_path, 8)
    assert [line["operation"] for line in found] == [
        "sign-tls13", "sign-tls12", "sign-transcript", "ecdsa-sha256", "ed25519", "rsa-decrypt", "ticket-keys", "rsa-decrypt"]
    assert {line["client"] for line in found} == {"DNS:edge1.example"}
    assert [line["outcome"] for line in found] == 7 * ["done"] + ["failed"]
    assert found[7]["error"] == "cryptography failed"
    tls13, tls12, transcript, digest, message, decrypted, keys = found[:7]
    assert tls13["sni"] == "p256.example" and tls13["claimed"] is True and tls13["client_address"] == "192.0.2.1"
    assert tls13["request"] == "request-1" and tls13["key"] == kssl.ski(p256).hex()
    assert tls13["signed"] == hashlib.sha256(kssl.certificate_verify(bytes(32))).hexdigest()
    assert "sni" not in tls12 and tls12["client_address"] == "2001:db8::1"
    assert tls12["signed"] == hashlib.sha256(bytes(32) + MARKED + X25519).hexdigest()
    assert transcript["sni"] == "p256.example" and transcript["claimed"] is False
    assert digest["signed"] == (b"d" * 32).hex() and message["signed"] == hashlib.sha256(b"message").hexdigest()
    assert decrypted["signed"] == hashlib.sha256(bytes(255) + b"\2").hexdigest()
    assert "key" not in keys and "signed" not in keys
    numbers = [line["number"] for line in found]
    assert numbers == sorted(set(numbers))
    gains.assert_gained("keyless_keyserver_audit_records_total", 8)
    assert server.metric("keyless_keyserver_audit_records_pending") == 0


def test_text_from_outside_is_harmless(stack, tmp_path):
    server = start(stack, tmp_path)
    with Peer(server.port) as peer:
        assert peer.sign_tls13(site_key("p256"), 0x0403, bytes(32), items=[(Tag.SNI, b'a"b\n\x1b[2J')]).opcode == Op.SUCCESS
    (line,) = wait_records(tmp_path, 1)
    assert "\n" not in line["sni"] and "\x1b" not in line["sni"]
    assert (tmp_path / "audit.log").read_bytes().count(b"\n") == 1


def test_replays_are_marked(stack, tmp_path):
    clients = [entry("edge1"), entry("edge2", replay="refuse"), entry("stranger")]
    server = start(stack, tmp_path, clients)
    for name in ("edge1", "edge2", "stranger"):
        with Peer(server.port, name) as peer:
            peer.sign_tls13(site_key("p256"), 0x0403, bytes(32))
    found = wait_records(tmp_path, 3)
    assert [(line["client"][4:-8], line["outcome"], line.get("replay")) for line in found] == [
        ("edge1", "done", None), ("edge2", "replayed", True), ("stranger", "done", True)]
    assert len({line["signed"] for line in found}) == 1


def ask(port, number, count):
    """This many signatures, each request with a name of its own, over as many connections as it takes; the names of those
    that were answered."""
    answered, left = [], [f"{number}-{i}" for i in range(count)]
    while left:
        with contextlib.suppress(Closed, OSError), Peer(port) as peer:
            peer.hello()
            while left:
                name = left.pop()
                items = [(Tag.TRACE, name.encode())]
                answer = peer.sign_tls13(site_key("p256"), 0x0403, os.urandom(32), items=items)
                if answer.opcode == Op.SUCCESS:
                    answered.append(name)
    return answered


@pytest.mark.parametrize("kind", ["auditor", "signer", "reload"])
def test_none_is_missing(stack, tmp_path, kind):
    """When one of the two processes dies under load, or a reload replaces both: every answer has its record. One may stand
    there twice, under the same number."""
    server = start(stack, tmp_path)
    with concurrent.futures.ThreadPoolExecutor() as pool:
        running = [pool.submit(ask, server.port, number, 300) for number in range(3)]
        for round_number in range(1, 4):
            wait_records(tmp_path, 150 * round_number)
            if kind == "reload":  # keys and certificates only: connections go on
                server.reload()
            else:
                (child,) = wait_until(lambda: server.children(kind), f"a {kind}")
                child.signal(signal.SIGKILL)
                wait_until(lambda: child.pid not in {c.pid for c in server.children(kind)}, f"the {kind} to be replaced")
        answered = [name for future in running for name in future.result()]
    assert len(answered) > 800  # a reload closes connections
    assert kind == "reload" or len(answered) == 900
    wait_until(lambda: set(answered) <= {line["request"] for line in records(tmp_path)}, "all records")
    by_number = {}
    for line in records(tmp_path):
        assert by_number.setdefault(line["number"], line) == line


def test_a_file_that_was_renamed(stack, tmp_path):
    """As logrotate does it: the old file until SIGHUP, then a new one. Nobody else may read it."""
    server = start(stack, tmp_path)
    ask(server.port, 1, 1)
    wait_records(tmp_path, 1)
    (tmp_path / "audit.log").rename(tmp_path / "audit.log.1")
    ask(server.port, 2, 1)
    wait_until(lambda: len(records(tmp_path, "audit.log.1")) == 2, "the old file to go on")
    server.reload()
    ask(server.port, 3, 1)
    assert wait_records(tmp_path, 1)[0]["request"] == "3-0"
    assert stat.S_IMODE((tmp_path / "audit.log").stat().st_mode) & 0o027 == 0


# Files may have 1024 times 512 octets: the log's, too.
FULL = ("sh", "-c", 'ulimit -f 1024; trap "" XFSZ; exec "$@"', "sh")


def fill(tmp_path):
    (tmp_path / "audit.log").write_bytes(b"\n" * 1024 * 512)


def flood(server, wanted):
    """Asks for ticket keys, which cost nothing, until this error (None: until none) was answered; how many were asked."""
    asked = 0
    with Peer(server.port) as peer:
        while asked < 40000:
            for _ in range(500):
                peer.send(kssl.message(1, Op.TICKET_KEYS))
            answers = [peer.receive() for _ in range(500)]
            asked += 500
            if wanted in {answer.error if answer.opcode == Op.ERROR else None for answer in answers}:
                break
    return asked


@pytest.mark.skipif(SANITIZED, reason="tens of thousands of requests: in the release build")
def test_nothing_is_done_unrecorded(stack, tmp_path):
    """A full disk: what waits is bounded, then operations are not tried, told and counted. They go on when there is room, and
    what waited is written."""
    fill(tmp_path)
    server = start(stack, tmp_path, wrapper=FULL, log={"rate": 5})
    gains = Gains(server)
    asked = flood(server, Error.OVERLOADED)
    assert 32768 <= asked < 40000
    assert server.find("audit log not written", reason="File too large")
    assert server.find("operations stopped")
    assert gains.gained("keyless_keyserver_audit_stopped_total") > 0
    assert server.metric("keyless_keyserver_audit_records_pending") == 32768
    log = tmp_path / "audit.log"

    def has_room():
        os.truncate(log, 0)
        return server.metric("keyless_keyserver_audit_records_pending") == 0

    wait_until(has_room, "records to be written")
    gains.assert_gained("keyless_keyserver_audit_records_total", 32768)
    os.truncate(log, 0)
    assert flood(server, None) == 500
    wait_records(tmp_path, 500)


@pytest.mark.skipif(SANITIZED, reason="tens of thousands of requests: in the release build")
def test_work_goes_on_where_the_operator_wants_it(stack, tmp_path):
    fill(tmp_path)
    server = start(stack, tmp_path, wrapper=FULL, on_error="continue", log={"rate": 5}, drain_timeout="100ms")
    assert flood(server, Error.OVERLOADED) == 40000
    assert server.metric("keyless_keyserver_audit_records_lost_total") == 40000 - 32768
    assert server.find("audit records lost")
    server.stop()  # when the time to drain is over: until then the disk could have room again


def test_half_a_line(stack, tmp_path):
    """What somebody before us could not write whole spoils no record of ours."""
    (tmp_path / "audit.log").write_bytes(b'{"time":"2026')
    server = start(stack, tmp_path)
    ask(server.port, 1, 1)
    wait_until(lambda: (tmp_path / "audit.log").read_bytes().count(b"\n") == 2, "the record")
    half, record = (tmp_path / "audit.log").read_text().splitlines()
    assert half == '{"time":"2026' and json.loads(record)["request"] == "1-0"


def test_a_file_that_cannot_be_written(stack, tmp_path):
    """-t says so; a reload leaves the old state, which goes on recording."""
    server = start(stack, tmp_path)
    for path, reason in [(tmp_path, "not a regular file"), (tmp_path / "no" / "audit.log", "No such file or directory")]:
        server.config["audit"]["file"] = str(path)
        checked = server.check()
        assert checked.returncode == 2 and f"audit.file: {path}" in checked.stderr and reason in checked.stderr
        line = server.reload("reload failed")
        assert f"audit.file: {path}" in line["reason"]
    ask(server.port, 1, 1)
    assert wait_records(tmp_path, 1)


def test_the_auditor_has_no_key(stack, tmp_path):
    """It is a process of its own, confined, without a key's octets or a socket of the network."""
    server = start(stack, tmp_path)
    (auditor,) = server.children("auditor")
    assert not auditor.listens()
    assert server.find("confined", process="auditor/0")
