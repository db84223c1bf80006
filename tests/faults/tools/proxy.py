"""A TCP proxy before a NATS server that makes the line slow, cuts it at chosen bytes, or lets it go silent."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import struct
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, Self

from tests.faults.tools.frames import Piece, Scanner

Way = Literal["up", "down"]
"""From the clients to the server, or back."""
Ways = Literal["up", "down", "both"]
CHUNK = 65536
IN_FLIGHT = 64
"""Chunks that a slow line holds before it stops reading: what a sender's socket then feels."""
BEFORE_RESET = 0.02
"""Seconds that a peer has to read what comes before a cut."""
RESET = struct.pack("ii", 1, 0)
"""SO_LINGER that makes a close a reset, which throws away what was not sent yet."""


def _ways(ways: Ways) -> set[Way]:
    both: set[Way] = {"up", "down"}
    return both if ways == "both" else {ways}


class _Chunk(NamedTuple):
    due: float
    data: bytes | None
    """Empty at the end of the stream; None where it broke off."""


@dataclass
class _Trap:
    """A cut that waits for its frame."""

    way: Way
    verb: bytes
    """Empty: any frame."""
    inside: bool
    sprung: asyncio.Event = field(default_factory=asyncio.Event)

    def allows(self, piece: Piece) -> int | None:
        """How many bytes of this piece still pass before the cut; None if it is another's."""
        if self.verb and piece.verb != self.verb:
            return None
        if not self.inside:
            return len(piece.data) if piece.ends else None
        if piece.is_whole:
            return len(piece.data) // 2
        return len(piece.data) if piece.starts else 0


class _Line:
    """One way of one connection: a reader that stamps what comes, a writer that passes it when due."""

    def __init__(self, proxy: FaultProxy, way: Way) -> None:
        self._proxy = proxy
        self._way: Way = way
        self._queue = asyncio.Queue[_Chunk](IN_FLIGHT)
        self._scanner = Scanner()
        self.lost = 0
        """Bytes that were swallowed: this stream can never be whole again."""

    async def read(self, reader: asyncio.StreamReader) -> None:
        """Take in what comes, until the end."""
        loop = asyncio.get_running_loop()
        due = 0.0
        data: bytes | None = b"-"
        while data:
            try:
                data = await reader.read(CHUNK)
            except OSError:
                data = None
            # Jitter must not change the order: TCP would not let it.
            due = max(due, loop.time() + self._proxy.delay())
            await self._queue.put(_Chunk(due, data))

    async def write(self, writer: asyncio.StreamWriter) -> None:
        """Pass on what is due, to the end; raises OSError where the stream breaks off or is cut."""
        loop = asyncio.get_running_loop()
        while True:
            chunk = await self._queue.get()
            await asyncio.sleep(max(0.0, chunk.due - loop.time()))
            await self._proxy.passable(self._way)
            if chunk.data and self._proxy.swallows(self._way):
                self.lost += len(chunk.data)
                self._proxy.swallowed[self._way] += len(chunk.data)
                continue
            await self._proxy.audible(self._way)
            if chunk.data is None:
                raise ConnectionResetError("the other end broke off")
            if not chunk.data:
                writer.write_eof()
                return
            async for part in self._parts(chunk.data):
                writer.write(part)
                await writer.drain()

    async def _parts(self, data: bytes) -> AsyncIterator[bytes]:
        """What may pass, at the line's pace; raises ConnectionResetError behind a cut."""
        allowed, trap = self._allowed(data)
        step = self._proxy.pace or len(allowed) or 1
        for at in range(0, len(allowed), step):
            part = allowed[at : at + step]
            yield part
            if self._proxy.bandwidth:
                await asyncio.sleep(len(part) / self._proxy.bandwidth)
        if trap is not None:
            # A reset takes away what the peer has not read yet, and it is to read this.
            await asyncio.sleep(BEFORE_RESET)
            trap.sprung.set()
            raise ConnectionResetError("cut by the proxy")

    def _allowed(self, data: bytes) -> tuple[bytes, _Trap | None]:
        """The bytes before a cut that waits in this way, and the cut if there is one."""
        if self.lost:
            return data, None
        passed = 0
        for piece in self._scanner.feed(data):
            trap = self._proxy.trap
            if trap is not None and trap.way == self._way:
                allowed = trap.allows(piece)
                if allowed is not None:
                    self._proxy.trap = None
                    return data[: passed + allowed], trap
            passed += len(piece.data)
        return data, None


class _Link:
    """One client's connection and its counterpart at the server."""

    def __init__(self, proxy: FaultProxy) -> None:
        self.up = _Line(proxy, "up")
        self.down = _Line(proxy, "down")
        self._writers = list[asyncio.StreamWriter]()

    def reset(self) -> None:
        """End both ends with a reset."""
        for writer in self._writers:
            reset(writer)

    async def run(self, client: _Streams, server: _Streams) -> None:
        """Pass bytes both ways until one end is gone."""
        self._writers = [client.writer, server.writer]
        tasks = [
            asyncio.ensure_future(work)
            for work in (
                self.up.read(client.reader),
                self.down.read(server.reader),
                self.up.write(server.writer),
                self.down.write(client.writer),
            )
        ]
        try:
            # An end may close its half and go on listening: only both ends, or a break, are the link's end.
            await asyncio.wait(tasks[2:], return_when=asyncio.FIRST_EXCEPTION)
            broken = any(task.done() and task.exception() is not None for task in tasks[2:])
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        for writer in self._writers:
            if broken:
                reset(writer)
            else:
                writer.close()


class _Streams(NamedTuple):
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter


def reset(writer: asyncio.StreamWriter) -> None:
    """Close with a reset (RST): the peer sees an error, and bytes on their way are gone."""
    found: socket.socket | None = writer.get_extra_info("socket")
    if found is not None and found.fileno() >= 0:
        with contextlib.suppress(OSError):
            found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    writer.transport.abort()


class FaultProxy:
    """One link: a port of its own on loopback, and the server behind it.

    Faults apply to all connections of the link, those made later too, until `heal`. Give each
    process its own proxy to part one from the others.
    """

    def __init__(self, target_port: int, host: str = "127.0.0.1", *, seed: int = 0) -> None:
        """`seed` is that of the jitter."""
        self._target = (host, target_port)
        self._dice = random.Random(seed)  # noqa: S311 - jitter is no secret
        self._latency = 0.0
        self._jitter = 0.0
        self._mute: set[Way] = set()
        self._held: set[Way] = set()
        self._healed = asyncio.Event()
        self._refuses = False
        self._links = set[_Link]()
        self._tasks = set[asyncio.Task[None]]()
        self._server: asyncio.Server | None = None
        self.bandwidth = 0.0
        """Bytes each second and way; 0: no limit."""
        self.trap: _Trap | None = None
        self.connections = 0
        """Made so far."""
        self.swallowed: dict[Way, int] = {"up": 0, "down": 0}
        """Bytes that vanished."""

    async def __aenter__(self) -> Self:
        """Listen on a free port."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        """End everything."""
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        self.cut()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def port(self) -> int:
        """Where clients connect."""
        assert self._server is not None
        return int(self._server.sockets[0].getsockname()[1])

    @property
    def url(self) -> str:
        """The same, for a NATS client."""
        return f"nats://127.0.0.1:{self.port}"

    @property
    def open_links(self) -> int:
        """Connections that stand now."""
        return len(self._links)

    def slow(self, ms: float, *, jitter_ms: float = 0.0, bandwidth: float = 0.0) -> None:
        """Delay each way by `ms` and up to `jitter_ms` more; pass at most `bandwidth` bytes/s."""
        self._latency, self._jitter = ms / 1000, jitter_ms / 1000
        self.bandwidth = bandwidth

    def cut(self) -> None:
        """Reset all connections now, wherever they are in a frame."""
        for link in self._links:
            link.reset()

    def cut_next(self, way: Way = "up", verb: bytes = b"", *, inside: bool = True) -> asyncio.Event:
        """Reset the connection at its next frame (of this command); the event says when it did.

        `inside`: half of the frame still passes; otherwise all of it. One cut waits at a time.
        """
        self.trap = _Trap(way, verb.upper(), inside)
        return self.trap.sprung

    def swallow(self, ways: Ways = "both") -> None:
        """Let bytes vanish while both ends believe in the connection, as when a peer is gone for good."""
        self._mute |= _ways(ways)

    def hold(self, ways: Ways = "both") -> None:
        """Part both ends, or in one way only; `heal` passes on what was said meanwhile, as TCP does."""
        self._held |= _ways(ways)

    def refuse(self) -> None:
        """Reset new connections at once; those that stand stay."""
        self._refuses = True

    def heal(self) -> None:
        """End all faults. Connections that lost bytes are reset: no TCP stream has holes."""
        self._latency = self._jitter = self.bandwidth = 0.0
        self._mute, self._held, self._refuses, self.trap = set(), set(), False, None
        for link in self._links:
            if link.up.lost or link.down.lost:
                link.reset()
        healed, self._healed = self._healed, asyncio.Event()
        healed.set()

    def delay(self) -> float:
        """Seconds for the next bytes."""
        return self._latency + self._dice.random() * self._jitter

    @property
    def pace(self) -> int:
        """Bytes to pass at once under a limit, a fiftieth of a second's; 0: no limit."""
        return max(1, int(self.bandwidth / 50)) if self.bandwidth else 0

    async def passable(self, way: Way) -> None:
        """Wait while this way is held."""
        while way in self._held:
            await self._healed.wait()

    def swallows(self, way: Way) -> bool:
        """Whether bytes vanish in this way."""
        return way in self._mute

    async def audible(self, way: Way) -> None:
        """Wait while bytes vanish in this way."""
        while way in self._mute:
            await self._healed.wait()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        if self._refuses:
            reset(writer)
            return
        self.connections += 1
        link = _Link(self)
        self._links.add(link)
        try:
            there, back = await asyncio.open_connection(*self._target)
        except OSError:
            self._links.discard(link)
            reset(writer)
            return
        try:
            await link.run(_Streams(reader, writer), _Streams(there, back))
        except asyncio.CancelledError:
            link.reset()  # at the end of the proxy
        finally:
            self._links.discard(link)
