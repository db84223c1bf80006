"""The janitor on a real server."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from switchgear.bus.port import Appended
from switchgear.clock import SYSTEM
from switchgear.contract import codec, subjects
from switchgear.contract.values import Blob
from switchgear.coordinator.blob_janitor import BlobJanitor
from switchgear.coordinator.janitor import Janitor
from switchgear.errors import NotFound
from switchgear.lifecycle.history import fold
from switchgear.lifecycle.retention import Policy
from tests.integration.spine.stage import Stage, until
from tests.unit.lifecycle import script

pytestmark = pytest.mark.integration


class Always:
    """A lease that this replica holds."""

    async def held(self) -> bool:
        return True


async def write(stage: Stage, task: str, *events: str) -> str:
    """Append a task's entries as their writers do. Returns its scope."""
    bus = await stage.bus(task, "writer")
    scope, last, hold = subjects.scope("review", "alice", task), 0, 0
    for event in events:
        entry = script.entry(event, task=task, **({"hold": hold} if event == "completed" else {}))
        stem = "dispatched.p1.normal" if event == "dispatched" else event
        answer = await bus.ledger.append(
            scope[:-1] + stem, codec.encode(entry), scope=scope, expect=last
        )
        assert isinstance(answer, Appended)
        last = answer.sequence
        hold = last if event == "dispatched" else hold
    return scope


async def test_ended_tasks_go_and_open_ones_stay(stage: Stage) -> None:
    """Hundreds, in batches; what is left is untouched."""
    scopes = await asyncio.gather(
        *(write(stage, f"t{n}", "submitted", "dispatched", "completed") for n in range(25))
    )
    waiting = await write(stage, "open", "submitted", "dispatched")
    bus = await stage.bus("janitor", "coordinator")
    janitor = Janitor(bus, SYSTEM, Always(), Policy(timedelta(hours=1), 5))
    assert await janitor.clean() == 20
    left = [scope for scope in scopes if await bus.ledger.history(scope)]
    assert len(left) == 5
    assert len(await bus.ledger.history(waiting)) == 2
    assert await janitor.clean() == 0
    everything = Janitor(bus, SYSTEM, Always(), Policy(timedelta(microseconds=1), 1000))
    await asyncio.sleep(0.01)
    assert await everything.clean() == 5
    assert await bus.ledger.count("sg.task.>") == 2


@pytest.mark.parametrize("cut", [1, 2, 3])
async def test_deletion_that_was_cut_short_leaves_a_remnant_that_goes_later(
    stage: Stage, cut: int
) -> None:
    """Nobody can append to it as if it were new, and the next pass deletes the rest."""
    scope = await write(stage, "cut", "submitted", "dispatched", "completed")
    bus = await stage.bus("janitor", "coordinator")
    bus.core.publish(f"{scope[:-1]}signalled", b"raw")

    async def landed() -> bool:
        return len(await bus.ledger.history(scope)) == 4

    await until(landed)
    entries = await bus.ledger.history(scope)
    first = [entries[3], *entries[:3]]
    for entry in first[:cut]:
        assert await bus.ledger.delete(entry.sequence)
    left = fold(scope, await bus.ledger.history(scope))
    assert left.remnant or left.ended == "completed"
    body = codec.encode(script.entry("submitted", task="cut"))
    late = await bus.ledger.append(f"{scope[:-1]}submitted", body, scope=scope, expect=0)
    assert not isinstance(late, Appended)
    janitor = Janitor(bus, SYSTEM, Always(), Policy(timedelta(hours=1), 1))
    assert await janitor.clean() == 0
    janitor = Janitor(bus, SYSTEM, Always(), Policy(timedelta(microseconds=1), 1))
    await asyncio.sleep(0.01)
    assert await janitor.clean() == 1
    assert await bus.ledger.history(scope) == []


async def test_blobs_that_no_entry_names_go_with_their_pieces(stage: Stage) -> None:
    """Hundreds, over several pages; what an entry names is untouched."""
    bus = await stage.bus("janitor", "coordinator")
    large = b"x" * 300_000
    named = await bus.blobs.put(large)
    scope = subjects.scope("review", "alice", "t1")
    entry = script.entry("submitted", input_blob=Blob(digest=named, size=len(large)))
    await bus.ledger.append(f"{scope[:-1]}submitted", codec.encode(entry), scope=scope, expect=0)
    unnamed = await asyncio.gather(*(bus.blobs.put(b"%d" % n) for n in range(1100)))
    unnamed.append(await bus.blobs.put(large * 2))
    janitor = BlobJanitor(bus, SYSTEM, Always(), age=timedelta())
    assert await janitor.clean() == len(unnamed)
    assert await bus.blobs.get(named) == large
    with pytest.raises(NotFound):
        await bus.blobs.get(unnamed[-1])
    state = (await bus.link.asking.api("STREAM.INFO.OBJ_SG_BLOBS"))["state"]
    assert state["messages"] == 3 + 1
    assert await janitor.clean() == 0
