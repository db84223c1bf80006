"""The fake engine as a process of its own, for tests that kill it: `serve.py FOLDER PORT`; port 0: any.

Says `serving on PORT` once it listens, and `running N` whenever another number of executions is under way: before the
answer to one that ended is sent. A killed engine takes its containers with it.
"""

from __future__ import annotations

import asyncio
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.dagger.engine import Engine
from tests.dagger.evaluation import Evaluation


@dataclass
class Telling(Evaluation):
    """Tells how many executions are under way."""

    running: int = 0

    async def query(self, text: str) -> dict[str, Any]:
        change = "withExec" in text
        self._tell(change)
        try:
            return await super().query(text)
        finally:
            self._tell(-change)

    def _tell(self, change: int) -> None:
        if change:
            self.running += change
            print(f"running {self.running}", flush=True)  # noqa: T201


async def serve(folder: Path, port: int) -> None:
    """Serve until killed."""
    folder.mkdir(exist_ok=True)
    async with Engine(folder, port=port) as engine:
        engine.evaluation = Telling(engine.host, lambda: engine.environ)
        print(f"serving on {engine.port}", flush=True)  # noqa: T201
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1]), int(sys.argv[2])))
