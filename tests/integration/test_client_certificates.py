"""Client certificates: who is let in, who is refused for which reason and with which alert, what is told of each, and
that a session is no way around any of it."""

import datetime
import hashlib
import json
import re
import socket
import ssl
import struct
import subprocess
import time

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key

import clients
import harness
import tls_client
import tls_wire as wire
from client_certificates import CA, TOOLS, Ca, of_channel, openssl, rsa_key
from counters import Gains
from harness import CHANNEL, wait_until
from test_tickets import Client

VERSIONS = ["1.2", "1.3"]
REQUIRE = {"mode": "require", "ca": CA}
TRANSCRIPT = {"clients": [{"match": "DNS:edge1.example", "keys": ["*"], "allow": ["transcript", "tls12", "list"],
                           "require": "transcript"}]}


def tls(**client_auth):
    return {"default": "localhost", "client_auth": client_auth}


@pytest.fixture(scope="module")
def server(module_stack):
    """It signs TLS 1.3 handshakes that it has seen whole, and no others."""
    return module_stack.key_server(**TRANSCRIPT)


@pytest.fixture(scope="module")
def required(module_stack, server):
    return module_stack.proxy(server, tls=tls(**REQUIRE, names=["DNS:edge1.example"]))


@pytest.fixture(scope="module")
def requested(module_stack, server):
    return module_stack.proxy(server, tls=tls(mode="request", ca=CA))


def facts_of(text):
    """What builtin:hello has told."""
    return json.loads(re.search(r'\{\n  "version".*?\n\}', text, re.DOTALL).group(0))


def assert_let_in(proxy, tool, who, version, subject, **how):
    gains = Gains(proxy)
    text, alert = TOOLS[tool](proxy.port, who, version, **how)
    assert alert is None, text
    facts = facts_of(text)
    assert facts["version"] == f"TLSv{version}"
    assert facts["client_subject"] == subject
    gains.assert_gained("keyless_handshakes_total", outcome="ok")
    gains.assert_failures()
    return facts


def assert_refused(proxy, tool, who, version, alert, reason, label="client_certificate", **how):
    gains, after = Gains(proxy), proxy.mark()
    text, got = TOOLS[tool](proxy.port, who, version, **how)
    assert got == alert, text
    assert '"client_subject"' not in text, text
    line = proxy.wait_for("handshake failed", after=after)
    assert (line["stage"], line["reason"]) == ("client certificate", reason)
    gains.assert_failures(**{label: 1})
    gains.assert_gained("keyless_handshakes_total", outcome="client")
    assert gains.gained("keyless_handshakes_total", outcome="ok") == 0
    return line


# ---- Let in.

@pytest.mark.parametrize("tool", TOOLS)
@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", ["edge1", "edge-no-eku"])
def test_let_in(required, server, tool, version, name):
    """For clients, or for anything; one signature of the key server's, over the whole handshake in TLS 1.3."""
    signatures, after = Gains(required), required.mark()
    facts = assert_let_in(required, tool, of_channel(name), version, "CN=edge1.example,O=keyless test")
    certificate = x509.load_pem_x509_certificate(of_channel(name)[0].read_bytes())
    assert facts["client_san"] == "DNS:edge1.example"
    assert facts["client_serial"] == f"{certificate.serial_number:040x}"
    assert facts["client_sha256"] == hashlib.sha256(certificate.public_bytes(Encoding.DER)).hexdigest()
    assert facts["operation"] == ("sign-transcript" if version == "1.3" else "sign-tls12")
    assert signatures.gained("keyless_key_requests_total") == 1
    line = required.wait_for("access", after=after)
    assert {key: line[key] for key in facts if key.startswith("client_")} == {
        key: facts[key] for key in facts if key.startswith("client_")}


def test_ca_names_are_told(required):
    text, _ = openssl(required.port, None)
    section = text.partition("Acceptable client certificate CA names")[2].partition("Requested Signature")[0]
    assert "O=keyless test,CN=channel CA" in section.replace(" = ", "=").replace(", ", ","), text


@pytest.mark.parametrize("version", VERSIONS)
def test_requested_and_none(requested, version):
    text, alert = openssl(requested.port, None, version)
    assert alert is None and facts_of(text)["client_subject"] is None, text


@pytest.mark.parametrize("version", VERSIONS)
def test_requested_and_good(requested, version):
    assert_let_in(requested, "curl", of_channel("edge2"), version, "CN=edge2.example,O=keyless test")


@pytest.mark.parametrize("version", VERSIONS)
def test_not_asked(stack, server, version):
    """A client that could show a certificate is not asked by default."""
    proxy = stack.proxy(server)
    text, _ = openssl(proxy.port, of_channel("edge1"), version)
    assert facts_of(text)["client_subject"] is None
    assert "No client certificate CA names sent" in text


def test_hello_retry_request(required):
    """The CertificateRequest is in a flight behind two ClientHellos, and the key server knows it."""
    text, alert = openssl(required.port, of_channel("edge1"), "1.3", "p256.example", "-groups", "P-521:P-256")
    facts = facts_of(text)
    assert (alert, facts["retries"], facts["operation"]) == (None, 1, "sign-transcript")


# ---- Refused.

REFUSED = [
    ("stranger", 49, "name of the client certificate is not allowed"),
    ("bad-edge-other-ca", 48, "client certificate of an unknown CA"),
    ("bad-edge-expired", 45, "client certificate has expired"),
    ("bad-edge-server-eku", 43, "client certificate is not for clients"),
]


@pytest.mark.parametrize("tool", TOOLS)
@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name, alert, reason", REFUSED, ids=[name for name, _, _ in REFUSED])
def test_refused(required, tool, version, name, alert, reason):
    if tool == "curl" and version == "1.2" and alert == 45:
        pytest.skip("curl tells of no alert there")
    line = assert_refused(required, tool, of_channel(name), version, alert, reason)
    assert line["client_subject"].endswith(",O=keyless test") and len(line["client_sha256"]) == 64
    assert line["client_san"].startswith("DNS:")


@pytest.mark.parametrize("tool", TOOLS)
@pytest.mark.parametrize("version, alert", [("1.2", 40), ("1.3", 116)])
def test_required_and_none(required, tool, version, alert):
    line = assert_refused(required, tool, None, version, alert, "no client certificate", "no_client_certificate")
    assert "client_subject" not in line


@pytest.mark.parametrize("version", VERSIONS)
def test_requested_and_bad(requested, version):
    """Who shows a certificate must show a good one."""
    assert_refused(requested, "openssl", of_channel("bad-edge-expired"), version, 45, "client certificate has expired")


@pytest.mark.parametrize("version", VERSIONS)
def test_public_cas_are_not_trusted(stack, server, tmp_path, version):
    """Whatever the system trusts: here the CA of the sites, which OpenSSL is told of as a public one."""
    ca = Ca(tmp_path, "public")
    proxy = stack.proxy(server, start=False, tls=tls(**REQUIRE))
    proxy.environment["SSL_CERT_FILE"] = ca.path
    proxy.start()
    assert_refused(proxy, "openssl", ca.issue("somebody"), version, 48, "client certificate of an unknown CA")


@pytest.mark.parametrize("version", VERSIONS)
def test_depth(stack, server, tmp_path, version):
    root = Ca(tmp_path, "root")
    outer = Ca(tmp_path, "outer", root)
    who = Ca(tmp_path, "inner", outer).issue("leaf")
    proxies = {depth: stack.proxy(server, tls=tls(mode="require", ca=root.path, depth=depth)) for depth in (1, 2)}
    assert_let_in(proxies[2], "openssl", who, version, "CN=leaf")
    assert_refused(proxies[1], "openssl", who, version, 48, "client certificate's chain is too long")
    assert_let_in(proxies[1], "openssl", outer.issue("near"), version, "CN=near")


NAMES = {
    "DNS": (["DNS:*.clients.example"], x509.DNSName("app.clients.example"), x509.DNSName("a.app.clients.example")),
    "URI": (["URI:spiffe://example/app"], x509.UniformResourceIdentifier("spiffe://example/app"),
            x509.UniformResourceIdentifier("spiffe://example/app2")),
    "one of several": (["CN:nobody", "DNS:a.example", "DNS:b.example"], x509.DNSName("B.example"),
                       x509.DNSName("*.example")),
}


@pytest.mark.parametrize("kind", NAMES)
def test_names(stack, server, tmp_path, kind):
    names, good, bad = NAMES[kind]
    ca = Ca(tmp_path, "ca")
    proxy = stack.proxy(server, tls=tls(mode="require", ca=ca.path, names=names))
    for version in VERSIONS:
        assert_let_in(proxy, "openssl", ca.issue("good", [good]), version, "CN=good")
        assert_refused(proxy, "openssl", ca.issue("bad", [bad]), version, 49,
                       "name of the client certificate is not allowed")


def test_common_name_and_fingerprint(stack, server, tmp_path):
    ca = Ca(tmp_path, "ca")
    one, other, third = (ca.issue(name) for name in ("one", "other", "third"))
    pem = subprocess.run(["openssl", "x509", "-in", other[0], "-noout", "-fingerprint", "-sha256"],
                         capture_output=True, text=True, check=True).stdout
    proxy = stack.proxy(server, tls=tls(mode="require", ca=ca.path,
                                        names=["CN:one", "sha256:" + pem.strip().partition("=")[2]]))
    assert_let_in(proxy, "openssl", one, "1.3", "CN=one")
    assert_let_in(proxy, "openssl", other, "1.3", "CN=other")
    assert_refused(proxy, "openssl", third, "1.3", 49, "name of the client certificate is not allowed")


@pytest.mark.parametrize("tool", ["openssl", "gnutls"])
def test_rsa_under_modern(stack, server, tmp_path, tool):
    """PKCS#1 is not in the policy's schemes, but the certificates of an RSA CA are signed with it."""
    ca = Ca(tmp_path, "ca", key=rsa_key())
    proxy = stack.proxy(server, tls={"policy": "modern", **tls(mode="require", ca=ca.path)})
    assert_let_in(proxy, tool, ca.issue("rsa", key=rsa_key()), "1.3", "CN=rsa")


# ---- Revocation.

@pytest.mark.parametrize("version", VERSIONS)
def test_revoked(stack, server, tmp_path, version):
    ca = Ca(tmp_path, "ca")
    good, bad = ca.issue("good"), ca.issue("bad")
    proxy = stack.proxy(server, tls=tls(mode="require", ca=ca.path, crl=ca.crl("crl.pem", [bad[0]])))
    assert_let_in(proxy, "openssl", good, version, "CN=good")
    assert proxy.metric("keyless_client_crl_next_update_timestamp_seconds") > time.time()
    assert_refused(proxy, "openssl", bad, version, 44, "client certificate is revoked")
    ca.crl("crl.pem", [good[0]])
    proxy.reload()
    assert_let_in(proxy, "openssl", bad, version, "CN=bad")
    assert_refused(proxy, "openssl", good, version, 44, "client certificate is revoked")


@pytest.mark.parametrize("version", VERSIONS)
def test_list_out_of_date(stack, server, tmp_path, version):
    """It refuses everybody, and tells nobody that it is their fault."""
    ca = Ca(tmp_path, "ca")
    crl = ca.crl("crl.pem", until=-datetime.timedelta(hours=1))
    proxy = stack.proxy(server, tls=tls(mode="require", ca=ca.path, crl=crl))
    assert_refused(proxy, "openssl", ca.issue("good"), version, 46, "revocation list out of date")
    assert proxy.find("CRL out of date")[0]["file"] == crl
    assert 0 < proxy.metric("keyless_client_crl_next_update_timestamp_seconds") < time.time()


# ---- What is odd.

@pytest.mark.parametrize("version", VERSIONS)
def test_too_long(stack, server, tmp_path, version):
    ca = Ca(tmp_path, "ca")
    proxy = stack.proxy(server, tls=tls(mode="require", ca=ca.path))
    assert_let_in(proxy, "openssl", ca.issue("long", padding=14000), version, "CN=long")
    gains, after = Gains(proxy), proxy.mark()
    text, _ = openssl(proxy.port, ca.issue("longer", padding=17000), version)
    assert '"client_subject"' not in text
    assert proxy.wait_for("handshake failed", after=after)["reason"] == "message too long"
    gains.assert_failures(malformed=1)


def test_before_it_was_asked_for(required):
    """In one record with the ClientHello: libssl would verify it on a fibre, whose stack is small."""
    der = x509.load_pem_x509_certificate(of_channel("edge1")[0].read_bytes()).public_bytes(Encoding.DER)
    chain = struct.pack(">I", len(der))[1:] + der
    body = struct.pack(">I", len(chain))[1:] + chain
    message = b"\x0b" + struct.pack(">I", len(body))[1:] + body
    old = clients.context(maximum_version=ssl.TLSVersion.TLSv1_2)
    hello = clients.client_hello("p256.example", old)
    content = hello[5:] + message
    gains, after = Gains(required), required.mark()
    with socket.create_connection(("127.0.0.1", required.port), timeout=harness.PATIENCE) as raw:
        raw.sendall(hello[:3] + struct.pack(">H", len(content)) + content)
        line = required.wait_for("handshake failed", after=after)
    assert line["reason"] == "client certificate before it was asked for"
    gains.assert_failures(malformed=1)
    assert_let_in(required, "curl", of_channel("edge1"), "1.2", "CN=edge1.example,O=keyless test")


class Thief(tls_client.Client):
    """TLS 1.3 with somebody's certificate, and a key of its own; or with all that it must have (key)."""

    def read_message(self, expected=None):
        if expected == wire.CERTIFICATE:
            super().read_message(13)  # CertificateRequest
        return super().read_message(expected)

    def show(self, who, key):
        der = x509.load_pem_x509_certificate(who[0].read_bytes()).public_bytes(Encoding.DER)
        entry = wire.vector24(der) + wire.vector16(b"")
        self.send_message(wire.CERTIFICATE, wire.vector8(b"") + wire.vector24(entry))
        content = b" " * 64 + b"TLS 1.3, client CertificateVerify\0" + self.digest()
        signature = key.sign(content, ec.ECDSA(hashes.SHA256()))
        self.send_message(wire.CERTIFICATE_VERIFY, wire.u16(0x0403) + wire.vector16(signature))


@pytest.mark.parametrize("thief", [False, True])
def test_certificate_without_its_key(required, thief):
    who = of_channel("edge1")
    key = load_pem_private_key(who[1].read_bytes(), None)
    gains, after = Gains(required), required.mark()
    with Thief(required.port) as client:
        client.start()
        client.send(wire.record(wire.CHANGE_CIPHER_SPEC, b"\1"))
        client.show(who, ec.generate_private_key(ec.SECP256R1()) if thief else key)
        client.send_message(wire.FINISHED, client.finished())
        client.conclude()
        if not thief:
            assert client.ask()["client_subject"] == "CN=edge1.example,O=keyless test"
            return
        with pytest.raises(tls_client.Alert) as alert:
            client.read_data()
        assert alert.value.number == 51  # decrypt_error
    line = required.wait_for("handshake failed", after=after)
    assert (line["stage"], line["reason"]) == ("client certificate", "client has not the key of its certificate")
    gains.assert_failures(client_certificate=1)


# ---- Sites.

@pytest.fixture(scope="module")
def sites(module_stack, server, tmp_path_factory):
    """(proxy, CA of a site): everybody is asked, but at one site; and at another one by another CA."""
    ca = Ca(tmp_path_factory.mktemp("site"), "site's own CA")
    proxy = module_stack.proxy(server, tls=tls(**REQUIRE), sites=[
        {"names": ["p256.example"], "client_auth": "off"},
        {"names": ["p384.example"], "client_auth": {"mode": "require", "ca": ca.path}},
        {"names": ["rsa2048.example"], "policy": "modern"},
    ])
    return proxy, ca.issue("customer")


@pytest.mark.parametrize("name, who, alert", [
    ("p256.example", None, None),
    ("p384.example", "site", None),
    ("p384.example", "edge1", 48),
    ("p384.example", None, 116),
    ("rsa2048.example", "edge1", None),  # it has the rest's, though a policy of its own
    ("rsa2048.example", "site", 48),
    ("dual.example", "edge1", None),
    ("dual.example", None, 116),
])
def test_sites(sites, name, who, alert):
    proxy, own = sites
    text, got = openssl(proxy.port, own if who == "site" else of_channel(who), "1.3", name)
    assert got == alert, text
    assert ('"client_subject"' in text) == (alert is None)


@pytest.mark.parametrize("own, rest, warned", [
    (None, "off", True), ("web", "off", True), ("own", "off", False), (None, "require", False),
])
def test_backend_that_is_open_to_others(stack, server, own, rest, warned):
    """HTTP's host is not the handshake's name: a backend that is protected by a site alone is not protected."""
    site = {"names": ["p256.example"], "client_auth": REQUIRE, **({"backend": own} if own else {})}
    everybody = tls(**(REQUIRE if rest == "require" else {"mode": "off"}))
    proxy = stack.proxy(server, start=False, sites=[site], tls=everybody,
                        backends={name: {"servers": ["builtin:hello"]} for name in ("web", "own")})
    told = proxy.check().stderr
    assert ("backend is reached without a certificate" in told) == warned, told
    assert not warned or ("backend=web" in told and "site=p256.example" in told)


# ---- Sessions.

class Holder(Client):
    """A client with a certificate, which keeps its session."""

    def __init__(self, port, who, **how):
        super().__init__(port, **how)
        if who:
            self.tls.load_cert_chain(*map(str, who))


TLS_VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]
TICKETS = {"source": "local", "tls12": True}


def refused(client):
    """A full handshake, which the proxy refuses."""
    with pytest.raises((ssl.SSLError, OSError)):
        client.visit()
    return True


@pytest.mark.parametrize("version", TLS_VERSIONS)
def test_resumed(stack, server, version):
    """Who it was is told of a session that is resumed, too, and no signature is asked for."""
    proxy = stack.proxy(server, tls=tls(**REQUIRE, names=["DNS:edge1.example"]), tickets=TICKETS)
    client = Holder(proxy.port, of_channel("edge1"), version=version)
    first = client.visit()
    second = client.visit()
    assert (first["resumed"], second["resumed"]) == (False, True)
    assert second["client_subject"] == first["client_subject"] == "CN=edge1.example,O=keyless test"
    assert second["client_sha256"] == first["client_sha256"]


@pytest.mark.parametrize("version", TLS_VERSIONS)
def test_revoked_session(stack, server, tmp_path, version):
    ca = Ca(tmp_path, "ca")
    who = ca.issue("who")
    proxy = stack.proxy(server, tls=tls(mode="require", ca=ca.path, crl=ca.crl("crl.pem")), tickets=TICKETS)
    client = Holder(proxy.port, who, version=version)
    client.visit()
    assert client.visit()["resumed"]
    ca.crl("crl.pem", [who[0]])
    proxy.reload()
    assert refused(client)
    ca.crl("crl.pem", until=-datetime.timedelta(hours=1))
    proxy.reload()
    assert refused(client)
    ca.crl("crl.pem")
    proxy.reload()
    assert client.visit()["client_subject"] == "CN=who"


@pytest.mark.parametrize("version", TLS_VERSIONS)
def test_name_no_longer_allowed(stack, server, version):
    proxy = stack.proxy(server, tls=tls(**REQUIRE), tickets=TICKETS)
    client = Holder(proxy.port, of_channel("edge2"), version=version)
    client.visit()
    proxy.config["tls"]["client_auth"]["names"] = ["DNS:edge1.example"]
    proxy.reload()
    assert refused(client)
    proxy.config["tls"]["client_auth"]["names"] = ["DNS:edge2.example"]
    proxy.reload()
    assert client.visit()["resumed"]


@pytest.mark.parametrize("version", TLS_VERSIONS)
def test_expired_session(stack, server, tmp_path, version):
    ca = Ca(tmp_path, "ca")
    seconds = 6 if not harness.SANITIZED else 12
    proxy = stack.proxy(server, tls=tls(mode="require", ca=ca.path), tickets=TICKETS)
    client = Holder(proxy.port, ca.issue("soon", until=datetime.timedelta(seconds=seconds)), version=version)
    client.visit()
    assert client.visit()["resumed"]

    def ended():
        try:
            return not client.visit(keep=False)["resumed"]
        except OSError:
            return True

    wait_until(ended, "the certificate to expire")
    assert refused(client)


@pytest.mark.parametrize("version", TLS_VERSIONS)
def test_another_ca(stack, server, tmp_path, version):
    """The same name, the same certificate of the client, which both CAs have signed: it is asked again."""
    one, other = Ca(tmp_path, "one"), Ca(tmp_path, "other")
    proxy = stack.proxy(server, tls=tls(mode="require", ca=one.path), tickets=TICKETS)
    client = Holder(proxy.port, one.issue("who"), version=version)
    client.visit()
    proxy.config["tls"]["client_auth"]["ca"] = other.path
    proxy.reload()
    assert refused(client)
    proxy.config["tls"]["client_auth"]["ca"] = one.path
    proxy.reload()
    assert client.visit()["resumed"]


@pytest.mark.parametrize("version", TLS_VERSIONS)
@pytest.mark.parametrize("before, after", [("off", REQUIRE), ({"mode": "request", "ca": CA}, REQUIRE)],
                         ids=["off", "request"])
def test_session_of_nobody(stack, server, version, before, after):
    """A session without a certificate is none where one is required."""
    proxy = stack.proxy(server, tls={"default": "localhost", "client_auth": before}, tickets=TICKETS)
    client = Holder(proxy.port, None, version=version)
    client.visit()
    assert client.visit()["resumed"]
    proxy.config["tls"]["client_auth"] = after
    proxy.reload()
    assert refused(client)


@pytest.mark.parametrize("version", TLS_VERSIONS)
def test_session_of_another_site(stack, server, version):
    """A client takes its session from a site that asks nobody to one that does, and from one CA's to another's."""
    proxy = stack.proxy(server, tickets=TICKETS, tls=tls(**REQUIRE), sites=[
        {"names": ["a.wild.example"], "client_auth": "off"}, {"names": ["b.wild.example"]}])
    client = Holder(proxy.port, None, name="a.wild.example", version=version)
    client.visit()
    assert client.visit()["resumed"]
    client.name = "b.wild.example"
    assert refused(client)


# ---- Configuration.

@pytest.mark.parametrize("client_auth, error", [
    ("on", 'tls.client_auth.mode: got "on", expected off, request or require'),
    ({"mode": "require"}, "tls.client_auth.ca: missing, expected the file of the CA"),
    ({"ca": CA}, "tls.client_auth.mode: missing, expected request or require"),
    ({"mode": "require", "ca": "/nowhere.pem"}, "tls.client_auth: /nowhere.pem: cannot be read"),
    ({"mode": "require", "ca": str(CHANNEL / "edge1-key.pem")}, "no certificate in PEM form is in it"),
    ({"mode": "require", "ca": CA, "crl": CA}, "there is none in this file"),
    ({"mode": "require", "ca": CA, "names": ["DNS:*"]}, 'tls.client_auth.names[0]: got "DNS:*", expected a host name'),
    ({"mode": "require", "ca": CA, "names": ["app"]}, 'tls.client_auth.names[0]: got "app", expected DNS:name'),
    ({"mode": "require", "ca": CA, "depth": 17}, "tls.client_auth.depth"),
], ids=["on", "no CA", "no mode", "no file", "a key", "no list", "pattern", "form", "depth"])
@pytest.mark.parametrize("where", ["tls", "site"])
def test_errors(stack, server, client_auth, error, where):
    proxy = stack.proxy(server, start=False, tls={"default": "localhost"})
    if where == "tls":
        proxy.config["tls"]["client_auth"] = client_auth
    else:
        proxy.config["sites"] = [{"names": ["a.example"], "client_auth": client_auth}]
        error = error.replace("tls.client_auth:", "sites.client_auth:" if "/nowhere" in error else
                              "sites[0].client_auth:").replace("tls.client_auth.", "sites[0].client_auth.")
    checked = proxy.check()
    assert checked.returncode == 2
    assert error in checked.stderr, checked.stderr
