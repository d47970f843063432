"""The work of keyserver-flood.sh: measures ECDSA's latency beside two kinds of load, in turn, and prints the medians."""

import contextlib
import json
import os
import statistics
import subprocess
import sys
import time

AIM = 3  # times the 99th percentile
NICE = 10  # what threads for large RSA keys run at


class Clients:
    def __init__(self, bench, certs, keys, pid):
        self.bench, self.channel, self.keys, self.pid = bench, f"{certs}/channel", keys, pid

    def command(self, edge, site, *options):
        return ["taskset", "-c", "1", self.bench, "keyserver", "--json", "--quiet", "--verify", "0", "--certificate",
                f"{self.channel}/{edge}.pem", "--key", f"{self.channel}/{edge}-key.pem", "--ca", f"{self.channel}/ca.pem",
                "--server-name", "keys.example", "--site", f"{self.keys}/{site}.pem", *options, "127.0.0.1:22409"]

    def ecdsa(self, seconds):
        """Of few requests at a time: median and 99th percentile in microseconds, and the key server's share of its core."""
        done = subprocess.run(self.command("edge1", "p256", "--parallel", "4", "--seconds", seconds, "--pid", self.pid),
                              capture_output=True, text=True)
        if done.returncode != 0:
            sys.exit(f"keyless-bench failed: {done.stderr}")
        figures = json.loads(done.stdout)
        return figures["latency_us"]["p50"], figures["latency_us"]["p99"], figures["cpu_us"] * figures["rate"] / 1e6

    def flood(self):
        return self.command("edge2", "rsa4096", "--parallel", "256", "--seconds", "86400")


@contextlib.contextmanager
def beside(command):
    """While this runs."""
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as load:
        time.sleep(0.5)
        assert load.poll() is None, f"{command} ended with {load.returncode}"
        try:
            yield
        finally:
            load.terminate()


def main(arguments):
    strict = arguments[0] == "--strict"
    bench, certs, work, pid, pairs, seconds = arguments[1:] if strict else arguments
    clients = Clients(bench, certs, work, pid)
    # It has a thread for large RSA keys on each core, and the other program is one.
    assert len(os.sched_getaffinity(int(pid))) == 1
    other = ["nice", "-n", str(NICE), "taskset", "-c", "0", "openssl", "speed", "-seconds", "86400", "rsa4096"]
    measured = []
    for _ in range(int(pairs)):
        alone = clients.ecdsa(seconds)
        with beside(other):
            program = clients.ecdsa(seconds)
        with beside(clients.flood()):
            flooded = clients.ecdsa(seconds)
        measured.append((alone, program, flooded))
    print("| ECDSA P-256, 4 at a time | p50 | p99 | key server's share of the core |")
    print("|---|---|---|---|")
    for number, name in enumerate(("nothing else", "beside another program's RSA-4096", "beside a flood of RSA-4096")):
        p50, p99, share = (statistics.median(row[number][i] for row in measured) for i in range(3))
        print(f"| {name} | {p50:.0f} us | {p99:.0f} us | {share:.0%} |")
    ratio = statistics.median(flooded[1] / program[1] for _, program, flooded in measured)
    print(f"| flood to program (median of pairs; aim: {AIM}) | | {ratio:.2f} | |")
    assert all(flooded[2] > program[2] for _, program, flooded in measured), "there was no flood"
    if ratio > AIM:
        print("keyserver-flood: the aim is missed", file=sys.stderr)
    return 1 if ratio > AIM and strict else 0


sys.exit(main(sys.argv[1:]))
