"""An OCSP responder for the tests: answers for an authority of many_chains.py, well or in any of the ways in which responders
go wrong."""

import base64
import contextlib
import datetime
import http.server
import socket
import sys
import threading
import urllib.parse

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509 import ocsp
from cryptography.x509.oid import AuthorityInformationAccessOID, ExtendedKeyUsageOID

import harness

sys.path.append(str(harness.ROOT / "tests" / "bench"))

import many_chains  # noqa: E402

MUST_STAPLE = x509.TLSFeature([x509.TLSFeatureType.status_request])


def now():
    return datetime.datetime.utcnow().replace(microsecond=0)


def names_responder(url):
    """The extension by which a certificate names its responder."""
    return x509.AuthorityInformationAccess(
        [x509.AccessDescription(AuthorityInformationAccessOID.OCSP, x509.UniformResourceIdentifier(url))]
    )


class Signer:
    """Makes responses about certificates of an authority."""

    def __init__(self, authority):
        self.authority = authority

    def delegate(self, usages=(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.OCSP_SIGNING]),), authority=None):
        """(certificate, key) of one that the authority has appointed."""
        key = ec.generate_private_key(ec.SECP256R1())
        issuer = authority or self.authority
        return issuer.leaf("responder.example", key.public_key(), usages), key

    def response(self, leaf, status="good", since=0, lasts=3600, delegate=None, digest=None, next_update=True):
        """In DER. since: seconds ago; lasts: from then on."""
        begin = now() - datetime.timedelta(seconds=since)
        revoked = status == "revoked"
        builder = ocsp.OCSPResponseBuilder().add_response(
            cert=leaf,
            issuer=self.authority.intermediate,
            algorithm=digest or hashes.SHA1(),
            cert_status={"good": ocsp.OCSPCertStatus.GOOD, "revoked": ocsp.OCSPCertStatus.REVOKED,
                         "unknown": ocsp.OCSPCertStatus.UNKNOWN}[status],
            this_update=begin,
            next_update=begin + datetime.timedelta(seconds=lasts) if next_update else None,
            revocation_time=begin if revoked else None,
            revocation_reason=x509.ReasonFlags.key_compromise if revoked else None,
        )
        certificate, key = delegate or (self.authority.intermediate, self.authority.key)
        if delegate:
            builder = builder.certificates([certificate])
        signed = builder.responder_id(ocsp.OCSPResponderEncoding.HASH, certificate).sign(key, hashes.SHA256())
        return signed.public_bytes(serialization.Encoding.DER)


class Responder:
    """Runs in threads. `behaviour` is a name in BEHAVIOURS and may be changed at any time; `behaviours` has what is otherwise
    for some certificates, by their serial numbers."""

    def __init__(self, authority, behaviour="good", address="127.0.0.1", name=None):
        self.signer = Signer(authority)
        self.leafs = {}
        self.behaviour = behaviour
        self.behaviours = {}
        self.requests = []  # (method, serial number, behaviour)
        self.lasts = 3600
        self.stalled = threading.Event()  # set: those that hang may end
        responder = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            timeout = harness.PATIENCE

            def log_message(self, *_):
                pass

            def do_GET(self):
                responder._answer(self, base64.b64decode(urllib.parse.unquote(self.path.rpartition("/")[2])))

            def do_POST(self):
                responder._answer(self, self.rfile.read(int(self.headers["Content-Length"])))

        class Server(http.server.ThreadingHTTPServer):
            address_family = socket.AF_INET6 if ":" in address else socket.AF_INET
            daemon_threads = True
            request_queue_size = 128

        self.server = Server((address, 0), Handler)
        self.port = self.server.server_address[1]
        self.url = f"http://{name or address}:{self.port}/ocsp"
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()

    def stop(self):
        self.stalled.set()
        self.server.shutdown()
        self.server.server_close()
        self.thread.join(harness.PATIENCE)
        return 0

    def knows(self, pem):
        """A chain of which it may be asked; its leaf."""
        leaf = x509.load_pem_x509_certificate(pem)
        self.leafs[leaf.serial_number] = leaf
        return leaf

    def asked(self, leaf=None):
        """How often it was, about this certificate or at all."""
        return sum(leaf is None or serial == leaf.serial_number for _, serial, _ in list(self.requests))

    def wait_asked(self, leaf=None, count=1):
        """Until it was asked so often more."""
        goal = self.asked(leaf) + count
        harness.wait_until(lambda: self.asked(leaf) >= goal, f"{count} more requests to the OCSP responder")

    def _answer(self, handler, der):
        request = ocsp.load_der_ocsp_request(der)
        assert not list(request.extensions)  # no nonce: nobody could keep the answer
        leaf = self.leafs[request.serial_number]
        behaviour = self.behaviours.get(leaf.serial_number, self.behaviour)
        self.requests.append((handler.command, leaf.serial_number, behaviour))
        BEHAVIOURS[behaviour](self, handler, leaf)

    def response(self, leaf, **settings):
        return self.signer.response(leaf, **{"lasts": self.lasts, **settings})

    @staticmethod
    def send(handler, body, status=200, **headers):
        handler.send_response(status)
        handler.send_header("Content-Type", "application/ocsp-response")
        handler.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(body)


# ---- What it may do.


def _says(**settings):
    return lambda responder, handler, leaf: responder.send(handler, responder.response(leaf, **settings))


def _sends(body, status=200, **headers):
    return lambda responder, handler, leaf: responder.send(handler, body, status, **headers)


def _delegated(**settings):
    def act(responder, handler, leaf):
        delegate = responder.signer.delegate(**settings)
        responder.send(handler, responder.response(leaf, delegate=delegate))

    return act


def _delegated_by_another(responder, handler, leaf):
    delegate = responder.signer.delegate(authority=many_chains.Authority())
    responder.send(handler, responder.response(leaf, delegate=delegate))


def _forged(responder, handler, leaf):
    """Its signature, which comes last, is another."""
    body = bytearray(responder.response(leaf))
    body[-1] ^= 1
    responder.send(handler, bytes(body))


def _by_another_of_the_name(responder, handler, leaf):
    """A CA that is called as the certificate's own is."""
    other = many_chains.Authority()
    responder.send(handler, responder.response(leaf, delegate=(other.intermediate, other.key)))


def _about_another(responder, handler, leaf):
    key = ec.generate_private_key(ec.SECP256R1())
    responder.send(handler, responder.response(responder.signer.authority.leaf("other.example", key.public_key())))


def _unsuccessful(status):
    body = ocsp.OCSPResponseBuilder.build_unsuccessful(status).public_bytes(serialization.Encoding.DER)
    return _sends(body)


def _stalls(responder, handler, leaf):
    responder.stalled.wait(harness.PATIENCE)
    handler.close_connection = True


def _trickles(responder, handler, leaf):
    """An octet now and then: never idle, never done."""
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    with contextlib.suppress(OSError):
        for _ in range(1000):
            handler.wfile.write(b"x")
            handler.wfile.flush()
            if responder.stalled.wait(0.05):
                break
    handler.close_connection = True


def _continues(responder, handler, leaf):
    """Interim responses without end."""
    with contextlib.suppress(OSError):
        while not responder.stalled.is_set():
            handler.wfile.write(b"HTTP/1.1 100 Continue\r\n\r\n" * 1000)
    handler.close_connection = True


def _chunk_without_end(responder, handler, leaf):
    """The length of a chunk, which goes on and on."""
    handler.send_response(200)
    handler.send_header("Transfer-Encoding", "chunked")
    handler.end_headers()
    with contextlib.suppress(OSError):
        while not responder.stalled.is_set():
            handler.wfile.write(b"1" * 10000)
    handler.close_connection = True


def _closes(responder, handler, leaf):
    handler.connection.shutdown(socket.SHUT_RDWR)
    handler.close_connection = True


def _is_cut(responder, handler, leaf):
    body = responder.response(leaf)
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body[: len(body) // 2])
    handler.wfile.flush()
    handler.close_connection = True


def _is_no_http(responder, handler, leaf):
    handler.wfile.write(b"SSH-2.0-OpenSSH_9.2p1\r\n\r\n")
    handler.wfile.flush()
    handler.close_connection = True


def _only_post(responder, handler, leaf):
    if handler.command == "POST":
        responder.send(handler, responder.response(leaf))
    else:
        responder.send(handler, b"", 405)


BEHAVIOURS = {
    "good": _says(),
    "delegated": _delegated(),
    "only by POST": _only_post,
    "revoked": _says(status="revoked"),
    "revoked without an end": _says(status="revoked", next_update=False),
    "revoked for a moment": _says(status="revoked", lasts=2),
    "unknown": _says(status="unknown"),
    "out of date": _says(since=7200, lasts=3600),
    "in the future": _says(since=-3600),
    "older": _says(since=60, lasts=7200),
    "without an end": _says(next_update=False),
    "by SHA-256": _says(digest=hashes.SHA256()),
    "forged": _forged,
    "delegated without the usage": _delegated(usages=()),
    "by another of the name": _by_another_of_the_name,
    "delegated by another": _delegated_by_another,
    "about another": _about_another,
    "try later": _unsuccessful(ocsp.OCSPResponseStatus.TRY_LATER),
    "unauthorized": _unsuccessful(ocsp.OCSPResponseStatus.UNAUTHORIZED),
    "garbage": _sends(b"\x30\x82\xff\xff" + b"x" * 200),
    "text": _sends(b"<html>maintenance</html>"),
    "empty": _sends(b""),
    "huge": _sends(b"x" * 1_000_000),
    "error": _sends(b"", 500),
    "redirect": _sends(b"", 302, Location="http://127.0.0.1:1/"),
    "closes": _closes,
    "is cut": _is_cut,
    "no HTTP": _is_no_http,
    "stalls": _stalls,
    "trickles": _trickles,
    "continues": _continues,
    "a chunk without end": _chunk_without_end,
}


# ---- What a client sees.


def shown(port, name, *options):
    """The status that is stapled: "good", "revoked", ...; None: nothing is."""
    _, text = harness.s_client(port, "-servername", name, "-status", *options)
    if "OCSP response: no response sent" in text:
        return None
    assert "OCSP Response Status: successful" in text, text[-3000:]
    return next(line.partition(":")[2].strip() for line in text.splitlines() if "Cert Status:" in line)


def wait_shown(port, name, status, *options, timeout=None):
    harness.wait_until(lambda: shown(port, name, *options) == status, f"{name} to be shown with {status}", timeout)

