"""How the programs of the release build are linked and compiled: what makes a memory error harder to use. A flag that
gets lost changes nothing that any other test sees."""

import re
import subprocess

import pytest

import harness
from harness import BUILD

PROGRAMS = {"proxy": BUILD / "proxy" / "keyless-proxy", "key server": BUILD / "keyserver" / "keyless-keyserver"}

pytestmark = [
    pytest.mark.release,
    pytest.mark.skipif(harness.SANITIZED, reason="of a release build only: sanitizers come instead of these"),
]


def readelf(program, *options):
    return subprocess.run(["readelf", "--wide", *options, PROGRAMS[program]], capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("program", PROGRAMS)
def test_position_independent(program):
    assert re.search(r"Type: +DYN ", readelf(program, "--file-header"))
    assert re.search(r"\(FLAGS_1\).*\bPIE\b", readelf(program, "--dynamic"))
    assert "TEXTREL" not in readelf(program, "--dynamic")


@pytest.mark.parametrize("program", PROGRAMS)
def test_full_relro(program):
    """Everything is resolved at the start and then read-only; without BIND_NOW a part stays writable."""
    assert "GNU_RELRO" in readelf(program, "--program-headers")
    assert "BIND_NOW" in readelf(program, "--dynamic")


@pytest.mark.parametrize("program", PROGRAMS)
def test_no_executable_stack(program):
    stack = re.search(r"GNU_STACK +(?:0x[0-9a-f]+ +){5}([RWE ]+?) +0x", readelf(program, "--program-headers"))
    assert stack.group(1) == "RW"
    assert "RWE" not in readelf(program, "--program-headers")


@pytest.mark.parametrize("program", PROGRAMS)
def test_stack_protector_and_fortify(program):
    wanted = set(re.findall(r" UND (\w+)", readelf(program, "--dyn-syms")))
    assert "__stack_chk_fail" in wanted
    # _FORTIFY_SOURCE does nothing without optimisation; with it, these are called where it cannot prove that all fits.
    assert {"__snprintf_chk", "__vsnprintf_chk"} & wanted
