"""What a suspended task waits for, inline or kept as a blob."""

from __future__ import annotations

from datetime import timedelta

import pytest

from switchgear.contract import codec, entries
from switchgear.contract.values import Awaited, Blob, Status
from switchgear.errors import NotFound
from switchgear.tasks import waits
from tests.unit.agent.stage import START, stage

REVIEW = Awaited(key="review", kind="signal", begun=START, signal="review", question="go?")
LATER = Awaited(key="later", kind="timer", begun=START, until=START + timedelta(hours=1))


def waiting(**fields: object) -> entries.Waiting:
    status = Status(state="waiting", submitted_at=START)
    common: dict[str, object] = {
        "v": 1, "id": "e", "task": "t", "time": START, "writer": "a", "status": status,
    }  # fmt: skip
    return entries.Waiting(**(common | {"reason": "signal"} | fields))  # type: ignore[arg-type]


async def test_waits_that_are_too_long_for_an_entry_are_fetched() -> None:
    async with stage() as on:
        data = codec.encode((REVIEW, LATER))
        blob = Blob(digest=await on.bus.blobs.put(data), size=len(data))
        assert await waits.waits_of(on.bus.blobs, waiting(waits_blob=blob)) == (REVIEW, LATER)
        assert await waits.waits_of(on.bus.blobs, waiting(waits=(LATER,))) == (LATER,)
        missing = Blob(digest="0" * 64, size=1)
        with pytest.raises(NotFound):
            await waits.waits_of(on.bus.blobs, waiting(waits_blob=missing))


def test_what_is_waited_for_is_told_unless_the_entry_says_it() -> None:
    assert waits.told(waiting(waits=(REVIEW, LATER))) == "signal review: go? and 1 more"
    assert waits.told(waiting(waits=(LATER,))) == "until 2026-01-01 01:00:00 UTC"
    assert waits.told(waiting(waits=(LATER,), detail="as it says")) == "as it says"
    assert waits.told(waiting()) == "signal"
    assert waits.signals((LATER, REVIEW)) == (REVIEW,)
