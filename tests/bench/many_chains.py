"""Chains for many names, a P-256 and an RSA one each, from one CA with an intermediate; a few keys serve for all.

    many_chains.py DIRECTORY COUNT

makes DIRECTORY/chains/NAME-ec.pem and NAME-rsa.pem for the names site0.example .., DIRECTORY/keys/*.key and
DIRECTORY/ca.pem. What is there already, complete, made by this file as it is and with a month to go, is kept.
"""

import datetime
import os
import pathlib
import shutil
import sys
import time

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

KEYS_OF_A_TYPE = 4
DAYS, DAYS_LEFT = 90, 30
# Certificates and lists are what a CA signs. A strict verifier, as Python 3.13's is, wants to be told; and who issued a CA, too.
CA_USAGE = x509.KeyUsage(False, False, False, False, False, True, True, False, False)


def name_of(number):
    return f"site{number}.example"


def _subject(common_name):
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


class Authority:
    """Root and intermediate; signs leafs."""

    def __init__(self):
        self.begin = datetime.datetime.utcnow().replace(microsecond=0) - datetime.timedelta(hours=1)
        self.end = self.begin + datetime.timedelta(days=DAYS)
        root_key, self.key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
        self.root = self._ca("Many Chains Root", root_key.public_key(), "Many Chains Root", root_key)
        self.intermediate = self._ca("Many Chains CA", self.key.public_key(), "Many Chains Root", root_key)
        self.intermediate_pem = pem(self.intermediate)
        self.authority_key = x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key())

    def _builder(self, subject, public_key, issuer):
        return (
            x509.CertificateBuilder()
            .subject_name(_subject(subject))
            .issuer_name(_subject(issuer))
            .public_key(public_key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(self.begin)
            .not_valid_after(self.end)
        )

    def _ca(self, subject, public_key, issuer, signer):
        return (
            self._builder(subject, public_key, issuer)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(CA_USAGE, critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
            .sign(signer, hashes.SHA256())
        )

    def leaf(self, name, public_key, extensions=()):
        builder = (
            self._builder(name, public_key, "Many Chains CA")
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
            .add_extension(self.authority_key, critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        )
        for extension in extensions:
            builder = builder.add_extension(extension, critical=False)
        return builder.sign(self.key, hashes.SHA256())

    def chain(self, name, public_key, extensions=()):
        """The leaf and the intermediate in PEM."""
        return pem(self.leaf(name, public_key, extensions)) + self.intermediate_pem


def pem(certificate):
    return certificate.public_bytes(serialization.Encoding.PEM)


def write_key(path, key):
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    path.chmod(0o600)
    return key.public_key()


def _keys(directory):
    directory.mkdir()
    elliptic = [ec.generate_private_key(ec.SECP256R1()) for _ in range(KEYS_OF_A_TYPE)]
    numbers = [rsa.generate_private_key(65537, 2048) for _ in range(KEYS_OF_A_TYPE)]
    return (
        [write_key(directory / f"ec{i}.key", key) for i, key in enumerate(elliptic)],
        [write_key(directory / f"rsa{i}.key", key) for i, key in enumerate(numbers)],
    )


def _is_good(directory):
    stamp = directory / "complete"
    if not stamp.exists():
        return False
    made = stamp.stat().st_mtime
    return made > pathlib.Path(__file__).stat().st_mtime and time.time() - made < (DAYS - DAYS_LEFT) * 86400


def make(directory, count):
    """Returns the directory."""
    directory = pathlib.Path(directory)
    if _is_good(directory):
        return directory
    shutil.rmtree(directory, ignore_errors=True)
    made = pathlib.Path(f"{directory}.{os.getpid()}")
    shutil.rmtree(made, ignore_errors=True)
    (made / "chains").mkdir(parents=True)
    authority = Authority()
    elliptic, numbers = _keys(made / "keys")
    (made / "ca.pem").write_bytes(pem(authority.root))
    for i in range(count):
        name = name_of(i)
        for suffix, keys in (("ec", elliptic), ("rsa", numbers)):
            chain = authority.chain(name, keys[i % KEYS_OF_A_TYPE])
            (made / "chains" / f"{name}-{suffix}.pem").write_bytes(chain)
    (made / "complete").touch()
    made.rename(directory)
    return directory


if __name__ == "__main__":
    make(sys.argv[1], int(sys.argv[2]))
