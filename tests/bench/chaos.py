"""One of two key servers after the other goes wrong in ways chosen at random, never both at a time, under a steady load of
full handshakes. In the end no client may have failed, and the proxy's worker must be as large as after the first minute.
The seed is printed; the same seed makes the same faults in the same order.
"""

import argparse
import contextlib
import pathlib
import random
import sys
import tempfile
import time

from steady import Steady

import conftest
import harness
import own_network
import test_several_key_servers as several
from harness import wait_until

RATE = 50  # clients a second
SETTLE = 60.0  # seconds, or a fifth of a shorter run: then everything has its size
GROWS = 4 << 20  # octets of resident memory at most, from then to the end
ASKED_TWICE = 0.1  # of the requests at most
RECOVERS = 90.0  # a liar that lied again and again is looked at every 30 s


class Side:
    """One of the key servers, for the faults: they do what they do to world.first."""

    def __init__(self, name, first, relay):
        self.name, self.first, self.relay = name, first, relay


class World(several.World):
    """A real key server and one in Python, which can do what no real one does; each behind a relay."""

    def __init__(self, stack, may_drop):
        self.may_drop = may_drop
        programs = [several.real(stack), several.honest(stack)]
        relays = [stack.relay(program) for program in programs]
        super().__init__(stack, *relays, channel={"timeout": "2s", "verify": "all"}, log={"level": "info"})
        self.sides = [Side(name, *pair) for name, *pair in zip(("keys-a", "keys-b"), programs, relays)]

    def choices(self):
        """(name, fault, side) of all that may happen: what needs a real key server cannot happen to the other."""
        found = []
        for side in self.sides:
            is_real = side is self.sides[0]
            for name, fault in several.FAULTS.items():
                if (fault.first is several.real) == is_real or fault.relayed:
                    found.append((name, fault, side))
        return found if self.may_drop else [choice for choice in found if not choice[1].network]

    def worker(self):
        (found,) = self.proxy.children("worker")
        return found

    def size(self):
        """(resident, descriptors) of the worker when nobody is there."""
        wait_until(lambda: self.proxy.metric("keyless_connections_open") == 0, "all connections to be closed")
        self.wait_up(2)
        return self.worker().resident(), self.worker().descriptors()

    def happen(self, chance, until):
        name, fault, side = chance.choice(self.choices())
        seconds, pause = chance.uniform(0.2, 3.0), chance.uniform(0.1, 1.0)
        began = time.monotonic()
        fault.begin(side)
        self.load.during(seconds)
        fault.end(side)
        before = self.ok(side.name)
        wait_until(lambda: self.up() == 2 and self.ok(side.name) > before, f"{side.name} to serve after {name}", RECOVERS)
        print(f"{side.name}: {name}, for {seconds:.1f} s; served again after {time.monotonic() - began:.1f} s", flush=True)
        self.load.during(min(pause, until - time.monotonic()))

    def run(self, chance, seconds):
        """Chaos for so long; returns the clients."""
        until = time.monotonic() + seconds
        count = 0
        with Steady(self.proxy.port, rate=RATE) as self.load:
            self.load.more(2 * RATE)
            while time.monotonic() < until:
                self.happen(chance, until)
                count += 1
        return self.load, count


def judge(world, loads, sizes, pid):
    """What should not have been."""
    failures = [one for load in loads for one in load.failures]
    found = [f"a client failed at {one.began:.1f} s after {one.handshake:.2f} s: {one.problem}" for one in failures]
    (resident, descriptors), (resident_end, descriptors_end) = sizes
    if resident_end - resident > GROWS:
        found.append(f"the worker grew from {resident} to {resident_end} octets")
    if descriptors_end > descriptors:
        found.append(f"the worker had {descriptors} descriptors, then {descriptors_end}")
    if world.worker().pid != pid:
        found.append("the worker was replaced")
    return found


def chaos(stack, seed, seconds, may_drop):
    chance = random.Random(seed)
    world = World(stack, may_drop)
    pid = world.worker().pid
    settle = min(SETTLE, seconds / 5)
    loads, counts, sizes = [], [], []
    for part in (settle, seconds - settle):
        load, count = world.run(chance, part)
        loads.append(load)
        counts.append(count)
        sizes.append(world.size())
    asked = world.sum_of("keyless_key_requests_total")
    again = world.sum_of("keyless_key_requests_hedged_total", "keyless_key_requests_retried_total") / asked
    worst = max(one.handshake for load in loads for one in load.seen)
    found = judge(world, loads, sizes, pid)
    if again >= ASKED_TWICE:
        found.append(f"{again:.1%} of the requests were asked twice")
    print(f"{sum(counts)} faults, {sum(load.done for load in loads)} clients served, "
          f"{sum(len(load.failures) for load in loads)} failed, slowest handshake {worst:.2f} s, {again:.1%} asked twice, "
          f"memory of the worker {sizes[0][0] >> 10} kB then {sizes[1][0] >> 10} kB, descriptors {sizes[0][1]} then {sizes[1][1]}")
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("seconds", type=float, nargs="?", default=600.0)
    parser.add_argument("--seed", type=int, default=None)
    options = parser.parse_args()
    seed = random.SystemRandom().randrange(1 << 32) if options.seed is None else options.seed
    print(f"--seed {seed}", flush=True)
    with tempfile.TemporaryDirectory() as directory:
        directory = pathlib.Path(directory)
        harness.open_to_all(directory)
        stack = conftest.Stack(directory)
        may_drop = own_network.why_not() is None
        try:
            with own_network.own_network() if may_drop else contextlib.nullcontext():
                found = chaos(stack, seed, options.seconds, may_drop)
        finally:
            stack.finish()
    print("\n".join(found))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
