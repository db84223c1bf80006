"""`crash_everywhere`: the same task again and again, its process killed at another place each time."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING, Any, Literal, TypeVar, overload

from switchgear.testing.mesh import MemoryMesh, mesh

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from switchgear.agent.declare import Agent
    from switchgear.contract.capability import Capability
    from switchgear.tasks.handle import TaskHandle

In = TypeVar("In")
Out = TypeVar("Out")

SIDES: tuple[Literal["before", "after"], ...] = ("before", "after")


@overload
async def crash_everywhere(
    capability: Capability[In, Out],
    input: In,
    *agents: Agent,
    prepare: Callable[[MemoryMesh], None] = ...,
    meanwhile: Callable[[MemoryMesh, TaskHandle[Out]], Awaitable[object]] | None = None,
    seed: int = 0,
) -> dict[str, Out]: ...


@overload
async def crash_everywhere(
    capability: str,
    input: Any,
    *agents: Agent,
    prepare: Callable[[MemoryMesh], None] = ...,
    meanwhile: Callable[[MemoryMesh, TaskHandle[Any]], Awaitable[object]] | None = None,
    seed: int = 0,
) -> dict[str, Any]: ...


async def crash_everywhere(
    capability: Capability[Any, Any] | str,
    input: Any,
    *agents: Agent,
    prepare: Callable[[MemoryMesh], None] = lambda _: None,
    meanwhile: Callable[[MemoryMesh, TaskHandle[Any]], Awaitable[object]] | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Run a task once undisturbed, then once for each end that this recorded, killed before and after it.

    Returns all results by where the process was killed: `undisturbed`, `0 before research/draft`, and so on, the
    end of the task itself included. `prepare` sets each mesh up (fakes, resources); `meanwhile` does what the task
    needs from outside, such as signals. Raises what a task's result raises, with a note where it was killed.
    """

    async def run(where: str, number: int | None, side: Literal["before", "after"]) -> MemoryMesh:
        async with mesh(*agents, seed=seed) as made:
            prepare(made)
            if number is not None:
                made.faults.crash_at(number, side)
            handle = await made.submit(capability, input)
            if meanwhile is not None:
                await meanwhile(made, handle)
            try:
                results[where] = await handle.result()
            except Exception as error:
                error.add_note(f"killed: {where}")
                raise
            return made

    results: dict[str, Any] = {}
    ends = (await run("undisturbed", None, "before")).faults.points
    for (number, point), side in product(enumerate(ends), SIDES):
        await run(f"{number} {side} {point}", number, side)
    return results
