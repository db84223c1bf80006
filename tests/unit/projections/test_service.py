"""The observe service over a bus that the test controls: answers, lag, roll-back, outage, stop."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, closing
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar, cast

import pytest

from switchgear.bus.port import Bus, Message
from switchgear.contract import codec, limits, queries
from switchgear.contract.dead_letters import DeadGroups
from switchgear.contract.stored import Stored
from switchgear.errors import Unavailable
from switchgear.projections import answers, lists, service
from tests.patience import PATIENCE
from tests.unit.projections.feed import Feed

T = TypeVar("T")


class ScriptedLedger:
    """A ledger that a feed fills; may be down, or hold back what followers get."""

    def __init__(self, feed: Feed) -> None:
        self.feed = feed
        self.changed = asyncio.Event()
        self.is_down = False
        self.is_held = False
        self.compared: set[int] = set()

    def change(self, feed: Feed | None = None) -> None:
        """Followers look again; with a feed: the ledger is another now."""
        self.feed = feed or self.feed
        self.changed.set()
        self.changed = asyncio.Event()

    async def follow(self, after: int) -> AsyncIterator[list[Stored]]:
        while True:
            changed = self.changed
            self._reach()
            batch = [] if self.is_held else self.feed.since(after)[:3]
            yield batch
            if batch:
                after = batch[-1].sequence
            else:
                await changed.wait()

    async def last_sequence(self) -> int:
        self._reach()
        return self.feed.sequence

    async def entry(self, sequence: int) -> Stored | None:
        self._reach()
        self.compared.add(sequence)
        return next((one for one in self.feed.stored if one.sequence == sequence), None)

    def _reach(self) -> None:
        if self.is_down:
            raise Unavailable("the broker is away")


class ScriptedCore:
    """Delivers requests at once and collects answers."""

    def __init__(self) -> None:
        self.receivers: dict[str, Callable[[Message], None]] = {}
        self.queues: set[str] = set()
        self.replies: dict[str, asyncio.Future[bytes]] = {}
        self._number = 0

    async def subscribe(
        self, subject: str, receive: Callable[[Message], None], *, queue: str = ""
    ) -> ScriptedCore:
        self.receivers[subject.split(".")[2]] = receive
        self.queues.add(queue)
        return self

    async def unsubscribe(self) -> None:
        self.receivers.clear()

    def publish(self, subject: str, data: bytes) -> None:
        self.replies[subject].set_result(data)

    def ask(self, subject: str, data: bytes) -> asyncio.Future[bytes]:
        self._number += 1
        reply = f"reply.{self._number}"
        self.replies[reply] = asyncio.get_running_loop().create_future()
        self.receivers[subject.split(".")[2]](Message(subject, data, reply, b""))
        return self.replies[reply]


class ScriptedBus:
    def __init__(self, feed: Feed) -> None:
        self.ledger = ScriptedLedger(feed)
        self.core = ScriptedCore()
        self.reconnected: list[Callable[[], None]] = []

    def on_reconnect(self, heard: Callable[[], None]) -> None:
        self.reconnected.append(heard)

    async def ask(self, verb: str, data: bytes, kind: type[T], *, principal: str = "ann") -> T:
        async with asyncio.timeout(PATIENCE):
            body = await self.core.ask(f"sg.api.{verb}.{principal}", data)
        return codec.decode(body, kind, limit=limits.MAX_ENTRY * 4)

    async def list(self, **query: Any) -> queries.TaskList:
        return await self.ask("list", codec.encode(queries.ListQuery(**query)), queries.TaskList)


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "CONFIRM", timedelta(milliseconds=1))
    monkeypatch.setattr(service, "RETRY", timedelta(milliseconds=1))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "history.sqlite"


@asynccontextmanager
async def observing(bus: ScriptedBus, path: Path) -> AsyncGenerator[asyncio.Task[None]]:
    ready = asyncio.Event()
    running = asyncio.create_task(service.observe(cast("Bus", bus), path, ready=ready.set))
    try:
        async with asyncio.timeout(PATIENCE):
            await ready.wait()
        yield running
    finally:
        running.cancel()
        await asyncio.wait({running})


async def until(found: Callable[[], Awaitable[T]], wanted: Callable[[T], bool]) -> T:
    async with asyncio.timeout(PATIENCE):
        while not wanted(value := await found()):
            await asyncio.sleep(0.001)
        return value


def ledger_of(*names: str, year: int = 2026) -> Feed:
    feed = Feed(start=Feed().start.replace(year=year))
    for name in names:
        feed.task(name).finish()
    return feed


async def test_what_the_ledger_holds_is_listed_and_told(path: Path) -> None:
    bus = ScriptedBus(ledger_of("t1", "t2"))
    async with observing(bus, path):
        found = await until(bus.list, lambda page: page.lag == 0)
        assert [row.id for row in found.tasks] == ["t2", "t1"]
        query = codec.encode(queries.TimelineQuery(root="t1"))
        told = await bus.ask("timeline", query, queries.Timeline)
        assert [moment.sequence for moment in told.moments] == [1, 2, 3, 4]
        assert told.lag == 0
        assert bus.core.queues == {"observe"}


async def test_what_is_stored_later_is_listed_too(path: Path) -> None:
    bus = ScriptedBus(ledger_of("t1"))
    async with observing(bus, path):
        await until(bus.list, lambda page: page.lag == 0)
        bus.ledger.feed.task("t2").add("submitted")
        bus.ledger.change()
        await until(bus.list, lambda page: len(page.tasks) == 2)


async def test_each_principal_is_answered_for_itself_only(path: Path) -> None:
    bus = ScriptedBus(ledger_of("t1"))
    async with observing(bus, path):
        await until(bus.list, lambda page: page.lag == 0)
        assert (await bus.ask("list", b"{}", queries.TaskList, principal="eve")).tasks == ()


async def test_the_lag_is_what_was_not_read_yet(path: Path) -> None:
    bus = ScriptedBus(ledger_of("t1"))
    bus.ledger.is_held = True
    async with observing(bus, path):
        assert await bus.list() == queries.TaskList(tasks=(), lag=4)
        bus.ledger.is_held = False
        bus.ledger.change()
        await until(bus.list, lambda page: page.lag == 0)
        bus.ledger.feed.task("t2").finish()
        assert (await bus.list()).lag == 4


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"\xff\xfe", "SG1104"),
        (b'{"search":"\xff"}', "SG1104"),
        (b"not json", "SG1105"),
        (b"", "SG1105"),
        (b'{"search":"\\ud800"}', "SG1105"),
        (b'{"x":' + b"[" * 20_000 + b"]" * 20_000 + b"}", "SG1106"),
        (b'{"limit":0}', "SG1102"),
        (b'{"limit":1001}', "SG1102"),
        (b'{"limit":10e400}', "SG1102"),
        (b'{"state":"unheard-of"}', "SG1102"),
        (b'{"capability":"a.b"}', "SG1102"),
        (b'{"v":2}', "SG1101"),
        (b'{"search":"' + b"x" * limits.MAX_QUERY + b'"}', "SG1103"),
        (b'{"before":"unknown"}', "SG1401"),
        (b'{"before":"a\\u0000b"}', "SG1401"),
    ],
)
async def test_a_malformed_query_is_answered_by_a_problem(
    path: Path, data: bytes, code: str
) -> None:
    bus = ScriptedBus(ledger_of("t1"))
    async with observing(bus, path) as running:
        answer = await bus.ask("list", data, queries.Problem)
        assert answer.code == code
        assert answer.fix
        assert not running.done()
        assert (await bus.list()).lag >= 0


async def test_a_timeline_query_without_a_run_is_answered_by_a_problem(path: Path) -> None:
    bus = ScriptedBus(Feed())
    async with observing(bus, path):
        assert (await bus.ask("timeline", b"{}", queries.Problem)).code == "SG1102"


async def test_a_query_on_a_strange_subject_is_answered_by_a_problem(path: Path) -> None:
    bus = ScriptedBus(Feed())
    async with observing(bus, path):
        for principal in ("a b", "ä", "x" * 65):
            answer = await bus.ask("list", b"{}", queries.Problem, principal=principal)
            assert answer.code == "SG1107"


async def test_a_message_without_a_reply_subject_is_ignored(path: Path) -> None:
    bus = ScriptedBus(Feed())
    async with observing(bus, path):
        bus.core.receivers["list"](Message("sg.api.list.ann", b"{}", "", b""))
        assert (await bus.list()).lag == 0
        assert len(bus.core.replies) == 1


async def test_a_flood_of_queries_is_refused_beyond_a_number(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answers, "MAX_WAITING", 3)
    bus = ScriptedBus(ledger_of("t1"))
    async with observing(bus, path):
        asked = [bus.core.ask("sg.api.list.ann", b"{}") for _ in range(5)]
        refused = [codec.decode(await one, queries.Problem) for one in asked[3:]]
        assert [(one.code, one.retry_after) for one in refused] == [("SG1301", 1.0)] * 2
        for one in asked[:3]:
            assert codec.decode(await one, queries.TaskList).lag >= 0


async def test_an_answer_that_fits_in_no_message_is_a_problem(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bus = ScriptedBus(ledger_of("t1"))
    async with observing(bus, path):
        await until(bus.list, lambda page: page.lag == 0)
        monkeypatch.setattr(answers, "MAX_ANSWER", 100)
        query = codec.encode(queries.TimelineQuery(root="t1"))
        assert (await bus.ask("timeline", query, queries.Problem)).code == "SG1103"


async def test_a_long_timeline_comes_in_pages(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lists, "MAX_MOMENTS", 3)
    bus = ScriptedBus(ledger_of("t1"))
    async with observing(bus, path):
        await until(bus.list, lambda page: page.lag == 0)

        async def page(after: int) -> tuple[list[int], bool]:
            query = codec.encode(queries.TimelineQuery(root="t1", after=after))
            told = await bus.ask("timeline", query, queries.Timeline)
            return [moment.sequence for moment in told.moments], told.more

        assert await page(0) == ([1, 2, 3], True)
        assert await page(3) == ([4], False)
        assert await page(4) == ([], False)


async def test_dead_tasks_are_told_by_cause(path: Path) -> None:
    feed = ledger_of("t1")
    dead = feed.task("d1")
    for event in ("submitted", "dispatched", "attempt-failed", "dead"):
        dead.add(event)
    bus = ScriptedBus(feed)
    async with observing(bus, path):
        await until(bus.list, lambda page: page.lag == 0)
        told = await bus.ask("dead", b"{}", DeadGroups)
        assert [(group.newest, group.count) for group in told.groups] == [("d1", 1)]
        assert (told.lag, told.more) == (0, False)
        assert (await bus.ask("dead", b"{}", DeadGroups, principal="eve")).groups == ()


async def test_a_file_that_cannot_be_read_is_answered_by_a_problem(path: Path) -> None:
    bus = ScriptedBus(Feed())
    async with observing(bus, path) as running:
        await until(bus.list, lambda page: page.lag == 0)
        with closing(sqlite3.connect(path)) as saboteur:
            saboteur.execute("ALTER TABLE tasks RENAME TO gone")
        answer = await bus.ask("list", b"{}", queries.Problem)
        assert (answer.code, answer.why) == ("SG1301", "no such table: tasks")
        assert not running.done()


async def test_a_fault_of_ours_in_one_answer_stops_nothing(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError("a fault")

    bus = ScriptedBus(Feed())
    async with observing(bus, path) as running:
        with monkeypatch.context() as patch:
            patch.setattr(lists.Reader, "tasks", fail)
            bus.core.ask("sg.api.list.ann", b"{}")
            async with asyncio.timeout(PATIENCE):
                while "a fault" not in caplog.text:
                    await asyncio.sleep(0.001)
        assert not running.done()
        assert (await bus.list()).lag == 0


async def test_a_ledger_that_was_rolled_back_is_read_anew(path: Path) -> None:
    bus = ScriptedBus(ledger_of("t1", "lost"))
    async with observing(bus, path):
        await until(bus.list, lambda page: page.lag == 0)
        bus.ledger.change(ledger_of("t1"))
        answer = await bus.ask("list", b"{}", queries.Problem)
        assert (answer.code, answer.retry_after) == ("SG1301", 1.0)

        async def ids() -> list[str]:
            raw = await bus.core.ask("sg.api.list.ann", b"{}")
            return [row.id for row in codec.decode(raw, _Any).tasks]

        await until(ids, lambda found: found == ["t1"])


async def test_a_ledger_made_anew_that_has_grown_again_is_noticed_after_a_reconnect(
    path: Path,
) -> None:
    bus = ScriptedBus(ledger_of("old"))
    async with observing(bus, path):
        await until(bus.list, lambda page: page.lag == 0)
        for heard in bus.reconnected:
            heard()
        bus.ledger.change(ledger_of("new-1", "new-2", year=2027))
        found = await until(bus.list, lambda page: page.lag == 0 and len(page.tasks) == 2)
        assert [row.id for row in found.tasks] == ["new-2", "new-1"]


async def test_a_roll_back_between_two_looks_is_noticed_after_a_reconnect(path: Path) -> None:
    """Only the tail was lost and replaced, by more than it had been."""
    bus = ScriptedBus(ledger_of("t1"))
    async with observing(bus, path):
        await until(bus.list, lambda page: page.lag == 0)
        bus.ledger.feed.task("lost").finish()
        bus.ledger.change()
        await until(bus.list, lambda page: len(page.tasks) == 2 and page.lag == 0)
        rolled = Feed(start=Feed().start.replace(year=2027), after=4)
        rolled.stored = bus.ledger.feed.stored[:4]
        for number in range(9):
            rolled.task(f"new-{number}").finish()
        for heard in bus.reconnected:
            heard()
        bus.ledger.change(rolled)
        await until(bus.list, lambda page: len(page.tasks) == 10 and page.lag == 0)
        assert "lost" not in {row.id for row in (await bus.list()).tasks}


async def test_a_ledger_made_anew_while_nobody_looked_is_noticed_at_the_start(path: Path) -> None:
    bus = ScriptedBus(ledger_of("old"))
    async with observing(bus, path):
        await until(bus.list, lambda page: page.lag == 0)
    bus = ScriptedBus(ledger_of("new-1", "new-2", year=2027))
    async with observing(bus, path):
        found = await until(bus.list, lambda page: page.lag == 0 and len(page.tasks) == 2)
        assert [row.id for row in found.tasks] == ["new-2", "new-1"]


async def test_entries_that_retention_deleted_are_no_sign_of_another_ledger(path: Path) -> None:
    bus = ScriptedBus(ledger_of("t1", "t2"))
    async with observing(bus, path):
        await until(bus.list, lambda page: page.lag == 0)
        bus.ledger.feed.stored.clear()
        for heard in bus.reconnected:
            heard()
        bus.ledger.feed.task("t3").add("submitted")
        bus.ledger.change()
        assert len((await until(bus.list, lambda page: page.lag == 0)).tasks) == 3


async def test_another_ledger_is_noticed_without_a_reconnect(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "CHECK_EVERY", timedelta(milliseconds=5))
    bus = ScriptedBus(ledger_of("old"))
    async with observing(bus, path):
        await until(bus.list, lambda page: page.lag == 0 and 4 in bus.ledger.compared)
        bus.ledger.change(ledger_of("new-1", "new-2", year=2027))
        await until(bus.list, lambda page: [row.id for row in page.tasks] == ["new-2", "new-1"])


async def test_one_stale_answer_of_a_cluster_starts_nothing_over(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    bus = ScriptedBus(ledger_of("t1"))
    async with observing(bus, path):
        await until(bus.list, lambda page: page.lag == 0)
        truth = bus.ledger.last_sequence
        asked: list[int] = []

        async def stale_once() -> int:
            asked.append(await truth())
            return 1 if len(asked) == 1 else asked[-1]

        monkeypatch.setattr(bus.ledger, "last_sequence", stale_once)
        for heard in bus.reconnected:
            heard()
        async with asyncio.timeout(PATIENCE):
            while len(asked) < 2:
                await asyncio.sleep(0.001)
        assert len((await bus.list()).tasks) == 1
    assert "rebuild" not in caplog.text


async def test_an_outage_is_waited_out(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    bus = ScriptedBus(ledger_of("t1"))
    bus.ledger.is_down = True
    async with observing(bus, path) as running:
        answer = await bus.ask("list", b"{}", queries.Problem)
        assert answer.code == "SG1301"
        async with asyncio.timeout(PATIENCE):
            while "the broker is away" not in caplog.text:
                await asyncio.sleep(0.001)
        await asyncio.sleep(0.01)
        bus.ledger.is_down = False
        found = await until(bus.list, lambda page: page.lag == 0)
        assert len(found.tasks) == 1
        assert not running.done()
    assert caplog.text.count("the broker is away") == 1


async def test_void_entries_are_reported(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    feed = ledger_of("t1")
    feed.task("t1").raw("dead")
    bus = ScriptedBus(feed)
    async with observing(bus, path):
        await until(bus.list, lambda page: page.lag == 0)
    assert "ledger.void: 1 entries up to 5" in caplog.text


async def test_a_stop_closes_the_file_and_ends_the_subscriptions(path: Path) -> None:
    bus = ScriptedBus(ledger_of(*(f"t{number}" for number in range(200))))
    async with observing(bus, path) as running:
        for _ in range(20):
            bus.core.ask("sg.api.list.ann", b"{}")
        await until(bus.list, lambda page: page.lag < 700)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
    # SQLite removes its log with the last connection.
    assert list(path.parent.iterdir()) == [path]
    assert bus.core.receivers == {}
    assert asyncio.all_tasks() == {asyncio.current_task()}


class _Row(queries.Struct):
    id: str


class _Any(queries.Struct):
    """A list of tasks, or a problem."""

    tasks: tuple[_Row, ...] = ()
