"""mode: transcript, the default: TLS 1.3 signatures are asked for with the whole handshake (operation 0x63), which the
key server checks. What is signed by which operation, what the key server refuses and what its client then gets, large
messages, and key servers that cannot do it."""

import contextlib
import datetime
import os
import signal

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

import fake_key_server as fake
import key_server_faults as faults
import tls_wire as wire
from harness import SITES, curl, s_client, wait_until
from kssl_codec import Op
from tls_client import Client, leave
from watched import TIMEOUT, Watched, key_channel, refused, request_series, served

MANY = 400
SITES_OF_EACH_TYPE = ["rsa2048", "p256", "p384", "p521", "ed25519", "ed448"]


def signed(server, operation):
    return server.metric("keyless_keyserver_requests_total", operation=operation, outcome="ok")


@pytest.fixture(scope="module")
def pair(module_stack):
    """A key server whose client may have transcripts signed and nothing else in TLS 1.3; and for HelloRetryRequests a
    second proxy that speaks one group alone."""
    clients = [{"match": "DNS:edge1.example", "keys": ["*"], "allow": ["tls13", "tls12"], "require": "transcript"}]
    server = module_stack.key_server(clients=clients)
    proxies = [module_stack.proxy(server), module_stack.proxy(server, tls={"groups": "P-256"})]
    for proxy in proxies:
        proxy.wait_tried()
    return server, *proxies


# ---- What is signed by which operation.


@pytest.mark.parametrize("suite", ["TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384"])
@pytest.mark.parametrize("group", ["X25519", "P-256", "retry"])
@pytest.mark.parametrize("site", SITES_OF_EACH_TYPE)
def test_each_key_and_group(pair, site, group, suite):
    """Also after a HelloRetryRequest, and with either hash; curl verifies the signature, the key server the rest."""
    server, proxy, retrying = pair
    before = signed(server, "sign-transcript")
    to, curves = (retrying, "X25519:P-256") if group == "retry" else (proxy, group)
    answer = curl(f"{site}.example", to.port, "--tlsv1.3", "--tls13-ciphers", suite, "--curves", curves).json()
    assert (answer["version"], answer["suite"], answer["operation"]) == ("TLSv1.3", suite, "sign-transcript")
    assert answer["retries"] == int(group == "retry")
    wait_until(lambda: signed(server, "sign-transcript") == before + 1, "the key server to count it")
    assert signed(server, "sign-tls13") == 0


@pytest.mark.parametrize("site", SITES_OF_EACH_TYPE)
def test_tls12_has_no_transcript(pair, site):
    server, proxy, _ = pair
    before = signed(server, "sign-tls12")
    answer = curl(f"{site}.example", proxy.port, "--tlsv1.2", "--tls-max", "1.2").json()
    assert (answer["version"], answer["operation"]) == ("TLSv1.2", "sign-tls12")
    wait_until(lambda: signed(server, "sign-tls12") == before + 1, "the key server to count it")


def test_mode_tbs(stack):
    server = stack.key_server()
    proxy = stack.proxy(server, start=False)
    proxy.config["key_servers"][0]["mode"] = "tbs"
    proxy.start()
    proxy.wait_tried()
    before = signed(server, "sign-tls13")
    for site in SITES_OF_EACH_TYPE:
        assert curl(f"{site}.example", proxy.port, "--tlsv1.3").json()["operation"] == "sign-tls13"
    wait_until(lambda: signed(server, "sign-tls13") == before + len(SITES_OF_EACH_TYPE), "the key server to count them")
    assert signed(server, "sign-transcript") == 0
    assert not proxy.find("operation not offered by key server")


@pytest.mark.parametrize("name", ["a.wild.example", "A.Wild.EXAMPLE", "dual.example"])
def test_names(pair, name):
    _, proxy, _ = pair
    status, text = s_client(proxy.port, "-servername", name, "-verify_hostname", name, "-verify_return_error", "-tls1_3")
    assert status == 0, text


# ---- Key servers that cannot do it: the mode is never lowered.


def without_certificates(stack):
    return stack.key_server(
        certificates=None, clients=[{"match": "DNS:edge1.example", "keys": ["*"], "allow": ["tls13", "tls12"]}]
    )


@pytest.mark.parametrize("key_server", [
    without_certificates, lambda stack: stack.fake_key_server(faults.Offers(Op.SIGN_TLS13, Op.SIGN_TLS12)),
], ids=["ours without certificates", "one that knows no 0x63"])
def test_not_offered(stack, key_server):
    server = key_server(stack)
    proxy = stack.proxy(server, key_channel=key_channel())
    line = proxy.wait_for("operation not offered by key server", server="keys-a", operation="sign-transcript")
    assert line["level"] == "warn"
    assert "set certificates" in line["reason"] and "mode: tbs" in line["reason"]
    assert refused(proxy) < TIMEOUT
    proxy.wait_for("handshake failed", stage="key", reason="operation not offered by key server")
    assert proxy.metric("keyless_key_requests_total", outcome="refused") == 1
    assert proxy.metric("keyless_handshake_failures_total", reason="key_refused") == 1
    assert curl("p256.example", proxy.port, "--tls-max", "1.2").json()["operation"] == "sign-tls12"


def test_other_way_round(stack):
    """A key server that wants transcripts, and a proxy that is told not to send any."""
    clients = [{"match": "DNS:edge1.example", "keys": ["*"], "allow": ["transcript"]}]
    proxy = stack.proxy(stack.key_server(clients=clients), start=False)
    proxy.config["key_servers"][0]["mode"] = "tbs"
    proxy.start()
    line = proxy.wait_for("operation not offered by key server", server="keys-a", operation="sign-tls13")
    assert "mode: transcript" in line["reason"]
    refused(proxy)
    proxy.wait_for("handshake failed", stage="key", reason="operation not offered by key server")


# ---- What the key server refuses: an alert for the client, a line with the cause on either side.


def assert_refused_by_key_server(server, proxy, reason, why, error):
    """Once, for this handshake; test requests may be refused as well."""
    line = proxy.wait_for("handshake failed", stage="key", reason=reason)
    server.wait_for("request refused", request=line["request"])
    (theirs,) = server.find("request refused", request=line["request"])
    assert (theirs["operation"], theirs["reason"]) == ("sign-transcript", why)
    assert proxy.metric("keyless_handshake_failures_total", reason="key_error") == 1
    assert proxy.metric("keyless_key_requests_total", outcome="error") == 1
    assert server.metric("keyless_keyserver_refusals_total", error=error) >= 1


def test_leaf_that_the_key_server_does_not_have(stack, tmp_path):
    known = tmp_path / "known"
    known.mkdir()
    (known / "p384.pem").write_bytes((SITES / "chains" / "p384.pem").read_bytes())
    server, proxy = stack.pair({"certificates": [{"dir": str(known)}]})
    refused(proxy)
    assert_refused_by_key_server(server, proxy, "key not found", "the certificate is none of this key's", "0x02")
    served(proxy, "p384.example")
    assert curl("p256.example", proxy.port, "--tls-max", "1.2").status == 0


def test_name_that_the_client_may_not_have(stack):
    clients = [{"match": "DNS:edge1.example", "keys": ["*"], "names": ["p384.example"], "allow": ["transcript"]}]
    server, proxy = stack.pair({"clients": clients})
    refused(proxy)
    assert_refused_by_key_server(server, proxy, "refused by policy", "the SNI is none of the client's names", "0x40")
    served(proxy, "p384.example")


def test_protocol_that_is_never_signed_for(stack):
    """acme-tls/1 proves the control of a name to a CA (RFC 8737)."""
    server, proxy = stack.pair(tls={"alpn": ["acme-tls/1", "http/1.1"]})
    status, text = s_client(proxy.port, "-servername", "p256.example", "-alpn", "acme-tls/1", "-tls1_3")
    assert status != 0 and "alert number 80" in text, text
    assert_refused_by_key_server(server, proxy, "refused by policy", "the protocol is acme-tls/1", "0x40")
    served(proxy)


def test_no_name(stack):
    """Without a name there is nothing but `names` to go by: signed for one that may have any name."""
    clients = [{"match": "DNS:edge1.example", "keys": ["*"], "names": ["localhost"], "allow": ["transcript"]}]
    server, proxy = stack.pair({"clients": clients})
    status, text = s_client(proxy.port, "-noservername", "-tls1_3")
    assert status != 0 and "alert number 80" in text, text
    assert_refused_by_key_server(server, proxy, "refused by policy", "the SNI is none of the client's names", "0x40")
    served(proxy, "localhost")


def test_unknown_name(pair):
    """Nobody is asked; the client gets the alert that is for it."""
    server, proxy, _ = pair
    asked = proxy.metric("keyless_key_requests_total")
    before = proxy.metric("keyless_handshake_failures_total", reason="unknown_name")
    status, text = s_client(proxy.port, "-servername", "unknown.example", "-tls1_3")
    assert status != 0 and "alert number 112" in text, text
    proxy.wait_for("handshake failed", sni="unknown.example", reason="no certificate for this name")
    wait_until(lambda: proxy.metric("keyless_handshake_failures_total", reason="unknown_name") == before + 1, "the counter")
    assert proxy.metric("keyless_key_requests_total") == asked


# ---- Large messages.


@pytest.mark.parametrize("record", [1000, 16384], ids=["in pieces", "in one record"])
@pytest.mark.parametrize("size", [15000, 16384])
def test_large_hello(pair, size, record):
    server, proxy, _ = pair
    before = signed(server, "sign-transcript")
    with Client(proxy.port, lambda pairs: wire.tls13_hello(key_shares=pairs).padded(size)) as client:
        client.note_hello()
        client.send(wire.records(wire.HANDSHAKE, client.hello.message(), record))
        assert client.answer_server_hello().finish().ask()["operation"] == "sign-transcript"
    wait_until(lambda: signed(server, "sign-transcript") == before + 1, "the key server to count it")


def test_two_large_hellos(pair):
    _, _, proxy = pair
    with Client(proxy.port, lambda pairs: wire.tls13_hello(key_shares=pairs).padded(16000)) as client:
        answer = client.handshake().ask()
    assert (answer["retries"], answer["operation"]) == (1, "sign-transcript")


@pytest.mark.parametrize("versions", [(wire.TLS13, wire.TLS12), (wire.TLS12,)], ids=["1.3", "1.2"])
def test_hello_that_is_too_large(pair, versions):
    _, proxy, _ = pair
    mark, before = proxy.mark(), proxy.metric("keyless_handshake_failures_total", reason="malformed")
    hello = lambda pairs: wire.tls13_hello(key_shares=pairs, versions=versions).padded(16385)
    with Client(proxy.port, hello) as client:
        client.send(wire.records(wire.HANDSHAKE, client.hello.message(), 16384))
        assert client.outcome() == wire.ILLEGAL_PARAMETER
    proxy.wait_for("handshake failed", after=mark, stage="client hello", reason="ClientHello too long")
    wait_until(lambda: proxy.metric("keyless_handshake_failures_total", reason="malformed") == before + 1, "the counter")


def issue(subject, key, issuer, issuer_key, extensions):
    now = datetime.datetime.now(datetime.timezone.utc)
    name = lambda text: x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, text)])
    made = x509.CertificateBuilder().subject_name(name(subject)).issuer_name(name(issuer)).public_key(key.public_key())
    made = made.serial_number(x509.random_serial_number()).not_valid_before(now - datetime.timedelta(days=1))
    made = made.not_valid_after(now + datetime.timedelta(days=1))
    for extension, critical in extensions:
        made = made.add_extension(extension, critical)
    return made.sign(issuer_key, hashes.SHA256())


def pem(*certificates):
    return b"".join(made.public_bytes(serialization.Encoding.PEM) for made in certificates)


def long_chain(directory, size):
    """A root, and a chain for long.example that is about so many octets long, with the leaf's key beside it."""
    root_key, issuer_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(3))
    is_ca = (x509.BasicConstraints(True, None), True)
    ballast = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.99999.1"), b"\x04\x82" + bytes(size - 900))
    root = issue("long root", root_key, "long root", root_key, [is_ca])
    issuer = issue("long issuer", issuer_key, "long root", root_key, [is_ca, (ballast, False)])
    names = x509.SubjectAlternativeName([x509.DNSName("long.example")])
    leaf = issue("long", key, "long issuer", issuer_key, [(names, False)])
    for name in ("keys", "chains"):
        (directory / name).mkdir(parents=True)
    (directory / "root.pem").write_bytes(pem(root))
    (directory / "chains" / "long.pem").write_bytes(pem(leaf, issuer))
    (directory / "keys" / "long.key").write_bytes(key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
    os.chmod(directory / "keys" / "long.key", 0o600)
    return directory


def test_long_chain(stack, tmp_path):
    """With the largest hellos before it: what one transcript can be."""
    site = long_chain(tmp_path / "site", 24000)
    server = stack.key_server(keys=[{"dir": str(site / "keys")}], certificates=[{"dir": str(site / "chains")}])
    proxy = stack.proxy(server, certificates=[{"dir": str(site / "chains")}], tls={"groups": "P-256"})
    proxy.wait_tried()
    tried = signed(server, "sign-transcript")
    done = s_client(proxy.port, "-servername", "long.example", "-tls1_3", "-CAfile", site / "root.pem",
                    "-verify_return_error", stdin=b"GET / HTTP/1.0\r\n\r\n")
    assert done[0] == 0, done[1]
    hello = lambda pairs: wire.tls13_hello(b"long.example", key_shares=pairs).padded(16000)
    with Client(proxy.port, hello) as client:
        answer = client.handshake().ask()
    assert (answer["retries"], answer["operation"]) == (1, "sign-transcript")
    wait_until(lambda: signed(server, "sign-transcript") == tried + 2, "the key server to count them")


def test_chain_that_is_too_long(stack, tmp_path):
    site = long_chain(tmp_path / "site", 25000)
    proxy = stack.proxy(1, start=False, certificates=[{"dir": str(site / "chains")}], tls=None)
    checked = proxy.check()
    assert checked.returncode == 2
    assert "chains/long.pem: its Certificate message would have too many bytes" in checked.stderr
    assert "the most allowed is 24576" in checked.stderr


# ---- Requests that are lost, and clients that leave.


def asked(server):
    return [request for _, request in list(server.requests) if request.opcode == Op.SIGN_TRANSCRIPT]


def test_lost_answer(stack):
    """The same request goes out again on the next channel, and the whole of it."""
    server = stack.fake_key_server()
    watched = Watched(stack.proxy(server, key_channel=key_channel()))
    before = len(asked(server))
    server.behaviour = faults.ClosesOnRequest(2)
    with Client(watched.proxy.port, lambda pairs: wire.tls13_hello(key_shares=pairs).padded(15000)) as client:
        assert client.handshake().ask()["operation"] == "sign-transcript"
    payloads = [request.payload for request in asked(server)[before:]]
    assert len(payloads) == 3 and len(set(payloads)) == 1 and len(payloads[0]) > 15000
    watched.assert_counted("keyless_key_requests_resent_total", 2)
    watched.assert_whole()
    assert not server.errors


@pytest.mark.parametrize("manner", ["FIN", "RST"])
def test_client_leaves_while_pending(stack, manner):
    """Its transcript goes with it: it is not sent again when the channel is lost, and nothing is left of it."""
    server = stack.fake_key_server()
    watched = Watched(stack.proxy(server, key_channel=key_channel(timeout="10s")))
    server.behaviour = faults.NeverSigns()
    before = len(asked(server))
    gone = [Client(watched.proxy.port, lambda pairs: wire.tls13_hello(key_shares=pairs).padded(15000)) for _ in range(20)]
    for client in gone:
        client.send_hello()
    wait_until(lambda: len(asked(server)) == before + 20, "all signatures to be asked for")
    for client in gone:
        leave(client, manner)
    watched.assert_counted(request_series("cancelled"), 20)
    server.behaviour = fake.Honest()
    server.cut_all()
    watched.assert_whole()
    assert len(asked(server)) == before + 21 and not server.errors


def test_many_large_at_once(stack):
    """More than the channel's queue takes (512 kB, and what the sockets hold) while nobody reads it: they wait."""
    server = stack.key_server()
    proxy = stack.proxy(server, key_channel=key_channel(timeout="9s"))
    proxy.wait_tried()
    tried = signed(server, "sign-transcript")
    (front_end,) = server.children("frontend")
    hello = lambda pairs: wire.tls13_hello(key_shares=pairs).padded(16000)
    with contextlib.ExitStack() as closing:
        waiting = [closing.enter_context(Client(proxy.port, hello)) for _ in range(MANY)]
        front_end.signal(signal.SIGSTOP)
        for client in waiting:
            client.send_hello()
        wait_until(lambda: proxy.metric("keyless_key_requests_pending") == MANY, "all to wait")
        assert proxy.metric("keyless_key_server_requests_in_flight") < MANY
        front_end.signal(signal.SIGCONT)
        for client in waiting:
            assert client.answer_server_hello().finish().ask()["operation"] == "sign-transcript"
    wait_until(lambda: signed(server, "sign-transcript") == tried + MANY, "the key server to count them")
    assert proxy.metric("keyless_key_requests_total", outcome="ok") == MANY
    assert proxy.metric("keyless_key_channels_lost_total") == 0
