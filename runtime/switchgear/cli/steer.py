"""`switchgear task`: cancel, signal, retry, approve, deny, questions."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from switchgear.cli import common as shared
from switchgear.cli.common import COMMON, Common


def cancel(id: str, /, *, reason: str = "", common: Common = COMMON) -> int:
    """Ask for a task's end.

    Args:
        id: Of the task.
        reason: What those read who look at it later.
        common: Shared by all commands.
    """
    from switchgear.cli import steering

    return shared.run(steering.cancel(id, reason, common))


def signal(
    id: str,
    name: str,
    value: Annotated[str, Parameter(allow_leading_hyphen=True)] = "null",
    /,
    *,
    common: Common = COMMON,
) -> int:
    """Send a task a signal.

    Args:
        id: Of the task, also of another owner where a coordinator permits it.
        name: Of the signal.
        value: JSON, @FILE that holds it, or - for the standard input.
        common: Shared by all commands.
    """
    from switchgear.cli import steering, values

    return shared.run(steering.signal(id, name, values.task_input(value), common))


def retry(id: str, /, *, common: Common = COMMON) -> int:
    """Let a task that waits for its next attempt, or for its start, begin now.

    Args:
        id: Of the task.
        common: Shared by all commands.
    """
    from switchgear.cli import steering

    return shared.run(steering.retry(id, common))


def approve(
    id: str, /, *, note: str = "", signal: str | None = None, common: Common = COMMON
) -> int:
    """Answer the question that a task waits with: yes.

    Args:
        id: Of the task.
        note: What the answer says beside yes.
        signal: Name of the signal, where the task waits for several, or for none yet.
        common: Shared by all commands.
    """
    from switchgear.cli import steering

    return shared.run(steering.answer(id, signal, common, approved=True, note=note))


def deny(id: str, /, *, note: str = "", signal: str | None = None, common: Common = COMMON) -> int:
    """Answer the question that a task waits with: no.

    Args:
        id: Of the task.
        note: Why not.
        signal: Name of the signal, where the task waits for several, or for none yet.
        common: Shared by all commands.
    """
    from switchgear.cli import steering

    return shared.run(steering.answer(id, signal, common, approved=False, note=note))


def questions(*, capability: str | None = None, common: Common = COMMON) -> int:
    """List your tasks that wait for an answer.

    Args:
        capability: Only tasks of this capability.
        common: Shared by all commands.
    """
    from switchgear.cli import steering

    return shared.run(steering.questions(capability, common))
