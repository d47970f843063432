"""One of two key servers after the other goes wrong in ways chosen at random, never both at a time, under a steady load of
full handshakes. In the end no client may have failed, 99 of 100 must have been served soon, and the proxy's processes must
be as large as after the first minute, and half-way.
The seed is printed; the same seed makes the same faults in the same order.
"""

import argparse
import contextlib
import pathlib
import random
import sys
import tempfile
import time

from steady import Steady, quantile

import conftest
import harness
import own_network
import test_several_key_servers as several
from harness import wait_until

RATE = 50  # clients a second
SETTLE = 60.0  # seconds, or a fifth of a shorter run: then everything has its size
GROWS = 4 << 20  # octets of resident memory at most, from then to the end
ASKED_TWICE = 0.1  # of the requests at most
BURST = 64  # and as many more
SOON = 0.3  # seconds that 99 of 100 handshakes may take at most, whatever is wrong meanwhile
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

    def sizes(self):
        """{(name, pid): (resident, descriptors)} of the proxy's processes when nobody is there."""
        wait_until(lambda: self.proxy.metric("keyless_connections_open") == 0, "all connections to be closed")
        self.wait_up(2)
        return {(one.name(), one.pid): (one.resident(), self.fewest_descriptors(one)) for one in self.proxy.processes()}

    def fewest_descriptors(self, process):
        """The helper's connection with whoever asks for metrics may last a moment longer."""
        found = []
        for _ in range(10):
            found.append(process.descriptors())
            time.sleep(0.05)
        return min(found)

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


def grown(sizes):
    """What has become larger since the first look, or another process."""
    found = []
    for before, after in ((sizes[0], sizes[1]), (sizes[0], sizes[2])):
        if before.keys() != after.keys():
            return ["a process was replaced"]
        for (name, pid), (resident, descriptors) in before.items():
            resident_now, descriptors_now = after[name, pid]
            if resident_now - resident > GROWS:
                found.append(f"{name} grew from {resident} to {resident_now} octets")
            if descriptors_now > descriptors:
                found.append(f"{name} had {descriptors} descriptors, then {descriptors_now}")
    return found


def judge(loads, sizes, again, asked, most, seconds):
    """What should not have been."""
    failures = [one for load in loads for one in load.failures]
    found = [f"a client failed at {one.began:.1f} s after {one.handshake:.2f} s: {one.problem}" for one in failures]
    if again > ASKED_TWICE * asked + BURST:
        found.append(f"{again:.0f} of {asked:.0f} requests were asked twice")
    if most > SOON and seconds >= SETTLE:
        found.append(f"99 % of the handshakes took {most:.2f} s")
    return found + grown(sizes)


def chaos(stack, seed, seconds, may_drop):
    chance = random.Random(seed)
    world = World(stack, may_drop)
    settle = min(SETTLE, seconds / 5)
    loads, counts, sizes = [], [], []
    for part in (settle, (seconds - settle) / 2, (seconds - settle) / 2):
        load, count = world.run(chance, part)
        loads.append(load)
        counts.append(count)
        sizes.append(world.sizes())
    asked = world.sum_of("keyless_key_requests_total")
    again = world.asked_twice()
    times = [one.handshake for load in loads for one in load.seen]
    most = quantile(times, 0.99)
    worker = [next(size for (name, _), size in some.items() if name.endswith("worker")) for some in sizes]
    print(f"{sum(counts)} faults, {sum(load.done for load in loads)} clients served, "
          f"{sum(len(load.failures) for load in loads)} failed, 99 % of handshakes in {most:.2f} s, the slowest in "
          f"{max(times):.2f} s, {again / asked:.1%} asked twice, memory of the worker {', '.join(f'{size >> 10} kB' for size, _ in worker)}, "
          f"descriptors {', '.join(str(count) for _, count in worker)}")
    return judge(loads, sizes, again, asked, most, seconds)


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
