"""What the processes may do once they have started, looked at and tried in the running programs."""

import ctypes
import errno
import os
import pathlib
import re
import subprocess
import sys

import pytest

import harness
import tracing
from harness import curl, wait_until

# Programs and kinds of their children.
KINDS = {"keyserver": ["signer", "frontend", "helper"], "proxy": ["worker", "helper"]}
EVERY_KIND = [(which, kind) for which, kinds in KINDS.items() for kind in kinds]

TRACED = pytest.mark.skipif(not tracing.SUPPORTED, reason=tracing.REASON)
END = "killed by SIGSYS"


def landlock_version():
    """The kernel's; 0: it has none."""
    return max(0, ctypes.CDLL(None).syscall(444, None, 0, 1))



@pytest.fixture
def both(stack):
    server, proxy = stack.pair({"workers": 2}, workers=2)
    return {"keyserver": server, "proxy": proxy}


def need_filter(program, after=0):
    """Skips with the program's own reason where it could not have one."""
    for line in program.find("not wholly confined", after=after, system_calls="false"):
        assert "libseccomp" in line["reason"] or not pathlib.Path("/proc/sys/kernel/seccomp").exists(), line
        pytest.skip(f"no filter of system calls: {line['reason']}")


@pytest.mark.release
@pytest.mark.parametrize("which", KINDS)
def test_every_thread_is_confined(both, which):
    program = both[which]
    need_filter(program)
    for process in program.children():
        for status in tracing.threads_status(process):
            assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2"), (process.name(), status["Name"])
    (master,) = tracing.threads_status(program.master())
    assert (master["NoNewPrivs"], master["Seccomp"]) == ("1", "0")


@pytest.mark.release
@pytest.mark.parametrize("which", KINDS)
def test_log_and_status_tell(both, which):
    """A line for each kind, not for each process; each process in /status."""
    program = both[which]
    need_filter(program)
    version = min(landlock_version(), 6)
    event, level = ("confined", "info") if version > 0 else ("not wholly confined", "warn")
    lines = program.find(event, level=level)
    assert sorted(line["process"] for line in lines) == sorted(f"{kind}/0" for kind in KINDS[which])
    assert {(line["system_calls"], line["landlock"]) for line in lines} == {("true", str(version))}
    processes = program.status()["processes"]
    assert {process["kind"] for process in processes} == set(KINDS[which])
    assert all(process["sandbox"] == {"system_calls": True, "landlock": version} for process in processes)


@pytest.mark.release
@pytest.mark.parametrize("which", KINDS)
def test_no_core_of_any_process(both, which):
    for process in both[which].processes():
        limits = pathlib.Path(f"/proc/{process.pid}/limits").read_text()
        assert re.search(r"^Max core file size\s+0\s+0\s", limits, re.MULTILINE), process.name()


@pytest.mark.release
@pytest.mark.skipif(harness.SANITIZED, reason="LeakSanitizer needs processes that can be traced")
@pytest.mark.skipif(os.geteuid() != 0, reason="children have another user only when started as root")
@pytest.mark.parametrize("which", KINDS)
def test_same_user_cannot_trace(both, which):
    """Nor read its memory: as the very user that the children run as."""
    for process in both[which].children():
        script = f"import tracing; print(tracing.try_to_attach({process.pid}), tracing.try_to_attach({os.getpid()}))"
        done = subprocess.run([sys.executable, "-c", script], cwd=pathlib.Path(__file__).parent, user=process.user(), group=65534,
                              extra_groups=[], capture_output=True, text=True, check=True)
        assert done.stdout.split()[0] == str(errno.EPERM), process.name()
        done = subprocess.run(["cat", f"/proc/{process.pid}/mem", f"/proc/{process.pid}/environ"], user=process.user(),
                              group=65534, extra_groups=[], capture_output=True, text=True, check=False)
        assert done.stderr.count("Permission denied") == 2 and not done.stdout, process.name()


@pytest.mark.release
def test_same_user_can_trace_otherwise():
    """What the test above sees refused is not refused anyhow."""
    with subprocess.Popen(["sleep", "60"], user=65534, group=65534, extra_groups=[]) as sleeper:
        script = f"import tracing; print(tracing.try_to_attach({sleeper.pid}))"
        done = subprocess.run([sys.executable, "-c", script], cwd=pathlib.Path(__file__).parent, user=65534, group=65534,
                              extra_groups=[], capture_output=True, text=True, check=True)
        sleeper.kill()
    assert done.stdout.strip() == "0"


# ---- What somebody who has taken a process over would try in it.


def assert_serves(both):
    assert curl("p256.example", both["proxy"].port).json()["key_server"] == "keys-a"


@pytest.mark.release
@TRACED
@pytest.mark.parametrize("call", ["execve", "fork", "kill", "mkdir"])
@pytest.mark.parametrize("which, kind", EVERY_KIND)
def test_killed_and_replaced(both, which, kind, call):
    program = both[which]
    need_filter(program)
    if harness.SANITIZED and call == "fork":
        call = "mkdir"  # LeakSanitizer may fork
    victim = program.children(kind)[0]
    assert tracing.call_in(victim, call) is None
    line = program.wait_for("child ended", child=kind, child_pid=victim.pid)
    assert line["level"] == "error"
    assert line["how"].startswith(END) and f"{tracing.CALLS[call]} ({call})" in line["how"]

    def replaced():
        started = program.find("child started", child=f"{kind}/")[-1]["child_pid"]
        live = [process for process in program.status()["processes"] if process["state"] == "ready"]
        return (started != str(victim.pid) and len(live) == len(program.children())
                and victim.pid not in [process["pid"] for process in live])

    with_helper = kind == "helper"
    wait_until(lambda: not with_helper or program.readiness()[0] is not None, "the admin endpoint to be back")
    wait_until(replaced, f"{kind} to be replaced")
    assert program.metric("keyless_children_restarted_total") == 1
    assert_serves(both)


SOCKETS = {"signer": False, "frontend": False, "helper": False, "worker": True}


@pytest.mark.release
@TRACED
@pytest.mark.parametrize("which, kind", EVERY_KIND)
def test_only_workers_make_sockets(both, which, kind):
    program = both[which]
    need_filter(program)
    process = program.children(kind)[0]
    descriptor = tracing.call_in(process, "socket", 2, 1, 0)
    if not SOCKETS[kind]:
        assert descriptor is None
        program.wait_for("child ended", child_pid=process.pid, how="(socket)")
        return
    assert descriptor > 2
    assert tracing.call_in(process, "socket", 16, 3, 0) is None  # netlink
    program.wait_for("child ended", child_pid=process.pid, how="(socket)")


@pytest.mark.release
@TRACED
@pytest.mark.skipif(harness.SANITIZED, reason="a sanitizer's report reads files")
@pytest.mark.parametrize("which, kind", EVERY_KIND)
def test_no_file_is_opened(both, which, kind):
    """It fails, which libraries that try can live with; and it fails before the kernel looks at the name."""
    program = both[which]
    need_filter(program)
    process = program.children(kind)[0]
    assert tracing.call_in(process, "openat", -100, 0, 0) == -errno.EACCES
    assert_serves(both)
    assert not program.find("child ended")


# ---- The setting.


@pytest.mark.parametrize("which", KINDS)
def test_off(stack, which):
    server = stack.key_server(**({"sandbox": False} if which == "keyserver" else {}))
    proxy = stack.proxy(server, **({"sandbox": False} if which == "proxy" else {}))
    program = server if which == "keyserver" else proxy
    assert curl("p256.example", proxy.port).json()["key_server"] == "keys-a"
    for process in program.children():
        for status in tracing.threads_status(process):
            assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "0")
    lines = program.find("not wholly confined", level="warn")
    assert len(lines) == len(KINDS[which]) and {line["reason"] for line in lines} == {"sandbox: off"}
    assert all(process["sandbox"] == {"system_calls": False, "landlock": 0} for process in program.status()["processes"])


def test_on_by_a_reload(stack):
    server = stack.key_server(sandbox=False)
    mark = server.mark()
    server.config["sandbox"] = True
    server.reload()
    wait_until(lambda: len(server.children()) == 3, "the old generation to end")
    need_filter(server, after=mark)
    assert all(status["Seccomp"] == "2" for process in server.children() for status in tracing.threads_status(process))
    assert server.reload()["generation"] == "3"


@pytest.mark.parametrize("which", KINDS)
def test_setting_is_checked(stack, which):
    server = stack.key_server(start=False)
    program = server if which == "keyserver" else stack.proxy(server, start=False)
    assert "\nsandbox: on\n" in program.check().stdout
    program.config["sandbox"] = "strictly"
    done = program.check()
    assert done.returncode == 2
    assert "sandbox: got \"strictly\", expected on or off" in done.stderr
