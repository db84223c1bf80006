"""An agent that interprets programs, as a process of its own: `tasks.py URL CAPABILITY FOLDER [OPTION=SECONDS…]`.

In FOLDER it takes down what it executes: one line of JSON an execution in `executions`, and beside it a file for
each task and key whose length says how often that ran, whoever ran it.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec

from switchgear import Context
from switchgear.agent import process
from switchgear.agent.settings import WorkerSettings
from switchgear.loop import run
from switchgear.settings import Settings
from tests.programs import interpreter
from tests.programs.record import Execution

EPOCH = "FAULTS_EPOCH"
"""The environment variable with the true time at which the monotonic clock was 0: clocks may be wrong here."""
APPEND = os.O_WRONLY | os.O_CREAT | os.O_APPEND
NAME = "executions"


class FileWitness:
    """Takes executions down in a folder that several processes share."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file = os.open(folder / NAME, APPEND, 0o600)
        self._epoch = float(os.environ[EPOCH])

    def executes(self, what: str, ctx: Context, key: str) -> int:
        """Take an execution down, in one write (`interpreter.Witness`)."""
        execution = Execution(
            what,  # type: ignore[arg-type]  # one of the witnessed kinds
            ctx.task.id,
            key,
            ctx.fence,
            self._epoch + time.monotonic(),
            ctx.attempt,
            str(os.getpid()),
        )
        os.write(self._file, msgspec.json.encode(execution) + b"\n")
        return self._count(f"{ctx.task.id}.{what}.{key}")

    def _count(self, name: str) -> int:
        """How often this ran: an appended byte lands behind those of all others."""
        file = os.open(self._folder / name, APPEND, 0o600)
        try:
            os.write(file, b".")
            return os.lseek(file, 0, os.SEEK_CUR)
        finally:
            os.close(file)

    async def dies(self) -> None:
        """Die as by `kill -9` (`interpreter.Witness`)."""
        os.kill(os.getpid(), signal.SIGKILL)


def read(folder: Path) -> list[Execution]:
    """What was executed, in the order of its beginning."""
    file = folder / NAME
    if not file.exists():
        return []
    lines = file.read_bytes().splitlines()
    return [msgspec.json.decode(line, type=Execution) for line in lines]


def main() -> None:
    """Serve until SIGTERM, as `switchgear agent run` does, with shorter times."""
    url, capability, folder, *options = sys.argv[1:]
    times: dict[str, Any] = {
        option: timedelta(seconds=float(seconds))
        for option, _, seconds in (one.partition("=") for one in options)
    }
    logging.basicConfig(
        stream=sys.stderr,
        level=logging.INFO,
        format="%(asctime)s.%(msecs)03d %(levelname)s %(name)s %(message)s",
        datefmt="%H:%M:%S",
    )
    interpreter.testify(FileWitness(Path(folder)))
    agent = interpreter.agent(capability)
    run(process.serve(agent, Settings(url=url), WorkerSettings(**times)))


if __name__ == "__main__":
    main()
