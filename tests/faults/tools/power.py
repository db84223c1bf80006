"""Power losses of a broker: its folder on a file system of our own that forgets what was not synced.

Killing a server proves nothing about its disk: what it wrote stays in the system's page cache, and
the next server reads it from there.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes.util
import importlib.util
import json
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process, create_subprocess_exec
from pathlib import Path
from typing import Any, Self

from tests.faults.tools.powerfs import unmount
from tests.faults.tools.volume import Loss
from tests.patience import PATIENCE

ROOT = Path(__file__).parents[3]
LIBRARY = "fuse3"
"""The library that is loaded, and Debian's package with it."""
DEVICE = Path("/dev/fuse")


def missing() -> str:
    """Return what keeps this machine from mounting; empty if nothing does."""
    if not DEVICE.exists() or not os.access(DEVICE, os.R_OK | os.W_OK):
        return f"{DEVICE} is missing or closed to this user: run as root on a kernel with FUSE"
    if importlib.util.find_spec("mfusepy") is None:
        return "the Python package mfusepy is missing: make setup"
    if ctypes.util.find_library(LIBRARY) is None:
        return f"libfuse is missing: install the package {LIBRARY}"
    return ""


class PowerFolder:
    """A mounted folder; `async with` mounts it and takes it away again, also when a test fails."""

    def __init__(self, folder: Path) -> None:
        """`folder` is created: it holds the mount point, what is on the disk, and a log."""
        self._folder = folder.absolute()
        self._process: Process | None = None
        self.mount = self._folder / "mount"
        """Where programs work."""
        self.disk = self._folder / "disk"
        """What was synced; for looking at while nothing is mounted."""

    async def __aenter__(self) -> Self:
        """Mount it."""
        await self.power_on()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Unmount it, whatever state it is in."""
        await self._end()

    async def power_on(self) -> None:
        """Mount what the disk has."""
        assert self._process is None, "it is mounted already"
        self.mount.mkdir(parents=True, exist_ok=True)
        with (self._folder / "powerfs.log").open("ab") as log:
            self._process = await create_subprocess_exec(
                sys.executable, "-m", "tests.faults.tools.powerfs",
                str(self._folder), str(self.mount),
                cwd=ROOT, env={**os.environ, "FUSE_LIBRARY_NAME": LIBRARY},
                stdin=PIPE, stdout=PIPE, stderr=log, start_new_session=True,
            )  # fmt: skip
        try:
            await self._answer()
            await self._mounted()
        except BaseException:
            await self._end()
            raise

    async def lose_power(self, *pids: int) -> Loss:
        """Freeze the folder, end these processes with it, forget what was not synced, and unmount.

        Nothing that a process does from the freeze on gets anywhere: its system calls on the folder
        do not return before it is dead. The caller reaps them. `power_on` mounts again.
        """
        loss = await self._ask("lose")
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        await self._end()
        return Loss(**loss)

    async def sync(self) -> None:
        """Bring everything to the disk, as the system does now and then."""
        await self._ask("sync")

    async def count_syncs(self) -> int:
        """How often a file was synced since the folder was mounted."""
        return int((await self._ask("count"))["syncs"])

    async def power_off(self) -> None:
        """Bring everything to the disk and unmount, as an orderly shutdown does."""
        await self._ask("stop")
        await self._end()

    async def _ask(self, what: str) -> dict[str, Any]:
        assert self._process is not None, "it is not mounted"
        assert self._process.stdin is not None
        self._process.stdin.write(f"{what}\n".encode())
        await self._process.stdin.drain()
        return await self._answer()

    async def _answer(self) -> dict[str, Any]:
        assert self._process is not None
        assert self._process.stdout is not None
        line = await asyncio.wait_for(self._process.stdout.readline(), PATIENCE)
        if not line:
            raise RuntimeError(f"the file system ended: {self._last_words()}")
        return json.loads(line)

    async def _mounted(self) -> None:
        """Wait until the mount point is another file system; the answer comes a moment earlier."""
        async with asyncio.timeout(PATIENCE):
            while not self.mount.is_mount():
                await asyncio.sleep(0.01)

    def _last_words(self) -> str:
        log = (self._folder / "powerfs.log").read_text(encoding="utf-8", errors="replace")
        return log[-500:].strip() or "it wrote no log"

    async def _end(self) -> None:
        """Kill the process: the kernel then answers all that hang in the folder. Then unmount."""
        process, self._process = self._process, None
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        # Not `communicate`: pipes are closed with the process.
        await asyncio.wait_for(process.wait(), PATIENCE)
        if process.stdin is not None:
            process.stdin.close()
        await asyncio.to_thread(unmount, str(self.mount))
