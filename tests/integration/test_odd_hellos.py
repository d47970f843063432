"""ClientHellos of every kind, well-formed and not, whole and in pieces: each is served, or refused with the right
alert, one line, one count; and the proxy goes on."""

import dataclasses

import pytest
from cryptography import x509

import harness
import tls_wire as wire
from observed import Observed
from tls_client import Alert, Client, Share
from tls_wire import (ALPN, ECDSA, GREASE, HANDSHAKE, KEY_SHARE, P256, P384, RSA_PKCS1, RSA_PSS, SERVER_NAME,
                      SIGNATURE_ALGORITHMS, SUPPORTED_GROUPS, SUPPORTED_VERSIONS, TLS10, TLS11, TLS12, TLS13, X25519)

NEW = harness.openssl_version() >= (3, 5)  # sends other alerts than 3.0 here and there
X = Share(X25519).public
P = Share(P256).public


TLS = {"default": "localhost", "alpn": ["h2", "http/1.1"]}


@pytest.fixture(scope="module")
def proxy(module_stack):
    return module_stack.pair(tls=TLS)[1]


@pytest.fixture(scope="module")
def tbs_proxy(module_stack):
    """One whose key server does not see the hellos."""
    made = module_stack.proxy(module_stack.key_server(), start=False, tls=TLS)
    made.config["key_servers"][0]["mode"] = "tbs"
    return made.start()


def hello13(share=(X25519, X), **fields):
    return wire.tls13_hello(key_shares=[share], **fields)


hello12 = wire.tls12_hello


# ---- Refused.

@dataclasses.dataclass
class Refused:
    name: str
    sent: object  # a wire.Hello, or octets
    seen: object  # the alert's number, or "end"
    reason: str
    stage: str = "client hello"
    sni: str = "p256.example"

    def octets(self):
        return self.sent if isinstance(self.sent, bytes) else self.sent.record()


def strange(name, sent, reason, seen="end"):
    """Not even a ClientHello."""
    return Refused(name, sent, seen, reason, sni="")


def broken(name, body, reason="message does not parse", seen=wire.DECODE_ERROR):
    """A ClientHello with this body."""
    return Refused(name, wire.record(HANDSHAKE, wire.message(wire.CLIENT_HELLO, body), TLS10), seen, reason, sni="")


def unheard(name, hello, reason="no shared cipher"):
    """Nothing in common that a certificate could be used with."""
    return Refused(name, hello, wire.HANDSHAKE_FAILURE, reason, "certificate")


def sslv2(version):
    body = b"\1" + wire.u16(version, 6, 0, 16) + b"\0\xc0\x2b\0\xc0\x2f" + bytes(16)
    return wire.u16(0x8000 | len(body)) + body


def split_by(between):
    """A ClientHello with another record in its middle."""
    whole = hello13().message()
    return wire.record(HANDSHAKE, whole[:50]) + between + wire.record(HANDSHAKE, whole[50:])


NOT_TLS = "not TLS, or a bad record version"
VERSION = "unsupported protocol version"
UNEXPECTED = "unexpected message"
BODY = hello13().body()
BARE = hello13().changed(no_extensions=True).body()

REFUSED = [
    strange("HTTP", b"GET / HTTP/1.1\r\nHost: p256.example\r\n\r\n", "not TLS: HTTP request"),
    strange("HTTP POST", b"POST / HTTP/1.1\r\n\r\n", "not TLS: HTTP request"),
    strange("HTTP CONNECT", b"CONNECT p256.example:443 HTTP/1.1\r\n\r\n", "not TLS: HTTP proxy request"),
    strange("HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", NOT_TLS),
    strange("SSH", b"SSH-2.0-OpenSSH_9.2\r\n", NOT_TLS),
    strange("PROXY protocol", b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n", NOT_TLS),
    strange("zeros", bytes(100), NOT_TLS),
    strange("random octets", bytes.fromhex("8b1f6c0d5ae91f42d3c07b55e08fa136") * 8, NOT_TLS),
    strange("DTLS", b"\x16\xfe\xff" + bytes(8) + b"\0\x10" + bytes(16), NOT_TLS),
    strange("SSLv2", sslv2(0x0002), "hello in SSLv2 format", wire.PROTOCOL_VERSION),
    strange("TLS 1.0 in an SSLv2 hello", sslv2(TLS10), "hello in SSLv2 format", wire.PROTOCOL_VERSION),
    strange("TLS 1.2 in an SSLv2 hello", sslv2(TLS12), "hello in SSLv2 format", wire.PROTOCOL_VERSION),
    strange("record of version 2.0", wire.record(HANDSHAKE, hello13().message(), 0x0200), NOT_TLS),
    strange("record of version 4.0", wire.record(HANDSHAKE, hello13().message(), 0x0400), NOT_TLS),
    *[strange(f"{name} first", wire.record(kind, body), UNEXPECTED, wire.UNEXPECTED_MESSAGE)
      for name, kind, body in [
          ("fatal alert", wire.ALERT, wire.alert(wire.HANDSHAKE_FAILURE)),
          ("close_notify", wire.ALERT, wire.alert(wire.CLOSE_NOTIFY, wire.WARNING)),
          ("data", wire.APPLICATION_DATA, bytes(20)),
          ("ChangeCipherSpec", wire.CHANGE_CIPHER_SPEC, b"\1"),
          ("heartbeat", 24, b"\1\0\0"),
          ("Finished", HANDSHAKE, wire.message(wire.FINISHED, bytes(12))),
          ("ServerHello", HANDSHAKE, wire.message(wire.SERVER_HELLO, bytes(40))),
          ("random message", HANDSHAKE, bytes(range(0x30, 0x60)))]],
    strange("record of 16,385 octets", wire.record(HANDSHAKE, bytes(16385)), "record too long", wire.RECORD_OVERFLOW),
    strange("message of 16 MB", wire.record(HANDSHAKE, b"\1\xff\xff\xff" + bytes(100)), "message too long",
            wire.ILLEGAL_PARAMETER),
    strange("ClientHello of 20,000 octets", wire.records(HANDSHAKE, hello13().padded(20000).message(), 16384),
            "handshake messages too long"),
    strange("ClientHello of 128 kB",
            wire.records(HANDSHAKE, hello13(suites=tuple(range(1, 32761))).padded(130900).message(), 16384),
            "handshake messages too long"),
    strange("alert in its middle", split_by(wire.record(wire.ALERT, wire.alert(0, wire.WARNING))), UNEXPECTED,
            wire.UNEXPECTED_MESSAGE),
    strange("data in its middle", split_by(wire.record(wire.APPLICATION_DATA, b"x")), UNEXPECTED,
            wire.UNEXPECTED_MESSAGE),
    strange("ChangeCipherSpec in its middle", split_by(wire.record(wire.CHANGE_CIPHER_SPEC, b"\1")), UNEXPECTED,
            wire.UNEXPECTED_MESSAGE),

    # Versions. SSL 3.0 has no protocol_version alert.
    Refused("SSL 3.0", hello12(version=wire.SSL3, record_version=wire.SSL3), wire.HANDSHAKE_FAILURE, VERSION),
    Refused("TLS 1.0", hello12(version=TLS10), wire.PROTOCOL_VERSION, VERSION),
    Refused("TLS 1.1", hello12(version=TLS11), wire.PROTOCOL_VERSION, VERSION),
    Refused("version 0", hello12(version=0), wire.PROTOCOL_VERSION, VERSION),
    Refused("supported_versions up to TLS 1.1", hello13(versions=(TLS11, TLS10)), wire.PROTOCOL_VERSION, VERSION),
    Refused("supported_versions of GREASE", hello13(versions=(GREASE,)), wire.PROTOCOL_VERSION, VERSION),
    Refused("supported_versions of a draft", hello13(versions=(0x7F1C,)), wire.PROTOCOL_VERSION, VERSION),
    Refused("no supported_versions in it", hello13(versions=()), wire.PROTOCOL_VERSION, VERSION),
    Refused("TLS 1.3 said to be SSL 3.0", hello13(versions=(TLS13,), version=wire.SSL3), wire.HANDSHAKE_FAILURE,
            "bad legacy version"),
    Refused("fallback SCSV", hello12(suites=(wire.ECDSA_AES128, wire.FALLBACK_SCSV)), wire.INAPPROPRIATE_FALLBACK,
            "fallback to an older version (SCSV)"),

    # Suites.
    *[unheard(f"{name} alone", hello12(suites=suites)) for name, suites in [
        ("TLS_RSA", (0x009C, 0x009D, 0x002F, 0x0035, 0x003C)), ("DHE", (0x009E, 0x0033)),
        ("CBC", (0xC009, 0xC013, 0xC023, 0xC027)), ("anonymous", (0x0034, 0xC018)), ("no encryption", (0x0002, 0xC006)),
        ("PSK", (0x00A8,)), ("RC4 and 3DES", (0x0005, 0x000A, 0xC012)), ("static ECDH", (0xC02D, 0xC031)),
        ("RSA for an ECDSA key", (wire.RSA_AES128,))]],
    unheard("TLS 1.2 with suites of TLS 1.3", hello13(versions=(TLS12,), suites=(wire.AES128_13,))),
    Refused("TLS 1.3 with suites of TLS 1.2", hello13(versions=(TLS13,), suites=(wire.ECDSA_AES128,)),
            wire.HANDSHAKE_FAILURE, "no shared cipher"),
    Refused("suites that nobody knows", hello13(suites=(GREASE, 0xFEFE)), wire.HANDSHAKE_FAILURE, "no shared cipher"),
    Refused("no suites", hello13(suites=()), wire.DECODE_ERROR if NEW else wire.ILLEGAL_PARAMETER,
            "client offered no cipher"),

    # Groups and shares.
    Refused("TLS 1.3 with no group of ours", wire.tls13_hello(groups=(wire.FFDHE2048,)), wire.HANDSHAKE_FAILURE,
            "no shared group"),
    unheard("TLS 1.2 with no group of ours", hello12(groups=(wire.FFDHE2048,))),
    unheard("TLS 1.2 without the certificate's curve", hello12(groups=(X25519,))),
    Refused("no groups in it", hello13(groups=()), wire.DECODE_ERROR, "bad extension"),
    Refused("half a group", hello13().having((SUPPORTED_GROUPS, wire.vector16(b"\0"))), wire.DECODE_ERROR,
            "bad extension"),
    Refused("no supported_groups", hello13().without(SUPPORTED_GROUPS), wire.MISSING_EXTENSION,
            "client offered no group"),
    Refused("no key_share", hello13().without(KEY_SHARE), wire.MISSING_EXTENSION, "no shared group"),
    *[Refused(f"X25519 share {name}", hello13((X25519, share)), seen, reason, stage)
      for name, share, seen, reason, stage in [
          ("cut", X[:31], wire.ILLEGAL_PARAMETER, "bad key share", "client hello"),
          ("with an octet more", X + b"x", wire.ILLEGAL_PARAMETER, "bad key share", "client hello"),
          ("empty", b"", wire.DECODE_ERROR, "message does not parse", "client hello"),
          ("of low order", bytes(32), wire.ILLEGAL_PARAMETER, "bad key share", "certificate")]],
    *[Refused(f"P-256 share {name}", hello13((P256, share)), wire.ILLEGAL_PARAMETER, "bad key share")
      for name, share in [
          ("off its curve", b"\4" + bytes([1]) * 64), ("at zero", b"\4" + bytes(64)), ("at infinity", b"\0"),
          ("compressed", b"\2" + P[1:33]), ("cut", P[:64])]],
    Refused("a share of a group that is not offered", hello13(groups=(P256,)), wire.ILLEGAL_PARAMETER, "bad key share"),

    # Signature schemes.
    Refused("no signature_algorithms", hello13().without(SIGNATURE_ALGORITHMS), wire.MISSING_EXTENSION,
            "client offered no signature algorithm"),
    unheard("TLS 1.2 without signature_algorithms, which means SHA-1", hello12().without(SIGNATURE_ALGORITHMS)),
    Refused("SHA-1 alone", hello12(schemes=(wire.ECDSA_SHA1, wire.RSA_PKCS1_SHA1)), wire.HANDSHAKE_FAILURE,
            "no shared signature algorithm"),
    Refused("schemes that nobody knows", hello13(schemes=(0xFEFE,)), wire.HANDSHAKE_FAILURE,
            "no shared signature algorithm"),
    Refused("no schemes in it", hello13(schemes=()), wire.DECODE_ERROR, "bad extension"),
    unheard("RSA alone for an ECDSA key", hello13(schemes=RSA_PSS), "no shared signature algorithm"),
    unheard("SHA-384 alone for a P-256 key in TLS 1.3", hello13(schemes=ECDSA[1:2]), "no shared signature algorithm"),
    Refused("ECDSA alone for an RSA key", hello13(name=b"rsa2048.example", schemes=ECDSA), wire.HANDSHAKE_FAILURE,
            "no shared signature algorithm", "certificate", "rsa2048.example"),
    Refused("PKCS #1 alone in TLS 1.3", hello13(name=b"rsa2048.example", schemes=RSA_PKCS1), wire.HANDSHAKE_FAILURE,
            "no shared signature algorithm", "certificate", "rsa2048.example"),

    # Names.
    *[Refused(f"name {name}", hello13().having((SERVER_NAME, extension)), seen, "bad extension", sni="")
      for name, extension, seen in [
          ("of 256 octets", wire.names(b"a" * 256), wire.UNRECOGNIZED_NAME),
          ("with a NUL in it", wire.names(b"p256.example\0.evil"), wire.UNRECOGNIZED_NAME),
          ("given twice", wire.names(b"p256.example", b"rsa2048.example"), wire.DECODE_ERROR),
          ("of another type", wire.names((1, b"p256.example")), wire.DECODE_ERROR),
          ("in an empty list", wire.vector16(b""), wire.DECODE_ERROR),
          ("in an empty extension", b"", wire.DECODE_ERROR),
          ("longer than its list", wire.vector16(b"\0\0\xffp256"), wire.DECODE_ERROR),
          ("with an octet behind", wire.names(b"p256.example") + b"x", wire.DECODE_ERROR)]],
    Refused("name not of ASCII, in the log", hello13(name=b"\xc3\xa9\xff\n\"\\.example", suites=(GREASE,)),
            wire.HANDSHAKE_FAILURE, "no shared cipher", sni=r'é\\xff\\x0a\"\\x5c.example'),

    # Other extensions and fields.
    Refused("an extension twice", hello13().adding((SUPPORTED_GROUPS, wire.list16(X25519))), wire.ILLEGAL_PARAMETER,
            "bad extension", sni=""),
    *[Refused(f"ALPN {name}", hello13().adding((ALPN, extension)), seen, reason) for name, extension, seen, reason in [
        ("of neither", wire.vector16(wire.vector8(b"spdy/3")), wire.NO_APPLICATION_PROTOCOL,
         "no shared application protocol"),
        ("of h2, which the backend does not speak", wire.vector16(wire.vector8(b"h2")), wire.NO_APPLICATION_PROTOCOL,
         "no shared application protocol"),
        ("without protocols", wire.vector16(b""), wire.DECODE_ERROR, "bad extension"),
        ("with an empty protocol", wire.vector16(wire.vector8(b"")), wire.DECODE_ERROR, "bad extension"),
        ("longer than itself", wire.vector16(b"\xffh2"), wire.DECODE_ERROR, "bad extension")]],
    Refused("max_fragment_length that there is not", hello13().adding((wire.MAX_FRAGMENT_LENGTH, b"\5")),
            wire.ILLEGAL_PARAMETER, "bad extension"),
    Refused("a secure renegotiation of nothing", hello12().adding((wire.RENEGOTIATION_INFO, wire.vector8(bytes(12)))),
            wire.HANDSHAKE_FAILURE, "renegotiation mismatch"),
    Refused("PSK not at the end", hello13().adding((wire.PRE_SHARED_KEY, wire.identities(b"a")), (0xABCD, b"")),
            wire.ILLEGAL_PARAMETER, "bad extension", sni=""),
    Refused("PSK without its modes", hello13().adding((wire.PRE_SHARED_KEY, wire.identities(b"a"))),
            wire.MISSING_EXTENSION, "missing psk kex modes extension"),
    Refused("compression in TLS 1.3", hello13(compression=b"\1\0"), wire.ILLEGAL_PARAMETER,
            "invalid compression algorithm"),
    Refused("compression alone", hello12(compression=b"\1"), *(
        (wire.ILLEGAL_PARAMETER, "required compression algorithm missing") if NEW else
        (wire.DECODE_ERROR, "no compression specified"))),
    Refused("no compression, not even none", hello12(compression=b""), wire.DECODE_ERROR, "no compression specified"),

    # Octets missing, or too many.
    broken("a session of 33 octets", hello13(session=bytes(33)).body()),
    broken("an octet behind it", BODY + b"\0"),
    broken("extensions longer than it", BARE + b"\xff\xff\0\0\0\0"),
    *[broken(f"cut after {size} octets", BODY[:size]) for size in (0, 1, 2, 33, 34, 35, 67, 68, 70, 90, 140)],
    Refused("a message behind it in its record",
            wire.record(HANDSHAKE, hello13().message() + wire.message(wire.FINISHED, bytes(32))),
            wire.UNEXPECTED_MESSAGE, "not on record boundary"),
]


@pytest.mark.parametrize("row", REFUSED, ids=lambda row: row.name)
def test_refused(proxy, row):
    observed = Observed(proxy)
    with Client(proxy.port, hello13()) as client:
        client.send(row.octets())
        assert client.outcome() == row.seen
    observed.assert_failed(row.reason, row.stage, row.sni)
    observed.assert_whole()


# ---- Served.

@dataclasses.dataclass
class Served:
    name: str
    hello: object = None  # made of the client's key shares; or a wire.Hello
    facts: dict = dataclasses.field(default_factory=dict)  # what the backend tells of the handshake
    groups: tuple = (X25519,)
    cut: object = wire.Hello.record  # the octets of the ClientHello, or a list of what is sent at once
    site: str = "p256.example"  # whose certificate comes
    largest: int = 16384  # record
    vain: tuple = ()  # served in mode tbs alone: what becomes of it in mode transcript: alert, stage, reason


def of(**fields):
    return lambda key_shares: wire.tls13_hello(key_shares=key_shares, **fields)


def plus(*extensions, **fields):
    return lambda key_shares: wire.tls13_hello(key_shares=key_shares, **fields).adding(*extensions)


def retry(**fields):
    """Only a share of a group that is not ours."""
    return lambda key_shares: wire.tls13_hello(groups=(P384, X25519, P256), key_shares=key_shares, **fields)


def in_records(size, version=TLS10):
    return lambda hello: wire.records(HANDSHAKE, hello.message(), size, version)


def in_segments(size):
    return lambda hello: [hello.record()[i:i + size] for i in range(0, len(hello.record()), size)]


def with_early_data(hello):
    """Of a client that believes in a ticket: nobody can decrypt it."""
    return hello.record() + b"".join(wire.record(wire.APPLICATION_DATA, bytes([i]) * 1000) for i in range(8))


MODES = (wire.PSK_KEY_EXCHANGE_MODES, b"\1\1")
PSK = (wire.PRE_SHARED_KEY, wire.identities(b"a ticket that nobody issued", bytes(200)))
CHROME = dict(suites=(GREASE, *wire.DEFAULT_SUITES, 0xC013, 0x009C), versions=(GREASE, TLS13, TLS12))
V13, V12 = {"version": "TLSv1.3"}, {"version": "TLSv1.2"}
NO_NAME = (wire.UNRECOGNIZED_NAME, "client hello", "no certificate for this name")

SERVED = [
    Served("TLS 1.3", of(), {**V13, "suite": "TLS_AES_128_GCM_SHA256", "group": "X25519", "retries": 0}),
    Served("TLS 1.2", hello12(), {**V12, "suite": "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256", "group": "X25519"}),
    Served("AES-256", of(suites=(wire.AES256_13,)), {"suite": "TLS_AES_256_GCM_SHA384"}),
    Served("ChaCha20", of(suites=(wire.CHACHA_13,)), {"suite": "TLS_CHACHA20_POLY1305_SHA256"}),
    Served("the server's order of suites", of(suites=(wire.CHACHA_13, wire.AES256_13, wire.AES128_13)),
           {"suite": "TLS_AES_128_GCM_SHA256"}),
    Served("least of TLS 1.3", of(versions=(TLS13,), groups=(X25519,), schemes=ECDSA[:1], suites=(wire.AES128_13,),
                                  session=b"", name=None), {**V13, "sni": None}, site="localhost"),
    Served("least of TLS 1.2", hello12(name=None, groups=(P256,), schemes=ECDSA[:1], suites=(wire.ECDSA_AES128,),
                                       session=b"").without(wire.EC_POINT_FORMATS), {**V12, "sni": None},
           site="localhost"),
    Served("a version to come", hello12(version=0x0405), V12),
    Served("PKCS #1 alone in TLS 1.2", hello12(name=b"rsa2048.example", schemes=RSA_PKCS1),
           {**V12, "scheme": "rsa_pkcs1_sha256"}, site="rsa2048.example"),
    Served("PKCS #1 with SHA-512 alone in TLS 1.2", hello12(name=b"rsa2048.example", schemes=RSA_PKCS1[2:]),
           {**V12, "scheme": "rsa_pkcs1_sha512"}, site="rsa2048.example"),
    *[Served(f"{kind} alone, {version}, of a site with both",
             (of(versions=(TLS13,), name=b"dual.example", schemes=schemes) if version == "TLSv1.3" else
              hello12(name=b"dual.example", schemes=schemes)),
             {"version": version, "scheme": scheme}, site="dual.example")
      for version in ("TLSv1.3", "TLSv1.2")
      for kind, schemes, scheme in [("ECDSA", ECDSA, "ecdsa_secp256r1_sha256"),
                                    ("RSA", RSA_PSS, "rsa_pss_rsae_sha256")]],
    Served("ECDSA alone by its suites, of a site with both", hello12(name=b"dual.example", suites=(wire.ECDSA_AES128,)),
           {"scheme": "ecdsa_secp256r1_sha256"}, site="dual.example"),
    Served("RSA alone by its suites, of a site with both", hello12(name=b"dual.example", suites=(wire.RSA_AES128,)),
           {"scheme": "rsa_pss_rsae_sha256"}, site="dual.example"),

    # Groups.
    Served("a share of the second group alone", of(groups=(P256,)), {"group": "P-256", "retries": 0}, (P256,)),
    Served("two shares", of(), {"group": "X25519", "retries": 0}, (X25519, P256)),
    Served("a share of a strange group before ours", of(groups=(GREASE, X25519)), {"retries": 0}),
    Served("HelloRetryRequest", retry(), {**V13, "group": "X25519", "retries": 1}, (P384,)),
    Served("HelloRetryRequest for the second group", lambda s: wire.tls13_hello(groups=(P384, P256), key_shares=s),
           {"group": "P-256", "retries": 1}, (P384,)),
    Served("HelloRetryRequest, no shares at all", of(), {"group": "X25519", "retries": 1}, ()),
    Served("HelloRetryRequest with SHA-384", retry(suites=(wire.AES256_13,)), {"retries": 1}, (P384,)),
    Served("HelloRetryRequest, in small records", retry(), {"retries": 1}, (P384,), in_records(7)),

    # Names.
    *[Served(f"name {name}", of(name=sni), {"sni": told}, site=site, vain=NO_NAME if site == "localhost" else ())
      for name, sni, told, site in [
        ("in capitals", b"P256.EXAMPLE", "P256.EXAMPLE", "p256.example"),
        ("of a wildcard", b"any.wild.example", "any.wild.example", "*.wild.example"),
        ("that is an IPv4 address", b"127.0.0.1", "127.0.0.1", "localhost"),
        ("that is an IPv6 address", b"[::1]", "[::1]", "localhost"),
        ("of 255 octets", b"a" * 255, "a" * 255, "localhost"),
        ("not of ASCII", b"\xc3\xa9\xff.example", "\u00c3\u00a9\u00ff.example", "localhost"),
        ("of odd characters", b"\"\\\n\x7f<b>%n", "\"\\\n\x7f<b>%n", "localhost"),
        ("with a dot at its end", b"p256.example.", "p256.example.", "p256.example"),
        ("that is a wildcard", b"*.wild.example", "*.wild.example", "localhost")]],
    *[Served(f"name {name}, TLS 1.2", hello12(name=sni, groups=(X25519, P256)), {**V12, "sni": told}, site="localhost")
      for name, sni, told in [
        ("that is an IPv4 address", b"127.0.0.1", "127.0.0.1"),
        ("not of ASCII", b"\xc3\xa9\xff.example", "\u00c3\u00a9\u00ff.example")]],
    Served("an empty name", plus((SERVER_NAME, wire.names(b"")), name=None), {"sni": None}, site="localhost",
           vain=(wire.INTERNAL_ERROR, "key", "format error")),

    # Extensions.
    Served("GREASE everywhere", lambda s: wire.tls13_hello(key_shares=[(GREASE, b"\0"), *s], groups=(GREASE, X25519),
                                                           **CHROME).adding((GREASE, b""), (0xFAFA, b"\0")), V13),
    Served("unknown extensions, one of them twice", plus((0xABCD, bytes(40)), (0xABCD, b""), (0xFFFF, b"x")),
           vain=(wire.INTERNAL_ERROR, "key", "format error")),
    Served("500 unknown extensions", plus(*[(0x4000 + i, b"\0") for i in range(500)])),
    Served("4,000 suites", of(suites=(*range(0x2000, 0x2000 + 4000), *wire.DEFAULT_SUITES))),
    Served("a PSK that nobody issued", plus(MODES, PSK), {**V13, "resumed": False}),
    Served("a ticket that nobody issued, TLS 1.2", hello12().adding((wire.SESSION_TICKET, bytes(192))),
           {**V12, "resumed": False}),
    Served("a session that nobody knows", hello12(session=bytes(32)), {**V12, "resumed": False}),
    Served("early data", plus(MODES, (wire.EARLY_DATA, b""), PSK), {**V13, "resumed": False}, cut=with_early_data),
    Served("early data and HelloRetryRequest",
           lambda s: wire.tls13_hello(groups=(P384, X25519), key_shares=s).adding(MODES, (wire.EARLY_DATA, b""), PSK),
           {**V13, "retries": 1}, (P384,), cut=with_early_data),
    Served("compression beside none, TLS 1.2", hello12(compression=b"\1\0")),
    Served("ALPN", plus((ALPN, wire.vector16(wire.vector8(b"h2") + wire.vector8(b"http/1.1")))), {"alpn": "http/1.1"}),
    Served("ALPN with GREASE", plus((ALPN, wire.vector16(wire.vector8(b"\x0a\x0a") + wire.vector8(b"http/1.1")))),
           {"alpn": "http/1.1"}),
    Served("records of at most 512 octets", plus((wire.MAX_FRAGMENT_LENGTH, b"\1")), largest=512),
    Served("OCSP and SCTs wanted", plus((wire.STATUS_REQUEST, b"\1\0\0\0\0"), (wire.SCT, b""))),
    Served("post-handshake authentication offered", plus((wire.POST_HANDSHAKE_AUTH, b""))),
    Served("a cookie that nobody gave", plus((wire.COOKIE, wire.vector16(b"abc"))),
           vain=(wire.INTERNAL_ERROR, "key", "content not acceptable")),
    Served("ESNI, as some still send", plus((0xFFCE, bytes(300)))),
    Served("renegotiation SCSV", hello12(suites=(wire.ECDSA_AES128, wire.EMPTY_RENEGOTIATION_SCSV))),

    # Sizes and pieces.
    Served("ClientHello of 511 octets, as of old", lambda s: wire.tls13_hello(key_shares=s).padded(511)),
    Served("ClientHello of 16 kB in one record", lambda s: wire.tls13_hello(key_shares=s).padded(16384)),
    Served("ClientHello of 16 kB and its header in two records", lambda s: wire.tls13_hello(key_shares=s).padded(16388),
           cut=in_records(16384), vain=(wire.ILLEGAL_PARAMETER, "client hello", "ClientHello too long")),
    Served("records of one octet", of(), cut=in_records(1)),
    Served("records of one octet, TLS 1.2", hello12(), V12, cut=in_records(1)),
    Served("segments of one octet", of(), cut=in_segments(1)),
    Served("segments that cut the record's header", of(), cut=in_segments(3)),
    Served("a record that holds the message's header alone", of(),
           cut=lambda hello: wire.record(HANDSHAKE, hello.message()[:4]) + wire.record(HANDSHAKE, hello.message()[4:])),
    Served("an empty record in its middle", of(),
           cut=lambda hello: wire.record(HANDSHAKE, hello.message()[:9]) + wire.record(HANDSHAKE, b"") +
           wire.record(HANDSHAKE, hello.message()[9:])),
    *[Served(f"record version {version:#06x}", of(record_version=version))
      for version in (0x0300, 0x0303, 0x0304, 0x03FF)],
]


def leaf_names(client):
    leaf = x509.load_der_x509_certificate(client.leaf)
    return leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value.get_values_for_type(x509.DNSName)


@pytest.mark.parametrize("row", SERVED, ids=lambda row: row.name)
def test_served(proxy, tbs_proxy, row):
    proxy = tbs_proxy if row.vain else proxy
    observed = Observed(proxy)
    with Client(proxy.port, row.hello, row.groups) as client:
        client.note_hello()
        pieces = row.cut(client.hello)
        for piece in pieces if isinstance(pieces, list) else [pieces]:
            client.send(piece)
        client.answer_server_hello()
        facts = client.finish().ask()
        client.close()
    assert {name: facts[name] for name in row.facts} == row.facts
    assert row.site in leaf_names(client)
    assert client.largest <= row.largest
    observed.assert_served()
    observed.assert_whole()


@pytest.mark.parametrize("row", [row for row in SERVED if row.vain], ids=lambda row: row.name)
def test_in_vain(proxy, row):
    """What a key server that sees the whole handshake would not sign, or the proxy does not send it."""
    alert, stage, reason = row.vain
    observed = Observed(proxy)
    with Client(proxy.port, row.hello, row.groups) as client:
        client.note_hello()
        client.send(row.cut(client.hello))
        with pytest.raises(Alert) as seen:  # behind the ServerHello, an encrypted one
            client.answer_server_hello()
    assert seen.value.number == alert
    observed.assert_failed(reason, stage, None, "key" if stage == "key" else "client")
    observed.assert_whole()


# ---- The second ClientHello.

def second(**changes):
    return lambda hello, client: hello.changed(**changes)


def second_having(kind, data):
    return lambda hello, client: hello.having((kind, data))


def no_answer(hello, client):
    """The share that was not wanted again."""
    return client.hello


SECOND = [
    ("same shares again", no_answer, wire.ILLEGAL_PARAMETER, "bad key share"),
    ("no share", second_having(KEY_SHARE, wire.shares()), wire.ILLEGAL_PARAMETER, "bad key share"),
    ("another name", second_having(SERVER_NAME, wire.names(b"rsa2048.example")), wire.ILLEGAL_PARAMETER,
     "another name in the second ClientHello"),
    ("no name", lambda hello, client: hello.without(SERVER_NAME), wire.ILLEGAL_PARAMETER,
     "another name in the second ClientHello"),
    ("other suites", second(suites=(wire.CHACHA_13,)), wire.ILLEGAL_PARAMETER, "bad cipher"),
    ("TLS 1.2", second_having(SUPPORTED_VERSIONS, wire.vector8(wire.u16(TLS12))), wire.PROTOCOL_VERSION, VERSION),
    ("early data", lambda hello, client: hello.adding((wire.EARLY_DATA, b"")), wire.ILLEGAL_PARAMETER, "bad extension"),
    ("schemes that do not fit the key", second_having(SIGNATURE_ALGORITHMS, wire.list16(*RSA_PSS)),
     wire.HANDSHAKE_FAILURE, "no shared signature algorithm"),
    ("other protocols", second_having(ALPN, wire.vector16(wire.vector8(b"spdy/3"))), wire.NO_APPLICATION_PROTOCOL,
     "no shared application protocol"),
]


@pytest.mark.parametrize("change, seen, reason", [row[1:] for row in SECOND], ids=[row[0] for row in SECOND])
def test_second_hello(proxy, change, seen, reason):
    observed = Observed(proxy)
    with Client(proxy.port, retry(), (P384,)) as client:
        client.send_hello()
        assert client.read_server_hello().retry
        client.hello = change(client.second_hello(), client)
        client.send_hello()
        assert client.outcome() == seen
    # libssl asks for the certificate before it asks for another ClientHello.
    observed.assert_failed(reason, "certificate")
    observed.assert_whole()


def test_finished_in_place_of_the_second_hello(proxy):
    observed = Observed(proxy)
    with Client(proxy.port, retry(), (P384,)) as client:
        client.send_hello()
        assert client.read_server_hello().retry
        client.send_message(wire.FINISHED, bytes(32))
        assert client.outcome() == wire.UNEXPECTED_MESSAGE
    observed.assert_failed(UNEXPECTED, "certificate")
    observed.assert_whole()
