"""How a task ended: its output, or the error that its caller meets."""

from __future__ import annotations

from typing import Any

import msgspec

from switchgear.bus.port import Bus
from switchgear.contract import codec, entries
from switchgear.contract.capability import type_name
from switchgear.contract.codes import OVERLOADS
from switchgear.contract.values import Failure
from switchgear.errors import (
    Overloaded,
    ProtocolError,
    TaskCancelled,
    TaskDead,
    TaskExpired,
    TaskFailed,
    TaskRejected,
)
from switchgear.lifecycle.history import History
from switchgear.tasks import payload


async def output(bus: Bus, history: History) -> bytes:
    """The JSON of an ended task's output. Raises TaskFailed and its kinds, or Overloaded, when there is none."""
    end = history.end
    if isinstance(end, entries.Completed):
        return await payload.load(bus.blobs, end.output, end.output_blob)
    raise failure(history)


async def result(bus: Bus, history: History, kind: Any) -> Any:
    """An ended task's output as a value of this type; `object` stands for any.

    Raises TaskFailed and its kinds, or Overloaded, when there is none, and ProtocolError SG1102 for an output of
    another type.
    """
    return decoded(await output(bus, history), kind, history.capability)


def decoded(data: bytes, kind: Any, capability: str) -> Any:
    """The JSON of an output as a value of this type. Raises ProtocolError SG1102."""
    try:
        return codec.decoder(Any if kind is object else kind).decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ProtocolError(
            f"the output of {capability} does not fit {type_name(kind)}: {error}",
            code="SG1102",
            fix="compare the caller's type with `switchgear capability show`",
        ) from error


def failure(history: History) -> TaskFailed | Overloaded:
    """The error for a task that ended without a result; Overloaded where the same may be accepted later."""
    end = history.end
    task, name = history.task, f"{history.capability} task {history.task}"
    if isinstance(end, entries.Rejected) and end.code in OVERLOADS:
        return Overloaded(
            f"{name} was not accepted: {end.code} {end.reason}",
            fix=end.fix,
            retry_after=end.retry_after,
        )
    if isinstance(end, entries.Rejected):
        return TaskRejected(
            f"{name} was rejected: {end.code} {end.reason}",
            task_id=task,
            state="rejected",
            error_class="invalid",
            cause_code=end.code,
            fix=end.fix,
        )
    if isinstance(end, entries.Dead):
        return _dead(name, task, end.error, end.reason)
    if isinstance(end, entries.Expired):
        return TaskExpired(
            f"{name} did not end before its deadline",
            task_id=task,
            state="expired",
            error_class="timeout",
        )
    reason = end.reason if isinstance(end, entries.Cancelled) else ""
    return TaskCancelled(
        f"{name} was cancelled" + (f": {reason}" if reason else ""),
        task_id=task,
        state="cancelled",
        error_class="cancelled",
    )


def _dead(name: str, task: str, error: Failure, reason: str) -> TaskDead:
    return TaskDead(
        f"{name} failed: {error.code} {error.message}",
        task_id=task,
        state="dead",
        error_class=error.error_class,
        step=error.step,
        cause_code=error.code,
        why="; ".join(part for part in (error.why, reason) if part),
        fix=error.fix,
    )
