"""A network of a test's own, in which it may drop packets: Linux lets each thread have one."""

import contextlib
import ctypes
import os
import shutil
import subprocess

_NEW_NETWORK = 0x40000000  # CLONE_NEWNET
_libc = ctypes.CDLL(None, use_errno=True)


def why_not():
    """Why there can be none here; None if there can."""
    missing = [tool for tool in ("ip", "nft") if shutil.which(tool) is None]
    if missing:
        return f"not installed: {' '.join(missing)}"
    try:
        with own_network():
            command("nft", "list", "ruleset")
    except (OSError, subprocess.CalledProcessError) as error:
        return f"no network of its own: {error}"
    return None


def command(*words):
    subprocess.run(words, check=True, capture_output=True)


def _check(result, what):
    if result != 0:
        raise OSError(ctypes.get_errno(), what)


@contextlib.contextmanager
def own_network():
    """This thread, and the threads and programs that it starts meanwhile, see nothing but a loopback of their own."""
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        _check(_libc.unshare(_NEW_NETWORK), "unshare")
        try:
            command("ip", "link", "set", "lo", "up")
            yield
        finally:
            _check(_libc.setns(before, _NEW_NETWORK), "setns")
    finally:
        os.close(before)


def drop(port):
    """From now on all packets to and from this port vanish."""
    command("nft", "add", "table", "inet", "faults")
    command("nft", "add", "chain", "inet", "faults", "input", "{ type filter hook input priority 0; }")
    for end in ("dport", "sport"):
        command("nft", "add", "rule", "inet", "faults", "input", "tcp", end, str(port), "drop")


def drop_no_more():
    command("nft", "delete", "table", "inet", "faults")
