"""A browser: headless Chromium, which trusts the sites' CA and takes every name for the proxy's address."""

import contextlib
import hashlib
import http.server
import os
import re
import shutil
import subprocess
import threading

import pytest

import harness
from harness import wait_until
from observed import Observed

pytestmark = pytest.mark.browser

# The first that Chromium and our default groups have in common.
GROUP = "X25519MLKEM768" if harness.openssl_version() >= (3, 5) else "X25519"

OPTIONS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
           "--disable-background-networking", "--disable-component-update", "--disable-sync",
           "--host-resolver-rules=MAP * 127.0.0.1", "--dump-dom", "--virtual-time-budget=20000"]


class Browser:
    """Each page in a browser of its own, that remembers nothing."""

    def __init__(self, directory):
        self.directory = directory
        self.pages = 0
        self.home = directory / "home"
        database = self.home / ".pki" / "nssdb"
        database.mkdir(parents=True)
        certutil = ["certutil", "-d", f"sql:{database}"]
        subprocess.run([*certutil, "-N", "--empty-password"], check=True)
        subprocess.run([*certutil, "-A", "-n", "sites", "-t", "C,,", "-i", harness.SITE_CA], check=True)

    def open(self, address, *options):
        """The page's elements when it has loaded, and the error if it has not."""
        self.pages += 1
        profile = self.directory / f"profile{self.pages}"
        try:
            done = subprocess.run(["chromium", *OPTIONS, f"--user-data-dir={profile}", *options, address],
                                  env={**os.environ, "HOME": str(self.home)}, capture_output=True, text=True,
                                  timeout=6 * harness.PATIENCE, check=False)
        finally:
            shutil.rmtree(profile, ignore_errors=True)
        error = re.search(r"net::(ERR_\w+)", done.stderr)
        return done.stdout, error.group(1) if error else None

    def facts(self, address, *options):
        """What builtin:hello tells people of the handshake."""
        page, error = self.open(address, *options)
        assert error is None and "It works" in page, (error, page)
        return dict(re.findall(r"<th>(\w+)</th><td>([^<]*)</td>", page))


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    return Browser(tmp_path_factory.mktemp("browser"))


@pytest.fixture(scope="module")
def pair(module_stack):
    return module_stack.pair(tls={"default": "localhost", "alpn": ["h2", "http/1.1"]})


@pytest.mark.parametrize("site, options, expected", [
    ("p256.example", [], {"version": "TLSv1.3", "scheme": "ecdsa_secp256r1_sha256", "group": GROUP, "retries": "0"}),
    ("p256.example", ["--ssl-version-max=tls1.2"],
     {"version": "TLSv1.2", "scheme": "ecdsa_secp256r1_sha256", "group": "X25519"}),
    ("rsa2048.example", [], {"version": "TLSv1.3", "scheme": "rsa_pss_rsae_sha256", "group": GROUP}),
    ("rsa2048.example", ["--ssl-version-max=tls1.2"], {"version": "TLSv1.2", "scheme": "rsa_pss_rsae_sha256"}),
    ("p384.example", [], {"scheme": "ecdsa_secp384r1_sha384"}),
    ("dual.example", [], {"scheme": "ecdsa_secp256r1_sha256"}),
    ("any.wild.example", [], {"scheme": "ecdsa_secp256r1_sha256"}),
])
def test_page(pair, browser, site, options, expected):
    _, proxy = pair
    observed = Observed(proxy)
    facts = browser.facts(f"https://{site}:{proxy.port}/", *options)
    assert facts["sni"] == site and facts["alpn"] == "http/1.1" and facts["key_server"] == "keys-a"
    assert {name: facts[name] for name in expected} == expected
    assert not observed.failures()
    observed.assert_whole()


@pytest.mark.parametrize("site, error, stage, reason", [
    ("unknown.example", "ERR_SSL_UNRECOGNIZED_NAME_ALERT", "client hello", "no certificate for this name"),
    # Chromium knows neither.
    ("p521.example", "ERR_SSL_VERSION_OR_CIPHER_MISMATCH", "certificate", "no shared signature algorithm"),
    ("ed25519.example", "ERR_SSL_VERSION_OR_CIPHER_MISMATCH", "certificate", "no shared signature algorithm"),
])
def test_refused(pair, browser, site, error, stage, reason):
    _, proxy = pair
    observed = Observed(proxy)
    assert browser.open(f"https://{site}:{proxy.port}/")[1] == error
    assert {(line["sni"], line["stage"], line["reason"]) for line in observed.failures()} == {(site, stage, reason)}
    observed.assert_whole()


@pytest.mark.parametrize("group", ["P-256", "P-384"])
def test_retry(module_stack, pair, browser, group):
    """Groups of which Chromium sends no share."""
    server, _ = pair
    proxy = module_stack.proxy(server, tls={"groups": group})
    facts = browser.facts(f"https://{'p384' if group == 'P-384' else 'p256'}.example:{proxy.port}/")
    assert facts["group"] == group and facts["retries"] == "1"


def test_key_server_away(stack, browser):
    """An error page, and the page itself as soon as it can be."""
    server, proxy = stack.pair()
    address = f"https://p256.example:{proxy.port}/"
    assert server.stop() == 0
    assert browser.open(address)[1] == "ERR_SSL_PROTOCOL_ERROR"
    proxy.wait_for("handshake failed", sni="p256.example", stage="key")
    server.start()
    wait_until(lambda: proxy.metric("keyless_key_channels_up") == 1, "the channel to be up")
    assert browser.facts(address)["sni"] == "p256.example"


# ---- A page that wants a lot.

PARTS, SIZE, UPLOAD = 120, 40_000, 3_000_000
SITES = ["p256.example", "rsa2048.example", "p384.example", "dual.example"]

PAGE = f"""<!DOCTYPE html><title>parts</title><p id="result">waiting</p><script>
async function digest(octets) {{
    const hash = await crypto.subtle.digest("SHA-256", octets);
    return Array.from(new Uint8Array(hash), octet => octet.toString(16).padStart(2, "0")).join("");
}}
async function part(number) {{
    const sites = {SITES!r};
    const answer = await fetch(`https://${{sites[number % sites.length]}}:${{location.port}}/part/${{number}}`);
    return await digest(await answer.arrayBuffer()) === answer.headers.get("x-digest");
}}
async function upload() {{
    const octets = new Uint8Array({UPLOAD});
    for (let i = 0; i < octets.length; i++) octets[i] = i * 7 + (i >> 8);
    const answer = await fetch("/upload", {{method: "POST", body: octets}});
    return await answer.text() === await digest(octets);
}}
(async () => {{
    const parts = await Promise.all(Array.from({{length: {PARTS}}}, (_, number) => part(number)));
    const uploaded = await upload();
    document.getElementById("result").textContent = `${{parts.filter(Boolean).length}} parts, upload ${{uploaded}}`;
}})().catch(error => document.getElementById("result").textContent = "failed: " + error);
</script>"""


class Backend(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self, body, kind="application/octet-stream"):
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Access-Control-Allow-Origin", "*")
        self.send_header("Access-Control-Expose-Headers", "x-digest")
        self.send_header("X-Digest", hashlib.sha256(body).hexdigest())
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        if self.path.startswith("/part/"):
            self.answer(hashlib.shake_128(self.path.encode()).digest(SIZE))
        else:
            self.answer(PAGE.encode(), "text/html")

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.answer(hashlib.sha256(body).hexdigest().encode(), "text/plain")

    def log_message(self, *_):
        pass


@contextlib.contextmanager
def backend():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Backend)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_page_of_many_parts(stack, browser):
    """From four sites at once over many connections, each part intact, and one large upload."""
    with backend() as port:
        _, proxy = stack.pair(backends={"web": {"servers": [f"127.0.0.1:{port}"]}}, tls={"alpn": ["http/1.1"]})
        page, error = browser.open(f"https://p256.example:{proxy.port}/")
        assert error is None
        assert f"{PARTS} parts, upload true" in page, page[-200:]
        assert proxy.metric("keyless_handshakes_total", outcome="ok") >= len(SITES)
        wait_until(lambda: proxy.metric("keyless_connections_open") == 0, "its connections to be closed")
