"""The key server as a program: who is let in, what is bounded, what goes on when processes die, configurations
change or files are bad."""

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import threading
import time

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

import kssl_codec as kssl
import kssl_peer
from clients import Load
from counters import Gains
from harness import CHANNEL, SITES, wait_until
from kssl_codec import Error, Op, Tag
from kssl_peer import Closed, Peer, site_key, write_key

ALL = ["tls13", "tls12", "list", "digest"]
CLIENTS = [
    {"match": "DNS:edge1.example", "keys": ["*"], "allow": ALL},
    {"match": "DNS:edge2.example", "keys": ["*"], "allow": ALL},
]


def tls13(name, number=0, scheme=None):
    scheme = scheme or {"p256": 0x0403, "p384": 0x0503, "rsa2048": 0x0804}[name]
    payload = kssl.sign_tls13(scheme, number.to_bytes(32, "big"))
    return kssl.message(number, Op.SIGN_TLS13, payload, [(Tag.SKI, kssl.ski(site_key(name)))])


def works(server, certificate="edge1"):
    with Peer(server.port, certificate) as peer:
        return peer.sign_tls13(site_key("p256"), 0x0403, bytes(32)).opcode == Op.SUCCESS


# ---- Who is let in.


def test_no_client_entry(stack):
    """Closed after the handshake, and the line says what could be put into the configuration."""
    server = stack.key_server(clients=CLIENTS)
    with Peer(server.port, "stranger") as peer:
        messages, how = peer.until_closed()
        assert not messages and how == "in good order"
    line = server.wait_for("client refused")
    assert "DNS:stranger.example" in line["certificate"] and "no client entry" in line["reason"]
    fingerprint = re.search(r"sha256:[0-9a-f]{64}", line["certificate"]).group()
    server.config["clients"] = [{"match": fingerprint, "keys": ["*"], "allow": ["tls13"]}]
    server.reload()
    assert works(server, "stranger")


@pytest.mark.parametrize("match", ["DNS:EDGE1.example", "CN:edge1.example"])
def test_matches(stack, match):
    server = stack.key_server(clients=[{"match": match, "keys": ["p256"], "allow": ["tls13"]}])
    assert works(server, "edge1")
    with Peer(server.port, "edge2") as peer:
        assert peer.until_closed() == ([], "in good order")


def test_unix_socket(stack, tmp_path):
    path = tmp_path / "keys.sock"
    server = stack.key_server(clients=CLIENTS, listen=[f"unix:{path}"])
    with Peer(path) as peer:
        assert peer.ping(b"x").payload == b"x"
    with Peer(path, "stranger") as peer:
        assert peer.until_closed() == ([], "in good order")
    assert server.wait_for("connection opened")["peer"].startswith("unix:")


# ---- Processes that die.


def killed_and_replaced(server, kind):
    victim = server.children(kind)[0]
    count = len(server.children(kind))
    victim.signal(signal.SIGKILL)

    def replaced():
        live = [child.pid for child in server.children(kind)]
        return len(live) == count and victim.pid not in live

    wait_until(replaced, f"{kind} {victim.pid} to be replaced")


def test_killed_signer_loses_no_request(stack):
    """What the dead signer had not answered, its successor does: the client sees nothing but time."""
    server = stack.key_server(clients=CLIENTS, queues={"deadline": "20s"})
    count = 1200
    with Peer(server.port, timeout=60) as peer:
        peer.tls.write(b"".join(tls13("rsa2048" if n % 2 else "p256", n) for n in range(count)))
        answers = [peer.receive() for _ in range(20)]
        killed_and_replaced(server, "signer")
        answers += [peer.receive() for _ in range(count - 20)]
    assert sorted(a.id for a in answers) == list(range(count))
    assert all(a.opcode == Op.SUCCESS for a in answers)
    for answer in answers[::50]:
        name, scheme = ("rsa2048", 0x0804) if answer.id % 2 else ("p256", 0x0403)
        content = kssl.certificate_verify(answer.id.to_bytes(32, "big"))
        kssl_peer.verify_scheme(site_key(name), answer.payload, content, scheme)
    assert server.metric("keyless_keyserver_requests_resent_total") > 0


def test_signer_killed_again_and_again(stack):
    server = stack.key_server(clients=CLIENTS, workers=2)
    with Peer(server.port, timeout=60) as one, Peer(server.port, timeout=60) as two:
        for number in range(3):
            killed_and_replaced(server, "signer")
            for peer in (one, two):
                assert peer.raw_request(tls13("p256", number)).error is None
            assert server.metric("keyless_children_restarted_total") == number + 1
    assert server.metric("keyless_keyserver_refusals_total") == 0


def forgotten(server):
    """Requests of which nobody got to hear."""
    return (server.metric("keyless_keyserver_replies_stale_total") +
            server.metric("keyless_keyserver_requests_dropped_total"))


def test_stopped_signer_is_given_up(stack):
    """One that stands still keeps nobody waiting for ever."""
    server = stack.key_server(clients=CLIENTS, queues={"deadline": "500ms"})
    with Peer(server.port) as peer:
        assert peer.raw_request(tls13("p256")).error is None
        (signer,) = server.children("signer")
        signer.signal(signal.SIGSTOP)
        peer.send(tls13("p256", 7))
        assert peer.ping(b"x", request_id=8).payload == b"x"
        answer = peer.receive()
        assert (answer.id, answer.error) == (7, Error.INTERNAL)
        signer.signal(signal.SIGCONT)
        assert peer.raw_request(tls13("p256", 9)).id == 9
    assert server.metric("keyless_keyserver_requests_expired_total") == 1
    assert server.metric("keyless_keyserver_refusals_total", error="0x08") == 1
    assert server.metric("keyless_keyserver_refusals_total") == 1
    # Nobody waits for it: the signer leaves it, or has signed it by the time that it reads so.
    wait_until(lambda: forgotten(server) == 1, "what nobody waits for to be counted")


def test_signer_checks_again(stack, own_keys):
    """What a front end lets pass is nothing to the signer: here, a key that is no longer there."""
    server = stack.key_server(clients=CLIENTS, keys=[{"dir": str(own_keys)}])
    with Peer(server.port) as peer:
        assert peer.raw_request(tls13("p256")).error is None
        (signer,) = server.children("signer")
        signer.signal(signal.SIGSTOP)
        peer.send(tls13("p256", 7))
        assert peer.ping(b"the front end has passed it on", request_id=8).id == 8
        (own_keys / "p256.key").unlink()
        signer.signal(signal.SIGKILL)
        answer = peer.receive()
        assert (answer.id, answer.error) == (7, Error.KEY_NOT_FOUND)
    line = server.wait_for("front end asks for what is forbidden")
    assert (line["client"], line["operation"], line["reason"]) == ("DNS:edge1.example", "sign-tls13", "key not found")
    assert server.metric("keyless_keyserver_requests_forbidden_total") == 1
    assert server.metric("keyless_keyserver_requests_resent_total") == 1
    assert server.metric("keyless_keyserver_refusals_total", error="0x02") == 1
    assert server.metric("keyless_children_restarted_total") == 1


def test_killed_frontend(stack):
    server = stack.key_server(clients=CLIENTS, workers=1)
    with Peer(server.port) as peer:
        assert peer.ping().opcode == Op.PONG
        killed_and_replaced(server, "frontend")
        with pytest.raises(Closed):
            peer.receive()
    assert works(server)
    assert server.metric("keyless_children_restarted_total") == 1


def test_killed_helper(stack):
    server = stack.key_server(clients=CLIENTS)
    assert server.metric("keyless_keyserver_keys") > 0
    killed_and_replaced(server, "helper")
    wait_until(lambda: metrics_answer(server), "metrics")
    assert works(server)


def metrics_answer(server):
    with contextlib.suppress(OSError):
        return server.metrics()


def test_killed_master(stack):
    """Without a master everything drains and ends."""
    server = stack.key_server(clients=CLIENTS, workers=2)
    children = server.children()
    with Peer(server.port) as peer:
        assert peer.ping().opcode == Op.PONG
        server.master().signal(signal.SIGKILL)
        assert peer.until_closed() == ([], "in good order")
    wait_until(lambda: not any(child.alive() for child in children), "the children to end")
    server.popen.wait()
    server.popen = None


# ---- Draining and reloading.


def test_drain_answers_what_is_in_flight(stack):
    server = stack.key_server(clients=CLIENTS, queues={"deadline": "20s"})
    with Peer(server.port, timeout=60) as peer, Peer(server.port) as idle:
        assert idle.ping().opcode == Op.PONG
        peer.tls.write(b"".join(tls13("rsa2048", n) for n in range(200)))
        first = peer.receive()
        server.master().signal(signal.SIGTERM)
        answers, how = peer.until_closed()
        assert how == "in good order"
        assert all(a.opcode == Op.SUCCESS for a in [first, *answers])
        assert idle.until_closed() == ([], "in good order")
    assert server.wait_exit() == 0
    server.popen = None
    line = next(line for line in server.find("connection closed") if int(line["requests"]) == len(answers) + 1)
    assert line["unanswered"] == "0"


def test_ends_of_connections(stack):
    """In good order, without a word, with garbage, by a reload that drains: each is counted as what it is."""
    server = stack.key_server(clients=CLIENTS)
    gains = Gains(server)

    def ended(reason, count=1):
        gains.assert_gained("keyless_keyserver_connections_closed_total", count, reason=reason)

    Peer(server.port).close()
    ended("closed")
    for data in (b"", b"\1\0\0"):  # cut between frames, and within one
        with Peer(server.port) as peer:
            peer.send(kssl.message(1, Op.PING) + data)
            assert peer.receive().opcode == Op.PONG
            peer.raw.close()
    ended("lost", 2)
    with Peer(server.port) as peer:
        assert peer.ping().opcode == Op.PONG
        peer.raw.send(b"\x17\3\3\0\x20" + bytes(32))  # a record that does not decrypt
        assert peer.until_closed()[0] == []
    ended("protocol")
    with Peer(server.port) as peer:
        assert peer.ping().opcode == Op.PONG
        server.reload()
        assert peer.until_closed() == ([], "in good order")
    ended("drained")
    gains.assert_gained("keyless_keyserver_connections_closed_total", 5)


def test_drain_deadline(stack):
    """Who does not take its answers is cut off in the end, with a line."""
    server = stack.key_server(clients=CLIENTS, drain_timeout="300ms", queues={"deadline": "20s"})
    with Peer(server.port, rcvbuf=4096) as peer:
        fill(peer, NEVER_READ["pings"]())
        server.reload()
        wait_until(lambda: server.metric("keyless_keyserver_connections_closed_total", reason="dropped") == 1,
                   "the connection to be counted as dropped")
    line = server.wait_for("connection closed", reason="this process ends")
    assert line["client"] == "DNS:edge1.example" and line["peer"].startswith("127.0.0.1:")
    with Peer(server.port, rcvbuf=4096) as peer:
        fill(peer, NEVER_READ["pings"]())
        mark = server.mark()
        server.master().signal(signal.SIGTERM)
        assert server.wait_exit() == 0
        server.popen = None
    server.wait_for("connection closed", after=mark, reason="this process ends")


@pytest.fixture
def own_keys(tmp_path):
    """A directory of keys that a test may change: p256 and rsa2048."""
    keys = tmp_path / "keys"
    keys.mkdir()
    for name in ("p256", "rsa2048"):
        shutil.copy(SITES / "keys" / f"{name}.key", keys)
    return keys


def listed(server, certificate="edge1"):
    with Peer(server.port, certificate) as peer:
        return sorted(entry.name for entry in kssl.parse_list(peer.listing().payload)[1])


def test_reload(stack, own_keys):
    server = stack.key_server(clients=CLIENTS, keys=[{"dir": str(own_keys)}])
    with Peer(server.port) as peer:
        assert peer.ping().opcode == Op.PONG
        shutil.copy(SITES / "keys" / "p384.key", own_keys / "renamed.pem")
        (own_keys / "rsa2048.key").unlink()
        server.config["clients"] = [{"match": "DNS:edge2.example", "keys": ["*"], "allow": ["list", "tls13"]}]
        server.reload()
        assert peer.until_closed() == ([], "in good order")
    assert listed(server, "edge2") == ["p256", "renamed"]
    with Peer(server.port, "edge1") as peer:
        assert peer.until_closed() == ([], "in good order")


def ask_much(peer, count=400):
    """Signatures that take the signer a while."""
    peer.tls.write(b"".join(tls13("rsa2048", n) for n in range(count)))


CHANGES = {
    "removed": lambda entry: None,
    "denied": lambda entry: {**entry, "deny": True},
    "narrowed": lambda entry: {**entry, "keys": ["p256"]},
}


@pytest.mark.parametrize("change", CHANGES)
def test_reload_takes_effect_at_once(stack, change):
    """On open connections, and on what they have asked and not been given; the others come back and ask again."""
    bystander = {"match": "DNS:edge2.example", "keys": ["*"], "allow": ["tls13"]}
    entry = {"match": "DNS:edge1.example", "keys": ["*"], "allow": ["tls13"]}
    server = stack.key_server(clients=[entry, bystander], queues={"deadline": "20s"}, drain_timeout="20s")
    gains = Gains(server)
    with Peer(server.port, timeout=60) as peer, Peer(server.port, "edge2") as other:
        ask_much(peer)
        first = peer.receive()
        changed = CHANGES[change](entry)
        server.config["clients"] = [*([changed] if changed else []), bystander]
        server.reload()
        answers, how = peer.until_closed()
        assert how == "in good order"
        assert all(a.opcode == Op.SUCCESS for a in [first, *answers])
        assert other.until_closed() == ([], "in good order")
    line = server.wait_for("requests dropped", client="DNS:edge1.example", reason="who may do what has changed")
    assert int(line["requests"]) + len(answers) + 1 == 400
    server.wait_for("generation ended", generation="1")
    # What was with the signer is left, but for what it has done by the time that it hears of it.
    signed = gains.gained("keyless_keyserver_sign_duration_seconds_count")
    assert len(answers) + 1 <= signed <= len(answers) + 1 + 50
    assert gains.gained("keyless_keyserver_requests_dropped_total") + signed <= 400
    with Peer(server.port, "edge2") as other:
        assert other.raw_request(tls13("rsa2048")).error is None
    with Peer(server.port) as again:
        if change == "narrowed":
            assert again.raw_request(tls13("rsa2048")).error == Error.KEY_NOT_FOUND
        else:
            assert again.until_closed() == ([], "in good order")


def test_reload_of_the_same_loses_nothing(stack, own_keys):
    """Keys that are renewed take no right from anybody: what was asked is answered before the connection ends."""
    server = stack.key_server(clients=CLIENTS, keys=[{"dir": str(own_keys)}], queues={"deadline": "20s"})
    with Peer(server.port, timeout=60) as peer:
        ask_much(peer, 200)
        first = peer.receive()
        shutil.copy(SITES / "keys" / "p384.key", own_keys / "new.key")
        server.reload()
        answers, how = peer.until_closed()
        assert how == "in good order"
        assert sum(a.opcode == Op.SUCCESS for a in [first, *answers]) == 200
    assert not server.find("requests dropped")


def test_cut_off_under_load(stack):
    """A reload that denies one edge costs the clients of another nothing."""
    server = stack.key_server(clients=[
        {"match": "DNS:edge1.example", "keys": ["*"], "allow": ["tls13"]},
        {"match": "DNS:edge2.example", "keys": ["*"], "allow": ["tls13"]},
    ], certificates=[{"dir": str(SITES / "chains")}])
    proxy = stack.proxy(server)
    with Load(proxy.port) as load, Peer(server.port, "edge2") as edge2:
        load.more(20)
        assert edge2.raw_request(tls13("p256")).error is None
        server.config["clients"][1]["deny"] = True
        server.reload()
        assert edge2.until_closed() == ([], "in good order")
        load.more(40)
    assert not load.failures, load.failures
    with Peer(server.port, "edge2") as edge2:
        assert edge2.until_closed() == ([], "in good order")


def break_mode(config, keys):
    (keys / "p256.key").chmod(0o640)
    return f"{keys}/p256.key: its mode is 0640"


def break_key(config, keys):
    (keys / "new.pem").write_text("-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n")
    (keys / "new.pem").chmod(0o600)
    return f"{keys}/new.pem: no private key"


def break_duplicate(config, keys):
    shutil.copy(keys / "p256.key", keys / "again.key")
    return "the same key as in"


def break_directory(config, keys):
    config["keys"] = [{"dir": str(keys / "missing")}]
    return "keys.dir: cannot read the directory"


def break_no_key(config, keys):
    for path in keys.iterdir():
        path.unlink()
    return "no private key: no *.key or *.pem file"


def break_encrypted(config, keys):
    subprocess.run(["openssl", "pkcs8", "-topk8", "-passout", "pass:x", "-in", keys / "p256.key", "-out",
                    keys / "secret.key"], check=True)
    (keys / "secret.key").chmod(0o600)
    return f"{keys}/secret.key: the private key is encrypted"


def break_setting(config, keys):
    config["limits"] = {"conections": 4}
    return "conections"


def break_match(config, keys):
    config["clients"] = [{"match": "edge1.example", "keys": ["*"]}]
    return "clients"


def break_channel_key(config, keys):
    config["tls"] = {**config["tls"], "key": str(CHANNEL / "edge1-key.pem")}
    return "edge1-key.pem"


def break_ca(config, keys):
    config["tls"] = {**config["tls"], "client_ca": str(keys / "missing.pem")}
    return "missing.pem"


BREAK = [break_mode, break_key, break_duplicate, break_directory, break_no_key, break_encrypted, break_setting,
         break_match, break_channel_key, break_ca]


@pytest.mark.parametrize("spoil", BREAK)
def test_bad_configuration(stack, own_keys, spoil):
    """-t and a start say why and end with 2; a reload says why, and everything goes on as before."""
    server = stack.key_server(clients=CLIENTS, keys=[{"dir": str(own_keys)}])
    with Peer(server.port) as peer:
        words = spoil(server.config, own_keys)
        checked = server.check()
        assert checked.returncode == 2 and words in checked.stderr, checked.stderr
        line = server.reload(expect="reload failed")
        assert words in line["reason"].replace("\\x5c", "\\"), line
        assert peer.raw_request(tls13("p256")).error is None, "the connection goes on"
    assert listed(server) == ["p256", "rsa2048"]
    other = stack.key_server(start=False, clients=CLIENTS, keys=[{"dir": str(own_keys)}])
    other.config.update({key: server.config[key] for key in ("clients", "keys", "tls", "limits") if key in server.config})
    assert other.launch().wait_exit() == 2
    other.popen = None
    assert words in other.text()


def test_check_lists_keys(stack, own_keys):
    server = stack.key_server(start=False, keys=[{"dir": str(own_keys)}])
    server.config["clients"] = [{"match": "DNS:edge1.example", "keys": ["p256", "typo*"]}]
    checked = server.check()
    assert checked.returncode == 0
    assert f"{kssl.ski(site_key('p256')).hex()} P-256   p256" in checked.stdout
    assert f"{kssl.ski(site_key('rsa2048')).hex()} RSA     rsa2048" in checked.stdout
    assert '"typo*" of DNS:edge1.example matches no key' in checked.stderr


# ---- Bounds.


def small_buffers(peer):
    """So that what a connection takes is held by the server, and not by the kernel."""
    peer.raw.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)


def fill(peer, messages):
    """Sends until the server takes no more; the octets that it took."""
    taken = 0
    peer.timeout = 1.5
    small_buffers(peer)
    with contextlib.suppress(TimeoutError):
        for message in messages:
            peer.send(message)
            taken += len(message)
    return taken


def fill_all(peers, message):
    """The same over many connections at a time, by one thread: a hundred would keep each other from sending."""
    for peer in peers:
        small_buffers(peer)
    taken, moved = 0, time.monotonic()
    while time.monotonic() - moved < 1.5:
        for peer in peers:
            if peer._write():
                peer.tls.write(message)
                taken, moved = taken + len(message), time.monotonic()
    return taken


NEVER_READ = {
    "pings": lambda: (kssl.message(n, Op.PING, bytes(60000)) for n in range(1 << 20)),
    "signatures": lambda: (tls13("p256", n) for n in range(1 << 20)),
    "errors": lambda: (kssl.message(n, 0x99, pad=False) * 50 for n in range(1 << 20)),
    "lists": lambda: (kssl.message(n, Op.LIST, pad=False) * 50 for n in range(1 << 20)),
}


@pytest.mark.release
@pytest.mark.parametrize("what", NEVER_READ)
def test_never_reading_client(stack, lean, what):
    """It stops being read, and its memory stays bounded; others are served; in the end it is closed as idle."""
    server = stack.key_server(clients=CLIENTS, limits={"idle_timeout": "4s"})
    (frontend,) = server.children("frontend")
    assert works(server)
    before = frontend.resident()
    with Peer(server.port, rcvbuf=4096) as peer:
        taken = fill(peer, NEVER_READ[what]())
        grown = frontend.resident() - before
        # 4 MiB is what the server counts, requests and answers; the rest of what it took is in the kernel's buffer.
        assert taken < 10 << 20, "the server reads without end"
        # A queue lies in a buffer that doubles, and malloc keeps what it has outgrown: 7.2 MiB were seen for 4.
        assert grown < 9 << 20, f"{grown >> 10} kB for one connection"
        assert works(server)
        server.wait_for("connection closed", reason="the peer took none of")
        wait_until(lambda: server.metric("keyless_keyserver_connections_closed_total", reason="unread") == 1,
                   "the connection to be counted as unread")


@pytest.mark.release
def test_many_never_reading_clients(stack, lean):
    """All together stay below 256 MiB, and one that behaves is still served. From 128 on, those that hold more than their
    share of it wait; the buffers around what they hold, doubled as above, make up to 200 MiB of that."""
    server = stack.key_server(clients=CLIENTS)
    (frontend,) = server.children("frontend")
    assert works(server)
    before = frontend.resident()
    with contextlib.ExitStack() as opened:
        peers = [opened.enter_context(Peer(server.port, rcvbuf=4096)) for _ in range(100)]
        taken = fill_all(peers, kssl.message(1, Op.PING, bytes(60000)))
        grown = frontend.resident() - before
        assert taken > 256 << 20, "too little was sent to come near the bound"
        assert 100 << 20 < grown < 256 << 20, f"{grown >> 20} MiB"
        for _ in range(3):
            assert works(server)


def test_back_pressure_is_no_error(stack):
    """A connection alone never sees that a queue is full: far more is pipelined than any bound allows."""
    server = stack.key_server(
        clients=CLIENTS, queues={"ec": 3, "rsa": 2, "rsa_large": 1, "deadline": "30s"}, limits={"in_flight": 5}
    )
    with Peer(server.port, timeout=60) as peer:
        answers = peer.pipeline(tls13(["p256", "rsa2048", "p384"][n % 3], n) for n in range(600))
    assert sorted(a.id for a in answers) == list(range(600))
    assert {a.error for a in answers} == {None}


def test_overload(stack):
    """Many connections fill a queue: each request is answered, with a signature or with the word for it."""
    server = stack.key_server(clients=CLIENTS, queues={"rsa": 1, "deadline": "30s"})
    answers = {0x0804: [], Op.RSA_PSS_SHA256: []}

    def run(part_b):
        with Peer(server.port, "edge1", timeout=60) as peer:
            for _ in range(50):
                if part_b:
                    answers[0x0804].append(peer.sign_tls13(site_key("rsa2048"), 0x0804, bytes(32)).error)
                else:
                    answer = peer.with_key(Op.RSA_PSS_SHA256, site_key("rsa2048"), bytes(32))
                    answers[Op.RSA_PSS_SHA256].append(answer.error)

    threads = [threading.Thread(target=run, args=(n % 2 == 0,)) for n in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers[0x0804]) == len(answers[Op.RSA_PSS_SHA256]) == 400
    assert set(answers[0x0804]) == {None, Error.OVERLOADED}
    assert set(answers[Op.RSA_PSS_SHA256]) == {None, Error.INTERNAL}
    assert server.metric("keyless_keyserver_queue_full_total", **{"class": "rsa"}) > 0
    refused = sum(error is not None for errors in answers.values() for error in errors)
    assert server.metric("keyless_keyserver_refusals_total", error="0x44") > 0
    assert server.metric("keyless_keyserver_refusals_total") == refused


def test_deadline(stack):
    """What has waited too long for its turn is not tried any more."""
    server = stack.key_server(clients=CLIENTS, queues={"deadline": "1ms"})
    with contextlib.ExitStack() as opened:
        peers = [opened.enter_context(Peer(server.port, timeout=60)) for _ in range(20)]
        for peer in peers:
            peer.send(b"".join(tls13("rsa2048", n) for n in range(20)))
        errors = {peer.receive().error for peer in peers for _ in range(20)}
    assert errors == {None, Error.OVERLOADED}
    assert server.metric("keyless_keyserver_queue_late_total", **{"class": "rsa"}) > 0


def test_no_deadline_for_one_alone(stack, own_keys):
    """A connection that is alone waits for its own requests only, and is never told that they waited too long."""
    key = rsa.generate_private_key(65537, 4096)
    write_key(own_keys, "rsa4096", key)
    server = stack.key_server(
        clients=CLIENTS, keys=[{"dir": str(own_keys)}], queues={"deadline": "1500ms", "rsa_large": 1000},
        wrapper=["taskset", "-c", str(min(os.sched_getaffinity(0)))],
    )
    items = [(Tag.SKI, kssl.ski(key.public_key()))]
    with Peer(server.port, timeout=120) as peer:
        began = time.monotonic()
        answers = peer.pipeline(
            kssl.message(n, Op.SIGN_TLS13, kssl.sign_tls13(0x0804, bytes(32)), items) for n in range(400)
        )
        took = time.monotonic() - began
    assert {a.error for a in answers} == {None}
    assert took > 1.6, "they must take longer than the deadline, or nothing is tested"


def test_cheap_operations_do_not_wait_on_the_same_connection(stack):
    """A proxy has one connection: its dear operations wait for their turn, and the cheap ones pass them."""
    server = stack.key_server(clients=CLIENTS, queues={"deadline": "60s", "rsa": 100})
    with Peer(server.port, timeout=60) as peer:
        assert peer.raw_request(tls13("p256", 9999)).error is None
        peer.hello()
        peer.tls.write(b"".join(tls13("p384", n) for n in range(900)) + tls13("p256", 1000))
        answers = [peer.receive() for _ in range(901)]
    assert {a.error for a in answers} == {None}
    assert [a.id for a in answers].index(1000) < 100, "before most of the P-384 signatures"
    queue = {a.id: int.from_bytes(a.get(Tag.EXTRA)[:4], "big") for a in answers}
    assert queue[899] > 10 * queue[1000], "the time that a request waited for its turn is told"


def test_waiting_requests_are_given_up_together(stack):
    """Without a signer those that wait for their turn get the same answer at once, not one after the other."""
    server = stack.key_server(clients=CLIENTS, queues={"deadline": "500ms", "ec": 1})
    with Peer(server.port) as peer:
        assert peer.raw_request(tls13("p256", 9999)).error is None
        (signer,) = server.children("signer")
        signer.signal(signal.SIGSTOP)
        peer.send(b"".join(tls13("p256", n) for n in range(100)))
        answers = [peer.receive() for _ in range(100)]
        signer.signal(signal.SIGCONT)
    assert {a.error for a in answers} == {Error.INTERNAL}
    assert server.metric("keyless_keyserver_requests_pending") == 0
    assert server.metric("keyless_keyserver_refusals_total", error="0x08") == 100


def test_cheap_operations_do_not_wait(stack):
    """A queue full of RSA in front of it costs an ECDSA request next to nothing."""
    server = stack.key_server(clients=CLIENTS, queues={"deadline": "60s"})
    with Peer(server.port, timeout=60) as busy, Peer(server.port, "edge2") as quick:
        assert quick.raw_request(tls13("p256")).error is None
        busy.tls.write(b"".join(tls13("p384", n) for n in range(1000)))
        busy.receive()
        asked, slowest = time.monotonic(), 0
        for number in range(20):
            began = time.monotonic()
            assert quick.raw_request(tls13("p256", number)).error is None
            slowest = max(slowest, time.monotonic() - began)
        assert len([busy.receive() for _ in range(999)]) == 999
        took = time.monotonic() - asked
    # 1,000 P-384 signatures take a second and more; on a busy machine all takes longer.
    assert slowest < max(0.4, took / 3), f"of {took} s"


def test_connection_limit(stack):
    """Past it accepting pauses, with a line and a counter; a place that is free is taken at once."""
    server = stack.key_server(clients=CLIENTS, limits={"connections": 3})
    peers = [Peer(server.port) for _ in range(3)]
    assert all(peer.ping().opcode == Op.PONG for peer in peers)
    server.wait_for("accepting paused", reason="limits.connections")
    with socket.create_connection(("127.0.0.1", server.port)) as waiting:
        waiting.settimeout(0.3)
        waiting.sendall(b"\x16\x03\x01")
        with pytest.raises(TimeoutError):
            waiting.recv(1)
    peers.pop().close()
    assert works(server)
    assert server.metric("keyless_keyserver_accept_pauses_total", reason="connections") > 0
    for peer in peers:
        peer.close()


@pytest.mark.skipif(not os.path.exists("/usr/bin/prlimit"), reason="needs prlimit")
def test_out_of_descriptors(stack):
    """A state, not an error: accepting pauses, the CPU stays idle, a counter rises, and it goes on by itself."""
    server = stack.key_server(clients=CLIENTS, wrapper=["/usr/bin/prlimit", "--nofile=48:48"])
    (frontend,) = server.children("frontend")
    with contextlib.ExitStack() as opened:
        for _ in range(60):
            opened.enter_context(contextlib.closing(socket.create_connection(("127.0.0.1", server.port))))
        server.wait_for("accepting paused", reason="")
        began = cpu_seconds(frontend)
        time.sleep(1)
        assert cpu_seconds(frontend) - began < 0.3
        assert len(server.find("accepting paused")) == 1, "one line each time that descriptors run out"
    assert works(server)
    assert server.metric("keyless_keyserver_accept_pauses_total", reason="descriptors") > 0


def cpu_seconds(process):
    fields = process._read("stat").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_deadlines_of_connections(stack):
    server = stack.key_server(clients=CLIENTS, limits={"handshake_timeout": "1s", "idle_timeout": "1s"})
    with socket.create_connection(("127.0.0.1", server.port)) as silent:
        silent.settimeout(10)
        with contextlib.suppress(ConnectionError):
            assert silent.recv(1) == b""
    server.wait_for("handshake failed")
    assert server.metric("keyless_keyserver_handshake_failures_total", reason="timeout") == 1
    with Peer(server.port) as idle:
        assert idle.ping().opcode == Op.PONG
        assert idle.until_closed()[0] == []
    server.wait_for("connection closed", reason="idle")
    assert server.metric("keyless_keyserver_connections_closed_total", reason="idle") == 1
    assert server.metric("keyless_keyserver_connections_closed_total") == 1


def test_client_that_leaves(stack):
    """Its requests are forgotten: nothing is left behind, and the signatures go nowhere."""
    server = stack.key_server(clients=CLIENTS)
    (frontend,) = server.children("frontend")
    assert works(server)
    wait_until(lambda: server.metric("keyless_keyserver_connections") == 0, "the connection to be closed")
    descriptors, gains = frontend.descriptors(), Gains(server)
    for _ in range(20):
        peer = Peer(server.port)
        peer.send(b"".join(tls13("rsa2048", n) for n in range(30)))
        peer.raw.close()
    wait_until(lambda: server.metric("keyless_keyserver_connections") == 0, "the connections to be closed")
    assert server.metric("keyless_keyserver_requests_pending") == 0
    gains.assert_gained("keyless_keyserver_connections_closed_total", 20, reason="lost")
    # What the signer had of them it leaves, but for what it was at, which comes back to nobody.
    wait_until(lambda: server.metric("keyless_keyserver_queue_requests") == 0, "the signer to be done")
    unanswered = sum(int(line["unanswered"]) for line in server.find("connection closed"))
    assert 0 < gains.gained("keyless_keyserver_requests_dropped_total") <= unanswered
    assert gains.gained("keyless_keyserver_replies_stale_total") < unanswered / 2
    assert forgotten(server) <= unanswered
    # A connection is counted as closed a moment before its descriptor is.
    wait_until(lambda: frontend.descriptors() <= descriptors, f"{descriptors} descriptors again")
    assert works(server)
