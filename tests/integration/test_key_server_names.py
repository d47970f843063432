"""Key servers that are configured by name: found by their addresses and by SRV records, followed as those change, and kept
while the name server does not answer."""

import signal
import time

import pytest

import clients
import harness
from harness import wait_until
from name_server import NameServer, Names, needs_mounts
from watched import key_channel

pytestmark = needs_mounts

HOST = "k.test"
SERVICE = "_keyless._tcp.test"
NOT_FOUND = "key server's name not found"
FOUND_AGAIN = "key server's name found again"
has_ip6 = any(host == "::1" for _, host in harness.LOOPBACKS)


def by_host(port):
    return {"name": "keys", "address": f"{HOST}:{port}", "server_name": "keys.example", "mode": "tbs"}


def by_service():
    return {"name": "keys", "srv": SERVICE, "server_name": "keys.example", "mode": "tbs"}


class World:
    """A name server, and a proxy that is told nothing but names."""

    def __init__(self, stack, directory, entries, zone, hosts="", start=True, truncates=False, ttls=None, **changes):
        self.names = NameServer(zone, ttl=1, truncates=truncates, ttls=ttls)  # taken for 5 s
        stack.others.append(self.names)
        settings = Names(directory, hosts, self.names.address)
        self.proxy = stack.proxy(0, start=start, wrapper=settings.wrapper, key_servers=entries,
                                 key_channel=key_channel(timeout="5s"), tickets={"source": "off"}, **changes)

    def wait_up(self, count):
        wait_until(lambda: self.proxy.metric("keyless_key_channels_up") == count, f"{count} channels", 40)

    def addresses(self):
        return self.proxy.status()["key_servers"][0]["addresses"]

    def wait_addresses(self, *addresses):
        wait_until(lambda: self.addresses() == list(addresses), f"the addresses {addresses}", 40)

    def serves(self):
        assert clients.get(self.proxy.port).startswith(b"HTTP/1.1 200")

    def lookups_failed(self):
        return self.proxy.metric("keyless_key_server_lookups_failed_total", server="keys")


def two_key_servers(stack):
    """With the same port, at two addresses."""
    first = stack.key_server()
    second = stack.key_server(start=False)
    second.port = first.port
    second.config["listen"] = [f"127.0.0.2:{first.port}"]
    second.start()
    return first, second


def signed(server):
    return server.metric("keyless_keyserver_signatures_total")


def test_found(stack, tmp_path):
    server = stack.key_server()
    world = World(stack, tmp_path, [by_host(server.port)], {HOST: ["127.0.0.1"]})
    world.wait_up(1)
    world.serves()
    shown = world.proxy.status()["key_servers"][0]
    assert shown["host"] == HOST and shown["addresses"] == [f"127.0.0.1:{server.port}"] and shown["up"]
    assert world.lookups_failed() == 0
    asked = world.names.asked
    wait_until(lambda: world.names.asked > asked, "it to be asked again", 20)


def test_as_long_as_they_hold(stack, tmp_path):
    """Each name is asked for again when its own TTL is over."""
    server = stack.key_server()
    lasting = {**by_host(server.port), "name": "lasting", "address": f"lasting.test:{server.port}"}
    world = World(stack, tmp_path, [by_host(server.port), lasting], {HOST: ["127.0.0.1"], "lasting.test": ["127.0.0.1"]},
                  ttls={"lasting.test": 60})
    world.wait_up(2)
    wait_until(lambda: world.names.asked_for[HOST] >= 3, "the other to be asked for again and again", 40)
    assert world.names.asked_for["lasting.test"] == 1
    world.serves()


def test_service_that_is_no_longer_found(stack, tmp_path):
    """What its SRV records said is kept while nobody answers."""
    server = stack.key_server()
    world = World(stack, tmp_path, [by_service()], {SERVICE: [(1, 1, server.port, HOST)], HOST: ["127.0.0.1"]})
    world.wait_up(1)
    world.names.zone = "silent"
    world.proxy.wait_for(NOT_FOUND, timeout=60)
    after = world.proxy.mark()
    world.proxy.reload()
    world.proxy.wait_for("key server connected", after=after)
    world.wait_addresses(f"127.0.0.1:{server.port}")
    world.serves()


def test_found_in_hosts_without_admin(stack, tmp_path):
    server = stack.key_server()
    world = World(stack, tmp_path, [by_host(server.port)], "silent", hosts=f"127.0.0.1 {HOST}\n", start=False)
    world.proxy.config["admin"] = {}
    world.proxy.start()
    world.proxy.wait_for("key server connected")
    world.serves()


@pytest.mark.skipif(not has_ip6, reason="no IPv6")
def test_both_families(stack, tmp_path):
    server = stack.key_server(start=False)
    server.config["listen"] = [f"127.0.0.1:{server.port}", f"[::1]:{server.port}"]
    server.start()
    world = World(stack, tmp_path, [by_host(server.port)], {HOST: ["127.0.0.1", "::1"]})
    world.wait_up(2)
    assert sorted(world.addresses()) == sorted([f"127.0.0.1:{server.port}", f"[::1]:{server.port}"])
    world.names.zone = {HOST: ["::1"]}
    world.wait_addresses(f"[::1]:{server.port}")
    world.wait_up(1)
    world.serves()


def test_moves(stack, tmp_path):
    """No client notices that the key server is another one now."""
    first, second = two_key_servers(stack)
    world = World(stack, tmp_path, [by_host(first.port)], {HOST: ["127.0.0.1"]})
    world.wait_up(1)
    with clients.Load(world.proxy.port, threads=2, timeout=10) as load:
        load.more(20)
        world.names.zone = {HOST: ["127.0.0.2"]}
        world.proxy.wait_for("key server address gone", timeout=40, address=f"127.0.0.1:{first.port}")
        before = signed(first)
        load.more(20)
    assert not load.failures, load.failures[:3]
    assert signed(first) == before and signed(second) > 0
    world.wait_up(1)


def test_name_server_dies(stack, tmp_path):
    """The last good answer is kept, by new workers, a new helper and a new generation, too."""
    server = stack.key_server()
    world = World(stack, tmp_path, [by_host(server.port)], {HOST: ["127.0.0.1"]})
    world.wait_up(1)
    world.names.zone = "refused"
    line = world.proxy.wait_for(NOT_FOUND, timeout=40)
    assert line["reason"] == "no name server answers" and line["server"] == "keys"
    wait_until(lambda: world.lookups_failed() >= 2, "it to be asked again", 40)
    assert len(world.proxy.find(NOT_FOUND)) == 1
    world.serves()
    for kind in ("worker", "helper"):
        after = world.proxy.mark()
        old = world.proxy.children(kind)
        for child in old:
            child.signal(signal.SIGKILL)
        wait_until(lambda: (now := world.proxy.children(kind)) and now[0].pid != old[0].pid, f"another {kind}")
        if kind == "worker":
            world.proxy.wait_for("key server connected", after=after)
        else:
            world.proxy.wait_for(NOT_FOUND, after=after)
        world.serves()
    after = world.proxy.mark()
    began = time.monotonic()
    world.proxy.reload()
    assert time.monotonic() - began < 4, "it waited for a name"
    world.proxy.wait_for("key server connected", after=after)
    world.serves()
    world.names.zone = {HOST: ["127.0.0.1"]}
    world.proxy.wait_for(FOUND_AGAIN, timeout=40)


@pytest.mark.parametrize("zone, reason", [({}, "no such host"), ({HOST: []}, "the host has no address"), ("refused", "no name server answers"),
                                          ("garbage", None), ("silent", None)])
def test_found_later(stack, tmp_path, zone, reason):
    """Until then it is as with a key server that is away."""
    server = stack.key_server()
    world = World(stack, tmp_path, [by_host(server.port)], zone)
    line = world.proxy.wait_for(NOT_FOUND, timeout=60)
    assert reason is None or line["reason"] == reason
    with pytest.raises(OSError):
        clients.get(world.proxy.port)
    assert world.proxy.readiness()[0] == 503
    world.names.zone = {HOST: ["127.0.0.1"]}
    world.wait_up(1)
    world.serves()
    wait_until(lambda: world.proxy.readiness()[0] == 200, "it to be ready")


def test_services(stack, tmp_path):
    """By priority, with each target's own port; when the first is gone, the second."""
    first, second = stack.key_server(), stack.key_server()
    zone = {SERVICE: [(20, 0, second.port, "b.test"), (10, 5, first.port, "a.test")], "a.test": ["127.0.0.1"], "b.test": ["127.0.0.1"]}
    world = World(stack, tmp_path, [by_service()], zone)
    world.wait_up(2)
    assert world.addresses() == [f"127.0.0.1:{first.port}", f"127.0.0.1:{second.port}"]
    world.proxy.wait_tried()
    before = signed(second)
    with clients.Load(world.proxy.port, threads=2, timeout=10) as load:
        load.more(30)
        assert signed(second) <= before + 3, "but for a hedge the first is asked"
        first.kill_all()
        load.more(30)
    assert not load.failures, load.failures[:3]
    assert signed(second) > before + 20


def test_a_target_that_is_not_found(stack, tmp_path):
    """Others are used; what was known of it stays."""
    first, second = stack.key_server(), stack.key_server()
    zone = {SERVICE: [(1, 0, first.port, "a.test"), (1, 0, second.port, "b.test")], "a.test": ["127.0.0.1"], "b.test": ["127.0.0.1"]}
    world = World(stack, tmp_path, [by_service()], zone)
    world.wait_up(2)
    world.names.zone = {name: records for name, records in zone.items() if name != "b.test"}
    world.proxy.wait_for(NOT_FOUND, timeout=40)
    world.wait_up(2)
    world.names.zone = {SERVICE: zone[SERVICE][:1], "a.test": ["127.0.0.1"]}
    world.wait_addresses(f"127.0.0.1:{first.port}")
    world.wait_up(1)
    world.serves()


def test_truncated(stack, tmp_path):
    """Then they are asked for over TCP."""
    server = stack.key_server()
    zone = {SERVICE: [(1, 1, server.port, HOST)], HOST: ["127.0.0.1"]}
    world = World(stack, tmp_path, [by_service()], zone, truncates=True)
    world.wait_up(1)
    assert world.names.asked_tcp >= 2
    world.serves()


def test_too_many(stack, tmp_path):
    """Of twelve addresses eight are used, of which one is there; beside an entry that needs no name."""
    server = stack.key_server()
    other = stack.key_server()
    plain = {"name": "plain", "address": f"127.0.0.1:{other.port}", "server_name": "keys.example", "mode": "tbs", "priority": 1}
    world = World(stack, tmp_path, [by_host(server.port), plain], {HOST: [f"127.0.0.{i}" for i in range(1, 13)]})
    world.wait_up(2)
    line = world.proxy.wait_for("key server addresses left out")
    assert line["used"] == "8" and line["left_out"] == "4"
    world.serves()


def test_reload_to_another_name(stack, tmp_path):
    server = stack.key_server()
    world = World(stack, tmp_path, [by_host(server.port)], {HOST: ["127.0.0.1"], "other.test": ["127.0.0.1"]})
    world.wait_up(1)
    world.proxy.config["key_servers"][0]["address"] = f"other.test:{server.port}"
    world.proxy.reload()
    world.wait_up(1)
    world.serves()
    assert world.proxy.status()["key_servers"][0]["host"] == "other.test"


def test_check_asks_nobody(stack, tmp_path):
    world = World(stack, tmp_path, [by_host(2407), by_service() | {"name": "more"}], {}, start=False)
    checked = world.proxy.check()
    assert checked.returncode == 0, checked.stderr
    assert f'address: "{HOST}:2407"' in checked.stdout and f'srv: "{SERVICE}"' in checked.stdout
    assert world.names.asked == 0
