"""A new chain of a file is served only when the key server has signed for it; until then the old one is, and the log and a metric say
so. The key may be missing there, or, with mode transcript, the certificate."""

import os
import signal

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa

import clients
import renewals
from harness import wait_until
from trials import HAS, RENEWED, WAITS, World


@pytest.mark.parametrize("mode", ["transcript", "tbs", "digest"])
def test_unknown_key(stack, tmp_path, mode):
    client = {"allow": ["tls13", "tls12", "transcript", "digest"]}
    world = World(stack, tmp_path, mode, client=client)
    before = world.shown()
    pem = world.sites.chain("a.example", world.sites.new_key("new", world.elsewhere))
    world.replace(pem)
    line = world.proxy.wait_for(WAITS, file="a.example.pem")
    assert "key not found" in line["reason"] and line["level"] == "warn"
    world.wait_waiting()
    assert world.shown() == before
    assert not world.proxy.find(RENEWED)
    world.tell_key_server(pem, "new")
    world.wait_shown(pem)
    world.wait_waiting(0)
    assert len(world.proxy.find(WAITS)) == 1


def test_unknown_certificate(stack, tmp_path):
    world = World(stack, tmp_path)
    before = world.shown()
    pem = world.sites.chain("a.example")
    world.replace(pem)
    line = world.proxy.wait_for(WAITS, file="a.example.pem")
    assert "key not found" in line["reason"]
    assert world.shown() == before
    # In mode tbs it need not be known, and TLS 1.2 works with either: it is the mode that is asked for.
    world.tell_key_server(pem)
    world.wait_shown(pem)
    assert world.proxy.metric("keyless_generation") == 1


def test_over_a_reload(stack, tmp_path):
    """Which does not wait for long, and does not forget."""
    world = World(stack, tmp_path, workers=2)
    before = world.shown()
    pem = world.sites.chain("a.example")
    world.replace(pem)
    world.proxy.wait_for(WAITS)
    for _ in range(2):
        world.proxy.reload()
        world.wait_waiting()
        for _ in range(5):
            assert world.shown() == before
    world.tell_key_server(pem)
    world.wait_shown(pem)
    for _ in range(10):
        assert world.shown() == renewals.leaf(pem)
    world.proxy.reload()
    assert world.shown() == renewals.leaf(pem)


def test_reload_brings_it_at_once(stack, tmp_path):
    """Who waits for the reload meets the new chain, in every worker."""
    world = World(stack, tmp_path, workers=3)
    for _ in range(3):
        pem = world.sites.chain("a.example")
        world.tell_key_server(pem)
        path = world.sites.path("a.example")
        path.write_bytes(pem)
        os.utime(path, None)
        world.proxy.reload()
        for _ in range(15):
            assert world.shown() == renewals.leaf(pem)


def test_at_the_start_it_is_served(stack, tmp_path):
    """There is nothing better: its handshakes ask the key server themselves, and it is reported."""
    world = World(stack, tmp_path, start=False)
    world.replace(world.sites.chain("a.example", world.sites.new_key("new", world.elsewhere)))
    world.proxy.start()
    line = world.proxy.wait_for(WAITS, file="a.example.pem")
    assert "key not found" in line["reason"] and line["level"] == "warn"
    world.wait_waiting()
    with pytest.raises(clients.ssl.SSLError):
        world.shown()
    assert world.proxy.wait_for("handshake failed", sni="a.example")["reason"] == "key not found"
    assert world.shown("b.example")
    world.tell_key_server(world.sites.path("a.example").read_bytes(), "new")
    assert world.shown()
    world.proxy.wait_for(HAS, file="a.example.pem")
    world.wait_waiting(0)


def test_in_place_of_an_expired_one(stack, tmp_path):
    world = World(stack, tmp_path, start=False)
    world.replace(world.sites.chain("a.example", days=-1))
    world.proxy.start()
    pem = world.sites.chain("a.example", world.sites.new_key("new", world.elsewhere), days=30)
    world.proxy.wait_for(WAITS)  # the expired one, which the key server does not know
    after = world.proxy.mark()
    world.replace(pem)
    world.proxy.wait_for(RENEWED)
    world.proxy.wait_for(WAITS, after=after, reason="key not found")
    world.tell_key_server(pem, "new")
    world.wait_shown(pem)
    world.wait_waiting(0)


def test_key_server_away(stack, tmp_path):
    world = World(stack, tmp_path)
    pem = world.sites.chain("a.example")
    world.tell_key_server(pem)
    assert world.key_server.stop() == 0
    world.replace(pem)
    world.proxy.wait_for(WAITS, file="a.example.pem")
    world.wait_waiting()
    world.key_server.start()
    world.wait_shown(pem, seconds=20.0)


def test_file_goes_back(stack, tmp_path):
    """What is served is in the file again: nothing waits any more."""
    world = World(stack, tmp_path)
    before = world.sites.path("a.example").read_bytes()
    world.replace(world.sites.chain("a.example"))
    world.proxy.wait_for(WAITS)
    world.wait_waiting()
    world.replace(before)
    world.wait_waiting(0)
    assert world.shown() == renewals.leaf(before)


def test_the_newest_counts(stack, tmp_path):
    """One that waits, and another after it which does not."""
    world = World(stack, tmp_path)
    world.replace(world.sites.chain("a.example"))
    world.proxy.wait_for(WAITS)
    pem = world.sites.chain("a.example")
    world.tell_key_server(pem)
    world.replace(pem)
    world.wait_shown(pem)
    world.wait_waiting(0)


def test_worker_dies(stack, tmp_path):
    """Its successor tries on."""
    world = World(stack, tmp_path, workers=2)
    pem = world.sites.chain("a.example")
    world.replace(pem)
    world.proxy.wait_for(WAITS)
    for worker in world.proxy.children("worker"):
        worker.signal(signal.SIGKILL)
    wait_until(lambda: len(world.proxy.find(WAITS)) == 2, "the successor to try")
    world.tell_key_server(pem)
    world.wait_shown(pem)


def test_policy_is_no_reason(stack, tmp_path):
    """What is refused because of the request, not of the key, says nothing of handshakes."""
    world = World(stack, tmp_path, client={"schemes": ["ecdsa_secp384r1_sha384"]})
    pem = world.sites.chain("a.example")
    world.tell_key_server(pem)
    world.replace(pem)
    world.proxy.wait_for("certificate not tried", file="a.example.pem")
    world.proxy.wait_for(RENEWED)


KEYS = {
    "rsa": lambda: rsa.generate_private_key(65537, 2048),
    "p384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "p521": lambda: ec.generate_private_key(ec.SECP521R1()),
    "ed25519": ed25519.Ed25519PrivateKey.generate,
    "ed448": ed448.Ed448PrivateKey.generate,
}


@pytest.mark.parametrize("mode", ["transcript", "tbs"])
def test_kinds_of_keys(stack, tmp_path, mode):
    """The made-up handshake is one that the key server signs for, whatever the key, with ALPN and a wildcard."""
    world = World(stack, tmp_path, mode, tls={"alpn": ["h2", "http/1.1"]}, client={"alpn": ["h2"]})
    for name, make in KEYS.items():
        public = world.sites.new_key(name, key=make())
        pem = world.sites.chain(f"*.{name}.example", public)
        world.tell_key_server(pem)
        world.sites.path(name).write_bytes(pem)
    for name in KEYS:
        world.proxy.wait_for(RENEWED, file=f"/{name}.pem")
    assert not world.proxy.find(WAITS) and not world.proxy.find("certificate not tried")
