"""Children: tasks that a handler starts and waits for, on behalf of the run's owner."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from switchgear import ids
from switchgear.agent.task_info import TaskInfo
from switchgear.bus.port import Appended, Bus
from switchgear.clock import Clock
from switchgear.contract import codec, entries, subjects
from switchgear.contract.capability import Capability
from switchgear.contract.values import Parent, Status
from switchgear.errors import SwitchgearError, WaitTimeout
from switchgear.lifecycle.history import fold
from switchgear.tasks import outcome, payload, submission
from switchgear.tasks.watch import Watch


class Calls:
    """Starts children of one attempt and follows them; `depth` is the attempt's own."""

    def __init__(
        self,
        bus: Bus,
        clock: Clock,
        watch: Watch,
        *,
        depth: int,
        failures: int,
        trace: str | None,
        keep: Callable[[], bool],
    ) -> None:
        """`keep`: whether children outlive a call that is left, since the next holder will wait for them."""
        self._bus = bus
        self._clock = clock
        self._watch = watch
        self._depth = depth
        self._failures = failures
        self._trace = trace
        self._keep = keep

    async def call(
        self,
        parent: TaskInfo,
        wanted: Capability[Any, Any],
        value: Any,
        key: str,
        timeout: timedelta | None,
    ) -> Any:
        """The child's result. Raises TaskFailed, WaitTimeout; left early, the child is cancelled."""
        opened = await self._opening(parent, wanted, value, key)
        live = subjects.live_task(opened.scope)
        await self._watch.open(live)
        followed = self._watch.follow(opened.scope, fresh=True)
        finished = False
        try:
            answer = await self._bus.ledger.append(
                opened.subject, opened.body, scope=opened.scope, expect=0
            )
            if isinstance(answer, Appended):
                self._watch.begun(followed, opened.acknowledged(answer.sequence))
            else:
                await submission.confirm(self._bus, opened, answer)
                self._watch.read(followed)
            async with asyncio.timeout(None if timeout is None else timeout.total_seconds()):
                history = await asyncio.shield(followed.ended)
            finished = True
        except TimeoutError:
            raise WaitTimeout(
                f"{wanted.name} task {opened.entry.task} did not end within {timeout}",
                fix="give the call a longer `timeout=`",
            ) from None
        finally:
            await self._watch.shut(live)
            if not finished:
                self._watch.forget(opened.scope)
                if not self._keep():
                    await asyncio.shield(self._cancel(opened.scope))
        return await outcome.result(self._bus, history, wanted.output)

    async def _opening(
        self, parent: TaskInfo, wanted: Capability[Any, Any], value: Any, key: str
    ) -> submission.Opening:
        # a re-run of the attempt finds its child again; a retry after a failure starts a new one (rule 12)
        child = ids.derived_id("child", parent.id, key, str(self._failures))
        data = payload.encode_value(value, f"the input of {wanted.name}")
        return submission.opening(
            wanted.name,
            parent.owner,
            child,
            await payload.store(self._bus.blobs, data),
            entry_id=ids.entry_id(),
            writer=self._bus.name,
            now=self._clock.now(),
            options=submission.Options(version=wanted.version, deadline=parent.deadline),
            lineage=submission.Lineage(
                root=parent.root,
                parent=Parent(task=parent.id, capability=parent.capability, key=key),
                depth=self._depth + 1,
                trace=self._trace,
            ),
        )

    async def _cancel(self, scope: str) -> None:
        """Ask for the child's end, as long as it is open."""
        for _ in range(10):
            try:
                history = fold(scope, await self._bus.ledger.history(scope))
                if not history.is_open or history.cancelling is not None:
                    return
                stored = history.submitted_stored
                entry = entries.CancelRequested(
                    v=entries.VERSION,
                    id=ids.entry_id(),
                    task=history.task,
                    time=self._clock.now(),
                    writer=self._bus.name,
                    status=Status(
                        state="cancelling",
                        submitted_at=stored.time if stored else self._clock.now(),
                        attempt=history.attempt,
                        failures=history.failures,
                    ),
                    prev=history.last_valid,
                    reason="its caller left",
                )
                answer = await self._bus.ledger.append(
                    subjects.task_event(scope, "cancel-requested"),
                    codec.encode(entry),
                    scope=scope,
                    expect=history.last,
                )
            except SwitchgearError:
                return  # without a broker nobody can be told; the child ends by itself
            if isinstance(answer, Appended):
                return
