"""Two key servers under steady load of full handshakes, one of which goes wrong in every way that the tests know: no client
fails while an honest one can be reached, none waits long, and all is whole again afterwards."""

import contextlib
import dataclasses
import signal
import ssl
import time
from typing import Callable

import pytest

import clients
import fake_key_server as fake
import harness
import key_server_faults as faults
import own_network
from counters import Gains
from harness import wait_until
from kssl_codec import Op
from test_tickets import Client
from watched import key_channel

# What a handshake may take while something is wrong: the hedge, two round trips and 50 ms are the aim of the long run; here a
# busy machine and sanitizers have their say.
SLOWEST = 0.3 if harness.STRICT else 3.0 if harness.SANITIZED else 1.5


def entry(server, name, **changes):
    """server: one, its port, or its Unix socket."""
    address = server if isinstance(server, str) else f"127.0.0.1:{server if isinstance(server, int) else server.port}"
    return {"name": name, "address": address, "server_name": "keys.example", **changes}


class World:
    """Two key servers, a relay before the first, and a proxy that uses both; clients come all the time."""

    def __init__(self, stack, first, second, relayed=False, mode="tbs", channel=None, spare=False, **changes):
        self.first, self.second = first, second
        self.relay = stack.relay(first) if relayed else None
        servers = [entry(self.relay or first, "keys-a", mode=mode), entry(second, "keys-b", mode=mode, priority=int(spare))]
        settings = {"timeout": "5s", "fail_fast": "200ms", **(channel or {})}
        self.proxy = stack.proxy(0, key_servers=servers, key_channel=key_channel(**settings),
                                 tickets={"source": "off"}, **changes)
        self.wait_up(2)
        self.load = clients.Load(self.proxy.port, threads=4, timeout=10.0)

    def wait_up(self, count, server=None):
        labels = {"server": server} if server else {}
        wait_until(lambda: self.up(**labels) == count, f"{count} channels")

    def up(self, server=None):
        if server is None:
            return self.proxy.metric("keyless_key_channels_up")
        return self.proxy.metric("keyless_key_server_channels_up", server=server)

    def count(self, name, server):
        return self.proxy.metric(name, server=server)

    def ok(self, server):
        return self.proxy.metric("keyless_key_requests_total", server=server, outcome="ok")

    def sum_of(self, *names):
        metrics = self.proxy.metrics()
        return sum(metrics.sum(name) for name in names)

    def asked_twice(self):
        """How many requests somebody else was asked, too."""
        return self.sum_of(*(f"keyless_key_requests_{how}_total" for how in ("hedged", "retried", "moved")))

    def assert_served(self, more=60):
        """So many more clients, none of whom fails or waits long."""
        since = time.monotonic()
        self.load.more(more)
        self.assert_quick(since)

    def assert_quick(self, since):
        assert not self.load.failures, self.load.failures[:3]
        assert self.load.slowest(since) < SLOWEST

    def noticed(self):
        """What the proxy counts of the first key server that does not happen in good days."""
        names = ("requests_hedged", "requests_retried", "requests_moved", "requests_resent", "answers_late", "answers_unknown",
                 "channels_lost", "connects_failed")
        return sum(self.count(f"keyless_key_{name}_total", "keys-a") for name in names)


def real(stack, **changes):
    return stack.key_server(**changes)


def honest(stack, **changes):
    return stack.fake_key_server(fake.Honest(), **changes)


@dataclasses.dataclass
class Fault:
    """first: makes the key server that will go wrong; begin and end it, each with the world."""

    begin: Callable
    end: Callable = lambda world: None
    first: Callable = honest
    relayed: bool = False
    warm: bool = True  # it is honest at first, for long enough to be trusted
    momentary: bool = False  # it is over as soon as it has begun
    network: bool = False  # it needs a network of its own
    unseen: bool = False  # the proxy counts nothing of it, as nothing is wrong
    met: Callable = World.noticed  # this rises when it is met

    def surroundings(self):
        return own_network.own_network() if self.network else contextlib.nullcontext()


def behave(make):
    def begin(world):
        world.first.behaviour = make()

    def end(world):
        world.first.behaviour = fake.Honest()

    return begin, end


def behaviour(make, **changes):
    begin, end = behave(make)
    return Fault(**{"begin": begin, "end": end, **changes})


def error(number):
    return faults.Answers(Op.ERROR, bytes([number]))


def kill(world):
    world.first.kill_all()


def start_again(world):
    after = world.first.mark()
    world.first.launch()
    world.first.wait_ready(after)


def freeze(world):
    for process in world.first.processes():
        process.signal(signal.SIGSTOP)


def thaw(world):
    for process in world.first.processes():
        process.signal(signal.SIGCONT)


def restart(world):
    world.first.restart()


def told(*begin, end=()):
    """Commands for the relay."""

    def act(world):
        world.relay.command(*begin)

    def lift(world):
        if end:
            world.relay.command(*end)

    return dict(begin=act, end=lift, relayed=True)


def expire(world):
    world.first.show("bad-keyserver-expired")


def renew(world):
    world.first.show("keyserver")


def forget_key(world):
    """The key that clients need is taken from it by a reload."""
    fewer = world.first.directory / f"{world.first.name}-fewer"
    if not fewer.exists():
        fewer.mkdir(mode=0o700)
        for path in (harness.SITES / "keys").glob("*.key"):
            if path.name != "p256.key":
                (fewer / path.name).write_bytes(path.read_bytes())
                (fewer / path.name).chmod(0o600)
    world.first.config["keys"] = [{"dir": str(fewer)}]
    world.first.reload()


def find_key_again(world):
    world.first.config["keys"] = [{"dir": str(harness.SITES / "keys")}]
    world.first.reload()


def come_back(world):
    """Anew, with all its keys: what is not in a list is believed to be missing for a minute, or until then."""
    world.first.behaviour = fake.Honest()
    world.first.cut_all()


def signatures_asked(world):
    """Once it has said that it has not got the key, to what another had been asked first, it is asked no more: nothing is counted."""
    return world.first.signatures_asked()


FAULTS = {
    "kill -9": Fault(kill, start_again, first=real),
    "SIGSTOP": Fault(freeze, thaw, first=real),
    "restart": Fault(restart, first=real, momentary=True),
    "delayed by 200 ms": Fault(**told("delay", 200000, end=("delay", 0)), first=real),
    "silent line": Fault(**told("stall", end=("resume",)), first=real),
    "cut line": Fault(**told("cut"), first=real, momentary=True),
    "connections dropped": Fault(lambda world: (world.relay.command("drop"), world.relay.command("cut")),
                                 lambda world: world.relay.command("accept"), first=real, relayed=True),
    "corrupted octets": Fault(**told("corrupt", 2000, end=("corrupt", 0)), first=real),
    "packets dropped": Fault(lambda world: own_network.drop(world.first.port), lambda world: own_network.drop_no_more(),
                             first=real, network=True),
    "key removed by a reload": Fault(forget_key, find_key_again, first=real),
    "lies from the start": behaviour(faults.OtherKey, warm=False),
    "closes after each reply": behaviour(lambda: faults.ClosesAfterReply(False)),
    "answers in reverse": behaviour(lambda: faults.Reversed(2), unseen=True),
    "answers twice": behaviour(faults.Twice),
    "never signs": behaviour(faults.NeverSigns),
    "dead": behaviour(faults.Dead),
    "key not found": behaviour(lambda: error(2), end=come_back, met=signatures_asked),
    "internal error": behaviour(lambda: error(8)),
    "overloaded": behaviour(lambda: error(0x44)),
    "unparsable": behaviour(faults.HalfAFrame),
    "expired certificate": Fault(lambda world: (expire(world), world.first.cut_all()), renew),
}


@pytest.mark.parametrize("what", FAULTS)
def test_fault(stack, what):
    fault = FAULTS[what]
    if fault.network and own_network.why_not():
        pytest.skip(own_network.why_not())
    with fault.surroundings():
        happen(stack, fault)


def happen(stack, fault):
    first = fault.first(stack)
    if not fault.warm:
        first.behaviour = faults.OtherKey()
    world = World(stack, first, honest(stack), fault.relayed)
    with world.load:
        if fault.warm:
            world.load.more(40)
        met, began = fault.met(world) if fault.warm else 0, time.monotonic()
        fault.begin(world)
        world.assert_served()
        if not fault.unseen:
            wait_until(lambda: fault.met(world) > met, "the fault to be met")
        fault.end(world)
        world.wait_up(2)
        before = world.ok("keys-a")
        world.assert_served(20)
        wait_until(lambda: world.ok("keys-a") > before, "the first key server to be of use again", 40)
    world.assert_quick(began)
    wait_until(lambda: world.proxy.metric("keyless_key_requests_pending") == 0, "all requests to be answered")
    asked = world.sum_of("keyless_key_requests_total")
    assert world.asked_twice() <= 0.1 * asked + 64, "more than the budget was asked twice"


def test_lies_once_trusted(stack):
    """Each signature is verified: nobody meets a wrong one."""
    world = World(stack, honest(stack), honest(stack), channel={"verify": "all"})
    with world.load:
        world.load.more(40)
        world.first.behaviour = faults.OtherKey()
        wait_until(lambda: world.proxy.find("wrong signature from key server", server="keys-a"), "the lie to be found")
        world.assert_served()
        wait_until(lambda: trouble(world.proxy, "keys-a", "distrusted") == (1, 1), "it to be distrusted")
        assert trouble(world.proxy, "keys-b", "distrusted") == (0, 0)
        lies = len(world.proxy.find("wrong signature from key server"))
        assert lies <= 8, "it was asked again and again"
        world.first.behaviour = fake.Honest()
        world.proxy.wait_for("key server trusted again", timeout=40, server="keys-a")
        wait_until(lambda: trouble(world.proxy, "keys-a", "distrusted") == (0, 0), "it to be no longer distrusted")
        world.assert_served()
    assert not world.load.failures


def test_lies_once_trusted_unless_sampled(stack):
    """With `verify: auto` one in 16 is looked at: before the first that is found few clients get a wrong one, afterwards none."""
    world = World(stack, honest(stack), honest(stack))
    with world.load:
        wait_until(lambda: min(map(world.ok, ("keys-a", "keys-b"))) > 256, "both to be trusted", 60)
        world.first.behaviour = faults.OtherKey()
        world.proxy.wait_for("wrong signature from key server", server="keys-a", timeout=60)
        wait_until(lambda: trouble(world.proxy, "keys-a", "distrusted") == (1, 1), "it to be distrusted")
        time_of_discovery = time.monotonic()
        world.load.more(60)
        world.first.behaviour = fake.Honest()
        world.proxy.wait_for("key server trusted again", timeout=40, server="keys-a")
        world.load.more(20)
    assert len(world.load.failures) <= 128
    assert all("bad signature" in problem for _, _, problem in world.load.failures), world.load.failures[:3]
    assert all(began <= time_of_discovery for began, _, _ in world.load.failures), world.load.failures[-3:]


def test_a_key_removed_from_one(stack):
    """It is asked for where it is, and there at once, as soon as one "not found" has told."""
    world = World(stack, honest(stack), honest(stack), spare=True)  # so that the first is asked, whichever is quicker
    with world.load:
        world.load.more(40)
        world.first.behaviour = error(2)
        wait_until(lambda: world.noticed(), "it to be asked, and then the other")  # moved, or hedged just before its answer
        world.assert_served()
    moved = world.count("keyless_key_requests_moved_total", "keys-a")
    assert moved <= 10, "what was learnt is not used"


def trouble(proxy, server, kind):
    """As the metrics and as /status have it."""
    (row,) = [row for row in proxy.status()["key_servers"] if row["name"] == server]
    return proxy.metric("keyless_key_server_trouble", server=server, kind=kind), row[kind]


def test_avoided(stack):
    """A server that fails again and again is seen to be avoided, until it is of use again."""
    world = World(stack, honest(stack), honest(stack))
    with world.load:
        world.first.behaviour = error(8)
        wait_until(lambda: trouble(world.proxy, "keys-a", "avoided") == (1, 1), "it to be avoided")
        assert trouble(world.proxy, "keys-b", "avoided") == (0, 0)
        world.first.behaviour = fake.Honest()
        wait_until(lambda: trouble(world.proxy, "keys-a", "avoided") == (0, 0), "it to be used again", 40)
    assert not world.load.failures


def test_rolling_upgrade(stack, tmp_path):
    """Both are restarted, one after the other; one of them is reached over a Unix socket."""
    path = tmp_path / "keys.sock"
    harness.open_to_all(tmp_path)
    first, second = real(stack), real(stack, listen=[f"unix:{path}"])
    path.chmod(0o666)  # the worker that connects is nobody
    world = World(stack, first, f"unix:{path}")
    with world.load:
        for server in (first, second):
            world.load.more(30)
            server.restart()
            path.chmod(0o666)
            world.wait_up(2)
            world.assert_served(30)
    assert not world.load.failures, world.load.failures[:3]


def test_both_gone(stack):
    """Full handshakes fail within fail_fast, counted and told once a second; resumed ones and open connections go on; the
    first full one succeeds within a second afterwards."""
    first, second = real(stack), real(stack)
    servers = [entry(first, "keys-a", mode="tbs"), entry(second, "keys-b", mode="tbs")]
    proxy = stack.proxy(0, key_servers=servers, key_channel=key_channel(timeout="5s", fail_fast="200ms"),
                        tickets={"source": "local"}, log={"level": "info"})
    known = Client(proxy.port)
    known.visit()
    with clients.connect(proxy.port) as open_one:
        for server in (first, second):
            server.kill_all()
        wait_until(lambda: proxy.metric("keyless_key_channels_up") == 0, "both to be gone")
        wait_until(lambda: proxy.readiness()[0] == 503, "it to be no longer ready")
        assert proxy.page("/healthz") == "ok\n"
        fail_for_two_seconds(proxy)
        assert known.resumes()
        open_one.sendall(b"GET / HTTP/1.0\r\n\r\n")
        assert open_one.recv(65536).startswith(b"HTTP/1.1 200")
    after = first.mark()
    first.launch()
    first.wait_ready(after)
    began = time.monotonic()
    wait_until(lambda: clients.works(proxy.port), "a full handshake")
    assert time.monotonic() - began < (1.0 if harness.STRICT else 4.0 if harness.SANITIZED else 1.5)
    wait_until(lambda: proxy.readiness()[0] == 200, "it to be ready")


def fail_for_two_seconds(proxy):
    """Clients that come one after another while there is no key server; each fails soon."""
    gains, after, count = Gains(proxy), proxy.mark(), 0
    began = time.monotonic()
    while time.monotonic() - began < 2:
        asked = time.monotonic()
        with pytest.raises(ssl.SSLError, match="ALERT_INTERNAL_ERROR"):
            clients.get(proxy.port)
        assert time.monotonic() - asked < 0.2 + (0.1 if harness.STRICT else 2.0 if harness.SANITIZED else 0.5)
        count += 1
    gains.assert_failures(no_key_server=count)
    gains.assert_gained("keyless_key_requests_total", count, server="none", outcome="no_server")
    told = proxy.find("no key server can be reached", after=after)
    assert 1 <= len(told) <= time.monotonic() - began + 1
    assert count / 2 <= sum(int(line["failed"]) for line in told) <= count
    assert not proxy.find("handshake failed", after=after), "a line for each client"


def test_priority_and_weight(stack):
    """The second is a spare; among equals the heavier gets more."""
    servers = [honest(stack) for _ in range(3)]
    entries = [entry(servers[0], "keys-a", mode="tbs", weight=100), entry(servers[1], "keys-b", mode="tbs"),
               entry(servers[2], "spare", mode="tbs", priority=1)]
    proxy = stack.proxy(0, key_servers=entries, key_channel=key_channel(hedge="off"), tickets={"source": "off"})
    wait_until(lambda: proxy.metric("keyless_key_channels_up") == 3, "three channels")
    proxy.wait_tried()
    for _ in range(60):
        assert clients.works(proxy.port)

    def ok(name):
        return proxy.metric("keyless_key_requests_total", server=name, outcome="ok")

    assert ok("keys-a") + ok("keys-b") == 60 and ok("spare") == 0
    assert ok("keys-a") > ok("keys-b")
    table = [(row["name"], row["up"], row["priority"], row["weight"]) for row in proxy.status()["key_servers"]]
    assert table == [("keys-a", True, 0, 100), ("keys-b", True, 0, 1), ("spare", True, 1, 1)]
    for server in servers[:2]:
        server.behaviour = faults.ClosesAfterHello()
        server.cut_all()
    wait_until(lambda: clients.works(proxy.port) and ok("spare") > 0, "the spare to be used")


def test_each_has_its_own_keys(stack, tmp_path):
    """One has the RSA keys, the other the rest: each is asked for what it has, also when a key moves."""
    split = {}
    for name in ("rsa", "others"):
        split[name] = tmp_path / name
        split[name].mkdir()
    for path in (harness.SITES / "keys").glob("*.key"):
        target = split["rsa" if "rsa" in path.name else "others"]
        (target / path.name).write_bytes(path.read_bytes())
        (target / path.name).chmod(0o600)
    allow = [{"match": "DNS:edge1.example", "keys": ["*"], "allow": ["tls13", "tls12", "list"]}]
    first = stack.key_server(keys=[{"dir": str(split["rsa"])}], clients=allow)
    second = stack.key_server(keys=[{"dir": str(split["others"])}], clients=allow)
    servers = [entry(first, "keys-a", mode="tbs"), entry(second, "keys-b", mode="tbs")]
    proxy = stack.proxy(0, key_servers=servers, key_channel=key_channel(), tickets={"source": "off"})
    wait_until(lambda: proxy.metric("keyless_key_channels_up") == 2, "two channels")
    proxy.wait_tried()
    before = proxy.metric("keyless_key_requests_moved_total", server="keys-a")
    for _ in range(10):
        for name, server in (("rsa2048.example", "keys-a"), ("p256.example", "keys-b")):
            told_by = harness.curl(name, proxy.port).json()["key_server"]
            assert told_by == server
    assert proxy.metric("keyless_key_requests_moved_total", server="keys-a") == before
    assert proxy.metric("keyless_certificates_waiting") == 0
    before = proxy.metric("keyless_key_requests_moved_total", server="keys-b")
    (split["others"] / "p256.key").rename(split["rsa"] / "p256.key")
    for server in (first, second):
        server.reload()
    asked_of = [harness.curl("p256.example", proxy.port).json()["key_server"] for _ in range(20)]
    assert set(asked_of) == {"keys-a"}, asked_of
    assert proxy.metric("keyless_key_requests_moved_total", server="keys-b") <= before + 4, "what was learnt is not used"


def test_warm_before_the_first_client(stack):
    """A worker takes clients when all key servers were tried, and not long after the first one answers."""
    slow = stack.fake_key_server(faults.SlowHello(0.15))
    servers = [entry(honest(stack), "keys-a", mode="tbs"), entry(slow, "keys-b", mode="tbs")]
    proxy = stack.proxy(0, key_servers=servers, key_channel=key_channel())
    assert proxy.metric("keyless_key_channels_up") == 2
    slow.behaviour = faults.SlowHello(30)
    slow.cut_all()
    began = time.monotonic()
    proxy.reload()
    assert time.monotonic() - began < (4.0 if harness.SANITIZED else 2.0), "it waits for one that does not answer"
    assert proxy.metric("keyless_key_server_channels_up", server="keys-a") == 1
    assert clients.works(proxy.port)


def test_both_frozen(stack):
    """They are out when a ping is not answered; from then on it is as if they were gone."""
    servers = [real(stack), real(stack)]
    entries = [entry(servers[0], "keys-a", mode="tbs"), entry(servers[1], "keys-b", mode="tbs")]
    proxy = stack.proxy(0, key_servers=entries, key_channel=key_channel(timeout="2s", fail_fast="200ms"),
                        tickets={"source": "off"}, log={"level": "info"})
    wait_until(lambda: proxy.metric("keyless_key_channels_up") == 2, "two channels")
    assert clients.works(proxy.port)
    processes = [process for server in servers for process in server.processes()]
    for process in processes:
        process.signal(signal.SIGSTOP)
    try:
        began = time.monotonic()
        assert not clients.works(proxy.port)
        assert time.monotonic() - began < 2.0 + (2.0 if harness.SANITIZED else 0.5)
        wait_until(lambda: proxy.readiness()[0] == 503, "it to be no longer ready")
        fail_for_two_seconds(proxy)
    finally:
        for process in processes:
            process.signal(signal.SIGCONT)
    wait_until(lambda: clients.works(proxy.port), "a full handshake")


def test_hedged(stack):
    """A server that is late now and then costs no client its wait; at most a share is asked twice."""
    world = World(stack, honest(stack), honest(stack), channel={"hedge": "30ms", "hedge_share": "5%"})
    with world.load:
        world.load.more(40)
        world.first.behaviour = faults.NeverSigns()
        world.assert_served(100)
        wait_until(lambda: world.count("keyless_key_hedges_won_total", "keys-b") >= 1, "it to be asked, and another")
    hedged = world.sum_of("keyless_key_requests_hedged_total")
    assert 1 <= hedged <= 64 + 0.05 * world.sum_of("keyless_key_requests_total")


def test_neither_lists_its_keys(stack):
    """Who has answered once is not asked for ever."""
    world = World(stack, honest(stack), honest(stack), channel={"hedge": "off"})
    world.load = clients.Load(world.proxy.port, threads=1, timeout=10.0)  # nothing is sent elsewhere as one is busy
    with world.load:
        wait_until(lambda: min(map(world.ok, ("keys-a", "keys-b"))) >= 20, "both to be asked")
    assert not world.load.failures


def test_slow_for_a_while(stack):
    """It is not shunned for longer than it is slow, although nothing is hedged and so nothing comes back to it by chance."""
    world = World(stack, honest(stack), honest(stack), channel={"hedge": "off", "attempt_timeout": "5s"})
    world.load = clients.Load(world.proxy.port, threads=1, timeout=10.0)  # who comes alone is sent to the quicker one
    world.first.behaviour = faults.Late(1.0)
    with world.load:
        wait_until(lambda: world.ok("keys-a") > 0, "the first key server to be slow")
        world.first.behaviour = fake.Honest()
        before = world.ok("keys-a")
        wait_until(lambda: world.ok("keys-a") > before + 5, "the first key server to be asked as the other", 14)
    assert not world.load.failures


def test_hedge_off(stack):
    """Then another is asked after attempt_timeout."""
    world = World(stack, honest(stack), honest(stack), channel={"hedge": "off", "attempt_timeout": "300ms"})
    with world.load:
        world.load.more(20)
        world.first.behaviour = faults.NeverSigns()
        world.load.more(60)
        wait_until(lambda: world.count("keyless_key_requests_retried_total", "keys-a") >= 1, "it to be asked, and another")
    assert not world.load.failures
    assert world.count("keyless_key_requests_hedged_total", "keys-a") == 0


def test_all_overloaded(stack):
    """Clients fail, and no more than a tenth of what they want is asked twice, but for a burst: no storm."""
    world = World(stack, honest(stack), honest(stack), channel={"hedge": "off"})
    world.first.behaviour = world.second.behaviour = error(0x44)
    began = time.monotonic()
    for _ in range(200):
        assert not clients.works(world.proxy.port)
    moved = world.sum_of("keyless_key_requests_moved_total")
    assert 64 <= moved <= 64 + 0.1 * 200 + time.monotonic() - began + 1
    assert world.sum_of("keyless_key_requests_hedged_total", "keyless_key_requests_retried_total") == 0
    assert not world.proxy.find("key server avoided"), "a breaker has opened"
    world.first.behaviour = world.second.behaviour = fake.Honest()
    with world.load:
        world.assert_served(20)


def test_refused_is_not_asked_elsewhere(stack):
    """What one's policy refuses is nobody else's to sign."""
    world = World(stack, honest(stack), honest(stack))
    world.first.behaviour = world.second.behaviour = error(0x40)
    for _ in range(6):
        assert not clients.works(world.proxy.port)
    assert world.sum_of("keyless_key_requests_moved_total") == 0
