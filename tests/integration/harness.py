"""Runs the real programs for the integration tests: configuration, start, log, metrics, processes, clean end.

Every wait has a deadline and a condition; nothing sleeps for a fixed time and hopes.
"""

import contextlib
import functools
import itertools
import json
import os
import pathlib
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("KEYLESS_BUILD", ROOT / "build" / "dev"))
CERTS = pathlib.Path(os.environ.get("KEYLESS_CERTS", ROOT / "certs" / "out"))
SANITIZED = os.environ.get("KEYLESS_SANITIZED", "1") == "1"
# Limits in time as they are promised, without the slack that a shared machine needs: for the long run.
STRICT = os.environ.get("KEYLESS_STRICT", "0") == "1"
# A sanitizer build on a busy machine needs patience; a condition that holds ends the wait at once.
PATIENCE = float(os.environ.get("KEYLESS_PATIENCE", "20"))

PASS_SOCKETS = pathlib.Path(__file__).parent / "pass_sockets.py"
SITE_CA = CERTS / "sites" / "ca.pem"
CHANNEL = CERTS / "channel"
SITES = CERTS / "sites"

_SANITIZER_REPORT = re.compile(r"(ERROR: \w+Sanitizer|runtime error:|WARNING: \w+Sanitizer)")


@functools.lru_cache
def openssl_version():
    """Of the OpenSSL that the programs under test run with: (3, 5). Some of its alerts are not what 3.0 sent."""
    shown = subprocess.run([BUILD / "proxy" / "keyless-proxy", "-V"], capture_output=True, text=True, check=True).stdout
    return tuple(int(number) for number in re.search(r"^OpenSSL (\d+)\.(\d+)", shown, re.MULTILINE).groups())


def wait_until(condition, what, timeout=None):
    """Calls condition until it returns something true, which is returned; fails after timeout seconds."""
    timeout = PATIENCE if timeout is None else timeout
    deadline = time.monotonic() + timeout
    pause = 0.005
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {timeout} s in vain for {what}")
        time.sleep(pause)
        pause = min(pause * 1.5, 0.1)


PORTS_OF_ONE = 500


def _own_ports():
    """Ports below the range that outgoing connections use, of which no other run of these tests takes any: between
    choosing a port and binding it, another could. An abstract name, held to the end, says whose they are."""
    for first in range(20000, 32000, PORTS_OF_ONE):
        claim = socket.socket(socket.AF_UNIX)
        try:
            claim.bind(f"\0keyless-tests-{first}")
        except OSError:
            claim.close()
            continue
        return claim, itertools.cycle(range(first, first + PORTS_OF_ONE))
    raise AssertionError("too many runs at the same time")


_claim, _ports = _own_ports()


def loopback_families():
    """(family, address) of each loopback that this machine has; containers are often without IPv6."""
    found = []
    for family, host in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
        with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.bind((host, 0))
            found.append((family, host))
    return found


LOOPBACKS = loopback_families()


def free_port():
    """A port of the loopbacks on which nothing listens."""
    for port in _ports:
        with contextlib.ExitStack() as stack:
            try:
                for family, host in LOOPBACKS:
                    probe = stack.enter_context(socket.socket(family, socket.SOCK_STREAM))
                    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    probe.bind((host, port))
            except OSError:
                continue
            return port


@functools.lru_cache(maxsize=100_000)  # who waits for a line reads the same ones again and again
def parse_logfmt(line):
    """One log line as a dict. Values are as written, unquoted; escapes stay."""
    fields = {}
    for match in re.finditer(r'([A-Za-z_][\w.]*)=("(?:[^"\\]|\\.)*"|\S*)', line):
        value = match.group(2)
        fields[match.group(1)] = value[1:-1] if value.startswith('"') else value
    return fields


class Process:
    """What /proc tells of one process."""

    def __init__(self, pid):
        self.pid = pid

    def _read(self, name):
        return pathlib.Path(f"/proc/{self.pid}/{name}").read_text()

    def alive(self):
        try:
            return self.state() != "Z"
        except (FileNotFoundError, ProcessLookupError):
            return False

    def state(self):
        return self._read("stat").rpartition(")")[2].split()[0]

    def name(self):
        return self._read("comm").strip()

    def runs(self, program):
        """By the file itself: in another mount namespace it may have another path."""
        return os.path.samestat(os.stat(f"/proc/{self.pid}/exe"), os.stat(program))

    def children(self):
        found = []
        for task in pathlib.Path(f"/proc/{self.pid}/task").iterdir():
            found += [Process(int(pid)) for pid in (task / "children").read_text().split()]
        return found

    def listens(self):
        """Whether it has a listening socket still, of TCP or a Unix one."""
        try:
            own = {os.readlink(f"/proc/{self.pid}/fd/{number}") for number in os.listdir(f"/proc/{self.pid}/fd")}
        except FileNotFoundError:  # it closes them just now: the answer is in the next look
            return self.alive()
        except OSError:  # it has ended, or is another user's
            return False
        return any(f"socket:[{inode}]" in own for inode in listening_sockets())

    def resident(self):
        """Resident memory in bytes."""
        return int(re.search(r"VmRSS:\s+(\d+) kB", self._read("status")).group(1)) * 1024

    def user(self):
        return int(re.search(r"Uid:\s+(\d+)", self._read("status")).group(1))

    def descriptors(self):
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def signal(self, number):
        os.kill(self.pid, number)


def listening_sockets():
    """The inodes of all of them on this machine."""
    found = set()
    for table, flags, listening, inode in (("tcp", 3, 0x0A, 9), ("tcp6", 3, 0x0A, 9), ("unix", 3, 0x10000, 6)):
        with contextlib.suppress(FileNotFoundError):
            for line in pathlib.Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
                fields = line.split()
                if int(fields[flags], 16) == listening:
                    found.add(fields[inode])
    return found


class Metrics(dict):
    """What a page of metrics has: {'name{labels}': value}."""

    def matching(self, name, *labels):
        """The series of this name whose labels include these, each like 'outcome="ok"'."""
        found = {}
        for series, value in self.items():
            base, _, rest = series.partition("{")
            if base == name and all(label in rest for label in labels):
                found[series] = value
        return found

    def sum(self, name, *labels):
        return sum(self.matching(name, *labels).values())


class Program:
    """One of our programs with a configuration of its own in a directory of its own."""

    binary = None
    directory_of_binary = None
    ready_event = "ready"

    def __init__(self, directory, config, name=None, wrapper=()):
        self.name = name or self.binary
        self.directory = pathlib.Path(directory)
        self.directory.mkdir(parents=True, exist_ok=True)
        self.config_path = self.directory / f"{self.name}.yaml"
        self.log_path = self.directory / f"{self.name}.log"
        self.config = config
        self.wrapper = list(wrapper)
        self.stdout = None  # a descriptor; None: into the log, as standard error
        self.inherits = []  # (socket, name): what a service manager passes on at the next launch
        self.popen = None
        self.expect_sanitizer_report = False
        self.environment = dict(os.environ)

    # ---- Life.

    @classmethod
    def path(cls):
        return BUILD / cls.directory_of_binary / cls.binary

    def write_config(self):
        # JSON is YAML's flow style, and needs no library to write.
        self.config_path.write_text(json.dumps(self.config, indent=2) + "\n")

    def run(self, *arguments, timeout=60):
        """Runs the program to its end with other arguments (-t, -V, ...)."""
        return subprocess.run(
            [self.path(), *map(str, arguments)], capture_output=True, text=True, timeout=timeout, check=False
        )

    def check(self):
        """keyless-... -t on the configuration as it is now."""
        self.write_config()
        return self.run("-c", self.config_path, "-t")

    def launch(self):
        self.write_config()
        passed = [f"{one.fileno()}:{name}" for one, name in self.inherits]
        manager = [sys.executable, PASS_SOCKETS, *passed, "--"] if passed else []
        with open(self.log_path, "ab") as log:
            self.popen = subprocess.Popen(
                [*manager, *self.wrapper, self.path(), "-c", self.config_path],
                stdin=subprocess.DEVNULL,
                stdout=log if self.stdout is None else self.stdout,
                stderr=log,
                env=self.environment,
                pass_fds=[one.fileno() for one, _ in self.inherits],
                start_new_session=True,
            )
        return self

    def start(self):
        self.launch()
        self.wait_ready()
        return self

    def restart(self):
        """Ended in good order, and started with the configuration as it is now."""
        assert self.stop() == 0
        after = self.mark()
        self.launch()
        self.wait_ready(after)

    def wait_ready(self, after=0):
        def ready():
            if self.popen.poll() is not None:
                raise AssertionError(f"{self.name} ended with {self.popen.returncode}:\n{self.tail()}")
            return self.find(self.ready_event, after=after)

        wait_until(ready, f"{self.name} to be ready")

    def wait_exit(self, timeout=None):
        try:
            return self.popen.wait(PATIENCE if timeout is None else timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self.name} did not end:\n{self.tail()}") from None

    def stop(self, number=signal.SIGTERM):
        """Ends the program and returns its exit status."""
        if self.popen is None:
            return None
        if self.popen.poll() is None:
            os.kill(self.master().pid, number)
        status = self.wait_exit()
        self.popen = None
        return status

    def kill_all(self):
        """Whatever is left, by the process group of its own session."""
        if self.popen is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.popen.pid, signal.SIGKILL)
            self.popen.wait()
            self.popen = None

    def reload(self, expect="reloaded"):
        """SIGHUP with the configuration as it is now; waits for the line that tells how it went, and after a good
        one until nobody of before accepts any more: who connects now meets the new configuration."""
        after = self.mark()
        before = self.children()
        self.write_config()
        self.master().signal(signal.SIGHUP)
        line = self.wait_for(expect, after=after)
        if expect == "reloaded":
            wait_until(lambda: not any(child.listens() for child in before), "the old children to accept no more")
        return line

    def master(self):
        """A wrapper may have become the program, or have it as its only child."""
        launched = Process(self.popen.pid)
        if not (self.wrapper or self.inherits) or launched.runs(self.path()):
            return launched
        return wait_until(lambda: next(iter(Process(self.popen.pid).children()), None), "the wrapped program")

    def children(self, kind=None):
        """Live child processes; kind is the end of their name: "worker", "frontend", "signer"."""
        found = []
        for child in self.master().children():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                if child.alive() and (kind is None or child.name().endswith(kind)):
                    found.append(child)
        return found

    def processes(self):
        """The master, then its children; none if it has ended by itself."""
        return [self.master(), *self.children()] if self.popen.poll() is None else []

    # ---- Log.

    def mark(self):
        """A place in the log: pass it as after= to look only at what is written later."""
        return self.log_path.stat().st_size if self.log_path.exists() else 0

    def text(self, after=0):
        if not self.log_path.exists():
            return ""
        with open(self.log_path, "rb") as log:
            log.seek(after)
            return log.read().decode("utf-8", "replace")

    def tail(self, lines=40):
        return "\n".join(self.text().splitlines()[-lines:])

    def lines(self, after=0):
        """All that are complete: a reader may see the first half of one that is being written."""
        complete = self.text(after).rpartition("\n")[0]
        return [parse_logfmt(line) for line in complete.splitlines() if line.startswith("time=")]

    def find(self, event, after=0, **fields):
        """The lines of this event whose fields contain these texts."""
        return [
            line
            for line in self.lines(after)
            if line.get("event") == event and all(str(v) in line.get(k, "") for k, v in fields.items())
        ]

    def wait_for(self, event, after=0, timeout=None, **fields):
        what = f"{self.name} to log event={event!r} {fields}"
        try:
            return wait_until(lambda: self.find(event, after, **fields), what, timeout)[0]
        except AssertionError as error:
            raise AssertionError(f"{error}; its log:\n{self.tail()}") from None

    def assert_clean(self):
        report = _SANITIZER_REPORT.search(self.text())
        if report and not self.expect_sanitizer_report:
            raise AssertionError(f"{self.name} has a sanitizer's report in its log:\n{self.text()[-12000:]}")

    # ---- Admin.

    @property
    def admin_port(self):
        return int(self.config["admin"]["listen"].rpartition(":")[2])

    def page(self, path):
        """The body of a page of the admin endpoint that is there."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.admin_port}{path}", timeout=PATIENCE) as answer:
            return answer.read().decode()

    def readiness(self):
        """The status of /readyz, and what it says; (None, reason) when nobody answers."""
        try:
            return 200, self.page("/readyz").strip()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode().strip()
        except OSError as error:
            return None, str(error)

    def status(self):
        return json.loads(self.page("/status"))

    def metrics(self, prefix=""):
        """{'name{labels}': value} of everything at /metrics whose name begins so."""
        found = Metrics()
        for line in self.page("/metrics").splitlines():
            if line and not line.startswith("#") and line.startswith(prefix):
                series, _, value = line.rpartition(" ")
                found[series] = float(value)
        return found

    def metric(self, name, **labels):
        """The sum of the series of this name whose labels include these."""
        return self.metrics(name).sum(name, *(f'{key}="{value}"' for key, value in labels.items()))


class KeyServer(Program):
    binary = "keyless-keyserver"
    directory_of_binary = "keyserver"

    def __init__(self, directory, name=None, wrapper=(), **changes):
        self.port = free_port()
        config = {
            "workers": 1,
            "listen": [f"127.0.0.1:{self.port}"],
            "tls": {
                "certificate": str(CHANNEL / "keyserver.pem"),
                "key": str(CHANNEL / "keyserver-key.pem"),
                "client_ca": str(CHANNEL / "ca.pem"),
            },
            "keys": [{"dir": str(SITES / "keys")}],
            "certificates": [{"dir": str(SITES / "chains")}],
            "clients": [{"match": "DNS:edge1.example", "keys": ["*"], "allow": ["tls13", "tls12", "list"]}],
            "admin": {"listen": f"127.0.0.1:{free_port()}"},
            "log": {"level": "debug"},
        }
        super().__init__(directory, _changed(config, changes), name, wrapper)


class Proxy(Program):
    binary = "keyless-proxy"
    directory_of_binary = "proxy"

    def __init__(self, directory, key_server, name=None, wrapper=(), **changes):
        self.port = free_port()
        config = {
            "workers": 1,
            "listen": [{"address": f"127.0.0.1:{self.port}", "backend": "web"}],
            "tls": {"default": "localhost"},
            "certificates": [{"dir": str(SITES / "chains")}],
            "key_servers": [
                {
                    "name": "keys-a",
                    "address": f"127.0.0.1:{key_server if isinstance(key_server, int) else key_server.port}",
                    "server_name": "keys.example",
                }
            ],
            "key_channel": {
                "certificate": str(CHANNEL / "edge1.pem"),
                "key": str(CHANNEL / "edge1-key.pem"),
                "ca": str(CHANNEL / "ca.pem"),
            },
            "backends": {"web": {"servers": ["builtin:hello"]}},
            "admin": {"listen": f"127.0.0.1:{free_port()}"},
            "log": {"level": "debug", "access": "stdout"},
        }
        super().__init__(directory, _when_signed(_changed(config, changes)), name, wrapper)

    def wait_tried(self, timeout=None):
        """Until its key server, which is there, was asked about each chain: what it is asked from now on is for clients."""
        wait_until(lambda: self.metric("keyless_certificates_untried") == 0, "all chains to be tried", timeout)


def _when_signed(config):
    """The first flight goes out with the signature, not before it where the key server seems slow: what a client has seen
    would else be chance. A test that is about tls.early_flush sets it; None: what is the default."""
    tls = {"early_flush": "off", **config.get("tls", {})}
    return {**config, "tls": {key: value for key, value in tls.items() if value is not None}}


def _changed(config, changes):
    """Top-level settings replaced; None takes a setting out."""
    config = {**config, **changes}
    return {key: value for key, value in config.items() if value is not None}


class Relay:
    """keyless-relay between a client and a port: passes everything on, until it is told to misbehave."""

    def __init__(self, target):
        self.port = free_port()
        self.target = target if isinstance(target, int) else target.port
        self.popen = None

    def start(self):
        command = [BUILD / "tests" / "relay" / "keyless-relay", f"127.0.0.1:{self.port}", f"127.0.0.1:{self.target}"]
        self.popen = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._expect("ready")
        return self

    def _expect(self, word):
        line = self.popen.stdout.readline()
        assert line.split()[-1:] and word in line, f"keyless-relay answered {line!r}"
        return line

    def command(self, *words):
        """delay, stall, resume, corrupt, rate, drop, accept, cut: tests/relay/relay.c tells what they do."""
        self.popen.stdin.write(" ".join(map(str, words)) + "\n")
        self.popen.stdin.flush()
        return self._expect(f"ok {words[0]}")

    def stats(self):
        """Connections, octets and delays as numbers; the delays start anew."""
        return {key: int(value) for key, value in parse_logfmt(self.command("stats")).items()}

    def stop(self):
        """Ends it; returns its exit status."""
        if self.popen is None:
            return 0
        popen, self.popen = self.popen, None
        with contextlib.suppress(BrokenPipeError):
            popen.stdin.close()
        try:
            return popen.wait(PATIENCE)
        finally:
            popen.kill()
            popen.stdout.close()


class Curl:
    """What one run of curl saw."""

    def __init__(self, completed):
        self.status = completed.returncode
        self.body = completed.stdout
        self.error = completed.stderr.decode("utf-8", "replace")

    def json(self):
        assert self.status == 0, f"curl ended with {self.status}: {self.error}"
        return json.loads(self.body)


def curl(host, port, *arguments, path="/", timeout=None, address="127.0.0.1"):
    """curl to https://host:port at a loopback address, always verified against the sites' CA."""
    timeout = PATIENCE if timeout is None else timeout
    command = ["curl", "--silent", "--show-error", "--cacert", str(SITE_CA), "--max-time", str(timeout),
               "--resolve", f"{host}:{port}:{address}", *map(str, arguments), f"https://{host}:{port}{path}"]
    return Curl(subprocess.run(command, capture_output=True, timeout=timeout + 10, check=False))


def s_client(port, *arguments, stdin=b"", timeout=None):
    """openssl s_client; returns (exit status, everything it printed)."""
    command = ["openssl", "s_client", "-connect", f"127.0.0.1:{port}", "-CAfile", str(SITE_CA), *map(str, arguments)]
    done = subprocess.run(command, input=stdin, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          timeout=PATIENCE if timeout is None else timeout, check=False)
    return done.returncode, done.stdout.decode("utf-8", "replace")


def gnutls_status(port, name, ca, *arguments):
    """gnutls-cli's exit status: 0 when it takes the server's certificate, for which it asks for an OCSP response."""
    command = ["gnutls-cli", "-p", port, "127.0.0.1", "--x509cafile", ca, f"--sni-hostname={name}", f"--verify-hostname={name}",
               *arguments]
    return subprocess.run([str(word) for word in command], input=b"", capture_output=True, timeout=PATIENCE, check=False).returncode


def open_to_all(directory):
    """Lets those who are not root through to what is in a directory of pytest's: the proxy's worker is nobody."""
    for place in [directory, *directory.parents]:
        if place.stat().st_uid == os.getuid() and place.stat().st_mode & 0o055 != 0o055 and place != pathlib.Path("/"):
            place.chmod(place.stat().st_mode | 0o055)


def command_line(arguments):
    return " ".join(shlex.quote(str(a)) for a in arguments)
