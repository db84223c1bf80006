"""`switchgear` as a user runs it: commands as processes, and a mesh of `switchgear dev` around them."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

from tests.patience import PATIENCE

AGENT = '''
import asyncio
from msgspec import Struct
from switchgear import Agent, Context

class Who(Struct):
    name: str

class Greeting(Struct):
    text: str

agent = Agent("hello", version="1.0.0")

@agent.capability("greet")
async def greet(who: Who, ctx: Context) -> Greeting:
    """Greet somebody."""
    ctx.progress(0.5, "thinking")
    if who.name == "boom":
        raise ValueError("no such person")
    if who.name == "slow":
        for step in range(10):
            ctx.progress(step / 10, f"step {step}")
            await asyncio.sleep(0.1)
    if who.name == "forever":
        await asyncio.sleep(3600)
    return Greeting(f"hello {who.name}")
'''


def alive(pid: int) -> bool:
    """Whether a process exists and is not merely waiting to be reaped."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def until(met: Callable[[], Any], what: str) -> Any:
    """What `met` returns once it is true."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        found = met()
        if found:
            return found
        time.sleep(0.02)
    raise AssertionError(f"not within {PATIENCE:g} s: {what}")


class Told:
    """How a command ended."""

    def __init__(self, ran: subprocess.CompletedProcess[str]) -> None:
        self.code, self.out, self.err = ran.returncode, ran.stdout, ran.stderr

    @property
    def json(self) -> Any:
        """The document on the standard output."""
        return json.loads(self.out)

    @property
    def lines(self) -> list[Any]:
        """The documents on the standard output, one a line."""
        return [json.loads(line) for line in self.out.splitlines()]


class Place:
    """A folder with settings of its own, in which commands run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith("SWITCHGEAR_") and name not in ("NO_COLOR", "PYTHONPATH")
        }
        self.environment: dict[str, str] = kept | {"XDG_CONFIG_HOME": str(folder / "config")}

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-P", "-m", "switchgear.cli", *arguments]

    def run(self, *arguments: str, input: str = "", **environment: str) -> Told:
        """Run a command to its end."""
        return Told(
            subprocess.run(
                self.command(*arguments), cwd=self.folder, env=self.environment | environment,
                input=input, capture_output=True, text=True, timeout=PATIENCE, check=False,
            )
        )  # fmt: skip

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start a command; whoever starts it ends it."""
        return subprocess.Popen(
            self.command(*arguments), cwd=self.folder, env=self.environment, text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip


class Dev(Place):
    """A folder in which `switchgear dev` runs the agent above."""

    def __init__(self, folder: Path, *arguments: str, **environment: str) -> None:
        super().__init__(folder)
        self.environment |= environment
        (folder / "hello.py").write_text(AGENT, encoding="utf-8")
        self._log = (folder / "dev.txt").open("wb")
        self.process = subprocess.Popen(
            self.command("dev", *(arguments or ("hello:agent",)), "--json"),
            cwd=folder, env=self.environment, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=self._log,
        )  # fmt: skip
        self.ready: dict[str, Any] = {}

    def __enter__(self) -> Self:
        assert self.process.stdout is not None
        readable, _, _ = select.select([self.process.stdout], [], [], PATIENCE)
        line = self.process.stdout.readline() if readable else b""
        if not line:
            self.__exit__()
            raise AssertionError(f"the mesh was not ready:\n{self.log}")
        self.ready = json.loads(line)
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()
        self._log.close()

    @property
    def log(self) -> str:
        """What the mesh and its processes said."""
        return (self.folder / "dev.txt").read_text(encoding="utf-8")

    @property
    def state(self) -> dict[str, Any]:
        """What it wrote down for other commands; empty when none runs."""
        path = self.folder / ".switchgear" / "dev.json"
        return json.loads(path.read_bytes()) if path.exists() else {}

    @property
    def pids(self) -> dict[str, int]:
        """The processes that run now."""
        return {name: one["pid"] for name, one in self.state.get("processes", {}).items()}

    def interrupt(self) -> int:
        """Ctrl-C; returns the exit code."""
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(PATIENCE)

    def until_listed(self, task: str, state: str) -> None:
        """Wait until the read model has the task in this state: it follows the ledger a moment later."""

        def listed() -> bool:
            rows = self.run("task", "ls", "--state", state, "--json").json["tasks"]
            return task in [row["id"] for row in rows]

        until(listed, f"{task} is listed as {state}")

    def submit(self, name: str, *options: str) -> str:
        """Submit a greeting; returns the task's id."""
        told = self.run("task", "submit", "greet", json.dumps({"name": name}), *options)
        assert told.code == 0, told.err
        return told.out.strip()
