"""The janitor: what goes, what stays, and that no crash leaves half a task."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from importlib import import_module
from pathlib import Path
from typing import Any

import msgspec
import pytest

from switchgear import crashpoint
from switchgear.contract import codec, subjects
from switchgear.contract.stored import Stored, expect_headers, header_block
from switchgear.coordinator import archive
from switchgear.coordinator.archive import JsonLines, Parquet
from switchgear.coordinator.janitor import Janitor
from switchgear.errors import ExtraMissing
from switchgear.lifecycle.history import fold
from switchgear.lifecycle.retention import Policy
from switchgear.testing import virtual_time
from switchgear.testing.memory import LoopClock, MemoryBroker, MemoryBus
from tests.unit.lifecycle import script

START = datetime.fromisoformat("2026-01-01T00:00:00Z")
WEEK = timedelta(days=7)
HOUR = timedelta(hours=1)


class Always:
    """A lease that this replica holds, unless the test says otherwise."""

    def __init__(self) -> None:
        self.answer = True

    async def held(self) -> bool:
        return self.answer


class World:
    """A broker in memory, and tasks in it as writers would leave them."""

    def __init__(self) -> None:
        self.clock = LoopClock(START)
        self.broker = MemoryBroker(clock=self.clock)
        self.bus = MemoryBus(self.broker, "coordinator-1")

    def add(self, scope: str, event: str, *, headers: bytes | None = None, **fields: Any) -> int:
        """Append as its writer does."""
        newest = self.broker.ledger.newest(scope)
        expected = newest.sequence if newest is not None else 0
        block = header_block(expect_headers(expected, scope)) if headers is None else headers
        task = subjects.parse_task(f"{scope[:-1]}submitted").task
        entry = msgspec.structs.replace(script.entry(event, **fields), task=task)
        subject = scope[:-1] + (event if event != "dispatched" else "dispatched.p1.normal")
        self.broker.store(subject, block, codec.encode(entry))
        return self.broker.ledger.last_sequence

    def open(self, task: str, *, root: str = "", capability: str = "review") -> str:
        """A task that somebody holds. Returns its scope."""
        scope = subjects.scope(capability, "alice", task)
        submitted = self.add(scope, "submitted", root=root)
        self.add(scope, "dispatched", submitted=submitted)
        return scope

    def end(self, scope: str) -> None:
        """Let its holder complete it."""
        hold = fold(scope, self.broker.ledger.under(scope)).hold
        self.add(scope, "completed", hold=hold)

    def ended(self, task: str, *, root: str = "", capability: str = "review") -> str:
        """A task that has ended. Returns its scope."""
        scope = self.open(task, root=root, capability=capability)
        self.end(scope)
        return scope

    def rejected(self, task: str) -> str:
        """A task that was rejected. Returns its scope."""
        scope = subjects.scope("review", "alice", task)
        self.add(scope, "submitted")
        self.add(scope, "rejected")
        return scope

    def janitor(self, most: int = 1000, **more: Any) -> Janitor:
        """A janitor with the lease."""
        return Janitor(self.bus, self.clock, Always(), Policy(WEEK, most), **more)

    def left(self, scope: str) -> list[str]:
        """The events that are left of a task."""
        found = self.broker.ledger.under(scope)
        return [subjects.parse_task(one.subject).event for one in found]


@pytest.fixture
async def world() -> AsyncIterator[World]:
    """In virtual time."""
    time = virtual_time.of_running_loop()
    time.enter()
    yield World()
    time.leave()


async def after(wait: timedelta) -> None:
    await asyncio.sleep(wait.total_seconds())


WHOLE = ["submitted", "dispatched", "completed"]


async def test_what_ended_long_ago_goes_and_the_rest_stays(world: World) -> None:
    """By age: an open task stays for ever, whatever its age."""
    old, forgotten = world.ended("old"), world.open("forgotten")
    await after(WEEK - HOUR)
    young = world.ended("young")
    assert await world.janitor().clean() == 0
    await after(2 * HOUR)
    assert await world.janitor().clean() == 1
    assert world.left(old) == []
    assert world.left(forgotten) == ["submitted", "dispatched"]
    assert world.left(young) == WHOLE


async def test_of_too_many_those_that_ended_first_go(world: World) -> None:
    """By count, in batches, whatever their age; open ones are not counted."""
    for number in range(5):
        world.open(f"open-{number}")
    scopes = [world.ended(str(number)) for number in range(450)]
    assert await world.janitor(most=20).clean() == 430
    assert [bool(world.left(scope)) for scope in scopes] == [False] * 430 + [True] * 20
    assert await world.janitor(most=20).clean() == 0
    assert len(world.broker.ledger.under("sg.task.*.*.*.submitted")) == 25


async def test_child_stays_until_its_root_has_ended(world: World) -> None:
    """Its parent's re-run would start it again; once the root has ended, or is gone, it goes."""
    root = world.open("root")
    child = world.ended("child", root="root", capability="other")
    orphan = world.ended("orphan", root="gone")
    await after(WEEK + HOUR)
    janitor = world.janitor()
    assert await janitor.clean() == 1
    assert world.left(orphan) == []
    assert world.left(child) == WHOLE
    assert await janitor.clean() == 0
    world.end(root)
    assert await janitor.clean() == 1
    assert world.left(child) == []
    assert world.left(root) == WHOLE


async def test_claimed_end_of_an_open_task_deletes_nothing(world: World) -> None:
    """A raw entry without proof ends no task."""
    scope = world.open("victim")
    world.add(scope, "completed", headers=b"", hold=2)
    await after(WEEK + HOUR)
    janitor = world.janitor()
    assert [await janitor.clean(), await janitor.clean()] == [0, 0]
    assert world.left(scope) == WHOLE


@pytest.mark.parametrize("cut", range(1, 9))
async def test_crash_between_two_deletions_leaves_no_half_task(world: World, cut: int) -> None:
    """Ended as before, or a remnant; and the next pass finds what is left."""
    scope = subjects.scope("review", "alice", "messy")
    world.add(scope, "cancel-requested", headers=b"")
    submitted = world.add(scope, "submitted")
    world.add(scope, "checkpoint", headers=b"", hold=0)
    hold = world.add(scope, "dispatched", submitted=submitted)
    world.add(scope, "dispatched", attempt=9)
    world.add(scope, "checkpoint", hold=hold)
    world.add(scope, "completed", hold=hold)
    world.add(scope, "signalled", headers=b"")
    await after(WEEK + HOUR)

    class Killed(BaseException):
        pass

    left = cut

    def kill(point: str) -> None:
        nonlocal left
        left -= point == "janitor.deleted"
        if not left:
            raise Killed

    crashpoint.hook = kill
    try:
        with pytest.raises(Killed):
            await world.janitor().clean()
    finally:
        crashpoint.hook = None
    history = fold(scope, world.broker.ledger.under(scope))
    assert len(world.left(scope)) == 8 - cut
    assert history.remnant or history.ended == "completed" or cut == 8
    assert not history.is_open
    assert await world.janitor().clean() == (cut < 8)
    assert world.left(scope) == []


async def test_entry_that_came_while_its_task_was_deleted_goes_too(world: World) -> None:
    """A raw one lands behind the end at any time."""
    scope = world.ended("busy")
    await after(WEEK + HOUR)

    def meddle(point: str) -> None:
        if point == "janitor.deleted" and len(world.left(scope)) == 1:
            world.add(scope, "signalled", headers=b"")

    crashpoint.hook = meddle
    try:
        assert await world.janitor().clean() == 1
    finally:
        crashpoint.hook = None
    assert world.left(scope) == []


async def test_it_works_by_itself_each_minute_while_it_has_the_lease(world: World) -> None:
    """Without the lease it deletes nothing."""
    lease = Always()
    lease.answer = False
    janitor = Janitor(world.bus, world.clock, lease, Policy(WEEK, 1000))
    scope = world.ended("old")
    await after(WEEK)
    await janitor.start()
    await after(5 * timedelta(minutes=1))
    assert world.left(scope) == WHOLE
    lease.answer = True
    await after(timedelta(minutes=2))
    assert world.left(scope) == []
    await janitor.stop()


async def test_nearly_full_ledger_loses_its_rejected_tasks_within_minutes(world: World) -> None:
    """So that a flood of refused submissions does not take the room of running tasks."""
    tight = False
    janitor = world.janitor(is_tight=lambda: tight)
    await janitor.start()
    refused, done = world.rejected("refused"), world.ended("done")
    await after(timedelta(minutes=5))
    assert world.left(refused) == ["submitted", "rejected"]
    tight = True
    await after(timedelta(seconds=10))
    fresh = world.rejected("fresh")
    await after(timedelta(seconds=10))
    assert world.left(refused) == []
    assert world.left(fresh) == ["submitted", "rejected"]
    assert world.left(done) == WHOLE
    await janitor.stop()


async def test_what_goes_is_in_the_archive_first(world: World, tmp_path: Path) -> None:
    """One line an entry, in a file of the day; after a crash it may be there twice."""
    scope = world.ended("old")
    world.add(scope, "signalled", headers=b"")
    raw = world.broker.ledger.under(scope)
    await after(WEEK + HOUR)

    def kill(point: str) -> None:
        if point == "janitor.archived":
            raise OSError("killed")

    crashpoint.hook = kill
    try:
        with pytest.raises(OSError, match="killed"):
            await world.janitor(archive=JsonLines(tmp_path)).clean()
    finally:
        crashpoint.hook = None
    assert len(world.left(scope)) == 4
    assert await world.janitor(archive=JsonLines(tmp_path)).clean() == 1
    lines = archive.read(tmp_path / "2026-01-08.jsonl")
    assert len(lines) == 8
    assert {line.sequence for line in lines} == {one.sequence for one in raw}
    first = next(line for line in lines if line.subject.endswith("submitted"))
    assert first.headers.encode("latin-1") == raw[0].headers
    assert msgspec.json.decode(first.body) == msgspec.json.decode(raw[0].data)
    assert first.time.startswith("2026-01-01T00:00:0")


async def test_archive_that_cannot_be_written_stops_the_deletion(
    world: World, tmp_path: Path
) -> None:
    """Nothing goes that was not kept."""
    scope = world.ended("old")
    await after(WEEK + HOUR)
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        await world.janitor(archive=JsonLines(tmp_path / "file")).clean()
    assert world.left(scope) == WHOLE


def stored(sequence: int, data: bytes) -> Stored:
    return Stored("sg.task.c.o.t.submitted", sequence, 1_767_225_600_000_000_001, b"\xff", data)


def test_archive_keeps_what_is_no_json_and_goes_on_behind_a_cut_line(tmp_path: Path) -> None:
    """Whatever the bytes: no body breaks the line, and a power loss costs the line that it cut."""
    kept = JsonLines(tmp_path)
    now = datetime.fromisoformat("2026-01-02T03:00:00Z")
    kept.write([stored(1, b'{"a":\n1}'), stored(2, b"\xfe")], now)
    path = tmp_path / "2026-01-02.jsonl"
    with path.open("ab") as file:
        file.write(b'{"subject":"cut')
    kept.write([stored(3, b"null")], now)
    lines = archive.read(path)
    assert [line.sequence for line in lines] == [1, 2, 3]
    assert [bytes(line.body) for line in lines] == [b'{"a":1}', b"", b"null"]
    assert lines[1].body_base64 == "/g=="
    assert lines[0].headers == "ÿ"
    assert lines[0].time == "2026-01-01T00:00:00.000000001Z"


def parquet_rows(folder: Path) -> list[dict[str, Any]]:
    """What a reader of Parquet finds in a day's folder, which passes over names that begin with a dot."""
    io: Any = import_module("arro3.io")
    rows: list[dict[str, Any]] = []
    for file in sorted(folder.glob("[!.]*")):
        table = io.read_parquet(file).read_all()
        columns = {name: table.column(name).to_pylist() for name in table.column_names}
        rows += [
            dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)
        ]
    return rows


async def test_what_goes_is_in_parquet_files_first(world: World, tmp_path: Path) -> None:
    """A file for each batch in a folder of the day; a batch that is archived again replaces its file."""
    scope = world.ended("old")
    raw = world.broker.ledger.under(scope)
    await after(WEEK + HOUR)

    def kill(point: str) -> None:
        if point == "janitor.archived":
            raise OSError("killed")

    crashpoint.hook = kill
    try:
        with pytest.raises(OSError, match="killed"):
            await world.janitor(archive=Parquet(tmp_path)).clean()
    finally:
        crashpoint.hook = None
    assert await world.janitor(archive=Parquet(tmp_path)).clean() == 1
    rows = parquet_rows(tmp_path / "day=2026-01-08")
    assert sorted(row["sequence"] for row in rows) == [one.sequence for one in raw]
    first = next(row for row in rows if row["subject"].endswith("submitted"))
    assert first["headers"].encode("latin-1") == raw[0].headers
    assert msgspec.json.decode(first["body"]) == msgspec.json.decode(raw[0].data)
    assert first["time"].isoformat().startswith("2026-01-01T00:00:0")


def test_parquet_keeps_what_is_no_json_and_reads_no_unfinished_file(tmp_path: Path) -> None:
    """Other batches of the day have files of their own."""
    kept = Parquet(tmp_path)
    now = datetime.fromisoformat("2026-01-02T03:00:00Z")
    kept.write([stored(1, b'{"a":\n1}'), stored(2, b"\xfe")], now)
    kept.write([stored(3, b"null")], now)
    files = sorted((tmp_path / "day=2026-01-02").iterdir())
    assert [file.suffix for file in files] == [".parquet"] * 2
    (files[0].parent / ".4-4-ab.parquet.part").write_bytes(b"PAR1")
    rows = sorted(parquet_rows(files[0].parent), key=lambda row: row["sequence"])
    assert [row["body"] for row in rows] == ['{"a":1}', None, "null"]
    assert [row["body_base64"] for row in rows] == [None, "/g==", None]


def test_parquet_without_its_package_is_refused_before_anything_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """JSON lines need none."""
    monkeypatch.setitem(sys.modules, "arro3.core", None)
    assert isinstance(archive.made(tmp_path, "jsonl"), JsonLines)
    with pytest.raises(ExtraMissing, match="parquet"):
        archive.made(tmp_path, "parquet")
