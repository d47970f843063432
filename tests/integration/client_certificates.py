"""Certificates of clients for tests: those of the channel's CA, and a CA of the test's own for what it lacks."""

import datetime
import itertools
import pathlib
import re
import subprocess

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

import harness
from harness import CHANNEL

CA = str(CHANNEL / "ca.pem")
REQUEST = b"GET / HTTP/1.0\r\n\r\n"
DAY = datetime.timedelta(days=1)
_serials = itertools.count(1000)


def of_channel(name):
    """(certificate, key) of one of make-certs.sh's; None: of none."""
    return (CHANNEL / f"{name}.pem", CHANNEL / f"{name}-key.pem") if name else None


class Ca:
    """A root, or an intermediate of another one."""

    def __init__(self, directory, name, parent=None, key=None):
        self.directory, self.name, self.parent = directory, name, parent
        self.key = key or ec.generate_private_key(ec.SECP256R1())
        self.certificate = self._sign(parent, name, self.key.public_key(), ca=True)
        self.path = self._write(f"{name}.pem", [self.certificate])

    def _sign(self, issuer, name, public, ca=False, extensions=(), until=30 * DAY):
        now = datetime.datetime.utcnow()
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        builder = (x509.CertificateBuilder().subject_name(subject).public_key(public)
                   .issuer_name(issuer.certificate.subject if issuer else subject)
                   .serial_number(next(_serials)).not_valid_before(now - 2 * DAY).not_valid_after(now + until)
                   .add_extension(x509.BasicConstraints(ca, None), critical=True))
        if ca:
            builder = builder.add_extension(
                x509.KeyUsage(False, False, False, False, False, True, True, False, False), critical=True)
        for extension in extensions:
            builder = builder.add_extension(extension, critical=False)
        return builder.sign(issuer.key if issuer else self.key, hashes.SHA256())

    def _write(self, name, certificates):
        path = self.directory / name
        path.write_bytes(b"".join(one.public_bytes(serialization.Encoding.PEM) for one in certificates))
        return str(path)

    def chain(self):
        """Of the intermediates from here up, without the root."""
        return [self.certificate, *self.parent.chain()] if self.parent else []

    def issue(self, name, sans=(), until=30 * DAY, padding=0, key=None):
        """(certificate with its chain, key). padding: so many octets of an extension that nobody knows."""
        key = key or ec.generate_private_key(ec.SECP256R1())
        extensions = [x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH])]
        if sans:
            extensions.append(x509.SubjectAlternativeName(sans))
        if padding:
            extensions.append(x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.99999.1"), bytes(padding)))
        leaf = self._sign(self, name, key.public_key(), extensions=extensions, until=until)
        private = self.directory / f"{name}.key"
        private.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8,
                                              serialization.NoEncryption()))
        if self.chain():
            self._write(f"{name}.chain", self.chain())
        return self._write(f"{name}.pem", [leaf, *self.chain()]), str(private)

    def crl(self, name, revoked=(), until=DAY):
        """A list with these certificates (paths), good until then from now."""
        now = datetime.datetime.utcnow()
        builder = (x509.CertificateRevocationListBuilder().issuer_name(self.certificate.subject)
                   .last_update(now - 2 * DAY).next_update(now + until))
        for path in revoked:
            serial = x509.load_pem_x509_certificate(open(path, "rb").read()).serial_number
            builder = builder.add_revoked_certificate(
                x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(now - DAY).build())
        path = self.directory / name
        path.write_bytes(builder.sign(self.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
        return str(path)


def rsa_key():
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


# ---- Clients. Each: what it printed, and the number of the alert that it got, or None.

def _run(command):
    done = subprocess.run([str(word) for word in command], input=REQUEST, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, check=False, timeout=harness.PATIENCE)
    return done.stdout.decode("utf-8", "replace")


def openssl(port, who, version="1.3", name="p256.example", *options):
    chain = ["-cert", who[0], "-key", who[1]] if who else []
    above = pathlib.Path(who[0]).with_suffix(".chain") if who else None
    if above and above.exists():
        chain += ["-cert_chain", above]
    text = _run(["openssl", "s_client", "-connect", f"127.0.0.1:{port}", "-CAfile", harness.SITE_CA, "-ign_eof",
                 "-servername", name, f"-tls{version.replace('.', '_')}", *chain, *options])
    alert = re.search(r"SSL alert number (\d+)", text)
    return text, int(alert.group(1)) if alert else None


def gnutls(port, who, version="1.3", name="p256.example", *options):
    chain = [f"--x509certfile={who[0]}", f"--x509keyfile={who[1]}"] if who else []
    text = _run(["gnutls-cli", "-p", port, "127.0.0.1", "--x509cafile", harness.SITE_CA, f"--sni-hostname={name}",
                 f"--verify-hostname={name}", f"--priority=NORMAL:-VERS-ALL:+VERS-TLS{version}", *chain, *options])
    alert = re.search(r"Received alert \[(\d+)\]", text)
    return text, int(alert.group(1)) if alert else None


def curl(port, who, version="1.3", name="p256.example", *options):
    chain = ["--cert", who[0], "--key", who[1]] if who else []
    answer = harness.curl(name, port, f"--tlsv{version}", "--tls-max", version, *chain, *options)
    return answer.body.decode() + answer.error, next(
        (number for number, text in ALERTS_OF_CURL.items() if text in answer.error), None)


# What is behind "alert", or all that curl makes of it.
ALERTS_OF_CURL = {116: "certificate required", 40: "handshake failure", 45: "certificate expired", 44: "revoked",
                  48: "unknown ca", 49: "access denied", 43: "unsupported certificate", 46: "certificate unknown",
                  42: "bad certificate"}

TOOLS = {"openssl": openssl, "gnutls": gnutls, "curl": curl}
