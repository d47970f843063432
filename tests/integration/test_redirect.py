"""redirect_to_https: plain HTTP is sent to the same over HTTPS; what is no request is refused; nobody may take long."""

import contextlib
import socket
import subprocess
import time

import pytest

import clients
from counters import Gains
from harness import PATIENCE, SITE_CA, free_port, wait_until

OUTCOMES = ("redirected", "refused", "gone", "timeout")
METRIC = "keyless_redirects_total"


def with_redirect(stack, server, to=None, start=True, **changes):
    """A proxy with a port for TLS, and proxy.plain for HTTP."""
    proxy = stack.proxy(server, start=False, **changes)
    proxy.plain = free_port()
    proxy.config["listen"].append({"address": f"127.0.0.1:{proxy.plain}", "redirect_to_https": to or proxy.port})
    return proxy.start() if start else proxy


@pytest.fixture(scope="module")
def server(module_stack):
    return module_stack.key_server()


@pytest.fixture(scope="module")
def proxy(module_stack, server):
    return with_redirect(module_stack, server)


@pytest.fixture(scope="module")
def on(module_stack, server):
    return with_redirect(module_stack, server, to="on")


def ask(port, data, timeout=PATIENCE, finish=False):
    """All that comes back for these octets, until the proxy ends the connection."""
    with socket.create_connection(("127.0.0.1", port), timeout=timeout) as raw:
        raw.sendall(data)
        if finish:
            raw.shutdown(socket.SHUT_WR)
        answer = b""
        while chunk := raw.recv(65536):
            answer += chunk
        return answer


def status_of(answer):
    return int(answer.split()[1])


def location_of(answer):
    fields = dict(line.split(b": ", 1) for line in answer.partition(b"\r\n\r\n")[0].split(b"\r\n")[1:])
    return fields.get(b"Location", b"").decode()


@contextlib.contextmanager
def counted(proxy, outcome):
    """One client more with this outcome, and no other."""
    gains = Gains(proxy)
    yield
    gains.assert_gained(METRIC, outcome=outcome)
    assert gains.gained(METRIC) == 1


# ---- Sent on.

def test_curl_goes_on_over_https(proxy):
    """To the end: the certificate is verified, and the backend of the TLS listener answers."""
    with counted(proxy, "redirected"):
        done = subprocess.run(
            ["curl", "--silent", "--show-error", "--location", "--cacert", SITE_CA, "--max-time", str(PATIENCE),
             "--resolve", f"p256.example:{proxy.plain}:127.0.0.1", "--resolve", f"p256.example:{proxy.port}:127.0.0.1",
             "--write-out", "%{num_redirects} %{url_effective}", f"http://p256.example:{proxy.plain}/a?b=c"],
            capture_output=True, text=True, check=True)
    assert '"sni": "p256.example"' in done.stdout
    assert done.stdout.endswith(f"1 https://p256.example:{proxy.port}/a?b=c"), done.stdout


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "OPTIONS", "DELETE"])
def test_methods(on, method):
    """308 keeps the method; no answer has a body."""
    with counted(on, "redirected"):
        answer = ask(on.plain, f"{method} /x?y HTTP/1.1\r\nHost: A.example\r\n\r\n".encode())
    assert status_of(answer) == 308 and answer.endswith(b"\r\n\r\n") and b"Content-Length: 0\r\n" in answer
    assert location_of(answer) == "https://a.example/x?y"
    on.wait_for("access", end="redirected", status=308, location="https://a.example/x?y",
                listener=f"127.0.0.1:{on.plain}")


def test_body_is_dropped(proxy):
    with counted(proxy, "redirected"):
        answer = ask(proxy.plain,
                     b"POST /x HTTP/1.1\r\nHost: a.example\r\nContent-Length: 60000\r\n\r\n" + bytes(60000))
    assert location_of(answer) == f"https://a.example:{proxy.port}/x"


def test_octet_by_octet(proxy):
    with counted(proxy, "redirected"), socket.create_connection(("127.0.0.1", proxy.plain), timeout=PATIENCE) as raw:
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for octet in b"\r\nGET / HTTP/1.1\r\nHost: a.example\r\n\r\n":
            raw.sendall(bytes([octet]))
        assert raw.recv(65536).startswith(b"HTTP/1.1 308 ")


def test_half_closed(proxy):
    with counted(proxy, "redirected"):
        began = time.monotonic()
        assert status_of(ask(proxy.plain, b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n", finish=True)) == 308
        assert time.monotonic() - began < 1.5, "it waited for a client that was gone"


def test_one_answer_for_a_connection(proxy):
    with counted(proxy, "redirected"):
        answer = ask(proxy.plain,
                     b"GET /1 HTTP/1.1\r\nHost: a.example\r\n\r\nGET /2 HTTP/1.1\r\nHost: a.example\r\n\r\n")
    assert answer.count(b"HTTP/1.1 308") == 1 and b"Connection: close\r\n" in answer


# ---- Refused.

REFUSED = {
    "no host": (b"GET / HTTP/1.1\r\n\r\n", 400),
    "no host in HTTP/1.0": (b"GET / HTTP/1.0\r\n\r\n", 400),
    "two hosts": (b"GET / HTTP/1.1\r\nHost: a.example\r\nHost: b.example\r\n\r\n", 400),
    "a host that is none": (b"GET / HTTP/1.1\r\nHost: a.example/evil\r\n\r\n", 400),
    "a header in the host": (b"GET / HTTP/1.1\r\nHost: a.example\rX: y\r\n\r\n", 400),
    "a header in the path": (b"GET /\rX:y HTTP/1.1\r\nHost: a.example\r\n\r\n", 400),
    "a target that is none": (b"GET * HTTP/1.1\r\nHost: a.example\r\n\r\n", 400),
    "no HTTP": (b"hello there\r\n", 400),
    "SSH": (b"SSH-2.0-OpenSSH_9.2\r\n", 400),
    "line feeds alone": (b"GET / HTTP/1.1\nHost: a.example\n\n", 400),
    "TLS": (b"\x16\x03\x01\x00\xa5\x01\x00\x00", 400),
    "zeros": (bytes(100), 400),
    "HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    "chunked": (b"POST / HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\n\r\n", 501),
    "a head too long": (b"GET / HTTP/1.1\r\nHost: a.example\r\nX: " + b"x" * 9000, 431),
    "a line too long": (b"GET /" + b"x" * 9000, 431),
}


@pytest.mark.parametrize("what", REFUSED)
def test_refused(proxy, what):
    data, status = REFUSED[what]
    with counted(proxy, "refused"):
        answer = ask(proxy.plain, data)
    assert status_of(answer) == status and location_of(answer) == ""
    proxy.wait_for("access", end="refused", status=status)


def test_tls_client_at_the_plain_port(proxy):
    """Its hello is no request: it is told at once, not after a timeout."""
    with counted(proxy, "refused"), pytest.raises(OSError):
        clients.connect(proxy.plain, timeout=PATIENCE)


# ---- Those who take long, and those who leave.

def test_slow_clients_end(stack, server):
    proxy = with_redirect(stack, server, limits={"handshake_timeout": "1s"})
    for data in (b"", b"GET / HTTP/1.1\r\nHost: a"):
        with counted(proxy, "timeout"):
            began = time.monotonic()
            assert ask(proxy.plain, data) == b""
            assert 0.5 < time.monotonic() - began < PATIENCE / 2
    wait_until(lambda: len(proxy.find("access", end="timeout")) == 2, "the line of each")
    assert "status" not in proxy.find("access")[0]


def test_endless_client_ends(proxy):
    """It has its answer, and goes on sending."""
    with counted(proxy, "redirected"), socket.create_connection(("127.0.0.1", proxy.plain), timeout=PATIENCE) as raw:
        raw.sendall(b"POST / HTTP/1.1\r\nHost: a.example\r\n\r\n")
        began = time.monotonic()
        with pytest.raises(OSError):
            while time.monotonic() - began < PATIENCE:
                raw.sendall(bytes(10000))
                time.sleep(0.01)


@pytest.mark.parametrize("data", [b"", b"GET / HT"])
def test_leaving(proxy, data):
    after = proxy.mark()
    with counted(proxy, "gone"), socket.create_connection(("127.0.0.1", proxy.plain)) as raw:
        raw.sendall(data)
    assert [line["end"] for line in proxy.find("access", after=after)] == ["client lost"]


def test_nothing_is_left(proxy):
    (worker,) = proxy.children("worker")
    before = worker.descriptors()
    for data in (b"", b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n", b"\0", b"GET"):
        with socket.create_connection(("127.0.0.1", proxy.plain)) as raw:
            raw.sendall(data)
    wait_until(lambda: worker.descriptors() <= before, "the descriptors to be closed")
    assert clients.get(proxy.port).startswith(b"HTTP/1.1 200")


def test_limit(stack, server):
    """They count among limits.connections: the next one waits until one of them has ended."""
    proxy = with_redirect(stack, server, limits={"connections": 2})
    with contextlib.ExitStack() as held:
        for _ in range(2):
            held.enter_context(socket.create_connection(("127.0.0.1", proxy.plain)))
        wait_until(lambda: proxy.find("accepting paused"), "accepting to pause")
    assert status_of(ask(proxy.plain, b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n")) == 308


def test_drain(stack, server):
    """Who is connected when the proxy is told to end is answered; then it ends."""
    proxy = with_redirect(stack, server)
    with socket.create_connection(("127.0.0.1", proxy.plain), timeout=PATIENCE) as raw:
        raw.sendall(b"GET / HTTP/1.1\r\n")
        (worker,) = proxy.children("worker")
        proxy.reload()
        assert worker.alive()
        raw.sendall(b"Host: a.example\r\n\r\n")
        assert raw.recv(65536).startswith(b"HTTP/1.1 308 ")
    wait_until(lambda: not worker.alive(), "the old worker to end")


# ---- Configuration.

@pytest.mark.parametrize("setting, error", [
    ({"redirect_to_https": "yes"}, 'listen[1].redirect_to_https: got "yes", expected on, off or a port'),
    ({"redirect_to_https": 65536}, 'listen[1].redirect_to_https: got "65536", expected on, off or a port'),
    ({"redirect_to_https": "on", "backend": "web"}, 'listen[1].backend: got "web", expected none beside'),
])
def test_errors(stack, server, setting, error):
    proxy = stack.proxy(server, start=False)
    proxy.config["listen"].append({"address": "127.0.0.1:1", **setting})
    checked = proxy.check()
    assert checked.returncode == 2
    assert error in checked.stderr, checked.stderr
