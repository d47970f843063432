"""Thousands of names, a P-256 and an RSA chain each: start, reload, memory and handshakes stay cheap, the log short."""

import sys

import pytest

import harness

sys.path.append(str(harness.ROOT / "tests" / "bench"))

import many_names  # noqa: E402

# Names, those of them that are asked for, and rounds of handshakes whose CPU is compared.
COUNT, VISITED, ROUNDS = (10_000, 2_500, 7) if harness.STRICT else (1_000, 250, 3)
# One round's CPU says little on a machine that others use too.
SLACK = {} if harness.STRICT else {"cpu_ratio": 1.5}


def test_each_name_has_its_own(tmp_path):
    """Few enough for a sanitizer's build; the ends, and what stands between."""
    world = many_names.World(tmp_path, 100)
    harness.open_to_all(tmp_path)
    proxy = world.many()
    with many_names.running(world.key_server, proxy):
        world.key_server.start()
        proxy.start()
        world.visit(proxy, range(100))
        assert proxy.metric("keyless_certificates") == 200
        proxy.reload()
        world.visit(proxy, [0, 50, 99])
    proxy.assert_clean()


@pytest.mark.release
@pytest.mark.skipif(harness.SANITIZED, reason="a sanitizer's memory and time are not ours")
@pytest.mark.timeout(900)  # each chain is tried once, at most a hundred a second
def test_costs(tmp_path):
    harness.open_to_all(tmp_path)
    found = many_names.measure(tmp_path, COUNT, VISITED, ROUNDS)
    print(many_names.table(found))
    assert not many_names.problems(found, SLACK)


@pytest.mark.release
@pytest.mark.skipif(harness.SANITIZED, reason="hundreds of chains are read")
def test_no_flood_of_warnings(tmp_path):
    """The same chains in two places: each name has two of each type."""
    harness.open_to_all(tmp_path)
    world = many_names.World(tmp_path, 100)
    twice = [{"dir": str(world.made / "chains")}, {"dir": str(tmp_path / "again")}]
    (tmp_path / "again").symlink_to(world.made / "chains")
    proxy = world.proxy("twice", twice)
    with many_names.running(world.key_server, proxy):
        world.key_server.start()
        proxy.start()
        assert len(proxy.find("two chains of one type for a name")) == 20
        (rest,) = proxy.find("more chains of one type for a name")
        assert rest["count"] == "180"
        world.visit(proxy, [0, 99])
