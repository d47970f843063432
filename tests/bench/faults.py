"""What clients notice while one of two key servers goes wrong: each fault of tests/integration/test_several_key_servers.py
for some seconds under a steady load of full handshakes, several times. Prints a table in Markdown: the medians of the
rounds, and of failures the most that one round had. --strict fails when more clients failed than may; --strict-times also
when handshakes took longer than they may, or recovery did.
"""

import argparse
import collections
import dataclasses
import os
import pathlib
import re
import statistics
import sys
import tempfile
import time

from steady import Steady, quantile

import conftest
import harness
import own_network
import test_several_key_servers as several
from harness import wait_until

WARM = 300  # handshakes before the fault
TRUSTED = 300  # signatures of each, after which `verify: auto` looks at one in 16
RECOVERS = 60.0  # seconds at most
RECOVERS_FROM_NONE = 1.0  # when there was no key server left
FAIL_FAST = 0.2  # seconds, as the world's proxies have it
SLACK = 0.05  # seconds that 99 of 100 handshakes may take beyond the hedge and two round trips
NOTHING = "nothing is wrong"


@dataclasses.dataclass
class Row:
    """A fault, and what is particular to it when it is measured."""

    fault: several.Fault
    channel: dict = dataclasses.field(default_factory=dict)
    failures: float = 0  # that there may be in one round
    trusted: bool = False  # it goes wrong when it has been trusted
    none_left: bool = False


def lies(**changes):
    begin, end = several.behave(several.faults.OtherKey)
    return Row(several.Fault(begin, end), trusted=True, **changes)


def kill_both(world):
    for server in (world.first, world.second):
        server.kill_all()


def restart_both(world):
    for server in (world.first, world.second):
        server.restart()
        world.wait_up(2)


def rows():
    """{name: Row}"""
    nothing = Row(several.Fault(lambda world: None, first=several.real))
    found = {NOTHING: nothing}
    found |= {name: Row(fault) for name, fault in several.FAULTS.items()}
    found["lies once trusted, `verify: auto`"] = lies(failures=128)
    found["lies once trusted, `verify: all`"] = lies(channel={"verify": "all"})
    found["both restarted, one after the other"] = Row(several.Fault(restart_both, first=several.real, momentary=True))
    both = several.Fault(kill_both, several.start_again, first=several.real)
    found["both killed, one comes back"] = Row(both, failures=float("inf"), none_left=True)
    return found


@dataclasses.dataclass
class Round:
    handshakes: int
    failed: int  # of those
    failed_later: int  # after it was lifted
    median: float
    most: float  # what 99 of 100 took no longer than
    worst: float
    again: float  # share of the requests that were asked of both
    recovery: float
    usual: "Usual"  # before the fault; None: it was there from the start
    problems: list


@dataclasses.dataclass
class Usual:
    handshake: float  # seconds, the median
    signature: float  # the mean
    hedge: float  # what 95 of 100 signatures took no longer than

    def limit(self):
        """What handshakes may take while something is wrong: what clients and proxy need by themselves, the hedge, two round
        trips, and SLACK."""
        return max(0.0, self.handshake - self.signature) + self.hedge + 2 * self.signature + SLACK


def requests(world):
    return world.sum_of("keyless_key_requests_total")


def usual(world, times):
    """Signatures as the proxy counts them, by the upper end of the histogram's bucket. None: there were none."""
    if not times:
        return None
    name, metrics = "keyless_key_request_duration_seconds", world.proxy.metrics()
    count = metrics.sum(f"{name}_count")
    below = collections.Counter()  # by the upper end of the bucket, of all servers together
    for series, value in metrics.matching(f"{name}_bucket").items():
        if found := re.search(r'le="([0-9.e-]+)"', series):
            below[float(found.group(1))] += value
    hedge = next((end for end in sorted(below) if below[end] >= 0.95 * count), max(below))
    return Usual(statistics.median(times), metrics.sum(f"{name}_sum") / max(1, count), hedge)


def until_served(world, since, before):
    """Seconds since then until the first key server has served one more than before."""
    wait_until(lambda: world.ok("keys-a") > before, "the first key server to be of use again", RECOVERS)
    return time.monotonic() - since


def last(world, fault, seconds):
    """Lets it happen; returns when it began and ended, and seconds until the first key server served again."""
    began = time.monotonic()
    fault.begin(world)
    if fault.momentary:
        recovery = until_served(world, time.monotonic(), world.ok("keys-a"))
    world.load.during(began + seconds - time.monotonic())
    ended = time.monotonic()
    if not fault.momentary:
        before = world.ok("keys-a")
        fault.end(world)
        recovery = until_served(world, ended, before)
    return began, ended, recovery


def measure(stack, row, seconds):
    fault = row.fault
    # Both of one kind and both behind a relay, so that neither is slower than the other without the fault.
    first, second = fault.first(stack), fault.first(stack)
    if not fault.warm:
        first.behaviour = several.faults.OtherKey()
    world = several.World(stack, first, stack.relay(second) if fault.relayed else second, fault.relayed, channel={"timeout": "2s", **row.channel},
                          log={"level": "info"})
    world.load = load = Steady(world.proxy.port)
    with load:
        if fault.warm:
            load.more(WARM)
        if row.trusted:
            wait_until(lambda: min(map(world.ok, ("keys-a", "keys-b"))) >= TRUSTED, "both to be trusted", RECOVERS)
        before = usual(world, [one.handshake for one in load.between(0, time.monotonic())])
        asked, again = requests(world), world.asked_twice()
        began, ended, recovery = last(world, fault, seconds)
        now_asked, now_again = requests(world), world.asked_twice()
    seen = load.between(began, ended)
    times = [one.handshake for one in seen]
    return Round(handshakes=len(seen), failed=sum(one.problem is not None for one in seen),
                 failed_later=sum(one.began >= ended for one in load.failures), median=statistics.median(times),
                 most=quantile(times, 0.99), worst=max(times), again=(now_again - again) / max(1, now_asked - asked),
                 recovery=recovery, usual=before, problems=[one.problem for one in load.failures])


def measure_once(row, seconds):
    """With programs of its own, which are stopped and looked at afterwards."""
    with tempfile.TemporaryDirectory() as directory:
        directory = pathlib.Path(directory)
        harness.open_to_all(directory)
        stack = conftest.Stack(directory)
        try:
            with row.fault.surroundings():
                return measure(stack, row, seconds)
        finally:
            stack.finish()


HEAD = """| the first of two key servers | handshakes | failed | median | 99 % | worst | asked twice | serves again after |
|---|---|---|---|---|---|---|---|"""


def line(name, rounds):
    middle = {key: statistics.median(getattr(one, key) for one in rounds)
              for key in ("handshakes", "median", "most", "worst", "again", "recovery")}
    failed, later = (max(getattr(one, key) for one in rounds) for key in ("failed", "failed_later"))
    if later:
        failed = f"{failed}, then {later}"
    return (f"| {name} | {middle['handshakes']:.0f} | {failed} | {1000 * middle['median']:.1f} ms "
            f"| {1000 * middle['most']:.0f} ms | {1000 * middle['worst']:.0f} ms | {middle['again']:.1%} | {middle['recovery']:.2f} s |")


def too_many(name, row, rounds):
    """What --strict has to say of a row."""
    found = [f"{name}: {problem}" for one in rounds for problem in one.problems if row.failures == 0]
    if not row.none_left:
        found += [f"{name}: {one.failed_later} failed afterwards" for one in rounds if one.failed_later]
    return found + [f"{name}: {one.failed} failed" for one in rounds if one.failed > row.failures]


def too_long(name, row, rounds, nothing_wrong):
    """What --strict-times has to say of it."""
    recovery = statistics.median(one.recovery for one in rounds)
    if row.none_left:
        worst = statistics.median(one.worst for one in rounds)
        return ([f"{name}: served again after {recovery:.2f} s"] if recovery > RECOVERS_FROM_NONE else []) + \
               ([f"{name}: a handshake took {worst:.2f} s to fail"] if worst > FAIL_FAST + SLACK else [])
    most = statistics.median(one.most for one in rounds)
    limits = [one.usual.limit() for one in rounds + nothing_wrong if one.usual]
    if not limits:
        return []
    limit = statistics.median(limits[:len(rounds)])
    return [f"{name}: 99 % took {1000 * most:.0f} ms, {1000 * limit:.0f} ms are allowed"] if most > limit else []


def main():
    known = rows()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3.0, help="that a fault lasts (default: 3)")
    parser.add_argument("--fault", action="append", choices=list(known), metavar="NAME", help="only this one; may be repeated")
    parser.add_argument("--strict", action="store_true")
    parser.add_argument("--strict-times", action="store_true")
    options = parser.parse_args()
    print(HEAD, flush=True)
    unexpected, nothing_wrong = [], []
    for name in options.fault or known:
        row = known[name]
        if row.fault.network and own_network.why_not():
            print(f"{name}: not measured, {own_network.why_not()}", file=sys.stderr)
            unexpected += [f"{name}: not measured"] if options.strict else []
            continue
        rounds = [measure_once(row, options.seconds) for _ in range(options.rounds)]
        print(line(name, rounds), flush=True)
        if name == NOTHING:
            nothing_wrong = rounds
        unexpected += too_many(name, row, rounds) if options.strict else []
        unexpected += too_long(name, row, rounds, nothing_wrong) if options.strict_times else []
    if nothing_wrong:
        signature = statistics.median(one.usual.signature for one in nothing_wrong)
        print(f"\n{os.cpu_count()} cores; while {NOTHING}, the proxy had a signature after {1000 * signature:.2f} ms (mean)")
    print("\n".join(unexpected), file=sys.stderr)
    return 1 if unexpected else 0


if __name__ == "__main__":
    sys.exit(main())
