"""The admin endpoint of both programs: what it tells, that it is true, and that it cannot be brought down."""

import contextlib
import http.client
import json
import os
import pathlib
import re
import signal
import socket
import ssl
import struct
import time

import pytest

import clients
import harness
import kssl_codec
import prometheus
from clients import Load
from harness import SITES, curl, s_client, wait_until
from kssl_codec import Error
from kssl_peer import Closed, Peer, site_key

PROGRAMS = pytest.mark.parametrize("which", ["keyserver", "proxy"])
README = pathlib.Path(__file__).resolve().parents[2] / "README.md"


@pytest.fixture(scope="module")
def both(module_stack):
    server, proxy = module_stack.pair(
        key_server={"workers": 2}, workers=2, tls={"default": "localhost", "alpn": ["http/1.1"]})
    assert curl("p256.example", proxy.port).status == 0
    wait_until(lambda: server.status()["connections"] == 2, "the proxy's two channels to be told of")
    return {"keyserver": server, "proxy": proxy}


def settled(proxy):
    """The proxy's metrics, with all counted that there was before."""
    wait_until(lambda: proxy.metric("keyless_connections_open") == 0, "earlier connections to be over")
    return proxy.metrics()


def counted(program, before, name, count=1, **labels):
    """Waits until the metric has risen by this much, and then it is no more."""
    goal = before.sum(name, *(f'{key}="{value}"' for key, value in labels.items())) + count
    wait_until(lambda: program.metric(name, **labels) >= goal, f"{name}{labels} to be {goal}")
    assert program.metric(name, **labels) == goal


# ---- The page.


@PROGRAMS
def test_prometheus_takes_the_page(both, which):
    families = prometheus.check_page(both[which].page("/metrics"))
    assert families["keyless_build_info"].samples
    started = families["process_start_time_seconds"].samples[("process_start_time_seconds", ())]
    assert time.time() - 3600 < started <= time.time()


def test_every_metric_is_in_the_readme(both):
    """And the README names none that there is not."""
    documented = set(re.findall(r"`(keyless_\w+|process_\w+_seconds)`", README.read_text()))
    there = set()
    for program in both.values():
        there |= set(prometheus.check_page(program.page("/metrics")))
    assert documented - there == set() and there - documented == set()


@PROGRAMS
def test_build_info(both, which):
    done = both[which].run("-V").stdout
    (series,) = both[which].metrics().matching("keyless_build_info")
    labels = dict(re.findall(r'(\w+)="([^"]*)"', series))
    assert f"keyless-{which} {labels['version']}\n" in done
    assert f"OpenSSL {labels['openssl']}" in done and f"libevent {labels['libevent']}" in done


def test_names_are_escaped(stack):
    """A key server's name with all that could break out of a label or of JSON."""
    name = 'keys "a" \\ \u202e€'
    server = stack.key_server()
    proxy = stack.proxy(server, start=False)
    proxy.config["key_servers"][0]["name"] = name
    proxy.start()
    assert curl("p256.example", proxy.port).status == 0
    page = proxy.page("/metrics")
    prometheus.check_page(page)
    shown = 'keys \\"a\\" \\\\x5c \\\\xe2\\\\x80\\\\xae€'
    assert f'keyless_key_requests_total{{server="{shown}",outcome="ok"}} 1' in page.splitlines()
    assert proxy.status()["key_servers"][0]["name"] == 'keys "a" \\x5c \\xe2\\x80\\xae€'


# ---- The proxy's numbers.


@pytest.mark.parametrize("version", ["1.2", "1.3"])
@pytest.mark.parametrize("name, key_type", [
    ("rsa2048.example", "RSA"), ("p256.example", "P-256"), ("p384.example", "P-384"), ("ed25519.example", "Ed25519")])
def test_handshakes_by_version_and_key(both, version, name, key_type):
    proxy = both["proxy"]
    before = settled(proxy)
    status, text = s_client(proxy.port, "-servername", name, f"-tls{version.replace('.', '_')}")
    assert status == 0, text
    counted(proxy, before, "keyless_handshakes_succeeded_total", version=f"TLSv{version}", key_type=key_type,
            resumed="false")
    counted(proxy, before, "keyless_handshakes_succeeded_total")
    counted(proxy, before, "keyless_handshakes_total", outcome="ok")


def test_durations(both):
    proxy = both["proxy"]
    before = settled(proxy)
    assert curl("p256.example", proxy.port).status == 0
    names = ("handshake", "handshake_client", "key_request", "backend_connect")
    for name in names:
        counted(proxy, before, f"keyless_{name}_duration_seconds_count")
    now = proxy.metrics()
    whole, client, key, _ = (now.sum(f"keyless_{name}_duration_seconds_sum") -
                             before.sum(f"keyless_{name}_duration_seconds_sum") for name in names)
    assert 0 < key < whole < 10 and 0 < client < whole
    assert abs(whole - key - client) < 0.001


def test_stages_of_a_signature(both):
    """Queue and sign as the key server tells them, the way, and verifying: together what the signature took."""
    proxy = both["proxy"]
    proxy.wait_tried()  # test requests have these stages, too
    before = settled(proxy)
    assert curl("p256.example", proxy.port).status == 0
    name = "keyless_key_stage_duration_seconds"
    for stage in ("queue", "sign", "wire", "verify"):
        counted(proxy, before, f"{name}_count", stage=stage)
    now = proxy.metrics()
    gained = lambda series, *labels: now.sum(series, *labels) - before.sum(series, *labels)
    took = {stage: gained(f"{name}_sum", f'stage="{stage}"') for stage in ("queue", "sign", "wire", "verify")}
    assert 0.00001 < took["sign"] < 1 and 0.00002 < took["verify"] < 1 and took["wire"] > 0 and took["queue"] >= 0
    key = gained("keyless_key_request_duration_seconds_sum")
    assert 0.5 * key < sum(took.values()) < key + 0.001


def test_connections_and_bytes(both):
    proxy = both["proxy"]
    before = settled(proxy)
    with clients.connect(proxy.port) as client:
        wait_until(lambda: proxy.metric("keyless_connections_open") == 1, "the connection to be open")
        assert proxy.status()["connections"] in (0, 1)  # told ten times a second
        wait_until(lambda: proxy.status()["connections"] == 1, "the status to tell so")
        request = b"GET / HTTP/1.1\r\nHost: p256.example\r\nConnection: close\r\n\r\n"
        client.sendall(request)
        received = 0
        while chunk := client.recv(65536):
            received += len(chunk)
        counted(proxy, before, "keyless_client_bytes_total", len(request), direction="in")
        counted(proxy, before, "keyless_client_bytes_total", received, direction="out")
    counted(proxy, before, "keyless_connections_total")
    counted(proxy, before, "keyless_connections_closed_total", reason="finished")
    wait_until(lambda: proxy.metric("keyless_connections_open") == 0, "the connection to be closed")


def leaves(port):
    clients.socket.create_connection(("127.0.0.1", port)).close()


def resets(port):
    with socket.create_connection(("127.0.0.1", port)) as raw:
        raw.sendall(b"\x16\x03\x01")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def speaks_http(port):
    with socket.create_connection(("127.0.0.1", port), timeout=harness.PATIENCE) as raw:
        raw.sendall(b"GET / HTTP/1.0\r\n\r\n")
        raw.recv(100)


def distrusts(port):
    """With TLS 1.2, so that its alert is part of the handshake."""
    tls = ssl.create_default_context()
    tls.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises(ssl.SSLCertVerificationError):
        clients.connect(port, tls=tls)


def asks(*arguments):
    return lambda port: s_client(port, "-servername", "p256.example", *arguments)


FAILURES = {
    "client_closed": leaves,
    "client_reset": resets,
    "not_tls": speaks_http,
    "protocol_version": asks("-tls1_1", "-cipher", "ALL@SECLEVEL=0"),
    "no_shared_cipher": asks("-tls1_2", "-cipher", "kRSA@SECLEVEL=0"),
    "no_shared_group": asks("-groups", "ffdhe2048", "-tls1_3"),
    "no_shared_application_protocol": asks("-alpn", "spdy/9"),
    "client_refused_certificate": distrusts,
}


@pytest.mark.parametrize("reason", FAILURES)
def test_failed_handshakes_by_reason(both, reason):
    proxy = both["proxy"]
    before = settled(proxy)
    FAILURES[reason](proxy.port)
    counted(proxy, before, "keyless_handshake_failures_total", reason=reason)
    counted(proxy, before, "keyless_handshake_failures_total")
    counted(proxy, before, "keyless_connections_closed_total", reason="handshake_failed")


def test_failures_of_keys_by_reason(stack):
    """A key server that has none of the keys, and then none at all."""
    server = stack.key_server(start=False)
    server.config["clients"][0]["keys"] = ["ed448"]
    server.start()
    proxy = stack.proxy(server.port, key_channel={**stack_channel(), "timeout": "1s"})
    before = proxy.metrics()
    assert curl("p256.example", proxy.port).status == 35
    counted(proxy, before, "keyless_handshake_failures_total", reason="key_error")
    counted(proxy, before, "keyless_key_requests_total", server="keys-a", outcome="error")
    server.stop()
    wait_until(lambda: proxy.metric("keyless_key_channels_up") == 0, "the channel to be down")
    assert curl("p256.example", proxy.port).status == 35
    counted(proxy, before, "keyless_handshake_failures_total", reason="no_key_server")
    counted(proxy, before, "keyless_key_requests_total", server="none", outcome="no_server")
    counted(proxy, before, "keyless_handshakes_total", 2, outcome="key")


def stack_channel():
    return {
        "certificate": str(harness.CHANNEL / "edge1.pem"),
        "key": str(harness.CHANNEL / "edge1-key.pem"),
        "ca": str(harness.CHANNEL / "ca.pem"),
    }


def not_after(path):
    """As openssl tells it, in Unix seconds."""
    done = harness.subprocess.run(["openssl", "x509", "-in", path, "-noout", "-enddate", "-dateopt", "iso_8601"],
                                  capture_output=True, text=True, check=True)
    return int(time.mktime(time.strptime(done.stdout.strip(), "notAfter=%Y-%m-%d %H:%M:%SZ"))) - time.timezone


def test_certificates_expire(both):
    metrics = both["proxy"].metrics()
    chains = sorted((SITES / "chains").glob("*.pem"))
    assert metrics.sum("keyless_certificates") == len(chains)
    ends = {str(chain): not_after(chain) for chain in chains}
    for path, end in ends.items():
        assert metrics.sum("keyless_certificate_not_after_timestamp_seconds", f'file="{path}"') == end
    assert metrics.sum("keyless_certificates_earliest_not_after_timestamp_seconds") == min(ends.values())
    assert metrics.sum("keyless_channel_certificate_not_after_timestamp_seconds") == not_after(
        harness.CHANNEL / "edge1.pem")
    assert both["keyserver"].metrics().sum("keyless_keyserver_certificate_not_after_timestamp_seconds") == not_after(
        harness.CHANNEL / "keyserver.pem")


# ---- The key server's numbers.


def test_requests_by_client_operation_and_key(both):
    server = both["keyserver"]
    before = server.metrics()
    with Peer(server.port) as peer:
        peer.hello()
        peer.ping()
        peer.sign_tls13(site_key("p256"), 0x0403, bytes(32))
        peer.sign_tls13(site_key("rsa2048"), 0x0804, bytes(32))
        assert peer.sign_tls13(site_key("rsa2048"), 0x0403, bytes(32)).error == Error.CRYPTO
        client = "DNS:edge1.example"
        for operation, outcome, count in (("hello", "ok", 1), ("ping", "ok", 1), ("sign-tls13", "ok", 2),
                                          ("sign-tls13", "error", 1)):
            counted(server, before, "keyless_keyserver_requests_total", count, client=client, operation=operation,
                    outcome=outcome)
        for key_type in ("P-256", "RSA"):
            counted(server, before, "keyless_keyserver_signatures_total", key_type=key_type, outcome="ok")
        counted(server, before, "keyless_keyserver_refusals_total", error="0x01", reason="cryptography failed")
        for stage in ("queue", "sign"):
            for cost_class in ("ec", "rsa"):
                counted(server, before, f"keyless_keyserver_{stage}_duration_seconds_count", **{"class": cost_class})
        counted(server, before, "keyless_keyserver_client_connections", client=client)
    wait_until(lambda: server.metric("keyless_keyserver_client_connections", client=client) ==
               before.sum("keyless_keyserver_client_connections"), "the connection to be gone")
    assert server.metric("keyless_keyserver_queue_requests") == 0


def without_certificate(port):
    with pytest.raises((Closed, ssl.SSLError)), Peer(port, None) as peer:
        peer.ping()


def of_another_ca(port):
    with pytest.raises((Closed, ssl.SSLError)), Peer(port, "bad-edge-other-ca") as peer:
        peer.ping()


KEY_SERVER_FAILURES = {
    "closed": leaves,
    "protocol": speaks_http,
    "no_certificate": without_certificate,
    "certificate_refused": of_another_ca,
}


@pytest.mark.parametrize("reason", KEY_SERVER_FAILURES)
def test_failed_handshakes_of_the_key_server(both, reason):
    server = both["keyserver"]
    before = server.metrics()
    KEY_SERVER_FAILURES[reason](server.port)
    counted(server, before, "keyless_keyserver_handshake_failures_total", reason=reason)
    counted(server, before, "keyless_keyserver_handshake_failures_total")
    counted(server, before, "keyless_keyserver_connections_total")


def test_client_without_entry(both):
    server = both["keyserver"]
    before = server.metrics()
    with pytest.raises((Closed, ssl.SSLError)), Peer(server.port, "stranger") as peer:
        peer.ping()
    counted(server, before, "keyless_keyserver_connections_refused_total", reason="no_client_entry")


def test_slow_handshake_of_the_key_server(stack):
    server = stack.key_server(limits={"handshake_timeout": "200ms"})
    before = server.metrics()
    with socket.create_connection(("127.0.0.1", server.port)):
        counted(server, before, "keyless_keyserver_handshake_failures_total", reason="timeout")


# ---- Counters never fall.


class Watcher:
    """Looks at the page again and again; what may never fall must not have."""

    def __init__(self, program):
        self.program, self.seen, self.looks = program, {}, 0

    def look(self):
        try:
            page = self.program.page("/metrics")
        except (OSError, http.client.HTTPException):
            return  # its process is being replaced
        now = prometheus.monotonic(page)
        fallen = {name: (value, now.get(name)) for name, value in self.seen.items() if now.get(name, 0) < value}
        assert not fallen, fallen
        self.seen = now
        self.looks += 1

    def until(self, condition, what):
        wait_until(lambda: (self.look(), condition())[1], what)


def replaced(program, victim, kind, count):
    live = [child.pid for child in program.children(kind)]
    return len(live) == count and victim.pid not in live


def test_no_counter_falls(stack):
    """Over reloads that rename the key server and the client entry, and over the death of each kind of process."""
    server, proxy = stack.pair(key_server={"workers": 2}, workers=2)
    watchers = [Watcher(server), Watcher(proxy)]
    with Load(proxy.port) as load:
        load.more(10)
        for name, match in (("keys-b", "CN:edge1.example"), ("keys-a", "DNS:edge1.example")):
            proxy.config["key_servers"][0]["name"] = name
            proxy.reload()
            server.config["clients"][0]["match"] = match
            server.reload()
            goal = load.done + 10
            for watcher in watchers:
                watcher.until(lambda g=goal: load.done >= g, "more requests")
        for program, kinds in ((proxy, ("worker", "helper")), (server, ("frontend", "signer", "helper"))):
            for kind in kinds:
                victim, count = program.children(kind)[0], len(program.children(kind))
                victim.signal(signal.SIGKILL)
                for watcher in watchers:
                    watcher.until(lambda: replaced(program, victim, kind, count), f"{kind} to be replaced")
        goal = load.done + 10
        for watcher in watchers:
            watcher.until(lambda: load.done >= goal, "more requests")
    for watcher in watchers:
        watcher.until(lambda: watcher.looks > 20, "looks")
    assert proxy.metric("keyless_key_requests_total", server="keys-a", outcome="ok") > 10
    assert proxy.metric("keyless_key_requests_total", server="keys-b", outcome="ok") > 5
    assert proxy.metric("keyless_key_requests_total") == proxy.metric("keyless_key_requests_total", server="keys-a") + (
        proxy.metric("keyless_key_requests_total", server="keys-b")) + (
        proxy.metric("keyless_key_requests_total", server="none"))
    assert server.metric("keyless_keyserver_requests_total", client="CN:edge1.example", operation="sign-transcript") > 5
    assert proxy.metric("keyless_children_restarted_total") == 2
    assert server.metric("keyless_children_restarted_total") == 3


# ---- Ready or not.


def test_proxy_is_ready_while_it_has_a_key_server(stack):
    server, proxy = stack.pair()
    assert proxy.readiness() == (200, "ready")
    server.stop()
    wait_until(lambda: proxy.readiness()[0] == 503, "the proxy not to be ready")
    wait_until(lambda: proxy.readiness() == (503, "no key server is up; keys-a: cannot connect: Connection refused"),
               "the reason")
    assert proxy.page("/healthz") == "ok\n"
    assert curl("p256.example", proxy.port).status == 35
    server.start()
    wait_until(lambda: proxy.readiness() == (200, "ready"), "the proxy to be ready again")
    assert curl("p256.example", proxy.port).status == 0


def test_proxy_without_key_server_from_the_start(stack):
    proxy = stack.proxy(harness.free_port(), start=False)
    proxy.launch()
    wait_until(lambda: proxy.find("ready"), "the proxy to have waited long enough")
    assert proxy.readiness()[0] == 503


def test_proxy_is_not_ready_with_the_channels_of_yesterday(stack):
    """The old generation, which drains, has a key server; the new one has none: that counts."""
    server, proxy = stack.pair()
    with clients.connect(proxy.port) as client:
        proxy.config["key_servers"][0]["address"] = f"127.0.0.1:{harness.free_port()}"
        proxy.reload()
        assert proxy.metric("keyless_key_channels_up") == 1
        assert proxy.readiness()[0] == 503
        client.sendall(b"GET / HTTP/1.1\r\nHost: p256.example\r\nConnection: close\r\n\r\n")
        assert client.recv(65536).startswith(b"HTTP/1.1 200")


def test_proxy_without_live_workers(stack):
    _, proxy = stack.pair(workers=2)
    for worker in proxy.children("worker"):
        worker.signal(signal.SIGSTOP)
    wait_until(lambda: proxy.readiness() == (503, "no worker is ready"), "the proxy not to be ready")
    assert proxy.metric("keyless_children_ready", kind="worker") == 0
    assert {child["state"] for child in proxy.status()["processes"] if child["kind"] == "worker"} == {"stalled"}
    for worker in proxy.children("worker"):
        worker.signal(signal.SIGCONT)
    wait_until(lambda: proxy.readiness() == (200, "ready"), "the proxy to be ready again")
    wait_until(lambda: proxy.metric("keyless_children_ready", kind="worker") == 2, "both workers to go on")
    assert proxy.metric("keyless_children_stalled_total") == 2


@pytest.mark.parametrize("kind, reason", [("signer", "no signer is ready"), ("frontend", "no front end is ready")])
def test_key_server_is_ready_while_it_can_sign(stack, kind, reason):
    server = stack.key_server()
    assert server.readiness() == (200, "ready")
    (child,) = server.children(kind)
    child.signal(signal.SIGSTOP)
    wait_until(lambda: server.readiness() == (503, reason), "the key server not to be ready")
    assert server.page("/healthz") == "ok\n"
    child.signal(signal.SIGCONT)
    wait_until(lambda: server.readiness() == (200, "ready"), "the key server to be ready again")


# ---- The state.


def times(text):
    return time.strptime(text, "%Y-%m-%dT%H:%M:%SZ")


@PROGRAMS
def test_status_of_the_program(both, which):
    program = both[which]
    status = program.status()
    assert status["program"] == which and status["pid"] == program.master().pid and status["generation"] == 1
    assert 0 <= status["uptime_seconds"] < 3600
    assert times(status["started"]) <= times(status["time"])
    told = sorted((child["pid"], child["kind"], child["state"]) for child in status["processes"])
    assert told == sorted((child.pid, child.name().removeprefix("kless-"), "ready") for child in program.children())
    for kind in {child["kind"] for child in status["processes"]}:
        indexes = sorted(child["index"] for child in status["processes"] if child["kind"] == kind)
        assert indexes == list(range(len(indexes)))
    assert status["limits"]["descriptors_per_process"] > 0 and status["limits"]["workers"] == 2


def test_status_of_the_proxy(both):
    server, proxy = both["keyserver"], both["proxy"]

    def told():
        """Ten times a second: of the first answer, and of the last one too."""
        status = proxy.status()
        return status["key_servers"][0]["latency_seconds"] and status["key_servers"][0]["in_flight"] == 0 and status

    status = wait_until(told, "the first answer to be told of")
    (keys,) = status["key_servers"]
    assert keys["name"] == "keys-a" and keys["address"] == f"127.0.0.1:{server.port}"
    assert keys["server_name"] == "keys.example"
    assert keys["up"] is True and keys["channels_up"] == keys["channels"] == 2 and keys["in_flight"] == 0
    assert 0 < keys["latency_seconds"] < 1 and keys["last_error"] is None
    chains = {pathlib.Path(chain["file"]).name: chain for chain in status["certificates"]}
    assert status["certificate_count"] == len(chains) == len(list((SITES / "chains").glob("*.pem")))
    wild = chains["wildcard.pem"]
    assert wild["names"] == ["*.wild.example"] and wild["key_type"] == "P-256"
    assert bytes.fromhex(wild["ski"]) == kssl_codec.ski(site_key("wildcard"))
    assert int(time.mktime(times(wild["not_after"]))) - time.timezone == not_after(SITES / "chains" / "wildcard.pem")
    assert status["channel_certificate"]["file"].endswith("edge1.pem")
    assert status["limits"]["handshakes_per_worker"] > 0


def test_status_of_the_key_server(both):
    server = both["keyserver"]
    status = wait_until(lambda: (told := server.status())["connections"] == 2 and told, "the proxy's two channels")
    (client,) = status["clients"]
    assert client["match"] == "DNS:edge1.example" and client["keys"] == ["*"]
    assert client["allow"] == ["tls13", "tls12", "list"] and client["connections"] == 2
    keys = {key["label"]: key for key in status["keys"]}
    assert status["key_count"] == len(keys) == len(list((SITES / "keys").glob("*.key")))
    assert keys["rsa2048"]["type"] == "RSA" and bytes.fromhex(keys["ed448"]["ski"]) == kssl_codec.ski(site_key("ed448"))
    assert [queue["class"] for queue in status["queues"]] == ["ec", "rsa", "rsa_large"]
    assert status["certificate"]["file"].endswith("keyserver.pem")
    assert status["limits"]["in_flight_per_connection"] > 0


def test_status_over_a_reload(stack):
    """Old and new children are told apart, and the last error of a key server is kept."""
    server, proxy = stack.pair()
    server.stop()
    wait_until(lambda: proxy.status()["key_servers"][0]["last_error"], "the error to be told")
    server.start()
    wait_until(lambda: proxy.status()["key_servers"][0]["up"], "the key server to be up again")
    told = proxy.status()["key_servers"][0]
    assert "refused" in told["last_error"] or "closed" in told["last_error"]
    assert times(told["last_error_time"])
    with clients.connect(proxy.port) as client:
        proxy.reload()
        assert proxy.status()["generation"] == 2
        wait_until(lambda: ("worker", 1, "draining") in children(proxy), "the old worker to be draining")
        assert ("worker", 2, "ready") in children(proxy)
        client.sendall(b"GET / HTTP/1.1\r\nHost: p256.example\r\nConnection: close\r\n\r\n")
        assert client.recv(65536).startswith(b"HTTP/1.1 200")
    wait_until(lambda: {generation for _, generation, _ in children(proxy)} == {2}, "the old generation to be gone")


def children(program):
    return {(child["kind"], child["generation"], child["state"]) for child in program.status()["processes"]}


# ---- Requests good and bad.


def exchange(program, data, half_close=False):
    """What comes back until the endpoint closes."""
    with socket.create_connection(("127.0.0.1", program.admin_port), timeout=harness.PATIENCE) as raw:
        raw.sendall(data)
        if half_close:
            raw.shutdown(socket.SHUT_WR)
        answer = b""
        while chunk := raw.recv(65536):
            answer += chunk
        return answer


@PROGRAMS
@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "BREW"])
def test_only_get_and_head(both, which, method):
    for path in ("/metrics", "/healthz", "/readyz", "/status"):
        answer = exchange(both[which], f"{method} {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        assert answer.startswith(b"HTTP/1.1 405 ") and b"\r\nAllow: GET, HEAD\r\n" in answer, answer


@PROGRAMS
@pytest.mark.parametrize("path", ["/metrics", "/healthz", "/readyz", "/status"])
def test_head(both, which, path):
    connection = http.client.HTTPConnection("127.0.0.1", both[which].admin_port, timeout=harness.PATIENCE)
    connection.request("HEAD", path)
    answer = connection.getresponse()
    assert answer.status == 200 and answer.read() == b""
    assert int(answer.headers["Content-Length"]) > 0
    assert answer.headers["Cache-Control"] == "no-store"


BAD = {
    "nothing known": (b"GET /nowhere HTTP/1.1\r\nHost: x\r\n\r\n", b"404"),
    "up": (b"GET /../metrics HTTP/1.1\r\nHost: x\r\n\r\n", b"404"),
    "no request": (b"\x00\xff\xfe" * 100 + b"\r\n\r\n", b"400"),
    "TLS": (clients.client_hello("x.example") + b"\r\n\r\n", b"400"),
    "line without end": (b"GET /" + b"a" * 10000, b"431"),
    "head without end": (b"GET /metrics HTTP/1.1\r\n" + b"A: b\r\n" * 1000, b"431"),
    "one long field": (b"GET /metrics HTTP/1.1\r\nHost: x\r\nA: " + b"b" * 100000 + b"\r\n\r\n", b"431"),
    "bare line feeds": (b"GET /metrics HTTP/1.1\nHost: x\n\nHost: y\r\n\r\n", b"400"),
    "a NUL": (b"GET /metrics\x00 HTTP/1.1\r\nHost: x\r\n\r\n", b"400"),
    "version": (b"GET /metrics HTTP/3.0\r\nHost: x\r\n\r\n", b"505"),
    "two lengths": (b"GET /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", b"400"),
    "chunked": (b"POST /metrics HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n", b"501"),
}


@PROGRAMS
@pytest.mark.parametrize("what", BAD)
def test_bad_requests(both, which, what):
    data, status = BAD[what]
    answer = exchange(both[which], data)
    assert answer.startswith(b"HTTP/1.1 " + status + b" "), answer[:200]
    assert both[which].page("/healthz") == "ok\n"


@PROGRAMS
def test_one_answer_a_connection(both, which):
    request = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
    assert exchange(both[which], request * 50).count(b"HTTP/1.1 ") == 1
    assert exchange(both[which], request, half_close=True).endswith(b"\r\n\r\nok\n")
    assert exchange(both[which], b"GET /healthz HTTP/1.0\r\n\r\n").endswith(b"\r\n\r\nok\n")


class Visitors:
    """Connections to the admin endpoint that are held open."""

    def __init__(self, program, count, data=b""):
        self.raws = []
        for _ in range(count):
            raw = socket.create_connection(("127.0.0.1", program.admin_port), timeout=harness.PATIENCE)
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            self.raws.append(raw)
            with contextlib.suppress(OSError):
                raw.sendall(data)

    def send(self, data):
        for raw in self.raws:
            with contextlib.suppress(OSError):
                raw.sendall(data)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for raw in self.raws:
            raw.close()


HOSTILE = {
    "silent": (b"", b""),
    "slow": (b"GET /met", b"r"),
    "never reading": (b"GET /status HTTP/1.1\r\nHost: x\r\n\r\n", b"GET /status HTTP/1.1\r\nHost: x\r\n\r\n"),
    "flooding": (b"x" * 3000, b"y" * 60000),
}


@PROGRAMS
@pytest.mark.parametrize("what", HOSTILE)
def test_hostile_visitors(both, which, what):
    """300 of them at a time: others are answered at once, the process stays, and nothing is left of them."""
    program = both[which]
    first, then = HOSTILE[what]
    (helper,) = program.children("helper")
    assert program.page("/healthz") == "ok\n"
    descriptors, resident = helper.descriptors(), helper.resident()
    with Visitors(program, 300, first) as visitors:
        for _ in range(5):
            visitors.send(then)
            began = time.monotonic()
            assert program.page("/healthz") == "ok\n"
            assert time.monotonic() - began < 5  # a visitor that is waited for has ten seconds
            prometheus.check_page(program.page("/metrics"))
        assert helper.descriptors() <= descriptors + 150
        # The sanitizer keeps what was freed for a while.
        assert harness.SANITIZED or helper.resident() < resident + 32 * 1024 * 1024
    wait_until(lambda: helper.descriptors() <= descriptors, "their descriptors to be free")
    assert [child.pid for child in program.children("helper")] == [helper.pid]
    assert program.metric("keyless_children_stalled_total") == 0


@PROGRAMS
def test_a_connection_has_its_time(both, which):
    """However slowly it goes on, it ends."""
    began = time.monotonic()
    with socket.create_connection(("127.0.0.1", both[which].admin_port), timeout=0.2) as raw:

        def closed():
            try:
                raw.sendall(b"x")
                return raw.recv(100) == b""
            except TimeoutError:
                return False
            except OSError:
                return True

        wait_until(closed, "the connection to be closed")
    assert 8 < time.monotonic() - began < 20


def test_over_a_unix_socket(stack, tmp_path):
    path = tmp_path / "admin.sock"
    server = stack.key_server(admin={"listen": f"unix:{path}"})
    with socket.socket(socket.AF_UNIX) as raw:
        raw.settimeout(harness.PATIENCE)
        raw.connect(str(path))
        raw.sendall(b"GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n")
        answer = b""
        while chunk := raw.recv(65536):
            answer += chunk
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n") and answer.endswith(b"\r\n\r\nready\n")
    assert server.stop() == 0 and not os.path.exists(path)


@PROGRAMS
def test_questions_during_reloads(stack, which):
    """Whoever asks while generations change gets an answer each time, whole and well-formed."""
    server = stack.key_server()
    program = server if which == "keyserver" else stack.proxy(server)
    for generation in range(2, 6):
        after = program.mark()
        program.master().signal(signal.SIGHUP)

        def reloaded():
            prometheus.check_page(program.page("/metrics"))
            json.loads(program.page("/status"))
            return program.find("reloaded", after=after)

        wait_until(reloaded, "the reload")
        wait_until(lambda g=generation: program.status()["generation"] == g, "the new helper to answer")
