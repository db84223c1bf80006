"""The ledger: compare-and-set, header blocks, and every way to read it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from switchgear.bus.port import Appended, Bus, Message, Refused
from switchgear.contract import subjects
from switchgear.contract.stored import Stored, expect_headers, expectation, header_block
from switchgear.errors import ProtocolError
from tests.conformance.support import MakeBus, Names, Received
from tests.patience import PATIENCE


async def add(bus: Bus, scope: str, event: subjects.Event, expect: int, body: bytes = b"{}") -> int:
    """Append what must be stored; returns its sequence."""
    outcome = await bus.ledger.append(
        subjects.task_event(scope, event), body, scope=scope, expect=expect
    )
    assert isinstance(outcome, Appended)
    return outcome.sequence


async def test_first_append_to_a_scope_expects_nothing(bus: Bus, names: Names) -> None:
    """Zero fits a scope without entries, and the stream's last sequence is the new entry's."""
    sequence = await add(bus, names.scope(), "submitted", 0)
    assert await bus.ledger.last_sequence() == sequence


async def test_append_that_names_the_newest_entry_is_stored(bus: Bus, names: Names) -> None:
    """Each append that expects its predecessor lands, with a higher sequence."""
    first = await add(bus, names.scope(), "submitted", 0)
    second = await add(bus, names.scope(), "cancel-requested", first)
    assert second > first


async def test_second_first_append_is_refused_with_the_last_sequence(
    bus: Bus, names: Names
) -> None:
    """The same submission again is refused and told what stands there."""
    scope = names.scope()
    first = await add(bus, scope, "submitted", 0)
    outcome = await bus.ledger.append(f"{scope[:-1]}submitted", b"{}", scope=scope, expect=0)
    assert outcome == Refused(first)


async def test_append_that_names_an_older_entry_is_refused(bus: Bus, names: Names) -> None:
    """A writer that has missed an entry is told the newest one, and its own is not stored."""
    scope = names.scope()
    first = await add(bus, scope, "submitted", 0)
    second = await add(bus, scope, "cancel-requested", first)
    outcome = await bus.ledger.append(f"{scope[:-1]}cancelled", b"{}", scope=scope, expect=first)
    assert outcome == Refused(second)
    assert [first, second] == [entry.sequence for entry in await bus.ledger.history(scope)]


async def test_append_that_expects_an_entry_of_an_empty_scope_is_refused(
    bus: Bus, names: Names
) -> None:
    """What is gone or never was is told as zero."""
    scope = names.scope()
    outcome = await bus.ledger.append(f"{scope[:-1]}completed", b"{}", scope=scope, expect=7)
    assert outcome == Refused(0)


async def test_append_is_checked_against_the_scope_that_it_names(bus: Bus, names: Names) -> None:
    """The broker looks at a foreign scope where one is named: that it is foreign is for readers."""
    first = await add(bus, names.scope("t1"), "submitted", 0)
    subject = f"{names.scope('t2')[:-1]}submitted"
    refused = await bus.ledger.append(subject, b"{}", scope=names.scope("t1"), expect=0)
    stored = await bus.ledger.append(subject, b"{}", scope=names.scope("t1"), expect=first)
    assert refused == Refused(first)
    assert isinstance(stored, Appended)


async def test_scopes_of_other_tasks_do_not_disturb(bus: Bus, names: Names) -> None:
    """Entries of one task leave the expectation of another as it is."""
    first = await add(bus, names.scope("t1"), "submitted", 0)
    await add(bus, names.scope("t2"), "submitted", 0)
    assert await add(bus, names.scope("t1"), "cancel-requested", first) > first


async def test_appends_land_in_the_order_of_the_calls(bus: Bus, names: Names) -> None:
    """Twenty appends without a pause get ascending sequences."""
    calls = [
        bus.ledger.append(
            f"{names.scope(f't{n}')[:-1]}submitted", b"{}", scope=names.scope(f"t{n}"), expect=0
        )
        for n in range(20)
    ]
    outcomes = [await call for call in calls]
    sequences = [outcome.sequence for outcome in outcomes if isinstance(outcome, Appended)]
    assert len(sequences) == 20
    assert sorted(sequences) == sequences


async def test_of_racing_appends_exactly_one_lands(make_bus: MakeBus, names: Names) -> None:
    """Of writers that expect the same, one is stored, the others are told its sequence."""
    one, two = await make_bus("bus-a"), await make_bus("bus-b")
    scope = names.scope()
    calls = [
        bus.ledger.append(f"{scope[:-1]}submitted", b"{}", scope=scope, expect=0)
        for bus in (one, two, one, two)
    ]
    outcomes = [await call for call in calls]
    landed = [outcome for outcome in outcomes if isinstance(outcome, Appended)]
    assert len(landed) == 1
    assert [Refused(landed[0].sequence)] * 3 == [o for o in outcomes if isinstance(o, Refused)]


async def test_append_is_sent_without_being_awaited(bus: Bus, names: Names) -> None:
    """The call alone stores the entry; its answer may be fetched later."""
    scope = names.scope()
    call = bus.ledger.append(f"{scope[:-1]}submitted", b"{}", scope=scope, expect=0)
    async with asyncio.timeout(PATIENCE):
        while (stored := await bus.ledger.leader_tail(scope)) is None:
            continue
    assert Appended(stored.sequence) == await call


@pytest.mark.parametrize(
    ("event", "size", "code"), [("submitted", 2**20, "SG1103"), ("sub mitted", 2, "SG1107")]
)
async def test_append_that_cannot_be_sent_is_an_error(
    bus: Bus, names: Names, event: str, size: int, code: str
) -> None:
    """A message above the broker's limit, or a subject that is none, is refused before sending."""
    scope = names.scope()
    with pytest.raises(ProtocolError) as caught:
        await bus.ledger.append(f"{scope[:-1]}{event}", bytes(size), scope=scope, expect=0)
    assert caught.value.code == code
    assert await bus.ledger.leader_tail(scope) is None


async def test_entry_comes_back_as_it_was_written(bus: Bus, names: Names) -> None:
    """All reads give subject, sequence, body, the raw header block, and one store time."""
    scope = names.scope()
    sequence = await add(bus, scope, "submitted", 0, b'{"a":1}')
    entry = await bus.ledger.entry(sequence)
    assert entry is not None
    block = header_block(expect_headers(0, scope))
    expected = Stored(f"{scope[:-1]}submitted", sequence, entry.time_ns, block, b'{"a":1}')
    assert expected == entry
    assert expected == await bus.ledger.tail(scope)
    assert expected == await bus.ledger.leader_tail(scope)
    assert [expected] == await bus.ledger.history(scope)
    assert expectation(entry.headers, scope) == 0


async def test_tail_is_the_newest_entry_of_the_scope(bus: Bus, names: Names) -> None:
    """Both tails give the last entry, whatever its event."""
    scope = names.scope()
    first = await add(bus, scope, "submitted", 0)
    second = await add(bus, scope, "cancel-requested", first)
    await add(bus, names.scope("t2"), "submitted", 0)
    tails = (await bus.ledger.tail(scope), await bus.ledger.leader_tail(scope))
    assert [second, second] == [tail.sequence for tail in tails if tail is not None]


async def test_tail_finds_a_task_whose_capability_is_unknown(bus: Bus, names: Names) -> None:
    """A star may stand for the capability."""
    sequence = await add(bus, names.scope(), "submitted", 0)
    tail = await bus.ledger.tail(subjects.scope("x", names.owner, "t1").replace(".x.", ".*.", 1))
    assert tail is not None
    assert tail.sequence == sequence


async def test_empty_scope_reads_as_nothing(bus: Bus, names: Names) -> None:
    """No entry is None or an empty list, never an error."""
    assert await bus.ledger.tail(names.scope()) is None
    assert await bus.ledger.leader_tail(names.scope()) is None
    assert await bus.ledger.history(names.scope()) == []
    assert await bus.ledger.entry(await bus.ledger.last_sequence() + 1000) is None


async def test_history_holds_the_scope_and_nothing_else(bus: Bus, names: Names) -> None:
    """All entries of the task in their order, though others lie between."""
    scope = names.scope()
    mine: list[int] = []
    for n in range(30):
        mine.append(await add(bus, scope, "checkpoint", mine[-1] if mine else 0, b"%d" % n))
        await add(bus, names.scope(f"other{n}"), "submitted", 0)
    history = await bus.ledger.history(scope)
    assert mine == [entry.sequence for entry in history]
    assert [b"%d" % n for n in range(30)] == [entry.data for entry in history]


async def caught_up(batches: AsyncIterator[list[Stored]]) -> list[Stored]:
    """Everything up to the next empty batch."""
    entries: list[Stored] = []
    async with asyncio.timeout(PATIENCE):
        async for batch in batches:
            entries += batch
            if not batch:
                break
    return entries


async def test_follow_gives_everything_beyond_a_sequence_then_says_so(
    bus: Bus, names: Names
) -> None:
    """Entries come in order from the one after the cursor on; an empty batch ends the backlog."""
    first = await add(bus, names.scope("t0"), "submitted", 0)
    later = [await add(bus, names.scope(f"t{n}"), "submitted", 0) for n in range(1, 6)]
    entries = await caught_up(bus.ledger.follow(first))
    assert later == [entry.sequence for entry in entries]
    assert entries[0].headers == header_block(expect_headers(0, names.scope("t1")))


async def test_follow_goes_on_with_what_is_stored_later(bus: Bus, names: Names) -> None:
    """After the backlog the same iteration gives new entries as they come."""
    followed = bus.ledger.follow(await bus.ledger.last_sequence())
    assert await caught_up(followed) == []
    sequence = await add(bus, names.scope(), "submitted", 0)
    async with asyncio.timeout(PATIENCE):
        while not (batch := await anext(followed)):
            continue
    assert [sequence] == [entry.sequence for entry in batch]


async def test_stored_entries_are_republished_and_refused_ones_are_not(
    bus: Bus, names: Names
) -> None:
    """A watcher gets each stored entry with the server's own headers behind the writer's."""
    heard = Received[Message]()
    subscription = await bus.core.subscribe(subjects.live(names.owner), heard)
    scope = names.scope()
    sequence = await add(bus, scope, "submitted", 0, b"one")
    await bus.ledger.append(f"{scope[:-1]}submitted", b"no", scope=scope, expect=0)
    await add(bus, scope, "cancel-requested", sequence, b"two")
    live = await heard.reach(2)
    await subscription.unsubscribe()
    assert [message.data for message in live] == [b"one", b"two"]
    assert live[0].subject == f"sg.live.{scope[len('sg.task.') : -1]}submitted"
    assert expectation(live[0].headers, scope) == 0
    for line in (
        b"Nats-Stream: SG_LEDGER\r\n",
        f"Nats-Subject: {scope[:-1]}submitted\r\n".encode(),
        f"Nats-Sequence: {sequence}\r\n".encode(),
        b"Nats-Time-Stamp: ",
        b"Nats-Last-Sequence: 0\r\n",
    ):
        assert line in live[0].headers
