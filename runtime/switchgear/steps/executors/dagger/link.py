"""One session and the SDK's client on it: an isolated connection that never sends a query twice.

The SDK's own retry would run a failing step five times, its global client stays broken after one failure, and its
`async with` takes over logging where an OTEL_ variable is set: none of the three is used.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import logging
import re
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from switchgear.steps.executors.dagger.errors import SessionLost
from switchgear.steps.executors.dagger.output import Output
from switchgear.steps.executors.dagger.session import CliSession, authorization, to_its_end

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from typing import TypeAlias

    import dagger

    Client: TypeAlias = dagger.Client
    Container: TypeAlias = dagger.Container

    from switchgear.steps.executors.dagger.settings import DaggerSettings

_CLOSING = 2.0
"""Seconds for a client to close its connections."""
_ANSWER = 4096
_QUERY = re.compile(r"HTTP Request: POST http://127\.0\.0\.1:\d+/query ")
"""How httpx logs each question to a session."""


class Link:
    """A session with a client. Whoever uses it holds it by `users`."""

    def __init__(
        self,
        client: dagger.Client,
        connection: Any,
        cli: CliSession | None,
        address: tuple[int, str],
    ) -> None:
        self.client = client
        self.users = 0
        self.images: dict[tuple[str, ...], dagger.Container] = {}
        """Images that are there already, in this session."""
        self.lost: asyncio.Future[SessionLost] = asyncio.get_running_loop().create_future()
        """Why it is of no use any more, once it is."""
        self.output = Output(*address)
        """What runs in it tells while it runs."""
        self._connection = connection
        self._cli = cli
        self._address = address
        self._watch = None if cli is None else asyncio.ensure_future(self._watched(cli))

    @classmethod
    async def open(cls, settings: DaggerSettings) -> Link:
        """Start a session, or join the provided one, and connect.

        Raises SessionFailed, TimeoutError, or what the SDK raises; then nothing of it is left, as on a cancel.
        """
        cli = None if settings.provided else await CliSession.start(settings)
        try:
            port, token = (
                (settings.provided.port, settings.provided.token)
                if settings.provided
                else (cli.port, cli.token)  # type: ignore[union-attr]
            )
            # Not within the limit: on a busy host the SDK alone takes longer to load than an engine to answer.
            await asyncio.to_thread(importlib.import_module, "dagger")
            async with asyncio.timeout(settings.connect_timeout.total_seconds()):
                client, connection = await connect(port, token)
        except BaseException:
            if cli is not None:
                await cli.kill()
            raise
        return cls(client, connection, cli, (port, token))

    @property
    def pid(self) -> int | None:
        """Of the CLI, where it is ours."""
        return None if self._cli is None else self._cli.pid

    @property
    def usable(self) -> bool:
        """Whether it is of use, as far as can be seen from here."""
        if not self.lost.done() and self._cli is not None and not self._cli.alive:
            self.lose("the session's CLI ended")
        return not self.lost.done()

    @property
    def stderr(self) -> str:
        """The last words of the CLI."""
        return "" if self._cli is None else self._cli.stderr

    async def probe(self, timeout: float) -> bool:
        """Whether the engine gives a sign of life, on a connection of its own."""
        return await probe(*self._address, timeout)

    def lose(self, why: str, *, frozen: bool = False) -> None:
        """It is of no use any more: whoever uses it hears so."""
        if not self.lost.done():
            self.lost.set_result(SessionLost(why, frozen=frozen))

    async def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Await this work, or raise SessionLost when the session is lost first; the work is cancelled then."""
        task = asyncio.ensure_future(work)
        try:
            await asyncio.wait({task, self.lost}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            if not task.done():
                task.cancel()
                await asyncio.wait({task})
        if task.cancelled():
            raise self.lost.result()
        return task.result()

    async def close(self, *, kill: bool = False) -> None:
        """Let go of the session; `kill`: at once. What still uses it fails."""
        self.lose("the session was closed")
        if self._watch is not None:
            self._watch.cancel()
        try:
            with suppress(Exception):  # a connection that cannot be closed is as good as closed
                async with asyncio.timeout(_CLOSING):
                    await self.output.close()
                    await self._connection.close()
        finally:
            if self._cli is not None:
                # a CLI that is left keeps its engine from stopping
                await to_its_end(self._cli.kill() if kill else self._cli.close())

    async def _watched(self, cli: CliSession) -> None:
        await cli.ended()
        self.lose(f"the session's CLI ended: {cli.stderr.strip()[-500:] or 'it said nothing'}")


async def connect(port: int, token: str) -> tuple[dagger.Client, Any]:
    """A client of its own on this session, and the connection to close in the end. Raises as the SDK."""
    # It takes a second and holds 16,000 generated lines: elsewhere, so that leases are extended meanwhile.
    dagger = await asyncio.to_thread(importlib.import_module, "dagger")
    sessions = importlib.import_module("dagger.client._session")
    configs = importlib.import_module("dagger.client._config")
    logging.getLogger("httpx").addFilter(_is_no_query)
    connection = sessions.SingleConnection(
        sessions.ConnectParams(port=port, session_token=token), configs.ConnectConfig(retry=None)
    )
    try:
        await connection.connect()
    except BaseException:
        await connection.close()
        raise
    return dagger.Client.from_connection(connection), connection


def _is_no_query(record: logging.LogRecord) -> bool:
    """A handler's log, and so its task's lines, are of what it does and not of how a step is run."""
    return _QUERY.match(record.getMessage()) is None


async def probe(port: int, token: str, timeout: float) -> bool:
    """Whether the engine behind this session answers within so many seconds.

    By hand: the SDK's hundred connections may all be waiting, and its client takes longer to make than the question.
    """
    body = b'{"query": "{ version }"}'
    head = (
        "POST /query HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n"
        f"{authorization(token)}"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    writer: asyncio.StreamWriter | None = None
    try:
        async with asyncio.timeout(timeout):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(head.encode() + body)
            answer = b""
            while (well := gives_version(answer)) is None and len(answer) < _ANSWER:
                more = await reader.read(_ANSWER)
                if not more:
                    break
                answer += more
        return bool(well)
    except (OSError, TimeoutError):
        return False
    finally:
        if writer is not None:
            writer.close()


def gives_version(answer: bytes) -> bool | None:
    """Whether this answer holds what a probe asks for: also errors come with status 200. None: not all is there yet.

    Pure. Looks for the first JSON object of the body, so it may come as a chunk or as a whole.
    """
    _, _, body = answer.partition(b"\r\n\r\n")
    if not answer.startswith((b"HTTP/1.1 200", b"HTTP/1.0 200")):
        return False if b"\n" in answer else None
    text = body.decode("utf-8", "replace")
    try:
        found, _ = json.JSONDecoder().raw_decode(text, text.index("{"))
    except ValueError:
        return None
    match found:
        case {"data": {"version": str()}}:
            return not found.get("errors")
        case _:
            return False
