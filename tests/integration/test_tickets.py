"""Session tickets of the proxy: who resumes what, where and how long, and that whatever is wrong with a ticket or its keys
leads to a full handshake and never to an error."""

import base64
import contextlib
import itertools
import json
import os
import re
import signal
import socket
import ssl
import subprocess
import threading
import time

import pytest

from clients import context
from fake_key_server import Honest
from harness import CHANNEL, PATIENCE, SANITIZED, SITE_CA, SITES, wait_until
from kssl_codec import Error, Op
from test_ticket_keys import entry, state_file, write

BOTH = {"tls12": True, "source": "local"}


class Client:
    """Keeps its session from one visit to the next, as a browser does."""

    def __init__(self, port, name="p256.example", version=ssl.TLSVersion.TLSv1_3):
        self.port, self.name = port, name
        self.tls = context(minimum_version=version, maximum_version=version)
        self.session = None

    def visit(self, port=None, name=None, keep=True):
        """What builtin:hello tells of the handshake."""
        name = name or self.name
        with socket.create_connection(("127.0.0.1", port or self.port), timeout=PATIENCE) as raw:
            with self.tls.wrap_socket(raw, server_hostname=name, session=self.session) as client:
                client.sendall(f"GET / HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n".encode())
                answer = b""
                while chunk := client.recv(65536):
                    answer += chunk
                if keep and client.session is not None and client.session.has_ticket:
                    self.session = client.session
        return json.loads(answer.partition(b"\r\n\r\n")[2])

    def resumes(self, *arguments, **how):
        facts = self.visit(*arguments, **how)
        assert facts["resumed"] == (facts["key_server"] is None), facts
        return facts["resumed"]


def succeeded(proxy, resumed):
    return proxy.metric("keyless_handshakes_succeeded_total", resumed=str(resumed).lower())


# ---- Keys of our own.


def test_resumption(stack):
    """The default: one ticket, no key server asked again, on every worker, over a reload; not over a restart."""
    _, proxy = stack.pair(workers=2)
    client = Client(proxy.port)
    assert not client.resumes()
    signatures, before = proxy.metric("keyless_key_requests_total"), succeeded(proxy, True)
    for _ in range(8):
        assert client.resumes()
    proxy.reload()
    assert client.resumes()
    assert proxy.metric("keyless_key_requests_total") == signatures and succeeded(proxy, True) == before + 9
    proxy.restart()
    assert not client.resumes()  # the key that made its ticket is gone
    assert proxy.metric("keyless_tickets_refused_total", reason="key") == 1
    assert client.resumes()


def test_the_number_of_tickets(stack):
    """Of each full handshake; a resumption makes one."""
    _, proxy = stack.pair(tickets={"count": 3})
    Client(proxy.port).visit()
    assert proxy.metric("keyless_tickets_made_total") == 3


def test_a_ticket_for_each_resumption(stack, tmp_path):
    """Clients use each but once: without a new one every second visit would be a full handshake."""
    _, proxy = stack.pair()
    path = tmp_path / "session.pem"
    assert not sessions_of(proxy.port, path)
    used = {path.read_bytes()}
    for made in range(2, 6):
        assert sessions_of(proxy.port, path)
        assert path.read_bytes() not in used, "the same ticket"
        used.add(path.read_bytes())
        assert proxy.metric("keyless_tickets_made_total") == made


@pytest.mark.parametrize("tls12", [False, True])
def test_tls12(stack, tls12):
    """Only where the operator wants it: there a ticket's key opens recorded sessions."""
    _, proxy = stack.pair(tickets={"tls12": tls12})
    client = Client(proxy.port, version=ssl.TLSVersion.TLSv1_2)
    assert not client.resumes()
    assert (client.session is not None) == tls12
    assert client.resumes() == tls12
    assert proxy.metric("keyless_tickets_made_total") >= int(tls12)
    assert Client(proxy.port).resumes() is False


def test_off(stack):
    _, proxy = stack.pair(tickets="off")
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        client = Client(proxy.port, version=version)
        assert not client.resumes() and client.session is None
    assert proxy.metric("keyless_tickets_made_total") == 0 and proxy.metric("keyless_ticket_keys") == 0


def test_keys_rotate(stack):
    """A ticket is good over rotations for its lifetime, and no longer."""
    _, proxy = stack.pair(tickets={"rotate": "1s", "lifetime": "3s"})
    client = Client(proxy.port)
    client.visit()
    began = time.monotonic()
    resumed = []
    wait_until(lambda: resumed.append((client.resumes(keep=False), time.monotonic() - began)) or not resumed[-1][0],
               "the ticket to expire")
    assert len(resumed) > 3 and resumed[-2][1] > 1.5 and resumed[-1][1] > 2.0
    assert client.resumes() is False and client.resumes() is True
    assert proxy.metric("keyless_ticket_keys") >= 3


def test_a_chain_of_resumptions_ends(stack):
    """max_age counts from the full handshake, however often the session was resumed since."""
    _, proxy = stack.pair(tickets={"max_age": "2s"})
    client = Client(proxy.port)
    assert not client.resumes()
    began, times = time.monotonic(), 0
    while client.resumes():
        times += 1
        assert time.monotonic() - began < PATIENCE
    assert times > 3 and time.monotonic() - began > 1.0
    assert proxy.metric("keyless_tickets_refused_total", reason="stale") == 1
    assert client.resumes()


# ---- Where a session is not resumed.


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_not_for_another_name(stack, version):
    """Whatever the certificate: a full handshake, for a name that the same chain is for, too."""
    _, proxy = stack.pair(tickets=BOTH)
    client = Client(proxy.port, "demo.example", version)
    assert not client.resumes()
    assert not client.resumes(name="localhost", keep=False)
    assert not client.resumes(name="p256.example", keep=False)
    assert client.resumes()
    client.name = "DEMO.example"  # the same, as DNS has it
    assert client.resumes()


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_not_under_another_policy(stack, version):
    """Nor with the certificate of before."""
    _, proxy = stack.pair(tickets=BOTH)
    client = Client(proxy.port, version=version)
    client.visit()
    assert client.resumes()
    proxy.config["tls"] = {**proxy.config["tls"], "ciphersuites": "TLS_CHACHA20_POLY1305_SHA256"}
    proxy.reload()
    assert not client.resumes() and client.resumes()


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_not_with_another_certificate(stack, tmp_path, version):
    """A renewed certificate, of the same key: sessions begin anew."""
    chains = tmp_path / "chains"
    chains.mkdir()
    (chains / "p256.pem").write_bytes((SITES / "chains" / "p256.pem").read_bytes())
    server = stack.key_server(certificates=[{"dir": str(chains)}, {"dir": str(SITES / "chains")}])
    proxy = stack.proxy(server, certificates=[{"dir": str(chains)}], tls={"default": "p256.example"}, tickets=BOTH)
    client = Client(proxy.port, version=version)
    client.visit()
    assert client.resumes()
    renew(chains / "p256.pem", SITES / "keys" / "p256.key")
    server.reload()
    proxy.reload()
    assert not client.resumes() and client.resumes()
    assert proxy.metric("keyless_tickets_refused_total", reason="stale") == 1


def renew(path, key):
    """Another certificate of the key and its CA."""
    private = SITES / "private"
    request = subprocess.run(["openssl", "req", "-new", "-key", key, "-subj", "/CN=renewed"], check=True, capture_output=True)
    leaf = subprocess.run(
        ["openssl", "x509", "-req", "-CA", private / "issuer.pem", "-CAkey", private / "issuer-key.pem", "-days", "30",
         "-extfile", "/dev/stdin", "-in", write(path.with_suffix(".csr"), request.stdout)],
        input=b"subjectAltName=DNS:p256.example\n", check=True, capture_output=True).stdout
    path.with_suffix(".csr").unlink()
    path.write_bytes(leaf + (private / "issuer.pem").read_bytes())


def sessions_of(port, path, *arguments, name="p256.example"):
    """openssl s_client with this session, which is replaced by the one it ends with; whether it was resumed."""
    done = subprocess.run(
        ["openssl", "s_client", "-connect", f"127.0.0.1:{port}", "-servername", name, "-CAfile", SITE_CA,
         "-verify_return_error", "-sess_out", path, *(["-sess_in", path] if path.exists() else []), "-ign_eof", *arguments],
        input=f"GET / HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n".encode(), capture_output=True, timeout=PATIENCE,
        check=False)
    assert done.returncode == 0, done.stderr
    return b"\nReused, " in b"\n" + done.stdout


def test_tickets_that_were_changed(stack, tmp_path):
    """In its name, its IV, its content, its mark; cut, or longer: a full handshake each time, and counted."""
    _, proxy = stack.pair()
    path = tmp_path / "session.pem"
    assert not sessions_of(proxy.port, path)
    original = path.read_text()
    assert sessions_of(proxy.port, path)
    der = base64.b64decode("".join(original.splitlines()[1:-1]))
    shown = subprocess.run(["openssl", "sess_id", "-in", path, "-noout", "-text"], input=b"", capture_output=True, check=True)
    # The longest octet string; keys and digests may have these octets by chance, and a size behind them that cannot be.
    strings = [(int.from_bytes(found.group(1), "big"), found.end()) for found in re.finditer(rb"\x04\x82(?=(..))", der, re.DOTALL)]
    size, start = max((size, end + 2) for size, end in strings if end + 2 + size <= len(der))
    assert size > 150, shown.stdout
    refused = 0
    for at in (0, 15, 16, 31, 32, size // 2, size - 33, size - 32, size - 1):
        forged = bytearray(der)
        forged[start + at] ^= 0x01
        encoded = base64.encodebytes(bytes(forged)).decode()
        path.write_text(f"-----BEGIN SSL SESSION PARAMETERS-----\n{encoded}-----END SSL SESSION PARAMETERS-----\n")
        assert not sessions_of(proxy.port, path), at
        refused += 1
    assert proxy.metric("keyless_tickets_refused_total") == refused
    assert proxy.metric("keyless_handshakes_failed_total") == 0
    path.write_text(original)
    assert sessions_of(proxy.port, path)


# ---- Keys of the key server.

ROTATE, LIFETIME = 3, 6
BEGAN = int(time.time())  # the same for all: a secret is of one epoch


def ticket_entry(name, **settings):
    return entry(name, allow=["tls13", "tls12", "transcript", "list", "ticket-keys"], **settings)


EU = [ticket_entry("edge1", ticket_group="eu"), ticket_entry("edge2", ticket_group="us")]


def key_server(stack, tmp_path, name, clients=None, rotate=ROTATE, lifetime=LIFETIME, secret=bytes(32)):
    path = write(tmp_path / f"{name}.secret", state_file(secret, rotate, BEGAN // rotate - 10))
    return stack.key_server(name=name, clients=clients or EU, ticket_keys={
        "secret": str(path), "rotate": f"{rotate}s", "lifetime": f"{lifetime}s"})


def edge(stack, server, name="edge1", **changes):
    channel = {"certificate": str(CHANNEL / f"{name}.pem"), "key": str(CHANNEL / f"{name}-key.pem"), "ca": str(CHANNEL / "ca.pem")}
    proxy = stack.proxy(server, key_channel=channel, tickets={"source": "keyserver", **changes.pop("tickets", {})}, **changes)
    proxy.wait_for("ticket keys taken")
    return proxy


class Balancer:
    """Hands each connection to the next of these ports: a client's second connection goes to another proxy."""

    def __init__(self, ports):
        self.ports = itertools.cycle(ports)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                client, _ = self.listener.accept()
                server = socket.create_connection(("127.0.0.1", next(self.ports)))
                for pair in ((client, server), (server, client)):
                    threading.Thread(target=self._pump, args=pair, daemon=True).start()

    @staticmethod
    def _pump(source, sink):
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_WR)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.listener.close()


def test_edges_resume_each_others_sessions(stack, tmp_path):
    """Two proxies with a key server each, of one secret, over three rotations."""
    servers = [key_server(stack, tmp_path, name) for name in ("keys-a", "keys-b")]
    proxies = [edge(stack, server) for server in servers]
    client = Client(proxies[0].port)
    assert not client.resumes()
    made, began = set(), int(time.time()) // ROTATE
    for port in itertools.cycle([proxies[1].port, proxies[0].port]):
        assert client.resumes(port)
        made.add(int(time.time()) // ROTATE)
        if len(made) == 4:
            break
        assert time.time() // ROTATE - began < 6
    assert all(proxy.metric("keyless_tickets_refused_total") == 0 for proxy in proxies)


@pytest.fixture
def balanced(stack, tmp_path):
    servers = [key_server(stack, tmp_path, name, rotate=3600, lifetime=7200) for name in ("keys-a", "keys-b")]
    proxies = [edge(stack, server) for server in servers]
    with Balancer([proxy.port for proxy in proxies]) as balancer:
        yield balancer.port, proxies


def resumed_at_both(proxies):
    return [succeeded(proxy, False) for proxy in proxies] == [1, 0] and [succeeded(proxy, True) for proxy in proxies] == [0, 1]


def test_with_curl(balanced):
    port, proxies = balanced
    url = f"https://p256.example:{port}/"
    answers = subprocess.run(
        ["curl", "-sS", "--cacert", SITE_CA, "--resolve", f"p256.example:{port}:127.0.0.1", "-H", "Connection: close", url, url],
        capture_output=True, text=True, timeout=PATIENCE, check=True).stdout
    assert re.findall(r'"resumed": ?(\w+)', answers) == ["false", "true"]
    assert resumed_at_both(proxies)


def test_with_openssl(balanced, tmp_path):
    port, proxies = balanced
    assert not sessions_of(port, tmp_path / "session.pem")
    assert sessions_of(port, tmp_path / "session.pem")
    assert resumed_at_both(proxies)


def test_with_gnutls(balanced):
    port, proxies = balanced
    done = subprocess.run(
        ["gnutls-cli", "--resume", "--waitresumption", "--x509cafile", SITE_CA, "--sni-hostname", "p256.example",
         "--verify-hostname", "p256.example", "-p", str(port), "127.0.0.1"],
        input="", capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert "*** This is a resumed session" in done.stdout, done.stdout
    assert resumed_at_both(proxies)


def test_with_nss(balanced, tmp_path):
    """tstclnt -L: connects again when it is through."""
    port, proxies = balanced
    database = tmp_path / "nss"
    database.mkdir()
    subprocess.run(["certutil", "-N", "-d", database, "--empty-password"], check=True)
    subprocess.run(["certutil", "-A", "-d", database, "-n", "ca", "-t", "C,,", "-a", "-i", SITE_CA], check=True)
    request = write(tmp_path / "request", b"GET / HTTP/1.1\r\nHost: p256.example\r\nConnection: close\r\n\r\n")
    with open(request, "rb") as source:
        subprocess.run(
            ["tstclnt", "-d", database, "-h", "127.0.0.1", "-a", "p256.example", "-p", str(port), "-V", "tls1.3:tls1.3",
             "-L", "2", "-A", request], stdin=source, capture_output=True, timeout=PATIENCE, check=False)
    wait_until(lambda: sum(succeeded(proxy, True) for proxy in proxies) == 1, "a resumption")
    assert resumed_at_both(proxies)


def test_another_group(stack, tmp_path):
    """Neither opens what the other makes."""
    server = key_server(stack, tmp_path, "keys")
    one, other = edge(stack, server), edge(stack, server, "edge2")
    client = Client(one.port)
    assert not client.resumes() and client.resumes()
    assert not client.resumes(other.port) and client.resumes(other.port)
    assert not client.resumes(one.port)
    assert one.metric("keyless_tickets_refused_total", reason="key") == 1
    assert other.metric("keyless_tickets_refused_total", reason="key") == 1


def test_a_dead_generation(stack, tmp_path):
    """When somebody leaves the group, what was made before is worth nothing, at once."""
    clients = [ticket_entry("edge1", ticket_group="eu"), ticket_entry("edge2", ticket_group="eu")]
    server = key_server(stack, tmp_path, "keys", clients, 3600, 7200)
    proxy = edge(stack, server)
    client = Client(proxy.port)
    assert not client.resumes() and client.resumes()
    mark = proxy.mark()
    server.config["clients"] = clients[:1]
    server.reload()
    proxy.wait_for("ticket keys taken", after=mark)
    assert not client.resumes() and client.resumes()


def test_taken_away(stack, tmp_path):
    """An edge that may have them no longer drops them with its next channel."""
    server = key_server(stack, tmp_path, "keys", rotate=3600, lifetime=7200)
    proxy = edge(stack, server)
    client = Client(proxy.port)
    assert not client.resumes() and client.resumes()
    mark = proxy.mark()
    server.config["clients"] = [ticket_entry("edge2", ticket_group="us"), entry("edge1", allow=["tls13", "tls12", "transcript"])]
    server.reload()
    proxy.wait_for("ticket keys not offered by key server", after=mark)
    assert not client.resumes() and not client.resumes()
    assert proxy.metric("keyless_ticket_keys") == 0


def test_a_key_server_that_is_away(stack, tmp_path):
    """Sessions are resumed until the last keys expire, by workers that were started since, and after a reload."""
    server = key_server(stack, tmp_path, "keys", rotate=3600, lifetime=7200)
    proxy = edge(stack, server)
    client = Client(proxy.port)
    client.visit()
    server.stop()
    assert client.resumes()
    (worker,) = proxy.children("worker")
    worker.signal(signal.SIGKILL)
    wait_until(lambda: [c.pid for c in proxy.children("worker")] not in ([], [worker.pid]), "another worker")
    proxy.wait_for("no key server yet")
    assert client.resumes()
    proxy.reload()
    assert client.resumes()


# ---- Key servers that say what they should not.


def keys_payload(now, rotate=3600, lifetime=7200, count=3, shift=0):
    epoch = now // rotate + shift
    epochs = [epoch, epoch + 1, *range(epoch - 1, epoch - count + 1, -1)]
    return bytes([count]) + b"".join(
        at.to_bytes(16, "big") + (at * rotate).to_bytes(8, "big") + ((at + 1) * rotate + lifetime).to_bytes(8, "big")
        + bytes([at % 256]) * 64 for at in epochs)


SWAPPED = lambda now: (p := keys_payload(now))[:1] + p[97:193] + p[1:97] + p[193:]  # noqa: E731

ANSWERS = {
    "one rotation ahead": (lambda now: keys_payload(now, shift=1), None),
    "one rotation behind": (lambda now: keys_payload(now, shift=-1), None),
    "two rotations ahead": (lambda now: keys_payload(now, shift=2), "its clock is more than one rotation off ours"),
    "two rotations behind": (lambda now: keys_payload(now, shift=-2), "its clock is more than one rotation off ours"),
    "empty": (lambda now: b"", "an answer that does not parse"),
    "none": (lambda now: b"\0", "an answer that does not parse"),
    "only one": (lambda now: b"\1" + keys_payload(now)[1:97], "an answer that does not parse"),
    "cut": (lambda now: keys_payload(now)[:-1], "an answer that does not parse"),
    "longer": (lambda now: keys_payload(now) + b"\0", "an answer that does not parse"),
    "not in order": (SWAPPED, "keys that are not in order"),
    "a name twice": (lambda now: (p := keys_payload(now))[:97] + p[1:17] + p[113:], "two keys of one name"),
    "most of them": (lambda now: keys_payload(now, rotate=60, lifetime=60 * 253, count=255), None),
    "an error": (Error.INTERNAL, "internal error"),
    "overloaded": (Error.OVERLOADED, "overloaded"),
}


class Giving(Honest):
    """Answers a question for ticket keys with an error, or what this makes of the time."""

    opcodes = (*Honest.opcodes, Op.TICKET_KEYS)

    def __init__(self, answer):
        self.answer = answer

    async def handle(self, link, request):
        if request.opcode != Op.TICKET_KEYS:
            await super().handle(link, request)
        elif isinstance(self.answer, Error):
            await self.reply(link, request, Op.ERROR, bytes([self.answer]))
        else:
            await self.reply(link, request, Op.SUCCESS, self.answer(int(time.time())))


@pytest.mark.parametrize("what", ANSWERS)
def test_answers(stack, what):
    """Good ones are taken; what is wrong is told and counted, and handshakes go on."""
    answer, reason = ANSWERS[what]
    server = stack.fake_key_server(Giving(answer))
    proxy = stack.proxy(server.port, tickets={"source": "keyserver"})
    if reason is None:
        proxy.wait_for("ticket keys taken", server="keys-a")
        assert proxy.metric("keyless_ticket_keys") > 1
        client = Client(proxy.port)
        assert not client.resumes() and client.resumes()
    else:
        line = proxy.wait_for("no new ticket keys", server="keys-a")
        assert line["reason"] == reason, line
        assert proxy.metric("keyless_ticket_keys_failed_total") >= 1
        client = Client(proxy.port)
        assert not client.resumes() and not client.resumes()


def test_not_offered(stack):
    """Told once for each channel, with what to do; handshakes go on without tickets."""
    _, proxy = stack.pair(tickets={"source": "keyserver"})
    line = proxy.wait_for("ticket keys not offered by key server")
    assert "allow: ticket-keys" in line["reason"]
    client = Client(proxy.port)
    assert not client.resumes() and client.session is None


# ---- Keys of files.


def raw_key(size, octet=7):
    return bytes([octet]) * size


FILES = {
    "48 octets": [raw_key(48)],
    "80 octets": [raw_key(80)],
    "two": [raw_key(80, 1), raw_key(48, 2)],
    "lines": [b"".join(base64.b64encode(raw_key(80, i)) + b"\n" for i in range(3))],
    "lines of 48": [b"\r\n".join(base64.b64encode(raw_key(48, i)) for i in range(4))],
}


@pytest.mark.parametrize("what", FILES)
def test_files(stack, tmp_path, what):
    """Two proxies with the same files, of either size and form."""
    paths = [str(write(tmp_path / f"{i}.key", octets)) for i, octets in enumerate(FILES[what])]
    server = stack.key_server()
    one, other = (stack.proxy(server, tickets={"source": "file", "files": paths}) for _ in range(2))
    client = Client(one.port)
    assert not client.resumes()
    assert client.resumes(other.port) and client.resumes(one.port)


def test_files_are_rotated(stack, tmp_path):
    """As nginx's users do it: a new file in front, the old one behind it, and a reload."""
    old, new = (write(tmp_path / f"{name}.key", raw_key(80, octet)) for octet, name in enumerate(("old", "new")))
    _, proxy = stack.pair(tickets={"source": "file", "files": [str(old)]})
    client = Client(proxy.port)
    client.visit()
    proxy.config["tickets"]["files"] = [str(new), str(old)]
    proxy.reload()
    assert client.resumes()  # and has a ticket of the new one now
    proxy.config["tickets"]["files"] = [str(new)]
    proxy.reload()
    assert client.resumes()


BAD_FILES = {
    "47": (raw_key(47), 0o600, "expected a key of 48 or 80 octets"),
    "79": (raw_key(79), 0o600, "expected a key of 48 or 80 octets"),
    "empty": (b"", 0o600, "expected a key of 48 or 80 octets"),
    "a line too much": (base64.b64encode(raw_key(80)) + b"\nAAAA\n", 0o600, "expected a key of 48 or 80 octets"),
    "for others": (raw_key(80), 0o644, "must be its owner's alone"),
}


@pytest.mark.parametrize("what", BAD_FILES)
def test_files_that_are_not_good(stack, tmp_path, what):
    octets, mode, reason = BAD_FILES[what]
    good, bad = write(tmp_path / "good", raw_key(48)), write(tmp_path / "bad", octets, mode)
    _, proxy = stack.pair(tickets={"source": "file", "files": [str(good)]})
    proxy.config["tickets"]["files"] = [str(bad)]
    checked = proxy.check()
    assert checked.returncode == 2 and reason in checked.stderr and str(bad) in checked.stderr
    assert reason in proxy.reload("reload failed")["reason"]


@pytest.mark.parametrize("tickets, error", [
    ({"source": "file"}, "tickets.files: missing, expected at least one"),
    ({"files": ["a"]}, "expected source: file for them"),
    ({"rotate": "1s", "lifetime": "1h"}, "expected at most 250 times tickets.rotate"),
    ({"lifetime": "1500ms"}, "expected whole seconds"),
    ({"source": "somewhere"}, "expected keyserver, local, file or off"),
    ("on", "expected keyserver, local, file or off"),
])
def test_configuration(stack, tickets, error):
    server = stack.key_server()
    proxy = stack.proxy(server, start=False, tickets=tickets)
    checked = proxy.check()
    assert checked.returncode == 2 and error in checked.stderr, checked.stderr


@pytest.mark.release
@pytest.mark.skipif(SANITIZED or os.geteuid() != 0, reason="a sanitizer locks nothing; only root looks into other processes")
def test_keys_are_locked(stack):
    """In each worker, whatever else is."""
    _, proxy = stack.pair()
    for worker in proxy.children("worker"):
        locked = re.search(r"VmLck:\s+(\d+) kB", open(f"/proc/{worker.pid}/status", encoding="ascii").read())
        assert int(locked.group(1)) >= 24
    assert not proxy.find("ticket keys not locked in memory")
