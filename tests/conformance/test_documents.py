"""Documents: the newest message of a subject, under compare-and-set, and its watchers."""

from __future__ import annotations

import asyncio

import pytest

from switchgear.bus.port import Appended, Bus, Kept, Refused
from switchgear.contract import subjects
from switchgear.errors import ProtocolError, Unavailable, UsageError
from tests.conformance.support import MakeBus, Names, Received


def place(names: Names, name: str = "one") -> str:
    """Where a schedule of this test is kept."""
    return subjects.schedule(names.owner, name)


def under(names: Names) -> str:
    """All schedules of this test."""
    return subjects.schedule(names.owner, "*")


def seen(kept: list[Kept]) -> list[tuple[str, bytes | None]]:
    """Last tokens of the subjects, and data."""
    return [(one.subject.rpartition(".")[2], one.data) for one in kept]


async def stored(bus: Bus, subject: str, data: bytes, expect: int | None = None) -> int:
    """Store a document; returns its sequence."""
    outcome = await bus.documents.put(subject, data, expect=expect)
    assert isinstance(outcome, Appended)
    return outcome.sequence


async def test_document_is_there_for_every_connection(make_bus: MakeBus, names: Names) -> None:
    one, two = await make_bus("a"), await make_bus("b")
    sequence = await stored(one, place(names), b"1")
    found = await two.documents.get(place(names))
    assert found is not None
    assert (place(names), b"1", sequence) == found[:3]
    assert found.time_ns > 0
    assert await two.documents.get(place(names, "other")) is None


async def test_document_that_is_being_replaced_is_in_every_list(
    make_bus: MakeBus, names: Names
) -> None:
    """In one form or the other."""
    one, two = await make_bus("a"), await make_bus("b")
    await stored(one, place(names), b"0")
    done = asyncio.Event()

    async def replace() -> None:
        while not done.is_set():
            await stored(one, place(names), b"1")

    replacing = asyncio.create_task(replace())
    lists = [await two.documents.list(under(names)) for _ in range(200)]
    done.set()
    await replacing
    assert [found for found in lists if len(found) != 1] == []


async def test_only_the_expected_sequence_is_replaced(bus: Bus, names: Names) -> None:
    first = await stored(bus, place(names), b"1", 0)
    assert await bus.documents.put(place(names), b"x", expect=0) == Refused(first)
    assert await bus.documents.put(place(names), b"x", expect=first - 1) == Refused(first)
    second = await stored(bus, place(names), b"2", first)
    assert second > first
    assert await bus.documents.put(place(names), b"x", expect=first) == Refused(second)
    found = await bus.documents.get(place(names))
    assert found is not None
    assert (found.data, found.sequence) == (b"2", second)


async def test_without_an_expectation_the_last_one_wins(bus: Bus, names: Names) -> None:
    for n in range(5):
        await stored(bus, place(names), b"%d" % n)
    assert seen(await bus.documents.list(under(names))) == [("one", b"4")]


async def test_of_twenty_that_race_one_wins(make_bus: MakeBus, names: Names) -> None:
    """A lease is taken by one of many replicas, however close they come."""
    buses = [await make_bus(f"b{n}") for n in range(4)]
    outcomes = await asyncio.gather(
        *(buses[n % 4].documents.put(place(names), b"%d" % n, expect=0) for n in range(20))
    )
    winners = [(n, one) for n, one in enumerate(outcomes) if isinstance(one, Appended)]
    ((winner, outcome),) = winners
    found = await buses[0].documents.get(place(names))
    assert found is not None
    assert (b"%d" % winner, outcome.sequence) == (found.data, found.sequence)


async def test_removed_document_is_not_there(bus: Bus, names: Names) -> None:
    """Neither by its name nor in the list; another one stays."""
    await stored(bus, place(names), b"1")
    await stored(bus, place(names, "two"), b"2")
    assert isinstance(await bus.documents.remove(place(names)), Appended)
    assert await bus.documents.get(place(names)) is None
    assert seen(await bus.documents.list(under(names))) == [("two", b"2")]


async def test_removed_document_can_be_stored_as_if_it_never_was(bus: Bus, names: Names) -> None:
    """By 0, and by the sequence of the removal, but not by what was there before."""
    first = await stored(bus, place(names), b"1", 0)
    removed = await bus.documents.remove(place(names), expect=first)
    assert isinstance(removed, Appended)
    assert await bus.documents.put(place(names), b"x", expect=first) == Refused(removed.sequence)
    second = await stored(bus, place(names), b"2", 0)
    again = await bus.documents.remove(place(names), expect=second)
    assert isinstance(again, Appended)
    await stored(bus, place(names), b"3", again.sequence)
    assert seen(await bus.documents.list(under(names))) == [("one", b"3")]


async def test_removal_under_a_wrong_expectation_is_refused(bus: Bus, names: Names) -> None:
    first = await stored(bus, place(names), b"1")
    assert await bus.documents.remove(place(names), expect=0) == Refused(first)
    second = await stored(bus, place(names), b"2")
    assert await bus.documents.remove(place(names), expect=first) == Refused(second)
    assert seen(await bus.documents.list(under(names))) == [("one", b"2")]


async def test_what_is_not_there_is_removed_all_the_same(bus: Bus, names: Names) -> None:
    for expect in (None, 0, 0):
        assert isinstance(await bus.documents.remove(place(names), expect=expect), Appended)
    assert await bus.documents.list(under(names)) == []


async def test_list_is_confined_to_the_filter(bus: Bus, names: Names) -> None:
    """In the order of storing."""
    for n in (3, 1, 2):
        await stored(bus, place(names, f"n{n}"), b"%d" % n)
    await stored(bus, subjects.trigger(names.capability), b"t")
    assert seen(await bus.documents.list(under(names))) == [
        ("n3", b"3"),
        ("n1", b"1"),
        ("n2", b"2"),
    ]
    assert seen(await bus.documents.list(place(names, "n1"))) == [("n1", b"1")]


async def test_watch_tells_what_is_there_then_every_change(make_bus: MakeBus, names: Names) -> None:
    one, two = await make_bus("a"), await make_bus("b")
    await stored(one, place(names, "gone"), b"0")
    await one.documents.remove(place(names, "gone"))
    await stored(one, place(names), b"1")
    heard = Received[Kept]()
    watching = await two.documents.watch(under(names), heard)
    assert seen(heard.items) == [("one", b"1")]
    await stored(one, place(names, "two"), b"2")
    await stored(one, subjects.trigger(names.capability), b"other")
    await stored(one, place(names), b"3")
    await heard.reach(3)  # else the removal may be all that is left to hear of it
    await one.documents.remove(place(names))
    await heard.reach(4)
    assert seen(heard.items) == [("one", b"1"), ("two", b"2"), ("one", b"3"), ("one", None)]
    sequences = [one.sequence for one in heard.items]
    assert sorted(set(sequences)) == sequences
    await watching.end()


async def test_ended_watch_of_documents_hears_nothing_more(bus: Bus, names: Names) -> None:
    ended, goes_on = Received[Kept](), Received[Kept]()
    watching = await bus.documents.watch(under(names), ended)
    other = await bus.documents.watch(under(names), goes_on)
    await watching.end()
    await stored(bus, place(names), b"1")
    await goes_on.reach(1)
    assert ended.items == []
    await other.end()


async def test_document_without_data_is_an_error(bus: Bus, names: Names) -> None:
    """No bytes would mean its removal."""
    with pytest.raises(UsageError):
        await bus.documents.put(place(names), b"")


@pytest.mark.parametrize("subject", ["sg.task.a.b.c.submitted", "sg.config.a b", ""])
async def test_document_elsewhere_is_refused(bus: Bus, subject: str) -> None:
    with pytest.raises(ProtocolError, match="SG1107"):
        await bus.documents.put(subject, b"1")


async def test_closed_connection_stores_no_document(make_bus: MakeBus, names: Names) -> None:
    one, two = await make_bus("a"), await make_bus("b")
    await one.close()
    with pytest.raises(Unavailable):
        await one.documents.put(place(names), b"1")
    assert await two.documents.get(place(names)) is None
