"""A whole mesh on this machine: server, coordinator, read model and agents, each its own process.

Above: `dev` keeps one for as long as a developer works, `demo` has one for a single job.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Final

from switchgear import discovery
from switchgear.cli.values import agent_path
from switchgear.errors import ServerFailed, SwitchgearError, Unavailable, UsageError
from switchgear.server import Durability, EmbeddedServer
from switchgear.server.supervisor import Backoff, Child, Program, Supervisor, ending

SERVICES: Final = ("coordinator", "observe")
DRAIN: Final = timedelta(seconds=30)
"""An agent drains for at most 20 s, and then leaves its handlers 5 s."""
LEAVE: Final = timedelta(seconds=5)
"""How long the services may take to leave."""
START: Final = timedelta(seconds=30)
"""How long the mesh may take until everybody answers."""
_POLL: Final = 0.03
_WATCH: Final = 0.5

Say = Callable[[str, str], None]
"""Told a program's name and one line of its output; `dev` stands for the mesh itself."""


class LocalMesh:
    """`start` it, then `stop` it; `wait_ended` tells when nothing runs any more by itself."""

    def __init__(
        self,
        state: Path,
        agents: Sequence[str],
        *,
        say: Say,
        port: int | None = None,
        durability: Durability = "standard",
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """`agents` are written MODULE:ATTR; `environment` is set for all processes.

        Raises UsageError for agents that are not written so.
        """
        self.state = state.absolute()
        self.logs = self.state / "logs"
        self.server = EmbeddedServer(self.state / "nats", port=port, durability=durability)
        self.supervisor = Supervisor(self.logs, heard=say, changed=self._changed)
        self._say = say
        self._environment = dict(environment or {})
        self._names = dict(_names(agents))
        self._lock: int | None = None
        self._guard: asyncio.Task[None] | None = None
        self._server_restarts = 0

    @property
    def url(self) -> str:
        """Where clients connect."""
        return self.server.url

    @property
    def agents(self) -> list[str]:
        """The agents' processes by name."""
        return list(self._names)

    async def start(self, *, fresh: bool = False) -> None:
        """Start everything; returns when the services answer and every agent is announced.

        `fresh` forgets what an earlier mesh left in the folder. Raises UsageError when a mesh runs there or an
        agent cannot be loaded, ServerMissing, ServerFailed.
        """
        self._lock = discovery.claim(self.state)
        if self._lock is None:
            running = discovery.read(self.state)
            raise UsageError(
                f"a mesh runs in {self.state} already",
                why=f"process {running.pid} at {running.url}" if running else "its lock is held",
                fix="stop it with Ctrl-C, or give another folder: --state",
            )
        if fresh:
            self._forget()
        (self.state / ".gitignore").write_text("*\n", encoding="utf-8")
        await self.server.start()
        self._guard = asyncio.create_task(self._keep_server(), name="keep-server")
        for program in self._programs():
            self.supervisor.start(program)
        await self._ready()
        self._changed()

    async def stop(self) -> None:
        """Stop everything: agents first, so that they can hand back what they hold; the server last."""
        await self.supervisor.stop(self.agents, DRAIN)
        await self.supervisor.stop(SERVICES, LEAVE)
        if self._guard is not None:
            self._guard.cancel()
            await asyncio.gather(self._guard, return_exceptions=True)
        await self.server.stop()
        if self._lock is not None:
            discovery.release(self.state, self._lock)
            self._lock = None

    def hurry(self) -> None:
        """Stop without waiting for anybody."""
        self.supervisor.hurry()

    def _programs(self) -> Iterator[Program]:
        environment = {
            **self._environment,
            "SWITCHGEAR_URL": self.url,
            "SWITCHGEAR_CONTEXT": "",
            "PYTHONUNBUFFERED": "1",
        }
        # -P: a module of the working directory must not shadow one that a service needs.
        service = (sys.executable, "-P", "-m", "switchgear.cli")
        history = str(self.state / "history.sqlite")
        yield Program("coordinator", (*service, "coordinator", "--url", self.url), environment)
        yield Program("observe", (*service, "observe", "--path", history), environment)
        for name, path in self._names.items():
            yield Program(name, (*service, "agent", "run", path), environment)

    async def _ready(self) -> None:
        """Wait until the services answer and every agent's process is announced."""
        try:
            async with asyncio.timeout(START.total_seconds()):
                await self._answering()
        except TimeoutError:
            raise ServerFailed(
                f"the mesh was not ready within {START.total_seconds():g} s",
                why=self._missing(),
                fix=f"read the logs in {self.logs}",
            ) from None

    async def _answering(self) -> None:
        from switchgear.client.connect import Connection
        from switchgear.settings import Settings

        async with Connection(Settings(url=self.url)) as mesh:
            while True:
                self._refused()
                try:
                    announced = {one.process for one in (await mesh.agents()).instances}
                    await mesh.list(limit=1)
                except Unavailable:
                    announced = set[int]()
                else:
                    children = self.supervisor.children
                    # An agent that ended as it meant to is not waited for.
                    waited = (children[name] for name in self.agents)
                    if all(one.pid in announced or one.state == "ended" for one in waited):
                        return
                await asyncio.sleep(_POLL)

    def _refused(self) -> None:
        """Raise UsageError for a program that cannot work as written: it is better told at once."""
        for child in self.supervisor.children.values():
            if child.state == "refused":
                why, fix = self._told(child)
                log = f"its output is in {self.supervisor.log_path(child.program.name)}"
                raise UsageError(
                    f"{_shown(child, self._names)} cannot be run", why=why, fix=fix or log
                )

    def _missing(self) -> str:
        found = [
            f"{name} is {child.state}"
            + (f" ({ending(child.exit_code)}: {child.last_words})" if child.exit_code else "")
            for name, child in self.supervisor.children.items()
            if child.state != "running" or child.restarts
        ]
        return "; ".join(found) or "somebody does not answer"

    def _told(self, child: Child) -> tuple[str, str]:
        """Why a program gave up, and what mends it: the last error in its log."""
        try:
            text = self.supervisor.log_path(child.program.name).read_text("utf-8", "replace")
        except OSError:
            return child.last_words, ""
        lines = [line.strip() for line in text.splitlines()]
        at = max((at for at, line in enumerate(lines) if line.startswith("SG")), default=-1)
        if at < 0:
            return child.last_words, ""
        parts = dict(line.split(": ", 1) for line in lines[at:] if ": " in line)
        why = f"; {parts['why']}" if "why" in parts else ""
        return lines[at] + why, parts.get("fix", "")

    async def _keep_server(self) -> None:
        """Start the server again when it dies; clients come back by themselves."""
        backoff, crashes = Backoff(), 0
        loop = asyncio.get_running_loop()
        since = loop.time()
        while True:
            await asyncio.sleep(_WATCH)
            if self.server.running:
                continue
            crashes = 1 if loop.time() - since > 30 else crashes + 1  # noqa: PLR2004 - as Supervisor's HEALTHY
            pause = backoff.pause(crashes).total_seconds()
            self._say("dev", f"the server ended; again in {pause:g} s")
            await asyncio.sleep(pause)
            since = loop.time()
            try:
                await self.server.restart()
            except SwitchgearError as error:
                self._say("dev", str(error))
                continue
            self._server_restarts += 1
            self._changed()

    def _changed(self) -> None:
        """Write down who runs, for other commands and for people."""
        if self._lock is None or not self.server.running:
            return
        known = {
            name: discovery.Process(pid=child.pid, restarts=child.restarts)
            for name, child in self.supervisor.children.items()
            if child.state == "running"
        }
        server = discovery.Process(pid=self.server.pid, restarts=self._server_restarts)
        running = discovery.Running(
            url=self.url,
            monitoring_url=self.server.monitoring_url,
            pid=os.getpid(),
            processes={"server": server, **known},
            state=str(self.state),
        )
        discovery.write(self.state, running)

    def _forget(self) -> None:
        for name in ("nats", "logs"):
            shutil.rmtree(self.state / name, ignore_errors=True)
        for path in self.state.glob("history.sqlite*"):
            path.unlink(missing_ok=True)


def _names(agents: Sequence[str]) -> Iterator[tuple[str, str]]:
    """A name for each agent's process: its module's last part, told apart by a number where needed."""
    taken = set(SERVICES) | {"server", "dev"}
    for path in agents:
        module, attribute = agent_path(path)
        last = module.rpartition(".")[2]
        base = last if attribute == "agent" else f"{last}-{attribute}"
        name, number = base, 1
        while name in taken:
            number += 1
            name = f"{base}-{number}"
        taken.add(name)
        yield name, path


def _shown(child: Child, names: dict[str, str]) -> str:
    name = child.program.name
    return f"agent {names[name]}" if name in names else name
