"""What clients send after their ClientHello and should not: in the handshake and after it, in TLS 1.3 and 1.2. Each
gets the right alert; a failed handshake leaves one line and one count, a broken connection its count; the proxy goes
on."""

import contextlib
import dataclasses
import hashlib
import socket
import threading

import pytest

import harness
import tls_wire as wire
from harness import wait_until
from observed import Observed
from tls_client import REQUEST, Client
from tls_wire import ALERT, APPLICATION_DATA, CHANGE_CIPHER_SPEC, FINISHED, HANDSHAKE, KEY_UPDATE, WARNING

NEW = harness.openssl_version() >= (3, 5)


@pytest.fixture(scope="module")
def proxy(module_stack):
    return module_stack.pair(tls={"default": "localhost"})[1]


HELLOS = {"1.3": None, "1.2": wire.tls12_hello()}


def client_of(version, proxy):
    return Client(proxy.port, HELLOS[version])


# ---- What is done to the connection: functions of the client, one after the other.

def send(kind, body):
    """A record under the keys of the moment."""
    return lambda client: client.send_record(kind, body)


def plain(kind, body):
    return lambda client: client.send(wire.record(kind, body))


def say(kind, body):
    """A handshake message in a record of its own."""
    return lambda client: client.send_message(kind, body)


def finished(change=lambda content: content):
    return lambda client: client.send_message(FINISHED, change(client.finished()))


def finished_in_the_clear(client):
    client.send(wire.record(HANDSHAKE, wire.message(FINISHED, client.finished())))


def finished_and(behind):
    """Another message in the record of the Finished."""
    return lambda client: client.send_record(HANDSHAKE, wire.message(FINISHED, client.finished()) + behind)


def corrupted(kind, body):
    def do(client):
        sealed = bytearray(client.writing.seal(kind, body))
        sealed[-1] ^= 1
        client.send(bytes(sealed))
    return do


def key_exchange(change=lambda content: content):
    return lambda client: client.send_message(wire.CLIENT_KEY_EXCHANGE, change(wire.vector8(client.share.public)))


def change_cipher(client):
    client.change_cipher()


def hello_again(client):
    client.send_message(wire.CLIENT_HELLO, client.hello.body())


def times(count, do):
    def repeat(client):
        for _ in range(count):
            do(client)
    return repeat


# ---- In place of the client's Finished, or before it.

@dataclasses.dataclass
class Wrong:
    name: str
    version: str
    steps: tuple
    seen: object  # the alert's number, or "end"
    reason: str
    outcome: str = "client"

    def __str__(self):
        return f"{self.version} {self.name}"


def alerts(version, *before):
    """Alerts of the client's."""
    return [
        Wrong("fatal alert", version, (*before, send(ALERT, wire.alert(48))), "end", "client sent alert: unknown CA"),
        Wrong("fatal alert that nobody knows", version, (*before, send(ALERT, wire.alert(200))), "end",
              "client sent an alert"),
        Wrong("close_notify", version, (*before, send(ALERT, wire.alert(wire.CLOSE_NOTIFY, WARNING))), "end",
              "client closed", "client_gone"),
        Wrong("user_canceled, then close_notify", version,
              (*before, send(ALERT, wire.alert(wire.USER_CANCELED, WARNING)),
               send(ALERT, wire.alert(wire.CLOSE_NOTIFY, WARNING))), "end", "client closed", "client_gone"),
    ]


UNEXPECTED = (wire.UNEXPECTED_MESSAGE, "unexpected message")
KEYS12 = (key_exchange(), change_cipher)

WRONG = [
    Wrong("wrong Finished", "1.3", (finished(lambda content: bytes(32)),), wire.DECRYPT_ERROR,
          "wrong Finished message"),
    *[Wrong(f"Finished {name}", "1.3", (finished(change),), wire.DECODE_ERROR, "wrong Finished message")
      for name, change in [("cut", lambda content: content[:-1]),
                           ("with an octet more", lambda content: content + b"x"),
                           ("empty", lambda content: b"")]],
    Wrong("Finished in the clear", "1.3", (finished_in_the_clear,), wire.UNEXPECTED_MESSAGE, "bad record type"),
    Wrong("Finished that does not decrypt", "1.3", (corrupted(HANDSHAKE, wire.message(FINISHED, bytes(32))),),
          wire.BAD_RECORD_MAC, "record does not decrypt"),
    Wrong("record too short to decrypt", "1.3", (plain(APPLICATION_DATA, b"abc"),), wire.BAD_RECORD_MAC,
          "record does not decrypt"),
    Wrong("empty record", "1.3", (plain(APPLICATION_DATA, b""),), wire.BAD_RECORD_MAC, "record does not decrypt"),
    Wrong("record of 2^14 + 257 octets", "1.3", (plain(APPLICATION_DATA, bytes(16384 + 257)),), wire.RECORD_OVERFLOW,
          "record too long"),
    Wrong("more than 2^14 octets in a record", "1.3", (send(HANDSHAKE, bytes(16385)),), wire.RECORD_OVERFLOW,
          "record too long"),
    Wrong("record of padding alone", "1.3", (lambda client: client.send(client.writing.seal_inner(bytes(20))),),
          wire.UNEXPECTED_MESSAGE, "bad record type"),
    Wrong("ChangeCipherSpec encrypted", "1.3", (send(CHANGE_CIPHER_SPEC, b"\1"),), wire.UNEXPECTED_MESSAGE,
          "bad record type"),
    Wrong("record of type 99", "1.3", (send(99, b"x"),), wire.UNEXPECTED_MESSAGE, "bad record type"),
    Wrong("no handshake message in its record", "1.3", (send(HANDSHAKE, b""),), wire.UNEXPECTED_MESSAGE,
          "message does not parse"),
    Wrong("data before Finished", "1.3", (send(APPLICATION_DATA, REQUEST),), *UNEXPECTED),
    Wrong("KeyUpdate before Finished", "1.3", (say(KEY_UPDATE, b"\0"),), *UNEXPECTED),
    Wrong("Certificate unasked", "1.3", (say(wire.CERTIFICATE, b"\0\0\0\0"),), *UNEXPECTED),
    Wrong("EndOfEarlyData unasked", "1.3", (say(wire.END_OF_EARLY_DATA, b""),), *UNEXPECTED),
    Wrong("ClientHello again", "1.3", (hello_again,), *UNEXPECTED),
    Wrong("KeyUpdate in the record of Finished", "1.3", (finished_and(wire.message(KEY_UPDATE, b"\0")),),
          wire.UNEXPECTED_MESSAGE, "not on record boundary"),
    *[Wrong(f"ChangeCipherSpec {name}", "1.3", (plain(CHANGE_CIPHER_SPEC, body),),
            wire.UNEXPECTED_MESSAGE if NEW else wire.ILLEGAL_PARAMETER, "invalid ccs message") for name, body in [("of 2", b"\2"), ("of two octets", b"\1\1"), ("empty", b"")]],
    Wrong("ChangeCipherSpecs without end", "1.3", (times(40, plain(CHANGE_CIPHER_SPEC, b"\1")),),
          wire.UNEXPECTED_MESSAGE, "unexpected ccs message"),
    Wrong("alert in the clear", "1.3", (plain(ALERT, wire.alert(wire.INTERNAL_ERROR)),), "end",
          "client sent alert: internal error"),
    Wrong("warning, which there is not in TLS 1.3", "1.3", (send(ALERT, wire.alert(42, WARNING)),), "end",
          "client sent alert: bad certificate"),
    Wrong("alert of one octet", "1.3", (send(ALERT, b"\2"),), wire.UNEXPECTED_MESSAGE, "invalid alert"),
    Wrong("two alerts in a record", "1.3", (send(ALERT, wire.alert(40) * 2),), wire.UNEXPECTED_MESSAGE,
          "invalid alert"),
    *alerts("1.3"),

    Wrong("wrong Finished", "1.2", (*KEYS12, finished(lambda content: bytes(12))), wire.DECRYPT_ERROR,
          "wrong Finished message"),
    Wrong("Finished cut", "1.2", (*KEYS12, finished(lambda content: content[:-1])), wire.DECODE_ERROR,
          "wrong Finished message"),
    Wrong("Finished that does not decrypt", "1.2", (*KEYS12, corrupted(HANDSHAKE, wire.message(FINISHED, bytes(12)))),
          wire.BAD_RECORD_MAC, "record does not decrypt"),
    Wrong("Finished in the clear", "1.2", (key_exchange(), finished()), *UNEXPECTED),
    Wrong("ChangeCipherSpec before ClientKeyExchange", "1.2", (plain(CHANGE_CIPHER_SPEC, b"\1"),), *UNEXPECTED),
    Wrong("ChangeCipherSpec twice", "1.2", (*KEYS12, send(CHANGE_CIPHER_SPEC, b"\1")), wire.UNEXPECTED_MESSAGE,
          "data between ccs and finished"),
    Wrong("data before ClientKeyExchange", "1.2", (send(APPLICATION_DATA, b"x"),), *UNEXPECTED),
    Wrong("data after ClientKeyExchange", "1.2", (key_exchange(), send(APPLICATION_DATA, b"x")), *UNEXPECTED),
    *[Wrong(f"ClientKeyExchange {name}", "1.2", (key_exchange(change),), seen, reason)
      for name, change, seen, reason in [
          ("of low order", lambda content: wire.vector8(bytes(32)), wire.ILLEGAL_PARAMETER, "bad key share"),
          ("cut", lambda content: wire.vector8(bytes(31)), wire.ILLEGAL_PARAMETER, "bad key share"),
          ("without a key", lambda content: b"\0", wire.ILLEGAL_PARAMETER, "bad key share"),
          ("with an octet more", lambda content: content + b"x", wire.DECODE_ERROR, "message does not parse"),
          ("of 4,000 octets", lambda content: bytes(4000), wire.ILLEGAL_PARAMETER, "message too long")]],
    Wrong("CertificateVerify unasked", "1.2", (key_exchange(), say(wire.CERTIFICATE_VERIFY, b"\4\3\0\1x")),
          *UNEXPECTED),
    Wrong("Certificate unasked", "1.2", (say(wire.CERTIFICATE, b"\0\0\0"),), *UNEXPECTED),
    Wrong("ClientHello again", "1.2", (hello_again,), *UNEXPECTED),
    Wrong("warnings without end", "1.2", (times(6, send(ALERT, wire.alert(wire.USER_CANCELED, WARNING))),),
          wire.UNEXPECTED_MESSAGE, "too many warn alerts"),
    *alerts("1.2"),
]


@pytest.mark.parametrize("row", WRONG, ids=str)
def test_wrong(proxy, row):
    observed = Observed(proxy)
    with client_of(row.version, proxy) as client:
        client.start()
        for step in row.steps:
            step(client)
        assert client.outcome() == row.seen
    observed.assert_failed(row.reason, "finished", outcome=row.outcome)
    observed.assert_whole()


# ---- Odd, and still served.

def together(client):
    """Finished and a request in one segment."""
    sealed = client.writing.seal(HANDSHAKE, wire.message(FINISHED, client.finished()))
    client.reading, client.writing = client._application_keys()
    client.send(sealed + client.writing.seal(APPLICATION_DATA, REQUEST))


def byte_by_byte(client):
    """Finished in records of one octet."""
    for octet in wire.message(FINISHED, client.finished()):
        client.send_record(HANDSHAKE, bytes([octet]))
    client.conclude()
    client.send_data(REQUEST)


def with_padding(client):
    client.send(client.writing.seal(HANDSHAKE, wire.message(FINISHED, client.finished()), 4000))
    client.conclude()
    client.send(client.writing.seal(APPLICATION_DATA, REQUEST, 1000))


def finish_and_ask(client):
    client.finish()
    client.send_data(REQUEST)


def one_message_an_octet(client):
    """Finished of TLS 1.2 and what leads to it, in records of one octet."""
    for octet in wire.message(wire.CLIENT_KEY_EXCHANGE, wire.vector8(client.share.public)):
        client.send_record(HANDSHAKE, bytes([octet]))
    client.transcript += wire.message(wire.CLIENT_KEY_EXCHANGE, wire.vector8(client.share.public))
    client.change_cipher()
    content = wire.message(FINISHED, client.finished())
    client.transcript += content
    for octet in content:
        client.send_record(HANDSHAKE, bytes([octet]))
    client.conclude()
    client.send_data(REQUEST)


def all_in_one_segment(client):
    """ClientKeyExchange, ChangeCipherSpec and Finished."""
    exchange = wire.message(wire.CLIENT_KEY_EXCHANGE, wire.vector8(client.share.public))
    client.transcript += exchange
    sent = client.writing.seal(HANDSHAKE, exchange) + client.writing.seal(CHANGE_CIPHER_SPEC, b"\1")
    client.writing = client.writing_next
    content = wire.message(FINISHED, client.finished())
    client.transcript += content
    client.send(sent + client.writing.seal(HANDSHAKE, content))
    client.conclude()
    client.send_data(REQUEST)


def false_start(client):
    """A request before the server's Finished is there (RFC 7918)."""
    client.send_message(wire.CLIENT_KEY_EXCHANGE, wire.vector8(client.share.public))
    client.change_cipher()
    content = wire.message(FINISHED, client.finished())
    client.transcript += content
    client.send(client.writing.seal(HANDSHAKE, content) + client.writing.seal(APPLICATION_DATA, REQUEST))
    client.conclude()


ODD = [
    ("request with the Finished", "1.3", (together,)),
    ("Finished in records of one octet", "1.3", (byte_by_byte,)),
    ("padded records", "1.3", (with_padding,)),
    ("ChangeCipherSpec twice, as after a HelloRetryRequest", "1.3", (plain(CHANGE_CIPHER_SPEC, b"\1"), finish_and_ask)),
    ("user_canceled, then on", "1.3", (send(ALERT, wire.alert(wire.USER_CANCELED, WARNING)), finish_and_ask)),
    ("messages in records of one octet", "1.2", (one_message_an_octet,)),
    ("messages in one segment", "1.2", (all_in_one_segment,)),
    ("request with the Finished", "1.2", (false_start,)),
    ("four warnings, then on", "1.2", (times(4, send(ALERT, wire.alert(wire.USER_CANCELED, WARNING))), finish_and_ask)),
]


@pytest.mark.parametrize("version, steps", [row[1:] for row in ODD], ids=[f"{row[1]} {row[0]}" for row in ODD])
def test_odd(proxy, version, steps):
    observed = Observed(proxy)
    with client_of(version, proxy) as client:
        client.start()
        for step in steps:
            step(client)
        assert client.read_answer()["version"] == f"TLSv{version}"
        client.close()
    observed.assert_served()
    observed.assert_whole()


# ---- After the handshake.

def update(requested=0, count=1):
    return times(count, lambda client: client.send_key_update(requested))


def update_byte_by_byte(client):
    for octet in wire.message(KEY_UPDATE, b"\0"):
        client.send_record(HANDSHAKE, bytes([octet]))
    client.writing = client.writing.next()


def empty(count):
    return times(count, send(APPLICATION_DATA, b""))


GOES_ON = [
    # name, version, steps, KeyUpdates that come back
    ("KeyUpdate", "1.3", (update(),), 0),
    ("KeyUpdate that wants one", "1.3", (update(1),), 1),
    ("KeyUpdates of both kinds", "1.3", (update(), update(1), update(1), update()), 2),
    ("300 KeyUpdates", "1.3", (update(0, 300),), 0),
    ("300 KeyUpdates that want one", "1.3", (update(1, 300),), 300),
    ("KeyUpdate in records of one octet", "1.3", (update_byte_by_byte,), 0),
    ("20 empty records", "1.3", (empty(20),), 0),
    ("20 empty records", "1.2", (empty(20),), 0),
    ("record of padding", "1.3", (lambda client: client.send(client.writing.seal(APPLICATION_DATA, b"", 16000)),), 0),
    ("user_canceled", "1.3", (send(ALERT, wire.alert(wire.USER_CANCELED, WARNING)),), 0),
    ("four warnings", "1.2", (times(4, send(ALERT, wire.alert(wire.USER_CANCELED, WARNING))),), 0),
]


@pytest.mark.parametrize("version, steps, updates", [row[1:] for row in GOES_ON],
                         ids=[f"{row[1]} {row[0]}" for row in GOES_ON])
def test_goes_on(proxy, version, steps, updates):
    observed = Observed(proxy)
    with client_of(version, proxy) as client:
        client.handshake()
        for round_number in range(2):
            for step in steps:
                step(client)
            assert client.ask()["version"] == f"TLSv{version}"
            assert client.key_updates == updates * (round_number + 1)
        client.close()
    observed.assert_served()
    observed.assert_whole()


@contextlib.contextmanager
def echo():
    """A backend for one connection; gives its port."""
    def serve():
        connection, _ = listening.accept()
        with connection:
            while chunk := connection.recv(65536):
                connection.sendall(chunk)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=serve)
        thread.start()
        yield listening.getsockname()[1]
        thread.join(harness.PATIENCE)


def test_key_updates_while_bytes_flow(stack):
    """Both ways at once; each KeyUpdate wants one in return, of which those that come together may be one."""
    rounds, size = 100, 16000
    with echo() as port:
        _, proxy = stack.pair(backends={"web": {"servers": [f"127.0.0.1:{port}"]}})
        with client_of("1.3", proxy) as client:
            client.handshake()
            sent, got = hashlib.sha256(), hashlib.sha256()

            def write():
                for number in range(rounds):
                    data = hashlib.shake_128(bytes([number])).digest(size)
                    sent.update(data)
                    client.send_data(data)
                    client.send_key_update(1)

            writing = threading.Thread(target=write)
            writing.start()
            left = rounds * size
            while left > 0:
                data = client.read_data()
                got.update(data)
                left -= len(data)
            writing.join()
            assert got.digest() == sent.digest()
            assert 0 < client.key_updates <= rounds
            client.close()


BREAKS = [
    ("KeyUpdate of 2", "1.3", (send(HANDSHAKE, wire.message(KEY_UPDATE, b"\2")),), wire.ILLEGAL_PARAMETER),
    ("KeyUpdate empty", "1.3", (send(HANDSHAKE, wire.message(KEY_UPDATE, b"")),), wire.DECODE_ERROR),
    ("KeyUpdate of two octets", "1.3", (send(HANDSHAKE, wire.message(KEY_UPDATE, b"\0\0")),), wire.ILLEGAL_PARAMETER),
    ("two KeyUpdates in a record", "1.3", (send(HANDSHAKE, wire.message(KEY_UPDATE, b"\0") * 2),),
     wire.UNEXPECTED_MESSAGE),
    ("half a KeyUpdate, then data", "1.3", (send(HANDSHAKE, b"\x18\0"), send(APPLICATION_DATA, b"x")),
     wire.UNEXPECTED_MESSAGE),
    ("old keys after a KeyUpdate", "1.3",
     (send(HANDSHAKE, wire.message(KEY_UPDATE, b"\0")), send(APPLICATION_DATA, b"x")), wire.BAD_RECORD_MAC),
    ("ClientHello", "1.3", (hello_again,), wire.UNEXPECTED_MESSAGE),
    ("Finished again", "1.3", (say(FINISHED, bytes(32)),), wire.UNEXPECTED_MESSAGE),
    ("Certificate", "1.3", (say(wire.CERTIFICATE, b"\0\0\0\0"),), wire.UNEXPECTED_MESSAGE),
    ("NewSessionTicket", "1.3", (say(wire.NEW_SESSION_TICKET, bytes(20)),), wire.UNEXPECTED_MESSAGE),
    ("message of 16 MB", "1.3", (send(HANDSHAKE, b"\x18\xff\xff\xff"),), wire.ILLEGAL_PARAMETER),
    ("ChangeCipherSpec", "1.3", (plain(CHANGE_CIPHER_SPEC, b"\1"),), wire.UNEXPECTED_MESSAGE),
    ("alert in the clear", "1.3", (plain(ALERT, wire.alert(40)),), wire.UNEXPECTED_MESSAGE),
    ("record that does not decrypt", "1.3", (corrupted(APPLICATION_DATA, b"x"),), wire.BAD_RECORD_MAC),
    ("record too long", "1.3", (plain(APPLICATION_DATA, bytes(16384 + 257)),), wire.RECORD_OVERFLOW),
    ("plain HTTP", "1.3", (lambda client: client.send(REQUEST),),
     wire.UNEXPECTED_MESSAGE if NEW else wire.PROTOCOL_VERSION),
    ("empty records without end", "1.3", (empty(100),), wire.UNEXPECTED_MESSAGE),
    ("fatal alert", "1.3", (send(ALERT, wire.alert(40)),), "end"),
    ("ChangeCipherSpec", "1.2", (send(CHANGE_CIPHER_SPEC, b"\1"),), wire.UNEXPECTED_MESSAGE),
    ("Finished again", "1.2", (say(FINISHED, bytes(12)),), wire.UNEXPECTED_MESSAGE),
    ("HelloRequest", "1.2", (say(0, b""),), wire.UNEXPECTED_MESSAGE),
    ("KeyUpdate", "1.2", (say(KEY_UPDATE, b"\0"),), wire.UNEXPECTED_MESSAGE),
    ("record that does not decrypt", "1.2", (corrupted(APPLICATION_DATA, b"x"),), wire.BAD_RECORD_MAC),
    ("warnings without end", "1.2", (times(6, send(ALERT, wire.alert(wire.USER_CANCELED, WARNING))),),
     wire.UNEXPECTED_MESSAGE),
    ("empty records without end", "1.2", (empty(100),), wire.UNEXPECTED_MESSAGE),
    ("fatal alert", "1.2", (send(ALERT, wire.alert(40)),), "end"),
]


@pytest.mark.parametrize("version, steps, seen", [row[1:] for row in BREAKS],
                         ids=[f"{row[1]} {row[0]}" for row in BREAKS])
def test_breaks(proxy, version, steps, seen):
    observed = Observed(proxy)
    broken = proxy.metric("keyless_connections_closed_total", reason="client_broken")
    with client_of(version, proxy) as client:
        client.handshake()
        for step in steps:
            step(client)
        assert client.outcome() == seen
    observed.assert_served()
    wait_until(lambda: proxy.metric("keyless_connections_closed_total", reason="client_broken") == broken + 1,
               "the connection to be counted")
    observed.assert_whole()


# ---- Renegotiation: refused with a warning, and the connection goes on (RFC 5246 section 7.2.2).

def test_renegotiation(proxy):
    observed = Observed(proxy)
    with client_of("1.2", proxy) as client:
        client.handshake()
        client.ask()
        for _ in range(3):
            hello_again(client)
            with pytest.raises(Exception, match="alert 100 of level 1"):
                client.read_data()
            assert client.ask()["version"] == "TLSv1.2"
        client.close()
    observed.assert_served()
    observed.assert_whole()


# ---- Ends in order.

def test_last_words(proxy):
    """A request with the close_notify behind it is answered."""
    with client_of("1.3", proxy) as client:
        client.handshake()
        client.send(client.writing.seal(APPLICATION_DATA, REQUEST) +
                    client.writing.seal(ALERT, wire.alert(wire.CLOSE_NOTIFY, WARNING)))
        assert client.read_answer()["version"] == "TLSv1.3"
        assert client.outcome() == wire.CLOSE_NOTIFY


def test_nothing_after_close_notify(proxy):
    """What comes behind it is not for the backend."""
    with client_of("1.3", proxy) as client:
        client.handshake()
        client.send(client.writing.seal(ALERT, wire.alert(wire.CLOSE_NOTIFY, WARNING)) +
                    client.writing.seal(APPLICATION_DATA, REQUEST))
        with pytest.raises(Exception, match="alert 0 of level 1"):
            client.read_data()
