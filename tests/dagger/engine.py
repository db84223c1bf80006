"""A Dagger engine for tests: GraphQL over HTTP, sessions, real processes, and faults on demand.

What it answers is what a real engine of 0.21 was seen to answer. It knows nothing of layers, pulls or networks.
"""

from __future__ import annotations

import asyncio
import base64
import json
import re
import secrets
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from tests.dagger.containers import Host
from tests.dagger.evaluation import SESSION, Evaluation
from tests.dagger.schema import introspection
from tests.dagger.telemetry import Logs
from tests.patience import PATIENCE

Reply = tuple[int, bytes]
"""Status and body."""


@dataclass
class Fault:
    """What happens to the next queries that contain a text."""

    kind: str
    """`drop-before`, `drop-after`, `hang`, `answer`."""
    contains: str = "withExec"
    times: int = 1
    status: int = 200
    body: Any = None
    """Of an `answer`: bytes, or what becomes JSON."""


@dataclass
class Engine:
    """`async with`: listens on a port of its own."""

    folder: Path
    environ: dict[str, str] = field(default_factory=dict[str, str])
    """What the CLI that asks has in its environment."""
    faults: list[Fault] = field(default_factory=list[Fault])
    queries: list[str] = field(default_factory=list[str])
    """All that was asked, but introspection and probes."""
    probes: int = 0
    sign: bytes = b'{"data": {"version": "v0.21.8"}}'
    """The answer to probes."""
    sessions: dict[str, asyncio.StreamWriter | None] = field(
        default_factory=dict[str, asyncio.StreamWriter | None]
    )
    opened: int = 0
    """Sessions that ever were."""
    traceparents: list[str] = field(default_factory=list[str])
    port: int = 0

    def __post_init__(self) -> None:
        self.logs = Logs()
        self.host = Host(self.folder, self._written)
        self.evaluation = Evaluation(self.host, lambda: self.environ, hang=self._for_ever)
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()
        self._thawed = asyncio.Event()
        self._thawed.set()
        self.asked = asyncio.Condition()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.thaw()
        await self.kill()

    @property
    def runner(self) -> str:
        return f"tcp://127.0.0.1:{self.port}"

    async def start(self) -> None:
        """Listen, on the same port as before."""
        self._server = await asyncio.start_server(self._accepted, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def kill(self) -> None:
        """Die at once: processes, sessions and all that it remembers are gone."""
        if self._server is not None:
            self._server.close()
        for connection in [*self._connections]:
            connection.cancel()  # first: nobody hears how its processes ended
        await self.host.kill()
        await asyncio.gather(*self._connections, return_exceptions=True)
        self.sessions.clear()
        self.evaluation.done.clear()
        self.evaluation.pulled.clear()
        if self._server is not None:
            await self._server.wait_closed()

    def freeze(self) -> None:
        """Answer nothing from now on, and close nothing, as a stopped process does."""
        self._thawed.clear()

    def thaw(self) -> None:
        self._thawed.set()

    async def running(self, count: int = 1) -> None:
        """Return when so many executions have begun."""
        async with asyncio.timeout(PATIENCE):
            while self.host.started < count:
                await asyncio.sleep(0.01)

    async def provided(self) -> tuple[int, str]:
        """A session that nobody's CLI owns."""
        token = secrets.token_hex(8)
        self.sessions[token] = None
        return self.port, token

    async def _for_ever(self) -> None:
        await asyncio.Event().wait()

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            await self._thawed.wait()
            first = await reader.readline()
            if first.startswith(b"SESSION"):
                await self._session(reader, writer)
            if first.startswith(b"GET /v1/logs "):
                await self._logs(reader, writer)
            while first.startswith(b"POST"):
                if not await self._answer(reader, writer):
                    break
                first = await reader.readline()
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            self._connections.discard(task)
            writer.close()

    async def _session(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        token = secrets.token_hex(8)
        self.sessions[token] = writer
        self.opened += 1
        writer.write(f"{token}\n".encode())
        await reader.read()
        self.sessions.pop(token, None)

    def _written(self, span: str, stream: int, data: bytes) -> None:
        self.logs.write(SESSION.get(), span, stream, data)

    async def _logs(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        headers = await _headers(reader)
        session = self._asker(headers)
        if session is None:
            writer.write(b"HTTP/1.0 401 Unauthorized\r\nContent-Length: 0\r\n\r\n")
            return
        await self.logs.serve(session, int(headers.get("x-last-event-id") or 0), reader, writer)

    def _asker(self, headers: dict[str, str]) -> str | None:
        """Whose request it is; None: of nobody who may ask."""
        token = base64.b64decode(headers.get("authorization", "Basic ").partition(" ")[2]).decode()
        return token if token.removesuffix(":") in self.sessions else None

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Answer one request; False: the connection is over."""
        headers = await _headers(reader)
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        text = json.loads(body)["query"]
        self.traceparents.append(headers.get("traceparent", ""))
        working = asyncio.ensure_future(self._reply(text, headers))
        gone = asyncio.ensure_future(reader.read(1))
        try:
            await asyncio.wait({working, gone}, return_when=asyncio.FIRST_COMPLETED)
            # A client that closes its connection has its work cancelled, processes and all.
            reply = working.result() if working.done() else None
        finally:
            for task in (working, gone):
                task.cancel()
            await asyncio.gather(working, gone, return_exceptions=True)
        await self._thawed.wait()
        if reply is None:
            return False
        status, data = reply
        head = f"HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n"
        writer.write(head.encode() + data)
        await writer.drain()
        return True

    async def _reply(self, text: str, headers: dict[str, str]) -> Reply | None:
        """What to answer; None: nothing, the connection is cut."""
        token = self._asker(headers)
        if token is None:
            return 401, b"not authorised"
        SESSION.set(token)  # each request is a task of its own
        if "__schema" in text:
            return 200, json.dumps({"data": introspection()}).encode()
        if re.sub(r"\s", "", text) == "{version}":
            self.probes += 1
            return 200, self.sign
        self.queries.append(text)
        fault = next((one for one in self.faults if one.times and one.contains in text), None)
        if fault is None:
            return 200, json.dumps(await self.evaluation.query(text)).encode()
        fault.times -= 1
        match fault.kind:
            case "drop-before":
                return None
            case "drop-after":
                await self.evaluation.query(text)
                return None
            case "hang":
                await self._for_ever()
            case _:
                pass
        data = fault.body if isinstance(fault.body, bytes) else json.dumps(fault.body).encode()
        return fault.status, data


async def _headers(reader: asyncio.StreamReader) -> dict[str, str]:
    headers: dict[str, str] = {}
    while (line := (await reader.readline()).strip()) != b"":
        name, _, value = line.decode().partition(":")
        headers[name.lower()] = value.strip()
    return headers


def error(message: str, *path: str, **extensions: object) -> dict[str, Any]:
    """The body of an answer that is an error."""
    return {
        "data": None,
        "errors": [{"message": message, "path": list(path) or None, "extensions": extensions}],
    }
