"""What one run of a handler records, and what it finds recorded by the runs before (rule 12)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Any, Literal, NamedTuple, NoReturn

import msgspec

from switchgear.agent.attempt import Attempt, CancelledMeanwhile, Common, Lost, Suspended
from switchgear.agent.classifying import Judge
from switchgear.contract import codec, entries
from switchgear.contract.capability import type_name
from switchgear.contract.rollout import Decision
from switchgear.contract.values import Awaited, Failure
from switchgear.errors import (
    DuplicateKey,
    NotRecordable,
    StepChanged,
    SwitchgearError,
    Unavailable,
)
from switchgear.lifecycle import recording
from switchgear.lifecycle.history import History
from switchgear.resilience import replay
from switchgear.resilience.classify import classify
from switchgear.tasks import payload
from switchgear.tasks.payload import NULL, Payload

Kind = Literal["step", "run", "call", "submit", "map", "sleep", "signal", "publish", "save"]


class Ran(NamedTuple):
    """How a step or command was run, as its checkpoint says."""

    executor: str = ""
    isolation: str = ""
    retries: int = 0
    decision: Decision | None = None


UNTOLD = Ran()
NOTHING = Payload(NULL)
"""The result of what has none."""


class Recording:
    """By key, the recorded ends of one task, as one run of its handler sees and extends them."""

    def __init__(self, attempt: Attempt, judge: Judge = classify) -> None:
        """`judge` says what the failures that are recorded mean."""
        self._attempt = attempt
        self._judge = judge
        self._taken: set[str] = set()
        self.records = recording.NOTHING

    async def read(self) -> None:
        """Take in what earlier runs recorded. Raises NotFound, ProtocolError SG1109 for a blob that is damaged."""
        history = self._attempt.history
        if history is not None:
            begun = await self._begun(history)
            self.records = recording.records(history, begun)

    async def _begun(self, history: History) -> tuple[Awaited, ...]:
        """The waits of the newest suspension, where they are kept as a blob."""
        waiting = recording.suspension(history)
        if waiting is None or waiting.waits_blob is None:
            return ()
        data = await self._attempt.bus.blobs.get(waiting.waits_blob.digest)
        return codec.decoder(tuple[Awaited, ...]).decode(data)

    def take(self, key: str) -> None:
        """Use a key, once in each run. Raises DuplicateKey."""
        if key in self._taken:
            raise DuplicateKey(f"key {key!r} is used twice in task {self._attempt.subject.task}")
        self._taken.add(key)

    def find(self, key: str, kind: Kind, digest: str | None) -> entries.Checkpoint | None:
        """What is recorded under the key. Raises StepChanged where that was other work."""
        found = self.records.ends.get(key)
        if found is None:
            return None
        task = self._attempt.subject.task
        if found.kind != kind:
            raise StepChanged(f"key {key!r} of task {task} was a {found.kind}, and is a {kind} now")
        if digest is not None and found.input_digest not in (None, digest):
            raise StepChanged(f"key {key!r} of task {task} was recorded with other arguments")
        return found

    async def value(self, found: entries.Checkpoint, kind: Any) -> Any:
        """The recorded result as this type. Raises the recorded error; NotRecordable for another type."""
        blobs = self._attempt.bus.blobs
        data = await payload.load(blobs, found.result, found.result_blob)
        if not found.ok:
            raise replay.error_of(found.error or classify(NotRecordable("nothing")), data)
        try:
            return codec.decoder(Any if kind is object else kind).decode(data)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise NotRecordable(
                f"the result recorded as {found.key!r} does not fit {type_name(kind)}: {error}",
                why="the type has changed since it was recorded",
                fix="keep the old type readable, or give the changed work a new key",
            ) from error

    async def done(
        self,
        key: str,
        kind: Kind,
        digest: str | None,
        result: Payload = NOTHING,
        *,
        duration: timedelta | None = None,
        ran: Ran = UNTOLD,
        signal: int = 0,
    ) -> None:
        """Record a result. Raises CancelledError where the task is no longer this run's to record for."""
        await self.append(
            lambda common: entries.Checkpoint(
                v=entries.VERSION,
                **common,
                key=key,
                kind=kind,
                ok=True,
                result=result.inline,
                result_blob=result.blob,
                input_digest=digest,
                duration=duration,
                signal=signal,
                **ran._asdict(),
            )
        )

    async def failed(
        self,
        key: str,
        kind: Kind,
        digest: str | None,
        error: SwitchgearError,
        *,
        duration: timedelta | None = None,
        ran: Ran = UNTOLD,
        signal: int = 0,
        still: Callable[[History], bool] | None = None,
    ) -> bool:
        """Record a failure, which later runs raise again until the next retry. `still` as for `Attempt.append`."""
        failure = self._judge(error, step=key)
        try:
            carried = await payload.store(self._attempt.bus.blobs, replay.details(error))
        except Unavailable:
            carried = NOTHING  # what failed says more than why its words cannot be kept
        return await self.append(
            lambda common: entries.Checkpoint(
                v=entries.VERSION,
                **common,
                key=key,
                kind=kind,
                ok=False,
                result=carried.inline,
                result_blob=carried.blob,
                error=failure,
                input_digest=digest,
                duration=duration,
                signal=signal,
                **ran._asdict(),
            ),
            still=still,
        )

    async def mark(
        self,
        key: str,
        kind: Literal["undo-registered", "undo-dropped", "undo-begun", "undo-done"],
        result: Payload = NOTHING,
        error: Failure | None = None,
    ) -> None:
        """Record what becomes of an undo."""
        await self.append(
            lambda common: entries.Checkpoint(
                v=entries.VERSION,
                **common,
                key=key,
                kind=kind,
                ok=error is None or kind == "undo-begun",
                result=result.inline,
                result_blob=result.blob,
                error=error,
            )
        )

    async def append(
        self,
        make: Callable[[Common], entries.Checkpoint],
        *,
        still: Callable[[History], bool] | None = None,
    ) -> bool:
        """Append a checkpoint from within a handler: whoever may no longer is left by CancelledError."""
        attempt = self._attempt
        try:
            stands = await attempt.checkpoint(make, still=still)
        except (Lost, CancelledMeanwhile, Suspended):
            self._leave()
        attempt.move()
        return stands

    def _leave(self) -> NoReturn:
        """Not the exceptions themselves: a handler may catch all but CancelledError, and must not catch these."""
        self._attempt.interrupt()
        raise asyncio.CancelledError
