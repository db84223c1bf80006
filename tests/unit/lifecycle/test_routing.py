"""Which pool runs a task: ranges, labels, draining, and a spread that every replica agrees on."""

from __future__ import annotations

import itertools
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from switchgear.contract import limits
from switchgear.contract.values import Candidate, Route
from switchgear.lifecycle import routing
from switchgear.lifecycle.routing import Chosen, Pool, Wanted, choose
from tests.unit.lifecycle.script import pool


def wanted(version: str = "*", **labels: str) -> Wanted:
    return Wanted("t1", version, labels)


def chosen(pools: list[Pool], want: Wanted) -> str:
    found = choose(pools, want)
    return found.pool.offer.pool if isinstance(found, Chosen) else ""


RANGES = [
    ("*", "0.0.1", True),
    ("", "2.0.0", True),
    ("  ", "2.0.0", True),
    ("1", "1.9.3", True),
    ("1", "2.0.0", False),
    ("1.2", "1.2.9", True),
    ("1.2", "1.20.0", False),
    (" 1.2 ", "1.2.0", True),
    ("1.2.3", "1.2.3", True),
    ("1.2.3", "1.2.4", False),
    (">=1.2,<2", "1.9.0", True),
    (">=1.2,<2", "2.0.0", False),
    ("~=1.2", "1.3.0", True),
    ("!=1.2.*", "1.2.1", False),
    (">=2", "2.1.0rc1", True),
    (">=1", "not-a-version", False),
    ("*", "not-a-version", True),
    ("==0", "9" * 5000, True),
]


@pytest.mark.parametrize(("text", "version", "fits"), RANGES)
def test_a_version_fits_a_range_or_not(text: str, version: str, fits: bool) -> None:  # noqa: FBT001
    """A version that nobody can read counts as 0."""
    assert fits == bool(chosen([pool(version=version)], wanted(text)))


@pytest.mark.parametrize("text", ["newest", "^1.2", ">=1;x", "1.2-", "²", ">=" + "9" * 5000, "\0"])
def test_what_is_no_range_is_a_value_error(text: str) -> None:
    """And no other: admission turns it into SG1206."""
    with pytest.raises(ValueError, match=r"range|longer"):
        routing.version_range(text)


@settings(max_examples=300, derandomize=True, deadline=None)
@given(
    st.text("0123456789.*<>=!~,+abrc-dev ²", max_size=20) | st.text(max_size=300),
    st.text("0123456789.+abrc-dev", max_size=20) | st.text(max_size=300),
)
def test_no_range_and_no_version_raise_anything_else(text: str, version: str) -> None:
    """Both come from strangers, and a decision that raises is never made."""
    try:
        routing.version_range(text)
    except ValueError:
        return
    choose([pool(version=version)], wanted(text))


def test_a_pool_needs_every_label() -> None:
    """With its value; more labels do no harm."""
    gpu = pool("gpu", labels={"gpu": "a100", "zone": "eu"})
    assert chosen([gpu], wanted(gpu="a100")) == "gpu"
    assert chosen([gpu], wanted(gpu="a100", zone="us")) == ""
    assert chosen([pool()], wanted(gpu="a100")) == ""


def test_a_pool_without_accepting_instances_is_not_chosen() -> None:
    """It says whether they drain or are gone."""
    for draining, why in ((2, "all its instances drain"), (0, "no instance is alive")):
        found = choose([pool(instances=0, draining=draining)], wanted())
        assert isinstance(found, Route)
        assert found.reason == f"no pool fits: agent-p1 1.0.0: {why}"


def test_a_pool_without_a_free_slot_is_chosen_all_the_same() -> None:
    """Its lane is the queue."""
    assert chosen([pool(free=0)], wanted()) == "p1"


def test_the_newest_version_that_fits_wins() -> None:
    """As versions, not as texts."""
    pools = [pool("old", "1.9.0"), pool("new", "1.10.0"), pool("next", "2.0.0")]
    found = choose(pools, wanted("<2"))
    assert isinstance(found, Chosen)
    assert found.pool.offer.pool == "new"
    assert found.route.reason == "newest of 2 pools that fit"


def test_the_route_names_the_losers_and_why() -> None:
    """The chosen pool stands first, so that it is never cut off."""
    pools = [
        pool("old", "0.9.0"),
        pool("other", "1.0.0", labels={"gpu": "t4"}),
        pool("best", "1.1.0", labels={"gpu": "a100"}, free=3),
        pool("good", "1.0.0", labels={"gpu": "a100"}),
    ]
    found = choose(pools, wanted(">=1", gpu="a100"))
    assert isinstance(found, Chosen)
    assert found.route.candidates == (
        Candidate(pool="best", version="1.1.0", instances=1, free=3),
        Candidate(
            pool="old", version="0.9.0", instances=1, free=4, refused="version 0.9.0 is not >=1"
        ),
        Candidate(
            pool="other", version="1.0.0", instances=1, free=4, refused="label gpu is t4, not a100"
        ),
        Candidate(
            pool="good", version="1.0.0", instances=1, free=4, refused="another pool was better"
        ),
    )


def test_a_route_names_only_so_many_pools() -> None:
    """An entry stays readable in a mesh of hundreds."""
    pools = [pool(f"p{n}", f"1.{n}.0") for n in range(100)]
    found = choose(pools, wanted())
    assert isinstance(found, Chosen)
    assert len(found.route.candidates) == limits.MAX_CANDIDATES
    assert found.route.candidates[0].pool == "p99"
    nobody = choose(pools, wanted("==7"))
    assert isinstance(nobody, Route)
    assert len(nobody.candidates) == limits.MAX_CANDIDATES
    assert nobody.reason.count("is not ==7") == 3


def test_nobody_at_all_is_said_so() -> None:
    """Other words than for pools that do not fit."""
    assert choose([], wanted()) == Route(reason="nobody offers this capability")


def test_every_replica_chooses_alike_whatever_order_it_sees() -> None:
    """Two coordinators that decide the same task at once agree."""
    pools = [pool("a", slots=1), pool("b", slots=2), pool("c", slots=3)]
    for number in range(50):
        want = Wanted(f"task-{number}", "*", {})
        assert len({chosen(list(one), want) for one in itertools.permutations(pools)}) == 1


def test_tasks_are_spread_by_slots() -> None:
    """Pools of 1, 2 and 5 slots get about 1, 2 and 5 eighths of 4,000 tasks."""
    pools = [pool("a", slots=1), pool("b", slots=2), pool("c", slots=5)]
    got = Counter(chosen(pools, Wanted(f"task-{n}", "*", {})) for n in range(4000))
    for name, expected in (("a", 500), ("b", 1000), ("c", 2500)):
        assert abs(got[name] - expected) < 110, got
    found = choose(pools, wanted())
    assert isinstance(found, Chosen)
    assert found.route.reason == "one of 3 pools of version 1.0.0, by share of slots"


def test_a_pool_that_joins_moves_only_its_own_share() -> None:
    """Rendezvous hashing: no task moves between the pools that stay."""
    before = [pool("a"), pool("b")]
    after = [*before, pool("c")]
    for number in range(200):
        want = Wanted(f"task-{number}", "*", {})
        assert chosen(after, want) in (chosen(before, want), "c")


def test_pools_without_slots_share_as_if_they_had_one() -> None:
    """An announcement may say anything."""
    assert chosen([pool("a", slots=0), pool("b", slots=-3)], wanted()) in ("a", "b")
