"""What runs in a session tells while it runs: the session's own stream of log records, shared by its steps.

The session's CLI hands on the engine's `GET /v1/logs`: server-sent events of OTLP records in JSON, under the token that
queries need. Nothing listens for it, and nothing waits for it: where it is lost, lines come with the final text.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Generator
from contextlib import contextmanager

import msgspec
from msgspec import Struct

from switchgear.steps.executors.dagger import lines
from switchgear.steps.executors.dagger.session import authorization

log = logging.getLogger(__name__)

_EVENT = 8 * 1024 * 1024
"""Bytes of the longest event that is read: a thousand records at most."""
_CONNECT = 5.0
"""Seconds for the session to begin its answer."""
_AGAIN = 1.0
"""Seconds until a stream that broke is asked for again, from where it broke."""
_STDERR = "2"

Heard = Callable[[str], None]
"""Told what a step's script has sent, in pieces of any size; must return at once."""


class _Value(Struct, frozen=True, rename="camel"):
    string_value: str = ""
    int_value: str | int = ""


class _Attribute(Struct, frozen=True):
    key: str = ""
    value: _Value = _Value()


class _Record(Struct, frozen=True, rename="camel"):
    trace_id: str = ""
    span_id: str = ""
    body: _Value = _Value()
    attributes: list[_Attribute] = []


class _Scope(Struct, frozen=True, rename="camel"):
    log_records: list[_Record] = []


class _Resource(Struct, frozen=True, rename="camel"):
    scope_logs: list[_Scope] = []


class _Event(Struct, frozen=True, rename="camel"):
    resource_logs: list[_Resource] = []


class Output:
    """The stream of one session; read from the first step on that wants its lines."""

    def __init__(self, port: int, token: str) -> None:
        self._address = (port, token)
        self._runs: dict[str, Heard] = {}
        """Who is to hear which run."""
        self._spans: dict[tuple[str, str], Heard] = {}
        self._last = ""
        self._reading: asyncio.Task[None] | None = None

    @contextmanager
    def heard(self, run: str, heard: Heard) -> Generator[None]:
        """As long as this is entered, `heard` gets what the script of this run sends."""
        if self._reading is None:
            self._reading = asyncio.ensure_future(self._read())
        self._runs[run] = heard
        try:
            yield
        finally:
            self._runs.pop(run, None)
            self._spans = {span: one for span, one in self._spans.items() if one is not heard}

    async def close(self) -> None:
        """Let go of the stream."""
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.wait({self._reading})

    async def _read(self) -> None:
        while True:
            try:
                if not await self._read_once():
                    return
            except Exception as error:  # noqa: BLE001  # whatever it is: steps run without it
                log.debug("dagger.output-lost %r", error)
            await asyncio.sleep(_AGAIN)

    async def _read_once(self) -> bool:
        """Read until it ends; False: this session has no such stream. Raises what breaks it."""
        port, token = self._address
        # 1.0: the answer comes as it is, and not in chunks
        head = f"GET /v1/logs HTTP/1.0\r\nHost: 127.0.0.1\r\n{authorization(token)}"
        if self._last:
            head += f"X-Last-Event-ID: {self._last}\r\n"
        async with asyncio.timeout(_CONNECT):
            reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=_EVENT)
        try:
            writer.write(f"{head}\r\n".encode())
            async with asyncio.timeout(_CONNECT):
                status = await reader.readline()
            if not status:
                raise ConnectionResetError("no answer")
            if status.split()[1:2] != [b"200"]:
                log.info("dagger.output-refused %s", status.decode(errors="replace").strip())
                return False
            await self._events(reader)
        finally:
            writer.close()
        return True

    async def _events(self, reader: asyncio.StreamReader) -> None:
        number = ""
        try:
            while line := await reader.readline():
                name, _, value = line.partition(b": ")
                if name == b"id":
                    number = value.decode().strip()
                elif name == b"data":
                    self._take(value)
                    self._last = number or self._last
        except (ValueError, msgspec.MsgspecError):
            self._last = number or self._last  # too long, or not readable: left out
            raise

    def _take(self, data: bytes) -> None:
        """Hand on the records of an event to whom they belong. Raises MsgspecError."""
        if not self._runs or not data.strip():
            return
        event = msgspec.json.decode(data, type=_Event)
        for resource in event.resource_logs:
            for scope in resource.scope_logs:
                for record in scope.log_records:
                    if record.body.string_value and _is_stderr(record):
                        self._record((record.trace_id, record.span_id), record.body.string_value)

    def _record(self, span: tuple[str, str], text: str) -> None:
        heard = self._spans.get(span)
        if heard is None:
            found = lines.beginning(text)
            if found is None or found[0] not in self._runs:
                return
            heard = self._spans[span] = self._runs[found[0]]
            text = found[1]
        heard(text)


def _is_stderr(record: _Record) -> bool:
    """Whether it is what an execution wrote to its standard error, where scripts send their lines."""
    return any(
        one.key == "stdio.stream" and str(one.value.int_value) == _STDERR
        for one in record.attributes
    )
