"""A chain that is served from the start, and that the key server does not sign for: clients get another chain of the name
that they take, until a test request has succeeded."""

import ssl
import signal
import time

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

import renewals
from harness import curl, s_client, wait_until
from trials import HAS, WAITS, World

NAME, OTHER = "a.example", "a-rsa"
SECONDS = 20.0  # within the growing pauses


class Pair(World):
    """Two chains of one name, of which the key server lacks one: its key, or with known=False its leaf alone."""

    def __init__(self, stack, directory, missing="ecdsa", known=True, start=True, **changes):
        super().__init__(stack, directory, start=False, **changes)
        ecdsa = self._key("new", missing == "ecdsa" and known)
        other = self._key("other", missing == "rsa" and known, rsa.generate_private_key(65537, 2048))
        self.ecdsa, self.rsa = self.sites.chain(NAME, ecdsa), self.sites.chain(NAME, other)
        self.missing, self.works = (self.ecdsa, self.rsa) if missing == "ecdsa" else (self.rsa, self.ecdsa)
        self.replace(self.ecdsa)
        self.replace(self.rsa, OTHER)
        self.tell_key_server(self.works)
        if known:
            self.tell_key_server(self.missing)
        if start:
            self.proxy.start()
            self.wait_kept_out()

    def _key(self, name, is_missing, key=None):
        return self.sites.new_key(name, self.elsewhere if is_missing else None, key)

    def wait_kept_out(self, after=0):
        """In every process."""
        self.proxy.wait_for(WAITS, after=after)
        self.wait_waiting()
        wait_until(lambda: self.status_waiting() == 1, "the status to tell")

    def status_waiting(self):
        return sum(chain["waiting"] for chain in self.proxy.status()["certificates"])

    def assert_shown(self, pem, times=8):
        for _ in range(times):
            assert self.shown() == renewals.leaf(pem)

    def wait_back(self, key=None, pem=None):
        """The key server is told, and clients are shown the better chain again."""
        self.tell_key_server(pem, key)
        self.proxy.wait_for(HAS, timeout=SECONDS)
        self.wait_waiting(0)
        wait_until(lambda: self.status_waiting() == 0, "the status to tell")
        self.wait_shown(self.ecdsa)
        self.assert_shown(self.ecdsa)


@pytest.mark.parametrize("mode", ["transcript", "tbs"])
def test_clients_get_the_other(stack, tmp_path, mode):
    pair = Pair(stack, tmp_path, mode=mode, workers=2)
    (line,) = pair.proxy.find(WAITS)
    assert line["file"].endswith("a.example.pem") and line["reason"] == "key not found" and line["level"] == "warn"
    pair.assert_shown(pair.rsa)
    status = pair.proxy.status()
    assert status["certificates_waiting"] == 1
    assert [chain["waiting"] for chain in status["certificates"] if chain["file"].endswith("a.example.pem")] == [True]
    for version in ("1.2", "1.3"):
        answer = curl(NAME, pair.proxy.port, "--cacert", tmp_path / "ca.pem", "--tls-max", version).json()
        assert (answer["scheme"], answer["version"]) == ("rsa_pss_rsae_sha256", f"TLSv{version}")
    assert not pair.proxy.find("handshake failed")
    pair.wait_back("new")
    assert len(pair.proxy.find(WAITS)) == len(pair.proxy.find(HAS)) == 1


def test_other_way_round(stack, tmp_path):
    """What clients like better is there: only those notice who can verify nothing else."""
    pair = Pair(stack, tmp_path, missing="rsa")
    assert pair.proxy.find(WAITS, file="a-rsa.pem")
    pair.assert_shown(pair.ecdsa)
    pair.wait_back("other")


def test_client_that_takes_no_other(stack, tmp_path):
    """It gets the chain all the same: the key server may have the key by now."""
    pair = Pair(stack, tmp_path)
    arguments = ("-servername", NAME, "-sigalgs", "ECDSA+SHA256", "-CAfile", str(tmp_path / "ca.pem"))
    for version in ("-tls1_2", "-tls1_3"):
        after = pair.proxy.mark()
        status, text = s_client(pair.proxy.port, *arguments, version)
        assert status != 0, text
        assert pair.proxy.wait_for("handshake failed", after=after)["reason"] == "key not found"
    pair.tell_key_server(key="new")
    for version in ("-tls1_2", "-tls1_3"):
        status, text = s_client(pair.proxy.port, *arguments, version)
        assert status == 0, text


def test_unknown_leaf(stack, tmp_path):
    """The key is there, the certificate is not."""
    pair = Pair(stack, tmp_path, known=False)
    pair.assert_shown(pair.rsa)
    pair.wait_back(pem=pair.ecdsa)


def test_chains_of_a_site(stack, tmp_path):
    files = [{"file": str(tmp_path / "own" / file)} for file in ("ecdsa.pem", "rsa.pem")]
    pair = Pair(stack, tmp_path, start=False, workers=2, sites=[{"names": [NAME], "certificates": files}])
    (tmp_path / "own").mkdir()
    pair.sites.path(NAME).rename(tmp_path / "own" / "ecdsa.pem")
    pair.sites.path(OTHER).rename(tmp_path / "own" / "rsa.pem")
    pair.proxy.start()
    pair.wait_kept_out()
    assert pair.proxy.find(WAITS, file="own/ecdsa.pem")
    pair.assert_shown(pair.rsa)
    pair.wait_back("new")


def test_key_server_away_at_the_start(stack, tmp_path):
    """Nothing is kept out, since nothing is known; when it is there, all are tried."""
    pair = Pair(stack, tmp_path, start=False)
    assert pair.key_server.stop() == 0
    pair.proxy.start()
    time.sleep(2.0)
    assert not pair.proxy.find(WAITS) and pair.status_waiting() == 0
    assert pair.proxy.metric("keyless_certificates_untried") == 3
    requests = pair.proxy.metrics().matching("keyless_key_requests_total")
    assert not any(requests.values()), requests
    pair.key_server.start()
    pair.wait_kept_out()
    pair.assert_shown(pair.rsa)
    pair.proxy.wait_tried()


def test_over_the_rate(stack, tmp_path):
    """Which says nothing of a chain: the rest is tried later."""
    pair = Pair(stack, tmp_path, start=False, client={"rate": 1})
    for number in range(3):
        name = f"more{number}.example"
        pem = pair.sites.chain(name)
        pair.replace(pem, name)
        pair.tell_key_server(pem)
    pair.proxy.start()
    pair.key_server.wait_for("request refused", reason="over its rate")
    pair.proxy.wait_tried()
    pair.wait_kept_out()
    assert pair.proxy.find(WAITS, file="a.example.pem") == pair.proxy.find(WAITS)


def test_key_server_goes_away(stack, tmp_path):
    """What was found stays."""
    pair = Pair(stack, tmp_path)
    assert pair.key_server.stop() == 0
    time.sleep(2.0)
    assert pair.status_waiting() == 1
    pair.key_server.start()
    pair.proxy.wait_for("key server connected", after=0)
    wait_until(lambda: pair.proxy.metric("keyless_key_channels_up") == 1, "the channel")
    pair.assert_shown(pair.rsa)
    pair.wait_back("new")


def test_workers_die(stack, tmp_path):
    """Who takes their place keeps it out, too."""
    pair = Pair(stack, tmp_path, workers=2)
    for _ in range(2):
        for worker in pair.proxy.children("worker"):
            after = pair.proxy.mark()
            worker.signal(signal.SIGKILL)
            pair.proxy.wait_for("child started", after=after)
            wait_until(lambda: pair.proxy.metric("keyless_key_channels_up") == 2, "its successor")
            pair.assert_shown(pair.rsa)
    pair.wait_back("new")


def test_over_reloads(stack, tmp_path):
    pair = Pair(stack, tmp_path, workers=2)
    for _ in range(3):
        pair.proxy.reload()
        pair.assert_shown(pair.rsa)
        pair.wait_waiting()
    pair.wait_back("new")
    pair.proxy.reload()
    pair.assert_shown(pair.ecdsa)
    assert pair.status_waiting() == 0


def test_reload_brings_it(stack, tmp_path):
    """A new file of which there was none before: as at the start."""
    pair = Pair(stack, tmp_path, start=False)
    away = tmp_path / "away.pem"
    pair.sites.path(NAME).rename(away)
    pair.proxy.start()
    pair.assert_shown(pair.rsa)
    pair.proxy.config["certificates"].append({"file": str(away)})
    pair.proxy.reload()
    pair.wait_kept_out()
    assert pair.proxy.find(WAITS, file="away.pem")
    pair.assert_shown(pair.rsa)
    pair.wait_back("new")


def test_renewed_with_a_good_one(stack, tmp_path):
    """Another chain in its file: what was found does not hold for it."""
    pair = Pair(stack, tmp_path, workers=2)
    pem = pair.sites.chain(NAME)
    pair.tell_key_server(pem)
    pair.replace(pem)
    pair.wait_shown(pem)
    pair.wait_waiting(0)
    pair.assert_shown(pem)
    assert pair.status_waiting() == 0


def test_none_works(stack, tmp_path):
    """The handshake asks for one of them."""
    pair = Pair(stack, tmp_path, start=False)
    (pair.sites.keys / "other.key").rename(pair.elsewhere / "other.key")
    pair.key_server.reload()
    pair.proxy.start()
    pair.wait_waiting(2)
    with pytest.raises(ssl.SSLError):
        pair.shown()
    pair.tell_key_server(key="other")
    pair.proxy.wait_for(HAS, file="a-rsa.pem", timeout=SECONDS)
    pair.wait_waiting(1)
    pair.wait_shown(pair.rsa)
    pair.assert_shown(pair.rsa)


def test_no_request_of_clients(stack, tmp_path):
    """Test requests are not counted as signatures for handshakes, nor are handshakes in their way."""
    pair = Pair(stack, tmp_path, limits={"handshakes": 1})
    requests = pair.proxy.metrics().matching("keyless_key_requests_total")
    assert not any(requests.values()), requests
    pair.assert_shown(pair.rsa, times=3)
    assert pair.proxy.metric("keyless_key_requests_total", outcome="ok") == 3
    assert pair.proxy.metric("keyless_key_requests_total") == 3
