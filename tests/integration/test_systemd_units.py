"""The units for systemd: that it takes them, and that what they leave the programs is enough."""

import configparser
import os
import re
import shutil
import signal
import subprocess

import pytest

import harness
from harness import BUILD, ROOT, curl, wait_until

PROGRAMS = {"keyless-proxy": harness.Proxy, "keyless-keyserver": harness.KeyServer}

SYSTEMD = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")


@pytest.fixture
def units(tmp_path):
    """As they are installed, but for the programs' place: {name: path}."""
    found = {}
    for program, kind in PROGRAMS.items():
        service, socket = f"{program}.service", f"{program}.socket"
        text = (BUILD / "conf" / "systemd" / service).read_text()
        (tmp_path / service).write_text(re.sub(rf"(?m)^ExecStart=\S+/{program}\b", f"ExecStart={kind.path()}", text))
        shutil.copy(ROOT / "conf" / "systemd" / socket, tmp_path)
        found |= {name: tmp_path / name for name in (service, socket)}
    return found


def settings(unit, section):
    parser = configparser.ConfigParser(interpolation=None, strict=False)
    parser.optionxform = str
    parser.read(unit)
    return parser[section]


@SYSTEMD
def test_systemd_takes_them(units):
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", *units.values()], capture_output=True, text=True,
                          check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@SYSTEMD
@pytest.mark.parametrize("program", PROGRAMS)
def test_they_are_confined(units, program):
    """By systemd's own measure, of which 10 is the worst: a setting that gets lost shows."""
    done = subprocess.run(["systemd-analyze", "security", "--no-pager", "--offline=true", "--threshold=26",
                           units[f"{program}.service"]], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("program", PROGRAMS)
def test_their_filter_lets_programs_confine_themselves(units, program):
    """None of systemd's sets has these; without them the programs would go on, less confined."""
    allowed = settings(units[f"{program}.service"], "Service")["SystemCallFilter"].split()
    assert {"seccomp", "landlock_create_ruleset", "landlock_add_rule", "landlock_restrict_self"} < set(allowed)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has capabilities to give up")
def test_capabilities_suffice(stack, units):
    """To start, become another user, serve, reload, and end children of that user."""
    programs = {}
    for program, make in (("keyless-keyserver", stack.key_server), ("keyless-proxy", stack.proxy)):
        names = settings(units[f"{program}.service"], "Service")["CapabilityBoundingSet"].split()
        kept = ",".join("+" + name.removeprefix("CAP_").lower() for name in names)
        programs[program] = make(*programs.values(), wrapper=["setpriv", f"--bounding-set=-all,{kept}"])
    proxy = programs["keyless-proxy"]
    for program in programs.values():
        program.reload()
    wait_until(lambda: curl("p256.example", proxy.port).status == 0, "a handshake after both reloads")
    for program in programs.values():
        children = program.children()
        assert all(child.user() != 0 for child in children)
        assert program.stop(signal.SIGQUIT) == 0
        assert not any(child.alive() for child in children)
