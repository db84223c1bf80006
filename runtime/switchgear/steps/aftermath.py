"""What fails once the work of a step is done, such as to keep what it left: no reason to do it again.

Above: the runner, and the agent that stores results.
"""

from __future__ import annotations

from switchgear.errors import StepFailed
from switchgear.resilience.classify import verdict


def lost(key: str, error: Exception, *, idempotent: bool = False) -> StepFailed:
    """The error of a step that ran before this was raised: it took effect, and nobody can read what came of it."""
    known = verdict(error)
    return StepFailed(
        f"step {key} ran, and then something else failed",
        key=key,
        error_class=known.error_class,
        outcome_known=False,
        dependency=known.dependency,
        idempotent=idempotent,
        retry_after=known.retry_after,
        why=f"{type(error).__name__}: {error}",
        fix=getattr(error, "fix", "") or known.fix,
    )
