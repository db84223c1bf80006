"""Submitting a task from the command line, and waiting for it with live progress."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from switchgear.cli import exits, following, suggest
from switchgear.cli.common import Common, joined
from switchgear.contract.values import Retry
from switchgear.errors import Unavailable, UsageError

if TYPE_CHECKING:
    from switchgear.cli.output import Output
    from switchgear.client.mesh import Mesh
    from switchgear.tasks.handle import TaskHandle


class Wanted(NamedTuple):
    """A submission as it was typed, checked."""

    capability: str
    input: Any
    key: str | None = None
    priority: str = "normal"
    deadline: timedelta | datetime | None = None
    start: timedelta | datetime | None = None
    labels: dict[str, str] = {}  # noqa: RUF012  # a NamedTuple's default; nobody writes to it
    require_agent: bool = False
    attempts: int | None = None


async def submit(wanted: Wanted, common: Common) -> int:
    """Submit, print the task's id, and say what to do next."""
    output = common.output
    async with joined(common) as mesh:
        handle = await send(mesh, wanted)
        offered = await _warn_if_nobody_offers(mesh, wanted.capability, output)
        output.put("task", _reference(handle), lambda: handle.id)
        if not output.as_json and offered:
            output.say(f"  result: switchgear task result {handle.id}")
            output.say(f"  watch:  switchgear task watch {handle.id}")
    return exits.OK


async def submit_and_wait(wanted: Wanted, limit: timedelta | None, common: Common) -> int:
    """Submit, show what happens until the end, print the result. Raises TaskFailed, WaitTimeout."""
    output = common.output
    async with joined(common) as mesh, following.Following(mesh, output) as followed:
        handle = await send(mesh, wanted)
        followed.root(handle.id)
        warning = asyncio.create_task(_warn_if_nobody_offers(mesh, wanted.capability, output))
        try:
            found = await handle.result(timeout=limit)
        finally:
            warning.cancel()
            await asyncio.gather(warning, return_exceptions=True)
            await followed.finish()
    output.put("result", {**_reference(handle), "output": found}, lambda: pretty(found))
    return exits.OK


async def send(mesh: Mesh, wanted: Wanted) -> TaskHandle[Any]:
    """Submit. Raises UsageError, Conflict, Unavailable."""
    if wanted.attempts is not None and not 1 <= wanted.attempts <= 100:  # noqa: PLR2004 - the protocol's bound
        raise UsageError(f"--retry is {wanted.attempts}", fix="give the attempts in all: 1 to 100")
    return await mesh.submit(
        wanted.capability,
        wanted.input,
        key=wanted.key,
        priority=wanted.priority,
        deadline=wanted.deadline,
        start=wanted.start,
        labels=wanted.labels,
        retry=None if wanted.attempts is None else Retry(max_attempts=wanted.attempts),
        require_agent=wanted.require_agent,
    )


def pretty(value: Any) -> str:
    """A result for people and for `jq`: JSON over several lines."""
    return msgspec.json.format(msgspec.json.encode(value)).decode()


async def _warn_if_nobody_offers(mesh: Mesh, name: str, output: Output) -> bool:
    """Say on the error output that the task will wait. Returns whether somebody offers it, as far as known."""
    try:
        rows = (await mesh.capabilities()).rows
    except Unavailable:
        output.say("no coordinator answers: the task waits in the ledger until one runs")
        return False
    offered = {row.offer.name for row in rows}
    if name in offered:
        return True
    near = suggest.near(name, offered)
    hint = f" Did you mean {' or '.join(near)}?" if near else ""
    output.say(f"nobody offers {name} now: the task waits until an agent does.{hint}")
    return False


def _reference(handle: TaskHandle[Any]) -> dict[str, str]:
    return {"task": handle.id, "capability": handle.capability}
