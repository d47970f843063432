"""The access log: one line for each client that has gone, what it tells, and that no reader of it can hold the proxy up."""

import contextlib
import fcntl
import json
import os
import signal
import socket
import ssl
import threading

import pytest

import clients
import harness
from client_certificates import Ca, of_channel, openssl
from clients import Load
from counters import Gains
from harness import PATIENCE, curl, free_port, wait_until
from test_relay import RESET, Backend
from test_tickets import Client

# Of every TLS client; beside them, what every line of the log has.
ALWAYS = {"client", "listener", "sni", "resumed", "from_client", "to_client", "truncated", "handshake_us", "us", "end"}
LOG = {"time", "level", "program", "process", "generation", "event"}
OF_TLS = {"version", "suite", "group"}
OF_SIGNATURE = {"scheme", "key_type", "key_server", "key_us", "request"}
OF_BACKEND = {"backend", "server"}
SERVED = ALWAYS | LOG | OF_TLS | OF_BACKEND


@pytest.fixture(scope="module")
def server(module_stack):
    return module_stack.key_server()


@pytest.fixture(scope="module")
def proxy(module_stack, server):
    """Whose other lines are few: its access log must not depend on that."""
    return module_stack.proxy(server, tls={"default": "localhost", "alpn": ["http/1.1"]},
                              log={"level": "error", "rate": 1, "access": "stdout"}, start=False)


@pytest.fixture(scope="module")
def started(proxy):
    """Without level=info there is no line that tells that it is ready."""
    proxy.launch()
    wait_until(lambda: proxy.readiness()[0] == 200, "the proxy to be ready")
    return proxy


class Lines:
    """The lines of the clients that come from now on."""

    def __init__(self, proxy):
        self.proxy, self.after = proxy, proxy.mark()

    def all(self):
        return self.proxy.find("access", after=self.after)

    def json(self):
        complete = self.proxy.text(self.after).rpartition("\n")[0].splitlines()
        found = [json.loads(line) for line in complete if line.startswith("{")]
        return [line for line in found if line["event"] == "access"]

    def one(self, read=None):
        """The line of the only client, when nobody is left who could leave another."""
        found = wait_until(read or self.all, f"a line of the access log:\n{self.proxy.tail()}")
        wait_until(lambda: self.proxy.metric("keyless_connections_open") == 0, "all connections to be closed")
        assert len((read or self.all)()) == 1, found
        return found[0]


def assert_served(line, facts, proxy, fields):
    """What a line has that is made of text or of JSON alike; facts: what the backend was told of the handshake."""
    assert set(line) == fields
    assert (line["event"], line["level"], line["process"]) == ("access", "info", "worker/0")
    assert line["client"].startswith("127.0.0.1:") and line["listener"] == f"127.0.0.1:{proxy.port}"
    for name in ("sni", "alpn", "version", "suite", "group", "scheme", "key_server"):
        assert line.get(name) == facts[name], name
    assert (line["backend"], line["server"], line["end"]) == ("web", "builtin:hello", "finished")
    assert 0 < int(line["handshake_us"]) <= int(line["us"])
    assert int(line["from_client"]) > 0 and int(line["to_client"]) > 0


# ---- What a line tells.

@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_a_request(started, server, version):
    lines, told = Lines(started), server.mark()
    facts = curl("p256.example", started.port, f"--tlsv{version}", "--tls-max", version).json()
    line = lines.one()
    assert_served(line, facts, started, SERVED | OF_SIGNATURE | {"alpn"})
    assert (line["resumed"], line["truncated"], line["key_type"]) == ("false", "false", "P-256")
    assert 0 < int(line["key_us"]) < int(line["handshake_us"])
    assert server.wait_for("request answered", after=told, request=line["request"])["operation"] == facts["operation"]


def test_json(stack, server):
    """Numbers and truth values are what they are."""
    proxy = stack.proxy(server, log={"level": "info", "access": {"to": "stdout", "format": "json"}}, start=False)
    with separate_output(proxy) as lines:
        facts = curl("rsa2048.example", proxy.port).json()
        wait_until(lines, "a line")
        (line,) = [json.loads(text) for text in lines()]
    assert_served(line, facts, proxy, SERVED | OF_SIGNATURE)
    assert (line["resumed"], line["truncated"], line["key_type"], line["generation"]) == (False, False, "RSA", 1)
    for name in ("from_client", "to_client", "handshake_us", "key_us", "us"):
        assert isinstance(line[name], int), name


def test_json_of_all_lines(stack, server):
    """The format is the log's, where it has none of its own."""
    proxy = stack.proxy(server, log={"format": "json", "access": "stderr"}, start=False).launch()
    wait_until(lambda: proxy.readiness()[0] == 200, "the proxy to be ready")
    lines = Lines(proxy)
    facts = curl("p256.example", proxy.port).json()
    assert_served(lines.one(lines.json), facts, proxy, SERVED | OF_SIGNATURE)


def test_resumed(started):
    client = Client(started.port)
    assert not client.resumes()
    wait_until(lambda: started.metric("keyless_connections_open") == 0, "the first connection to be closed")
    lines = Lines(started)
    facts = client.visit()
    line = lines.one()
    assert_served(line, facts, started, SERVED)
    assert line["resumed"] == "true"


def test_no_name(started):
    """The field is there, and empty."""
    lines = Lines(started)
    clients.connect(started.port, None, clients.context(check_hostname=False, maximum_version=ssl.TLSVersion.TLSv1_2)).close()
    line = lines.one()
    assert (line["sni"], line["end"]) == ("", "finished")


def test_closed_without_close_notify(started):
    lines = Lines(started)
    client = clients.connect(started.port)
    request = b"GET / HTTP/1.1\r\nHost: p256.example\r\n\r\n"
    client.sendall(request)
    assert client.recv(65536).startswith(b"HTTP/1.1 200")
    socket.socket(fileno=client.detach()).close()
    line = lines.one()
    assert (line["truncated"], int(line["from_client"])) == ("true", len(request))


def test_every_client_whatever_the_rate(started):
    """log.rate is 1, log.level is error."""
    lines = Lines(started)
    for _ in range(10):
        with socket.create_connection(("127.0.0.1", started.port)):
            pass
    wait_until(lambda: len(lines.all()) == 10, "a line of each")
    assert not started.find("suppressed", after=lines.after)


def test_client_certificate(stack, server, tmp_path):
    """Its subject is the client's to choose: it ends no line, and forges no field."""
    ca = Ca(tmp_path, "ca")
    proxy = stack.proxy(server, tls={"default": "localhost", "client_auth": {"mode": "require", "ca": ca.path}})
    lines = Lines(proxy)
    openssl(proxy.port, ca.issue('app"\nevent=forged end="x'), "1.3")
    line = lines.one()
    assert line["client_subject"] == r'CN=app\\x5c\"\\x5c0Aevent=forged end=\\x5c\"x'
    assert len(line["client_sha256"]) == 64 and line["client_serial"] and "client_san" not in line
    assert line["end"] == "finished" and not proxy.find("forged")


# ---- Handshakes that fail.

def failed(line, stage, reason, fields=frozenset()):
    """Of such a client no backend knows."""
    assert (line["end"], line["stage"], line["reason"]) == ("handshake failed", stage, reason)
    assert set(line) == ALWAYS | LOG | {"stage", "reason"} | fields
    assert (line["from_client"], line["to_client"], line["resumed"]) == ("0", "0", "false")


def test_not_tls(started):
    lines = Lines(started)
    with socket.create_connection(("127.0.0.1", started.port), timeout=PATIENCE) as raw:
        raw.sendall(b"GET / HTTP/1.1\r\n\r\n")
        while raw.recv(4096):
            pass
    failed(lines.one(), "client hello", "not TLS: HTTP request")


def test_name_of_odd_octets(started):
    lines = Lines(started)
    hello = clients.client_hello("p256.example")
    hello = hello.replace(b"p256.example", b"\xc3\xa9\xff\n\"\\= a=bc")
    with socket.create_connection(("127.0.0.1", started.port), timeout=PATIENCE) as raw:
        raw.sendall(hello)
        wait_until(lambda: raw.recv(65536), "the proxy's flight")
    line = lines.one()
    assert line["sni"] == r'é\\xff\\x0a\"\\x5c= a=bc'
    assert line["end"] == "handshake failed"


def test_no_client_certificate(stack, server):
    auth = {"mode": "require", "ca": str(harness.CHANNEL / "ca.pem")}
    proxy = stack.proxy(server, tls={"default": "localhost", "client_auth": auth})
    lines = Lines(proxy)
    openssl(proxy.port, None, "1.3")
    failed(lines.one(), "client certificate", "no client certificate", OF_TLS | OF_SIGNATURE)
    lines = Lines(proxy)
    openssl(proxy.port, of_channel("bad-edge-expired"), "1.3")
    identity = {"client_subject", "client_san", "client_sha256", "client_serial"}
    failed(lines.one(), "client certificate", "client certificate has expired", OF_TLS | OF_SIGNATURE | identity)


def test_no_signature(stack):
    """The key server that was asked, and what it says is named as in its own log."""
    server = stack.key_server(clients=[{"match": "DNS:edge1.example", "keys": ["rsa2048"], "allow": ["tls13", "list"]}])
    proxy = stack.proxy(server)
    lines = Lines(proxy)
    assert curl("p256.example", proxy.port).status != 0
    line = lines.one()
    failed(line, "key", "key not found", OF_TLS | OF_SIGNATURE)
    assert line["sni"] == "p256.example"
    assert server.wait_for("request refused", request=line["request"])


# ---- Backends.

def reset(connection):
    connection.recv(1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)


def test_backend_that_is_not_there(stack, server):
    """The server that was tried last."""
    ports = sorted([free_port(), free_port()])
    proxy = stack.proxy(server, backends={"web": {"servers": [f"127.0.0.1:{port}" for port in ports]}})
    lines = Lines(proxy)
    assert curl("p256.example", proxy.port).status != 0
    line = lines.one()
    assert set(line) == SERVED | OF_SIGNATURE
    assert (line["backend"], line["server"], line["end"]) == ("web", f"127.0.0.1:{ports[1]}", "no backend")
    assert (line["from_client"], line["to_client"]) == ("0", "0")


def test_backend_that_is_lost(stack, server):
    with Backend(reset) as backend:
        proxy = stack.proxy(server, backends={"web": {"servers": [backend.address]}})
        lines = Lines(proxy)
        with clients.connect(proxy.port) as client, contextlib.suppress(OSError):
            client.sendall(b"xyz")
            client.recv(1)
        line = lines.one()
        assert (line["server"], line["from_client"], line["end"]) == (backend.address, "3", "backend lost")


# ---- Where the lines go.

@contextlib.contextmanager
def separate_output(proxy):
    """Starts it with a standard output of its own; gives a function that tells the lines there."""
    path = proxy.directory / "stdout"
    with open(path, "ab") as output:
        proxy.stdout = output.fileno()
        proxy.launch()
    wait_until(lambda: proxy.readiness()[0] == 200, "the proxy to be ready")
    yield lambda: path.read_text().splitlines()


@pytest.mark.parametrize("access, on_stdout, on_stderr", [
    (None, 0, 0), ("off", 0, 0), ("stdout", 1, 0), ("stderr", 0, 1)])
def test_where(stack, server, access, on_stdout, on_stderr):
    """Off by default; and standard output gets nothing else."""
    log = {"level": "debug", **({"access": access} if access else {})}
    proxy = stack.proxy(server, log=log, start=False)
    with separate_output(proxy) as lines:
        assert curl("p256.example", proxy.port).status == 0
        assert proxy.stop() == 0
        assert len(lines()) == on_stdout
        assert len(proxy.find("access")) == on_stderr


def test_reload(stack, server):
    """Who comes later is told of as the new configuration says."""
    proxy = stack.proxy(server, log={"level": "info"})
    assert curl("p256.example", proxy.port).status == 0
    proxy.config["log"] = {"level": "info", "access": "stderr"}
    proxy.reload()
    lines = Lines(proxy)
    assert curl("p256.example", proxy.port).status == 0
    assert lines.one()["generation"] == "2"
    assert len(proxy.find("access")) == 1


def test_settings_are_shown(stack, server):
    checked = stack.proxy(server, start=False, log={"access": "stdout", "format": "json"}).check()
    assert "  access:\n    to: stdout\n    format: json\n" in checked.stdout, checked.stderr


@contextlib.contextmanager
def small_pipe(proxy):
    """Starts it with a pipe as its standard output that takes a few lines; gives the end to read from."""
    reading, writing = os.pipe()
    try:
        fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)
        proxy.stdout = writing
        proxy.start()
    finally:
        os.close(writing)
    with open(reading, "rb", buffering=0) as pipe:
        yield pipe


def parsed(octets):
    assert octets.endswith(b"\n")
    return [harness.parse_logfmt(line) for line in octets.decode().splitlines()]


def test_nobody_reads(stack, server):
    """Clients are served all the same; the lines that are lost are counted, and told to who reads again."""
    proxy = stack.proxy(server, start=False)
    gains = None
    with small_pipe(proxy) as pipe:
        gains = Gains(proxy)
        for _ in range(30):
            assert clients.get(proxy.port).startswith(b"HTTP/1.1 200")
        gains.assert_gained("keyless_connections_closed_total", 30)
        lost = int(gains.gained("keyless_access_lines_lost_total"))
        assert 0 < lost < 30
        seen = parsed(pipe.read(65536))  # a shorter line may have found room after one was lost
        assert [line["event"] for line in seen].count("access") == 30 - lost
        assert clients.get(proxy.port).startswith(b"HTTP/1.1 200")
        gains.assert_gained("keyless_connections_closed_total", 31)
        last = parsed(pipe.read(65536))
        assert [line["event"] for line in last] == ["lines lost", "access"]
        assert sum(int(line["count"]) for line in seen + last if line["event"] == "lines lost") == lost
        gains.assert_gained("keyless_access_lines_lost_total", lost)


def test_reader_gone(stack, server):
    """SIGPIPE ends nobody."""
    proxy = stack.proxy(server, start=False)
    with small_pipe(proxy):
        gains = Gains(proxy)
    for _ in range(3):
        assert clients.get(proxy.port).startswith(b"HTTP/1.1 200")
    gains.assert_gained("keyless_access_lines_lost_total", 3)
    assert proxy.metric("keyless_children_restarted_total") == 0


def copy(reading, path):
    """What comes out of a pipe goes to where a Program looks for its log."""
    with open(reading, "rb", buffering=0) as pipe, open(path, "ab", buffering=0) as log:
        while chunk := pipe.read(65536):
            log.write(chunk)


def test_both_in_one_pipe(stack, server):
    """Of two workers, with all that there is to tell: each line is whole."""
    merge = ("sh", "-c", 'exec "$@" 2>&1', "sh")
    proxy = stack.proxy(server, start=False, wrapper=merge, workers=2, log={"level": "debug", "rate": 0, "access": "stdout"})
    reading, proxy.stdout = os.pipe()
    reader = threading.Thread(target=copy, args=(reading, proxy.log_path), daemon=True)
    proxy.launch()
    os.close(proxy.stdout)
    reader.start()
    proxy.wait_ready()
    with Load(proxy.port, threads=4) as load:
        load.more(200)
    gains = int(proxy.metric("keyless_connections_closed_total"))
    assert proxy.stop(signal.SIGTERM) == 0
    reader.join(PATIENCE)
    assert not load.failures, load.failures
    lines = proxy.text().splitlines()
    broken = [line for line in lines if line.count("time=") != line.startswith("time=") or line.count(" event=") > 1]
    assert not broken, broken
    assert len(proxy.find("access")) >= gains >= 200
