"""The work of keyserver-cpu.sh: alternates runs of keyless-bench and of openssl speed, and prints the medians."""

import json
import re
import statistics
import subprocess
import sys

# key, its name for people and for openssl speed, and the aim: at most so many times the bare operation.
KEYS = [("p256", "ECDSA P-256", "ecdsap256", 1.6), ("ed25519", "Ed25519", "ed25519", 1.6), ("rsa2048", "RSA-2048", "rsa2048", 1.06)]
# A whole transcript may cost this much more than a hash, in microseconds.
TRANSCRIPT_AIM = 12


class Runs:
    def __init__(self, bench, certs, pid, seconds):
        self.seconds = seconds
        channel = f"{certs}/channel"
        self.command = ["taskset", "-c", "1", bench, "keyserver", "--json", "--quiet", "--certificate", f"{channel}/edge1.pem", "--key",
                        f"{channel}/edge1-key.pem", "--ca", f"{channel}/ca.pem", "--server-name", "keys.example", "--verify", "0",
                        "--parallel", "64", "--seconds", seconds, "--pid", pid]
        self.sites = f"{certs}/sites/chains"

    def server(self, site, mode="tbs"):
        """Microseconds on the CPU per signature, of all the key server's processes."""
        done = subprocess.run([*self.command, "--mode", mode, "--site", f"{self.sites}/{site}.pem", "127.0.0.1:22408"],
                              capture_output=True, text=True)
        if done.returncode != 0:
            sys.exit(f"keyless-bench failed: {done.stderr}")
        return json.loads(done.stdout)["cpu_us"]

    def bare(self, algorithm):
        """The same of the operation alone: openssl speed counts CPU time too."""
        done = subprocess.run(["taskset", "-c", "0", "openssl", "speed", "-mr", "-seconds", self.seconds, algorithm],
                              capture_output=True, text=True, check=True)
        # +F<table>:<row>:<bits>:[<name>:]<signatures a second>:<verifications a second>
        return 1e6 / float(re.search(r"^\+F.*:([\d.]+):[\d.]+$", done.stdout, re.MULTILINE).group(1))


def main(arguments):
    strict = arguments[0] == "--strict"
    bench, certs, pid, pairs, seconds = arguments[1:] if strict else arguments
    runs, missed = Runs(bench, certs, pid, seconds), False
    print("| signature | bare operation | key server | ratio (median of pairs) | aim |")
    print("|---|---|---|---|---|")
    for site, name, algorithm, aim in KEYS:
        measured = [(runs.bare(algorithm), runs.server(site)) for _ in range(int(pairs))]
        ratio = round(statistics.median(server / bare for bare, server in measured), 2)
        bare, server = (statistics.median(column) for column in zip(*measured))
        print(f"| {name}, 0x61 | {bare:.1f} us | {server:.1f} us | {ratio:.2f} | {aim} |", flush=True)
        missed = missed or ratio > aim
    measured = [(runs.server("p256"), runs.server("p256", "transcript")) for _ in range(int(pairs))]
    more = round(statistics.median(whole - tbs for tbs, whole in measured), 1)
    whole = statistics.median(column[1] for column in measured)
    print(f"| ECDSA P-256, 0x63 | | {whole:.1f} us | {more:.1f} us more than 0x61 | {TRANSCRIPT_AIM} us more |")
    missed = missed or more > TRANSCRIPT_AIM
    if missed:
        print("keyserver-cpu: an aim is missed", file=sys.stderr)
    return 1 if missed and strict else 0


sys.exit(main(sys.argv[1:]))
