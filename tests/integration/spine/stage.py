"""A whole mesh in this process on a real server: each coordinator, agent and client with its own connection."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Self

import pytest

from switchgear.agent.context import Context
from switchgear.agent.declare import Agent, Declared
from switchgear.agent.settings import WorkerSettings
from switchgear.agent.worker import Worker
from switchgear.bus.connection import NatsBus, Options, connect
from switchgear.client.mesh import Mesh
from switchgear.contract import subjects
from switchgear.coordinator.service import Coordinator
from switchgear.lifecycle.history import History, fold
from switchgear.tasks.handle import TaskHandle
from tests.patience import PATIENCE

OWNER = "alice"
SOON = timedelta(seconds=PATIENCE)


@dataclass
class Text:
    """What most capabilities here take and return."""

    text: str


@dataclass
class Member:
    """One instance of an agent."""

    worker: Worker
    bus: NatsBus


@dataclass
class Replica:
    """One replica of the coordinator."""

    coordinator: Coordinator
    bus: NatsBus
    stopped: bool = False

    async def stop(self) -> None:
        """Stop it, now or at the end."""
        if not self.stopped:
            self.stopped = True
            await self.coordinator.stop()


class Stage:
    """The mesh's processes, all in this one. What joins leaves at the end, the last first."""

    def __init__(self, url: str, **options: Any) -> None:
        """`options` are those of every connection, such as `lane_ack_wait`."""
        self.url = url
        given: dict[str, Any] = {"connect_timeout": SOON, **options}
        self._options = Options(**given)
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        """Create the streams, so that clients may come before coordinators."""
        bus = await self.bus("setup", "setup")
        await bus.ensure_streams()
        return self

    async def __aexit__(self, *exc: object) -> None:
        """Let all leave."""
        await self._stack.aclose()

    async def bus(self, name: str, principal: str, url: str = "") -> NatsBus:
        """A new connection; `url` where it goes another way."""
        bus = await connect(url or self.url, name=name, principal=principal, options=self._options)
        self._stack.push_async_callback(bus.close)
        return bus

    async def coordinate(self, *, settled: bool = True) -> Replica:
        """Start a replica; `settled`: for it, who is not announced is absent from the beginning."""
        bus = await self.bus("coordinator", "coordinator")
        replica = Replica(Coordinator(bus), bus)
        await replica.coordinator.start()
        self._stack.push_async_callback(replica.stop)
        if settled:
            replica.coordinator.registry.table.settling_until = None
        return replica

    async def join(self, agent: Agent, settings: WorkerSettings | None = None) -> Member:
        """Start an instance; it may still be waiting for its lanes."""
        bus = await self.bus(agent.name, agent.name)
        member = Member(Worker(agent, bus, settings=settings or WorkerSettings()), bus)
        self._stack.push_async_callback(member.worker.stop)
        await member.worker.start()
        return member

    def leave(self, stop: Callable[[], Awaitable[None]]) -> None:
        """Do this at the end."""
        self._stack.push_async_callback(stop)

    async def client(self, principal: str = OWNER, url: str = "") -> Mesh:
        """A client's mesh."""
        mesh = Mesh(await self.bus(principal, principal, url), principal)
        await mesh.start()
        self._stack.push_async_callback(mesh.watch.close)
        return mesh


@dataclass
class Gate:
    """Something that handlers pass one by one, and tests open, shut and count."""

    entered: list[str] = field(default_factory=list[str])
    left: list[str] = field(default_factory=list[str])
    cancelled: list[str] = field(default_factory=list[str])
    _open: asyncio.Event = field(default_factory=asyncio.Event)
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    def open(self) -> None:
        """Let all pass, from now on."""
        self._open.set()

    def shut(self) -> None:
        """Let nobody pass."""
        self._open.clear()

    async def __call__(self, name: str) -> None:
        """Pass, once it is open."""
        self.entered.append(name)
        self._changed.set()
        try:
            await self._open.wait()
            self.left.append(name)
        except asyncio.CancelledError:
            self.cancelled.append(name)
            raise
        finally:
            self._changed.set()

    async def until(self, true: Callable[[], bool]) -> None:
        """Wait until it is true of this gate."""
        async with asyncio.timeout(PATIENCE):
            while not true():
                self._changed.clear()
                await self._changed.wait()

    async def holds(self, count: int = 1) -> None:
        """Wait until so many have entered in all."""
        await self.until(lambda: len(self.entered) >= count)


def gated(
    gate: Gate,
    name: str = "gated",
    *,
    capability: str = "work",
    concurrency: int = 64,
    version: str = "1.0.0",
    **labels: str,
) -> Agent:
    """An agent with one capability, which passes the gate, and says which attempt it was, on whom."""
    agent = Agent(name, version=version, labels=labels)

    @agent.capability(capability, concurrency=concurrency)
    async def work(value: Text, ctx: Context) -> Text:
        """Pass the gate."""
        await gate(value.text)
        return Text(f"{value.text} {ctx.attempt} {name}")

    assert isinstance(work, Declared)
    return agent


def scope_of(handle: TaskHandle[Any], owner: str = OWNER) -> str:
    """The scope of the handle's task."""
    return subjects.scope(handle.capability, owner, handle.id)


async def history_of(mesh: Mesh, handle: TaskHandle[Any]) -> History:
    """The task's history as it is stored now."""
    scope = scope_of(handle, mesh.principal)
    return fold(scope, await mesh.bus.ledger.history(scope))


async def reach(handle: TaskHandle[Any], event: str, count: int = 1) -> None:
    """Wait until the task has so many of this event, by its own events."""
    async with asyncio.timeout(PATIENCE):
        async for one in handle.events():
            count -= one.event == event
            if count <= 0:
                return
    raise AssertionError(f"the task ended without {event}")


def show(capsys: pytest.CaptureFixture[str], text: str) -> None:
    """Write a measured figure to the terminal."""
    with capsys.disabled():
        sys.stdout.write(f"\n{text}\n")


async def until(
    true: Callable[[], Awaitable[bool]], bound: float = PATIENCE, every: float = 0.01
) -> None:
    """Ask somebody else, bounded, until the answer is yes."""
    async with asyncio.timeout(bound):
        while not await true():
            await asyncio.sleep(every)
