"""Certificates that are renewed while the proxy runs: seen within two seconds, by every process, without a new generation,
whatever way the file came; and files that are no good, which change nothing."""

import os
import signal
import threading
import time

import pytest

import clients
import renewals
from harness import wait_until

RENEWED = "certificate renewed"
NOT_RENEWED = "certificate not renewed"


class World:
    def __init__(self, stack, directory, sources=None, mode="tbs", **changes):
        self.sites = renewals.Sites(directory)
        self.key_server = stack.key_server(keys=[{"dir": str(self.sites.keys)}], certificates=None)
        self.proxy = stack.proxy(
            self.key_server,
            certificates=sources(self.sites) if sources else [{"dir": str(self.sites.chains)}],
            key_servers=[{"address": f"127.0.0.1:{self.key_server.port}", "server_name": "keys.example", "mode": mode}],
            tls={"default": "a.example"},
            **changes,
        )

    def wait_shown(self, name, pem):
        return self.sites.wait_shown(self.proxy.port, name, pem)

    def shown(self, name):
        return self.sites.shown(self.proxy.port, name)


@pytest.fixture
def world(stack, tmp_path):
    return World(stack, tmp_path)


# ---- The ways in which files are replaced.


def overwrite(path, pem):
    path.write_bytes(pem)


def rename_over(path, pem):
    new = path.with_name(f".{path.name}.new")
    new.write_bytes(pem)
    new.rename(path)


def move_in(path, pem):
    """As mv does from a place beside, with an old time."""
    outside = path.parent.parent / "outside.pem"
    outside.write_bytes(pem)
    os.utime(outside, (1_000_000_000, 1_000_000_000))
    outside.rename(path)


def save_as_editors_do(path, pem):
    """The old file aside, a new one in its place, the old one away."""
    backup = path.with_name(f"{path.name}~")
    path.rename(backup)
    path.write_bytes(pem)
    backup.unlink()


@pytest.mark.parametrize("replace", [overwrite, rename_over, move_in, save_as_editors_do])
def test_ways_to_replace(world, replace):
    before = world.shown("b.example")
    for _ in range(2):
        pem = world.sites.chain("a.example")
        replace(world.sites.path("a.example"), pem)
        world.wait_shown("a.example", pem)
    assert world.shown("b.example") == before
    assert len(world.proxy.find(RENEWED)) == 2
    assert world.proxy.metric("keyless_certificate_renewals_total", outcome="ok") == 2
    assert world.proxy.metric("keyless_generation") == 1
    assert not world.proxy.find(NOT_RENEWED) and not world.proxy.find("certificate file is gone")


def link(path, target):
    """Switched at once, as ln -sfT does."""
    new = path.with_name(f".{path.name}.link")
    new.symlink_to(target)
    new.rename(path)


class Certbot:
    """sites/a.pem -> live/a/fullchain.pem -> ../../archive/a/fullchain1.pem"""

    def __init__(self, sites):
        root = sites.directory
        self.archive, self.live = root / "archive" / "a", root / "live" / "a"
        self.archive.mkdir(parents=True)
        self.live.mkdir(parents=True)
        self.count = 0
        self.renew(sites.chain("a.example"))
        link(sites.path("a.example"), self.live / "fullchain.pem")
        self.source = {"dir": str(sites.chains)}

    def renew(self, pem):
        self.count += 1
        (self.archive / f"fullchain{self.count}.pem").write_bytes(pem)
        link(self.live / "fullchain.pem", f"../../archive/a/fullchain{self.count}.pem")


class Kubernetes:
    """mount/tls.crt -> ..data/tls.crt, and ..data -> ..N, switched as a whole."""

    def __init__(self, sites):
        self.mount = sites.directory / "mount"
        self.mount.mkdir()
        self.count = 0
        self.renew(sites.chain("a.example"))
        (self.mount / "tls.crt").symlink_to("..data/tls.crt")
        self.source = {"dir": str(self.mount)}

    def renew(self, pem):
        self.count += 1
        data = self.mount / f"..{self.count}"
        data.mkdir()
        (data / "tls.crt").write_bytes(pem)
        link(self.mount / "..data", data.name)


class KubernetesFile(Kubernetes):
    def __init__(self, sites):
        super().__init__(sites)
        self.source = {"file": str(self.mount / "tls.crt")}


class Release:
    """The directory itself is a link to this release's."""

    def __init__(self, sites):
        self.root = sites.directory / "releases"
        self.root.mkdir()
        self.count = 0
        self.renew(sites.chain("a.example"))
        self.source = {"dir": str(self.root / "current")}

    def renew(self, pem):
        self.count += 1
        made = self.root / f"r{self.count}"
        made.mkdir()
        (made / "a.pem").write_bytes(pem)
        link(self.root / "current", made.name)


@pytest.mark.parametrize("layout", [Certbot, Kubernetes, KubernetesFile, Release])
def test_links(stack, tmp_path, layout):
    made = []

    def sources(sites):
        made.append(layout(sites))
        return [made[0].source]

    world = World(stack, tmp_path, sources)
    for _ in range(3):
        pem = world.sites.chain("a.example")
        made[0].renew(pem)
        world.wait_shown("a.example", pem)
    assert len(world.proxy.find(RENEWED)) == 3
    assert not world.proxy.find(NOT_RENEWED)


# ---- Files that are no good.

BAD = {
    "text": lambda world: b"hello\n",
    "empty": lambda world: b"",
    "private key": lambda world: (world.sites.keys / "first.key").read_bytes(),
    "half": lambda world: world.sites.chain("a.example")[:500],
    "no name": lambda world: (world.sites.directory / "ca.pem").read_bytes(),
}


@pytest.mark.parametrize("what", BAD)
def test_bad_file(world, what):
    before = world.shown("a.example")
    world.sites.path("a.example").write_bytes(BAD[what](world))
    line = world.proxy.wait_for(NOT_RENEWED, file="a.example.pem")
    assert line["reason"] and line["level"] == "error"
    assert world.shown("a.example") == before
    assert world.proxy.metric("keyless_certificate_renewals_total", outcome="failed") == 1
    # Another file's change is no reason to look at it, and to complain, again.
    other = world.sites.chain("b.example")
    world.sites.path("b.example").write_bytes(other)
    world.wait_shown("b.example", other)
    assert len(world.proxy.find(NOT_RENEWED)) == 1
    # A reload is all or nothing.
    world.proxy.reload(expect="reload failed")
    assert world.shown("a.example") == before
    good = world.sites.chain("a.example")
    world.sites.path("a.example").write_bytes(good)
    world.wait_shown("a.example", good)
    world.proxy.reload()
    assert world.sites.shown(world.proxy.port, "a.example") == renewals.leaf(good)


def test_half_written_is_left_alone(world):
    """Longer than any wait for quiet; looked at because of its neighbour, while it is written."""
    pem = world.sites.chain("a.example")
    with open(world.sites.path("a.example"), "wb", buffering=0) as file:
        for i in range(0, len(pem), 60):
            file.write(pem[i : i + 60])
            world.sites.path("b.example").touch()
            time.sleep(0.1)
    world.wait_shown("a.example", pem)
    assert not world.proxy.find(NOT_RENEWED)


def test_removed_file(world):
    """As with other servers: in use until the next reload."""
    before = world.shown("b.example")
    world.sites.path("b.example").unlink()
    world.proxy.wait_for("certificate file is gone", file="b.example.pem")
    assert world.shown("b.example") == before
    world.proxy.reload()
    assert world.proxy.metric("keyless_certificates") == 1


# ---- What else there is to see.


def test_added_file(world):
    pem = world.sites.chain("c.example")
    world.sites.path("c.example").write_bytes(pem)
    world.wait_shown("c.example", pem)
    again = world.sites.chain("c.example")
    world.sites.path("c.example").write_bytes(again)
    world.wait_shown("c.example", again)
    wait_until(lambda: world.proxy.metric("keyless_certificates") == 3, "the metric")
    assert "c.example.pem" in world.proxy.page("/status")


def test_names_go_with_the_chain(world):
    """What is renewed for another name is not shown for the old one any more."""
    pem = world.sites.chain("z.example")
    world.sites.path("b.example").write_bytes(pem)
    world.wait_shown("z.example", pem)
    with pytest.raises(clients.ssl.SSLError):  # the default's chain, if any
        world.shown("b.example")


def test_every_process_has_it(stack, tmp_path):
    """Each worker, one that takes a dead one's place, and the process that serves the metrics."""
    world = World(stack, tmp_path, workers=3)
    pem = world.sites.chain("a.example", days=20)
    world.sites.path("a.example").write_bytes(pem)
    world.wait_shown("a.example", pem)
    for _ in range(30):
        assert world.shown("a.example") == renewals.leaf(pem)
    path = world.sites.path("a.example")
    series = "keyless_certificate_not_after_timestamp_seconds"
    wait_until(lambda: world.proxy.metric(series, file=path) == renewals.not_after(pem), "the metric")
    for worker in world.proxy.children("worker"):
        worker.signal(signal.SIGKILL)
    wait_until(lambda: len(world.proxy.children("worker")) == 3, "new workers")
    after = world.sites.chain("a.example")
    for _ in range(20):
        assert world.shown("a.example") == renewals.leaf(pem)
    path.write_bytes(after)
    world.wait_shown("a.example", after)


def test_connections_go_on(world):
    with clients.connect(world.proxy.port, "a.example", tls=world.sites.tls) as client:
        for _ in range(3):
            pem = world.sites.chain("a.example")
            world.sites.path("a.example").write_bytes(pem)
            world.wait_shown("a.example", pem)
        client.sendall(b"GET / HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n")
        assert client.recv(1024).startswith(b"HTTP/1.1 200")


def test_after_a_reload_it_goes_on(world):
    for _ in range(2):
        world.proxy.reload()
        pem = world.sites.chain("a.example")
        world.sites.path("a.example").write_bytes(pem)
        world.wait_shown("a.example", pem)


def test_same_chain_again(world):
    path = world.sites.path("a.example")
    path.write_bytes(path.read_bytes())
    other = world.sites.chain("b.example")
    world.sites.path("b.example").write_bytes(other)
    world.wait_shown("b.example", other)
    assert len(world.proxy.find(RENEWED)) == 1


def test_under_load(stack, tmp_path):
    """Fifty clients a second and more meet five renewals: none fails, and each sees the old leaf or the new one."""
    world = World(stack, tmp_path, workers=2)
    good = {world.shown("a.example")}
    failures, seen, done = [], [], threading.Event()

    def client():
        while not done.is_set():
            began = time.monotonic()
            try:
                seen.append(world.shown("a.example"))
            except OSError as error:
                failures.append(repr(error))
            time.sleep(max(0.0, 0.04 - (time.monotonic() - began)))

    threads = [threading.Thread(target=client) for _ in range(3)]
    for thread in threads:
        thread.start()
    began = time.monotonic()
    for _ in range(5):
        pem = world.sites.chain("a.example")
        good.add(renewals.leaf(pem))
        rename_over(world.sites.path("a.example"), pem)
        world.wait_shown("a.example", pem)
    done.set()
    for thread in threads:
        thread.join()
    assert not failures
    assert set(seen) <= good
    rate = len(seen) / (time.monotonic() - began)
    print(f"{rate:.0f} clients a second")
    assert world.proxy.metric("keyless_generation") == 1


def test_chains_of_a_site(stack, tmp_path):
    """The same file for everybody and for a site: both get what it holds."""
    path = tmp_path / "chains" / "b.example.pem"
    world = World(stack, tmp_path, sites=[{"names": ["b.example"], "certificates": [{"file": str(path)}]}])
    for _ in range(2):
        pem = world.sites.chain("b.example")
        rename_over(path, pem)
        world.wait_shown("b.example", pem)
        assert len(world.proxy.find(RENEWED)) % 2 == 0
    path.write_bytes(world.sites.chain("c.example"))
    line = world.proxy.wait_for(NOT_RENEWED)
    assert "none of the site's names" in line["reason"]
    assert world.shown("b.example") == renewals.leaf(pem)


def test_expiry_is_told(stack, tmp_path):
    """At the start and at each reload, until the chain is renewed; the metric follows."""
    soon = "certificate expires soon"
    world = World(stack, tmp_path)
    assert not world.proxy.find(soon)
    pem = world.sites.chain("a.example", days=10)
    path = world.sites.path("a.example")
    path.write_bytes(pem)
    world.wait_shown("a.example", pem)
    after = world.proxy.mark()
    world.proxy.reload()
    line = world.proxy.wait_for(soon, after, file="a.example.pem")
    assert line["level"] == "warn" and line["days"] in ("9", "10") and line["name"] == "a.example"
    series = "keyless_certificates_earliest_not_after_timestamp_seconds"
    assert world.proxy.metric(series) == renewals.not_after(pem)
    pem = world.sites.chain("a.example", days=80)
    path.write_bytes(pem)
    world.wait_shown("a.example", pem)
    wait_until(lambda: world.proxy.metric(series) > time.time() + 60 * 86400, "the metric")
    after = world.proxy.mark()
    world.proxy.reload()
    assert not world.proxy.find(soon, after)
    world.proxy.config["tls"]["expiry_warning"] = "90d"
    world.proxy.reload()
    assert len(world.proxy.find(soon, after)) >= 1
    after = world.proxy.mark()
    world.proxy.config["tls"]["expiry_warning"] = "off"
    world.proxy.reload()
    assert not world.proxy.find(soon, after)
