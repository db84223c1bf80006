"""The read model's readers: filters, pages, search, and whose tasks are seen."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from switchgear import errors
from switchgear.contract import queries
from switchgear.contract.dead_letters import DeadQuery
from switchgear.contract.values import Failure
from switchgear.projections import lists
from switchgear.projections.history import Index
from tests.unit.projections.feed import Feed, Parent

Fill = Callable[[Feed], lists.Reader]
Query = queries.ListQuery


@pytest.fixture
def fill(tmp_path: Path) -> Iterator[Fill]:
    """Index a feed and read it."""
    index = Index(tmp_path / "history.sqlite")
    readers: list[lists.Reader] = []

    def filled(feed: Feed) -> lists.Reader:
        index.apply(feed.stored)
        readers.append(lists.Reader(tmp_path / "history.sqlite"))
        return readers[-1]

    yield filled
    for reader in readers:
        reader.close()
    index.close()


def some_tasks() -> Feed:
    """Of ann: z-done, a-held, m-dead, q-queued in this order; of bob: one that is queued."""
    feed = Feed()
    feed.task("z-done").finish()
    held = feed.task("a-held", capability="build")
    held.add("submitted", root="q-queued")
    held.add("dispatched")
    dead = feed.task("m-dead", capability="Build-All")
    for event in ("submitted", "dispatched", "attempt-failed", "dead"):
        dead.add(event)
    feed.task("q-queued").add("submitted")
    feed.task("bobs", owner="bob").add("submitted", root="q-queued")
    return feed


def ids(page: lists.Page) -> list[str]:
    return [row.id for row in page.tasks]


@pytest.mark.parametrize(
    ("query", "found"),
    [
        (Query(), ["q-queued", "m-dead", "a-held", "z-done"]),
        (Query(capability="lint"), ["q-queued", "z-done"]),
        (Query(state="dead"), ["m-dead"]),
        (Query(state="none"), []),
        (Query(open_only=True), ["q-queued", "a-held"]),
        (Query(open_only=True, state="dead"), []),
        (Query(open_only=True, capability="build"), ["a-held"]),
        (Query(capability="lint", state="completed"), ["z-done"]),
        (Query(root="q-queued"), ["q-queued", "a-held"]),
        (Query(root="q-queued", state="held", capability="build", open_only=True), ["a-held"]),
        (Query(search="DONE"), ["z-done"]),
        (Query(search="build"), ["m-dead", "a-held"]),
        (Query(search="boiler"), ["m-dead"]),
        (Query(search="boiler", capability="lint"), []),
        (Query(search="%"), []),
        (Query(search="\x00"), []),
        (Query(before="m-dead"), ["a-held", "z-done"]),
        (Query(before="m-dead", capability="lint"), ["z-done"]),
        (Query(limit=2), ["q-queued", "m-dead"]),
    ],
)
def test_a_query_finds_its_tasks_newest_first(fill: Fill, query: Query, found: list[str]) -> None:
    reader = fill(some_tasks())
    assert ids(reader.tasks("ann", query)) == found


def test_pages_give_every_task_once(fill: Fill) -> None:
    feed = Feed()
    names = [f"{number * 7919 % 101:03d}" for number in range(25)]
    for name in names:
        feed.task(name).add("submitted")
    reader = fill(feed)
    seen: list[str] = []
    page = reader.tasks("ann", Query(limit=10))
    while page.more:
        seen += ids(page)
        page = reader.tasks("ann", Query(limit=10, before=seen[-1]))
    assert [*seen, *ids(page)] == names[::-1]


def test_a_full_last_page_says_that_there_is_no_more(fill: Fill) -> None:
    reader = fill(some_tasks())
    assert not reader.tasks("ann", Query(limit=4)).more
    assert reader.tasks("ann", Query(limit=3)).more


def test_an_owner_sees_no_other_owners_tasks(fill: Fill) -> None:
    reader = fill(some_tasks())
    assert ids(reader.tasks("bob", Query())) == ["bobs"]
    assert ids(reader.tasks("bob", Query(root="q-queued"))) == ["bobs"]
    assert ids(reader.tasks("eve", Query(search="a"))) == []
    assert reader.timeline("bob", "z-done").moments == ()
    with pytest.raises(errors.NotFound):
        reader.tasks("bob", Query(before="z-done"))


def test_one_owner_may_use_an_id_for_two_capabilities(fill: Fill) -> None:
    feed = Feed()
    feed.task("t1", capability="lint").finish()
    feed.task("t1", capability="build").add("submitted")
    reader = fill(feed)
    assert [(row.capability, row.state) for row in reader.tasks("ann", Query()).tasks] == [
        ("build", "queued"),
        ("lint", "completed"),
    ]


def test_the_cursor_tells_what_was_read(fill: Fill) -> None:
    feed = some_tasks()
    reader = fill(feed)
    assert reader.tasks("ann", Query()).cursor == feed.sequence
    assert reader.timeline("ann", "z-done").cursor == feed.sequence


def test_a_page_of_long_errors_ends_early_and_says_so(fill: Fill) -> None:
    feed = Feed()
    text = "x" * 16_000
    error = Failure(error_class="bug", code=text, message=text, why=text, fix=text, path=text)
    for number in range(400):
        task = feed.task(f"t{number}")
        for event in ("submitted", "dispatched"):
            fields: dict[str, Any] = {"priority": text} if event == "submitted" else {}
            task.add(event, **fields)
        task.add("attempt-failed", error=error)
    reader = fill(feed)
    page = reader.tasks("ann", Query(limit=1000))
    assert page.more
    assert 100 < len(page.tasks) < 400
    seen = list(page.tasks)
    while page.more:
        page = reader.tasks("ann", Query(limit=1000, before=seen[-1].id))
        seen += page.tasks
    assert [row.id for row in seen] == [f"t{number}" for number in reversed(range(400))]


def test_a_timeline_tells_a_run_in_ledger_order(fill: Fill) -> None:
    feed = Feed()
    root, child = feed.task("r"), feed.task("c", capability="build")
    root.add("submitted", writer="client-1")
    root.add("dispatched", writer="coordinator-1")
    child.add("submitted", root="r", writer="agent-1")
    root.add("waiting", hold=root.hold, reason="child", detail="waits for c")
    child.add("dispatched")
    child.raw("completed")
    child.add("attempt-failed")
    feed.task("other").finish()
    moments = fill(feed).timeline("ann", "r").moments
    assert [(one.task, one.event, one.detail) for one in moments] == [
        ("r", "submitted", ""),
        ("r", "dispatched", "main: the only pool"),
        ("c", "submitted", ""),
        ("r", "waiting", "waits for c"),
        ("c", "dispatched", "main: the only pool"),
        ("c", "completed", ""),
        ("c", "attempt-failed", "SG1510: The Boiler exploded"),
    ]
    assert [one.sequence for one in moments] == [1, 2, 3, 4, 5, 6, 7]
    assert [one.time for one in moments] == [stored.time for stored in feed.stored[:7]]
    assert moments[0].writer == "client-1"
    assert [one.attempt for one in moments] == [0, 1, 0, 1, 1, 0, 1]


def test_every_event_has_its_place_on_a_timeline(fill: Fill) -> None:
    feed = Feed()
    task = feed.task("t")
    for event in ("submitted", "dispatched", "checkpoint", "released", "taken-over", "signalled"):
        task.add(event)
    task.add("cancel-requested")
    task.add("cancelled", hold=task.hold)
    feed.task("u").add("submitted")
    late = feed.task("v")
    late.add("submitted")
    late.add("expired")
    bad = feed.task("w")
    bad.add("submitted")
    bad.add("rejected")
    reader = fill(feed)
    moments = reader.timeline("ann", "t").moments
    assert [one.void for one in moments] == [""] * 8
    assert [one.detail for one in moments] == [
        "",
        "main: the only pool",
        "step build",
        "drain",
        "crash, from agent-1",
        "approved",
        "no longer wanted",
        "no longer wanted",
    ]
    assert reader.timeline("ann", "v").moments[1].event == "expired"
    assert reader.timeline("ann", "w").moments[1].detail == "SG1203: the input is bad"
    states = {row.id: row.state for row in reader.tasks("ann", Query()).tasks}
    assert states == {"t": "cancelled", "u": "queued", "v": "expired", "w": "rejected"}


def test_a_timeline_that_is_cut_says_so(fill: Fill, monkeypatch: pytest.MonkeyPatch) -> None:
    feed = Feed()
    feed.task("t").finish()
    reader = fill(feed)
    assert not reader.timeline("ann", "t").more
    monkeypatch.setattr(lists, "MAX_MOMENTS", 3)
    cut = reader.timeline("ann", "t")
    assert (len(cut.moments), cut.more) == (3, True)


def test_a_query_that_takes_too_long_is_given_up(
    fill: Fill, monkeypatch: pytest.MonkeyPatch
) -> None:
    feed = Feed()
    for number in range(500):
        feed.task(f"t{number}").add("submitted")
    monkeypatch.setattr(lists, "_TICK", 100)
    monkeypatch.setattr(lists, "_MAX_TICKS", 5)
    reader = fill(feed)
    with pytest.raises(errors.UsageError, match="too long"):
        reader.tasks("ann", Query(search="nothing"))
    assert len(reader.tasks("ann", Query(limit=5)).tasks) == 5


def a_family() -> Feed:
    """Of ann: p1 with children c1 and c2, d1 and d2 dead of one cause, d3 of another, r1 a further try of d1."""
    feed = Feed()
    feed.task("p1").add("submitted")
    for name in ("c1", "c2"):
        parent = Parent(task="p1", capability="lint", key=name)
        feed.task(name, capability="build").add("submitted", root="p1", parent=parent, depth=1)
    for name, message in (("d1", "no 1"), ("d2", "no 2"), ("d3", "other")):
        error = Failure(error_class="bug", code="SG1510", message=message)
        dead = feed.task(name)
        for event in ("submitted", "dispatched"):
            dead.add(event)
        dead.add("attempt-failed", error=error)
        dead.add("dead", error=error)
    feed.task("r1").add("submitted", redrives="d1")
    feed.task("bobs", owner="bob").add("submitted", redrives="d1")
    return feed


def test_children_tries_and_causes_can_be_asked_for(fill: Fill) -> None:
    reader = fill(a_family())
    assert ids(reader.tasks("ann", Query(parent="p1"))) == ["c2", "c1"]
    assert ids(reader.tasks("ann", Query(parent="p1", state="dead"))) == []
    assert ids(reader.tasks("ann", Query(redrives="d1"))) == ["r1"]
    assert ids(reader.tasks("bob", Query(parent="p1"))) == []
    cause = reader.dead("ann", DeadQuery()).groups[0].fingerprint
    assert ids(reader.tasks("ann", Query(fingerprint=cause, state="dead"))) == ["d2", "d1"]
    assert ids(reader.tasks("ann", Query(fingerprint=cause, capability="build"))) == []


def test_dead_tasks_are_grouped_by_cause_the_largest_group_first(fill: Fill) -> None:
    """Also those whose writer gave no fingerprint."""
    feed = a_family()
    reader = fill(feed)
    page = reader.dead("ann", DeadQuery())
    found = [(group.count, group.newest, group.redriven) for group in page.groups]
    assert found == [(2, "d2", 1), (1, "d3", 0)]
    big = page.groups[0]
    died = [stored.time for stored in feed.stored if stored.subject.endswith(".dead")]
    assert (big.first, big.last, big.error.message) == (died[0], died[1], "no 2")
    assert big.fingerprint != page.groups[1].fingerprint != ""
    assert page.cursor == feed.sequence
    only = reader.dead("ann", DeadQuery(fingerprint=big.fingerprint, capability="lint"))
    assert [group.count for group in only.groups] == [2]
    assert reader.dead("ann", DeadQuery(capability="build")).groups == ()
    assert reader.dead("bob", DeadQuery()).groups == ()


def test_a_try_that_died_counts_as_tried_again_by_a_later_one_only(fill: Fill) -> None:
    feed = Feed()
    for name, redrives in (("d1", None), ("r1", "d1"), ("r2", "d1")):
        task = feed.task(name)
        task.add("submitted", redrives=redrives)
        for event in ("dispatched", "attempt-failed", "dead"):
            task.add(event)
    [group] = fill(feed).dead("ann", DeadQuery()).groups
    assert (group.count, group.redriven) == (3, 2)


def test_too_many_causes_are_cut_and_say_so(fill: Fill, monkeypatch: pytest.MonkeyPatch) -> None:
    reader = fill(a_family())
    monkeypatch.setattr(lists, "MAX_GROUPS", 1)
    page = reader.dead("ann", DeadQuery())
    assert ([group.count for group in page.groups], page.more) == ([2], True)
    monkeypatch.setattr(lists, "MAX_GROUPS", 2)
    assert not reader.dead("ann", DeadQuery()).more


def test_a_timeline_comes_in_pages_of_bounded_size(
    fill: Fill, monkeypatch: pytest.MonkeyPatch
) -> None:
    feed = Feed()
    task = feed.task("t1")
    task.add("submitted")
    task.add("dispatched")
    for number in range(50):
        task.add("checkpoint", key=f"step-{number}")
    reader = fill(feed)
    monkeypatch.setattr(lists, "MAX_PAGE_BYTES", 3000)
    seen: list[int] = []
    page = reader.timeline("ann", "t1")
    while page.more:
        assert 1 < len(page.moments) < 30
        seen += [moment.sequence for moment in page.moments]
        page = reader.timeline("ann", "t1", seen[-1])
    assert [*seen, *(moment.sequence for moment in page.moments)] == [*range(1, 53)]


def test_a_page_holds_one_entry_however_long(fill: Fill, monkeypatch: pytest.MonkeyPatch) -> None:
    reader = fill(some_tasks())
    monkeypatch.setattr(lists, "MAX_PAGE_BYTES", 1)
    page = reader.timeline("ann", "z-done")
    assert ([moment.sequence for moment in page.moments], page.more) == ([1], True)
