"""Fixtures: certificates once, programs that are stopped and looked at whatever the test did."""

import contextlib
import os
import signal
import subprocess

import pytest

import harness
from fake_key_server import FakeKeyServer


def pytest_sessionstart(session):
    """Certificates, before anything is collected: some tables of tests are made from them. Who distributes the tests has
    made them for all who run some."""
    if hasattr(session.config, "workerinput"):
        return
    subprocess.run(["sh", harness.ROOT / "certs" / "make-certs.sh", harness.CERTS], check=True)


# Files that take longest: begun last, they would be waited for alone.
LONGEST = ["test_many_names", "test_key_servers_at_scale", "test_key_server_names", "test_ocsp", "test_key_servers",
           "test_several_key_servers", "test_keyserver_life", "test_lifecycle", "test_chains_kept_out", "test_responder_names",
           "test_client_certificates", "test_tickets", "test_admin", "test_bench", "test_renewal", "test_hostile_peers",
           "test_browser", "test_certificate_trials", "test_relay", "test_key_server_away"]


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: LONGEST.index(item.module.__name__) if item.module.__name__ in LONGEST else len(LONGEST))


class Stack:
    """Programs of one test: whatever is started through it is stopped and checked at the end."""

    def __init__(self, directory):
        self.directory = directory
        self.programs = []
        self.others = []

    def _keep(self, program):
        self.programs.append(program)
        return program

    def key_server(self, start=True, **changes):
        name = changes.pop("name", f"keyserver{len(self.programs)}")
        program = self._keep(harness.KeyServer(self.directory, name=name, **changes))
        return program.start() if start else program

    def proxy(self, key_server, start=True, **changes):
        name = changes.pop("name", f"proxy{len(self.programs)}")
        program = self._keep(harness.Proxy(self.directory, key_server, name=name, **changes))
        return program.start() if start else program

    def pair(self, key_server=None, **proxy_changes):
        """A key server and a proxy that uses it."""
        server = self.key_server(**(key_server or {}))
        return server, self.proxy(server, **proxy_changes)

    def relay(self, target):
        """keyless-relay in front of a program or a port."""
        made = harness.Relay(target)
        self.others.append(made)
        return made.start()

    def fake_key_server(self, behaviour=None, **settings):
        """A key server in Python that behaves as told."""
        made = FakeKeyServer(behaviour, **settings)
        self.others.append(made)
        return made.start()

    def finish(self):
        problems = []
        for program in reversed(self.programs):
            try:
                if program.popen is not None:
                    for process in program.processes():
                        with contextlib.suppress(ProcessLookupError):  # one that was draining may end just now
                            process.signal(signal.SIGCONT)
                    status = program.stop()
                    if status != 0:
                        problems.append(f"{program.name} ended with status {status}:\n{program.tail()}")
                program.assert_clean()
            except (AssertionError, OSError) as error:
                problems.append(str(error))
            finally:
                program.kill_all()
        for other in reversed(self.others):
            if other.stop() != 0:
                problems.append(f"{other} did not end well")
        assert not problems, "\n".join(problems)


@pytest.fixture
def lean(monkeypatch):
    """For programs whose memory is looked at. What else ASan takes would hide what they keep themselves: freed memory in its
    quarantine, and stacks beside the stack, by default since gcc 13, of which a page is touched now and then until all are."""
    options = [os.environ.get("ASAN_OPTIONS", ""), "quarantine_size_mb=0", "thread_local_quarantine_size_kb=0",
               "detect_stack_use_after_return=0"]
    monkeypatch.setenv("ASAN_OPTIONS", ":".join(filter(None, options)))


@pytest.fixture
def stack(tmp_path):
    programs = Stack(tmp_path)
    yield programs
    programs.finish()


@pytest.fixture(scope="module")
def module_stack(tmp_path_factory):
    """Programs that the tests of one file share, for tests that change nothing."""
    programs = Stack(tmp_path_factory.mktemp("stack"))
    yield programs
    programs.finish()


@pytest.hookimpl(tryfirst=True, hookwrapper=True)
def pytest_runtest_makereport(item, call):
    outcome = yield
    report = outcome.get_result()
    if report.failed:
        for name in ("stack", "module_stack"):
            programs = item.funcargs.get(name)
            for program in programs.programs if programs else []:
                report.sections.append((f"log of {program.name}", program.tail(80)))
