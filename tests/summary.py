"""Reads the results of all runners (JUnit XML, and recorded.tsv), prints the slowest tests and the count.

Usage: summary.py DIRECTORY. Exit status 1 when a test failed or none ran.
"""

import pathlib
import sys
import xml.etree.ElementTree


def junit_cases(path):
    """Yields (name, outcome, seconds) for each test case of a JUnit file."""
    suite = path.stem
    for case in xml.etree.ElementTree.parse(path).iter("testcase"):
        outcome = "passed"
        if case.find("failure") is not None or case.find("error") is not None or case.get("status") == "fail":
            outcome = "failed"
        elif case.find("skipped") is not None or case.get("status") in ("notrun", "disabled"):
            outcome = "skipped"
        name = ".".join(part for part in (case.get("classname"), case.get("name")) if part)
        yield f"{suite}: {name}", outcome, float(case.get("time") or 0)


def recorded_cases(path):
    for line in path.read_text().splitlines():
        name, outcome, began, ended = line.split("\t")
        yield name, outcome, float(ended) - float(began)


def main(directory):
    cases = list(recorded_cases(directory / "recorded.tsv"))
    for path in sorted(directory.glob("*.xml")):
        cases += junit_cases(path)
    print("==> the ten slowest tests")
    for name, _, seconds in sorted(cases, key=lambda case: -case[2])[:10]:
        print(f"{seconds:8.1f} s  {name}")
    for name, outcome, _ in cases:
        if outcome != "passed":
            print(f"{outcome}: {name}")
    count = {word: sum(outcome == word for _, outcome, _ in cases) for word in ("passed", "failed", "skipped")}
    print(f"{count['passed']} passed, {count['failed']} failed, {count['skipped']} skipped")
    return 0 if count["failed"] == 0 and count["passed"] > 0 else 1


if __name__ == "__main__":
    sys.exit(main(pathlib.Path(sys.argv[1])))
