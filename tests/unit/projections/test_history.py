"""The read model's writer: what a ledger, fed in any pieces, leaves in the file."""

from __future__ import annotations

import random
import sqlite3
import stat
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from switchgear import errors
from switchgear.contract import queries
from switchgear.contract.stored import Stored
from switchgear.contract.values import Awaited, Failure
from switchgear.lifecycle import history as lifecycle
from switchgear.projections import tables
from switchgear.projections.history import Diverged, Index
from switchgear.projections.lists import Reader
from tests.unit.projections.feed import BOOM, START, Feed, Parent, Scope

OpenIndex = Callable[..., Index]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "observe" / "history.sqlite"


@pytest.fixture
def open_index(path: Path) -> Iterator[OpenIndex]:
    opened: list[Index] = []

    def open_one(**settings: int) -> Index:
        opened.append(Index(path, **settings))
        return opened[-1]

    yield open_one
    for index in opened:
        index.close()


def listed(path: Path, owner: str = "ann") -> tuple[queries.TaskRow, ...]:
    reader = Reader(path)
    try:
        return reader.tasks(owner, queries.ListQuery(limit=1000)).tasks
    finally:
        reader.close()


def timeline(path: Path, root: str, owner: str = "ann") -> tuple[queries.Moment, ...]:
    reader = Reader(path)
    try:
        return reader.timeline(owner, root).moments
    finally:
        reader.close()


def test_a_finished_task_is_told_by_its_row(path: Path, open_index: OpenIndex) -> None:
    feed = Feed()
    feed.task("t1").finish()
    index = open_index()
    assert index.apply(feed.stored) == (4, 0)
    (row,) = listed(path)
    assert row == queries.TaskRow(
        id="t1",
        capability="lint",
        owner="ann",
        state="completed",
        submitted_at=feed.stored[0].time,
        updated_at=feed.stored[3].time,
        attempt=1,
        agent="agent-1",
    )


def test_a_failed_task_names_its_error_holder_and_parent(path: Path, open_index: OpenIndex) -> None:
    feed = Feed()
    task = feed.task("t1")
    parent = Parent(task="p1", capability="build", key="k")
    task.add("submitted", root="r1", parent=parent, depth=1, priority="high")
    task.add("dispatched")
    task.add("attempt-failed", writer="agent-7")
    index = open_index()
    index.apply(feed.stored)
    (row,) = listed(path)
    assert (row.state, row.root, row.parent, row.priority) == ("failed", "r1", "p1", "high")
    assert (row.agent, row.failures, row.reason) == ("agent-7", 1, BOOM.message)
    assert row.error == BOOM
    task.add("dead")
    index.apply(feed.since(3))
    (row,) = listed(path)
    assert (row.state, row.agent, row.reason) == ("dead", "agent-7", "all attempts failed")


def test_a_task_that_succeeded_at_last_shows_no_error(path: Path, open_index: OpenIndex) -> None:
    feed = Feed()
    task = feed.task("t1")
    for event in ("submitted", "dispatched", "attempt-failed", "waiting", "dispatched"):
        task.add(event)
    index = open_index()
    index.apply(feed.stored)
    assert listed(path)[0].error == BOOM
    task.add("completed")
    index.apply(feed.since(5))
    (row,) = listed(path)
    assert (row.state, row.error, row.failures, row.attempt) == ("completed", None, 1, 2)


def test_void_entries_change_no_row_but_stand_on_the_timeline(
    path: Path, open_index: OpenIndex
) -> None:
    feed = Feed()
    task = feed.task("t1")
    task.add("submitted")
    task.add("dispatched")
    index = open_index()
    index.apply(feed.stored)
    before = listed(path)
    task.raw("completed", b'{"v":1}')
    task.add("completed", hold=1)
    task.add("completed", expect=1)
    task.add("checkpoint", raw=b"\xff")
    task.raw("no-such-event")
    assert index.apply(feed.since(2)) == (7, 5)
    assert listed(path) == before
    moments = timeline(path, "t1")
    assert [bool(moment.void) for moment in moments] == [False] * 2 + [True] * 5
    assert "compare-and-set" in moments[2].void
    task.add("completed")
    index.apply(feed.since(7))
    assert listed(path)[0].state == "completed"


def test_an_entry_after_the_end_is_void(path: Path, open_index: OpenIndex) -> None:
    feed = Feed()
    task = feed.task("t1")
    task.finish()
    index = open_index()
    index.apply(feed.stored)
    before = listed(path)
    task.raw("dead")
    task.add("cancelled")
    assert index.apply(feed.since(4)).voids == 2
    assert listed(path) == before
    assert timeline(path, "t1")[-1].void == "the task had ended as completed"


def test_a_scope_that_was_opened_raw_is_no_task_until_it_is_submitted(
    path: Path, open_index: OpenIndex
) -> None:
    feed = Feed()
    task = feed.task("t1")
    task.raw("cancel-requested")
    open_index().apply(feed.stored)
    assert listed(path) == ()
    task.add("submitted")
    open_index().apply(feed.since(1))
    assert [row.state for row in listed(path)] == ["queued"]
    assert [moment.event for moment in timeline(path, "t1")] == ["cancel-requested", "submitted"]


def test_a_task_with_void_entries_before_its_valid_ones_is_folded_again(
    path: Path, open_index: OpenIndex
) -> None:
    feed = Feed()
    task = feed.task("t1")
    task.raw("cancel-requested")
    task.add("submitted")
    task.raw("completed")
    task.add("dispatched")
    open_index().apply(feed.stored)
    task.add("completed")
    open_index().apply(feed.since(4))
    assert listed(path)[0].state == "completed"


def test_a_submission_that_cannot_be_read_is_listed_and_can_be_rejected(
    path: Path, open_index: OpenIndex
) -> None:
    feed = Feed()
    task = feed.task("t1")
    task.add("submitted", raw=b'{"v":1}')
    open_index().apply(feed.stored)
    (row,) = listed(path)
    assert row.state == "queued"
    assert row.error is not None
    assert row.error.code == "SG1102"
    task.add("rejected", code="SG1205", reason="the submission cannot be read")
    open_index().apply(feed.since(1))
    (row,) = listed(path)
    assert (row.state, row.reason) == ("rejected", "the submission cannot be read")


def test_what_retention_left_of_a_task_is_not_listed(path: Path, open_index: OpenIndex) -> None:
    feed = Feed()
    feed.task("t1").finish()
    open_index().apply(feed.since(2)[:1])
    open_index().apply(feed.since(3))
    assert listed(path) == ()
    assert {moment.void for moment in timeline(path, "t1")} == {"the scope's beginning was deleted"}


def test_an_id_begins_anew_once_its_task_was_deleted(path: Path, open_index: OpenIndex) -> None:
    feed = Feed()
    task = feed.task("t1")
    task.finish()
    task.add("submitted", expect=0)
    index = open_index()
    index.apply(feed.stored)
    (row,) = listed(path)
    assert (row.state, row.submitted_at) == ("queued", feed.stored[4].time)
    assert len(timeline(path, "t1")) == 1


def test_messages_outside_every_scope_only_move_the_cursor(
    path: Path, open_index: OpenIndex
) -> None:
    feed = Feed()
    for subject in ("sg.task.lint", "sg.task.a.b.c", "sg.task.ä.b.c.submitted", "other"):
        feed.put(subject, b"", b"")
    assert open_index().apply(feed.stored) == (4, 0)
    assert listed(path) == ()


def test_a_restart_goes_on_at_the_cursor(path: Path, open_index: OpenIndex) -> None:
    feed = Feed()
    task = feed.task("t1")
    task.add("submitted")
    task.add("dispatched")
    first = open_index()
    first.apply(feed.stored)
    first.close()
    task.add("completed")
    second = open_index()
    assert second.cursor == 2
    second.apply(feed.since(second.cursor))
    assert listed(path)[0].state == "completed"


def test_a_batch_that_comes_twice_counts_once(path: Path, open_index: OpenIndex) -> None:
    feed = Feed()
    feed.task("t1").finish()
    index = open_index()
    index.apply(feed.stored[:3])
    index.apply(feed.stored)
    index.apply(feed.stored)
    assert listed(path)[0].state == "completed"
    assert len(timeline(path, "t1")) == 4


def test_two_writers_of_one_file_do_not_disturb_each_other(
    path: Path, open_index: OpenIndex
) -> None:
    feed = Feed()
    feed.task("t1").finish()
    one, other = open_index(), open_index()
    for stored in feed.stored:
        one.apply([stored])
        other.apply([stored])
    one, other = other, one
    assert listed(path)[0].state == "completed"
    assert len(timeline(path, "t1")) == 4


def test_a_failed_batch_leaves_the_file_as_it_was(path: Path, open_index: OpenIndex) -> None:
    feed = Feed()
    task = feed.task("t1")
    task.add("submitted")
    index = open_index()
    index.apply(feed.stored)
    before = listed(path)
    task.add("dispatched")
    unwritable = feed.stored[-1]._replace(time_ns=10**17, sequence=2**70)
    with pytest.raises(OverflowError):
        index.apply([feed.stored[-1], unwritable])
    assert (index.cursor, listed(path)) == (1, before)
    index.apply(feed.since(1))
    assert listed(path)[0].state == "held"


def test_another_entry_under_a_known_sequence_shows_another_ledger(open_index: OpenIndex) -> None:
    feed, other = Feed(), Feed(start=Feed().start.replace(year=2027))
    feed.task("t1").finish()
    other.task("t2").finish()
    index = open_index()
    index.apply(feed.stored)
    with pytest.raises(Diverged):
        index.apply(other.stored)


def test_a_reset_forgets_everything(path: Path, open_index: OpenIndex) -> None:
    feed, other = Feed(), Feed()
    feed.task("t1").finish()
    other.task("t2").add("submitted")
    index = open_index()
    index.apply(feed.stored)
    index.reset()
    assert (index.cursor, listed(path), index.witnesses(9)) == (0, (), ())
    index.apply(other.stored)
    assert [row.id for row in listed(path)] == ["t2"]


def test_another_layout_is_emptied_to_be_rebuilt(
    path: Path, open_index: OpenIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    feed = Feed()
    feed.task("t1").finish()
    index = open_index()
    index.apply(feed.stored)
    index.close()
    monkeypatch.setattr(tables, "VERSION", tables.VERSION + 1)
    index = open_index()
    assert (index.cursor, listed(path)) == (0, ())
    index.apply(feed.stored)
    assert len(listed(path)) == 1
    index.close()
    assert open_index().cursor == 4


def test_somebody_elses_database_is_left_alone(path: Path) -> None:
    path.parent.mkdir()
    with sqlite3.connect(path) as theirs:
        theirs.execute("CREATE TABLE thesis (page)")
    theirs.close()
    content = path.read_bytes()
    with pytest.raises(errors.ConfigError, match="another program"):
        Index(path)
    assert path.read_bytes() == content


@pytest.mark.parametrize("content", [b"not a database, but a letter of some length" * 100, None])
def test_a_file_that_is_no_database_is_refused(path: Path, content: bytes | None) -> None:
    if content is None:
        path.mkdir(parents=True)
    else:
        path.parent.mkdir()
        path.write_bytes(content)
    with pytest.raises(errors.ConfigError):
        Index(path)
    assert content is None or path.read_bytes() == content


def test_the_file_is_for_its_owner_only_and_holds_no_payload(
    path: Path, open_index: OpenIndex
) -> None:
    feed = Feed()
    task = feed.task("t1")
    for event in ("submitted", "dispatched", "checkpoint", "signalled", "cancel-requested"):
        fields: dict[str, Any] = {"token": "identity"}
        task.add(event, **({} if event in ("dispatched", "checkpoint") else fields))
    open_index().apply(feed.stored)
    files = list(path.parent.iterdir())
    assert len(files) == 3
    assert [stat.S_IMODE(file.stat().st_mode) for file in files] == [0o600] * 3
    content = b"".join(file.read_bytes() for file in files)
    assert b"cancelling" in content
    assert b"secret" not in content
    assert b"identity" not in content


def random_entries(dice: random.Random, feed: Feed, scope: Scope) -> None:
    """One more entry: likely or unlikely, valid or void."""
    event = dice.choice(
        (
            *("submitted", "dispatched", "dispatched", "checkpoint", "waiting", "released"),
            *("signalled", "taken-over", "attempt-failed", "cancel-requested", "completed"),
            *("dead", "cancelled"),
        )
    )
    fields: dict[str, Any] = {}
    if event in ("checkpoint", "attempt-failed", "released", "taken-over", "completed"):
        fields["writer"] = dice.choice(["agent-1", "agent-1", "agent-1", "agent-2"])
        if dice.random() < 0.1:
            fields["token_digest"] = "f" * 64
    if event == "checkpoint" and dice.random() < 0.3:
        fields["kind"] = dice.choice(["undo-registered", "undo-done"])
    if event == "attempt-failed" or (event == "waiting" and dice.random() < 0.5):
        fields["hold"] = scope.hold
    if dice.random() < 0.05:
        scope.raw(event)
    elif dice.random() < 0.05:
        # Older than the broker would let it pass, but of the scope: others it has never let pass.
        older = dice.choice([stored.sequence for stored in _of(feed, scope)])
        scope.add(event, expect=older, **fields)
    elif dice.random() < 0.05:
        scope.add(event, raw=b"[" * dice.randrange(3), **fields)
    else:
        attempt, hold = scope.attempt, scope.hold
        stored = scope.add(event, **fields)
        history = lifecycle.fold(scope.scope, _of(feed, scope))
        if history.last_valid != stored.sequence:
            scope.attempt, scope.hold = attempt, hold


def _of(feed: Feed, scope: Scope) -> list[Stored]:
    return [stored for stored in feed.stored if stored.subject.startswith(scope.scope[:-1])]


@pytest.mark.parametrize("seed", range(60))
def test_restarts_and_evictions_change_nothing(
    path: Path, open_index: OpenIndex, seed: int
) -> None:
    """Any history, fed in pieces with refolds between, gives what one fold of the whole gives."""
    dice = random.Random(seed)  # noqa: S311 - repeatable on purpose
    feed = Feed()
    scopes = [feed.task(f"t{number}") for number in range(4)]
    for scope in scopes:
        scope.add("submitted", raw=b"" if dice.random() < 0.1 else None)
    for _ in range(60):
        random_entries(dice, feed, dice.choice(scopes))
    index = open_index(max_folded=dice.choice([0, 1, 2]))
    rest = feed.stored
    while rest:
        size = dice.randint(1, 6)
        index.apply(rest[:size])
        rest = rest[size:]
        if dice.random() < 0.2:
            index = open_index(max_folded=dice.choice([0, 1, 4]))
    seen = {row.id: (row.state, row.attempt, row.failures) for row in listed(path)}
    folded = [lifecycle.fold(scope.scope, _of(feed, scope)) for scope in scopes]
    assert seen == {one.task: (one.state, one.attempt, one.failures) for one in folded}
    voids = {void.stored.sequence for one in folded for void in one.voids}
    moments = [moment for scope in scopes for moment in timeline(path, scope.name)]
    assert {moment.sequence for moment in moments if moment.void} == voids
    assert len(moments) == len(feed.stored)


UNFIT = Failure(
    error_class="invalid",
    code="SG1507",
    message="signal it does not fit Number: Expected `int`",
    fix="send what Number says: `switchgear task signal`",
    path="$.n",
)


def test_checkpoints_and_signals_say_what_they_record(path: Path, open_index: OpenIndex) -> None:
    feed = Feed()
    task = feed.task("t1")
    task.add("submitted")
    task.add("dispatched")
    task.add("checkpoint", key="build", duration=timedelta(seconds=1.5))
    task.add("checkpoint", key="sign", kind="run", ok=False, error=BOOM)
    task.add("checkpoint", key="withdraw", kind="undo-registered")
    task.add("signalled", name="review", sender="bob", group="approvers")
    task.add("checkpoint", key="it", kind="signal", ok=False, error=UNFIT, signal=6)
    open_index().apply(feed.stored)
    *_, build, sign, undo, signal, refused = timeline(path, "t1")
    assert (build.key, build.kind, build.ok, build.duration) == (
        "build", "step", True, timedelta(seconds=1.5),
    )  # fmt: skip
    assert (sign.kind, sign.ok, sign.duration) == ("run", False, None)
    assert sign.detail == "run sign: The Boiler exploded"
    assert (undo.key, undo.kind) == ("withdraw", "undo-registered")
    assert (signal.key, signal.ok) == ("review", None)
    assert signal.detail == "review from bob for approvers"
    assert (refused.key, refused.kind, refused.ok) == ("it", "signal", False)
    assert refused.detail == (
        "refused entry 6: SG1507 at $.n: signal it does not fit Number: Expected `int`. "
        "Fix: send what Number says: `switchgear task signal`"
    )


def awaited(**fields: Any) -> Awaited:
    values: dict[str, Any] = {"key": "k", "kind": "signal", "begun": START} | fields
    return Awaited(**values)


def test_a_suspended_task_says_what_it_waits_for_and_asks(
    path: Path, open_index: OpenIndex
) -> None:
    """Also after a later entry, and after another process has read on."""
    feed = Feed()
    task = feed.task("t1")
    task.add("submitted")
    task.add("dispatched")
    waits = (
        awaited(signal="review", sender="approvers", question="q" * 5000),
        awaited(kind="timer", until=START),
    )
    task.add("waiting", reason="signal", detail="", hold=task.hold, waits=waits)
    open_index().apply(feed.stored)
    (row,) = listed(path)
    [asked] = row.asks
    assert (asked.signal, asked.sender, len(asked.question)) == ("review", "approvers", 1000)
    assert row.reason.startswith("signal review of approvers: qqq")
    task.add("signalled", name="other")
    open_index().apply(feed.since(3))
    assert listed(path)[0].asks == row.asks
    task.add("dispatched")
    open_index().apply(feed.since(4))
    assert listed(path)[0].asks == ()


@pytest.mark.parametrize(
    ("waits", "reason"),
    [
        ((awaited(kind="timer", until=START),), "until 2026-01-01 00:00:00 UTC"),
        ((awaited(kind="child", capability="lint", task="c1"),), "lint task c1"),
        ((awaited(kind="children", capability="lint", task="c", count=7),), "7 tasks of lint"),
        ((awaited(signal="go"), awaited(signal="stop")), "signal go and 1 more"),
        ((), "child"),
    ],
)
def test_every_kind_of_wait_is_told(
    path: Path, open_index: OpenIndex, waits: tuple[Awaited, ...], reason: str
) -> None:
    feed = Feed()
    task = feed.task("t1")
    task.add("submitted")
    task.add("dispatched")
    task.add("waiting", reason="child", detail="", hold=task.hold, waits=waits)
    open_index().apply(feed.stored)
    assert listed(path)[0].reason == reason
    assert timeline(path, "t1")[-1].detail == reason


def test_a_further_try_names_the_dead_task(path: Path, open_index: OpenIndex) -> None:
    feed = Feed()
    feed.task("t2").add("submitted", redrives="t1")
    open_index().apply(feed.stored)
    assert listed(path)[0].redrives == "t1"
    assert timeline(path, "t2")[0].detail == "again, after t1"


def test_payloads_of_undos_and_waits_are_not_kept(path: Path, open_index: OpenIndex) -> None:
    feed = Feed()
    task = feed.task("t1")
    task.add("submitted")
    task.add("dispatched")
    task.add("checkpoint", key="u", kind="undo-registered")
    task.add("waiting", reason="timer", hold=task.hold, waits=(awaited(kind="timer", key="zzz"),))
    index = open_index()
    index.apply(feed.stored)
    assert b"secret" not in path.read_bytes() + path.with_name(path.name + "-wal").read_bytes()
    task.add("dispatched")
    task.add("checkpoint", key="u", kind="undo-done")
    task.add("completed")
    index.apply(feed.since(4))
    assert listed(path)[0].state == "completed"


def test_an_older_layout_is_filled_again_from_the_ledger(path: Path, open_index: OpenIndex) -> None:
    feed = Feed()
    feed.task("t1").finish()
    index = open_index()
    index.apply(feed.stored)
    index.close()
    with closing(sqlite3.connect(path)) as older:
        older.execute("PRAGMA user_version = 1")
    assert open_index().cursor == 0
    assert listed(path) == ()
