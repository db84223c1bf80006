"""`switchgear explain`."""

from __future__ import annotations

from switchgear.cli import common as shared
from switchgear.cli.common import COMMON, Common


def explain(id: str, /, *, common: Common = COMMON) -> int:
    """Say why a task is where it is.

    Args:
        id: Of the task.
        common: Shared by all commands.
    """
    from switchgear.cli import looking

    return shared.run(looking.explain(id, common))
