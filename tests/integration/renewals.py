"""Chains that are renewed while the proxy runs: a CA of the tests' own, and looks at which leaf is shown."""

import contextlib
import datetime
import ssl
import sys
import time

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

import clients
import harness

sys.path.append(str(harness.ROOT / "tests" / "bench"))

import many_chains  # noqa: E402

# From the change of a file to the first client that sees it.
SECONDS = 5.0 if harness.SANITIZED else 2.0


class Sites:
    """A directory of chains, the keys that are on the key server, and a CA that issues more."""

    def __init__(self, directory, names=("a.example", "b.example")):
        self.directory = directory
        self.chains, self.keys = directory / "chains", directory / "keys"
        self.chains.mkdir()
        self.keys.mkdir()
        self.authority = many_chains.Authority()
        (directory / "ca.pem").write_bytes(many_chains.pem(self.authority.root))
        self.key = self.new_key("first")
        for name in names:
            self.path(name).write_bytes(self.chain(name))
        self.tls = clients.context()
        self.tls.load_verify_locations(directory / "ca.pem")
        harness.open_to_all(directory)

    def new_key(self, name, where=None, key=None):
        """A key of the key server (where: not yet); its public half."""
        key = key or ec.generate_private_key(ec.SECP256R1())
        return many_chains.write_key((where or self.keys) / f"{name}.key", key)

    def path(self, name):
        return self.chains / f"{name}.pem"

    def chain(self, name, key=None, days=None, extensions=()):
        """A new chain in PEM."""
        if days is not None:
            self.authority.begin -= datetime.timedelta(days=1)
            self.authority.end = datetime.datetime.utcnow().replace(microsecond=0) + datetime.timedelta(days=days)
        return self.authority.chain(name, key or self.key, extensions)

    def shown(self, port, name):
        """The leaf that a client sees, verified."""
        with clients.connect(port, name, tls=self.tls) as client:
            return client.getpeercert(binary_form=True)

    def wait_shown(self, port, name, pem, seconds=SECONDS):
        """How long it took until the leaf of this chain was shown."""
        wanted = leaf(pem)
        began = time.monotonic()

        def is_shown():
            with contextlib.suppress(ssl.SSLError):  # another name's, before
                return self.shown(port, name) == wanted

        harness.wait_until(is_shown, f"the new chain of {name}", seconds)
        return time.monotonic() - began


def leaf(pem):
    """The first certificate of a chain, in DER."""
    begin, end = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"
    text = pem.decode()
    return ssl.PEM_cert_to_DER_cert(text[text.index(begin) : text.index(end) + len(end)])


def not_after(pem):
    return x509.load_der_x509_certificate(leaf(pem)).not_valid_after.replace(tzinfo=datetime.timezone.utc).timestamp()


def digest(der):
    return x509.load_der_x509_certificate(der).fingerprint(hashes.SHA256()).hex()
