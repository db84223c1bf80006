"""The sides of the comparison: each a server with a fresh store, a coordinator, an agent, and clients by turns."""

import asyncio
import contextlib
import os
import sys
import tempfile
from asyncio.subprocess import DEVNULL, PIPE, Process, create_subprocess_exec
from collections.abc import Generator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple, Protocol

import msgspec

from benchmarks.bare import stream
from benchmarks.bare.link import Variant
from benchmarks.bare.wire import Sizes
from benchmarks.echo import ECHO, STEPPED, STEPS
from benchmarks.window import Rate
from switchgear.server.embedded import Durability, EmbeddedServer

ROOT = Path(__file__).parents[1]
_NO_BYTECODE = "PYTHONDONTWRITEBYTECODE"
"""A user's interpreter compiles once; a developer's environment may forbid it."""
PATIENCE = 20.0
"""Seconds that a process may take beyond what it was asked to."""


class Window(msgspec.Struct, frozen=True):
    """How long the clients measure."""

    warm_up: float
    seconds: float


class Side(Protocol):
    """Something that runs echo tasks."""

    async def start(self) -> None:
        """Start server, coordinator and agent."""
        ...

    async def measure(self, in_flight: int, window: Window) -> Rate:
        """Let a client of its own keep so many tasks in flight."""
        ...

    async def stop(self) -> None:
        """End all of them; the store goes."""
        ...


class Kind(NamedTuple):
    """What an agent of the product does."""

    agent: str
    """Its module."""
    capability: str
    checkpoints: int = 0
    """What the bare program's agent appends before the result."""


ECHOING = Kind("benchmarks.echo_agent", ECHO.name)
STEPPING = Kind("benchmarks.step_agent", STEPPED.name, STEPS)


class Product:
    """Switchgear: coordinator and agent as users run them."""

    def __init__(
        self,
        home: Path,
        profile: str = "",
        *,
        kind: Kind = ECHOING,
        durability: Durability = "standard",
        settings: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        """`home` keeps saved settings of the user out; `profile` names a role to be profiled.

        `settings` are environment variables of the mesh's processes.
        """
        self.server = EmbeddedServer(durability=durability)
        self._home = home
        self._profile = profile
        self._kind = kind
        self._settings = settings
        self._pids: dict[str, int] = {}
        self._coordinator: Process | None = None
        self._agent: Process | None = None

    @property
    def env(self) -> dict[str, str]:
        """The environment of the mesh's processes."""
        inherited = {key: value for key, value in os.environ.items() if key != _NO_BYTECODE}
        return {
            **inherited,
            "SWITCHGEAR_URL": self.server.url,
            "XDG_CONFIG_HOME": str(self._home),
            "BENCH_PROFILE": self._profile,
            **self._settings,
        }

    async def start(self) -> None:
        """Start server, coordinator and agent."""
        await self.server.start()
        await self.start_roles()

    async def start_roles(self) -> None:
        """Start coordinator and agent."""
        await self.start_coordinator()
        self._agent = await spawn(self._kind.agent, env=self.env)
        self._pids = {"server": self.server.pid, "agent": self._agent.pid}
        if self._coordinator is not None:
            self._pids["coordinator"] = self._coordinator.pid

    async def start_coordinator(self) -> None:
        """Start the coordinator alone, and wait until it is ready."""
        self._coordinator = await spawn("benchmarks.coordinator", self.server.url, env=self.env)
        await line_of(self._coordinator)

    async def measure(self, in_flight: int, window: Window) -> Rate:
        """Let a client of its own keep so many calls under way."""
        load = (str(in_flight), str(window.warm_up), str(window.seconds))
        pids = msgspec.json.encode(self._pids).decode()
        more = (self.server.url, *load, pids, self._kind.capability)
        client = await spawn("benchmarks.client", *more, env=self.env)
        return await rate_of(client, window)

    async def stop_roles(self) -> None:
        """End coordinator and agent in order."""
        await end(self._agent)
        await end(self._coordinator)
        self._agent = self._coordinator = None

    async def stop(self) -> None:
        """End everything; the store goes."""
        await self.stop_roles()
        await self.server.stop()


class Bare:
    """A variant of the bare program, with bodies of the product's sizes."""

    def __init__(
        self,
        variant: Variant,
        sizes: Sizes,
        *,
        kind: Kind = ECHOING,
        durability: Durability = "standard",
    ) -> None:
        self._server = EmbeddedServer(durability=durability)
        self._variant: Variant = variant
        self._checkpoints = str(kind.checkpoints)
        self._sizes = [str(size) for size in msgspec.structs.astuple(sizes)]
        self._roles: dict[str, Process] = {}

    async def start(self) -> None:
        """Start server, coordinator and agent."""
        await self._server.start()
        await stream.prepare(self._server.url)
        for role in ("coordinator", "agent"):
            self._roles[role] = await self._spawn(role, "--checkpoints", self._checkpoints)

    async def measure(self, in_flight: int, window: Window) -> Rate:
        """Let a client of its own keep so many tasks in flight."""
        pids = {name: role.pid for name, role in self._roles.items()}
        pids["server"] = self._server.pid
        load = ["--in-flight", str(in_flight), "--pids", msgspec.json.encode(pids).decode()]
        load += ["--warm-up", str(window.warm_up), "--seconds", str(window.seconds), "--json"]
        return await rate_of(await self._spawn("client", *load), window)

    async def burst(self, tasks: int, in_flight: int) -> float:
        """Return the seconds that so many tasks take together."""
        load = ["--tasks", str(tasks), "--in-flight", str(in_flight)]
        client = await self._spawn("burst", *load)
        try:
            return float(await line_of(client, 120))
        finally:
            await end(client)

    async def stop(self) -> None:
        """End everything; the store goes."""
        for role in self._roles.values():
            await end(role)
        await self._server.stop()

    async def _spawn(self, role: str, *more: str) -> Process:
        side = ["--url", self._server.url, "--variant", self._variant, "--sizes", *self._sizes]
        return await spawn("benchmarks.bare", "--role", role, *side, *more)


async def spawn(module: str, *arguments: str, env: dict[str, str] | None = None) -> Process:
    """Start a module as a process; it prints for us, and its errors go where ours go."""
    return await create_subprocess_exec(
        sys.executable, "-m", module, *arguments, cwd=ROOT, env=env, stdin=DEVNULL, stdout=PIPE
    )


async def line_of(process: Process, limit: float = PATIENCE) -> str:
    """Return the next line that the process prints. Raises RuntimeError if it ends instead."""
    assert process.stdout is not None
    async with asyncio.timeout(limit):
        line = await process.stdout.readline()
    if not line:
        raise RuntimeError(f"process {process.pid} ended with {await process.wait()}")
    return line.decode().strip()


async def rate_of(client: Process, window: Window) -> Rate:
    """Return what a client prints at its end."""
    try:
        line = await line_of(client, window.warm_up + window.seconds + PATIENCE)
        await asyncio.wait_for(client.wait(), PATIENCE)
    finally:
        await end(client)
    return msgspec.json.decode(line, type=Rate)


async def end(process: Process | None) -> None:
    """Tell a process to end, and make it."""
    if process is None or process.returncode is not None:
        return
    process.terminate()
    try:
        await asyncio.wait_for(process.wait(), 10)
    except TimeoutError:
        process.kill()
        await process.wait()


@contextlib.contextmanager
def empty_home() -> Generator[Path]:
    """A directory without saved settings."""
    with tempfile.TemporaryDirectory(prefix="switchgear-bench-") as home:
        yield Path(home)
