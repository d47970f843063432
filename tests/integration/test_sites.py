"""Sites: policy, certificates, ALPN and backend by the name that a client asks for; and names that nobody is for."""

import shutil
import subprocess

import pytest

import clients
import harness
from counters import Gains
from harness import SITES, curl, s_client

ALPN = ["h2", "http/1.1"]
REQUEST = b"GET / HTTP/1.0\r\n\r\n"


def chain(name):
    return str(SITES / "chains" / f"{name}.pem")



@pytest.fixture(scope="module")
def server(module_stack):
    return module_stack.key_server()


@pytest.fixture(scope="module")
def proxy(module_stack, server):
    """Two sites that differ in everything, one of a wildcard with an exact name of another in it, and the rest."""
    return module_stack.proxy(
        server,
        tls={"default": "localhost", "alpn": ALPN},
        backends={"web": {"servers": ["builtin:hello"]}, "none": {"servers": ["127.0.0.1:1"]}},
        sites=[
            {"names": ["p256.example"], "policy": "modern"},
            {"names": ["dual.example"], "certificates": [{"file": chain("dual-rsa")}], "alpn": ["http/1.1"],
             "policy": "intermediate"},
            {"names": ["*.wild.example"], "backend": "none", "alpn": []},
            {"names": ["exact.wild.example"], "policy": "modern", "backend": "web"},
        ])


# ---- Policy.

MODERN, NEIGHBOUR = "p256.example", "p384.example"


def test_modern_site_beside_one_that_is_not(proxy):
    """The same SSL begins with the neighbour's policy in each case."""
    for name, version in ((MODERN, "1.3"), (NEIGHBOUR, "1.3"), (NEIGHBOUR, "1.2")):
        answer = curl(name, proxy.port, f"--tlsv{version}", "--tls-max", version).json()
        assert (answer["sni"], answer["version"]) == (name, f"TLSv{version}")
    gains, after = Gains(proxy), proxy.mark()
    status, text = s_client(proxy.port, "-servername", MODERN, "-tls1_2")
    assert status != 0 and "alert number 70" in text, text
    proxy.wait_for("handshake failed", after=after, sni=MODERN, reason="unsupported protocol version")
    gains.assert_failures(protocol_version=1)


@pytest.mark.parametrize("version, refusal", [("1.2", "Fatal alert"), ("1.3", None)])
def test_modern_site_with_gnutls(proxy, version, refusal):
    command = ["gnutls-cli", "-p", str(proxy.port), "127.0.0.1", "--x509cafile", str(harness.SITE_CA),
               f"--sni-hostname={MODERN}", f"--verify-hostname={MODERN}",
               f"--priority=NORMAL:-VERS-ALL:+VERS-TLS{version}"]
    done = subprocess.run(command, input=REQUEST, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
                          timeout=harness.PATIENCE)
    assert (done.returncode != 0) == bool(refusal), done.stdout
    if refusal:
        assert b"Received alert [70]" in done.stdout, done.stdout


def test_site_goes_below_the_rest(stack, server):
    """A modern proxy with one site that takes TLS 1.2 too."""
    proxy = stack.proxy(server, tls={"default": "localhost", "policy": "modern"},
                        sites=[{"names": ["p256.example"], "policy": "intermediate"}])
    assert curl("p256.example", proxy.port, "--tls-max", "1.2").json()["version"] == "TLSv1.2"
    assert curl("p384.example", proxy.port, "--tls-max", "1.2").status == 35
    assert curl("p384.example", proxy.port).json()["version"] == "TLSv1.3"
    assert curl("localhost", proxy.port, "--tls-max", "1.2").status == 35


def test_groups_of_the_site(proxy):
    """P-384 is a group of modern, and of nothing else here."""
    assert curl("exact.wild.example", proxy.port, "--curves", "P-384").json()["group"] == "P-384"
    gains = Gains(proxy)
    assert curl("rsa2048.example", proxy.port, "--curves", "P-384").status == 35
    gains.assert_failures(no_shared_group=1)


def test_hello_retry_request(proxy):
    """The site's policy holds for the second ClientHello as for the first."""
    status, text = s_client(proxy.port, "-servername", "exact.wild.example", "-groups", "P-521:P-384", "-ign_eof",
                            stdin=REQUEST)
    assert status == 0 and '"retries": 1' in text and '"group": "P-384"' in text, text


def test_schemes_of_the_site(stack, server):
    """What the policies differ in besides: RSA PKCS#1, in TLS 1.2 alone."""
    proxy = stack.proxy(server, tls={"default": "localhost", "schemes": "rsa_pkcs1_sha256:rsa_pss_rsae_sha256"},
                        sites=[{"names": ["dual.example"], "policy": "intermediate"}])
    assert curl("rsa2048.example", proxy.port, "--tls-max", "1.2").json()["scheme"] == "rsa_pkcs1_sha256"
    assert curl("dual.example", proxy.port, "--tls-max", "1.2").json()["scheme"] == "ecdsa_secp256r1_sha256"


# ---- Certificates.

@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_own_certificates_go_first(proxy, version):
    """The section certificates has an ECDSA chain for this name too, which any client would get."""
    answer = curl("dual.example", proxy.port, f"--tlsv{version}", "--tls-max", version).json()
    assert answer["scheme"] == "rsa_pss_rsae_sha256"


def test_certificates_serve_the_site_alone(stack, server, tmp_path):
    """The site's chain is a wildcard's; a name of the wildcard that is not the site's does not get it."""
    shutil.copy(chain("demo"), tmp_path)
    proxy = stack.proxy(server, tls={"default": "localhost"}, certificates=[{"dir": str(tmp_path)}],
                        sites=[{"names": ["a.wild.example"], "certificates": [{"file": chain("wildcard")}]}])
    assert curl("a.wild.example", proxy.port).json()["sni"] == "a.wild.example"
    gains = Gains(proxy)
    refused = curl("b.wild.example", proxy.port, "--tlsv1.3")
    assert refused.status == 35 and "unrecognized name" in refused.error, refused.error
    gains.assert_failures(unknown_name=1)


@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_sites_alone(stack, server, version):
    """With no chains for everybody, a name of no site gets none."""
    proxy = stack.proxy(server, tls={}, certificates=None,
                        sites=[{"names": ["p256.example"], "certificates": [{"file": chain("p256")}]}])
    assert curl("p256.example", proxy.port, "--tls-max", version).json()["sni"] == "p256.example"
    for arguments, sni, reason in ((("-servername", "demo.example"), "demo.example", "no certificate for this name"),
                                   (("-noservername",), "", "no name asked for")):
        gains, after = Gains(proxy), proxy.mark()
        status, text = s_client(proxy.port, *arguments, f"-tls{version.replace('.', '_')}")
        assert status != 0 and "alert number 112" in text, text
        line = proxy.wait_for("handshake failed", after=after, reason=reason)
        assert line.get("sni", "") == sni
        gains.assert_failures(unknown_name=1)


def test_name_without_a_chain_is_told(stack, server):
    proxy = stack.proxy(server, sites=[{"names": ["nobody.example", "p256.example", "*.wild.example"]}])
    assert [line["name"] for line in proxy.find("no certificate for a site's name")] == ["nobody.example"]


# ---- ALPN and backend.

def test_alpn_of_the_site(proxy):
    for name, expected in ((MODERN, "http/1.1"), ("dual.example", "http/1.1")):
        assert curl(name, proxy.port, "--http2").json()["alpn"] == expected
    gains = Gains(proxy)
    status, text = s_client(proxy.port, "-servername", "dual.example", "-alpn", "h2")
    assert status != 0 and "alert number 120" in text, text
    gains.assert_failures(no_shared_application_protocol=1)
    status, text = s_client(proxy.port, "-servername", "any.wild.example", "-alpn", "h2")
    assert "No ALPN negotiated" in text, text


def test_backend_of_the_site(proxy):
    assert curl("exact.wild.example", proxy.port).json()["sni"] == "exact.wild.example"
    after, gains = proxy.mark(), Gains(proxy)
    assert curl("other.wild.example", proxy.port).status != 0
    proxy.wait_for("no backend server", after=after, backend="none")
    gains.assert_gained("keyless_connections_closed_total", reason="no_backend")


def test_h2_is_what_the_backend_of_the_site_speaks(stack, server):
    """The listener's backend speaks HTTP/1.1 alone, the site's anything, and the other way round."""
    both = {"hello": {"servers": ["builtin:hello"]}, "other": {"servers": ["127.0.0.1:1"]}}
    for listener, site, expected in (("hello", "other", "h2"), ("other", "hello", "http/1.1")):
        proxy = stack.proxy(server, start=False, tls={"default": "localhost", "alpn": ALPN}, backends=both,
                            sites=[{"names": ["p256.example"], "backend": site}])
        proxy.config["listen"][0]["backend"] = listener
        proxy.start()
        _, text = s_client(proxy.port, "-servername", "p256.example", "-alpn", "h2,http/1.1")
        assert f"ALPN protocol: {expected}" in text, text


# ---- Which site.

@pytest.mark.parametrize("name", ["P256.Example", "p256.EXAMPLE"])
def test_name_in_capitals(proxy, name):
    status, text = s_client(proxy.port, "-servername", name, "-tls1_2")
    assert status != 0 and "alert number 70" in text, text


@pytest.mark.parametrize("name, version, served", [
    ("exact.wild.example", "1.2", False),  # the exact name's site is modern
    ("exact.wild.example", "1.3", True),
    ("other.wild.example", "1.2", True),
])
def test_exact_name_before_wildcard(proxy, name, version, served):
    _, text = s_client(proxy.port, "-servername", name, f"-tls{version.replace('.', '_')}")
    assert ("Server certificate" in text) == served, text


# ---- strict_sni

@pytest.fixture(scope="module")
def strict(module_stack, server):
    return module_stack.proxy(server, tls={"strict_sni": True}, sites=[{"names": ["nobody.example"]}])


@pytest.mark.parametrize("version", ["1.2", "1.3"])
@pytest.mark.parametrize("arguments, sni, reason", [
    (["-servername", "unknown.example"], "unknown.example", "no certificate for this name"),
    (["-servername", "nobody.example"], "nobody.example", "no certificate for this name"),
    (["-noservername"], "", "no name asked for"),
], ids=["unknown", "site without a chain", "none"])
def test_strict_sni(strict, version, arguments, sni, reason):
    gains, after = Gains(strict), strict.mark()
    status, text = s_client(strict.port, *arguments, f"-tls{version.replace('.', '_')}")
    assert status != 0 and "alert number 112" in text, text
    line = strict.wait_for("handshake failed", after=after, reason=reason)
    assert line.get("sni", "") == sni
    gains.assert_failures(unknown_name=1)
    assert gains.gained("keyless_key_requests_total") == 0
    assert curl("p256.example", strict.port, "--tls-max", version).json()["sni"] == "p256.example"


# ---- Configuration.

@pytest.mark.parametrize("sites, error", [
    ([{"names": ["p256.example"], "certificates": [{"file": chain("p384")}]}],
     "p384.pem: is for none of the site's names"),
    ([{"names": ["a.example"]}, {"names": ["b.example", "A.example"]}],
     'sites[1].names[1]: got "A.example", expected each name once; it is also in sites[0]'),
    ([{"names": ["a.example"], "backend": "nowhere"}],
     'sites[0].backend: got "nowhere", expected one of the backends: web'),
    ([{"names": ["a.example"], "policy": "oldest"}], "sites[0].policy"),
    ([{"names": ["a.example"], "certificates": [{"file": "/nowhere/a.pem"}]}],
     "sites.certificates.file: /nowhere/a.pem"),
], ids=["chain of another name", "name twice", "backend", "policy", "no file"])
def test_errors(stack, server, sites, error):
    proxy = stack.proxy(server, start=False, sites=sites)
    checked = proxy.check()
    assert checked.returncode == 2
    assert error in checked.stderr, checked.stderr
    assert f"{proxy.config_path}:" in checked.stderr


def test_reload_changes_sites(stack, server):
    proxy = stack.proxy(server, sites=[{"names": ["p256.example"], "policy": "modern"}])
    assert curl("p256.example", proxy.port, "--tls-max", "1.2").status == 35
    proxy.config["sites"] = []
    proxy.reload()
    assert curl("p256.example", proxy.port, "--tls-max", "1.2").status == 0


def test_many_sites(stack, server):
    """Sites that say the same share a context, so ten thousand are no burden; each is found."""
    sites = [{"names": [f"s{i}.wild.example"], "policy": "modern" if i % 2 else "intermediate"} for i in range(10000)]
    proxy = stack.proxy(server, sites=sites)
    for i in (0, 1, 4998, 9999):
        status = curl(f"s{i}.wild.example", proxy.port, "--tls-max", "1.2").status
        assert (status == 0) == (i % 2 == 0), i
    assert clients.get(proxy.port, "p256.example").startswith(b"HTTP/1.1 200")
