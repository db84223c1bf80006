"""A run as it is watched, from plain ledger entries."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from switchgear.cli.output import plain
from switchgear.cli.render import tree as screen
from switchgear.cli.run_tree import RunTree
from switchgear.contract.queries import Progress
from switchgear.contract.values import Parent
from tests.unit.projections.feed import START, Feed, Scope

NOW = START + timedelta(seconds=20)


def child(feed: Feed, name: str, capability: str, root: str) -> Scope:
    """A task that the root submitted."""
    scope = feed.task(name, capability=capability)
    parent = Parent(task=root, capability="check-repo", key=capability)
    scope.add("submitted", writer="agent-1", root=root, parent=parent, depth=1)
    return scope


def progress(task: str, fraction: float, message: str) -> Progress:
    return Progress(task=task, time=NOW, fraction=fraction, message=message, writer="agent-2")


def test_a_run_grows_from_its_entries() -> None:
    feed, tree = Feed(), RunTree("root")
    root = feed.task("root", capability="check-repo")
    root.add("submitted", writer="client-1")
    root.add("dispatched", writer="coordinator-1")
    lint = child(feed, "lint", "python-lint", "root")
    lint.add("dispatched", writer="coordinator-1")
    seen = [tree.entry(stored) for stored in feed.stored]
    assert [one.event.event for one in seen if one] == [
        "submitted", "dispatched", "submitted", "dispatched",
    ]  # fmt: skip
    assert [node.capability for node in tree.children("root")] == ["python-lint"]
    assert tree.nodes["lint"].state == "dispatched"
    assert not tree.ended


def test_progress_shows_who_runs_it_and_how_far() -> None:
    feed, tree = Feed(), RunTree("root")
    root = feed.task("root", capability="check-repo")
    root.add("submitted", writer="client-1")
    root.add("dispatched", writer="coordinator-1")
    for stored in feed.stored:
        tree.entry(stored)
    assert tree.report(progress("root", 0.25, "a quarter")) is not None
    assert tree.report(progress("root", 0.25, "a quarter")) is None, "nothing new"
    node = tree.nodes["root"]
    assert (node.state, node.agent, node.fraction) == ("running", "agent-2", 0.25)
    assert "███░░░░░░░░░" in plain(screen.run(tree, NOW))


def test_the_end_of_the_root_ends_the_run() -> None:
    feed, tree = Feed(), RunTree("root")
    root = feed.task("root", capability="check-repo")
    for event, writer in (("submitted", "c"), ("dispatched", "c"), ("completed", "agent-1")):
        tree.entry(root.add(event, writer=writer))
    assert tree.ended
    assert tree.nodes["root"].agent == "agent-1"
    assert tree.report(progress("root", 0.5, "late")) is None
    assert tree.nodes["root"].ended == START + timedelta(seconds=3)


def test_other_runs_and_void_entries_are_left_out() -> None:
    feed, tree = Feed(), RunTree("root")
    other = feed.task("other", capability="check-repo")
    assert tree.entry(other.add("submitted", writer="c")) is None
    root = feed.task("root", capability="check-repo")
    tree.entry(root.add("submitted", writer="c"))
    assert tree.entry(root.raw("completed")) is None
    assert tree.report(progress("other", 0.5, "")) is None
    assert list(tree.nodes) == ["root"]
    assert not tree.ended


def test_a_dead_task_says_why() -> None:
    feed, tree = Feed(), RunTree("root")
    root = feed.task("root", capability="check-repo")
    for event in ("submitted", "dispatched", "attempt-failed"):
        tree.entry(root.add(event))
    tree.entry(root.add("dead", writer="coordinator-1"))
    drawn = plain(screen.run(tree, NOW))
    assert drawn.startswith("✗ check-repo  dead")
    assert "SG1510 The Boiler exploded" in drawn


def test_a_tree_is_indented_and_aligned() -> None:
    feed, tree = Feed(), RunTree("root")
    feed.task("root", capability="check-repo").add("submitted", writer="c")
    child(feed, "a", "python-lint", "root")
    child(feed, "b", "secret-scan", "root")
    for stored in feed.stored:
        tree.entry(stored)
    lines = plain(screen.run(tree, NOW)).splitlines()
    assert lines[0].startswith("· check-repo")
    assert lines[1].startswith("├── · python-lint")
    assert lines[2].startswith("└── · secret-scan")
    assert len({line.index("queued") for line in lines}) == 1


def test_an_unknown_root_is_waited_for() -> None:
    assert "waiting" in plain(screen.run(RunTree("root"), datetime(2026, 1, 1, tzinfo=UTC)))


def test_what_happens_is_one_line() -> None:
    feed, tree = Feed(), RunTree("root")
    seen = tree.entry(feed.task("root", capability="check-repo").add("submitted", writer="me"))
    assert seen is not None
    assert screen.happened(seen, START).split() == ["+1.000", "s", "check-repo", "submitted", "me"]
