"""The CLI of a Dagger session as a child of this process: started within a deadline, heard, killed and reaped.

Knows nothing of the SDK. While its engine cannot be reached, a CLI tries for ten minutes, ignores SIGTERM and a closed
standard input; so this looks first whether the engine listens, and ends what it started with SIGKILL.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import shutil
import signal
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit

from switchgear.steps.executors.dagger.errors import SessionFailed
from switchgear.steps.executors.dagger.settings import PORT, RUNNER, TOKEN
from switchgear.steps.tail import Tail

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from switchgear.steps.executors.dagger.settings import DaggerSettings

STDERR = 8 * 1024
"""Bytes kept of what a CLI says: the only place where it tells why it cannot start."""
_LINE = 64 * 1024
_REACH = 2.0
"""Seconds for an engine to take a connection."""
_CLOSING = 2.0
"""Seconds for a CLI to end by itself when it is let go."""
_REAPING = 5.0
_SETTLE = 0.2
"""Seconds to read the last words of a CLI that has ended."""


class CliSession:
    """One running `dagger session`."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._stderr = Tail(STDERR)
        self._drains = [asyncio.ensure_future(self._drain(process.stderr, self._stderr))]
        self.port = 0
        self.token = ""

    @classmethod
    async def start(cls, settings: DaggerSettings) -> CliSession:
        """Start a CLI and wait until it serves. Raises SessionFailed; then nothing of it is left, as on a cancel."""
        if shutil.which(settings.cli) is None:
            missing = FileNotFoundError(settings.cli)
            raise SessionFailed(f"the CLI {settings.cli} does not exist") from missing
        await reach(settings.runner)
        try:
            process = await asyncio.create_subprocess_exec(
                *_argv(settings.cli),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                env=environment(settings),
                start_new_session=True,
                limit=_LINE,
            )
        except OSError as error:
            raise SessionFailed(f"{settings.cli} cannot be started: {error.strerror}") from error
        session = cls(process)
        try:
            async with asyncio.timeout(settings.start_timeout.total_seconds()):
                await session._ready()
        except TimeoutError:
            await session.kill()
            waited = settings.start_timeout.total_seconds()
            raise SessionFailed(
                f"the session was not ready within {waited:g} s", session.stderr
            ) from None
        except BaseException:
            await session.kill()
            raise
        return session

    @property
    def pid(self) -> int:
        """Of the CLI."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether the CLI runs: asked of the system, since the loop hears of an end only later."""
        if self._process.returncode is not None:
            return False
        with suppress(ChildProcessError):
            how = os.WEXITED | os.WNOHANG | os.WNOWAIT
            return os.waitid(os.P_PID, self._process.pid, how) is None
        return False

    @property
    def stderr(self) -> str:
        """The last part of what it said."""
        return self._stderr.text()

    async def ended(self) -> None:
        """Return when the CLI has ended."""
        await self._process.wait()

    async def close(self) -> None:
        """Let it end by itself, so that it can hand on its telemetry; kill it if it does not."""
        if self.alive and self._process.stdin is not None:
            self._process.stdin.close()
            with suppress(TimeoutError):
                async with asyncio.timeout(_CLOSING):
                    await asyncio.shield(self._process.wait())
        await self.kill()

    async def kill(self) -> None:
        """End it now, with all that it started, and reap it, also when cancelled."""
        if self.alive:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)
        await to_its_end(self._reap())

    async def _reap(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(_REAPING):
                await self._process.wait()
        for drain in self._drains:
            drain.cancel()
        await asyncio.gather(*self._drains, return_exceptions=True)
        if self._process.stdin is not None:
            self._process.stdin.close()
        # A grandchild that left the group may hold a pipe: without this it would stay open.
        cast("asyncio.SubprocessTransport", vars(self._process)["_transport"]).close()

    async def _ready(self) -> None:
        assert self._process.stdout is not None
        try:
            line = await self._process.stdout.readline()
        except ValueError as error:
            raise SessionFailed("the session's first line has no end", self.stderr) from error
        if not line:
            await self._process.wait()
            with suppress(TimeoutError):
                async with asyncio.timeout(_SETTLE):
                    await asyncio.shield(self._drains[0])
            raise SessionFailed(
                f"the CLI ended with exit code {self._process.returncode}", self.stderr
            )
        try:
            told = json.loads(line)
            self.port, self.token = int(told["port"]), str(told["session_token"])
        except (ValueError, KeyError, TypeError) as error:
            raise SessionFailed("the session's first line cannot be read", self.stderr) from error
        self._drains.append(asyncio.ensure_future(self._drain(self._process.stdout, Tail(0))))

    @staticmethod
    async def _drain(stream: asyncio.StreamReader | None, tail: Tail) -> None:
        assert stream is not None
        while data := await stream.read(_LINE):
            tail.feed(data)


def authorization(token: str) -> str:
    """The header line under which a session answers requests that are made by hand."""
    return f"Authorization: Basic {base64.b64encode(f'{token}:'.encode()).decode()}\r\n"


async def to_its_end(work: Coroutine[Any, Any, None]) -> None:
    """Await this, also when cancelled, however often; the cancel goes on afterwards. The work must bound itself."""
    ending, cancelled = asyncio.ensure_future(work), None
    while not ending.done():
        try:
            await asyncio.wait({ending})
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        raise cancelled
    ending.result()


def environment(settings: DaggerSettings) -> dict[str, str]:
    """What the CLI gets: a session's own variables would make it a client of that session, which ends at once."""
    kept = dict(settings.environ)
    for name in (PORT, TOKEN, "TRACEPARENT", "TRACESTATE"):
        kept.pop(name, None)
    if settings.runner:
        kept[RUNNER] = settings.runner
    # Colours and questions are for people; the CLI must not look for a newer one of itself, and what it would show of
    # the steps' outputs it would also keep in memory, as long as the session lasts.
    return {
        "DAGGER_NO_UPDATE_CHECK": "1",
        "DAGGER_SILENT": "1",
        "DO_NOT_TRACK": "1",
        "NO_COLOR": "1",
        **kept,
    }


async def reach(runner: str) -> None:
    """Look whether the engine listens, where that can be seen from here. Raises SessionFailed."""
    parts = urlsplit(runner)
    try:
        async with asyncio.timeout(_REACH):
            if parts.scheme == "unix":
                _, writer = await asyncio.open_unix_connection(parts.path)
            elif parts.scheme == "tcp" and parts.port is not None:
                _, writer = await asyncio.open_connection(parts.hostname, parts.port)
            else:
                return
    except (OSError, TimeoutError) as error:
        why = getattr(error, "strerror", None) or "it does not answer"
        raise SessionFailed(f"the engine at {runner} cannot be reached: {why}") from None
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()


def _argv(cli: str) -> list[str]:
    argv = [cli, "session", "--label", "dagger.io/sdk.name:python"]
    setpriv = shutil.which("setpriv") if sys.platform == "linux" else None
    # Dies with this process, even if that is killed: otherwise it would go on looking for its engine.
    return argv if setpriv is None else [setpriv, "--pdeathsig", "KILL", "--", *argv]
