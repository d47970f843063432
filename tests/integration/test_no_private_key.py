"""No process of the proxy ever opens a site's private key, nor has one in its memory."""

import pathlib
import re

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key

import harness
from harness import SITES, curl, wait_until

NAMES = ["rsa2048.example", "p256.example", "p384.example", "ed25519.example", "dual.example"]


def test_no_site_key_is_opened(stack):
    """strace sees every file that the proxy's processes ask for, over start, handshakes, reload and end."""
    server = stack.key_server()
    trace = stack.directory / "trace"
    proxy = stack.proxy(server, start=False, workers=2,
                        wrapper=["strace", "-f", "-qq", "-e", "trace=%file", "-o", str(trace)])
    proxy.environment["ASAN_OPTIONS"] = "detect_leaks=0"  # LeakSanitizer cannot work under ptrace
    proxy.start()
    for name in NAMES:
        assert curl(name, proxy.port).json()["key_server"] == "keys-a"
    proxy.reload()
    assert curl("p256.example", proxy.port).status == 0
    proxy.stop()
    opened = trace.read_text()
    # It does see what the proxy opens: its own channel key, in the master, and the chains.
    assert str(harness.CHANNEL / "edge1-key.pem") in opened
    assert str(SITES / "chains" / "p256.pem") in opened
    assert str(SITES / "keys") not in opened
    key_names = {path.name for path in (SITES / "keys").iterdir()}
    assert not [name for name in key_names if f"/{name}\"" in opened]


def secrets_of(path):
    """Byte strings that must not be found outside the key server: the private numbers of a key."""
    key = load_pem_private_key(path.read_bytes(), None)
    if isinstance(key, rsa.RSAPrivateKey):
        numbers = key.private_numbers()
        values = [numbers.p, numbers.q, numbers.d]
    elif isinstance(key, ec.EllipticCurvePrivateKey):
        values = [key.private_numbers().private_value]
    else:
        return [key.private_bytes(Encoding.Raw, PrivateFormat.Raw, NoEncryption())]
    size = [(value.bit_length() + 7) // 8 for value in values]
    return [v.to_bytes(n, order) for v, n in zip(values, size) for order in ("big", "little")]


def memory_of(process):
    """Yields the contents of the writable mappings of a process."""
    with open(f"/proc/{process.pid}/mem", "rb", buffering=0) as memory:
        for line in pathlib.Path(f"/proc/{process.pid}/maps").read_text().splitlines():
            start, end, mode = re.match(r"([0-9a-f]+)-([0-9a-f]+) (\S+)", line).groups()
            start, end = int(start, 16), int(end, 16)
            if mode.startswith("rw") and end - start < 1 << 30:
                memory.seek(start)
                try:
                    yield memory.read(end - start)
                except OSError:
                    continue


@pytest.mark.release
@pytest.mark.skipif(harness.SANITIZED, reason="a sanitizer's shadow memory is too large to search")
def test_no_site_key_in_memory(stack):
    server, proxy = stack.pair()
    for name in NAMES:
        assert curl(name, proxy.port).status == 0
    keys = {path.stem: secrets_of(path) for path in (SITES / "keys").iterdir()}
    assert {"rsa2048", "p256", "ed25519", "ed448"} <= keys.keys() and all(keys.values())

    def found_in(process):
        memory = list(memory_of(process))
        return {name for name, secrets in keys.items() if any(secret in part for part in memory for secret in secrets)}

    # The search can find keys of every type: the key server's signer has them all, and only the signer has any.
    (signer,) = server.children("signer")
    wait_until(lambda: found_in(signer) == set(keys), "the signer's keys to be found")
    for process in [proxy.master(), *proxy.children(), server.master(), *server.children("frontend")]:
        assert not found_in(process), f"{process.name()} has a site's key in its memory"
