"""Runs the undos of a task that fails for good or is cancelled: as steps, last first (rule 14)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from switchgear.agent import saga
from switchgear.agent.step import perform
from switchgear.contract import codec, entries
from switchgear.contract.values import Failure
from switchgear.errors import NotRecordable
from switchgear.lifecycle import retrying
from switchgear.resilience.classify import undo_failed
from switchgear.steps.guard import UNGUARDED

if TYPE_CHECKING:
    from datetime import datetime, timedelta

    from switchgear.agent.attempt import Attempt
    from switchgear.agent.recording import Recording
    from switchgear.agent.run import Instrument
    from switchgear.agent.saga import Undos

log = logging.getLogger(__name__)

BEGUN = "undo"
"""Key of the checkpoint that says that the undos of a final failure have begun."""


def is_final(attempt: Attempt, failure: Failure, now: datetime, margin: timedelta) -> bool:
    """Whether no attempt follows this failure, whatever the coordinator's clock says.

    One that may only come too late is left to the coordinator, which dispatches the undos then: recorded steps
    that were undone must never be taken for done.
    """
    policy, failures = attempt.dispatched.retry, attempt.failures + 1
    if retrying.why_final(failure, policy, failures):
        return True
    pause = retrying.pause(failure, policy, attempt.subject.task, failures)
    return bool(retrying.too_late(now + pause - margin, attempt.dispatched.deadline))


async def begin(recording: Recording, failure: Failure) -> None:
    """Record that the task has failed for good: from here on its handler is not run again."""
    await recording.mark(BEGUN, "undo-begun", error=failure)


async def run_undos(
    attempt: Attempt,
    recording: Recording,
    undos: Undos,
    context: Any,
    within: float | None,
    instrument: Instrument,
) -> str:
    """Run what is open, last first, each recorded; a failed one does not keep the others from being run.

    `within`: seconds for all of them together; None for no limit, unless a cancel sets one. Returns what was left
    undone, for people; empty for nothing. Raises CancelledError where the task was lost to another.
    """
    notes: list[str] = []
    unguarded = UNGUARDED.set(True)  # to refuse an undo would leave what it is to undo
    try:
        async with asyncio.timeout(within) as attempt.undo_time:
            await undos.settle()
            for key in reversed(list(undos.open)):
                error = await _undo(
                    key, undos.open[key], context, partial(instrument, attempt.subject.task, key)
                )
                failure = None if error is None else undo_failed(key, error)
                await recording.mark(key, "undo-done", error=failure)
                del undos.open[key]
                if failure is not None:
                    log.warning("undo.failed %s %s", attempt.subject.task, failure.message)
                    notes.append(failure.message)
    except TimeoutError:
        log.warning("undo.out-of-time %s", attempt.subject.task)
    finally:
        attempt.undo_time = None
        UNGUARDED.reset(unguarded)
    if undos.open:
        notes.append(f"undos not run: {', '.join(undos.open)}")
    return "; ".join(notes)


async def _undo(
    key: str,
    recorded: entries.Checkpoint | saga.Call,
    context: Any,
    instrument: Callable[[Callable[..., Any]], Callable[..., Any]],
) -> BaseException | None:
    """Run one; returns what it failed with."""
    try:
        call = recorded if isinstance(recorded, saga.Call) else _call(recorded)
        fn, args = saga.loaded(call, context)
        await perform(key, instrument(fn), args, {}, seed=key)
    except (Exception, SystemExit) as error:  # noqa: BLE001  # one undo's trouble is not the next one's
        return error
    return None


def _call(recorded: entries.Checkpoint) -> saga.Call:
    try:
        return codec.decoder(saga.Call).decode(recorded.result)
    except Exception as error:
        raise NotRecordable(f"undo {recorded.key} cannot be read: {error}") from error
