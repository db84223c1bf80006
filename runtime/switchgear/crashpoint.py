"""Named points of the code at which a fault test lets its process die, exactly there."""

import os
import signal
from collections.abc import Callable

VARIABLE = "SWITCHGEAR_CRASH_AT"
"""The environment variable that arms one point: its name, or `name:nth` for its nth passing."""

hook: Callable[[str], None] | None = None
"""What is called with the name of each point passed; tests set it, nobody else does."""


def reach(name: str) -> None:
    """Pass the point called `name`: kills this process with SIGKILL if the environment says so, else does nothing."""
    if hook is not None:
        hook(name)


def _armed(wanted: str | None) -> Callable[[str], None] | None:
    """The hook that kills at the point `wanted` names; None for none."""
    if not wanted:
        return None
    name, _, nth = wanted.partition(":")
    left = int(nth or 1)

    def kill(reached: str) -> None:
        nonlocal left
        if reached == name:
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    return kill


hook = _armed(os.environ.get(VARIABLE))
