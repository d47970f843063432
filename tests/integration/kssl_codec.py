"""The key protocol's wire format in Python, written from the protocol's description alone: an opinion of its own
against which both programs' codec is tested. Pure: bytes in, values out.

Writers do what they are told, also what no peer should send: tests need it.
"""

import dataclasses
import enum
import hashlib
import struct

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa

MAJOR = 1
HEADER_SIZE = 8
PAD_TO = 1024


class Tag(enum.IntEnum):
    DIGEST = 0x01
    SNI = 0x02
    CLIENT_IP = 0x03
    SKI = 0x04
    SERVER_IP = 0x05
    CERTIFICATE_ID = 0x06
    OPCODE = 0x11
    PAYLOAD = 0x12
    FUNCTION = 0x13
    EXTRA = 0x14
    TRACE = 0x15
    CONTEXT = 0x16
    REGION = 0x17
    PADDING = 0x20


# What our side may send to a peer that speaks Part A alone.
PART_A_TAGS = frozenset([1, 2, 3, 4, 5, 6, Tag.OPCODE, Tag.PAYLOAD, Tag.PADDING])


class Op(enum.IntEnum):
    RSA_DECRYPT = 0x01
    RSA_MD5SHA1 = 0x02
    RSA_SHA1 = 0x03
    RSA_SHA224 = 0x04
    RSA_SHA256 = 0x05
    RSA_SHA384 = 0x06
    RSA_SHA512 = 0x07
    RSA_DECRYPT_RAW = 0x08
    ECDSA_MD5SHA1 = 0x12
    ECDSA_SHA1 = 0x13
    ECDSA_SHA224 = 0x14
    ECDSA_SHA256 = 0x15
    ECDSA_SHA384 = 0x16
    ECDSA_SHA512 = 0x17
    ED25519 = 0x18
    SEAL = 0x21
    UNSEAL = 0x22
    CUSTOM = 0x24
    RSA_PSS_SHA256 = 0x35
    RSA_PSS_SHA384 = 0x36
    RSA_PSS_SHA512 = 0x37
    HELLO = 0x60
    SIGN_TLS13 = 0x61
    SIGN_TLS12 = 0x62
    SIGN_TRANSCRIPT = 0x63
    DELEGATED_CREDENTIAL = 0x65
    TICKET_KEYS = 0x66
    LIST = 0x67
    SUCCESS = 0xF0
    PING = 0xF1
    PONG = 0xF2
    ERROR = 0xFF


class Error(enum.IntEnum):
    CRYPTO = 0x01
    KEY_NOT_FOUND = 0x02
    READ = 0x03
    VERSION = 0x04
    BAD_OPCODE = 0x05
    UNEXPECTED_OPCODE = 0x06
    FORMAT = 0x07
    INTERNAL = 0x08
    EXPIRED = 0x0A
    REMOTE_CONFIG = 0x0B
    POLICY = 0x40
    CONTENT = 0x41
    RATE = 0x42
    REPLAY = 0x43
    OVERLOADED = 0x44


# ---- Frames.


def item(tag, data):
    return struct.pack("!BH", tag, len(data)) + data


def padding(size):
    """The padding item of a message whose real items have this size, or nothing."""
    if HEADER_SIZE + size >= PAD_TO:
        return b""
    return item(Tag.PADDING, bytes(max(0, PAD_TO - HEADER_SIZE - size - 3)))


def frame(request_id, body, major=MAJOR, minor=0, length=None):
    """Header and body; length lies when told so."""
    return struct.pack("!BBHI", major, minor, len(body) if length is None else length, request_id) + body


def message(request_id, opcode, payload=b"", items=(), pad=True, minor=0, major=MAJOR):
    """One whole message. payload None: no such item; items: (tag, data) of others, in order."""
    body = item(Tag.OPCODE, bytes([opcode])) + b"".join(item(tag, data) for tag, data in items)
    if payload is not None:
        body += item(Tag.PAYLOAD, payload)
    return frame(request_id, body + (padding(len(body)) if pad else b""), major, minor)


@dataclasses.dataclass
class Message:
    id: int
    major: int
    minor: int
    items: list  # (tag, data) in order, padding and unknown ones included
    size: int  # of the whole frame

    def get(self, tag):
        """The item's data, or None; fails if it is given twice."""
        found = [data for its, data in self.items if its == tag]
        assert len(found) <= 1, f"tag {tag:#04x} is given {len(found)} times"
        return found[0] if found else None

    @property
    def opcode(self):
        data = self.get(Tag.OPCODE)
        return data[0] if data is not None else None

    @property
    def payload(self):
        return self.get(Tag.PAYLOAD)

    @property
    def error(self):
        """The error octet of an error answer, else None."""
        if self.opcode != Op.ERROR:
            return None
        assert self.payload is not None and len(self.payload) == 1, "an error's payload is one octet"
        return self.payload[0]

    @property
    def tags(self):
        return [tag for tag, _ in self.items]


class FormatError(ValueError):
    """A body whose items do not parse."""


def parse_items(body):
    items = []
    while body:
        if len(body) < 3:
            raise FormatError("an item's header is cut short")
        tag, size = struct.unpack_from("!BH", body)
        if len(body) < 3 + size:
            raise FormatError("an item is cut short")
        items.append((tag, body[3 : 3 + size]))
        body = body[3 + size :]
    return items


class FrameReader:
    """Bytes as they come in, whole messages out."""

    def __init__(self):
        self._buffer = bytearray()

    def feed(self, data):
        self._buffer += data

    @property
    def left(self):
        """Bytes that are no whole frame yet."""
        return len(self._buffer)

    def __iter__(self):
        return self

    def __next__(self):
        if len(self._buffer) < HEADER_SIZE:
            raise StopIteration
        major, minor, length, request_id = struct.unpack_from("!BBHI", self._buffer)
        size = HEADER_SIZE + length
        if len(self._buffer) < size:
            raise StopIteration
        body = bytes(self._buffer[HEADER_SIZE:size])
        del self._buffer[:size]
        return Message(request_id, major, minor, parse_items(body), size)


# ---- Key identifiers, always of the key itself.


def ski(public_key):
    """SHA-1 of the contents of subjectPublicKey."""
    if isinstance(public_key, rsa.RSAPublicKey):
        contents = public_key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.PKCS1)
    elif isinstance(public_key, ec.EllipticCurvePublicKey):
        contents = public_key.public_bytes(
            serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint
        )
    else:
        contents = public_key.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    return hashlib.sha1(contents).digest()


def legacy_digest(public_key):
    """The certificate digest (0x01), or None for a key that has none."""
    if isinstance(public_key, rsa.RSAPublicKey):
        text = f"{public_key.public_numbers().n:X}"
    elif isinstance(public_key, ec.EllipticCurvePublicKey):
        text = public_key.public_bytes(
            serialization.Encoding.X962, serialization.PublicFormat.CompressedPoint
        ).hex().upper()
    else:
        return None
    return hashlib.sha256(text.encode()).digest()


def key_type_number(public_key):
    """As operation 0x67 lists it."""
    if isinstance(public_key, ec.EllipticCurvePublicKey):
        return {"secp256r1": 2, "secp384r1": 3, "secp521r1": 4}[public_key.curve.name]
    numbers = ((rsa.RSAPublicKey, 1), (ed25519.Ed25519PublicKey, 5), (ed448.Ed448PublicKey, 6))
    return next(number for kind, number in numbers if isinstance(public_key, kind))


# ---- Payloads of our own operations.

DOWNGRADE_12 = bytes.fromhex("444f574e47524401")

CERTIFICATE_VERIFY = b" " * 64 + b"TLS 1.3, server CertificateVerify\0"


def certificate_verify(transcript_hash):
    """What a TLS 1.3 server signs."""
    return CERTIFICATE_VERIFY + transcript_hash


def sign_tls13(scheme, transcript_hash):
    return struct.pack("!H", scheme) + transcript_hash


def sign_tls12(scheme, client_random, server_random, params):
    return struct.pack("!H", scheme) + client_random + server_random + params


def ecdh_params(group, point):
    return struct.pack("!BHB", 3, group, len(point)) + point


def hello(opcodes, time, version=1, trailing=b""):
    return struct.pack("!BB", version, len(opcodes)) + bytes(opcodes) + struct.pack("!Q", time) + trailing


@dataclasses.dataclass
class Hello:
    version: int
    opcodes: bytes
    time: int


def parse_hello(payload):
    version, count = struct.unpack_from("!BB", payload)
    (time,) = struct.unpack_from("!Q", payload, 2 + count)
    return Hello(version, payload[2 : 2 + count], time)


@dataclasses.dataclass
class ListEntry:
    ski: bytes
    type: int
    name: str


def parse_list(payload):
    """(whether there is more, entries)"""
    more, rest, entries = payload[0], payload[1:], []
    while rest:
        name_length = rest[21]
        entries.append(ListEntry(rest[:20], rest[20], rest[22 : 22 + name_length].decode()))
        rest = rest[22 + name_length :]
    return bool(more), entries
