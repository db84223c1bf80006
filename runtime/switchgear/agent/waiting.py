"""Waits for a time or for somebody's word."""

from __future__ import annotations

import asyncio
import logging
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import msgspec

from switchgear.agent.calls import TOGETHER
from switchgear.agent.digests import of_values
from switchgear.contract import codec, limits, subjects
from switchgear.contract.capability import type_name
from switchgear.contract.values import Awaited
from switchgear.errors import InvalidInput, SignalTimeout, UsageError
from switchgear.lifecycle import suspension
from switchgear.tasks.payload import Payload

if TYPE_CHECKING:
    from switchgear.agent.run import Run
    from switchgear.contract.stored import Stored
    from switchgear.lifecycle.history import History
    from switchgear.lifecycle.suspension import Signal

log = logging.getLogger(__name__)

_MAX_SAID = 200
"""Characters of what a decoder says of a payload, which it may quote."""
REQUESTER = "requester"
"""As a signal's sender: whoever asked for the run's root task."""


async def sleep(run: Run, key: str, until: timedelta | datetime) -> None:
    """Wait until a time that the first run fixed."""
    if isinstance(until, datetime) and until.tzinfo is None:
        raise UsageError(
            f"sleep {key} ends at {until}, which has no time zone",
            fix="give a timedelta, or a datetime with tzinfo, such as datetime.now(UTC)",
        )
    found = run.recording.find(key, "sleep", None)
    if found is not None:
        return
    await run.begin()
    with run.waits.working():
        clock = run.attempt.clock
        now = clock.now()
        at = now + until if isinstance(until, timedelta) else until
        awaited = run.begun(
            key, Awaited(key=key, kind="timer", begun=now, until=at, together=TOGETHER.get())
        )
        assert awaited.until is not None
        while (left := (awaited.until - clock.now()).total_seconds()) > 0:
            await _elapse(run, awaited, left)
        took = clock.now() - awaited.begun
        await run.recording.done(key, "sleep", None, duration=took)


async def _elapse(run: Run, awaited: Awaited, seconds: float) -> None:
    loop = asyncio.get_running_loop()
    over: asyncio.Future[None] = loop.create_future()
    timer = loop.call_later(seconds, lambda: over.done() or over.set_result(None))
    try:
        await run.waits.wait(awaited, over)
    finally:
        timer.cancel()


class Inbox:
    """The signals of one task, as they come, and which of its waits takes which."""

    def __init__(self, run: Run) -> None:
        self._run = run
        recorded = run.attempt.history
        # A follower may read the ledger stale, and not see what earlier runs have taken.
        self._taken = set[int]() if recorded is None else suspension.taken(recorded)
        self._asking: list[_Asking] = []

    async def wait_for(
        self,
        name: str,
        kind: Any,
        key: str,
        *,
        question: str,
        sender: str,
        timeout: timedelta | None,
    ) -> Any:
        """The payload of the next signal of this name that fits the type. Raises SignalTimeout."""
        run, group = self._run, "" if sender == REQUESTER else sender
        subjects.token(name, "signal")
        digest = of_values(name, group)
        found = run.recording.find(key, "signal", digest)
        if found is not None:
            return await run.recording.value(found, kind)
        await run.begin()
        with run.waits.working():
            now = run.attempt.clock.now()
            wanted = Awaited(
                key=key,
                kind="signal",
                begun=now,
                until=None if timeout is None else now + timeout,
                signal=name,
                sender=group,
                question=str(question)[: limits.MAX_TEXT],
                together=TOGETHER.get(),
            )
            asking = _Asking(run.begun(key, wanted), asyncio.get_running_loop().create_future())
            return await self._fitting(asking, kind, digest)

    async def _fitting(self, asking: _Asking, kind: Any, digest: str) -> Any:
        """The payload of the first signal for this wait that fits the type; those before it are refused."""
        watch, scope = self._run.services.watch, self._run.attempt.scope
        live = subjects.live_task(scope)
        await watch.open(live)
        followed = watch.follow(scope, fresh=False)
        hear = _Hear(self, lambda: None if followed.missing() else followed.history())
        followed.watchers.append(hear)
        self._asking.append(asking)
        try:
            while True:
                hear(None)
                signal = await self._next(asking, digest)
                try:
                    value = codec.decoder(kind).decode(signal.entry.payload)
                except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
                    await self._refuse(asking, digest, signal, _unfit(signal, kind, error))
                else:
                    await self._take(asking, digest, signal)
                    return value
        finally:
            self._asking.remove(asking)
            followed.watchers.remove(hear)
            watch.forget(scope)
            await watch.shut(live)

    async def _next(self, asking: _Asking, digest: str) -> Signal:
        """The next signal for this wait; a timeout that the ledger shows to be early is none."""
        run, until = self._run, asking.awaited.until
        while True:
            left = None if until is None else (until - run.attempt.clock.now()).total_seconds()
            limit = asyncio.timeout(None if left is None else max(left, 0))
            try:
                async with limit:
                    return await run.waits.wait(asking.awaited, asking.came)
            except asyncio.CancelledError:
                self._give_back(asking)
                raise
            except TimeoutError:
                if not limit.expired():
                    raise
            self._give_back(asking)
            asking.came = asyncio.get_running_loop().create_future()
            await self._give_up(asking, digest)

    def _give_back(self, asking: _Asking) -> None:
        """Whoever waits no longer leaves what it was given to the next."""
        if asking.came.done() and not asking.came.cancelled():
            self._taken.discard(asking.came.result().sequence)

    async def _give_up(self, asking: _Asking, digest: str) -> None:
        """Record the timeout and raise it, unless a signal was stored before that."""
        awaited, recording = asking.awaited, self._run.recording
        self.heard(await self._run.attempt.refresh())
        if asking.came.done():
            return
        error = SignalTimeout(
            f"signal {awaited.signal} did not come by {awaited.until:%Y-%m-%d %H:%M:%S} UTC",
            why=f"key {awaited.key!r} waited for it since {awaited.begun:%Y-%m-%d %H:%M:%S} UTC",
        )

        def still(history: History) -> bool:
            self.heard(history)
            return not asking.came.done()

        if await recording.failed(awaited.key, "signal", digest, error, still=still):
            raise error

    async def _take(self, asking: _Asking, digest: str, signal: Signal) -> None:
        await self._run.recording.done(
            asking.awaited.key,
            "signal",
            digest,
            Payload(signal.entry.payload),
            duration=self._run.attempt.clock.now() - asking.awaited.begun,
            signal=signal.sequence,
        )

    async def _refuse(
        self, asking: _Asking, digest: str, signal: Signal, unfit: InvalidInput
    ) -> None:
        """Record that this signal is nobody's; the wait goes on."""
        key, sequence = asking.awaited.key, signal.sequence
        await self._run.recording.failed(key, "signal", digest, unfit, signal=sequence)
        log.warning("signal.refused %s: %s", self._run.attempt.subject.task, unfit)
        asking.came = asyncio.get_running_loop().create_future()

    def heard(self, history: History) -> None:
        """Give what the history shows, in ledger order, to those who wait, in the order of their waits."""
        untaken = [one for one in suspension.untaken(history) if one.sequence not in self._taken]
        for asking in self._asking:
            if asking.came.done():
                continue
            awaited = asking.awaited
            found = suspension.first(untaken, awaited.signal, awaited.sender)
            if found is not None:
                untaken.remove(found)
                self._taken.add(found.sequence)
                asking.came.set_result(found)


def _unfit(signal: Signal, kind: Any, error: Exception) -> InvalidInput:
    text, _, path = str(error).partition(" - at ")
    name, wanted = signal.entry.name, type_name(kind)
    return InvalidInput(
        f"signal {name} does not fit {wanted}: {text[:_MAX_SAID]}",
        path=path.strip("`") or "$",
        fix=f"send what {wanted} says: `switchgear task signal`",
    )


class _Asking:
    """One wait, and the signal that it is given."""

    __slots__ = ("awaited", "came")

    def __init__(self, awaited: Awaited, came: asyncio.Future[Signal]) -> None:
        self.awaited = awaited
        self.came = came


class _Hear:
    """Looks at the task's history whenever a signal, or any doubt, arrives."""

    def __init__(self, inbox: Inbox, history: Any) -> None:
        self._inbox = inbox
        self._history = history

    def __call__(self, stored: Stored | None) -> None:
        if stored is None or stored.subject.endswith(".signalled"):
            history: History | None = self._history()
            if history is not None:
                self._inbox.heard(history)
