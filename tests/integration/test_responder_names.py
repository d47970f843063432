"""Names of OCSP responders: looked up with a name server of the tests, and in a hosts file of theirs."""

import re

import pytest

import harness
from harness import wait_until
from name_server import NameServer, Names, needs_mounts
from ocsp_responder import names_responder
from test_ocsp import NOT_TAKEN, World


has_ip6 = any(host == "::1" for _, host in harness.LOOPBACKS)


def start_named(world, names, host):
    """With a chain whose responder has this name."""
    world.names = names_responder(f"http://{host}:{world.responder.port}/")
    world.put("a.example")
    world.proxy.wrapper = names.wrapper
    world.proxy.start()


@needs_mounts
@pytest.mark.parametrize("hosts", ["127.0.0.1 R.test\n", "127.0.0.9 r.test\n127.0.0.1 r.test\n",
                                   pytest.param("::1 r.test\n127.0.0.1 r.test\n", marks=pytest.mark.skipif(not has_ip6, reason="no IPv6"))])
def test_hosts(stack, tmp_path, hosts):
    """Another address is tried where one does not answer."""
    world = World(stack, tmp_path, start=False)
    start_named(world, Names(tmp_path, hosts), "r.test")
    world.wait_shown("good")


@needs_mounts
@pytest.mark.skipif(not has_ip6, reason="no IPv6")
def test_hosts_with_ip6_alone(stack, tmp_path):
    world = World(stack, tmp_path, start=False)
    start_named(world, Names(tmp_path, "::1 r.test\n"), "r.test")
    world.proxy.wait_for(NOT_TAKEN)
    helpers = {helper.pid for helper in world.proxy.children("helper")}
    wait_until(lambda: world.counted("failed") >= 3, "three attempts")
    assert {helper.pid for helper in world.proxy.children("helper")} == helpers


@needs_mounts
@pytest.mark.parametrize(
    "zone, reason",
    [
        ({"r.test": ["127.0.0.1"]}, None),
        ({"r.test": ["127.0.0.9", "127.0.0.1"]}, None),
        ({}, "no such host"),
        ({"r.test": []}, "no address"),
        ("refused", "no name server answers"),
        ("garbage", "ocsp.timeout|cannot be looked up"),
        ("silent", "ocsp.timeout"),
        ("late", "ocsp.timeout"),
    ],
)
def test_name_server(stack, tmp_path, zone, reason):
    server = NameServer(zone)
    stack.others.append(server)
    world = World(stack, tmp_path, start=False)
    start_named(world, Names(tmp_path, server=server.address), "r.test")
    if reason is None:
        world.wait_shown("good")
        return
    assert re.search(reason, world.proxy.wait_for(NOT_TAKEN)["reason"])
    before = [helper.descriptors() for helper in world.proxy.children("helper")]
    wait_until(lambda: world.counted("failed") >= 3, "three attempts", 3 * harness.PATIENCE)
    after = [helper.descriptors() for helper in world.proxy.children("helper")]
    assert len(after) == 1 and after[0] <= before[0] + 3
    if zone not in ("silent", "late"):
        server.zone = {"r.test": ["127.0.0.1"]}
        world.wait_shown("good")
