"""keyless-bench: that its figures are of what it says, and that failures show in its exit status."""

import json
import os
import re
import socket
import subprocess
import time

import pytest

import fake_key_server as fake
import harness
import key_server_faults as faults
import kssl_codec as kssl
import kssl_peer
import tls_wire
from harness import BUILD, CHANNEL, SITES, SITE_CA, free_port, wait_until
from kssl_codec import Op

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
    refused = bench("handshake", "--json", "--count", 5, "--warm-up", 0, "--sni", "p256.example", "--ca", CHANNEL / "ca.pem",
                    f"127.0.0.1:{proxy.port}")
    assert refused.returncode == 1
    assert json.loads(refused.stdout)["done"] == 0
    assert "certificate verify failed" in refused.stderr
    nobody = bench("handshake", "--count", 2, "--warm-up", 0, f"127.0.0.1:{free_port()}")
    assert nobody.returncode == 1 and "refused" in nobody.stderr


def client_hello(*options):
    """The suites and the extensions that a client of the tool's offers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(harness.PATIENCE)
        with subprocess.Popen([BENCH, "handshake", "--count", "1", "--warm-up", "0", "--parallel", "1", *options,
                               f"127.0.0.1:{listener.getsockname()[1]}"], stdout=subprocess.DEVNULL,
                              stderr=subprocess.DEVNULL):
            with listener.accept()[0] as client:
                data = b""
                while not tls_wire.plain_records(data):
                    data += client.recv(4096)
    hello = tls_wire.Reader(tls_wire.plain_records(data)[0][1][4 + 2 + 32:])
    hello.vector(1)
    suites, extensions = hello.vector(2), {}
    hello.vector(1)
    offers = tls_wire.Reader(hello.vector(2))
    while offers:
        kind = offers.number(2)
        extensions[kind] = offers.vector(2)
    return suites, extensions


@pytest.mark.parametrize("options, extension, content", [
    (["--schemes", "rsa_pss_rsae_sha384:ed25519"], tls_wire.SIGNATURE_ALGORITHMS, "0004 0805 0807"),
    (["--schemes", "RSA+SHA512"], tls_wire.SIGNATURE_ALGORITHMS, "0002 0601"),
    (["--alpn", "h2"], tls_wire.ALPN, "0003 02 6832"),
    ([], tls_wire.ALPN, None),
    (["--groups", "P-384:X448"], tls_wire.SUPPORTED_GROUPS, "0004 0018 001e"),
    (["--tls", "1.3"], tls_wire.SUPPORTED_VERSIONS, "02 0304"),
    (["--tls", "1.2"], tls_wire.SUPPORTED_VERSIONS, None),
    (["--sni", "a.example"], tls_wire.SERVER_NAME, "000c 00 0009 612e6578616d706c65"),
], ids=lambda value: " ".join(value) if isinstance(value, list) else "")
def test_what_is_offered(options, extension, content):
    _, extensions = client_hello(*options)
    assert extensions.get(extension) == (None if content is None else bytes.fromhex(content))


@pytest.mark.parametrize("options, suites", [
    (["--tls", "1.2", "--ciphers", "ECDHE-ECDSA-CHACHA20-POLY1305"], "cca9"),
    (["--tls", "1.3", "--ciphersuites", "TLS_CHACHA20_POLY1305_SHA256"], "1303"),
], ids=["1.2", "1.3"])
def test_suites_offered(options, suites):
    # OpenSSL 3.0 ends the list with RFC 5746's signalling value, 3.5 sends the extension instead.
    assert client_hello(*options)[0].removesuffix(b"\x00\xff") == bytes.fromhex(suites)


@pytest.mark.parametrize("options, words", [
    (["--schemes", "ed25519"], "alert handshake failure"),
    (["--ciphers", "ECDHE-RSA-AES128-GCM-SHA256", "--tls", "1.2"], "alert handshake failure"),
    (["--schemes", "nonsense"], "--schemes nonsense"), (["--ciphers", "nonsense"], "--ciphers nonsense"),
    (["--alpn", ""], "no protocol name"), (["--groups", "nonsense"], "--groups nonsense"),
], ids=lambda value: " ".join(value) if isinstance(value, list) else "")
def test_what_the_server_does_not_take(pair, options, words):
    _, proxy = pair
    done = bench("handshake", "--count", 1, "--warm-up", 0, "--sni", "p256.example", *options, f"127.0.0.1:{proxy.port}")
    assert done.returncode == 1 and words in done.stderr, done.stderr


def test_a_server_that_says_nothing():
    """--timeout ends each handshake, and the run with them."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        began = time.monotonic()
        done = bench("handshake", "--count", 3, "--warm-up", 0, "--parallel", 1, "--timeout", 200,
                     f"127.0.0.1:{listener.getsockname()[1]}")
        assert 0.6 <= time.monotonic() - began < 10
    assert done.returncode == 1 and "no answer within the time" in done.stderr
    assert done.stdout.startswith("0 full handshakes") and "3 failed" in done.stdout


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


def test_a_server_that_does_not_resume(stack):
    proxy = stack.proxy(stack.key_server(), tickets={"source": "off"})
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


@pytest.mark.parametrize("site", ["p256", "rsa2048", "ed25519", "wildcard"])
def test_whole_handshakes(pair, site):
    """The key server takes the messages for a handshake, and signs what their hash is."""
    server, _ = pair
    before = server.metric("keyless_keyserver_requests_total", operation="sign-transcript", outcome="ok")
    options = [*CHANNEL_OPTIONS, "--mode", "transcript", "--json", "--count", 20, "--warm-up", 0, "--parallel", 4,
               "--site", SITES / "chains" / f"{site}.pem", f"127.0.0.1:{server.port}"]
    figures = result(bench("keyserver", *options))
    assert figures["operation"] == "sign-transcript" and figures["failed"] == 0
    assert_histogram(figures)
    assert server.metric("keyless_keyserver_requests_total", operation="sign-transcript", outcome="ok") >= before + 20
    other = bench("keyserver", "--sni", "other.example", *options)
    assert other.returncode == 1 and "content not acceptable" in other.stderr


def test_whole_handshakes_need_a_certificate(tmp_path):
    public, anonymous = tmp_path / "public.pem", tmp_path / "anonymous.pem"
    subprocess.run(["openssl", "pkey", "-in", SITES / "keys" / "p256.key", "-pubout", "-out", public], check=True)
    subprocess.run(["openssl", "req", "-x509", "-key", SITES / "keys" / "p256.key", "-subj", "/CN=x", "-out", anonymous],
                   check=True)
    for file, words in ((public, "no certificate"), (anonymous, "names no host"), (tmp_path / "absent.pem", "absent.pem")):
        done = bench("keyserver", *CHANNEL_OPTIONS, "--mode", "transcript", "--site", file, f"127.0.0.1:{free_port()}")
        assert done.returncode == 1 and words in done.stderr, done.stderr


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


@pytest.mark.parametrize("options, what", [
    (["keyserver", *CHANNEL_OPTIONS, "--ping"], b"pings"), (["handshake", "--sni", "p256.example"], b"full handshakes"),
], ids=["keyserver", "handshake"])
def test_progress_on_a_terminal(pair, options, what):
    server, proxy = pair
    port = server.port if options[0] == "keyserver" else proxy.port
    ours, theirs = os.openpty()
    with subprocess.Popen([BENCH, *options, "--seconds", "2", f"127.0.0.1:{port}"], stdout=subprocess.PIPE,
                          stderr=theirs) as run:
        os.close(theirs)
        assert re.search(rb"\r[0-9]+ " + what + rb", 0 failed, p50 [0-9]+ us", os.read(ours, 4096))
        assert b" " + what + b" in " in run.communicate(timeout=harness.PATIENCE)[0]
    os.close(ours)


def test_list(pair):
    server, _ = pair
    done = bench("keyserver", *CHANNEL_OPTIONS, "--list", f"127.0.0.1:{server.port}")
    assert done.returncode == 0
    listed = {line.split()[2]: line.split()[1] for line in done.stdout.splitlines()}
    assert listed == {"demo": "P-256", "rsa2048": "RSA", "p256": "P-256", "p384": "P-384", "p521": "P-521",
                      "ed25519": "Ed25519", "ed448": "Ed448", "dual-ecdsa": "P-256", "dual-rsa": "RSA",
                      "wildcard": "P-256"}


def test_list_as_json(pair):
    server, _ = pair
    done = bench("keyserver", *CHANNEL_OPTIONS, "--list", "--json", f"127.0.0.1:{server.port}")
    keys = {key["name"]: (key["type"], key["ski"]) for key in result(done)["keys"]}
    assert len(keys) == 10 and keys["rsa2048"] == ("RSA", kssl.ski(kssl_peer.site_key("rsa2048")).hex())
    assert not done.stderr


def test_key_servers_that_refuse(pair, stack):
    server = stack.key_server(clients=[{"match": "DNS:edge1.example", "keys": ["p384"], "allow": ["tls13"]}])
    target = f"127.0.0.1:{server.port}"
    forbidden = bench("keyserver", *CHANNEL_OPTIONS, "--count", 3, "--site", SITES / "chains" / "p256.pem", target)
    assert forbidden.returncode == 1 and "key not found" in forbidden.stderr
    unlisted = bench("keyserver", *CHANNEL_OPTIONS, "--list", target)
    assert unlisted.returncode == 1 and "opcode" in unlisted.stderr
    misnamed = bench("keyserver", *CHANNEL_OPTIONS[:-1], "other.example", "--ping", target)
    assert misnamed.returncode == 1 and "other.example" in misnamed.stderr


# ---- Bare signing, for key servers that know nothing else.

BARE = {
    ("rsa2048", None): ("rsa-pss-sha256", Op.RSA_PSS_SHA256), ("p256", None): ("ecdsa-sha256", Op.ECDSA_SHA256),
    ("p384", None): ("ecdsa-sha384", Op.ECDSA_SHA384), ("p521", None): ("ecdsa-sha512", Op.ECDSA_SHA512),
    ("ed25519", None): ("ed25519", Op.ED25519),
    ("rsa2048", "rsa_pkcs1_sha256"): ("rsa-sha256", Op.RSA_SHA256),
    ("rsa2048", "rsa_pss_rsae_sha512"): ("rsa-pss-sha512", Op.RSA_PSS_SHA512),
    ("p256", "ecdsa_secp384r1_sha384"): ("ecdsa-sha384", Op.ECDSA_SHA384),
}


def digests(port, site, *options):
    return bench("keyserver", *CHANNEL_OPTIONS, "--mode", "digest", "--json", "--count", 6, "--warm-up", 2, "--parallel", 3,
                 "--site", SITES / "chains" / f"{site}.pem", *options, f"127.0.0.1:{port}")


@pytest.mark.parametrize("site, scheme", BARE, ids=str)
def test_digests(part_a, site, scheme):
    before = len(part_a.requests)
    figures = result(digests(part_a.port, site, *(["--scheme", scheme] if scheme else [])))
    operation, opcode = BARE[site, scheme]
    assert figures["operation"] == operation and figures["failed"] == 0
    assert {request.opcode for _, request in list(part_a.requests)[before:]} == {opcode}
    assert not part_a.violations


@pytest.mark.parametrize("site", ["rsa2048", "p256", "p521", "ed25519"])
def test_digests_of_our_own(stack, site):
    server = stack.key_server(clients=[{"match": "DNS:edge1.example", "keys": ["*"], "allow": ["digest"]}])
    assert result(digests(server.port, site))["failed"] == 0
    handshakes = bench("keyserver", *CHANNEL_OPTIONS, "--count", 1, "--site", SITES / "chains" / f"{site}.pem",
                       f"127.0.0.1:{server.port}")
    assert handshakes.returncode == 1 and "bad opcode" in handshakes.stderr


@pytest.mark.parametrize("site", ["rsa2048", "p256", "ed25519"])
def test_wrong_digests(part_a, site):
    part_a.behaviour = type("OtherKeyPartA", (fake.PartA,), {"signature": other_keys_signature})()
    done = digests(part_a.port, site)
    part_a.behaviour = fake.PartA()
    assert done.returncode == 1 and "first failure: the signature is wrong" in done.stderr


def other_keys_signature(self, request):
    return fake.sign_bare(request, faults.another_key(fake.find_key(request)))


def test_no_digests(part_a):
    nothing = digests(part_a.port, "ed448")
    assert nothing.returncode == 1 and "no bare operation signs with ed448" in nothing.stderr
    unfit = digests(part_a.port, "p256", "--scheme", "rsa_pkcs1_sha256")
    assert unfit.returncode == 1 and "rsa_pkcs1_sha256" in unfit.stderr


@pytest.fixture(scope="module")
def part_a(module_stack):
    return module_stack.fake_key_server(fake.PartA())


# ---- Key servers that go wrong.


def signatures(port, *options, site="p256"):
    return bench("keyserver", *CHANNEL_OPTIONS, "--json", "--count", 20, "--warm-up", 0, "--parallel", 4,
                 "--site", SITES / "chains" / f"{site}.pem", *options, f"127.0.0.1:{port}")


@pytest.mark.parametrize("mode", ["tbs", "transcript"])
@pytest.mark.parametrize("site", ["p256", "rsa2048", "ed25519"])
@pytest.mark.parametrize("fault", [faults.OtherKey, faults.OtherContent], ids=["other key", "other content"])
def test_wrong_signatures(stack, fault, site, mode):
    server = stack.fake_key_server(fault())
    done = signatures(server.port, "--mode", mode, site=site)
    figures = json.loads(done.stdout)
    assert done.returncode == 1 and "first failure: the signature is wrong" in done.stderr
    assert figures["done"] == 0 and figures["failed"] >= 20


@pytest.mark.parametrize("every, wrong", [(0, 0), (1, 20), (4, 5)])
def test_how_many_are_verified(stack, every, wrong):
    server = stack.fake_key_server(faults.OtherKey())
    done = signatures(server.port, "--verify", every)
    figures = json.loads(done.stdout)
    # Requests that are under way when the count is reached are answered too.
    assert wrong <= figures["failed"] <= wrong + 3 and 20 <= figures["done"] + figures["failed"] <= 23
    assert done.returncode == (1 if wrong else 0)


BROKEN = {
    "closes": (lambda: faults.ClosesOnRequest(100), "clos"),
    "garbage": (faults.GarbageAtOnce, "malformed answer"),
    "no TLS": (faults.NotTls, "wrong version number"),
    "another id": (lambda: faults.OtherId(lambda number: number + 1000), "an answer to no request"),
    "other opcode": (lambda: faults.Answers(Op.PONG, b""), "unexpected opcode"),
    "empty": (lambda: faults.Answers(Op.SUCCESS, b""), "the signature is wrong"),
    "unknown error": (lambda: faults.Answers(Op.ERROR, b"\xee"), "unknown error"),
    "malformed error": (lambda: faults.Answers(Op.ERROR, b""), "malformed error"),
    "silence": (faults.NeverSigns, "no answer within the time"),
}


@pytest.mark.parametrize("what", BROKEN)
def test_broken_key_servers(stack, what):
    make, words = BROKEN[what]
    server = stack.fake_key_server(make())
    done = signatures(server.port, "--timeout", 500)
    assert done.returncode == 1 and words in done.stderr, done.stderr


@pytest.mark.parametrize("arguments", [
    [], ["nothing"], ["handshake"], ["handshake", "--count", "0", "127.0.0.1:1"], ["handshake", "--count", "12x", "127.0.0.1:1"],
    ["handshake", "--request", "no-slash", "127.0.0.1:1"], ["handshake", "--request", "/a b", "127.0.0.1:1"],
    ["handshake", "--tls", "1.1", "127.0.0.1:1"], ["handshake", "--nonsense", "127.0.0.1:1"], ["keyserver", "127.0.0.1:1"],
    ["keyserver", *CHANNEL_OPTIONS, "--ping", "--mode", "messages", "127.0.0.1:1"],
    ["keyserver", *CHANNEL_OPTIONS, "--mode", "transcript", "127.0.0.1:1"],
], ids=lambda words: " ".join(map(str, words[:1] + words[-3:])))
def test_bad_usage(arguments):
    done = bench(*arguments)
    assert done.returncode == 2
    assert done.stderr.strip()
