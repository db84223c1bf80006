"""`switchgear task`: submit, ls, show, watch, result; `steer` has what changes a task."""

from __future__ import annotations

from typing import Annotated, Literal

from cyclopts import Parameter

from switchgear.cli import common as shared
from switchgear.cli.common import COMMON, Common

Priority = Literal["high", "normal", "low"]
StateName = Literal[
    "queued", "held", "loose", "failed", "waiting", "cancelling",
    "rejected", "completed", "dead", "cancelled", "expired",
]  # fmt: skip


def submit(  # noqa: PLR0913 - one parameter an option
    capability: str,
    input: Annotated[str, Parameter(allow_leading_hyphen=True)] = "null",
    /,
    *,
    wait: bool = False,
    timeout: str | None = None,
    key: str | None = None,
    priority: Priority = "normal",
    deadline: str | None = None,
    start: str | None = None,
    label: list[str] | None = None,
    require_agent: bool = False,
    retry: int | None = None,
    common: Common = COMMON,
) -> int:
    """Start a task.

    Args:
        capability: What to ask for; `switchgear capability ls` lists it.
        input: JSON, @FILE that holds it, or - for the standard input.
        wait: Show progress until the end, then print the result.
        timeout: With --wait: give up waiting after this time, such as 30s; the task goes on.
        key: The same key, input and options give the same task, however often they are submitted.
        priority: Lane of the task.
        deadline: When the task must have ended: 10m from now, or a moment in ISO 8601.
        start: When it may begin: 10m from now, or a moment in ISO 8601.
        label: KEY=VALUE that the agent must have; may be given several times.
        require_agent: Reject the task at once when nobody offers the capability.
        retry: Attempts in all, instead of the capability's policy.
        common: Shared by all commands.
    """
    from switchgear.cli import submitting, values

    wanted = submitting.Wanted(
        capability=capability,
        input=values.task_input(input),
        key=key,
        priority=priority,
        deadline=values.moment(deadline, "deadline") if deadline else None,
        start=values.moment(start, "start") if start else None,
        labels=values.labels(label or ()),
        require_agent=require_agent,
        attempts=retry,
    )
    limit = values.duration(timeout) if timeout else None
    if wait:
        return shared.run(submitting.submit_and_wait(wanted, limit, common))
    return shared.run(submitting.submit(wanted, common))


def ls(  # noqa: PLR0913 - one parameter an option
    *,
    capability: str | None = None,
    state: StateName | None = None,
    open: bool = False,
    run: str | None = None,
    parent: str | None = None,
    fingerprint: str | None = None,
    search: str = "",
    limit: int = 50,
    before: str | None = None,
    common: Common = COMMON,
) -> int:
    """List your tasks, newest first.

    Args:
        capability: Only tasks of this capability.
        state: Only tasks in this state.
        open: Only tasks that have not ended.
        run: Only this run: a root task and all its children.
        parent: Only children of this task.
        fingerprint: Only tasks that failed of this cause: see `switchgear dead ls`.
        search: Part of a task's id, capability or error.
        limit: How many, 1 to 1000.
        before: Only tasks before this one: the last id of the page before.
        common: Shared by all commands.
    """
    from switchgear.cli import looking

    query = looking.Query(
        capability=capability,
        state=state,
        open_only=open,
        root=run,
        parent=parent,
        fingerprint=fingerprint,
        search=search,
        limit=limit,
        before=before,
    )
    return shared.run(looking.task_list(query, common))


def show(id: str, /, *, common: Common = COMMON) -> int:
    """Show one task with every entry of the ledger about it.

    Args:
        id: Of the task.
        common: Shared by all commands.
    """
    from switchgear.cli import looking

    return shared.run(looking.task(id, common))


def watch(id: str, /, *, common: Common = COMMON) -> int:
    """Follow a task until its end.

    Args:
        id: Of the task.
        common: Shared by all commands.
    """
    from switchgear.cli import looking

    return shared.run(looking.watch(id, common))


def result(id: str, /, *, timeout: str | None = None, common: Common = COMMON) -> int:
    """Wait for a task's end and print its result as JSON.

    Args:
        id: Of the task.
        timeout: Give up waiting after this time, such as 30s; the task goes on.
        common: Shared by all commands.
    """
    from switchgear.cli import looking, values

    limit = values.duration(timeout) if timeout else None
    return shared.run(looking.result(id, limit, common))
