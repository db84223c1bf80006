"""Faults of the line and of the server, made on purpose: a proxy that cuts, and a server that speaks by script."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any, Self
from urllib.parse import urlsplit

from tests.patience import PATIENCE


class Cut:
    """A proxy before a server: cuts connections, swallows what the server says, or refuses newcomers."""

    def __init__(self, url: str) -> None:
        place = urlsplit(url)
        self._target = (place.hostname, place.port)
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.deaf = False
        """Swallow what the server says."""
        self.closed = False
        """Refuse new connections."""
        self.connections = 0
        self.sent = b""
        """What the clients said."""
        self.swallowed = b""
        """What the server said while `deaf`."""

    async def __aenter__(self) -> Self:
        """Listen on a free port."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        """End everything."""
        assert self._server is not None
        self._server.close()
        self.cut()
        if self._tasks:
            await asyncio.wait(self._tasks)

    @property
    def url(self) -> str:
        """Where clients connect."""
        assert self._server is not None
        return f"nats://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    def cut(self) -> None:
        """End all connections, both ways, at once."""
        for writer in self._writers:
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.closed:
            writer.transport.abort()
            return
        self.connections += 1
        there, back = await asyncio.open_connection(*self._target)
        self._writers |= {writer, back}
        pumps = (self._pump(reader, back, up=True), self._pump(there, writer, up=False))
        for pump in pumps:
            task = asyncio.get_running_loop().create_task(pump)
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, up: bool
    ) -> None:
        try:
            while data := await reader.read(65536):
                if up:
                    self.sent += data
                elif self.deaf:
                    self.swallowed += data
                    continue
                writer.write(data)
        except OSError:
            pass
        finally:
            writer.transport.abort()
            self._writers.discard(writer)


class Script:
    """A server that greets properly, answers PING, and hands every other command to the test."""

    def __init__(self, **info: Any) -> None:
        self.info = {"version": "2.15.1", "max_payload": 1048576, "headers": True, **info}
        self.connects = 0
        self.connected = asyncio.Event()
        self.lines: list[bytes] = []
        self.on_line: Callable[[bytes, asyncio.StreamWriter], None] | None = None
        self.writers: list[asyncio.StreamWriter] = []
        self._tasks: set[asyncio.Task[Any]] = set()
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        """Listen on a free port."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        """End everything."""
        assert self._server is not None
        self._server.close()
        for writer in self.writers:
            writer.transport.abort()
        if self._tasks:
            await asyncio.wait(self._tasks)

    @property
    def url(self) -> str:
        """Where clients connect."""
        assert self._server is not None
        return f"nats://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.writers.append(writer)
        writer.write(b"INFO " + json.dumps({"jetstream": True, **self.info}).encode() + b"\r\n")
        try:
            while line := await reader.readline():
                self.lines.append(line)
                if self.on_line is not None:
                    self.on_line(line, writer)
                elif line.startswith(b"PING"):
                    writer.write(b"PONG\r\n")
                if line.startswith(b"CONNECT"):
                    self.connects += 1
                    self.connected.set()
        except OSError:
            pass


async def until(condition: Callable[[], bool]) -> None:
    """Wait, bounded, until the condition holds: it is looked at once every turn of the loop."""
    async with asyncio.timeout(PATIENCE):
        while not condition():
            await asyncio.sleep(0.001)
