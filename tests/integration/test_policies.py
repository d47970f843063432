"""What TLS is spoken with clients: policies by name, what overrides them, and what -t shows."""

import re

import pytest

import harness
from counters import Gains
from harness import curl, s_client

HYBRID = harness.openssl_version() >= (3, 5)


@pytest.fixture(scope="module")
def server(module_stack):
    return module_stack.key_server()


@pytest.fixture(scope="module")
def proxies(module_stack, server):
    """{what is under tls: a proxy with it}"""
    return {policy: module_stack.proxy(server, tls={"default": "localhost", "policy": policy})
            for policy in ("intermediate", "modern")}


def in_force(proxy):
    """tls of -t as {setting: text}."""
    shown = proxy.check()
    assert shown.returncode == 0, shown.stderr
    section = re.search(r"^tls:\n((?:  .*\n)+)", shown.stdout, re.MULTILINE).group(1)
    return {key: value.strip('"') for key, value in re.findall(r"^  (\w+): (.*)$", section, re.MULTILINE)}


def test_intermediate_takes_both_versions(proxies):
    for version in ("1.2", "1.3"):
        answer = curl("p256.example", proxies["intermediate"].port, f"--tlsv{version}", "--tls-max", version).json()
        assert answer["version"] == f"TLSv{version}"


def test_modern_takes_tls13_alone(proxies):
    proxy = proxies["modern"]
    assert curl("p256.example", proxy.port).json()["version"] == "TLSv1.3"
    gains, after = Gains(proxy), proxy.mark()
    status, text = s_client(proxy.port, "-servername", "p256.example", "-tls1_2")
    assert status != 0 and "alert number 70" in text, text
    proxy.wait_for("handshake failed", after=after, sni="p256.example", reason="unsupported protocol version")
    gains.assert_failures(protocol_version=1)


@pytest.mark.parametrize("policy, group", [("intermediate", False), ("modern", True)])
def test_p384_is_modern_alone(proxies, policy, group):
    answer = curl("rsa2048.example", proxies[policy].port, "--curves", "P-384")
    assert (answer.status == 0) == group
    if group:
        assert answer.json()["group"] == "P-384"


def test_what_is_in_force_is_shown(stack, server, proxies):
    expected = ("X25519MLKEM768:" if HYBRID else "") + "X25519:P-256"
    shown = in_force(proxies["intermediate"])
    assert (shown["policy"], shown["min_version"], shown["groups"]) == ("intermediate", "1.2", expected)
    assert shown["schemes"].endswith(":rsa_pkcs1_sha512")
    shown = in_force(proxies["modern"])
    assert (shown["policy"], shown["min_version"], shown["groups"]) == ("modern", "1.3", expected + ":P-384")
    assert "pkcs1" not in shown["schemes"]
    proxy = stack.proxy(server, start=False, tls={"policy": "modern", "min_version": "1.2"})
    shown = in_force(proxy)
    assert (shown["policy"], shown["min_version"], shown["groups"]) == ("modern", "1.2", expected + ":P-384")


@pytest.mark.skipif(not HYBRID, reason="OpenSSL before 3.5")
@pytest.mark.parametrize("policy", ["intermediate", "modern"])
@pytest.mark.parametrize("groups", [[], ["-groups", "*X25519:*X25519MLKEM768"]], ids=["its own", "X25519 first"])
def test_hybrid_group_comes_first(proxies, policy, groups):
    """For s_client as it comes, and for a client that has a share of each, and the other one first."""
    status, text = s_client(proxies[policy].port, "-servername", "p256.example", "-ign_eof", *groups,
                            stdin=b"GET / HTTP/1.0\r\n\r\n")
    assert status == 0 and '"group": "X25519MLKEM768"' in text and '"retries": 0' in text, text
    assert "Negotiated TLS1.3 group: X25519MLKEM768" in text, text


@pytest.mark.parametrize("scheme, site", [
    ("rsa_pss_rsae_sha512", "dual.example"),
    ("ecdsa_secp256r1_sha256", "dual.example"),
    ("rsa_pss_rsae_sha256", "rsa2048.example"),
])
@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_schemes(stack, server, version, scheme, site):
    """Of the two chains of a name the one is served for whose key there is a scheme."""
    proxy = stack.proxy(server, tls={"default": "localhost", "schemes": scheme})
    answer = curl(site, proxy.port, f"--tlsv{version}", "--tls-max", version).json()
    assert answer["scheme"] == scheme


def test_no_scheme_for_the_key(stack, server):
    proxy = stack.proxy(server, tls={"default": "localhost", "schemes": "rsa_pss_rsae_sha256"})
    gains = Gains(proxy)
    assert curl("p256.example", proxy.port, "--tlsv1.3").status == 35
    proxy.wait_for("handshake failed", sni="p256.example", reason="no shared signature algorithm")
    gains.assert_failures(no_shared_signature_algorithm=1)


@pytest.mark.parametrize("setting, value, error", [
    ("policy", "old", 'tls.policy: got "old", expected intermediate or modern'),
    ("groups", "X25519:P-999", 'tls.groups: got the unknown group "P-999", expected some of X25519, X448, P-256'),
    ("schemes", "ed25519:dsa", 'tls.schemes: got the unknown signature scheme "dsa", expected some of ecdsa_secp256r1'),
])
def test_errors(stack, server, setting, value, error):
    proxy = stack.proxy(server, start=False, tls={setting: value})
    checked = proxy.check()
    assert checked.returncode == 2
    assert error in checked.stderr, checked.stderr
