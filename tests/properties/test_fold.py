"""The fold against the model: any entries in any order, legal and forged, count for both or for neither."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from switchgear.contract import codec
from switchgear.contract.stored import expect_headers, header_block
from switchgear.lifecycle import coordination
from switchgear.lifecycle.coordination import Stamp, View
from tests.properties.mesh_agents import World
from tests.properties.task_model import ENDS
from tests.unit.lifecycle.script import FAILURE, SCOPE, T0, entry, fits, pool, subject

OPEN = [
    "dispatched",
    "taken-over",
    "released",
    "checkpoint",
    "waiting",
    "signalled",
    "attempt-failed",
    "cancel-requested",
]
UNDOS = ["undo-registered", "undo-done", "undo-dropped", "undo-begun"]
REASONS = ["capacity", "start", "turn", "retry", "timer"]
ENTRY = st.fixed_dictionaries(
    {
        # Most entries leave the task open, or histories would be short.
        "event": st.sampled_from([*OPEN, *OPEN, "submitted", *sorted(ENDS)]),
        "by_agent": st.booleans(),
        "writer": st.sampled_from(["a1", "a1", "a2"]),
        "offset": st.sampled_from([0, 0, 0, 0, -1, 1]),
        "later": st.sampled_from([1, 1, 1, 0, 2]),
        "behind": st.sampled_from([0, 0, 0, 0, 1, 3]),
        "kind": st.sampled_from([*UNDOS, "undo-registered", "undo-registered", "step"]),
        "key": st.sampled_from(["a", "b"]),
        "reason": st.sampled_from([*REASONS, "deadline", "enough"]),
        "readable": st.sampled_from([True] * 9 + [False]),
    }
)


def write(world: World, drawn: dict[str, Any]) -> None:
    """Store one entry as drawn; the world compares what the fold and the model make of it."""
    event, model = drawn["event"], world.model
    fields: dict[str, Any] = {"writer": drawn["writer"]}
    plain = entry(event, **fields)
    if hasattr(plain, "hold") and (drawn["by_agent"] or event in ("taken-over", "checkpoint")):
        fields["hold"] = max(model.hold + drawn["offset"], 0)
    if event == "dispatched":
        fields["attempt"] = max(model.attempt + drawn["later"], 1)
    if event == "checkpoint":
        fields |= {"kind": drawn["kind"], "key": drawn["key"]}
        fields["error"] = FAILURE if drawn["kind"] == "undo-begun" else None
    if event == "waiting":
        fields["reason"] = drawn["reason"] if drawn["reason"] in REASONS else "timer"
    if event == "cancel-requested":
        fields["reason"] = drawn["reason"]
    one = entry(event, id=world.fresh_id(), **fields)
    expected = max(world.last - drawn["behind"], 0)
    truth = world.truth(one, event, expected)._replace(readable=drawn["readable"])
    data = codec.encode(one) if drawn["readable"] else b'{"v":1'
    world.store(subject(event), data, header_block(expect_headers(expected, SCOPE)), truth)


@settings(max_examples=400)
@given(st.lists(ENTRY, max_size=30), st.sampled_from([True] * 9 + [False]), st.booleans())
def test_the_fold_and_the_model_agree_on_any_history(
    drawn: list[dict[str, Any]],
    readable: bool,  # noqa: FBT001  # drawn
    staffed: bool,  # noqa: FBT001  # drawn
) -> None:
    """Entry by entry; and whatever a coordinator then decides is legal, and decided once."""
    world = World(staffed=staffed)
    opening = {"event": "submitted", "by_agent": False, "writer": "client", "behind": 0}
    write(world, opening | {"readable": readable})
    for one in drawn:
        write(world, one)
        model, seen = world.model, world.seen
        assert (model.state, model.hold, model.holder) == (seen.state, seen.hold, seen.holder)
        assert (model.attempt, model.undos, model.undone, model.live) == (
            seen.attempt,
            list(seen.open_undos),
            seen.undoing is not None,
            seen.live_dispatch,
        )
    decided(world)


def decided(world: World) -> None:
    """Append what a coordinator decides until it decides nothing: soon, legally, and never twice."""
    view = View([pool()] if world.staffed else [], fits, b"null")
    seen: list[str] = []
    for _ in range(4):
        stamp = Stamp(world.fresh_id(), "c1", T0)
        decision = coordination.decide(world.seen, view, stamp)
        if decision.entry is None:
            return
        event = decision.subject[len(SCOPE) - 1 :].split(".")[0]
        seen.append(event)
        headers = header_block(expect_headers(world.last, SCOPE))
        truth = world.truth(decision.entry, event, world.last)
        world.store(decision.subject, codec.encode(decision.entry), headers, truth)
        assert world.model.valid == world.last, (decision, world.seen.voids)
        assert len(seen) == len(set(seen))
    raise AssertionError(seen)
