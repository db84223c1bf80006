"""`testing.mesh()`: the mesh that tests of agents use. Everything else is as with `connect()`."""

from __future__ import annotations

import asyncio
import tempfile
from contextlib import AsyncExitStack, asynccontextmanager
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
from switchgear.testing.site import Site

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from switchgear.agent.declare import Agent, Resource
    from switchgear.client.handle import TaskHandle
    from switchgear.contract.capability import AnyCapability, Capability
    from switchgear.lifecycle.coordination import Decision
    from switchgear.lifecycle.history import History
    from switchgear.tasks import submission

T = TypeVar("T")

PRINCIPAL = "tester"
_READ_AGAIN = 0.01
"""Seconds between two looks whether the read model has caught up."""


@asynccontextmanager
async def mesh(*agents: Agent, seed: int = 0) -> AsyncGenerator[MemoryMesh]:
    """A mesh in memory with these agents, in virtual time, the same in every run.

    The agents start with the first submission or query, so `fake` and `replace` come before that.
    What nobody offers is rejected at once (TaskRejected with cause SG1204). `seed` decides whatever
    a real mesh leaves to chance. Raises UsageError on an event loop that cannot be patched.
    """
    async with Site(seed=seed) as site:
        made = MemoryMesh(site, agents, seed)
        await made.start()
        try:
            yield made
        finally:
            await made.close()


class _Strict(Coordinator):
    """Rejects what nobody offers, children too, and says how to offer it in a test."""

    def _decide(self, history: History, *view: Any, **more: Any) -> Decision:
        if history.submitted is not None:
            history.submitted = msgspec.structs.replace(history.submitted, require_agent=True)
        decision = super()._decide(history, *view, **more)
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
        self._agents = [fakes.own_copy(agent) for agent in agents]
        self._replaced: dict[Resource[Any], Any] = {}
        self._seed = seed
        self._submitted = 0
        self._waiting = list(self._agents)
        self._begun = False
        self._observes = False
        self._joining = asyncio.Lock()
        self._stack = AsyncExitStack()

    async def start(self) -> None:
        """Start the coordinator and follow the tester's tasks; agents join when they are needed."""
        await self.site.coordinate(_Strict)
        await super().start()

    async def close(self) -> None:
        """Leave, and stop the read model if one runs."""
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

    # what differs from a real mesh

    async def ask(self, verb: str, query: Any, answer: type[T]) -> T:
        """Ask a service of the mesh; a read model answers only when it has read all there is."""
        await self._join()
        if verb not in {"list", "timeline"}:
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
    ) -> tuple[TaskHandle[Any], asyncio.Future[None]]:
        await self._join()
        self._submitted += 1
        # Ids decide among equal pools, so a test's are not drawn but derived.
        return await super()._send(wanted, input, key or f"{self._seed}/{self._submitted}", options)

    async def _join(self) -> None:
        """Start the agents and fakes that have not been started yet."""
        self._begun = True
        async with self._joining:
            while self._waiting:
                agent = self._waiting.pop(0)
                own = {one: self._replaced[one] for one in agent.resources if one in self._replaced}
                await self.site.join(agent, replaced=own)

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
