"""What many names cost the proxy: starting, reloading, memory of a worker for each chain, CPU of a handshake.

    many_names.py [--names N] [--strict]

A P-256 and an RSA chain for each name (many_chains.py), one worker, key server in mode tbs. --strict fails when a limit is
passed. Prints a table in Markdown.
"""

import argparse
import contextlib
import json
import pathlib
import re
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "integration"))

import clients  # noqa: E402
import harness  # noqa: E402
import many_chains  # noqa: E402

FEW = 10
SECONDS, OCTETS_EACH, CPU_RATIO = 5.0, 10_000, 1.1  # the limits
CHAINS_READY_MAX = 2048  # proxy/handshake_context.c
HANDSHAKES, ROUNDS = 400, 7
TRIED_MAX = 600.0  # seconds; they are tried slowly, beside the clients


def chains(count):
    """The generated chains, kept in the build directory."""
    return many_chains.make(harness.BUILD / f"many-chains-{count}", count)


def private(process):
    """Octets that are the process's own, not shared with its master."""
    text = pathlib.Path(f"/proc/{process.pid}/smaps_rollup").read_text()
    return 1024 * sum(int(n) for n in re.findall(r"^Private_\w+:\s+(\d+) kB", text, re.MULTILINE))


def proportional(process):
    text = pathlib.Path(f"/proc/{process.pid}/smaps_rollup").read_text()
    return 1024 * int(re.search(r"^Pss:\s+(\d+) kB", text, re.MULTILINE).group(1))


class World:
    """A key server, and proxies with few and with many of the same names."""

    def __init__(self, directory, count):
        self.count = count
        self.made = chains(count)
        self.directory = pathlib.Path(directory)
        self.key_server = harness.KeyServer(self.directory, keys=[{"dir": str(self.made / "keys")}])
        self.tls = {}
        for name, suites in (("ec", "ECDHE-ECDSA-AES128-GCM-SHA256"), ("rsa", "ECDHE-RSA-AES128-GCM-SHA256")):
            self.tls[name] = clients.context()
            self.tls[name].load_verify_locations(self.made / "ca.pem")
            self.tls[name].maximum_version = clients.ssl.TLSVersion.TLSv1_2
            self.tls[name].set_ciphers(suites)

    def proxy(self, name, sources):
        server = {
            "address": f"127.0.0.1:{self.key_server.port}", "server_name": "keys.example", "mode": "tbs", "name": "a"
        }
        made = harness.Proxy(
            self.directory, self.key_server, name=name, certificates=sources, key_servers=[server],
            log={"level": "info"}, tls={"default": many_chains.name_of(0)},
        )
        return made

    def few(self):
        paths = sorted((self.made / "chains").glob("*.pem"))
        names = {many_chains.name_of(i) for i in range(FEW)}
        return self.proxy("few", [{"file": str(p)} for p in paths if p.name.rpartition("-")[0] in names])

    def many(self):
        return self.proxy("many", [{"dir": str(self.made / "chains")}])

    def visit(self, proxy, names):
        """One handshake for each of the names and each type of key; what is shown must be that name's."""
        for number in names:
            for tls in self.tls.values():
                with clients.connect(proxy.port, many_chains.name_of(number), tls=tls):
                    pass


def seconds(action):
    began = time.monotonic()
    action()
    return time.monotonic() - began


def cpu(proxy):
    """Microseconds on a CPU of the worker for one handshake of a name."""
    (worker,) = proxy.children("worker")
    bench = [
        harness.BUILD / "tests" / "bench" / "keyless-bench", "handshake", "--quiet", "--json", "--count", HANDSHAKES,
        "--warm-up", 50, "--parallel", 4, "--tls", "1.3", "--schemes", "ECDSA+SHA256", "--sni", many_chains.name_of(3),
        "--pid", worker.pid, f"127.0.0.1:{proxy.port}",
    ]
    done = subprocess.run(list(map(str, bench)), check=True, capture_output=True, text=True)
    return json.loads(done.stdout)["cpu_us"]


@contextlib.contextmanager
def running(*programs):
    try:
        yield
    finally:
        for program in reversed(programs):
            program.stop()
            program.kill_all()


def measure(directory, count, visited, rounds=ROUNDS):
    """A dict of what was measured; the first `visited` names are asked for, each with both of its chains."""
    world = World(directory, count)
    extra = 2 * (count - FEW)
    few, many = world.few(), world.many()
    found = {"names": count, "chains": 2 * count, "visited": visited}
    with running(world.key_server, few, many):
        world.key_server.start()
        few.start()
        found["start"] = seconds(many.start)
        found["reload"] = seconds(many.reload)
        found["tried"] = seconds(lambda: many.wait_tried(TRIED_MAX))
        world.visit(few, range(FEW))
        world.visit(many, range(FEW))
        (few_worker,), (worker,) = few.children("worker"), many.children("worker")
        base = private(few_worker)
        found["own"] = (private(worker) - base) / extra
        found["pss"] = (proportional(worker) - proportional(few_worker)) / extra
        pairs = [(cpu(few), cpu(many)) for _ in range(rounds)]
        found["cpu_few"] = statistics.median(few_cpu for few_cpu, _ in pairs)
        found["cpu_many"] = statistics.median(many_cpu for _, many_cpu in pairs)
        found["cpu_ratio"] = statistics.median(many_cpu / few_cpu for few_cpu, many_cpu in pairs)
        before = private(worker)
        world.visit(many, range(FEW, visited))
        ready = min(2 * (visited - FEW), CHAINS_READY_MAX)
        found["ready"] = (private(worker) - before) / ready
        found["own_visited"] = (private(worker) - base) / extra
        found["warnings"] = sum(line.get("level") in ("warn", "error") for line in many.lines())
        found["log_lines"] = len(many.lines())
    return found


LIMITS = {
    "start": SECONDS,
    "reload": SECONDS,
    "own": OCTETS_EACH,
    "pss": OCTETS_EACH,
    "own_visited": OCTETS_EACH,
    "cpu_ratio": CPU_RATIO,
    "log_lines": 100,
}


def problems(found, slack):
    """Which limits were passed; slack has others in place of some of them."""
    limits = {**LIMITS, **slack}
    return [f"{key}: {found[key]:.2f}, the limit is {limit}" for key, limit in limits.items() if found[key] > limit]


def table(found):
    rows = (
        ("start until ready", f"{found['start']:.2f} s"),
        ("reload until the old worker accepts no more", f"{found['reload']:.2f} s"),
        ("... and from then until each chain has been tried", f"{found['tried']:.0f} s"),
        ("a worker's own memory for each further chain, after the start", f"{found['own']:.0f} B"),
        (f"... when the first {found['visited']} names have been asked for", f"{found['own_visited']:.0f} B"),
        ("its proportional share of all memory, for each further chain", f"{found['pss']:.0f} B"),
        ("a chain that is kept ready", f"{found['ready']:.0f} B"),
        (f"CPU of a handshake, {FEW} names", f"{found['cpu_few']:.0f} us"),
        (f"CPU of a handshake, {found['names']} names", f"{found['cpu_many']:.0f} us"),
        ("... median of the ratios", f"{found['cpu_ratio']:.2f}"),
    )
    head = f"| {found['names']} names, {found['chains']} chains | |\n|---|---|\n"
    return head + "".join(f"| {what} | {value} |\n" for what, value in rows)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--names", type=int, default=10_000)
    parser.add_argument("--visited", type=int, default=None, help="names that are asked for (default: all)")
    parser.add_argument("--strict", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        directory = pathlib.Path(directory)
        harness.open_to_all(directory)
        found = measure(directory, options.names, options.visited or options.names)
    print(table(found))
    passed = problems(found, {})
    print("\n".join(passed))
    return 1 if options.strict and passed else 0


if __name__ == "__main__":
    sys.exit(main())
