"""What a client entry bounds: who is refused and told what, that others are served meanwhile, and that the log and the
counters name it."""

import collections
import contextlib
import hashlib
import signal
import ssl
import time

import pytest

import kssl_codec as kssl
from counters import Gains
from harness import SITES, wait_until
from kssl_codec import Error, Op, Tag
from kssl_peer import Closed, Peer, site_key
from transcripts import record, sign
from watched import refused, served

CERTIFICATES = [{"dir": str(SITES / "chains")}]
EVERYTHING = {"match": "DNS:edge2.example", "keys": ["*"], "allow": ["tls13", "tls12", "transcript", "list", "digest"]}
MARKED = bytes(24) + kssl.DOWNGRADE_12
X25519 = kssl.ecdh_params(0x001D, bytes(range(32)))


def entry(**settings):
    """Of edge1, which the tests are about; edge2 may do everything."""
    return {"match": "DNS:edge1.example", "keys": ["*"], **settings}


def start(stack, mine, **changes):
    """A key server with this entry for edge1."""
    settings = {"certificates": CERTIFICATES, "log": {"level": "debug", "rate": 0}, **changes}
    return stack.key_server(clients=[mine, EVERYTHING], **settings)


def refusals(server, error):
    return server.metric("keyless_keyserver_refusals_total", error=f"0x{error:02X}")


class Refused:
    """The lines and counters of refusals since it was made."""

    def __init__(self, server, error=Error.POLICY):
        self.server, self.error = server, error
        self.mark, self.before = server.mark(), refusals(server, error)

    def told(self, reason, client="DNS:edge1.example"):
        """Each refusal's line has this reason, and each was counted."""
        lines = self.server.find("request refused", self.mark)
        assert lines and {line["reason"] for line in lines} == {reason}
        assert {(line["client"], line["error"]) for line in lines} == {(client, str(int(self.error)))}
        assert refusals(self.server, self.error) - self.before == len(lines)
        return lines


def edge2_is_served(server):
    with Peer(server.port, "edge2") as peer:
        assert peer.sign_tls13(site_key("p256"), 0x0403, bytes(32)).opcode == Op.SUCCESS


# ---- schemes


def test_schemes(stack):
    """By the scheme that is asked for, or that a bare operation amounts to."""
    server = start(stack, entry(allow=["tls13", "tls12", "digest"],
                                schemes=["ecdsa_secp256r1_sha256", "rsa_pss_rsae_sha384"]))
    digest = hashlib.sha256(b"").digest()
    refused = Refused(server)
    messages = record("rsa2048", "rsa2048.example")
    with Peer(server.port) as peer:
        p256, p384, rsa = (site_key(name) for name in ("p256", "p384", "rsa2048"))
        outcomes = [
            (peer.sign_tls13(p256, 0x0403, bytes(32)), None),
            (peer.sign_tls13(rsa, 0x0805, bytes(32)), None),
            (peer.sign_tls13(rsa, 0x0804, bytes(32)), Error.POLICY),
            (peer.sign_tls13(p384, 0x0503, bytes(32)), Error.POLICY),
            (peer.sign_tls12(p384, 0x0403, bytes(32), MARKED, X25519), None),
            (peer.sign_tls12(rsa, 0x0401, bytes(32), MARKED, X25519), Error.POLICY),
            (peer.with_key(Op.SIGN_TRANSCRIPT, rsa, b"\x08\x04" + b"".join(messages)), Error.POLICY),
            (peer.with_key(Op.ECDSA_SHA256, p256, digest), None),
            (peer.with_key(Op.ECDSA_SHA1, p256, bytes(20)), Error.POLICY),
            (peer.with_key(Op.RSA_PSS_SHA384, rsa, bytes(48)), None),
            (peer.with_key(Op.RSA_SHA384, rsa, bytes(48)), Error.POLICY),
            (peer.with_key(Op.ED25519, site_key("ed25519"), b"x"), Error.POLICY),
        ]
        edge2_is_served(server)
    assert [answer.error for answer, _ in outcomes] == [expected for _, expected in outcomes]
    assert len(refused.told("the scheme is none of the client's")) == 7


# ---- names


def test_names_must_cover_the_key(stack):
    """Where the SNI is only claimed, a key is refused unless all its names are the client's; the start says for which
    keys that is so, and with the whole handshake it is signed for the names that are."""
    mine = entry(keys=["demo", "p256"], names=["demo.example", "p256.example"])
    server = start(stack, mine)
    (told,) = server.find("key with whole transcripts only")
    assert (told["client"], told["key"]) == ("DNS:edge1.example", "demo")
    sni = lambda name: {"items": [(Tag.SNI, name)]}
    refused = Refused(server)
    with Peer(server.port) as peer:
        demo, p256 = site_key("demo"), site_key("p256")
        assert peer.sign_tls13(demo, 0x0403, bytes(32), **sni(b"demo.example")).error == Error.POLICY
        assert peer.sign_tls12(demo, 0x0403, bytes(32), MARKED, X25519, **sni(b"demo.example")).error == Error.POLICY
        refused.told("the key's certificates have names that the client has not")
        assert peer.sign_tls13(p256, 0x0403, bytes(32), **sni(b"P256.example")).opcode == Op.SUCCESS
        messages = b"".join(record("demo", "demo.example"))
        assert peer.with_key(Op.SIGN_TRANSCRIPT, demo, b"\x04\x03" + messages).opcode == Op.SUCCESS
        refused = Refused(server)
        for name in (b"localhost", b"", b"a.demo.example", b"a" * 256):
            assert peer.sign_tls13(p256, 0x0403, bytes(32), **sni(name)).error == Error.POLICY
        edge2_is_served(server)
    refused.told("the SNI is none of the client's names")


def test_no_name(stack):
    """A handshake without SNI is for those whose names have ""."""
    server = start(stack, entry(names=["", "p256.example"]))
    with Peer(server.port) as peer:
        assert peer.sign_tls13(site_key("p256"), 0x0403, bytes(32)).opcode == Op.SUCCESS
    server.config["clients"][0]["names"] = ["p256.example"]
    server.reload()
    with Peer(server.port) as peer:
        assert peer.sign_tls13(site_key("p256"), 0x0403, bytes(32)).error == Error.POLICY


# ---- alpn


@pytest.mark.parametrize("allowed, passed", [(["h2"], {"h2"}), (["http/1.1", ""], {"http/1.1", None})])
def test_alpn(stack, allowed, passed):
    """The protocol that the transcript agrees on; none is one only where "" is listed."""
    server = start(stack, entry(alpn=allowed))
    refused = Refused(server)
    with Peer(server.port) as peer:
        for protocol in ("h2", "http/1.1", None):
            messages = record("p256", "p256.example", protocols=[protocol] if protocol else [])
            answer = sign(peer, "p256", messages)
            assert answer.error == (None if protocol in passed else Error.POLICY), protocol
        edge2_is_served(server)
    refused.told("the protocol is none of the client's")


def test_acme_is_never_signed_for(stack):
    server = start(stack, entry(alpn=[]))
    refused = Refused(server)
    with Peer(server.port) as peer:
        assert sign(peer, "p256", record("p256", "p256.example", protocols=["acme-tls/1"])).error == Error.POLICY
    refused.told("the protocol is acme-tls/1")


# ---- deny


def closed_after_handshake(server, name="edge1"):
    with Peer(server.port, name) as peer:
        assert peer.until_closed() == ([], "in good order")


def test_deny(stack):
    """The first match wins: a later entry does not let in what an earlier one denies."""
    server = stack.key_server(clients=[
        {"match": "DNS:edge1.example", "deny": True},
        {"match": "CN:edge1.example", "keys": ["*"]},
        EVERYTHING,
    ])
    closed_after_handshake(server)
    line = server.wait_for("client refused")
    assert (line["client"], line["reason"]) == ("DNS:edge1.example", "its client entry denies it")
    assert "DNS:edge1.example" in line["certificate"]
    assert server.metric("keyless_keyserver_connections_refused_total", reason="denied") == 1
    assert server.metric("keyless_keyserver_connections_refused_total", reason="no_client_entry") == 0
    edge2_is_served(server)
    wait_until(lambda: server.metric("keyless_keyserver_connections") == 0, "no connection to be left")


def test_deny_by_reload(stack):
    """A client that a reload denies is gone from its open connections too."""
    server = start(stack, entry())
    with Peer(server.port) as peer, Peer(server.port, "edge2") as other:
        assert peer.sign_tls13(site_key("p256"), 0x0403, bytes(32)).opcode == Op.SUCCESS
        server.config["clients"][0]["deny"] = True
        server.reload()
        assert peer.until_closed() == ([], "in good order")
        assert other.until_closed() == ([], "in good order")
    closed_after_handshake(server)
    edge2_is_served(server)


# ---- rate


def listing(number):
    return kssl.message(number, Op.LIST, b"")


def signing(number, name="p256"):
    payload = kssl.sign_tls13(0x0403, number.to_bytes(32, "big"))
    return kssl.message(number, Op.SIGN_TLS13, payload, [(Tag.SKI, kssl.ski(site_key(name)))])


def outcomes(answers):
    return collections.Counter(answer.error for answer in answers)


def test_rate(stack):
    """Twice the rate at once, over all connections and front ends together; then no more than the rate. Others do not
    notice, and pings and hello are free."""
    rate = 40
    server = start(stack, entry(allow=["tls13", "list"], rate=rate), workers=3)
    refused = Refused(server, Error.RATE)
    with contextlib.ExitStack() as opened:
        peers = [opened.enter_context(Peer(server.port)) for _ in range(6)]
        began = time.monotonic()
        counts = collections.Counter()
        for turn in range(4):
            for peer in peers:
                counts += outcomes(peer.pipeline([signing(n) for n in range(10)] + [listing(n) for n in range(10)]))
            edge2_is_served(server)
        took = time.monotonic() - began
        assert set(counts) == {None, Error.RATE} and counts.total() == 480
        # All that the clock can have brought, and at least the burst.
        assert 2 * rate <= counts[None] <= 2 * rate + rate * took + 2
        assert all(peer.ping().opcode == Op.PONG and peer.hello().opcode == Op.SUCCESS for peer in peers)
        places = {line["process"] for line in server.find("connection opened")}
        assert len(places) > 1, "all connections are with one front end"
        # After a while there is one again.
        wait_until(lambda: peers[0].raw_request(listing(1)).error is None, "the rate to allow one more")
    refused.told("over its rate")
    requests = server.metrics().sum("keyless_keyserver_requests_total", 'client="DNS:edge1.example"', 'outcome="error"')
    assert requests == refusals(server, Error.RATE)
    assert server.metric("keyless_keyserver_requests_forbidden_total") == 0


def exhaust(server):
    """Asks until it is refused; how many there were."""
    with Peer(server.port) as peer:
        for count in range(10000):
            if peer.raw_request(signing(count)).error == Error.RATE:
                return count
    raise AssertionError("never refused")


def test_rate_tells_nothing_early(stack):
    """Over it, a request is refused before it is looked at; but an operation that is not allowed stays that."""
    server = start(stack, entry(allow=["tls13"], rate=1))
    exhaust(server)
    with Peer(server.port) as peer:
        answers = [peer.with_key(Op.SIGN_TLS13, bytes(20), b"nonsense"), peer.listing(), peer.ping(b"x")]
    assert [answer.error for answer in answers] == [Error.RATE, Error.BAD_OPCODE, None]


def test_rate_in_part_a(stack):
    """Peers that know Part A alone are told what they know: not tried, an internal error."""
    server = start(stack, entry(allow=["tls13", "digest"], rate=1))
    mark = server.mark()
    exhaust(server)
    with Peer(server.port) as peer:
        assert peer.with_key(Op.ECDSA_SHA256, site_key("p256"), bytes(32)).error == Error.INTERNAL
        peer.hello()
        assert peer.with_key(Op.ECDSA_SHA256, site_key("p256"), bytes(32)).error == Error.RATE
    lines = server.find("request refused", mark)
    assert {line["reason"] for line in lines} == {"over its rate"}
    assert refusals(server, Error.RATE) == len(lines) == 3


def test_rate_survives_reload(stack):
    """Reloading fills no bucket, and neither does the death of a process."""
    server = start(stack, entry(rate=1), workers=2)
    exhaust(server)
    began = time.monotonic()
    for kind in ("frontend", "signer"):
        server.reload()
        for child in server.children(kind):
            child.signal(signal.SIGKILL)
        wait_until(lambda: server.readiness()[0] == 200, "the key server to be ready")
    again = wait_until(lambda: exhaust_if_served(server), "a front end to serve")[0]
    assert again <= time.monotonic() - began + 1


def exhaust_if_served(server):
    """As exhaust, in a list; nothing while connections are lost."""
    try:
        return [exhaust(server)]
    except (Closed, OSError):
        return None


def test_rate_of_another_entry(stack):
    """Each entry has its own."""
    other = {**EVERYTHING, "rate": 5}
    server = stack.key_server(clients=[entry(rate=1), other], certificates=CERTIFICATES, log={"rate": 0})
    exhaust(server)
    with Peer(server.port, "edge2") as peer:
        assert outcomes(peer.pipeline([signing(n) for n in range(10)])) == {None: 10}


# ---- connections, in_flight


def test_connections(stack):
    """Of all front ends together; one that has gone makes room for another."""
    server = start(stack, entry(connections=3), workers=3)
    with contextlib.ExitStack() as opened:
        peers = [opened.enter_context(Peer(server.port)) for _ in range(3)]
        assert all(peer.ping().opcode == Op.PONG for peer in peers)
        for count in range(1, 4):
            closed_after_handshake(server)
            assert server.metric("keyless_keyserver_connections_refused_total", reason="connections") == count
        edge2_is_served(server)
        lines = server.find("client refused", client="DNS:edge1.example")
        assert [line["reason"] for line in lines] == 3 * ["its client entry has as many connections as it may"]
        assert all(peer.sign_tls13(site_key("p256"), 0x0403, bytes(32)).opcode == Op.SUCCESS for peer in peers)
        peers[0].close()
        server.wait_for("connection closed", client="DNS:edge1.example")
        with Peer(server.port) as another:
            assert another.ping().opcode == Op.PONG
            closed_after_handshake(server)


def test_connections_of_a_dead_front_end(stack):
    """They no longer count when it is replaced."""
    server = start(stack, entry(connections=2), workers=2)
    with Peer(server.port) as one, Peer(server.port) as two:
        assert one.ping().opcode == two.ping().opcode == Op.PONG
        for child in server.children("frontend"):
            child.signal(signal.SIGKILL)

        def both():
            with contextlib.suppress(Closed, OSError), Peer(server.port) as three, Peer(server.port) as four:
                return three.ping().opcode == four.ping().opcode == Op.PONG

        wait_until(both, "two connections")
        assert [peer.until_closed()[0] for peer in (one, two)] == [[], []]


def test_in_flight(stack):
    """Past it, none of the entry's connections is read from, and nobody is refused: everything is answered when its turn
    has come. Others are read from meanwhile."""
    server = start(stack, entry(allow=["tls13", "list"], in_flight=8), queues={"deadline": "60s"})
    pending = lambda: server.metric("keyless_keyserver_requests_pending")
    with contextlib.ExitStack() as opened:
        first, second, third = peers = [opened.enter_context(Peer(server.port)) for _ in range(3)]
        assert all(peer.raw_request(signing(0)).error is None for peer in peers)
        (signer,) = server.children("signer")
        signer.signal(signal.SIGSTOP)
        first.send(b"".join(signing(n) for n in range(100)))
        wait_until(lambda: pending() == 8, "8 requests in flight")
        second.send(b"".join(signing(n) for n in range(100)))
        third.send(kssl.message(7, Op.PING, b"waits"))
        with Peer(server.port, "edge2") as other:
            other.send(b"".join(signing(n) for n in range(20)))
            assert other.ping(b"x", request_id=99).payload == b"x"
            assert pending() == 8 + 20
            signer.signal(signal.SIGCONT)
            assert outcomes(other.receive() for _ in range(20)) == {None: 20}
        assert outcomes(first.receive() for _ in range(100)) == {None: 100}
        assert outcomes(second.receive() for _ in range(100)) == {None: 100}
        assert third.receive().payload == b"waits"
        wait_until(lambda: pending() == 0, "nothing to be in flight")
    assert not server.find("request refused")


def test_in_flight_of_one(stack):
    """Even one at a time gets through everything, of many connections on several front ends."""
    server = start(stack, entry(in_flight=1), workers=2)
    with contextlib.ExitStack() as opened:
        peers = [opened.enter_context(Peer(server.port)) for _ in range(8)]
        for peer in peers:
            peer.send(b"".join(signing(n) for n in range(50)))
        assert sum((outcomes(peer.receive() for _ in range(50)) for peer in peers), collections.Counter()) == {None: 400}


def test_in_flight_of_one_that_leaves(stack):
    """What it had asked no longer keeps the others waiting."""
    server = start(stack, entry(in_flight=2), queues={"deadline": "60s"})
    with Peer(server.port) as waiting, Peer(server.port) as leaving:
        assert waiting.ping().opcode == leaving.ping().opcode == Op.PONG
        (signer,) = server.children("signer")
        signer.signal(signal.SIGSTOP)
        leaving.send(b"".join(signing(n) for n in range(3)))
        wait_until(lambda: server.metric("keyless_keyserver_requests_pending") == 2, "2 requests in flight")
        waiting.send(signing(1))
        leaving.raw.close()
        signer.signal(signal.SIGCONT)
        assert waiting.receive().error is None
        assert waiting.raw_request(signing(2)).error is None


# ---- What the proxy makes of it.

REFUSED_BY_POLICY = {
    # what the entry is bounded to, in which modes of the proxy's that is seen
    "names": ({"names": ["p384.example"]}, ["transcript", "tbs"]),
    "every name of the key": ({"names": ["demo.example", "p384.example"]}, ["tbs"]),
    "schemes": ({"schemes": ["ecdsa_secp384r1_sha384"]}, ["transcript", "tbs"]),
    "alpn": ({"alpn": ["h3"]}, ["transcript"]),
}


@pytest.mark.parametrize("bound, mode", [(bound, mode) for bound, (_, modes) in REFUSED_BY_POLICY.items()
                                         for mode in modes])
def test_client_of_the_proxy_is_refused_at_once(stack, bound, mode):
    """With an alert, a line and a count that name the error; what is allowed is served."""
    server = start(stack, entry(allow=["tls13", "tls12"], **REFUSED_BY_POLICY[bound][0]))
    proxy = stack.proxy(server, key_servers=[{"name": "keys-a", "address": f"127.0.0.1:{server.port}",
                                              "server_name": "keys.example", "mode": mode}])
    proxy.wait_tried()
    gains, theirs = Gains(proxy), Gains(server)
    name = "demo.example" if bound == "every name of the key" else "p256.example"
    assert refused(proxy, name) < 2
    line = proxy.wait_for("handshake failed")
    assert (line["stage"], line["reason"], line["sni"]) == ("key", "refused by policy", name)
    gains.assert_gained("keyless_key_errors_total", server="keys-a", error="0x40", reason="refused by policy")
    gains.assert_failures(key_error=1)
    theirs.assert_gained("keyless_keyserver_refusals_total", error=f"0x{Error.POLICY:02X}")
    if bound != "alpn":
        served(proxy, "p384.example")


def test_client_of_the_proxy_over_the_rate(stack):
    """An alert at once, never a second try; others are served when there is room again."""
    server = start(stack, entry(allow=["tls13", "tls12"], rate=1))
    proxy = stack.proxy(server, certificates=[{"file": str(SITES / "chains" / "p256.pem")}], tls=None)
    proxy.wait_tried()
    time.sleep(2)  # what that has cost of the rate is there again
    gains = Gains(proxy)
    served(proxy)
    served(proxy)
    assert refused(proxy) < 2
    assert proxy.wait_for("handshake failed")["reason"] == "over its rate"
    gains.assert_gained("keyless_key_errors_total", server="keys-a", error="0x42", reason="over its rate")
    gains.assert_failures(key_error=1)
    assert refusals(server, Error.RATE) == 1, "it was asked again"

    def again():
        with contextlib.suppress(ssl.SSLError):
            served(proxy)
            return True

    wait_until(again, "the rate to allow one more")


# ---- replay


def replays(server, outcome):
    return server.metric("keyless_keyserver_replays_total", outcome=outcome)


def test_a_replay_is_seen(stack):
    """What another client had asked for, and what the same one asks for again when it is too late for a retry: signed all
    the same, told and counted."""
    server = start(stack, entry(allow=["tls13", "digest"]))
    key, mark = site_key("p256"), server.mark()
    with Peer(server.port) as mine, Peer(server.port, "edge2") as other:
        for _ in range(3):
            assert mine.sign_tls13(key, 0x0403, bytes(32)).opcode == Op.SUCCESS
        assert mine.sign_tls13(key, 0x0403, b"another".ljust(32)).opcode == Op.SUCCESS
        assert replays(server, "signed") == 0 and not server.find("request replayed", mark)
        assert other.sign_tls13(key, 0x0403, bytes(32)).opcode == Op.SUCCESS
        line = server.wait_for("request replayed", mark, client="DNS:edge2.example", outcome="signed")
        assert line["operation"] == "sign-tls13" and line["key"] == kssl.ski(key).hex()
        assert replays(server, "signed") == 1
        wait_until(lambda: mine.sign_tls13(key, 0x0403, bytes(32)).opcode == Op.SUCCESS and replays(server, "signed") > 1,
                   "a retry to come too late")
        assert server.find("request replayed", mark, client="DNS:edge1.example")


def test_a_replay_is_refused(stack):
    """Whatever connection it comes on; others, and what is new, are served."""
    server = start(stack, entry(replay="refuse"))
    key = site_key("p256")
    with Peer(server.port, "edge2") as other:
        assert other.sign_tls13(key, 0x0403, bytes(32)).opcode == Op.SUCCESS
    seen = Refused(server, Error.REPLAY)
    with Peer(server.port) as mine:
        for _ in range(2):
            assert mine.sign_tls13(key, 0x0403, bytes(32)).error == Error.REPLAY
        assert mine.sign_tls13(key, 0x0403, b"new".ljust(32)).opcode == Op.SUCCESS
    seen.told("replay")
    assert replays(server, "refused") == 2 and replays(server, "signed") == 0
    edge2_is_served(server)
