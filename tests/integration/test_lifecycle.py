"""Starting, checking, reloading and ending: exit statuses, messages, and what must go on meanwhile."""

import contextlib
import json
import os
import re
import shutil
import signal
import socket

import pytest

import clients
import harness
import watched
from clients import Load
from counters import Gains
from harness import CHANNEL, SITES, curl, open_to_all, wait_until


@pytest.fixture
def both(stack):
    server = stack.key_server(start=False)
    return {"keyserver": server, "proxy": stack.proxy(server, start=False)}


PROGRAMS = pytest.mark.parametrize("which", ["keyserver", "proxy"])


@PROGRAMS
@pytest.mark.parametrize("option", ["-V", "--version"])
def test_version(both, which, option):
    done = both[which].run(option)
    assert done.returncode == 0
    assert f"keyless-{which} " in done.stdout and "OpenSSL 3." in done.stdout and "libevent 2." in done.stdout


@PROGRAMS
@pytest.mark.parametrize("option", ["-h", "--help"])
def test_help(both, which, option):
    done = both[which].run(option)
    assert done.returncode == 0
    assert "-c FILE" in done.stdout and "Exit status: 0" in done.stdout and not done.stderr


@PROGRAMS
@pytest.mark.parametrize("arguments", [[], ["-c"], ["-x"], ["-c", "/nowhere.yaml"], ["-t"], ["-c", "/nowhere.yaml", "-t"]])
def test_bad_usage(both, which, arguments):
    done = both[which].run(*arguments)
    assert done.returncode == 2
    assert done.stderr.strip()


@PROGRAMS
def test_check(both, which):
    done = both[which].check()
    assert done.returncode == 0, done.stderr
    assert "handshake_timeout" in done.stdout  # a default, shown with its value in force


def test_check_lists_the_same_keys(both):
    """What one side's -t lists and the other's does not could not be signed for."""
    lists = [
        {tuple(line.split()[1:3]) for line in both[which].check().stdout.splitlines() if re.match(r"# [0-9a-f]{40} ", line)}
        for which in both
    ]
    assert len(lists[0]) > 5 and lists[0] == lists[1]


@PROGRAMS
def test_channel_key_for_everybody(both, which, tmp_path):
    program = both[which]
    section = program.config["tls" if which == "keyserver" else "key_channel"]
    section["key"] = str(shutil.copy(section["key"], tmp_path))
    os.chmod(section["key"], 0o604)
    done = program.check()
    assert done.returncode == 2
    assert f"{section['key']}: its mode is 0604" in done.stderr
    os.chmod(section["key"], 0o640)
    assert program.check().returncode == 0


@PROGRAMS
def test_json_from_the_first_line(both, which):
    program = both[which]
    program.config["log"] = {"format": "json"}
    program.launch()
    wait_until(lambda: '"event":"ready"' in program.text(), "ready")
    lines = program.text().rpartition("\n")[0].splitlines()  # whole ones
    assert json.loads(lines[0])["event"] in ("starting", "no user is set")
    assert all(json.loads(line)["program"] == which for line in lines)


def test_closed_standard_descriptors(stack):
    """What is opened first must not get number 2, or the log would be written into it."""
    server = stack.key_server(start=False, wrapper=["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh"])
    server.launch()
    wait_until(lambda: len(harness.Process(server.popen.pid).children()) >= 2, "children")
    for process in [harness.Process(server.popen.pid)]:
        for number in range(3):
            assert os.readlink(f"/proc/{process.pid}/fd/{number}") == "/dev/null"


BAD = {
    "unknown setting": ({"wrokers": 2}, ["wrokers", "workers"]),
    "wrong type": ({"workers": "many"}, ["workers", "many"]),
    "wrong address": ({"listen": ["127.0.0.1:notaport"]}, ["listen", "notaport"]),
    "unknown user": ({"user": "no-such-user"}, ["no-such-user", "user: "]),
    "user root": ({"user": "root"}, ["root", "user: "]),
}


@PROGRAMS
@pytest.mark.parametrize("what", BAD)
def test_bad_configuration(both, which, what):
    if "user" in what and os.geteuid() != 0:
        pytest.skip("only root becomes another user")
    changes, words = BAD[what]
    program = both[which]
    if what == "wrong address" and which == "proxy":
        changes = {"listen": [{"address": "127.0.0.1:notaport", "backend": "web"}]}
    program.config.update(changes)
    checked = program.check()
    assert checked.returncode == 2
    assert f"{program.config_path}:" in checked.stderr
    for word in words:
        assert word in checked.stderr, checked.stderr
    assert program.launch().wait_exit() == 2
    assert words[0] in program.text()
    program.popen = None


# What is wrong in the files behind a setting is told with the configuration's name and the setting's.
BAD_FILES = {
    "no chain": ({"certificates": [{"file": "/nowhere.pem"}]}, ":", "certificates.file: /nowhere.pem: No such file"),
    "no directory": ({"certificates": [{"dir": "/nowhere"}]}, ":", "certificates.dir: /nowhere: No such file"),
    "key among chains": ({"certificates": [{"dir": str(harness.SITES / "keys")}]}, ":", "private key"),
    "no such default": ({"tls": {"default": "nowhere.example"}}, ": tls.default: ", "nowhere.example"),
    "no channel key": ({"key_channel": watched.key_channel(key="/nowhere.pem")}, ": key_channel: ", "/nowhere.pem: No such file"),
    "channel key is a site's": (
        {"key_channel": watched.key_channel(certificate=str(harness.SITES / "chains" / "p256.pem"),
                                            key=str(harness.SITES / "keys" / "p256.key"))},
        ": key_channel.key: ", "p256.pem: a site's keys belong on the key server"),
    "channel key is none": (
        {"key_channel": watched.key_channel(key=str(harness.CHANNEL / "ca.pem"))}, ": key_channel: ", "ca.pem"),
}


@pytest.mark.parametrize("what", BAD_FILES)
def test_bad_files(both, what):
    changes, before, words = BAD_FILES[what]
    proxy = both["proxy"]
    proxy.config.update(changes)
    checked = proxy.check()
    assert checked.returncode == 2
    assert f"{proxy.config_path}{before}" in checked.stderr and words in checked.stderr, checked.stderr
    assert proxy.launch().wait_exit() == 2
    assert words in proxy.text()
    proxy.popen = None


@pytest.mark.parametrize("form", ["pem", "chain", "der", "encrypted", "sec1"])
def test_proxy_refuses_a_site_key(both, form, tmp_path):
    """A file among the chains that holds a private key, in whatever form, and the proxy does not start."""
    key = SITES / "keys" / "p256.key"
    chains = tmp_path / "chains"
    chains.mkdir()
    target = chains / "site.pem"
    openssl = {
        "der": ["pkcs8", "-topk8", "-nocrypt", "-outform", "DER"],
        "encrypted": ["pkcs8", "-topk8", "-passout", "pass:secret"],
        "sec1": ["ec"],
    }
    if form in openssl:
        harness.subprocess.run(["openssl", *openssl[form], "-in", key, "-out", target], check=True, capture_output=True)
    else:
        target.write_bytes((SITES / "chains" / "p256.pem").read_bytes() if form == "chain" else b"")
        target.write_bytes(target.read_bytes() + key.read_bytes())
    proxy = both["proxy"]
    proxy.config["certificates"] = [{"dir": str(chains)}]
    checked = proxy.check()
    assert checked.returncode == 2
    assert str(target) in checked.stderr and "private key" in checked.stderr
    assert proxy.launch().wait_exit() == 2
    assert "private key" in proxy.text()
    proxy.popen = None


def test_address_in_use(stack):
    server = stack.key_server()
    second = stack.key_server(start=False)
    second.config["listen"] = server.config["listen"]
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        second.config["listen"] = [f"127.0.0.1:{holder.getsockname()[1]}"]
        assert second.launch().wait_exit() in (1, 2)
    second.popen = None
    assert "in use" in second.text()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give up root")
def test_privileges_are_dropped(stack):
    server, proxy = stack.pair()
    nobody = 65534
    for program in (server, proxy):
        assert program.master().user() == 0
        for child in program.children():
            assert child.user() == nobody, child.name()


@PROGRAMS
def test_quit_ends_at_once(stack, which):
    server, proxy = stack.pair()
    program = server if which == "keyserver" else proxy
    children = program.children()
    with contextlib.closing(clients.connect(proxy.port)):
        assert program.stop(signal.SIGQUIT) == 0
        assert not any(child.alive() for child in children)


def test_proxy_drains(stack):
    """SIGTERM: nobody new is accepted, an open connection is served to its end."""
    _, proxy = stack.pair()
    with clients.connect(proxy.port) as client:
        proxy.master().signal(signal.SIGTERM)

        def refused():
            try:
                socket.create_connection(("127.0.0.1", proxy.port), timeout=1).close()
            except ConnectionRefusedError:
                return True
            return False

        wait_until(refused, "new connections to be refused")
        client.sendall(b"GET / HTTP/1.1\r\nHost: p256.example\r\n\r\n")
        assert client.recv(65536).startswith(b"HTTP/1.1 200")
    assert proxy.wait_exit() == 0
    proxy.popen = None


def test_drain_has_a_deadline(stack):
    _, proxy = stack.pair(drain_timeout="500ms")
    with clients.connect(proxy.port):
        assert proxy.stop() == 0


def test_what_a_drain_cuts_off_is_told(stack):
    """Past drain_timeout: each connection is counted and has its line, and a handshake that was under way one more."""
    server, proxy = stack.pair({"queues": {"deadline": "60s"}}, drain_timeout="500ms", key_channel=watched.key_channel(timeout="9s"))
    (signer,) = server.children("signer")
    gains = Gains(proxy)
    with clients.connect(proxy.port), socket.create_connection(("127.0.0.1", proxy.port)) as waiting:
        signer.signal(signal.SIGSTOP)
        try:
            waiting.sendall(clients.client_hello("p256.example"))
            wait_until(lambda: proxy.metric("keyless_key_requests_pending") == 1, "the signature to be pending")
            proxy.reload()
            dropped = 'keyless_connections_closed_total{reason="dropped"}'
            wait_until(lambda: proxy.metrics()[dropped] == 2, "both to be cut off")
        finally:
            signer.signal(signal.SIGCONT)
    line = proxy.wait_for("handshake failed", reason="the worker ends")
    assert line["stage"] == "key" and line["sni"] == "p256.example"
    dropped = proxy.find("access", end="dropped", sni="p256.example")
    assert sorted(line.get("stage", "") for line in dropped) == ["", "key"]
    assert proxy.metric("keyless_handshakes_total", outcome="aborted") == 1
    gains.assert_failures(dropped=1)
    gains.assert_gained("keyless_key_requests_total", server="keys-a", outcome="cancelled")


def test_reload_loses_nothing(stack):
    """Eight reloads of each program under load: no client notices."""
    server, proxy = stack.pair(workers=2)
    with Load(proxy.port) as load:
        load.more(10)
        for _ in range(4):
            proxy.reload()
            server.reload()
            load.more(5)
    assert not load.failures, load.failures
    assert proxy.metric("keyless_reloads_total", outcome="ok") == 4


def test_open_connection_survives_a_reload(stack):
    server, proxy = stack.pair()
    with clients.connect(proxy.port) as client:
        proxy.reload()
        server.reload()
        client.sendall(b"GET / HTTP/1.1\r\nHost: p256.example\r\n\r\n")
        assert client.recv(65536).startswith(b"HTTP/1.1 200")


@PROGRAMS
def test_bad_reload_changes_nothing(stack, which):
    server, proxy = stack.pair()
    program = server if which == "keyserver" else proxy
    children = {child.pid for child in program.children()}
    good = dict(program.config)
    program.config["wrokers"] = 3
    line = program.reload(expect="reload failed")
    assert "wrokers" in line["reason"]
    program.config = dict(good, tls=dict(good["tls"]))
    if which == "keyserver":
        program.config["keys"] = [{"dir": str(program.directory / "none")}]
    else:
        program.config["certificates"] = [{"dir": str(program.directory / "none")}]
    line = program.reload(expect="reload failed")
    assert "none" in line["reason"]
    wait_until(lambda: {child.pid for child in program.children()} == children, "only the old children to be left")
    assert curl("p256.example", proxy.port).status == 0
    wait_until(lambda: program.metric("keyless_reloads_total", outcome="failed") == 2, "both failures to be counted")
    program.config = good
    program.reload()
    assert curl("p256.example", proxy.port).status == 0


def test_reload_brings_new_certificates(stack, tmp_path):
    chains = tmp_path / "chains"
    chains.mkdir()
    (chains / "p256.pem").write_bytes((SITES / "chains" / "p256.pem").read_bytes())
    server, proxy = stack.pair(certificates=[{"dir": str(chains)}], tls={})
    before = curl("p384.example", proxy.port)
    assert before.status == 35 and "unrecognized name" in before.error
    (chains / "p384.pem").write_bytes((SITES / "chains" / "p384.pem").read_bytes())
    proxy.reload()
    assert curl("p384.example", proxy.port).json()["scheme"] == "ecdsa_secp384r1_sha384"


def test_key_server_over_a_unix_socket(stack):
    path = stack.directory / "keyserver.sock"
    server = stack.key_server(start=False)
    server.config["listen"] = [f"unix:{path}"]
    server.start()
    proxy = stack.proxy(server, start=False)
    proxy.config["key_servers"][0]["address"] = f"unix:{path}"
    open_to_all(stack.directory)
    path.chmod(0o666)  # the worker that connects is nobody
    proxy.start()
    assert curl("p256.example", proxy.port).json()["key_server"] == "keys-a"


WRONG_CERTIFICATES = {
    # the end that has it, its certificate: what the key server's log says and counts, what the proxy's log says
    ("proxy", "bad-edge-other-ca"): ("unable to get local issuer certificate", "certificate_refused", "unknown CA"),
    ("proxy", "bad-edge-server-eku"): ("purpose", "certificate_refused", "unsupported certificate"),
    ("proxy", "stranger"): (None, None, None),
    ("keyserver", "bad-keyserver-other-ca"): ("unknown CA", "alert", "unable to get local issuer certificate"),
    ("keyserver", "bad-keyserver-client-eku"): ("unsupported certificate", "alert", "purpose"),
    ("keyserver", "bad-keyserver-name"): ("bad certificate", "alert", "other.example"),
}


@pytest.mark.parametrize("which, name", WRONG_CERTIFICATES)
def test_wrong_channel_certificate(stack, which, name):
    """Refused by either side: no handshake with clients, and lines on both sides that say why."""
    server = stack.key_server(start=False)
    proxy = stack.proxy(server, start=False)
    identity = {"certificate": str(CHANNEL / f"{name}.pem"), "key": str(CHANNEL / f"{name}-key.pem")}
    (server.config["tls"] if which == "keyserver" else proxy.config["key_channel"]).update(identity)
    proxy.config["key_channel"]["timeout"] = "300ms"
    server.start()
    proxy.launch()
    of_server, counted, of_proxy = WRONG_CERTIFICATES[which, name]
    if name == "stranger":
        line = server.wait_for("client refused")
        assert "stranger.example" in str(line)
        assert server.metric("keyless_keyserver_connections_refused_total", reason="no_client_entry") > 0
    else:
        server.wait_for("handshake failed", reason=of_server)
        assert server.metric("keyless_keyserver_handshake_failures_total", reason=counted) > 0
        proxy.wait_for("key server not reached", reason=of_proxy)
    proxy.wait_ready()
    assert curl("p256.example", proxy.port).status == 35
    wait_until(lambda: proxy.metric("keyless_handshakes_total", outcome="key") == 1, "the handshake to be counted")
    assert proxy.metric("keyless_handshake_failures_total", reason="no_key_server") == 1
    assert proxy.metric("keyless_key_connects_failed_total", server="keys-a") > 0


@pytest.mark.parametrize("which, name", [("proxy", "bad-edge-expired"), ("keyserver", "bad-keyserver-expired")])
def test_own_certificate_expired(stack, which, name):
    server = stack.key_server(start=False)
    proxy = stack.proxy(server, start=False)
    program = server if which == "keyserver" else proxy
    identity = {"certificate": str(CHANNEL / f"{name}.pem"), "key": str(CHANNEL / f"{name}-key.pem")}
    program.config["tls" if which == "keyserver" else "key_channel"].update(identity)
    assert program.launch().wait_exit() == 2
    assert "expired" in program.text() and name in program.text()
    program.popen = None


def test_suppressed_lines_are_told(stack):
    """The number of lines that a rate left out comes by itself, not with the next line."""
    server = stack.key_server()
    proxy = stack.proxy(server, log={"level": "info", "rate": 1})
    for _ in range(6):
        socket.create_connection(("127.0.0.1", proxy.port), timeout=harness.PATIENCE).close()

    def told():
        written = len(proxy.find("handshake failed", reason="client closed"))
        suppressed = proxy.find("suppressed", of="handshake failed", reason="client closed")
        return written + sum(int(line["count"]) for line in suppressed) == 6

    wait_until(told, f"all six lines, written or counted:\n{proxy.tail()}")
    assert proxy.metric("keyless_handshake_failures_total", reason="client_closed") == 6


def test_lines_tell_the_generation(stack):
    """During a reload there are two of each child; their lines can be told apart."""
    server, proxy = stack.pair()
    assert curl("p256.example", proxy.port).status == 0
    mark = proxy.mark()
    proxy.reload()
    assert curl("p256.example", proxy.port).status == 0
    for after, generation in ((0, "1"), (mark, "2")):
        proxy.wait_for("access", after=after, process="worker/0", generation=generation)
