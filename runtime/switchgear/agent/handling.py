"""Runs a handler for one attempt and settles what came of it: result, failure, cancel, wait, hand-back."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import Any

import msgspec

from switchgear.agent import ending, undoing
from switchgear.agent.attempt import Attempt, CancelledMeanwhile, Lost, Suspended
from switchgear.agent.context import Context
from switchgear.agent.declare import Declared
from switchgear.agent.reports import REPORTS
from switchgear.agent.run import Run, Services
from switchgear.contract import codec, limits
from switchgear.contract.values import Failure
from switchgear.errors import BreakerOpen, InvalidInput, SwitchgearError, UsageError
from switchgear.resilience.classify import classify, stalled, timed_out, unfit_output
from switchgear.tasks import payload

log = logging.getLogger(__name__)


class Handling:
    """What attempts of one worker share."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def handle(self, attempt: Attempt, declared: Declared[Any, Any]) -> None:
        """Run the handler, or the undos that are due instead, and append what came of it.

        Returns when the delivery may be acked. Raises Lost; CancelledError only when told to stop; BreakerOpen where
        the handler was left by it, to be handed back.
        """
        run = Run(attempt, self._services, declared=declared.calls, timeout=declared.timeout)
        REPORTS.set(run.reports)
        try:
            await self._handle(run, declared)
        except Suspended:
            return
        except CancelledMeanwhile:
            await self._cancelled(run)
        finally:
            run.close()

    async def _handle(self, run: Run, declared: Declared[Any, Any]) -> None:
        attempt, history = run.attempt, run.attempt.history
        if history is not None:
            await run.read()
            if attempt.dispatched.undoing or history.undoing is not None:
                attempt.settling = True  # no handler runs that could stall
                await self._undo_failed(run, history.undoing)
                return
        if attempt.cancel_reason is not None:
            await self._cancelled(run)
            return
        try:
            output = await self._output(run, declared)
        except asyncio.CancelledError:
            if await run.waits.decided():
                return
            if attempt.lost or (attempt.cancel_reason is None and not attempt.stalled):
                raise
            stall = declared.stall_timeout
            output = stalled(stall.total_seconds() if stall else 0)
        finally:
            run.reports.flush()
        if not attempt.suspended:
            attempt.settling = True
            _cancel_is_over()
            await self._settle(run, declared, output)

    async def _settle(
        self, run: Run, declared: Declared[Any, Any], output: bytes | Failure | BreakerOpen
    ) -> None:
        """Append what came of a handler that has left."""
        attempt = run.attempt
        if attempt.lost:
            raise Lost("it was lost while the handler ran")
        if attempt.cancel_reason is not None:
            # also where the handler swallowed the cancel: any other end would be void by now
            await self._cancelled(run)
        elif isinstance(output, bytes):
            await self._complete(run, declared, output)
        elif attempt.handing_back:
            raise asyncio.CancelledError  # what a handler raises while it is stopped is no failure
        elif isinstance(output, BreakerOpen):
            raise output
        else:
            await self._fail(run, output)

    # ends

    async def _complete(self, run: Run, declared: Declared[Any, Any], output: bytes) -> None:
        """Append the result; one that cannot be stored is a failure of the handler, not of the agent."""
        try:
            stored = await payload.store(run.attempt.bus.blobs, output)
        except UsageError as error:
            await self._fail(run, unfit_output(declared.name, error))
            return
        await run.attempt.completed(stored)
        await ending.ended(run.attempt, run.open_children)

    async def _fail(self, run: Run, failure: Failure) -> None:
        """Append the failure; after the undos, where it is the task's last."""
        attempt, now = run.attempt, run.attempt.clock.now()
        margin = 2 * limits.CLOCK_TOLERANCE
        await run.undos.settle()
        if run.undos.open and undoing.is_final(attempt, failure, now, margin):
            await undoing.begin(run.recording, failure)
            await self._undo_failed(run, failure)
        else:
            await attempt.failed(failure)

    async def _undo_failed(self, run: Run, failure: Failure | None) -> None:
        """Run the undos of a final failure, then append it, with what they left undone."""
        attempt = run.attempt
        if failure is None:
            newest = attempt.history.failure if attempt.history is not None else None
            failure = newest.error if newest is not None else classify(RuntimeError("unknown"))
        within = None if attempt.cancel_reason is None else self._time_left(attempt)
        note = await self._undone(run, within)
        if attempt.cancel_reason is not None:
            await self._end_cancelled(run, note)
            return
        why = "; ".join(filter(None, (failure.why, note)))[: limits.MAX_TEXT]
        await attempt.failed(msgspec.structs.replace(failure, why=why))

    async def _cancelled(self, run: Run) -> None:
        """End the task as cancelled, after its undos, within its time to clean up."""
        run.attempt.settling = True
        note = await self._undone(run, self._time_left(run.attempt))
        await self._end_cancelled(run, note)

    async def _end_cancelled(self, run: Run, note: str) -> None:
        attempt = run.attempt
        await attempt.cancelled(attempt.cancel_reason or "", note)
        await ending.ended(attempt, run.open_children)

    async def _undone(self, run: Run, within: float | None) -> str:
        """Run the undos that are open; returns what they left undone, for people."""
        if not run.undos.open:
            return ""
        run.waits.enabled = False
        return await undoing.run_undos(
            run.attempt, run.recording, run.undos, Context(run), within, run.services.instrument
        )

    @staticmethod
    def _time_left(attempt: Attempt) -> float:
        """Seconds until a coordinator ends a cancelled task that its holder has not ended."""
        now = asyncio.get_running_loop().time()
        since = now if attempt.cancelled_at is None else attempt.cancelled_at
        return max(since + attempt.dispatched.cleanup.total_seconds() - now, 0)

    # the handler

    async def _output(
        self, run: Run, declared: Declared[Any, Any]
    ) -> bytes | Failure | BreakerOpen:
        """The handler's output as JSON, or why there is none."""
        try:
            value = await self._input(run.attempt, declared)
            result = await run.limit.within(declared.handler(value, Context(run)))
            return self._encoded(declared, result)
        except asyncio.CancelledError:
            if asyncio.current_task().cancelling():  # type: ignore[union-attr]  # runs in a task
                raise
            attempt = run.attempt
            if attempt.suspended or attempt.lost or attempt.cancel_reason is not None:
                raise
            return classify(RuntimeError("the handler cancelled itself"))
        except TimeoutError as error:
            return (
                timed_out(run.limit.seconds) if run.limit.expired else self._services.judge(error)
            )
        except (
            Exception,
            SystemExit,
        ) as error:  # an argument parser in a step must not end the agent
            refused = _refusal(error)
            if refused is not None:
                return refused
            if not isinstance(error, SwitchgearError):
                log.warning("handler.raised %s", run.attempt.subject.task, exc_info=True)
            return self._services.judge(error)

    async def _input(self, attempt: Attempt, declared: Declared[Any, Any]) -> Any:
        dispatched = attempt.dispatched
        if dispatched.input_blob is None:
            data = dispatched.input
        else:
            data = await payload.load(attempt.bus.blobs, dispatched.input, dispatched.input_blob)
        try:
            return codec.decoder(declared.input).decode(data)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            text, _, path = str(error).partition(" - at ")
            raise InvalidInput(
                f"the input of {declared.name} does not fit: {text}", path=path.strip("`") or "$"
            ) from error

    def _encoded(self, declared: Declared[Any, Any], result: Any) -> bytes | Failure:
        """The result as JSON, read back once, so that no caller meets what the type does not say."""
        try:
            data = codec.encode(result)
            codec.decoder(declared.output).decode(data)
        except (TypeError, ValueError, RecursionError, msgspec.MsgspecError) as error:
            return unfit_output(declared.name, error)
        return data


def _cancel_is_over() -> None:
    """The handler has left: undos are not cancelled, though their task was; time limits in them need to know."""
    running = asyncio.current_task()
    while running is not None and running.cancelling():
        running.uncancel()


def _refusal(error: BaseException) -> BreakerOpen | None:
    """The breaker that refused a handler to go on, also where several refused its parts; None for another failure."""
    if isinstance(error, BreakerOpen):
        return error
    if not isinstance(error, BaseExceptionGroup):
        return None
    members: tuple[BaseException, ...] = error.exceptions  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
    refusals = [_refusal(one) for one in members]
    return refusals[0] if all(refusals) else None


async def left(running: asyncio.Task[Any], within: float) -> bool:
    """Cancel a task and wait until it has left, at most so many seconds. Returns whether it has."""
    running.cancel()
    done, _ = await asyncio.wait({running}, timeout=within)
    with contextlib.suppress(asyncio.CancelledError, Lost, SwitchgearError):
        for task in done:
            task.result()
    return bool(done)
