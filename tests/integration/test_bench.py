"""keyless-bench: that its figures are of what it says, and that failures show in its exit status."""

import json
import os
import subprocess

import pytest

import harness
from harness import BUILD, CHANNEL, SITES, SITE_CA, free_port, wait_until

BENCH = BUILD / "tests" / "bench" / "keyless-bench"
CHANNEL_OPTIONS = ["--certificate", CHANNEL / "edge1.pem", "--key", CHANNEL / "edge1-key.pem", "--ca", CHANNEL / "ca.pem",
                   "--server-name", "keys.example"]


def bench(*arguments):
    return subprocess.run([BENCH, *map(str, arguments)], capture_output=True, text=True, timeout=harness.PATIENCE * 3,
                          check=False)


def result(done):
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def assert_histogram(figures):
    latency = figures["latency_us"]
    assert 0 < latency["p50"] <= latency["p90"] <= latency["p99"] <= latency["p99.9"] <= latency["max"]
    assert 0 < latency["mean"] <= latency["max"]
    # The seconds are rounded to milliseconds: a short run says little about its rate.
    assert figures["rate"] == pytest.approx(figures["done"] / figures["seconds"], abs=figures["rate"] * 0.001 / figures["seconds"] + 1)


@pytest.fixture(scope="module")
def pair(module_stack):
    return module_stack.pair(tls={"default": "localhost", "groups": "X25519:P-256:P-384"})


@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_full_handshakes(pair, version):
    _, proxy = pair
    before = proxy.metric("keyless_handshakes_total", outcome="ok")
    figures = result(bench("handshake", "--json", "--count", 40, "--warm-up", 5, "--parallel", 3, "--tls", version,
                           "--groups", "P-256", "--sni", "p256.example", "--ca", SITE_CA,
                           "--pid", proxy.master().pid, f"127.0.0.1:{proxy.port}"))
    assert 40 <= figures["done"] <= 42 and figures["failed"] == 0
    assert figures["version"] == f"TLSv{version}" and figures["resumed"] is False
    assert figures["group"] == "prime256v1"
    assert 50 < figures["cpu_us"] < 1_000_000
    assert_histogram(figures)
    wait_until(lambda: proxy.metric("keyless_handshakes_total", outcome="ok") >= before + 45, "the proxy's own count")


def test_handshakes_that_fail(pair):
    _, proxy = pair
    refused = bench("handshake", "--json", "--count", 5, "--warm-up", 0, "--sni", "wrong.example", "--ca", SITE_CA,
                    f"127.0.0.1:{proxy.port}")
    assert refused.returncode == 1
    assert json.loads(refused.stdout)["done"] == 0
    assert "certificate verify failed" in refused.stderr
    nobody = bench("handshake", "--count", 2, "--warm-up", 0, f"127.0.0.1:{free_port()}")
    assert nobody.returncode == 1 and "refused" in nobody.stderr


@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_a_request_after_the_handshake(pair, version):
    """Its answer's first octet has figures of its own, of the same clients; the backend is asked by each of them."""
    _, proxy = pair
    before = proxy.metric("keyless_client_bytes_total", direction="in")
    figures = result(bench("handshake", "--json", "--count", 20, "--warm-up", 2, "--parallel", 3, "--tls", version,
                           "--sni", "p256.example", "--request", "/some/where?x=1", f"127.0.0.1:{proxy.port}"))
    assert 20 <= figures["done"] <= 22 and figures["failed"] == 0
    assert_histogram(figures)
    first, handshake = figures["first_octet_us"], figures["latency_us"]
    assert all(first[name] >= handshake[name] for name in ("mean", "p50", "max"))
    request = b"GET /some/where?x=1 HTTP/1.1\r\nHost: p256.example\r\nConnection: close\r\n\r\n"

    def asked():
        return proxy.metric("keyless_client_bytes_total", direction="in") - before

    wait_until(lambda: asked() >= 22 * len(request), "the requests")
    assert asked() % len(request) == 0
    shown = bench("handshake", "--count", 2, "--sni", "p256.example", "--request", "/", f"127.0.0.1:{proxy.port}")
    assert shown.returncode == 0 and "first octet of the answer, microseconds:  p50" in shown.stdout


def test_a_request_that_nobody_answers(stack):
    """The handshake alone is no success then."""
    proxy = stack.proxy(stack.key_server(), backends={"web": {"servers": [f"127.0.0.1:{free_port()}"]}})
    options = ["--json", "--count", 2, "--warm-up", 0, "--sni", "p256.example", f"127.0.0.1:{proxy.port}"]
    done = bench("handshake", "--request", "/", *options)
    assert done.returncode == 1 and "the request was not answered" in done.stderr
    figures = json.loads(done.stdout)
    assert figures["done"] == 0 and figures["failed"] >= 2 and "first_octet_us" not in figures
    assert "first_octet_us" not in result(bench("handshake", *options))


@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_resumed_handshakes(version):
    port = free_port()
    server = subprocess.Popen(["openssl", "s_server", "-accept", f"127.0.0.1:{port}", "-quiet",
                               "-cert", SITES / "private" / "p256.pem", "-key", SITES / "keys" / "p256.key"],
                              stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL)
    try:
        wait_until(lambda: bench("handshake", "--count", 1, "--warm-up", 0, f"127.0.0.1:{port}").returncode == 0, "s_server")
        figures = result(bench("handshake", "--json", "--count", 20, "--resumed", "--tls", version, f"127.0.0.1:{port}"))
        assert figures["resumed"] is True and figures["what"] == "resumed handshakes"
        assert figures["signature"] == "none"
        assert_histogram(figures)
    finally:
        server.kill()
        server.wait()


def test_a_server_that_does_not_resume(pair):
    _, proxy = pair
    done = bench("handshake", "--count", 3, "--resumed", "--sni", "p256.example", f"127.0.0.1:{proxy.port}")
    assert done.returncode == 1
    assert "no session" in done.stderr


@pytest.mark.parametrize("site, scheme", [
    ("p256", "ecdsa_secp256r1_sha256"), ("p384", "ecdsa_secp384r1_sha384"), ("p521", "ecdsa_secp521r1_sha512"),
    ("rsa2048", "rsa_pss_rsae_sha256"), ("ed25519", "ed25519"), ("ed448", "ed448"),
])
def test_signatures(pair, site, scheme):
    server, _ = pair
    figures = result(bench("keyserver", *CHANNEL_OPTIONS, "--json", "--count", 30, "--warm-up", 5, "--parallel", 4,
                           "--site", SITES / "chains" / f"{site}.pem", "--pid", server.master().pid,
                           f"127.0.0.1:{server.port}"))
    assert figures["what"] == "signatures" and figures["scheme"] == scheme
    assert 30 <= figures["done"] <= 33 and figures["failed"] == 0
    assert figures["cpu_us"] > 10
    assert_histogram(figures)


def test_a_named_scheme(pair):
    server, _ = pair
    options = [*CHANNEL_OPTIONS, "--json", "--count", 5, "--site", SITES / "chains" / "rsa2048.pem"]
    figures = result(bench("keyserver", *options, "--scheme", "rsa_pss_rsae_sha512", f"127.0.0.1:{server.port}"))
    assert figures["scheme"] == "rsa_pss_rsae_sha512"
    wrong = bench("keyserver", *options, "--scheme", "ed25519", f"127.0.0.1:{server.port}")
    assert wrong.returncode == 1 and "ed25519" in wrong.stderr


def test_pings(pair):
    server, _ = pair
    figures = result(bench("keyserver", *CHANNEL_OPTIONS, "--json", "--ping", "--count", 20000, f"127.0.0.1:{server.port}"))
    assert figures["what"] == "pings"
    assert_histogram(figures)


def test_progress_on_a_terminal(pair):
    server, _ = pair
    ours, theirs = os.openpty()
    with subprocess.Popen([BENCH, "keyserver", *CHANNEL_OPTIONS, "--ping", "--seconds", "2", f"127.0.0.1:{server.port}"],
                          stdout=subprocess.PIPE, stderr=theirs) as run:
        os.close(theirs)
        shown = os.read(ours, 4096)
        assert b"pings" in shown and b"p50" in shown
        assert b" pings in " in run.communicate(timeout=harness.PATIENCE)[0]
    os.close(ours)


def test_list(pair):
    server, _ = pair
    done = bench("keyserver", *CHANNEL_OPTIONS, "--list", f"127.0.0.1:{server.port}")
    assert done.returncode == 0
    listed = {line.split()[2]: line.split()[1] for line in done.stdout.splitlines()}
    assert listed == {"demo": "P-256", "rsa2048": "RSA", "p256": "P-256", "p384": "P-384", "p521": "P-521",
                      "ed25519": "Ed25519", "ed448": "Ed448", "dual-ecdsa": "P-256", "dual-rsa": "RSA",
                      "wildcard": "P-256"}


def test_key_servers_that_refuse(pair, stack):
    server = stack.key_server(clients=[{"match": "DNS:edge1.example", "keys": ["p384"], "allow": ["tls13"]}])
    target = f"127.0.0.1:{server.port}"
    forbidden = bench("keyserver", *CHANNEL_OPTIONS, "--count", 3, "--site", SITES / "chains" / "p256.pem", target)
    assert forbidden.returncode == 1 and "key not found" in forbidden.stderr
    unlisted = bench("keyserver", *CHANNEL_OPTIONS, "--list", target)
    assert unlisted.returncode == 1 and "opcode" in unlisted.stderr
    misnamed = bench("keyserver", *CHANNEL_OPTIONS[:-1], "other.example", "--ping", target)
    assert misnamed.returncode == 1 and "other.example" in misnamed.stderr


@pytest.mark.parametrize("arguments", [
    [], ["nothing"], ["handshake"], ["handshake", "--count", "0", "127.0.0.1:1"], ["handshake", "--count", "12x", "127.0.0.1:1"],
    ["handshake", "--request", "no-slash", "127.0.0.1:1"], ["handshake", "--request", "/a b", "127.0.0.1:1"],
    ["handshake", "--tls", "1.1", "127.0.0.1:1"], ["handshake", "--nonsense", "127.0.0.1:1"], ["keyserver", "127.0.0.1:1"],
], ids=str)
def test_bad_usage(arguments):
    done = bench(*arguments)
    assert done.returncode == 2
    assert done.stderr.strip()
