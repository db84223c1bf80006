"""The table of live instances: pools, departures, settling, freshness."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from switchgear.contract import codec, limits
from switchgear.contract.announcement import Announcement, Offer, Running
from switchgear.errors import ProtocolError
from switchgear.registry.table import SETTLING, Table

T0 = datetime(2026, 1, 1, tzinfo=UTC)
SECOND = timedelta(seconds=1)


def offered(name: str = "work", pool: str = "p1", **fields: Any) -> Offer:
    values: dict[str, Any] = {
        "name": name,
        "version": "1.0.0",
        "pool": pool,
        "input_digest": "0" * 64,
        "output_digest": "0" * 64,
        "input_schema": {},
        "output_schema": {},
    }
    return Offer(**(values | fields))


def announce(
    table: Table, instance: str = "i1", at: datetime = T0, *offers: Offer, **fields: Any
) -> set[str]:
    data = Announcement(
        v=1,
        agent="a",
        instance=instance,
        version="1.0.0",
        started=T0,
        time=T0,
        offers=offers or (offered(),),
        **fields,
    )
    return table.put(f"sg.announce.a.{instance}", codec.encode(data), at)


def test_new_pools_are_told_once() -> None:
    """Only what no accepting instance offered before wakes who waits."""
    table = Table()
    assert announce(table) == {"work"}
    assert announce(table) == set()
    assert announce(table, "i2") == set()
    assert announce(table, "i3", T0, offered(pool="p2")) == {"work"}
    announce(table, "i3", T0, offered(pool="p2"), draining=True)
    assert announce(table, "i4", T0, offered(pool="p2")) == {"work"}


def test_instances_of_one_pool_are_counted_together() -> None:
    """Slots of accepting instances add up; busy ones are taken off; draining ones do not count."""
    table = Table()
    announce(table, "i1", busy={"work": 3})
    announce(table, "i2")
    announce(table, "i3", draining=True)
    [pool] = table.pools("work")
    assert (pool.instances, pool.draining, pool.slots, pool.free) == (2, 1, 8, 5)
    assert table.pools("other") == []
    assert list(table.capabilities()) == ["work"]


def test_who_leaves_is_remembered_as_the_last_to_offer() -> None:
    """`last_offered` names agent, version, instance and time."""
    table = Table()
    announce(table)
    table.remove("sg.announce.a.i1", T0)
    table.remove("sg.announce.a.i1", T0)
    assert table.pools("work") == []
    assert table.last_offered("work") == "a 1.0.0 (i1) until 2026-01-01 00:00:00 UTC"
    assert table.last_offered("other") == ""


def test_nobody_counts_as_absent_while_settling() -> None:
    """After the reader came back, ends of announcements are believed only when ten seconds are over."""
    table = Table()
    announce(table)
    announce(table, "i2")
    table.settle(T0)
    table.remove("sg.announce.a.i1", T0 + SECOND)
    table.remove("sg.announce.a.i2", T0 + SECOND)
    announce(table, "i2", T0 + 2 * SECOND)
    table.sweep(T0 + SETTLING - SECOND)
    assert table.pools("work")[0].instances == 2
    table.sweep(T0 + SETTLING)
    assert list(table.instances) == ["sg.announce.a.i2"]


def test_silent_instance_is_dropped_whatever_ttl_it_asked_for() -> None:
    """Freshness is judged by the broker's store time."""
    table = Table()
    announce(table)
    table.sweep(T0 + limits.ANNOUNCE_TTL)
    assert table.pools("work")
    table.sweep(T0 + limits.ANNOUNCE_TTL + SECOND)
    assert table.pools("work") == []


def test_runner_must_have_announced_lately() -> None:
    """A crashed instance stays announced for a while, but it runs nothing any more."""
    table = Table()
    task = Running(task="t1", owner="o", capability="work", since=T0)
    announce(table, "i1", T0, running=(task,))
    assert table.runner("t1", T0 + 10 * SECOND) == "i1"
    assert table.runner("t1", T0 + 20 * SECOND) == ""
    assert table.runner("t2", T0) == ""
    table.settle(T0 + 20 * SECOND)
    assert table.runner("t1", T0 + 20 * SECOND) == "i1"


@pytest.mark.parametrize(
    ("subject", "data"),
    [
        ("sg.announce.a.i2", None),
        ("sg.announce.a", None),
        ("sg.announce.a.i1", b"\xff"),
        ("sg.announce.a.i1", b"{}"),
        ("sg.announce.a.i1", b"[" * 100_000),
        ("sg.announce.a.i1", b" " * (limits.MAX_ANNOUNCEMENT + 1)),
    ],
)
def test_bad_announcements_are_refused_and_change_nothing(subject: str, data: bytes | None) -> None:
    """Another's name, another subject, other bytes: ProtocolError, and the table stays."""
    table = Table()
    announce(table)
    good = codec.encode(table.instances["sg.announce.a.i1"].announcement)
    version = table.version
    with pytest.raises(ProtocolError):
        table.put(subject, good if data is None else data, T0)
    assert table.version == version
    assert list(table.instances) == ["sg.announce.a.i1"]


def test_a_lost_instance_counts_for_nothing_until_it_announces_itself_again() -> None:
    """Its pool accepts nothing, it runs nothing; what it ran is told, to each who asks."""
    table = Table()
    ran = Running(task="t", owner="o", capability="work", since=T0, ack="ack")
    announce(table, running=(ran,))
    version = table.version
    assert table.heard("i1") == T0
    assert table.lost("i1") == (ran,)
    assert table.lost("i1") == (ran,)
    assert table.version > version
    assert (table.pools("work"), table.runner("t", T0)) == ([], "")
    assert announce(table, "i1", T0 + SECOND, running=(ran,)) == {"work"}
    assert table.heard("i1") == T0 + SECOND
    assert (len(table.pools("work")), table.runner("t", T0 + SECOND)) == (1, "i1")


def test_a_lost_instance_that_nobody_knows_ran_nothing() -> None:
    """Connections of clients end all the time; one whose name ends alike is another."""
    table = Table()
    announce(table, "long-i1")
    assert (table.lost("i1"), table.heard("i1")) == ((), None)
    assert len(table.pools("work")) == 1
    table.lost("long-i1")
    table.remove("sg.announce.a.long-i1", T0)
    assert announce(table, "long-i1") == {"work"}
