"""What retention has deleted leaves the read model too."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import cast

import pytest

from switchgear.bus.port import Ledger
from switchgear.contract import queries, subjects
from switchgear.contract.stored import Stored
from switchgear.projections import forgetting
from switchgear.projections.forgetting import Forgetting
from switchgear.projections.history import Index
from switchgear.projections.lists import Reader
from tests.unit.projections.feed import Feed


class DeletingLedger:
    """Entries by sequence; counts what it is asked for."""

    def __init__(self, feed: Feed) -> None:
        self.held = {one.sequence: one for one in feed.stored}
        self.looks = 0

    def delete(self, scope: str) -> None:
        """As the janitor does."""
        gone = [one.sequence for one in self.held.values() if one.subject.startswith(scope[:-1])]
        for sequence in gone:
            del self.held[sequence]

    async def count(self, subject_filter: str) -> int:
        assert subject_filter in subjects.TERMINAL_FILTERS
        event = subject_filter.rsplit(".", 1)[1]
        await asyncio.sleep(0)
        subjects_held = {one.subject for one in self.held.values()}
        return sum(one.endswith(f".{event}") for one in subjects_held)

    async def entry(self, sequence: int) -> Stored | None:
        self.looks += 1
        await asyncio.sleep(0)
        return self.held.get(sequence)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "history.sqlite"


@pytest.fixture
def index(path: Path) -> Iterator[Index]:
    with closing(Index(path)) as opened:
        yield opened


def listed(path: Path) -> list[str]:
    with closing(Reader(path)) as reader:
        return [row.id for row in reader.tasks("ann", queries.ListQuery(limit=1000)).tasks]


def rows(path: Path) -> dict[str, list[tuple[object, ...]]]:
    """All that the file holds."""
    with closing(sqlite3.connect(path)) as file:
        return {
            table: file.execute(f"SELECT * FROM {table} ORDER BY 1").fetchall()  # noqa: S608
            for table in ("tasks", "moments", "kept", "decisions", "meta")
        }


def finished(feed: Feed, *names: str) -> list[str]:
    scopes = [feed.task(name) for name in names]
    for scope in scopes:
        scope.finish()
    return [scope.scope for scope in scopes]


async def test_what_was_deleted_is_gone_and_the_file_is_as_if_rebuilt(
    index: Index, path: Path, tmp_path: Path
) -> None:
    feed = Feed()
    feed.task("open").add("submitted")
    first, _, third = finished(feed, "t1", "t2", "t3")
    index.apply(feed.stored)
    ledger = DeletingLedger(feed)
    ledger.delete(first)
    ledger.delete(third)
    assert await Forgetting(cast("Ledger", ledger), index).once() == 2
    assert listed(path) == ["t2", "open"]
    anew = tmp_path / "anew.sqlite"
    with closing(Index(anew)) as other:
        other.apply(list(ledger.held.values()))
    assert {**rows(path), "meta": []} == {**rows(anew), "meta": []}


async def test_as_long_as_nothing_was_deleted_nothing_is_looked_up(
    index: Index, path: Path
) -> None:
    feed = Feed()
    finished(feed, "t1", "t2")
    feed.task("open").add("submitted")
    index.apply(feed.stored)
    ledger = DeletingLedger(feed)
    assert await Forgetting(cast("Ledger", ledger), index).once() == 0
    assert (ledger.looks, len(listed(path))) == (0, 3)


async def test_tasks_that_end_while_it_counts_start_no_search(index: Index) -> None:
    feed = Feed()
    finished(feed, "t1", "t2")
    index.apply(feed.stored)

    class Busy(DeletingLedger):
        async def count(self, subject_filter: str) -> int:
            counted = await super().count(subject_filter)
            known = feed.sequence
            finished(feed, f"during-{subject_filter.rsplit('.', 1)[1]}")
            index.apply(feed.since(known))
            return counted

    ledger = Busy(feed)
    assert await Forgetting(cast("Ledger", ledger), index).once() == 0
    assert ledger.looks == 0


async def test_ends_that_raw_clients_repeat_start_no_search(index: Index) -> None:
    """The broker counts subjects: entries of one task and event count once."""
    feed = Feed()
    finished(feed, "t1", "t2")
    for task in (feed.task("t1"), feed.task("open")):
        task.raw("completed")
        task.raw("completed")
        task.raw("dead")
    index.apply(feed.stored)
    ledger = DeletingLedger(feed)
    assert await Forgetting(cast("Ledger", ledger), index).once() == 0
    assert ledger.looks == 0
    ledger.delete(feed.task("t1").scope)
    assert await Forgetting(cast("Ledger", ledger), index).once() == 4


async def test_the_search_ends_with_the_last_one_that_is_missing(
    index: Index, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forgetting, "PAGE", 2)
    feed = Feed()
    scopes = finished(feed, *(f"t{number}" for number in range(10)))
    index.apply(feed.stored)
    ledger = DeletingLedger(feed)
    ledger.delete(scopes[3])
    assert await Forgetting(cast("Ledger", ledger), index).once() == 1
    assert ledger.looks == 4
    assert "t3" not in listed(path)


async def test_a_long_search_goes_on_in_the_next_pass_and_begins_anew_at_the_end(
    index: Index, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forgetting, "PAGE", 2)
    monkeypatch.setattr(forgetting, "MOST", 4)
    feed = Feed()
    scopes = finished(feed, *(f"t{number}" for number in range(10)))
    index.apply(feed.stored)
    ledger = DeletingLedger(feed)
    ledger.delete(scopes[9])
    once = Forgetting(cast("Ledger", ledger), index).once
    assert [await once(), await once(), await once()] == [0, 0, 1]
    ledger.delete(scopes[0])
    assert await once() == 1
    assert listed(path) == [f"t{number}" for number in range(8, 0, -1)]


async def test_a_task_that_began_anew_under_its_old_id_stays(index: Index, path: Path) -> None:
    feed = Feed()
    (scope,) = finished(feed, "t1")
    index.apply(feed.stored)
    (old,) = index.ends(0, 10)
    ledger = DeletingLedger(feed)
    ledger.delete(scope)
    again = feed.task("t1")
    feed.last.clear()
    again.add("submitted")
    index.apply(feed.since(old.sequence))
    index.forget([old])
    assert listed(path) == ["t1"]


async def test_a_void_end_that_was_deleted_takes_only_itself_along(
    index: Index, path: Path
) -> None:
    feed = Feed()
    task = feed.task("t1")
    task.add("submitted")
    void = task.raw("completed")
    finished(feed, "t2")
    index.apply(feed.stored)
    ledger = DeletingLedger(feed)
    del ledger.held[void.sequence]
    assert await Forgetting(cast("Ledger", ledger), index).once() == 1
    assert listed(path) == ["t2", "t1"]
    assert void.sequence not in {row[0] for row in rows(path)["moments"]}
