"""The clients of a schedule: they submit, cancel and signal, whatever happens, and take down what they were told."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import TypeVar

import msgspec

from switchgear.bus.connection import NatsBus, connect
from switchgear.client.mesh import Mesh
from switchgear.contract import codec, entries, subjects
from switchgear.errors import (
    Conflict,
    NotFound,
    OutcomeUnknown,
    Overloaded,
    SwitchgearError,
    TaskFailed,
    Unavailable,
    WaitTimeout,
)
from switchgear.tasks.handle import TaskHandle
from switchgear.tasks.requests import request_cancel, send_signal
from switchgear.tasks.scopes import scope_of
from tests.faults.runs.ledger import LedgerReader
from tests.faults.runs.plan import Task
from tests.programs.program import ANSWER, SIGNAL, Program, Signal, own_parts
from tests.programs.record import Recording, Seen, Submission

T = TypeVar("T")
OWNER = "alice"
AGAIN = 0.2
"""Seconds before something that could not be done is tried again."""
LOOK = 0.5
"""Seconds between looks at what waits for signals."""


class JumpingClock:
    """A client's own clock."""

    def __init__(self) -> None:
        self.ahead = timedelta()

    def now(self) -> datetime:
        """What the client takes for the time of day."""
        return datetime.now(UTC) + self.ahead


class Clients:
    """Two clients of one owner, and who signals; all behind one link."""

    def __init__(self, url: str, recording: Recording, reader: LedgerReader) -> None:
        self.clock = JumpingClock()
        self.wrong: list[str] = []
        """What no client should ever meet."""
        self._url = url
        self._recording = recording
        self._reader = reader
        self._meshes: list[Mesh] = []
        self._buses: list[NatsBus] = []
        self._signalling: asyncio.Task[None] | None = None
        self._stopped = False
        self._sent: Counter[str] = Counter()
        self._looked: set[tuple[int, int]] = set()

    async def start(self) -> None:
        """Connect, and begin to signal."""
        for name in ("client", "other-client", "signaller"):
            self._buses.append(await connect(self._url, name=name, principal=OWNER))
        for bus in self._buses[:2]:
            mesh = Mesh(bus, OWNER, clock=self.clock)
            await mesh.start()
            self._meshes.append(mesh)
        self._signalling = asyncio.create_task(self._signal())

    async def stop(self) -> None:
        """Leave."""
        self._stopped = True  # nats-py swallows a cancel now and then
        if self._signalling is not None:
            self._signalling.cancel()
            await asyncio.gather(self._signalling, return_exceptions=True)
        for mesh in self._meshes:
            await mesh.watch.close()
        for bus in self._buses:
            await bus.close()

    async def run(self, task: Task) -> None:
        """One root task, from its submission to its end."""
        try:
            await self._run(task)
        except SwitchgearError as error:
            self.wrong.append(f"the client of {task.key} met {error!r}")

    async def _run(self, task: Task) -> None:
        deadline = None
        if task.deadline is not None:
            deadline = self.clock.now() + timedelta(seconds=task.deadline)
        one, other = self._meshes
        handle = await _persist(lambda: _submit(one, task, deadline))
        until = None if deadline is None else deadline.timestamp()
        cancelled = task.cancelled is not None
        self._recording.submissions.append(
            Submission(handle.id, task.capability, OWNER, task.program, until, cancelled)
        )
        if task.again:
            same = await _persist(lambda: _submit(other, task, deadline))
            if same.id != handle.id:
                self.wrong.append(f"{task.key} is {handle.id}, and again {same.id}")
        cancelling = asyncio.create_task(self._cancel(handle, task.cancelled))
        try:
            await self._result(handle)
        finally:
            cancelling.cancel()
            await asyncio.gather(cancelling, return_exceptions=True)

    async def _result(self, handle: TaskHandle[int]) -> None:
        try:
            value = await _persist(lambda: handle.result(int))
            self._recording.seen.append(Seen(handle.id, "completed", value))
        except TaskFailed as error:
            self._recording.seen.append(Seen(handle.id, error.state))

    async def _cancel(self, handle: TaskHandle[int], after: float | None) -> None:
        if after is None:
            return
        await asyncio.sleep(after)
        scope = subjects.scope(handle.capability, OWNER, handle.id)
        bus = self._buses[0]
        await _persist(lambda: request_cancel(bus, self.clock, scope, "no longer wanted"))

    async def _signal(self) -> None:
        """Give each task as many signals as its program waits for, early or late."""
        while not self._stopped:
            await self._reader.read()
            for stored in self._reader.entries:
                # by its time too: a full disk takes sequences back
                if (stored.sequence, stored.time_ns) in self._looked:
                    continue
                self._looked.add((stored.sequence, stored.time_ns))
                if stored.subject.endswith(".submitted"):
                    entry = msgspec.json.decode(stored.data, type=entries.Submitted)
                    program = msgspec.json.decode(entry.input, type=Program)
                    waits = sum(isinstance(op, Signal) for op in own_parts(program))
                    for _ in range(waits):
                        await self._send(scope_of(stored.subject))
            await asyncio.sleep(LOOK)

    async def _send(self, scope: str) -> None:
        bus = self._buses[2]
        payload = codec.encode(ANSWER)
        with contextlib.suppress(Conflict, NotFound):  # it has ended
            await _persist(
                lambda: send_signal(bus, self.clock, scope, SIGNAL, payload, sender=OWNER)
            )


async def _submit(mesh: Mesh, task: Task, deadline: datetime | None) -> TaskHandle[int]:
    return await mesh.submit(task.capability, task.program, key=task.key, deadline=deadline)


async def _persist(act: Callable[[], Awaitable[T]]) -> T:
    """Try again whatever the broker could not do now."""
    while True:
        try:
            return await act()
        except (Unavailable, OutcomeUnknown, Overloaded, WaitTimeout):
            await asyncio.sleep(AGAIN)
