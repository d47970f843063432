"""The TLS clients of OpenSSL, GnuTLS and NSS: what one of them can do alone, what all of them can, and what all are
refused. Each asks over HTTP what its handshake did; curl's turn is in test_https.py, Chromium's in test_browser.py."""

import dataclasses
import json
import os
import re
import socket
import subprocess
import threading
import time

import pytest

import harness
import tls_wire
from harness import wait_until
from observed import Observed

REQUEST = b"GET / HTTP/1.0\r\n\r\n"
STRANGE_CA = harness.CHANNEL / "ca.pem"


@pytest.fixture(scope="module")
def proxy(module_stack):
    return module_stack.pair(tls={"default": "localhost", "alpn": ["h2", "http/1.1"]})[1]


@pytest.fixture(scope="module")
def nss(tmp_path_factory):
    """A database of NSS that trusts the sites' CA, and a request for tstclnt, which takes none from its input."""
    directory = tmp_path_factory.mktemp("nss")
    database = f"sql:{directory}"
    subprocess.run(["certutil", "-N", "-d", database, "--empty-password"], check=True)
    subprocess.run(["certutil", "-A", "-d", database, "-n", "sites", "-t", "C,,", "-i", harness.SITE_CA], check=True)
    (directory / "request").write_bytes(REQUEST)
    return directory


# ---- The three.

def openssl(port, _, site, options):
    names = ["-servername", site] if site else ["-noservername"]
    names += ["-verify_hostname", site or "localhost"]
    return ["openssl", "s_client", "-connect", f"127.0.0.1:{port}", "-CAfile", harness.SITE_CA, "-verify_return_error",
            "-ign_eof", *names, *options]


def gnutls(port, _, site, options):
    names = [f"--sni-hostname={site}" if site else "--disable-sni", f"--verify-hostname={site or 'localhost'}"]
    return ["gnutls-cli", "-p", port, "127.0.0.1", "--x509cafile", harness.SITE_CA, *names, *options]


def tstclnt(port, nss, site, options):
    # Without a name it wants the certificate to be for the address.
    names = ["-a", site] if site else ["-o"]
    return ["tstclnt", "-h", "127.0.0.1", "-4", "-p", port, "-d", f"sql:{nss}", "-A", nss / "request", *names, *options]


TOOLS = {"openssl": openssl, "gnutls": gnutls, "nss": tstclnt}

# How each tells of an alert that it got.
ALERTS = {
    "openssl": r"SSL alert number (\d+)",
    "gnutls": r"Received alert \[(\d+)\]",
    "nss": r"(SSL_ERROR_\w+)",
}
# What NSS makes of an alert.
NSS_ALERTS = {70: "SSL_ERROR_PROTOCOL_VERSION_ALERT", 40: "SSL_ERROR_NO_CYPHER_OVERLAP",
              86: "SSL_ERROR_INAPPROPRIATE_FALLBACK_ALERT", 112: "SSL_ERROR_UNRECOGNIZED_NAME_ALERT"}


def run(tool, proxy, nss, site, options):
    command = [str(word) for word in TOOLS[tool](proxy.port, nss, site, options)]
    done = subprocess.run(command, input=REQUEST, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
                          timeout=harness.PATIENCE)
    return done.returncode, done.stdout.decode("utf-8", "replace")


def priority(changes):
    return f"--priority=NORMAL{changes}"


ONLY12, ONLY13 = ":-VERS-ALL:+VERS-TLS1.2", ":-VERS-ALL:+VERS-TLS1.3"


# ---- Served.

@dataclasses.dataclass
class Served:
    name: str
    facts: dict
    options: dict  # by tool
    site: str = "p256.example"
    marks: tuple = ()


NEW = pytest.mark.skipif(harness.openssl_version() < (3, 5), reason="OpenSSL before 3.5")
V13, V12, RETRY = {"version": "TLSv1.3"}, {"version": "TLSv1.2"}, {"retries": 1}
RSA_PSS, RSA_PKCS1 = {"scheme": "rsa_pss_rsae_sha256"}, {"scheme": "rsa_pkcs1_sha256"}
ECDSA, CHACHA = {"scheme": "ecdsa_secp256r1_sha256"}, {"suite": "TLS_CHACHA20_POLY1305_SHA256"}

# NSS refuses an RSA certificate that cannot encipher keys, as ours rightly cannot: it is told to go on (-o).
SERVED = [
    Served("TLS 1.3", V13, {
        "openssl": ["-tls1_3"], "gnutls": [priority(ONLY13)], "nss": ["-V", "tls1.3:tls1.3"]}),
    Served("TLS 1.2", V12, {
        "openssl": ["-tls1_2"], "gnutls": [priority(ONLY12)], "nss": ["-V", "tls1.2:tls1.2"]}),
    Served("no name", {"sni": None}, {"openssl": [], "gnutls": [], "nss": []}, site=None),
    Served("HelloRetryRequest", {**V13, **RETRY, "group": "P-256"}, {
        "openssl": ["-groups", "P-384:P-256"],
        "gnutls": [priority(":-GROUP-ALL:+GROUP-SECP384R1:+GROUP-SECP256R1"), "--single-key-share"],
        "nss": ["-I", "P384,P256"]}),
    Served("X25519MLKEM768", {**V13, "group": "X25519MLKEM768", "retries": 0}, {
        "openssl": [], "nss": ["-I", "mlkem768x25519,x25519"]}, marks=(NEW,)),
    Served("RSA alone, TLS 1.3", {**V13, **RSA_PSS}, {
        "openssl": ["-sigalgs", "rsa_pss_rsae_sha256"], "gnutls": [priority(":-SIGN-ALL:+SIGN-RSA-PSS-RSAE-SHA256")],
        "nss": ["-J", "rsa_pss_rsae_sha256", "-o"]}, site="dual.example"),
    Served("RSA alone, TLS 1.2", {**V12, **RSA_PSS}, {
        "openssl": ["-tls1_2", "-sigalgs", "rsa_pss_rsae_sha256"],
        "gnutls": [priority(ONLY12 + ":-SIGN-ALL:+SIGN-RSA-PSS-RSAE-SHA256")],
        "nss": ["-V", "tls1.2:tls1.2", "-J", "rsa_pss_rsae_sha256", "-o"]}, site="dual.example"),
    Served("PKCS #1 alone, TLS 1.2", {**V12, **RSA_PKCS1}, {
        "openssl": ["-tls1_2", "-sigalgs", "RSA+SHA256"], "gnutls": [priority(ONLY12 + ":-SIGN-ALL:+SIGN-RSA-SHA256")],
        "nss": ["-V", "tls1.2:tls1.2", "-J", "rsa_pkcs1_sha256", "-o"]}, site="dual.example"),
    Served("ECDSA alone, TLS 1.3", {**V13, **ECDSA}, {
        "openssl": ["-sigalgs", "ecdsa_secp256r1_sha256"],
        "gnutls": [priority(":-SIGN-ALL:+SIGN-ECDSA-SECP256R1-SHA256")],
        "nss": ["-J", "ecdsa_secp256r1_sha256"]}, site="dual.example"),
    Served("ECDSA alone, TLS 1.2", {**V12, **ECDSA}, {
        "openssl": ["-tls1_2", "-sigalgs", "ecdsa_secp256r1_sha256"],
        "gnutls": [priority(ONLY12 + ":-SIGN-ALL:+SIGN-ECDSA-SECP256R1-SHA256:+SIGN-ECDSA-SHA256")],
        "nss": ["-V", "tls1.2:tls1.2", "-J", "ecdsa_secp256r1_sha256"]}, site="dual.example"),
    Served("ChaCha20 alone", CHACHA, {
        "openssl": ["-ciphersuites", "TLS_CHACHA20_POLY1305_SHA256", "-tls1_3"],
        "gnutls": [priority(ONLY13 + ":-CIPHER-ALL:+CHACHA20-POLY1305")],
        "nss": ["-V", "tls1.3:tls1.3", "-c", ":1303"]}),
    Served("P-384", {"scheme": "ecdsa_secp384r1_sha384"}, {"openssl": [], "gnutls": [], "nss": []},
           site="p384.example"),
    Served("P-521", {"scheme": "ecdsa_secp521r1_sha512"}, {"openssl": [], "gnutls": [], "nss": []},
           site="p521.example"),
    Served("Ed25519", {"scheme": "ed25519"}, {"openssl": [], "gnutls": []}, site="ed25519.example"),
    Served("Ed448", {"scheme": "ed448"}, {"openssl": [], "gnutls": []}, site="ed448.example"),
    Served("ALPN", {"alpn": "http/1.1"}, {
        "openssl": ["-alpn", "h2,http/1.1"], "gnutls": ["--alpn=h2", "--alpn=http/1.1"]}),
    Served("PSK offered", {**V13, "resumed": False, **ECDSA}, {
        "openssl": ["-psk", "abcdef", "-psk_identity", "me"],
        "gnutls": [priority(":+ECDHE-PSK:+PSK"), "--pskusername=me", "--pskkey=abcdef"],
        "nss": ["-z", "0x" + "ab" * 16 + ":me"]}),
    Served("post-handshake authentication offered", V13, {
        "openssl": ["-enable_pha"], "gnutls": ["--post-handshake-auth"]}),
    Served("OCSP and SCTs wanted", {}, {"openssl": ["-status"], "nss": ["-T", "-U"]}),
    Served("small records", {}, {"openssl": ["-maxfraglen", "512"], "gnutls": ["--recordsize=512"]}),
    Served("middlebox compatibility", V13, {
        "openssl": ["-no_middlebox"], "gnutls": [priority(":%DISABLE_TLS13_COMPAT_MODE")], "nss": ["-e"]}),
    Served("KeyUpdate by both", V13, {"gnutls": [priority(ONLY13), "--rehandshake"]}),
    Served("early data allowed", V13, {"nss": ["-Z"]}),
    Served("ECH GREASE", V13, {"nss": ["-i", "100"]}),
    Served("delegated credentials", V13, {"nss": ["-B"]}),
    Served("extended master secret", V12, {"openssl": ["-tls1_2"], "nss": ["-V", "tls1.2:tls1.2", "-G"]}),
    Served("no extended master secret", V12, {"gnutls": [priority(ONLY12 + ":%NO_SESSION_HASH")]}),
    Served("false start", V12, {"nss": ["-V", "tls1.2:tls1.2", "-g"]}),
    Served("no extensions that can be left out", V12, {
        "gnutls": [priority(ONLY12 + ":%NO_TICKETS:%NO_ETM:%NO_SESSION_HASH"), "--noticket"]}),
]


def served_rows():
    return [pytest.param(tool, row, id=f"{tool} {row.name}", marks=row.marks) for row in SERVED for tool in row.options]


def answer_of(text):
    found = re.search(r'\{\s*"version".*?\}', text, re.DOTALL)
    assert found, text
    return json.loads(found.group())


@pytest.mark.parametrize("tool, row", served_rows())
def test_served(proxy, nss, tool, row):
    observed = Observed(proxy)
    status, text = run(tool, proxy, nss, row.site, row.options[tool])
    assert status == 0, text
    facts = answer_of(text)
    assert {name: facts[name] for name in row.facts} == row.facts
    assert facts["sni"] == row.site
    observed.assert_served()
    observed.assert_whole()


# ---- Refused.

@dataclasses.dataclass
class Refused:
    name: str
    alert: int
    stage: str
    reason: str
    options: dict
    site: str = "p256.example"


VERSION = ("client hello", "unsupported protocol version")
REFUSED = [
    Refused("TLS 1.1", 70, *VERSION, {
        "openssl": ["-tls1_1", "-cipher", "ALL@SECLEVEL=0"], "gnutls": [priority(":-VERS-ALL:+VERS-TLS1.1")],
        "nss": ["-V", "tls1.1:tls1.1"]}),
    Refused("TLS 1.0", 70, *VERSION, {
        "openssl": ["-tls1", "-cipher", "ALL@SECLEVEL=0"], "gnutls": [priority(":-VERS-ALL:+VERS-TLS1.0")],
        "nss": ["-V", "tls1.0:tls1.0"]}),
    Refused("SSL 3.0, which has no better alert", 40, *VERSION, {"nss": ["-V", "ssl3:ssl3"]}, site=None),
    Refused("TLS_RSA", 40, "certificate", "no shared cipher", {
        "openssl": ["-tls1_2", "-cipher", "kRSA@SECLEVEL=0"], "gnutls": [priority(ONLY12 + ":-KX-ALL:+RSA")],
        "nss": ["-V", "tls1.2:tls1.2", "-c", ":009C"]}, site="rsa2048.example"),
    Refused("DHE", 40, "certificate", "no shared cipher", {
        "openssl": ["-tls1_2", "-cipher", "kDHE@SECLEVEL=0"], "gnutls": [priority(ONLY12 + ":-KX-ALL:+DHE-RSA")],
        "nss": ["-V", "tls1.2:tls1.2", "-c", ":009E"]}, site="rsa2048.example"),
    Refused("PKCS #1 alone, TLS 1.3", 40, "certificate", "no shared signature algorithm", {
        "openssl": ["-tls1_3", "-sigalgs", "RSA+SHA256"], "gnutls": [priority(ONLY13 + ":-SIGN-ALL:+SIGN-RSA-SHA256")]},
            site="rsa2048.example"),
    Refused("Ed25519, which NSS does not know", 40, "certificate", "no shared signature algorithm", {"nss": []},
            site="ed25519.example"),
    Refused("fallback", 86, "client hello", "fallback to an older version (SCSV)", {
        "openssl": ["-tls1_2", "-fallback_scsv"], "gnutls": [priority(ONLY12 + ":%FALLBACK_SCSV")],
        "nss": ["-V", "tls1.2:tls1.2", "-K"]}),
    Refused("name that no chain is for", 112, "client hello", "no certificate for this name", {
        "openssl": [], "gnutls": [], "nss": []}, site="unknown.example"),
    Refused("protocol that is not spoken", 120, "client hello", "no shared application protocol", {
        "openssl": ["-alpn", "spdy/3"], "gnutls": ["--alpn=spdy/3"]}),
]


def refused_rows():
    return [pytest.param(tool, row, id=f"{tool} {row.name}") for row in REFUSED for tool in row.options]


@pytest.mark.parametrize("tool, row", refused_rows())
def test_refused(proxy, nss, tool, row):
    observed = Observed(proxy)
    status, text = run(tool, proxy, nss, row.site, row.options[tool])
    assert status == {"openssl": 1, "gnutls": 1, "nss": 254}[tool], text
    expected = NSS_ALERTS[row.alert] if tool == "nss" else str(row.alert)
    assert expected in re.findall(ALERTS[tool], text), text
    observed.assert_failed(row.reason, row.stage, row.site or "")
    observed.assert_whole()


# ---- Refusing: clients that do not like the certificate.

REFUSING = [
    ("openssl", "p256.example", ["-CAfile", STRANGE_CA], "unknown CA"),
    ("gnutls", "p256.example", ["--x509cafile", STRANGE_CA], "bad certificate"),
    ("nss", "p256.example", ["-D"], "unknown CA"),
    ("openssl", "unknown.example", ["-tls1_2"], "bad certificate"),
    ("gnutls", "unknown.example", [priority(ONLY12)], "bad certificate"),
    ("nss", "rsa2048.example", [], "certificate unknown"),
]


@pytest.mark.parametrize("tool, site, options, alert", REFUSING)
def test_refusing(proxy, nss, tool, site, options, alert):
    observed = Observed(proxy)
    if "-D" in options:
        command = ["tstclnt", "-h", "127.0.0.1", "-4", "-p", str(proxy.port), "-D", "-A", nss / "request", "-a", site]
        status = subprocess.run(command, capture_output=True, check=False, timeout=harness.PATIENCE).returncode
    else:
        status, _ = run(tool, proxy, nss, site, options)
    assert status != 0
    observed.assert_failed(f"client sent alert: {alert}", "finished", site)
    observed.assert_whole()


# ---- One connection after the other.

@pytest.mark.parametrize("version", [ONLY13, ONLY12], ids=["1.3", "1.2"])
def test_resumption_wanted(proxy, nss, version):
    observed = Observed(proxy)
    status, text = run("gnutls", proxy, nss, "p256.example", [priority(version), "--resume", "--waitresumption"])
    assert status == 0, text
    resumes = version == ONLY13  # in TLS 1.2 there are no tickets by default
    assert ("This is a resumed session" in text) == resumes and answer_of(text)["resumed"] == resumes, text
    observed.assert_served(2)


def test_reconnections(proxy, nss):
    observed = Observed(proxy)
    status, text = run("openssl", proxy, nss, "p256.example", ["-tls1_2", "-reconnect"])
    assert status == 0 and text.count("New, TLSv1.2") == 6 and "Reused" not in text, text
    observed.assert_served(6)


# ---- Talking to s_client: its commands are single letters at the beginning of a line.

class Talk:
    """A client that is kept running, and asked."""

    def __init__(self, *command):
        self.popen = subprocess.Popen([str(word) for word in command], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                      stderr=subprocess.STDOUT)
        os.set_blocking(self.popen.stdout.fileno(), False)
        self.text = ""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.popen.kill()
        self.popen.wait()
        self.popen.stdin.close()
        self.popen.stdout.close()

    def hear(self, pattern):
        """Waits for this in what it says; what it said up to there is forgotten."""
        def heard():
            self.text += (self.popen.stdout.read() or b"").decode("utf-8", "replace")
            return re.search(pattern, self.text, re.DOTALL)

        found = wait_until(heard, f"{pattern!r} in what it says: {self.text!r}")
        self.text = self.text[found.end():]
        return found

    def say(self, line):
        self.popen.stdin.write(line.encode() + b"\n")
        self.popen.stdin.flush()


def talk(proxy, *options):
    return Talk("openssl", "s_client", "-connect", f"127.0.0.1:{proxy.port}", "-servername", "p256.example", "-CAfile",
                harness.SITE_CA, "-verify_return_error", "-crlf", *options)


def ask(client, before=""):
    """A request over the connection as it is; its answer's facts. before: what is heard before the answer."""
    client.say("GET / HTTP/1.1")
    client.say("Host: p256.example")
    client.say("")
    return json.loads(client.hear(before + r'.*?(\{\s*"version".*?\})').group(1))


@pytest.mark.parametrize("command", ["k", "K"])
def test_key_updates(proxy, command):
    """K wants one in return, which comes before the next data (RFC 8446 section 4.6.3)."""
    observed = Observed(proxy)
    with talk(proxy, "-tls1_3", "-msg") as client:
        client.hear("Verification: OK")
        for _ in range(3):
            client.say(command)
            client.hear(r"KEYUPDATE.*?>>> TLS 1.3, Handshake \[length 0005\], KeyUpdate")
            answered = r"<<< TLS 1.3, Handshake \[length 0005\], KeyUpdate" if command == "K" else ""
            assert ask(client, answered)["version"] == "TLSv1.3"
        client.say("Q")
        assert client.popen.wait(harness.PATIENCE) == 0
    observed.assert_served()
    observed.assert_whole()


def test_renegotiation(proxy):
    """Refused with a warning, which s_client takes for the end."""
    observed = Observed(proxy)
    with talk(proxy, "-tls1_2") as client:
        client.hear("Verification: OK")
        client.hear("---\n")
        assert ask(client)["version"] == "TLSv1.2"
        client.say("R")
        client.hear("RENEGOTIATING")
        client.hear("no renegotiation")
        assert client.popen.wait(harness.PATIENCE) == 1
    observed.assert_served()
    observed.assert_whole()


def test_renegotiation_by_gnutls(proxy, nss):
    observed = Observed(proxy)
    status, text = run("gnutls", proxy, nss, "p256.example", [priority(ONLY12), "--rehandshake"])
    assert status == 1 and "Received alert [100]" in text, text
    observed.assert_served()
    observed.assert_whole()


class Tap:
    """One connection to a port, passed on octet for octet; the types of the records that went either way."""

    def __init__(self, target):
        self.target, self.octets = target, {"up": b"", "down": b""}
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _pass(self, source, target, way):
        while data := source.recv(65536):
            self.octets[way] += data
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)

    def _run(self):
        with self.listener, self.listener.accept()[0] as client, socket.create_connection(("127.0.0.1", self.target)) as server:
            answers = threading.Thread(target=self._pass, args=(server, client, "down"), daemon=True)
            answers.start()
            self._pass(client, server, "up")
            answers.join()

    def records(self):
        """Of either way, when the connection has ended."""
        self.thread.join(harness.PATIENCE)
        return [[kind for kind, _ in tls_wire.plain_records(self.octets[way])] for way in ("up", "down")]


def test_renegotiation_by_nss(proxy, nss):
    """It takes the warning for a no, and goes on."""
    observed = Observed(proxy)
    tap = Tap(proxy.port)
    status, text = run("nss", tap, nss, "p256.example", ["-V", "tls1.2:tls1.2", "-r", "1"])
    assert status == 0 and answer_of(text)["version"] == "TLSv1.2", text
    up, down = tap.records()
    data, handshake, alert = tls_wire.APPLICATION_DATA, tls_wire.HANDSHAKE, tls_wire.ALERT
    # After its Finished another ClientHello, encrypted as that was; for an answer it gets no handshake message but an alert.
    finished = up.index(tls_wire.CHANGE_CIPHER_SPEC) + 1
    assert up[finished:finished + 3] == [handshake, handshake, data]
    finished = down.index(tls_wire.CHANGE_CIPHER_SPEC) + 1
    assert down[finished:finished + 3] == [handshake, alert, data]
    observed.assert_served()
    observed.assert_whole()


def test_one_idle_while_others_come(proxy, nss):
    """A client that only connects keeps nobody waiting."""
    with talk(proxy) as client:
        client.hear("Verification: OK")
        began = time.monotonic()
        for tool in TOOLS:
            assert run(tool, proxy, nss, "p256.example", [])[0] == 0
        assert time.monotonic() - began < harness.PATIENCE / 2
        assert ask(client)["sni"] == "p256.example"
