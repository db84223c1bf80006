"""Fills a ledger with finished tasks, as fast as the broker takes them: `python -m benchmarks.fill URL TASKS`.

Each task is a copy of one that really ran, with ids, sequences and times of its own, appended under the same
expectations. Coordinator and agent are away meanwhile: this program settles what their consumers are given.
"""

import asyncio
import sys
import time
from collections.abc import Sequence

import msgspec

from benchmarks.echo import ECHO, OWNER
from switchgear import ids
from switchgear.bus.connection import NatsBus, connect
from switchgear.bus.port import Delivery, Refused
from switchgear.clock import SYSTEM, milliseconds
from switchgear.contract import codec, entries, subjects
from switchgear.lifecycle.history import fold
from switchgear.loop import run

BATCH = 2000
"""Tasks that are appended together."""
IN_FLIGHT = 5000
"""Deliveries that are settled together."""


async def fill(url: str, tasks: int) -> str:
    """Append the tasks, settle their deliveries, and say how many there are."""
    bus = await connect(url, principal=OWNER)
    model = await _model(bus)
    began = time.perf_counter()
    settled = {"intake-submitted": 0, _lane(model): 0}

    def settle(name: str, delivery: Delivery) -> None:
        delivery.ack()
        settled[name] += 1

    consuming = [
        bus.work.consume(name, lambda one, name=name: settle(name, one), in_flight=IN_FLIGHT)
        for name in settled
    ]
    for start in range(0, tasks, BATCH):
        await _append(bus, model, min(BATCH, tasks - start))
    async with asyncio.timeout(60):
        while min(settled.values()) < tasks:  # noqa: ASYNC110 - counts of callbacks
            await asyncio.sleep(0.01)
    for one in consuming:
        await one.end()
    await bus.close()
    return f"{tasks} tasks in {time.perf_counter() - began:.0f} s"


async def _model(bus: NatsBus) -> list[tuple[str, entries.Entry]]:
    """Return subject and body of all entries of a task that really ran."""
    last = await bus.ledger.leader_tail(f"sg.task.{ECHO.name}.{OWNER}.*.completed")
    assert last is not None
    history = await bus.ledger.history(subjects.parse_task(last.subject).scope)
    return [
        (one.subject, codec.decode_entry(subjects.parse_task(one.subject), one.data))
        for one in history
    ]


def _lane(model: Sequence[tuple[str, entries.Entry]]) -> str:
    """Return the consumer of the lane that the model was dispatched to."""
    dispatched = next(subject for subject, one in model if isinstance(one, entries.Dispatched))
    parts = subjects.parse_task(dispatched)
    return subjects.lane_consumer(parts.capability, parts.pool, parts.priority)


async def _append(bus: NatsBus, model: Sequence[tuple[str, entries.Entry]], count: int) -> None:
    """Append copies of the model, all tasks' first entries together, then all second ones."""
    tasks = [_new_id() for _ in range(count)]
    scopes = [subjects.scope(ECHO.name, OWNER, task) for task in tasks]
    sequences: list[list[int]] = [[] for _ in tasks]
    for subject, entry in model:
        event = subject.split(".", 5)[5]
        answers = await asyncio.gather(
            *(
                bus.ledger.append(
                    scope[:-1] + event,
                    codec.encode(_copy(entry, task, before)),
                    scope=scope,
                    expect=before[-1] if before else 0,
                )
                for scope, task, before in zip(scopes, tasks, sequences, strict=True)
            )
        )
        for answer, before in zip(answers, sequences, strict=True):
            if isinstance(answer, Refused):
                raise RuntimeError(f"an append was refused: {answer}")  # noqa: TRY004  # no wrong type
            before.append(answer.sequence)
    await _check(bus, scopes[-1])


def _copy(entry: entries.Entry, task: str, before: Sequence[int]) -> entries.Entry:
    """Return the entry as another task's, whose entries so far have these sequences."""
    now = SYSTEM.now()
    new: dict[str, object] = {"id": _new_id(), "task": task, "time": now}
    if before:
        new |= {"prev": before[-1], "prev_time": now}
    if isinstance(entry, entries.Dispatched):
        new["submitted"] = before[0]
    if isinstance(entry, entries.AgentEntry):
        new["hold"] = before[-1]
    return msgspec.structs.replace(entry, **new)


async def _check(bus: NatsBus, scope: str) -> None:
    """Raise if the product does not take a copy for a completed task."""
    history = fold(scope, await bus.ledger.history(scope))
    if history.ended != "completed" or history.voids:
        raise RuntimeError(f"the copies are no completed tasks: {history.position}")


def _new_id() -> str:
    return ids.new_id(milliseconds(SYSTEM.now()))


if __name__ == "__main__":
    print(run(fill(sys.argv[1], int(sys.argv[2]))), flush=True)
