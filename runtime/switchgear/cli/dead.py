"""`switchgear dead`: ls, show, redrive."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from switchgear.cli import common as shared
from switchgear.cli.common import COMMON, Common


def ls(
    *,
    capability: str | None = None,
    fingerprint: str | None = None,
    limit: int = 50,
    before: str | None = None,
    common: Common = COMMON,
) -> int:
    """List dead tasks by their causes, or those of one cause.

    Args:
        capability: Only tasks of this capability.
        fingerprint: List the tasks of this cause, newest first.
        limit: With --fingerprint: how many, 1 to 1000.
        before: With --fingerprint: only tasks before this one, the last id of the page before.
        common: Shared by all commands.
    """
    from switchgear.cli import dead_letters, looking

    if fingerprint is None:
        return shared.run(dead_letters.groups(capability, common))
    query = looking.Query(
        capability=capability, state="dead", fingerprint=fingerprint, limit=limit, before=before
    )
    return shared.run(looking.task_list(query, common))


def show(id: str, /, *, common: Common = COMMON) -> int:
    """Show a dead task: why it died, what it was given, who has tried it again and with what.

    Args:
        id: Of the task.
        common: Shared by all commands.
    """
    from switchgear.cli import dead_letters

    return shared.run(dead_letters.show(id, common))


def redrive(
    ids: list[str] | None = None,
    /,
    *,
    input: Annotated[str | None, Parameter(allow_leading_hyphen=True)] = None,
    fingerprint: str | None = None,
    capability: str | None = None,
    limit: int = 100,
    dry_run: bool = False,
    common: Common = COMMON,
) -> int:
    """Try dead tasks again, as new tasks.

    Args:
        ids: Of the tasks.
        input: Instead of the dead task's own: JSON, @FILE that holds it, or - for the standard input.
        fingerprint: Those of this cause.
        capability: Those of this capability.
        limit: With --fingerprint or --capability: how many of the newest at most.
        dry_run: Only say what would be submitted.
        common: Shared by all commands.
    """
    from switchgear.cli import dead_letters, values

    wanted = dead_letters.Wanted(
        ids=tuple(ids or ()),
        input=... if input is None else values.task_input(input),
        fingerprint=fingerprint,
        capability=capability,
        limit=limit,
        dry_run=dry_run,
    )
    return shared.run(dead_letters.redrive(wanted, common))
