"""tls.crl of the key server: who is revoked is refused, at once and on open connections; lists that are out of date, or of
somebody else, open no door."""

import datetime

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

from counters import Gains
from harness import CHANNEL
from kssl_codec import Op
from kssl_peer import Closed, Peer

CLIENTS = [{"match": f"DNS:{name}.example", "keys": ["*"], "allow": ["tls13", "list"]} for name in ("edge1", "edge2")]
DAY = datetime.timedelta(days=1)


def certificate(name):
    return x509.load_pem_x509_certificate((CHANNEL / f"{name}.pem").read_bytes())


def crl(path, revoked=(), ca="ca", until=DAY, extension=None):
    """Writes a list of the CA's in which these certificates are, good until then from now."""
    key = serialization.load_pem_private_key((CHANNEL / "private" / f"{ca}-key.pem").read_bytes(), None)
    now = datetime.datetime.utcnow()
    builder = (x509.CertificateRevocationListBuilder().issuer_name(certificate(ca).subject)
               .last_update(now - 2 * DAY).next_update(now + until))
    for name in revoked:
        builder = builder.add_revoked_certificate(
            x509.RevokedCertificateBuilder().serial_number(certificate(name).serial_number)
            .revocation_date(now - DAY).build())
    if extension is not None:
        builder = builder.add_extension(extension, critical=True)
    path.write_bytes(builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    return path


def start(stack, path, **changes):
    return stack.key_server(tls={**tls(), "crl": str(path)}, clients=CLIENTS, **changes)


def tls():
    return {"certificate": str(CHANNEL / "keyserver.pem"), "key": str(CHANNEL / "keyserver-key.pem"),
            "client_ca": str(CHANNEL / "ca.pem")}


def served(server, name):
    with Peer(server.port, name) as peer:
        return peer.listing().opcode == Op.SUCCESS


def assert_refused(server, name, reason):
    gains, mark = Gains(server), server.mark()
    with pytest.raises((Closed, OSError)):
        with Peer(server.port, name) as peer:
            peer.listing()
    line = server.wait_for("handshake failed", after=mark)
    assert reason in line["reason"], line
    gains.assert_gained("keyless_keyserver_handshake_failures_total", 1, reason="certificate_refused")


def test_revoked(stack, tmp_path):
    server = start(stack, crl(tmp_path / "edges.crl", ["edge2"]))
    assert served(server, "edge1")
    assert_refused(server, "edge2", "certificate revoked")
    assert served(server, "edge1")


def test_revoked_by_a_reload(stack, tmp_path):
    """The same file with more in it: open connections end, and who is not in it comes back."""
    server = start(stack, crl(tmp_path / "edges.crl"))
    with Peer(server.port, "edge1") as one, Peer(server.port, "edge2") as two:
        assert one.ping().opcode == two.ping().opcode == Op.PONG
        crl(tmp_path / "edges.crl", ["edge2"])
        assert two.ping().opcode == Op.PONG, "nothing was read yet"
        server.reload()
        for peer in (one, two):
            assert peer.until_closed() == ([], "in good order")
    assert served(server, "edge1")
    assert_refused(server, "edge2", "certificate revoked")
    crl(tmp_path / "edges.crl")
    server.reload()
    assert served(server, "edge2")


def test_out_of_date(stack, tmp_path):
    """Nobody is let in by a list that may lack the latest; the log and a metric tell."""
    server = start(stack, crl(tmp_path / "edges.crl", until=-DAY / 2))
    server.wait_for("CRL out of date", file="edges.crl")
    assert_refused(server, "edge1", "CRL has expired")
    assert 0 < server.metric("keyless_keyserver_crl_next_update_timestamp_seconds") < datetime.datetime.now().timestamp()
    crl(tmp_path / "edges.crl")
    mark = server.mark()
    server.reload()
    assert served(server, "edge1")
    assert not server.find("CRL out of date", after=mark)
    assert server.metric("keyless_keyserver_crl_next_update_timestamp_seconds") > datetime.datetime.now().timestamp()


def break_missing(path):
    return path, "no such file"


def break_empty(path):
    path.write_bytes(b"")
    return path, "there is none in this file"


def break_garbage(path):
    path.write_bytes(b"-----BEGIN X509 CRL-----\nMAA=\n-----END X509 CRL-----\n")
    return path, ""


def break_certificate(path):
    path.write_bytes((CHANNEL / "ca.pem").read_bytes())
    return path, "there is none in this file"


def break_other_ca(path):
    return crl(path, ca="bad-other-ca"), "none of the CAs has signed it"


def break_forged(path):
    """In the CA's name, and not by it."""
    key = serialization.load_pem_private_key((CHANNEL / "private" / "bad-other-ca-key.pem").read_bytes(), None)
    now = datetime.datetime.utcnow()
    made = (x509.CertificateRevocationListBuilder().issuer_name(certificate("ca").subject).last_update(now - DAY)
            .next_update(now + DAY).sign(key, hashes.SHA256()))
    path.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    return path, "none of the CAs has signed it"


def break_delta(path):
    """What has changed since list number 1: by itself it says nothing of who was revoked before."""
    return crl(path, extension=x509.DeltaCRLIndicator(1)), "a part of a list"


def break_second_ca(path):
    """A CA more, of which there is no list: all of its clients would be refused."""
    cas = path.with_name("cas.pem")
    cas.write_bytes((CHANNEL / "ca.pem").read_bytes() + (CHANNEL / "bad-other-ca.pem").read_bytes())
    return crl(path), "expected a list of each CA", cas


BREAKS = [break_missing, break_empty, break_garbage, break_certificate, break_other_ca, break_forged, break_delta,
          break_second_ca]


@pytest.mark.parametrize("break_it", BREAKS, ids=lambda f: f.__name__)
def test_bad_lists(stack, tmp_path, break_it):
    """-t and a start say why and end with 2; a reload says why, and everything goes on as before."""
    server = start(stack, crl(tmp_path / "edges.crl", ["edge2"]))
    with Peer(server.port, "edge1") as peer:
        assert peer.ping().opcode == Op.PONG
        path, reason, *ca = break_it(tmp_path / "bad.crl")
        server.config["tls"]["crl"] = str(path)
        if ca:
            server.config["tls"]["client_ca"] = str(ca[0])
        checked = server.check()
        assert checked.returncode == 2 and "bad.crl" in checked.stderr and reason in checked.stderr, checked.stderr
        line = server.reload(expect="reload failed")
        assert "bad.crl" in line["reason"] and reason in line["reason"]
        assert peer.ping().opcode == Op.PONG
    assert_refused(server, "edge2", "certificate revoked")
    assert served(server, "edge1")
