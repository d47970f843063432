"""Prometheus's text format, version 0.0.4, read as strictly as `promtool check metrics` does, and by the naming rules
of its documentation."""

import re

NAME = r"[a-z_:][a-z0-9_:]*"
LABEL = r'[a-zA-Z_][a-zA-Z0-9_]*="(?:[^"\\\n]|\\\\|\\"|\\n)*"'
SAMPLE = re.compile(rf"({NAME})(?:\{{({LABEL}(?:,{LABEL})*)\}})? (-?[0-9]+(?:\.[0-9]+)?)")
HELP = re.compile(rf"# HELP ({NAME}) (\S.*)")
TYPE = re.compile(rf"# TYPE ({NAME}) (counter|gauge|histogram)")
NOT_BASE_UNITS = re.compile(r"_(milliseconds|microseconds|ms|us|minutes|hours|days|kilobytes|kb|percent)(_|$)")
TYPE_IN_NAME = re.compile(r"_(counter|gauge|histogram|summary)(_|$)")


class Family:
    def __init__(self, name, kind, text):
        self.name, self.kind, self.help = name, kind, text
        self.samples = {}  # (name, labels as written, without le) -> value; buckets: a list of (le, value)

    def add(self, name, labels, value):
        pairs = dict(re.findall(r'([a-zA-Z_][a-zA-Z0-9_]*)=("(?:[^"\\]|\\.)*")', labels or ""))
        assert len(pairs) == len(re.findall(LABEL, labels or "")), f"a label twice: {name}{{{labels}}}"
        assert not any(label.startswith("__") for label in pairs)
        if self.kind == "histogram":
            self._add_to_histogram(name, pairs, value)
            return
        assert name == self.name, f"{name} within {self.name}"
        assert "le" not in pairs and "quantile" not in pairs
        key = (name, tuple(sorted(pairs.items())))
        assert key not in self.samples, f"twice: {name}{{{labels}}}"
        self.samples[key] = float(value)
        if self.kind == "counter":
            assert value.isdecimal(), f"a counter of {value}: {name}"

    def _add_to_histogram(self, name, pairs, value):
        assert name in (f"{self.name}_bucket", f"{self.name}_sum", f"{self.name}_count"), f"{name} within {self.name}"
        assert ("le" in pairs) == name.endswith("_bucket"), name
        bound = pairs.pop("le", None)
        key = (name, tuple(sorted(pairs.items())))
        if bound is None:
            assert key not in self.samples, f"twice: {name}{pairs}"
            self.samples[key] = float(value)
        else:
            self.samples.setdefault(key, []).append((float(bound.strip('"')), int(value)))

    def check(self):
        assert (self.kind == "counter") == self.name.endswith("_total"), f"{self.name} is a {self.kind}"
        assert not NOT_BASE_UNITS.search(self.name) and not TYPE_IN_NAME.search(self.name), self.name
        assert self.name.startswith("keyless_") or self.name == "process_start_time_seconds", self.name
        assert self.help.endswith("."), f"no sentence: {self.name}: {self.help}"
        if "duration" in self.name:
            assert self.name.endswith("_duration_seconds") and self.kind == "histogram", self.name
        if self.kind == "histogram":
            self._check_histogram()

    def _check_histogram(self):
        for (name, labels), buckets in self.samples.items():
            if not name.endswith("_bucket"):
                continue
            bounds, values = zip(*buckets)
            assert list(bounds) == sorted(set(bounds)) and bounds[-1] == float("inf"), f"{name}{labels}: {bounds}"
            assert list(values) == sorted(values), f"{name}{labels}: {values}"
            count = self.samples[(f"{self.name}_count", labels)]
            assert values[-1] == count, f"{name}{labels}: {values[-1]} is not the count, {count}"
            assert (self.samples[(f"{self.name}_sum", labels)] == 0) == (count == 0) or count > 0


def check_page(text):
    """{name: Family} of a page that Prometheus takes; fails if there is one rule that it does not keep."""
    assert text.endswith("\n")
    families, current, pending = {}, None, None
    for line in text[:-1].split("\n"):
        if (found := HELP.fullmatch(line)) is not None:
            assert pending is None, line
            pending = found.groups()
        elif (found := TYPE.fullmatch(line)) is not None:
            name, kind = found.groups()
            assert pending is not None and pending[0] == name, f"HELP does not come right before {line}"
            assert name not in families, f"in two places: {name}"
            current = families[name] = Family(name, kind, pending[1])
            pending = None
        else:
            found = SAMPLE.fullmatch(line)
            assert found is not None and current is not None and pending is None, f"no sample: {line!r}"
            current.add(*found.groups())
    for family in families.values():
        family.check()
    return families


def monotonic(text):
    """What may never fall: {series: value} of counters, and of histograms' parts."""
    kinds = {found.group(1): found.group(2) for found in TYPE.finditer(text)}
    values = {}
    for line in text.splitlines():
        if line.startswith("#"):
            continue
        name, _, value = line.rpartition(" ")
        base = name.partition("{")[0]
        if kinds.get(base) == "counter" or kinds.get(re.sub("_(bucket|sum|count)$", "", base)) == "histogram":
            values[name] = float(value)
    return values
