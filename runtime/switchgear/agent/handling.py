"""Runs a handler for one attempt and settles what came of it: result, failure, cancel, hand-back."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from datetime import timedelta
from typing import Any

import msgspec

from switchgear.agent.attempt import Attempt, CancelledMeanwhile, Lost
from switchgear.agent.calls import Calls
from switchgear.agent.context import Context, Surroundings
from switchgear.agent.declare import Declared
from switchgear.agent.reports import Reports
from switchgear.agent.task_info import TaskInfo
from switchgear.contract import codec
from switchgear.contract.values import Failure
from switchgear.errors import InvalidInput, SwitchgearError, UsageError
from switchgear.resilience.classify import classify, timed_out, unfit_output
from switchgear.tasks import payload
from switchgear.tasks.watch import Watch

log = logging.getLogger(__name__)


class Handling:
    """What attempts of one worker share."""

    def __init__(
        self, watch: Watch, run: Any, resources: dict[Any, Any], report_every: timedelta
    ) -> None:
        self._watch = watch
        self._run = run
        self._resources = resources
        self._report_every = report_every

    async def handle(self, attempt: Attempt, declared: Declared[Any, Any]) -> None:
        """Run the handler and append what came of it. Raises Lost; CancelledError only when told to stop."""
        try:
            try:
                output = await self._output(attempt, declared)
            except asyncio.CancelledError:
                if attempt.lost or attempt.cancel_reason is None:
                    raise
                output = b""
            attempt.settling = True
            if attempt.cancel_reason is not None:
                # also where the handler swallowed the cancel: any other end would be void by now
                await attempt.cancelled(attempt.cancel_reason)
            elif not isinstance(output, Failure):
                await self._complete(attempt, declared, output)
            elif attempt.handing_back:
                raise asyncio.CancelledError  # what a handler raises while it is stopped is no failure
            else:
                await attempt.failed(output)
        except CancelledMeanwhile as meanwhile:
            await attempt.cancelled(str(meanwhile))

    async def _complete(
        self, attempt: Attempt, declared: Declared[Any, Any], output: bytes
    ) -> None:
        """Append the result; one that cannot be stored is a failure of the handler, not of the agent."""
        try:
            await attempt.completed(output)
        except UsageError as error:
            await attempt.failed(unfit_output(declared.name, error))

    async def _output(self, attempt: Attempt, declared: Declared[Any, Any]) -> bytes | Failure:
        """The handler's output as JSON, or why there is none."""
        limit = None if declared.timeout is None else declared.timeout.total_seconds()
        reports = Reports(attempt, self._report_every)
        scope = asyncio.timeout(limit)
        try:
            value = await self._input(attempt, declared)
            async with scope:
                result = await declared.handler(value, self._context(attempt, declared, reports))
            return self._encoded(declared, result)
        except asyncio.CancelledError:
            if asyncio.current_task().cancelling():  # type: ignore[union-attr]  # runs in a task
                raise
            return classify(RuntimeError("the handler cancelled itself"))
        except TimeoutError as error:
            return timed_out(limit or 0) if scope.expired() else classify(error)
        except (
            Exception,
            SystemExit,
        ) as error:  # an argument parser in a step must not end the agent
            if not isinstance(error, SwitchgearError):
                log.warning("handler.raised %s", attempt.subject.task, exc_info=True)
            return classify(error)
        finally:
            reports.flush()

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

    def _context(self, attempt: Attempt, declared: Declared[Any, Any], reports: Reports) -> Context:
        dispatched, subject = attempt.dispatched, attempt.subject
        task = TaskInfo(
            id=subject.task,
            root=dispatched.root or subject.task,
            parent=dispatched.parent.task if dispatched.parent else None,
            capability=subject.capability,
            owner=subject.owner,
            submitted_at=dispatched.status.submitted_at,
            deadline=dispatched.deadline,
            scheduled_for=dispatched.scheduled_for,
        )
        calls = None
        if declared.calls:
            calls = Calls(
                attempt.bus,
                attempt.clock,
                self._watch,
                depth=dispatched.depth,
                failures=attempt.failures,
                trace=dispatched.trace,
                keep=lambda: attempt.handing_back or attempt.lost,
            )
        return Context(
            Surroundings(
                task=task,
                attempt=dispatched.attempt,
                fence=attempt.hold,
                calls=calls,
                declared=declared.calls,
                run=self._run,
                report=reports.report,
                resources=self._resources,
                moved=attempt.move,
            )
        )


async def left(running: asyncio.Task[Any], within: timedelta) -> bool:
    """Cancel a task and wait until it has left, at most so long. Returns whether it has."""
    running.cancel()
    done, _ = await asyncio.wait({running}, timeout=within.total_seconds())
    with contextlib.suppress(asyncio.CancelledError, Lost, SwitchgearError):
        for task in done:
            task.result()
    return bool(done)
