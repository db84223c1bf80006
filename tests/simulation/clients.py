"""Who uses the mesh of a seed: each is a process of its own, which nothing befalls but its broker's troubles."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine
from datetime import timedelta
from random import Random
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from switchgear.client.mesh import Mesh
from switchgear.contract import codec, entries, subjects
from switchgear.errors import Conflict, Overloaded, SwitchgearError, TaskFailed, Unavailable
from switchgear.tasks.requests import request_cancel, send_signal
from switchgear.tasks.scopes import scope_of
from tests.programs.program import ANSWER, CAPABILITIES, SIGNAL, Program, Signal, own_parts
from tests.programs.record import Seen, Submission
from tests.simulation.chaos import entries_of

if TYPE_CHECKING:
    from tests.simulation.world import World

T = TypeVar("T")
OWNER = "alice"
UNFIT = 0.2
"""How many signals come after one that does not fit its wait."""


async def client(world: World, program: Program, number: int) -> None:
    """Submits a program and waits for its end; may lose interest, or give it little time."""
    draw = world.random
    bus = world.bus("client")
    mesh = Mesh(bus, OWNER, clock=world.clock)
    await mesh.start()
    await asyncio.sleep(draw.uniform(0, 5))
    deadline = timedelta(seconds=draw.uniform(1, 60)) if draw.random() < 0.15 else None
    capability = draw.choice(CAPABILITIES)
    key = f"{world.seed}/{number}"
    handle = await _insisting(lambda: mesh.submit(capability, program, key=key, deadline=deadline))
    cancelled = draw.random() < 0.15
    until = None if deadline is None else (world.clock.now() + deadline).timestamp()
    world.recording.submissions.append(
        Submission(handle.id, capability, OWNER, program, until, cancelled)
    )
    if cancelled:
        await asyncio.sleep(draw.uniform(0, 10))
        scope = subjects.scope(capability, OWNER, handle.id)
        reason = "no longer wanted"
        await _insisting(lambda: request_cancel(bus, world.clock, scope, reason))
    try:
        value = await handle.result(int)
        world.recording.seen.append(Seen(handle.id, "completed", value))
    except TaskFailed as error:
        world.recording.seen.append(Seen(handle.id, error.state))
    except Overloaded:
        world.recording.seen.append(Seen(handle.id, "rejected"))
    await mesh.close()


async def signaller(world: World) -> None:
    """Sends each task as many signals as its program waits for, early or late; some after one that does not fit."""
    bus, dice = world.bus("signaller"), Random(world.seed)  # noqa: S311  # repeatable
    sent: Counter[str] = Counter()
    while True:
        for stored in entries_of(world.broker.ledger):
            if not stored.subject.endswith(".submitted"):
                continue
            scope = scope_of(stored.subject)
            entry = msgspec.json.decode(stored.data, type=entries.Submitted)
            program = msgspec.json.decode(entry.input, type=Program)
            wanted = sum(isinstance(op, Signal) for op in own_parts(program))
            while sent[scope] < wanted:
                sent[scope] += 1
                await asyncio.sleep(world.random.uniform(0, 2))
                unfit = [b'"no"'] if dice.random() < UNFIT else []
                try:
                    for payload in (*unfit, codec.encode(ANSWER)):
                        await send_signal(bus, world.clock, scope, SIGNAL, payload, sender=OWNER)
                except Conflict:
                    continue  # it has ended
                except SwitchgearError:
                    sent[scope] -= 1
        await asyncio.sleep(5)


async def _insisting(ask: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Ask again while there is no room."""
    while True:
        try:
            return await ask()
        except (Overloaded, Unavailable) as full:
            await asyncio.sleep(full.retry_after or 1)
