"""The boundary between front ends and the signer: who has keys, who has sockets, and a front end that was taken
over."""

import contextlib
import ctypes
import hashlib
import json
import os
import pathlib
import re
import signal
import socket
import struct
import time

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

import harness
import kssl_codec as kssl
import kssl_peer
from harness import SITES, wait_until
from kssl_codec import Error, Op, Tag
from kssl_peer import Peer, site_key

CLIENTS = [
    {"match": "DNS:edge1.example", "keys": ["p256", "rsa2048"], "allow": ["tls13", "tls12", "list"]},
    {"match": "DNS:edge2.example", "keys": ["p256", "ed25519", "rsa2048"], "allow": ["digest"]},
]
# As in CLIENTS, then entries that policy bounds further.
BOUNDED = [
    *CLIENTS,
    {"match": "CN:names", "keys": ["demo", "p256"], "allow": ["tls13", "tls12"], "names": ["demo.example"]},
    {"match": "CN:both", "keys": ["demo"], "allow": ["tls13", "tls12"], "names": ["demo.example", "localhost"]},
    {"match": "CN:schemes", "keys": ["*"], "allow": ["tls13", "digest"], "schemes": ["ecdsa_secp256r1_sha256"]},
    {"match": "CN:denied", "keys": ["*"], "deny": True},
    {"match": "CN:required", "keys": ["*"], "allow": ["tls13", "digest", "decrypt"], "require": "transcript"},
]
NAMES, BOTH, SCHEMES, DENIED, REQUIRED = 2, 3, 4, 5, 6

ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root looks into other processes")


def tls13(name):
    payload = kssl.sign_tls13({"p256": 0x0403, "rsa2048": 0x0804}[name], bytes(32))
    return kssl.message(1, Op.SIGN_TLS13, payload, [(Tag.SKI, kssl.ski(site_key(name)))])


# ---- What each has.


def tcp_sockets(process):
    """Inodes of the process's TCP sockets."""
    mine = set()
    for entry in pathlib.Path(f"/proc/{process.pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            match = re.fullmatch(r"socket:\[(\d+)\]", os.readlink(entry))
            if match:
                mine.add(match.group(1))
    known = set()
    for table in ("tcp", "tcp6"):
        lines = pathlib.Path(f"/proc/{process.pid}/net/{table}").read_text().splitlines()[1:]
        known |= {line.split()[9] for line in lines}
    return mine & known


def test_signer_has_no_network_socket(stack):
    server = stack.key_server(clients=CLIENTS, workers=2)
    with Peer(server.port):
        (signer,) = server.children("signer")
        assert not tcp_sockets(signer)
        assert all(tcp_sockets(frontend) for frontend in server.children("frontend"))


def secrets_of(name):
    """What a process that has this key has in its memory, in either order of octets."""
    key = serialization.load_pem_private_key((SITES / "keys" / f"{name}.key").read_bytes(), None)
    numbers = key.private_numbers()
    if name == "rsa2048":
        values = [numbers.p.to_bytes(128, "big"), numbers.d.to_bytes(256, "big")]
    else:
        values = [numbers.private_value.to_bytes(32, "big")]
    return [form for value in values for form in (value, value[::-1])]


def names_in_memory(process, needles):
    """Those of the names whose secrets are somewhere in the process's memory."""
    found = set()
    maps = pathlib.Path(f"/proc/{process.pid}/maps").read_text().splitlines()
    with open(f"/proc/{process.pid}/mem", "rb", 0) as memory:
        for line in maps:
            span, access, *rest = line.split()
            start, end = (int(part, 16) for part in span.split("-"))
            if not access.startswith("rw") or rest[-1].startswith("[v"):
                continue
            with contextlib.suppress(OSError, OverflowError):
                memory.seek(start)
                data = memory.read(end - start)
                found |= {name for name, forms in needles.items() if any(form in data for form in forms)}
    return found


@pytest.mark.release
@ROOT
@pytest.mark.skipif(harness.SANITIZED, reason="a sanitizer's memory is terabytes")
def test_only_the_signer_has_keys(stack):
    server = stack.key_server(clients=CLIENTS, workers=2)
    needles = {name: secrets_of(name) for name in ("p256", "rsa2048")}
    with Peer(server.port) as peer:
        for name in needles:
            assert peer.raw_request(tls13(name)).opcode == Op.SUCCESS
        (signer,) = server.children("signer")
        assert names_in_memory(signer, needles) == set(needles), "not found even where they are"
        for process in [server.master(), *server.children("frontend"), *server.children("helper")]:
            assert not names_in_memory(process, needles), process.name()


# ---- A front end that was taken over: what it says, the test says in its place.

ASK_TLS13, ASK_TLS12, ASK_DIGEST, ASK_MESSAGE, ASK_CIPHERTEXT, ASK_TICKET_KEYS, TELL_REPLY = 1, 2, 3, 4, 5, 6, 0x13
PIDFD_OPEN, PIDFD_GETFD = 434, 438


def steal_link(process):
    """A duplicate of the front end's descriptor of its link to the signer: its only connected stream among Unix
    sockets."""
    libc = ctypes.CDLL(None, use_errno=True)
    pidfd = libc.syscall(PIDFD_OPEN, process.pid, 0)
    assert pidfd >= 0, os.strerror(ctypes.get_errno())
    try:
        for entry in sorted(pathlib.Path(f"/proc/{process.pid}/fd").iterdir(), key=lambda path: int(path.name)):
            if not os.readlink(entry).startswith("socket:"):
                continue
            stolen = libc.syscall(PIDFD_GETFD, pidfd, int(entry.name), 0)
            assert stolen >= 0, os.strerror(ctypes.get_errno())
            link = socket.socket(fileno=stolen)
            listens = link.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
            if link.family == socket.AF_UNIX and link.type == socket.SOCK_STREAM and not listens:
                link.setblocking(True)
                link.settimeout(harness.PATIENCE)
                return link
            link.close()
    finally:
        os.close(pidfd)
    raise AssertionError("the front end has no link")


def message(kind, body):
    return struct.pack("!B", kind) + len(body).to_bytes(3, "big") + body


def field(octets, capacity):
    return struct.pack("!B", len(octets)) + octets + bytes(capacity - len(octets))


def ask(kind, handle, entry, opcode, name, rest):
    key = bytes(20) if name is None else kssl.ski(site_key(name))
    claims = field(b"", 0) + field(b"", 0)  # of the edge: its client's address, its name for the request
    return message(kind, struct.pack("!QHB", handle, entry, opcode) + key + claims + rest)


def ask_tls13(entry, name, scheme, transcript_hash=bytes(32), opcode=Op.SIGN_TLS13, sni=b""):
    rest = field(sni, len(sni)) + struct.pack("!H", scheme) + field(transcript_hash, 48)
    return ask(ASK_TLS13, 7, entry, opcode, name, rest)


def ask_tls12(entry, name, scheme, server_random, group=0x001D, point=bytes(32), sni=b""):
    rest = field(sni, len(sni)) + struct.pack("!H", scheme) + bytes(32) + server_random
    return ask(ASK_TLS12, 7, entry, Op.SIGN_TLS12, name, rest + struct.pack("!H", group) + field(point, 133))


def ask_transcript(entry, name, sni):
    return ask_tls13(entry, name, 0x0403, opcode=Op.SIGN_TRANSCRIPT, sni=sni)


def ask_digest(entry, name, opcode, digest):
    return ask(ASK_DIGEST, 7, entry, opcode, name, field(digest, 64))


def ask_message(entry, name, octets, opcode=Op.ED25519):
    return ask(ASK_MESSAGE, 7, entry, opcode, name, octets)


def ask_decryption(entry, name, opcode):
    return ask(ASK_CIPHERTEXT, 7, entry, opcode, name, bytes(256))


def ask_ticket_keys(entry, name=None, rest=b""):
    return ask(ASK_TICKET_KEYS, 7, entry, Op.TICKET_KEYS, name, rest)


def reply(link):
    def exactly(size):
        data = b""
        while len(data) < size:
            more = link.recv(size - len(data))
            assert more, "the signer has closed the link"
            data += more
        return data

    kind, *size = exactly(4)
    body = exactly(int.from_bytes(size, "big"))
    assert kind == TELL_REPLY
    handle, error, _, _ = struct.unpack_from("!QBII", body)
    assert handle == 7
    return error, body[17:]


MARKED = bytes(24) + kssl.DOWNGRADE_12

ON_CURVE = kssl_peer.point(ec.SECP256R1())
HYBRID = bytes([6 + ON_CURVE[-1] % 2]) + ON_CURVE[1:]
CONTEXT_OF_CLIENTS = b" " * 64 + b"TLS 1.3, client CertificateVerify\0" + bytes(32)
CONTEXT_OF_CREDENTIALS = b" " * 64 + b"TLS, server delegated credentials\0" + bytes(300)

NOT_THE_CLIENTS = "the SNI is none of the client's names"
NOT_COVERED = "the key's certificates have names that the client has not"
NO_CERTIFICATE = "the key has no certificate for the SNI"
NO_SCHEME = "the scheme is none of the client's"

# What a front end that was taken over might ask for: the message, the error, the reason logged where the error's name does
# not say it all.
FORGED = {
    "a digest, not allowed": (lambda: ask_digest(0, "p256", Op.ECDSA_SHA256, bytes(32)), 0x05),
    "a digest of each kind, not allowed": (lambda: ask_digest(0, "rsa2048", Op.RSA_PSS_SHA256, bytes(32)), 0x05),
    "a message, not allowed": (lambda: ask_message(0, "ed25519", CONTEXT_OF_CLIENTS), 0x05),
    "decryption, not allowed": (lambda: ask_decryption(0, "rsa2048", Op.RSA_DECRYPT), 0x05),
    "decryption, not allowed, the other": (lambda: ask_decryption(0, "rsa2048", Op.RSA_DECRYPT_RAW), 0x05),
    "decryption, where digests are": (lambda: ask_decryption(1, "rsa2048", Op.RSA_DECRYPT), 0x05),
    "ticket keys, not allowed": (lambda: ask_ticket_keys(0), 0x05),
    "ticket keys, of an entry that does not exist": (lambda: ask_ticket_keys(len(BOUNDED)), 0x08),
    "TLS 1.3, not allowed": (lambda: ask_tls13(1, "p256", 0x0403), 0x05),
    "TLS 1.2, not allowed": (lambda: ask_tls12(1, "p256", 0x0403, MARKED), 0x05),
    "as from a transcript, not allowed": (lambda: ask_transcript(1, "p256", b"p256.example"), 0x05),
    "a hash, where transcripts are required": (lambda: ask_tls13(REQUIRED, "p256", 0x0403, sni=b"p256.example"), 0x05),
    "a digest, where transcripts are required": (lambda: ask_digest(REQUIRED, "p256", Op.ECDSA_SHA256, bytes(32)), 0x05),
    "decryption, where transcripts are required": (lambda: ask_decryption(REQUIRED, "rsa2048", Op.RSA_DECRYPT), 0x05),
    "a client that is denied": (lambda: ask_tls13(DENIED, "p256", 0x0403), 0x05),
    "a key of another entry": (lambda: ask_tls13(0, "ed25519", 0x0807), 0x02),
    "a key of another entry, TLS 1.2": (lambda: ask_tls12(0, "ed25519", 0x0807, MARKED), 0x02),
    "a key of another entry, a digest": (lambda: ask_digest(1, "p384", Op.ECDSA_SHA384, bytes(48)), 0x02),
    "a key of another entry, a message": (lambda: ask_message(1, "ed448", b"x"), 0x02),
    "a key of another entry, a transcript": (lambda: ask_transcript(0, "demo", b"demo.example"), 0x02),
    "an entry that does not exist": (lambda: ask_tls13(len(BOUNDED), "p256", 0x0403), 0x08),
    "the last entry that there could be": (lambda: ask_digest(0xFFFF, "p256", Op.ECDSA_SHA256, bytes(32)), 0x08),
    "pkcs1 in TLS 1.3": (lambda: ask_tls13(0, "rsa2048", 0x0401), 0x01),
    "another key's scheme": (lambda: ask_tls13(0, "p256", 0x0804), 0x01),
    "another key's scheme, TLS 1.2": (lambda: ask_tls12(0, "p256", 0x0804, MARKED), 0x01),
    "a digest of another size": (lambda: ask_digest(1, "p256", Op.ECDSA_SHA256, bytes(20)), 0x01),
    "a digest for another type of key": (lambda: ask_digest(1, "p256", Op.RSA_SHA256, bytes(32)), 0x01),
    "a message for another type of key": (lambda: ask_message(1, "p256", b"x"), 0x01),
    **{f"a hash of {size}": (lambda size=size: ask_tls13(0, "p256", 0x0403, bytes(size)), 0x41)
       for size in (0, 20, 31, 33, 47)},
    "a client's CertificateVerify": (lambda: ask_message(1, "ed25519", CONTEXT_OF_CLIENTS), 0x41),
    "a delegated credential": (lambda: ask_message(1, "ed25519", CONTEXT_OF_CREDENTIALS), 0x41),
    "no downgrade mark": (lambda: ask_tls12(0, "p256", 0x0403, bytes(32)), 0x41),
    "the mark of 1.1": (lambda: ask_tls12(0, "p256", 0x0403, MARKED[:-1] + b"\0"), 0x41),
    "randoms of spaces": (lambda: ask_tls12(0, "p256", 0x0403, b" " * 32), 0x41),
    "a group that is none": (lambda: ask_tls12(0, "p256", 0x0403, MARKED, group=0x0016), 0x41),
    "no group": (lambda: ask_tls12(0, "p256", 0x0403, MARKED, group=0), 0x41),
    "no point": (lambda: ask_tls12(0, "p256", 0x0403, MARKED, point=b""), 0x41),
    "a point of another group": (lambda: ask_tls12(0, "p256", 0x0403, MARKED, 0x0017, bytes(32)), 0x41),
    "a point off its curve": (lambda: ask_tls12(0, "p256", 0x0403, MARKED, 0x0017, b"\x04" + bytes(64)), 0x41),
    "a point in hybrid form": (lambda: ask_tls12(0, "p256", 0x0403, MARKED, 0x0017, HYBRID), 0x41),
    "a point at infinity": (lambda: ask_tls12(0, "p256", 0x0403, MARKED, 0x0017, bytes(65)), 0x41),
    "names that do not cover the key's": (lambda: ask_tls13(NAMES, "demo", 0x0403, sni=b"demo.example"), 0x40, NOT_COVERED),
    "names that do not, in TLS 1.2": (lambda: ask_tls12(NAMES, "demo", 0x0403, MARKED, sni=b"demo.example"), 0x40, NOT_COVERED),
    "another SNI": (lambda: ask_tls13(BOTH, "demo", 0x0403, sni=b"p256.example"), 0x40, NOT_THE_CLIENTS),
    "another SNI, in TLS 1.2": (lambda: ask_tls12(BOTH, "demo", 0x0403, MARKED, sni=b"p256.example"), 0x40, NOT_THE_CLIENTS),
    "no SNI": (lambda: ask_tls13(BOTH, "demo", 0x0403), 0x40, NOT_THE_CLIENTS),
    "as from a transcript for another name": (lambda: ask_transcript(NAMES, "demo", b"localhost"), 0x40, NOT_THE_CLIENTS),
    "as from one that no certificate was for": (lambda: ask_transcript(NAMES, "p256", b"demo.example"), 0x40, NO_CERTIFICATE),
    "another scheme": (lambda: ask_tls13(SCHEMES, "p384", 0x0503), 0x40, NO_SCHEME),
    "another scheme, a digest": (lambda: ask_digest(SCHEMES, "rsa2048", Op.RSA_SHA256, bytes(32)), 0x40, NO_SCHEME),
}

# What the entries may have all the same, and what is signed then: nothing that the front end could have chosen but the parts.
PERMITTED = {
    "TLS 1.3": (lambda: ask_tls13(0, "p256", 0x0403, b"h" * 32), 0x0403, kssl.certificate_verify(b"h" * 32)),
    "a hash that looks like a content": (lambda: ask_tls13(0, "p256", 0x0403, CONTEXT_OF_CLIENTS[:48]), 0x0403,
                                         kssl.certificate_verify(CONTEXT_OF_CLIENTS[:48])),
    "TLS 1.2": (lambda: ask_tls12(0, "p256", 0x0403, MARKED, 0x0017, ON_CURVE), 0x0403,
                bytes(32) + MARKED + kssl.ecdh_params(0x0017, ON_CURVE)),
    "a message": (lambda: ask_message(1, "ed25519", kssl.certificate_verify(bytes(48))), 0x0807,
                  kssl.certificate_verify(bytes(48))),
    "names that cover the key's": (lambda: ask_tls13(BOTH, "demo", 0x0403, sni=b"demo.example"), 0x0403,
                                   kssl.certificate_verify(bytes(32))),
    "as from a transcript": (lambda: ask_transcript(NAMES, "demo", b"demo.example"), 0x0403, kssl.certificate_verify(bytes(32))),
    "a scheme of the entry's": (lambda: ask_tls13(SCHEMES, "p256", 0x0403), 0x0403, kssl.certificate_verify(bytes(32))),
}


@pytest.fixture(scope="module")
def bounded(module_stack):
    return module_stack.key_server(clients=BOUNDED, certificates=[{"dir": str(SITES / "chains")}],
                                   audit={"file": str(module_stack.directory / "audit.log")},
                                   log={"level": "info", "rate": 0})


def recorded(server, octets, outcome, **fields):
    """The audit's newest record is of this message."""
    entry, opcode, ski = asked(octets)
    wait_until(lambda: server.metric("keyless_keyserver_audit_records_pending") == 0, "the record to be written")
    record = json.loads(pathlib.Path(server.config["audit"]["file"]).read_text().splitlines()[-1])
    assert record["outcome"] == outcome and record.get("key", bytes(20).hex()) == ski.hex()
    assert record["client"] == (BOUNDED[entry]["match"] if entry < len(BOUNDED) else None)
    assert {key: record.get(key) for key in fields} == fields
    return record


@pytest.fixture(scope="module")
def honest(bounded):
    """A client of the front end's, which is served all the time."""
    with Peer(bounded.port) as peer:
        yield peer


@pytest.fixture
def stolen(bounded, honest):
    """The link of a front end that says nothing itself meanwhile, and afterwards has missed nothing."""
    (frontend,) = bounded.children("frontend")
    with steal_link(frontend) as link:
        frontend.signal(signal.SIGSTOP)
        yield link
        frontend.signal(signal.SIGCONT)
    assert bounded.metric("keyless_keyserver_replies_stale_total") == 0
    assert honest.raw_request(tls13("p256")).error is None


def asked(octets):
    """Of a message: entry, opcode and SKI."""
    return struct.unpack_from("!HB20s", octets, 4 + 8)


@ROOT
@pytest.mark.parametrize("what", FORGED)
def test_signer_believes_nothing(bounded, stolen, what):
    """It checks everything again: whatever a front end lets through that it should not, the signer refuses, tells and
    counts."""
    forge, error, reason = (*FORGED[what], None)[:3]
    forbidden, mark = bounded.metric("keyless_keyserver_requests_forbidden_total"), bounded.mark()
    octets = forge()
    stolen.sendall(octets)
    assert reply(stolen) == (error, b"")
    line = bounded.wait_for("front end asks for what is forbidden", after=mark)
    entry, opcode, ski = asked(octets)
    assert line.get("client") == (BOUNDED[entry]["match"] if entry < len(BOUNDED) else None)
    assert (line["frontend"], line["error"], line["key"]) == ("0", str(error), ski.hex())
    assert line["reason"] == (reason or {0x01: "cryptography failed", 0x02: "key not found", 0x05: "bad opcode",
                                         0x08: "internal error", 0x41: "content not acceptable"}[error])
    assert line["operation"] and opcode == octets[14]
    assert bounded.metric("keyless_keyserver_requests_forbidden_total") == forbidden + 1
    assert recorded(bounded, octets, "forbidden", operation=line["operation"])["error"]


@ROOT
@pytest.mark.parametrize("what", PERMITTED)
def test_signed_content_is_the_signers(bounded, stolen, what):
    """What is signed is what the signer has put together from the parts, not what a front end would like."""
    make, scheme, content = PERMITTED[what]
    forbidden = bounded.metric("keyless_keyserver_requests_forbidden_total")
    octets = make()
    stolen.sendall(octets)
    error, signature = reply(stolen)
    assert error == 0
    (key,) = [site_key(name) for name in ("p256", "ed25519", "demo") if kssl.ski(site_key(name)) == asked(octets)[2]]
    kssl_peer.verify_scheme(key, signature, content, scheme)
    assert bounded.metric("keyless_keyserver_requests_forbidden_total") == forbidden
    recorded(bounded, octets, "done", error=None, signed=hashlib.sha256(content).hexdigest())


@ROOT
def test_signer_keeps_rates_itself(stack):
    """A front end that counts nothing gets no more from the signer than the rate, with a burst of four seconds' worth;
    what it is refused there is told and counted."""
    rate = 25
    server = stack.key_server(clients=[{**CLIENTS[0], "rate": rate}], log={"level": "debug", "rate": 0})
    (frontend,) = server.children("frontend")
    errors = []
    with steal_link(frontend) as link:
        frontend.signal(signal.SIGSTOP)
        began = time.monotonic()
        for _ in range(8 * rate):
            link.sendall(ask_tls13(0, "p256", 0x0403))
            errors.append(reply(link)[0])
        took = time.monotonic() - began
        frontend.signal(signal.SIGCONT)
    assert set(errors) == {0, Error.RATE}
    assert 4 * rate <= errors.count(0) <= 4 * rate + rate * took + 2
    told = server.find("front end asks for what is forbidden", reason="over its rate", client="DNS:edge1.example")
    assert len(told) == errors.count(Error.RATE)
    assert server.metric("keyless_keyserver_requests_forbidden_total") == len(told)


@ROOT
def test_rates_of_the_signer_are_its_own(stack):
    """The memory in which it keeps them is in no process that speaks with anybody; the front ends' is in theirs."""
    server = stack.key_server(clients=CLIENTS, workers=2)

    def sets(process):
        lines = pathlib.Path(f"/proc/{process.pid}/maps").read_text().splitlines()
        spans = [line.split()[0].split("-") for line in lines if " rw-s " in line and "/dev/zero" in line]
        return sum(int(end, 16) - int(start, 16) for start, end in spans) // (8192 * 64)

    signers, frontends, helpers = (server.children(kind) for kind in ("signer", "frontend", "helper"))
    (all_have,) = {sets(process) for process in helpers}  # counters, status
    assert {sets(process) - all_have for process in frontends} == {1}
    assert {sets(process) - all_have for process in signers} == {2}


NONSENSE = {
    "unknown type": lambda: message(0x55, b"x"),
    "a type that the signer sends": lambda: message(TELL_REPLY, bytes(17)),
    "too long": lambda: b"\x01\xff\xff\xff",
    "too short": lambda: message(ASK_TLS13, bytes(82)),
    "a digest's opcode with a hash": lambda: ask_tls13(0, "p256", 0x0403, opcode=Op.ECDSA_SHA256),
    "TLS 1.3's opcode with a digest": lambda: ask_digest(1, "p256", Op.SIGN_TLS13, bytes(32)),
    "a digest's opcode with a message": lambda: ask_message(1, "ed25519", b"x", Op.ECDSA_SHA256),
    "ticket keys with a key": lambda: ask_ticket_keys(0, "p256"),
    "ticket keys with more": lambda: ask_ticket_keys(0, None, b"x"),
    "a message's opcode with a ciphertext": lambda: ask_decryption(1, "rsa2048", Op.ED25519),
}


@ROOT
@pytest.mark.parametrize("what", NONSENSE)
def test_nonsense_costs_the_link(stack, what):
    """The front end that talks nonsense is cut off; the signer and the other front ends do not notice."""
    server = stack.key_server(clients=CLIENTS, workers=2, queues={"deadline": "500ms"})
    (signer,) = server.children("signer")
    bad = server.children("frontend")[0]
    (started,) = [line for line in server.find("child started") if line["child_pid"] == str(bad.pid)]
    with contextlib.ExitStack() as opened:
        peers = [opened.enter_context(Peer(server.port)) for _ in range(16)]
        assert all(peer.ping().opcode == Op.PONG for peer in peers)
        with steal_link(bad) as link:
            link.sendall(NONSENSE[what]())
            line = server.wait_for("front end cut off")
        assert line["process"] == "signer/0" and "message" in line["reason"]
        wait_until(lambda: server.metric("keyless_keyserver_links_broken_total") == 1, "that to be counted")
        places = {line["peer"]: line["process"] for line in server.find("connection opened")}
        for peer in peers:
            peer.send(tls13("p256"))
        for peer in peers:
            host, port = peer.raw.getsockname()
            expected = Error.INTERNAL if places[f"{host}:{port}"] == started["child"] else None
            assert peer.receive().error == expected
    assert server.children("signer")[0].pid == signer.pid
