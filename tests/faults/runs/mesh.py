"""A mesh of real processes: the server, two coordinators, two instances of each agent, each behind its own link."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from types import MappingProxyType
from typing import Self

from switchgear.server import EmbeddedServer
from tests.faults.programs.tasks import EPOCH
from tests.faults.runs.plan import AGENTS, CLIENT, COORDINATORS, LEASE, SERVICES
from tests.faults.runs.service import Service
from tests.faults.tools.clocks import FakeClock
from tests.faults.tools.disk import SmallDisk
from tests.faults.tools.proxy import FaultProxy
from tests.programs.record import Outage

START = 120.0
"""Seconds that the mesh may take to start."""
DISK = 48 * 1024 * 1024
AGAIN = 0.05
"""Seconds between looks at a full disk."""
HOLD = 1.0
"""Seconds that a handler which only waits keeps its slot."""


class ProcessMesh:
    """Everything of one schedule that runs; all of it ends with it."""

    def __init__(
        self,
        folder: Path,
        *,
        armed: Mapping[str, str] = MappingProxyType({}),
        clocks: bool = False,
        small_disk: bool = False,
    ) -> None:
        """`folder` gets the server's store, logs and what was executed; `armed`: crash points by service."""
        self.folder = folder
        self.witnessed = folder / "witnessed"
        self.services: dict[str, Service] = {}
        self.links: dict[str, FaultProxy] = {}
        self.disk: SmallDisk | None = None
        self.outages: list[Outage] = []
        """When the server was killed, and when it listened again."""
        self._armed = armed
        self._clocks = clocks
        self._small_disk = small_disk
        self._stack = AsyncExitStack()
        self._server_lock = asyncio.Lock()
        self._server_frozen = False

    async def __aenter__(self) -> Self:
        """Start everything, the processes at the same time; returns when all are ready."""
        try:
            await self._start()
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(self, *exc: object) -> None:
        """End everything."""
        self.thaw_server()
        await self._stack.aclose()

    async def _start(self) -> None:
        self.witnessed.mkdir(parents=True)
        store = self.folder / "nats"
        if self._small_disk:
            store.mkdir()
            self.disk = self._stack.enter_context(SmallDisk(store, DISK))
        self.server = await self._stack.enter_async_context(EmbeddedServer(store))
        port = int(self.server.url.rpartition(":")[2])
        for name in (*SERVICES, CLIENT):
            self.links[name] = await self._stack.enter_async_context(FaultProxy(port))
        for name in SERVICES:
            service = self.services[name] = self._service(name)
            self._stack.push_async_callback(service.stop)
            service.start()
        ready = [self.services[name].says("agent.ready", START) for name in AGENTS]
        ready += [self.services[name].says("coordinator.ready", START) for name in COORDINATORS]
        await asyncio.gather(*ready)

    def _service(self, name: str) -> Service:
        link = self.links[name]
        command = ("-m", "switchgear.cli", "coordinator")
        if name in AGENTS:
            capability = name.partition("-")[0]
            options = (f"hold_time={HOLD}", "cleanup=2")
            module = ("-m", "tests.faults.programs.tasks")
            command = (*module, link.url, capability, str(self.witnessed), *options)
        environment = {
            EPOCH: repr(time.time() - time.monotonic()),
            "SWITCHGEAR_URL": link.url,
            "SWITCHGEAR_LEASE": f"{LEASE}s",
            "XDG_CONFIG_HOME": str(self.folder),
            "PYTHONUNBUFFERED": "1",
            "PYTHONFAULTHANDLER": "1",
        }
        clock = FakeClock(self.folder / f"clock-{name}") if self._clocks else None
        return Service(
            name,
            command,
            self.folder / f"{name}.log",
            link,
            environment=environment,
            clock=clock,
            crash_at=self._armed.get(name, ""),
        )

    # the server

    async def kill_server(self, away: float) -> None:
        """SIGKILL; started again after `away` seconds on the same store and port, once its disk has room."""
        async with self._server_lock:
            began = time.time()
            self.server.kill()
            await asyncio.sleep(away)
            while self.disk is not None and self.disk.is_full:
                await asyncio.sleep(AGAIN)
            await self._restart(began)

    async def _restart(self, began: float) -> None:
        await self.server.restart()
        self.outages.append(Outage(began, time.time()))

    def freeze_server(self) -> bool:
        """SIGSTOP."""
        if not self.server.running:
            return False
        os.kill(self.server.pid, signal.SIGSTOP)
        self._server_frozen = True
        return True

    def thaw_server(self) -> None:
        """SIGCONT."""
        if self._server_frozen and self.server.running:
            os.kill(self.server.pid, signal.SIGCONT)
        self._server_frozen = False

    async def heal(self) -> None:
        """End all faults: everybody runs, every line passes, every clock is right."""
        self.thaw_server()
        if self.disk is not None:
            self.disk.relieve()
        async with self._server_lock:
            if not self.server.running:
                await self._restart(time.time())
        for link in self.links.values():
            link.heal()
        for service in self.services.values():
            service.thaw()
            if service.clock is not None:
                service.clock.jump(-service.clock.ahead)
