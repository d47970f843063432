"""mode: digest, for key servers that know only Part A of the protocol: every key type and version, what goes over the
wire, and how such servers behave. And our own key server, for a client that may have digests signed."""

import ssl

import pytest

import clients
import fake_key_server as fake
import key_server_faults as faults
import kssl_codec as kssl
from counters import Gains
from harness import curl, s_client, wait_until
from kssl_codec import Error, Op
from watched import LONG, TIMEOUT, Watched, at_once, key_channel, refused, request_series, served

VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}

# site, version: the operation that a client without wishes leads to. TLS 1.2 binds no hash to a curve.
KEYS = {
    ("rsa2048", "1.2"): Op.RSA_PSS_SHA256, ("rsa2048", "1.3"): Op.RSA_PSS_SHA256,
    ("p256", "1.2"): Op.ECDSA_SHA256, ("p256", "1.3"): Op.ECDSA_SHA256,
    ("p384", "1.2"): Op.ECDSA_SHA256, ("p384", "1.3"): Op.ECDSA_SHA384,
    ("p521", "1.2"): Op.ECDSA_SHA256, ("p521", "1.3"): Op.ECDSA_SHA512,
    ("ed25519", "1.2"): Op.ED25519, ("ed25519", "1.3"): Op.ED25519,
}

# site, version, what the client can verify: the operation
SCHEMES = {
    ("rsa2048", "1.2", "rsa_pkcs1_sha256"): Op.RSA_SHA256,
    ("rsa2048", "1.2", "rsa_pkcs1_sha384"): Op.RSA_SHA384,
    ("rsa2048", "1.2", "rsa_pkcs1_sha512"): Op.RSA_SHA512,
    ("rsa2048", "1.2", "rsa_pss_rsae_sha512"): Op.RSA_PSS_SHA512,
    ("rsa2048", "1.3", "rsa_pss_rsae_sha384"): Op.RSA_PSS_SHA384,
    ("rsa2048", "1.3", "rsa_pss_rsae_sha512"): Op.RSA_PSS_SHA512,
    ("p256", "1.2", "ecdsa_secp384r1_sha384"): Op.ECDSA_SHA384,
    ("p384", "1.2", "ecdsa_secp521r1_sha512"): Op.ECDSA_SHA512,
}


def digest_proxy(stack, server, **channel):
    """A proxy that asks this key server for digests."""
    proxy = stack.proxy(server, start=False, key_channel=key_channel(**channel))
    proxy.config["key_servers"][0]["mode"] = "digest"
    return proxy.start()


def mixed(fault, *arguments):
    """A fault of a key server that knows only Part A."""
    return type(f"PartA{fault.__name__}", (fault, fake.PartA), {})(*arguments)


@pytest.fixture
def world(stack):
    server = stack.fake_key_server(fake.PartA())
    watched = Watched(digest_proxy(stack, server))
    yield server, watched
    assert not server.errors and not server.violations, (server.errors, server.violations)


@pytest.fixture
def patient(stack):
    """The same with a long deadline, where it is not to be waited for."""
    server = stack.fake_key_server(fake.PartA())
    watched = Watched(digest_proxy(stack, server, timeout=f"{LONG:.0f}s"))
    yield server, watched
    assert not server.errors and not server.violations, (server.errors, server.violations)


@pytest.fixture(scope="module")
def part_a(module_stack):
    server = module_stack.fake_key_server(fake.PartA())
    proxy = digest_proxy(module_stack, server, timeout="5s")
    proxy.wait_tried()
    yield server, proxy
    assert not server.errors and not server.violations, (server.errors, server.violations)


@pytest.fixture(scope="module")
def ours(module_stack):
    """Our key server, with a client entry that has nothing but digests."""
    server = module_stack.key_server(clients=[{"match": "DNS:edge1.example", "keys": ["*"], "allow": ["digest"]}])
    return server, digest_proxy(module_stack, server, timeout="5s")


class LessThanPartA(fake.PartA):
    """Knows no ECDSA."""

    def signature(self, request):
        if request.opcode in (Op.ECDSA_SHA256, Op.ECDSA_SHA384, Op.ECDSA_SHA512):
            raise fake.Refused(Error.BAD_OPCODE)
        return super().signature(request)


class Holds(fake.PartA):
    """Answers nothing until it has as many requests as a client may send, and then waits a little for one too many."""

    in_flight = 8

    def __init__(self):
        self.most = 0

    async def sign(self, link, request):
        link.held.append(request)
        self.most = max(self.most, len(link.held))
        if len(link.held) == self.in_flight:
            link.later(0.2, self.answer(link))

    async def answer(self, link):
        held, link.held = link.held, []
        for request in held:
            await super().sign(link, request)


def asked(server):
    return [request for _, request in list(server.requests) if request.opcode not in (Op.HELLO, Op.PING)]


@pytest.mark.parametrize("site, version", KEYS, ids=lambda value: value)
def test_each_key_and_version(part_a, site, version):
    server, proxy = part_a
    before = len(asked(server))
    answer = curl(f"{site}.example", proxy.port, f"--tlsv{version}", "--tls-max", version).json()
    assert answer["sni"] == f"{site}.example" and answer["key_server"] == "keys-a"
    (request,) = asked(server)[before:]
    assert request.opcode == KEYS[site, version]
    (key,) = [key for ski, key in fake.site_keys().items() if ski == request.get(kssl.Tag.SKI)]
    assert kssl.ski(key.public_key()) == request.get(kssl.Tag.SKI)


@pytest.mark.parametrize("site, version, scheme", SCHEMES, ids=lambda value: value)
def test_each_scheme(part_a, site, version, scheme):
    server, proxy = part_a
    before = len(asked(server))
    status, text = s_client(proxy.port, "-servername", f"{site}.example", "-verify_return_error",
                            f"-tls{version.replace('.', '_')}", "-sigalgs", f"{scheme}:rsa_pkcs1_sha256"
                            if site != "rsa2048" else scheme)
    assert status == 0, text
    (request,) = asked(server)[before:]
    assert request.opcode == SCHEMES[site, version, scheme]


@pytest.mark.parametrize("site, version", KEYS, ids=lambda value: value)
def test_our_key_server(ours, site, version):
    _, proxy = ours
    signed = proxy.metric("keyless_key_requests_total", outcome="ok")
    answer = curl(f"{site}.example", proxy.port, f"--tlsv{version}", "--tls-max", version).json()
    assert answer["sni"] == f"{site}.example"
    wait_until(lambda: proxy.metric("keyless_key_requests_total", outcome="ok") == signed + 1, "one more signature")


@pytest.mark.parametrize("version", VERSIONS)
def test_no_bare_operation_for_ed448(patient, version):
    server, watched = patient
    tls = clients.context(minimum_version=VERSIONS[version], maximum_version=VERSIONS[version])
    before = len(asked(server))
    assert refused(watched.proxy, "ed448.example", tls) < LONG
    watched.assert_failed("no bare operation has this signature scheme")
    watched.assert_counted(request_series("refused"), 1)
    assert len(asked(server)) == before
    watched.assert_whole()


def test_what_goes_over_the_wire(world):
    """Only tags of Part A's core, each once, always a payload item, everything padded: also hello."""
    server, watched = world
    served(watched.proxy)
    messages = [request for _, request in server.requests]
    # On a busy machine it may also have been asked whether it lives. Test requests are for all kinds of keys.
    assert {request.opcode for request in messages} - {Op.PING} == {
        Op.HELLO, Op.ECDSA_SHA256, Op.ECDSA_SHA384, Op.ECDSA_SHA512, Op.RSA_PSS_SHA256, Op.ED25519}
    for request in messages:
        assert set(request.tags) <= kssl.PART_A_TAGS
        assert (request.major, request.minor, request.size) == (1, 0, kssl.PAD_TO)
        assert request.payload is not None
    last = asked(server)[-1]
    assert len(last.payload) == 32
    assert last.get(kssl.Tag.SNI) == b"p256.example"
    assert last.get(kssl.Tag.CLIENT_IP) == bytes([127, 0, 0, 1])


def test_our_key_server_that_does_not_allow_it(stack):
    """It says so in its hello, and is not even asked."""
    server = stack.key_server()
    proxy = digest_proxy(stack, server, timeout=f"{LONG:.0f}s")
    wait_until(lambda: proxy.metric("keyless_key_channels_up") == 1, "the channel to be up")
    gains = Gains(proxy)
    assert refused(proxy) < LONG
    proxy.wait_for("handshake failed", stage="key", reason="operation not offered by key server")
    gains.assert_failures(key_refused=1)
    gains.assert_gained("keyless_key_requests_total", server="none", outcome="refused")


def test_key_server_without_the_operation(patient):
    """One that knows less than all of Part A answers 0x05: the client gets an alert at once, other keys are served."""
    server, watched = patient
    server.behaviour = LessThanPartA()
    assert refused(watched.proxy) < LONG
    watched.assert_failed("bad opcode")
    served(watched.proxy, "rsa2048.example")
    watched.assert_counted(request_series("error"), 1)
    server.behaviour = fake.PartA()
    watched.assert_whole()


def test_many_at_once(patient):
    server, watched = patient
    for name in ("p256.example", "rsa2048.example"):
        at_once(watched.proxy, 8, name)
    watched.assert_counted(request_series("ok"), 16)
    watched.assert_whole()


def test_no_more_in_flight_than_the_server_takes(stack):
    """key_channel.in_flight keeps within such a server's bound; whoever is past it waits for an answer, and is served."""
    server = stack.fake_key_server(fake.PartA())
    watched = Watched(digest_proxy(stack, server, in_flight=8, timeout="9s"))
    server.behaviour = held = Holds()
    at_once(watched.proxy, 24)
    assert held.most == 8 and not server.violations, (held.most, server.violations)
    watched.assert_counted(request_series("ok"), 24)
    server.behaviour = fake.PartA()
    watched.assert_whole()


def test_closed_for_idleness(stack):
    """Such servers close in silence what is idle; the next client is served over the next channel."""
    behaviour = fake.PartA()
    behaviour.idle_timeout = 0.3
    server = stack.fake_key_server(behaviour)
    watched = Watched(digest_proxy(stack, server, timeout="5s"))
    watched.assert_logged("key server lost", server="keys-a")
    for _ in range(3):
        served(watched.proxy)
        lost = server.accepted
        wait_until(lambda n=lost: server.accepted > n, "a new channel")
    assert watched.proxy.metric("keyless_handshakes_total", outcome="key") == 0
    server.behaviour = fake.PartA()
    watched.assert_whole()


def test_kept_from_idleness(stack):
    """A server that closes after 30 s without a request never sees them: it is pinged before."""
    behaviour = fake.PartA()
    behaviour.idle_timeout = 30
    server = stack.fake_key_server(behaviour)
    watched = Watched(digest_proxy(stack, server))
    wait_until(lambda: server.count(Op.PING) > 0, "a ping", timeout=28)
    served(watched.proxy)
    assert server.accepted == 1 and not server.violations
    watched.assert_whole()


def test_closed_on_a_request(world):
    server, watched = world
    server.behaviour = mixed(faults.ClosesOnRequest, 2)
    served(watched.proxy)
    watched.assert_counted("keyless_key_requests_resent_total", 2)
    watched.assert_whole()


@pytest.mark.parametrize("site", ["p256", "rsa2048", "ed25519"])
def test_wrong_signature(patient, site):
    """Checked like any other."""
    server, watched = patient
    server.behaviour = mixed(faults.Corrupted, lambda signature: signature[:-1] + bytes([signature[-1] ^ 1]))
    assert refused(watched.proxy, f"{site}.example") < LONG
    watched.assert_failed("wrong signature from key server")
    watched.assert_counted(request_series("wrong"), 1)
    server.behaviour = fake.PartA()
    watched.assert_whole()


@pytest.mark.parametrize("error", [Error.BAD_OPCODE, Error.UNEXPECTED_OPCODE, Error.INTERNAL])
def test_hello_answered_with_an_error(stack, error):
    server = stack.fake_key_server(mixed(faults.HelloError, error))
    watched = Watched(digest_proxy(stack, server))
    served(watched.proxy)
    watched.assert_counted(request_series("ok"), 1)
    assert watched.proxy.metric("keyless_key_connects_failed_total") == 0
    watched.assert_whole()
    assert server.accepted == 1 and not server.violations


@pytest.mark.parametrize("fault", [faults.NeverSigns, faults.Dead], ids=["never signs", "dead"])
def test_no_answer(world, fault):
    server, watched = world
    server.behaviour = mixed(fault)
    assert refused(watched.proxy) > TIMEOUT * 0.9
    watched.assert_failed("key server timeout")
    watched.assert_counted(request_series("timeout"), 1)
    if fault is faults.Dead:
        watched.assert_counted('keyless_key_channels_lost_total{server="keys-a"}', 1)
    server.behaviour = fake.PartA()
    watched.assert_whole()
