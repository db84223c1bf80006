"""The faults of a plan, done to a mesh of processes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta

from switchgear.errors import ServerFailed
from tests.faults.runs.clients import JumpingClock
from tests.faults.runs.mesh import ProcessMesh
from tests.faults.runs.plan import CLIENT, Fault, Kind
from tests.faults.tools.proxy import Ways
from tests.programs.record import Recording


class Inflictor:
    """Does each fault at its time. What lasts is ended after its time, at the latest by `ProcessMesh.heal`."""

    def __init__(self, mesh: ProcessMesh, recording: Recording, client: JumpingClock) -> None:
        self.mesh = mesh
        self._recording = recording
        self._client = client
        self._acts: dict[Kind, Callable[[Fault], Awaitable[bool]]] = {
            "agent killed": self._kill,
            "coordinator killed": self._kill,
            "crash point": self._kill,
            "server killed": self._kill_server,
            "frozen": self._freeze,
            "server frozen": self._freeze_server,
            "link cut": self._cut,
            "link cut in a frame": self._cut_in_a_frame,
            "link swallows": self._swallow,
            "link held": self._hold,
            "link slow": self._slow,
            "clock jumps": self._jump,
            "disk full": self._fill,
        }

    async def run(self, faults: tuple[Fault, ...]) -> None:
        """All of them; returns when the last one is over."""
        await asyncio.gather(*map(self._one, faults))

    async def _one(self, fault: Fault) -> None:
        await asyncio.sleep(fault.at)
        if await self._acts[fault.kind](fault):
            self._recording.fault(fault.kind)

    async def _kill(self, fault: Fault) -> bool:
        service = self.mesh.services[fault.target]
        return service.kill(away=fault.seconds, crash_at=fault.detail)

    async def _kill_server(self, fault: Fault) -> bool:
        await self.mesh.kill_server(fault.seconds)
        return True

    async def _freeze(self, fault: Fault) -> bool:
        service = self.mesh.services[fault.target]
        if not service.freeze():
            return False
        await asyncio.sleep(fault.seconds)
        service.thaw()
        return True

    async def _freeze_server(self, fault: Fault) -> bool:
        if not self.mesh.freeze_server():
            return False
        await asyncio.sleep(fault.seconds)
        self.mesh.thaw_server()
        return True

    async def _cut(self, fault: Fault) -> bool:
        self.mesh.links[fault.target].cut()
        return True

    async def _cut_in_a_frame(self, fault: Fault) -> bool:
        way, _, verb = fault.detail.partition(":")
        sprung = self.mesh.links[fault.target].cut_next(
            "up" if way == "up" else "down", verb.encode()
        )
        try:
            async with asyncio.timeout(2):
                await sprung.wait()
        except TimeoutError:
            return False
        return True

    async def _swallow(self, fault: Fault) -> bool:
        link = self.mesh.links[fault.target]
        link.swallow(_ways(fault.detail))
        await asyncio.sleep(fault.seconds)
        link.heal()
        return True

    async def _hold(self, fault: Fault) -> bool:
        link = self.mesh.links[fault.target]
        link.hold(_ways(fault.detail))
        await asyncio.sleep(fault.seconds)
        link.heal()
        return True

    async def _slow(self, fault: Fault) -> bool:
        link = self.mesh.links[fault.target]
        link.slow(fault.amount, jitter_ms=fault.amount)
        await asyncio.sleep(fault.seconds)
        link.heal()
        return True

    async def _jump(self, fault: Fault) -> bool:
        jump = timedelta(seconds=fault.amount)
        if fault.target == CLIENT:
            self._client.ahead += jump
            return True
        clock = self.mesh.services[fault.target].clock
        if clock is None:
            return False
        clock.jump(jump)
        return True

    async def _fill(self, fault: Fault) -> bool:
        """A server that could not write stops to try: only another start makes it whole."""
        disk = self.mesh.disk
        if disk is None:
            return False
        disk.fill()
        await asyncio.sleep(fault.seconds)
        disk.relieve()
        try:
            await self.mesh.kill_server(0.0)
        except ServerFailed:
            await self.mesh.kill_server(0.5)
        return True


def _ways(detail: str) -> Ways:
    return "up" if detail == "up" else "down" if detail == "down" else "both"
