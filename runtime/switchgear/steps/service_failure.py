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


def silent(key: str, service: Service, port: int, stderr: str) -> ServiceFailed:
    """It did not listen in time: the step did not begin."""
    return ServiceFailed(
        f"step {key} did not begin: its service {service.name} did not listen on port {port} "
        f"within {service.start_seconds:g} s",
        key=key,
        stderr=stderr,
        error_class="timeout",
        why=stderr.strip()[-_WHY:] or _MUTE,
        fix=f"look whether it listens on port {port}, or raise .service(start=…)",
    )


def ended(key: str, name: str, code: int | None, stderr: str, *, began: bool) -> ServiceFailed:
    """It ended: before the step began, or while it ran, and the step with it. `code`: None where nobody tells."""
    how = "ended" if code is None else process_end(code)
    when = "while the step ran" if began else "before the step began"
    return ServiceFailed(
        f"step {key} {'was ended' if began else 'did not begin'}: its service {name} {how} {when}",
        key=key,
        exit_code=code,
        stderr=stderr,
        error_class="step",
        # What was ended halfway may have done something.
        outcome_known=not began,
        why=stderr.strip()[-_WHY:] or _MUTE,
    )


def died(name: str, code: int, stderr: str) -> str:
    """A word about it for a step that failed by itself meanwhile."""
    last = stderr.strip().rpartition("\n")[2][-_LINE:]
    return f"the service {name} {process_end(code)} while the step ran: {last or _MUTE}"


def unstartable(key: str, service: Service, why: str) -> ServiceFailed:
    """Its program could not be started."""
    return ServiceFailed(
        f"step {key} did not begin: its service {service.name} cannot be started",
        key=key,
        error_class="invalid",
        why=why,
        fix="check its program, its mounts and its working directory",
    )
