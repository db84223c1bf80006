"""The proxy cuts at the byte it was told, loses what it swallows, and keeps what it holds."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable

import pytest
import pytest_asyncio
from hypothesis import given
from hypothesis import strategies as st

from tests.faults.tools.frames import Scanner
from tests.faults.tools.proxy import FaultProxy, Way
from tests.patience import PATIENCE

pytestmark = pytest.mark.faults

FRAMES = [
    b"CONNECT {}\r\n",
    b"PUB a.b 5\r\nhello\r\n",
    b"HPUB a r 12 18\r\nNATS/1.0\r\n\r\nPING\r\n\r\n",
    b"MSG a 1 0\r\n\r\n",
    b"HMSG a 1 12 12\r\nNATS/1.0\r\n\r\n\r\n",
    b"+OK\r\n",
    b"ping\r\n",
]
STREAM = b"".join(FRAMES)


@given(st.lists(st.integers(0, len(STREAM)), max_size=12))
def test_frames_are_found_however_the_stream_is_divided(cuts: list[int]) -> None:
    scanner = Scanner()
    places = [0, *sorted(cuts), len(STREAM)]
    found, frame, verbs = list[bytes](), b"", list[bytes]()
    for start, end in itertools.pairwise(places):
        for piece in scanner.feed(STREAM[start:end]):
            assert piece.starts == (not frame)
            frame += piece.data
            if piece.ends:
                found.append(frame)
                verbs.append(piece.verb)
                frame = b""
    assert found == FRAMES
    assert verbs == [one.split()[0].upper() for one in FRAMES]
    assert scanner.is_between


def test_endless_line_is_no_nats() -> None:
    with pytest.raises(ValueError, match="no NATS"):
        Scanner().feed(b"x" * 70000)


class Echo:
    """A server that says back what it hears."""

    def __init__(self) -> None:
        self.heard = bytearray()
        self.was_reset = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        try:
            while data := await reader.read(65536):
                self.heard += data
                writer.write(data)
        except ConnectionResetError:
            self.was_reset.set()
        finally:
            writer.close()


@pytest.fixture
def echo() -> Echo:
    return Echo()


@pytest_asyncio.fixture
async def proxy(echo: Echo) -> AsyncIterator[FaultProxy]:
    """A proxy before the server."""
    server = await asyncio.start_server(echo.serve, "127.0.0.1", 0)
    async with FaultProxy(server.sockets[0].getsockname()[1]) as made:
        yield made
    server.close()


class Line:
    """A client's connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self.writer = writer

    async def hear(self, count: int) -> bytes:
        """So many bytes."""
        return await asyncio.wait_for(self._reader.readexactly(count), PATIENCE)

    async def end(self) -> bytes:
        """What comes before a reset."""
        heard = b""
        async with asyncio.timeout(PATIENCE):
            while True:
                try:
                    heard += await self._reader.readexactly(1)
                except ConnectionResetError:
                    return heard


async def until(true: Callable[[], bool]) -> None:
    """Wait until it holds."""
    async with asyncio.timeout(PATIENCE):
        while not true():
            await asyncio.sleep(0.001)


@contextlib.asynccontextmanager
async def line(proxy: FaultProxy) -> AsyncGenerator[Line]:
    """Connect."""
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    try:
        yield Line(reader, writer)
    finally:
        writer.transport.abort()


async def test_healthy_line_passes_all_and_its_end(proxy: FaultProxy, echo: Echo) -> None:
    data = STREAM * 5000
    async with line(proxy) as one:
        one.writer.write(data)
        one.writer.write_eof()
        assert await one.hear(len(data)) == data
    assert bytes(echo.heard) == data


@pytest.mark.parametrize(("inside", "passed"), [(True, b"PUB a.b 5"), (False, FRAMES[1])])
async def test_cut_comes_at_its_frame(
    proxy: FaultProxy, echo: Echo, *, inside: bool, passed: bytes
) -> None:
    """Others pass before it, nothing after; both ends see a reset."""
    cut = proxy.cut_next("up", b"pub", inside=inside)
    async with line(proxy) as one:
        one.writer.write(STREAM)
        await asyncio.wait_for(cut.wait(), PATIENCE)
        await one.end()
        await asyncio.wait_for(echo.was_reset.wait(), PATIENCE)
    assert bytes(echo.heard) == FRAMES[0] + passed


async def test_cut_now_resets_the_line_and_the_next_one_works(proxy: FaultProxy) -> None:
    async with line(proxy) as one:
        one.writer.write(b"PING\r\n")
        await one.hear(6)
        proxy.cut()
        assert await one.end() == b""
    async with line(proxy) as one:
        one.writer.write(b"PING\r\n")
        assert await one.hear(6) == b"PING\r\n"


@pytest.mark.parametrize("way", ["up", "down"])
async def test_swallowed_bytes_are_lost_and_healing_resets(
    proxy: FaultProxy, echo: Echo, way: Way
) -> None:
    async with line(proxy) as one:
        one.writer.write(b"PING\r\n")
        await one.hear(6)
        proxy.swallow(way)
        one.writer.write(b"PONG\r\n")
        await until(lambda: proxy.swallowed[way] >= 6)
        if way == "down":
            await until(lambda: b"PONG" in echo.heard)
        assert (b"PONG" in echo.heard) == (way == "down")
        proxy.heal()
        assert await one.end() == b""


@pytest.mark.parametrize("way", ["up", "down"])
async def test_held_bytes_arrive_late_and_in_order(proxy: FaultProxy, echo: Echo, way: Way) -> None:
    """A partition of one way: the other goes on."""
    async with line(proxy) as one:
        one.writer.write(b"PING\r\n")
        await one.hear(6)
        proxy.hold(way)
        one.writer.write(b"PUB a 1\r\n")
        if way == "down":
            await until(lambda: b"PUB" in echo.heard)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(one.hear(1), 0.1)
        assert (b"PUB" in echo.heard) == (way == "down")
        one.writer.write(b"1\r\n")
        proxy.heal()
        assert await one.hear(12) == b"PUB a 1\r\n1\r\n"


async def test_slow_line_delays_and_keeps_the_order(proxy: FaultProxy) -> None:
    proxy.slow(30, jitter_ms=10)
    async with line(proxy) as one:
        start = time.monotonic()
        one.writer.write(STREAM)
        assert await one.hear(len(STREAM)) == STREAM
        assert time.monotonic() - start >= 0.06


async def test_narrow_line_passes_so_many_bytes_a_second(proxy: FaultProxy) -> None:
    proxy.slow(0, bandwidth=200_000)
    data = STREAM * (40_000 // len(STREAM))
    async with line(proxy) as one:
        start = time.monotonic()
        one.writer.write(data)
        assert await one.hear(len(data)) == data
        assert time.monotonic() - start >= 0.15


async def test_refusing_proxy_takes_nobody_until_healed(proxy: FaultProxy) -> None:
    proxy.refuse()
    async with line(proxy) as one:
        assert await one.end() == b""
    proxy.heal()
    async with line(proxy) as one:
        one.writer.write(b"PING\r\n")
        assert await one.hear(6) == b"PING\r\n"
