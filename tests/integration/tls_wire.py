"""TLS on the wire for the tests: ClientHellos of every kind, records, alerts. No keys (tls_client.py has those)."""

import dataclasses
import os

# Record types.
CHANGE_CIPHER_SPEC, ALERT, HANDSHAKE, APPLICATION_DATA = 20, 21, 22, 23
# Handshake messages.
CLIENT_HELLO, SERVER_HELLO, NEW_SESSION_TICKET, END_OF_EARLY_DATA, ENCRYPTED_EXTENSIONS = 1, 2, 4, 5, 8
CERTIFICATE, SERVER_KEY_EXCHANGE, SERVER_HELLO_DONE, CERTIFICATE_VERIFY, CLIENT_KEY_EXCHANGE = 11, 12, 14, 15, 16
CERTIFICATE_REQUEST, FINISHED, KEY_UPDATE, COMPRESSED_CERTIFICATE = 13, 20, 24, 25
# Versions.
SSL3, TLS10, TLS11, TLS12, TLS13 = 0x0300, 0x0301, 0x0302, 0x0303, 0x0304
# Extensions.
SERVER_NAME, MAX_FRAGMENT_LENGTH, STATUS_REQUEST, SUPPORTED_GROUPS, EC_POINT_FORMATS = 0, 1, 5, 10, 11
SIGNATURE_ALGORITHMS, ALPN, SCT, PADDING, SESSION_TICKET = 13, 16, 18, 21, 35
PRE_SHARED_KEY, EARLY_DATA, SUPPORTED_VERSIONS, COOKIE, PSK_KEY_EXCHANGE_MODES = 41, 42, 43, 44, 45
CERTIFICATE_AUTHORITIES, POST_HANDSHAKE_AUTH, KEY_SHARE, RENEGOTIATION_INFO = 47, 49, 51, 0xFF01
SERVER_CERTIFICATE_TYPE, DELEGATED_CREDENTIAL, QUIC_PARAMETERS, QUIC_PARAMETERS_DRAFT = 20, 34, 57, 0xFFA5
# Groups.
P256, P384, P521, X25519, X448, FFDHE2048 = 0x0017, 0x0018, 0x0019, 0x001D, 0x001E, 0x0100
# Signature schemes.
RSA_PKCS1_SHA1, ECDSA_SHA1 = 0x0201, 0x0203
RSA_PKCS1 = (0x0401, 0x0501, 0x0601)
RSA_PSS = (0x0804, 0x0805, 0x0806)
ECDSA = (0x0403, 0x0503, 0x0603)
EDDSA = (0x0807, 0x0808)
# Suites.
AES128_13, AES256_13, CHACHA_13 = 0x1301, 0x1302, 0x1303
ECDSA_AES128, RSA_AES128 = 0xC02B, 0xC02F
EMPTY_RENEGOTIATION_SCSV, FALLBACK_SCSV = 0x00FF, 0x5600
# A value that means nothing, for clients that want to keep servers tolerant (RFC 8701).
GREASE = 0x5A5A

# Alerts.
CLOSE_NOTIFY, UNEXPECTED_MESSAGE, BAD_RECORD_MAC, RECORD_OVERFLOW, HANDSHAKE_FAILURE = 0, 10, 20, 22, 40
ILLEGAL_PARAMETER, DECODE_ERROR, DECRYPT_ERROR, PROTOCOL_VERSION, INTERNAL_ERROR = 47, 50, 51, 70, 80
INAPPROPRIATE_FALLBACK, USER_CANCELED, NO_RENEGOTIATION, MISSING_EXTENSION = 86, 90, 100, 109
UNRECOGNIZED_NAME, NO_APPLICATION_PROTOCOL = 112, 120
WARNING, FATAL = 1, 2

RETRY_RANDOM = bytes.fromhex("cf21ad74e59a6111be1d8c021e65b891c2a211167abb8c5e079e09e2c8a8339c")


def u8(*numbers):
    return bytes(numbers)


def u16(*numbers):
    return b"".join(n.to_bytes(2, "big") for n in numbers)


def vector8(body):
    return u8(len(body)) + body


def vector16(body):
    return u16(len(body)) + body


def vector24(body):
    return len(body).to_bytes(3, "big") + body


def message(kind, body):
    """A handshake message."""
    return u8(kind) + vector24(body)


def record(kind, body, version=TLS12):
    return u8(kind) + u16(version) + vector16(body)


def records(kind, body, size, version=TLS12):
    """The body in records of at most so many octets each."""
    return b"".join(record(kind, body[i:i + size], version) for i in range(0, len(body), size))


def alert(number, level=FATAL):
    return u8(level, number)


# ---- ClientHello.

def names(*entries):
    """server_name with these names; a pair is (type, name)."""
    pairs = [entry if isinstance(entry, tuple) else (0, entry) for entry in entries]
    return vector16(b"".join(u8(kind) + vector16(name) for kind, name in pairs))


def list16(*numbers):
    return vector16(u16(*numbers))


def shares(*pairs):
    """key_share: (group, public key)."""
    return vector16(b"".join(u16(group) + vector16(key) for group, key in pairs))


def identities(*labels, binder=bytes(32)):
    """pre_shared_key with tickets that nobody issued, and binders as wrong."""
    offered = vector16(b"".join(vector16(label) + bytes(4) for label in labels))
    return offered + vector16(vector8(binder) * len(labels))


DEFAULT_SUITES = (AES128_13, AES256_13, CHACHA_13, ECDSA_AES128, RSA_AES128)


@dataclasses.dataclass
class Hello:
    """A ClientHello; the extensions in order, to be changed at will."""

    version: int = TLS12
    random: bytes = dataclasses.field(default_factory=lambda: os.urandom(32))
    session: bytes = dataclasses.field(default_factory=lambda: os.urandom(32))
    suites: tuple = DEFAULT_SUITES
    compression: bytes = b"\0"
    extensions: list = dataclasses.field(default_factory=list)
    no_extensions: bool = False  # not even the length of their list
    record_version: int = TLS10

    def body(self):
        offered = b"".join(u16(kind) + vector16(data) for kind, data in self.extensions)
        return (u16(self.version) + self.random + vector8(self.session) + vector16(u16(*self.suites)) +
                vector8(self.compression) + (b"" if self.no_extensions else vector16(offered)))

    def message(self):
        return message(CLIENT_HELLO, self.body())

    def record(self):
        return record(HANDSHAKE, self.message(), self.record_version)

    def changed(self, **fields):
        return dataclasses.replace(self, **{"extensions": list(self.extensions), **fields})

    def without(self, *kinds):
        return self.changed(extensions=[e for e in self.extensions if e[0] not in kinds])

    def having(self, *pairs):
        """With these extensions: each takes the place of the one of its type, or stands at the end."""
        made = self.changed()
        for kind, data in pairs:
            places = [i for i, e in enumerate(made.extensions) if e[0] == kind]
            if places:
                made.extensions[places[0]] = (kind, data)
            else:
                made.extensions.append((kind, data))
        return made

    def adding(self, *pairs):
        """With these extensions at the end, also where there is one of the type."""
        return self.changed(extensions=[*self.extensions, *pairs])

    def padded(self, size):
        """Its message made this long by a padding extension (RFC 7685)."""
        room = size - len(self.message()) - 4
        assert room >= 0, f"already {len(self.message())} octets"
        return self.adding((PADDING, bytes(room)))

    def extension(self, kind):
        return next((data for k, data in self.extensions if k == kind), None)


def tls13_hello(name=b"p256.example", groups=(X25519, P256), key_shares=(), schemes=ECDSA + EDDSA + RSA_PSS + RSA_PKCS1,
                versions=(TLS13, TLS12), **fields):
    """What a client of today sends, of both versions."""
    return Hello(extensions=[
        *([(SERVER_NAME, names(name))] if name else []),
        (SUPPORTED_VERSIONS, vector8(u16(*versions))),
        (SUPPORTED_GROUPS, list16(*groups)),
        (SIGNATURE_ALGORITHMS, list16(*schemes)),
        (KEY_SHARE, shares(*key_shares)),
    ], **fields)


def tls12_hello(name=b"p256.example", groups=(X25519, P256), schemes=ECDSA + EDDSA + RSA_PSS + RSA_PKCS1,
                suites=(ECDSA_AES128, RSA_AES128), **fields):
    """A client that has not heard of TLS 1.3."""
    return Hello(suites=suites, extensions=[
        *([(SERVER_NAME, names(name))] if name else []),
        (SUPPORTED_GROUPS, list16(*groups)),
        (EC_POINT_FORMATS, vector8(b"\0")),
        (SIGNATURE_ALGORITHMS, list16(*schemes)),
    ], **fields)


# ---- What servers say.

class Reader:
    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, size):
        assert self.at + size <= len(self.data), "message ends early"
        self.at += size
        return self.data[self.at - size:self.at]

    def number(self, size):
        return int.from_bytes(self.take(size), "big")

    def vector(self, size):
        return self.take(self.number(size))

    def rest(self):
        return self.take(len(self.data) - self.at)

    def __bool__(self):
        return self.at < len(self.data)


@dataclasses.dataclass
class ServerHello:
    random: bytes
    suite: int
    version: int
    extensions: dict
    retry: bool

    @classmethod
    def parse(cls, body):
        reader = Reader(body)
        version, random = reader.number(2), reader.take(32)
        reader.vector(1)
        suite = reader.number(2)
        assert reader.number(1) == 0, "compressed"
        extensions = {}
        offered = Reader(reader.vector(2)) if reader else None
        while offered:
            kind = offered.number(2)
            assert kind not in extensions, f"extension {kind} twice"
            extensions[kind] = offered.vector(2)
        if SUPPORTED_VERSIONS in extensions:
            version = int.from_bytes(extensions[SUPPORTED_VERSIONS], "big")
        return cls(random, suite, version, extensions, random == RETRY_RANDOM)


def plain_records(data):
    """The whole records in data, as (type, body)."""
    found, reader = [], Reader(data)
    while len(data) - reader.at >= 5:
        kind = reader.number(1)
        reader.take(2)
        size = reader.number(2)
        if len(data) - reader.at < size:
            break
        found.append((kind, reader.take(size)))
    return found
