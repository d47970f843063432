"""HTTPS with curl, always verified against the sites' CA: every version, key type and group; SNI; ALPN."""

import re
import statistics
import time

import pytest

import clients
import harness
from counters import Gains, failure_label
from harness import curl, s_client, wait_until

KEYS = {
    # site: signature schemes that its key may be used with, by version; in TLS 1.2 a hash is not bound to a curve
    "rsa2048": {"1.3": ["rsa_pss_rsae_sha256"], "1.2": ["rsa_pss_rsae_sha256"]},
    "p256": {"1.3": ["ecdsa_secp256r1_sha256"], "1.2": ["ecdsa_secp256r1_sha256"]},
    "p384": {"1.3": ["ecdsa_secp384r1_sha384"], "1.2": ["ecdsa_secp256r1_sha256", "ecdsa_secp384r1_sha384"]},
    "ed25519": {"1.3": ["ed25519"], "1.2": ["ed25519"]},
}
VERSIONS = {"1.2": "TLSv1.2", "1.3": "TLSv1.3"}
GROUPS = ["X25519", "P-256", "P-384"]
# In TLS 1.2 the client's groups also say which curves it takes in a certificate (RFC 8422 section 5.1).
CURVE_OF_CERTIFICATE = {"p256": "P-256", "p384": "P-384"}
ALPN = ["h2", "http/1.1"]


@pytest.fixture(scope="module")
def pair(module_stack):
    return module_stack.pair(tls={"default": "localhost", "alpn": ALPN})


@pytest.fixture(scope="module")
def proxy_of_group(module_stack, pair):
    """A proxy for each group, which takes no other."""
    server, _ = pair
    return {group: module_stack.proxy(server, tls={"groups": group}) for group in GROUPS}


@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.parametrize("site", KEYS)
@pytest.mark.parametrize("version", VERSIONS)
def test_each_version_key_and_group(proxy_of_group, version, site, group):
    proxy = proxy_of_group[group]
    name = f"{site}.example"
    signed = proxy.metric("keyless_key_requests_total", outcome="ok")
    curves = ":".join(dict.fromkeys([group, CURVE_OF_CERTIFICATE.get(site, group)]))
    answer = curl(name, proxy.port, f"--tlsv{version}", "--tls-max", version, "--curves", curves).json()
    assert answer["version"] == VERSIONS[version]
    assert answer["sni"] == name
    assert answer["group"] == group
    assert answer["scheme"] in KEYS[site][version]
    assert answer["key_server"] == "keys-a"
    assert answer["resumed"] is False
    assert 0 < answer["key_ms"] <= answer["handshake_ms"]
    if version == "1.2":
        assert answer["suite"].startswith("TLS_ECDHE_") and re.search("GCM|CHACHA20", answer["suite"])
    else:
        assert re.fullmatch("TLS_(AES_128_GCM_SHA256|AES_256_GCM_SHA384|CHACHA20_POLY1305_SHA256)", answer["suite"])
    # The answer's word is not enough: the counter of signatures must have moved with it.
    wait_until(lambda: proxy.metric("keyless_key_requests_total", outcome="ok") == signed + 1, "one more signature")


def test_group_of_neither(proxy_of_group):
    proxy = proxy_of_group["X25519"]
    gains = Gains(proxy)
    assert curl("p256.example", proxy.port, "--curves", "P-521").status == 35
    proxy.wait_for("handshake failed", sni="p256.example", reason="no shared group")
    gains.assert_failures(no_shared_group=1)


def test_a_signature_comes_from_the_key_server(stack):
    """With the key server gone there is no handshake: nothing else can sign."""
    server = stack.key_server()
    proxy = stack.proxy(server, start=False)
    proxy.config["key_channel"]["timeout"] = "2s"
    proxy.start()
    assert curl("p256.example", proxy.port).status == 0
    assert server.stop() == 0
    gains = Gains(proxy)
    failed = curl("p256.example", proxy.port)
    assert failed.status == 35, failed.error
    line = proxy.wait_for("handshake failed", sni="p256.example", stage="key")
    assert line["client"].startswith("127.0.0.1:")
    gains.assert_failures(no_key_server=1)
    gains.assert_gained("keyless_key_requests_total", server="none", outcome="no_server")
    server.start()
    wait_until(lambda: curl("p256.example", proxy.port).status == 0, "handshakes to work again")


def test_rsa_and_ecdsa_for_one_name(pair):
    _, proxy = pair
    modern = curl("dual.example", proxy.port).json()
    assert modern["scheme"] == "ecdsa_secp256r1_sha256"
    for version, extra in (("1.3", ("-sigalgs", "rsa_pss_rsae_sha256")), ("1.2", ("-cipher", "aRSA"))):
        status, text = s_client(proxy.port, "-servername", "dual.example", "-verify_return_error",
                                f"-tls{version.replace('.', '_')}", *extra)
        assert status == 0, text
        assert re.search(r"Peer signature type: (RSA|rsa_pss_rsae_)", text), text


def test_wildcard(pair):
    _, proxy = pair
    assert curl("any.wild.example", proxy.port).json()["sni"] == "any.wild.example"


@pytest.mark.parametrize("name", ["two.labels.wild.example", "wild.example", "unknown.example"])
def test_unknown_name_gets_the_default_chain(pair, name):
    """In TLS 1.2; in 1.3 the key server would see the name, and sign nothing for it with that chain."""
    _, proxy = pair
    refused = curl(name, proxy.port, "--tls-max", "1.2")
    assert refused.status == 60, refused.error  # the chain is good, the name is not in it
    status, text = s_client(proxy.port, "-servername", name, "-verify_hostname", "localhost", "-verify_return_error",
                            "-tls1_2")
    assert status == 0, text
    refused = curl(name, proxy.port, "--tlsv1.3")
    assert refused.status == 35 and "unrecognized name" in refused.error, refused.error


def test_no_sni_gets_the_default_chain(pair):
    _, proxy = pair
    status, text = s_client(proxy.port, "-noservername", "-verify_hostname", "localhost", "-verify_return_error",
                            stdin=b"GET / HTTP/1.0\r\n\r\n")
    assert status == 0, text


def test_name_in_capitals(pair):
    _, proxy = pair
    status, text = s_client(proxy.port, "-servername", "P256.Example", "-verify_hostname", "p256.example",
                            "-verify_return_error")
    assert status == 0, text


def test_alpn(pair):
    _, proxy = pair
    # The built-in backend speaks HTTP/1.1 alone, so h2 is not negotiated with it.
    assert curl("p256.example", proxy.port, "--http2").json()["alpn"] == "http/1.1"
    assert curl("p256.example", proxy.port, "--http1.1").json()["alpn"] == "http/1.1"
    assert curl("p256.example", proxy.port, "--no-alpn").json()["alpn"] in (None, "")


@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
def test_unknown_alpn_gets_an_alert(pair, version):
    _, proxy = pair
    gains = Gains(proxy)
    status, text = s_client(proxy.port, "-servername", "p256.example", "-alpn", "spdy/9", version)
    assert status != 0
    assert "alert number 120" in text, text
    proxy.wait_for("handshake failed", sni="p256.example", reason="application protocol")
    gains.assert_gained("keyless_handshakes_total", outcome="client")
    gains.assert_failures(no_shared_application_protocol=1)


@pytest.mark.parametrize("arguments, reason", [
    (("-tls1_2", "-cipher", "kRSA@SECLEVEL=0"), "no shared cipher"),
    (("-tls1_2", "-cipher", "kDHE@SECLEVEL=0"), "no shared cipher"),
    (("-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-SHA@SECLEVEL=0"), "no shared cipher"),
    (("-tls1_1", "-cipher", "ALL@SECLEVEL=0"), "unsupported protocol version"),
], ids=["TLS_RSA", "DHE", "CBC", "TLS 1.1"])
def test_refused(pair, arguments, reason):
    _, proxy = pair
    after, gains = proxy.mark(), Gains(proxy)
    status, text = s_client(proxy.port, "-servername", "dual.example", *arguments)
    assert status != 0
    assert "alert" in text, text
    proxy.wait_for("handshake failed", after=after, sni="dual.example", reason=reason)
    gains.assert_failures(**{failure_label(reason): 1})


def test_minimum_version(stack):
    _, proxy = stack.pair(tls={"min_version": "1.3", "default": "localhost"})
    gains = Gains(proxy)
    assert curl("p256.example", proxy.port, "--tlsv1.2", "--tls-max", "1.2").status == 35
    gains.assert_failures(protocol_version=1)
    assert curl("p256.example", proxy.port, "--tlsv1.3").status == 0


def test_html_for_browsers(pair):
    _, proxy = pair
    answer = curl("p256.example", proxy.port, "--header", "Accept: text/html,application/xhtml+xml,*/*;q=0.8")
    assert answer.status == 0
    assert b"<html" in answer.body and b"p256.example" in answer.body


def test_plain_http_to_the_tls_port(pair):
    _, proxy = pair
    gains = Gains(proxy)
    done = harness.subprocess.run(["curl", "-sS", "--max-time", "10", f"http://127.0.0.1:{proxy.port}/"],
                                  capture_output=True, check=False)
    assert done.returncode != 0
    proxy.wait_for("handshake failed", reason="HTTP")
    gains.assert_failures(not_tls=1)
    assert curl("p256.example", proxy.port).status == 0


def test_first_request_is_not_held_back(pair):
    """A client with Nagle's algorithm sends its request only when its Finished is acknowledged; a delayed
    acknowledgement would take 40 ms. Compared with a client that does not wait for it, in turn."""
    _, proxy = pair

    def request(no_delay):
        with clients.connect(proxy.port, no_delay=no_delay) as client:
            began = time.monotonic()
            client.sendall(b"GET / HTTP/1.1\r\nHost: p256.example\r\n\r\n")
            assert client.recv(65536).startswith(b"HTTP/1.1 200")
            return time.monotonic() - began

    longer = [request(no_delay=False) - request(no_delay=True) for _ in range(9)]
    assert statistics.median(longer) < 0.03, longer
