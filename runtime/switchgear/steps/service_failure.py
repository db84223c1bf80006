"""What it means for a step that a service of it does not serve: the same on every executor. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from switchgear.errors import ServiceFailed
from switchgear.resilience.process_failures import process_end

if TYPE_CHECKING:
    from switchgear.steps.spec import Service

_WHY = 2000
"""Characters of the error output that an error repeats."""
_LINE = 200
"""Characters of its last line that a note repeats."""
_MUTE = "it wrote nothing"
_UNHEARD = "its executor does not tell what it wrote"


def silent(key: str, service: Service, port: int | None, words: str | None) -> ServiceFailed:
    """It did not listen in time: the step did not begin. `port`: None where none is named.

    `words`: what it wrote last; None: nobody knows.
    """
    missed = "become healthy" if port is None else f"listen on port {port}"
    return ServiceFailed(
        f"step {key} did not begin: its service {service.name} did not {missed} within {service.start_seconds:g} s",
        key=key,
        stderr=words or "",
        error_class="timeout",
        why=_why(words),
        fix="look whether it listens there, and for others than itself; or raise .service(start=…)",
    )


def ended(
    key: str, name: str, code: int | None, words: str | None, *, began: bool
) -> ServiceFailed:
    """It ended: before the step began, or while it ran, and the step with it. `code`: None where nobody tells."""
    how = "ended" if code is None else process_end(code)
    when = "while the step ran" if began else "before the step began"
    return ServiceFailed(
        f"{_step(key, began=began)}: its service {name} {how} {when}",
        key=key,
        exit_code=code,
        stderr=words or "",
        error_class="step",
        # What was ended halfway may have done something.
        outcome_known=not began,
        why=_why(words),
    )


def died(name: str, code: int, words: str) -> str:
    """A word about it for a step that failed by itself meanwhile."""
    last = words.strip().rpartition("\n")[2][-_LINE:]
    return f"the service {name} {process_end(code)} while the step ran: {last or _MUTE}"


def unstartable(key: str, name: str, why: str, *, began: bool = False) -> ServiceFailed:
    """Its program could not be started: one that nobody waits for tells it while the step runs."""
    return ServiceFailed(
        f"{_step(key, began=began)}: its service {name} cannot be started",
        key=key,
        error_class="invalid",
        outcome_known=not began,
        why=why,
        fix="check its program, its mounts and its working directory",
    )


def _step(key: str, *, began: bool) -> str:
    return f"step {key} was ended" if began else f"step {key} did not begin"


def _why(words: str | None) -> str:
    return _UNHEARD if words is None else words.strip()[-_WHY:] or _MUTE
