"""OCSP responses stapled: fetched from a responder that the tests run, in all the ways in which responders go wrong, or taken
from files; what clients see, what the log says, what the metrics count."""

import datetime
import signal
import time

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

import harness
import ocsp_responder
import renewals
from harness import wait_until
from ocsp_responder import MUST_STAPLE, Responder, names_responder, shown, wait_shown

TAKEN = "OCSP response taken"
NOT_TAKEN = "OCSP response not taken"
ENDED = "OCSP response has ended"
REVOKED = "certificate is revoked"
WAITS = "certificate waits for its OCSP response"


class World:
    """Chains of a CA with a responder, and a proxy that fetches; extensions: of a.example's certificate."""

    def __init__(self, stack, directory, behaviour="good", ocsp=None, extensions=(), start=True, mode="tbs", **changes):
        directory.mkdir(exist_ok=True)
        self.sites = renewals.Sites(directory, names=())
        self.responder = Responder(self.sites.authority, behaviour)
        stack.others.append(self.responder)
        self.names = names_responder(self.responder.url)
        self.put("a.example", *extensions)
        self.ca = str(directory / "ca.pem")
        self.key_server = stack.key_server(keys=[{"dir": str(self.sites.keys)}], certificates=[{"dir": str(self.sites.chains)}],
                                           clients=[{"match": "DNS:edge1.example", "keys": ["*"],
                                                     "allow": ["tls13", "tls12", "transcript", "list"]}])
        settings = {"source": "fetch", "refresh": "1s", "timeout": "2s"} if ocsp is None else ocsp
        server = {"address": f"127.0.0.1:{self.key_server.port}", "server_name": "keys.example", "mode": mode}
        self.proxy = stack.proxy(self.key_server, start=start, certificates=[{"dir": str(self.sites.chains)}], key_servers=[server],
                                 tls={"default": "a.example", "ocsp": settings, **changes.pop("tls", {})}, **changes)

    def chain(self, name, *extensions):
        pem = self.sites.chain(name, extensions=[self.names, *extensions])
        self.responder.knows(pem)
        return pem

    def put(self, name, *extensions):
        pem = self.chain(name, *extensions)
        self.sites.path(name).write_bytes(pem)
        return pem

    def put_response(self, name, pem, **settings):
        """In its file beside the chain."""
        leaf = self.responder.knows(pem)
        self.staple_path(name).write_bytes(self.responder.response(leaf, **settings))

    def staple_path(self, name):
        return self.sites.chains / f"{name}.pem.ocsp"

    def shown(self, name="a.example", *options):
        return shown(self.proxy.port, name, *options)

    def wait_shown(self, status, name="a.example", *options, timeout=None):
        wait_shown(self.proxy.port, name, status, *options, timeout=timeout)

    def counted(self, outcome):
        return self.proxy.metric("keyless_ocsp_responses_total", outcome=outcome)

    def chains(self, state):
        return self.proxy.metric("keyless_ocsp_chains", state=state)

    def curl(self, name="a.example", *options):
        """Which wants a good response, and verifies it."""
        return harness.curl(name, self.proxy.port, "--cacert", self.ca, "--cert-status", *options)


# ---- Fetched.


@pytest.mark.parametrize("mode", ["transcript", "tbs"])
@pytest.mark.parametrize("behaviour", ["good", "delegated", "only by POST"])
def test_good(stack, tmp_path, behaviour, mode):
    """Clients that verify the response take it, in both versions; those that do not ask get none."""
    world = World(stack, tmp_path, behaviour, mode=mode)
    world.wait_shown("good")
    for version in ("1.2", "1.3"):
        answer = world.curl("a.example", f"--tlsv{version}", "--tls-max", version)
        assert answer.status == 0, answer.error
    before = world.proxy.metric("keyless_handshakes_stapled_total")
    assert before >= 3
    assert harness.curl("a.example", world.proxy.port, "--cacert", world.ca).status == 0
    assert world.proxy.metric("keyless_handshakes_stapled_total") == before
    assert world.chains("good") == 1 and world.chains("missing") == 0
    told = world.proxy.status()["certificates"][0]
    ends = datetime.datetime.fromisoformat(told["ocsp_next_update"].rstrip("Z")) - datetime.datetime.utcnow()
    assert told["ocsp"] == "good" and 3500 < ends.total_seconds() <= 3600
    if behaviour != "only by POST":
        assert world.counted("failed") == 0 and not world.proxy.find(NOT_TAKEN)
        assert {method for method, _, _ in world.responder.requests} == {"GET"}


def test_first_client(stack, tmp_path):
    """The proxy does not begin before the response is there, nor after a reload, nor in a new worker."""
    world = World(stack, tmp_path, workers=2)
    assert world.shown() == "good"
    world.proxy.reload()
    world.responder.behaviour = "stalls"
    for _ in range(2):
        world.proxy.reload()
        assert [world.shown() for _ in range(5)] == ["good"] * 5
    before = {worker.pid for worker in world.proxy.children("worker")}
    for worker in world.proxy.children("worker"):
        worker.signal(signal.SIGKILL)
    wait_until(lambda: len({worker.pid for worker in world.proxy.children("worker")} - before) == 2, "new workers")
    world.wait_shown("good")


def test_responder_down_at_the_start(stack, tmp_path):
    """Clients are served without; the response is stapled as soon as it is there."""
    world = World(stack, tmp_path, "stalls")
    assert world.shown() is None
    assert world.curl().status == 91  # no status
    assert harness.curl("a.example", world.proxy.port, "--cacert", world.ca).status == 0
    assert world.chains("missing") == 1
    line = world.proxy.wait_for(NOT_TAKEN, file="a.example.pem")
    assert "no answer within" in line["reason"]
    world.responder.behaviour = "good"
    world.responder.stalled.set()
    world.wait_shown("good")
    assert world.proxy.wait_for(TAKEN)["level"] == "info"


# What a responder may do, and what the log says of it.
BAD = {
    "unknown": "does not know the certificate",
    "out of date": "out of date",
    "in the future": "not in force yet",
    "older": "older than the one before it",
    "without an end": "no nextUpdate",
    "forged": "not signed by the issuer",
    "delegated without the usage": "not signed by the issuer",
    "by another of the name": "not signed by the issuer",
    "delegated by another": "not signed by the issuer",
    "about another": "about another certificate",
    "by SHA-256": "another digest than SHA-1",
    "try later": "the responder says: trylater",
    "unauthorized": "the responder says: unauthorized",
    "garbage": "does not parse",
    "text": "does not parse",
    "empty": "expected 1 .. 4096",
    "huge": "too long",
    "error": "HTTP status 500",
    "redirect": "HTTP status 302",
    "closes": "closed",
    "is cut": "closed",
    "no HTTP": "no HTTP",
    "stalls": "no answer within ocsp.timeout",
    "trickles": "no answer within ocsp.timeout",
    "continues": "no answer within ocsp.timeout",
    "a chunk without end": "no answer within ocsp.timeout",
}


# Octets. ASan keeps what is freed: there this says nothing.
HELPER_MAX = None if harness.SANITIZED else 60_000_000
# What would make the helper grow is tried without ASan, too. It keeps a core busy: for one at a time.
FLOODS = {"continues", "a chunk without end", "huge"}


BAD_FROM_THE_START = sorted(set(BAD) - FLOODS - {"older"})


class Crowd:
    """One proxy with two names for most of them: one's responder was good at first, the other's never."""

    def __init__(self, stack, directory):
        self.world = World(stack, directory, start=False)
        self.leafs = {}
        for number, behaviour in enumerate(BAD):
            self.put(f"good{number}.example")
            if behaviour in BAD_FROM_THE_START:
                self.put(f"bad{number}.example")
                self.behave(f"bad{number}.example", behaviour)
        self.world.proxy.start()

    def put(self, name):
        self.leafs[name] = self.world.responder.knows(self.world.put(name))

    def behave(self, name, behaviour):
        self.world.responder.behaviours[self.leafs[name].serial_number] = behaviour

    def file(self, name):
        return str(self.world.sites.path(name))


@pytest.fixture(scope="module")
def crowd(module_stack, tmp_path_factory):
    """All of the first kind had a good response; then they go wrong at the same time, but for those that keep a core busy."""
    made = Crowd(module_stack, tmp_path_factory.mktemp("crowd"))
    goods = {behaviour: f"good{number}.example" for number, behaviour in enumerate(BAD)}
    for name in goods.values():
        made.world.wait_shown("good", name)
    made.mark = made.world.proxy.mark()
    for behaviour in set(BAD) - FLOODS:
        made.behave(goods[behaviour], behaviour)
    yield made
    made.world.responder.stalled.set()


@pytest.mark.parametrize("behaviour", BAD)
def test_bad_answer(crowd, behaviour):
    """The response that is there stays, and is shown, until a good one takes its place."""
    world, name = crowd.world, f"good{list(BAD).index(behaviour)}.example"
    after = world.proxy.mark() if behaviour in FLOODS else crowd.mark
    crowd.behave(name, behaviour)
    line = world.proxy.wait_for(NOT_TAKEN, after=after, file=crowd.file(name))
    assert BAD[behaviour] in line["reason"] and line["level"] == "warn", line
    assert world.shown(name) == "good" and world.curl(name).status == 0
    assert world.counted("failed") >= 1
    if behaviour in FLOODS:
        crowd.behave(name, "error")


def test_good_again(crowd):
    """Each was asked again and told once; the next good response is taken."""
    world = crowd.world
    for number, behaviour in enumerate(BAD):
        name = f"good{number}.example"
        lines = world.proxy.find(NOT_TAKEN, after=crowd.mark, file=crowd.file(name))
        reasons = [line["reason"] for line in lines]
        assert len(reasons) == len(set(reasons)), reasons
        wait_until(lambda: world.responder.asked(crowd.leafs[name]) >= 3, f"{name} to be asked again")
        crowd.behave(name, "good")
    for number in range(len(BAD)):
        assert world.proxy.wait_for(TAKEN, file=crowd.file(f"good{number}.example"), level="info")


@pytest.mark.release
def test_floods(stack, tmp_path):
    """The helper does not grow with what a responder sends without end, and goes on answering."""
    for behaviour in sorted(FLOODS):
        world = World(stack, tmp_path / behaviour.replace(" ", "-"), behaviour)
        assert BAD[behaviour] in world.proxy.wait_for(NOT_TAKEN)["reason"]
        wait_until(lambda: world.counted("failed") >= 2, "two attempts")
        assert world.shown() is None and not world.proxy.find(TAKEN)
        helper = world.proxy.children("helper")[0]
        assert HELPER_MAX is None or helper.resident() < HELPER_MAX
        world.responder.stalled.set()
        assert world.proxy.stop() == 0


@pytest.mark.parametrize("behaviour", BAD_FROM_THE_START)
def test_bad_from_the_start(crowd, behaviour):
    """Nothing that is no good is ever shown."""
    world, name = crowd.world, f"bad{list(BAD).index(behaviour)}.example"
    assert BAD[behaviour] in world.proxy.wait_for(NOT_TAKEN, file=crowd.file(name))["reason"]
    assert world.shown(name) is None
    assert not world.proxy.find(TAKEN, file=crowd.file(name))


def test_revoked(stack, tmp_path):
    """From then on nothing is stapled, though the good response would last; and again once it is no longer revoked."""
    world = World(stack, tmp_path)
    assert world.shown() == "good"
    world.responder.behaviour = "revoked"
    line = world.proxy.wait_for(REVOKED, file="a.example.pem")
    assert line["level"] == "error" and line["name"] == "a.example"
    assert world.shown() is None
    assert world.chains("revoked") == 1 and world.counted("revoked") >= 1
    assert world.proxy.status()["certificates"][0]["ocsp"] == "revoked"
    world.proxy.reload()
    assert world.shown() is None
    world.responder.behaviour = "good"
    world.wait_shown("good")


def test_revoked_without_an_end(stack, tmp_path):
    world = World(stack, tmp_path)
    assert world.shown() == "good"
    world.responder.behaviour = "revoked without an end"
    world.proxy.wait_for(REVOKED)
    assert world.shown() is None


def test_replay_after_a_revocation(stack, tmp_path):
    """When what said "revoked" has ended, an older good response is no better than it was."""
    world = World(stack, tmp_path, "revoked for a moment")
    world.proxy.wait_for(REVOKED)
    world.responder.behaviour = "older"
    assert "older than" in world.proxy.wait_for(NOT_TAKEN)["reason"]
    ended = time.monotonic() + 3
    wait_until(lambda: time.monotonic() > ended, "the revocation's response to end")
    world.responder.wait_asked(count=1)
    assert world.shown() is None and world.counted("good") == 0


def test_hello_retry_request(stack, tmp_path):
    """One handshake, one response."""
    world = World(stack, tmp_path, tls={"groups": "P-256"})
    assert world.shown("a.example", "-groups", "X25519:P-256") == "good"
    wait_until(lambda: world.proxy.metric("keyless_handshakes_stapled_total") == 1, "the handshake to be counted")


def test_never_stale(stack, tmp_path):
    """It is asked for again at half of its life, and shown to its end and no longer."""
    world = World(stack, tmp_path, ocsp={"source": "fetch", "timeout": "1s"}, start=False)
    world.responder.lasts = 8
    world.proxy.start()
    world.wait_shown("good")
    world.responder.wait_asked()
    world.responder.behaviour = "error"
    ends = datetime.datetime.fromisoformat(world.proxy.status()["certificates"][0]["ocsp_next_update"].rstrip("Z"))

    def is_over():
        begun = datetime.datetime.utcnow()
        status = world.shown()
        assert status == ("good" if begun < ends - datetime.timedelta(seconds=1) else status)
        return status is None

    wait_until(is_over, "the response to end")
    assert datetime.datetime.utcnow() >= ends
    begun = datetime.datetime.utcnow()
    assert world.shown() is None, f"shown again at {begun}, {ends} being its end"
    assert world.proxy.wait_for(ENDED, file="a.example.pem")["level"] == "error"
    assert world.chains("missing") == 1
    world.responder.behaviour = "good"
    world.wait_shown("good")


def test_one_dead_responder(stack, tmp_path):
    """With many chains, it keeps none of another's waiting."""
    world = World(stack, tmp_path, start=False, ocsp={"source": "fetch", "timeout": "5s"})
    dead = Responder(world.sites.authority, "stalls", address="127.0.0.2")
    stack.others.append(dead)
    for number in range(30):
        pem = world.sites.chain(f"d{number}.example", extensions=[names_responder(dead.url)])
        world.sites.path(f"d{number}.example").write_bytes(pem)
        dead.knows(pem)
    for number in range(30):
        world.put(f"l{number}.example")
    world.proxy.start()
    wait_until(lambda: world.chains("good") == 31, "all chains of the live responder")
    assert world.chains("missing") == 30
    dead.stalled.set()


def test_renewed_certificate(stack, tmp_path):
    """The new chain has its own response."""
    world = World(stack, tmp_path)
    assert world.shown() == "good"
    pem = world.put("a.example")
    world.sites.wait_shown(world.proxy.port, "a.example", pem)
    world.wait_shown("good")
    assert world.curl().status == 0
    assert not world.proxy.find(NOT_TAKEN)


def test_helper_replaced(stack, tmp_path):
    """It goes on where the last one was."""
    world = World(stack, tmp_path)
    assert world.shown() == "good"
    asked = len(world.responder.requests)
    for helper in world.proxy.children("helper"):
        helper.signal(signal.SIGKILL)
    assert world.shown() == "good"
    wait_until(lambda: len(world.responder.requests) > asked + 1, "the new helper to ask")
    assert world.shown() == "good"


def test_named_responder(stack, tmp_path):
    """Instead of the one in the certificate; without an admin address, too; by name."""
    world = World(stack, tmp_path, start=False)
    port = world.responder.url.rpartition(":")[2].partition("/")[0]
    world.names = names_responder("http://127.0.0.1:1/")
    world.put("a.example")
    world.proxy.config["tls"]["ocsp"]["responder"] = f"http://localhost:{port}/"
    world.proxy.config["admin"] = {}
    world.proxy.start()
    world.wait_shown("good")


@pytest.mark.parametrize(
    "url, reason",
    [
        (None, None),
        ("ldap://127.0.0.1/", None),
        ("https://127.0.0.1/", None),
        ("http://127.0.0.1:1/", "cannot connect"),
        ("http://u:p@127.0.0.1/", "a user's name"),
    ],
)
def test_no_responder(stack, tmp_path, url, reason):
    """That a certificate names none, as many do, is no failure of anybody's."""
    world = World(stack, tmp_path, start=False)
    extensions = [names_responder(url)] if url else []
    world.sites.path("a.example").write_bytes(world.sites.chain("a.example", extensions=extensions))
    world.proxy.start()
    if reason is not None:
        assert reason in world.proxy.wait_for(NOT_TAKEN)["reason"]
        assert world.chains("missing") == 1
    else:
        assert world.proxy.wait_for("certificate names no OCSP responder", file="a.example.pem")["level"] == "info"
        assert world.chains("none") == 1 and world.chains("missing") == 0 and world.counted("failed") == 0
        assert world.proxy.status()["certificates"][0]["ocsp"] == "none"
    assert world.shown() is None


def test_no_issuer(stack, tmp_path):
    """Nothing can be verified without."""
    world = World(stack, tmp_path, start=False)
    path = world.sites.path("a.example")
    path.write_bytes(path.read_bytes().split(b"-----END CERTIFICATE-----\n")[0] + b"-----END CERTIFICATE-----\n")
    world.proxy.start()
    assert "has no issuer behind" in world.proxy.wait_for(NOT_TAKEN)["reason"]
    assert world.shown() is None


def test_sites(stack, tmp_path):
    """Each site has its own setting, or the general one."""
    world = World(stack, tmp_path, start=False, ocsp={"source": "off"})
    for name in ("b.example", "c.example"):
        world.put(name)
    world.proxy.config["sites"] = [
        {"names": ["b.example"], "ocsp": {"source": "fetch", "refresh": "1s"}},
        {"names": ["c.example"], "ocsp": "off"},
    ]
    world.proxy.start()
    world.wait_shown("good", "b.example")
    assert world.shown("a.example") is None and world.shown("c.example") is None
    world.proxy.config["tls"]["ocsp"] = {"source": "fetch"}
    world.proxy.reload()
    world.wait_shown("good", "a.example")
    assert world.shown("b.example") == "good" and world.shown("c.example") is None
    assert world.chains("good") == 2


def test_gnutls_must_staple(stack, tmp_path):
    """A client that knows of must-staple refuses the certificate without a response, and takes it with one."""
    world = World(stack, tmp_path, "stalls", extensions=[MUST_STAPLE])
    assert harness.gnutls_status(world.proxy.port, "a.example", world.ca) != 0
    world.responder.behaviour = "good"
    world.responder.stalled.set()
    world.wait_shown("good")
    assert harness.gnutls_status(world.proxy.port, "a.example", world.ca) == 0


def test_must_staple_renewed(stack, tmp_path):
    """A renewed one waits for its response; the old one stays in use, and is not forgotten over a reload."""
    world = World(stack, tmp_path, extensions=[MUST_STAPLE])
    assert world.shown() == "good"
    before = world.sites.shown(world.proxy.port, "a.example")
    world.responder.behaviour = "error"
    pem = world.put("a.example", MUST_STAPLE)
    line = world.proxy.wait_for(WAITS, file="a.example.pem")
    assert "must be stapled" in line["reason"]
    assert world.sites.shown(world.proxy.port, "a.example") == before and world.shown() == "good"
    world.proxy.reload()
    assert world.sites.shown(world.proxy.port, "a.example") == before and world.shown() == "good"
    world.responder.behaviour = "good"
    world.sites.wait_shown(world.proxy.port, "a.example", pem, 10)
    assert world.shown() == "good"


def test_must_staple_beside_another(stack, tmp_path):
    """Without a response it is not chosen while there is another chain for the name; unless the client can verify no other."""
    world = World(stack, tmp_path, "stalls", extensions=[MUST_STAPLE], start=False)
    key = rsa.generate_private_key(65537, 2048)
    pem = world.sites.chain("a.example", world.sites.new_key("rsa", key=key))
    (world.sites.chains / "rsa.pem").write_bytes(pem)
    world.key_server.reload()
    world.proxy.start()
    assert world.sites.shown(world.proxy.port, "a.example") == renewals.leaf(pem)
    status, text = harness.s_client(world.proxy.port, "-servername", "a.example", "-sigalgs", "ecdsa_secp256r1_sha256")
    assert "ECDSA" in text.upper() and status == 0
    world.responder.behaviour = "good"
    world.responder.stalled.set()
    ecdsa = renewals.leaf(world.sites.path("a.example").read_bytes())
    wait_until(lambda: world.sites.shown(world.proxy.port, "a.example") == ecdsa, "the chain that must be stapled")
    assert world.shown() == "good"


def test_must_staple_and_off(stack, tmp_path):
    world = World(stack, tmp_path, extensions=[MUST_STAPLE], ocsp={"source": "off"})
    line = world.proxy.wait_for("certificate must be stapled", file="a.example.pem")
    assert line["level"] == "warn" and "ocsp is off" in line["reason"]
    assert world.shown() is None


# ---- From files.


class Files(World):
    def __init__(self, stack, directory, write=True, **changes):
        super().__init__(stack, directory, ocsp={"source": "file"}, start=False, **changes)
        self.pem = self.sites.path("a.example").read_bytes()
        if write:
            self.put_response("a.example", self.pem)
        self.proxy.start()


def test_file(stack, tmp_path):
    """There for the first client; a new one is taken when it comes, and nobody was asked."""
    world = Files(stack, tmp_path, workers=2)
    assert [world.shown() for _ in range(5)] == ["good"] * 5
    assert world.curl().status == 0
    world.put_response("a.example", world.pem, lasts=7200)
    wait_until(lambda: world.counted("good") == 1, "the new response to be read")
    until = wait_until(lambda: world.proxy.status()["certificates"][0]["ocsp_next_update"], "its end")
    world.proxy.reload()
    assert world.shown() == "good"
    assert world.proxy.status()["certificates"][0]["ocsp_next_update"] == until
    assert not world.responder.requests


def test_file_missing(stack, tmp_path):
    world = Files(stack, tmp_path, write=False)
    line = world.proxy.wait_for(NOT_TAKEN, file="a.example.pem")
    assert "no such file" in line["reason"] and line["response"].endswith("a.example.pem.ocsp")
    assert world.shown() is None
    world.put_response("a.example", world.pem)
    world.wait_shown("good")


def _holds(content):
    return lambda world, name, pem: world.staple_path(name).write_bytes(content)


def _ended(world, name, pem):
    world.put_response(name, pem, since=7200)


def _of_another(world, name, pem):
    world.put_response(name, world.sites.chain(name))


def _half(world, name, pem):
    whole = world.staple_path(name).read_bytes()
    world.staple_path(name).write_bytes(whole[: len(whole) // 2])


BAD_FILES = {
    "text": (_holds(b"hello\n"), "does not parse"),
    "empty": (_holds(b""), "expected a response of 1 .. 4096 octets"),
    "large": (_holds(b"\x30" * 5000), "expected a response of 1 .. 4096 octets"),
    "ended": (_ended, "out of date"),
    "of another": (_of_another, "about another certificate"),
    "half": (_half, "does not parse"),
}


@pytest.fixture(scope="module")
def files(module_stack, tmp_path_factory):
    """One proxy with a name for each of them."""
    world = World(module_stack, tmp_path_factory.mktemp("files"), ocsp={"source": "file"}, start=False)
    for number in range(len(BAD_FILES)):
        world.put_response(f"f{number}.example", world.put(f"f{number}.example"))
    world.proxy.start()
    return world


@pytest.mark.parametrize("what", BAD_FILES)
def test_bad_file(files, what):
    """The one before goes on being shown."""
    world, name = files, f"f{list(BAD_FILES).index(what)}.example"
    assert world.shown(name) == "good"
    spoil, reason = BAD_FILES[what]
    failed, good = world.counted("failed"), world.counted("good")
    pem = world.sites.path(name).read_bytes()
    spoil(world, name, pem)
    line = world.proxy.wait_for(NOT_TAKEN, file=f"{name}.pem")
    assert reason in line["reason"], line
    assert world.shown(name) == "good" and world.counted("failed") == failed + 1
    world.put_response(name, pem)
    wait_until(lambda: world.counted("good") == good + 1, "the good file to be read")
    assert len(world.proxy.find(NOT_TAKEN, file=f"{name}.pem")) == 1
    assert world.curl(name).status == 0


def test_file_revoked(stack, tmp_path):
    world = Files(stack, tmp_path)
    assert world.shown() == "good"
    world.put_response("a.example", world.pem, status="revoked")
    assert world.proxy.wait_for(REVOKED)["level"] == "error"
    assert world.shown() is None and world.chains("revoked") == 1


def test_file_ends(stack, tmp_path):
    world = Files(stack, tmp_path, write=False)
    world.put_response("a.example", world.pem, lasts=8)
    world.wait_shown("good", timeout=8)
    assert "not renewed in time" in world.proxy.wait_for(ENDED)["reason"]
    assert world.shown() is None


def test_file_and_chain_renewed(stack, tmp_path):
    """In either order."""
    world = Files(stack, tmp_path, extensions=[MUST_STAPLE])
    for staple_first in (True, False):
        pem = world.chain("a.example", MUST_STAPLE)
        if staple_first:
            world.put_response("a.example", pem)
            world.proxy.wait_for(NOT_TAKEN, reason="about another certificate")
        world.sites.path("a.example").write_bytes(pem)
        if not staple_first:
            world.proxy.wait_for(WAITS)
            world.put_response("a.example", pem)
        world.sites.wait_shown(world.proxy.port, "a.example", pem, 10)
        assert world.shown() == "good"


# ---- The configuration.


@pytest.mark.parametrize(
    "ocsp, expected",
    [
        ({"source": "fetch", "responder": "https://ocsp.example/"}, "scheme is not http"),
        ({"source": "fetch", "responder": "ocsp.example"}, "expected a URL such as http://ocsp.example/"),
        ({"source": "fetch", "responder": "http:///x"}, "no host"),
        ({"source": "fetch", "responder": "http://u:p@h/"}, "a user's name"),
        ({"source": "file", "responder": "http://ocsp.example/"}, "expected source: fetch (or off) beside it"),
        ({"source": "web"}, "expected off, file or fetch"),
        ({"source": "fetch", "refresh": "0s"}, "refresh"),
        ({"source": "fetch", "timeout": "1h"}, "timeout"),
    ],
)
def test_refused(stack, tmp_path, ocsp, expected):
    world = World(stack, tmp_path, ocsp=ocsp, start=False)
    answer = world.proxy.check()
    assert answer.returncode == 2 and expected in answer.stderr, answer.stderr
