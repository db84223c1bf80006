"""`testing.mesh()`: the mesh that tests of agents use. Everything else is as with `connect()`."""

from __future__ import annotations

import asyncio
import tempfile
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from switchgear.client.mesh import Mesh
from switchgear.contract import entries
from switchgear.contract.capability import reference
from switchgear.coordinator.service import Coordinator
from switchgear.errors import UsageError
from switchgear.projections.service import observe
from switchgear.testing import fakes
from switchgear.testing.faults import Faults
from switchgear.testing.site import Site
from switchgear.testing.watched_ledger import WatchedLedger

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from switchgear.agent.declare import Agent, Resource
    from switchgear.contract.capability import AnyCapability, Capability
    from switchgear.lifecycle.coordination import Decision, Stamp, View
    from switchgear.lifecycle.history import History
    from switchgear.tasks import submission
    from switchgear.tasks.handle import TaskHandle
    from switchgear.testing.memory import MemoryBus

T = TypeVar("T")

PRINCIPAL = "tester"
_READ_AGAIN = 0.01
"""Seconds between two looks whether the read model has caught up."""


@asynccontextmanager
async def mesh(*agents: Agent, seed: int = 0) -> AsyncGenerator[MemoryMesh]:
    """A mesh in memory with these agents, in virtual time, the same in every run.

    The agents start with the first submission or query, so `fake` and `replace` come before that.
    What nobody offers is rejected at once (TaskRejected with cause SG1204). `seed` decides whatever
    a real mesh leaves to chance. Raises UsageError on an event loop that cannot be patched, and at
    the end for a fault that was asked for and never happened.
    """
    async with Site(seed=seed) as site:
        made = MemoryMesh(site, agents, seed)
        await made.start()
        try:
            yield made
            made.faults.check()
        finally:
            await made.close()


class _Strict(Coordinator):
    """Rejects what nobody offers, children too, and says how to offer it in a test."""

    def decide(self, history: History, view: View, stamp: Stamp) -> Decision:
        """What the coordinator decides, but waiting for nobody."""
        if history.submitted is not None:
            history.submitted = msgspec.structs.replace(history.submitted, require_agent=True)
        decision = super().decide(history, view, stamp)
        entry = decision.entry
        if not isinstance(entry, entries.Rejected) or entry.code != "SG1204":
            return decision
        name = history.capability
        fix = f"give testing.mesh() an agent that offers it, or mesh.fake({name!r}, returns=…)"
        reason = f"{name}: {entry.reason}"
        return decision._replace(entry=msgspec.structs.replace(entry, reason=reason, fix=fix))


class MemoryMesh(Mesh):
    """What `testing.mesh()` gives: a `Mesh`, and how to set the stage."""

    def __init__(self, site: Site, agents: tuple[Agent, ...], seed: int) -> None:
        """Of a site that has been entered; `agents` are copied, so that fakes stay in this mesh."""
        super().__init__(site.bus("client-1"), PRINCIPAL, clock=site.clock)
        self.site = site
        """The processes behind the mesh: broker, clock, coordinators, instances."""
        self.faults = Faults()
        """What goes wrong, and where."""
        self._agents = [fakes.own_copy(agent) for agent in agents]
        self._stand_ins: list[Agent] = []
        self._replaced: dict[Resource[Any], Any] = {}
        self._seed = seed
        self._submitted = 0
        self._waiting = list(self._agents)
        self._begun = False
        self._observes = False
        self._joining = asyncio.Lock()
        self._restarts: set[asyncio.Task[None]] = set()
        self._stack = AsyncExitStack()

    async def start(self) -> None:
        """Start the coordinator and follow the tester's tasks; agents join when they are needed."""
        await self.site.coordinate(_Strict)
        await super().start()

    async def close(self) -> None:
        """Leave, and stop the read model if one runs."""
        if self._restarts:
            await asyncio.wait(self._restarts)
        await self._stack.aclose()
        await super().close()

    # the stage

    def fake(self, capability: Capability[Any, Any] | str, *, returns: Any) -> None:
        """Let this capability be run by a fake, instead of the agent that offers it, if one does.

        `returns` is its result, or a function of the input (plain or async) whose result, or error,
        is that of the task. Raises UsageError for a value that is not of the output's type.
        """
        wanted = reference(capability)
        for agent in self._agents:
            declared = agent.capabilities.get(wanted.name)
            if declared is not None:
                declared.handler = fakes.handler(declared, returns)
                return
        agent = fakes.fake_agent(wanted, returns)
        self._agents.append(agent)
        self._stand_ins.append(agent)
        self._waiting.append(agent)
        if self._begun:
            joining = asyncio.get_running_loop().create_task(self._join())
            self._stack.push_async_callback(asyncio.wait, {joining})

    def fake_run(self, key: str, stdout: str = "", exit_code: int = 0, stderr: str = "") -> None:
        """Let every `ctx.run(key, …)` end so, without its command; other keys run theirs."""
        self.site.runs.fake(key, stdout, exit_code, stderr)

    def replace(self, resource: Resource[T], value: T) -> None:
        """Let `ctx.use(resource)` give this value; before the agents start it is never opened.

        Raises UsageError for a resource that none of this mesh's agents declares.
        """
        if not any(resource in agent.resources for agent in self._agents):
            raise UsageError(f"no agent of this mesh declares {resource!r}")
        self._replaced[resource] = value
        for member in self.site.members:
            member.worker.replace(resource, value)

    async def advance(self, by: timedelta) -> None:
        """Let so much virtual time pass, with all that is due in it. Raises UsageError for a negative one."""
        if by < timedelta():
            raise UsageError(f"time cannot advance by {by}", fix="give a positive timedelta")
        await self._join()
        await asyncio.sleep(by.total_seconds())

    def runs(self, task: TaskHandle[Any] | str, key: str) -> int:
        """How often the body of this task's step, command or undo has begun; waits and calls have none."""
        return self.faults.runs(task if isinstance(task, str) else task.id, key)

    # what differs from a real mesh

    async def ask(self, verb: str, query: Any, answer: type[T]) -> T:
        """Ask a service of the mesh; a read model answers only when it has read all there is."""
        await self._join()
        if verb not in {"list", "timeline", "dead"}:
            return await super().ask(verb, query, answer)
        await self._observed()
        while True:
            found = await super().ask(verb, query, answer)
            if not getattr(found, "lag", 0):
                return found
            await asyncio.sleep(_READ_AGAIN)

    async def _send(
        self,
        wanted: AnyCapability,
        input: Any,  # as the mesh's own
        key: str | None,
        options: submission.Options,
        *,
        live: bool = False,
    ) -> tuple[TaskHandle[Any], asyncio.Future[None]]:
        await self._join()
        self._submitted += 1
        # Ids decide among equal pools, so a test's are not drawn but derived.
        key = key or f"{self._seed}/{self._submitted}"
        return await super()._send(wanted, input, key, options, live=live)

    async def _ready(self) -> None:
        await self._join()

    async def _join(self) -> None:
        """Start the agents and fakes that have not been started yet."""
        self._begun = True
        async with self._joining:
            while self._waiting:
                await self._start_instance(self._waiting.pop(0))

    async def _start_instance(self, agent: Agent) -> None:
        own = {one: self._replaced[one] for one in agent.resources if one in self._replaced}

        def arrange(bus: MemoryBus) -> None:
            if agent in self._stand_ins:
                return  # what is under test dies, not what the test stands in for
            bus.ledger = WatchedLedger(
                self.site.broker, bus, self.faults, died=self._died, hangs=self._hangs
            )

        await self.site.join(
            agent, replaced=own, instrument=self.faults.instrument, arrange=arrange
        )

    def _died(self, bus: MemoryBus) -> None:
        """Bury the process of this connection, and start another in its place, as whoever runs it would."""
        member = next(one for one in self.site.members if one.bus is bus)

        async def restart() -> None:
            await self.site.crash(member)
            await self._start_instance(member.worker.agent)

        task = asyncio.get_running_loop().create_task(restart())
        self._restarts.add(task)
        task.add_done_callback(self._restarts.discard)

    async def _hangs(self, bus: MemoryBus) -> None:
        """See that there is another instance of the agent behind this connection."""
        agent = next(one.worker.agent for one in self.site.members if one.bus is bus)
        if not any(one.bus is not bus and one.worker.agent is agent for one in self.site.members):
            await self._start_instance(agent)

    async def _observed(self) -> None:
        """Start the read model, once: it polls, so no other test shall pay for it."""
        if self._observes:
            return
        self._observes = True
        folder = self._stack.enter_context(tempfile.TemporaryDirectory(prefix="switchgear-"))
        ready = asyncio.Event()
        bus = self.site.bus("observe-1")
        reading = asyncio.create_task(observe(bus, Path(folder) / "read.db", ready=ready.set))
        self._stack.push_async_callback(_ended, reading)
        await ready.wait()


async def _ended(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait({task})
