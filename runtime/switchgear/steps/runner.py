"""Runs a step and judges its end by the spec: a `RunResult`, or a `StepFailed` that says why.

Above: the context's `run`. Below: one executor. Containers will be chosen here, by what the spec
asks for.
"""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

from switchgear.errors import StepFailed
from switchgear.steps.executors import process
from switchgear.steps.result import RunResult

if TYPE_CHECKING:
    from switchgear.steps.spec import StepSpec

_WHY = 2000
"""Characters of the error output that an error repeats."""


async def run(spec: StepSpec, *, key: str, on_line: process.OnLine | None = None) -> RunResult:
    """Run the step named `key`; whatever ends this call, nothing of the step runs on.

    Raises `StepFailed` with error_class "invalid" (program or directory missing), "timeout" (time
    limit), "resource" (killed by somebody else's SIGKILL, as the kernel does when memory ends) or
    "step" (any other unexpected exit).
    """
    try:
        outcome = await process.execute(spec, on_line=on_line)
    except process.Cannot as cannot:
        raise StepFailed(
            f"step {key} cannot run",
            key=key,
            error_class="invalid",
            why=cannot.what,
            fix=cannot.fix,
        ) from cannot
    if not outcome.timed_out and outcome.exit_code in spec.exit_codes:
        return RunResult(
            exit_code=outcome.exit_code,
            stdout=outcome.stdout,
            stderr=outcome.stderr,
            truncated=outcome.truncated,
            duration=outcome.duration,
        )
    raise _failure(spec, key, outcome)


def _failure(spec: StepSpec, key: str, outcome: process.Outcome) -> StepFailed:
    tail = outcome.stderr.strip()[-_WHY:]
    error_class, fix = "step", ""
    if outcome.timed_out:
        what = f"step {key} ran longer than its limit of {spec.time_limit}"
        error_class, fix = "timeout", "raise .limits(timeout=…), or give it less to do"
    elif outcome.exit_code == -signal.SIGKILL:
        what = f"step {key} was killed by SIGKILL"
        tail = tail or "somebody killed it, most likely the kernel for want of memory"
        error_class, fix = "resource", "give the host more memory, or bound it by .limits(memory=…)"
    elif outcome.exit_code < 0:
        what = f"step {key} was ended by {_signal(-outcome.exit_code)}"
    else:
        what = f"step {key} ended with exit code {outcome.exit_code}"
    return StepFailed(
        what,
        key=key,
        exit_code=outcome.exit_code,
        stdout=outcome.stdout,
        stderr=outcome.stderr,
        error_class=error_class,
        why=tail,
        fix=fix,
    )


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
